"""The rollout of a :class:`model_definition.CodeLSTM`: one frame at a time, on weights laid out for single rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import drift
from codec import FLOOR_DB
from featurizer import DB
from refiner import MAX_DETAIL, gelu
from sampling import gumbel, sample

# Share of the mark of drawn frames for those of a rollout. In training, what follows a drawn frame is a recording's:
# with all of the mark, the LSTM takes back what it has just made; with none, it takes its own errors for music.
DRAWN_SHARE = 0.3
# Of the codec's error in level, which is much the same through a piece: what is measured at the end of the prompt
# over so many seconds is made up for, by this share, and by so many nepers at most.
GAIN_SHARE, GAIN_SECONDS, MAX_GAIN = 0.6, 1.0, 0.5
AHEAD = 64  # frames whose conditions are made at once
HOLD_NATS = 2.0  # by which a beginning becomes likelier with each usual hold's length that a hold lasts longer


def plain_linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Callable:
    """A linear layer as a function; where ``device.rollout_linear`` has one, that is faster for single rows."""
    return functools.partial(F.linear, weight=weight, bias=bias)


class Layout(NamedTuple):
    """A model's weights as a rollout uses them, where few rows pass at a time: linear layers as functions, those
    that see the same input joined, and products of constants made once."""

    frame: Callable  # the last frame in deviations, as the LSTM's input
    noise: torch.Tensor  # on it, in deviations [n_components]
    mark: torch.Tensor  # of frames that the rollout has made, in the LSTM's input [hidden]
    pulse: Callable | None  # the pulse, in the LSTM's input
    lstm: list  # of each layer
    outputs: Callable  # of the LSTM: context, correction of the guess, stay, onset
    near: list  # of each book: minus the power of its centres, and the centres, in the precision of the guess
    widths: torch.Tensor  # of the nearness where something begins, and where it goes on [2, n_books]
    norms: list  # of each book, and so on
    heads: list
    tables: list  # what its codes add to the context and take from the guess
    refiner: list
    spreads: torch.Tensor  # share of the detail's spread that varies, and that is played [2, 1, 1]
    decode: Callable  # vector in deviations to log-magnitude
    bounds: drift.Bounds  # on how far it goes from its prompt


class RolloutState(NamedTuple):
    """What a rollout carries from frame to frame."""

    codes: torch.Tensor  # of the last frame [B, n_books]
    vector: torch.Tensor  # what they stand for, in deviations [B, n_components]
    lstm: Sequence  # hidden and cell [B, hidden] of each layer
    details: torch.Tensor  # of the last frame, as it varies in recordings and as it is played [2, B, n_components]
    reference: torch.Tensor  # what the LSTM hears of the prompt's mean in every frame [B, hidden]
    held: torch.Tensor  # frames since the first code changed [B, 1]
    drift: drift.Drift  # how far it has gone
    first: torch.Tensor  # nats on the first codes: what is too far from the prompt is not drawn [B, n_codes]
    balance: torch.Tensor  # nepers, added to what is played [B, 1]
    pulse: torch.Tensor  # in the prompt's last frame, see rhythm.Pulse: complex [B, 2]
    turn: torch.Tensor  # of the pulse from frame to frame: complex [B, 2]
    conditions: torch.Tensor  # what the LSTM hears beside the next frames [B, AHEAD, hidden]
    layout: Layout


def lay_out(model, linear: Callable = plain_linear) -> Layout:
    """The weights as they are now, for rollouts; ``linear`` makes a function of a weight and a bias."""
    codec, config = model.codec, model.config
    lstm = []
    for layer in model.layers:
        weight = torch.cat([layer.weight_ih_l0, layer.weight_hh_l0], 1)
        # The three gates that are sigmoids side by side.
        lstm.append([_gates(weight), _gates(layer.bias_ih_l0 + layer.bias_hh_l0)])
    to_head, after = model.to_head, (model.stay, model.onset)
    heard = model.from_vector.weight * (codec.deviation / codec.scale)
    weights = [to_head.weight, model.to_vector.weight, *(x.weight @ to_head.weight for x in after)]
    biases = [to_head.bias, model.to_vector.bias, *(x.bias + x.weight @ to_head.bias for x in after)]
    embeddings = model.code_embedding.weight.split(config.n_codes)
    refiner, heads = model.refiner, model.logits
    return Layout(
        frame=linear(heard, heard.new_zeros(len(heard))),
        noise=config.input_noise * codec.change.sqrt() / codec.deviation,
        mark=DRAWN_SHARE * model.drawn,
        pulse=None if model.from_pulse is None else plain_linear(model.from_pulse.weight, None),
        lstm=[linear(*x) for x in lstm],
        outputs=linear(torch.cat(weights), torch.cat(biases)),
        near=[(-power, centres.T.contiguous()) for centres, power in model._centres()],
        widths=torch.stack([model._onset_share(), torch.ones_like(model.onset_width)]),
        norms=[_normalizer(x) for x in model.norms],
        heads=[linear(x.weight, x.bias) for x in heads],
        tables=[torch.cat([e, -book], 1) for e, book in zip(embeddings, codec.books, strict=True)],
        refiner=[linear(x.weight, x.bias) for x in (refiner.input, refiner.middle, refiner.output)],
        spreads=codec.mean.new_tensor([1.0, config.detail_temperature]).view(2, 1, 1),
        decode=linear((codec.components * codec.deviation.unsqueeze(-1) / codec.weight).T.contiguous(), codec.mean),
        bounds=drift.Bounds(model.drift, model.level_drift, codec.project_level() / codec.deviation, model.frame_rate),
    )


def next_frame(model, state, temperature: float = 1.0, top_k: int = 0, generator=None, true_codes=None):
    """Draw one frame, kept between the softest and the loudest frames of the corpus.

    Args:
        true_codes: taken instead of drawn ones, to hear what the codec alone does to a sound.

    Shape:
        true_codes ``[B, n_books]`` -> ``(log_magnitude [B, n_bins], state)``
    """
    config, layout, before, deviation = model.config, state.layout, state.vector, model.codec.deviation
    free, details = true_codes is None, state.details
    if free:  # the next frame is near this one, nearer to the prompt; the LSTM hears it where it was
        details = details - drift.pull(state.drift, layout.bounds)
    last, n_heard = before + state.details[0], config.n_heard_books
    noise = torch.randn((2, *last.shape), generator=generator, device=last.device)
    heard = model.embedding(state.codes[:, :n_heard] + model.offsets[:n_heard]).sum(1)
    if free and state.drift.n_frames:
        heard = heard + layout.mark
    if not state.drift.n_frames % AHEAD:
        state = state._replace(conditions=conditions(state))
    heard = heard + state.conditions[:, state.drift.n_frames % AHEAD]
    heard = heard + layout.frame(torch.addcmul(last, noise[0], layout.noise))
    output, lstm_state = step(heard, state.lstm, layout.lstm)
    parts = (config.head_size, config.n_components)
    context, change, stay, onset = layout.outputs(output).split((*parts, config.n_books, 1), -1)
    # What is held for far longer than in recordings would otherwise be held for good: the next frame is
    # learned from frames that are alike.
    onset = onset + model.onset_bias + HOLD_NATS * (state.held / model.usual_hold - 1).clamp(min=0)
    guess = torch.addcmul(change, before + details[0], deviation)
    # The difference of two Gumbel variables is the noise of a choice between two.
    chance = gumbel((2, len(last), 1), temperature, last.device, generator)
    begins = onset + chance[0] > chance[1]
    heat = temperature * config.code_temperature
    dice = gumbel((len(last), config.n_books, config.n_codes), heat, last.device, generator)
    stay = guess.new_zeros(len(guess), config.n_books * config.n_codes).scatter_(
        -1, state.codes + model.offsets, stay * ~begins
    )
    known = stay.view_as(dice)
    known[:, 0] += state.first
    if not top_k:  # the noise of all books at once
        known += dice
    known = known.unbind(1)
    width, drawn = torch.where(begins, *layout.widths).split(1, -1), []
    sums = torch.cat([context, guess], -1)
    for book, table in enumerate(layout.tables):
        if free:
            context, left = sums.split(parts, -1)
            minus_power, centres = layout.near[book]
            near = torch.addmm(minus_power, left, centres)
            logits = layout.heads[book](gelu(layout.norms[book](context))) + known[book]
            code = sample(logits.addcmul_(near, width[book]), dice[:, book] if top_k else None, top_k)
        else:
            code = true_codes[:, book]
        drawn.append(code)
        sums = sums + table.index_select(0, code)
    context, left = sums.split(parts, -1)
    codes, vector = torch.stack(drawn, dim=-1), (guess - left) / deviation
    mean, persistence, log_deviation = model.refiner(context, vector, before, layout.refiner)
    noise = log_deviation.exp() * noise[1]
    # Two lines of detail go on side by side: drawn as narrowly as it sounds best, the LSTM would
    # take it for music that stands still.
    details = torch.addcmul(mean, persistence, before - vector + details).addcmul(noise, layout.spreads)
    details = details.clamp(-MAX_DETAIL, MAX_DETAIL)
    played = layout.decode(vector + details[1]).clamp(min=FLOOR_DB / DB)
    level = model.codec.level(played)
    jump = drift.level_jump(state.drift, level + state.balance, model.frame_rate) if free else None
    if jump is not None:
        details, played, level = details - jump * layout.bounds.louder, played - jump, level - jump
    excess = level - level.clamp(model.codec.softest, model.codec.loudest)
    if free and excess.any():
        # Outside the softest and the loudest frames of the corpus the model has learned nothing, and
        # would go on to silence or to noise.
        frames = torch.stack([model.codec.unproject((vector + details[0]) * deviation), played]) - excess
        codes = torch.where(excess == 0, codes, model.codec.encode(frames[0]))
        details = torch.where(excess == 0, details, model.codec.detail(frames, codes))
        vector, played, level = model.codec.vector(codes) / deviation, frames[1], level - excess
    held = (state.held + 1) * (codes[:, :1] == state.codes[:, :1])
    gone = drift.follow(state.drift, vector + details[0], level + state.balance, model.frame_rate)
    state = state._replace(codes=codes, vector=vector, lstm=lstm_state, details=details, held=held, drift=gone)
    return played + state.balance, state


def conditions(state: RolloutState) -> torch.Tensor:
    """What the LSTM hears beside the next :data:`AHEAD` frames: the reference, and the pulse as it turns on. Made for
    many frames at once, since operations on single rows cost their call. Shape: -> ``[B, AHEAD, hidden]``"""
    reference = state.reference.unsqueeze(1)
    if state.layout.pulse is None:
        return reference.expand(-1, AHEAD, -1)
    frames = torch.arange(1, AHEAD + 1, device=reference.device).view(1, -1, 1) + state.drift.n_frames
    pulse = state.pulse.unsqueeze(1) * state.turn.unsqueeze(1) ** frames
    return reference + state.layout.pulse(torch.view_as_real(pulse).flatten(-2))


def codec_gain(model, state: RolloutState, log_magnitude: torch.Tensor, generator) -> torch.Tensor:
    """How much louder frames are than what is played with their codes, nepers; 0 where they are near silence.

    Args:
        state: before the first of the frames.

    Shape:
        log_magnitude ``[B, T, n_bins]`` -> ``[B, 1]``
    """
    level, played = model.codec.level(log_magnitude), []
    for codes in model.codec.encode(log_magnitude).unbind(1):
        frame, state = next_frame(model, state, generator=generator, true_codes=codes)
        played.append(model.codec.level(frame))
    true, heard = ((2 * x).exp().mean(1).clamp(min=1e-30).log() / 2 for x in (level, torch.stack(played, 1)))
    return torch.where(true < model.codec.softest, 0.0, (true - heard).clamp(-MAX_GAIN, MAX_GAIN))


def step(output: torch.Tensor, state, layers):
    """:meth:`model_definition.CodeLSTM._run` for one frame ``[B, hidden]``: one matrix product a layer, many times
    faster than ``nn.LSTM`` called for a single frame."""
    states, size = [], output.shape[-1]
    for layer, (hidden, cell) in zip(layers, state, strict=True):
        gates, new = layer(torch.cat([output, hidden], -1)).split((3 * size, size), -1)
        into, forget, out = gates.sigmoid().chunk(3, -1)
        cell = torch.addcmul(forget * cell, into, new.tanh())
        hidden = out * cell.tanh()
        states.append((hidden, cell))
        output = output + hidden
    return output, states


def _gates(x: torch.Tensor) -> torch.Tensor:
    """PyTorch's order of an LSTM's gates (in, forget, new, out) with the sigmoids side by side."""
    into, forget, new, out = x.chunk(4)
    return torch.cat([into, forget, out, new])


def _normalizer(norm: nn.LayerNorm) -> Callable:
    """A layer norm as a function: in a rollout, the module's call costs more than what it computes."""
    return functools.partial(
        F.layer_norm, normalized_shape=norm.normalized_shape, weight=norm.weight, bias=norm.bias, eps=norm.eps
    )
