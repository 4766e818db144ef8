"""The segment: the atom of a file, with all numbers of its frames, and its payload in a SEGM chunk (SPEC 4.1-4.3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from . import packing
from .constants import HASH_BYTES, HASHES, REQUIRED_SECTIONS, SECTIONS, TIMES, Limits
from .errors import InvalidError, LimitError, UnsupportedError
from .header import SECTION_ENTRY, SEGMENT_HEADER, Header


@dataclass(frozen=True)
class Segment:
    """Consecutive frames and the numbers that decode them.

    `sections` maps the kinds of constants.SECTIONS to bytes: WEIGHTS and HASHES (8 bytes a frame) always, TIMES never.
    `times` holds one number of ticks per frame, from the frame before (also across segments) to this one; it is 0 for
    frame 0 of the file, else 1..2^32-1. It is None unless the frame rate of the file is variable.
    """

    first_frame: int
    frames: int  # 1..65535
    program: int  # which program of the model chunk, 0..255
    digest: bytes  # 8 bytes; of the decoded integers
    sections: Mapping[int, bytes]
    times: tuple[int, ...] | None = None


def pack_segment(segment: Segment, header: Header) -> bytes:
    """The payload of the SEGM chunk."""
    sections = dict(segment.sections)
    if TIMES in sections:
        raise InvalidError("sections", "a segment brings its time stamps in `times`, not as a section")
    if segment.times is not None:
        sections[TIMES] = packing.pack(_times_to_bytes(segment.times))
    body = SEGMENT_HEADER.pack(
        first_frame=segment.first_frame,
        frames=segment.frames,
        program=segment.program,
        flags=0,
        sections=len(sections),
        reserved=0,
        digest=segment.digest,
    )
    kinds = sorted(sections)
    table = b"".join(SECTION_ENTRY.pack(kind=kind, length=len(sections[kind])) for kind in kinds)
    payload = b"".join([body, table, *(sections[kind] for kind in kinds)])
    unpack_segment(payload, header, Limits(max_segment_frames=segment.frames))
    return payload


def unpack_segment(payload: bytes, header: Header, limits: Limits) -> Segment:
    """Parses and checks the payload of a SEGM chunk."""
    values = SEGMENT_HEADER.unpack(payload[: SEGMENT_HEADER.size])
    frames: int = values["frames"]
    if frames > limits.max_segment_frames:
        raise LimitError("segment_frames", f"a segment has over {limits.max_segment_frames} frames")
    sections, position = {}, SEGMENT_HEADER.size + values["sections"] * SECTION_ENTRY.size
    for kind, length in section_lengths(payload):
        sections[kind] = payload[position : position + length]
        position += length
    if len(sections[HASHES]) != HASH_BYTES * frames:
        raise InvalidError("hashes", f"{len(sections[HASHES])} bytes of hashes for {frames} frames")
    times = None
    if (TIMES in sections) != (header.frame_rate is None):
        raise InvalidError("times", "a segment has time stamps if and only if the frame rate is variable")
    if TIMES in sections:
        data = packing.unpack(sections.pop(TIMES), "the section of time stamps", 4 * frames, 4 * frames)
        times = _times_from_bytes(data, values["first_frame"])
    return Segment(values["first_frame"], frames, values["program"], values["digest"], sections, times)


def section_lengths(payload: bytes) -> list[tuple[int, int]]:
    """The checked section table of a payload that holds at least the segment header: (kind, length) in file order."""
    count: int = SEGMENT_HEADER.split(payload[: SEGMENT_HEADER.size])["sections"]
    start = SEGMENT_HEADER.size + count * SECTION_ENTRY.size
    if start > len(payload):
        raise InvalidError("length", f"a segment of {len(payload)} bytes is shorter than its table of {count} sections")
    table = payload[SEGMENT_HEADER.size : start]
    entries = [(int(kind), int(length)) for kind, length in SECTION_ENTRY.layout.iter_unpack(table)]
    kinds = [kind for kind, _ in entries]
    unknown = set(kinds) - set(SECTIONS)
    if unknown:
        raise UnsupportedError("section", f"sections of unknown kind {sorted(unknown)}; a newer nvc may read the file")
    if any(a >= b for a, b in pairwise(kinds)) or not REQUIRED_SECTIONS.issubset(kinds):
        raise InvalidError("sections", f"sections {kinds} are not in ascending order, or 1 or 5 is missing")
    if any(length == 0 for kind, length in entries if kind not in REQUIRED_SECTIONS):
        raise InvalidError("sections", "an optional section is empty; it must be left out")
    if start + sum(length for _, length in entries) != len(payload):
        raise InvalidError("length", "the sections of a segment do not add up to its payload")
    return entries


def _times_to_bytes(times: tuple[int, ...]) -> bytes:
    try:
        return struct.pack(f"<{len(times)}I", *times)
    except struct.error as error:
        raise InvalidError("times", "frames are less than 0 or more than 2^32-1 ticks apart") from error


def _times_from_bytes(data: bytes, first_frame: int) -> tuple[int, ...]:
    times = struct.unpack(f"<{len(data) // 4}I", data)
    if (first_frame == 0) != (times[0] == 0) or 0 in times[1:]:
        raise InvalidError("times", "time stamps do not ascend, or the first frame's difference is not 0")
    return times
