"""What visitors bring and get: under random names, for an hour, in a folder that ends with the studio."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

import regex

from errors import UserError

KEPT = 3600.0  # s
MAX_BYTES = 2 << 30  # of everything; beyond it nothing new is taken
_PREFIX = "nextframe-studio-"
_TOKEN = regex.compile(r"[0-9a-f]{32}")


class Storage:
    """A folder of the studio's own, swept every minute.

    Whoever knows the token of a result may hear it; nobody can guess it, and no list of them is given out.
    """

    def __init__(self, kept: float = KEPT, max_bytes: int = MAX_BYTES):
        self.kept, self.max_bytes = kept, max_bytes
        remove_left_behind()
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        self._lock = _hold(self.root)
        self._results = self.root / "results"
        self._results.mkdir()
        self._closed = threading.Event()
        threading.Thread(target=self._sweep_often, daemon=True).start()

    def new_result(self) -> tuple[str, Path]:
        """A token and its empty folder.

        Raises:
            UserError: the studio keeps too much already.
        """
        self.check_room()
        token = secrets.token_hex(16)
        (self._results / token).mkdir()
        return token, self._results / token

    def new_upload(self) -> Path:
        """An empty folder of a random name."""
        path = self.root / secrets.token_hex(16)
        path.mkdir()
        return path

    def result(self, token: str) -> Path | None:
        """The folder of a token, if it is one and has not been swept."""
        path = self._results / token if _TOKEN.fullmatch(token) else None
        return path if path is not None and path.is_dir() else None

    def check_room(self):
        """Raise UserError where nothing new is taken."""
        if self.size() > self.max_bytes:
            raise UserError("The studio keeps too many results just now; try again in an hour.")

    def size(self) -> int:
        """Bytes of everything."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.stat(os.path.join(folder, name)).st_size
        return total

    def sweep(self):
        """Remove what is older than ``kept`` seconds."""
        for path in [*self.root.iterdir(), *self._results.iterdir()]:
            if path != self._results and path.name != "lock" and time.time() - _last_change(path) > self.kept:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def close(self):
        """Remove everything."""
        if self._closed.is_set():
            return
        self._closed.set()
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)

    def _sweep_often(self):
        while not self._closed.wait(min(60.0, self.kept)):
            with contextlib.suppress(OSError):
                self.sweep()


def remove_left_behind():
    """Remove the folders of studios that were killed."""
    for root in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if root.stat().st_uid == os.getuid() and (root / "lock").exists():
                lock = _hold(root)
                shutil.rmtree(root, ignore_errors=True)
                os.close(lock)


def _hold(root: Path) -> int:
    handle = os.open(root / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _last_change(path: Path) -> float:
    """Of a folder, that of its newest file."""
    times = [0.0]
    for one in [path, *(path.iterdir() if path.is_dir() else [])]:
        with contextlib.suppress(OSError):
            times.append(one.stat().st_mtime)
    return max(times)
