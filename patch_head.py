"""The distribution of the next patch, from the LSTM's output and the last patch.

Knows nothing of files, devices or arguments.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from spectral.patches import fit_ridge

MIN_LOG_SPREAD, MAX_LOG_SPREAD = -3.0, 1.0  # of a latent, whose own spread is 1
MAX_LOG_FACTOR = 2.0  # of the whitening's diagonal and of a component's spread
FIRST_LOG_SPREADS = -0.4, 0.6  # of the mixture's components before training, from the first to the last
FIRST_MEANS = 0.1  # standard deviation of the components' means before training
LEAST_VARIANCE = 1e-3  # of a residual in the first whitening: where nothing happens, it is unbounded
CARRY_OVER_RIDGE = 3e-2  # as a share of the latents' variance


class PatchHead(nn.Module):
    """Mean, spread and shape of the next patch.

    The residual of a patch is what it differs by from its mean, in units of its spread. The mean goes on from the last
    patch by a matrix, which starts as the linear prediction of the corpus; the LSTM corrects it, and gives the spread
    of each latent. A triangular matrix, the same for all patches, makes the residual white, and the white residual
    follows a mixture of Gaussians whose weights come from the LSTM (as Tschannen et al. 2023, arXiv:2312.02116, for
    latents of images). With a single Gaussian, all patches differ from the last by much the same amount, and a rollout
    is a texture without onsets; in recordings some patches hardly differ from the last, and in others a note begins.
    Samples are limited to the range of the corpus' latents.

    Args:
        hidden: size of the LSTM's output.
        n_latents: of a patch.
        n_mixture: Gaussians.
    """

    colouring: torch.Tensor | None = None  # the inverse of the whitening, where it has been laid out for rollouts

    def __init__(self, hidden: int, n_latents: int, n_mixture: int):
        super().__init__()
        self.register_buffer("weight", torch.ones(n_latents))  # of the latents in the loss and in the LSTM's input
        self.register_buffer("low", torch.full((n_latents,), -torch.inf))  # range of the corpus
        self.register_buffer("high", torch.full((n_latents,), torch.inf))
        self.carry_over = nn.Linear(n_latents, n_latents, bias=False)  # the last patch's part in the mean of the next
        self.mean, self.log_spread = nn.Linear(hidden, n_latents), nn.Linear(hidden, n_latents)
        self.whitening = nn.Parameter(torch.zeros(n_latents, n_latents))
        self.log_diagonal = nn.Parameter(torch.zeros(n_latents))
        self.component = nn.Linear(hidden, n_mixture)
        self.component_mean = nn.Parameter(FIRST_MEANS * torch.randn(n_mixture, n_latents))
        log_spreads = torch.linspace(*FIRST_LOG_SPREADS, n_mixture).unsqueeze(1).repeat(1, n_latents)
        self.component_log_spread = nn.Parameter(log_spreads)
        outputs = self.carry_over.weight, *self.mean.parameters(), *self.log_spread.parameters(), self.component.weight
        for parameter in outputs:
            nn.init.zeros_(parameter)

    @torch.no_grad()
    def fit(self, latents: torch.Tensor, spread: torch.Tensor, range_quantile: float):
        """The weight and the range of the latents, the mean of the next patch by linear regression on the last one, and
        the covariance of what that leaves.

        Args:
            latents: of pieces of the corpus.
            spread: their standard deviation in the scale of the frames.
            range_quantile: see :class:`config.ModelConfig`.

        Shape: latents ``[n_chunks, n_patches, n_latents]``, spread ``[n_latents]``"""
        # Latents of unit variance would all count alike, those in the scale of the frames by their variance; this is
        # halfway between.
        self.weight.copy_(spread.sqrt() / spread.mean().sqrt())
        if range_quantile:
            ends = [range_quantile, 1 - range_quantile]
            low, high = np.quantile(latents.flatten(0, 1).numpy(), ends, axis=0)
            self.low.copy_(torch.from_numpy(low))
            self.high.copy_(torch.from_numpy(high))
        last, following = latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)
        carry_over = fit_ridge(last.numpy(), following.numpy(), CARRY_OVER_RIDGE)
        self.carry_over.weight.copy_(torch.from_numpy(carry_over))
        # The first whitening is that of its residual: else young models are 4 dB too loud.
        residual = following - last @ self.carry_over.weight.T
        covariance = residual.T @ residual / len(residual) + LEAST_VARIANCE * torch.eye(residual.shape[1])
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance))
        log_diagonal = whitening.diag().log().clamp(-MAX_LOG_FACTOR, MAX_LOG_FACTOR)
        self.log_diagonal.copy_(log_diagonal)
        self.whitening.copy_((whitening * (log_diagonal.exp() / whitening.diag()).unsqueeze(1)).tril(-1))

    def distribution(self, context: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the spread of the next patch, in units of which the mixture is.

        Shape: the LSTM's output ``[..., hidden]``, last patch ``[..., n_latents]`` -> ``[..., n_latents]`` each"""
        mean = self.carry_over(last) + self.mean(context)
        return mean, self.log_spread(context).clamp(MIN_LOG_SPREAD, MAX_LOG_SPREAD)

    def nats(self, context: torch.Tensor, last: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood per latent, up to a constant, if all weights are 1. They are not: latents count
        by :attr:`weight`, in the choice of a component as well.

        Shape: as :meth:`distribution`, target ``[..., n_latents]`` -> ``[...]``"""
        mean, log_spread = self.distribution(context, last)
        white = F.linear((target - mean) * (-log_spread).exp(), self._whitening())
        weight = self.weight / self.weight.mean()
        # The squared distances to all components as matrix products.
        component_log_spread = self._component_log_spread()
        precision = weight * (-2 * component_log_spread).exp()
        centre = self.component_mean
        squares = white.square() @ precision.T - 2 * white @ (precision * centre).T + (precision * centre**2).sum(-1)
        log_weight = self.component(context).log_softmax(-1) - (weight * component_log_spread).sum(-1)
        nats = -torch.logsumexp(log_weight - 0.5 * squares, -1) / len(weight)
        return nats + ((log_spread - self._log_diagonal()) * weight).mean(-1)

    def sample(self, context: torch.Tensor, last: torch.Tensor, temperature: float = 1.0, generator=None):
        """The next patch.

        Args:
            temperature: of the mixture's weights, and factor of the spread; at 0 the mean of the likeliest component.

        Shape: as :meth:`distribution` -> ``[..., n_latents]``"""
        mean, log_spread = self.distribution(context, last)
        chosen = choose(self.component(context), temperature, generator)
        normal = torch.randn(mean.shape, generator=generator, device=mean.device)
        white = self.component_mean[chosen] + temperature * self._component_log_spread()[chosen].exp() * normal
        residual = white @ self.inverse_whitening().T
        return (mean + log_spread.exp() * residual).clamp(self.low, self.high)

    # Where recordings are silent, latents are constant, and the likelihood grows without bound as a spread goes to 0.

    def _component_log_spread(self) -> torch.Tensor:
        return self.component_log_spread.clamp(-MAX_LOG_FACTOR, MAX_LOG_FACTOR)

    def _log_diagonal(self) -> torch.Tensor:
        return self.log_diagonal.clamp(-MAX_LOG_FACTOR, MAX_LOG_FACTOR)

    def _whitening(self) -> torch.Tensor:
        return self.whitening.tril(-1) + torch.diag(self._log_diagonal().exp())

    def inverse_whitening(self) -> torch.Tensor:
        """What gives a white residual the covariance of patches. Shape: ``[n_latents, n_latents]``"""
        if self.colouring is not None:
            return self.colouring
        eye = torch.eye(len(self.low), device=self.low.device)
        return torch.linalg.solve_triangular(self._whitening(), eye, upper=False)


def choose(logits: torch.Tensor, temperature: float, generator=None) -> torch.Tensor:
    """Sample an index by its logit, the largest of logits and noise together (Gumbel-max, Maddison et al. 2014,
    arXiv:1411.0030); at temperature 0 the likeliest. Shape: ``[..., n]`` -> ``[...]`` int64"""
    if temperature:
        # Far faster on a CPU than exponential_. A uniform 0 gives minus infinity: that index is not chosen.
        exponential = torch.rand(logits.shape, device=logits.device, generator=generator).log_().neg_()
        logits = logits - temperature * exponential.log_()
    return logits.argmax(-1)
