"""How one sequence of signed integers is coded: a constant, a Laplace, an adaptive or an explicit table.

Every mode is a small dataclass whose fields are its header; `write` and `read` stand side by side. The writer tries the
modes on `CodeLength` and keeps the shortest, so a reader only ever learns which one it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import asinh, log2
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from .cdf import FIRST_BLOCK, MAX_ALPHABET, SCALES, AdaptiveTable, blocks, flat, from_counts, laplace, laplace_limit
from .errors import InvalidError
from .rangecoder import CodeLength, SymbolReader, Symbols, SymbolWriter

Values = NDArray[np.int64]

MODE_BITS: Final = 2
SCALE_BITS: Final = 6
MASS_BITS: Final = 2
MASSES: Final = (8, 64, 512, 4096)  # symbols that the prior of an adaptive table is worth
LOW_BITS: Final = 4
CLASS_BITS: Final = 5
SIZE_BITS: Final = 5

# Beyond 12-bit values and their differences (biases alone) the Laplace mode may split off plain low bits.
SPLIT_ABOVE: Final = 4095
KEPT_BITS: Final = 5  # of the mean magnitude; what is cut off below is as good as uniform

_POWERS: Final = 1 << np.arange(32, dtype=np.int64)


class Mode(Protocol):
    """One way to code `count` >= 1 integers of magnitude <= bound, bound >= 1; `write` includes the mode's header."""

    def write(self, writer: SymbolWriter, values: Values, bound: int) -> None: ...

    @classmethod
    def read(cls, reader: SymbolReader, count: int, bound: int) -> Values: ...


@dataclass(frozen=True)
class Constant:
    """All values are equal."""

    value: int

    def write(self, writer: SymbolWriter, values: Values, bound: int) -> None:
        put_signed(writer, self.value)

    @classmethod
    def read(cls, reader: SymbolReader, count: int, bound: int) -> Values:
        return np.full(count, get_signed(reader), np.int64)


@dataclass(frozen=True)
class Laplace:
    """A table of the bank for v >> low (rounded), then the escapes, then the `low` plain bits that were cut off."""

    scale: int
    low: int

    def write(self, writer: SymbolWriter, values: Values, bound: int) -> None:
        writer.put_bits(self.scale, SCALE_BITS)
        if bound > SPLIT_ABOVE:
            writer.put_bits(self.low, LOW_BITS)
        half = (1 << self.low) >> 1
        high, bound = (values + half) >> self.low, max((bound + half) >> self.low, 1)
        symbols, escapes = _to_symbols(high, self.scale, bound)
        writer.put(symbols, laplace(self.scale, bound))
        _put_escapes(writer, escapes, laplace_limit(self.scale, bound), bound)
        writer.put_raw(values + half - (high << self.low), self.low)

    @classmethod
    def read(cls, reader: SymbolReader, count: int, bound: int) -> Values:
        scale = reader.get_bits(SCALE_BITS)
        low = reader.get_bits(LOW_BITS) if bound > SPLIT_ABOVE else 0
        half = (1 << low) >> 1
        bound = max((bound + half) >> low, 1)
        symbols = reader.get(count, laplace(scale, bound))
        high = _from_symbols(reader, symbols, scale, bound)
        return (high << low) + reader.get_raw(count, low) - half


@dataclass(frozen=True)
class Adaptive:
    """A table that starts as one of the bank, worth MASSES[mass] symbols, and follows the values; then the escapes."""

    scale: int
    mass: int

    def write(self, writer: SymbolWriter, values: Values, bound: int) -> None:
        writer.put_bits(self.scale, SCALE_BITS)
        writer.put_bits(self.mass, MASS_BITS)
        symbols, escapes = _to_symbols(values, self.scale, bound)
        write_adaptive(writer, symbols, AdaptiveTable(laplace(self.scale, bound), MASSES[self.mass]))
        _put_escapes(writer, escapes, laplace_limit(self.scale, bound), bound)

    @classmethod
    def read(cls, reader: SymbolReader, count: int, bound: int) -> Values:
        scale = reader.get_bits(SCALE_BITS)
        mass = reader.get_bits(MASS_BITS)
        symbols = read_adaptive(reader, count, AdaptiveTable(laplace(scale, bound), MASSES[mass]))
        return _from_symbols(reader, symbols, scale, bound)


