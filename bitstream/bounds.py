"""The 2^24 proof: with a segment's numbers no sum can leave the integers that float32 holds exactly (SPEC 8.1).

Every value gets an interval per channel that holds for all inputs. An encoder proves it before it writes, a decoder before it
decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import arithmetic
from .analysis import Analysis
from .errors import InvalidError
from .program import Op, Operation

Integers = NDArray[np.int64]


@dataclass
class Proof:
    """Intervals of the values, each (C,) int64, and for every operation the largest magnitude any of its sums can reach."""

    low: list[Integers] = field(default_factory=list)
    high: list[Integers] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)


def prove(analysis: Analysis, tensors: Sequence[Integers]) -> Proof:
    """Bound every value; InvalidError `invalid.bound` names the first operation whose sums could pass 2^24.

    `tensors` are a segment's parameters in order, with the shapes of `analysis.specs`.
    """
    proof = Proof()
    for number, operation in enumerate(analysis.program.operations):
        low, high, reach = _interval(analysis, proof, operation, tensors, number)
        if reach > arithmetic.EXACT:
            raise InvalidError(
                "bound",
                f"operation {number} ({operation.code.name.lower()}) can reach {reach}, over 2^24: float32 would round it",
            )
        proof.low.append(low)
        proof.high.append(high)
        proof.reach.append(reach)
    return proof


def _interval(
    analysis: Analysis, proof: Proof, op: Operation, tensors: Sequence[Integers], number: int
) -> tuple[Integers, Integers, int]:
    made = analysis.maps[number]
    rule = _RULES.get(op.code)
    if rule is not None:
        low, high, reach = rule(proof, op, tensors)
        return low, high, reach
    # every other operation makes activations, whose range the program itself states
    low, high = np.full(made.channels, made.low, dtype=np.int64), np.full(made.channels, made.high, dtype=np.int64)
    reach = _wrap_reach(proof, op, tensors) if op.code is Op.REQUANTISE else 0
    return low, high, reach


def _reach(low: Integers, high: Integers) -> int:
    return int(max(np.abs(low).max(), np.abs(high).max()))


def _wrap_reach(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> int:
    """A phase is taken modulo 4096, so its integer must be exact before that."""
    if op["function"] != arithmetic.SINE:
        return 0
    largest = float(arithmetic.multiplier_value(tensors[op["multiplier"]]).max())
    return int(np.ceil(_reach(proof.low[op["x"]], proof.high[op["x"]]) * largest))


def _convolution(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    weight, bias = tensors[op["weight"]].astype(np.int64), tensors[op["bias"]].astype(np.int64)
    groups = op["groups"]
    # zero padding puts zeros beside the values, so the interval of a tap always holds 0
    low = np.minimum(proof.low[op["x"]], 0).reshape(groups, -1)
    high = np.maximum(proof.high[op["x"]], 0).reshape(groups, -1)
    taps = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    above, below = np.maximum(taps, 0), np.minimum(taps, 0)  # as low <= 0 <= high, the sign of a tap decides which end counts
    most = np.einsum("gock,gc->go", above, high) + np.einsum("gock,gc->go", below, low)
    least = np.einsum("gock,gc->go", above, low) + np.einsum("gock,gc->go", below, high)
    positive = most.reshape(-1) + np.maximum(bias, 0)
    negative = -least.reshape(-1) + np.maximum(-bias, 0)
    return -negative, positive, _reach(-negative, positive)


def _scaled(low: Integers, high: Integers, gain: int) -> tuple[Integers, Integers]:
    return np.minimum(low * gain, high * gain), np.maximum(low * gain, high * gain)


def _combine(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    gains = [int(gain) for gain in tensors[op["gains"]]]
    a = _scaled(proof.low[op["a"]], proof.high[op["a"]], gains[0])
    b = _scaled(proof.low[op["b"]], proof.high[op["b"]], gains[1])
    low, high = a[0] + b[0], a[1] + b[1]
    return low, high, max(_reach(*a), _reach(*b), _reach(low, high))


def _multiply(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    ends_a, ends_b = (proof.low[op["a"]], proof.high[op["a"]]), (proof.low[op["b"]], proof.high[op["b"]])
    corners = [a * b for a in ends_a for b in ends_b]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    return low, high, _reach(low, high)


def _embedding(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    edge = np.full(op["channels"], op["stride"], dtype=np.int64)
    low, high = edge * arithmetic.ACTIVATION_LOW, edge * arithmetic.ACTIVATION_HIGH
    return low, high, _reach(low, high)


def _gather(proof: Proof, op: Operation, channels: Integers) -> tuple[Integers, Integers, int]:
    low, high = proof.low[op["x"]][channels], proof.high[op["x"]][channels]
    return low, high, 0


def _unchanged(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    return _gather(proof, op, np.arange(proof.low[op["x"]].size))


def _shuffle(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    block = op["stride_height"] * op["stride_width"]
    low = proof.low[op["x"]].reshape(block, -1).min(axis=0)
    return low, proof.high[op["x"]].reshape(block, -1).max(axis=0), 0


def _bilinear(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    low, high = _scaled(proof.low[op["x"]], proof.high[op["x"]], 4 * op["factor"] ** 2)
    return low, high, _reach(low, high)


def _haar(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    largest = np.maximum(np.abs(proof.low[op["x"]]), np.abs(proof.high[op["x"]])).reshape(4, -1).sum(axis=0)
    return -largest, largest, _reach(-largest, largest)


def _concatenate(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    low = np.concatenate([proof.low[op["a"]], proof.low[op["b"]]])
    return low, np.concatenate([proof.high[op["a"]], proof.high[op["b"]]]), 0


def _slice(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    return _gather(proof, op, np.arange(op["first"], op["last"]))


def _output(proof: Proof, op: Operation, tensors: Sequence[Integers]) -> tuple[Integers, Integers, int]:
    nothing = np.zeros(0, dtype=np.int64)
    return nothing, nothing, 0


_RULES: dict[Op, Callable[[Proof, Operation, Sequence[Integers]], tuple[Integers, Integers, int]]] = {
    Op.EMBEDDING: _embedding,
    Op.CONVOLUTION: _convolution,
    Op.COMBINE: _combine,
    Op.MULTIPLY: _multiply,
    Op.SHUFFLE: _shuffle,
    Op.NEAREST: _unchanged,
    Op.BILINEAR: _bilinear,
    Op.HAAR: _haar,
    Op.CONCATENATE: _concatenate,
    Op.SLICE: _slice,
    Op.CROP: _unchanged,
    Op.OUTPUT: _output,
}
