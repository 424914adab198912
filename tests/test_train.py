"""train.py from the outside: files, signals, resume, bad input."""

import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import sys

import pytest
import soundfile
import torch

import time_budget
import train as train_script
from checkpoint import load_run, load_state, previous_state
from conftest import ROOT, assert_one_line, chord, run, start_training, tiny_arguments, train, wait_for


def test_a_run_leaves_what_it_promises(tiny_run):
    """State, previews with pictures, JSONL, TensorBoard events and the corpus report."""
    metadata, state = load_run(tiny_run)
    assert state.info["step"] == 12
    lines = [json.loads(line) for line in metadata.resolve("log").read_text().splitlines()]
    assert lines[0]["step"] == 1 and {"loss", "frames_per_second", "audio_seconds_per_second"} <= set(lines[0])
    assert any("held_out_loss" in line for line in lines)
    previews = metadata.resolve("previews")
    waveform, rate = soundfile.read(previews / "step-0000012.wav")
    assert rate == 8000 and len(waveform) > 8 * rate and abs(waveform).max() > 0.01
    assert (previews / "step-0000012.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tiny_run.parent / "tiny" / "corpus.json").read_text())
    assert report["n_recordings"] == len(report["recordings"]) >= 2 and report["unusable"] == []
    assert metadata.corpus["n_held_out"] == len(report["held_out"]) == 1
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(metadata.resolve("tensorboard"))).Reload()
    assert "loss" in events.Tags()["scalars"] and events.Tags()["audio"] and events.Tags()["images"]
    leftovers = [p for p in tiny_run.parent.rglob("*") if p.suffix in (".tmp", ".part")]
    assert not leftovers


def weights(metadata_path):
    _, state = load_run(metadata_path)
    return state.tensors


def test_interrupted_at_five_random_steps_and_resumed(recordings, tmp_path):
    """CPU training ends with the same weights, averages, moments and random states, torch.equal."""
    n_steps = 40
    whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
    assert train(recordings, whole, "--steps", n_steps, "--no-preview").returncode == 0
    for stop in [*sorted(random.sample(range(1, n_steps), 5)), n_steps]:
        result = train(recordings, broken, "--steps", stop, "--no-preview")
        assert result.returncode == 0, result.stderr
    one, other = weights(whole), weights(broken)
    assert set(one) == set(other)
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def train_here(recordings, metadata, *arguments) -> int:
    """A tiny training in this process."""
    words = [recordings, "--metadata", metadata, *tiny_arguments(), "--threads", 1, *arguments]
    return train_script.main([str(word) for word in words])


def test_previews_do_not_change_the_training(recordings, tmp_path, monkeypatch):
    """With held-out loss and preview at each step, and with one at the end: the same weights."""
    assert train_here(recordings, tmp_path / "once.json", "--steps", 5) == 0
    monkeypatch.setattr(time_budget, "EARLY_STEPS", 0)
    monkeypatch.setattr(time_budget, "SHARE", 1e6)
    assert train_here(recordings, tmp_path / "m.json", "--steps", 5, "--save-every", 0.001) == 0
    assert len(list((tmp_path / "m" / "previews").glob("*.wav"))) == 5
    one, other = weights(tmp_path / "once.json"), weights(tmp_path / "m.json")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(recordings, tmp_path, number):
    metadata = tmp_path / "m.json"
    process = start_training(recordings, metadata, "--minutes", 60, "--save-every", 1, "--no-preview")
    wait_for((tmp_path / "m" / "state.safetensors").exists)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors and "the same command goes on" in errors
    _, state = load_run(metadata)
    assert f"stopped at step {state.info['step']}, saved" in errors
    result = train(recordings, metadata, "--steps", state.info["step"] + 2, "--no-preview")
    assert result.returncode == 0 and f"resumed at step {state.info['step']}" in result.stderr
    assert load_run(metadata)[1].info["step"] == state.info["step"] + 2


def test_killed_leaves_a_state_and_the_next_start_no_leftovers(recordings, tmp_path):
    metadata = tmp_path / "m.json"
    process = start_training(recordings, metadata, "--minutes", 60, "--save-every", 0.001, "--no-preview")
    wait_for(previous_state(tmp_path / "m" / "state.safetensors").exists)
    process.kill()
    process.communicate()
    _, state = load_run(metadata)
    (tmp_path / "m" / "state.safetensors.1.tmp").write_bytes(b"half")
    (tmp_path / "m.json.1.tmp").write_bytes(b"half")
    assert train(recordings, metadata, "--steps", state.info["step"] + 1, "--no-preview").returncode == 0
    assert not list(tmp_path.rglob("*.tmp"))


