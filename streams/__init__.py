"""Audio files as they are really written -> streams that libsndfile reads to their end.

libsndfile believes what a header says of the length, and reads the first of several streams that stand one after
another. Here the length is found by what is there, for the containers of which recorders, browsers and encoders are
known to write it wrong, or not at all since they wrote into a pipe: ``wave`` (WAV, RF64, BW64, CAF, AU), ``flac``,
``ogg`` and ``mpeg``. What is right is left as it is. ``kind`` says what a file is that is no audio.
"""

from __future__ import annotations

import os

from streams import flac, mpeg, ogg, wave
from streams.source import Source, Stream

__all__ = ["Stream", "open_streams"]


def open_streams(path) -> list[Stream]:
    """The streams of a file, to be played one after another; each is read until the next one is asked for.

    Raises:
        OSError: the file cannot be read.
    """
    source = Source(open(path, "rb"))  # noqa: SIM115 - the streams need it
    start = _behind_tags(source)
    head = source.at(start, 12)
    whole = Stream(os.fsencode(path))
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:] == b"WAVE":
        found = wave.wav(source, start)
    elif head[:4] == b"caff":
        found = wave.caf(source)
    elif head[:4] == b".snd":
        found = wave.au(source)
    elif head[:4] == b"fLaC":
        found = flac.streams(source, start)
    elif b"OggS" in source.at(start, 1 << 16) and head[:4] not in (b"FORM", b"RIFX"):
        found = ogg.streams(source, start)
    else:
        found = mpeg.streams(source, start)
    if not found:
        source.file.close()
    return found or [whole]


def _behind_tags(source: Source) -> int:
    """Where ID3v2 tags end, of which there may be several."""
    place = 0
    while size := mpeg.id3_size(source.at(place, 10)):
        place += size
    return place if place < source.size else 0
