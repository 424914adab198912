"""Audio files as they are really written -> streams that libsndfile reads to their end.

libsndfile believes what a header says of the length, and reads the first of several streams that stand one after
another. Here the length is found by what is there, for the containers of which recorders, browsers and encoders are
known to write it wrong, or not at all since they wrote into a pipe: ``wave`` (WAV, RF64, BW64, AIFF, CAF, AU),
``flac``, ``ogg`` and ``mpeg``. What is right is left as it is. ``kind`` says what a file is that is no audio.
"""

from __future__ import annotations

import os

from streams import flac, mpeg, ogg, wave
from streams.source import Source, Stream

__all__ = ["Stream", "open_streams"]
_BEFORE = 1 << 16  # bytes that may stand before a file
_NAMES = (b"FORM", b"caff", b".snd", b"dns.", b"fLaC", b"OggS", b"riff")


def open_streams(path) -> list[Stream]:
    """The streams of a file, to be played one after another; each is read until the next one is asked for.

    Raises:
        OSError: the file cannot be read.
    """
    source = Source(open(path, "rb"))  # noqa: SIM115 - the streams need it
    start = _begin(source)
    head = source.at(start, 12)
    whole = Stream(os.fsencode(path))
    if head[:4] in wave.NAMES and head[8:] == b"WAVE":
        found = wave.wav(source, start)
    elif head[:4] == b"FORM":
        found = wave.aiff(source, start)
    elif head[:4] == b"caff":
        found = wave.caf(source)
    elif head[:4] in (b".snd", b"dns."):
        found = wave.au(source)
    elif head[:4] == b"fLaC":
        found = flac.streams(source, start)
    elif b"OggS" in source.at(start, _BEFORE):
        found = ogg.streams(source, start)
    else:
        found = mpeg.streams(source, start, os.fsdecode(path).lower().endswith((".mp1", ".mp2", ".mp3")))
    if not found:
        source.file.close()
    return found or [whole]


def _begin(source: Source) -> int:
    """Where the file begins, behind ID3v2 tags, of which there may be several, and behind what a server or a download
    put before it."""
    place = 0
    while size := mpeg.id3_size(source.at(place, 10)):
        place += size
    place = place if place < source.size else 0
    if source.at(place, 4) in (*wave.NAMES, *_NAMES):
        return place
    other = wave.find_wav(source, place, place + _BEFORE)
    return max(other, source.find(flac.MARK, place, place + _BEFORE), place)
