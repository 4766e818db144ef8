"""Small films of several segments, every one of them decodable: what the catalogues of broken files and of damage start from."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream.analysis import analyse
from nvc.bitstream.arithmetic import IDENTITY, multiplier_code
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.constants import HASHES, Limits
from nvc.bitstream.container import Writer
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op, Program, pack_programs
from nvc.bitstream.segment import Segment

from ..ref_operations import render
from .file import File

Integers = NDArray[np.int64]

WIDTH, HEIGHT = 6, 4
COUNTS = (2, 3, 1)
METADATA: dict[str, str | int] = {"title": "film", "year": 1895}
TICKS = (0, 40, 41, 1, 4000000000, 7, 13, 90000)  # from frame to frame, where the rate is variable


@dataclass(frozen=True)
class Film:
    """What a file is made of: frames in each segment, and the rest."""

    counts: tuple[int, ...] = COUNTS
    variable: bool = False
    live: bool = False  # HEAD does not say how many frames there are
    indexed: bool = True
    seed: int = 1

    def header(self) -> Header:
        header = Header(WIDTH, HEIGHT, 0, frame_count=None if self.live else sum(self.counts), first_pts=-40)
        return replace(header, frame_rate=None, time_base=Fraction(1, 1000)) if self.variable else header


@cache
def film(wanted: Film = Film()) -> File:
    """The file; every second segment uses the second program, which has weights alone."""
    generator = np.random.default_rng(wanted.seed)
    programs = [_moving(generator, 1)[0], _still(generator)[0]]
    file = io.BytesIO()
    writer = Writer(file, wanted.header(), pack_programs(programs), METADATA, wanted.indexed)
    first = 0
    for number, frames in enumerate(wanted.counts):
        program, tensors = _still(generator) if number % 2 else _moving(generator, frames)
        times = TICKS[first : first + frames] if wanted.variable else None
        writer.add(_segment(first, frames, number % 2, program, tensors, times))
        first += frames
    writer.finish()
    return File.parse(file.getvalue())


def _segment(
    first: int, frames: int, number: int, program: Program, tensors: Sequence[Integers], times: tuple[int, ...] | None
) -> Segment:
    rows = [[int(operation.code), *operation.arguments] for operation in program.operations]
    pictures = [render(rows, list(tensors), t, frames) for t in range(frames)]
    samples = (b"".join(plane.astype(np.uint8).tobytes() for plane in planes) for planes in pictures)
    hashes = b"".join(hashlib.sha256(each).digest()[:8] for each in samples)
    sections = write_sections(analyse(program, Limits()), tensors, frames)
    return Segment(first, frames, number, digest(tensors), {**sections, HASHES: hashes}, times)


def _moving(generator: np.random.Generator, frames: int) -> tuple[Program, list[Integers]]:
    """A program with parameters in all four sections, and numbers of `frames` frames for it."""
    h, w = HEIGHT // 2, WIDTH // 2
    builder = Builder("moving")
    codes = builder.add(Op.EMBEDDING, builder.parameter(generator.integers(0, 99, (frames, 2, h, w))), 2, h, w, 0, 1)
    tokens = builder.parameter(generator.integers(0, 4, (frames, h, w)))
    book = builder.parameter(generator.integers(1, 99, (4, 2)))
    words = builder.add(Op.TOKENS, tokens, book, h, w, 4, 2, 0)
    sums = builder.add(Op.COMBINE, codes, words, builder.parameter(np.array([1, 1])))
    chroma = _samples(builder, sums)
    weight = builder.parameter(generator.integers(-2, 3, (4, 2, 1, 1)))
    bias = builder.parameter(generator.integers(64, 99, (4,)))
    luma = _samples(builder, builder.add(Op.CONVOLUTION, codes, weight, bias, 4, 1, 1, 1))
    return _output(builder, luma, chroma, 0)


def _still(generator: np.random.Generator) -> tuple[Program, list[Integers]]:
    """A program that shows one constant picture, and numbers for it."""
    h, w = HEIGHT // 2, WIDTH // 2
    builder = Builder("still")
    codes = builder.parameter(generator.integers(0, 256, (6, h, w)))
    samples = _samples(builder, builder.add(Op.CONSTANT, codes, 6, h, w))
    return _output(builder, builder.add(Op.SLICE, samples, 0, 4), samples, 4)


def _samples(builder: Builder, value: int) -> int:
    multiplier = builder.parameter(np.array([multiplier_code(1.0)]))
    return builder.add(Op.REQUANTISE, value, multiplier, 1, 0, 255, IDENTITY, 0)


def _output(builder: Builder, luma: int, chroma: int, channel: int) -> tuple[Program, list[Integers]]:
    planes = [builder.add(Op.SHUFFLE, luma, 2, 2)]
    planes += [builder.add(Op.SLICE, chroma, first, last) for first, last in itertools.pairwise(range(channel, channel + 3))]
    builder.add(Op.OUTPUT, *planes)
    return builder.program(), builder.tensors
