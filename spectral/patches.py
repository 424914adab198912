"""Patches: a few frames of log-magnitude <-> a vector of latents, by linear maps alone.

A frame's magnitude is compressed, ``log(1 + |X| / e)``: logarithmic above the floor ``e``, linear below it. The floor
lies near the corpus' own spectrum. Far below it, all magnitudes are logarithms, and those of the noise between
partials fluctuate as much as the partials: then rollouts have fewer notes and voices (measured in bench/sound.md).
Weighted by the density of the mel scale, the compressed frame is projected on principal components; those of
``patch_frames`` frames, side by side, are projected once more. Latents have unit variance.

The way back is a ridge regression from a patch and its two neighbours to its frames' components: a patch that is
decoded alone does not meet its neighbours at its borders, which is heard as an onset. Latents do not
tell how magnitudes below the floor fluctuate from frame to frame; that is sampled as noise.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from config import FeaturizerConfig, ModelConfig
from featurizer import DB, check_varied, mel_weight

RIDGE = 1e-3  # of the decoder, as a share of the latents' variance
LOWEST_DB = -100.0  # of a floor, re full scale: where a corpus has nothing, its rounding errors are not worth a latent


class PatchBasis(nn.Module):
    """The linear maps between frames and latents. All arrays are buffers, so they travel with the model's state.

    Args:
        featurizer: framing; of two channels, the bins lie side by side in a frame.
        config: sizes; ``floor_db``, of the floor relative to the corpus' RMS at each frequency.
    """

    def __init__(self, featurizer: FeaturizerConfig, config: ModelConfig):
        super().__init__()
        n_bins, self.patch_frames = featurizer.n_bins, config.patch_frames
        n_components, n_latents = config.n_components, config.n_latents
        self.floor_db, self.framing = config.floor_db, featurizer
        weight = mel_weight(featurizer.n_channel_bins, featurizer.sample_rate, featurizer.channels)
        self.register_buffer("weight", torch.from_numpy(weight), persistent=False)
        # Through it, Gaussian noise of unit variance has a log-magnitude whose mean is 0: the logarithm of a Rayleigh
        # variable whose mean square is 1 has a mean of minus half of Euler's constant.
        window = torch.hann_window(featurizer.n_fft)
        noise_window = math.exp(0.5 * np.euler_gamma) * window / window.norm()
        self.register_buffer("noise_window", noise_window, persistent=False)
        self.register_buffer("log_floor", torch.zeros(n_bins))  # nepers, as log-magnitudes
        self.register_buffer("mean", torch.zeros(n_bins))
        self.register_buffer("components", torch.zeros(n_components, n_bins))
        self.register_buffer("patch_mean", torch.zeros(self.patch_frames * n_components))
        self.register_buffer("analysis", torch.zeros(n_latents, self.patch_frames * n_components))
        self.register_buffer("synthesis", torch.zeros(self.patch_frames * n_components, 3 * n_latents))
        self.register_buffer("spread", torch.ones(n_latents))  # standard deviation of a latent before it was scaled

    def compress(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Shape: log_magnitude ``[..., n_bins]`` in nepers -> the same"""
        return (log_magnitude - self.log_floor).exp().log1p()

    def expand(self, compressed: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`compress`, down to 120 dB below the floor."""
        return compressed.expm1().clamp(min=1e-6).log() + self.log_floor

    def project(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Shape: log_magnitude ``[..., n_bins]`` -> ``[..., n_components]``"""
        return (self.compress(log_magnitude) * self.weight - self.mean) @ self.components.T

    def encode(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Latents of whole patches; frames at the end that fill none are left out.

        Shape: log_magnitude ``[..., n_frames, n_bins]`` -> ``[..., n_frames // patch_frames, n_latents]``"""
        n_patches = log_magnitude.shape[-2] // self.patch_frames
        frames = self.project(log_magnitude[..., : n_patches * self.patch_frames, :])
        patches = frames.unflatten(-2, (n_patches, self.patch_frames)).flatten(-2)
        return (patches - self.patch_mean) @ self.analysis.T

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Frames of all patches but the first and the last, which are the others' neighbours.

        Shape:
            latents ``[..., n_patches, n_latents]`` -> log_magnitude ``[..., (n_patches - 2) * patch_frames, n_bins]``
        """
        patches = neighbourhoods(latents) @ self.synthesis.T + self.patch_mean
        frames = patches.unflatten(-1, (self.patch_frames, -1)).flatten(-3, -2)
        return self.expand((frames @ self.components + self.mean) / self.weight)

    def textured(self, log_magnitude: torch.Tensor, strength: float, generator=None) -> torch.Tensor:
        """Decoded frames with what the latents do not tell of them: the fluctuation of noise, added to the
        log-magnitude with the weight ``1 / (1 + |X| / e)``, one minus the slope of the compression: one far below the
        floor, one half at it, none far above. The mean of the log-magnitude stays. Both channels are given the same
        fluctuation, so that what is in the middle of the stereo image stays there.

        Args:
            strength: a factor of it. At 0 frames stay as they are; at 1, far below the floor, those of a smooth
                spectrum become those of Gaussian noise of that spectrum.

        Shape: log_magnitude ``[B, n_frames, n_bins]`` in nepers -> the same"""
        if not strength:
            return log_magnitude
        n_fft, hop = self.framing.n_fft, self.framing.hop_length
        n_samples = n_fft + (log_magnitude.shape[1] - 1) * hop
        noise = torch.randn(len(log_magnitude), n_samples, generator=generator, device=log_magnitude.device)
        # Frames that overlap fluctuate together, as those of recordings do: white fluctuation is worse.
        spectrum = torch.fft.rfft(noise.unfold(-1, n_fft, hop) * self.noise_window)
        fluctuation = spectrum.abs().clamp(min=1e-6).log().repeat(1, 1, self.framing.channels)
        return log_magnitude + strength * (self.log_floor - log_magnitude).sigmoid() * fluctuation

    def mean_frame(self) -> torch.Tensor:
        """The linear map from latents to the mean of their patch's compressed frames, but for what all patches have in
        common. Shape: -> ``[n_bins, n_latents]``"""
        frames = torch.linalg.pinv(self.analysis).unflatten(0, (self.patch_frames, -1)).mean(0)
        return self.components.T @ frames / self.weight.unsqueeze(1)

    def remake(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """Frames by way of their latents. The last frame is repeated to fill its patch, and the first and the last
        patch to have neighbours. Shape: ``[..., n_frames, n_bins]`` -> the same"""
        n_frames = log_magnitude.shape[-2]
        last = log_magnitude[..., -1:, :]
        latents = self.encode(torch.cat([log_magnitude, *[last] * (-n_frames % self.patch_frames)], -2))
        latents = torch.cat([latents[..., :1, :], latents, latents[..., -1:, :]], -2)
        return self.decode(latents)[..., :n_frames, :]


def neighbourhoods(latents: torch.Tensor) -> torch.Tensor:
    """Each patch between its neighbours, but for the first and the last.

    Shape: ``[..., n_patches, n_latents]`` -> ``[..., n_patches - 2, 3 * n_latents]``"""
    return torch.cat([latents[..., :-2, :], latents[..., 1:-1, :], latents[..., 2:, :]], -1)


def fit_patches(basis: PatchBasis, chunks: np.ndarray, seed: int, lowest_db: float = LOWEST_DB) -> torch.Tensor:
    """Fill a basis from frames of recordings, by scikit-learn; returns their latents ``[n_chunks, n_patches,
    n_latents]``.

    Args:
        chunks: log-magnitude ``[n_chunks, n_frames, n_bins]`` float32, frames consecutive in each; at least three
            patches long.
        lowest_db: of the floor at any frequency.

    Raises:
        featurizer.Unvaried: all frames are the same.
        ValueError: chunks shorter than three patches.
    """
    n_chunks, n_frames, _ = chunks.shape
    if n_frames < 3 * basis.patch_frames:
        raise ValueError(f"chunks of {n_frames} frames; three patches of {basis.patch_frames} are needed")
    check_varied(chunks, lowest_db)
    rms_db = 10 * np.log10(np.exp(2 * chunks.astype(np.float64)).mean((0, 1)))
    basis.log_floor.copy_(torch.from_numpy(np.maximum(rms_db + basis.floor_db, lowest_db) / DB))
    compressed = (basis.compress(torch.from_numpy(chunks)) * basis.weight).numpy()
    mean, components = principal(compressed.reshape(-1, compressed.shape[-1]), len(basis.components), seed)
    frames = (compressed - mean) @ components.T
    n_patches = n_frames // basis.patch_frames
    patches = frames[:, : n_patches * basis.patch_frames].reshape(n_chunks * n_patches, -1)
    patch_mean, directions = principal(patches, len(basis.analysis), seed)
    latents = (patches - patch_mean) @ directions.T
    # Directions in which nothing happens (a tiny corpus, silence) have no latent.
    spread = np.maximum(latents.std(0), 1e-4)
    directions /= spread[:, None]
    latents = torch.from_numpy(latents / spread).unflatten(0, (n_chunks, n_patches))
    around = neighbourhoods(latents).flatten(0, 1).numpy()
    inside = (patches - patch_mean).reshape(n_chunks, n_patches, -1)[:, 1:-1].reshape(len(around), -1)
    synthesis = fit_ridge(around, inside, RIDGE)
    arrays = {"mean": mean, "components": components, "patch_mean": patch_mean, "analysis": directions}
    for name, values in (arrays | {"synthesis": synthesis, "spread": spread}).items():
        getattr(basis, name).copy_(torch.from_numpy(np.asarray(values, np.float32)))
    return latents


def fit_ridge(inputs: np.ndarray, targets: np.ndarray, share: float) -> np.ndarray:
    """Ridge regression of centred values, the penalty a share of the inputs' number, i.e. of their variance where that
    is 1. Shape: ``[n, n_inputs]``, ``[n, n_targets]`` -> ``[n_targets, n_inputs]``"""
    from sklearn.linear_model import Ridge

    return Ridge(alpha=share * len(inputs), fit_intercept=False, solver="cholesky").fit(inputs, targets).coef_


def principal(rows: np.ndarray, n_wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and the first principal directions; zeros where there are fewer of them than wanted.

    Shape: rows ``[n_rows, n_columns]`` -> ``[n_columns]``, ``[n_wanted, n_columns]``"""
    from sklearn.decomposition import PCA

    n = min(n_wanted, *rows.shape)
    solver = "covariance_eigh" if len(rows) > rows.shape[1] else "auto"
    with np.errstate(invalid="ignore"):  # it divides by the variance, which a steady sound has none of
        pca = PCA(n, svd_solver=solver, random_state=seed % 2**32).fit(rows)
    directions = np.zeros((n_wanted, rows.shape[1]), np.float32)
    directions[:n] = pca.components_
    return pca.mean_.astype(np.float32), directions
