"""Time in a training: what is counted, what is bounded, what is given up, what is said; and what is left behind."""

import contextlib
import copy
import io
import json
import signal
import subprocess
import time

import numpy as np
import pytest
import regex
import soundfile
import torch

import provenance
import session
import time_budget
import train as train_script
from checkpoint import load_run, read_metadata
from config import YOUNG_STEPS, is_young
from conftest import assert_one_line, chord, run, start_training, tiny_arguments, tiny_config, wait_for
from dataset import split, spread_chunks
from device import use_threads
from predictor import Predictor
from run_folder import lock_run
from run_log import Progress, duration
from time_budget import TimeBudget
from trainer import Abandoned, Trainer


def train_here(recordings, metadata, *arguments) -> tuple[int, str]:
    """Status and stderr of a tiny training in this process."""
    words = [recordings, "--metadata", metadata, *tiny_arguments(), "--threads", 1, *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = train_script.main([str(word) for word in words])
    return status, said.getvalue()


# -- the budget --------------------------------------------------------------------------------


def test_a_tenth_of_the_time_is_for_all_that_is_not_a_step():
    budget = TimeBudget()
    assert budget.limit("preview", step=99, step_seconds=1e6) is None  # young
    assert budget.limit("preview", 200, 29.0) is None  # taken to need 3 s
    assert budget.limit("preview", 200, 31.0) == pytest.approx(3.1)
    budget.book("preview", 2.0)
    budget.book("saving", 1.0)
    assert budget.left(81.0) == pytest.approx(5.1)
    assert budget.limit("preview", 200, 49.0) is None  # 1.9 s are left, 2 needed
    assert budget.limit("preview", 200, 51.0) == pytest.approx(2.1)
    budget.book("preview", 2.1, complete=False)
    assert budget.limit("preview", 200, 92.0) is None  # given up after 2.1 s: 4.2 are needed
    assert budget.limit("preview", 3, 1.0, last=True) == time_budget.LAST_SECONDS
    budget.book("preview", 20.0)
    assert budget.limit("held-out loss", 3, 1.0, last=True) == pytest.approx(time_budget.LAST_SECONDS - 20)
    budget.book("held-out loss", 11.0)
    assert budget.limit("preview", 3, 1.0, last=True) is None
    assert budget.limit("preview", 3, 1e4, last=True) == pytest.approx(1e3 - 36.1)
    assert str(budget) == "preview 24.1 s, saving 1.0 s, held-out loss 11.0 s"


def test_saves_are_rarer_where_they_are_slow():
    budget = TimeBudget()
    assert budget.save_interval(60) == 60
    budget.book("saving", 9.0)
    assert budget.save_interval(60) == pytest.approx(90)


def test_minutes_count_steps_only(recordings, tmp_path, monkeypatch):
    """With a held-out loss that takes 3 s at each save: the steps have 6 s of their own, and the closing line says
    where the time went."""

    def slow(self, segments, watch):
        for i in range(30):
            time.sleep(0.1)
            watch(i / 30)
        return 1.0

    monkeypatch.setattr(Trainer, "held_out_loss", slow)
    monkeypatch.setattr(time_budget, "EARLY_STEPS", 0)
    monkeypatch.setattr(time_budget, "SHARE", 10)
    status, said = train_here(recordings, tmp_path / "m.json", "--minutes", 0.1, "--save-every", 2, "--no-preview")
    assert status == 0
    _, state = load_run(tmp_path / "m.json")
    assert abs(state.info["seconds"] - 6.0) < 0.5
    (line,) = [line for line in said.splitlines() if line.startswith("finished")]
    assert float(regex.search(r"held-out loss ([\d.]+) s", line).group(1)) > 8
    assert f"{duration(state.info['seconds'])} in {state.info['step']} steps" in line
    for word in ("saving", "decoding", "latents"):
        assert word in line


def test_a_held_out_loss_that_takes_too_long_is_left_out(recordings, tmp_path, monkeypatch):
    """The state is saved all the same."""
    monkeypatch.setattr(time_budget, "LAST_SECONDS", 0.01)
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 3, "--no-preview")
    assert status == 0 and "held-out loss: not done within 0 s, left out" in said
    assert load_run(tmp_path / "m.json")[1].info["step"] == 3


