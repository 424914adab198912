"""What a visitor may do: choose a model, roll out, stop."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from errors import UserError
from studio.job import SUFFIXES, Job, chords_title, plain_name, take_name
from studio.player import result_track
from studio.rollouts import Rollout, Rollouts
from studio.runs import Runs
from studio.storage import Storage

BUNDLED = Path(__file__).parents[1] / "demo" / "prompt.musicxml"
BUNDLED_TITLE = "Chorale BWV 66.6"
PREVIOUS = "@before"  # behind the name of a run: the state before its newest
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
        chords = (fields.get("chords") or "").strip()
        if file is not None and Path(file).suffix.lower() not in SUFFIXES:
            raise UserError("Give a MusicXML, MIDI or audio file: " + " ".join(SUFFIXES) + ".")
        if chords:
            prompt, name, title = None, "chords", chords_title(chords)
        else:
            prompt = file or str(BUNDLED)
            name = plain_name(Path(prompt).name)
            title = name if file else BUNDLED_TITLE
        known = {key: value for key, value in fields.items() if value is not None}
        previous = (model or "").endswith(PREVIOUS)
        job = Job(metadata=str(run.path), previous=previous, prompt=prompt, name=name, title=title, **known)
        return job.checked()

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


def given(names: list[str], values: tuple) -> dict:
    """The fields of a form by their names.

    Raises:
        UserError: the length is empty; other numbers may be.
    """
    fields = dict(zip(names, values, strict=True))
    if fields["length"] is None:
        raise UserError("Give a length, in seconds or bars.")
    return fields


def reveal(button: gr.Button, elem_id: str):
    """Have a press of a button scroll to an element that is out of sight: on a phone, it is below the form."""
    script = f"""() => {{
        const element = document.getElementById("{elem_id}"), top = element.getBoundingClientRect().top;
        if (top < 0 || top > innerHeight / 2) element.scrollIntoView({{ block: "start", behavior: "smooth" }});
    }}"""
    button.click(None, None, None, js=script, **QUIET)


def model_name(job: Job) -> str:
    return Path(job.metadata).stem


def tracks_of(job: Job, token: str, begun: dict, message: dict, label: str = "") -> list[dict]:
    """The tracks of a rollout as far as it is, named by their prompt, seed and number, and by what made them."""
    said, made_by = {**begun, **message}, f"{model_name(job)}, step {begun['step']}"
    return [
        result_track(token, k, f"{label}{take_name(job, k)} ({made_by})", said) for k in range(1, job.continuations + 1)
    ]
