"""Typed progressions: what a musician would play for them."""

import io

import pretty_midi
import pytest

from chords import program_of, progression, to_midi
from conftest import ROOT
from errors import UserError
from meter import Meter
from score import read
from voicing import BASS, Chord, voice

NAMES = {name: pitch for pitch, name in enumerate(["C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"])}


def pitches(*names: str) -> set[int]:
    return {NAMES[name] for name in names}


SYMBOLS = {
    "Dm7": "D F A C",
    "G7": "G B D F",
    "Cmaj7": "C E G B",
    "C": "C E G",
    "Bb7": "Bb D F Ab",
    "B♭7": "Bb D F Ab",
    "Ebmaj7": "Eb G Bb D",
    "F#m7b5": "Gb A C E",
    "F#ø": "Gb A C E",
    "C-7": "C Eb G Bb",
    "C°7": "C Eb Gb A",
    "Cdim": "C Eb Gb",
    "C+": "C E Ab",
    "CΔ": "C E G B",
    "C△": "C E G B",
    "CM7": "C E G B",
    "CMA7": "C E G B",
    "C^7": "C E G B",
    "Cmaj": "C E G",
    "Cmi7": "C Eb G Bb",
    "Ch7": "C Eb Gb Bb",
    "C2": "C E G D",
    "C(add9)": "C E G D",
    "Cm6/9": "C Eb G A D",
    "Calt": "C E Ab Bb Eb",
    "C7(b9, #11)": "C E G Bb Db Gb",
    "Cm(maj7)": "C Eb G B",
    "Csus": "C F G",
    "Csus2": "C D G",
    "C9sus4": "C F G Bb D",
    "C6": "C E G A",
    "C6/9": "C E G A D",
    "Cadd9": "C E G D",
    "C7#9": "C E G Bb Eb",
    "C7(b9,#11)": "C E G Bb Db Gb",
    "C7b5": "C E Gb Bb",
    "Cmaj9": "C E G B D",
    "C13b9": "C E G Bb Db F A",
    "C7alt": "C E Ab Bb Eb",
    "C5": "C G",
    "Cno3": "C G",
}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_chord_symbols(symbol):
    [[chord]] = progression(symbol)
    root = NAMES["Gb"] if symbol.startswith("F#") else NAMES[SYMBOLS[symbol].split()[0]]
    assert set(chord.pitch_classes) == pitches(*SYMBOLS[symbol].split())
    assert chord.bass == chord.pitch_classes[0] == root


@pytest.mark.parametrize(
    "symbol, bass, notes", [("C/E", "E", "C E G"), ("Cm7/Bb", "Bb", "C Eb G Bb"), ("G/F#", "Gb", "G B D")]
)
def test_the_bass_after_the_slash(symbol, bass, notes):
    [[chord]] = progression(symbol)
    assert chord.bass == NAMES[bass] and set(chord.pitch_classes) == pitches(*notes.split())


ROMANS = {
    ("D minor", "i VI III VII"): ["D F A", "Bb D F", "F A C", "C E G"],
    ("D minor", "iv V7 bVII i64"): ["G Bb D", "A Db E G", "C E G", "A D F"],
    ("C", "I vi IV V7"): ["C E G", "A C E", "F A C", "G B D F"],
    ("C", "Imaj7 V7/V bVI viiø7"): ["C E G B", "D Gb A C", "Ab C Eb", "B D F A"],
    ("Bb major", "I V6 ii65"): ["Bb D F", "A C F", "Eb G Bb C"],
    ("f#", "i V"): ["Gb A Db", "Db F Ab"],
    ("C", "ii65 V4/2 I6 vii°43"): ["F A C D", "F G B D", "E G C", "F Ab B D"],
    ("A minor", "iiø65 V6/5 i6 iv64 vii°7"): ["D F A B", "Ab B D E", "C E A", "A D F", "Ab B D F"],
    ("C", "ii9 iim7 V7b9 V7sus4"): ["D F A C E", "D F A C", "G B D F Ab", "G C D F"],
    ("C", "IIm7 bIIImaj7 #ivø7 I6/9"): ["D F A C", "Eb G Bb D", "Gb A C E", "C E G A D"],
}


