"""How near a model's sound comes to the recordings that it was not trained on: tables, pictures, with yardsticks.

Every row continues the same held-out prompts. Above the models stand what really follows and what the phase and the
codec alone make of it, below them stands noise. A number says something by its distance to these; docs/judging.md tells
what each of them hears. Without --metadata, models are trained: presets, or variants of them with other settings, with
several seeds each (and a row of their means), and judged at several times of one training. All levels are relative to a
prompt at the corpus' median level, as the model hears it. Everything is measured in mono: a stereo model hears its
prompts in stereo, and what it makes is mixed down.
"""

from __future__ import annotations

import argparse
import math
import sys
import time

from bench import sound_options
from bench.drift_figures import SLACK, drift_row
from bench.harmony import beside_real, harmony_row
from bench.protocol import N_LONG, Protocol, embed_all, make_protocol, mixed_down, stereo_pieces
from bench.seeds import mean_row
from bench.trainings import candidate, held_out_loss, train_all
from errors import exit_status

BATCH = 8
RUN_SECONDS = 8.0  # of a drone, or of noise, that nobody would call music
KEY_SECONDS = 5.0  # after the prompt, in which its key is looked for
LOUDNESS_DROP, TAIL_SECONDS = 20.0, 5.0  # dB below the usual, and for how long: a rollout that has died
PER_SECOND = ("loudness", "bandwidth", "flatness", "flux")
MOVEMENT = ("onsets", "flux", "self_similarity")
ENDS = ("silence", "drone", "noise")


# -- one row -----------------------------------------------------------------------------------


def measure_row(protocol: Protocol, name: str, waveforms, long_waveforms=None, music: bool = True) -> dict:
    """All figures of one way to continue the protocol's prompts.

    Args:
        waveforms: ``[n_prompts, n_samples]`` with the prompt; at most :data:`SLACK` may be missing at the end.
        long_waveforms: ``[k, n_samples]`` with the prompt; without them the short ones are looked at.
        music: look for notes and copies too, which takes the longest.

    Raises:
        ValueError: too few or too short waveforms.
    """
    import numpy as np

    import metrics

    p, rate = protocol, protocol.sample_rate
    if len(waveforms) != len(p.real):
        raise ValueError(f"{len(waveforms)} waveforms for {len(p.real)} prompts")
    waveforms, is_real = np.asarray(waveforms, np.float32)[:, : p.n_prompt + p.n_piece], waveforms is p.real
    missing = p.n_prompt + p.n_piece - waveforms.shape[1]
    if missing > SLACK * rate:
        raise ValueError(f"{name}: {missing / rate:.2f} s too short; {p.n_piece / rate:.1f} s follow each prompt")
    made, waveforms = waveforms, np.pad(waveforms, ((0, 0), (0, missing)))
    pieces, row = waveforms[:, p.n_prompt :], {"row": name, "sample_rate": rate}
    embeddings = p.real_embeddings if is_real else embed_all(p.network, pieces, rate)

    def distance(indices):
        return metrics.frechet_distance(p.reference, np.concatenate(embeddings[indices]))

    row["fad"] = distance(np.arange(len(pieces)))
    row["fad_interval"] = metrics.bootstrap_interval(distance, len(pieces), 100, p.seed, centre=True)
    row["fad_ratio"] = row["fad"] / metrics.frechet_distance(p.reference, np.concatenate(p.real_embeddings))
    if not is_real:
        groups = np.repeat(p.groups, embeddings.shape[1])
        real, made = np.concatenate(p.real_embeddings), np.concatenate(embeddings)
        row["classifier"] = metrics.classifier_accuracy(real, made, groups, groups, p.seed)
    long = waveforms if long_waveforms is None else np.asarray(long_waveforms, np.float32)
    row.update(long_figures(p, long[:, p.n_prompt :]))
    drifting = p.real_long_pieces if is_real else made if long_waveforms is None else long
    row.update(drift_row(drifting, p.n_prompt, rate))
    moves = [metrics.movement(piece, rate) for piece in pieces]
    for figure in MOVEMENT:
        band, values = p.bands.get(f"movement_{figure}"), [move[figure] for move in moves]
        row[f"movement_{figure}"] = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
        row[f"usual_{figure}"] = 1 - metrics.share_outside(values, band[10], band[90]) if band else math.nan
    row["usual_movement"] = usual_movement(p.bands, moves)
    row.update(rhythm_row(p, pieces))
    joins = [metrics.join_figures(w, p.n_prompt, rate) for w in waveforms]
    levels = np.abs([j["level_step"] for j in joins])
    row["join_smooth"] = np.mean([j["step"] <= 1 for j in joins])
    row["join_level_median"], row["join_level_within_2db"] = np.median(levels), np.mean(levels <= 2)
    if music:
        row.update(copy_row(p, pieces))
        if is_real and p.shared:
            row["copy_shared"] = np.percentile(p.shared, 95)
    if music and p.transcriber is not None:
        row.update(note_row(p, waveforms))
    return row | beside_real(row, row if is_real else p.real_row)


