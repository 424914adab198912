"""The smooth spectra that are typical of the pieces of a corpus, for prompts that are to sound like one of them."""

from __future__ import annotations

import numpy as np
import torch

from spectral.envelope import N_TYPICAL, Envelope


@torch.no_grad()
def fit_typical(envelope: Envelope, power: torch.Tensor, seed: int):
    """The shapes that are typical of a corpus: means of k-means clusters, into ``envelope.typical``.

    Args:
        power: of pieces of the corpus, from :meth:`spectral.envelope.Envelope.power`.

    Shape:
        ``[n_chunks, n_bins]``
    """
    from sklearn.cluster import KMeans

    if envelope.n_bands:
        shapes = _shape(envelope, power).numpy()
        kmeans = KMeans(min(N_TYPICAL, len(np.unique(shapes, axis=0))), n_init=4, random_state=seed % 2**32)
        centres = kmeans.fit(shapes).cluster_centers_
        # A tiny corpus has fewer pieces than that: what there is, again.
        envelope.typical.copy_(torch.from_numpy(centres[np.arange(N_TYPICAL) % len(centres)]))


def to_typical(envelope: Envelope, log_magnitude: torch.Tensor) -> torch.Tensor:
    """The gains, nepers, that bring pieces to the typical shape which is nearest to theirs; 0 without bands.

    Shape:
        log_magnitude ``[B, n_frames, n_bins]`` -> ``[B, n_bins]``
    """
    if not envelope.n_bands:
        return torch.zeros_like(log_magnitude[:, 0])
    shape = _shape(envelope, envelope.power(log_magnitude))
    return (envelope.typical[torch.cdist(shape, envelope.typical).argmin(-1)] - shape) @ envelope.hats.T


def _shape(envelope: Envelope, power: torch.Tensor) -> torch.Tensor:
    """What is left of envelopes without their level. Shape: ``[B, n_bins]`` -> ``[B, channels * n_bands]``"""
    # At the corpus' own level, where what is too soft to tell is known.
    bands = envelope.bands(power)
    levels = [(2 * x).logsumexp(-1, keepdim=True) / 2 for x in (envelope.usual, bands)]
    bands = torch.maximum(bands + levels[0] - levels[1], envelope.lowest())
    return bands - bands.mean(-1, keepdim=True)
