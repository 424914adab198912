"""MIDI files as real programs write them: what is broken costs as little as possible, and what is left out is said.

All are built here, byte for byte, of two notes: C4 from 0 to 1 s and D4 from 1 to 2 s, at 60 quarters a minute.
"""

import struct

import numpy as np
import pytest

import prompt
from errors import UserError
from prompt import general_midi, is_score, load
from score import read
from score.performance import BadScore
from score.player import synthesize

RATE = 22050
TEMPO = bytes.fromhex("00 FF 51 03 0F 42 40")
C, D = bytes.fromhex("00 90 3C 50 83 60 80 3C 40"), bytes.fromhex("00 90 3E 50 83 60 80 3E 40")
END = bytes.fromhex("00 FF 2F 00")
NOTES = C + D
BOTH = [(0.0, 1.0, 60, 80), (1.0, 1.0, 62, 80)]


def header(kind=1, n_tracks=1, division=480, size=6, extra=b"") -> bytes:
    return b"MThd" + struct.pack(">IHHH", size, kind, n_tracks, division & 0xFFFF) + extra


def track(*events: bytes, size=None) -> bytes:
    body = b"".join(events)
    return b"MTrk" + struct.pack(">I", len(body) if size is None else size) + body


def one(*events: bytes) -> bytes:
    """A file of one track, with a tempo before and an end behind."""
    return header() + track(TEMPO, *events, END)


def two(first=None, second=None, head=None) -> bytes:
    first, second = first or track(TEMPO, END), second or track(NOTES, END)
    return (head or header(n_tracks=2)) + first + second


