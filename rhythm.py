"""Tempo, metrical grid and pulse of a waveform, by its onset strength. Pure: arrays in, numbers out.

The onset strength is the spectral flux above its local mean (Böck, Krebs and Schedl, ISMIR 2012). Its
autocorrelation gives the tempo. Its local Fourier coefficients at the beat and at half of the beat are the *pulse*
(predominant local pulse, Grosche and Müller, IEEE TASLP 19(6), 2011): ``1 + 2 Re(z_1 + z_2)`` is how dense onsets
are around a moment, and turning ``z`` by the beat's frequency goes on with it beyond the end of a prompt.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from config import FeaturizerConfig
from metrics import mel_decibels, power_frames, rise, window_samples

HOP_SECONDS = 0.01  # of the onset strength
MEAN_SECONDS = 0.5  # around a moment, over which the mean flux is taken
MIN_ONSETS = 0.5  # a second, from which a grid can be told
BLOCK = 4096  # frames whose spectra are held at once
PEAK = 0.2  # dB per band: onset strength from which a peak is an onset
# One octave of tempo, in quarters a minute, so that each piece has one tempo in it: which of its doubles and halves
# is called the beat is a convention.
SLOWEST, FASTEST = 60.0, 120.0
NEAR = 0.06  # of a tempo: what differs by no more has the same
CLEARLY = 0.2  # of a resultant: by how much another grid must be kept better
N_LAGS = 4  # beats over which the autocorrelation is summed
PULSE_HOP_SECONDS = 0.02  # of the onset strength that the pulse is taken from
KERNEL_SECONDS = 8.0  # of a Hann window: long enough for eight slow beats, short enough to follow a change
TRACK_SECONDS = 0.5  # between two estimates along a recording
LAST_SECONDS = 12.0  # of a prompt, at most, that tell its pulse
MIN_SECONDS = 2.0  # of a prompt; from less, no beat can be told
N_TEMPOS = 120  # tried in the octave: steps of 0.6 %


def onset_strength(waveform, sample_rate: int, hop_seconds: float = HOP_SECONDS) -> np.ndarray:
    """Half-wave-rectified rise of the mel spectrum above its mean over half a second, dB per band.

    Shape:
        ``[n_samples]`` -> float64 ``[n_frames]``, one each ``hop_seconds``
    """
    from scipy.ndimage import uniform_filter1d

    waveform, hop, decibels = np.asarray(waveform, np.float32), round(hop_seconds * sample_rate), []
    n_fft = window_samples(sample_rate)
    for first in range(0, max(1, len(waveform) - n_fft + 1), BLOCK * hop):  # an hour's spectra need not fit in memory
        power = power_frames(waveform[first : first + (BLOCK - 1) * hop + n_fft], sample_rate, hop_seconds)
        decibels.append(mel_decibels(power, sample_rate))
    flux = rise(np.concatenate(decibels))
    around = uniform_filter1d(flux, max(3, round(MEAN_SECONDS / hop_seconds)), mode="nearest")
    return (flux - around).clip(min=0)


def onsets(waveform, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Times, s, and strengths, dB per band, of what begins: the largest peaks within 50 ms, from :data:`PEAK` up.

    Shape:
        ``[n_samples]`` -> ``[n_onsets]`` each
    """
    from scipy.signal import find_peaks

    strength = onset_strength(waveform, sample_rate)
    peaks, _ = find_peaks(strength, height=PEAK, distance=max(1, round(0.05 / HOP_SECONDS)))
    return peaks * HOP_SECONDS, strength[peaks]


