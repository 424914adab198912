"""Tempo, grid and pulse, on chorales played at tempos that are known."""

import numpy as np
import pytest
import soundfile
import torch

import rhythm
from audio_file import AudioFormat
from demo.chorales import SAMPLE_RATE, chorales, play
from meter import Meter
from phase import CROSSFADE
from predictor import Predictor
from prompt import Prompt
from takes import Take, write_flac, write_takes
from test_audio_file import chunks


@pytest.fixture(scope="module")
def pieces():
    """``(quarters a minute, waveform of 24 s)`` by piano and organ."""
    paths, found = iter(chorales()), []
    for tempo, program in zip((66, 84, 100, 116), (0, 19, 0, 19), strict=True):
        waveform = None
        while waveform is None or len(waveform) < 24 * SAMPLE_RATE:
            waveform = play(next(paths), tempo, program)
        found.append((tempo, waveform[: 24 * SAMPLE_RATE]))
    return found


def test_tempo_and_grid_are_those_of_the_score(pieces):
    """Tempo within 2 %; onsets lie on the grid of eighths, and on no other one."""
    for tempo, waveform in pieces:
        assert rhythm.tempo(waveform, SAMPLE_RATE) == pytest.approx(tempo, rel=0.02)
        assert rhythm.grid_resultant(waveform, SAMPLE_RATE, tempo) > 0.8
        assert rhythm.grid_resultant(waveform, SAMPLE_RATE, 1.09 * tempo) < 0.35
        assert rhythm.longest_hold(waveform, SAMPLE_RATE) < 4


def test_noise_and_silence_have_no_grid():
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE).astype(np.float32)
    resultants = [rhythm.grid_resultant(noise, SAMPLE_RATE, tempo) for tempo in range(60, 120, 5)]
    assert not np.nanmean(resultants) > 0.4
    assert rhythm.other_tempo(noise, SAMPLE_RATE, 90) is None
    silence = np.zeros(20 * SAMPLE_RATE, np.float32)
    assert np.isnan(rhythm.tempo(silence, SAMPLE_RATE)) and np.isnan(rhythm.grid_resultant(silence, SAMPLE_RATE, 90))
    assert rhythm.longest_hold(silence, SAMPLE_RATE) == 20
    assert rhythm.other_tempo(silence, SAMPLE_RATE, 90) is None
    assert not rhythm.track_pulse(silence, SAMPLE_RATE).z.any()


def test_another_tempo_is_told_only_where_it_is_clear(pieces):
    for tempo, waveform in pieces:
        assert rhythm.other_tempo(waveform, SAMPLE_RATE, tempo) is None
        assert rhythm.other_tempo(waveform, SAMPLE_RATE, 2 * tempo) is None  # twice as many are the same beat
        assert rhythm.other_tempo(waveform, SAMPLE_RATE, 1.15 * tempo) == pytest.approx(tempo, rel=0.02)
        assert rhythm.other_tempo(waveform[: 3 * SAMPLE_RATE], SAMPLE_RATE, 1.15 * tempo) is None


def test_tempo_ratio_is_within_an_octave():
    assert rhythm.tempo_ratio(120, 60) == 1 and rhythm.tempo_ratio(63, 120) == pytest.approx(1.05)


def test_the_pulse_goes_on_beyond_the_prompt(pieces):
    """Found in the first 12 s, it is at the beat of what follows 8 to 10 s later: within a tenth of a beat."""
    for tempo, waveform in pieces:
        track = rhythm.track_pulse(waveform, SAMPLE_RATE)
        assert np.mean(np.abs(60 * track.frequency / tempo - 1) < 0.02) > 0.9
        times = np.arange(20, 22, 0.05)
        true = track.at(times)
        assert np.abs(true).mean(0).min() > 0.25
        for told in (None, tempo, 2 * tempo, tempo / 2):
            last = rhythm.last_pulse(waveform[: 12 * SAMPLE_RATE], SAMPLE_RATE, told)
            assert 60 * last.frequency[0] == pytest.approx(tempo, rel=0.01)
            ahead = last.at(times)
            assert np.abs(np.angle((ahead * true.conj()).mean(0)) / (2 * np.pi)).max() < 0.12


def test_a_prompt_too_short_for_a_beat_has_no_pulse(pieces):
    _, waveform = pieces[0]
    assert not rhythm.last_pulse(waveform[:SAMPLE_RATE], SAMPLE_RATE).z.any()


