"""Decoded recordings on disk: each is decoded once, read piece by piece, and checked whenever it is read.

The store is a folder of ``<sha256>.pcm`` files (little-endian int16, mono, or stereo with left and right by turns) with
a small ``<sha256>.json`` beside each, whose values carry their own checksum; so a file that is missing, cut off or
changed is noticed, at the start or in the middle of a training, and decoded again from its recording. Nothing here
holds a recording in memory as a whole, and nothing is mapped: to read a map of a file that somebody truncates ends the
process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import provenance
from decoding import SILENCE, Unusable, decode
from errors import UserError, count
from leftovers import sweep_leftovers, temporary_path

STORE_VERSION, MIN_SECONDS = 2, 0.1
CHECKED = 1 << 15  # bytes of PCM under one checksum: a window of 1.5 s in mono at 22 kHz touches three
FEW = 8  # notices that are all given


class StoreFault(Exception):
    """The store cannot be written; its one argument is the number of the error, see :mod:`errno`."""


class Lost(UserError):
    """The samples of a ``recording`` can neither be read nor decoded again; ``reason`` says why."""

    def __init__(self, recording: Recording, reason: str):
        super().__init__(f"{recording.source or recording.name}: {reason}; restore it, or train without it")
        self.recording, self.reason = recording, reason


class Notices:
    """Lines about files, of which thousands may fail for one cause: the first few, then the first of each doubling."""

    def __init__(self, say: Callable[[str], None]):
        self.say, self.n = say, 0

    def __call__(self, line: str):
        self.n += 1
        if self.n <= FEW or self.n & (self.n - 1) == 0:
            self.say(line + f" ({self.n} until now)" * (self.n > FEW))


def to_stderr(line: str):
    """Where notices go if nobody asks for them."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Recording:
    """One decoded recording.

    ``name`` is its path below the folder, ``pcm`` its file in the store, ``scale`` what one PCM step is worth, ``rms``
    its root mean square (full scale 1). ``checks`` are the CRC-32 of each :data:`CHECKED` bytes of ``pcm``, four bytes
    each; ``source`` is the recording itself, which was decoded to ``sample_rate`` Hz; ``say`` is told in one line when
    it had to be decoded again.
    """

    name: str
    sha256: str
    pcm: str
    n_samples: int
    scale: float
    rms: float
    channels: int = 1
    checks: bytes = field(default=b"", repr=False)
    source: str = ""
    sample_rate: int = 0
    say: Callable[[str], None] = field(default=to_stderr, compare=False, repr=False)

    def read(self, start: int, n_samples: int) -> np.ndarray:
        """Samples ``start .. start + n_samples``, zeros beyond the end. Float32 ``[n_samples]``, stereo
        ``[2, n_samples]``.

        The file is open for this read only: any number of recordings needs no more file handles than one.

        Raises:
            Lost: the file is missing or damaged, and so is the recording.
        """
        waveform = np.zeros((self.channels, n_samples), dtype=np.float32)
        first, last = max(start, 0), min(start + n_samples, self.n_samples)
        if last > first:
            width = 2 * self.channels
            block, offset = divmod(first * width, CHECKED)
            n_blocks = -(-last * width // CHECKED) - block
            try:
                blob = self._blocks(block, n_blocks)
            except OSError as error:
                restore(self, error.strerror)
                try:
                    blob = self._blocks(block, n_blocks)
                except OSError as again:
                    raise Lost(self, f"{self.pcm}: {again.strerror}, also after it was decoded again") from None
            pcm = np.frombuffer(blob, "<i2", (last - first) * self.channels, offset).reshape(-1, self.channels)
            np.multiply(pcm.T, np.float32(self.scale), out=waveform[:, first - start : last - start])
        return waveform if self.channels > 1 else waveform[0]

    def _blocks(self, first: int, n: int) -> bytes:
        """The bytes under checksums ``first .. first + n``. Raises OSError: missing, unreadable, cut off or changed."""
        place, end = first * CHECKED, min((first + n) * CHECKED, 2 * self.channels * self.n_samples)
        handle = os.open(self.pcm, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(0, "not a regular file")
            parts = []
            while place < end:
                part = os.pread(handle, end - place, place)
                if not part:
                    raise OSError(0, "cut off")
                parts.append(part)
                place += len(part)
        finally:
            os.close(handle)
        blob = b"".join(parts)
        if checksums(blob) != self.checks[4 * first : 4 * (first + n)]:
            raise OSError(0, "damaged")
        return blob


def restore(recording: Recording, why: str):
    """Decode a recording again, to the same bytes, since its file in the store is of no use.

    Args:
        why: in a few words, what is wrong with that file.

    Raises:
        Lost: the recording is not what it was, or there is no room.
    """
    store = Path(recording.pcm).parent
    try:
        if not recording.source or not recording.checks:
            raise Unusable("where it came from is not known")
        if not stat.S_ISREG(os.stat(recording.source).st_mode):  # a pipe would be waited for
            raise Unusable("it is not a regular file")
        digest = key_of(recording.source, recording.sample_rate, recording.channels)
        if digest != recording.sha256:
            raise Unusable("it was replaced by another one")
        store.mkdir(parents=True, exist_ok=True)
        meta = decode_into(recording.source, store, digest, recording.sample_rate, recording.channels)
        if (meta["n_samples"], meta["scale"], meta["checks"]) != (
            recording.n_samples,
            recording.scale,
            recording.checks.hex(),
        ):
            raise Unusable("it is decoded to other samples now")
    except (Unusable, StoreFault, OSError) as error:
        if isinstance(error, StoreFault):
            reason = f"the store cannot be written: {os.strerror(error.args[0])}"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        raise Lost(recording, f"{recording.pcm}: {why}, and it cannot be decoded again: {reason}") from None
    recording.say(f"decoded again: {recording.name} ({recording.pcm}: {why}); nothing is lost")


# -- into the store ----------------------------------------------------------------------------


def store_recording(path: str, store: str, sample_rate: int, channels: int = 1) -> dict:
    """Decode ``path`` into the store unless its content is there; ``{"sha256"}`` or ``{"reason"}``, the latter with
    ``"passing"`` where it may be another one the next time, and with ``"made"`` for what a model made.

    Raises:
        StoreFault: there is no room, or no right to write.
    """
    try:
        if provenance.is_marked(path):
            return {"reason": "a model made it", "made": True}
        digest = key_of(path, sample_rate, channels)
        if not stored(Path(store), digest):
            decode_into(path, Path(store), digest, sample_rate, channels)
        return {"sha256": digest}
    except Unusable as error:
        return {"reason": str(error)}
    except OSError as error:
        return {"reason": error.strerror or str(error), "passing": True}


def key_of(path: str, sample_rate: int, channels: int) -> str:
    """The name in the store of what is in a file. Raises OSError."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    key = f"{STORE_VERSION} {sample_rate} {digest}" + " stereo" * (channels == 2)
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def stored(store: Path, digest: str) -> dict | None:
    """What is known of a decoded recording, if it is there as a whole. Its samples are checked when they are read."""
    meta = read_json(store / f"{digest}.json")
    try:
        status = os.stat(store / f"{digest}.pcm")
    except OSError:
        return None
    size = 2 * meta.get("channels", 1) * meta.get("n_samples", -1)
    return meta if stat.S_ISREG(status.st_mode) and status.st_size == size and "checks" in meta else None


def decode_into(path: str, store: Path, digest: str, sample_rate: int, channels: int) -> dict:
    """Decode a file under a name in the store; what is known of it, as :func:`stored` gives it.

    Raises:
        Unusable, OSError: the recording; :class:`StoreFault`: the store. Nothing half-written stays.
    """
    part, scale, before = temporary_path(store / f"{digest}.pcm"), 1 / 32767, _identity(path)
    try:
        for attempt in range(2):
            n_samples, peak, energy, checks, rest = 0, 0.0, 0.0, [], b""
            with _Part(part) as file:
                for block in decode(path, sample_rate, channels):
                    n_samples += block.shape[-1]
                    peak = max(peak, float(np.abs(block).max()))
                    energy += float(np.square(block, dtype=np.float64).sum())
                    pcm = np.rint(np.clip(block / scale, -32767, 32767)).astype("<i2").T.tobytes()
                    file.write(pcm)
                    rest += pcm
                    whole = len(rest) // CHECKED * CHECKED
                    checks.append(checksums(rest[:whole]))
                    rest = rest[whole:]
            if n_samples < MIN_SECONDS * sample_rate:
                raise Unusable(f"only {count(n_samples, 'sample')} long (at least {MIN_SECONDS} s is needed)")
            if peak < SILENCE:
                raise Unusable("it is silent")
            if attempt or 0.25 <= peak <= 1:
                break
            scale = peak / 32767  # very loud or quiet: once more, so that 16 bits are well used
        if _identity(path) != before:
            raise OSError(0, "it was changed while it was read")
        rms = float(np.sqrt(energy / (channels * n_samples)))
        meta = {"n_samples": n_samples, "scale": scale, "rms": rms, "peak": peak}
        meta |= {"channels": channels, "checks": b"".join([*checks, checksums(rest)]).hex()}
        with _writing():
            write_json(store / f"{digest}.json", meta, before=lambda: os.replace(part, store / f"{digest}.pcm"))
        return meta
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def checksums(blob: bytes) -> bytes:
    """CRC-32 of each :data:`CHECKED` bytes and of the rest, each as four bytes, the lowest first."""
    view = memoryview(blob)
    return b"".join(zlib.crc32(view[i : i + CHECKED]).to_bytes(4, "little") for i in range(0, len(blob), CHECKED))


class _Part:
    """A file that is being written; what goes wrong with it is a :class:`StoreFault`."""

    def __init__(self, path: Path):
        with _writing():
            self.file = open(path, "wb")  # noqa: SIM115

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            with _writing():
                self.file.close()
        else:
            with contextlib.suppress(OSError):
                self.file.close()

    def write(self, blob: bytes):
        with _writing():
            self.file.write(blob)


@contextlib.contextmanager
def _writing():
    try:
        yield
    except OSError as error:
        raise StoreFault(error.errno) from None


def _identity(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def sweep_store(store: Path):
    """Remove what killed processes left half-written."""
    for pattern in ("*.tmp", "*.part"):
        sweep_leftovers(store, pattern)


# -- small files -------------------------------------------------------------------------------


def write_json(path: Path, values: dict, before: Callable[[], None] = lambda: None):
    """Write ``values`` with their checksum, so that a reader sees the old file or the new one, never half of one.

    Args:
        before: called once they are written under another name, right before they get theirs.

    Raises:
        OSError: nothing is left behind.
    """
    temporary = temporary_path(path)
    try:
        temporary.write_text(json.dumps({**values, "seal": _seal(values)}, indent=1) + "\n")
        before()
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict:
    """What :func:`write_json` wrote; nothing where the file is missing, unreadable or not to the letter what it was."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return {}
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    seal = values.pop("seal", None)
    return values if seal == _seal(values) else {}


def _seal(values: dict) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
