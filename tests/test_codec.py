"""Codec, and the distributions of what a frame is drawn from."""

import itertools

import numpy as np
import pytest
import threadpoolctl
import torch

from codec import ResidualCodec, fit_codec, varimax
from featurizer import DB
from refiner import Refiner
from sampling import gumbel, sample

CPU = torch.device("cpu")


def test_every_book_lowers_the_error(frames):
    """Residual quantization: with each book the weighted error falls by at least 3 %."""
    codec = ResidualCodec(257, 32, 5, 32)
    fit_codec(codec, frames, 8000, seed=0)
    vectors = codec.project(torch.from_numpy(frames))
    codes = codec.encode(torch.from_numpy(frames))
    errors = [float(vectors.square().sum())]
    residual = vectors.clone()
    for book in range(5):
        residual = residual - codec.books[book][codes[..., book]]
        errors.append(float(residual.square().sum()))
    assert all(after < 0.97 * before for before, after in itertools.pairwise(errors)), errors


def test_codes_survive_decoding(frames):
    """Decoding is a right inverse of encoding but for ties: 95 % of the first codes stay."""
    codec = ResidualCodec(257, 32, 5, 32)
    fit_codec(codec, frames, 8000, seed=0)
    codes = codec.encode(torch.from_numpy(frames))
    again = codec.encode(codec.decode(codes))
    assert float((codes[..., 0] == again[..., 0]).float().mean()) > 0.95


def test_codes_and_detail_are_the_whole_frame(frames):
    """Codes and detail together give the projected frame back, within 1e-4 of a neper."""
    codec = ResidualCodec(257, 32, 5, 32)
    fit_codec(codec, frames, 8000, seed=0)
    true = torch.from_numpy(frames).clamp(min=-100 / DB)
    codes = codec.encode(true)
    detail = codec.detail(true, codes)
    again = codec.unproject(codec.vector(codes) + detail * codec.deviation)
    torch.testing.assert_close(again, codec.unproject(codec.project(true)), atol=1e-4, rtol=0)
    assert float(detail.std()) == pytest.approx(1, abs=0.05)


def test_varimax_finds_what_was_turned():
    """Columns that share no row, turned at random: the rotation brings each back, to 1e-6, and is orthogonal."""
    random = np.random.default_rng(0)
    sparse = np.zeros((60, 6))
    for column in range(6):
        sparse[10 * column : 10 * column + 10, column] = random.normal(size=10)
    turned = sparse @ np.linalg.qr(random.normal(size=(6, 6)))[0]
    rotation = varimax(turned)
    assert np.abs(rotation @ rotation.T - np.eye(6)).max() < 1e-9
    again = np.abs((turned @ rotation).T @ sparse) / np.square(sparse).sum(0)  # each column's share of each true one
    assert np.abs(np.sort(again, 0)[-1] - 1).max() < 1e-6 and np.sort(again, 0)[:-1].max() < 1e-6


def test_the_refiner_starts_as_a_standard_normal():
    """Before it has learned anything: mean 0, deviation 1, whatever it sees."""
    refiner = Refiner(24, 16, 32)
    mean, persistence, log_deviation = refiner(*(torch.randn(3, n) for n in (16, 24, 24)))
    assert not mean.any() and not persistence.any() and not log_deviation.any()


def test_detail_is_bounded_whatever_was_learned():
    """Weights far beyond any training: the detail's process stays stable (factor below 1)."""
    refiner = Refiner(24, 16, 32)
    with torch.no_grad():
        for parameter in refiner.parameters():
            parameter.normal_(0, 10)
        mean, persistence, log_deviation = refiner(*(100 * torch.randn(1000, n) for n in (16, 24, 24)))
    assert mean.abs().max() <= 2 and persistence.abs().max() < 0.99 and log_deviation.abs().max() <= 1.5


def test_a_corpus_of_fewer_frames_than_codes():
    codec = ResidualCodec(33, 16, 3, 64)
    chunks = np.random.default_rng(0).normal(-5, 1, (1, 10, 33)).astype(np.float32)
    fit_codec(codec, chunks, 8000, seed=0)
    assert torch.isfinite(codec.decode(torch.randint(0, 64, (5, 3)))).all()


def test_sampling_follows_the_softmax():
    """Frequencies within 3 standard errors of the softmax at a temperature; top-k cuts exactly."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    n = 20000
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits[0] / temperature).softmax(0)
        drawn = sample(logits.expand(n, 4), gumbel((n, 4), temperature, CPU, generator))
        frequency = torch.bincount(drawn, minlength=4) / n
        assert ((frequency - expected).abs() < 3 * (expected * (1 - expected) / n).sqrt() + 1e-3).all()
    noise = gumbel((n, 4), 1.0, CPU, generator)
    assert set(sample(logits.expand(n, 4), noise, 2).tolist()) == {0, 1}
    assert set(sample(logits.expand(n, 4), gumbel((n, 4), 0.0, CPU)).tolist()) == {0}
    # Between two, as whether something begins: the share is the sigmoid of the logit.
    chance = gumbel((2, n), 1.0, CPU, generator)
    assert abs(float((1.0 + chance[0] > chance[1]).float().mean()) - 0.7311) < 0.01


def test_codebooks_do_not_depend_on_the_threads(frames):
    """They are fitted in one, and what was there before is given back."""
    books = []
    for n in (1, 2):
        with threadpoolctl.threadpool_limits(n):
            before = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
            codec = ResidualCodec(frames.shape[-1], 24, 2, 16)
            fit_codec(codec, frames, 8000, seed=0)
            books.append(codec.books)
            assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info()][: len(before)] == before
    assert torch.equal(*books)
