"""What the studio reads out of a run's files, without Gradio, PyTorch or the trainer's help."""

import fcntl
import json
import shutil
import subprocess
import sys
import time

import pytest

from checkpoint import load_state, previous_state, read_metadata, summarize_state
from conftest import ROOT
from errors import UserError
from run_folder import lock_run
from studio.runs import Log, Runs, is_held, preview_file, thin


@pytest.fixture
def folder(tiny_run, tmp_path):
    """A folder with a run of 12 steps, for this test alone."""
    shutil.copytree(tiny_run.parent, tmp_path / "m", ignore=shutil.ignore_patterns("pcm-*", "tensorboard"))
    return tmp_path / "m"


def only(folder):
    (run,) = Runs(folder).all()
    return run


def lines(folder):
    return [json.loads(line) for line in (folder / "tiny" / "log.jsonl").read_text().splitlines()]


def test_a_finished_run(folder):
    run, logged = only(folder), lines(folder)
    assert (run.name, run.status, run.trouble, run.preset, run.step) == ("tiny", "finished", "", "small", 12)
    assert run.states == (12, None) and run.previews == (12,)
    assert run.curves["loss"] == tuple((line["step"], line["loss"]) for line in logged if "loss" in line)
    assert run.last("held_out_loss") == logged[-1]["held_out_loss"]
    assert logged[-1]["seconds_left"] == 0 and run.left is None and run.speed is None
    corpus = read_metadata(folder / "tiny.json").corpus
    assert run.corpus == {**corpus, "n_problems": 0} and corpus["n_recordings"] >= 2
    assert preview_file(run.preview_folder, 12, ".wav").stat().st_size > 100_000


def test_the_model_of_the_repository():
    run = Runs(ROOT / "metadata").get("chorales")
    assert run.status == "finished" and run.states[0] == run.step > 1000 and run.previews == ()
    assert Runs(ROOT / "metadata").get("../metadata/chorales") is None


def test_a_run_in_training(folder):
    with open(folder / "tiny" / "log.jsonl", "a") as file:
        values = {"loss": 0.5, "audio_seconds_per_second": 33.0, "seconds": 70.0, "seconds_left": 50.0}
        file.write(json.dumps({"step": 20, **values}) + "\n")
    with open(folder / "tiny" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = only(folder)
        assert (run.status, run.step, run.left, run.speed, run.trained) == ("training", 20, 50.0, 33.0, 70.0)
        (folder / "tiny.json").unlink()
        run = only(folder)
        assert run.status == "training" and "reads its corpus" in run.trouble
    assert Runs(folder).all() == ()


def test_a_stopped_run(folder):
    with open(folder / "tiny" / "log.jsonl", "a") as file:
        file.write(json.dumps({"step": 20, "loss": 0.5, "seconds_left": 50.0}) + "\n")
    assert only(folder).status == "stopped"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_state_is_said_and_the_one_before_stays(folder, damage):
    state = folder / "tiny" / "state.safetensors"
    blob = bytearray(state.read_bytes())
    previous_state(state).write_bytes(blob)
    blob[-5] ^= 1
    state.write_bytes({"cut": blob[:-9], "flipped": blob, "empty": b"", "foreign": b"\x10" + bytes(30)}[damage])
    run = only(folder)
    assert run.status == "damaged" and run.states == (None, 12)
    assert "tiny/state.safetensors: damaged" in run.trouble and str(folder) not in run.trouble


def test_a_state_that_is_gone(folder):
    (folder / "tiny" / "state.safetensors").unlink()
    run = only(folder)
    assert run.states == (None, None) and "no state yet" in run.trouble and run.status != "training"


def test_what_a_killed_save_leaves_changes_nothing(folder):
    (folder / "tiny" / "state.safetensors.123.tmp").write_bytes(b"half a state")
    (folder / "tiny.json.123.tmp").write_bytes(b"{")
    run = only(folder)
    assert (run.status, run.states, run.trouble) == ("finished", (12, None), "")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": "other"}', "\x00" * 50, "[" * 100_000])
def test_damaged_metadata(folder, text):
    runs = Runs(folder)
    assert runs.get("tiny").status == "finished"
    (folder / "tiny.json").write_text(text)
    runs._read = 0.0
    run = runs.get("tiny")
    assert run.status == "damaged" and run.trouble.startswith("tiny.json: ") and run.states == (None, None)


def test_log_is_read_as_it_grows(tmp_path):
    path = tmp_path / "log.jsonl"
    log = Log(path)
    log.read()
    assert log.step == 0
    path.write_text('{"step": 1, "loss": 3.0}\nnot JSON\n{"step": "x"}\n[]\n{"step": 2, "loss": null}\n{"step": 3, "lo')
    log.read()
    assert log.step == 2 and log.curves["loss"] == [(1, 3.0)]
    with open(path, "a") as file:
        file.write('ss": 2.0}\n{"step": 4, "loss": true, "held_out_loss": 1.5, "seconds_left": 1e999}\n')
    log.read()
    assert log.step == 4 and log.curves == {"loss": [(1, 3.0), (3, 2.0)], "held_out_loss": [(4, 1.5)]}
    assert log.left is None
    path.write_text('{"step": 1, "loss": 9.0}\n')  # begun anew
    log.read()
    assert log.step == 1 and log.curves["loss"] == [(1, 9.0)]


def test_thin_keeps_the_end_and_the_mean():
    points = [(i, float(i % 7)) for i in range(10_001)]
    thinned = thin(points, 400)
    assert len(thinned) <= 400 and thinned[-1] == points[-1]
    assert abs(sum(y for _, y in thinned) / len(thinned) - 3.0) < 0.02
    assert [x for x, _ in thinned] == sorted({x for x, _ in thinned})
    assert thin(points[:10]) == tuple(points[:10])


def test_summary_is_that_of_the_state(tiny_run):
    path = read_metadata(tiny_run).resolve("state")
    summary, state = summarize_state(path), load_state(path)
    assert (summary.step, summary.seconds) == (state.info["step"], state.info["seconds"])
    assert summary.resumable and not summarize_state(ROOT / "metadata/chorales/state.safetensors").resumable
    with pytest.raises(UserError, match="no state yet"):
        summarize_state(path.with_name("none.safetensors"))


def test_looking_does_not_keep_a_trainer_out(tmp_path):
    (tmp_path / "lock").touch()
    code = (
        "import sys, time; from pathlib import Path; from studio.runs import is_held\n"
        "while True: is_held(Path(sys.argv[1])); time.sleep(0.005)"
    )
    looking = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    try:
        for _ in range(100):
            lock = lock_run(tmp_path / "lock")
            assert is_held(tmp_path)
            lock.close()
            time.sleep(0.01)
        assert looking.poll() is None
    finally:
        looking.kill()
        looking.wait()
    assert not is_held(tmp_path)


def test_runs_need_neither_torch_nor_gradio(tiny_run):
    code = (
        "import sys; from pathlib import Path; from studio.runs import Runs\n"
        f"assert Runs(Path({str(tiny_run.parent)!r})).get('tiny').step == 12\n"
        "print(sorted({'torch', 'numpy', 'gradio', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
