"""MP3: how many frames there really are, whatever its first frame says; files one after another.

The frames of a stream say nothing of its length. Encoders write it into a first frame without sound (Xing, Info or
VBRI); without one libsndfile guesses by the bit rate of the first frames, and loses most of a file of varying rate.
Where it is missing or wrong, such a frame is put before the stream.

Sources: ISO/IEC 11172-3 and 13818-3 (frame headers), "id3.org ID3v2.4.0", and "Xing VBR header" as LAME writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import regex

from streams.source import Source, Stream, View

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by version
_KBITS = {  # layer III, by whether it is version 1
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SYNC = regex.compile(b"\xff")
_LOST = 1 << 16  # bytes in which the next frame is looked for, where none follows


def id3_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins with these ten; 0: none does."""
    if len(head) < 10 or head[:3] != b"ID3" or head[3] == 0xFF or max(head[6:10]) > 127:
        return 0
    a, b, c, d = head[6:10]
    return 10 + (a << 21 | b << 14 | c << 7 | d) + 10 * (head[5] >> 4 & 1)


@dataclass
class _Link:
    """One stream of a chain: frames of one ``form``, see :func:`_frame`, at the places from ``first`` to ``last`` of
    each of its ``ranges``. ``head`` is the header of its first frame."""

    form: tuple
    head: bytes
    ranges: list[list[int]] = field(default_factory=list)
    n_frames: int = 0  # that sound
    told: tuple[int, int] | None = None  # the frames and bytes that a first frame without sound tells, 0 if it does not
    silent: int = 0  # bytes of that frame

    def add(self, place: int, size: int):
        """Add a frame of ``size`` bytes at ``place``."""
        if self.ranges and self.ranges[-1][1] == place:
            self.ranges[-1][1] = place + size
        else:
            self.ranges.append([place, place + size])


def streams(source: Source, start: int, is_named: bool) -> list[Stream]:
    """The streams of a file; none where it is one stream that libsndfile reads rightly, or not of layer III.

    Args:
        is_named: whether its name says that it is MPEG. libsndfile believes that, and the decoder that it then asks
            complains on the terminal of all that it does not understand; so it gets the bytes without the name.
    """
    links = [link for link in _links(source, start) if link.n_frames]
    if not links:
        return [Stream(View(source, [(start, source.size - start)]))] if is_named or start else []
    found = [_stream(source, link) for link in links]
    if found == [None] and links[0].ranges[0][0] == start:
        return []
    return [
        one or Stream(View(source, [(first, last - first) for first, last in link.ranges]))
        for one, link in zip(found, links, strict=True)
    ]


def _links(source: Source, place: int) -> list[_Link]:
    """All frames from ``place`` on, by the streams to which they belong; tags and other bytes between are left out."""
    links: list[_Link] = []
    while place + 4 <= source.size:
        head = source.at(place, 10)
        if (size := id3_size(head)) and place + size < source.size:
            place += size
            continue
        if head[:3] == b"TAG" and source.size - place <= 128 + 227:
            break
        form, size = _frame(head)
        if not size or (links and form != links[-1].form and not _frame(source.at(place + size, 4))[1]):
            place = _next_frame(source, place + 1, links[-1].form if links else None)
            if place < 0:
                break
            continue
        if place + size > source.size:  # cut off within it
            break
        told = _told(source.at(place, min(size, 200)), form)
        if not links or form != links[-1].form or told is not None:
            links.append(_Link(form, head[:4], told=told, silent=size if told else 0))
        links[-1].add(place, size)
        links[-1].n_frames += told is None
        place += size
    return links


def _next_frame(source: Source, place: int, form) -> int:
    """Where two frames of a form (None: of any) follow each other, within some bytes; -1: nowhere."""
    stop = min(source.size, place + _LOST)
    while (place := source.find(_SYNC, place, stop)) >= 0:
        this, size = _frame(source.at(place, 4))
        after = place + size
        if size and form in (None, this) and (_frame(source.at(after, 4))[0] == this or after == source.size):
            return place
        place += 1
    return -1


def _frame(head: bytes) -> tuple[tuple | None, int]:
    """Version, rate and whether it is mono, and the bytes of a frame of layer III; size 0: none begins so."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None, 0
    version, kbits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return None, 0
    hertz = _RATES[version][rate]
    size = (144000 if version == 3 else 72000) * _KBITS[version == 3][kbits] // hertz + (head[2] >> 1 & 1)
    return (version, hertz, head[3] >> 6 == 3), size


def _side(form: tuple) -> int:
    """Where the first frame tells the length: behind its header and side information."""
    version, _, mono = form
    return 4 + ({True: 17, False: 32} if version == 3 else {True: 9, False: 17})[mono]


def _told(frame: bytes, form: tuple) -> tuple[int, int] | None:
    """Frames and bytes of the stream, 0 where they are not told; None: this is a frame of sound."""
    place = _side(form)
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big"), int.from_bytes(frame[46:50], "big")
    if frame[place : place + 4] not in (b"Xing", b"Info"):
        return None
    flags, values = int.from_bytes(frame[place + 4 : place + 8], "big"), frame[place + 8 :]
    n_frames = int.from_bytes(values[:4], "big") if flags & 1 else 0
    values = values[4:] if flags & 1 else values
    return n_frames, int.from_bytes(values[:4], "big") if flags & 2 else 0


def _stream(source: Source, link: _Link) -> Stream | None:
    """None: what its first frame tells is right, or it tells of more than there is, and is cut off."""
    n_bytes = sum(stop - start for start, stop in link.ranges)
    is_right = link.told and link.told[0] == link.n_frames
    is_cut = link.told and link.told[0] > link.n_frames and link.told[1] > n_bytes + 2000
    is_tidy = len(link.ranges) == 1 and source.at(link.ranges[0][1], 3) in (b"", b"TAG")
    if is_cut or (is_right and is_tidy):
        return None
    silent, place = source.at(link.ranges[0][0], link.silent), _side(link.form)
    n_frames = link.n_frames.to_bytes(4, "big")
    if silent[place : place + 4] in (b"Xing", b"Info") and silent[place + 7] & 1:  # what else it tells is kept
        told = n_frames + (n_bytes.to_bytes(4, "big") if silent[place + 7] & 2 else b"")
        silent = silent[: place + 8] + told + silent[place + 8 + len(told) :]
    else:
        head = bytes([0xFF, link.head[1] | 1, 9 << 4 | link.head[2] & 0x0C, link.head[3]])  # no checksum, no padding
        silent = (head.ljust(place, b"\0") + b"Xing\0\0\0\1" + n_frames).ljust(_frame(head)[1], b"\0")
    first, *others = [(start, stop - start) for start, stop in link.ranges]
    first = first[0] + link.silent, first[1] - link.silent
    return Stream(View(source, [silent, first, *others]))
