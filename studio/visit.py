"""What a visitor may do: choose a model, roll out, stop."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from errors import UserError
from studio.job import NUMBERS, SUFFIXES, Job, number, plain_name
from studio.player import result_track
from studio.rollouts import Rollout, Rollouts
from studio.runs import Runs
from studio.storage import Storage

BUNDLED = Path(__file__).parents[1] / "demo" / "prompt.musicxml"
PREVIOUS = "@before"  # behind the name of a run: the state before its newest
MAX_TITLE = 40  # characters
BUSY = {"concurrency_id": "rollout", "concurrency_limit": 1}  # of events: one rollout at a time
PRIVATE = {"api_visibility": "private"}
QUIET = {"show_progress": "hidden", "queue": False, **PRIVATE}


class Studio:
    """What the page's functions share."""

    def __init__(self, runs: Runs, storage: Storage, rollouts: Rollouts):
        self.runs, self.storage, self.rollouts = runs, storage, rollouts
        self.rolling: dict[str | None, Rollout] = {}  # what Stop is for, by session

    def models(self) -> list[tuple[str, str]]:
        """What can be played, as labels and values of a choice."""
        found = []
        for run in self.runs.all():
            newest, before = run.states
            if newest is not None:
                found.append((f"{run.name}, step {newest}", run.name))
            if before is not None:
                found.append((f"{run.name}, step {before} (the state before)", run.name + PREVIOUS))
        return found

    def job(self, model: str | None, file: str | None, **fields) -> Job:
        """A job of a visitor's words.

        Raises:
            UserError: no such model, or a value that is none.
        """
        name = (model or "").removesuffix(PREVIOUS)
        run = self.runs.get(name)
        if run is None:
            raise UserError(f"There is no model {name!r}; choose one of the list." if name else "Choose a model.")
        chords = fields.get("chords") or ""
        if file is not None and Path(file).suffix.lower() not in SUFFIXES:
            raise UserError("Give a MusicXML, MIDI or audio file: " + " ".join(SUFFIXES) + ".")
        path = file or (None if chords.strip() else str(BUNDLED))
        fields |= {key: number(what, fields.get(key)) for key, what in NUMBERS.items()}
        known = {key: value for key, value in fields.items() if value is not None}
        return Job(
            metadata=str(run.path),
            previous=(model or "").endswith(PREVIOUS),
            prompt=None if chords.strip() else path,
            name=plain_name(Path(path).name) if path else "chords",
            **known,
        ).checked()

    def roll(self, job: Job, session: str | None) -> Iterator[tuple[dict, str, dict | None]]:
        """Messages of a rollout, its token, and what it said when it had begun."""
        token, folder = self.storage.new_result()
        rollout, begun = self.rollouts.submit(job, folder), None
        self.rolling[session] = rollout
        try:
            for message in rollout:
                begun = message if message["event"] == "begun" else begun
                yield message, token, begun
        finally:
            rollout.stopped = True
            self.rolling.pop(session, None)

    def stop(self, request: gr.Request):
        """End what this visitor has rolling, with what has been made."""
        rollout = self.rolling.get(request.session_hash)
        if rollout is not None:
            rollout.stopped = True


def status(text: str, done: float | None = None, error: bool = False) -> str:
    """A line on the page, read out where a screen reader is."""
    bar = "" if done is None else f'<progress max="1" value="{done:.3f}" aria-label="Progress"></progress>'
    kind = ' class="error" role="alert"' if error else ""
    return f'<div class="status" role="status">{bar}<span{kind}>{html.escape(text)}</span></div>'


def model_name(job: Job) -> str:
    return Path(job.metadata).stem


def title(job: Job) -> str:
    """What a visitor calls the prompt of a job: the name of the file, or the chords."""
    chords = " ".join(job.chords.split())
    if chords:
        return chords if len(chords) <= MAX_TITLE else chords[: MAX_TITLE - 4] + " ..."
    return "chorale" if job.prompt == str(BUNDLED) else job.name


def tracks_of(job: Job, token: str, begun: dict, message: dict, label: str = "") -> list[dict]:
    """The tracks of a rollout as far as it is, and what they are."""
    done, n, tracks = message["event"] == "done", job.continuations, []
    said = {**begun, **{key: message[key] for key in ("seconds", "peaks") if key in message}}
    for k in range(1, n + 1):
        made = f"{model_name(job)}, step {begun['step']}, seed {job.seed}" + f", {k} of {n}" * (n > 1)
        tracks.append(result_track(token, k, f"{label}{title(job)}: {made}", said, said["peaks"][k - 1], done))
    return tracks
