"""WAV and its 64-bit forms, AIFF, CAF and AU whose chunks or lengths are not as they should be.

Sources: "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft 1991), EBU Tech 3306 (RF64),
ITU-R BS.2088 (BW64), "Audio Interchange File Format 1.3" (Apple 1989), "Apple Core Audio Format Specification 1.0", and
Sun's audio(4). A length of 0 or of all ones is that of a writer into a pipe, which could not come back to it.
"""

from __future__ import annotations

import struct

import regex

from streams.source import Source, Stream, View

_ALL_ONES = 2**32 - 1
_LARGEST = _ALL_ONES - 4096  # bytes of samples in a RIFF file
_LARGE = 1 << 16  # bytes of another chunk before the samples, in which libsndfile may lose its way (issues 370, 542)
_FAR = 1 << 20  # bytes in which a lost chunk is looked for
_NEEDED, _HEAD = regex.compile(b"fmt |data"), regex.compile(b"WAVEfmt ")
NAMES = (b"RIFF", b"RIFX", b"RF64", b"BW64")  # RIFX: the same with its most significant bytes first


def wav(source: Source, start: int) -> list[Stream]:
    """The streams of a WAV file that begins at ``start``; none where it is one stream that libsndfile reads rightly."""
    out, place = [], start
    while place >= 0:
        stream, place = _wav(source, place)
        if stream:
            out.append(stream)
    return out


def _wav(source: Source, start: int) -> tuple[Stream | None, int]:
    """The file that begins at ``start``, None where libsndfile reads it rightly, and where the next begins, or -1."""
    form = source.at(start, 4)
    order = ">" if form == b"RIFX" else "<"
    whole = start + 8 + struct.unpack(order + "I", source.at(start + 4, 4))[0]  # where the file ends, by its header
    fmt, data, n_large, place, following = b"", [], 0, start + 12, -1
    mend = start > 0 or form == b"BW64"
    while place + 8 <= source.size:
        name, size = struct.unpack(order + "4sI", source.at(place, 8))
        body, left = place + 8, source.size - place - 8
        if name in NAMES and source.at(body, 4) == b"WAVE" and data:
            following = place
            break
        if name == b"fmt " and not fmt:
            fmt = source.at(body, min(size, 1024))
        elif name == b"ds64":
            n_large = struct.unpack("<Q", source.at(body + 8, 8).ljust(8, b"\0"))[0]
        elif name == b"data":
            size, is_wrong = _data_size(source, body, size, n_large, form)
            mend |= is_wrong
            mend |= not fmt or bool(data)
            data.append((body, size))
        elif not data and size > _LARGE:
            mend = True
        padded, bare = body + size + size % 2, body + size
        if padded >= source.size and data:
            break
        if _is_name(source, padded):
            place = padded
        elif size % 2 and _is_name(source, bare):  # odd, and not padded
            mend, place = mend or not data or not fmt, bare
        elif data and fmt:
            if name == b"data" and source.size - 1 <= whole <= source.size and _is_sound(source, padded):
                mend, data[-1] = True, (body, left)  # the length of the file is right, that of the samples is not
            break
        else:
            mend, place = True, source.find(_NEEDED, place + 4, min(source.size, place + _FAR))
            if place < 0:
                break
    if not fmt or not data or not (mend or following >= 0):
        return None, -1
    return Stream(View(source, _wav_pieces(fmt, data, order)), is_known=False), following


def _data_size(source: Source, body: int, told: int, n_large: int, form: bytes) -> tuple[int, bool]:
    """How many bytes of samples really begin at ``body``, and whether libsndfile would read others.

    Args:
        told: the size in the header of the chunk.
        n_large: the size that RF64 tells in its chunk ``ds64``, 0 without one.
        form: the name of the file's form, as ``RIFF``.
    """
    left = source.size - body
    if told == _ALL_ONES and 0 < n_large <= left:
        return n_large, False
    if told in (0, _ALL_ONES) and left and not (told == 0 and _is_chain(source, body, ">" if form == b"RIFX" else "<")):
        size, is_wrong = left, told == 0 or form != b"RIFF"
    elif told < left - 2**32:
        return told + (left - told) // 2**32 * 2**32, True  # the upper bits of the length are lost
    elif told <= left:
        return told, False
    else:
        size, is_wrong = left, False
    following = find_wav(source, body, source.size)  # of unknown length, the samples end before another file
    return (following - body, True) if following >= 0 else (size, is_wrong)


