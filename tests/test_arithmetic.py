"""Multiplier codes, rounding and functions against Python's own integers and fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream import arithmetic
from nvc.conformance import ref_operations

CODES = np.arange(1 << 16)
RANGE = range(-2048, 2048)


def exact_value(code: int) -> Fraction:
    """SPEC 8.5 in fractions."""
    return Fraction(1024 + code % 1024) * Fraction(2) ** (code // 1024 - 40)


def test_all_codes_have_the_value_of_the_text_and_come_back() -> None:
    values = arithmetic.multiplier_value(CODES)
    assert values.dtype == np.float32
    assert [Fraction(float(value)) for value in values] == [exact_value(int(code)) for code in CODES]
    assert [arithmetic.multiplier_code(float(value)) for value in values] == CODES.tolist()
    assert (np.diff(values) > 0).all()


@given(st.floats(2.0**-30, 2.0**34, exclude_max=True) | st.floats(0.001, 10.0))
@settings(deadline=None, max_examples=200)
def test_the_code_of_a_number_is_the_nearest_and_of_two_the_even_one(value: float) -> None:
    code = arithmetic.multiplier_code(value)
    distance = abs(exact_value(code) - Fraction(value))
    for other in {max(code - 1, 0), min(code + 1, arithmetic.MAX_CODE)} - {code}:
        beyond = abs(exact_value(other) - Fraction(value))
        assert distance < beyond or (distance == beyond and code % 2 == 0)


def test_halves_between_codes_go_to_the_even_one() -> None:
    for code in range(0, 40000, 37):
        middle = (exact_value(code) + exact_value(code + 1)) / 2
        assert arithmetic.multiplier_code(float(middle)) == code + code % 2


@pytest.mark.parametrize("value", [0.0, -1.0, 2.0**-31, 2.0**34, float("inf"), float("nan")])
def test_numbers_without_a_code_are_refused(value: float) -> None:
    with pytest.raises(ValueError):
        arithmetic.multiplier_code(value)


@given(st.lists(st.integers(-(1 << 40), 1 << 40), min_size=1), st.integers(0, 30))
@settings(deadline=None)
def test_half_even_is_the_rounding_of_fractions(values: list[int], shift: int) -> None:
    found = arithmetic.half_even(np.array(values, dtype=np.int64), shift)
    assert found.tolist() == [round(Fraction(value, 1 << shift)) for value in values]


@pytest.mark.parametrize("shift", range(1, 5))
def test_half_even_goes_to_the_even_neighbour_on_both_sides_of_zero(shift: int) -> None:
    halves = np.arange(-9, 10, 2) << (shift - 1)
    assert arithmetic.half_even(halves, shift).tolist() == [-4, -4, -2, -2, 0, 0, 2, 2, 4, 4]


def twin(function: int, argument: int, y: int) -> int:
    """The table of SPEC 8.5, a number at a time."""
    if function == 1:
        return y if y >= 0 else round(Fraction(y, 2**argument))
    if function == 2:
        c = 2**argument
        return round(Fraction(y * min(max(y + c, 0), 2 * c), 2 * c))
    if function == 3:
        return int(ref_operations.function_table(argument)[y + 2048])
    if function == 4:
        return int(ref_operations.sine_table()[y])
    return y


FUNCTIONS = [(f, a) for f, (low, high) in arithmetic.FUNCTION_ARGUMENTS.items() for a in range(low, high + 1)]


@pytest.mark.parametrize(("function", "argument"), FUNCTIONS)
def test_functions_are_those_of_the_text_for_all_inputs_and_give_activations(function: int, argument: int) -> None:
    inputs = range(4096) if function == arithmetic.SINE else RANGE
    found = arithmetic.apply_function(function, argument, np.array(inputs, dtype=np.int64))
    assert found.tolist() == [twin(function, argument, y) for y in inputs]
    assert found.min() >= arithmetic.ACTIVATION_LOW and found.max() <= arithmetic.ACTIVATION_HIGH


def test_hard_swish_is_zero_far_below_and_the_identity_far_above_zero() -> None:
    grid = np.array(RANGE, dtype=np.int64)
    found = arithmetic.apply_function(arithmetic.HARD_SWISH, 9, grid)
    assert (found[grid <= -512] == 0).all()
    assert np.array_equal(found[grid >= 512], grid[grid >= 512])
