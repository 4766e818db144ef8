"""Vectors of requantisation: ties, double roundings and every entry of every function (SPEC 8.5, 8.6)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..ref_operations import half_even
from ..suite import Vector
from .codings import EXACT
from .sheets import HARD_SWISH, HIGH, LEAKY, LOW, TABLE, Sheet, Work, numbers, power, single

TABLES = ("gelu", "tanh", "sigmoid", "exp")


def functions() -> Iterator[Vector]:
    """The vectors of SPEC 8.5 and 8.6."""
    yield from _requantisation()
    yield from _functions()


def _vector(slug: str, about: str, clauses: str, work: Work) -> Vector:
    return Vector(f"valid/{slug}", single(work), about, tuple(clauses.split()))


def rounding_cases(count: int = 32) -> tuple[list[int], list[int]]:
    """Accumulators and multiplier codes for which rounding the exact product once is wrong: it is beside a tie that RN32 hits.

    A product of 35 bits loses 11 in binary32, so that the factor nearest to a tie is near enough.
    """
    random = np.random.default_rng(40)
    tie = 2 * random.integers(0, HIGH, size=16 * count, dtype=np.int64) + 1  # in halves of the result
    shift = 35 - np.frexp(tie.astype(np.float64))[1].astype(np.int64)
    mantissa = random.integers(1024, 2048, size=tie.size, dtype=np.int64)
    acc = ((tie << shift) + mantissa // 2) // mantissa * random.choice((-1, 1), size=tie.size)
    product, shift = acc * mantissa, shift + 1
    twice = half_even(half_even(product, np.full_like(shift, 11)), shift - 11)
    wanted = (np.abs(product) >> 34 == 1) & (np.abs(acc) <= EXACT) & (twice != half_even(product, shift))
    found = np.flatnonzero(wanted)[:count]
    return acc[found].tolist(), ((40 - shift[found] << 10) + mantissa[found] - 1024).tolist()


def _requantisation() -> Iterator[Vector]:
    sheet = Sheet()
    ramp = sheet.ramp()
    odd = sheet.plus(ramp, -1)
    scales = [power(-exponent) for exponent in range(1, 9)]
    eight = sheet.concatenate(*[ramp] * 8), sheet.concatenate(*[odd] * 8)
    work = sheet.show(sheet.concatenate(*(sheet.requantise(x, scales) for x in eight)))
    about = "halves of both signs, by one multiplier for each channel"
    yield _vector("requantise-ties", about, "operation.requantise function.identity", work)

    sheet = Sheet()
    acc, codes = rounding_cases()
    work = sheet.show(sheet.requantise(sheet.sums(acc), codes))
    about = "products whose binary32 is a tie that the exact product is not"
    yield _vector("requantise-rounding", about, "operation.requantise kind.MULTIPLIER A1", work)

    sheet = Sheet()
    ends = (0, 1023, 1024, power(-14), power(-14) + 1023, power(0), power(0) + 1023, 65535)
    x = sheet.sums([sign * size for size in (EXACT, EXACT - 1, 16384, 1) for sign in (1, -1)] + [0])
    work = sheet.show(sheet.concatenate(*(sheet.requantise(x, code) for code in ends)))
    about = "the smallest and largest multipliers and mantissas"
    yield _vector("requantise-multipliers", about, "operation.requantise kind.MULTIPLIER", work)

    sheet = Sheet()
    ramp = sheet.ramp()
    ranges = ((0, 1), (-1, 1), (-2048, 1), (0, 2047), (-2048, 2047), (-5, 2000))
    work = sheet.show(sheet.concatenate(*(sheet.requantise(ramp, power(0), *pair) for pair in ranges)))
    yield _vector("requantise-clamps", "sums clamped behind the multiplication", "operation.requantise P2 P9", work)

    sheet = Sheet()
    x = sheet.constant(numbers(41, 2, 5, 5))
    again = sheet.requantise(sheet.requantise(x, power(-1)), power(1) + 511, -700, 900)
    work = sheet.show(sheet.concatenate(sheet.requantise(x, power(-3), -100, 100), again))
    yield _vector("requantise-activations", "activations scaled twice", "operation.requantise", work)


def _functions() -> Iterator[Vector]:
    sheet = Sheet()
    half = sheet.requantise(sheet.ramp(), power(-1))
    parts = [sheet.requantise(half, power(0), LOW, HIGH, LEAKY, a) for a in range(1, 12)]
    work = sheet.show(sheet.concatenate(*parts, sheet.requantise(half, power(0), -9, 9, LEAKY, 2)))
    yield _vector("leaky", "every activation at every slope, and behind a clamp", "function.leaky P9", work)

    sheet = Sheet()
    half = sheet.requantise(sheet.ramp(), power(-1))
    parts = [sheet.requantise(half, power(0), LOW, HIGH, HARD_SWISH, a) for a in range(1, 12)]
    work = sheet.show(sheet.concatenate(*parts, sheet.requantise(half, power(0), -9, 9, HARD_SWISH, 3)))
    yield _vector("hard-swish", "every activation at every width, and behind a clamp", "function.hard_swish P9", work)

    sheet = Sheet()
    ramp = sheet.ramp()
    parts = [sheet.requantise(ramp, power(-1), LOW, HIGH, TABLE, number) for number in range(len(TABLES))]
    parts += [sheet.requantise(ramp, power(-1), -100, 300, TABLE, number) for number in range(len(TABLES))]
    work = sheet.show(sheet.concatenate(*parts))
    tables = " ".join(f"table.{name}" for name in TABLES)
    yield _vector("tables", "every entry of the four tables, and those behind a clamp", f"function.table {tables} P9", work)

    sheet = Sheet()
    ramp = sheet.ramp()
    far, odd = sheet.combine(ramp, ramp, 2001, 1), sheet.plus(ramp, -3)
    work = sheet.show(sheet.concatenate(sheet.sine(ramp, power(-1)), sheet.sine(far), sheet.sine(odd, power(-1))))
    yield _vector("sine", "every entry, and sums of both signs far beyond one turn", "function.sine table.sine P9", work)

    sheet = Sheet()
    turns = (-EXACT, 1 - EXACT, -4097, -4096, -4095, -1, 0, 1, 4095, 4096, 4097, EXACT - 1)
    work = sheet.show(sheet.sine(sheet.sums(turns)))
    yield _vector("sine-turns", "whole turns and their neighbours, up to 2^24", "function.sine bound.requantise", work)
