"""Ogg: streams one after another, and the length that the last page tells.

Source: RFC 3533 (pages), RFC 7845 (Opus), "Vorbis I specification".
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import regex

from streams.source import NO_SOUND, Source, Stream, View

_NAME = regex.compile(b"OggS")
_FIRST, _LAST = 2, 4  # flags of a page
_ALL_ONES = 2**32 - 1
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MAX_DAMAGED = 1000  # pages; a file of so many is none
_MOST = 255 * 8192  # samples that a page can hold: as many packets as it has segments, each of the longest block


class _Page(NamedTuple):
    place: int
    size: int
    flags: int
    granule: int
    serial: int
    number: int
    checksum: int


def streams(source: Source, start: int) -> list[Stream]:
    """The streams of a file; none where it is one stream that libsndfile reads rightly."""
    pages, is_whole = _pages(source, start)
    links, begun = [], False
    for page in pages:
        if page.flags & _FIRST and not begun:
            links.append([])
        begun = bool(page.flags & _FIRST)
        if links:
            links[-1].append(page)
    found = [_stream(source, link, not is_whole or start > 0 or len(links) > 1) for link in links]
    if not found:
        return [Stream(b"", trouble=NO_SOUND)] if start == 0 and source.at(0, 4) == b"OggS" else []
    # A recording of a broadcast may end with the headers of a next piece.
    found = [stream for stream in found if stream is None or stream.trouble != NO_SOUND] or found[:1]
    return [] if found == [None] else [stream for stream in found if stream]


def _pages(source: Source, place: int) -> tuple[list[_Page], bool]:
    """All whole pages, and whether nothing else stands between them or before them.

    A page that was cut off seems to go on into what follows, so the checksum decides where no page follows.
    """
    pages, is_whole, n_damaged = [], True, 0
    while place < source.size:
        head = source.at(place, 27)
        if head[:4] == b"OggS" and len(head) == 27:
            flags, granule, serial, number, checksum = struct.unpack_from("<BqIII", head, 5)
            n = head[26]
            size = 27 + n + sum(source.at(place + 27, n))
            end, is_page = place + size, place + size <= source.size
            if is_page and end < source.size and source.at(end, 4) != b"OggS" and _is_damaged(source, place, size):
                is_page, n_damaged = False, n_damaged + 1
            if is_page:
                page = _Page(place, size, flags, granule, serial, number, checksum)
                if pages and page[1:] == pages[-1][1:]:  # the same once more, as a server sends it that tries again
                    is_whole = False
                else:
                    pages.append(page)
                place += size
                continue
        found = source.find(_NAME, place + 1, source.size)
        is_whole &= bool(pages) and found < 0
        if found < 0 or n_damaged > _MAX_DAMAGED:
            break
        place = found
    return pages, is_whole


def _stream(source: Source, pages: list[_Page], mend: bool) -> Stream | None:
    """One stream of a chain, made of the pages of its sound; None where libsndfile reads them rightly.

    Args:
        mend: whether the stream must be taken out of the file in any case.
    """
    serials = {page.serial for page in pages if page.flags & _FIRST}
    first = next((p for p in pages if _is_audio(source, p)), pages[0])
    own = [page for page in pages if page.serial == first.serial]
    last, before = own[-1], max((page.granule for page in own[:-1]), default=0)
    if len(own) < 3:  # headers take two at least
        return Stream(b"", trouble=NO_SOUND)
    is_known, granule = bool(last.flags & _LAST), last.granule
    if granule <= before or granule - before > _MOST:
        mend, is_known, granule = True, False, max(0, before) + _MOST
    early = any(page.flags & _LAST for page in own[:-1])  # some encoders end a stream, and go on
    if not (mend or early or len(serials) > 1 or not last.flags & _LAST):
        return None
    kept = own if len(serials) > 1 else pages
    pieces = []
    for page in kept:
        if page is last:
            pieces.append(_changed(source, page, page.flags | _LAST, granule))
        elif page.flags & _LAST:
            pieces.append(_changed(source, page, page.flags & ~_LAST, page.granule))
        else:
            pieces.append((page.place, page.size))
    return Stream(View(source, pieces), is_known=is_known, if_empty=NO_SOUND)


def _changed(source: Source, page: _Page, flags: int, granule: int) -> bytes:
    """A page with other flags and another granule position."""
    out = bytearray(source.at(page.place, page.size))
    out[5] = flags
    out[6:14] = struct.pack("<q", granule)
    out[22:26] = bytes(4)
    out[22:26] = struct.pack("<I", _checksum(out))
    return bytes(out)


def _is_audio(source: Source, page: _Page) -> bool:
    """Whether a stream of sound begins with this page, not one of pictures or a skeleton."""
    n = source.at(page.place + 26, 1)[0]
    body = source.at(page.place + 27 + n, 8)
    return bool(page.flags & _FIRST) and body.startswith((b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   "))


def _checksum(page: bytes | bytearray) -> int:
    """CRC of 32 bits by 0x04C11DB7, not reflected, that begins with 0: zlib's, with the bits of each byte, and of the
    result, the other way round."""
    value = ~zlib.crc32(page.translate(_MIRRORED), _ALL_ONES) & _ALL_ONES
    return int(f"{value:032b}"[::-1], 2)


def _is_damaged(source: Source, place: int, size: int) -> bool:
    """Whether a page is another than its checksum tells."""
    page = bytearray(source.at(place, size))
    told, page[22:26] = int.from_bytes(page[22:26], "little"), bytes(4)
    return _checksum(page) != told