@dataclass(frozen=True)
class Histogram:
    """A table sent as one class per value from `first` on; classes 0, 1, 2, ... weigh 0, 2, 3, 4, 6, 8, 12, ..."""

    first: int
    classes: tuple[int, ...]

    def write(self, writer: SymbolWriter, values: Values, bound: int) -> None:
        put_signed(writer, self.first)
        put_unsigned(writer, len(self.classes) - 2)
        classes = np.array(self.classes, np.int64)
        writer.put_raw(classes, CLASS_BITS)
        writer.put((values - self.first).astype(np.int32), from_counts(_class_weights(classes)))

    @classmethod
    def read(cls, reader: SymbolReader, count: int, bound: int) -> Values:
        first = get_signed(reader)
        alphabet = get_unsigned(reader) + 2
        if alphabet > MAX_ALPHABET:
            raise InvalidError("tensor_histogram", f"a histogram of {alphabet} values; {MAX_ALPHABET} are allowed")
        classes = reader.get_raw(alphabet, CLASS_BITS)
        return reader.get(count, from_counts(_class_weights(classes))).astype(np.int64) + first


MODES: Final[tuple[type[Constant | Laplace | Adaptive | Histogram], ...]] = (Constant, Laplace, Adaptive, Histogram)


@dataclass(frozen=True)
class Choice:
    """A mode and the bits it takes, its number and header included."""

    mode: Mode
    bits: float


def choose(values: Values, bound: int) -> Choice:
    """The mode with the shortest code for `values` (n >= 1,), |v| <= bound; the first of MODES among equals."""
    least, most = int(values.min()), int(values.max())
    if least == most:
        return _measure(Constant(least), values, bound)
    best, scale = _best_laplace(values, bound)
    if values.size > FIRST_BLOCK:
        best = _shorter(best, (Adaptive(scale, mass) for mass in range(len(MASSES))), values, bound)
    if most - least < MAX_ALPHABET and (most - least + 1) * CLASS_BITS < best.bits:
        best = _shorter(best, [Histogram(least, _classes(values - least))], values, bound)
    return best


def write_sequence(writer: SymbolWriter, values: Values, bound: int, mode: Mode) -> None:
    """Write the mode's number, its header and the values (n >= 1,), |v| <= bound."""
    writer.put_bits(MODES.index(type(mode)), MODE_BITS)
    mode.write(writer, values, bound)


def read_sequence(reader: SymbolReader, count: int, bound: int) -> Values:
    """Read `count` >= 1 values as `write_sequence` wrote them. They may exceed the bound: check the range."""
    return MODES[reader.get_bits(MODE_BITS)].read(reader, count, bound)


def write_adaptive(writer: SymbolWriter, symbols: Symbols, table: AdaptiveTable) -> None:
    """Write symbols (n,) block by block, the table following them."""
    for block in blocks(len(symbols)):
        writer.put(symbols[block], table.freqs)
        table.update(symbols[block])


def read_adaptive(reader: SymbolReader, count: int, table: AdaptiveTable) -> Symbols:
    """Read `count` symbols as `write_adaptive` wrote them."""
    symbols = np.empty(count, np.int32)
    for block in blocks(count):
        symbols[block] = reader.get(block.stop - block.start, table.freqs)
        table.update(symbols[block])
    return symbols


def put_unsigned(writer: SymbolWriter, value: int) -> None:
    """A number 0..2^32 - 2: in 5 bits, how many bits follow the leading one of value + 1; then those bits."""
    size = (value + 1).bit_length() - 1
    writer.put_bits(size, SIZE_BITS)
    writer.put_bits(value + 1 - (1 << size), size)


def get_unsigned(reader: SymbolReader) -> int:
    """What `put_unsigned` wrote."""
    size = reader.get_bits(SIZE_BITS)
    return (1 << size) + reader.get_bits(size) - 1


def put_signed(writer: SymbolWriter, value: int) -> None:
    """A number |value| <= 2^32 - 2: its magnitude and, unless that is 0, one bit that is 1 for negative."""
    put_unsigned(writer, abs(value))
    if value:
        writer.put_bits(int(value < 0), 1)


def get_signed(reader: SymbolReader) -> int:
    """What `put_signed` wrote."""
    magnitude = get_unsigned(reader)
    return -magnitude if magnitude and reader.get_bits(1) else magnitude


