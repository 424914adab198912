"""Faults of the machine under the decoded recordings, and under what a training writes: each is made for real."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import chord
from corpus import open_corpus
from leftovers import is_running, sweep_leftovers, temporary_path
from pcm_store import Lost

RATE = 8000


def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# -- leftovers ---------------------------------------------------------------------------------


def test_leftovers_of_dead_processes_are_swept_and_no_others(tmp_path):
    """By the number in the name: dead, alive, in use again by a process that began after the file was written; a name
    without one stays, and what a pattern does not name."""
    dead, alive = dead_pid(), subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.5)  # it has ended, and nobody has asked
    try:
        gone = [f"a.pcm.{dead}.tmp", f"a.{dead}.part", f"a.b.wav.{dead}.f32.tmp", f"a.7.wav.{dead}.tmp"]
        gone += [f"old.{alive.pid}.tmp", f"old.{os.getpid()}.tmp", f"z.{zombie.pid}.tmp"]
        kept = [f"a.{alive.pid}.tmp", f"a.wav.{alive.pid}.f32.tmp", f"a.{os.getpid()}.tmp", "a.tmp", f"{dead}.tmp"]
        kept += [f"a.{dead}.wav", f"a.{dead}.tmp.wav", f"{dead}", temporary_path(tmp_path / "x").name]
        for name in gone + kept:
            (tmp_path / name).write_bytes(b"half")
        for name in gone[4:6]:
            os.utime(tmp_path / name, (1e9, 1e9))
        (tmp_path / f"folder.{dead}.tmp").mkdir()
        (tmp_path / f"link.{dead}.tmp").symlink_to("nowhere")
        assert sweep_leftovers(tmp_path, "*.f32.tmp") == [tmp_path / gone[2]]
        removed = sweep_leftovers(tmp_path) + sweep_leftovers(tmp_path, "*.part")
        assert {path.name for path in removed} == set(gone) - {gone[2]}
        kept += [f"folder.{dead}.tmp", f"link.{dead}.tmp"]
        assert {path.name for path in tmp_path.iterdir()} == set(kept)
        assert is_running(alive.pid) and is_running(os.getpid()) and not is_running(dead) and not is_running(0)
        assert sweep_leftovers(tmp_path, held=True) and sweep_leftovers(tmp_path / "nowhere") == []
    finally:
        alive.kill()
        alive.wait()
        zombie.wait()


# -- the store, while it is read ---------------------------------------------------------------


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A folder of six recordings of three seconds, stereo."""
    folder = tmp_path_factory.mktemp("tones")
    for i in range(6):
        noise = np.random.default_rng(i).normal(0, 0.02, 3 * RATE)
        waveform = (0.5 + i / 20) * chord(3.0, RATE) + noise
        soundfile.write(folder / f"{i}.wav", np.stack([waveform, 0.7 * waveform[::-1]], 1), RATE)
    return folder


@pytest.fixture
def place(tones, tmp_path):
    """A copy of them, and no store yet."""
    shutil.copytree(tones, tmp_path / "in")
    return tmp_path


def cut_off(path):
    os.truncate(path, 100)


def overwrite(path):
    """Other bytes, of the same number and time."""
    status = path.stat()
    path.write_bytes(np.random.default_rng(0).bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(path):
    """One bit in its middle."""
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)


def prolong(path):
    with open(path, "ab") as file:
        file.write(b"\0" * 1000)


def pipe(path):
    """A pipe that nobody writes to: whoever opens it to read waits for ever."""
    path.unlink()
    os.mkfifo(path)


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def rewritten_with_nothing(path):
    path.write_bytes(b"")


def whole_folder(path):
    shutil.rmtree(path.parent)


