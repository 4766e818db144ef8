"""Range coding with integer tables: the fast coder, and its twin in plain integers, which is the definition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final, TypeVar

import constriction
import numpy as np
from numpy.typing import NDArray

from .cdf import MAX_ALPHABET, TOTAL, TOTAL_BITS, Table, flat
from .errors import InvalidError

Symbols = NDArray[np.int32]
Integers = NDArray[np.integer[Any]]

MAX_RAW_BITS: Final = 32
WORD: Final = (1 << 32) - 1
STATE: Final = (1 << 64) - 1

T = TypeVar("T")


class SymbolWriter(ABC):
    """Takes symbols with their tables, in the order in which a SymbolReader will give them back."""

    @abstractmethod
    def put(self, symbols: Symbols, freqs: Table) -> None:
        """Code `symbols` (n,), each 0..K-1, with table `freqs` (K,); ValueError where either is out of range."""

    def put_raw(self, values: Integers, width: int) -> None:
        """Code `values` (n,) as plain numbers 0..2^width - 1, width 0..32: the top 8 bits of all, then the next 8."""
        wide = values.astype(np.int64)
        if wide.size and (width > MAX_RAW_BITS or int(wide.min()) < 0 or int(wide.max()) >> width):
            raise ValueError(f"a value does not fit {width} bits")
        for shift, size in _chunks(width):
            self.put((wide >> shift & (1 << size) - 1).astype(np.int32), flat(1 << size))

    def put_bits(self, value: int, width: int) -> None:
        """Code one plain number 0..2^width - 1, width 0..32."""
        self.put_raw(np.array([value], np.int64), width)


class SymbolReader(ABC):
    """Gives back what a SymbolWriter took; the caller repeats every table and count."""

    @abstractmethod
    def get(self, count: int, freqs: Table) -> Symbols:
        """Decode `count` symbols (count,) with table `freqs` (K,); each is 0..K-1. InvalidError on impossible data.

        Never take a count from a payload: it must follow from shapes that were checked against the limits.
        """

    @abstractmethod
    def finish(self) -> None:
        """Raise InvalidError unless the payload is exactly what the encoder writes for the symbols decoded."""

    def get_raw(self, count: int, width: int) -> NDArray[np.int64]:
        """Decode what `put_raw` wrote: (count,) numbers 0..2^width - 1."""
        values = np.zeros(count, np.int64)
        for _, size in _chunks(width):
            values = values << size | self.get(count, flat(1 << size))
        return values

    def get_bits(self, width: int) -> int:
        """Decode one plain number 0..2^width - 1."""
        return int(self.get_raw(1, width)[0])


def _chunks(width: int) -> Iterator[tuple[int, int]]:
    """(shift, size) of the pieces of at most 8 bits, most significant first, in which a number is coded."""
    while width > 0:
        size = min(8, width)
        width -= size
        yield width, size


class RangeEncoder(SymbolWriter):
    """The fast encoder."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def put(self, symbols: Symbols, freqs: Table) -> None:
        _check(symbols, freqs)
        if symbols.size:
            self._coder.encode(np.ascontiguousarray(symbols), _model(freqs))

    def finish(self) -> bytes:
        """The coded bytes: little-endian 32-bit words; empty when nothing was coded."""
        return self._words().astype("<u4").tobytes()

    def _words(self) -> NDArray[np.uint32]:
        words: NDArray[np.uint32] = self._coder.get_compressed()
        return words


