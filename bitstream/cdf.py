"""Integer probability tables: frequencies >= 1 that sum to 2^24, made without one floating-point operation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]

TOTAL_BITS: Final = 24
TOTAL: Final = 1 << TOTAL_BITS
MAX_ALPHABET: Final = 4097

# SPEC 6.3: round(2^32 * exp(-1 / (2 b))) for b = 2^((i - 16) / 4), the probability that a Laplace variable of scale b
# does not round to zero. In quarter octaves the nearest scale costs 0.002 bit per symbol more than the exact one on
# average, 0.006 at most; 64 of them reach from one value in 3000 that is not zero up to the whole 12-bit range.
NONZERO: Final = (
    1440801, 5145013, 15004422, 36905875, 78665070, 148652826, 253857248, 398132550,
    581260615, 799036310, 1044178424, 1307656790, 1580030169, 1852521207, 2117713904, 2369882518,
    2605029347, 2820730047, 3015876649, 3190386796, 3344923893, 3480652712, 3599040369, 3701703250,
    3790295335, 3866431115, 3931635878, 3987316692, 4034748382, 4075069962, 4109287957, 4138284039,
    4162825044, 4183574096, 4201101925, 4215897841, 4228380000, 4238904802, 4247775344, 4255248918,
    4261543595, 4266843974, 4271306145, 4275061981, 4278222805, 4280882540, 4283120382, 4285003080,
    4286586875, 4287919135, 4289039749, 4289982295, 4290775039, 4291441769, 4292002499, 4292474072,
    4292870656, 4293204170, 4293484642, 4293720503, 4293918848, 4294085643, 4294225905, 4294343854,
)  # fmt: skip
SCALES: Final = len(NONZERO)

# Values rarer than 2^-12 leave the alphabet: it stays short, and an outlier costs less than the 24 bits of a table
# entry that was rounded to nothing. Anything from 2^-8 to 2^-12 is within 0.1 %.
ESCAPE_BITS: Final = 12
MAX_LIMIT: Final = 2047

# Adaptive tables (SPEC 6.4): INCREMENT is the resolution of the prior, FORGET_AT / INCREMENT the memory in symbols.
INCREMENT: Final = 32
FORGET_AT: Final = 1 << 20
FIRST_BLOCK: Final = 16
MAX_BLOCK: Final = 2048


def from_counts(counts: NDArray[np.integer[Any]]) -> Table:
    """Spread 2^24 over K symbols in proportion to integer counts: 2 <= K <= 4097, 0 <= count, sum <= 2^38.

    Every symbol gets 1 and its share, rounded down, of the rest; what rounding leaves goes to the first of the most
    frequent symbols. Counts that are all zero give the flat table.
    """
    weights = counts.astype(np.int64)
    if not weights.any():
        weights += 1
    freqs: Table = weights * (TOTAL - len(weights)) // weights.sum() + 1
    freqs[weights.argmax()] += TOTAL - freqs.sum()
    return freqs


@lru_cache(maxsize=1024)
def flat(alphabet: int) -> Table:
    """The table of `alphabet` equally likely symbols, 2..4097; read-only. Exact for powers of two."""
    return _frozen(from_counts(np.ones(alphabet, np.int64)))


@lru_cache(maxsize=256)
def laplace_limit(scale: int, bound: int) -> int:
    """The largest magnitude in the alphabet of bank table `scale` (0..63), for |v| <= bound, bound >= 1."""
    return len(_tails(scale, bound)) - 1


@lru_cache(maxsize=256)
def laplace(scale: int, bound: int) -> Table:
    """The bank's table `scale` (0..63) for values of magnitude <= bound, bound >= 1; read-only.

    Symbol v + limit stands for -limit <= v <= limit, limit = laplace_limit(scale, bound); where limit < bound one more
    symbol follows, the escape.
    """
    tails = _tails(scale, bound)
    sides = [before - after for before, after in pairwise(tails)]
    weights = [*reversed(sides), 2 * ((1 << 32) - tails[0]), *sides]
    if len(sides) < bound:
        weights.append(2 * tails[-1])
    return _frozen(from_counts(np.array(weights, np.int64)))


def _tails(scale: int, bound: int) -> list[int]:
    """2^32 P(|v| > k) for k = 0 .. limit; the limit is the first k from 1 on that is rare enough, or the bound."""
    tails = [NONZERO[scale]]
    ratio = NONZERO[scale] ** 2 >> 32
    for _ in range(min(bound, MAX_LIMIT)):
        tails.append(tails[-1] * ratio >> 32)
        if tails[-1] >> (32 - ESCAPE_BITS) == 0:
            break
    return tails


def _frozen(freqs: Table) -> Table:
    freqs.flags.writeable = False
    return freqs


class AdaptiveTable:
    """A table that follows what has been coded: both sides update it with the same symbols at the same positions."""

    def __init__(self, prior: Table, mass: int) -> None:
        """Start from table `prior` worth `mass` >= 1 symbols, at least 1 / INCREMENT for each symbol."""
        self._counts = np.maximum(prior * (mass * INCREMENT) >> TOTAL_BITS, 1)

    @property
    def freqs(self) -> Table:
        """The table to code the next block with."""
        return from_counts(self._counts)

    def update(self, symbols: NDArray[np.int32]) -> None:
        """Count one block of symbols; halve all counts, rounding up, when they pass FORGET_AT."""
        self._counts += INCREMENT * np.bincount(symbols, minlength=len(self._counts))
        if self._counts.sum() >= FORGET_AT:
            self._counts = (self._counts + 1) >> 1


def blocks(count: int) -> Iterator[slice]:
    """The blocks of 16, 16, 32, 64, ... 2048, 2048, ... symbols after each of which an adaptive table is made anew."""
    start = 0
    while start < count:
        stop = start + min(max(start, FIRST_BLOCK), MAX_BLOCK)
        yield slice(start, min(stop, count))
        start = stop
