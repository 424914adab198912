"""In which order bars are played: repeat signs on either side, endings that lack something, jumps by words and sounds.

Each score is a row of bars, one whole note in each at 60 quarters a minute; a bar's letter is its pitch (``C`` is C4,
``c`` C5). Around the letter stand its signs: ``|:`` and ``:|`` repeat signs at the left and at the right, ``[1`` begins
a bracket at the left, ``]1`` ends it at the right, ``)1`` discontinues it there. Other XML stands in ``<...>``.
"""

import pytest
import regex

from score import read
from score.repeats import numbers
from small_scores import left_out

STEPS = "CDEFGAB"
SIGNS = {
    "|:": ("left", '<repeat direction="forward"/>'),
    ":|": ("right", '<repeat direction="backward"/>'),
    "[": ("left", '<ending number="{}" type="start"/>'),
    "]": ("right", '<ending number="{}" type="stop"/>'),
    ")": ("right", '<ending number="{}" type="discontinue"/>'),
}


def barline(location: str, content: str) -> str:
    return f'<barline location="{location}">{content}</barline>'


def words(*texts: str, sound: str = "") -> str:
    types = "".join(f"<direction-type><words>{text}</words></direction-type>" for text in texts)
    return f"<direction>{types}{sound}</direction>"


def note(letter: str, quarters: float = 4) -> str:
    octave = 4 + letter.islower()
    return (
        f"<note><pitch><step>{letter.upper()}</step><octave>{octave}</octave></pitch>"
        f"<duration>{round(4 * quarters)}</duration><voice>1</voice></note>"
    )


def bar(text: str) -> str:
    """What stands in a measure: XML before and behind its note, and the signs of the module's docstring."""
    out = []
    for token in regex.findall(r"<barline.*?</barline>|\S+", text):
        sign = regex.fullmatch(r"(\|:|:\||[\[\])])(.*)", token)
        if token.startswith("<"):
            out.append(token)
        elif sign:
            location, content = SIGNS[sign[1]]
            out.append(barline(location, content.format(sign[2])))
        else:
            out.append("".join(note(letter, 4 / len(token)) for letter in token))
    return "".join(out)


def score(*parts: list[str], meter: str = "4/4") -> bytes:
    """A score of parts, each a list of measures as XML."""
    beats, unit = meter.split("/")
    time = f"<time><beats>{beats}</beats><beat-type>{unit}</beat-type></time>"
    head = f'<attributes><divisions>4</divisions>{time}</attributes><sound tempo="60"/>'
    listed = "".join(f'<score-part id="P{k}"><part-name>Piano</part-name></score-part>' for k in range(len(parts)))
    music = ""
    for k, measures in enumerate(parts):
        inside = "".join(
            f'<measure number="{i + 1}">{head if i == 0 else ""}{m}</measure>' for i, m in enumerate(measures)
        )
        music += f'<part id="P{k}">{inside}</part>'
    return f"<score-partwise><part-list>{listed}</part-list>{music}</score-partwise>".encode()


def letters(blob: bytes) -> str:
    """The pitches in the order that they are played."""
    played = sorted(read(blob).notes, key=lambda n: n.onset)
    return "".join(
        (STEPS if n.pitch < 72 else STEPS.lower())[[0, 2, 4, 5, 7, 9, 11].index(n.pitch % 12)] for n in played
    )


def order(text: str) -> str:
    """Bars with ``/`` between them."""
    return letters(score([bar(part) for part in text.split(" / ")]))


LEFT_BACKWARD = barline("left", '<repeat direction="backward"/>')
RIGHT_FORWARD = barline("right", '<repeat direction="forward"/>')
STOP_LEFT = barline("left", '<ending number="1" type="stop"/>')
START_RIGHT = barline("right", '<ending number="1" type="start"/>')
BARE_FORWARD = '<barline><repeat direction="forward"/></barline>'
BARE_BACKWARD = '<barline><repeat direction="backward"/></barline>'


