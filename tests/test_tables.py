"""The function tables: right to the last rounding, the ones of SPEC 8.6, and those that the reference builds for itself."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
from test_spec import table as spec_table

from nvc.bitstream import tables
from nvc.bitstream.errors import MachineError
from nvc.conformance import ref_operations

NUMBERS = sorted(tables.NAMES)
REAL: dict[int, Callable[[int], float]] = {
    tables.GELU: lambda i: 512 * (x := (i - 2048) / 512) * 0.5 * math.erfc(-x / math.sqrt(2)),
    tables.TANH: lambda i: 2047 * math.tanh((i - 2048) / 512),
    tables.SIGMOID: lambda i: 2047 / (1 + math.exp(-(i - 2048) / 256)),
    tables.EXP: lambda i: 256 * math.exp((i - 2048) / 1024),
    tables.SINE: lambda i: 2047 * math.sin(2 * math.pi * i / 4096),
}


@pytest.mark.parametrize("number", NUMBERS)
def test_entries_are_the_nearest_integers_to_the_function(number: int) -> None:
    exact = np.array([REAL[number](i) for i in range(tables.SIZE)])
    assert np.abs(tables.table(number) - exact).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("number", NUMBERS)
def test_digests_are_those_of_the_text_and_of_the_entries(number: int) -> None:
    row = spec_table("8.6", "number")[number]
    digest = next(cell for name, cell in row.items() if name.startswith("SHA-256"))
    assert (int(row["number"]), row["table"]) == (number, tables.NAMES[number])
    entries = [int(entry) for entry in tables.build(number)]
    assert hashlib.sha256(struct.pack("<4096h", *entries)).hexdigest() == digest == tables.DIGESTS[number]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_reference_builds_the_same_entries(number: int) -> None:
    other = ref_operations.sine_table() if number == tables.SINE else ref_operations.function_table(number)
    assert np.array_equal(tables.table(number), other)


def test_the_constants_are_floors_of_2_96_times_the_numbers() -> None:
    """Machin's formula, and the square of 1 / sqrt(2 pi), in integers with 64 bits to spare."""

    def arctan_of_inverse(n: int, one: int) -> int:
        total, term, k = 0, one // n, 0
        while term:
            total, term, k = total + (-1) ** k * (term // (2 * k + 1)), term // (n * n), k + 1
        return total

    pi = 4 * (4 * arctan_of_inverse(5, 1 << 160) - arctan_of_inverse(239, 1 << 160))
    assert pi >> 64 == tables.PI
    assert math.isqrt((1 << 96 * 2 + 160) // (2 * pi)) == tables.INVERSE_SQRT_2PI


def test_a_machine_that_computes_another_table_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables.DEFINITIONS, tables.EXP, (lambda x: 2 * x, 10, 256))
    with pytest.raises(MachineError) as caught:
        tables.table.__wrapped__(tables.EXP)
    assert caught.value.code == "machine.table"


def test_a_table_cannot_be_changed_by_its_users() -> None:
    with pytest.raises(ValueError, match="read-only"):
        tables.table(tables.TANH)[0] = 1
