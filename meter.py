"""Tempo and time signature: what turns bars into seconds."""

from __future__ import annotations

from dataclasses import dataclass

import regex

from errors import UserError

MIN_TEMPO, MAX_TEMPO = 5.0, 1000.0  # quarters a minute
MAX_BEATS, BEAT_TYPES = 64, (1, 2, 4, 8, 16, 32, 64)
_METER = regex.compile(r"(\d{1,2})/(\d{1,2})")


@dataclass(frozen=True)
class Meter:
    """``tempo`` in quarter notes a minute, as in MIDI and in DAWs; time signature ``beats``/``beat_type``."""

    tempo: float = 120.0
    beats: int = 4
    beat_type: int = 4

    @classmethod
    def if_sane(cls, tempo: float, beats: int, beat_type: int) -> Meter | None:
        """Of what a file says; None where no DAW could show it, and no bar be counted."""
        sane = MIN_TEMPO <= tempo <= MAX_TEMPO and 1 <= beats <= MAX_BEATS and beat_type in BEAT_TYPES
        return cls(tempo, beats, beat_type) if sane else None

    @property
    def time_signature(self) -> tuple[int, int]:
        """As it is written, above and below."""
        return self.beats, self.beat_type

    @property
    def bar_seconds(self) -> float:
        """Length of a bar."""
        return self.beats * 4 / self.beat_type * 60 / self.tempo


def with_options(meter: Meter | None, tempo: float | None, time_signature: str | None) -> Meter | None:
    """A prompt's meter, or what the user says instead; None where neither has a tempo.

    Raises:
        UserError: as of :func:`parse_time_signature`.
    """
    if meter is None and tempo is None:
        return None
    beats = parse_time_signature(time_signature) if time_signature else (meter or Meter()).time_signature
    return Meter(tempo or meter.tempo, *beats)


def parse_time_signature(text: str) -> tuple[int, int]:
    """``"3/4"`` as ``(3, 4)``.

    Raises:
        UserError: another form, or no such note value.
    """
    match = _METER.fullmatch(text.strip())
    beats, beat_type = map(int, match.groups()) if match else (0, 0)
    if not 1 <= beats <= MAX_BEATS or beat_type not in BEAT_TYPES:
        raise UserError(f"--meter {text}: write it as 4/4, 3/4 or 6/8")
    return beats, beat_type
