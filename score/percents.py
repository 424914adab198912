"""Percent signs: measures and beats that are written as a sign for what was there before.

A ``<measure-repeat>`` of *n* measures holds from its start to the measure of its stop, in which it does not count any
more (a stop behind the start in one measure: that measure is under it). It is for one stave where it has a number, else
for all. What stands under it is what the measure *n* before has; notes that are written there come first. A
``<beat-repeat>`` does the same with the beat before it (``slash-type``, else a beat of the meter), up to its stop. Both
end where notes are written. Under ``<slash>`` the player is to make something up: what is written is played.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import regex

from score.performance import LeftOut
from score.sheet import Chord

SLASHES = "{n} measure{s} of slash notation without notes"
NOTHING_BEFORE = "{n} percent sign{s} with nothing before"
_BEATS = {"whole": 4, "half": 2, "quarter": 1, "eighth": Fraction(1, 2), "16th": Fraction(1, 4), "32nd": Fraction(1, 8)}


@dataclass(slots=True)
class _Sign:
    """A sign for one stave (empty: for all)."""

    staff: str
    tag: str
    measures: int  # that a sign for measures goes back
    beat: Fraction | None  # its length in quarters; None: the meter's
    start: Fraction  # in the measure that is read
    stop: Fraction | None = None
    carried: bool = False  # from the measure before
    pattern: list[Chord] | None = None  # the beat, from its beginning


class Percents:
    """The percent signs of one part, from measure to measure."""

    def __init__(self, left_out: LeftOut):
        self.left_out = left_out
        self.past: list[list[Chord]] = []  # chords of the measures before
        self.lengths: list[Fraction] = []
        self.signs: list[_Sign] = []

    @property
    def n_measures(self) -> int:
        """How many measures came before this one."""
        return len(self.past)

    def read(self, style, position: Fraction):
        """A ``<measure-style>`` in the measure that is read, at this position."""
        staff = (style.get("number") or "").strip()
        for sign in style:
            if sign.tag not in ("measure-repeat", "beat-repeat", "slash"):
                continue
            starts = sign.get("type") == "start"
            for before in self.signs:  # a new sign takes the place of the one before
                same = staff == before.staff or (not starts and "" in (staff, before.staff))
                if same and before.tag == sign.tag and before.stop is None:
                    before.stop = position
            if starts:
                written = regex.match(r"\s*0*([1-9]\d?)\b", sign.text or "")
                written = written or regex.match(r"\s*([1-9])", sign.get("slashes") or "")
                measures = int(written[1]) if written else 1
                unit = _BEATS.get((sign.findtext("slash-type") or "").strip())
                if unit is not None:
                    unit *= 2 - Fraction(1, 2) ** min(4, len(sign.findall("slash-dot")))
                self.signs.append(_Sign(staff, sign.tag, measures, unit, position))

    def filled(self, chords: list[Chord], length: Fraction, meter: tuple[int, int]) -> list[Chord]:
        """The chords of the measure that was read, with what the signs stand for.

        Args:
            length: of the measure, in quarters.
        """
        kept = []
        for sign in self.signs:
            if sign.carried and sign.stop == 0:
                continue
            if sign.tag == "slash":
                put = chords
                self.left_out[SLASHES] += not any(c.notes and sign.staff in (_staff(c), "") for c in chords)
            elif sign.tag == "measure-repeat":
                put = self._measure(sign, chords)
            else:
                put = self._beats(sign, chords, length, meter)
            later = sign.start > 0 and not sign.carried and sign.tag == "measure-repeat"
            if sign.stop is None and (put is not None or later):
                sign.start, sign.carried = Fraction(0), True
                kept.append(sign)
            chords = chords if put is None else put
        self.signs = kept
        self.past.append(chords)
        self.lengths.append(length)
        return chords

    def _measure(self, sign: _Sign, chords: list[Chord]) -> list[Chord] | None:
        """The measure under a sign; None where notes are written there."""
        if sign.measures > len(self.past):
            self.left_out[NOTHING_BEFORE] += not sign.carried
            return chords
        source = self.past[-sign.measures]
        staves = {_staff(chord) for chord in source} if not sign.staff else {sign.staff}
        silent = staves - {_staff(chord) for chord in chords if chord.notes}
        if not silent:
            return None
        own = [chord for chord in chords if _staff(chord) not in silent]
        return [*own, *(chord for chord in source if _staff(chord) in silent)]

    def _beats(self, sign: _Sign, chords: list[Chord], length: Fraction, meter) -> list[Chord] | None:
        """The measure with a beat repeated in it; None where notes are written there."""
        unit = sign.beat or Fraction(4, meter[1]) * (3 if meter[1] >= 8 and meter[0] % 3 == 0 else 1)
        end = length if sign.stop is None else sign.stop
        inside = [c for c in chords if sign.start <= c.position < end and sign.staff in (_staff(c), "")]
        if any(chord.notes for chord in inside):
            return None
        if sign.pattern is None:
            begin, source = sign.start - unit, chords
            if begin < 0 and self.past:
                begin, source = self.lengths[-1] + begin, self.past[-1]
            found = [c for c in source if begin <= c.position < begin + unit and sign.staff in (_staff(c), "")]
            sign.pattern = [replace(chord, position=chord.position - begin) for chord in found]
            self.left_out[NOTHING_BEFORE] += not any(chord.notes for chord in found)
        out, at = [chord for chord in chords if not any(chord is other for other in inside)], sign.start
        while at + unit <= end and sign.pattern:
            out += [replace(c, position=c.position + at, notes=[replace(w) for w in c.notes]) for c in sign.pattern]
            at += unit
        return out


def _staff(chord: Chord) -> str:
    """Its stave; a missing number is the first."""
    return chord.staff or "1"