# -- signals -----------------------------------------------------------------------------------


def signalled(recordings, tmp_path, monkeypatch, task):
    """A training that gets SIGINT in the middle of a task; what it said after it."""
    began = {}

    class Interrupted(session.Session):
        @contextlib.contextmanager
        def beside(self, name, limit=float("inf")):
            with super().beside(name, limit) as watch:
                if name == task and not began:
                    signal.raise_signal(signal.SIGINT)
                    began["at"] = time.monotonic()
                yield watch

    monkeypatch.setattr(session, "Session", Interrupted)
    monkeypatch.setattr(time_budget, "EARLY_STEPS", 0)
    monkeypatch.setattr(time_budget, "SHARE", 1e6)
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 1000, "--save-every", 0.5)
    return status, said, began["at"]


@pytest.mark.parametrize("task", ["held-out loss", "preview"])
def test_a_signal_gives_up_what_is_being_done_and_saves(recordings, tmp_path, monkeypatch, task):
    status, said, _ = signalled(recordings, tmp_path, monkeypatch, task)
    assert status == 128 + signal.SIGINT
    assert f"{task}: given up" in said and "Traceback" not in said
    step = load_run(tmp_path / "m.json")[1].info["step"]
    assert f"stopped at step {step}, saved" in said
    after = said.split(f"{task}: given up")[1]
    assert not any(f"{other} (Ctrl-C" in after for other in ("held-out loss", "preview"))


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_signal_in_a_step_undoes_it(recordings, tmp_path, monkeypatch, where):
    """The step in which it comes has not been: what is saved goes on to the same bits as a training without it."""
    began = []
    if where == "forward":
        loss = Trainer._loss

        def interrupted(self, batch):
            result = loss(self, batch)  # the dice are thrown, the LSTM's state is that of the next step
            if self.step == 5 and not began:
                began.append(1)
                signal.raise_signal(signal.SIGTERM)
            return result

        monkeypatch.setattr(Trainer, "_loss", interrupted)
    else:
        clip = torch.nn.utils.clip_grad_norm_

        def interrupted(parameters, limit):
            began.append(1)
            if len(began) == 6:
                signal.raise_signal(signal.SIGTERM)
            return clip(parameters, limit)

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", interrupted)
    words = ["--save-every", 1000, "--no-preview"]
    assert train_here(recordings, tmp_path / "broken.json", "--steps", 8, *words)[0] == 128 + signal.SIGTERM
    assert load_run(tmp_path / "broken.json")[1].info["step"] == 5
    assert train_here(recordings, tmp_path / "broken.json", "--steps", 8, *words)[0] == 0
    assert train_here(recordings, tmp_path / "whole.json", "--steps", 8, *words)[0] == 0
    one, other = (load_run(tmp_path / f"{name}.json")[1].tensors for name in ("broken", "whole"))
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_a_held_out_loss_is_watched_in_each_layer(trainer, corpus):
    """And is the same for it; given up, the weights and the LSTM's state are as they were."""
    held_out, seen = split(corpus, 0.1)[1], []
    loss = trainer.held_out_loss(held_out)
    assert trainer.held_out_loss(held_out, watch=seen.append) == loss
    assert len(seen) > 20 and seen == sorted(seen)
    before, carry = copy.deepcopy(trainer.model.state_dict()), trainer.carry

    def watch(share):
        if share > 0:
            raise Abandoned

    with pytest.raises(Abandoned):
        trainer.held_out_loss(held_out, watch=watch)
    after = trainer.model.state_dict()
    assert trainer.carry is carry and all(torch.equal(before[name], after[name]) for name in before)
    assert not any(layer._forward_pre_hooks for layer in trainer.model.modules())


