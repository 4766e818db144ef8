"""Clips for the benches: a file, or a synthetic clip that is the same on every machine and needs no download.

The synthetic ones look at one still of dead leaves: discs of power-law radius that hide one another, which have the edges,
occlusions and spectrum of photographs (Lee, Mumford & Huang, IJCV 2001); each leaf is shaded and has a grain of its own.

- `synthetic:zoom` moves slowly into the still.
- `synthetic:pan` moves along it while three objects with a texture of their own cross the picture.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nvc.bitstream.header import Header
from nvc.codec.metrics import Planes
from nvc.codec.video import Clip, ReadOptions, read_clip

PREFIX = "synthetic:"
RATE = Fraction(25)
FRAMES = 64  # of a synthetic clip where no end is given
OVERSAMPLING = 2  # each sample is the mean of so many squared, so that edges move by less than a sample
LEAVES = 300
RADII = (0.03, 0.5)  # of the leaves, in picture heights
ZOOM = 1.004  # a frame: 29 % nearer after 64 frames
PAN = (0.006, 0.002)  # picture heights a frame, right and down
EXTENT = 1.8  # heights of the still in those of the picture: room to pan, beyond it the still is mirrored


def open_clip(name: str, scale: tuple[int, int] | None = None, frames: tuple[int, int | None] | None = None) -> Clip:
    """The clip `name`, a path or `synthetic:zoom` or `synthetic:pan`; `scale` is (width, height), needed for the latter.

    `frames` is a half-open range. ValueError for a synthetic clip of another name or without a size.
    """
    if not name.startswith(PREFIX):
        return read_clip(name, ReadOptions(frames=frames, scale=scale))
    kind = name.removeprefix(PREFIX)
    if kind not in SCENES or scale is None:
        raise ValueError(f"{name}: give a size, and one of {', '.join(PREFIX + known for known in SCENES)}")
    first, last = frames or (0, None)
    numbers = range(first, FRAMES if last is None else last)
    planes = _planes(SCENES[kind](scale, numbers))
    header = Header(width=scale[0], height=scale[1], pixel_format=0, frame_rate=RATE, frame_count=len(numbers))
    return Clip(header, planes, tuple(range(len(numbers))), ())


def size(text: str) -> tuple[int, int]:
    """The `scale` of a command line: WxH."""
    width, height = (int(side) for side in text.split("x"))
    return width, height


def span(text: str) -> tuple[int, int | None]:
    """The `frames` of a command line: A:B, where B may be left out."""
    first, last = text.split(":")
    return int(first), int(last) if last else None


def _zoom(size: tuple[int, int], numbers: range) -> Tensor:
    still = _still(size, seed=1)
    return torch.stack([_view(still, size, (0.0, 0.0), ZOOM**-t) for t in numbers])


def _pan(size: tuple[int, int], numbers: range) -> Tensor:
    still, other = _still(size, seed=2), _still(size, seed=3)
    y, x = _grid(size)
    out = []
    for t in numbers:
        frame = _view(still, size, (PAN[0] * t, PAN[1] * t), 1.0)
        for number, radius in enumerate((0.22, 0.15, 0.1)):
            phase = 0.04 * t * (1 + 0.3 * number) + 2.1 * number
            at = (0.6 * math.sin(phase), 0.28 * math.cos(1.3 * phase))
            inside = ((x - at[0]) ** 2 + (y - at[1]) ** 2 < radius**2).float()
            # the texture moves along with the object
            texture = _view(other, size, (0.5 * number - at[0], -at[1]), 1.0)
            frame = frame + inside * (texture - frame)
        out.append(frame)
    return torch.stack(out)


SCENES = {"zoom": _zoom, "pan": _pan}


def _grid(size: tuple[int, int], extent: float = 1.0) -> tuple[Tensor, Tensor]:
    """Rows (H, 1) and columns (1, W) of an oversampled picture of `extent` picture heights, from its centre."""
    width, height = (round(side * OVERSAMPLING * extent) for side in size)
    unit = size[1] * OVERSAMPLING
    rows, columns = (torch.arange(height) + 0.5 - height / 2) / unit, (torch.arange(width) + 0.5 - width / 2) / unit
    return rows[:, None], columns[None]


def _view(still: Tensor, size: tuple[int, int], at: tuple[float, float], scale: float) -> Tensor:
    """The still (3, H, W), seen from a centre moved by `at` heights (right, down) at `scale`; mirrored at its edges."""
    y, x = _grid(size)
    columns, rows = (x * scale + at[0]) * 2 / (EXTENT * size[0] / size[1]), (y * scale + at[1]) * 2 / EXTENT
    points = torch.stack(torch.broadcast_tensors(columns, rows), dim=-1)
    return functional.grid_sample(still[None], points[None], padding_mode="reflection", align_corners=False)[0]


def _still(size: tuple[int, int], seed: int) -> Tensor:
    """Dead leaves (3, H, W), Y Cb Cr in 0..255, oversampled and EXTENT times the picture."""
    y, x = (axis.numpy() for axis in _grid(size, EXTENT))
    aspect = size[0] / size[1]
    random = np.random.default_rng(seed)
    picture = np.zeros((3, y.shape[0], x.shape[1]), dtype=np.float32)
    low, high = RADII[0] ** -2.0, RADII[1] ** -2.0
    radii = (high + random.random(LEAVES) * (low - high)) ** -0.5  # density r^-3
    for radius in (2 * aspect * EXTENT, *radii):
        column, row = (random.random() - 0.5) * aspect * EXTENT, (random.random() - 0.5) * EXTENT
        colour = (random.uniform(45, 210), *(128 + 12 * random.standard_normal(2)))
        slope = random.normal(0, 40, 2)
        waves, phases = random.normal(0, 60, (3, 2)), random.uniform(0, 2 * math.pi, 3)
        amplitude = random.exponential(4)
        u, v = np.broadcast_arrays(x - column, y - row)
        inside = u**2 + v**2 < radius**2
        u, v = u[inside], v[inside]
        grain = sum(np.sin(a * u + b * v + phase) for (a, b), phase in zip(waves, phases, strict=True))
        picture[0][inside] = colour[0] + slope[0] * u + slope[1] * v + amplitude * grain
        picture[1][inside], picture[2][inside] = colour[1], colour[2]
    return torch.from_numpy(picture)


def _planes(frames: Tensor) -> Planes:
    """Oversampled (T, 3, H, W) to 4:2:0 planes, limited to 16..235."""
    luma = functional.avg_pool2d(frames[:, 0], OVERSAMPLING)
    chroma = functional.avg_pool2d(frames[:, 1:], 2 * OVERSAMPLING, ceil_mode=True)
    y, cb, cr = (_samples(plane) for plane in (luma, chroma[:, 0], chroma[:, 1]))
    return y, cb, cr


def _samples(plane: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(plane.round().clamp(16, 235).to(torch.uint8).numpy())
