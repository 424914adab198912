"""MusicXML, MIDI, audio or typed chords -> waveform of a prompt, and its tempo and time signature."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex

from decoding import SILENCE, Unusable, decode
from errors import UserError, count
from meter import Meter

MAX_SECONDS = 600.0  # of an audio prompt
# Seconds by the clock after which a score that hangs is given up. What bounds it is its processor time (30 s, see
# score/__main__.py), so that a loaded machine refuses none.
SCORE_TIMEOUT = 1200.0
_SCORE = regex.compile(r"\.(musicxml|xml|mxl|midi?)$", regex.IGNORECASE)


def is_score(path: Path) -> bool:
    """Whether ``path`` is read as a score, by its name."""
    return bool(_SCORE.search(path.name))


@dataclass(frozen=True)
class Prompt:
    """What is to be continued: float32 ``[n_samples]``, stereo ``[2, n_samples]``, and the tempo and time signature
    at its end: of audio, and where no bar can be counted by them, None. ``name`` is that of its file without the
    suffix; ``synthesized``, whether the player played it. ``line`` is where one of its bars begins, in seconds: those
    that follow the prompt are counted from it; of audio None."""

    name: str
    waveform: np.ndarray
    meter: Meter | None = None
    synthesized: bool = False
    line: float | None = None


def load_prompt(path, sample_rate: int, channels: int = 1, soundfont=None, start=None, stop=None) -> np.ndarray:
    """The waveform of :func:`load`."""
    return load(path, sample_rate, channels, soundfont, start, stop).waveform


def load(
    path,
    sample_rate: int,
    channels: int = 1,
    soundfont: str | Path | None = None,
    start: float | None = None,
    stop: float | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Prompt:
    """The sound of a prompt.

    Args:
        path: MusicXML (``.musicxml .xml .mxl``), MIDI (``.mid .midi``) or any audio file.
        sample_rate: wanted, in Hz.
        channels: wanted, 1 or 2; a mono file is played on both.
        soundfont: an SF2 file that plays scores; default: :func:`general_midi`.
        start, stop: seconds of an audio file, of which the rest is left out; scores are played as a whole.
        cancelled: asked while a score is played in its process; once it is true, that is ended.

    Returns:
        float32 ``[n_samples]``, stereo ``[2, n_samples]``; a score ends with its last note, audio where it ends. A
        score without tempo and time signature has 120 and 4/4.

    Raises:
        UserError: missing, unreadable, empty, silent, too long or hostile.
        KeyboardInterrupt: cancelled.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file; give a MusicXML, MIDI or audio file")
    if not path.is_file():
        raise UserError(f"{path}: not a file; give a MusicXML, MIDI or audio file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty; give a MusicXML, MIDI or audio file")
    if is_score(path):
        waveform, meter, line = play_score(path, sample_rate, channels, soundfont, cancelled)
    else:
        waveform, meter, line = load_audio(path, sample_rate, channels, start, stop), None, None
    if np.abs(waveform).max(initial=0.0) < SILENCE:
        raise UserError(f"{path}: is silent; give a prompt that can be heard")
    return Prompt(path.stem, waveform, meter, is_score(path), line)


def load_audio(
    path: Path, sample_rate: int, channels: int = 1, start: float | None = None, stop: float | None = None
) -> np.ndarray:
    """Decode an audio prompt, or its seconds from ``start`` to ``stop``. Shape: ``[n_samples]`` float32, stereo
    ``[2, n_samples]``."""
    blocks, n_samples, n_kept = [], 0, 0
    first = round((start or 0) * sample_rate)
    last = None if stop is None else round(stop * sample_rate)
    try:
        for block in decode(path, sample_rate, channels):
            kept = block[..., max(0, first - n_samples) : None if last is None else max(0, last - n_samples)]
            n_samples += block.shape[-1]
            if kept.shape[-1]:
                blocks.append(kept)
                n_kept += kept.shape[-1]
            if n_kept > MAX_SECONDS * sample_rate:
                raise UserError(f"{path}: longer than {MAX_SECONDS:.0f} s; cut it, or take a part by --from and --to")
            if last is not None and n_samples >= last:
                break
    except Unusable as error:
        raise UserError(f"{path}: {error}; give a MusicXML, MIDI or audio file") from None
    if not blocks and n_samples:
        raise UserError(f"{path}: is {n_samples / sample_rate:.1f} s long; --from {start:g} is beyond its end")
    if not blocks:
        raise UserError(f"{path}: only {count(n_samples, 'sample')} long; give a longer prompt")
    return np.concatenate(blocks, axis=-1)


