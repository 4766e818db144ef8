"""The reference decoder's reading of what stands in front of the segments: prologue, HEAD and mETa (SPEC 3.1, 3.3 and 3.5)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Any

from .ref_documents import unpack_document, unpack_packed
from .ref_fields import HEAD_FIELDS, PROLOGUE_FIELDS, UNKNOWN, read_fields, require

MAGIC = bytes.fromhex("894E56430D0A1A0A")
TEXT_DAMAGE = tuple(map(bytes.fromhex, ("894E56430A1A0A", "894E56430D0D0A", "094E5643", "C2894E5643", "EFBFBD4E5643")))


@dataclass(frozen=True)
class Header:
    """The fields of HEAD (SPEC 3.3) as they stand in the file."""

    width: int
    height: int
    pixel_format: int
    bit_depth: int
    primaries: int
    transfer: int
    matrix: int
    full_range: int
    chroma_location: int
    orientation: int
    par_num: int
    par_den: int
    time_base_num: int
    time_base_den: int
    frame_rate_num: int
    frame_rate_den: int
    frame_count: int
    first_pts: int

    @property
    def stated_frames(self) -> int | None:
        """frame_count, or None where it is unknown."""
        return None if self.frame_count == UNKNOWN else self.frame_count

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return Fraction(self.time_base_num, self.time_base_den)

    @property
    def frame_rate(self) -> Fraction | None:
        """Frames per second, or None where it is variable."""
        return Fraction(self.frame_rate_num, self.frame_rate_den) if self.frame_rate_den else None

    @property
    def planes(self) -> list[tuple[int, int]]:
        """(height, width) of the three planes of a frame."""
        full = (self.height, self.width)
        other = full if self.pixel_format else ((self.height + 1) // 2, (self.width + 1) // 2)
        return [full, other, other]


def read_prologue(data: bytes) -> tuple[bool, bytes]:
    """Whether the file is indexed, and its stream id (SPEC 3.1). Raises Refused."""
    require(not data.startswith(TEXT_DAMAGE), "not_nvc.text_damage", "an .nvc file that was transferred as text")
    require(data[:8] == MAGIC[: len(data)], "not_nvc.magic", "this is no .nvc file")
    require(len(data) >= 32, "truncated.prologue", "the file ends within the prologue")
    right = zlib.crc32(data[:28]) == int.from_bytes(data[28:32], "little")
    require(right, "corrupt.prologue_crc", "the prologue is damaged")
    fields = read_fields("prologue", PROLOGUE_FIELDS, data, 8)
    return fields["compatible_features"] % 2 == 1, data[20:28]


def read_head(payload: bytes, limits: Mapping[str, int]) -> Header:
    """The picture header (SPEC 3.3). Raises Refused."""
    require(len(payload) == 52, "invalid.length", "HEAD does not have 52 bytes")
    header = Header(**read_fields("HEAD", HEAD_FIELDS, payload))
    fractions = [(header.par_num, header.par_den), (header.time_base_num, header.time_base_den)]
    if header.frame_rate_num or header.frame_rate_den:
        fractions.append((header.frame_rate_num, header.frame_rate_den))
    for num, den in fractions:
        require(den >= 1 and gcd(num, den) == 1, "invalid.ratio", f"{num}/{den} is no fraction in lowest terms")
    require(header.frame_rate != 0, "invalid.ratio", "the frame rate is 0")
    require(max(header.width, header.height) <= limits["max_side"], "limit.side", "the picture is too wide or too high")
    require(header.width * header.height <= limits["max_pixels"], "limit.pixels", "the picture has too many samples")
    require((header.stated_frames or 0) <= limits["max_frames"], "limit.frames", f"{header.frame_count} frames are too many")
    return header


def read_metadata(payload: bytes) -> Mapping[str, str | int]:
    """The metadata (SPEC 3.5). Raises Refused."""
    document: Any = unpack_document(unpack_packed(payload, 1, 65536))
    legal = isinstance(document, dict) and document and all(isinstance(value, str | int) for value in document.values())
    require(bool(legal), "invalid.metadata", "the metadata are no map to strings and integers")
    return dict(document)