@pytest.mark.parametrize(
    ("text", "played"),
    {
        # sides of the signs
        f"C / D / {LEFT_BACKWARD} E / F": "CDCDEF",
        f"C {RIGHT_FORWARD} / D :| / E": "CDDE",
        f"C {RIGHT_FORWARD} / |: D :| / E": "CDDE",
        f"C / D :| / {LEFT_BACKWARD} E": "CDCDE",
        f"C / |: D / {LEFT_BACKWARD} |: E :| / F": "CDDEEF",
        f"{LEFT_BACKWARD} C / D": "CD",
        f"C / D {RIGHT_FORWARD}": "CD",
        f"C / {BARE_FORWARD} D {BARE_BACKWARD} / E": "CDDE",
        f"C {BARE_FORWARD} / D {BARE_BACKWARD} / E": "CDDE",
        # where a section begins
        "C :| / D": "CCD",
        "|: C :| / D": "CCD",
        "C / D :|": "CDCD",
        "C :| / D / E :| / F": "CCDEDEF",
        "|: C / D": "CD",
        "|: C :| / |: D :| / |: E :|": "CCDDEE",
        "|: C / |: D :| / E :| / F": "CDDECDDEF",
        "|: C / |: D / |: E :| / F :| / G :|": "CDEEFDEEFGCDEEFDEEFG",
        "C / |: D :| / |: E / F :|": "CDDEFEF",
        # endings
        "C / [1 D ]1 :| / [2 E ]2 / F": "CDCEF",
        "C / [1 D ]1 :| / [2 E )2 / F": "CDCEF",
        "|: C / [1 D / E ]1 :| / [2 F / G ]2 / A": "CDECFGA",
        "|: C / [1 D ]1 :| / [2 E ]2 :| / [3 F ]3 / G": "CDCECFG",
        "|: C / [1,2 D ]1,2 :| / [3 E ]3 / G": "CDCDCEG",
        "|: C / [1-3 D ]1-3 :| / [4 E ]4": "CDCDCDCE",
        "|: C / [1,3 D ]1,3 :| / [2,4 E ]2,4 :| / F": "CDCECDCEF",
        "|: C / [1 D ]1 :| / [2 E ]2 :| / F": "CDCEF",
        "|: C / [1 D ]1 :| / [2 E ]2 / |: F / [1 G ]1 :| / [2 A ]2": "CDCEFGFA",
        "C / [1 D ]1 :| / [2 E ]2 / F / [1 G ]1 :| / [2 A ]2 / B": "CDCEFGFAB",
        # one alone
        "C / [1 D ]1 :| / E": "CDCE",
        "|: C / [1,2 D ]1,2 :| / E": "CDCDCE",
        "C / D :| / [2 E )2 / F": "CDCDEF",
        "C / D :| / [2 E ]2 :| / F": "CDCDEF",
        "C / D :| / [2,3 E ]2,3 :| / F": "CDCDECDEF",
        "C / D :| / [2 E ]2 :| / [3 F ]3 / G": "CDCDECDFG",
        "|: C / [1 D ]1 / E :| / F": "CDECEF",
        "|: C / [2 D ]2 / E :| / F": "CECDEF",
        "|: C / [1 D ]1 / [2 E ]2 / F :| / G": "CDFCEFG",
        "C / [1 D ]1 / E": "CDE",
        "C / [2 D ]2 / E": "CDE",
        "|: C :| / D / [1 E ]1": "CCDE",
        "|: C :| / D / [2 E ]2 / F": "CCDEF",
        # without a stop
        "C / D :| / [2 E / F": "CDCDEF",
        "C / [1 D :| / [2 E / F": "CDCEF",
        "C / [1 D :| / [2 E / F / |: G / A :| / B": "CDCEFGAGAB",
        "C / [1 D ]1 :| / [2 E / F / |: G / A :| / B": "CDCEFGAGAB",
        "C / [1 D :| / [2 E / F / G :| / A": "CDCEFGFGA",
        "C / [1 D / E :| / [2 F / G :| / A": "CDECFGA",
        "C / [1 D / E :| / F": "CDECF",
        "C / [1 D / [2 E / F": "CDCEF",
        "C / [1 D :| / [2 E :| / [3 F / G": "CDCECFG",
        "C / [1 D :| / [2 E / |: F :|": "CDCEFF",
        "C / [1 D :| / [2 E / F / |: G / [1 A :| / [2 B / c": "CDCEFGAGBc",
        # a stop alone, in the wrong place, or doubled
        "C / D ]1 :| / [2 E ]2 / F": "CDCEF",
        f"C / [1 D :| / {STOP_LEFT} [2 E ]2 / F": "CDCEF",
        f"C {START_RIGHT} / D ]1 :| / [2 E ]2 / F": "CDCEF",
        f"C / D {START_RIGHT} ]1 :| / [2 E ]2 / F": "CDCEF",
        f"C / [1 D ]1 :| / {STOP_LEFT} [2 E ]2 / F": "CDCEF",
        "C / [1 D ]1 :| / [2 E ]2 / F )2 / G": "CDCEFG",
        "C / [1 D :| / E ]1 / F": "CDCEF",
        "C / [1 D )1 / [1 E ]1 :| / [2 F ]2 / G": "CDECFG",
        # numbers that are missing, doubled or have gaps
        "C / [ D ] :| / [ E ] / F": "CDCEF",
        "C / [  D ] :| / [ E ] :| / [ F ] / G": "CDCECFG",
        "C / [1 D ]1 :| / [ E ] / F": "CDCEF",
        "C / [1 D ]1 :| / [1 E ]1 / F": "CDCEF",
        "C / [0 D ]0 :| / [0 E ]0 / F": "CDCEF",
        "C / D :| / [ E ] / F": "CDCDEF",
        "C / [1 D ]1 :| / [3 E ]3 / F": "CDCEF",
        "C / [2 D ]2 :| / [3 E ]3 / F": "CDCEF",
        "C / [1,2 D ]1,2 :| / [4 E ]4 / F": "CDCDCEF",
        "C / [99 D ]99 :| / [99 E ]99 / F": "CDCEF",
        "C / [99 D ]99 :| / F": "CDCF",
        "C / [99 D ]99 / E :| / F": "CDECEF",
        "C / [2 D ]2 :| / F": "CCDF",
        "C / D :| / [3 E ]3 / F": "CDCDEF",
        # without repeat signs, and with a section that begins in a bracket
        "C / [1 D ]1 / [2 E ]2 / F": "CDCEF",
        "|: C / [1 D ]1 / [2 E ]2 / [3 F ]3 :| / G": "CDCECFG",
        "|: C / [1 D ]1 :| / [2 |: E ]2 / F :| / G": "CDCEFEFG",
        "|: C / [1,3 D ]1,3 :| / [2 E ]2 / F": "CDCECDF",
    }.items(),
)
def test_signs(text, played):
    assert order(text) == played


