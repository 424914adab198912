"""Tempo: numbers and metronome marks, and which of them, or of the words in ``tempo_words``, is in force when.

``<sound tempo>`` comes before a metronome mark, that before words. A number that says nothing (0, empty, negative, no
number) or that no music has (outside ``MIN_TEMPO`` to ``MAX_TEMPO``) changes nothing, and is counted as left out. Of
"ca. 60" or "60-66" the first number counts. Words without a number are music21's (Adagio 56).

Words for a gradual change (rit., accel.) and for a freer one (rubato) have no number and change nothing by themselves.
What a number beside them says holds in passing: "a tempo" (in tempo, l'istesso tempo) goes back to the tempo before
it, else it changes nothing. Where no such word came, it goes back from a "meno mosso" with a number, and from a number
that nobody sees, in a ``<sound>`` without words and metronome mark, as programs write a ritardando. "Tempo I" (tempo
primo, come prima) goes back to the first tempo.
"""

from __future__ import annotations

from fractions import Fraction

import regex

from score.performance import DEFAULT_TEMPO, LeftOut
from score.sheet import Direction

MIN_TEMPO, MAX_TEMPO = 4.0, 2000.0  # quarters a minute
NO_NUMBER = "{n} tempo mark{s} without a number that can be read"
NO_TEMPO = f"{{n}} tempo mark{{s}} outside {MIN_TEMPO:g} to {MAX_TEMPO:g} quarters a minute"
FIRST, BACK = "first", "back"  # values of a tempo: the first one, and the one before a change in passing
HIDDEN, RELATIVE = "hidden", "relative"  # names of a tempo: without anything to be seen; beside "meno mosso"
_UNITS = {"1024th": 256, "512th": 128, "256th": 64, "128th": 32, "64th": 16, "32nd": 8, "16th": 4, "eighth": 2}
UNITS = {kind: Fraction(1, n) for kind, n in _UNITS.items()}  # quarters
UNITS |= {kind: Fraction(4 << k, 4) for k, kind in enumerate(("quarter", "half", "whole", "breve", "long", "maxima"))}
NUMBER = r"(\d+(?:[.,]\d+)?|(?<!\p{L})[.,]\d+)"  # of "c.60" it is 60


