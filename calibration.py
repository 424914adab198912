"""What rollouts are calibrated by: the gain of the decoder, how likely beginnings are, how long a hold usually is.

Detail drawn more narrowly than it is (``detail_temperature``) has less power in the mean: one gain for all bins. And a
model that is right about each frame, given a recording up to there, still begins too few notes when it goes on by
itself for seconds: one number that makes beginnings likelier, and the time after which a hold is a long one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch

from device import use_threads
from featurizer import Featurizer
from predictor import Predictor
from rollout import GAIN_SHARE

PIECES, PROMPT, FRAMES = 24, 40, 160  # pieces for the gain, and frames in each
ROLLOUTS, ROLLOUT_SECONDS = 10, (16, 8, 4)  # for the rest; music that dies away does so slowly
MAX_BALANCE = 0.7  # nepers: 6 dB
RISES = 0.03  # share of a corpus' frames whose rise counts as something that begins
RISES_PER_BIAS = 1.5  # nats of their share for each of the bias, as measured
TRIED_BIASES = (0.0, 0.8)  # nats
MIN_BIAS, MAX_BIAS = -0.5, 1.5


def calibrate(predictor: Predictor, pieces: Callable, seed: int, watch: Callable[[float], None]):
    """Set ``codec.balance``, ``usual_hold`` and ``onset_bias`` of the predictor's model. Nothing is done where the
    recordings are too short.

    Args:
        pieces: of the recordings, a function ``(n, n_samples) -> [n, (2,) n_samples]``; it gives None where they are
            shorter.
        seed: of the rollouts.
        watch: called with the share that is done, with each frame. Where it raises, everything stays as it was.

    Raises:
        FloatingPointError: what was measured is not finite: everything stays as it was.
    """
    model = predictor.model
    measured = model.codec.balance, model.usual_hold, model.onset_bias
    before = [x.clone() for x in measured]
    try:
        with use_threads(1):
            _calibrate(predictor, pieces, seed, watch)
        if not all(bool(x.isfinite()) for x in measured):
            raise FloatingPointError("what rollouts are calibrated by is not finite")
    except BaseException:
        for x, old in zip(measured, before, strict=True):
            x.copy_(old)
        raise


def _calibrate(predictor: Predictor, pieces: Callable, seed: int, watch: Callable[[float], None]):
    model, codec, framing = predictor.model, predictor.model.codec, predictor.config.featurizer
    n_prompt = framing.n_fft + PROMPT * framing.hop_length
    n_frames = max(FRAMES, 8 * framing.n_fft // framing.hop_length)
    waveform = pieces(PIECES, n_prompt + n_frames * framing.hop_length)
    if waveform is None:
        return
    codec.balance.zero_()
    again = predictor.reconstruct(waveform, n_prompt, seed=seed, progress=lambda n: watch(0.1 * min(1, n / n_frames)))
    skip = n_prompt + framing.n_fft  # samples whose frames still see the prompt
    power = [x[..., skip : again.shape[-1]].square().flatten(1).mean(-1) + 1e-12 for x in (waveform, again)]
    # Each prompt's own gain has made up for its share, and will again.
    balance = (0.5 * (power[0] / power[1]).log()).median() / (1 - GAIN_SHARE)
    codec.balance.copy_(balance.clamp(-MAX_BALANCE, MAX_BALANCE))
    for seconds in ROLLOUT_SECONDS:  # as long as the recordings allow
        n_frames = round(seconds * framing.frame_rate)
        waveform = pieces(ROLLOUTS, n_prompt + n_frames * framing.hop_length)
        if waveform is not None:
            break
    else:
        return
    watch(0.1)
    follows = waveform[..., n_prompt - framing.n_fft + framing.hop_length :]
    featurizer, codes = Featurizer(framing, predictor.device), []
    for piece in follows.split(1):  # one at a time, so that a signal is not kept waiting
        codes.append(codec.encode(featurizer.log_magnitude(piece)))
        watch(0.1)
    true_codes = torch.cat(codes)
    model.usual_hold.fill_(float(longest_holds(true_codes[..., 0]).median()))
    # The prompts are too short to have a beat: it is that of what follows, turned back.
    z, turn = predictor.pulse(waveform)
    pulse = z * turn ** -((waveform.shape[-1] - n_prompt) // framing.hop_length), turn
    model.onset_bias.fill_(onset_bias(predictor, waveform[..., :n_prompt], true_codes, pulse, seed, watch))


def onset_bias(
    predictor: Predictor,
    prompt: torch.Tensor,
    true_codes: torch.Tensor,
    pulse: tuple,
    seed: int,
    watch: Callable[[float], None] = lambda share: None,
) -> float:
    """The bias at which rollouts begin no more, and are in their second half no louder, than the decoder with
    true codes; whichever of the two comes first.

    Shape:
        prompt ``[B, (2,) n_samples]``, true_codes of what follows ``[B, T, n_books]``, pulse of the prompts as of
        :meth:`Predictor.pulse`
    """
    model, codec = predictor.model, predictor.model.codec
    n_frames, first = true_codes.shape[1], true_codes.shape[1] // 2

    def liveliness(frames, done: float):
        """Rises, and the mean level, of the second half. Shape: ``[B, n_bins]`` each -> ``[B, T]``, ``[B]``"""
        kept = []
        for t, frame in enumerate(itertools.islice(frames, n_frames)):
            watch(done + 0.45 * t / n_frames)
            if t >= first:
                kept.append(frame)
        frames = torch.stack(kept, 1)
        return codec.rise(frames), codec.level(frames).mean((1, 2))

    true_rises, true_level = liveliness(predictor.frames(prompt, seed=seed, true_codes=true_codes, pulse=pulse), 0.1)
    usual = true_rises.quantile(1 - RISES)
    saved, n = model.onset_bias, len(prompt)
    try:  # both in one batch
        model.onset_bias = saved.new_tensor(TRIED_BIASES).repeat_interleave(n).unsqueeze(-1)
        again = torch.cat([prompt] * len(TRIED_BIASES))
        pulses = tuple(x.repeat(len(TRIED_BIASES), 1) for x in pulse)
        rises, level = liveliness(predictor.frames(again, seed=seed, pulse=pulses), 0.55)
    finally:
        model.onset_bias = saved
    surplus = []  # how much too much begins, or how much too loud it is: about nats of bias
    for rise, loud in zip(rises.split(n), level.split(n), strict=True):
        share = max(float((rise > usual).float().mean()), RISES / 20)  # clear of the logarithm's pole
        surplus.append(max(math.log(share / RISES) / RISES_PER_BIAS, float((loud - true_level).mean())))
    (low, high), (at_low, at_high) = TRIED_BIASES, surplus
    slope = min(max((at_high - at_low) / (high - low), 0.5), 2.0)
    near = (low, at_low) if abs(at_low) < abs(at_high) else (high, at_high)
    return min(max(near[0] - near[1] / slope, MIN_BIAS), MAX_BIAS)


def longest_holds(codes: torch.Tensor) -> torch.Tensor:
    """Frames of the longest run of one code in each row. Shape: ``[B, T]`` -> ``[B]``"""
    run = longest = torch.ones_like(codes[:, 0])
    for before, after in zip(codes[:, :-1].unbind(1), codes[:, 1:].unbind(1), strict=True):
        run = torch.where(before == after, run + 1, 1)
        longest = torch.maximum(longest, run)
    return longest
