"""State file and metadata: atomic, checksummed, versioned."""

import json
import multiprocessing
import os
import signal
import time

import pytest
import torch

from checkpoint import (
    FORMAT_VERSION,
    load_state,
    new_metadata,
    previous_state,
    read_metadata,
    save_state,
    write_metadata,
)
from conftest import tiny_config
from errors import UserError
from leftovers import sweep_leftovers


def tensors(step: int) -> dict:
    return {
        "a": torch.full((50, 50), float(step)),
        "b": torch.arange(10) + step,
        "c": torch.ones((), dtype=torch.bfloat16),
    }


def test_round_trip(tmp_path):
    path = tmp_path / "s.safetensors"
    save_state(path, tensors(3), {"step": 3, "name": 'quo"te'})
    state = load_state(path)
    assert state.info == {"step": 3, "name": 'quo"te'}
    for name, tensor in tensors(3).items():
        assert torch.equal(state.tensors[name], tensor) and state.tensors[name].dtype == tensor.dtype
    from safetensors.torch import load_file

    assert set(load_file(path)) == {"a", "b", "c"}  # any other tool can read it


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "s.safetensors"
    save_state(path, {"a": torch.arange(40)}, {"step": 1})
    blob = path.read_bytes()
    for place in range(len(blob)):
        damaged = bytearray(blob)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(UserError):
            load_state(path)
    for length in (0, 4, 8, 100, len(blob) - 1):
        path.write_bytes(blob[:length])
        with pytest.raises(UserError):
            load_state(path)


def test_newer_and_foreign_files(tmp_path):
    path = tmp_path / "s.safetensors"
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3)}, path)
    with pytest.raises(UserError, match="not a state file"):
        load_state(path)
    save_state(path, tensors(1), {})
    blob = path.read_bytes().replace(b'"format_version":"%d"' % FORMAT_VERSION, b'"format_version":"9"')
    path.write_bytes(blob)
    with pytest.raises(UserError, match="newer version"):
        load_state(path)


def test_the_previous_state_is_kept_and_named(tmp_path):
    path = tmp_path / "s.safetensors"
    for step in (1, 2, 3):
        save_state(path, tensors(step), {"step": step})
    assert load_state(previous_state(path)).info["step"] == 2
    path.write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=previous_state(path).name):
        load_state(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.previous.safetensors", "s.safetensors"]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_failing_save_leaves_the_old_state(tmp_path, monkeypatch, where):
    path = tmp_path / "s.safetensors"
    save_state(path, tensors(1), {"step": 1})

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr("builtins.open", lambda *a, **k: full())
        else:
            patch.setattr(os, where, full)
        with pytest.raises(OSError):
            save_state(path, tensors(2), {"step": 2})
    sweep_leftovers(tmp_path, held=True)
    assert load_state(path).info["step"] == 1
    assert {p.name for p in tmp_path.iterdir()} <= {"s.safetensors", "s.previous.safetensors"}


def save_for_ever(path):
    step = 0
    while True:
        step += 1
        save_state(path, tensors(step), {"step": step})


def test_killed_at_any_moment(tmp_path):
    """20 times kill -9 while saving: a complete state each time (bench.crash does thousands)."""
    path = tmp_path / "s.safetensors"
    context = multiprocessing.get_context("fork")
    save_state(path, tensors(0), {"step": 0})
    for i in range(20):
        writer = context.Process(target=save_for_ever, args=(path,))
        writer.start()
        time.sleep(0.01 + 0.003 * i)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        state = load_state(path)
        assert torch.equal(state.tensors["a"], tensors(state.info["step"])["a"])
        sweep_leftovers(tmp_path, held=True)
        assert {p.name for p in tmp_path.iterdir()} <= {"s.safetensors", "s.previous.safetensors"}


def test_a_reader_beside_a_writer_sees_whole_states(tmp_path):
    path = tmp_path / "s.safetensors"
    save_state(path, tensors(0), {"step": 0})
    writer = multiprocessing.get_context("fork").Process(target=save_for_ever, args=(path,))
    writer.start()
    try:
        steps, n_loads, deadline = set(), 0, time.monotonic() + 60
        # As many loads as it takes to have met several states: on a slow disk a save takes long.
        while (n_loads < 500 or len(steps) <= 5) and time.monotonic() < deadline:
            state = load_state(path)
            assert torch.equal(state.tensors["a"], tensors(state.info["step"])["a"])
            steps.add(state.info["step"])
            n_loads += 1
    finally:
        writer.kill()
        writer.join()
    assert len(steps) > 5


def test_metadata_round_trip_and_damage(tmp_path):
    path = tmp_path / "m.json"
    metadata = new_metadata(path, tiny_config(), recordings="in", corpus={"seconds": 3.0})
    write_metadata(metadata)
    assert read_metadata(path) == metadata
    blob = path.read_bytes()
    for place in range(0, len(blob), 3):
        damaged = bytearray(blob)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError) as error:
            read_metadata(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, word",
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[" * 100000, "damaged"),
        ('{"a": 1}', "not a metadata file"),
        ("[]", "not a metadata"),
    ],
)
def test_what_is_no_metadata(tmp_path, text, word):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(UserError, match=word):
        read_metadata(path)


def test_newer_and_older_metadata(tmp_path):
    path = tmp_path / "m.json"
    write_metadata(new_metadata(path, tiny_config()))
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format_version": FORMAT_VERSION + 1}))
    with pytest.raises(UserError, match="newer version"):
        read_metadata(path)
    path.write_text(json.dumps({**values, "format_version": FORMAT_VERSION - 1}))
    with pytest.raises(UserError, match="older version"):
        read_metadata(path)


def test_unknown_keys_are_named():
    from config import PRESETS, RunConfig, from_dict, override, to_dict

    values = to_dict(PRESETS["small"])
    assert from_dict(RunConfig, values) == PRESETS["small"]
    values["model"]["hiden_size"] = 5
    with pytest.raises(UserError, match=r"model\.hiden_size.*hidden_size"):
        from_dict(RunConfig, values)
    for bad in (
        "model.hidden_size=big",
        "model.hidden_size",
        "nothing.x=1",
        "featurizer.hop_length=700",
        "training.seed=0.5",
    ):
        with pytest.raises(UserError):
            override(PRESETS["small"], [bad])
    assert override(PRESETS["small"], ["training.learning_rate=1"]).training.learning_rate == 1.0
