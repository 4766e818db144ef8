"""Programs before they run: SPEC 8.2 to 8.4 (document, shapes), 8.7 (costs) and their limits of 9."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ref_errors import Refused
from .ref_numbers import Spec, check_specs, read_section
from .ref_operations import Frame, requantise

Integers = NDArray[np.int64]
Limits = Mapping[str, int]
"""The limits of SPEC 9 by their names there."""
Shape = tuple[int, int, int]

V, P = "an earlier value", "a parameter"
C, SIDE, SMALL = (1, 4096), (1, 16384), (1, 16)
SIGNATURES: dict[int, tuple[str | tuple[int, int], ...]] = {  # the arguments of SPEC 8.4 and their ranges
    1: (P, C, SIDE, SIDE, (-16, 16), (1, 256)),
    2: (P, P, SIDE, SIDE, (2, 4096), (1, 256), (-16, 16)),
    3: (P, C, SIDE, SIDE),
    4: ((0, 1), (1, 2048), (1, 2048)),
    5: (P, P, C),
    10: (V, P, P, C, (1, 15), (1, 15), C),
    11: (V, V, P),
    12: (V, V),
    20: (V, SMALL, SMALL),
    21: (V, SMALL, SMALL, SMALL, SMALL),
    22: (V, (2, 16)),
    23: (V,),
    30: (V, P, C, (-2048, 0), (1, 4095), (0, 4), (0, 11)),
    40: (V, V),
    41: (V, (0, 4095), C),
    42: (V, (0, 16384), (0, 16384), SIDE, SIDE),
    50: (V, V, V),
}
CONVOLUTION, SINE, OUTPUT = 10, 4, 50
SECTIONS = {  # SPEC 8.3
    1: ("weight", "bias", "multiplier", "gain", "phase", "constant"),
    2: ("codebook",),
    3: ("embedding",),
    4: ("tokens",),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of SPEC 8.3. `shape` is without the dimension in front that depends on F; that is there where stride > 0."""

    kind: str
    shape: tuple[int, ...]
    stride: int = 0
    levels: int = 0

    def spec(self, frames: int) -> Spec:
        times = ((frames - 2) // self.stride + 2,) if self.stride else ()  # that is F where the stride is 1
        return Spec(self.kind, (*times, *self.shape), self.levels)


@dataclass(frozen=True)
class Value:
    """What an operation makes: C x H x W, with the range of an activation; of an accumulator it is None."""

    shape: Shape
    range: tuple[int, int] | None = None

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass
class Program:
    """A program. `values` holds one for each row but the output's; `work` counts the multiply-adds of a frame (SPEC 8.7)."""

    name: str
    rows: list[list[int]]
    values: list[Value] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    work: int = 0

    def specs(self, frames: int) -> list[Spec]:
        """Its tensors in a segment of `frames` frames, in the order of their numbers."""
        return [parameter.spec(frames) for parameter in self.parameters]

    def activation(self, number: int) -> Value:
        """Value `number`, which must be an activation (P13)."""
        _fit(self.values[number].range is not None, f"value {number} is no activation")
        return self.values[number]

    def use(self, number: int, parameter: Parameter) -> None:
        """Notes what parameter `number` is; a second use must agree (P5)."""
        if number == len(self.parameters):
            self.parameters.append(parameter)
        _fit(self.parameters[number] == parameter, f"parameter {number} is a {parameter} here, before {self.parameters[number]}")


def _fit(fits: bool, message: str) -> None:
    if not fits:
        raise Refused("invalid.shape", message)  # P12


def _within(count: int, limits: Limits, name: str, code: str) -> None:
    if count > limits[name]:
        raise Refused(code, f"{count} is over {name}, {limits[name]}")


# ---- 8.2, 8.3 document


def parse_programs(document: Any, limits: Limits) -> list[Program]:
    """The programs of a decoded MODL document, with their shapes and costs.

    Refused: `invalid.program`, `unsupported.operation`, `invalid.shape`, `limit.operations`, `limit.tensors`, `limit.map`,
    `limit.memory`, `limit.parameters`.
    """
    _ask(type(document) is list and 1 <= len(document) <= 256, "MODL is no list of 1 to 256 programs")
    programs = [_parse(item, limits) for item in document]
    for program in programs:
        _analyse(program, limits)
    return programs


def _ask(legal: bool, message: str) -> None:
    if not legal:
        raise Refused("invalid.program", message)


def _parse(item: Any, limits: Limits) -> Program:
    """P1 to P4, P10 and P11 of one program."""
    _ask(type(item) is list and len(item) == 2, "a program is no list of two")
    name, rows = item
    _ask(type(name) is str and 1 <= len(name) <= 32 and all(" " <= c <= "~" for c in name), "a program has no legal name")
    _ask(type(rows) is list, "the operations are no list")
    _within(len(rows), limits, "max_operations", "limit.operations")
    outputs: list[int] = []
    parameters = 0
    for number, row in enumerate(rows):
        integers = type(row) is list and all(type(item) is int for item in row)
        _ask(integers and len(row) >= 1, f"operation {number} is no list of integers")
        parameters = _parse_row(number, row, outputs, parameters)
        if row[0] == OUTPUT:
            outputs.append(number)
    _ask(outputs == [len(rows) - 1], "the last operation, and it alone, is the output")  # P3
    _within(parameters, limits, "max_tensors", "limit.tensors")
    return Program(name, rows)


def _parse_row(number: int, row: list[int], outputs: list[int], parameters: int) -> int:
    """Checks the operation `number`; the number of parameters up to here, this operation included."""
    code, *arguments = row
    if code not in SIGNATURES:
        raise Refused("unsupported.operation", f"operation {number} has the unknown code {code}")  # P10
    signature = SIGNATURES[code]
    _ask(len(arguments) == len(signature), f"operation {number} has {len(arguments)} arguments")  # P2
    for argument, rule in zip(arguments, signature, strict=True):
        if isinstance(rule, tuple):
            _ask(rule[0] <= argument <= rule[1], f"operation {number}: {argument} is outside {rule[0]}..{rule[1]}")  # P2
    for operand in _operands(row):
        _ask(0 <= operand < number and operand not in outputs, f"operation {number}: {operand} is no earlier value")  # P11
    for parameter in _arguments(row, P):
        _ask(0 <= parameter <= parameters, f"operation {number}: parameter {parameter} comes before its turn")  # P4
        parameters = max(parameters, parameter + 1)
    return parameters


def _arguments(row: list[int], rule: str) -> list[int]:
    """The arguments of an operation that are values (V), or parameters (P)."""
    return [argument for argument, asked in zip(row[1:], SIGNATURES[row[0]], strict=True) if asked == rule]


def _operands(row: list[int]) -> list[int]:
    return _arguments(row, V)


# ---- 8.4 shapes, 8.7 costs


def _analyse(program: Program, limits: Limits) -> None:
    """Shapes, parameters and costs of a parsed program."""
    for code, *arguments in program.rows[:-1]:
        value = SHAPES[code](program, *arguments)
        if value.elements > 1 << 28 or value.shape[0] > 16384:
            raise Refused("limit.map", f"a map of {value.shape}")  # K1
        program.values.append(value)
    for number in program.rows[-1][1:]:
        program.activation(number)
    program.work += sum(value.elements for value in program.values)
    _within(4 * _live_elements(program), limits, "max_memory_bytes", "limit.memory")
    numbers = sum(prod(parameter.shape) for parameter in program.parameters)
    _within(numbers, limits, "max_parameters", "limit.parameters")


def _live_elements(program: Program) -> int:
    """The most elements that live at one operation (SPEC 8.7)."""
    last = list(range(len(program.rows)))  # the operation with which a value ends
    for number, row in enumerate(program.rows):
        for operand in _operands(row):
            last[operand] = number
    changes = [0] * (len(program.rows) + 1)
    for made, value in enumerate(program.values):
        changes[made] += value.elements
        changes[last[made] + 1] -= value.elements
    return max(accumulate(changes))


def _embedding(program: Program, p: int, c: int, h: int, w: int, _: int, stride: int) -> Value:
    program.use(p, Parameter("embedding", (c, h, w), stride))
    return Value((c, h, w), (-2048, 2047) if stride == 1 else None)


def _tokens(program: Program, p: int, book: int, h: int, w: int, levels: int, dimensions: int, _: int) -> Value:
    program.use(p, Parameter("tokens", (h, w), 1, levels))
    program.use(book, Parameter("codebook", (levels, dimensions)))
    return Value((dimensions, h, w), (-128, 127))


def _constant(program: Program, p: int, c: int, h: int, w: int) -> Value:
    program.use(p, Parameter("constant", (c, h, w)))
    return Value((c, h, w), (-2048, 2047))


def _coordinates(_: Program, axis: int, h: int, w: int) -> Value:
    size = w if axis else h
    return Value((1, h, w), (1 - size, size - 1))


def _phases(program: Program, f: int, q: int, c: int) -> Value:
    program.use(f, Parameter("phase", (c,)))
    program.use(q, Parameter("phase", (c,)))
    return Value((c, 1, 1), (-2047, 2047))


def _convolution(program: Program, x: int, w: int, b: int, out: int, kh: int, kw: int, groups: int) -> Value:
    channels, height, width = program.activation(x).shape
    _fit(kh % 2 == 1 and kw % 2 == 1, f"a kernel of {kh} x {kw}")
    _fit(channels % groups == 0 and out % groups == 0, f"{groups} groups of {channels} to {out} channels")
    program.use(w, Parameter("weight", (out, channels // groups, kh, kw)))
    program.use(b, Parameter("bias", (out,)))
    program.work += out * (channels // groups) * kh * kw * height * width
    return Value((out, height, width))


def _combine(program: Program, a: int, b: int, gains: int) -> Value:
    product = _multiply(program, a, b)
    program.use(gains, Parameter("gain", (2,)))
    return product


def _multiply(program: Program, a: int, b: int) -> Value:
    left, right = program.values[a].shape, program.values[b].shape
    _fit(all(m == n or 1 in (m, n) for m, n in zip(left, right, strict=True)), f"{left} and {right} do not agree")
    channels, height, width = (max(m, n) for m, n in zip(left, right, strict=True))
    return Value((channels, height, width))


def _shuffle(program: Program, x: int, m: int, n: int) -> Value:
    channels, height, width = program.values[x].shape
    _fit(channels % (m * n) == 0, f"{channels} channels in blocks of {m} x {n}")
    return replace(program.values[x], shape=(channels // (m * n), height * m, width * n))


def _nearest(program: Program, x: int, up_h: int, down_h: int, up_w: int, down_w: int) -> Value:
    channels, height, width = program.values[x].shape
    _fit(height * up_h % down_h == 0 and width * up_w % down_w == 0, f"{height} x {width} in parts")
    return replace(program.values[x], shape=(channels, height * up_h // down_h, width * up_w // down_w))


def _bilinear(program: Program, x: int, s: int) -> Value:
    channels, height, width = program.values[x].shape
    return Value((channels, height * s, width * s))


def _haar(program: Program, x: int) -> Value:
    channels, height, width = program.values[x].shape
    _fit(channels % 4 == 0, f"{channels} channels in four bands")
    return Value((channels // 4, 2 * height, 2 * width))


def _requantise(program: Program, x: int, p: int, n: int, low: int, high: int, function: int, argument: int) -> Value:
    shape = program.values[x].shape
    _fit(n in (1, shape[0]), f"{n} multipliers for {shape[0]} channels")
    first, last = {0: (0, 0), 1: (1, 11), 2: (1, 11), 3: (0, 3), 4: (0, 0)}[function]  # P9
    _ask(first <= argument <= last, f"{argument} is no argument of function {function}")
    _ask((low, high) == (0, 4095) if function == SINE else high <= 2047, f"{low}..{high} is no range for function {function}")
    program.use(p, Parameter("multiplier", (n,)))
    return Value(shape, results(low, high, function, argument))


def _concatenate(program: Program, a: int, b: int) -> Value:
    left, right = program.values[a], program.values[b]
    _fit(left.shape[1:] == right.shape[1:], f"maps of {left.shape} and {right.shape}")
    shape = (left.shape[0] + right.shape[0], *left.shape[1:])
    if left.range is None or right.range is None:
        _fit(left.range is right.range, "an activation and an accumulator")
        return Value(shape)
    return Value(shape, (min(left.range[0], right.range[0]), max(left.range[1], right.range[1])))


def _slice(program: Program, x: int, first: int, last: int) -> Value:
    channels, height, width = program.values[x].shape
    _fit(first < last <= channels, f"channels {first}..{last} of {channels}")
    return replace(program.values[x], shape=(last - first, height, width))


def _crop(program: Program, x: int, top: int, left: int, height: int, width: int) -> Value:
    channels, rows, columns = program.values[x].shape
    _fit(top + height <= rows and left + width <= columns, f"a crop outside of {rows} x {columns}")
    return replace(program.values[x], shape=(channels, height, width))


SHAPES: dict[int, Callable[..., Value]] = {
    1: _embedding,
    2: _tokens,
    3: _constant,
    4: _coordinates,
    5: _phases,
    10: _convolution,
    11: _combine,
    12: _multiply,
    20: _shuffle,
    21: _nearest,
    22: _bilinear,
    23: _haar,
    30: _requantise,
    40: _concatenate,
    41: _slice,
    42: _crop,
}


@lru_cache(maxsize=1024)
def results(low: int, high: int, function: int, argument: int) -> tuple[int, int]:
    """The smallest and the largest result of 8.5 for low..high: what it makes of all of them where the multiplier is 1."""
    every = np.arange(low, high + 1, dtype=np.int64).reshape(1, 1, -1)
    one = np.array([40 - 10 << 10])  # (1024 + 0) 2^(30 - 40)
    results = requantise(Frame([one], 0, 1), [every], 0, 0, 1, low, high, function, argument)
    return int(results.min()), int(results.max())


# ---- 8.4, 8.7 the picture


def check_picture(
    program: Program, planes: Sequence[tuple[int, int]], bit_depth: int, pixels: int, frame_count: int | None, limits: Limits
) -> None:
    """P8 for planes of these (height, width), then `limit.compute` for `pixels` luma samples; frame_count None is unknown."""
    for number, plane in zip(program.rows[-1][1:], planes, strict=True):
        value = program.activation(number)
        assert value.range is not None  # of an activation
        if value.shape != (1, *plane) or value.range[0] < 0 or value.range[1] >= 1 << bit_depth:
            raise Refused("invalid.picture", f"value {number}, {value}, is no plane of {plane} with {bit_depth} bits")
    if program.work > limits["max_macs_per_pixel"] * pixels:
        raise Refused("limit.compute", f"{program.work} multiply-adds for {pixels} samples")
    _within(program.work, limits, "max_macs_per_frame", "limit.compute")
    _within(program.work * (frame_count or 0), limits, "max_macs_total", "limit.compute")


# ---- 8.3 the numbers of a segment


def read_numbers(program: Program, frames: int, sections: Mapping[int, bytes], limits: Limits) -> list[Integers]:
    """The tensors of a segment of `frames` frames, from its sections by their numbers (SPEC 4.2); 1, weights, is there.

    Refused: `invalid.tensor_shape`, `limit.parameters`, `invalid.sections`, and what `read_section` refuses.
    """
    specs = program.specs(frames)
    check_specs(specs)
    _within(sum(prod(spec.shape) for spec in specs), limits, "max_parameters", "limit.parameters")
    tensors: dict[int, Integers] = {}
    for section, kinds in SECTIONS.items():
        numbers = [number for number, spec in enumerate(specs) if spec.kind in kinds]
        held = sections[1] != b"" or bool(numbers) if section == 1 else section in sections
        if held != bool(numbers):
            raise Refused("invalid.sections", f"section {section} and the program disagree on whether it is there")  # P6
        if numbers:
            tensors.update(zip(numbers, read_section([specs[n] for n in numbers], sections[section]), strict=True))
    return [tensors[number] for number in range(len(specs))]
