"""How far a rollout has gone from its prompt, and the pull that keeps it where recordings stay.

Each frame is drawn from the ones before, so errors add up: a rollout walks away from its prompt, to another
instrument, another level or a hiss, farther than music does. Recordings tell how far that is: for each component
and for the level, the distance between a prompt and what follows it some seconds later. What is beyond is drawn
back, a little with each frame, so that the frames in between stay the model's own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

LAGS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # s after the prompt, for which distances are known
# Of the components: s, in which their slow mean forgets all but 1 / e, and the share of what is beyond the bound that
# is taken from each frame. A larger share, with such a memory, and the rollout swings about the bound.
MEMORY, PULL = 0.5, 0.1
LEVEL_MEMORY, LEVEL_PULL = 0.1, 0.3  # likewise of the level, which is off within a few frames
# What is far beyond is taken back faster, by its ratio to the bound: a leap to another instrument, which the model
# would go on with. So many times as fast at most.
FASTER = 5.0
LAST_SECONDS, LAST_MEMORY = 1.0, 2.0  # of the prompt, whose level counts at first; s in which it is forgotten
# Nepers (1 dB) by which the level may be off in the first second after the join, twice as many after two, and so on
# for some seconds: from second to second, recordings differ by that much (half of them by less than 0.9 dB).
STEADY_NEPERS, STEADY_SECONDS = 0.12, 4.0
MOST_NEPERS = 1.0  # of level, that count at once: after a fade-out, music comes back within half a second, not at once
QUANTILE = 0.7  # of the distances in recordings, which is the bound
# Of the distances between a prompt and the first codes of the frames that follow it, in the first components, which
# tell instruments and rooms apart: what is farther is not drawn.
N_LEAP, LEAP_QUANTILE = 8, 0.9


class Drift(NamedTuple):
    """Where a rollout is, as a slow mean, and where its prompt was."""

    origin: torch.Tensor  # mean of the prompt's frames [B, n_components]
    slow: torch.Tensor  # [B, n_components]
    origin_level: torch.Tensor  # nepers [B, 1]
    last_level: torch.Tensor  # of the prompt's last second
    slow_level: torch.Tensor
    n_frames: int  # since the prompt


class Bounds(NamedTuple):
    """What a rollout is held to."""

    components: torch.Tensor  # [n_lags, n_components], in units of the frames given
    level: torch.Tensor  # [n_lags], nepers
    louder: torch.Tensor  # what one neper more is in the components [n_components]
    frame_rate: float  # frames per second


def start(frames: torch.Tensor, level: torch.Tensor, frame_rate: float, softest: float = -1e6) -> Drift:
    """At the end of a prompt.

    Args:
        softest: nepers; what is softer (a prompt that fades out, and the silence behind it) is nothing to stay at.

    Shape:
        frames ``[B, T, n_components]``, level ``[B, T, 1]``, nepers
    """
    sounds = (level >= softest).to(frames.dtype)
    sounds = torch.where(sounds.sum(1, keepdim=True) > 0, sounds, 1.0)
    n = sounds.sum(1)
    origin = (frames * sounds).sum(1) / n
    return Drift(
        origin,
        origin + _recent((frames - origin.unsqueeze(1)) * sounds, MEMORY * frame_rate),
        (level * sounds).sum(1) / n,
        level[:, -max(1, round(LAST_SECONDS * frame_rate)) :].mean(1).clamp(min=softest),
        _recent(level, LEVEL_MEMORY * frame_rate).clamp(min=softest),
        0,
    )


def follow(drift: Drift, frame: torch.Tensor, level: torch.Tensor, frame_rate: float) -> Drift:
    """One frame later. Shape: frame ``[B, n_components]``, level ``[B, 1]``"""
    return Drift(
        drift.origin,
        torch.lerp(drift.slow, frame, 1 / (1 + MEMORY * frame_rate)),
        drift.origin_level,
        drift.last_level,
        torch.lerp(drift.slow_level, level, 1 / (1 + LEVEL_MEMORY * frame_rate)),
        drift.n_frames + 1,
    )


def pull(drift: Drift, bounds: Bounds) -> torch.Tensor:
    """What is to be taken from the next frame. Shape: ``[B, n_components]``"""
    lag = sum(drift.n_frames >= lag * bounds.frame_rate for lag in LAGS[1:])
    away, too_loud = drift.slow - drift.origin, drift.slow_level - usual_level(drift, bounds.frame_rate)
    most, level = bounds.components[lag], bounds.level[lag]
    away, too_loud = away - away.clamp(-most, most), too_loud - too_loud.clamp(-level, level)
    away = away * (1 + away.abs() / most.clamp(min=1e-6)).clamp(max=FASTER)
    too_loud = too_loud.clamp(-MOST_NEPERS, MOST_NEPERS)
    return torch.addcmul(PULL * away, LEVEL_PULL * too_loud, bounds.louder)


def usual_level(drift: Drift, frame_rate: float) -> torch.Tensor:
    """Nepers to stay at: of the prompt's last second at first, later of the whole prompt. Shape: ``[B, 1]``"""
    return torch.lerp(drift.origin_level, drift.last_level, math.exp(-drift.n_frames / (LAST_MEMORY * frame_rate)))


