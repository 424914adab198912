"""What bench.sound judges by: harmony, shares of what really follows, drift, movement, and the pictures of it.

On notes whose harmony is known, on chorales of Bach, and on recordings of them whose level and spectrum are changed by
known amounts.
"""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import metrics
from bench import drift_figures
from bench.harmony import Harmony, beside_real, chord_begins, harmony, harmony_row

RATE = 8000
PROMPT, SECONDS, TEMPO = 3.0, 20.0, 80.0  # a bar lasts 3 s
# The triads of C major, as metrics.chords names them.
DIATONIC = ((0, 0), (2, 1), (4, 1), (5, 0), (7, 0), (9, 1), (11, 2))


def played(chords, seconds: float) -> list[tuple]:
    """The notes of triads, one after another, each ``seconds`` long; None is a rest."""
    notes = []
    for i, chord in enumerate(chords):
        if chord is not None:
            root, kind = chord
            notes += [(i * seconds, seconds, 48 + root + step, 1.0) for step in metrics.TRIADS[kind]]
    return notes


def parted(notes, start: float = 0.0) -> tuple[list, list]:
    """Those of the prompt and those of what follows, from ``start`` on, each from its own beginning."""

    def cut(first: float, last: float) -> list:
        inside = [(max(o, first), min(o + d, last), p, a) for o, d, p, a in notes if o < last and o + d > first]
        return [(o - first, end - o, p, a) for o, end, p, a in inside]

    return cut(start, start + PROMPT), cut(start + PROMPT, start + PROMPT + SECONDS)


def row_of(many) -> dict:
    return harmony_row([parted(*one) for one in many], [TEMPO] * len(many), PROMPT, SECONDS)


# -- harmony -----------------------------------------------------------------------------------


def chorales() -> list[tuple]:
    """The notes of some of Bach's chorales at 80 quarters a minute, each from its beginning, and from 23 s on."""
    from music21 import corpus

    found = []
    for name in ("bwv269", "bwv153.1", "bwv347", "bwv10.7", "bwv101.7", "bwv102.7", "bwv103.6", "bwv104.6"):
        flat, quarter = corpus.parse(f"bach/{name}").flatten().notes, 60 / TEMPO
        notes = [
            (float(n.offset) * quarter, float(n.quarterLength) * quarter, p.midi, 1.0) for n in flat for p in n.pitches
        ]
        found += [(notes, 0.0), (notes, 23.0)][: 1 + (max(o + d for o, d, _, _ in notes) > 46)]
    return found


def test_loop_random_walk_and_harmony_are_told_apart():
    """Four and eight chords over and over; steps of up to a tone, major or minor by chance; chords by chance; Bach."""
    random = np.random.default_rng(0)
    n, steps = 31, (-2, -1, 1, 2)
    four, eight = ([DIATONIC[i] for i in loop] for loop in ((0, 4, 5, 3), (0, 4, 5, 2, 3, 0, 3, 4)))
    walks = [[(int(r) % 12, int(random.integers(2))) for r in np.cumsum(random.choice(steps, n))] for _ in range(20)]
    chance = [[(int(random.integers(12)), int(random.integers(3))) for _ in range(n)] for _ in range(20)]
    loops = [row_of([(played((loop * 8)[:n], 0.75), 0.0)]) for loop in (four, eight)]
    walk, chance = (row_of([(played(chords, 0.75), 0.0) for chords in many]) for many in (walks, chance))
    real = row_of(chorales())
    assert loops[0]["changes_repeated"] > 0.95 and loops[1]["changes_repeated"] > 0.75
    assert real["changes_repeated"] == pytest.approx(0.32, abs=0.1)
    assert walk["changes_repeated"] < 0.15 and chance["changes_repeated"] < 0.05
    # A chord alone tells less: those of a loop have nearly all sounded, and most of those of harmony have.
    assert [loop["chords_repeated"] for loop in loops] == pytest.approx([1, 1], abs=0.05)
    assert 0.65 < real["chords_repeated"] < 0.9 and chance["chords_repeated"] < 0.5
    # Four chords a bar; Bach has a new one with nearly every beat.
    assert loops[0]["chords_per_bar"] == pytest.approx(4, abs=0.2)
    assert 3.5 < real["chords_per_bar"] < 6


