"""Directions of MusicXML: dynamics, hairpins, tempo, pedal, jumps.

What ``<sound>`` says comes before what is to be read on the page. Velocities of dynamics are MuseScore's; ``<sound
dynamics>`` is a percentage of 90, by the format's definition. Tempo words count where no number stands beside them, by
music21's table. Swing is what ``<swing>`` says, or two to one where words or a metronome mark say it, of eighths unless
they say sixteenths. Words for gradual changes (rit., cresc.) have no defined end and change nothing by themselves.
"""

from __future__ import annotations

from fractions import Fraction

import regex

from score.instruments import changes_in
from score.performance import BadScore
from score.sheet import Direction, Marks
from score.values import ordinal

LEVELS = {
    "n": 1, "pppppp": 4, "ppppp": 7, "pppp": 10, "ppp": 16, "pp": 33, "p": 49, "mp": 64, "mf": 80, "f": 96, "ff": 112,
    "fff": 126, "ffff": 127, "fffff": 127, "ffffff": 127,
}  # fmt: skip
# Stressed beginnings, and the level after them where there is one.
STRESSES = {
    "sf": (112, None), "sfz": (112, None), "fz": (112, None), "sffz": (126, None), "sfzp": (112, 49), "rf": (112, None),
    "rfz": (112, None), "fp": (96, 49), "sfp": (112, 49), "sfpp": (112, 33), "pf": (49, 96),
}  # fmt: skip
MIN_TEMPO, MAX_TEMPO = 4.0, 2000.0  # quarters a minute
_UNITS = {"1024th": 256, "512th": 128, "256th": 64, "128th": 32, "64th": 16, "32nd": 8, "16th": 4, "eighth": 2}
_UNITS |= {"quarter": 1, "half": 0.5, "whole": 0.25, "breve": 0.125, "long": 0.0625}
_DA_CAPO = regex.compile(r"\b(d\.? ?c\.?(?![a-z])|da capo)", regex.IGNORECASE)
_DAL_SEGNO = regex.compile(r"\b(d\.? ?s\.?(?![a-z])|dal segno)", regex.IGNORECASE)
_TO_CODA = regex.compile(r"^\W*to coda\b|^\W*al coda\W*$", regex.IGNORECASE)
_FINE = regex.compile(r"^\W*fine\W*$", regex.IGNORECASE)
_FIRST_TEMPO = regex.compile(r"^\W*tempo (i|1|1o|primo)\W*$", regex.IGNORECASE)
_SWING = regex.compile(r"\b(swing|swung|shuffle)\b", regex.IGNORECASE)
_STRAIGHT = regex.compile(r"\b(no swing|straight(?! mute)|even (8|eighth|quaver|16))", regex.IGNORECASE)
_STRAIGHT_SHARE, _SWUNG_SHARE = Fraction(1, 2), Fraction(2, 3)
FIRST_TEMPO = 0.0  # as the value of a tempo: back to the first


def read_direction(element, position: Fraction, sound_at: Fraction, marks: Marks, out: list[Direction]):
    """A ``<direction>``: where it leads elsewhere to ``marks``, else to ``out``; its ``<sound>`` at ``sound_at``."""
    sound, staff = element.find("sound"), ordinal(element.findtext("staff"))
    kinds = [kind for group in element.findall("direction-type") for kind in group]
    text = " ".join((kind.text or "").strip() for kind in kinds if kind.tag == "words").strip()[:81]
    coda_sign = any(kind.tag == "coda" for kind in kinds)
    if sound is not None and any(sound.get(key) for key in ("dacapo", "dalsegno", "tocoda", "fine", "coda")):
        leads = True
    else:
        leads = _jump(text, coda_sign, marks)
    for kind in kinds:
        if kind.tag == "dynamics":
            read_dynamics(kind, position, staff, None if sound is None else sound.get("dynamics"), out)
        elif kind.tag == "wedge" and kind.get("type") in ("crescendo", "diminuendo", "stop"):
            out.append(Direction(position, "wedge", kind.get("type"), staff))
        elif kind.tag == "pedal" and kind.get("type") in ("start", "stop", "change"):
            if sound is None or sound.get("damper-pedal") is None:
                out.extend(_pedal(position, kind.get("type") == "stop", kind.get("type") == "change"))
        elif kind.tag == "metronome":
            _metronome(kind, position, out)
        elif kind.tag == "segno" and not leads:
            marks.segno.add((sound.get("segno") if sound is not None else None) or "")
        elif kind.tag == "coda" and not leads:
            marks.coda.add("")
    _words(text, position, out, tempo_known=sound is not None and sound.get("tempo") is not None)
    if sound is not None:
        read_sound(sound, sound_at, marks, out, staff)


