"""Audio files as recorders, browsers and encoders write them: read to the end, or refused in one line that is true."""

import io
import struct

import numpy as np
import pytest
import soundfile

import train
from conftest import tiny_arguments
from corpus import open_corpus
from decoding import Unusable, decode
from errors import UserError
from prompt import load

RATE = 22050
T = np.arange(2 * RATE) / RATE
TONE = (0.4 * np.sin(2 * np.pi * 441 * T)).astype(np.float32)
NOISE = (0.3 * TONE + 0.1 * np.random.default_rng(0).standard_normal(len(T))).astype(np.float32)


def written(container, subtype=None, waveform=TONE, rate=RATE, **keywords) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=container, subtype=subtype, **keywords)
    return buffer.getvalue()


def decoded(tmp_path, blob: bytes, rate=RATE, channels=1, name="a.wav") -> np.ndarray:
    (tmp_path / name).write_bytes(blob)
    return np.concatenate(list(decode(tmp_path / name, rate, channels)), axis=-1)


def refused(tmp_path, blob: bytes, name="a.wav") -> str:
    with pytest.raises(Unusable) as error:
        decoded(tmp_path, blob, name=name)
    assert "\n" not in str(error.value)
    return str(error.value)


def put(blob: bytes, place: int, form: str, *values) -> bytes:
    out = bytearray(blob)
    struct.pack_into(form, out, place, *values)
    return bytes(out)


def chunk(name: bytes, body: bytes, pad=True) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2 * pad)


def riff(*chunks: bytes, size=None, name=b"RIFF") -> bytes:
    body = b"".join(chunks)
    return name + struct.pack("<I", 4 + len(body) if size is None else size) + b"WAVE" + body


WAV, AIFF, CAF, AU, RF64 = (written(name, "PCM_16") for name in ("WAV", "AIFF", "CAF", "AU", "RF64"))
FMT, DATA = WAV[12:36], WAV[36:]
LIST = chunk(b"LIST", b"INFO" + chunk(b"IART", b"abc\0"))
ALL_ONES, COMM, SSND = 2**32 - 1, AIFF.find(b"COMM"), AIFF.find(b"SSND")
CAF_DATA, DS64 = CAF.find(b"data") + 4, RF64.find(b"ds64") + 8

