"""The corpus' voice: a synthesized prompt brought to the room and the spectral envelope of the recordings.

A soundfont's samples are dry and have another balance of bass and treble than recordings. A model goes on as
its prompt sounds: from such a prompt, to what no recording has. All that is asked of the corpus is how fast its sounds
die away, and which of its typical envelopes is nearest to a given one. Timing and pitch stay as they are.
"""

from __future__ import annotations

import numpy as np
import torch

from featurizer import DB, Featurizer, whole_frames
from spectral.envelope import Envelope
from spectral.typical import to_typical

N_BANDS, BAND_RANGE = 24, (80.0, 8000.0)  # mel bands in which decays are looked for, and Hz
SLOPE_SECONDS = 0.25  # over which a slope is taken
RANGE_DB = 60.0  # below the loudest band of a piece, nothing is looked at
FALLING = -5.0  # dB/s: what falls more slowly is held
FASTEST = 5.0  # percent of the slopes, at which the fastest decays are read
ROOMS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # s of reverberation time that are tried
BEFORE = 0.01  # s between a sound and its reverberation
TREBLE = 4000.0  # Hz, above which a room's reverberation takes half the time
MAX_GAIN_DB = 15.0  # of the equalizer


def in_voice(waveform: torch.Tensor, featurizer: Featurizer, match_level, decay: float | None, envelope=None):
    """A synthesized prompt as a corpus might sound; the end of it, see :func:`featurizer.whole_frames`, is what it is
    measured by.

    Args:
        match_level: brings a waveform to the level of the corpus.
        decay: how fast the corpus dies away, dB/s, see :func:`fastest`; None where it is not known.
        envelope: that has learned the typical ones; None leaves the balance as it is.

    Shape:
        waveform ``[n_samples]``, stereo ``[2, n_samples]``, the same
    """
    waveform = match_level(waveform)
    if decay is not None:
        heard = whole_frames(waveform, featurizer.config)
        seconds = fit_room(heard if heard.dim() == 1 else heard.mean(0), featurizer, decay)
        waveform = match_level(reverberate(waveform, featurizer.config.sample_rate, seconds))
    if envelope is not None:
        gain = fit_equalizer(whole_frames(waveform, featurizer.config), featurizer, envelope)
        waveform = match_level(equalize(waveform, gain))
    return waveform


def decay_slopes(waveform: torch.Tensor, featurizer: Featurizer) -> np.ndarray:
    """Slopes of all mel bands where they fall, dB/s; their :data:`FASTEST` percent tell the room.

    Reverberation bounds how fast a sound can die away, so the fastest decays of a recording are those of its room
    (spectral decay distributions: Wen, Habets and Naylor 2008).

    Shape:
        waveform ``[n_samples]`` -> float32 ``[n_slopes]``, none where it is shorter than 0.25 s or silent
    """
    framing = featurizer.config
    n = round(SLOPE_SECONDS * framing.sample_rate / framing.hop_length)
    if n < 2 or waveform.shape[-1] < framing.n_fft + (n - 1) * framing.hop_length:
        return np.zeros(0, np.float32)
    spectrum = featurizer.stft(waveform)
    power = spectrum.real.square() + spectrum.imag.square()
    bands = 10 * (power @ _mel_bands(framing.sample_rate, power.shape[-1]).T).clamp(min=1e-12).log10()
    places = torch.arange(n) - (n - 1) / 2
    pieces = bands.unfold(0, n, 1)
    slopes = (pieces * places).sum(-1) / places.square().sum() * framing.sample_rate / framing.hop_length
    heard = (pieces.mean(-1) > bands.max() - RANGE_DB) & (slopes < FALLING)
    return slopes[heard].numpy()


def fastest(slopes: np.ndarray) -> float | None:
    """The decay that few are faster than, dB/s; None where nothing falls. Shape: ``[n_slopes]``"""
    return float(np.percentile(slopes, FASTEST)) if len(slopes) else None


def fit_room(waveform: torch.Tensor, featurizer: Featurizer, wanted: float) -> float:
    """The shortest reverberation time of :data:`ROOMS`, s, after which a prompt dies away no faster than ``wanted``
    (dB/s, of the corpus); 0 where it does so without. Shape: ``[n_samples]``"""
    low, high = 0, len(ROOMS) - 1
    while low < high:  # longer rooms have slower decays
        middle = (low + high) // 2
        found = fastest(decay_slopes(reverberate(waveform, featurizer.config.sample_rate, ROOMS[middle]), featurizer))
        if found is None or found >= wanted:
            high = middle
        else:
            low = middle + 1
    return ROOMS[low]


