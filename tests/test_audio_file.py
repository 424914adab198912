"""Written files: samples, level, fade, formats, and the chunks that a DAW reads."""

import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile

import audio_file
import riff
from audio_file import AudioFile, AudioFormat
from conftest import chord
from errors import UserError
from meter import Meter, parse_time_signature

RATE = 8000
METER = Meter(93.5, 6, 8)


def write(path, waveform, form=None, n_blocks=4, length=None, **keywords) -> int:
    """Through :class:`AudioFile` in uneven blocks."""
    places = np.linspace(0, waveform.shape[-1], n_blocks + 1).astype(int)[1:-1] + 1
    with AudioFile(path, form or AudioFormat("wav", 24, RATE, 1), RATE, length) as file:
        for block in np.split(waveform, places, axis=-1):
            file.write(block)
        return file.finish(**keywords)


def chunks(path) -> dict[bytes, bytes]:
    """All but the samples and the name of the software, by an own reader: ``{id: body}``; sizes must add up to the
    file's."""
    blob, found, place = path.read_bytes(), {}, 12
    large = blob[:4] == b"RF64"
    assert blob[8:12] == b"WAVE" and blob[:4] in (b"RIFF", b"RF64")
    while place < len(blob):
        name, size = struct.unpack_from("<4sI", blob, place)
        if large and name == b"data":
            size = struct.unpack_from("<Q", found[b"ds64"], 8)[0]
        body = b"" if name == b"data" else blob[place + 8 : place + 8 + size]
        if body[:8] != b"INFOISFT":
            found[name] = body
        place += 8 + size + size % 2
    assert place == len(blob)
    size = struct.unpack("<Q", found[b"ds64"][:8])[0] if large else struct.unpack_from("<I", blob, 4)[0]
    assert size == len(blob) - 8
    return found


@pytest.fixture
def waveform():
    """A chord of three seconds and a few samples: odd in number, so that 24 bits of it are an odd number of bytes."""
    return chord(3.0, RATE)[: 3 * RATE - 1]


@pytest.fixture
def wide(waveform):
    return np.stack([waveform, 0.5 * waveform[::-1]])


@pytest.mark.parametrize("limit", [audio_file.RIFF_LIMIT, 1000])
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_chunks_are_read_back(tmp_path, waveform, monkeypatch, bits, limit):
    """Tempo, time signature, loop and marker to the byte, in RIFF and in RF64; RIFF_LIMIT decides which."""
    monkeypatch.setattr(audio_file, "RIFF_LIMIT", limit)
    n = write(tmp_path / "a.wav", waveform, AudioFormat("wav", bits, RATE, 1), meter=METER, join=10001, loop=True)
    found = chunks(tmp_path / "a.wav")
    assert (b"ds64" in found) == (limit == 1000)
    assert list(found)[-4:] == [b"acid", b"smpl", b"cue ", b"LIST"] and list(found)[-5] == b"data"
    flags, root, _, _, n_beats, lower, upper, tempo = struct.unpack("<IHHfIHHf", found[b"acid"])
    assert (flags, root, lower, upper, tempo) == (12, 60, 8, 6, 93.5)
    assert n_beats == round(n / RATE * 93.5 / 60)
    assert found[b"smpl"] == struct.pack("<9I6I", 0, 0, 125000, 60, 0, 0, 0, 1, 0, 1, 0, 10001, n - 1, 0, 0)
    assert found[b"cue "] == struct.pack("<III4sIII", 1, 1, 10001, b"data", 0, 0, 10001)
    assert found[b"LIST"] == b"adtl" + struct.pack("<4sII", b"labl", 17, 1) + b"continuation\0" + b"\0"
    with open(tmp_path / "a.wav", "rb") as file:
        walked = {name: size for name, _, size in riff.walk(file)}
    assert walked[b"data"] == n * bits // 8 and {k for k in walked if k != b"data"} == set(found) - {b"data"}


