"""What each knob of a rollout does to what is heard, in numbers: whatever could be left out without an error, from the
prompt to the file and to the visitor of the studio who waits for it."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest
import soundfile
import torch

import predictor as predictor_module
import voice
from checkpoint import new_metadata, save_state, write_metadata
from config import FeaturizerConfig
from featurizer import Featurizer
from meter import Meter
from phase import CROSSFADE, continue_waveform
from predictor import Predictor
from prompt import Prompt, general_midi
from score.performance import Change, Instrument, Note, Performance
from score.player import synthesize
from takes import lengths

RATE, FRAMING = 8000, FeaturizerConfig(8000, 512, 128)


def decibels(waveform) -> float:
    """RMS in dB re full scale."""
    return float(10 * np.log10(np.square(np.asarray(waveform, np.float64)).mean() + 1e-20))


@pytest.fixture(scope="module")
def prompts(corpus) -> list[torch.Tensor]:
    """Three of different lengths, all longer than a frame."""
    return [
        torch.from_numpy(corpus.recordings[0].read(at, n)) for at, n in ((20000, 4001), (40000, 2500), (60000, 700))
    ]


# -- the join ----------------------------------------------------------------------------------


@pytest.mark.parametrize("hertz", [437.0, 1000.0])
def test_a_sine_goes_on_where_it_was(predictor, hertz):
    """With true magnitudes, the phase of what follows the prompt is that of the sine, within a third of what it turns
    in one sample, at the join and a tenth of a second later."""
    turn = 2 * np.pi * hertz / RATE
    waveform = torch.from_numpy(0.2 * np.sin(turn * np.arange(12000))).float()[None]
    again = predictor.reconstruct(waveform, 4000, codec=False)[0].numpy()
    for first in (4000 - CROSSFADE, 4000, 4800):
        places = np.arange(first, first + 160)
        window = np.hanning(160)
        found = (window * again[places] * np.exp(-1j * turn * places)).sum()
        assert abs(np.angle(1j * found)) < turn / 3, first
        assert 2 * abs(found) / window.sum() == pytest.approx(0.2, rel=0.1)


def test_a_continuation_fades_out_of_the_prompt(corpus):
    """Of what is to follow, though it is another place of the recording: the share that the fade says, in each of the
    prompt's last samples; none of it in the first, all of it in the last."""
    featurizer, recording = Featurizer(FRAMING), corpus.recordings[0]
    known = torch.from_numpy(recording.read(20000, 512))[None]
    other = featurizer.log_magnitude(torch.from_numpy(recording.read(90000, 512 + 30 * 128))[None])
    new = continue_waveform(featurizer, known, other, 4)
    left = (new - known[:, -CROSSFADE:].mean())[0, :CROSSFADE] - (known[0, -CROSSFADE:] - known[:, -CROSSFADE:].mean())
    usual = float(known.square().mean().sqrt())
    assert left[0].abs() < 1e-6
    assert left[:12].abs().max() < 0.01 * usual  # where the fade has 0.5 %
    assert left[-64:].abs().max() > 0.05 * usual  # it is another sound


def test_what_fades_in_is_the_same_sound(recordings):
    """With the true magnitudes of 16 places, what fades in under the prompt's last samples is what they are: the
    median of the error has less than 3 % of the power."""
    waveform = torch.from_numpy(soundfile.read(sorted(recordings.iterdir())[1], dtype="float32")[0])
    pieces = waveform[22050:].unfold(0, 16384, 22050)[:16]
    featurizer = Featurizer(FeaturizerConfig())
    new = continue_waveform(featurizer, pieces[:, :2048], featurizer.log_magnitude(pieces)[:, 1:], 4)
    true = pieces[:, 2048 - CROSSFADE :][:, : new.shape[1]]
    error = (new - true)[:, :CROSSFADE].square().mean(1) / true.square().mean(1)
    assert len(error) == 16 and error.median() < 0.03


def test_each_future_goes_on_from_its_own_prompt(predictor, prompts):
    """The first sample of a stream is the prompt's own, of each prompt and each of its futures."""
    first = next(iter(predictor.stream(prompts, 4, n_futures=2)))[:, 0]
    expected = torch.stack([prompt[-CROSSFADE] for prompt in prompts for _ in (0, 1)])
    torch.testing.assert_close(first, expected, atol=1e-6, rtol=0)
    assert len(expected.unique()) == 3


# -- what is sampled -----------------------------------------------------------------------------


