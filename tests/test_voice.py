"""The corpus' voice: room and envelope of synthesized prompts."""

import numpy as np
import pytest
import soundfile
import torch

import voice
from config import FeaturizerConfig
from conftest import PROMPT, run
from featurizer import DB, Featurizer
from predictor import Predictor
from prompt import load_prompt
from spectral.envelope import Envelope
from spectral.typical import fit_typical, to_typical

RATE = 22050


@pytest.fixture(scope="module")
def featurizer():
    return Featurizer(FeaturizerConfig())


@pytest.fixture(scope="module")
def played():
    """Six seconds of the bundled score, dry."""
    return torch.from_numpy(load_prompt(PROMPT, RATE)[: 6 * RATE])


@pytest.fixture(scope="module")
def sung(tmp_path_factory):
    """The same by a choir: a piano's treble is silent, and has no envelope."""
    path = tmp_path_factory.mktemp("choir") / "choir.musicxml"
    path.write_text(PROMPT.read_text().replace("<midi-program>1<", "<midi-program>53<"))
    return torch.from_numpy(load_prompt(path, RATE)[: 6 * RATE])


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run)


def bursts(seconds: float) -> torch.Tensor:
    """White noise that dies away by 60 dB in that time, eight times."""
    n = round(1.5 * RATE)
    noise = np.random.default_rng(1).standard_normal((8, n)) * 10 ** (-3 * np.arange(n) / (seconds * RATE))
    return torch.from_numpy(noise.reshape(-1).astype(np.float32))


# -- the room ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.6, 1.2])
def test_decay_of_noise_that_dies_away_is_known(featurizer, seconds):
    """60 dB in the reverberation time; noise alone makes single slopes uncertain by a few dB/s."""
    slopes = voice.decay_slopes(bursts(seconds), featurizer)
    assert np.median(slopes) == pytest.approx(-60 / seconds, rel=0.1)
    assert voice.fastest(slopes) < np.median(slopes)


