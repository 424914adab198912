"""What each knob of a training does to what is learned, in numbers: whatever could be left out without an error."""

import copy
import dataclasses
import os
import stat

import numpy as np
import pytest
import torch

from checkpoint import State, load_state, save_state, write_atomic
from config import FeaturizerConfig
from conftest import tiny_config
from dataset import AudioDataset, Segment, split, spread_chunks
from errors import UserError
from featurizer import Featurizer
from model_definition import build_model
from predictor import Predictor
from regression import RegressionLSTM
from spectral.patches import PatchBasis
from trainer import Trainer

CPU, RATE = torch.device("cpu"), 8000


class Ramp:
    """A recording whose samples are their own places, so that a window tells where it has been cut."""

    def __init__(self, n_samples: int, name: str = "ramp"):
        self.n_samples, self.name = n_samples, name

    def read(self, start: int, n_samples: int) -> np.ndarray:
        return np.arange(start, start + n_samples, dtype=np.float32)


def plain(**changes):
    """A tiny configuration without transposition, stretch and gain."""
    plain = {"training__transpose": 0.0, "training__stretch": 0.0, "training__gain_db": 0.0}
    return tiny_config(**{**plain, **changes})


def new_trainer(corpus, **changes) -> Trainer:
    """A tiny model that has seen nothing, with the basis of nothing."""
    return Trainer(tiny_config(model__pulse="false", **changes), split(corpus, 0.1)[0], corpus.level, CPU)


def fresh_copy(trainer: Trainer, **changes) -> Trainer:
    """A trainer of the same recordings, in the state of ``trainer``; ``changes`` in its configuration."""
    state = trainer.state()
    tensors = {name: t.clone() for name, t in state.tensors.items()}
    again = Trainer(
        dataclasses.replace(trainer.config, training=dataclasses.replace(trainer.config.training, **changes)),
        trainer.segments,
        trainer.level,
        CPU,
    )
    again.load_state(State(tensors, state.info))
    return again


# -- which music is heard ----------------------------------------------------------------------


def test_windows_begin_anywhere_in_a_recording():
    """Of 600 windows in a recording of 100,000 samples the first samples are uniform: their mean and deviation within
    5 %, their range to within 1 % of both ends."""
    config = plain(training__batch_size=60, training__windows_per_episode=1)
    dataset = AudioDataset([Segment(Ramp(100_000), 0, 100_000)], config.featurizer, config.training)
    starts = torch.cat([dataset[step]["waveforms"][0][:, 0] for step in range(10)]).numpy()
    room = 100_000 - (8 * 128 + 512)
    assert starts.mean() == pytest.approx(room / 2, rel=0.05)
    assert starts.std() == pytest.approx(room / np.sqrt(12), rel=0.05)
    assert starts.min() < 0.01 * room and starts.max() > 0.99 * room


def test_episodes_are_at_other_places():
    """No two of ten episodes begin at the same samples."""
    config = plain(training__windows_per_episode=3)
    dataset = AudioDataset([Segment(Ramp(100_000), 0, 100_000)], config.featurizer, config.training)
    starts = torch.cat([dataset[3 * episode]["waveforms"][0][:, 0] for episode in range(10)])
    assert len(starts.unique()) == len(starts)


def test_pieces_that_the_basis_is_fitted_to_begin_anywhere():
    """200 pieces of 100 samples, one from each two hundredth of a recording; not all of them at its beginning."""
    pieces = spread_chunks([Segment(Ramp(100_000), 0, 100_000)], 200, 100, seed=0)
    starts = np.array([piece[0] for piece in pieces])
    assert (np.diff(starts) > 0).all() and (np.abs(starts - 500 * np.arange(200)) <= 500).all()
    assert (starts % 500).std() == pytest.approx(500 / np.sqrt(12), rel=0.15)


