"""Chords -> what two hands play: typed progressions and the chord symbols of scores alike."""

from __future__ import annotations

from dataclasses import dataclass

MAX_VOICES = 4  # above the bass
MIDDLE = 62.0  # MIDI pitch around which the right hand stays: D4
BASS = 36  # lowest MIDI pitch of the left hand: C2


@dataclass(frozen=True)
class Chord:
    """Pitch classes (0: C), from the root up in thirds, and that of the bass."""

    bass: int
    pitch_classes: tuple[int, ...]


def in_thirds(root: int, steps: set[int]) -> tuple[int, ...]:
    """Pitch classes of a chord whose steps are semitones above the root: root, third, fifth, seventh, ninth ..."""
    order = (0, 3, 4, 6, 7, 8, 10, 11, 9, 1, 2, 5)
    return tuple((root + step) % 12 for step in sorted(steps, key=order.index))


def left(chord: Chord) -> int:
    """MIDI pitch of the left hand: the bass between C2 and B2."""
    return BASS + chord.bass


def voice(chord: Chord, before: tuple[int, ...] = ()) -> tuple[int, ...]:
    """MIDI pitches of the right hand: the close position with the least movement from ``before``, which stays near
    the middle. What the bass has, the fifth, and a natural eleventh over a major third give way where there are more
    than :data:`MAX_VOICES`."""
    classes, root = list(chord.pitch_classes), chord.pitch_classes[0]
    if len(classes) > 3 and root == chord.bass:
        classes.remove(root)
    for spare in (root + 7, root + 5, root + 2, root):
        if len(classes) > MAX_VOICES and spare % 12 in classes:
            classes.remove(spare % 12)
    classes.sort()
    candidates = []
    for turn in range(len(classes)):
        order = classes[turn:] + [c + 12 for c in classes[:turn]]
        candidates += [tuple(c + octave for c in order) for octave in (36, 48, 60, 72)]

    def effort(pitches: tuple[int, ...]) -> float:
        away = abs(sum(pitches) / len(pitches) - MIDDLE)
        if not before:
            return away
        steps = [min(abs(p - q) for q in before) for p in pitches] + [min(abs(p - q) for p in pitches) for q in before]
        return sum(steps) / 2 + 0.5 * away

    return min(candidates, key=effort)
