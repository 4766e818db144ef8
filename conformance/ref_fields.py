"""The tables of fields of SPEC 3 and 4, row by row, and how such a table is read and checked."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .ref_errors import Refused

UNKNOWN = (1 << 64) - 1  # the frame_count of a file whose length was not known when it was begun

# A row: name, struct format, the legal values and the code where a value is not one of them.
Fields = Sequence[tuple[str, str, Sequence[range], str]]
U8, U16, U32 = range(1 << 8), range(1 << 16), range(1 << 32)
PROLOGUE_FIELDS: Fields = (
    ("major", "B", [range(1)], "unsupported.version"),
    ("minor", "B", [range(1, 2)], "unsupported.version"),
    ("reserved", "H", [range(1)], "unsupported.reserved"),
    ("incompatible_features", "I", [range(1)], "unsupported.feature"),
    ("compatible_features", "I", [U32], ""),
)
HEAD_FIELDS: Fields = (
    ("width", "H", [range(1, 1 << 16)], "invalid.range"),
    ("height", "H", [range(1, 1 << 16)], "invalid.range"),
    ("pixel_format", "B", [range(2)], "unsupported.pixel_format"),
    ("bit_depth", "B", [range(8, 9)], "unsupported.bit_depth"),
    ("primaries", "B", [U8], ""),
    ("transfer", "B", [U8], ""),
    ("matrix", "B", [U8], ""),
    ("full_range", "B", [range(3)], "invalid.range"),
    ("chroma_location", "B", [range(7)], "invalid.range"),
    ("orientation", "B", [range(1, 9)], "invalid.range"),
    ("par_num", "I", [U32], ""),
    ("par_den", "I", [range(1, 1 << 32)], "invalid.range"),
    ("time_base_num", "I", [range(1, 1 << 32)], "invalid.range"),
    ("time_base_den", "I", [range(1, 1 << 32)], "invalid.range"),
    ("frame_rate_num", "I", [U32], ""),
    ("frame_rate_den", "I", [U32], ""),
    ("frame_count", "Q", [range(1, (1 << 30) + 1), range(UNKNOWN, UNKNOWN + 1)], "invalid.range"),
    ("first_pts", "q", [range(-(1 << 62), (1 << 62) + 1)], "invalid.range"),
)
SEGMENT_FIELDS: Fields = (
    ("first_frame", "Q", [range(1 << 30)], "invalid.range"),
    ("frames", "I", [range(1, 1 << 16)], "invalid.range"),
    ("program", "B", [U8], ""),
    ("flags", "B", [range(1)], "unsupported.segment_flags"),
    ("sections", "B", [U8], ""),
    ("reserved", "B", [range(1)], "unsupported.reserved"),
)


def read_fields(place: str, fields: Fields, data: bytes, offset: int = 0) -> dict[str, int]:
    """The values of the fields, which stand one behind the other from `offset` on; Refused for the first that is not legal."""
    values = {}
    unpacked = struct.unpack_from("<" + "".join(form for _, form, _, _ in fields), data, offset)
    for (name, _, legal, code), value in zip(fields, unpacked, strict=True):
        require(any(value in part for part in legal), code, f"{place}: {name} is {value}")
        values[name] = value
    return values


def require(condition: bool, code: str, message: str) -> None:
    """Refuse the file with this code unless the condition holds."""
    if not condition:
        raise Refused(code, message)
