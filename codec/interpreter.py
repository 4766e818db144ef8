"""Runs programs in torch: SPEC 8.4 and 8.5 on integers in float32, a batch of frames at a time.

Nothing here decides anything: a program was analysed and its bounds were proven before (nvc.bitstream.analysis, .bounds),
so every float32 below holds an integer exactly, whatever kernel, thread count, batch or layout computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nvc.bitstream import arithmetic, tables
from nvc.bitstream.analysis import Analysis
from nvc.bitstream.program import Op, Operation

from . import exact
from .metrics import Planes
from .staging import Pending, Staging

Step = Callable[[list[Tensor], Tensor], Tensor]

# operations whose value is theirs alone, so that a sole reader may overwrite it
_FRESH = frozenset({Op.CONVOLUTION, Op.COMBINE, Op.MULTIPLY, Op.BILINEAR, Op.HAAR})


class Interpreter:
    """One segment's program with its numbers, on one device.

    `tensors` are the parameters in order, int64, as `analysis.specs(frames)` describes them; `batch` is the only batch size
    that is ever run (shorter ones are padded), because kernels were tested at it.
    """

    def __init__(
        self, analysis: Analysis, tensors: Sequence[NDArray[np.int64]], frames: int, batch: int, device: torch.device
    ) -> None:
        self.analysis, self.tensors, self.frames, self.batch, self.device = analysis, tensors, frames, batch, device
        operations = analysis.program.operations
        self._last = analysis.program.last_uses()
        reads = [value for operation in operations for value in operation.references("value")]
        self._sole = [reads.count(number) == 1 for number in range(len(operations))]
        self._staging = Staging(device, batch, [(made.height, made.width) for made in analysis.outputs])
        with exact.pinned():
            self._steps = [self._compile(number, operation) for number, operation in enumerate(operations[:-1])]

    def launch(self, first: int, count: int) -> Pending:
        """Begin frames first .. first + count - 1 of the segment, count <= batch, and do not wait for the device.

        Batches that are launched one after the other come one after the other; on a processor this one is done on return.
        """
        times = torch.arange(first, first + self.batch, device=self.device).clamp_(max=self.frames - 1)
        with exact.pinned():
            values: list[Tensor] = []
            keep = self.analysis.program.operations[-1].arguments
            for number, step in enumerate(self._steps):
                values.append(step(values, times))
                for value in self.analysis.program.operations[number].references("value"):
                    if self._last[value] == number:
                        values[value] = times  # dropped: its memory is free again
            return self._staging.send([values[value][:count, 0] for value in keep])

    def render(self, first: int, count: int) -> Planes:
        """Planes (count, H, W) uint8 of frames first .. first + count - 1 of the segment, count <= batch."""
        return self.launch(first, count).planes()

    def _compile(self, number: int, operation: Operation) -> Step:
        return _COMPILERS[operation.code](self, number, operation)

    def _tensor(self, number: int, *shape: int) -> Tensor:
        return torch.from_numpy(self.tensors[number].astype(np.float32)).reshape(shape).to(self.device)

    def _owned(self, value: int) -> bool:
        return self._sole[value] and self.analysis.program.operations[value].code in _FRESH


def _embedding(run: Interpreter, number: int, op: Operation) -> Step:
    codes = run._tensor(op["codes"], -1, op["channels"], op["height"], op["width"])
    offset, stride = op["offset"], op["stride"]

    def step(_: list[Tensor], times: Tensor) -> Tensor:
        t = (times + offset).clamp(0, run.frames - 1)
        if stride == 1:
            return codes[t]
        index, part = t // stride, (t % stride).reshape(-1, 1, 1, 1).float()
        return (stride - part) * codes[index] + part * codes[(index + 1).clamp(max=len(codes) - 1)]

    return step


def _tokens(run: Interpreter, number: int, op: Operation) -> Step:
    book = run._tensor(op["codebook"], op["levels"], op["dimensions"])
    tokens = (
        torch.from_numpy(run.tensors[op["tokens"]].astype(np.int64))
        .reshape(-1, op["height"], op["width"])
        .to(run.device)
    )
    return lambda _, times: book[tokens[(times + op["offset"]).clamp(0, run.frames - 1)]].permute(0, 3, 1, 2)


def _fixed(run: Interpreter, value: Tensor) -> Step:
    spread = value.to(run.device).expand(run.batch, -1, -1, -1)
    return lambda _, __: spread


def _constant(run: Interpreter, number: int, op: Operation) -> Step:
    return _fixed(run, run._tensor(op["codes"], 1, op["channels"], op["height"], op["width"]))


def _coordinates(run: Interpreter, number: int, op: Operation) -> Step:
    size = op["width"] if op["axis"] else op["height"]
    line = torch.arange(1 - size, size, 2, dtype=torch.float32)
    shape = (1, 1, 1, size) if op["axis"] else (1, 1, size, 1)
    return _fixed(run, line.reshape(shape).expand(1, 1, op["height"], op["width"]))


def _phases(run: Interpreter, number: int, op: Operation) -> Step:
    t = np.arange(run.frames, dtype=np.int64)[:, None]
    angles = (t * run.tensors[op["frequency"]][None] + run.tensors[op["phase"]][None]) % (1 << 32) >> 20
    waves = torch.from_numpy(tables.table(tables.SINE)[angles].astype(np.float32)).to(run.device)
    return lambda _, times: waves[times][:, :, None, None]


def _convolution(run: Interpreter, number: int, op: Operation) -> Step:
    source = run.analysis.maps[op["x"]]
    groups = op["groups"]
    weight = run._tensor(
        op["weight"], op["channels"], source.channels // groups, op["kernel_height"], op["kernel_width"]
    )
    weight = weight.contiguous(memory_format=torch.channels_last)
    bias = run._tensor(op["bias"], op["channels"])
    shape = (run.batch, source.channels, source.height, source.width)
    convolve = exact.choose(shape, weight, bias, groups)
    x = op["x"]
    return lambda values, _: convolve(exact.arranged(values[x]), weight, bias, groups)


def _combine(run: Interpreter, number: int, op: Operation) -> Step:
    a, b = op["a"], op["b"]
    ka, kb = (float(gain) for gain in run.tensors[op["gains"]])
    return lambda values, _: ka * values[a] + kb * values[b]


def _multiply(run: Interpreter, number: int, op: Operation) -> Step:
    a, b = op["a"], op["b"]
    return lambda values, _: values[a] * values[b]


def _shuffle(run: Interpreter, number: int, op: Operation) -> Step:
    x, sh, sw = op["x"], op["stride_height"], op["stride_width"]
    made = run.analysis.maps[number]

    def step(values: list[Tensor], _: Tensor) -> Tensor:
        source = values[x].permute(0, 2, 3, 1)
        blocks = source.reshape(*source.shape[:3], sh, sw, made.channels).transpose(2, 3)
        return blocks.reshape(-1, made.height, made.width, made.channels).permute(0, 3, 1, 2)

    return step


def _nearest(run: Interpreter, number: int, op: Operation) -> Step:
    made, x = run.analysis.maps[number], op["x"]
    rows = (torch.arange(made.height) * op["down_height"] // op["up_height"]).to(run.device)
    columns = (torch.arange(made.width) * op["down_width"] // op["up_width"]).to(run.device)
    return lambda values, _: values[x].index_select(2, rows).index_select(3, columns)


def _interpolation(run: Interpreter, size: int, factor: int, axis: int) -> Callable[[Tensor], Tensor]:
    position = 2 * torch.arange(size * factor) + 1 - factor  # in units of 1 / (2 factor)
    index = torch.div(position, 2 * factor, rounding_mode="floor")
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    part = (position - 2 * factor * index).float().reshape(shape)
    before, after = (index.clamp(0, size - 1).to(run.device), (index + 1).clamp(0, size - 1).to(run.device))
    near, far = (2 * factor - part).to(run.device), part.to(run.device)
    return lambda x: x.index_select(axis, before).mul_(near).add_(x.index_select(axis, after).mul_(far))


def _bilinear(run: Interpreter, number: int, op: Operation) -> Step:
    x, factor = op["x"], op["factor"]
    source = run.analysis.maps[x]
    rows, columns = _interpolation(run, source.height, factor, 2), _interpolation(run, source.width, factor, 3)
    return lambda values, _: columns(rows(values[x]))


def _haar(run: Interpreter, number: int, op: Operation) -> Step:
    x, made = op["x"], run.analysis.maps[number]

    def step(values: list[Tensor], _: Tensor) -> Tensor:
        a, b, c, d = values[x].chunk(4, dim=1)
        out = torch.empty(len(a), made.channels, made.height, made.width, device=a.device)
        out[:, :, 0::2, 0::2] = a + b + c + d
        out[:, :, 0::2, 1::2] = a - b + c - d
        out[:, :, 1::2, 0::2] = a + b - c - d
        out[:, :, 1::2, 1::2] = a - b - c + d
        return out

    return step


def _requantise(run: Interpreter, number: int, op: Operation) -> Step:
    x, low, high = op["x"], op["low"], op["high"]
    m = torch.from_numpy(arithmetic.multiplier_value(run.tensors[op["multiplier"]])).reshape(1, -1, 1, 1).to(run.device)
    owned, finish = run._owned(x), _function(run, op)
    wrap = op["function"] == arithmetic.SINE

    def step(values: list[Tensor], _: Tensor) -> Tensor:
        # multiply, round and clamp stay apart: fused into a multiply-add the first rounding would be lost
        y = values[x].mul_(m) if owned else values[x] * m
        y.round_()
        return finish(torch.remainder(y, 4096) if wrap else y.clamp_(low, high))

    return step


def _function(run: Interpreter, op: Operation) -> Callable[[Tensor], Tensor]:
    function, argument = op["function"], op["argument"]
    if function == arithmetic.LEAKY:
        slope = 2.0**-argument
        return lambda y: torch.where(y < 0, (y * slope).round_(), y)
    if function == arithmetic.HARD_SWISH:
        c = float(1 << argument)
        return lambda y: y.clamp(-c, c).add_(c).mul_(y).mul_(0.5 / c).round_()
    if function in (arithmetic.TABLE, arithmetic.SINE):
        number = argument if function == arithmetic.TABLE else tables.SINE
        entries = torch.from_numpy(tables.table(number).astype(np.float32)).to(run.device)
        shift = -arithmetic.ACTIVATION_LOW if function == arithmetic.TABLE else 0
        return lambda y: entries[y.long() + shift]
    return lambda y: y


def _concatenate(run: Interpreter, number: int, op: Operation) -> Step:
    a, b = op["a"], op["b"]
    return lambda values, _: torch.cat([values[a], values[b]], dim=1)


def _slice(run: Interpreter, number: int, op: Operation) -> Step:
    x, first, last = op["x"], op["first"], op["last"]
    return lambda values, _: values[x][:, first:last]


def _crop(run: Interpreter, number: int, op: Operation) -> Step:
    x, top, left, height, width = op.arguments
    return lambda values, _: values[x][:, :, top : top + height, left : left + width]


_COMPILERS: dict[Op, Callable[[Interpreter, int, Operation], Step]] = {
    Op.EMBEDDING: _embedding,
    Op.TOKENS: _tokens,
    Op.CONSTANT: _constant,
    Op.COORDINATES: _coordinates,
    Op.PHASES: _phases,
    Op.CONVOLUTION: _convolution,
    Op.COMBINE: _combine,
    Op.MULTIPLY: _multiply,
    Op.SHUFFLE: _shuffle,
    Op.NEAREST: _nearest,
    Op.BILINEAR: _bilinear,
    Op.HAAR: _haar,
    Op.REQUANTISE: _requantise,
    Op.CONCATENATE: _concatenate,
    Op.SLICE: _slice,
    Op.CROP: _crop,
}
