"""Ornaments, arpeggios and glissandi of MusicXML -> what is to be played for them.

``<mordent>`` is the sign with a vertical line, which goes down, ``<inverted-mordent>`` goes up. Neighbours are those of
the key signature and of accidentals before them in the measure; ``<accidental-mark>`` comes before these, and
``trill-step`` before all. ``start-note``, ``two-note-turn``, ``beats``, ``second-beat``, ``last-beat`` and
``accelerate`` are followed where they are given; their defaults in the format (MuseData's) are not.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from score.sheet import Chord, Ornament, Written

STEPS = "CDEFGAB"
SEMITONES = (0, 2, 4, 5, 7, 9, 11)
_SHARPS = "FCGDAEB"
_TURNS = {"turn": 1, "vertical-turn": 1, "haydn": 1, "delayed-turn": 1}
_TURNS |= {"inverted-turn": -1, "inverted-vertical-turn": -1, "delayed-inverted-turn": -1}
_MORDENTS = {"mordent": -1, "inverted-mordent": 1, "shake": 1}
_INTERVALS = {"whole": 2.0, "half": 1.0, "unison": 0.0}
_ALTERATIONS = {
    "sharp": 1, "natural": 0, "flat": -1, "double-sharp": 2, "sharp-sharp": 2, "flat-flat": -2, "natural-sharp": 1,
    "natural-flat": -1, "quarter-sharp": 0.5, "quarter-flat": -0.5, "three-quarters-sharp": 1.5,
    "three-quarters-flat": -1.5,
}  # fmt: skip
_SOUNDS = ("start-note", "trill-step", "two-note-turn", "beats", "second-beat", "last-beat", "accelerate")
MAX_BEATS = 256


def semitones(place: int, alteration: float) -> float:
    """MIDI note number of a place on the stave."""
    return 12 * (place // 7 + 1) + SEMITONES[place % 7] + alteration


def key_signature(element) -> dict[int, float]:
    """A ``<key>`` as alterations by step (0: C); empty for what cannot be read."""
    steps = [(e.text or "").strip() for e in element.findall("key-step")]
    alters = [(e.text or "").strip() for e in element.findall("key-alter")]
    try:
        if steps:
            return {STEPS.index(s): max(-2.0, min(2.0, float(a))) for s, a in zip(steps, alters, strict=True) if s}
        fifths = max(-7, min(7, int(element.findtext("fifths", "0"))))
    except ValueError:
        return {}
    sharpened = _SHARPS[:fifths] if fifths >= 0 else _SHARPS[fifths:]
    return {STEPS.index(step): 1.0 if fifths > 0 else -1.0 for step in sharpened}


class Ornaments:
    """Reads the signs of a part, measure by measure; remembers wavy lines."""

    def __init__(self):
        self.waves: dict[str, _Wave] = {}  # of trills that go on, by voice

    def read(self, chords: list[Chord], keys: dict[str, dict[int, float]]):
        """Set :attr:`Written.ornament` in a measure.

        Args:
            chords: of the measure.
            keys: :func:`key_signature` by staff, "" for all.
        """
        if not self.waves and not any(chord.signs for chord in chords):
            return
        accidentals = _accidentals(chords)

        def alteration(place: int, staff: str, position: Fraction) -> float:
            marks = accidentals.get((staff, place), ())
            i = bisect.bisect_right(marks, (position, 9.0)) - 1
            return marks[i][1] if i >= 0 else keys.get(staff, keys.get("", {})).get(place % 7, 0.0)

        for chord in sorted(chords, key=lambda c: c.position):
            if chord.notes:
                self._read(chord, alteration)

    def _read(self, chord: Chord, alteration: Callable):
        signs = {sign.tag: sign for sign in chord.signs}
        line = signs.get("wavy-line")
        kinds = {sign.get("type") for sign in chord.signs if sign.tag == "wavy-line"}
        wave = self.waves.get(chord.voice)
        main = _ornamented(chord, signs)
        neighbours = _Neighbours(main, chord, alteration)
        trill = signs.get("trill-mark")
        if trill is None and line is not None and "start" in kinds and any(line.get(key) for key in _SOUNDS):
            trill = line
        if trill is not None:
            _give(chord, main, neighbours.trill(trill, chord.signs))
        elif wave is not None and "start" not in kinds:
            wave.under.append((chord, main, neighbours))
        else:
            for tag, sign in signs.items():
                found = neighbours.other(tag, sign, chord.signs)
                if found is not None:
                    _give(chord, main, found)
                    break
        if wave is not None and kinds & {"stop", "continue"}:  # so the line is over what lies between
            for below, note, around in wave.under:
                _give(below, note, around.trill(wave.sign, below.signs))
            wave.under.clear()
        if trill is not None and "start" in kinds:
            self.waves[chord.voice] = _Wave(trill, [])
        if "stop" in kinds and self.waves.pop(chord.voice, None) is not None:
            for note in chord.notes:
                note.line_ends = True


@dataclass(slots=True)
class _Wave:
    sign: object
    under: list[tuple[Chord, Written, _Neighbours]]  # chords that have no sign themselves


def _accidentals(chords: list[Chord]) -> dict[tuple[str, int], list[tuple[Fraction, float]]]:
    """(position, alteration) in order, by staff and place. A tie takes its accidental no further than its note."""
    found: dict[tuple[str, int], list[tuple[Fraction, float]]] = {}
    for chord in chords:
        for note in [*(note for grace in chord.before for note in grace.notes), *chord.notes]:
            if note.spelled is not None and not note.tie_stop:
                found.setdefault((chord.staff, note.spelled[0]), []).append((chord.position, note.spelled[1]))
    for marks in found.values():
        marks.sort(key=lambda mark: mark[0])
    return found


def _ornamented(chord: Chord, signs: dict) -> Written:
    """The note of a chord that a sign belongs to: the highest, the lowest where the sign stands below."""
    below = any(sign.get("placement") == "below" for tag, sign in signs.items() if tag != "accidental-mark")
    return (min if below else max)(chord.notes, key=lambda note: note.pitch)


def _give(chord: Chord, main: Written, ornament: Ornament):
    for note in chord.notes:  # a part that doubles at the octave has two
        if note is main or (note.spelled is not None and note.spelled == main.spelled):
            note.ornament = ornament


class _Neighbours:
    """Ornaments of one note."""

    def __init__(self, main: Written, chord: Chord, alteration: Callable):
        self.main, self.chord, self.alteration = main, chord, alteration

    def away(self, steps: int, marks: dict[str, float], interval: str | None = None) -> float:
        """Semitones to what lies ``steps`` on the stave away; at least one for each."""
        sign = 1 if steps > 0 else -1
        if self.main.spelled is None:  # a drum: a roll
            return 0.0
        if interval in _INTERVALS:
            return sign * _INTERVALS[interval]
        place, alteration = self.main.spelled
        place += steps
        other = marks.get("above" if steps > 0 else "below")
        if other is None:
            other = self.alteration(place, self.chord.staff, self.chord.position)
        return sign * max(abs(steps), sign * (semitones(place, other) - semitones(place - steps, alteration)))

    def trill(self, sign, signs) -> Ornament:
        """``signs`` are all of its chord."""
        marks = _marks(signs, "above")
        upper = self.away(1, marks, sign.get("trill-step"))
        cycle, notes = (0.0, upper), ()
        if sign.get("start-note") == "upper":
            cycle = (upper, 0.0)
        elif sign.get("start-note") == "below":
            notes = (self.away(-1, {}),)
        return _with_sound(Ornament(notes, cycle), sign, self._suffix(sign))

    def other(self, tag: str, sign, signs) -> Ornament | None:
        """None for what is no ornament that is known."""
        if tag in _MORDENTS:
            direction = _MORDENTS[tag]
            marks = _marks(signs, "above" if direction > 0 else "below")
            away = self.away(direction, marks, sign.get("trill-step"))
            n = 5 if tag == "shake" or sign.get("long") == "yes" else 3
            begun = {"main": False, "upper": direction > 0, "below": direction < 0}.get(sign.get("start-note"), False)
            n = _count(sign) or n + begun
            return _with_sound(Ornament(tuple(away * ((i + begun) % 2) for i in range(n))), sign, self._suffix(sign))
        if tag in _TURNS:
            direction = -_TURNS[tag] if sign.get("slash") == "yes" else _TURNS[tag]
            marks = _marks(signs)
            up, down = self.away(1, marks, sign.get("trill-step")), self.away(-1, marks)
            first, third = (up, down) if direction > 0 else (down, up)
            notes = (first, 0.0, third, 0.0)
            notes = (0.0, *notes) if sign.get("start-note") == "main" else notes
            return _with_sound(Ornament(notes, delayed=tag.startswith("delayed")), sign, ())
        if tag == "schleifer":
            return Ornament((self.away(-2, {}), self.away(-1, {}), 0.0))
        return None

    def _suffix(self, sign) -> tuple[float, ...]:
        turn = sign.get("two-note-turn")
        return (-_INTERVALS[turn], 0.0) if turn in ("whole", "half") else ()


def _marks(signs, only: str | None = None) -> dict[str, float]:
    """Alterations by ``<accidental-mark>``, above and below; all are of the neighbour ``only`` where there is one."""
    found: dict[str, float] = {}
    for sign in signs:
        if sign.tag == "accidental-mark" and (sign.text or "").strip() in _ALTERATIONS:
            found.setdefault(only or sign.get("placement", "above"), _ALTERATIONS[sign.text.strip()])
    return found


def _with_sound(ornament: Ornament, sign, suffix: tuple[float, ...]) -> Ornament:
    beats = _count(sign) if ornament.cycle else None
    second, last = (_percent(sign.get(key)) for key in ("second-beat", "last-beat"))
    quicker = sign.get("accelerate") == "yes"
    return replace(ornament, suffix=suffix, beats=beats, second=second, last=last, accelerate=quicker)


def _count(sign) -> int | None:
    number = _number(sign.get("beats"))
    return None if number is None else round(max(2, min(MAX_BEATS, number)))


def _percent(text: str | None) -> float | None:
    number = _number(text)
    return None if number is None else max(0.0, min(100.0, number)) / 100


def _number(text: str | None) -> float | None:
    """None for what is no number: a sign that cannot be read is played by the convention."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None


