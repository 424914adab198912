"""FLAC: how many samples there really are, by the header of the last frame; streams one after another.

Source: RFC 9639, sections 8.2 (STREAMINFO) and 9.1 (frame header).
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

from streams.source import NO_SOUND, Source, Stream, View, is_cut_off

MARK = regex.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # STREAMINFO comes first and has 34 bytes
_ALONE = b"fLaC\x80\x00\x00\x22"  # no other metadata follows it
_TAIL = 1 << 21  # bytes in which the last frame begins; more than any frame of 8 channels of 24 bits and 65536 samples
_BLOCKS = {1: 192, **{i: 576 << (i - 2) for i in range(2, 6)}, **{i: 256 << (i - 8) for i in range(8, 16)}}


def streams(source: Source, start: int) -> list[Stream]:
    """The streams of a file; none where it is one stream that libsndfile reads rightly."""
    starts = [start]
    while (place := source.find(MARK, _behind_metadata(source, starts[-1]), source.size)) >= 0:
        starts.append(place)
    found = [_stream(source, one, end) for one, end in zip(starts, [*starts[1:], source.size], strict=True)]
    found = [stream for stream in found if stream.trouble != NO_SOUND] or found
    return [] if starts == [0] and found[0].is_known and not found[0].trouble else found


def _behind_metadata(source: Source, start: int) -> int:
    """Where the first frame begins; a block may hold a picture, or all the bytes of a file of another format."""
    place, is_last = start + 4, False
    while not is_last and len(head := source.at(place, 4)) == 4:
        is_last, place = head[0] > 127, place + 4 + int.from_bytes(head[1:], "big")
    return place


def _stream(source: Source, start: int, end: int) -> Stream:
    info, first = source.at(start, 26), _behind_metadata(source, start)
    if first >= end:
        return Stream(b"", trouble=NO_SOUND)
    packed = int.from_bytes(info[18:26], "big")  # rate, channels, bits, samples: 20, 3, 5 and 36 bits
    rate, channels, bits = packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    claimed = packed & (1 << 36) - 1  # samples
    n = _n_samples(source, first, end, int.from_bytes(info[8:10], "big"), channels, bits, claimed)
    if n == claimed or not n:
        return Stream(View(source, [(start, end - start)]))
    if is_cut_off(claimed, n, rate):
        seconds = f"its header claims {claimed / max(1, rate):.1f} s, it holds {n / max(1, rate):.1f} s"
        return Stream(b"", trouble=f"damaged or cut off: {seconds}")
    head = _ALONE + info[8:18] + (packed >> 36 << 36 | n).to_bytes(8, "big") + source.at(start + 26, 16)
    return Stream(View(source, [head, (first, end - first)]), is_known=False)


def _n_samples(source: Source, first: int, end: int, block: int, channels: int, bits: int, claimed: int) -> int:
    """Samples up to the end of the last whole frame; 0 where none is found.

    Args:
        first, end: places of the first frame and of the end of the stream.
        block: samples of a frame, where all have as many.
        claimed: samples that STREAMINFO tells.
    """
    begin = max(first, end - _TAIL)
    tail = b"".join(source.at(place, min(1 << 18, end - place)) for place in range(begin, end, 1 << 18))
    place = len(tail)
    while (place := max(tail.rfind(b"\xff\xf8", 0, place), tail.rfind(b"\xff\xf9", 0, place))) >= 0:
        header = _frame(tail[place : place + 16], block, channels, bits)
        if header is None:
            place += 1
            continue
        start, size = header
        return start + size if _is_whole(tail[place:], start + size == claimed) else start
    return 0


def _is_whole(tail: bytes, is_expected: bool) -> bool:
    """Whether the frame that begins here has its end: the checksum over it and its own checksum is 0 there, and the
    file ends, or a tag or zeros follow. Where the header tells of this end, anything may follow."""
    for end, value in enumerate(_crc(tail, 16, 0x8005), 1):
        after = tail[end : end + 8]
        is_end = is_expected or after.startswith((b"ID3", b"TAG", b"APETAGEX")) or not after.strip(b"\0")
        if value == 0 and end > 8 and is_end:
            return True
    return False


def _frame(head: bytes, block: int, channels: int, bits: int) -> tuple[int, int] | None:
    """First sample and number of samples of a frame that begins so; None: no frame of this stream does."""
    if len(head) < 6 or head[3] & 1:
        return None
    assignment, depth = head[3] >> 4, head[3] >> 1 & 7
    if (assignment + 1 if assignment < 8 else 2 if assignment < 11 else 0) != channels:
        return None
    if depth and {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}.get(depth) != bits:
        return None
    n_more = 0 if head[4] < 0x80 else 8 - (head[4] ^ 0xFF).bit_length()  # bytes of a number as in UTF-8
    n_more = max(0, n_more - 1)
    if head[4] >= 0x80 and (not n_more or head[4] == 0xFF):
        return None
    number = head[4] if not n_more else head[4] & (0x3F >> n_more)
    for byte in head[5 : 5 + n_more]:
        number = number << 6 | byte & 0x3F
    place, size_code, rate_code = 5 + n_more, head[2] >> 4, head[2] & 15
    size = _BLOCKS.get(size_code, 0)
    if size_code in (6, 7):
        size = int.from_bytes(head[place : place + size_code - 5], "big") + 1
        place += size_code - 5
    place += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if not size or rate_code == 15 or place >= len(head) or [*_crc(head[:place], 8, 0x07)][-1] != head[place]:
        return None
    return (number if head[1] & 1 else number * block), size


def _crc(data: bytes, width: int, polynomial: int) -> Iterator[int]:
    """The checksum of what has been read up to each byte."""
    value, top, mask = 0, 1 << (width - 1), (1 << width) - 1
    table = []
    for byte in range(256):
        entry = byte << (width - 8)
        for _ in range(8):
            entry = entry << 1 ^ (polynomial if entry & top else 0)
        table.append(entry & mask)
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> (width - 8) ^ byte]
        yield value
