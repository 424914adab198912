"""Repeat signs and endings of all parts: where they stand, and which measures a bracket spans.

``location`` says on which side of its measure a barline stands. A sign on the other side than usual belongs to the
neighbour: a backward sign at the left ends the measure before, a forward sign at the right begins the next one, and so
do endings. Without it a barline is a right one by the format; but a forward sign or the beginning of a bracket that
stands before all notes is at the left, as many programs write it. One in the middle divides its measure in two.

Signs and brackets are the score's, in whichever parts they stand. Where a bracket ends, if nothing says so:

- before the next bracket of its section and before a forward sign, with a backward sign (as MuseScore has it);
- a second or later one that no other follows is its own measure, unless a backward sign ends it within the length of
  the bracket before: what is behind it is played in any case, and a repeat there is not its own.

A bracket without a number counts on from the one before, so does one whose number the section has already; the text
("1., 3.") is read where the attribute has no number. One that ends without having begun is the measure where it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import regex

from score.performance import LeftOut
from score.sheet import Bracket, Chord, Direction, Marks, Measure, Sheet

MAX_PASSES = 32  # higher numbers of brackets are none: 99 is Audiveris' of what it cannot read
NO_TYPE = "{n} ending{s} of which it is not said whether it begins or ends"


def numbers(text: str) -> frozenset[int]:
    """``1, 2`` or ``1.-3.`` as a set of numbers from 1; empty where there is none."""
    out: set[int] = set()
    for first, last in regex.findall(r"(\d{1,3})(?:\.?\s*[-\u2013\u2014]\s*(\d{1,3}))?", text or ""):
        out.update(range(int(first), int(last or first) + 1))
    return frozenset(out - {0})


@dataclass(slots=True)
class _Sign:
    """A repeat sign or one end of a bracket, of one part; ``at`` is the index of the measure that begins there."""

    part: int
    measure: int
    position: Fraction | None  # in the measure; None: its end
    kind: str  # forward, backward, start, stop
    times: int = 0
    after_jump: bool = False
    number: str = ""
    text: str = ""
    sided: bool = False  # whether its location is written
    at: int = 0


@dataclass(slots=True)
class _Span:
    """A bracket as one part has it; ``last`` is None where it does not end."""

    part: int
    first: int
    last: int | None
    number: str
    text: str


class Signs:
    """The repeat signs and endings of a score: read one after the other, then placed."""

    def __init__(self, left_out: LeftOut):
        self.signs: list[_Sign] = []
        self.left_out = left_out

    def read(self, element, part: int, number: int, measure: Measure, position: Fraction, begun: bool):
        """A ``<barline>`` of the measure with this index; ``begun``: behind a note of it."""
        location = (element.get("location") or "").strip().lower()
        sided = location in ("left", "right", "middle")
        found = []
        for repeat in element.findall("repeat"):
            kind = (repeat.get("direction") or "").strip().lower()
            if kind not in ("forward", "backward"):
                kind = "forward" if location == "left" else "backward"
            sign = _Sign(part, number, None, kind, after_jump=repeat.get("after-jump") == "yes", sided=sided)
            times = regex.match(r"\s*\+?(\d{1,7})", repeat.get("times") or "")
            sign.times = int(times[1]) if times else 0
            found.append(sign)
        for ending in element.findall("ending"):
            kind = (ending.get("type") or "").strip().lower()
            if kind in ("start", "stop", "discontinue"):
                kind = "start" if kind == "start" else "stop"
                sign = _Sign(part, number, None, kind, number=ending.get("number") or "", sided=sided)
                sign.text = "".join(ending.itertext())
                found.append(sign)
            else:
                self.left_out[NO_TYPE] += 1
        for sign in found:
            opens = sign.kind in ("forward", "start")
            if location == "middle":
                sign.position = position
                measure.later.setdefault(position, Marks())
            elif location == "left" or (not sided and opens and not begun):
                sign.position = Fraction(0)
            before = self.signs[-1] if self.signs else sign
            both_right = before.position is None and sign.position is None and before.measure == number
            if both_right and before.part == part and (before.kind, sign.kind) == ("start", "stop"):
                before.position = Fraction(0)  # begins and ends at the right of one measure: it is that measure
            self.signs.append(sign)

    def place(self, sheet: Sheet):
        """Divide measures, write the signs on them, and the brackets of the sheet."""
        starts = _divide(sheet)
        n = len(sheet.measures)
        for sign in self.signs:
            first, cuts, length = starts[sign.measure]
            if sign.position is None or sign.position >= length > 0:
                sign.at = starts[sign.measure + 1][0]
            else:
                sign.at = first + cuts.index(sign.position if sign.position in cuts else Fraction(0))
            if sign.kind == "forward" and sign.at < n:
                sheet.measures[sign.at].marks.forward = True
            elif sign.kind == "backward" and sign.at > 0:
                marks = sheet.measures[sign.at - 1].marks
                marks.backward, marks.times = True, max(marks.times, sign.times)
                marks.after_jump |= sign.after_jump
        marks = [measure.marks for measure in sheet.measures]
        spans: list[_Span] = []
        for part in sorted({sign.part for sign in self.signs}):
            signs = [s for s in self.signs if s.part == part and s.kind in ("start", "stop")]
            spans.extend(_spans(part, signs, marks))
        sheet.brackets = _brackets([span for span in spans if span.first < n], marks)


def _divide(sheet: Sheet) -> list[tuple[int, list[Fraction], Fraction]]:
    """Measures with a repeat sign in their middle become several.

    Returns:
        For each measure the index of its first piece, where its pieces begin, and its length; then the number of
        pieces.
    """
    out, pieces = [], []
    for measure in sheet.measures:
        cuts = [Fraction(0), *sorted(at for at in measure.later if 0 < at < measure.length)]
        for at in set(measure.later) - set(cuts[1:]):  # at an edge of the measure, which is not divided there
            measure.marks.join(measure.later[at])
        out.append((len(pieces), cuts, measure.length))
        if len(cuts) == 1:
            pieces.append(measure)
            continue
        for at, end in zip(cuts, [*cuts[1:], measure.length], strict=True):
            marks = measure.later[at] if at else measure.marks
            piece = Measure(end - at, measure.meter, measure.missing + at, marks)
            for part, chords in measure.chords.items():
                piece.chords[part] = [c for chord in chords for c in _within(chord, at, end, end == measure.length)]
            for part, directions in measure.directions.items():
                kept = (d for d in directions if at <= d.position < end or (d.position >= end == measure.length))
                piece.directions[part] = [_moved(d, at) for d in kept]
            for part, harmonies in measure.harmonies.items():
                kept = ((p, h) for p, h in harmonies if at <= p < end or (p >= end == measure.length))
                piece.harmonies[part] = [(p - at, h) for p, h in kept]
            pieces.append(piece)
    sheet.measures = pieces
    return [*out, (len(pieces), [Fraction(0)], Fraction(0))]


def _moved(direction: Direction, by: Fraction) -> Direction:
    return replace(direction, position=direction.position - by)


def _within(chord: Chord, start: Fraction, end: Fraction, last: bool) -> list[Chord]:
    """What of a chord sounds in a piece of its measure, from there: over the repeat sign it is tied."""
    ends = chord.position + chord.length
    if chord.position >= end and not last:
        return []
    if chord.position >= start and (ends <= end or last):
        return [replace(chord, position=chord.position - start)]
    if ends <= start:
        return []
    goes_on, came = ends > end and not last, chord.position < start
    notes = [replace(w, tie_start=w.tie_start or goes_on, tie_stop=w.tie_stop or came) for w in chord.notes]
    begin = max(start, chord.position)
    part = replace(chord, position=begin - start, length=(ends if last else min(ends, end)) - begin, notes=notes)
    if came:
        part = replace(part, before=[], signs=[])
    return [replace(part, after=[]) if goes_on else part]


def _spans(part: int, signs: list[_Sign], marks: list[Marks]) -> list[_Span]:
    """The brackets of one part."""
    out: list[_Span] = []
    opened: _Span | None = None
    for sign in sorted(signs, key=lambda s: (s.at, s.kind == "start")):
        since = out[-1] if out else None
        if sign.kind == "start":
            again = opened is not None and sign.number == opened.number and sign.number.strip()
            if again and not any(mark.backward for mark in marks[opened.first : sign.at]):
                continue  # written once more, at the beginning of a line
            opened = _Span(part, sign.at, None, sign.number, sign.text)
            out.append(opened)
        elif opened is not None:
            opened.last, opened = max(opened.first, sign.at - 1), None
        elif sign.at > 0 and (since is None or since.last is None or since.last < sign.at - 1):
            between = marks[since.last : sign.at - 1] if since is not None and since.last is not None else []
            if since is None or since.number != sign.number or any(m.backward or m.forward for m in between):
                out.append(_Span(part, sign.at - 1, sign.at - 1, sign.number, sign.text))
    return out


def _brackets(spans: list[_Span], marks: list[Marks]) -> list[Bracket]:
    """The brackets of the score, of those of its parts."""
    at: dict[int, list[_Span]] = {}
    for span in sorted(spans, key=lambda s: (s.first, s.part)):
        at.setdefault(span.first, []).append(span)
    merged: list[_Span] = []
    for first, same in at.items():
        number = next((s.number for s in same if numbers(s.number)), same[0].number)
        text = next((s.text for s in same if numbers(s.text)), "")
        ends = [s.last for s in same if s.last is not None]
        fitting = [last for last in ends if marks[min(last, len(marks) - 1)].backward or last + 1 in at]
        span = _Span(same[0].part, first, next(iter([*fitting, *ends]), None), number, text)
        over = next((s for s in merged if s.last is not None and s.last >= first), None)
        if over is not None and over.part != span.part and numbers(over.number) == numbers(number):
            continue  # the same bracket, which begins later in another part
        merged.append(span)
    out: list[Bracket] = []
    used: set[int] = set()  # numbers of the section
    for k, span in enumerate(merged):
        first, before = span.first, out[-1] if out else None
        written, text = (frozenset(n for n in numbers(t) if n <= MAX_PASSES) for t in (span.number, span.text))
        adjacent = before is not None and before.last + 1 == first
        if not adjacent or (marks[first].forward and 1 in (written or text)):
            used = {1} if first and marks[first - 1].backward else set()
            known = written or text or frozenset({max(used, default=0) + 1})
        else:
            known = written or text
            if known and known == before.numbers and not marks[before.last].backward:
                before.last = _last(span, known, merged[k + 1 :], before, marks)  # in two pieces, over a line break
                continue
            if not known or known <= used:
                known = text if text and not text <= used else frozenset({max(used) + 1})
        used |= known
        out.append(Bracket(first, _last(span, known, merged[k + 1 :], before, marks), known))
    return out


def _last(span: _Span, known: frozenset[int], later: list[_Span], before: Bracket | None, marks: list[Marks]) -> int:
    """The last measure of a bracket: as written, but not beyond a sign or a bracket that ends it."""
    following = later[0] if later else None
    limit = len(marks) - 1 if following is None else following.first - 1
    depth = 0
    for i in range(span.first, limit + 1):  # up to the sign that is its own
        if marks[i].forward and i > span.first:
            closes = span.last is not None and any(mark.backward for mark in marks[i : span.last])
            if not closes:
                limit = i - 1
                break
            depth += 1
        if marks[i].backward and depth:
            depth -= 1
        elif marks[i].backward:
            limit = i
            break
    if span.last is not None:
        return min(span.last, limit)
    theirs = numbers(following.number) if following is not None else frozenset()
    follows = following is not None and following.first == limit + 1
    if follows and (not theirs or min(theirs) > min(known)):
        return limit
    if not marks[limit].backward:
        return span.first
    if before is not None and before.last + 1 == span.first:
        return limit if limit - span.first <= before.last - before.first else span.first
    second = span.first > 0 and marks[span.first - 1].backward
    return span.first if second else limit
