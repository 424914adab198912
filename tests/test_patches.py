"""Patches of latents: the basis, the distribution of the next patch, its rollout, a whole training."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from checkpoint import State
from conftest import TINY, run, tiny_config
from device import rollout_linear
from featurizer import DB, Featurizer, Unvaried
from model_definition import build_model, plain_linear
from patch_head import PatchHead, choose
from patch_plan import PatchPlan
from predictor import Predictor
from rhythm import prompt_pulse
from spectral.envelope import Envelope
from spectral.patches import LOWEST_DB, PatchBasis, fit_patches
from spectral.typical import fit_typical, to_typical
from trainer import Trainer

CPU = torch.device("cpu")
FRAMING = tiny_config().featurizer
CHANGES = {
    "training.n_frames": 32,
    "training.learning_rate": 3e-3,
    "model.plan_patches": 4,
}


def patches_config(**changes):
    return tiny_config(**{key.replace(".", "__"): value for key, value in CHANGES.items()} | changes)


@pytest.fixture(scope="module")
def patch_trainer(corpus):
    """100 steps old."""
    from dataset import split

    torch.set_num_threads(1)
    trainer = Trainer(patches_config(), split(corpus, 0.1)[0], corpus.level, CPU)
    trainer.fit()
    trainer.losses = [trainer.train_step()["loss"] for _ in range(100)]
    return trainer


@pytest.fixture(scope="module")
def patch_predictor(patch_trainer):
    return Predictor.from_state(patch_trainer.config, patch_trainer.state())


# -- basis ---------------------------------------------------------------------------------------


def fitted(frames, **changes):
    config = patches_config(**changes)
    basis = PatchBasis(config.featurizer, config.model)
    fit_patches(basis, frames, 0)
    return basis


def test_frames_return_from_their_latents(frames):
    """Where a frame is above the floor, the error is below 4 dB (root of the mean square) with 24 latents for four
    frames of 257 bins, and below 2.5 dB with 160."""
    for n_latents, n_components, most in ((24, 48, 4.0), (160, 160, 2.5)):
        basis = fitted(frames, model__n_latents=n_latents, model__n_components=n_components)
        true = torch.from_numpy(frames)
        remade = basis.remake(true)
        assert remade.shape == true.shape
        error = 20 / math.log(10) * (remade - true)[true > basis.log_floor + math.log(2)]
        assert error.square().mean().sqrt() < most, (n_latents, error.square().mean().sqrt())


def test_latents_are_white(frames):
    basis = fitted(frames)
    latents = basis.encode(torch.from_numpy(frames)).flatten(0, 1).numpy()
    np.testing.assert_allclose(latents.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(latents.T, bias=True), np.eye(24), atol=2e-2)


def test_compression_is_logarithmic_above_the_floor_and_linear_below(frames):
    """At 40 dB above, 6.02 dB are ln 2 within 2 %; at 40 dB below, twice the magnitude is twice as much within 2 %;
    and back."""
    basis = fitted(frames)
    far = 40 * math.log(10) / 20
    loud, soft = basis.log_floor + far, basis.log_floor - far
    difference = basis.compress(loud + math.log(2)) - basis.compress(loud)
    torch.testing.assert_close(difference, torch.full_like(loud, math.log(2)), rtol=0.02, atol=0)
    torch.testing.assert_close(basis.compress(soft + math.log(2)), 2 * basis.compress(soft), rtol=0.02, atol=0)
    for frame in (loud, soft):
        torch.testing.assert_close(basis.expand(basis.compress(frame)), frame, atol=1e-3, rtol=0)


def test_the_floor_follows_the_spectrum_of_the_corpus(frames):
    """A corpus that is 12 dB softer has a floor that is 12 dB lower, but for bins where it has nothing, and the same
    latents: the first twelve, whose directions are certain, within 0.1 deviations."""
    soft = frames - np.float32(12 * math.log(10) / 20)
    one, other = fitted(frames), fitted(soft)
    loud = one.log_floor > (LOWEST_DB + 12.1) / 20 * math.log(10)
    difference = (one.log_floor - other.log_floor)[loud]
    assert loud.sum() > 200
    torch.testing.assert_close(difference, torch.full_like(difference, 12 * math.log(10) / 20))
    a, b = one.encode(torch.from_numpy(frames)), other.encode(torch.from_numpy(soft))
    torch.testing.assert_close(a[..., :12].abs(), b[..., :12].abs(), atol=0.1, rtol=0)


def test_a_basis_is_fitted_to_frames_that_differ(frames):
    with pytest.raises(Unvaried, match="the same"):
        fitted(np.repeat(frames[:1, :1], 64, 1))
    with pytest.raises(ValueError, match="three patches"):
        fitted(frames[:, :11])


def test_the_envelope_is_level_and_colour_and_no_notes():
    """White noise at -20 dB re 1 in each bin has one of -20 dB everywhere, within 0.1 dB; a lone partial 40 dB above it
    raises it by less than 30 dB. Where a piece is silent it is 40 dB below the corpus' own, and of two channels, each
    has its own."""
    config = patches_config()
    envelope = Envelope(config.featurizer, 16)
    noise = torch.full((1, 8, 257), -20 / DB)
    envelope.fit(envelope.power(noise))
    torch.testing.assert_close(DB * envelope(noise), torch.full((1, 257), -20.0), atol=0.1, rtol=0)
    partial = noise.clone()
    partial[..., 60] = 20 / DB
    assert 0 < (DB * (envelope(partial) - envelope(noise))).max() < 30
    silent = envelope(torch.full((1, 8, 257), -100 / DB))
    torch.testing.assert_close(DB * silent, torch.full((1, 257), -60.0), atol=0.1, rtol=0)
    used = torch.ones(1, 8, dtype=torch.bool)
    used[:, 4:] = False
    padded = torch.cat([noise[:, :4], partial[:, 4:]], 1)
    torch.testing.assert_close(envelope(padded, used), envelope(noise))
    stereo = Envelope(patches_config(featurizer__channels=2).featurizer, 16)
    both = torch.cat([noise, noise + 6 / DB], -1)
    stereo.fit(stereo.power(both))
    torch.testing.assert_close(stereo(both)[:, 257:] - stereo(both)[:, :257], torch.full((1, 257), 6 / DB))
    assert torch.equal(Envelope(config.featurizer, 0)(noise), torch.zeros(1, 257))
    torch.testing.assert_close(Envelope(config.featurizer, 1)(noise), noise[:, 0])


def test_texture_is_the_fluctuation_of_noise(frames):
    """A smooth frame 40 dB below the floor becomes the spectrum of noise: its mean in dB stays within 0.1, the
    deviation is that of a Rayleigh variable's logarithm, 5.57 dB, within 0.1 dB. At 40 dB above the floor it stays
    within 0.6 dB, at strength 0 to the bit, and both channels fluctuate together."""
    basis, db = fitted(frames, featurizer__channels=1), 20 / math.log(10)
    rng = torch.Generator().manual_seed(0)
    soft = (basis.log_floor - 40 / db).expand(20, 200, -1)
    change = db * (basis.textured(soft, 1.0, rng) - soft)[..., 2:-2]
    assert abs(change.mean()) < 0.1 and abs(change.std() - 5.57) < 0.1
    loud = (basis.log_floor + 40 / db).expand(2, 50, -1)
    assert (db * (basis.textured(loud, 1.0, rng) - loud)).abs().max() < 0.6
    assert basis.textured(soft, 0.0, rng) is soft
    stereo = patches_config(featurizer__channels=2)
    both = PatchBasis(stereo.featurizer, stereo.model).textured(torch.zeros(1, 4, 514), 1.0, rng)
    torch.testing.assert_close(both[..., :257], both[..., 257:])


@torch.inference_mode()
def test_rollouts_and_the_codec_alone_have_texture(patch_predictor, corpus, frames, monkeypatch):
    """With one seed, the first frames differ by it where they are below the floor, and at temperature 0 not at all."""
    model, config, first = patch_predictor.model, patch_predictor.model.config, {}
    state = model.prefill(torch.from_numpy(frames[:2]))
    waveform, sounds = torch.from_numpy(corpus.recordings[0].read(0, 16_000)).unsqueeze(0), {}
    for texture in (0.0, 1.0):
        changed = dataclasses.replace(config, texture=texture)
        monkeypatch.setattr(model, "config", changed)
        for temperature in (0.0, 1.0):
            rng = torch.Generator().manual_seed(0)
            first[texture, temperature] = model.next_frames(state, temperature, rng, 1)[0]
        whole = dataclasses.replace(patch_predictor.config, model=changed)
        sounds[texture] = dataclasses.replace(patch_predictor, config=whole).reconstruct(waveform, 4000)
    assert torch.equal(first[0.0, 0.0], first[1.0, 0.0])
    change = (first[1.0, 1.0] - first[0.0, 1.0])[first[0.0, 1.0] < model.basis.log_floor]
    assert 0.3 < change.std() < 0.7  # nepers; a Rayleigh variable's logarithm has 0.64, at the floor half of it
    assert (sounds[1.0] - sounds[0.0])[:, 4000:].abs().max() > 1e-3


# -- one patch -----------------------------------------------------------------------------------


def test_nats_are_those_of_a_mixture_of_gaussians(patch_predictor):
    """As torch.distributions has it, with all weights 1: within 1e-4 nats a latent, up to the constant."""
    model = copy.deepcopy(patch_predictor.model)
    model.head.weight.fill_(1)
    n = len(model.head.weight)
    context, last, target = torch.randn(5, 32), torch.randn(5, n), torch.randn(5, n)
    with torch.no_grad():
        mean, log_spread = model.head.distribution(context, last)
        whitening = model.head._whitening()
        components = Normal(model.head.component_mean, model.head.component_log_spread.exp())
        white = (target - mean) / log_spread.exp() @ whitening.T
        volume = whitening.logdet() - log_spread.sum(-1)
        expected = []
        for i in range(5):
            mixture = MixtureSameFamily(
                Categorical(logits=model.head.component(context[i])), Independent(components, 1)
            )
            expected.append(-(mixture.log_prob(white[i]) + volume[i]) / n - 0.5 * math.log(2 * math.pi))
        torch.testing.assert_close(model.head.nats(context, last, target), torch.stack(expected), atol=1e-4, rtol=0)


def test_samples_have_the_mean_and_covariance_of_the_distribution(patch_predictor):
    """Of 40,000 samples: the mean within five standard errors, the covariance within 10 % of its largest entry."""
    model = copy.deepcopy(patch_predictor.model)
    model.head.low.fill_(-math.inf)
    model.head.high.fill_(math.inf)
    context, last = torch.randn(32), torch.randn(24)
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(0)
        samples = model.head.sample(context.expand(40_000, -1), last.expand(40_000, -1), 1.0, generator)
        mean, log_spread = model.head.distribution(context, last)
        share = model.head.component(context).softmax(-1)
        centre = share @ model.head.component_mean
        apart = model.head.component_mean - centre
        white = torch.diag(share @ (2 * model.head.component_log_spread).exp()) + apart.T @ (share[:, None] * apart)
        colouring = log_spread.exp()[:, None] * model.head.inverse_whitening()
        covariance = colouring @ white @ colouring.T
        error = (samples.mean(0) - mean - colouring @ centre).abs() / (covariance.diag() / 40_000).sqrt()
    assert error.max() < 5
    assert (torch.cov(samples.T) - covariance).abs().max() < 0.1 * covariance.max()


def test_at_temperature_0_there_is_no_chance(patch_predictor):
    model, context, last = patch_predictor.model, torch.randn(3, 32), torch.randn(3, 24)
    with torch.inference_mode():
        one, other = model.head.sample(context, last, 0.0), model.head.sample(context, last, 0.0)
        torch.testing.assert_close(one, other, atol=0, rtol=0)
        assert (model.head.sample(context, last, 1.0) - one).abs().max() > 0.1


def test_samples_keep_to_the_range_of_the_corpus(patch_predictor):
    model = patch_predictor.model
    with torch.inference_mode():
        samples = model.head.sample(50 * torch.randn(500, 32), 50 * torch.randn(500, 24))
    assert ((samples >= model.head.low) & (samples <= model.head.high)).all()
    assert (samples == model.head.high).any() and (model.head.high > 1).all() and (model.head.high < 20).all()


def test_the_range_can_be_left_out(frames):
    """With model.range_quantile 0 there is none."""
    config = patches_config(model__range_quantile=0.0)
    model = build_model(config.featurizer, config.model)
    model.fit(frames, 0)
    assert torch.isinf(model.head.low).all() and torch.isinf(model.head.high).all()


def test_rounding_errors_are_not_worth_a_latent(frames):
    """Where a corpus is filtered out, from 2 to 4 kHz, and has noise at -110 dB, latents tell nothing of it: with other
    noise there, each is the same within 0.05 deviations (root of the mean square)."""
    rng = np.random.default_rng(0)

    def filtered():
        out = frames[:, :, :257].copy()
        out[:, :, 128:] = -110 / DB + 0.64 * rng.standard_normal(out[:, :, 128:].shape)
        return out.astype(np.float32)

    config = patches_config(featurizer__channels=1)
    model, latents = build_model(config.featurizer, config.model), []
    one, other = filtered(), filtered()
    model.fit(one, 0)
    for noise in (one, other):
        log_magnitude = torch.from_numpy(noise)
        latents.append(model.basis.encode(log_magnitude - model.envelope(log_magnitude).unsqueeze(1)))
    assert (latents[1] - latents[0]).square().mean((0, 1)).sqrt().max() < 0.05


# -- rollout ---------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_step_equals_the_sequence(patch_predictor, frames):
    """What the LSTM gives for one patch after another is what it gives over all of them: within 1e-4, with weights laid
    out for rollouts (of 16 bits on some CPUs) within 5e-3."""
    model = patch_predictor.model
    latents = model.basis.encode(torch.from_numpy(frames[:3]))
    conditions = torch.randn(3, latents.shape[1], 32)
    whole, _ = model._run(latents, conditions)
    state = torch.zeros(3, len(model.layers), 2, 32)
    for one, tolerance in ((model, 1e-4), (model.packed(rollout_linear(CPU) or plain_linear), 5e-3)):
        hidden = state
        for t in range(latents.shape[1]):
            output, hidden = one._step(latents[:, t], conditions[:, t], hidden)
            torch.testing.assert_close(output, whole[:, t], atol=tolerance, rtol=0)


@torch.inference_mode()
def test_a_rollout_samples_the_distribution_of_training(patch_predictor, frames, monkeypatch):
    """Held to the true patches and their plans, of which every fourth patch has one, a rollout is at the contexts of
    the loss: nats within 1e-4; and its first frames are those of the prompt's own last patch, decoded."""
    model, true = patch_predictor.model, torch.from_numpy(frames[:2])
    n, nats, planned = 6, [], []
    envelope = model.envelope(true[:, : 4 * n])
    latents = model.basis.encode(true - envelope.unsqueeze(1))
    state = model.prefill(true[:, : 4 * n])
    following = iter(latents[:, n:].unbind(1))
    plans = model.plan.encode(latents[:, n : n + 8])

    def plan(self, context, temperature=1.0, generator=None):
        planned.append(self.nats(context, plans[:, len(planned)]))
        return plans[:, len(planned) - 1]

    def held(self, context, last, temperature=1.0, generator=None):
        target = next(following)
        nats.append(self.nats(context, last, target))
        return target

    monkeypatch.setattr(PatchHead, "sample", held)
    monkeypatch.setattr(PatchPlan, "sample", plan)
    monkeypatch.setattr(model, "config", dataclasses.replace(model.config, texture=0.0, guidance=1.0))
    first, state = model.next_frames(state, n_patches=1)
    torch.testing.assert_close(first, model.basis.decode(latents[:, n - 2 : n + 1]) + envelope.unsqueeze(1))
    _, state = model.next_frames(state, n_patches=4)
    reference = model.reference(latents[:, :n].mean(1) * model.head.weight).unsqueeze(1)
    # Two patches, then the block that the prompt ends with, then the plans that were sampled.
    first_plan = model.plan.encode(torch.cat([latents[:, :1], latents[:, :1], latents[:, :2]], 1))
    of_prompt = torch.cat([first_plan[:, [0, 0]], model.plan.encode(latents[:, 2:n]).repeat_interleave(4, 1)], 1)
    each = torch.cat([of_prompt, plans.repeat_interleave(4, 1)], 1)
    contexts, _ = model._run(latents[:, : n + 4], reference + model.plan.read(each[:, : n + 4]))
    told = model.plan.tell(contexts[:, n - 1 :], each[:, n : n + 5])
    expected = model.head.nats(told, latents[:, n - 1 : n + 4], latents[:, n : n + 5])
    torch.testing.assert_close(torch.stack(nats, 1), expected, atol=1e-4, rtol=0)
    expected = model.plan.nats(contexts[:, [n - 1, n + 3]], plans)
    torch.testing.assert_close(torch.stack(planned, 1), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("tilt, most", [(0.0, 0.01), (6.0, 0.3)])
def test_a_rollout_has_the_level_and_the_colour_of_its_prompt(patch_predictor, frames, tilt, most):
    """A prompt that is 12 dB louder, and some dB more at its upper end, goes on so, with the same notes: frames differ
    by that alone, within so many dB on average. (A tilt that is linear in Hz is curved in the bands.)"""
    model, made = patch_predictor.model, []
    filtered = (12 + tilt * torch.linspace(0, 1, 257).repeat(frames.shape[-1] // 257)) / DB
    for prompt in (torch.from_numpy(frames[:4]), torch.from_numpy(frames[:4]) + filtered):
        state, rng, rollout = model.prefill(prompt), torch.Generator().manual_seed(0), []
        for _ in range(3):
            more, state = model.next_frames(state, 1.0, rng, 1)
            rollout.append(more)
        made.append(torch.cat(rollout, 1))
    assert (made[1] - made[0] - filtered).abs().mean() * DB < most


def test_a_continuation_has_the_prompts_samples_and_length(patch_predictor, corpus):
    waveform = torch.from_numpy(corpus.recordings[0].read(0, 16_000))
    one = patch_predictor.continue_(waveform.unsqueeze(0), 50, seed=3)
    assert one.shape == (1, 16_000 + 50 * 128)
    assert torch.isfinite(one).all() and one[:, 16_000:].square().mean().sqrt() > 1e-3
    torch.testing.assert_close(patch_predictor.continue_(waveform.unsqueeze(0), 50, seed=3), one)
    assert (patch_predictor.continue_(waveform.unsqueeze(0), 50, seed=4) - one).abs().max() > 0.01


@pytest.mark.parametrize("n_samples", [1, 300, 600, 900])
def test_short_prompts_go_on(patch_predictor, n_samples):
    out = patch_predictor.continue_(0.1 * torch.randn(1, n_samples), 12)
    assert out.shape == (1, n_samples + 12 * 128) and torch.isfinite(out).all()


def test_prompts_of_several_lengths_go_on_together(patch_predictor, corpus):
    """A row of a batch starts from its own prompt: its first block, at temperature 0, is what it is alone."""
    waveform = torch.from_numpy(corpus.recordings[0].read(0, 24_000))
    prompts = [waveform[:10_000], waveform]
    together = next(patch_predictor.stream(prompts, 40, temperature=0.0))
    for prompt, row in zip(prompts, together, strict=True):
        alone = next(patch_predictor.stream(prompt.unsqueeze(0), 40, temperature=0.0))
        torch.testing.assert_close(row, alone[0], atol=2e-3, rtol=0)  # weights of 16 bits, sums in another order


def test_the_codec_alone_is_near_the_recording(patch_predictor, corpus):
    """reconstruct with true latents: level within 1.5 dB of the recording's, and unlike it to the sample."""
    waveform = torch.from_numpy(corpus.recordings[0].read(0, 32_000)).unsqueeze(0)
    out = patch_predictor.reconstruct(waveform, 8000)
    n = out.shape[1]
    assert n > 32_000 - 512 - 5 * 128
    levels = [20 * torch.log10(x[:, 8000:n].square().mean().sqrt()) for x in (out, waveform)]
    assert abs(levels[0] - levels[1]) < 1.5
    assert (out - waveform[:, :n])[:, 8000:].abs().max() > 0.01


# -- training --------------------------------------------------------------------------------------


def test_training_lowers_the_nats(patch_trainer):
    """By 0.05 a latent in a hundred steps."""
    assert np.mean(patch_trainer.losses[-20:]) < np.mean(patch_trainer.losses[:20]) - 0.05


def test_a_resumed_training_goes_on_to_the_bit(patch_trainer):
    """In the middle of an episode, two steps later: weights, averages, moments and carried state."""
    state, random, states = patch_trainer.state(), torch.get_rng_state(), []
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    for _ in range(2):
        one = Trainer(patch_trainer.config, patch_trainer.segments, patch_trainer.level, CPU)
        one.load_state(State({name: tensor.clone() for name, tensor in tensors.items()}, state.info))
        torch.set_rng_state(random)
        one.train_step()
        middle = one.state()
        if not states:
            one.train_step()
        else:
            again = Trainer(one.config, one.segments, one.level, CPU)
            again.load_state(middle)
            one = again
            one.train_step()
        states.append(one.state())
    a, b = states
    assert {f"carry.{name}" for name in ("lstm", "reference", "envelope", "plan")} <= set(a.tensors)
    assert [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])] == []


def test_the_rollouts_pulse_is_the_one_of_training(patch_predictor, monkeypatch):
    """For a steady pulse and a prompt of 26 frames, the LSTM is given with each patch the pulse in the middle of the
    next one: within 1e-5."""
    model, given, turn = patch_predictor.model, [], 0.11
    original = model.pulse.forward
    monkeypatch.setattr(model.pulse, "forward", lambda x: given.append(x) or original(x))
    at = lambda frame: torch.polar(torch.ones(2), frame * torch.tensor([turn, 2 * turn]))  # noqa: E731
    with torch.inference_mode():
        state = model.prefill(torch.randn(1, 26, 257), (at(25.0)[None], at(1.0)[None]))
        model.next_frames(state, n_patches=3)
    given = torch.cat([x.reshape(-1, 4) for x in given])
    # Whole patches end with frame 25, so that they begin with frames 2, 6, ...: the second's middle is 7.5.
    expected = torch.stack([torch.view_as_real(at(7.5 + 4 * i)).flatten() for i in range(len(given))])
    assert len(given) == 5 + 3
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_rollout_begins_after_its_prompt(patch_predictor, corpus):
    """The first frames are those of the first patch that was sampled, and not of the prompt's last one: to 1e-4."""
    prompt, featurizer = torch.from_numpy(corpus.recordings[0].read(0, 512 + 63 * 128))[None], Featurizer(FRAMING)
    made, model = patch_predictor.frames(prompt, temperature=0.0), patch_predictor._packed
    pulse = [torch.from_numpy(x) for x in prompt_pulse(prompt[0].numpy(), FRAMING)]
    state = model.prefill(featurizer.log_magnitude(prompt), pulse)
    _, state = model.next_frames(state, 0.0, n_patches=1)
    expected, _ = model.next_frames(state, 0.0)
    torch.testing.assert_close(torch.stack([next(made) for _ in range(64)], 1), expected, atol=1e-4, rtol=0)


def test_futures_of_a_prompt_differ_and_share_its_end(patch_predictor, corpus):
    waveform = torch.from_numpy(corpus.recordings[0].read(0, 16_000)).unsqueeze(0)
    blocks = list(patch_predictor.stream(waveform, 40, n_futures=3))
    out = torch.cat(blocks, -1)
    assert out.shape[0] == 3 and torch.isfinite(out).all()
    assert all((out[i] - out[j]).abs().max() > 0.01 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_window_is_relative_to_those_before_it(patch_trainer, frames):
    """The same window, 6 dB louder than the one before it, is other latents than at its level: its loss differs. With
    the window before 6 dB louder, too, it does not, but for what comes of other sums (1e-4)."""
    model, losses = copy.deepcopy(patch_trainer.model).eval(), []
    first, second = torch.from_numpy(frames[:2, :36]), torch.from_numpy(frames[2:4, :36])
    with torch.no_grad():
        for before, after in ((0.0, 0.0), (0.0, 6.0), (6.0, 6.0)):
            _, state = model.loss(first + before / DB)
            losses.append(model.loss(second + after / DB, state)[0])
    assert abs(losses[1] - losses[0]) > 0.01
    torch.testing.assert_close(losses[2], losses[0], atol=1e-4, rtol=0)


def test_padding_is_not_learned_from(patch_trainer):
    """What is behind a recording's end changes neither the loss nor what the next window is given."""
    model = copy.deepcopy(patch_trainer.model).eval()
    features = torch.randn(2, 36, 257)
    mask = torch.ones(2, 36, dtype=torch.bool)
    mask[1, 18:] = False
    other = features.clone()
    other[1, 18:] = 3.0
    with torch.no_grad():
        a, state = model.loss(features, None, mask)
        b, again = model.loss(other, None, mask)
    torch.testing.assert_close(a, b)
    for name in ("reference", "envelope"):
        torch.testing.assert_close(state[name], again[name])


def test_a_steady_tone_cannot_be_learned_from(tmp_path):
    """Of 1000 Hz, whose period divides the hop, so that all frames are the same: one line, and no traceback."""
    import soundfile

    folder = tmp_path / "tone"
    folder.mkdir()
    for i in range(2):
        tone = 0.3 * np.sin(2 * np.pi * 1000 / 8000 * np.arange(80_000))
        soundfile.write(folder / f"{i}.wav", tone.astype(np.float32), 8000, subtype="FLOAT")
    words = [word for key, value in {**TINY, **CHANGES}.items() for word in ("--set", f"{key}={value}")]
    result = run("train.py", folder, "--metadata", tmp_path / "s.json", "--steps", 2, *words)
    assert result.returncode == 1 and "nothing changes in them" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


def test_windows_are_whole_patches():
    from errors import UserError

    with pytest.raises(UserError, match=r"training\.n_frames.*multiple of model\.patch_frames, 4"):
        patches_config(training__n_frames=30)


def test_train_and_predict_by_the_scripts(recordings, tmp_path):
    """Stereo, resumed once; a score goes on as a WAV that is 2 s longer than the prompt: within a frame."""
    import soundfile

    from conftest import PROMPT

    metadata, out = tmp_path / "p.json", tmp_path / "p.wav"
    values = {**TINY, **CHANGES, "featurizer.channels": 2}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    first = run("train.py", recordings, "--metadata", metadata, "--steps", 4, *words)
    assert first.returncode == 0, first.stderr
    again = run("train.py", recordings, "--metadata", metadata, "--steps", 6)
    assert again.returncode == 0 and "resumed at step 4" in again.stderr, again.stderr
    result = run("predict.py", metadata, PROMPT, "--seconds", 2, "-o", out)
    assert result.returncode == 0, result.stderr
    refused = run("predict.py", metadata, PROMPT, "--seconds", 2, "-o", tmp_path / "k.wav", "--top-k", 5)
    assert refused.returncode == 1 and refused.stderr.startswith("predict.py: --top-k: is no more"), refused.stderr
    info = soundfile.info(out)
    only = run("predict.py", metadata, PROMPT, "--seconds", 1, "-o", tmp_path / "s.wav")
    assert only.returncode == 0, only.stderr
    assert info.channels == 2
    assert abs(info.duration - soundfile.info(tmp_path / "s.wav").duration - 1) < 128 / 8000


def test_settings_of_an_older_version_are_passed_over_where_they_are_not_used():
    """Metadata of any preset named the settings of models that are no more; those of such a model are refused, and so
    is the key where a user gives it."""
    from config import PRESETS, from_saved, override, to_dict
    from errors import UserError

    for preset, head in (("original", "regression"), ("small", "codes"), ("small", "patches")):
        values = to_dict(PRESETS[preset])
        values["model"] |= {"n_books": 8, "reference_patches": 128, "head": head}
        if preset == "original":
            assert from_saved(values) == PRESETS[preset]
        else:
            with pytest.raises(UserError, match="of an older version, whose models are no more; train anew"):
                from_saved(values)
        with pytest.raises(UserError, match=r"unknown key 'model\.n_books'"):
            override(PRESETS[preset], ["model.n_books=8"])


def test_the_choice_follows_the_softmax():
    """Frequencies within 3 standard errors of the softmax at a temperature; at 0 the likeliest."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    n = 20000
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits[0] / temperature).softmax(0)
        frequency = torch.bincount(choose(logits.expand(n, 4), temperature, generator), minlength=4) / n
        assert ((frequency - expected).abs() < 3 * (expected * (1 - expected) / n).sqrt() + 1e-3).all()
    assert set(choose(logits.expand(n, 4), 0.0).tolist()) == {0}


def test_pieces_are_brought_to_the_typical_shape_that_is_nearest():
    """Of a corpus of bright and of dark pieces, one that is a little less bright is brought to the bright ones, within
    0.5 dB in the middle of the spectrum, whatever its level; without bands to none."""
    config, tilt = patches_config(), torch.linspace(-1, 1, 257)
    corpus = torch.stack([-20 + 9 * sign * tilt for sign in (-1, 1) * 20]).unsqueeze(1).expand(-1, 8, -1) / DB
    envelope = Envelope(config.featurizer, 16)
    envelope.fit(envelope.power(corpus))
    fit_typical(envelope, envelope.power(corpus), 0)
    piece = (-30 + 6 * tilt).expand(1, 8, -1) / DB
    gain = DB * to_typical(envelope, piece)[0]
    apart = gain - gain.mean() - 3 * tilt
    assert apart[40:220].std() < 0.5
    assert not to_typical(Envelope(config.featurizer, 0), piece).any()
