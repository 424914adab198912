"""Tempo marks, tempo words and percent signs: what holds from where, and what is said to be left out.

Each bar is one whole note; where a bar begins tells the tempo of those before it: at 60 quarters a minute it lasts 4 s.
"""

import pytest

from conftest import run
from score import read
from score.tempi import MAX_TEMPO, MIN_TEMPO
from small_scores import left_out
from test_score_playing_order import note, score, words


def tempo(value: str) -> str:
    return f'<sound tempo="{value}"/>'


def mark(inside: str, sound: str = "") -> str:
    return f"<direction><direction-type><metronome>{inside}</metronome></direction-type>{sound}</direction>"


def unit(kind: str, dots: int = 0) -> str:
    return f"<beat-unit>{kind}</beat-unit>" + "<beat-unit-dot/>" * dots


def tied(kind: str, dots: int = 0) -> str:
    return f"<beat-unit-tied>{unit(kind, dots)}</beat-unit-tied>"


def bpm(text) -> str:
    return f"<per-minute>{text}</per-minute>"


def performance(*before: str):
    """A bar for each, with this XML before its note; the first begins at 60, unless it says something else."""
    return read(score([xml + note("C") for xml in before]))


def tempi(*before: str) -> list[float]:
    """Quarters a minute of each bar but what follows the last."""
    return [pytest.approx(240 / played.duration, rel=1e-6) for played in performance(*before).notes]


@pytest.mark.parametrize(
    "text", ["0", "", " ", "x", "-60", "nan", "inf", "-inf", "0.0", "fast", "1e308", "1e-9", "3.9", "2001"]
)
def test_a_tempo_that_says_nothing_changes_nothing(text):
    """Nor does one that no music has; the user is told of either."""
    played = performance("", tempo(text), "", tempo(text), mark(unit("quarter") + bpm(text)))
    assert [n.onset for n in played.notes] == [0, 4, 8, 12, 16]
    assert sum(int(sentence.split()[0]) for sentence in left_out(played)) == 3
    assert all("tempo mark" in sentence for sentence in left_out(played))


def test_what_is_left_out_is_said_once_for_each_kind():
    played = performance("", tempo("0"), tempo("x"), tempo("9999"))
    assert left_out(played) == [
        "2 tempo marks without a number that can be read",
        f"1 tempo mark outside {MIN_TEMPO:g} to {MAX_TEMPO:g} quarters a minute",
    ]
    assert left_out(performance("", tempo("90"), words("Adagio"))) == []


def test_the_limits_are_played():
    assert tempi(tempo(f"{MIN_TEMPO:g}"), tempo(f"{MAX_TEMPO:g}")) == [MIN_TEMPO, MAX_TEMPO]


def test_a_number_that_says_nothing_leaves_the_others():
    """Of a ``<sound>`` without a number beside it, the metronome mark or the word counts; the first score is at 120."""
    assert tempi("", mark(unit("quarter") + bpm(90), tempo("0"))) == [60, 90]
    assert tempi("", words("Adagio", sound=tempo(""))) == [60, 56]
    assert tempi("", mark(unit("quarter") + bpm("quick"), tempo("80"))) == [60, 80]
    assert left_out(performance("", mark(unit("quarter") + bpm("quick"), tempo("80")))) == []


@pytest.mark.parametrize(
    ("inside", "quarters"),
    [
        (unit("half") + tied("eighth") + bpm(24), 60),
        (unit("quarter") + tied("eighth") + bpm(40), 60),
        (unit("quarter") + tied("eighth", 1) + bpm(40), 70),
        (unit("quarter", 1) + tied("eighth") + bpm(30), 60),
        (unit("quarter") + tied("quarter") + tied("quarter") + bpm(30), 90),
        (unit("eighth", 1) + bpm(120), 90),
        (unit("half", 2) + bpm(20), 70),
        (unit("maxima") + bpm(4), 128),
        (unit("16th") + bpm(400), 100),
        (unit("half") + unit("half") + bpm(40), 80),
        (unit("quarter") + bpm("ca. 90"), 90),
        (unit("quarter") + bpm("c. 90"), 90),
        (unit("quarter") + bpm("c.90"), 90),
        (unit("quarter") + bpm("90-96"), 90),
        (unit("quarter") + bpm("90 \u2013 96"), 90),
        (unit("quarter") + bpm("circa 90.5"), 90.5),
        (unit("quarter") + bpm("90,5"), 90.5),
        (unit("quarter") + bpm("= 90"), 90),
        (unit("quarter") + bpm("(90)"), 90),
    ],
)
def test_metronome_marks(inside, quarters):
    assert tempi("", mark(inside)) == [60, quarters]


