"""Trainable layers; each knows the operation it becomes.

Activations are integers in float32, one unit = 2^-9. A layer's `forward` is the decoder's arithmetic with straight-through
gradients (quant.py); its `emit` appends the same arithmetic to a program, so the two cannot differ. Before quantisation
starts (`Quantisation.weights` off) only the weights are real numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nvc.bitstream import arithmetic, tables
from nvc.bitstream.program import Builder, Op

from . import quant
from .geometry import Picture

WEIGHT_MAX = 127
LOW, HIGH = arithmetic.ACTIVATION_LOW, arithmetic.ACTIVATION_HIGH
LOG2_C = quant.ACTIVATION_BITS  # the hard-swish bends at +-1, near GELU
BIAS_STEP = 2.0**-7  # of a hidden layer: four activation units, finer buys nothing
BOUND_MARGIN = 0.98  # of 2^24: a step may still move a little between two projections
LOG_STEP_RAISE = 0.01  # and where that is not enough, a step grows by so much at a time
INITIAL_LEVELS = 16.0  # an initial step puts the largest weight at this code: five bits and rising


@dataclass(frozen=True)
class Activation:
    """What follows a requantisation: a function of arithmetic.FUNCTIONS and its argument, with the range before it."""

    function: int
    argument: int
    low: int
    high: int

    @property
    def out_low(self) -> int:
        """The smallest integer that comes out."""
        return self._image()[0]

    @property
    def out_high(self) -> int:
        """The largest integer that comes out."""
        return self._image()[1]

    def _image(self) -> tuple[int, int]:
        grid = np.arange(self.low, self.high + 1, dtype=np.int64)
        image = arithmetic.apply_function(self.function, self.argument, grid)
        return int(image.min()), int(image.max())


ACTIVATIONS = {
    "hswish": Activation(arithmetic.HARD_SWISH, LOG2_C, LOW, HIGH),
    "relu": Activation(arithmetic.IDENTITY, 0, 0, HIGH),
    "gelu": Activation(arithmetic.TABLE, tables.GELU, LOW, HIGH),
}


def pixels(depth: int) -> Activation:
    """The head's: linear, clamped to the samples of a picture of `depth` bits."""
    return Activation(arithmetic.IDENTITY, 0, 0, (1 << depth) - 1)


@dataclass(frozen=True)
class Range:
    """The integers that a layer reads: their range, and how much one unit is worth."""

    low: int = LOW
    high: int = HIGH
    step: float = quant.ACTIVATION_STEP


