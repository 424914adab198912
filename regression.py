"""The original design, as the baseline: mean squared error of raw magnitude and phase."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from config import FeaturizerConfig, ModelConfig
from featurizer import MIN_LOG_MAGNITUDE


class WindowState(NamedTuple):
    """What a rollout carries from frame to frame."""

    window: torch.Tensor  # the last frames, raw [B, n_context, 2 * n_bins]


class RegressionLSTM(nn.Module):
    """The original design, as it was: the mean of the next raw magnitude and phase, by MSE.

    A window of ``n_context`` frames predicts the one after it. For the rollout it reads its own
    output, window after window.
    """

    predicts_phase = True
    behind = 0  # frames of a prompt that its rollout begins with

    def __init__(self, featurizer: FeaturizerConfig, config: ModelConfig):
        super().__init__()
        self.config = config
        width = 2 * featurizer.n_bins
        self.lstm = nn.LSTM(
            width, config.hidden_size, config.n_layers, dropout=config.dropout if config.n_layers > 1 else 0
        )
        self.output = nn.Linear(config.hidden_size, width)

    @staticmethod
    def _raw(frames: torch.Tensor) -> torch.Tensor:
        log_magnitude, phase = frames.chunk(2, dim=-1)
        return torch.cat([log_magnitude.exp(), phase], dim=-1)

    def loss(self, frames: torch.Tensor, state=None, mask: torch.Tensor | None = None, pulse: None = None):
        """Squared error of the frame after the window.

        Shape:
            frames ``[B, n_context + 1, 2 * n_bins]``, mask ``[B, n_context + 1]`` -> ``(scalar, None)``
        """
        raw = self._raw(frames)
        predicted = self._predict(raw[:, :-1])
        error = (predicted.float() - raw[:, -1]).square().mean(-1)
        if mask is not None:
            whole = mask.all(dim=1)
            error = (error * whole).sum() / whole.sum().clamp(min=1)
        return error.mean(), None

    def _predict(self, window: torch.Tensor) -> torch.Tensor:
        output, _ = self.lstm(window.transpose(0, 1))
        return self.output(output[-1])

    def packed(self, linear) -> RegressionLSTM:
        """Nothing to lay out: the model itself."""
        return self

    def prefill(self, frames: torch.Tensor, pulse=None) -> WindowState:
        """Rollout state after a prompt. Shape: frames ``[B, T, 2 * n_bins]``"""
        window = self._raw(frames[:, -self.config.n_context :])
        return WindowState(F.pad(window, (0, 0, self.config.n_context - window.shape[1], 0)))

    def next_frames(self, state: WindowState, temperature: float = 1.0, generator=None):
        """The mean next frame; nothing is sampled. Shape: -> ``(frame [B, 1, 2 * n_bins], state)``"""
        raw = self._predict(state.window)
        magnitude, phase = raw.chunk(2, dim=-1)
        frame = torch.cat([magnitude.clamp(min=math.exp(MIN_LOG_MAGNITUDE)).log(), phase], dim=-1)
        return frame.unsqueeze(1), WindowState(torch.cat([state.window[:, 1:], raw.unsqueeze(1)], dim=1))
