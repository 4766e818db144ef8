"""The entropy coding of zstd: bitstreams, FSE and Huffman codes, as in section 4 of RFC 8878."""

from __future__ import annotations

from typing import NamedTuple

MAX_CODE_BITS = 11  # 4.2.1
MAX_WEIGHTS = 255  # 4.2.1.2: the last of 256 symbols has an implied weight


class ZstdError(ValueError):
    """The bytes are not one whole frame, or not one that `zstd.decompress` takes on."""


class Cell(NamedTuple):
    """A row of an FSE decoding table (4.1): the next state is `baseline` plus a number of `bits` bits."""

    symbol: int
    bits: int
    baseline: int


class Huffman(NamedTuple):
    """A prefix code as a table: entry i is (symbol, its bits) for the `depth` next bits i."""

    depth: int
    table: list[tuple[int, int]]


# ---- bits


class Bits:
    """A bitstream that is read from its end (4.1), `left` bits of it still to come; below 0 once too many were taken."""

    def __init__(self, data: bytes) -> None:
        require(len(data) > 0 and data[-1] > 0, "a bitstream has no end mark")
        self.data = data
        self.left = 8 * len(data) - 9 + data[-1].bit_length()

    def look(self, count: int) -> int:
        """The next `count` bits, with zeros behind the last."""
        there = max(min(count, self.left), 0)
        return field(self.data, self.left - there, there) << count - there

    def read(self, count: int) -> int:
        """Take the next `count` bits."""
        require(count <= self.left, "a bitstream ends early")
        self.left -= count
        return field(self.data, self.left, count)


def field(data: bytes, start: int, count: int) -> int:
    """`count` bits of the little-endian number `data`, from bit `start` on; the bits beyond its end are 0."""
    return int.from_bytes(data[start >> 3 : start + count + 7 >> 3], "little") >> (start & 7) & (1 << count) - 1


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ZstdError(message)


# ---- FSE (4.1)


def fse_table(data: bytes, alphabet: int, max_accuracy: int) -> tuple[list[Cell], int]:
    """The decoding table that `data` begins with (4.1.1), of symbols under `alphabet`, and how many bytes describe it."""
    accuracy = field(data, 0, 4) + 5
    require(accuracy <= max_accuracy, "an FSE table is too accurate")
    position, left = 4, 1 << accuracy
    probabilities: list[int] = []
    while left:
        require(len(probabilities) < alphabet, "an FSE table has too many symbols")
        width = (left + 1).bit_length()
        short = (1 << width) - 2 - left  # so many values take a bit less
        value = field(data, position, width - 1)
        position += width - 1
        if value >= short:
            value += field(data, position, 1) << width - 1
            position += 1
            value -= short if value >= 1 << width - 1 else 0
        probabilities.append(value - 1)
        left -= abs(value - 1)
        flag = 3 if value == 1 else 0
        while flag == 3 and len(probabilities) < alphabet:  # how many more symbols have the probability 0
            flag = field(data, position, 2)
            position += 2
            probabilities += [0] * flag
    used = position + 7 >> 3
    require(used <= len(data), "an FSE table is cut")
    return spread(probabilities, accuracy), used


def spread(probabilities: list[int], accuracy: int) -> list[Cell]:
    """The decoding table of a distribution, in which -1 stands for less than 1 (4.1.1)."""
    size = 1 << accuracy
    symbols = [0] * size
    end = size  # of the cells that are not those of the symbols with -1
    for symbol, probability in enumerate(probabilities):
        if probability == -1:
            end -= 1
            symbols[end] = symbol
    position = 0
    for symbol, probability in enumerate(probabilities):
        for _ in range(probability):
            symbols[position] = symbol
            position = position + size // 2 + size // 8 + 3 & size - 1
            while position >= end:
                position = position + size // 2 + size // 8 + 3 & size - 1
    following = [abs(probability) for probability in probabilities]
    table = []
    for symbol in symbols:
        state = following[symbol]
        following[symbol] += 1
        bits = accuracy + 1 - state.bit_length()
        table.append(Cell(symbol, bits, (state << bits) - size))
    return table


# ---- Huffman codes (4.2)


def huffman_code(data: bytes) -> tuple[Huffman, int]:
    """The code that `data` begins with (4.2.1), and how many bytes describe it."""
    require(len(data) > 0, "the Huffman code is cut")
    direct = data[0] >= 128  # 4.2.1.1
    count = data[0] - 127
    used = 1 + ((count + 1) // 2 if direct else data[0])
    require(len(data) >= used, "the Huffman code is cut")
    halves = [half for byte in data[1:used] for half in (byte >> 4, byte & 15)]
    weights = halves[:count] if direct else _weights(data[1:used])
    # 4.2.1, 4.2.1.3: the last weight is that which completes a power of 2
    total = sum(1 << weight >> 1 for weight in weights)
    depth = total.bit_length()
    require(max(*weights, depth) <= MAX_CODE_BITS, "a Huffman code is over 11 bits")
    rest = (1 << depth) - total
    weights.append(rest.bit_length())
    require(total > 0 and rest & rest - 1 == 0 and 1 in weights, "the Huffman code is not complete")
    table: list[tuple[int, int]] = []
    for weight in range(1, depth + 1):
        for symbol in [s for s, w in enumerate(weights) if w == weight]:
            table += [(symbol, depth + 1 - weight)] * (1 << weight - 1)
    return Huffman(depth, table), used


def _weights(data: bytes) -> list[int]:
    """All weights but the last, from two interleaved FSE states (4.2.1.2)."""
    table, used = fse_table(data, MAX_CODE_BITS + 1, 6)
    bits = Bits(data[used:])
    width = len(table).bit_length() - 1
    states = [bits.read(width), bits.read(width)]
    weights: list[int] = []
    while len(weights) <= MAX_WEIGHTS:
        turn = len(weights) % 2
        cell = table[states[turn]]
        weights.append(cell.symbol)
        if cell.bits > bits.left:
            weights.append(table[states[1 - turn]].symbol)
            break
        states[turn] = cell.baseline + bits.read(cell.bits)
    require(len(weights) <= MAX_WEIGHTS, "too many weights")
    return weights


def huffman_symbols(huffman: Huffman, data: bytes, count: int) -> bytes:
    """`count` symbols that must use up all bits of `data` (4.2.2)."""
    bits = Bits(data)
    symbols = bytearray()
    for _ in range(count):
        symbol, width = huffman.table[bits.look(huffman.depth)]
        bits.left -= width
        symbols.append(symbol)
    require(bits.left == 0, "the literals do not use up their bits")
    return bytes(symbols)
