"""The fixed syntax elements as field tables, which drive writing, reading and describing; and the picture header."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import gcd
from typing import Any

from .constants import CHUNK_BYTES, FIRST_PTS, FRAMES, MAJOR, MINOR, PIXEL_FORMATS, SEGMENT_FRAMES, UNKNOWN_COUNT
from .errors import BitstreamError, InvalidError, LimitError, UnsupportedError

Plane = tuple[int, int]


@dataclass(frozen=True)
class Field:
    """One field: its `struct` code, its legal values, and how a reader answers all others.

    Integers MUST lie in low..high or equal `unknown`; a `high` of None is the largest that the code holds. Byte strings
    ("8s") are not restricted. `bits` marks a word of feature bits, so that the message names the bits.
    """

    name: str
    code: str
    low: int = 0
    high: int | None = None
    refusal: type[BitstreamError] = InvalidError
    reason: str = "range"
    unknown: int | None = None
    bits: bool = False

    @cached_property
    def size(self) -> int:
        """Bytes in the file."""
        return struct.calcsize("<" + self.code)

    @cached_property
    def maximum(self) -> int:
        """The largest legal value."""
        signed = self.code.islower()
        return self.high if self.high is not None else (1 << (8 * self.size - signed)) - 1

    def check(self, value: Any, element: str) -> None:
        """Raises the refusal of this field for a value that is not legal."""
        if self.code.endswith("s"):
            if len(value) != self.size:
                raise InvalidError("length", f"{element}: {self.name} has {len(value)} bytes, it must have {self.size}")
        elif not (self.low <= value <= self.maximum or value == self.unknown):
            shown = f"{value}"
            if self.bits:
                shown += f" (bits {', '.join(str(bit) for bit in range(8 * self.size) if value >> bit & 1)})"
            raise self.refusal(self.reason, f"{element}: {self.name} is {shown}, not in {self.low}..{self.maximum}")


@dataclass(frozen=True)
class Element:
    """A syntax element: fields one after the other, little-endian, without padding."""

    name: str
    section: str  # of SPEC.md
    fields: tuple[Field, ...]

    @cached_property
    def layout(self) -> struct.Struct:
        """All fields as one `struct`."""
        return struct.Struct("<" + "".join(field.code for field in self.fields))

    @cached_property
    def size(self) -> int:
        """Bytes in the file."""
        return self.layout.size

    def pack(self, **values: Any) -> bytes:
        """The bytes of the element; one value per field, each checked."""
        self.check(values)
        return self.layout.pack(*(values[field.name] for field in self.fields))

    def split(self, data: bytes) -> dict[str, Any]:
        """The values of exactly `size` bytes, unchecked."""
        return dict(zip((field.name for field in self.fields), self.layout.unpack(data), strict=True))

    def check(self, values: Mapping[str, Any]) -> None:
        """Raises for the first field, in file order, whose value is not legal."""
        for field in self.fields:
            field.check(values[field.name], self.name)

    def unpack(self, data: bytes) -> dict[str, Any]:
        """The checked values of `data`; InvalidError when its length is not that of the element."""
        if len(data) != self.size:
            raise InvalidError("length", f"{self.name} has {len(data)} bytes, it must have {self.size}")
        values = self.split(data)
        self.check(values)
        return values

    def describe(self, values: Mapping[str, Any]) -> list[tuple[int, int, str, str]]:
        """Rows (offset, size, field, value) for people."""
        rows, offset = [], 0
        for field in self.fields:
            value = values[field.name]
            shown = value.hex() if isinstance(value, bytes) else "unknown" if value == field.unknown else str(value)
            rows.append((offset, field.size, field.name, shown))
            offset += field.size
        return rows


PROLOGUE = Element(
    "prologue",
    "3.1",
    (
        Field("magic", "8s"),
        Field("major", "B", MAJOR, MAJOR, UnsupportedError, "version"),
        Field("minor", "B", MINOR, MINOR, UnsupportedError, "version"),
        Field("reserved", "H", 0, 0, UnsupportedError, "reserved"),
        Field("incompatible_features", "I", 0, 0, UnsupportedError, "feature", bits=True),
        Field("compatible_features", "I"),
        Field("stream_id", "8s"),
        Field("crc", "I"),
    ),
)

CHUNK_HEADER = Element(
    "chunk header",
    "3.2",
    (
        Field("type", "4s"),
        Field("length", "I", 0, CHUNK_BYTES, LimitError, "chunk_bytes"),
        Field("payload_crc", "I"),
        Field("header_crc", "I"),
    ),
)

PICTURE_HEADER = Element(
    "HEAD",
    "3.3",
    (
        Field("width", "H", 1),
        Field("height", "H", 1),
        Field("pixel_format", "B", 0, max(PIXEL_FORMATS.values()), UnsupportedError, "pixel_format"),
        Field("bit_depth", "B", 8, 8, UnsupportedError, "bit_depth"),
        Field("primaries", "B"),
        Field("transfer", "B"),
        Field("matrix", "B"),
        Field("full_range", "B", 0, 2),
        Field("chroma_location", "B", 0, 6),
        Field("orientation", "B", 1, 8),
        Field("par_num", "I"),
        Field("par_den", "I", 1),
        Field("time_base_num", "I", 1),
        Field("time_base_den", "I", 1),
        Field("frame_rate_num", "I"),
        Field("frame_rate_den", "I"),
        Field("frame_count", "Q", 1, FRAMES, unknown=UNKNOWN_COUNT),
        Field("first_pts", "q", -FIRST_PTS, FIRST_PTS),
    ),
)

SEGMENT_HEADER = Element(
    "segment header",
    "4.1",
    (
        Field("first_frame", "Q", 0, FRAMES - 1),
        Field("frames", "I", 1, SEGMENT_FRAMES),
        Field("program", "B"),
        Field("flags", "B", 0, 0, UnsupportedError, "segment_flags", bits=True),
        Field("sections", "B"),
        Field("reserved", "B", 0, 0, UnsupportedError, "reserved"),
        Field("digest", "8s"),
    ),
)

SECTION_ENTRY = Element("section entry", "4.2", (Field("kind", "B"), Field("length", "I")))

INDEX_ENTRY = Element("index entry", "4.4", (Field("offset", "Q"), Field("first_frame", "Q"), Field("frames", "I")))

FOOTER = Element("footer", "4.5", (Field("index_offset", "Q"), Field("frames", "Q"), Field("segments", "I")))

ELEMENTS = (PROLOGUE, CHUNK_HEADER, PICTURE_HEADER, SEGMENT_HEADER, SECTION_ENTRY, INDEX_ENTRY, FOOTER)


def _ratio(name: str, num: int, den: int) -> Fraction:
    """num/den, which MUST be in lowest terms so that every header has one encoding."""
    if den == 0 or gcd(num, den) != 1:
        raise InvalidError("ratio", f"HEAD: {name} is {num}/{den}, not a fraction in lowest terms")
    return Fraction(num, den)


@dataclass(frozen=True)
class Header:
    """What a player must know before the first frame (SPEC 3.3); checked where it is written and read."""

    width: int  # visible luma samples, 1..65535
    height: int
    pixel_format: int  # PIXEL_FORMATS
    bit_depth: int = 8
    primaries: int = 2  # ITU-T H.273 code points; 2 = unspecified
    transfer: int = 2
    matrix: int = 2
    full_range: int = 0  # 0 limited, 1 full, 2 unspecified
    chroma_location: int = 0  # 0 unspecified, 1 left, 2 centre, 3 top-left, 4 top, 5 bottom-left, 6 bottom
    orientation: int = 1  # EXIF 1..8: what a player does to show the picture upright
    par: Fraction = Fraction(1)  # pixel aspect ratio; 0 = unknown
    time_base: Fraction = Fraction(1, 25)  # seconds per tick
    frame_rate: Fraction | None = Fraction(25)  # frames per second; None = variable: segments carry time stamps
    frame_count: int | None = None  # None = unknown, as when written live
    first_pts: int = 0  # ticks, of frame 0

    def plane_shapes(self) -> tuple[Plane, Plane, Plane]:
        """(height, width) of the three planes of a frame: Y Cb Cr with halves rounded up, or R G B."""
        full = (self.height, self.width)
        half = ((self.height + 1) // 2, (self.width + 1) // 2)
        return (full, half, half) if self.pixel_format == PIXEL_FORMATS["yuv420p"] else (full, full, full)

    def fields(self) -> dict[str, int]:
        """The values of the fields of PICTURE_HEADER."""
        values: dict[str, int] = {}
        for field in PICTURE_HEADER.fields:
            if field.name.endswith("_num"):
                name = field.name.removesuffix("_num")
                ratio: Fraction | None = getattr(self, name)
                values[f"{name}_num"], values[f"{name}_den"] = ratio.as_integer_ratio() if ratio is not None else (0, 0)
            elif not field.name.endswith("_den"):
                values[field.name] = getattr(self, field.name)
        values["frame_count"] = UNKNOWN_COUNT if self.frame_count is None else self.frame_count
        return values

    def to_bytes(self) -> bytes:
        """The payload of the HEAD chunk; InvalidError or UnsupportedError for values that it cannot carry."""
        data = PICTURE_HEADER.pack(**self.fields())
        Header.from_bytes(data)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Parses the payload of the HEAD chunk; any violation of SPEC 3.3 is a BitstreamError."""
        values = PICTURE_HEADER.unpack(data)
        for name in ("par", "time_base", "frame_rate"):
            num, den = values.pop(f"{name}_num"), values.pop(f"{name}_den")
            variable = name == "frame_rate" and num == den == 0
            values[name] = None if variable else _ratio(name, num, den)
        if values["frame_rate"] == 0:
            raise InvalidError("ratio", "HEAD: frame_rate is 0/1; 0/0 stands for a variable rate")
        if values["frame_count"] == UNKNOWN_COUNT:
            values["frame_count"] = None
        return cls(**values)
