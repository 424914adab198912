"""``python -m score SCORE OUT SAMPLE_RATE SOUNDFONT CHANNELS``: play a MusicXML or MIDI file under limits.

Scores come from strangers, so this runs with a bound on processor time, memory and file sizes, in a scratch folder of
its own. It writes float32 samples to OUT, one channel after the other, and prints the beat and the bar line at the end,
and what is left out, as JSON; on bad input it prints one line and exits with 3.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from score import read_file
from score.performance import BadScore

MAX_MEMORY = 1 << 30
MAX_CPU_SECONDS = 30
BAD_SCORE = 3


def main(arguments: list[str]) -> int:
    path, out, sample_rate, soundfont, channels = arguments
    limit_resources(soundfont)
    try:
        from score.player import synthesize

        performance = read_file(path)
        waveform = synthesize(performance, int(sample_rate), soundfont, int(channels))
        waveform.tofile(out)
    except BadScore as error:
        print(error)
        return BAD_SCORE
    except MemoryError:
        print("needs more memory than a score may; shorten it")
        return BAD_SCORE
    print(json.dumps(asdict(performance.last) | {"line": performance.line, "remarks": performance.remarks}))
    return 0


def limit_resources(soundfont: str):
    """Bound this process: memory, processor time, size of the files it writes."""
    import resource

    # TinySoundFont reads the file (16 bit) and keeps float32 samples.
    memory = MAX_MEMORY + 4 * Path(soundfont).stat().st_size
    for what, amount in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 1 << 30),
        (resource.RLIMIT_CORE, 0),
    ):
        # macOS has no working RLIMIT_AS; the parent's clock remains
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (amount, amount))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
