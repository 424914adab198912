"""What a visitor asks for, checked before anything works on it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import PurePath

import regex

from errors import UserError
from meter import MAX_TEMPO, MIN_TEMPO, parse_time_signature

MAX_SECONDS = 600.0  # of one continuation
MAX_TOTAL = 1200.0  # s of all continuations of a job
MAX_BARS, MAX_CONTINUATIONS, MAX_TEXT = 400, 8, 2000
MAX_SEED = 2**53 - 1  # beyond it, JavaScript has no integers
NUMBERS = {"tempo": "The tempo", "start": "The start", "stop": "The end"}  # that may be left out
SUFFIXES = (
    *(".musicxml", ".xml", ".mxl", ".mid", ".midi"),
    *(".wav", ".aif", ".aiff", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".caf", ".w64"),
)


@dataclass(frozen=True)
class Job:
    """One rollout.

    ``metadata`` and ``prompt`` are paths that the server has chosen, never a visitor's; ``name`` is what the visitor
    calls the prompt. ``length`` is in ``unit``: ``seconds`` or ``bars``; ``tempo`` in quarters a minute, ``start`` and
    ``stop`` in seconds of an audio prompt. Numbers that are left out are None.
    """

    metadata: str
    prompt: str | None = None
    name: str = "prompt"
    previous: bool = False
    chords: str = ""
    key: str = ""
    instrument: str = ""
    tempo: float | None = None
    meter: str = ""
    start: float | None = None
    stop: float | None = None
    length: float = 10.0
    unit: str = "seconds"
    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0
    continuations: int = 1

    def checked(self) -> Job:
        """The same, of the right types.

        Raises:
            UserError: a value beyond its limits.
        """
        bars = self.unit == "bars"
        if self.unit not in ("seconds", "bars"):
            raise UserError("The length is in seconds or bars.")
        n = whole("The number of continuations", self.continuations, 1, MAX_CONTINUATIONS)
        length = within("The length", self.length, 0.1, MAX_BARS if bars else MAX_SECONDS)
        if bars and length != int(length):
            raise UserError("The length in bars must be a whole number.")
        if not bars and n * length > MAX_TOTAL:
            raise UserError(f"{n} x {length:g} seconds are more than {MAX_TOTAL:g}; ask for less.")
        if self.prompt is None and not self.chords.strip():
            raise UserError("Give a prompt: a file or chords.")
        for name in ("chords", "key", "instrument", "meter"):
            if len(getattr(self, name)) > MAX_TEXT:
                raise UserError(f"The text of {name} is too long.")
        if self.meter.strip():
            try:
                parse_time_signature(self.meter)
            except UserError as error:
                raise UserError(sentence(str(error), {})) from None
        start = optional(NUMBERS["start"], self.start, 0, 1e6)
        stop = optional(NUMBERS["stop"], self.stop, 0, 1e6)
        if stop is not None and stop < (start or 0) + 0.1:
            raise UserError("The end must be after the start.")
        return dataclasses.replace(
            self,
            length=length,
            tempo=optional(NUMBERS["tempo"], self.tempo, MIN_TEMPO, MAX_TEMPO),
            start=start,
            stop=stop,
            temperature=within("The temperature", self.temperature, 0, 10),
            top_k=whole("Top-k", self.top_k, 0, 65536),
            seed=whole("The seed", self.seed, 0, MAX_SEED),
            continuations=n,
        )


def within(what: str, value, low: float, high: float) -> float:
    """A finite number from ``low`` to ``high``; UserError else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # NaN
        raise UserError(f"{what} must be a number.")
    if not low <= value <= high:
        raise UserError(f"{what} must be {low:g} to {high:g}.")
    return float(value)


def whole(what: str, value, low: int, high: int) -> int:
    """An integer from ``low`` to ``high``; UserError else."""
    number = within(what, value, low, high)
    if number != int(number):
        raise UserError(f"{what} must be a whole number.")
    return int(value)


def number(what: str, value):
    """A number that a visitor has typed, None where nothing is; anything but a text as it is.

    Raises:
        UserError: a text that is no number.
    """
    if not isinstance(value, str):
        return value
    try:
        return float(value.strip().replace(",", ".")) if value.strip() else None
    except ValueError:
        raise UserError(f"{what} must be a number.") from None


def optional(what: str, value, low: float, high: float) -> float | None:
    """:func:`within`, or None."""
    return None if value is None else within(what, value, low, high)


def plain_name(name: str) -> str:
    """A visitor's file name without its suffix, of harmless characters."""
    stem = PurePath(name.replace("\\", "/")).stem
    return regex.sub(r"[^\w .()+-]", "", stem).strip(" .")[:60] or "prompt"


def sentence(text: str, private: dict[str, str]) -> str:
    """A one-line error as the page says it: without paths of the server and options of a command line.

    Args:
        private: what takes the place of each path.
    """
    for path, name in private.items():
        text = text.replace(path, name)
    text = regex.sub(r"(?<!\w)--(\w)", r"\1", text).strip()
    return text if text.endswith((".", "!", "?")) else text + "."