def test_the_options_of_a_stream_reach_the_samples(predictor, prompts, monkeypatch):
    """Temperature, and the tempo of each prompt, where it is known."""
    taken, tempos, original = set(), [], predictor._packed.next_frames
    prompt_pulse = predictor_module.prompt_pulse

    def next_frames(state, temperature, generator):
        taken.add(temperature)
        return original(state, temperature, generator)

    def pulse(prompt, framing, quarters_per_minute):
        tempos.append(quarters_per_minute)
        return prompt_pulse(prompt, framing, quarters_per_minute)

    monkeypatch.setattr(predictor._packed, "next_frames", next_frames)
    monkeypatch.setattr(predictor_module, "prompt_pulse", pulse)
    next(iter(predictor.stream(prompts, 4, 0.3, tempos=[60.0, None, 90.0])))
    assert taken == {0.3} and tempos == [60.0, None, 90.0]
    with pytest.raises(ValueError, match="shorter"):  # no prompt is left out for want of a tempo
        next(iter(predictor.stream(prompts, 4, tempos=[60.0])))


@pytest.mark.parametrize("n_steps", [0, 3])
def test_the_phase_takes_the_steps_of_the_configuration(predictor, prompts, monkeypatch, n_steps):
    taken, original = set(), predictor_module.continue_waveform

    def continued(featurizer, known, log_magnitude, n_steps, phase=None):
        taken.add(n_steps)
        return original(featurizer, known, log_magnitude, n_steps, phase)

    monkeypatch.setattr(predictor_module, "continue_waveform", continued)
    model = dataclasses.replace(predictor.config.model, phase_steps=n_steps)
    config = dataclasses.replace(predictor.config, model=model)
    next(iter(dataclasses.replace(predictor, config=config).stream(prompts, 4)))
    assert taken == {n_steps}


def test_the_state_before_the_newest_can_be_heard(trainer, tmp_path):
    """Loading a run gives its newest weights, or those of the save before."""
    metadata = new_metadata(tmp_path / "m.json", trainer.config)
    write_metadata(metadata)
    state = trainer.state()
    for step in (1, 2):
        save_state(metadata.resolve("state"), state.tensors, {**state.info, "step": step})
    assert Predictor.load(metadata.path).step == 2
    assert Predictor.load(metadata.path, previous=True).step == 1


# -- the prompt --------------------------------------------------------------------------------


def test_treble_dies_away_faster_than_bass_in_a_room():
    """Within a third of a second of a room of 1 s, by 8 to 20 dB more above 8 kHz than below 1 kHz, which by 18."""
    from scipy.signal import butter, sosfilt

    rate = 22050
    click = torch.zeros(rate)
    click[0] = 1
    tail = voice.reverberate(click, rate, 1.0).numpy()[250:]
    falls = []
    for form in (butter(4, 1000, "low", fs=rate, output="sos"), butter(4, 8000, "high", fs=rate, output="sos")):
        band = sosfilt(form, tail)
        falls.append(decibels(band[6600:8800]) - decibels(band[:2200]))
    assert falls[0] == pytest.approx(-18, abs=2) and -20 < falls[1] - falls[0] < -8


def played(*notes: Note, changes=(), channels: int = 1, program: int = 19) -> np.ndarray:
    """By an organ of the General MIDI soundfont."""
    performance = Performance(list(notes), [Instrument(program)], list(changes))
    return synthesize(performance, 22050, general_midi(), channels)


def test_what_is_on_the_left_is_in_the_left_channel():
    """An instrument panned to one side is 10 dB louder there; the first channel is the left one."""
    for pan, loud in ((0, 0), (127, 1)):
        sides = played(Note(0.0, 1.0, 60, 90, 0), changes=[Change(0.0, 0, "control", pan, 10)], channels=2)
        assert decibels(sides[loud]) > decibels(sides[1 - loud]) + 10


def test_loud_notes_are_louder():
    """A velocity of 120 is 6 dB and more above one of 40; the same notes at the same velocity are equally loud."""
    loud, soft = (decibels(played(Note(0.0, 1.0, 60, velocity, 0))) for velocity in (120, 40))
    assert loud > soft + 6


def test_bars_are_counted_for_the_slowest_prompt():
    """Two bars of each of two prompts: as many frames as the longer ones need, and the length of each."""
    prompts = [Prompt("a", None, Meter(120, 4, 4)), Prompt("b", None, Meter(60, 3, 4))]
    n_frames, seconds = lengths(FRAMING, prompts, bars=2)
    assert seconds == [4.0, 6.0] and n_frames == int(np.ceil(6.0 * FRAMING.frame_rate))


# -- the studio: who waits for a rollout -------------------------------------------------------


