"""Whether continuations keep the tempo and the grid of their prompts.

Chorales that the model has not heard (the last of music21's corpus, of which the demo plays the first), at four
tempos, by piano and by organ: :data:`PROMPT_SECONDS` of each go on for 20 s. The tempo is found by autocorrelation
of onset strength, within an octave; the grid is that of the prompt's eighths (see :mod:`rhythm`). The rows tell what
really follows, the model that is told the prompt's tempo, as of a score, and the model that finds it by ear. Chords
are triads by the notes that basic-pitch hears.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import table
from errors import UserError, exit_status

TEMPOS = 66, 84, 100, 116  # quarters a minute
INSTRUMENTS = {"piano": 0, "organ": 19}  # programs of General MIDI
PROMPT_SECONDS = 10.0
HEADER = (
    "continuation",
    "tempo kept",
    "resultant",
    "of half of them at least",
    "onsets/s",
    "longest hold",
    "chord changes/s",
    "longest chord",
    "4 s or less",
)


def played(n: int, seconds: float, sample_rate: int) -> list[tuple]:
    """n chorales from the end of the corpus for each instrument and tempo, that last for ``seconds``.

    Args:
        sample_rate: Hz, that they are resampled to.

    Returns:
        ``(instrument, quarters a minute, waveform [n_samples])`` each
    """
    import soxr

    from demo.chorales import SAMPLE_RATE, chorales, play

    paths, rows = iter(reversed(chorales())), []
    for quarters_per_minute in TEMPOS:
        for instrument, program in INSTRUMENTS.items():
            found = 0
            while found < n:
                waveform = play(next(paths), quarters_per_minute, program)
                if waveform is not None and len(waveform) >= seconds * SAMPLE_RATE:
                    waveform = soxr.resample(waveform, SAMPLE_RATE, sample_rate)[: round(seconds * sample_rate)]
                    rows.append((instrument, quarters_per_minute, waveform))
                    found += 1
    return rows


def figures(waveform, sample_rate: int, quarters_per_minute: float, transcriber) -> dict:
    """Of one continuation ``[n_samples]``; its notes are found by a :class:`transcription.Transcriber`."""
    import math

    import metrics
    import rhythm

    found = rhythm.tempo(waveform, sample_rate)
    ratio = rhythm.tempo_ratio(found, quarters_per_minute) if math.isfinite(found) else math.nan
    return {
        "ratio": ratio,
        "kept": abs(ratio - 1) <= rhythm.NEAR,
        "resultant": rhythm.grid_resultant(waveform, sample_rate, quarters_per_minute),
        "onsets": len(rhythm.onsets(waveform, sample_rate)[0]) * sample_rate / len(waveform),
        "hold": rhythm.longest_hold(waveform, sample_rate),
        **metrics.chord_figures(transcriber.notes(waveform, sample_rate), len(waveform) / sample_rate),
    }


def summary(name: str, rows: list[dict]) -> tuple:
    """A row of the table."""
    import numpy as np

    resultants = np.nan_to_num([row["resultant"] for row in rows])  # a continuation without onsets keeps no grid
    return (
        name,
        f"{100 * np.mean([row['kept'] for row in rows]):.0f} %",
        f"{np.median(resultants):.2f}",
        f"{np.mean(resultants >= 0.5) * 100:.0f} %",
        f"{np.mean([row['onsets'] for row in rows]):.1f}",
        f"{np.median([row['hold'] for row in rows]):.1f} s",
        f"{np.mean([row['chord_changes'] for row in rows]):.1f}",
        f"{np.median([row['longest_chord'] for row in rows]):.1f} s",
        f"{100 * np.mean([max(row['hold'], row['longest_chord']) <= 4 for row in rows]):.0f} %",
    )


def measure(metadata: Path, per_cell: int, seconds: float, seed: int, threads: int, out: Path | None = None) -> dict:
    """Figures of every continuation: ``{row: [(instrument, quarters a minute, figures)]}``.

    Args:
        per_cell: chorales for each instrument and tempo.
        out: a folder for prompts with their continuations, WAV.
    """
    import soundfile
    import torch

    from predictor import Predictor, rejoin
    from transcription import Transcriber

    transcriber = Transcriber()
    torch.set_num_threads(threads)
    predictor = Predictor.load(metadata)
    if predictor.config.featurizer.channels != 1:
        raise UserError(f"{metadata}: is of a stereo model; give one of a mono model")
    rate = predictor.config.featurizer.sample_rate
    n_prompt, pieces = round(PROMPT_SECONDS * rate), played(per_cell, PROMPT_SECONDS + seconds, rate)
    prompts = [predictor.in_voice(torch.from_numpy(piece[:n_prompt])) for _, _, piece in pieces]
    n_frames = round(seconds * predictor.config.featurizer.frame_rate) + 1
    rows = {"real, what follows": [piece[n_prompt:] for _, _, piece in pieces]}
    for name, tempos in (("told the tempo", [t for _, t, _ in pieces]), ("by ear", None)):
        blocks = torch.cat(list(predictor.stream(prompts, n_frames, seed=seed, tempos=tempos)), -1)
        whole = [rejoin(prompt, [row]).numpy() for prompt, row in zip(prompts, blocks, strict=True)]
        rows[name] = [waveform[n_prompt : n_prompt + round(seconds * rate)] for waveform in whole]
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for i, (waveform, (instrument, tempo, _)) in enumerate(zip(whole, pieces, strict=True)):
                soundfile.write(
                    out / f"{name.replace(' ', '-')}-{tempo}-{instrument}-{i}.wav", waveform.clip(-1, 1), rate
                )
    return {
        name: [
            (instrument, tempo, figures(waveform, rate, tempo, transcriber))
            for (instrument, tempo, _), waveform in zip(pieces, waveforms, strict=True)
        ]
        for name, waveforms in rows.items()
    }


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="bench.tempo", description=__doc__.splitlines()[0])
    parser.add_argument("metadata", type=Path, metavar="M.json", help="a trained state, mono")
    parser.add_argument(
        "--each", type=int, default=2, metavar="N", help="chorales of a tempo by an instrument (default: 2)"
    )
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of continuation (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draws (default: 0)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the sound")
    arguments = parser.parse_args(argv)

    def run() -> int:
        options = arguments.each, arguments.seconds, arguments.seed, arguments.threads, arguments.out
        measured = measure(arguments.metadata, *options)
        rows = [summary(name, [row for _, _, row in values]) for name, values in measured.items()]
        for name, values in measured.items():
            if name != "real, what follows":
                for instrument in INSTRUMENTS:
                    rows.append(summary(f"{name}, {instrument}", [row for i, _, row in values if i == instrument]))
                for tempo in TEMPOS:
                    rows.append(summary(f"{name}, at {tempo}", [row for _, t, row in values if t == tempo]))
        table(rows, HEADER)
        return 0

    return exit_status("bench.tempo", run, "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
