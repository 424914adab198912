"""What a model takes from its corpus before the first step: frames for its scaler and latents, how fast recordings die
away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from checkpoint import NotFinite
from dataset import Segment, spread_chunks
from featurizer import Featurizer
from voice import decay_slopes, fastest

DECAY_PIECES, DECAY_SECONDS = 60, 10.0  # pieces that tell the corpus' room, and their length
CHUNKS, CHUNK_FRAMES = 400, 128  # pieces of the corpus that the scaler and the latents are fitted to, and their length


def chunks(segments: list[Segment], featurizer: Featurizer, seed: int) -> np.ndarray:
    """Log-magnitude of pieces of the whole corpus ``[CHUNKS, CHUNK_FRAMES, n_bins]``.

    Raises:
        NotFinite: the recordings are beyond what float32 can square.
    """
    framing = featurizer.config
    n_samples = framing.n_fft + (CHUNK_FRAMES - 1) * framing.hop_length
    pieces = spread_chunks(segments, CHUNKS, n_samples, seed)
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
