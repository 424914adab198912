"""What bench.sound trains and judges: seeds, variants, one training at several times, and a bench that was broken off.

Tiny models, trained in this process, with as many steps as minutes are asked for, and a cheap embedding in place of
MusiCNN's: its own rows are tested in test_sound.py.
"""

import importlib.util
import json
import math
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import seeds, sound, trainings
from checkpoint import read_metadata, summarize_state
from conftest import TINY, run
from errors import UserError

TINIER = {**TINY, "training.hold_out": 0.3}
SHORT = ["--prompts", "2", "--seconds", "3", "--long", "6", "--threads", "1"]


class Levels:
    """In place of MusiCNN: the levels of eight parts of each window."""

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        n = windows.shape[1] // 8 * 8
        return windows[:, :n].reshape(len(windows), 8, -1).square().mean(-1).clamp(min=1e-9).log()


class Trainer:
    """In place of a process: train.py in this one, for a step in place of each minute. ``calls`` are the command lines,
    ``breaks_off`` the number of the call that is interrupted."""

    def __init__(self):
        self.calls, self.breaks_off = [], None

    def start(self, *words):
        self.calls.append([str(word) for word in words])
        return SimpleNamespace(wait=self.wait, terminate=lambda: None)

    def wait(self) -> int:
        if self.breaks_off == len(self.calls):
            self.breaks_off = None
            raise KeyboardInterrupt
        words = self.calls[-1]
        place = words.index("--minutes")
        return run(*words[:place], "--steps", round(float(words[place + 1])), *words[place + 2 :]).returncode

    @property
    def trained(self) -> list[tuple[str, str]]:
        """The name of each run, and its minutes."""
        at = [(call[call.index("--metadata") + 1], call[call.index("--minutes") + 1]) for call in self.calls]
        return [(path.rpartition("/")[2].removesuffix(".json"), minutes) for path, minutes in at]


@pytest.fixture(scope="module")
def patched():
    """Trainings and embeddings of this module."""
    pytest.importorskip("musicnn", reason="bench.sound needs musicnn (requirements-metrics-nodeps.txt)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.musicnn.MusiCNN", Levels)
        patch.setattr("device.n_usable_cores", lambda: 1)
        yield patch


@pytest.fixture
def trainer(patched):
    """In place of the processes that a test starts."""
    trainer = Trainer()
    patched.setattr(trainings, "start", trainer.start)
    return trainer


def settings(**more) -> list[str]:
    return [word for key, value in {**TINIER, **more}.items() for word in ("--set", f"{key}={value}")]


def results_of(out) -> dict:
    rows = json.loads((out / "results.json").read_text())["rows"]
    return {row["row"]: row for row in rows}


@pytest.fixture(scope="module")
def compared(recordings, tmp_path_factory, patched):
    """A bench of two seeds of two variants, stereo and without a codec: its folder, its rows, and what was trained."""
    out, trainer = tmp_path_factory.mktemp("compared"), Trainer()
    patched.setattr(trainings, "start", trainer.start)
    variants = ["--variant", "plain", "--variant", "other:training.learning_rate=0.0005,model.hidden_size=16"]
    sets = settings(**{"featurizer.channels": 2})
    words = [recordings, "--preset", "original", *sets, *variants, "--seeds", 2, "--minutes", 10, *SHORT]
    assert sound.main([str(word) for word in (*words, "--skip-notes", "--out", out)]) == 0
    return out, results_of(out), trainer


def test_variants_and_seeds_take_turns(compared):
    out, rows, trainer = compared
    order = ["original-plain-seed0", "original-other-seed0", "original-plain-seed1", "original-other-seed1"]
    assert [name for name, _ in trainer.trained] == order
    for name in order:
        config = read_metadata(out / f"{name}.json").config
        other = "other" in name
        assert (config.training.seed, config.training.learning_rate) == (int(name[-1]), 0.0005 if other else 0.001)
        assert (config.model.hidden_size, config.featurizer.channels) == (16 if other else 32, 2)
        assert (out / name / "state.safetensors").exists()
        steps = summarize_state(out / name / "state.safetensors").step
        assert rows[f"{name}, step {steps}"]["step"] == steps > 0


def test_a_row_of_means_stands_beside_those_of_the_seeds(compared):
    out, rows, _ = compared
    for variant in ("plain", "other"):
        mean = rows[f"original-{variant}, mean of 2 (spread)"]
        own = [row for name, row in rows.items() if name.startswith(f"original-{variant}-seed") and "step" in name]
        assert [row["row"] for row in own] == mean["mean_of"]
        figures = {key for key, value in own[0].items() if isinstance(value, (int, float))}
        assert {"fad", "onsets_share", "usual_movement", "drift_level_5", "held_out_loss", "minutes"} <= figures
        for key in figures:
            values = [row[key] for row in own]
            assert mean[key] == pytest.approx(statistics.mean(values)), key
            assert mean["spread"][key] == pytest.approx(statistics.stdev(values), abs=1e-9), key
        assert mean["held_out_loss"] > 0 and mean["spread"]["held_out_loss"] > 0
        line = next(line for line in (out / "table.md").read_text().splitlines() if mean["row"] in line)
        assert f"| {mean['fad']:.1f} ± {mean['spread']['fad']:.1f} |" in line
    assert len([name for name in rows if "mean of" in name]) == 2


