"""The folder of a run: held by one training at a time, and put back where somebody removes it meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from checkpoint import Metadata, write_atomic, write_metadata
from errors import UserError

REPORT = "corpus.json"  # what was read and what was not


class Hold:
    """The run held for this process, see :func:`lock_run`.

    Args:
        path: of the lock.
    """

    def __init__(self, path: Path):
        self.path, self._handle = path, lock_run(path)

    def renew(self) -> bool:
        """Hold the run anew where its folder, or the lock in it, was removed or renamed; whether that was so.

        Raises:
            UserError: another train.py holds it by now.
            OSError: the folder cannot be made.
        """
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._handle.fileno())):
                return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = lock_run(self.path)
        self.close()
        self._handle = handle
        return True

    def close(self):
        """Let it go."""
        self._handle.close()


def lock_run(path: Path):
    """Hold the run for this process: two trainings of one run would overwrite each other."""
    for wait in (0.1, 0.2, 0.0):  # who looks whether the run is held (the studio) holds it for an instant
        handle = open(path, "w")  # noqa: SIM115 - held as long as the run
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(
                os.stat(path), os.fstat(handle.fileno())
            ):  # a training that left no traces may have removed it
                return handle
        handle.close()
        time.sleep(wait)
    raise UserError(f"{path.parent}: another train.py is training this run; stop it first")


def put_back(hold: Hold | None, metadata: Metadata, report: bytes) -> list[Path]:
    """Write folder, lock, ``corpus.json`` and metadata of a run anew, where somebody has removed or renamed them.

    Args:
        report: content of ``corpus.json``.

    Returns:
        the folder and the metadata file, if they were gone.

    Raises:
        UserError: another train.py has begun the run anew.
        OSError: they cannot be written.
    """
    folder = metadata.resolve("state").parent
    gone = [folder] if hold and hold.renew() else []
    if not (folder / REPORT).is_file():
        write_atomic(folder / REPORT, report)
    if not metadata.path.is_file():
        write_metadata(metadata)
        gone.append(metadata.path)
    return gone
