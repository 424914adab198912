"""Waveforms -> audio files as a DAW takes them, in memory that does not depend on their length.

Whether a mix would clip is known at its end, so blocks go to a temporary file of floats first, at the rate and with
the channels of the output; from there they are turned down as a whole, faded and quantized. The file has its name
only when it is complete.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

import riff
from checkpoint import sync_folder
from errors import UserError, remedy
from leftovers import temporary_path
from meter import Meter
from provenance import MARK

CEILING = 0.99  # peak of a mix that would clip
BLOCK = 1 << 16  # samples converted at a time
RIFF_LIMIT = 2**32 - (1 << 16)  # bytes of samples; beyond, sizes need the 64 bits of RF64


@dataclass(frozen=True)
class AudioFormat:
    """``container``: wav or flac. ``bits``: 16, 24, or in WAV 32, which are floats. ``sample_rate`` in Hz."""

    container: str
    bits: int
    sample_rate: int
    channels: int


class AudioFile:
    """A file that grows block by block and appears under its name when :meth:`finish` is called.

    A context manager: what is not finished is removed.

    Args:
        path: its name.
        form: its format.
        sample_rate: of the blocks, in Hz.
        length: samples of the output, at most; what comes after is dropped.

    Raises:
        UserError: here and in each method: the folder cannot be written, or the disk is full.
    """

    def __init__(self, path: Path, form: AudioFormat, sample_rate: int, length: int | None = None):
        self.path, self.form, self.length = path, form, length
        self.n_samples, self.peak = 0, 0.0
        self._rate, self._resampler, self._n_kept = sample_rate, None, 0
        self._floats, self._temporary = (temporary_path(path, kind) for kind in ("f32", "new"))
        with self._errors():
            self._file = open(self._floats, "wb")  # noqa: SIM115

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):  # a full disk is told once
            self._file.close()
        for path in (self._floats, self._temporary):
            with contextlib.suppress(OSError):  # as is one that has become read-only
                path.unlink(missing_ok=True)

    def write(self, block: np.ndarray):
        """Add samples. Shape: float32 ``[n_samples]``, stereo ``[2, n_samples]``"""
        channels = np.atleast_2d(block)
        if len(channels) > self.form.channels:
            channels = channels.mean(0, keepdims=True)
        self._keep(self._resampled(channels))

    def finish(
        self, start: int = 0, fade: float = 0.0, meter: Meter | None = None, join: int | None = None, loop: bool = False
    ) -> int:
        """Write the file from sample ``start`` on, and return how many samples it has.

        Args:
            fade: seconds at its end, faded out by a quarter of a cosine (equal power).
            meter: written beside the samples, as are
            join: a sample of the whole, marked, and
            loop: whether a sampler should repeat what follows the join, or all that is written.

        Raises:
            ValueError: there is nothing to write.
        """
        if self._resampler:
            self._keep(self._resampled(np.zeros((self._n_kept, 0), np.float32), last=True))
        with self._errors():
            self._file.close()
            n = self.n_samples - start
            if n <= 0:
                raise ValueError(f"{n} samples to write")
            self._convert(start, fade, meter, join)
            if self.form.container == "wav":
                self._annotate(n, meter, None if join is None else join - start, loop)
            with open(self._temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self._temporary, self.path)
            sync_folder(self.path.parent)
        return n

    # -- first pass: rate and channels -------------------------------------------------------

    def _resampled(self, channels: np.ndarray, last: bool = False) -> np.ndarray:
        """Shape: ``[n_channels, n]`` -> ``[n, n_channels]``"""
        self._n_kept = len(channels)
        if self._rate == self.form.sample_rate:
            return channels.T
        if self._resampler is None:
            rates = self._rate, self.form.sample_rate
            self._resampler = soxr.ResampleStream(*rates, len(channels), dtype="float32", quality="VHQ")
        return self._resampler.resample_chunk(np.ascontiguousarray(channels.T), last=last)

    def _keep(self, samples: np.ndarray):
        if self.length is not None:
            samples = samples[: self.length - self.n_samples]
        self.peak = max(self.peak, float(np.abs(samples).max(initial=0.0)))
        self.n_samples += len(samples)
        with self._errors():
            self._file.write(np.ascontiguousarray(samples, np.float32).tobytes())

    # -- second pass: level, fade, quantization ----------------------------------------------

    def _convert(self, start: int, fade: float, meter: Meter | None, join: int | None):
        form, n = self.form, self.n_samples - start
        large = n * form.channels * form.bits // 8 > RIFF_LIMIT
        gain = np.float32(max(1.0, self.peak / CEILING))  # a mix that would clip is turned down as a whole
        with contextlib.ExitStack() as stack:
            if form.bits == 32:  # as they are; libsndfile's header for them is one that sox warns of
                file = stack.enter_context(open(self._temporary, "wb"))
                file.write(riff.float_header(form.sample_rate, form.channels, n, large, MARK))
            else:
                container = "RF64" if large and form.container == "wav" else form.container.upper()
                keywords = {"format": container, "subtype": f"PCM_{form.bits}"}
                name = os.fsencode(self._temporary)
                file = soundfile.SoundFile(name, "w", form.sample_rate, form.channels, **keywords)
                stack.enter_context(file)
                file.software = MARK
                text = comment(meter, None if join is None else (join - start) / form.sample_rate)
                if container == "FLAC" and text:  # libsndfile writes no cue sheet there
                    file.comment = text
            for first, block in self._blocks(start):
                block = block / gain
                if fade:
                    block = block * _fade(first - start, len(block), n, fade * form.sample_rate)
                if form.bits == 16:  # libsndfile rounds down
                    block = np.rint(32768 * block + _dither(first, len(block), self._n_kept)).astype(np.int16)
                elif form.bits == 24:  # it rounds to nearest for FLAC only
                    block = np.rint(np.float32(1 << 23) * block).astype(np.int32) << 8
                block = np.ascontiguousarray(np.broadcast_to(block, (len(block), form.channels)))
                file.write(block)

    def _blocks(self, start: int) -> Iterator[tuple[int, np.ndarray]]:
        """``(first sample, [n, n_channels])`` of what was kept. Blocks begin at the same samples for any ``start``."""
        n_bytes = 4 * self._n_kept
        with open(self._floats, "rb") as file:
            file.seek(start * n_bytes)
            while start < self.n_samples:
                blob = file.read((BLOCK - start % BLOCK) * n_bytes)
                block = np.frombuffer(blob, np.float32).reshape(-1, self._n_kept)
                yield start, block
                start += len(block)

    def _annotate(self, n: int, meter: Meter | None, join: int | None, loop: bool):
        chunks, marked = [], join is not None and 0 < join < min(n, riff.MAX_SAMPLE)
        if meter is not None:
            chunks.append((b"acid", riff.acid(meter, n / self.form.sample_rate)))
        if loop and n <= riff.MAX_SAMPLE:
            chunks.append((b"smpl", riff.smpl(self.form.sample_rate, (join if marked else 0, n))))
        if marked:
            chunks += [(b"cue ", riff.cue([join])), (b"LIST", riff.labels(["continuation"]))]
        if chunks:
            with open(self._temporary, "r+b") as file:
                riff.append(file, chunks)

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except (OSError, soundfile.LibsndfileError, AssertionError) as error:  # soundfile asserts that all is written
            reason = getattr(error, "strerror", None) or "the disk takes no more"
            raise UserError(f"{self.path}: cannot be written ({reason}); {remedy(error)}") from None


def wav_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """A short WAV file of 16 bits in memory, marked as made here. Shape: ``[n_samples]``, stereo ``[2, n_samples]``"""
    blob, channels = io.BytesIO(), len(np.atleast_2d(waveform))
    with soundfile.SoundFile(blob, "w", sample_rate, channels, format="WAV", subtype="PCM_16") as file:
        file.software = MARK
        file.write(waveform.T)
    return blob.getvalue()


def _dither(first: int, n: int, n_channels: int) -> np.ndarray:
    """Noise that makes the error of 16 bits independent of the music: triangular, of a step to either side
    (Lipshitz, Wannamaker and Vanderkooy 1992). The same at the same sample of any output. Shape: ``[n, n_channels]``"""
    index, skipped = divmod(first, BLOCK)
    uniform = np.random.default_rng(index).random((2, BLOCK, n_channels), np.float32)
    return (uniform[0] - uniform[1])[skipped : skipped + n]


def _fade(first: int, n: int, n_whole: int, length: float) -> np.ndarray:
    """Gain of ``n`` samples from ``first`` on, of a whole whose last ``length`` are faded out. Shape: ``[n, 1]``"""
    left = n_whole - 1 - np.arange(first, first + n)
    return np.sin(0.5 * math.pi * np.minimum(1, left / length)).astype(np.float32)[:, None]


def comment(meter: Meter | None, join: float | None) -> str:
    """What FLAC says of the tempo, the time signature and the join, which is in seconds."""
    parts = [] if meter is None else [f"{meter.tempo:g} quarters a minute", f"{meter.beats}/{meter.beat_type}"]
    parts += [f"continuation from {join:.6f} s"] if join else []
    return ", ".join(parts)
