"""A loss that comes to nothing: what is skipped, what goes back, what ends; and states that are not finite."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

import checkpoint
import predict
import predictor
import train
from checkpoint import NotFinite, State, load_run, load_state, read_metadata, save_state
from conftest import chord, tiny_arguments, tiny_config
from errors import UserError
from featurizer import Featurizer
from predictor import Predictor
from preview import make_preview
from time_budget import TimeBudget
from trainer import Diverged, Trainer


def fresh(trainer) -> Trainer:
    """Another trainer at the same place."""
    return resumed(trainer, trainer.state())


def resumed(trainer, state: State) -> Trainer:
    """A trainer that goes on from a state, as from a file."""
    new = Trainer(trainer.config, trainer.segments, trainer.level, trainer.device)
    tensors = {name: tensor.detach().clone() for name, tensor in state.tensors.items()}
    new.load_state(State(tensors, json.loads(json.dumps(state.info))))
    return new


def spoilt(monkeypatch, steps, factor=float("nan")):
    """Have the loss of some steps multiplied."""
    loss = Trainer._loss

    def spoil(self, batch):
        value = loss(self, batch)
        return value * factor if self.step in steps else value

    monkeypatch.setattr(Trainer, "_loss", spoil)


def same(a: State, b: State) -> bool:
    names = set(a.tensors)
    return a.info == b.info and names == set(b.tensors) and all(torch.equal(a.tensors[n], b.tensors[n]) for n in names)


def train_here(recordings, metadata, *arguments) -> tuple[int, str]:
    words = [recordings, "--metadata", metadata, *tiny_arguments(), "--threads", 1, "--no-preview", *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = train.main([str(word) for word in words])
    return status, said.getvalue()


def predict_here(*arguments) -> tuple[int, str]:
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        status = predict.main([str(word) for word in arguments])
    return status, said.getvalue()


# -- steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e20])
def test_a_skipped_step_changes_neither_weights_nor_average(trainer, monkeypatch, factor):
    """A loss that is finite but 10^20 times too large counts as none."""
    one = fresh(trainer)
    before = one.state()
    kept = {n: t.clone() for n, t in before.tensors.items() if not n.startswith(("carry", "random"))}
    spoilt(monkeypatch, {one.step}, factor)
    one.train_step()
    after = one.state()
    assert (one.n_skipped, one.skipped_in_row, one.step) == (1, 1, trainer.step + 1)
    assert all(torch.equal(kept[name], after.tensors[name]) for name in kept) and one.carry is None
    one.train_step()
    assert (one.n_skipped, one.skipped_in_row) == (1, 0)


def test_a_gradient_that_is_not_finite_is_skipped(trainer):
    one = fresh(trainer)
    hook = one.model.head.mean.weight.register_hook(lambda gradient: gradient * float("inf"))
    assert np.isfinite(one.train_step()["loss"]) and one.skipped_in_row == 1
    hook.remove()
    one.train_step()
    assert one.skipped_in_row == 0


def test_a_hundredfold_loss_is_clipped_as_ever(trainer, monkeypatch):
    one = fresh(trainer)
    spoilt(monkeypatch, {one.step}, 100.0)
    one.train_step()
    assert one.n_skipped == 0


def test_after_twenty_skipped_steps_the_weights_are_their_average_at_half_the_rate(trainer, monkeypatch):
    one, start = fresh(trainer), trainer.step
    average = {name: tensor.clone() for name, tensor in one.average.items()}
    spoilt(monkeypatch, range(start, start + 20))
    rates = []
    for n in range(20):
        assert (one.skipped_in_row, one.n_returns) == (n, 0)
        rates.append(one.train_step()["learning_rate"])
    assert (one.skipped_in_row, one.n_returns, one.n_skipped) == (0, 1, 20)
    assert all(torch.equal(p, average[name]) for name, p in one.model.named_parameters())
    after = one.train_step()["learning_rate"]
    schedule = Trainer._schedule(one) / one._schedule()
    assert schedule == 1 and after / rates[-1] == pytest.approx(0.5, rel=1e-3)
    assert one.n_skipped == 20 and np.isfinite(one.train_step()["loss"])


def test_the_second_time_it_has_diverged(trainer, monkeypatch):
    """The weights are still numbers: nothing that is not one is ever part of a state."""
    one, start = fresh(trainer), trainer.step
    spoilt(monkeypatch, range(start, start + 1000))
    with pytest.raises(Diverged, match="20 steps up to step 240, and 1 return"):
        for _ in range(100):
            one.train_step()
    assert one.step == start + 40 and one.n_returns == 1
    checkpoint.check_finite(one.state().tensors, one.state().info)


def test_an_average_that_is_not_finite_is_nothing_to_go_back_to(trainer, monkeypatch):
    one, start = fresh(trainer), trainer.step
    one.average["head.mean.weight"][0, 0] = float("inf")
    spoilt(monkeypatch, range(start, start + 1000))
    with pytest.raises(Diverged, match="0 returns"):
        for _ in range(20):
            one.train_step()


@pytest.mark.parametrize("at", [7, 19, 20, 23])
def test_a_resume_while_steps_are_skipped_is_exact(trainer, monkeypatch, at):
    """Before the return to the average, at its last step, right after it, and at the smaller rate."""
    start = trainer.state()
    spoilt(monkeypatch, range(trainer.step, trainer.step + 20))
    whole = resumed(trainer, start)
    for _ in range(26):
        whole.train_step()
    expected = whole.state()
    first = resumed(trainer, start)
    for _ in range(at):
        first.train_step()
    second = resumed(trainer, first.state())
    for _ in range(26 - at):
        second.train_step()
    assert whole.n_returns == 1 and same(expected, second.state())


def test_a_steady_tone_trains(tmp_path):
    """Its frames hardly differ, so that a transposed one is far off: the first loss is the measure."""
    waveform = 0.5 * np.sin(2 * np.pi * 440 / 8000 * np.arange(160000))
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", waveform.astype(np.float32), 8000, subtype="FLOAT")
    status, said = train_here(tmp_path / "in", tmp_path / "m.json", "--steps", 25)
    state = load_run(tmp_path / "m.json")[1]
    assert status == 0 and state.info["skipped"] == 0 and "Warning" not in said, said


@pytest.mark.parametrize("value", [1e30, 3e38])
def test_absurd_samples_are_a_line(tmp_path, value):
    waveform = chord(20.0, 8000).astype(np.float64) * value
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", waveform, 8000, subtype="FLOAT")
    status, said = train_here(tmp_path / "in", tmp_path / "m" / "m.json", "--steps", 5)
    (line,) = [line for line in said.splitlines() if line.startswith("train.py: ")]
    assert status == 1 and str(tmp_path / "in") in line and "Traceback" not in said and "finished" not in said
    assert not (tmp_path / "m" / "m").exists() and not (tmp_path / "m" / "m.json").exists()


def test_frames_that_are_not_finite_are_a_line(recordings, tmp_path, monkeypatch):
    """Whatever the decoder lets through, what nothing can be fitted to ends before the first step."""

    def beyond(self, waveform):
        return log_magnitude(self, waveform) + float("inf")

    log_magnitude = Featurizer.log_magnitude
    monkeypatch.setattr(Featurizer, "log_magnitude", beyond)
    status, said = train_here(recordings, tmp_path / "m" / "m.json", "--steps", 5)
    assert status == 1 and said.splitlines()[-1].startswith(f"train.py: {recordings}: the log-magnitude of them is not")
    assert not (tmp_path / "m" / "m").exists() and not (tmp_path / "m" / "m.json").exists()


# -- the command -------------------------------------------------------------------------------


def test_a_learning_rate_of_ten_ends_in_one_line(recordings, tmp_path):
    """For real: the same command again says the same, and a smaller rate trains."""
    for _ in range(2):
        status, said = train_here(
            recordings, tmp_path / "m.json", "--steps", 5000, "--set", "training.learning_rate=10", "--save-every", 1e9
        )
        lines = said.splitlines()
        assert status == 1 and lines[-1].startswith(f"train.py: {tmp_path / 'm.json'}: diverged"), said
        assert "--set training.learning_rate=1 --force" in lines[-1]
        assert sum("go back to their average" in line for line in lines) == 1
        assert "finished" not in said and "hear it" not in said and "Traceback" not in said
    words = ["--steps", 5, "--set", "training.learning_rate=0.01", "--force"]
    assert train_here(recordings, tmp_path / "m.json", *words)[0] == 0


def test_what_diverges_does_not_replace_what_was_good(recordings, tmp_path, monkeypatch):
    spoilt(monkeypatch, range(6, 1000))
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 500, "--save-every", 0.001)
    step = load_run(tmp_path / "m.json")[1].info["step"]
    assert status == 1 and "diverged" in said.splitlines()[-1] and f"the state of step {step} stays" in said
    assert step in {*range(1, 7), 26}  # before the first skipped step, or right after the return
    logged = [json.loads(line) for line in (tmp_path / "m" / "log.jsonl").read_text().splitlines()]
    assert logged and all(np.isfinite(value.get("loss", 0.0)) for value in logged)


def test_a_run_does_not_end_on_a_step_without_a_loss(recordings, tmp_path, monkeypatch):
    spoilt(monkeypatch, {4, 5, 6})
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 5)
    info = load_run(tmp_path / "m.json")[1].info
    assert status == 0 and "finished at step 8" in said
    assert (info["step"], info["skipped"], info["skipped_in_row"], info["returns"]) == (8, 3, 0, 0)


def test_a_return_is_said_and_the_run_goes_on(recordings, tmp_path, monkeypatch):
    spoilt(monkeypatch, range(3, 23))
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 26)
    assert status == 0 and "finished at step 26" in said
    (line,) = [line for line in said.splitlines() if "go back" in line]
    assert line.startswith("step 23: no usable loss in 20 steps") and "0.5 of the rate" in line


@pytest.mark.parametrize(
    "words",
    ["skips_in_row=0", "return_rate=0", "return_rate=1.5", "returns=-1", "explosion=1", "skips_in_row=2.5"],
)
def test_bad_limits_are_refused(words):
    name, _, value = words.partition("=")
    with pytest.raises(UserError, match=f"training.{name} must be"):
        tiny_config(**{f"training__{name}": value})


# -- states ------------------------------------------------------------------------------------

PLACES = [
    "model.basis.mean",
    "model.envelope.usual",
    "model.head.weight",
    "average.head.mean.weight",
    "optimizer.0.exp_avg_sq",
]


def poisoned(run, folder, name, value, monkeypatch):
    """A copy of a run whose state holds a number that is not finite, under a right checksum."""
    shutil.copytree(run.parent, folder)
    path = folder / run.name
    state = load_run(path)[1]
    if name in state.tensors:
        state.tensors[name].view(-1)[-1] = value
    else:
        state.info[name] = value
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "check_finite", lambda *_: None)
        save_state(read_metadata(path).resolve("state"), state.tensors, state.info)
    return path


@pytest.mark.parametrize("name", [*PLACES, "level"])
def test_a_state_that_is_not_finite_is_never_written(tiny_run, tmp_path, name):
    state = load_run(tiny_run)[1]
    path = tmp_path / "s.safetensors"
    save_state(path, state.tensors, state.info)
    before = path.read_bytes()
    for value in (float("nan"), float("-inf")):
        tensors, info = {n: t.clone() for n, t in state.tensors.items()}, dict(state.info)
        if name in tensors:
            tensors[name].view(-1)[0] = value
        else:
            info[name] = value
        with pytest.raises(NotFinite, match=name):
            save_state(path, tensors, info)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


@pytest.mark.parametrize("name", [PLACES[0], PLACES[2], PLACES[3], "level"])
def test_a_state_that_is_not_finite_is_refused_everywhere(recordings, tiny_run, tone, tmp_path, monkeypatch, name):
    """By predict.py, by a resume and by the studio: one line that names it."""
    from studio.worker import Models, answer

    path = poisoned(tiny_run, tmp_path.with_name(f"{tmp_path.name}-runs"), name, float("nan"), monkeypatch)
    status, said = predict_here(path, tone, "--frames", 9, "-o", tmp_path / "out.wav")
    assert status == 1 and len(said.splitlines()) == 1 and "not finite" in said and name in said
    assert "copy state.previous.safetensors over it" in said and not (tmp_path / "out.wav").exists()
    status, said = train_here(recordings, path, "--steps", 20)
    assert status == 1 and name in said.splitlines()[-1] and "not finite" in said and "Traceback" not in said
    (folder := tmp_path / "result").mkdir()
    events = []
    job = {"metadata": str(path), "prompt": str(tone), "name": "tone", "length": 1.0}
    request = {"do": "roll out", "folder": str(folder), "job": job}
    answer(Models(), request, lambda event, **fields: events.append((event, fields)), lambda: False)
    assert [event for event, _ in events] == ["error"] and "not finite" in events[0][1]["text"]
    place = read_metadata(path).resolve("state")
    shutil.copy(checkpoint.previous_state(place), place)
    assert predict_here(path, tone, "--frames", 9, "-o", tmp_path / "out.wav")[0] == 0


def test_what_the_session_cannot_write_is_said(recordings, tmp_path, monkeypatch):
    """A number that breaks in the average: the save in between says so, the last one ends the run with a line."""
    step = Trainer.train_step

    def broken(self):
        result = step(self)
        if self.step == 4:
            self.average["head.mean.bias"][0] = float("nan")
        return result

    monkeypatch.setattr(Trainer, "train_step", broken)
    monkeypatch.setattr(TimeBudget, "save_interval", lambda self, wanted: wanted)
    status, said = train_here(recordings, tmp_path / "m.json", "--steps", 7, "--save-every", 0.001)
    assert status == 1 and "not saved (average.head.mean.bias is not finite)" in said
    assert "the next save tries again" in said and said.splitlines()[-1].startswith("train.py: ")
    stays = load_run(tmp_path / "m.json")[1].info["step"]
    assert stays == 3 and f"the state of step {stays} stays" in said.splitlines()[-1]


def test_half_precision_that_overflows_is_not_written(trainer, tmp_path):
    one = fresh(trainer)
    one.average["head.mean.weight"][0, 0] = 1e6
    slim = one.slim_state()
    with pytest.raises(NotFinite, match=r"average\.head\.mean\.weight"):
        save_state(tmp_path / "s.safetensors", slim.tensors, slim.info)
    assert not list(tmp_path.iterdir())


def test_sound_that_is_not_finite_is_not_written(trainer, tiny_run, tone, tmp_path, monkeypatch):
    """The weights are numbers, what they make is none: no file, one line; and no preview."""
    sound = predictor.continue_waveform
    monkeypatch.setattr(predictor, "continue_waveform", lambda *arguments: sound(*arguments) * float("nan"))
    status, said = predict_here(tiny_run, tone, "--frames", 300, "-o", tmp_path / "out.wav")
    assert status == 1 and "not finite" in said.splitlines()[-1] and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["tone.wav"]
    with pytest.raises(FloatingPointError):
        make_preview(Predictor.from_state(trainer.config, trainer.state()), trainer.segments[0], lambda share: None)


def test_a_shipped_state_is_finite():
    """What is refused must not be what is shipped."""
    for path in sorted((checkpoint.Path(checkpoint.__file__).parent / "metadata").glob("*.json")):
        assert load_state(read_metadata(path).resolve("state")).info["step"] > 0
