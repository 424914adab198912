"""What a model takes from its corpus before the first step: frames for its scaler, codebooks and latents, how fast
recordings die away, how far they go from a prompt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

import drift
from checkpoint import NotFinite
from dataset import Segment, spread_chunks
from featurizer import Featurizer
from voice import decay_slopes, fastest

DECAY_PIECES, DECAY_SECONDS = 60, 10.0  # pieces that tell the corpus' room, and their length
DRIFT_PIECES, DRIFT_PROMPT = 96, 3.0  # pieces, and seconds of each that count as its prompt
QUIET = 0.03  # of the corpus' level: pieces below say nothing


def chunks(segments: list[Segment], featurizer: Featurizer, n_chunks: int, n_frames: int, seed: int) -> np.ndarray:
    """Log-magnitude of pieces of the whole corpus ``[n_chunks, n_frames, n_bins]``.

    Raises:
        NotFinite: the recordings are beyond what float32 can square.
    """
    framing = featurizer.config
    n_samples = framing.n_fft + (n_frames - 1) * framing.hop_length
    pieces = spread_chunks(segments, n_chunks, n_samples, seed)
    frames = np.stack([featurizer.log_magnitude(torch.from_numpy(piece)).numpy() for piece in pieces])
    if not np.isfinite(frames).all():
        raise NotFinite("the log-magnitude")
    return frames


def decay(pieces: Callable[[int, int], torch.Tensor | None], featurizer: Featurizer) -> float | None:
    """How fast recordings die away, dB/s; None where they are too short to tell.

    Args:
        pieces: of the corpus: so many, of so many samples ``[n, (2,) n_samples]``, or None.
    """
    waveforms = pieces(DECAY_PIECES, round(DECAY_SECONDS * featurizer.config.sample_rate))
    if waveforms is None:
        return None
    mono = waveforms.cpu() if waveforms.dim() == 2 else waveforms.cpu().mean(1)
    return fastest(np.concatenate([decay_slopes(piece, featurizer) for piece in mono]))


@torch.no_grad()
def measure_drift(model, pieces: Callable[[int, int], torch.Tensor | None], featurizer: Featurizer, level: float):
    """How far recordings go from a prompt, see :mod:`drift`, into a model of codes; unknown where they are too short
    for it.

    Args:
        pieces: as of :func:`decay`.
        level: of the corpus.
    """
    framing = featurizer.config
    for seconds in drift.LAGS[::-1]:
        n_frames = 1 + round((DRIFT_PROMPT + seconds) * framing.frame_rate)
        waveforms = pieces(DRIFT_PIECES, framing.n_fft + (n_frames - 1) * framing.hop_length)
        if waveforms is not None:
            break
    else:
        return
    n_prompt, parts = round(DRIFT_PROMPT * framing.frame_rate), []
    for piece in waveforms:
        if piece.square().mean().sqrt() >= QUIET * level:
            log_magnitude = featurizer.log_magnitude(piece.cpu()).to(model.drift.device)
            codes, vector, detail = model.codec.analyze(log_magnitude)
            parts.append((vector + detail, model.codec.level(log_magnitude), codes[n_prompt:, 0]))
    if not parts:
        return
    frames, levels, follows = (torch.stack(part) for part in zip(*parts, strict=True))
    start = drift.start(frames[:, :n_prompt], levels[:, :n_prompt], framing.frame_rate, model.codec.softest)
    components, level_drift = drift.measure(start, frames[:, n_prompt:], levels[:, n_prompt:], framing.frame_rate)
    model.drift.copy_(components)
    model.level_drift.copy_(level_drift)
    far = drift.distance(model.first_centres()[follows], start.origin.unsqueeze(1), model.drift)
    model.leap.fill_(float(np.quantile(far.cpu().numpy(), drift.LEAP_QUANTILE)))