def test_after_a_signal_there_is_no_held_out_loss(recordings, tmp_path):
    process = start_training(recordings, tmp_path / "m.json", "--minutes", 60, "--save-every", 1)
    wait_for((tmp_path / "m" / "state.safetensors").exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    after = errors.split("saved step")[-1]
    assert "held-out" not in after.split("stopped at")[0] and "preview" not in after.split("stopped at")[0]


# -- what is said ------------------------------------------------------------------------------


def test_a_task_is_told_while_it_lasts():
    """Also in the middle of a call, with the seconds that it has taken; the innermost one, and no more after it."""
    stream = io.StringIO()
    progress = Progress(stream, every=0.2)
    with progress.task("training") as task:
        task.fraction = 0.5
        with progress.task("saving"):
            time.sleep(1.7)
        lines = stream.getvalue().splitlines()
        assert len(lines) >= 3 and lines[0] == "  0.0 %  saving" and lines[-1] == "  0.0 %  saving, 1 s"
        progress.update(0.75, 61.0, "step 3")
        time.sleep(0.7)
    lines = stream.getvalue().splitlines()[len(lines) :]
    assert len(lines) >= 2 and set(lines) == {" 75.0 %  1:01 left, step 3"}
    time.sleep(0.5)
    assert len(stream.getvalue().splitlines()) == len(lines) + stream.getvalue().count("saving")


def test_young_states_are_announced(recordings, tmp_path):
    assert is_young(YOUNG_STEPS - 1) and not is_young(YOUNG_STEPS)
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 2, "--no-preview")
    assert status == 0 and "step 2, young, loss" in said and "saved step 2 (young" in said


def test_young_states_are_no_louder_than_the_corpus(corpus):
    """Three continuations of 5 s of each of twelve prompts, by states of 10 and of 30 steps: against their prompts,
    they are at most 2 dB louder in the median than what really follows, and none by 8 dB."""
    trainer = Trainer(tiny_config(), split(corpus, 0.1)[0], corpus.level, torch.device("cpu"))
    trainer.fit()
    pieces = torch.from_numpy(np.stack(list(spread_chunks(trainer.segments, 12, 8 * 8000, seed=5))))
    prompts, follows = pieces[:, : 3 * 8000], pieces[:, 3 * 8000 :]

    def louder(waveform):
        power = waveform.square().mean(-1) / prompts.square().mean(-1)
        return 10 * power.log10()

    for steps in (10, 30):
        while trainer.step < steps:
            trainer.train_step()
        predictor = Predictor.from_state(trainer.config, trainer.state())
        several = [predictor.continue_(prompts, 5 * 8000 // 128, seed=seed)[:, 3 * 8000 :] for seed in (1, 2, 3)]
        excess = torch.cat([louder(out) - louder(follows) for out in several])
        assert float(excess.median()) < 2 and float(excess.max()) < 8, (steps, excess)


def test_threads_are_given_back():
    torch.set_num_threads(2)
    try:
        with use_threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# -- what is left behind -----------------------------------------------------------------------


@pytest.mark.parametrize("case", ["nothing usable", "unknown key", "device", "no folder", "expression"])
def test_a_refused_training_leaves_nothing_behind(tmp_path, case):
    folder, words = tmp_path / "in", []
    folder.mkdir()
    soundfile.write(folder / "a.wav", chord(3.0, 8000), 8000)
    if case == "nothing usable":
        (folder / "a.wav").write_text("x")
    elif case == "unknown key":
        words = ["--set", "model.hiden_size=3"]
    elif case == "device":
        words = ["--device", "cuda" if not torch.cuda.is_available() else "mps"]
    elif case == "no folder":
        folder = tmp_path / "nowhere"
    else:
        words = ["--include", "("]
    before = sorted(tmp_path.rglob("*"))
    status, said = train_here(folder, tmp_path / "new" / "runs" / "m.json", "--steps", 1, *words)
    assert status == 1 and "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refused_training_leaves_what_was_there(recordings, tiny_run):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.parent.rglob("*") if path.name != "lock"}
    status, said = train_here(recordings, tiny_run, "--steps", 20, "--seed", 7)
    assert status == 1 and "--force" in said
    after = {path: path.stat().st_mtime_ns for path in tiny_run.parent.rglob("*") if path.name != "lock"}
    assert {p for p in before if p.is_file()} == {p for p in after if p.is_file()}
    assert all(after[path] == before[path] for path in before if path.is_file())


def test_metadata_is_named_after_the_folder(tmp_path, monkeypatch):
    """A run of one WAV file: metadata/FILE.json here; "1 recording", not "1 recordings"."""
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "my song!.wav", chord(3.0, 8000), 8000)
    words = ["my song!.wav", *tiny_arguments(), "--threads", 1, "--steps", 1, "--no-preview"]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert train_script.main([str(word) for word in words]) == 0
    assert said.getvalue().splitlines()[0] == "my song!.wav -> metadata/my-song.json"
    assert "corpus: 1 recording," in said.getvalue() and "in 1 step;" in said.getvalue()
    assert read_metadata(tmp_path / "metadata" / "my-song.json").config.model.hidden_size == 32
    names = {"pcm-22050": "run-pcm-22050", "/": "recordings", "a/b.c": "b.c", "..": tmp_path.parent.name}
    for folder, name in names.items():  # the first is that of decoded audio in metadata/
        assert train_script.default_metadata(session.Path(folder)) == session.Path("metadata") / f"{name}.json"


def test_metadata_says_where_a_run_comes_from(recordings, tmp_path):
    """Each session of it; a resume with other threads is the same run."""
    for steps in (1, 2):
        assert train_here(recordings, tmp_path / "m.json", "--steps", steps, "--no-preview")[0] == 0
    metadata = read_metadata(tmp_path / "m.json")
    one, other = metadata.sessions
    assert one["from_step"] == 0 and other["from_step"] == 1
    assert one["torch"] == torch.__version__ and one["device"] == "cpu" and one["threads"] == 1
    assert one["command"].startswith("train.py ") and "--steps 1 --no-preview" in one["command"]
    names = {"from_step", "commit", "python", "torch", "device", "threads", "corpus_sha256", "command"}
    assert set(one) == names and one["corpus_sha256"] == metadata.corpus["sha256"]
    assert regex.fullmatch("[0-9a-f]{64}", metadata.corpus["sha256"])
    report = json.loads((tmp_path / "m" / "corpus.json").read_text())
    assert report["sha256"] == metadata.corpus["sha256"]
    shipped = read_metadata(session.Path(session.__file__).parent / "metadata" / "chorales.json")
    assert isinstance(shipped.sessions, list)


def test_what_is_other_in_a_session_is_said(recordings, tmp_path):
    """A resume with another number of threads is the same run, is recorded, and is not promised to the bit."""
    assert train_here(recordings, tmp_path / "m.json", "--steps", 1, "--no-preview")[0] == 0
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 2, "--no-preview", "--threads", 2)
    torch.set_num_threads(1)
    assert status == 0 and "resumed at step 1 (other threads than before" in said
    assert [x["threads"] for x in read_metadata(tmp_path / "m.json").sessions] == [1, 2]