RIFX_HEAD = (b"RIFX", 36 + 2 * len(TONE), b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", 2 * len(TONE))
RIFX = struct.pack(">4sI4s4sIHHIIHH4sI", *RIFX_HEAD) + np.frombuffer(DATA[8:], "<i2").astype(">i2").tobytes()

LENGTHS = {
    "wav 0": put(put(WAV, 4, "<I", 0), 40, "<I", 0),
    "wav, the samples 0": put(WAV, 40, "<I", 0),
    "wav, the file 0": put(WAV, 4, "<I", 0),
    "wav all ones": put(put(WAV, 4, "<I", ALL_ONES), 40, "<I", ALL_ONES),
    "wav by sox into a pipe": put(put(WAV, 4, "<I", 0x7FFFF024), 40, "<I", 0x7FFFF000),
    "wav longer than the file": put(WAV, 40, "<I", 10**9),
    "wav 0 behind a LIST": put(riff(LIST, FMT, DATA), 12 + len(LIST) + len(FMT) + 4, "<I", 0),
    "rf64 without ds64": riff(FMT, b"data" + struct.pack("<I", ALL_ONES) + DATA[8:], size=ALL_ONES, name=b"RF64"),
    "rf64 of zeros": put(RF64, DS64, "<QQQ", 0, 0, 0),
    "rf64 of ones": put(RF64, DS64, "<QQQ", *[2**64 - 1] * 3),
    "bw64": b"BW64" + RF64[4:],
    "bw64 of zeros": put(b"BW64" + RF64[4:], DS64, "<QQQ", 0, 0, 0),
    "aiff 0": put(put(put(AIFF, 4, ">I", 0), COMM + 10, ">I", 0), SSND + 4, ">I", 0),
    "aiff -1": put(put(put(AIFF, 4, ">i", -1), COMM + 10, ">i", -1), SSND + 4, ">i", -1),
    "caf -1": put(CAF, CAF_DATA, ">q", -1),
    "caf 0": put(CAF, CAF_DATA, ">q", 0),
    "caf longer than the file": put(CAF, CAF_DATA, ">q", 10**12),
    "au -1": put(AU, 8, ">I", ALL_ONES),
    "au 0": put(AU, 8, ">I", 0),
    "au 0, least significant bytes first": struct.pack("<4s5I", b"dns.", 24, 0, 3, RATE, 1) + DATA[8:],
    "LIST before fmt": riff(LIST, FMT, DATA),
    "junk of 300 kB": riff(chunk(b"id3 ", b"x" * 300_001), FMT, DATA),
    "LIST of zeros, as some recorders have": riff(FMT, chunk(b"LIST", bytes(393_164)), DATA),
    "odd chunks, not padded": riff(chunk(b"junk", bytes(7), False), FMT, chunk(b"abcd", b"12345", False), DATA),
    "odd chunks, padded": riff(chunk(b"junk", bytes(7)), FMT, chunk(b"abcd", b"12345"), DATA),
    "bytes between chunks": riff(FMT, bytes(6), DATA),
    "samples before fmt": riff(DATA, FMT),
    "a LIST of no size": riff(FMT, b"LIST\0\0\0\0INFOabcd", DATA),
    "a LIST longer than the file": riff(FMT, b"LIST\xff\xff\xff\xffINFOabcd", DATA),
    "no samples in a first chunk": riff(FMT, chunk(b"data", b""), DATA),
    "wav whose length counts samples, in a file of the right one": put(WAV, 40, "<I", len(TONE)),
    "samples in two chunks": riff(FMT, chunk(b"data", DATA[8:20008]), LIST, chunk(b"data", DATA[20008:])),
    "wav with a blank line before": b"\r\n" + WAV,
    "wav behind the header of a server": b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n\r\n" + WAV,
    "wav behind a warning": b"<br />\n<b>Warning</b>: readfile()\n" + WAV,
    "rifx": RIFX,
    "rifx 0": put(put(RIFX, 4, ">I", 0), 40, ">I", 0),
    "rifx all ones": put(put(RIFX, 4, ">I", ALL_ONES), 40, ">I", ALL_ONES),
    "aiff never closed": put(put(put(AIFF, 4, ">I", SSND + 8), COMM + 10, ">I", 0), SSND + 4, ">I", 8),
    "aiff of no samples in its COMM": put(AIFF, COMM + 10, ">I", 0),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_and_chunks(tmp_path, case):
    """All samples and no other, to the bit of 16."""
    waveform = decoded(tmp_path, LENGTHS[case])
    assert len(waveform) == len(TONE) and np.abs(waveform - TONE).max() < 2**-15


def test_odd_samples_that_are_not_padded(tmp_path):
    blob = written("WAV", "PCM_24", TONE[:-1])[: 44 + 3 * (len(TONE) - 1)]
    assert len(blob) % 2 and len(decoded(tmp_path, blob)) == len(TONE) - 1


def test_an_empty_wav_stays_empty(tmp_path):
    assert refused(tmp_path, riff(FMT, chunk(b"data", b""), LIST)) == "it holds no samples"
    assert refused(tmp_path, written("AIFF", "PCM_16", TONE[:0])) == "it holds no samples"


def test_zeros_that_fill_a_block_are_no_sound(tmp_path):
    """Some writers count them in the length of the file."""
    blob = WAV + bytes(4096 - len(WAV) % 4096)
    assert len(decoded(tmp_path, put(blob, 4, "<I", len(blob) - 8))) == len(TONE)


FLAC = written("FLAC", "PCM_16", NOISE)
UNKNOWN = put(put(FLAC, 22, ">I", 0), 21, "B", FLAC[21] & 0xF0)


def with_picture(blob: bytes) -> bytes:
    """With a picture behind STREAMINFO that holds the beginning of a FLAC file."""
    data = b"\xff\xd8" + FLAC[:4000]
    body = struct.pack(">II10s6I", 3, 10, b"image/jpeg", 0, 9, 9, 24, 0, len(data)) + data
    return blob[:4] + b"\0" + blob[5:42] + b"\6" + len(body).to_bytes(3, "big") + body + blob[42:]


ID3 = b"ID3\4\0\0" + bytes([0, 18, 79, 0]) + bytes((18 << 14) + (79 << 7))  # a picture of 300 kB


@pytest.mark.parametrize(
    "blob, n",
    [
        (UNKNOWN, 1),
        (put(put(UNKNOWN, 26, "16s", bytes(16)), 12, "6s", bytes(6)), 1),
        (put(FLAC, 22, ">I", RATE), 1),
        (ID3 + FLAC, 1),
        (ID3 + UNKNOWN, 1),
        (ID3 + ID3 + UNKNOWN, 1),
        (UNKNOWN + b"TAG" + bytes(125), 1),
        (FLAC + FLAC, 2),
        (UNKNOWN + UNKNOWN + FLAC, 3),
        (UNKNOWN + ID3 + FLAC, 2),
        (put(FLAC, 22, ">I", len(NOISE) + 10), 1),
        (b"\xef\xbb\xbf" + FLAC, 1),
        (with_picture(FLAC), 1),
        (with_picture(UNKNOWN), 1),
        (with_picture(FLAC) + FLAC, 2),
        (FLAC + FLAC[:42], 1),
        (FLAC + b"\x55" * 100, 1),
        (FLAC + b"\0\0\r\n" + FLAC, 2),
    ],
    ids=[
        *("0", "0, no MD5", "half", "ID3", "ID3, 0", "two ID3, 0", "0, ID3v1", "two", "three, 0", "two, ID3 between"),
        *("10 more", "BOM", "a FLAC in a picture", "a FLAC in a picture, 0", "two, a picture", "a second of no sound"),
        *("junk behind", "two, junk between"),
    ],
)
def test_flac(tmp_path, blob, n):
    waveform = decoded(tmp_path, blob, name="a.flac")
    assert np.abs(waveform - np.tile(NOISE, n)).max() < 2**-15


def test_flac_of_unknown_length_that_is_cut_off(tmp_path):
    """Up to the last whole frame; one that knows its length is refused, and it is said why."""
    waveform = decoded(tmp_path, UNKNOWN[: len(UNKNOWN) // 2], name="a.flac")
    assert 0.4 * len(NOISE) < len(waveform) < 0.6 * len(NOISE)
    assert np.abs(waveform - NOISE[: len(waveform)]).max() < 2**-15
    assert "its header claims 2.0 s, it holds" in refused(tmp_path, FLAC[: len(FLAC) // 2], "a.flac")
    waveform = decoded(
        tmp_path, written("FLAC", "PCM_16", np.tile(NOISE, 10))[:-20], name="a.flac"
    )  # some bytes of 20 s
    assert 0 < 10 * len(NOISE) - len(waveform) < 0.2 * RATE
    for n in (4, 20, 42, 60):
        assert refused(tmp_path, FLAC[:n], "a.flac") == "cut off before its first sound"


@pytest.mark.parametrize("rates", [(44100, 44100), (44100, 22050), (22050, 48000)])
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg(tmp_path, subtype, rates):
    """Streams of other rates and channels, too: each lasts a second, and sounds as by itself."""
    if subtype == "OPUS":
        rates = 48000, 24000
    tones = [0.4 * np.sin(2 * np.pi * f * np.arange(rate) / rate) for f, rate in zip((440, 660), rates, strict=True)]
    first, second = (written("OGG", subtype, tone, rate) for tone, rate in zip(tones, rates, strict=True))
    wide = written("OGG", subtype, np.stack([tones[1]] * 2, 1), rates[1])
    for blob in (first + second, first + wide):
        waveform = decoded(tmp_path, blob, name="a.ogg")
        assert abs(len(waveform) - 2 * RATE) < 10
        spectrum = [
            np.abs(np.fft.rfft(half[2000:20000])).argmax() * RATE / 18000 for half in np.split(waveform[: 2 * RATE], 2)
        ]
        assert spectrum == pytest.approx([440, 660], abs=2)


def pages(blob: bytes) -> list[bytes]:
    return [b"OggS" + page for page in blob.split(b"OggS")[1:]]


def checked(page: bytes) -> bytes:
    """A page with its checksum: CRC of 32 bits by 0x04C11DB7, not reflected."""
    value, cleared = 0, page[:22] + bytes(4) + page[26:]
    for byte in cleared:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 1 << 31 else 0)) & ALL_ONES
    return page[:22] + struct.pack("<I", value) + page[26:]


LONG = np.tile(NOISE, 4)


@pytest.mark.parametrize("subtype, rate", [("VORBIS", RATE), ("OPUS", 24000)])
@pytest.mark.parametrize("granule", [-1, 0, 1000, 10**12])
def test_ogg_whose_last_page_lies(tmp_path, subtype, rate, granule):
    *others, last = pages(written("OGG", subtype, LONG, rate))
    whole = len(decoded(tmp_path, b"".join([*others, last]), rate, name="a.ogg"))
    lied = checked(put(last, 6, "<q", granule))
    assert 0 <= len(decoded(tmp_path, b"".join([*others, lied]), rate, name="a.ogg")) - whole < 0.1 * rate


@pytest.mark.parametrize("subtype, rate", [("VORBIS", RATE), ("OPUS", 24000)])
def test_ogg_that_ends_early(tmp_path, subtype, rate):
    """Nothing says how long it was: what is there is decoded. Before its first sound, that is said."""
    blob = written("OGG", subtype, LONG, rate)
    found = pages(blob)
    for cut in (b"".join(found[:-1]), b"".join(found[:-1]) + found[-1][:500]):
        assert 0.5 * len(LONG) < len(decoded(tmp_path, cut, rate, name="a.ogg")) < len(LONG)
    flagged = checked(put(found[-1], 5, "B", found[-1][5] & ~4))
    waveform = decoded(tmp_path, b"".join(found[:-1]) + flagged, rate, name="a.ogg")
    assert abs(len(waveform) - len(decoded(tmp_path, blob, rate, name="b.ogg"))) < 10
    for cut in (b"".join(found[:2]), blob[: len(found[0]) + 50], blob[:300], blob[:30], blob[:20]):
        assert refused(tmp_path, cut, "a.ogg") == "cut off before its first sound"
    assert len(decoded(tmp_path, b"junk" * 50 + blob + b"junk" * 50, rate, name="a.ogg")) > 0.9 * len(LONG)


def page(serial: int, number: int, flags: int, body: bytes) -> bytes:
    lacing = bytes([255] * (len(body) // 255) + [len(body) % 255])
    head = b"OggS\0" + struct.pack("<BqIIIB", flags, number, serial, number, 0, len(lacing))
    return checked(head + lacing + body)


VORBIS = written("OGG", "VORBIS", LONG)


@pytest.mark.parametrize("kind", [b"\x80theora", b"fishead\0"])
def test_ogg_with_pictures_or_a_skeleton(tmp_path, kind):
    """Other streams stand between the pages of the one that sounds."""
    first, *others = pages(VORBIS)
    middle = len(others) // 2
    blob = page(99, 0, 2, kind + bytes(50)) + first + page(99, 1, 0, bytes(700)) + b"".join(others[:middle])
    blob += page(99, 2, 4, bytes(3000)) + b"".join(others[middle:])
    assert len(decoded(tmp_path, blob, name="a.ogg")) == len(LONG)


def test_ogg_that_goes_on_behind_its_end(tmp_path):
    found = pages(VORBIS)
    middle = len(found) // 2
    found[middle] = checked(put(found[middle], 5, "B", found[middle][5] | 4))
    assert len(decoded(tmp_path, b"".join(found), name="a.ogg")) == len(LONG)


@pytest.mark.parametrize("i", [0, 1, 4, -1])
def test_ogg_that_has_a_page_twice(tmp_path, i):
    found = pages(VORBIS)
    found.insert(i if i >= 0 else len(found), found[i])
    assert len(decoded(tmp_path, b"".join(found), name="a.ogg")) == len(LONG)


def test_ogg_behind_a_tag(tmp_path):
    assert len(decoded(tmp_path, ID3 + VORBIS, name="a.ogg")) == len(LONG)


def test_ogg_that_is_cut_off_before_another(tmp_path):
    """The page that is cut off within is not read on into what follows."""
    found = pages(VORBIS)
    half = b"".join(found[:-2]) + found[-2][: len(found[-2]) // 2]
    first, both = (decoded(tmp_path, blob, name="a.ogg") for blob in (b"".join(found[:-2]), half + VORBIS))
    assert len(both) == len(first) + len(LONG) and np.abs(both).max() < 1
    assert np.array_equal(both[: len(first)], first)


@pytest.mark.parametrize("n", [30, 100, 4000])
def test_a_broadcast_that_ends_with_the_headers_of_a_next_piece(tmp_path, n):
    other = written("OGG", "VORBIS", TONE)
    assert n < len(b"".join(pages(other)[:3]))
    assert len(decoded(tmp_path, VORBIS + other[:n], name="a.ogg")) == len(LONG)


MP3 = written("MP3", "MPEG_LAYER_III", LONG)
TELLS = max(MP3.find(b"Xing"), MP3.find(b"Info"))
BARE = MP3[MP3.find(b"\xff\xf3" if b"\xff\xf3" in MP3[:4] else MP3[:2], 4) :]


@pytest.mark.parametrize(
    "blob, n",
    [
        (BARE, 1),
        (put(MP3, TELLS + 8, ">I", 0), 1),
        (put(MP3, TELLS + 8, ">I", 5), 1),
        (put(MP3, TELLS + 8, ">I", 5000), 1),
        (MP3 + MP3, 2),
        (BARE + BARE, 2),
        (MP3 + BARE, 2),
        (ID3 + MP3, 1),
        (ID3 + BARE, 1),
        (ID3 + MP3 + ID3 + MP3 + b"TAG" + bytes(125), 2),
        (bytes(3000) + BARE, 1),
        (BARE + bytes(3000), 1),
        (MP3 + written("MP3", "MPEG_LAYER_III", np.tile(LONG, 2), 2 * RATE), 2),
        (b"ID3\3\0\0\0\x7f\x7f\x7f" + bytes(20) + MP3, 1),
    ],
    ids=[
        "bare",
        "0",
        "less",
        "more",
        "two",
        "two bare",
        "bare behind",
        "ID3",
        "ID3 bare",
        "all",
        "zeros",
        "zeros behind",
        "another rate",
        "ID3 longer than the file",
    ],
)
def test_mp3(tmp_path, blob, n):
    """All of it, but for what an encoder adds at either end."""
    assert 0 <= len(decoded(tmp_path, blob, name="a.mp3")) - n * len(LONG) < 3000 * n


@pytest.mark.parametrize(
    "blob",
    [MP3 + bytes(5000), b"ID3\3\0\0\0\0\0\x14" + bytes(20000), np.random.default_rng(0).bytes(5000)],
    ids=["zeros behind", "a tag and zeros", "noise"],
)
def test_the_decoder_of_mp3_says_nothing_of_bytes_that_are_none(tmp_path, capfd, blob):
    """It has no manner of its own to be told so; of the last frame that libsndfile writes it complains anyway."""
    (tmp_path / "a.mp3").write_bytes(blob)
    try:
        assert sum(map(len, decode(tmp_path / "a.mp3", RATE))) >= len(LONG)
    except Unusable as error:
        assert "exist" not in str(error) and blob[:4] != MP3[:4]
    said = capfd.readouterr().err
    assert "Note" not in said and "Warning" not in said


def test_mp3_that_is_cut_off(tmp_path):
    assert "its header claims 8.0 s, it holds" in refused(tmp_path, MP3[: len(MP3) // 2], "a.mp3")


def floats(waveform) -> bytes:
    return written("WAV", "FLOAT", np.asarray(waveform, np.float32))


def with_sample(value) -> np.ndarray:
    waveform = TONE.copy()
    waveform[1000] = value
    return waveform


@pytest.mark.parametrize(
    "blob, words",
    [
        (floats(1e29 * TONE), "572 dB above full scale"),
        (floats(with_sample(-1e29)), "above full scale"),
        (floats(32768 * TONE), "not scaled to 1"),
        (floats(with_sample(10 ** (24 / 20))), "24 dB above full scale"),
        (floats(TONE + 1e6), "above full scale"),
        (floats(with_sample(np.inf)), "not finite"),
        (floats(with_sample(np.nan)), "not finite"),
        (written("WAV", "DOUBLE", 1e200 * TONE.astype(float)), "not finite"),
        (floats(np.full(RATE, 0.5)), "constant"),
        (written("FLAC", "PCM_16", np.full((RATE, 2), (0.5, -0.25))), "constant"),
        (floats(0.5 + 1e-6 * TONE), "constant"),
    ],
    ids=[
        "1e29",
        "one of 1e29",
        "integers",
        "24 dB",
        "DC of a million",
        "inf",
        "nan",
        "double",
        "constant",
        "constant stereo",
        "nearly",
    ],
)
def test_samples_that_are_no_sound(tmp_path, blob, words):
    """Refused in a line, alone and as a prompt; beside a good recording, that one is all that is learned from."""
    assert words in refused(tmp_path, blob)
    with pytest.raises(UserError, match=rf"a\.wav: .*{words}"):
        load(tmp_path / "a.wav", RATE)


def test_loud_floats_and_offsets_that_are_sound(tmp_path):
    """18 dB over full scale, an offset and denormal samples are kept as they are."""
    for waveform in (20 * TONE, TONE + 0.5, np.concatenate([1e-40 * TONE, TONE])):
        assert np.array_equal(decoded(tmp_path, floats(waveform)), np.asarray(waveform, np.float32))


def test_a_bad_recording_leaves_the_corpus_alone(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.wav").write_bytes(WAV)
    alone = open_corpus(folder, tmp_path / "one", 8000, n_workers=1)
    for name, waveform in (("loud", 1e29 * TONE), ("flat", np.full(RATE, 0.5)), ("still", np.zeros(RATE))):
        (folder / f"{name}.wav").write_bytes(floats(waveform))
    both = open_corpus(folder, tmp_path / "two", 8000, n_workers=1)
    assert both.level == alone.level and both.sha256 == alone.sha256
    assert {problem["file"] for problem in both.problems} == {"loud.wav", "flat.wav", "still.wav"}


@pytest.mark.parametrize(
    "waveform, words",
    [
        (np.full(2 * RATE, 0.5), "constant"),
        (np.zeros(2 * RATE), "silent"),
        (1e29 * TONE, "above full scale"),
        (1e-40 * TONE, "silent"),
        (np.concatenate([np.zeros(20), np.full(8 * RATE, 0.5)]), "nothing changes in them"),
    ],
    ids=["constant", "silence", "1e29", "denormal", "a step"],
)
def test_a_training_on_nothing(tmp_path, capsys, waveform, words):
    """One line, a status, and no run."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(floats(waveform))
    arguments = [tmp_path / "in", "--metadata", tmp_path / "m.json", *tiny_arguments(), "--steps", 2, "--threads", 1]
    assert train.main([str(word) for word in arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py:")]
    assert words in line and str(tmp_path / "in") in line
    assert not (tmp_path / "m.json").exists() and not (tmp_path / "m").exists()


HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n"
AAC = (bytes.fromhex("fff15080157ffc") + bytes(range(164))) * 9
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "ogg"])
@pytest.mark.parametrize(
    "blob, words",
    [
        (HTML, "a web page"),
        (b"\xef\xbb\xbf  <HTML><body>", "a web page"),
        (HTML.decode().encode("utf-16"), "a web page"),
        (b'{"error": "not found"}', "JSON"),
        (b"%PDF-1.7\n" + bytes(50), "a PDF document"),
        (b"not found\n", "a text file"),
        (POINTER, "git lfs pull"),
        (b"PK\x03\x04" + bytes(60), "zip archive; unpack it"),
        (b"\x1f\x8b\x08" + bytes(60), "gzip archive; unpack it"),
        (b"\0\0\0\x20ftypisom" + bytes(200), "MPEG-4 family; convert it"),
        (b"\0\0\0\x20ftypM4A " + bytes(200), "M4A.; convert it"),
        (b"\x1aE\xdf\xa3" + bytes(60), "WebM file; convert it"),
        (b"<?xml version='1.0'?><x/>", "XML"),
        (b"[General]\nname=x\n", "a text file"),
        (b"{\\rtf1 hello}", "a text document"),
        (AAC, "an AAC file; convert it"),
        (b"ID3\3\0\0\0\0\0\x14" + bytes(20) + AAC, "an AAC file; convert it"),
        (b"ID3\3\0\0\0\0\0\x14" + bytes(20), "not recognised"),
        (b"ID3\3\0\0\0\0\0\x14" + bytes(20000), "nothing but zeros"),
        (np.random.default_rng(0).bytes(5000), "not recognised"),
        (b"RIFF\x24\0\0\0CDDAfmt \x18\0\0\0" + bytes(24), "a track of a CD"),
        (b"RIFF\xe8\3\0\0sfbkLIST" + bytes(992), "a soundfont"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "a picture"),
        (bytes(4000), "nothing but zeros"),
        (b"", "empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_audio_is_called_what_it_is(tmp_path, blob, words, suffix):
    """Never that it does not exist, or holds no samples."""
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(blob)
    with pytest.raises(UserError) as error:
        load(path, RATE)
    line = str(error.value)
    pytest.importorskip("regex").search(words, line) or pytest.fail(line)
    assert line.startswith(f"{path}: ") and "exist" not in line and "no samples" not in line and "\n" not in line


def test_a_text_header_is_audio(tmp_path):
    """NIST SPHERE begins with text."""
    assert len(decoded(tmp_path, written("NIST", "PCM_16"))) == len(TONE)


@pytest.mark.parametrize("first", ["wav all ones", "wav 0", "wav by sox into a pipe", "wav longer than the file", ""])
def test_two_wav_files_in_one(tmp_path, first):
    assert np.abs(decoded(tmp_path, LENGTHS.get(first, WAV) + WAV) - np.tile(TONE, 2)).max() < 2**-15


def test_stereo_of_chained_streams(tmp_path):
    """Mono, then stereo: both as two channels."""
    wide = written("FLAC", "PCM_16", np.stack([TONE, -TONE], 1))
    waveform = decoded(tmp_path, written("FLAC", "PCM_16") + wide, channels=2, name="a.flac")
    assert waveform.shape == (2, 2 * len(TONE))
    assert np.abs(waveform - np.concatenate([[TONE, TONE], [TONE, -TONE]], axis=1)).max() < 2**-15
