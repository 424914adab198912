"""What happens to a process: hang-ups, lost terminals, closed output, kills, folders that go, memory that ends."""

import contextlib
import fcntl
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch

import predict
import session
import takes
import time_budget
import train
from checkpoint import is_held, load_run, read_metadata
from conftest import ROOT, start_training, tiny_arguments, wait_for
from errors import exit_status, is_out_of_memory
from run_folder import lock_run
from terminal import Output, Stop, ending_signals, interruptible
from time_budget import TimeBudget
from trainer import Trainer

RATE = 8000  # Hz, of the tiny model


def words_of(recordings, metadata, *arguments) -> list[str]:
    words = [recordings, "--metadata", metadata, *tiny_arguments(), "--threads", 1, "--no-preview", *arguments]
    return [str(word) for word in words]


def train_here(recordings, metadata, *arguments) -> tuple[int, str]:
    """Status and stderr of a tiny training in this process."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = train.main(words_of(recordings, metadata, *arguments))
    return status, said.getvalue()


def predict_here(*arguments) -> tuple[int, str, str]:
    """Status, stdout and stderr of predict.py in this process."""
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()) as told:
        status = predict.main([str(word) for word in arguments])
    return status, told.getvalue(), said.getvalue()


def at_steps(monkeypatch, actions: dict):
    """Have something happen before steps of a training, and each save be made that is asked for."""
    step = Trainer.train_step

    def acting(self):
        if self.step in actions:
            actions[self.step]()
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", acting)
    monkeypatch.setattr(TimeBudget, "save_interval", lambda self, wanted: wanted)


def start_predict(*arguments, **keywords) -> subprocess.Popen:
    command = [sys.executable, ROOT / "predict.py", *arguments]
    keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keywords}
    return subprocess.Popen([str(word) for word in command], cwd=ROOT, text=True, **keywords)


@pytest.fixture(autouse=True)
def no_process_outlives_its_test():
    """A training that a failed test leaves behind would take its core from all that follow."""
    before = set(psutil.Process().children(recursive=True))
    yield
    for process in set(psutil.Process().children(recursive=True)) - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


# -- hang-ups ----------------------------------------------------------------------------------


def test_a_hang_up_saves(recordings, tmp_path):
    """As SIGTERM does; those that follow it, and the SIGTERM of a shutdown, do not end the saving."""
    process = start_training(recordings, tmp_path / "m.json", "--minutes", 60, "--save-every", 0.001, "--no-preview")
    wait_for((tmp_path / "m" / "state.safetensors").exists)
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGHUP and "Traceback" not in errors, errors
    assert f"stopped at step {load_run(tmp_path / 'm.json')[1].info['step']}, saved" in errors


def test_a_terminal_that_is_closed_saves(recordings, tmp_path):
    """The kernel hangs up, and stdout and stderr are gone with the terminal."""
    master, slave = pty.openpty()

    def own_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    words = words_of(recordings, tmp_path / "m.json", "--minutes", 60, "--save-every", 1e9)
    command = [sys.executable, "train.py", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
    os.close(slave)
    heard = b""
    while b"step 5" not in heard:  # the first save would be after 20 s of steps
        heard += os.read(master, 1 << 16)
    assert not (tmp_path / "m" / "state.safetensors").exists()
    os.close(master)
    assert process.wait(120) == 128 + signal.SIGHUP
    assert load_run(tmp_path / "m.json")[1].info["step"] >= 5
    assert not list(tmp_path.rglob("*.tmp"))


def test_under_nohup_a_hang_up_is_ignored(recordings, tmp_path):
    command = [sys.executable, "train.py", *words_of(recordings, tmp_path / "m.json", "--minutes", 60)]
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=ignore)
    log = tmp_path / "m" / "log.jsonl"
    wait_for(log.exists)
    process.send_signal(signal.SIGHUP)
    n = log.stat().st_size
    wait_for(lambda: log.stat().st_size > n)  # a line every two seconds
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and "stopped at step" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_before_the_first_step_a_hang_up_leaves_nothing(recordings, tmp_path, monkeypatch, number):
    def interrupted(*arguments, **keywords):
        signal.raise_signal(number)
        time.sleep(5)

    monkeypatch.setattr(session, "open_corpus", interrupted)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 1)
    assert status == 130 and said.splitlines()[-1].startswith("train.py: interrupted") and not list(tmp_path.iterdir())
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_hang_up_ends_an_output(tiny_run, tone, tmp_path):
    """What was made by then is there; nothing is half-written."""
    process = start_predict(tiny_run, tone, "--seconds", 20000, "-o", tmp_path / "a.wav")
    try:
        wait_for(lambda: any(p.stat().st_size > 4 * (2 * RATE + 256 * 128) for p in tmp_path.glob("*.f32.tmp")))
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in errors.splitlines()[-1], errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "tone.wav"]
    assert soundfile.info(tmp_path / "a.wav").frames > 2 * RATE


def test_which_second_signal_is_not_waited_for():
    """A hang-up is none; two of the others are, in any order."""

    class Again(Exception):
        pass

    def again(number, frame):
        raise Again

    for first, then, last in (
        (signal.SIGHUP, signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGHUP, signal.SIGTERM),
    ):
        asked = []
        stop = Stop(again, lambda asked=asked: asked.append(1))
        try:
            assert stop.number == 0
            for number in (first, then, signal.SIGHUP):
                signal.raise_signal(number)
            assert stop.number == first and asked == [1]
            with pytest.raises(Again):
                signal.raise_signal(last)
        finally:
            stop.give_back()
    assert ending_signals() == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with interruptible(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)
        time.sleep(5)


# -- output that nobody takes ------------------------------------------------------------------


def broken_pipe():
    """A stream whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full_disk():
    return open("/dev/full", "w")


