"""Quantisation in the loop: straight-through rounding, learned steps, and requantisation as the decoder does it.

Integers travel as float32, as in the decoder. Every forward here is bit-identical to the operation it stands for (SPEC 8.4, 8.5);
only the backward is made up: rounding passes the gradient through (straight-through estimator; Bengio et al. 2013, Esser et
al. 2020 for the learned step).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

ACTIVATION_BITS = 9  # fractional bits: one unit of an activation is 2^-9, so twelve bits span -4 .. 4
ACTIVATION_STEP = 2.0**-ACTIVATION_BITS
MANTISSA_DROP = 13  # a 16-bit multiplier code keeps 11 of the 24 significant bits of float32


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def round_through(x: Tensor) -> Tensor:
    """Round to the nearest integer, ties to even; the gradient passes unchanged."""
    out: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return out


def multiplier(x: Tensor) -> Tensor:
    """The multiplier of SPEC 8.5 nearest to `x` > 0: float32 rounded to 11 significant bits; no gradient."""
    bits = x.detach().float().contiguous().view(torch.int32)
    odd = (bits >> MANTISSA_DROP) & 1
    rounded = (bits + (1 << (MANTISSA_DROP - 1)) - 1 + odd) >> MANTISSA_DROP << MANTISSA_DROP
    return rounded.view(torch.float32)


def power_below(x: Tensor) -> Tensor:
    """The largest power of two that is not above `x` >= 1, and 1 below that: how far bias codes are shifted."""
    bits = x.detach().float().clamp(min=1.0).contiguous().view(torch.int32)
    return (bits & 0x7F800000).view(torch.float32)


def _slope_of_multiplier(ctx: Any, inner: Tensor, y: Tensor, m: Tensor) -> Tensor | None:
    """The gradient of the multiplier: acc * m is y up to rounding, so d/dm = acc = y / m."""
    if not ctx.needs_input_grad[1]:
        return None
    if m.dim():
        return (inner * y).sum((0, 2, 3)).view_as(m) / m
    return torch.dot(_flat(inner), _flat(y)) / m


def _flat(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(-1)  # no copy when the memory format is channels_last


class _Requantise(torch.autograd.Function):
    """clamp(RNE(acc * m)) with straight-through gradients; a saturated value still moves back inside."""

    @staticmethod
    def forward(ctx: Any, acc: Tensor, m: Tensor, low: int, high: int) -> Tensor:
        y = acc.mul(m).round_().clamp_(low, high)
        ctx.save_for_backward(y, m)
        ctx.range = (low, high)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (gradient,) = gradients
        y, m = ctx.saved_tensors
        low, high = ctx.range
        outward = ((y >= high) & (gradient < 0)) | ((y <= low) & (gradient > 0))
        inner = gradient.masked_fill(outward, 0.0)
        step = _slope_of_multiplier(ctx, inner, y, m)
        return inner.mul_(m), step, None, None


def requantise(acc: Tensor, m: Tensor, low: int, high: int) -> Tensor:
    """SPEC 8.5 without a function: accumulators (N, C, H, W) and multipliers () or (C, 1, 1) to integers low..high."""
    out: Tensor = _Requantise.apply(acc, m, low, high)  # type: ignore[no-untyped-call]
    return out


class _HardSwish(torch.autograd.Function):
    """Requantisation and the quadratic hard-swish in one, so that the backward is four passes over memory instead of fifteen.

    The slope is that of the unrounded function; PyTorch's own hard-swish is x relu6(x + 3) / 6, the same curve with c = 3.
    """

    @staticmethod
    def forward(ctx: Any, acc: Tensor, m: Tensor, low: int, high: int, c: float) -> Tensor:
        y = acc.mul(m).round_().clamp_(low, high)
        ctx.save_for_backward(y, m)
        ctx.c = c
        return y.clamp(-c, c).add_(c).mul_(y).mul_(0.5 / c).round_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        y, m = ctx.saved_tensors
        inner = torch.ops.aten.hardswish_backward(gradients[0], y * (3.0 / ctx.c))
        step = _slope_of_multiplier(ctx, inner, y, m)
        return inner.mul_(m), step, None, None, None


def requantise_hard_swish(acc: Tensor, m: Tensor, low: int, high: int, log2_c: int) -> Tensor:
    """`requantise`, then RNE(y * clamp(y + c, 0, 2c) / 2c) with c = 2^log2_c: SPEC 8.5's quadratic hard-swish."""
    out: Tensor = _HardSwish.apply(acc, m, low, high, float(1 << log2_c))  # type: ignore[no-untyped-call]
    return out


class _Sine(torch.autograd.Function):
    """Requantisation to phases and the sine's table; the slope is the cosine, a quarter of the table on."""

    @staticmethod
    def forward(ctx: Any, acc: Tensor, m: Tensor, entries: Tensor) -> Tensor:
        y = acc.mul(m).round_()
        ctx.save_for_backward(y, m, entries)
        return entries[y.int().bitwise_and_(entries.numel() - 1)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        y, m, entries = ctx.saved_tensors
        turn = entries.numel()
        slopes = entries.roll(-(turn // 4)) * (2 * math.pi / turn)
        inner = slopes[y.int().bitwise_and_(turn - 1)].mul_(gradients[0])
        step = _slope_of_multiplier(ctx, inner, y, m)
        return inner.mul_(m), step, None


def requantise_sine(acc: Tensor, m: Tensor, entries: Tensor) -> Tensor:
    """SPEC 8.5's sine: accumulators (N, C, H, W) and multipliers () or (C, 1, 1) to phases, looked up in `entries` (4096,)."""
    out: Tensor = _Sine.apply(acc, m, entries)  # type: ignore[no-untyped-call]
    return out


class _Table(torch.autograd.Function):
    """A table look-up whose slope is the central difference of the table."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, entries: Tensor) -> Tensor:
        index = y.long() + entries.numel() // 2
        ctx.save_for_backward(index, entries)
        return entries[index]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        index, entries = ctx.saved_tensors
        padded = torch.cat([entries[:1], entries, entries[-1:]])
        slope = (padded[2:] - padded[:-2]) * 0.5
        return gradients[0] * slope[index], None


def table(y: Tensor, entries: Tensor) -> Tensor:
    """Look integers -2048..2047 up in `entries` (4096,) float32."""
    out: Tensor = _Table.apply(y, entries)  # type: ignore[no-untyped-call]
    return out
