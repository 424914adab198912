"""What is to be heard: notes in seconds, instruments and their changes, tempo and time signature."""

from __future__ import annotations

import bisect
import collections
import math
from dataclasses import dataclass, field

MAX_NOTES = 50_000
MAX_SECONDS = 600.0
MAX_INSTRUMENTS = 200
DEFAULT_TEMPO = 120.0  # quarters a minute, as in MIDI
DEFAULT_METER = (4, 4)


class BadScore(Exception):
    """The score cannot be played; the message is one line that says why and what to do."""


class LeftOut(collections.Counter):
    """How often something that is written is not played, by its kind: a sentence with ``{n}`` for the number and
    ``{s}`` for the ending of a plural."""

    def sentences(self) -> list[str]:
        """Each kind once: ``2 tempo marks without a number``."""
        return [kind.format(n=n, s="" if n == 1 else "s") for kind, n in self.items() if n]


def short(error: Exception) -> str:
    """The first line of a message, at most 100 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]


@dataclass(slots=True)
class Note:
    """One sounding note."""

    onset: float  # s
    duration: float  # s
    pitch: float  # MIDI note number as it sounds; fractions are quarter tones and cents. Drums: the key
    velocity: int  # 1 to 127
    instrument: int  # index into Performance.instruments

    @property
    def end(self) -> float:
        return self.onset + self.duration


@dataclass(slots=True)
class Instrument:
    """A General MIDI sound. Each sounds apart from the others, as if on a channel of its own."""

    program: int = 0  # 0 to 127
    drums: bool = False
    bank: int = 0


@dataclass(slots=True, frozen=True)
class Change:
    """Something that happens to an instrument: ``program`` (value), ``bank`` of the programs that follow (value),
    ``control`` (number, value), ``bend`` (value, -8192 to 8191), ``range`` of the bend or ``tuning`` (value in
    cents)."""

    time: float  # s
    instrument: int
    kind: str
    value: int
    number: int = 0


@dataclass(slots=True, frozen=True)
class Beat:
    """Tempo in quarters a minute, time signature as (numerator, denominator)."""

    tempo: float = DEFAULT_TEMPO
    time_signature: tuple[int, int] = DEFAULT_METER


@dataclass(slots=True)
class Performance:
    """A score as it is played; ``first`` and ``last`` are the beat at its beginning and at its end, ``line`` is where
    its last bar ends, in seconds: there the next one would begin. ``remarks`` tell what is left out or assumed, each
    as the end of a sentence that begins with the file's name."""

    notes: list[Note]
    instruments: list[Instrument]
    changes: list[Change] = field(default_factory=list)
    first: Beat = Beat()
    last: Beat = Beat()
    line: float = 0.0
    remarks: list[str] = field(default_factory=list)

    @property
    def end(self) -> float:
        """The end of the last note, in seconds."""
        return max((note.end for note in self.notes), default=0.0)


def check_length(seconds: float):
    """Raise BadScore beyond ``MAX_SECONDS``."""
    if not math.isfinite(seconds) or seconds > MAX_SECONDS:
        raise BadScore(f"lasts {min(seconds, 1e15):.0f} s; at most {MAX_SECONDS:.0f} s are played, shorten it")


def check_count(n_notes: int):
    """Raise BadScore beyond ``MAX_NOTES``, or where there are none."""
    if n_notes == 0:
        raise BadScore("has no notes to play; give a score with at least one note")
    if n_notes > MAX_NOTES:
        raise BadScore(f"has {n_notes} notes; at most {MAX_NOTES} are played, shorten it")


def hold_by_pedal(notes: list[Note], pedal: list[tuple[float, bool]]) -> None:
    """Let notes of one instrument sound on under the sustain pedal: in place.

    Args:
        pedal: (s, down), in order of time. A note that ends while it is down lasts until it is lifted or the same
            pitch is struck again; without a lift, until the last of the notes ends.
    """
    spans = _spans(notes, pedal)
    starts, again = [start for start, _ in spans], _strokes(notes)
    for note in notes:
        i = bisect.bisect_left(starts, note.end) - 1  # pressed before the note ends
        if i >= 0 and note.end < spans[i][1]:
            _hold(note, spans[i][1], again)


def hold_by_sostenuto(notes: list[Note], caught: list[tuple[float, list[Note]]]) -> None:
    """Hold notes as :func:`hold_by_pedal` does, but only those whose keys are down when the pedal is pressed.

    Args:
        caught: (s, notes), when it is lifted and what it holds until then.
    """
    again, last = _strokes(notes), max((note.end for note in notes), default=0.0)
    for stop, held in caught:
        for note in held:
            if note.end < stop:
                _hold(note, min(stop, last), again)


def _spans(notes: list[Note], pedal: list[tuple[float, bool]]) -> list[tuple[float, float]]:
    """When a pedal is down, in seconds."""
    spans, down = [], None
    for time, pressed in pedal:
        if pressed and down is None:
            down = time
        elif not pressed and down is not None:
            spans.append((down, time))
            down = None
    if down is not None:
        spans.append((down, max((note.end for note in notes), default=0.0)))
    return spans


def _strokes(notes: list[Note]) -> dict[float, list[float]]:
    """The onsets of each pitch, in order."""
    onsets: dict[float, list[float]] = {}
    for note in sorted(notes, key=lambda note: note.onset):
        onsets.setdefault(note.pitch, []).append(note.onset)
    return onsets


def _hold(note: Note, until: float, strokes: dict[float, list[float]]):
    """Let a note sound on until then, or until its pitch is struck again."""
    again = strokes[note.pitch]
    i = bisect.bisect_right(again, note.onset)
    end = min(until, again[i] if i < len(again) else math.inf)
    note.duration = max(note.duration, end - note.onset)
