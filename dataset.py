"""``AudioDataset``: batches of PCM windows, their order a pure function of (seed, step)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from config import FeaturizerConfig, TrainingConfig
from corpus import Corpus
from pcm_store import Recording
from rhythm import KERNEL_SECONDS, Pulse, track_pulse

STRETCHED_ROWS = 5  # sequences, at most, that share one stretch in an episode
PULSE_SECONDS = 30  # of a recording, whose pulse is found at once


@dataclass(frozen=True)
class Segment:
    """Samples ``start .. stop`` of a recording that one half of the split may use."""

    recording: Recording
    start: int
    stop: int

    @property
    def n_samples(self) -> int:
        return self.stop - self.start

    def read(self, start: int, n_samples: int) -> tuple[np.ndarray, int]:
        """``(waveform [n_samples], n_valid)``, stereo ``[2, n_samples]``; zeros after the segment's end."""
        n_valid = max(0, min(n_samples, self.n_samples - start))
        waveform = self.recording.read(self.start + start, n_samples)
        waveform[..., n_valid:] = 0
        return waveform, n_valid


def split(corpus: Corpus, hold_out: float) -> tuple[list[Segment], list[Segment]]:
    """``(training, held out)`` by whole recordings, decided by a hash of each one's name.

    A name keeps its side when files are added, but for corpora so small that no name or every
    name would be held out. A corpus of one recording gives its end away.
    """

    def share(recording: Recording) -> float:
        return int.from_bytes(hashlib.sha256(os.fsencode(recording.name)).digest()[:8], "big") / 2**64

    whole = [Segment(r, 0, r.n_samples) for r in corpus.recordings]
    if hold_out == 0:
        return whole, []
    if len(whole) == 1:
        cut = int(whole[0].n_samples * (1 - hold_out))
        return [Segment(whole[0].recording, 0, cut)], [Segment(whole[0].recording, cut, whole[0].n_samples)]
    whole.sort(key=lambda s: share(s.recording))
    # Of a handful, the lowest hash is held out and the highest trained on, whatever they are.
    n_held = sum(share(s.recording) < hold_out for s in whole)
    n_held = min(max(1, n_held), len(whole) - 1)
    by_name = sorted(whole[n_held:], key=lambda s: s.recording.name)
    return by_name, sorted(whole[:n_held], key=lambda s: s.recording.name)


def without(segments: list[Segment], recording: Recording) -> list[Segment]:
    """The segments of all other recordings."""
    return [segment for segment in segments if segment.recording.name != recording.name]


