"""train.py --from: a run that begins with what another one has learned."""

import shutil

import pytest
import torch

import train as train_script
from checkpoint import load_run
from conftest import assert_one_line, run, tiny_arguments, train
from run_folder import Hold


def begin(recordings, metadata, origin, *arguments):
    """A training that takes its settings from another run."""
    words = [recordings, "--metadata", metadata, "--from", origin, "--threads", 1, "--no-preview", *arguments]
    return run("train.py", *words)


@pytest.mark.parametrize("kind", ["whole", "slim"])
def test_a_run_begins_with_the_weights_of_another(recordings, tiny_run, tmp_path, kind):
    """With its averaged weights, scaler and latents, to the bit, at step 0 and with an optimizer of its own.
    What the metadata say leads back to where it began."""
    origin = tiny_run
    if kind != "whole":
        origin = tmp_path / "origin.json"
        assert train(recordings, origin, "--steps", 3, "--no-preview", "--slim").returncode == 0
    words = [recordings, "--metadata", tmp_path / "m.json", "--from", origin, "--steps", 2, "--threads", 1]
    arguments = train_script.parse_arguments([str(word) for word in words])
    (tmp_path / "m").mkdir()
    hold = Hold(tmp_path / "m" / "lock")
    try:
        session = train_script.begin(arguments, hold)
        trainer, (before, state) = session.trainer, load_run(origin)
        parameters = dict(trainer.model.named_parameters())
        for name, tensor in state.group("average").items():
            assert torch.equal(trainer.average[name], tensor.float()) and torch.equal(parameters[name], tensor.float())
        learned = state.group("model")
        for name, tensor in trainer.model.named_buffers():
            if name in learned:
                assert torch.equal(tensor, learned[name]), name
        assert trainer.step == 0 and not trainer.optimizer.state
        assert session.train() == 0
    finally:
        hold.close()
    metadata, after = load_run(tmp_path / "m.json")
    assert metadata.resolve("origin").resolve() == origin.resolve() and metadata.config == before.config
    assert metadata.preset == before.preset and after.info["step"] == 2
    assert any(not torch.equal(after.group("average")[n], t) for n, t in state.group("average").items())


def test_it_goes_on_by_the_same_command(recordings, tiny_run, tmp_path):
    """In two calls to the same bits as in one, also where the run that it began with is gone; a change of the settings,
    and another run to begin with, are refused."""
    gone, changes = tmp_path / "gone" / tiny_run.name, ("--set", "training.learning_rate=1e-4")
    shutil.copytree(tiny_run.parent, gone.parent)
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    assert begin(recordings, one, gone, *changes, "--steps", 6).returncode == 0
    assert begin(recordings, other, gone, *changes, "--steps", 2).returncode == 0
    shutil.rmtree(gone.parent)
    result = begin(recordings, other, gone, *changes, "--steps", 6)
    assert result.returncode == 0, result.stderr
    a, b = (load_run(path)[1].tensors for path in (one, other))
    assert a.keys() == b.keys() and [name for name in a if not torch.equal(a[name], b[name])] == []
    assert load_run(one)[0].config.training.learning_rate == 1e-4
    result = begin(recordings, other, gone, "--set", "training.learning_rate=1e-3", "--steps", 8)
    assert_one_line(result, "other recordings or settings")
    result = begin(recordings, other, one, *changes, "--steps", 8)
    assert_one_line(result, "other recordings or settings")
    result = train(recordings, other, "--preset", "medium", "--steps", 8)
    assert_one_line(result, "other recordings or settings")


def test_what_cannot_be_begun_with_is_said(recordings, tiny_run, tmp_path):
    """In one line, and nothing is left behind."""
    here = tmp_path / "m.json"
    cases = [
        ((here, tmp_path / "none.json"), "no such metadata file"),
        ((tiny_run, tiny_run, "--force"), "cannot begin --from itself"),
        ((here, tiny_run, "--set", "featurizer.hop_length=64"), "has other frames"),
        ((here, tiny_run, "--set", "model.hidden_size=48"), "of another shape"),
    ]
    for (metadata, origin, *words), said in cases:
        assert_one_line(begin(recordings, metadata, origin, "--steps", 2, *words), said)
    assert list(tmp_path.iterdir()) == []
    result = begin(recordings, here, tiny_run, "--preset", "small", *tiny_arguments())
    assert result.returncode == 2 and "--preset" in result.stderr
    assert load_run(tiny_run)[1].info["step"] == 12