def amount(text: str, low: float, high: float) -> float | None:
    """A number between limits; None where it is none."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return None if value != value else max(low, min(high, value))


def tempo_of(text: str | None, left_out: LeftOut, unit: Fraction = Fraction(1)) -> float | None:
    """Quarters a minute, of a number of units; None, and a word for the user, where it says nothing."""
    value = amount(text or "", -1e9, 1e9)
    if value is None or value <= 0:
        left_out[NO_NUMBER] += 1
        return None
    value *= float(unit)
    if not MIN_TEMPO <= value <= MAX_TEMPO:
        left_out[NO_TEMPO] += 1
        return None
    return value


def metronome(element, position: Fraction, out: list[Direction], left_out: LeftOut, name: str):
    """``quarter = 96``, or ``quarter = dotted quarter``, which says how the tempo changes; ``name`` of the tempo."""
    if element.find("metronome-note") is not None:
        _metronome_notes(element, position, out, left_out)
        return
    units: list[Fraction] = []
    figure = None
    for child in element:
        if child.tag == "beat-unit":
            unit = _unit(element, child)
            if unit is None:
                left_out[NO_NUMBER] += 1
                return
            units.append(unit)
        elif child.tag == "beat-unit-tied" and units:
            units[-1] += _unit(child, child.find("beat-unit")) or 0
        elif child.tag == "per-minute":
            found = regex.search(NUMBER, child.text or "")
            figure = found[1] if found and not (child.text or "").lstrip().startswith("-") else ""
    if len(units) == 2 and not figure:
        out.append(Direction(position, "modulation", float(units[1] / units[0]), rank=2))
    elif units:
        tempo = tempo_of(figure, left_out, units[0])
        if tempo is not None:
            out.append(Direction(position, "tempo", tempo, name=name, rank=2))


def _unit(parent, beat) -> Fraction | None:
    """The length of a ``<beat-unit>`` with the dots behind it, in quarters."""
    if beat is None:
        return None
    children = list(parent)
    dots, k = 0, children.index(beat) + 1
    while k < len(children) and children[k].tag == "beat-unit-dot":
        dots, k = dots + 1, k + 1
    length = UNITS.get((beat.text or "").strip())
    return None if length is None else length * (2 - Fraction(1, 2) ** min(dots, 8))


def _metronome_notes(element, position: Fraction, out: list[Direction], left_out: LeftOut):
    """Notes = notes, as above, where the sides are not equally long; two equal notes = two that are not, e.g. a quarter
    and an eighth under a bracket of three, is swing."""
    plain: list[list[Fraction]] = [[], []]  # as written
    sounding: list[list[Fraction]] = [[], []]  # with tuplets
    side, scale = 0, Fraction(1)
    for child in element:
        if child.tag == "metronome-relation":
            side, scale = 1, Fraction(1)
        elif child.tag == "metronome-note":
            length = UNITS.get((child.findtext("metronome-type") or "").strip())
            if length is None:
                left_out[NO_NUMBER] += 1
                return
            length *= 2 - Fraction(1, 2) ** min(8, len(child.findall("metronome-dot")))
            tuplet = child.find("metronome-tuplet")
            if tuplet is not None and tuplet.get("type") == "start":
                numbers = [amount(tuplet.findtext(name) or "", 1, 64) for name in ("normal-notes", "actual-notes")]
                scale = Fraction(int(numbers[0]), int(numbers[1])) if all(numbers) else Fraction(2, 3)
            plain[side].append(length)
            sounding[side].append(length * scale)
            if tuplet is not None and tuplet.get("type") == "stop":
                scale = Fraction(1)
    old, new = sum(sounding[0]), sum(sounding[1])
    pair = len(plain[0]) == len(plain[1]) == 2 and plain[0][0] == plain[0][1] and plain[1][0] != plain[1][1]
    if pair and plain[0][0] in (Fraction(1, 2), Fraction(1, 4)):
        share = plain[1][0] / sum(plain[1])
        out.append(Direction(position, "swing", (share, plain[0][0]), rank=1))
    elif old and new and old != new:
        out.append(Direction(position, "modulation", float(new / old), rank=2))


def tempo_marks(directions: list[tuple[Fraction, Direction]]) -> tuple[list[tuple[Fraction, float]], float]:
    """Tempo marks of all parts, as ``[(quarter, quarters a minute)]`` in playing order, and the tempo at the beginning.

    Args:
        directions: of the kinds ``tempo``, ``modulation`` and ``change``, with their quarters, in any order.
    """
    places: dict[Fraction, list[Direction]] = {}
    for at, d in directions:
        places.setdefault(at, []).append(d)
    out: list[tuple[Fraction, float]] = []
    now = settled = before = DEFAULT_TEMPO
    first: float | None = None
    left = aside = False  # whether a passing change came since; whether the settled tempo is one that "a tempo" ends
    for at in sorted(places):
        here = places[at]
        gradual, free = (any(d.kind == "change" and d.value == kind for d in here) for kind in ("gradual", "free"))
        marks = [d for d in here if d.kind != "change"]
        if not marks:
            left = True
            continue
        d = max(enumerate(marks), key=lambda pair: (pair[1].rank, pair[0]))[1]
        if d.kind == "modulation":
            value = now * d.value
        elif d.value == FIRST:
            value = DEFAULT_TEMPO if first is None else first
        elif d.value == BACK:
            value = before if aside and not left else settled
        else:
            value = d.value
        now = max(1.0, min(MAX_TEMPO, value))
        hidden = all(d.name == HIDDEN for d in here)
        if gradual or (hidden and left):
            left = True
        else:
            besides = bool(out) and now != settled and (hidden or any(d.name == RELATIVE for d in here))
            if besides and not aside:
                before = settled
            aside = besides or (aside and now == settled)
            settled, left = now, free
            first = now if first is None else first
        out.append((at, now))
    return out, out[0][1] if out and out[0][0] == 0 else DEFAULT_TEMPO
