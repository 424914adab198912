"""The command line of :mod:`bench.sound`, and what can be said of it before anything heavy is loaded."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
from pathlib import Path

from bench import add_overrides
from bench.trainings import plan, presets_of
from config import PRESETS
from errors import UserError


def parse(argv, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sound", description=description)
    parser.add_argument("recordings", metavar="RECORDINGS", type=Path, help="the folder the models are trained on")
    parser.add_argument(
        "--metadata", nargs="+", type=Path, metavar="M.json", help="trained states (default: train what --preset says)"
    )
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), help="default: small original")
    parser.add_argument(
        "--minutes",
        nargs="+",
        type=float,
        default=[20.0],
        metavar="T",
        help="of training, each (default: 20); of several, ascending, each run is trained once and judged at each",
    )
    add_overrides(parser)
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME:KEY=VALUE,KEY=VALUE",
        help="train each preset with these settings, as --set; again for another variant, NAME alone for none",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="train each N times, from seed 0 on (default: 1)"
    )
    parser.add_argument("--prompts", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of continuation (default: 20)")
    parser.add_argument("--long", type=float, default=60.0, metavar="S", help="for some of the prompts (default: 60)")
    parser.add_argument("--long-prompts", type=int, metavar="N", help="for how many of them (default: 4)")
    parser.add_argument("--temperature", type=float, metavar="T", help="default: that of the model")
    parser.add_argument("--out", type=Path, default=Path("out/sound"), metavar="FOLDER", help="default: out/sound")
    parser.add_argument("--skip-notes", action="store_true", help="no notes and keys: needs no basic-pitch")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draws (default: 0)")
    parser.add_argument("--device", choices=["auto", "cuda", "mps", "cpu"], default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: one a core)")
    return parser.parse_args(argv)


def check(arguments: argparse.Namespace):
    """What can be said before anything heavy is loaded."""
    if not arguments.recordings.exists():
        raise UserError(f"{arguments.recordings}: no such folder; give the folder that holds the recordings")
    if arguments.metadata and arguments.preset:
        raise UserError("--preset: says what is trained, --metadata what is there already; give one of them")
    trains = {
        "--set": arguments.overrides,
        "--variant": arguments.variant,
        "--seeds": arguments.seeds != 1,
        "--minutes": len(arguments.minutes) > 1,
    }
    for option in (option for option, given in trains.items() if given and arguments.metadata):
        raise UserError(f"{option}: says how models are trained, --metadata takes what is there; leave one of them out")
    if arguments.prompts < 2:
        raise UserError(f"--prompts {arguments.prompts}: must be at least 2")
    if not 3 <= arguments.seconds <= 600:
        raise UserError(f"--seconds {arguments.seconds}: must be 3 (one window) to 600")
    if not arguments.seconds <= arguments.long <= 600:
        raise UserError(f"--long {arguments.long}: must be --seconds or more, at most 600")
    if arguments.long_prompts is not None and not 1 <= arguments.long_prompts <= arguments.prompts:
        raise UserError(f"--long-prompts {arguments.long_prompts}: must be 1 to --prompts, {arguments.prompts}")
    for minutes in arguments.minutes:
        if not 0 < minutes < 1e9:
            raise UserError(f"--minutes {minutes:g}: must be above 0")
    if any(a >= b for a, b in itertools.pairwise(arguments.minutes)):
        raise UserError(f"--minutes {' '.join(f'{m:g}' for m in arguments.minutes)}: must ascend")
    if not 1 <= arguments.seeds <= 1000:
        raise UserError(f"--seeds {arguments.seeds}: must be 1 to 1000")
    if not arguments.metadata:
        plan(presets_of(arguments), arguments.variant, arguments.overrides, arguments.seeds)
    if not 0 <= arguments.seed < 2**62:
        raise UserError(f"--seed {arguments.seed}: must be 0 or more, below 2^62")
    if arguments.threads < 0:
        raise UserError(f"--threads {arguments.threads}: must be 0 or more")
    for name in ["musicnn"] + ["basic_pitch", "onnxruntime"] * (not arguments.skip_notes):
        if importlib.util.find_spec(name) is None:  # before an hour of training, not after
            raise UserError(f"{name}: not installed; see requirements-metrics.txt and requirements-metrics-nodeps.txt")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{arguments.out}: cannot be made ({error.strerror}); choose another --out") from None