def test_windows_have_gains_of_as_many_decibels():
    """Of 600 rows, uniform from -6 to 6 dB: the ends are reached within 0.1 dB, the deviation within 5 %."""
    loud, own = (plain(training__batch_size=60, training__gain_db=gain) for gain in (6.0, 0.0))
    segments = [Segment(Ramp(100_000), 0, 100_000)]
    one, other = (AudioDataset(segments, own.featurizer, config.training) for config in (loud, own))
    rows = [(one[3 * i]["waveforms"][0][:, -1], other[3 * i]["waveforms"][0][:, -1]) for i in range(10)]
    decibels = torch.cat([20 * torch.log10(a / b) for a, b in rows]).numpy()
    assert decibels.min() == pytest.approx(-6, abs=0.1) and decibels.max() == pytest.approx(6, abs=0.1)
    assert decibels.std() == pytest.approx(12 / np.sqrt(12), rel=0.05) and abs(decibels.mean()) < 0.3


def test_the_pulse_is_that_of_the_frame_that_is_predicted(monkeypatch):
    """The first of a window is of its second frame: at the middle of that, to the sample."""
    asked = []
    monkeypatch.setattr(
        AudioDataset, "_pulse", lambda self, recording, times: asked.append(times) or np.zeros((len(times), 2), "c8")
    )
    config = plain(training__batch_size=1)
    dataset = AudioDataset([Segment(Ramp(100_000), 0, 100_000)], config.featurizer, config.training, pulses={})
    first = float(dataset[0]["waveforms"][0][0, 0])
    np.testing.assert_allclose(asked[0] * RATE, first + 256 + 128 * np.arange(1, 9), atol=1e-6)


def test_frames_are_as_far_apart_as_they_are_asked_for():
    """Frame t of another hop is the transform of the samples from t times that hop on."""
    featurizer, waveform = Featurizer(FeaturizerConfig(RATE, 512, 128)), torch.randn(4000)
    spectrum = featurizer.stft(waveform, 150)
    assert len(spectrum) == 1 + (4000 - 512) // 150
    torch.testing.assert_close(spectrum[7], featurizer.stft(waveform[7 * 150 :][:512])[0])


def test_held_out_loss_is_that_of_what_is_held_out(trainer, corpus):
    """Of noise it is another one than of recordings, by 0.2 nats; of nothing there is none."""

    class Noise(Ramp):
        def read(self, start: int, n_samples: int) -> np.ndarray:
            return 0.1 * np.random.default_rng(start).standard_normal(n_samples).astype(np.float32)

    noise = trainer.held_out_loss([Segment(Noise(200_000, "noise"), 0, 200_000)], n_batches=1)
    assert abs(noise - trainer.held_out_loss(split(corpus, 0.1)[1], n_batches=1)) > 0.2
    assert np.isnan(trainer.held_out_loss([]))


# -- how it is learned -------------------------------------------------------------------------


