"""What a fit minimises besides the bits: the distance of the frames that a network makes from those it should make.

`psnr` is the weighted squared error, in squared samples. `ssim` is the loss of NeRV (Chen et al., NeurIPS 2021) and VQ-NeRV,
0.7 L1 + 0.3 (1 - MS-SSIM) of samples 0..1, times 255, so that both are in samples 0..255 and gradients do not sink to the
epsilon of Adam. lambda is relative to whichever it is (steer.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .canvas import Canvas
from .ssim import PEAK, ms_ssim, scales

L1_SHARE = 0.7


class Distortion(Protocol):
    """The distance of frames, built for the canvas that they are compared with."""

    def __call__(self, made: Tensor, wanted: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Compare rows `first` to `last` - 1 of some frames, (N, C, last - first, W) float32 of samples 0..255.

        Two scalars, means over the frames: the loss, and the 6:1:1 squared error (canvas.py) without a gradient, of which PSNR is
        made. A band of rows counts as if all others were like it.
        """


class SquaredError:
    """sum(weights * error^2)."""

    def __init__(self, canvas: Canvas) -> None:
        self.weights = canvas.weights

    def __call__(self, made: Tensor, wanted: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Distortion."""
        loss = _weighted((made - wanted).square(), self.weights, first, last)
        return loss, loss.detach()


@dataclass(frozen=True)
class _Planes:
    """Planes of one size in a canvas: `channels` of it, folded by `side`, their visible `size`, and what they weigh together."""

    channels: slice
    side: int
    size: tuple[int, int]
    share: float

    @classmethod
    def of(cls, canvas: Canvas, channels: slice, side: int) -> _Planes:
        weights = canvas.weights[None, channels]
        seen = F.pixel_shuffle(weights, side)[0, 0] > 0
        return cls(channels, side, (int(seen[:, 0].sum()), int(seen[0].sum())), float(weights.double().sum()))

    def cut(self, rows: Tensor, first: int) -> Tensor:
        """The visible samples (planes, h, w) of canvas rows (N, C, h, W) from `first`; h may be 0."""
        height = max(self.size[0] - first * self.side, 0)
        return F.pixel_shuffle(rows[:, self.channels], self.side)[..., :height, : self.size[1]].flatten(0, 1)


class StructuralError:
    """255 (0.7 L1 + 0.3 (1 - MS-SSIM)), both 6:1:1 for 4:2:0 and the mean of the planes for RGB, of visible samples alone.

    A plane has as many scales as fit (ssim.ms_ssim); one with a side under 11, in the picture or in the band, has no MS-SSIM, and
    nothing but its L1 counts. Luma is compared at its full size, not phase by phase.
    """

    def __init__(self, canvas: Canvas) -> None:
        self.weights = canvas.weights
        folded = canvas.weights.shape[0] == 6  # a 4:2:0 canvas has four luma phases
        kinds = [(slice(0, 4), 2), (slice(4, 6), 1)] if folded else [(slice(0, 3), 1)]
        self.planes = [_Planes.of(canvas, channels, side) for channels, side in kinds]

    def __call__(self, made: Tensor, wanted: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Distortion."""
        error = made - wanted
        loss = L1_SHARE * _weighted(error.abs(), self.weights, first, last)
        for planes in self.planes:
            a, b = planes.cut(made, first), planes.cut(wanted, first)
            if scales(*a.shape[-2:]):
                loss = loss + (1 - L1_SHARE) * PEAK * planes.share * (1 - ms_ssim(a, b).mean())
        with torch.no_grad():
            return loss, _weighted(error.square(), self.weights, first, last)


def _weighted(distances: Tensor, weights: Tensor, first: int, last: int) -> Tensor:
    """The weighted sum of distances (N, C, last - first, W), for a whole frame."""
    return (distances.sum(0) * weights[:, first:last]).sum() * (weights.shape[1] / ((last - first) * len(distances)))


DISTORTIONS: dict[str, Callable[[Canvas], Distortion]] = {"psnr": SquaredError, "ssim": StructuralError}
