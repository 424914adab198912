"""Scores from strangers: each ends as one clear line, in the child process that predict.py uses."""

import io
import os
import random
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT
from errors import UserError
from prompt import load_prompt
from score import read
from score.performance import BadScore

NOTE = "<note><pitch><step>C</step><octave>4</octave></pitch><duration>{}</duration></note>"


def score(notes: str, head: str = "", attributes: str = "<divisions>1</divisions>") -> str:
    return (
        f'<?xml version="1.0"?>{head}<score-partwise><part-list><score-part id="P1"><part-name>Piano</part-name>'
        f'</score-part></part-list><part id="P1"><measure number="1"><attributes>{attributes}</attributes>{notes}'
        "</measure></part></score-partwise>"
    )


def zipped(**members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr({"container": "META-INF/container.xml"}.get(name, f"{name}.xml"), text)
    return buffer.getvalue()


def leading_to(path: str) -> bytes:
    return zipped(container=f'<container><rootfiles><rootfile full-path="{path}"/></rootfiles></container>')


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "{}"><!ENTITY c "{}">]>'.format("&a;" * 10**3, "&b;" * 10**3)
HOSTILE = {
    "xml bomb": (score("&c;", LAUGHS), "entities"),
    "external entity": (score("&e;", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'), "entities"),
    "parameter entity": (
        score(NOTE.format(1), '<!DOCTYPE x [<!ENTITY % e SYSTEM "http://127.0.0.1/x.dtd">%e;]>'),
        "entities",
    ),
    "zip bomb": (zipped(score=" " * (64 << 20)), "zip bomb"),
    "path outside": (leading_to("../../../../etc/passwd"), "passwd"),
    "absolute path": (leading_to("/etc/passwd"), "passwd"),
    "endless note": (score(NOTE.format(10**12)), r"1e\+12 quarters"),
    "long note": (score(NOTE.format(10**4)), "lasts 5000 s"),
    "a million notes": (score("<note/>" * 10**6), "1000000 notes"),
    "a million times": (
        score(NOTE.format(1) + '<barline><repeat direction="backward" times="1000000"/></barline>'),
        "repeats",
    ),
    "truncated": (score(NOTE.format(1))[:-60], "not XML"),
    "wrong encoding": (score("").replace('"1.0"', '"1.0" encoding="UTF-8"').encode("utf-16"), "no notes"),
    "no such encoding": (score("").replace('"1.0"', '"1.0" encoding="martian"'), "no notes"),
    "binary": (bytes(range(256)) * 64, "not XML"),
    "deep": (score("<x>" * 10**5), "deep"),
    "octave 99": (score(NOTE.replace("4", "99").format(1)), "too low or too high"),
    "nothing": (score("<note><rest/><duration>4</duration></note>"), "no notes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_one_line(case, tmp_path):
    """It names the file and what is wrong, and neither time nor memory had to end it."""
    content, words = HOSTILE[case]
    blob = content.encode() if isinstance(content, str) else content
    path = tmp_path / ("score.mxl" if blob.startswith(b"PK") else "score.musicxml")
    path.write_bytes(blob)
    with pytest.raises(UserError, match=words) as error:
        load_prompt(path, 8000)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < 300
    assert "cannot be read as a score" not in line and "time or memory" not in line


def test_memory_is_bounded():
    """The child refuses itself what is more than 1 GiB, beside the soundfont, and has what numpy and music21 need."""
    code = (
        "from prompt import general_midi; from score.__main__ import limit_resources; limit_resources(general_midi())\n"
        "import numpy, music21.instrument\n"
        "len(bytearray(600 << 20))\n"
        "try: bytearray(1 << 30)\n"
        "except MemoryError: print('refused')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout == "refused\n", result.stderr


def test_a_few_mutated_scores():
    """``bench.fuzz_scores`` runs thousands."""
    from bench.fuzz_scores import mutate, seeds

    outcomes = {"audio": 0, "line": 0}
    originals = seeds()
    for case in range(150):
        chance = random.Random(f"test {case}")
        kind, blob = chance.choice(originals)
        try:
            assert read(mutate(kind, blob, chance)).notes
            outcomes["audio"] += 1
        except BadScore as error:
            assert str(error) and "\n" not in str(error)
            outcomes["line"] += 1
    assert min(outcomes.values()) > 15


def test_namespaces_and_plain_zips():
    """A default namespace, a container without a list, and a byte order mark change nothing."""
    plain = (ROOT / "tests" / "scores" / "chords.musicxml").read_text()
    wanted = read(plain.encode()).notes
    assert read(plain.replace("<score-partwise", '<score-partwise xmlns="http://x/y"').encode()).notes == wanted
    assert read(zipped(chords=plain)).notes == wanted
    assert read(b"\xef\xbb\xbf" + plain.encode()).notes == wanted
    assert read(plain.replace("UTF-8", "UTF-16").encode("utf-16")).notes == wanted