class AudioDataset(Dataset):
    """Item ``step`` is the batch of that step: no epochs, and no state to be saved.

    ``windows_per_episode`` consecutive steps walk along the same places, so that the LSTM's state
    can be carried from one to the next; then each sequence jumps to a new random sample.

    An item is a dict: ``waveforms``, for each of ``framings`` float32 ``[n_rows, (n_frames + patch_frames - 1) *
    hop_length + n_fft]`` (stereo ``[n_rows, 2, ...]``), which gives ``n_frames + patch_frames`` frames;
    ``hop_lengths``, for each the samples between two of them; ``n_valid``, for each int64 ``[n_rows]``, samples
    that are not padding; ``pulse``, float32 ``[batch_size, n_frames // patch_frames, 4]``, that of the middle of
    each patch but the first, see :class:`rhythm.Pulse`, real and imaginary parts side by side, or None where it is
    not asked for; ``starts_episode`` bool. The framings differ where sequences are transposed, and the hops where
    they are stretched: frames that are farther apart are those of faster music.

    Args:
        pulses: where the pulse of each stretch of a recording is kept once it has been drawn, by the recording's name
            and the number of the stretch; datasets of one corpus may share it. None: items have no pulse.
        patch_frames: frames that the model predicts at once.

    Raises:
        pcm_store.Lost: by an item, one of whose recordings can be read no more.
    """

    def __init__(
        self,
        segments: list[Segment],
        featurizer: FeaturizerConfig,
        training: TrainingConfig,
        pulses: dict[tuple[str, int], Pulse] | None = None,
        patch_frames: int = 1,
    ):
        self.segments, self.featurizer, self.training = segments, featurizer, training
        self.patch_frames = patch_frames
        self.framings = transposed_framings(featurizer, training.transpose, training.batch_size)
        if training.stretch:
            self.framings = [(f, n) for f, rows in self.framings for n in parts(rows, STRETCHED_ROWS)]
        self.pulses = pulses
        sizes = np.array([s.n_samples for s in segments], dtype=np.float64)
        self.cumulative = np.cumsum(sizes / sizes.sum())

    def without(self, recording: Recording) -> AudioDataset:
        """That of all other recordings."""
        return AudioDataset(
            without(self.segments, recording), self.featurizer, self.training, self.pulses, self.patch_frames
        )

    def __getitem__(self, step: int) -> dict:
        config = self.training
        episode, window = divmod(step, config.windows_per_episode)
        random = np.random.default_rng([config.seed, episode])
        draws, stretches = iter(random.random((config.batch_size, 3))), 2 * random.random(len(self.framings)) - 1
        waveforms, n_valid, pulses, hops = [], [], [], []
        for (framing, n_rows), stretch in zip(self.framings, stretches, strict=True):
            hop = round(framing.hop_length * (1 + config.stretch) ** stretch)
            rows = [self._row(framing, hop, window, *next(draws)) for _ in range(n_rows)]
            waveforms.append(torch.from_numpy(np.stack([waveform for waveform, _, _ in rows])))
            n_valid.append(torch.tensor([n for _, n, _ in rows]))
            pulses += [pulse for _, _, pulse in rows]
            hops.append(hop)
        pulse = None if self.pulses is None else torch.from_numpy(np.stack(pulses)).view(torch.float32)
        item = {"waveforms": waveforms, "hop_lengths": hops, "n_valid": n_valid, "pulse": pulse}
        return item | {"starts_episode": window == 0}

    def _row(self, framing: FeaturizerConfig, hop: int, window: int, where: float, offset: float, gain: float):
        """One sequence's samples in a window of the episode, by three random numbers of [0, 1), how many of them are
        not padding, and its pulse."""
        config = self.training
        step = config.n_frames * hop
        n_samples = step + framing.n_fft + (self.patch_frames - 1) * hop
        needed = (config.windows_per_episode - 1) * step + n_samples
        # Long recordings are drawn in proportion to their length: every second counts the same.
        segment = self.segments[min(int(np.searchsorted(self.cumulative, where)), len(self.segments) - 1)]
        # A recording shorter than an episode is walked again, from another sample of its first window:
        # always cut on the same grid, it would be learned by heart.
        room = segment.n_samples - needed
        first = int(offset * (room if room > 0 else min(step, max(1, segment.n_samples - framing.n_fft))))
        n_windows = max(1, -(-(segment.n_samples - first - n_samples + step) // step))
        first += window % n_windows * step
        waveform, n_valid = segment.read(first, n_samples)
        pulse = None
        if self.pulses is not None:
            patches = np.arange(1, config.n_frames // self.patch_frames + 1) + 0.5
            middles = segment.start + first + framing.n_fft / 2 + hop * (self.patch_frames * patches - 0.5)
            pulse = self._pulse(segment.recording, middles / framing.sample_rate)
        return waveform * np.float32(10 ** ((2 * gain - 1) * config.gain_db / 20)), n_valid, pulse

    def _pulse(self, recording: Recording, times: np.ndarray) -> np.ndarray:
        """The pulse of a recording at some times, s. Shape: ``[n]`` -> complex64 ``[n, 2]``"""
        stretches, z = (times // PULSE_SECONDS).astype(int), np.zeros((len(times), 2), np.complex64)
        for stretch in np.unique(stretches):
            key, here = (recording.name, int(stretch)), stretches == stretch
            if key not in self.pulses:
                self.pulses[key] = self._track(recording, int(stretch))
            z[here] = self.pulses[key].at(times[here])
        return z

    def _track(self, recording: Recording, stretch: int) -> Pulse:
        """The pulse of the n-th :data:`PULSE_SECONDS` of a recording, as that of the whole would be there."""
        rate, margin = self.framings[0][0].sample_rate, KERNEL_SECONDS / 2 + 1
        first = max(0, round((stretch * PULSE_SECONDS - margin) * rate))
        last = min(recording.n_samples, round(((stretch + 1) * PULSE_SECONDS + margin) * rate))
        waveform = recording.read(first, max(1, last - first))
        pulse = track_pulse(waveform if waveform.ndim == 1 else waveform.mean(0), rate)
        return pulse._replace(times=pulse.times + first / rate)


def parts(n: int, most: int) -> list[int]:
    """n in as few parts as have at most ``most`` each, as equal as can be: ``parts(9, 5) == [5, 4]``."""
    count = -(-n // most)
    return [n // count + (i < n % count) for i in range(count)]


def transposed_framings(framing: FeaturizerConfig, semitones: float, batch_size: int) -> list[tuple]:
    """How the sequences of a batch are framed: ``(framing, number of sequences)``.

    Frames of n samples, taken for frames of ``n_fft`` samples, are those of the same music transposed by
    ``n / n_fft`` and at another speed: exactly, and at no cost. Six in ten sequences are transposed, to two
    steps each up to ``semitones`` down and up. Each length is the nearest within a quarter of a semitone that an
    FFT is fast with; very short frames have none, and are left alone.
    """
    if not semitones:
        return [(framing, batch_size)]
    n_overlaps, framings = framing.n_fft // framing.hop_length, []
    for part in (-1, -0.5, 0.5, 1):
        exact = framing.n_fft * 2 ** (part * semitones / 12)
        near = range(max(256, round(0.985 * exact)), min(16384, round(1.015 * exact)) + 1)
        lengths = [n for n in near if n % n_overlaps == 0 and n % 2 == 0]
        n_fft = min((n for n in lengths if _is_smooth(n)), key=lambda n: abs(n - exact), default=None)
        if n_fft and n_fft != framing.n_fft:
            framings.append(dataclasses.replace(framing, n_fft=n_fft, hop_length=n_fft // n_overlaps))
    n_each = int(0.15 * batch_size)
    parts = [(f, n_each) for f in framings if n_each]
    return [(framing, batch_size - n_each * len(parts)), *parts]


def _is_smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def spread_chunks(segments: list[Segment], n_chunks: int, n_samples: int, seed: int):
    """Up to ``n_chunks`` pieces spread evenly over the segments, each at a random sample in its share.

    Yields:
        float32 ``[n_samples]``, stereo ``[2, n_samples]``; zero-padded in short recordings.
    """
    total = sum(s.n_samples for s in segments)
    n_chunks = max(1, min(n_chunks, total // n_samples))
    random = np.random.default_rng([seed, 1])
    edges = np.cumsum([0] + [s.n_samples for s in segments])
    for i in range(n_chunks):
        place = int((i + random.random()) * total / n_chunks)
        index = min(int(np.searchsorted(edges, place, side="right")) - 1, len(segments) - 1)
        segment = segments[index]
        start = max(0, min(place - int(edges[index]), segment.n_samples - n_samples))
        yield segment.read(start, n_samples)[0]