def relation(*sides: list[tuple[str, int]]) -> str:
    notes = [
        "".join(
            f"<metronome-note><metronome-type>{kind}</metronome-type>{'<metronome-dot/>' * dots}</metronome-note>"
            for kind, dots in side
        )
        for side in sides
    ]
    return "<metronome-relation>equals</metronome-relation>".join(notes)  # fmt: skip


@pytest.mark.parametrize(
    ("inside", "quarters"),
    [
        (unit("quarter") + unit("quarter", 1), 90),
        (unit("quarter", 1) + unit("quarter"), 40),
        (unit("eighth") + unit("quarter"), 120),
        (unit("quarter") + tied("eighth") + unit("quarter"), 40),
        (unit("quarter") + unit("quarter") + tied("eighth"), 90),
        (unit("quarter") + unit("quarter"), 60),
        (relation([("quarter", 0)], [("quarter", 1)]), 90),
        (relation([("quarter", 0), ("eighth", 0)], [("quarter", 0)]), 40),
        (relation([("quarter", 0)], [("eighth", 0), ("eighth", 0), ("eighth", 0)]), 90),
    ],
)
def test_metric_modulation(inside, quarters):
    """Left at the old tempo is as long as right at the new one."""
    assert tempi("", mark(inside)) == [60, quarters]


def test_a_triplet_in_a_metric_modulation():
    triplet = (
        "<metronome-note><metronome-type>quarter</metronome-type><metronome-tuplet type='start'><actual-notes>3"
        "</actual-notes><normal-notes>2</normal-notes></metronome-tuplet></metronome-note>"
        "<metronome-relation>equals</metronome-relation>"
        "<metronome-note><metronome-type>quarter</metronome-type></metronome-note>"
    )
    assert tempi("", mark(triplet)) == [60, 90]


A_TEMPO = (
    "a tempo|A tempo|(a tempo)|in tempo|a tempo, dolce|Tempo|l'istesso tempo|L\u2019istesso tempo|lo stesso tempo|"
    "im Tempo|a tpo.|sempre a tempo|molto a tempo|Wieder im Tempo|tempo precedente|in time|"
    "dolce, a tempo|subito a tempo|Mouvt|zum Tempo|rit. a tempo"
)
TEMPO_I = (
    "Tempo I|Tempo I.|tempo primo|Tempo 1|Tempo I\u00b0|Tempo 1\u00ba|Tempo 1mo|a tempo primo|come prima|"
    "Tempo come prima|Primo tempo|Tempo 1er|original tempo|tempo originale|Tempo wie zu Anfang|Tempo du d\u00e9but|"
    "Tempo del comienzo"
)
CHANGES = (
    "rit.|Rit.|ritard.|ritardando|rall.|rallentando|accel.|accelerando|poco rit.|molto rall.|string.|allarg.|riten.|"
    "poco a poco accel.|rallentare|ralentissez|en retenant|\u00e9largir|en animant|etwas zur\u00fcckhalten|"
    "breiter werden|dr\u00e4ngend|beschleunigen|slow down|slowing|dim. e rall.|rit. - - -"
)


@pytest.mark.parametrize("back", A_TEMPO.split("|"))
@pytest.mark.parametrize("change", ["rit.", "accel."])
def test_a_tempo(change, back):
    """Back to what was before the change, not to the first tempo."""
    assert tempi("", words("Andante", sound=tempo("80")), words(change, sound=tempo("40")), words(back)) == [
        60,
        80,
        40,
        80,
    ]


