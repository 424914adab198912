"""Draws from logits: noise first, then the largest."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def sample(logits: torch.Tensor, noise: torch.Tensor | None, top_k: int = 0) -> torch.Tensor:
    """Draw one code from each row: the largest of logits and noise together (Gumbel-max, Maddison et al. 2014).

    Args:
        noise: of a standard Gumbel distribution, times the temperature; None where the logits have it.
        top_k: only the k likeliest can be drawn; 0 for all.

    Shape:
        logits, noise ``[B, n_codes]`` -> ``[B]`` int64
    """
    if 0 < top_k < logits.shape[-1]:
        logits, likeliest = logits.topk(top_k)
        return likeliest.gather(-1, sample(logits, noise.gather(-1, likeliest)).unsqueeze(-1)).squeeze(-1)
    return (logits if noise is None else logits + noise).argmax(-1)


def gumbel(shape: Sequence[int], temperature: float, device, generator=None) -> torch.Tensor:
    """Noise for :func:`sample`. Temperature 0 takes the likeliest, 1 draws from the model's own distribution."""
    if not temperature:
        return torch.zeros(shape, device=device)
    # Far faster on a CPU than exponential_. A uniform 0 gives minus infinity: that code is not drawn.
    return torch.rand(shape, device=device, generator=generator).log_().neg_().log_().mul_(-temperature)
