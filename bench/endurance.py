"""Hours of training beside a studio with a visitor a minute: memory, open files and disk, hour by hour.

Each visitor looks at the runs and asks for a continuation, by turns by the model that is being trained and by the
shipped one. A figure of the last hour that is above that of the second by more than a tenth (disk: of what a run is
meant to keep, i.e. without its logs and previews) makes the status 1, and so does a visitor who is refused. In less
than an hour nothing is compared.
"""

import argparse
import contextlib
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench import ROOT, add_overrides, override_words, resident_megabytes, start, table, wait_until
from bench.studio import CHORDS, connect, studio

FIGURES = ("train_mb", "train_files", "studio_mb", "studio_files", "run_mb", "logs_mb", "scratch_mb", "seconds")


def open_files(pid: int) -> int:
    """Of a process and its children."""
    process = psutil.Process(pid)
    return sum(p.num_fds() for p in [process, *process.children(recursive=True)])


def megabytes(folder: Path, logs: bool = False) -> float:
    """Of a folder's files: those that grow by design (with ``logs``: logs, previews, events), or the others."""
    total = 0
    for parent, _, names in os.walk(folder):  # what is removed meanwhile is passed over
        relative = Path(parent).relative_to(folder)
        for name in names:
            grows = name.endswith(".jsonl") or bool({"previews", "tensorboard"} & set(relative.parts))
            if grows == logs:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(Path(parent) / name).st_size
    return total / 1e6


def visit(address: str, model: str, seed: int, folder: Path) -> str:
    """One visitor: "result", or the words by which it is refused."""
    client = connect(address, folder)
    try:
        client.predict(api_name="/runs")
        client.predict(None, chords=CHORDS, model=model, length=5, seed=seed, api_name="/continue")
        return "result"
    except Exception as error:  # what the client raises for an answer that is an error
        return str(error)
    finally:
        client.close()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.endurance", description=__doc__.splitlines()[0])
    parser.add_argument("recordings", metavar="RECORDINGS", type=Path, help="to train on")
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--every", type=float, default=60.0, metavar="SECONDS", help="a visitor (default: 60)")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="a CSV file of each minute's figures")
    parser.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS", help="as of train.py")
    add_overrides(parser)
    arguments = parser.parse_args()
    rows, refused = [], []
    with tempfile.TemporaryDirectory() as home:
        metadata, scratch = Path(home) / "metadata", Path(home) / "scratch"
        scratch.mkdir()
        shutil.copytree(ROOT / "metadata" / "chorales", metadata / "chorales")
        shutil.copy(ROOT / "metadata" / "chorales.json", metadata)
        run = metadata / "long.json"
        command = ["train.py", arguments.recordings.resolve(), "--metadata", run, "--preset", arguments.preset]
        command += ["--threads", 1, "--minutes", 1e6, "--save-every", arguments.save_every]
        command += override_words(arguments.overrides)
        log = open(Path(home) / "log", "w+")  # noqa: SIM115 - closed with the processes that write it
        training = start(*command, stderr=subprocess.DEVNULL)
        try:
            wait_until((metadata / "long" / "state.safetensors").exists, 3600)
            with studio(metadata, log, TMPDIR=str(scratch)) as (address, server):
                visitor, begin = 0, time.monotonic()
                while not rows or time.monotonic() - begin < 3600 * arguments.hours:
                    due = time.monotonic() + arguments.every
                    asked, model = time.monotonic(), ("long", "chorales")[visitor % 2]
                    answer = visit(address, model, visitor, Path(home) / "visitor")
                    took = time.monotonic() - asked
                    if answer != "result":
                        refused.append((visitor, answer))
                        print(f"visitor {visitor}: {answer}", file=sys.stderr, flush=True)
                    visitor += 1
                    if training.poll() is not None:
                        raise RuntimeError("the training has ended")
                    figures = resident_megabytes(training.pid), open_files(training.pid)
                    figures += resident_megabytes(server.pid), open_files(server.pid)
                    figures += megabytes(metadata), megabytes(metadata, logs=True), megabytes(scratch), took
                    rows.append(((time.monotonic() - begin) / 3600, *figures))
                    if arguments.samples:
                        with open(arguments.samples, "a", newline="") as file:
                            csv.writer(file).writerow([f"{x:.4g}" for x in rows[-1]])
                    time.sleep(max(0.0, due - time.monotonic()))
        finally:
            training.terminate()
            training.wait()
            log.close()
    span = min(1.0, arguments.hours / 3)  # of which a figure is the median
    hours = {}
    for row in rows:
        hours.setdefault(int(row[0] / span), []).append(row[1:])
    medians = [[statistics.median(column) for column in zip(*part, strict=True)] for part in hours.values()]
    shown = [
        (f"{(i + 1) * span:.3g} h", len(part), *(f"{x:.4g}" for x in figures))
        for (i, part), figures in zip(hours.items(), medians, strict=True)
    ]
    table(shown, ("until", "visitors", *FIGURES))
    settled = medians[1:] if arguments.hours >= 1 else []  # caches fill, and previous states come, in the first
    grown = [
        name
        for i, name in enumerate(FIGURES)
        if settled and name not in ("logs_mb", "seconds") and settled[-1][i] > 1.1 * settled[0][i]
    ]
    print(f"refused: {len(refused)}; grown by more than a tenth after the first of these times: {grown or 'nothing'}")
    return 1 if refused or grown else 0


if __name__ == "__main__":
    sys.exit(main())
