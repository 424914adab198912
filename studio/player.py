"""The player of the page: several tracks, of which one is heard, and another takes over at the same position."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from studio.runs import Run

SCRIPT = Path(__file__).with_name("player.js")
MAX_PREVIEWS = 60  # shown of a run, the first and the newest among them
PREVIEW_SECONDS, PREVIEW_PROMPT = 9.0, 3.0  # of what train.py writes
_TEMPLATE = """<section class="player player-empty" aria-label="{label}" {marks}>
<p class="player-hint"></p>
<div class="player-tracks" role="radiogroup" aria-label="What is heard"></div>
<div class="player-bar"><button type="button" class="player-play" disabled>Play</button>
<input type="range" class="player-seek" min="0" max="1" step="0.05" value="0" aria-label="Position">
<span class="player-time"></span>
<button type="button" class="player-flip" title="To the other one, at the same position" hidden>A/B</button>
<label hidden><input type="checkbox" class="player-order" {checked}>In order</label></div>
<canvas class="player-wave" aria-hidden="true"></canvas>
<div class="player-pictures"></div>
<p class="player-fold"></p>
<div class="player-links"></div>
<p class="player-said" role="status"></p>
<div class="player-speakers" hidden></div>
</section>"""


def player(label: str, empty: str, pair: bool = False, in_order: bool = False, **options) -> gr.HTML:
    """The component. Its value is what :func:`value` makes.

    Args:
        label: for who does not see it.
        empty: what is said where there is nothing to be heard.
        pair: show the spectrograms of two tracks side by side.
        in_order: a track that ends is followed by the next.
    """
    marks = " ".join(['data-pair="1"'] * pair + ['data-order="1"'] * in_order)
    template = _TEMPLATE.format(label=label, marks=marks, checked="checked" * in_order)
    script = SCRIPT.read_text()
    return gr.HTML(
        value(empty=empty),
        html_template=template,
        js_on_load=script,
        container=False,
        elem_classes="player-box",
        **options,
    )


def value(tracks=(), play: str | None = None, empty: str = "", other: str | None = None) -> str:
    """What the player shall have.

    Args:
        tracks: each ``id``, ``label``, ``url``, ``seconds``, and where there are ``picture``, ``join`` (s), ``peaks``,
            ``shown`` (s from which on picture and peaks show it), ``column`` (share of that for each peak), ``note``,
            ``downloads``.
        play: id of the track that begins to play when it is new.
        other: of the one that A/B goes to first.
    """
    fields = {"tracks": list(tracks), "play": play, "empty": empty, "other": other}
    return json.dumps(fields, separators=(",", ":"))


def result_track(token: str, number: int, label: str, begun: dict, peaks: list[int], done: bool) -> dict:
    """A continuation, from the moment on that it has begun."""
    track = {"id": f"{token}-{number}", "label": label, "url": f"results/{token}/{number}.wav"}
    track |= {key: begun[key] for key in ("seconds", "join", "shown", "column")} | {"peaks": peaks}
    if done:
        place = f"results/{token}/{number}"
        downloads = [("WAV", f"{place}/wav"), ("FLAC", f"{place}/flac"), ("MIDI", f"{place}/mid")]
        track |= {"picture": f"{place}.png", "downloads": downloads}
    return track


def preview_tracks(run: Run) -> list[dict]:
    """The previews of a run, oldest first."""
    steps, place = run.previews, f"previews/{quote(run.name, safe='')}"
    if len(steps) > MAX_PREVIEWS:
        places = [round(i * (len(steps) - 1) / (MAX_PREVIEWS - 1)) for i in range(MAX_PREVIEWS)]
        steps = [steps[place] for place in places]
    return [
        {"id": f"{run.name}-{step}", "label": f"step {step}", "url": f"{place}/{step}.wav"}
        | {"picture": f"{place}/{step}.png", "seconds": PREVIEW_SECONDS, "join": PREVIEW_PROMPT}
        for step in steps
    ]