def test_blocks_make_no_difference(pieces, monkeypatch):
    _, waveform = pieces[0]
    whole = rhythm.onset_strength(waveform, SAMPLE_RATE)
    monkeypatch.setattr(rhythm, "BLOCK", 100)
    np.testing.assert_allclose(rhythm.onset_strength(waveform, SAMPLE_RATE), whole, atol=1e-4)


# -- what is made of it ------------------------------------------------------------------------


def clicks(tempo: float, seconds: float, sample_rate: int) -> np.ndarray:
    """Bursts of noise on the eighths of a tempo."""
    waveform, random = np.zeros(round(seconds * sample_rate), np.float32), np.random.default_rng(0)
    for at in np.arange(0, seconds - 0.1, 30 / tempo):
        first, n = round(at * sample_rate), sample_rate // 40
        waveform[first : first + n] = 0.2 * random.standard_normal(n)
    return waveform


@pytest.fixture(scope="module")
def predictor(tiny_run):
    torch.set_num_threads(1)
    return Predictor.load(tiny_run)


def test_a_rollout_goes_on_with_the_pulse_of_its_prompt(predictor, monkeypatch):
    """The coefficients in the last frame, as those of training are taken, and their turn from frame to frame; the model
    hears them."""
    framing = predictor.config.featurizer
    prompt = torch.from_numpy(clicks(90, 12, framing.sample_rate))
    z, turn = rhythm.prompt_pulse(prompt.numpy(), framing)
    assert np.angle(turn)[0] == pytest.approx(
        [2 * np.pi * k * 1.5 * 128 / framing.sample_rate for k in (1, 2)], rel=5e-3
    )
    assert np.abs(turn)[0] == pytest.approx([1, 1])
    track = rhythm.track_pulse(prompt.numpy(), framing.sample_rate)
    true = track.at(np.array([9.0]))[0]  # before its kernel sees the end
    frames_back = (12 - framing.n_fft / 2 / framing.sample_rate - 9.0) * framing.frame_rate
    turned = z[0] * turn[0] ** -frames_back
    assert abs(np.angle(turned[1] * true[1].conj())) < 0.5
    told, _ = rhythm.prompt_pulse(prompt.numpy(), framing, 60.0)
    _, turn = rhythm.prompt_pulse(prompt.numpy(), framing, 45.0)  # half of 90
    assert np.angle(turn)[0, 0] == pytest.approx(2 * np.pi * 1.5 * 128 / framing.sample_rate, rel=1e-4)
    assert abs(told[0, 1]) < 0.3 * abs(z[0, 1])  # no onsets there
    nothing = np.zeros((1, 2), np.complex64)
    for prompts in ([prompt, prompt[:8000]], prompt[None]):
        with_pulse = predictor.frames(prompts, temperature=0.0)
        with monkeypatch.context() as patch:
            patch.setattr("predictor.prompt_pulse", lambda *_: (nothing, nothing + 1))
            without = predictor.frames(prompts, temperature=0.0)
        changed = [not torch.equal(next(with_pulse), next(without)) for _ in range(20)]
        assert any(changed)


@pytest.mark.parametrize(("tempo", "claimed"), [(100.0, True), (50.0, True), (84.0, False)])
def test_files_claim_only_the_tempo_that_they_have(predictor, tmp_path, monkeypatch, tempo, claimed):
    """A continuation at another tempo than its prompt's 100 is no loop, and its file says no tempo."""
    rate, said = predictor.config.featurizer.sample_rate, []
    prompt = Prompt("beat", clicks(100, 4, rate), Meter(100, 4, 4))
    follows = np.concatenate([np.zeros(CROSSFADE, np.float32), clicks(tempo, 12, rate)])

    def stream(self, prompts, n_frames, tempos=None, **options):
        said.append(tempos)
        yield torch.from_numpy(follows)[None]

    monkeypatch.setattr(Predictor, "stream", stream)
    take = Take(tmp_path / "a.wav", prompt, torch.from_numpy(prompt.waveform), 12.0)
    (written,) = write_takes(predictor, [take], 1, 750, AudioFormat("wav", 16, rate, 1), loop=True)
    found = chunks(tmp_path / "a.wav")
    assert said == [[100]]
    assert (b"acid" in found) == claimed and (b"smpl" in found) == claimed and b"cue " in found
    assert written.other_tempo == (None if claimed else pytest.approx(tempo, rel=0.02))
    write_flac(written)
    comment = soundfile.SoundFile(tmp_path / "a.flac").comment
    assert ("quarters" in comment) == claimed and "continuation from 4.0" in comment
