"""The measures, on sounds and sets whose figures are known."""

import math

import numpy as np
import pytest

import metrics

RATE = 22050


def sine(hertz: float, seconds: float, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seconds: float, seed: int = 0, amplitude: float = 0.1) -> np.ndarray:
    return (amplitude * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def melody(seconds: float, seed: int) -> np.ndarray:
    """Struck tones of three partials, four a second, at random pitches."""
    random = np.random.default_rng(seed)
    waveform = np.zeros(int(seconds * RATE) + RATE)
    for start in np.arange(0, seconds, 0.25):
        hertz, t = 110 * 2 ** (random.integers(0, 36) / 12), np.arange(RATE // 2) / RATE
        tone = sum(np.sin(2 * np.pi * k * hertz * t) / k for k in (1, 2, 3)) * np.exp(-6 * t)
        waveform[int(start * RATE) :][: len(tone)] += 0.2 * tone
    return waveform[: int(seconds * RATE)].astype(np.float32)


# -- sets of embeddings --------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians():
    random = np.random.default_rng(0)
    a, b = random.standard_normal((40000, 3)), random.standard_normal((40000, 3)) * [1, 2, 3] + [1, 0, 2]
    # |m|^2 = 5; diagonal covariances: the sum of (s_a - s_b)^2 = 0 + 1 + 4
    assert metrics.frechet_distance(a, b) == pytest.approx(10, rel=0.02)
    turn = np.linalg.qr(random.standard_normal((3, 3)))[0]  # a rotation changes nothing
    assert metrics.frechet_distance(a @ turn, b @ turn) == pytest.approx(metrics.frechet_distance(a, b), rel=1e-9)
    assert metrics.frechet_distance(a, b) == pytest.approx(metrics.frechet_distance(b, a), rel=1e-9)


def test_frechet_distance_of_a_set_to_itself_even_with_fewer_items_than_dimensions():
    few = np.random.default_rng(0).standard_normal((20, 50))
    assert metrics.frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
    assert metrics.frechet_distance(few, few + 2) == pytest.approx(200, rel=1e-6)
    with pytest.raises(ValueError):
        metrics.frechet_distance(few, few[:1])


def test_classifier_knows_equal_from_different():
    random = np.random.default_rng(0)
    groups = np.repeat([f"recording {i}" for i in range(8)], 40)
    real, equal = random.standard_normal((2, 320, 10))
    assert metrics.classifier_accuracy(real, equal, groups, groups) == pytest.approx(0.5, abs=0.1)
    assert metrics.classifier_accuracy(real, equal + 1.5, groups, groups) > 0.95
    # What only tells recordings apart must not help: each has its own place, both kinds alike.
    places = np.repeat(random.standard_normal((8, 10)) * 20, 40, axis=0)
    assert metrics.classifier_accuracy(real + places, equal + places, groups, groups) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError):
        metrics.classifier_accuracy(real, equal, ["one"] * 320, ["one"] * 320)


def test_bootstrap_interval_of_a_mean():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = metrics.bootstrap_interval(lambda i: values[i].mean(), 400, 1000)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.01)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    # A statistic that grows with repeated items: centred, the interval holds it.
    low, high = metrics.bootstrap_interval(lambda i: -len(set(i)), 50, 200, centre=True)
    assert low < -50 < high and metrics.bootstrap_interval(lambda i: -len(set(i)), 50)[0] > -50


# -- spectra -----------------------------------------------------------------------------------


def test_figures_of_a_sine_and_of_noise():
    tone, white = metrics.spectral_figures(sine(440, 3), RATE), metrics.spectral_figures(noise(3), RATE)
    assert all(len(values) == 3 for values in tone.values())
    np.testing.assert_allclose(tone["loudness"], 20 * np.log10(0.5 / math.sqrt(2)), atol=0.01)
    np.testing.assert_allclose(white["loudness"], -20, atol=0.3)
    assert (tone["bandwidth"] < 20).all()  # Hz
    np.testing.assert_allclose(white["bandwidth"], RATE / 2 / math.sqrt(12), rtol=0.03)  # of a flat spectrum
    assert (tone["flatness"] < -60).all() and (white["flatness"] > -0.3).all()
    assert (tone["flux"] < 0.01).all() and (white["flux"] > 0.3).all()


