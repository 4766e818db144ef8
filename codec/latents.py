"""What a network reads of every frame: real latents, found by an encoder or free, and the integers that are sent for them."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nvc.bitstream.program import Builder, Op
from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits

from . import quant, rate
from .activations import HIGH, LOW, Range

Numbers = NDArray[np.int64]


class Latent(nn.Module):
    """A quantiser of latents: real (N, C, h, w) to integers of the same shape, which the decoder reads.

    What changes from step to step is in parameters and buffers, changed in place, and nothing that a step calls reads them on
    the host: `forward`, `commitment`, `bits`, `count` and `observe`.

    `table` in the methods below is the real latents of all frames of a segment, (T, C, h, w).
    """

    source: Range
    shape: tuple[int, int, int]
    quantise = False
    """Whether the integers are integers yet."""
    probed = False
    """Whether `observe` is asked for."""

    @abstractmethod
    def forward(self, real: Tensor, index: Tensor) -> Tensor:
        """Latents of the frames `index` (N,) to integers, with straight-through gradients."""

    def commitment(self, real: Tensor, codes: Tensor) -> Tensor | None:
        """A term of the loss that keeps `real` near what `forward` made of it, or None."""
        return None

    def begin(self, frames: int, real: Tensor) -> None:
        """Take notice of how many frames there are, and of the `real` latents (T', C, h, w) of all or many of them."""

    def prepare(self, frames: int, free: bool, frozen: bool) -> list[nn.Parameter]:
        """Take the shape, not the numbers, of a latent of so many frames after `settle` (`free`) and `freeze` (`frozen`).

        So `load_state_dict` takes those of one in that phase. What `freeze` has returned, of this one.
        """
        return []

    def coarsen(self, factor: float) -> bool:
        """Make the integers smaller by `factor`; whether they can be, so that what reads them has to make up for it."""
        return False

    def settle(self, table: Tensor) -> None:
        """Take notice of all latents, once they are free."""

    def freeze(self, table: Tensor) -> list[nn.Parameter]:
        """Make the last choices that gradients cannot; parameters that are learned from here on."""
        return []

    def count(self, price: Tensor) -> None:
        """Take notice of what a bit costs, a scalar: the distortion of a frame that it is worth."""

    def observe(self, curvature: Tensor) -> None:
        """Take notice of how much the distortion of a frame rises with the square of a change, a scalar."""

    @abstractmethod
    def bits(self, table: Tensor) -> Tensor:
        """Predicted bits, a scalar, differentiable where the latent is."""

    @abstractmethod
    def coded(self, table: Tensor) -> float:
        """The bits as the entropy coder counts them."""

    def usage(self) -> tuple[float, float] | None:
        """Of a codebook: the share of its codes that occur, and the perplexity of its tokens, 2^entropy."""
        return None

    @abstractmethod
    def numbers(self, table: Tensor) -> list[Numbers]:
        """The parameters of a program that carry the latents of a segment."""

    @abstractmethod
    def emit(self, builder: Builder, numbers: list[Numbers] | None, offsets: tuple[int, ...] = (0,)) -> list[int]:
        """Append what reads the latents of frames t + offset; the numbers of the values. Without `numbers`, only the shape."""


class Embedding(Latent):
    """The quantiser of scalar latents: integers of 12 bits.

    One unit is always worth 1/16; a learned gain per channel, in the log domain, takes the place of learned steps, and needs no
    byte in the stream because the first layer reads integers.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.source = Range(step=1 / 16)  # of its own: by it one finds the layers that read this latent
        self.log_gain = nn.Parameter(torch.full((shape[0], 1, 1), float(np.log(16.0))))

    def forward(self, real: Tensor, index: Tensor | None = None) -> Tensor:
        scaled = self.scaled(real)
        return quant.round_through(scaled) if self.quantise else scaled

    @torch.no_grad()
    def coarsen(self, factor: float) -> bool:
        self.log_gain.sub_(np.log(factor))
        return True

    def scaled(self, real: Tensor) -> Tensor:
        """The codes before rounding."""
        return (real * self.log_gain.exp()).clamp(LOW, HIGH)

    def bits(self, table: Tensor) -> Tensor:
        return rate.embedding_bits(self.scaled(table))

    def coded(self, table: Tensor) -> float:
        (codes,) = self.numbers(table)
        return coded_bits(TensorSpec(Kind.EMBEDDING, codes.shape), codes)

    @torch.no_grad()
    def numbers(self, table: Tensor) -> list[Numbers]:
        return [self.scaled(table).round().cpu().numpy().astype(np.int64)]

    def emit(self, builder: Builder, numbers: list[Numbers] | None, offsets: tuple[int, ...] = (0,)) -> list[int]:
        codes = builder.parameter(numbers[0] if numbers else None)
        return [builder.add(Op.EMBEDDING, codes, *self.shape, offset, 1) for offset in offsets]
