"""Measurements that take time or depend on the machine: run one with ``python -m bench.NAME``."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table(rows: list[tuple], header: tuple):
    """Print rows under a header, as Markdown."""
    for row in [header, tuple("---" for _ in header), *rows]:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def add_overrides(parser):
    """``--set KEY=VALUE`` as of train.py."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="as of train.py"
    )


def override_words(overrides: list[str]) -> list[str]:
    """The same for train.py's command line."""
    return [word for value in overrides for word in ("--set", value)]


def start(*arguments, **keywords) -> subprocess.Popen:
    """A script of the project, in the background."""
    return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, **keywords)


def median_seconds(call, n: int = 5) -> float:
    """Median wall time of ``n`` calls."""
    seconds = []
    for _ in range(n):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process and its children, in MB."""
    import psutil

    total = 0
    try:
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return 0.0
    return total / 1e6


def wait_until(condition, timeout: float, poll=lambda: None, every: float = 0.05) -> float:
    """Seconds until ``condition()`` holds; ``poll`` is called meanwhile.

    Raises:
        TimeoutError: it did not hold in time.
    """
    begin = time.monotonic()
    while not condition():
        poll()
        if time.monotonic() - begin > timeout:
            raise TimeoutError(f"waited {timeout} s in vain (pid {os.getpid()})")
        time.sleep(every)
    return time.monotonic() - begin
