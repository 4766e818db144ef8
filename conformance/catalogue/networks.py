"""Seeded random networks over every operation and option: what conformance streams are made of, without any training.

Choices are drawn so that every network is legal; magnitudes are tracked as in SPEC 8.1, and sums are pushed up to the 2^24
bound now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream import arithmetic
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op, Program

Integers = NDArray[np.int64]

EXACT = arithmetic.EXACT
MAX_CHANNELS, MAX_SIDE = 12, 24


@dataclass(frozen=True)
class Value:
    """A value of the network under construction: its number, shape, kind and the largest magnitude it can have."""

    number: int
    shape: tuple[int, int, int]
    activation: bool
    magnitude: int


@dataclass(frozen=True)
class Network:
    """A random program, the parameters of one segment of `frames` frames, and the picture it makes."""

    program: Program
    tensors: list[Integers]
    frames: int
    header: Header


def random_network(seed: int, operations: int = 14) -> Network:
    """A legal network of about `operations` random operations behind its inputs; the same seed gives the same network."""
    return _Generator(seed).network(operations)


class _Generator:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.frames = self.pick(1, 7)
        self.builder = Builder(f"random-{seed}")
        self.values: list[Value] = []

    def pick(self, low: int, high: int) -> int:
        """An integer in low..high."""
        return int(self.random.integers(low, high + 1))

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Integers:
        return self.random.integers(low, high + 1, size=shape, dtype=np.int64)

    def one(self, wanted: Callable[[Value], bool]) -> Value | None:
        found = [value for value in self.values if wanted(value)]
        return found[self.pick(0, len(found) - 1)] if found else None

    def add(self, code: Op, shape: tuple[int, int, int], activation: bool, magnitude: int, *arguments: int) -> Value:
        value = Value(self.builder.add(code, *arguments), shape, activation, magnitude)
        self.values.append(value)
        return value

    def network(self, operations: int) -> Network:
        self.embedding(1)
        if self.pick(0, 1):
            self.embedding(self.pick(2, 4))
        for make in (self.tokens, self.constant, self.coordinates, self.phases):
            if self.pick(0, 1):
                make()
        for _ in range(operations):
            _STEPS[self.pick(0, len(_STEPS) - 1)](self)
        header = self.output()
        return Network(self.builder.program(), self.builder.tensors, self.frames, header)

    # ---- inputs

    def embedding(self, stride: int) -> None:
        c, h, w = self.pick(1, 8), self.pick(1, 6), self.pick(1, 6)
        entries = self.frames if stride == 1 else (self.frames - 2) // stride + 2
        codes = self.builder.parameter(self.integers((entries, c, h, w), -2048, 2047))
        self.add(Op.EMBEDDING, (c, h, w), stride == 1, 2048 * stride, codes, c, h, w, self.pick(-2, 2), stride)

    def tokens(self) -> None:
        h, w, levels, d = self.pick(1, 6), self.pick(1, 6), self.pick(2, 40), self.pick(1, 6)
        tokens = self.builder.parameter(self.integers((self.frames, h, w), 0, levels - 1))
        book = self.builder.parameter(self.integers((levels, d), -128, 127))
        self.add(Op.TOKENS, (d, h, w), True, 128, tokens, book, h, w, levels, d, self.pick(-1, 0))

    def constant(self) -> None:
        c, h, w = self.pick(1, 4), self.pick(1, 6), self.pick(1, 6)
        codes = self.builder.parameter(self.integers((c, h, w), -2048, 2047))
        self.add(Op.CONSTANT, (c, h, w), True, 2048, codes, c, h, w)

    def coordinates(self) -> None:
        h, w = self.pick(1, MAX_SIDE), self.pick(1, MAX_SIDE)
        self.add(Op.COORDINATES, (1, h, w), True, MAX_SIDE, self.pick(0, 1), h, w)

    def phases(self) -> None:
        c = self.pick(1, 6)
        frequency = self.builder.parameter(self.integers((c,), 0, (1 << 32) - 1))
        phase = self.builder.parameter(self.integers((c,), 0, (1 << 32) - 1))
        self.add(Op.PHASES, (c, 1, 1), True, 2047, frequency, phase, c)

    # ---- linear

    def convolution(self) -> None:
        x = self.one(lambda v: v.activation)
        if x is None:
            return
        c, h, w = x.shape
        groups = c if self.pick(0, 3) == 0 else 1
        out = c * self.pick(1, 2) if groups > 1 else self.pick(1, MAX_CHANNELS)
        kh, kw = 2 * self.pick(0, 2) + 1, 2 * self.pick(0, 2) + 1
        taps = (c // groups) * kh * kw
        room = EXACT // 2
        most = min(127, max(1, room // (taps * x.magnitude)))
        if taps * x.magnitude > room:
            return
        weight = self.integers((out, c // groups, kh, kw), -most, most)
        if self.pick(0, 2) == 0:
            weight = np.where(weight < 0, -most, most)  # every tap at its extreme: sums near the bound
        bias = self.integers((out,), -room, room) if self.pick(0, 1) else self.integers((out,), -9, 9)
        wp, bp = self.builder.parameter(weight), self.builder.parameter(bias)
        self.add(
            Op.CONVOLUTION, (out, h, w), False, taps * x.magnitude * most + room, x.number, wp, bp, out, kh, kw, groups
        )

    def _partner(self, a: Value) -> Value | None:
        def fits(b: Value) -> bool:
            return all(p == q or 1 in (p, q) for p, q in zip(a.shape, b.shape, strict=True))

        return self.one(fits)

    def combine(self) -> None:
        a = self.one(lambda v: v.magnitude * 3 <= EXACT // 2)
        b = self._partner(a) if a else None
        if a is None or b is None or 3 * b.magnitude > EXACT // 2:
            return
        gains = np.array([self.pick(-3, 3), self.pick(-3, 3)], dtype=np.int64)
        shape = tuple(max(p, q) for p, q in zip(a.shape, b.shape, strict=True))
        number = self.builder.parameter(gains)
        self.add(Op.COMBINE, shape, False, 3 * (a.magnitude + b.magnitude), a.number, b.number, number)  # type: ignore[arg-type]

    def multiply(self) -> None:
        a = self.one(lambda v: True)
        b = self._partner(a) if a else None
        if a is None or b is None or a.magnitude * b.magnitude > EXACT:
            return
        shape = tuple(max(p, q) for p, q in zip(a.shape, b.shape, strict=True))
        self.add(Op.MULTIPLY, shape, False, a.magnitude * b.magnitude, a.number, b.number)  # type: ignore[arg-type]

    # ---- resampling

    def shuffle(self) -> None:
        sh, sw = self.pick(1, 3), self.pick(1, 3)
        x = self.one(lambda v: v.shape[0] % (sh * sw) == 0 and max(v.shape[1] * sh, v.shape[2] * sw) <= MAX_SIDE)
        if x is not None:
            c, h, w = x.shape
            self.add(Op.SHUFFLE, (c // (sh * sw), h * sh, w * sw), x.activation, x.magnitude, x.number, sh, sw)

    def nearest(self) -> None:
        nh, dh, nw, dw = (self.pick(1, 3) for _ in range(4))
        x = self.one(
            lambda v: (v.shape[1] * nh) % dh == 0 and (v.shape[2] * nw) % dw == 0 and max(v.shape[1:]) * 3 <= MAX_SIDE
        )
        if x is not None:
            c, h, w = x.shape
            self.add(Op.NEAREST, (c, h * nh // dh, w * nw // dw), x.activation, x.magnitude, x.number, nh, dh, nw, dw)

    def bilinear(self) -> None:
        s = self.pick(2, 4)
        x = self.one(lambda v: v.magnitude * 4 * s * s <= EXACT and max(v.shape[1:]) * s <= MAX_SIDE)
        if x is not None:
            c, h, w = x.shape
            self.add(Op.BILINEAR, (c, h * s, w * s), False, x.magnitude * 4 * s * s, x.number, s)

    def haar(self) -> None:
        x = self.one(lambda v: v.shape[0] % 4 == 0 and 4 * v.magnitude <= EXACT and max(v.shape[1:]) * 2 <= MAX_SIDE)
        if x is not None:
            c, h, w = x.shape
            self.add(Op.HAAR, (c // 4, 2 * h, 2 * w), False, 4 * x.magnitude, x.number)

    # ---- to activation

    def requantise(self) -> None:
        x = self.one(lambda v: not v.activation) or self.one(lambda v: True)
        if x is None:
            return
        function = self.pick(0, 4)
        first, last = arithmetic.FUNCTION_ARGUMENTS[function]
        argument = self.pick(first, last)
        if function == arithmetic.SINE:
            low, high = 0, 4095
        elif function == arithmetic.TABLE or self.pick(0, 1):
            low, high = arithmetic.ACTIVATION_LOW, arithmetic.ACTIVATION_HIGH
        else:
            low, high = -self.pick(0, 2048), self.pick(1, 2047)
        count = x.shape[0] if self.pick(0, 1) else 1
        wanted = self.pick(200, 6000) / x.magnitude  # from well inside the clamp to well beyond it
        codes = [arithmetic.multiplier_code(wanted * (1 + 0.1 * i)) for i in range(count)]
        number = self.builder.parameter(np.array(codes, dtype=np.int64))
        image = arithmetic.apply_function(function, argument, np.arange(low, high + 1, dtype=np.int64))
        magnitude = max(1, int(np.abs(image).max()))
        self.add(Op.REQUANTISE, x.shape, True, magnitude, x.number, number, count, low, high, function, argument)

    # ---- moves

    def concatenate(self) -> None:
        a = self.one(lambda v: True)
        if a is None:
            return
        b = self.one(lambda v: v.shape[1:] == a.shape[1:] and v.activation == a.activation)
        if b is not None and a.shape[0] + b.shape[0] <= 2 * MAX_CHANNELS:
            shape = (a.shape[0] + b.shape[0], *a.shape[1:])
            self.add(Op.CONCATENATE, shape, a.activation, max(a.magnitude, b.magnitude), a.number, b.number)

    def slice(self) -> None:
        x = self.one(lambda v: v.shape[0] > 1)
        if x is not None:
            first = self.pick(0, x.shape[0] - 1)
            last = self.pick(first + 1, x.shape[0])
            self.add(Op.SLICE, (last - first, *x.shape[1:]), x.activation, x.magnitude, x.number, first, last)

    def crop(self) -> None:
        x = self.one(lambda v: max(v.shape[1:]) > 1)
        if x is not None:
            c, h, w = x.shape
            height, width = self.pick(1, h), self.pick(1, w)
            top, left = self.pick(0, h - height), self.pick(0, w - width)
            self.add(Op.CROP, (c, height, width), x.activation, x.magnitude, x.number, top, left, height, width)

    # ---- picture

    def output(self) -> Header:
        """Turn the largest value into an RGB picture: three of its channels, clamped to samples."""
        x = max(self.values, key=lambda v: (v.shape[1] * v.shape[2], v.number))
        code = arithmetic.multiplier_code(300 / x.magnitude)
        number = self.builder.parameter(np.array([code], dtype=np.int64))
        picture = self.builder.add(Op.REQUANTISE, x.number, number, 1, 0, 255, arithmetic.IDENTITY, 0)
        planes = []
        for i in range(3):
            channel = min(i, x.shape[0] - 1)
            planes.append(self.builder.add(Op.SLICE, picture, channel, channel + 1))
        self.builder.add(Op.OUTPUT, *planes)
        return Header(
            width=x.shape[2],
            height=x.shape[1],
            pixel_format=1,
            time_base=Fraction(1, 25),
            frame_rate=Fraction(25),
            frame_count=self.frames,
        )


_STEPS: tuple[Callable[[_Generator], None], ...] = (
    _Generator.convolution,
    _Generator.convolution,
    _Generator.requantise,
    _Generator.requantise,
    _Generator.combine,
    _Generator.multiply,
    _Generator.shuffle,
    _Generator.nearest,
    _Generator.bilinear,
    _Generator.haar,
    _Generator.concatenate,
    _Generator.slice,
    _Generator.crop,
)
