"""The run that a call of train.py asks for: begun anew, or the one that is there."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from checkpoint import Metadata, State, load_run, new_metadata, read_metadata
from config import PRESETS, RunConfig, override
from errors import UserError
from model_definition import build_model
from trainer import Trainer


def begin_or_resume(arguments) -> tuple[Metadata, State | None]:
    """Metadata of the run, and its state where it goes on from one.

    Args:
        arguments: of the command line of train.py.

    Raises:
        UserError: what is there is another run, is damaged, or cannot go on.
    """
    path = arguments.metadata
    if path.exists() and not arguments.force:
        return resume(arguments)
    orphan = path.parent / path.stem / "state.safetensors"
    if orphan.exists() and not arguments.force:
        raise UserError(f"{orphan}: a state without its metadata; restore {path}, or start anew with --force")
    fields = {"recordings": relative(arguments.recordings, path), "include": arguments.include}
    if arguments.origin:
        preset, config = settings_of_origin(arguments)
        fields["origin"] = relative(arguments.origin, path)
    else:
        preset = arguments.preset or "small"
        config = changed(PRESETS[preset], arguments)
    return new_metadata(path, config, preset=preset, **fields), None


def settings_of_origin(arguments) -> tuple[str, RunConfig]:
    """Preset and configuration of the run whose weights are to be the first, with what the command line changes.

    Raises:
        UserError: that run cannot be read, or its weights do not fit the changes.
    """
    path = arguments.origin
    if path.resolve() == arguments.metadata.resolve():
        raise UserError(f"{path}: cannot begin --from itself; choose another --metadata")
    before, state = load_run(path)
    config = changed(before.config, arguments)
    if config.featurizer != before.config.featurizer:
        raise UserError(f"{path}: has other frames; leave out --set featurizer.*")
    if other := other_shape(config, state):
        raise UserError(f"{path}: of another shape ({other}); leave out the --set model.* that changes it")
    return before.preset, config


def relative(place: Path, metadata_path: Path) -> str:
    """``place`` as the metadata have it, relative to their folder."""
    return os.path.relpath(place.resolve(), metadata_path.parent.resolve())


def changed(config: RunConfig, arguments) -> RunConfig:
    """``config`` with what the command line changes in it."""
    seed = [] if arguments.seed is None else [f"training.seed={arguments.seed}"]
    return override(config, [*arguments.overrides, *seed])


def resume(arguments) -> tuple[Metadata, State | None]:
    """The run that is there, if the command asks for the same one."""
    path = arguments.metadata
    metadata = read_metadata(path)
    wanted = arguments.preset or metadata.preset
    config = metadata.config
    if arguments.overrides or arguments.seed is not None or wanted != metadata.preset:
        begun_with = metadata.config if metadata.origin and not arguments.preset else PRESETS[wanted]
        config = changed(begun_with, arguments)
    same_origin = arguments.origin is None or relative(arguments.origin, path) == metadata.origin
    same_folder = metadata.resolve("recordings").resolve() == arguments.recordings.resolve()
    same_recordings = same_folder and arguments.include == metadata.include
    if config != metadata.config or not same_recordings or not same_origin:
        raise UserError(f"{path}: holds a run with other recordings or settings; choose another name, or --force")
    if not metadata.resolve("state").exists():  # stopped before its first save
        return metadata, None
    metadata, state = load_run(path)
    if not Trainer.can_resume(state):
        raise UserError(f"{path}: finished with --slim, it cannot go on; choose another name, or --force")
    return metadata, state


def other_shape(config: RunConfig, state: State) -> str:
    """The first array that a state and a model of this configuration do not share in one shape; or nothing."""
    learned = {**state.group("model"), **state.group("average")}
    with torch.random.fork_rng(devices=[]):
        model = build_model(config.featurizer, config.model).state_dict()
    shapes = [{name: t.shape for name, t in tensors.items()} for tensors in (model, learned)]
    return min((name for name, _ in shapes[0].items() ^ shapes[1].items()), default="")
