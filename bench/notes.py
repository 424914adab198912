"""How many of the notes of a sound are found, and how many that are found are there: MIDI of ``predict.py --midi``.

Chorales of music21's corpus, 84 quarters a minute, a quarter of them each by organ, strings, piano and choir: their
notes are known. The second group is the same sound after the codec of a model, which is nearer to a continuation. A
note is found if one of its pitch begins within 50 ms of it; notes of one pitch and onset count once.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from bench import ROOT, table
from bench.prompts import chorales
from errors import count
from predictor import Predictor
from prompt import general_midi
from score import read_file
from score.performance import BadScore
from score.player import synthesize
from transcription import Transcriber, quantised, without_ghosts

RATE = 22050  # Hz
TEMPO = 84.0  # quarters a minute
PROGRAMS = {19: "organ", 48: "strings", 0: "piano", 52: "choir"}
LEAD = 1.0  # s that the codec leaves as they are
TOLERANCE = 0.05  # s


def passage(path: Path, program: int, seconds: float):
    """The beginning of a chorale and its notes, ``(onset s, pitch)``. Shape: waveform ``[n_samples]``"""
    song = read_file(path)
    stretch = song.last.tempo / TEMPO
    song.changes.clear()
    for instrument in song.instruments:
        instrument.program = program
    for note in song.notes:
        note.onset, note.duration = note.onset * stretch, note.duration * stretch
    waveform = synthesize(song, RATE, general_midi())[: round(seconds * RATE)]
    wanted = {(round(n.onset, 3), round(n.pitch)) for n in song.notes if n.onset < len(waveform) / RATE - 0.2}
    return waveform / max(1.0, np.abs(waveform).max()), sorted(wanted)


def n_matches(wanted, found) -> int:
    """Pairs of notes of one pitch, no more than 50 ms apart, each note in one pair."""
    n, free = 0, sorted(found)
    for onset, pitch in wanted:
        near = [x for x in free if x[1] == pitch and abs(x[0] - onset) <= TOLERANCE]
        if near:
            n += 1
            free.remove(min(near, key=lambda x: abs(x[0] - onset)))
    return n


def scores(cases, change) -> tuple[float, float, float]:
    """Precision, recall and F-measure over all ``cases`` of (notes that are there, notes that are heard)."""
    hits = n_found = n_wanted = 0
    for wanted, heard in cases:
        found = [(note[0], note[2]) for note in change(heard)]
        hits, n_found, n_wanted = hits + n_matches(wanted, found), n_found + len(found), n_wanted + len(wanted)
    precision, recall = hits / max(1, n_found), hits / max(1, n_wanted)
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


def cases(n_chorales: int, seconds: float, metadata: Path | None):
    """By sound and instrument, the notes that are there and those that are heard, of each chorale."""
    transcriber, predictor = Transcriber(), Predictor.load(metadata) if metadata else None
    groups, n_done = {}, 0
    for path in chorales():
        if n_done == n_chorales:
            break
        program = list(PROGRAMS)[n_done % len(PROGRAMS)]
        try:
            waveform, wanted = passage(path, program, seconds)
        except BadScore:
            continue
        n_done += 1
        sounds = {"as played": waveform}
        if predictor:
            piece = predictor.match_level(torch.from_numpy(waveform))
            remade = predictor.reconstruct(piece[None], round(LEAD * RATE), True, 0)[0]
            sounds["after the codec"] = remade.cpu().numpy()
        for name, sound in sounds.items():
            heard = wanted, transcriber.notes(sound, RATE)
            groups.setdefault((name, "all four"), []).append(heard)
            groups.setdefault((name, PROGRAMS[program]), []).append(heard)
        print(f"{count(n_done, 'chorale')}", file=sys.stderr)
    return groups


def main():
    parser = argparse.ArgumentParser(prog="bench.notes", description=__doc__.splitlines()[0])
    parser.add_argument("--chorales", type=int, default=24, metavar="N")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="of each (default: 15)")
    parser.add_argument("--metadata", type=Path, default=ROOT / "metadata" / "chorales.json", help="whose codec it is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    changes = {
        "as heard": lambda notes: notes,
        "without ghosts": without_ghosts,
        "on the grid": lambda notes: quantised(without_ghosts(notes), TEMPO, movable=False),
    }
    rows = []
    for group, heard in cases(arguments.chorales, arguments.seconds, arguments.metadata).items():
        figures = (" ".join(f"{100 * value:.1f}" for value in scores(heard, change)) for change in changes.values())
        rows.append((*group, *figures))
    table(rows, ("sound", "instrument", *(f"{name}: precision, recall, F in %" for name in changes)))


if __name__ == "__main__":
    main()
