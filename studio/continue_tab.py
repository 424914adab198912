"""The tab that continues a prompt, and the questions that comparing asks as well."""

from __future__ import annotations

import dataclasses
import secrets
import time

import gradio as gr

from errors import UserError
from run_log import duration
from studio.job import MAX_CONTINUATIONS, MAX_SECONDS, SUFFIXES, Job
from studio.player import player, value
from studio.visit import BUSY, PRIVATE, QUIET, Studio, given, reveal, status, tracks_of

MAX_KEPT = 12  # results that one visitor sees
NOTHING_YET = "Press Continue: without a file or chords, the eight bars of a chorale that come with nextframe go on."
EXAMPLE_MODEL = "chorales"  # the run that comes with nextframe
# What the form says for each; the rest of it is as it was at first. Without chords, the bundled chorale goes on.
EXAMPLES = {
    "Bach chorale": {"seed": 2},
    "Jazz by piano": {"chords": "Dm7 | G7 | Cmaj7 | A7", "tempo": 84, "instrument": "piano"},
    "Minor by organ": {"chords": "i | iv | V7 | i", "key": "D minor", "tempo": 84, "instrument": "church organ"},
}
EMPTY = "(...values) => values.map((value) => value || null)"


def prompt_inputs(prefix: str) -> dict:
    """What both tabs ask for."""
    fields = {
        "file": gr.File(
            label="Prompt: MusicXML, MIDI or audio", file_types=list(SUFFIXES), height=130, elem_id=f"{prefix}-file"
        ),
        "chords": gr.Textbox(
            label="or chords", placeholder="Dm7 | G7 | Cmaj7 | A7", max_length=2000, elem_id=f"{prefix}-chords"
        ),
    }
    with gr.Row():
        fields["length"] = gr.Number(
            label="Length", value=10, minimum=0.1, maximum=MAX_SECONDS, min_width=80, elem_id=f"{prefix}-length"
        )
        fields["unit"] = gr.Radio(["seconds", "bars"], label="in", value="seconds", min_width=200, scale=2)
        fields["seed"] = gr.Number(
            label="Seed", value=0, precision=0, minimum=0, min_width=80, elem_id=f"{prefix}-seed"
        )
    return fields


def more_inputs() -> dict:
    """What is seldom changed."""
    fields = {}
    with gr.Accordion("More", open=False) as more:
        with gr.Row():
            fields["temperature"] = gr.Slider(
                0, 2, 1, step=0.05, label="Temperature", info="1: as varied as the recordings", min_width=200
            )
        with gr.Row():
            fields["tempo"] = gr.Number(
                label="Tempo", info="quarters a minute, of chords and bars", value=None, min_width=150
            )
            fields["meter"] = gr.Textbox(label="Time signature", placeholder="4/4", max_length=5, min_width=150)
        with gr.Row():
            fields["key"] = gr.Textbox(
                label="Key of Roman numerals", placeholder="D minor", max_length=40, min_width=150
            )
            fields["instrument"] = gr.Textbox(label="Plays chords", placeholder="piano", max_length=60, min_width=150)
        with gr.Row():
            fields["start"] = gr.Number(label="From (s)", info="of an audio file", value=None, min_width=150)
            fields["stop"] = gr.Number(label="To (s)", info="of an audio file", value=None, min_width=150)
    # A number without a value becomes 0 when Gradio first shows it.
    numbers = [fields[name] for name in ("tempo", "start", "stop")]
    more.expand(None, numbers, numbers, js=EMPTY, **QUIET)
    return fields


