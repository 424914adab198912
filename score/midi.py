"""MIDI files of types 0 and 1 -> a performance; mido reads the messages (running status, meta, system exclusive).

Channel 10 is drums. Where several tracks on one channel name programs, each track sounds by itself, as notation
programs write them; else all tracks of a channel share its program, bend and controllers.
"""

from __future__ import annotations

import bisect
import io

from score.performance import (
    DEFAULT_METER,
    DEFAULT_TEMPO,
    MAX_INSTRUMENTS,
    BadScore,
    Beat,
    Change,
    Instrument,
    Note,
    Performance,
    check_count,
    check_length,
    hold_by_pedal,
    short,
)

MAX_MIDI_BYTES = 4 << 20  # 50,000 notes take less than half of one
DRUMS = 9  # counted from 0
PEDAL = 64
MIN_TEMPO, MAX_TEMPO = 2.0, 6000.0  # quarters a minute
_HEARD = {"note_on", "note_off", "program_change", "control_change", "pitchwheel"}


def read_midi(blob: bytes) -> Performance:
    """A MIDI file, also inside a RIFF file (``.rmi``), as a performance.

    Raises:
        BadScore: not MIDI, no notes, or beyond the limits.
    """
    if blob.startswith(b"RIFF"):
        start = blob.find(b"MThd", 0, 4096)
        if start < 0:
            raise BadScore("is not a MIDI file, but another of the RIFF kind; name audio as audio, or export it again")
        blob = blob[start:]
    if len(blob) > MAX_MIDI_BYTES:
        raise BadScore(f"is larger than {MAX_MIDI_BYTES >> 20} MiB, too long for a MIDI file; shorten it")
    import mido

    try:
        file = mido.MidiFile(file=io.BytesIO(blob), clip=True)
    except EOFError:
        raise BadScore("is cut off in the middle; export it again") from None
    except MemoryError:
        raise
    except Exception as error:  # mido raises whatever its parser meets
        raise BadScore(f"is not a MIDI file that can be read ({short(error)})") from None
    if file.type not in (0, 1):
        raise BadScore(f"is a MIDI file of type {file.type}; export it as type 0 or 1")
    events = []  # (tick, track, message), in order of time
    for i, track in enumerate(file.tracks):
        tick = 0
        for message in track:
            tick += message.time
            events.append((tick, i, message))
    events.sort(key=lambda event: event[0])
    seconds = _clock(file.ticks_per_beat, events)
    check_count(sum(m.type == "note_on" and m.velocity > 0 for _, _, m in events))
    out = _play(events, seconds)
    check_length(out.end)
    tempi = [(tick, 6e7 / m.tempo) for tick, _, m in events if m.type == "set_tempo"]
    meters = [(tick, (m.numerator, m.denominator)) for tick, _, m in events if m.type == "time_signature"]
    end = max((tick for tick, _, m in events if m.type in ("note_on", "note_off")), default=0)
    out.first = Beat(_at(tempi, 0, DEFAULT_TEMPO), _at(meters, 0, DEFAULT_METER))
    out.last = Beat(_at(tempi, end, DEFAULT_TEMPO), _at(meters, end, DEFAULT_METER))
    if file.ticks_per_beat > 0:  # bars are counted from the last time signature on
        numerator, denominator = out.last.time_signature
        bar = (numerator or 1) * 4 / denominator * file.ticks_per_beat
        rest = -(end - max((tick for tick, _ in meters if tick <= end), default=0)) % bar
        out.line = seconds(end) + rest / file.ticks_per_beat * 60 / out.last.tempo
    return out


def _at(marks: list, tick: int, default):
    """The last mark up to ``tick``."""
    return next((value for at, value in reversed(marks) if at <= tick), default)


def _clock(division: int, events):
    """A function from ticks to seconds."""
    if division == 0:
        raise BadScore("has no length of a tick in its header; export it again")
    if division < 0:  # SMPTE: frames a second and ticks a frame; 29 stands for 29.97
        frames, ticks = -(division >> 8), division & 0xFF
        rate = (30000 / 1001 if frames == 29 else frames) * ticks
        if rate <= 0:
            raise BadScore("has no length of a tick in its header; export it again")
        return lambda tick: tick / rate
    edges, times, rates = [0], [0.0], [60 / DEFAULT_TEMPO / division]
    for tick, _, message in events:
        if message.type != "set_tempo":
            continue
        tempo = 6e7 / message.tempo if message.tempo else 0.0
        if not MIN_TEMPO <= tempo <= MAX_TEMPO:
            raise BadScore(
                f"has a tempo of {tempo:.4g} quarters a minute; from {MIN_TEMPO:g} to {MAX_TEMPO:g} are played"
            )
        times.append(times[-1] + (tick - edges[-1]) * rates[-1])
        edges.append(tick)
        rates.append(message.tempo / 1e6 / division)

    def seconds(tick: int) -> float:
        i = bisect.bisect_right(edges, tick) - 1
        return times[i] + (tick - edges[i]) * rates[i]

    return seconds


def _play(events, seconds) -> Performance:
    out = Performance([], [])
    naming: dict[int, set[int]] = {}  # the tracks that name a program, by channel
    for _, track, message in events:
        if message.type == "program_change":
            naming.setdefault(message.channel, set()).add(track)
    indices: dict[tuple[int, int], int] = {}
    sounding: dict[tuple[int, int], list[Note]] = {}
    pedals: dict[int, list[tuple[float, bool]]] = {}
    last = seconds(events[-1][0])
    for tick, track, message in events:
        if message.type not in _HEARD:
            continue
        time, channel = seconds(tick), message.channel
        key = (channel, track if track in (names := naming.get(channel, ())) and len(names) > 1 else -1)
        if key not in indices:
            indices[key] = len(out.instruments)
            out.instruments.append(Instrument(0, channel == DRUMS))
            if len(out.instruments) > MAX_INSTRUMENTS:
                raise BadScore(f"has more than {MAX_INSTRUMENTS} instruments; leave some out")
        index = indices[key]
        if message.type == "note_on" and message.velocity > 0:
            note = Note(time, -1.0, message.note, message.velocity, index)
            out.notes.append(note)
            sounding.setdefault((index, message.note), []).append(note)
        elif message.type in ("note_on", "note_off"):
            begun = sounding.get((index, message.note))
            if begun:
                note = begun.pop(0)
                note.duration = time - note.onset
        elif message.type == "program_change":
            out.changes.append(Change(time, index, "program", message.program))
        elif message.type == "pitchwheel":
            out.changes.append(Change(time, index, "bend", message.pitch))
        elif message.control == PEDAL:
            pedals.setdefault(index, []).append((time, message.value >= 64))
        else:
            out.changes.append(Change(time, index, "control", message.value, message.control))
            if message.control in (120, 123):  # all sound off, all notes off
                for (where, _), begun in sounding.items():
                    while where == index and begun:
                        note = begun.pop()
                        note.duration = time - note.onset
    for note in out.notes:
        if note.duration < 0:  # never ended
            note.duration = max(0.0, last - note.onset)
    for index, pedal in pedals.items():
        hold_by_pedal([note for note in out.notes if note.instrument == index], pedal)
    return out
