"""Two channels from the file to the WAV: side by side in the frames, apart in the store, together in phase."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch

from checkpoint import Metadata, _json_digest, load_run, read_metadata, save_state, write_metadata
from config import FeaturizerConfig
from conftest import PROMPT, ROOT, assert_one_line, chord, run, tiny_config, train
from corpus import open_corpus
from dataset import AudioDataset, split
from decoding import to_channels
from errors import UserError
from featurizer import Featurizer
from phase import CROSSFADE, continue_waveform
from predictor import Predictor
from prompt import load_prompt
from trainer import Trainer

RATE = 8000
CONFIG = FeaturizerConfig(RATE, 512, 128, channels=2)
CPU = torch.device("cpu")


def notes(seed: int, seconds: float) -> np.ndarray:
    """Decaying tones with four partials, two a second and each of another pitch. ``[n_samples]`` float32"""
    random, t = np.random.default_rng(seed), np.arange(RATE) / RATE
    waveform = np.zeros(int((seconds + 1) * RATE))
    for start in range(0, int(seconds * RATE), RATE // 2):
        phase = 2 * np.pi * 110 * 2 ** (random.integers(0, 30) / 12) * t
        waveform[start : start + RATE] += np.exp(-3 * t) * sum(np.sin(k * phase) / k for k in range(1, 5))
    return (0.15 * waveform[: int(seconds * RATE)]).astype(np.float32)


def level_db(waveform: torch.Tensor) -> torch.Tensor:
    """RMS in dB. Shape: ``[..., n_samples]`` -> ``[...]``"""
    return 10 * waveform.square().mean(-1).clamp(min=1e-20).log10()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two recordings hard left, two hard right, one in the middle, one of both; 12 s each."""
    folder = tmp_path_factory.mktemp("stereo")
    gains = {"left0": (1, 0), "left1": (1, 0), "right0": (0, 1), "right1": (0, 1), "middle": (0.7, 0.7)}
    for seed, (name, gain) in enumerate(gains.items()):
        soundfile.write(folder / f"{name}.wav", notes(seed, 12)[:, None] * np.array(gain), RATE)
    both = np.stack([notes(10, 12), notes(11, 12)], 1)
    soundfile.write(folder / "wide.wav", both @ np.array([[0.9, 0.3], [0.3, 0.9]]), RATE)
    return folder


@pytest.fixture(scope="module")
def stereo(folder, tmp_path_factory):
    return open_corpus(folder, tmp_path_factory.mktemp("store"), RATE, channels=2)


@pytest.fixture(scope="module")
def predictor(stereo):
    """An untrained model with the codec of these recordings: all that :meth:`Predictor.reconstruct` needs."""
    torch.set_num_threads(1)
    changes = {"model__n_components": 96, "model__n_latents": 96, "featurizer__channels": 2}
    trainer = Trainer(tiny_config(**changes), split(stereo, 0)[0], stereo.level, CPU)
    trainer.fit()
    return Predictor.from_state(trainer.config, trainer.state())


@pytest.fixture(scope="module")
def large_run(folder, tmp_path_factory):
    """The metadata file of four steps of the preset ``large``, shrunk, on stereo recordings. Read only."""
    metadata = tmp_path_factory.mktemp("run") / "large.json"
    result = train(folder, metadata, *LARGE, "--steps", 4)
    assert result.returncode == 0, result.stderr
    return metadata


LARGE = ("--preset", "large")


def recording(corpus, name: str) -> torch.Tensor:
    """The whole of one recording, ``[1, 2, n_samples]``."""
    found = next(r for r in corpus.recordings if r.name == f"{name}.wav")
    return torch.from_numpy(found.read(0, found.n_samples))[None]


# -- frames ------------------------------------------------------------------------------------


def test_frames_of_both_channels_lie_side_by_side():
    """The halves of a frame are the frames of left and right alone, exactly; the round trip has 90 dB or more."""
    waveform = 0.1 * torch.randn(3, 2, 5001, generator=torch.Generator().manual_seed(0))
    both, alone = Featurizer(CONFIG), Featurizer(dataclasses.replace(CONFIG, channels=1))
    assert CONFIG.n_bins == 2 * 257 and CONFIG.n_channel_bins == 257
    for part, start in zip(both.frames(waveform).chunk(2, -1), alone.frames(waveform).chunk(2, -1), strict=True):
        assert torch.equal(part, torch.cat([start[:, 0], start[:, 1]], -1))
    assert torch.equal(both.log_magnitude(waveform)[..., 257:], alone.log_magnitude(waveform[:, 1]))
    again = both.waveform(both.frames(waveform), 5001)
    assert again.shape == waveform.shape
    assert float((level_db(waveform) - level_db(again - waveform)).min()) >= 90