def usual_movement(bands: dict, moves: list[dict]) -> float:
    """Share of continuations whose onsets, flux and self-similarity all lie within the corpus' 10th to 90th percentile;
    nan where the corpus has no range of one of them.

    Args:
        moves: of each continuation, from :func:`metrics.movement`.
    """
    import numpy as np

    ranges = [(figure, bands.get(f"movement_{figure}")) for figure in MOVEMENT]
    if not moves or not all(band for _, band in ranges):
        return math.nan
    return float(np.mean([all(band[10] <= move[name] <= band[90] for name, band in ranges) for move in moves]))


def rhythm_row(protocol: Protocol, pieces) -> dict:
    """Tempo and grid of continuations ``[n, n_samples]`` against those of the recordings that they continue."""
    import numpy as np

    import rhythm

    rate = protocol.sample_rate
    known = [(piece, tempo) for piece, tempo in zip(pieces, protocol.tempos, strict=True) if math.isfinite(tempo)]
    ratios = np.array([rhythm.tempo_ratio(rhythm.tempo(piece, rate), tempo) for piece, tempo in known])
    # A continuation in which nothing begins keeps no grid.
    grids = np.nan_to_num([rhythm.grid_resultant(piece, rate, tempo) for piece, tempo in known])
    return {
        "tempo_kept": float(np.mean(np.abs(ratios - 1) <= rhythm.NEAR)) if known else math.nan,
        "grid": float(np.median(grids)) if known else math.nan,
        "longest_hold": float(np.median([rhythm.longest_hold(piece, rate) for piece in pieces])),
    }


def long_figures(protocol: Protocol, pieces) -> dict:
    """Seconds outside the corpus' usual range, and rollouts that end as no music does. ``[k, n_samples]``"""
    import numpy as np

    import metrics

    rate, bands = protocol.sample_rate, protocol.bands
    figures = [metrics.spectral_figures(piece, rate) for piece in pieces]
    row = {"long_seconds": pieces.shape[1] / rate, "long_rollouts": len(pieces)}
    for name in PER_SECOND:
        values = np.concatenate([f[name] for f in figures])
        row[f"outside_{name}"] = metrics.share_outside(values, bands[name][5], bands[name][95])
    ends = []  # of each rollout, what it ends in that is no music
    for piece, figure in zip(pieces, figures, strict=True):
        tail = np.square(piece[-round(TAIL_SECONDS * rate) :], dtype=np.float64).mean()
        silence = 10 * math.log10(max(tail, 1e-14)) < bands["loudness"][5] - LOUDNESS_DROP
        alike = metrics.movement(piece, rate)["second_correlation"] > bands["movement_second_correlation"][99]
        drone = metrics.longest_run(alike) > RUN_SECONDS
        noise = metrics.longest_run(figure["flatness"] > bands["flatness"][99]) > RUN_SECONDS
        ends.append([name for name, does in zip(ENDS, (silence, drone, noise), strict=True) if does])
    row |= {f"ends_{name}": sum(name in end for end in ends) for name in ENDS}
    return {**row, "ends_well": sum(not end for end in ends), "long_ends": ends}


def copy_row(protocol: Protocol, pieces) -> dict:
    """Seconds of each continuation that follow one place of the training recordings, ``[n, n_samples]``, and how many
    are no longer than what recordings share: those held out with those trained on, or 19 in 20 of all with
    others (the last of them may be the same piece twice)."""
    import numpy as np

    import metrics

    p = protocol
    frames = [metrics.unit_frames(metrics.copy_frames(piece, p.sample_rate), p.frame_mean) for piece in pieces]
    copies = np.array([metrics.longest_copy(f, p.training_frames) for f in frames]) / metrics.COPY_RATE
    usual = max(p.real_row.get("copy_longest", copies.max()), p.real_row.get("copy_shared", 0))
    return {
        "copies": copies.tolist(),
        "copy_median": np.median(copies),
        "copy_longest": copies.max(),
        "copy_no_longer": np.mean(copies <= usual),
    }


