"""Convolutions that are proven exact on this device: a self-test against a path that cannot be wrong, taken where the fast
one is.

Sums below 2^24 are exact in float32 in any order, but a library may choose a kernel that transforms its input first
(Winograd, FFT), and no flag excludes those. So every distinct convolution runs once on saturating integers before it is
trusted (SPEC 8.1, note).

What the test shows: that the kernel which the library takes for this device, geometry, batch and number of threads gives
the integer convolution for numbers as large as the format allows. What runs is what was tested, because everything that a
library chooses by is the same in both: dtype, shape, strides and alignment (`arranged`), the flags (`pinned`), and on CUDA
cuDNN's plan, which PyTorch keeps per geometry, strides, alignment and flags once it has run.

What it does not show: that a kernel is exact for every input. It is tried with one, the sums of which come near 2^24; and
beyond 8196 taps, where the inputs of the trial have to be smaller than 2047, it says nothing of whether the kernel keeps all
bits of larger ones. And cuDNN falls back to another, untested plan where there is no memory any more for the workspace of
the tested one: the decoder leaves most of a device's memory free for that reason. For all of this there is the hash of each
frame: a wrong frame is an error, never a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
    made = x.new_empty(n, outputs, height, width)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        columns = functional.unfold(padded[:, :, top : top + count + kh - 1], (kh, kw))
        columns = columns.reshape(n, groups, per_group * kh * kw, count * width)
        made[:, :, top : top + count] = torch.matmul(matrix, columns).reshape(n, outputs, count, width)
    return made.add_(bias.reshape(1, -1, 1, 1))


def arranged(x: Tensor) -> Tensor:
    """`x` (N, C, H, W) as libraries saw it in the trial: channels last in every stride, from the start of its memory.

    A library may choose by strides and alignment, and PyTorch takes maps of one channel, row or column for channels-last
    with whatever stride that one has. Copied only where it has to be.
    """
    _, channels, height, width = x.shape
    if x.storage_offset() == 0 and x.stride() == (channels * height * width, 1, channels * width, channels):
        return x
    return torch.empty(x.shape, device=x.device, memory_format=torch.channels_last).copy_(x)


def choose(shape: tuple[int, int, int, int], weight: Tensor, bias: Tensor, groups: int) -> Convolution:
    """`fast` where it equals `safe` on saturating integers (N, I, H, W) = `shape`, else `safe`; for maps that are `arranged`.

    To be called inside `pinned`, as what it returns. Which kernel a library takes depends on the geometry alone, so the answer
    is kept per device and geometry, and the trial must not depend on the layer's own numbers: a quiet layer would vouch for
    all others of its geometry.
    """
    key = (weight.device, shape, tuple(weight.shape), groups, torch.get_num_threads(), torch.backends.cudnn.enabled)
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
    # drawn on the device: a batch of a large layer is gigabytes, which a processor takes seconds to draw and send
    generator = torch.Generator(weight.device).manual_seed(0)
    x = torch.empty(shape, device=weight.device, memory_format=torch.channels_last)
    x.random_(0, 2, generator=generator).mul_(2 * high).sub_(high)
    trial = torch.empty_like(weight).random_(0, 2, generator=generator).mul_(2 * largest).sub_(largest)
    x[:, :, : (shape[2] + 1) // 2] = high
    trial[0] = largest
    return x, trial


@contextmanager
def pinned() -> Iterator[None]:
    """Everything set that decides which kernel runs and at what precision, and no autograd; restored afterwards.

    - mkldnn and cuBLAS compute in float32 proper ("ieee"): the latter is the safe path, against which the others are judged.
    - cuDNN's convolutions may use TF32, whose 11 significant bits hold every factor: activations of at most 12 bits with their
      sign, and -2048, a power of two; weights of 8. Products and their sums stay in float32 (SPEC 8.1).
    - No autocast, which would round factors to 8 bits.
    - cuDNN does not try kernels out against each other (`benchmark`): the fastest of today need not be the one that was
      tested. And it takes deterministic ones, for which one right answer says something about the next.
    """
    backends: Any = torch.backends
    with torch.inference_mode(), ExitStack() as stack:
        for root, name, value in (
            (backends.mkldnn.conv, "fp32_precision", "ieee"),
            (backends.mkldnn.matmul, "fp32_precision", "ieee"),
            (backends.cuda.matmul, "fp32_precision", "ieee"),
            (backends.cudnn.conv, "fp32_precision", "tf32"),
            (backends.cudnn, "benchmark", False),
            (backends.cudnn, "deterministic", True),
        ):
            stack.callback(setattr, root, name, getattr(root, name))
            setattr(root, name, value)
        for device in ("cpu", "cuda"):
            stack.callback(torch.set_autocast_enabled, device, torch.is_autocast_enabled(device))
            torch.set_autocast_enabled(device, False)
        yield
