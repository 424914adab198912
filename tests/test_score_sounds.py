"""Who plays the notes, on which stave and at which pitch, and which file of a container is the score.

The values are those of MusicXML 4.0; drums without an instrument are by their place and head in MuseScore's drumset.
"""

import io
import zipfile

import pytest

from prompt import load
from score import read
from score.instrument_names import by_name
from score.performance import BadScore
from small_scores import attributes, header, heard, move, note, notes, programs, score

ONE = attributes(1)
PERCUSSION = "<clef><sign>percussion</sign></clef>"
TWO_STAVES = "<staves>2</staves>"


def drums(*keys) -> list:
    """Instruments of a drumset, as MuseScore writes them: midi-unpitched counts from 1."""
    return [
        (f"P1-I{key + 1}", f"Drum {key}", f"<midi-channel>10</midi-channel><midi-unpitched>{key + 1}</midi-unpitched>")
        for key in keys
    ]


def transpose(chromatic=0, octaves=0, number=None, double="") -> str:
    at = "" if number is None else f' number="{number}"'
    return (
        f"<transpose{at}><chromatic>{chromatic}</chromatic><octave-change>{octaves}</octave-change>{double}</transpose>"
    )


def by(key) -> str:
    return f'<instrument id="{key}"/>'


def change(inner: str) -> str:
    return f"<sound>{inner}</sound>"


CLARINET = "<instrument-sound>wind.reed.clarinet</instrument-sound>"
FLUTE = [("P1-I1", "Flute", "<midi-program>74</midi-program>")]

