"""What is written in a score, before anybody plays it: positions and lengths in quarters, as exact fractions."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from score.performance import LeftOut


@dataclass(slots=True, frozen=True)
class Ornament:
    """What is played in place of a note, as semitones from it: ``notes`` one after the other, or ``cycle`` over and
    over; then ``suffix``. The last one lasts."""

    notes: tuple[float, ...] = ()
    cycle: tuple[float, float] | None = None
    suffix: tuple[float, ...] = ()
    delayed: bool = False  # to the end of the note
    beats: int | None = None  # notes without the suffix; None: as many as fit
    second: float | None = None  # when the second begins, as a share of the length
    last: float | None = None  # and the last
    accelerate: bool = False


@dataclass(slots=True)
class Written:
    """One note head that sounds."""

    pitch: float  # as it sounds, MIDI note number
    instrument: str = ""  # id of the score-instrument
    tie_start: bool = False
    tie_stop: bool = False
    gate: float = 1.0  # share of its length that it sounds
    accent: int = 0  # added to the velocity
    velocity: float | None = None  # of its own
    attack: Fraction | None = None  # quarters later than written
    release: Fraction | None = None
    passes: frozenset[int] = frozenset()  # of a repeat; none: all
    pizzicato: bool | None = None
    stroke: Fraction | None = None  # of a tremolo on one note, quarters
    spelled: tuple[int, float] | None = None  # place on the stave (C0 is 0, seven for an octave) and alteration
    ornament: Ornament | None = None
    line_ends: bool = False  # the wavy line of a trill
    roll: tuple[str, bool, bool] | None = None  # of an arpeggio: number, downwards, goes on over staves
    glide: tuple[str, float] | None = None  # "glissando" or "slide", and the pitch that it leads to


@dataclass(slots=True)
class Grace:
    """Grace notes that sound together."""

    notes: list[Written]
    length: Fraction  # as written
    slashed: bool
    steal_previous: float | None = None  # share of the length of the note before
    steal_following: float | None = None
    ends_trill: bool = False


@dataclass(slots=True)
class Chord:
    """Notes of one voice that begin together; none: a rest."""

    position: Fraction  # from the beginning of the measure
    length: Fraction
    notes: list[Written]
    voice: str
    staff: str
    dotted: bool = False
    fermata: bool = False
    before: list[Grace] = field(default_factory=list)
    after: list[Grace] = field(default_factory=list)
    alternation: Fraction | None = None  # strokes of a tremolo that begins here with the next chord, quarters
    alternates: bool = False  # and ends here
    signs: list = field(default_factory=list)  # elements in <ornaments>


@dataclass(slots=True)
class Direction:
    """Something between the notes, by ``kind``:

    ``level`` (velocity from here), ``stress`` (velocity of what begins here), ``wedge`` ("crescendo", "diminuendo",
    "stop"), ``pedal`` (bool), ``sound`` and ``instrument`` (fields of :class:`Sound` that change, of the instrument
    ``name``; the second is another instrument), ``pizzicato`` (bool), ``tempo`` (quarters a minute, or ``tempi.FIRST``
    or ``BACK``), ``modulation`` (factor of the tempo), ``change`` ("gradual" or "free", of the tempo in words),
    ``swing`` (share of the first of two notes, and the length of each as written, in quarters).
    """

    position: Fraction
    kind: str
    value: object
    staff: str = ""
    name: str = ""
    rank: int = 0  # of two marks in one place the higher counts
    passes: frozenset[int] = frozenset()


@dataclass(slots=True)
class Marks:
    """Where a measure leads, all parts together."""

    forward: bool = False  # a repeat sign at its beginning
    backward: bool = False  # and at its end
    times: int = 0  # that the sign at its end has the section played; 0: it does not say
    after_jump: bool = False  # the repeat is taken after D.C. and D.S. too
    segno: set[str] = field(default_factory=set)
    coda: set[str] = field(default_factory=set)
    to_coda: str | None = None
    al_coda: bool = False  # these words, which belong to a D.C. or D.S. in the same measure, else they are "To Coda"
    da_capo: bool = False
    dal_segno: str | None = None
    until: str = ""  # what the jump leads to by its words, "al fine" or "al coda": "fine", "coda" or neither
    fine: bool = False
    jump_passes: frozenset[int] = frozenset()

    def join(self, other: Marks):
        """Where this or the other leads: signs of both, of jumps with a label this one's."""
        for name in ("forward", "backward", "after_jump", "al_coda", "da_capo", "fine"):
            setattr(self, name, getattr(self, name) or getattr(other, name))
        for name in ("segno", "coda", "jump_passes"):
            setattr(self, name, getattr(self, name) | getattr(other, name))
        self.to_coda = other.to_coda if self.to_coda is None else self.to_coda
        self.dal_segno = other.dal_segno if self.dal_segno is None else self.dal_segno
        self.until, self.times = self.until or other.until, max(self.times, other.times)


@dataclass(slots=True)
class Bracket:
    """An ending: measures that are played in some passes through a section only."""

    first: int
    last: int
    numbers: frozenset[int]  # the passes, from 1


@dataclass(slots=True)
class Measure:
    """One measure of all parts; ``chords`` and ``directions`` are indexed by part."""

    length: Fraction = Fraction(0)
    meter: tuple[int, int] | None = None
    missing: Fraction = Fraction(0)  # of a bar, before a pickup
    marks: Marks = field(default_factory=Marks)
    later: dict[Fraction, Marks] = field(default_factory=dict)  # from where a repeat sign stands in its middle
    chords: dict[int, list[Chord]] = field(default_factory=dict)
    directions: dict[int, list[Direction]] = field(default_factory=dict)
    harmonies: dict[int, list[tuple[Fraction, object]]] = field(default_factory=dict)


@dataclass(slots=True)
class Sound:
    """What the part list says of an instrument."""

    program: int = 0
    drums: bool = False
    bank: int = 0
    key: int | None = None  # the drum that it is
    volume: int | None = None  # controllers 7 and 10
    pan: int | None = None
    said: bool = False  # whether anything tells which instrument it is


@dataclass(slots=True)
class Sheet:
    """A score as written."""

    sounds: list[dict[str, Sound]]  # of each part, by id; the first is the part's own
    measures: list[Measure]
    brackets: list[Bracket] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