DAMAGES = [Path.unlink, cut_off, overwrite, flip, pipe, link_to_itself, rewritten_with_nothing, whole_folder]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_while_it_is_read_is_decoded_again(place, damage, channels):
    """To the same bits, with a line for each; the place is as whole as before, and nothing is left beside it."""
    said = []
    corpus = open_corpus(place / "in", place / "store", RATE, n_workers=1, channels=channels, say=said.append)
    before = [r.read(0, r.n_samples) for r in corpus.recordings]
    files = {p.name: p.read_bytes() for p in (place / "store").iterdir() if p.suffix == ".pcm"}
    for recording in corpus.recordings[:1] if damage is whole_folder else corpus.recordings:
        damage(Path(recording.pcm))
    assert said == []
    for recording, waveform in zip(corpus.recordings, before, strict=True):
        n = recording.n_samples
        np.testing.assert_array_equal(recording.read(n // 2 - 500, 3000), waveform[..., n // 2 - 500 :][..., :3000])
        np.testing.assert_array_equal(recording.read(0, n), waveform)
    assert len(said) == 6 and all("decoded again: " in line and "nothing is lost" in line for line in said)
    assert {p.name: p.read_bytes() for p in (place / "store").glob("*.pcm")} == files
    assert {p.suffix for p in (place / "store").iterdir()} == {".pcm", ".json"}
    assert open_corpus(place / "in", place / "store", RATE, 1, channels=channels, say=said.append) == corpus
    assert len(said) == 6


def test_appended_bytes_are_not_read(place):
    """They are noticed by the next start, in one line; what is read is right meanwhile."""
    said = []
    corpus = open_corpus(place / "in", place / "store", RATE, 1, say=said.append)
    before = corpus.recordings[0].read(0, 3 * RATE)
    prolong(Path(corpus.recordings[0].pcm))
    np.testing.assert_array_equal(corpus.recordings[0].read(0, 3 * RATE), before)
    assert said == []
    assert open_corpus(place / "in", place / "store", RATE, 1, say=said.append) == corpus
    assert len(said) == 1 and "of 1 recording what was decoded is missing or damaged; decoded again" in said[0]


@contextlib.contextmanager
def as_nobody(*folders):
    """Without the rights of root, who may read everything. What lies on the way to ``folders`` may be passed."""
    if os.geteuid() != 0:
        yield
        return
    for folder in folders:
        for parent in [folder, *folder.parents]:
            if not parent.stat().st_mode & 0o001 or not parent.stat().st_mode & 0o004:
                os.chmod(parent, parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_no_permission_to_read_what_was_decoded(place):
    """In a folder that may be written it is decoded again; in one that may not be, it is lost."""
    said = []
    corpus = open_corpus(place / "in", place / "store", RATE, 1, say=said.append)
    one, other = (Path(r.pcm) for r in corpus.recordings[:2])
    before = corpus.recordings[0].read(0, 1000)
    for path in (one, other):
        os.chmod(path, 0)
    os.chmod(place / "store", 0o777)
    with as_nobody(place, place / "in"):
        np.testing.assert_array_equal(corpus.recordings[0].read(0, 1000), before)
    assert len(said) == 1 and "Permission denied" in said[0]
    os.chmod(place / "store", 0o555)
    with as_nobody(place, place / "in"), pytest.raises(Lost) as lost:
        corpus.recordings[1].read(0, 1000)
    assert str(other) in lost.value.reason and "the store cannot be written: Permission denied" in lost.value.reason
    assert "\n" not in str(lost.value)


@pytest.mark.parametrize("case", ["removed", "replaced", "folder removed", "damaged", "a pipe", "longer"])
def test_what_cannot_be_decoded_again_is_lost(place, case):
    """The recording is no longer there, or is another one: its samples are not taken for those of the first."""
    corpus = open_corpus(place / "in", place / "store", RATE, 1)
    recording, source = corpus.recordings[0], place / "in" / "0.wav"
    assert np.abs(recording.read(0, RATE)).max() > 0.01
    if case == "removed":
        source.unlink()
    elif case == "replaced":
        shutil.copy(place / "in" / "1.wav", source)
    elif case == "folder removed":
        shutil.rmtree(place / "in")
    elif case == "damaged":
        flip(source)
    elif case == "a pipe":
        pipe(source)
    else:
        prolong(source)
    assert np.abs(recording.read(0, RATE)).max() > 0.01  # nothing is needed of it
    Path(recording.pcm).unlink()
    with pytest.raises(Lost) as lost:
        recording.read(0, RATE)
    words = {"removed": "No such file", "folder removed": "No such file", "a pipe": "not a regular file"}
    assert words.get(case, "replaced by another one") in lost.value.reason
    assert recording.read(3 * RATE, 10).shape == (10,)  # beyond its end
    assert not list((place / "store").glob("*.tmp")) and not Path(recording.pcm).exists()