@pytest.mark.parametrize("change", CHANGES.split("|"))
def test_words_of_a_change(change):
    assert tempi("", words(change, sound=tempo("40")), words("a tempo")) == [60, 40, 60]
    assert tempi("", words(change), tempo("50"), tempo("40"), words("a tempo")) == [60, 60, 50, 40, 60]
    assert tempi("", words(change), words("a tempo")) == [60, 60, 60]


@pytest.mark.parametrize("back", TEMPO_I.split("|"))
def test_the_first_tempo(back):
    assert tempi("", mark(unit("quarter") + bpm(80)), words("rit.", sound=tempo("40")), words(back)) == [60, 80, 40, 60]


@pytest.mark.parametrize(
    "text",
    [
        "a tempo di valse",
        "Tempo II",
        "Tempo di menuetto",
        "tempo rubato",
        "attempo",
        "un tempo",
        "non a tempo",
        "in tempo rubato",
    ],
)
def test_words_that_are_not_a_tempo(text):
    assert tempi("", words("rit.", sound=tempo("40")), words(text)) == [60, 40, 40]


def test_a_tempo_after_another_tempo():
    """After one that was marked without a change between them, "a tempo" is that; after "meno mosso", or numbers that
    nobody sees, it is the one before them. A number beside it comes first."""
    assert tempi("", mark(unit("quarter") + bpm(120)), words("a tempo")) == [60, 120, 120]
    assert tempi("", words("Adagio", sound=tempo("40")), words("a tempo")) == [60, 40, 40]
    assert tempi("", words("Meno mosso", sound=tempo("40")), words("a tempo")) == [60, 40, 60]
    assert tempi("", tempo("50"), tempo("40"), words("a tempo")) == [60, 50, 40, 60]
    assert tempi(
        "", words("pi\u00f9 mosso", sound=tempo("90")), words("rit.", sound=tempo("50")), words("a tempo")
    ) == [60, 90, 50, 90]
    assert tempi("", words("rit.", sound=tempo("40")), words("a tempo", sound=tempo("70"))) == [60, 40, 70]
    assert tempi(
        "", words("rit.", sound=tempo("40")), words("a tempo"), words("rit.", sound=tempo("30")), words("a tempo")
    ) == [60, 40, 60, 30, 60]


@pytest.mark.parametrize(
    "text", ["senza rit.", "non ritardando", "ohne Zur\u00fcckhaltung", "without slowing", "Adagio"]
)
def test_words_that_are_no_change(text):
    assert tempi("", words(text, sound=tempo("40")), words("a tempo")) == [60, 40, 40]


@pytest.mark.parametrize("text", ["pi\u00f9 lento", "poco meno", "breiter", "Ruhiger", "moins vite", "slower"])
def test_a_tempo_beside_the_one_before(text):
    assert tempi("", words(text, sound=tempo("40")), words("a tempo")) == [60, 40, 60]


def test_free_tempo():
    """It is left by "a tempo"; a number beside the words, or a tempo before them, is the tempo."""
    rit, back = words("rit.", sound=tempo("40")), words("a tempo")
    assert tempi("", words("ad lib."), tempo("30"), back) == [60, 60, 30, 60]
    assert tempi("", words("Andante rubato", sound=tempo("80")), rit, back) == [60, 80, 40, 80]
    assert tempi("", words("Rubato", sound=tempo("80")), rit, back) == [60, 80, 40, 80]


def test_a_tempo_after_a_word_and_after_dashes():
    assert tempi("", words("Allegro"), words("rit.", sound=tempo("40")), words("a tempo")) == [60, 132, 40, 132]
    dashes = words("rit.", sound='<direction-type><dashes type="start"/></direction-type><sound tempo="40"/>')
    stop = '<direction><direction-type><dashes type="stop"/></direction-type></direction>'
    assert tempi("", dashes, stop + words("a tempo")) == [60, 40, 60]


def test_tempo_of_one_part_holds_for_all():
    rit = words("rit.", sound=tempo("30"))
    first, second = ["", rit, ""], ["", "", words("a tempo")]
    for parts in ((first, second), (second, first)):
        played = read(score(*([xml + note("C") for xml in part] for part in parts)))
        assert [n.onset for n in played.notes] == [0, 0, 4, 4, 12, 12]
        assert {n.duration for n in played.notes} == {4, 8}


