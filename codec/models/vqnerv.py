"""VQ-NeRV (Xu et al. 2024): HNeRV, and tokens of a learned codebook that tell what the embedding leaves out.

    frame --ConvNeXt encoder--> embedding --HNeRV--> ... features ... --block--> ... --> picture
       \\--its first stage--> tokens ---------------------------------------^

Three blocks, `Tokens.block`: `pooled` (vq_pooled.py), what the published training log shows; `paper` (vq_paper.py), what the
paper describes; `added` (vq_added.py), the smallest one, at one or several places. Their tokens are learned and chosen as
codebook.py says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from nvc.bitstream.program import Builder

from .. import layers
from ..activations import HIGH, LOW
from ..codebook import Codebook
from ..config import Design
from ..geometry import Picture
from ..latents import Numbers
from ..network import convolutions
from . import hnerv
from .vq_added import Added
from .vq_block import Block
from .vq_paper import Paper
from .vq_pooled import Pooled

BLOCKS: dict[str, type[Pooled | Paper | Added]] = {"pooled": Pooled, "paper": Paper, "added": Added}
PIXELS_PER_TOKEN = 80 * 80  # 8 x 16 tokens at 640 x 1280, as in the published log
LEAST_AREA = 32  # positions of a map, or small pictures would have but a few
HOME = {"pooled": hnerv.LARGEST, "paper": hnerv.LARGEST, "added": 1}  # after so many blocks, if there are more


@dataclass(frozen=True)
class Config(hnerv.Config):
    """`maps` as (blocks before it, about how many tokens), in the order of the decoder."""

    maps: tuple[tuple[int, int], ...] = ()


def plan(picture: Picture, parameters: int, design: Design) -> Config:
    """The widest network of at most `parameters` decoder weights and biases; the narrowest there is, if that has more."""
    narrow, wide = hnerv.SMALLEST, hnerv.LARGEST + 1
    while wide - narrow > 1:
        middle = (narrow + wide) // 2
        if decoder_parameters(_config(picture, middle, design)) > parameters:
            wide = middle
        else:
            narrow = middle
    return _config(picture, narrow, design)


def _config(picture: Picture, width: int, design: Design) -> Config:
    base = hnerv.configure(picture, width, design)
    last = max(len(base.grid.strides) - 1, 0)
    height, columns = picture.canvas
    usual = max(height * columns * picture.side**2 // PIXELS_PER_TOKEN, LEAST_AREA)
    wanted = design.tokens.maps or ((HOME[design.tokens.block], 0),)
    maps = sorted((min(place, last), area or usual) for place, area in wanted)
    return Config(**vars(base) | {"maps": tuple(maps)})


def decoder_parameters(config: Config) -> int:
    """Weights and biases that are transmitted."""
    own = sum(layer.weight.numel() + layer.bias.numel() for block in _blocks(config, 1) for layer in convolutions(block))
    return hnerv.decoder_parameters(config) + own


def _blocks(config: Config, shallow: int) -> list[Block]:
    activation, tokens = layers.ACTIVATIONS[config.design.activation], config.design.tokens
    made: list[Block] = []
    for place, area in config.maps:
        (h, w), strides = config.grid.embedding, config.grid.strides[:place]
        size = (h * math.prod(s for s, _ in strides), w * math.prod(s for _, s in strides))
        made.append(BLOCKS[tokens.block](config.widths[place], size, shallow, tokens, area, activation))
    return made


class Network(hnerv.Network):
    """HNeRV with blocks between its own."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        blocks = _blocks(config, self.encoder.shallow_width)
        self.details = nn.ModuleList(blocks)
        self.latents.extend(block.latent for block in blocks)
        self.history = any(block.history for block in blocks)
        for place in {place for block, (place, _) in zip(blocks, config.maps, strict=True) if block.linear}:
            for layer in self.readers(place):  # the range of the activation would not bound what they read
                layer.source = replace(layer.source, low=LOW, high=HIGH)

    def encoders(self) -> Iterator[nn.Module]:
        """The parts that are not transmitted."""
        yield self.encoder
        yield from (block.encoder for block in self._details())

    def token_encoders(self) -> Iterator[nn.Module]:
        """Those of `encoders` that find tokens, not scalars."""
        return (block.encoder for block in self._details() if isinstance(block.latent, Codebook))

    def _details(self) -> Iterator[Block]:
        for block in self.details:
            assert isinstance(block, Block)
            yield block

    def encode_details(self, canvas: Tensor, codes: Tensor, before: Tensor | None) -> list[Tensor]:
        """The real latents of the blocks, (N, D, h, w) each."""
        shallow = self.encoder.shallow(canvas).detach()  # gradients of tokens, which are noisy, made embeddings worse
        features = None if before is None else (self.stem(codes), self.stem(before))
        found, at = [], 0
        for block, (place, _) in zip(self._details(), self.config.maps, strict=True):
            if features is not None:  # without what earlier blocks add: their tokens are not known yet
                features = (self.advance(features[0], at, place), self.advance(features[1], at, place))
            found.append(block.encode(shallow, *(features or (None, None))))
            at = place
        return found

    def forward(self, codes: Sequence[Tensor], before: Tensor | None = None, rows: tuple[int, int] | None = None) -> Tensor:
        """Latents as integers to canvases (N, C, H, W) of samples 0..255, or to `rows` of them."""
        x, at = self.stem(codes[0]), 0
        then = None if before is None else self.stem(before)
        for block, (place, _), tokens in zip(self._details(), self.config.maps, codes[1:], strict=True):
            then = None if then is None else self.advance(then, at, place)
            x, at = block(self.advance(x, at, place), then, tokens), place
        return self.tail(self.advance(x, at, self.last), rows)

    def emit(self, builder: Builder, numbers: Sequence[list[Numbers]] | None) -> None:
        """Append the decoder to a program; `numbers` are those of each latent, or None where the shape alone matters."""
        offsets = (0, -1) if self.history else (0,)
        embeddings = self.embedding.emit(builder, numbers[0] if numbers else None, offsets)
        x, *others = (self.stem.emit(builder, value) for value in embeddings)
        at = 0
        for i, (block, (place, _)) in enumerate(zip(self._details(), self.config.maps, strict=True), 1):
            others = [self.emit_advance(builder, value, at, place) for value in others]
            x = self.emit_advance(builder, x, at, place)
            x, at = block.emit(builder, x, others[0] if others else None, numbers[i] if numbers else None), place
        self.emit_tail(builder, self.emit_advance(builder, x, at, self.last))
