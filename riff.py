"""Chunks of a WAV file that a DAW reads beside the samples: tempo and time signature, loop, markers.

Sources: "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft 1991) and "New Multimedia
Data Types and Data Techniques" (Microsoft 1994) for ``cue ``, ``LIST adtl`` and ``smpl``; EBU Tech 3306 for RF64;
``acid``, which Sonic Foundry never published, as libsndfile and its readers have it. Pure but for :func:`append`
and :func:`walk`, which work on an open file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from meter import Meter

MAX_SAMPLE = 2**32 - 1  # that a chunk can point to
# What the flags of ``acid`` say: to be stretched to the project's tempo, and played from disk. Not set: one-shot,
# that is without a tempo; the root note is valid.
_STRETCH, _FROM_DISK = 4, 8
_UNITY_NOTE = 60  # the MIDI note at which a sampler plays as recorded


def acid(meter: Meter, seconds: float) -> bytes:
    """Body of ``acid``: tempo, time signature and length in quarters."""
    n_quarters = round(seconds * meter.tempo / 60)
    fields = (_STRETCH | _FROM_DISK, _UNITY_NOTE, 0x8000, 0.0, n_quarters, meter.beat_type, meter.beats, meter.tempo)
    return struct.pack("<IHHfIHHf", *fields)


def smpl(sample_rate: int, loop: tuple[int, int] | None = None) -> bytes:
    """Body of ``smpl``, what a sampler needs to know.

    Args:
        loop: first sample and the one after the last of what is to be repeated.
    """
    head = (0, 0, round(1e9 / sample_rate), _UNITY_NOTE, 0, 0, 0, int(loop is not None), 0)
    body = struct.pack("<9I", *head)
    return body if loop is None else body + struct.pack("<6I", 1, 0, loop[0], loop[1] - 1, 0, 0)


def cue(samples: list[int]) -> bytes:
    """Body of ``cue ``: a marker at each of ``samples``, numbered from 1."""
    points = [struct.pack("<II4sIII", i, n, b"data", 0, 0, n) for i, n in enumerate(samples, 1)]
    return struct.pack("<I", len(points)) + b"".join(points)


def labels(names: list[str]) -> bytes:
    """Body of ``LIST`` of type ``adtl``: the names of the markers, in their order."""
    chunks = [_chunk(b"labl", struct.pack("<I", i) + name.encode() + b"\0") for i, name in enumerate(names, 1)]
    return b"adtl" + b"".join(chunks)


def float_header(sample_rate: int, channels: int, n_samples: int, large: bool, software: str) -> bytes:
    """What stands before the samples of a WAV file of 32-bit floats, or where it is ``large`` of an RF64 file.

    Args:
        software: that made it.
    """
    size, most = 4 * channels * n_samples, 2**32 - 1
    fmt = struct.pack("<HHIIHHH", 3, channels, sample_rate, 4 * channels * sample_rate, 4 * channels, 32, 0)
    chunks = _chunk(b"fmt ", fmt) + _chunk(b"fact", struct.pack("<I", min(n_samples, most)))
    chunks += _chunk(b"LIST", b"INFO" + _chunk(b"ISFT", software.encode() + b"\0"))
    chunks += struct.pack("<4sI", b"data", most if large else size)
    if not large:
        return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks) + size, b"WAVE") + chunks
    chunks = _chunk(b"ds64", struct.pack("<QQQI", 40 + len(chunks) + size, size, n_samples, 0)) + chunks
    return struct.pack("<4sI4s", b"RF64", most, b"WAVE") + chunks


def append(file: BinaryIO, chunks: list[tuple[bytes, bytes]]):
    """Put chunks ``(id, body)`` behind the others of a WAV or RF64 file, open for reading and writing."""
    file.seek(0, 2)
    if file.tell() % 2:  # a chunk begins at an even place
        file.write(b"\0")
    for name, body in chunks:
        file.write(_chunk(name, body))
    size = file.seek(0, 2) - 8
    if _head(file) == b"RF64":
        file.seek(20)  # the first field of ds64
        file.write(struct.pack("<Q", size))
    else:
        file.seek(4)
        file.write(struct.pack("<I", size))


def walk(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """``(id, place of its body, size)`` of each chunk, in the order of the file."""
    large = _head(file) == b"RF64"
    place, end, n_data = 12, file.seek(0, 2), 0
    while place + 8 <= end:
        file.seek(place)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"ds64":
            n_data = struct.unpack("<8xQ", file.read(16))[0]
        if large and name == b"data" and size == 2**32 - 1:
            size = n_data
        yield name, place + 8, size
        place += 8 + size + size % 2


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(4)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", name, len(body)) + body + b"\0" * (len(body) % 2)
