"""Activations: what a requantisation does after scaling (SPEC 8.5), as a description and as a trainable module."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nvc.bitstream import arithmetic, tables
from nvc.bitstream.program import Builder, Op

from . import quant

LOW, HIGH = arithmetic.ACTIVATION_LOW, arithmetic.ACTIVATION_HIGH
LOG2_C = quant.ACTIVATION_BITS  # the hard-swish bends at +-1, near GELU
BIAS_STEP = 2.0**-7  # of a hidden layer: four activation units, finer buys nothing
PHASES = tables.SIZE  # of a turn
SINE_AMPLITUDE = 2047  # SPEC 8.6


@dataclass(frozen=True)
class Range:
    """The integers that a layer reads: their range, and how much one unit is worth."""

    low: int = LOW
    high: int = HIGH
    step: float = quant.ACTIVATION_STEP


@dataclass(frozen=True)
class Activation:
    """A function of arithmetic.FUNCTIONS and its argument, with the range and the worth of one unit before and after it."""

    function: int
    argument: int
    low: int
    high: int
    step: float = quant.ACTIVATION_STEP
    """What one unit is worth before the function: 2^-9 inside a network, 1/255 at an 8-bit head, 2 pi / 4096 of a phase."""
    out_step: float = quant.ACTIVATION_STEP
    """What one unit is worth after it."""
    bias_step: float = BIAS_STEP
    """A code of a bias of the layer before it is worth this much or half."""

    @property
    def range(self) -> Range:
        """What the next layer reads."""
        grid = np.arange(self.low, self.high + 1, dtype=np.int64)
        image = arithmetic.apply_function(self.function, self.argument, grid)
        return Range(int(image.min()), int(image.max()), self.out_step)


ACTIVATIONS = {
    "hswish": Activation(arithmetic.HARD_SWISH, LOG2_C, LOW, HIGH),
    "relu": Activation(arithmetic.IDENTITY, 0, 0, HIGH),
    "gelu": Activation(arithmetic.TABLE, tables.GELU, LOW, HIGH),
    "sine": Activation(arithmetic.SINE, 0, 0, PHASES - 1, 2 * math.pi / PHASES, 1 / SINE_AMPLITUDE),
}
LINEAR = Activation(arithmetic.IDENTITY, 0, LOW, HIGH)
# of gates and of an affine coupling (SPEC 8.6): each table has scales of its own
TANH = Activation(arithmetic.TABLE, tables.TANH, LOW, HIGH, 2.0**-9, 1 / 2047)
SIGMOID = Activation(arithmetic.TABLE, tables.SIGMOID, LOW, HIGH, 2.0**-8, 1 / 2047)
EXP = Activation(arithmetic.TABLE, tables.EXP, LOW, HIGH, 2.0**-10, 2.0**-8)


def pixels(depth: int) -> Activation:
    """The head's: linear, clamped to the samples of a picture of `depth` bits."""
    high = (1 << depth) - 1
    return Activation(arithmetic.IDENTITY, 0, 0, high, 1 / high, 1 / high, 1 / high / 4)


class Requantiser(nn.Module):
    """Accumulators (N, C, H, W) and their multipliers, () or (C, 1, 1), to activations (N, C, H, W)."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        number = {arithmetic.TABLE: activation.argument, arithmetic.SINE: tables.SINE}.get(activation.function)
        if number is not None:
            entries = torch.tensor(tables.table(number), dtype=torch.float32)
            self.register_buffer("entries", entries, persistent=False)

    def forward(self, acc: Tensor, m: Tensor) -> Tensor:
        a = self.activation
        if a.function == arithmetic.HARD_SWISH:
            return quant.requantise_hard_swish(acc, m, a.low, a.high, a.argument)
        if a.function == arithmetic.SINE:
            return quant.requantise_sine(acc, m, self.entries)  # type: ignore[arg-type]
        y = quant.requantise(acc, m, a.low, a.high)
        if a.function == arithmetic.TABLE:
            return quant.table(y, self.entries)  # type: ignore[arg-type]
        return y

    def emit(self, builder: Builder, acc: int, m: Tensor, owner: nn.Module) -> int:
        """Append the same for value `acc`; the number of the activation. `m` is the multiplier of module `owner`."""
        codes = [arithmetic.multiplier_code(value) for value in m.detach().flatten().tolist()]
        return self._emit(builder, acc, codes, ("multiplier", owner))

    def emit_fixed(self, builder: Builder, acc: int, m: float) -> int:
        """Append the same with a multiplier that is never learned."""
        code = arithmetic.multiplier_code(m)
        return self._emit(builder, acc, [code], ("multiplier", code))

    def _emit(self, builder: Builder, acc: int, codes: list[int], key: Hashable) -> int:
        scale = builder.parameter(np.array(codes, dtype=np.int64), key)
        a = self.activation
        return builder.add(Op.REQUANTISE, acc, scale, len(codes), a.low, a.high, a.function, a.argument)
