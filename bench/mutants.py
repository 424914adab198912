"""Faults put into the code on purpose, one at a time: do the tests notice?

Each of the list ``bench/mutants.toml`` is a line that a careless edit could leave behind, with the test that has to
fail because of it (DeMillo, Lipton and Sayward 1978, "Hints on test data selection"). A fault goes into a copy of the
tree, never into the tree itself. It is *caught* where the test runs and an assertion fails or something raises; a test
that cannot be collected, or that does not end in time, has caught nothing.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import regex

from bench import ROOT, table

LIST = Path(__file__).with_suffix(".toml")
N_FAULTS, MIN_CAUGHT = 43, 41
CAUGHT, MISSED, NOT_APPLIED = "caught", "NOT CAUGHT", "NOT APPLIED"
# What pytest's exit status says: a test that cannot be found or collected says nothing about the fault.
_VERDICTS = {0: MISSED, 1: CAUGHT, 2: "NOT CAUGHT (not collected)", 4: "NOT CAUGHT (no such test)"}
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", "out")


@dataclass(frozen=True)
class Mutant:
    """A fault: ``old``, which stands once in the file ``path``, becomes ``new``. ``test`` are the files or node ids of
    pytest, between spaces, of which one has to fail; ``does`` is a sentence: what the fault does to users."""

    path: str
    old: str
    new: str
    test: str
    does: str

    def apply(self, root: Path) -> bool:
        """Put it into the tree at ``root``; False where ``old`` does not stand there exactly once."""
        file = root / self.path
        text = file.read_text() if file.is_file() else ""
        if text.count(self.old) != 1 or self.new == self.old:
            return False
        file.write_text(text.replace(self.old, self.new))
        return True


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; ``output`` is the end of what pytest said."""

    mutant: Mutant
    verdict: str
    seconds: float = 0.0
    output: str = ""


def mutants(path: Path = LIST) -> list[Mutant]:
    """The list, in its order."""
    return [Mutant(**{key: value.strip("\n") for key, value in one.items()}) for one in _read(path)]


def _read(path: Path) -> list[dict]:
    return tomllib.loads(path.read_text())["mutant"]


def copy_tree(folder: Path) -> Path:
    """Everything of the project that git would keep, as it is now, in a new folder; without git, everything."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        return Path(shutil.copytree(ROOT, folder, ignore=_LEFT_OUT))
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # neither deleted nor another repository
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def run_tests(root: Path, tests: Sequence[str], limit: float, threads: int = 1) -> tuple[int | None, str]:
    """pytest's exit status in the tree at ``root``, None where it did not end within ``limit`` seconds; its words."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # a file changed twice in a second would be taken for the same
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    command.append(f"--basetemp={root}-tests")  # beside the copy, and gone with it
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # what the tests have started ends with them
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
        said.seek(0)
        return code, said.read()[-4000:]


def try_mutant(mutant: Mutant, root: Path, limit: float, threads: int = 1) -> Outcome:
    """Put a fault into the copy at ``root``, run its test, and take it out again."""
    file, began = root / mutant.path, time.monotonic()
    before = file.read_bytes() if file.is_file() else b""
    if not mutant.apply(root):
        return Outcome(mutant, NOT_APPLIED)
    try:
        code, output = run_tests(root, mutant.test.split(), limit, threads)
    finally:
        file.write_bytes(before)
    verdict = f"NOT CAUGHT (not within {limit:.0f} s)" if code is None else _VERDICTS.get(code, f"NOT CAUGHT ({code})")
    return Outcome(mutant, verdict, time.monotonic() - began, output)


def try_all(chosen: Sequence[Mutant], jobs: int, limit: float, say=print) -> list[Outcome]:
    """Each mutant in one of ``jobs`` copies of the tree, in which the tests pass without a fault.

    Raises:
        SystemExit: they do not pass there.
    """
    threads, done = max(1, (os.cpu_count() or 1) // jobs), 0
    with tempfile.TemporaryDirectory(prefix="nextframe-mutants-") as scratch:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for i in range(jobs):
            trees.put(copy_tree(Path(scratch) / f"tree-{i}"))
        root = trees.get()
        say("without a fault")
        tests = sorted({test for mutant in chosen for test in mutant.test.split()})
        code, output = run_tests(root, tests, limit * len(chosen), jobs * threads)
        trees.put(root)
        if code != 0:
            raise SystemExit(f"{output}\nmutants: the tests do not pass without a fault; mend that first")

        def one(mutant: Mutant) -> Outcome:
            nonlocal done
            tree = trees.get()
            try:
                outcome = try_mutant(mutant, tree, limit, threads)
            finally:
                trees.put(tree)
            done += 1
            say(f"{done}/{len(chosen)} {outcome.verdict}: {mutant.path}: {mutant.does} ({outcome.seconds:.0f} s)")
            return outcome

        pool = ThreadPoolExecutor(jobs)
        try:
            return list(pool.map(one, chosen))
        finally:  # Ctrl-C waits for the tests that run, and not for the rest
            pool.shutdown(cancel_futures=True)


def wanting(outcomes: Sequence[Outcome]) -> bool:
    """Whether too many faults went unnoticed (of the whole list more than two; of a part of it, any), or one is about
    code that is no longer there."""
    n_caught = sum(outcome.verdict == CAUGHT for outcome in outcomes)
    needed = MIN_CAUGHT if len(outcomes) == N_FAULTS else len(outcomes)
    return n_caught < needed or any(outcome.verdict == NOT_APPLIED for outcome in outcomes)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at a time")
    parser.add_argument("--only", metavar="REGEX", default="", help="those whose file, text or sentence it is found in")
    parser.add_argument("--list", action="store_true", help="say what there is, and try nothing")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for the test of one fault")
    parser.add_argument("--verbose", action="store_true", help="with what pytest says where a fault is not caught")
    arguments = parser.parse_args(words)
    if arguments.jobs < 1 or not arguments.limit > 0:
        parser.error("--jobs and --limit must be above 0")
    try:
        wanted = regex.compile(arguments.only)
    except regex.error as error:
        parser.error(f"--only {arguments.only}: {error}")
    chosen = [m for m in mutants() if wanted.search(f"{m.path}\n{m.old}\n{m.new}\n{m.does}\n{m.test}")]
    if not chosen:
        parser.error(f"--only {arguments.only}: no fault has that")
    if arguments.list:
        table([(m.does, m.path, m.test.replace(" ", "<br>")) for m in chosen], ("fault", "file", "test"))
        return 0
    began = time.monotonic()
    outcomes = try_all(chosen, arguments.jobs, arguments.limit, lambda text: print(text, file=sys.stderr, flush=True))
    rows = [(o.mutant.does, o.mutant.path, o.verdict, f"{o.seconds:.0f}") for o in outcomes]
    table(rows, ("fault", "file", "", "s"))
    for outcome in outcomes:
        if arguments.verbose and outcome.verdict != CAUGHT:
            print(f"\n{outcome.mutant.path}: {outcome.mutant.does}\n{outcome.output}")
    n_caught = sum(outcome.verdict == CAUGHT for outcome in outcomes)
    print(f"\n{n_caught} of {len(outcomes)} caught, in {(time.monotonic() - began) / 60:.1f} min")
    return int(wanting(outcomes))


if __name__ == "__main__":
    sys.exit(main())
