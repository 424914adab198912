"""Metadata and state file: atomic, checksummed, versioned; a reader may open them at any instant.

``NAME.json`` says what a run is (hyperparameters and paths, relative to its folder); the state
file holds every array: model, scaler and latents, optimizer, random states. The state is a
plain safetensors file whose header carries the SHA-256 of the whole file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import regex

from config import RunConfig, from_saved, to_dict
from errors import UserError, is_out_of_memory, remedy
from leftovers import temporary_path

if TYPE_CHECKING:  # who only looks at a run needs no PyTorch
    import torch

FORMAT = "nextframe"
FIRST_STATE = "the first state is there about half a minute after the first step: try again then"
FORMAT_VERSION = 5
_BLANK = "0" * 64
MAX_HEADER = 1 << 24  # bytes that describe the arrays of a state file
_DIGEST = regex.compile(rb'"sha256":"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Metadata:
    """What a run is and where its files are.

    ``recordings``, ``origin``, ``store``, ``state``, ``log``, ``previews`` and ``tensorboard`` are relative
    to the folder of ``path``.
    """

    path: Path
    config: RunConfig
    preset: str = "small"
    recordings: str = ""
    include: str = ""
    origin: str = ""  # metadata of the run whose weights it began with; none: it began from scratch
    store: str = ""
    state: str = ""
    log: str = ""
    previews: str = ""
    tensorboard: str = ""
    scaler: str = "arrays model.basis.* and model.envelope.* in the state file"
    corpus: dict = field(default_factory=dict)
    sessions: list = field(default_factory=list)  # of train.py: what each ran on, and from which step on

    def resolve(self, name: str) -> Path:
        """The path of one of the files above."""
        return self.path.parent / getattr(self, name)


@dataclass(frozen=True)
class State:
    """Arrays by name and a few plain values (``step``, ``seconds``, ``level``, ``config``)."""

    tensors: dict[str, torch.Tensor]
    info: dict

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors whose name starts with ``prefix.``, without it."""
        cut = len(prefix) + 1
        return {name[cut:]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix + ".")}


def new_metadata(path, config: RunConfig, **fields) -> Metadata:
    """Metadata with the usual places: a folder of the same name beside the file."""
    path = Path(path)
    name, framing = path.stem, config.featurizer
    places = {
        "store": f"pcm-{framing.sample_rate}" + "-stereo" * (framing.channels == 2),
        "state": f"{name}/state.safetensors",
        "log": f"{name}/log.jsonl",
        "previews": f"{name}/previews",
        "tensorboard": f"{name}/tensorboard",
    }
    return Metadata(path=path, config=config, **{**places, **fields})


def write_metadata(metadata: Metadata):
    """Write the JSON file, atomically."""
    values = asdict(metadata)
    values["config"] = to_dict(metadata.config)
    del values["path"]
    values = {"format": FORMAT, "format_version": FORMAT_VERSION, **values}
    values["sha256"] = _json_digest(values)
    write_atomic(metadata.path, (json.dumps(values, indent=2) + "\n").encode())


def read_metadata(path) -> Metadata:
    """Read and check a metadata file.

    Raises:
        UserError: missing, damaged, foreign, of a newer format, or with an unknown key.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20)
    except (FileNotFoundError, NotADirectoryError):
        if is_held(path.with_suffix("")):
            raise UserError(f"{path}: training reads its recordings; {FIRST_STATE}") from None
        remedy = f"train first: python train.py RECORDINGS --metadata {path}"
        raise UserError(f"{path}: no such metadata file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a metadata file") from None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: damaged, or not a metadata file; restore it, or train anew with --force") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{path}: not a metadata file of {FORMAT}; give the file that train.py wrote")
    _check_version(path, values.get("format_version"))
    digest = values.pop("sha256", None)
    if digest != _json_digest(values):
        raise UserError(f"{path}: damaged or edited (its checksum differs); restore it, or train anew with --force")
    del values["format"], values["format_version"]
    config = from_saved(values.pop("config", {}))
    unknown = set(values) - set(Metadata.__dataclass_fields__)
    if unknown:
        raise UserError(f"{path}: unknown key {sorted(unknown)[0]!r}; it was written by another version")
    return Metadata(path=path, config=config, **values)


class NotFinite(ValueError):
    """A state holds NaN or infinity; the message names where."""


def check_finite(tensors: dict[str, torch.Tensor], info: dict):
    """That every number of a state is one.

    Raises:
        NotFinite
    """
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    bad += [name for name, value in info.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        raise NotFinite(bad[0] if len(bad) == 1 else f"{bad[0]} and {len(bad) - 1} more")


def save_state(path, tensors: dict[str, torch.Tensor], info: dict):
    """Write a state file. The one before stays beside it as ``*.previous.safetensors``.

    Raises:
        OSError: disk full and the like; the old state is untouched and nothing is left behind.
        NotFinite: nothing is written.
    """
    from safetensors.torch import save

    path = Path(path)
    check_finite(tensors, info)
    header = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "info": json.dumps(info), "sha256": _BLANK}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    blob = bytearray(save(tensors, metadata=header))
    start, stop = _digest_span(blob)
    blob[start:stop] = hashlib.sha256(blob).hexdigest().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _write_temporary(path, blob)
    try:
        if path.exists():
            keep = temporary_path(path, "keep")
            keep.unlink(missing_ok=True)
            os.link(path, keep)
            os.replace(keep, previous_state(path))
    except OSError:
        pass  # a file system without links keeps no previous state
    os.replace(temporary, path)
    sync_folder(path.parent)


def why_not_written(error: Exception) -> tuple[str, str]:
    """Why :func:`save_state` has failed, and what can be done about it. What is no fault of the machine is raised."""
    if isinstance(error, NotFinite):
        return f"{error} is not finite", "start anew with a smaller --set training.learning_rate"
    if isinstance(error, OSError):
        return error.strerror, remedy(error)
    if is_out_of_memory(error):
        return "out of memory", "end other programs"
    raise error


def load_state(path) -> State:
    """Read a state file in one go and check every byte of it.

    Raises:
        UserError: missing, damaged, foreign, of a newer format, or with numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    try:
        with open(path, "rb") as file:  # one open: a save meanwhile replaces the name, not this file
            blob = bytearray(file.read())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no state yet; wait for the first save, or start train.py") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    mend = f"copy {previous_state(path).name} over it" if previous_state(path).exists() else "train anew with --force"
    try:
        start, stop = _digest_span(blob)
        digest = bytes(blob[start:stop]).decode()
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: damaged, or not a state file; {mend}") from None
    if header.get("format") == FORMAT:
        _check_version(path, header.get("format_version"))
    blob[start:stop] = _BLANK.encode()
    if hashlib.sha256(blob).hexdigest() != digest:
        raise UserError(f"{path}: damaged (its checksum differs); {mend}")
    try:
        state = State(load(bytes(blob)), json.loads(header["info"]))
    except (SafetensorError, KeyError, ValueError):
        raise UserError(f"{path}: not a state file of {FORMAT}; {mend}") from None
    try:
        check_finite(state.tensors, state.info)
    except NotFinite as error:
        raise UserError(f"{path}: holds numbers that are not finite ({error}); {mend}") from None
    return state


