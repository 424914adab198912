"""Stateful rollout: patch after patch, one path for predict, preview, evaluation and web."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from checkpoint import State, load_run
from config import RunConfig
from device import rollout_linear, use_threads
from featurizer import Featurizer, whole_frames
from model_definition import build_model, plain_linear
from phase import CROSSFADE, continue_waveform, lookahead
from rhythm import prompt_pulse
from voice import in_voice

BLOCK = 256  # frames between two calls of the phase repair


@dataclass(frozen=True)
class Predictor:
    """A trained model, ready to continue waveforms.

    ``level`` is the median RMS of the corpus; ``step`` the training step of the state; ``decay`` how fast the corpus
    dies away, dB/s, see :func:`voice.fastest`: None where it is not known; ``threads`` of the CPU that a rollout
    takes, see :func:`device.use_threads`.
    """

    model: torch.nn.Module
    config: RunConfig
    level: float
    step: int
    decay: float | None = None
    threads: int = 1

    @classmethod
    def load(
        cls, metadata_path, device: torch.device | str = "cpu", previous: bool = False, threads: int = 1
    ) -> Predictor:
        """The newest complete state of a run, also while it trains, or the one before it.

        Raises:
            UserError: metadata or state missing, damaged, foreign or of a newer format.
        """
        metadata, state = load_run(metadata_path, previous)
        return cls.from_state(metadata.config, state, device, threads)

    @classmethod
    def from_state(
        cls, config: RunConfig, state: State, device: torch.device | str = "cpu", threads: int = 1
    ) -> Predictor:
        with torch.random.fork_rng(devices=[]):  # a preview must not change what the training samples
            model = build_model(config.featurizer, config.model)
        model.load_state_dict({**state.group("model"), **state.group("average")})
        info = state.info
        return cls(model.to(device).eval(), config, info["level"], info["step"], info.get("decay"), threads)

    def match_level(self, waveform: torch.Tensor) -> torch.Tensor:
        """Each waveform ``[..., n_samples]`` scaled to the corpus' level (median RMS), as a prompt should be.

        Stereo ``[..., 2, n_samples]``: one gain for both channels, by the RMS of both.
        """
        of = -1 if self.config.featurizer.channels == 1 else (-2, -1)
        rms = waveform.square().mean(of, keepdim=True).sqrt().clamp(min=1e-8)
        return waveform * (self.level / rms)

    def in_voice(self, waveform: torch.Tensor) -> torch.Tensor:
        """A synthesized prompt as the corpus might sound: its level, and of patches its room and spectral envelope, see
        :mod:`voice`. Shape: as :meth:`match_level`"""
        featurizer, envelope = Featurizer(self.config.featurizer), None
        if not self.model.predicts_phase:
            envelope = copy.deepcopy(self.model.envelope).cpu()
        return in_voice(waveform, featurizer, self.match_level, self.decay, envelope)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @functools.cached_property
    def _packed(self):
        return self.model.packed(rollout_linear(self.device) or plain_linear)

    @torch.inference_mode()
    def continue_(
        self,
        prompt: torch.Tensor,
        n_frames: int,
        temperature: float = 1.0,
        seed: int = 0,
        progress=None,
        tempos: Sequence[float | None] | None = None,
    ) -> torch.Tensor:
        """Continue each prompt by ``n_frames`` hops.

        Args:
            prompt: waveforms at the model's sample rate and at the corpus' level.
            progress: called with the number of frames made so far.
            tempos: as of :meth:`stream`.

        Shape:
            prompt ``[B, n_samples]``, stereo ``[B, 2, n_samples]`` -> the same with ``n_samples + n_frames *
            hop_length``; the prompt is kept to the sample but for its last :data:`phase.CROSSFADE`, where the
            join is faded.

        Raises:
            ValueError: ``n_frames`` is not positive, or the prompt has other channels than the model.
        """
        blocks = self.stream(prompt, n_frames, temperature, seed, progress, tempos=tempos)
        return rejoin(prompt.to(self.device), blocks)

    @torch.inference_mode()
    def stream(
        self,
        prompts: torch.Tensor | Sequence[torch.Tensor],
        n_frames: int,
        temperature: float = 1.0,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
        n_futures: int = 1,
        stopped: Callable[[], bool] = lambda: False,
        tempos: Sequence[float | None] | None = None,
    ) -> Iterator[torch.Tensor]:
        """What :meth:`continue_` adds, block by block, in memory that does not depend on ``n_frames``.

        Prompts of any lengths go on in one batch, each from what it alone makes the LSTM hear. A row's samples depend
        on the seed, on its place and on the number of rows.

        Args:
            prompts: a batch of waveforms of one length, or a sequence of single ones of any lengths.
            n_futures: continuations of each prompt.
            stopped: asked with each frame; once it is true, what has been made is the end.
            tempos: of each prompt, quarters a minute at its end, where they are known (of a score); else they are
                found by its sound.

        Shape:
            prompts ``[B, n_samples]``, stereo ``[B, 2, n_samples]``, or B times one of them without the ``B``

        Yields:
            waveforms ``[B * n_futures, n]`` or ``[B * n_futures, 2, n]``, the futures of a prompt side by side.
            The first begins with the prompt's last :data:`phase.CROSSFADE` samples, faded, see :func:`rejoin`.

        Raises:
            ValueError: ``n_frames`` is not positive, or a prompt has other channels than the model.
        """
        if n_frames < 1:
            raise ValueError(f"n_frames must be at least 1, not {n_frames}")
        frames = self.frames(prompts, temperature, seed, n_futures, tempos)
        frames = itertools.takewhile(lambda _: not stopped(), frames)
        return self._sound(self._ends(prompts).repeat_interleave(n_futures, 0), frames, n_frames, progress)

    @torch.inference_mode()
    def reconstruct(
        self, waveform: torch.Tensor, n_prompt: int, codec: bool = True, seed: int = 0, progress=None
    ) -> torch.Tensor:
        """What :meth:`continue_` gave were every prediction true: the limit that its parts set.

        Args:
            waveform: prompts with what really follows them.
            n_prompt: samples of the prompt.
            codec: True keeps the true latents, which the original design has none of; False keeps the true magnitudes,
                so that only the phase is made anew.
            progress: called with each frame, with the number of those made so far.

        Shape:
            waveform ``[B, n_samples]``, stereo ``[B, 2, n_samples]`` -> the same or up to ``n_fft + 5 *
            hop_length`` samples less

        Raises:
            ValueError: the waveform has other channels than the model.
        """
        framing, featurizer = self.config.featurizer, Featurizer(self.config.featurizer, self.device)
        self._check_channels(waveform)
        prompt = waveform[..., :n_prompt]
        follows = waveform[..., n_prompt - framing.n_fft + framing.hop_length :].to(self.device)
        frames = featurizer.log_magnitude(follows)
        if codec:
            heard = featurizer.log_magnitude(self._hear(prompt))
            frames = self.model.remake(frames, heard, torch.Generator(self.device).manual_seed(seed))
        n_frames, frames = frames.shape[1] - lookahead(framing), iter(frames.unbind(1))
        if progress:
            frames = _counted(frames, progress)
        return rejoin(prompt.to(self.device), self._sound(self._ends(prompt), frames, n_frames))

    @torch.inference_mode()
    def frames(self, prompts, temperature: float = 1.0, seed: int = 0, n_futures: int = 1, tempos=None):
        """The frames that follow each prompt, one after another, without an end. Arguments as of :meth:`stream`.

        Yields:
            log-magnitude ``[B * n_futures, n_bins]``, with the phase beside it where the model predicts it
        """
        tempos = [None] * len(prompts) if tempos is None else tempos
        states = [self._prefill(prompt, tempo) for prompt, tempo in zip(prompts, tempos, strict=True)]
        state = type(states[0])(*(torch.cat(x).repeat_interleave(n_futures, 0) for x in zip(*states, strict=True)))
        generator = torch.Generator(self.device).manual_seed(seed)

        @torch.inference_mode()
        def following():
            nonlocal state
            while True:
                frames, state = self._packed.next_frames(state, temperature, generator)
                yield from frames.unbind(1)

        return itertools.islice(following(), self.model.behind, None)

    def _prefill(self, prompt: torch.Tensor, tempo: float | None):
        """The state of a rollout after one prompt, ``[n_samples]`` or ``[2, n_samples]``."""
        featurizer, known = Featurizer(self.config.featurizer, self.device), self._hear(prompt.unsqueeze(0))
        if self.model.predicts_phase:
            return self._packed.prefill(featurizer.join(featurizer.stft(known)))
        pulse = None
        if self.config.model.pulse:
            pulse = prompt_pulse(prompt.cpu().numpy(), self.config.featurizer, tempo)
            pulse = [torch.from_numpy(x).to(self.device) for x in pulse]
        return self._packed.prefill(featurizer.log_magnitude(known), pulse)

    def _check_channels(self, waveform: torch.Tensor):
        channels = self.config.featurizer.channels
        if waveform.shape[1:-1] != ((channels,) if channels > 1 else ()):
            raise ValueError(f"a waveform of shape {tuple(waveform.shape)} for a model of {channels} channel(s)")

    def _hear(self, prompts: torch.Tensor) -> torch.Tensor:
        """The end of prompts in whole frames, see :func:`featurizer.whole_frames`."""
        self._check_channels(prompts)
        return whole_frames(prompts, self.config.featurizer).to(self.device)

    def _ends(self, prompts) -> torch.Tensor:
        """Of each prompt the last frame, which the phase goes on from. Shape: -> ``[B, n_fft]``, ``[B, 2, n_fft]``"""
        return torch.cat([self._hear(x.unsqueeze(0))[..., -self.config.featurizer.n_fft :] for x in prompts])

    @torch.inference_mode()
    def _sound(self, known: torch.Tensor, frames, n_frames: int, progress=None):
        """The frames that an iterator gives as a waveform, block by block: as :meth:`stream`.

        Args:
            known: what is before them. Shape: ``[B, n_fft]`` or ``[B, 2, n_fft]``
        """
        framing, ahead, pending, n_done = self.config.featurizer, lookahead(self.config.featurizer), [], 0
        featurizer = Featurizer(framing, self.device)
        while n_done < n_frames:
            wanted = min(BLOCK, n_frames - n_done)
            with use_threads(self.threads):
                pending += itertools.islice(frames, wanted + ahead - len(pending))
                n_block = len(pending) - ahead  # fewer where the frames end
                if n_block < 1:
                    break
                block = torch.stack(pending, dim=1)
                if self.model.predicts_phase and block.shape[-1] == 2 * framing.n_bins:
                    log_magnitude, phase = block.chunk(2, dim=-1)
                    new = continue_waveform(featurizer, known, log_magnitude, 0, phase)
                else:
                    new = continue_waveform(featurizer, known, block, self.config.model.phase_steps)
            new = new[..., : CROSSFADE + n_block * framing.hop_length]
            known = torch.cat([known[..., :-CROSSFADE], new], dim=-1)[..., -framing.n_fft :]
            pending = pending[n_block:]
            n_done += n_block
            last = n_block < wanted or n_done == n_frames
            yield new if last else new[..., :-CROSSFADE]
            if progress:
                progress(n_done)
            if last:
                break


def _counted(frames, progress: Callable[[int], None]):
    for n_done, frame in enumerate(frames, 1):
        progress(n_done)
        yield frame


def rejoin(prompt: torch.Tensor, blocks) -> torch.Tensor:
    """The prompt and the blocks of a stream, of which the first begins with a better version of its last
    :data:`phase.CROSSFADE` samples, as one waveform. Shape: ``[..., n_samples]`` -> ``[..., more]``"""
    lead = max(0, CROSSFADE - prompt.shape[-1])  # a prompt shorter than the fade
    return torch.cat([prompt[..., :-CROSSFADE], *blocks], dim=-1)[..., lead:]
