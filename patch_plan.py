"""The plan of the next patches: what is to sound in them, as a few codes that are sampled before they are.

Knows nothing of files, devices or arguments.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from config import FeaturizerConfig
from patch_head import choose

LOWEST_PITCH, N_PITCHES = 36, 72  # MIDI: six octaves, from 65 Hz on
N_PARTS = 3  # of a plan, two octaves of pitches each
NEIGHBOURS = 8  # semitones around a pitch, whose mean it stands out from
EMBEDDING = 192  # size of a code's embedding
FIRST_EMBEDDINGS = 0.05  # their standard deviation before training


class PatchPlan(nn.Module):
    """Codes of the pitches that sound in a block of patches: their distribution, and what they tell the patches.

    Which chord sounds lasts longer than a patch, and few numbers tell it. Sampled patch by patch with all else, it
    drifts: notes begin that belong to no key. So a block of patches has a plan, which is sampled first, and its patches
    are sampled given it (as coarse tokens before fine ones: Borsos et al. 2022, arXiv:2209.03143). The LSTM reads the
    plan of each patch that it reads.

    A plan is of three parts, the pitches of two octaves each, by how far each pitch stands out from its neighbours. Of
    each part the k-means of the corpus are the codes. A part is sampled given those below it.

    Args:
        hidden: size of the LSTM's output.
        n_latents: of a patch.
        n_patches: of a block.
        n_codes: of each part.
    """

    def __init__(self, hidden: int, n_latents: int, n_patches: int, n_codes: int):
        super().__init__()
        self.n_patches, self.n_codes = n_patches, n_codes
        self.register_buffer("profile", torch.zeros(N_PITCHES, n_latents))  # from latents to pitches
        self.register_buffer("centroids", torch.zeros(N_PARTS, n_codes, N_PITCHES // N_PARTS))
        self.register_buffer("first", torch.arange(N_PARTS) * n_codes, persistent=False)  # of each part in the tables
        n_all = N_PARTS * n_codes
        # Of the distribution of a plan: from the LSTM's output and the embeddings of the parts before to each part's.
        self.context, self.weight = nn.Linear(hidden, EMBEDDING), nn.Parameter(torch.zeros(N_PARTS, EMBEDDING, n_codes))
        self.earlier = nn.Parameter(FIRST_EMBEDDINGS * torch.randn(n_all, EMBEDDING))
        # What a plan adds to the LSTM's output, by a hidden layer and directly, and to its input.
        self.inner, self.outer = nn.Linear(hidden, EMBEDDING), nn.Linear(EMBEDDING, hidden, bias=False)
        self.planned = nn.Parameter(FIRST_EMBEDDINGS * torch.randn(n_all, EMBEDDING))
        self.direct, self.past = nn.Parameter(torch.zeros(n_all, hidden)), nn.Parameter(torch.zeros(n_all, hidden))
        nn.init.zeros_(self.outer.weight)

    @torch.no_grad()
    def fit(self, latents: torch.Tensor, to_frame: torch.Tensor, featurizer: FeaturizerConfig, seed: int):
        """The codes of a corpus, by scikit-learn.

        Args:
            latents: of pieces of it.
            to_frame: from latents to the mean compressed frame of a patch.

        Shape: latents ``[n_chunks, n_patches, n_latents]``, to_frame ``[n_bins, n_latents]``"""
        from sklearn.cluster import MiniBatchKMeans

        self.profile.copy_(torch.from_numpy(pitch_profile(featurizer)) @ to_frame)
        blocks = (latents @ self.profile.T).unfold(1, min(self.n_patches, latents.shape[1]), 1).mean(-1)
        for part, values in enumerate(blocks.flatten(0, 1).chunk(N_PARTS, -1)):
            n = min(self.n_codes, len(values))
            fitted = MiniBatchKMeans(n, n_init=1, batch_size=2048, max_iter=50, random_state=seed % 2**32).fit(values)
            centroids = torch.from_numpy(fitted.cluster_centers_.astype(np.float32))
            # Codes that a small corpus lacks are as the first one, which is nearer by its place.
            self.centroids[part] = centroids[0]
            self.centroids[part, :n] = centroids

    @torch.no_grad()
    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """The plans that patches follow; the last patch is repeated to fill its block.

        Shape: ``[B, T, n_latents]`` -> codes int64 ``[B, ceil(T / n_patches), N_PARTS]``"""
        profile = latents @ self.profile.T
        profile = torch.cat([profile, *[profile[:, -1:]] * (-profile.shape[1] % self.n_patches)], 1)
        blocks = profile.unflatten(1, (-1, self.n_patches)).mean(2).unflatten(-1, (N_PARTS, -1))
        return (blocks.unsqueeze(-2) - self.centroids).square().sum(-1).argmin(-1)

    def read(self, codes: torch.Tensor) -> torch.Tensor:
        """What the LSTM is given of the plan of a patch that it reads.

        Shape: ``[..., N_PARTS]`` -> ``[..., hidden]``"""
        return self._sums(codes, self.past)

    def tell(self, context: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """The LSTM's output, and what the plan of the patch to come adds to it.

        Shape: ``[..., hidden]``, codes ``[..., N_PARTS]`` -> ``[..., hidden]``"""
        told = self.outer(F.silu(self.inner(context) + self._sums(codes, self.planned)))
        return context + told + self._sums(codes, self.direct)

    def nats(self, context: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of plans, given the LSTM's output before their first patch.

        Shape: ``[..., hidden]``, codes ``[..., N_PARTS]`` -> ``[...]``"""
        earlier = self.earlier[codes + self.first]
        inner = self.context(context).unsqueeze(-2) + earlier.cumsum(-2) - earlier  # of the parts before each
        logits = torch.einsum("...pe,pec->...pc", F.silu(inner), self.weight)
        return F.cross_entropy(logits.flatten(0, -2), codes.flatten(), reduction="none").view(codes.shape).sum(-1)

    def sample(self, context: torch.Tensor, temperature: float = 1.0, generator=None) -> torch.Tensor:
        """Shape: ``[B, hidden]`` -> codes ``[B, N_PARTS]``"""
        inner, codes = self.context(context), []
        for part, weight in enumerate(self.weight):
            codes.append(choose(F.silu(inner) @ weight, temperature, generator))
            inner = inner + self.earlier[codes[-1] + self.first[part]]
        return torch.stack(codes, -1)

    def _sums(self, codes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Shape: ``[..., N_PARTS]`` -> ``[..., n]``"""
        return F.embedding_bag((codes + self.first).flatten(0, -2), table, mode="sum").unflatten(0, codes.shape[:-1])


def pitch_profile(featurizer: FeaturizerConfig) -> np.ndarray:
    """The linear map from a compressed frame to how far each pitch stands out from the mean of its neighbours. Channels
    count alike. Shape: -> float32 ``[N_PITCHES, n_bins]``"""
    width = featurizer.sample_rate / featurizer.n_fft
    hertz = np.arange(featurizer.n_channel_bins) * width
    at = 440 * 2 ** ((LOWEST_PITCH + np.arange(N_PITCHES) - 69) / 12)
    pitches = _triangles(hertz, at, np.maximum((2 ** (1 / 12) - 1) * at, width))
    near = _triangles(np.arange(N_PITCHES), np.arange(N_PITCHES), NEIGHBOURS + 1)
    return np.tile((pitches - near @ pitches) / featurizer.channels, featurizer.channels).astype(np.float32)


def _triangles(places: np.ndarray, centres: np.ndarray, reach) -> np.ndarray:
    """Weights of places around each centre that fall to 0 at its reach, their sum 1, or 0 where there is no place.
    Shape: ``[n]``, ``[m]`` -> ``[m, n]``"""
    weights = np.clip(1 - np.abs(places - centres[:, None]) / np.reshape(reach, (-1, 1)), 0, None)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
