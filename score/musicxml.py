"""MusicXML 3.1 and 4.0 -> what is written.

A cursor goes through each part's measures as the format prescribes (``duration``, ``backup``, ``forward``, ``chord``).
What does not sound is passed over: cue notes, slash heads, lyrics, figured bass, layout. ``octave-shift`` and octave
clefs change nothing, since MusicXML writes pitches as they sound there; ``transpose`` does.
"""

from __future__ import annotations

import math
from fractions import Fraction

import regex

from score.directions import read_direction, read_dynamics, read_sound
from score.instruments import drum_at, sounds_of
from score.notations import STEPS, Glides, Ornaments, key_signature, read_roll, semitones, share_marks
from score.percents import Percents
from score.performance import DEFAULT_METER, BadScore, LeftOut, check_count
from score.repeats import Signs, numbers
from score.sheet import Chord, Grace, Measure, Sheet, Sound, Written

MAX_QUARTERS = 100_000  # of a measure
MAX_MEASURES = 20_000
# Shares of the written length: staccato half (MuseScore), staccatissimo a third, portato three quarters.
_GATES = {"staccato": 0.5, "spiccato": 0.5, "staccatissimo": 1 / 3, "detached-legato": 0.75}
# Added to the velocity: music21's volume shifts of 0.1 and 0.15, of 127.
_ACCENTS = {"accent": 13, "strong-accent": 19, "stress": 13, "unstress": -13, "soft-accent": 6}
_LENGTHS = {
    "1024th": 8, "512th": 7, "256th": 6, "128th": 5, "64th": 4, "32nd": 3, "16th": 2, "eighth": 1, "quarter": 0,
    "half": -1, "whole": -2, "breve": -3, "long": -4, "maxima": -5,
}  # fmt: skip


def read_sheet(root) -> Sheet:
    """A ``<score-partwise>`` element as a sheet.

    Raises:
        BadScore: no notes, broken numbers, or beyond the limits.
    """
    check_count(sum(1 for _ in root.iter("note")) or sum(1 for _ in root.iter("harmony")))
    headers = {part.get("id", ""): part for part in root.iter("score-part")}
    names = {part.findtext("part-name", "").strip().lower() for part in headers.values()}
    sheet = Sheet([], [])
    signs = Signs(sheet.left_out)
    for index, part in enumerate(root.findall("part")):
        header = headers.get(part.get("id", ""))
        sheet.sounds.append({"": Sound()} if header is None else sounds_of(header, names))
        measures = part.findall("measure")
        if len(measures) > MAX_MEASURES:
            raise BadScore(f"has {len(measures)} measures; at most {MAX_MEASURES} are played, shorten it")
        while len(sheet.measures) < len(measures):
            sheet.measures.append(Measure())
        reader = _PartReader(index, sheet.sounds[-1], signs, sheet.left_out)
        for element, measure in zip(measures, sheet.measures, strict=False):
            reader.read(element, measure)
    rest = None  # of the bar that the measure before has begun
    for measure in sheet.measures:
        measure.meter = measure.meter or DEFAULT_METER
        bar = Fraction(4 * measure.meter[0], measure.meter[1])
        if measure.length == 0:  # nothing written in any part
            measure.length = bar
        if measure.length < bar and rest in (None, measure.length):  # at the beginning, or behind a repeat in a bar
            measure.missing = bar - measure.length
        rest = bar - measure.length if not measure.missing else Fraction(0)
    signs.place(sheet)
    return sheet


