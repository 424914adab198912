"""The measuring of the sound as a whole, on a tiny corpus and a tiny model; and the transcription."""

import json
import math
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import metrics
from conftest import run

SECONDS, LONG = 5, 12


def test_a_scale_is_transcribed(tmp_path):
    pytest.importorskip("onnxruntime", reason="the transcription needs onnxruntime (requirements-metrics.txt)")
    pytest.importorskip("basic_pitch", reason="basic-pitch is not installed (requirements-metrics-nodeps.txt)")
    import pretty_midi

    from prompt import load_prompt
    from transcription import Transcriber

    pitches = [60, 62, 64, 65, 67, 69, 71, 72]
    song, piano = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0)
    piano.notes = [pretty_midi.Note(90, pitch, 0.5 * i, 0.5 * i + 0.5) for i, pitch in enumerate(pitches)]
    song.instruments.append(piano)
    song.write(str(tmp_path / "scale.mid"))
    notes = Transcriber().notes(load_prompt(tmp_path / "scale.mid", 22050), 22050)
    loudest = {}  # of the notes that begin at one beat; an octave may be heard in the attack
    for onset, duration, pitch, amplitude in notes:
        assert onset == pytest.approx(round(2 * onset) / 2, abs=0.06) and duration > 0.1
        loudest[round(2 * onset)] = max(loudest.get(round(2 * onset), (0, 0)), (amplitude, pitch))
    assert [loudest[i][1] for i in range(8)] == pitches
    assert len(notes) <= 11
    assert metrics.note_figures(notes, 4.0)["key"] == (0, "major")


def test_the_decoding_of_posteriorgrams():
    pytest.importorskip("scipy")
    from transcription import HOP_LENGTH, SAMPLE_RATE, decode

    note, onset = np.zeros((2, 200, 88), np.float32)
    note[20:60, 39], onset[20, 39] = 0.8, 0.9  # MIDI pitch 60
    note[100:140, 50] = 0.6  # no onset of its own, but a sudden rise
    note[30:38, 70], onset[30, 70] = 0.8, 0.9  # too short
    found = decode(note, onset)
    frame = HOP_LENGTH / SAMPLE_RATE
    assert [n[2] for n in found] == [60, 71]
    np.testing.assert_allclose([n[0] for n in found], [20 * frame, 100 * frame], atol=1.5 * frame)
    np.testing.assert_allclose([n[1] for n in found], [40 * frame, 40 * frame], atol=2.5 * frame)
    assert decode(0 * note, 0 * onset) == []


def needs_networks():
    pytest.importorskip("musicnn", reason="the embeddings need musicnn (requirements-metrics-nodeps.txt)")
    pytest.importorskip("basic_pitch", reason="the notes need basic-pitch (requirements-metrics-nodeps.txt)")
    pytest.importorskip("onnxruntime", reason="the notes need onnxruntime (requirements-metrics.txt)")


@pytest.fixture(scope="module")
def measured(recordings, tiny_run, tmp_path_factory):
    """The bench's folder after one call, and what it printed."""
    needs_networks()
    out = tmp_path_factory.mktemp("sound")
    options = ["--metadata", tiny_run, "--prompts", 4, "--seconds", SECONDS, "--long", LONG, "--threads", 1]
    result = run("-m", "bench.sound", recordings, *options, "--out", out)
    assert result.returncode == 0, result.stdout + result.stderr
    return out, result.stdout, json.loads((out / "results.json").read_text())


def test_what_recordings_share_is_found():
    """Random tones; the middle of the second recording has 3 s of the first one's end, in place of its own."""
    from bench.protocol import _shared, _training_frames

    class Segment:
        def __init__(self, name, waveform):
            self.recording, self.waveform, self.n_samples = SimpleNamespace(name=name), waveform, len(waveform)

        def read(self, at, n):
            return np.pad(self.waveform, (0, at + n))[at : at + n], n

    def tones(seed):
        pitches = np.random.default_rng(seed).uniform(200, 3000, 100).repeat(1600)  # 20 s of 0.2 s each
        return 0.3 * np.sin(2 * np.pi * np.cumsum(pitches) / 8000).astype("float32")

    first, second, third = (tones(seed) for seed in range(3))
    second[64000 + 4000 : 64000 + 28000] = first[-24000:]
    segments = [Segment(str(i), w) for i, w in enumerate((first, second, third))]
    parts = [np.concatenate(list(_training_frames(s, 8000))) for s in segments]
    frames, mean = np.concatenate(parts), np.concatenate(parts).mean(0)
    owners = np.repeat(["0", "1", "2"], [len(p) for p in parts])
    shared = list(_shared(segments, metrics.unit_frames(frames, mean), owners, mean, 32000, 8000))
    assert shared[1] == pytest.approx(3, abs=0.3) and shared[0] < 1 and shared[2] < 1, shared