@pytest.mark.parametrize("key, text", ROMANS)
def test_roman_numerals(key, text):
    """The first of each is its bass."""
    found = [chord for [chord] in progression(text, key)]
    for chord, notes in zip(found, ROMANS[key, text], strict=True):
        assert set(chord.pitch_classes) == pitches(*notes.split()) and chord.bass == NAMES[notes.split()[0]]


def test_bars():
    """Chords share a bar, ``%`` repeats the last, ``/`` holds; without bars each chord is one."""
    dm, g = progression("Dm7 G7")[0][0], progression("Dm7 G7")[1][0]
    assert progression("| Dm7 | G7 Dm7 | % | G7 / / Dm7 | N.C. |") == [[dm], [g, dm], [g, dm], [g, g, g, dm], [None]]
    assert progression("Dm7 G7") == [[dm], [g]] != progression("Dm7 G7 |")
    assert progression("Dm7 | G7 |\n| Dm7 |\r\n") == [[dm], [g], [dm]]
    assert progression("ii7 G7", "C") == [[dm], [g]]


@pytest.mark.parametrize(
    "text, bars",
    [
        ("|: C | F :| G |", "C F C F G"),
        ("C | F :| G", "C F C F G"),
        ("||: C | F :||: G :|]", "C F C F G G"),
        ("C |: F | G :|: D :|", "C F G F G D D"),
        ("|: C :| x3 F", "C C C F"),
        ("|: C :|3x | F |", "C C C C F"),  # and an empty bar, in which C goes on
        ("[| C || F |]", "C F"),
        ("C | F |\n| G |\n\n| C |", "C F G C"),
        ("| C G | | F |", "C,G G F"),
        ("| C G | % | F |", "C,G C,G F"),
        ("C, F, G", "C F G"),
        ("C,F;G", "C F G"),
        ("C - F \u2013 G", "C F G"),
        ("C-F-G", "C F G"),
        ("C, G | F - C", "C,G F,C"),
        ("C / / / G / / /", "C,C,C,C G,G,G,G"),
    ],
)
def test_repeats_and_what_stands_between_chords(text, bars):
    chords = {name: progression(name)[0][0] for name in "CFGD"}
    assert progression(text) == [[chords[name] for name in bar.split(",")] for bar in bars.split()]


def test_dashes_and_commas_of_chords_stay():
    minor, dominant = progression("Cm7")[0], progression("F7b9#11")[0]
    assert progression("C-7-F7(b9,#11), C-7") == [minor, dominant, minor]
    assert progression("I-IV-bVII", "C") == progression("C F Bb")
    assert progression("i,iv-V7/V", "C minor") == [*progression("Cm Fm"), *progression("V7/V", "C")]


@pytest.mark.parametrize(
    "text, key, words",
    [
        ("C | X7", None, ["'X7'", "bar 2"]),
        ("C G | F Cfoo", None, ["'Cfoo'", "bar 2, chord 2"]),
        ("C7b4x", None, ["C7b4x"]),
        ("ii V", None, ["'ii'", "--key"]),
        ("ii Q", "C", ["'Q'", "bar 2"]),
        ("ii V", "H minor", ["H minor"]),
        ("IIm7", None, ["'IIm7'", "--key"]),
        ("%", None, ["bar 1"]),
        ("| | C", None, ["bar 1 is empty"]),
        ("C |: F | G", None, ["before bar 2", ":|"]),
        ("|: C |: F :|", None, ["before bar 1", ":|"]),
        (":| C", None, ['":|"', "nothing to repeat"]),
        ("|: C :| x0", None, ["nothing to repeat"]),
        ("C | F x3", None, ["'x3'", "bar 2"]),
        ("C | F - - -", None, ['"-" (bar 2)', '"/"']),
        ("C | - F", None, ['"-" (bar 2)', '"/"']),
        ("C7, b9", None, ["'b9'", "bar 2"]),
        ("C4", None, ["'C4'"]),
        ("/ C", None, ["bar 1"]),
        ("", None, ["no chord"]),
        ("N.C. | N.C.", None, ["no chord"]),
    ],
)
def test_what_is_no_chord_is_named_with_its_place(text, key, words):
    with pytest.raises(UserError) as error:
        progression(text, key)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize("bass", ["B", "A"])
