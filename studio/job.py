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
MAX_TITLE = 40  # characters of chords that a take is called by
MAX_SEED = 2**53 - 1  # beyond it, JavaScript has no integers
SUFFIXES = (
    *(".musicxml", ".xml", ".mxl", ".mid", ".midi", ".smf", ".kar", ".rmi"),
    *(".wav", ".aif", ".aiff", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".caf", ".w64"),
)


@dataclass(frozen=True)
class Job:
    """One rollout.

    ``metadata`` and ``prompt`` are paths that the server has chosen, never a visitor's; ``name`` is what files are
    called by, ``title`` what the page calls the prompt. ``length`` is in ``unit``: ``seconds`` or ``bars``; ``tempo``
    in quarters a minute, ``start`` and ``stop`` in seconds of an audio prompt. Of these three, None and 0 are not
    given: Gradio sends 0 for an empty number that has just been shown.
    """

    metadata: str
    prompt: str | None = None
    name: str = "prompt"
    title: str = ""
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
        start = optional("The start", self.start, 0, 1e6)
        stop = optional("The end", self.stop, 0, 1e6)
        if stop is not None and stop < (start or 0) + 0.1:
            raise UserError("The end must be after the start.")
        return dataclasses.replace(
            self,
            length=length,
            tempo=optional("The tempo", self.tempo, MIN_TEMPO, MAX_TEMPO),
            start=start,
            stop=stop,
            temperature=within("The temperature", self.temperature, 0, 10),
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


def optional(what: str, value, low: float, high: float) -> float | None:
    """:func:`within`; None where nothing is given, which is 0 as well."""
    if value is None or value == "" or (value == 0 and not isinstance(value, bool)):
        return None
    return within(what, value, low, high)


def plain_name(name: str) -> str:
    """A visitor's file name without its suffix, of harmless characters."""
    stem = PurePath(name.replace("\\", "/")).stem
    return harmless(stem)[:60] or "prompt"


def harmless(text: str) -> str:
    """Without characters that a file system or a header might take for something else."""
    return regex.sub(r"[^\w .,()#+-]", "", text).strip(" .")


def chords_title(chords: str) -> str:
    """Typed chords in one line, shortened."""
    line = " ".join(chords.split())
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1] + "…"


def take_name(job: Job, number: int) -> str:
    """What take ``number`` of a job is called, on the page and as a download: by its prompt and seed."""
    return f"{job.title or job.name}, seed {job.seed}" + f", {number} of {job.continuations}" * (job.continuations > 1)


def download_name(name: str) -> str:
    """:func:`take_name` without what cannot be in a file's name: ``Dm7 C-E, seed 0`` for ``Dm7 | C/E, seed 0``."""
    return harmless(" ".join(name.replace("|", " ").replace("/", "-").split()))


def sentence(text: str, private: dict[str, str]) -> str:
    """A one-line error as the page says it: without paths of the server and options of a command line.

    Args:
        private: what takes the place of each path.
    """
    for path, name in private.items():
        text = text.replace(path, name)
    text = regex.sub(r"(?<!\w)--(\w)", r"\1", text).strip()
    return text if text.endswith((".", "!", "?")) else text + "."
