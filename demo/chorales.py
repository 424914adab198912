"""Bach chorales from music21's bundled scores, played by a synthesizer: a corpus for the demo.

``python -m demo.chorales OUT --minutes 20`` writes one FLAC file a chorale.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

HELD_OUT = "bwv66.6"  # the prompt of the demo comes from it
TEMPOS = 60, 120  # quarters a minute, slowest and fastest
# General MIDI programs, one ensemble a chorale: organ, strings, piano, choir.
PROGRAMS = (19, 48, 0, 52)
SAMPLE_RATE = 22050


def tempo_of(name: str) -> int:
    """Quarters a minute of a chorale, by a hash of its name: a model that has heard one tempo only plays no other."""
    slowest, fastest = TEMPOS
    return slowest + int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % (fastest - slowest + 1)


def write_chorales(folder: Path, minutes: float, progress=None) -> list[Path]:
    """Play chorales into ``folder`` until they last ``minutes``; what is there is kept.

    Args:
        progress: called with the seconds written so far.
    """
    import soundfile
    from music21 import converter, corpus, midi, tempo

    from prompt import general_midi
    from score import read
    from score.player import synthesize

    folder.mkdir(parents=True, exist_ok=True)
    written, seconds = [], 0.0
    chorales = [path for path in corpus.getComposer("bach") if path.suffix == ".mxl" and path.stem != HELD_OUT]
    for path in sorted(chorales, key=lambda p: p.stem):
        if seconds >= 60 * minutes:
            break
        out = folder / f"{path.stem}.flac"
        if out.exists():
            seconds += soundfile.info(out).duration
            written.append(out)
            continue
        score = converter.parse(path, forceSource=True, storePickle=False)
        if len(score.parts) != 4:
            continue
        mark = tempo.MetronomeMark(number=tempo_of(path.stem))
        for old in list(score.recurse().getElementsByClass(tempo.TempoIndication)):
            old.activeSite.remove(old)
        score.parts[0].recurse().getElementsByClass("Measure").first().insert(0, mark)
        # By music21's MIDI, which passes over fermatas: as the model in metadata/ has learned them.
        song = read(midi.translate.streamToMidiFile(score).writestr())
        song.changes.clear()
        for voice in song.instruments:
            voice.program = PROGRAMS[len(written) % len(PROGRAMS)]
        waveform = synthesize(song, SAMPLE_RATE, general_midi())
        part = out.with_suffix(".tmp")
        soundfile.write(part, waveform / max(1.0, abs(waveform).max()), SAMPLE_RATE, format="FLAC")
        part.replace(out)
        seconds += len(waveform) / SAMPLE_RATE
        written.append(out)
        if progress:
            progress(seconds)
    return written


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="demo.chorales", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--minutes", type=float, default=20.0)
    arguments = parser.parse_args(argv)

    def report(seconds: float):
        print(f"{min(100, 100 * seconds / (60 * arguments.minutes)):5.1f} %  {seconds / 60:.1f} min", file=sys.stderr)

    written = write_chorales(arguments.out, arguments.minutes, report)
    print(f"{len(written)} chorales in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
