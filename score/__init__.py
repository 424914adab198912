"""Scores as written: MusicXML and MIDI -> a performance, a list of sounding notes -> a waveform.

``container`` opens and bounds the file; ``musicxml`` reads what is written, with ``lengths`` and ``cursor`` (when),
``heads``, ``instruments``, ``instrument_names`` and ``standard_sounds`` (how it sounds), ``repeats``, ``percents``,
``directions`` (with ``jumps``, ``tempi`` and ``tempo_words``) and ``notations``; ``route`` puts measures in the order
of repeats and jumps; ``performer`` plays them by the conventions that stand there and in ``ornaments``; ``smf``,
``midi`` and ``channel`` read a MIDI file into the same form, ``performance``; ``player`` makes it sound. ``python -m
score`` is the child process that prompt.py starts under limits, since scores come from strangers.

MusicXML is read from its elements: what tells how it sounds (``<sound>``: D.S., coda, dynamics, pizzicato, pedal;
``attack``, ``time-only``, ``midi-volume``) is dropped by music21's parser. music21 tells what it knows about music:
names of instruments in six languages, tempo words, chord symbols. Its ornaments are not used: they know the key,
but neither accidentals in the measure nor ties, wavy lines and the attributes that tell how they sound.
"""

from __future__ import annotations

from pathlib import Path

from score.container import MAX_BYTES
from score.performance import BadScore, Performance
from score.smf import is_midi
from streams.kind import HEAD, XML, what

MIDI_SUFFIXES = (".mid", ".midi", ".smf", ".kar", ".rmi")


def read(blob: bytes, wanted: str = "MusicXML or MIDI") -> Performance:
    """A MusicXML (plain or compressed) or MIDI file as a performance.

    Args:
        wanted: what it should have been, where it is neither.

    Raises:
        BadScore: not a score, nothing to play in it, or beyond the limits.
    """
    if is_midi(blob):
        from score.midi import read_midi

        return read_midi(blob)
    kind = None if blob.startswith(b"PK") else what(blob[:HEAD])
    if kind not in (None, XML):
        raise BadScore(f"is not {wanted}, but {kind}")
    from score.container import score_element
    from score.musicxml import read_sheet
    from score.performer import perform

    return perform(read_sheet(score_element(blob)))


def read_file(path) -> Performance:
    """:func:`read` of a file, which must not be larger than ``MAX_BYTES``."""
    with Path(path).open("rb") as file:
        blob = file.read(MAX_BYTES + 1)
    if len(blob) > MAX_BYTES:
        raise BadScore(f"is larger than {MAX_BYTES >> 20} MiB; shorten it")
    if Path(path).suffix.lower() not in MIDI_SUFFIXES:
        return read(blob)
    if not is_midi(blob) and what(blob[:HEAD]) is None:
        raise BadScore("is not a MIDI file that can be read (it has no header, MThd); export it again")
    return read(blob, "MIDI")