def test_closed_descriptors_are_no_files_of_ours(recordings, tiny_run, tone, tmp_path):
    """`>&- 2>&-`: the training ends and has saved; the audio file is what it is with them. The second command shows
    that no descriptor of a standard stream was given to a file."""
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable]
    words = words_of(recordings, tmp_path / "m.json", "--steps", 4)
    result = subprocess.run([*closed, "train.py", *words], cwd=ROOT, timeout=300)
    assert result.returncode == 0 and load_run(tmp_path / "m.json")[1].info["step"] == 4
    words = [tiny_run, tone, "--frames", 9, "-o"]
    command = [*closed, "predict.py", *words, tmp_path / "a.wav"]
    assert subprocess.run([str(word) for word in command], cwd=ROOT, timeout=300).returncode == 0
    assert predict_here(*words, tmp_path / "b.wav")[0] == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("stream", [broken_pipe, full_disk])
def test_a_training_without_listeners_ends_and_saves(recordings, tmp_path, stream):
    with contextlib.redirect_stderr(stream()), contextlib.redirect_stdout(stream()):
        assert train.main(words_of(recordings, tmp_path / "m.json", "--steps", 4)) == 0
    assert load_run(tmp_path / "m.json")[1].info["step"] == 4


@pytest.mark.parametrize(("stream", "status"), [(broken_pipe, 0), (full_disk, 1)])
def test_an_output_without_listeners_is_finished(tiny_run, tone, tmp_path, stream, status):
    """A reader that has gone wanted no more; a full disk loses what it should hold, which is said on stderr."""
    words = [tiny_run, tone, "--frames", 9, "-o", tmp_path / "a.wav"]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(stream()):
        assert predict.main([str(word) for word in words]) == status
    assert soundfile.info(tmp_path / "a.wav").frames == 2 * RATE + 9 * 128
    lost = "predict.py: what it says on stdout cannot be written (No space left on device)"
    assert (lost in said.getvalue().splitlines()) == bool(status)
    with contextlib.redirect_stderr(stream()), contextlib.redirect_stdout(stream()):
        assert predict.main([str(word) for word in [*words, "--force"]]) == status


def test_head_takes_one_line(recordings, tmp_path):
    """`2>&1 | head -1`, by the shell: nothing but that line, and the status is that of the work."""
    words = words_of(recordings, tmp_path / "m.json", "--steps", 3)
    script = '("$@" 2>&1; echo $? >status) | head -1'
    command = ["sh", "-c", script, "sh", sys.executable, str(ROOT / "train.py"), *words]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.stdout == f"{recordings} -> {tmp_path / 'm.json'}\n" and not result.stderr
    assert (tmp_path / "status").read_text() == "0\n" and load_run(tmp_path / "m.json")[1].info["step"] == 3