def _to_symbols(values: Values, scale: int, bound: int) -> tuple[Symbols, Values]:
    """Symbols of the bank's table, and the values that escaped it, in order."""
    limit = laplace_limit(scale, bound)
    inside = np.abs(values) <= limit
    symbols = np.where(inside, values + limit, 2 * limit + 1).astype(np.int32)
    return symbols, values[~inside]


def _from_symbols(reader: SymbolReader, symbols: Symbols, scale: int, bound: int) -> Values:
    limit = laplace_limit(scale, bound)
    values = symbols.astype(np.int64) - limit
    escaped = symbols > 2 * limit
    values[escaped] = _get_escapes(reader, int(escaped.sum()), limit, bound)
    return values


def _put_escapes(writer: SymbolWriter, values: Values, limit: int, bound: int) -> None:
    """Values beyond the limit: the sizes of |v| - limit, the signs, then the bits below the leading one by size."""
    if not values.size:
        return
    excess = np.abs(values) - limit
    sizes = np.searchsorted(_POWERS, excess, side="right") - 1
    if _escape_sizes(limit, bound) > 1:
        writer.put(sizes.astype(np.int32), flat(_escape_sizes(limit, bound)))
    writer.put_raw((values < 0).astype(np.int64), 1)
    for size in range(1, _escape_sizes(limit, bound)):
        writer.put_raw(excess[sizes == size] - (1 << size), size)


def _get_escapes(reader: SymbolReader, count: int, limit: int, bound: int) -> Values:
    if count == 0:
        return np.zeros(0, np.int64)
    sizes = np.zeros(count, np.int32)
    if _escape_sizes(limit, bound) > 1:
        sizes = reader.get(count, flat(_escape_sizes(limit, bound)))
    negative = reader.get_raw(count, 1) == 1
    excess = np.ones(count, np.int64)
    for size in range(1, _escape_sizes(limit, bound)):
        chosen = sizes == size
        excess[chosen] = reader.get_raw(int(chosen.sum()), size) + (1 << size)
    return np.where(negative, -limit - excess, limit + excess)


def _escape_sizes(limit: int, bound: int) -> int:
    return (bound - limit).bit_length()


def _measure(mode: Mode, values: Values, bound: int) -> Choice:
    length = CodeLength()
    write_sequence(length, values, bound, mode)
    return Choice(mode, length.bits)


def _shorter(best: Choice, modes: Iterable[Mode], values: Values, bound: int) -> Choice:
    return min([best, *(_measure(mode, values, bound) for mode in modes)], key=lambda choice: choice.bits)


def _best_laplace(values: Values, bound: int) -> tuple[Choice, int]:
    """The best table of the bank, found by walking from the likeliest scale, and that scale."""
    mean = float(np.abs(values).mean())
    low = min(max(int(mean).bit_length() - KEPT_BITS, 0), (1 << LOW_BITS) - 1) if bound > SPLIT_ABOVE else 0
    # E|v| of a rounded Laplace variable is 1 / (2 sinh(1 / 2b)); solved for b, then SPEC 6.3's scale index.
    octaves = -log2(2 * asinh(2.0**low / (2 * mean)))
    scale = min(max(round(16 + 4 * octaves), 0), SCALES - 1)
    best = _measure(Laplace(scale, low), values, bound)
    for step in (-1, 1):
        index = scale + step
        while 0 <= index < SCALES:
            other = _measure(Laplace(index, low), values, bound)
            if other.bits >= best.bits:
                break
            best, scale, index = other, index, index + step
    return best, scale


def _class_weights(classes: Values) -> Values:
    weights: Values = np.where(classes == 0, 0, (2 + (classes - 1) % 2) << np.maximum(classes - 1, 0) // 2)
    return weights


def _classes(symbols: Values) -> tuple[int, ...]:
    """The class whose weight is nearest to each count, the most frequent value having the largest."""
    counts = np.bincount(symbols)
    weights = _class_weights(np.arange(1 << CLASS_BITS))
    nearest = np.searchsorted(weights[1:-1] + weights[2:], 2 * (counts * weights[-1] // counts.max())) + 1
    return tuple(np.where(counts == 0, 0, nearest).tolist())
