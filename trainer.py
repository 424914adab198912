"""One optimization step after another, and everything that an exact resume needs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch

import fitting
from checkpoint import State
from config import RunConfig, to_dict
from dataset import AudioDataset, Segment, spread_chunks, without
from device import has_bf16_matrix_units, use_threads
from errors import count
from featurizer import Featurizer
from model_definition import build_model
from pcm_store import Recording


class Diverged(Exception):
    """Training has come to nothing, and has gone back as often as it may; the message says how."""


class Abandoned(Exception):
    """Raised by what watches a step, a held-out loss or a preview, to give it up."""


class Trainer:
    """Model, optimizer, schedule and place in the data of a run.

    Args:
        config: hyperparameters.
        segments: what may be trained on.
        level: median RMS of the corpus, kept with the state.
        device: where to compute.
    """

    def __init__(self, config: RunConfig, segments: list[Segment], level: float, device: torch.device):
        self.config, self.segments, self.level, self.device = config, segments, level, device
        self.step, self.seconds, self.n_skipped = 0, 0.0, 0
        self.skipped_in_row, self.n_returns = 0, 0
        self.first_loss = None  # the first that was finite
        self.interruptible = False  # in the part of a step that can be undone
        self.decay = None  # dB/s, see voice.fastest
        pulses, patch = {} if config.model.pulse else None, self._patch_frames
        self.dataset = AudioDataset(segments, config.featurizer, config.training, pulses, patch)
        self.featurizers = [Featurizer(framing, device) for framing, _ in self.dataset.framings]
        self.featurizer = self.featurizers[0]  # the untransposed one
        torch.manual_seed(config.training.seed)
        self.model = build_model(config.featurizer, config.model).to(device)
        self.average = self._weights()
        self.carry = None
        # The schedule and the optimizer are plain functions of the step.
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.training.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.training.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        fast = config.training.precision == "auto" and has_bf16_matrix_units(device)
        self.dtype = torch.bfloat16 if fast else torch.float32

    @torch.no_grad()
    def fit(self):
        """Scaler and latents of the corpus; call once, before the first step.

        Raises:
            NotFinite: the recordings are beyond what float32 can square.
            featurizer.Unvaried: nothing changes in them.
        """
        featurizer, seed = Featurizer(self.config.featurizer), self.config.training.seed
        if not self.model.predicts_phase:
            with use_threads(1):  # beside another program, two threads take ten times as long, see use_threads
                self.model.cpu().fit(fitting.chunks(self.segments, featurizer, seed), seed)
            self.model.to(self.device)
        self.average = self._weights()
        self._measure(featurizer)

    @torch.no_grad()
    def start_from(self, state: State):
        """Begin with the averaged weights, the scaler and the latents of a run of the same model, in the place of
        :meth:`fit`; the level and the decay of the recordings are their own.

        Args:
            state: whole or slim, of the same shapes, see :func:`run_start.other_shape`.
        """
        self.model.load_state_dict({**state.group("model"), **state.group("average")})
        self.average = self._weights()
        self._measure(Featurizer(self.config.featurizer))

    def _measure(self, featurizer: Featurizer):
        """What the recordings alone decide: how fast they die away."""
        if not self.model.predicts_phase:
            with use_threads(1):
                self.decay = fitting.decay(self._pieces, featurizer)

    @property
    def _patch_frames(self) -> int:
        return self.config.model.patch_frames if self.config.model.head == "patches" else 1

    def forget(self, recording: Recording):
        """Go on without a recording, as if it had never been there, from the next step on."""
        self.segments = without(self.segments, recording)
        self.dataset = self.dataset.without(recording)

    @property
    def frames_per_step(self) -> int:
        """Frames that are targets of one step."""
        training = self.config.training
        return training.batch_size * (1 if self.model.predicts_phase else training.n_frames)

    def train_step(self) -> dict:
        """One step. Returns ``loss`` (nats per latent up to a constant, or squared error), ``learning_rate`` and
        ``gradient_norm``.

        While :attr:`interruptible`, the handler of a signal may raise: then the step has not been. A step without a
        usable loss is skipped: it changes neither weights nor average. Too many of them in a row, and the weights go
        back to their average, see :class:`config.TrainingConfig`; :attr:`n_returns` tells how often they have.

        Raises:
            Diverged: they have gone back as often as they may. The weights are those that gave no usable loss.
        """
        config, carry, random = self.config.training, self.carry, self._random_states()
        self.model.train()
        rate = config.learning_rate * config.return_rate**self.n_returns * self._schedule()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        try:
            self.interruptible = True
            loss = self._loss(self.dataset[self.step])
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
            usable = self._is_usable(loss.item(), norm.item())
            self.interruptible = False
        except BaseException:
            self.interruptible = False
            self.optimizer.zero_grad()
            self.carry = carry
            self._set_random_states(random)
            raise
        if usable:
            self.skipped_in_row = 0
            self.optimizer.step()
            self._update_average()
        else:  # one bad batch must not end a run of days
            self.n_skipped += 1
            self.skipped_in_row += 1
            self.carry = None
        self.optimizer.zero_grad()
        self.step += 1
        if self.skipped_in_row >= config.skips_in_row:
            self._go_back()
        return {"loss": loss.item(), "learning_rate": rate, "gradient_norm": norm.item()}

    def _is_usable(self, loss: float, norm: float) -> bool:
        if not (math.isfinite(norm) and math.isfinite(loss)):
            return False
        if self.first_loss is None:
            self.first_loss = loss
        return loss <= self.config.training.explosion * max(1.0, self.first_loss)

    @torch.no_grad()
    def _go_back(self):
        """The weights become their average, which no skipped step has changed, and learn more slowly from now on.

        What else is part of the run stays: the step, and with it the place in the data, and the optimizer's moments,
        which are of clipped gradients. So a run that is interrupted in between goes on to the same bits.
        """
        finite = all(bool(x.isfinite().all()) for x in self.average.values())
        if self.n_returns >= self.config.training.returns or not finite:
            raise Diverged(
                f"no usable loss in {self.skipped_in_row} steps up to step {self.step}, and "
                f"{count(self.n_returns, 'return')} to good weights in vain"
            )
        self.model.load_state_dict(self.average, strict=False)
        self.n_returns, self.skipped_in_row = self.n_returns + 1, 0

    def _loss(self, batch: dict) -> torch.Tensor:
        if batch["starts_episode"]:
            self.carry = None
        features, mask = self._features(batch)
        pulse = None if batch["pulse"] is None else batch["pulse"].to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss, self.carry = self.model.loss(features, self.carry, mask, pulse)
        return loss

    @torch.no_grad()
    def _features(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames of a batch, and which of them are recordings and not padding."""
        features, masks = [], []
        n_bins = self.config.featurizer.n_channel_bins
        for waveform, hop, n_valid, featurizer in zip(
            batch["waveforms"], batch["hop_lengths"], batch["n_valid"], self.featurizers, strict=False
        ):
            waveform = waveform.to(self.device, non_blocking=True)
            if self.model.predicts_phase:
                frames = featurizer.join(featurizer.stft(waveform, hop))
            else:
                # Transposed downwards, the highest bins are beyond what was recorded.
                frames = featurizer.log_magnitude(waveform, n_bins, hop)
            ends = torch.arange(frames.shape[1], device=self.device) * hop + featurizer.config.n_fft
            features.append(frames)
            masks.append(ends <= n_valid.to(self.device).unsqueeze(-1))
        return torch.cat(features), torch.cat(masks)

    def _schedule(self) -> float:
        config = self.config.training
        warm = min(1.0, (self.step + 1) / config.warmup_steps)
        return warm * (1 + max(0, self.step - config.warmup_steps) / config.decay_steps) ** -0.5

    @torch.no_grad()
    def _update_average(self):
        # Young averages follow fast, so that the first preview is not that of the start.
        keep = min(self.config.training.ema_decay, (1 + self.step) / (10 + self.step))
        parameters = dict(self.model.named_parameters())
        torch._foreach_lerp_(list(self.average.values()), [parameters[n] for n in self.average], 1 - keep)

    @torch.no_grad()
    def held_out_loss(
        self, segments: list[Segment], n_batches: int = 2, watch: Callable[[float], None] = lambda share: None
    ) -> float:
        """Loss of the averaged weights on other recordings: the same places every time.

        Args:
            watch: called with the share that is done, with each layer; where it raises, everything stays as it was.
        """
        if not segments:
            return float("nan")
        training = dataclasses.replace(self.config.training, transpose=0.0, stretch=0.0)
        dataset = AudioDataset(segments, self.config.featurizer, training, self.dataset.pulses, self._patch_frames)
        carry, self.carry = self.carry, None
        every = self.config.training.windows_per_episode
        try:
            # Places and noise are the same every time.
            devices = [self.device] if self.device.type == "cuda" else []
            with self._averaged(), torch.random.fork_rng(devices=devices):
                torch.manual_seed(self.config.training.seed)
                losses = []
                for i in range(n_batches):
                    with self._watched(lambda done=i / n_batches: watch(done)):
                        losses.append(self._loss(dataset[i * every]).item())
                return float(np.mean(losses))
        finally:
            self.carry = carry

    @contextlib.contextmanager
    def _watched(self, watch: Callable[[], None]):
        """Call ``watch()`` before each layer: a forward pass may take many seconds."""
        hooks = [layer.register_forward_pre_hook(lambda *_: watch()) for layer in self.model.modules()]
        try:
            watch()
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _weights(self) -> dict[str, torch.Tensor]:
        """A copy of the weights as they are."""
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    @contextlib.contextmanager
    def _averaged(self):
        """The model with its averaged weights, for listening."""
        own = self._weights()
        self.model.load_state_dict(self.average, strict=False)
        self.model.eval()
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own, strict=False)

    def _pieces(self, n: int, n_samples: int) -> torch.Tensor | None:
        """Up to n pieces of training recordings ``[n, (2,) n_samples]``; None where most are shorter than that."""
        segments = [s for s in self.segments if s.n_samples >= n_samples]
        if 2 * sum(s.n_samples for s in segments) < sum(s.n_samples for s in self.segments):
            return None
        pieces = spread_chunks(segments, n, n_samples, self.config.training.seed)
        return torch.from_numpy(np.stack(list(pieces))).to(self.device)

    # -- state -------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything that decides how the run goes on."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"average.{name}": t for name, t in self.average.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
        if self.carry is not None:
            tensors |= {f"carry.{name}": t for name, t in self.carry.items()}
        tensors |= self._random_states()
        info = {
            "step": self.step,
            "seconds": self.seconds,
            "level": self.level,
            "decay": self.decay,
            "skipped": self.n_skipped,
            "skipped_in_row": self.skipped_in_row,
            "returns": self.n_returns,
            "first_loss": self.first_loss,
            "config": to_dict(self.config),
        }
        return State(tensors, info)

    def _random_states(self) -> dict[str, torch.Tensor]:
        states = {"random.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["random.cuda"] = torch.cuda.get_rng_state(self.device)
        elif self.device.type == "mps":
            states["random.mps"] = torch.mps.get_rng_state()
        return states

    def _set_random_states(self, states: dict[str, torch.Tensor]):
        torch.set_rng_state(states["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in states:
            torch.cuda.set_rng_state(states["random.cuda"], self.device)
        elif self.device.type == "mps" and "random.mps" in states:
            torch.mps.set_rng_state(states["random.mps"])

    def slim_state(self) -> State:
        """What a rollout needs of it: the averaged weights, in float16, and the latents."""
        state = self.state()
        names = {f"model.{name}" for name in self.average}
        kept = {name: t for name, t in state.tensors.items() if name.startswith("model.") and name not in names}
        kept |= {f"average.{name}": t.half() for name, t in self.average.items()}
        return State(kept, state.info)

    @staticmethod
    def can_resume(state: State) -> bool:
        """False for what :meth:`slim_state` gave."""
        return "random.cpu" in state.tensors

    def load_state(self, state: State):
        """Go on from a state of the same configuration."""
        self.model.load_state_dict(state.group("model"))
        self.average = {name: t.to(self.device) for name, t in state.group("average").items()}
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for name, tensor in state.group("optimizer").items():
            index, _, key = name.partition(".")
            optimizer["state"].setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(optimizer)
        self.carry = {name: t.to(self.device) for name, t in state.group("carry").items()} or None
        self._set_random_states(state.tensors)
        self.step, self.seconds = state.info["step"], state.info["seconds"]
        self.level, self.n_skipped = state.info["level"], state.info["skipped"]
        self.skipped_in_row, self.n_returns = state.info.get("skipped_in_row", 0), state.info.get("returns", 0)
        self.first_loss = state.info.get("first_loss")
        self.decay = state.info.get("decay")