def test_a_pipe_that_is_full_for_the_moment_loses_one_write_only():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.redirect_stdout(os.fdopen(writer, "w", buffering=1)), Output("x") as output:
        for _ in range(40):
            print("z" * 4000)
        while len(os.read(reader, 1 << 16)) == 1 << 16:
            pass
        print("and on")
        sys.stdout.flush()
        assert os.read(reader, 1 << 16).endswith(b"and on\n") and output.status(0) == 0
    os.close(reader)


# -- what a killed predict.py leaves -----------------------------------------------------------


def test_the_next_start_removes_what_was_killed_and_nothing_else(tiny_run, tone, tmp_path):
    (tmp_path / "out").mkdir()
    killed = start_predict(tiny_run, tone, "--seconds", 20000, "-o", tmp_path / "out" / "killed.wav")
    alive = start_predict(tiny_run, tone, "--seconds", 20000, "-o", tmp_path / "out" / "alive.wav")
    try:
        for process in (killed, alive):
            wait_for(lambda pid=process.pid: list((tmp_path / "out").glob(f"*.{pid}.f32.tmp")))
        killed.kill()
        killed.communicate()
        foreign = [f"a.{killed.pid}.tmp", "a.f32.tmp", f"a.wav.{killed.pid}.tmp"]
        for name in [f"k.wav.{killed.pid}.new.tmp", f"k.png.{killed.pid}.tmp", f"k.mid.{killed.pid}.tmp", *foreign]:
            (tmp_path / "out" / name).write_bytes(b"half")
        status, _, said = predict_here(tiny_run, tone, "--frames", 9, "-o", tmp_path / "out" / "b.wav")
        left = {path.name for path in (tmp_path / "out").iterdir()}
        assert status == 0 and left == {*foreign, "b.wav", f"alive.wav.{alive.pid}.f32.tmp"}
        assert said.count("note: removed ") == 4 and f"killed.wav.{killed.pid}.f32.tmp" in said
    finally:
        for process in (killed, alive):
            process.kill()
            process.communicate()


def test_the_next_training_removes_half_written_previews(recordings, tmp_path):
    (tmp_path / "m" / "previews").mkdir(parents=True)
    for name in ("m.json.1.tmp", "m/state.safetensors.1.keep.tmp", "m/previews/step-0000001.wav.1.tmp"):
        (tmp_path / name).write_bytes(b"half")
    assert train_here(recordings, tmp_path / "m.json", "--steps", 1)[0] == 0
    assert not list(tmp_path.rglob("*.tmp"))


# -- the run's folder --------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["folder", "renamed", "everything", "metadata", "lock"])
def test_what_somebody_removes_is_written_anew(recordings, tmp_path, monkeypatch, case):
    folder, metadata = tmp_path / "runs" / "m", tmp_path / "runs" / "m.json"
    held = []

    def remove():
        if case == "renamed":
            folder.rename(tmp_path / "elsewhere")
        elif case == "everything":
            (tmp_path / "runs" / "pcm-8000").rename(tmp_path / "pcm")  # what is being read cannot be had anew
            shutil.rmtree(tmp_path / "runs")
            (tmp_path / "runs").mkdir()
            (tmp_path / "pcm").rename(tmp_path / "runs" / "pcm-8000")
        elif case == "folder":
            shutil.rmtree(folder)
        else:
            (metadata if case == "metadata" else folder / "lock").unlink()

    at_steps(monkeypatch, {3: remove, 5: lambda: held.append(is_held(folder))})
    status, said = train_here(recordings, metadata, "--steps", 7, "--save-every", 0.001)
    assert status == 0 and load_run(metadata)[1].info["step"] == 7 and held == [True]
    (line,) = [line for line in said.splitlines() if "written anew" in line]
    gone = {"everything": f"{folder} and {metadata}", "metadata": str(metadata)}.get(case, str(folder))
    assert line == f"{gone}: removed or renamed meanwhile; written anew"
    names = {path.name for path in folder.iterdir()}
    assert {"corpus.json", "lock", "state.safetensors", "tensorboard", "log.jsonl"} <= names
    assert list((folder / "tensorboard").glob("events.*"))
    assert json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"] == 7