class _PartReader:
    """Goes through the measures of one part, with what holds on from one to the next."""

    def __init__(self, index: int, sounds: dict[str, Sound], signs: Signs, left_out: LeftOut):
        self.index, self.sounds, self.signs, self.left_out = index, sounds, signs, left_out
        self.divisions = Fraction(1)
        self.meter: tuple[int, int] | None = None
        self.transposition: dict[str, int] = {}  # semitones, by staff
        self.doubling: dict[str, int] = {}  # an octave, by staff
        self.percents = Percents(left_out)
        self.keys: dict[str, dict[int, float]] = {}  # alterations by step, by staff
        self.ornaments, self.glides = Ornaments(), Glides()
        self.trilling: dict[str, bool] = {}  # whether the last note of a voice is trilled

    def read(self, element, measure: Measure):
        """One ``<measure>`` into ``measure``."""
        self.measure, self.position, self.furthest = measure, Fraction(0), Fraction(0)
        self.chords: list[Chord] = measure.chords.setdefault(self.index, [])
        self.directions = measure.directions.setdefault(self.index, [])
        self.graces: dict[str, list[Grace]] = {}
        self.last: Chord | Grace | None = None
        for child in element:
            handler = getattr(self, "_" + str(child.tag).replace("-", "_"), None)
            if child.tag in _HANDLED and handler is not None:
                handler(child)
        for voice, graces in self.graces.items():  # after the last note of the voice
            owner = next((c for c in reversed(self.chords) if c.voice == voice and c.notes), None)
            if owner is not None:
                owner.after.extend(graces)
                self._terminate(voice, graces)
        share_marks(self.chords)
        self.ornaments.read(self.chords, self.keys)
        measure.chords[self.index] = self.percents.filled(self.chords, self.furthest, self.meter or DEFAULT_METER)
        measure.length = max(measure.length, self.furthest)
        measure.meter = measure.meter or self.meter

    def _quarters(self, element, path: str = "duration", least: int | None = 0) -> Fraction | None:
        """A number of divisions as quarters."""
        text = element.findtext(path) if path else element.text
        if text is None or not text.strip():
            return None
        divisions = _fraction(text, path or element.tag)
        if least is not None and divisions < least:
            raise BadScore(f"has a negative <{path or element.tag}> ({text.strip()[:30]}); export it again")
        return divisions / self.divisions

    def _move(self, quarters: Fraction):
        self.position = max(Fraction(0), self.position + quarters)
        if self.position > MAX_QUARTERS:
            raise BadScore(f"has a measure of {float(self.position):.3g} quarters; at most {MAX_QUARTERS} are played")
        self.furthest = max(self.furthest, self.position)

    def _backup(self, element):
        self._move(-(self._quarters(element) or Fraction(0)))
        self.last = None

    def _forward(self, element):
        self._move(self._quarters(element) or Fraction(0))
        self.last = None

    def _attributes(self, element):
        divisions = element.findtext("divisions")
        if divisions is not None:
            self.divisions = _fraction(divisions, "divisions")
            if self.divisions <= 0:
                raise BadScore(f"has {divisions.strip()[:30]!r} divisions of a quarter; export it again")
        time = element.find("time")
        if time is not None and time.find("beats") is not None:
            self.meter = _meter(time)
        for key in element.findall("key"):
            self.keys[key.get("number", "")] = key_signature(key)
        for style in element.findall("measure-style"):
            self.percents.read(style, self.position)
        for transpose in element.findall("transpose"):
            staff = transpose.get("number", "")
            chromatic = _integer(transpose.findtext("chromatic"), 60)
            self.transposition[staff] = chromatic + 12 * _integer(transpose.findtext("octave-change"), 5)
            double = transpose.find("double")
            self.doubling[staff] = 0 if double is None else 12 if double.get("above") == "yes" else -12

    def _barline(self, element):
        begun = self.position > 0 or bool(self.chords)
        self.signs.read(element, self.index, self.percents.n_measures, self.measure, self.position, begun)

    def _marks(self, position: Fraction):
        """Where the measure leads, or the part of it that this position is in."""
        begun = [at for at in self.measure.later if at <= position]
        return self.measure.later[max(begun)] if begun else self.measure.marks

    def _harmony(self, element):
        offset = self._quarters(element, "offset", None) or Fraction(0)
        at = max(Fraction(0), self.position + offset)
        self.measure.harmonies.setdefault(self.index, []).append((at, element))

    def _direction(self, element):
        offset = element.find("offset")
        shift = Fraction(0)
        if offset is not None and offset.get("sound") == "yes":
            shift = self._quarters(offset, "", None) or shift
        at = max(Fraction(0), self.position + shift)
        own = self._quarters(element, "sound/offset", None)
        sound_at = at if own is None else max(Fraction(0), self.position + own)
        first = at == 0 and self.percents.n_measures == 0
        read_direction(element, at, sound_at, self._marks(at), self.directions, self.left_out, first)

    def _sound(self, element):
        shift = self._quarters(element, "offset", None) or Fraction(0)
        at = max(Fraction(0), self.position + shift)
        read_sound(element, at, self._marks(at), self.directions, self.left_out)

    def _note(self, element):
        grace, in_chord = element.find("grace"), element.find("chord") is not None
        voice, staff = element.findtext("voice", "1"), element.findtext("staff", "")
        notations = element.findall("notations")
        if grace is not None:
            self._grace(element, grace, in_chord, voice, staff, notations)
            return
        length = self._quarters(element)
        if length is None:
            length = _by_type(element)
        rest = element.find("rest")
        if rest is not None and rest.get("measure") == "yes" and self.meter is not None and self.position == 0:
            length = min(length, Fraction(4 * self.meter[0], self.meter[1]))  # some write four quarters in any meter
        if in_chord and isinstance(self.last, Chord):
            chord = self.last
            if length != chord.length:  # a shorter or longer note of the same chord
                chord = Chord(chord.position, length, [], voice, staff)
                self.chords.append(chord)
        else:
            dotted = element.find("dot") is not None
            chord = Chord(self.position, length, [], voice, staff, dotted, before=self._graces_before(voice))
            self.chords.append(chord)
            self._move(length)
            self.last = chord
        chord.fermata |= any(n.find("fermata") is not None for n in notations)
        written = self._written(element, staff, notations, chord.position)
        chord.notes.extend(written)
        chord.signs.extend(sign for n in notations for group in n.findall("ornaments") for sign in group)
        tags = {sign.tag for sign in chord.signs}
        tied = any(note.tie_stop for note in written)
        goes_on = self.trilling.get(voice, False) and (in_chord or tied or "wavy-line" in tags)
        self.trilling[voice] = "trill-mark" in tags or goes_on
        tremolo = next((sign for sign in chord.signs if sign.tag == "tremolo"), None)
        if tremolo is not None and tremolo.get("type") in ("start", "stop"):
            chord.alternates = tremolo.get("type") == "stop"
            chord.alternation = None if chord.alternates else _strokes(element, tremolo)
        self.glides.read(notations, written)

    def _graces_before(self, voice: str) -> list[Grace]:
        """The grace notes of the next chord; those that end a trill in this measure are given to that."""
        graces = self.graces.pop(voice, [])
        before = next((c for c in reversed(self.chords) if c.voice == voice), None) if graces else None
        if before is None or not self._terminate(voice, graces):
            return graces
        before.after.extend(graces)
        return []

    def _terminate(self, voice: str, graces: list[Grace]) -> bool:
        """Whether grace notes end the trill before them, of which they are a part then."""
        plain = not any(g.slashed or g.steal_previous is not None or g.steal_following is not None for g in graces)
        ends = bool(graces) and plain and self.trilling.get(voice, False)
        for grace in graces:
            grace.ends_trill = ends
        return ends

    def _grace(self, element, grace, in_chord, voice, staff, notations):
        notes = self._written(element, staff, notations, self.position)
        if in_chord and isinstance(self.last, Grace):
            self.last.notes.extend(notes)
            return
        previous, following = (_share(grace.get(f"steal-time-{which}")) for which in ("previous", "following"))
        self.last = Grace(notes, _by_type(element), grace.get("slash") == "yes", previous, following)
        self.graces.setdefault(voice, []).append(self.last)

    def _written(self, element, staff: str, notations, position: Fraction) -> list[Written]:
        """The sounding heads of a ``<note>``: none, one, or two where a part doubles at the octave."""
        for notation in notations:
            for dynamics in notation.findall("dynamics"):
                read_dynamics(dynamics, position, staff, None, self.directions)
        head = element.findtext("notehead", "")
        if element.find("rest") is not None or element.find("cue") is not None or head.strip() == "slash":
            return []
        of = element.find("instrument")
        name = of.get("id", "") if of is not None else ""
        if name not in self.sounds:
            name = next(iter(self.sounds))
        pitch = self._pitch(element, staff, self.sounds[name])
        if pitch is None:
            return []
        ties = {tie.get("type") for tie in element.findall("tie")}
        ties = ties or {tied.get("type") for notation in notations for tied in notation.findall("tied")}
        written = Written(pitch, name, "start" in ties, "stop" in ties)
        for notation in notations:
            for mark in (m for group in notation.findall("articulations") for m in group):
                written.gate = min(written.gate, _GATES.get(mark.tag, 1.0))
                written.accent += _ACCENTS.get(mark.tag, 0)
            tremolo = notation.find("ornaments/tremolo")
            if tremolo is not None and tremolo.get("type", "single") in ("single", "unmeasured"):
                written.stroke = written.stroke or _strokes(element, tremolo)
        written.roll, written.spelled = read_roll(notations), _spelled(element)
        if element.get("dynamics"):
            written.velocity = 0.9 * _finite(element.get("dynamics"), "dynamics")
        written.attack, written.release = (
            None if element.get(key) is None else _fraction(element.get(key), key) / self.divisions
            for key in ("attack", "release")
        )
        written.passes = numbers(element.get("time-only", ""))
        if element.get("pizzicato"):
            written.pizzicato = element.get("pizzicato") == "yes"
        octave = self.doubling.get(staff, self.doubling.get("", 0))
        if not octave:
            return [written]
        from dataclasses import replace

        return [written, replace(written, pitch=pitch + octave)]

    def _pitch(self, element, staff: str, sound: Sound) -> float | None:
        pitch, unpitched = element.find("pitch"), element.find("unpitched")
        if sound.key is not None and (sound.drums or unpitched is not None):
            return sound.key
        if pitch is not None:
            step, octave = (pitch.findtext("step") or "").strip(), (pitch.findtext("octave") or "").strip()
            if step not in tuple(STEPS) or not regex.fullmatch(r"-?\d{1,2}", octave):
                raise BadScore(f"has a note with the pitch {step[:20]!r} {octave[:20]!r}; export it again")
            alter = _finite(pitch.findtext("alter") or "0", "alter")
            shift = 0 if sound.drums else self.transposition.get(staff, self.transposition.get("", 0))
            sounding = semitones(7 * int(octave) + STEPS.index(step), alter) + shift
            if not 0 <= sounding <= 127:
                raise BadScore(f"has a note ({step}{octave}) that is too low or too high to be heard; export it again")
            return sounding
        if unpitched is not None:
            sound.drums = True  # whatever its name
            return drum_at(unpitched.findtext("display-step", "").strip(), unpitched.findtext("display-octave", ""))
        return None


