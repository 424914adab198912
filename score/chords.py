"""Chord symbols as notes, for scores with nothing else in them; what they mean is music21's knowledge, how they are
played that of :mod:`voicing`, as for typed chords."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from score.notations import SEMITONES, STEPS
from score.sheet import Chord, Sheet, Written
from voicing import Chord as Harmony
from voicing import in_thirds, left, voice


def add_chords(sheet: Sheet) -> None:
    """Write the ``<harmony>`` elements of the first part that has any as chords; each lasts until the next."""
    parts = sorted({part for measure in sheet.measures for part in measure.harmonies})
    voices: tuple[int, ...] = ()
    for part in parts[:1]:
        before: list[Chord] = []  # of the last measure
        for measure in sheet.measures:
            symbols = sorted(measure.harmonies.get(part, ()), key=lambda symbol: symbol[0])
            ends = [*(at for at, _ in symbols[1:]), measure.length][: len(symbols)]
            chords: list[Chord] = []
            if not symbols or symbols[0][0] > 0:
                chords += _held(before, symbols[0][0] if symbols else measure.length)
            for (at, element), end in zip(symbols, ends, strict=True):
                if end > at:
                    harmony, pitches = _harmony(element), []
                    if harmony is not None:
                        voices = voice(harmony, voices)
                        pitches = [left(harmony), *voices]
                    chords.append(Chord(at, end - at, [Written(pitch) for pitch in pitches], "chords", ""))
            measure.chords[part] = before = chords


def _held(before: list[Chord], length: Fraction) -> list[Chord]:
    """What goes on from the measure before."""
    if not before or not before[-1].notes or length == 0:
        return []
    for note in before[-1].notes:
        note.tie_start = True
    notes = [replace(note, tie_start=False, tie_stop=True) for note in before[-1].notes]
    return [Chord(Fraction(0), length, notes, "chords", "")]


def _harmony(element) -> Harmony | None:
    """None for "no chord", and for what music21 cannot read."""
    from music21 import harmony
    from music21.musicxml.xmlToM21 import MeasureParser

    bass = element.find("bass")
    if bass is not None:  # what is written below the chord need not be of it
        element.remove(bass)
    try:
        symbol = MeasureParser().xmlToChordSymbol(element)
        if isinstance(symbol, harmony.NoChord) or not symbol.pitches:
            return None
        root, low = symbol.root().pitchClass, symbol.bass().pitchClass
        steps = {(pitch.pitchClass - root) % 12 for pitch in symbol.pitches}
        if bass is not None:
            step, alter = bass.findtext("bass-step").strip(), round(float(bass.findtext("bass-alter") or 0))
            low = (SEMITONES[STEPS.index(step)] + alter) % 12
        return Harmony(low, in_thirds(root, steps))
    except MemoryError:
        raise
    except Exception:  # as little as is known is played, as of other marks that cannot be read
        return None
