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
from .vq_block import emit_enlarge, enlarge, fit_size
from .vq_pooled import PooledMap


class Added(PooledMap):
    """For features (N, `channels`, *`size`)."""

    def __init__(
        self, channels: int, size: tuple[int, int], shallow: int, tokens: Tokens, area: int, activation: Activation
    ) -> None:
        super().__init__(size, shallow, tokens, area)
        self.project = layers.QuantConv((tokens.dimension, channels), 3, layers.LINEAR, self.latent.source)
        self.requantiser = Requantiser(layers.LINEAR)
        self.register_buffer("one", torch.tensor(1.0), persistent=False)

    def forward(self, x: Tensor, before: Tensor | None, codes: Tensor) -> Tensor:
        y = self.project(enlarge(enlarge(codes, self.factors[0]), self.factors[1]))
        out: Tensor = self.requantiser(x + fit_size(y, self.size), self.one)
        return out

    def emit(self, builder: Builder, x: int, before: int | None, numbers: list[Numbers] | None) -> int:
        (y,) = self.latent.emit(builder, numbers)
        for factors in self.factors:
            y = emit_enlarge(builder, y, factors)
        y = self.project.emit(builder, y)
        y = self.emit_fit(builder, y)
        return self.requantiser.emit_fixed(builder, layers.emit_combine(builder, x, y, 1, 1), 1.0)
