"""The LSTM that predicts the next frame, with one of two output heads.

Both models offer the same four things: ``predicts_phase``, ``loss`` over windows, ``start`` on a
prompt and ``next_frame`` for the rollout. They know nothing of files, devices or arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from codec import ResidualCodec
from config import FeaturizerConfig, ModelConfig
from featurizer import MIN_LOG_MAGNITUDE

UNUSED = -100  # target of frames that are padding
MAX_DETAIL = 5.0  # deviations
PAST_NOISE = 0.1  # deviations of noise on it in training: the rollout's own will not be perfect


def build_model(featurizer: FeaturizerConfig, model: ModelConfig) -> nn.Module:
    """The untrained model of a configuration."""
    return {"codes": CodeLSTM, "regression": RegressionLSTM}[model.head](featurizer, model)


def sample(logits: torch.Tensor, temperature: float, top_k: int, generator=None) -> torch.Tensor:
    """Draw one code from each row.

    Args:
        temperature: 0 takes the likeliest, 1 the model's own distribution.
        top_k: only the k likeliest can be drawn; 0 for all.

    Shape:
        logits ``[B, n_codes]`` -> ``[B]`` int64
    """
    if temperature == 0:
        return logits.argmax(-1)
    if temperature != 1:
        logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        worst = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < worst, -math.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)


class RolloutState(NamedTuple):
    """What a rollout of a :class:`CodeLSTM` carries from frame to frame."""

    codes: torch.Tensor  # of the last frame [B, n_books]
    vector: torch.Tensor  # what they stand for, in deviations [B, n_components]
    lstm: Sequence  # hidden and cell [B, hidden] of each layer
    detail: torch.Tensor  # of the last frame, as it varies in recordings [B, n_components]
    heard: torch.Tensor  # the same, as it is played
    weights: list  # the LSTM's, laid out for single steps
    centres: list  # the books in the precision of the guess, their power, and as they are
    apply: Callable  # a linear layer, in the rollout's type


class _Cast:
    """Applies linear layers in a type, converting each one's weights once."""

    def __init__(self, dtype: torch.dtype):
        self.dtype, self.weights = dtype, {}

    def __call__(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        if layer not in self.weights:
            bias = None if layer.bias is None else layer.bias.to(self.dtype)
            self.weights[layer] = (layer.weight.to(self.dtype), bias)
        return F.linear(x.to(self.dtype), *self.weights[layer]).to(x.dtype)


class Refiner(nn.Module):
    """Distribution of a frame's detail, that is of what its codes leave open: a normal one for each
    principal component, given the codes, the LSTM's view of the past, and the detail of the last frame.
    The mean of all that would fit is too smooth to be heard as music; white noise is a hiss; drawn in
    this way, the partials of a held note stay where they are.

    The last frame's detail enters by a factor below 1 for each component and nowhere else, so that no
    rollout can run away, however long the training: a free function of it learns to, in 20 minutes.
    """

    def __init__(self, n_components: int, context: int, hidden: int):
        super().__init__()
        self.context = nn.Linear(context, hidden)
        self.input = nn.Linear(2 * n_components, hidden, bias=False)
        self.middle = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 3 * n_components)
        nn.init.zeros_(self.output.weight)  # at first: standard normal
        nn.init.zeros_(self.output.bias)

    def forward(self, context, vector, before, apply=lambda layer, x: layer(x)):
        """
        Args:
            context: LSTM's output with all codes of the frame embedded.
            vector, before: what the codes of this frame and of the last one stand for.

        Shape:
            context ``[..., head_size]``, the others ``[..., n_components]`` in deviations -> ``(mean,
            persistence, log_deviation)``, ``[..., n_components]`` each, float32; the detail's mean is
            ``mean + persistence * (detail of the last frame)``
        """
        x = F.gelu(apply(self.context, context) + apply(self.input, torch.cat([vector, before], -1)))
        x = x + F.gelu(apply(self.middle, x))
        mean, persistence, log_deviation = apply(self.output, x).float().chunk(3, dim=-1)
        return 2 * torch.tanh(mean / 2), 0.98 * torch.tanh(persistence), 1.5 * torch.tanh(log_deviation / 1.5)


