"""Tempo, grid and pulse, on chorales played at tempos that are known."""

import numpy as np
import pytest

import rhythm
from demo.chorales import SAMPLE_RATE, chorales, play


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
