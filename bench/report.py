"""What :mod:`bench.sound` writes: the tables, every number as JSON, pictures and WAV files to listen to."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

import metrics
from bench.pictures import Sheet, decibels, draw

N_SHOWN = 3  # prompts in sound.png and as WAV files
N_ROWS, N_LONG_ROWS = 8, 8  # prompts in rollouts.png and in long.png, at most
N_CURVES = 4  # long rollouts of a row in the curves of sound.png


class Report:
    """Collects what the pictures need while the rows are measured; writes into ``folder``."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.shown, self.curves, self.protocol = {}, {}, None
        self.sheets: dict[str, Sheet] = {}  # by the name of the file
        self.protocols = []

    def keep(self, protocol, row: dict, waveforms, long_waveforms, is_model: bool):
        """WAV files of a row, and its part of the pictures (of ``sound.png``: of the first sample rate only)."""
        name, rate = row["row"], protocol.sample_rate
        indices = _spread(len(waveforms), N_SHOWN)
        pieces = [np.asarray(waveforms[i], np.float32) for i in indices]
        for i, piece in zip(indices, pieces, strict=True):
            self._wav(f"prompt-{i:02d}, {name}", piece, rate)
        is_real = waveforms is protocol.real
        long = protocol.real_long_pieces if is_real else [] if long_waveforms is None else long_waveforms
        shown = _spread(len(protocol.long_rows), N_LONG_ROWS)
        if is_model:
            ends = row["long_ends"]
            for i in (i for i, end in enumerate(ends) if end or i in shown):  # whatever ends badly can be heard
                self._wav(f"long-{protocol.long_rows[i]:02d}, {name}", np.asarray(long[i], np.float32), rate)
        if is_model or is_real:
            sheet = self._sheet("rollouts", protocol)
            for i in _spread(len(waveforms), N_ROWS):
                sheet.add(name, i, waveforms[i])
            sheet = self._sheet("long", protocol)
            for i in shown if len(long) else []:
                note = " and ".join(row["long_ends"][i]) if is_model else ""
                sheet.add(name, protocol.long_rows[i], long[i], note)
        self.protocol = self.protocol or protocol
        if protocol is self.protocol and (is_model or not self.shown):
            self.shown[name] = [(decibels(piece, rate), len(piece) / rate) for piece in pieces]
            whole = [] if long_waveforms is None else long_waveforms
            pieces = [np.asarray(whole[i], np.float32)[protocol.n_prompt :] for i in _spread(len(whole), N_CURVES)]
            self.curves[name] = [metrics.spectral_figures(piece, rate) for piece in pieces]

    def _sheet(self, kind: str, protocol) -> Sheet:
        """The picture of that kind, one for each protocol: ``rollouts.png``, ``rollouts-2.png``."""
        if not any(one is protocol for one in self.protocols):  # they hold arrays, which are not compared
            self.protocols.append(protocol)
        number = 1 + next(i for i, one in enumerate(self.protocols) if one is protocol)
        join = protocol.n_prompt / protocol.sample_rate
        name = f"{kind}{f'-{number}' * (number > 1)}.png"
        return self.sheets.setdefault(name, Sheet(protocol.sample_rate, join))

    def write(self, results: dict) -> str:
        """The files; returns the tables as Markdown."""
        from checkpoint import write_atomic

        text = tables(results)
        write_atomic(self.folder / "table.md", text.encode())
        write_atomic(self.folder / "results.json", (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
        write_atomic(self.folder / "sound.png", self._picture(results))
        for name, sheet in self.sheets.items():
            write_atomic(self.folder / name, sheet.png())
        return text

    def _wav(self, name: str, waveform, sample_rate: int):
        import soundfile

        from checkpoint import write_atomic

        waveform = waveform / max(1.0, float(np.abs(waveform).max()) / 0.99)
        buffer = io.BytesIO()
        soundfile.write(buffer, waveform, sample_rate, format="WAV", subtype="PCM_16")
        name = name.replace(", ", "-").replace(" ", "-").replace("/", "-")
        write_atomic(self.folder / "listen" / f"{name}.wav", buffer.getvalue())

    def _picture(self, results: dict) -> bytes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        top, below = max(3.5, 0.25 * len(results["rows"])), 3.2  # inches: each row has its name beside its bar
        figure = Figure(figsize=(12, top + 3 * below), dpi=90, layout="constrained")
        grid = figure.add_gridspec(4, 6, height_ratios=[top, below, below, below])
        _distances(figure.add_subplot(grid[0, :]), results["rows"])
        names = list(self.shown)
        for line, name in enumerate([names[0], names[-1] if len(names) == 1 else names[1]]):
            for column, (image, seconds) in enumerate(self.shown[name]):
                axes = figure.add_subplot(grid[1 + line, 2 * column : 2 * column + 2])
                rate = self.protocol.sample_rate
                draw(axes, image, seconds, self.protocol.n_prompt / rate, rate, name)
        for column, (what, unit) in enumerate((("loudness", "dB"), ("flatness", "dB"))):
            axes = figure.add_subplot(grid[3, 3 * column : 3 * column + 3])
            _over_time(axes, self.curves, self.protocol, what, unit)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        return buffer.getvalue()


def _spread(n: int, most: int) -> list[int]:
    """Up to ``most`` of ``0 .. n - 1``, from the first to the last."""
    return sorted(set(np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()))


def _distances(axes, rows: list[dict]):
    distances = np.array([row["fad"] for row in rows])
    low, high = np.array([row["fad_interval"] for row in rows]).T
    places = np.arange(len(rows))[::-1]
    error = np.stack([distances - low, high - distances]).clip(min=0)
    axes.barh(places, distances, xerr=error, color="tab:blue", alpha=0.7, capsize=3)
    axes.set_yticks(places, [row["row"] for row in rows], parse_math=False)
    axes.set_xlabel("Fréchet audio distance to the training recordings (MusiCNN), 95 % interval; less is nearer")


def _over_time(axes, curves: dict, protocol, what: str, unit: str):
    band = protocol.bands[what]
    axes.axhspan(band[5], band[95], color="0.85", label="5 to 95 % of the corpus")
    for i, (name, pieces) in enumerate(curves.items()):
        for j, piece in enumerate(pieces):
            values = piece[what]
            axes.plot(np.arange(len(values)) + 0.5, values, color=f"C{i}", linewidth=1, label=name if not j else None)
    axes.set_xlabel("seconds after the prompt")
    axes.set_ylabel(f"{what} ({unit})")
    axes.legend(fontsize=7)


# -- tables ------------------------------------------------------------------------------------


def _number(key: str, digits: int = 2, factor: float = 1, sign: str = ""):
    """``sign``: "+" for differences. The mean over seeds has its spread behind it."""

    def show(row: dict) -> str:
        if row.get(key) is None:
            return "-"
        spread = row.get("spread", {}).get(key)
        behind = "" if spread is None else f" ± {factor * spread:.{digits}f}"
        return f"{factor * row[key]:{sign}.{digits}f}{behind}"

    return show


def _percent(key: str, sign: str = ""):
    return _number(key, 0, 100, sign)


def _interval(row: dict) -> str:
    if "spread" in row:
        return _number("fad", 1)(row)
    return "{:.1f} ({:.1f} to {:.1f})".format(row["fad"], *row["fad_interval"])


def _count(key: str):
    def show(row: dict) -> str:
        n = f"{_number(key, 1)(row)}" if "spread" in row else f"{row[key]}"
        return f"{n} of {row['long_rollouts']:g}"

    return show


TABLES = (
    (
        "Nearness. Fréchet audio distance (FAD, MusiCNN) to the training recordings with its 95 % interval, as a "
        "multiple of what really follows, and how often a classifier tells it from what really follows "
        "(50 %: never, 100 %: always).",
        (("FAD", _interval), ("times real", _number("fad_ratio")), ("told apart, %", _percent("classifier"))),
    ),
    (
        "Seconds outside the corpus' 5th to 95th percentile (%, 10 is usual), and rollouts that end in silence, "
        "in a drone or in noise.",
        (
            ("length, s", _number("long_seconds", 0)),
            ("loudness", _percent("outside_loudness")),
            ("bandwidth", _percent("outside_bandwidth")),
            ("flatness", _percent("outside_flatness")),
            ("flux", _percent("outside_flux")),
            ("silence", _count("ends_silence")),
            ("drone", _count("ends_drone")),
            ("noise", _count("ends_noise")),
            ("none of them", _count("ends_well")),
        ),
    ),
    (
        "Movement of the continuations, and how many of them lie within the corpus' 10th to 90th percentile "
        "(%, 80 is usual; in all three at once as many as of what really follows).",
        (
            ("onsets/s", _number("movement_onsets")),
            ("within, %", _percent("usual_onsets")),
            ("flux, dB", _number("movement_flux")),
            ("within, %", _percent("usual_flux")),
            ("self-similarity", _number("movement_self_similarity")),
            ("within, %", _percent("usual_self_similarity")),
            ("all three within, %", _percent("usual_movement")),
        ),
    ),
    (
        "Beat. Tempo within 6 % of that of the recording with its prompt (doubled or halved; by chance 17 %), how "
        "well onsets keep to the grid of its eighths (median of the resultants; 1: all on one grid), and the longest "
        "stretch in which nothing begins (median).",
        (
            ("tempo kept, %", _percent("tempo_kept")),
            ("resultant", _number("grid")),
            ("longest hold, s", _number("longest_hold", 1)),
        ),
    ),
    (
        "Notes (basic-pitch); chords are the triads that are most like what sounds. Key of the first 5 s against the "
        "prompt's: equal, and the MIREX score (three seconds are little to find a key in); and how many of them are on "
        "the prompt's scale as much as nine in ten real ones.",
        (
            ("notes/s", _number("notes", 1)),
            ("polyphony", _number("polyphony", 1)),
            ("below C3, %", _percent("bass")),
            ("chord changes/s", _number("chord_changes", 1)),
            ("longest chord, s", _number("longest_chord", 1)),
            ("in key, %", _percent("in_key")),
            ("key kept, %", _percent("key_kept")),
            ("key score", _number("key_score")),
            ("on its scale, %", _percent("on_scale")),
        ),
    ),
    (
        "Chords by the bar (four beats at the prompt's tempo; prompts without one are left out), how many of those "
        "that begin have sounded in the eight bars before, and how many of the changes from one chord to the next have "
        "been made in them (harmony: a third, a loop: most, a random walk: few), each with what really follows beside "
        "it (times it, or percentage points more); notes, voices and onsets as a multiple of what really follows.",
        (
            ("chords a bar", _number("chords_per_bar", 1)),
            ("times real", _number("chords_per_bar_share")),
            ("chords repeated, %", _percent("chords_repeated")),
            ("more than real", _percent("chords_repeated_more", "+")),
            ("changes repeated, %", _percent("changes_repeated")),
            ("more than real", _percent("changes_repeated_more", "+")),
            ("without tempo", _number("without_tempo", 0)),
            ("notes", _number("notes_share")),
            ("voices", _number("voices_share")),
            ("onsets", _number("onsets_share")),
        ),
    ),
    (
        "Drift of the long rollouts: the level of three seconds over that of the prompt (dB), 5, 20 and 60 s after it "
        "(medians; at the last of these times also that of its amount, and the softest rollout), and the mean "
        "difference of the mel spectrum from the prompt's without its gain (dB, medians).",
        (
            ("level, 5 s", _number("drift_level_5", 1, sign="+")),
            ("20 s", _number("drift_level_20", 1, sign="+")),
            ("60 s", _number("drift_level_60", 1, sign="+")),
            ("amount, 60 s", _number("drift_off_60", 1)),
            ("softest, 60 s", _number("drift_softest_60", 1, sign="+")),
            ("spectrum, 5 s", _number("drift_spectrum_5", 1)),
            ("20 s", _number("drift_spectrum_20", 1)),
            ("60 s", _number("drift_spectrum_60", 1)),
            ("rollouts of 60 s", _number("drift_n_60", 0)),
        ),
    ),
    (
        "Training: minutes in steps, steps, and the loss on the recordings that are held out (nats a latent, "
        "up to a constant; to be compared within one corpus and one kind of model).",
        (
            ("minutes", _number("minutes", 1)),
            ("steps", _number("step", 0)),
            ("held-out loss", _number("held_out_loss", 3)),
        ),
    ),
    (
        "Copying: the longest stretch that follows one place of the training recordings, and what 19 in 20 recordings "
        "share with another one at most. The join: no step above the prompt's 99th percentile, and the change of level "
        "over it.",
        (
            ("copy, median s", _number("copy_median", 1)),
            ("longest s", _number("copy_longest", 1)),
            ("shared, s", _number("copy_shared", 1)),
            ("no longer than real, %", _percent("copy_no_longer")),
            ("smooth joins, %", _percent("join_smooth")),
            ("level, median dB", _number("join_level_median", 1)),
            ("within 2 dB, %", _percent("join_level_within_2db")),
        ),
    ),
)


def tables(results: dict) -> str:
    """The results as Markdown tables, rows down, figures across; ``-`` where nothing was measured."""
    lines = []
    for title, columns in TABLES:
        rows = [[row["row"], *(show(row) for _, show in columns)] for row in results["rows"]]
        rows = [row for row in rows if set(row[1:]) != {"-"}]
        if rows:
            cells = [["", *(header for header, _ in columns)], ["---"] * (len(columns) + 1), *rows]
            lines += [title, "", *("| " + " | ".join(row) + " |" for row in cells), ""]
    return "\n".join(lines)
