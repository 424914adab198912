"""Temporary files: how they are named, and how those of processes that were killed are removed.

Whatever is written under a temporary name carries the number of its process, ``NAME.PID.tmp`` or ``NAME.PID.KIND.tmp``
beside ``NAME``: whoever finds it can ask whether it is still being written. Numbers are those of this machine: folders
that several machines write into at a time are swept by the machine that wrote last only as far as the numbers tell.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
from pathlib import Path

import regex

CLOCK = 2.0  # s by which the time of a file and that of a process may differ: FAT counts in steps of two seconds
_PID = regex.compile(r"\.(\d{1,10})(?:\.[a-z][a-z0-9]*)*\.(?:tmp|part)$")


def temporary_path(path: Path, kind: str = "") -> Path:
    """Where this process writes what is to become ``path``, in the same folder; ``kind`` tells several apart."""
    return path.with_name(f"{path.name}.{os.getpid()}{'.' * bool(kind)}{kind}.tmp")


def sweep_leftovers(folder: Path, pattern: str = "*.tmp", held: bool = False) -> list[Path]:
    """Remove from ``folder`` what processes that no longer run have left half-written.

    A number may be in use again, by another process: what was last written before that one began is removed as well.
    What cannot be removed stays, as does whatever carries no number.

    Args:
        pattern: a glob of names in ``folder``; in a folder that is not the program's own it must name more than the
            ending.
        held: the caller holds the lock of what is written there: nobody else writes, whatever the number says.

    Returns:
        what was removed.
    """
    removed = []
    for path in sorted(folder.glob(pattern)):
        found = _PID.search(path.name)
        if not found:
            continue
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and (held or not _writes(int(found[1]), status.st_mtime)):
                path.unlink()
                removed.append(path)
    return removed


def is_running(pid: int) -> bool:
    """Whether there is a process of this number, other than one that has ended and whose parent has not asked yet."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    return pid > 0 and _stat(pid)[:1] != ["Z"]


def _writes(pid: int, written: float) -> bool:
    """Whether the process of this number may be the one that wrote a file, last at ``written``, s since 1970."""
    if not is_running(pid):
        return False
    age = _age(pid)
    return age is None or written > time.time() - age - CLOCK


def _stat(pid: int) -> list[str]:
    """What Linux says of a process, from its state on, see proc(5); empty elsewhere."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def _age(pid: int) -> float | None:
    """Seconds since a process began, by proc(5), elsewhere by POSIX's ps; None where neither tells."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        up = float(Path("/proc/uptime").read_text().split()[0])
        return up - int(_stat(pid)[19]) / os.sysconf("SC_CLK_TCK")
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        said = subprocess.run(["ps", "-o", "etime=", "-p", str(pid)], capture_output=True, text=True, timeout=10).stdout
        days, _, clock = said.strip().rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        return 86400.0 * int(days or 0) + sum(part * 60**i for i, part in enumerate(reversed(parts)))
    return None
