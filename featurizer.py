"""Waveform <-> frames of log-magnitude beside phase. Pure: tensors in, tensors out.

Conventions: a waveform is float32 with full scale 1. A frame is ``2 * n_bins`` numbers: the natural
logarithm of the magnitude (a sine of amplitude 1 has magnitude 1, i.e. 0 dB), then the phase in
radians. Phase is that of the frame's first sample, as in ``torch.stft``.

Stereo waveforms are ``[..., 2, n_samples]``. In a frame, the bins of left and right lie side by side (``n_bins``
is twice ``n_channel_bins``): what both share can be learned once, and panning lies in the magnitudes, which
a new phase leaves alone. The transforms themselves know nothing of channels.
"""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import torch
import torch.nn.functional as F

from config import FeaturizerConfig

DB = 20 / math.log(10)  # dB per neper: decibels = DB * log_magnitude
MEL_CORNER = 700.0  # Hz, up to which the HTK mel scale is nearly linear
SAME_DB = 0.01  # frames that differ by less are the same
# 160 dB below full scale: far below 16-bit (-98 dB) noise, so the round trip stays exact.
MIN_LOG_MAGNITUDE = -160 / DB
MAX_PROMPT_SECONDS = 60  # of a prompt's end that is heard


class Unvaried(ValueError):
    """Nothing can be learned from frames that are all the same."""


def check_varied(log_magnitude: np.ndarray, floor_db: float):
    """Raises :class:`Unvaried` where no bin changes by :data:`SAME_DB`, but for what lies below the floor (dB re full
    scale). Shape: ``[n_chunks, n_frames, n_bins]``, nepers"""
    if np.ptp(np.maximum(log_magnitude, floor_db / DB), axis=(0, 1)).max() < SAME_DB / DB:
        raise Unvaried("all frames are the same")


def mel_weight(n_channel_bins: int, sample_rate: int, channels: int) -> np.ndarray:
    """The square root of the mel scale's density at each bin: bins are equally spaced in Hz, ears are not (HTK: mel ~
    log(1 + f / 700 Hz)). Shape: -> float32 ``[channels * n_channel_bins]``"""
    frequency = np.tile(np.linspace(0, sample_rate / 2, n_channel_bins), channels)
    return (1 / np.sqrt(1 + frequency / MEL_CORNER)).astype(np.float32)


