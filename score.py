"""Play a MusicXML or MIDI file: the child process that prompt.py starts under limits.

Scores come from strangers and music21 trusts them, so this runs with a bound on time, memory and
file sizes, in a scratch folder of its own. ``python score.py SCORE OUT SAMPLE_RATE SOUNDFONT CHANNELS`` writes
float32 samples to OUT, one channel after the other; on bad input it prints one line and exits with 3.
"""

from __future__ import annotations

import contextlib
import sys

MAX_BYTES = 32 << 20  # of the file, and of what an .mxl unpacks to
MAX_NOTES = 20000
MAX_SECONDS = 600.0
MAX_MEMORY = 3 << 30
MAX_CPU_SECONDS = 40


class BadScore(Exception):
    """The score cannot be played; the message is one line."""


def main(arguments: list[str]) -> int:
    path, out, sample_rate, soundfont, channels = arguments
    limit_resources()
    try:
        waveform = play(path, int(sample_rate), soundfont, int(channels))
    except BadScore as error:
        print(error)
        return 3
    except MemoryError:
        print("needs more memory than a score may; shorten it")
        return 3
    waveform.tofile(out)
    return 0


def limit_resources():
    """Bound this process: memory, processor time, size of the files it writes."""
    import resource

    for what, amount in (
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 1 << 30),
        (resource.RLIMIT_CORE, 0),
    ):
        # macOS has no working RLIMIT_AS; the parent's clock remains
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (amount, amount))


def play(path: str, sample_rate: int, soundfont: str, channels: int = 1):
    """float32 samples ``[n_samples]``, stereo ``[2, n_samples]``, of the score, ending with its last note.

    Raises:
        BadScore: not a score, nothing to play in it, or beyond the limits above.
    """
    with open(path, "rb") as file:
        blob = file.read(MAX_BYTES + 1)
    if len(blob) > MAX_BYTES:
        raise BadScore(f"is larger than {MAX_BYTES >> 20} MiB; shorten it")
    if not blob.startswith(b"MThd"):
        blob = midi_of_musicxml(blob)
    return synthesize(read_midi(blob), sample_rate, soundfont, channels)


def read_midi(blob: bytes):
    """A MIDI file as a ``pretty_midi.PrettyMIDI``.

    Raises:
        BadScore: not MIDI, no notes, too many, or too long.
    """
    import io
    import math

    import pretty_midi

    try:
        song = pretty_midi.PrettyMIDI(io.BytesIO(blob))
        notes = [note for instrument in song.instruments for note in instrument.notes]
        end = max((note.end for note in notes), default=0.0)
    except MemoryError:
        raise
    except Exception as error:  # mido raises whatever its parser meets
        raise BadScore(f"is not a MIDI file that can be read ({_short(error)})") from None
    if not notes:
        raise BadScore("has no notes to play; give a score with at least one note")
    if len(notes) > MAX_NOTES:
        raise BadScore(f"has {len(notes)} notes; at most {MAX_NOTES} are played, shorten it")
    if not math.isfinite(end) or end > MAX_SECONDS:
        raise BadScore(f"lasts {end:.0f} s; at most {MAX_SECONDS:.0f} s are played, shorten it")
    return song


