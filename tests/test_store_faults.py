"""Faults of the machine under the decoded recordings, and under what a training writes: each is made for real."""

import contextlib
import errno
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import regex
import soundfile
import torch

import audio_file
import corpus as corpus_module
import pcm_store
import provenance
import time_budget
import train as train_script
from checkpoint import load_run
from conftest import ROOT, chord, tiny_arguments, wait_for
from corpus import find_recordings, open_corpus
from errors import UserError
from leftovers import is_running, sweep_leftovers, temporary_path
from pcm_store import Lost, StoreFault
from trainer import Trainer

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


@pytest.fixture(scope="module")
def one_step(tones, tmp_path_factory):
    """A folder with them and a run of one step: to begin one takes longer than all that is tried with it."""
    folder = tmp_path_factory.mktemp("one-step")
    shutil.copytree(tones, folder / "in")
    assert train_here(folder / "in", folder / "m.json", "--steps", 1, "--no-preview")[0] == 0
    return folder


@pytest.fixture
def begun(one_step, tmp_path):
    """A copy of it."""
    shutil.copytree(one_step, tmp_path, dirs_exist_ok=True)
    return tmp_path


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


# -- small files of the store ------------------------------------------------------------------

NESTED = b"[" * 100_000  # deeper than a parser goes


def damaged_json(path, case):
    """A file of the store that is there, and is not what was written."""
    values = json.loads(path.read_text())
    blobs = {"empty": b"", "binary": bytes(range(256)), "list": b"[1, 2]", "number": b"7", "null": b"null"}
    blobs |= {"truncated": path.read_bytes()[:40], "nested": NESTED, "object": b"{}", "text": b'"text"'}
    if case == "missing keys":
        values = dict(list(values.items())[1:])
    elif case == "wrong types":
        values = {key: str(value) if isinstance(value, int | float) else [value] for key, value in values.items()}
    elif case == "null values":
        values = dict.fromkeys(values)
    elif case == "another number":
        values = {key: value * 2 if isinstance(value, float) else value for key, value in values.items()}
    path.unlink()
    if case == "folder":
        path.mkdir()
    elif case == "pipe":
        os.mkfifo(path)
    elif case != "missing":
        path.write_bytes(blobs.get(case) or (json.dumps(values).encode() if case not in blobs else b""))


JSON_CASES = ["empty", "binary", "list", "number", "null", "truncated", "nested", "object", "text", "missing keys"]
JSON_CASES += ["wrong types", "null values", "another number", "missing", "pipe"]


@pytest.mark.parametrize("cases", [JSON_CASES[i : i + 5] for i in range(0, len(JSON_CASES), 5)], ids=lambda c: c[0])
def test_damaged_files_of_the_store_are_taken_as_absent(place, cases):
    """What is known of five recordings, each damaged in another way: decoded again, in one line. The index: everything
    is looked at again, and nothing decoded. The corpus is the same to the bit."""
    said = []
    corpus = open_corpus(place / "in", place / "store", RATE, 1, say=said.append)
    (index,) = (place / "store").glob("index-*.json")
    for recording, case in zip(corpus.recordings[1:], cases, strict=True):
        damaged_json(Path(recording.pcm).with_suffix(".json"), case)
        assert pcm_store.read_json(Path(recording.pcm).with_suffix(".json")) == {}
    assert open_corpus(place / "in", place / "store", RATE, 1, say=said.append) == corpus
    assert len(said) == 1 and "of 5 recordings what was decoded is missing or damaged; decoded again" in said[0]
    said.clear()
    damaged_json(index, cases[0])
    times = {path: path.stat().st_mtime_ns for path in (place / "store").glob("*.pcm")}
    assert open_corpus(place / "in", place / "store", RATE, 1, say=said.append) == corpus
    assert len(said) == 1 and said[0].endswith("every recording is looked at again")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert open_corpus(place / "in", place / "store", RATE, 1, say=said.append) == corpus and len(said) == 1


def test_a_folder_in_the_place_of_the_index(place):
    """It cannot be written: said, and the corpus is opened all the same."""
    said = []
    corpus = open_corpus(place / "in", place / "store", RATE, 1, say=said.append)
    (index,) = (place / "store").glob("index-*.json")
    damaged_json(index, "folder")
    assert open_corpus(place / "in", place / "store", RATE, 1, say=said.append) == corpus
    assert len(said) == 2 and "Is a directory" in said[1] and not list((place / "store").glob("*.tmp"))


