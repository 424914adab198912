"""How long what is written lasts, in quarters: by ``<duration>`` and ``<divisions>``, by ``<type>``, and by the bar.

``<duration>`` counts where the part has told its ``<divisions>`` and the number makes sense. Where it has not,
durations have no unit: a note lasts what its type, dots and ``<time-modification>`` say, and the unit of what has no
type (``<backup>``, ``<forward>``, rests) is what the durations of typed notes come to, or what fills the bars.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from score.values import fraction, integer

MAX_QUARTERS = 100_000  # of a measure
FLAGS = {
    "1024th": 8, "512th": 7, "256th": 6, "128th": 5, "64th": 4, "32nd": 3, "16th": 2, "eighth": 1, "quarter": 0,
    "half": -1, "whole": -2, "breve": -3, "long": -4, "maxima": -5,
}  # fmt: skip
_WHOLE = Fraction(4)
_MAX_TUPLET = 1000  # notes


def by_type(element) -> Fraction | None:
    """The length of a note by its ``<type>``, dots and ``<time-modification>``; None where no type is known.

    In tuplets of tuplets ``<time-modification>`` is the product of both ratios; ``<normal-type>`` tells what the tuplet
    counts in and changes no ratio (MusicXML 4.0).
    """
    flags = FLAGS.get((element.findtext("type") or "").strip())
    if flags is None:
        return None
    length = head(flags, len(element.findall("dot")))
    actual, normal = (
        integer(element.findtext(f"time-modification/{which}-notes"), _MAX_TUPLET) for which in ("actual", "normal")
    )
    return length * Fraction(normal, actual) if actual > 0 and normal > 0 else length


def head(flags: int, dots: int) -> Fraction:
    """The length of a note's head with its flags and dots."""
    return Fraction(1, 2) ** flags * (2 - Fraction(1, 2) ** min(4, dots))


def bar_of(meter: tuple[int, int] | None) -> Fraction | None:
    """The length of a bar."""
    return None if meter is None else Fraction(4 * meter[0], meter[1])


def first_divisions(parts) -> Fraction | None:
    """The first ``<divisions>`` in ``parts`` that is a positive number."""
    texts = (element.text for part in parts for element in part.iterfind("measure/attributes/divisions"))
    return next((value for value in map(fraction, texts) if value is not None and value > 0), None)


def guessed_divisions(part, others) -> Fraction:
    """What a quarter probably has in a part before it has told its ``<divisions>``.

    Most of its typed notes with a duration say it; else what the part tells later, or another one, unless most bars are
    full by another number; else 1.
    """
    ratios: Counter[Fraction] = Counter()
    for measure in part.findall("measure"):
        if any((fraction(told.text) or 0) > 0 for told in measure.iterfind("attributes/divisions")):
            break
        for note in measure.findall("note"):
            length, duration = by_type(note), fraction(note.findtext("duration"))
            if length and duration and duration > 0 and note.find("grace") is None and not _may_be_bar(note):
                ratios[duration / length] += 1
    if ratios:
        return max(ratios, key=lambda ratio: ratios[ratio])
    told, full = first_divisions([part]) or first_divisions(others), _by_bars(part)
    best = max(full, key=lambda divisions: full[divisions]) if full else None
    if best is not None and told not in full and 2 * full[best] > full.total():
        return best
    return told or Fraction(1)


def _by_bars(part) -> Counter[Fraction]:
    """How many bars are full by which divisions."""
    found: Counter[Fraction] = Counter()
    bar = None
    for measure in part.findall("measure"):
        beats, unit = (integer(measure.findtext(f"attributes/time/{name}"), 1024) for name in ("beats", "beat-type"))
        if beats > 0 and unit > 0:
            bar = Fraction(4 * beats, unit)
        position = furthest = Fraction(0)
        for child in measure:
            if child.tag in ("note", "forward", "backup") and child.find("chord") is None:
                duration = max(Fraction(0), fraction(child.findtext("duration")) or Fraction(0))
                position = max(Fraction(0), position - duration if child.tag == "backup" else position + duration)
                furthest = max(furthest, position)
        if bar and furthest:
            found[furthest / bar] += 1
    return found


def _may_be_bar(note) -> bool:
    """Whether it may be a rest that lasts its bar, whatever it is written as."""
    rest = note.find("rest")
    if rest is None:
        return False
    return rest.get("measure") == "yes" or (note.findtext("type") or "").strip() in ("", "whole")


