"""Standard MIDI files as they are really written -> events in order of time.

Source: "Standard MIDI Files 1.0" (RP-001, MIDI Manufacturers Association 1996), and RP-029 for the RIFF form. The
standard asks for what is unknown to be skipped and for longer headers and meta events to be read as far as they are
known. Beyond it: sizes and numbers of tracks in headers are only hints, the end-of-track event and the next ``MTrk``
decide; what is no event is left out, and said.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from score.performance import BadScore

MAX_EVENTS = 1 << 20  # 50,000 notes have a tenth of them
ASSUMED_DIVISION = 480  # ticks a quarter, where a header tells nothing
MAX_QUANTITY = (1 << 28) - 1  # of a variable-length quantity; 4 bytes of 7 bits
_N_DATA = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}  # data bytes by the upper half of the status
_N_COMMON = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # of system common messages, which have no place in a file; others have none
_SIZES = {0x00: 2, 0x20: 1, 0x21: 1, 0x2F: 0, 0x51: 3, 0x54: 5, 0x58: 4, 0x59: 2}  # bytes of meta events, by the type
_HEADER = b"MThd\0\0\0"  # its size is 6, or a little more
_CHUNKS = (b"MTrk", b"MThd")
END_OF_TRACK, PORT, TEMPO, METER, KEY = 0x2F, 0x21, 0x51, 0x58, 0x59


class Event(NamedTuple):
    """``status``: 0x80 to 0xE0 for channel messages, without the channel; 0xF0 for system exclusive, whose packets are
    joined; 0xFF for meta events, whose type is ``first``. ``channel``: 0 to 15, and 16 more for each further port."""

    tick: int
    track: int
    status: int
    channel: int = 0
    first: int = 0  # data bytes, 0 to 127
    second: int = 0
    data: bytes = b""


class Song(NamedTuple):
    """``division``: as in the header, ticks a quarter or SMPTE (negative). ``end``: the last tick. ``remarks``: what
    is left out, and what is assumed."""

    division: int
    events: list[Event]
    end: int
    remarks: list[str]


def is_midi(blob: bytes) -> bool:
    """Whether this is MIDI, also with other bytes before it or inside of RIFF."""
    if blob.startswith((b"MThd", b"MTrk")):
        return True
    if blob.startswith((b"RIFF", b"RIFX")):
        return blob[8:12] == b"RMID"
    return _HEADER in blob


def read_smf(blob: bytes) -> Song:
    """All events of a file, in order of time; of one tick, in order of the tracks.

    Raises:
        BadScore: not MIDI, or more events than ``MAX_EVENTS``.
    """
    remarks: list[str] = []
    blob = _unwrapped(blob)
    start = 0 if blob.startswith(b"MThd") else blob.find(_HEADER)
    start = blob.find(b"MThd") if start < 0 else start
    if start >= 0 and len(blob) >= start + 14:
        kind, n_tracks, division = struct.unpack_from(">HHh", blob, start + 8)
        place = start + 8 + int.from_bytes(blob[start + 4 : start + 8], "big")
        if blob[place : place + 4] != b"MTrk" and not _is_chunk(blob, place):
            place = start + 8  # the size of the header is wrong
    elif b"MTrk" in blob:
        kind, n_tracks, division, place = 1, 0, ASSUMED_DIVISION, 0
        remarks.append(f"has no header that can be read; {ASSUMED_DIVISION} ticks a quarter are assumed")
    else:
        what = "is cut off before its first track" if start >= 0 else "is not a MIDI file (it has no header, MThd)"
        raise BadScore(f"{what}; export it again")
    if not _is_division(division):
        remarks.append(f"has no length of a tick in its header; {ASSUMED_DIVISION} ticks a quarter are assumed")
        division = ASSUMED_DIVISION
    if kind > 2:
        remarks.append(
            f"is a MIDI file of type {kind}, which there is not; its tracks are played at once, as of type 1"
        )
    reader = _Reader(blob)
    tracks = reader.tracks(place)
    if not tracks:
        raise BadScore("is a MIDI file without a track; export it again")
    n_whole = len(tracks) - reader.is_cut
    if reader.is_cut:
        n = max(n_tracks, len(tracks))
        where = f"after {n_whole} of {n} tracks" if n > 1 else "in its track"
        remarks.append(f"is cut off {where}; what is there is played")
    elif len(tracks) < n_tracks:
        remarks.append(f"has {len(tracks)} of the {n_tracks} tracks that its header names; what is there is played")
    if reader.n_skipped:
        remarks.append(f"has {reader.n_skipped} bytes in its tracks that are no events; they are left out")
    if reader.n_behind:
        remarks.append(f"has {reader.n_behind} bytes behind the end of a track; they are left out")
    if reader.has_more:
        remarks.append("holds another MIDI file behind the first; only the first is played")
    if kind == 2 and len(tracks) > 1:
        remarks.append("is a MIDI file of type 2, of independent tracks; they are played one after another")
    events, end = [], 0
    for track, last in tracks:
        shift = end if kind == 2 else 0
        events += [event._replace(tick=event.tick + shift) for event in track] if shift else track
        end = max(end, shift + last)
    events.sort(key=lambda event: event.tick)
    return Song(division, events, end, remarks)


def _unwrapped(blob: bytes) -> bytes:
    """What a RIFF file of the form RMID has in its chunk ``data``; other files as they are."""
    if blob[:4] not in (b"RIFF", b"RIFX") or blob[8:12] != b"RMID":
        return blob
    order, place = "<I" if blob[:4] == b"RIFF" else ">I", 12
    while place + 8 <= len(blob):
        size = struct.unpack_from(order, blob, place + 4)[0]
        body = place + 8
        if blob[place : place + 4] == b"data" and blob.find(b"MThd", body, body + 4096) >= 0:
            end = body + size
            is_believed = end >= len(blob) or blob[end + size % 2 : end + size % 2 + 4].isascii()
            return blob[body : end if size and is_believed else len(blob)]
        place = body + size + size % 2
    return blob[max(0, blob.find(b"MThd")) :]


def _is_chunk(blob: bytes, place: int) -> bool:
    """Whether a chunk of any name can begin here, or the file ends here."""
    name = blob[place : place + 4]
    if place == len(blob):
        return True
    size = int.from_bytes(blob[place + 4 : place + 8], "big")
    return len(name) == 4 and name.isascii() and name.decode().isprintable() and place + 8 + size <= len(blob)


def _is_division(division: int) -> bool:
    return division > 0 or (division < 0 and -(division >> 8) in (24, 25, 29, 30) and division & 0xFF != 0)


class _Reader:
    """Reads tracks; ``n_skipped`` bytes were no events, ``n_behind`` stand behind the event that ends their track,
    ``is_cut`` says that the last track has no end, ``has_more`` that another file follows."""

    def __init__(self, blob: bytes):
        self.blob, self.n_events, self.n_skipped, self.n_behind = blob, 0, 0, 0
        self.is_cut = self.has_more = False

    def tracks(self, place: int) -> list[tuple[list[Event], int]]:
        """Events and last tick of each track from ``place`` on, up to the header of another file; other chunks are
        skipped."""
        blob, out = self.blob, []
        while place + 4 <= len(blob):
            if blob[place : place + 4] == b"MTrk":
                events, tick, place = self._track(place, len(out))
                out.append((events, tick))
                continue
            if out and blob.startswith(_HEADER, place):
                self.has_more = True
                break
            after = place + 8 + int.from_bytes(blob[place + 4 : place + 8], "big")
            padded = after + 1  # some writers let chunks begin at even places, as RIFF does
            if _is_chunk(blob, place) and (blob[after : after + 4] == b"MTrk" or _is_chunk(blob, after)):
                place = after
            elif _is_chunk(blob, place) and blob[padded : padded + 4] == b"MTrk":
                place = padded
            else:  # no chunk, or one whose size is wrong
                place = self._next_chunk(place + 1)
        return out

    def _track(self, place: int, number: int) -> tuple[list[Event], int, int]:
        """Events, the last tick and the place behind the track whose chunk begins at ``place``."""
        blob = self.blob
        start, n = place + 8, len(blob)
        claimed = start + int.from_bytes(blob[place + 4 : start], "big")
        is_believed = blob[claimed : claimed + 4] == b"MTrk" or _is_chunk(blob, claimed)
        limit = claimed if is_believed else n
        place, tick, status, port, events, sysex = start, 0, 0, 0, [], None
        while place < limit:
            if blob.startswith(_CHUNKS, place) and (not is_believed or blob[place + 4 : place + 5] == b"\0"):
                return events, tick, place  # the event of the end is missing
            self.n_events += 1
            if self.n_events > MAX_EVENTS:
                raise BadScore(f"has more than {MAX_EVENTS} events, too long for a MIDI file; shorten it")
            begin = place
            delta, place = self._quantity(place)
            if place >= limit:
                break
            byte = blob[place]
            place += 1
            if byte < 0x80:
                if not status:  # There is no running status that could take the byte as data.
                    place = begin + 1
                    while place + 1 < limit and not blob[place] < 0x80 <= blob[place + 1]:
                        place += 1  # Go on to what looks like a delta time of one byte and a status.
                    self.n_skipped += place - begin
                    continue
                byte, place = status, place - 1
            if byte < 0xF0:
                end = place + _N_DATA[byte >> 4]
                if end > limit:
                    break
                tick, status = tick + delta, byte
                events.append(_channel_message(tick, number, byte, blob[place:end], port))
                place = end
            elif byte == 0xFF:
                kind, (size, body) = blob[place : place + 1], self._quantity(place + 1)
                if not kind:
                    break
                kind = kind[0] & 0x7F
                if kind == END_OF_TRACK and blob.startswith(_CHUNKS, place + 1):
                    size, body = 0, place + 1  # its size is missing
                if body + size > limit and _SIZES.get(kind, size) < size:  # a size that cannot be
                    size = _SIZES[kind]
                if body + size > limit:
                    if is_believed:
                        self.n_skipped += limit - begin
                        break
                    place = self._next_chunk(body)
                    self.n_skipped += place - begin if place < n else 0
                    self.is_cut |= place >= n
                    return events, tick, place
                tick, place = tick + delta, body + size
                if kind == END_OF_TRACK:
                    if is_believed and blob[place:claimed].replace(b"\xff\x2f\0", b"").strip(b"\0"):
                        self.n_behind += claimed - place
                    return events, tick, self._behind(place, claimed if is_believed else -1)
                if kind == PORT and size:
                    port = min(blob[body], 15)
                if kind in (TEMPO, METER, KEY):
                    events.append(Event(tick, number, 0xFF, 0, kind, data=blob[body:place]))
            elif byte in (0xF0, 0xF7):
                size, body = self._quantity(place)
                if body + size > limit:  # its size is wrong: it ends with its own last byte, else nobody knows where
                    end = blob.find(b"\xf7", body, limit)
                    if end < 0:
                        break
                    size = end + 1 - body
                elif byte == 0xF0 and body + size < limit and blob[body + size] == 0xF7 != blob[body + size - 1]:
                    size += 1  # its size leaves out its last byte; a time that begins so would be of 31 quarters
                tick, place, data = tick + delta, body + size, blob[body : body + size]
                if byte == 0xF7 and sysex is None:  # bytes to be sent as they are
                    if data and 0x80 <= data[0] < 0xF0 and len(data) == 1 + _N_DATA[data[0] >> 4]:
                        events.append(_channel_message(tick, number, data[0], data[1:], port))
                    continue
                sysex = data if byte == 0xF0 else sysex + data
                if sysex.endswith(b"\xf7"):
                    events.append(Event(tick, number, 0xF0, data=sysex))
                    sysex = None
            else:  # system common and real time
                tick, place = tick + delta, place + _N_COMMON.get(byte, 0)
        self.is_cut = (limit == n and claimed != n) or self.is_cut
        return events, tick, limit

    def _quantity(self, place: int) -> tuple[int, int]:
        """The variable-length quantity that begins here, and the place behind it. It may have more than the four bytes
        that are allowed; only its lower 28 bits count."""
        blob, value = self.blob, 0
        while place < len(blob):
            byte = blob[place]
            value, place = value << 7 | byte & 0x7F, place + 1
            if byte < 0x80:
                break
        return value & MAX_QUANTITY, place

    def _next_chunk(self, place: int) -> int:
        """Where the next track, or the next file, begins; else the end."""
        found = [at for name in (b"MTrk", _HEADER) if (at := self.blob.find(name, place)) >= 0]
        return min(found, default=len(self.blob))

    def _behind(self, place: int, claimed: int) -> int:
        """Where to go on after the end of a track: at the next track, else where the chunk is said to end."""
        return place if self.blob[place : place + 4] == b"MTrk" else max(place, claimed)


def _channel_message(tick: int, track: int, status: int, data: bytes, port: int) -> Event:
    """Data bytes beyond 127 are clipped to it."""
    first, second = (min(byte, 127) for byte in (*data, 0)[:2])
    return Event(tick, track, status & 0xF0, (status & 0x0F) + 16 * port, first, second)