class CodeLSTM(nn.Module):
    """LSTM over the codes of a residual codec: a softmax for each book, then the frame's detail.

    Book b's softmax sees the LSTM's output and the codes of the books before it in the same frame,
    so that the codes of a frame belong together; the :class:`Refiner` sees them all. Two direct paths
    spare the LSTM from learning what is known: a logit for "the same code again", and the nearness of
    each code's centre to what the books before leave of a guess at the frame. Without the second, a
    change of the first code is followed by codes that do not fit it, and the rollout grows louder.
    """

    predicts_phase = False

    def __init__(self, featurizer: FeaturizerConfig, config: ModelConfig):
        super().__init__()
        self.config = config
        n_books, n_codes, hidden, head = config.n_books, config.n_codes, config.hidden_size, config.head_size
        self.codec = ResidualCodec(featurizer.n_bins, config.n_components, n_books, n_codes)
        self.embedding = nn.Embedding(n_books * n_codes, hidden)
        self.layers = nn.ModuleList(nn.LSTM(hidden, hidden) for _ in range(config.n_layers))
        self.to_head = nn.Linear(hidden, head)
        self.code_embedding = nn.Embedding(n_books * n_codes, head)
        self.from_vector = nn.Linear(config.n_components, hidden, bias=False)
        self.stay = nn.Linear(head, n_books)
        self.to_vector = nn.Linear(hidden, config.n_components)
        self.precision = nn.Parameter(torch.zeros(n_books, config.n_components))
        self.norms = nn.ModuleList(nn.LayerNorm(head) for _ in range(n_books))
        self.logits = nn.ModuleList(nn.Linear(head, n_codes) for _ in range(n_books))
        self.refiner = Refiner(config.n_components, head, config.refiner_size)
        nn.init.normal_(self.embedding.weight, std=n_books**-0.5)
        nn.init.normal_(self.code_embedding.weight, std=n_books**-0.5)
        nn.init.zeros_(self.to_vector.weight)
        nn.init.zeros_(self.to_vector.bias)
        for layer in self.layers:  # remember by default (Jozefowicz et al. 2015)
            nn.init.ones_(layer.bias_ih_l0.data[hidden : 2 * hidden])
        self.register_buffer("offsets", torch.arange(n_books) * n_codes, persistent=False)

    # -- training ----------------------------------------------------------------------------

    def loss(self, log_magnitude: torch.Tensor, state=None, mask: torch.Tensor | None = None):
        """Cross-entropy of every next frame, teacher forcing.

        Args:
            state: LSTM state after the window before, or None.
            mask: frames that are recordings and not padding.

        Shape:
            log_magnitude ``[B, T + 1, n_bins]``, mask ``[B, T + 1]`` -> ``(scalar, state, nats of
            each book, then nats per component of the detail [n_books + 1])``
        """
        with torch.no_grad(), torch.autocast(log_magnitude.device.type, enabled=False):
            codes = self.codec.encode(log_magnitude)
            vector, detail = self.codec.vector(codes) / self.codec.deviation, self.codec.detail(log_magnitude, codes)
            history, target = codes[:, :-1], codes[:, 1:]
            if self.training and self.config.history_noise:
                # Each sequence has its own share of wrong codes in the input: the rollout's
                # history will have its errors too.
                share = torch.rand(len(codes), 1, 1, device=codes.device) * self.config.history_noise
                wrong = torch.rand(history.shape, device=codes.device) < share
                history = torch.where(wrong, torch.randint_like(history, self.config.n_codes), history)
            if mask is not None:
                target = target.masked_fill(~(mask[:, 1:] & mask[:, :-1]).unsqueeze(-1), UNUSED)
            past = detail[:, :-1]
            if self.training:
                past = past + PAST_NOISE * torch.randn_like(past)
        output, state = self._run(self._embed(history, vector[:, :-1], past).transpose(0, 1), state)
        output = output.transpose(0, 1)
        left = (vector[:, :-1] + past) * self.codec.deviation + self.to_vector(output)
        output = self.to_head(output)
        stay = self.stay(output).float()
        losses = []
        for book, (centres, power) in enumerate(self._centres()):
            logits = self._logits(output, book).float() + (left @ centres.T).float() - power
            left = left - self.codec.books[book][codes[:, 1:, book]]
            logits = logits.scatter_add(-1, history[..., book : book + 1], stay[..., book : book + 1])
            losses.append(F.cross_entropy(logits.flatten(0, 1), target[..., book].flatten(), ignore_index=UNUSED))
            output = output + self._embed_sampled(codes[:, 1:, book], book)
        mean, persistence, log_deviation = self.refiner(output, vector[:, 1:], vector[:, :-1])
        mean = mean + persistence * past
        nats = (0.5 * ((detail[:, 1:] - mean) * (-log_deviation).exp()).square() + log_deviation).mean(-1)
        used = target[..., 0] != UNUSED
        losses.append((nats * used).sum() / used.sum().clamp(min=1))
        losses = torch.stack(losses).nan_to_num()  # nan: a batch that is all padding
        return losses[:-1].mean() + losses[-1], state.detach(), losses.detach()

    def _run(self, sequence: torch.Tensor, state: torch.Tensor | None):
        """All layers over ``[T, B, hidden]``; the state is ``[n_layers, 2, B, hidden]``."""
        states = []
        for i, layer in enumerate(self.layers):
            before = None if state is None else tuple(state[i].unsqueeze(1).to(sequence.dtype))
            output, after = layer(sequence, before)
            states.append(torch.cat(after))
            if self.training and self.config.dropout:
                # One mask for all frames (Gal and Ghahramani 2016); also far cheaper to draw.
                keep = 1 - self.config.dropout
                mask = torch.rand(output.shape[1:], device=output.device) < keep
                output = output * (mask / keep).to(output.dtype)
            # A direct path from the last frame to the output: without it, the first thousands of
            # steps are spent on learning to stand still.
            sequence = sequence + output
        return sequence, torch.stack(states)

    def _embed(self, codes: torch.Tensor, vector: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        """A frame as the LSTM's input: its codes, and exactly where between them it lies."""
        bags = (codes + self.offsets).flatten(0, -2)
        embedded = F.embedding_bag(bags, self.embedding.weight, mode="sum").unflatten(0, codes.shape[:-1])
        return embedded + self.from_vector((vector + detail) * (self.codec.deviation / self.codec.scale))

    def _embed_sampled(self, code: torch.Tensor, book: int) -> torch.Tensor:
        return self.code_embedding(code + book * self.config.n_codes)

    def _centres(self, dtype: torch.dtype = torch.float32) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each book: its centres times the precision of the guess, half their squared length in it.

        With them, ``guess @ centres.T - power`` is, but for a constant, the log-density of a normal
        distribution around the guess: -|guess - centre|^2 / 2 over a variance that is learned, from that
        of the change between frames on.
        """
        # The factor lets a parameter that moves by the learning rate change tenfold in minutes.
        precision = (8 * self.precision - 2).exp() / self.codec.change
        weighted = [book * p for book, p in zip(self.codec.books, precision, strict=True)]
        return [(w.to(dtype), 0.5 * (w * book).sum(-1)) for w, book in zip(weighted, self.codec.books, strict=True)]

    def _logits(self, context: torch.Tensor, book: int) -> torch.Tensor:
        return self.logits[book](F.gelu(self.norms[book](context)))

    # -- rollout -----------------------------------------------------------------------------

    def start(self, frames: torch.Tensor, dtype: torch.dtype = torch.float32):
        """Rollout state after a prompt.

        Args:
            dtype: of the matrix products to come; their weights are laid out for them here.

        Shape:
            frames ``[B, T, 2 * n_bins]``
        """
        log_magnitude = frames.chunk(2, dim=-1)[0]
        codes = self.codec.encode(log_magnitude)
        state = self.embedding.weight.new_zeros(len(self.layers), 2, len(codes), self.config.hidden_size)
        vector, detail = self.codec.vector(codes) / self.codec.deviation, self.codec.detail(log_magnitude, codes)
        if codes.shape[1] > 1:
            embedded = self._embed(codes[:, :-1], vector[:, :-1], detail[:, :-1])
            _, state = self._run(embedded.transpose(0, 1), None)
        weights = [
            (torch.cat([x.weight_ih_l0, x.weight_hh_l0], 1).to(dtype), (x.bias_ih_l0 + x.bias_hh_l0).to(dtype))
            for x in self.layers
        ]
        centres = [(*near, book) for near, book in zip(self._centres(), self.codec.books, strict=True)]
        last = (codes[:, -1], vector[:, -1], state.unbind(0), detail[:, -1], detail[:, -1])
        return RolloutState(*last, weights, centres, _Cast(torch.float32))

    def next_frame(self, state, temperature: float = 1.0, top_k: int = 0, generator=None, true_codes=None):
        """Draw one frame, kept between the softest and the loudest frames of the corpus.

        Args:
            true_codes: taken instead of drawn ones, to hear what the codec alone does to a sound.

        Shape:
            true_codes ``[B, n_books]`` -> ``(log_magnitude [B, n_bins], state)``
        """
        deviation, before = self.codec.deviation, state.vector
        output, lstm_state = self._step(self._embed(state.codes, before, state.detail), state.lstm, state.weights)
        guess = left = (before + state.detail) * deviation + self.to_vector(output)
        context = self.to_head(output)
        stay = self.stay(context)
        drawn = []
        for book, (centres, power, plain) in enumerate(state.centres):
            if true_codes is None:
                near = F.linear(left.to(centres.dtype), centres) - power
                logits = state.apply(self.logits[book], F.gelu(self.norms[book](context))) + near
                logits = logits.scatter_add(-1, state.codes[:, book : book + 1], stay[:, book : book + 1])
                code = sample(logits, temperature, top_k, generator)
            else:
                code = true_codes[:, book]
            drawn.append(code)
            left = left - plain[code]
            context = context + self._embed_sampled(code, book)
        codes, vector = torch.stack(drawn, dim=-1), (guess - left) / deviation
        mean, persistence, log_deviation = self.refiner(context, vector, before, state.apply)
        noise = log_deviation.exp() * torch.randn(vector.shape, generator=generator, device=vector.device)
        # Two lines of detail go on side by side: drawn as narrowly as it sounds best, the LSTM would
        # take it for music that stands still.
        heard, detail = (
            (mean + persistence * past + width * noise).clamp(-MAX_DETAIL, MAX_DETAIL)
            for past, width in ((state.heard, self.config.detail_temperature), (state.detail, 1.0))
        )
        played = self.codec.unproject((vector + heard) * deviation)
        excess = self.codec.excess(played)
        if true_codes is None and excess.any():
            # Outside the softest and the loudest frames of the corpus the model has learned nothing, and
            # would go on to silence or to noise.
            frame, played = self.codec.unproject((vector + detail) * deviation) - excess, played - excess
            codes = torch.where(excess == 0, codes, self.codec.encode(frame))
            detail = torch.where(excess == 0, detail, self.codec.detail(frame, codes))
            heard = torch.where(excess == 0, heard, self.codec.detail(played, codes))
            vector = self.codec.vector(codes) / deviation
        state = state._replace(codes=codes, vector=vector, lstm=lstm_state, detail=detail, heard=heard)
        return played + self.codec.balance, state

    def _step(self, output: torch.Tensor, state, weights):
        """:meth:`_run` for one frame ``[B, hidden]``: one matrix product a layer, many times
        faster than ``nn.LSTM`` called for a single frame."""
        states = []
        for (weight, bias), (hidden, cell) in zip(weights, state, strict=True):
            gates = F.linear(torch.cat([output, hidden], -1).to(weight.dtype), weight, bias).float()
            into, forget, new, out = gates.chunk(4, dim=-1)
            cell = torch.addcmul(forget.sigmoid() * cell, into.sigmoid(), new.tanh())
            hidden = out.sigmoid() * cell.tanh()
            states.append((hidden, cell))
            output = output + hidden
        return output, states


class RegressionLSTM(nn.Module):
    """The original design, as it was: the mean of the next raw magnitude and phase, by MSE.

    A window of ``n_context`` frames predicts the one after it. For the rollout it reads its own
    output, window after window.
    """

    predicts_phase = True

    def __init__(self, featurizer: FeaturizerConfig, config: ModelConfig):
        super().__init__()
        self.config = config
        width = 2 * featurizer.n_bins
        self.lstm = nn.LSTM(
            width, config.hidden_size, config.n_layers, dropout=config.dropout if config.n_layers > 1 else 0
        )
        self.output = nn.Linear(config.hidden_size, width)

    @staticmethod
    def _raw(frames: torch.Tensor) -> torch.Tensor:
        log_magnitude, phase = frames.chunk(2, dim=-1)
        return torch.cat([log_magnitude.exp(), phase], dim=-1)

    def loss(self, frames: torch.Tensor, state=None, mask: torch.Tensor | None = None):
        """Squared error of the frame after the window.

        Shape:
            frames ``[B, n_context + 1, 2 * n_bins]``, mask ``[B, n_context + 1]`` -> ``(scalar,
            None, [1])``
        """
        raw = self._raw(frames)
        predicted = self._predict(raw[:, :-1])
        error = (predicted.float() - raw[:, -1]).square().mean(-1)
        if mask is not None:
            whole = mask.all(dim=1)
            error = (error * whole).sum() / whole.sum().clamp(min=1)
        error = error.mean()
        return error, None, error.detach().reshape(1)

    def _predict(self, window: torch.Tensor) -> torch.Tensor:
        output, _ = self.lstm(window.transpose(0, 1))
        return self.output(output[-1])

    def start(self, frames: torch.Tensor, dtype: torch.dtype = torch.float32):
        """Rollout state after a prompt. Shape: frames ``[B, T, 2 * n_bins]``"""
        window = self._raw(frames[:, -self.config.n_context :])
        return F.pad(window, (0, 0, self.config.n_context - window.shape[1], 0))

    def next_frame(self, state, temperature: float = 1.0, top_k: int = 0, generator=None):
        """The mean next frame; nothing is drawn. Shape: -> ``(frame [B, 2 * n_bins], state)``"""
        raw = self._predict(state)
        magnitude, phase = raw.chunk(2, dim=-1)
        frame = torch.cat([magnitude.clamp(min=math.exp(MIN_LOG_MAGNITUDE)).log(), phase], dim=-1)
        return frame, torch.cat([state[:, 1:], raw.unsqueeze(1)], dim=1)
