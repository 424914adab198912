"""Mutated audio files into the decoder of train.py: each must become samples or one line, within 30 s of processor
time and 1 GiB.

Every case is decoded into a store, as train.py does it, in a forked child with these limits. What ends in another way
is written to ``out/fuzz`` and makes the status 1.
"""

import io
import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from bench.fuzzing import arguments_of, change_bytes, run

RATE = 8000
# (format, subtype) as libsndfile calls them; the key is the ending of the name.
FORMATS = {
    "wav": [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAV", "ULAW")],
    "flac": [("FLAC", "PCM_16"), ("FLAC", "PCM_24")],
    "ogg": [("OGG", "VORBIS"), ("OGG", "OPUS")],
    "mp3": [("MP3", "MPEG_LAYER_III")],
    "aiff": [("AIFF", "PCM_16"), ("AIFF", "DOUBLE")],
    "au": [("AU", "PCM_16")],
    "caf": [("CAF", "PCM_16"), ("CAF", "ALAC_16")],
    "rf64": [("RF64", "PCM_16")],
    "w64": [("W64", "PCM_16")],
}
# Four bytes of a header: sizes, rates, counts that no sound has.
WORDS = [
    bytes(4),
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\1\0\0\0",
    b"\0\0\xc0\x7f",
    b"\xcc\xcc\xcc\x7c",
]


def seeds() -> list[tuple[str, bytes]]:
    """(ending, content) of what is mutated: half a second of a chord, mono and stereo, in each format."""
    t = np.arange(RATE // 2) / RATE
    wave = 0.3 * sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.18, 329.63)) * np.exp(-t)
    out = []
    for ending, kinds in FORMATS.items():
        for (container, subtype), channels in ((kind, n) for kind in kinds for n in (1, 2)):
            buffer = io.BytesIO()
            buffer.name = f"x.{ending}"
            soundfile.write(buffer, np.stack([wave] * channels, 1), RATE, subtype, format=container)
            out.append((ending, buffer.getvalue()))
    return out


def mutate(blob: bytes, chance: random.Random) -> bytes:
    """One to three changes: of any bytes, of the header's, or a word of it replaced."""
    for _ in range(chance.choice([1, 1, 2, 3])):
        what = chance.random()
        if what < 0.4:
            blob = change_bytes(blob, chance)
        elif what < 0.7:
            blob = change_bytes(blob[:128], chance) + blob[128:]
        else:
            at = chance.randrange(min(256, max(1, len(blob) - 4)))
            blob = blob[:at] + chance.choice(WORDS) + blob[at + 4 :]
    return blob


def with_checksums(blob: bytes) -> bytes:
    """An Ogg file whose pages have right checksums (RFC 3533, polynomial 04c11db7), so that what is in them is read."""
    out, at = bytearray(blob), blob.find(b"OggS")
    while at >= 0 and at + 27 <= len(out):
        n_segments = out[at + 26]
        end = at + 27 + n_segments + sum(out[at + 27 : at + 27 + n_segments])
        out[at + 22 : at + 26] = bytes(4)
        checksum = 0
        for byte in out[at:end]:
            checksum ^= byte << 24
            for _ in range(8):
                checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 0x80000000 else 0)) & 0xFFFFFFFF
        out[at + 22 : at + 26] = checksum.to_bytes(4, "little")
        at = out.find(b"OggS", max(end, at + 27))
    return bytes(out)


def _decode(path: Path, store: Path) -> str | None:
    """Decode, and check that what is stored is sound that a model can learn from; why it is refused, or None."""
    from pcm_store import Recording, store_recording, stored

    result = store_recording(str(path), str(store), RATE)
    assert {p.suffix for p in store.iterdir()} <= {".pcm", ".json"}, "something half-written is left"
    if "reason" in result:
        return result["reason"]
    pcm = store / f"{result['sha256']}.pcm"
    meta = stored(store, result["sha256"])
    values = (meta[key] for key in ("n_samples", "scale", "rms"))
    one = Recording(path.name, result["sha256"], str(pcm), *values, checks=bytes.fromhex(meta["checks"]))
    samples = one.read(0, one.n_samples)
    assert np.isfinite(samples).all() and 0 < np.abs(samples).max() < 1e4 and np.isfinite(one.rms)
    return None


def main() -> int:
    arguments, originals = arguments_of("bench.fuzz_audio", __doc__.split(":")[0], 2000), seeds()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"

        def case(chance: random.Random):
            ending, blob = chance.choice(originals)
            blob = mutate(blob, chance)
            if ending == "ogg" and chance.random() < 0.8:
                blob = with_checksums(blob)
            path = Path(folder) / f"x.{ending}"
            path.write_bytes(blob)
            shutil.rmtree(store, ignore_errors=True)
            store.mkdir()
            return ending, blob, partial(_decode, path, store)

        return run(arguments, case, "decoded", 1000)


if __name__ == "__main__":
    sys.exit(main())
