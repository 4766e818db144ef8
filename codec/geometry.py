"""The grid of a network: how a picture is folded into channels, and the strides that lead from an embedding to it.

Planar 4:2:0 is fitted at half resolution as six channels: four luma phases and the two chroma planes. RGB is fitted as it is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from nvc.bitstream.constants import PIXEL_FORMATS
from nvc.bitstream.header import Header

STRIDES = (1, 2, 3, 4, 5)
MAX_PADDING = 0.07  # of a side; padded samples cost decode time and are never seen
EMBEDDING_AREA = (
    8  # positions of an embedding, 2x4 in HNeRV: 1x2 and 4x8 lose 0.8 and 0.5 dB there (Chen et al. 2023)
)
STRIDE_PER_BLOCK = 3.6  # HNeRV reaches 320 in five blocks and 160 in four


@dataclass(frozen=True)
class Grid:
    """Embedding size, strides (height, width) of the blocks, and the size they reach, which is at least the wanted one."""

    embedding: tuple[int, int]
    strides: tuple[tuple[int, int], ...]
    size: tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """Three planes (height, width); `side` 2 folds 2 x 2 luma samples into four channels (4:2:0), 1 leaves them (RGB)."""

    shapes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    side: int

    @classmethod
    def of(cls, header: Header) -> Picture:
        """The picture of a file."""
        return cls(header.plane_shapes(), 2 if header.pixel_format == PIXEL_FORMATS["yuv420p"] else 1)

    @property
    def channels(self) -> int:
        """Channels of the canvas: 6 for 4:2:0, 3 for RGB."""
        return self.side**2 + 2

    @property
    def canvas(self) -> tuple[int, int]:
        """The size a grid must reach."""
        return self.shapes[-1]


def plan_grid(height: int, width: int) -> Grid:
    """Strides for a canvas of `height` x `width`: at most 7 % padding, an embedding of about eight positions, square cells.

    Each axis has its own strides, so that 90 x 160 is 2 x 4 times (5, 3, 3) x (5, 4, 2) without any padding.
    """
    side = max(1.0, math.sqrt(height * width / EMBEDDING_AREA))
    blocks = round(math.log(side) / math.log(STRIDE_PER_BLOCK))
    rows, row_strides = _plan_axis(height, side, blocks)
    columns, column_strides = _plan_axis(width, side, blocks)
    size = (rows * math.prod(row_strides), columns * math.prod(column_strides))
    return Grid((rows, columns), tuple(zip(row_strides, column_strides, strict=True)), size)


def _plan_axis(size: int, side: float, blocks: int) -> tuple[int, tuple[int, ...]]:
    wanted = max(1.0, size / side)
    best: tuple[float, int, tuple[int, ...]] | None = None
    for strides in itertools.combinations_with_replacement(sorted(STRIDES, reverse=True), blocks):
        reach = math.prod(strides)
        cells = -(-size // reach)
        padding = cells * reach / size - 1
        if padding > MAX_PADDING:
            continue
        uneven = sum(math.log(stride) ** 2 for stride in strides)  # 5 4 4 2 2 before 5 4 4 4 1, as HNeRV has it
        cost = abs(math.log(cells / wanted)) + 4 * padding + 0.001 * uneven
        if best is None or cost < best[0]:
            best = (cost, cells, strides)
    if best is None:
        raise ValueError(f"no strides for a side of {size}")  # cannot be: strides of 1 always fit
    return best[1], best[2]
