"""What a damaged file still shows: its good frames, with or without stand-ins for the lost ones, and an account (SPEC 4.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby

import numpy as np

from nvc.bitstream.errors import NvcError
from nvc.bitstream.header import Header
from nvc.bitstream.salvage import Gap, Good
from nvc.bitstream.segment import Segment

from .decode import TIMED_FRAMES, Batch, Clock, Decoder, Numbers, wrong_frame
from .metrics import Planes
from .timing import DEFAULT_RATE

Stamp = Callable[[int], int]  # from the number of a frame to its time stamp


@dataclass(frozen=True)
class _Lost:
    """Lost frames first .. last - 1 of the wanted ones; made only when needed, for there may be millions."""

    first: int
    last: int
    stamp: Stamp


class Salvager:
    """Gives what is left of the frames of a damaged file, and tells what is not.

    With `hold` every lost frame is stood in for by the last good frame before it, or the first good one where there is none
    before. As `frames` goes on, `lost` gets one entry for each run of lost frames with one code, `harmless` one for each
    error that cost no frame, and `held` counts the stand-ins.
    """

    def __init__(self, decoder: Decoder, hold: bool) -> None:
        self._decoder, self._hold = decoder, hold
        self._found = False  # whether there is a good segment
        self.lost: list[Gap] = []
        self.harmless: list[Gap] = []
        self.held = 0

    @property
    def partial(self) -> bool:
        """Whether frames are lost, or may be, for all that the file tells; known when `frames` has ended."""
        return bool(self.lost) or any(gap.open for gap in self.harmless)

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[Batch]:
        """Batches in order of those of the frames first .. last - 1 (all by default) that are good, or held.

        Frames outside of that range are none of the account. Where none in it is good, the error of the first gap in it.
        """
        waiting: list[_Lost] = []  # in front of the first good frame
        good: Planes | None = None
        for found in self._search(first, TIMED_FRAMES if last is None else last):
            if isinstance(found, Batch):
                for run in waiting:
                    yield from self._repeat(_frame(found.planes, 0), run)
                waiting.clear()
                good = _frame(found.planes, -1)
                yield found
            elif self._hold:
                if good is None:
                    waiting.append(found)
                else:
                    yield from self._repeat(good, found)
        if good is None and (error := self._refusal()) is not None:
            raise error

    def _refusal(self) -> NvcError | None:
        """Why there is no good frame; None where the file just has none of these numbers."""
        if self.lost:
            return self.lost[0].error
        return self.harmless[0].error if self.harmless and not self._found else None

    def _repeat(self, frame: Planes, run: _Lost) -> Iterator[Batch]:
        """Stand-ins for lost frames, all in the memory of one."""
        for start in range(run.first, run.last, self._decoder.batch):
            numbers = range(start, min(start + self._decoder.batch, run.last))
            y, u, v = (np.broadcast_to(plane, (len(numbers), *plane.shape)) for plane in frame)
            self.held += len(numbers)
            yield Batch(start, (y, u, v), tuple(map(run.stamp, numbers)))

    def _search(self, first: int, last: int) -> Iterator[Batch | _Lost]:
        """Every one of the frames first .. last - 1, as far as the file tells of them, in order: good or lost."""
        line, gap = Timeline(self._decoder.header), None
        for item in self._decoder.reader.salvage(self._decoder.numbers):
            if isinstance(item, Gap):
                gap = item if item.frames else None
                self.harmless += [] if item.frames else [item]
                continue
            self._found = True
            if gap is not None:
                yield from self._gap(gap, line.gap(gap, item.segment), first, last)
                gap = None
            yield from self._segment(item, line.segment(item.segment), first, last)
            if item.segment.first_frame + item.segment.frames >= last:
                return
            del item  # the numbers of the next segment need the room
        if gap is not None:
            yield from self._gap(gap, line.gap(gap, None), first, last)

    def _gap(self, gap: Gap, stamp: Stamp, first: int, last: int) -> Iterator[_Lost]:
        """The part of a gap that is in the range."""
        low, high = max(gap.first, first), min(gap.first + gap.frames, last)
        if low < high:
            yield self._lose(replace(gap, first=low, frames=high - low), stamp)

    def _segment(self, good: Good[Numbers], stamp: Stamp, first: int, last: int) -> Iterator[Batch | _Lost]:
        """The frames of a good segment that are in the range, those that have their hashes apart from those that have not."""
        base = good.segment.first_frame
        low, high = max(first - base, 0), min(last - base, good.segment.frames)
        if low >= high:
            return
        with closing(self._decoder.render(good.segment, good.numbers, low, high)) as batches:
            for start, planes, right in batches:
                for is_right, run in groupby(range(len(right)), right.__getitem__):
                    part = list(run)
                    frame, (y, u, v) = base + start + part[0], (plane[part[0] : part[-1] + 1] for plane in planes)
                    if is_right:
                        yield Batch(frame, (y, u, v), tuple(map(stamp, range(frame, frame + len(part)))))
                    else:
                        yield self._lose(Gap(frame, len(part), wrong_frame(frame), good.offset), stamp)

    def _lose(self, gap: Gap, stamp: Stamp) -> _Lost:
        """Enters lost frames into the account, with those before them if the code is the same."""
        before = self.lost[-1] if self.lost else None
        if before and before.first + before.frames == gap.first and before.error.code == gap.error.code:
            self.lost[-1] = replace(before, frames=before.frames + gap.frames)
        else:
            self.lost.append(gap)
        return _Lost(gap.first, gap.first + gap.frames, stamp)


class Timeline:
    """Time stamps across gaps: in files of variable rate the time that a gap took is guessed, as SPEC 4.7 says."""

    def __init__(self, header: Header) -> None:
        self._clock = Clock(header)
        self._interval: Fraction | None = None  # the mean in the segment in front

    def segment(self, segment: Segment) -> Stamp:
        """The time stamps of the next good segment."""
        if segment.times is None:
            return self._clock.at
        stamps, first = self._clock.stamps(segment), segment.first_frame
        self._interval = _mean_interval(segment)
        return lambda frame: stamps[frame - first]

    def gap(self, gap: Gap, behind: Segment | None) -> Stamp:
        """The time stamps of lost frames, which a segment follows or none; its own then go on from there."""
        header = self._clock.header
        if header.frame_rate is not None:
            return self._clock.at
        interval = self._interval
        if interval is None and behind is not None:
            interval = _mean_interval(behind)
        if interval is None:  # frame 0 alone is left in front of the gap, and nothing behind
            interval = max(Fraction(1), 1 / (DEFAULT_RATE * header.time_base))
        # Frame 0 is at first_pts, any other lost one an interval behind the frame in front.
        start, origin = self._clock.now, gap.first - 1 if gap.first else 0
        if behind is not None and behind.times:
            self._clock.now = start + int((behind.first_frame - 1 - origin) * interval)
        return lambda frame: start + int((frame - origin) * interval)


def _mean_interval(segment: Segment) -> Fraction | None:
    """Mean ticks from frame to frame; None where the segment is just frame 0 of the file, which has no frame before it."""
    times = (segment.times or ())[0 if segment.first_frame else 1 :]
    return Fraction(sum(times), len(times)) if times else None


def _frame(planes: Planes, number: int) -> Planes:
    """A copy of one frame of a batch, so that the others can go: three planes (H, W)."""
    y, u, v = (plane[number].copy() for plane in planes)
    return y, u, v
