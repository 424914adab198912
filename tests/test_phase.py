"""Phase reconstruction and the join."""

import soundfile
import torch

from config import FeaturizerConfig
from featurizer import Featurizer
from phase import CROSSFADE, continue_waveform, peak_locked_phase

CONFIG = FeaturizerConfig()


def excerpt(recordings, seconds=6.0):
    path = sorted(recordings.iterdir())[1]
    waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    return waveform[None, 22050 : 22050 + int(seconds * 22050)]


def convergence(target: torch.Tensor, waveform: torch.Tensor, featurizer: Featurizer) -> float:
    """Spectral convergence (Sturmel and Daudet 2011) against the target's magnitudes."""
    a, b = featurizer.stft(target).abs(), featurizer.stft(waveform).abs()
    return float((a - b).norm() / a.norm())


def test_a_steady_sine_keeps_its_phase():
    """The peak-locked start advances a sine within 0.03 rad of the truth at every frame."""
    featurizer = Featurizer(CONFIG)
    t = torch.arange(22050 * 4, dtype=torch.float64) / 22050
    waveform = torch.sin(2 * torch.pi * 443.3 * t).float()[None]
    spectrum = featurizer.stft(waveform)
    frames = featurizer.log_magnitude(waveform)
    phase = peak_locked_phase(frames[:, 1:101], spectrum[:, 0].angle(), CONFIG.hop_length)
    peak = int(frames[0, 0].argmax())
    error = torch.angle(torch.polar(torch.ones(()), phase[0, :, peak] - spectrum[0, 1:101, peak].angle()))
    step_error = error.diff().abs().max()
    assert step_error < 0.03


def test_resynthesis_from_true_magnitudes(recordings):
    """Peak-locked start and 4 steps: spectral convergence below 0.12, better than the start; 8 are better still."""
    featurizer = Featurizer(CONFIG)
    waveform = excerpt(recordings)
    known = waveform[:, : CONFIG.n_fft]
    frames = featurizer.log_magnitude(waveform)[:, 1:]
    values = {}
    for n_steps in (0, 4, 8):
        new = continue_waveform(featurizer, known, frames, n_steps)
        whole = torch.cat([known[:, :-CROSSFADE], new], dim=1)
        values[n_steps] = convergence(waveform[:, : whole.shape[1]], whole, featurizer)
    assert values[8] < values[4] < 0.12
    assert values[4] < 0.7 * values[0]


def test_true_phases_give_the_waveform_back(recordings):
    """With the true phases the continuation is the recording, join included: above 60 dB."""
    featurizer = Featurizer(CONFIG)
    waveform = excerpt(recordings, 3.0)
    frames, phase = featurizer.join(featurizer.stft(waveform))[:, 1:].chunk(2, dim=-1)
    new = continue_waveform(featurizer, waveform[:, : CONFIG.n_fft], frames, 0, phase)
    true = waveform[:, CONFIG.n_fft - CROSSFADE :][:, : new.shape[1]]
    assert float((new - true).abs().max()) < 1e-3 * float(true.abs().max())


def test_the_join_has_no_click(recordings):
    """The step at the join stays below the recording's own 99th percentile."""
    featurizer = Featurizer(CONFIG)
    waveform = excerpt(recordings)
    known = waveform[:, : 2 * CONFIG.n_fft]
    frames = featurizer.log_magnitude(waveform)[:, 5:]
    new = continue_waveform(featurizer, known[:, -CONFIG.n_fft :], frames, 4)
    whole = torch.cat([known[:, :-CROSSFADE], new], dim=1)[0]
    own = waveform.diff().abs().quantile(0.99)
    for place in (known.shape[1], known.shape[1] - CROSSFADE):
        assert whole[place - 1 : place + 1].diff().abs() < own


def test_magnitudes_that_are_not_quite_true_make_no_burst(recordings):
    """A codec's hiss where the prompt has none: no burst of it at the join, 1.6 times what is to come at most."""
    featurizer = Featurizer(CONFIG)
    waveform = excerpt(recordings)
    n_known = 2 * CONFIG.n_fft
    frames = featurizer.log_magnitude(waveform)[:, 5:].expand(16, -1, -1)
    hiss = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)) * 0.5 - 6
    new = continue_waveform(
        featurizer, waveform[:, n_known - CONFIG.n_fft : n_known].expand(16, -1), torch.logaddexp(frames, hiss), 4
    )
    error = new - waveform[:, n_known - CROSSFADE :][:, : new.shape[1]]
    leaps = error.diff().abs()
    assert leaps[:, CROSSFADE - 16 : CROSSFADE + 64].mean() < 1.6 * leaps[:, 4 * CROSSFADE :].mean()


def test_a_title_is_no_mathematics(recordings):
    """Dollar signs and bytes that are no text may stand in a file's name."""
    from spectrogram import spectrogram_png

    assert spectrogram_png(excerpt(recordings, 1.0)[0], CONFIG, "cash $$ caf\udce9_$.wav").startswith(b"\x89PNG")
