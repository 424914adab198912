"""Stateful rollout: one frame at a time, one path for predict, preview, evaluation and web."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch

from checkpoint import State, load_run
from config import RunConfig
from device import rollout_linear
from featurizer import Featurizer
from model_definition import build_model
from phase import CROSSFADE, continue_waveform, lookahead
from rollout import plain_linear

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
        """Each waveform ``[..., n_samples]`` scaled to the corpus' level (median RMS), as a prompt should be.

        Stereo ``[..., 2, n_samples]``: one gain for both channels, by the RMS of both.
        """
        of = -1 if self.config.featurizer.channels == 1 else (-2, -1)
        rms = waveform.square().mean(of, keepdim=True).sqrt().clamp(min=1e-8)
        return waveform * (self.level / rms)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @functools.cached_property
    def _layout(self):
        return self.model.lay_out(rollout_linear(self.device) or plain_linear)

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
            prompt ``[B, n_samples]``, stereo ``[B, 2, n_samples]`` -> the same with ``n_samples + n_frames *
            hop_length``; the prompt is kept to the sample but for its last :data:`phase.CROSSFADE`, where the
            join is faded.

        Raises:
            ValueError: ``n_frames`` is not positive, or the prompt has other channels than the model.
        """
        if n_frames < 1:
            raise ValueError(f"n_frames must be at least 1, not {n_frames}")
        frames = self.frames(prompt, temperature, top_k, seed)
        return self._sound(prompt, frames, n_frames, progress)

    @torch.inference_mode()
    def reconstruct(self, waveform: torch.Tensor, n_prompt: int, codec: bool = True, seed: int = 0) -> torch.Tensor:
        """What :meth:`continue_` gave were every prediction true: the limit that its parts set.

        Args:
            waveform: prompts with what really follows them.
            n_prompt: samples of the prompt.
            codec: True keeps the true codes and draws the rest; False keeps the true magnitudes,
                so that only the phase is made anew.

        Shape:
            waveform ``[B, n_samples]``, stereo ``[B, 2, n_samples]`` -> the same or up to ``n_fft + 5 *
            hop_length`` samples less

        Raises:
            ValueError: the waveform has other channels than the model.
        """
        framing = self.config.featurizer
        self._check_channels(waveform)
        prompt = waveform[..., :n_prompt]
        follows = waveform[..., n_prompt - framing.n_fft + framing.hop_length :].to(self.device)
        true = Featurizer(framing, self.device).log_magnitude(follows)
        frames = iter(true.unbind(1))
        if codec:
            frames = self.frames(prompt, seed=seed, true_codes=self.model.codec.encode(true))
        return self._sound(prompt, frames, true.shape[1] - lookahead(framing))

    def frames(self, prompt: torch.Tensor, temperature: float = 1.0, top_k: int = 0, seed: int = 0, true_codes=None):
        """The frames that follow each prompt, one after another; without ``true_codes`` there is no end.

        Args:
            true_codes: taken instead of drawn ones.

        Shape:
            prompt ``[B, n_samples]``, stereo ``[B, 2, n_samples]``, true_codes ``[B, T, n_books]``

        Yields:
            log-magnitude ``[B, n_bins]``, with the phase beside it where the model predicts it
        """
        featurizer, heard = self._hear(prompt)
        generator = torch.Generator(heard.device).manual_seed(seed)
        state = self.model.start(featurizer.join(featurizer.stft(heard)), self._layout, generator)
        for codes in itertools.repeat({}) if true_codes is None else ({"true_codes": c} for c in true_codes.unbind(1)):
            frame, state = self.model.next_frame(state, temperature, top_k, generator, **codes)
            yield frame

    def _check_channels(self, waveform: torch.Tensor):
        channels = self.config.featurizer.channels
        if waveform.shape[1:-1] != ((channels,) if channels > 1 else ()):
            raise ValueError(f"a waveform of shape {tuple(waveform.shape)} for a model of {channels} channel(s)")

    def _hear(self, prompt: torch.Tensor) -> tuple[Featurizer, torch.Tensor]:
        """The prompt's end, in whole frames: in front, one shorter than a frame is preceded by silence."""
        framing = self.config.featurizer
        self._check_channels(prompt)
        n_heard = min(prompt.shape[-1], MAX_PROMPT_SECONDS * framing.sample_rate)
        n_heard = max(framing.n_fft, n_heard - (n_heard - framing.n_fft) % framing.hop_length)
        padded = torch.nn.functional.pad(prompt, (max(0, n_heard - prompt.shape[-1]), 0))
        return Featurizer(framing, self.device), padded[..., -n_heard:].to(self.device)

    def _sound(self, prompt: torch.Tensor, frames, n_frames: int, progress=None) -> torch.Tensor:
        """The prompt, and the frames that an iterator gives, as a waveform, block by block."""
        framing, (featurizer, heard) = self.config.featurizer, self._hear(prompt)
        pieces, known, pending = [], heard[..., -framing.n_fft :], []
        n_done = 0
        while n_done < n_frames:
            n_block = min(BLOCK, n_frames - n_done)
            while len(pending) < n_block + lookahead(framing):
                pending.append(next(frames))
            block = torch.stack(pending, dim=1)
            if self.model.predicts_phase and block.shape[-1] == 2 * framing.n_bins:
                log_magnitude, phase = block.chunk(2, dim=-1)
                new = continue_waveform(featurizer, known, log_magnitude, 0, phase)
            else:
                new = continue_waveform(featurizer, known, block)
            new = new[..., : CROSSFADE + n_block * framing.hop_length]
            pieces.append(new)
            known = torch.cat([known[..., :-CROSSFADE], new], dim=-1)[..., -framing.n_fft :]
            pending = pending[n_block:]
            n_done += n_block
            if progress:
                progress(n_done)
        return _overlay(prompt.to(self.device), pieces)


def _overlay(prompt: torch.Tensor, pieces: list[torch.Tensor]) -> torch.Tensor:
    """Join pieces that each begin with a better version of the last CROSSFADE samples."""
    lead = max(0, CROSSFADE - prompt.shape[-1])  # a prompt shorter than the fade
    whole = [torch.nn.functional.pad(prompt, (lead, 0))[..., :-CROSSFADE]]
    whole += [piece[..., :-CROSSFADE] for piece in pieces[:-1]] + [pieces[-1]]
    return torch.cat(whole, dim=-1)[..., lead:]
