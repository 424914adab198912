"""Picture of a waveform: its spectrogram in dB over time, as a labelled PNG."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import torch

from config import FeaturizerConfig
from featurizer import Featurizer, load_torchaudio

N_MELS = 160
COLOURS = {"cmap": "magma", "vmin": -100, "vmax": -20}  # dB


def spectrogram_png(
    waveform: torch.Tensor, config: FeaturizerConfig, title: str = "", join: float | None = None
) -> bytes:
    """Render a waveform.

    The frequency axis is mel-spaced where torchaudio is installed, linear elsewhere.

    Args:
        waveform: ``[n_samples]`` float32, or ``[2, n_samples]``, of which the mix to mono is shown.
        join: where to draw the line between prompt and continuation, in s.

    Returns:
        the bytes of a PNG file.
    """
    waveform = waveform.reshape(-1, waveform.shape[-1]).mean(0)
    n_samples = len(waveform)
    waveform = torch.nn.functional.pad(waveform, (0, max(0, config.n_fft - n_samples)))
    segments = waveform.unfold(0, config.n_fft, column_hop(n_samples, config))
    return columns_png(segments, n_samples / config.sample_rate, config, title, join)


def column_hop(n_samples: int, config: FeaturizerConfig) -> int:
    """Samples from one column of a picture to the next: whole hops, since it has no more than some thousand columns."""
    n_frames = 1 + max(0, n_samples - config.n_fft) // config.hop_length
    return config.hop_length * max(1, n_frames // 3000)


def columns_png(
    segments: torch.Tensor, seconds: float, config: FeaturizerConfig, title: str = "", join: float | None = None
) -> bytes:
    """:func:`spectrogram_png` of ``seconds`` of a waveform, of which each column has its samples here, so that a long
    one need not be in memory. Shape: segments ``[n_columns, n_fft]`` float32"""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(
        decibels(segments, config),
        origin="lower",
        aspect="auto",
        **COLOURS,
        extent=(0, seconds, 0, 1),
        interpolation="nearest",
    )
    ticks = frequency_ticks(config)
    axes.set_yticks(list(ticks.values()), [f"{f:g}" for f in ticks])
    axes.set_xlabel("time (s)")
    axes.set_ylabel("frequency (Hz)")
    title = title.encode(errors="replace").decode()  # a file name need not be text, nor mathematics
    axes.set_title(title, fontsize=10, parse_math=False)
    if join is not None:
        axes.axvline(join, color="white", linewidth=1, linestyle="--")
    figure.colorbar(image, label="dB", pad=0.01)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def decibels(segments: torch.Tensor, config: FeaturizerConfig) -> np.ndarray:
    """The columns of a picture: power in dB over frequency, as :func:`frequency_ticks` places it.

    Shape:
        segments ``[n_columns, n_fft]`` float32 -> ``[n_rows, n_columns]``
    """
    config = dataclasses.replace(config, channels=1)
    power = (2 * Featurizer(config).log_magnitude(segments)[:, 0]).exp()
    functional = load_torchaudio()
    if functional is not None:
        top = config.sample_rate / 2
        bank = functional.melscale_fbanks(config.n_bins, 0.0, top, N_MELS, config.sample_rate, norm="slaney")
        power = power @ (bank / bank.sum(0).clamp(min=1e-8))
    return ((10 / np.log(10)) * power.clamp(min=1e-12).log()).T.numpy()


def frequency_ticks(config: FeaturizerConfig) -> dict[int, float]:
    """Frequencies (Hz) and their places: 0 at the lower edge of a picture, 1 at the upper one."""
    top, mel = config.sample_rate / 2, load_torchaudio() is not None

    def height(hertz: float) -> float:
        return 2595 * np.log10(1 + hertz / 700) if mel else hertz

    hertz = (0, 100, 300, 1000, 2000, 4000, 8000, 16000, 32000)
    return {f: float(height(f) / height(top)) for f in hertz if f < top}
