"""The reference decoder's container: bytes to header, model, metadata and segments (SPEC 2, 3.2, 4.4 to 4.6, 9, 10).

Checks stand in the order of SPEC 10. A segment is handed out before anything behind it is looked at, so that an error in its
numbers, which the caller decodes, comes before those of later chunks; so does one in the programs before those of mETa.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .ref_fields import require
from .ref_header import read_head, read_metadata, read_prologue
from .ref_segment import Segment, read_segment

LIMITS: Mapping[str, int] = {  # SPEC 9: the defaults
    "max_side": 16384,
    "max_pixels": 35651584,
    "max_frames": 2592000,
    "max_segments": 1000000,
    "max_segment_frames": 4096,
    "max_chunk_bytes": 67108864,
    "max_parameters": 16777216,
    "max_tensors": 1024,
    "max_operations": 1024,
    "max_macs_per_pixel": 1048576,
    "max_macs_per_frame": 1099511627776,
    "max_macs_total": 1000000000000000,
    "max_memory_bytes": 4294967296,
}
MAXIMA: Mapping[str, int] = {  # SPEC 9: the maximum, where there is one
    "max_side": 65535,
    "max_pixels": 4294836225,
    "max_frames": 1073741824,
    "max_segments": 13421772,
    "max_segment_frames": 65535,
    "max_chunk_bytes": 268435455,
}

HEAD, MODL, META, SEGM, INDX, FOOT = KNOWN = (b"HEAD", b"MODL", b"mETa", b"SEGM", b"INDX", b"FOOT")


def all_limits(limits: Mapping[str, int]) -> Mapping[str, int]:
    """Those given, and the defaults of SPEC 9 for all others; ValueError for an unknown name or a value over the maximum."""
    for name, value in limits.items():
        if name not in LIMITS or value > MAXIMA.get(name, value):
            raise ValueError(f"no limit of SPEC 9: {name} = {value}")
    return {**LIMITS, **limits}


class Chunk(NamedTuple):
    """A chunk header at `offset` whose checksum is right."""

    offset: int
    type: bytes
    length: int
    payload_crc: int

    @property
    def payload(self) -> int:
        """Offset of the payload."""
        return self.offset + 16

    @property
    def end(self) -> int:
        """Offset of what comes behind the payload."""
        return self.payload + self.length


class Container:
    """A file that is held in memory; prologue, HEAD and the length of MODL are read at once. All methods raise Refused.

    `header`, the `model` as it stands in MODL and the `limits`, complete, are there from the beginning; `metadata` from the
    moment `segments` gives its first. `body` is the offset behind MODL.
    """

    def __init__(self, data: bytes, limits: Mapping[str, int]) -> None:
        self.data, self.limits = data, all_limits(limits)
        self.metadata: Mapping[str, str | int] = {}
        self.indexed, self._stream_id = read_prologue(data)
        head = self._expect(32, (HEAD,))
        self.header = read_head(self.payload(head), self.limits)
        model = self._expect(head.end, (MODL,))
        self.model = self.payload(model)
        require(1 <= len(self.model) <= 65536, "invalid.length", "MODL does not have 1 to 65536 bytes")
        self.body = model.end

    # ---- 3.2 chunks; rows 5 to 11 of SPEC 10

    def _expect(self, offset: int, types: tuple[bytes, ...], ancillary: bool = False) -> Chunk:
        """The chunk at `offset`, which must be of one of these types or, if that is allowed, an unknown ancillary one."""
        require(offset < len(self.data), "truncated.end", f"the file ends before {types[-1].decode()}")
        chunk = self.chunk(offset)
        check_type(chunk)
        placed = chunk.type in types or (ancillary and chunk.type not in KNOWN)
        require(placed, "invalid.order", f"{chunk.type.decode()} at {offset} is out of place")
        self.check_length(chunk)
        return chunk

    def chunk(self, offset: int) -> Chunk:
        """The chunk header at `offset`, whole and intact."""
        header = self.data[offset : offset + 16]
        require(len(header) == 16, "truncated.chunk", f"the file ends within a chunk header at {offset}")
        right = zlib.crc32(self._stream_id + header[:12]) == int.from_bytes(header[12:], "little")
        require(right, "corrupt.header_crc", f"the chunk header at {offset} is damaged")
        return Chunk(offset, *struct.unpack_from("<4sII", header))

    def check_length(self, chunk: Chunk) -> None:
        """The length against the limit."""
        within = chunk.length <= self.limits["max_chunk_bytes"]
        require(within, "limit.chunk_bytes", f"the chunk at {chunk.offset} has {chunk.length} bytes")

    def payload(self, chunk: Chunk) -> bytes:
        """The payload, whole and intact."""
        payload = self.data[chunk.payload : chunk.end]
        require(len(payload) == chunk.length, "truncated.chunk", f"the file ends within the chunk at {chunk.offset}")
        right = zlib.crc32(payload) == chunk.payload_crc
        require(right, "corrupt.payload_crc", f"the payload of the chunk at {chunk.offset} is damaged")
        return payload

    # ---- 2, 4.4 to 4.6; rows 14 to 18

    def segments(self) -> Iterator[Segment]:
        """All segments in order; behind the last one index, footer and the end of the file are checked."""
        body = (SEGM, INDX) if self.indexed else (SEGM,)
        index = bytearray()
        position, count, end = self.body, 0, 0
        while self.indexed or position < len(self.data):
            types = (META, *body) if position == self.body else body
            chunk = self._expect(position, types, ancillary=True)
            payload = self.payload(chunk)
            position = chunk.end
            if chunk.type == META:
                self.metadata = read_metadata(payload)
            elif chunk.type == SEGM:
                segment = self.segment(payload)
                self.check_counts(count + 1, end + segment.frames)
                require(segment.first_frame == end, "invalid.first_frame", f"frame {segment.first_frame} follows {end} frames")
                self.check_end(segment)
                index += struct.pack("<QQI", chunk.offset, segment.first_frame, segment.frames)
                count, end = count + 1, segment.end
                yield segment
            elif chunk.type == INDX:
                break
        missing = count == 0 or end < (self.header.stated_frames or 0)
        require(not missing, "truncated.frames", f"there are only {end} frames")
        if self.indexed:
            require(payload == index, "invalid.index", "the index does not agree with the segments")
            footer = self._expect(position, (FOOT,))
            expected = struct.pack("<QQI", chunk.offset, end, count)
            require(self.payload(footer) == expected, "invalid.footer", "the footer does not agree with the file")
            require(footer.end == len(self.data), "invalid.trailing_data", f"there are bytes behind FOOT, from {footer.end} on")

    def segment(self, payload: bytes) -> Segment:
        """The segment of this payload, checked by itself."""
        variable = self.header.frame_rate is None
        return read_segment(payload, variable, self.limits["max_segment_frames"])

    def check_counts(self, segments: int, frames: int) -> None:
        """So many segments and frames against the limits."""
        require(segments <= self.limits["max_segments"], "limit.segments", f"there are {segments} segments")
        require(frames <= self.limits["max_frames"], "limit.frames", f"there are {frames} frames")

    def check_end(self, segment: Segment) -> None:
        """The end of a segment against frame_count."""
        stated = self.header.stated_frames
        require(stated is None or segment.end <= stated, "invalid.frame_count", f"there are more than {stated} frames")


def check_type(chunk: Chunk) -> None:
    """The type of a chunk, wherever it stands."""
    letters = re.fullmatch(b"[A-Za-z]{4}", chunk.type)
    require(letters is not None, "invalid.chunk_type", f"the type of the chunk at {chunk.offset} is not four letters")
    known = chunk.type in KNOWN or chunk.type[:1].islower()
    require(known, "unsupported.chunk", f"the critical chunk at {chunk.offset} is of an unknown type: {chunk.type!r}")
