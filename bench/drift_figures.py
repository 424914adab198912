"""How far a long rollout has gone from its prompt, in level and in spectrum, at some times after it. Pure."""

from __future__ import annotations

import math

import numpy as np

import metrics

TIMES = (5, 20, 60)  # s after the prompt
SLACK = 0.25  # s that a rollout may end too early: what remakes phases needs frames after the last
WINDOW_SECONDS = 3.0  # that are looked at, up to each of these times; as long as the prompts of bench.protocol
RANGE = 1e-8  # of a spectrum's power, below which a band counts as silent: -80 dB


def level(waveform) -> float:
    """RMS, dB re full scale, not below -140. Shape: ``[n_samples]``"""
    return 10 * math.log10(max(np.square(np.asarray(waveform), dtype=np.float64).mean(), 1e-14))


def mean_spectrum(waveform, sample_rate: int) -> np.ndarray:
    """The mel spectrum of the mean power, dB re its sum, not below -80: the same at any gain.

    Shape:
        ``[n_samples]`` -> float64 ``[metrics.N_MELS]``
    """
    power = metrics.power_frames(waveform, sample_rate).mean(0, dtype=np.float64)
    mel = power @ metrics.mel_filters(len(power), sample_rate)
    return 10 * np.log10((mel / max(mel.sum(), 1e-20)).clip(min=RANGE))


def spectral_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two spectra in dB, without its mean over the bands: what is left of the gain."""
    difference = one - other
    return float(np.abs(difference - difference.mean()).mean())


def drift_at(waveform, n_prompt: int, sample_rate: int, seconds: float) -> tuple[float, float]:
    """Level over that of the prompt, dB, and :func:`spectral_distance` to it, dB, of the :data:`WINDOW_SECONDS` that
    end ``seconds`` after the prompt; nan where the waveform ends before (:data:`SLACK` may be missing).

    Shape:
        ``[n_samples]`` with the prompt
    """
    waveform = np.asarray(waveform, np.float32)
    stop = n_prompt + round(seconds * sample_rate)
    if stop > len(waveform) + SLACK * sample_rate:
        return math.nan, math.nan
    prompt, window = waveform[:n_prompt], waveform[max(n_prompt, stop - round(WINDOW_SECONDS * sample_rate)) : stop]
    spectra = [mean_spectrum(part, sample_rate) for part in (window, prompt)]
    return level(window) - level(prompt), spectral_distance(*spectra)


def drift_row(waveforms, n_prompt: int, sample_rate: int) -> dict:
    """At each of :data:`TIMES`, over the rollouts: ``drift_level_T``, median of the level over the prompt's, dB;
    ``drift_off_T``, median of its amount, which +6 and -6 do not cancel in; ``drift_softest_T``, the smallest, of the
    rollout that has faded most; ``drift_spectrum_T``, median of the spectral distance, dB; ``drift_n_T``, how many of
    the rollouts are as long as that. nan where none is.

    Args:
        waveforms: ``[n_samples]`` each, of any lengths, with the prompt.
    """
    row = {}
    for seconds in TIMES:
        found = np.array([drift_at(w, n_prompt, sample_rate, seconds) for w in waveforms]).reshape(-1, 2)
        levels, spectra = found[np.isfinite(found).all(1)].T
        row[f"drift_n_{seconds}"] = len(levels)
        row[f"drift_level_{seconds}"] = float(np.median(levels)) if len(levels) else math.nan
        row[f"drift_off_{seconds}"] = float(np.median(np.abs(levels))) if len(levels) else math.nan
        row[f"drift_softest_{seconds}"] = float(levels.min()) if len(levels) else math.nan
        row[f"drift_spectrum_{seconds}"] = float(np.median(spectra)) if len(spectra) else math.nan
    return row
