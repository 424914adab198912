"""The bench of faults itself: its list does not rot, and its verdicts are true."""

import ast
import subprocess

import pytest

from bench.mutants import (
    CAUGHT,
    MISSED,
    N_FAULTS,
    NOT_APPLIED,
    Mutant,
    Outcome,
    copy_tree,
    main,
    mutants,
    try_mutant,
    wanting,
)
from conftest import ROOT


@pytest.mark.parametrize("mutant", mutants(), ids=lambda m: f"{m.path}: {m.does[:40]}")
def test_the_list_is_about_this_code(mutant, tmp_path):
    """The old text stands once in its file, what becomes of it is Python, and the test that must fail is there."""
    text = (ROOT / mutant.path).read_text()
    assert text.count(mutant.old) == 1
    assert ast.dump(ast.parse(text.replace(mutant.old, mutant.new))) != ast.dump(ast.parse(text))
    assert mutant.does.endswith(".") and "\n" not in mutant.does
    for test in mutant.test.split():
        file, _, name = test.partition("::")
        assert file.startswith("tests/test_") and file.endswith(".py")
        defined = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert not name or name.partition("[")[0] in defined, test


def test_there_are_different_ones_all_over_the_code():
    listed = mutants()
    assert len(listed) == N_FAULTS == len({(m.path, m.old, m.new) for m in listed})
    assert len({m.path for m in listed}) >= 25


def test_verdicts_are_true(tmp_path):
    """Of a file with a test that sees one of its two functions: a fault in that is caught, in the other not; a text
    that stands there twice, or not at all, is not applied; a test that hangs, is not there or cannot be collected
    catches nothing. The tree is as it was after each."""
    (tmp_path / "sound.py").write_text("def seen():\n    return 1\n\n\ndef unseen():\n    return 2\n")
    (tmp_path / "test_sound_of_two.py").write_text(
        "from sound import seen\n\n\ndef test_seen():\n    assert seen() == 1\n"
    )

    def verdict(old: str, new: str, test: str = "test_sound_of_two.py", limit: float = 60.0) -> str:
        before = (tmp_path / "sound.py").read_text()
        outcome = try_mutant(Mutant("sound.py", old, new, test, "It is wrong."), tmp_path, limit)
        assert (tmp_path / "sound.py").read_text() == before
        return outcome.verdict

    assert verdict("return 1", "return 3") == verdict("return 1", "raise ValueError") == CAUGHT
    assert verdict("return 2", "return 3") == MISSED
    assert verdict("return", "pass") == verdict("return 9", "pass") == verdict("return 2", "return 2") == NOT_APPLIED
    assert verdict("return 1", "while True: pass", limit=3.0) == "NOT CAUGHT (not within 3 s)"
    assert verdict("return 1", "return 3", "test_sound_of_two.py::test_other") == "NOT CAUGHT (no such test)"
    assert verdict("def seen", "def scene") == "NOT CAUGHT (not collected)"


def test_too_few_are_a_failure():
    """41 of 43 are enough; 40 are not, nor are 42 and one about code that is gone; of a part of the list, all."""
    mutant = Mutant("a.py", "b", "c", "t.py", "It is wrong.")

    def outcomes(*verdicts: tuple[str, int]) -> list[Outcome]:
        return [Outcome(mutant, verdict) for verdict, n in verdicts for _ in range(n)]

    assert not wanting(outcomes((CAUGHT, 41), (MISSED, 2)))
    assert wanting(outcomes((CAUGHT, 40), (MISSED, 3)))
    assert wanting(outcomes((CAUGHT, 42), (NOT_APPLIED, 1)))
    assert wanting(outcomes((CAUGHT, 3), (MISSED, 1))) and not wanting(outcomes((CAUGHT, 4)))


def test_a_copy_is_the_tree_as_it_is(tmp_path):
    """Every file that git would keep, with its bytes, and none of what it ignores."""
    tree = copy_tree(tmp_path / "tree")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this tree is no clone")
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    assert len(names) > 100 and all((tree / name).read_bytes() == (ROOT / name).read_bytes() for name in names[::7])
    assert not (tree / ".git").exists() and not (tree / ".venv").exists()


def test_it_says_what_there_is(capsys):
    """--list tries nothing; --only takes a part; what nothing has is a mistake."""
    assert main(["--list", "--only", "^checkpoint"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 2 <= len(lines) - 2 < 10 and all("checkpoint.py" in line for line in lines[2:])
    for words in (["--only", "no such fault"], ["--only", "("], ["--jobs", "0"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