def load_chords(
    text: str,
    meter: Meter,
    key: str | None,
    instrument: str | None,
    sample_rate: int,
    channels: int = 1,
    soundfont: str | Path | None = None,
    name: str = "chords",
    cancelled: Callable[[], bool] = lambda: False,
) -> Prompt:
    """A typed chord progression, see :func:`chords.progression`; ``cancelled`` as of :func:`load`.

    Raises:
        UserError: a chord that is none, with its place.
    """
    from chords import progression, to_midi

    bars = progression(text, key)
    blob = to_midi(bars, meter, instrument or "piano")
    with tempfile.TemporaryDirectory(prefix="nextframe-") as scratch:
        path = Path(scratch) / "chords.mid"
        path.write_bytes(blob)
        waveform, _, _ = play_score(path, sample_rate, channels, soundfont, cancelled)
    rest = max(0, round(len(bars) * meter.bar_seconds * sample_rate) - waveform.shape[-1])  # silence at the end
    return Prompt(name, np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, rest)]), meter, True, 0.0)


def general_midi() -> str:
    """The General MIDI soundfont that the pretty_midi package carries."""
    from importlib.util import find_spec

    package = find_spec("pretty_midi")
    if package is None or not package.origin:
        raise UserError("pretty_midi (with its soundfont) is not installed; pip install -r requirements.txt")
    return str(Path(package.origin).with_name("TimGM6mb.sf2"))


def check_soundfont(path: str | Path) -> str:
    """The absolute path of a soundfont that can be played.

    Raises:
        UserError: missing, not SF2, or of compressed samples (SF3).
    """
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            body = file.read(1 << 20)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a soundfont, FILE.sf2") from None
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise UserError(f"{path}: is no soundfont; give an SF2 file")
    samples = body.find(b"smpl")
    if samples >= 0 and body[samples + 8 : samples + 12] == b"OggS":
        raise UserError(f"{path}: has compressed samples (SF3), which are not played; give an SF2 file")
    return str(Path(path).resolve())


def play_score(
    path: Path,
    sample_rate: int,
    channels: int = 1,
    soundfont: str | Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, Meter | None, float]:
    """Read and play a score in a child process with limits, see :mod:`score`: its sound, the tempo and time
    signature at its end, and the seconds at which its last bar ends. Shape: as :func:`load_audio`

    Raises:
        UserError: it cannot be played within the limits.
        KeyboardInterrupt: ``cancelled``, which is asked ten times a second, says so; the child is ended.
    """
    font = general_midi() if soundfont is None else check_soundfont(soundfont)
    with tempfile.TemporaryDirectory(prefix="nextframe-") as scratch:
        out = Path(scratch) / "out.f32"
        # -P: no module of the folder that the user works in.
        command = [sys.executable, "-P", "-m", "score", *map(str, (path.resolve(), out, sample_rate, font, channels))]
        # music21 keeps its settings and caches under the home and temporary folders: a private one.
        environment = {**os.environ, "HOME": scratch, "TMPDIR": scratch, "PYTHONPATH": str(Path(__file__).parent)}
        if os.environ.get("PYTHONPATH"):
            environment["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment["PYTHONUSERBASE"] = site.getuserbase()
        status, said, errors = _run(command, environment, cancelled)
        if status is None:
            raise UserError(
                f"{path}: takes more than {SCORE_TIMEOUT:.0f} s to read; shorten the score, or free the machine"
            )
        if status == 3:
            raise UserError(f"{path}: {said.strip().splitlines()[-1]}")
        if status < 0:
            raise UserError(f"{path}: needs more time or memory than a score may; shorten it")
        if status != 0:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{path}: cannot be read as a score ({last[:200]}); export it again as MusicXML or MIDI")
        waveform = np.fromfile(out, dtype=np.float32)
        end = json.loads(said.strip().splitlines()[-1])
    meter = Meter.if_sane(end["tempo"], *end["time_signature"])
    return waveform if channels == 1 else waveform.reshape(channels, -1), meter, end["line"]


def _run(command: list[str], environment: dict[str, str], cancelled: Callable[[], bool]):
    """Status (None: over time), stdout and stderr of a child process, which does not outlive this call."""
    end = time.monotonic() + SCORE_TIMEOUT
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as child:
        try:
            while not cancelled():
                left = end - time.monotonic()
                try:
                    said, errors = child.communicate(timeout=max(0.0, min(0.1, left)))
                except subprocess.TimeoutExpired:
                    if left <= 0.1:
                        return None, "", ""
                else:
                    return child.returncode, said, errors
            raise KeyboardInterrupt
        finally:
            child.kill()
