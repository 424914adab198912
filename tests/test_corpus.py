"""Finding, checking, decoding and storing recordings."""

import multiprocessing
import os
import shutil

import numpy as np
import pytest
import soundfile

import corpus as corpus_module
from conftest import chord
from corpus import open_corpus
from errors import UserError

RATE = 22050
FORMATS = [
    ("a.wav", "WAV", "PCM_16"),
    ("b.wav", "WAV", "FLOAT"),
    ("c.wav", "WAV", "PCM_24"),
    ("d.aiff", "AIFF", "PCM_16"),
    ("e.flac", "FLAC", "PCM_24"),
    ("f.ogg", "OGG", "VORBIS"),
    ("g.opus", "OGG", "OPUS"),
    ("h.mp3", "MP3", None),
    ("i.caf", "CAF", "PCM_16"),
    ("j.w64", "W64", "PCM_16"),
    ("k.au", "AU", "PCM_16"),
    ("l.rf64", "RF64", "PCM_16"),
]


def spectrum_db(waveform, frequency):
    """Level of one frequency in dB, full scale 0."""
    window = np.hanning(len(waveform))
    t = np.arange(len(waveform)) / RATE
    amplitude = 2 * abs((waveform * window * np.exp(-2j * np.pi * frequency * t)).sum()) / window.sum()
    return 20 * np.log10(amplitude + 1e-12)


@pytest.mark.parametrize("rate, n_channels", [(8000, 1), (48000, 2), (44100, 6), (44099, 2), (96000, 1)])
def test_any_rate_and_channel_count(tmp_path, rate, n_channels):
    t = np.arange(2 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 1000 * t)
    soundfile.write(tmp_path / "x.wav", np.repeat(tone[:, None], n_channels, axis=1), rate, subtype="PCM_16")
    corpus = open_corpus(tmp_path / "x.wav", tmp_path / "store", RATE, n_workers=1)
    recording = corpus.recordings[0]
    assert abs(recording.n_samples - 2 * RATE) <= 2
    waveform = recording.read(RATE // 2, RATE)
    assert abs(spectrum_db(waveform, 1000) - 20 * np.log10(0.5)) < 0.1
    assert abs(recording.rms - 0.5 / np.sqrt(2)) < 0.005


def test_every_format_at_any_depth(tmp_path):
    folder = tmp_path / "in"
    wave = chord(1.0, 48000)
    for i, (name, container, subtype) in enumerate(FORMATS):
        path = folder / f"depth{i % 4}" / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave * (1 - i / 100), 48000, format=container, subtype=subtype)
    (folder / "notes.txt").write_text("hello")
    (folder / "song.m4a").write_bytes(b"\0" * 100)
    corpus = open_corpus(folder, tmp_path / "store", RATE)
    assert len(corpus.recordings) == len(FORMATS), corpus.problems
    for recording in corpus.recordings:
        assert abs(recording.n_samples - RATE) < 0.06 * RATE, recording.name  # codecs pad
        assert abs(spectrum_db(recording.read(4000, 8000), 220) - spectrum_db(chord(1.0, RATE)[4000:12000], 220)) < 2
    assert [p["file"] for p in corpus.problems] == ["song.m4a"]
    assert corpus.ignored == ("notes.txt",)


def test_loud_and_quiet_files_keep_their_resolution(tmp_path):
    for name, gain in (("loud", 8.0), ("quiet", 0.002)):
        soundfile.write(tmp_path / f"{name}.wav", gain * chord(1.0, RATE), RATE, subtype="FLOAT")
    corpus = open_corpus(tmp_path, tmp_path / "store", RATE, n_workers=1)
    for recording, gain in zip(corpus.recordings, (8.0, 0.002), strict=True):
        error = recording.read(0, RATE) - gain * chord(1.0, RATE)
        assert np.abs(error).max() < gain * 5e-5, recording.name


def test_reading_beyond_the_ends_gives_zeros(tmp_path):
    soundfile.write(tmp_path / "x.wav", chord(1.0, RATE), RATE)
    recording = open_corpus(tmp_path, tmp_path / "store", RATE).recordings[0]
    assert not recording.read(-100, 100).any()
    assert not recording.read(RATE + 5, 50).any()
    assert recording.read(RATE - 10, 30)[10:].any() == np.False_


