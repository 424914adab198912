"""Find recordings below a folder, decode what is new into the store (see :mod:`pcm_store`), and open them.

Beside the decoded recordings lies one index per folder of recordings. Size and modification time decide whether a file
is looked at again, its content hash decides whether it is decoded again.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex
import soundfile

from errors import UserError, count
from pcm_store import (
    STORE_VERSION,
    Notices,
    Recording,
    StoreFault,
    read_json,
    store_recording,
    stored,
    sweep_store,
    to_stderr,
    write_json,
)

DIES = "the process that decodes it dies"
GIB = 1 << 30
MAX_REPORTED = 20  # unusable files named on the screen; the report names all

_READABLE = regex.compile(
    r"\.(wave?|wavex|rf64|w64|aif[fc]?|flac|og[ga]|opus|mp[123]|caf|au|snd|voc|sf|ircam|nist|sph"
    r"|paf|svx|8svx|iff|avr|pvf|xi|htk|sds|sd2|mat|wve|mpc2k)$",
    regex.IGNORECASE,
)
_UNREADABLE = regex.compile(r"\.(m4a|m4b|aac|mp4|wma|ape|wv|mka|webm|ac3|dts|ra|amr)$", regex.IGNORECASE)
_PREVIEW = regex.compile(r"(step-\d{7,})\.wav$")


@dataclass(frozen=True)
class Corpus:
    """Usable recordings, sorted by name, the files that could not be used, and those that models ``made``."""

    sample_rate: int
    recordings: tuple[Recording, ...]
    problems: tuple[dict, ...]
    ignored: tuple[str, ...]
    made: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(r.n_samples for r in self.recordings) / self.sample_rate

    @property
    def level(self) -> float:
        """Median RMS of the recordings, full scale 1."""
        return float(np.median([r.rms for r in self.recordings]))

    @property
    def sha256(self) -> str:
        """Of the names and contents of the recordings: the same corpus has the same."""
        lines = "\n".join(f"{r.name}\t{r.sha256}" for r in self.recordings)
        return hashlib.sha256(os.fsencode(lines)).hexdigest()

    def report(self) -> dict:
        """What was read and what was not, as plain JSON values."""
        return {
            "sample_rate": self.sample_rate,
            "n_recordings": len(self.recordings),
            "seconds": round(self.seconds, 3),
            "sha256": self.sha256,
            "level_dbfs": round(20 * float(np.log10(self.level)), 2),
            "recordings": [{"file": r.name, "seconds": r.n_samples / self.sample_rate} for r in self.recordings],
            "unusable": list(self.problems),
            "made_by_models": list(self.made),
            "ignored": list(self.ignored),
        }

    def left_out(self, report) -> Iterator[str]:
        """Lines that say what is not learned from.

        Args:
            report: the file that names all of it.
        """
        for problem in self.problems[:MAX_REPORTED]:
            yield f"not used: {problem['file']}: {problem['reason']}"
        if len(self.problems) > MAX_REPORTED:
            yield f"not used: {count(len(self.problems) - MAX_REPORTED, 'more file')}, see {report}"
        if self.made:
            what = f"{count(len(self.made), 'file')} that models made ({self.made[0]}{', ...' * (len(self.made) > 1)})"
            remedy = "where they should be, copy them without their mark: ffmpeg -i FILE -map_metadata -1 COPY"
            yield f"not used: {what}, see {report}; {remedy}"


@dataclass(frozen=True)
class Found:
    """What is below a folder: recordings to be decoded; other files; files that cannot be used, with the reason; and
    sound that models made, as far as its place tells."""

    files: list[Path]
    ignored: list[str]
    problems: list[dict]
    made: list[str]


def open_corpus(
    folder,
    store,
    sample_rate: int,
    n_workers: int | None = None,
    include="",
    progress=None,
    skip=(),
    channels=1,
    say: Callable[[str], None] = to_stderr,
) -> Corpus:
    """Decode what is new in ``folder`` (any depth; or one file) into ``store``, and open it.

    Args:
        include: a regular expression that the relative path must contain.
        progress: called as ``progress(n_done, n_files, name)``.
        skip: folders that are not looked into, e.g. those of what the models made themselves.
        channels: 1: everything is mixed to mono; 2: to stereo, see :func:`decoding.to_channels`.
        say: told in one line each what has to be decoded again, now or when it is read, and why.

    Raises:
        UserError: no such folder, nothing usable in it, a bad expression, or no room on the disk.
    """
    folder, store = Path(folder), Path(store)
    found = find_recordings(folder, include, [*skip, store])
    problems = found.problems
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(_no_room(store, error.errno, 0)) from None
    sweep_store(store)
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    index_path = store / f"index-{digest}{'-stereo' * (channels == 2)}.json"
    before = read_json(index_path)
    version = [STORE_VERSION, soundfile.__libsndfile_version__]  # another one may read what this did not
    index = before.get("files", {}) if before.get("version") == version else {}
    if not before and index_path.exists():
        say(f"{index_path}: damaged, or of an older version; every recording is looked at again")

    known, fresh, n_gone = {}, [], 0
    for path in found.files:
        name = path.relative_to(folder).as_posix() if path != folder else path.name
        try:
            status = path.stat()
        except OSError as error:
            problems.append({"file": name, "reason": error.strerror or "unreadable"})
            continue
        key = [status.st_size, status.st_mtime_ns]
        entry = index.get(name)
        same = entry and entry["key"] == key
        if same and ("reason" in entry or stored(store, entry["sha256"])):
            known[name] = entry
        else:
            n_gone += bool(same)
            fresh.append((name, os.path.abspath(path), key))
    if n_gone:
        what = f"{store}: of {count(n_gone, 'recording')} what was decoded is missing or damaged"
        say(f"{what}; decoded again")

    done = len(known)
    with contextlib.closing(_decode_all(fresh, str(store), sample_rate, n_workers, channels)) as decoded:
        for name, key, result in decoded:
            known[name] = {"key": key, **result}
            done += 1
            if progress:
                progress(done, len(found.files), name)
    n_died = sum(entry.get("reason") == DIES for entry in known.values())
    if n_died == len(fresh) > 1:
        raise RuntimeError("no decoding process lives; call this below: if __name__ == '__main__'")
    kept = {name: entry for name, entry in known.items() if "passing" not in entry}  # may be read next time
    values = {"version": version, "folder": str(folder), "files": kept}
    if values != before:
        try:
            write_json(index_path, values)
        except OSError as error:
            say(f"{index_path}: cannot be written ({error.strerror}); the next start looks at every recording again")

    made, recordings, seen, notices = [*found.made], [], {}, Notices(say)
    for name in sorted(known):
        entry = known[name]
        if "made" in entry:
            made.append(name)
            continue
        if "reason" in entry:
            problems.append({"file": name, "reason": entry["reason"]})
            continue
        meta = stored(store, entry["sha256"])
        if meta is None:
            problems.append({"file": name, "reason": "what was decoded of it has been removed since"})
            continue
        if entry["sha256"] in seen:  # a copy in both halves of the split would be a leak
            problems.append({"file": name, "reason": f"same content as {seen[entry['sha256']]}; used once"})
            continue
        seen[entry["sha256"]] = name
        pcm = str((store / f"{entry['sha256']}.pcm").absolute())
        checks, source = bytes.fromhex(meta["checks"]), os.path.abspath(folder / name if folder.is_dir() else folder)
        values = (meta[key] for key in ("n_samples", "scale", "rms"))
        recordings.append(
            Recording(name, entry["sha256"], pcm, *values, channels, checks, source, sample_rate, notices)
        )
    if not recordings:
        first = f"; {problems[0]['file']}: {problems[0]['reason']}" if problems else ""
        first = first or f"; {made[0]}: a model made it" * bool(made)
        raise UserError(f"{folder}: no usable recording in it{first}; add WAV, FLAC, OGG or MP3 files")
    problems.sort(key=lambda p: p["file"])
    return Corpus(sample_rate, tuple(recordings), tuple(problems), tuple(found.ignored), tuple(sorted(made)))


def find_recordings(folder: Path, include: str = "", skip=()) -> Found:
    """What is below a folder. What lies in the folder of a run, or is named as a preview and has its picture beside it,
    was made by a model.

    Args:
        skip: folders that are not looked into; of the files in them, those that could be recordings are told as made.

    Raises:
        UserError: no such folder, nothing in it, or a bad expression.
    """
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; give the folder that holds the recordings")
    try:
        wanted = regex.compile(include)
    except regex.error as error:
        raise UserError(f"--include {include!r}: not a regular expression ({error})") from None
    found, visited, skipped = Found([], [], [], []), set(), {os.path.realpath(path) for path in skip}
    if folder.is_file():
        return Found([folder], [], [], [])

    def unreadable(error: OSError):
        name = os.path.relpath(error.filename, folder)
        found.problems.append({"file": name, "reason": error.strerror or "unreadable"})

    for root, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(root)
        if real in visited:  # a link back to a parent
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        own = [root] if real in skipped else []
        if own:
            folders.clear()
            names = []
        elif _is_run(names) and "previews" in folders:
            folders.remove("previews")
            own = [os.path.join(root, "previews")]
        found.made.extend(name for path in own for name in _sounds(path, folder) if wanted.search(name))
        for name in sorted(names):
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            preview = _PREVIEW.match(name)
            if (
                name.startswith(".")
                or not (_READABLE.search(name) or _UNREADABLE.search(name))
                or not wanted.search(relative)
            ):
                found.ignored.append(relative)
            elif preview and f"{preview[1]}.png" in names:
                found.made.append(relative)
            elif reason := _unusable(path):
                found.problems.append({"file": relative, "reason": reason})
            else:
                found.files.append(path)
    if not found.files and not found.problems:
        what = "is empty" if not found.ignored else f"has no recordings among its {count(len(found.ignored), 'file')}"
        what = f"holds only what models made ({count(len(found.made), 'file')})" if found.made else what
        raise UserError(f"{folder}: {what}; add WAV, FLAC, OGG or MP3 files")
    return found


def _sounds(path: str, folder: Path) -> list[str]:
    """Relative to ``folder``, the files at any depth of ``path`` that could be recordings."""
    names = [os.path.join(root, name) for root, _, names in os.walk(path) for name in names if _READABLE.search(name)]
    return [Path(os.path.relpath(name, folder)).as_posix() for name in sorted(names)]


def _is_run(names: list[str]) -> bool:
    """Whether a folder with files of these names is that of a run, see :func:`checkpoint.new_metadata`."""
    return "state.safetensors" in names or {"corpus.json", "lock"} <= set(names)


def _unusable(path: Path) -> str:
    """Why a file cannot be decoded, as far as that is seen from without; nothing where it can."""
    if _UNREADABLE.search(path.name):
        return "format not supported; convert it to FLAC or WAV"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "not a regular file, or a broken link"
    except (FileNotFoundError, NotADirectoryError):
        return "not a regular file, or a broken link"
    except OSError as error:
        return "a link to itself" if error.errno == errno.ELOOP else error.strerror or "unreadable"
    allowed = os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)
    return "" if allowed else "no permission to read it"


# -- several at a time -------------------------------------------------------------------------


def _decode_all(jobs, store: str, sample_rate: int, n_workers: int | None, channels: int = 1):
    """Yield ``(name, key, result)`` for each of ``jobs``, several processes at a time."""
    n_workers = min(n_workers or os.cpu_count() or 1, len(jobs))
    failed = yield from _decode_batch(jobs, store, sample_rate, n_workers, channels)
    while failed:  # a process died and took its pool along: one at a time shows which file it was
        again = yield from _decode_batch(failed, store, sample_rate, 1, channels)
        if len(again) == len(failed):
            name, _, key = again.pop(0)
            yield name, key, {"reason": DIES, "passing": True}
        failed = again


def _decode_batch(jobs, store: str, sample_rate: int, n_workers: int, channels: int):
    """Yield like :func:`_decode_all`; returns the jobs whose process died."""
    if not jobs:
        return []
    failed, left, others = [], {job[1] for job in jobs}, set(multiprocessing.active_children())
    # spawn: forking a process that runs PyTorch's threads can deadlock
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(n_workers, context, _begin_worker, (os.getpid(),))
    try:
        futures = {pool.submit(store_recording, job[1], store, sample_rate, channels): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            name, path, key = futures[future]
            try:
                result = future.result()
                left.discard(path)
                yield name, key, result
            except BrokenProcessPool:
                failed.append(futures[future])
    except StoreFault as fault:
        pool.shutdown(cancel_futures=True)  # what is being decoded may still find its place
        raise UserError(_no_room(Path(store), fault.args[0], _bytes_needed(left, sample_rate, channels))) from None
    except (KeyboardInterrupt, GeneratorExit):  # a recording of hours is not waited for
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:  # nor, on a full disk, are those that have not begun
        pool.shutdown(cancel_futures=True)
        sweep_store(Path(store))
    return failed


def _no_room(store: Path, number: int, needed: int) -> str:
    """What is wrong with a store that cannot be written, and what helps.

    Args:
        needed: bytes of what is still to be decoded.
    """
    reason, elsewhere = os.strerror(number), "give --metadata a place on another disk; what was decoded stays"
    if number in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            needed -= shutil.disk_usage(store).free if number == errno.ENOSPC else 0
        size = max(0.1, -(-10 * needed // GIB) / 10)
        return f"no room for the decoded recordings in {store} ({reason}): free {size:.1f} GiB, or {elsewhere}"
    helps = "raise the limit of file sizes (ulimit -f)" if number == errno.EFBIG else "see to the disk and its rights"
    return f"no room for the decoded recordings in {store}: it cannot be written ({reason}); {helps}, or {elsewhere}"


def _bytes_needed(paths, sample_rate: int, channels: int) -> int:
    """What recordings take up in the store, by their headers."""
    total = 0
    for path in paths:
        with contextlib.suppress(OSError, soundfile.LibsndfileError, TypeError, ZeroDivisionError):
            info = soundfile.info(os.fsencode(path))
            total += round(2 * channels * info.frames * sample_rate / info.samplerate)
    return total


def _begin_worker(parent: int):
    """What a decoding process does first. Ctrl-C goes to the parent, which ends its workers; where the parent is killed
    they end by themselves: on Linux by the kernel (prctl(2)), elsewhere, and where that fails, as soon as the pipe that
    the parent holds is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    if os.getppid() != parent:  # it ended before it could be watched
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
