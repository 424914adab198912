"""Residual k-means codec: a log-magnitude frame <-> a handful of codes, and what they leave over.

A frame is centred, weighted, projected on components and then quantized by a chain of codebooks, each
for what the ones before left over (residual vector quantization, Juang and Gray 1982). What the last
book leaves, in units of its own deviation, is the *detail* of the frame: the decoder
(``refiner.Refiner``) draws it anew.

The components span the space of the first principal ones. The first :data:`N_BROAD` are principal
components, on which frames move little by little; the rest is turned so that each lies in few bins
(varimax, Kaiser 1958): what is drawn for each component alone can then be steady at a partial and restless
between two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from featurizer import DB, check_varied, fit_scaler, mel_weight

N_BROAD = 32  # principal components that stay as they are
RISE_FLOOR_DB = -75.0  # what begins below it is not heard
FLOOR_DB = -100.0  # frames are clipped here before coding; below lies the noise of 16 bits


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
        self.register_buffer("deviation", torch.ones(n_components))
        self.register_buffer("balance", torch.zeros(()))  # added to what is drawn, see calibration
        self.register_buffer("loudest", torch.full((), 100.0))  # of the corpus' frames, nepers
        self.register_buffer("softest", torch.full((), -100.0))
        self.register_buffer("change", torch.ones(n_components))  # mean square, from frame to frame

    def project(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Shape: log_magnitude ``[..., n_bins]`` -> ``[..., n_components]``"""
        clipped = log_magnitude.clamp(min=FLOOR_DB / DB)
        return ((clipped - self.mean) * self.weight) @ self.components.T

    def encode(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Shape: log_magnitude ``[..., n_bins]`` -> codes ``[..., n_books]`` int64"""
        return self.analyze(log_magnitude)[0]

    def analyze(self, log_magnitude: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes, what they stand for and what they leave, the latter two in deviations of each component.

        Shape:
            log_magnitude ``[..., n_bins]`` -> codes ``[..., n_books]`` int64, vector and detail
            ``[..., n_components]``
        """
        projected = residual = self.project(log_magnitude)
        codes = []
        for book in self.books:
            distance = torch.addmm(
                0.5 * book.square().sum(-1), residual.reshape(-1, residual.shape[-1]), book.T, alpha=-1
            )
            code = distance.argmin(-1).reshape(residual.shape[:-1])
            residual = residual - book[code]
            codes.append(code)
        return torch.stack(codes, dim=-1), (projected - residual) / self.deviation, residual / self.deviation

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """The mean frame of the codes. Shape: codes ``[..., n_books]`` -> ``[..., n_bins]``"""
        return self.unproject(self.vector(codes))

    def vector(self, codes: torch.Tensor) -> torch.Tensor:
        """Sum of the codes' centres. Shape: codes ``[..., n_books]`` -> ``[..., n_components]``"""
        return sum(book[codes[..., i]] for i, book in enumerate(self.books))

    def typical(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """The frame that the nearest code of the first book alone stands for: one of :attr:`n_codes` that are typical
        of the corpus. Shape: log_magnitude ``[T, n_bins]`` -> ``[T, n_bins]``"""
        nearest = torch.cdist(self.project(log_magnitude), self.books[0]).argmin(-1)
        return self.unproject(self.books[0][nearest])

    def unproject(self, vector: torch.Tensor) -> torch.Tensor:
        """Shape: vector ``[..., n_components]`` -> log_magnitude ``[..., n_bins]``"""
        log_magnitude = vector @ self.components / self.weight + self.mean
        return log_magnitude.clamp(min=FLOOR_DB / DB)

    def project_level(self) -> torch.Tensor:
        """What one neper more in all bins is in the components. Shape: ``[n_components]``"""
        return self.weight @ self.components.T

    def level(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Nepers, of all bins together. Shape: ``[..., n_bins]`` -> ``[..., 1]``"""
        # Far from the ends of float32, and several times faster than logsumexp.
        return torch.linalg.vector_norm(log_magnitude.exp(), dim=-1, keepdim=True).log()

    def rise(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """How much each frame but the first grows: nepers, mean over bins by their weight.

        Shape:
            ``[..., T, n_bins]`` -> ``[..., T - 1]``
        """
        clipped = log_magnitude.clamp(min=RISE_FLOOR_DB / DB)
        return (clipped.diff(dim=-2).relu() * self.weight).sum(-1) / self.weight.sum()

    def detail(self, log_magnitude: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """What the codes leave of a frame, in deviations of each component.

        Shape:
            log_magnitude ``[..., n_bins]``, codes ``[..., n_books]`` -> ``[..., n_components]``
        """
        return (self.project(log_magnitude) - self.vector(codes)) / self.deviation


def varimax(loadings: np.ndarray, n_iterations: int = 60) -> np.ndarray:
    """The rotation after which each column has few large entries (Kaiser 1958; iterated by SVD, Sherin 1966).

    Shape:
        loadings ``[n_rows, n_columns]`` float -> ``[n_columns, n_columns]`` float64, orthogonal;
        ``loadings @ rotation`` has the largest variance of squares in each column
    """
    loadings = np.asarray(loadings, np.float64)
    rotation = np.eye(loadings.shape[1])
    for _ in range(n_iterations if loadings.size else 0):
        rotated = loadings @ rotation
        left, _, right = np.linalg.svd(loadings.T @ (rotated**3 - rotated * np.square(rotated).mean(0)))
        rotation = left @ right
    return rotation


def fit_codec(
    codec: ResidualCodec,
    chunks: np.ndarray,
    sample_rate: int,
    seed: int,
    channels: int = 1,
    progress: Callable[[float], None] = lambda share: None,
):
    """Fill the codec's arrays from frames of the corpus, by scikit-learn.

    Args:
        chunks: log-magnitude ``[n_chunks, n_frames, n_bins]`` float32, frames consecutive in each.
        sample_rate: Hz.
        channels: whose bins lie side by side in a frame, each from 0 Hz to half the sample rate.
        progress: called with the share that is done.

    Raises:
        featurizer.Unvaried: all frames are the same.
    """
    import sklearn.cluster  # noqa: F401 - its threads must be there to be limited
    from threadpoolctl import threadpool_limits

    # Many small products: beside another program, two threads take ten times as long as one.
    with threadpool_limits(1):
        _fit_codec(codec, chunks, sample_rate, seed, channels, progress)


def _fit_codec(codec, chunks, sample_rate, seed, channels, progress):
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    n_bins = chunks.shape[-1]
    chunks = np.maximum(chunks, FLOOR_DB / DB)
    check_varied(chunks, FLOOR_DB)
    mean, _ = fit_scaler(chunks)
    # By ear, or the treble's noise takes most of the codes.
    weight = mel_weight(n_bins // channels, sample_rate, channels)
    flat = ((chunks - mean) * weight).reshape(-1, n_bins)
    n_components = min(codec.components.shape[0], n_bins, len(flat))
    pca = PCA(n_components, svd_solver="covariance_eigh" if len(flat) > n_bins else "auto", random_state=seed % 2**32)
    with np.errstate(invalid="ignore"):  # it divides by the variance, which a steady sound has none of
        vectors = pca.fit_transform(flat).astype(np.float32)
    rotation = varimax(pca.components_[N_BROAD:].T).astype(np.float32)
    vectors[:, N_BROAD:] = vectors[:, N_BROAD:] @ rotation
    mean = mean + pca.mean_.astype(np.float32) / weight
    books = np.zeros(codec.books.shape, np.float32)
    residual = vectors.copy()
    for i in range(codec.n_books):
        progress((i + 1) / (codec.n_books + 1))
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
    components[N_BROAD:n_components] = rotation.T @ pca.components_[N_BROAD:]
    deviation = np.ones(codec.components.shape[0], np.float32)
    # Of components that the codes exhaust (silence, a tiny corpus), nothing is left to draw.
    deviation[:n_components] = np.maximum(residual.std(0), 1e-4)
    change = np.ones(codec.components.shape[0], np.float32)
    steps = np.diff(vectors.reshape(*chunks.shape[:2], -1), axis=1)
    change[:n_components] = np.maximum(np.square(steps).mean((0, 1)), 1e-8) if steps.size else 1.0
    for name, value in (
        ("mean", mean),
        ("weight", weight),
        ("components", components),
        ("books", books),
        ("deviation", deviation),
        ("change", change),
    ):
        getattr(codec, name).copy_(torch.from_numpy(value))
    # Percentiles, since a moment's click or the silence between pieces is nothing to stay at.
    softest, loudest = np.percentile(codec.level(torch.from_numpy(chunks)).numpy(), [3, 99])
    codec.softest.fill_(float(softest))
    codec.loudest.fill_(float(loudest))
    codec.scale.fill_(float(np.sqrt(np.square(vectors).mean())))
