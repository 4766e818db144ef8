"""Grids: little padding for every size, strides that a block can take, and the same grid each time."""

from __future__ import annotations

import random
from math import prod

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nvc.bitstream.header import Header
from nvc.codec.geometry import MAX_PADDING, STRIDES, Picture, plan_grid

SIDES = st.integers(1, 4096)


@given(SIDES, SIDES)
@example(1, 1)
@example(1, 4096)
@example(4096, 1)
@example(4093, 4091)
@settings(deadline=None, max_examples=400)
def test_a_grid_covers_its_picture_with_at_most_7_percent_of_padding_a_side(height: int, width: int) -> None:
    grid = plan_grid(height, width)
    for axis, side in enumerate((height, width)):
        reach = grid.embedding[axis] * prod(strides[axis] for strides in grid.strides)
        assert reach == grid.size[axis]
        assert side <= reach <= side * 1.07
        assert grid.embedding[axis] >= 1
        assert all(strides[axis] in STRIDES for strides in grid.strides)
    assert MAX_PADDING == 0.07
    assert plan_grid(height, width) == grid


def test_embeddings_have_about_eight_positions_of_nearly_square_cells() -> None:
    """A few sides have no product of strides near enough, such as 801: of 512 sizes one in twenty may be further off."""
    generator = random.Random(1)
    counts, ratios = [], []
    for _ in range(512):
        height, width = generator.randint(256, 2048), generator.randint(256, 2048)
        rows, columns = plan_grid(height, width).embedding
        counts.append(rows * columns)
        ratios.append((height / rows) / (width / columns))
    assert sum(4 <= count <= 16 for count in counts) > 0.95 * 512
    assert sum(1 / 2 < ratio < 2 for ratio in ratios) > 0.95 * 512
    assert max(counts) <= 64


@given(SIDES, SIDES)
@settings(deadline=None, max_examples=100)
def test_a_picture_on_its_side_has_the_grid_on_its_side(height: int, width: int) -> None:
    upright, turned = plan_grid(height, width), plan_grid(width, height)
    assert turned.embedding == upright.embedding[::-1]
    assert turned.strides == tuple(strides[::-1] for strides in upright.strides)


@pytest.mark.parametrize(
    ("size", "embedding", "strides"),
    [
        ((90, 160), (2, 4), ((5, 5), (3, 4), (3, 2))),
        ((540, 960), (3, 4), ((5, 5), (4, 4), (3, 4), (3, 3))),
    ],
)
def test_common_canvases_need_no_padding(size: tuple[int, int], embedding: tuple[int, int], strides: object) -> None:
    grid = plan_grid(*size)
    assert grid.size == size
    assert grid.embedding == embedding
    assert sorted(h for h, _ in grid.strides) == sorted(h for h, _ in strides)  # type: ignore[attr-defined]
    assert sorted(w for _, w in grid.strides) == sorted(w for _, w in strides)  # type: ignore[attr-defined]


@given(SIDES, SIDES, st.sampled_from([0, 1]))
@settings(deadline=None)
def test_a_picture_is_folded_by_its_chroma(width: int, height: int, pixel_format: int) -> None:
    picture = Picture.of(Header(width, height, pixel_format))
    if pixel_format == 0:
        assert (picture.channels, picture.canvas) == (6, (-(-height // 2), -(-width // 2)))
    else:
        assert (picture.channels, picture.canvas) == (3, (height, width))
