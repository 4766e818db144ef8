"""What every family's network has: an encoder that is not transmitted, an embedding quantiser, a decoder that knows its
program.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn

from nvc.bitstream.program import Builder

from .geometry import Grid
from .layers import Embedding, QuantConv


class Network(nn.Module):
    """A network to fit. `forward` maps embedding codes (N, C, h, w) to canvases (N, C, H, W) of samples 0..255.

    With `rows` = (first, last), multiples of `band`, it returns canvas rows first..last - 1 alone, exactly those of the whole
    canvas, and computes little more at full resolution.
    """

    grid: Grid
    encoder: nn.Module
    embedding: Embedding

    def encode(self, canvas: Tensor) -> Tensor:
        """Canvases (N, C, H, W) in 0..1 to real embeddings (N, C, h, w)."""
        out: Tensor = self.encoder(canvas)
        return out

    @property
    @abstractmethod
    def band(self) -> int:
        """How many canvas rows one row of the last block makes."""

    @abstractmethod
    def forward(self, codes: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        """See the class."""

    @abstractmethod
    def emit(self, builder: Builder, codes: object) -> None:
        """Append the decoder to a program; `codes` is the parameter tensor of the embeddings, (T, C, h, w) int64."""

    def convolutions(self) -> Iterator[QuantConv]:
        """The layers that are transmitted."""
        return (module for module in self.modules() if isinstance(module, QuantConv))

    def quantise(self) -> None:
        """Switch the rounding of weights and embeddings on, for good."""
        self.embedding.quantise = True
        for layer in self.convolutions():
            layer.quantise_weights = True