def test_the_held_out_loss_is_that_of_the_log(compared):
    """Of the state that is judged, as train.py has logged it with its last save."""
    out, rows, _ = compared
    for name in ("original-plain-seed0", "original-other-seed1"):
        lines = [json.loads(line) for line in (out / name / "log.jsonl").read_text().splitlines()]
        step, logged = [(line["step"], line["held_out_loss"]) for line in lines if "held_out_loss" in line][-1]
        assert rows[f"{name}, step {step}"]["held_out_loss"] == pytest.approx(logged, rel=1e-5)


def test_what_really_follows_is_the_measure(compared):
    out, rows, _ = compared
    real = rows["real, what follows"]
    assert real["onsets_share"] == 1 and 0 <= real["usual_movement"] <= 1
    for row in rows.values():
        # Of two rollouts of 6 s; what is not a model's lasts 3 s.
        assert row["drift_n_5"] == (2 if "step" in row or row is real else 0)
        assert row["ends_well"] <= row["long_rollouts"]
        assert row["usual_movement"] <= min(row[f"usual_{name}"] for name in ("onsets", "flux", "self_similarity"))
        if row is not real:
            assert row["onsets_share"] == pytest.approx(row["movement_onsets"] / real["movement_onsets"])
    text = (out / "table.md").read_text()
    assert max(line.count("|") for line in text.splitlines()) <= 14  # twelve figures and the name
    assert text.count("| real, what follows |") >= 5


def test_the_pictures_show_every_model(compared):
    from PIL import Image

    out, _, _ = compared
    for name, rows in (("rollouts.png", 2), ("long.png", 2)):
        width, height = Image.open(out / name).size
        assert height == rows * 225 and width == pytest.approx(5 * 5 * 90, abs=5)  # what follows, and four models
    assert (out / "sound.png").read_bytes().startswith(b"\x89PNG")


# -- one training at several times -------------------------------------------------------------


@pytest.fixture(scope="module")
def grown(recordings, tmp_path_factory, patched):
    """A bench of one training at two times, broken off in the second of them."""
    out, trainer = tmp_path_factory.mktemp("grown"), Trainer()
    patched.setattr(trainings, "start", trainer.start)
    words = [recordings, "--preset", "small", *settings(), "--minutes", 10, 20, *SHORT, "--out", out]
    if importlib.util.find_spec("basic_pitch") is None or importlib.util.find_spec("onnxruntime") is None:
        words.append("--skip-notes")
    words = [str(word) for word in words]
    trainer.breaks_off = 2
    assert sound.main(words) == 130
    assert not (out / "results.json").exists()
    assert {path.name for path in (out / "small-after-10min").iterdir()} == {
        "state.safetensors", "log.jsonl", "corpus.json"
    }  # fmt: skip
    first = (out / "small-after-10min" / "state.safetensors").read_bytes()
    assert sound.main(words) == 0
    return out, results_of(out), trainer, first


def test_a_bench_that_was_broken_off_goes_on(grown):
    """The first time was kept, and is not trained again."""
    out, _, trainer, first = grown
    assert trainer.trained == [("small", minutes) for minutes in ("10.0", "20.0", "20.0")]
    assert (out / "small-after-10min" / "state.safetensors").read_bytes() == first


def test_each_time_has_its_state_and_its_row(grown):
    out, rows, _, _ = grown
    models = [row for row in rows.values() if "step" in row]
    assert [row["step"] for row in models] == [10, 20]
    for row, minutes in zip(models, (10, 20), strict=True):
        kept = read_metadata(out / f"small-after-{minutes}min.json")
        state = summarize_state(kept.resolve("state"))
        assert row["row"] == f"small, after {minutes} min, step {minutes}" and state.resumable
        assert state.step == minutes and row["minutes"] == pytest.approx(state.seconds / 60)
        assert math.isfinite(row["held_out_loss"])
    assert models[0]["minutes"] < models[1]["minutes"]
    assert summarize_state(out / "small" / "state.safetensors").step == 20
    # The codec is that of the run, at all times: it is measured once.
    assert [name for name in rows if "codec only" in name] == ["small, after 20 min, codec only"]


def test_chords_stand_beside_those_of_what_really_follows(grown):
    _, rows, _, _ = grown
    real, models = rows["real, what follows"], [row for row in rows.values() if "step" in row]
    if "notes" not in real:
        pytest.skip("basic-pitch is not installed (requirements-metrics-nodeps.txt)")
    assert real["notes_share"] == real["voices_share"] == real["chords_per_bar_share"] == 1
    assert real["chords_per_bar"] > 0 and real["chords_repeated_more"] == 0 and real["without_tempo"] == 0
    for row in models:
        assert row["notes_share"] == pytest.approx(row["notes"] / real["notes"])
        assert row["voices_share"] == pytest.approx(row["polyphony"] / real["polyphony"])
        assert row["without_tempo"] == 0 and row["chords_per_bar"] >= 0