def level_jump(drift: Drift, level: torch.Tensor, frame_rate: float) -> torch.Tensor | None:
    """Nepers by which the next frame is too loud to grow out of the prompt; None once that is over.

    A single draw right after the join makes it louder or softer by several dB, and what follows stays there.

    Shape:
        level of the next frame ``[B, 1]`` -> ``[B, 1]``
    """
    seconds = drift.n_frames / frame_rate
    if seconds >= STEADY_SECONDS:
        return None
    slow = torch.lerp(drift.slow_level, level, 1 / (1 + LEVEL_MEMORY * frame_rate))
    beyond, most = slow - usual_level(drift, frame_rate), STEADY_NEPERS * max(1.0, seconds)
    return beyond - beyond.clamp(-most, most)


def distance(frames: torch.Tensor, origin: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
    """Of frames from a prompt's mean in the broadest components, by their bounds at the longest lag.

    Shape:
        frames and origin ``[..., n_components]``, components ``[n_lags, n_components]`` -> ``[...]``
    """
    away = (frames - origin)[..., :N_LEAP] / components[-1, :N_LEAP].clamp(min=1e-6)
    return away.square().mean(-1).sqrt()


def measure(drift: Drift, frames: torch.Tensor, level: torch.Tensor, frame_rate: float):
    """How far recordings go from their prompts, by the same slow means.

    Args:
        drift: at the end of the prompts, from :func:`start`.

    Shape:
        what follows, frames ``[n, T, n_components]``, level ``[n, T, 1]`` -> the :data:`QUANTILE` of the distances,
        ``[n_lags, n_components]`` and ``[n_lags]``; a lag beyond T has the longest before it
    """
    distances, wanted = [], [round(lag * frame_rate) for lag in LAGS]
    for frame, loud in zip(frames.unbind(1), level.unbind(1), strict=True):
        drift = follow(drift, frame, loud, frame_rate)
        if drift.n_frames in wanted:
            away = [drift.slow - drift.origin, drift.slow_level - usual_level(drift, frame_rate)]
            distances.append([x.abs().quantile(QUANTILE, dim=0) for x in away])
    distances += distances[-1:] * (len(LAGS) - len(distances))
    components, levels = zip(*distances, strict=True)
    return torch.stack(components), torch.cat(levels)


def _recent(values: torch.Tensor, memory: float) -> torch.Tensor:
    """Mean with weights that fall by 1 / e in ``memory`` values. Shape: ``[B, T, n]`` -> ``[B, n]``"""
    age = torch.arange(values.shape[1] - 1, -1, -1, device=values.device)
    weights = torch.softmax(-age / memory, 0)
    return (values * weights.view(1, -1, 1)).sum(1)
