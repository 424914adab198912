"""Notes of a recording, by basic-pitch (Bittner et al. 2022, "A lightweight instrument-agnostic model").

Its network lies in the ``basic-pitch`` package (Apache licence, ``pip install --no-deps basic-pitch``) as
an ONNX file and is run by onnxruntime on one thread; the decoding is that of the paper's section 3.2
with the package's default settings. Neither TensorFlow nor librosa is needed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from errors import UserError
from meter import Meter

SAMPLE_RATE = 22050  # Hz
HOP_LENGTH = 256  # samples between two frames of the output
N_SAMPLES = 43844  # of a window, which gives
N_FRAMES = 172
N_KEPT = 141  # frames of each window: a little less than it holds, so that a window is whole hops after the last
LOWEST = 21  # MIDI pitch of the first of 88 keys
ONSET, FRAME = 0.5, 0.3  # thresholds
MIN_FRAMES = 11  # of a note: 128 ms
TOLERANCE = 11  # frames below the threshold that end a note
# Amplitude below which a note is hardly heard: of 4,134 notes in bench.notes it leaves out 411, of which 75 are there.
# A least length beyond MIN_FRAMES gains nothing: 0.15 s changes F on the grid by 0.1 points, after the codec by -0.4.
GHOST = 0.35
MIN_NOTES = 4  # that tell where their grid lies
ON_GRID = 0.3  # resultant of onsets, from which they lie on one grid


class Transcriber:
    """Waveform -> notes.

    Raises:
        UserError: basic-pitch or onnxruntime is not installed.
    """

    def __init__(self):
        spec = importlib.util.find_spec("basic_pitch")
        if spec is None:
            raise UserError("basic-pitch: not installed; pip install --no-deps -r requirements-metrics-nodeps.txt")
        try:
            import onnxruntime
        except ImportError:
            raise UserError("onnxruntime: not installed; pip install -r requirements-metrics.txt") from None
        path = Path(spec.submodule_search_locations[0]) / "saved_models" / "icassp_2022" / "nmp.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def notes(self, waveform, sample_rate: int) -> list[tuple[float, float, int, float]]:
        """Notes ``(onset s, duration s, MIDI pitch, amplitude)`` by onset. Shape: waveform ``[n_samples]``"""
        return decode(*self.posteriorgrams(waveform, sample_rate))

    def posteriorgrams(self, waveform, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Probability that a key sounds, and that it is struck. Shape: ``[n_samples]`` -> 2 ``[n_frames, 88]``"""
        import soxr

        waveform = soxr.resample(np.asarray(waveform, np.float32), sample_rate, SAMPLE_RATE)
        margin, hop = (N_FRAMES - N_KEPT) // 2, N_KEPT * HOP_LENGTH  # a window's first and last frames are the worst
        n_windows = max(1, -(-len(waveform) // hop))
        padded = np.pad(waveform, (margin * HOP_LENGTH, n_windows * hop + N_SAMPLES - len(waveform)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, N_SAMPLES)[: n_windows * hop : hop, :, None]
        names = ["StatefulPartitionedCall:1", "StatefulPartitionedCall:2"]  # note, onset; the third is the contour
        batches = (np.ascontiguousarray(windows[i : i + 8]) for i in range(0, n_windows, 8))
        parts = [self.session.run(names, {self.input: batch}) for batch in batches]
        n_frames, kept = len(waveform) // HOP_LENGTH, slice(margin, margin + N_KEPT)
        note, onset = (np.concatenate(p)[:, kept].reshape(-1, 88)[:n_frames] for p in zip(*parts, strict=True))
        return note, onset


def decode(note: np.ndarray, onset: np.ndarray) -> list[tuple[float, float, int, float]]:
    """Posteriorgrams -> notes: from each onset, latest first, until the key is no longer heard;
    then what still sounds without an onset, loudest first.

    Shape:
        note and onset ``[n_frames, 88]`` -> list of ``(onset s, duration s, MIDI pitch, amplitude)``
    """
    from scipy.signal import argrelmax

    n_frames = len(note)
    if n_frames < 3:
        return []
    onset = _with_inferred(onset, note)
    remaining = note.copy()
    found = []

    def take(start: int, stop: int, key: int):
        remaining[start:stop, max(0, key - 1) : key + 2] = 0  # a key's neighbours hear it too

    times, keys = argrelmax(onset, axis=0)
    strong = onset[times, keys] >= ONSET
    for start, key in zip(times[strong][::-1], keys[strong][::-1], strict=True):
        stop = start + 1 + _length(remaining[start + 1 : n_frames - 1, key])
        if stop - start > MIN_FRAMES:
            take(start, stop, key)
            found.append((start, stop, key))
    while True:
        middle, key = np.unravel_index(remaining.argmax(), remaining.shape)
        if remaining[middle, key] <= FRAME:
            break
        stop = middle + 1 + _length(remaining[middle + 1 : n_frames - 1, key])
        start = middle - _length(remaining[1:middle, key][::-1])
        take(start, max(stop, middle + 1), key)
        if stop - start > MIN_FRAMES:
            found.append((start, stop, key))
    seconds = HOP_LENGTH / SAMPLE_RATE
    return sorted(
        (
            float(start * seconds),
            float((stop - start) * seconds),
            int(key) + LOWEST,
            float(note[start:stop, key].mean()),
        )
        for start, stop, key in found
    )


def without_ghosts(notes) -> list[tuple[float, float, int, float]]:
    """Notes but for those that are hardly heard, or that sound while the same key does already."""
    kept, ends = [], {}
    for onset, duration, pitch, amplitude in sorted(notes):
        if amplitude >= GHOST and onset >= ends.get(pitch, -1.0) - 1e-9:
            kept.append((onset, duration, pitch, amplitude))
            ends[pitch] = onset + duration
    return kept


def quantised(
    notes, quarters_per_minute: float, before: float = 0.0, movable: bool = True
) -> list[tuple[float, float, int, float]]:
    """Notes with beginnings and ends on the grid of sixteenths of a tempo; those that are one then are one.

    Args:
        notes: of :meth:`Transcriber.notes`.
        before: seconds from a line of the grid to the notes' zero; negative where the line comes later.
        movable: where that line is a guess (a recording may begin between two beats), the grid is moved to where the
            notes lie, if they clearly lie between its lines; by less than a quarter of a sixteenth it is not moved,
            since notes are found late.

    Returns:
        notes by onset, the first not before 0: what would begin earlier is cut there.
    """
    grid, notes = 15 / quarters_per_minute, list(notes)
    if not notes:
        return []
    onsets, weights = np.array([note[0] for note in notes]) + before, np.array([note[3] for note in notes])
    mean = (weights * np.exp(2j * np.pi * onsets / grid)).sum() / weights.sum()
    offset = float(np.angle(mean) / (2 * np.pi))
    elsewhere = movable and len(notes) >= MIN_NOTES and abs(mean) > ON_GRID and abs(offset) > 0.25
    offset = offset if elsewhere else 0.0
    found: dict[tuple[int, int], tuple[int, float]] = {}
    for onset, duration, pitch, amplitude in notes:
        first = round((onset + before) / grid - offset)
        last = max(first + 1, round((onset + duration + before) / grid - offset))
        known = found.get((first, pitch), (0, 0.0))
        found[first, pitch] = max(known[0], last), max(known[1], amplitude)
    placed = []
    for (first, pitch), (last, amplitude) in sorted(found.items()):
        start = (first + offset) * grid - before
        placed.append((max(0.0, start), (last - first) * grid + min(0.0, start), pitch, amplitude))
    return [note for note in placed if note[1] > 0]


def to_midi(notes, meter: Meter, offset: float = 0.0) -> bytes:
    """Notes as the bytes of a MIDI file of one piano.

    Args:
        notes: of :meth:`Transcriber.notes`.
        meter: of the file; the notes stay where they are in seconds.
        offset: seconds before the first.
    """
    import io

    import pretty_midi

    song = pretty_midi.PrettyMIDI(initial_tempo=meter.tempo, resolution=960)
    song.time_signature_changes.append(pretty_midi.TimeSignature(*meter.time_signature, 0))
    piano = pretty_midi.Instrument(0, name="continuation")
    for start, duration, pitch, amplitude in notes:
        velocity = min(127, max(1, round(127 * amplitude)))
        piano.notes.append(pretty_midi.Note(velocity, pitch, offset + start, offset + start + duration))
    song.instruments.append(piano)
    buffer = io.BytesIO()
    song.write(buffer)
    return buffer.getvalue()


def _with_inferred(onset: np.ndarray, note: np.ndarray, n_back: int = 2) -> np.ndarray:
    """Onsets, or sudden rises of the note probability scaled to the same maximum."""
    rises = [note - np.pad(note, ((n, 0), (0, 0)))[: len(note)] for n in range(1, n_back + 1)]
    rise = np.min(rises, axis=0).clip(min=0)
    rise[:n_back] = 0
    return np.maximum(onset, rise * (onset.max() / max(rise.max(), 1e-9)))


def _length(probabilities: np.ndarray) -> int:
    """Frames until the key is silent for TOLERANCE frames, without these."""
    heard = np.flatnonzero(probabilities >= FRAME)
    if not len(heard):
        return 0
    ends = np.flatnonzero(np.diff(heard, prepend=-1) > TOLERANCE)
    if not len(ends):
        return int(heard[-1]) + 1
    return int(heard[ends[0] - 1]) + 1 if ends[0] else 0