@pytest.mark.parametrize("mended", [True, False])
def test_a_file_in_its_place(recordings, tmp_path, monkeypatch, mended):
    """One line for a save that fails; the next one tries again. At the end, the status tells."""
    folder = tmp_path / "m"

    def replace():
        shutil.rmtree(folder)
        folder.write_text("not a folder")

    at_steps(monkeypatch, {3: replace, **({6: folder.unlink} if mended else {})})
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 8, "--save-every", 0.001)
    failed = [line for line in said.splitlines() if line.startswith(f"{folder / 'state.safetensors'}: not saved (")]
    assert len(failed) >= 2 and all("the next save tries again; check its name and rights" in line for line in failed)
    assert "Traceback" not in said
    if mended:
        assert status == 0 and "written anew" in said and load_run(tmp_path / "m.json")[1].info["step"] == 8
    else:
        assert status == 1 and "not saved" in said.splitlines()[-1] and "finished" not in said
        assert folder.read_text() == "not a folder" and read_metadata(tmp_path / "m.json")


def test_a_folder_that_cannot_be_written(recordings, monkeypatch):
    """For a while: the kernel refuses. Root, whom it refuses nothing, is somebody else for that time."""
    root, folder = os.geteuid() == 0, Path(tempfile.mkdtemp())
    folder.chmod(0o755)

    def refuse():
        os.seteuid(65534) if root else (folder / "m").chmod(0o555)

    def allow():
        os.seteuid(0) if root else (folder / "m").chmod(0o755)

    at_steps(monkeypatch, {3: refuse, 6: allow})
    try:
        status, said = train_here(recordings, folder / "m.json", "--steps", 8, "--save-every", 0.001)
        failed = [line for line in said.splitlines() if "not saved (Permission denied)" in line]
        assert status == 0 and len(failed) == 3 and all("the state of step 3 stays" in line for line in failed)
        assert load_run(folder / "m.json")[1].info["step"] == 8
    finally:
        allow()
        shutil.rmtree(folder)


def test_a_run_that_somebody_else_has_begun_anew_is_left_to_them(recordings, tmp_path, monkeypatch):
    """Nothing is written over it, and nothing of it removed."""
    taken = []

    def take():
        shutil.rmtree(tmp_path / "m")
        (tmp_path / "m.json").unlink()
        (tmp_path / "m").mkdir()
        taken.append(lock_run(tmp_path / "m" / "lock"))
        (tmp_path / "m" / "theirs").write_text("theirs")

    at_steps(monkeypatch, {3: take})
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 50, "--save-every", 0.001)
    assert status == 1 and "another train.py" in said.splitlines()[-1] and "Traceback" not in said
    assert sorted(p.name for p in (tmp_path / "m").iterdir() if p.name not in ("log.jsonl", "tensorboard")) == [
        "lock",
        "theirs",
    ]
    assert not (tmp_path / "m.json").exists()
    taken[0].close()


# -- signals while something else goes on ------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("task", ["saving", "held-out loss"])
def test_a_signal_in_the_first_save(recordings, tmp_path, monkeypatch, task, number):
    beside = session.Session.beside

    @contextlib.contextmanager
    def signalled(self, name, *limit):
        with beside(self, name, *limit) as watch:
            if name == task and not self.stop_signal:
                signal.raise_signal(number)
            yield watch

    monkeypatch.setattr(session.Session, "beside", signalled)
    monkeypatch.setattr(time_budget, "EARLY_STEPS", 0)
    monkeypatch.setattr(time_budget, "SHARE", 1e6)
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 1000, "--save-every", 0.01)
    step = load_run(tmp_path / "m.json")[1].info["step"]
    assert status == 128 + number and f"stopped at step {step}, saved" in said and step < 1000
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_second_ctrl_c_is_not_waited_for(recordings, tiny_run, tmp_path):
    """In the middle of a save that hangs: the process is gone at once, what was saved before is whole, and the same
    command goes on."""
    runs = tmp_path.with_name(f"{tmp_path.name}-runs")  # the recordings' path is relative to the run
    shutil.copytree(tiny_run.parent, runs)
    code = (
        "import session, sys, time, train\n"
        "save = session.save_state\n"
        "def hang(*arguments):\n"
        "    print('HANGS', file=sys.stderr, flush=True); time.sleep(600)\n"
        "session.save_state = hang\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    words = words_of(recordings, runs / "tiny.json", "--steps", 5000)
    process = subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: b'"step": 13' in (runs / "tiny" / "log.jsonl").read_bytes())
        process.send_signal(signal.SIGINT)
        while "HANGS" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
    finally:
        process.kill()
        process.communicate()
    assert load_run(runs / "tiny.json")[1].info["step"] == 12
    status, said = train_here(recordings, runs / "tiny.json", "--steps", 13)
    assert status == 0 and "resumed at step 12" in said


