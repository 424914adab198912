"""Windows: a pure function of seed and step, split by recording."""

import numpy as np
import pytest
import soundfile
import torch

from config import FeaturizerConfig
from conftest import chord, tiny_config
from corpus import open_corpus
from dataset import AudioDataset, split, spread_chunks, transposed_framings
from featurizer import Featurizer
from rhythm import track_pulse

RATE = 8000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for i in range(30):
        soundfile.write(folder / f"{i:02d}.wav", chord(0.5 + i / 10, RATE) * (1 - i / 50), RATE)
    return open_corpus(folder, folder / "store", RATE)


def test_order_is_a_function_of_seed_and_step(corpus):
    config = tiny_config()
    training, _ = split(corpus, 0.1)
    one, other = (AudioDataset(training, config.featurizer, config.training) for _ in range(2))
    one[3], one[100]
    assert torch.equal(one[7]["waveforms"][0], other[7]["waveforms"][0])
    reseeded = AudioDataset(training, config.featurizer, tiny_config(training__seed=1).training)
    assert not torch.equal(one[7]["waveforms"][0], reseeded[7]["waveforms"][0])


def test_windows_of_an_episode_follow_each_other(corpus):
    config = tiny_config(training__gain_db=0.0, training__batch_size=20, training__transpose=1.0)
    training, _ = split(corpus, 0.1)
    dataset = AudioDataset(training, config.featurizer, config.training, pulses={})
    assert len(dataset.framings) > 2
    for step in range(6):
        now, then = dataset[step], dataset[step + 1]
        assert now["starts_episode"] == (step % 3 == 0)
        if not then["starts_episode"]:
            assert now["hop_lengths"] == then["hop_lengths"]
            for one, other, hop in zip(now["waveforms"], then["waveforms"], now["hop_lengths"], strict=True):
                step = config.training.n_frames * hop
                torch.testing.assert_close(one[:, step:], other[:, :-step])
            torch.testing.assert_close(turned(now, 1), then["pulse"][:, 0], atol=0.05, rtol=0)


def turned(item, n):
    """The pulse of the last frame of each sequence, n frames later, by what it turns from frame to frame."""
    z = torch.view_as_complex(item["pulse"].unflatten(-1, (2, 2)))
    turn = z[:, -1] / torch.where(z[:, -2] == 0, 1, z[:, -2])
    return torch.view_as_real(z[:, -1] * turn**n).flatten(-2)


def test_stretched_sequences_are_faster_and_slower_music(corpus):
    """Hops of an episode differ by part, within the share that was asked for; the beat turns with them."""
    config = tiny_config(training__batch_size=20, training__transpose=0.0, training__stretch=0.2)
    dataset = AudioDataset(split(corpus, 0.1)[0], config.featurizer, config.training, pulses={})
    assert [n for _, n in dataset.framings] == [5, 5, 5, 5]
    hops = np.array([dataset[3 * episode]["hop_lengths"] for episode in range(50)])
    assert hops.min() >= 128 / 1.2 - 0.5 and hops.max() <= 128 * 1.2 + 0.5
    assert hops.min() < 112 and hops.max() > 148 and len(np.unique(hops[0])) > 1
    assert abs(np.log(hops / 128).mean()) < 0.02
    still = tiny_config(training__batch_size=20, training__transpose=0.0, training__stretch=0.0)
    assert AudioDataset(dataset.segments, still.featurizer, still.training)[0]["hop_lengths"] == [128]


def test_the_pulse_of_stretched_sequences_is_the_beat_of_their_music(tmp_path):
    """Of a click track at 80 a minute: the pulse turns by its beat and is at its largest at the clicks, in the time of
    the recording, whatever the hop."""
    clicks = np.zeros(30 * RATE, np.float32)
    for i in range(40):
        clicks[i * 6000 : i * 6000 + 200] = np.random.default_rng(i).standard_normal(200) * 0.3
    soundfile.write(tmp_path / "clicks.wav", clicks, RATE)
    config = tiny_config(training__batch_size=20, training__transpose=0.0, training__stretch=0.2)
    segments = split(open_corpus(tmp_path, tmp_path / "store", RATE), 0.0)[0]
    item = AudioDataset(segments, config.featurizer, config.training, pulses={})[0]
    z = torch.view_as_complex(item["pulse"].unflatten(-1, (2, 2)))[:, :, 0]
    beats = (z[:, 1:] / z[:, :-1]).angle().median(1).values.numpy() / (2 * np.pi)
    hops = np.repeat(item["hop_lengths"], 5)
    assert len(set(hops)) > 1
    np.testing.assert_allclose(60 * beats * RATE / hops, 80, rtol=0.01)
    waveforms, near = [row.numpy() for part in item["waveforms"] for row in part], []
    for row, hop, own in zip(waveforms, hops, z.numpy(), strict=True):
        middles = hop * np.arange(1, own.size + 1) + 256
        loud = [np.abs(row[max(0, m - 100) : m + 100]).max() > 0.1 for m in middles]
        near += list(np.angle(own[loud]) / (2 * np.pi))
    assert len(near) > 5 and np.abs(near).max() < 0.15  # of a beat


