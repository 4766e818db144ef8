"""What the blocks of VQ-NeRV share: a latent map of their own, the encoder that finds it, and a place in the decoder."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod

from torch import Tensor, nn

from nvc.bitstream.program import Builder, Op

from ..codebook import Codebook
from ..config import Tokens
from ..geometry import MAX_PADDING
from ..latents import Embedding, Latent, Numbers

FACTORS = range(1, 17)  # of one nearest operation (SPEC 8.4)


class Block(nn.Module):
    """Adds what tokens tell to the features (N, C, H, W) of the decoder.

    A block with `history` also reads the same features of frame t - 1.
    """

    latent: Latent
    encoder: nn.Module
    """Not transmitted."""
    history = False
    linear = True
    """Whether features leave it as linear activations, which may be negative whatever the network's activation is."""

    @abstractmethod
    def encode(self, shallow: Tensor, x: Tensor | None, before: Tensor | None) -> Tensor:
        """Real latents (N, D, h, w) from the encoder's shallow features and, with `history`, those of the decoder."""

    @abstractmethod
    def forward(self, x: Tensor, before: Tensor | None, codes: Tensor) -> Tensor:
        """Features (N, C, H, W) and latents as integers to features of the same shape."""

    @abstractmethod
    def emit(self, builder: Builder, x: int, before: int | None, numbers: list[Numbers] | None) -> int:
        """Append `forward`, latents included; the number of its output value."""


def plan_map(size: tuple[int, int], area: int) -> tuple[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]:
    """The size (h, w) of a map of about `area` positions, and two factors per axis that enlarge it to `size` or a little more."""
    side = max(1.0, math.sqrt(size[0] * size[1] / area))
    (rows, row_factors), (columns, column_factors) = (_plan_axis(length, side) for length in size)
    return (rows, columns), ((row_factors[0], column_factors[0]), (row_factors[1], column_factors[1]))


def _plan_axis(length: int, side: float) -> tuple[int, tuple[int, int]]:
    """Cells of about `side`, and the two factors, near each other, that lead from them to `length` or at most 7 % more."""

    def cost(factors: tuple[int, int]) -> float:
        a, b = factors
        cells = -(-length // (a * b))
        return abs(math.log(cells * side / length)) + cells * a * b / length + 0.01 * abs(math.log(a / b))

    pairs = [
        (a, b)
        for a, b in itertools.combinations_with_replacement(FACTORS, 2)
        if -(-length // (a * b)) * a * b <= (1 + MAX_PADDING) * length
    ]
    a, b = min(pairs, key=cost)
    return -(-length // (a * b)), (a, b)


def make_latent(tokens: Tokens, size: tuple[int, int]) -> Latent:
    """The latent of a map: tokens, or scalars where they are to be compared with those."""
    shape = (tokens.dimension, *size)
    return Embedding(shape) if tokens.scalar else Codebook(shape, tokens.levels, tokens.pool, tokens.priced)


def enlarge(x: Tensor, factors: tuple[int, int]) -> Tensor:
    """Nearest-neighbour enlargement by (rows, columns)."""
    return x.repeat_interleave(factors[0], 2).repeat_interleave(factors[1], 3)


def emit_enlarge(builder: Builder, x: int, factors: tuple[int, int]) -> int:
    """Append `enlarge`; nothing where both factors are 1."""
    return x if factors == (1, 1) else builder.add(Op.NEAREST, x, factors[0], 1, factors[1], 1)


def fit_size(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The upper left `size` of x, which is no smaller."""
    return x[:, :, : size[0], : size[1]]


def emit_fit_size(builder: Builder, x: int, made: tuple[int, int], size: tuple[int, int]) -> int:
    """Append `fit_size` for a value of size `made`."""
    return x if made == size else builder.add(Op.CROP, x, 0, 0, *size)
