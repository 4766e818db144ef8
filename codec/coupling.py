"""The invertible coupling of VQ-NeRV (section 3.3, after IRN, Xiao et al. 2020): two maps to two maps and back.

    v1 = x + t2(f)        v2 = f exp(s1(v1)) + t1(v1)
    f = (v2 - t1(v1)) exp(-s1(v1))        x = v1 - t2(f)

v1 carries the code. v2 is not transmitted: the decoder puts zeros in its place. The paper names a net more, s2, and never
uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nvc.bitstream.program import Builder, Op

from .activations import EXP, LINEAR, Activation, Requantiser
from .layers import QuantConv, emit_combine

UNIT = LINEAR.out_step


class _Net(nn.Module):
    """Two 1x1 convolutions with a narrow layer in between: at 64 channels and more, 3x3 ones would be larger than the decoder."""

    def __init__(self, channels: int, hidden: int, activation: Activation, last: Activation) -> None:
        super().__init__()
        self.first = QuantConv((channels, hidden), 1, activation)
        self.second = QuantConv((hidden, channels), 1, last, activation.range)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out

    def emit(self, builder: Builder, x: int) -> int:
        return self.second.emit(builder, self.first.emit(builder, x))


class Coupling(nn.Module):
    """Maps of `channels`; nets with `hidden` channels. Activations in units of 2^-9, integers or not."""

    def __init__(self, channels: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.shift = _Net(channels, hidden, activation, LINEAR)  # -t1
        self.gain = _Net(channels, hidden, activation, EXP)  # exp(-s1), in units of 2^-8
        self.mix = _Net(channels, hidden, activation, LINEAR)  # t2
        self.requantiser = Requantiser(LINEAR)
        self.register_buffer("one", torch.tensor(1.0), persistent=False)
        self.register_buffer("unit", torch.tensor(EXP.out_step), persistent=False)

    def split(self, x: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """v1 and v2 of x and f, all (N, channels, h, w), in real numbers."""
        v1 = x + self.mix(f)
        return v1, f / (self.gain(v1) * EXP.out_step) - self.shift(v1)

    def join(self, v1: Tensor, v2: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `split`."""
        f = (v2 + self.shift(v1)) * (self.gain(v1) * EXP.out_step)
        return v1 - self.mix(f), f

    def forward(self, v1: Tensor) -> tuple[Tensor, Tensor]:
        """`join` of v1 and zeros as the decoder does it: integers to integers."""
        f = self.requantiser(self.shift(v1) * self.gain(v1), self.unit)
        return self.requantiser(v1 - self.mix(f), self.one), f

    def emit(self, builder: Builder, v1: int) -> tuple[int, int]:
        """Append `forward`; the numbers of x and f."""
        product = builder.add(Op.MULTIPLY, self.shift.emit(builder, v1), self.gain.emit(builder, v1))
        f = self.requantiser.emit_fixed(builder, product, EXP.out_step)
        difference = emit_combine(builder, v1, self.mix.emit(builder, f), 1, -1)
        return self.requantiser.emit_fixed(builder, difference, 1.0), f