def test_the_word_in_one_part_and_the_number_in_another():
    first = [note("C"), words("rit.") + note("C"), words("a tempo") + note("C")]
    second = [note("C"), tempo("30") + note("C"), note("C")]
    assert [n.onset for n in read(score(first, second)).notes] == [0, 0, 4, 4, 12, 12]


@pytest.mark.parametrize(
    ("text", "quarters"),
    [
        ("\u2669 = 90", 90),
        ("Andante (\u2669 = ca. 90)", 90),
        ("\u2669. = 60", 90),
        ("\u266a=120", 60),
        ("\U0001d15e = 45", 90),
        ("\U0001d158\U0001d165 = 90", 90),  # head and stem
        ("\ueca5 = 90", 90),  # SMuFL: metNoteQuarterUp, with metAugmentationDot, noteHalfUp
        ("\ueca5\uecb7 = 60", 90),
        ("Allegro (\ue1d3 = 45)", 90),
        ("Allegro ( q = 90 )", 90),  # in a music font
        ("q. = 60", 90),
        ("quarter note = 90", 90),
        ("dotted quarter = 60", 90),
        ("Viertel = ca. 90", 90),
        ("sense = 90", 60),
    ],
)
def test_a_number_in_words(text, quarters):
    assert tempi("", words(text)) == [60, quarters]


# Percent signs


def percent(inside: str, staff: str = "", kind: str = "start", tag: str = "measure-repeat", more: str = "") -> str:
    number = f' number="{staff}"' if staff else ""
    return (
        f'<attributes><measure-style{number}><{tag} type="{kind}"{more}>{inside}</{tag}></measure-style></attributes>'
    )


def on(staff: int, letter: str, quarters: float = 4) -> str:
    xml = (
        note(letter, quarters)
        if letter != "-"
        else f"<note><rest/><duration>{round(4 * quarters)}</duration><voice>1</voice></note>"
    )
    return xml.replace("<voice>1</voice>", f"<voice>{4 * staff - 3}</voice>").replace(
        "</note>", f"<staff>{staff}</staff></note>"
    )


BACK = "<backup><duration>16</duration></backup>"


def two(upper: str, lower: str, before: str = "") -> str:
    """A measure of two staves."""
    return before + on(1, upper) + BACK + on(2, lower)