def read_sound(element, position: Fraction, marks: Marks, out: list[Direction], staff: str = ""):
    """A ``<sound>`` element."""
    from score.musicxml import numbers

    passes = numbers(element.get("time-only", ""))

    def add(kind: str, value, name: str = "", rank: int = 0):
        out.append(Direction(position, kind, value, staff, name, rank, passes))

    if element.get("tempo") is not None:
        add("tempo", _tempo(element.get("tempo")), rank=3)
    stressed = any(d.kind == "stress" and d.position == position and d.rank == 2 for d in out)
    if element.get("dynamics") is not None and not stressed:
        add("level", 0.9 * _amount(element.get("dynamics"), 0, 400), rank=2)
    swing = element.find("swing")
    if swing is not None:
        add("swing", _swing(swing), rank=2)
    pedal = element.get("damper-pedal")
    if pedal is not None:
        add("pedal", pedal == "yes" or (pedal != "no" and _amount(pedal, 0, 100) >= 50))
    if element.get("pizzicato") is not None:
        add("pizzicato", element.get("pizzicato") == "yes", rank=1)
    for kind, name, fields in changes_in(element):
        add(kind, fields, name)
    if element.get("segno"):
        marks.segno.add(element.get("segno"))
    if element.get("coda"):
        marks.coda.add(element.get("coda"))
    if element.get("tocoda"):
        marks.to_coda = element.get("tocoda")
    if element.get("dalsegno"):
        marks.dal_segno = element.get("dalsegno")
    marks.da_capo |= element.get("dacapo") == "yes"
    marks.fine |= element.get("fine") not in (None, "no")
    marks.forward |= element.get("forward-repeat") == "yes"
    if passes and (element.get("dacapo") or element.get("dalsegno") or element.get("tocoda")):
        marks.jump_passes = passes


def _swing(element) -> tuple[Fraction, Fraction]:
    """Share of the first of two notes, and the length of each as written, in quarters."""
    parts = [_amount(element.findtext(name) or "1", 1, 100) for name in ("first", "second")]
    unit = Fraction(1, 4 if element.findtext("swing-type", "").strip() == "16th" else 2)
    if element.find("straight") is not None:
        return _STRAIGHT_SHARE, unit
    first, second = (Fraction(part).limit_denominator(100) for part in parts)
    return first / (first + second), unit


def read_dynamics(element, position: Fraction, staff: str, sound: str | None, out: list[Direction]):
    """A ``<dynamics>`` element; ``sound`` is what a ``<sound dynamics>`` beside it says."""
    for mark in element:
        if mark.tag in LEVELS:
            out.append(Direction(position, "level", LEVELS[mark.tag], staff))
        elif mark.tag in STRESSES:
            stress, after = STRESSES[mark.tag]
            if sound is not None:
                stress = 0.9 * _amount(sound, 0, 400)
            out.append(Direction(position, "stress", stress, staff, rank=2 if sound is not None else 0))
            if after is not None:
                out.append(Direction(position, "level", after, staff))


def _pedal(position: Fraction, stop: bool, change: bool) -> list[Direction]:
    """Down, up, or up and down."""
    steps = [False, True] if change else [not stop]
    return [Direction(position, "pedal", down) for down in steps]


def _metronome(element, position: Fraction, out: list[Direction]):
    """``quarter = 96``, or ``quarter = dotted quarter``, which says how the tempo changes."""
    if element.find("metronome-relation") is not None:
        _metronome_notes(element, position, out)
        return
    units, figure = [], None
    for child in element:
        if child.tag == "beat-unit":
            units.append(1 / _UNITS.get((child.text or "").strip(), 1))
            dots = 0
        elif child.tag == "beat-unit-dot" and units:
            dots += 1
            units[-1] *= (2 - 0.5**dots) / (2 - 0.5 ** (dots - 1))
        elif child.tag == "per-minute":
            figure = regex.search(r"\d+(?:[.,]\d+)?", child.text or "")
    if units and figure is not None:
        tempo = _tempo(str(float(figure[0].replace(",", ".")) * units[0]))
        out.append(Direction(position, "tempo", tempo, rank=2))
    elif len(units) == 2:
        out.append(Direction(position, "modulation", units[1] / units[0], rank=2))


