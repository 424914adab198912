"""Scores of music21's bundled corpus as prompts: what becomes audio, what is refused and why, time and memory.

All 371 chorales (by their numbers in Riemenschneider's edition) and all other MusicXML files of the corpus, each
read and played as predict.py does, in stereo at 22.05 kHz. ``--limit N`` takes N of each. Seconds are of processor
time, in brackets of the clock, which other programs make longer.
"""

import argparse
import collections
import resource
import sys
import time
from pathlib import Path

import regex

import prompt
from bench import table
from errors import UserError

RATE = 22050
SUFFIXES = {".mxl", ".xml", ".musicxml"}


def chorales() -> list[Path]:
    """The files of chorales 1 to 371."""
    from music21 import corpus

    names = corpus.chorales.Iterator(returnType="filename")
    works = [corpus.getWork(name, fileExtensions=[".mxl"]) for name in names]
    # One of them is there in two versions.
    return [Path(work[0] if isinstance(work, list) else work) for work in works]


def others() -> list[Path]:
    """All other MusicXML files of the corpus."""
    from music21 import corpus

    known = set(chorales())
    return sorted(Path(path) for path in corpus.getCorePaths() if path.suffix in SUFFIXES and path not in known)


def measure(name: str, paths: list[Path], reasons: collections.Counter) -> tuple:
    """A row of the table; reasons of refusals are counted with their numbers left out."""
    seconds, slowest, longest, heard, refused = 0.0, (0.0, ""), 0.0, 0.0, 0
    for i, path in enumerate(paths):
        if i % 25 == 0:
            print(f"{name}: {i} of {len(paths)}, {refused} refused", file=sys.stderr)
        begin, used = time.perf_counter(), processor_seconds()
        try:
            heard += prompt.load(path, RATE, 2).waveform.shape[-1] / RATE
        except UserError as error:
            refused += 1
            reasons[regex.sub(r"\d[\d.e+]*", "N", str(error).removeprefix(f"{path}: "))] += 1
        took = processor_seconds() - used
        seconds += took
        slowest, longest = max(slowest, (took, path.name)), max(longest, time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return (
        name, len(paths), len(paths) - refused, refused, f"{heard / 60:.0f} min", f"{seconds / max(1, len(paths)):.2f}",
        f"{slowest[0]:.1f} ({longest:.1f}), {slowest[1]}", f"{peak:.0f}",
    )  # fmt: skip


def processor_seconds() -> float:
    """Of all children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def player_speed(paths: list[Path], rate: int) -> float:
    """Seconds of audio per second of processor time of the player alone, stereo."""
    from score import read_file
    from score.player import synthesize

    audio = took = 0.0
    for path in paths:
        performance = read_file(path)
        begin = time.process_time()
        synthesize(performance, rate, prompt.general_midi(), 2)
        took += time.process_time() - begin
        audio += performance.end
    return audio / took


def main():
    parser = argparse.ArgumentParser(prog="bench.prompts", description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, metavar="N", help="so many of the chorales and of the others")
    arguments = parser.parse_args()
    # A busy machine takes long by the clock; 30 s of processor time remain the limit.
    prompt.SCORE_TIMEOUT *= 20
    reasons = collections.Counter()
    groups = {"chorales": chorales(), "others": others()}
    rows = [measure(name, paths[: arguments.limit], reasons) for name, paths in groups.items()]
    head = ("scores", "files", "audio", "refused", "music", "mean s", "slowest s", "peak MiB so far")
    table(rows, head)
    for reason, count in reasons.most_common():
        print(f"{count} x {reason}")
    some = groups["chorales"][: min(10, arguments.limit or 10)]
    speeds = ", ".join(f"{player_speed(some, rate):.0f} at {rate} Hz" for rate in (22050, 44100))
    print(f"player alone, times real time, {len(some)} chorales: {speeds}")


if __name__ == "__main__":
    main()
