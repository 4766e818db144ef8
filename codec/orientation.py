"""The eight EXIF orientations: what ffmpeg says and takes for each, and what a player does to show them upright."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """One way of lying. `angle` is the counter-clockwise rotation that ffmpeg reports for the display matrix, in
    degrees.

    A mirrored orientation reports the angle of another one, so the angle alone leaves two candidates.
    """

    angle: int
    turns: int  # quarter turns counter-clockwise ...
    mirror: bool  # ... after a left-right mirror
    args: tuple[str, ...]  # ffmpeg's input options that write it

    def upright(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The coded picture (h, w) as a player shows it, (h, w) or (w, h)."""
        return np.rot90(picture[:, ::-1] if self.mirror else picture, self.turns)


ORIENTATIONS = {
    1: Orientation(0, 0, False, ()),
    2: Orientation(180, 0, True, ("-display_rotation", "0", "-display_hflip")),
    3: Orientation(180, 2, False, ("-display_rotation", "180")),
    4: Orientation(0, 2, True, ("-display_rotation", "0", "-display_vflip")),
    5: Orientation(-90, 1, True, ("-display_rotation", "-90", "-display_hflip")),
    6: Orientation(-90, 3, False, ("-display_rotation", "-90")),
    7: Orientation(90, 3, True, ("-display_rotation", "90", "-display_hflip")),
    8: Orientation(90, 1, False, ("-display_rotation", "90")),
}


def candidates(angle: float) -> list[int]:
    """The orientations for which ffmpeg reports `angle`, the plain rotation first; empty for an angle between."""
    matching = [exif for exif, way in ORIENTATIONS.items() if abs((way.angle - angle + 180) % 360 - 180) < 0.5]
    return sorted(matching, key=lambda exif: ORIENTATIONS[exif].mirror)


def identify(angle: float, coded: NDArray[np.uint8], shown: NDArray[np.uint8]) -> int | None:
    """The orientation that turns the picture `coded` (h, w) into `shown`, as flat samples; None for an angle between.

    Where the picture itself is symmetric both candidates fit, and the plain rotation is taken.
    """
    best: tuple[int, int] | None = None
    for exif in candidates(angle):
        upright = ORIENTATIONS[exif].upright(coded).reshape(-1).astype(np.int32)
        difference = int(np.abs(upright - shown).sum(dtype=np.int64))
        if best is None or difference < best[0]:
            best = (difference, exif)
    return None if best is None else best[1]
