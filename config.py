"""Hyperparameters as frozen dataclasses, saved as JSON; unknown keys raise and name the key.

Imports nothing heavy, so that ``--help`` can list the presets at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass, field

from errors import UserError


def _check(ok: bool, dotted: str, allowed: str):
    if not ok:
        raise UserError(f"configuration: {dotted} must be {allowed}")


@dataclass(frozen=True)
class FeaturizerConfig:
    """Framing of the waveform. ``sample_rate`` in Hz, ``n_fft`` and ``hop_length`` in samples; ``channels``
    1 (mono) or 2 (left and right, whose bins lie side by side in one frame)."""

    sample_rate: int = 22050
    n_fft: int = 2048
    hop_length: int = 512
    channels: int = 1

    def __post_init__(self):
        _check(4000 <= self.sample_rate <= 192000, "featurizer.sample_rate", "4000 to 192000 Hz")
        _check(256 <= self.n_fft <= 16384 and self.n_fft % 2 == 0, "featurizer.n_fft", "even, 256 to 16384")
        # 75 % overlap is the least at which the phase can be repaired (TiFGAN, arXiv:1902.04072).
        _check(
            0 < self.hop_length <= self.n_fft // 4 and self.n_fft % self.hop_length == 0,
            "featurizer.hop_length",
            "a divisor of n_fft, at most n_fft / 4",
        )
        _check(self.channels in (1, 2), "featurizer.channels", "1 (mono) or 2 (stereo)")

    @property
    def n_channel_bins(self) -> int:
        """Bins of one channel's frame."""
        return self.n_fft // 2 + 1

    @property
    def n_bins(self) -> int:
        """Bins of a frame, all channels together."""
        return self.channels * self.n_channel_bins

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length


# Of the model, in metadata that older versions wrote, whatever their preset.
FORMER_KEYS = (
    "n_books",
    "n_codes",
    "n_heard_books",
    "input_noise",
    "head_size",
    "refiner_size",
    "code_temperature",
    "detail_temperature",
    "drawn_history",
    "own_history",
    "reference_patches",
)
MAX_PATCH_FRAMES = 32  # the basis is fitted to pieces of four such patches


@dataclass(frozen=True)
class ModelConfig:
    """The LSTM and its output head.

    ``head``: ``patches`` samples the latents of a few frames at once, see :mod:`model_definition`; ``regression`` is
    the design this project came from, the mean of raw magnitude and phase.
    """

    head: str = "patches"
    hidden_size: int = 384
    n_layers: int = 2
    dropout: float = 0.1
    # patches only
    patch_frames: int = 4  # frames of one patch: 93 ms at 22050 Hz
    n_components: int = 384  # principal components of a frame
    n_latents: int = 320  # of a patch
    floor_db: float = -5.0  # below it magnitudes are compressed linearly; re the frames' RMS at each frequency
    # Bands of the smooth spectrum of a piece, to which its frames are relative: else rollouts go to the level and the
    # colour that are usual in the corpus. 0: frames as they are.
    envelope_bands: int = 16
    n_mixture: int = 32  # Gaussians that the residual of a patch is a mixture of
    # The largest level of noise on the history in training, in deviations of the latents: a rollout's own is not exact.
    history_noise: float = 0.1
    # Strength of the fluctuation that decoded frames are given below the floor, where they are too smooth; 0: none.
    texture: float = 1.0
    # Steps of fast Griffin-Lim, by which the phases of frames are made consistent. Eight take twice as long, and make
    # true magnitudes sound a little better (told apart 61 instead of 68 %), but not rollouts.
    phase_steps: int = 4
    # Quantile of each latent in the corpus; samples are limited to what lies between it and one minus it, or they
    # burst out tens of dB above the recordings. 0: no limit.
    range_quantile: float = 1e-3
    # Patches at the end of a prompt, at most, whose mean is the reference of its rollout, and whose smooth spectrum it
    # has: 12 s at 22050 Hz.
    prompt_patches: int = 128
    # On the reference in training, in deviations of the latents, so that it tells what lasts and not what follows.
    reference_noise: float = 0.3
    reference_dropout: float = 0.1  # share of the sequences in training without a reference
    # Whether the LSTM is told the pulse, see rhythm.Pulse: left to its memory, it loses the beat within seconds.
    pulse: bool = True
    pulse_dropout: float = 0.1  # share of the sequences in training without a pulse
    # Patches of a block, whose pitches are planned before they are sampled, see patch_plan: 0.74 s at 22050 Hz. 0: no
    # plan. In shorter blocks rollouts have fewer notes, and their chords stand for too long.
    plan_patches: int = 8
    plan_codes: int = 64  # of each part of a plan
    plan_weight: float = 4.0  # of the nats of a plan in the loss, where those of a latent count as its weight
    plan_dropout: float = 0.1  # share of the sequences in training without a plan
    # Factor of what a plan changes in a rollout (classifier-free guidance): at 1 patches follow it as in the corpus, at
    # 0 not at all. At 1.5 more notes are in a key; at 2 chords stand for too long.
    guidance: float = 1.5
    # regression only: frames in the window that predicts the next one
    n_context: int = 10

    def __post_init__(self):
        _check(self.head in ("patches", "regression"), "model.head", "'patches' or 'regression'")
        sizes = "hidden_size", "n_layers", "n_components", "patch_frames", "n_latents", "n_mixture", "prompt_patches"
        for key in (*sizes, "n_context"):
            _check(getattr(self, key) >= 1, f"model.{key}", "at least 1")
        _check(0 <= self.dropout < 1, "model.dropout", "0 or more and below 1")
        for key in ("reference_dropout", "pulse_dropout", "plan_dropout"):
            _check(0 <= getattr(self, key) <= 1, f"model.{key}", "0 to 1")
        _check(0 <= self.range_quantile < 0.5, "model.range_quantile", "0 or more and below 0.5")
        _check(0 <= self.reference_noise <= 10, "model.reference_noise", "0 to 10")
        _check(0 <= self.phase_steps <= 100, "model.phase_steps", "0 to 100")
        _check(0 <= self.texture <= 2, "model.texture", "0 to 2")
        _check(self.patch_frames <= MAX_PATCH_FRAMES, "model.patch_frames", f"at most {MAX_PATCH_FRAMES}")
        _check(0 <= self.envelope_bands <= 64, "model.envelope_bands", "0 to 64")
        _check(-60 <= self.floor_db <= 20, "model.floor_db", "-60 to 20 dB")
        _check(0 <= self.plan_patches <= MAX_PATCH_FRAMES, "model.plan_patches", f"0 to {MAX_PATCH_FRAMES}")
        _check(1 <= self.plan_codes <= 4096, "model.plan_codes", "1 to 4096")
        _check(0 <= self.plan_weight <= 100, "model.plan_weight", "0 to 100")
        _check(0 <= self.guidance <= 10, "model.guidance", "0 to 10")
        _check(0 <= self.history_noise < 1, "model.history_noise", "0 or more and below 1")