def test_the_figures_hardly_depend_on_the_rate():
    low = (0.1 * np.random.default_rng(0).standard_normal(3 * 8000)).astype(np.float32)
    figures = metrics.spectral_figures(low, 8000)
    np.testing.assert_allclose(figures["bandwidth"], 4000 / math.sqrt(12), rtol=0.05)
    assert (figures["flatness"] > -0.5).all()


def test_silence_has_no_spectrum_and_is_no_noise():
    figures = metrics.spectral_figures(np.zeros(2 * RATE, np.float32), RATE)
    assert np.isnan(figures["flatness"]).all() and np.isnan(figures["bandwidth"]).all()
    assert (figures["loudness"] < -100).all() and (figures["flux"] == 0).all()
    assert metrics.share_outside(figures["flatness"], -100, 0) == 1


def test_onsets_are_counted():
    clicks = noise(10, amplitude=1e-3)
    for i in range(1, 10):
        clicks[i * RATE : i * RATE + 2000] += noise(1, i, 0.2)[:2000]
    moved = metrics.movement(clicks, RATE)
    assert moved["onsets"] == pytest.approx(0.9, abs=0.01)
    assert metrics.movement(sine(440, 10), RATE)["onsets"] == 0
    assert metrics.movement(melody(10, 0), RATE)["onsets"] == pytest.approx(4, abs=0.5)


def test_a_drone_is_alike_and_a_melody_is_not():
    drone, tune = metrics.movement(sine(440, 10), RATE), metrics.movement(melody(10, 0), RATE)
    assert drone["self_similarity"] > 0.999 > tune["self_similarity"]
    assert drone["second_correlation"].shape == (9,) and (drone["second_correlation"] > 0.999).all()
    assert (tune["second_correlation"] < 0.99).all()
    assert math.isnan(metrics.movement(sine(440, 2), RATE)["self_similarity"])
    # A second half of another sound: 1 within each half, less between them.
    halves = metrics.movement(np.concatenate([sine(440, 5), noise(5)]), RATE)["second_correlation"]
    assert halves[:4].min() > 0.999 and halves[4] < 0.5


def test_runs_and_shares():
    assert metrics.longest_run([0, 1, 1, 0, 1, 1, 1]) == 3
    assert metrics.longest_run([]) == 0 and metrics.longest_run([True]) == 1
    assert metrics.share_outside([1, 2, 3, math.nan], 2, 3) == 0.5
    assert math.isnan(metrics.share_outside([], 0, 1))


# -- copies ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training():
    """Unit frames of two minutes in which no pitch is twice at the same place, and their mean."""
    frames = metrics.copy_frames(melody(120, 1), RATE, 1)[0]
    return metrics.unit_frames(frames, frames.mean(0)), frames.mean(0)


def copied(waveform, training) -> float:
    frames, mean = training
    return metrics.longest_copy(metrics.unit_frames(metrics.copy_frames(waveform, RATE), mean), frames) / 10


@pytest.mark.parametrize("offset", [0, 0.03, 0.05, 0.0771])
def test_a_copied_stretch_is_found_at_any_offset(training, offset):
    start = int((40 + offset) * RATE)
    mixed = melody(10, 2)
    mixed[3 * RATE : 6 * RATE] = 0.3 * melody(120, 1)[start : start + 3 * RATE]  # another level
    assert copied(mixed, training) == pytest.approx(3, abs=0.3)


def test_what_is_not_copied_is_not_found(training):
    assert copied(melody(10, 2), training) <= 1
    assert copied(noise(10), training) <= 0.5
    assert copied(np.zeros(10 * RATE, np.float32), training) == 0


