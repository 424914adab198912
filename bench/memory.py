"""Resident memory of train.py on a synthetic corpus of one hour and of many."""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from bench import add_overrides, override_words, resident_megabytes, start, table, wait_until

RATE = 22050


def write_hours(folder: Path, n_hours: float):
    """One WAV file an hour: chords that change each second, different in every file."""
    folder.mkdir()
    t, n_minutes = np.arange(RATE) / RATE, round(60 * n_hours)
    for hour in range(-(-n_minutes // 60)):
        random = np.random.default_rng(hour)
        with soundfile.SoundFile(folder / f"{hour:03d}.wav", "w", RATE, 1, "PCM_16") as file:
            for _ in range(min(60, n_minutes - 60 * hour)):
                chords = 0.1 * np.sin(2 * np.pi * random.uniform(80, 2000, (4, 1)) * t).sum(0)
                minute = np.concatenate([chords * gain for gain in random.uniform(0.2, 2, 60)])
                file.write(minute + random.normal(0, 1e-3, len(minute)))


def main():
    parser = argparse.ArgumentParser(prog="bench.memory", description=__doc__)
    parser.add_argument("--hours", type=float, nargs=2, default=[1, 20], help="of recordings, few and many")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--preset", default="small", help="of the training")
    add_overrides(parser)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for n_hours in arguments.hours:
            folder, metadata = Path(scratch) / f"in{n_hours:g}", Path(scratch) / f"h{n_hours:g}" / "run.json"
            write_hours(folder, n_hours)
            log = Path(scratch) / "log"
            with open(log, "w") as stream:
                options = ["--preset", arguments.preset, "--steps", arguments.steps, "--save-every", 30]
                options += override_words(arguments.overrides)
                process = start("train.py", folder, "--metadata", metadata, *options, stderr=stream)
                peaks = {"decoding": 0.0, "training": 0.0}

                def sample(process=process, peaks=peaks, log=log):
                    phase = "training" if "corpus:" in log.read_text() else "decoding"
                    peaks[phase] = max(peaks[phase], resident_megabytes(process.pid))

                wait_until(lambda process=process: process.poll() is not None, 3600, sample, every=0.2)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, "train.py", log.read_text())
            ready = next(line for line in log.read_text().splitlines() if line.startswith("corpus:"))
            rows.append((f"{n_hours:g} h", *(f"{peak:.0f} MB" for peak in peaks.values()), ready.split("; ")[-1]))
    table(rows, ("corpus", "peak while decoding", "peak of train.py", "corpus ready"))
    print(f"difference: {float(rows[1][2].split()[0]) - float(rows[0][2].split()[0]):.0f} MB")


if __name__ == "__main__":
    main()