def test_who_listens_is_not_forgotten():
    """Whoever iterates over a rollout is there, however long it has waited in the queue before: the time at which it
    was last seen is now, with every message."""
    from studio.rollouts import Rollout

    waiting = Rollout(1, {})
    for event in ("begun", "progress", "done"):
        waiting.messages.put({"event": event})
    seen = []
    for _ in waiting:
        seen.append(waiting.heard)
        waiting.heard = 0.0
    assert len(seen) == 3 and min(seen) > 0 and not waiting.stopped


def test_requests_of_the_studio_are_answered_in_their_order(monkeypatch, tmp_path):
    """Five visitors, the third of whom leaves while he waits: the others get theirs, in the order in which they came,
    also where the child dies in between."""
    from errors import UserError
    from studio.job import Job
    from studio.rollouts import Rollouts

    order, gate = [], threading.Event()

    class Child:
        def kill(self):
            pass

        def wait(self):
            pass

    def follow(self, rollout):
        gate.wait(30)
        order.append((rollout.number, self._child is not None))
        if rollout.number == 2:
            raise OSError("the child has ended")
        rollout.messages.put({"event": "done", "number": rollout.number})

    monkeypatch.setattr(Rollouts, "_start", lambda self: setattr(self, "_child", Child()))
    monkeypatch.setattr(Rollouts, "_follow", follow)
    rollouts = Rollouts()
    visitors = [rollouts.submit(Job("m.json", "p.mid"), tmp_path) for _ in range(5)]
    visitors[2].stopped = True
    gate.set()
    answers = []
    for visitor in visitors:
        try:
            answers.append([message["number"] for message in visitor])
        except UserError as error:
            answers.append(str(error).split()[0])
    assert answers == [[1], "The", "Stopped.", [4], [5]]
    assert order == [(1, True), (2, True), (4, True), (5, True)]


def test_the_studio_hands_out_nothing_but_its_own_files(tmp_path):
    """Paths that lead out of the folder, or name no file in a folder of it, are refused; so is what is no token."""
    pytest.importorskip("starlette", reason="the studio needs Gradio (requirements-studio.txt)")
    from studio.guard import Guard
    from studio.storage import Storage

    guard = Guard(None, tmp_path, True, None, 1)
    assert guard._is_file(f"{tmp_path}/a/b.mid")
    for path in ("/etc/passwd", f"{tmp_path}/a", f"{tmp_path}/a/../../b", f"{tmp_path}evil/a/b", f"{tmp_path}/../a/b"):
        assert not guard._is_file(path), path
    storage = Storage()
    try:
        token, folder = storage.new_result()
        assert storage.result(token) == folder
        for wrong in (f"{token}/", f"{token}/../{token}", f"{token}\n", token[:-1], "", ".."):
            assert storage.result(wrong) is None, wrong
    finally:
        storage.close()


def test_models_that_nobody_plays_are_let_go(trainer, tmp_path):
    """Of three runs the two that were played last are kept; a state that is replaced is loaded anew."""
    from studio.worker import Models

    paths, state, models = [], trainer.state(), Models()
    for name in "abc":
        metadata = new_metadata(tmp_path / f"{name}.json", trainer.config)
        write_metadata(metadata)
        save_state(metadata.resolve("state"), state.tensors, {**state.info, "step": 1})
        paths.append(metadata)
    a, b = (models.get(metadata.path, False) for metadata in paths[:2])
    assert models.get(paths[0].path, False) is a
    models.get(paths[2].path, False)
    assert [key[0].stem for key in models.loaded] == ["a", "c"] and models.get(paths[0].path, False) is a
    save_state(paths[0].resolve("state"), state.tensors, {**state.info, "step": 2})
    assert models.get(paths[0].path, False).step == 2 and b.step == 1


def test_what_is_heard_meanwhile_is_what_is_made(tmp_path):
    """Samples of two takes, in pieces, beyond the end: little-endian 16 bits, as many as were asked for, and left
    before right."""
    from studio.worker import Listening

    random = np.random.default_rng(0)
    takes = [random.uniform(-1.2, 1.2, (2, 1000)).astype(np.float32) for _ in (0, 1)]
    listening = Listening([tmp_path / "1.pcm", tmp_path / "2.pcm"], 900, 2)
    for (start, stop), index in itertools.product(((0, 300), (300, 301), (301, 1000)), (0, 1)):
        listening.hear(index, takes[index][:, start:stop])
    listening.close()
    for name, take in zip(("1.pcm", "2.pcm"), takes, strict=True):
        heard = np.frombuffer((tmp_path / name).read_bytes(), "<i2").reshape(-1, 2)
        np.testing.assert_allclose(heard.T / 32767, take[:, :900].clip(-1, 1), atol=1 / 32767)
