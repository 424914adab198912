"""One audio file to samples, block by block; whatever is wrong with it is said in a few words."""

from __future__ import annotations

import os

import numpy as np
import soundfile
import soxr

from streams import open_streams
from streams.kind import HEAD, MAYBE, what
from streams.mpeg import id3_size
from streams.source import is_cut_off

MIN_RATE, MAX_RATE = 2000, 768000  # Hz
MAX_CHANNELS = 64
# Even Opus at its lowest rate yields under 100 samples per byte; beyond this it is a bomb.
MAX_SAMPLES_PER_BYTE = 2000
MAX_PEAK = 10.0  # of float samples, full scale 1: 20 dB, more than any mix that was not turned down
SILENCE = 1e-4  # amplitude below which nothing can be heard: -80 dBFS
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
    if block.shape[1] == channels == 1:
        return block[:, 0]
    if channels == 1:
        return np.ascontiguousarray(block.T).mean(axis=0, dtype=np.float32)
    places = _PLACES.get(block.shape[1], "C" * block.shape[1])
    sides = [[{own: 1.0, own.lower(): 0.5**0.5, "C": 0.5**0.5}.get(place, 0.0) for place in places] for own in "LR"]
    return block @ (np.array(sides).T / np.sum(sides[0])).astype(np.float32)


def decode(path, sample_rate: int, channels: int = 1):
    """Decode one file, block by block, to mono or stereo at ``sample_rate``; streams that stand one after another in
    it are all decoded, whatever their rates and channels.

    Yields:
        float32 arrays ``[n_samples]``, stereo ``[2, n_samples]``, full scale 1 (float files may exceed it).

    Raises:
        Unusable: no audio file, an absurd header, truncated, constant, or samples that are not finite or absurd.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise Unusable("the file is empty")
    if (kind := _kind(path)) not in MAYBE:
        raise Unusable(f"not an audio file, but {kind}")
    n_decoded, swing, peak = 0, 0.0, 0.0
    for stream in open_streams(path):
        if stream.trouble:
            raise Unusable(stream.trouble)
        with _opened(stream.file, path) as file:
            rate, low, high = file.samplerate, np.inf, -np.inf
            resampler = soxr.ResampleStream(rate, sample_rate, channels, dtype="float32")
            for block in _blocks(file, stream.is_known):
                n_decoded += len(block)
                if n_decoded > MAX_SAMPLES_PER_BYTE * size:
                    raise Unusable(f"{size} bytes decode to more than {n_decoded} samples")
                if len(block):
                    by_channel = np.ascontiguousarray(block.T)  # numpy is 70 times as slow along the other axis
                    low, high = np.minimum(low, by_channel.min(1)), np.maximum(high, by_channel.max(1))
                    _check_level(max(-low.min(), high.max()))
                waveform, last = to_channels(block, channels), len(block) < BLOCK
                if rate != sample_rate:
                    waveform = resampler.resample_chunk(waveform, last=last)
                if len(waveform):
                    yield waveform.T
            if np.isfinite(low).all():
                swing, peak = max(swing, (high - low).max()), max(peak, -low.min(), high.max())
    if n_decoded == 0:
        raise Unusable(stream.if_empty)
    if swing < 2 * SILENCE <= 2 * peak:
        raise Unusable("it is constant, which cannot be heard: nothing can be learned from it")


def _kind(path) -> str | None:
    """What is no audio, also behind an ID3v2 tag."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
        if size := id3_size(head):
            file.seek(size)
            head = file.read(HEAD) or head
    return what(head)


def _opened(file, path) -> soundfile.SoundFile:
    """A file whose rate and channels are sane."""
    try:
        opened = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, TypeError) as error:
        if (kind := _kind(path)) is not None:
            raise Unusable(f"not an audio file, but {kind}") from None
        detail = str(getattr(error, "error_string", error)).strip().rstrip(".")
        if "not exist" in detail:  # said of what should be MP3 and has no frame of it
            detail = "Format not recognised"
        raise Unusable(f"not an audio file that can be read ({detail})") from None
    if not MIN_RATE <= opened.samplerate <= MAX_RATE:
        opened.close()
        raise Unusable(f"its header claims a sample rate of {opened.samplerate} Hz ({MIN_RATE} to {MAX_RATE} are read)")
    if opened.channels > MAX_CHANNELS:
        opened.close()
        raise Unusable(f"its header claims {opened.channels} channels (up to {MAX_CHANNELS} are read)")
    return opened


def _blocks(file: soundfile.SoundFile, is_known: bool):
    """Blocks of ``[n_samples, n_channels]``; only the last one has less than ``BLOCK`` samples.

    Args:
        is_known: whether the header's length is to be believed, so that a file that ends before it is truncated.
    """
    rate, claimed, n_decoded, last = file.samplerate, file.frames, 0, False
    while not last:
        try:
            block = file.read(BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise Unusable(f"damaged after {n_decoded / rate:.1f} s ({error.error_string})") from None
        n_decoded, last = n_decoded + len(block), len(block) < BLOCK
        if not np.isfinite(block).all():
            raise Unusable("it holds samples that are not finite (NaN or infinity)")
        yield block
    if is_known and is_cut_off(claimed, n_decoded, rate):
        raise Unusable(f"truncated: its header claims {claimed / rate:.1f} s, it holds {n_decoded / rate:.1f} s")


def _check_level(peak: float):
    """Float samples have no bounds, and one that is beyond all others would be all that is heard of a corpus."""
    if peak > MAX_PEAK:
        decibels = f"{20 * np.log10(peak):.0f} dB above full scale"
        raise Unusable(f"it holds samples {decibels}: it is damaged, or not scaled to 1; normalise it")