def test_chords_are_counted_by_the_bar_of_the_prompts_tempo():
    """A chord every 1.5 s, from 0 on: 13 begin within the 20 s that follow the prompt."""
    notes = parted(played([DIATONIC[i % 7] for i in range(16)], 1.5))
    for tempo, bars in ((80, 20 / 3), (60, 5.0), (120, 10.0)):
        counts = harmony(*notes, PROMPT, SECONDS, tempo)
        assert counts.bars == pytest.approx(bars) and counts.begun == counts.changes == 14
    row = harmony_row([notes, notes], [80.0, math.nan], PROMPT, SECONDS)
    assert row["chords_per_bar"] == pytest.approx(14 / (20 / 3)) and row["without_tempo"] == 1
    row = harmony_row([notes], [math.nan], PROMPT, SECONDS)
    assert row["without_tempo"] == 1 and all(math.isnan(row[name]) for name in row if name != "without_tempo")


def test_what_sounded_longer_ago_is_forgotten():
    """C, then G major until it comes back 12.5 s later: known at 80, where eight bars are 24 s, and new at 240."""
    notes = parted(played([(0, 0), (0, 0), *[(7, 0)] * 10, (0, 0), (0, 0), (0, 0)], 1.25))
    assert harmony(*notes, PROMPT, SECONDS, 80)[1:3] == (1, 1)
    assert harmony(*notes, PROMPT, SECONDS, 240)[1:3] == (1, 0)  # eight bars are 8 s
    # The change from C to G was made in the prompt, that to A minor never.
    notes = parted(played([(0, 0), (7, 0), (0, 0), (7, 0), (9, 1), (9, 1)], 1.25))
    assert harmony(*notes, PROMPT, SECONDS, 80) == Harmony(SECONDS / 3, 2, 1, 2, 1)


def test_a_rest_is_no_change():
    held = played([(0, 0), None, (0, 0), None, (0, 0), (5, 0), None, (5, 0)], 2.0)
    assert [chord for _, chord in chord_begins(metrics.chords(held, 16.0))] == [(0, 0), (5, 0)]
    assert harmony(*parted(held), PROMPT, SECONDS, TEMPO).begun == 1
    nothing = harmony_row([([], [])], [TEMPO], PROMPT, SECONDS)
    assert nothing["chords_per_bar"] == 0 and math.isnan(nothing["chords_repeated"])


def test_a_loop_of_sound_repeats_more_changes_than_the_recording(recordings):
    """Four seconds of a chorale played over and over, heard by basic-pitch, beside the chorale itself."""
    pytest.importorskip("basic_pitch", reason="basic-pitch is not installed (requirements-metrics-nodeps.txt)")
    pytest.importorskip("onnxruntime", reason="the transcription needs onnxruntime (requirements-metrics.txt)")
    import soundfile

    from transcription import Transcriber

    path = max(recordings.glob("*.flac"), key=lambda path: soundfile.info(path).frames)
    waveform, rate = soundfile.read(path, dtype="float32")
    whole = waveform[: round((PROMPT + SECONDS) * rate)]
    looped, hear, rows = np.tile(whole[: 4 * rate], 6)[: len(whole)], Transcriber(), []
    for sound in (whole, looped):
        notes = [hear.notes(part, rate) for part in np.split(sound, [round(PROMPT * rate)])]
        rows.append(harmony_row([notes], [TEMPO], PROMPT, SECONDS))
    real, loop = rows
    assert real["chords_per_bar"] > 2 and loop["chords_per_bar"] > 2
    assert loop["changes_repeated"] > 0.7 and loop["changes_repeated"] > real["changes_repeated"] + 0.2


def test_rows_beside_what_really_follows():
    real = {"notes": 8.0, "polyphony": 4.0, "movement_onsets": 2.0, "chords_per_bar": 5.0, "chords_repeated": 0.75}
    row = {"notes": 6.0, "polyphony": 5.0, "movement_onsets": 2.5, "chords_per_bar": math.nan, "chords_repeated": 0.8}
    assert beside_real(row, real) == pytest.approx(
        {"notes_share": 0.75, "voices_share": 1.25, "onsets_share": 1.25, "chords_repeated_more": 0.05}
    )
    own = beside_real(real, real)
    assert all(value == (0 if name.endswith("more") else 1) for name, value in own.items()) and len(own) == 5
    assert beside_real(row, {}) == {} and beside_real({"notes": 1.0}, {"notes": 0.0}) == {}


