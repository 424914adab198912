"""Runs and previews on the page, and what has changed since a page was told last."""

from __future__ import annotations

import html

import gradio as gr
import pandas as pd

from errors import count
from run_log import duration
from studio.player import preview_tracks, value
from studio.runs import Run
from studio.visit import Studio

NO_RUNS = "There is no run here yet. Train one: python train.py RECORDINGS --metadata metadata/NAME.json"
NO_PREVIEWS = "This run has no previews. train.py writes one with each state, unless --no-preview is given."


def runs_html(runs: tuple[Run, ...]) -> str:
    """A card for each run."""
    if not runs:
        return f'<p class="player-hint">{html.escape(NO_RUNS)}</p>'
    return f'<div class="runs">{"".join(map(run_html, runs))}</div>'


def run_html(run: Run) -> str:
    """One card."""
    rows, corpus = [("step", f"{run.step:,}")], run.corpus
    for label, curve in (("loss", "loss"), ("held-out loss", "held_out_loss")):
        if run.last(curve) is not None:
            rows.append((label, f"{run.last(curve):.3f}"))
    if run.speed is not None:
        rows.append(("throughput", f"{run.speed:,.0f} s of audio a second"))
    if run.trained is not None:
        rows.append(("trained for", duration(run.trained)))
    if run.left is not None:
        rows.append(("time left", duration(run.left)))
    if run.preset:
        rows.append(("preset", run.preset))
    if "seconds" in corpus:
        n, n_held_out = corpus.get("n_recordings", 0), corpus.get("n_held_out", 0)
        rows.append(("corpus", f"{count(n, 'recording')}, {corpus['seconds'] / 60:.1f} min"))
        rows.append(("held out", count(n_held_out, "recording")))
        if corpus["n_problems"]:
            rows.append(("not used", count(corpus["n_problems"], "file")))
        rows.append(("sample rate", f"{corpus.get('sample_rate', 0):,} Hz"))
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in rows)
    trouble = f'<p class="trouble">{html.escape(run.trouble)}</p>' if run.trouble else ""
    word = {"training": "training now"}.get(run.status, run.status)
    return (
        f'<article class="run"><h3><span>{html.escape(run.name)}</span>'
        f'<span class="badge {run.status}">{word}</span></h3><dl>{listed}</dl>{trouble}</article>'
    )


def curves(run: Run | None) -> pd.DataFrame:
    """Columns ``step``, ``loss``, ``curve``."""
    names = {"loss": "training", "held_out_loss": "held out"}
    points = [(step, y, names[name]) for name, points in (run.curves if run else {}).items() for step, y in points]
    return pd.DataFrame(points, columns=["step", "loss", "curve"]).astype({"step": float, "loss": float, "curve": str})


def refresh(studio: Studio, seen: dict, run_name, preview_name, *models) -> list:
    """What has changed since this page was told last; the rest is left as it is."""
    runs, choices = {run.name: run for run in studio.runs.all()}, studio.models()
    names, playable = list(runs), [choice for _, choice in choices]
    busy = [name for name in names if runs[name].status == "training"]
    logged = [name for name in names if runs[name].curves.get("loss")]
    shown = [name for name in (*busy, *names) if runs[name].previews]
    run_chosen = run_name if run_name in runs else next(iter([*busy, *logged, *names]), None)
    preview_chosen = preview_name if preview_name in runs else next(iter([*shown, *names]), None)
    # Continue, A and B: the newest state of the first run; for B something else where there is.
    usual = [*playable[:1], *playable[:1], *(playable[1:2] or playable[:1])] or [None] * 3
    picked = [model if model in playable else usually for model, usually in zip(models, usual, strict=True)]
    run, previewed = runs.get(run_chosen), runs.get(preview_chosen)
    tracks = preview_tracks(previewed) if previewed else []
    news = {
        "cards": runs_html(tuple(runs.values())),
        "plot": (run_chosen, run.curves if run else {}),
        "previews": value(tracks, empty=NO_PREVIEWS if runs else NO_RUNS, other=tracks[-1]["id"] if tracks else None),
        "names": names,
        "choices": choices,
    }
    new = {key: news[key] != seen.get(key) for key in news}

    def choice(value, before, choices, changed: bool):
        return gr.Dropdown(choices=choices, value=value) if changed or value != before else gr.skip()

    return [
        news if any(new.values()) else gr.skip(),
        news["cards"] if new["cards"] else gr.skip(),
        curves(run) if new["plot"] else gr.skip(),
        news["previews"] if new["previews"] else gr.skip(),
        choice(run_chosen, run_name, names, new["names"]),
        choice(preview_chosen, preview_name, names, new["names"]),
        *(choice(model, was, choices, new["choices"]) for model, was in zip(picked, models, strict=True)),
    ]
