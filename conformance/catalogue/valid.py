"""The catalogue of valid vectors; here those of the container: pictures, chunks, metadata, segments and times (SPEC 2 to 4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from nvc.bitstream import canonical, packing
from nvc.bitstream.constants import FIRST_PTS
from nvc.bitstream.segment import Segment

from ..suite import Vector
from ..xxh64 import xxh64
from .file import Chunk, File, SegmentParts
from .sheets import Sheet, Work, numbers, power, segment, segments, single, values, write
from .valid_functions import functions
from .valid_limits import limits
from .valid_numbers import tensors
from .valid_operations import operations

YUV, RGB = 0, 1
TIMES = 6  # the section
METADATA: dict[str, str | int] = {"title": "A film", "year": 1895}
U32 = (1 << 32) - 1


def valid() -> Iterator[Vector]:
    """Files that every decoder has to read, the same at every call."""
    for part in (_pictures, _chunks, _metadata, _segments, _times, operations, functions, tensors, limits):
        yield from part()


def card(width: int, height: int, pixel_format: int = RGB, frames: int = 2, seed: int = 0) -> Work:
    """Three planes of slopes without any symmetry, whose brightness changes from frame to frame."""
    sheet = Sheet(frames, "card")
    light = sheet.embedding(numbers(seed, frames, 3, 1, 1, low=300, high=1500))
    small = ((height + 1) // 2, (width + 1) // 2) if pixel_format == YUV else (height, width)
    planes = []
    for plane, (rows, columns) in enumerate([(height, width), small, small]):
        slope = sheet.combine(sheet.coordinates(0, rows, columns), sheet.coordinates(1, rows, columns), 60 - 70 * plane, 37)
        lit = sheet.combine(slope, sheet.slice(light, plane, plane + 1), 1, 1)
        planes.append(sheet.requantise(lit, power(-3), 0, 255))
    return sheet.work(planes, pixel_format)


def _vector(slug: str, data: bytes, about: str, clauses: str) -> Vector:
    return Vector(f"valid/{slug}", data, about, tuple(clauses.split()))


# ---- HEAD


def _pictures() -> Iterator[Vector]:
    sheet = Sheet(1, "~")
    black = sheet.work([sheet.coordinates(0, 1, 1)] * 3)
    about = "a sample that needs no numbers: an empty section of weights"
    yield _vector("no-numbers", single(black), about, "P6 S3 section.weights")
    for name, pixel_format in (("rgb", RGB), ("yuv", YUV)):
        data = single(card(1, 1, pixel_format))
        yield _vector(f"one-sample-{name}", data, "pictures of 1 x 1", "HEAD.width HEAD.height HEAD.pixel_format P8")
        data = single(card(7, 5, pixel_format))
        yield _vector(f"odd-sides-{name}", data, "pictures of 7 x 5", "HEAD.width HEAD.height HEAD.pixel_format P8")
    for orientation in range(1, 9):
        fields = {"orientation": orientation, "chroma_location": (orientation - 1) % 7, "full_range": orientation % 3}
        data = single(card(6, 4, YUV, 1), **fields)
        about = "shown by a player as {orientation}, chroma at {chroma_location}, range {full_range}".format(**fields)
        yield _vector(f"orientation-{orientation}", data, about, "H3 HEAD.orientation HEAD.chroma_location HEAD.full_range")
    data = single(card(4, 6), primaries=255, transfer=255, matrix=255, full_range=1)
    yield _vector("colour-unknown", data, "colour code points that nobody knows", "H3")
    for number, (par, base, rate, pts) in enumerate(
        (
            (Fraction(0), Fraction(1, U32), Fraction(30000, 1001), -FIRST_PTS),
            (Fraction(1, U32), Fraction(U32), Fraction(1, U32), FIRST_PTS),
            (Fraction(U32, U32 - 1), Fraction(1001, 30000), Fraction(U32), -1),
        )
    ):
        data = single(card(5, 4, YUV), par=par, time_base=base, frame_rate=rate, first_pts=pts)
        about = f"pixel aspect {par}, time base {base}, {rate} frames a second from {pts}"
        clauses = "H2 H3 HEAD.first_pts HEAD.par_den HEAD.time_base_num HEAD.time_base_den"
        yield _vector(f"fractions-{number + 1}", data, about, clauses)


# ---- chunks


def _chunks() -> Iterator[Vector]:
    work = card(6, 4, YUV, 3)
    parts = [segment(work), segment(work, 3)]
    for name, count, indexed in (("no-index", 6, False), ("live", None, False), ("live-indexed", None, True)):
        data = write(replace(work.header, frame_count=count), [work.program], parts, indexed=indexed)
        about = f"{'stated' if count else 'unknown'} number of frames, {'with' if indexed else 'without'} index"
        yield _vector(name, data, about, "F3 N2 HEAD.frame_count X1 X2" if indexed else "F3 N2 HEAD.frame_count")

    file = File.parse(write(replace(work.header, frame_count=6), [work.program], parts, METADATA))
    bare = file.with_chunks([chunk for chunk in file.chunks if chunk.type not in (b"INDX", b"FOOT")])
    for name, compatible in (("features", U32), ("features-no-index", U32 - 1)):
        data = replace(file if compatible & 1 else bare, compatible=compatible).to_bytes()
        yield _vector(name, data, "all other compatible features are set", "M2")
    data = replace(file, stream_id=bytes(8)).to_bytes()
    yield _vector("stream-id", data, "a stream id that is no hash", "M3 chunk.header_crc")

    names = [b"aBCD", b"abCD", b"aBcD", b"aBCd", b"abcd", b"zzzz", b"head", b"sEGM", b"mEta", b"mETA"]
    others = [Chunk(name, bytes(length % 5 * 7)) for length, name in enumerate(names)]
    head, model, meta, *pair = bare.chunks
    mixed = [head, model, meta, *others, pair[0], *others[::-1], pair[1], *others]
    data = bare.with_chunks(mixed).indexed().to_bytes()
    yield _vector("ancillary", data, "unknown chunks at all places, in all cases", "F1 C2 C3 X1")
    early = [head, model, others[0], *pair, others[1], Chunk(b"tail", bytes(70000))]
    data = replace(bare.with_chunks(early), compatible=0).to_bytes()
    yield _vector("ancillary-no-meta", data, "unknown chunks behind MODL and at the end, without an index", "F1 C3")


# ---- 3.4 to 3.6


def _metadata() -> Iterator[Vector]:
    work = card(4, 3, frames=1)
    header, parts = work.header, [segment(work)]
    plain = File.parse(write(header, [work.program], parts, METADATA))

    def packed(document: dict[str, str | int], method: int) -> bytes:
        """The file with this metadata: 0 stored, 1 a compressed zstd frame, 2 a zstd frame of raw blocks."""
        data = canonical.pack(document)
        body = {0: b"\0" + data, 1: packing.pack(data), 2: b"\1" + zstd_frame([data[:2], b"", data[2:]], checksum=True)}[method]
        assert body[0] == min(method, 1)
        return plain.with_payload(b"mETa", body).indexed().to_bytes()

    long: dict[str, str | int] = {"note": "say it again, " * 99}
    yield _vector("metadata-stored", packed(METADATA, 0), "metadata stored", "D6 D7 packing.0")
    yield _vector("metadata-zstd", packed(long, 1), "metadata compressed by zstd", "D6 D7 Z1 packing.1")
    about = "zstd blocks that are not compressed, one of them empty, and a checksum"
    yield _vector("metadata-blocks", packed(long, 2), about, "Z2 packing.1")
    unicode: dict[str, str | int] = {
        "": "the empty key",
        "Titel": "\0 K\u00e4se \u2014 \u65e5\u672c\u8a9e",
        "\uff5e": "in UTF-16 this key stands behind the next one",
        "\U0001f3ac": "\U0001f3ac",
        "e\u0301": 1,
        "\u00e9": 2,
    }
    yield _vector("metadata-unicode", packed(unicode, 0), "keys in the order of their UTF-8, not normalised", "D3 D5 D6")
    ends = [sign * (1 << bits) + step for bits in (5, 7, 8, 15, 16, 31, 32, 63) for sign in (1, -1) for step in (-1, 0, 1)]
    integers: dict[str, str | int] = {f"{n:+021d}": n for n in [0, U32 << 32 | U32, *ends] if -(1 << 63) <= n < 1 << 64}
    lengths: dict[str, str | int] = {f"s{n}": "x" * n for n in (0, 31, 32, 255, 256)}
    about = "integers and strings at both ends of every encoding"
    yield _vector("metadata-encodings", packed(integers | lengths, 0), about, "D3 D5 D6")


def zstd_frame(blocks: Sequence[bytes | tuple[int, int]], checksum: bool = False, window: int | None = None) -> bytes:
    """A zstd frame of blocks that are not compressed: bytes as they are, or (byte, count) as a run.

    With `window`, its descriptor byte, the frame is no single segment.
    """
    content = b"".join(block if isinstance(block, bytes) else bytes([block[0]]) * block[1] for block in blocks)
    flags = 0x80 | (0x20 if window is None else 0) | (4 if checksum else 0)  # a content size of 4 bytes
    frame = bytes.fromhex("28b52ffd") + bytes([flags]) + (b"" if window is None else bytes([window]))
    frame += struct.pack("<I", len(content))
    for number, block in enumerate(blocks):
        run = isinstance(block, tuple)
        size, body = (block[1], bytes([block[0]])) if isinstance(block, tuple) else (len(block), block)
        frame += struct.pack("<I", size << 3 | 2 * run | (number == len(blocks) - 1))[:3] + body
    return frame + (struct.pack("<I", xxh64(content) & U32) if checksum else b"")


# ---- 4


def _segments() -> Iterator[Vector]:
    works = [card(6, 4, YUV, frames, frames) for frames in (2, 1, 3, 1)]
    header, program = replace(works[0].header, frame_count=7), [works[0].program]
    parts = [replace(part, program=0) for part in segments(*works)]
    clauses = "N1 N2 N3 N4 S4 S5 X1 X2 section.hashes segment.first_frame"
    yield _vector("segments", write(header, program, parts), "segments of 2, 1, 3 and 1 frames", clauses)

    order = (2, 0, 1, 0)
    shades = [_shade(number) for number in range(256)]
    programs = [shade.program for shade in shades]
    data = write(replace(shades[0].header, frame_count=4), programs[:3], _in_order([shades[number] for number in order], order))
    yield _vector("programs-3", data, "segments of three programs, the first of them the last", "S1 P1")
    order = (255, 0, 128, 7)
    data = write(replace(shades[0].header, frame_count=4), programs, _in_order([shades[number] for number in order], order))
    yield _vector("programs-256", data, "256 programs", "S1 P1 D1 D4")


def _shade(number: int) -> Work:
    """A grey sample that tells programs apart: 1..255 by the program alone."""
    sheet = Sheet(1, f"{number:032d}" if number % 2 else "~")
    grey = sheet.requantise(sheet.constant(values(2047)), power(0), 0, 1 + number % 255)
    return sheet.work([grey] * 3)


def _in_order(works: Sequence[Work], programs: Sequence[int]) -> list[Segment]:
    """Segments of works whose programs have these numbers in MODL."""
    return [replace(part, program=number) for part, number in zip(segments(*works), programs, strict=True)]


def _times() -> Iterator[Vector]:
    work = card(4, 4, YUV, 3)
    variable = replace(work.header, frame_rate=None, time_base=Fraction(1, 90000), frame_count=6, first_pts=-(1 << 40))
    ticks = ((0, U32, 1), (1 << 31, 3003, 3003))
    data = write(variable, [work.program], [segment(work, 3 * n, 0, times) for n, times in enumerate(ticks)])
    yield _vector("times-stored", data, "times from 1 to 2^32 - 1 ticks apart", "S6 S7 section.times packing.0")
    many = card(2, 2, frames=12, seed=5)
    header = replace(variable, width=2, height=2, pixel_format=RGB, frame_count=12)
    data = write(header, [many.program], [segment(many, 0, 0, (0, *[3003] * 11))])
    yield _vector("times-zstd", data, "times compressed by zstd", "S6 S7 section.times packing.1")
    raw = struct.pack("<12I", 0, *[0x01010101] * 11)
    frame = zstd_frame([raw[:9], b"", (1, 30), (1, len(raw) - 39)], window=13 << 3)  # a window of 8 MiB
    file = File.parse(data)
    parts = SegmentParts.parse(file.payload(b"SEGM")).with_section(TIMES, b"\1" + frame)
    data = file.with_payload(b"SEGM", parts.to_bytes()).indexed().to_bytes()
    yield _vector("times-blocks", data, "a zstd frame of raw and repeated blocks, whose window is 8 MiB", "Z2 Z3 S7 packing.1")