@dataclass(frozen=True)
class TrainingConfig:
    """Optimization. The schedule depends on the step alone, so a run can be prolonged at will."""

    seed: int = 0
    batch_size: int = 8
    n_frames: int = 128  # of a window, a multiple of model.patch_frames
    windows_per_episode: int = 12
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_steps: int = 6000
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    # A step whose loss or gradient is not finite is skipped, as is one whose loss is so many times that of the first
    # step (or 1, where that is less): clipped, it would still be a step in a direction that says nothing.
    explosion: float = 1e4
    # One bad batch costs one step. After so many in a row it is the weights: they go back to their average, the last
    # that were good, at a smaller learning rate; so often, then the run has diverged.
    skips_in_row: int = 20
    return_rate: float = 0.5  # factor of the learning rate from each return on
    returns: int = 1
    ema_decay: float = 0.999
    gain_db: float = 3.0
    transpose: float = 2.0  # semitones up and down, of six sequences in ten (in batches of 7 and more)
    stretch: float = 0.15  # share by which sequences are faster or slower, at most, so that other tempos are heard
    hold_out: float = 0.1
    precision: str = "auto"

    def __post_init__(self):
        for key in ("batch_size", "n_frames", "windows_per_episode", "warmup_steps", "decay_steps"):
            _check(getattr(self, key) >= 1, f"training.{key}", "at least 1")
        _check(0 <= self.hold_out < 1, "training.hold_out", "0 or more and below 1")
        _check(0 <= self.ema_decay < 1, "training.ema_decay", "0 or more and below 1")
        _check(0 <= self.seed < 2**63, "training.seed", "0 or more, below 2^63")
        _check(0 < self.learning_rate <= 10, "training.learning_rate", "above 0, at most 10")
        _check(0 <= self.weight_decay <= 10, "training.weight_decay", "0 to 10")
        _check(0 <= self.gain_db <= 60, "training.gain_db", "0 to 60 dB")
        _check(0 <= self.transpose <= 12, "training.transpose", "0 to 12 semitones")
        _check(0 <= self.stretch <= 0.5, "training.stretch", "0 to 0.5")
        _check(self.gradient_clip > 0, "training.gradient_clip", "above 0")
        _check(self.explosion > 1, "training.explosion", "above 1")
        _check(self.skips_in_row >= 1, "training.skips_in_row", "at least 1")
        _check(0 < self.return_rate <= 1, "training.return_rate", "above 0, at most 1")
        _check(self.returns >= 0, "training.returns", "0 or more")
        _check(self.precision in ("auto", "fp32"), "training.precision", "'auto' or 'fp32'")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a training run computes."""

    featurizer: FeaturizerConfig = field(default_factory=FeaturizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self):
        if self.model.head == "regression":
            _check(not self.training.transpose, "training.transpose", "0 where model.head is 'regression'")
            _check(not self.training.stretch, "training.stretch", "0 where model.head is 'regression'")
            _check(not self.model.pulse, "model.pulse", "false where model.head is 'regression'")
        else:
            whole = self.training.n_frames % self.model.patch_frames == 0
            _check(whole, "training.n_frames", f"a multiple of model.patch_frames, {self.model.patch_frames}")


YOUNG_STEPS = 300  # below, a state has not learned enough to be judged


def is_young(step: int) -> bool:
    """Whether a state of so many steps is to be announced as young."""
    return step < YOUNG_STEPS


PRESETS = {
    "small": RunConfig(),
    # An hour on two cores, or minutes on a GPU.
    "medium": RunConfig(
        model=ModelConfig(hidden_size=768, n_layers=3),
        training=TrainingConfig(learning_rate=7e-4, warmup_steps=200, decay_steps=12000),
    ),
    # Hi-fi stereo, for a GPU.
    "large": RunConfig(
        FeaturizerConfig(sample_rate=44100, n_fft=4096, hop_length=1024, channels=2),
        ModelConfig(hidden_size=1536, n_layers=3, n_components=768, n_latents=640, n_mixture=64),
        TrainingConfig(batch_size=32, learning_rate=5e-4, warmup_steps=400, decay_steps=12000),
    ),
    "original": RunConfig(
        FeaturizerConfig(n_fft=1024, hop_length=256),
        ModelConfig(head="regression", hidden_size=512, dropout=0.0, pulse=False, plan_patches=0),
        TrainingConfig(
            batch_size=64,
            n_frames=10,
            windows_per_episode=1,
            warmup_steps=50,
            decay_steps=1500,
            weight_decay=0.0,
            gain_db=0.0,
            transpose=0.0,
            stretch=0.0,
            ema_decay=0.0,
            precision="fp32",
        ),
    ),
}


def to_dict(config) -> dict:
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config)


def from_saved(values) -> RunConfig:
    """The configuration of metadata or a state, which an older version may have written: keys of the model that are
    gone since then are passed over where it does not use them, and a model of before there were plans has none.

    Raises:
        UserError: it is of a model that is gone since then, or as :func:`from_dict`.
    """
    model = values.get("model") if isinstance(values, dict) else None
    if isinstance(model, dict) and "plan_patches" not in model:
        model = {**model, "plan_patches": 0}
        values = {**values, "model": model}
    if isinstance(model, dict) and (former := [key for key in FORMER_KEYS if key in model]):
        if model.get("head") != "regression":
            raise UserError("configuration: is of an older version, whose models are no more; train anew with --force")
        values = {**values, "model": {key: value for key, value in model.items() if key not in former}}
    return from_dict(RunConfig, values)


def from_dict(cls, values, where: str = ""):
    """Build the dataclass ``cls`` from ``values``.

    Raises:
        UserError: a key is unknown (named, with the nearest known one) or a value's type is wrong.
    """
    if not isinstance(values, dict):
        raise UserError(f"configuration: {where or 'the top level'} must be an object")
    known = {f.name: f for f in dataclasses.fields(cls)}
    arguments = {}
    for key, value in values.items():
        dotted = f"{where}.{key}" if where else key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise UserError(f"configuration: unknown key {dotted!r}{hint}")
        default = getattr(cls(), key)
        if dataclasses.is_dataclass(default):
            arguments[key] = from_dict(type(default), value, dotted)
        else:
            arguments[key] = _typed(value, default, dotted)
    return cls(**arguments)


def override(config: RunConfig, assignments) -> RunConfig:
    """``config`` with ``KEY=VALUE`` strings applied, e.g. ``model.hidden_size=256``.

    Raises:
        UserError: an assignment without ``=``, an unknown key or a value of the wrong type.
    """
    values = to_dict(config)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        section, _, key = dotted.strip().partition(".")
        if not equals or not key:
            raise UserError(f"--set {assignment!r}: write SECTION.KEY=VALUE, e.g. model.hidden_size=256")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text.strip()
        values.setdefault(section, {})[key] = value
    return from_dict(RunConfig, values)


def _typed(value, default, dotted: str):
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise UserError(f"configuration: {dotted} must be {type(default).__name__}, not {value!r}")
    return value