def test_libsndfile_reads_the_tempo_and_the_marker(tmp_path, waveform):
    """A reader that is not ours: SFC_GET_LOOP_INFO of ``acid`` and SFC_GET_CUE of ``cue ``."""
    n = write(tmp_path / "a.wav", waveform, meter=METER, join=10001)
    with soundfile.SoundFile(tmp_path / "a.wav") as file:
        answer = soundfile._ffi.new("char[]", 44)
        assert soundfile._snd.sf_command(file._file, 0x10E0, answer, 44)
        upper, lower, mode, n_beats, tempo = struct.unpack("<hhiif", bytes(soundfile._ffi.buffer(answer, 16)))
        assert (upper, lower, tempo, n_beats) == (6, 8, 93.5, round(n / RATE * 93.5 / 60)) and mode != 0
        points = soundfile._ffi.new("char[]", 4 + 100 * 280)
        assert soundfile._snd.sf_command(file._file, 0x10CE, points, len(points))
        values = struct.unpack("<IiIiiiI", bytes(soundfile._ffi.buffer(points, 28)))
        name = bytes(soundfile._ffi.buffer(points, 284))[28:].split(b"\0")[0]
    assert values[0] == 1 and values[6] == 10001 and name == b"continuation"


def test_without_tempo_and_join_there_are_no_chunks(tmp_path, waveform):
    write(tmp_path / "a.wav", waveform, start=500, join=500)
    assert list(chunks(tmp_path / "a.wav")) == [b"fmt ", b"data"]


FORMATS = [("wav", 16), ("wav", 24), ("wav", 32), ("flac", 16), ("flac", 24)]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("container, bits", FORMATS)
def test_every_format_is_read_back(tmp_path, wide, container, bits, channels):
    """Within a step, which libsndfile rounds down; at 16 bits, dithered, within one and a half. Nothing that sox or
    ffprobe would warn of."""
    path, form = tmp_path / f"a.{container}", AudioFormat(container, bits, RATE, channels)
    n = write(path, wide, form, meter=METER, join=10001)
    info = soundfile.info(path)
    assert (info.frames, info.channels, info.samplerate, info.format) == (n, channels, RATE, container.upper())
    assert info.subtype == {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}[bits]
    read = soundfile.read(path, always_2d=True)[0].T
    true = wide if channels == 2 else wide.mean(0, keepdims=True)
    error = np.abs(read - true).max() * 2 ** (bits - 1)
    assert error == 0 if bits == 32 else error <= (1.5 if bits == 16 else 1)
    if container == "flac":
        with soundfile.SoundFile(path) as file:
            assert file.comment == "93.5 quarters a minute, 6/8, continuation from 1.250125 s"
    for command in (["sox", "--i"], ["ffprobe", "-v", "warning"]):
        if shutil.which(command[0]):
            result = subprocess.run([*command, path], capture_output=True, text=True)
            assert result.returncode == 0 and not result.stderr.strip(), result.stderr


def test_mono_on_both_sides(tmp_path, waveform):
    write(tmp_path / "a.wav", waveform, AudioFormat("wav", 24, RATE, 2))
    assert np.array_equal(*soundfile.read(tmp_path / "a.wav", dtype="int32")[0].T)


def test_dither_keeps_what_is_below_a_step(tmp_path):
    """A sine of a third of a 16-bit step: rounded, it would be silence; dithered, its level is right within 10 %."""
    sine = np.sin(2 * np.pi * 440 * np.arange(20 * RATE) / RATE).astype(np.float32) / 32768 / 3
    write(tmp_path / "a.wav", sine, AudioFormat("wav", 16, RATE, 1))
    read = soundfile.read(tmp_path / "a.wav")[0] * 32768
    assert 2 * (read * sine).mean() * 32768 * 3 == pytest.approx(1 / 3, rel=0.1)
    assert abs(read.mean()) < 0.02 and np.abs(read).max() <= 2


