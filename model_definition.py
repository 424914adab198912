"""The LSTM that predicts the next frame, by codes; ``regression.py`` has the original design.

Both models offer the same: ``predicts_phase``, ``loss`` over windows, and for the rollout ``lay_out``,
``start`` on a prompt and ``next_frame``. They know nothing of files, devices or arguments.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

import drift
from codec import ResidualCodec
from config import FeaturizerConfig, ModelConfig
from patch_lstm import PatchLSTM
from refiner import MAX_DETAIL, Refiner, gelu
from regression import RegressionLSTM
from rollout import GAIN_SECONDS, GAIN_SHARE, Layout, RolloutState, codec_gain, lay_out, next_frame, plain_linear
from sampling import gumbel, sample

UNUSED = -100  # target of frames that are padding
PAST_NOISE = 0.5  # deviations, at most, on the last frame's detail in training: a rollout's will not be perfect
REFERENCE_FRAMES = 512  # of a prompt's end, at most, whose mean is the reference of its rollout
FAR = 1e4  # nats, by which a first code that is not to be drawn is unlikelier
REFERENCE_NOISE = 0.3  # deviations, on the reference in training
NO_REFERENCE = 0.1  # share of the windows in training that go without
N_PULSE = 4  # real and imaginary parts of the pulse at the beat and at half of it
NO_PULSE = 0.1  # share of the windows in training that go without


def build_model(featurizer: FeaturizerConfig, model: ModelConfig) -> nn.Module:
    """The untrained model of a configuration."""
    kinds = {"codes": CodeLSTM, "patches": PatchLSTM, "regression": RegressionLSTM}
    return kinds[model.head](featurizer, model)


class CodeLSTM(nn.Module):
    """LSTM over the codes of a residual codec: a softmax for each book, then the frame's detail.

    Book b's softmax sees the LSTM's output and the codes of the books before it in the same frame,
    so that the codes of a frame belong together; the :class:`Refiner` sees them all. Two direct paths
    spare the LSTM from learning what is known: a logit for "the same code again", and the nearness of
    each code's centre to what the books before leave of a guess at the frame. Without the second, a
    change of the first code is followed by codes that do not fit it, and the rollout grows louder.

    Each frame either goes on from the last one or begins something new, by a probability of its own:
    where something begins, the first path is cut and the nearness widened, by a factor learned for each
    book. With the same nearness for both, the leap at an onset is all but ruled out.

    The *reference*, the mean of what was heard before, tells the LSTM in every frame which instruments, which scale and
    which level it is about; a rollout keeps that of its prompt. Left to its memory, it changes to another
    piece of music within seconds.

    The *pulse* (``config.pulse``) tells it in every frame how dense onsets are around the next one, by the beat of what
    is heard, see :mod:`rhythm`; a rollout goes on with the beat of its prompt.

    In training some frames are drawn by the model itself, and marked, so that what is true of recordings is learned
    from recordings (conditioning on the history's noise, after Ho et al. 2022, arXiv:2106.15282).
    """

    predicts_phase = False

    def __init__(self, featurizer: FeaturizerConfig, config: ModelConfig):
        super().__init__()
        self.config, self.frame_rate = config, featurizer.frame_rate
        n_books, n_codes, hidden, head = config.n_books, config.n_codes, config.hidden_size, config.head_size
        self.codec = ResidualCodec(featurizer.n_bins, config.n_components, n_books, n_codes)
        self.embedding = nn.Embedding(config.n_heard_books * n_codes, hidden)
        self.layers = nn.ModuleList(nn.LSTM(hidden, hidden) for _ in range(config.n_layers))
        self.to_head = nn.Linear(hidden, head)
        self.code_embedding = nn.Embedding(n_books * n_codes, head)
        self.from_vector = nn.Linear(config.n_components, hidden, bias=False)
        self.from_reference = nn.Linear(config.n_components, hidden, bias=False)
        self.no_reference = nn.Parameter(torch.zeros(hidden))
        self.from_pulse = nn.Linear(N_PULSE, hidden, bias=False) if config.pulse else None
        self.drawn = nn.Parameter(torch.zeros(hidden))  # the mark
        self.stay = nn.Linear(head, n_books)
        self.onset = nn.Linear(head, 1)
        self.onset_width = nn.Parameter(torch.zeros(n_books))
        self.to_vector = nn.Linear(hidden, config.n_components)
        self.precision = nn.Parameter(torch.zeros(n_books, config.n_components))
        self.norms = nn.ModuleList(nn.LayerNorm(head) for _ in range(n_books))
        self.logits = nn.ModuleList(nn.Linear(head, n_codes) for _ in range(n_books))
        self.refiner = Refiner(config.n_components, head, config.refiner_size)
        nn.init.normal_(self.embedding.weight, std=config.n_heard_books**-0.5)
        nn.init.normal_(self.code_embedding.weight, std=n_books**-0.5)
        nn.init.zeros_(self.onset.weight)
        nn.init.constant_(self.onset.bias, -2.0)
        nn.init.zeros_(self.to_vector.weight)
        nn.init.zeros_(self.to_vector.bias)
        for layer in self.layers:  # remember by default (Jozefowicz et al. 2015)
            nn.init.ones_(layer.bias_ih_l0.data[hidden : 2 * hidden])
        self.register_buffer("onset_bias", torch.zeros(()))  # in rollouts, see calibration
        self.register_buffer("usual_hold", torch.full((), 1e6))  # frames on one first code, see calibration
        # How far rollouts may go from their prompt, see drift.measure; at first, anywhere.
        self.register_buffer("drift", torch.full((len(drift.LAGS), config.n_components), 1e6))
        self.register_buffer("level_drift", torch.full((len(drift.LAGS),), 1e6))
        self.register_buffer("leap", torch.full((), 1e6))  # likewise their first codes
        self.register_buffer("offsets", torch.arange(n_books) * n_codes, persistent=False)

    # -- training ----------------------------------------------------------------------------

    def loss(
        self,
        log_magnitude: torch.Tensor,
        state=None,
        mask: torch.Tensor | None = None,
        pulse: torch.Tensor | None = None,
    ):
        """Cross-entropy of every next frame, teacher forcing.

        Args:
            state: what the window before returned, or None: the LSTM's state and the reference.
            mask: frames that are recordings and not padding.
            pulse: of each frame that is predicted; None for none.

        Shape:
            log_magnitude ``[B, T + 1, n_bins]``, mask ``[B, T + 1]``, pulse ``[B, T, 4]`` -> ``(scalar, state,
            nats of each book, then nats per component of the detail [n_books + 1])``
        """
        with torch.no_grad(), torch.autocast(log_magnitude.device.type, enabled=False):
            codes, vector, detail = self.codec.analyze(log_magnitude)
            history, target = codes[:, :-1], codes[:, 1:]
            if self.training and self.config.history_noise:
                # Each sequence has its own share of wrong codes in the input: the rollout's
                # history will have its errors too.
                share = torch.rand(len(codes), 1, 1, device=codes.device) * self.config.history_noise
                wrong = torch.rand(history.shape, device=codes.device) < share
                history = torch.where(wrong, torch.randint_like(history, self.config.n_codes), history)
            if mask is not None:
                target = target.masked_fill(~(mask[:, 1:] & mask[:, :-1]).unsqueeze(-1), UNUSED)
            past = detail[:, :-1]
            if self.training:
                # Each sequence at its own level. With less, persistences learned are so near to 1 that
                # a rollout's detail wanders off.
                level = PAST_NOISE * torch.rand(len(past), 1, 1, device=past.device)
                past = past + level * torch.randn_like(past)
            heard = None if state is None else state["reference"]
            reference = self._next_reference(heard, vector[:, 1:] + detail[:, 1:], mask)
        before, state = vector[:, :-1], None if state is None else state["lstm"]
        heard, drawn = self._conditions(self._embed_reference(heard, len(codes)), pulse), None
        if self.training and self.config.drawn_history:
            history, before, past, drawn = self._with_drawn(history, before, past, heard, state)
        output, left, stay, onset, state = self._outputs(history, before, past, heard, state, drawn)
        onset, onset_share, nats = onset.squeeze(-1), self._onset_share(), []
        for book, (centres, power) in enumerate(self._centres()):
            head, near = self._logits(output, book).float(), (left @ centres.T).float() - power
            goes_on = (head + near).scatter_add(-1, history[..., book : book + 1], stay[..., book : book + 1])
            begins = torch.addcmul(head, near, onset_share[book])
            nats.append(torch.stack([_cross_entropy(logits, target[..., book]) for logits in (goes_on, begins)]))
            left = left - self.codec.books[book][codes[:, 1:, book]]
            output = output + self._embed_sampled(codes[:, 1:, book], book)
        used = target[..., 0] != UNUSED
        n_used = used.sum().clamp(min=1)
        # Which of the two it was is not known: the sum over both, up to each book.
        goes_on, begins = torch.stack(nats).cumsum(0).unbind(1)
        total = -torch.logaddexp(F.logsigmoid(-onset) - goes_on, F.logsigmoid(onset) - begins)
        total = (total * used).sum((1, 2)) / n_used
        mean, persistence, log_deviation = self.refiner(output, vector[:, 1:], before)
        mean = mean + persistence * (before + past - vector[:, 1:])
        nats = (0.5 * ((detail[:, 1:] - mean) * (-log_deviation).exp()).square() + log_deviation).mean(-1)
        losses = torch.cat([total.diff(prepend=total.new_zeros(1)), (nats * used).sum().view(1) / n_used])
        state = {"lstm": state.detach(), "reference": reference}
        return losses[:-1].mean() + losses[-1], state, losses.detach()

    @staticmethod
    def _next_reference(reference, frames: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The mean of the windows up to this one, with weights that fall by another rate in each sequence: from this
        window alone to a tenth of it.

        Shape:
            reference ``[B, n_components]`` or None, frames ``[B, T, n_components]``, mask ``[B, T + 1]``
        """
        used = torch.ones_like(frames[..., :1]) if mask is None else mask[:, 1:].unsqueeze(-1).to(frames.dtype)
        mean = (frames * used).sum(1) / used.sum(1).clamp(min=1)
        if reference is None:
            return mean
        return torch.lerp(reference, mean, 0.1 ** torch.rand(len(mean), 1, device=mean.device))

    @torch.no_grad()
    def _with_drawn(self, codes, vector, detail, conditions, state):
        """The history, some of whose frames are drawn by the model from true ones before them.

        Scheduled sampling (Bengio et al. 2015), all frames at once (Duckworth et al. 2019): of some sequences
        a share of the frames, from none to all of them. A rollout hears nothing but its own frames; trained on
        recordings alone, it takes them for one long chord, or for noise.

        Shape:
            codes ``[B, T, n_books]``, vector and detail ``[B, T, n_components]``, conditions ``[B, T or 1, hidden]``
            -> the first three again, and which frames are drawn ``[B, T, 1]`` bool
        """
        rows = slice(None, None, round(1 / self.config.drawn_history))
        true, state = (codes[rows], vector[rows], detail[rows]), None if state is None else state[:, :, rows]
        output, left, stay, onset, _ = self._outputs(*true, conditions[rows], state)
        chance = gumbel((2, *onset.shape), 1.0, onset.device)
        begins = onset + chance[0] > chance[1]
        share, drawn = self._onset_share(), []
        for book, (centres, power) in enumerate(self._centres()):
            near = (left @ centres.T).float() - power
            logits = torch.addcmul(self._logits(output, book).float(), near, torch.where(begins, share[book], 1.0))
            logits.scatter_add_(-1, true[0][..., book : book + 1], stay[..., book : book + 1] * ~begins)
            code = sample(logits, gumbel(logits.shape, 1.0, logits.device))
            left = left - self.codec.books[book][code]
            output = output + self._embed_sampled(code, book)
            drawn.append(code)
        new_codes = torch.stack(drawn, -1)
        new_vector = self.codec.vector(new_codes) / self.codec.deviation
        mean, persistence, log_deviation = self.refiner(output, new_vector, true[1])
        new = mean + persistence * (true[1] + true[2] - new_vector) + log_deviation.exp() * torch.randn_like(mean)
        new = (new_codes, new_vector, new.clamp(-MAX_DETAIL, MAX_DETAIL))
        use = torch.rand(len(onset), 1, 1, device=onset.device)
        use = torch.rand(len(onset), onset.shape[1] - 1, 1, device=onset.device) < use
        mixed = codes.clone(), vector.clone(), detail.clone()
        for whole, kept, one in zip(mixed, true, new, strict=True):
            whole[rows, 1:] = torch.where(use, one[:, :-1], kept[:, 1:])
        is_drawn = torch.zeros_like(mixed[1][..., :1], dtype=torch.bool)
        is_drawn[rows, 1:] = use
        return *mixed, is_drawn

    def _outputs(self, codes, vector, detail, conditions, state, drawn=None):
        """What the LSTM makes of a history: context of the heads, guess at the next frame, logits of "the same
        code again" and of "something begins", state. Shape: as :meth:`_with_drawn` -> ``[B, T, ...]`` each"""
        embedded = self._embed(codes, vector, detail) + conditions
        if drawn is not None:
            embedded = embedded + drawn * self.drawn
        output, state = self._run(embedded.transpose(0, 1), state)
        output = output.transpose(0, 1)
        guess = (vector + detail) * self.codec.deviation + self.to_vector(output)
        output = self.to_head(output)
        return output, guess, self.stay(output).float(), self.onset(output).float(), state

    def _run(self, sequence: torch.Tensor, state: torch.Tensor | None):
        """All layers over ``[T, B, hidden]``; the state is ``[n_layers, 2, B, hidden]``."""
        states = []
        for i, layer in enumerate(self.layers):
            before = None if state is None else tuple(state[i].unsqueeze(1).to(sequence.dtype))
            output, after = layer(sequence, before)
            states.append(torch.cat(after))
            if self.training and self.config.dropout:
                # One mask for all frames (Gal and Ghahramani 2016); also far cheaper to draw.
                keep = 1 - self.config.dropout
                mask = torch.rand(output.shape[1:], device=output.device) < keep
                output = output * (mask / keep).to(output.dtype)
            # A direct path from the last frame to the output: without it, the first thousands of
            # steps are spent on learning to stand still.
            sequence = sequence + output
        return sequence, torch.stack(states)

    def _embed(self, codes: torch.Tensor, vector: torch.Tensor, detail: torch.Tensor, generator=None) -> torch.Tensor:
        """A frame as the LSTM's input: its first codes, and where it lies, under noise, in training and in
        rollouts: their own frames are not as exact as recorded ones. (bench/sound.md: harder to tell apart.)"""
        n = self.config.n_heard_books
        embedded = self.embedding(codes[..., :n] + self.offsets[:n]).sum(-2)
        frame = (vector + detail) * self.codec.deviation
        if self.config.input_noise:
            noise = torch.randn(frame.shape, generator=generator, device=frame.device)
            frame = torch.addcmul(frame, noise, self.codec.change.sqrt() * self.config.input_noise)
        return embedded + self.from_vector(frame / self.codec.scale)

    def _embed_reference(self, reference: torch.Tensor | None, n: int) -> torch.Tensor:
        """Shape: ``[B, n_components]`` in deviations, None for none to ``n`` sequences -> ``[B, hidden]``"""
        if reference is None:
            return self.no_reference.expand(n, -1)
        if self.training:
            reference = reference + REFERENCE_NOISE * torch.randn_like(reference)
        embedded = self.from_reference(reference * (self.codec.deviation / self.codec.scale)).float()
        if self.training:
            none = torch.rand(n, 1, device=embedded.device) < NO_REFERENCE
            embedded = torch.where(none, self.no_reference, embedded)
        return embedded

    def _conditions(self, reference: torch.Tensor, pulse: torch.Tensor | None) -> torch.Tensor:
        """What the LSTM hears beside the frames. Shape: ``[B, hidden]``, ``[B, T, 4]`` -> ``[B, T or 1, hidden]``"""
        conditions = reference.unsqueeze(1)
        if self.from_pulse is None or pulse is None:
            return conditions
        if self.training:
            pulse = pulse * (torch.rand(len(pulse), 1, 1, device=pulse.device) >= NO_PULSE)
        return conditions + self.from_pulse(pulse)

    def _embed_sampled(self, code: torch.Tensor, book: int) -> torch.Tensor:
        return self.code_embedding(code + book * self.config.n_codes)

    def _onset_share(self) -> torch.Tensor:
        """Of each book: the share of the nearness that is left where something begins."""
        return (8 * self.onset_width - 2).sigmoid()

    def _centres(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each book: its centres times the precision of the guess, half their squared length in it.

        With them, ``guess @ centres.T - power`` is, but for a constant, the log-density of a normal
        distribution around the guess: -|guess - centre|^2 / 2 over a variance that is learned, from that
        of the change between frames on.
        """
        # The factor lets a parameter that moves by the learning rate change tenfold in minutes.
        precision = (8 * self.precision - 2).exp() / self.codec.change
        weighted = [book * p for book, p in zip(self.codec.books, precision, strict=True)]
        return [(w, 0.5 * (w * book).sum(-1)) for w, book in zip(weighted, self.codec.books, strict=True)]

    def first_centres(self) -> torch.Tensor:
        """Of the first book, in deviations. Shape: ``[n_codes, n_components]``"""
        return self.codec.books[0] / self.codec.deviation

    def _logits(self, context: torch.Tensor, book: int) -> torch.Tensor:
        return self.logits[book](gelu(self.norms[book](context)))

    # -- rollout -----------------------------------------------------------------------------

    def start(self, frames: torch.Tensor, layout: Layout | None = None, generator=None, pulse: tuple | None = None):
        """Rollout state after a prompt.

        Args:
            layout: of :meth:`lay_out`, for many rollouts.
            pulse: its coefficients in the prompt's last frame, and by how much they turn from frame to frame: as
                :class:`rhythm.Pulse` has them, complex; None for none.

        Shape:
            frames ``[B, T, 2 * n_bins]``, pulse ``[B, 2]`` and ``[B, 2]``
        """
        log_magnitude, layout = frames.chunk(2, dim=-1)[0], layout or self.lay_out()
        if pulse is None:
            none = torch.zeros(len(frames), 2, dtype=torch.complex64, device=frames.device)
            pulse = none, none + 1
        state = self._after(log_magnitude, layout, pulse, generator)
        n = min(round(GAIN_SECONDS * self.frame_rate), log_magnitude.shape[1] // 2)
        if n:
            dice = torch.Generator(log_magnitude.device).manual_seed(0)  # a prompt's gain is the same for all seeds
            before = self._after(log_magnitude[:, -2 * n : -n], layout, (pulse[0] * pulse[1] ** -n, pulse[1]), dice)
            gain = codec_gain(self, before, log_magnitude[:, -n:], dice)
            state = state._replace(balance=state.balance + GAIN_SHARE * gain)
        return state

    def _after(self, log_magnitude: torch.Tensor, layout: Layout, pulse: tuple, generator=None) -> RolloutState:
        """Rollout state after frames ``[B, T, n_bins]``, with the gain of all prompts."""
        codes, vector, detail = self.codec.analyze(log_magnitude)
        state = self.embedding.weight.new_zeros(len(self.layers), 2, len(codes), self.config.hidden_size)
        reference = self._embed_reference((vector + detail)[:, -REFERENCE_FRAMES:].mean(1), len(codes))
        if codes.shape[1] > 1:
            z, turn = (x.unsqueeze(1) for x in pulse)
            frame = torch.arange(2 - codes.shape[1], 1, device=codes.device).view(1, -1, 1)  # 0: the prompt's last
            heard = torch.view_as_real(z * turn**frame).flatten(-2)
            embedded = self._embed(codes[:, :-1], vector[:, :-1], detail[:, :-1], generator)
            embedded = embedded + self._conditions(reference, heard)
            _, state = self._run(embedded.transpose(0, 1), None)
        details, held = detail[:, -1].expand(2, -1, -1), detail.new_zeros(len(codes), 1)
        frames = (vector + detail)[:, -REFERENCE_FRAMES:]
        level = self.codec.level(log_magnitude[:, -REFERENCE_FRAMES:])
        gone = drift.start(frames, level, self.frame_rate, self.codec.softest)
        # First codes of another instrument are not drawn, but for those that the prompt itself has.
        far = drift.distance(self.first_centres(), gone.origin.unsqueeze(1), self.drift) > self.leap
        first = -FAR * far.scatter(1, codes[:, -REFERENCE_FRAMES:, 0], False).float()
        balance = self.codec.balance.expand(len(codes), 1)
        return RolloutState(
            codes[:, -1],
            vector[:, -1],
            state.unbind(0),
            details,
            reference,
            held,
            gone,
            first,
            balance,
            *pulse,
            reference.unsqueeze(1),
            layout,
        )

    def lay_out(self, linear: Callable = plain_linear) -> Layout:
        """The weights as they are now, for rollouts; ``linear`` makes a function of a weight and a bias."""
        return lay_out(self, linear)

    def next_frame(self, state, temperature: float = 1.0, top_k: int = 0, generator=None, true_codes=None):
        """:func:`rollout.next_frame`"""
        return next_frame(self, state, temperature, top_k, generator, true_codes)


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Shape: logits ``[..., n_codes]``, target ``[...]`` -> nats ``[...]``, 0 where it is unused."""
    nats = F.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=UNUSED, reduction="none")
    return nats.view(target.shape)