def _wav_pieces(fmt: bytes, data: list[tuple[int, int]], order: str) -> list:
    """The pieces of a file with these samples, which may come from several chunks."""
    n, fmt = sum(size for _, size in data), struct.pack(order + "4sI", b"fmt ", len(fmt)) + fmt + b"\0" * (len(fmt) % 2)
    if n <= _LARGEST or order == ">":
        tail = fmt + struct.pack(order + "4sI", b"data", min(n, _ALL_ONES))
        size = min(4 + len(tail) + n + n % 2, _ALL_ONES)
        head = struct.pack(order + "4sI4s", b"RIFX" if order == ">" else b"RIFF", size, b"WAVE")
        return [head + tail, *data, b"\0" * (n % 2)]
    tail = fmt + struct.pack("<4sI", b"data", _ALL_ONES)
    large = struct.pack("<4sIQQQI", b"ds64", 28, 40 + len(tail) + n + n % 2, n, 0, 0)
    return [struct.pack("<4sI4s", b"RF64", _ALL_ONES, b"WAVE") + large + tail, *data, b"\0" * (n % 2)]


def find_wav(source: Source, place: int, stop: int) -> int:
    """Where the header of a WAV file begins from ``place`` up to ``stop``; -1: nowhere."""
    found = source.find(_HEAD, place, stop)
    return found - 8 if found - 8 >= place and source.at(found - 8, 4) in NAMES else -1


def _is_sound(source: Source, place: int) -> bool:
    """Whether what stands here up to the end is more than some zeros that fill a block of a disk."""
    return source.size - place > _LARGE or bool(source.at(place, _LARGE).strip(b"\0"))


def _is_name(source: Source, place: int) -> bool:
    """Whether four printable characters, as the name of a chunk has them, stand there."""
    name = source.at(place, 4)
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _is_chain(source: Source, place: int, order: str) -> bool:
    """Whether whole chunks follow, up to the end of the file."""
    while place + 8 <= source.size and _is_name(source, place):
        size = struct.unpack(order + "I", source.at(place + 4, 4))[0]
        place += 8 + size + size % 2
    return source.size <= place <= source.size + 1


def aiff(source: Source, start: int) -> list[Stream]:
    """An AIFF or AIFC file whose writer came to no end: it tells of no samples, and they follow the head of their
    chunk. Other lengths that are wrong do not disturb libsndfile."""
    place, common = start + 12, -1
    while place + 8 <= source.size:
        name, size = struct.unpack(">4sI", source.at(place, 8))
        body, left = place + 8, source.size - place - 8
        if name == b"COMM":
            common = body
        elif name == b"SSND":
            if common < 0 or size > 8 or left <= 8 or _is_chain(source, body + size, ">"):
                return []
            channels, n_samples, bits = struct.unpack(">HIH", source.at(common, 8))
            if n_samples or not channels or not bits:
                return []
            n_samples = (left - 8) // (channels * -(-bits // 8))
            head = source.at(start, body - start)
            told = [(4, source.size - start - 8), (common + 2 - start, n_samples), (body - 4 - start, left)]
            for at, value in told:
                head = head[:at] + struct.pack(">I", value & _ALL_ONES) + head[at + 4 :]
            return [Stream(View(source, [head, (body, left)]), is_known=False)]
        place = body + size + size % 2
    return []


def caf(source: Source) -> list[Stream]:
    """A CAF file that tells no length of its samples, or one beyond its end; none where it is right."""
    place = 8
    while place + 12 <= source.size:
        name, size = struct.unpack(">4sq", source.at(place, 12))
        left = source.size - place - 12
        if name == b"data":
            if 0 < size <= left or left <= 4:
                return []
            head = source.at(0, place + 4) + struct.pack(">q", left)
            return [Stream(View(source, [head, (place + 12, left)]), is_known=False)]
        if size < 0:
            return []
        place += 12 + size
    return []


def au(source: Source) -> list[Stream]:
    """An AU file that tells no length of its samples; none where it does. One that begins with ``dns.`` has its least
    significant bytes first."""
    order = ">" if source.at(0, 4) == b".snd" else "<"
    offset, size = struct.unpack(order + "II", source.at(4, 8).ljust(8, b"\0"))
    left = source.size - offset
    if size or left <= 0 or offset < 24:
        return []
    head = source.at(0, 8) + struct.pack(order + "I", min(left, _ALL_ONES)) + source.at(12, offset - 12)
    return [Stream(View(source, [head, (offset, left)]), is_known=False)]
