"""Directions of MusicXML: dynamics, hairpins, tempo, pedal, jumps.

What ``<sound>`` says comes before what is to be read on the page. Velocities of dynamics are MuseScore's; ``<sound
dynamics>`` is a percentage of 90, by the format's definition. Swing is what ``<swing>`` says, or two to one where words
or a metronome mark say it, of eighths unless they say sixteenths. Words for gradual changes (rit., cresc.) have no
defined end and change nothing by themselves. Tempo is read in ``tempi`` and ``tempo_words``, words that jump in
``jumps``.
"""

from __future__ import annotations

from fractions import Fraction

import regex

from score.instruments import changes_in
from score.jumps import read_jump, until
from score.performance import BadScore, LeftOut
from score.repeats import numbers
from score.sheet import Direction, Marks
from score.tempi import HIDDEN, RELATIVE, amount, metronome, tempo_of
from score.tempo_words import change, is_relative, words_tempo
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
_SWING = regex.compile(r"\b(swing|swung|shuffle)\b", regex.IGNORECASE)
_STRAIGHT = regex.compile(r"\b(no swing|straight(?! mute)|even (8|eighth|quaver|16))", regex.IGNORECASE)
_STRAIGHT_SHARE, _SWUNG_SHARE = Fraction(1, 2), Fraction(2, 3)


def read_direction(
    element,
    position: Fraction,
    sound_at: Fraction,
    marks: Marks,
    out: list[Direction],
    left_out: LeftOut,
    heading: bool = False,
):
    """A ``<direction>``: where it leads elsewhere to ``marks``, else to ``out``; its ``<sound>`` at ``sound_at``.

    Args:
        heading: it stands above the first note of the score, where a title is.
    """
    sound, staff = element.find("sound"), ordinal(element.findtext("staff"))
    kinds = [kind for group in element.findall("direction-type") for kind in group]
    words = [" ".join((kind.text or "").split()) for kind in kinds if kind.tag == "words"]
    text = " ".join(words).strip()[:81]
    said = LeftOut()  # of the number in its <sound>
    tempo = None if sound is None or sound.get("tempo") is None else tempo_of(sound.get("tempo"), said)
    relative = RELATIVE if is_relative(text) else ""
    coda_sign = any(kind.tag == "coda" for kind in kinds)
    if sound is not None and any(sound.get(key) for key in ("dacapo", "dalsegno", "tocoda", "fine", "coda")):
        leads = True
        marks.until = until(text) or marks.until
    else:
        leads = read_jump(words, coda_sign, marks, left_out, heading)
    for kind in kinds:
        if kind.tag == "dynamics":
            read_dynamics(kind, position, staff, None if sound is None else sound.get("dynamics"), out)
        elif kind.tag == "wedge" and kind.get("type") in ("crescendo", "diminuendo", "stop"):
            out.append(Direction(position, "wedge", kind.get("type"), staff))
        elif kind.tag == "pedal" and kind.get("type") in ("start", "stop", "change"):
            if sound is None or sound.get("damper-pedal") is None:
                out.extend(_pedal(position, kind.get("type") == "stop", kind.get("type") == "change"))
        elif kind.tag == "metronome":
            name = HIDDEN if kind.get("print-object") == "no" and not text else relative
            metronome(kind, position, out, left_out if tempo is None else LeftOut(), name)
        elif kind.tag == "segno" and not leads:
            marks.segno.add((sound.get("segno") if sound is not None else None) or "")
        elif kind.tag == "coda" and not leads:
            marks.coda.add("")
        elif kind.tag == "rehearsal" and (kind.text or "").strip(" .:").lower() == "coda":
            marks.coda.add("rehearsal")  # an aim, if no coda sign is another
    _words(text, position, out, left_out, tempo_known=tempo is not None)
    changed = change(text) if len(text) <= 80 else ""
    if changed:
        out.append(Direction(sound_at, "change", changed))
    if sound is not None:
        seen = bool(text) or any(kind.tag == "metronome" and kind.get("print-object") != "no" for kind in kinds)
        read_sound(sound, sound_at, marks, out, left_out, staff, relative if seen else HIDDEN)


def read_sound(
    element,
    position: Fraction,
    marks: Marks,
    out: list[Direction],
    left_out: LeftOut,
    staff: str = "",
    tempo_name: str = HIDDEN,
):
    """A ``<sound>`` element; ``tempo_name`` is how its tempo looks, see :mod:`score.tempi`."""
    passes = numbers(element.get("time-only", ""))

    def add(kind: str, value, name: str = "", rank: int = 0):
        out.append(Direction(position, kind, value, staff, name, rank, passes))

    tempo = None if element.get("tempo") is None else tempo_of(element.get("tempo"), left_out)
    if tempo is not None:
        add("tempo", tempo, tempo_name, rank=3)
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


def _words(text: str, position: Fraction, out: list[Direction], left_out: LeftOut, tempo_known: bool):
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
    tempo = None if tempo_known else words_tempo(text, left_out)
    if tempo is not None:
        out.append(Direction(position, "tempo", tempo, rank=1))


def _amount(text: str, low: float, high: float) -> float:
    value = amount(text, low, high)
    if value is None:
        raise BadScore(f"has {text.strip()[:30]!r} where a number belongs; export it again")
    return value
