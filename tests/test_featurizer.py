"""Waveform <-> frames."""

import numpy as np
import pytest
import soundfile
import torch

from config import FeaturizerConfig
from featurizer import DB, Featurizer, fit_scaler, load_torchaudio


def snr(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Signal-to-noise ratio in dB."""
    return float(10 * torch.log10(reference.double().square().sum() / (reference - other).double().square().sum()))


@pytest.mark.parametrize("n_fft, hop", [(2048, 512), (1024, 256), (512, 64), (600, 150)])
def test_round_trip_over_the_corpus(recordings, n_fft, hop):
    """Frames of every recording give its waveform back with at least 90 dB."""
    featurizer = Featurizer(FeaturizerConfig(n_fft=n_fft, hop_length=hop))
    files = sorted(recordings.iterdir())
    assert len(files) >= 2
    for path in files:
        waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        frames = featurizer.frames(waveform)
        assert frames.shape == (1 + -(-len(waveform) // hop), 2 * (n_fft // 2 + 1))
        assert snr(waveform, featurizer.waveform(frames, len(waveform))) >= 90


@pytest.mark.parametrize("n_samples", [1, 2, 511, 512, 513, 5000])
def test_round_trip_of_any_length(n_samples):
    torch.manual_seed(0)
    waveform = 0.1 * torch.randn(2, n_samples)
    featurizer = Featurizer(FeaturizerConfig(n_fft=512, hop_length=128))
    again = featurizer.waveform(featurizer.frames(waveform), n_samples)
    assert snr(waveform, again) >= 90


def test_agrees_with_the_reference():
    """Frames are those of torch.stft, and of torchaudio where it is installed."""
    torch.manual_seed(1)
    waveform = torch.randn(22050)
    featurizer = Featurizer(FeaturizerConfig())
    window = torch.hann_window(2048)
    spectrum = featurizer.stft(waveform)
    reference = torch.stft(waveform, 2048, 512, window=window, center=False, return_complex=True).T
    torch.testing.assert_close(spectrum, reference * featurizer.gain, atol=1e-5, rtol=1e-4)
    functional = load_torchaudio()
    if functional is not None:
        power = functional.spectrogram(waveform, 0, window, 2048, 512, 2048, 2.0, False, center=False).T
        ours = (2 * featurizer.log_magnitude(waveform)).exp()
        torch.testing.assert_close(ours, power * featurizer.gain**2, atol=1e-6, rtol=1e-3)


def test_a_sine_of_amplitude_one_has_zero_db():
    t = torch.arange(22050) / 22050
    featurizer = Featurizer(FeaturizerConfig())
    frequency = 100 * 22050 / 2048  # the centre of bin 100
    decibels = DB * featurizer.log_magnitude(torch.sin(2 * torch.pi * frequency * t))
    assert abs(float(decibels[5, 100])) < 0.01


def test_scaler_in_one_pass_equals_the_whole():
    data = np.random.default_rng(0).normal(3, 2, (1000, 7))
    mean, std = fit_scaler(np.split(data, 10))
    np.testing.assert_allclose(mean, data.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, data.std(0), rtol=1e-6)


@pytest.mark.parametrize("state", ["absent", "unloadable"])
def test_everything_works_without_torchaudio(monkeypatch, state):
    """Absent: the picture has a linear axis. Unloadable: the plain PyTorch part is used."""
    import builtins
    import sys

    from spectrogram import spectrogram_png

    for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    original, calls = builtins.__import__, []

    def fake(name, *arguments, **keywords):
        if name.startswith("torchaudio"):
            calls.append(name)
            if state == "absent":
                raise ImportError(name)
            if len(calls) == 1:
                raise OSError("libc10_cuda.so: cannot open shared object file")
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", fake)
    functional = load_torchaudio()
    assert (functional is None) == (state == "absent")
    if functional is not None:
        assert functional.resample(torch.zeros(100), 2, 1).shape == (50,)
    assert spectrogram_png(torch.randn(9000), FeaturizerConfig()).startswith(b"\x89PNG")
    assert calls
