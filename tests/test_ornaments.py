"""Ornaments where notes alone do not tell: bends are heard, lengths add up, hostile ones end in one line."""

import re

import numpy as np
import pytest

from conftest import ROOT
from prompt import general_midi
from score import read
from score.ornaments import FASTEST, expand, note_length
from score.performance import BadScore, Performance
from score.player import synthesize
from score.sheet import Ornament

RATE = 22050
SCORES = ROOT / "tests" / "scores"


def changed(name: str, *changes: tuple[str, str]) -> Performance:
    """A score of the tests with some of its text replaced."""
    text = (SCORES / f"{name}.musicxml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return read(text.encode())


def pitch(waveform: np.ndarray, start: float, low: float = 58, high: float = 66) -> float:
    """MIDI pitch of the strongest partial around middle C in 0.16 s from ``start`` (s)."""
    part = waveform[int(start * RATE) :][: int(0.16 * RATE)]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 17))
    notes = 69 + 12 * np.log2(np.maximum(np.fft.rfftfreq(1 << 17, 1 / RATE), 1e-9) / 440)
    inside = np.flatnonzero((notes > low) & (notes < high))
    return float(notes[inside[spectrum[inside].argmax()]])


def test_a_slide_is_heard():
    """An organ slides from C4 to E4 within a second: linearly in pitch, within a fifth of a semitone."""
    performance = changed("slide", ("Piano", "Organ"))
    waveform = synthesize(performance, RATE, general_midi())
    for middle in (0.2, 0.35, 0.5, 0.65, 0.8):
        assert pitch(waveform, middle - 0.08) == pytest.approx(60 + 4 * middle, abs=0.2)
    assert pitch(waveform, 1.3) == pytest.approx(64, abs=0.1)


def test_a_slide_bends_nothing_else():
    """It has a channel of its own, with the program of its part, and MIDI's range of bends at two octaves."""
    performance = changed("slide", ("Piano", "Organ"))
    slid, plain = performance.notes
    assert slid.instrument != plain.instrument
    assert performance.instruments[slid.instrument] == performance.instruments[plain.instrument]
    bends = [change for change in performance.changes if change.kind == "bend"]
    assert {change.instrument for change in bends} == {slid.instrument} and 30 < len(bends) < 50
    assert bends[-1].value == round(8192 * 4 / 24)


def test_a_slide_too_far_for_a_bend_is_a_scale():
    last = "<step>E</step><octave>4</octave>"
    wide = changed("slide", (last, last.replace("4", "7")))
    assert [note.pitch for note in wide.notes] == [*range(60, 101)]


@pytest.mark.parametrize(
    "ornament",
    [
        Ornament(cycle=(0, 2)),
        Ornament(cycle=(2, 0)),
        Ornament((-1,), (0, 2), (-1, 0)),
        Ornament(cycle=(0, 2), suffix=(-2, 0), beats=7, accelerate=True),
        Ornament(cycle=(0, 2), beats=5, second=0.5, last=0.2),
        Ornament(cycle=(0, 2), accelerate=True),
        Ornament((0, -1, 0)),
        Ornament((2, 0, -1, 0), delayed=True),
    ],
)
@pytest.mark.parametrize("length", [0.0, 0.01, 0.05, 0.11, 0.25, 1.0, 7.3])
def test_ornaments_begin_in_order_within_their_note(ornament, length):
    """They begin with the note, in order, before its end, and all but the last are no longer than one of them may be;
    a note too short for them is plain."""
    unit = note_length(100)
    notes = expand(ornament, length, unit)
    begins = [begin for begin, _ in notes]
    assert begins[0] == 0 and begins == sorted(begins) and begins[-1] <= max(0, length)
    steps = np.diff(begins)
    if ornament.beats is None and not ornament.accelerate and not ornament.delayed:
        assert (steps > FASTEST - 1e-9).all()
        # The last one before two at the end of a trill may be longer, as the last of all.
        assert (np.delete(steps, len(steps) - 2 if ornament.suffix and len(steps) > 2 else []) <= unit + 1e-9).all()
    if ornament.beats is None:
        assert notes[-1][1] == 0  # on the note itself
    if length < 0.04:
        assert notes == [(0.0, 0.0)]


