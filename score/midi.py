"""MIDI files -> a performance: what the events of ``smf`` do to notes and instruments.

Channel 10 is drums, and so is any channel that GS, XG or GM2 makes one. Where several tracks on one channel name
programs, each of them sounds by itself, as notation programs write them, and the controllers of other tracks concern
them all; else all tracks of a channel share its program, bend and controllers. What cannot be heard, or is out of
range, changes nothing and refuses nothing.

Sources: "MIDI 1.0 Detailed Specification" 4.2 (controllers, registered parameters), RP-015 (reset of controllers), the
General MIDI 2 specification, and the implementation charts of the Roland SC-55 (GS) and the Yamaha MU80 (XG).
"""

from __future__ import annotations

import bisect

from score.channel import Part
from score.performance import (
    DEFAULT_METER,
    DEFAULT_TEMPO,
    MAX_INSTRUMENTS,
    BadScore,
    Beat,
    Instrument,
    Note,
    Performance,
    check_count,
    check_length,
    hold_by_pedal,
    hold_by_sostenuto,
)
from score.smf import KEY, METER, TEMPO, Event, Song, read_smf

MIN_TEMPO, MAX_TEMPO = 2.0, 6000.0  # quarters a minute
MAX_LOWER = 7  # a time signature's lower number is two to the power of up to this
MIN_NOTE = 0.03  # s, as long as a note lasts that ends when it begins
_NOTE_OFF, _NOTE_ON, _CONTROL, _PROGRAM, _BEND = 0x80, 0x90, 0xB0, 0xC0, 0xE0
_HEARD = {_NOTE_OFF, _NOTE_ON, _CONTROL, _PROGRAM, _BEND}
_GENERAL_MIDI = {b"\x09\x01": "", b"\x09\x02": "", b"\x09\x03": "GM2"}  # on, off, on of level 2


def read_midi(blob: bytes) -> Performance:
    """A MIDI file, also inside a RIFF file (``.rmi``), as a performance.

    Raises:
        BadScore: not MIDI, no notes, or beyond the limits.
    """
    song = read_smf(blob)
    tempi, meters, remarks = _marks(song)
    seconds = _clock(song.division, tempi)
    check_count(sum(event.status == _NOTE_ON and event.second > 0 for event in song.events))
    out = _play(song, seconds)
    out.remarks = [*song.remarks, *remarks]
    check_length(out.end)
    tempi = [(tick, 6e7 / microseconds) for tick, microseconds in tempi]
    end = max((event.tick for event in song.events if event.status in (_NOTE_ON, _NOTE_OFF)), default=0)
    out.first = Beat(_at(tempi, 0, DEFAULT_TEMPO), _at(meters, 0, DEFAULT_METER))
    out.last = Beat(_at(tempi, end, DEFAULT_TEMPO), _at(meters, end, DEFAULT_METER))
    if song.division > 0:  # bars are counted from the last time signature on
        numerator, denominator = out.last.time_signature
        bar = numerator * 4 / denominator * song.division
        rest = -(end - max((tick for tick, _ in meters if tick <= end), default=0)) % bar
        out.line = seconds(end) + rest / song.division * 60 / out.last.tempo
    return out


def _at(marks: list, tick: int, default):
    """The last mark up to ``tick``."""
    return next((value for at, value in reversed(marks) if at <= tick), default)


def _marks(song: Song) -> tuple[list, list, list[str]]:
    """Tempi as ``(tick, microseconds a quarter)``, time signatures as ``(tick, (upper, lower))``, and what is said of
    those that mean nothing. Bytes beyond what is known of an event are ignored, as the standard wants."""
    tempi, meters, wrong = [], [], {}
    for event in song.events:
        if event.status != 0xFF:
            continue
        data, sense = event.data, False
        if event.first == TEMPO:
            microseconds = int.from_bytes(data[:3], "big")
            sense = len(data) >= 3 and MIN_TEMPO <= 6e7 / max(1, microseconds) <= MAX_TEMPO
            if sense:
                tempi.append((event.tick, microseconds))
        elif event.first == METER:
            sense = len(data) >= 2 and data[0] > 0 and data[1] <= MAX_LOWER
            if sense:
                meters.append((event.tick, (data[0], 1 << data[1])))
        elif event.first == KEY:  # is not heard
            sense = len(data) >= 2 and (data[0] + 7) % 256 <= 14 and data[1] <= 1
        if not sense:
            wrong[event.first] = wrong.get(event.first, 0) + 1
    names = {TEMPO: "tempo", METER: "time signature", KEY: "key signature"}
    times = {1: "once", 2: "twice"}
    remarks = [
        f"has a {names[kind]} that means nothing, {times.get(n, f'{n} times')}; it changes nothing"
        for kind, n in wrong.items()
    ]
    return tempi, meters, remarks