def test_sessions_are_bounded():
    """A metadata file has 1 MiB at most."""
    sessions = []
    for step in range(250):
        sessions = provenance.added(sessions, {"from_step": step})
    assert len(sessions) == 100
    assert [x["from_step"] for x in sessions] == [0, *range(151, 250)]


def test_the_commit_is_that_of_this_project(tmp_path, monkeypatch):
    """None where the project was unpacked into a repository of something else, or into none."""
    assert provenance.commit() is None or regex.fullmatch(r"[0-9a-f]{40}\+?", provenance.commit())
    (tmp_path / "inside").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "inside" / "provenance.py"))
    assert provenance.commit() is None
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert provenance.commit() is None


def test_who_is_refused_a_held_run_removes_nothing_of_it(recordings, tmp_path):
    """Not even where that run has made nothing but its lock yet."""
    (tmp_path / "new" / "m").mkdir(parents=True)
    handle = lock_run(tmp_path / "new" / "m" / "lock")
    status, said = train_here(recordings, tmp_path / "new" / "m.json", "--steps", 1)
    assert status == 1 and "another train.py" in said
    assert [path.name for path in (tmp_path / "new").rglob("*")] == ["m", "lock"]
    handle.close()


def test_train_without_recordings_is_refused(tmp_path):
    assert_one_line(run("train.py", tmp_path / "none", cwd=tmp_path), "none: no such folder")
    assert not list(tmp_path.iterdir())
