"""What the player shows of a sound: its waveform and its spectrogram, over the same seconds."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np

from config import FeaturizerConfig

SHOWN_PROMPT = 6.0  # s of the prompt that are shown: a long one would leave no room for its continuation
N_PEAKS = 600  # columns of a waveform, at most
MIN_COLUMNS, MAX_COLUMNS = 1000, 3000  # of a spectrogram; between them one for each hop


class Peaks:
    """The height of a waveform in each column, from sample ``first`` to sample ``n_samples``."""

    def __init__(self, n_samples: int, first: int = 0):
        self.first, n_shown = first, max(1, n_samples - first)
        self.size = -(-n_shown // N_PEAKS)
        self.heights = np.zeros(-(-n_shown // self.size), np.float32)

    def add(self, start: int, samples: np.ndarray):
        """Samples from place ``start`` on. Shape: float32 ``[channels, n]``"""
        samples = samples[:, max(0, self.first - start) :]
        place = (max(start, self.first) - self.first + np.arange(samples.shape[1])) // self.size
        np.maximum.at(self.heights, place, np.abs(samples).max(0))

    def columns(self, n_done: int) -> list[int]:
        """0 to 100 for each column that begins before sample ``n_done``."""
        n = -(-max(0, n_done - self.first) // self.size)
        return [round(100 * min(1.0, float(height))) for height in self.heights[:n]]


def peaks_of(path: Path, channels: int, n_samples: int, first: int) -> list[int]:
    """The columns of 16-bit samples in a file without a header."""
    peaks, samples = Peaks(n_samples, first), np.memmap(path, "<i2", "r").reshape(-1, channels)
    for start in range(first, n_samples, 1 << 20):
        block = samples[start : min(start + (1 << 20), n_samples)]
        peaks.add(start, block.T.astype(np.float32) / 32767)
    return peaks.columns(n_samples)


def spectrogram(path: Path, framing: FeaturizerConfig, first: int) -> bytes:
    """A PNG without margins: its left edge is sample ``first`` of an audio file, its right edge the file's end."""
    import soundfile
    import torch
    from matplotlib.image import imsave

    from spectrogram import COLOURS, decibels

    with soundfile.SoundFile(path) as file:
        framing = dataclasses.replace(framing, sample_rate=file.samplerate)
        n_shown = max(1, file.frames - first)
        n_columns = min(MAX_COLUMNS, max(MIN_COLUMNS, n_shown // framing.hop_length))
        segments = np.zeros((n_columns, framing.n_fft), np.float32)
        for i, segment in enumerate(segments):
            start = round(first + (i + 0.5) * n_shown / n_columns) - framing.n_fft // 2  # its middle is its column's
            skipped = max(0, -start)
            file.seek(max(0, start))
            samples = file.read(framing.n_fft - skipped, "float32", always_2d=True).mean(1)
            segment[skipped : skipped + len(samples)] = samples
    buffer = io.BytesIO()
    imsave(buffer, decibels(torch.from_numpy(segments), framing), origin="lower", format="png", **COLOURS)
    return buffer.getvalue()
