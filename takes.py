"""Prompts -> files with their continuations: one rollout for all, block by block."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from audio_file import BLOCK, AudioFile, AudioFormat, comment
from checkpoint import write_atomic
from config import FeaturizerConfig
from errors import UserError, remedy
from leftovers import temporary_path
from meter import Meter
from phase import CROSSFADE
from predictor import Predictor
from prompt import Prompt
from provenance import MARK
from rhythm import other_tempo
from spectrogram import column_hop, columns_png
from transcription import Transcriber, quantised, to_midi, without_ghosts

JUDGED_SECONDS = 60.0  # of a continuation, at most, that tell its tempo


@dataclass(frozen=True)
class Take:
    """A file to be written.

    ``waveform`` is its prompt at the level of the corpus, float32 ``[n_samples]`` or ``[2, n_samples]``, as all takes
    of that prompt have it; ``seconds`` the length of the continuation.
    """

    path: Path
    prompt: Prompt
    waveform: torch.Tensor
    seconds: float


@dataclass(frozen=True)
class Written:
    """What a take has become: samples at the output's rate, in the file and in the continuation; where in the file
    it begins (0 without the prompt); ``prompt_seconds`` of the prompt, also where that is not in the file; its tempo,
    quarters a minute, where that is clearly not the prompt's: then the file claims neither."""

    take: Take
    n_samples: int
    n_new: int
    join: int
    prompt_seconds: float = 0.0
    other_tempo: float | None = None


def lengths(
    framing: FeaturizerConfig,
    prompts: Sequence[Prompt],
    n_frames: int | None = None,
    seconds: float | None = None,
    bars: int | None = None,
) -> tuple[int, list[float]]:
    """Frames of the longest continuation, and seconds of each: ``n_frames`` of them, ``seconds``, or ``bars`` of its
    prompt."""
    if bars:
        each = [bars * prompt.meter.bar_seconds for prompt in prompts]
    else:
        each = [seconds or n_frames / framing.frame_rate] * len(prompts)
    return n_frames or max(1, math.ceil(max(each) * framing.frame_rate - 1e-6)), each


def plan(
    predictor: Predictor,
    prompts: Sequence[Prompt],
    paths: Sequence[Path],
    seconds: Sequence[float],
    voice: str = "corpus",
) -> list[Take]:
    """The takes, of which each prompt has as many, side by side.

    Args:
        voice: ``"corpus"``: what is synthesized is brought to the corpus' voice, see
            :meth:`predictor.Predictor.in_voice`; ``"plain"``: to its level only, as recordings are in any case.
    """
    n_futures, takes = len(paths) // len(prompts), []
    for i, (prompt, length) in enumerate(zip(prompts, seconds, strict=True)):
        waveform, in_voice = torch.from_numpy(prompt.waveform), voice == "corpus" and prompt.synthesized
        waveform = predictor.in_voice(waveform) if in_voice else predictor.match_level(waveform)
        takes += [Take(path, prompt, waveform, length) for path in paths[i * n_futures :][:n_futures]]
    return takes


