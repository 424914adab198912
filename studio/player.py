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
<button type="button" class="player-whole" title="Plays the prompt from its beginning" hidden>Whole prompt</button>
<button type="button" class="player-flip" title="To the other one, at the same position" hidden>A/B</button>
<label hidden><input type="checkbox" class="player-order" {checked}>In order</label></div>
<div class="player-view"><div class="player-parts" aria-hidden="true"></div>
<canvas class="player-wave" aria-hidden="true"></canvas>
<div class="player-pictures"></div>
<div class="player-axis" aria-hidden="true"></div>
<div class="player-join"></div><div class="player-head"></div></div>
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
        tracks: each ``id``, ``label``, ``url``, ``seconds``, and where there are ``picture``, ``join`` (s), ``note``,
            ``downloads``. Waveform and picture begin at ``shown_from`` (s): ``peaks`` are what there is of
            ``n_columns`` from there to the end, ``hertz`` the frequencies along the picture by their place, 0 to 1.
        play: id of the track that begins to play when it is new.
        other: of the one that A/B goes to first.
    """
    fields = {"tracks": list(tracks), "play": play, "empty": empty, "other": other}
    return json.dumps(fields, separators=(",", ":"))


def result_track(token: str, number: int, label: str, said: dict) -> dict:
    """A continuation, from the moment on that it has begun.

    Args:
        said: of the rollout's messages, what is true now.
    """
    track = {"id": f"{token}-{number}", "label": label, "url": f"results/{token}/{number}.wav"}
    track |= {name: said[name] for name in ("seconds", "join", "shown_from", "n_columns")}
    track["peaks"] = said["peaks"][number - 1]
    if said["event"] == "done":
        place = f"results/{token}/{number}"
        downloads = [("WAV", f"{place}/wav"), ("FLAC", f"{place}/flac"), ("MIDI", f"{place}/mid")]
        track |= {"picture": f"{place}.png", "hertz": said["hertz"], "downloads": downloads}
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
