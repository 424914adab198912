"""Stateful rollout: one frame at a time, one path for predict, preview, evaluation and web."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from checkpoint import State, load_run
from config import RunConfig
from device import has_bf16_matrix_units
from featurizer import Featurizer
from model_definition import build_model
from phase import CROSSFADE, continue_waveform, lookahead

BLOCK = 256  # frames between two calls of the phase repair
MAX_PROMPT_SECONDS = 60  # of the prompt's end that the LSTM hears


@dataclass(frozen=True)
class Predictor:
    """A trained model, ready to continue waveforms.

    ``level`` is the median RMS of the corpus; ``step`` the training step of the state.
    """

    model: torch.nn.Module
    config: RunConfig
    level: float
    step: int

    @classmethod
    def load(cls, metadata_path, device: torch.device | str = "cpu") -> Predictor:
        """The newest complete state of a run, also while it trains.

        Raises:
            UserError: metadata or state missing, damaged, foreign or of a newer format.
        """
        metadata, state = load_run(metadata_path)
        return cls.from_state(metadata.config, state, device)

    @classmethod
    def from_state(cls, config: RunConfig, state: State, device: torch.device | str = "cpu") -> Predictor:
        with torch.random.fork_rng(devices=[]):  # a preview must not change the training's dice
            model = build_model(config.featurizer, config.model)
        model.load_state_dict({**state.group("model"), **state.group("average")})
        return cls(model.to(device).eval(), config, state.info["level"], state.info["step"])

    def match_level(self, waveform: torch.Tensor) -> torch.Tensor:
        """``waveform`` scaled to the corpus' level (median RMS), as a prompt should be."""
        rms = waveform.square().mean().sqrt().clamp(min=1e-8)
        return waveform * (self.level / rms)

    @torch.inference_mode()
    def continue_(
        self,
        prompt: torch.Tensor,
        n_frames: int,
        temperature: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        progress=None,
    ) -> torch.Tensor:
        """Continue each prompt by ``n_frames`` hops.

        Args:
            prompt: waveforms at the model's sample rate and at the corpus' level.
            progress: called with the number of frames made so far.

        Shape:
            prompt ``[B, n_samples]`` -> ``[B, n_samples + n_frames * hop_length]``; the prompt is
            kept to the sample but for its last :data:`phase.CROSSFADE`, where the join is faded.

        Raises:
            ValueError: ``n_frames`` is not positive.
        """
        if n_frames < 1:
            raise ValueError(f"n_frames must be at least 1, not {n_frames}")
        framing = self.config.featurizer
        device = next(self.model.parameters()).device
        featurizer = Featurizer(framing, device)
        prompt = prompt.to(device)
        # Frames end at the join; in front, a prompt shorter than a frame is preceded by silence.
        n_heard = min(prompt.shape[-1], MAX_PROMPT_SECONDS * framing.sample_rate)
        n_heard = max(framing.n_fft, n_heard - (n_heard - framing.n_fft) % framing.hop_length)
        heard = torch.nn.functional.pad(prompt, (max(0, n_heard - prompt.shape[-1]), 0))[:, -n_heard:]
        generator = torch.Generator(device).manual_seed(seed)
        fast = self.config.training.precision == "auto" and has_bf16_matrix_units(device)
        dtype = torch.bfloat16 if fast else torch.float32
        state = self.model.start(featurizer.join(featurizer.stft(heard)), dtype)

        pieces, known, pending = [], heard[:, -framing.n_fft :], []
        n_done = 0
        while n_done < n_frames:
            n_block = min(BLOCK, n_frames - n_done)
            while len(pending) < n_block + lookahead(framing):
                frame, state = self.model.next_frame(state, temperature, top_k, generator)
                pending.append(frame)
            frames = torch.stack(pending, dim=1)
            if self.model.predicts_phase:
                log_magnitude, phase = frames.chunk(2, dim=-1)
                new = continue_waveform(featurizer, known, log_magnitude, 0, phase)
            else:
                new = continue_waveform(featurizer, known, frames)
            new = new[:, : CROSSFADE + n_block * framing.hop_length]
            pieces.append(new)
            known = torch.cat([known[:, :-CROSSFADE], new], dim=1)[:, -framing.n_fft :]
            pending = pending[n_block:]
            n_done += n_block
            if progress:
                progress(n_done)
        return _overlay(prompt, pieces)


def _overlay(prompt: torch.Tensor, pieces: list[torch.Tensor]) -> torch.Tensor:
    """Join pieces that each begin with a better version of the last CROSSFADE samples."""
    lead = max(0, CROSSFADE - prompt.shape[-1])  # a prompt shorter than the fade
    whole = [torch.nn.functional.pad(prompt, (lead, 0))[:, :-CROSSFADE]]
    whole += [piece[:, :-CROSSFADE] for piece in pieces[:-1]] + [pieces[-1]]
    return torch.cat(whole, dim=1)[:, lead:]
