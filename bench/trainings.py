"""The trainings that :mod:`bench.sound` judges: presets, variants of them, seeds, and a run at several times.

Everything is kept in the bench's folder, so that the same command goes on where it was broken off: a training goes on
from its last state, and a state that was kept at a time is not made again.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path

import regex

from bench import override_words, start
from config import PRESETS, override
from errors import UserError

SEED = "training.seed"
LATE = 1.05  # times the minutes that a state was wanted for: one that is older is no longer it


@dataclass(frozen=True)
class Training:
    """One call of train.py for each of the times: ``name`` of its metadata file, and ``group``, which all seeds of one
    configuration share; ``turn`` counts the seeds."""

    name: str
    group: str
    turn: int
    preset: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """A trained state that is judged: its metadata file, what its rows are called, and, where its figures are averaged
    over seeds, the name of the group. ``parts``: whether what its phase and its codec alone make is measured as well,
    which is the same at all times of one training."""

    path: Path
    name: str
    group: str | None = None
    parts: bool = True


def candidate(path) -> Candidate:
    """A state that is there already, by the name of its metadata file."""
    return path if isinstance(path, Candidate) else Candidate(Path(path), Path(path).stem)


def parse_variant(text: str) -> tuple[str, list[str]]:
    """``NAME:KEY=VALUE,KEY=VALUE`` -> the name and its overrides; ``NAME`` alone changes nothing.

    Raises:
        UserError: the name cannot be part of a file's.
    """
    name, _, values = text.partition(":")
    if not regex.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"--variant {text!r}: write NAME:KEY=VALUE,KEY=VALUE, e.g. wide:model.hidden_size=512")
    if regex.search(r"-after-|-seed\d+$", name):
        raise UserError(f"--variant {text!r}: such an ending is that of a time or a seed; choose another name")
    return name, [value.strip() for value in values.split(",") if value.strip()]


def plan(presets, variants=(), overrides=(), n_seeds: int = 1) -> list[Training]:
    """The trainings in the order that they are made in: the first seed of every preset and variant, then the second of
    every one, and so on, since a machine's speed changes by the hour, and what is compared should share it.

    Args:
        variants: texts of :func:`parse_variant`; none: each preset as it is.
        overrides: ``KEY=VALUE`` of all of them; those of a variant come after, and win.
        n_seeds: 0 to n - 1.

    Raises:
        UserError: two variants of one name; an override that the configuration does not take; a seed where the seeds
            are counted.
    """
    variants = [parse_variant(text) for text in variants] or [("", [])]
    if len({name for name, _ in variants}) < len(variants):
        raise UserError(f"--variant: {[name for name, _ in variants]} has a name twice; give each its own")
    trainings = []
    for seed in range(n_seeds):
        for preset in presets:
            for name, own in variants:
                wanted, group = [*overrides, *own], f"{preset}-{name}" if name else preset
                sets_seed = any(value.partition("=")[0].strip() == SEED for value in wanted)
                if sets_seed and n_seeds > 1:
                    raise UserError(f"--seeds {n_seeds}: counts {SEED} itself; leave it out of --set and --variant")
                if not sets_seed:  # always named, so that train.py finds out a run of other settings
                    wanted.append(f"{SEED}={seed}")
                override(PRESETS[preset], wanted)
                full = f"{group}-seed{seed}" if n_seeds > 1 else group
                trainings.append(Training(full, group, seed, preset, tuple(wanted)))
    return trainings


def presets_of(arguments) -> list[str]:
    """What is trained where the command line names nothing."""
    return arguments.preset or ["small", "original"]


def calls(trainings: list[Training], times: list[float]) -> list[tuple[Training, float]]:
    """The calls of train.py in their order: of each seed, the first time of every training, then the second of every
    one, as whatever is compared should share the machine's speed."""
    turns = itertools.groupby(trainings, key=lambda training: training.turn)
    return [pair[::-1] for _, turn in turns for pair in itertools.product(times, list(turn))]


