"""The LSTM, its training steps and its rollout."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import soundfile
import torch

import drift
from config import PRESETS, FeaturizerConfig, ModelConfig
from conftest import tiny_config
from dataset import split, spread_chunks
from device import rollout_linear
from featurizer import DB, Featurizer
from model_definition import build_model
from phase import CROSSFADE
from predictor import Predictor
from rollout import step
from sampling import gumbel
from trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trainer(corpus):
    """A tiny model of real music, 200 steps old."""
    torch.set_num_threads(1)
    trainer = Trainer(tiny_config(), split(corpus, 0.1)[0], corpus.level, CPU)
    trainer.fit()
    for _ in range(200):
        trainer.train_step()
    return trainer


@pytest.fixture(scope="module")
def predictor(trainer):
    return Predictor.from_state(trainer.config, trainer.state())


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


def test_true_codes_reconstruct_the_sound(predictor, corpus):
    """Codec only: the spectrum is nearer to the truth than that of another place, the prompt is kept."""
    waveform = torch.from_numpy(corpus.recordings[0].read(20000, 32000))[None]
    other = torch.from_numpy(corpus.recordings[0].read(90000, 32000))[None]
    featurizer = Featurizer(FeaturizerConfig(8000, 512, 128))
    errors = {}
    for codec in (False, True):
        again = predictor.reconstruct(waveform, 8000, codec)
        assert 32000 - (512 + 5 * 128) <= again.shape[1] <= 32000
        torch.testing.assert_close(again[:, : 8000 - CROSSFADE], waveform[:, : 8000 - CROSSFADE])

        def distance(a, b, stop=again.shape[1]):
            a, b = (featurizer.log_magnitude(x[:, 8000:stop]).clamp(min=-60 / DB) for x in (a, b))
            return float((a - b).square().mean().sqrt()) * DB

        errors[codec] = distance(again, waveform)
        assert errors[codec] < 0.8 * distance(other, waveform)
    assert errors[False] < errors[True]


def without_noise(model):
    model = copy.deepcopy(model)
    model.config = dataclasses.replace(model.config, input_noise=0.0)
    return model


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


@pytest.mark.parametrize("n_prompt", [1, 100, 512, 5000, 5001])
def test_continuation_starts_with_the_prompt(predictor, corpus, n_prompt):
    """Any prompt length: the prompt to the sample but for the crossfade, then exactly N hops."""
    from phase import CROSSFADE

    prompt = torch.from_numpy(corpus.recordings[0].read(20000, n_prompt))[None]
    out = predictor.continue_(prompt, 7)
    assert out.shape == (1, n_prompt + 7 * 128)
    kept = max(0, n_prompt - CROSSFADE)
    assert torch.equal(out[:, :kept], prompt[:, :kept])
    assert torch.isfinite(out).all()


def test_same_seed_same_samples(predictor, corpus):
    prompt = torch.from_numpy(corpus.recordings[0].read(20000, 8000))[None]
    one, again, other = (predictor.continue_(prompt, 300, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_blocks_join_without_a_click(predictor, corpus, monkeypatch):
    """A rollout in blocks of 16 frames has no larger steps at its joins than elsewhere."""
    import predictor as module

    prompt = torch.from_numpy(corpus.recordings[0].read(20000, 8000))[None]
    monkeypatch.setattr(module, "BLOCK", 16)
    out = predictor.continue_(prompt, 320)[0]
    steps = out.diff().abs()
    joins = 8000 + 16 * 128 * torch.arange(20)
    assert steps[joins - 1].mean() < 2 * steps[8000:].mean()
    assert steps[joins - 1].max() <= steps[8000:].max()


def test_batch_members_are_whole_continuations(predictor, corpus):
    prompts = torch.stack([torch.from_numpy(corpus.recordings[0].read(s, 8000)) for s in (8000, 30000)])
    out = predictor.continue_(prompts, 50)
    assert out.shape == (2, 8000 + 50 * 128)
    assert not torch.equal(out[0, 8000:], out[1, 8000:])


def test_the_decoder_has_the_level_of_the_recordings(trainer, corpus):
    """True codes sound as loud as the recording, within 1 dB; measuring it leaves the training as it was."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    random = torch.get_rng_state()
    trainer.calibrate()
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())
    assert torch.equal(torch.get_rng_state(), random)
    predictor = Predictor.from_state(trainer.config, trainer.state())
    pieces = spread_chunks(trainer.segments, 48, 32000, 1)
    waveform = torch.stack([torch.from_numpy(piece) for piece in pieces])
    again = predictor.reconstruct(waveform, 8000)
    ratio = again[:, 8000:].square().mean(-1) / waveform[:, 8000 : again.shape[1]].square().mean(-1)
    assert abs(10 * float(ratio.median().log10())) < 1


