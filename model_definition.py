"""The LSTM over patches of latents; ``patch_plan.py`` has what is planned for the next ones, ``patch_head.py`` the
distribution of the next one, ``regression.py`` the original design.

Both models offer the same: ``predicts_phase``, ``behind``, ``loss`` over windows, and for rollouts ``packed``,
``prefill`` with a prompt, and ``next_frames``. They know nothing of files, devices or arguments.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from config import FeaturizerConfig, ModelConfig
from featurizer import check_varied
from patch_head import PatchHead
from patch_plan import N_PARTS, PatchPlan
from regression import RegressionLSTM
from spectral.envelope import Envelope
from spectral.patches import LOWEST_DB, PatchBasis, fit_patches
from spectral.typical import fit_typical

RELATIVE_LOWEST_DB = -20.0  # of the floor, re the envelope, which has a lowest level itself: below there is no music
N_PULSE = 4  # real and imaginary parts of the pulse at the beat and at half of it


def build_model(featurizer: FeaturizerConfig, model: ModelConfig) -> nn.Module:
    """The untrained model of a configuration."""
    kinds = {"patches": PatchLSTM, "regression": RegressionLSTM}
    return kinds[model.head](featurizer, model)


def plain_linear(weight: torch.Tensor, bias: torch.Tensor) -> Callable:
    """A linear layer as a function; where ``device.rollout_linear`` has one, that is faster for single rows."""
    return functools.partial(F.linear, weight=weight, bias=bias)


class RolloutState(NamedTuple):
    """What a rollout carries from patch to patch; the first dimension of each tensor is that of the batch."""

    latents: torch.Tensor  # of the last two patches, the newer of them not yet decoded [B, 2, n_latents]
    hidden: torch.Tensor  # of the LSTM's layers, hidden and cell [B, n_layers, 2, hidden]
    conditions: torch.Tensor  # what the LSTM is given beside the patches, but for plan and pulse [B, hidden]
    plan: torch.Tensor  # codes of the plan that the newer patch follows [B, N_PARTS]
    n_planned: torch.Tensor  # patches still to come that follow it, the same in all rows [B]
    envelope: torch.Tensor  # of the prompt, which frames are relative to: nepers [B, n_bins]
    pulse: torch.Tensor  # at the newer patch: complex [B, 2]
    turn: torch.Tensor  # of the pulse from patch to patch: complex [B, 2]


class Layer(nn.LSTM):
    """One layer, which can also make a single step, in a fraction of the time that ``nn.LSTM`` takes for one."""

    gates: Callable | None = None  # input and hidden state, side by side, to the four gates

    def step(self, x: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shape: ``[B, hidden]`` each -> the new hidden state and cell"""
        if self.gates is None:
            gates = F.linear(x, self.weight_ih_l0, self.bias_ih_l0)
            gates = gates + F.linear(hidden, self.weight_hh_l0, self.bias_hh_l0)
        else:
            gates = self.gates(torch.cat([x, hidden], -1))
        into, forget, new, out = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
        return out.sigmoid() * cell.tanh(), cell


class Packed(nn.Module):
    """A function in the place of a linear layer."""

    def __init__(self, function: Callable):
        super().__init__()
        self.forward = function


