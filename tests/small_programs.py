"""Programs written as plain rows of integers, and all of their values by the conformance reference, for tests of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream import canonical
from nvc.bitstream.analysis import Analysis, analyse
from nvc.bitstream.arithmetic import multiplier_code
from nvc.bitstream.constants import Limits
from nvc.bitstream.program import Op, Operation, Program, unpack_programs
from nvc.conformance import ref_operations
from nvc.conformance.catalogue.networks import random_network

Integers = NDArray[np.int64]
Row = list[int]

POINT = [int(Op.COORDINATES), 0, 1, 1]  # a map of one value without any parameter
ONE = multiplier_code(1.0)


def rows_of(program: Program) -> list[Row]:
    """The rows [code, arguments...] of a program, as they stand in MODL."""
    return [[int(operation.code), *operation.arguments] for operation in program.operations]


def document(*rows: Row, name: str = "p") -> bytes:
    """A MODL payload of one program."""
    return canonical.pack([[name, list(rows)]])


def parse(*rows: Row, limits: Limits | None = None) -> Program:
    """The program of these rows, by way of the parser."""
    return unpack_programs(document(*rows), limits or Limits())[0]


def program_of(*rows: Row) -> Program:
    """The program of these rows, unchecked; an output of value 0 is added where there is none."""
    ended = rows if rows[-1][0] == Op.OUTPUT else (*rows, [int(Op.OUTPUT), 0, 0, 0])
    return Program("p", tuple(Operation(Op(code), tuple(arguments)) for code, *arguments in ended))


def analysed(*rows: Row) -> Analysis:
    """The analysis of `program_of` these rows."""
    return analyse(program_of(*rows), Limits())


def values_of(rows: Sequence[Row], tensors: Sequence[Integers], t: int, frames: int) -> list[Integers]:
    """Every value of frame `t`, (C, H, W) int64, in 64-bit integers whatever the bound of 2^24."""
    frame = ref_operations.Frame(tensors, t, frames)
    values: list[Integers] = []
    for code, *arguments in rows:
        if code != Op.OUTPUT:
            values.append(ref_operations.OPERATIONS[code](frame, values, *arguments))
    return values


def mutate(rows: list[Row], generator: np.random.Generator) -> list[Row]:
    """`rows` with one integer changed, inserted or deleted, or one row deleted, repeated or moved."""
    changed = [list(row) for row in rows]
    number = int(generator.integers(len(changed)))
    row = changed[number]
    place = int(generator.integers(len(row)))
    value = int(generator.choice([-1, 0, 1, 2, 7, 50, 60, 4096, 65536, -(1 << 40), (1 << 63), row[place] + 1, row[place] - 1]))
    match generator.integers(6):
        case 0 | 1:
            row[place] = value
        case 2:
            row.insert(place, value)
        case 3:
            del row[place]
        case 4:
            del changed[number]
        case _:
            changed.insert(int(generator.integers(len(changed) + 1)), list(row))
    return changed


@cache
def random_rows(seed: int) -> list[Row]:
    """The rows of the random network `seed`."""
    return rows_of(random_network(seed).program)