def test_two_trainings_of_one_run(recordings, tmp_path):
    metadata = tmp_path / "m.json"
    process = start_training(recordings, metadata, "--minutes", 60, "--no-preview")
    try:
        wait_for(metadata.exists)
        assert_one_line(train(recordings, metadata, "--steps", 1), "another train.py", str(tmp_path / "m"))
    finally:
        process.kill()
        process.communicate()


def test_progress_names_loss_speed_and_time_left(recordings, tmp_path):
    result = train(recordings, tmp_path / "m.json", "--steps", 3, "--no-preview")
    line = next(line for line in result.stderr.splitlines() if "loss " in line)
    for word in ("step", "frames/s", "audio-s/s", "left", "%"):
        assert word in line


def test_a_terminal_gets_a_bar(recordings, tmp_path):
    """A pseudo-terminal, even one that does not know its size."""
    master, slave = pty.openpty()
    command = [
        "train.py",
        recordings,
        "--metadata",
        tmp_path / "m.json",
        "--steps",
        30,
        "--no-preview",
        *tiny_arguments(),
    ]
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stderr=slave)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a pseudo-terminal with EIO
        while block := os.read(master, 4096):
            shown += block
    os.close(master)
    assert process.wait() == 0
    bars = [line for line in shown.decode().replace("\r", "\n").splitlines() if "|" in line]
    last = [bar for bar in bars if "step 30" in bar][-1]
    assert "loss" in last and "100%" in last and "left" in last


def test_a_finished_run_says_so_and_can_be_prolonged(recordings, tiny_run, tmp_path):
    result = train(recordings, tmp_path / "m.json", "--steps", 2, "--no-preview")
    again = train(recordings, tmp_path / "m.json", "--steps", 2, "--no-preview")
    assert again.returncode == 0 and "raise --minutes or --steps" in again.stderr, result.stderr


def test_a_slim_state_sounds_the_same_and_cannot_go_on(recordings, tiny_run, tmp_path):
    """Less than half of the bytes (of a tiny model; a codec's share is small in others), no previous state, and
    what predict.py loads is the same within 0.1 %; train.py refuses to go on from it, in one line."""
    from predictor import Predictor

    slim = tmp_path / "slim.json"
    whole = load_run(tiny_run)[0].resolve("state")
    assert train(recordings, slim, "--steps", 12, "--no-preview", "--slim").returncode == 0
    path = load_run(slim)[0].resolve("state")
    assert path.stat().st_size < 0.5 * whole.stat().st_size and not previous_state(path).exists()
    models = [Predictor.load(p).model.state_dict() for p in (tiny_run, slim)]
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=1e-3, atol=1e-5)
    result = train(recordings, slim, "--steps", 20, "--no-preview")
    assert_one_line(result, "slim.json", "--slim", "--force")


def test_other_settings_need_force(recordings, tmp_path):
    metadata = tmp_path / "m.json"
    assert train(recordings, metadata, "--steps", 2, "--no-preview").returncode == 0
    before = (tmp_path / "m" / "state.safetensors").read_bytes()
    assert_one_line(train(recordings, metadata, "--steps", 3, "--seed", 5), str(metadata), "--force")
    assert (tmp_path / "m" / "state.safetensors").read_bytes() == before
    old = tmp_path / "m" / "previews" / "step-0000002.wav"
    old.parent.mkdir()
    old.write_bytes(b"of the run before")
    assert train(recordings, metadata, "--steps", 3, "--seed", 5, "--force", "--no-preview").returncode == 0
    assert not old.exists()
    assert load_run(metadata)[1].info["config"]["training"]["seed"] == 5


def test_the_last_save_on_a_full_disk(recordings, tmp_path):
    """The kernel refuses to write more: one line, non-zero exit, the old state stays."""
    metadata = tmp_path / "m.json"
    assert train(recordings, metadata, "--steps", 2, "--no-preview").returncode == 0

    def full():
        import resource

        size = (tmp_path / "m" / "state.safetensors").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    result = train(recordings, metadata, "--steps", 4, "--no-preview", preexec_fn=full)
    assert_one_line(result, "state.safetensors", "free some disk space")
    assert load_run(metadata)[1].info["step"] == 2
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_run_without_its_first_state_starts_anew(recordings, tmp_path):
    metadata = tmp_path / "m.json"
    assert train(recordings, metadata, "--steps", 2, "--no-preview").returncode == 0
    for path in (tmp_path / "m").glob("state*"):
        path.unlink()
    assert train(recordings, metadata, "--steps", 3, "--no-preview").returncode == 0
    assert load_run(metadata)[1].info["step"] == 3