@pytest.mark.parametrize(
    ("text", "played"),
    [
        ('C / <barline><ending type="start" number="">1., 3.</ending></barline> D :| / [2 E :| / F', "CDCECDF"),
        ('C / <barline location="left"><ending type="start" number=" ">1.</ending></barline> D :| / [2 E', "CDCE"),
        ('C / <barline location="left"><ending type="start">1.-2.</ending></barline> D :| / [3 E', "CDCDCE"),
        ('C / [1 D ]1 :| / <barline location="left"><ending type="start" number="1">2.</ending></barline> E / F',
         "CDCEF"),
        ('C / <barline location="left"><ending type="start" number="1" print-object="no"/></barline> D ]1 :| / E',
         "CDCE"),
        ('C / [1 D ]1 <barline location="right"><repeat direction="backward" times="3"/></barline> / [2 E', "CDCE"),
        ('|: C <barline location="right"><repeat direction="backward" times="3"/></barline> / D', "CCCD"),
        ('|: C <barline location="right"><repeat direction="backward" times="1"/></barline> / D', "CD"),
        ('|: C <barline location="right"><repeat direction="backward" times="x"/></barline> / D', "CCD"),
        ('C / D <barline location="right"><repeat/></barline> / E', "CDCDE"),
        ('C / <barline location="left"><repeat/></barline> D :| / E', "CDDE"),
        ('|: C / [1,2 D <barline location="right"><ending type="stop" number="1,2"/>'
         '<repeat direction="backward" times="2"/></barline> / E', "CDCDE"),
        ('C / <barline location="left"><ending type="x" number="1"/></barline> D :| / E', "CDCDE"),
        ('C / D <barline location="right"><bar-style>light-heavy</bar-style></barline> / E', "CDE"),
    ],
)  # fmt: skip
def test_attributes(text, played):
    assert order(text) == played


