"""The size that was asked for: from bpp, bit rate or bytes to a budget of bits for the numbers of each segment."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from nvc.bitstream.errors import TargetError, UsageError

FIXED_BYTES = 480  # prologue, HEAD, program, metadata, index and footer of a usual file
SEGMENT_BYTES = 90  # headers of a segment, and the multipliers among its weights
FRAME_BYTES = 8  # its hash
DEFAULT_BPP = 0.2
RAW_BPP = {"yuv420p": 12, "rgb24": 24}
LEAST_BITS = 1.2  # per weight: below, a network of this size is mostly zeros and a smaller one does better
# Per weight. After 100 passes 4.1 was better than 5.6 and 2.7 by 0.4 dB and more; longer fits bear wider networks.
USUAL_BITS = 3.7
SHARE = 0.9  # of the bits goes to weights; embeddings of 128 values a frame take the rest
ROOM = 2.0  # the default leaves the smallest network so much more than it needs at least


@dataclass(frozen=True)
class Target:
    """At most one is set: bits per pixel, bits per second, or bytes of the whole file."""

    bpp: float | None = None
    bitrate: float | None = None
    size: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            raise UsageError("target", f"{' and '.join('--' + name for name in given)}: give one of them")
        for name, value in given.items():
            if not 0 < value < float("inf"):
                raise UsageError("target", f"--{name} {value:g}: must be above 0")

    def total_bytes(self, pixels: int, seconds: Fraction | None, pix_fmt: str) -> float | None:
        """Bytes of the whole file for `pixels` luma samples in all; None if nothing was asked for."""
        total = self.size
        if self.bpp is not None:
            total = self.bpp * pixels / 8
        if self.bitrate is not None:
            if seconds is None:
                raise UsageError("target", "--bitrate: this clip has no duration; use --bpp or --size")
            total = self.bitrate * float(seconds) / 8
        if total is not None and total * 8 > RAW_BPP[pix_fmt] * pixels + 8 * FIXED_BYTES:
            raise UsageError(
                "target",
                f"a target of {8 * total / pixels:.4g} bpp is over the {RAW_BPP[pix_fmt]} bpp of uncompressed {pix_fmt}",
            )
        return total


@dataclass(frozen=True)
class Budget:
    """What the numbers may take: `bits` of a segment with the mean number of frames, for `parameters` weights."""

    total_bytes: float
    bits_per_frame: float
    parameters: int


def overhead_bytes(frames: int, segments: int) -> int:
    """Bytes of everything that is neither weights nor embeddings nor tokens."""
    return FIXED_BYTES + SEGMENT_BYTES * segments + FRAME_BYTES * frames


def plan_budget(total: float | None, pixels: int, frames: int, segments: int, smallest: tuple[int, int]) -> Budget:
    """Split a file of `total` bytes (None: a sensible default) over segments.

    `smallest` are the weights of the smallest network and the embedding values of a frame. TargetError if not even that fits.
    """
    weights, values = smallest
    least = overhead_bytes(frames, segments) + LEAST_BITS / 8 * (weights * segments + values * frames)
    if total is None:
        total = max(
            DEFAULT_BPP * pixels / 8,
            overhead_bytes(frames, segments) + ROOM * (least - overhead_bytes(frames, segments)),
        )
    if total < least:
        raise TargetError(
            "too_small",
            f"{total:.0f} bytes ({8 * total / pixels:.4g} bpp) is too small: the smallest network for this clip needs about "
            f"{least:.0f} bytes ({8 * least / pixels:.4g} bpp); use a larger target, more frames or fewer segments",
        )
    bits = 8 * (total - overhead_bytes(frames, segments))
    return Budget(total, bits / frames, int(SHARE * bits / segments / USUAL_BITS))
