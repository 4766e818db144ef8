"""The decoder as data: the operation list, its binary form, and the builder that writes it (SPEC 8.2 to 8.4).

A program is a straight line of operations. Operation i makes value i; operands are numbers of earlier values; parameters are
numbered in the order of their first use. `SYNTAX` is the one table that the reader, the writer, the builder and `describe` share.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from . import arithmetic, canonical
from .constants import Limits
from .errors import InvalidError, LimitError, UnsupportedError


class Op(IntEnum):
    """Operation codes, written by hand and never reused (SPEC 8.4)."""

    EMBEDDING = 1
    TOKENS = 2
    CONSTANT = 3
    COORDINATES = 4
    PHASES = 5
    CONVOLUTION = 10
    COMBINE = 11
    MULTIPLY = 12
    SHUFFLE = 20
    NEAREST = 21
    BILINEAR = 22
    HAAR = 23
    REQUANTISE = 30
    CONCATENATE = 40
    SLICE = 41
    CROP = 42
    OUTPUT = 50


@dataclass(frozen=True)
class Field:
    """One integer of an operation: its name and legal range; `value` and `parameter` fields are references."""

    name: str
    low: int = 0
    high: int = 0
    kind: str = "number"


def _value(name: str) -> Field:
    return Field(name, kind="value")


def _parameter(name: str) -> Field:
    return Field(name, kind="parameter")


_SIDE = 16384  # a map is never wider than the largest picture (SPEC 9)
_CHANNELS = Field("channels", 1, 4096)
_HEIGHT, _WIDTH = Field("height", 1, _SIDE), Field("width", 1, _SIDE)
_OFFSET = Field("offset", -16, 16)
_KERNEL = 15

SYNTAX: dict[Op, tuple[Field, ...]] = {
    Op.EMBEDDING: (_parameter("codes"), _CHANNELS, _HEIGHT, _WIDTH, _OFFSET, Field("stride", 1, 256)),
    Op.TOKENS: (
        _parameter("tokens"),
        _parameter("codebook"),
        _HEIGHT,
        _WIDTH,
        Field("levels", 2, 4096),
        Field("dimensions", 1, 256),
        _OFFSET,
    ),
    Op.CONSTANT: (_parameter("codes"), _CHANNELS, _HEIGHT, _WIDTH),
    Op.COORDINATES: (Field("axis", 0, 1), Field("height", 1, 2048), Field("width", 1, 2048)),
    Op.PHASES: (_parameter("frequency"), _parameter("phase"), _CHANNELS),
    Op.CONVOLUTION: (
        _value("x"),
        _parameter("weight"),
        _parameter("bias"),
        _CHANNELS,
        Field("kernel_height", 1, _KERNEL),
        Field("kernel_width", 1, _KERNEL),
        Field("groups", 1, 4096),
    ),
    Op.COMBINE: (_value("a"), _value("b"), _parameter("gains")),
    Op.MULTIPLY: (_value("a"), _value("b")),
    Op.SHUFFLE: (_value("x"), Field("stride_height", 1, 16), Field("stride_width", 1, 16)),
    Op.NEAREST: (
        _value("x"),
        Field("up_height", 1, 16),
        Field("down_height", 1, 16),
        Field("up_width", 1, 16),
        Field("down_width", 1, 16),
    ),
    Op.BILINEAR: (_value("x"), Field("factor", 2, 16)),
    Op.HAAR: (_value("x"),),
    Op.REQUANTISE: (
        _value("x"),
        _parameter("multiplier"),
        Field("multipliers", 1, 4096),
        Field("low", arithmetic.ACTIVATION_LOW, 0),
        Field("high", 1, 4095),
        Field("function", 0, max(arithmetic.FUNCTIONS)),
        Field("argument", 0, 11),
    ),
    Op.CONCATENATE: (_value("a"), _value("b")),
    Op.SLICE: (_value("x"), Field("first", 0, 4095), Field("last", 1, 4096)),
    Op.CROP: (_value("x"), Field("top", 0, _SIDE), Field("left", 0, _SIDE), _HEIGHT, _WIDTH),
    Op.OUTPUT: (_value("a"), _value("b"), _value("c")),
}


@dataclass(frozen=True)
class Operation:
    """One operation: its code and the integers of `SYNTAX[code]`, in order."""

    code: Op
    arguments: tuple[int, ...]

    def __getitem__(self, name: str) -> int:
        for field, argument in zip(SYNTAX[self.code], self.arguments, strict=True):
            if field.name == name:
                return argument
        raise KeyError(name)

    def references(self, kind: str) -> tuple[int, ...]:
        """The arguments that are references of `kind` ('value' or 'parameter'), in order."""
        pairs = zip(SYNTAX[self.code], self.arguments, strict=True)
        return tuple(argument for field, argument in pairs if field.kind == kind)


@dataclass(frozen=True)
class Program:
    """A named operation list. The name is a label for people (`hnerv`); nothing depends on it."""

    name: str
    operations: tuple[Operation, ...]

    @property
    def parameters(self) -> int:
        """How many parameter tensors a segment must bring."""
        used = [number for operation in self.operations for number in operation.references("parameter")]
        return max(used, default=-1) + 1

    def last_uses(self) -> list[int]:
        """For every value, the number of the last operation that reads it (its own number if none does)."""
        last = list(range(len(self.operations)))
        for number, operation in enumerate(self.operations):
            for value in operation.references("value"):
                last[value] = number
        return last


def pack_programs(programs: Sequence[Program]) -> bytes:
    """The MODL payload: canonical msgpack of [[name, [[code, arguments...], ...]], ...]."""
    return canonical.pack([[p.name, [[int(op.code), *op.arguments] for op in p.operations]] for p in programs])


def unpack_programs(payload: bytes, limits: Limits) -> tuple[Program, ...]:
    """Parse and check a MODL payload; InvalidError, UnsupportedError or LimitError say what is wrong with it."""
    document: Any = canonical.unpack(payload, "MODL")
    if not isinstance(document, list) or not 1 <= len(document) <= 256:
        raise InvalidError("program", "MODL must be a list of 1 to 256 programs")
    return tuple(_unpack_program(item, number, limits) for number, item in enumerate(document))


def _unpack_program(item: Any, number: int, limits: Limits) -> Program:
    where = f"program {number}"
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str) or not isinstance(item[1], list):
        raise InvalidError("program", f"{where} is not a pair of a name and an operation list")
    name, rows = item
    if not 1 <= len(name) <= 32 or not name.isascii() or not name.isprintable():
        raise InvalidError("program", f"{where}: the name must be 1 to 32 printable ASCII characters")
    if len(rows) > limits.max_operations:
        raise LimitError("operations", f"{where} has {len(rows)} operations, over the limit of {limits.max_operations}")
    operations: list[Operation] = []
    parameters = 0
    for index, row in enumerate(rows):
        operation = _unpack_operation(row, f"{where}, operation {index}")
        for value in operation.references("value"):
            if not 0 <= value < index or operations[value].code is Op.OUTPUT:
                raise InvalidError(
                    "program", f"{where}, operation {index} reads value {value}, which no earlier operation makes"
                )
        for parameter in operation.references("parameter"):
            if not 0 <= parameter <= parameters:
                raise InvalidError("program", f"{where}, operation {index}: parameter {parameter} is out of order")
            parameters = max(parameters, parameter + 1)
        operations.append(operation)
    if [op.code for op in operations].count(Op.OUTPUT) != 1 or operations[-1].code is not Op.OUTPUT:
        raise InvalidError("program", f"{where} must end with its only output operation")
    if parameters > limits.max_tensors:
        raise LimitError(
            "tensors", f"{where} has {parameters} parameter tensors, over the limit of {limits.max_tensors}"
        )
    return Program(name, tuple(operations))


def _unpack_operation(row: Any, where: str) -> Operation:
    if not isinstance(row, list) or not row or not all(type(entry) is int for entry in row):
        raise InvalidError("program", f"{where} is not a list of integers")
    code, *arguments = row
    if code not in Op.__members__.values():
        raise UnsupportedError("operation", f"{where} has code {code}, which this version does not know; update nvc")
    fields = SYNTAX[Op(code)]
    if len(arguments) != len(fields):
        raise InvalidError(
            "program", f"{where} ({Op(code).name.lower()}) has {len(arguments)} arguments instead of {len(fields)}"
        )
    for field, argument in zip(fields, arguments, strict=True):
        if field.kind == "number" and not field.low <= argument <= field.high:
            raise InvalidError("program", f"{where}: {field.name} is {argument}, outside {field.low}..{field.high}")
    return Operation(Op(code), tuple(arguments))


class Builder:
    """Writes a program operation by operation, beside the parameter tensors that its layers bring.

    `tensors[i]` is whatever the caller stored for parameter i: the builder only numbers it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: list[Any] = []
        self._operations: list[Operation] = []
        self._numbers: dict[Hashable, int] = {}

    def parameter(self, tensor: Any, key: Hashable = None) -> int:
        """Number a parameter tensor. Number them in the order in which the operations use them.

        A tensor with a `key` that was seen before is that one again: operations share it.
        """
        if key is not None and key in self._numbers:
            return self._numbers[key]
        self.tensors.append(tensor)
        if key is not None:
            self._numbers[key] = len(self.tensors) - 1
        return len(self.tensors) - 1

    def add(self, code: Op, *arguments: int) -> int:
        """Append an operation and return the number of its value."""
        if len(arguments) != len(SYNTAX[code]):
            raise ValueError(f"{code.name} takes {len(SYNTAX[code])} arguments, not {len(arguments)}")
        self._operations.append(Operation(code, tuple(arguments)))
        return len(self._operations) - 1

    def program(self) -> Program:
        """The program as built so far."""
        return Program(self.name, tuple(self._operations))


def describe(program: Program) -> list[str]:
    """One readable line per operation: `v3 = convolution(x=v2, weight=p1, bias=p2, channels=40, ...)`."""
    prefix = {"value": "v", "parameter": "p", "number": ""}
    lines = []
    for number, operation in enumerate(program.operations):
        fields = zip(SYNTAX[operation.code], operation.arguments, strict=True)
        text = ", ".join(f"{field.name}={prefix[field.kind]}{argument}" for field, argument in fields)
        lines.append(f"v{number} = {operation.code.name.lower()}({text})")
    return lines
