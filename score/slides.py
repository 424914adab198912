"""Slides: a note whose pitch is bent in a straight line to that of the next."""

from __future__ import annotations

import math
from dataclasses import replace

from score.performance import MAX_INSTRUMENTS, Change, Note, Performance

RANGE = 24  # semitones that a bend can reach
MAX_BENDS = 50_000
_STEP = 0.1  # semitones between two bends, and at least so many seconds:
_SHORTEST = 0.005


class Slides:
    """Notes that slide have a channel of their own, so that nothing else is bent."""

    def __init__(self, performance: Performance):
        self.out = performance
        self.own: dict[int, list[list]] = {}  # by instrument: [channel's instrument, until when it is taken]
        self.n_bends = 0

    def channels(self, instrument: int) -> list[int]:
        """The instruments that slide in place of ``instrument``."""
        return [index for index, _ in self.own.get(instrument, ())]

    def bend(self, note: Note, target: float, begin: float) -> bool:
        """Bend ``note`` from ``begin`` (s) to its end, up to the pitch ``target``; it gets another instrument.

        Returns:
            Whether it was done: not farther than :data:`RANGE`, not on drums, nor where there are too many.
        """
        way, length = target - note.pitch, note.end - begin
        n = math.ceil(min(abs(way) / _STEP, length / _SHORTEST))
        drums = self.out.instruments[note.instrument].drums
        if drums or not 0 < abs(way) <= RANGE or n < 1 or self.n_bends + n > MAX_BENDS:
            return False
        channel = self._channel(note)
        if channel is None:
            return False
        self.n_bends += n
        note.instrument = channel
        self.out.changes.append(Change(note.onset, channel, "bend", 0))
        for i in range(1, n + 1):
            value = max(-8192, min(8191, round(8192 * way / RANGE * i / n)))
            self.out.changes.append(Change(begin + length * (i - 0.5) / n, channel, "bend", value))
        return True

    def _channel(self, note: Note) -> int | None:
        """One that is free while ``note`` sounds; None where there are too many."""
        own = self.own.setdefault(note.instrument, [])
        for channel in own:
            if channel[1] <= note.onset:
                channel[1] = note.end
                return channel[0]
        index = len(self.out.instruments)
        if index >= MAX_INSTRUMENTS:
            return None
        self.out.instruments.append(replace(self.out.instruments[note.instrument]))
        for change in [c for c in self.out.changes if c.instrument == note.instrument and c.kind == "control"]:
            self.out.changes.append(replace(change, instrument=index))
        for number, value in ((101, 0), (100, 0), (6, RANGE)):  # MIDI's registered parameter 0: the range of bends
            self.out.changes.append(Change(0.0, index, "control", value, number))
        own.append([index, note.end])
        return index
