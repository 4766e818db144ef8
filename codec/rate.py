"""Differentiable bit counts: what the entropy coder would spend on integers that are still being learned.

A tensor is modelled as a Laplace variable with one scale, estimated from the tensor itself, integrated over the rounding
interval; that is what the table bank of SPEC 6 approximates. Additive uniform noise stands in for rounding (Balle et al.
2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST_SCALE = 0.05  # a tensor of almost only zeros: 1e-4 bit a value, as low as the bank goes
HEADER_BITS = 8  # of a tensor, or of a channel of embeddings: mode and scale (SPEC 7)
LN2 = math.log(2.0)


def laplace_bits(values: Tensor, scale: Tensor) -> Tensor:
    """Bits of each value under a Laplace density of scale `scale` integrated over [v - 1/2, v + 1/2]; same shape as `values`."""
    distance = values.abs()
    z = 0.5 / scale
    far = distance / scale - (z + torch.log1p(-torch.exp(-2 * z)) - LN2)  # exp(-d/b) sinh(1 / 2b)
    inside = torch.exp(-z) * torch.cosh(distance.clamp(max=0.5) / scale)
    near = -torch.log1p(-inside.clamp(max=1 - 1e-7))
    return torch.where(distance < 0.5, near, far) / LN2


def tensors_bits(tensors: Sequence[Tensor], generator: torch.Generator | None = None) -> Tensor:
    """Bits of tensors of codes in units of their steps, each with its own scale; a scalar.

    With a `generator` uniform noise in [-1/2, 1/2] is added, for codes that are not rounded.
    """
    values = torch.cat([tensor.reshape(-1) for tensor in tensors])
    if generator is not None:
        values = values + _noise(values, generator)
    sizes = [tensor.numel() for tensor in tensors]
    means = torch.stack([part.abs().mean() for part in torch.split(values, sizes)])
    counts = torch.tensor(sizes, device=values.device)
    scale = _scale(means, rounded=generator is None).repeat_interleave(counts, output_size=values.numel())
    return laplace_bits(values, scale).sum() + HEADER_BITS * len(tensors)


def embedding_bits(codes: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Bits of embeddings (T, C, h, w): a scale per channel, and per channel the cheaper of codes and temporal residuals;
    a scalar.
    """
    values = codes if generator is None else codes + _noise(codes, generator)
    rounded = generator is None
    total = _per_channel(values, rounded)
    if values.shape[0] > 1:
        residual = torch.cat([values[:1], values[1:] - values[:-1]])
        total = torch.minimum(total, _per_channel(residual, rounded))
    return total.sum()


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(like.shape, generator=generator) - 0.5).to(like.device)


def _scale(mean: Tensor, rounded: bool) -> Tensor:
    """The Laplace scale for a mean magnitude; rounding to integers shrinks the mean of small values, by a law that is known."""
    if rounded:
        mean = 0.5 / torch.asinh(0.5 / mean.clamp(min=1e-6))
    return mean.clamp(min=SMALLEST_SCALE)


def _per_channel(values: Tensor, rounded: bool) -> Tensor:
    scale = _scale(values.abs().mean(dim=(0, 2, 3), keepdim=True), rounded)
    return laplace_bits(values, scale).sum(dim=(0, 2, 3)) + HEADER_BITS