@pytest.mark.parametrize(
    ("first", "second", "played"),
    [
        ("C / D :| / E", "C / D / E", "CDCDE"),
        ("C / D / E", "C / D :| / E", "CDCDE"),
        ("C / [1 D ]1 :| / [2 E ]2", "C / D :| / E", "CDCE"),
        ("C / D :| / E", "C / [1 D ]1 :| / [2 E ]2", "CDCE"),
        ("C / [1 D / E ]1 :| / [2 F ]2 / G", "C / [1 D / E :| / [2 F / G", "CDECFG"),
        ("C / [1 D / E :| / [2 F ]2 / G", "C / D / [1 E ]1 :| / [2 F ]2 / G", "CDECFG"),
        ("C / [1 D / E ]1 / F", "C / [1 D ]1 :| / [2 E ]2 / F", "CDCEF"),
        ("C / [1 D ]1 :| / [ E ]", "C / [1 D ]1 :| / [2 E ]2", "CDCE"),
        (f"C / D / {LEFT_BACKWARD} E", "C / D :| / E", "CDCDE"),
    ],
)
def test_signs_of_one_of_several_parts(first, second, played):
    """The second part doubles the first, so that each note is played twice."""
    both = letters(score(*([bar(b) for b in part.split(" / ")] for part in (first, second))))
    assert both[::2] == both[1::2] == played


MIDDLE = '<barline location="middle"><repeat direction="{}"/></barline>'


def middle(direction: str, first: str, second: str) -> str:
    return note(first, 2) + MIDDLE.format(direction) + note(second, 2)


def test_repeat_signs_in_the_middle_of_a_measure():
    """They divide it: what is before, and what is behind."""
    assert letters(score([bar("C"), middle("backward", "D", "E"), bar("F")])) == "CDCDEF"
    assert letters(score([bar("C"), middle("forward", "D", "E"), bar("F :|"), bar("G")])) == "CDEFEFG"
    held = "<note><pitch><step>C</step><octave>5</octave></pitch><duration>16</duration></note>"
    performance = read(score([middle("backward", "D", "E"), bar("F")], [held, bar("c")]))
    high = [(n.onset, n.duration) for n in performance.notes if n.pitch == 72]
    assert high == [(0, 2), (2, 4), (6, 4)]  # over the sign it sounds on, and is not struck again behind it
    at_edges = [MIDDLE.format("forward") + note("C") + MIDDLE.format("backward"), bar("D")]
    assert letters(score(at_edges)) == "CCD"
    at_edges = [note("C"), MIDDLE.format("forward") + note("D") + MIDDLE.format("backward") + words("D.C.")]
    assert letters(score(at_edges)) == "CDDCD"
    at_edges = [note("C"), MIDDLE.format("forward") + words("D.C.") + note("D") + MIDDLE.format("backward")]
    assert letters(score(at_edges)) == "CDDCD"
    inside = [
        note("C"),
        note("D", 2) + words("Fine") + MIDDLE.format("forward") + note("E", 2),
        note("F") + words("D.C."),
    ]
    assert letters(score(inside)) == "CDEFCD"  # Fine is at the end of the first half


def test_measures_are_divided_with_their_directions():
    """Of two halves the second is loud; the tempo of the second half holds in each pass from there."""
    half = note("C", 2) + MIDDLE.format("forward")
    loud = "<direction><direction-type><dynamics><ff/></dynamics></direction-type></direction>" + note("D", 2)
    performance = read(score([half + loud + '<barline><repeat direction="backward"/></barline>', bar("E")]))
    assert [(n.onset, n.duration, n.pitch, n.velocity) for n in performance.notes] == [
        (0, 2, 60, 80), (2, 2, 62, 112), (4, 2, 62, 112), (6, 4, 64, 112)
    ]  # fmt: skip


SEGNO = "<direction><direction-type><segno/></direction-type></direction>"
CODA = "<direction><direction-type><coda/></direction-type></direction>"


TO_THE_BEGINNING = (
    "D.C.|D. C.|DC|D.C|d.c.|da capo|Da Capo|DA CAPO|da capo.|(D.C.)|D.C. (no repeats)|D.C. senza ripetizione|Da-Capo|"
    "D.C. ad lib.|2nd time D.C.|Menuetto da capo|Dal Capo|after the 2nd ending D.C."
)
NO_INSTRUCTION = (
    "Aria da capo|Live in Washington D.C.|al fine del brano|Finesse|Feeling fine|Coda|Codex|AC/DC|Dal mare|Dolce|dcs|"
    "Coda di Volpe|Da capo aria|The coda of D. Scarlatti|d|To my codas|by D.S.|D.C. 2023|Capo 3|Finale|"
    "No repeats on D.C.|on D.C. only|(2nd time only on D.C.)|before D.C.|senza D.C.|no D.C.|after the Da Capo|D.S. only"
)