def test_the_bench_measures_every_row(measured):
    _, printed, results = measured
    rows = {row["row"]: row for row in results["rows"]}
    real, model, noise = rows["real, what follows"], rows["tiny, step 12"], rows["white noise"]
    assert real["fad_ratio"] == pytest.approx(1) and "classifier" not in real
    assert noise["fad"] > 2 * real["fad"] and noise["classifier"] > 0.9 and noise["outside_flatness"] > 0.9
    assert model["fad"] < noise["fad"] and model["classifier"] > 0.6  # twelve steps
    assert 0 <= real["copy_shared"] <= SECONDS and real["copy_no_longer"] == 1
    assert real["notes"] > 1 and real["in_key"] > 0.6
    assert model["long_rollouts"] >= 1 and model["long_seconds"] == pytest.approx(LONG, abs=0.1)
    phase, codec = rows["tiny, phase only"], rows["tiny, codec only"]
    # Against so few windows the floor is high: true magnitudes sound like the truth, and codes like no noise.
    assert phase["fad"] == pytest.approx(real["fad"], rel=0.2) and codec["fad"] < noise["fad"]
    for row in rows.values():
        assert row["fad_interval"][0] <= row["fad"] <= row["fad_interval"][1]
        assert 0 <= row["join_smooth"] <= 1 and row["sample_rate"] == 8000
        assert row["row"] in printed
    assert json.dumps(results, allow_nan=False)


def test_the_bench_leaves_tables_a_picture_and_sound(measured):
    out, printed, _ = measured
    assert (out / "table.md").read_text().strip() == printed.strip()
    assert (out / "sound.png").read_bytes().startswith(b"\x89PNG")
    wavs = sorted(path.name for path in (out / "listen").glob("*.wav"))
    assert "prompt-00-real-what-follows.wav" in wavs and "prompt-00-tiny-step-12.wav" in wavs
    whole = soundfile.info(out / "listen" / "prompt-00-tiny-step-12.wav")
    assert whole.duration == pytest.approx(3 + SECONDS, abs=0.01) and whole.samplerate == 8000
    assert any(name.startswith("long-") for name in wavs)


def test_prompts_are_held_out_and_the_model_sees_them_alone(measured, recordings, tiny_run):
    """The rows' waveforms begin with the real prompt, and no prompt is of a training recording."""
    out, _, results = measured
    held_out = set(json.loads((tiny_run.parent / "tiny" / "corpus.json").read_text())["held_out"])
    assert set(results["protocols"][0]["recordings"]) <= held_out
    real, _ = soundfile.read(out / "listen" / "prompt-00-real-what-follows.wav")
    model, _ = soundfile.read(out / "listen" / "prompt-00-tiny-step-12.wav")
    kept = 3 * 8000 - 256
    scale = np.dot(real[:kept], model[:kept]) / np.dot(real[:kept], real[:kept])  # a loud WAV is turned down
    np.testing.assert_allclose(model[:kept], scale * real[:kept], atol=1e-3)
    assert np.abs(model[kept + 256 :] - scale * real[kept + 256 :]).max() > 0.01


class Ramp:
    """A segment whose loudness and length are given, for :func:`spread_places`."""

    def __init__(self, n_samples: int, silent_until: int = 0):
        self.n_samples, self.silent_until = n_samples, silent_until

    def read(self, start: int, n_samples: int):
        waveform = np.full(n_samples, 0.5, np.float32)
        waveform[: max(0, min(n_samples, self.silent_until - start))] = 0
        return waveform, n_samples


def test_places_are_spread_and_not_silent():
    from bench.protocol import spread_places

    long, short = Ramp(300_000), Ramp(100_000)
    places = spread_places([long, short, Ramp(20_000)], 8, 3000, 20000, 1000, 0.1)
    assert [s for s, _ in places] == [long] * 6 + [short] * 2  # as their lengths, none in what is too short
    starts = [at for s, at in places if s is long]
    assert np.diff(starts).min() >= 23000 and starts[-1] + 23000 <= long.n_samples
    places = spread_places([Ramp(300_000, silent_until=100_000)], 6, 3000, 20000, 1000, 0.1)
    assert 3 <= len(places) <= 5 and all(at > 97_000 for _, at in places)


def test_training_frames_are_those_of_the_whole():
    """Read piece by piece, so that an hour fits into memory."""
    from bench.protocol import _training_frames

    waveform = np.random.default_rng(0).standard_normal(20 * 8000).astype(np.float32)

    class Whole:
        n_samples = len(waveform)

        def read(self, start, n):
            return np.pad(waveform[start : start + n], (0, max(0, start + n - len(waveform)))), n

    pieces = np.concatenate(list(_training_frames(Whole(), 8000, 50)))
    whole = metrics.copy_frames(waveform, 8000, 1)[0]
    assert len(whole) == pytest.approx(200, abs=2)
    np.testing.assert_allclose(pieces[: len(whole)], whole, atol=1e-4)


