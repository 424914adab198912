"""Mutated scores and MIDI files: each must become audio or one line, within 30 s of processor time and 1 GiB.

Every case is read and played in a forked child with the limits that ``python -m score`` sets. What ends in another way
is written to ``out/fuzz`` and makes the status 1.
"""

import argparse
import collections
import io
import os
import random
import resource
import signal
import sys
import zipfile
from functools import partial
from pathlib import Path

import mido
import regex

from bench import ROOT, table
from prompt import general_midi

RATE = 8000
SECONDS = 30
MEMORY = 1 << 30
DONE, LINE = 0, 3
ELEMENT = regex.compile(rb"<([a-z-]+)(?=[\s>])[^<>]*(?<!/)>(?:[^<>]|<(?!/?\1[\s/>])[^<>]*>)*</\1>|<[a-z-]+[^<>]*/>")
VALUES = [
    "0",
    "-1",
    "1",
    "7",
    "128",
    "1000000000000",
    "-99999",
    "1e308",
    "nan",
    "inf",
    "",
    "x",
    "0.5",
    "\u0663",
    "&#0;",
]


def seeds() -> list[tuple[str, bytes]]:
    """(kind, content) of what is mutated: the scores of the tests, the demo's, and MIDI files."""
    paths = [*sorted((ROOT / "tests" / "scores").glob("*.musicxml")), ROOT / "demo" / "prompt.musicxml"]
    return [("xml", path.read_bytes()) for path in paths] + [("midi", midi_file(kind)) for kind in (0, 1)] * 20


def midi_file(kind: int) -> bytes:
    """A file with everything that is played: tempo, meter, programs, pedal, bend, drums."""
    file = mido.MidiFile(type=kind, ticks_per_beat=480)
    head, tracks = mido.MidiTrack(), [mido.MidiTrack() for _ in range(3)]
    head += [
        mido.MetaMessage("time_signature", numerator=3, denominator=4),
        mido.MetaMessage("set_tempo", tempo=600000),
    ]
    head += [mido.MetaMessage("set_tempo", tempo=400000, time=960), mido.MetaMessage("key_signature", key="D")]
    for channel, track in zip((0, 1, 9), tracks, strict=True):
        track.append(mido.Message("program_change", channel=channel, program=10 * channel))
        track.append(mido.Message("control_change", channel=channel, control=64, value=127))
        for pitch in range(48, 60):
            track.append(mido.Message("pitchwheel", channel=channel, pitch=100 * pitch))
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=80))
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=0, time=120))
        track.append(mido.Message("control_change", channel=channel, control=64, value=0, time=100))
    file.tracks += (
        [mido.MidiTrack([*head, *(message for track in tracks for message in track)])] if kind == 0 else [head, *tracks]
    )
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def mutate(kind: str, blob: bytes, random: random.Random) -> bytes:
    """One to three changes; few of them break XML itself, which its parser finds at once."""
    changes = [change_bytes] if kind == "midi" else [_number, _element, _attribute] * 6 + [change_bytes]
    for _ in range(random.choice([1, 1, 2, 3])):
        blob = random.choice(changes)(blob, random)
    if kind == "xml" and random.random() < 0.1:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("score.xml", blob)
        blob = buffer.getvalue()
        blob = change_bytes(blob, random) if random.random() < 0.7 else blob
    return blob


def change_bytes(blob: bytes, random) -> bytes:
    """Bytes flipped, cut out, doubled, or the end cut off."""
    if not blob:
        return blob
    at, n = random.randrange(len(blob)), random.choice([1, 1, 2, 4, 16, 200])
    what = random.choice([0, 1, 2, 3, 4, 4, 4, 4])
    if what == 0:
        return blob[:at]
    if what == 1:
        return blob[:at] + blob[at + n :]
    if what == 2:
        return blob[: at + n] + blob[at:]
    if what == 3:
        return blob[:at] + random.randbytes(n) + blob[at + n :]
    return blob[:at] + bytes([blob[at] ^ (1 << random.randrange(8))]) + blob[at + 1 :]


def _swap(blob: bytes, match, content: bytes) -> bytes:
    return blob if match is None else blob[: match.start()] + content + blob[match.end() :]


