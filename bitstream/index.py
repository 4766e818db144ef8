"""The index: where the segments of a file are, kept up while it is written or read (SPEC 4.4, 4.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .constants import FRAMES, SEGMENTS, Limits
from .errors import InvalidError, LimitError, TruncatedError
from .header import CHUNK_HEADER, FOOTER, INDEX_ENTRY, SEGMENT_HEADER, Header


class Entry(NamedTuple):
    """One segment in the index."""

    offset: int  # of the header of its chunk
    first_frame: int
    frames: int


class Ledger:
    """The segments of a file so far: checks that they are contiguous and not too many, and makes index and footer."""

    def __init__(self, header: Header, limits: Limits) -> None:
        self._expected = header.frame_count
        self._max_frames = min(limits.max_frames, FRAMES)
        self._max_segments = min(limits.max_segments, SEGMENTS)
        self._entries = bytearray()  # packed, because there may be a million
        self.frames = 0

    def add(self, offset: int, first_frame: int, frames: int) -> None:
        """Enters the segment whose chunk begins at `offset`."""
        if len(self._entries) // INDEX_ENTRY.size >= self._max_segments:
            raise LimitError("segments", f"there are more than {self._max_segments} segments")
        if self.frames + frames > self._max_frames:
            raise LimitError("frames", f"there are more than {self._max_frames} frames")
        if first_frame != self.frames:
            raise InvalidError("first_frame", f"a segment begins with frame {first_frame}, not {self.frames}")
        self.frames += frames
        if self._expected is not None and self.frames > self._expected:
            raise InvalidError("frame_count", f"the segments have over {self._expected} frames, the header's count")
        self._entries += INDEX_ENTRY.pack(offset=offset, first_frame=first_frame, frames=frames)

    def close(self) -> None:
        """TruncatedError unless all frames that the header promises, or at least one, are there."""
        expected = 1 if self._expected is None else self._expected
        if self.frames < expected:
            raise TruncatedError("frames", f"the segments have {self.frames} of {expected} frames")

    def index(self) -> bytes:
        """The payload of the INDX chunk."""
        return bytes(self._entries)

    def footer(self, index_offset: int) -> bytes:
        """The payload of the FOOT chunk."""
        segments = len(self._entries) // INDEX_ENTRY.size
        return FOOTER.pack(index_offset=index_offset, frames=self.frames, segments=segments)


def parse_index(payload: bytes, footer: Mapping[str, int], ledger: Ledger) -> list[Entry]:
    """The entries of an INDX payload, checked against each other, the footer and the header of the empty ledger."""
    if len(payload) != INDEX_ENTRY.size * footer["segments"]:
        raise InvalidError("footer", "the footer does not agree with the index")
    entries, lowest = [], 0
    for entry in map(Entry._make, INDEX_ENTRY.layout.iter_unpack(payload)):
        in_order = lowest <= entry.offset < footer["index_offset"] and entry.first_frame == ledger.frames
        if not in_order or entry.frames == 0:
            raise InvalidError("index", "the entries of the index are not in order")
        ledger.add(*entry)
        entries.append(entry)
        lowest = entry.offset + CHUNK_HEADER.size + SEGMENT_HEADER.size
    if ledger.footer(footer["index_offset"]) != FOOTER.pack(**footer):
        raise InvalidError("footer", "the footer does not agree with the index")
    ledger.close()
    return entries
