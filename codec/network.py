"""What every family's network has: encoders that are not transmitted, latents, a decoder that knows its program."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from nvc.bitstream.program import Builder

from .geometry import Grid
from .latents import Embedding, Latent, Numbers
from .layers import QuantConv


class Network(nn.Module):
    """A network to fit. `forward` maps latents, as integers, to canvases (N, C, H, W) of samples 0..255.

    `codes` holds one map (N, C, h, w) for each of `latents`, of which the first is the embedding; `before` is the embedding of
    the frames t - 1 (frame 0 again for frame 0), which a network with `history` reads. With `rows` = (first, last), multiples of
    `band`, it returns canvas rows first..last - 1 alone, exactly those of the whole canvas, and computes little more at full
    resolution.
    """

    grid: Grid
    latents: nn.ModuleList
    history = False

    @property
    def embedding(self) -> Embedding:
        """The first latent."""
        first = self.latents[0]
        assert isinstance(first, Embedding)
        return first

    @abstractmethod
    def encode(self, canvas: Tensor) -> Tensor:
        """Canvases (N, C, H, W) in 0..1 to real embeddings (N, C, h, w)."""

    def encode_details(self, canvas: Tensor, codes: Tensor, before: Tensor | None) -> list[Tensor]:
        """Further real latents, given the embedding as the decoder reads it."""
        return []

    @property
    @abstractmethod
    def band(self) -> int:
        """How many canvas rows one row of the last block makes."""

    @abstractmethod
    def forward(self, codes: Sequence[Tensor], before: Tensor | None = None, rows: tuple[int, int] | None = None) -> Tensor:
        """See the class."""

    @abstractmethod
    def emit(self, builder: Builder, numbers: Sequence[list[Numbers]] | None) -> None:
        """Append the decoder to a program; `numbers` are those of each latent, or None where the shape alone matters."""

    @abstractmethod
    def encoders(self) -> Iterator[nn.Module]:
        """The parts that are not transmitted."""

    def token_encoders(self) -> Iterator[nn.Module]:
        """Those of `encoders` that find tokens."""
        return iter(())

    def convolutions(self) -> Iterator[QuantConv]:
        """The layers that are transmitted."""
        return convolutions(self)

    def quantise(self) -> None:
        """Switch the rounding of weights and latents on, for good."""
        for latent in self.latents:
            assert isinstance(latent, Latent)
            latent.quantise = True
        for layer in self.convolutions():
            layer.quantise_weights = True


def convolutions(module: nn.Module) -> Iterator[QuantConv]:
    """The layers of a module that are transmitted."""
    return (part for part in module.modules() if isinstance(part, QuantConv))
