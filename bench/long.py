"""Resident memory of predict.py for a minute and for many; what several continuations of one prompt cost."""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench import ROOT, resident_megabytes, start, table, wait_until

PROMPT = ROOT / "demo" / "prompt.musicxml"


def measure(metadata: Path, *options) -> tuple[float, float]:
    """Peak memory in MB and processor time in s of predict.py: other programs on the same cores do not count."""
    peak = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        before = os.times()
        process = start("predict.py", metadata, PROMPT, "-o", Path(scratch) / "out.wav", *options, stdout=-3, stderr=-3)

        def sample():
            nonlocal peak
            peak = max(peak, resident_megabytes(process.pid))

        wait_until(lambda: process.poll() is not None, 24 * 3600, sample, every=0.1)
        after = os.times()
    if process.returncode:
        raise RuntimeError(f"predict.py ended with status {process.returncode}")
    return peak, sum(after[2:4]) - sum(before[2:4])


def main():
    parser = argparse.ArgumentParser(prog="bench.long", description=__doc__)
    parser.add_argument("--metadata", type=Path, default=ROOT / "metadata" / "chorales.json")
    parser.add_argument("--minutes", type=float, nargs=2, default=[1, 30], help="of a short and a long continuation")
    parser.add_argument("--seconds", type=float, default=30, help="of each of several continuations")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for minutes in arguments.minutes:
        began = time.monotonic()
        peak, seconds = measure(arguments.metadata, "--seconds", 60 * minutes)
        rows.append((f"{minutes:g} min", f"{peak:.0f} MB", f"{seconds:.0f} s", f"{time.monotonic() - began:.0f} s"))
    table(rows, ("continuation", "peak memory", "processor time", "wall time"))
    print(f"difference: {float(rows[1][1].split()[0]) - float(rows[0][1].split()[0]):.0f} MB\n")
    costs = {1: [], 8: []}
    for _ in range(arguments.rounds):
        for n, values in costs.items():
            values.append(measure(arguments.metadata, "--seconds", arguments.seconds, "--continuations", n)[1])
    medians = {n: statistics.median(values) for n, values in costs.items()}
    rows = [(n, f"{seconds:.1f} s") for n, seconds in medians.items()]
    table(rows, (f"continuations of {arguments.seconds:g} s", "processor time, start and prompt included"))
    ratio = statistics.median(b / a for a, b in zip(*costs.values(), strict=True))
    print(f"8 : 1, median of the rounds' ratios: {ratio:.2f}")


if __name__ == "__main__":
    main()