def test_the_onset_bias_is_repeatable_and_bounded(trainer):
    """The same weights give the same bias; rollouts in which nothing begins push it to its upper end, and those that
    are far too loud to its lower one."""
    trainer.calibrate()
    bias = float(trainer.model.onset_bias)
    trainer.calibrate()
    assert float(trainer.model.onset_bias) == bias
    n_bins = trainer.config.featurizer.n_bins
    prompt, codes = torch.zeros(3, 8000), torch.zeros(3, 300, trainer.config.model.n_books, dtype=torch.int64)

    def bias_of(level: float) -> float:
        class Fixed:
            model = trainer.model

            def frames(self, prompt, seed, true_codes=None):
                for t in itertools.count():  # true: a rise in every thirtieth frame; rollouts: always the same
                    yield torch.full((len(prompt), n_bins), level if true_codes is None else -2.0 + (t % 30 == 0))

        return trainer._onset_bias(Fixed(), prompt, codes)

    assert bias_of(-3.0) == 1.5
    assert bias_of(2.0) == -0.5
    assert trainer.model.onset_bias.shape == ()


def test_sequences_hear_frames_that_the_model_drew(trainer, frames):
    """Every other sequence, from its second frame on, some frames and not all; what stands there belongs together."""
    model = trainer.model
    torch.manual_seed(0)
    codes, vector, detail = model.codec.analyze(torch.from_numpy(np.tile(frames[:8], (4, 1, 1))))
    *mixed, drawn = model._with_drawn(codes, vector, detail, model._embed_reference(None, 32), None)
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
    with torch.autocast("cpu", torch.bfloat16):
        first, state, _ = model.loss(torch.from_numpy(frames[:4]))  # without a reference, and with one
        second, _, _ = model.loss(torch.from_numpy(frames[:4]), state)
    (first + second).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@torch.inference_mode()
def test_long_holds_end(predictor, corpus):
    """On one first code for ten times the usual, something begins as if the bias were 18 nats; up to the usual,
    nothing is changed; the count starts anew with another code."""
    model = without_noise(predictor.model)
    model.stay.bias.fill_(1e6)  # what goes on repeats its codes
    model.onset_width.fill_(-9.0)  # what begins does not care where the last frame was
    model.codec.softest.fill_(-100.0)  # the guard of the level would change codes too
    model.codec.loudest.fill_(100.0)
    model.usual_hold.fill_(20.0)
    featurizer, heard = predictor._hear(torch.from_numpy(corpus.recordings[0].read(20000, 16000))[None])
    state = model.start(featurizer.join(featurizer.stft(heard)))

    def codes(held: float, bias: float = 0.0) -> torch.Tensor:
        model.onset_bias.fill_(bias)
        after = model.next_frame(state._replace(held=torch.full((1, 1), held)), temperature=0.0)[1]
        assert float(after.held) == (held + 1 if after.codes[0, 0] == state.codes[0, 0] else 0)
        return after.codes

    assert torch.equal(codes(20.0), state.codes)
    assert torch.equal(codes(200.0), codes(0.0, bias=18.0))
    assert not torch.equal(codes(200.0), state.codes)


