"""The corpus that a base model is trained on: free recordings, and scores played by a synthesizer.

``python -m demo.base_corpus OUT`` makes OUT/recordings (music of games, from Debian packages, see base_corpus.csv),
OUT/rendered (see base_corpus_scores.csv) and OUT/CREDITS.md. It goes on where it was broken off.

Left out altogether, so that a model can be judged by music it has not seen: the packages wesnoth-1.16-music and
drascula-music, and the album legacy_soundtrack of warzone2100-music. The score that the demo's prompt comes from,
bwv66.6, is left out as well.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint import write_atomic
from demo import packages
from demo.catalogue import PACKAGES, Recording, Rendered, recordings, scores, select
from errors import UserError, count, exit_status
from leftovers import sweep_leftovers, temporary_path
from run_log import duration
from terminal import Output, interruptible

if TYPE_CHECKING:
    import numpy as np

# TinySoundFont plays no modulators of a soundfont: the piano of musescore-general-soundfont-small, which is built of
# them, is played at a hundredth of its level there, and softer the harder it is struck. This one has none.
FONT_PACKAGE, FONT_VERSION, FONT_MB = "fluid-soundfont-gm", "3.1-5.3", 120
FONT_PATH = "usr/share/sounds/sf2/FluidR3_GM.sf2"
BYTES_PER_SECOND = 24_000  # of a file of the corpus, rounded up
RENDERING_RATE = 25.0  # seconds of sound made in one: a guess, until some are made
MB = 1_000_000


class Log:
    """What is done and how long it will take, on stderr; ``problems`` counts what could not be made."""

    def __init__(self):
        self.problems = 0
        self._stage, self._began, self._done, self._whole, self._later = "", 0.0, 0.0, 0.0, 0.0

    def begin(self, stage: str, whole: float, later: float = 0.0):
        """A stage of so much work, in a unit of its own; ``later``: s that the next one may take."""
        self._stage, self._began, self._done, self._whole, self._later = stage, time.monotonic(), 0.0, whole, later

    def step(self, done: float, what: str):
        """So much of the whole is done."""
        self._done += done
        spent = time.monotonic() - self._began
        left = spent / self._done * max(0.0, self._whole - self._done) + self._later if self._done else None
        ahead = "" if left is None else f", {duration(left)} left"
        self.say(f"{self._stage}: {100 * min(1.0, self._done / max(self._whole, 1e-9)):3.0f} %{ahead}  {what}")

    def say(self, line: str):
        print(line, file=sys.stderr, flush=True)

    def problem(self, line: str):
        """One that makes the command end with a status of its own, when everything else is made."""
        self.problems += 1
        self.say(f"demo.base_corpus: {line}")


def is_made(entry: Recording, path: Path) -> bool:
    """Whether a file is there, and is what it should be: a copy has the sum of its original."""
    if not path.is_file():
        return False
    if len(entry.parts) > 1:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.parts[0].sha256


def mix(stems: list[bytes]) -> bytes:
    """Stems of one song, all from its beginning and at their levels, as one Ogg Vorbis file; softer where the sum
    would clip."""
    import numpy as np
    import soundfile

    from demo.rendering import PEAK, encoded

    read = [soundfile.read(io.BytesIO(stem), dtype="float32", always_2d=True) for stem in stems]
    rate, longest = read[0][1], max(len(samples) for samples, _ in read)
    total: np.ndarray = np.zeros((longest, 2), np.float32)
    for samples, _ in read:
        total[: len(samples)] += samples
    return encoded(total * min(1.0, PEAK / max(float(np.abs(total).max()), 1e-9)), rate)


def make_recordings(wanted: list[Recording], folder: Path, downloads: Path, keep: bool, log: Log, later: float):
    """Copy and mix the recordings of packages, one package after another.

    Args:
        keep: whether packages stay in ``downloads``.
        later: see :meth:`Log.begin`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(folder)
    by_package: dict[str, list[Recording]] = {}
    for entry in wanted:
        if not is_made(entry, folder / entry.file):
            by_package.setdefault(entry.package, []).append(entry)
    log.begin("recordings", sum(PACKAGES[package][1] for package in by_package), later)
    for package, entries in sorted(by_package.items(), key=lambda item: (PACKAGES[item[0]][1], item[0])):  # small first
        version, size, _ = PACKAGES[package]
        log.step(0, f"{package}, {size} MB")
        try:
            deb = packages.fetch(package, version, downloads)
            copy_out(deb, entries, folder, log)
            if not keep:
                deb.unlink()
        except UserError as error:
            log.problem(str(error))
        log.step(size, f"{package}: {count(len(entries), 'file')}")


