"""Residual k-means codec: a log-magnitude frame <-> a handful of codes, plus the spread they lose.

A frame is centred, weighted, projected on principal components and then quantized by a chain of
codebooks, each for what the ones before left over (residual vector quantization). What
quantization averages away is the texture of the sound, so the decoder draws it again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from featurizer import DB, fit_scaler

FLOOR_DB = -100.0  # frames are clipped here before coding; below lies the noise of 16 bits
N_QUANTILES = 65
WIDEST = 3.0  # standard deviations that the table of quantiles spans on each side


class ResidualCodec(nn.Module):
    """Codes of frames. All arrays are buffers, so they travel with the model's state.

    Args:
        n_bins, n_components, n_books, n_codes: sizes.
    """

    def __init__(self, n_bins: int, n_components: int, n_books: int, n_codes: int):
        super().__init__()
        self.n_books, self.n_codes = n_books, n_codes
        self.register_buffer("mean", torch.zeros(n_bins))
        self.register_buffer("weight", torch.ones(n_bins))
        self.register_buffer("components", torch.zeros(n_components, n_bins))
        self.register_buffer("books", torch.zeros(n_books, n_codes, n_components))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("spread", torch.zeros(n_codes, n_bins))
        self.register_buffer("persistence", torch.zeros(n_bins))
        self.register_buffer("quantiles", torch.linspace(-WIDEST, WIDEST, N_QUANTILES))

    def project(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Shape: log_magnitude ``[..., n_bins]`` -> ``[..., n_components]``"""
        clipped = log_magnitude.clamp(min=FLOOR_DB / DB)
        return ((clipped - self.mean) * self.weight) @ self.components.T

    def encode(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Shape: log_magnitude ``[..., n_bins]`` -> codes ``[..., n_books]`` int64"""
        residual = self.project(log_magnitude)
        codes = []
        for book in self.books:
            distance = torch.addmm(
                0.5 * book.square().sum(-1), residual.reshape(-1, residual.shape[-1]), book.T, alpha=-1
            )
            code = distance.argmin(-1).reshape(residual.shape[:-1])
            residual = residual - book[code]
            codes.append(code)
        return torch.stack(codes, dim=-1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """The mean frame of the codes. Shape: codes ``[..., n_books]`` -> ``[..., n_bins]``"""
        return self.unproject(self.vector(codes))

    def vector(self, codes: torch.Tensor) -> torch.Tensor:
        """Sum of the codes' centres. Shape: codes ``[..., n_books]`` -> ``[..., n_components]``"""
        return sum(book[codes[..., i]] for i, book in enumerate(self.books))

    def unproject(self, vector: torch.Tensor) -> torch.Tensor:
        """Shape: vector ``[..., n_components]`` -> log_magnitude ``[..., n_bins]``"""
        log_magnitude = vector @ self.components / self.weight + self.mean
        return log_magnitude.clamp(min=FLOOR_DB / DB)

    def start_texture(self, log_magnitude: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """The drift with which :meth:`texture` goes on from a true frame.

        Shape:
            log_magnitude ``[B, n_bins]``, codes ``[B, n_books]`` -> ``[B, n_bins]``
        """
        lost = log_magnitude.clamp(min=FLOOR_DB / DB) - self.decode(codes)
        return (lost / self.spread[codes[:, 0]].clamp(min=1e-6)).clamp(-WIDEST, WIDEST)

    def texture(self, first_code: torch.Tensor, drift: torch.Tensor, generator=None):
        """What the codes lost, drawn anew: to be added to a decoded frame.

        ``drift`` is a standard normal process per bin, of first order in time with the residuals'
        own correlation; the residuals' quantiles turn it into their distribution (a log-magnitude
        falls further than it rises) and the first code gives the width.

        Shape:
            first_code ``[B]``, drift ``[B, n_bins]`` -> ``(texture [B, n_bins], drift [B, n_bins])``
        """
        fresh = torch.randn(drift.shape, generator=generator, device=drift.device)
        drift = self.persistence * drift + (1 - self.persistence.square()).sqrt() * fresh
        rank = ((drift / WIDEST + 1) * 0.5 * (N_QUANTILES - 1)).clamp(0, N_QUANTILES - 1)
        lower = rank.floor().clamp(max=N_QUANTILES - 2).long()
        value = torch.lerp(self.quantiles[lower], self.quantiles[lower + 1], rank - lower)
        return self.spread[first_code] * value, drift


def fit_codec(codec: ResidualCodec, chunks: np.ndarray, sample_rate: int, seed: int):
    """Fill the codec's arrays from frames of the corpus, by scikit-learn.

    Args:
        chunks: log-magnitude ``[n_chunks, n_frames, n_bins]`` float32, frames consecutive in each.
        sample_rate: Hz.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    n_bins = chunks.shape[-1]
    chunks = np.maximum(chunks, FLOOR_DB / DB)
    mean, _ = fit_scaler(chunks)
    # Bins are equally spaced in Hz, ears are not: weigh each by the density of the mel scale
    # (HTK: mel ~ log(1 + f / 700)), or the treble's noise takes most of the codes.
    frequency = np.linspace(0, sample_rate / 2, n_bins)
    weight = (1 / np.sqrt(1 + frequency / 700)).astype(np.float32)
    flat = ((chunks - mean) * weight).reshape(-1, n_bins)
    n_components = min(codec.components.shape[0], n_bins, len(flat))
    pca = PCA(n_components, svd_solver="covariance_eigh" if len(flat) > n_bins else "auto", random_state=seed % 2**32)
    vectors = pca.fit_transform(flat).astype(np.float32)
    mean = mean + pca.mean_.astype(np.float32) / weight
    books = np.zeros(codec.books.shape, np.float32)
    residual = vectors.copy()
    for i in range(codec.n_books):
        n_codes = min(codec.n_codes, len(residual))
        kmeans = MiniBatchKMeans(
            n_codes,
            batch_size=4096,
            max_iter=12,
            n_init=1,
            init_size=3 * n_codes,
            max_no_improvement=5,
            reassignment_ratio=0.001,
            random_state=(seed + i) % 2**32,
        )
        labels = kmeans.fit_predict(residual)
        # A tiny corpus has fewer frames than codes: repeat what there is.
        books[i, :, :n_components] = kmeans.cluster_centers_[np.arange(codec.n_codes) % n_codes]
        residual -= kmeans.cluster_centers_[labels]
    components = np.zeros(codec.components.shape, np.float32)
    components[:n_components] = pca.components_
    for name, value in (("mean", mean), ("weight", weight), ("components", components), ("books", books)):
        getattr(codec, name).copy_(torch.from_numpy(value))
    codec.scale.fill_(float(np.sqrt(np.square(vectors).mean())))
    _fit_texture(codec, torch.from_numpy(chunks))


def _fit_texture(codec: ResidualCodec, chunks: torch.Tensor):
    """Width per first code and bin, correlation in time per bin, and shape of the residuals."""
    codes = codec.encode(chunks)
    residual = chunks - codec.decode(codes)
    first = codes[..., 0].flatten()
    flat = residual.flatten(0, 1)
    width = flat.square().mean(0)
    total = torch.zeros_like(codec.spread).index_add_(0, first, flat.square())
    count = torch.bincount(first, minlength=codec.n_codes).unsqueeze(-1)
    prior = 16  # frames' worth of the average width, for codes seldom seen
    codec.spread.copy_(((total + prior * width) / (count + prior)).sqrt())
    if chunks.shape[1] > 1:
        lagged = (residual[:, 1:] * residual[:, :-1]).mean((0, 1))
        codec.persistence.copy_((lagged / width.clamp(min=1e-12)).clamp(0, 0.99))
    every = max(1, len(flat) // 2000)
    width = codec.spread[first[::every]]
    standard = (flat[::every] / width)[width > 1e-3].numpy()
    if not len(standard):  # nothing is lost, so there is nothing to draw
        return
    normal = torch.linspace(-WIDEST, WIDEST, N_QUANTILES)
    quantiles = np.quantile(standard, torch.special.ndtr(normal).numpy()).astype(np.float32)
    density = torch.exp(-0.5 * normal.square()).numpy()  # the spread has the width: here, unit power
    quantiles /= np.sqrt((density * quantiles**2).sum() / density.sum())
    codec.quantiles.copy_(torch.from_numpy(quantiles))
