"""Tempo: numbers, metronome marks and words, and which of them is in force when.

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
_NUMBER = r"(\d+(?:[.,]\d+)?|(?<!\p{L})[.,]\d+)"
# How a note is written in text, and its length in quarters: in Unicode, also as a head with a stem (and a flag); in
# SMuFL, whose two ranges begin with two breves and then have stems up and down; in the letters that the fonts Maestro
# (Finale) and Opus (Sibelius) draw as notes; and by its name.
_SYMBOLS = {"\u2669": 1, "\u266a": Fraction(1, 2), "\U0001d15d": 4, "\U0001d15e": 2, "\U0001d15f": 1}
_SYMBOLS |= {"\U0001d160": Fraction(1, 2), "\U0001d161": Fraction(1, 4)}
_SYMBOLS |= {"\U0001d157\U0001d165": 2, "\U0001d158\U0001d165": 1, "\U0001d158\U0001d165\U0001d16e": Fraction(1, 2)}
_SMUFL = (8, 8, 4, 2, 2, 1, 1, Fraction(1, 2), Fraction(1, 2), Fraction(1, 4), Fraction(1, 4))
_SYMBOLS |= {chr(first + k): length for first in (0xE1D0, 0xECA0) for k, length in enumerate(_SMUFL)}
_LETTERS = {"w": 4, "h": 2, "q": 1, "e": Fraction(1, 2), "x": Fraction(1, 4)}
_NAMES = {"whole": 4, "half": 2, "quarter": 1, "eighth": Fraction(1, 2), "sixteenth": Fraction(1, 4)}
_NAMES |= {"semibreve": 4, "minim": 2, "crotchet": 1, "quaver": Fraction(1, 2), "semiquaver": Fraction(1, 4)}
_NAMES |= {"ganze": 4, "halbe": 2, "viertel": 1, "achtel": Fraction(1, 2)}
_NOTES = _SYMBOLS | _LETTERS | _NAMES
_IN_TEXT = regex.compile(
    rf"(?P<note>{'|'.join(sorted(_SYMBOLS, key=len, reverse=True))}|(?<!\w)(?P<dotted>dotted[\s-]+)?"
    rf"(?:{'|'.join([*_LETTERS, *_NAMES])})(?![^\W\d_]))(?:[\s-]+note)?\s*(?P<dot>[.\ue1e7\uecb7\U0001d16d]?)"
    rf"\s*=\s*(?:c(?:a|irca)?\b\.?\s*|[~\u2248]\s*)?(?P<number>{_NUMBER})",
    regex.IGNORECASE,
)
_CLAUSE = r"(?:^|[,;:\u2013\u2014-])\W*"  # where an instruction among words may begin
_FIRST = regex.compile(
    r"^\W*(a )?tempo (i|1|1\s?[o\u00ba\u00b0]|i\s?[o\u00ba\u00b0]|1mo|imo|1\s?er|primo|(di )?prima|iniziale|inicial|"
    r"initial|originale?|(del|al) (comienzo|principio|inizio)|come prima|wie (zu|am) (anfang|beginn))(?!\w)|"
    r"^\W*(tempo )?come prima\b|^\W*come al principio\b|^\W*(1\s?[o\u00ba\u00b0]|i[o\u00ba\u00b0]?|primo) tempo\b|"
    r"^\W*(premier|1\s?er) mouv|^\W*mouv\w*\.? (du d\u00e9but|initial)|^\W*erstes (zeitma|tempo)|"
    r"^\W*wie (am |zu )?(anfangs?|beginn)\b|^\W*(original|first|initial|opening) tempo\b",
    regex.IGNORECASE,
)
_AGAIN = r"((sempre|subito|poi|di nuovo|nuovamente|again|back|wieder) )?"
_BACK = regex.compile(
    rf"{_CLAUSE}{_AGAIN}((a|in|al|im|to) (tempo|tpo)\b(?! (d[ie]|rubato)\b)|(lo |l.\s?)?i?stesso (tempo|movimento)\b|"
    r"im zeitma)|^\W*(tempo\W*$|au mouv)|^\W*(medesimo|stesso) (tempo|movimento)\b",
    regex.IGNORECASE,
)
_PASSING = regex.compile(
    r"\b(rit|ritard(ando)?|ritenuto|riten|rall|rallent(ando)?|accel|acceler(ando)?|string(endo)?|stringen|allarg(ando)?|"
    r"slarg(ando)?|slent(ando)?|lentando|calando|morendo|smorz(ando)?|perdendosi|affrett(ando)?|precipitando|"
    r"incalzando|"
    r"trattenuto|zur\u00fcckhaltend|c\u00e9dez|retenu|ralentir|pressez|slow(ing)? down|hold(ing)? back|speed(ing)? up|"
    r"broaden)\b",
    regex.IGNORECASE,
)
_FREE = regex.compile(
    r"\b(rubato|ad lib(itum)?|senza (misura|tempo)|a piacere|colla (voce|parte)|recit(ativo)?)\b", regex.IGNORECASE
)
_RELATIVE = regex.compile(
    r"\b((pi\u00f9|piu|pi\u00fa|meno) (mosso|moto|lento|vivo|animato|allegro|tranquillo|presto|largo|adagio)|langsamer|"
    r"schneller|slower|faster|moins vite|plus (lent|vite))\b",
    regex.IGNORECASE,
)


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


def change(text: str) -> str:
    """What change words speak of, that "a tempo" ends: ``gradual``, whose number holds in passing, ``free``, or none.
    Words that begin with a tempo ("Andante rubato") are a tempo."""
    found = "gradual" if _PASSING.search(text) else "free" if _FREE.search(text) else ""
    return "" if found and _of_table(text.lower().strip(" .,:()[]")) is not None else found


def is_relative(text: str) -> bool:
    """Whether words are of a tempo beside the one before, such as "meno mosso"."""
    return bool(_RELATIVE.search(text))


def words_tempo(text: str, left_out: LeftOut) -> float | str | None:
    """What words alone say: quarters a minute, ``FIRST``, ``BACK`` or nothing."""
    written = _IN_TEXT.search(text)
    if written:
        name = regex.split(r"[\s-]", written["note"].lower())[-1]
        dotted = bool(written["dot"] or written["dotted"])
        return tempo_of(written["number"], left_out, _NOTES[name] * Fraction(3 if dotted else 2, 2))
    if _FIRST.search(text):
        return FIRST
    if _BACK.search(text):
        return BACK
    low = text.lower().strip(" .,:()[]")
    return _of_table(low) if low[:1].isalpha() else None


def _of_table(low: str) -> float | None:
    """``Allegro``, ``Andante con moto``: the longest beginning that music21 knows."""
    from music21.tempo import defaultTempoValues

    words = regex.split(r"[\s,.(]+", low)
    for n in range(min(3, len(words)), 0, -1):
        found = defaultTempoValues.get(" ".join(words[:n]))
        if found is not None:
            return float(found)
    return None


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
            found = regex.search(_NUMBER, child.text or "")
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
