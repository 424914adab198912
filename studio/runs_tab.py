"""Runs and previews on the page, and what has changed since a page was told last."""

from __future__ import annotations

import html

import gradio as gr
import pandas as pd

from run_log import duration
from studio.player import preview_tracks, value
from studio.runs import Run
from studio.visit import Studio

NO_RUNS = "There is no run here yet. Train one: python train.py RECORDINGS --metadata metadata/NAME.json"
NO_PREVIEWS = "This run has no previews. train.py writes one with each state, unless --no-preview is given."


def runs_html(studio: Studio) -> str:
    """A card for each run."""
    runs = studio.runs.all()
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
        channels = " and ".join(
            [f"{corpus.get('n_held_out', 0)} held out"] + ["some not used"] * bool(corpus["n_problems"])
        )
        rows.append(
            ("corpus", f"{corpus.get('n_recordings', 0)} recordings, {corpus['seconds'] / 60:.1f} min, {channels}")
        )
        rows.append(("sample rate", f"{corpus.get('sample_rate', 0):,} Hz"))
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in rows)
    trouble = f'<p class="trouble">{html.escape(run.trouble)}</p>' if run.trouble else ""
    word = {"training": "training now"}.get(run.status, run.status)
    return (
        f'<article class="run"><h3><span>{html.escape(run.name)}</span>'
        f'<span class="badge {run.status}">{word}</span></h3><dl>{listed}</dl>{trouble}</article>'
    )


def curves(run: Run | None) -> pd.DataFrame:
    """Columns ``step``, ``loss``, ``of``."""
    names = {"loss": "training", "held_out_loss": "held out"}
    points = [(step, y, names[name]) for name, points in (run.curves if run else {}).items() for step, y in points]
    return pd.DataFrame(points, columns=["step", "loss", "of"]).astype({"step": float, "loss": float, "of": str})


def refresh(studio: Studio, seen: dict, run_name, preview_name, *models) -> list:
    """What has changed since this page was told last; the rest is left as it is."""
    runs, names, choices = studio.runs.all(), [run.name for run in studio.runs.all()], studio.models()
    busy = next((run.name for run in runs if run.status == "training"), names[0] if names else None)
    shown = next((run.name for run in runs if run.previews), busy)
    run_name = run_name if run_name in names else busy
    preview_name = (
        preview_name if preview_name in names else (busy if busy and studio.runs.get(busy).previews else shown)
    )
    run, previewed = studio.runs.get(run_name or ""), studio.runs.get(preview_name or "")
    tracks = preview_tracks(previewed) if previewed else []
    other = tracks[-1]["id"] if len(tracks) > 1 else None
    playable = [choice for _, choice in choices]
    picked = [model if model in playable else (playable[0] if playable else None) for model in models]
    if len(picked) > 1 and not any(models) and len(playable) > 1:
        picked[-1] = playable[1]
    news = {
        "cards": runs_html(studio),
        "plot": (run_name, run.curves if run else {}),
        "previews": value(tracks, empty=NO_PREVIEWS if runs else NO_RUNS, other=other),
        "run_name": (names, run_name),
        "preview_name": (names, preview_name),
        "models": (choices, picked),
    }
    new = {key: news[key] != seen.get(key) for key in news}
    updates = [gr.Dropdown(choices=choices, value=model) if new["models"] else gr.skip() for model in picked]
    return [
        news if any(new.values()) else gr.skip(),
        news["cards"] if new["cards"] else gr.skip(),
        curves(run) if new["plot"] else gr.skip(),
        news["previews"] if new["previews"] else gr.skip(),
        gr.Dropdown(choices=names, value=run_name) if new["run_name"] else gr.skip(),
        gr.Dropdown(choices=names, value=preview_name) if new["preview_name"] else gr.skip(),
        *updates,
    ]