def _choice(found, random):
    found = list(found)
    return random.choice(found) if found else None


def _number(blob: bytes, random) -> bytes:
    """The text of an element replaced."""
    match = _choice(regex.finditer(rb"(?<=>)[^<>\s]{1,20}(?=<)", blob), random)
    return _swap(blob, match, random.choice(VALUES).encode())


def _attribute(blob: bytes, random) -> bytes:
    """The value of an attribute replaced."""
    match = _choice(regex.finditer(rb'"[^"<>]*"', blob, pos=max(0, blob.find(b"<score"))), random)
    return _swap(blob, match, b'"%s"' % random.choice(["P9", "start", "stop", *VALUES]).encode())


def _element(blob: bytes, random) -> bytes:
    """An element, with what is in it, taken out or repeated up to 50 times."""
    start = _choice(regex.finditer(rb"<[a-z]", blob, pos=max(0, blob.find(b"<score") + 1)), random)
    match = start and ELEMENT.match(blob, start.start())
    return _swap(blob, match, match[0] * random.choice([0, 0, 2, 3, 50]) if match else b"")


def outcome_of(work, good: str) -> tuple[str, str, float]:
    """What becomes of ``work(writer)`` in a forked child: ``good``, "one line", or what must not be; what the child
    says into the descriptor ``writer``; and its processor seconds.

    Args:
        work: returns :data:`DONE`, or :data:`LINE` when it has said why not.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(work(writer))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status, usage = os.wait4(child, 0)
    status, took = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    if status == DONE:
        return good, "", took
    if status == LINE and said.strip() and "\n" not in said.strip():
        return "one line", said.strip(), took
    if status in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL):
        return "over time", said, took
    return ("several lines" if status == LINE else f"status {status}"), said, took


def limit_resources():
    """Of the child that calls it: :data:`SECONDS` of processor time, :data:`MEMORY` beyond what it has."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _linux() else 0
    if size:
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    signal.alarm(20 * SECONDS)  # of the clock, which other programs make longer


def _play(blob: bytes, soundfont: str, writer: int) -> int:
    import traceback

    from score import read
    from score.performance import BadScore
    from score.player import synthesize

    limit_resources()
    try:
        synthesize(read(blob), RATE, soundfont)
        return DONE
    except BadScore as error:
        os.write(writer, str(error).encode()[:2000])
        return LINE
    except MemoryError:
        os.write(writer, b"needs more memory than a score may; shorten it")
        return LINE
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-2000:])
        return 1


def _linux() -> bool:
    return sys.platform.startswith("linux")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.fuzz_scores", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=5000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # What the children need is imported once.
    import tinysoundfont  # noqa: F401
    from music21 import harmony, instrument, tempo  # noqa: F401

    counts: dict[str, collections.Counter] = {"xml": collections.Counter(), "midi": collections.Counter()}
    reasons, bad = collections.Counter(), 0
    originals, soundfont, slowest = seeds(), general_midi(), 0.0
    for case in range(arguments.cases):
        chance = random.Random(f"{arguments.seed} {case}")
        kind, blob = chance.choice(originals)
        blob = mutate(kind, blob, chance)
        what, said, took = outcome_of(partial(_play, blob, soundfont), "audio")
        slowest = max(slowest, took)
        counts[kind][what] += 1
        if what == "one line":
            reasons[regex.sub(r"'.*?'|\(.*\)|<.*?>|\d[\d.e+]*", "_", said)] += 1
        elif what != "audio":
            bad += 1
            folder = ROOT / "out" / "fuzz"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{arguments.seed}-{case}.{kind}").write_bytes(blob)
            print(f"case {case}: {what}\n{said}", file=sys.stderr)
        if (case + 1) % 250 == 0:
            print(f"{case + 1} cases: {dict(sum(counts.values(), collections.Counter()))}", file=sys.stderr)
    outcomes = sorted(set().union(*counts.values()))
    table(
        [(kind, sum(c.values()), *(c[o] for o in outcomes)) for kind, c in counts.items()], ("kind", "cases", *outcomes)
    )
    for reason, count in reasons.most_common(30):
        print(f"{count} x {reason}")
    print(f"slowest: {slowest:.1f} s; ended otherwise: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