# -- drift -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def going_on(corpus):
    """Three seconds of a recording, over and over for 63 s: a prompt that nothing drifts away from."""
    return np.tile(corpus.recordings[0].read(5 * RATE, 3 * RATE), 21)


def drifts(waveform) -> list[tuple[float, float]]:
    return [drift_figures.drift_at(waveform, 3 * RATE, RATE, t) for t in drift_figures.TIMES]


def test_what_goes_on_as_its_prompt_has_not_drifted(going_on):
    np.testing.assert_allclose(drifts(going_on), 0, atol=0.3)


def test_a_fade_is_a_drift_of_the_level_alone(going_on):
    """A fifth of a dB each second: in the middle of the last three seconds up to 5, 20 and 60 s."""
    seconds = np.arange(len(going_on)) / RATE - 3
    levels, spectra = np.transpose(drifts(going_on * 10 ** (-0.2 * seconds.clip(min=0) / 20)))
    np.testing.assert_allclose(levels, [-0.7, -3.7, -11.7], atol=0.3)
    np.testing.assert_allclose(spectra, 0, atol=0.5)
    silent = going_on.copy()
    silent[30 * RATE :] = 0
    assert drifts(silent)[2][0] < -80 and drifts(silent)[1][0] == pytest.approx(0, abs=0.3)


def test_a_change_of_the_spectrum_is_measured_at_any_gain(going_on):
    """A hiss of the recording's power lifts the quiet bands, and takes nothing from the loud ones."""
    hiss = np.random.default_rng(0).standard_normal(len(going_on)).astype(np.float32) * going_on.std()
    hiss[: 13 * RATE] = 0
    plain, turned_up = (np.array(drifts(np.concatenate([going_on[: 3 * RATE], gain * (going_on + hiss)[3 * RATE :]])))
                        for gain in (1, 4))  # fmt: skip
    assert plain[0, 1] < 0.3 and plain[1, 1] > 3.5 and plain[2, 1] == pytest.approx(plain[1, 1], abs=0.3)
    np.testing.assert_allclose(turned_up[:, 1], plain[:, 1], atol=0.01)
    np.testing.assert_allclose(turned_up[:, 0] - plain[:, 0], 20 * math.log10(4), atol=0.01)
    assert plain[1, 0] == pytest.approx(3, abs=0.3)  # twice the power