@dataclass(frozen=True)
class StateSummary:
    """What a state file says of itself, and whether training can go on from it (not from a slim one)."""

    step: int
    seconds: float
    resumable: bool


def summarize_state(path) -> StateSummary:
    """Check a state file to its last byte, in little memory and without PyTorch.

    Raises:
        UserError: missing, damaged, foreign or of a newer format.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = bytearray(file.read(8))
            size = int.from_bytes(head, "little")
            if len(head) < 8 or size > MAX_HEADER:
                raise ValueError("no header")
            head += file.read(size)
            start, stop = _digest_span(head)
            digest, header = bytes(head[start:stop]).decode(), json.loads(head[8:])
            if header["__metadata__"].get("format") == FORMAT:
                _check_version(path, header["__metadata__"].get("format_version"))
            head[start:stop] = _BLANK.encode()
            found = hashlib.sha256(head)
            while block := file.read(1 << 20):
                found.update(block)
        info = json.loads(header["__metadata__"]["info"])
        summary = StateSummary(int(info["step"]), float(info.get("seconds", 0)), "random.cpu" in header)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no state yet; wait for the first save, or start train.py") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: damaged, or not a state file; train anew with --force") from None
    if found.hexdigest() != digest:
        raise UserError(f"{path}: damaged (its checksum differs); train anew with --force")
    return summary


def previous_state(path: Path) -> Path:
    """Where the state before the newest is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def load_run(path, previous: bool = False) -> tuple[Metadata, State]:
    """Metadata and its newest complete state, or the one before it.

    Raises:
        UserError: see above, or the two do not belong together.
    """
    metadata = read_metadata(path)
    place = metadata.resolve("state")
    place = previous_state(place) if previous else place
    if not place.exists() and not previous and is_held(place.parent):
        raise UserError(f"{place}: training runs; {FIRST_STATE}")
    state = load_state(place)
    try:
        same = from_saved(state.info.get("config")) == metadata.config
    except UserError:
        same = False
    if not same:
        raise UserError(f"{place}: does not belong to {path}; restore both from one backup")
    return metadata, state


def is_held(folder: Path) -> bool:
    """Whether a train.py holds the run of this folder."""
    import fcntl

    try:
        handle = os.open(folder / "lock", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)
    return False


def write_atomic(path: Path, blob: bytes):
    """Write ``blob`` to ``path`` so that a crash leaves the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(_write_temporary(path, blob), path)
    sync_folder(path.parent)


def _write_temporary(path: Path, blob) -> Path:
    temporary = temporary_path(path)
    try:
        with open(temporary, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk does not say of which file
            error.filename = str(path)
        raise
    return temporary


def sync_folder(folder: Path):
    """Have what was renamed in ``folder`` on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest_span(blob: bytearray) -> tuple[int, int]:
    """Where the digest stands in the header. Raises ValueError if there is none."""
    size = int.from_bytes(blob[:8], "little")
    found = _DIGEST.search(blob, 8, min(8 + size, len(blob)))
    if not found:
        raise ValueError("no digest")
    return found.span(1)


def _json_digest(values: dict) -> str:
    values = {key: value for key, value in values.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_version(path: Path, version):
    try:
        version = int(version)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{path}: damaged, or not a file of {FORMAT}; restore it") from None
    if version < FORMAT_VERSION:
        raise UserError(f"{path}: written by an older version (format {version}); train anew with --force")
    if version > FORMAT_VERSION:
        raise UserError(f"{path}: written by a newer version (format {version}); update nextframe")
