"""The 2^24 proof: with a segment's numbers no sum can leave the integers that binary32 holds exactly (SPEC 8.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ref_errors import Refused
from .ref_operations import EXACT
from .ref_programs import SINE, Program, results

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """The interval of every channel of a value, both ends included; no end is beyond 2^24."""

    low: Integers
    high: Integers

    @property
    def magnitude(self) -> Integers:
        return np.maximum(np.abs(self.low), np.abs(self.high))


Proof = tuple[Interval, int]
"""The interval and the reach of an operation (SPEC 8.1)."""


def prove(program: Program, tensors: Sequence[Integers]) -> None:
    """B1 of SPEC 8.1 with the tensors of a segment, each in its shape (`invalid.bound`).

    As operands stay within 2^24 and tensors within their ranges, no number here reaches 2^63.
    """
    intervals: list[Interval] = []
    for number, ((code, *arguments), value) in enumerate(zip(program.rows, program.values, strict=False)):
        if code in PROOFS:
            interval, reach = PROOFS[code](tensors, intervals, *arguments)
        else:
            assert value.range is not None  # inputs in the range stated in 8.4
            interval, reach = _everywhere(value.shape[0], *value.range), 0
        if reach > EXACT:
            raise Refused("invalid.bound", f"operation {number} reaches {reach}")
        intervals.append(interval)


def _everywhere(channels: int, low: int, high: int) -> Interval:
    return Interval(np.full(channels, low, dtype=np.int64), np.full(channels, high, dtype=np.int64))


def _largest(*intervals: Interval) -> int:
    return max(int(interval.magnitude.max()) for interval in intervals)


def _prove_embedding(_: Sequence[Integers], __: list[Interval], p: int, c: int, h: int, w: int, offset: int, s: int) -> Proof:
    return _everywhere(c, -2048 * s, 2047 * s), 2048 * s


def _prove_convolution(
    tensors: Sequence[Integers], of: list[Interval], x: int, w: int, b: int, out: int, kh: int, kw: int, groups: int
) -> Proof:
    low, high = np.zeros(out, dtype=np.int64), np.zeros(out, dtype=np.int64)
    taps = len(of[x].low) // groups
    for o in range(out):
        first = o * groups // out * taps
        ends = [tensors[w][o] * end[first : first + taps, None, None] for end in (of[x].low, of[x].high)]
        bias = int(tensors[b][o])
        high[o] = max(bias, 0) + np.maximum(np.maximum(*ends), 0).sum()
        low[o] = -max(-bias, 0) + np.minimum(np.minimum(*ends), 0).sum()
    return Interval(low, high), _largest(Interval(low, high))


def _prove_combine(tensors: Sequence[Integers], of: list[Interval], a: int, b: int, gains: int) -> Proof:
    ka, kb = (int(gain) for gain in tensors[gains])
    left, right = _times(of[a], ka), _times(of[b], kb)
    both = Interval(left.low + right.low, left.high + right.high)
    return both, _largest(left, right, both)


def _times(interval: Interval, factor: int) -> Interval:
    ends = factor * interval.low, factor * interval.high
    return Interval(np.minimum(*ends), np.maximum(*ends))


def _prove_multiply(_: Sequence[Integers], of: list[Interval], a: int, b: int) -> Proof:
    products = [m * n for m in (of[a].low, of[a].high) for n in (of[b].low, of[b].high)]
    interval = Interval(np.min(products, axis=0), np.max(products, axis=0))
    return interval, _largest(interval)


def _prove_shuffle(_: Sequence[Integers], of: list[Interval], x: int, m: int, n: int) -> Proof:
    low, high = of[x].low.reshape(m * n, -1), of[x].high.reshape(m * n, -1)
    return Interval(low.min(axis=0), high.max(axis=0)), 0


def _prove_bilinear(_: Sequence[Integers], of: list[Interval], x: int, s: int) -> Proof:
    interval = _times(of[x], 4 * s * s)
    return interval, _largest(interval)


def _prove_haar(_: Sequence[Integers], of: list[Interval], x: int) -> Proof:
    total = of[x].magnitude.reshape(4, -1).sum(axis=0)
    return Interval(-total, total), int(total.max())


def _prove_requantise(
    tensors: Sequence[Integers], of: list[Interval], x: int, p: int, n: int, low: int, high: int, function: int, argument: int
) -> Proof:
    interval = _everywhere(len(of[x].low), *results(low, high, function, argument))
    if function != SINE:
        return interval, 0
    code = int(tensors[p].max())  # the largest code is the largest multiplier
    product = _largest(of[x]) * (1024 + code % 1024) << code // 1024
    return interval, -(-product >> 40)


def _prove_nearest(_: Sequence[Integers], of: list[Interval], x: int, *__: int) -> Proof:
    return of[x], 0


def _prove_concatenate(_: Sequence[Integers], of: list[Interval], a: int, b: int) -> Proof:
    return Interval(np.concatenate([of[a].low, of[b].low]), np.concatenate([of[a].high, of[b].high])), 0


def _prove_slice(_: Sequence[Integers], of: list[Interval], x: int, first: int, last: int) -> Proof:
    return Interval(of[x].low[first:last], of[x].high[first:last]), 0


PROOFS: dict[int, Callable[..., Proof]] = {
    1: _prove_embedding,
    10: _prove_convolution,
    11: _prove_combine,
    12: _prove_multiply,
    20: _prove_shuffle,
    21: _prove_nearest,
    22: _prove_bilinear,
    23: _prove_haar,
    30: _prove_requantise,
    40: _prove_concatenate,
    41: _prove_slice,
    42: _prove_nearest,  # a crop keeps the channels too
}