def test_transposed_frames_are_cut_and_filled_in_each_channel(stereo):
    """Shorter frames get their last bin repeated, longer ones lose theirs, in the left half as in the right."""
    config = tiny_config(featurizer__channels=2, training__batch_size=20)
    trainer = Trainer(config, split(stereo, 0)[0], stereo.level, CPU)
    batch = trainer.dataset[0]
    features, mask = trainer._features(batch)
    assert features.shape == (20, 12, 514) and mask.shape == (20, 12) and len(batch["waveforms"]) > 2
    first = 0
    rows = zip(batch["waveforms"], batch["hop_lengths"], trainer.dataset.framings, strict=True)
    for waveform, hop, (framing, n_rows) in rows:
        alone = Featurizer(dataclasses.replace(framing, channels=1))
        for channel in (0, 1):
            own = alone.log_magnitude(waveform[:, channel], hop_length=hop)[..., :257]
            got = features[first : first + n_rows, :, 257 * channel : 257 * (channel + 1)]
            assert torch.equal(got[..., : own.shape[-1]], own)
            assert torch.equal(got[..., own.shape[-1] :], own[..., -1:].expand_as(got[..., own.shape[-1] :]))
        first += n_rows


@pytest.mark.parametrize("channels", [0, 3, True])
def test_other_channels_are_refused(channels):
    with pytest.raises(UserError, match=r"featurizer\.channels"):
        tiny_config(featurizer__channels=json.dumps(channels))


# -- store -------------------------------------------------------------------------------------


def test_mono_and_stereo_lie_apart_in_one_store(folder, tmp_path):
    """Opened by turns in one folder: each has its own files, and none is decoded again or taken for the other."""
    store, names = tmp_path / "store", []
    mono = open_corpus(folder, store, RATE)
    files = set(store.glob("*.pcm"))
    stereo = open_corpus(folder, store, RATE, channels=2)
    assert files.isdisjoint({store / f"{r.sha256}.pcm" for r in stereo.recordings}) and files <= set(store.iterdir())
    for channels, first in ((1, mono), (2, stereo)):
        again = open_corpus(folder, store, RATE, channels=channels, progress=lambda *a: names.append(a))
        assert again == first
    assert not names
    for one, two in zip(mono.recordings, stereo.recordings, strict=True):
        a, b = one.read(-100, 2000), two.read(-100, 2000)
        assert a.shape == (2000,) and b.shape == (2, 2000) and not b[:, :100].any()
        np.testing.assert_allclose(b.mean(0), a, atol=2e-4)
    left = recording(stereo, "left0")
    assert not left[0, 1].any() and left[0, 0].abs().max() > 0.1


def test_any_number_of_channels_becomes_two(tmp_path):
    """Mono on both sides; the centre on both at -3 dB and the rear on its own; beyond eight, the mean on both."""
    block = np.eye(6, dtype=np.float32)  # each channel alone, one after the other
    total = 1 + 2 * 0.5**0.5
    left, right = to_channels(block, 2).T * total
    np.testing.assert_allclose(left, [1, 0, 0.5**0.5, 0, 0.5**0.5, 0], atol=1e-6)
    np.testing.assert_allclose(right, [0, 1, 0.5**0.5, 0, 0, 0.5**0.5], atol=1e-6)
    for n in (1, 2, 3, 4, 5, 7, 8, 10):  # what is the same everywhere and has no subwoofer stays as loud
        mixed = to_channels(np.ones((4, n), np.float32), 2)
        assert mixed.shape == (4, 2) and mixed.max() <= 1 + 1e-6 and mixed.min() > 0.7
    pair = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    assert np.array_equal(to_channels(pair, 2), pair)
    soundfile.write(tmp_path / "mono.wav", chord(1.0, 22050), 22050)
    both = open_corpus(tmp_path, tmp_path / "store", RATE, channels=2).recordings[0]
    waveform = both.read(0, both.n_samples)
    assert np.array_equal(waveform[0], waveform[1])
    mono = open_corpus(tmp_path, tmp_path / "store", RATE).recordings[0]
    assert np.array_equal(waveform[0], mono.read(0, mono.n_samples)) and both.rms == pytest.approx(mono.rms, rel=1e-6)


