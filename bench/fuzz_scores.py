"""Mutated scores and MIDI files: each must become audio or one line, within 30 s of processor time and 1 GiB.

Every case is read and played in a forked child with the limits that ``python -m score`` sets. What ends in another way
is written to ``out/fuzz`` and makes the status 1.
"""

import io
import random
import sys
import zipfile
from functools import partial

import mido
import regex

from bench import ROOT
from bench.fuzzing import arguments_of, change_bytes, run
from prompt import general_midi

RATE = 8000
ELEMENT = regex.compile(rb"<([a-z-]+)(?=[\s>])[^<>]*(?<!/)>(?:[^<>]|<(?!/?\1[\s/>])[^<>]*>)*</\1>|<[a-z-]+[^<>]*/>")
VALUES = [
    "0",
    "-1",
    "1",
    "7",
    "128",
    "1000000000000",
    "-99999",
    "1e308",
    "nan",
    "inf",
    "",
    "x",
    "0.5",
    "\u0663",
    "&#0;",
]


def seeds() -> list[tuple[str, bytes]]:
    """(kind, content) of what is mutated: the scores of the tests, the demo's, and MIDI files."""
    paths = [*sorted((ROOT / "tests" / "scores").glob("*.musicxml")), ROOT / "demo" / "prompt.musicxml"]
    return [("xml", path.read_bytes()) for path in paths] + [("midi", midi_file(kind)) for kind in (0, 1)] * 20


def midi_file(kind: int) -> bytes:
    """A file with everything that is played: tempo, meter, programs, pedal, bend, drums."""
    file = mido.MidiFile(type=kind, ticks_per_beat=480)
    head, tracks = mido.MidiTrack(), [mido.MidiTrack() for _ in range(3)]
    head += [
        mido.MetaMessage("time_signature", numerator=3, denominator=4),
        mido.MetaMessage("set_tempo", tempo=600000),
    ]
    head += [mido.MetaMessage("set_tempo", tempo=400000, time=960), mido.MetaMessage("key_signature", key="D")]
    for channel, track in zip((0, 1, 9), tracks, strict=True):
        track.append(mido.Message("program_change", channel=channel, program=10 * channel))
        track.append(mido.Message("control_change", channel=channel, control=64, value=127))
        for pitch in range(48, 60):
            track.append(mido.Message("pitchwheel", channel=channel, pitch=100 * pitch))
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=80))
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=0, time=120))
        track.append(mido.Message("control_change", channel=channel, control=64, value=0, time=100))
    file.tracks += (
        [mido.MidiTrack([*head, *(message for track in tracks for message in track)])] if kind == 0 else [head, *tracks]
    )
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def mutate(kind: str, blob: bytes, random: random.Random) -> bytes:
    """One to three changes; few of them break XML itself, which its parser finds at once."""
    changes = [change_bytes] if kind == "midi" else [_number, _element, _attribute] * 6 + [change_bytes]
    for _ in range(random.choice([1, 1, 2, 3])):
        blob = random.choice(changes)(blob, random)
    if kind == "xml" and random.random() < 0.1:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("score.xml", blob)
        blob = buffer.getvalue()
        blob = change_bytes(blob, random) if random.random() < 0.7 else blob
    return blob


def _swap(blob: bytes, match, content: bytes) -> bytes:
    return blob if match is None else blob[: match.start()] + content + blob[match.end() :]


def _choice(found, random):
    found = list(found)
    return random.choice(found) if found else None


def _number(blob: bytes, random) -> bytes:
    """The text of an element replaced."""
    match = _choice(regex.finditer(rb"(?<=>)[^<>\s]{1,20}(?=<)", blob), random)
    return _swap(blob, match, random.choice(VALUES).encode())


def _attribute(blob: bytes, random) -> bytes:
    """The value of an attribute replaced."""
    match = _choice(regex.finditer(rb'"[^"<>]*"', blob, pos=max(0, blob.find(b"<score"))), random)
    return _swap(blob, match, b'"%s"' % random.choice(["P9", "start", "stop", *VALUES]).encode())


def _element(blob: bytes, random) -> bytes:
    """An element, with what is in it, taken out or repeated up to 50 times."""
    start = _choice(regex.finditer(rb"<[a-z]", blob, pos=max(0, blob.find(b"<score") + 1)), random)
    match = start and ELEMENT.match(blob, start.start())
    return _swap(blob, match, match[0] * random.choice([0, 0, 2, 3, 50]) if match else b"")


def _play(blob: bytes, soundfont: str) -> str | None:
    """Read and play a case; why it is refused, or None."""
    from score import read
    from score.performance import BadScore
    from score.player import synthesize

    try:
        synthesize(read(blob), RATE, soundfont)
    except BadScore as error:
        return str(error)
    except MemoryError:
        return "needs more memory than a score may; shorten it"
    return None


def main() -> int:
    arguments = arguments_of("bench.fuzz_scores", __doc__.splitlines()[0], 5000)
    # What the children need is imported once.
    import tinysoundfont  # noqa: F401
    from music21 import harmony, instrument, tempo  # noqa: F401

    originals, soundfont = seeds(), general_midi()

    def case(chance: random.Random):
        kind, blob = chance.choice(originals)
        blob = mutate(kind, blob, chance)
        return kind, blob, partial(_play, blob, soundfont)

    return run(arguments, case, "audio", 250)


if __name__ == "__main__":
    sys.exit(main())
