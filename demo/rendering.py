"""Scores played for a corpus: by several ensembles, at several tempos, each score once."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demo import draw
from score.performance import BadScore, Change, Instrument, Note, Performance

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 44100
LONGEST, SHORTEST = 360.0, 20.0  # s of a file
PAUSE = 0.8  # s between the movements or versions that one file holds
RELEASE, FADE, FADE_OF_CUT = 2.0, 1.5, 4.0  # s; what is cut at LONGEST fades in the midst of its notes
RMS, PEAK = 0.1, 0.84  # full scale 1: -20 dBFS, as most recordings have, and 1.5 dB of room for what Vorbis adds
QUALITY = 0.4  # soundfile's compression level: 0 is the largest
BLOCK = 1 << 16  # samples; libsndfile's Vorbis encoder runs out of stack where it is given minutes at once
PAN = 10  # controller of MIDI
PAN_WIDTH = 50  # from the first part to the last, of 127

# General MIDI programs from the highest part to the lowest.
ENSEMBLES = {
    "piano": (0,),
    "strings": (48,),
    "string quartet": (40, 40, 41, 42),
    "winds": (73, 68, 71, 70),
    "brass": (56, 60, 57, 58),
    "organ": (19,),
    "choir": (52,),
    "guitar": (24,),
    "harpsichord": (6,),
    "recorders": (74,),
    "violin": (40,),
    "flute": (73,),
    "clarinet": (71,),
    "oboe": (68,),
    "accordion": (21,),
    "harp": (46,),
    "vibraphone": (11,),
    "electric piano": (4,),
}
# By kind of score: a piano plays seven of ten.
OTHERS = {
    "chorale": ("organ", "choir", "strings", "winds", "brass", "guitar"),
    "chamber": ("string quartet", "strings", "winds", "harpsichord"),
    "madrigal": ("choir", "recorders", "organ", "string quartet", "brass"),
    "tune": ("violin", "flute", "guitar", "accordion", "harp", "clarinet", "oboe", "vibraphone", "electric piano"),
}
PIANO = 0.7
# Quarters a minute, slowest and fastest; of the others, the written tempo times so much.
TEMPOS = {"chorale": (60, 120), "tune": (84, 138)}
TIMES = 0.85, 1.18


def ensemble_of(name: str, kind: str) -> str:
    """Which of ENSEMBLES plays a score, by a hash of its name."""
    others, share = OTHERS[kind], draw(f"ensemble {name}", 1000) / 1000
    return "piano" if share < PIANO else others[int((share - PIANO) / (1 - PIANO) * len(others))]


def tempo_factor(name: str, kind: str, written: float) -> float:
    """How much faster a score is played than written, by a hash of its name.

    Args:
        written: quarters a minute.
    """
    share = draw(f"tempo {name}", 1000) / 999
    if kind in TEMPOS:
        slowest, fastest = TEMPOS[kind]
        return (slowest + share * (fastest - slowest)) / written
    return TIMES[0] * (TIMES[1] / TIMES[0]) ** share


def read_score(source: str) -> Performance:
    """A score of music21's corpus, as this project reads it.

    Args:
        source: a path in that corpus, as ``bach/bwv269.mxl``; of a file of several tunes with their number,
            as ``oneills1850/0001-0050.abc#12``.

    Raises:
        BadScore: it cannot be played, or there is no such file.
    """
    import music21

    from score import read, read_file

    name, _, number = source.partition("#")
    path = Path(music21.__file__).parent / "corpus" / name
    if not path.is_file():
        raise BadScore(f"needs {name} of music21's corpus, which is not there; pip install -r requirements.txt")
    if path.suffix != ".abc":
        return read_file(path)
    from music21.abcFormat import ABCFile
    from music21.abcFormat.translate import abcToStreamScore
    from music21.musicxml.m21ToXml import GeneralObjectExporter

    reader = ABCFile()
    reader.open(path)
    try:
        handler = reader.read(int(number) if number else None)
    finally:
        reader.close()
    return read(GeneralObjectExporter(abcToStreamScore(handler)).parse())


def played(performance: Performance, factor: float, programs: tuple[int, ...]) -> Performance:
    """A score as an ensemble plays it: all parts from left to right, nothing but the notes as they are written.

    Args:
        factor: of the tempo.
        programs: of General MIDI, from the first part to the last.
    """
    n = len(performance.instruments)
    notes = [replace(note, onset=note.onset / factor, duration=note.duration / factor) for note in performance.notes]
    instruments = [Instrument(programs[i * len(programs) // n]) for i in range(n)]
    pans = [64 + round(PAN_WIDTH * (i / (n - 1) - 0.5)) if n > 1 and len(programs) > 1 else 64 for i in range(n)]
    changes = [Change(0.0, i, "control", pan, PAN) for i, pan in enumerate(pans) if pan != 64]
    return Performance(notes, instruments, changes)


def joined(performances: list[Performance], longest: float = LONGEST) -> Performance:
    """Several performances as one, one after another, an equal share of ``longest`` seconds for each that needs it."""
    shares = _shares([performance.end for performance in performances], longest - PAUSE * (len(performances) - 1))
    notes: list[Note] = []
    instruments: list[Instrument] = []
    changes: list[Change] = []
    start = 0.0
    for performance, share in zip(performances, shares, strict=True):
        first = len(instruments)
        for note in performance.notes:
            if note.onset < share:
                duration = min(note.duration, share - note.onset)
                notes.append(Note(start + note.onset, duration, note.pitch, note.velocity, first + note.instrument))
        instruments += performance.instruments
        changes += [
            replace(change, time=start + change.time, instrument=first + change.instrument)
            for change in performance.changes
            if change.time < share
        ]
        start += min(share, performance.end) + PAUSE
    return Performance(notes, instruments, changes)


def _shares(lengths: list[float], longest: float) -> list[float]:
    """How long each may be, in seconds: the short ones as they are, the others equally, ``longest`` together."""
    shares, left = [0.0] * len(lengths), longest
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for position, i in enumerate(order):
        shares[i] = min(lengths[i], left / (len(order) - position))
        left -= shares[i]
    return shares


def sound(performance: Performance, soundfont: str) -> np.ndarray:
    """As the synthesizer plays it, at the level of a recording, faded at its end.

    Shape:
        float32 ``[n_samples, 2]`` at SAMPLE_RATE, its peak at most PEAK
    """
    import numpy as np

    from score.player import synthesize

    waveform = synthesize(performance, SAMPLE_RATE, soundfont, channels=2, release=RELEASE).T
    n = round((FADE_OF_CUT if performance.end >= LONGEST - 1 else FADE) * SAMPLE_RATE)
    n = min(n, len(waveform))
    waveform[-n:] *= np.cos(0.5 * np.pi * (np.arange(n, dtype=np.float32) + 1) / n)[:, None]
    rms = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    return waveform * min(RMS / rms, PEAK / float(np.abs(waveform).max()))


def encoded(waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> bytes:
    """An Ogg Vorbis file. Shape: ``[n_samples, 2]``"""
    import soundfile

    blob = io.BytesIO()
    keywords = {"format": "OGG", "subtype": "VORBIS", "compression_level": QUALITY}
    with soundfile.SoundFile(blob, "w", sample_rate, waveform.shape[1], **keywords) as file:
        for start in range(0, len(waveform), BLOCK):
            file.write(waveform[start : start + BLOCK])
    return blob.getvalue()


def of_scores(name: str, kind: str, sources: list[str]) -> Performance:
    """What is to be heard in a file: scores, one after another, by its ensemble.

    Raises:
        BadScore: one of them cannot be played.
    """
    programs = ENSEMBLES[ensemble_of(name, kind)]
    performances = []
    for source in sources:
        score = read_score(source)
        performances.append(played(score, tempo_factor(source, kind, score.first.tempo), programs))
    return joined(performances)


def of_midi(blob: bytes) -> Performance:
    """A MIDI file with its own instruments, at most LONGEST."""
    from score import read

    return joined([read(blob, "MIDI")])
