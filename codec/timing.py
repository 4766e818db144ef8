"""From the time stamps of decoded frames to a time base and a frame rate, exactly; or to the finding that it varies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

DEFAULT_RATE = Fraction(25)  # what ffmpeg assumes where nothing says otherwise
_LARGEST_TERM = 2**31 - 1  # of a ratio: ffmpeg stores both terms as signed 32-bit integers


@dataclass(frozen=True)
class Timing:
    """When frames are shown: `pts[n] * time_base` seconds. `frame_rate` is None where the rate varies."""

    time_base: Fraction
    frame_rate: Fraction | None
    pts: tuple[int, ...]
    notes: tuple[str, ...] = ()


def timing(stamps: Sequence[int | None], time_base: Fraction, hint: Fraction | None) -> Timing:
    """Timing of frames with the container's `stamps` in ticks of `time_base`; `hint` is the rate that it declares.

    A constant rate gets the time base 1/rate, or a finer one where the first frame lies between two of its ticks.
    Containers with a coarse clock (Matroska: 1 ms) round n/rate to ticks; stamps that such rounding explains count as
    constant.
    """
    pts = [stamp for stamp in stamps if stamp is not None]
    rate = constant_rate(pts, time_base, hint)
    if len(pts) < len(stamps) or any(b <= a for a, b in pairwise(pts)):
        rate = hint or DEFAULT_RATE
        note = f"time stamps are missing or out of order: frames are taken at {float(rate):g} per second"
        return Timing(1 / rate, rate, tuple(range(len(stamps))), (note,))
    if rate is None:
        return Timing(time_base, None, tuple(pts))
    first = pts[0] * time_base
    if abs(first - round(first * rate) / rate) < time_base:
        start = round(first * rate)
        return Timing(1 / rate, rate, tuple(range(start, start + len(pts))))
    return _between_ticks(first, rate, len(pts))


def _between_ticks(first: Fraction, rate: Fraction, count: int) -> Timing:
    """Constant-rate timing whose first frame, at `first` seconds, is no multiple of the frame duration."""
    fine = Fraction(
        math.gcd(first.numerator * rate.numerator, rate.denominator * first.denominator),
        first.denominator * rate.numerator,
    )
    if max(fine.as_integer_ratio()) > _LARGEST_TERM:
        start = round(first * rate)
        note = f"the start was moved by {float(start / rate - first) * 1000:.3g} ms, to a whole number of frames"
        return Timing(1 / rate, rate, tuple(range(start, start + count)), (note,))
    start, step = int(first / fine), int(1 / (rate * fine))
    return Timing(fine, rate, tuple(range(start, start + step * count, step)))


def constant_rate(pts: Sequence[int], time_base: Fraction, hint: Fraction | None) -> Fraction | None:
    """The frame rate that explains all time stamps to within the rounding of one tick, or None."""
    if len(pts) < 2 or pts[-1] <= pts[0]:
        return hint or DEFAULT_RATE
    mean = Fraction(len(pts) - 1) / ((pts[-1] - pts[0]) * time_base)
    candidates = [hint, 1 / ((pts[1] - pts[0]) * time_base) if pts[1] > pts[0] else None]
    candidates += [Fraction(round(mean)), Fraction(round(mean * 1001 / 1000) * 1000, 1001)]
    for rate in candidates:
        if rate and max(rate.as_integer_ratio()) <= _LARGEST_TERM and _explains(rate, pts, time_base):
            return rate
    return None


def _explains(rate: Fraction, pts: Sequence[int], time_base: Fraction) -> bool:
    """Whether |pts[n] - pts[0] - n / (rate * time_base)| < 1 for all n, as it is when both ends are rounded alike.

    Where a frame lasts a whole number of ticks, nothing is rounded and this asks for equality.
    """
    num, den = (1 / (rate * time_base)).as_integer_ratio()
    return all(abs((stamp - pts[0]) * den - n * num) < den for n, stamp in enumerate(pts))
