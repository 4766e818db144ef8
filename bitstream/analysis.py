"""What can be known of a program before any number arrives: shapes, parameters, multiply-adds and peak memory (SPEC 8.4, 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import arithmetic
from .constants import Limits
from .errors import InvalidError, LimitError
from .header import Header
from .program import Op, Operation, Program
from .tensors import Kind, TensorSpec

MAX_ELEMENTS = 1 << 28  # values in one map of one frame (SPEC 8.7)
MAX_CHANNELS = 16384  # SPEC 8.7: the 2^24 proof keeps an interval for each channel of each value


@dataclass(frozen=True)
class Map:
    """A value of the program for one frame: shape (C, H, W), and for activations the range of its integers."""

    channels: int
    height: int
    width: int
    activation: bool
    low: int = 0
    high: int = 0

    @property
    def elements(self) -> int:
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Parameter:
    """A tensor that every segment brings; `stride` is set for kinds with one entry per frame, or per `stride` frames."""

    kind: Kind
    shape: tuple[int, ...]
    levels: int = 0
    stride: int = 0

    def spec(self, frames: int) -> TensorSpec:
        """The tensor of a segment of `frames` frames."""
        if not self.stride:
            return TensorSpec(self.kind, self.shape, self.levels)
        entries = (frames - 2) // self.stride + 2 if self.stride > 1 else frames
        return TensorSpec(self.kind, (entries, *self.shape), self.levels)


@dataclass
class Analysis:
    """Shapes, parameters and costs of one program; made by `analyse`."""

    program: Program
    maps: list[Map] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    macs: int = 0  # multiply-adds of all convolutions, per frame
    work: int = 0  # macs plus one per element of every value: what a decode costs at least
    peak_memory: int = 0  # bytes of float32 that live at once, per frame

    def specs(self, frames: int) -> list[TensorSpec]:
        """The tensors of a segment of `frames` frames, in parameter order."""
        return [parameter.spec(frames) for parameter in self.parameters]

    @property
    def outputs(self) -> tuple[Map, Map, Map]:
        """The maps of the three picture planes."""
        a, b, c = self.program.operations[-1].arguments
        return self.maps[a], self.maps[b], self.maps[c]


def analyse(program: Program, limits: Limits) -> Analysis:
    """Infer every shape before anything is allocated; InvalidError where shapes do not fit, LimitError at a limit."""
    result = Analysis(program)
    for number, operation in enumerate(program.operations):
        made = _RULES[operation.code](result, operation)
        if made.channels > MAX_CHANNELS:
            raise LimitError("map", f"value v{number} has {made.channels} channels, over the limit of {MAX_CHANNELS}")
        if made.elements > MAX_ELEMENTS:
            raise LimitError("map", f"value v{number} has {made.elements} elements, over the limit of {MAX_ELEMENTS}")
        result.maps.append(made)
        result.work += made.elements
    result.work += result.macs
    result.peak_memory = _peak_memory(result)
    _check_limits(result, limits)
    return result


def check_picture(analysis: Analysis, header: Header, limits: Limits) -> None:
    """The outputs must be the picture of HEAD, within its bit depth, at no more multiply-adds per pixel than the limit."""
    peak = (1 << header.bit_depth) - 1
    for made, (height, width) in zip(analysis.outputs, header.plane_shapes(), strict=True):
        if (made.channels, made.height, made.width) != (1, height, width):
            raise InvalidError(
                "picture", f"a plane of the program is {made.width}x{made.height}, HEAD asks for {width}x{height}"
            )
        if not made.activation or made.low < 0 or made.high > peak:
            raise InvalidError("picture", f"a plane of the program holds {made.low}..{made.high}, outside 0..{peak}")
    if analysis.work > limits.max_macs_per_frame:
        raise LimitError("compute", f"a frame needs {analysis.work} multiply-adds, over {limits.max_macs_per_frame}")
    if analysis.work > limits.max_macs_per_pixel * header.width * header.height:
        raise LimitError("compute", f"the program needs over {limits.max_macs_per_pixel} multiply-adds per pixel")
    frames = header.frame_count
    if frames is not None and analysis.work * frames > limits.max_macs_total:
        raise LimitError(
            "compute", f"decoding needs {analysis.work * frames:.3g} multiply-adds, over {limits.max_macs_total:.3g}"
        )


def _check_limits(analysis: Analysis, limits: Limits) -> None:
    if analysis.peak_memory > limits.max_memory_bytes:
        raise LimitError(
            "memory", f"one frame needs {analysis.peak_memory >> 20} MiB, over {limits.max_memory_bytes >> 20} MiB"
        )
    numbers = sum(int(np.prod(p.shape, dtype=object)) for p in analysis.parameters)
    if numbers > limits.max_parameters:
        raise LimitError("parameters", f"a segment has {numbers} parameters, over the limit of {limits.max_parameters}")


def _peak_memory(analysis: Analysis) -> int:
    """Bytes of float32 that live at once when every value is dropped after its last use."""
    last = analysis.program.last_uses()
    live, peak = 0, 0
    for number, made in enumerate(analysis.maps):
        live += made.elements
        peak = max(peak, live)
        live -= sum(analysis.maps[v].elements for v in range(number + 1) if last[v] == number)
    return 4 * peak


def _use(analysis: Analysis, number: int, parameter: Parameter) -> None:
    """Declare parameter `number`, or check that an earlier declaration is the same."""
    if number == len(analysis.parameters):
        analysis.parameters.append(parameter)
    elif analysis.parameters[number] != parameter:
        raise InvalidError("shape", f"parameter p{number} is used as {analysis.parameters[number]} and as {parameter}")


def _signed(channels: int, height: int, width: int) -> Map:
    return Map(channels, height, width, True, arithmetic.ACTIVATION_LOW, arithmetic.ACTIVATION_HIGH)


def _embedding(a: Analysis, op: Operation) -> Map:
    shape, stride = (op["channels"], op["height"], op["width"]), op["stride"]
    _use(a, op["codes"], Parameter(Kind.EMBEDDING, shape, stride=stride))
    return _signed(*shape) if stride == 1 else Map(*shape, activation=False)


def _tokens(a: Analysis, op: Operation) -> Map:
    levels, dimensions = op["levels"], op["dimensions"]
    _use(a, op["tokens"], Parameter(Kind.TOKENS, (op["height"], op["width"]), levels, stride=1))
    _use(a, op["codebook"], Parameter(Kind.CODEBOOK, (levels, dimensions)))
    return Map(dimensions, op["height"], op["width"], True, -128, 127)


def _constant(a: Analysis, op: Operation) -> Map:
    shape = (op["channels"], op["height"], op["width"])
    _use(a, op["codes"], Parameter(Kind.CONSTANT, shape))
    return _signed(*shape)


def _coordinates(a: Analysis, op: Operation) -> Map:
    size = op["width"] if op["axis"] else op["height"]
    return Map(1, op["height"], op["width"], True, 1 - size, size - 1)


def _phases(a: Analysis, op: Operation) -> Map:
    _use(a, op["frequency"], Parameter(Kind.PHASE, (op["channels"],)))
    _use(a, op["phase"], Parameter(Kind.PHASE, (op["channels"],)))
    return Map(op["channels"], 1, 1, True, -2047, 2047)


def _activation(a: Analysis, number: int, what: str) -> Map:
    if not a.maps[number].activation:
        raise InvalidError("shape", f"{what} reads v{number}, which is an accumulator; requantise it first")
    return a.maps[number]


def _convolution(a: Analysis, op: Operation) -> Map:
    x = _activation(a, op["x"], "a convolution")
    out, kh, kw, groups = op["channels"], op["kernel_height"], op["kernel_width"], op["groups"]
    if x.channels % groups or out % groups:
        raise InvalidError("shape", f"{groups} groups do not divide {x.channels} and {out} channels")
    if kh % 2 == 0 or kw % 2 == 0:
        raise InvalidError("shape", f"a kernel must have odd sides, not {kh}x{kw}")
    _use(a, op["weight"], Parameter(Kind.WEIGHT, (out, x.channels // groups, kh, kw)))
    _use(a, op["bias"], Parameter(Kind.BIAS, (out,)))
    a.macs += out * (x.channels // groups) * kh * kw * x.height * x.width
    return Map(out, x.height, x.width, activation=False)


def _broadcast(a: Analysis, op: Operation) -> Map:
    x, y = a.maps[op["a"]], a.maps[op["b"]]
    sizes = []
    for left, right in ((x.channels, y.channels), (x.height, y.height), (x.width, y.width)):
        if left != right and 1 not in (left, right):
            raise InvalidError("shape", f"v{op['a']} and v{op['b']} differ in shape and cannot be broadcast")
        sizes.append(max(left, right))
    channels, height, width = sizes
    return Map(channels, height, width, activation=False)


def _combine(a: Analysis, op: Operation) -> Map:
    _use(a, op["gains"], Parameter(Kind.GAIN, (2,)))
    return _broadcast(a, op)


def _shuffle(a: Analysis, op: Operation) -> Map:
    x, sh, sw = a.maps[op["x"]], op["stride_height"], op["stride_width"]
    if x.channels % (sh * sw):
        raise InvalidError("shape", f"{x.channels} channels cannot be shuffled into {sh}x{sw} blocks")
    return Map(x.channels // (sh * sw), x.height * sh, x.width * sw, x.activation, x.low, x.high)


def _nearest(a: Analysis, op: Operation) -> Map:
    x = a.maps[op["x"]]
    height, width = x.height * op["up_height"], x.width * op["up_width"]
    if height % op["down_height"] or width % op["down_width"]:
        raise InvalidError("shape", f"{x.width}x{x.height} cannot be resized by the factors of a nearest operation")
    return Map(x.channels, height // op["down_height"], width // op["down_width"], x.activation, x.low, x.high)


def _bilinear(a: Analysis, op: Operation) -> Map:
    x = a.maps[op["x"]]
    return Map(x.channels, x.height * op["factor"], x.width * op["factor"], activation=False)


def _haar(a: Analysis, op: Operation) -> Map:
    x = a.maps[op["x"]]
    if x.channels % 4:
        raise InvalidError("shape", f"{x.channels} channels are no multiple of the four Haar bands")
    return Map(x.channels // 4, 2 * x.height, 2 * x.width, activation=False)


def _requantise(a: Analysis, op: Operation) -> Map:
    x, count = a.maps[op["x"]], op["multipliers"]
    if count not in (1, x.channels):
        raise InvalidError(
            "shape", f"{count} multipliers for {x.channels} channels: there must be 1 or as many as channels"
        )
    low, high, function, argument = op["low"], op["high"], op["function"], op["argument"]
    first, last = arithmetic.FUNCTION_ARGUMENTS[function]
    if not first <= argument <= last:
        raise InvalidError(
            "program", f"argument {argument} of {arithmetic.FUNCTIONS[function]} is outside {first}..{last}"
        )
    if (function == arithmetic.SINE) != (high > arithmetic.ACTIVATION_HIGH) or (
        function == arithmetic.SINE and (low, high) != (0, 4095)
    ):
        raise InvalidError("program", f"requantise to {low}..{high}: only a sine takes phases, and it takes 0..4095")
    _use(a, op["multiplier"], Parameter(Kind.MULTIPLIER, (count,)))
    image = arithmetic.apply_function(function, argument, np.arange(low, high + 1, dtype=np.int64))
    return Map(x.channels, x.height, x.width, True, int(image.min()), int(image.max()))


def _concatenate(a: Analysis, op: Operation) -> Map:
    x, y = a.maps[op["a"]], a.maps[op["b"]]
    if (x.height, x.width, x.activation) != (y.height, y.width, y.activation):
        raise InvalidError("shape", f"v{op['a']} and v{op['b']} differ in size or kind and cannot be concatenated")
    return Map(x.channels + y.channels, x.height, x.width, x.activation, min(x.low, y.low), max(x.high, y.high))


def _slice(a: Analysis, op: Operation) -> Map:
    x, first, last = a.maps[op["x"]], op["first"], op["last"]
    if not first < last <= x.channels:
        raise InvalidError("shape", f"channels {first}..{last} of v{op['x']}, which has {x.channels}")
    return Map(last - first, x.height, x.width, x.activation, x.low, x.high)


def _crop(a: Analysis, op: Operation) -> Map:
    x, height, width = a.maps[op["x"]], op["height"], op["width"]
    if op["top"] + height > x.height or op["left"] + width > x.width:
        raise InvalidError("shape", f"a crop to {width}x{height} leaves v{op['x']}, which is {x.width}x{x.height}")
    return Map(x.channels, height, width, x.activation, x.low, x.high)


def _output(a: Analysis, op: Operation) -> Map:
    for number in op.arguments:
        _activation(a, number, "the output")
    return Map(0, 0, 0, activation=False)


_RULES: dict[Op, Callable[[Analysis, Operation], Map]] = {
    Op.EMBEDDING: _embedding,
    Op.TOKENS: _tokens,
    Op.CONSTANT: _constant,
    Op.COORDINATES: _coordinates,
    Op.PHASES: _phases,
    Op.CONVOLUTION: _convolution,
    Op.COMBINE: _combine,
    Op.MULTIPLY: _broadcast,
    Op.SHUFFLE: _shuffle,
    Op.NEAREST: _nearest,
    Op.BILINEAR: _bilinear,
    Op.HAAR: _haar,
    Op.REQUANTISE: _requantise,
    Op.CONCATENATE: _concatenate,
    Op.SLICE: _slice,
    Op.CROP: _crop,
    Op.OUTPUT: _output,
}
