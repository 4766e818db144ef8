"""The search for a PSNR: near enough within a few fits on any plausible curve, and the best of them where there is none."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from nvc.codec.search import ATTEMPTS, TOLERANCE, Attempt, search

LIMITS = (1.0, 1e9)
Curve = Callable[[float], float]


class Fits:
    """A curve that remembers the sizes it was asked for."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self.sizes: list[float] = []

    def __call__(self, size: float) -> float:
        self.sizes.append(size)
        return self.curve(size)


def curve(gain: float, noise: float, seed: int, at: float = 10_000.0) -> Curve:
    """30 dB at a size of `at` and `gain` dB more with every doubling, but for noise that is always the same at one size."""
    return lambda size: 30 + gain * math.log2(size / at) + random.Random(f"{seed} {size}").uniform(-noise, noise)


GAINS, SEEDS = st.floats(1.5, 6), st.integers(0, 1000)


@given(GAINS, st.floats(0, 0.05), SEEDS, st.floats(-6, 6))
def test_the_search_ends_within_the_tolerance_on_noisy_curves(gain: float, noise: float, seed: int, off: float) -> None:
    fits = Fits(curve(gain, noise, seed))
    found = search(30 + off, 10_000, LIMITS, fits)
    assert abs(found.psnr - 30 - off) <= TOLERANCE
    assert found.psnr == fits.curve(found.size)
    assert len(fits.sizes) <= ATTEMPTS


@given(GAINS, SEEDS, st.floats(10, 60), st.floats(100, 1e6), st.floats(100, 10_000), st.floats(1, 1000))
def test_no_fit_is_outside_the_limits_or_of_a_size_that_was_tried(
    gain: float, seed: int, wanted: float, first: float, least: float, span: float
) -> None:
    fits = Fits(curve(gain, 0.05, seed))
    search(wanted, first, (least, least * span), fits)
    assert all(least <= size <= least * span for size in fits.sizes)
    assert len(set(fits.sizes)) == len(fits.sizes) <= ATTEMPTS


@given(GAINS, st.booleans())
def test_what_the_limits_forbid_is_approached_as_far_as_they_let(gain: float, above: bool) -> None:
    limits = (8_000.0, 12_000.0)
    fits = Fits(curve(gain, 0, 0))
    found = search(50 if above else 10, 10_000, limits, fits)
    assert found == Attempt(limits[above], fits.curve(limits[above]))
    assert fits.sizes == [10_000, limits[above]]


@given(st.lists(st.floats(0, 60), min_size=ATTEMPTS, max_size=ATTEMPTS), st.floats(0, 60))
def test_of_fits_without_any_rule_the_nearest_is_taken(psnrs: list[float], wanted: float) -> None:
    left = iter(psnrs)
    fits = Fits(lambda _: next(left))
    found = search(wanted, 10_000, LIMITS, fits)
    seen = psnrs[: len(fits.sizes)]
    assert abs(found.psnr - wanted) == min(abs(psnr - wanted) for psnr in seen)
    assert found.psnr == psnrs[fits.sizes.index(found.size)]
    assert all(abs(psnr - wanted) > TOLERANCE for psnr in seen[:-1])  # the first that is near enough is the last


def test_fits_without_any_rule_come_to_an_end() -> None:
    psnrs = iter([28.0, 33.0, 30.5, 32.0, 31.5, 30.6, 31.4])
    fits = Fits(lambda _: next(psnrs))
    assert search(31, 10_000, LIMITS, fits).psnr == 30.5
    assert len(fits.sizes) == ATTEMPTS


def test_a_first_fit_that_is_near_enough_is_the_only_one() -> None:
    fits = Fits(curve(3, 0, 0))
    assert search(30 + 0.9 * TOLERANCE, 10_000, LIMITS, fits).size == 10_000
    assert fits.sizes == [10_000]


def test_more_decibels_need_more_bytes() -> None:
    for off in (-3, 3):
        fits = Fits(curve(3, 0, 0))
        search(30 + off, 10_000, LIMITS, fits)
        assert (fits.sizes[1] > fits.sizes[0]) == (off > 0)