# -- no room -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 KB; the recordings need twice as much when they are decoded in stereo."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_while_decoding(place, small_disk):
    """One line; what was decoded stays as a whole, is used by the next start, and nothing is half-written."""
    with pytest.raises(UserError) as error:
        open_corpus(place / "in", small_disk / "store", RATE, 2, channels=2)
    line = f"no room for the decoded recordings in {small_disk / 'store'} (No space left on device): free 0.1 GiB"
    assert str(error.value).startswith(line) and "--metadata" in str(error.value) and "\n" not in str(error.value)
    kept = {path.name: path.stat().st_mtime_ns for path in (small_disk / "store").iterdir()}
    sizes = {path.stat().st_size for path in (small_disk / "store").glob("*.pcm")}
    assert 1 <= len(kept) // 2 <= 2 and len(kept) == 2 * len([n for n in kept if n.endswith(".pcm")])
    assert sizes == {4 * 3 * RATE}
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    corpus = open_corpus(place / "in", small_disk / "store", RATE, 2, channels=2)
    assert len(corpus.recordings) == 6 and corpus.problems == ()
    assert {name: (small_disk / "store" / name).stat().st_mtime_ns for name in kept} == kept


def test_a_disk_that_cannot_be_written(place, small_disk):
    """Read-only: refused in one line before and after some of the recordings were decoded; where nothing is new, it is
    good enough."""
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    corpus = open_corpus(place / "in", small_disk / "store", RATE, 1)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    said = []
    assert open_corpus(place / "in", small_disk / "store", RATE, 1, say=said.append) == corpus and said == []
    (place / "in" / "0.wav").rename(place / "in" / "00.wav")
    assert len(open_corpus(place / "in", small_disk / "store", RATE, 1, say=said.append).recordings) == 6
    assert len(said) == 1 and "the next start looks at every recording again" in said[0]
    soundfile.write(place / "in" / "new.wav", chord(2.0, RATE), RATE)
    for store in (small_disk / "store", small_disk / "other"):
        with pytest.raises(UserError) as error:
            open_corpus(place / "in", store, RATE, 1)
        assert f"{store}: it cannot be written (Read-only file system)" in str(error.value)