PERCUSSION_CLEF = f"<attributes>{PERCUSSION}</attributes>"
DRUMS = {
    # Guitar notes and a noise (w3c/mnx issue 316).
    "noise in a guitar part": (header("Acoustic Guitar"), notes("E4 x:E4 G4 B4", 1), "E4 0-1, #37 1-2, G4 2-3, B4 3-4"),
    "plain heads are noises too": (header("Violin"), notes("E4 o:E4 G4 B4", 1), "E4 0-1, #37 1-2, G4 2-3, B4 3-4"),
    "a noise with an own drum": (
        header("Guitar", ("P1-I1", "Guitar", "<midi-program>25</midi-program>"), *drums(39)),
        note("E4", 2, more=by("P1-I1")) + note("x:E4", 2, more=by("P1-I40")),
        "E4 0-2, #39 2-4",
    ),
    "bongos: the place tells which": (
        header("Bongos"),
        PERCUSSION_CLEF + notes("o:G4 o:E4 o:G4 o:E4", 1),
        "#60 0-1, #61 1-2, #60 2-3, #61 3-4",
    ),
    "one wood block": (header("Wood Block"), PERCUSSION_CLEF + notes("o:E4 o:E4", 2), "#76 0-2, #76 2-4"),
    "wood blocks": (
        header("Wood Blocks"),
        PERCUSSION_CLEF + notes("o:E4 o:A4 o:C5 o:F5", 1),
        "#77 0-1, #77 1-2, #76 2-3, #76 3-4",
    ),
    "an x head with a pitch keeps it": (
        header("Acoustic Guitar"),
        note("E4", 2) + note("G4", 2, more="<notehead>x</notehead>"),
        "E4 0-2, G4 2-4",
    ),
    "a chord of a note and a noise": (
        header("Guitar"),
        note("E4", 4) + note("x:E4", 4, chord=True),
        "#37 0-4, E4 0-4",
    ),
    # Drums without an instrument at the note (alphaTab issue 2700).
    "by place, of those declared": (
        header("Drumset", *drums(35, 38, 42)),
        notes("o:F4 o:C5 x:G5 o:C5", 1),
        "#35 0-1, #38 1-2, #42 2-3, #38 3-4",
    ),
    "by place, 36 where that is declared": (
        header("Drumset", *drums(38, 36)),
        notes("o:F4 o:C5", 2),
        "#36 0-2, #38 2-4",
    ),
    "by place, none declared": (
        header("Drumset"),
        notes("o:F4 x:F5 x:A5 o:E5", 1),
        "#36 0-1, #51 1-2, #49 2-3, #48 3-4",
    ),
    "a rim shot is a cross where the snare is": (header("Drumset"), notes("o:C5 x:C5", 2), "#38 0-2, #37 2-4"),
    "the pedal of the hi-hat": (header("Drumset"), notes("x:D4 x:G5", 2), "#44 0-2, #42 2-4"),
    "toms": (header("Drums"), notes("o:E5 o:D5 o:A4 o:G4", 1), "#48 0-1, #47 1-2, #43 2-3, #41 3-4"),
    "other notes of the part tell": (
        header("Drumset", *drums(56, 38)),
        note("x:E5", 2, more=by("P1-I57")) + note("x:E5", 2),
        "#56 0-2, #56 2-4",
    ),
    "an instrument that nobody declares": (
        header("Drumset", *drums(36, 38)),
        note("o:F4", 2, more=by("X")) + note("o:C5", 2, more=by("X")),
        "#36 0-2, #38 2-4",
    ),
    "the only drum, wherever": (header("Snare Drum", *drums(38)), notes("o:E4 x:G5", 2), "#38 0-2, #38 2-4"),
    "one declared of a drumset": (header("Drumset", *drums(36)), notes("o:F4 o:C5", 2), "#36 0-2, #38 2-4"),
    "names instead of keys": (
        header(
            "Drumset",
            ("a", "Bass Drum", "<midi-channel>10</midi-channel>"),
            ("b", "Cowbell", "<midi-channel>10</midi-channel>"),
        ),
        note("o:C5", 4, more=by("b")),
        "#56 0-4",
    ),
    "midi-unpitched without a channel": (
        header("X", ("a", "X", "<midi-unpitched>50</midi-unpitched>")),
        note("o:C5", 4, more=by("a")),
        "#49 0-4",
    ),
    "a percussion clef and no instrument": (
        header("Part"),
        attributes(1, more=PERCUSSION) + notes("o:F4 x:G5", 2),
        "#36 0-2, #42 2-4",
    ),
    "pitches under a percussion clef are places": (
        header("Drumset"),
        attributes(1, more=PERCUSSION) + notes("F4 C5", 2),
        "#36 0-2, #38 2-4",
    ),
    "pitches of drums without that clef are keys": (header("Drumset"), notes("C2 D2", 2), "#36 0-2, #38 2-4"),
    "pitches of drums on the stave are no keys": (
        header("Drumset"),
        notes("F4 C5 G5 C5", 1),
        "#36 0-1, #38 1-2, #42 2-3, #38 3-4",
    ),
    "pitches of declared drums": (header("Drumset", *drums(36, 38)), notes("F4 C5", 2), "#36 0-2, #38 2-4"),
    "pitches that are keys of declared drums": (
        header("Drumset", *drums(36, 38)),
        notes("D2 C2", 2),
        "#38 0-2, #36 2-4",
    ),
    "drums under a bass clef": (
        header("Drumset"),
        attributes(1, more="<clef><sign>F</sign><line>4</line></clef>") + notes("o:A2 o:E3", 2),
        "#36 0-2, #38 2-4",
    ),
    "no place at all": (header("Drumset"), "<note><unpitched/><duration>4</duration></note>", "#37 0-4"),
    "drums are not transposed": (
        header("Drumset", *drums(36)),
        attributes(1, more=transpose(-12)) + note("o:F4", 4, more=by("P1-I37")),
        "#36 0-4",
    ),
}


@pytest.mark.parametrize("case", DRUMS)
def test_drums(case):
    """General MIDI keys of drums (#), and pitches of what is none, exactly."""
    head, inside, expected = DRUMS[case]
    assert heard(score([inside if "<attributes>" in inside else ONE + inside], headers=[head])) == expected