def test_the_distance_of_spectra_leaves_out_their_gain():
    one = np.linspace(-60, 0, metrics.N_MELS)
    half = np.repeat([2.0, -2.0], metrics.N_MELS // 2)
    assert drift_figures.spectral_distance(one, one + 7) == pytest.approx(0, abs=1e-9)
    assert drift_figures.spectral_distance(one + half, one + 7) == pytest.approx(2)


def test_the_row_is_of_medians_and_of_those_that_last(going_on):
    """Two rollouts of 63 s, one 6 dB louder and one 12 dB softer, and one of 30 s that is as its prompt."""
    louder, softer, short = going_on.copy(), going_on.copy(), going_on[: 33 * RATE]
    louder[3 * RATE :] *= 2
    softer[3 * RATE :] /= 4
    row = drift_figures.drift_row([louder, softer, short], 3 * RATE, RATE)
    assert [row[f"drift_n_{t}"] for t in (5, 20, 60)] == [3, 3, 2]
    assert row["drift_level_20"] == pytest.approx(0, abs=0.3)
    assert row["drift_off_20"] == pytest.approx(6.02, abs=0.3)
    assert row["drift_level_60"] == pytest.approx(-3.01, abs=0.3)  # between the two
    assert row["drift_off_60"] == pytest.approx(9.03, abs=0.3)
    assert row["drift_softest_60"] == pytest.approx(-12.04, abs=0.3)
    row = drift_figures.drift_row([short], 3 * RATE, RATE)
    assert row["drift_n_60"] == 0 and math.isnan(row["drift_level_60"]) and math.isnan(row["drift_spectrum_60"])


# -- movement, prompts, pictures ---------------------------------------------------------------


def test_movement_is_inside_where_all_of_it_is():
    from bench.sound import usual_movement

    bands = {f"movement_{name}": {10: 1.0, 90: 2.0} for name in ("onsets", "flux", "self_similarity")}
    moves = [
        {"onsets": 1.5, "flux": 1.0, "self_similarity": 2.0},
        {"onsets": 0.5, "flux": 1.5, "self_similarity": 1.5},
        {"onsets": 1.5, "flux": 2.5, "self_similarity": 1.5},
        {"onsets": 1.5, "flux": 1.5, "self_similarity": math.nan},
    ]
    assert usual_movement(bands, moves) == 0.25 and usual_movement(bands, moves[:1]) == 1
    assert math.isnan(usual_movement({}, moves))


class Loudness:
    """In place of MusiCNN, where it is not the point: the levels of 200 parts of each window."""

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        n = windows.shape[1] // 200 * 200
        return windows[:, :n].reshape(len(windows), 200, -1).square().mean(-1).log1p()


@pytest.mark.parametrize("n", [1, 6])
def test_as_many_prompts_as_asked_for_are_continued_for_longer(corpus, n):
    """Also those whose recordings end before: what really follows is kept as far as it goes."""
    from bench.protocol import make_protocol

    longest = max(r.n_samples for r in corpus.recordings) / RATE
    p = make_protocol(
        corpus, 0.5, Loudness(), None, 6, 5.0, longest - 8, seed=0, say=lambda line: None, n_long_prompts=n
    )
    n = min(n, len(p.real))
    assert len(p.long_rows) == len(set(p.long_rows)) == len(p.real_long_pieces) == n
    for place, far in zip(p.long_rows, p.real_long_pieces, strict=True):
        assert p.n_prompt + p.n_piece <= len(far) <= p.n_prompt + p.n_long
        np.testing.assert_allclose(far[: p.n_prompt + p.n_piece], p.real[place], atol=1e-6)
    lengths = [len(far) == p.n_prompt + p.n_long for far in p.real_long_pieces]
    assert lengths == sorted(lengths, reverse=True)  # those with a yardstick come first
    assert (p.real_long is None) if not any(lengths) else len(p.real_long) == sum(lengths)
    if n == 6:
        assert not all(lengths)


def test_the_pictures_have_a_row_for_each_prompt_and_a_column_for_each_model(corpus):
    from PIL import Image

    from bench.pictures import DPI, ROW_INCHES, Sheet, decibels

    waveform = corpus.recordings[0].read(0, 23 * RATE)
    image = decibels(waveform, RATE)
    assert image.dtype == np.uint8 and image.shape == (pytest.approx(23 * RATE / 256, abs=8), 128)
    loudest = 10 * np.log10((metrics.power_frames(waveform, RATE) @ metrics.mel_filters(513, RATE, 128)).max())
    assert -100 + 80 * float(image.max()) / 255 == pytest.approx(min(-20, loudest), abs=0.4)
    sheet = Sheet(RATE, 3.0)
    for column in ("real, what follows", "model, step 1", "other, step 1"):
        for prompt in range(3):
            sheet.add(column, prompt, waveform[: (23 - 3 * (prompt == 2)) * RATE], "drone" * (prompt == 1))
    width, height = Image.open(io.BytesIO(sheet.png())).size
    assert height == 3 * ROW_INCHES * DPI and width == pytest.approx(3 * 6.9 * DPI, abs=2)


def test_what_ends_badly_can_be_heard(tmp_path, corpus):
    """Of twelve long rollouts eight are in the picture; of the others, one that drones is left as a WAV file, too."""
    from bench.report import Report

    n_prompt = 3 * RATE
    real = torch.from_numpy(np.stack([corpus.recordings[0].read(i * RATE, 4 * RATE) for i in range(12)]))
    rows = list(range(12))
    protocol = SimpleNamespace(
        sample_rate=RATE, n_prompt=n_prompt, real=real, real_long_pieces=list(real), long_rows=rows, bands={}
    )
    report, ends = Report(tmp_path), [[] for _ in rows]
    ends[1] = ["drone"]  # not among the eight
    report.keep(protocol, {"row": "real"}, real, None, False)
    report.keep(protocol, {"row": "tiny, step 1", "long_ends": ends}, real, real, True)
    shown = set(report.sheets["long.png"].columns["tiny, step 1"])
    assert len(shown) == 8 and {0, 11} <= shown and 1 not in shown
    assert set(report.sheets["rollouts.png"].columns["real"]) == shown
    heard = {int(path.name.split("-")[1]) for path in (tmp_path / "listen").glob("long-*.wav")}
    assert heard == shown | {1}
    assert len(report.curves["tiny, step 1"]) == 4
