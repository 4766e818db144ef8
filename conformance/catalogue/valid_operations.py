"""Vectors of the operations: every option at its ends, on numbers for which a wrong edge or order shows (SPEC 8.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nvc.bitstream.program import Op

from ..suite import Vector
from .networks import random_network
from .sheets import HIGH, IDENTITY, LEAKY, LOW, Sheet, Work, numbers, power, segment, single, values, write

RANDOM = (1, 8, 13, 18, 21)  # seeds of networks that together have every operation and every function


def entries(frames: int, stride: int) -> int:
    """The time steps of an embedding (SPEC 8.4)."""
    return frames if stride == 1 else (frames - 2) // stride + 2


def operations() -> Iterator[Vector]:
    """The vectors of SPEC 8.4, but for requantisation."""
    for part in (_inputs, _linear, _resampling, _moves):
        yield from part()
    for seed in RANDOM:
        network = random_network(seed)
        made = {f"operation.{op.code.name.lower()}" for op in network.program.operations}
        work = Work(network.program, network.tensors, {}, network.frames, network.header.width, network.header.height)
        yield Vector(f"valid/random-{seed}", single(work), "a random network", ("A1", "Q1", *sorted(made)))


def _vector(slug: str, about: str, clauses: str, work: Work) -> Vector:
    return Vector(f"valid/{slug}", single(work), about, tuple(clauses.split()))


# ---- inputs


def _inputs() -> Iterator[Vector]:
    sheet = Sheet(frames=12)
    parts = [sheet.embedding(numbers(s, entries(12, s), 2, 1, 1), s) for s in (1, 2, 3, 5, 11, 256)]
    work = sheet.show(sheet.concatenate(sheet.accumulator(parts[0]), *parts[1:]))
    about = "between entries that do and do not divide 12 frames"
    yield _vector("embedding-strides", about, "operation.embedding bound.embedding P2", work)

    sheet = Sheet(frames=1)
    parts = [sheet.embedding(numbers(s, entries(1, s), 2, 1, 1), s, offset) for s, offset in ((2, 0), (3, 1), (256, -1))]
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("embedding-one-frame", "strides over 1 in a segment of one frame", "operation.embedding", work)

    sheet = Sheet(frames=3)
    offsets = (-16, -2, -1, 1, 2, 16)
    parts = [sheet.embedding(numbers(9, 3, 1, 2, 1), 1, offset) for offset in offsets]
    later = [sheet.embedding(numbers(10, 2, 1, 2, 1), 2, offset) for offset in offsets]
    work = sheet.show(sheet.concatenate(sheet.accumulator(sheet.concatenate(*parts)), *later))
    yield _vector("embedding-offsets", "offsets beyond both ends of the segment", "operation.embedding P2", work)

    sheet = Sheet(frames=4)
    book = numbers(11, 4096, 1, low=-128, high=127)
    drawn = numbers(12, 4, 6, 5, low=0, high=4095)
    parts = [sheet.tokens(drawn, book), sheet.tokens(drawn[::-1], book, -16), sheet.tokens(drawn, book, 1)]
    work = sheet.show(sheet.concatenate(*parts))
    about = "4096 rows of one dimension, at offsets"
    yield _vector("tokens-levels-4096", about, "operation.tokens kind.TOKENS kind.CODEBOOK P2", work)

    sheet = Sheet(frames=2)
    book = np.zeros((4096, 256), dtype=np.int64)
    book[:3] = numbers(13, 3, 256, low=-128, high=127)
    work = sheet.show(sheet.tokens(np.array([[[0, 4095]], [[2, 1]]]), book))
    about = "rows of 256 dimensions, most of them not sent"
    yield _vector("tokens-dimensions-256", about, "operation.tokens operation.shuffle T7", work)

    sheet = Sheet(frames=3)
    shared = sheet.parameter([[[0]], [[1]], [[0]]]), sheet.parameter([[-128], [127]])
    work = sheet.show(sheet.concatenate(*(sheet.add(Op.TOKENS, *shared, 1, 1, 2, 1, offset) for offset in (0, 1, 16))))
    yield _vector("tokens-levels-2", "two rows of one dimension, shared by three operations", "operation.tokens P5", work)

    sheet = Sheet()
    parts = []
    for height, width in ((5, 4), (4, 5)):
        for axis in (0, 1):
            parts.append(sheet.add(Op.NEAREST, sheet.coordinates(axis, height, width), width, 1, height, 1))
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("coordinates", "both axes of odd and even sizes", "operation.coordinates operation.nearest", work)

    sheet = Sheet(frames=12)
    top = (1 << 32) - 1
    frequency = (top, 1 << 31, 0x55555556, 1 << 20, 1, 0, 0x12345678, (1 << 20) - 1)
    phase = (0, top, 0x000FFFFF, (1 << 20) - 1, 0xFFFFFFF8, 0xBFFFFFFF, 0x9ABCDEF0, 1)
    work = sheet.show(sheet.phases(frequency, phase))
    data = write(replace(work.header, frame_count=24), [work.program], [segment(work), segment(work, 12)])
    clauses = ("operation.phases", "kind.PHASE", "table.sine")
    yield Vector("valid/phases", data, "angles that pass 2^32, and begin anew with the segment", clauses)


# ---- linear


def _linear() -> Iterator[Vector]:
    for name, wanted in {"1x1": ((1, 1),), "5x5": ((3, 3), (5, 5)), "15x15": ((1, 15), (15, 1), (15, 15))}.items():
        sheet = Sheet()
        x = sheet.constant(numbers(20, 2, 4, 7))
        parts = []
        for height, width in wanted:
            weight, most = numbers(height, 3, 2, height, width, low=-9, high=9), 90000
            parts.append(sheet.convolution(x, weight, (most, -most, 0)))
        work = sheet.show(sheet.concatenate(*parts))
        yield _vector(f"convolution-{name}", "kernels on a map of 4 x 7: zeros outside", "operation.convolution P2 P12", work)

    sheet = Sheet()
    x = sheet.constant(numbers(21, 6, 3, 4))
    kinds = ((3, 12), (2, 4), (6, 6), (6, 12), (3, 3), (1, 5))  # groups, channels
    parts = [sheet.convolution(x, numbers(o, o, 6 // g, 3, 1, low=-99, high=99), numbers(g, o), g) for g, o in kinds]
    work = sheet.show(sheet.slice(sheet.concatenate(*parts), 0, 42))
    yield _vector("convolution-groups", "groups, depthwise, and depthwise with a multiplier", "operation.convolution P12", work)

    sheet = Sheet(frames=3)
    x = sheet.embedding(numbers(22, 3, 4, 3, 5))
    weights = sheet.parameter(numbers(23, 4, 4, 3, 3, low=-40, high=40))
    biases = sheet.parameter(numbers(24, 4, low=-5000, high=5000))
    for layer in range(12):
        sums = sheet.add(Op.CONVOLUTION, x, weights, biases, 4, 3, 3, 1)
        x = sheet.requantise(sums, power(-6), LOW, HIGH, LEAKY if layer % 2 else IDENTITY, 3 * (layer % 2))
    work = sheet.show(sums)
    about = "twelve layers that share their numbers"
    yield _vector("convolution-chain", about, "operation.convolution P4 P5 function.leaky A1", work)

    sheet = Sheet()
    small = {"low": -400, "high": 400}
    shapes = ((4, 3, 2), (1, 3, 2), (4, 1, 2), (4, 3, 1), (1, 1, 1))
    whole, *others = (sheet.constant(numbers(sum(shape), *shape, **small)) for shape in shapes)
    gains = ((4095, 0), (-4095, 1), (0, 4095), (1, -4095), (0, 0))
    parts = [sheet.combine(whole, other, *pair) for other, pair in zip([*others, others[1]], gains, strict=True)]
    parts += [sheet.combine(others[0], others[1], 3, -5), sheet.combine(others[2], others[0], -1, 1)]
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("combine", "operands repeated in every dimension, gains 0 and +-4095", "operation.combine kind.GAIN P12", work)

    sheet = Sheet()
    whole, *others = (sheet.constant(numbers(sum(shape), *shape, low=-1400, high=1400)) for shape in shapes)
    parts = [sheet.add(Op.MULTIPLY, other, whole) for other in others]
    parts += [sheet.add(Op.MULTIPLY, others[0], others[1]), sheet.add(Op.MULTIPLY, whole, whole)]
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("multiply", "operands repeated in every dimension, and a square", "operation.multiply P12", work)


# ---- resampling


def _resampling() -> Iterator[Vector]:
    sheet = Sheet()
    x = sheet.constant(numbers(30, 12, 2, 3))
    parts = [sheet.add(Op.SHUFFLE, v, 2, 3) for v in (x, sheet.combine(x, x, 100, 1))]  # 4 x 9
    more = [sheet.add(Op.SHUFFLE, sheet.accumulator(x), 3, 2)]  # 6 x 6
    flat = [sheet.add(Op.NEAREST, v, 3, 1, 2, 1) for v in (sheet.accumulator(parts[0]), parts[1])]
    flat += [sheet.add(Op.NEAREST, v, 2, 1, 3, 1) for v in more]
    work = sheet.show(sheet.concatenate(*flat))
    yield _vector("shuffle", "strides 2 x 3 and 3 x 2 of the same channels", "operation.shuffle operation.nearest", work)

    for name, shape, ratios in (
        ("up", (2, 6, 9), (5, 3, 7, 3)),
        ("down", (2, 10, 21), (3, 5, 3, 7)),
        ("16", (2, 16, 2), (1, 16, 16, 1)),
    ):
        sheet = Sheet()
        work = sheet.show(sheet.add(Op.NEAREST, sheet.constant(numbers(31, *shape)), *ratios))
        yield _vector(f"nearest-{name}", "rows and columns by {}/{} and {}/{}".format(*ratios), "operation.nearest P12", work)

    for name, shape, factor in (
        ("2", (2, 3, 4), 2),
        ("3", (2, 4, 3), 3),
        ("16", (1, 2, 1), 16),
        ("row", (2, 1, 5), 5),
        ("column", (2, 5, 1), 4),
    ):
        sheet = Sheet()
        work = sheet.show(sheet.add(Op.BILINEAR, sheet.constant(numbers(32, *shape, low=-1500, high=1500)), factor))
        yield _vector(f"bilinear-{name}", f"a map of {shape[1]} x {shape[2]} by {factor}", "operation.bilinear P2", work)

    sheet = Sheet()
    bands = sheet.constant(numbers(33, 8, 2, 3))
    again = sheet.add(Op.HAAR, sheet.combine(bands, bands, 77, -1))
    work = sheet.show(sheet.concatenate(sheet.add(Op.HAAR, bands), again))
    yield _vector("haar", "bands of activations and of accumulators", "operation.haar P12", work)


# ---- moves


def _moves() -> Iterator[Vector]:
    sheet = Sheet()
    x = sheet.constant(numbers(50, 4, 5, 6))
    wide = sheet.combine(x, x, 500, -1)
    parts = [
        sheet.add(Op.CROP, sheet.slice(x, 1, 4), 2, 3, 3, 3),
        sheet.add(Op.CROP, sheet.concatenate(sheet.slice(x, 3, 4), sheet.slice(x, 0, 1)), 0, 0, 3, 3),
    ]
    part = sheet.add(Op.CROP, sheet.slice(wide, 0, 4), 1, 2, 3, 3)
    work = sheet.show(sheet.concatenate(part, sheet.accumulator(sheet.concatenate(*parts))))
    about = "parts of activations and of accumulators"
    yield _vector("moves", about, "operation.concatenate operation.slice operation.crop P12", work)

    sheet = Sheet(frames=2)
    x = sheet.embedding(numbers(51, 2, 2, 3, 3, low=-1400, high=1400))
    sums = sheet.convolution(x, numbers(52, 2, 2, 3, 3, low=-9, high=9), (7, -7))
    part = sheet.slice(sums, 1, 2)
    small = [sheet.requantise(v, power(-5)) for v in (part, sums, sheet.add(Op.NEAREST, sums, 1, 1, 1, 1))]
    kept = [sheet.accumulator(sheet.concatenate(*small)), sums, part, sheet.accumulator(x), sheet.add(Op.MULTIPLY, x, x)]
    work = sheet.show(sheet.concatenate(*kept))
    yield _vector("reuse", "values read again after they were scaled", "P11 P13 operation.requantise", work)

    sheet = Sheet(frames=3)
    grey = sheet.requantise(sheet.embedding(numbers(53, 3, 1, 3, 5)), power(-2), 0, 255)
    sheet.constant(values(5))
    work = sheet.work([grey] * 3)
    yield _vector("grey", "one value for all planes, and one that nothing reads", "operation.output P3 P8", work)