def test_rollouts_that_die_drone_or_hiss_are_counted():
    from bench.protocol import Protocol, corpus_bands
    from bench.sound import long_figures

    rate, random = 8000, np.random.default_rng(0)

    def music(seconds: int) -> np.ndarray:
        """A chord a second, over a little noise."""
        t = np.arange(rate) / rate
        chords = [sum(np.sin(2 * np.pi * f * t) for f in random.uniform(100, 2000, 3)) for _ in range(seconds)]
        return (0.1 * np.concatenate(chords) + 0.003 * random.standard_normal(seconds * rate)).astype(np.float32)

    bands = corpus_bands([music(20) for _ in range(10)], rate)
    nothing = dict.fromkeys(Protocol.__dataclass_fields__)
    protocol = Protocol(**{**nothing, "sample_rate": rate, "bands": bands})
    lively, dead, drone, hiss = music(20), music(20), music(20), music(20)
    dead[12 * rate :] = 0
    drone[8 * rate :] = np.tile(drone[8 * rate : 9 * rate], 12)
    hiss[8 * rate :] = 0.1 * random.standard_normal(12 * rate)

    def ends(*pieces):
        row = long_figures(protocol, np.stack(pieces))
        return [row[f"ends_{name}"] for name in ("silence", "drone", "noise")]

    assert ends(lively) == [0, 0, 0]
    assert ends(dead) == [1, 0, 0]
    assert ends(drone) == [0, 1, 0]
    assert ends(hiss) == [0, 0, 1]
    assert ends(lively, dead, drone, hiss) == [1, 1, 1]


def test_what_is_no_number_is_null():
    from bench.sound import plain

    assert plain({"a": np.float64(math.nan), 1: (np.int64(2), torch.tensor(3.0))}) == {"a": None, "1": [2, 3.0]}


def test_without_states_each_preset_is_trained_in_the_folder(tmp_path, monkeypatch):
    from bench import sound, trainings
    from errors import UserError

    commands, statuses = [], [0, 0, 1]

    class Training:
        def wait(self):
            return statuses.pop(0)

    monkeypatch.setattr(trainings, "start", lambda *words: commands.append(list(map(str, words))) or Training())
    arguments = sound.parse_arguments([str(tmp_path), "--minutes", "2", "--out", str(tmp_path / "out")])
    paths = [candidate.path for candidate in trainings.train_all(arguments)]
    assert [path.name for path in paths] == ["small.json", "original.json"]
    for command, path, preset in zip(commands, paths, ("small", "original"), strict=True):
        assert command[:4] == ["train.py", str(tmp_path), "--metadata", str(path)]
        assert command[command.index("--preset") + 1] == preset and command[command.index("--minutes") + 1] == "2.0"
    with pytest.raises(UserError, match=r"small.json: its training ended with status 1"):
        trainings.train_all(arguments)


def test_a_row_that_ends_too_early_is_refused():
    from bench.protocol import Protocol
    from bench.sound import measure_row

    nothing = dict.fromkeys(Protocol.__dataclass_fields__)
    real = torch.zeros(2, 8 * 8000)
    protocol = Protocol(**{**nothing, "sample_rate": 8000, "n_prompt": 24000, "n_piece": 40000, "real": real})
    with pytest.raises(ValueError, match=r"5\.0 s follow"):
        measure_row(protocol, "short", real[:, :-2400])
    with pytest.raises(ValueError, match="1 waveforms for 2 prompts"):
        measure_row(protocol, "one", real[:1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompts", "1"], ["--prompts 1"]),
        (["--seconds", "1"], ["--seconds 1.0"]),
        (["--long", "10"], ["--long 10.0"]),
        (["--metadata", "gone.json"], ["gone.json", "train first"]),
        (["--metadata", "gone.json", "--preset", "small"], ["--preset"]),
    ],
)
def test_mistakes_are_named_in_one_line(recordings, tmp_path, options, words):
    if "gone.json" in options:
        needs_networks()
    result: subprocess.CompletedProcess = run("-m", "bench.sound", recordings, *options, "--out", tmp_path / "out")
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and last.startswith("bench.sound: ") and "Traceback" not in result.stderr
    assert all(word in last for word in words), last
    result = run("-m", "bench.sound", tmp_path / "none", "--out", tmp_path / "out")
    assert result.returncode == 1 and "none: no such folder" in result.stderr
