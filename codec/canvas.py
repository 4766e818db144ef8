"""Pictures as the network sees them: planes folded into one (T, C, H, W) uint8 canvas, padded by replication, with loss
weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

Scalar = TypeVar("Scalar", bound=np.generic)

LUMA_WEIGHT, CHROMA_WEIGHT = 6 / 8, 1 / 8  # D = (6 Y + Cb + Cr) / 8 of the plane MSEs


@dataclass(frozen=True)
class Canvas:
    """`frames` (T, C, H, W) uint8 and `weights` (C, H, W) float32: sum(weights * error^2) is the distortion of a frame.

    Padded samples weigh nothing.
    """

    frames: Tensor
    weights: Tensor

    def to(self, device: torch.device, *, resident: bool = True) -> Canvas:
        """The same on another device; unless `resident`, the frames stay where they are and the weights go alone."""
        return Canvas(self.frames.to(device) if resident else self.frames, self.weights.to(device))


def to_canvas(planes: Planes, side: int, size: tuple[int, int]) -> Canvas:
    """Fold planes (T, h, w) by `side` (geometry.Picture) and pad them by replication to the grid's `size`."""
    folded, weights = [], []
    for number, plane in enumerate(planes):
        factor = side if number == 0 else 1
        share = (LUMA_WEIGHT if number == 0 else CHROMA_WEIGHT) if side == 2 else 1 / 3
        folded.append(_phases(_pad(plane, (size[0] * factor, size[1] * factor)), factor))
        visible = np.zeros((1, size[0] * factor, size[1] * factor), dtype=np.float32)
        visible[:, : plane.shape[1], : plane.shape[2]] = share / (plane.shape[1] * plane.shape[2])
        weights.append(_phases(visible, factor)[0])
    return Canvas(torch.from_numpy(np.concatenate(folded, axis=1)), torch.from_numpy(np.concatenate(weights)))


def _pad(plane: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    _, height, width = plane.shape
    return np.pad(plane, ((0, 0), (0, size[0] - height), (0, size[1] - width)), mode="edge")


def _phases(plane: NDArray[Scalar], factor: int) -> NDArray[Scalar]:
    """Space to depth: (T, H f, W f) to (T, f f, H, W)."""
    t, h, w = plane.shape
    blocks = plane.reshape(t, h // factor, factor, w // factor, factor)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 1, 3)).reshape(t, factor * factor, h // factor, w // factor)