@pytest.mark.parametrize("bits", [16, 24])
def test_the_tail_is_that_of_the_whole(tmp_path, wide, bits):
    """To the bit, resampled, turned down and dithered: beyond a block, too."""
    form, loud = AudioFormat("wav", bits, 48000, 2), 9 * wide
    n = write(tmp_path / "whole.wav", loud, form)
    start = 70001
    assert write(tmp_path / "tail.wav", loud, form, start=start) == n - start
    whole, tail = (soundfile.read(tmp_path / f"{name}.wav", dtype="int32")[0] for name in ("whole", "tail"))
    assert np.array_equal(whole[start:], tail)
    assert np.abs(whole).max() / 2**31 == pytest.approx(0.99, abs=1e-4)


def test_blocks_of_any_size_give_the_same_bytes(tmp_path, waveform):
    form = AudioFormat("wav", 16, 44100, 1)
    for n_blocks in (1, 7, 100):
        write(tmp_path / f"{n_blocks}.wav", waveform, form, n_blocks)
    assert len({(tmp_path / f"{n}.wav").read_bytes() for n in (1, 7, 100)}) == 1


@pytest.mark.parametrize("rate", [11025, 48000])
def test_another_rate(tmp_path, rate):
    """A sine keeps frequency, level (1 %) and place (half a sample); the length is as long to the sample."""
    t = np.arange(2 * RATE) / RATE
    n = write(
        tmp_path / "a.wav", (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32), AudioFormat("wav", 24, rate, 1)
    )
    read = soundfile.read(tmp_path / "a.wav")[0]
    assert n == len(read) == 2 * rate
    inner = slice(rate // 2, rate)
    phase = np.exp(-2j * np.pi * 1000 * np.arange(2 * rate) / rate)
    found = 2j * (read * phase)[inner].mean()
    assert abs(found) == pytest.approx(0.5, rel=0.01) and abs(np.angle(found)) < np.pi * 1000 / rate


def test_fade_and_length(tmp_path, waveform):
    """A quarter of a cosine over the last second, from the level before to silence; what is beyond the length goes."""
    assert write(tmp_path / "a.wav", waveform, AudioFormat("wav", 32, RATE, 1), length=2 * RATE, fade=1.0) == 2 * RATE
    read = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    assert np.array_equal(read[: RATE - 1], waveform[: RATE - 1]) and read[-1] == 0
    middle, true = read[RATE:], waveform[RATE : 2 * RATE] * np.cos(0.5 * np.pi * np.arange(1, RATE + 1) / RATE)
    np.testing.assert_allclose(middle, true, atol=1e-6)


def test_what_is_not_finished_is_not_there(tmp_path, waveform):
    """Neither half a file nor a temporary one; what had the name before stays."""
    path = tmp_path / "a.wav"
    path.write_text("mine")
    with pytest.raises(KeyboardInterrupt), AudioFile(path, AudioFormat("wav", 24, RATE, 1), RATE) as file:
        file.write(waveform)
        raise KeyboardInterrupt
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError), AudioFile(path, AudioFormat("wav", 24, RATE, 1), RATE) as file:
        file.finish()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        AudioFile(tmp_path / "nowhere" / "a.wav", AudioFormat("wav", 24, RATE, 1), RATE)


def test_bars_last_as_long_as_they_are_written():
    assert Meter(120).bar_seconds == 2 and Meter(90, 6, 8).bar_seconds == 2 and Meter(60, 3, 4).bar_seconds == 3
    assert parse_time_signature(" 12/8 ") == (12, 8)
    assert Meter.if_sane(96.0, 3, 4) == Meter(96, 3, 4)
    assert not any(Meter.if_sane(*wrong) for wrong in ((6e7, 4, 4), (float("nan"), 4, 4), (96, 0, 4), (96, 4, 2**200)))
    for text in ("4/5", "0/4", "4", "4/4/4", "", "-3/4"):
        with pytest.raises(UserError, match="--meter"):
            parse_time_signature(text)