def note_row(protocol: Protocol, waveforms) -> dict:
    """Means of the notes' figures, and whether the first 5 s keep the prompt's key."""
    import numpy as np

    import metrics

    p, seconds, rows, scores, shares, heard = protocol, protocol.n_piece / protocol.sample_rate, [], [], [], []
    for waveform in waveforms:
        before = p.transcriber.notes(waveform[: p.n_prompt], p.sample_rate)
        after = p.transcriber.notes(waveform[p.n_prompt :], p.sample_rate)
        first, key = [n for n in after if n[0] < KEY_SECONDS], metrics.key_of(metrics.pitch_classes(before))
        scores.append(metrics.key_score(metrics.key_of(metrics.pitch_classes(first)), key))
        shares.append(metrics.in_key_share(first, key))
        rows.append(metrics.note_figures(after, seconds))
        heard.append((before, after))
    out = {name: np.mean([row[name] for row in rows]) for name in ("notes", "polyphony", "chord_changes")}
    out["longest_chord"] = np.median([row["longest_chord"] for row in rows])
    basses = [row["bass"] for row in rows]
    out["bass"] = np.nanmean(basses) if np.isfinite(basses).any() else math.nan
    in_key = [row["in_key"] for row in rows]
    out["in_key"] = np.nanmean(in_key) if np.isfinite(in_key).any() else math.nan
    out |= {"key_kept": np.mean(np.array(scores) == 1), "key_score": np.mean(scores), "on_scales": shares}
    usual = [share for share in p.real_row.get("on_scales", shares) if share is not None and math.isfinite(share)]
    out["on_scale"] = np.mean(np.array(shares) >= np.percentile(usual, 10)) if usual else math.nan  # nan: no notes
    return out | harmony_row(heard, p.tempos, p.n_prompt / p.sample_rate, seconds)


# -- all rows ----------------------------------------------------------------------------------


def continuations(predictor, prompts, seconds: float, temperature: float | None = None, seed: int = 0):
    """Each prompt ``[n, n_samples]``, stereo ``[n, 2, n_samples]``, and what the model makes of it, cut to the
    sample."""
    import torch

    n_frames = math.ceil(seconds * predictor.config.featurizer.frame_rate)
    options = {} if temperature is None else {"temperature": temperature}
    prompts = predictor.match_level(prompts)
    parts = [
        predictor.continue_(part, n_frames, seed=seed + i, **options).cpu()
        for i, part in enumerate(prompts.split(BATCH))
    ]
    return torch.cat(parts)[..., : prompts.shape[-1] + round(seconds * predictor.config.featurizer.sample_rate)]


