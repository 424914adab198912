"""The LSTM and its training steps."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from config import PRESETS, ModelConfig
from conftest import tiny_config, without_noise
from dataset import split
from device import has_bf16_matrix_units, rollout_linear
from model_definition import build_model
from predictor import Predictor
from rollout import step
from sampling import gumbel
from trainer import Trainer

CPU = torch.device("cpu")


def test_the_refiner_knows_the_past(trainer, corpus):
    """Detail is predicted better with the frame before than without: by 0.005 nats a component."""
    model = without_noise(trainer.model).eval()
    batch = trainer.dataset[10_000]
    frames, mask = trainer._features(batch)
    with torch.no_grad():
        known = model.loss(frames, None, mask)[2][-1]
        forward = model.refiner.forward
        model.refiner.forward = lambda *args: [x * scale for x, scale in zip(forward(*args), (1, 0, 1), strict=True)]
        unknown = model.loss(frames, None, mask)[2][-1]
        del model.refiner.forward
    assert unknown - known > 0.005, (known, unknown)


def test_a_step_equals_the_sequence(predictor, frames):
    """The one-frame step of the rollout gives what the LSTM gives over the whole sequence."""
    model = without_noise(predictor.model)
    codes = model.codec.encode(torch.from_numpy(frames[:3]))
    with torch.inference_mode():
        vector = model.codec.vector(codes) / model.codec.deviation
        detail = model.codec.detail(torch.from_numpy(frames[:3]), codes)
        embedded = model._embed(codes, vector, detail)
        padded = torch.cat([torch.from_numpy(frames[:3]), torch.zeros(3, 64, 257)], dim=-1)
        start = model.start(padded[:, :2])
        embedded = embedded + start.reference.unsqueeze(1)
        whole, _ = model._run(embedded.transpose(0, 1), None)
        state, layers = start.lstm, start.layout.lstm
        for t in range(1, 20):
            output, state = step(embedded[:, t], state, layers)
            torch.testing.assert_close(output, whole[t], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("onset", [-50.0, 50.0])
@torch.inference_mode()
def test_a_rollout_draws_from_what_training_fits(predictor, frames, monkeypatch, onset):
    """Held to the true frames, its logits give the nats of the loss: within 1 %, in either of the two ways on."""
    import rollout

    model = without_noise(predictor.model)
    model.onset.bias.fill_(onset)
    model.onset.weight.zero_()
    log_magnitude = torch.from_numpy(frames[:4])
    _, _, expected = model.loss(log_magnitude)
    codes = model.codec.encode(log_magnitude)
    vector, details = model.codec.vector(codes) / model.codec.deviation, model.codec.detail(log_magnitude, codes)
    nats = []

    def tell(logits, noise, top_k):
        code = codes[:, t, len(nats) % model.config.n_books]
        nats.append(torch.nn.functional.cross_entropy(logits, code))
        return code

    monkeypatch.setattr(rollout, "sample", tell)
    state = model.start(
        torch.cat([log_magnitude, torch.zeros_like(log_magnitude)], -1)[:, :1],
        model.lay_out(rollout_linear(CPU) or rollout.plain_linear),
    )
    # As at the start of an episode; and nowhere is too far.
    model.drift.fill_(1e6)
    model.level_drift.fill_(1e6)
    state = state._replace(reference=model._embed_reference(None, 4), first=torch.zeros_like(state.first))
    for t in range(1, codes.shape[1]):
        _, state = model.next_frame(state, top_k=model.config.n_codes)  # their noise is apart
        state = state._replace(codes=codes[:, t], vector=vector[:, t], details=details[:, t].expand(2, -1, -1))
    nats = torch.stack(nats).view(-1, model.config.n_books).mean(0)
    torch.testing.assert_close(nats, expected[:-1], rtol=0.01, atol=0.001)


@torch.inference_mode()
def test_the_reference_is_the_mean_of_what_was_heard(predictor, frames):
    """Of the windows before, padding left out, in training; of the prompt in a rollout, for all of it."""
    model, log_magnitude = predictor.model, torch.from_numpy(frames[:3])
    mask = torch.ones(log_magnitude.shape[:2], dtype=torch.bool)
    mask[0, 10:] = False
    true = model.codec.project(log_magnitude) / model.codec.deviation
    first = model.loss(log_magnitude, None, mask)[1]
    expected = torch.stack([true[0, 1:10].mean(0), true[1, 1:].mean(0), true[2, 1:].mean(0)])
    torch.testing.assert_close(first["reference"], expected, atol=1e-3, rtol=1e-3)
    later = model.loss(log_magnitude.flip(0), first)[1]["reference"]
    share = (later - expected) / (true.flip(0)[:, 1:].mean(1) - expected)
    assert 0.099 < share[0].median() <= 1.001, share
    state = model.start(torch.from_numpy(np.tile(frames[:3], 2)))
    heard = model._embed_reference(true.mean(1), 3)
    assert heard.abs().max() > 0.01
    torch.testing.assert_close(state.reference, heard, atol=1e-4, rtol=1e-3)
    assert model.next_frame(state)[1].reference is state.reference


@torch.inference_mode()
def test_codes_are_drawn_more_narrowly_than_beginnings(predictor, frames, monkeypatch):
    """The user's temperature is for both, the model's own for the codes alone."""
    import rollout

    model, heats = copy.deepcopy(predictor.model), {}
    model.config = dataclasses.replace(model.config, code_temperature=0.5)

    def noise(shape, temperature, *rest):
        heats[tuple(shape)] = temperature
        return gumbel(shape, temperature, *rest)

    monkeypatch.setattr(rollout, "gumbel", noise)
    model.next_frame(model.start(torch.from_numpy(np.tile(frames[:3], 2))[:, :8]), 0.8)
    assert heats == {(2, 3, 1): 0.8, (3, model.config.n_books, model.config.n_codes): 0.4}


@torch.inference_mode()
def test_top_k_of_all_codes_is_no_top_k(predictor, frames):
    """The noise of the draws is added in another place, and is the same."""
    model, rollouts = predictor.model, []
    for top_k in (0, model.config.n_codes):
        generator = torch.Generator().manual_seed(0)
        state = model.start(torch.from_numpy(np.tile(frames[:3], 2))[:, :8], generator=generator)
        for _ in range(8):
            _, state = model.next_frame(state, 1.0, top_k, generator)
        rollouts.append(state.codes)
    assert torch.equal(*rollouts)


def test_the_books_of_a_frame_depend_on_each_other(predictor):
    """Book b's softmax sees the codes of the books before it."""
    model = predictor.model
    context = torch.randn(1, model.config.head_size)
    a, b = (model._logits(context + model._embed_sampled(torch.tensor([c]), 0), 1) for c in (0, 5))
    assert float((a - b).detach().abs().max()) > 1e-3


