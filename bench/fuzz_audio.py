"""Mutated audio files into the decoder of train.py: each must become samples or one line, within 30 s of processor
time and 1 GiB.

Every case is decoded into a store, as train.py does it, in a forked child with these limits. What ends in another way
is written to ``out/fuzz`` and makes the status 1.
"""

import argparse
import collections
import io
import os
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import regex
import soundfile

from bench import ROOT, table
from bench.fuzz_scores import DONE, LINE, change_bytes, limit_resources, outcome_of

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


def _decode(path: Path, store: Path, writer: int) -> int:
    """In the child: decode, and check that what is stored is sound that a model can learn from."""
    import traceback

    from pcm_store import Recording, store_recording, stored

    limit_resources()
    try:
        result = store_recording(str(path), str(store), RATE)
        if "reason" in result:
            os.write(writer, result["reason"].encode()[:2000])
            return LINE
        pcm = store / f"{result['sha256']}.pcm"
        meta = stored(store, result["sha256"])
        values = (meta[key] for key in ("n_samples", "scale", "rms"))
        one = Recording(path.name, result["sha256"], str(pcm), *values, checks=bytes.fromhex(meta["checks"]))
        samples = one.read(0, one.n_samples)
        assert np.isfinite(samples).all() and 0 < np.abs(samples).max() < 1e4 and np.isfinite(one.rms)
        return DONE
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-2000:])
        return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.fuzz_audio", description=__doc__.split(":")[0])
    parser.add_argument("--cases", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    reasons, bad, slowest, originals = collections.Counter(), 0, 0.0, seeds()
    with tempfile.TemporaryDirectory() as folder:
        for case in range(arguments.cases):
            chance = random.Random(f"{arguments.seed} {case}")
            ending, blob = chance.choice(originals)
            blob = mutate(blob, chance)
            if ending == "ogg" and chance.random() < 0.8:
                blob = with_checksums(blob)
            path, store = Path(folder) / f"x.{ending}", Path(folder) / "store"
            path.write_bytes(blob)
            store.mkdir(exist_ok=True)
            what, said, took = outcome_of(partial(_decode, path, store), "decoded")
            left = [p.name for p in store.iterdir() if p.suffix not in (".pcm", ".json")]
            if left and what in ("decoded", "one line"):
                what, said = "leftovers", ", ".join(left)
            for file in store.iterdir():
                file.unlink()
            slowest = max(slowest, took)
            counts[ending][what] += 1
            if what == "one line":
                reasons[regex.sub(r"\(.*\)|\d[\d.e+]*", "_", said)] += 1
            elif what != "decoded":
                bad += 1
                kept = ROOT / "out" / "fuzz" / f"{arguments.seed}-{case}.{ending}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(blob)
                print(f"case {case}: {what}\n{said}", file=sys.stderr)
            if (case + 1) % 1000 == 0:
                print(f"{case + 1} cases: {dict(sum(counts.values(), collections.Counter()))}", file=sys.stderr)
    outcomes = sorted(set().union(*counts.values()))
    table(
        [(kind, sum(c.values()), *(c[o] for o in outcomes)) for kind, c in sorted(counts.items())],
        ("kind", "cases", *outcomes),
    )
    for reason, count in reasons.most_common(20):
        print(f"{count} x {reason}")
    print(f"slowest: {slowest:.1f} s; ended otherwise: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
