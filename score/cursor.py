"""Where in a measure the next element begins, in quarters."""

from __future__ import annotations

import bisect
from fractions import Fraction

from score.lengths import MAX_QUARTERS
from score.performance import BadScore

_START = Fraction(0)


class Cursor:
    """The place in one measure of one part.

    What lasts otherwise than its ``<duration>`` says (by its type, or as a rest of the bar) leaves two counts: where it
    ends, and where the file thinks that it ends, by which ``<backup>`` and ``<forward>`` lead back to it. Places that
    both counts have passed are remembered.
    """

    def __init__(self):
        self.position = self.furthest = self.counted = _START
        self.places = {_START: _START}  # positions by the file's count
        self.order = [_START]  # these counts
        self.uneven = False  # whether the counts differ

    def last(self, length: Fraction, said: Fraction | None, furthest: bool = True):
        """Go on by a note or rest.

        Args:
            said: by its duration, where that can be one.
            furthest: whether it tells how long the measure is.
        """
        self._go(self.position + length, self.counted + (length if said is None else said), furthest)

    def forward(self, quarters: Fraction):
        """Go on by a duration; to a place that is known by it, where the counts differ."""
        counted = self.counted + quarters
        place = self.places.get(counted) if self.uneven else None
        self._go(self.position + quarters if place is None or place < self.position else place, counted, True)

    def back(self, quarters: Fraction | None):
        """Go back by a duration; without one to the beginning of the measure."""
        counted = _START if quarters is None else self.counted - quarters
        if counted <= 0:
            self.position = self.counted = _START
        elif not self.uneven:
            self.position = self.counted = max(_START, self.position - quarters)
        elif counted in self.places:
            self.position, self.counted = self.places[counted], counted
        elif self.position <= quarters:
            self.position = self.counted = _START
        else:
            before = self.order[bisect.bisect_right(self.order, counted) - 1]
            self.position, self.counted = self.places[before] + counted - before, counted

    def _go(self, position: Fraction, counted: Fraction, furthest: bool):
        if position > MAX_QUARTERS:
            raise BadScore(f"has a measure of {float(position):.3g} quarters; at most {MAX_QUARTERS} are played")
        self.uneven |= position - self.position != counted - self.counted
        self.position, self.counted = position, counted
        if counted not in self.places:
            bisect.insort(self.order, counted)
        self.places[counted] = position
        if furthest:
            self.furthest = max(self.furthest, position)
