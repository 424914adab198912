"""MIDI files are played as their events say, and the player sounds what it is told."""

import io
import struct
from pathlib import Path

import mido
import numpy as np
import pytest

from prompt import general_midi, load, load_prompt
from score import read
from score.performance import BadScore, Beat, Instrument, Note, Performance
from score.player import synthesize

TICKS = 480
RATE = 22050


def on(pitch, time=0, velocity=64, channel=0):
    return mido.Message("note_on", note=pitch, time=time, velocity=velocity, channel=channel)


def off(pitch, time=0, channel=0):
    return mido.Message("note_off", note=pitch, time=time, channel=channel)


def midi(*tracks, kind=1, ticks=TICKS) -> bytes:
    buffer = io.BytesIO()
    mido.MidiFile(type=kind, ticks_per_beat=ticks, tracks=[mido.MidiTrack(t) for t in tracks]).save(file=buffer)
    return buffer.getvalue()


def tempo(per_minute, time=0):
    return mido.MetaMessage("set_tempo", tempo=round(6e7 / per_minute), time=time)


def heard(blob):
    """(onset, duration, pitch, velocity), rounded to a tenth of a millisecond."""
    notes = read(blob).notes
    return sorted((round(n.onset, 4), round(n.duration, 4), n.pitch, n.velocity) for n in notes)


def test_tempo_map_of_type_0():
    """120, then 60 in the middle of the second note: it lasts 0.25 + 0.5 s. A note-on of velocity 0 ends it."""
    track = [on(60), off(60, 480), on(62), tempo(60, 240), on(62, 240, velocity=0), on(64), off(64, 480)]
    blob = midi(track, kind=0)
    assert heard(blob) == [(0, 0.5, 60, 64), (0.5, 0.75, 62, 64), (1.25, 1, 64, 64)]
    assert (read(blob).first.tempo, read(blob).last.tempo) == (120, pytest.approx(60))


def test_tempo_track_of_type_1():
    """The tempo of the first track holds for all; time signatures are those at the beginning and the end."""
    head = [mido.MetaMessage("time_signature", numerator=3, denominator=4), tempo(60), tempo(240, 960)]
    head += [mido.MetaMessage("time_signature", numerator=6, denominator=8)]
    blob = midi(head, [on(60), off(60, 960), on(62), off(62, 960)], [on(40, 480), off(40, 480)])
    assert heard(blob) == [(0, 2, 60, 64), (1, 1, 40, 64), (2, 0.5, 62, 64)]
    performance = read(blob)
    assert performance.first == Beat(60, (3, 4)) and performance.last == Beat(240, (6, 8))


def test_running_status_by_hand():
    """One status byte for four events: 90 3C 40, then key and velocity alone; 96 ticks a quarter."""
    events = bytes.fromhex("00 90 3C 40  60 3C 00  00 3E 50  60 3E 00  00 FF 2F 00")
    blob = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(events)) + events
    assert heard(blob) == [(0, 0.5, 60, 64), (0.5, 0.5, 62, 80)]
    riff = b"RIFF" + struct.pack("<I", len(blob) + 12) + b"RMIDdata" + struct.pack("<I", len(blob)) + blob
    assert heard(riff) == heard(blob)


def test_smpte_time():
    """25 frames a second of 40 ticks: a tick is a millisecond, whatever the tempo."""
    events = bytes.fromhex("00 FF 51 03 0F 42 40  00 90 3C 40  87 68 80 3C 00  00 FF 2F 00")
    blob = b"MThd" + struct.pack(">IHHbB", 6, 0, 1, -25, 40) + b"MTrk" + struct.pack(">I", len(events)) + events
    assert heard(blob) == [(0, 1.0, 60, 64)]


def test_overlapping_and_endless_notes():
    """The same key twice: the first that began ends first. What never ends lasts to the end of the track."""
    track = [on(60), on(60, 480), off(60, 480), off(60, 480), on(64), mido.MetaMessage("text", text="x", time=960)]
    assert heard(midi(track)) == [(0, 1, 60, 64), (0.5, 1, 60, 64), (1.5, 1, 64, 64)]


def test_pedal_holds():
    """Down at 0.25 s, up at 1.5 s; the same key struck again ends the note before."""
    pedal = lambda value, time=0: mido.Message("control_change", control=64, value=value, time=time)  # noqa: E731
    track = [on(60), pedal(127, 240), off(60, 240), on(64), off(64, 240), on(60), off(60, 240), pedal(0, 480), on(67)]
    assert heard(midi([*track, off(67, 480)])) == [
        (0, 0.75, 60, 64),
        (0.5, 1, 64, 64),
        (0.75, 0.75, 60, 64),
        (1.5, 0.5, 67, 64),
    ]


