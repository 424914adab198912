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


FORMER_KEYS = ("reference_patches",)  # of the model; in metadata that older versions wrote, whatever their preset
MAX_PATCH_FRAMES = 32  # the basis is fitted to pieces of four such patches


@dataclass(frozen=True)
class ModelConfig:
    """The LSTM and its output head.

    ``head``: ``codes`` samples residual k-means codes of the log-magnitude frame; ``patches`` samples the latents of
    a few frames at once, see :mod:`patch_lstm`; ``regression`` is the design this project came from, the mean of raw
    magnitude and phase.
    """

    head: str = "codes"
    hidden_size: int = 384
    n_layers: int = 2
    dropout: float = 0.25
    n_components: int = 256  # principal components of a frame
    # codes only
    n_books: int = 8
    n_codes: int = 256
    n_heard_books: int = 2  # whose codes the LSTM is told; of the rest it hears where the frame lies
    input_noise: float = 0.7  # on that, in deviations of the change from frame to frame
    head_size: int = 256
    refiner_size: int = 384
    # Of the codes, in rollouts, but not of the choice between going on and beginning: what is unlikely adds up.
    code_temperature: float = 1.0
    # Of the detail below the codes: 1 draws frames that contradict their neighbours, and hisses.
    detail_temperature: float = 0.7
    # Of codes the share that are wrong; of patches the largest level of noise, in deviations of the latents.
    history_noise: float = 0.02
    # Share of the sequences in training that hear frames of the model's own (1, 1/2, 1/3 ...; 0: none).
    drawn_history: float = 0.5
    # Whether the LSTM is told the pulse, see rhythm.Pulse: left to its memory, it loses the beat within seconds.
    pulse: bool = False
    # patches only
    patch_frames: int = 4  # frames of one patch: 93 ms at 22050 Hz
    n_latents: int = 320  # of a patch
    # Bands of the smooth spectrum of a piece, to which its frames are relative: else rollouts go to the level and the
    # colour that are usual in the corpus. 0: frames as they are.
    envelope_bands: int = 16
    floor_db: float = -5.0  # below it magnitudes are compressed linearly; re the frames' RMS at each frequency
    n_mixture: int = 32  # Gaussians that the residual of a patch is a mixture of
    own_history: float = 0.5  # share of the sequences in training with samples of the model in their history
    # Strength of the fluctuation that decoded frames are given below the floor, where they are too smooth; 0: none.
    texture: float = 1.0
    # Quantile of each latent in the corpus; samples are limited to what lies between it and one minus it, or they
    # burst out tens of dB above the recordings. 0: no limit.
    range_quantile: float = 1e-3
    # Patches at the end of a prompt, at most, whose mean is the reference of its rollout, and whose smooth spectrum it
    # has: 12 s at 22050 Hz.
    prompt_patches: int = 128
    # On the reference in training, in deviations of the latents, so that it tells what lasts and not what follows.
    reference_noise: float = 0.3
    reference_dropout: float = 0.1  # share of the sequences in training without a reference
    pulse_dropout: float = 0.1  # share of the sequences in training without a pulse
    # regression only: frames in the window that predicts the next one
    n_context: int = 10

    def __post_init__(self):
        _check(self.head in ("codes", "patches", "regression"), "model.head", "'codes', 'patches' or 'regression'")
        sizes = "hidden_size", "n_layers", "n_components", "n_books", "n_heard_books", "head_size", "refiner_size"
        for key in (*sizes, "n_context", "patch_frames", "n_latents", "n_mixture", "prompt_patches"):
            _check(getattr(self, key) >= 1, f"model.{key}", "at least 1")
        _check(self.n_heard_books <= self.n_books, "model.n_heard_books", "at most n_books")
        _check(0 <= self.input_noise <= 10, "model.input_noise", "0 to 10")
        _check(2 <= self.n_codes <= 65536, "model.n_codes", "2 to 65536")
        _check(0 <= self.dropout < 1, "model.dropout", "0 or more and below 1")
        _check(0 <= self.code_temperature <= 2, "model.code_temperature", "0 to 2")
        _check(0 <= self.detail_temperature <= 2, "model.detail_temperature", "0 to 2")
        _check(0 <= self.drawn_history <= 1, "model.drawn_history", "0 to 1")
        for key in ("own_history", "reference_dropout", "pulse_dropout"):
            _check(0 <= getattr(self, key) <= 1, f"model.{key}", "0 to 1")
        _check(0 <= self.range_quantile < 0.5, "model.range_quantile", "0 or more and below 0.5")
        _check(0 <= self.reference_noise <= 10, "model.reference_noise", "0 to 10")
        _check(0 <= self.texture <= 2, "model.texture", "0 to 2")
        _check(self.patch_frames <= MAX_PATCH_FRAMES, "model.patch_frames", f"at most {MAX_PATCH_FRAMES}")
        _check(0 <= self.envelope_bands <= 64, "model.envelope_bands", "0 to 64")
        _check(-60 <= self.floor_db <= 20, "model.floor_db", "-60 to 20 dB")
        _check(0 <= self.history_noise < 1, "model.history_noise", "0 or more and below 1")