def copy_out(deb: Path, entries: list[Recording], folder: Path, log: Log):
    """Make the files of one package; what is another version there is left out, with a line that says so."""
    owner = {part.path: (entry, part) for entry in entries for part in entry.parts}
    archives = frozenset(path.split(packages.INSIDE)[0] for path in owner if packages.INSIDE in path)
    parts: dict[str, dict[str, bytes]] = {}
    for path, file in packages.read(deb, owner.__contains__, archives):
        entry, part = owner.pop(path)
        blob = file.read()
        if hashlib.sha256(blob).hexdigest() != part.sha256:
            log.say(f"left out: {entry.file}: {path} in {deb.name} is another version, by its SHA-256")
            continue
        have = parts.setdefault(entry.file, {})
        have[path] = blob
        if len(have) == len(entry.parts):
            write_atomic(folder / entry.file, blob if len(have) == 1 else mix([have[p.path] for p in entry.parts]))
            del parts[entry.file]
    for path, (entry, _) in owner.items():
        log.say(f"left out: {entry.file}: {path} is not in {deb.name}")


def make_rendered(wanted: list[Rendered], folder: Path, downloads: Path, keep: bool, log: Log):
    """Play scores into ``folder``; those that are there are kept."""
    from demo.charts import Accompanist
    from demo.rendering import encoded, of_midi, of_scores, sound
    from score.performance import BadScore

    folder.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(folder)
    wanted = [entry for entry in wanted if not (folder / entry.file).is_file()]
    log.begin("rendered", sum(entry.seconds for entry in wanted))
    if not wanted:
        return
    font, accompanist = downloads / Path(FONT_PATH).name, None
    try:
        if not font.is_file():
            log.step(0, f"{FONT_PACKAGE}, {FONT_MB} MB")
            deb = packages.fetch(FONT_PACKAGE, FONT_VERSION, downloads)
            part = temporary_path(font)
            packages.unpack(deb, FONT_PATH, part)
            part.replace(font)
            if not keep:
                deb.unlink()
        if any(entry.style == "accompaniment" for entry in wanted):
            log.step(0, "mma, 4 MB, and its list of grooves")
            accompanist = Accompanist(downloads / "mma", downloads)
    except UserError as error:
        log.problem(str(error))
        if not font.is_file():
            return
    log.begin("rendered", sum(entry.seconds for entry in wanted))  # the clock of what is left begins here
    for entry in wanted:
        name = Path(entry.file).stem
        try:
            if entry.style != "accompaniment":
                performance = of_scores(name, entry.style, list(entry.sources))
            elif accompanist is None:
                continue  # of which the package's line has told
            else:
                performance = of_midi(accompanist.midi(chart_of(entry)))
            write_atomic(folder / entry.file, encoded(sound(performance, str(font))))
        except (BadScore, UserError) as error:
            log.problem(f"{entry.file}: {error}")
        log.step(entry.seconds, entry.file)


def chart_of(entry: Rendered) -> str:
    """The text for MMA of an accompaniment."""
    from demo.charts import chart

    style, intro, verse, chorus, end, beats = entry.sources
    return chart(Path(entry.file).stem, style, intro.strip("-"), verse, chorus, end.strip("-"), int(beats))


