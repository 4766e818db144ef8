"""HNeRV (Chen et al., CVPR 2023, section 3): content embeddings and balanced blocks.

    frame --ConvNeXt encoder--> embedding --1x1--> [ kxk conv -> activation -> depth to space ] x n --3x3--> picture
            (not transmitted)   (quantised, sent)   k = 1, 3, 5, 5, ...; widths shrink by 1.2 a block

Differences from the paper, each because the decoder is defined in integers or because of 4:2:0:
- 4:2:0 is made at half resolution as six channels, so the paper's last block is part of the head.
- The activation is the quadratic hard-swish; `gelu` gives the paper's, by a table, and `sine` that of SIREN (Sitzmann et al.
  2020). With `skip` a block adds its input before the activation (layers.Skip).
- The output is linear and clamped, not 0.5 tanh + 0.5.
- Strides may differ between the axes, so that frames of any size need little padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nvc.bitstream.program import Builder

from .. import layers, network
from ..config import Design
from ..geometry import Grid, Picture, plan_grid
from ..latents import Embedding, Numbers
from .convnext import Encoder

REDUCTION = 1.2
FLOOR = 12  # no block is narrower, unless the first one is under twice that
DEFAULT = Design()
SMALLEST, LARGEST = 4, 1024  # widths of the first block


@dataclass(frozen=True)
class Config:
    """Everything that shapes the network. `widths[0]` follows the 1x1 stem, `widths[i + 1]` block i."""

    picture: Picture
    grid: Grid
    widths: tuple[int, ...]
    embedding_channels: int = 16
    design: Design = DEFAULT


def plan(picture: Picture, parameters: int, design: Design = DEFAULT) -> Config:
    """The widest network of at most `parameters` decoder weights and biases; the narrowest there is, if that has more."""
    best = configure(picture, SMALLEST, design)
    for width in range(SMALLEST, LARGEST + 1):
        config = configure(picture, width, design)
        if decoder_parameters(config) > parameters:
            break
        best = config
    return best


def configure(picture: Picture, width: int, design: Design = DEFAULT) -> Config:
    """The network whose first block is `width` channels wide."""
    grid = plan_grid(*picture.canvas)
    floor = min(FLOOR, max(SMALLEST, width // 2))
    widths = [width]
    for _ in grid.strides:
        widths.append(max(round(widths[-1] / REDUCTION), floor))
    return Config(picture, grid, tuple(widths), design=design)


def kernel(block: int) -> int:
    """The kernel of block i: 1, 3, 5, 5, ... (HNeRV, balanced parameters)."""
    return min(1 + 2 * block, 5)


def decoder_parameters(config: Config) -> int:
    """Weights and biases that are transmitted."""
    count = (config.embedding_channels + 1) * config.widths[0]
    for i, (sh, sw) in enumerate(config.grid.strides):
        count += (config.widths[i] * kernel(i) ** 2 + 1) * config.widths[i + 1] * sh * sw
        if config.design.skip:
            count += (config.widths[i] + 1) * config.widths[i + 1]
    return count + (config.widths[-1] * 9 + 1) * config.picture.channels


class Network(network.Network):
    """The decoder, and the encoder that finds its embeddings."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.grid = config.grid
        strides, widths, design = config.grid.strides, config.widths, config.design
        activation = layers.ACTIVATIONS[design.activation]
        inner, steps = activation.range, design.channel_steps
        self.encoder = Encoder(config.picture.channels, config.embedding_channels, strides)
        self.latents = nn.ModuleList([Embedding((config.embedding_channels, *config.grid.embedding))])
        self.stem = layers.QuantConv((config.embedding_channels, widths[0]), 1, activation, self.embedding.source, steps)
        branch = layers.LINEAR if design.skip else activation
        self.blocks = nn.ModuleList(
            layers.QuantConv((widths[i], widths[i + 1] * sh * sw), kernel(i), branch, inner, steps)
            for i, (sh, sw) in enumerate(strides)
        )
        self.skips = nn.ModuleList(
            layers.Skip((widths[i], widths[i + 1]), stride, activation, inner, steps)
            for i, stride in enumerate(strides if design.skip else ())
        )
        self.head = layers.QuantConv((widths[-1], config.picture.channels), 3, layers.pixels(8), inner, steps)
        with torch.no_grad():
            self.head.weight.mul_(0.1)  # starts near mid-grey, inside the clamp, where gradients flow
            self.head.bias.fill_(0.5)
            self.head.log_step.add_(math.log(0.1))

    @property
    def band(self) -> int:
        """The vertical stride of the last block."""
        return self.config.grid.strides[-1][0] if self.blocks else 1

    def encode(self, canvas: Tensor) -> Tensor:
        """Canvases (N, C, H, W) in 0..1 to real embeddings (N, 16, h, w)."""
        out: Tensor = self.encoder(canvas)
        return out

    def encoders(self) -> Iterator[nn.Module]:
        """The parts that are not transmitted."""
        yield self.encoder

    def forward(self, codes: Sequence[Tensor], before: Tensor | None = None, rows: tuple[int, int] | None = None) -> Tensor:
        """Embedding codes (N, 16, h, w) to canvases (N, C, H, W) of samples 0..255, or to `rows` of them."""
        return self.tail(self.advance(self.stem(codes[0]), 0, self.last), rows)

    @property
    def last(self) -> int:
        """The number of the last block."""
        return max(len(self.blocks) - 1, 0)

    def readers(self, block: int) -> Iterator[layers.QuantConv]:
        """The layers that read the input of a block: those of the block, or the head where there is none."""
        parts = [*self.blocks[block : block + 1], *self.skips[block : block + 1]] or [self.head]
        return (layer for part in parts for layer in network.convolutions(part))

    def advance(self, x: Tensor, first: int, last: int) -> Tensor:
        """What blocks first .. last - 1 make of x."""
        for i in range(first, last):
            x = self._block(i, x)
        return x

    def tail(self, x: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        """The last block and the head."""
        if rows is not None and rows != (0, self.grid.size[0]):
            return self._band(x, rows)
        out: Tensor = self.head(self._block(self.last, x) if self.blocks else x)
        return out

    def _block(self, i: int, x: Tensor) -> Tensor:
        branch = layers.shuffle(self.blocks[i](x), self.config.grid.strides[i])
        if not self.skips:
            return branch
        out: Tensor = self.skips[i](x, branch)
        return out

    def _band(self, x: Tensor, rows: tuple[int, int]) -> Tensor:
        """Canvas rows first..last - 1 from the input x of the last block.

        The head needs one row more on each side, and its band of the last block's rows is made from `kernel // 2` cells more.
        """
        first, last = max(rows[0] - 1, 0), min(rows[1] + 1, self.grid.size[0])
        edges = (first - rows[0] + 1, rows[1] + 1 - last)
        x = self._last_block(x, first, last) if self.blocks else x[:, :, first:last]
        out: Tensor = self.head(x, edges)
        return out

    def _last_block(self, x: Tensor, first: int, last: int) -> Tensor:
        """Rows first..last - 1 of what the last block makes of its input x."""
        i = self.last
        stride, cells = self.band, x.shape[2]
        top, bottom = first // stride, -(-last // stride)
        halo = kernel(i) // 2
        above, below = max(top - halo, 0), min(bottom + halo, cells)
        branch = self.blocks[i](x[:, :, above:below], (above - top + halo, bottom + halo - below))
        branch = layers.shuffle(branch, self.config.grid.strides[i])[:, :, first - top * stride : last - top * stride]
        if not self.skips:
            return branch
        above, below = max(top - 1, 0), min(bottom + 1, cells)  # between cells the enlargement sees the next one
        out: Tensor = self.skips[i](x[:, :, above:below], branch, (first - above * stride, last - above * stride))
        return out

    def emit(self, builder: Builder, numbers: Sequence[list[Numbers]] | None) -> None:
        """Append the decoder to a program; `numbers` are those of each latent, or None where the shape alone matters."""
        (codes,) = self.embedding.emit(builder, numbers[0] if numbers else None)
        self.emit_tail(builder, self.emit_advance(builder, self.stem.emit(builder, codes), 0, self.last))

    def emit_advance(self, builder: Builder, x: int, first: int, last: int) -> int:
        """Append `advance`."""
        for i in range(first, last):
            x = self._emit_block(builder, i, x)
        return x

    def emit_tail(self, builder: Builder, x: int) -> None:
        """Append `tail`, and the output."""
        if self.blocks:
            x = self._emit_block(builder, self.last, x)
        layers.emit_picture(builder, self.head.emit(builder, x), self.config.picture)

    def _emit_block(self, builder: Builder, i: int, x: int) -> int:
        block = self.blocks[i]
        assert isinstance(block, layers.QuantConv)
        branch = layers.emit_shuffle(builder, block.emit(builder, x), self.config.grid.strides[i])
        if not self.skips:
            return branch
        skip = self.skips[i]
        assert isinstance(skip, layers.Skip)
        return skip.emit(builder, x, branch)
