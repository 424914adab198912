"""Velocity over a score: levels hold until the next, hairpins lead in a straight line from one to another.

A hairpin leads to the dynamic that stands at its end or up to a quarter behind it, where that is in its direction;
else it gains or loses one step (16 of 127, as from mp to mf).
"""

from __future__ import annotations

import bisect
from fractions import Fraction

from score.sheet import Direction

DEFAULT = 80.0  # mf
STEP = 16.0
_REACH = Fraction(1)  # quarters behind a hairpin


class Loudness:
    """Velocities by position in quarters, of what is marked by ``directions``, which are in playing order."""

    def __init__(self, directions: list[tuple[Fraction, Direction]]):
        self.stresses = {at: float(d.value) for at, d in directions if d.kind == "stress"}
        levels: dict[Fraction, tuple[int, float]] = {}
        for at, d in directions:
            if d.kind == "level" and (at not in levels or d.rank >= levels[at][0]):
                levels[at] = (d.rank, float(d.value))
        marks = sorted((at, value) for at, (_, value) in levels.items())
        wedges = _wedges(directions)
        # Lines of (begin, velocity there, end, velocity there); from its end on, a line is level.
        self.lines: list[tuple[Fraction, float, Fraction, float]] = []
        level, mark = DEFAULT, 0
        for begin, end, sign in wedges:
            while mark < len(marks) and marks[mark][0] <= begin:
                level = self._add(marks[mark][0], marks[mark][1])
                mark += 1
            start = begin
            while mark < len(marks) and marks[mark][0] < end:  # a dynamic inside
                level = self._lead(start, level, marks[mark][0], marks[mark][1], sign)
                start, level = marks[mark][0], self._add(*marks[mark])
                mark += 1
            target = marks[mark][1] if mark < len(marks) and marks[mark][0] <= end + _REACH else None
            level = self._lead(start, level, end, target, sign)
        for at, value in marks[mark:]:
            self._add(at, value)
        self.begins = [line[0] for line in self.lines]

    def _add(self, at: Fraction, value: float) -> float:
        self.lines.append((at, value, at, value))
        return value

    def _lead(self, begin, level, end, target, sign: int) -> float:
        if target is None or (target - level) * sign <= 0:
            target = max(1.0, min(127.0, level + sign * STEP))
        self.lines.append((begin, level, end, target))
        return target

    def at(self, position: Fraction) -> float:
        """The velocity of a note that begins at ``position``."""
        if position in self.stresses:
            return self.stresses[position]
        i = bisect.bisect_right(self.begins, position) - 1
        if i < 0:
            return DEFAULT
        begin, first, end, last = self.lines[i]
        if position >= end:
            return last
        return first + (last - first) * float((position - begin) / (end - begin))


def _wedges(directions) -> list[tuple[Fraction, Fraction, int]]:
    """(begin, end, +1 or -1), one after the other: each ends with its sign, or where another begins."""
    out, begun = [], None
    for at, d in directions:
        if d.kind != "wedge":
            continue
        if begun is not None and at > begun[0]:
            out.append((begun[0], at, begun[1]))
        begun = None if d.value == "stop" else (at, 1 if d.value == "crescendo" else -1)
    return out
