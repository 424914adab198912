"""How ornaments are played: when each of their notes begins.

Their notes are thirty-seconds, sixteenths from 200 quarters a minute on, at least eight a second (MuseScore: its
playback has these values, in versions 3 and 4), and shorter where the written note has no room for them. They begin
on the beat, on the note itself, and end on it: a trill has an odd number of notes, the last of which lasts. A turn
that is delayed has the end of the note, at most its second half.
"""

from __future__ import annotations

import math
from fractions import Fraction

from score.sheet import Chord, Ornament

PRESTISSIMO = 200.0  # quarters a minute
SLOWEST, FASTEST = 1 / 8, 1 / 64  # s; a note that has no room for these is played plain
ROLL = 0.06  # s from note to note of an arpeggio (MuseScore 4)


def note_length(tempo: float) -> float:
    """Seconds of a note of an ornament, by the tempo in quarters a minute."""
    return min(SLOWEST, 60 / tempo / (4 if tempo >= PRESTISSIMO else 8))


def expand(ornament: Ornament, length: float, unit: float) -> list[tuple[float, float]]:
    """The notes of an ornament: (beginning in s from that of the written note, semitones from it). Each lasts until
    the next begins, the last to the end.

    Args:
        length: of the written note, in s.
        unit: :func:`note_length`.
    """
    suffix = ornament.suffix
    notes = _notes(ornament, length, unit)
    n_all = len(notes) + len(suffix)
    unit = min(unit, length / n_all * (0.5 if ornament.delayed else 1.0))
    if unit < FASTEST:
        return [(0.0, 0.0)]
    if ornament.second is not None or ornament.last is not None:
        begins = _by_shares(ornament, len(notes), len(suffix), length)
    elif ornament.delayed:
        start = length - n_all * unit
        begins = [start + i * unit for i in range(n_all)]
        return [(0.0, 0.0), *zip(begins, notes, strict=True)]
    else:
        body = length - len(suffix) * unit
        begins = [i * (body / len(notes) if ornament.beats else unit) for i in range(len(notes))]
        if ornament.accelerate:  # from the first to the last twice as fast
            n = len(notes)
            edges = [i * (2 - i / (2 * n)) for i in range(n)]
            begins = [edge * body / (1.5 * n) for edge in edges]
        begins += [body + i * unit for i in range(len(suffix))]
    return list(zip(begins, (*notes, *suffix), strict=True))


def _notes(ornament: Ornament, length: float, unit: float) -> list[float]:
    """The notes before the suffix."""
    if ornament.cycle is None:
        return list(ornament.notes)
    first = len(ornament.notes)
    if ornament.beats:
        n = max(1, ornament.beats - first)
    else:
        room = length - len(ornament.suffix) * unit
        n = int(room / unit + 1e-6) - first
        odd = ornament.cycle[0] == 0 and ornament.cycle[1] != 0
        n -= (n % 2 == 0) if odd else n % 2
        n = max(n, 3 if odd else 2)
    return [*ornament.notes, *(ornament.cycle[i % 2] for i in range(n))]


def _by_shares(ornament: Ornament, n: int, n_suffix: int, length: float) -> list[float]:
    """Where the second and the last note begin is given: those between lie evenly, those behind too."""
    last = (n - 1) / n if ornament.last is None else ornament.last
    second = min(last, 1 / n if ornament.second is None else ornament.second)
    begins = [0.0, second * length]
    begins += [(second + (last - second) * i / max(1, n - 2)) * length for i in range(1, n - 1)]
    rest = (1 - last) * length / (1 + n_suffix)
    return begins[:n] + [last * length + (i + 1) * rest for i in range(n_suffix)]


def rolls(chords: list[Chord]) -> dict[int, tuple[int, int]]:
    """Which of how many notes each note of an arpeggio is, by the id of the note. Arpeggios of one number are rolled
    together, on all staves; without a number those of one staff, or all where one of them says that it goes on."""
    rolled = [(c, note) for c in chords for note in c.notes if note.roll is not None and not note.tie_stop]
    unbroken = {chord.position for chord, note in rolled if note.roll[2]}
    groups: dict[tuple[Fraction, str, str], list] = {}
    for chord, note in rolled:
        staff = "" if note.roll[0] or chord.position in unbroken else chord.staff
        groups.setdefault((chord.position, note.roll[0], staff), []).append(note)
    out = {}
    for notes in groups.values():
        notes.sort(key=lambda note: note.pitch, reverse=any(note.roll[1] for note in notes))
        out |= {id(note): (i, len(notes)) for i, note in enumerate(notes)}
    return out


def pairs(chords: list[Chord]) -> dict[int, Chord]:
    """The chord that each chord alternates with that begins a tremolo, by the id of that chord."""
    ends = {(c.voice, c.position): c for c in chords if c.alternates}
    found = {id(c): ends.get((c.voice, c.position + c.length)) for c in chords if c.alternation is not None}
    return {begins: end for begins, end in found.items() if end is not None}


def glissando(semitones: float, length: float) -> list[tuple[float, float]]:
    """A chromatic scale up to the note that it leads to, evenly over the whole note (MuseScore). As :func:`expand`."""
    n = max(1, math.ceil(abs(semitones) - 1e-6))
    if length / n < FASTEST / 4:
        return [(0.0, 0.0)]
    return [(i * length / n, math.copysign(i, semitones)) for i in range(n)]
