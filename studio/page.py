"""The page: all tabs together."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from studio.api import api
from studio.compare_tab import compare_tab
from studio.continue_tab import continue_tab
from studio.player import player
from studio.rollouts import Rollouts
from studio.runs import Runs
from studio.runs_tab import NO_PREVIEWS, curves, refresh, runs_html
from studio.storage import Storage
from studio.visit import QUIET, Studio

STYLE = Path(__file__).with_name("page.css")
HEAD = '<meta name="theme-color" content="#c2410c"><link rel="apple-touch-icon" href="pwa_icon/192">'
REFRESH = 2.0  # s
MAX_WAITING = 20  # requests in the queue


def theme() -> gr.Theme:
    """System fonts only: the page asks no other host for any."""
    return gr.themes.Default(
        primary_hue="orange", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )


def build(runs: Runs, storage: Storage, rollouts: Rollouts) -> gr.Blocks:
    """All of it."""
    studio = Studio(runs, storage, rollouts)
    with gr.Blocks(title="nextframe studio", analytics_enabled=False) as blocks:
        gr.HTML("<h1>nextframe studio</h1>", container=False)
        with gr.Tabs():
            with gr.Tab("Continue", id="continue"):
                model = continue_tab(studio)
            with gr.Tab("Compare", id="compare"):
                models = compare_tab(studio)
            with gr.Tab("Runs", id="runs"):
                cards = gr.HTML(runs_html(runs.all()), container=False, elem_id="runs")
                run_name = gr.Dropdown(label="Loss of", choices=[], interactive=True)
                plot = gr.LinePlot(
                    curves(None),
                    x="step",
                    y="loss",
                    color="curve",
                    x_title="step",
                    y_title="loss (nats)",
                    height=280,
                    show_label=False,
                )
            with gr.Tab("Previews", id="previews"):
                preview_name = gr.Dropdown(label="Run", choices=[], interactive=True)
                previews = player("Previews", NO_PREVIEWS, pair=True, in_order=True, elem_id="previews-player")
        seen, timer = gr.State({}), gr.Timer(REFRESH)
        choices = [run_name, preview_name, model, *models]
        listening = {
            "fn": lambda *values: refresh(studio, *values),
            "inputs": [seen, *choices],
            "outputs": [seen, cards, plot, previews, *choices],
        }
        blocks.load(**listening, **QUIET)
        timer.tick(**listening, **QUIET)
        for choice in (run_name, preview_name):
            choice.input(**listening, **QUIET)
        api(studio)
    return blocks