def test_written_symbols_are_played_as_typed_ones(bass):
    """Dm7, G7 over B (or over A, which is none of its tones), C of a score."""
    text = (ROOT / "tests" / "scores" / "harmony.musicxml").read_text()
    score = read(text.replace("<bass-step>B<", f"<bass-step>{bass}<").encode())
    typed = read(to_midi(progression(f"Dm7 G7/{bass} | C"), Meter(60), "piano"))
    heard = [[(round(note.onset, 2), note.pitch) for note in played.notes] for played in (score, typed)]
    assert sorted(heard[0]) == sorted(heard[1]) and len(heard[0]) == 4 + 5 + 4


def test_voicings_move_little():
    """Three or four voices in close position, within a sixth of the middle; from chord to chord no voice leaps."""
    before, moves = (), []
    for bar in progression("Dm7 | G7 | Cmaj7 | A7 | Dm9 | G13 | C69 | Ebm7 | Ab7 | Dbmaj7"):
        voices = voice(bar[0], before)
        assert voices == tuple(sorted(voices)) and voices[-1] - voices[0] < 12 and 3 <= len(voices) <= 4
        assert {v % 12 for v in voices} <= set(bar[0].pitch_classes) and abs(sum(voices) / len(voices) - 62) < 5
        moves += [min(abs(v - w) for w in before) for v in voices] if before else []
        before = voices
    assert max(moves) <= 4 and sum(moves) / len(moves) < 2


def test_third_and_seventh_are_never_left_out():
    for symbol in ("C7", "Cm7", "C9", "C13", "Cmaj9", "C7b9", "Cm11", "C13b9"):
        [[chord]] = progression(symbol)
        heard = {v % 12 for v in voice(chord)}
        thirds = {3, 4} & set(chord.pitch_classes)
        sevenths = {10, 11} & set(chord.pitch_classes)
        assert thirds <= heard and sevenths <= heard, symbol


def test_the_midi_file():
    """Two chords in a bar of 3/4 at 90 take 1 s each; the bass is an octave or more below; N.C. is silence."""
    bars = progression("C G7 | N.C. | F / F")
    song = pretty_midi.PrettyMIDI(io.BytesIO(to_midi(bars, Meter(90, 3, 4), "electric piano")))
    assert song.get_tempo_changes()[1][0] == pytest.approx(90, rel=1e-4) and song.instruments[0].program == 4
    assert (song.time_signature_changes[0].numerator, song.time_signature_changes[0].denominator) == (3, 4)
    spans = sorted({(round(note.start, 3), round(note.end, 3)) for note in song.instruments[0].notes})
    assert spans == [(0, 1), (1, 2), (4, 6)]
    first = sorted(note.pitch for note in song.instruments[0].notes if note.start == 0)
    assert first[0] == BASS and first[1] - first[0] >= 12 and voice(Chord(0, (0, 4, 7))) == tuple(first[1:])
    with pytest.raises(UserError, match="600 s"):
        to_midi(bars * 200, Meter(60), "piano")


def test_instruments_are_found_by_their_names():
    names = {"piano": 0, "electric piano": 4, "Church Organ": 19, "nylon guitar": 24, "violin": 40, "strings": 48}
    assert {name: program_of(name) for name in names} == names
    with pytest.raises(UserError, match="kazoo"):
        program_of("kazoo")