def tempo(waveform, sample_rate: int) -> float:
    """Quarters a minute, from :data:`SLOWEST` to :data:`FASTEST`: the beat whose first multiples have the largest
    autocorrelation of onset strength in the mean; nan where nothing begins.

    Shape:
        waveform ``[n_samples]``, at least 4 s
    """
    strength = onset_strength(waveform, sample_rate)
    if not strength.any():
        return math.nan
    n_lags = min(round(N_LAGS * 60 / SLOWEST / HOP_SECONDS) + 2, len(strength) - 1)
    centred = strength - strength.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: n_lags + 1] / (len(centred) - np.arange(n_lags + 1))
    tempos = np.geomspace(SLOWEST, FASTEST, 3 * N_TEMPOS)
    lags = 60 / tempos[:, None] / HOP_SECONDS * np.arange(1, N_LAGS + 1)
    known = lags <= n_lags
    values = np.interp(lags, np.arange(n_lags + 1), correlation) * known
    return float(tempos[np.argmax(values.sum(1) / known.sum(1).clip(min=1))])


def tempo_ratio(one: float, other: float) -> float:
    """``one / other``, doubled or halved until it is nearest to 1."""
    octaves = math.log2(one / other)
    return 2 ** (octaves - round(octaves))


def grid_resultant(waveform, sample_rate: int, quarters_per_minute: float) -> float:
    """How well onsets keep to a grid of eighths: the length of the mean of their phases as unit vectors, weighted
    by strength (the resultant of circular statistics, Mardia 1972): 1 where all lie on one grid, whatever its offset,
    near 0 where they lie anywhere; nan where there are fewer than one in two seconds, which say nothing.

    Shape:
        ``[n_samples]``
    """
    times, strengths = onsets(waveform, sample_rate)
    if len(times) < MIN_ONSETS * len(waveform) / sample_rate or not len(times):
        return math.nan
    phases = 2 * math.pi * times * quarters_per_minute / 60 * 2
    return float(abs((strengths * np.exp(1j * phases)).sum()) / strengths.sum())


def longest_hold(waveform, sample_rate: int) -> float:
    """Seconds of the longest stretch in which nothing begins. Shape: ``[n_samples]``"""
    times, _ = onsets(waveform, sample_rate)
    return float(np.diff([0.0, *times, len(waveform) / sample_rate]).max())


def other_tempo(waveform, sample_rate: int, quarters_per_minute: float) -> float | None:
    """The tempo of a waveform where it is clearly another than what is claimed, else None.

    Clearly: the two differ by more than :data:`NEAR`, and onsets keep to the grid of the tempo that is found better
    than to that of the claimed one, by :data:`CLEARLY` of the resultant. Of less than 4 s nothing is said.

    Shape:
        ``[n_samples]``
    """
    if len(waveform) < 4 * sample_rate:
        return None
    found = tempo(waveform, sample_rate)
    if not found > 0 or abs(tempo_ratio(found, quarters_per_minute) - 1) <= NEAR:
        return None
    grids = [grid_resultant(waveform, sample_rate, t) for t in (found, quarters_per_minute)]
    # A tempo on the octave that its ratio to the claimed one was taken in: 60 may be found where 116 is claimed.
    return quarters_per_minute * tempo_ratio(found, quarters_per_minute) if grids[0] - grids[1] > CLEARLY else None


class Pulse(NamedTuple):
    """Onset density around moments: ``z`` complex ``[n, 2]``, its coefficients at the beat and at half of it;
    ``frequency`` of the beat, Hz, ``[n]``; ``times`` of the moments, s, ``[n]``, evenly spaced."""

    times: np.ndarray
    frequency: np.ndarray
    z: np.ndarray

    def at(self, times) -> np.ndarray:
        """``z`` at other times, each turned from the nearest moment. Shape: ``[...]`` -> complex64 ``[..., 2]``"""
        times = np.asarray(times)
        spacing = self.times[1] - self.times[0] if len(self.times) > 1 else 1.0
        nearest = np.rint((times - self.times[0]) / spacing).astype(int).clip(0, len(self.times) - 1)
        turns = self.frequency[nearest] * (times - self.times[nearest])
        return (self.z[nearest] * np.exp(2j * math.pi * turns[..., None] * (1, 2))).astype(np.complex64)


