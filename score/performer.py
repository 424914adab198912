"""Plays what is written: a sheet -> a performance.

The conventions, where ``<sound>`` and the attributes of notes say nothing else (they come first):

- Notes and slurs sound for their full length; staccato for half, staccatissimo a third, portato three quarters.
- Accents add 13 to the velocity, marcato 19; dynamics are MuseScore's velocities, mf (80) where none stands.
- A fermata doubles its note, for all parts; the tempo is 120 quarters a minute until told otherwise.
- Grace notes take their time from the note that follows, at most half of it (two thirds of a dotted one): with a slash
  65 ms each, as in MuseScore, without one their written value (C. P. E. Bach, Versuch, 1753). Behind the last note of
  a measure they take it from that note. ``steal-time-previous`` puts them before the beat.
- A tie joins with the next note of its pitch in its part, in playing order, over repeats too.
- A tremolo on one note is that many notes: three slashes are thirty-seconds; one on two chords alternates so over the
  length of both.
- Ornaments begin on the beat, their notes are thirty-seconds, see :mod:`score.ornaments`. A trill goes on over ties and
  under its wavy line; grace notes behind it end it. Of a chord the highest note has the ornament.
- Arpeggios begin on the beat, 60 ms from note to note, upwards without an arrow; a bracket (non-arpeggiate) changes
  nothing.
- A glissando is a chromatic scale and a slide a bend, both evenly over the whole note.
- Swing is two to one, where it is only a word; see :mod:`score.swing`.
- A pedal lets notes of the part sound until it is lifted, or the pitch is struck again.
- Chord symbols are played where no note sounds in the whole score.
"""

from __future__ import annotations

import bisect
from fractions import Fraction

from score.embellishments import Embellishments
from score.instruments import PIZZICATO, STRINGS
from score.loudness import Loudness
from score.ornaments import ROLL, note_length, pairs, rolls
from score.performance import (
    DEFAULT_TEMPO,
    MAX_INSTRUMENTS,
    BadScore,
    Beat,
    Change,
    Instrument,
    LeftOut,
    Note,
    Performance,
    check_count,
    check_length,
    hold_by_pedal,
)
from score.route import route
from score.sheet import Chord, Grace, Sheet, Sound, Written
from score.slides import Slides
from score.sounds import Sounds
from score.swing import Swing
from score.tempi import MAX_TEMPO, tempo_marks

ACCIACCATURA = 0.065  # s
FERMATA = 2.0
_DOTTED, _PLAIN = 2 / 3, 1 / 2  # what grace notes may take


def perform(sheet: Sheet) -> Performance:
    """Play a sheet.

    Raises:
        BadScore: nothing sounds, or beyond the limits.
    """
    left_out = LeftOut(sheet.left_out)
    order = route([measure.marks for measure in sheet.measures], sheet.brackets, left_out)
    starts, total = [], Fraction(0)
    for i, _ in order:
        starts.append(total)
        total += sheet.measures[i].length
    check_length(float(total) * 60 / MAX_TEMPO)
    counts = [sum(len(c.notes) for cs in measure.chords.values() for c in cs) for measure in sheet.measures]
    if not any(counts[i] for i, _ in order):
        from score.chords import add_chords

        add_chords(sheet)
        counts = [sum(len(c.notes) for cs in measure.chords.values() for c in cs) for measure in sheet.measures]
    remarks = [f"not played: {sentence}" for sentence in left_out.sentences()]
    n_notes = sum(counts[i] for i, _ in order)
    if n_notes == 0 and remarks:
        raise BadScore(f"has no notes that could be played ({'; '.join(remarks)}); export it again")
    check_count(n_notes)
    played = [(sheet.measures[i], start, n_pass) for (i, n_pass), start in zip(order, starts, strict=True)]
    parts = range(len(sheet.sounds))
    tempi = [m for part in parts for m in _directions(played, part) if m[1].kind in ("tempo", "modulation", "change")]
    clock = Clock(*tempo_marks(tempi), _holds(played))
    check_length(clock.seconds(total))
    out = Performance([], [])
    swing = Swing([(at, d) for part in parts for at, d in _directions(played, part) if d.kind == "swing"])
    slides = Slides(out)
    for part in parts:
        _Player(part, sheet, clock, swing, slides, out).play(played)
    out.notes.sort(key=lambda note: (note.onset, note.pitch))
    check_length(out.end)
    out.first = Beat(clock.first, played[0][0].meter)
    out.last = Beat(clock.last, played[-1][0].meter)
    out.line = clock.seconds(total)
    out.remarks = remarks
    return out


