"""Runs as their files show them: read while training writes them, without the trainer's help, and without PyTorch."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import regex

from checkpoint import Metadata, StateSummary, is_held, previous_state, read_metadata, summarize_state
from errors import UserError
from studio.job import sentence

FRESH = 1.0  # s that one reading of the folder serves everybody
MAX_POINTS = 400  # of a curve
MAX_LINE = 1 << 16  # bytes of a line of the log
_PREVIEW = regex.compile(r"step-(\d{7,})\.wav")


@dataclass(frozen=True)
class Run:
    """A run at one moment.

    ``status``: ``training``, ``finished``, ``stopped`` or ``damaged``; ``trouble`` is a sentence about what is wrong,
    or empty. ``step`` is the newest that is known, ``states`` the steps of the states that can be played: of the newest
    and of the one before it, None for what is missing or damaged. Times are in seconds, ``speed`` in seconds of audio
    a second; None where nobody has said. ``curves`` are ``(step, value)`` of ``loss`` and of ``held_out_loss``.
    ``previews`` are the steps that have one.
    """

    name: str
    path: Path
    status: str
    trouble: str = ""
    preset: str = ""
    step: int = 0
    states: tuple[int | None, int | None] = (None, None)
    trained: float | None = None
    left: float | None = None
    speed: float | None = None
    curves: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    corpus: dict = field(default_factory=dict)
    previews: tuple[int, ...] = ()
    preview_folder: Path | None = None

    def last(self, curve: str) -> float | None:
        """The newest value of a curve."""
        points = self.curves.get(curve)
        return points[-1][1] if points else None


class Runs:
    """The runs of a folder of metadata files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock, self._read, self._runs = threading.Lock(), -math.inf, ()
        self._logs: dict[Path, Log] = {}
        self._states: dict[Path, tuple] = {}

    def all(self) -> tuple[Run, ...]:
        """Every run, by name; read at most once a second."""
        with self._lock:
            if time.monotonic() - self._read > FRESH:
                self._runs = tuple(self._run(path) for path in self._paths())
                self._read = time.monotonic()
            return self._runs

    def get(self, name: str) -> Run | None:
        """The run of a name."""
        return next((run for run in self.all() if run.name == name), None)

    def _paths(self) -> list[Path]:
        """Metadata files, and those that a training will write when it has read its corpus."""
        try:
            found = {path for path in self.folder.iterdir() if path.suffix == ".json" and path.is_file()}
            held = {path.with_suffix(".json") for path in self.folder.iterdir() if is_held(path)}
        except OSError:
            return []
        return sorted(found | held, key=lambda path: path.name.lower())

    def _run(self, path: Path) -> Run:
        name, training = path.stem, is_held(path.with_suffix(""))
        if training and not path.exists():
            return Run(name, path, "training", "It reads its corpus; the first state comes soon.")
        try:
            metadata = read_metadata(path)
        except UserError as error:
            return Run(name, path, "training" if training else "damaged", self._sentence(error))
        place, states, troubles, resumable = metadata.resolve("state"), [], [], True
        for file in (place, previous_state(place)):
            try:
                summary = self._summary(file)
                states.append(summary.step)
                resumable &= summary.resumable or file != place
            except UserError as error:
                states.append(None)
                missing = not file.exists()
                if not (missing and (training or file != place)):
                    troubles.append(self._sentence(error))
        log = self._log(metadata)
        damaged = states[0] is None and place.exists()
        finished = log.left == 0 or not resumable or (not log.step and states[0] is not None)
        status = "training" if training else "damaged" if damaged else "finished" if finished else "stopped"
        folder = metadata.resolve("previews")
        return Run(
            name,
            path,
            status,
            " ".join(troubles),
            metadata.preset,
            max([log.step, *(step for step in states if step)]),
            tuple(states),
            log.seconds,
            log.left if training else None,
            log.speed if training else None,
            {name: thin(points) for name, points in log.curves.items()},
            {**metadata.corpus, "n_problems": self._n_problems(place.with_name("corpus.json"))},
            previews(folder),
            folder,
        )

    def _sentence(self, error: UserError) -> str:
        return sentence(str(error), {f"{self.folder}/": ""})

    def _summary(self, path: Path) -> StateSummary:
        """Of a state file, which is read whole only when it is a new one."""
        try:
            status = path.stat()
            key = status.st_ino, status.st_mtime_ns, status.st_size
        except OSError:
            key = None
        if path not in self._states or self._states[path][0] != key:
            try:
                self._states[path] = key, summarize_state(path)
            except UserError as error:
                self._states[path] = key, error
        found = self._states[path][1]
        if isinstance(found, UserError):
            raise found
        return found

    def _log(self, metadata: Metadata) -> Log:
        path = metadata.resolve("log")
        log = self._logs.setdefault(path, Log(path))
        log.read()
        return log

    def _n_problems(self, path: Path) -> int | None:
        try:
            if path.stat().st_size > 1 << 24:
                return None
            return len(json.loads(path.read_text())["unusable"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None


class Log:
    """``log.jsonl``, of which only what is new is read each time. Lines that are none are passed over."""

    def __init__(self, path: Path):
        self.path = path
        self._forget()

    def read(self):
        """Read what has been added; all of it where the file is another one."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._forget()
                    self._inode = status.st_ino
                file.seek(self._offset)
                for line in iter(lambda: file.readline(MAX_LINE), b""):
                    if not line.endswith(b"\n") and len(line) < MAX_LINE:
                        break  # half of it is still to be written
                    self._offset += len(line)
                    self._take(line)
        except OSError:
            self._forget()

    def _forget(self):
        self._inode, self._offset = -1, 0
        self.step, self.seconds, self.left, self.speed = 0, None, None, None
        self.curves: dict[str, list[tuple[int, float]]] = {"loss": [], "held_out_loss": []}

    def _take(self, line: bytes):
        try:
            values = json.loads(line)
            step = int(values["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return
        self.step = max(self.step, step)
        for key, name in (("seconds", "seconds"), ("seconds_left", "left"), ("audio_seconds_per_second", "speed")):
            if _is_number(values.get(key)):
                setattr(self, name, float(values[key]))
        for name, points in self.curves.items():
            if _is_number(values.get(name)):
                points.append((step, float(values[name])))
                if len(points) > 8 * MAX_POINTS:
                    points[:] = thin(points, 4 * MAX_POINTS)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def thin(points, most: int = MAX_POINTS) -> tuple[tuple[int, float], ...]:
    """At most ``most`` points of a curve: means of neighbours, at the last of their steps; the newest as it is."""
    size = -(-len(points) // most)
    if size <= 1:
        return tuple(points)
    older = [points[i : min(i + size, len(points) - 1)] for i in range(0, len(points) - 1, size)]
    means = [(group[-1][0], sum(value for _, value in group) / len(group)) for group in older]
    return (*means[: most - 1], points[-1])


def previews(folder: Path) -> tuple[int, ...]:
    """The steps that have a preview, in order."""
    try:
        names = os.listdir(folder)
    except OSError:
        return ()
    return tuple(sorted(int(match[1]) for match in map(_PREVIEW.fullmatch, names) if match))


def preview_file(folder: Path, step: int, suffix: str) -> Path:
    """The file of a step's preview: ``.wav`` or ``.png``."""
    return folder / f"step-{step:07d}{suffix}"
