"""The block that VQ-NeRV's published training log shows: pooled shallow features as tokens, merged before the last block.

    shallow features --[max pool, 3x3, ConvNeXt] x 2--3x3--> tokens
    tokens --[nearest, 3x3] x 2--> concatenated with the decoder's features --3x3--> features

The log says less than the paper and something else: no Haar transform, no coupling, nothing of t - 1. Before the last 3x3
convolution it has an InstanceNorm, which divides by statistics of the very features and so cannot be exact. A learned
affine, one scale and one offset a channel, is all that stays of it, and the convolution contains that; bench/results has
the difference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nvc.bitstream.program import Builder, Op

from .. import layers
from ..activations import Activation, Range
from ..config import Tokens
from ..latents import Numbers
from .convnext import ConvNeXt
from .vq_block import Block, emit_enlarge, emit_fit_size, enlarge, fit_size, make_latent, plan_map

WIDTH = 64


class PooledMap(Block):
    """A block whose latents are pooled from shallow features of `shallow` channels, at any resolution, for features of `size`."""

    def __init__(self, size: tuple[int, int], shallow: int, tokens: Tokens, area: int) -> None:
        super().__init__()
        self.size = size
        self.map, self.factors = plan_map(size, area)
        self.latent = make_latent(tokens, self.map)
        self.encoder = _Encoder(shallow, tokens.dimension, self.map, self.factors[0])

    def encode(self, shallow: Tensor, x: Tensor | None, before: Tensor | None) -> Tensor:
        out: Tensor = self.encoder(shallow)
        return out

    def emit_fit(self, builder: Builder, enlarged: int) -> int:
        """Append `fit_size` for the whole map, enlarged by both factors."""
        (h, w), ((a, b), (c, d)) = self.map, self.factors
        return emit_fit_size(builder, enlarged, (h * a * c, w * b * d), self.size)


class Pooled(PooledMap):
    """For features (N, `channels`, *`size`)."""

    linear = False

    def __init__(
        self, channels: int, size: tuple[int, int], shallow: int, tokens: Tokens, area: int, activation: Activation
    ) -> None:
        super().__init__(size, shallow, tokens, area)
        d, gain = tokens.dimension, layers.UNIT_GAIN
        self.first = layers.QuantConv((d, d), 3, activation, self.latent.source, gain=gain)
        self.second = layers.QuantConv((d, d), 3, layers.LINEAR, activation.range, gain=gain)
        self.merge = layers.QuantConv((channels + d, channels), 3, activation, Range())

    def forward(self, x: Tensor, before: Tensor | None, codes: Tensor) -> Tensor:
        y = self.second(enlarge(self.first(enlarge(codes, self.factors[0])), self.factors[1]))
        out: Tensor = self.merge(torch.cat([x, fit_size(y, self.size)], 1))
        return out

    def emit(self, builder: Builder, x: int, before: int | None, numbers: list[Numbers] | None) -> int:
        (y,) = self.latent.emit(builder, numbers)
        y = self.first.emit(builder, emit_enlarge(builder, y, self.factors[0]))
        y = self.second.emit(builder, emit_enlarge(builder, y, self.factors[1]))
        y = self.emit_fit(builder, y)
        return self.merge.emit(builder, builder.add(Op.CONCATENATE, x, y))


class _Encoder(nn.Module):
    """Shallow features (N, C, H, W) to (N, D, h, w), by two pooled stages whose sizes are those of the way back."""

    def __init__(self, channels: int, outputs: int, size: tuple[int, int], factors: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.middle = (size[0] * factors[0], size[1] * factors[1])
        self.first = nn.Sequential(nn.Conv2d(channels, WIDTH, 3, padding=1), ConvNeXt(WIDTH))
        self.second = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), ConvNeXt(WIDTH))
        self.last = nn.Conv2d(WIDTH, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(nn.functional.adaptive_max_pool2d(x, self.middle))
        x = self.second(nn.functional.adaptive_max_pool2d(x, self.size))
        out: Tensor = self.last(x)
        return out
