"""What benches of mutated files share: changes of bytes, a child with limits, a loop with a table at its end."""

from __future__ import annotations

import argparse
import collections
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import regex

from bench import ROOT, table

SECONDS = 30  # of processor time
MEMORY = 1 << 30  # bytes beyond what the process has
DONE, LINE = 0, 3  # statuses of a child


def arguments_of(program: str, description: str, n_cases: int) -> argparse.Namespace:
    """``cases`` and ``seed`` from the command line."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--cases", type=int, default=n_cases, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def change_bytes(blob: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut out, doubled, or the end cut off."""
    if not blob:
        return blob
    at, n = chance.randrange(len(blob)), chance.choice([1, 1, 2, 4, 16, 200])
    what = chance.choice([0, 1, 2, 3, 4, 4, 4, 4])
    if what == 0:
        return blob[:at]
    if what == 1:
        return blob[:at] + blob[at + n :]
    if what == 2:
        return blob[: at + n] + blob[at:]
    if what == 3:
        return blob[:at] + chance.randbytes(n) + blob[at + n :]
    return blob[:at] + bytes([blob[at] ^ (1 << chance.randrange(8))]) + blob[at + 1 :]


def outcome_of(work: Callable[[], str | None], good: str) -> tuple[str, str, float]:
    """What becomes of ``work()`` in a forked child with limits: ``good`` where it returns None, "one line" where it
    returns one that says why not, or what must not be; what is said; and its processor seconds."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(_work(work, writer))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status, usage = os.wait4(child, 0)
    status, took = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    if status == DONE:
        return good, "", took
    if status == LINE and said.strip() and "\n" not in said.strip():
        return "one line", said.strip(), took
    if status in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL):
        return "over time", said, took
    return ("several lines" if status == LINE else f"status {status}"), said, took


def _work(work: Callable[[], str | None], writer: int) -> int:
    """In the child: the status that it ends with."""
    if sys.platform.startswith("linux"):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    signal.alarm(20 * SECONDS)  # of the clock, which other programs make longer
    try:
        line = work()
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-2000:])
        return 1
    if line is None:
        return DONE
    os.write(writer, line.encode()[:2000])
    return LINE


def run(
    arguments: argparse.Namespace,
    case: Callable[[random.Random], tuple[str, bytes, Callable[[], str | None]]],
    good: str,
    every: int,
) -> int:
    """Try the cases, print a table and the commonest lines; the exit status: 1 where one ended otherwise.

    Args:
        case: the kind and the content of a case, and what is to be done with it, see :func:`outcome_of`. What ends
            otherwise is kept in ``out/fuzz`` under the kind as its ending.
        every: after so many cases a line says how far it is.
    """
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    reasons, n_bad, slowest = collections.Counter(), 0, 0.0
    for i in range(arguments.cases):
        kind, blob, work = case(random.Random(f"{arguments.seed} {i}"))
        what, said, took = outcome_of(work, good)
        slowest = max(slowest, took)
        counts[kind][what] += 1
        if what == "one line":
            reasons[regex.sub(r"'.*?'|\(.*\)|<.*?>|\d[\d.e+]*", "_", said)] += 1
        elif what != good:
            n_bad += 1
            kept = ROOT / "out" / "fuzz" / f"{arguments.seed}-{i}.{kind}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(blob)
            print(f"case {i}: {what}\n{said}", file=sys.stderr)
        if (i + 1) % every == 0:
            print(f"{i + 1} cases: {dict(sum(counts.values(), collections.Counter()))}", file=sys.stderr)
    outcomes = sorted(set().union(*counts.values()))
    rows = [(kind, sum(c.values()), *(c[o] for o in outcomes)) for kind, c in sorted(counts.items())]
    table(rows, ("kind", "cases", *outcomes))
    for reason, count in reasons.most_common(30):
        print(f"{count} x {reason}")
    print(f"slowest: {slowest:.1f} s; ended otherwise: {n_bad}")
    return 1 if n_bad else 0
