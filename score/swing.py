"""Swing: of two equal notes in a beat the first is longer, the second shorter.

As in MuseScore, what begins or ends between the two is moved, unless something shorter begins or ends there too in the
same voice: triplets and sixteenths among swung eighths stay as they are written.
"""

from __future__ import annotations

import bisect
from fractions import Fraction

from score.sheet import Chord, Direction, Measure


class Swing:
    """Marks ``(quarter, direction)`` of all parts, in playing order; a share of 1/2 is straight."""

    def __init__(self, marks: list[tuple[Fraction, Direction]]):
        self.marks = [(at, d.value) for at, d in sorted(marks, key=lambda mark: (mark[0], mark[1].rank))]
        self.starts = [at for at, _ in self.marks]

    def shifts(self, chords: list[Chord], measure: Measure, start: Fraction) -> dict[int, tuple[Fraction, Fraction]]:
        """How much later each chord begins and ends, in quarters, by the id of the chord.

        Args:
            start: of the measure, in quarters from the beginning of the performance.
        """
        if not self.marks:
            return {}
        least: dict[tuple[str, Fraction], Fraction] = {}  # of what begins and ends in a place, the shortest
        for chord in chords:
            for edge in {chord.position, chord.position + chord.length}:
                key = (chord.voice, edge)
                least[key] = min(least.get(key, chord.length), chord.length)

        def shift(voice: str, edge: Fraction) -> Fraction:
            i = bisect.bisect_right(self.starts, start + edge) - 1
            if i < 0:
                return Fraction(0)
            share, unit = self.marks[i][1]
            between = (edge + measure.missing) % (2 * unit) == unit and least[voice, edge] >= unit
            return unit * (2 * share - 1) if between else Fraction(0)

        return {id(c): (shift(c.voice, c.position), shift(c.voice, c.position + c.length)) for c in chords}