class Clock:
    """Quarters to seconds, by tempo marks ``[(quarter, tempo)]`` and spans ``[(begin, end)]`` of fermatas."""

    def __init__(self, tempi: list[tuple[Fraction, float]], first: float, holds: list[tuple[Fraction, Fraction]]):
        edges = sorted({Fraction(0), *(at for at, _ in tempi), *(edge for hold in holds for edge in hold)})
        starts = [at for at, _ in tempi]
        self.tempi, self.starts = tempi, starts
        self.edges, self.times, self.rates = [float(edge) for edge in edges], [], []
        time, j, inside_until = 0.0, 0, Fraction(-1)
        for k, edge in enumerate(edges):
            while j < len(holds) and holds[j][0] <= edge:
                inside_until = max(inside_until, holds[j][1])
                j += 1
            i = bisect.bisect_right(starts, edge) - 1
            rate = 60 / (tempi[i][1] if i >= 0 else DEFAULT_TEMPO) * (FERMATA if edge < inside_until else 1.0)
            self.times.append(time)
            self.rates.append(rate)
            if k + 1 < len(edges):
                time += float(edges[k + 1] - edge) * rate
        self.first, self.last = first, tempi[-1][1] if tempi else DEFAULT_TEMPO

    def tempo(self, quarter: Fraction) -> float:
        """Quarters a minute, fermatas left out."""
        i = bisect.bisect_right(self.starts, quarter) - 1
        return self.tempi[i][1] if i >= 0 else DEFAULT_TEMPO

    def seconds(self, quarter) -> float:
        at = float(quarter)
        i = max(0, bisect.bisect_right(self.edges, at + 1e-9) - 1)
        return self.times[i] + (at - self.edges[i]) * self.rates[i]


def _directions(played, part: int):
    """(position in the performance, direction) of one part, in playing order."""
    for measure, start, n_pass in played:
        for d in measure.directions.get(part, ()):
            if not d.passes or n_pass in d.passes:
                yield start + d.position, d


def _holds(played) -> list[tuple[Fraction, Fraction]]:
    spans = {
        (start + chord.position, start + chord.position + chord.length)
        for measure, start, _ in played
        for chords in measure.chords.values()
        for chord in chords
        if chord.fermata and chord.length
    }
    return sorted(spans)