class Glides:
    """Pairs the beginnings and ends of ``<glissando>`` and ``<slide>`` in a part."""

    def __init__(self):
        self.begun: dict[tuple[str, str], list[Written]] = {}

    def read(self, notations, notes: list[Written]):
        """The lines that end and begin at the heads ``notes`` of one ``<note>``."""
        marks = [mark for mark in _children(notations) if mark.tag in ("glissando", "slide")]
        for mark in sorted(marks, key=lambda mark: mark.get("type") != "stop"):
            key = (mark.tag, mark.get("number", "1"))
            if mark.get("type") == "stop":
                for before, here in zip(self.begun.pop(key, ()), notes, strict=False):
                    before.glide = (mark.tag, here.pitch)
            elif mark.get("type") == "start":
                self.begun[key] = notes


def read_roll(notations) -> tuple[str, bool, bool] | None:
    """An ``<arpeggiate>``: its number, whether it goes down, and whether it is said to go on over staves."""
    for mark in _children(notations):
        if mark.tag == "arpeggiate":
            return mark.get("number", ""), mark.get("direction") == "down", mark.get("unbroken") == "yes"
    return None


def _children(notations) -> Iterator:
    for notation in notations:
        yield from notation


def share_marks(chords: list[Chord]):
    """Articulations and tremolos belong to a chord; they stand at its first note, or at every one. A tremolo that
    begins with a chord and ends with none is on it alone."""
    ends = {(chord.voice, chord.position) for chord in chords if chord.alternates}
    for chord in chords:
        if chord.alternation is not None and (chord.voice, chord.position + chord.length) not in ends:
            for note in chord.notes:
                note.stroke = chord.alternation
        if len(chord.notes) > 1:
            gate = min(note.gate for note in chord.notes)
            accent = max((note.accent for note in chord.notes), key=abs)
            stroke = next((note.stroke for note in chord.notes if note.stroke), None)
            for note in chord.notes:
                note.gate, note.accent, note.stroke = gate, accent, stroke