@torch.inference_mode()
def test_a_rollout_stays_between_the_softest_and_the_loudest(predictor, corpus):
    """From a prompt 20 dB too loud, drawn far too wildly: within 0.01 neper of the corpus' range."""
    model = predictor.model
    featurizer, heard = predictor._hear(10 * torch.from_numpy(corpus.recordings[0].read(20000, 16000))[None])
    state = model.start(featurizer.join(featurizer.stft(heard)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        frame, state = model.next_frame(state, temperature=3.0, generator=generator)
        level = float(model.codec.level(frame - model.codec.balance))
        assert model.codec.softest - 0.01 < level < model.codec.loudest + 0.01


@torch.inference_mode()
def test_a_rollout_goes_no_farther_from_its_prompt_than_recordings(predictor, corpus):
    """Held to the bounds measured on recordings, the last two of eight seconds are nearer to the prompt than
    without any; held to none at all, the level and each component stay within half of what they were without."""
    model = copy.deepcopy(predictor.model)
    assert model.drift.isfinite().all() and (model.drift < 1e5).all() and 0 < model.level_drift.max() < 3
    held = dataclasses.replace(predictor, model=model)
    prompt = torch.stack([torch.from_numpy(corpus.recordings[0].read(i * 20000, 16000)) for i in range(8)])
    n_frames = round(8 * held.config.featurizer.frame_rate)

    def away() -> float:
        frames = list(itertools.islice(held.frames(prompt, seed=1), n_frames))
        last = model.codec.project(torch.stack(frames[-n_frames // 4 :], 1)).mean(1)
        featurizer, heard = held._hear(prompt)
        return float((last - model.codec.project(featurizer.log_magnitude(heard)).mean(1)).norm(dim=-1).mean())

    usual = away()
    model.drift.fill_(1e6)
    model.level_drift.fill_(1e6)
    free = away()
    model.drift.zero_()
    assert away() < 0.5 * free
    assert usual < free


@torch.inference_mode()
def test_first_codes_far_from_the_prompt_are_not_drawn(predictor, corpus):
    """Of 24 long rollouts none has a first code that is farther from its prompt than nine in ten of recordings are, but
    for the prompt's own; without the bound some have."""
    model = copy.deepcopy(predictor.model)
    held = dataclasses.replace(predictor, model=model)
    prompt = torch.stack([torch.from_numpy(corpus.recordings[0].read(i * 9000, 9000)) for i in range(24)])
    featurizer, heard = held._hear(prompt)
    frames = featurizer.join(featurizer.stft(heard))

    def n_far() -> int:
        state, generator, n = model.start(frames), torch.Generator().manual_seed(0), 0
        far = drift.distance(model.first_centres(), state.drift.origin.unsqueeze(1), model.drift) > usual
        far = far.scatter(1, model.codec.encode(frames.chunk(2, -1)[0])[..., 0], False)
        for _ in range(150):
            state = model.next_frame(state, generator=generator)[1]
            n += int(far.gather(1, state.codes[:, :1]).sum())
        return n

    usual = float(model.leap)
    assert 0.5 < usual < 5
    model.codec.softest.fill_(-100.0)  # the guard of the level would change codes too
    model.codec.loudest.fill_(100.0)
    assert n_far() == 0
    model.leap.fill_(1e6)
    assert n_far() > 0


@torch.inference_mode()
def test_only_what_it_made_is_marked_as_drawn(predictor, corpus):
    """The first frame of a rollout follows a recording; those after it follow frames of its own."""
    model = copy.deepcopy(predictor.model)
    featurizer, heard = predictor._hear(torch.from_numpy(corpus.recordings[0].read(20000, 16000))[None])
    start = model.start(featurizer.join(featurizer.stft(heard)))

    def rollout(mark: float) -> list:
        model.drawn.fill_(mark)
        state, frames = start._replace(layout=model.lay_out()), []
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            frame, state = model.next_frame(state, generator=generator)
            frames.append(frame)
        return frames

    plain, marked = rollout(0.0), rollout(30.0)
    assert torch.equal(plain[0], marked[0]) and not torch.equal(plain[1], marked[1])


def test_n_frames_must_be_positive(predictor):
    with pytest.raises(ValueError):
        predictor.continue_(torch.zeros(1, 8000), 0)


def test_music_moves(predictor, corpus):
    """The continuation is no drone: its spectral flux is at least half of the recording's."""
    prompt = torch.from_numpy(corpus.recordings[0].read(20000, 16000))[None]
    out = predictor.continue_(prompt, 500)[:, 16000:]
    featurizer = Featurizer(FeaturizerConfig(8000, 512, 128))
    codec = predictor.model.codec

    def flux(waveform):
        return float(codec.project(featurizer.log_magnitude(waveform))[..., :8].diff(dim=1).norm(dim=-1).mean())

    real = torch.from_numpy(corpus.recordings[0].read(20000, 64000))[None]
    assert flux(out) > 0.5 * flux(real)


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


def test_audio_prompt_at_the_corpus_level(predictor):
    quiet = 1e-3 * torch.randn(1, 8000)
    matched = predictor.match_level(quiet)
    assert float(matched.square().mean().sqrt()) == pytest.approx(predictor.level, rel=1e-4)


def test_written_audio_is_what_was_generated(tmp_path, predictor, corpus):
    """PCM_24 keeps the float waveform within half a step."""
    prompt = torch.from_numpy(corpus.recordings[0].read(20000, 8000))[None]
    out = predictor.continue_(prompt, 20)[0].clamp(-0.99, 0.99)
    soundfile.write(tmp_path / "x.wav", out.numpy(), 8000, subtype="PCM_24")
    again = soundfile.read(tmp_path / "x.wav", dtype="float32")[0]
    assert np.abs(again - out.numpy()).max() <= 2**-22