def measure(
    recordings, metadata_paths, temperature=None, seed=0, device="cpu", on_row=None, say=print, **options
) -> dict:
    """Measure trained states side by side.

    Args:
        metadata_paths: metadata files, or what :func:`bench.trainings.train_all` gives.
        options: ``n_prompts``, ``seconds``, ``long_seconds``, ``n_long_prompts``, ``with_notes``.
        on_row: called as ``on_row(protocol, row, waveforms, long_waveforms, is_model)``.

    Returns:
        ``{"temperature", "seed", "protocols": [...], "rows": [...]}`` of plain numbers.

    Raises:
        UserError: no such state, an optional package that is missing, too little sound.
    """
    import torch

    from bench.musicnn import MusiCNN
    from checkpoint import load_run, read_metadata
    from corpus import open_corpus
    from predictor import Predictor
    from transcription import Transcriber

    network = MusiCNN()
    transcriber = Transcriber() if options.pop("with_notes", True) else None
    runs = {}  # what is held out, and at which rate, decides what a row can be compared with
    for one in map(candidate, metadata_paths):
        m = read_metadata(one.path)
        key = m.config.featurizer.sample_rate, m.config.training.hold_out, m.include
        runs.setdefault(key, []).append((one, m))
    rows, protocols = [], []
    several = len(runs) > 1
    for (rate, hold_out, include), members in runs.items():
        say(f"recordings at {rate} Hz")
        skip, groups = [m.resolve("state").parent for _, m in members], {}
        corpus = open_corpus(recordings, members[0][1].resolve("store"), rate, include=include, skip=skip)
        p = make_protocol(corpus, hold_out, network, transcriber, seed=seed, say=say, **options)
        protocols.append(p)

        def full(name, rate=rate):
            return f"{name}, {rate} Hz" if several else name

        def add(name, waveforms, long=None, is_model=False, music=True, p=p, full=full, **known):
            say(f"measuring: {name}")
            row = measure_row(p, full(name), waveforms, long, music) | known
            rows.append(row)
            if on_row:
                on_row(p, row, waveforms, long, is_model)
            return row

        p.real_row.update(add("real, what follows", p.real, p.real_long))
        for one, m in members:
            _, state = load_run(m.path)
            predictor, name, pieces, own = Predictor.from_state(m.config, state, device), one.name, p.real, corpus
            if predictor.config.featurizer.channels == 2:
                own = open_corpus(recordings, m.resolve("store"), rate, include=include, skip=skip, channels=2)
                pieces = stereo_pieces(p, own)
            known = {"step": predictor.step, "minutes": state.info["seconds"] / 60}
            known["held_out_loss"] = held_out_loss(m.config, state, own, device)
            del state
            if one.parts and not predictor.model.predicts_phase:
                for kind, codec in (("phase only", False), ("codec only", True)):
                    say(f"{name}, {kind}")
                    parts = [predictor.reconstruct(x, p.n_prompt, codec, seed).cpu() for x in pieces.split(BATCH)]
                    add(f"{name}, {kind}", mixed_down(p, torch.cat(parts)), music=False)
            say(f"{name}: {len(p.real)} prompts go on for {p.n_piece / rate:.0f} s, {len(p.long_rows)} for more")
            prompts = pieces[..., : p.n_prompt]
            short = mixed_down(p, continuations(predictor, prompts, p.n_piece / rate, temperature, seed))
            long = continuations(predictor, prompts[p.long_rows], p.n_long / rate, temperature, seed + 1000)
            long = mixed_down(p, long)
            row = add(f"{name}, step {predictor.step}", short, long, is_model=True, **known)
            if one.group:
                groups.setdefault(one.group, []).append(row)
        rows.extend(mean_row(full(name), found) for name, found in groups.items())
        noise = torch.randn(p.real.shape, generator=torch.Generator().manual_seed(seed)) * p.level
        add("white noise", torch.cat([p.real[:, : p.n_prompt], noise[:, p.n_prompt :]], 1), music=False)
    return plain(
        {"temperature": temperature, "seed": seed, "protocols": [describe(p) for p in protocols], "rows": rows}
    )


def describe(protocol: Protocol) -> dict:
    """The protocol's plain part."""
    names = ("sample_rate", "n_prompt", "n_piece", "n_long", "level", "recordings", "starts", "long_rows", "bands")
    return {name: getattr(protocol, name) for name in names} | {"reference_windows": len(protocol.reference)}


def plain(value):
    """The same as JSON values; what is no number becomes None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- the command -------------------------------------------------------------------------------


def parse_arguments(argv=None) -> argparse.Namespace:
    return sound_options.parse(argv, __doc__)


def run(arguments: argparse.Namespace) -> int:
    began = time.monotonic()

    def say(line: str):
        print(f"{time.monotonic() - began:6.1f} s  {line}", file=sys.stderr, flush=True)

    sound_options.check(arguments)
    states = arguments.metadata or train_all(arguments, say)
    import torch

    from bench.report import Report
    from device import n_usable_cores, select_device

    torch.set_num_threads(arguments.threads or n_usable_cores())
    report = Report(arguments.out)
    results = measure(
        arguments.recordings,
        states,
        arguments.temperature,
        arguments.seed,
        select_device(arguments.device),
        report.keep,
        say,
        n_prompts=arguments.prompts,
        seconds=arguments.seconds,
        long_seconds=arguments.long,
        n_long_prompts=arguments.long_prompts or N_LONG,
        with_notes=not arguments.skip_notes,
    )
    print(report.write(results))
    pictures = ", ".join(["sound.png", *report.sheets])
    say(f"written to {arguments.out}: table.md, results.json, {pictures}, listen")
    return 0


def main(argv=None) -> int:
    arguments = parse_arguments(argv)
    return exit_status("bench.sound", lambda: run(arguments), "trained states stay; nothing else was written")


if __name__ == "__main__":
    sys.exit(main())
