"""Phase for given magnitudes: a peak-locked start, then a few consistency steps.

Works in blocks, so that a rollout of any length needs constant memory: each block continues the
waveform before it, which is how a continuation joins its prompt as well.
"""

from __future__ import annotations

import itertools
import math

import torch

from config import FeaturizerConfig
from featurizer import Featurizer

MOMENTUM = 0.99  # fast Griffin-Lim, Perraudin, Balazs and Sondergaard 2013
CROSSFADE = 256  # samples over which a block takes over from the waveform before it
TOGETHER = 1.0  # s in which two channels lose all but a third (1 / e) of their difference in phase


def lookahead(config: FeaturizerConfig) -> int:
    """Frames of the next block that a block must see: its last hops overlap them, and a few more
    so that its end is repaired as well as its middle."""
    return config.n_fft // config.hop_length + 4


def peak_locked_advance(log_magnitude: torch.Tensor, hop_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The spectral peak that each bin belongs to, and that peak's phase advance over one hop.

    Single-pass spectrogram inversion (Beauregard, Harish and Wyse 2015): the frequency of a local
    maximum by quadratic interpolation, its neighbours locked to it.

    Shape: log_magnitude ``[B, T, n_bins]`` -> ``(peak, advance)``, int64 bin and float32 rad, same shape"""
    n_bins = log_magnitude.shape[-1]
    below, at, above = log_magnitude[..., :-2], log_magnitude[..., 1:-1], log_magnitude[..., 2:]
    is_peak = torch.zeros_like(log_magnitude, dtype=torch.bool)
    is_peak[..., 1:-1] = (at > below) & (at >= above)
    is_peak[..., 0] = ~is_peak.any(dim=-1)  # a frame without a peak: everything follows bin 0
    offset = torch.zeros_like(log_magnitude)
    curvature = (below - 2 * at + above).clamp(max=-1e-6)
    offset[..., 1:-1] = (0.5 * (below - above) / curvature).clamp(-0.5, 0.5)

    bins = torch.arange(n_bins, device=log_magnitude.device)
    far = 4 * n_bins
    lower = torch.where(is_peak, bins, -far).cummax(dim=-1).values
    upper = torch.where(is_peak, bins, far).flip(-1).cummin(dim=-1).values.flip(-1)
    peak = torch.where(bins - lower <= upper - bins, lower, upper)
    frequency = (bins + offset) / (2 * (n_bins - 1))  # cycles per sample
    advance = (2 * math.pi * hop_length * frequency).gather(-1, peak)
    return peak, advance.remainder(2 * math.pi)


def peak_locked_phase(log_magnitude: torch.Tensor, previous: torch.Tensor, hop_length: int) -> torch.Tensor:
    """Phases that go on from ``previous``.

    Inside, phases are those at the frame's centre, where a sine has one phase over its whole main
    lobe: bin k at the centre is pi * k ahead of its phase at the first sample.

    Shape: log_magnitude ``[B, T, n_bins]``, previous ``[B, n_bins]`` rad -> ``[B, T, n_bins]`` rad"""
    peak, advance = peak_locked_advance(log_magnitude, hop_length)
    tilt = math.pi * torch.arange(log_magnitude.shape[-1], device=log_magnitude.device)
    centre = previous + tilt
    phases = []
    for t in range(log_magnitude.shape[1]):
        centre = (centre.gather(-1, peak[:, t]) + advance[:, t]).remainder(2 * math.pi)
        phases.append(centre)
    return torch.stack(phases, dim=1) - tilt


def shared_phase(log_magnitude: torch.Tensor, previous: torch.Tensor, config: FeaturizerConfig) -> torch.Tensor:
    """:func:`peak_locked_phase` of two channels, by the peaks of both and drawn together more and more.

    By its own peaks, each channel drifts away from the other within a second: what was between the speakers
    is nowhere, and their mix to mono hollow. Panning stays, since it lies in the magnitudes.

    Shape:
        log_magnitude ``[B, 2, T, n_channel_bins]``, previous ``[B, 2, n_channel_bins]`` rad ->
        ``[B, 2, T, n_channel_bins]`` rad
    """
    peaks = log_magnitude.logsumexp(1, keepdim=True).expand_as(log_magnitude).flatten(0, 1)
    phase = peak_locked_phase(peaks, previous.flatten(0, 1), config.hop_length).view_as(log_magnitude)
    middle = torch.polar(log_magnitude.exp(), phase).sum(1, keepdim=True).sgn().expand(-1, 2, -1, -1)
    frames = torch.arange(1, log_magnitude.shape[2] + 1, device=log_magnitude.device).unsqueeze(-1)
    apart = (-frames / (TOGETHER * config.frame_rate)).exp()
    return (middle + apart * (torch.polar(torch.ones_like(phase), phase) - middle)).angle()


def continue_waveform(
    featurizer: Featurizer,
    known: torch.Tensor,
    log_magnitude: torch.Tensor,
    n_steps: int,
    phase: torch.Tensor | None = None,
) -> torch.Tensor:
    """Samples that follow ``known`` and have the given magnitudes.

    Frame j of ``log_magnitude`` covers the samples that start ``(j + 1) * hop_length`` after the
    first of ``known``. The waveform in ``known`` is held, but for its last :data:`CROSSFADE` samples, while
    ``n_steps`` of fast Griffin-Lim make the frames consistent; frames that it is a part of follow their
    magnitudes by the share of their energy that is new. These last samples are returned again, faded into
    the new ones: no step is heard.

    Shape:
        known ``[B, n_fft]``, log_magnitude ``[B, T, n_bins]``, phase the same (skips the
        peak-locked start) -> ``[B, CROSSFADE + (T + 1) * hop_length - n_fft]``: what all its
        frames overlap; stereo: known ``[B, 2, n_fft]`` -> ``[B, 2, ...]``
    """
    rows, log_magnitude = known.shape[:-1], featurizer.apart(log_magnitude)
    if phase is not None:
        phase = featurizer.apart(phase).flatten(0, -3)
    elif len(rows) > 1:
        phase = shared_phase(log_magnitude, featurizer.stft(known)[:, :, 0].angle(), featurizer.config).flatten(0, 1)
    # From here on, each channel is a waveform of its own: one more row of the batch.
    known, log_magnitude = known.flatten(0, -2), log_magnitude.flatten(0, -3)
    # On a CPU row by row: what one of them needs stays in the cache.
    together = 1 if known.device.type == "cpu" else len(known)
    phases = itertools.repeat(None) if phase is None else phase.split(together)
    parts = zip(known.split(together), log_magnitude.split(together), phases, strict=False)  # repeat has no end
    return torch.cat([_continue(featurizer, *part, n_steps) for part in parts]).unflatten(0, rows)


def _continue(featurizer: Featurizer, known, log_magnitude, phase, n_steps: int) -> torch.Tensor:
    """:func:`continue_waveform` of one channel. Shape: ``[B, n_fft]``, ``[B, T, n_bins]``"""
    n_fft, hop = featurizer.config.n_fft, featurizer.config.hop_length
    n_known, n_frames = known.shape[-1], log_magnitude.shape[1]
    magnitude, first = log_magnitude.exp(), featurizer.stft(known)  # [B, 1, n_bins] of what is known
    if phase is None:
        phase = peak_locked_phase(log_magnitude, first[:, 0].angle(), hop)
    spectrum = torch.polar(magnitude, phase)
    last = torch.zeros_like(spectrum)
    fade = torch.linspace(0, math.pi, CROSSFADE, device=known.device).cos().mul(-0.5).add(0.5)
    # Of the first frames, most samples are known: what their magnitudes lack, the few new ones would have
    # to make up for, by a burst at the join. They count by the share of the frame's energy that is new.
    n_shared = min(n_fft // hop - 1, n_frames)
    energy = featurizer.window.square().view(-1, hop).sum(-1).flip(0).cumsum(0)
    share = (energy[:n_shared] / energy[-1]).unsqueeze(-1)
    for _ in range(n_steps):
        waveform = featurizer.istft(torch.cat([first, spectrum], dim=1))
        # Up to the last sample, the leap from one to the other would stay for good: a click.
        waveform[:, : n_known - CROSSFADE] = known[:, :-CROSSFADE]
        waveform[:, n_known - CROSSFADE : n_known].lerp_(known[:, -CROSSFADE:], 1 - fade)
        consistent = featurizer.stft(waveform)[:, 1:]
        # Only its phase counts: consistent + MOMENTUM * (consistent - last), but for a factor.
        guess = torch.sub(consistent, last, alpha=MOMENTUM / (1 + MOMENTUM))
        last = consistent
        spectrum = guess.sgn_()
        spectrum[:, n_shared:] *= magnitude[:, n_shared:]
        spectrum[:, :n_shared] *= torch.lerp(consistent[:, :n_shared].abs(), magnitude[:, :n_shared], share)
    waveform = featurizer.istft(torch.cat([first, spectrum], dim=1))
    end = n_known + (n_frames + 1) * hop - n_fft
    out = waveform[:, n_known - CROSSFADE : end].clone()
    out[:, :CROSSFADE] = known[:, -CROSSFADE:] * (1 - fade) + out[:, :CROSSFADE] * fade
    return out