def test_drums_on_channel_10_and_programs_in_mid_track():
    change = lambda program, time=0: mido.Message("program_change", program=program, time=time)  # noqa: E731
    track = [change(73), on(72), off(72, 480), change(40), on(74), off(74, 480)]
    performance = read(midi([*track], [on(36, channel=9), off(36, 480, channel=9)]))
    kinds = {note.pitch: performance.instruments[note.instrument].drums for note in performance.notes}
    assert kinds == {72: False, 74: False, 36: True}
    programs = [(c.time, c.value) for c in performance.changes if c.kind == "program"]
    assert programs == [(0, 73), (0.5, 40)]
    other = [change(73), on(72), off(72, 480), change(73), on(74), off(74, 480)]
    one, two = (synthesize(read(midi(t)), RATE, general_midi()) for t in (track, other))
    half = RATE // 2
    assert np.array_equal(one[:half], two[:half]) and np.abs(one[half:] - two[half:]).max() > 0.01


def test_tracks_on_one_channel_with_their_own_programs():
    change = lambda program: mido.Message("program_change", program=program)  # noqa: E731
    performance = read(midi([change(0), on(60), off(60, 480)], [change(40), on(60), off(60, 960)]))
    assert len({note.instrument for note in performance.notes}) == 2
    performance = read(midi([change(40)], [on(60), off(60, 480)], [on(64), off(64, 480)]))
    assert len({note.instrument for note in performance.notes}) == 1


def fundamental(waveform, low=200.0, high=500.0):
    """The strongest frequency between two, by a spectrum interpolated to 0.1 Hz."""
    n = int(RATE / 0.1)
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), n))
    first, last = int(low / 0.1), int(high / 0.1)
    return 0.1 * (first + spectrum[first:last].argmax())


def test_pitch_bend_is_heard():
    """All the way up is two semitones, but for one part in 8192."""
    bend = mido.Message("pitchwheel", pitch=8191)
    organ = mido.Message("program_change", program=19)
    waveform = synthesize(read(midi([organ, bend, on(60), off(60, 1920)])), RATE, general_midi())
    assert fundamental(waveform) == pytest.approx(440 * 2 ** (-7 / 12), rel=0.003)


def test_quarter_tones_are_heard():
    notes = [Note(0.0, 2.0, 60.5, 80, 0)]
    waveform = synthesize(Performance(notes, [Instrument(19)]), RATE, general_midi())
    assert fundamental(waveform) == pytest.approx(440 * 2 ** (-8.5 / 12), rel=0.003)


def test_the_waveform_ends_with_the_last_note():
    notes = [Note(0.0, 0.3, 60, 80, 0), Note(0.1, 0.65, 64, 80, 0)]
    for channels in (1, 2):
        waveform = synthesize(Performance(notes, [Instrument(0)]), RATE, general_midi(), channels)
        assert waveform.shape[-1] == round(0.75 * RATE) and waveform.ndim == channels


def test_beat_of_a_prompt(tmp_path):
    """What an audio workstation is told: the beat at the end of a score."""
    head = [mido.MetaMessage("time_signature", numerator=3, denominator=4), tempo(90), tempo(100, 480)]
    (tmp_path / "a.mid").write_bytes(midi(head, [on(60), off(60, 960)]))
    prompt = load(tmp_path / "a.mid", RATE, 2)
    assert prompt.meter.tempo == pytest.approx(100, abs=0.01) and prompt.meter.time_signature == (3, 4)
    assert np.array_equal(prompt.waveform, load_prompt(tmp_path / "a.mid", RATE, 2))


def test_a_soundfont_of_ones_own(tmp_path):
    """The same file under another name sounds the same; what is none gets one line that names it."""
    from errors import UserError

    (tmp_path / "a.mid").write_bytes(midi([on(60), off(60, 480)]))
    own = tmp_path / "own font.sf2"
    own.symlink_to(general_midi())
    assert np.array_equal(
        load_prompt(tmp_path / "a.mid", 8000, soundfont=str(own)), load_prompt(tmp_path / "a.mid", 8000)
    )
    (tmp_path / "x.sf2").write_bytes(b"hello" * 100)
    blob = bytearray(Path(general_midi()).read_bytes()[:200_000])
    (tmp_path / "cut.sf2").write_bytes(blob)
    samples = blob.find(b"smpl") + 8
    blob[samples : samples + 4] = b"OggS"
    (tmp_path / "y.sf3").write_bytes(blob)
    for name, words in {
        "x.sf2": "no soundfont",
        "y.sf3": "SF3",
        "none.sf2": "No such file",
        "cut.sf2": "soundfont",
    }.items():
        with pytest.raises(UserError, match=f"{name}.*{words}|{words}.*{name}") as error:
            load_prompt(tmp_path / "a.mid", 8000, soundfont=str(tmp_path / name))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "blob, words",
    [
        (midi([on(60), off(60, 2**28 - 1)]), "lasts"),
        (b"MThd" + bytes(range(256)) * 4, "without a track"),
        (midi([on(60), off(60, 1)] * 50_001), "100002|50001 notes"),
        (
            midi([on(60)])[:14] + b"MTrk\0\x40\0\4" + bytes.fromhex("01 90 3C 40") * (1 << 20) + b"\0\xff\x2f\0",
            "1048576 events",
        ),
    ],
    ids=["endless", "binary", "many notes", "too large"],
)
def test_bad_midi_gets_one_line(blob, words):
    with pytest.raises(BadScore, match=words) as error:
        read(blob)
    assert "\n" not in str(error.value)