class Featurizer:
    """Short-time Fourier transform with a periodic Hann window, and its inverse.

    Args:
        config: framing.
        device: where the window lives; inputs must be there too.
    """

    def __init__(self, config: FeaturizerConfig, device: torch.device | str = "cpu"):
        self.config = config
        self.window = torch.hann_window(config.n_fft, device=device)
        self.gain = 2 / config.n_fft / 0.5  # a sine of amplitude 1 comes out as 1 (Hann mean: 0.5)

    # -- whole waveforms: centred frames, exactly invertible ---------------------------------

    def frames(self, waveform: torch.Tensor) -> torch.Tensor:
        """Centred frames of a whole waveform.

        Shape:
            waveform ``[..., n_samples]``, stereo ``[..., 2, n_samples]`` -> ``[..., 1 + n_samples // hop_length,
            2 * n_bins]``
        """
        pad = self.config.n_fft // 2
        return self.join(self.stft(F.pad(waveform, (pad, pad + self._tail(waveform)))))

    def waveform(self, frames: torch.Tensor, n_samples: int) -> torch.Tensor:
        """Inverse of :meth:`frames`.

        Shape:
            frames ``[..., n_frames, 2 * n_bins]`` -> ``[..., n_samples]``, stereo ``[..., 2, n_samples]``
        """
        pad = self.config.n_fft // 2
        return self.istft(self.spectrum(frames))[..., pad : pad + n_samples]

    def _tail(self, waveform: torch.Tensor) -> int:
        # Up to the next whole hop, so that the last sample has all its frames.
        return -waveform.shape[-1] % self.config.hop_length

    # -- plain frames: no padding, frame t starts at sample t * hop_length --------------------

    def stft(self, waveform: torch.Tensor, hop_length: int | None = None) -> torch.Tensor:
        """Complex frames without padding.

        Args:
            hop_length: samples, of frames that are to be nearer or farther than the configuration has them.

        Shape:
            waveform ``[..., n_samples]`` -> ``[..., 1 + (n_samples - n_fft) // hop_length, n_channel_bins]``
        """
        segments = waveform.unfold(-1, self.config.n_fft, hop_length or self.config.hop_length)
        return torch.fft.rfft(segments * (self.window * self.gain))

    def istft(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Least-squares inverse of :meth:`stft` (Griffin and Lim 1984, eq. 6).

        The first and last ``n_fft - hop_length`` samples have fewer frames; where the windows sum
        to next to nothing the result fades to zero.

        Shape:
            spectrum ``[..., n_frames, n_channel_bins]`` -> ``[..., n_fft + (n_frames - 1) * hop_length]``
        """
        n_fft, hop = self.config.n_fft, self.config.hop_length
        batch, n_frames = spectrum.shape[:-2], spectrum.shape[-2]
        segments = torch.fft.irfft(spectrum, n=n_fft) * (self.window / self.gain)
        n_overlaps = n_fft // hop
        # Overlap-add as n_overlaps shifted sums of hops: exact, and faster than a scatter.
        parts = segments.reshape(*batch, n_frames, n_overlaps, hop)
        weights = self.window.square().reshape(n_overlaps, hop)
        total = segments.new_zeros(*batch, n_frames + n_overlaps - 1, hop)
        norm = segments.new_zeros(n_frames + n_overlaps - 1, hop)
        for i in range(n_overlaps):
            total[..., i : i + n_frames, :] += parts[..., i, :]
            norm[i : i + n_frames] += weights[i]
        return (total / norm.clamp(min=1e-4)).flatten(-2)

    # -- channels ----------------------------------------------------------------------------

    def beside(self, values: torch.Tensor) -> torch.Tensor:
        """The channels' frames as one long frame; mono as it is.

        Shape:
            ``[..., 2, n_frames, n_channel_bins]`` -> ``[..., n_frames, n_bins]``
        """
        return values if self.config.channels == 1 else values.movedim(-3, -2).flatten(-2)

    def apart(self, values: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`beside`. Shape: ``[..., n_frames, n_bins]`` -> ``[..., 2, n_frames, n_channel_bins]``"""
        channels = self.config.channels
        return values if channels == 1 else values.unflatten(-1, (channels, -1)).movedim(-2, -3)

    def log_magnitude(
        self, waveform: torch.Tensor, n_channel_bins: int | None = None, hop_length: int | None = None
    ) -> torch.Tensor:
        """Log-magnitude of :meth:`stft`, without the cost of the phase, the channels side by side.

        Args:
            n_channel_bins: wanted, of each channel: the highest are cut off, or the last is repeated.
            hop_length: as of :meth:`stft`.

        Shape:
            waveform ``[..., n_samples]``, stereo ``[..., 2, n_samples]`` -> ``[..., n_frames, n_bins]``
        """
        spectrum = self.stft(waveform, hop_length)
        power = spectrum.real.square() + spectrum.imag.square()
        frames = 0.5 * power.clamp(min=math.exp(2 * MIN_LOG_MAGNITUDE)).log()
        if n_channel_bins is not None:
            last = frames[..., -1:].expand(*frames.shape[:-1], max(0, n_channel_bins - frames.shape[-1]))
            frames = torch.cat([frames[..., :n_channel_bins], last], dim=-1)
        return self.beside(frames)

    def join(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Log-magnitude beside phase.

        Shape:
            complex ``[..., n_frames, n_channel_bins]``, stereo ``[..., 2, n_frames, n_channel_bins]`` ->
            ``[..., n_frames, 2 * n_bins]``
        """
        log_magnitude = spectrum.abs().clamp(min=math.exp(MIN_LOG_MAGNITUDE)).log()
        return torch.cat([self.beside(log_magnitude), self.beside(spectrum.angle())], dim=-1)

    def spectrum(self, frames: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`join`, of the same shapes."""
        log_magnitude, phase = (self.apart(part) for part in frames.chunk(2, dim=-1))
        return torch.polar(log_magnitude.exp(), phase)


def whole_frames(prompts: torch.Tensor, framing: FeaturizerConfig) -> torch.Tensor:
    """The end of prompts, :data:`MAX_PROMPT_SECONDS` at most, in whole frames: in front, one shorter than a frame is
    preceded by silence. Shape: ``[..., n_samples]``, the same"""
    n = min(prompts.shape[-1], MAX_PROMPT_SECONDS * framing.sample_rate)
    n = max(framing.n_fft, n - (n - framing.n_fft) % framing.hop_length)
    return F.pad(prompts, (max(0, n - prompts.shape[-1]), 0))[..., -n:]


def fit_scaler(chunks) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each bin, by scikit-learn in one streaming pass.

    Args:
        chunks: an iterable of arrays ``[n_frames, n_bins]``.

    Returns:
        ``(mean, std)``, float32 ``[n_bins]`` each, to be stored as arrays.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for chunk in chunks:
        scaler.partial_fit(chunk)
    return scaler.mean_.astype(np.float32), np.sqrt(scaler.var_).astype(np.float32)


def load_torchaudio():
    """``torchaudio.functional``, or None where it is not installed.

    PyPI's Linux wheel links CUDA libraries, so beside a CPU build of torch its import fails,
    although all that is used here is plain PyTorch. The compiled extension is then left out.
    """
    try:
        import torchaudio.functional as functional
    except ImportError:
        return None
    except OSError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        extension = types.ModuleType("torchaudio._extension")
        extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
        extension._IS_ALIGN_AVAILABLE = False
        extension._check_cuda_version = lambda: None
        extension.fail_if_no_align = lambda function: function
        sys.modules["torchaudio._extension"] = extension
        try:
            import torchaudio.functional as functional
        except (ImportError, OSError, AttributeError):
            return None
    return functional