def continue_tab(studio: Studio) -> gr.Dropdown:
    """The tab; returns its choice of a model."""
    with gr.Row(elem_classes="examples"):
        examples = {
            name: gr.Button(f"▶ {name}", size="sm", min_width=90, elem_id=f"example-{i}")
            for i, name in enumerate(EXAMPLES)
        }
    with gr.Row():
        with gr.Column(min_width=300):
            model = gr.Dropdown(label="Model", choices=studio.models(), interactive=True, elem_id="continue-model")
            fields = prompt_inputs("continue")
            fields["continuations"] = gr.Slider(1, MAX_CONTINUATIONS, 1, step=1, label="Continuations")
            go = gr.Button("Continue", variant="primary", elem_id="continue-go")
            fields |= more_inputs()
        with gr.Column(min_width=300):
            line = gr.HTML(status(""), container=False, elem_id="continue-status")
            with gr.Row():
                stop = gr.Button("Stop", elem_id="continue-stop", min_width=80)
                again = gr.Button("Again", elem_id="continue-again", min_width=80)
                vary = gr.Button("Vary", elem_id="continue-vary", min_width=80)
            heard = player("Continuations", NOTHING_YET, elem_id="continue-player")
    last, kept, names = gr.State(None), gr.State([]), list(fields)

    def continue_now(request: gr.Request, model, kept, *values):
        yield from perform(lambda: studio.job(model, **given(names, values)), kept, request)

    def once_more(request: gr.Request, last, kept):
        yield from perform(lambda: the_last(last), kept, request)

    def varied(request: gr.Request, last, kept):
        other = secrets.randbelow(10**6)
        yield from perform(lambda: dataclasses.replace(the_last(last), seed=other), kept, request)

    def the_last(last: Job | None) -> Job:
        if last is None:
            raise UserError("Press Continue first.")
        return last

    def perform(make, kept: list, request: gr.Request):
        """Yields the line, the player, the last job, and what is kept."""
        try:
            job = make()
            yield status("Reading the prompt ..."), gr.skip(), job, kept
            began, tracks = time.monotonic(), []
            for message, token, begun in studio.roll(job, request.session_hash):
                tracks = tracks_of(job, token, begun, message)
                kept_now = (tracks + kept)[:MAX_KEPT]
                done = message.get("done", 0.0)
                if message["event"] == "done":
                    length = begun["seconds"] - begun["join"]
                    text = (
                        "Stopped here."
                        if message["stopped"]
                        else f"{length:.1f} s in {time.monotonic() - began:.1f} s."
                    )
                    text += "".join(f" The prompt {remark}." for remark in message["remarks"])
                    if message["other_tempo"]:
                        text += f" It goes on at about {message['other_tempo']:.0f} quarters a minute: no loop."
                    yield status(text), value(kept_now, tracks[0]["id"]), job, kept_now
                elif message["event"] == "begun":
                    began = time.monotonic()
                    yield status("The first seconds come ...", 0.0), value(kept_now), job, kept
                else:
                    left = (time.monotonic() - began) / done * (1 - done)
                    text = f"{100 * done:.0f} %, {duration(left)} left"
                    yield status(text, done), value(kept_now, tracks[0]["id"]), job, kept
        except UserError as error:
            yield status(str(error), error=True), gr.skip(), gr.skip(), gr.skip()

    told = {"outputs": [line, heard, last, kept], "show_progress": "minimal", "show_progress_on": line}
    asked, at_first = [model, kept, *fields.values()], {name: field.value for name, field in fields.items()}

    def filled(example: dict) -> list:
        known = EXAMPLE_MODEL in [name for _, name in studio.models()]
        return [EXAMPLE_MODEL if known else gr.skip(), *{**at_first, **example}.values()]

    for name, button in examples.items():
        filling = button.click(lambda name=name: filled(EXAMPLES[name]), None, [model, *fields.values()], **QUIET)
        filling.success(continue_now, asked, **told, **BUSY, **PRIVATE)
    for button in (go, again, vary, *examples.values()):
        reveal(button, "continue-status")
    go.click(continue_now, asked, **told, **BUSY, **PRIVATE)
    again.click(once_more, [last, kept], **told, **BUSY, **PRIVATE)
    vary.click(varied, [last, kept], **told, **BUSY, **PRIVATE)
    stop.click(studio.stop, None, None, **QUIET)
    return model
