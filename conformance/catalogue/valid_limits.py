"""Vectors exactly at a limit, which a decoder must still accept: those of the format and of SPEC 9, and the 2^24 of SPEC 8.1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nvc.bitstream import canonical, packing
from nvc.bitstream.program import Op, Program, pack_programs

from ..suite import Vector
from .codings import EXACT, Integers
from .file import Chunk, File
from .sheets import HIGH, LOW, Sheet, Work, power, segment, single, values, write

DOCUMENT = 65536  # bytes
MAX_STRING, MAX_ITEMS = 4096, 4096
MAX_PROGRAM = 1024  # operations, tensors
MAX_CHANNELS = 16384


def limits() -> Iterator[Vector]:
    """Files at limits."""
    for part in (_defaults, _documents, _reaches, _given):
        yield from part()


def _vector(slug: str, data: bytes, about: str, clauses: str, **given: int) -> Vector:
    return Vector(f"limits/{slug}", data, about, tuple(clauses.split()), limits=given)


def _black(frames: int = 1) -> Work:
    """Samples of 0 that need no numbers."""
    sheet = Sheet(frames)
    return sheet.work([sheet.coordinates(0, 1, 1)] * 3)


# ---- 9, the defaults; 8.4, 8.7


def _defaults() -> Iterator[Vector]:
    yield _vector("segment-frames", single(_black(4096)), "4096 frames in a segment", "max_segment_frames segment.frames L2 S5")
    for slug, shape, ratios in (("wide", (1, 2048), (1, 1, 8, 1)), ("high", (2048, 1), (8, 1, 1, 1))):
        sheet = Sheet()
        line = sheet.requantise(sheet.coordinates(int(shape[1] > 1), *shape), power(-4), 0, 255)
        work = sheet.work([sheet.add(Op.NEAREST, line, *ratios)] * 3)
        about = f"a picture of {work.width} x {work.height}"
        yield _vector(f"side-{slug}", single(work), about, "max_side L2 HEAD.width HEAD.height")

    sheet = Sheet()
    parts = [sheet.constant(np.arange(4096).reshape(-1, 1, 1) * factor % 61 - 30) for factor in (7, 17)]
    sums = sheet.convolution(parts[0], np.resize(np.arange(-3, 4), (4096, 1, 1, 1)), np.arange(4096) % 50, 4096)
    x = sheet.concatenate(*parts, sheet.requantise(sums, power(0)), sheet.slice(parts[0], 0, 4096))
    assert sheet.map(x).channels == MAX_CHANNELS
    work = sheet.show(sheet.add(Op.SHUFFLE, x, 16, 16))
    about = "a value of 16384 channels and a convolution of 4096 groups"
    yield _vector("channels", single(work), about, "K1 P2 operation.convolution")

    sheet = Sheet()
    x = sheet.constant(values(9, 99, 999))
    while len(sheet.builder.program().operations) < MAX_PROGRAM - 27:
        x = sheet.concatenate(sheet.slice(x, 1, 3), sheet.slice(x, 0, 1))
    for _ in range(MAX_PROGRAM - len(sheet.builder.program().operations) - _shown(x, sheet)[0]):
        x = sheet.slice(x, 0, 3)
    work = sheet.show(x)
    assert len(work.program.operations) == MAX_PROGRAM
    yield _vector("operations", single(work), "1024 operations, each of which matters", "max_operations L2")

    sheet = Sheet(2)
    x = sheet.accumulator(sheet.phases([1 << 30], [7 << 20]))
    left = MAX_PROGRAM - len(sheet.builder.tensors) - _shown(x, sheet)[1]
    for step in range(left // 3):
        wave = sheet.phases([step * 0xC0FFEE], [step * 0xBADCAB])  # up to 2^32
        x = sheet.add(Op.COMBINE, x, wave, sheet.parameter([1, 1 - 2 * (step % 2)]))
    for _ in range(left % 3):
        x = sheet.add(Op.COMBINE, x, x, sheet.parameter([0, 1]))
    work = sheet.show(x)
    assert len(work.tensors) == MAX_PROGRAM
    yield _vector("tensors", single(work), "1024 tensors", "max_tensors L2 P4")


def _shown(x: int, sheet: Sheet) -> tuple[int, int]:
    """The operations and tensors that showing a value adds."""
    copy = Sheet(sheet.frames)
    channels = sheet.map(x).channels
    work = copy.show(copy.accumulator(copy.constant(np.zeros((channels, 1, 1), dtype=np.int64))))
    return len(work.program.operations) - 2, len(work.tensors) - 2


# ---- 3.4


def _documents() -> Iterator[Vector]:
    work = _black()
    file = File.parse(single(work))

    def with_metadata(document: dict[str, str | int]) -> bytes:
        head, model, *rest = file.chunks
        return file.with_chunks([head, model, Chunk(b"mETa", packing.pack(canonical.pack(document))), *rest]).indexed().to_bytes()

    texts: dict[str, str | int] = {f"{n:02d}": chr(97 + n) * MAX_STRING for n in range(15)}
    room = DOCUMENT - len(canonical.pack(texts | {"~": "x" * 256})) + 256
    texts["~"] = "x" * room
    assert len(canonical.pack(texts)) == DOCUMENT
    yield _vector("document-bytes", with_metadata(texts), "metadata of 65536 bytes, strings of 4096", "D2 D4 D6 Z3")
    items: dict[str, str | int] = {f"{n:04d}": n for n in range(MAX_ITEMS)}
    yield _vector("document-items", with_metadata(items), "metadata of 4096 entries", "D4 D6")

    def model(slices: int, names: int) -> list[Program]:
        """256 programs of so many slices that nothing reads, and so many characters in all names."""
        sheet = Sheet()
        x = sheet.coordinates(0, 1, 1)
        for _ in range(slices):
            sheet.slice(x, 0, 1)
        operations = sheet.work([x] * 3).program.operations
        return [Program("n" * (names // 256 + (number < names % 256)), operations) for number in range(256)]

    slices = 20 + (DOCUMENT - len(pack_programs(model(20, 256)))) // (256 * 5)  # of 5 bytes each
    programs = model(slices, 256 + DOCUMENT - len(pack_programs(model(slices, 256))))
    assert len(pack_programs(programs)) == DOCUMENT
    data = write(work.header, programs, [replace(segment(work), program=255)])
    yield _vector("model-bytes", data, "256 programs of 65536 bytes", "D1 D2 P1 S1")


# ---- 8.1


def _reaches() -> Iterator[Vector]:
    """Each value reaches -2^24 or 2^24, and other samples stay just within."""

    def shown(slug: str, sheet: Sheet, x: int) -> Vector:
        about = f"a {slug} that reaches 2^24 and does not pass it"
        return _vector(f"reach-{slug}", single(sheet.show_sums(x)), about, f"B1 A1 bound.{slug}")

    sheet = Sheet()
    codes = np.full((64, 1, 4), LOW, dtype=np.int64)
    codes[7, 0, 1], codes[:, 0, 2], codes[::2, 0, 3] = LOW + 1, HIGH, HIGH
    weights = np.full((2, 64, 1, 1), 127)
    weights[0] = -127
    rest = EXACT - 64 * 127 * -LOW
    yield shown("convolution", sheet, sheet.convolution(sheet.constant(codes), weights, (rest, -rest)))

    sheet = Sheet()
    x = _wide(sheet, 256)
    pairs = ((32, 0), (-32, 0), (0, 32), (16, 16), (-31, -1))
    yield shown("combine", sheet, sheet.concatenate(*(sheet.combine(x, x, *pair) for pair in pairs)))

    sheet = Sheet()
    x, y, z = _wide(sheet, 2), sheet.embedding(_line()), _wide(sheet, 4)
    products = [sheet.add(Op.MULTIPLY, *pair) for pair in ((x, x), (y, z), (z, y))]
    yield shown("multiply", sheet, sheet.concatenate(*products))

    sheet = Sheet()
    yield shown("bilinear", sheet, sheet.add(Op.BILINEAR, _wide(sheet, 8), 16))

    sheet = Sheet()
    x = _wide(sheet, 256)
    bands = sheet.concatenate(*(sheet.combine(x, x, 4, 4) for _ in range(4)))
    yield shown("haar", sheet, sheet.add(Op.HAAR, bands))

    sheet = Sheet()
    mantissa = 1391
    most = EXACT * 1024 // mantissa  # times the multiplier it lies less than 1 below 2^24, and is rounded up
    assert EXACT * 1024 - 1024 < most * mantissa < EXACT * 1024
    x = sheet.sums([most, -most, most - 1, 1 - most, 3, -3])
    turned = [sheet.sine(x, power(0) + mantissa - 1024), sheet.sine(sheet.sums([EXACT, -EXACT, 1, 2, 3, EXACT - 1]))]
    work = sheet.show(sheet.concatenate(*turned, sheet.sine(sheet.sums([1 << 19, -(1 << 19), 1]), power(5))))
    about = "a sine of a product that reaches 2^24 and does not pass it"
    yield _vector("reach-requantise", single(work), about, "B1 A1 bound.requantise function.sine")


def _line() -> Integers:
    """Codes of one time: the ends of the range and their neighbours."""
    return np.array([LOW, LOW + 1, HIGH, HIGH - 1, 0, 1], dtype=np.int64).reshape(1, 1, 1, 6)


def _wide(sheet: Sheet, stride: int) -> int:
    """An embedding whose interval is `stride` times that of activations."""
    return sheet.embedding(_line(), stride)


# ---- 9, given by the user


def _given() -> Iterator[Vector]:
    frames, channels, height, width = 3, 2, 3, 4
    sheet = Sheet(frames)
    codes = np.arange(frames * channels * height * width, dtype=np.int64).reshape(frames, channels, height, width) * 25 - 900
    weights = np.resize(np.arange(-4, 5), (3, channels, 3, 3))
    sums = sheet.convolution(sheet.embedding(codes), weights, (900, 0, -900))
    samples = sheet.requantise(sums, power(-5), 0, 255)
    work = sheet.work([sheet.slice(samples, plane, plane + 1) for plane in range(3)])

    size = height * width
    elements = [channels * size, 3 * size, 3 * size, size, size, size]
    macs = 3 * channels * 3 * 3 * size + sum(elements)  # 780, a multiple of the size
    file = File.parse(write(replace(work.header, frame_count=2 * frames), [work.program], [segment(work), segment(work, frames)]))
    given = {
        "max_side": width,
        "max_pixels": size,
        "max_frames": 2 * frames,
        "max_segments": 2,
        "max_segment_frames": frames,
        "max_chunk_bytes": max(len(chunk.payload) for chunk in file.chunks),
        "max_parameters": codes.size + weights.size + 3 + 1,
        "max_tensors": 4,
        "max_operations": 7,
        "max_macs_per_pixel": macs // size,
        "max_macs_per_frame": macs,
        "max_macs_total": 2 * frames * macs,
        "max_memory_bytes": 4 * (elements[1] + elements[2]),  # as many as the samples and their three slices
    }
    assert macs % size == 0
    about, clauses = "exactly at all limits that the user gave", f"L1 L2 K1 {' '.join(given)}"
    yield _vector("given", file.to_bytes(), about, clauses, **given)
    live = write(replace(work.header, frame_count=None), [work.program], [segment(work), segment(work, frames)], indexed=False)
    yield _vector("given-live", live, f"{about}, in a file that does not state its frames", clauses, **given)
