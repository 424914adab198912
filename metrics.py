"""How near generated sound comes to recorded sound. Pure: arrays in, numbers out.

Waveforms are float ``[n_samples]`` with full scale 1, numpy or torch. Levels and spectra are in dB
re full scale. Spectra have windows of about 93 ms (2048 samples at 22.05 kHz) and a quarter as hop.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

WINDOW_SECONDS = 0.0929
N_MELS = 48
FLOOR = 1e-8  # power below which a mel band counts as silent: -80 dB
SILENT = 1e-8  # mean square of a second that has no spectrum to speak of
ONSET_RISE = 0.4  # dB per band above the flux around it: chords are found, white noise has 0.3 such peaks a second
COPY_MELS, COPY_RATE, COPY_PHASES = 96, 10, 4  # bands; frames per second; time offsets in a frame
COPY_RANGE = 60.0  # dB below a frame's loudest band at which its spectrum ends
COPY_MATCH = 0.8  # cosine similarity: what the codec makes of a frame has about this to the frame itself
KRUMHANSL = {  # Krumhansl and Kessler 1982, probe-tone ratings from the tonic up
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
BASS = 48  # MIDI note, C3: notes below are the bass
CHORD_SECONDS = 0.25  # between two looks at which chord sounds: an eighth at 120 quarters a minute
TRIADS = ((0, 4, 7), (0, 3, 7), (0, 3, 6))  # major, minor, diminished, in semitones above the root
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}


# -- sets of embeddings ------------------------------------------------------------------------


def frechet_distance(a, b) -> float:
    """Fréchet distance of the Gaussians through two sets of embeddings; 0 for equal ones.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``, on images Heusel et al. 2017, on audio
    Kilgour et al. 2019. The trace of the root is the sum of the roots of the eigenvalues of the
    symmetric ``C_a^(1/2) C_b C_a^(1/2)``, which never leaves the real numbers.

    Shape:
        a ``[n, d]``, b ``[m, d]``, with any n and m from 2 up

    Raises:
        ValueError: fewer than two embeddings, or of different widths.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(len(a), len(b)) < 2 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"embeddings [n, d] and [m, d] of at least two each, not {a.shape} and {b.shape}")
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    roots = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0))
    distance = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * roots.sum()
    return max(0.0, float(distance))


