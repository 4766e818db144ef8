"""Finds the size of a file that reaches a PSNR, by fitting again and again: the secant method on PSNR over log size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

TOLERANCE = 0.2  # dB
ATTEMPTS = 4
DECIBELS = 3.0  # that a file of twice the size gains, until two fits have told; about what the curves in bench/results do
LEAST_DECIBELS, MOST_DECIBELS = 1.5, 6.0  # two fits of nearly one size tell nothing: their noise is 0.1 dB


@dataclass(frozen=True)
class Attempt:
    """A size that was asked for and the PSNR that came of it."""

    size: float
    psnr: float


def search(wanted: float, first: float, limits: tuple[float, float], fit: Callable[[float], float]) -> Attempt:
    """The attempt that came nearest to `wanted` dB; the search ends within TOLERANCE of it, or after ATTEMPTS fits.

    `first` is the size to begin with, `limits` the smallest and the largest; `fit` makes a file of a size and returns its PSNR.
    """
    done: list[Attempt] = []
    size = min(max(first, limits[0]), limits[1])
    while True:
        done.append(Attempt(size, fit(size)))
        best = min(done, key=lambda attempt: abs(attempt.psnr - wanted))
        if abs(best.psnr - wanted) <= TOLERANCE or len(done) == ATTEMPTS:
            return best
        size = min(max(best.size * 2 ** ((wanted - best.psnr) / _decibels(done, wanted)), limits[0]), limits[1])
        if any(math.isclose(size, attempt.size, rel_tol=1e-3) for attempt in done):
            return best  # at a limit


def _decibels(done: list[Attempt], wanted: float) -> float:
    """What doubling the size gains near `wanted`, from the two nearest attempts."""
    if len(done) < 2:
        return DECIBELS
    a, b = sorted(done, key=lambda attempt: abs(attempt.psnr - wanted))[:2]
    gain = (a.psnr - b.psnr) / math.log2(a.size / b.size)
    return min(max(gain, LEAST_DECIBELS), MOST_DECIBELS)