class RangeDecoder(SymbolReader):
    """The fast decoder."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        words = np.array(_words(payload), np.uint32)
        self._coder = _guarded(lambda: constriction.stream.queue.RangeDecoder(words))
        # The library cannot tell where a stream ends. Encoding anew what was decoded can, at a quarter of the time.
        self._mirror = RangeEncoder()

    def get(self, count: int, freqs: Table) -> Symbols:
        _check_table(freqs)
        if count == 0:
            return np.zeros(0, np.int32)
        model = _model(freqs)
        symbols: Symbols = _guarded(lambda: self._coder.decode(model, count))
        self._mirror.put(symbols, freqs)
        return symbols

    def finish(self) -> None:
        if self._mirror.finish() != self._payload:
            raise _trailing()


class PythonRangeEncoder(SymbolWriter):
    """The definition of the encoder (SPEC 5.2), in integers alone."""

    def __init__(self) -> None:
        self._low = 0
        self._range = STATE
        self._words: list[int] = []

    def put(self, symbols: Symbols, freqs: Table) -> None:
        _check(symbols, freqs)
        table = freqs.tolist()
        below = [0, *accumulate(table)]
        for symbol in symbols.tolist():
            scale = self._range >> TOTAL_BITS
            self._range = scale * table[symbol]
            self._advance(scale * below[symbol])
            if self._range <= WORD:
                self._words.append(self._low >> 32)
                self._low = self._low << 32 & STATE
                self._range <<= 32

    def finish(self) -> bytes:
        """The coded bytes: little-endian 32-bit words; empty when nothing was coded."""
        if self._range != STATE:
            end = (self._low + self._range & STATE) >> 32
            self._advance(WORD)
            self._words.append(self._low >> 32)
            if end == self._words[-1]:
                self._words.append(0)
        return np.array(self._words, "<u4").tobytes()

    def _advance(self, amount: int) -> None:
        """Add to the lower end of the interval; a carry runs back through the words already written."""
        self._low += amount
        if self._low > STATE:
            self._low &= STATE
            last = len(self._words) - 1
            while self._words[last] == WORD:
                self._words[last] = 0
                last -= 1
            self._words[last] += 1


class PythonRangeDecoder(SymbolReader):
    """The definition of the decoder (SPEC 5.3), in integers alone."""

    def __init__(self, payload: bytes) -> None:
        self._words = [int(word) for word in _words(payload)]
        self._next = 2
        self._range = STATE
        self._offset = self._word(0) << 32 | self._word(1)  # the code point minus the lower end of the interval
        self._low = 0

    def get(self, count: int, freqs: Table) -> Symbols:
        _check_table(freqs)
        table = freqs.tolist()
        below = [0, *accumulate(table)]
        symbols = np.zeros(count, np.int32)
        for i in range(count):
            scale = self._range >> TOTAL_BITS
            quantile = self._offset // scale
            if quantile >= TOTAL:
                raise _impossible()
            symbol = bisect_right(below, quantile) - 1
            symbols[i] = symbol
            self._offset -= scale * below[symbol]
            self._low = self._low + scale * below[symbol] & STATE
            self._range = scale * table[symbol]
            if self._range <= WORD:
                self._offset = self._offset << 32 | self._word(self._next)
                self._low = self._low << 32 & STATE
                self._range <<= 32
                self._next += 1
        return symbols

    def finish(self) -> None:
        if self._range == STATE:
            used = 0
        else:
            end = (self._low + self._range & STATE) >> 32
            last = (self._low + WORD & STATE) >> 32
            used = self._next + (end == last) - 1
            if self._offset != (last << 32) - self._low & STATE:
                raise _trailing()
        if used != len(self._words):
            raise _trailing()

    def _word(self, index: int) -> int:
        return self._words[index] if index < len(self._words) else 0


class CodeLength(SymbolWriter):
    """Writes nothing and adds up the ideal code length; encoders use it to choose, decoders never see it."""

    def __init__(self) -> None:
        self.bits = 0.0

    def put(self, symbols: Symbols, freqs: Table) -> None:
        _check(symbols, freqs)
        self.bits += float(np.bincount(symbols, minlength=len(freqs)) @ (TOTAL_BITS - np.log2(freqs)))


def _check_table(freqs: Table) -> None:
    if not 2 <= len(freqs) <= MAX_ALPHABET or int(freqs.min()) < 1 or int(freqs.sum()) != TOTAL:
        raise ValueError("a table needs 2..4097 frequencies >= 1 that sum to 2^24")


def _check(symbols: Symbols, freqs: Table) -> None:
    _check_table(freqs)
    if symbols.size and (int(symbols.min()) < 0 or int(symbols.max()) >= len(freqs)):
        raise ValueError("a symbol is not in its table")


def _model(freqs: Table) -> Any:
    # The library spreads 2^24 - K over the K numbers it is given and adds 1 to each: these come out as they are.
    return constriction.stream.model.Categorical((freqs - 1).astype(np.float64), perfect=False)


def _words(payload: bytes) -> NDArray[np.uint32]:
    if len(payload) % 4:
        raise InvalidError("range_words", f"{len(payload)} range-coded bytes are not a whole number of 32-bit words")
    return np.frombuffer(payload, "<u4")


def _guarded(call: Callable[[], T]) -> T:
    """Run one call of the library; a Rust panic is a BaseException, so that nothing less than all of them will do."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise _impossible() from error


def _impossible() -> InvalidError:
    return InvalidError("range_data", "range-coded data that no encoder writes; the file was made by a broken encoder")


def _trailing() -> InvalidError:
    return InvalidError("range_end", "a range-coded section does not end where its last symbol does")