def test_their_speed():
    """Thirty-seconds, sixteenths from 200 on, at least eight a second."""
    speeds = {30: 8, 60: 8, 100: 13.33, 120: 16, 199: 26.53, 200: 13.33, 240: 16}
    assert {tempo: 1 / note_length(tempo) for tempo in speeds} == pytest.approx(speeds, rel=1e-3)


@pytest.mark.parametrize(
    "key, note, upper",
    [
        ("<fifths>0</fifths>", "<step>E</step><octave>5</octave>", 77),
        ("<fifths>-4</fifths>", "<step>C</step><octave>5</octave>", 73),
        ("<fifths>7</fifths>", "<step>B</step><alter>1</alter><octave>4</octave>", 73),
        (
            "<fifths>0</fifths>",
            "<step>E</step><alter>1</alter><octave>5</octave>",
            78,
        ),  # not F natural: that is E sharp
        ("<key-step>F</key-step><key-alter>1</key-alter>", "<step>E</step><octave>5</octave>", 78),
        ("<key-step>F</key-step><key-alter>x</key-alter>", "<step>E</step><octave>5</octave>", 77),
        ("<fifths>99</fifths>", "<step>E</step><octave>5</octave>", 78),
    ],
)
def test_the_neighbour_is_of_the_key(key, note, upper):
    first = re.search(r"<step>E</step><octave>5</octave>", (SCORES / "trill.musicxml").read_text())[0]
    performance = changed("trill", ("<fifths>1</fifths>", key), (first, note))
    assert performance.notes[1].pitch == upper


@pytest.mark.parametrize(
    "words, share",
    [
        ("Swing", 2 / 3),
        ("Shuffle feel", 2 / 3),
        ("Swung 8ths (not straight)", 2 / 3),
        ("No swing", 0.5),
        ("Straight, no swing", 0.5),
        ("Swinging along", 0.5),
        ("All that is said of it in this long sentence of the editor is that it need not swing at all", 0.5),
    ],
)
def test_words_of_swing(words, share):
    performance = changed("swing-words", ("Medium Swing", words))
    assert performance.notes[0].duration == pytest.approx(share)


def test_a_straight_mute_does_not_end_swing():
    performance = changed("swing-words", ("Straight 8ths", "Straight mute"))
    assert performance.notes[3].duration == pytest.approx(2 / 3)


def test_a_trill_on_a_drum_is_a_roll():
    performance = changed("drums", ("<duration>4</duration>", "<duration>4</duration><type>quarter</type><notations>"
                          "<ornaments><trill-mark/></ornaments></notations>"))  # fmt: skip
    plain = changed("drums")
    assert len(performance.notes) > 3 * len(plain.notes)
    assert {note.pitch for note in performance.notes} == {note.pitch for note in plain.notes}


def test_a_trill_under_a_fermata_goes_on():
    """The fermata doubles the note, not the notes of its trill."""
    performance = changed("trill", ("<trill-mark/></ornaments>", "<trill-mark/></ornaments><fermata/>"))
    first = [note.duration for note in performance.notes[:7]]
    assert first == pytest.approx([0.125] * 6 + [0.25], abs=1e-6)


def test_too_many_notes_are_one_line():
    """A tremolo of 57,600 strokes, and 62,000 notes of trills in four voices."""
    note = "<note><pitch><step>C</step><octave>4</octave></pitch><duration>{}</duration><type>whole</type><notations>"
    note += "<ornaments>{}</ornaments></notations></note>"
    pair = [note.format(900, f'<tremolo type="{kind}">8</tremolo>') for kind in ("start", "stop")]
    voices = "<backup><duration>3800</duration></backup>".join([note.format(3800, "<trill-mark/>")] * 4)
    head = '<attributes><divisions>1</divisions></attributes><sound tempo="400"/>'
    for notes in ("".join(pair), voices):
        measure = f'<measure number="1">{head}{notes}</measure>'
        score = f'<score-partwise><part-list/><part id="P1">{measure}</part></score-partwise>'
        with pytest.raises(BadScore, match="at most 50000 are played"):
            read(score.encode())
