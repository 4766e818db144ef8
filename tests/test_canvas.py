"""Canvases: unfolded they are the planes, what is padded weighs nothing, and the weighted error is the distortion."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.bitstream.header import Header
from nvc.codec.canvas import Canvas, Planes, to_canvas
from nvc.codec.geometry import Picture, plan_grid


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Planes, Picture, tuple[int, int]]:
    """Random planes (T, h, w), their picture and the size of its grid, which may be larger than the canvas."""
    header = Header(draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.sampled_from([0, 1])))
    picture, frames = Picture.of(header), draw(st.integers(1, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    y, cb, cr = (generator.integers(0, 256, (frames, *shape), dtype=np.uint8) for shape in header.plane_shapes())
    extra = draw(st.integers(0, 2))
    height, width = plan_grid(*picture.canvas).size
    return (y, cb, cr), picture, (height + extra, width + extra)


def unfolded(canvas: NDArray[np.generic], picture: Picture) -> list[NDArray[np.generic]]:
    """Planes of the size of the grid from a canvas (..., C, H, W), sample by sample as geometry.Picture says."""
    if picture.side == 1:
        return [canvas[..., i, :, :] for i in range(3)]
    *outer, _, height, width = canvas.shape
    luma = np.empty((*outer, 2 * height, 2 * width), dtype=canvas.dtype)
    for i in range(2):
        for j in range(2):
            luma[..., i::2, j::2] = canvas[..., 2 * i + j, :, :]
    return [luma, canvas[..., 4, :, :], canvas[..., 5, :, :]]


@given(pictures())
@settings(deadline=None)
def test_a_canvas_unfolded_is_the_planes_padded_by_replication(case: tuple[Planes, Picture, tuple[int, int]]) -> None:
    planes, picture, size = case
    canvas = to_canvas(planes, picture.side, size)
    assert canvas.frames.dtype == torch.uint8
    assert tuple(canvas.frames.shape) == (len(planes[0]), picture.channels, *size)
    for found, plane in zip(unfolded(canvas.frames.numpy(), picture), planes, strict=True):
        rows = np.minimum(np.arange(found.shape[1]), plane.shape[1] - 1)
        columns = np.minimum(np.arange(found.shape[2]), plane.shape[2] - 1)
        assert np.array_equal(found, plane[:, rows][:, :, columns])


@given(pictures())
@settings(deadline=None)
def test_weights_sum_to_one_and_padded_samples_have_none(case: tuple[Planes, Picture, tuple[int, int]]) -> None:
    planes, picture, size = case
    weights = to_canvas(planes, picture.side, size).weights
    assert weights.dtype == torch.float32
    assert abs(float(weights.double().sum()) - 1) < 1e-4
    for found, plane in zip(unfolded(weights.numpy(), picture), planes, strict=True):
        _, height, width = plane.shape
        assert (found[:height, :width] > 0).all()
        assert not found[height:].any() and not found[:, width:].any()


@given(pictures(), st.integers(0, 2**32))
@settings(deadline=None)
def test_the_weighted_error_is_the_distortion_of_the_visible_samples(
    case: tuple[Planes, Picture, tuple[int, int]], seed: int
) -> None:
    """(6 Y + Cb + Cr) / 8 of the plane MSEs for 4:2:0, their mean for RGB; the decoder's padding may hold anything."""
    planes, picture, size = case
    canvas = to_canvas(planes, picture.side, size)
    decoded = np.random.default_rng(seed).integers(0, 256, canvas.frames.shape)
    errors = (torch.from_numpy(decoded).double() - canvas.frames.double()).square()
    found = (errors * canvas.weights.double()).sum((1, 2, 3)).numpy()
    shares = (6 / 8, 1 / 8, 1 / 8) if picture.side == 2 else (1 / 3, 1 / 3, 1 / 3)
    expected = np.zeros(len(planes[0]))
    for share, plane, made in zip(shares, planes, unfolded(decoded, picture), strict=True):
        _, height, width = plane.shape
        expected += share * ((plane.astype(float) - made[:, :height, :width].astype(float)) ** 2).mean(axis=(1, 2))
    assert np.allclose(found, expected, rtol=1e-5)


def test_moving_a_canvas_keeps_it() -> None:
    canvas = Canvas(torch.ones(1, 3, 2, 2, dtype=torch.uint8), torch.ones(3, 2, 2))
    moved = canvas.to(torch.device("cpu"))
    assert torch.equal(moved.frames, canvas.frames) and torch.equal(moved.weights, canvas.weights)


def test_frames_that_do_not_fit_stay_where_they_are_and_weights_go() -> None:
    canvas = Canvas(torch.ones(1, 3, 2, 2, dtype=torch.uint8), torch.ones(3, 2, 2))
    meta = torch.device("meta")
    moved = canvas.to(meta, resident=False)
    assert moved.frames is canvas.frames and moved.weights.device == meta
    assert canvas.to(meta).frames.device == meta