def test_a_clock_that_is_set_back_changes_nothing(recordings, tmp_path, monkeypatch):
    """An hour back with each question: minutes, saves and what is said go by another clock."""
    now = [2e9]

    def back():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back)
    status, said = train_here(recordings, tmp_path / "m.json", "--minutes", 0.03, "--save-every", 0.5)
    info = load_run(tmp_path / "m.json")[1].info
    assert status == 0 and info["seconds"] == pytest.approx(1.8, abs=1.0) and now[0] < 2e9
    assert said.count("saved step") >= 2


# -- memory ------------------------------------------------------------------------------------


def too_much(*_, **__):
    """More than any machine has: the allocator refuses for real."""
    return np.empty(1 << 52, np.float64)


def too_much_for_torch(*_, **__):
    return torch.empty(1 << 52)


@pytest.mark.parametrize("allocate", [too_much, too_much_for_torch])
def test_out_of_memory_in_a_step(recordings, tmp_path, monkeypatch, allocate):
    loss = Trainer._loss
    monkeypatch.setattr(Trainer, "_loss", lambda self, batch: allocate() if self.step == 6 else loss(self, batch))
    monkeypatch.setattr(TimeBudget, "save_interval", lambda self, wanted: wanted)
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 9, "--save-every", 0.001)
    step = load_run(tmp_path / "m.json")[1].info["step"]
    line = said.splitlines()[-1]
    assert status == 1 and line.startswith(f"train.py: {tmp_path / 'm.json'}: out of memory in step 7; ")
    assert f"the state of step {step} stays" in line and "training.batch_size=2" in line and step == 6
    assert "Traceback" not in said and "finished" not in said


def test_a_model_that_fits_into_no_memory(recordings, tmp_path):
    status, said = train_here(recordings, tmp_path / "new" / "m.json", "--set", "model.hidden_size=20000000")
    assert status == 1 and said.splitlines()[-1].startswith("train.py: out of memory; begin with less")
    assert "Traceback" not in said and not (tmp_path / "new" / "m").exists()


def test_out_of_memory_beside_the_steps(recordings, tmp_path, monkeypatch):
    """A preview is left out; a save is tried again, and at the end is told by the status."""
    monkeypatch.setattr(session, "make_preview", too_much)
    words = [word for word in words_of(recordings, tmp_path / "m.json", "--steps", 2) if word != "--no-preview"]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert train.main(words) == 0
    assert "preview: out of memory, left out" in said.getvalue()
    monkeypatch.setattr(session, "save_state", too_much_for_torch)
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 3)
    assert status == 1 and "not saved (out of memory); the state of step 2 stays" in said.splitlines()[-1]
    assert load_run(tmp_path / "m.json")[1].info["step"] == 2


def test_out_of_memory_in_a_rollout(tiny_run, tone, tmp_path, monkeypatch):
    monkeypatch.setattr(takes, "write_takes", too_much_for_torch)
    status, _, said = predict_here(tiny_run, tone, "--frames", 9, "-o", tmp_path / "a.wav")
    assert status == 1 and said.splitlines()[-1].startswith("predict.py: out of memory; ask for fewer")
    assert not (tmp_path / "a.wav").exists()


def test_other_errors_of_the_program_stay_exceptions():
    def fail():
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError):
        exit_status("x", fail, "")
    assert not is_out_of_memory(ValueError("out of memory")) and is_out_of_memory(MemoryError())
