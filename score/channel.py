"""What a MIDI channel remembers: its sound, controllers, pedals and the keys that are down."""

from __future__ import annotations

import math

from score.performance import Change, Note, Performance

DRUMS = 9  # the channel, counted from 0
_SUSTAIN, _SOSTENUTO, _EXPRESSION = 64, 66, 11
_DATA, _DATA_LOW, _INCREMENT, _DECREMENT = 6, 38, 96, 97
_SOUND_OFF, _RESET = 120, 121
_NOTES_OFF = range(123, 128)  # the changes of mode end all notes, too
_NO_PARAMETER = (127, 127)
_BEND_RANGE, _FINE, _COARSE = (0, 0), (0, 1), (0, 2)  # registered parameters
# What the player begins with; range and tuning in cents.
_INITIAL = {("bank", 0): 0, ("program", 0): 0, ("bend", 0): 0, ("range", 0): 200, ("tuning", 0): 0}
_INITIAL |= {("control", 7): 127, ("control", 10): 64, ("control", 11): 127}


class Part:
    """A channel, or what one of its tracks plays on it.

    ``index`` is that of the instrument that sounds, None before the first note. ``notes`` are all that were struck;
    ``pedal`` tells when it is pressed and lifted, as ``(s, down)``; ``sostenuto`` when that pedal is lifted, and the
    notes that it holds until then.
    """

    def __init__(self, channel: int):
        self.channel, self.drums, self.index = channel, channel % 16 == DRUMS, None
        self.notes: list[Note] = []
        self.pedal: list[tuple[float, bool]] = []
        self.sostenuto: list[tuple[float, list[Note]]] = []
        self._caught: list[Note] | None = None
        self._down: dict[int, list[Note]] = {}
        self._lifts: dict[int, list[float]] = {}  # when each key was lifted
        self._settings: dict[tuple[str, int], int] = {}
        self._bank, self._parameter = [0, 0], _NO_PARAMETER
        self._values: dict[tuple[int, int], list[int]] = {}

    def become(self, drums: bool):
        """Make the part a drum kit, or none any more; what is struck from then on is another instrument."""
        if drums != self.drums:
            self.drums, self.index = drums, None

    # -- keys --------------------------------------------------------------------------------

    def strike(self, note: Note):
        """Begin a note. Its key may be down already: of one key, the note that began first ends first."""
        self.notes.append(note)
        self._down.setdefault(note.pitch, []).append(note)

    def release(self, pitch: int, time: float):
        """Lift a key, which ends the note of it that began first."""
        self._lifts.setdefault(pitch, []).append(time)
        if begun := self._down.get(pitch):
            note = begun.pop(0)
            note.duration = time - note.onset

    def release_all(self, time: float):
        """Lift all keys."""
        for pitch, begun in self._down.items():
            if begun:
                self._lifts.setdefault(pitch, []).append(time)
            while begun:
                note = begun.pop()
                note.duration = time - note.onset

    def finish(self, last: float, quarter: float):
        """End what never ends: a key that was struck more often than lifted by its next stroke or lift, else by the
        end of the file; there a note lasts a quarter at least, since nobody knows its end.

        Args:
            last, quarter: the end, and the length of a quarter note there, in seconds.
        """
        for pitch in [pitch for pitch, begun in self._down.items() if begun]:
            struck = [note for note in self.notes if note.pitch == pitch]
            lifts = self._lifts.get(pitch, [])
            for note, after in zip(struck, [*struck[1:], None], strict=True):
                ends = [time for time in lifts if time > note.onset][:1]
                if after is not None and after.onset > note.onset:
                    ends.append(after.onset)
                end = min(ends, default=last if last > note.onset else note.onset + quarter)
                note.duration = end - note.onset

        self._press_sostenuto(math.inf, False)

    def _press_sostenuto(self, time: float, down: bool):
        if down and self._caught is None:
            self._caught = [note for begun in self._down.values() for note in begun]
        elif not down and self._caught is not None:
            self.sostenuto.append((time, self._caught))
            self._caught = None

    def _lift_pedals(self, time: float):
        self.pedal.append((time, False))
        self._press_sostenuto(time, False)

    # -- what is set -------------------------------------------------------------------------

    def set(self, time: float, out: Performance, kind: str, value: int, number: int = 0):
        """Remember a change and let the instrument that sounds have it."""
        self._settings[kind, number] = value
        if self.index is not None:
            out.changes.append(Change(time, self.index, kind, value, number))

    def tell(self, time: float, out: Performance):
        """Let an instrument that begins to sound have all that was set before."""
        for (kind, number), value in sorted(self._settings.items()):  # the bank comes before the program
            out.changes.append(Change(time, self.index, kind, value, number))

    def reset(self, time: float, out: Performance):
        """Go back to the state at the beginning of the file; what sounds ends."""
        self.release_all(time)
        self._lift_pedals(time)
        for (kind, number), value in _INITIAL.items():
            if (kind, number) in self._settings:
                self.set(time, out, kind, value, number)
        self._bank, self._parameter = [0, 0], _NO_PARAMETER
        self._values.clear()
        self.become(self.channel % 16 == DRUMS)

    def program(self, time: float, out: Performance, program: int, system: str):
        """A change of program, which makes the banks that were selected count.

        Args:
            system: GS, XG or GM2, where the file says so. Drums have bank 127 (126 of effects) in XG, 120 in GM2; in
                GS, 127 is another set of instruments.
        """
        high, low = self._bank
        if high == 120 or (high in (126, 127) and system != "GS"):
            self.become(True)
        elif self.channel % 16 != DRUMS or high == 121:
            self.become(self.drums and high == 0 and low == 0)  # GS makes drums without a bank
        if not self.drums:
            self.set(time, out, "bank", low if high in (0, 121) else high)
        self.set(time, out, "program", program)

    def control(self, time: float, out: Performance, number: int, value: int):
        """A controller, or one of the messages that have a controller's form."""
        if number in (0, 32):
            self._bank[number == 32] = value
        elif number in (98, 99):  # parameters that are not registered
            self._parameter = _NO_PARAMETER
        elif number in (100, 101):
            high, low = self._parameter
            self._parameter = (value, low) if number == 101 else (high, value)
        elif number in (_DATA, _DATA_LOW, _INCREMENT, _DECREMENT):
            self._enter(time, out, number, value)
        elif number == _SUSTAIN:
            self.pedal.append((time, value >= 64))
        elif number == _SOSTENUTO:
            self._press_sostenuto(time, value >= 64)
        elif number == _SOUND_OFF:  # also what a pedal holds
            self.release_all(time)
            if self.pedal and self.pedal[-1][1]:
                self.pedal += [(time, False), (time, True)]
            if self._caught:
                self._press_sostenuto(time, False)
                self._press_sostenuto(time, True)
        elif number in _NOTES_OFF:
            self.release_all(time)
        elif number == _RESET:  # RP-015: neither volume, pan, program nor bank
            self._lift_pedals(time)
            self._parameter = _NO_PARAMETER
            self.set(time, out, "bend", 0)
            self.set(time, out, "control", 0, 1)
            self.set(time, out, "control", 127, _EXPRESSION)
        elif number < _SOUND_OFF:
            self.set(time, out, "control", value, number)

    def _enter(self, time: float, out: Performance, number: int, value: int):
        """Set the registered parameter that is selected, or one half of its value, by a controller."""
        defaults = {_BEND_RANGE: [2, 0], _FINE: [64, 0], _COARSE: [64, 0]}
        if self._parameter not in defaults:
            return
        pair = self._values.setdefault(self._parameter, defaults[self._parameter])
        if number in (_DATA, _DATA_LOW):
            pair[number == _DATA_LOW] = value
        else:
            place = 1 if self._parameter == _FINE else 0
            pair[place] = min(127, max(0, pair[place] + (1 if number == _INCREMENT else -1)))
        if self._parameter == _BEND_RANGE:  # semitones, cents
            self.set(time, out, "range", 100 * pair[0] + pair[1])
            return
        fine, coarse = self._values.get(_FINE, [64, 0]), self._values.get(_COARSE, [64, 0])
        cents = 100 * (coarse[0] - 64) + (128 * fine[0] + fine[1] - 8192) / 81.92
        self.set(time, out, "tuning", round(cents))
