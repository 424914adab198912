"""Chord symbols as notes, for scores with nothing else in them; what they mean is music21's knowledge."""

from __future__ import annotations

from fractions import Fraction

from score.sheet import Chord, Sheet, Written


def voicing(pitch_classes: list[int], bass: int) -> list[int]:
    """MIDI notes of a chord: the bass between C2 and B2, every tone once between C4 and B4."""
    return [36 + bass % 12, *sorted(60 + p % 12 for p in set(pitch_classes))]


def add_chords(sheet: Sheet) -> None:
    """Write the ``<harmony>`` elements of the first part that has any as chords; each lasts until the next."""
    parts = sorted({part for measure in sheet.measures for part in measure.harmonies})
    for part in parts[:1]:
        for measure in sheet.measures:
            symbols = sorted(measure.harmonies.get(part, ()), key=lambda symbol: symbol[0])
            ends = [*(at for at, _ in symbols[1:]), measure.length][: len(symbols)]
            chords = [_chord(e, at, end - at) for (at, e), end in zip(symbols, ends, strict=True) if end > at]
            if not symbols or symbols[0][0] > 0:
                chords.insert(0, _held(sheet, measure, part, symbols))
            measure.chords[part] = [chord for chord in chords if chord is not None]


def _held(sheet: Sheet, measure, part: int, symbols) -> Chord | None:
    """What goes on from the measure before."""
    i = next(i for i, m in enumerate(sheet.measures) if m is measure)
    before = sheet.measures[i - 1].chords.get(part) if i else None
    length = symbols[0][0] if symbols else measure.length
    if not before or not before[-1].notes or length == 0:
        return None
    from dataclasses import replace

    for note in before[-1].notes:
        note.tie_start = True
    notes = [replace(note, tie_start=False, tie_stop=True) for note in before[-1].notes]
    return Chord(Fraction(0), length, notes, "chords", "")


def _chord(element, position: Fraction, length: Fraction) -> Chord:
    return Chord(position, length, [Written(p) for p in _pitches(element)], "chords", "")


def _pitches(element) -> list[int]:
    """None for "no chord", and for what music21 cannot read."""
    from music21 import harmony
    from music21.musicxml.xmlToM21 import MeasureParser

    try:
        symbol = MeasureParser().xmlToChordSymbol(element)
        if isinstance(symbol, harmony.NoChord) or not symbol.pitches:
            return []
        return voicing([int(p.ps) for p in symbol.pitches], int(symbol.bass().ps))
    except MemoryError:
        raise
    except Exception:  # as little as is known is played, as of other marks that cannot be read
        return []
