"""The numbers of a segment out of their bytes: SPEC 5.3, 5.4, 6 and 7 in integers, written to be read beside them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod

import numpy as np
from numpy.typing import NDArray

from .ref_errors import Refused

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Cumulative = list[int]
"""A table of K frequencies as the K + 1 sums c[0] = 0 .. c[K] = 2^24 (SPEC 5.1)."""

WORD = 1 << 32
STATE = (1 << 64) - 1
TOTAL = 24  # bits of the sum of a table


@dataclass(frozen=True)
class Spec:
    """What is known of a tensor before its section is read (SPEC 7.1); the kind in lower case, levels only of tokens."""

    kind: str
    shape: tuple[int, ...]
    levels: int = 0


def read_section(specs: Sequence[Spec], payload: bytes) -> list[Integers]:
    """The tensors of a section, in order, each int64 of its spec's shape (SPEC 7.1).

    What is decoded is bounded by the shapes, whatever the payload says. Refused: `invalid.range_*` where the stream is none of
    SPEC 5.2, `invalid.tensor_*` where its symbols break a rule of SPEC 7.
    """
    check_specs(specs)
    stream = Stream(payload)
    tensors = [_tensor(stream, spec) for spec in specs]
    stream.end()
    return tensors


def check_specs(specs: Sequence[Spec]) -> None:
    """T1 of SPEC 7.1."""
    for spec in specs:
        if prod(spec.shape) > 1 << 26:
            raise Refused("invalid.tensor_shape", f"a {spec.kind} of shape {spec.shape}")


# ---- 5.3, 5.4 range decoder


class Stream:
    """The decoder of SPEC 5.3; words beyond the end read as 0, which `end` finds out."""

    def __init__(self, payload: bytes) -> None:
        if len(payload) % 4:
            raise Refused("invalid.range_words", f"a stream of {len(payload)} bytes is not made of words of 4")  # R1
        self.words = np.frombuffer(payload, dtype="<u4").astype(np.uint32).data  # its items are Python integers
        self.low, self.range, self.next = 0, STATE, 2
        self.offset = self._word(0) * WORD + self._word(1)
        self.coded = False

    def _word(self, number: int) -> int:
        return self.words[number] if number < len(self.words) else 0

    def symbols(self, n: int, table: Cumulative) -> Integers:
        """The next n symbols, all of one table."""
        low, span, offset = self.low, self.range, self.offset
        symbols = array("q")
        for _ in range(n):
            scale = span >> TOTAL
            q = offset // scale
            if q >= 1 << TOTAL:
                raise Refused("invalid.range_data", "no symbol has this code")  # R2
            s = bisect_right(table, q) - 1
            symbols.append(s)
            start = scale * table[s]
            offset -= start
            low = (low + start) & STATE
            span = scale * (table[s + 1] - table[s])
            if span < WORD:
                offset = offset * WORD + self._word(self.next)
                low = (low << 32) & STATE
                span <<= 32
                self.next += 1
        self.low, self.range, self.offset, self.coded = low, span, offset, self.coded or n > 0
        return np.frombuffer(symbols, dtype=np.int64)

    def end(self) -> None:
        """R3: the stream is the one that an encoder writes for the symbols that were decoded."""
        end = ((self.low + self.range) & STATE) >> 32
        last = ((self.low + WORD - 1) & STATE) >> 32
        words = (self.next if end == last else self.next - 1) if self.coded else 0
        if len(self.words) != words or (self.coded and self.offset != (last * WORD - self.low) & STATE):
            raise Refused("invalid.range_end", f"{len(self.words)} words are not the stream of these symbols")

    def raw(self, n: int, width: int) -> Integers:
        """`raw(n, width)` of SPEC 5.4: n numbers of `width` bits in pieces of at most 8, the most significant first."""
        numbers = np.zeros(n, dtype=np.int64)
        while width > 0:
            piece = min(width, 8)
            numbers = numbers << piece | self.symbols(n, flat(1 << piece))
            width -= piece
        return numbers

    def bits(self, width: int) -> int:
        return int(self.raw(1, width)[0])

    def unsigned(self) -> int:
        z = self.bits(5)
        return self.bits(z) - 1 + (1 << z)

    def signed(self) -> int:
        magnitude = self.unsigned()
        return -magnitude if magnitude and self.bits(1) else magnitude


# ---- 6 probability tables


def table_from_counts(counts: Integers) -> Cumulative:
    """SPEC 6.1. As counts add up to at most 2^38, the products stay below 2^62."""
    total = int(counts.sum())
    if total == 0:
        counts, total = np.ones_like(counts), len(counts)
    frequencies = 1 + counts * ((1 << TOTAL) - len(counts)) // total
    frequencies[counts.argmax()] += (1 << TOTAL) - frequencies.sum()
    return [0, *accumulate(frequencies.tolist())]


@lru_cache(maxsize=256)
def flat(k: int) -> Cumulative:
    """SPEC 6.2."""
    return table_from_counts(np.ones(k, dtype=np.int64))


# fmt: off
NONZERO = (
    1440801, 5145013, 15004422, 36905875, 78665070, 148652826, 253857248, 398132550,
    581260615, 799036310, 1044178424, 1307656790, 1580030169, 1852521207, 2117713904, 2369882518,
    2605029347, 2820730047, 3015876649, 3190386796, 3344923893, 3480652712, 3599040369, 3701703250,
    3790295335, 3866431115, 3931635878, 3987316692, 4034748382, 4075069962, 4109287957, 4138284039,
    4162825044, 4183574096, 4201101925, 4215897841, 4228380000, 4238904802, 4247775344, 4255248918,
    4261543595, 4266843974, 4271306145, 4275061981, 4278222805, 4280882540, 4283120382, 4285003080,
    4286586875, 4287919135, 4289039749, 4289982295, 4290775039, 4291441769, 4292002499, 4292474072,
    4292870656, 4293204170, 4293484642, 4293720503, 4293918848, 4294085643, 4294225905, 4294343854,
)
# fmt: on


@lru_cache(maxsize=128)
def laplace(index: int, bound: int) -> tuple[int, Cumulative]:
    """The limit L of SPEC 6.3 and the table `laplace(index, bound)`; symbol 2 L + 1, where the table has it, is an escape."""
    tail = [NONZERO[index]]  # of 2^32, for each k the count of all values above k
    ratio = NONZERO[index] ** 2 >> 32
    while len(tail) == 1 or (len(tail) <= min(bound, 2047) and tail[-1] >= 1 << 20):
        tail.append(tail[-1] * ratio >> 32)
    limit = len(tail) - 1
    sides = [tail[k - 1] - tail[k] for k in range(1, limit + 1)]
    counts = [*reversed(sides), 2 * (WORD - tail[0]), *sides]
    if limit < bound:
        counts.append(2 * tail[limit])
    return limit, table_from_counts(np.array(counts, dtype=np.int64))


class Adaptive:
    """An adaptive table (SPEC 6.4): its counts, kept from one run of symbols to the next."""

    def __init__(self, start: Cumulative, mass: int) -> None:
        frequencies = np.diff(np.array(start, dtype=np.int64)).astype(np.int64)
        self.counts = np.maximum(frequencies * (32 * mass) >> TOTAL, 1)

    def symbols(self, stream: Stream, n: int) -> Integers:
        """The next n symbols; the positions that make the blocks count from 0."""
        symbols = np.zeros(n, dtype=np.int64)
        begin = 0
        while begin < n:
            end = min(begin + min(max(begin, 16), 2048), n)
            symbols[begin:end] = stream.symbols(end - begin, table_from_counts(self.counts))
            self.counts += 32 * np.bincount(symbols[begin:end], minlength=len(self.counts))
            if self.counts.sum() >= 1 << 20:
                self.counts = (self.counts + 1) >> 1
            begin = end
        return symbols


# ---- 7.2, 7.3 sequences


def sequence(stream: Stream, n: int, bound: int) -> Integers:
    return MODES[stream.bits(2)](stream, n, bound)


def _constant_mode(stream: Stream, n: int, _: int) -> Integers:
    return np.full(n, stream.signed(), dtype=np.int64)


def _laplace_mode(stream: Stream, n: int, bound: int) -> Integers:
    """SPEC 7.3, with the two numbers of 7.2 before it."""
    index = stream.bits(6)
    low = stream.bits(4) if bound > 4095 else 0
    half = (1 << low) >> 1
    shifted = max((bound + half) >> low, 1)
    limit, table = laplace(index, shifted)
    h = _with_escapes(stream, stream.symbols(n, table), limit, shifted)
    return (h << low) + stream.raw(n, low) - half


def _adaptive_mode(stream: Stream, n: int, bound: int) -> Integers:
    limit, table = laplace(stream.bits(6), bound)
    mass = (8, 64, 512, 4096)[stream.bits(2)]
    return _with_escapes(stream, Adaptive(table, mass).symbols(stream, n), limit, bound)


def _histogram_mode(stream: Stream, n: int, _: int) -> Integers:
    first = stream.signed()
    k = stream.unsigned() + 2
    if k > 4097:
        raise Refused("invalid.tensor_histogram", f"a histogram of {k} values")  # T3
    return first + stream.symbols(n, table_from_counts(CLASSES[stream.raw(k, 5)]))


CLASSES = np.array([0, *((2 + (c - 1) % 2) * 2 ** ((c - 1) // 2) for c in range(1, 32))], dtype=np.int64)  # w of SPEC 7.2
MODES: tuple[Callable[[Stream, int, int], Integers], ...] = (_constant_mode, _laplace_mode, _adaptive_mode, _histogram_mode)


def _with_escapes(stream: Stream, symbols: Integers, limit: int, bound: int) -> Integers:
    """The values of symbols of a table of SPEC 6.3, after reading those of the escapes (SPEC 7.3, step 2)."""
    values = symbols - limit
    escaped = np.flatnonzero(symbols == 2 * limit + 1)  # no symbol, where the limit is the bound
    sizes = (bound - limit).bit_length()
    z = stream.symbols(len(escaped), flat(sizes)) if sizes > 1 else np.zeros(len(escaped), dtype=np.int64)
    negative = stream.raw(len(escaped), 1) == 1
    e = np.ones(len(escaped), dtype=np.int64) << z
    for size in range(1, sizes):
        e[z == size] += stream.raw(int((z == size).sum()), size)
    values[escaped] = np.where(negative, -limit - e, limit + e)
    return values


# ---- 7.1, 7.4 to 7.7 tensors


def _tensor(stream: Stream, spec: Spec) -> Integers:
    tensor = READERS[spec.kind](stream, spec).reshape(spec.shape)
    low, high = (0, spec.levels - 1) if spec.kind == "tokens" else RANGES[spec.kind]
    if tensor.min() < low or tensor.max() > high:
        raise Refused("invalid.tensor_range", f"a {spec.kind} holds numbers outside {low}..{high}")  # T2
    return tensor


def _weight(stream: Stream, spec: Spec) -> Integers:
    return sequence(stream, prod(spec.shape), 127)


def _bias(stream: Stream, spec: Spec) -> Integers:
    """SPEC 7.4."""
    shift = stream.bits(4)
    values = sequence(stream, prod(spec.shape), (1 << 24) >> shift) << shift
    together = int(np.bitwise_or.reduce(values))  # 2^k divides it where 2^k divides all
    largest = min((together & -together).bit_length() - 1, 15) if together else 0
    if shift != largest:
        raise Refused("invalid.tensor_shift", f"biases shifted by {shift} instead of {largest}")  # T4
    return values


def _multiplier(stream: Stream, spec: Spec) -> Integers:
    return stream.raw(prod(spec.shape), 16)


def _gain(stream: Stream, spec: Spec) -> Integers:
    return stream.raw(prod(spec.shape), 13) - 4095


def _phase(stream: Stream, spec: Spec) -> Integers:
    return stream.raw(prod(spec.shape), 32)


def _constant(stream: Stream, spec: Spec) -> Integers:
    return sequence(stream, prod(spec.shape), 2048)


def _embedding(stream: Stream, spec: Spec) -> Integers:
    """SPEC 7.5."""
    times, channels, height, width = spec.shape
    temporal = times > 1 and stream.bits(1) == 1
    per_channel = channels > 1 and stream.bits(1) == 1
    groups = channels if per_channel else 1
    shape = (times, channels // groups, height, width)
    return np.concatenate([_group(stream, shape, temporal) for _ in range(groups)], axis=1)


def _group(stream: Stream, shape: tuple[int, ...], temporal: bool) -> Integers:
    if not temporal:
        return sequence(stream, prod(shape), 2048).reshape(shape)
    first = sequence(stream, prod(shape[1:]), 2048)
    differences = sequence(stream, (shape[0] - 1) * len(first), 4095)
    return np.concatenate([first, differences]).reshape(shape).cumsum(axis=0)


def _tokens(stream: Stream, spec: Spec) -> Integers:
    """SPEC 7.6."""
    used = stream.unsigned() + 1
    if used > spec.levels:
        raise Refused("invalid.tensor_token", f"{used} of {spec.levels} levels in use")  # T5
    if used == 1:
        return np.zeros(spec.shape, dtype=np.int64)
    with_returns = spec.shape[0] > 2 and stream.bits(1) == 1
    changed, returned = _flags(stream, spec.shape, with_returns)
    new = changed & ~returned
    new[0] = True
    mass = max(used >> 2 * stream.bits(2), 1)
    tokens = np.zeros(spec.shape, dtype=np.int64)
    tokens[new] = Adaptive(flat(used), mass).symbols(stream, int(new.sum()))
    _follow(tokens, changed, returned, with_returns)
    if tokens.max() != used - 1:
        raise Refused("invalid.tensor_token", f"the highest token is {tokens.max()} instead of {used - 1}")  # T5
    return tokens


def _flags(stream: Stream, shape: tuple[int, ...], with_returns: bool) -> tuple[Flags, Flags]:
    """Which tokens are changed, and which of those are returns: SPEC 7.6, step 2."""
    contexts = [Adaptive(flat(2), 2) for _ in range(4)]
    of_returns = Adaptive(flat(2), 2)
    changed, returned = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    has_forerunner = np.zeros(shape[1:], dtype=np.bool_)
    for t in range(1, shape[0]):
        context = _context(changed, t)
        for number, table in enumerate(contexts):
            places = context == number
            changed[t][places] = table.symbols(stream, int(places.sum()))
        if with_returns:
            places = changed[t] & has_forerunner
            returned[t][places] = of_returns.symbols(stream, int(places.sum()))
        has_forerunner |= changed[t]
    return changed, returned


def _context(changed: Flags, t: int) -> Integers:
    """The context of every position at t, each 0 to 3."""
    _, height, width = changed.shape
    before = np.pad(changed[t - 1].astype(np.int64), 1)
    score = np.zeros((height, width), dtype=np.int64)
    for dy in range(3):
        for dx in range(3):
            score += before[dy : dy + height, dx : dx + width]
    score += 4 * changed[t - 1]
    if t >= 2:
        score += 2 * changed[t - 2]
    return np.searchsorted(np.array([1, 4, 8]), score, side="right")


def _follow(tokens: Integers, changed: Flags, returned: Flags, with_returns: bool) -> None:
    """Fills in the tokens that are not new, frame by frame, and checks those that are (T6)."""
    forerunner = np.full(tokens.shape[1:], -1)  # of a change at the next t; -1 where there is none
    for t in range(1, len(tokens)):
        before, new = tokens[t - 1], changed[t] & ~returned[t]
        tokens[t] = np.where(new, tokens[t], np.where(returned[t], forerunner, before))
        if np.any(new & ((tokens[t] == before) | (with_returns & (tokens[t] == forerunner)))):
            raise Refused("invalid.tensor_token", f"a new token at {t} is not new")
        forerunner = np.where(changed[t], before, forerunner)


def _codebook(stream: Stream, spec: Spec) -> Integers:
    """SPEC 7.7."""
    rows, columns = spec.shape
    sent = stream.unsigned()
    if sent > rows:
        raise Refused("invalid.tensor_codebook", f"{sent} rows of {rows}")  # T7
    book = np.zeros(spec.shape, dtype=np.int64)
    if sent:
        book[:sent] = sequence(stream, sent * columns, 128).reshape(sent, columns)
        if not book[sent - 1].any():
            raise Refused("invalid.tensor_codebook", f"row {sent - 1} is sent and all zeros")  # T8
    return book


READERS: dict[str, Callable[[Stream, Spec], Integers]] = {
    "weight": _weight,
    "bias": _bias,
    "multiplier": _multiplier,
    "gain": _gain,
    "phase": _phase,
    "constant": _constant,
    "embedding": _embedding,
    "codebook": _codebook,
    "tokens": _tokens,
}
RANGES = {
    "weight": (-127, 127),
    "bias": (-(1 << 24), 1 << 24),
    "multiplier": (0, 65535),
    "gain": (-4095, 4095),
    "phase": (0, (1 << 32) - 1),
    "constant": (-2048, 2047),
    "embedding": (-2048, 2047),
    "codebook": (-128, 127),
}