def test_the_store_is_a_file(place):
    (place / "store").write_text("")
    with pytest.raises(UserError, match=r"store: it cannot be written \(File exists\)"):
        open_corpus(place / "in", place / "store", RATE, 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("when", ["at once", "in the middle", "at the end"])
def test_every_fault_of_the_disk_is_told_from_that_of_a_recording(place, monkeypatch, number, when):
    """In a decoding process; and where it is the recording that cannot be read, that one is not used."""
    original, store = pcm_store._writing, place / "store"
    store.mkdir()
    n_calls, fails_at = itertools.count(), {"at once": 0, "in the middle": 1, "at the end": 2}[when]

    @contextlib.contextmanager
    def failing():
        with original():
            if next(n_calls) == fails_at:
                raise OSError(number, os.strerror(number))
            yield

    monkeypatch.setattr(pcm_store, "_writing", failing)
    with pytest.raises(StoreFault) as fault:
        pcm_store.store_recording(str(place / "in" / "0.wav"), str(store), RATE)
    assert fault.value.args == (number,) and list(store.iterdir()) == []
    assert os.strerror(number) in corpus_module._no_room(store, number, 5 << 30)
    monkeypatch.undo()
    monkeypatch.setattr(pcm_store, "key_of", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    result = pcm_store.store_recording(str(place / "in" / "0.wav"), str(store), RATE)
    assert result == {"reason": os.strerror(number), "passing": True}


def test_the_room_that_is_missing_is_named(place):
    """6 x 3 s in stereo at 8 kHz are 288,000 bytes; of a quota, the free bytes of the disk say nothing."""
    paths = [*map(str, sorted((place / "in").iterdir())), str(place / "gone.wav")]
    assert corpus_module._bytes_needed(paths, RATE, 2) == 6 * 3 * RATE * 4
    free = shutil.disk_usage(place).free
    assert "free 5.0 GiB" in corpus_module._no_room(place, errno.EDQUOT, 5 << 30)
    assert "free 2.0 GiB" in corpus_module._no_room(place, errno.ENOSPC, free + (2 << 30) - (50 << 20))


# -- while a training runs ---------------------------------------------------------------------


def train_here(recordings, metadata, *arguments, at=None) -> tuple[int, str]:
    """Status and stderr of a tiny training in this process.

    Args:
        at: ``{step: what is called right before it}``.
    """
    words, original = [recordings, "--metadata", metadata, *tiny_arguments(), "--threads", 1], Trainer.train_step
    at = {**(at or {})}

    def step(self):
        at.pop(self.step, lambda: None)()
        return original(self)

    with contextlib.redirect_stderr(io.StringIO()) as said, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        status = train_script.main([str(word) for word in [*words, *arguments]])
    assert not at, "a step that was not reached"
    return status, said.getvalue()


def weights(metadata):
    return load_run(metadata)[1].tensors


def test_a_training_whose_store_is_lost_is_the_same_to_the_bit(one_step, begun):
    """Files are deleted, cut off and changed while it runs, then the whole folder, then it is resumed without it."""
    place = begun / "broken"
    shutil.copytree(one_step, place)
    assert train_here(begun / "in", begun / "m.json", "--steps", 12, "--no-preview")[0] == 0
    store = place / "pcm-8000"

    def damaged():
        for path, damage in zip(sorted(store.glob("*.pcm")), itertools.cycle([Path.unlink, cut_off, flip])):
            damage(path)

    at = {2: damaged, 5: lambda: shutil.rmtree(store)}
    status, said = train_here(place / "in", place / "m.json", "--steps", 9, "--no-preview", at=at)
    assert status == 0 and said.count("decoded again: ") >= 6 and "not used" not in said.replace("0 not used", "")
    for word in (f"({store}", ": cut off)", ": damaged)", ": No such file or directory)"):
        assert word in said
    shutil.rmtree(store)
    assert train_here(place / "in", place / "m.json", "--steps", 12, "--no-preview")[0] == 0
    one, other = weights(begun / "m.json"), weights(place / "m.json")
    assert set(one) == set(other) and [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_training_goes_on_without_what_is_lost(begun):
    """As one that never had it: from there on, the order is that of the recordings that are left."""
    store = begun / "pcm-8000"

    def lost():
        (begun / "in" / "0.wav").unlink()
        (begun / "in" / "3.wav").unlink()
        shutil.rmtree(store)

    status, said = train_here(begun / "in", begun / "m.json", "--steps", 8, at={3: lost})
    gone = [line for line in said.splitlines() if line.startswith("not used any more: ")]
    assert status == 0 and "Traceback" not in said
    names = [line.split(": ")[1] for line in gone]
    assert names and len(set(names)) == len(names) and set(names) <= {"0.wav", "3.wav"}
    assert all("cannot be decoded again: No such file or directory" in line for line in gone)
    assert load_run(begun / "m.json")[1].info["step"] == 8
    status, said = train_here(begun / "in", begun / "m.json", "--steps", 9, "--no-preview")
    assert status == 0 and "resumed at step 8 (other recordings than before" in said


def test_a_training_that_loses_everything_saves_and_stops(begun):
    """One line, non-zero exit; the steps until then are saved, and go on once the recordings are back."""
    moved = begun / "elsewhere"

    def lost():
        (begun / "in").rename(moved)
        shutil.rmtree(begun / "pcm-8000")

    status, said = train_here(begun / "in", begun / "m.json", "--steps", 8, at={4: lost})
    last = said.splitlines()[-1]
    assert (
        status == 1 and last.startswith("train.py: ") and "none of its recordings" in last and "Traceback" not in said
    )
    assert "step 4 is saved" in last and load_run(begun / "m.json")[1].info["step"] == 4
    moved.rename(begun / "in")
    assert train_here(begun / "in", begun / "m.json", "--steps", 5, "--no-preview")[0] == 0


def test_the_recordings_are_not_needed_once_they_are_decoded(begun):
    at = {1: lambda: shutil.rmtree(begun / "in")}
    status, said = train_here(begun / "in", begun / "m.json", "--steps", 3, at=at)
    assert status == 0 and "not used any more" not in said and "decoded again" not in said


def test_a_disk_that_is_full_while_a_training_runs(place, small_disk, monkeypatch):
    """A save that finds no room costs that save: the state before stays, and the training goes on without its log, or
    without a preview; at the end, or at the start, it is one line and a non-zero exit."""
    monkeypatch.setattr(time_budget, "SHARE", 1e6)
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    filler, metadata, original = small_disk / "filler", small_disk / "m.json", Trainer.held_out_loss

    def fill():
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while file.write(bytes(1 << 12)):
                pass

    def fill_and_measure(self, *arguments, **keywords):
        fill()
        return original(self, *arguments, **keywords)

    def trained(*words, **keywords):
        status, said = train_here(place / "in", metadata, *words, **keywords)
        assert "Traceback" not in said and not list(small_disk.rglob("*.tmp"))
        return status, said

    assert trained("--steps", 2, "--no-preview")[0] == 0
    status, said = trained("--steps", 6, "--save-every", 1e-4, "--no-preview", at={3: fill, 5: filler.unlink})
    assert status == 0 and load_run(metadata)[1].info["step"] == 6
    assert regex.search(r"state.safetensors: not saved \(No space left on device\); the state of step \d stays", said)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "held_out_loss", fill_and_measure)
        status, said = trained("--steps", 7)
    assert status == 0 and load_run(metadata)[1].info["step"] == 7
    assert "step-0000007: no preview (No space left on device)" in said
    assert said.count("training goes on without its log") == 1
    filler.unlink()
    for at in ({8: fill}, {}):  # the second one finds a full disk at its start
        status, said = trained("--steps", 9, "--no-preview", at=at)
        last = said.splitlines()[-1]
        assert status == 1 and last.startswith("train.py: ") and "No space left on device" in last
        assert load_run(metadata)[1].info["step"] == 7


@pytest.mark.parametrize("container, bits", [("wav", 16), ("wav", 24), ("wav", 32), ("flac", 16)])
@pytest.mark.parametrize("seconds", [1.5, 9.0])
def test_a_file_of_sound_on_a_full_disk(small_disk, container, bits, seconds):
    """Full while the floats are kept (9 s), or when they become the file (1.5 s, twice 48 KB and what fills the rest):
    one line; neither a file nor a part of one stays, and one that was there is what it was."""
    path = small_disk / f"out.{container}"
    path.write_bytes(b"what was there")
    (small_disk / "filler").write_bytes(bytes(120_000))
    form = audio_file.AudioFormat(container, bits, RATE, 1)
    with pytest.raises(UserError) as error, audio_file.AudioFile(path, form, RATE) as file:
        file.write(np.random.default_rng(0).uniform(-0.5, 0.5, int(seconds * RATE)).astype(np.float32))
        with open(small_disk / "filler", "ab", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        file.finish()
    assert str(error.value).startswith(f"{path}: cannot be written (") and "free some disk space" in str(error.value)
    assert {p.name for p in small_disk.iterdir()} == {path.name, "filler"} and path.read_bytes() == b"what was there"


# -- processes that are killed -----------------------------------------------------------------


def test_decoding_processes_end_with_their_parent(tmp_path):
    """kill -9 in the middle of a long recording: within seconds there is no process left; the next start removes what
    they left half-written, and goes on."""
    noise = np.random.default_rng(0).normal(0, 0.1, (10 * 44100, 2))
    for i in range(2):
        with soundfile.SoundFile(tmp_path / f"{i}.flac", "w", 44100, 2) as file:
            for _ in range(15):
                file.write(np.roll(noise, i))
    command = [sys.executable, "train.py", tmp_path, "--metadata", tmp_path / "m.json", *tiny_arguments()]
    process = subprocess.Popen([str(word) for word in command], cwd=ROOT, stderr=subprocess.DEVNULL)
    store = tmp_path / "pcm-8000"
    try:
        wait_for(lambda: len([path for path in store.glob("*.pcm.*.tmp") if path.stat().st_size]) == 2)
        workers = [int(path.name.split(".")[-2]) for path in store.glob("*.pcm.*.tmp")]
        assert all(is_running(pid) for pid in workers) and process.pid not in workers
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(is_running(pid) for pid in workers), timeout=10)
    assert len(list(store.glob("*.tmp"))) == 2
    assert len(open_corpus(tmp_path, store, RATE).recordings) == 2
    assert not list(store.glob("*.tmp"))


WATCHED = """
import corpus, ctypes, multiprocessing, os, sys, time
del ctypes.CDLL  # as where there is no prctl
def work(parent, file):
    corpus._begin_worker(parent)
    open(file, "w").write(str(os.getpid()))
    time.sleep(60)
if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work, args=(os.getpid(), sys.argv[1])).start()
    time.sleep(60)
"""


def test_the_portable_watch_of_the_parent(tmp_path, monkeypatch):
    """Without the kernel's help: the pipe that the parent holds."""
    (tmp_path / "watched.py").write_text(WATCHED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, tmp_path / "watched.py", tmp_path / "pid"], env=environment)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_running(pid), timeout=10)


