"""How long notes and rests last, where durations, divisions or types are missing or make no sense.

The values are those of MusicXML 4.0: a duration counts in divisions of a quarter; without them it has no unit, and what
is written (type, dots, tuplets, the bar) tells.
"""

import pytest

from score import read
from score.performance import BadScore
from small_scores import attributes, heard, move, note, notes, score

NONE = attributes(None)
FOUR = "C4 0-1, D4 1-2, E4 2-3, F4 3-4"
TRIPLET = {"tuplet": (3, 2)}

CASES = {
    # No divisions: the type decides (verovio issue 3263).
    "no divisions, 256 a quarter": (
        [[NONE + notes("C4 D4", 256, "quarter") + note("E4", 512, "half"), note("F4", 1024, "whole")]],
        "C4 0-1, D4 1-2, E4 2-4, F4 4-8",
    ),
    "no divisions, dots": (
        [[NONE + note("C4", 72, "quarter", dots=1) + note("D4", 24, "eighth") + note("E4", 96, "half")]],
        "C4 0-3/2, D4 3/2-2, E4 2-4",
    ),
    "no divisions, two dots": (
        [[NONE + note("C4", 7, "half", dots=2) + note("D4", 1, "eighth")]],
        "C4 0-7/2, D4 7/2-4",
    ),
    "no divisions, triplets": (
        [[NONE + notes("C4 D4 E4", 4, "eighth", **TRIPLET) + note("F4", 36, "half", dots=1)]],
        "C4 0-1/3, D4 1/3-2/3, E4 2/3-1, F4 1-4",
    ),
    "no divisions, backup to a second voice": (
        [[NONE + notes("C4 D4 E4 F4", 6, "quarter", 1) + move("backup", 24) + notes("C3 E3", 12, "half", 2)]],
        "C3 0-2, C4 0-1, D4 1-2, E3 2-4, E4 2-3, F4 3-4",
    ),
    "no divisions, forward in a second voice": (
        [
            [
                NONE
                + notes("C4 D4 E4 F4", 6, "quarter", 1)
                + move("backup", 24)
                + move("forward", 12)
                + note("E3", 12, "half", 2)
            ]
        ],
        "C4 0-1, D4 1-2, E3 2-4, E4 2-3, F4 3-4",
    ),
    "no divisions and no types: the bars tell": (
        [[NONE + notes("C4 D4 E4 F4", 16), note("G4", 64)]],
        FOUR + ", G4 4-8",
    ),
    "no divisions, no types, in 6/8": (
        [[attributes(None, "6/8") + notes("C4 D4", 3), note("E4", 6)]],
        "C4 0-3/2, D4 3/2-3, E4 3-6",
    ),
    "no divisions, no durations": ([[NONE + notes("C4 D4 E4 F4", None, "quarter")]], FOUR),
    "divisions in the first part only": (
        [[attributes(4) + note("C4", 16, "whole")], [NONE + notes("E3 F3", 8, "half")]],
        "E3 0-2, C4 0-4, F3 2-4",
    ),
    "divisions in the first part, others count otherwise": (
        [[attributes(4) + note("C5", 16, "whole")], [NONE + notes("E3 F3", 512, "half")]],
        "E3 0-2, C5 0-4, F3 2-4",
    ),
    "divisions in the second part only, no types": (
        [[NONE + notes("C4 D4 E4 F4", 8)], [attributes(8) + note("C3", 32)]],
        "C3 0-4, " + FOUR,
    ),
    "divisions told only in the second measure": (
        [[NONE + notes("C4 D4 E4 F4", 2), attributes(2, None) + note("G4", 8)]],
        FOUR + ", G4 4-8",
    ),
    "divisions of 0": ([[attributes(0) + notes("C4 D4 E4 F4", 480, "quarter")]], FOUR),
    "negative divisions": ([[attributes(-1) + notes("C4 D4 E4 F4", 480, "quarter")]], FOUR),
    "divisions that are a word": ([[attributes("many") + notes("C4 D4 E4 F4", 2, "quarter")]], FOUR),
    "a later divisions of 0 changes nothing": (
        [[attributes(2) + notes("C4 D4", 2) + attributes(0, None) + notes("E4 F4", 2)]],
        FOUR,
    ),
    "divisions of a half": ([[attributes("0.5") + notes("C4 D4", 1) + note("E4", "2")]], "C4 0-2, D4 2-4, E4 4-8"),
    "large divisions": ([[attributes(10**9) + notes("C4 D4 E4 F4", 10**9)]], FOUR),
    "divisions change in the measure": (
        [
            [
                attributes(1)
                + notes("C4 D4", 1)
                + attributes(8, None)
                + note("E4", 8)
                + attributes(3, None)
                + note("F4", 3)
            ]
        ],
        FOUR,
    ),
    "a backup counts in the divisions that hold there": (
        [
            [
                attributes(1)
                + notes("C4 D4", 2, voice=1)
                + attributes(4, None)
                + move("backup", 16)
                + note("E3", 16, voice=2)
            ]
        ],
        "E3 0-4, C4 0-2, D4 2-4",
    ),
    # Durations that are missing, or none.
    "one duration is missing": (
        [[attributes(2) + note("C4", 2, "quarter") + note("D4", None, "quarter") + notes("E4 F4", 2, "quarter")]],
        FOUR,
    ),
    "a duration of 0": ([[attributes(2) + note("C4", 0, "quarter") + notes("D4 E4 F4", 2, "quarter")]], FOUR),
    "a negative duration": ([[attributes(2) + note("C4", -2, "quarter") + notes("D4 E4 F4", 2, "quarter")]], FOUR),
    "nan": ([[attributes(2) + note("C4", "nan", "quarter") + notes("D4 E4 F4", 2, "quarter")]], FOUR),
    "an empty duration": ([[attributes(2) + note("C4", "", "quarter") + notes("D4 E4 F4", 2, "quarter")]], FOUR),
    "1e12 quarters that are one": (
        [[attributes(1) + note("C4", 10**12, "quarter") + notes("D4 E4 F4", 1, "quarter")]],
        FOUR,
    ),
    "a triplet without durations": (
        [[attributes(6) + notes("C4 D4 E4", None, "quarter", tuplet=(3, 2, "quarter")) + note("F4", 12, "half")]],
        "C4 0-2/3, D4 2/3-4/3, E4 4/3-2, F4 2-4",
    ),
    "a quarter in a triplet of eighths": (
        [
            [
                attributes(1)
                + note("C4", None, "quarter", tuplet=(3, 2, "eighth"))
                + note("D4", None, "eighth", tuplet=(3, 2))
                + note("E4", 3, "half", dots=1)
            ]
        ],
        "C4 0-2/3, D4 2/3-1, E4 1-4",
    ),
    "a triplet in a quintuplet": (
        [[NONE + notes("C4 D4 E4", None, "eighth", tuplet=(15, 8)) + note("F4", None, "quarter", tuplet=(5, 4))]],
        "C4 0-4/15, D4 4/15-8/15, E4 8/15-4/5, F4 4/5-8/5",
    ),
    "a tuplet of 0 notes is none": ([[NONE + notes("C4 D4 E4 F4", None, "quarter", tuplet=(0, 2))]], FOUR),
    "neither duration nor type: what the bar leaves": (
        [[attributes(1) + note("C4", 1) + note("D4")]],
        "C4 0-1, D4 1-4",
    ),
    "a whole bar of notes of which nothing is said": ([[attributes(1) + notes("C4 D4 E4 F4")]], FOUR),
    "a backup without duration": (
        [[attributes(1) + notes("C4 D4 E4 F4", 1, voice=1) + move("backup") + note("C3", 4, voice=2)]],
        "C3 0-4, " + FOUR,
    ),
    "a forward without duration": (
        [
            [
                attributes(1)
                + notes("C4 D4 E4 F4", 1, voice=1)
                + move("backup", 4)
                + move("forward")
                + note("E3", 2, voice=2)
            ]
        ],
        "C4 0-1, D4 1-2, E3 2-4, E4 2-3, F4 3-4",
    ),
    "a negative backup goes to the beginning": (
        [[attributes(1) + note("C4", 4, voice=1) + move("backup", -4) + note("C3", 4, voice=2)]],
        "C3 0-4, C4 0-4",
    ),
    "a backup beyond the beginning": (
        [[attributes(1) + note("C4", 2, voice=1) + move("backup", 4) + note("C3", 4, voice=2)]],
        "C3 0-4, C4 0-2",
    ),
    "durations that are all 1, and a backup by their sum": (
        [
            [
                NONE
                + notes("C4 D4", 1, "quarter")
                + note("E4", 1, "half")
                + move("backup", 3)
                + note("C3", 1, "whole"),
                note("F4", 1, "whole"),
            ]
        ],
        "C3 0-4, C4 0-1, D4 1-2, E4 2-4, F4 4-8",
    ),
    "durations that are all 1, and a backup by one": (
        [
            [
                NONE
                + notes("C4 D4", 1, "quarter", 1)
                + note("E4", 1, "half", 1)
                + move("backup", 1)
                + note("C3", 1, "half", 2)
            ]
        ],
        "C4 0-1, D4 1-2, C3 2-4, E4 2-4",
    ),
    "durations that are all 1, and a forward by two": (
        [
            [
                NONE
                + notes("C4 D4", 1, "quarter", 1)
                + note("E4", 1, "half", 1)
                + move("backup", 3)
                + move("forward", 2)
                + note("C3", 1, "half", 2)
            ]
        ],
        "C4 0-1, D4 1-2, C3 2-4, E4 2-4",
    ),
    "a duration of 0, and a backup by what the others come to": (
        [
            [
                attributes(1)
                + note("C4", 0, "quarter", 1)
                + notes("D4 E4 F4", 1, "quarter", 1)
                + move("backup", 3)
                + note("C3", 4, voice=2)
            ]
        ],
        "C3 0-4, " + FOUR,
    ),
    "a duration of 0, and a backup by the bar": (
        [
            [
                attributes(1)
                + note("C4", 0, "quarter", 1)
                + notes("D4 E4 F4", 1, "quarter", 1)
                + move("backup", 4)
                + note("C3", 4, voice=2)
            ]
        ],
        "C3 0-4, " + FOUR,
    ),
    "no durations, and a backup by half the bar": (
        [[attributes(1) + notes("C4 D4 E4 F4", None, "quarter", 1) + move("backup", 2) + note("C3", 2, voice=2)]],
        "C4 0-1, D4 1-2, C3 2-4, E4 2-3, F4 3-4",
    ),
    # Chords.
    "chord notes without durations": (
        [[attributes(1) + note("C4", 2) + notes("E4 G4", None, chord=True) + note("D4", 2)]],
        "C4 0-2, E4 0-2, G4 0-2, D4 2-4",
    ),
    "the first note of a chord has none": (
        [[attributes(1) + note("C4") + note("E4", 2, chord=True) + note("D4", 2)]],
        "C4 0-2, E4 0-2, D4 2-4",
    ),
    "chord notes of different durations": (
        [
            [
                attributes(1)
                + note("C4", 2)
                + note("E4", 1, chord=True)
                + note("G4", None, "half", chord=True)
                + note("D4", 2)
            ]
        ],
        "C4 0-2, E4 0-1, G4 0-2, D4 2-4",
    ),
    "chord first in the measure": (
        [[attributes(1) + note("C4", 4), note("D4", 2, chord=True) + note("E4", 2)]],
        "C4 0-4, D4 4-6, E4 6-8",
    ),
    "chord after a rest sounds with it": (
        [[attributes(1) + note("r", 2) + note("C4", 2, chord=True) + note("D4", 2)]],
        "C4 0-2, D4 2-4",
    ),
    "a direction within a chord": (
        [
            [
                attributes(1)
                + note("C4", 4)
                + "<direction><direction-type><words>x</words></direction-type></direction>"
                + note("E4", 4, chord=True)
            ]
        ],
        "C4 0-4, E4 0-4",
    ),
    # Rests of a bar (verovio issues 3171, 1568; w3c/musicxml issue 478).
    "four quarters in 6/8": (
        [[attributes(2, "6/8") + note("R", 8), note("C4", 6), note("R"), note("D4", 6)]],
        "C4 3-6, D4 9-12",
    ),
    "no duration in 3/4": ([[attributes(1, "3/4") + note("R"), note("C4", 3)]], "C4 3-6"),
    "no duration in 3/8": ([[attributes(2, "3/8") + note("R"), note("C4", 3)]], "C4 3/2-3"),
    "no duration in 12/8": ([[attributes(2, "12/8") + note("R"), note("C4", 12)]], "C4 6-12"),
    "four quarters in 12/8": ([[attributes(2, "12/8") + note("R", 8), note("C4", 12)]], "C4 6-12"),
    "four quarters in 5/4": ([[attributes(2, "5/4") + note("R", 8), note("C4", 10)]], "C4 5-10"),
    "whole and alone in 3/4": ([[attributes(1, "3/4") + note("r", 4, "whole"), note("C4", 3)]], "C4 3-6"),
    "whole and alone in 4/2": ([[attributes(1, "4/2") + note("r", 4, "whole"), note("C4", 8)]], "C4 8-16"),
    "whole and alone without duration in 7/8": (
        [[attributes(2, "7/8") + note("r", None, "whole"), note("C4", 7)]],
        "C4 7/2-7",
    ),
    "a whole rest that is not alone": (
        [[attributes(1, "6/4") + note("r", 4, "whole") + note("C4", 2), note("D4", 6)]],
        "C4 4-6, D4 6-12",
    ),
    "a half rest alone is a half": (
        [[attributes(1, "3/4") + note("r", 2, "half") + move("forward", 1), note("C4", 3)]],
        "C4 3-6",
    ),
    "in the second voice, too long for the bar": (
        [[attributes(2, "6/8") + note("C4", 6, voice=1) + move("backup", 6) + note("R", 8, voice=2), note("D4", 6)]],
        "C4 0-3, D4 3-6",
    ),
    "in the first voice, and the backup by its duration": (
        [[attributes(2, "6/8") + note("R", 8, voice=1) + move("backup", 8) + note("C4", 6, voice=2), note("D4", 6)]],
        "C4 0-3, D4 3-6",
    ),
    "in the first voice, and the backup by the bar": (
        [
            [
                attributes(2, "12/8") + note("R", 8, voice=1) + move("backup", 12) + note("C4", 12, voice=2),
                note("D4", 12),
            ]
        ],
        "C4 0-6, D4 6-12",
    ),
    "longer than its duration, and the backup by that": (
        [[attributes(2, "12/8") + note("R", 8, voice=1) + move("backup", 8) + note("C4", 12, voice=2), note("D4", 12)]],
        "C4 0-6, D4 6-12",
    ),
    "on two staves, without durations": (
        [
            [
                attributes(1, "3/4", "<staves>2</staves>")
                + note("R", voice=1, staff=1)
                + move("backup")
                + note("R", voice=5, staff=2),
                note("C4", 3),
            ]
        ],
        "C4 3-6",
    ),
    "a pickup tells its length to the other stave": (
        [
            [
                f'<measure number="0" implicit="yes">{attributes(1)}{note("C4", 1, voice=1)}{move("backup", 1)}'
                f"{note('R', None, voice=2)}</measure>",
                note("D4", 4),
            ]
        ],
        "C4 0-1, D4 1-5",
    ),
    "a pickup, and a rest of four quarters in another part": (
        [
            [f'<measure number="0" implicit="yes">{attributes(1)}{note("R", 4)}</measure>', note("D3", 4)],
            [f'<measure number="0" implicit="yes">{attributes(1)}{note("C4", 1)}</measure>', note("D4", 4)],
        ],
        "C4 0-1, D3 1-5, D4 1-5",
    ),
    "a pickup of rests has the length that they say": (
        [[f'<measure number="0" implicit="yes">{attributes(4)}{note("R", 4)}</measure>', note("D4", 16)]],
        "D4 1-5",
    ),
    "a pickup whose rest is alone and whole": (
        [
            [f'<measure number="0" implicit="yes">{attributes(1)}{note("r", 4, "whole")}</measure>', note("D3", 4)],
            [f'<measure number="0" implicit="yes">{attributes(1)}{note("C4", 1)}</measure>', note("D4", 4)],
        ],
        "C4 0-1, D3 1-5, D4 1-5",
    ),
    "the meter stands in another part": (
        [[attributes(1, None) + note("R"), note("C4", 3)], [attributes(1, "3/4") + note("C3", 3), note("D3", 3)]],
        "C3 0-3, D3 3-6, C4 3-6",
    ),
    "no meter anywhere: four quarters": ([[attributes(1, None) + note("R"), note("C4", 4)]], "C4 4-8"),
    "the bar changes": (
        [
            [
                attributes(1) + note("R"),
                attributes(None, "2/4") + note("R"),
                attributes(None, "3/4") + note("R"),
                note("C4", 3),
            ]
        ],
        "C4 9-12",
    ),
    "a duration that is too short": ([[attributes(4) + note("R", 1), note("C4", 16)]], "C4 4-8"),
    "a duration of 0 in 2/4": ([[attributes(4, "2/4") + note("R", 0), note("C4", 8)]], "C4 2-4"),
    "a short bar that is not marked, as other notes say, too": (
        [
            [attributes(1) + note("C3", 4), note("R", 2), note("D3", 4)],
            [attributes(1) + note("C4", 4), note("D4", 2), note("E4", 4)],
        ],
        "C3 0-4, C4 0-4, D4 4-6, D3 6-10, E4 6-10",
    ),
    "four quarters without type or measure": ([[attributes(1, "3/4") + note("r", 4), note("C4", 3)]], "C4 3-6"),
    "whole, alone on a stave whose voice is that of the other": (
        [
            [
                attributes(1, "3/4", "<staves>2</staves>")
                + notes("C4 D4 E4", 1, voice=1, staff=1)
                + move("backup", 3)
                + note("r", 4, "whole", voice=1, staff=2),
                note("F4", 3),
            ]
        ],
        "C4 0-1, D4 1-2, E4 2-3, F4 3-6",
    ),
    "no bars are counted (senza misura)": (
        [
            [
                attributes(1, "3/4") + note("C4", 3),
                "<attributes><time><senza-misura/></time></attributes>" + note("R", 5),
                note("D4", 3),
            ]
        ],
        "C4 0-3, D4 8-11",
    ),
    "without divisions": (
        [[NONE + notes("C4 D4 E4 F4", 8, "quarter"), note("R", 32), note("G4", 32, "whole")]],
        FOUR + ", G4 8-12",
    ),
    # Measures whose voices differ.
    "the longest voice is the measure": (
        [[attributes(1) + note("C4", 2, voice=1) + move("backup", 2) + note("C3", 4, voice=2), note("D4", 4)]],
        "C3 0-4, C4 0-2, D4 4-8",
    ),
    "a grace note without type": (
        [
            [
                attributes(1)
                + note("C4", 2)
                + "<note><grace/><pitch><step>E</step><octave>4</octave></pitch></note>"
                + note("D4", 2)
            ]
        ],
        "C4 0-2, E4 2-5/2, D4 5/2-4",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_lengths(case):
    """Onsets and ends as exact fractions of a quarter (to 1/64 and their like)."""
    parts, expected = CASES[case]
    assert heard(score(*parts)) == expected


def test_one_bad_time_signature_is_told_and_the_one_before_holds():
    performance = read(score([attributes(1, "3/4") + note("R"), attributes(None, "x/4") + note("R"), note("C4", 3)]))
    assert [note.onset for note in performance.notes] == [6]
    assert performance.remarks == ["not played: 1 time signature that cannot be read"]


def test_guessed_lengths_are_told():
    """Each kind is one line, with how many notes it concerns."""
    performance = read(score([attributes(1) + note("C4", 1) + note("D4"), notes("E4 F4")]))
    assert performance.remarks == ["not played: 3 notes as written, whose length nothing tells"]


def test_a_note_without_any_length_is_told():
    performance = read(score([attributes(1) + note("C4", 0) + notes("D4 E4 F4 G4", 1)]))
    assert [note.onset for note in performance.notes if note.duration] == [0, 1, 2, 3]
    assert performance.remarks == ["not played: 1 note whose duration is 0"]


def test_a_long_note_of_no_type_is_still_refused():
    with pytest.raises(BadScore, match="lasts 5000 s"):
        read(score([attributes(1) + note("C4", 5000)]))
