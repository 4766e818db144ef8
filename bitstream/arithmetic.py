"""The arithmetic that operations share: the exact range, multiplier codes, the functions after requantisation (SPEC 8.1, 8.5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import tables

EXACT = 1 << 24  # float32 holds every integer up to here, so sums below it are exact in any order
ACTIVATION_LOW, ACTIVATION_HIGH = (
    -2048,
    2047,
)  # 11 significant bits: what TF32 and fp16 multiplicands still hold exactly
MANTISSA_BITS = 10
EXPONENT_BIAS = 40
MAX_CODE = (1 << 16) - 1

IDENTITY, LEAKY, HARD_SWISH, TABLE, SINE = range(5)
FUNCTIONS = {IDENTITY: "identity", LEAKY: "leaky", HARD_SWISH: "hard_swish", TABLE: "table", SINE: "sine"}
FUNCTION_ARGUMENTS = {
    IDENTITY: (0, 0),
    LEAKY: (1, 11),
    HARD_SWISH: (1, 11),
    TABLE: (tables.GELU, tables.EXP),
    SINE: (0, 0),
}


def multiplier_value(code: NDArray[np.int64]) -> NDArray[np.float32]:
    """m = (1024 + code mod 1024) * 2^(code div 1024 - 40), exact in binary32."""
    mantissa = (1 << MANTISSA_BITS) + (code & ((1 << MANTISSA_BITS) - 1))
    return np.ldexp(mantissa.astype(np.float32), (code >> MANTISSA_BITS).astype(np.int32) - EXPONENT_BIAS)


def multiplier_code(value: float) -> int:
    """The code whose multiplier is nearest to `value` > 0; ValueError outside 2^-30 .. 2^34."""
    if not 2.0**-30 <= value < 2.0**34:
        raise ValueError(f"no 16-bit multiplier is near {value:g}: 2^-30 <= m < 2^34")
    fraction, exponent = math.frexp(value)  # value = fraction * 2^exponent, 1/2 <= fraction < 1
    mantissa = round(fraction * (2 << MANTISSA_BITS))
    if mantissa == 2 << MANTISSA_BITS:
        mantissa, exponent = 1 << MANTISSA_BITS, exponent + 1
    code = ((exponent - MANTISSA_BITS - 1 + EXPONENT_BIAS) << MANTISSA_BITS) + mantissa - (1 << MANTISSA_BITS)
    return min(code, MAX_CODE)


def half_even(value: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """RNE(value / 2^shift) for shift >= 0, ties to even."""
    if shift == 0:
        return value
    floor = value >> shift
    rest = value - (floor << shift)
    half = 1 << (shift - 1)
    up = (rest > half) | ((rest == half) & ((floor & 1) == 1))
    return np.asarray(floor + up)


def apply_function(function: int, argument: int, y: NDArray[np.int64]) -> NDArray[np.int64]:
    """The activation function on clamped integers `y` (phases 0..4095 for SINE): SPEC 8.5."""
    if function == LEAKY:
        return np.asarray(np.where(y < 0, half_even(y, argument), y))
    if function == HARD_SWISH:
        c = 1 << argument
        return half_even(y * np.clip(y + c, 0, 2 * c), argument + 1)
    if function == TABLE:
        return np.take(tables.table(argument), y - ACTIVATION_LOW)
    if function == SINE:
        return np.take(tables.table(tables.SINE), y)
    return y
