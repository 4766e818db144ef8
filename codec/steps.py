"""Learned steps: real weights and biases to the integers of a layer and the multiplier that belongs to them, in one function.

A small network spends most of a step on calls, not on arithmetic, so this is one call forward and one backward per layer. The
gradient is that of the same numbers without rounding, the straight-through estimator: with scale the learned step
(Esser et al. 2020), codes are w / s, bias codes b / (s u) for inputs of unit u, and the multiplier is s u / v for outputs of
unit v. So a layer's sums do not depend on its step but for rounding, and neither does its loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nvc.bitstream import arithmetic

from . import quant

WEIGHT_MAX = 127
BIAS_MAX = arithmetic.EXACT / 4


@dataclass(frozen=True)
class Units:
    """What one unit of the inputs and of the outputs before the activation is worth, and the wanted worth of a bias code."""

    source: float
    out: float
    bias: float


def spread(step: Tensor) -> Tensor:
    """Steps () or (O,) so that they go with weights (O, I, k, k)."""
    return step.view(-1, 1, 1, 1)


def bias_grid(step: Tensor, units: Units) -> tuple[Tensor, Tensor]:
    """The worth of an accumulator unit, () or (O,), and the power of two of them (a scalar) that no channel finds too coarse.

    Bias codes are multiples of it: SPEC 7.4 codes one shift for a tensor.
    """
    unit = step * units.source
    return unit, quant.power_below(units.bias / (unit.amax() if unit.dim() else unit))


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, log_step: Tensor, keep: Tensor | None, units: Units, rounded: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        step = log_step.exp()
        scaled = weight / spread(step)
        if keep is not None:
            scaled.mul_(keep)
        codes = scaled.round().clamp_(-WEIGHT_MAX, WEIGHT_MAX) if rounded else scaled
        unit, grid = bias_grid(step, units)
        sums = bias / unit
        bias_codes = (sums / grid).round_().mul_(grid).clamp_(-BIAS_MAX, BIAS_MAX)
        m = quant.multiplier(step * (units.source / units.out))
        ctx.save_for_backward(scaled, sums, step, unit, m)
        ctx.keep = keep
        return codes, bias_codes, m.view(-1, 1, 1) if m.dim() else m

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # clamps let gradients pass: they bind between two projections at most
        to_codes, to_bias, to_m = gradients
        scaled, sums, step, unit, m = ctx.saved_tensors
        inner = to_codes if ctx.keep is None else to_codes * ctx.keep
        weight, bias = inner / spread(step), to_bias / unit
        if step.dim():
            log_step = to_m.view(-1) * m - to_bias * sums - (inner * scaled).sum((1, 2, 3))
        else:
            log_step = to_m * m - torch.dot(to_bias, sums) - torch.dot(inner.reshape(-1), scaled.reshape(-1))
        return weight, bias, log_step, None, None, None


def quantise(
    weight: Tensor, bias: Tensor, log_step: Tensor, keep: Tensor | None, units: Units, rounded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Weight codes (O, I, k, k), bias codes (O,) in accumulator units, and the multiplier () or (O, 1, 1).

    `log_step` is () or (O,); `keep` (O, I, k, k) of ones and zeros masks weights; without `rounded` weights stay real numbers.
    """
    out: tuple[Tensor, Tensor, Tensor] = _Quantise.apply(weight, bias, log_step, keep, units, rounded)  # type: ignore[no-untyped-call]
    return out
