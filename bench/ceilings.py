"""What a device does at best, measured, and the least that a piece of work asks of it: products and bytes.

Matrix products of random numbers bound what convolutions reach, a copy within the device bounds what everything else does. The
work is counted as it is done: every convolution and matrix product, forward and backward, with the type of its factors. Its bytes
are those of their operands and results, each once: all that lies between them could be computed on the way. Where maps are so
small that they stay in a cache, even that is no lower bound.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from jobs import setting
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

BFLOAT16, TF32, FLOAT32 = KINDS = ("bfloat16", "tf32", "float32")
TINY = {"side": 128, "bytes": 1 << 20}
SIZES = {"cpu": {"side": 1024, "bytes": 1 << 28}, "cuda": {"side": 8192, "bytes": 1 << 31}}  # of a matrix, and of what is copied
WARM_UP, REPEATS = 3, 15


def kinds(device: torch.device) -> tuple[str, ...]:
    """The types of factors that a device has."""
    return KINDS if device.type == "cuda" else (BFLOAT16, FLOAT32)


def timed(run: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> list[float]:
    """Seconds of each of `repeats` calls, after some that do not count: by the device's own clock where it has one."""
    for _ in range(WARM_UP):
        run()
    if device.type != "cuda":
        return [_seconds(run) for _ in range(repeats)]
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(marks)]


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def product(kind: str, device: torch.device, side: int) -> float:
    """Floating-point operations a second, two for a multiply-add, of the product of two matrices of `side` x `side`."""
    # random, because a chip draws less power, and so runs faster, on zeros
    dtype = torch.bfloat16 if kind == BFLOAT16 else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with _matrices(TF32 if kind == TF32 else "ieee"):
        return 2 * side**3 / statistics.median(timed(lambda: torch.mm(a, b, out=out), device))


def _matrices(precision: str) -> AbstractContextManager[None]:
    """Within, matrix products of float32 are computed like this on CUDA."""
    return setting(torch.backends.cuda.matmul, "fp32_precision", precision)


def copy(device: torch.device, size: int) -> float:
    """Bytes a second, read and written together, of a copy of `size` bytes within the device."""
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / statistics.median(timed(lambda: target.copy_(source), device))


class Work(TorchDispatchMode):
    """Within, counts `flops` by the type of the factors, and `bytes`, of convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.flops[_kind(tensors[0], str(func))] += int(formula(*args, **kwargs, out_val=out))
            different = {id(tensor): tensor for tensor in tensors}  # `out=` is operand and result
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in different.values())
        return out


def _kind(factor: Tensor, name: str) -> str:
    """The type that an operation computes with."""
    if factor.dtype != torch.float32:
        return str(factor.dtype).removeprefix("torch.")
    backends: Any = torch.backends
    owner = backends.cudnn.conv if "convolution" in name else backends.cuda.matmul
    return TF32 if factor.is_cuda and owner.fp32_precision == TF32 else FLOAT32


def least_seconds(flops: Mapping[str, float], ceilings: Mapping[str, float]) -> float | None:
    """How long so many operations of each type take at the ceilings, in operations a second; None where one is unknown."""
    if not flops.keys() <= ceilings.keys():
        return None
    return sum(count / ceilings[kind] for kind, count in flops.items())
