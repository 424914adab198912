"""MusicXML 3.1 and 4.0 -> what is written.

A cursor goes through each part's measures as the format prescribes (``duration``, ``backup``, ``forward``, ``chord``).
What does not sound is passed over: cue notes, slash heads, lyrics, figured bass, layout. ``octave-shift`` and octave
clefs change nothing, since MusicXML writes pitches as they sound there; ``transpose`` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import regex

from score.cursor import Cursor
from score.directions import read_direction, read_dynamics, read_sound
from score.heads import Heads, Staves, is_part_kit, spelled
from score.instruments import sounds_of
from score.lengths import FLAGS, Lengths, bar_of, by_type
from score.notations import Glides, Ornaments, read_roll, share_marks
from score.percents import Percents
from score.performance import DEFAULT_METER, BadScore, check_count
from score.repeats import Signs, numbers
from score.sheet import Chord, Grace, Measure, Sheet, Sound, Written
from score.values import finite, integer, ordinal

MAX_MEASURES = 20_000
# Shares of the written length: staccato half (MuseScore), staccatissimo a third, portato three quarters.
_GATES = {"staccato": 0.5, "spiccato": 0.5, "staccatissimo": 1 / 3, "detached-legato": 0.75}
# Added to the velocity: music21's volume shifts of 0.1 and 0.15, of 127.
_ACCENTS = {"accent": 13, "strong-accent": 19, "stress": 13, "unstress": -13, "soft-accent": 6}
_GUESSED = "{n} note{s} as written, whose length nothing tells"
_WITHOUT = "{n} note{s} whose duration is 0"
_BAD_METER = "{n} time signature{s} that cannot be read"


def read_sheet(root) -> Sheet:
    """A ``<score-partwise>`` element as a sheet.

    Raises:
        BadScore: no notes, broken numbers, or beyond the limits.
    """
    check_count(sum(1 for _ in root.iter("note")) or sum(1 for _ in root.iter("harmony")))
    headers = {part.get("id", ""): part for part in root.iter("score-part")}
    names = {part.findtext("part-name", "").strip().lower() for part in headers.values()}
    sheet, parts = Sheet([], []), root.findall("part")
    signs, open_rests = Signs(sheet.left_out), []
    for index, part in enumerate(parts):
        header = headers.get(part.get("id", ""))
        sheet.sounds.append({"": Sound()} if header is None else sounds_of(header, names))
        measures = part.findall("measure")
        if len(measures) > MAX_MEASURES:
            raise BadScore(f"has {len(measures)} measures; at most {MAX_MEASURES} are played, shorten it")
        while len(sheet.measures) < len(measures):
            sheet.measures.append(Measure())
        heads = Heads(part, sheet.sounds[-1], is_part_kit(header), sheet.left_out)
        concert = root.find("defaults/concert-score") is not None
        reader = _PartReader(index, sheet, heads, Lengths(part, parts), signs, concert)
        for element, measure in zip(measures, sheet.measures, strict=False):
            reader.read(element, measure)
            open_rests += reader.open_rests
        sheet.left_out[_GUESSED] += reader.lengths.n_guessed
        sheet.left_out[_WITHOUT] += reader.lengths.n_without
    _close(open_rests)
    rest = None  # of the bar that the measure before has begun
    for measure in sheet.measures:
        measure.meter = measure.meter or DEFAULT_METER
        bar = bar_of(measure.meter)
        if measure.length == 0:  # nothing written in any part
            measure.length = bar
        if measure.length < bar and rest in (None, measure.length):  # at the beginning, or behind a repeat in a bar
            measure.missing = bar - measure.length
        rest = bar - measure.length if not measure.missing else Fraction(0)
    signs.place(sheet)
    return sheet


@dataclass(slots=True, frozen=True)
class _OpenRest:
    """A rest that lasts as long as its bar, which other notes may tell."""

    measure: Measure
    chord: Chord
    length: Fraction | None  # where they do not; None: of the bar by the time signature
    said: Fraction | None  # by its duration
    implicit: bool  # whatever else is in the bar tells its length; else only what agrees with the duration


def _close(open_rests: list[_OpenRest]):
    """Give rests that last as long as their bar its length."""
    told = {id(rest.measure): rest.measure.length for rest in open_rests}
    for rest in open_rests:
        there = told[id(rest.measure)]
        if there == 0 or not (rest.implicit or there == rest.said):
            length = bar_of(rest.measure.meter or DEFAULT_METER) if rest.length is None else rest.length
            rest.measure.length = max(rest.measure.length, length)
    for rest in open_rests:
        rest.chord.length = rest.measure.length


class _PartReader:
    """Goes through the measures of one part, with what holds on from one to the next."""

    def __init__(self, index: int, sheet: Sheet, heads: Heads, lengths: Lengths, signs: Signs, concert: bool):
        self.index, self.left_out, self.signs = index, sheet.left_out, signs
        self.heads, self.lengths, self.staves = heads, lengths, Staves(concert)
        self.percents = Percents(sheet.left_out)
        self.ornaments, self.glides = Ornaments(), Glides()
        self.trilling: dict[str, bool] = {}  # whether the last note of a voice is trilled

    def read(self, element, measure: Measure):
        """One ``<measure>`` into ``measure``."""
        self.measure, self.cursor = measure, Cursor()
        self.chords: list[Chord] = measure.chords.setdefault(self.index, [])
        self.directions = measure.directions.setdefault(self.index, [])
        self.graces: dict[str, list[Grace]] = {}
        self.last: Chord | Grace | None = None
        self.open_rests: list[_OpenRest] = []
        self.lengths.begin(element, measure.meter)
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
        self.ornaments.read(self.chords, self.staves.keys)
        meter = self.lengths.meter or DEFAULT_METER
        measure.chords[self.index] = self.percents.filled(self.chords, self.cursor.furthest, meter)
        measure.length = max(measure.length, self.cursor.furthest)
        measure.meter = measure.meter or self.lengths.meter

    @property
    def position(self) -> Fraction:
        """Quarters from the beginning of the measure."""
        return self.cursor.position

    def _offset(self, element, path: str = "offset") -> Fraction:
        """An offset in quarters; 0 for none, and for what cannot be read."""
        return self.lengths.quarters(element.findtext(path) if path else element.text) or Fraction(0)

    def _backup(self, element):
        quarters = self.lengths.quarters(element.findtext("duration"))
        self.cursor.back(quarters if quarters is not None and quarters >= 0 else None)
        self.last = None

    def _forward(self, element):
        quarters = self.lengths.quarters(element.findtext("duration"))
        if quarters is None or quarters < 0:
            quarters = self.lengths.fill(element, self.position) - self.position
        self.cursor.forward(quarters)
        self.last = None

    def _attributes(self, element):
        self.lengths.tell(element.findtext("divisions"))
        self.staves.read(element)
        time = element.find("time")
        if time is not None and time.find("beats") is not None:
            meter = _meter(time)
            if meter is None:
                self.left_out[_BAD_METER] += 1
            else:
                self.lengths.meter, self.lengths.free = meter, False
        elif time is not None and time.find("senza-misura") is not None:
            self.lengths.free = True
        for style in element.findall("measure-style"):
            self.percents.read(style, self.position)

    def _barline(self, element):
        begun = self.position > 0 or bool(self.chords)
        self.signs.read(element, self.index, self.percents.n_measures, self.measure, self.position, begun)

    def _marks(self, position: Fraction):
        """Where the measure leads, or the part of it that this position is in."""
        begun = [at for at in self.measure.later if at <= position]
        return self.measure.later[max(begun)] if begun else self.measure.marks

    def _harmony(self, element):
        at = max(Fraction(0), self.position + self._offset(element))
        self.measure.harmonies.setdefault(self.index, []).append((at, element))

    def _direction(self, element):
        offset = element.find("offset")
        shift = Fraction(0)
        if offset is not None and offset.get("sound") == "yes":
            shift = self._offset(offset, "")
        at = max(Fraction(0), self.position + shift)
        own = element.find("sound/offset")
        sound_at = at if own is None else max(Fraction(0), self.position + self._offset(own, ""))
        first = at == 0 and self.percents.n_measures == 0
        read_direction(element, at, sound_at, self._marks(at), self.directions, self.left_out, first)

    def _sound(self, element):
        at = max(Fraction(0), self.position + self._offset(element))
        read_sound(element, at, self._marks(at), self.directions, self.left_out)

    def _note(self, element):
        grace, in_chord = element.find("grace"), element.find("chord") is not None
        voice, staff = (element.findtext("voice") or "").strip() or "1", ordinal(element.findtext("staff"))
        notations = element.findall("notations")
        if grace is not None:
            self._grace(element, grace, in_chord, voice, staff, notations)
            return
        before = self.last if in_chord and isinstance(self.last, Chord) else None
        if before is None and self.position == 0 and self.lengths.is_bar_rest(element):
            chord = self._rest_of_bar(element, voice, staff)
        elif before is not None:
            chord, length = before, self.lengths.of(element, before.length)
            if length != chord.length:  # a shorter or longer note of the same chord
                chord = Chord(chord.position, length, [], voice, staff)
                self.chords.append(chord)
        else:
            dotted, length = element.find("dot") is not None, self.lengths.of(element)
            chord = Chord(self.position, length, [], voice, staff, dotted, before=self._graces_before(voice))
            self.chords.append(chord)
            self.cursor.last(length, self.lengths.said(element))
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

    def _rest_of_bar(self, element, voice: str, staff: str) -> Chord:
        length, said, is_open = self.lengths.bar_rest(element)
        moves = length or Fraction(0)
        chord = self.last = Chord(Fraction(0), moves, [], voice, staff, before=self._graces_before(voice))
        self.chords.append(chord)
        # Behind a rest that says no duration every backup leads to the beginning.
        self.cursor.last(moves, said or Fraction(0), furthest=not is_open)
        if is_open:
            implicit = self.lengths.implicit or said is None
            self.open_rests.append(_OpenRest(self.measure, chord, length, said, implicit))
        return chord

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
        self.last = Grace(notes, by_type(element) or Fraction(1, 2), grace.get("slash") == "yes", previous, following)
        self.graces.setdefault(voice, []).append(self.last)

    def _written(self, element, staff: str, notations, position: Fraction) -> list[Written]:
        """The sounding heads of a ``<note>``: none, one, or two where a part doubles at the octave."""
        for notation in notations:
            for dynamics in notation.findall("dynamics"):
                read_dynamics(dynamics, position, staff, None, self.directions)
        head = element.findtext("notehead", "")
        if element.find("rest") is not None or element.find("cue") is not None or head.strip() == "slash":
            return []
        sounding = self.heads.sounding(element, staff, self.staves)
        if sounding is None:
            return []
        pitch, name = sounding
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
        written.roll, written.spelled = read_roll(notations), spelled(element)
        loudness = finite(element.get("dynamics"))
        written.velocity = None if loudness is None else 0.9 * loudness
        written.attack, written.release = (self.lengths.quarters(element.get(key)) for key in ("attack", "release"))
        written.passes = numbers(element.get("time-only", ""))
        if element.get("pizzicato"):
            written.pizzicato = element.get("pizzicato") == "yes"
        octave = self.staves.of(self.staves.doubling, staff, 0)
        doubled = bool(octave) and 0 <= pitch + octave <= 127
        return [written, replace(written, pitch=pitch + octave)] if doubled else [written]


_HANDLED = {"note", "backup", "forward", "attributes", "barline", "direction", "sound", "harmony"}


def _meter(time) -> tuple[int, int] | None:
    """Numerator and denominator; those of composite times are added (3+2/8 is 5/8, 2/4 + 3/8 is 7/8). None where they
    cannot be read."""
    tops, bottoms = [e.text or "" for e in time.findall("beats")], [e.text or "" for e in time.findall("beat-type")]
    pairs = []
    for top, bottom in zip(tops, bottoms, strict=False):
        beats, unit = sum(int(n) for n in regex.findall(r"\d{1,3}", top)), integer(bottom, 1024)
        if beats < 1 or unit < 1:
            return None
        pairs.append((beats, unit))
    if not pairs:
        return None
    unit = math.lcm(*(unit for _, unit in pairs))
    return sum(beats * unit // below for beats, below in pairs), unit


def _strokes(element, tremolo) -> Fraction | None:
    """The strokes of a tremolo: each slash halves, as each flag of the note does; without measure three slashes."""
    slashes = 3 if tremolo.get("type") == "unmeasured" else min(5, integer(tremolo.text, 8))
    flags = max(0, min(4, FLAGS.get(element.findtext("type", "quarter").strip(), 0)))
    return Fraction(1, 2) ** (slashes + flags) if slashes > 0 else None


def _share(text: str | None) -> float | None:
    percent = finite(text)
    return None if percent is None else max(0.0, min(0.9, percent / 100))
