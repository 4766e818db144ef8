"""Token maps and their bytes: flags say which tokens change, and only codes that occur have a place in the table (SPEC 7.6)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .cdf import AdaptiveTable, flat
from .coders import Values, get_unsigned, put_unsigned, read_adaptive, write_adaptive
from .errors import InvalidError
from .rangecoder import CodeLength, SymbolReader, SymbolWriter

Flags = NDArray[np.bool_]

DENSITY_BITS: Final = 2
DENSITIES: Final = range(1 << DENSITY_BITS)
FLAG_MASS: Final = 2  # symbols: tells "mostly the same" from "hardly ever" within the first block

# Change comes in regions that move slowly, so where tokens changed in the two frames before says much about where they will
# next. Flags of the same frame say more of objects with sharp outlines, hardly more of filmed pictures, and could only be
# decoded one by one. A flag for the token before the last change pays where tokens waver between two codes, as they do near a
# boundary of the quantiser, and can be switched off where pictures are always new. A flag for the token that a neighbour had
# gained on objects that move by whole positions, and lost nearly everywhere else.
SELF_WEIGHT: Final = 4  # on top of its part in the 3x3 sum
EARLIER_WEIGHT: Final = 2
CONTEXT_STARTS: Final = (1, 4, 8)


def write_tokens(writer: SymbolWriter, values: Values) -> None:
    """Write values (T, h, w), 0..4095, with or without returns, and at the density, whichever is shortest."""
    alphabet = int(values.max()) + 1
    put_unsigned(writer, alphabet - 1)
    if alphabet == 1:
        return
    changed = np.zeros(values.shape, bool)
    changed[1:] = values[1:] != values[:-1]
    plans = []
    for returns in (False, True) if len(values) > 2 else (False,):
        returned = _returned(values, changed) if returns else np.zeros(values.shape, bool)
        flags = CodeLength()
        _write_flags(flags, changed, returned, returns)
        literals = values[_new(changed, returned)].astype(np.int32)
        for density in DENSITIES:
            length = CodeLength()
            write_adaptive(length, literals, _table(alphabet, density))
            plans.append((flags.bits + length.bits, returns, density, returned, literals))
    _, returns, density, returned, literals = min(plans, key=lambda plan: plan[0])
    writer.put_bits(int(returns), int(len(values) > 2))
    _write_flags(writer, changed, returned, returns)
    writer.put_bits(density, DENSITY_BITS)
    write_adaptive(writer, literals, _table(alphabet, density))


def read_tokens(reader: SymbolReader, shape: tuple[int, int, int], levels: int) -> Values:
    """Read what `write_tokens` wrote, (T, h, w) in 0..levels - 1; InvalidError `invalid.tensor_token` for anything else."""
    alphabet = get_unsigned(reader) + 1
    if alphabet > levels:
        raise InvalidError("tensor_token", f"tokens of an alphabet of {alphabet}, but the codebook has {levels} rows")
    values = np.zeros(shape, np.int64)
    if alphabet == 1:
        return values
    returns = reader.get_bits(int(shape[0] > 2)) == 1
    changed, returned = _read_flags(reader, shape, returns)
    table = _table(alphabet, reader.get_bits(DENSITY_BITS))
    new = _new(changed, returned)
    values[new] = read_adaptive(reader, int(new.sum()), table)
    earlier = np.full(shape[1:], -1, np.int64)  # the token before the last change; -1 equals none
    for t in range(1, len(values)):
        before = values[t - 1]
        if (new[t] & ((values[t] == before) | ((values[t] == earlier) & returns))).any():
            raise InvalidError("tensor_token", "a token sent as new equals the one before it, or one that it could return to")
        values[t] = np.where(new[t], values[t], np.where(returned[t], earlier, before))
        earlier = np.where(changed[t], before, earlier)
    if int(values.max()) != alphabet - 1:
        raise InvalidError("tensor_token", f"tokens of an alphabet of {alphabet} that reach only {values.max()}")
    return values


class _History:
    """Where tokens changed in the frames before: the contexts of the flags of the next frame, and the tables of all flags."""

    def __init__(self, height: int, width: int) -> None:
        self._last = np.zeros((height, width), bool)
        self._earlier = self._last
        self.ever = self._last
        self.changes = [AdaptiveTable(flat(2), FLAG_MASS) for _ in range(len(CONTEXT_STARTS) + 1)]
        self.returns = AdaptiveTable(flat(2), FLAG_MASS)

    def groups(self) -> list[tuple[Flags, AdaptiveTable]]:
        """The positions (h, w) of each context, which together are all, and the table of their flags."""
        sides = np.pad(self._last.astype(np.int32), 1)
        rows = sides[:-2] + sides[1:-1] + sides[2:]
        score = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + SELF_WEIGHT * self._last + EARLIER_WEIGHT * self._earlier
        context = np.searchsorted(CONTEXT_STARTS, score, side="right")
        return [(context == number, table) for number, table in enumerate(self.changes)]

    def follow(self, changed: Flags) -> None:
        """Take in the flags (h, w) of one more frame."""
        self._earlier, self._last, self.ever = self._last, changed, self.ever | changed


def _write_flags(writer: SymbolWriter, changed: Flags, returned: Flags, returns: bool) -> None:
    history = _History(*changed.shape[1:])
    for now, back in zip(changed[1:], returned[1:], strict=True):
        for group, table in history.groups():
            write_adaptive(writer, now[group].astype(np.int32), table)
        if returns:
            write_adaptive(writer, back[now & history.ever].astype(np.int32), history.returns)
        history.follow(now)


def _read_flags(reader: SymbolReader, shape: tuple[int, int, int], returns: bool) -> tuple[Flags, Flags]:
    """Where tokens change and where they return, each (T, h, w), False at t = 0."""
    changed, returned = np.zeros(shape, bool), np.zeros(shape, bool)
    history = _History(*shape[1:])
    for now, back in zip(changed[1:], returned[1:], strict=True):
        for group, table in history.groups():
            now[group] = read_adaptive(reader, int(group.sum()), table)
        if returns:
            again = now & history.ever
            back[again] = read_adaptive(reader, int(again.sum()), history.returns)
        history.follow(now)
    return changed, returned


def _returned(values: Values, changed: Flags) -> Flags:
    """Where a token changes to what stood there before its last change, (T, h, w)."""
    returned = np.zeros(values.shape, bool)
    earlier = np.full(values.shape[1:], -1, np.int64)
    for t in range(1, len(values)):
        returned[t] = changed[t] & (values[t] == earlier)
        earlier = np.where(changed[t], values[t - 1], earlier)
    return returned


def _new(changed: Flags, returned: Flags) -> Flags:
    """Where tokens are sent: in the first frame all."""
    new: Flags = changed & ~returned
    new[0] = True
    return new


def _table(alphabet: int, density: int) -> AdaptiveTable:
    """The table of new tokens: all alike, and together worth alphabet / 4^density symbols."""
    return AdaptiveTable(flat(alphabet), max(alphabet >> 2 * density, 1))
