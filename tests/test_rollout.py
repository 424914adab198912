"""The rollout, and what it is calibrated by."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import soundfile
import torch

import drift
import rollout
from calibration import onset_bias
from config import FeaturizerConfig
from conftest import without_noise
from dataset import spread_chunks
from featurizer import DB, Featurizer
from phase import CROSSFADE
from predictor import Predictor

CPU = torch.device("cpu")


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

            def frames(self, prompt, seed, true_codes=None, pulse=None):
                for t in itertools.count():  # true: a rise in every thirtieth frame; rollouts: always the same
                    yield torch.full((len(prompt), n_bins), level if true_codes is None else -2.0 + (t % 30 == 0))

        return onset_bias(Fixed(), prompt, codes, (torch.zeros(3, 2), torch.ones(3, 2)), seed=0)

    assert bias_of(-3.0) == 1.5
    assert bias_of(2.0) == -0.5
    assert trainer.model.onset_bias.shape == ()


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
        level = float(model.codec.level(frame - state.balance))
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


@torch.inference_mode()
def test_a_prompts_own_gain_is_what_the_codec_lacks_there(predictor, corpus):
    """Of a codec that is 2 dB too loud, GAIN_SHARE of these are taken away; near silence nothing is known."""
    model = copy.deepcopy(predictor.model)
    featurizer, heard = predictor._hear(torch.from_numpy(corpus.recordings[0].read(20000, 24000))[None])
    frames, balances = featurizer.join(featurizer.stft(heard)), []
    for _ in range(2):
        balances.append((model.start(frames).balance - model.codec.balance).item())
        model.codec.balance += 2 / DB
    assert balances[1] - balances[0] == pytest.approx(-rollout.GAIN_SHARE * 2 / DB, abs=1e-4)
    assert abs(balances[0]) <= rollout.GAIN_SHARE * rollout.MAX_GAIN
    silent = model.start(torch.cat([frames[:, :20], frames[:, :40] - 12], 1))
    assert silent.balance.item() == pytest.approx(model.codec.balance.item())
    assert model.start(frames[:, :1]).balance.item() == model.codec.balance.item()


@torch.inference_mode()
def test_after_a_rest_music_comes_back_without_a_burst(predictor, corpus):
    """From a prompt that ends in half a second of silence: the first quarter of a second is softer than the prompt,
    by 3 dB or more; the fifth to eighth second are as loud, within 6 dB."""
    prompt = torch.stack([torch.from_numpy(corpus.recordings[0].read(i * 24000, 16000)) for i in range(4)])
    prompt = predictor.match_level(prompt)
    silent = prompt * (torch.arange(16000) < 12000)
    n_frames = round(8 * predictor.config.featurizer.frame_rate)
    new = predictor.continue_(silent, n_frames, seed=2)[:, 16000:]
    usual = prompt[:, :12000].square().mean()
    first, later = new[:, :2000].square().mean(), new[:, 32000:].square().mean()
    assert 10 * torch.log10(first / usual) < -3
    assert abs(10 * torch.log10(later / usual)) < 6