def test_the_seed_is_that_of_the_weights(corpus):
    """The same for the same seed, and for another seed all weight matrices are others."""
    one, again, other = (new_trainer(corpus, training__seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    drawn = [name for name in one if name.endswith(".weight") and one[name].dim() == 2 and one[name].std() > 0]
    assert {"input.weight", "reference.weight", "noise_level.weight"} <= set(drawn)
    assert not any(torch.equal(one[name], other[name]) for name in drawn)
    for name in ("layers.0.weight_ih_l0", "head.component_mean"):
        assert not torch.equal(one[name], other[name])


def test_the_learning_rate_rises_and_falls(trainer):
    """A straight line over the warm-up, all of it at its end, half of it three decays later; what is said is what the
    optimizer takes."""
    again, taken = fresh_copy(trainer), []
    again.optimizer.step = lambda: taken.append(again.optimizer.param_groups[0]["lr"])
    training = again.config.training
    late = training.warmup_steps + 3 * training.decay_steps
    for step, share in ((0, 1 / 100), (49, 0.5), (100, 1.0), (late, 0.5)):
        again.step = step
        result = again.train_step()
        assert result["learning_rate"] == taken[-1] == pytest.approx(share * training.learning_rate, rel=1e-6)


def test_gradients_are_clipped(trainer):
    """Their norm, as the optimizer gets it, is what it may be at most; without a limit, it is larger."""
    norms = []
    for clip in (1e-3, 1e6):
        again = fresh_copy(trainer, gradient_clip=clip)

        def step(again=again):
            grads = [p.grad for p in again.model.parameters() if p.grad is not None]
            norms.append(float(torch.stack([g.norm() for g in grads]).norm()))

        again.optimizer.step = step
        said = again.train_step()["gradient_norm"]
    assert norms[0] == pytest.approx(1e-3, rel=1e-2)
    assert norms[1] == pytest.approx(said, rel=1e-3) and norms[1] > 0.01


def test_weights_decay(trainer):
    """A step with a weight decay of 5 ends where one without ends, less learning rate times 5 times the weight."""
    ends = []
    for decay in (0.0, 5.0):
        again = fresh_copy(trainer, weight_decay=decay)
        before = again.model.head.mean.weight.detach().clone()
        torch.manual_seed(0)  # the same noise for both
        rate = again.train_step()["learning_rate"]
        ends.append(again.model.head.mean.weight.detach().clone())
    torch.testing.assert_close(ends[1], ends[0] - 5.0 * rate * before, atol=1e-6, rtol=1e-4)


def test_the_average_is_one(trainer):
    """Late, it keeps 0.999 of itself and takes the rest from the newest weights; in the first steps, it follows: of the
    first step's weights it has nine tenths."""
    again = fresh_copy(trainer)
    for step, keep in ((0, 0.1), (10_000, again.config.training.ema_decay)):
        again.step = step
        before = {name: t.clone() for name, t in again.average.items()}
        again.train_step()
        newest = dict(again.model.named_parameters())
        moved = 0.0
        for name, old in before.items():
            expected = keep * old + (1 - keep) * newest[name].detach()
            torch.testing.assert_close(again.average[name], expected, atol=1e-6, rtol=1e-5)
            moved += float((newest[name].detach() - old).abs().sum())
        assert moved > 0  # else nothing is told


def test_what_is_heard_is_the_average(trainer):
    """Predictions have the averaged weights, and the training its own afterwards."""
    again = fresh_copy(trainer)
    again.average = {name: torch.full_like(t, 0.25) for name, t in again.average.items()}
    own = {name: p.detach().clone() for name, p in again.model.named_parameters()}
    with again._averaged() as model:
        assert all((p == 0.25).all() for p in model.parameters())
    assert all(torch.equal(own[name], p) for name, p in again.model.named_parameters())
    heard = Predictor.from_state(again.config, again.state()).model
    assert all((p == 0.25).all() for p in heard.parameters())


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(trainer):
    """In the middle of an episode, two steps later: weights, averages, moments, carry and random states, to the bit."""
    whole, states = fresh_copy(trainer), []
    while whole.step % 3 != 1:
        whole.train_step()
    random = torch.get_rng_state()
    resumed = fresh_copy(whole)
    assert torch.equal(torch.get_rng_state(), random)
    for one in (whole, resumed):
        torch.set_rng_state(random)
        one.train_step()
        one.train_step()
        states.append(one.state())
    a, b = states
    assert a.info == b.info and set(a.tensors) == set(b.tensors) and "carry.lstm" in a.tensors
    assert [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])] == []


def test_the_lstm_goes_on_from_window_to_window(trainer, monkeypatch):
    """In an episode of three windows the second and the third begin with the state that the one before ended with."""
    again, heard = fresh_copy(trainer), []
    original = again.model.loss

    def loss(frames, state, *rest):
        result = original(frames, state, *rest)
        heard.append((state, result[1]))
        return result

    monkeypatch.setattr(again.model, "loss", loss)
    again.step = 300  # the first of an episode
    for _ in range(4):
        again.train_step()
    states = [state for state, _ in heard]
    assert states[0] is None and states[3] is None
    for place in (1, 2):
        before = heard[place - 1][1]
        assert all(torch.equal(states[place][name], before[name]) for name in ("lstm", "reference"))
        assert states[place]["lstm"].abs().max() > 0.01