class PatchLSTM(nn.Module):
    """LSTM over patches; from its output the distribution of the next one, see :mod:`patch_head`.

    Pieces differ more from each other in level and colour than patches do within one of them, and a rollout goes to
    what is usual in the corpus. So frames are relative to the smooth spectrum of the piece, see
    :mod:`spectral.envelope`: in a rollout that of the prompt, in training that of the windows before.

    A rollout reads its own samples. Against errors that add up, training puts noise on the history, whose level is told
    (Ho et al. 2022, arXiv:2106.15282). Samples of the model in the history (scheduled sampling) would make rollouts
    lose the beat: what follows a sample is then not what it announces (measured in bench/sound.md).

    The *reference*, the mean of what came before, tells the LSTM with every patch which instruments, which scale and
    which level it is about; a rollout keeps that of its prompt. The *pulse* tells it how dense onsets are around the
    next patch, by the beat of what came before, see :mod:`rhythm`. The *plan* of a block of patches is sampled before
    them, see :mod:`patch_plan`; ``guidance`` above 1 makes them follow it more than is usual in the corpus.

    Args:
        featurizer: framing.
        config: sizes and what training does to the history.
    """

    predicts_phase = False

    def __init__(self, featurizer: FeaturizerConfig, config: ModelConfig):
        super().__init__()
        self.config, n, hidden = config, config.n_latents, config.hidden_size
        self.behind = config.patch_frames  # frames of a prompt that its rollout begins with
        self.basis, self.envelope = PatchBasis(featurizer, config), Envelope(featurizer, config.envelope_bands)
        self.input, self.reference = nn.Linear(n, hidden), nn.Linear(n, hidden, bias=False)
        self.no_reference = nn.Parameter(torch.zeros(hidden))
        self.noise_level = nn.Linear(1, hidden, bias=False)
        self.pulse = nn.Linear(N_PULSE, hidden, bias=False) if config.pulse else None
        self.layers = nn.ModuleList(Layer(hidden, hidden, batch_first=True) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(hidden)
        self.head, planned = PatchHead(hidden, n, config.n_mixture), config.plan_patches
        self.plan = PatchPlan(hidden, n, planned, config.plan_codes) if planned else None
        for layer in self.layers:  # remember by default (Jozefowicz et al. 2015)
            nn.init.ones_(layer.bias_ih_l0.data[hidden : 2 * hidden])

    @torch.no_grad()
    def fit(self, chunks: np.ndarray, seed: int):
        """Envelope, basis and first mean of the next patch, as the corpus has them.

        Args:
            chunks: log-magnitude as of :func:`spectral.patches.fit_patches`.

        Raises:
            featurizer.Unvaried: all frames are the same.
            ValueError: chunks shorter than three patches.
        """
        check_varied(chunks, LOWEST_DB)
        frames = torch.from_numpy(chunks)
        power = self.envelope.power(frames)
        self.envelope.fit(power)
        fit_typical(self.envelope, power, seed)
        frames = frames - self.envelope.of_power(power).unsqueeze(1)
        lowest_db = RELATIVE_LOWEST_DB if self.config.envelope_bands else LOWEST_DB
        latents = fit_patches(self.basis, frames.numpy(), seed, lowest_db)
        self.head.fit(latents, self.basis.spread, self.config.range_quantile)
        if self.plan is not None:
            self.plan.fit(latents, self.basis.mean_frame(), self.basis.framing, seed)

    def _run(self, latents: torch.Tensor, conditions: torch.Tensor, state=None):
        """All layers over patches. Shape: ``[B, T, n_latents]``, conditions ``[B, T or 1, hidden]`` -> ``[B, T,
        hidden]`` and of each layer ``(hidden, cell)``"""
        x, states = self.input(latents * self.head.weight) + conditions, []
        for i, layer in enumerate(self.layers):
            output, after = layer(x, None if state is None else state[i])
            states.append(after)
            if self.training and self.config.dropout:
                # One mask for all patches (Gal and Ghahramani 2016).
                keep = 1 - self.config.dropout
                output = output * ((torch.rand_like(output[:, :1]) < keep) / keep)
            x = x + output
        return self.norm(x), states

    # -- rollout -----------------------------------------------------------------------------

    def prefill(self, log_magnitude: torch.Tensor, pulse: tuple | None = None) -> RolloutState:
        """Read a prompt. What :meth:`next_frames` gives first is the prompt's own last patch, :attr:`behind`
        frames.

        Args:
            pulse: in the prompt's last frame, and by how much it turns from frame to frame; None for none.

        Shape: log_magnitude ``[B, n_frames, n_bins]``, whose last frame ends a patch, pulse complex ``[B, 2]`` twice"""
        log_magnitude = self._whole_patches(log_magnitude)
        envelope = self.prompt_envelope(log_magnitude)
        latents = self.basis.encode(log_magnitude - envelope.unsqueeze(1))
        if pulse is None:
            none = torch.zeros(len(latents), 2, dtype=torch.complex64, device=latents.device)
            pulse = none, none + 1
        # From the last frame to the middle of its patch, and from patch to patch.
        size = self.config.patch_frames
        angle = pulse[0] * torch.polar(torch.ones_like(pulse[1].real), -0.5 * (size - 1) * pulse[1].angle())
        turn = pulse[1] ** size
        conditions = self.reference(latents[:, -self.config.prompt_patches :].mean(1) * self.head.weight)
        given = conditions.unsqueeze(1)
        if self.pulse is not None:  # that of the patch which follows each
            before = torch.arange(2 - latents.shape[1], 1, device=latents.device).view(1, -1, 1)
            given = given + self.pulse(torch.view_as_real(angle.unsqueeze(1) * turn.unsqueeze(1) ** before).flatten(-2))
        codes = torch.zeros(len(latents), 1, N_PARTS, dtype=torch.int64, device=latents.device)
        if self.plan is not None:  # whose blocks are counted from the prompt's end
            n_before = -latents.shape[1] % self.plan.n_patches
            codes = self.plan.encode(torch.cat([latents[:, :1].expand(-1, n_before, -1), latents], 1))
            given = given + self.plan.read(codes.repeat_interleave(self.plan.n_patches, 1)[:, n_before:-1])
        _, hidden = self._run(latents[:, :-1], given)
        hidden = torch.stack([torch.cat(layer) for layer in hidden]).permute(2, 0, 1, 3)
        none = torch.zeros(len(latents), dtype=torch.int64, device=latents.device)
        return RolloutState(latents[:, -2:], hidden, conditions, codes[:, -1], none, envelope, angle, turn)

    def prompt_envelope(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """What a rollout is relative to. Shape: ``[B, n_frames, n_bins]`` -> ``[B, n_bins]``"""
        return self.envelope(log_magnitude[:, -self.config.prompt_patches * self.config.patch_frames :])

    def _whole_patches(self, log_magnitude: torch.Tensor) -> torch.Tensor:
        """From the prompt's frames whole patches, two at least: the first frame is repeated before a shorter one."""
        n_frames, size = log_magnitude.shape[1], self.config.patch_frames
        if n_frames < 2 * size:
            before = log_magnitude[:, :1].expand(-1, 2 * size - n_frames, -1)
            return torch.cat([before, log_magnitude], 1)
        return log_magnitude[:, n_frames % size :]

    def next_frames(self, state: RolloutState, temperature: float = 1.0, generator=None, n_patches: int = 16):
        """Sample the next patches, and decode as many, from the one before them to the last but one, which now have
        both neighbours, with their texture: all together, so that the decoder's weights are read once.

        Shape: -> ``(log_magnitude [B, n_patches * patch_frames, n_bins], state)``"""
        known = list(state.latents.unbind(1))
        for _ in range(n_patches):
            state = self._next_patch(state, temperature, generator)
            known.append(state.latents[:, 1])
        frames = self.basis.decode(torch.stack(known, 1))
        frames = self.basis.textured(frames, self.config.texture * temperature, generator)
        return frames + state.envelope.unsqueeze(1), state

    def _next_patch(self, state: RolloutState, temperature: float, generator) -> RolloutState:
        """The state with one more patch."""
        last, given, pulse = state.latents[:, 1], state.conditions, state.pulse * state.turn
        if self.pulse is not None:
            given = given + self.pulse(torch.view_as_real(pulse).flatten(-2))
        if self.plan is not None:
            given = given + self.plan.read(state.plan)
        context, hidden = self._step(last, given, state.hidden)
        if self.plan is not None:
            state = self._next_plan(context, state, temperature, generator)
            # Classifier-free guidance, Ho and Salimans 2022, arXiv:2207.12598.
            context = torch.lerp(context, self.plan.tell(context, state.plan), self.config.guidance)
        new = self.head.sample(context, last, temperature, generator)
        return state._replace(latents=torch.stack([last, new], 1), hidden=hidden, pulse=pulse)

    def _next_plan(self, context: torch.Tensor, state: RolloutState, temperature: float, generator) -> RolloutState:
        """The state with the plan of the next patch, which is sampled where a block begins."""
        if state.n_planned[0]:
            return state._replace(n_planned=state.n_planned - 1)
        n_planned = torch.full_like(state.n_planned, self.plan.n_patches - 1)
        return state._replace(plan=self.plan.sample(context, temperature, generator), n_planned=n_planned)

    def _step(self, latents: torch.Tensor, conditions: torch.Tensor, state: torch.Tensor):
        """:meth:`_run` for one patch.

        Shape:
            ``[B, n_latents]``, conditions ``[B, hidden]``, hidden and cell ``[B, n_layers, 2, hidden]`` ->
            ``[B, hidden]`` and the new hidden and cell
        """
        x, states = self.input(latents * self.head.weight) + conditions, []
        for layer, before in zip(self.layers, state.unbind(1), strict=True):
            states += layer.step(x, *before.unbind(1))
            x = x + states[-2]
        return self.norm(x), torch.stack(states, 1).view_as(state)

    def remake(self, log_magnitude: torch.Tensor, prompt: torch.Tensor, generator=None) -> torch.Tensor:
        """What a rollout gave if it sampled the true latents of the frames that follow a prompt.

        Shape: log_magnitude ``[B, n_frames, n_bins]``, the prompt's likewise -> as log_magnitude"""
        envelope = self.prompt_envelope(prompt).unsqueeze(1)
        frames = self.basis.remake(log_magnitude - envelope)
        return self.basis.textured(frames, self.config.texture, generator) + envelope

    def packed(self, linear: Callable) -> PatchLSTM:
        """A copy for rollouts, where few rows pass at a time.

        Args:
            linear: makes a function of a weight and a bias, see :func:`device.rollout_linear`.
        """
        model = copy.deepcopy(self)
        model.head.colouring = self.head.inverse_whitening().detach()
        for layer in model.layers:
            weight = torch.cat([layer.weight_ih_l0, layer.weight_hh_l0], 1)
            layer.gates = linear(weight, layer.bias_ih_l0 + layer.bias_hh_l0)
        for module in list(model.modules()):
            for name, part in list(module.named_children()):
                if isinstance(part, nn.Linear):
                    bias = part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias
                    setattr(module, name, Packed(linear(part.weight, bias)))
        return model

    # -- training ----------------------------------------------------------------------------

    def loss(self, log_magnitude: torch.Tensor, state: dict | None = None, mask=None, pulse=None):
        """Nats of every next patch.

        Args:
            state: what the window before returned, or None: the LSTM's state, reference and envelope of the windows up
                to this one, the plan of the last patch.
            mask: frames that are recordings and not padding.
            pulse: of each patch that is predicted; None for none.

        Shape:
            log_magnitude ``[B, (T + 1) * patch_frames, n_bins]``, mask ``[B, (T + 1) * patch_frames]``,
            pulse ``[B, T, 4]`` -> ``(nats per latent, state)``
        """
        config = self.config
        with torch.no_grad(), torch.autocast(log_magnitude.device.type, enabled=False):
            size = config.patch_frames
            used = torch.ones_like(log_magnitude[:, ::size, 0], dtype=torch.bool)
            if mask is not None:
                used = mask.unflatten(1, (-1, size)).all(-1)
            before = {} if state is None else state
            own = {"envelope": self.envelope(log_magnitude, used.repeat_interleave(size, 1))}
            latents = self.basis.encode(log_magnitude - before.get("envelope", own["envelope"]).unsqueeze(1))
            shares = used.unsqueeze(-1).to(latents.dtype)
            own["reference"] = (latents * shares).sum(1) / shares.sum(1).clamp(min=1)
            carry = {name: _next_mean(before.get(name), value) for name, value in own.items()}
            history, target, used = latents[:, :-1], latents[:, 1:], (used[:, 1:] & used[:, :-1]).float()
            if self.plan is not None:
                plans = self.plan.encode(target * used.unsqueeze(-1))  # of padding zeros: it is not learned from
                plan = plans.repeat_interleave(self.plan.n_patches, 1)[:, : target.shape[1]]  # of each patch
                last_plan = before["plan"] if "plan" in before else self.plan.encode(latents[:, :1])
                carry["plan"] = plan[:, -1:]
        conditions = self._conditions(before.get("reference"), pulse, len(latents))
        if self.plan is not None:
            known = torch.ones_like(target[:, :1, :1])
            if self.training:
                known = (torch.rand_like(known) >= config.plan_dropout).to(known.dtype)
            conditions = conditions + known * self.plan.read(torch.cat([last_plan, plan[:, :-1]], 1))
        hidden = None if state is None else [tuple(layer.unsqueeze(1)) for layer in state["lstm"]]
        if self.training:
            level = config.history_noise * torch.rand(len(latents), 1, 1, device=latents.device).square()
            history, conditions = noised(history, level), conditions + self.noise_level(level)
        contexts, hidden = self._run(history, conditions, hidden)
        with torch.autocast(log_magnitude.device.type, enabled=False):
            contexts, plan_nats = contexts.float(), 0.0
            if self.plan is not None:
                begins = used[:, :: self.plan.n_patches]
                plan_nats = self.plan.nats(contexts[:, :: self.plan.n_patches], plans)
                plan_nats = (plan_nats * begins).sum() / begins.sum().clamp(min=1) / self.plan.n_patches
                contexts = torch.lerp(contexts, self.plan.tell(contexts, plan), known)
            nats = (self.head.nats(contexts, history.float(), target) * used).sum() / used.sum().clamp(min=1)
            nats = nats + config.plan_weight * plan_nats / config.n_latents
        hidden = torch.stack([torch.cat(layer) for layer in hidden]).detach()
        return nats, {"lstm": hidden, **carry}

    def _conditions(self, reference, pulse, n: int) -> torch.Tensor:
        """What the LSTM is given beside the patches.

        Shape:
            reference ``[B, n_latents]`` or None for none to ``n`` sequences, pulse ``[B, T, 4]`` or None ->
            ``[B, T or 1, hidden]``
        """
        if reference is None:
            conditions = self.no_reference.expand(n, 1, -1)
        else:
            if self.training:
                reference = reference + self.config.reference_noise * torch.randn_like(reference)
            conditions = self.reference(reference * self.head.weight).unsqueeze(1)
            if self.training:
                none = torch.rand(n, 1, 1, device=reference.device) < self.config.reference_dropout
                conditions = torch.where(none, self.no_reference, conditions)
        if self.pulse is None or pulse is None:
            return conditions
        if self.training:
            pulse = pulse * (torch.rand(len(pulse), 1, 1, device=pulse.device) >= self.config.pulse_dropout)
        return conditions + self.pulse(pulse)


def noised(latents: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Latents with a share of noise, at the same variance. Shape: ``[...]``, level broadcast to it -> ``[...]``"""
    return (1 - level**2) ** 0.5 * latents + level * torch.randn_like(latents)


def _next_mean(before: torch.Tensor | None, own: torch.Tensor) -> torch.Tensor:
    """What the next window is given: the mean of its own and of what it was given itself, by another rate in each
    sequence, from this window alone to a tenth of it. Shape: ``[B, n]``"""
    return own if before is None else torch.lerp(before, own, 0.1 ** torch.rand(len(own), 1, device=own.device))
