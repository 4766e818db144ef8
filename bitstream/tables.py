"""The five function tables of the format, built from integers alone so that every machine has the same entries (SPEC 8.6).

A table has 4096 integer entries. Its numbers are fixed point with 96 fractional bits; the one rounding at the end is the only one
that shows, and `DIGESTS` pins the outcome.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .errors import MachineError

GELU, TANH, SIGMOID, EXP, SINE = range(5)
NAMES = {GELU: "gelu", TANH: "tanh", SIGMOID: "sigmoid", EXP: "exp", SINE: "sine"}

SIZE = 4096
FRACTION = 96  # the series for x = 4 loses 13 bits to cancellation; 80 are left, far more than any rounding gap needs
ONE = 1 << FRACTION
PI = 0x3243F6A8885A308D313198A2E  # floor(2^96 pi)
INVERSE_SQRT_2PI = 0x662114CF50D942343F2CF140  # floor(2^96 / sqrt(2 pi))


def _multiply(a: int, b: int) -> int:
    return (a * b) >> FRACTION


def _round(value: int, scale: int) -> int:
    """floor(value * scale / 2^96 + 1/2)."""
    return (2 * value * scale + ONE) >> (FRACTION + 1)


def _series(x: int, first: int, ratio: Callable[[int], tuple[int, int]]) -> int:
    """Sum of terms t_0 = first, t_n = t_{n-1} * x * p / q with (p, q) = ratio(n), until a term is 0 or -1."""
    total, term, n = 0, first, 0
    while term not in (0, -1):
        total += term
        n += 1
        p, q = ratio(n)
        term = _multiply(term, x) * p // q
    return total


def _exp(x: int) -> int:
    if x < 0:
        return ONE * ONE // _exp(-x)
    return _series(x, ONE, lambda n: (1, n))


def _sine(x: int) -> int:
    return _series(_multiply(x, x), x, lambda n: (-1, 2 * n * (2 * n + 1)))


def _gelu(x: int) -> int:
    """x * Phi(x), with Phi(x) = 1/2 + x / sqrt(2 pi) * sum (-x^2/2)^n / (n! (2n + 1))."""
    square = _multiply(x, x)
    tail = _series(square, ONE, lambda n: (-(2 * n - 1), 2 * n * (2 * n + 1)))
    return _multiply(x, (ONE >> 1) + _multiply(_multiply(x, INVERSE_SQRT_2PI), tail))


def _sigmoid(x: int) -> int:
    e = _exp(x)
    return (e << FRACTION) // (ONE + e)


def _tanh(x: int) -> int:
    e = _exp(2 * x)
    return ((e - ONE) << FRACTION) // (e + ONE)


# id: (function, fractional bits of the input, scale of the output). Inputs span +-4 (gelu, tanh), +-8 (sigmoid), +-2 (exp).
DEFINITIONS: dict[int, tuple[Callable[[int], int], int, int]] = {
    GELU: (_gelu, 9, 512),
    TANH: (_tanh, 9, 2047),
    SIGMOID: (_sigmoid, 8, 2047),
    EXP: (_exp, 10, 256),
}

DIGESTS = {
    GELU: "f9f180c993d3efd1e6bf504cb81019ca31ae8a08c8c0c1717c7486ac5b374413",
    TANH: "6fce6988010b121cfb0f423d8a44b16cfb00a7a8948d37c3ce5b0a8f42a34a0f",
    SIGMOID: "3d871722ab4b2b6e127d8591c84a8a9ce55a4776cefdbe6e855869a88507f919",
    EXP: "f043d220f14b53f83b9a95b956fe21a6cbb0ea1a3ac770285e1d316c6293902a",
    SINE: "63bbdbaf12cc55bbdede24ada949c336e1b6e0c1cb4b8c5beeab48aee07e9679",
}


def build(table: int) -> NDArray[np.int64]:
    """The 4096 entries: entry i is for input i - 2048, or for the sine for the phase 2 pi i / 4096."""
    if table == SINE:
        return np.array([_round(_sine(PI * 2 * i // SIZE), 2047) for i in range(SIZE)], dtype=np.int64)
    function, bits, scale = DEFINITIONS[table]
    return np.array(
        [_round(function((i - SIZE // 2) << (FRACTION - bits)), scale) for i in range(SIZE)], dtype=np.int64
    )


def digest(entries: NDArray[np.int64]) -> str:
    """SHA-256, in hexadecimal, of the entries as little-endian signed 16-bit integers."""
    return hashlib.sha256(entries.astype("<i2").tobytes()).hexdigest()


@cache
def table(number: int) -> NDArray[np.int64]:
    """The entries of table `number`, (4096,) int64, checked against SPEC 8.6."""
    entries = build(number)
    if digest(entries) != DIGESTS[number]:
        raise MachineError(
            "table", f"this machine computes the {NAMES[number]} table wrongly; its integer arithmetic is broken"
        )
    entries.setflags(write=False)
    return entries
