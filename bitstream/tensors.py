"""The integer tensors of a segment and their bytes: one range-coded stream for all tensors of a section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Final

import numpy as np

from .coders import Choice, Values, choose, get_unsigned, put_unsigned, read_sequence, write_sequence
from .errors import InvalidError
from .rangecoder import (
    CodeLength,
    Integers,
    PythonRangeEncoder,
    RangeDecoder,
    RangeEncoder,
    SymbolReader,
    SymbolWriter,
)
from .tokens import read_tokens, write_tokens

MAX_TENSOR_VALUES: Final = 1 << 26
MAX_LEVELS: Final = 4096
MAX_BIAS: Final = 1 << 24
SHIFT_BITS: Final = 4


class Kind(Enum):
    """What a tensor is for; it decides rank, range and how the tensor is coded (`_RULES`, SPEC 7.1)."""

    WEIGHT = "weight"
    BIAS = "bias"
    MULTIPLIER = "multiplier"
    GAIN = "gain"
    PHASE = "phase"
    CONSTANT = "constant"
    EMBEDDING = "embedding"
    CODEBOOK = "codebook"
    TOKENS = "tokens"


@dataclass(frozen=True)
class TensorSpec:
    """What both sides know of a tensor before it is coded: kind, shape and, for TOKENS alone, levels (2..4096).

    InvalidError where there are more than 2^26 values; ValueError where rank, dimensions or levels do not suit the kind.
    """

    kind: Kind
    shape: tuple[int, ...]
    levels: int = 0

    def __post_init__(self) -> None:
        rule = _RULES[self.kind]
        if len(self.shape) != rule.rank or min(self.shape) < 1:
            raise ValueError(f"a {self.kind.value} tensor of shape {self.shape}: needs rank {rule.rank} and dimensions >= 1")
        if not (2 <= self.levels <= MAX_LEVELS if self.kind is Kind.TOKENS else self.levels == 0):
            raise ValueError(f"a {self.kind.value} tensor of {self.levels} levels (tokens: 2..4096)")
        if self.count > MAX_TENSOR_VALUES:
            raise InvalidError("tensor_shape", f"a {self.kind.value} tensor of shape {self.shape} has more than 2^26 values")

    @property
    def count(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest value allowed."""
        rule = _RULES[self.kind]
        return rule.least, self.levels - 1 if self.kind is Kind.TOKENS else rule.most


def write_tensors(
    items: Sequence[tuple[TensorSpec, Integers]],
    encoder: type[RangeEncoder] | type[PythonRangeEncoder] = RangeEncoder,
) -> bytes:
    """One section: all tensors in order, in one stream. The same arrays give the same bytes.

    ValueError where an array does not have its spec's shape, an integer type or values within the spec's range.
    """
    writer = encoder()
    for spec, values in items:
        _write_tensor(writer, spec, values)
    return writer.finish()


def read_tensors(
    specs: Sequence[TensorSpec],
    payload: bytes,
    decoder: Callable[[bytes], SymbolReader] = RangeDecoder,
) -> list[Integers]:
    """The tensors of a section, int32 but for PHASE, which is int64. InvalidError for all that no writer writes."""
    reader = decoder(payload)
    tensors = [_read_tensor(reader, spec) for spec in specs]
    reader.finish()
    return tensors


def coded_bits(spec: TensorSpec, values: Integers) -> float:
    """The bits that `values` take inside a section, headers included; a section adds about 20. ValueError as above."""
    length = CodeLength()
    _write_tensor(length, spec, values)
    return length.bits


def _write_tensor(writer: SymbolWriter, spec: TensorSpec, values: Integers) -> None:
    least, most = spec.range
    if values.shape != spec.shape or values.dtype.kind not in "iu":
        raise ValueError(f"{spec.kind.value}: need integers of shape {spec.shape}, got {values.dtype} {values.shape}")
    if int(values.min()) < least or int(values.max()) > most:
        raise ValueError(f"{spec.kind.value}: values {values.min()}..{values.max()} exceed {least}..{most}")
    _RULES[spec.kind].write(writer, spec, values.astype(np.int64))


def _read_tensor(reader: SymbolReader, spec: TensorSpec) -> Integers:
    least, most = spec.range
    values = _RULES[spec.kind].read(reader, spec)
    if int(values.min()) < least or int(values.max()) > most:
        found = f"{values.min()}..{values.max()}"
        raise InvalidError("tensor_range", f"{spec.kind.value} values {found} exceed {least}..{most}")
    return values.reshape(spec.shape).astype(np.int64 if spec.kind is Kind.PHASE else np.int32)


def _bound(spec: TensorSpec) -> int:
    return max(-spec.range[0], spec.range[1])


def _write_plain(writer: SymbolWriter, spec: TensorSpec, values: Values) -> None:
    flat_values = values.ravel()
    write_sequence(writer, flat_values, _bound(spec), choose(flat_values, _bound(spec)).mode)


def _read_plain(reader: SymbolReader, spec: TensorSpec) -> Values:
    return read_sequence(reader, spec.count, _bound(spec))


def _write_raw(writer: SymbolWriter, spec: TensorSpec, values: Values) -> None:
    least, most = spec.range
    writer.put_raw(values - least, (most - least).bit_length())


def _read_raw(reader: SymbolReader, spec: TensorSpec) -> Values:
    least, most = spec.range
    return reader.get_raw(spec.count, (most - least).bit_length()) + least


