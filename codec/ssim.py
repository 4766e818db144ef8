"""MS-SSIM of planes (Wang, Simoncelli, Bovik, "Multiscale structural similarity", Asilomar 2003), for the loss and the metric.

The one definition of this repository: an 11 x 11 Gaussian of sigma 1.5 that stays within the picture, K1 = 0.01, K2 = 0.03,
peak 255, and means of 2 x 2 samples between the scales. An odd last row or column is averaged by itself, as in the authors'
program, which mirrors it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA = 11, 1.5
PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents, from the finest scale to the coarsest

_BELLS = [math.exp(-((tap - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for tap in range(WINDOW)]
_TAPS = [bell / sum(_BELLS) for bell in _BELLS]


def scales(height: int, width: int) -> int:
    """How many scales planes of this size have, 0 to 5: the window must fit into each."""
    side, count = min(height, width), 0
    while side >= WINDOW and count < len(SCALES):
        side, count = -(-side // 2), count + 1
    return count


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM of each pair of planes, shape (N,), at most 1; `a` and `b` are (N, h, w) of samples 0..255, float32 or float64.

    Small planes have fewer scales, whose exponents are scaled to sum 1; ValueError where a side is under 11. A scale
    whose mean contrast is negative makes the result 0, with a gradient of 0: a power of it is no real number.
    """
    count = scales(*a.shape[-2:])
    if not count:
        raise ValueError(f"planes of {tuple(a.shape[-2:])} samples have no SSIM")
    whole = sum(SCALES[:count]) if count < len(SCALES) else 1.0  # all five, as published, sum to 1.0001
    product = a.new_ones(a.shape[0])
    for number, exponent in enumerate(SCALES[:count]):
        last = number == count - 1
        # relu lets no slope pass at 0, where that of the power has no bound
        product = product * _similarity(a, b, luminance=last).mean((-2, -1)).relu() ** (exponent / whole)
        if not last:
            a, b = F.avg_pool2d(a, 2, ceil_mode=True), F.avg_pool2d(b, 2, ceil_mode=True)
    return product


def _similarity(a: Tensor, b: Tensor, *, luminance: bool) -> Tensor:
    """The map of contrast times structure and, if wanted, times luminance.

    From sums and differences of the planes, the error of a similarity near 1 is that of a small number:
    2 cov / (var a + var b) = 1 - var(a - b) / (var a + var b), and the same of the means.
    """
    total, change = a + b, a - b
    blurred: Tensor = _Blur.apply(torch.stack([total, change, total * total, change * change]))  # type: ignore[no-untyped-call]
    mean, shift, square, error = blurred.unbind(0)
    mean2, shift2 = mean * mean, shift * shift
    different = error - shift2
    similar = 1 - different / ((square - mean2 + different) / 2 + C2)
    return similar * (1 - shift2 / ((mean2 + shift2) / 2 + C1)) if luminance else similar


class _Blur(torch.autograd.Function):
    """The Gaussian window on the last two axes, which become 10 shorter.

    Shifted sums instead of a convolution: of single channels, torch on a CPU takes four to ten times as long for one, and on a
    GPU it may round the factors to 11 bits (TF32), which E[x^2] - E[x]^2 does not stand.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _window(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _window(F.pad(gradients[0], (WINDOW - 1,) * 4))  # a symmetric window is its own transpose


def _window(x: Tensor) -> Tensor:
    """Gaussian means on the last two axes."""
    for axis in (-2, -1):
        length = x.shape[axis] - WINDOW + 1
        out = x.narrow(axis, 0, length) * _TAPS[0]
        for shift in range(1, WINDOW):
            out.add_(x.narrow(axis, shift, length), alpha=_TAPS[shift])
        x = out
    return x
