"""What a salvaging reader finds in a damaged file: the good segments and the gaps between them (SPEC 4.7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from .ref_container import FOOT, SEGM, Chunk, Container, check_type
from .ref_errors import Refused
from .ref_fields import require
from .ref_segment import Segment

T = TypeVar("T")


class Lost(NamedTuple):
    """Frames `first` to `first + frames - 1` are lost; the code of SPEC 10 says why."""

    first: int
    frames: int
    code: str


def salvage(container: Container, decode: Callable[[Segment], T]) -> Iterator[T | Lost]:
    """What `decode` makes of each good segment, and the gaps, in the order of frames (V3 to V5).

    A segment for which `decode` raises Refused is not good. Raises Refused if none is.
    """
    good, end = 0, 0
    total = container.header.stated_frames
    met: Refused | None = None  # the first error since the last good segment
    for found in _walk(container):
        try:
            if isinstance(found, Refused):
                raise found
            if found.type == FOOT:
                stated = _frames_of_footer(container, found)
                total = total or stated
            if found.type != SEGM:
                continue
            segment = container.segment(container.payload(found))
            container.check_counts(good + 1, segment.end)
            require(segment.first_frame >= end, "invalid.first_frame", f"frame {segment.first_frame} comes again")
            container.check_end(segment)
            decoded = decode(segment)
        except Refused as error:
            met = met or error
            continue
        if segment.first_frame > end:
            yield Lost(end, segment.first_frame - end, met.code if met else "invalid.first_frame")
        yield decoded
        good, end, met = good + 1, segment.end, None
    if not good:
        raise met or Refused("truncated.frames", "there is no segment")
    if total and total > end:
        yield Lost(end, total - end, met.code if met else "truncated.frames")


def _walk(container: Container) -> Iterator[Chunk | Refused]:
    """The chunks behind MODL that are believed, and the errors that are met between them (V2)."""
    position: int | None = container.body
    while position is not None and (position != len(container.data) or container.indexed):
        chunk = None
        try:
            require(position != len(container.data), "truncated.end", "the file ends before FOOT")
            chunk = container.chunk(position)
            check_type(chunk)
            container.check_length(chunk)
        except Refused as error:
            yield error
        if chunk is None or chunk.length > container.limits["max_chunk_bytes"]:
            position = _search(container, position + 1)
            continue
        yield chunk
        position = chunk.end if chunk.type != FOOT else None


def _search(container: Container, offset: int) -> int | None:
    """The first place from `offset` on of a believable header of SEGM, INDX or FOOT."""
    for found in re.compile(b"SEGM|INDX|FOOT").finditer(container.data, offset):
        try:
            container.check_length(container.chunk(found.start()))
        except Refused:
            continue
        return found.start()
    return None


def _frames_of_footer(container: Container, footer: Chunk) -> int | None:
    """The number of frames that a footer states, None where it is over the limit; Refused unless the chunk is intact."""
    payload = container.payload(footer)
    require(len(payload) == 20, "invalid.footer", f"the footer has {len(payload)} bytes")
    frames = int.from_bytes(payload[8:16], "little")
    return frames if frames <= container.limits["max_frames"] else None
