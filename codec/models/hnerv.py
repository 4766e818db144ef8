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

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nvc.bitstream.program import Builder, Op

from .. import layers, network
from ..config import Design
from ..geometry import Grid, Picture, plan_grid

REDUCTION = 1.2
FLOOR = 12  # no block is narrower, unless the first one is under twice that
ENCODER_WIDTH = 64
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
    grid = plan_grid(*picture.canvas)
    best = _config(picture, grid, SMALLEST, design)
    for width in range(SMALLEST, LARGEST + 1):
        config = _config(picture, grid, width, design)
        if decoder_parameters(config) > parameters:
            break
        best = config
    return best


def _config(picture: Picture, grid: Grid, width: int, design: Design) -> Config:
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
        self.encoder = Encoder(config)
        self.embedding = layers.Embedding(config.embedding_channels)
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
            self.head.log_step.add_(float(torch.log(torch.tensor(0.1))))

    @property
    def band(self) -> int:
        """The vertical stride of the last block."""
        return self.config.grid.strides[-1][0] if self.blocks else 1

    def forward(self, codes: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        """Embedding codes (N, 16, h, w) to canvases (N, C, H, W) of samples 0..255, or to `rows` of them."""
        x: Tensor = self.stem(codes)
        whole = rows is None or rows == (0, self.grid.size[0])
        for i in range(len(self.blocks) if whole else len(self.blocks) - 1):
            x = self._block(i, x)
        out: Tensor = self.head(x) if whole or rows is None else self._band(x, rows)
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
        i = len(self.blocks) - 1
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

    def emit(self, builder: Builder, codes: object) -> None:
        """Append the decoder to a program; `codes` is the parameter tensor of the embeddings (T, 16, h, w)."""
        h, w = self.config.grid.embedding
        x = builder.add(Op.EMBEDDING, builder.parameter(codes), self.config.embedding_channels, h, w, 0, 1)
        x = self.stem.emit(builder, x)
        for i, (block, strides) in enumerate(zip(self.blocks, self.config.grid.strides, strict=True)):
            assert isinstance(block, layers.QuantConv)
            branch = layers.emit_shuffle(builder, block.emit(builder, x), strides)
            if self.skips:
                skip = self.skips[i]
                assert isinstance(skip, layers.Skip)
                branch = skip.emit(builder, x, branch)
            x = branch
        layers.emit_picture(builder, self.head.emit(builder, x), self.config.picture)


class Encoder(nn.Module):
    """One strided convolution and one ConvNeXt block a stage (Liu et al. 2022); 64 channels, 16 at the end. Never transmitted."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs = config.picture.channels
        strides = config.grid.strides or ((1, 1),)
        for i, stride in enumerate(strides):
            outputs = config.embedding_channels if i == len(strides) - 1 else ENCODER_WIDTH
            if i:
                stages.append(_Norm(inputs))
            stages.append(nn.Conv2d(inputs, outputs, stride, stride))
            if not i:
                stages.append(_Norm(outputs))
            stages.append(_ConvNeXt(outputs))
            inputs = outputs
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stages(x)
        return out


class _Norm(nn.Module):
    """LayerNorm over channels at each position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class _ConvNeXt(nn.Module):
    """7x7 depthwise, norm, expand by four, GELU, contract, layer scale 1e-6, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))
        for layer in (self.depthwise, self.expand, self.contract):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # (N, H, W, C)
        y = self.contract(nn.functional.gelu(self.expand(y))) * self.scale
        branch: Tensor = y.permute(0, 3, 1, 2)
        return x + branch