# -- noise -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy():
    """An untrained model of one layer, of which half is dropped; its basis knows nothing."""
    config = tiny_config(model__n_layers=1, model__hidden_size=256, model__dropout=0.5, model__pulse="false")
    torch.manual_seed(0)
    return build_model(config.featurizer, config.model)


def test_half_of_the_lstm_is_dropped_in_training_alone(noisy):
    """Within 5 % of half of what a layer adds is 0, the same places in all patches; the rest is doubled."""
    model = copy.deepcopy(noisy)
    model.norm = torch.nn.Identity()
    conditions, nothing = torch.randn(20, 7, 256), torch.zeros(20, 7, 24)
    with torch.no_grad():
        model.input.bias.zero_()
        plain = model.eval()._run(nothing, conditions)[0] - conditions
        dropped = model.train()._run(nothing, conditions)[0] - conditions
    gone = dropped.abs() < 1e-7
    assert gone.float().mean() == pytest.approx(0.5, abs=0.05) and torch.equal(gone, gone[:, :1].expand_as(gone))
    torch.testing.assert_close(dropped[~gone], 2 * plain[~gone], atol=1e-5, rtol=1e-4)


def test_the_history_has_noise_whose_level_is_told(noisy, monkeypatch):
    """In training, at a level of its own in each sequence, the square of a uniform share of history_noise, and at the
    same variance; the LSTM is given the level. What is held out has none."""
    model, given = copy.deepcopy(noisy), {}
    model.config = dataclasses.replace(model.config, history_noise=0.5)
    latents = torch.randn(2000, 9, 24)
    monkeypatch.setattr(model.basis, "encode", lambda frames: latents)

    def run(history, conditions, state=None):
        given.update(history=history, conditions=conditions)
        raise StopIteration

    monkeypatch.setattr(model, "_run", run)
    torch.manual_seed(0)
    for mode in (True, False):
        with pytest.raises(StopIteration), torch.no_grad():
            model.train(mode).loss(torch.zeros(2000, 36, 257))
        noise = given["history"] - latents[:, :-1]
        if not mode:
            assert not noise.any() and torch.equal(given["conditions"][0, 0], model.no_reference)
            break
        told = given["conditions"][:, 0] - model.no_reference
        levels = told @ model.noise_level.weight[:, 0] / model.noise_level.weight.square().sum()
        assert levels.mean().item() == pytest.approx(0.5 / 3, rel=0.1) and 0.45 < levels.max() <= 0.5
        assert given["history"].std().item() == pytest.approx(1, abs=0.01)
        rms = noise.square().mean((1, 2)).sqrt()
        expected = (2 - 2 * (1 - levels**2).sqrt()).sqrt()
        torch.testing.assert_close(rms, expected, atol=0.02, rtol=0.15)


def test_some_sequences_are_not_told_what_they_are_about(noisy):
    """One in ten has no reference in training, the others have theirs under noise of 0.3 deviations; in rollouts each
    has its own, as it is."""
    model = copy.deepcopy(noisy)
    with torch.no_grad():
        model.no_reference.fill_(50.0)
        model.reference.weight.zero_()
        model.reference.weight[:24] = torch.eye(24)
        reference = torch.ones(5000, 24)
        torch.manual_seed(0)
        told = model.train()._conditions(reference, None, 5000)[:, 0]
        assert torch.equal(model.eval()._conditions(reference, None, 5000)[:, 0, :24], reference)
    without = (told == 50.0).all(-1)
    assert without.float().mean() == pytest.approx(0.1, rel=0.15)
    own = told[~without][:, :24]
    assert own.mean() == pytest.approx(1, abs=0.01) and own.std() == pytest.approx(0.3, rel=0.03)


