"""Convolutions that are proven exact on this device: a self-test against a path that cannot be wrong, taken where the fast
one is.

Sums below 2^24 are exact in float32 in any order, but a library may choose a kernel that transforms its input first
(Winograd, FFT), and no flag excludes those. So every distinct convolution runs once on saturating integers before it is
trusted (SPEC 8.1, note).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nvc.bitstream import arithmetic

STRIP_BYTES = 64 << 20  # of unfolded input at a time on the safe path
WEIGHT_MAX = 127

Convolution = Callable[[Tensor, Tensor, Tensor, int], Tensor]

_tested: dict[tuple[object, ...], Convolution] = {}


def fast(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Zero-padded convolution (N, I, H, W) -> (N, O, H, W) by whatever kernel the library chooses."""
    return functional.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2), groups=groups)


def safe(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """The same by im2col and matrix products, which only add products: exact whatever the order, but slower."""
    n, channels, height, width = x.shape
    outputs, per_group, kh, kw = weight.shape
    padded = functional.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2))
    rows = max(1, STRIP_BYTES // (4 * n * channels * kh * kw * width))
    matrix = weight.reshape(groups, outputs // groups, per_group * kh * kw)
    strips = []
    for top in range(0, height, rows):
        count = min(rows, height - top)
        columns = functional.unfold(padded[:, :, top : top + count + kh - 1], (kh, kw))
        columns = columns.reshape(n, groups, per_group * kh * kw, count * width)
        strips.append(torch.matmul(matrix, columns).reshape(n, outputs, count, width))
    return torch.cat(strips, dim=2).add_(bias.reshape(1, -1, 1, 1))


def choose(shape: tuple[int, int, int, int], weight: Tensor, bias: Tensor, groups: int) -> Convolution:
    """`fast` where it equals `safe` on saturating integers (N, I, H, W) = `shape`, else `safe`.

    Which kernel a library takes depends on the geometry alone, so the answer is kept per device and geometry, and the trial
    must not depend on the layer's own numbers: a quiet layer would vouch for all others of its geometry.
    """
    key = (weight.device, shape, tuple(weight.shape), groups, torch.get_num_threads())
    if key not in _tested:
        x, trial = _saturating(shape, weight)
        nothing = torch.zeros_like(bias)
        same = torch.equal(fast(x, trial, nothing, groups), safe(x, trial, nothing, groups))
        _tested[key] = fast if same else safe
    return _tested[key]


def _saturating(shape: tuple[int, int, int, int], weight: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and weights, all extremes of random sign, whose sums never pass 2^24; output 0 comes near it in the upper half."""
    taps = weight[0].numel()
    largest = max(1, min(WEIGHT_MAX, arithmetic.EXACT // (taps * arithmetic.ACTIVATION_HIGH)))
    high = min(arithmetic.ACTIVATION_HIGH, arithmetic.EXACT // (taps * largest))
    generator = torch.Generator().manual_seed(0)
    x = (torch.randint(0, 2, shape, generator=generator) * 2 - 1).float() * high
    trial = (torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1).float() * largest
    x[:, :, : (shape[2] + 1) // 2] = high
    trial[0] = largest
    return x.to(weight.device).contiguous(memory_format=torch.channels_last), torch.empty_like(weight).copy_(trial)


@contextmanager
def pinned() -> Iterator[None]:
    """No reduced precision in CPU kernels and no autograd, restored afterwards. TF32 stays allowed: it is exact here
    (SPEC 8.1).
    """
    with torch.inference_mode(), _ieee(torch.backends, "mkldnn", "conv"), _ieee(torch.backends, "mkldnn", "matmul"):
        yield


def _ieee(root: Any, *path: str) -> Any:
    for name in path:
        root = getattr(root, name, None)
    if root is None or not hasattr(root, "fp32_precision"):
        return nullcontext()
    return _precision(root)


@contextmanager
def _precision(knob: Any) -> Iterator[None]:
    before = knob.fp32_precision
    knob.fp32_precision = "ieee"
    try:
        yield
    finally:
        knob.fp32_precision = before
