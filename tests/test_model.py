"""The LSTM and its training steps."""

import copy

import numpy as np
import pytest
import torch

from checkpoint import State
from config import PRESETS, ModelConfig
from conftest import tiny_config
from dataset import split
from device import has_bf16_matrix_units
from model_definition import build_model
from predictor import Predictor
from trainer import Trainer

CPU = torch.device("cpu")


def test_transposed_sequences_train(corpus):
    """Every framing gives as many frames and bins; where a recording has samples is told for each."""
    config = tiny_config(training__batch_size=20, training__transpose=1.0)
    trainer = Trainer(config, split(corpus, 0.1)[0], corpus.level, CPU)
    trainer.fit()
    assert len(trainer.dataset.framings) > 2
    features, mask = trainer._features(trainer.dataset[0])
    n_frames = config.training.n_frames + config.model.patch_frames
    assert features.shape == (20, n_frames, config.featurizer.n_bins) and mask.shape == (20, n_frames)
    assert mask.float().mean() > 0.9 and torch.isfinite(features).all()
    assert np.isfinite(trainer.train_step()["loss"])


def test_training_learns_more_than_the_linear_prediction(trainer, corpus):
    """200 tiny steps: held-out loss 0.02 nats a latent below that of the linear prediction which it starts from."""
    untrained = Trainer(trainer.config, trainer.segments, trainer.level, CPU)
    untrained.fit()
    held_out = split(corpus, 0.1)[1]
    assert trainer.held_out_loss(held_out) < untrained.held_out_loss(held_out) - 0.02


def again(trainer) -> Trainer:
    """Another trainer at the same place."""
    one, state = Trainer(trainer.config, trainer.segments, trainer.level, CPU), trainer.state()
    one.load_state(State({name: tensor.clone() for name, tensor in state.tensors.items()}, state.info))
    return one


def test_held_out_loss_changes_nothing(trainer, corpus):
    before = trainer.state().tensors
    before = {name: tensor.clone() for name, tensor in before.items()}
    trainer.held_out_loss(split(corpus, 0.1)[1])
    after = trainer.state().tensors
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_bad_batch_is_skipped(trainer, monkeypatch):
    trainer = again(trainer)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    original = trainer.model.loss

    def broken(*arguments):
        loss, state = original(*arguments)
        return loss * float("nan"), state

    with monkeypatch.context() as patch:
        patch.setattr(trainer.model, "loss", broken)
        trainer.train_step()
    assert trainer.n_skipped == 1
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())


def test_every_weight_gets_a_gradient(trainer, frames):
    """Without a reference, and with one; under autocast, where training has it."""
    model = copy.deepcopy(trainer.model).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16_matrix_units(CPU)):
        pulse = torch.rand(4, frames.shape[1] // 4 - 1, 4)
        first, state = model.loss(torch.from_numpy(frames[:4]))
        second, _ = model.loss(torch.from_numpy(frames[:4]), state, pulse=pulse)
    (first + second).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_original_is_the_literal_design(corpus):
    """One target a window of ten raw frames, plain MSE, its own output fed back."""
    from config import override

    config = override(
        PRESETS["original"], ["model.hidden_size=16", "training.batch_size=3", "featurizer.sample_rate=8000"]
    )
    assert config.model == ModelConfig(head="regression", hidden_size=16, dropout=0.0, pulse=False, plan_patches=0)
    trainer = Trainer(config, split(corpus, 0.1)[0], corpus.level, torch.device("cpu"))
    assert trainer.frames_per_step == 3
    batch = trainer.dataset[0]
    features, _ = trainer._features(batch)
    assert features.shape == (3, 11, 1026)
    loss, _ = trainer.model.loss(features)
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
