"""Trainable layers; each knows the operation it becomes.

Activations are integers in float32, one unit = 2^-9. A layer's `forward` is the decoder's arithmetic with straight-through
gradients (quant.py); its `emit` appends the same arithmetic to a program, so the two cannot differ. Before quantisation
starts (`Quantisation.weights` off) only the weights are real numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nvc.bitstream import arithmetic
from nvc.bitstream.program import Builder, Op

from . import quant, steps
from .activations import ACTIVATIONS, LINEAR, Activation, Range, Requantiser, pixels
from .geometry import Picture
from .resample import emit_enlarge, emit_shuffle, enlarge, gain, shuffle

__all__ = [
    "ACTIVATIONS",
    "LINEAR",
    "Activation",
    "QuantConv",
    "Range",
    "Skip",
    "emit_combine",
    "emit_picture",
    "emit_shuffle",
    "pixels",
    "shuffle",
]

BOUND_MARGIN = 0.98  # of 2^24: a step may still move a little between two projections
LOG_STEP_RAISE = 0.01  # and where that is not enough, a step grows by so much in a projection
PHASE_MARGIN = 0.9  # of 2^24 for a phase, of which nothing is known that would make it large
# Of the standard deviation that would keep activations as large as they come in. Small weights keep units out of the flat parts
# of the activation (bench/results).
INITIAL_GAIN = 0.2
UNIT_GAIN = 1.0  # of a short side branch, which would not be heard otherwise
INITIAL_LEVELS = 16.0  # an initial step puts the largest weight at this code: five bits and rising


class QuantConv(nn.Module):
    """Convolution, requantisation and activation: (N, I, H, W) integers to (N, O, H, W) integers.

    Learned steps in the log domain: one for the weight tensor, or with `channel_steps` one for each output channel.
    """

    keep: Tensor | None
    """Ones and zeros, the weights that `prune` left; None before."""
    in_bfloat16 = False
    """Whether the convolution, not what follows, computes in bfloat16: faster, but not what the decoder computes."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        activation: Activation,
        source: Range | None = None,
        channel_steps: bool = False,
        gain: float = INITIAL_GAIN,
    ) -> None:
        super().__init__()
        inputs, outputs = channels
        self.kernel, self.activation, self.source = kernel, activation, source or Range()
        self.units = steps.Units(self.source.step, activation.step, activation.bias_step)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=gain / (inputs * kernel**2) ** 0.5)
        largest = self.weight.detach().abs().amax((1, 2, 3))
        self.log_step = nn.Parameter(((largest if channel_steps else largest.amax()) / INITIAL_LEVELS).log())
        self.requantiser = Requantiser(activation)
        self.quantise_weights = False
        self.register_buffer("keep", None)

    def step(self) -> Tensor:
        """The weight step, positive: () or (O, 1, 1, 1)."""
        step = self.log_step.exp()
        return steps.spread(step) if step.dim() else step

    def quantised(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight codes, integers once `quantise_weights` is on, bias codes in accumulator units, multiplier () or (O, 1, 1)."""
        return steps.quantise(self.weight, self.bias, self.log_step, self.keep, self.units, self.quantise_weights)

    def codes(self) -> Tensor:
        """The weights in units of the step; integers once `quantise_weights` is on."""
        return self.quantised()[0]

    def numbers(self) -> tuple[Tensor, Tensor]:
        """What is transmitted, before rounding: weights (O, I, k, k) in steps and biases (O,) in units of their codes."""
        scaled = self.weight / self.step()
        unit, grid = steps.bias_grid(self.log_step.detach().exp(), self.units)
        return scaled if self.keep is None else scaled * self.keep, self.bias / (unit * grid)

    def prune(self, keep: Tensor) -> None:
        """Set the weights to zero, for good, where `keep` (O, I, k, k) is zero or False."""
        self.keep = keep.to(self.weight)

    def forward(self, x: Tensor, edges: tuple[int, int] | None = None) -> Tensor:
        """With `edges`, x is a band of rows: so many rows of zeros lie above and below it, and the result is smaller than x."""
        weight, bias, m = self.quantised()
        rows = columns = self.kernel // 2
        if edges is not None:
            rows, x = 0, nn.functional.pad(x, (0, 0, *edges)) if any(edges) else x
        if self.in_bfloat16:
            x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
        acc = nn.functional.conv2d(x, weight, bias, padding=(rows, columns))
        out: Tensor = self.requantiser(acc.float(), m)
        return out

    @torch.no_grad()
    def project(self) -> None:
        """Raise steps until codes fit in 8 bits and, but for rounding, every sum stays within 2^24 (SPEC 8.1).

        Where rounding leads beyond that, they are raised a little more, once. Nothing is read on the host.

        For a sine the phase is such a sum too, whatever the steps; there weights and biases shrink.
        """
        if self.keep is not None:
            self.weight.mul_(self.keep)
        largest = self.weight.abs().amax((1, 2, 3)) / steps.WEIGHT_MAX
        reach = self._reach(self.weight, self.bias / self.source.step)
        needed = self._shared(torch.maximum(largest, reach / (BOUND_MARGIN * arithmetic.EXACT)))
        self.log_step.clamp_(min=needed.log())
        if self.activation.function == arithmetic.SINE:
            self._project_phase(reach)
        if self.quantise_weights:
            self.log_step.add_(self._beyond() * LOG_STEP_RAISE)

    @torch.no_grad()
    def settle(self) -> None:
        """Project until every sum is proven to stay within 2^24."""
        self.project()
        while self.quantise_weights and bool(self._beyond().any()):
            self.project()

    def _beyond(self) -> Tensor:
        """Whether the sums of the integers exceed the bound, as it binds the steps.

        The margin is not enough where most weights of a wide layer round up.
        """
        weight, bias, _ = self.quantised()
        return self._shared(self._reach(weight, bias)) >= arithmetic.EXACT

    def _project_phase(self, reach: Tensor) -> None:
        step = self.log_step.exp()
        largest = (reach / step).amax() * step.amax() * (self.source.step / self.activation.step)
        scale = (PHASE_MARGIN * arithmetic.EXACT / largest).clamp(max=1.0)
        self.weight.mul_(scale)
        self.bias.mul_(scale)
        self.log_step.add_(scale.log())

    def _shared(self, channels: Tensor) -> Tensor:
        """Values per channel (O,) as they bind the steps: each its own, or the largest one all."""
        return channels if self.log_step.dim() else channels.amax()

    def _reach(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The largest magnitudes (O,) of the sums of `weight` (O, I, k, k) over inputs, and `bias` (O,)."""
        low, high = min(self.source.low, 0), max(self.source.high, 0)
        positive, negative = weight.clamp(min=0).sum((1, 2, 3)), weight.clamp(max=0).sum((1, 2, 3)).neg()
        return torch.maximum(positive * high - negative * low, negative * high - positive * low) + bias.abs()

    @torch.no_grad()
    def emit(self, builder: Builder, x: int) -> int:
        """Append the operations of this layer, reading value `x`; the number of its output value."""
        outputs, _, k, _ = self.weight.shape
        codes, bias_codes, m = self.quantised()
        weight = builder.parameter(_integers(codes), ("weight", self))
        bias = builder.parameter(_integers(bias_codes), ("bias", self))
        acc = builder.add(Op.CONVOLUTION, x, weight, bias, outputs, k, k, 1)
        return self.requantiser.emit(builder, acc, m, self)


class Skip(nn.Module):
    """The way around a block (NeRV++, Ghorbel et al. 2024): its input (N, I, H, W), by a 1x1 convolution to the block's O
    channels and enlarged bilinearly, is added before the activation.

    Both summands are linear 12-bit activations. Where strides differ, `resample.enlarge` says how the smaller one is reached.
    """

    def __init__(
        self, channels: tuple[int, int], strides: tuple[int, int], activation: Activation, source: Range, channel_steps: bool
    ) -> None:
        super().__init__()
        self.strides = strides
        self.projection = QuantConv(channels, 1, LINEAR, source, channel_steps)
        self.requantiser = Requantiser(activation)
        m = quant.multiplier(torch.tensor(LINEAR.out_step / activation.step / gain(strides)))
        self.register_buffer("multiplier", m, persistent=False)

    def forward(self, x: Tensor, branch: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        """`branch` (N, O, H sh, W sw) is the block's; with `rows`, it is those of the enlarged x alone."""
        short = enlarge(self.projection(x), self.strides)
        if rows is not None:
            short = short[:, :, rows[0] : rows[1]]
        acc = torch.add(short, branch, alpha=gain(self.strides))
        out: Tensor = self.requantiser(acc, self.multiplier)
        return out

    def emit(self, builder: Builder, x: int, branch: int) -> int:
        """Append the same for values `x` and `branch`; the number of its output value."""
        short = emit_enlarge(builder, self.projection.emit(builder, x), self.strides)
        assert isinstance(self.multiplier, Tensor)
        acc = emit_combine(builder, branch, short, gain(self.strides), 1)
        return self.requantiser.emit(builder, acc, self.multiplier, self)


def emit_combine(builder: Builder, a: int, b: int, gain_a: int, gain_b: int) -> int:
    """Append gain_a a + gain_b b for fixed integer gains; the number of the accumulators."""
    gains = np.array([gain_a, gain_b], dtype=np.int64)
    return builder.add(Op.COMBINE, a, b, builder.parameter(gains, ("gains", gain_a, gain_b)))


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