def bars(*measures: str) -> list[str]:
    """The pitches of each bar, as letters, from low to high."""
    sound = read(score(list(measures))).notes
    pitches = [octave + step for octave in (60, 72) for step in (0, 2, 4, 5, 7, 9, 11)]
    names = dict(zip(pitches, "CDEFGABcdefgab", strict=True))
    out = [""] * len(measures)
    for n in sorted(sound, key=lambda n: (n.onset, n.pitch)):
        out[int(n.onset // 4)] += names[n.pitch]
    return out


START, STOP = percent("1"), percent("", kind="stop")


@pytest.mark.parametrize(
    ("measures", "played"),
    [
        # one stave has it, the other goes on
        ([two("c", "C"), two("-", "D", percent("1", "1")), two("e", "E", percent("", "1", "stop"))], "Cc Dc Ee"),
        ([two("c", "C"), two("d", "-", percent("1", "2")), two("e", "E", percent("", "2", "stop"))], "Cc Cd Ee"),
        ([two("c", "C"), two("-", "-", percent("1", "1") + percent("1", "2")), two("e", "E")], "Cc Cc Ee"),
        ([two("c", "C"), two("-", "D", percent("1", "1")), two("-", "E")], "Cc Dc Ec"),
        ([two("c", "C"), percent("1", "1") + on(2, "D"), percent("", "1", "stop") + on(2, "E")], "Cc Dc E"),
        # without a number it is for both, where nothing is written
        ([two("c", "C"), two("-", "D", START), two("e", "E", STOP)], "Cc Dc Ee"),
        ([two("c", "C"), two("-", "-", START), two("e", "E", STOP)], "Cc Cc Ee"),
        # over several measures
        ([note("C"), note("D"), percent("2"), "", note("E") + STOP], "C D C D E"),
        ([note("C"), note("D"), percent("2"), "", "", "", STOP + note("E")], "C D C D C D E"),
        ([*map(note, "CDEF"), percent("4"), "", "", "", note("G")], "C D E F C D E F G"),
        ([note("C"), note("D"), percent("", more=' slashes="2"'), "", STOP + note("E")], "C D C D E"),
        (
            [two("c", "C"), two("d", "D"), two("-", "E", percent("2", "1")), two("-", "F"), STOP + two("e", "G")],
            "Cc Dd Ec Fd Ge",
        ),
        # the stop
        ([note("C"), percent("1") + STOP, on(1, "-"), note("E")], "C C  E"),
        ([note("C"), percent("1") + on(1, "-") + STOP, on(1, "-"), note("E")], "C C  E"),
        ([note("C"), percent("1") + on(1, "-"), STOP + on(1, "-"), note("E")], "C C  E"),
        ([note("C"), percent("1") + on(1, "-"), note("D"), on(1, "-"), note("E")], "C C D  E"),
        ([note("C"), percent("1"), "", ""], "C C C C"),
        ([note("C"), percent("1"), STOP + percent("1"), STOP + note("D")], "C C C D"),
        ([note("C") + percent("1"), on(1, "-"), STOP + note("D")], "C C D"),
        # notes that are written under it
        ([note("C"), percent("1") + note("C"), STOP + note("D")], "C C D"),
    ],
)  # fmt: skip
def test_percent_signs(measures, played):
    assert bars(*measures) == played.split(" ")


def test_a_percent_sign_with_nothing_before_is_said():
    played = read(score([percent("1") + on(1, "-"), note("C")]))
    assert left_out(played) == ["1 percent sign with nothing before"]


def test_slashes_are_said_where_nothing_is_written():
    slash = percent("", tag="slash")
    assert bars(note("C"), slash + note("D"), note("E")) == ["C", "D", "E"]
    played = read(score([note("C"), slash + on(1, "-"), on(1, "-"), percent("", kind="stop", tag="slash") + note("D")]))
    assert left_out(played) == ["2 measures of slash notation without notes"]
    one_stave = read(score([two("c", "C"), two("-", "D", percent("", "1", tag="slash"))]))
    assert len(one_stave.notes) == 3
    assert left_out(one_stave) == ["1 measure of slash notation without notes"]


def test_a_beat_that_is_repeated():
    """Sixteenths on the first beat, and a sign for the other three; up to its stop, on its stave."""
    beat = percent("<slash-type>quarter</slash-type>", tag="beat-repeat", more=' slashes="1"')
    first = "".join(note(letter, 0.5) for letter in "CD")
    rest = on(1, "-", 3)
    played = read(score([first + beat + rest, note("E") + percent("", kind="stop", tag="beat-repeat")])).notes
    assert [(n.onset, n.duration, n.pitch) for n in played] == [
        *((k / 2, 0.5, (60, 62)[k % 2]) for k in range(8)), (4, 4, 64)
    ]  # fmt: skip
    plain = percent("", tag="beat-repeat")  # a beat of the meter
    stop = percent("", kind="stop", tag="beat-repeat")
    played = read(score([first + plain + on(1, "-", 1) + stop + on(1, "-", 2)])).notes
    assert [n.pitch for n in played] == [60, 62, 60, 62]


def test_predict_says_what_is_not_played(tiny_run, tmp_path):
    """One line for each kind, with the file's name, on stderr."""
    path = tmp_path / "a.musicxml"
    path.write_bytes(score([note("C"), tempo("0") + note("D"), tempo("x") + words("Aria da capo") + note("E")]))
    result = run("predict.py", tiny_run, path, "--frames", 5, "-o", tmp_path / "a.wav")
    assert result.returncode == 0
    assert [line for line in result.stderr.splitlines() if "not played" in line] == [
        f"{path}: not played: 2 tempo marks without a number that can be read",
        f"{path}: not played: 1 text with the words da capo, dal segno or coda inside others",
    ]