class _Player:
    """Plays one part into a performance."""

    def __init__(self, part: int, sheet: Sheet, clock: Clock, swing: Swing, slides: Slides, out: Performance):
        self.part, self.sounds, self.clock, self.swing, self.out = part, Sounds(sheet, part), clock, swing, out
        self.indices = {id(measure): i for i, measure in enumerate(sheet.measures)}
        self.slides, self.embellishments = slides, Embellishments(out, slides)
        self.instruments: dict[tuple, int] = {}  # by id, and how it sounds
        self.open_ties: dict[float, list[tuple[Fraction, str, Note]]] = {}
        self.previous: dict[str, tuple[list[Note], float, float]] = {}  # of each voice: notes, begin, end in s

    def play(self, played):
        directions = list(_directions(played, self.part))
        directions.sort(key=lambda item: item[0])
        self.plucked = [(at, d.rank, d.value) for at, d in directions if d.kind == "pizzicato"]
        loud = [(at, d) for at, d in directions if d.kind in ("level", "stress", "wedge")]
        begins: dict[str, Fraction] = {}  # of each stave's own marks; before, those of the others hold on it too
        for at, d in loud:
            begins.setdefault(d.staff, at)
        by_staff = {
            staff: Loudness([(at, d) for at, d in loud if d.staff in (staff, "") or at < begin])
            for staff, begin in begins.items()
        }
        everywhere = Loudness(loud)
        self.notes: list[Note] = []
        for measure, start, n_pass in played:
            chords = sorted(measure.chords.get(self.part, ()), key=lambda c: c.position)
            self.index, self.start, self.n_pass = self.indices[id(measure)], start, n_pass
            self.shifts, self.rolls = self.swing.shifts(chords, measure, start), rolls(chords)
            alternating = pairs(chords)
            others = {id(chord) for chord in alternating.values()}
            for chord in chords:
                at = start + chord.position
                level = by_staff.get(chord.staff, everywhere).at(at)
                if id(chord) in alternating:
                    self._alternate(chord, alternating[id(chord)], at, level, n_pass)
                elif id(chord) not in others:
                    self._chord(chord, at, level, n_pass)
        self.notes = self.embellishments.apply(self.notes)
        pedal = [(self.clock.seconds(at), d.value) for at, d in directions if d.kind == "pedal"]
        hold_by_pedal(self.notes, pedal)
        self.out.notes.extend(self.notes)

    def _chord(self, chord: Chord, at: Fraction, level: float, n_pass: int):
        begin, end, quarter = self._span(chord, at)
        onset, until = begin, end
        if chord.before:
            onset = self._graces_before(chord, begin, end, quarter, level, at, n_pass)
        if chord.after:
            unit = note_length(self.clock.tempo(at))
            lengths = [unit if grace.ends_trill else _written_length(grace, quarter) for grace in chord.after]
            shrink = min(1.0, _PLAIN * (end - onset) / max(sum(lengths), 1e-9))
            until = end - shrink * sum(lengths)
            lengths = [shrink * length for length in lengths]
            self._graces(chord.after, lengths, until, level, at, n_pass, at + chord.length)
        sounding = []
        for written in chord.notes:
            if written.passes and n_pass not in written.passes:
                continue
            first = onset + self._delay(written, until - onset)
            if written.attack is not None:
                first = max(0.0, begin + float(written.attack) * quarter)
            last = until
            if written.release is not None:
                last = max(0.0, end + float(written.release) * quarter)
            elif not written.tie_start:
                last = first + written.gate * (until - first)
            last = max(first, last)
            if written.stroke and chord.length:
                self._tremolo(written, first, last, int(chord.length / written.stroke), level, at)
                continue
            note = self._tied(written, at, chord.voice) if written.tie_stop else None
            if note is None:
                note = self._add(written, first, last, level, at)
            else:
                note.duration = max(note.duration, last - note.onset)
            self.embellishments.mark(note, written, first, note_length(self.clock.tempo(at)))
            sounding.append(note)
            if written.tie_start:
                self.open_ties.setdefault(written.pitch, []).append((at + chord.length, chord.voice, note))
        self.previous[chord.voice] = (sounding, begin, end)

    def _span(self, chord: Chord, at: Fraction) -> tuple[float, float, float]:
        """Beginning and end of a chord as it is swung, and the length of a quarter there, in s."""
        early, late = self.shifts.get(id(chord), (Fraction(0), Fraction(0)))
        begin, end = self.clock.seconds(at), self.clock.seconds(at + chord.length)
        quarter = (end - begin) / float(chord.length) if chord.length else 0.5
        if early or late:
            begin, end = self.clock.seconds(at + early), self.clock.seconds(at + chord.length + late)
        return begin, end, quarter

    def _delay(self, written: Written, length: float) -> float:
        """In an arpeggio, seconds behind its first note."""
        place, n = self.rolls.get(id(written), (0, 1))
        return place * min(ROLL, length / n)

    def _alternate(self, chord: Chord, other: Chord, at: Fraction, level: float, n_pass: int):
        """A tremolo of two chords."""
        begin, end = self._span(chord, at)[0], self._span(other, at + chord.length)[1]
        quarter = (end - begin) / float(chord.length + other.length or 1)
        onset = self._graces_before(chord, begin, end, quarter, level, at, n_pass) if chord.before else begin
        n = 2 * max(1, round((chord.length + other.length) / chord.alternation / 2))
        step, sounding = (end - onset) / n, []
        check_count(len(self.out.notes) + len(self.notes) + n * max(len(chord.notes), len(other.notes), 1))
        for i in range(n):
            for written in (chord, other)[i % 2].notes:
                if not written.passes or n_pass in written.passes:
                    first = onset + i * step
                    sounding.append(self._add(written, first, first + written.gate * step, level, at))
        self.previous[chord.voice] = (sounding[-1:], begin, end)

    def _tremolo(self, written: Written, first: float, last: float, n_strokes: int, level: float, at: Fraction):
        n_strokes = max(1, n_strokes)
        check_count(len(self.out.notes) + len(self.notes) + n_strokes)
        step = (last - first) / n_strokes
        for i in range(n_strokes):
            self._add(written, first + i * step, first + (i + 1) * step, level, at)

    def _tied(self, written: Written, at: Fraction, voice: str) -> Note | None:
        """The note that this one goes on from, if possible of the same voice."""
        waiting = [tie for tie in self.open_ties.get(written.pitch, ()) if tie[0] >= at]
        ready = sorted((tie for tie in waiting if tie[0] == at), key=lambda tie: tie[1] != voice)
        if not ready:
            return None
        waiting.remove(ready[0])
        self.open_ties[written.pitch] = waiting
        return ready[0][2]

    def _graces_before(self, chord: Chord, begin, end, quarter, level, at, n_pass) -> float:
        """Play the grace notes of a chord; return when its own notes begin, in seconds."""
        graces = chord.before
        earlier = self.previous.get(chord.voice)
        if any(g.steal_previous is not None for g in graces) and earlier and abs(earlier[2] - begin) < 1e-6:
            notes, its_begin, its_end = earlier
            shares = [g.steal_previous or 0.0 for g in graces]
            lengths = [share * (its_end - its_begin) / max(1.0, sum(shares) / 0.9) for share in shares]
            start = begin - sum(lengths)
            for note in notes:
                note.duration = max(0.0, min(note.end, start) - note.onset)
            self._graces(graces, lengths, start, level, at, n_pass, at)
            return begin
        lengths = [
            _written_length(grace, quarter) if grace.steal_following is None else grace.steal_following * (end - begin)
            for grace in graces
        ]
        limit = _DOTTED if chord.dotted and not all(grace.slashed for grace in graces) else _PLAIN
        if any(grace.steal_following is not None for grace in graces):
            limit = 0.9
        shrink = min(1.0, limit * (end - begin) / max(sum(lengths), 1e-9))
        lengths = [shrink * length for length in lengths]
        self._graces(graces, lengths, begin, level, at, n_pass, at)
        return begin + sum(lengths)

    def _graces(self, graces: list[Grace], lengths: list[float], start, level, at, n_pass, next_at: Fraction):
        """Play grace notes one after the other from ``start``, in seconds; ``next_at`` is where a tie leads."""
        for grace, length in zip(graces, lengths, strict=True):
            for written in grace.notes:
                if length > 0 and (not written.passes or n_pass in written.passes):
                    gate = 1.0 if written.tie_start else written.gate
                    note = self._add(written, start, start + gate * length, level, at)
                    if written.tie_start:
                        self.open_ties.setdefault(written.pitch, []).append((next_at, "", note))
            start += length

    def _add(self, written: Written, first: float, last: float, level: float, at: Fraction) -> Note:
        velocity = level if written.velocity is None else written.velocity
        velocity = int(max(1, min(127, round(velocity + written.accent))))
        sound = self.sounds.at(written.instrument, (self.index, at - self.start), self.n_pass)
        pitch = self.sounds.pitch(written.instrument, sound, written.pitch)
        note = Note(first, last - first, pitch, velocity, self._instrument(written, sound, at))
        self.notes.append(note)
        return note

    def _instrument(self, written: Written, sound: Sound, at: Fraction) -> int:
        plucked = written.pizzicato
        if plucked is None and self.plucked:
            i = bisect.bisect_right(self.plucked, (at, 9, True)) - 1
            plucked = i >= 0 and bool(self.plucked[i][2])
        plucked = bool(plucked) and sound.program in STRINGS and not sound.drums
        key = (written.instrument, plucked, sound.program, sound.drums, sound.bank, sound.volume, sound.pan)
        if key not in self.instruments:
            index = self.instruments[key] = len(self.out.instruments)
            if index >= MAX_INSTRUMENTS:
                raise BadScore(f"has more than {MAX_INSTRUMENTS} instruments; leave some out")
            self.out.instruments.append(
                Instrument(PIZZICATO if plucked else sound.program, sound.drums, 0 if plucked else sound.bank)
            )
            for number, value in ((7, sound.volume), (10, sound.pan)):
                if value is not None:
                    self.out.changes.append(Change(0.0, index, "control", value, number))
        return self.instruments[key]


def _written_length(grace: Grace, quarter: float) -> float:
    return ACCIACCATURA if grace.slashed else float(grace.length) * quarter