def test_one_missing_frame_is_forgiven_and_two_are_not():
    frames = np.eye(12, dtype=np.float32)
    clip = frames[2:10].copy()
    clip[3] = 0
    assert metrics.longest_copy(clip, frames, 0.9) == 8
    clip[4] = 0
    assert metrics.longest_copy(clip, frames, 0.9) == 3
    assert metrics.longest_copy(clip[:0], frames, 0.9) == 0
    assert metrics.longest_copy(frames[::-1], frames, 0.9) == 1  # backwards is no copy


# -- the join ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, -256])
def test_a_click_at_the_join_is_found(place):
    smooth = sine(440, 6)
    clicked = smooth.copy()
    clicked[3 * RATE + place :] += 0.3
    assert metrics.join_figures(smooth, 3 * RATE, RATE)["step"] <= 1.01
    # 0.3 over the sine's steepest rise, 2 pi 440 / 22050 * 0.5 = 0.063
    assert 4 < metrics.join_figures(clicked, 3 * RATE, RATE)["step"] < 6
    elsewhere = smooth.copy()
    elsewhere[3 * RATE + 500 :] += 0.3
    assert metrics.join_figures(elsewhere, 3 * RATE, RATE)["step"] <= 1.01


def test_a_change_of_level_at_the_join_is_measured():
    waveform = noise(6)
    waveform[3 * RATE :] *= 2
    assert metrics.join_figures(waveform, 3 * RATE, RATE)["level_step"] == pytest.approx(6.02, abs=0.2)


# -- notes -------------------------------------------------------------------------------------


def scale(steps, tonic: int) -> list[tuple]:
    return [(0.5 * i, 0.5, 60 + tonic + step, 0.8) for i, step in enumerate([*steps, 0, 7, 0])]


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", [0, 5, 11])
def test_the_key_of_a_scale(mode, tonic):
    notes = scale(metrics.SCALES[mode], tonic)
    assert metrics.key_of(metrics.pitch_classes(notes)) == (tonic, mode)
    figures = metrics.note_figures(notes, 5.0)
    assert figures["notes"] == 2 and figures["polyphony"] == pytest.approx(1) and figures["in_key"] == 1
    assert metrics.in_key_share([*notes, (5, 5, 60 + tonic + 6, 1)], (tonic, mode)) == pytest.approx(0.5)


def test_no_notes_have_no_key():
    figures = metrics.note_figures([], 5.0)
    assert figures["notes"] == 0 and figures["key"] is None and math.isnan(figures["in_key"])


def test_key_score_is_that_of_mirex():
    c = (0, "major")
    keys = {c: 1, (7, "major"): 0.5, (5, "major"): 0, (9, "minor"): 0.3, (0, "minor"): 0.2, (2, "minor"): 0}
    assert {key: metrics.key_score(key, c) for key in keys} == keys
    assert metrics.key_score((0, "major"), (9, "minor")) == 0.3
    assert metrics.key_score(None, c) == 0


def test_chords_and_how_long_they_last():
    """C major for 2 s, A minor for 1 s by two of its notes and a bass, nothing for 1 s."""
    notes = [(0, 2, p, 1) for p in (48, 64, 67)] + [(2, 1, p, 1) for p in (45, 60, 64)]
    assert metrics.chords(notes, 4.0) == [(0, 0)] * 8 + [(9, 1)] * 4 + [None] * 4
    assert metrics.chord_figures(notes, 4.0) == {"chord_changes": 0.5, "longest_chord": 2.0}
    assert metrics.chord_figures([], 4.0) == {"chord_changes": 0, "longest_chord": 4.0}
    figures = metrics.note_figures([*notes, (3, 1, 40, 1)], 4.0)
    assert figures["bass"] == pytest.approx(2 / 7) and math.isnan(metrics.note_figures([], 4.0)["bass"])
