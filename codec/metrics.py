"""The one definition of quality: integer MSE and PSNR per plane and frame, averaged over frames, and MS-SSIM where it is wanted.

For yuv420p the headline is YUV 6:1:1, the mean over frames of (6 PSNR_Y + PSNR_Cb + PSNR_Cr) / 8. The mean of per-frame
PSNRs and the PSNR of the mean MSE may differ by 1 dB; this is the former, as JVET and the papers of this field print
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
DeepPlane = NDArray[np.uint8] | NDArray[np.uint16]
Planes = tuple[Plane, Plane, Plane]

# The PSNR of identical planes, which is infinite, so that means stay finite. One sample wrong by one in an 8K frame is
# 123 dB: the cap also holds for such, for no viewer and no table tells 100 dB from more.
IDENTICAL_DB = 100.0


def plane_mse(a: DeepPlane, b: DeepPlane) -> float:
    """Mean squared error of two uint8 or two uint16 arrays of one shape, summed exactly in integers before the one division."""
    if a.shape != b.shape:
        raise ValueError(f"planes of different shapes: {a.shape} and {b.shape}")
    # int32 holds 255^2, but not 65535^2; int64 holds 255^2 times 2^47 samples, 65535^2 times 2^31.
    exact: type[np.signedinteger[Any]] = np.int32 if a.itemsize == 1 else np.int64
    difference = a.astype(exact) - b.astype(exact)
    return int(np.sum(difference * difference, dtype=np.int64)) / a.size


def psnr(mse: float, peak: int = 255) -> float:
    """Peak signal-to-noise ratio in dB for samples up to `peak`; at most IDENTICAL_DB, which is what identical planes get."""
    if mse <= 0:
        return IDENTICAL_DB
    return min(IDENTICAL_DB, 10 * math.log10(peak**2 / mse))


def ms_ssim(a: DeepPlane, b: DeepPlane, peak: int = 255) -> NDArray[np.float64]:
    """MS-SSIM per frame (T,) of two arrays (T, h, w) of samples up to `peak`, in double precision (ssim.ms_ssim); ValueError
    where a side is under 11 samples.
    """
    if a.shape != b.shape:
        raise ValueError(f"planes of different shapes: {a.shape} and {b.shape}")
    import torch  # what only needs PSNR does without it

    from . import ssim

    def samples(frame: DeepPlane) -> torch.Tensor:
        return torch.from_numpy(frame[None] * (255 / peak))

    return np.array([float(ssim.ms_ssim(samples(x), samples(y))) for x, y in zip(a, b, strict=True)])


@dataclass(frozen=True)
class Quality:
    """PSNR in dB per frame: arrays `y`, `cb`, `cr` for yuv420p; `rgb` for rgb24, from the MSE over the three planes.

    `similarity` holds MS-SSIM per frame: `y` for yuv420p; `rgb`, the mean of all planes, for rgb24. It is empty where nobody
    asked for it or a side is under 11 samples.
    """

    frames: dict[str, NDArray[np.float64]]
    similarity: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(cls, reference: Planes, decoded: Planes, *, rgb: bool, similarity: bool = False) -> Self:
        """Compare two clips, each three uint8 arrays (T, h, w); T must be at least 1. MS-SSIM takes far longer than PSNR."""
        if not 0 < len(reference[0]) == len(decoded[0]):
            raise ValueError(f"{len(reference[0])} and {len(decoded[0])} frames cannot be compared")
        pairs = list(zip(reference, decoded, strict=True))
        mse = np.array([[plane_mse(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs])  # (3, T)
        alike = _similarity(pairs, rgb) if similarity else {}
        if rgb:
            return cls({"rgb": np.array([psnr(value) for value in mse.mean(axis=0)])}, alike)
        return cls({name: np.array([psnr(v) for v in row]) for name, row in zip(("y", "cb", "cr"), mse, strict=True)}, alike)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The quality of clips that follow one another, all of one pixel format; at least one."""
        frames = {name: np.concatenate([part.frames[name] for part in parts]) for name in parts[0].frames}
        return cls(frames, {name: np.concatenate([part.similarity[name] for part in parts]) for name in parts[0].similarity})

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

    def similarity_as_dict(self) -> dict[str, float]:
        """Mean MS-SSIM over the frames, 6 decimals: `ms_ssim_y` or `ms_ssim_rgb`, or nothing."""
        return {f"ms_ssim_{name}": round(float(values.mean()), 6) for name, values in self.similarity.items()}


def _similarity(pairs: Sequence[tuple[Plane, Plane]], rgb: bool) -> dict[str, NDArray[np.float64]]:
    from .ssim import scales

    if not scales(*pairs[0][0].shape[1:]):
        return {}
    if rgb:
        return {"rgb": np.mean([ms_ssim(*pair) for pair in pairs], axis=0)}
    return {"y": ms_ssim(*pairs[0])}