def needed(listed: list[Recording], played: list[Rendered], out: Path, downloads: Path, keep: bool) -> int:
    """Bytes that have to be free on the disk for what is not there yet."""
    missing = [e for e in listed if not (out / "recordings" / e.file).is_file()]
    zipped = {e.package for e in missing if packages.INSIDE in e.parts[0].path}  # the archive is copied out first
    sizes = [
        PACKAGES[package][1] * (2 if package in zipped else 1)
        for package in {e.package for e in missing}
        if not list(downloads.glob(f"{package}_*.deb"))
    ]
    scratch = sum(sizes) if keep else max(sizes, default=0)
    unmade = [e for e in played if not (out / "rendered" / e.file).is_file()]
    seconds = sum(e.seconds for e in [*missing, *unmade])
    return scratch * MB + round(BYTES_PER_SECOND * seconds) + (300 * MB if unmade else 0)


def need_modules(names: Iterable[str]):
    """Raise UserError for a Python package that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            listed = "--no-deps -r requirements-nodeps.txt" if name == "tinysoundfont" else "-r requirements.txt"
            raise UserError(f"{name} is not installed; pip install {listed}")


def make(out: Path, hours: float | None, only: str | None, downloads: Path | None) -> int:
    """Make the corpus, or go on with it; the exit status.

    Raises:
        UserError: nothing can be made here.
    """
    from demo.credits import write_credits

    listed, played = recordings(), scores()
    chosen = [*(listed if only != "rendered" else []), *(played if only != "recordings" else [])]
    whole = sum(entry.seconds for entry in chosen)
    if hours is not None and not 0 < hours < float("inf"):
        raise UserError(f"--hours {hours:g}: give a number above 0")
    selected = select(chosen, 1.0 if hours is None else 3600 * hours / whole)
    if not selected:
        raise UserError(f"--hours {hours:g}: is less than one file; ask for more")
    to_copy = [entry for entry in selected if isinstance(entry, Recording)]
    to_play = [entry for entry in selected if isinstance(entry, Rendered)]
    packages.need_tools()
    need_modules(["soundfile", *(["music21", "tinysoundfont"] if to_play else [])])
    keep, downloads, log = downloads is not None, downloads or out / "packages", Log()
    out.mkdir(parents=True, exist_ok=True)
    downloads.mkdir(parents=True, exist_ok=True)
    required, free = needed(to_copy, to_play, out, downloads, keep), shutil.disk_usage(out).free
    if required > free:
        raise UserError(
            f"{out}: needs {required / 1e9:.1f} GB, {free / 1e9:.1f} are free; free some, or ask for less --hours"
        )
    if hours is not None and 3600 * hours > whole + 60:
        log.say(f"there are {whole / 3600:.1f} h, which are all made")
    try:
        if to_copy:
            later = sum(entry.seconds for entry in to_play) / RENDERING_RATE
            make_recordings(to_copy, out / "recordings", downloads, keep, log, later)
        if to_play:
            make_rendered(to_play, out / "rendered", downloads, keep, log)
    finally:
        there = [e for e in listed if (out / "recordings" / e.file).is_file()]
        there_played = [e for e in played if (out / "rendered" / e.file).is_file()]
        write_credits(out / "CREDITS.md", there, there_played)
    if not keep and not log.problems:
        shutil.rmtree(downloads, ignore_errors=True)
    made = [
        e for e in selected if (out / ("recordings" if isinstance(e, Recording) else "rendered") / e.file).is_file()
    ]
    seconds = sum(entry.seconds for entry in made)
    print(
        f"{len(made)} of {count(len(selected), 'file')}, {seconds / 3600:.1f} h; whose they are: {out / 'CREDITS.md'}"
    )
    return 1 if log.problems else 0


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.base_corpus", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder; what is there already is kept")
    add("--hours", type=float, metavar="H", help="so much of it, of every style its share (default: all, about 27)")
    add("--only", choices=("recordings", "rendered"), help="one of the two parts")
    add(
        "--packages",
        type=Path,
        metavar="FOLDER",
        help="where packages are, and stay (default: OUT/packages, where each is removed once its files are made)",
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    arguments = parse_arguments(argv)
    with Output("demo.base_corpus") as output, interruptible():
        status = exit_status(
            "demo.base_corpus",
            lambda: make(arguments.out, arguments.hours, arguments.only, arguments.packages),
            "what is made stays; the same command goes on",
        )
        return output.status(status)


if __name__ == "__main__":
    sys.exit(main())
