"""Find, check and decode recordings into a PCM store on disk that is memory-mapped.

The store is a folder of ``<sha256>.pcm`` files (little-endian int16, mono, or stereo with left and right by turns) with
a small ``<sha256>.json`` beside each, and one index per folder of recordings. A file is decoded once: size and
modification time decide whether it is looked at again, its content hash decides whether it is decoded again. Nothing
here holds a recording in memory as a whole.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import stat
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex
import soundfile

from decoding import Unusable, decode
from errors import UserError, count
from leftovers import sweep_leftovers, temporary_path

STORE_VERSION, MIN_SECONDS = 1, 0.1
SILENCE = 1e-4  # peak amplitude below which nothing can be learned: -80 dBFS
DIES = "the process that decodes it dies"

_READABLE = regex.compile(
    r"\.(wave?|wavex|rf64|w64|aif[fc]?|flac|og[ga]|opus|mp[123]|caf|au|snd|voc|sf|ircam|nist|sph"
    r"|paf|svx|8svx|iff|avr|pvf|xi|htk|sds|sd2|mat|wve|mpc2k)$",
    regex.IGNORECASE,
)
_UNREADABLE = regex.compile(r"\.(m4a|m4b|aac|mp4|wma|ape|wv|mka|webm|ac3|dts|ra|amr)$", regex.IGNORECASE)


@dataclass(frozen=True)
class Recording:
    """One decoded recording.

    ``name`` is its path below the folder, ``pcm`` its file in the store, ``scale`` what one PCM
    step is worth, ``rms`` its root mean square (full scale 1).
    """

    name: str
    sha256: str
    pcm: str
    n_samples: int
    scale: float
    rms: float
    channels: int = 1

    def read(self, start: int, n_samples: int) -> np.ndarray:
        """Samples ``start .. start + n_samples``, zeros beyond the end. Float32 ``[n_samples]``, stereo
        ``[2, n_samples]``.

        The file is mapped for this read only: pages touched earlier do not stay in the resident
        memory, and any number of recordings needs no more file handles than one.
        """
        waveform = np.zeros((self.channels, n_samples), dtype=np.float32)
        first, last = max(start, 0), min(start + n_samples, self.n_samples)
        if last > first:
            offset, shape = 2 * self.channels * first, (last - first, self.channels)
            mapped = np.memmap(self.pcm, dtype="<i2", mode="r", offset=offset, shape=shape)
            np.multiply(mapped.T, np.float32(self.scale), out=waveform[:, first - start : last - start])
        return waveform if self.channels > 1 else waveform[0]


@dataclass(frozen=True)
class Corpus:
    """Usable recordings, sorted by name, and the files that could not be used."""

    sample_rate: int
    recordings: tuple[Recording, ...]
    problems: tuple[dict, ...]
    ignored: tuple[str, ...]

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
            "ignored": list(self.ignored),
        }


def open_corpus(
    folder, store, sample_rate: int, n_workers: int | None = None, include="", progress=None, skip=(), channels=1
) -> Corpus:
    """Decode what is new in ``folder`` (any depth; or one file) into ``store``, and open it.

    Args:
        include: a regular expression that the relative path must contain.
        progress: called as ``progress(n_done, n_files, name)``.
        skip: folders that are not looked into, e.g. those of what the models made themselves.
        channels: 1: everything is mixed to mono; 2: to stereo, see :func:`decoding.to_channels`.

    Raises:
        UserError: no such folder, nothing usable in it, a bad expression, or no room on the disk.
    """
    folder, store = Path(folder), Path(store)
    files, ignored, problems = find_recordings(folder, include, [*skip, store])
    store.mkdir(parents=True, exist_ok=True)
    sweep_store(store)
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    index_path = store / f"index-{digest}{'-stereo' * (channels == 2)}.json"
    index = _read_json(index_path)
    version = [STORE_VERSION, soundfile.__libsndfile_version__]  # another one may read what this did not
    index = index.get("files", {}) if index.get("version") == version else {}

    known, fresh = {}, []
    for path in files:
        name = path.relative_to(folder).as_posix() if path != folder else path.name
        status = path.stat()
        key = [status.st_size, status.st_mtime_ns]
        entry = index.get(name)
        if entry and entry["key"] == key and ("reason" in entry or _stored(store, entry["sha256"])):
            known[name] = entry
        else:
            fresh.append((name, str(path), key))

    done = len(known)
    with contextlib.closing(_decode_all(fresh, str(store), sample_rate, n_workers, channels)) as decoded:
        for name, key, result in decoded:
            known[name] = {"key": key, **result}
            done += 1
            if progress:
                progress(done, len(files), name)
    n_died = sum(entry.get("reason") == DIES for entry in known.values())
    if n_died == len(fresh) > 1:
        raise RuntimeError("no decoding process lives; call this below: if __name__ == '__main__'")
    kept = {name: entry for name, entry in known.items() if "passing" not in entry}  # may be read next time
    write_json(index_path, {"version": version, "folder": str(folder), "files": kept})

    recordings, seen = [], {}
    for name in sorted(known):
        entry = known[name]
        if "reason" in entry:
            problems.append({"file": name, "reason": entry["reason"]})
            continue
        meta = _stored(store, entry["sha256"])
        if entry["sha256"] in seen:  # a copy in both halves of the split would be a leak
            problems.append({"file": name, "reason": f"same content as {seen[entry['sha256']]}; used once"})
            continue
        seen[entry["sha256"]] = name
        pcm = str(store / f"{entry['sha256']}.pcm")
        values = (meta[key] for key in ("n_samples", "scale", "rms"))
        recordings.append(Recording(name, entry["sha256"], pcm, *values, channels))
    if not recordings:
        first = f"; {problems[0]['file']}: {problems[0]['reason']}" if problems else ""
        raise UserError(f"{folder}: no usable recording in it{first}; add WAV, FLAC, OGG or MP3 files")
    problems.sort(key=lambda p: p["file"])
    return Corpus(sample_rate, tuple(recordings), tuple(problems), tuple(ignored))


def find_recordings(folder: Path, include: str = "", skip=()) -> tuple[list[Path], list[str], list[dict]]:
    """``(files to decode, other files, files that no decoder here reads)`` below ``folder``."""
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; give the folder that holds the recordings")
    try:
        wanted = regex.compile(include)
    except regex.error as error:
        raise UserError(f"--include {include!r}: not a regular expression ({error})") from None
    files, ignored, problems, visited = [], [], [], {os.path.realpath(path) for path in skip}
    if folder.is_file():
        return [folder], ignored, problems

    def unreadable(error: OSError):
        problems.append({"file": os.path.relpath(error.filename, folder), "reason": error.strerror or "unreadable"})

    for root, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(root)
        if real in visited:  # a link back to a parent, or to be skipped
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            if (
                name.startswith(".")
                or not (_READABLE.search(name) or _UNREADABLE.search(name))
                or not wanted.search(relative)
            ):
                ignored.append(relative)
            elif _UNREADABLE.search(name):
                problems.append({"file": relative, "reason": "format not supported; convert it to FLAC or WAV"})
            elif not path.exists() or not stat.S_ISREG(path.stat().st_mode):
                problems.append({"file": relative, "reason": "not a regular file, or a broken link"})
            elif not os.access(path, os.R_OK):
                problems.append({"file": relative, "reason": "no permission to read it"})
            else:
                files.append(path)
    if not files and not problems:
        what = "is empty" if not ignored else f"has no recordings among its {count(len(ignored), 'file')}"
        raise UserError(f"{folder}: {what}; add WAV, FLAC, OGG or MP3 files")
    return files, ignored, problems


def store_recording(path: str, store: str, sample_rate: int, channels: int = 1) -> dict:
    """Decode ``path`` into the store unless its content is there; ``{"sha256"}`` or ``{"reason"}``."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{STORE_VERSION} {sample_rate} {digest}" + " stereo" * (channels == 2)
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        if not _stored(Path(store), digest):
            _decode_into(path, Path(store), digest, sample_rate, channels)
        return {"sha256": digest}
    except Unusable as error:
        return {"reason": str(error)}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        return {"reason": error.strerror or str(error), "passing": True}