def classifier_accuracy(real, generated, groups_real, groups_generated, seed: int = 0) -> float:
    """How well a linear classifier tells generated from real embeddings that it has not seen.

    Standardised logistic regression (C = 0.1), cross-validated over up to five folds of whole
    groups (recordings; or prompts, if there is one recording only), as in the classifier two-sample
    test of Lopez-Paz and Oquab 2017.

    Shape:
        real ``[n, d]``, generated ``[m, d]``, groups ``[n]`` and ``[m]`` of anything hashable

    Returns:
        balanced accuracy: 0.5 where they cannot be told apart, 1 where they always can.

    Raises:
        ValueError: fewer than two groups.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([real, generated]).astype(np.float64)
    y = np.repeat([0, 1], [len(real), len(generated)])
    groups = np.unique(np.concatenate([groups_real, groups_generated]), return_inverse=True)[1]
    n_folds = min(5, groups.max() + 1)
    if n_folds < 2:
        raise ValueError("one group only: nothing is left to test on")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, random_state=seed))
    folds = GroupKFold(n_folds, shuffle=True, random_state=seed)
    return float(balanced_accuracy_score(y, cross_val_predict(classifier, x, y, groups=groups, cv=folds)))


def bootstrap_interval(statistic, n_items: int, n_resamples: int = 200, seed: int = 0, centre: bool = False):
    """95 % percentile interval of a statistic, resampling items (Efron 1979).

    Args:
        statistic: called with int64 indices ``[n_items]``, returns a number.
        centre: move the interval so that its median is the statistic of all items. A Fréchet
            distance grows with every repeated item, so its plain interval lies too high.

    Returns:
        ``(low, high)``
    """
    random = np.random.default_rng([seed, 2])
    values = [statistic(random.integers(0, n_items, n_items)) for _ in range(n_resamples)]
    low, middle, high = np.nanpercentile(values, [2.5, 50, 97.5])
    shift = statistic(np.arange(n_items)) - middle if centre else 0.0
    return float(low + shift), float(high + shift)


# -- spectra -----------------------------------------------------------------------------------


def window_samples(sample_rate: int) -> int:
    """Samples of a window of :func:`power_frames`."""
    return 2 ** round(math.log2(WINDOW_SECONDS * sample_rate))


def power_frames(waveform, sample_rate: int, hop_seconds: float | None = None) -> np.ndarray:
    """Hann-windowed power spectra; a sine of amplitude 1 has power 1 in its bin.

    Shape:
        ``[n_samples]`` -> float32 ``[n_frames, n_bins]``; frame i starts at sample ``i * hop``
    """
    import torch

    waveform = torch.as_tensor(waveform, dtype=torch.float32)
    n_fft = window_samples(sample_rate)
    hop = n_fft // 4 if hop_seconds is None else round(hop_seconds * sample_rate)
    waveform = torch.nn.functional.pad(waveform, (0, max(0, n_fft - len(waveform))))
    spectrum = torch.stft(waveform, n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True)
    return (spectrum.abs() * (4 / n_fft)).square().T.numpy()


def mel_filters(n_bins: int, sample_rate: int, n_mels: int = N_MELS) -> np.ndarray:
    """Triangles evenly spaced in mel (O'Shaughnessy 1987), each of sum 1. Shape: ``[n_bins, n_mels]``"""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, n_mels + 2) / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, n_bins)[:, None]
    rise, fall = (bins - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - bins) / np.diff(edges)[1:]
    filters = np.minimum(rise, fall).clip(min=0)
    for band in np.flatnonzero(filters.sum(0) == 0):  # narrower than a bin
        filters[np.abs(bins[:, 0] - edges[band + 1]).argmin(), band] = 1
    return (filters / filters.sum(0)).astype(np.float32)


def spectral_figures(waveform, sample_rate: int) -> dict[str, np.ndarray]:
    """What each whole second sounds like.

    Returns:
        float64 ``[n_seconds]`` each: ``loudness`` (RMS, dB), ``bandwidth`` (Hz, standard deviation of
        the second's mean power spectrum around its centroid), ``flatness`` (dB, geometric over
        arithmetic mean of the same; 0 is white), ``flux`` (dB per mel band, mean over frames of the
        half-wave-rectified difference to the frame before). Silent seconds have no bandwidth and no
        flatness: nan.
    """
    waveform = np.asarray(waveform, np.float32)
    power = power_frames(waveform, sample_rate)
    flux, seconds = _flux(power, sample_rate), _second_slices(len(waveform), power.shape[1], sample_rate)
    hertz = np.linspace(0, sample_rate / 2, power.shape[1])
    rows = []
    for i, frames in enumerate(seconds):
        square = np.square(waveform[i * sample_rate : (i + 1) * sample_rate], dtype=np.float64).mean()
        spectrum = power[frames].mean(0, dtype=np.float64) + 1e-14  # far below 16-bit noise
        weight = spectrum / spectrum.sum()
        centroid = (weight * hertz).sum()
        bandwidth = math.sqrt((weight * (hertz - centroid) ** 2).sum())
        flatness = 10 * (np.log10(spectrum).mean() - math.log10(spectrum.mean()))
        if square < SILENT:
            bandwidth = flatness = math.nan
        rows.append((10 * math.log10(max(square, 1e-14)), bandwidth, flatness, flux[frames].mean()))
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return dict(zip(("loudness", "bandwidth", "flatness", "flux"), columns, strict=True))


def movement(waveform, sample_rate: int) -> dict:
    """How much happens in a stretch of some seconds.

    Returns:
        ``onsets`` per second: frames whose flux is the largest within 50 ms and stands
        :data:`ONSET_RISE` above its mean over half a second (after Böck, Krebs and Schedl 2012);
        ``flux`` (dB per mel band, mean); ``self_similarity``: mean cosine similarity of all pairs of
        seconds that begin at least 2 s apart, each second a log-mel spectrum with its mean over
        bands removed (nan below 3 s); ``second_correlation`` ``[n_seconds - 1]``: the same
        similarity of each second to the next.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import find_peaks

    power = power_frames(waveform, sample_rate)
    flux = _flux(power, sample_rate)
    frame_rate = len(power) / max(len(waveform) / sample_rate, 1e-9)
    around = uniform_filter1d(flux, max(3, round(0.5 * frame_rate)), mode="nearest")
    peaks, _ = find_peaks(np.pad(flux, 1), height=np.pad(around + ONSET_RISE, 1), distance=max(1, 0.05 * frame_rate))
    mel = power @ mel_filters(power.shape[1], sample_rate)
    seconds = [mel[frames].mean(0) for frames in _second_slices(len(waveform), power.shape[1], sample_rate)]
    spectra = 10 * np.log10(np.array(seconds, np.float64).reshape(-1, N_MELS).clip(min=FLOOR))
    spectra -= spectra.mean(1, keepdims=True)
    spectra /= np.linalg.norm(spectra, axis=1, keepdims=True).clip(min=1e-9)
    similarity = spectra @ spectra.T
    apart = similarity[np.triu_indices(len(spectra), 2)]
    return {
        "onsets": len(peaks) * sample_rate / len(waveform),
        "flux": float(flux.mean()),
        "self_similarity": float(apart.mean()) if len(apart) else math.nan,
        "second_correlation": similarity.diagonal(1).copy(),
    }


def mel_decibels(power: np.ndarray, sample_rate: int) -> np.ndarray:
    """Shape: power ``[n_frames, n_bins]`` of :func:`power_frames` -> dB ``[n_frames, N_MELS]``"""
    return 10 * np.log10((power @ mel_filters(power.shape[1], sample_rate)).clip(min=FLOOR))


def rise(decibels: np.ndarray) -> np.ndarray:
    """Half-wave-rectified difference to the frame before, dB per band; 0 in the first frame.

    Shape:
        ``[n_frames, n_bands]`` -> float64 ``[n_frames]``
    """
    return np.pad(np.diff(decibels, axis=0).clip(min=0).mean(1), (1, 0)).astype(np.float64)


def _flux(power: np.ndarray, sample_rate: int) -> np.ndarray:
    """:func:`rise` of the mel spectrum. Shape: ``[n_frames, n_bins]`` -> ``[n_frames]``"""
    return rise(mel_decibels(power, sample_rate))


def _second_slices(n_samples: int, n_bins: int, sample_rate: int) -> list[slice]:
    """The frames of each whole second that lie in it from end to end."""
    n_fft = 2 * (n_bins - 1)
    hop = n_fft // 4
    starts = range(0, n_samples - sample_rate + 1, sample_rate)
    return [slice(-(-at // hop), (at + sample_rate - n_fft) // hop + 1) for at in starts]


def share_outside(values, low: float, high: float) -> float:
    """Share of values that are not within ``low .. high``; nan is outside. nan without values."""
    values = np.asarray(values, np.float64)
    return float(np.mean(~((values >= low) & (values <= high)))) if values.size else math.nan


def longest_run(mask) -> int:
    """Length of the longest run of true values in ``[n]``."""
    edges = np.flatnonzero(np.diff(np.pad(np.asarray(mask, bool).astype(np.int8), 1)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


# -- copies ------------------------------------------------------------------------------------


def copy_frames(waveform, sample_rate: int, n_phases: int = COPY_PHASES) -> np.ndarray:
    """Log-mel frames of 100 ms without their level, at several offsets in time.

    Phase p starts ``p / COPY_PHASES`` of a frame later: compared with the phase 0 of a recording, one of
    them is never more than 13 ms beside it. Silent frames are all zeros.

    Shape:
        ``[n_samples]`` -> float32 ``[n_phases, n_frames, COPY_MELS]``, dB around the frame's mean
    """
    power = power_frames(waveform, sample_rate, 1 / COPY_RATE / COPY_PHASES)
    mel = power @ mel_filters(power.shape[1], sample_rate, COPY_MELS)
    n_frames = max(0, len(mel) - n_phases + 1) // COPY_PHASES
    parts = [mel[p : p + n_frames * COPY_PHASES].reshape(n_frames, COPY_PHASES, -1).mean(1) for p in range(n_phases)]
    mel = np.stack(parts)
    loudest = mel.max(-1, keepdims=True, initial=1e-30)
    decibels = 10 * np.log10((mel / loudest).clip(min=10 ** (-COPY_RANGE / 10)))
    return (decibels - decibels.mean(-1, keepdims=True)) * (loudest > FLOOR)


def unit_frames(frames: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Frames ``[..., d]`` without the corpus' ``mean [d]``, of length 1; silent ones stay zero."""
    centred = (frames - mean) * frames.any(-1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=-1, keepdims=True).clip(min=1e-9)


def longest_copy(frames, training, threshold: float = COPY_MATCH) -> int:
    """Longest stretch that follows one place of the training material, in frames.

    A stretch is a run along a diagonal of the matrix of cosine similarities above ``threshold``;
    one frame below it between two above is forgiven (and counted), two end it.

    Shape:
        frames ``[n, d]`` or ``[n_phases, n, d]`` (the longest over all phases), training ``[m, d]``;
        unit length each, see :func:`unit_frames`
    """
    frames, training = np.asarray(frames, np.float32), np.asarray(training, np.float32)
    best = 0
    for phase in frames if frames.ndim == 3 else frames[None]:
        if not len(phase) or not len(training):
            continue
        run = np.zeros(len(training) + 1, np.int16)  # frames so far, the forgiven one included
        sure = run.copy()  # frames up to the last that matched
        for block in np.array_split(phase, -(-len(phase) // 32)):
            for match in block @ training.T > threshold:
                # A run that goes on: it matches now, or it matched a frame ago.
                goes_on = match | ((sure[:-1] == run[:-1]) & (run[:-1] > 0))
                sure[1:] = np.where(match, run[:-1] + 1, sure[:-1] * goes_on)
                run[1:] = (run[:-1] + 1) * goes_on
                best = max(best, int(sure.max()))
    return best


# -- the join ----------------------------------------------------------------------------------


def join_figures(waveform, n_prompt: int, sample_rate: int, n_fade: int = 256) -> dict[str, float]:
    """Whether the join of prompt and continuation is heard.

    Returns:
        ``step``: the largest ``|x[i] - x[i-1]|`` within 2 samples of the join or of the start of the
        crossfade ``n_fade`` samples before it, as a ratio to the 99th percentile of the same in the
        prompt before; ``level_step``: level of the second after the join over that of the second
        before, dB.
    """
    waveform = np.asarray(waveform, np.float64)
    steps = np.abs(np.diff(waveform, prepend=waveform[:1]))
    fade = max(3, n_prompt - n_fade)
    usual = np.percentile(steps[: fade - 2], 99)
    step = max(steps[max(0, place - 2) : place + 3].max() for place in (fade, n_prompt))
    before, after = waveform[max(0, n_prompt - sample_rate) : n_prompt], waveform[n_prompt : n_prompt + sample_rate]
    ratio = max(np.square(after).mean(), 1e-14) / max(np.square(before).mean(), 1e-14)
    return {"step": float(step / max(usual, 1e-9)), "level_step": 10 * math.log10(ratio)}


# -- notes: (onset s, duration s, MIDI pitch, amplitude) ------------------------------------------


def pitch_classes(notes) -> np.ndarray:
    """Seconds of each pitch class from C up, float64 ``[12]``."""
    weights = np.zeros(12)
    for _, duration, pitch, _ in notes:
        weights[int(pitch) % 12] += duration
    return weights


def key_of(pitch_class_weights) -> tuple[int, str] | None:
    """``(tonic, 'major' | 'minor')``, tonic 0 for C: the key whose profile correlates best.

    Krumhansl and Kessler 1982, Krumhansl 1990. None where nothing, or everything alike, sounds.
    """
    weights = np.asarray(pitch_class_weights, np.float64)
    if weights.std() < 1e-9:
        return None
    keys = [(tonic, mode) for mode in KRUMHANSL for tonic in range(12)]
    scores = [np.corrcoef(weights, np.roll(KRUMHANSL[mode], tonic))[0, 1] for tonic, mode in keys]
    return keys[int(np.argmax(scores))]


def key_score(key, reference) -> float:
    """MIREX audio key score: 1 equal, 0.5 a fifth above, 0.3 relative, 0.2 parallel, else 0 (and for None)."""
    if key is None or reference is None:
        return 0.0
    up = (key[0] - reference[0]) % 12
    if key[1] == reference[1]:
        return {0: 1.0, 7: 0.5}.get(up, 0.0)
    relative = 9 if reference[1] == "major" else 3
    return {relative: 0.3, 0: 0.2}.get(up, 0.0)


def in_key_share(notes, key) -> float:
    """Share of the sounding time on the major or natural minor scale of ``key``; nan without notes or key."""
    weights = pitch_classes(notes)
    if key is None or not weights.sum():
        return math.nan
    return float(weights[[(key[0] + step) % 12 for step in SCALES[key[1]]]].sum() / weights.sum())


def chords(notes, seconds: float) -> list[tuple[int, int] | None]:
    """The triad that sounds in each :data:`CHORD_SECONDS`: ``(root, index in TRIADS)``, the one whose pitch classes are
    most like those that sound (cosine similarity, after Fujishima, ICMC 1999); None where nothing does."""
    n = int(seconds / CHORD_SECONDS)
    weights = np.zeros((n, 12))
    for onset, duration, pitch, _ in notes:
        edges = np.arange(n + 1) * CHORD_SECONDS
        sounding = np.minimum(edges[1:], onset + duration) - np.maximum(edges[:-1], onset)
        weights[:, int(pitch) % 12] += sounding.clip(min=0)
    names = [(root, kind) for kind in range(len(TRIADS)) for root in range(12)]
    templates = np.zeros((len(names), 12))
    for template, (root, kind) in zip(templates, names, strict=True):
        template[[(root + step) % 12 for step in TRIADS[kind]]] = 1
    return [names[i] if w.any() else None for i, w in zip((weights @ templates.T).argmax(1), weights, strict=True)]


def chord_figures(notes, seconds: float) -> dict:
    """``chord_changes`` per second, and ``longest_chord``, s in which one triad sounds, or nothing."""
    runs = [len(list(run)) for _, run in itertools.groupby(chords(notes, seconds))]
    return {"chord_changes": (len(runs) - 1) / seconds, "longest_chord": max(runs, default=0) * CHORD_SECONDS}


def note_figures(notes, seconds: float) -> dict:
    """``notes`` per second, ``polyphony`` (mean number sounding), ``in_key`` share of its own ``key``, ``bass``
    share of the notes below :data:`BASS` (nan without notes), and :func:`chord_figures`."""
    key = key_of(pitch_classes(notes))
    return {
        "notes": len(notes) / seconds,
        "polyphony": float(sum(note[1] for note in notes)) / seconds,
        "in_key": in_key_share(notes, key),
        "key": key,
        "bass": float(np.mean([note[2] < BASS for note in notes])) if notes else math.nan,
        **chord_figures(notes, seconds),
    }