def test_windows_have_two_channels(stereo):
    config = tiny_config(featurizer__channels=2, training__transpose=0.0, training__stretch=0.0, training__gain_db=0.0)
    item = AudioDataset(split(stereo, 0)[0], config.featurizer, config.training)[5]
    assert item["waveforms"][0].shape == (4, 2, 8 * 128 + 512)


# -- sound -------------------------------------------------------------------------------------


def test_one_gain_for_both_channels(predictor):
    """The quieter channel stays as much quieter; the RMS of both together is the corpus'."""
    waveform = torch.randn(3, 2, 4000) * torch.tensor([[1.0], [0.1]])
    matched = predictor.match_level(waveform)
    torch.testing.assert_close(matched[:, 1] / matched[:, 0], waveform[:, 1] / waveform[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(matched.square().mean((1, 2)).sqrt(), torch.full((3,), predictor.level))


@pytest.mark.parametrize("name, loud", [("left0", 0), ("right0", 1)])
def test_what_is_hard_left_or_right_stays_there(predictor, stereo, name, loud):
    """Through the phase alone and through the codec too: the other channel at least 40 dB softer, the level of
    its own within 1 dB, or 2 with the codec."""
    waveform, n_prompt = predictor.match_level(recording(stereo, name)), 2 * RATE
    for codec in (False, True):
        again = predictor.reconstruct(waveform, n_prompt, codec)
        assert again.shape[:2] == (1, 2) and torch.equal(again[..., : n_prompt - 256], waveform[..., : n_prompt - 256])
        levels, true = level_db(again[0, :, n_prompt:]), level_db(waveform[0, loud, n_prompt : again.shape[-1]])
        assert levels[loud] - levels[1 - loud] > 40, (codec, levels)
        assert abs(levels[loud] - true) < (2 if codec else 1), (codec, levels, true)


def test_what_is_between_the_speakers_stays_there(predictor, stereo):
    """After codec and phase the channels still go together: correlation above 0.6 for the whole of 10 s (with a
    phase of its own for each channel it is about 0), and their levels are within 1 dB."""
    waveform, n_prompt = predictor.match_level(recording(stereo, "middle")), 2 * RATE
    again = predictor.reconstruct(waveform, n_prompt)[0, :, n_prompt:]
    assert abs(float(level_db(again).diff())) < 1
    for part in again.split(4 * RATE, -1):
        if part.shape[-1] > RATE:
            assert float(torch.corrcoef(part)[0, 1]) > 0.6


def test_the_join_keeps_each_channel(stereo):
    """With the true phases a stereo continuation is the recording, join included: above 60 dB."""
    featurizer, waveform = Featurizer(CONFIG), recording(stereo, "wide")[..., RATE : 3 * RATE]
    frames, phase = featurizer.join(featurizer.stft(waveform))[:, 1:].chunk(2, dim=-1)
    new = continue_waveform(featurizer, waveform[..., :512], frames, 0, phase)
    true = waveform[..., 512 - CROSSFADE :][..., : new.shape[-1]]
    assert float((level_db(true) - level_db(new - true)).min()) > 60


def test_a_prompt_of_other_channels_is_refused(predictor):
    for shape in ((1, RATE), (1, 1, RATE), (2, RATE)):
        with pytest.raises(ValueError, match=r"2 channel\(s\)"):
            predictor.continue_(torch.zeros(shape), 5)


# -- the commands ------------------------------------------------------------------------------


def predict(metadata, prompt, out, *arguments):
    result = run("predict.py", metadata, prompt, "-o", out, *arguments)
    assert result.returncode == 0, result.stderr
    waveform, rate = soundfile.read(out, dtype="float32", always_2d=True)
    assert rate == RATE and waveform.shape[1] == 2
    return waveform


def test_large_in_small_trains_and_previews_in_stereo(large_run):
    metadata, state = load_run(large_run)
    assert metadata.preset == "large" and metadata.config.featurizer == CONFIG and state.info["step"] == 4
    assert metadata.store == "pcm-8000-stereo" and list(metadata.resolve("store").glob("*.pcm"))
    preview = metadata.resolve("previews") / "step-0000004.wav"
    assert soundfile.info(preview).channels == 2
    assert preview.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_predict_writes_two_channels_that_differ(large_run, folder, tmp_path):
    """A stereo prompt as it is, but for one gain; then 40 frames, of which left and right are not the same."""
    waveform = predict(large_run, folder / "wide.wav", tmp_path / "a.wav", "--frames", 40, "--picture")
    prompt = soundfile.read(folder / "wide.wav", dtype="float32")[0]
    assert len(waveform) == len(prompt) + 40 * 128 and (tmp_path / "a.png").exists()
    kept, prompt = waveform[: len(prompt) - 256], prompt[: len(prompt) - 256]
    gain = (kept * prompt).sum() / (prompt**2).sum()
    np.testing.assert_allclose(kept, gain * prompt, atol=1e-3)
    new = waveform[-40 * 128 :]
    assert np.abs(new[:, 0] - new[:, 1]).max() > 0.1 * np.abs(new).max() > 0
    alone = predict(large_run, folder / "wide.wav", tmp_path / "b.wav", "--frames", 40, "--only-new")
    assert np.array_equal(alone, new)


def test_mono_prompts_and_scores_in_stereo(large_run, tone, tmp_path):
    waveform = predict(large_run, tone, tmp_path / "a.wav", "--frames", 5)
    assert np.array_equal(*waveform[: 2 * RATE - 256].T)
    score, mono = load_prompt(PROMPT, RATE, 2), load_prompt(PROMPT, RATE)
    assert score.shape == (2, len(mono)) and np.abs(score).max(1).min() > 0.01
    np.testing.assert_allclose(score.mean(0), mono, atol=1e-6)


def test_a_stereo_run_resumes_exactly(large_run, folder, tmp_path):
    """Stopped after two steps and resumed: the same tensors as in one go."""
    for steps in (2, 4):
        result = train(folder, tmp_path / "m.json", *LARGE, "--steps", steps, "--no-preview")
        assert result.returncode == 0, result.stderr
    one, other = load_run(large_run)[1].tensors, load_run(tmp_path / "m.json")[1].tensors
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_bad_channels_get_one_line(folder, tmp_path):
    result = train(folder, tmp_path / "m.json", "--steps", 1, "--set", "featurizer.channels=6")
    assert_one_line(result, "featurizer.channels", "1 (mono) or 2 (stereo)")


# -- what was there before ---------------------------------------------------------------------


def test_states_from_before_stereo_are_mono_and_sound_the_same(folder, tmp_path):
    """Without the key, metadata and state are those of a mono run; and it sounds the same to the bit."""
    assert read_metadata(ROOT / "metadata" / "chorales.json").config.featurizer == FeaturizerConfig()
    corpus = open_corpus(folder, tmp_path / "store", RATE)
    trainer = Trainer(tiny_config(), split(corpus, 0)[0], corpus.level, CPU)
    trainer.fit()
    state, path = trainer.state(), tmp_path / "old.json"
    write_metadata(Metadata(path, trainer.config, state="old.safetensors"))
    values = json.loads(path.read_text())
    del values["config"]["featurizer"]["channels"], state.info["config"]["featurizer"]["channels"], values["sha256"]
    path.write_text(json.dumps({**values, "sha256": _json_digest(values)}))
    save_state(tmp_path / "old.safetensors", state.tensors, state.info)
    old, new = Predictor.load(path), Predictor.from_state(trainer.config, trainer.state())
    prompt = old.match_level(torch.from_numpy(corpus.recordings[0].read(0, RATE))[None])
    assert torch.equal(old.continue_(prompt, 20), new.continue_(prompt, 20))


# -- measures ----------------------------------------------------------------------------------


def test_the_bench_gives_a_stereo_model_stereo_prompts(folder, stereo):
    """The same places of the same recordings as the mono prompts; its mix has the protocol's level again."""
    from bench.protocol import Protocol, mixed_down, stereo_pieces

    given = {"sample_rate": RATE, "n_prompt": RATE, "n_piece": 2 * RATE, "level": 0.1, "starts": [1.0, 2.5]}
    given |= {"recordings": ["wide.wav", "left0.wav"]}
    p = Protocol(**{f.name: given.get(f.name) for f in dataclasses.fields(Protocol)})
    pieces = stereo_pieces(p, stereo)
    assert pieces.shape == (2, 2, 3 * RATE) and not pieces[1, 1].any()
    rms = pieces[..., :RATE].square().mean((1, 2)).sqrt()
    torch.testing.assert_close(rms, torch.full((2,), stereo.level))
    mono = mixed_down(p, pieces)
    torch.testing.assert_close(mono[:, :RATE].square().mean(1).sqrt(), torch.full((2,), 0.1))
    true = recording(stereo, "wide")[0, :, RATE : 4 * RATE].mean(0)
    assert float(torch.corrcoef(torch.stack([mono[0], true]))[0, 1]) > 0.9999
    assert mixed_down(p, mono) is mono