def _decode_into(path: str, store: Path, digest: str, sample_rate: int, channels: int):
    part = temporary_path(store / f"{digest}.pcm")
    scale = 1 / 32767
    try:
        for attempt in range(2):
            n_samples, peak, energy = 0, 0.0, 0.0
            with open(part, "wb") as file:
                for block in decode(path, sample_rate, channels):
                    n_samples += block.shape[-1]
                    peak = max(peak, float(np.abs(block).max()))
                    energy += float(np.square(block, dtype=np.float64).sum())
                    np.rint(np.clip(block / scale, -32767, 32767)).astype("<i2").T.tofile(file)
            if n_samples < MIN_SECONDS * sample_rate:
                raise Unusable(f"only {count(n_samples, 'sample')} long (at least {MIN_SECONDS} s is needed)")
            if peak < SILENCE:
                raise Unusable("it is silent")
            if attempt or 0.25 <= peak <= 1:
                break
            scale = peak / 32767  # very loud or quiet: once more, so that 16 bits are well used
        rms = float(np.sqrt(energy / (channels * n_samples)))
        os.replace(part, store / f"{digest}.pcm")
        meta = {"n_samples": n_samples, "scale": scale, "rms": rms, "peak": peak}
        write_json(store / f"{digest}.json", meta | ({"channels": 2} if channels == 2 else {}))
    finally:
        part.unlink(missing_ok=True)


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
    failed, others = [], set(multiprocessing.active_children())
    # spawn: forking a process that runs PyTorch's threads can deadlock
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(n_workers, context, _ignore_interrupt)
    try:
        futures = {pool.submit(store_recording, job[1], store, sample_rate, channels): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            name, _, key = futures[future]
            try:
                yield name, key, future.result()
            except BrokenProcessPool:
                failed.append(futures[future])
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(f"{store}: no room for the decoded recordings; free some disk space") from None
        raise
    except (KeyboardInterrupt, GeneratorExit):  # a recording of hours is not waited for
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:  # nor, on a full disk, are those that have not begun
        pool.shutdown(cancel_futures=True)
        sweep_store(Path(store))
    return failed


def _ignore_interrupt():
    """Ctrl-C goes to the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def sweep_store(store: Path):
    """Remove what killed processes left half-written."""
    for pattern in ("*.tmp", "*.part"):
        sweep_leftovers(store, pattern)


def write_json(path: Path, value: dict):
    """Write ``value`` so that a reader sees the old file or the new one, never half of one."""
    temporary = temporary_path(path)
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)


def _stored(store: Path, digest: str) -> dict | None:
    meta = _read_json(store / f"{digest}.json")
    pcm = store / f"{digest}.pcm"
    complete = meta and pcm.exists() and pcm.stat().st_size == 2 * meta.get("channels", 1) * meta["n_samples"]
    return meta if complete else None


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
