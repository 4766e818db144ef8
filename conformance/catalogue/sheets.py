"""Sheets: programs whose picture shows every digit of a value, so that whatever a decoder gets wrong is seen in its samples."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from nvc.bitstream.analysis import Map, analyse
from nvc.bitstream.bounds import prove
from nvc.bitstream.coefficients import SECTION_OF, digest
from nvc.bitstream.constants import HASHES, WEIGHTS, Limits
from nvc.bitstream.container import Writer
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op, Program, pack_programs
from nvc.bitstream.rangecoder import RangeEncoder
from nvc.bitstream.segment import Segment

from ..ref_operations import render
from .codings import Coding, Integers, TensorWriter

Line = Sequence[int] | Integers

LOW, HIGH = -2048, 2047  # of activations
IDENTITY, LEAKY, HARD_SWISH, TABLE, SINE = range(5)
ALL = Limits(max_memory_bytes=1 << 40)  # a sheet is measured, not refused


def power(exponent: int) -> int:
    """The code of the multiplier 2^exponent, -30..33 (SPEC 8.5)."""
    return 30 + exponent << 10


def values(*numbers: int) -> Integers:
    """Channels of 1 x 1."""
    return np.array(numbers, dtype=np.int64).reshape(-1, 1, 1)


def numbers(seed: int, *shape: int, low: int = LOW, high: int = HIGH) -> Integers:
    """Random integers low..high, with both ends among the first two where there are two."""
    drawn = np.random.default_rng(seed).integers(low, high + 1, size=shape, dtype=np.int64)
    drawn.flat[: min(2, drawn.size)] = (low, high)[: min(2, drawn.size)]
    return drawn


@dataclass(frozen=True)
class Work:
    """A program with the numbers of one segment of `frames` frames, and the size of its picture."""

    program: Program
    tensors: list[Integers]
    codings: Mapping[int, Coding]
    frames: int
    width: int
    height: int
    pixel_format: int = 1

    def planes(self, t: int) -> list[Integers]:
        """The planes of frame t by the reference."""
        rows = [[int(op.code), *op.arguments] for op in self.program.operations]
        return render(rows, self.tensors, t, self.frames)

    @property
    def header(self) -> Header:
        return Header(self.width, self.height, self.pixel_format, frame_count=self.frames)


class Sheet:
    """Builds a Work operation by operation; every method returns the number of a value."""

    def __init__(self, frames: int = 1, name: str = "sheet") -> None:
        self.frames = frames
        self.builder = Builder(name)
        self.codings: dict[int, Coding] = {}

    def parameter(self, tensor: Any, coding: Coding | None = None, key: Any = None) -> int:
        number = self.builder.parameter(np.asarray(tensor, dtype=np.int64), key)
        if coding is not None:
            self.codings[number] = coding
        return number

    def add(self, code: Op, *arguments: int) -> int:
        return self.builder.add(code, *arguments)

    def embedding(self, codes: Integers, stride: int = 1, offset: int = 0, coding: Coding | None = None) -> int:
        """Codes (E, C, H, W)."""
        return self.add(Op.EMBEDDING, self.parameter(codes, coding), *codes.shape[1:], offset, stride)

    def tokens(self, tokens: Integers, book: Integers, offset: int = 0, coding: Coding | None = None) -> int:
        """Tokens (F, H, W) of a codebook (K, D)."""
        numbers = self.parameter(tokens, coding), self.parameter(book)
        return self.add(Op.TOKENS, *numbers, *tokens.shape[1:], *book.shape, offset)

    def constant(self, codes: Integers, coding: Coding | None = None) -> int:
        """Codes (C, H, W)."""
        return self.add(Op.CONSTANT, self.parameter(codes, coding), *codes.shape)

    def one(self) -> int:
        """The value 1, for sums with a number."""
        return self.add(Op.CONSTANT, self.parameter(values(1), key="one"), 1, 1, 1)

    def coordinates(self, axis: int, height: int, width: int) -> int:
        return self.add(Op.COORDINATES, axis, height, width)

    def phases(self, frequency: Line, phase: Line) -> int:
        return self.add(Op.PHASES, self.parameter(frequency), self.parameter(phase), len(phase))

    def convolution(
        self, x: int, weight: Integers, bias: Line, groups: int = 1, codings: tuple[Coding | None, Coding | None] = (None, None)
    ) -> int:
        """Weight (O, I, kh, kw), bias (O,)."""
        numbers = self.parameter(weight, codings[0]), self.parameter(bias, codings[1])
        out, _, height, width = weight.shape
        return self.add(Op.CONVOLUTION, x, *numbers, out, height, width, groups)

    def sums(self, bias: Line, coding: Coding | None = None) -> int:
        """Accumulators (C, 1, 1) of these numbers, each at most 2^24: a convolution of nothing."""
        return self.convolution(self.one(), np.zeros((len(bias), 1, 1, 1), dtype=np.int64), bias, codings=(None, coding))

    def combine(self, a: int, b: int, ka: int, kb: int) -> int:
        return self.add(Op.COMBINE, a, b, self.parameter([ka, kb], key=(ka, kb)))

    def accumulator(self, x: int) -> int:
        """x as an accumulator."""
        return self.combine(x, x, 1, 0)

    def plus(self, x: int, number: int) -> int:
        return self.combine(x, self.one(), 1, number)

    def requantise(
        self, x: int, codes: int | Sequence[int], low: int = LOW, high: int = HIGH, function: int = IDENTITY, argument: int = 0
    ) -> int:
        """By one multiplier code, or one for each channel."""
        chosen = (codes,) if isinstance(codes, int) else tuple(codes)
        number = self.parameter(chosen, key=("multiplier", chosen))
        return self.add(Op.REQUANTISE, x, number, len(chosen), low, high, function, argument)

    def sine(self, x: int, code: int = power(0)) -> int:
        """SINE of x modulo 4096: what shows the last digits of an accumulator up to 2^24."""
        return self.requantise(x, code, 0, 4095, SINE)

    def concatenate(self, *parts: int) -> int:
        return reduce(lambda a, b: self.add(Op.CONCATENATE, a, b), parts)

    def slice(self, x: int, first: int, last: int) -> int:
        return self.add(Op.SLICE, x, first, last)

    def ramp(self) -> int:
        """Accumulator 1 x 64 x 64: the even numbers from -4096 to 4094, row by row."""
        sums = self.combine(self.coordinates(0, 64, 64), self.coordinates(1, 64, 64), 64, 1)
        return self.plus(sums, -1)

    def map(self, value: int) -> Map:
        return analyse(self.builder.program(), ALL).maps[value]

    def show(self, value: int) -> Work:
        """The picture of a value: its C channels side by side, in R, G and B its digits to the base 128, -64 to 64 around 128.

        C is a product of two numbers up to 16. Digits are exact for numbers up to 2^21; the interval of the value may reach 2^23.
        """
        shape = self.map(value)
        high = self.requantise(value, power(-14), -127, 127)
        rest = self.combine(value, self.combine(high, high, 1024, 1024), 1, -8)
        middle = self.requantise(rest, power(-7), -127, 127)
        low = self.requantise(self.combine(rest, middle, 1, -128), power(0), -127, 127)
        samples = self.requantise(self.plus(self.concatenate(high, middle, low), 128), power(0), 0, 255)
        rows = max(n for n in range(1, 17) if shape.channels % n == 0 and shape.channels // n <= 16)
        columns, planes = shape.channels // rows, []
        for digit in range(3):
            plane = self.slice(samples, digit * shape.channels, (digit + 1) * shape.channels)
            planes.append(self.add(Op.SHUFFLE, plane, rows, columns))
        return self.work(planes)

    def show_sums(self, x: int) -> Work:
        """The picture of an accumulator up to 2^24: its first digits and, by a sine, its last."""
        return self.show(self.concatenate(self.requantise(x, power(-13)), self.sine(x)))

    def work(self, planes: Sequence[int], pixel_format: int = 1) -> Work:
        """The end of the program: these values are the planes."""
        picture = self.map(planes[0])
        self.add(Op.OUTPUT, *planes)
        size = picture.width, picture.height
        return Work(self.builder.program(), self.builder.tensors, self.codings, self.frames, *size, pixel_format)


# ---- files


def sections(work: Work) -> dict[int, bytes]:
    """The sections 1 to 4 of a segment, each tensor in its coding. InvalidError where a sum could pass 2^24 (W2)."""
    analysis = analyse(work.program, ALL)
    prove(analysis, work.tensors)
    specs = analysis.specs(work.frames)
    found = {WEIGHTS: b""}
    for section in sorted(set(SECTION_OF.values())):
        writer, numbers = RangeEncoder(), [n for n, spec in enumerate(specs) if SECTION_OF[spec.kind] == section]
        for number in numbers:
            coding = work.codings.get(number, Coding())
            TensorWriter(writer, coding).tensor(specs[number], work.tensors[number].reshape(specs[number].shape))
        if numbers:
            found[section] = writer.finish()
    return found


def segment(work: Work, first: int = 0, program: int = 0, times: tuple[int, ...] | None = None) -> Segment:
    """The numbers of a work and the hashes of its frames (SPEC 8.8)."""
    frames = [work.planes(t) for t in range(work.frames)]
    hashes = [hashlib.sha256(b"".join(plane.astype(np.uint8).tobytes() for plane in planes)).digest()[:8] for planes in frames]
    return Segment(first, work.frames, program, digest(work.tensors), {**sections(work), HASHES: b"".join(hashes)}, times)


def segments(*works: Work) -> list[Segment]:
    """One segment after the other, each by its own program."""
    made: list[Segment] = []
    for number, work in enumerate(works):
        made.append(segment(work, made[-1].first_frame + made[-1].frames if made else 0, number))
    return made


def write(
    header: Header,
    programs: Sequence[Program],
    parts: Sequence[Segment],
    metadata: Mapping[str, str | int] | None = None,
    indexed: bool = True,
) -> bytes:
    """A file."""
    file = io.BytesIO()
    writer = Writer(file, header, pack_programs(programs), metadata, indexed)
    for part in parts:
        writer.add(part)
    writer.finish()
    return file.getvalue()


def single(work: Work, **fields: Any) -> bytes:
    """A file of one segment; `fields` are those of HEAD that differ."""
    return write(replace(work.header, **fields), [work.program], [segment(work)])