def synthesize(song, sample_rate: int, soundfont: str, channels: int = 1):
    """Play a ``pretty_midi.PrettyMIDI``: float32 ``[n_samples]``, or ``[2, n_samples]`` where ``channels`` is 2,
    cut at the end of its last note.

    The release of the last chord is cut off: a continuation goes on from the sounding music.

    Raises:
        BadScore: nothing to be heard.
    """
    import numpy as np
    import tinysoundfont

    synth = tinysoundfont.Synth(samplerate=sample_rate)
    font = synth.sfload(soundfont)
    events = []  # (sample, order, call): at one instant notes end before others begin
    end = 0
    for channel, instrument in enumerate(song.instruments):
        channel += channel >= 9  # 9 is the drums' by the General MIDI standard
        channel = 9 if instrument.is_drum else channel
        synth.program_select(channel, font, 128 if instrument.is_drum else 0, instrument.program, instrument.is_drum)
        for note in instrument.notes:
            start, stop = round(note.start * sample_rate), round(note.end * sample_rate)
            events.append((start, 2, synth.noteon, (channel, note.pitch, note.velocity)))
            events.append((max(stop, start + 1), 0, synth.noteoff, (channel, note.pitch)))
            end = max(end, stop)
        for bend in instrument.pitch_bends:
            events.append((round(bend.time * sample_rate), 1, synth.pitchbend, (channel, bend.pitch + 8192)))
        for change in instrument.control_changes:
            arguments = (channel, change.number, change.value)
            events.append((round(change.time * sample_rate), 1, synth.control_change, arguments))
    events = sorted((event for event in events if event[0] <= end), key=lambda event: event[:2])
    pieces, now = [], 0
    for sample, _, call, arguments in [*events, (end, 3, None, ())]:
        if sample > now:
            stereo = np.frombuffer(synth.generate(sample - now), dtype=np.float32).reshape(-1, 2)
            pieces.append(stereo.T if channels == 2 else stereo.mean(axis=1))
            now = sample
        if call:
            call(*arguments)
    waveform = np.concatenate(pieces, axis=-1)[..., : max(1, end)] if pieces else np.zeros(1, np.float32)
    if not np.isfinite(waveform).all() or np.abs(waveform).max(initial=0.0) < 1e-5:
        raise BadScore("sounds of nothing; give a score whose notes have a pitch and a dynamic")
    return waveform


def midi_of_musicxml(blob: bytes) -> bytes:
    """A MusicXML document, plain or compressed, as the bytes of a MIDI file, by music21."""
    if blob.startswith(b"PK"):
        blob = unpack(blob)
    root = parse_xml(blob)
    if root.tag not in ("score-partwise", "score-timewise"):
        raise BadScore(f"is not MusicXML (its root element is <{root.tag[:40]}>)")
    n_notes = sum(1 for _ in root.iter("note"))
    if n_notes > MAX_NOTES:
        raise BadScore(f"has {n_notes} notes; at most {MAX_NOTES} are played, shorten it")
    if n_notes == 0:
        raise BadScore("has no notes to play; give a score with at least one note")
    import warnings
    from xml.etree import ElementTree

    warnings.simplefilter("ignore")
    from music21 import converter, midi

    try:
        # Written anew: one encoding, whatever the file's was.
        score = converter.parseData(ElementTree.tostring(root, encoding="unicode"), format="musicxml")
        if not score.recurse().notes:
            raise BadScore("has no notes to play; give a score with at least one note")
        return midi.translate.streamToMidiFile(score).writestr()
    except (BadScore, MemoryError):
        raise
    except Exception as error:  # music21 raises a hundred kinds
        raise BadScore(f"is not MusicXML that can be read ({_short(error)})") from None


def unpack(blob: bytes) -> bytes:
    """The score inside an ``.mxl`` container, whose sizes are not to be believed."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            names = [n for n in archive.namelist() if not n.startswith("META-INF/") and n != "mimetype"]
            names = [n for n in names if n.lower().endswith((".xml", ".musicxml"))]
            if "META-INF/container.xml" in archive.namelist():
                container = parse_xml(_read_member(archive, "META-INF/container.xml"))
                roots = [element.get("full-path") for element in container.iter()]
                names = [n for n in roots if n in archive.namelist()] or names
            if not names:
                raise BadScore("is a zip file without a score in it")
            return _read_member(archive, names[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise BadScore(f"is a damaged compressed score ({_short(error)})") from None


def _read_member(archive, name: str) -> bytes:
    import zlib

    try:
        with archive.open(name) as member:
            text = member.read(MAX_BYTES + 1)
    except zlib.error as error:
        raise BadScore(f"is a damaged compressed score ({_short(error)})") from None
    if len(text) > MAX_BYTES:
        raise BadScore(f"unpacks to more than {MAX_BYTES >> 20} MiB; it is a zip bomb, or far too long")
    return text


def parse_xml(blob: bytes):
    """The root element; entities are refused."""
    import defusedxml
    import defusedxml.ElementTree as ElementTree

    try:
        return ElementTree.fromstring(blob)
    except defusedxml.DefusedXmlException:
        raise BadScore("declares XML entities, which no score needs; it is refused") from None
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise BadScore(f"is not XML that can be read ({_short(error)})") from None


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