# -- what models made --------------------------------------------------------------------------


def made_by_a_model(path, bits=16):
    """A file as predict.py writes it."""
    form = audio_file.AudioFormat(path.suffix[1:], bits, RATE, 1)
    with audio_file.AudioFile(path, form, RATE) as file:
        file.write(chord(2.0, RATE) * (1 - bits / 100))
        file.finish()


def test_what_models_made_is_not_learned_from(place):
    """Beside the recordings: what predict.py wrote, in each format; the previews of this run and of another one, which
    were copied elsewhere too; old ones, which have no mark, by their name and picture, or since they are a run's. One
    line says how many, and how they are taken in all the same."""
    recordings, metadata = place / "in", place / "in" / "m.json"
    assert train_here(recordings, metadata, "--steps", 2)[0] == 0
    preview = recordings / "m" / "previews" / "step-0000002.wav"
    assert soundfile.info(preview).duration > 6 and provenance.is_marked(preview)
    for name, bits in (("a-next.wav", 16), ("b-next.wav", 24), ("c-next.wav", 32), ("d-next.flac", 24)):
        made_by_a_model(recordings / name, bits)
        assert provenance.is_marked(recordings / name)
    shutil.copy(preview, recordings / "renamed.wav")
    other, old = recordings / "metadata" / "x", recordings / "old"
    (other / "previews").mkdir(parents=True)
    old.mkdir()
    soundfile.write(other / "previews" / "step-0000100.wav", chord(2.5, RATE), RATE)
    (other / "state.safetensors").touch()
    soundfile.write(other / "take 1.wav", chord(2.6, RATE), RATE)  # the folder is a run's, and this is no preview
    soundfile.write(old / "step-0000007.wav", chord(2.7, RATE), RATE)
    (old / "step-0000007.png").touch()
    soundfile.write(old / "step-1.wav", chord(2.8, RATE), RATE)  # a name that previews do not have
    status, said = train_here(recordings, metadata, "--steps", 3, "--no-preview")
    report = json.loads((recordings / "m" / "corpus.json").read_text())
    names = [f"{i}.wav" for i in range(6)] + ["metadata/x/take 1.wav", "old/step-1.wav"]
    assert status == 0 and [r["file"] for r in report["recordings"]] == sorted(names)
    made = ["a-next.wav", "b-next.wav", "c-next.wav", "d-next.flac", "m/previews/step-0000002.wav"]
    made += ["metadata/x/previews/step-0000100.wav", "old/step-0000007.wav", "renamed.wav"]
    assert report["made_by_models"] == made
    (line,) = [line for line in said.splitlines() if "models made" in line]
    assert line.startswith("not used: 8 files that models made (a-next.wav, ...)") and "-map_metadata -1" in line
    if shutil.which("ffmpeg"):
        for name, copy in (("b-next.wav", "copy.wav"), ("d-next.flac", "copy.flac")):
            command = ["ffmpeg", "-loglevel", "error", "-i", recordings / name, "-map_metadata", "-1", place / copy]
            subprocess.run(command, check=True)
            assert not provenance.is_marked(place / copy)