def _metronome_notes(element, position: Fraction, out: list[Direction]):
    """Note = note, as above; or two equal ones = two that are not, e.g. a quarter and an eighth under a bracket of
    three, which is swing."""
    lengths, sides = [], 0
    for child in element:
        if child.tag == "metronome-relation":
            sides = len(lengths)
        elif child.tag == "metronome-note":
            kind = _UNITS.get(child.findtext("metronome-type", "").strip())
            if kind is None:
                return
            lengths.append(Fraction(1 / kind) * (2 - Fraction(1, 2) ** len(child.findall("metronome-dot"))))
    if len(lengths) == 2 and sides == 1 and element.find("metronome-note/metronome-tuplet") is None:
        out.append(Direction(position, "modulation", float(lengths[1] / lengths[0]), rank=2))
    elif len(lengths) == 4 and sides == 2 and lengths[0] == lengths[1] in (Fraction(1, 2), Fraction(1, 4)):
        out.append(Direction(position, "swing", (lengths[2] / (lengths[2] + lengths[3]), lengths[0]), rank=1))


def _jump(text: str, coda_sign: bool, marks: Marks) -> bool:
    """Jumps as words, where no ``<sound>`` says them. Whether the words are one: signs beside them are no aims then."""
    if _DA_CAPO.search(text):
        marks.da_capo = True
    elif _DAL_SEGNO.search(text):
        marks.dal_segno = ""
    elif _TO_CODA.search(text) or (coda_sign and text.lower() == "to"):
        marks.to_coda = ""
    elif _FINE.search(text):
        marks.fine = True
    else:
        if text.strip(" .:").lower() == "coda":
            marks.coda.add("")
        return False
    return True


def _words(text: str, position: Fraction, out: list[Direction], tempo_known: bool):
    """Tempo and plucking as words."""
    low = text.lower().strip(" .,:()")
    if low in ("pizz", "pizzicato", "arco"):
        out.append(Direction(position, "pizzicato", low != "arco"))
    if len(text) > 80:
        return
    feels = (_STRAIGHT.search(text), _STRAIGHT_SHARE), (_SWING.search(text), _SWUNG_SHARE)
    first = min(((match.start(), share) for match, share in feels if match), default=None)
    if first is not None:  # of "swing, not straight" what stands first counts
        unit = Fraction(1, 4 if "16" in low or "sixteenth" in low else 2)
        out.append(Direction(position, "swing", (first[1], unit)))
    if tempo_known:
        return
    if _FIRST_TEMPO.search(text):
        out.append(Direction(position, "tempo", FIRST_TEMPO, rank=1))
    elif low[:1].isalpha():
        tempo = _tempo_of_words(low)
        if tempo is not None:
            out.append(Direction(position, "tempo", tempo, rank=1))


def _tempo_of_words(low: str) -> float | None:
    """``Allegro``, ``Andante con moto``: the longest beginning that music21 knows."""
    from music21.tempo import defaultTempoValues

    words = regex.split(r"[\s,.(]+", low)
    for n in range(min(3, len(words)), 0, -1):
        found = defaultTempoValues.get(" ".join(words[:n]))
        if found is not None:
            return float(found)
    return None


def _tempo(text: str) -> float:
    tempo = _amount(text, None, None)
    if not MIN_TEMPO <= tempo <= MAX_TEMPO:
        raise BadScore(
            f"has a tempo of {text.strip()[:20]} quarters a minute; from {MIN_TEMPO:g} to {MAX_TEMPO:g} are played"
        )
    return tempo


def _amount(text: str, low: float | None, high: float | None) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value:
        raise BadScore(f"has {text.strip()[:30]!r} where a number belongs; export it again")
    return value if low is None else max(low, min(high, value))
