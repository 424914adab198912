"""Training and rollout speed, ``small`` beside ``original`` in one run; time to the first word."""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import soundfile
import torch

from bench import ROOT, add_overrides, median_seconds, start, table
from config import PRESETS, override
from corpus import open_corpus
from dataset import split
from demo.chorales import write_chorales
from device import has_bf16_matrix_units, keep_freed_memory, n_usable_cores, select_device
from predictor import Predictor
from trainer import Trainer


def main():
    parser = argparse.ArgumentParser(prog="bench.speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="alternations of the two presets")
    parser.add_argument("--seconds", type=float, default=10, help="of each rollout")
    parser.add_argument("--minutes", type=float, default=4, help="of chorales to train on")
    parser.add_argument("--burst", type=float, default=2, metavar="SECONDS", help="of training in each alternation")
    parser.add_argument("--repeats", type=int, default=5, help="of each rollout and of --help")
    parser.add_argument("--device", default="cpu")
    add_overrides(parser)
    arguments = parser.parse_args()
    configs = {name: override(PRESETS[name], arguments.overrides) for name in ("small", "original")}
    device = select_device(arguments.device)
    torch.set_num_threads(n_usable_cores())
    keep_freed_memory()
    print(f"{device}, {n_usable_cores()} threads, bf16 matrix units: {has_bf16_matrix_units(device)}\n")
    with tempfile.TemporaryDirectory() as scratch:
        write_chorales(Path(scratch) / "chorales", arguments.minutes)
        rate = configs["small"].featurizer.sample_rate
        corpus = open_corpus(Path(scratch) / "chorales", Path(scratch) / "store", rate)
        trainers = {
            name: Trainer(config, split(corpus, 0.1)[0], corpus.level, device) for name, config in configs.items()
        }
        training_speed(trainers, arguments.rounds, arguments.burst)
        print()
        rollout_speed(trainers, corpus, arguments.seconds, arguments.repeats)
    print()
    first_word(arguments.repeats)


def training_speed(trainers: dict, n_rounds: int, burst: float):
    speeds = {name: [] for name in trainers}
    for trainer in trainers.values():
        trainer.fit()
        for _ in range(3):
            trainer.train_step()
    for _ in range(n_rounds):
        for name, trainer in trainers.items():
            begin, first = time.perf_counter(), trainer.step
            while time.perf_counter() - begin < burst:
                trainer.train_step()
            frames = (trainer.step - first) * trainer.frames_per_step / (time.perf_counter() - begin)
            speeds[name].append(frames / trainer.config.featurizer.frame_rate)
    ratios = [a / b for a, b in zip(speeds["small"], speeds["original"], strict=True)]
    rows = [(name, f"{statistics.median(values):.1f}") for name, values in speeds.items()]
    rows.append(("small / original, median of the rounds' ratios", f"{statistics.median(ratios):.1f}"))
    table(rows, ("training", "audio-seconds per second"))


def rollout_speed(trainers: dict, corpus, length: float, repeats: int):
    """Prompt, rollout, phase and WAV of ``length`` new seconds, on one thread of the CPU."""
    torch.set_num_threads(1)
    prompt = torch.from_numpy(corpus.recordings[0].read(0, 3 * corpus.sample_rate)).unsqueeze(0)
    rows = []
    for name, trainer in trainers.items():
        predictor = Predictor.from_state(trainer.config, trainer.state())
        for n_prompts in (1, 8):
            prompts, n_frames = prompt.expand(n_prompts, -1), round(length * trainer.config.featurizer.frame_rate)

            def once(predictor=predictor, prompts=prompts, n_frames=n_frames):
                for waveform in predictor.continue_(predictor.match_level(prompts), n_frames).clamp(-1, 1):
                    soundfile.write(io.BytesIO(), waveform.numpy(), corpus.sample_rate, format="WAV", subtype="PCM_24")

            once()
            seconds = median_seconds(once, repeats)
            rows.append((name, n_prompts, f"{length / seconds:.1f}", f"{n_prompts * length / seconds:.1f}"))
    table(rows, ("rollout, one thread, WAV included", "continuations", "times real time", "all together"))


def first_word(repeats: int):
    rows = []
    for script in ("train.py", "predict.py"):
        seconds = median_seconds(lambda script=script: start(ROOT / script, "--help", stdout=-3).wait(), repeats)
        rows.append((f"{script} --help", f"{seconds:.2f} s"))
    table(rows, ("time to first word", f"median of {repeats}"))


if __name__ == "__main__":
    main()
