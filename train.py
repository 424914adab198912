"""Train on a folder of recordings, refreshing the state file all the while."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import sys
from pathlib import Path

import regex

from config import PRESETS
from errors import UserError, exit_status, printable
from leftovers import sweep_leftovers
from run_folder import Hold
from terminal import Output, interruptible


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a model on a folder of recordings. The same command again goes on where it stopped.",
    )
    parser.add_argument("recordings", metavar="RECORDINGS", type=Path, help="folder of recordings, any depth")
    parser.add_argument(
        "--metadata", type=Path, metavar="FILE", help="the run's file, NAME.json (default: metadata/FOLDER.json)"
    )
    parser.add_argument("--preset", choices=list(PRESETS), help="model and framing (default: small)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="one hyperparameter, e.g. model.hidden_size=256",
    )
    parser.add_argument(
        "--from",
        type=Path,
        metavar="FILE",
        dest="origin",
        help="start with what another run (its NAME.json) has learned, and with its settings",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="of the run as a whole, in steps (default: 20)")
    budget.add_argument("--steps", type=int, help="length of the run as a whole in steps")
    parser.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS", help="in steps (default: 60)")
    parser.add_argument("--seed", type=int, help="of weights, order and noise (default: 0)")
    parser.add_argument("--include", default="", metavar="REGEX", help="only recordings whose path matches")
    parser.add_argument(
        "--device", choices=["auto", "cuda", "mps", "cpu"], default="auto", help="auto: CUDA, then MPS, then CPU"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: one a core)")
    parser.add_argument("--no-preview", action="store_true", help="no preview WAV and PNG with each state")
    parser.add_argument(
        "--slim", action="store_true", help="at the end, keep only what predict.py needs, an eighth of the size"
    )
    parser.add_argument("--force", action="store_true", help="start anew over an existing run")
    arguments = parser.parse_args(argv)
    arguments.words = sys.argv[1:] if argv is None else [str(word) for word in argv]
    if arguments.metadata is None:
        arguments.metadata = default_metadata(arguments.recordings)
    if arguments.steps is None and arguments.minutes is None:
        arguments.minutes = 20.0
    for name in ("steps", "minutes"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < 1e9:
            parser.error(f"--{name} must be above 0, not {value}")
    if not arguments.save_every > 0:
        parser.error(f"--save-every must be above 0, not {arguments.save_every}")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        parser.error("--seed must be 0 or more, below 2^63")
    if arguments.origin and arguments.preset:
        parser.error("--from brings its own settings: leave out --preset")
    if arguments.threads < 0:
        parser.error("--threads must be 0 or more")
    return arguments


def default_metadata(recordings: Path) -> Path:
    """``metadata/FOLDER.json``, named after the folder (or file) of the recordings."""
    place = Path(os.path.realpath(recordings))  # also where it is a link to itself
    name = place.stem if place.is_file() else place.name
    name = regex.sub(r"[^\w.-]+", "-", name).strip("-.") or "recordings"
    if name.startswith("pcm-"):  # as the folders of decoded audio beside it
        name = f"run-{name}"
    return Path("metadata") / f"{name}.json"


def main(argv=None) -> int:
    with Output("train.py") as output:
        arguments = parse_arguments(argv)
        with interruptible():  # leaves no decoding process behind
            status = exit_status(
                "train.py",
                lambda: run(arguments),
                "before the first step: the same command begins again",
                "begin with less, e.g. a smaller --preset or --set training.batch_size=8",
            )
        return output.status(status)


def run(arguments: argparse.Namespace) -> int:
    metadata_path = arguments.metadata
    if metadata_path.suffix != ".json":
        raise UserError(f"{metadata_path}: a metadata file ends in .json; write --metadata metadata/NAME.json")
    if metadata_path.is_dir():
        raise UserError(f"{metadata_path}: is a folder; name a file, e.g. --metadata metadata/NAME.json")
    if not arguments.recordings.exists():
        raise UserError(f"{arguments.recordings}: no such folder; give the folder that holds the recordings")
    print(printable(f"{arguments.recordings} -> {metadata_path}"), file=sys.stderr, flush=True)
    folder = metadata_path.parent / metadata_path.stem
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hold = Hold(folder / "lock")
    except OSError as error:
        remove_empty(made)
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --metadata") from None
    with contextlib.closing(hold):
        with no_traces(metadata_path, made):
            session = begin(arguments, hold)
        return session.train()


def begin(arguments: argparse.Namespace, hold: Hold):
    """The session, up to its first step, once the run is held."""
    metadata_path, folder = arguments.metadata, hold.path.parent
    for place in (folder, folder / "previews"):
        sweep_leftovers(place, held=True)
    sweep_leftovers(metadata_path.parent, f"{glob.escape(metadata_path.name)}.*.tmp", held=True)
    from run_log import Progress

    progress = Progress()
    with progress.task("loading PyTorch"):
        from session import Session
    return Session(arguments, progress, hold)


@contextlib.contextmanager
def no_traces(metadata_path: Path, made: list[Path]):
    """A training that is refused, or interrupted, before it has metadata leaves no file, folder or empty store that
    was not there. Only for the process that holds the run.

    Args:
        made: folders that were not there, deepest first.
    """
    parent, folder = metadata_path.parent, metadata_path.parent / metadata_path.stem
    before = set(parent.glob("pcm-*")) | (set() if folder in made else set(folder.glob("*")))
    try:
        yield
    except (UserError, OSError, KeyboardInterrupt, MemoryError, RuntimeError):
        if not metadata_path.exists():
            for path in set(folder.glob("*")) - before:
                if path.is_file():
                    path.unlink()
            for store in set(parent.glob("pcm-*")) - before:
                if {path.suffix for path in store.iterdir()} <= {".json"}:  # nothing decoded, by nobody
                    for path in store.iterdir():
                        path.unlink()
                    remove_empty([store])
            remove_empty(made)
        raise


def remove_empty(folders: list[Path]):
    """Remove each folder that holds nothing."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
