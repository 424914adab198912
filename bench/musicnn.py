"""MusiCNN (Pons and Serra 2019), the network whose embeddings the Frechet audio distance compares.

Its weights lie in the ``musicnn`` package (ISC licence, ``pip install --no-deps musicnn``) as a
TensorFlow checkpoint; they are read with numpy and run by PyTorch, so TensorFlow is not needed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from errors import UserError
from featurizer import load_torchaudio

SAMPLE_RATE = 16000  # Hz
N_FFT, HOP_LENGTH, N_MELS = 512, 256, 96
N_FRAMES = 187  # of a window: 3 s
EPSILON = 1e-3  # TensorFlow's batch normalization


class MusiCNN:
    """Embeddings of three-second windows, 200 numbers each: the dense layer before the tags.

    Raises:
        UserError: the package with the weights is not installed.
    """

    def __init__(self):
        spec = importlib.util.find_spec("musicnn")
        if spec is None:
            raise UserError("musicnn: not installed; pip install --no-deps -r requirements-metrics-nodeps.txt")
        self.weights = _read_checkpoint(Path(spec.submodule_search_locations[0]) / "MTT_musicnn")
        self.filters = _mel_filters()

    @torch.inference_mode()
    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        """Shape: windows ``[B, 3 s at 16 kHz]`` of RMS 1 or any other -> ``[B, 200]``; level is removed."""
        windows = windows / windows.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-8) * 0.1
        return torch.cat([self._network(self._log_mel(part)) for part in windows.split(32)])

    def _log_mel(self, waveform: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            waveform, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), pad_mode="constant", return_complex=True
        )
        power = spectrum.abs().square().transpose(1, 2) @ self.filters
        return (10000 * power + 1).log10()[:, :N_FRAMES]

    def _norm(self, x: torch.Tensor, index: int) -> torch.Tensor:
        """Batch normalization over the last dimension."""
        name = "batch_normalization" + (f"_{index}" if index else "")
        w = {k: self.weights[f"{name}/{k}"] for k in ("moving_mean", "moving_variance", "gamma", "beta")}
        return (x - w["moving_mean"]) * (w["gamma"] / (w["moving_variance"] + EPSILON).sqrt()) + w["beta"]

    def _conv(self, x: torch.Tensor, index: int, pad=(0, 0, 0, 0)) -> torch.Tensor:
        """Convolution and ReLU, channels last. Shape: ``[B, T, M, C]`` -> ``[B, T', M', C']``"""
        name = "conv2d" + (f"_{index}" if index else "")
        kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        out = F.conv2d(F.pad(x.permute(0, 3, 1, 2), pad), kernel, self.weights[f"{name}/bias"])
        return out.relu().permute(0, 2, 3, 1)

    def _network(self, log_mel: torch.Tensor) -> torch.Tensor:
        x = self._norm(log_mel.unsqueeze(-1), 0)
        front = []
        for index in range(5):  # two timbral filters (7 frames high), three temporal ones (one band wide)
            length = self.weights["conv2d" + (f"_{index}" if index else "") + "/kernel"].shape[0]
            pad = (0, 0, (length - 1) // 2, length // 2)
            front.append(self._norm(self._conv(x, index, pad), index + 1).amax(dim=2))
        x = torch.cat(front, dim=-1)  # [B, T, 561]
        layers = [x]
        for index in range(5, 8):
            out = self._norm(self._conv(layers[-1].unsqueeze(-1), index, (0, 0, 3, 3)), index + 1)[:, :, 0]
            layers.append(out if index == 5 else out + layers[-1])
        x = torch.cat(layers, dim=-1)
        pooled = torch.stack([x.amax(dim=1), x.mean(dim=1)], dim=2).flatten(1)
        pooled = self._norm(pooled, 9)
        dense = F.relu(pooled @ self.weights["dense/kernel"] + self.weights["dense/bias"])
        return self._norm(dense, 10)


def windows(waveform: torch.Tensor, sample_rate: int, hop_seconds: float = 1.5) -> torch.Tensor:
    """The three-second windows of a waveform, at MusiCNN's rate. Shape: ``[n_samples]`` -> ``[n, 48000]``"""
    import soxr

    resampled = torch.from_numpy(soxr.resample(waveform.numpy(), sample_rate, SAMPLE_RATE))
    size = N_FRAMES * HOP_LENGTH
    if len(resampled) < size:
        return resampled.new_zeros(0, size)
    return resampled.unfold(0, size, int(hop_seconds * SAMPLE_RATE))


def _mel_filters() -> torch.Tensor:
    functional = load_torchaudio()
    if functional is None:
        raise UserError("torchaudio: not installed; pip install -r requirements.txt")
    # librosa's default, with which the network was trained: Slaney's scale and area.
    return functional.melscale_fbanks(N_FFT // 2 + 1, 0, SAMPLE_RATE / 2, N_MELS, SAMPLE_RATE, "slaney", "slaney")


# -- TensorFlow's checkpoint: a table of names (LevelDB's format) beside one file of numbers --------


def _read_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    table, data = (folder / ".index").read_bytes(), (folder / ".data-00000-of-00001").read_bytes()
    footer = table[-48:]
    at = 0
    handles = []
    for _ in range(4):  # of the meta index, then of the index: offset and size each
        value, at = _varint(footer, at)
        handles.append(value)
    tensors = {}
    for _, handle in _block(table, *handles[2:]):
        offset, at = _varint(handle, 0)
        size, _ = _varint(handle, at)
        for name, entry in _block(table, offset, size):
            fields = _message(entry)
            if not name or fields.get(1) != [1]:  # the header; anything but float32
                continue
            dimensions = [_message(d).get(1, [0])[0] for d in _message(fields[2][0]).get(2, [])]
            start = fields.get(4, [0])[0]
            values = np.frombuffer(data, "<f4", fields[5][0] // 4, start).reshape(dimensions)
            tensors[name.decode()] = torch.from_numpy(values.copy())
    return tensors


def _block(table: bytes, offset: int, size: int):
    """Key and value of each entry; a key is given by what differs from the one before."""
    block = table[offset : offset + size]
    if table[offset + size]:
        raise ValueError("compressed table")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length


def _message(data: bytes) -> dict[int, list]:
    """Fields of a protocol buffer message: whole numbers, and bytes for what has a length."""
    fields, at = {}, 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            width = {1: 8, 5: 4}[kind]
            value, at = data[at : at + width], at + width
        fields.setdefault(number, []).append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
