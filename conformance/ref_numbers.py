"""The tensors of a segment out of the symbols of their section: SPEC 7."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from .ref_coder import Adaptive, Stream, flat, laplace, table_from_counts
from .ref_errors import Refused

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

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
