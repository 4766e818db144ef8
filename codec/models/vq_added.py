"""The smallest block there is: tokens, enlarged, go through one convolution and are added to the features.

    shallow features --[max pool, 3x3, ConvNeXt] x 2--3x3--> tokens --nearest, 3x3--> + features

It may stand after any block of the decoder, where tokens have more layers ahead of them than before the last one, and
several may stand in one network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nvc.bitstream.program import Builder

from .. import layers
from ..activations import Activation, Requantiser
from ..config import Tokens
from ..latents import Numbers
from .vq_block import Block, emit_enlarge, emit_fit_size, enlarge, fit_size, make_latent, plan_map
from .vq_pooled import PooledEncoder


class Added(Block):
    """For features (N, `channels`, *`size`), from shallow ones of `shallow` channels, at any resolution."""

    def __init__(
        self, channels: int, size: tuple[int, int], shallow: int, tokens: Tokens, area: int, activation: Activation
    ) -> None:
        super().__init__()
        self.size = size
        self.map, self.factors = plan_map(size, area)
        self.latent = make_latent(tokens, self.map)
        self.encoder = PooledEncoder(shallow, tokens.dimension, self.map, self.factors[0])
        self.project = layers.QuantConv((tokens.dimension, channels), 3, layers.LINEAR, self.latent.source)
        self.requantiser = Requantiser(layers.LINEAR)
        self.register_buffer("one", torch.tensor(1.0), persistent=False)

    def encode(self, shallow: Tensor, x: Tensor | None, before: Tensor | None) -> Tensor:
        out: Tensor = self.encoder(shallow)
        return out

    def forward(self, x: Tensor, before: Tensor | None, codes: Tensor) -> Tensor:
        y = self.project(enlarge(enlarge(codes, self.factors[0]), self.factors[1]))
        out: Tensor = self.requantiser(x + fit_size(y, self.size), self.one)
        return out

    def emit(self, builder: Builder, x: int, before: int | None, numbers: list[Numbers] | None) -> int:
        (y,) = self.latent.emit(builder, numbers)
        for factors in self.factors:
            y = emit_enlarge(builder, y, factors)
        y = self.project.emit(builder, y)
        (h, w), ((a, b), (c, d)) = self.map, self.factors
        y = emit_fit_size(builder, y, (h * a * c, w * b * d), self.size)
        return self.requantiser.emit_fixed(builder, layers.emit_combine(builder, x, y, 1, 1), 1.0)
