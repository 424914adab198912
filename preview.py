"""What a state sounds like: a few seconds from a recording on, as a file and a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from audio_file import wav_bytes
from config import is_young
from dataset import Segment
from predictor import Predictor, rejoin
from spectrogram import spectrogram_png

PROMPT, LENGTH = 3.0, 6.0  # s


@dataclass(frozen=True)
class Preview:
    """Prompt and continuation, float32 ``[n_samples]`` or ``[2, n_samples]``; the bytes of a WAV and of a PNG file."""

    waveform: torch.Tensor
    wav: bytes
    png: bytes


def make_preview(predictor: Predictor, segment: Segment, watch: Callable[[float], None]) -> Preview:
    """Go on from a third into a recording.

    Args:
        watch: called with the share that is done, with each frame; it may raise.

    Raises:
        FloatingPointError: what the model makes is not finite.
    """
    framing = predictor.config.featurizer
    n_prompt = int(min(PROMPT * framing.sample_rate, segment.n_samples))
    waveform, _ = segment.read((segment.n_samples - n_prompt) // 3, n_prompt)
    prompt = predictor.match_level(torch.from_numpy(waveform).unsqueeze(0))
    n_frames, n_made = int(LENGTH * framing.frame_rate), 0

    def stopped() -> bool:  # asked with each frame
        nonlocal n_made
        n_made += 1
        watch(min(1.0, n_made / n_frames))
        return False

    # It draws from its own generator: the training's random states stay as they are.
    blocks = predictor.stream(prompt, n_frames, stopped=stopped)
    out = rejoin(prompt.to(predictor.device), blocks)[0].cpu().clamp(-1, 1)
    if not out.isfinite().all():
        raise FloatingPointError("it is not finite")
    young = " (young)" * is_young(predictor.step)
    title = f"step {predictor.step}{young}: {segment.recording.name}"
    png = spectrogram_png(out, framing, title, n_prompt / framing.sample_rate)
    return Preview(out, wav_bytes(out.numpy(), framing.sample_rate), png)
