"""MusicXML, MIDI or audio -> waveform of a prompt."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex

from corpus import SILENCE, Unusable, decode
from errors import UserError

MAX_SECONDS = 600.0  # of an audio prompt
SCORE_TIMEOUT = 30.0  # s for a score to be read and played
_SCORE = regex.compile(r"\.(musicxml|xml|mxl|midi?)$", regex.IGNORECASE)


def is_score(path: Path) -> bool:
    """Whether ``path`` is read as a score, by its name."""
    return bool(_SCORE.search(path.name))


@dataclass(frozen=True)
class Prompt:
    """The sound of a prompt, and the beat that it has if it is a score: at its beginning, and at its end."""

    waveform: np.ndarray  # float32 [n_samples], stereo [2, n_samples]
    tempo: float | None = None  # quarters a minute
    time_signature: tuple[int, int] | None = None
    end_tempo: float | None = None
    end_time_signature: tuple[int, int] | None = None


def load_prompt(path, sample_rate: int, channels: int = 1, soundfont: str | None = None) -> np.ndarray:
    """The sound of a prompt.

    Args:
        path: MusicXML (``.musicxml .xml .mxl``), MIDI (``.mid .midi``) or any audio file.
        sample_rate: wanted, in Hz.
        channels: wanted, 1 or 2; a mono file is played on both.
        soundfont: an SF2 file that plays scores; default: :func:`general_midi`.

    Returns:
        float32 ``[n_samples]``, stereo ``[2, n_samples]``. A score ends with its last note, audio where it ends.

    Raises:
        UserError: missing, unreadable, empty, silent, too long or hostile.
    """
    return load(path, sample_rate, channels, soundfont).waveform


def load(path, sample_rate: int, channels: int = 1, soundfont: str | None = None) -> Prompt:
    """As :func:`load_prompt`, with tempo and time signature of a score (120 and 4/4 where it has none; audio: None)."""
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
        prompt = play_score(path, sample_rate, channels, soundfont)
    else:
        prompt = Prompt(load_audio(path, sample_rate, channels))
    if np.abs(prompt.waveform).max(initial=0.0) < SILENCE:
        raise UserError(f"{path}: is silent; give a prompt that can be heard")
    return prompt


def load_audio(path: Path, sample_rate: int, channels: int = 1) -> np.ndarray:
    """Decode an audio prompt. Shape: ``[n_samples]`` float32, stereo ``[2, n_samples]``."""
    blocks, n_samples = [], 0
    try:
        for block in decode(path, sample_rate, channels):
            blocks.append(block)
            n_samples += block.shape[-1]
            if n_samples > MAX_SECONDS * sample_rate:
                raise UserError(f"{path}: longer than {MAX_SECONDS:.0f} s; cut it")
    except Unusable as error:
        raise UserError(f"{path}: {error}; give a MusicXML, MIDI or audio file") from None
    if not blocks:
        raise UserError(f"{path}: only {n_samples} samples long; give a longer prompt")
    return np.concatenate(blocks, axis=-1)


def general_midi() -> str:
    """The General MIDI soundfont that the pretty_midi package carries."""
    from importlib.util import find_spec

    package = find_spec("pretty_midi")
    if package is None or not package.origin:
        raise UserError("pretty_midi (with its soundfont) is not installed; pip install -r requirements.txt")
    return str(Path(package.origin).with_name("TimGM6mb.sf2"))


def check_soundfont(path: str) -> str:
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


def play_score(path: Path, sample_rate: int, channels: int = 1, soundfont: str | None = None) -> Prompt:
    """Read and play a score in a child process with limits; see :mod:`score`."""
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
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=SCORE_TIMEOUT, env=environment)
        except subprocess.TimeoutExpired:
            raise UserError(f"{path}: takes more than {SCORE_TIMEOUT:.0f} s to read; shorten the score") from None
        if child.returncode == 3:
            raise UserError(f"{path}: {child.stdout.strip().splitlines()[-1]}")
        if child.returncode < 0:
            raise UserError(f"{path}: needs more time or memory than a score may; shorten it")
        if child.returncode != 0:
            last = (child.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{path}: cannot be read as a score ({last[:200]}); export it again as MusicXML or MIDI")
        waveform = np.fromfile(out, dtype=np.float32)
        beat = json.loads(child.stdout.strip().splitlines()[-1])
    return Prompt(
        waveform if channels == 1 else waveform.reshape(channels, -1),
        beat["first"]["tempo"],
        tuple(beat["first"]["time_signature"]),
        beat["last"]["tempo"],
        tuple(beat["last"]["time_signature"]),
    )
