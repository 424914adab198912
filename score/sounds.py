"""Which sound an instrument of a part has where: as the part list tells it, and as ``<sound>`` changes it."""

from __future__ import annotations

import bisect
from dataclasses import replace
from fractions import Fraction

from score.heads import NOISE
from score.sheet import Sheet, Sound

_DRUMS = Sound(drums=True)
Place = tuple[int, Fraction]  # index of the measure, position in it


class Sounds:
    """The sounds of the instruments of one part, with their changes.

    A change holds from its place in the score on, not from when it is first played: behind a repeat what stands before
    it sounds as before. One whose id nobody knows is the part's; so is a change to an instrument that no note names.
    """

    def __init__(self, sheet: Sheet, part: int):
        self.sounds = sheet.sounds[part]
        own = next(iter(self.sounds))
        others = {name for i, sounds in enumerate(sheet.sounds) if i != part for name in sounds}
        used, found = set(), []
        for index, measure in enumerate(sheet.measures):
            chords = measure.chords.get(part, ())
            used |= {written.instrument for chord in chords for written in chord.notes}
            for d in measure.directions.get(part, ()):
                if d.kind in ("sound", "instrument"):
                    found.append(((index, d.position), d))
        found.sort(key=lambda change: change[0])
        self.passes: set[int] = set()
        self.changes: dict[str, list] = {}  # by instrument: (place, passes, fields)
        for place, d in found:
            name = d.name
            if name not in self.sounds:
                if name in others:
                    continue
                name = own
            elif d.kind == "instrument" and name not in used:
                name = own
            self.passes |= d.passes
            self.changes.setdefault(name, []).append((place, d.passes, d.value))
        self.states: dict[tuple[str, int], list[tuple[Place, Sound]]] = {}  # by instrument and pass

    def at(self, name: str, place: Place, n_pass: int) -> Sound:
        """The sound of the instrument ``name`` in a pass of a repeat."""
        if name.startswith(NOISE):
            sound = self.at(name.removeprefix(NOISE), place, n_pass)
            return sound if sound.drums else _DRUMS
        if name not in self.changes:
            return self._own(name)
        n_pass = n_pass if n_pass in self.passes else 0
        if (name, n_pass) not in self.states:
            states, sound = [], self._own(name)
            for at, passes, fields in self.changes[name]:
                if not passes or n_pass in passes:
                    sound = replace(sound, **fields)
                    states.append((at, sound))
            self.states[name, n_pass] = states
        states = self.states[name, n_pass]
        i = bisect.bisect_right(states, place, key=lambda state: state[0]) - 1
        return states[i][1] if i >= 0 else self._own(name)

    def pitch(self, name: str, sound: Sound, written: float) -> float:
        """What is a drum only from a change on, or another one than before, sounds as that, wherever it is written."""
        own = self._own(name.removeprefix(NOISE))
        changed = sound.drums and (not own.drums or written == own.key)
        return sound.key if changed and sound.key is not None else written

    def _own(self, name: str) -> Sound:
        return self.sounds.get(name) or self.sounds[next(iter(self.sounds))]
