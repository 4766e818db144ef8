"""Symbols out of a range-coded stream, and the tables that they are coded with: SPEC 5.3, 5.4 and 6, in integers."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from .ref_errors import Refused

Integers = NDArray[np.int64]
Cumulative = list[int]
"""A table of K frequencies as the K + 1 sums c[0] = 0 .. c[K] = 2^24 (SPEC 5.1)."""

WORD = 1 << 32
STATE = (1 << 64) - 1
TOTAL = 24  # bits of the sum of a table


# ---- 5.3, 5.4 range decoder


class Stream:
    """The decoder of SPEC 5.3; words beyond the end read as 0, which `end` finds out."""

    def __init__(self, payload: bytes) -> None:
        if len(payload) % 4:
            raise Refused("invalid.range_words", f"a stream of {len(payload)} bytes is not made of words of 4")  # R1
        self.words = np.frombuffer(payload, dtype="<u4").astype(np.uint32).data  # its items are Python integers
        self.low, self.range, self.next = 0, STATE, 2
        self.offset = self._word(0) * WORD + self._word(1)
        self.coded = False

    def _word(self, number: int) -> int:
        return self.words[number] if number < len(self.words) else 0

    def symbols(self, n: int, table: Cumulative) -> Integers:
        """The next n symbols, all of one table."""
        low, span, offset = self.low, self.range, self.offset
        symbols = array("q")
        for _ in range(n):
            scale = span >> TOTAL
            q = offset // scale
            if q >= 1 << TOTAL:
                raise Refused("invalid.range_data", "no symbol has this code")  # R2
            s = bisect_right(table, q) - 1
            symbols.append(s)
            start = scale * table[s]
            offset -= start
            low = (low + start) & STATE
            span = scale * (table[s + 1] - table[s])
            if span < WORD:
                offset = offset * WORD + self._word(self.next)
                low = (low << 32) & STATE
                span <<= 32
                self.next += 1
        self.low, self.range, self.offset, self.coded = low, span, offset, self.coded or n > 0
        return np.frombuffer(symbols, dtype=np.int64)

    def end(self) -> None:
        """R3: the stream is the one that an encoder writes for the symbols that were decoded."""
        end = ((self.low + self.range) & STATE) >> 32
        last = ((self.low + WORD - 1) & STATE) >> 32
        words = (self.next if end == last else self.next - 1) if self.coded else 0
        if len(self.words) != words or (self.coded and self.offset != (last * WORD - self.low) & STATE):
            raise Refused("invalid.range_end", f"{len(self.words)} words are not the stream of these symbols")

    def raw(self, n: int, width: int) -> Integers:
        """`raw(n, width)` of SPEC 5.4: n numbers of `width` bits in pieces of at most 8, the most significant first."""
        numbers = np.zeros(n, dtype=np.int64)
        while width > 0:
            piece = min(width, 8)
            numbers = numbers << piece | self.symbols(n, flat(1 << piece))
            width -= piece
        return numbers

    def bits(self, width: int) -> int:
        return int(self.raw(1, width)[0])

    def unsigned(self) -> int:
        z = self.bits(5)
        return self.bits(z) - 1 + (1 << z)

    def signed(self) -> int:
        magnitude = self.unsigned()
        return -magnitude if magnitude and self.bits(1) else magnitude


# ---- 6 probability tables


def table_from_counts(counts: Integers) -> Cumulative:
    """SPEC 6.1. As counts add up to at most 2^38, the products stay below 2^62."""
    total = int(counts.sum())
    if total == 0:
        counts, total = np.ones_like(counts), len(counts)
    frequencies = 1 + counts * ((1 << TOTAL) - len(counts)) // total
    frequencies[counts.argmax()] += (1 << TOTAL) - frequencies.sum()
    return [0, *accumulate(frequencies.tolist())]


@lru_cache(maxsize=256)
def flat(k: int) -> Cumulative:
    """SPEC 6.2."""
    return table_from_counts(np.ones(k, dtype=np.int64))


# fmt: off
NONZERO = (
    1440801, 5145013, 15004422, 36905875, 78665070, 148652826, 253857248, 398132550,
    581260615, 799036310, 1044178424, 1307656790, 1580030169, 1852521207, 2117713904, 2369882518,
    2605029347, 2820730047, 3015876649, 3190386796, 3344923893, 3480652712, 3599040369, 3701703250,
    3790295335, 3866431115, 3931635878, 3987316692, 4034748382, 4075069962, 4109287957, 4138284039,
    4162825044, 4183574096, 4201101925, 4215897841, 4228380000, 4238904802, 4247775344, 4255248918,
    4261543595, 4266843974, 4271306145, 4275061981, 4278222805, 4280882540, 4283120382, 4285003080,
    4286586875, 4287919135, 4289039749, 4289982295, 4290775039, 4291441769, 4292002499, 4292474072,
    4292870656, 4293204170, 4293484642, 4293720503, 4293918848, 4294085643, 4294225905, 4294343854,
)
# fmt: on


@lru_cache(maxsize=128)
def laplace(index: int, bound: int) -> tuple[int, Cumulative]:
    """The limit L of SPEC 6.3 and the table `laplace(index, bound)`; symbol 2 L + 1, where the table has it, is an escape."""
    tail = [NONZERO[index]]  # of 2^32, for each k the count of all values above k
    ratio = NONZERO[index] ** 2 >> 32
    while len(tail) == 1 or (len(tail) <= min(bound, 2047) and tail[-1] >= 1 << 20):
        tail.append(tail[-1] * ratio >> 32)
    limit = len(tail) - 1
    sides = [tail[k - 1] - tail[k] for k in range(1, limit + 1)]
    counts = [*reversed(sides), 2 * (WORD - tail[0]), *sides]
    if limit < bound:
        counts.append(2 * tail[limit])
    return limit, table_from_counts(np.array(counts, dtype=np.int64))


class Adaptive:
    """An adaptive table (SPEC 6.4): its counts, kept from one run of symbols to the next."""

    def __init__(self, start: Cumulative, mass: int) -> None:
        frequencies = np.diff(np.array(start, dtype=np.int64)).astype(np.int64)
        self.counts = np.maximum(frequencies * (32 * mass) >> TOTAL, 1)

    def symbols(self, stream: Stream, n: int) -> Integers:
        """The next n symbols; the positions that make the blocks count from 0."""
        symbols = np.zeros(n, dtype=np.int64)
        begin = 0
        while begin < n:
            end = min(begin + min(max(begin, 16), 2048), n)
            symbols[begin:end] = stream.symbols(end - begin, table_from_counts(self.counts))
            self.counts += 32 * np.bincount(symbols[begin:end], minlength=len(self.counts))
            if self.counts.sum() >= 1 << 20:
                self.counts = (self.counts + 1) >> 1
            begin = end
        return symbols
