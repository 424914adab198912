"""The distribution of a frame's detail: what its codes leave open."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

MAX_DETAIL = 5.0  # deviations, drawn at most


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Its approximation: of a single row, the exact one takes four times as long."""
    return F.gelu(x, approximate="tanh")


class Refiner(nn.Module):
    """Distribution of a frame's detail, that is of what its codes leave open: a normal one for each
    component, given the codes, the LSTM's view of the past, and the detail of the last frame.
    The mean of all that would fit is too smooth to be heard as music; white noise is a hiss; drawn in
    this way, the partials of a held note stay where they are.

    It is expected where the last frame was, by a share of below 1 for each component: codes leap, partials do
    not. The last frame's detail enters in no other way, so that no rollout can run away, however long
    the training: a free function of it learns to, in 20 minutes.
    """

    def __init__(self, n_components: int, context: int, hidden: int):
        super().__init__()
        self.input = nn.Linear(context + 2 * n_components, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 3 * n_components)
        nn.init.zeros_(self.output.weight)  # at first: standard normal
        nn.init.zeros_(self.output.bias)

    def forward(self, context, vector, before, layers: Sequence[Callable] | None = None):
        """
        Args:
            context: LSTM's output with all codes of the frame embedded.
            vector, before: what the codes of this frame and of the last one stand for.
            layers: taken for the linear layers.

        Shape:
            context ``[..., head_size]``, the others ``[..., n_components]`` in deviations -> ``(mean,
            persistence, log_deviation)``, ``[..., n_components]`` each, float32; the detail's mean is
            ``mean + persistence * (last frame - vector)``, the last frame with its detail
        """
        first, middle, last = layers or (self.input, self.middle, self.output)
        x = gelu(first(torch.cat([context, vector, before], -1)))
        x = x + gelu(middle(x))
        mean, persistence, log_deviation = last(x).tanh().float().chunk(3, dim=-1)
        return 2 * mean, 0.98 * persistence, 1.5 * log_deviation