class QuantConv(nn.Module):
    """Convolution, requantisation and activation: (N, I, H, W) integers to (N, O, H, W) integers.

    One learned step per weight tensor, in the log domain. `out_step` is what one unit of the output is worth before the
    activation: 2^-9 inside the network, 1/255 at an 8-bit head.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        activation: Activation,
        out_step: float = quant.ACTIVATION_STEP,
        source: Range | None = None,
    ) -> None:
        super().__init__()
        inputs, outputs = channels
        self.kernel, self.activation, self.out_step, self.source = kernel, activation, out_step, source or Range()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        largest = float(self.weight.detach().abs().max())
        self.log_step = nn.Parameter(torch.tensor(float(np.log(largest / INITIAL_LEVELS))))
        self.bias_step = BIAS_STEP if activation.function != arithmetic.IDENTITY else out_step / 4
        self.quantise_weights = False
        if activation.function == arithmetic.TABLE:
            self.register_buffer(
                "entries", torch.tensor(tables.table(activation.argument), dtype=torch.float32), persistent=False
            )

    def step(self) -> Tensor:
        """The weight step, a positive scalar."""
        return self.log_step.exp()

    def codes(self) -> Tensor:
        """The weights in units of the step; integers once `quantise_weights` is on."""
        scaled = self.weight / self.step()
        return quant.round_through(scaled).clamp(-WEIGHT_MAX, WEIGHT_MAX) if self.quantise_weights else scaled

    def _bias_grid(self) -> tuple[Tensor, Tensor]:
        """The worth of one accumulator unit, and the power of two of them that is nearest below `bias_step`."""
        unit = self.step().detach() * self.source.step
        return unit, quant.power_below(self.bias_step / unit)

    def bias_unit(self) -> Tensor:
        """What one code of a bias is worth."""
        unit, grid = self._bias_grid()
        return unit * grid

    def bias_codes(self) -> Tensor:
        """The biases in accumulator units: multiples of a power of two."""
        unit, grid = self._bias_grid()
        limit = arithmetic.EXACT / 4
        return (quant.round_through(self.bias / (unit * grid)) * grid).clamp(-limit, limit)

    def multiplier(self) -> Tensor:
        """What turns an accumulator into output units."""
        return quant.multiplier(self.step() * (self.source.step / self.out_step))

    def forward(self, x: Tensor) -> Tensor:
        acc = nn.functional.conv2d(x, self.codes(), self.bias_codes(), padding=self.kernel // 2)
        acc, m, low, high = acc.float(), self.multiplier(), self.activation.low, self.activation.high
        if self.activation.function == arithmetic.HARD_SWISH:
            return quant.requantise_hard_swish(acc, m, low, high, self.activation.argument)
        y = quant.requantise(acc, m, low, high)
        if self.activation.function == arithmetic.TABLE:
            return quant.table(y, self.entries)  # type: ignore[arg-type]
        return y

    @torch.no_grad()
    def project(self) -> None:
        """Raise the step until codes fit in 8 bits and every sum is proven to stay within 2^24 (SPEC 8.1)."""
        largest = self.weight.abs().amax() / WEIGHT_MAX
        reach = self._reach(self.weight, self.bias / self.source.step)
        needed = torch.maximum(largest, reach / (BOUND_MARGIN * arithmetic.EXACT))
        self.log_step.clamp_(min=needed.log())
        # the margin is not enough where most weights of a wide layer round up
        while self.quantise_weights and self._reach(self.codes(), self.bias_codes()) >= arithmetic.EXACT:
            self.log_step.add_(LOG_STEP_RAISE)

    def _reach(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The largest magnitude of the sums of `weight` (O, I, k, k) over inputs, and `bias` (O)."""
        low, high = min(self.source.low, 0), max(self.source.high, 0)
        positive, negative = weight.clamp(min=0).sum((1, 2, 3)), weight.clamp(max=0).sum((1, 2, 3)).neg()
        return (torch.maximum(positive * high - negative * low, negative * high - positive * low) + bias.abs()).amax()

    @torch.no_grad()
    def emit(self, builder: Builder, x: int) -> int:
        """Append the operations of this layer, reading value `x`; the number of its output value."""
        outputs, _, k, _ = self.weight.shape
        weight = builder.parameter(_integers(self.codes()))
        bias = builder.parameter(_integers(self.bias_codes()))
        acc = builder.add(Op.CONVOLUTION, x, weight, bias, outputs, k, k, 1)
        code = arithmetic.multiplier_code(float(self.multiplier()))
        scale = builder.parameter(np.array([code], dtype=np.int64))
        a = self.activation
        return builder.add(Op.REQUANTISE, acc, scale, 1, a.low, a.high, a.function, a.argument)


def shuffle(x: Tensor, strides: tuple[int, int]) -> Tensor:
    """Depth to space with a stride per axis: (N, sh sw C, H, W) to (N, C, H sh, W sw).

    Channel (i sw + j) C + c goes to row i and column j of the blocks: with channels last in memory, whole runs are copied.
    """
    sh, sw = strides
    n, c, h, w = x.shape
    blocks = x.permute(0, 2, 3, 1).reshape(n, h, w, sh, sw, c // (sh * sw)).transpose(2, 3)
    return blocks.reshape(n, h * sh, w * sw, c // (sh * sw)).permute(0, 3, 1, 2)


class Embedding(nn.Module):
    """The quantiser of the per-frame embeddings: real (N, C, h, w) to integers of 12 bits.

    One unit is always worth 1/16; a learned gain per channel, in the log domain, takes the place of learned steps, and needs no
    byte in the stream because the first layer reads integers.
    """

    source = Range(step=1 / 16)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.full((width, 1, 1), float(np.log(16.0))))
        self.quantise = False

    def forward(self, real: Tensor) -> Tensor:
        scaled = (real * self.log_gain.exp()).clamp(LOW, HIGH)
        return quant.round_through(scaled) if self.quantise else scaled


def emit_picture(builder: Builder, canvas: int, picture: Picture) -> None:
    """Append what unfolds value `canvas` (C, H, W) into three visible planes, and the output."""
    planes, side = [], picture.side
    for number, (height, width) in enumerate(picture.shapes):
        first = 0 if number == 0 else side * side + number - 1
        count = side * side if number == 0 else 1
        plane = builder.add(Op.SLICE, canvas, first, first + count)
        if count > 1:
            plane = builder.add(Op.SHUFFLE, plane, side, side)
        planes.append(builder.add(Op.CROP, plane, 0, 0, height, width))
    builder.add(Op.OUTPUT, *planes)


def _integers(values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    rounded = values.detach().cpu().double().numpy()
    if not np.array_equal(rounded, np.round(rounded)):
        raise ValueError("a layer can only be emitted after its quantisation was switched on")
    return rounded.astype(np.int64)