def test_bass_counts_more_than_treble():
    """Bins weigh by the density of the mel scale: at 2.1 kHz, where 1 + f / 700 is 4, half as much as at 0 Hz; both
    channels alike."""
    config = tiny_config(featurizer__channels=2, featurizer__n_fft=400, featurizer__hop_length=100)  # 20 Hz a bin
    weight = PatchBasis(config.featurizer, config.model).weight
    assert weight[[0, 105]].tolist() == pytest.approx([1.0, 0.5])
    assert torch.equal(weight[:201], weight[201:])


# -- what is kept ------------------------------------------------------------------------------


def watched(monkeypatch) -> list[tuple]:
    """What is synced and renamed from now on: ``("file" or "folder", inode)`` and ``("rename", name)``."""
    seen, fsync, replace = [], os.fsync, os.replace

    def sync(handle):
        status = os.fstat(handle)
        seen.append(("folder" if stat.S_ISDIR(status.st_mode) else "file", status.st_ino))
        fsync(handle)

    def rename(source, target):
        seen.append(("rename", os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    return seen


@pytest.mark.parametrize("what", ["state", "metadata", "audio"])
def test_what_is_saved_survives_a_power_cut(tmp_path, monkeypatch, what):
    """The bytes are on the disk before they get their name, and the name is afterwards: the file is synced, renamed,
    then its folder is synced."""
    path = tmp_path / "x"
    seen = watched(monkeypatch)
    if what == "state":
        save_state(path, {"a": torch.ones(3)}, {"step": 1})
    elif what == "metadata":
        write_atomic(path, b"text")
    else:
        from audio_file import AudioFile, AudioFormat

        with AudioFile(path, AudioFormat("wav", 16, RATE, 1), RATE) as file:
            file.write(np.zeros(100, np.float32))
            file.finish()
    assert seen == [("file", path.stat().st_ino), ("rename", "x"), ("folder", tmp_path.stat().st_ino)]


def test_a_state_is_written_beside_the_one_before(tmp_path):
    """The old file keeps its bytes, under the name of the previous one: what has it open reads on."""
    path = tmp_path / "s.safetensors"
    save_state(path, {"a": torch.zeros(3)}, {"step": 1})
    with open(path, "rb") as held:
        save_state(path, {"a": torch.ones(3)}, {"step": 2})
        old = held.read()
    assert old == (tmp_path / "s.previous.safetensors").read_bytes() and load_state(path).info["step"] == 2


def test_frames_overlap_by_three_quarters_at_least():
    """With less, the phase cannot be repaired: such a hop is refused."""
    assert FeaturizerConfig(RATE, 512, 128).hop_length == 128
    with pytest.raises(UserError, match=r"featurizer\.hop_length"):
        FeaturizerConfig(RATE, 512, 256)


# -- the parts of the models -------------------------------------------------------------------


def test_the_original_design_reads_its_own_output():
    """Its window moves on by the frame that it made; what it predicts then is of that window."""
    config = tiny_config(model__head="regression", model__hidden_size=8, model__pulse="false", training__transpose=0.0,
                         training__stretch=0.0)  # fmt: skip
    torch.manual_seed(0)
    model = RegressionLSTM(config.featurizer, config.model).eval()
    frames = torch.randn(2, 12, 2 * 257)
    with torch.no_grad():
        state = model.prefill(frames)
        torch.testing.assert_close(state.window[..., :257], frames[:, 2:, :257].exp())
        first, after = model.next_frames(state)
        assert torch.equal(after.window[:, :-1], state.window[:, 1:])
        torch.testing.assert_close(first[:, 0, 257:], after.window[:, -1, 257:])
        torch.testing.assert_close(model.next_frames(after)[0][:, 0, 257:], model._predict(after.window)[:, 257:])


def test_a_run_is_held_by_one_training(tmp_path):
    """While it is held, another training is refused in one line; afterwards it is free."""
    from run_folder import lock_run

    with lock_run(tmp_path / "lock"), pytest.raises(UserError, match="another train"):
        lock_run(tmp_path / "lock")
    lock_run(tmp_path / "lock").close()