def write_takes(
    predictor: Predictor,
    takes: Sequence[Take],
    n_futures: int,
    n_frames: int,
    form: AudioFormat,
    only_new: bool = False,
    fade: float = 0.0,
    loop: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    heard: Callable[[int, np.ndarray], None] = lambda index, samples: None,
    **sampling,
) -> list[Written]:
    """Roll out all takes in one batch, and write their files in memory that does not depend on their length.

    Args:
        takes: from :func:`plan`, ``n_futures`` of each prompt.
        n_frames: of the longest.
        only_new: without the prompts.
        fade, loop: as of :meth:`audio_file.AudioFile.finish`.
        stopped: once it is true, the files end with what has been made; their loop is left out.
        heard: is given, for the take of each index, what of its prompt and then of each block goes into its file,
            float32 ``[n_samples]`` or ``[2, n_samples]`` at the model's rate, as it is made.
        sampling: temperature, seed and progress, as of :meth:`predictor.Predictor.stream`.

    Raises:
        UserError: a file cannot be written; it is not left behind, nor are those after it.
        KeyboardInterrupt: stopped before there was anything to write.
    """
    framing, rate, written = predictor.config.featurizer, form.sample_rate, []
    beginnings = [[] for _ in takes]  # of the continuations, mono, by which their tempo is judged
    joins = [round(take.waveform.shape[-1] * rate / framing.sample_rate) for take in takes]
    ends = [join + round(take.seconds * rate) for join, take in zip(joins, takes, strict=True)]
    with contextlib.ExitStack() as stack:
        files = []

        def write(index: int, samples: np.ndarray):
            files[index].write(samples)
            heard(index, samples)

        for i, (take, length) in enumerate(zip(takes, ends, strict=True)):
            take.path.parent.mkdir(parents=True, exist_ok=True)
            files.append(stack.enter_context(AudioFile(take.path, form, framing.sample_rate, length)))
            write(i, take.waveform[..., :-CROSSFADE].numpy())
        skipped = [max(0, CROSSFADE - take.waveform.shape[-1]) for take in takes]  # of prompts shorter than that
        prompts = [take.waveform for take in takes[::n_futures]]
        tempos = [take.prompt.meter and take.prompt.meter.tempo for take in takes[::n_futures]]
        blocks = predictor.stream(prompts, n_frames, n_futures=n_futures, stopped=stopped, tempos=tempos, **sampling)
        for block in blocks:
            if not block.isfinite().all():
                raise UserError(
                    f"{takes[0].path}: not written: the model of step {predictor.step} makes samples that are not "
                    "finite; train anew with a smaller --set training.learning_rate"
                )
            for i, (samples, skip) in enumerate(zip(block.cpu().numpy(), skipped or [0] * len(takes), strict=True)):
                write(i, samples[..., skip:])
                if sum(map(len, beginnings[i])) < JUDGED_SECONDS * framing.sample_rate:
                    beginnings[i].append(samples if samples.ndim == 1 else samples.mean(0))
            skipped = None
        if skipped:
            raise KeyboardInterrupt
        for take, file, join, beginning in zip(takes, files, joins, beginnings, strict=True):
            start, meter = join if only_new else 0, take.prompt.meter
            faded = min(fade, (file.n_samples - join) / rate)  # of a continuation that was stopped, no more
            other = meter and other_tempo(np.concatenate(beginning), framing.sample_rate, meter.tempo)
            if other:  # what the file says of tempo and loop must be true
                meter = None
            n = file.finish(start, faded, meter, join, loop and not stopped() and not other)
            written.append(Written(take, n, n - (join - start), join - start, join / rate, other))
    return written


def write_picture(written: Written, config: FeaturizerConfig, title: str):
    """The spectrogram of what was written, as a PNG beside it, the join marked."""
    path = written.take.path
    with soundfile.SoundFile(os.fsencode(path)) as file:
        framing, segments = dataclasses.replace(config, sample_rate=file.samplerate), []
        for place in range(0, max(1, file.frames - framing.n_fft + 1), column_hop(file.frames, framing)):
            file.seek(place)
            segments.append(file.read(framing.n_fft, "float32", always_2d=True, fill_value=0).mean(1))
    seconds, join = (n / framing.sample_rate for n in (written.n_samples, written.join))
    png = columns_png(torch.from_numpy(np.stack(segments)), seconds, framing, title, join or None)
    _write(path.with_suffix(".png"), png)


def write_flac(written: Written):
    """The samples of a WAV file of 16 or 24 bits as FLAC beside it, as :func:`write_takes` would have written them."""
    source, path = written.take.path, written.take.path.with_suffix(".flac")
    temporary = temporary_path(path)
    try:
        with soundfile.SoundFile(os.fsencode(source)) as wav:
            keywords = {"format": "FLAC", "subtype": wav.subtype}
            with soundfile.SoundFile(os.fsencode(temporary), "w", wav.samplerate, wav.channels, **keywords) as flac:
                flac.software = MARK
                text = comment(
                    None if written.other_tempo else written.take.prompt.meter, written.join / wav.samplerate
                )
                if text:
                    flac.comment = text
                for block in wav.blocks(BLOCK, dtype="int32"):
                    flac.write(block)
        os.replace(temporary, path)
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or "the disk takes no more"
        raise UserError(f"{path}: cannot be written ({reason}); {remedy(error)}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_midi(written: Written, transcriber: Transcriber, raw: bool = False) -> bool:
    """The notes heard in the continuation, as a MIDI file beside it: it begins where the file begins.

    Args:
        raw: as they are heard; else without ghosts, and on the sixteenths of the prompt's bars where the
            tempo is known and kept.

    Returns:
        whether they are on the grid.
    """
    path, meter = written.take.path, written.take.prompt.meter
    with soundfile.SoundFile(os.fsencode(path)) as file:
        file.seek(written.join)
        waveform, rate = file.read(dtype="float32", always_2d=True).mean(1), file.samplerate
    notes = transcriber.notes(waveform, rate)
    on_grid = not raw and meter is not None and not written.other_tempo
    if not raw:
        notes = without_ghosts(notes)
    if on_grid:
        line, prompt_seconds = written.take.prompt.line, written.prompt_seconds or written.join / rate
        notes = quantised(notes, meter.tempo, prompt_seconds - (line or 0.0), movable=line is None)
    _write(path.with_suffix(".mid"), to_midi(notes, meter or Meter(), written.join / rate))
    return on_grid


def _write(path: Path, blob: bytes):
    try:
        write_atomic(path, blob)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); {remedy(error)}") from None
