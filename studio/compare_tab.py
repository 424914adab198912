"""The tab that compares two states or two models."""

from __future__ import annotations

import gradio as gr

from errors import UserError
from studio.continue_tab import prompt_inputs
from studio.player import player, value
from studio.visit import BUSY, PRIVATE, QUIET, Studio, given, reveal, status, tracks_of


def compare_tab(studio: Studio) -> list[gr.Dropdown]:
    """The tab; returns its two choices of a model."""
    with gr.Row():
        with gr.Column(min_width=300):
            models = [
                gr.Dropdown(
                    label=letter, choices=studio.models(), value=None, interactive=True, elem_id=f"compare-{letter}"
                )
                for letter in "AB"
            ]
            fields = prompt_inputs("compare")
            with gr.Row():
                go = gr.Button("Compare", variant="primary", elem_id="compare-go", min_width=120)
                stop = gr.Button("Stop", min_width=80)
        with gr.Column(min_width=300):
            line = gr.HTML(status(""), container=False, elem_id="compare-status")
            empty = "Two states or two models go on from the same prompt with the same seed. Switch while it plays."
            heard = player("Comparison", empty, pair=True, elem_id="compare-player")
    names = list(fields)

    def compare(request: gr.Request, a, b, *values):
        tracks: list[dict] = []
        try:
            chosen = given(names, values)
            jobs = [studio.job(model, **chosen) for model in (a, b)]
            for i, (letter, job) in enumerate(zip("AB", jobs, strict=True)):
                yield status(f"{letter}: reading the prompt ...", i / 2), gr.skip()
                now = []
                for message, token, begun in studio.roll(job, request.session_hash):
                    now = tracks_of(job, token, begun, message, f"{letter}: ")
                    done = (i + (1.0 if message["event"] == "done" else message.get("done", 0.0))) / 2
                    both = tracks + now
                    play = both[0]["id"] if message["event"] != "begun" or i else None
                    other = both[1]["id"] if len(both) > 1 else None
                    yield status(f"{letter}: {100 * done:.0f} %", done), value(both, play, other=other)
                tracks += now
            yield status("Switch with A/B, or choose one."), gr.skip()
        except UserError as error:
            yield status(str(error), error=True), gr.skip()

    told = {"outputs": [line, heard], "show_progress": "minimal", "show_progress_on": line}
    reveal(go, "compare-status")
    go.click(compare, [*models, *fields.values()], **told, **BUSY, **PRIVATE)
    stop.click(studio.stop, None, None, **QUIET)
    return models
