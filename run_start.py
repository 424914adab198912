"""The run that a call of train.py asks for: begun anew, or the one that is there."""

from __future__ import annotations

import os

from checkpoint import Metadata, State, load_run, new_metadata, read_metadata
from config import PRESETS, RunConfig, override
from errors import UserError
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
    preset = arguments.preset or "small"
    orphan = path.parent / path.stem / "state.safetensors"
    if orphan.exists() and not arguments.force:
        raise UserError(f"{orphan}: a state without its metadata; restore {path}, or start anew with --force")
    where = os.path.relpath(arguments.recordings.resolve(), path.parent.resolve())
    config = wanted_config(arguments, preset)
    return new_metadata(path, config, preset=preset, recordings=where, include=arguments.include), None


def wanted_config(arguments, preset: str) -> RunConfig:
    """The preset with what the command line changes in it."""
    seed = [] if arguments.seed is None else [f"training.seed={arguments.seed}"]
    return override(PRESETS[preset], [*arguments.overrides, *seed])


def resume(arguments) -> tuple[Metadata, State | None]:
    """The run that is there, if the command asks for the same one."""
    path = arguments.metadata
    metadata = read_metadata(path)
    wanted = arguments.preset or metadata.preset
    config = metadata.config
    if arguments.overrides or arguments.seed is not None or wanted != metadata.preset:
        config = wanted_config(arguments, wanted)
    same_folder = metadata.resolve("recordings").resolve() == arguments.recordings.resolve()
    if config != metadata.config or not same_folder or arguments.include != metadata.include:
        raise UserError(f"{path}: holds a run with other recordings or settings; choose another name, or --force")
    if not metadata.resolve("state").exists():  # stopped before its first save
        return metadata, None
    metadata, state = load_run(path)
    if not Trainer.can_resume(state):
        raise UserError(f"{path}: finished with --slim, it cannot go on; choose another name, or --force")
    return metadata, state