def track_pulse(waveform, sample_rate: int) -> Pulse:
    """The pulse along a recording, each estimate from the :data:`KERNEL_SECONDS` around it.

    Shape:
        ``[n_samples]``
    """
    strength, offset = _strength(waveform, sample_rate)
    n, hop = round(KERNEL_SECONDS / PULSE_HOP_SECONDS), round(TRACK_SECONDS / PULSE_HOP_SECONDS)
    padded = np.pad(strength, (n // 2, n // 2 + hop))
    segments = np.lib.stride_tricks.sliding_window_view(padded, n)[: len(strength) : hop] * np.hanning(n)
    moments = (np.arange(n) - n // 2) * PULSE_HOP_SECONDS
    frequency, z = _strongest(segments, moments, _frequencies())
    return Pulse(np.arange(len(segments)) * hop * PULSE_HOP_SECONDS + offset, frequency, z)


def last_pulse(waveform, sample_rate: int, quarters_per_minute: float | None = None) -> Pulse:
    """The pulse at the end of a prompt, one moment; without onset density (``z`` 0) where it is too short to tell.

    Args:
        quarters_per_minute: the tempo, where it is known, as of a score.

    Shape:
        ``[n_samples]``
    """
    end = len(waveform) / sample_rate
    nothing = Pulse(np.array([end]), np.array([1.0]), np.zeros((1, 2), complex))
    if end < MIN_SECONDS:
        return nothing
    waveform = waveform[-round(LAST_SECONDS * sample_rate) :]
    strength, offset = _strength(waveform, sample_rate)
    moments = np.arange(len(strength)) * PULSE_HOP_SECONDS + offset - len(waveform) / sample_rate
    tried = _frequencies()
    if quarters_per_minute is None:
        coarse, _ = _strongest(strength[None], moments, tried)
        tried = coarse[0] * np.linspace(0.994, 1.006, 25)
    else:
        tried = np.array([SLOWEST * 2 ** (math.log2(quarters_per_minute / SLOWEST) % 1)]) / 60
    frequency, z = _strongest(strength[None], moments, tried)
    return nothing._replace(frequency=frequency, z=z)


def prompt_pulse(prompt: np.ndarray, framing: FeaturizerConfig, quarters_per_minute: float | None = None):
    """The pulse of a prompt in its last frame, and by how much it turns from frame to frame.

    Args:
        quarters_per_minute: as of :func:`last_pulse`.

    Shape:
        ``[n_samples]`` or ``[2, n_samples]`` -> complex64 ``[1, 2]`` each
    """
    pulse = last_pulse(prompt.reshape(-1, prompt.shape[-1]).mean(0), framing.sample_rate, quarters_per_minute)
    angle = 2 * math.pi * pulse.frequency / framing.frame_rate
    turn = np.exp(1j * angle[:, None] * (1, 2)).astype(np.complex64)
    return pulse.at(pulse.times - framing.n_fft / 2 / framing.sample_rate), turn


def _frequencies() -> np.ndarray:
    return np.geomspace(SLOWEST, FASTEST, N_TEMPOS) / 60


def _strength(waveform, sample_rate: int) -> tuple[np.ndarray, float]:
    """Onset strength for the pulse, and the time of its first value, the middle of its window, s."""
    strength = onset_strength(waveform, sample_rate, PULSE_HOP_SECONDS)
    return strength, window_samples(sample_rate) / 2 / sample_rate


def _strongest(segments: np.ndarray, moments: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each segment of onset strength: the beat whose two coefficients are the largest together, and these.

    Shape:
        segments ``[n, m]``, moments ``[m]`` s, frequencies ``[k]`` Hz -> ``[n]`` Hz, complex ``[n, 2]``
    """
    # Complex exponentials at each frequency, then at its double.
    kernel = np.exp(-2j * math.pi * moments[:, None] * np.concatenate([frequencies, 2 * frequencies]))
    z = (segments @ kernel).reshape(len(segments), 2, len(frequencies))
    z = z / segments.sum(1).clip(min=1e-9)[:, None, None]
    best = np.abs(z).sum(1).argmax(1)
    return frequencies[best], z[np.arange(len(segments)), :, best]
