"""Mel spectrograms side by side, big enough to see whether a chord stands, a hiss runs or patches flicker.

Kept as bytes until they are drawn: the sound itself of some dozen rollouts of a minute, for each of some models, would
need gigabytes.
"""

from __future__ import annotations

import io

import numpy as np

import metrics

N_MELS = 128
FLOOR, TOP = -100.0, -20.0  # dB re full scale, of the darkest and of the brightest
ROW_INCHES, DPI = 2.5, 90
INCHES_PER_SECOND, LEAST_INCHES, MOST_INCHES = 0.3, 5.0, 12.0  # across: 23 s are 620 pixels wide


def decibels(waveform, sample_rate: int) -> np.ndarray:
    """The mel spectrogram in steps of a third of a dB. Shape: ``[n_samples]`` -> uint8 ``[n_frames, N_MELS]``"""
    power = metrics.power_frames(waveform, sample_rate)
    mel = 10 * np.log10((power @ metrics.mel_filters(power.shape[1], sample_rate, N_MELS)).clip(min=1e-12))
    return (255 * ((mel - FLOOR) / (TOP - FLOOR)).clip(0, 1)).round().astype(np.uint8)


def draw(axes, image: np.ndarray, seconds: float, join: float, sample_rate: int, title: str):
    """One spectrogram, with a line where the continuation begins.

    Args:
        image: from :func:`decibels`.
        seconds: that it lasts.
        join: seconds of the prompt.
    """
    axes.imshow(image.T, origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=255, extent=(0, seconds, 0, 1))
    axes.axvline(join, color="white", linewidth=1, linestyle="--")
    top = 2595 * np.log10(1 + sample_rate / 1400)
    hertz = [f for f in (100, 1000, 4000, 10000) if f < sample_rate / 2]
    axes.set_yticks([2595 * np.log10(1 + f / 700) / top for f in hertz], [f"{f:g} Hz" for f in hertz], fontsize=7)
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.set_xlabel("time (s)", fontsize=8)


class Sheet:
    """Prompts down, what really follows and each model across.

    Args:
        sample_rate: Hz, of all of them.
        join: seconds of the prompts.
    """

    def __init__(self, sample_rate: int, join: float):
        self.sample_rate, self.join = sample_rate, join
        self.columns: dict[str, dict[int, tuple[np.ndarray, float, str]]] = {}

    def add(self, column: str, prompt: int, waveform, note: str = ""):
        """What a column has made of a prompt, ``[n_samples]`` with the prompt; ``note`` stands in its title."""
        waveform = np.asarray(waveform, np.float32)
        image = decibels(waveform, self.sample_rate), len(waveform) / self.sample_rate, note
        self.columns.setdefault(column, {})[prompt] = image

    def png(self) -> bytes:
        """The picture; every column has the same scale of time."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        prompts = sorted({prompt for column in self.columns.values() for prompt in column})
        seconds = max(image[1] for column in self.columns.values() for image in column.values())
        width = min(MOST_INCHES, max(LEAST_INCHES, INCHES_PER_SECOND * seconds))
        size = (width * len(self.columns), ROW_INCHES * len(prompts))
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        grid = figure.subplots(len(prompts), len(self.columns), squeeze=False)
        for line, prompt in zip(grid, prompts, strict=True):
            for axes, (name, column) in zip(line, self.columns.items(), strict=True):
                if prompt not in column:
                    axes.set_axis_off()
                    continue
                image, lasts, note = column[prompt]
                title = f"{prompt:02d}, {name}" + f": {note}" * bool(note)
                draw(axes, image, lasts, self.join, self.sample_rate, title)
                axes.set_xlim(0, seconds)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        return buffer.getvalue()