STAVES = {
    "number 1, and no staff at the note": (attributes(1, more=transpose(0, -1, 1)) + note("C5", 4), "C4 0-4"),
    "number 2, and no staff at the note": (attributes(1, more=transpose(0, -1, 2)) + note("C5", 4), "C5 0-4"),
    "each stave has its own": (
        attributes(1, more=TWO_STAVES + transpose(2, 0, 1) + transpose(-2, 0, 2))
        + note("C5", 4, staff=1)
        + move("backup", 4)
        + note("C4", 4, staff=2),
        "A#3 0-4, D5 0-4",
    ),
    "one for all staves": (
        attributes(1, more=TWO_STAVES + transpose(-2)) + note("C5", 4) + move("backup", 4) + note("C4", 4, staff=2),
        "A#3 0-4, A#4 0-4",
    ),
    "one for all replaces those with numbers": (
        attributes(1, more=transpose(2, 0, 1)) + note("C5", 2) + attributes(None, None, transpose(-2)) + note("C5", 2),
        "D5 0-2, A#4 2-4",
    ),
    "a later one replaces": (
        attributes(1, more=transpose(-2)) + note("C5", 2) + attributes(None, None, transpose(0)) + note("C5", 2),
        "A#4 0-2, C5 2-4",
    ),
    "white space around numbers": (
        attributes(1, more=TWO_STAVES + transpose(0, -1, " 2 "))
        + note("C5", 2, staff=" 2\n")
        + note("C5", 2, staff=" 1"),
        "C4 0-2, C5 2-4",
    ),
    "a staff beyond the staves": (attributes(1, more=transpose(-2)) + note("C5", 4, staff=7), "A#4 0-4"),
    "a staff of 0 is the first": (attributes(1, more=transpose(-2, 0, 1)) + note("C5", 4, staff=0), "A#4 0-4"),
    "doubled on stave 1": (attributes(1, more=transpose(0, 0, 1, "<double/>")) + note("C5", 4), "C4 0-4, C5 0-4"),
    "an octave and a second": (attributes(1, more=transpose(-2, -1)) + note("D5", 4), "C4 0-4"),
    "a key on stave 1 and a trill without staff": (
        attributes(8, "2/4", '<key number="1"><fifths>-3</fifths></key>')
        + note("D5", 1, more="<notations><ornaments><inverted-mordent/></ornaments></notations>")
        + note("r", 15),
        "D5 0-1/24, D#5 1/24-1/12, D5 1/12-1/8",
    ),
    "parts of a concert score transpose only when they are taken out": (
        attributes(1, more="<for-part><part-transpose><chromatic>-2</chromatic></part-transpose></for-part>")
        + note("C5", 4),
        "C5 0-4",
    ),
}


@pytest.mark.parametrize("case", STAVES)
def test_staves(case):
    inside, expected = STAVES[case]
    assert heard(score([inside])) == expected


def test_a_concert_score_has_octaves_only():
    """By MusicXML 4.0 it may not have any other transposition: what it writes is what sounds."""
    inside = attributes(1, more=transpose(-2, 1)) + note("C5", 4)
    assert heard(score([inside], defaults="<defaults><concert-score/></defaults>")) == "C6 0-4"


def dynamics(mark: str, staff=None) -> str:
    at = "" if staff is None else f"<staff>{staff}</staff>"
    return f"<direction><direction-type><dynamics><{mark}/></dynamics></direction-type>{at}</direction>"


@pytest.mark.parametrize(
    ("marks", "staves", "velocities"),
    [
        (dynamics("p", 1) + dynamics("f", 2), (None, 2), [49, 96]),
        (dynamics("p") + dynamics("f", 2), (1, 2), [49, 96]),
        (dynamics("p"), (None, None), [49, 49]),
        (dynamics("p"), (1, 2), [49, 49]),
        (dynamics("ff", " 1 "), (None, None), [112, 112]),
    ],
)
def test_dynamics_by_staff(marks, staves, velocities):
    """A mark without a staff is on the first; a stave without any follows the others."""
    first, second = (note(pitch, 4, staff=staff) for pitch, staff in zip(("C5", "C3"), staves, strict=True))
    performance = read(score([attributes(1, more=TWO_STAVES) + marks + first + move("backup", 4) + second]))
    assert [n.velocity for n in sorted(performance.notes, key=lambda n: -n.pitch)] == velocities


def test_a_stave_follows_the_others_until_it_has_its_own():
    bars = [
        attributes(1, more=TWO_STAVES)
        + dynamics("p", 1)
        + note("C5", 4, staff=1)
        + move("backup", 4)
        + note("C3", 4, staff=2)
    ]
    bars.append(dynamics("f", 2) + note("D5", 4, staff=1) + move("backup", 4) + note("D3", 4, staff=2))
    velocities = {n.pitch: n.velocity for n in read(score(bars)).notes}
    assert velocities == {72: 49, 48: 49, 74: 49, 50: 96}