def _clock(division: int, tempi: list[tuple[int, int]]):
    """A function from ticks to seconds."""
    if division < 0:  # SMPTE: frames a second and ticks a frame; 29 stands for 29.97
        frames, ticks = -(division >> 8), division & 0xFF
        rate = (30000 / 1001 if frames == 29 else frames) * ticks
        return lambda tick: tick / rate
    edges, times, rates = [0], [0.0], [60 / DEFAULT_TEMPO / division]
    for tick, microseconds in tempi:
        times.append(times[-1] + (tick - edges[-1]) * rates[-1])
        edges.append(tick)
        rates.append(microseconds / 1e6 / division)

    def seconds(tick: int) -> float:
        i = bisect.bisect_right(edges, tick) - 1
        return times[i] + (tick - edges[i]) * rates[i]

    return seconds


def _play(song: Song, seconds) -> Performance:
    out = Performance([], [])
    naming: dict[int, set[int]] = {}  # the tracks that name a program, by channel
    for event in song.events:
        if event.status == _PROGRAM:
            naming.setdefault(event.channel, set()).add(event.track)
    parts: dict[int, dict[int, Part]] = {}  # by channel, and by the tracks that sound by themselves; -1: the others
    system = ""

    def parts_of(channel: int) -> dict[int, Part]:
        if channel not in parts:
            tracks = naming.get(channel, set())
            parts[channel] = {track: Part(channel) for track in (-1, *(sorted(tracks) if len(tracks) > 1 else ()))}
        return parts[channel]

    def all_parts() -> list[Part]:
        return [part for by_track in parts.values() for part in by_track.values()]

    for event in song.events:
        time = seconds(event.tick)
        if event.status == 0xF0:
            said = _system(event.data)
            if isinstance(said, str):  # back to what it was at the beginning
                system = said
                for part in all_parts():
                    part.reset(time, out)
            elif said is not None:
                for part in parts_of(said[0]).values():
                    part.become(said[1])
        if event.status not in _HEARD:
            continue
        by_track = parts_of(event.channel)
        part = by_track.get(event.track, by_track[-1])
        if event.status == _NOTE_ON and event.second > 0:
            _strike(part, event, time, out)
        elif event.status in (_NOTE_ON, _NOTE_OFF):
            part.release(event.first, time)
        elif event.status == _PROGRAM:
            part.program(time, out, event.first, system)
        else:  # of a track that does not sound by itself, it concerns all of the channel
            for one in (part,) if event.track in by_track else by_track.values():
                if event.status == _BEND:
                    one.set(time, out, "bend", (event.second << 7 | event.first) - 8192)
                else:
                    one.control(time, out, event.first, event.second)
    last, quarter = seconds(song.end), seconds(song.end + max(1, song.division)) - seconds(song.end)
    for part in all_parts():
        part.finish(last, quarter)
    for note in out.notes:
        note.duration = note.duration or MIN_NOTE
    for part in all_parts():
        hold_by_pedal(part.notes, part.pedal)
        hold_by_sostenuto(part.notes, part.sostenuto)
    return out


def _strike(part: Part, event: Event, time: float, out: Performance):
    """Begin a note. A part gets its instrument with its first note, so that one without notes has none."""
    if part.index is None:
        part.index = len(out.instruments)
        out.instruments.append(Instrument(0, part.drums))
        if part.index >= MAX_INSTRUMENTS:
            raise BadScore(f"has more than {MAX_INSTRUMENTS} instruments; leave some out")
        part.tell(time, out)
    note = Note(time, -1.0, event.first, event.second, part.index)
    out.notes.append(note)
    part.strike(note)


def _system(data: bytes) -> str | tuple[int, bool] | None:
    """What a system exclusive message, without its first byte, does: a reset, by the name of the system that is
    turned on; or ``(channel, whether it is drums)``."""
    if data[:1] == b"\x7e" and data[2:4] in _GENERAL_MIDI:
        return _GENERAL_MIDI[data[2:4]]
    if data[:1] == b"\x41" and data[2:4] == b"\x42\x12" and len(data) >= 8:
        address = data[4:7]
        if address in (b"\x40\x00\x7f", b"\x00\x00\x7f"):
            return "GS"
        if address[0] in (0x40, 0x50) and address[1] & 0xF0 == 0x10 and address[2] == 0x15:
            block = address[1] & 0x0F  # of part 10 it is 0, of the others before it one more
            channel = 9 if block == 0 else block - 1 if block <= 9 else block
            return channel + 16 * (address[0] == 0x50), data[7] > 0
    if data[:1] == b"\x43" and data[1:2] and data[1] & 0xF0 == 0x10 and data[2:3] == b"\x4c" and len(data) >= 7:
        if data[3:6] in (b"\x00\x00\x7e", b"\x00\x00\x7f"):
            return "XG"
        if data[3] == 0x08 and data[5] == 0x07 and data[4] < 16:
            return data[4], data[6] > 0
    return None
