"""Tensors written in any way that SPEC 7 leaves to writers, so that readers meet more than what one encoder finds shortest."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream.cdf import AdaptiveTable, flat
from nvc.bitstream.coders import Mode, choose, put_unsigned, write_adaptive, write_sequence
from nvc.bitstream.rangecoder import SymbolWriter
from nvc.bitstream.tensors import Kind, TensorSpec

Integers = NDArray[np.int64]

EXACT = 1 << 24


@dataclass(frozen=True)
class Coding:
    """How a tensor is written where SPEC 7 leaves a choice; sequences for which `modes` names none take the shortest mode."""

    modes: tuple[Mode, ...] = ()
    temporal: bool = False
    per_channel: bool = False
    returns: bool = False
    density: int = 0


@dataclass
class TensorWriter:
    """Writes one tensor into a stream, in its coding."""

    writer: SymbolWriter
    coding: Coding
    sequences: int = field(default=0)

    def tensor(self, spec: TensorSpec, numbers: Integers) -> None:
        """Numbers of the shape and within the range of their spec."""
        line = numbers.ravel()
        match spec.kind:
            case Kind.WEIGHT:
                self._sequence(line, 127)
            case Kind.BIAS:
                bits = int(np.bitwise_or.reduce(line))
                shift = min((bits & -bits).bit_length() - 1, 15) if bits else 0
                self.writer.put_bits(shift, 4)
                self._sequence(line >> shift, EXACT >> shift)
            case Kind.MULTIPLIER:
                self.writer.put_raw(line, 16)
            case Kind.GAIN:
                self.writer.put_raw(line + 4095, 13)
            case Kind.PHASE:
                self.writer.put_raw(line, 32)
            case Kind.CONSTANT:
                self._sequence(line, 2048)
            case Kind.EMBEDDING:
                self._embedding(numbers)
            case Kind.CODEBOOK:
                rows = int(np.flatnonzero(numbers.any(axis=1)).max(initial=-1)) + 1
                put_unsigned(self.writer, rows)
                if rows:
                    self._sequence(numbers[:rows].ravel(), 128)
            case Kind.TOKENS:
                self._tokens(numbers)

    def _sequence(self, line: Integers, bound: int) -> None:
        modes = self.coding.modes[self.sequences : self.sequences + 1]
        self.sequences += 1
        write_sequence(self.writer, line, bound, modes[0] if modes else choose(line, bound).mode)

    def _embedding(self, numbers: Integers) -> None:
        times, channels = numbers.shape[:2]
        self.writer.put_bits(int(self.coding.temporal), int(times > 1))
        self.writer.put_bits(int(self.coding.per_channel), int(channels > 1))
        for group in np.split(numbers, channels, axis=1) if self.coding.per_channel else [numbers]:
            if self.coding.temporal:
                self._sequence(group[0].ravel(), 2048)
                self._sequence(np.diff(group, axis=0).ravel(), 4095)
            else:
                self._sequence(group.ravel(), 2048)

    def _tokens(self, tokens: Integers) -> None:
        alphabet, returns = int(tokens.max()) + 1, self.coding.returns
        put_unsigned(self.writer, alphabet - 1)
        if alphabet == 1:
            return
        self.writer.put_bits(int(returns), int(len(tokens) > 2))
        forerunner = np.full(tokens.shape[1:], -1)
        earlier = last = np.zeros(tokens.shape[1:], dtype=bool)
        flags = [AdaptiveTable(flat(2), 2) for _ in range(5)]  # of the contexts and of returns
        new = [tokens[0].ravel()]
        for before, now in pairwise(tokens):
            changed = now != before
            context = _contexts(last, earlier)
            for number in range(4):
                write_adaptive(self.writer, changed[context == number].astype(np.int32), flags[number])
            back = changed & (now == forerunner) & returns
            if returns:
                write_adaptive(self.writer, back[changed & (forerunner >= 0)].astype(np.int32), flags[4])
            new.append(now[changed & ~back])
            forerunner = np.where(changed, before, forerunner)
            earlier, last = last, changed
        self.writer.put_bits(self.coding.density, 2)
        table = AdaptiveTable(flat(alphabet), max(alphabet >> 2 * self.coding.density, 1))
        write_adaptive(self.writer, np.concatenate(new).astype(np.int32), table)


def _contexts(last: NDArray[np.bool_], earlier: NDArray[np.bool_]) -> Integers:
    """The contexts of SPEC 7.6 by where tokens changed one and two frames before."""
    height, width = last.shape
    around = np.pad(last.astype(np.int64), 1)
    score = 4 * last.astype(np.int64) + 2 * earlier
    for dy in range(3):
        for dx in range(3):
            score += around[dy : dy + height, dx : dx + width]
    return np.digitize(score, (1, 4, 8))
