"""What programs call: ``/continue`` and ``/runs``, by Gradio's client or by curl."""

from __future__ import annotations

import gradio as gr

from errors import UserError
from studio.job import SUFFIXES
from studio.visit import BUSY, Studio, model_name


def api(studio: Studio):
    """``/continue`` and ``/runs``, for Gradio's client and for curl."""

    def continue_(
        prompt,
        chords,
        model,
        length,
        unit,
        temperature,
        seed,
        continuations,
        tempo,
        meter,
        key,
        instrument,
        form,
        request: gr.Request,
    ):
        """Continue a prompt: a file, or chords, or without both the bundled one. Returns the files, and what made
        them."""
        try:
            job = studio.job(
                model or next((name for _, name in studio.models()), None),
                prompt,
                chords=chords,
                length=length,
                unit=unit,
                temperature=temperature,
                seed=seed,
                continuations=continuations,
                tempo=tempo,
                meter=meter,
                key=key,
                instrument=instrument,
            )
            if form not in ("wav", "flac", "mid"):
                raise UserError("The form is wav, flac or mid.")
            for last, token, _ in studio.roll(job, request.session_hash):  # noqa: B007 - the last one says it all
                pass
            folder = studio.storage.result(token)
            files = [folder / name for name in last["files"]]
            if form != "wav":
                files = [folder / studio.rollouts.render(folder, i, form) for i in range(len(files))]
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        said = {"model": model_name(job), "step": last["step"], "seed": job.seed, "join": last["join"]}
        return [str(file) for file in files], {**said, "seconds": last["seconds"]}

    def runs():
        """Every run of the folder, as the page shows it."""
        names = (
            "name",
            "status",
            "trouble",
            "preset",
            "step",
            "states",
            "trained",
            "left",
            "speed",
            "corpus",
            "previews",
        )
        return [{name: getattr(run, name) for name in names} for run in studio.runs.all()]

    with gr.Column(visible=False):
        inputs = [
            gr.File(label="prompt", file_types=list(SUFFIXES)),
            gr.Textbox("", label="chords"),
            gr.Textbox("", label="model"),
            gr.Number(10, label="length"),
            gr.Textbox("seconds", label="unit"),
            gr.Number(1, label="temperature"),
            gr.Number(0, label="seed"),
            gr.Number(1, label="continuations"),
            gr.Number(0, label="tempo"),
            gr.Textbox("", label="meter"),
            gr.Textbox("", label="key"),
            gr.Textbox("", label="instrument"),
            gr.Textbox("wav", label="form"),
        ]
        outputs = [gr.File(label="files", file_count="multiple"), gr.JSON(label="said")]
        listed = gr.JSON(label="runs")
        gr.Button().click(continue_, inputs, outputs, api_name="continue", **BUSY)
        gr.Button().click(runs, None, listed, api_name="runs", queue=False)
