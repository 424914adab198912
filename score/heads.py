"""What a note head sounds as: its pitch, or which drum it is, and which instrument plays it.

A note without pitch is a drum's, for itself alone: in a part of drums, and on a stave with the percussion clef, by its
instrument or by its place and head; anywhere else it is a noise (a side stick), and what has a pitch beside it keeps
the part's instrument. Where drum notes name no instrument, the part's own drums come before the usual ones of a place:
first the instrument that other notes at this place name, then the drums that the part list declares. Bongos, congas and
the like are one instrument of two drums: the place on the stave tells whether it is the high or the low one.
"""

from __future__ import annotations

import regex

from score.instruments import drum_at, is_kit, noise, of_pair
from score.notations import STEPS, key_signature, semitones
from score.performance import LeftOut
from score.sheet import Sound
from score.values import finite, integer, ordinal

NOISE = "without pitch: "  # before an instrument's id: what is no pitch in its part, see :mod:`score.sounds`
UNREADABLE = "{n} note{s} whose pitch cannot be read"
UNHEARD = "{n} note{s} too low or too high to be heard"
_D4, _A4, _C6 = 29, 33, 42  # places on the stave; as keys, A4 and what is above are drums of Latin America
_OCTAVE = regex.compile(r"-?\d{1,2}")
_LOWEST_LINES = {"G": 30, "F": 18, "C": 24}  # place of the lowest line under a clef on its usual line
_USUAL_LINES = {"G": 2, "F": 4, "C": 3}


class Staves:
    """What holds on from measure to measure on each stave of a part: transposition, doubling, key, clef. Without a
    number it holds on all of them, and replaces what stood there."""

    def __init__(self, concert: bool):
        """``concert``: the score is written at sounding pitch, but for octaves (``<concert-score>``)."""
        self.concert = concert
        self.transposition: dict[str, int] = {}  # semitones
        self.doubling: dict[str, int] = {}  # semitones
        self.keys: dict[str, dict[int, float]] = {}  # alterations by step
        self.clefs: dict[str, tuple[str, int]] = {}  # sign, and how far below the treble clef's its places are

    def read(self, attributes):
        """An ``<attributes>`` element."""
        for key in attributes.findall("key"):
            _set(self.keys, key, key_signature(key))
        for transpose in attributes.findall("transpose"):
            chromatic = 0 if self.concert else integer(transpose.findtext("chromatic"), 60)
            _set(self.transposition, transpose, chromatic + 12 * integer(transpose.findtext("octave-change"), 5))
            double = transpose.find("double")
            _set(self.doubling, transpose, 0 if double is None else 12 if double.get("above") == "yes" else -12)
        for clef in attributes.findall("clef"):
            sign = (clef.findtext("sign") or "").strip()
            line = integer(clef.findtext("line"), 9) or _USUAL_LINES.get(sign, 2)
            below = 0
            if sign in _LOWEST_LINES:
                lowest = _LOWEST_LINES[sign] - 2 * (line - _USUAL_LINES[sign])
                below = 30 - lowest - 7 * integer(clef.findtext("clef-octave-change"), 3)
            self.clefs[ordinal(clef.get("number"))] = sign, below

    def of(self, values: dict, staff: str, default):
        """What holds on a stave."""
        return values.get(staff, values.get("", default))


def _set(values: dict, element, value):
    number = element.get("number")
    if number is None or not number.strip():
        values.clear()
        values[""] = value
    else:
        values[ordinal(number)] = value