def test_transposed_sequences_train(corpus):
    """Every framing gives as many frames and bins; where a recording has samples is told for each."""
    config = tiny_config(training__batch_size=20, training__transpose=1.0)
    trainer = Trainer(config, split(corpus, 0.1)[0], corpus.level, CPU)
    trainer.fit()
    assert len(trainer.dataset.framings) > 2
    features, mask = trainer._features(trainer.dataset[0])
    n_frames = config.training.n_frames + 1
    assert features.shape == (20, n_frames, config.featurizer.n_bins) and mask.shape == (20, n_frames)
    assert mask.float().mean() > 0.9 and torch.isfinite(features).all()
    assert np.isfinite(trainer.train_step()["loss"])


def test_training_learns_and_beats_knowing_nothing(trainer, corpus):
    """200 tiny steps: held-out loss below 70 % of a uniform guess."""
    loss = trainer.held_out_loss(split(corpus, 0.1)[1])
    assert loss < 0.7 * np.log(trainer.config.model.n_codes)


def test_held_out_loss_changes_nothing(trainer, corpus):
    before = trainer.state().tensors
    before = {name: tensor.clone() for name, tensor in before.items()}
    trainer.held_out_loss(split(corpus, 0.1)[1])
    after = trainer.state().tensors
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_bad_batch_is_skipped(trainer, monkeypatch):
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    original = trainer.model.loss

    def broken(*arguments):
        loss, state, losses = original(*arguments)
        return loss * float("nan"), state, losses

    with monkeypatch.context() as patch:
        patch.setattr(trainer.model, "loss", broken)
        trainer.train_step()
    assert trainer.n_skipped == 1
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())