def _common_shift(values: Values) -> int:
    """The largest power of two that divides all values, at most 15; 0 for zeros."""
    bits = int(np.bitwise_or.reduce(values))
    return min((bits & -bits).bit_length() - 1, (1 << SHIFT_BITS) - 1) if bits else 0


def _write_bias(writer: SymbolWriter, spec: TensorSpec, values: Values) -> None:
    shift = _common_shift(values)
    writer.put_bits(shift, SHIFT_BITS)
    write_sequence(writer, values >> shift, MAX_BIAS >> shift, choose(values >> shift, MAX_BIAS >> shift).mode)


def _read_bias(reader: SymbolReader, spec: TensorSpec) -> Values:
    shift = reader.get_bits(SHIFT_BITS)
    values = read_sequence(reader, spec.count, MAX_BIAS >> shift) << shift
    common = _common_shift(values)
    if common != shift:
        raise InvalidError("tensor_shift", f"biases shifted by {shift} that have {common} zero bits in common")
    return values


def _write_embedding(writer: SymbolWriter, spec: TensorSpec, values: Values) -> None:
    frames, channels = spec.shape[:2]
    plans = [
        (temporal, per_channel, _plan_embedding(spec, values, temporal, per_channel))
        for temporal in range(1 + (frames > 1))
        for per_channel in range(1 + (channels > 1))
    ]
    temporal, per_channel, parts = min(plans, key=lambda plan: sum(choice.bits for _, _, choice in plan[2]))
    writer.put_bits(temporal, int(frames > 1))
    writer.put_bits(per_channel, int(channels > 1))
    for part, bound, choice in parts:
        write_sequence(writer, part, bound, choice.mode)


def _plan_embedding(spec: TensorSpec, values: Values, temporal: int, per_channel: int) -> list[tuple[Values, int, Choice]]:
    """The sequences of one way to code an embedding, each with its bound and its mode."""
    bound = _bound(spec)
    parts: list[tuple[Values, int]] = []
    for group in np.split(values, spec.shape[1], axis=1) if per_channel else [values]:
        parts.append((group[: 1 if temporal else None].ravel(), bound))
        if temporal:
            parts.append((np.diff(group, axis=0).ravel(), 2 * bound - 1))
    return [(part, limit, choose(part, limit)) for part, limit in parts]


def _read_embedding(reader: SymbolReader, spec: TensorSpec) -> Values:
    frames, channels, height, width = spec.shape
    temporal = reader.get_bits(int(frames > 1))
    per_channel = reader.get_bits(int(channels > 1))
    groups = []
    for _ in range(channels if per_channel else 1):
        frame = (1 if per_channel else channels) * height * width
        if temporal:
            first = read_sequence(reader, frame, _bound(spec))
            changes = read_sequence(reader, frame * (frames - 1), 2 * _bound(spec) - 1)
            group = np.cumsum(np.concatenate([first, changes]).reshape(frames, frame), axis=0)
        else:
            group = read_sequence(reader, frame * frames, _bound(spec))
        groups.append(group.reshape(frames, -1, height, width))
    return np.concatenate(groups, axis=1)


def _write_codebook(writer: SymbolWriter, spec: TensorSpec, values: Values) -> None:
    used = np.flatnonzero(values.any(axis=1))
    rows = int(used[-1]) + 1 if used.size else 0
    put_unsigned(writer, rows)
    if rows:
        _write_plain(writer, spec, values[:rows])


def _read_codebook(reader: SymbolReader, spec: TensorSpec) -> Values:
    levels, dimensions = spec.shape
    rows = get_unsigned(reader)
    if rows > levels:
        raise InvalidError("tensor_codebook", f"{rows} rows of a codebook that has {levels}")
    values = np.zeros(spec.shape, np.int64)
    if rows:
        values[:rows] = read_sequence(reader, rows * dimensions, _bound(spec)).reshape(rows, dimensions)
        if not values[rows - 1].any():
            raise InvalidError("tensor_codebook", "the last row that is sent of a codebook is all zeros; it must be left out")
    return values


def _write_tokens(writer: SymbolWriter, spec: TensorSpec, values: Values) -> None:
    write_tokens(writer, values)


def _read_tokens(reader: SymbolReader, spec: TensorSpec) -> Values:
    frames, height, width = spec.shape
    return read_tokens(reader, (frames, height, width), spec.levels)


@dataclass(frozen=True)
class _Rule:
    rank: int
    least: int
    most: int
    write: Callable[[SymbolWriter, TensorSpec, Values], None]
    read: Callable[[SymbolReader, TensorSpec], Values]


_RULES: Final = {
    Kind.WEIGHT: _Rule(4, -127, 127, _write_plain, _read_plain),
    Kind.BIAS: _Rule(1, -MAX_BIAS, MAX_BIAS, _write_bias, _read_bias),
    Kind.MULTIPLIER: _Rule(1, 0, 65535, _write_raw, _read_raw),
    Kind.GAIN: _Rule(1, -4095, 4095, _write_raw, _read_raw),
    Kind.PHASE: _Rule(1, 0, (1 << 32) - 1, _write_raw, _read_raw),
    Kind.CONSTANT: _Rule(3, -2048, 2047, _write_plain, _read_plain),
    Kind.EMBEDDING: _Rule(4, -2048, 2047, _write_embedding, _read_embedding),
    Kind.CODEBOOK: _Rule(2, -128, 127, _write_codebook, _read_codebook),
    Kind.TOKENS: _Rule(3, 0, MAX_LEVELS - 1, _write_tokens, _read_tokens),
}