class Heads:
    """Tells what each note head of one part sounds as."""

    def __init__(self, part, sounds: dict[str, Sound], kit: bool, left_out: LeftOut):
        """
        Args:
            sounds: the part's instruments by id, the first is its own.
            kit: whether the part's name says that it is several drums.
            left_out: notes that cannot be played are counted here.
        """
        self.sounds, self.kit, self.left_out = sounds, kit, left_out
        self.own = next(iter(sounds))
        self.single = len(sounds) == 1
        self.declared = {sound.key: name for name, sound in reversed(sounds.items()) if sound.key is not None}
        notes = part.findall("measure/note")
        self.pitched = any(note.find("pitch") is not None for note in notes)
        # Whether the pitches of drums are places on a stave with a treble clef, where they are no General MIDI keys.
        places = {spelled(note) for note in notes if note.find("pitch") is not None}
        self.on_stave = all(p is not None and p[1] == 0 and _D4 <= p[0] <= _C6 for p in places)
        self.on_stave &= any(p is not None and p[0] >= _A4 for p in places)
        self.known: dict[tuple[int, str], str] = {}  # instruments by place and head, of notes that name theirs
        drums = [_place(note.find("unpitched"), "display-") for note in notes]
        drums = [place for place in drums if place is not None]
        self.middle = (min(drums) + max(drums)) / 2 if len(set(drums)) > 1 else None  # of the places of drums
        for note in notes:
            name, place = named(note), _place(note.find("unpitched"), "display-")
            if name in sounds and place is not None:
                self.known.setdefault((place, _head(note)), name)

    def sounding(self, element, staff: str, staves: Staves) -> tuple[float, str] | None:
        """Pitch (a General MIDI key, of drums) and instrument of a note; None for what does not sound."""
        pitch, unpitched = element.find("pitch"), element.find("unpitched")
        name = named(element)
        names_none = name not in self.sounds
        name = self.own if names_none else name
        sound = self.sounds[name]
        sign, below = staves.clefs.get(staff, ("", 0))
        percussion = sign == "percussion"
        if pitch is not None:
            place, alter = _place(pitch), finite(pitch.findtext("alter") or "0")
            if place is None or alter is None:
                self.left_out[UNREADABLE] += 1
                return None
            if sound.drums and sound.key is not None and (not names_none or self.single):
                return sound.key, name
            key = semitones(place, alter)
            if sound.drums and names_none and key in self.declared:
                return key, self.declared[key]
            if (percussion and (sound.drums or not sound.said)) or (sound.drums and (self.on_stave or self.declared)):
                return self._drum(element, place, name, names_none)
            sounding = key + (0 if sound.drums else staves.of(staves.transposition, staff, 0))
            if not 0 <= sounding <= 127:
                self.left_out[UNHEARD] += 1
                return None
            return sounding, name
        if unpitched is None:
            return None
        place = _place(unpitched, "display-")
        place = None if place is None else place + below
        if sound.key is not None and not names_none:
            return sound.key, name if sound.drums else NOISE + name
        if sound.drums or percussion or not self.pitched:
            return self._drum(element, place, name, names_none)
        return (noise() if sound.key is None else sound.key), NOISE + name

    def _drum(self, element, place: int | None, name: str, names_none: bool) -> tuple[float, str]:
        """The drum at a place of the stave, as if it had a treble clef."""
        head = _head(element)
        if names_none and (place, head) in self.known:
            name = self.known[place, head]
            if self.sounds[name].key is not None:
                return self._by(name, self.sounds[name].key)
        elif names_none and self.declared and self.single and not self.kit:
            key = self.sounds[name].key
            if place is not None and self.middle is not None:
                key = of_pair(key, place > self.middle)
            return self._by(name, key)
        keys = drum_at(place, head, open_hi_hat=element.find("notations/technical/open") is not None)
        if names_none:
            own = next((self.declared[key] for key in keys if key in self.declared), None)
            if own is not None:
                return self._by(own, self.sounds[own].key)
        return self._by(name, keys[0])

    def _by(self, name: str, key: int) -> tuple[float, str]:
        """A drum played by an instrument; by a drum kit beside it where the instrument is not a drum."""
        return key, name if self.sounds[name].drums else NOISE + name


def named(note) -> str | None:
    """The id of the instrument that a note names."""
    instrument = note.find("instrument")
    return None if instrument is None else (instrument.get("id") or "").strip()


def is_part_kit(header) -> bool:
    """Whether the name in a ``<score-part>`` says that it is several drums."""
    return header is not None and is_kit(header.findtext("part-name") or "")


def _place(element, prefix: str = "") -> int | None:
    """Place on the stave, C0 is 0 and seven an octave; None where there is none that can be read."""
    if element is None:
        return None
    step, octave = ((element.findtext(prefix + name) or "").strip() for name in ("step", "octave"))
    if step not in tuple(STEPS) or not _OCTAVE.fullmatch(octave):
        return None
    return 7 * int(octave) + STEPS.index(step)


def _head(element) -> str:
    return (element.findtext("notehead") or "").strip() or "normal"


def spelled(element) -> tuple[int, float] | None:
    """Place on the stave and alteration; None of what has no pitch, or none that can be read (it is a drum's)."""
    place, alter = _place(element.find("pitch")), finite(element.findtext("pitch/alter") or "0")
    return None if place is None or alter is None else (place, alter)
