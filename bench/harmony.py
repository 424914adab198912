"""Chord changes per bar, and how many of them have been heard before: loop, random walk and harmony differ in it.

Chords are the triads of :func:`metrics.chords`, by the notes that basic-pitch hears. A chord alone says little about
repetition: a piece has its seven or eight chords, and comes back to each of them. The change from one chord to the next
says more. Of the changes of a loop nearly all have been heard in the eight bars before, of a random walk hardly any,
of harmony some: in chorales a third, of four bars that are played over and over nine in ten.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import metrics

BAR_BEATS = 4  # quarters in a bar, whatever the music's own metre: the meter of a recording is not known
MEMORY_BARS = 8.0  # before a chord, in which it is looked for


class Harmony(NamedTuple):
    """Counts of one continuation: its bars; the chords that begin in it, and those of them that have sounded in the
    bars before; the changes from one chord to another one, and those of them that have been made in the bars before."""

    bars: float
    begun: int
    returned: int
    changes: int
    changes_returned: int


def harmony(before, after, prompt_seconds: float, seconds: float, quarters_per_minute: float) -> Harmony:
    """What the chords of a continuation do. Rests between two chords are passed over: a chord that goes on after a
    rest does not begin.

    Args:
        before, after: notes ``(onset s, duration s, MIDI pitch, amplitude)`` of the prompt, and of what follows it,
            each from its own beginning on.
    """
    bar = BAR_BEATS * 60 / quarters_per_minute
    heard = metrics.chords(before, prompt_seconds)
    first, labels = len(heard), heard + metrics.chords(after, seconds)
    memory = round(MEMORY_BARS * bar / metrics.CHORD_SECONDS)  # looks
    begins = chord_begins(labels)
    begun = returned = changes = changes_returned = 0
    for k, (place, chord) in enumerate(begins):
        if place < first:
            continue
        begun += 1
        returned += chord in labels[max(0, place - memory) : place]
        if k:
            changes += 1
            change = (begins[k - 1][1], chord)
            earlier = itertools.pairwise(begins[:k])
            changes_returned += any((a, b) == change and at >= place - memory for (_, a), (at, b) in earlier)
    return Harmony(seconds / bar, begun, returned, changes, changes_returned)


def chord_begins(labels) -> list[tuple[int, tuple]]:
    """``(place, chord)`` of each chord that is not the one before it, with what is None left out."""
    begins = []
    for place, chord in enumerate(labels):
        if chord is not None and (not begins or begins[-1][1] != chord):
            begins.append((place, chord))
    return begins


def harmony_row(notes, tempos, prompt_seconds: float, seconds: float) -> dict:
    """``chords_per_bar``, ``chords_repeated`` and ``changes_repeated`` of all continuations together (a share of what
    begins in any of them, so that one in which little begins counts little), and ``without_tempo``: how many prompts
    have no tempo, and so are left out. What cannot be told is nan.

    Args:
        notes: of each prompt ``(before, after)``, as of :func:`harmony`.
        tempos: quarters a minute of each prompt, nan where there is none.
    """
    known = [(pair, tempo) for pair, tempo in zip(notes, tempos, strict=True) if math.isfinite(tempo)]
    counts = [harmony(*pair, prompt_seconds, seconds, tempo) for pair, tempo in known]
    bars, begun, returned, changes, changes_returned = (sum(c[i] for c in counts) for i in range(5))
    return {
        "chords_per_bar": begun / bars if bars else math.nan,
        "chords_repeated": returned / begun if begun else math.nan,
        "changes_repeated": changes_returned / changes if changes else math.nan,
        "without_tempo": len(notes) - len(known),
    }


def beside_real(row: dict, real: dict) -> dict:
    """What a row is beside that of what really follows: shares (real: 1) and differences (real: 0); nothing where
    either has not been measured."""

    def both(name: str) -> tuple[float, float] | None:
        values = row.get(name), real.get(name)
        return values if all(v is not None and math.isfinite(v) for v in values) else None

    found = {}
    for share, name in SHARES.items():
        if (pair := both(name)) and pair[1] > 0:
            found[share] = pair[0] / pair[1]
    for difference, name in DIFFERENCES.items():
        if pair := both(name):
            found[difference] = pair[0] - pair[1]
    return found


SHARES = {
    "notes_share": "notes",
    "voices_share": "polyphony",
    "onsets_share": "movement_onsets",
    "chords_per_bar_share": "chords_per_bar",
}
DIFFERENCES = {"chords_repeated_more": "chords_repeated", "changes_repeated_more": "changes_repeated"}
