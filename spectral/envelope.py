"""The smooth spectrum of a piece: its level in overlapping bands of the mel scale."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from config import FeaturizerConfig
from featurizer import DB, MEL_CORNER

LOWEST_DB = -40.0  # of a piece, re the corpus' own: what is silent in one is not made as loud as what is not
LEAST_DB = -80.0  # re full scale, of any piece: what is softer counts as silence
N_TYPICAL = 16  # envelopes that stand for all pieces of a corpus


class Envelope(nn.Module):
    """The RMS of a piece's frames, smoothed over bands of the mel scale, each of which overlaps half of its neighbours.

    Frames that are divided by it are alike in level and colour, whatever the piece; multiplied by it, they have them
    again (reversible instance normalization: Kim et al. 2022, "Reversible Instance Normalization for Accurate
    Time-Series Forecasting against Distribution Shift"). Bands are wide, so that it tells no notes.

    Args:
        featurizer: framing; of two channels, each has an envelope of its own.
        n_bands: of each channel; 0: the envelope is 0 dB everywhere.
    """

    def __init__(self, featurizer: FeaturizerConfig, n_bands: int):
        super().__init__()
        self.n_bands = n_bands
        hertz = np.arange(featurizer.n_channel_bins) * featurizer.sample_rate / featurizer.n_fft
        mel = np.log1p(hertz / MEL_CORNER)
        distance = mel[:, None] / mel[-1] * (n_bands - 1) - np.arange(n_bands)
        hats = np.kron(np.eye(featurizer.channels), np.clip(1 - np.abs(distance), 0, None))
        # [n_bins, channels * n_bands]: triangles whose sum is 1 at every bin.
        self.register_buffer("hats", torch.from_numpy(hats.astype(np.float32)), persistent=False)
        self.register_buffer("usual", torch.zeros(hats.shape[1]))  # nepers, of the corpus
        self.register_buffer("typical", torch.zeros(N_TYPICAL, hats.shape[1]))  # nepers, of its pieces, mean 0

    @torch.no_grad()
    def fit(self, power: torch.Tensor):
        """The corpus' own envelope. Shape: power of its pieces, from :meth:`power`, ``[n_chunks, n_bins]``"""
        self.usual.copy_(self.bands(power.mean(0)))

    def forward(self, log_magnitude: torch.Tensor, used: torch.Tensor | None = None) -> torch.Tensor:
        """The envelope of each piece, in nepers. Shape: as :meth:`power`"""
        return self.of_power(self.power(log_magnitude, used))

    def power(self, log_magnitude: torch.Tensor, used: torch.Tensor | None = None) -> torch.Tensor:
        """Mean square of each bin over a piece.

        Shape: log_magnitude ``[B, n_frames, n_bins]`` in nepers, used ``[B, n_frames]``: frames that are recordings and
        not padding -> ``[B, n_bins]``"""
        power = (2 * log_magnitude).exp()
        if used is None:
            return power.mean(1)
        return (power * used.unsqueeze(-1)).sum(1) / used.sum(1, keepdim=True).clamp(min=1)

    def of_power(self, power: torch.Tensor) -> torch.Tensor:
        """Nepers. Shape: ``[B, n_bins]``, the same"""
        if not self.n_bands:
            return torch.zeros_like(power)
        return torch.maximum(self.bands(power), self.lowest()) @ self.hats.T

    def lowest(self) -> torch.Tensor:
        """Of any piece, nepers. Shape: ``[channels * n_bands]``"""
        return (self.usual + LOWEST_DB / DB).clamp(min=LEAST_DB / DB)

    def bands(self, power: torch.Tensor) -> torch.Tensor:
        """Nepers of each band. Shape: power ``[..., n_bins]`` -> ``[..., channels * n_bands]``"""
        mean = power @ self.hats / self.hats.sum(0).clamp(min=1e-6)
        return 0.5 * mean.clamp(min=1e-12).log()