def test_the_pulse_is_found_by_stretches_as_in_the_whole(recordings, tmp_path):
    """Of a real chorale, away from its ends: within 0.05 where the beat found is the same one (all but a few
    moments, whose two best beats are equally strong)."""
    (training,) = split(open_corpus(recordings, tmp_path, RATE, include="bwv1"), 0.0)[0][:1]
    dataset = AudioDataset([training], FeaturizerConfig(RATE, 512, 128), tiny_config().training, pulses={})
    times = np.arange(20.0, 40.0, 0.1)
    whole = track_pulse(training.recording.read(0, training.recording.n_samples), RATE).at(times)
    assert np.median(np.abs(dataset._pulse(training.recording, times) - whole)) < 0.05
    assert set(dataset.pulses) == {(training.recording.name, 0), (training.recording.name, 1)}


def test_transposed_frames_are_those_of_transposed_music():
    """Frames of a sine under another framing are those of a sine transposed by the ratio of the lengths: within
    0.01 nepers where they are not silent; the lengths are within a quarter of a semitone of what was asked for."""
    framing = FeaturizerConfig(22050, 2048, 512)
    framings = transposed_framings(framing, 2.0, 64)
    assert framings[0][0] == framing and sum(n for _, n in framings) == 64
    assert len(framings) == 5
    time = torch.arange(3 * 22050) / 22050
    for semitones, (other, n_rows) in zip((-2, -1, 1, 2), framings[1:], strict=True):
        assert n_rows == 9 and other.hop_length * 4 == other.n_fft
        ratio = other.n_fft / framing.n_fft
        assert abs(12 * np.log2(ratio) - semitones) < 0.25
        transposed = Featurizer(other).log_magnitude((2 * np.pi * 440 * time).sin())
        direct = Featurizer(framing).log_magnitude((2 * np.pi * 440 * ratio * time).sin())
        n_bins = min(transposed.shape[-1], direct.shape[-1])
        a, b = (x.max(0).values[:n_bins] for x in (transposed, direct))
        heard = b > -6
        assert 3 <= heard.sum() < 40
        assert (a - b)[heard].abs().max() < 0.01
    assert transposed_framings(framing, 0.0, 64) == [(framing, 64)]


def test_split_is_by_recording_and_stays(corpus):
    training, held = split(corpus, 0.2)
    names = {s.recording.name for s in training}, {s.recording.name for s in held}
    assert not names[0] & names[1]
    assert len(names[0]) + len(names[1]) == 30
    assert 1 <= len(names[1]) <= 15
    import dataclasses

    smaller = dataclasses.replace(corpus, recordings=corpus.recordings[:20])
    for half, segments in zip(names, split(smaller, 0.2), strict=True):
        assert {s.recording.name for s in segments} <= half  # a name keeps its side


def test_one_recording_gives_its_end_away(corpus):
    import dataclasses

    single = dataclasses.replace(corpus, recordings=corpus.recordings[-1:])
    (training,), (held,) = split(single, 0.1)
    assert training.stop == held.start and held.stop == single.recordings[0].n_samples
    assert held.n_samples == pytest.approx(0.1 * single.recordings[0].n_samples, abs=2)


def test_short_recordings_are_padded_and_masked(corpus):
    config = tiny_config(training__n_frames=100)
    dataset = AudioDataset(split(corpus, 0.1)[0], config.featurizer, config.training)
    item = dataset[0]
    for waveform, n_valid in zip(item["waveforms"][0], item["n_valid"][0], strict=True):
        assert 0 < n_valid <= 3.5 * RATE
        assert not waveform[n_valid:].any()


def test_a_short_recording_is_walked_again(corpus):
    """No window of an episode is all padding, however short the recording."""
    import dataclasses

    short = dataclasses.replace(corpus, recordings=corpus.recordings[:2])
    config = tiny_config(training__windows_per_episode=8)
    dataset = AudioDataset(split(short, 0.1)[0], config.featurizer, config.training)
    for step in range(16):
        assert all((n >= f.n_fft).all() for n, (f, _) in zip(dataset[step]["n_valid"], dataset.framings, strict=True))


def test_every_second_is_drawn_alike(corpus):
    """Long recordings are drawn in proportion to their length, within 25 %."""
    config = tiny_config(training__windows_per_episode=1, training__batch_size=64)
    segments = split(corpus, 0.1)[0]
    dataset = AudioDataset(segments, config.featurizer, config.training)
    counts = np.zeros(len(segments))
    for segment in segments:
        object.__setattr__(segment, "read", None)
    original = type(segments[0]).read
    for i, segment in enumerate(segments):

        def read(start, n_samples, i=i, segment=segment):
            counts[i] += 1
            return original(segment, start, n_samples)

        object.__setattr__(segment, "read", read)
    for step in range(60):
        dataset[step]
    expected = np.array([s.n_samples for s in segments], float)
    expected *= counts.sum() / expected.sum()
    assert abs(counts / expected - 1).max() < 0.4
    assert abs(counts / expected - 1).mean() < 0.12


def test_chunks_are_spread_over_everything(corpus):
    segments = split(corpus, 0.1)[0]
    chunks = list(spread_chunks(segments, 10_000, 1000, seed=0))
    total = sum(s.n_samples for s in segments)
    assert len(chunks) == total // 1000
    assert all(c.shape == (1000,) for c in chunks)