def test_a_room_has_its_reverberation_time(featurizer):
    """Energy left after t seconds falls by 60 dB in that time (Schroeder's backward integral), below the treble."""
    click = torch.zeros(3 * RATE)
    click[0] = 1
    tail = voice.reverberate(click, RATE, 1.5).numpy()[1:]
    low = tail[: len(tail) // 8 * 8].reshape(-1, 8).mean(-1)  # below 1.4 kHz
    left = 10 * np.log10(np.cumsum(np.square(low, dtype=np.float64)[::-1])[::-1])
    t = np.arange(len(low)) * 8 / RATE
    span = (t > 0.1) & (t < 0.8)
    assert np.polyfit(t[span], left[span], 1)[0] == pytest.approx(-60 / 1.5, rel=0.1)
    assert np.square(tail, dtype=np.float64).sum() == pytest.approx(1, rel=1e-3)  # as loud as the sound itself


def test_the_room_is_the_shortest_that_is_slow_enough(featurizer, played):
    dry = voice.fastest(voice.decay_slopes(played, featurizer))
    assert voice.fit_room(played, featurizer, dry - 1) == 0
    assert voice.fit_room(played, featurizer, -1.0) == voice.ROOMS[-1]
    found = {s: voice.fastest(voice.decay_slopes(voice.reverberate(played, RATE, s), featurizer)) for s in voice.ROOMS}
    wanted = found[0.75] - 0.01
    assert voice.fit_room(played, featurizer, wanted) == min(s for s, value in found.items() if value >= wanted)


def test_silence_and_clicks_have_no_decay(featurizer):
    assert voice.fastest(voice.decay_slopes(torch.zeros(1000), featurizer)) is None
    assert voice.fastest(voice.decay_slopes(torch.zeros(RATE), featurizer)) is None
    assert voice.fit_room(torch.zeros(RATE), featurizer, -40.0) == 0


def test_a_stereo_room_is_wide_and_keeps_time(played):
    both = voice.reverberate(torch.stack([played, played]), RATE, 1.0)
    assert both.shape == (2, len(played)) and both.dtype == torch.float32
    rest = (both - played).numpy()  # the reverberation alone
    assert abs(np.corrcoef(rest)[0, 1]) < 0.5
    start = int(played.abs().gt(0).nonzero()[0])
    assert torch.allclose(both[:, start : start + 200], played[start : start + 200].expand(2, -1), atol=1e-5)


# -- the envelope ------------------------------------------------------------------------------


def test_a_flat_equalizer_changes_nothing(played):
    assert torch.allclose(voice.equalize(played, torch.zeros(1025)), played, atol=1e-5)


def test_an_equalizer_raises_what_it_says():
    gain, t = torch.zeros(1025), torch.arange(RATE) / RATE
    gain[300:] = 6 / DB  # from 3.2 kHz on
    for hertz, raised in ((1000.0, 0.0), (6000.0, 6.0)):
        tone = torch.sin(2 * torch.pi * hertz * t)
        out = voice.equalize(torch.stack([tone, tone / 2]), gain)
        middle = out[:, 5000:-5000].square().mean(-1).sqrt() / tone[5000:-5000].square().mean().sqrt()
        assert torch.allclose(20 * middle.log10(), torch.tensor([raised, raised - 6.02]), atol=0.05)


def fit(envelope, power):
    envelope.fit(power)
    fit_typical(envelope, power, 0)


def test_the_nearest_typical_envelope_is_reached(featurizer, sung):
    """Of a corpus of the prompt itself, tilted in one way or in the other, the nearer one: within 2 dB up to 8 kHz (a
    tilt that is linear in Hz is curved in the bands), and by at most MAX_GAIN_DB."""
    frames = featurizer.log_magnitude(sung)[: 8 * (len(sung) // 512 // 8)]
    tilt = torch.linspace(3, -9, 1025) / DB
    corpus = torch.stack([frames + tilt, frames + tilt, frames - 3 * tilt])
    envelope = Envelope(featurizer.config, 16)
    fit(envelope, envelope.power(corpus))
    gain = voice.fit_equalizer(sung, featurizer, envelope) * DB
    shape, wanted = gain - gain.mean(), tilt * DB - (tilt * DB).mean()
    assert (shape - wanted)[20:760].abs().max() < 2
    fit(envelope, envelope.power(frames[None] + 20 * tilt))
    assert voice.fit_equalizer(sung, featurizer, envelope).abs().max() * DB <= voice.MAX_GAIN_DB + 1e-4


def test_what_is_alike_in_all_bins_is_not_the_envelopes(featurizer, played):
    """A corpus that is 20 dB louder everywhere: no gain at all."""
    envelope = Envelope(featurizer.config, 16)
    fit(envelope, envelope.power(featurizer.log_magnitude(played)[None] + 20 / DB))
    assert voice.fit_equalizer(played, featurizer, envelope).abs().max() * DB < 0.01


# -- prompts -----------------------------------------------------------------------------------


def distance(predictor, waveform) -> float:
    """To the nearest typical envelope, dB (root of the mean square)."""
    frames = Featurizer(predictor.config.featurizer).log_magnitude(waveform)
    return float(to_typical(predictor.model.envelope, frames[None]).square().mean().sqrt()) * DB


def test_a_foreign_prompt_comes_nearer_and_keeps_its_level(predictor):
    """Level as match_level gives it, to 0.01 dB; as many samples; a recording of the corpus stays near."""
    rate = predictor.config.featurizer.sample_rate
    prompt = torch.from_numpy(load_prompt(PROMPT, rate)[: 4 * rate])
    thin = torch.nn.functional.conv1d(prompt.view(1, 1, -1), torch.tensor([[[1.0, -0.95]]]), padding=1)[0, 0, :-1]
    plain, voiced = predictor.match_level(thin), predictor.in_voice(thin)
    assert voiced.shape == plain.shape and voiced.dtype == torch.float32
    assert 20 * torch.log10(voiced.square().mean().sqrt() / predictor.level).abs() < 0.01
    assert distance(predictor, voiced) < 0.8 * distance(predictor, plain)
    assert torch.equal(voiced, predictor.in_voice(thin))


def test_a_prompt_shorter_than_a_frame_is_voiced(predictor):
    assert predictor.in_voice(0.1 * torch.ones(100)).shape == (100,)


def test_training_knows_how_fast_the_corpus_dies_away(predictor):
    assert -200 < predictor.decay < -5


def test_recordings_stay_as_they_are_and_scores_as_asked(tiny_run, predictor, tone, tmp_path):
    """To the sample: a recording at the corpus' level, a score as it is played or in the corpus' voice."""
    rate = predictor.config.featurizer.sample_rate
    options = ["--frames", 4, "--bits", 32]
    expected = {
        "tone-next": predictor.match_level(torch.from_numpy(load_prompt(tone, rate))),
        "prompt-next": predictor.in_voice(torch.from_numpy(load_prompt(PROMPT, rate))),
        "plain": predictor.match_level(torch.from_numpy(load_prompt(PROMPT, rate))),
    }
    result = run("predict.py", tiny_run, tone, PROMPT, *options, "-o", f"{tmp_path}/")
    assert result.returncode == 0, result.stderr
    result = run("predict.py", tiny_run, PROMPT, *options, "-o", tmp_path / "plain.wav", "--voice", "plain")
    assert result.returncode == 0, result.stderr
    for name, waveform in expected.items():
        written, _ = soundfile.read(tmp_path / f"{name}.wav", dtype="float32")
        n = len(waveform) - 300  # the crossfade is the model's
        ratio = written[:n] @ waveform[:n].numpy() / np.square(waveform[:n].numpy()).sum()  # a mix may be turned down
        assert np.allclose(written[:n], ratio * waveform[:n].numpy(), atol=1e-5) and 0.05 < ratio <= 1.0001


def test_another_voice_is_refused(tiny_run, tmp_path):
    result = run("predict.py", tiny_run, PROMPT, "--frames", 4, "--voice", "mine", cwd=tmp_path)
    assert result.returncode == 2 and "--voice" in result.stderr and "Traceback" not in result.stderr
