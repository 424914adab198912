"""A training on real recordings, and a producer who asks it for ten seconds meanwhile."""

import argparse
import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import soundfile

from bench import ROOT, add_overrides, override_words, resident_megabytes, start, table, wait_until


def main():
    parser = argparse.ArgumentParser(prog="bench.live", description=__doc__)
    parser.add_argument("recordings", metavar="RECORDINGS", type=Path)
    parser.add_argument("--preset", default="small", help="of the training")
    parser.add_argument("--prompts", type=int, default=5, help="how often predict.py is asked")
    parser.add_argument("--after", type=float, default=20.0, help="seconds of training after that")
    parser.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS", help="as of train.py")
    add_overrides(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as ending:
        metadata, log, peak = Path(scratch) / "live.json", Path(scratch) / "log", [0.0]
        state = Path(scratch) / "live" / "state.safetensors"
        recordings = arguments.recordings.resolve()
        with open(log, "w") as stream:
            command = ["train.py", recordings, "--metadata", metadata, "--minutes", 1000]
            command += ["--preset", arguments.preset, "--save-every", arguments.save_every]
            trainer = start(*command, *override_words(arguments.overrides), stderr=stream)
        ending.callback(trainer.wait)
        ending.callback(trainer.terminate)

        def sample():
            peak[0] = max(peak[0], resident_megabytes(trainer.pid))
            if trainer.poll() is not None:
                raise RuntimeError(log.read_text())

        ready = wait_until(lambda: "corpus:" in log.read_text(), 3600, sample)
        first = wait_until(state.exists, 600, sample)
        seconds, speeds = [], [speed(log)]
        for i in range(arguments.prompts):
            out, begin = Path(scratch) / f"{i}.wav", time.monotonic()
            command = [
                "predict.py",
                metadata,
                ROOT / "demo" / "prompt.musicxml",
                "--seconds",
                10,
                "--seed",
                i,
                "-o",
                out,
            ]
            asked = start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(lambda asked=asked: asked.poll() is not None, 600, sample, every=0.02)
            assert asked.returncode == 0 and soundfile.info(out).duration > 10
            seconds.append(time.monotonic() - begin)
        end = time.monotonic() + arguments.after
        wait_until(lambda: time.monotonic() > end, arguments.after + 60, sample)
        speeds.append(speed(log))
    rows = [
        ("corpus ready", f"{ready:.1f} s"),
        ("first state after that", f"{first:.1f} s"),
        ("predict.py, 10 new seconds, median", f"{sorted(seconds)[len(seconds) // 2]:.1f} s"),
        ("the slowest of them", f"{max(seconds):.1f} s"),
        ("peak resident memory of train.py and its workers", f"{peak[0]:.0f} MB"),
        ("training, audio-seconds per second, before and after", f"{speeds[0]} and {speeds[1]}"),
    ]
    table(rows, ("what", "measured"))


def speed(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if "audio-s/s" in line]
    return lines[-1].split(" audio-s/s")[0].split()[-1] if lines else "?"


if __name__ == "__main__":
    main()
