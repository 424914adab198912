"""Score prompts as the player plays them and in the corpus' voice: how near what follows comes to the recordings.

Scores of music21's corpus, a half of them chorales, spread over their lists; 10 s of each go on for 20 s, as do
held-out prompts of 3 s from the recordings themselves, for comparison. FAD as in bench.sound (MusiCNN, against the
recordings trained on), of the prompts and of what follows; level and step at the join likewise.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from bench import table
from bench.prompts import chorales, others
from errors import UserError, exit_status

SCORE_SECONDS = 10.0


def score_prompts(n: int, sample_rate: int) -> list:
    """The first :data:`SCORE_SECONDS` of n scores, float32 ``[n_samples]``; those that are shorter, or refused, give
    way to the next."""
    import numpy as np

    from prompt import load_prompt

    waveforms, n_samples = [], round(SCORE_SECONDS * sample_rate)
    for paths, count in ((chorales(), n - n // 2), (others(), n // 2)):
        for i in np.linspace(0, len(paths), count, endpoint=False).astype(int) + 1:
            for path in (paths[(i + j) % len(paths)] for j in range(len(paths))):
                try:
                    waveform = load_prompt(path, sample_rate)[:n_samples]
                except UserError:
                    continue
                if len(waveform) == n_samples and np.abs(waveform).max() > 0.01:
                    waveforms.append(waveform)
                    break
    return waveforms


def continued(predictor, prompts: list, seconds: float, n_before: int, seed: int):
    """The last ``n_before`` samples of each prompt and what follows ``[n, n_samples]``."""
    import torch

    from bench.sound import BATCH
    from predictor import rejoin

    framing, rows = predictor.config.featurizer, []
    for i in range(0, len(prompts), BATCH):
        part = prompts[i : i + BATCH]
        blocks = predictor.stream(part, math.ceil(seconds * framing.frame_rate), seed=seed + i)
        rows.append(rejoin(torch.stack([prompt[-n_before:] for prompt in part]), list(blocks)))
    return torch.cat(rows)[:, : n_before + round(seconds * framing.sample_rate)]


def measure(arguments: argparse.Namespace, say) -> list[tuple]:
    """Rows of the table."""
    import numpy as np
    import torch

    from bench.musicnn import MusiCNN
    from bench.protocol import embed_all, make_protocol
    from bench.sound import measure_row
    from checkpoint import read_metadata
    from corpus import open_corpus
    from metrics import frechet_distance
    from predictor import Predictor

    m = read_metadata(arguments.metadata)
    rate = m.config.featurizer.sample_rate
    if m.config.featurizer.channels != 1:
        raise UserError(f"{arguments.metadata}: is of a stereo model; give one of a mono model")
    skip = [m.resolve("state").parent]
    corpus = open_corpus(arguments.recordings, m.resolve("store"), rate, include=m.include, skip=skip)
    seconds, seed = arguments.seconds, arguments.seed
    p = make_protocol(
        corpus, m.config.training.hold_out, MusiCNN(), None, arguments.prompts, seconds, seconds, seed, say
    )
    predictor = Predictor.load(m.path)
    say(f"playing {len(p.real)} scores")
    played = [torch.from_numpy(waveform) for waveform in score_prompts(len(p.real), rate)]
    kinds = {
        "recordings": [predictor.match_level(x) for x in p.real[:, : p.n_prompt]],
        "scores, --voice plain": [predictor.match_level(x) for x in played],
        "scores, --voice corpus": [predictor.in_voice(x) for x in played],
    }
    real = frechet_distance(p.reference, np.concatenate(p.real_embeddings))
    rows = [("real, what follows", "", f"{real:.1f}", *[""] * 4)]
    for name, prompts in kinds.items():
        say(f"{name}: {len(prompts)} prompts go on")
        row = measure_row(p, name, continued(predictor, prompts, seconds, p.n_prompt, seed), music=False)
        before = frechet_distance(p.reference, np.concatenate(embed_all(p.network, torch.stack(prompts), rate)))
        low, high = row["fad_interval"]
        rows.append((
            name, f"{before:.1f}", f"{row['fad']:.1f} ({low:.1f} to {high:.1f})", f"{100 * row['classifier']:.0f} %",
            f"{row['join_level_median']:.1f} dB", f"{100 * row['join_level_within_2db']:.0f} %",
            f"{100 * row['join_smooth']:.0f} %",
        ))  # fmt: skip
    return rows


def run(arguments: argparse.Namespace) -> int:
    if arguments.prompts < 2 or arguments.seconds < 3:
        raise UserError("--prompts must be at least 2, --seconds at least 3")
    import torch

    torch.set_num_threads(arguments.threads)
    rows = measure(arguments, lambda line: print(line, file=sys.stderr, flush=True))
    table(rows, ("prompts", "FAD of the prompts", "of what follows", "told apart", "level step", "2 dB", "smooth"))
    return 0


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="bench.voice", description=__doc__.splitlines()[0])
    parser.add_argument("recordings", metavar="RECORDINGS", type=Path, help="the folder the model is trained on")
    parser.add_argument("--metadata", type=Path, required=True, metavar="M.json", help="a trained state, mono")
    parser.add_argument("--prompts", type=int, default=32, metavar="N", help="of each kind (default: 32)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of continuation (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draws (default: 0)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    arguments = parser.parse_args(argv)
    return exit_status("bench.voice", lambda: run(arguments), "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
