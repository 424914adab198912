"""Kill a training that saves without pause; read a state that is written without pause."""

import argparse
import multiprocessing
import os
import random
import runpy
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench import ROOT, table, wait_until
from checkpoint import load_run, load_state, save_state
from demo.chorales import write_chorales

TINY = [
    "featurizer.sample_rate=8000", "featurizer.n_fft=512", "featurizer.hop_length=128", "model.hidden_size=64",
    "model.n_components=24", "model.n_latents=24", "model.n_mixture=4", "training.batch_size=4",
    "training.n_frames=8",
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="bench.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--loads", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [reader(Path(scratch), arguments.loads), killer(Path(scratch), arguments.kills)]
    table(rows, ("trial", "times", "failures", "remarks"))


def changed(path: Path) -> int:
    """When a file was written last, in ns; 0: it is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0


def train(words: list[str]):
    """train.py in a process that has imported everything already, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.argv = ["train.py", *words]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def killer(scratch: Path, n_kills: int) -> tuple:
    """``kill -9`` at random moments of train.py; the next start must sweep and go on."""
    write_chorales(scratch / "chorales", 2)
    metadata, folder = scratch / "run.json", scratch / "run"
    words = [scratch / "chorales", "--metadata", metadata, "--minutes", 1e6, "--save-every", 1e-6]
    words += ["--no-preview", "--threads", 1, *(word for value in TINY for word in ("--set", value))]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["session", "torch.utils.tensorboard"])  # what a start takes seconds for
    state_path, failures, in_save, leftovers, step = folder / "state.safetensors", 0, 0, 0, 0
    for kill in range(n_kills):
        process = context.Process(target=train, args=([str(word) for word in words],))
        process.start()

        before = changed(state_path)

        def moved(step=step, before=before):
            try:  # a state is looked into only once it is another one
                return changed(state_path) != before and load_run(metadata)[1].info["step"] > step
            except Exception:
                return False

        try:
            wait_until(moved, 120)
        except TimeoutError:
            failures += 1
        # What the killed one left must be gone by now; what is there belongs to the one that runs.
        leftovers += sum(f".{process.pid}." not in p.name for p in folder.glob("*.tmp"))
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        process.join()
        in_save += bool(list(folder.glob("*.tmp")))
        try:
            _, state = load_run(metadata)
            failures += state.info["step"] < step
            step = state.info["step"]
        except Exception as error:
            failures += 1
            print(f"kill {kill}: {error}", flush=True)
    return (
        "kill -9 of train.py",
        n_kills,
        failures,
        f"{in_save} in the midst of a save, {leftovers} leftovers after a start",
    )


def write_for_ever(path: Path):
    step = 0
    while True:
        step += 1
        save_state(path, {"a": torch.full((250_000,), float(step))}, {"step": step})


def reader(scratch: Path, n_loads: int) -> tuple:
    path = scratch / "s" / "state.safetensors"
    writer = multiprocessing.get_context("spawn").Process(target=write_for_ever, args=(path,), daemon=True)
    writer.start()
    wait_until(path.exists, 60)
    failures, steps = 0, set()
    for _ in range(n_loads):
        try:
            state = load_state(path)
            failures += not bool((state.tensors["a"] == state.info["step"]).all())
            steps.add(state.info["step"])
        except Exception as error:
            failures += 1
            print(error, flush=True)
    writer.kill()
    return "loads beside a writer", n_loads, failures, f"{len(steps)} different states seen"


if __name__ == "__main__":
    main()