def test_only_what_models_made(tmp_path):
    made_by_a_model(tmp_path / "a.wav")
    with pytest.raises(UserError, match=r"no usable recording in it; a.wav: a model made it"):
        open_corpus(tmp_path, tmp_path / "store", RATE, 1)
    with pytest.raises(UserError, match=r"no usable recording in it; a.wav: a model made it"):
        open_corpus(tmp_path / "a.wav", tmp_path / "store", RATE, 1)
    (tmp_path / "a.wav").rename(tmp_path / "step-0000001.wav")
    (tmp_path / "step-0000001.png").touch()
    with pytest.raises(UserError, match=r"holds only what models made \(1 file\)"):
        open_corpus(tmp_path, tmp_path / "store", RATE, 1)


def test_a_run_that_is_named_as_the_folder_of_its_recordings(place):
    """``in.json`` beside ``in/``: the run's files lie among the recordings, which are learned from all the same."""
    for n in (1, 2):
        status, said = train_here(place / "in", place / "in.json", "--steps", n)
        assert status == 0 and "corpus: 6 recordings" in said
    assert "not used: 1 file that models made (previews/step-0000001.wav)" in said


# -- names, links and rights -------------------------------------------------------------------


def test_names_that_are_no_text_and_links_to_nowhere(place):
    """Line breaks, commands of a terminal, bytes that are no UTF-8: learned from, previewed and reported in lines of
    their own. Links to themselves and in circles, pipes and folders named as recordings: not waited for."""
    recordings = place / "in"
    (recordings / "0.wav").rename(recordings / "new\nline\x1b[31m.wav")
    os.rename(recordings / "1.wav", os.fsencode(recordings) + b"/caf\xe9\r.wav")
    (recordings / "bad\nname.wav").write_text("x")
    os.symlink("self.wav", recordings / "self.wav")
    os.symlink("ring-b", recordings / "ring-a")
    os.symlink("ring-a", recordings / "ring-b")
    (recordings / "deep").mkdir()
    os.symlink("..", recordings / "deep" / "up")
    os.symlink("../deep", recordings / "deep" / "round")
    os.symlink("missing.wav", recordings / "gone.wav")
    os.mkfifo(recordings / "pipe.wav")
    (recordings / "folder.wav").mkdir()
    status, said = train_here(recordings, place / "m.json", "--steps", 2, "--set", "training.hold_out=0.9")
    assert status == 0 and "Traceback" not in said and "\x1b" not in said and "\r" not in said, said
    unused = [line for line in said.splitlines() if line.startswith("not used: ")]
    assert sorted(line.split(": ")[1] for line in unused) == ["bad\\nname.wav", "gone.wav", "pipe.wav", "self.wav"]
    assert "not used: self.wav: a link to itself" in said and "corpus: 6 recordings" in said
    report = json.loads((place / "m" / "corpus.json").read_text())
    names = {os.fsencode(r["file"]) for r in report["recordings"]}
    assert {b"caf\xe9\r.wav", b"new\nline\x1b[31m.wav"} <= names
    assert list((place / "m" / "previews").glob("*.png"))


