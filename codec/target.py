"""The size that was asked for: from bpp, bit rate or bytes to a budget of bits for the numbers of each segment."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from nvc.bitstream.errors import TargetError, UsageError

from .metrics import IDENTICAL_DB

DEFAULT_BPP = 0.2
RAW_BPP = {"yuv420p": 12, "rgb24": 24}
LEAST_BITS = 1.2  # per weight: below, a network of this size is mostly zeros and a smaller one does better
# Per weight. From 2.5 to 4.5 the PSNR changes by 0.1 dB, so this is no sharp optimum (bench/results).
USUAL_BITS = 3.7
SHARE = 0.9  # of the bits goes to weights; embeddings of 128 values a frame take the rest
FRAMING_BYTES = 480  # of a usual file: the file of a tiny clip may be larger than its samples by so much
OPTIONS = {"bpp": "--bpp", "bitrate": "--bitrate", "size": "--size", "psnr": "--target-psnr"}
ROOM = 2.0  # the default leaves the smallest network so much more than it needs at least
AIM = 0.99  # of the bytes: a file may be a little smaller than it was asked to be, but should not be larger


@dataclass(frozen=True)
class Target:
    """At most one is set: bits per pixel, bits per second or bytes of the whole file, or its PSNR in dB (6:1:1, or of RGB)."""

    bpp: float | None = None
    bitrate: float | None = None
    size: float | None = None
    psnr: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            raise UsageError("target", f"{' and '.join(OPTIONS[name] for name in given)}: give one of them")
        for name, value in given.items():
            if not 0 < value < float("inf"):
                raise UsageError("target", f"{OPTIONS[name]} {value:g}: must be above 0")
        if self.psnr is not None and self.psnr >= IDENTICAL_DB:
            raise UsageError("target", f"--target-psnr {self.psnr:g}: must be under {IDENTICAL_DB:g} dB, which means no error")

    def total_bytes(self, pixels: int, seconds: Fraction | None, pix_fmt: str) -> float | None:
        """Bytes of the whole file for `pixels` luma samples in all; None if nothing was asked for."""
        total = self.size
        if self.bpp is not None:
            total = self.bpp * pixels / 8
        if self.bitrate is not None:
            if seconds is None:
                raise UsageError("target", "--bitrate: this clip has no duration; use --bpp or --size")
            total = self.bitrate * float(seconds) / 8
        if total is not None and total * 8 > RAW_BPP[pix_fmt] * pixels + 8 * FRAMING_BYTES:
            raise UsageError(
                "target",
                f"a target of {8 * total / pixels:.4g} bpp is over the {RAW_BPP[pix_fmt]} bpp of uncompressed {pix_fmt}",
            )
        return total


@dataclass(frozen=True)
class Budget:
    """Bytes of the file to aim at, and the weights and biases of the network of a segment that go with them."""

    total_bytes: float
    parameters: int

    def bits(self, overhead: float) -> float:
        """What weights, biases and latents of all segments may take in a file with `overhead` bytes of everything else."""
        return max(8 * (AIM * self.total_bytes - overhead), 1.0)


@dataclass(frozen=True)
class Smallest:
    """What no file of a clip can do without: weights of the smallest network, embedding values of a frame, and the `overhead`
    in bytes of everything that is neither.
    """

    weights: int
    values: int
    overhead: float

    def bytes(self, frames: int, segments: int) -> float:
        """The smallest file that makes sense."""
        return self.overhead + LEAST_BITS / 8 * (self.weights * segments + self.values * frames)


def plan_budget(total: float | None, pixels: int, frames: int, segments: int, smallest: Smallest) -> Budget:
    """Choose the size of the network for a file of `total` bytes (None: a sensible default). TargetError if not even the smallest
    one fits.
    """
    least = smallest.bytes(frames, segments)
    if total is None:
        total = max(DEFAULT_BPP * pixels / 8, smallest.overhead + ROOM * (least - smallest.overhead))
    if total < least:
        raise TargetError(
            "too_small",
            f"{total:.0f} bytes ({8 * total / pixels:.4g} bpp) is too small: the smallest network for this clip needs about "
            f"{least:.0f} bytes ({8 * least / pixels:.4g} bpp); use a larger target, more frames or fewer segments",
        )
    bits = Budget(total, 0).bits(smallest.overhead)
    return Budget(total, int(SHARE * bits / segments / USUAL_BITS))
