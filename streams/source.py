"""A file that is looked at here and there, and views of it with some bytes replaced."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import BinaryIO

import regex

NO_SOUND = "cut off before its first sound"
LONGEST = 8  # bytes of a pattern
_BLOCK = 1 << 18


def is_cut_off(claimed: int, n_samples: int, rate: int) -> bool:
    """Whether more is missing of the samples that a header claims than encoders miscount, and than is worth losing
    all the rest for: a fiftieth, or a tenth of a second.

    Args:
        rate: in Hz.
    """
    return claimed - n_samples > max(0.02 * claimed, 0.1 * rate)


class Source:
    """A file of ``size`` bytes; what was read last is remembered, so that small steps through it are cheap."""

    def __init__(self, file: BinaryIO):
        self.file, self.size = file, file.seek(0, os.SEEK_END)
        self._first, self._block = 0, b""

    def at(self, place: int, n: int) -> bytes:
        """``n`` bytes from ``place`` on, fewer at the end of the file."""
        begin = place - self._first
        if begin < 0 or begin + n > len(self._block):
            self.file.seek(place)
            self._first, self._block = place, self.file.read(max(n, _BLOCK))
            begin = 0
        return self._block[begin : begin + n]

    def find(self, pattern: regex.Pattern[bytes], place: int, stop: int) -> int:
        """The first place from ``place`` up to ``stop`` where a pattern begins, -1 where it does nowhere; it may have
        ``LONGEST`` bytes."""
        while place < stop:
            block = self.at(place, min(_BLOCK, stop - place + LONGEST))
            if found := pattern.search(block):
                return place + found.start() if place + found.start() < stop else -1
            if len(block) < LONGEST:
                return -1
            place += len(block) - LONGEST + 1
        return -1


class View(io.RawIOBase):
    """A file made of pieces: bytes, or ``(place, size)`` of a source."""

    def __init__(self, source: Source, pieces: list[bytes | tuple[int, int]]):
        self._source, self._place = source.file, 0
        self._pieces, end = [], 0  # (begin, end, piece)
        for piece in pieces:
            begin, end = end, end + (len(piece) if isinstance(piece, bytes) else piece[1])
            self._pieces.append((begin, end, piece))
        self._size, self._current = end, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer) -> int:
        """As many bytes as there are room for: libsndfile takes fewer for the end of the file."""
        target, n_read = memoryview(buffer).cast("B"), 0
        while n_read < len(target) and self._place < self._size:
            while not self._pieces[self._current][0] <= self._place < self._pieces[self._current][1]:
                self._current = (self._current + 1) % len(self._pieces)
            begin, end, piece = self._pieces[self._current]
            n, skipped = min(len(target) - n_read, end - self._place), self._place - begin
            if isinstance(piece, bytes):
                part = piece[skipped : skipped + n]
            else:
                self._source.seek(piece[0] + skipped)
                part = self._source.read(n)
            if not part:
                break
            target[n_read : n_read + len(part)] = part
            n_read, self._place = n_read + len(part), self._place + len(part)
        return n_read


@dataclass(frozen=True)
class Stream:
    """``file``: what libsndfile opens, a path or a view. ``is_known``: whether the length in its header is what its
    writer knew, so that a stream that ends before is a damaged one. ``trouble``: why it cannot be used at all;
    ``if_empty``: what is said where no sample comes out of it."""

    file: bytes | View
    is_known: bool = True
    trouble: str = ""
    if_empty: str = "it holds no samples"
