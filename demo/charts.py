"""Chord charts for MMA (Musical MIDI Accompaniment), drawn by a seed, and the MIDI files that it makes of them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import regex

from demo import draw, packages
from errors import UserError

PACKAGE, VERSION, FOLDER = "mma", "21.09-1", "usr/share/mma"

KEYS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
# Semitones above the tonic, and what follows the root's name in plain styles and in jazz.
DEGREES = {
    "I": (0, "", "maj7"), "I7": (0, "7", "7"), "II": (2, "7", "7"), "ii": (2, "m", "m7"), "iii": (4, "m", "m7"),
    "III": (4, "7", "7"), "IV": (5, "", "maj7"), "IV7": (5, "7", "7"), "iv": (5, "m", "m6"), "V": (7, "", "7"),
    "V7": (7, "7", "7"), "vi": (9, "m", "m7"), "VI": (9, "7", "7"), "bVII": (10, "", "7"),
    "i": (0, "m", "m7"), "iio": (2, "dim", "m7b5"), "bIII": (3, "", "maj7"), "v": (7, "m", "m7"),
    "bVI": (8, "", "maj7"),
}  # fmt: skip
# Eight bars each, a bar between two spaces, two chords of a bar parted by a slash.
MAJOR = (
    "I vi ii V I vi ii/V I",
    "I I IV IV V V I I",
    "I V vi IV I V IV I",
    "I iii IV V I vi ii V",
    "vi IV I V vi IV I/V I",
    "I II ii V iii VI ii/V I",
    "IV iv I VI ii V I I",
    "I bVII IV I I bVII IV V",
    "ii V I vi ii V I I7",
    "I I7 IV iv I/VI ii/V I V",
)
MINOR = (
    "i bVI bIII bVII i bVI iv V7",
    "i iv bVII bIII bVI iio V7 i",
    "i i iv i bVI V7 i V7",
    "i bVII bVI V7 i bVII bVI/V7 i",
    "iv bVII bIII bVI iio V7 i i",
    "i v bVI bIII iv i iio V7",
)
BLUES = ("I7 IV7 I7 I7 IV7 IV7 I7 VI ii V7 I7 V7", "I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7")
FORMS = "AABA", "AABABA", "AABACABA"  # the first that lasts SHORTEST
SHORTEST = 80.0  # s
# Quarters a minute, slowest and fastest, of the first expression that the style's name has.
TEMPOS = (
    (r"slow|ballad|lullaby|hymn|bolero|serenade|ambient|triphop|spiritual", 60, 88),
    (r"fast|bebop|quickstep|polka|bluegrass|charleston|merengue|samba|rave|techno|trance|metal|salsa|twist", 132, 176),
    (r"waltz", 96, 150),
    (r"swing|jazz|band|dixie|rag|combo|boog", 108, 160),
    (r"", 88, 132),
)
_JAZZ = regex.compile(r"jazz|swing|band|bossa|bebop|combo|evansish|foxtrot|dixie|fusion|broadway|beguine|tune|shoe")
_BLUES = regex.compile(r"blues|boog|shuffle")


def chart(name: str, style: str, intro: str, verse: str, chorus: str, end: str, beats: int) -> str:
    """The text of an MMA file: key, tempo, chords and form by a hash of ``name``.

    Args:
        style: file of MMA's library, as ``stdlib/waltz.mma``.
        intro, verse, chorus, end: grooves that it defines; intro and end may be empty.
        beats: of a bar.
    """
    random_ = random.Random(draw(name, 1 << 62))
    slowest, fastest = next(row[1:] for row in TEMPOS if regex.search(row[0], style))
    tempo, tonic = random_.randint(slowest, fastest), random_.randrange(12)
    jazz, blues = bool(_JAZZ.search(style)), bool(_BLUES.search(style))
    minor = not blues and random_.random() < 0.4
    phrases = [phrase.split() for phrase in random_.sample(BLUES if blues else MINOR if minor else MAJOR, 2)]
    phrases.append(random_.choice(MAJOR).split())  # C, after the others, where a piece is long
    bar = 60 * beats / tempo
    form = next((f for f in FORMS if bar * sum(len(phrases["ABC".index(p)]) for p in f) >= SHORTEST), FORMS[-1])
    last = "i" if minor else "I"
    sections = [(intro, [last, "iv" if minor else "IV", "iio" if minor else "ii", "V7"])] if intro else []
    sections += [(verse if part == "A" else chorus, phrases["ABC".index(part)]) for part in form]
    sections.append((end or verse, ["V7", last]))

    def symbol(degree: str) -> str:
        semitones, plain, seventh = DEGREES[degree]
        return KEYS[(tonic + semitones) % 12] + (seventh if jazz else plain)

    signature = KEYS[(tonic + 3) % 12 if minor else tonic]  # of the relative major: not every minor key has a name
    lines = [f"RndSeed {draw(name, 1 << 31)}", f"Tempo {tempo}", f"KeySig {signature}"]
    number = 0
    for groove, bars in sections:
        lines.append(f"Groove {style}:{groove}")
        for degrees in bars:
            number += 1
            chords = [symbol(degree) for degree in degrees.split("/")]
            lines.append(
                f"{number} " + (f"{chords[0]} / {chords[1]} /" if len(chords) > 1 and beats == 4 else chords[0])
            )
    return "\n".join(lines) + "\n"


class Accompanist:
    """MMA, unpacked into a folder.

    Args:
        folder: where it is, or is put.
        downloads: where its package is, or is put.

    Raises:
        UserError: its package cannot be had, or it does not start.
    """

    def __init__(self, folder: Path, downloads: Path):
        self.program, ready = folder / "mma.py", folder / "ready"
        if ready.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        deb = packages.fetch(PACKAGE, VERSION, downloads)
        packages.unpack(deb, FOLDER, folder)
        for _, file in packages.read(deb, "usr/bin/mma".__eq__):  # looks for its modules beside itself
            self.program.write_bytes(file.read())
        (folder / "plugins").mkdir(exist_ok=True)  # it does not start without
        self._run("-G")  # the index of its grooves
        ready.touch()

    def midi(self, text: str) -> bytes:
        """The MIDI file of a chart.

        Raises:
            UserError: it makes none of it.
        """
        with tempfile.TemporaryDirectory(prefix="nextframe-") as scratch:
            path, out = Path(scratch) / "chart.mma", Path(scratch) / "chart.mid"
            path.write_text(text)
            self._run(str(path), "-f", str(out))
            return out.read_bytes()

    def _run(self, *arguments: str):
        command = [sys.executable, str(self.program.resolve()), *arguments]
        folder = self.program.parent
        environment = {**os.environ, "HOME": str(folder.resolve())}  # not the user's own settings of MMA
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=folder, env=environment)
        if result.returncode:
            said = " ".join(result.stdout.split())[-200:] or f"it ended with status {result.returncode}"
            raise UserError(f"{self.program}: {said}; remove {self.program.parent}, and it is unpacked again")
