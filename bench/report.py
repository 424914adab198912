"""What :mod:`bench.sound` writes: the tables, every number as JSON, a picture and WAV files to listen to."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

N_SHOWN = 3  # prompts in the picture and as WAV files


class Report:
    """Collects what the picture needs while the rows are measured; writes into ``folder``."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.shown, self.curves, self.protocol = {}, {}, None

    def keep(self, protocol, row: dict, waveforms, long_waveforms, is_model: bool):
        """WAV files of a row, and its part of the picture (of the first sample rate only)."""
        name, rate = row["row"], protocol.sample_rate
        indices = np.linspace(0, len(waveforms) - 1, min(N_SHOWN, len(waveforms))).round().astype(int)
        pieces = [np.asarray(waveforms[i], np.float32) for i in indices]
        for i, piece in zip(indices, pieces, strict=True):
            self._wav(f"prompt-{i:02d}, {name}", piece, rate)
        long = [] if long_waveforms is None else [np.asarray(w, np.float32) for w in long_waveforms]
        if is_model:
            for i, piece in zip(protocol.long_rows, long, strict=True):
                self._wav(f"long-{i:02d}, {name}", piece, rate)
        self.protocol = self.protocol or protocol
        if protocol is self.protocol and (is_model or not self.shown):
            self.shown[name] = pieces
            self.curves[name] = [piece[protocol.n_prompt :] for piece in long]

    def write(self, results: dict) -> str:
        """The files; returns the tables as Markdown."""
        from checkpoint import write_atomic

        text = tables(results)
        write_atomic(self.folder / "table.md", text.encode())
        write_atomic(self.folder / "results.json", (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
        write_atomic(self.folder / "sound.png", self._picture(results))
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

        figure = Figure(figsize=(12, 13), dpi=90, layout="constrained")
        grid = figure.add_gridspec(4, 6, height_ratios=[1.1, 1, 1, 1])
        _distances(figure.add_subplot(grid[0, :]), results["rows"])
        names = list(self.shown)
        for line, name in enumerate([names[0], names[-1] if len(names) == 1 else names[1]]):
            for column, piece in enumerate(self.shown[name]):
                axes = figure.add_subplot(grid[1 + line, 2 * column : 2 * column + 2])
                _spectrogram(axes, piece, self.protocol, name)
        for column, (what, unit) in enumerate((("loudness", "dB"), ("flatness", "dB"))):
            axes = figure.add_subplot(grid[3, 3 * column : 3 * column + 3])
            _over_time(axes, self.curves, self.protocol, what, unit)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        return buffer.getvalue()


def _distances(axes, rows: list[dict]):
    distances = np.array([row["fad"] for row in rows])
    low, high = np.array([row["fad_interval"] for row in rows]).T
    places = np.arange(len(rows))[::-1]
    error = np.stack([distances - low, high - distances]).clip(min=0)
    axes.barh(places, distances, xerr=error, color="tab:blue", alpha=0.7, capsize=3)
    axes.set_yticks(places, [row["row"] for row in rows], parse_math=False)
    axes.set_xlabel("Fréchet audio distance to the training recordings (MusiCNN), 95 % interval; less is nearer")


def _spectrogram(axes, waveform, protocol, name: str):
    import metrics

    rate = protocol.sample_rate
    power = metrics.power_frames(waveform, rate)
    decibels = 10 * np.log10((power @ metrics.mel_filters(power.shape[1], rate, 128)).clip(min=1e-12))
    seconds = len(waveform) / rate
    extent = (0, seconds, 0, 1)
    axes.imshow(decibels.T, origin="lower", aspect="auto", cmap="magma", vmin=-100, vmax=-20, extent=extent)
    axes.axvline(protocol.n_prompt / rate, color="white", linewidth=1, linestyle="--")
    top = 2595 * np.log10(1 + rate / 1400)
    hertz = [f for f in (100, 1000, 4000, 10000) if f < rate / 2]
    axes.set_yticks([2595 * np.log10(1 + f / 700) / top for f in hertz], [f"{f:g} Hz" for f in hertz], fontsize=7)
    axes.set_title(name, fontsize=9, parse_math=False)
    axes.set_xlabel("time (s)", fontsize=8)


def _over_time(axes, curves: dict, protocol, what: str, unit: str):
    import metrics

    band = protocol.bands[what]
    axes.axhspan(band[5], band[95], color="0.85", label="5 to 95 % of the corpus")
    for i, (name, pieces) in enumerate(curves.items()):
        for j, piece in enumerate(pieces):
            values = metrics.spectral_figures(piece, protocol.sample_rate)[what]
            axes.plot(np.arange(len(values)) + 0.5, values, color=f"C{i}", linewidth=1, label=name if not j else None)
    axes.set_xlabel("seconds after the prompt")
    axes.set_ylabel(f"{what} ({unit})")
    axes.legend(fontsize=7)


# -- tables ------------------------------------------------------------------------------------


def _number(key: str, digits: int = 2, factor: float = 1):
    return lambda row: "-" if row.get(key) is None else f"{factor * row[key]:.{digits}f}"


def _percent(key: str):
    return _number(key, 0, 100)


def _interval(row: dict) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(row["fad"], *row["fad_interval"])


def _count(key: str):
    return lambda row: f"{row[key]} of {row['long_rollouts']}"


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
        ),
    ),
    (
        "Movement of the continuations, and how many of them lie within the corpus' 10th to 90th percentile "
        "(%, 80 is usual).",
        (
            ("onsets/s", _number("movement_onsets")),
            ("within, %", _percent("usual_onsets")),
            ("flux, dB", _number("movement_flux")),
            ("within, %", _percent("usual_flux")),
            ("self-similarity", _number("movement_self_similarity")),
            ("within, %", _percent("usual_self_similarity")),
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
