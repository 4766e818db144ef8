"""The block of the VQ-NeRV paper (Xu et al. 2024, section 3.3): wavelets, an invertible coupling, and a gate.

    r(t) = f_e - f_d(t),  r(t - 1) = f_e - f_d(t - 1)            f_e: shallow features of the encoder, f_d: of the decoder
    r(t), r(t - 1) --Haar x 3--> x, f --coupling--> v1 --1x1--> tokens           (not transmitted but for the tokens)
    tokens --1x1--> v1, with zeros for v2 --coupling--> x, f --inverse Haar x 3--> r(t), r(t - 1)
    x^ = f_d(t) + r(t),  f^ = f_d(t - 1) + r(t - 1)
    u = tanh(W_u [x^, f^]),  v = sigmoid(W_v [x^, f^]),  output = u v + (1 - v) x^        before the last block

The paper leaves open, or contradicts itself on, what follows; this is how it is read here.
- Residuals need equal channels and resolution: f_e is projected by 1x1 and resized to f_d. They are reduced to `RESIDUALS`
  channels before the wavelets, and expanded after, or 64 C channels would need nets larger than the whole decoder.
- "64 C0" channels of v1 and codes of 8: a 1x1 convolution goes from one to the other.
- Frame 0 has no frame before it: f_d(-1) is f_d(0).
- Sides that 8 does not divide are padded with zeros, and cropped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nvc.bitstream.program import Builder, Op

from .. import haar, layers
from ..activations import SIGMOID, TANH, Activation, Requantiser
from ..config import Tokens
from ..coupling import UNIT, Coupling
from ..latents import Numbers
from .vq_block import Block, emit_fit_size, fit_size, make_latent

LEVELS = 3  # of the wavelets
RESIDUALS = 1
HIDDEN = 16  # channels inside the nets of the coupling
FIRST_WEIGHT = -2.0  # before the sigmoid: a fit starts near plain HNeRV
SIGMOID_ONE = 2047  # the table's 1
SIGMOID_SCALE = 2.0**-11  # near 1 / 2047, which has no exact multiplier
LINEAR_OF_TANH = 4  # one unit of a feature is worth four of the tanh's, 2^-11


class Paper(Block):
    """For features (N, `channels`, *`size`), from shallow ones of `shallow` channels; the size of the map follows."""

    history = True

    def __init__(
        self, channels: int, size: tuple[int, int], shallow: int, tokens: Tokens, area: int, activation: Activation
    ) -> None:
        super().__init__()
        step = 1 << LEVELS
        self.size = size
        self.map = (-(-size[0] // step), -(-size[1] // step))
        self.padded = (self.map[0] * step, self.map[1] * step)
        self.latent = make_latent(tokens, self.map)
        bands = RESIDUALS * step * step
        self.project = nn.Conv2d(shallow, channels, 1)
        self.reduce = nn.Conv2d(channels, RESIDUALS, 1)
        self.narrow = nn.Conv2d(bands, tokens.dimension, 1)
        self.encoder = nn.ModuleList([self.project, self.reduce, self.narrow])
        self.widen = layers.QuantConv((tokens.dimension, bands), 1, layers.LINEAR, self.latent.source, gain=layers.UNIT_GAIN)
        self.coupling = Coupling(bands, HIDDEN, activation)
        self.synthesis = haar.Synthesis(LEVELS)
        self.expand = layers.QuantConv((RESIDUALS, channels), 1, layers.LINEAR, gain=layers.UNIT_GAIN)
        self.content = layers.QuantConv((2 * channels, channels), 1, TANH)
        self.weight = layers.QuantConv((2 * channels, channels), 1, SIGMOID)
        with torch.no_grad():
            self.weight.bias.fill_(FIRST_WEIGHT)
        self.requantiser = Requantiser(layers.LINEAR)
        for name, value in (("one", 1.0), ("quarter", 1 / LINEAR_OF_TANH), ("sigmoid", SIGMOID_SCALE)):
            self.register_buffer(name, torch.tensor(value), persistent=False)

    def encode(self, shallow: Tensor, x: Tensor | None, before: Tensor | None) -> Tensor:
        assert x is not None and before is not None
        target = nn.functional.interpolate(self.project(shallow), self.size, mode="bilinear", antialias=True)
        now, then = (self._bands(self.reduce(target - features * UNIT)) for features in (x, before))
        v1, _ = self.coupling.split(now / UNIT, then / UNIT)
        out: Tensor = self.narrow(v1 * UNIT)
        return out

    def _bands(self, residual: Tensor) -> Tensor:
        rows, columns = self.padded[0] - self.size[0], self.padded[1] - self.size[1]
        residual = nn.functional.pad(residual, (0, columns, 0, rows))
        for _ in range(LEVELS):
            residual = haar.analyse(residual)
        return residual

    def forward(self, x: Tensor, before: Tensor | None, codes: Tensor) -> Tensor:
        assert before is not None
        maps = self.coupling(self.widen(codes))
        now, then = (
            self.requantiser(features + self.expand(fit_size(self.synthesis(bands), self.size)), self.one)
            for features, bands in zip((x, before), maps, strict=True)
        )
        both = torch.cat([now, then], 1)
        # u v + (1 - v) x^ = x^ + v (u - x^)
        change = self.requantiser(self.content(both) - LINEAR_OF_TANH * now, self.quarter)
        out: Tensor = self.requantiser(self.weight(both) * change + SIGMOID_ONE * now, self.sigmoid)
        return out

    def emit(self, builder: Builder, x: int, before: int | None, numbers: list[Numbers] | None) -> int:
        assert before is not None
        (codes,) = self.latent.emit(builder, numbers)
        maps = self.coupling.emit(builder, self.widen.emit(builder, codes))
        both = [
            self._emit_residual(builder, features, bands) for features, bands in zip((x, before), maps, strict=True)
        ]
        now, joined = both[0], builder.add(Op.CONCATENATE, *both)
        difference = layers.emit_combine(builder, self.content.emit(builder, joined), now, 1, -LINEAR_OF_TANH)
        change = self.requantiser.emit_fixed(builder, difference, 1 / LINEAR_OF_TANH)
        product = builder.add(Op.MULTIPLY, self.weight.emit(builder, joined), change)
        total = layers.emit_combine(builder, product, now, 1, SIGMOID_ONE)
        return self.requantiser.emit_fixed(builder, total, SIGMOID_SCALE)

    def _emit_residual(self, builder: Builder, features: int, bands: int) -> int:
        residual = emit_fit_size(builder, self.synthesis.emit(builder, bands), self.padded, self.size)
        total = layers.emit_combine(builder, features, self.expand.emit(builder, residual), 1, 1)
        return self.requantiser.emit_fixed(builder, total, 1.0)