def train_all(arguments, say=lambda line: None) -> list[Candidate]:
    """Train what the command line of :mod:`bench.sound` asks for in OUT, or go on where it was.

    Returns:
        its states, all times of one training side by side.

    Raises:
        UserError: a training failed, or has gone on beyond a time whose state was not kept.
    """
    trainings = plan(presets_of(arguments), arguments.variant, arguments.overrides, arguments.seeds)
    several = len(arguments.minutes) > 1
    for training in trainings if several else []:  # before an hour of training, not after
        for minutes in arguments.minutes:
            check_time(arguments.out.resolve() / f"{training.name}.json", minutes)
    found = {}
    for training, minutes in calls(trainings, arguments.minutes):
        path = arguments.out.resolve() / f"{training.name}.json"
        kept, after = kept_at(path, minutes) if several else path, f", after {minutes:g} min" * several
        if not (several and kept.exists()):
            say(f"training: {training.name}, {minutes:g} min")
            train(path, training, minutes, arguments)
            if several:
                keep(path, kept)
        group, is_last = training.group + after if arguments.seeds > 1 else None, minutes == arguments.minutes[-1]
        found[training, minutes] = Candidate(kept, training.name + after, group, is_last)
    return [found[training, minutes] for training in trainings for minutes in arguments.minutes]


def train(path: Path, training: Training, minutes: float, arguments):
    """One call of train.py, up to so many minutes of the run as a whole.

    Raises:
        UserError: it has failed; it has said why.
    """
    options = ["--metadata", path, "--preset", training.preset, "--minutes", minutes, "--no-preview"]
    options += ["--threads", arguments.threads, *override_words(training.overrides)]
    process = start("train.py", arguments.recordings.resolve(), *options)
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status:
        raise UserError(f"{path}: its training ended with status {status}; see above, then give the command again")


def held_out_loss(config, state, corpus, device) -> float:
    """The loss of a state's averaged weights on the recordings that are held out of a corpus, as train.py logs it; of a
    state of ``--slim`` that of its rounded weights. It is computed anew, since a log has it only where the time was
    enough, and at the same places for every state of one configuration. nan where nothing is held out.

    Args:
        config, state: of the run, from :func:`checkpoint.load_run`.
        corpus: with the channels of the model.
    """
    import torch

    from dataset import split
    from trainer import Trainer

    training, held_out = split(corpus, config.training.hold_out)
    with torch.random.fork_rng():  # a trainer sets the seed of all that follows
        trainer = Trainer(config, training, state.info["level"], torch.device(device))
    trainer.average = {name: t.to(trainer.device, torch.float32) for name, t in state.group("average").items()}
    trainer.model.load_state_dict({**state.group("model"), **trainer.average})
    return trainer.held_out_loss(held_out)


# -- one run at several times ------------------------------------------------------------------


def kept_at(path: Path, minutes: float) -> Path:
    """The metadata file of what is kept of a run after so many minutes."""
    return path.with_name(f"{path.stem}-after-{minutes:g}min.json")


def check_time(path: Path, minutes: float):
    """That the state of a run after so many minutes is kept, or can still be made.

    Raises:
        UserError: the run has gone on without it.
    """
    from checkpoint import read_metadata, summarize_state

    if kept_at(path, minutes).exists() or not path.exists():
        return
    state = read_metadata(path).resolve("state")
    if not state.exists():
        return
    summary = summarize_state(state)
    most = 60 * minutes * LATE + 2 * summary.seconds / max(1, summary.step)  # ends up to half a step late
    if summary.seconds > most:
        raise UserError(
            f"{path}: has been trained for {summary.seconds / 60:.3g} min, and its state after {minutes:g} min was not "
            f"kept; leave {minutes:g} out of --minutes, or choose another --out"
        )


def keep(path: Path, kept: Path):
    """A copy of a run's metadata, state, log and report, which is a run itself; the metadata last, so that what has
    them is whole."""
    from checkpoint import read_metadata, write_atomic, write_metadata
    from run_folder import REPORT

    metadata = read_metadata(path)
    names = {name: f"{kept.stem}/{Path(getattr(metadata, name)).name}" for name in PLACES}
    copy = dataclasses.replace(metadata, path=kept, **names)
    for name in ("state", "log"):
        write_atomic(copy.resolve(name), metadata.resolve(name).read_bytes())
    report = metadata.resolve("state").with_name(REPORT)
    write_atomic(copy.resolve("state").with_name(REPORT), report.read_bytes())
    write_metadata(copy)


PLACES = ("state", "log", "previews", "tensorboard")