def riff(*chunks: tuple[bytes, bytes], form=b"RMID") -> bytes:
    body = b"".join(n + struct.pack("<I", len(b)) + b + b"\0" * (len(b) % 2) for n, b in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + form + body


def heard(blob: bytes):
    """(onset, duration, pitch, velocity) in order, to a tenth of a millisecond."""
    notes = [(round(n.onset, 4), round(n.duration, 4), n.pitch, n.velocity) for n in read(blob).notes]
    return sorted(notes, key=lambda note: (note[0], note[2], note[1]))


def meta(kind: int, data: bytes, size=None) -> bytes:
    return bytes([0, 0xFF, kind, len(data) if size is None else size]) + data


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


GOOD = one(NOTES)
ALIEN = b"XFIH" + struct.pack(">I", 4) + b"abcd"
ODD = b"XFKM" + struct.pack(">I", 5) + b"abcde"
PICTURE = bytes(range(256)) * 3000

# Nothing is lost, and nothing is said.
WHOLE = {
    "as it should be": GOOD,
    "alien chunk between": two(track(TEMPO, END) + ALIEN),
    "odd chunk between": two(track(TEMPO, END) + ODD),
    "odd chunk between, padded": two(track(TEMPO, END) + ODD + b"\0"),
    "odd chunk before the tracks": header() + ODD + track(TEMPO, NOTES, END),
    "chunk longer than the file at the end": GOOD + b"AWav" + struct.pack(">I", 10**6) + b"WAVE",
    "junk before": b"\0\1junk" * 30 + GOOD,
    "MacBinary before": bytes(65) + b"Midi" + bytes(59) + GOOD,
    "junk behind": GOOD + b"\0\xff" * 300,
    "zeros between tracks": two(track(TEMPO, END) + bytes(7)),
    "header of 8 bytes": header(size=8, extra=b"\1\2") + track(TEMPO, NOTES, END),
    "header whose size is wrong": header(size=60) + track(TEMPO, NOTES, END),
    "header of no size": header(size=0) + track(TEMPO, NOTES, END),
    "fewer tracks named": two(head=header(n_tracks=1)),
    "no track named": two(head=header(n_tracks=0)),
    "type 0 of two tracks": two(head=header(kind=0, n_tracks=1)),
    "a track too long": two(track(TEMPO, END, size=16)),
    "a track much too long": two(track(TEMPO, END, size=0x7FFFFFFF)),
    "a track too short": two(track(TEMPO, END, size=5)),
    "tracks of no size": two(track(TEMPO, END, size=0), track(NOTES, END, size=0)),
    "the last track too long": two(second=track(NOTES, END, size=999)),
    "the last track too short": two(second=track(NOTES, END, size=9)),
    "an empty track": two(track(TEMPO, END) + track()),
    "no end of a track": two(track(TEMPO)),
    "no end of the last track": two(second=track(NOTES)),
    "no end, and too long": two(track(TEMPO, size=4000)),
    "an end of one byte": header() + track(TEMPO, NOTES, meta(0x2F, b"\0")),
    "an end without its size": two(second=track(NOTES, b"\0\xff\x2f")),
    "an end without its size, before a track": two(track(TEMPO, b"\0\xff\x2f")),
    "an end without its size in a track without one": two(track(TEMPO, b"\0\xff\x2f", size=0)),
    "an end that is told twice": header() + track(TEMPO, NOTES, END, END),
    "a header that is told twice": header() + GOOD,
    "MThd in words before": b"A song; MThd begins its header.\r\n" + GOOD,
    "leftovers behind the end": two(track(TEMPO, END) + hexed("00 FF 51 03 01")),
    "text of no size": one(meta(1, b""), NOTES),
    "text that is none": one(meta(1, b"\xff\xfe\x80"), NOTES),
    "unknown meta event": one(meta(0x60, b"abc"), meta(0x7E, b""), NOTES),
    "sequence number of no byte": one(meta(0, b""), NOTES),
    "channel prefix too long": one(meta(0x20, b"\0\0\0"), NOTES),
    "SMPTE offset out of range": one(meta(0x54, b"\xff" * 5), NOTES),
    "SMPTE offset of 3 bytes": one(meta(0x54, b"\1\2\3"), NOTES),
    "tempo of 4 bytes": header() + track(meta(0x51, hexed("0F 42 40 00")), NOTES, END),
    "time signature of 2 bytes": one(meta(0x58, b"\4\2"), NOTES),
    "time signature of 5 bytes": one(meta(0x58, b"\4\2\x18\x08\0"), NOTES),
    "running status behind meta": one(hexed("00 90 3C 50"), meta(1, b"la"), hexed("83 60 3C 00 00 3E 50 83 60 3E 00")),
    "running status behind sysex": one(hexed("00 90 3C 50  00 F0 03 7D 01 F7  83 60 3C 00  00 3E 50 83 60 3E 00")),
    "sysex in packets": one(hexed("00 F0 03 43 12 00  00 F7 03 43 12 00  00 F7 02 00 F7"), NOTES),
    "sysex whose size leaves out its end": one(hexed("00 F0 04 7E 7F 09 01 F7"), NOTES),
    "sysex without an end": one(hexed("00 F0 03 43 12 00"), NOTES),
    "escaped note": header() + track(TEMPO, hexed("00 F7 03 90 3C 50 83 60 F7 03 80 3C 40"), D, END),
    "system common and real time": one(hexed("00 F1 01 00 F2 01 02 00 F3 01 00 F6 00 F8 00 FA 00 FE"), NOTES),
    "times of 5 bytes": one(hexed("80 80 80 80 00 90 3C 50 80 80 80 83 60 80 3C 40"), D),
    "RMID": riff((b"data", GOOD)),
    "RMID with a picture before": riff((b"DISP", PICTURE), (b"LIST", b"INFOabc"), (b"data", GOOD)),
    "RMID with a soundfont behind": riff((b"data", GOOD), (b"LIST", b"MTrk" + PICTURE)),
    "RMID of no size": riff((b"data", GOOD)).replace(b"data" + struct.pack("<I", len(GOOD)), b"data\0\0\0\0"),
    "note off without a note": one(hexed("00 80 40 40"), NOTES, hexed("00 80 3C 40")),
    "a track of silence that lasts": two(track(TEMPO, hexed("83 FF FF 00 FF 2F 00"))),
}


@pytest.mark.parametrize("case", WHOLE)
def test_nothing_is_lost(case):
    assert heard(WHOLE[case]) == BOTH
    assert read(WHOLE[case]).remarks == []


# What is said, where something is left out or assumed; the notes are all there.
SAID = {
    "more tracks named": (two(head=header(n_tracks=3)), "2 of the 3 tracks"),
    "key signature out of range": (one(meta(0x59, b"\x08\0"), NOTES), "key signature that means nothing, once"),
    "key signature of 255": (one(meta(0x59, b"\0\xff"), meta(0x59, b""), NOTES), "key signature .*, twice"),
    "time signature of 1 byte": (one(meta(0x58, b"\4"), NOTES), "time signature that means nothing"),
    "time signature of 0": (one(meta(0x58, b"\0\2\x18\x08"), NOTES), "time signature that means nothing"),
    "time signature beyond all": (one(meta(0x58, b"\4\xff\x18\x08"), NOTES), "time signature that means nothing"),
    "tempo of 0": (one(meta(0x51, b"\0\0\0"), NOTES), "tempo that means nothing"),
    "tempo of a microsecond": (one(meta(0x51, b"\0\0\1"), NOTES), "tempo that means nothing"),
    "tempo of 2 bytes": (one(meta(0x51, b"\7\xa1"), NOTES), "tempo that means nothing"),
    "three tempi of 0": (one(meta(0x51, b"\0\0\0") * 3, NOTES), "tempo .* 3 times"),
    "no division": (header(division=0) + track(TEMPO, NOTES, END), "480 ticks a quarter are assumed"),
    "no SMPTE": (header(division=0x8100) + track(TEMPO, NOTES, END), "480 ticks a quarter are assumed"),
    "type 7": (header(kind=7) + track(TEMPO, NOTES, END), "type 7"),
    "no header": (track(TEMPO, NOTES, END), "no header"),
    "bytes that are no events": (header() + track(b"\0\x12\x34", TEMPO, NOTES, END), "no events"),
    "notes behind the end": (header() + track(TEMPO, NOTES, END, NOTES, END), "22 bytes behind the end of a track"),
    "another file behind": (GOOD + one(hexed("00 90 48 50 83 60 80 48 40")), "another MIDI file"),
    "another file behind no end": (header() + track(TEMPO, NOTES, size=0) + GOOD, "another MIDI file"),
    "cut off behind the notes": (header(n_tracks=4) + track(TEMPO, END) + track(NOTES, b"\x83", size=500), "1 of 4"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_is_left_out_is_said(case):
    blob, words = SAID[case]
    assert heard(blob) == BOTH
    (remark,) = read(blob).remarks
    pytest.importorskip("regex").search(words, remark) or pytest.fail(remark)
    assert "\n" not in remark


def test_what_is_out_of_range_changes_nothing():
    performance = read(one(meta(0x58, b"\3\2\x18\x08"), meta(0x58, b"\0"), meta(0x51, b"\0\0\0"), NOTES))
    assert performance.last.tempo == pytest.approx(60) and performance.last.time_signature == (3, 4)


@pytest.mark.parametrize("n", [1, 3, 5, 8, 12])
def test_cut_off_anywhere(n):
    """The first note is whole; what is not there is not played, and that is said."""
    blob = two()
    performance = read(blob[:-n] if n > 4 else blob[: -n - 9])
    assert any("cut off after 1 of 2 tracks" in remark for remark in performance.remarks)
    assert heard(blob[: -n - 9 if n <= 4 else -n])[0] == BOTH[0]


def test_cut_off_before_anything():
    for blob in (GOOD[:10], GOOD[:14], b"MThd"):
        with pytest.raises(BadScore):
            read(blob)


def test_type_2_is_played_track_after_track():
    blob = header(kind=2, n_tracks=2) + track(TEMPO, C, END) + track(D, END)
    assert heard(blob) == BOTH
    assert "one after another" in " ".join(read(blob).remarks)


def test_data_beyond_127_is_clipped():
    assert heard(one(hexed("00 90 3C D0 83 60 80 3C FF"), D)) == [(0.0, 1.0, 60, 127), BOTH[1]]


def test_keys_that_are_struck_and_never_lifted():
    """To the end of the file; a key that is struck again ends there, and one without a lift at the next."""
    assert heard(one(hexed("00 90 3C 50"), hexed("83 60 90 3E 50 83 60 80 3E 40"))) == [(0, 2, 60, 80), BOTH[1]]
    assert heard(one(hexed("00 90 3C 50 83 60 90 3C 50 83 60 80 3C 40"))) == [(0, 1, 60, 80), (1, 1, 60, 80)]
    assert heard(one(C, hexed("00 90 3E 50"))) == BOTH  # a quarter, where nobody knows
    again = hexed("00 90 3C 50 83 60 90 3C 50 83 60 80 3C 40 83 60 90 3C 50 83 60 80 3C 40")
    assert heard(one(again)) == [(0, 1, 60, 80), (1, 1, 60, 80), (3, 1, 60, 80)]


def test_notes_of_no_length_are_heard():
    (note, *_) = read(one(hexed("00 90 3C 50 00 80 3C 40"), D)).notes
    assert (note.onset, note.pitch) == (0, 60) and 0 < note.duration <= 0.05


PEDAL, SOSTENUTO, SOFT = (lambda value, n=n: bytes([0, 0xB0, n, value]) for n in (64, 66, 67))
WAIT = meta(1, b"").replace(b"\0", b"\x83\x60", 1)  # a second
HALF = hexed("81 70 80 3C 40")  # C4 is lifted after half a second


@pytest.mark.parametrize(
    "name, end",
    [
        ("CC 121 lifts the pedal", (PEDAL(127), hexed("00 B0 79 00"))),
        ("CC 120 silences what it holds", (PEDAL(127), hexed("00 B0 78 00"))),
        ("a sostenuto that is lifted", (SOSTENUTO(127), SOSTENUTO(0))),
        ("CC 121 lifts the sostenuto", (SOSTENUTO(127), hexed("00 B0 79 00"))),
        ("GM on resets all", (PEDAL(127), hexed("00 F0 05 7E 7F 09 01 F7"))),
        ("GS reset", (PEDAL(127), hexed("00 F0 0A 41 10 42 12 40 00 7F 00 41 F7"))),
        ("XG on", (PEDAL(127), hexed("00 F0 08 43 10 4C 00 00 7E 00 F7"))),
        ("GM on in packets", (PEDAL(127), hexed("00 F0 02 7E 7F 00 F7 03 09 01 F7"))),
    ],
)
def test_pedals(name, end):
    """Half a second of C4, which the pedal holds for another half."""
    down, up = end
    later = hexed("81 70") + up[1:]
    assert heard(one(hexed("00 90 3C 50"), down, HALF, later, D))[0] == (0, 1, 60, 80)


@pytest.mark.parametrize("there", [True, False])
def test_controllers_of_a_track_without_program(there):
    """Two tracks on one channel name programs, so that each has controllers of its own; those of a third track, or of
    the first, concern them both."""
    up, notes = hexed("83 60 B0 40 00"), hexed("00 C0 05 00 90 3C 50") + HALF
    third = track(PEDAL(127), hexed("00 B0 07 14"), up, END) if there else track(END)
    blob = header(n_tracks=4) + track(TEMPO, END) + track(notes, END) + track(hexed("00 C0 49"), WAIT, D, END) + third
    assert heard(blob) == [(0, 1 if there else 0.5, 60, 80), BOTH[1]]
    volumes = {(c.instrument, c.value) for c in read(blob).changes if (c.kind, c.number) == ("control", 7)}
    assert volumes == ({(0, 20), (1, 20)} if there else set())


def test_pedals_that_hold_on():
    """CC 123 and the changes of mode lift keys, not the pedal; the sostenuto holds what sounds when it is pressed."""
    for number in (123, 124, 125, 126, 127):
        off = bytes([0x81, 0x70, 0xB0, number, 0])
        events = [PEDAL(127), hexed("00 90 3C 50"), off, hexed("81 70 B0 40 00"), D]
        assert heard(one(*events)) == BOTH
        assert heard(one(hexed("00 90 3C 50"), off, D))[0] == (0, 0.5, 60, 80)
    late = [SOSTENUTO(127), hexed("00 90 3C 50"), HALF, hexed("81 70 B0 42 00"), D]
    assert heard(one(*late))[0] == (0, 0.5, 60, 80)


def fundamental(blob, low=150.0, high=700.0):
    """The strongest frequency of the first second, interpolated to 0.1 Hz."""
    waveform = synthesize(read(blob), RATE, general_midi())[RATE // 10 : RATE]
    n = int(RATE / 0.1)
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), n))
    first = int(low / 0.1)
    return 0.1 * (first + spectrum[first : int(high / 0.1)].argmax())


FLUTE, OCARINA = hexed("00 C0 49"), hexed("00 C0 4F")
UP, A3 = hexed("00 E0 7F 7F"), hexed("00 90 39 50 87 40 80 39 40")


def rpn(high: int, low: int, *values: tuple[int, int]) -> bytes:
    pairs = [(101, high), (100, low), *values]
    return b"".join(bytes([0, 0xB0, number, value]) for number, value in pairs)


@pytest.mark.parametrize(
    "events, semitones",
    [
        ((UP, hexed("00 B0 79 00")), 0),
        ((UP,), 2),
        ((UP, hexed("00 F0 05 7E 7F 09 01 F7"), OCARINA), 0),
        ((rpn(0, 0, (6, 12)), UP), 12),
        ((rpn(0, 0, (6, 12), (38, 50)), UP), 12.5),
        ((rpn(0, 0, (38, 50), (6, 3)), UP), 3.5),
        ((rpn(0, 0, (6, 12)), hexed("00 B0 79 00 00 B0 06 05"), UP), 12),
        ((rpn(127, 127, (6, 12)), UP), 2),
        ((rpn(0, 1, (6, 127)), rpn(0, 0, (6, 12)), UP), 12.98),
        ((rpn(0, 2, (6, 67)),), 3),
        ((rpn(0, 1, (6, 96)),), 0.5),
        ((rpn(0, 0, (6, 7)) + hexed("00 B0 63 01 00 B0 62 08 00 B0 06 18"), UP), 7),
        ((rpn(0, 0, (96, 0)), UP), 3),
    ],
    ids=str,
)
def test_bend_and_tuning_are_heard(events, semitones):
    """Of an ocarina's A3, which is nearly a sine; within 0.4 %, seven cents."""
    assert fundamental(one(OCARINA, *events, A3)) == pytest.approx(220 * 2 ** (semitones / 12), rel=0.004)


def test_cc_121_leaves_what_it_should():
    """RP-015: volume, pan and program stay, expression and modulation do not."""
    events = hexed("00 B0 07 28 00 B0 0A 10 00 B0 0B 10 00 B0 01 40 00 B0 79 00")
    changes = {(c.kind, c.number): c.value for c in read(one(FLUTE, events, NOTES)).changes}
    assert changes["control", 7] == 40 and changes["control", 10] == 16 and changes["program", 0] == 73
    assert changes["control", 11] == 127 and changes["control", 1] == 0 and changes["bend", 0] == 0


@pytest.mark.parametrize(
    "select",
    [
        hexed("00 B0 00 7F 00 C0 00"),  # XG
        hexed("00 B0 00 78 00 C0 00"),  # GM2
        hexed("00 F0 0A 41 10 42 12 40 11 15 01 19 F7"),  # GS: part 1
        hexed("00 F0 08 43 10 4C 08 00 07 02 F7"),  # XG: part 1
    ],
    ids=["XG bank", "GM2 bank", "GS part", "XG part"],
)
def test_drums_on_another_channel(select):
    performance = read(one(select, NOTES))
    assert [performance.instruments[note.instrument].drums for note in performance.notes] == [True, True]


def test_banks_are_no_drums():
    """Bank 1, of which the soundfont has none, sounds as bank 0, and not as bank 128, which is drums."""
    flute, other = (
        synthesize(read(one(bank, FLUTE, NOTES)), 8000, general_midi()) for bank in (b"", hexed("00 B0 00 01"))
    )
    assert np.array_equal(flute, other)


def test_ports_have_channels_of_their_own():
    """Drums on channel 10 of the second port; the first one's channel 1 is not that of the second."""
    second = track(meta(0x21, b"\1"), hexed("00 C0 28"), D, END)
    blob = header(n_tracks=3) + track(TEMPO, END) + track(meta(0x21, b"\0"), FLUTE, C, END) + second
    performance = read(blob)
    assert len({note.instrument for note in performance.notes}) == 2
    drums = second.replace(b"\x90", b"\x99").replace(b"\x80\x3e", b"\x89\x3e")
    assert read(header(n_tracks=2) + track(TEMPO, END) + drums).instruments[0].drums


@pytest.mark.parametrize("name", ["a.mid", "a.kar", "a.rmi", "a.smf", "a", "a.wav", "a.musicxml", "a.bin"])
def test_midi_under_any_name(tmp_path, name):
    for i, blob in enumerate((GOOD, riff((b"DISP", PICTURE), (b"data", GOOD)), b"\0" * 128 + GOOD)):
        path = tmp_path / f"{i}{name}"
        path.write_bytes(blob)
        assert is_score(path)


def test_content_comes_before_the_name(tmp_path):
    (tmp_path / "a.mid").write_bytes(riff((b"fmt ", bytes(16)), (b"data", b""), form=b"WAVE"))
    (tmp_path / "b.txt").write_text("<?xml version='1.0'?><score-partwise/>")
    assert not is_score(tmp_path / "a.mid") and is_score(tmp_path / "b.txt")
    assert is_score(tmp_path / "none.kar") and not is_score(
        tmp_path / "none.mp3"
    )  # by the name, where there is no file


@pytest.mark.parametrize(
    "content, words",
    [
        (b"<!DOCTYPE html><html></html>", "not MIDI, but a web page"),
        (b"not found\n", "a text file"),
        (b"\x80\x81" * 50, "no header, MThd"),
        (b"junk" * 20 + GOOD[:12], "cut off before its first track"),
    ],
)
def test_what_is_no_midi_is_called_what_it_is(tmp_path, content, words):
    (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        load(tmp_path / "a.mid", 8000)
    assert "XML" not in str(error.value) and str(error.value).startswith(str(tmp_path / "a.mid"))


def test_remarks_reach_the_prompt(tmp_path):
    (tmp_path / "a.kar").write_bytes(one(meta(0x51, b"\0\0\0"), NOTES))
    loaded = load(tmp_path / "a.kar", 8000)
    assert loaded.remarks == ("has a tempo that means nothing, once; it changes nothing",)
    assert loaded.waveform.shape == (16000,) and loaded.synthesized and isinstance(loaded, prompt.Prompt)