class Lengths:
    """The lengths of the notes and rests of one part, measure by measure."""

    def __init__(self, part, others):
        self.part, self.others = part, others
        self.told: Fraction | None = None  # divisions of a quarter
        self._guess: Fraction | None = None
        self.meter: tuple[int, int] | None = None
        self.n_guessed = 0  # notes of which nothing says how long they are
        self.n_without = 0  # notes that are said to have no length
        self.free = False  # no bars are counted
        self.first: bool | None = None  # whether it is the first measure; None before it

    def tell(self, text: str | None):
        """A ``<divisions>`` element; what cannot be one is as if it were missing."""
        value = fraction(text)
        if value is not None and value > 0:
            self.told = value

    @property
    def divisions(self) -> Fraction:
        """The divisions of a quarter, as the part tells them or as they are guessed."""
        if self.told is not None:
            return self.told
        if self._guess is None:
            self._guess = guessed_divisions(self.part, self.others)
        return self._guess

    def quarters(self, text: str | None) -> Fraction | None:
        """A number of divisions as quarters; None for what is no number."""
        value = fraction(text)
        return None if value is None else value / self.divisions

    def begin(self, measure, meter: tuple[int, int] | None):
        """A measure, and the meter that holds in it.

        Args:
            measure: its element.
            meter: of the parts before, where this one tells none.
        """
        self.measure, self.fallback = measure, meter
        self.implicit = measure.get("implicit") == "yes" or (measure.get("number") or "").strip() == "0"
        self.first = self.first is None  # in the first measure a pickup may not be marked as one
        self.left: dict[int, Fraction] = {}
        self.places: dict[int, int] = {}
        self.rests: dict[int, Fraction] = {}  # what follows before the next backup
        self.lines: dict[int, list] = {}  # of each note those between the same backups, by its id
        line: list = []
        for child in measure:
            if child.tag == "backup":
                line = []
            elif child.tag == "note" and _counts(child):
                line.append(child)
                self.lines[id(child)] = line

    @property
    def bar(self) -> Fraction | None:
        """The length of a bar by the time signature."""
        return None if self.free else bar_of(self.meter or self.fallback)

    def written(self, element) -> Fraction | None:
        """What ``<duration>`` or ``<type>`` say of a note; None where neither does."""
        duration = fraction(element.findtext("duration"))
        quarters = None if duration is None or duration <= 0 else duration / self.divisions
        if quarters is not None and quarters <= MAX_QUARTERS and self.told is not None:
            return quarters
        typed = by_type(element)
        return quarters if typed is None else typed

    def said(self, element) -> Fraction | None:
        """What ``<duration>`` says, 0 for less; None where there is none, or one that cannot be believed."""
        said = self.quarters(element.findtext("duration"))
        return None if said is None or said > MAX_QUARTERS else max(Fraction(0), said)

    def of(self, element, chord: Fraction | None = None) -> Fraction:
        """The length of a note or rest.

        Args:
            chord: that of the chord that it belongs to.
        """
        written = self.written(element)
        if written is not None:
            return written
        if chord is not None:
            return chord
        for note in self._after(element):  # those of its chord
            if note.tag != "note" or note.find("chord") is None:
                break
            written = self.written(note)
            if written is not None:
                return written
        if fraction(element.findtext("duration")) == 0:
            self.n_without += element.find("rest") is None
            return Fraction(0)
        self.n_guessed += element.find("rest") is None
        return self._left(self.lines.get(id(element), [element]))

    def _left(self, line: list) -> Fraction:
        """What the bar leaves to each note of a line of which nothing says how long it is; a quarter without a bar."""
        if id(line) not in self.left:
            lengths = [self.written(note) for note in line]
            known, n_unknown = sum((n for n in lengths if n is not None), Fraction(0)), lengths.count(None)
            fits = self.bar is not None and n_unknown and self.bar > known
            self.left[id(line)] = (self.bar - known) / n_unknown if fits else Fraction(1)
        return self.left[id(line)]

    def _after(self, element) -> Iterator:
        """The elements behind one in the measure."""
        if not self.places:
            self.places = {id(child): i for i, child in enumerate(self.measure)}
        for i in range(self.places[id(element)] + 1, len(self.measure)):
            yield self.measure[i]

    def is_bar_rest(self, element) -> bool:
        """Whether a rest lasts its bar: it says so, or is alone in its voice and whole, or of no type."""
        rest = element.find("rest")
        if rest is None or element.find("chord") is not None:
            return False
        if rest.get("measure") == "yes":
            return True
        kind = (element.findtext("type") or "").strip()
        return kind in ("", "whole") and element.find("dot") is None and len(self.lines[id(element)]) == 1

    def bar_rest(self, element) -> tuple[Fraction | None, Fraction | None, bool]:
        """Length of a rest that lasts its bar, what its duration says, and whether the first only counts where what
        else is in the bar does not tell its length.

        A shorter duration tells of a shorter bar where that is marked as a pickup (Finale) or where other notes fill
        it; four quarters are just how the rest is drawn.
        """
        bar, said = self.bar, self.quarters(element.findtext("duration"))
        if said is not None and said <= 0:
            said = None
        if bar is None:
            return said, said, said is None
        if said is None or said >= bar:
            return bar, said, self.implicit or (self.first and said is None)
        return (said, said, False) if self.implicit else (bar, said, said != _WHOLE)

    def fill(self, element, position: Fraction) -> Fraction:
        """Where a ``<forward>`` without duration leads: what follows in its voice ends with the bar."""
        if not self.rests:
            total = Fraction(0)
            for child in reversed(self.measure):
                self.rests[id(child)] = total
                if child.tag == "backup":
                    total = Fraction(0)
                elif child.tag == "note" and _counts(child):
                    total += self.written(child) or Fraction(0)
                elif child.tag == "forward":
                    total += max(Fraction(0), self.quarters(child.findtext("duration")) or Fraction(0))
        following = self.rests[id(element)]
        return position if self.bar is None or not following else max(position, self.bar - following)


def _counts(note) -> bool:
    """Whether the cursor goes on with it."""
    return note.find("chord") is None and note.find("grace") is None
