"""The plan of the next patches: its pitches, its distribution, what patches make of it."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from config import PRESETS, FeaturizerConfig, from_saved, override, to_dict
from conftest import tiny_config, trained
from dataset import split
from featurizer import Featurizer
from model_definition import build_model
from patch_head import PatchHead
from patch_plan import LOWEST_PITCH, N_PARTS, PatchPlan, pitch_profile
from predictor import Predictor
from trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trainer(corpus):
    """60 steps old, with eight codes."""
    sizes = {"model__plan_patches": 4, "model__plan_codes": 8}
    return trained(corpus, tiny_config(training__n_frames=32, training__learning_rate=3e-3, **sizes), 60)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_note_stands_out_at_its_pitch(channels):
    """A sine of each pitch from C4 to B7 is highest at that pitch, and its profile has a mean within 2 % of its
    height: how loud all pitches are is not told."""
    framing = FeaturizerConfig(channels=channels)
    profile, featurizer = torch.from_numpy(pitch_profile(framing)), Featurizer(framing)
    for pitch in range(60, 108):
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        sine = 0.1 * torch.sin(2 * math.pi * hertz * torch.arange(4096) / 22050)
        frames = featurizer.log_magnitude(sine.expand(1, 2, -1) if channels == 2 else sine[None])[0]
        compressed = (1000 * frames.exp()).log1p()
        pitches = profile @ compressed.mean(0)
        assert pitches.argmax() == pitch - LOWEST_PITCH, pitch
        assert abs(pitches.mean()) < 0.02 * pitches.max(), (pitch, pitches.mean() / pitches.max())


def test_plans_are_sampled_as_likely_as_they_are():
    """The share of each of 4 * 4 * 4 plans in 200,000 samples is exp(-nats) within 0.004."""
    torch.manual_seed(0)
    plan = PatchPlan(16, 8, 4, 4)
    torch.nn.init.normal_(plan.weight, std=0.5)
    torch.nn.init.normal_(plan.earlier)
    context = torch.randn(1, 16)
    with torch.inference_mode():
        samples = plan.sample(context.expand(200_000, -1), 1.0, torch.Generator().manual_seed(1))
        each = torch.cartesian_prod(*[torch.arange(4)] * N_PARTS)
        likely = (-plan.nats(context.expand(len(each), -1), each)).exp()
        coldest = plan.sample(context.expand(3, -1), 0.0)
    torch.testing.assert_close(likely.sum(), torch.tensor(1.0))
    counts = torch.bincount(samples @ torch.tensor([16, 4, 1]), minlength=64) / len(samples)
    torch.testing.assert_close(counts, likely, atol=0.004, rtol=0)
    assert len(coldest.unique(dim=0)) == 1


def test_codes_are_the_nearest_and_a_block_has_one_plan():
    """Of two kinds of patches that follow each other in blocks of four, the plans are two; the last patch stands for
    those that its block lacks."""
    plan = PatchPlan(16, 72, 4, 2)
    torch.manual_seed(0)
    kinds = torch.randn(2, 1, 72)
    latents = torch.cat([kinds[i].expand(4, -1) for i in (0, 1, 1, 0, 0, 1)]).unsqueeze(0)
    framing = FeaturizerConfig()
    to_frame = torch.linalg.pinv(torch.from_numpy(pitch_profile(framing)))
    plan.fit(latents + 0.01 * torch.randn(64, 24, 72), to_frame, framing, 0)
    codes = plan.encode(latents[:, :22])[0]
    assert codes.shape == (6, N_PARTS)
    assert [torch.equal(codes[0], x) for x in codes] == [True, False, False, True, True, False]


def test_a_corpus_with_fewer_patches_than_codes_has_as_many_codes():
    plan = PatchPlan(16, 8, 4, 64)
    latents, framing = torch.randn(2, 6, 8), FeaturizerConfig()
    plan.fit(latents, torch.randn(framing.n_bins, 8), framing, 0)
    codes = plan.encode(latents)
    assert plan.centroids.isfinite().all() and codes.max() < 6 and len(codes.flatten().unique()) > 1


def test_plans_are_learned(trainer, corpus):
    """After 60 steps, plans of what it was trained on are likelier than by chance, by half a nat."""
    model = trainer.model.eval()
    waveform = torch.from_numpy(corpus.recordings[0].read(0, 32_000)).unsqueeze(0)
    frames = Featurizer(trainer.config.featurizer).log_magnitude(waveform)
    with torch.inference_mode():
        latents = model.basis.encode(frames - model.envelope(frames).unsqueeze(1))
        contexts, _ = model._run(latents[:, :-1], model.no_reference.expand(1, 1, -1))
        plans = model.plan.encode(latents[:, 1:])
        nats = model.plan.nats(contexts[:, ::4], plans).mean()
    assert nats < N_PARTS * math.log(8) - 0.5, nats


@torch.inference_mode()
def test_a_rollout_plans_each_block_once_and_guidance_is_towards_the_plan(predictor, corpus, monkeypatch):
    """In 16 patches there are 4 plans. At guidance 0 patches do not depend on them; the way from 0 to 1, half of it
    again, is guidance 1.5: to 1e-5."""
    waveform = torch.from_numpy(corpus.recordings[0].read(0, 512 + 63 * 128)).unsqueeze(0)
    model = predictor.model
    state = model.prefill(Featurizer(predictor.config.featurizer).log_magnitude(waveform))
    contexts, plans = {}, []
    stay = lambda self, context, *more: seen.append(context) or state.latents[:, 1]  # noqa: E731
    monkeypatch.setattr(PatchHead, "sample", stay)
    monkeypatch.setattr(PatchPlan, "sample", lambda self, *more: plans.append(1) or torch.full((1, N_PARTS), code))
    for guidance in (0.0, 1.0, 1.5):
        monkeypatch.setattr(model, "config", dataclasses.replace(predictor.config.model, guidance=guidance))
        for code in (0, 1):
            seen = []
            model.next_frames(state, 1.0)
            contexts[guidance, code] = torch.stack(seen)
    assert len(plans) == 6 * 4
    first = {key: value[0] for key, value in contexts.items()}  # later ones have read other plans
    torch.testing.assert_close(first[0.0, 0], first[0.0, 1])
    assert (first[1.0, 0] - first[1.0, 1]).abs().max() > 0.01
    expected = first[0.0, 0] + 1.5 * (first[1.0, 0] - first[0.0, 0])
    torch.testing.assert_close(first[1.5, 0], expected, atol=1e-5, rtol=0)


def test_models_from_before_there_were_plans_have_none():
    """Their metadata does not name them; a model that has no plan has no parameters of one."""
    saved = to_dict(PRESETS["small"])
    for key in [key for key in saved["model"] if key.startswith("plan_")]:
        del saved["model"][key]
    config = from_saved(saved)
    assert config.model.plan_patches == 0
    tiny = override(config, ["model.n_latents=24", "model.n_components=48", "model.hidden_size=32"])
    model = build_model(tiny.featurizer, tiny.model)
    assert model.plan is None and not [name for name in model.state_dict() if name.startswith("plan")]


@pytest.mark.parametrize("changes", [{"model__plan_patches": 0}, {"model__plan_patches": 3}])
def test_without_a_plan_or_with_other_blocks_training_and_rollout_go_on(corpus, changes):
    trainer = Trainer(tiny_config(**changes), split(corpus, 0.1)[0], corpus.level, CPU)
    trainer.fit()
    assert np.isfinite([trainer.train_step()["loss"] for _ in range(4)]).all()
    predictor = Predictor.from_state(trainer.config, trainer.state())
    out = predictor.continue_(torch.from_numpy(corpus.recordings[0].read(0, 9000)).unsqueeze(0), 40)
    assert out.shape == (1, 9000 + 40 * 128) and torch.isfinite(out).all()