@pytest.mark.parametrize("text", TO_THE_BEGINNING.split("|"))
def test_words_that_go_to_the_beginning(text):
    assert letters(score([bar("C"), note("D") + words(text)])) == "CDCD"
    assert letters(score([bar("C"), words(text) + note("D")])) == "CDCD"


@pytest.mark.parametrize("text", NO_INSTRUCTION.split("|"))
def test_words_that_are_no_instruction(text):
    for where in ("C", "D"):
        measures = [words(text) + note(c) if c == where else note(c) for c in "CDE"]
        assert letters(score(measures)) == "CDE"


@pytest.mark.parametrize("text", ["Da Capo", "da capo al fine", "Dal Segno"])
def test_a_title_above_the_first_note_does_not_jump(text):
    performance = read(score([words(text) + note("C"), note("D")]))
    assert len(performance.notes) == 2
    assert left_out(performance) == ["1 text with the words da capo, dal segno or coda inside others"]


@pytest.mark.parametrize(
    "text",
    [
        "D.C. al Fine",
        "D.C. al Fine (omit repeats)",
        "Da capo al fine",
        "D.C.al Fine",
        "D. C. AL FINE",
        "D.C. sin' al Fine",
    ],
)
@pytest.mark.parametrize("end", ["Fine", "FINE", "(Fine)", "fine.", "Fine (last time)", "Fin"])
def test_the_end_by_words(text, end):
    assert letters(score([note("C"), note("D") + words(end), note("E") + words(text)])) == "CDECD"


@pytest.mark.parametrize("text", ["Mine is fine", "Finesse", "al fine del brano", "Feeling Fine Today", "Al Fine"])
def test_other_words_do_not_end(text):
    assert letters(score([note("C"), note("D") + words(text), note("E") + words("D.C.")])) == "CDECDE"


@pytest.mark.parametrize(
    ("jump", "leave", "aim"),
    [
        ("D.S. al Coda", "To Coda", CODA),
        ("D.S. al Coda", "to coda", words("Coda")),
        ("Dal Segno al Coda", "To Coda \U0001d10c", words("CODA:")),
        ("dal segno, poi Coda", "al Coda", CODA),
        ("D. S. al Coda", "Last time to Coda", words("\U0001d10c Coda")),
        ("D.S. \U0001d10b al \U0001d10c", "(To Coda)", CODA),
        ("Del Segno al Coda", "To Coda 1", words("Coda 1")),
        ("D.S. al Coda", "To Coda on D.S.", CODA),
        ("D.S. al Coda", "On D.S. to Coda", CODA),
    ],
)
def test_the_coda_by_words(jump, leave, aim):
    measures = [note("C"), SEGNO + note("D"), note("E") + words(leave), note("F") + words(jump), aim + note("G")]
    assert letters(score(measures)) == "CDEFDEG"
    measures[3] = note("F") + words(*jump.split(" al "))  # in two pieces
    assert letters(score(measures)) == "CDEFDEG"


def test_al_coda_beside_the_jump_is_a_part_of_it():
    """In a direction of its own it would else be the place where the coda is left for."""
    measures = [note("C"), SEGNO + note("D") + CODA, note("E"), note("F") + words("D.S.") + words("al Coda")]
    assert letters(score([*measures, CODA + note("G")])) == "CDEFDG"


def test_the_words_of_a_jump_name_its_end():
    """After "D.C. al Fine" nobody goes to the coda, after "al Coda" nobody ends at Fine; else both count."""

    def piece(jump):
        return letters(
            score([note("C") + words("To Coda"), note("D") + words("Fine"), note("E") + words(jump), CODA + note("F")])
        )

    assert piece("D.C. al Fine") == "CDECD"
    assert piece("D.C. al Coda") == "CDECF"
    assert (
        letters(
            score(
                [
                    note("C") + words("Fine"),
                    note("D") + words("To Coda"),
                    note("E") + words("D.C. al Coda"),
                    CODA + note("F"),
                ]
            )
        )
        == "CDECDF"
    )
    assert letters(score([note("C"), note("D") + words("D.C. al Fine"), note("E")])) == "CDCDE"  # no Fine is there


