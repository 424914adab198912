"""Where things come from: what each session of train.py ran on, as whoever compares runs must know; and whether an
audio file is a recording, or was made by a model, which none must learn from."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from pathlib import Path

MARK = "nextframe"  # the software that a file names, as libsndfile calls it: ISFT of a WAV file, a comment of FLAC
MAX_SESSIONS = 100  # that the metadata keep: the first, and the last ones


def of_session(corpus_sha256: str, device, threads: int, words: list[str]) -> dict:
    """Plain JSON values.

    Args:
        device: that it computes on.
        threads: of the CPU.
        words: of the command line, as they were typed.
    """
    import torch

    return {
        "from_step": 0,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "threads": threads,
        "corpus_sha256": corpus_sha256,
        "command": shlex.join(["train.py", *words]),
    }


def is_marked(path) -> bool:
    """Whether an audio file says that a model of this project made it; False for what cannot be read."""
    import soundfile

    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            return file.software.split(" ")[0] == MARK  # libsndfile adds its own name
    except (OSError, soundfile.LibsndfileError, TypeError, ValueError):
        return False


def added(sessions: list[dict], session: dict) -> list[dict]:
    """The sessions with one more; of more than :data:`MAX_SESSIONS`, those after the first are forgotten."""
    sessions = [*sessions, session]
    return sessions if len(sessions) <= MAX_SESSIONS else [sessions[0], *sessions[1 - MAX_SESSIONS :]]


def differences(sessions: list[dict], session: dict) -> str:
    """In words, what decides the last bits of a result and was other in the last of ``sessions``; or nothing."""
    before = sessions[-1] if sessions else {}
    names = {"device": "device", "threads": "threads", "torch": "PyTorch", "corpus_sha256": "recordings"}
    other = [words for name, words in names.items() if before.get(name, session[name]) != session[name]]
    return f" (other {', '.join(other)} than before: the same run, but not to the bit)" if other else ""


def commit() -> str | None:
    """The commit of this project's clone, with ``+`` where its files have been changed since; None outside of one."""
    home = Path(__file__).resolve().parent
    describe = ["describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    said = []
    for words in (["rev-parse", "--show-toplevel"], describe):
        try:
            result = subprocess.run(
                ["git", "-C", str(home), *words],
                capture_output=True,
                text=True,
                timeout=10,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if result.returncode != 0:
            return None
        said.append(result.stdout.strip())
    return said[1] if Path(said[0]).resolve() == home else None  # not of a repository that it was unpacked into
