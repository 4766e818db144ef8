"""Files with one wrong field: HEAD, segment headers, section tables and time stamps (SPEC 3.3, 4.1 to 4.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from ..suite import Vector
from .bases import Film, film
from .file import File, SegmentParts
from .refusals import refusal

FILM, VARIABLE = film(), film(Film(variable=True))
HEAD = {  # SPEC 3.3: offset and form of the fields
    "width": (0, "<H"),
    "height": (2, "<H"),
    "pixel_format": (4, "<B"),
    "bit_depth": (5, "<B"),
    "full_range": (9, "<B"),
    "chroma_location": (10, "<B"),
    "orientation": (11, "<B"),
    "par_num": (12, "<I"),
    "par_den": (16, "<I"),
    "time_base_num": (20, "<I"),
    "time_base_den": (24, "<I"),
    "frame_rate_num": (28, "<I"),
    "frame_rate_den": (32, "<I"),
    "frame_count": (36, "<Q"),
    "first_pts": (44, "<q"),
}
SEGMENT = {
    "first_frame": (0, "<Q"),
    "frames": (8, "<I"),
    "program": (12, "<B"),
    "flags": (13, "<B"),
    "sections": (14, "<B"),
    "reserved": (15, "<B"),
}
WEIGHTS, CODEBOOK, EMBEDDINGS, TOKENS, HASHES, TIMES = range(1, 7)


def with_head(file: File, **values: int) -> File:
    """The file with these fields of HEAD."""
    for name, value in values.items():
        offset, form = HEAD[name]
        file = file.patched(b"HEAD", offset, struct.pack(form, value))
    return file


def with_segment(file: File, number: int = 0, **values: int) -> File:
    """The file with these fields in the header of a segment, and an index that says the same."""
    for name, value in values.items():
        offset, form = SEGMENT[name]
        file = file.patched(b"SEGM", offset, struct.pack(form, value), number)
    return file.indexed() if file.compatible else file


def with_parts(file: File, parts: SegmentParts, number: int = 0) -> File:
    """The file with another segment in the place of that one."""
    changed = file.with_payload(b"SEGM", parts.to_bytes(), number)
    return changed.indexed() if file.compatible else changed


def parts_of(file: File, number: int = 0) -> SegmentParts:
    """A segment, taken apart."""
    return SegmentParts.parse(file.payload(b"SEGM", number))


def fields() -> Iterator[Vector]:
    """The vectors of this file."""
    yield from _head()
    yield from _segments()
    yield from _sections()
    yield from _times()


def _head() -> Iterator[Vector]:
    for name, value, code in (
        ("width", 0, "invalid.range"),
        ("height", 0, "invalid.range"),
        ("pixel_format", 2, "unsupported.pixel_format"),
        ("pixel_format", 255, "unsupported.pixel_format"),
        ("bit_depth", 7, "unsupported.bit_depth"),
        ("bit_depth", 9, "unsupported.bit_depth"),
        ("full_range", 3, "invalid.range"),
        ("full_range", 255, "invalid.range"),
        ("chroma_location", 7, "invalid.range"),
        ("orientation", 0, "invalid.range"),
        ("orientation", 9, "invalid.range"),
        ("par_den", 0, "invalid.range"),
        ("time_base_num", 0, "invalid.range"),
        ("time_base_den", 0, "invalid.range"),
        ("frame_count", 0, "invalid.range"),
        ("frame_count", (1 << 30) + 1, "invalid.range"),
        ("frame_count", (1 << 64) - 2, "invalid.range"),
        ("first_pts", (1 << 62) + 1, "invalid.range"),
        ("first_pts", -(1 << 62) - 1, "invalid.range"),
        ("first_pts", -(1 << 63), "invalid.range"),
    ):
        slug = f"head-{name}-{value}".replace("_", "-").replace("--", "-minus-")
        yield refusal(slug, code, with_head(FILM, **{name: value}), f"{name} is {value}", f"HEAD.{name}")
    for name, num, den in (
        ("par", 2, 4),
        ("par", 0, 2),
        ("time_base", 40, 1000),
        ("frame_rate", 50, 2),
        ("frame_rate", 25, 0),
        ("frame_rate", 0, 1),
        ("frame_rate", 0, 25),
        ("frame_rate", 1, 0),
    ):
        wrong = with_head(FILM, **{f"{name}_num": num, f"{name}_den": den})
        slug = f"head-{name}-{num}-{den}".replace("_", "-")
        yield refusal(slug, "invalid.ratio", wrong, f"{name} is {num}/{den}", "H2")
    head = FILM.payload(b"HEAD")
    for slug, payload in (("short", head[:-1]), ("long", head + b"\0"), ("empty", b"")):
        about = f"HEAD has {len(payload)} bytes"
        yield refusal(f"head-{slug}", "invalid.length", FILM.with_payload(b"HEAD", payload).indexed(), about, "H1")


def _segments() -> Iterator[Vector]:
    payload = FILM.payload(b"SEGM")
    for size in (0, 23):
        short = FILM.with_payload(b"SEGM", payload[:size])
        yield refusal(f"segment-of-{size}-bytes", "invalid.length", short, f"a segment of {size} bytes", "S4")
    for name, value, code in (
        ("first_frame", 1 << 30, "invalid.range"),
        ("first_frame", (1 << 64) - 1, "invalid.range"),
        ("frames", 0, "invalid.range"),
        ("frames", 1 << 16, "invalid.range"),
        ("frames", (1 << 32) - 1, "invalid.range"),
        ("flags", 1, "unsupported.segment_flags"),
        ("flags", 128, "unsupported.segment_flags"),
        ("reserved", 1, "unsupported.reserved"),
        ("reserved", 255, "unsupported.reserved"),
    ):
        slug = f"segment-{name}-{value}".replace("_", "-")
        yield refusal(slug, code, with_segment(FILM, **{name: value}), f"{name} of a segment is {value}", f"segment.{name}")
    about = "the last segment, too, has a flag"
    yield refusal("segment-flags-last", "unsupported.segment_flags", with_segment(FILM, 2, flags=1), about, "segment.flags", "N4")
    for program in (2, 255):
        about = f"a segment of program {program}; there are two"
        yield refusal(f"segment-program-{program}", "invalid.program", with_segment(FILM, 1, program=program), about, "S1")


def _sections() -> Iterator[Vector]:
    parts = parts_of(FILM)
    sections = dict(parts.sections)
    names = {1: "weights", 2: "codebook", 3: "embeddings", 4: "tokens", 5: "hashes", 6: "times"}
    for kind in (0, 7, 255):
        wrong = with_parts(FILM, parts.with_section(kind, b"x"))
        yield refusal(f"section-kind-{kind}", "unsupported.section", wrong, f"a section of kind {kind}", "S2")

    def listed(*kinds: int) -> File:
        """The film whose first segment has these sections, in this order."""
        return with_parts(FILM, replace(parts, sections=tuple((kind, sections[kind]) for kind in kinds)))

    for slug, wrong, about in (
        ("weights-missing", listed(2, 3, 4, 5), "no section of weights"),
        ("hashes-missing", listed(1, 2, 3, 4), "no section of hashes"),
        ("none", with_parts(FILM, replace(parts, sections=())), "no section at all"),
        ("swapped-at-front", listed(2, 1, 3, 4, 5), "the first two sections are swapped"),
        ("swapped-at-end", listed(1, 2, 3, 5, 4), "the last two sections are swapped"),
        ("twice-at-front", listed(1, 1, 2, 3, 4, 5), "the section of weights comes twice"),
        ("twice-at-end", listed(1, 2, 3, 4, 5, 5), "the section of hashes comes twice"),
        ("hashes-first-too", listed(5, 1, 2, 3, 4, 5), "the section of hashes comes first and last"),
    ):
        yield refusal(f"sections-{slug}", "invalid.sections", wrong, about, "S3")
    for kind in (CODEBOOK, EMBEDDINGS, TOKENS, TIMES):
        name = names[kind]
        wrong = with_parts(FILM, parts.with_section(kind, b""))
        yield refusal(f"section-{name}-empty", "invalid.sections", wrong, f"an empty section of {name}", "S3", f"section.{name}")
    for slug, size in (("none", 0), ("one-short", 15), ("one-more", 17), ("one-frame-less", 8), ("one-frame-more", 24)):
        wrong = with_parts(FILM, parts.with_section(HASHES, (sections[HASHES] * 2)[:size]))
        about = f"{size} bytes of hashes for 2 frames"
        yield refusal(f"hashes-{slug}", "invalid.hashes", wrong, about, "S5", "section.hashes")
    payload, table = parts.to_bytes(), 24 + 5 * len(sections)
    lengths = [len(data) for _, data in parts.sections]
    around = [(0, lengths[0] + (1 << 31)), (1, lengths[1] + (1 << 31))]
    for slug, wrong, about in (
        ("table-cut", _payload(payload[: table - 1]), "a segment that ends within its section table"),
        ("table-of-255", with_segment(FILM, sections=255), "255 sections, for which there is no room"),
        ("only-the-table", _payload(payload[:table]), "a segment that ends behind its section table"),
        ("one-byte-less", _payload(payload[:-1]), "a segment whose last section lacks a byte"),
        ("one-byte-more", with_parts(FILM, replace(parts, extra=b"\0")), "a byte behind the last section"),
        ("length-one-less", _lengths(FILM, (4, lengths[4] - 1)), "the length of the last section is one less"),
        ("length-one-more", _lengths(FILM, (0, lengths[0] + 1)), "the length of the first section is one more"),
        ("length-largest", _lengths(FILM, (1, (1 << 32) - 1)), "a section of 2^32 - 1 bytes"),
        ("lengths-around", _lengths(FILM, *around), "lengths whose sum is right modulo 2^32"),
    ):
        yield refusal(f"sections-{slug}", "invalid.length", wrong, about, "S4")


def _payload(payload: bytes) -> File:
    return FILM.with_payload(b"SEGM", payload).indexed()


def _lengths(file: File, *changed: tuple[int, int]) -> File:
    """The file with these lengths in the section table of the first segment."""
    for entry, length in changed:
        file = file.patched(b"SEGM", 25 + 5 * entry, struct.pack("<I", length))
    return file


def ticks(*numbers: int) -> bytes:
    """Stored time stamps."""
    return b"\0" + struct.pack(f"<{len(numbers)}I", *numbers)


def with_times(packed: bytes | None, number: int = 0) -> File:
    """The film of variable frame rate with these packed time stamps in a segment; None leaves them out."""
    return with_parts(VARIABLE, parts_of(VARIABLE, number).with_section(TIMES, packed), number)


def _times() -> Iterator[Vector]:
    constant = with_parts(FILM, parts_of(FILM).with_section(TIMES, ticks(0, 1)))
    rules = ("section.times", "S6")
    yield refusal("times-at-constant-rate", "invalid.times", constant, "time stamps, though the frame rate is constant", *rules)
    last = with_parts(FILM, parts_of(FILM, 2).with_section(TIMES, ticks(1)), 2)
    yield refusal("times-at-constant-rate-last", "invalid.times", last, "time stamps in the last segment alone", *rules)
    yield refusal("times-missing", "invalid.times", with_times(None), "variable frame rate, no time stamps", *rules)
    about = "variable frame rate, no time stamps in the last segment"
    yield refusal("times-missing-last", "invalid.times", with_times(None, 2), about, *rules)
    for slug, packed, number, about in (
        ("begin-late", ticks(1, 40), 0, "frame 0 comes 1 tick behind the frame before"),
        ("stand-still", ticks(0, 0), 0, "frame 1 comes 0 ticks behind frame 0"),
        ("stand-still-between", ticks(0, 1, 1), 1, "the first frame of the second segment comes 0 ticks behind the one before"),
        ("stand-still-last", ticks(41, 1, 0), 1, "the last frame of a segment comes 0 ticks behind the one before"),
    ):
        yield refusal(f"times-{slug}", "invalid.times", with_times(packed, number), about, "S7")
    for slug, packed in (("of-one-frame", ticks(0)), ("of-three-frames", ticks(0, 1, 1)), ("one-byte-less", ticks(0, 1)[:-1])):
        about = f"{len(packed) - 1} bytes of time stamps for 2 frames"
        yield refusal(f"times-{slug}", "invalid.packed", with_times(packed), about, "S6", "Z3", "packing.0")
    long = with_times(ticks(0, 1) + b"\0")
    yield refusal("times-one-byte-more", "invalid.packed", long, "9 bytes of time stamps for 2 frames", "S6", "Z3", "packing.0")