def test_sounds_come_before_words():
    no = '<sound dacapo="no"/>'
    assert letters(score([note("C"), note("D") + words("D.C.", sound=no)])) == "CD"
    assert letters(score([note("C"), note("D") + words("Aria da capo", sound='<sound dacapo="yes"/>')])) == "CDCD"
    fine = words("The end of the song", sound='<sound fine="yes"/>')
    assert letters(score([note("C") + fine, note("D") + words("", sound='<sound dacapo="yes"/>')])) == "CDC"


def test_words_elsewhere_do_not_jump():
    """Lyrics, credits and rehearsal marks are no instructions."""
    lyric = note("D").replace("</note>", "<lyric><text>da capo</text></lyric></note>")
    mark = "<direction><direction-type><rehearsal>D.C.</rehearsal></direction-type></direction>"
    blob = score([note("C"), lyric, mark + note("E")])
    credit = b'<credit page="1"><credit-words>D.C. al Fine</credit-words></credit><part-list>'
    assert letters(blob.replace(b"<part-list>", credit)) == "CDE"


def test_a_rehearsal_mark_is_an_aim_only():
    mark = "<direction><direction-type><rehearsal>Coda</rehearsal></direction-type></direction>"
    measures = [note("C") + words("To Coda"), note("D") + words("D.C. al Coda"), note("E"), mark + note("F")]
    assert letters(score(measures)) == "CDCF"
    assert letters(score([mark + note("C"), note("D"), mark + note("E") + words("D.C.")])) == "CDECDE"


def test_a_jump_in_one_pass_only():
    """``time-only`` says in which; a D.C. in a section that is repeated waits for its last pass else."""
    jump = words("D.C.", sound='<sound dacapo="yes" time-only="2"/>')
    assert letters(score([bar("|: C"), note("D") + jump + bar(":|"), note("E")])) == "CDCDCDE"
    middle_of = [bar("|: C") + words("D.C. al Fine"), note("D") + words("Fine") + bar(":|"), note("E")]
    assert letters(score(middle_of)) == "CDCCD"


def test_jumps_and_brackets():
    """Brackets that serve a D.C. need no repeat sign; a jump is taken in the last pass through its section."""
    assert letters(score([note("C"), bar("[1 D ]1") + words("D.C."), bar("[2 E ]2"), note("F")])) == "CDCEF"
    assert letters(score([bar("|: C"), note("D") + words("D.C. al Fine") + bar(":|"), note("E")])) == "CDCDCDE"
    first_alone = [bar("C"), bar("[1 D ]1 :|"), bar("E") + words("D.C.")]
    assert letters(score(first_alone)) == "CDCECE"
    three = [bar("C"), bar("[1 D ]1 :|"), bar("[2 E ]2 :|"), bar("[3 F ]3") + words("D.C.")]
    assert letters(score(three)) == "CDCECFCF"


def test_brackets_that_serve_a_later_jump():
    """Without any repeat sign: the first before D.C., the second after it (MuseScore issue 25844, ms3 issue 3)."""
    measures = [note("C"), bar("[1 D ]1"), bar("[2 E ]2") + words("Fine"), note("F") + words("D.C. al Fine")]
    assert letters(score(measures)) == "CDFCE"


def test_of_several_signs_the_nearest():
    measures = [SEGNO + note("C"), note("D") + words("D.S."), SEGNO + note("E"), note("F") + words("D.S."), note("G")]
    assert letters(score(measures)) == "CDCDEFEFG"


def test_what_leads_nowhere_is_said():
    performance = read(score([note("C"), note("D") + words("D.S. al Coda"), note("E")]))
    assert len(performance.notes) == 3
    assert left_out(performance) == ["1 jump to a sign that is not there"]


def test_brackets_that_no_pass_comes_to_are_said():
    performance = read(score([bar("[1,2 C"), bar("[1 |: D"), bar("E")]))
    assert left_out(performance) == ["1 measure under brackets that no pass comes to"]
    typeless = bar("C") + '<barline><ending number="1" type="x"/></barline>'
    assert left_out(read(score([typeless]))) == ["1 ending of which it is not said whether it begins or ends"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("1", {1}), ("1, 2", {1, 2}), ("1.,3.", {1, 3}), ("1-3", {1, 2, 3}), ("1.-3.", {1, 2, 3}), ("2\u20133", {2, 3}),
     ("0", set()), (" ", set()), ("", set()), ("last", set()), ("1 & 2", {1, 2})],
)  # fmt: skip
def test_numbers_of_brackets(text, found):
    assert numbers(text) == found