def test_a_folder_that_is_a_link_to_itself(tmp_path, capsys):
    os.symlink("loop", tmp_path / "loop")
    assert train_script.main([str(tmp_path / "loop"), "--steps", "1"]) == 1
    assert capsys.readouterr().err.strip().endswith("loop: no such folder; give the folder that holds the recordings")
    assert train_script.main([str(tmp_path / "a\nb"), "--steps", "1"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_recordings_and_folders_without_permission(place):
    """Told with their reasons; the rest is used."""
    (place / "in" / "closed").mkdir()
    (place / "in" / "no-entry").mkdir()
    for folder in ("closed", "no-entry"):
        shutil.copy(place / "in" / "5.wav", place / "in" / folder / "6.wav")
    os.chmod(place / "in" / "0.wav", 0)
    os.chmod(place / "in" / "closed", 0)
    os.chmod(place / "in" / "no-entry", 0o444)
    with as_nobody(place / "in"):
        found = find_recordings(place / "in")
    reasons = {p["file"]: p["reason"] for p in found.problems}
    assert reasons == {
        "0.wav": "no permission to read it",
        "closed": "Permission denied",
        "no-entry/6.wav": "Permission denied",
    }
    assert [path.name for path in found.files] == [f"{i}.wav" for i in range(1, 6)]
    for folder in ("closed", "no-entry"):
        os.chmod(place / "in" / folder, 0o755)


def test_recordings_that_are_replaced_between_two_starts(place):
    """By one of the same size, and by one that is gone when it is to be read: the samples are those of the new one."""
    first = open_corpus(place / "in", place / "store", RATE, 1)
    (place / "in" / "0.wav").unlink()
    (place / "in" / "1.wav").unlink()
    soundfile.write(place / "in" / "0.wav", np.stack([chord(3.0, RATE)] * 2, 1), RATE)
    second = open_corpus(place / "in", place / "store", RATE, 1)
    assert [r.name for r in second.recordings] == ["0.wav", "2.wav", "3.wav", "4.wav", "5.wav"]
    assert np.abs(second.recordings[0].read(0, RATE) - chord(1.0, RATE)).max() < 1e-3
    assert first.recordings[2] == second.recordings[1] and first.sha256 != second.sha256


def test_a_recording_that_changes_while_it_is_decoded(place, monkeypatch):
    """Its samples are not taken for those of either; it is decoded the next time."""
    original, path = pcm_store.decode, place / "in" / "0.wav"

    def growing(*arguments):
        yield from original(*arguments)
        prolong(path)

    (place / "store").mkdir()
    monkeypatch.setattr(pcm_store, "decode", growing)
    result = pcm_store.store_recording(str(path), str(place / "store"), RATE)
    assert result == {"reason": "it was changed while it was read", "passing": True}
    assert list((place / "store").iterdir()) == []
