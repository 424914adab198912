"""Choose the device and the number format that it computes fast in."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import warnings
from collections.abc import Callable, Iterator

import torch

from errors import UserError


def select_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: the named device is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, usable in available.items() if usable)
    elif not available[name]:
        raise UserError(f"--device {name}: not available here; use --device auto")
    return torch.device(name)


def has_bf16_matrix_units(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 ones there, by the hardware's word."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Private names of torch.cpu, but the only detection that covers AMX: absent means no.
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def rollout_linear(device: torch.device) -> Callable | None:
    """A function that makes, of a weight and a bias, a linear layer faster for few rows than PyTorch's usual one.

    On CPUs with FBGEMM the weights are float16, sums float32: reading them takes most of a rollout's time,
    and half of the bytes half of it. None where there is nothing faster.
    """
    names = ("fbgemm_pack_gemm_matrix_fp16", "fbgemm_linear_fp16_weight_fp32_activation")
    pack, apply = (getattr(torch, name, None) for name in names)
    if device.type != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines or not pack or not apply:
        return None

    def make(weight: torch.Tensor, bias: torch.Tensor) -> Callable:
        with warnings.catch_warnings():  # PyTorch calls them deprecated, and has nothing as fast yet
            warnings.simplefilter("ignore")
            packed = pack(weight)
            apply(weight[:1], packed, bias)
        return lambda x: apply(x, packed, bias)

    return make


@contextlib.contextmanager
def use_threads(n: int) -> Iterator[None]:
    """PyTorch's threads for the CPU, for as long as the block lasts.

    A rollout is a chain of products too small to share: two threads wait for each other after each, most of all
    where something else runs on their cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def n_usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def other_load() -> float:
    """Cores that have been busy during the last minute, before this process has begun its work; 0 where nobody says."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def busy_hint(threads: int) -> str | None:
    """What to say where other programs want the cores that so many threads of ours would share with them."""
    if threads == 1 or other_load() <= 0.7 * threads:
        return None
    busy, free = f"other programs are busy on these {threads} cores", max(1, threads - round(other_load()))
    return f"{busy}; where they stay, --threads {free} may be several times faster"


def keep_freed_memory():
    """Let the C library keep what a training step frees, for the next one.

    glibc hands large blocks back to the kernel at once, which fills them with zeros again a moment
    later: a fifth of a step's time on a CPU. Does nothing where the C library is another one.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 2**31 - 1)
