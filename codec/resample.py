"""Larger maps: depth to space, and bilinear enlargement by a stride per axis; in training and as operations (SPEC 8.4)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from nvc.bitstream.program import Builder, Op


def shuffle(x: Tensor, strides: tuple[int, int]) -> Tensor:
    """Depth to space with a stride per axis: (N, sh sw C, H, W) to (N, C, H sh, W sw).

    Channel (i sw + j) C + c goes to row i and column j of the blocks: with channels last in memory, whole runs are copied.
    """
    sh, sw = strides
    n, c, h, w = x.shape
    blocks = x.permute(0, 2, 3, 1).reshape(n, h, w, sh, sw, c // (sh * sw)).transpose(2, 3)
    return blocks.reshape(n, h * sh, w * sw, c // (sh * sw)).permute(0, 3, 1, 2)


def emit_shuffle(builder: Builder, x: int, strides: tuple[int, int]) -> int:
    """Append `shuffle` of value `x`; nothing where both strides are 1."""
    return x if strides == (1, 1) else builder.add(Op.SHUFFLE, x, *strides)


def gain(strides: tuple[int, int]) -> int:
    """What `enlarge` multiplies values with: 4 s^2 for the larger stride s, 1 where there is nothing to enlarge."""
    s = max(strides)
    return 4 * s * s if s > 1 else 1


def enlarge(x: Tensor, strides: tuple[int, int]) -> Tensor:
    """Bilinear enlargement of activations (N, C, H, W) to accumulators (N, C, H sh, W sw), `gain(strides)` times as large.

    The bilinear operation knows one factor, so both axes grow by the larger stride, and the other axis is thinned to its own by
    the nearest operation. Here only the rows and columns that stay are computed.
    """
    s = max(strides)
    if s == 1:
        return x
    rows = _weights(x.shape[2], s, strides[0], x.device)
    columns = _weights(x.shape[3], s, strides[1], x.device)
    # two integers below 2^24 and zeros are summed, which is exact in any order; channels last, both products run over memory
    wide = columns @ x.permute(0, 2, 3, 1)
    n, h, w, c = wide.shape
    return (rows @ wide.reshape(n, h, w * c)).view(n, -1, w, c).permute(0, 3, 1, 2)


def emit_enlarge(builder: Builder, x: int, strides: tuple[int, int]) -> int:
    """Append `enlarge` of value `x`; the number of the accumulators."""
    s = max(strides)
    if s == 1:
        return x
    wide = builder.add(Op.BILINEAR, x, s)
    return wide if strides == (s, s) else builder.add(Op.NEAREST, wide, strides[0], s, strides[1], s)


@lru_cache(maxsize=64)
def _weights(size: int, factor: int, stride: int, device: torch.device) -> Tensor:
    """The enlargement of a line by `factor`, thinned to `stride`, as a matrix (size stride, size) of integers."""
    kept = torch.arange(size * stride) * factor // stride
    position = 2 * kept + 1 - factor  # in units of 1 / (2 factor)
    index = torch.div(position, 2 * factor, rounding_mode="floor")
    part = (position - 2 * factor * index).float()
    matrix = torch.zeros(size * stride, size)
    line = torch.arange(size * stride)
    matrix.index_put_((line, index.clamp(0, size - 1)), 2 * factor - part, accumulate=True)
    matrix.index_put_((line, (index + 1).clamp(0, size - 1)), part, accumulate=True)
    return matrix.to(device)
