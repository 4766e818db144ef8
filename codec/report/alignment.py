"""Whether two videos show the same frames, in order and with one colour range; without that a figure of quality means nothing.

All looks at area means of luma, so that what a codec loses first, fine detail and noise, weighs little. Let M(t, k) be the
error of distorted frame t against reference frame t + k. A right pair has its least error at k = 0. A codec that lags,
freezes or shows only every n-th frame may be nearer to other frames, but not to one offset throughout with clearly more error
on both sides of it, which is what a shift does. Frames in a wrong order show other places better than the frames there do.

The thresholds lie beyond what was measured on 102 right pairs, encodes of 4 real clips of 64 frames at 160x90 and 320x180 by
x264, x265 (crf 15 to 51), SVT-AV1 (crf 15 to 63) and nvc (14 to 34 dB):

    statistic                                    right pairs        refused
    shift of all: error at k over that around k  0.99 at least      under 0.9
    stretch of 3 frames or more: the same        0.93 at least      under 0.7
    stretch of 2                                 0.86 at least      under 0.35
    order: error there over own and around it    0.95 at least      under 0.5
    order, far away                              0.7 at least       under 0.4
    neighbours: cosine of the two changes        -0.18 at least     under -0.5
    range: error left over own, coarse means     1.03 at least (*)  under 0.5, and
    range: error left over what it would change  0.79 at least (*)  under 0.75
    (*) 0.74, 0.77 and, of a 103rd pair, 0.36 of encodes that had failed, of 13 to 14 dB, which the second told: 36, 12 and 1.17

None was refused, nor was any made one that was frozen, held every n-th frame, faded, flickered, repeated its motion or had noise
of 10 levels. Of the same 102 made wrong in each way so many were refused; by so much did the others lower the PSNR of all frames:

    neighbours exchanged    81        0.04 dB       shifted by 1, 2     89, 91   0.6, 1.0 dB, at 29 dB or less
    far frames exchanged    97        0.14 dB       shifted by 5, 12    89, 95   3.0, 2.4 dB, at 29 dB or less
    reversed, shuffled      100, 100  0.07 dB       20 frames shifted   77       0.5 dB
    range narrowed, widened 98, 94    0.6, 1.4 dB   5, 2 frames         75, 60   0.2, 0.3 dB

Where the clip stands still nothing is seen, and nothing is lost. One frame that repeats another passes as a frozen one, and its
full error is counted. Nothing but tags and counts is checked of pictures of fewer than 256 samples. A codec whose every frame
trails by the same time, as a recursive filter does, is refused as shifted.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream.errors import ComparisonError

from ..metrics import DeepPlane

Floats = NDArray[np.float32]
Costs = NDArray[np.float64]

SIDE = 128  # of a thumbnail, at most
COARSE = 8  # of the means for what is compared across the whole clip and for the range; coding error is small in them
FEWEST = 256  # samples of a thumbnail: in fewer, noise alone makes any pattern
REACH = 8  # the largest |k|; a shift by more is found among the coarse means
NOTHING = 0.01  # mean squared error, 8-bit units, that counts as none: 68 dB
STILL = 0.25  # mean squared change of the reference, under which two frames are too alike to be called swapped
FRESH = 0.1  # least change of a distorted frame over that of the reference's; a frozen one tells nothing of its place
SHIFTED = 0.9
BEST = 0.36  # share of frames whose best offset is the shift; of an encode that holds each frame three times it is a third
BETTER = 0.7  # share of frames that the shift suits better than none; of the same encode it is two thirds
STRETCH = 0.7
SHORT_STRETCH = 0.35  # of two frames, which may be a flash that an encode smears
DISPLACED = 0.5
FAR_AWAY = 0.4  # stricter, for 64 means tell less
NEARER = 0.8  # than the best within REACH: motion that repeats is as good there
OPPOSED = -0.5
MAPPED = 0.5
LEFT_OVER = 0.75  # of what the other range would change: else the encode is so poor that its range cannot be told
FITTED = 1.5  # a colour range explains nearly as much as the best gain and offset; a faint or dim encode has others
DIM = 4.0  # mean squared error of the coarse means that a range must explain; rounding is 0.1
_LIMITED = (219 / 255, 16.0)  # full range to limited: gain and offset


@dataclass(frozen=True)
class Names:
    """How the two videos are called in messages."""

    reference: str
    distorted: str


class Alignment:
    """Takes two videos frame by frame and keeps under 1 KB of each pair; `check` then tells whether they belong together."""

    def __init__(self, names: Names, depth: int) -> None:
        """`depth`: bits a sample of the planes given to `add`."""
        self._names = names
        self._unit = np.float32(1 / (1 << (depth - 8)))
        self._references: deque[Floats] = deque(maxlen=REACH + 1)
        self._distorted: deque[Floats] = deque(maxlen=REACH + 1)
        self._costs: list[Costs] = []
        self._changes: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)]  # from the frame before: see _change
        self._coarse: list[tuple[Floats, Floats]] = []

    def add(self, reference: DeepPlane, distorted: DeepPlane) -> None:
        """The luma (of RGB: green) of the next frame of both, (h, w) of one shape and dtype."""
        r, d = thumbnail(reference) * self._unit, thumbnail(distorted) * self._unit
        self._coarse.append((_means(r), _means(d)))
        r, d = (r - r.mean()).reshape(-1), (d - d.mean()).reshape(-1)
        if self._references:
            self._changes.append(_change(r - self._references[-1], d - self._distorted[-1]))
        self._references.append(r)
        self._distorted.append(d)
        now = len(self._costs)
        self._costs.append(np.full(2 * REACH + 1, np.nan))
        for back in range(len(self._references)):
            self._costs[now][REACH - back] = _cost(d, self._references[-1 - back])
            self._costs[now - back][REACH + back] = _cost(self._distorted[-1 - back], r)

    def check(self, ranges: tuple[int, int]) -> None:
        """ComparisonError `range`, `shift` or `order` where the frames added do not belong together.

        `ranges` are the tags of reference and distorted video: 0 limited, 1 full, 2 unknown.
        """
        self._check_tags(ranges)
        if not self._references or self._references[-1].size < FEWEST:
            return
        reference, distorted = (np.array(side) for side in zip(*self._coarse, strict=True))
        self._check_range(reference, distorted)
        costs = np.array(self._costs) + NOTHING
        fresh = np.array([d >= FRESH * r for r, d, _ in self._changes])
        self._check_shift(costs)
        self._check_far(reference, distorted, fresh)
        self._check_order(costs, fresh)

    def _check_tags(self, ranges: tuple[int, int]) -> None:
        names, text = self._names, ("limited range (tv)", "full range (pc)")
        if set(ranges) == {0, 1}:
            tags = f"{names.reference} is tagged {text[ranges[0]]}, {names.distorted} {text[ranges[1]]}"
            raise ComparisonError("range", f"{tags}; if a tag is wrong, correct it")

    def _check_range(self, reference: Floats, distorted: Floats) -> None:
        names = self._names
        own = float(((distorted - reference) ** 2).mean())
        r, d = reference - reference.mean(), distorted - distorted.mean()
        gain = float((r * d).sum() / ((r * r).sum() or 1))
        fitted = float(((d - gain * r) ** 2).mean())
        scale, offset = _LIMITED
        for what, made in (
            ("expanded from limited to full", (reference - offset) / scale),
            ("compressed from full to limited", reference * scale + offset),
        ):
            error, change = (float(((made - other) ** 2).mean()) for other in (distorted, reference))
            if own > DIM and error < min(MAPPED * own, LEFT_OVER * change, FITTED * fitted + STILL):
                raise ComparisonError("range", f"{names.distorted}: its samples are those of {names.reference} {what} range")

    def _check_shift(self, costs: Costs) -> None:
        best = _best(costs)
        for shift in range(1 - REACH, REACH):
            there = costs[~np.isnan(costs[:, REACH + shift])]
            # One more, because such an encode that begins or ends in the middle of a third would pass two thirds.
            better = (there[:, REACH + shift] < there[:, REACH]).sum() / (len(there) + 1)
            often = (best == shift).mean() >= BEST and better >= BETTER
            if shift and often and _dip(costs, shift) < SHIFTED:
                raise self._shifted("all frames", shift)

    def _check_order(self, costs: Costs, fresh: NDArray[np.bool_]) -> None:
        """Frames that show another place of within REACH frames."""
        best = _best(costs)
        wrong = _displaced(costs, best, fresh) | self._swapped(costs) | _stretches(costs, best)
        if len(wrong) > 1:
            frames = np.array(sorted(wrong))
            raise self._misplaced(frames, best[frames])

    def _swapped(self, costs: Costs) -> set[int]:
        """Neighbours between which the distorted video changes back while the reference changes forth."""
        frames: set[int] = set()
        for t, (_, _, correlation) in enumerate(self._changes[1:]):
            first, second = costs[t, REACH + 1] / costs[t, REACH], costs[t + 1, REACH - 1] / costs[t + 1, REACH]
            if correlation < OPPOSED and max(first, second) < SHIFTED:
                frames |= {t, t + 1}
        return frames

    def _check_far(self, reference: Floats, distorted: Floats, fresh: NDArray[np.bool_]) -> None:
        """A clip reversed, shuffled, or shifted by more than REACH."""
        r = reference - reference.mean(1, keepdims=True)
        d = distorted - distorted.mean(1, keepdims=True)
        r /= np.sqrt((r * r).sum(1, keepdims=True) + NOTHING)
        square, size = (d * d).sum(1), d.shape[1]
        here = np.arange(len(d))
        own, near = (d * r).sum(1), np.zeros(len(d))
        for offset in range(-min(REACH, len(d) - 1), min(REACH, len(d) - 1) + 1):
            frames = here[max(0, -offset) : len(d) - max(0, offset)]
            near[frames] = np.maximum(near[frames], (d[frames] * r[frames + offset]).sum(1))
        at_own, at_near = ((square - np.maximum(alike, 0) ** 2).clip(0) / size + NOTHING for alike in (own, near))
        wrong, offsets = [], []
        for first in range(0, len(d), 512):  # the whole table of a long clip would take gigabytes
            rows = here[first : first + 512]
            costs = (square[rows, None] - np.maximum(d[rows] @ r.T, 0) ** 2).clip(0) / size + NOTHING
            limit = np.minimum(FAR_AWAY * np.minimum(at_own[rows, None], at_own), NEARER * at_near[rows, None])
            allowed = (costs < limit) & (np.abs(here - rows[:, None]) > REACH) & fresh[rows, None] & fresh
            found = allowed.any(1)
            wrong += rows[found].tolist()
            offsets += (np.where(allowed, costs, np.inf).argmin(1) - rows)[found].tolist()
        if len(wrong) > 1:
            raise self._misplaced(np.array(wrong), np.array(offsets))

    def _misplaced(self, frames: NDArray[np.int64], offsets: NDArray[np.int64]) -> ComparisonError:
        """Shifted where most of these frames have one offset, else disordered."""
        values, counts = np.unique(offsets, return_counts=True)
        shift = int(values[counts.argmax()])
        if shift and counts.max() > len(frames) / 2:
            those = frames[offsets == shift]
            return self._shifted(f"frames between {those[0]} and {those[-1]}", shift)
        return self._disordered(frames.tolist())

    def _shifted(self, which: str, shift: int) -> ComparisonError:
        late = "late" if shift < 0 else "early"
        text = f"{which} come {abs(shift)} too {late}, measured against {self._names.reference}"
        return ComparisonError("shift", f"{self._names.distorted}: {text}; frames are compared one by one, in order")

    def _disordered(self, frames: list[int]) -> ComparisonError:
        some = ", ".join(map(str, frames[:4])) + (", ..." if len(frames) > 4 else "")
        text = f"frames in another order than in {self._names.reference}: {len(frames)} of {len(self._costs)} ({some})"
        return ComparisonError("order", f"{self._names.distorted}: {text}")


def thumbnail(plane: DeepPlane) -> Floats:
    """Area means of equal blocks of a plane (h, w), at most SIDE by SIDE; what is left at the right and below is ignored."""
    (height, width), (rows, columns) = plane.shape, (-(-side // SIDE) for side in plane.shape)
    whole = plane[: height // rows * rows, : width // columns * columns]
    sums = whole.reshape(-1, rows, whole.shape[1]).sum(1, dtype=np.uint32)
    means: Floats = sums.reshape(len(sums), -1, columns).sum(2).astype(np.float32) / np.float32(rows * columns)
    return means


def _means(thumb: Floats) -> Floats:
    """At most COARSE x COARSE means of it, flat."""
    rows, columns = (max(1, side // COARSE) for side in thumb.shape)
    whole = thumb[: thumb.shape[0] // rows * rows, : thumb.shape[1] // columns * columns]
    means: Floats = whole.reshape(-1, rows, whole.shape[1] // columns, columns)[:COARSE, :, :COARSE].mean((1, 3)).reshape(-1)
    return means


def _cost(distorted: Floats, reference: Floats) -> float:
    """Mean squared error of a frame without its mean against another, after the gain (not below 0) that suits it best.

    So neither a fade that an encode follows badly nor an encode of little contrast looks like other frames.
    """
    along = max(0.0, float(distorted @ reference)) ** 2 / (float(reference @ reference) or 1.0)
    return max(0.0, float(distorted @ distorted) - along) / distorted.size


def _change(reference: Floats, distorted: Floats) -> tuple[float, float, float]:
    """Mean squares of two changes, and their cosine, -1 to 1; 0 where the first is next to nothing."""
    r, d = float(reference @ reference), float(distorted @ distorted)
    cosine = float(reference @ distorted) / math.sqrt(r * d) if r > STILL * reference.size and d else 0.0
    return r / reference.size, d / reference.size, cosine


def _best(costs: Costs) -> NDArray[np.int64]:
    """The offset of the least error of each frame; of equal ones the nearest to 0, so that a still clip has 0 throughout."""
    order = np.array(sorted(range(-REACH, REACH + 1), key=abs))
    return np.asarray(order[np.nanargmin(costs[:, order + REACH], axis=1)], np.int64)


def _dip(costs: Costs, shift: int) -> float:
    """The error at `shift` over the least of those at 0 and on both sides of it, in frames that have them all; 1 with too few."""
    columns = costs[:, [REACH + offset for offset in (shift, 0, shift - 1, shift + 1)]]
    columns = columns[~np.isnan(columns).any(1)]
    total = columns.sum(0)
    return float(total[0] / total[1:].min()) if len(columns) > 1 else 1.0


def _stretches(costs: Costs, best: NDArray[np.int64]) -> set[int]:
    """The frames of each run of two or more that have one best offset other than 0, clearly better than around it."""
    ends = [*(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
    runs = zip([0, *ends[:-1]], ends, strict=True)
    shifted = [(first, end) for first, end in runs if 0 < abs(best[first]) < REACH]
    return {
        frame
        for first, end in shifted
        if _dip(costs[first:end], int(best[first])) < (STRETCH if end - first > 2 else SHORT_STRETCH)
        for frame in range(first, end)
    }


def _displaced(costs: Costs, best: NDArray[np.int64], fresh: NDArray[np.bool_]) -> set[int]:
    """Frames that show the frame of another place clearly better than those around it and their own, and than that place does.

    At the edge of what was looked at the best may lie beyond, so such frames do not count.
    """
    here = np.arange(len(best))
    inside = here[(best != 0) & (np.abs(best) < REACH)]
    there, offset = inside + best[inside], best[inside] + REACH
    around = np.fmin(costs[inside, offset - 1], costs[inside, offset + 1])  # fmin passes over the NaN at an end of the clip
    least = costs[inside, offset]
    rivals = np.minimum(np.minimum(costs[inside, REACH], costs[there, REACH]), around)
    return {int(frame) for frame in inside[fresh[inside] & fresh[there] & (least < DISPLACED * rivals)]}