def damaged_files(folder):
    """One file for each way to be unusable; returns {name: word of the reason}."""
    good = chord(1.0, RATE)

    def wav(name, data, rate=RATE, **keywords):
        soundfile.write(folder / name, data, rate, **keywords)

    wav("one-sample.wav", good[:1])
    wav("silent.wav", np.zeros(RATE, np.float32))
    wav("nan.wav", np.full(RATE, np.nan, np.float32), subtype="FLOAT")
    wav("no-samples.wav", good[:0])
    wav("channels.wav", np.zeros((100, 1000), np.float32))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no audio at all")
    (folder / "png.flac").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    wav("one-hertz.wav", good)
    blob = bytearray((folder / "one-hertz.wav").read_bytes())
    blob[24:28] = (1).to_bytes(4, "little")
    (folder / "one-hertz.wav").write_bytes(blob)
    wav("truncated.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE))
    blob = (folder / "truncated.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(blob[: len(blob) // 2])
    wav("claims.flac", good)
    blob = bytearray((folder / "claims.flac").read_bytes())
    blob[21] |= 0x0F  # STREAMINFO: the upper bits of a 36-bit sample count
    blob[22:26] = b"\xff\xff\xff\xff"
    (folder / "claims.flac").write_bytes(blob)
    return {
        "one-sample.wav": "only 1 sample long",
        "silent.wav": "silent",
        "nan.wav": "not finite",
        "no-samples.wav": "no samples",
        "channels.wav": "1000 channels",
        "empty.wav": "empty",
        "text.wav": "not an audio file",
        "png.flac": "not an audio file",
        "one-hertz.wav": "1 Hz",
        "truncated.flac": "",
        "claims.flac": "damaged",
    }


def test_every_unusable_file_is_reported_with_its_reason(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    expected = damaged_files(folder)
    soundfile.write(folder / "good.wav", chord(1.0, RATE), RATE)
    soundfile.write(folder / "mislabelled.flac", chord(1.1, RATE), RATE, format="WAV")  # content decides
    shutil.copy(folder / "good.wav", folder / "zz-copy.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "broken-link.wav").symlink_to("nowhere.wav")
    (folder / "loop").symlink_to(".")
    corpus = open_corpus(folder, tmp_path / "store", RATE)
    assert [r.name for r in corpus.recordings] == ["good.wav", "mislabelled.flac"]
    reasons = {p["file"]: p["reason"] for p in corpus.problems}
    for name, word in expected.items():
        assert word in reasons[name], (name, reasons[name])
    assert "same content as good.wav" in reasons["zz-copy.wav"]
    assert "regular file" in reasons["pipe.wav"] and "link" in reasons["broken-link.wav"]
    assert set(reasons) == {*expected, "zz-copy.wav", "pipe.wav", "broken-link.wav"}
    assert not [p for p in (tmp_path / "store").iterdir() if p.suffix in (".part", ".tmp")]


@pytest.mark.parametrize("case", ["missing", "empty", "no-audio", "all-bad", "bad-expression"])
def test_nothing_to_train_on(tmp_path, case):
    folder = tmp_path / "in"
    if case != "missing":
        folder.mkdir()
    if case == "no-audio":
        (folder / "a.txt").write_text("x")
    if case in ("all-bad", "bad-expression"):
        (folder / "a.wav").write_text("x")
    with pytest.raises(UserError) as error:
        open_corpus(folder, tmp_path / "store", RATE, include="(" if case == "bad-expression" else "")
    assert "\n" not in str(error.value)


def test_the_store_is_reused_and_extended(tmp_path, monkeypatch):
    folder, store = tmp_path / "in", tmp_path / "store"
    folder.mkdir()
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", chord(1.0 + i / 10, RATE), RATE)
    seen = []

    def opened():
        seen.clear()
        return open_corpus(folder, store, RATE, progress=lambda done, total, name: seen.append(name))

    first = opened()
    assert sorted(seen) == ["0.wav", "1.wav", "2.wav"]
    assert opened() == first and seen == []  # size and time decide
    soundfile.write(folder / "3.wav", chord(2.0, RATE), RATE)
    assert len(opened().recordings) == 4 and seen == ["3.wav"]  # extended
    pcm = {p.name: p.stat().st_mtime_ns for p in store.glob("*.pcm")}
    os.utime(folder / "0.wav", (1, 1))
    shutil.move(folder / "1.wav", folder / "renamed.wav")
    again = opened()
    assert sorted(seen) == ["0.wav", "renamed.wav"]  # looked at, but the content hash finds them
    assert {p.name: p.stat().st_mtime_ns for p in store.glob("*.pcm")} == pcm
    assert [r.name for r in again.recordings] == ["0.wav", "2.wav", "3.wav", "renamed.wav"]
    soundfile.write(folder / "2.wav", chord(3.0, RATE), RATE)  # changed content
    assert {r.name: r.n_samples for r in opened().recordings}["2.wav"] == 3 * RATE


def test_a_recording_that_kills_its_reader_does_not_end_the_rest(tmp_path):
    """A worker that dies (a crash in a decoder, the kernel's memory killer) costs one file."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        soundfile.write(folder / f"{i}.wav", chord(1.0 + i / 10, RATE), RATE)
    jobs = [(f"{i}.wav", str(folder / f"{i}.wav"), [0, 0]) for i in range(4)]
    jobs[2] = ("2.wav", KILLER, [0, 0])
    store = tmp_path / "store"
    store.mkdir()
    results = {name: result for name, _, result in corpus_module._decode_all(jobs, str(store), RATE, 2)}
    assert "dies" in results["2.wav"]["reason"]
    assert all("sha256" in results[f"{i}.wav"] for i in (0, 1, 3))


def test_what_is_not_a_recording_of_the_user(tmp_path):
    """Names that are no text are read; the store and skipped folders are not looked into."""
    soundfile.write(tmp_path / "x.wav", chord(1.0, RATE), RATE)
    os.rename(tmp_path / "x.wav", os.fsencode(tmp_path) + b"/caf\xe9 $$.wav")
    (tmp_path / "run" / "previews").mkdir(parents=True)
    soundfile.write(tmp_path / "run" / "previews" / "own.wav", chord(2.0, RATE), RATE)
    corpus = open_corpus(tmp_path, tmp_path / "store", RATE, skip=[tmp_path / "run"])
    assert [os.fsencode(r.name) for r in corpus.recordings] == [b"caf\xe9 $$.wav"]


def test_a_passing_error_is_forgotten(tmp_path, monkeypatch):
    """A file that could not be read is tried again the next time."""
    soundfile.write(tmp_path / "a.wav", chord(1.0, RATE), RATE)
    soundfile.write(tmp_path / "b.wav", chord(1.5, RATE), RATE)
    original = corpus_module._decode_all

    def failing(jobs, *arguments):
        for name, key, result in original(jobs, *arguments):
            yield name, key, {"reason": "Stale file handle", "passing": True} if name == "b.wav" else result

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "_decode_all", failing)
        assert len(open_corpus(tmp_path, tmp_path / "store", RATE).problems) == 1
    assert len(open_corpus(tmp_path, tmp_path / "store", RATE).recordings) == 2


def test_an_interruption_does_not_wait_for_what_is_being_decoded(tmp_path):
    """The reader of a pipe that nobody writes to would be waited for for ever."""
    soundfile.write(tmp_path / "a.wav", chord(1.0, RATE), RATE)
    os.mkfifo(tmp_path / "b.wav")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x.999999999.part").touch()
    jobs = [(name, str(tmp_path / name), [0, 0]) for name in ("a.wav", "b.wav")]
    results = corpus_module._decode_all(jobs, str(tmp_path / "store"), RATE, 2)
    assert next(results)[0] == "a.wav"
    began = set(multiprocessing.active_children())
    assert began
    results.close()
    assert not began & set(multiprocessing.active_children())
    assert sorted(path.suffix for path in (tmp_path / "store").iterdir()) == [".json", ".pcm"]


class Killer(str):
    """A path that ends the process which receives it."""

    def __reduce__(self):
        return os._exit, (9,)


KILLER = Killer("x")