@pytest.mark.parametrize(
    "case",
    [
        "no folder",
        "empty folder",
        "no audio",
        "all bad",
        "metadata no json",
        "metadata is a folder",
        "no place",
        "orphaned state",
        "damaged metadata",
        "damaged state",
        "unknown key",
        "bad value",
        "foreign metadata",
    ],
)
def test_bad_input_gets_one_line(recordings, tiny_run, tmp_path, case):
    folder, metadata, extra, words = tmp_path / "in", tmp_path / "m.json", [], []
    folder.mkdir()
    soundfile.write(folder / "a.wav", chord(3.0, 8000), 8000)
    if case == "no folder":
        folder, words = tmp_path / "nowhere", ["nowhere"]
    elif case == "empty folder":
        (folder / "a.wav").unlink()
        words = [str(folder), "is empty"]
    elif case == "no audio":
        (folder / "a.wav").rename(folder / "a.txt")
        words = [str(folder), "no recordings"]
    elif case == "all bad":
        (folder / "a.wav").write_text("x")
        words = [str(folder), "a.wav", "not an audio file"]
    elif case == "metadata no json":
        metadata, words = tmp_path / "m.txt", ["m.txt", ".json"]
    elif case == "metadata is a folder":
        metadata.mkdir()
        words = [str(metadata), "folder"]
    elif case == "no place":
        (tmp_path / "file").write_text("")
        metadata, words = tmp_path / "file" / "m.json", ["file"]
    elif case == "unknown key":
        extra, words = ["--set", "model.hiden_size=3"], ["model.hiden_size", "hidden_size"]
    elif case == "bad value":
        extra, words = ["--set", "featurizer.hop_length=999"], ["featurizer.hop_length"]
    elif case == "foreign metadata":
        metadata.write_text('{"a": 1}')
        words = [str(metadata)]
    elif case == "orphaned state":
        assert train(folder, metadata, "--steps", 1, "--no-preview").returncode == 0
        metadata.unlink()
        words = ["state.safetensors", str(metadata), "--force"]
    else:
        assert train(folder, metadata, "--steps", 1, "--no-preview").returncode == 0
        path = metadata if case == "damaged metadata" else tmp_path / "m" / "state.safetensors"
        blob = bytearray(path.read_bytes())
        blob[len(blob) // 2] ^= 1
        path.write_bytes(blob)
        words = [path.name]
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.json") if p.is_file()}
    assert_one_line(train(folder, metadata, "--steps", 2, "--no-preview", *extra), *words)
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize(
    "words",
    [
        ["--steps", 0],
        ["--steps", -5],
        ["--minutes", 0],
        ["--save-every", 0],
        ["--seed", -1],
        ["--preset", "huge"],
        ["--steps", 5, "--minutes", 1],
        ["--threads", -1],
        ["--device", "tpu"],
        ["--minutes", "nan"],
    ],
)
def test_bad_arguments(recordings, tmp_path, words):
    result = run("train.py", recordings, "--metadata", tmp_path / "m.json", *words)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there(recordings, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert_one_line(train(recordings, tmp_path / "m.json", "--steps", 1, "--device", "cuda"), "--device cuda")


def test_bad_recordings_are_reported_and_not_fatal(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "good.wav", chord(4.0, 8000), 8000)
    (folder / "bad.wav").write_text("x")
    result = train(folder, tmp_path / "m.json", "--steps", 2, "--no-preview")
    assert result.returncode == 0, result.stderr
    assert "not used: bad.wav: not an audio file" in result.stderr
    report = json.loads((tmp_path / "m" / "corpus.json").read_text())
    assert report["unusable"][0]["file"] == "bad.wav"


def test_a_very_short_corpus_trains(tmp_path):
    """Half a second, shorter than a window: padded and masked, finite."""
    soundfile.write(tmp_path / "a.wav", chord(0.5, 8000), 8000)
    result = train(tmp_path / "a.wav", tmp_path / "m.json", "--steps", 4)
    assert result.returncode == 0, result.stderr
    assert all(torch.isfinite(t).all() for t in weights(tmp_path / "m.json").values() if t.is_floating_point())


def test_original_trains_and_previews(recordings, tmp_path):
    result = run(
        "train.py",
        recordings,
        "--metadata",
        tmp_path / "o.json",
        "--preset",
        "original",
        "--steps",
        2,
        "--set",
        "model.hidden_size=16",
        "--set",
        "training.batch_size=2",
    )
    assert result.returncode == 0, result.stderr
    assert load_state(tmp_path / "o" / "state.safetensors").info["step"] == 2
    assert list((tmp_path / "o" / "previews").glob("*.wav"))


def test_bf16_and_fp32_are_chosen_by_the_hardware(monkeypatch):
    import device

    for amx, expected in ((True, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
        assert device.has_bf16_matrix_units(torch.device("cpu")) is expected


def test_device_order(monkeypatch):
    """CUDA, then MPS, then the CPU."""
    import device

    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert device.select_device("auto").type == expected
