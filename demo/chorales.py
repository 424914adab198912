"""Bach chorales from music21's bundled scores, played by a synthesizer: a corpus for the demo.

``python -m demo.chorales OUT --minutes 20`` writes one FLAC file a chorale.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo import draw

if TYPE_CHECKING:
    import numpy as np

HELD_OUT = "bwv66.6"  # the prompt of the demo comes from it
TEMPOS = 60, 120  # quarters a minute, slowest and fastest
# General MIDI programs, one ensemble a chorale: organ, strings, piano, choir.
PROGRAMS = (19, 48, 0, 52)
SAMPLE_RATE = 22050


def tempo_of(name: str) -> int:
    """Quarters a minute of a chorale, by a hash of its name: a model that has heard one tempo only plays no other."""
    slowest, fastest = TEMPOS
    return slowest + draw(name, fastest - slowest + 1)


def chorales() -> list[Path]:
    """The scores of all chorales, in the order of their names, but for the one that the demo's prompt comes from."""
    from music21 import corpus

    paths = [path for path in corpus.getComposer("bach") if path.suffix == ".mxl" and path.stem != HELD_OUT]
    return sorted(paths, key=lambda path: path.stem)


def play(path: Path, quarters_per_minute: float, program: int) -> np.ndarray | None:
    """A chorale as the synthesizer plays it; None where it has other than four parts.

    Args:
        program: of General MIDI, plays all parts.

    Shape:
        float32 ``[n_samples]`` at :data:`SAMPLE_RATE`
    """
    from music21 import converter, midi, tempo

    from prompt import general_midi
    from score import read
    from score.player import synthesize

    score = converter.parse(path, forceSource=True, storePickle=False)
    if len(score.parts) != 4:
        return None
    mark = tempo.MetronomeMark(number=quarters_per_minute)
    for old in list(score.recurse().getElementsByClass(tempo.TempoIndication)):
        old.activeSite.remove(old)
    score.parts[0].recurse().getElementsByClass("Measure").first().insert(0, mark)
    # By music21's MIDI, which passes over fermatas: as the model in metadata/ has learned them.
    song = read(midi.translate.streamToMidiFile(score).writestr())
    song.changes.clear()
    for voice in song.instruments:
        voice.program = program
    return synthesize(song, SAMPLE_RATE, general_midi())


def write_chorales(folder: Path, minutes: float, progress=None) -> list[Path]:
    """Play chorales into ``folder`` until they last ``minutes``; what is there is kept.

    Args:
        progress: called with the seconds written so far.
    """
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    written, seconds = [], 0.0
    for path in chorales():
        if seconds >= 60 * minutes:
            break
        out = folder / f"{path.stem}.flac"
        if out.exists():
            seconds += soundfile.info(out).duration
            written.append(out)
            continue
        waveform = play(path, tempo_of(path.stem), PROGRAMS[len(written) % len(PROGRAMS)])
        if waveform is None:
            continue
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