def test_a_missing_voice_is_the_first():
    """A tie, and a trill that goes on, are by voice."""
    tied = (
        note("C5", 4, more='<notations><tied type="start"/></notations>'),
        note("C5", 4, voice=1, more='<notations><tied type="stop"/></notations>'),
    )
    assert heard(score([ONE + tied[0], tied[1]])) == "C5 0-8"


CHANGES = {
    "by instrument-sound": (f'<instrument-change id="P1-I1">{CLARINET}</instrument-change>', [73, 71]),
    "by a virtual instrument": (
        '<instrument-change id="P1-I1"><virtual-instrument><virtual-library>General MIDI</virtual-library>'
        "<virtual-name>Oboe</virtual-name></virtual-instrument></instrument-change>",
        [73, 68],
    ),
    "as MuseScore 4 writes it": (
        f'<instrument-change><score-instrument id="P1-I2"><instrument-name>Clarinet</instrument-name>{CLARINET}'
        "</score-instrument></instrument-change>",
        [73, 71],
    ),
    "an id that nobody declares": (f'<instrument-change id="X">{CLARINET}</instrument-change>', [73, 71]),
    "an empty one": ('<instrument-change id="P1-I1"/>', [73, 73]),
    "a sound that nobody knows": (
        '<instrument-change id="P1-I1"><instrument-sound>zz.yy</instrument-sound></instrument-change>',
        [73, 73],
    ),
    "midi-instrument counts from 1": (
        '<midi-instrument id="P1-I1"><midi-program>72</midi-program></midi-instrument>',
        [73, 71],
    ),
    "midi-instrument comes before": (
        f'<instrument-change id="P1-I1">{CLARINET}</instrument-change>'
        '<midi-instrument id="P1-I1"><midi-program>66</midi-program></midi-instrument>',
        [73, 65],
    ),
    "as Finale 26 writes it": (
        '<play id="P1-I1"><other-play type="instrument-sound">wind.reed.saxophone.alto</other-play></play>',
        [73, 65],
    ),
    "another play": ('<play id="P1-I1"><other-play type="x">wind.reed.oboe</other-play></play>', [73, 73]),
    "a program of 0 is none": (
        '<midi-instrument id="P1-I1"><midi-program>0</midi-program></midi-instrument>',
        [73, 73],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_instrument_changes(case):
    """Programs from 0, before and behind the change (MuseScore issue 29535, w3c/musicxml issue 293)."""
    inner, expected = CHANGES[case]
    blob = score([ONE + note("C5", 4), change(inner) + note("C5", 4)], headers=[header("Flute", *FLUTE)])
    assert programs(blob) == expected
    inside = "<direction><direction-type><words>x</words></direction-type>" + change(inner) + "</direction>"
    assert programs(score([ONE + note("C5", 4), inside + note("C5", 4)], headers=[header("Flute", *FLUTE)])) == expected


@pytest.mark.parametrize(
    ("sound", "program"),
    [
        ("pitched-percussion.marimba", 12),
        ("pitched-percussion.xylophone.bass", 13),
        ("wind.flutes.flute.alto", 73),
        ("wind.reed.clarinet.bass", 71),
        ("wind.reed.saxophone.tenor", 66),
        ("wind.reed.english-horn", 69),
        ("pluck.bass.electric", 33),
        ("pluck.guitar.steel-string", 25),
        ("brass.french-horn", 60),
        ("keyboard.harpsichord", 6),
        ("voice.soprano", 52),
        ("strings.group", 48),
        ("drum.timpani", 47),
        ("drum.group.set", "drums"),
        ("metal.cymbal.crash", "drums"),
        ("Clarinet", 71),
    ],
)
def test_standard_sounds(sound, program):
    """Those of sounds.xml, in the part list and as a change; by what stands before the dots where there is no line."""
    head = header("Part", ("P1-I1", "X", None)).replace(
        "</instrument-name>", f"</instrument-name><instrument-sound>{sound}</instrument-sound>"
    )
    assert programs(score([ONE + note("C5", 4)], headers=[head])) == [program]
    changed = change(f'<instrument-change id="P1-I1"><instrument-sound>{sound}</instrument-sound></instrument-change>')
    assert programs(score([ONE + note("C5", 4), changed + note("C5", 4)]))[1] == program


NAMES = {
    0: "Piano|Klavier|Piano RH|Piano (Strings)",
    4: "E-Piano|Rhodes",
    24: "Guitar|Gitarre|Guitar Hero|Konzertgitarre",
    27: "E-Gitarre|El. Guitar|E. Guitar 2|Guitarra eléctrica",
    33: "Bass Guitar|5-string Bass Guitar|E-Bass|Bassgitarre|Basse électrique|El. Bass|B. Gtr.",
    40: "Violin1|Violino I|Solo Violin|Violin Solo|Vl. I",
    43: "Double Bass|Kb.|Kontrabass|String Bass|Contrabbassi",
    52: "Vocals|Gesang|Soprano|Chor|Men|Sop.",
    56: "Cornet|Flugelhorn|Bb Piccolo Trumpet|Tr. in B|Trompeten",
    58: "Eb Bass|Euphonium|Baritone Horn|Euphonium T.C.",
    60: "Horn in F|Corno|Waldhorn|Hrn.",
    64: "Soprano Sax|Sax soprano",
    65: "Alto Sax|Altsaxophon 2|A. Sax.",
    66: "Saxofón tenor|Tenor Sax|T. Sax.|Ten. Sax",
    67: "Bari Sax|Baritone Saxophone",
    73: "Flute/Piccolo|Flöte|FLUTES|Fl. 1, 2",
    74: "Altblockflöte|Tenor Recorder",
    "#36": "Große Trommel|B.D.|Gran Cassa|Concert Bass Drum|Bass Drum & Cymbals",
    "#38": "Perc. 1 (Snare)|Kl. Trommel|Side Drum|Caisse claire|Snare Drum 2",
    "#49": "Cymbals|Becken|Suspended Cymbal|Piatti",
    "#52": "Tam-tam",
    "#73": "Güiro",
    "#76": "Temple Blocks|Wood Block",
    "#83": "Sleigh Bells",
    "drums": "Drums1|Schlagzeug|Batería|Drum Machine|Perc.|Djembé",
    None: "Melody|Part 1|Right Hand|P1|Staff 2|SmartMusic SoftSynth 1||1",
}


@pytest.mark.parametrize(
    ("known", "name"), [(known, name) for known, names in NAMES.items() for name in names.split("|")]
)
def test_instruments_by_their_names(known, name):
    """As scores call their parts: the longest run of words tells, in six languages and in abbreviations."""
    found = by_name(name)
    if found is not None:
        program, is_drum, key = found
        found = program if not is_drum else "drums" if key is None else f"#{key}"
    assert found == known


def test_a_change_is_of_its_instrument_and_from_its_place_on():
    """The other instrument of the part keeps its sound; a repeat begins as it is written; voices behind a backup do
    not change before its time."""
    two = header("Winds", *FLUTE, ("P1-I2", "Oboe", "<midi-program>69</midi-program>"))
    clarinet = change(f'<instrument-change id="P1-I1">{CLARINET}</instrument-change>')
    first = note("C5", 4, more=by("P1-I1")) + move("backup", 4) + note("C4", 4, more=by("P1-I2"))
    assert programs(score([ONE + first, clarinet + first], headers=[two])) == [68, 73, 68, 71]
    again = clarinet + note("D5", 4) + '<barline location="right"><repeat direction="backward"/></barline>'
    assert programs(score([ONE + note("C5", 4), again], headers=[header("Flute", *FLUTE)])) == [73, 71, 73, 71]
    late = note("C5", 2, voice=1) + clarinet + note("D5", 2, voice=1) + move("backup", 4) + notes("C4 D4", 2, voice=2)
    assert programs(score([ONE + late], headers=[header("Flute", *FLUTE)])) == [73, 73, 71, 71]


def test_a_change_of_another_part_is_not_this_one():
    headers = [header("Flute", *FLUTE), header("Oboe", ("P2-I1", "Oboe", "<midi-program>69</midi-program>"), number=2)]
    other = change(f'<instrument-change id="P2-I1">{CLARINET}</instrument-change>')
    assert programs(score([ONE + other + note("C5", 4)], [ONE + note("C4", 4)], headers=headers)) == [68, 73]


def test_a_change_to_drums_and_the_place_for_them():
    """From the vibraphone to a snare drum: notes without pitch are that one then."""
    head = header("Percussion 1", ("P1-I1", "Vibraphone", "<midi-program>12</midi-program>"))
    snare = change(
        '<instrument-change id="P1-I1"><instrument-sound>drum.snare-drum</instrument-sound></instrument-change>'
    )
    assert heard(score([ONE + note("C5", 4), snare + note("x:E4", 4)], headers=[head])) == "C5 0-4, #38 4-8"


def test_a_change_to_another_drum():
    """From the tambourine to the triangle, each by its key, which counts from 1."""
    head = header(
        "Percussion", ("P1-I1", "Tambourine", "<midi-channel>10</midi-channel><midi-unpitched>55</midi-unpitched>")
    )
    triangle = change('<midi-instrument id="P1-I1"><midi-unpitched>82</midi-unpitched></midi-instrument>')
    hit = note("o:E4", 4, more=by("P1-I1"))
    assert heard(score([ONE + hit, triangle + hit], headers=[head])) == "#54 0-4, #81 4-8"


def test_volume_and_pan_change():
    """Controllers 7 and 10, of the notes behind the change."""
    inner = '<midi-instrument id="P1-I1"><volume>50</volume><pan>90</pan></midi-instrument>'
    performance = read(score([ONE + note("C5", 4), change(inner) + note("D5", 4)], headers=[header("Flute", *FLUTE)]))
    first, second = (n.instrument for n in performance.notes)
    controls = {(c.instrument, c.number): c.value for c in performance.changes if c.kind == "control"}
    assert controls == {(second, 7): 64, (second, 10): 127}
    assert [performance.instruments[i].program for i in (first, second)] == [73, 73]


def test_midi_instruments_without_score_instruments():
    """Several are the part's instruments (w3c/musicxml issue 425); one alone is its own, whatever its id."""
    midis = "".join(
        f'<midi-instrument id="{key}"><midi-program>{n}</midi-program></midi-instrument>'
        for key, n in (("a", 74), ("b", 47))
    )
    head = header("Part").replace("</score-part>", f"{midis}</score-part>")
    assert programs(score([ONE + note("C5", 2, more=by("b")) + note("C5", 2)], headers=[head])) == [46, 73]
    head = header("Part", ("a", "X", None)).replace(
        "</score-part>", '<midi-instrument id="c"><midi-program>74</midi-program></midi-instrument></score-part>'
    )
    assert programs(score([ONE + note("C5", 4)], headers=[head])) == [73]


def test_an_unknown_instrument_is_the_first_of_the_part():
    head = header("Winds", *FLUTE, ("P1-I2", "Oboe", "<midi-program>69</midi-program>"))
    blob = score(
        [ONE + note("C5", 1, more=by("X")) + note("C5", 1) + note("C5", 2, more=by(" P1-I2 "))], headers=[head]
    )
    assert programs(blob) == [73, 73, 68]


@pytest.mark.parametrize(
    ("bad", "remark"),
    [
        (note("H4", 1), "not played: 1 note whose pitch cannot be read"),
        (note("C4", 1).replace("<octave>4", "<octave>x"), "not played: 1 note whose pitch cannot be read"),
        (note("C#4", 1).replace("<alter>1", "<alter>sharp"), "not played: 1 note whose pitch cannot be read"),
        (note("C4", 1).replace("<octave>4", "<octave>12"), "not played: 1 note too low or too high to be heard"),
    ],
)
def test_a_note_that_cannot_be_played_costs_itself(bad, remark):
    performance = read(score([ONE + note("C4", 1) + bad + notes("E4 F4", 1)]))
    assert [(n.onset, n.pitch) for n in performance.notes] == [(0, 60), (2, 64), (3, 65)]
    assert performance.remarks == [remark]
    with pytest.raises(BadScore, match=remark):
        read(score([ONE + bad]))


def test_numbers_that_make_no_sense_are_as_if_they_were_not_there():
    plain = note("C4", 4)
    for attribute in ('attack="x"', 'release=""', 'dynamics="loud"', 'dynamics="nan"'):
        assert read(score([ONE + plain.replace("<note", f"<note {attribute}")])) == read(score([ONE + plain]))


def test_what_is_not_played_is_told(tmp_path):
    """Once for each kind, over the child process that plays scores."""
    path = tmp_path / "a.musicxml"
    path.write_bytes(score([ONE + note("C4", 1) + notes("H4 H5", 1) + note("D4", 1)]))
    assert load(path, 8000).remarks == ("not played: 2 notes whose pitch cannot be read",)


WANTED, OTHER = score([ONE + note("C4", 4)]), score([ONE + note("D4", 4)])


def archive(container: str | None, members: dict[str, bytes], at="META-INF/container.xml") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(zipfile.ZipInfo(name), content)
        if container is not None:
            out.writestr(at, container)
    return buffer.getvalue()


def container(*paths: str, kinds=()) -> str:
    kinds = kinds or [None] * len(paths)
    roots = (
        f'<rootfile full-path="{path}"' + (f' media-type="{kind}"/>' if kind else "/>")
        for path, kind in zip(paths, kinds, strict=True)
    )
    return f'<?xml version="1.0" encoding="UTF-8"?><container><rootfiles>{"".join(roots)}</rootfiles></container>'


MXL = "application/vnd.recordare.musicxml+xml"
BOTH = {"a.xml": OTHER, "score.xml": WANTED}
IN_FOLDER = {f"in/{name}": content for name, content in BOTH.items()}
CONTAINERS = {
    "dot and slash": (container("./score.xml"), BOTH),
    "slash": (container("/score.xml"), BOTH),
    "white space": (container(" score.xml "), BOTH),
    "other case": (container("Score.XML"), BOTH),
    "backslashes": (container("in\\score.xml"), {"a.xml": OTHER, "in/score.xml": WANTED}),
    "backslashes in the archive": (container("in/score.xml"), {"a.xml": OTHER, "in\\score.xml": WANTED}),
    "a folder": (container("in/score.xml"), {"in/a.xml": OTHER, "in/score.xml": WANTED}),
    "back and forth": (container("in/../score.xml"), BOTH),
    "percent signs": (container("my%20score.xml"), {"a.xml": OTHER, "my score.xml": WANTED}),
    "percent signs in the name": (container("100%25.xml"), {"a.xml": OTHER, "100%25.xml": WANTED}),
    "an ampersand": (container("a&amp;b.xml"), {"a.xml": OTHER, "a&b.xml": WANTED}),
    "umlauts": (container("M\u00fcller.xml"), {"a.xml": OTHER, "M\u00fcller.xml": WANTED}),
    "umlauts that macOS took apart": (container("M\u00fcller.xml"), {"a.xml": OTHER, "Mu\u0308ller.xml": WANTED}),
    "a folder that was packed": (None, {"in/META-INF/container.xml": container("score.xml").encode(), **IN_FOLDER}),
    "a folder of the container only": (container("in/score.xml"), BOTH),
    "a list of scores stands first": (container("opus.xml", "score.xml"), {"opus.xml": b"<opus/>", **BOTH}),
    "no suffix": (container("score"), {"a.xml": OTHER, "score": WANTED}),
    "the first of several": (container("score.xml", "a.xml", kinds=[MXL, MXL]), BOTH),
    "a picture stands first": (
        container("a.pdf", "score.xml", kinds=["application/pdf", MXL]),
        {"a.pdf": b"%PDF", "a.xml": OTHER, "score.xml": WANTED},
    ),
    "a picture without its type": (container("a.pdf", "score.xml"), {"a.pdf": b"%PDF", **BOTH}),
    "the first is not there": (container("b.xml", "score.xml"), BOTH),
    "none is there": (container("b.xml"), {"score.xml": WANTED}),
    "a declaration without its end": (container("score.xml").replace("?>", ">"), BOTH),
    "a container in UTF-16": (container("score.xml").replace("UTF-8", "UTF-16").encode("utf-16"), BOTH),
    "namespaces": (container("score.xml").replace("<container>", '<container xmlns="urn:x">'), BOTH),
    "no container": (None, {"score.xml": WANTED}),
    "an empty container": ("", {"score.xml": WANTED}),
    "what macOS adds": (
        None,
        {"__MACOSX/._score.xml": b"\0\5", "._score.xml": b"\0\5", ".DS_Store": b"", "score.xml": WANTED},
    ),
    "another XML file first": (None, {"a.xml": b"<plist/>", "score.musicxml": WANTED}),
    "nothing but a suffix (Noteflight)": (None, {".xml": WANTED}),
    "folders": (None, {"in/": b"", "in/score.xml": WANTED}),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_containers(case):
    """The score that the container names is played: C4, not D4."""
    inside, members = CONTAINERS[case]
    assert heard(archive(inside, members)) == "C4 0-4"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "cp437"])
def test_names_whose_encoding_an_archive_does_not_tell(encoding):
    name = "M\u00fcller.xml".encode(encoding)
    blob = archive(container("M\u00fcller.xml"), {"a.xml": OTHER, "x" * len(name): WANTED})
    assert heard(blob.replace(b"x" * len(name), name)) == "C4 0-4"


def test_containers_under_other_names(tmp_path):
    """A container in other case; an archive named .xml, and XML named .mxl."""
    assert heard(archive(container("score.xml"), BOTH, at="meta-inf/CONTAINER.XML")) == "C4 0-4"
    for name, blob in (("a.xml", archive(None, {"score.xml": WANTED})), ("b.mxl", WANTED)):
        (tmp_path / name).write_bytes(blob)
        assert load(tmp_path / name, 8000).waveform.shape == (4 * 8000,)


TEXT = WANTED.decode().replace("Piano", "Fl\u00f6te \u7434")
ENCODINGS = {
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "UTF-16": TEXT.replace("UTF-8", "UTF-16").encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + TEXT.replace("UTF-8", "UTF-16").encode("utf-16-be"),
    "UTF-16 without a mark": TEXT.replace("UTF-8", "UTF-16").encode("utf-16-le"),
    "UTF-16 that says UTF-8": TEXT.encode("utf-16"),
    "UTF-8 that says UTF-16": TEXT.replace("UTF-8", "UTF-16").encode(),
    "UTF-32": TEXT.replace("UTF-8", "UTF-32").encode("utf-32"),
    "Latin that says UTF-8": TEXT.replace("\u7434", "").encode("latin-1"),
    "Latin": TEXT.replace("\u7434", "").replace("UTF-8", "ISO-8859-1").encode("latin-1"),
    "GB 18030": TEXT.replace("UTF-8", "GB18030").encode("gb18030"),
    "Shift JIS": TEXT.replace("\u00f6", "o").replace("UTF-8", "Shift_JIS").encode("shift-jis"),
    "one that nobody knows": TEXT.replace("UTF-8", "martian").encode(),
    "an empty line first": b"\r\n" + TEXT.encode(),
    "a control character": TEXT.replace("\u7434", "\x0b").encode(),
}


@pytest.mark.parametrize("case", ENCODINGS)
def test_encodings(case):
    assert heard(ENCODINGS[case]) == "C4 0-4"


def test_entities_stay_refused_in_every_encoding():
    bomb = TEXT.replace("<score", '<!DOCTYPE x [<!ENTITY a "ha">]><score', 1)
    for blob in (
        bomb.encode(),
        bomb.encode("utf-16"),
        bomb.replace("UTF-8", "martian").encode(),
        b"\n" + bomb.encode(),
    ):
        with pytest.raises(BadScore, match="entities"):
            read(blob)
        with pytest.raises(BadScore, match="entities"):
            read(archive(None, {"score.xml": blob}))


def test_timewise_scores_keep_their_measures():
    """A part that begins later has empty measures before."""
    head = f"<part-list>{header()}{header(number=2)}</part-list>"
    first = f'<part id="P1">{ONE}<sound tempo="60"/>{note("C4", 4)}</part>'
    second = f'<part id="P1">{note("D4", 4)}</part><part id="P2">{ONE}{note("C3", 4)}</part>'
    measures = f'<measure number="1">{first}</measure><measure number="2">{second}</measure>'
    assert heard(f"<score-timewise>{head}{measures}</score-timewise>".encode()) == "C4 0-4, C3 4-8, D4 4-8"
