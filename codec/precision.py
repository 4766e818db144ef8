"""What a fit asks of a device: bfloat16 where that pays, its fastest kernels, or those that always give the same."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch

from .layers import QuantConv

# On a Zen 5 core a 5x5 layer of 60 channels took 0.55 of the time, one of 18 channels 1.17 (bench/results).
LEAST_INPUTS = 32


def half_is_fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.9
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def set_half(layers: Iterable[QuantConv], on: bool, device: torch.device) -> None:
    """Let the layers that are wide enough compute in bfloat16, or none."""
    on = on and half_is_fast(device)
    for layer in layers:
        layer.in_bfloat16 = on and layer.weight.shape[1] >= LEAST_INPUTS


def half_encoders(device: torch.device) -> AbstractContextManager[object]:
    """Within, what finds latents computes in bfloat16 on a GPU: it is not transmitted, and nothing is made of its last digits."""
    if device.type != "cuda" or not half_is_fast(device):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)  # a cache would outlive a recorded step


def set_tuned(device: torch.device) -> None:
    """Let a GPU try which of its kernels are the fastest, unless `set_deterministic` came first: all layers keep their shapes for
    thousands of steps.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()


def set_deterministic() -> None:
    """Let a GPU add up in a fixed order, so that a fit of the same seed gives the same file; before its first use.

    PyTorch warns of an operation that it has in no such form.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True, warn_only=True)