def test_sequences_hear_frames_that_the_model_drew(trainer, frames):
    """Every other sequence, from its second frame on, some frames and not all; what stands there belongs together."""
    model = trainer.model
    torch.manual_seed(0)
    codes, vector, detail = model.codec.analyze(torch.from_numpy(np.tile(frames[:8], (4, 1, 1))))
    conditions = model._conditions(model._embed_reference(None, 32), None)
    *mixed, drawn = model._with_drawn(codes, vector, detail, conditions, None)
    for new, old in zip(mixed, (codes, vector, detail), strict=True):
        assert torch.equal(new[1::2], old[1::2]) and torch.equal(new[:, 0], old[:, 0])
    torch.testing.assert_close(mixed[1], model.codec.vector(mixed[0]) / model.codec.deviation, atol=1e-4, rtol=1e-4)
    changed = (mixed[2] != detail).any(-1)[::2, 1:].float().mean(1)
    assert torch.equal((mixed[2] != detail).any(-1, keepdim=True), drawn)
    assert 0.3 < changed.mean() < 0.7  # a share of its own in each sequence, uniform
    assert changed.std() > 0.2
    assert mixed[2].isfinite().all() and not any(x.requires_grad for x in mixed)


def test_drawing_takes_no_gradient_away(trainer, frames):
    """Weights that were used without a gradient a moment ago, under the same autocast, get theirs."""
    model = copy.deepcopy(trainer.model).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16_matrix_units(CPU)):
        pulse = torch.rand(4, frames.shape[1] - 1, 4)
        first, state, _ = model.loss(torch.from_numpy(frames[:4]))  # without a reference, and with one
        second, _, _ = model.loss(torch.from_numpy(frames[:4]), state, pulse=pulse)
    (first + second).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_original_is_the_literal_design(corpus):
    """One target a window of ten raw frames, plain MSE, its own output fed back."""
    from config import override

    config = override(
        PRESETS["original"], ["model.hidden_size=16", "training.batch_size=3", "featurizer.sample_rate=8000"]
    )
    assert config.model == ModelConfig(head="regression", hidden_size=16, dropout=0.0)
    trainer = Trainer(config, split(corpus, 0.1)[0], corpus.level, torch.device("cpu"))
    assert trainer.frames_per_step == 3
    batch = trainer.dataset[0]
    features, _ = trainer._features(batch)
    assert features.shape == (3, 11, 1026)
    loss, _, _ = trainer.model.loss(features)
    raw = torch.cat([features[..., :513].exp(), features[..., 513:]], -1)
    window, _ = trainer.model.lstm(raw[:, :10].transpose(0, 1))
    expected = (trainer.model.output(window[-1]) - raw[:, 10]).square().mean()
    torch.testing.assert_close(loss, expected)
    trainer.train_step()
    out = Predictor.from_state(config, trainer.state()).continue_(torch.randn(1, 8000), 20)
    assert out.shape == (1, 8000 + 20 * 256)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_build(preset):
    config = PRESETS[preset]
    model = build_model(config.featurizer, config.model)
    assert sum(p.numel() for p in model.parameters()) > 1e6