def test_a_time_that_was_not_kept_is_refused_before_anything_is_trained(grown, trainer, recordings):
    out, _, _, _ = grown
    long_ago = f"{summarize_state(out / 'small' / 'state.safetensors').seconds / 60 / 4:.3g}"
    words = [recordings, "--preset", "small", *settings(), "--minutes", long_ago, "20", "30", "--out", out]
    arguments = sound.parse_arguments([str(word) for word in words])
    with pytest.raises(UserError, match=rf"small.json: has been trained for .* leave {float(long_ago):g} out of"):
        trainings.train_all(arguments)
    assert not trainer.calls


# -- what can be said without training ---------------------------------------------------------


def test_a_variant_comes_after_what_is_set_for_all():
    first, second = trainings.plan(["small"], ["a:model.dropout=0.5", "b"], ["model.dropout=0.1"], 1)
    assert first.overrides == ("model.dropout=0.1", "model.dropout=0.5", "training.seed=0")
    assert second.overrides == ("model.dropout=0.1", "training.seed=0")
    assert [first.name, second.name] == ["small-a", "small-b"]
    assert [t.name for t in trainings.plan(["small", "large"], n_seeds=2)] == [
        "small-seed0", "large-seed0", "small-seed1", "large-seed1"
    ]  # fmt: skip
    (own,) = trainings.plan(["small"], overrides=["training.seed=7"])
    assert own.name == "small" and own.overrides == ("training.seed=7",)


def test_times_take_turns_as_well():
    """The hour in which a machine is slow must not be that of one variant."""
    trainings_of = trainings.plan(["small"], ["a", "b"], n_seeds=2)
    order = [(training.name, minutes) for training, minutes in trainings.calls(trainings_of, [20.0, 60.0])]
    assert order == [
        (f"small-{variant}-seed{seed}", minutes) for seed in (0, 1) for minutes in (20.0, 60.0) for variant in "ab"
    ]


def test_a_mean_tells_of_how_many_it_is():
    rows = [
        {"row": "a", "fad": 1.0, "fad_interval": (0.5, 2.0), "bass": 0.5, "copies": [1, 2], "n": 4, "x": None},
        {"row": "b", "fad": 2.0, "fad_interval": (1.5, 3.0), "bass": math.nan, "copies": [3, 4], "n": 4, "x": None},
        {"row": "c", "fad": 6.0, "fad_interval": (5.5, 7.0), "bass": np.float32(1.5), "copies": [5, 6], "n": 4},
    ]
    mean = seeds.mean_row("model", rows)
    assert mean["row"] == "model, mean of 3 (spread)" and mean["mean_of"] == ["a", "b", "c"]
    assert mean["fad"] == 3 and mean["spread"]["fad"] == pytest.approx(math.sqrt(7))
    assert mean["fad_interval"] == [2.5, 4.0] and "copies" not in mean and "x" not in mean
    assert mean["bass"] == 1 and mean["counted"] == {"bass": 2}
    assert mean["n"] == 4 and mean["spread"]["n"] == 0
    json.dumps(sound.plain(mean), allow_nan=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "2", "--set", "training.seed=1"], "--seeds 2: counts training.seed itself"),
        (["--seeds", "0"], "--seeds 0"),
        (["--variant", "a:model.dropout=0.1", "--variant", "a"], "has a name twice"),
        (["--variant", "a:model.drpout=0.1"], "did you mean 'dropout'"),
        (["--variant", "a:model.dropout"], "write SECTION.KEY=VALUE"),
        (["--variant", "a/b"], "--variant 'a/b': write NAME:KEY=VALUE"),
        (["--variant", "a-seed1"], "choose another name"),
        (["--set", "model.hidden=1"], "unknown key"),
        (["--minutes", "20", "10"], "--minutes 20 10: must ascend"),
        (["--minutes", "0", "10"], "--minutes 0: must be above 0"),
        (["--long-prompts", "33"], "--long-prompts 33: must be 1 to --prompts, 32"),
        (["--metadata", "m.json", "--seeds", "2"], "--seeds: says how models are trained"),
        (["--metadata", "m.json", "--variant", "a"], "--variant: says how models are trained"),
        (["--metadata", "m.json", "--minutes", "1", "2"], "--minutes: says how models are trained"),
    ],
)
def test_mistakes_are_one_line_before_any_training(trainer, recordings, tmp_path, capsys, words, said):
    assert sound.main([str(recordings), *words, "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("bench.sound: ") and said in line
    assert not trainer.calls and not (tmp_path / "out").exists()


def test_a_training_that_fails_is_named(trainer, recordings, tmp_path):
    arguments = sound.parse_arguments([str(recordings / "none"), "--preset", "small", "--out", str(tmp_path)])
    with pytest.raises(UserError, match=r"small.json: its training ended with status 1"):
        trainings.train_all(arguments)