_HANDLED = {"note", "backup", "forward", "attributes", "barline", "direction", "sound", "harmony"}


def _meter(time) -> tuple[int, int]:
    """Of composite times the sum: 3+2/8 is 5/8, 2/4 + 3/8 is 7/8."""
    tops, bottoms = [e.text or "" for e in time.findall("beats")], [e.text or "" for e in time.findall("beat-type")]
    pairs = []
    for top, bottom in zip(tops, bottoms, strict=False):
        beats, unit = sum(int(n) for n in regex.findall(r"\d{1,3}", top)), _integer(bottom, 1024)
        if beats < 1 or unit < 1:
            raise BadScore(f"has a time signature of {top[:20]!r}/{bottom[:20]!r}; export it again")
        pairs.append((beats, unit))
    if not pairs:
        raise BadScore("has a time signature without a number below; export it again")
    unit = math.lcm(*(unit for _, unit in pairs))
    return sum(beats * unit // below for beats, below in pairs), unit


def _by_type(element) -> Fraction:
    """The length of a note's head and dots, in quarters; an eighth where it has no type."""
    length = Fraction(1, 2) ** _LENGTHS.get(element.findtext("type", "eighth").strip(), 1)
    return length * (2 - Fraction(1, 2) ** min(4, len(element.findall("dot"))))


def _spelled(element) -> tuple[int, float] | None:
    """Place on the stave and alteration; None of what has no pitch, or none that can be read (it is a drum's)."""
    step = (element.findtext("pitch/step") or "").strip()
    octave = (element.findtext("pitch/octave") or "").strip()
    if step not in tuple(STEPS) or not regex.fullmatch(r"-?\d{1,2}", octave):
        return None
    return 7 * int(octave) + STEPS.index(step), _finite(element.findtext("pitch/alter") or "0", "alter")


def _strokes(element, tremolo) -> Fraction | None:
    """The strokes of a tremolo: each slash halves, as each flag of the note does; without measure three slashes."""
    slashes = 3 if tremolo.get("type") == "unmeasured" else min(5, _integer(tremolo.text, 8))
    flags = max(0, min(4, _LENGTHS.get(element.findtext("type", "quarter").strip(), 0)))
    return Fraction(1, 2) ** (slashes + flags) if slashes > 0 else None


def _fraction(text: str, what: str) -> Fraction:
    value = _finite(text, what)
    if abs(value) > 1e15:
        raise BadScore(f"has {text.strip()[:30]!r} as {what}; export it again")
    return (
        Fraction(text.strip())
        if regex.fullmatch(r"\s*-?\d{1,15}\s*", text)
        else Fraction(value).limit_denominator(10**6)
    )


def _finite(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadScore(f"has {text.strip()[:30]!r} as {what}, which is no number; export it again")
    return value


def _integer(text: str | None, limit: int) -> int:
    """0 where there is none; cut at ``limit``."""
    match = regex.match(r"\s*([-+]?\d{1,9})", text or "")
    return max(-limit, min(limit, int(match[1]))) if match else 0


def _share(text: str | None) -> float | None:
    return None if not text else max(0.0, min(0.9, _finite(text, "steal-time") / 100))
