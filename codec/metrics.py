"""The one definition of quality: integer MSE and PSNR per plane and frame, averaged over frames.

For yuv420p the headline is YUV 6:1:1, the mean over frames of (6 PSNR_Y + PSNR_Cb + PSNR_Cr) / 8. The mean of per-frame
PSNRs and the PSNR of the mean MSE may differ by 1 dB; this is the former, as JVET and the papers of this field print
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Planes = tuple[Plane, Plane, Plane]

# The PSNR of identical planes, which is infinite, so that means stay finite. One sample wrong by one in an 8K frame is
# 123 dB: the cap also holds for such, for no viewer and no table tells 100 dB from more.
IDENTICAL_DB = 100.0
_PEAK_SQUARED = 255**2


def plane_mse(a: Plane, b: Plane) -> float:
    """Mean squared error of two uint8 arrays of one shape, summed exactly in integers before the one division."""
    if a.shape != b.shape:
        raise ValueError(f"planes of different shapes: {a.shape} and {b.shape}")
    difference = a.astype(np.int32) - b
    # int64 holds 255^2 times 2^47 samples.
    return int(np.sum(difference * difference, dtype=np.int64)) / a.size


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB for 8-bit samples; at most IDENTICAL_DB, which is what identical planes get."""
    if mse <= 0:
        return IDENTICAL_DB
    return min(IDENTICAL_DB, 10 * math.log10(_PEAK_SQUARED / mse))


@dataclass(frozen=True)
class Quality:
    """PSNR in dB per frame: arrays `y`, `cb`, `cr` for yuv420p; `rgb` for rgb24, from the MSE over the three planes."""

    frames: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, reference: Planes, decoded: Planes, *, rgb: bool) -> Self:
        """Compare two clips, each three uint8 arrays (T, h, w); T must be at least 1."""
        if not 0 < len(reference[0]) == len(decoded[0]):
            raise ValueError(f"{len(reference[0])} and {len(decoded[0])} frames cannot be compared")
        pairs = list(zip(reference, decoded, strict=True))
        mse = np.array([[plane_mse(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs])  # (3, T)
        if rgb:
            return cls({"rgb": np.array([psnr(value) for value in mse.mean(axis=0)])})
        return cls({name: np.array([psnr(v) for v in row]) for name, row in zip(("y", "cb", "cr"), mse, strict=True)})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The quality of clips that follow one another, all of one pixel format; at least one."""
        return cls({name: np.concatenate([part.frames[name] for part in parts]) for name in parts[0].frames})

    @property
    def headline(self) -> NDArray[np.float64]:
        """PSNR per frame, shape (T,): 6:1:1 for yuv420p, that of all samples for rgb24."""
        if "rgb" in self.frames:
            return self.frames["rgb"]
        return (6 * self.frames["y"] + self.frames["cb"] + self.frames["cr"]) / 8

    def as_dict(self) -> dict[str, float]:
        """Means over the frames in dB, 4 decimals: `y`, `cb`, `cr`, `yuv611`, or `rgb`."""
        means = {name: round(float(values.mean()), 4) for name, values in self.frames.items()}
        return means if "rgb" in means else {**means, "yuv611": round(float(self.headline.mean()), 4)}
