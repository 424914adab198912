"""The rollout: from prompts to sound."""

import numpy as np
import pytest
import soundfile
import torch

from config import FeaturizerConfig
from featurizer import DB, Featurizer
from phase import CROSSFADE

CPU = torch.device("cpu")


def test_true_latents_reconstruct_the_sound(predictor, corpus):
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


def test_n_frames_must_be_positive(predictor):
    with pytest.raises(ValueError):
        predictor.continue_(torch.zeros(1, 8000), 0)


def test_music_moves(predictor, corpus):
    """The continuation is no drone: its spectral flux is at least half of the recording's."""
    prompt = torch.from_numpy(corpus.recordings[0].read(20000, 16000))[None]
    out = predictor.continue_(prompt, 500)[:, 16000:]
    featurizer = Featurizer(FeaturizerConfig(8000, 512, 128))
    basis = predictor.model.basis

    def flux(waveform):
        return float(basis.project(featurizer.log_magnitude(waveform))[..., :8].diff(dim=1).norm(dim=-1).mean())

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