@dataclass(frozen=True)
class TrainingConfig:
    """Optimization. The schedule depends on the step alone, so a run can be prolonged at will."""

    seed: int = 0
    batch_size: int = 64
    n_frames: int = 64
    windows_per_episode: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    decay_steps: int = 1500
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
    ema_decay: float = 0.995
    gain_db: float = 3.0
    transpose: float = 2.0  # semitones up and down, of six sequences in ten (in batches of 7 and more)
    stretch: float = 0.0  # share by which sequences are faster or slower, at most, so that other tempos are heard
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
        if self.model.head == "patches":
            whole = self.training.n_frames % self.model.patch_frames == 0
            _check(whole, "training.n_frames", f"a multiple of model.patch_frames, {self.model.patch_frames}")


YOUNG_STEPS = 300  # below, a state has not learned enough to be judged


def is_young(step: int) -> bool:
    """Whether a state of so many steps is to be announced as young."""
    return step < YOUNG_STEPS


PRESETS = {
    "small": RunConfig(model=ModelConfig(code_temperature=0.85, pulse=True), training=TrainingConfig(stretch=0.15)),
    # An hour on two cores, or minutes on a GPU.
    "medium": RunConfig(
        model=ModelConfig(
            hidden_size=768,
            n_layers=3,
            n_heard_books=3,
            head_size=384,
            refiner_size=512,
            code_temperature=0.85,
            pulse=True,
        ),
        training=TrainingConfig(learning_rate=1.5e-3, warmup_steps=100, decay_steps=3000, stretch=0.15),
    ),
    # Hi-fi stereo, for a GPU.
    "large": RunConfig(
        FeaturizerConfig(sample_rate=44100, n_fft=4096, hop_length=1024, channels=2),
        ModelConfig(
            hidden_size=1536,
            n_layers=3,
            n_components=512,
            n_books=12,
            n_codes=512,
            n_heard_books=3,
            head_size=512,
            refiner_size=1024,
            code_temperature=0.85,
            pulse=True,
        ),
        TrainingConfig(batch_size=128, learning_rate=1e-3, warmup_steps=200, decay_steps=6000, stretch=0.15),
    ),
    "patches": RunConfig(
        model=ModelConfig(head="patches", dropout=0.1, n_components=384, history_noise=0.1, pulse=True),
        training=TrainingConfig(
            batch_size=8,
            n_frames=128,
            windows_per_episode=12,
            learning_rate=1e-3,
            warmup_steps=100,
            decay_steps=6000,
            ema_decay=0.999,
            stretch=0.15,
        ),
    ),
    "original": RunConfig(
        FeaturizerConfig(n_fft=1024, hop_length=256),
        ModelConfig(head="regression", hidden_size=512, dropout=0.0),
        TrainingConfig(
            n_frames=10,
            windows_per_episode=1,
            learning_rate=1e-3,
            weight_decay=0.0,
            gain_db=0.0,
            transpose=0.0,
            ema_decay=0.0,
            precision="fp32",
        ),
    ),
}


def check_top_k(config: RunConfig, top_k: int):
    """Raises :class:`errors.UserError` where a model is asked to choose among codes that it does not have."""
    if top_k and config.model.head != "codes":
        raise UserError(
            f"top-k {top_k}: a model of {config.model.head} has no codes to choose among; use the temperature"
        )


def to_dict(config) -> dict:
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config)


def from_saved(values) -> RunConfig:
    """The configuration of metadata or a state, which an older version may have written: keys of the model that are
    gone since then are passed over where it does not use them.

    Raises:
        UserError: it uses them, or as :func:`from_dict`.
    """
    model = values.get("model") if isinstance(values, dict) else None
    if isinstance(model, dict) and (former := [key for key in FORMER_KEYS if key in model]):
        if model.get("head") == "patches":
            raise UserError(
                f"configuration: model.{former[0]} is of an older version of the preset patches; "
                "train anew with --force"
            )
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