def reverberate(waveform: torch.Tensor, sample_rate: int, seconds: float) -> torch.Tensor:
    """A waveform in a room, direct sound and reverberation with the same power.

    The room is noise that dies away exponentially, by 60 dB in ``seconds``, treble in half of them (Moorer 1979).
    The channels' noises are different: a wide room. No sample comes later, and what rings on beyond the end is cut.

    Shape:
        ``[n_samples]`` or ``[2, n_samples]``, the same
    """
    if not seconds:
        return waveform
    from scipy.signal import butter, sosfilt

    dice, n = np.random.default_rng(0), int(seconds * sample_rate)
    noise = dice.standard_normal((*waveform.shape[:-1], n))
    fall = 10 ** (-3 * np.arange(n) / n)
    low = noise
    if 0.45 * sample_rate > TREBLE:
        low = sosfilt(butter(1, TREBLE, fs=sample_rate, output="sos"), noise)
    tail = low * fall + (noise - low) * fall**2
    tail /= np.sqrt(np.square(tail).sum(-1, keepdims=True))
    lead = np.zeros((*waveform.shape[:-1], round(BEFORE * sample_rate)))
    lead[..., 0] = 1
    return _filtered(waveform, np.concatenate([lead, tail], -1), 0)


def fit_equalizer(waveform: torch.Tensor, featurizer: Featurizer, envelope: Envelope) -> torch.Tensor:
    """The gains, nepers, that give a waveform the shape of the typical envelope which is nearest to its own, the same
    for both channels and at most :data:`MAX_GAIN_DB`: a flute goes to the flutes of the corpus, and not to its mean.

    Shape:
        waveform ``[n_samples]`` or ``[2, n_samples]``, at least ``n_fft`` -> ``[n_channel_bins]``
    """
    gain = to_typical(envelope, featurizer.log_magnitude(waveform).unsqueeze(0))[0]
    gain = gain.unflatten(-1, (featurizer.config.channels, -1)).mean(0)
    return gain.clamp(-MAX_GAIN_DB / DB, MAX_GAIN_DB / DB)


def equalize(waveform: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """A waveform through one filter without delay, the same for all channels, so that what is drawn apart stays so.

    Args:
        gain: nepers, from 0 Hz to half the sample rate.

    Shape:
        waveform ``[n_samples]`` or ``[2, n_samples]``, gain ``[n_channel_bins]`` -> as waveform
    """
    delay = len(gain) - 1
    impulse = torch.fft.irfft(gain.double().exp()).roll(delay)
    return _filtered(waveform, (impulse * torch.hann_window(2 * delay, dtype=torch.float64)).numpy(), delay)


def _filtered(waveform: torch.Tensor, impulse: np.ndarray, delay: int) -> torch.Tensor:
    """Of the convolution, as many samples as there were, from ``delay`` on."""
    from scipy.signal import oaconvolve

    impulse = np.broadcast_to(impulse.astype(np.float32), (*waveform.shape[:-1], impulse.shape[-1]))
    out = oaconvolve(waveform.numpy(), impulse, axes=-1)[..., delay : delay + waveform.shape[-1]]
    return torch.from_numpy(np.ascontiguousarray(out, np.float32))


def _mel_bands(sample_rate: int, n_channel_bins: int) -> torch.Tensor:
    """Triangles of equal width on the mel scale (HTK), each summing to 1. Shape: ``[n_bands, n_channel_bins]``"""
    low, high = BAND_RANGE[0], min(BAND_RANGE[1], 0.45 * sample_rate)
    low, high, at = (2595 * np.log10(1 + f / 700) for f in (low, high, np.linspace(0, sample_rate / 2, n_channel_bins)))
    edges = np.linspace(low, high, N_BANDS + 2)
    width = edges[1] - edges[0]
    weights = np.maximum(0, np.minimum(at - edges[:-2, None], edges[2:, None] - at) / width)
    return torch.from_numpy((weights / weights.sum(1, keepdims=True).clip(min=1e-9)).astype(np.float32))
