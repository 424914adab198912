"""One audio file to samples, block by block; whatever is wrong with it is said in a few words."""

from __future__ import annotations

import os

import numpy as np
import soundfile
import soxr

MIN_RATE, MAX_RATE = 2000, 768000  # Hz
MAX_CHANNELS = 64
# Even Opus at its lowest rate yields under 100 samples per byte; beyond this it is a bomb.
MAX_SAMPLES_PER_BYTE = 2000
SILENCE = 1e-4  # peak amplitude below which nothing can be learned: -80 dBFS
BLOCK = 1 << 16  # sample frames decoded at a time
# Where channels stand in WAV, FLAC and most others: left, right, centre, beside or behind; -: the subwoofer.
_PLACES = {1: "C", 2: "LR", 3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRC-lr", 7: "LRC-Clr", 8: "LRC-lrlr"}


class Unusable(Exception):
    """One recording cannot be used; the message is the reason."""


def to_channels(block: np.ndarray, channels: int) -> np.ndarray:
    """A block of any number of channels as mono (their mean) or stereo.

    Mono is played on both channels. Of surround, the centre goes to both and the rear to its side, at -3 dB, and
    the subwoofer nowhere (ITU-R BS.775), turned down so that nothing clips; more than 8 become mono on both.

    Shape:
        block ``[n_samples, n]`` float32 -> ``[n_samples]``, stereo ``[n_samples, 2]``
    """
    if channels == 1:
        return block.mean(axis=1, dtype=np.float32)
    places = _PLACES.get(block.shape[1], "C" * block.shape[1])
    sides = [[{own: 1.0, own.lower(): 0.5**0.5, "C": 0.5**0.5}.get(place, 0.0) for place in places] for own in "LR"]
    return block @ (np.array(sides).T / np.sum(sides[0])).astype(np.float32)


def decode(path, sample_rate: int, channels: int = 1):
    """Decode one file, block by block, to mono or stereo at ``sample_rate``.

    Yields:
        float32 arrays ``[n_samples]``, stereo ``[2, n_samples]``, full scale 1 (float files may exceed it).

    Raises:
        Unusable: no audio file, an absurd header, truncated, or samples that are not finite.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise Unusable("the file is empty")
    try:
        file = soundfile.SoundFile(os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:
        detail = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise Unusable(f"not an audio file that can be read ({detail})") from None
    with file:
        rate, n_channels, claimed = file.samplerate, file.channels, file.frames
        if not MIN_RATE <= rate <= MAX_RATE:
            raise Unusable(f"its header claims a sample rate of {rate} Hz ({MIN_RATE} to {MAX_RATE} are read)")
        if n_channels > MAX_CHANNELS:
            raise Unusable(f"its header claims {n_channels} channels (up to {MAX_CHANNELS} are read)")
        resampler = soxr.ResampleStream(rate, sample_rate, channels, dtype="float32")
        n_decoded = 0
        while True:
            try:
                block = file.read(BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise Unusable(f"damaged after {n_decoded / rate:.1f} s ({error.error_string})") from None
            n_decoded += len(block)
            if not np.isfinite(block).all():
                raise Unusable("it holds samples that are not finite (NaN or infinity)")
            if n_decoded > MAX_SAMPLES_PER_BYTE * size:
                raise Unusable(f"{size} bytes decode to more than {n_decoded} samples")
            last = len(block) < BLOCK
            waveform = to_channels(block, channels)
            if rate != sample_rate:
                waveform = resampler.resample_chunk(waveform, last=last)
            if len(waveform):
                yield waveform.T
            if last:
                break
    if claimed - n_decoded > max(0.02 * claimed, 0.1 * rate):
        raise Unusable(f"truncated: its header claims {claimed / rate:.1f} s, it holds {n_decoded / rate:.1f} s")
    if n_decoded == 0:
        raise Unusable("it holds no samples")
