"""What a damaged file still holds: its good segments and the gaps between them (SPEC 4.7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from .chunks import Chunk, Source, check_length, check_type, is_intact, peek_chunk, read_payload
from .constants import CHUNK_BYTES, CHUNK_TYPES, FOOT, FRAMES, INDX, SEGM, SEGMENTS, Limits
from .errors import BitstreamError, InvalidError, LimitError, NvcError, TruncatedError
from .header import CHUNK_HEADER, FOOTER, Header
from .segment import Segment, unpack_segment

Numbers = TypeVar("Numbers")

_RESUMED = re.compile(b"|".join((SEGM, INDX, FOOT)))  # the types of chunks at which a reader that has lost its way goes on


@dataclass(frozen=True)
class Good(Generic[Numbers]):
    """A segment that breaks no rule, and its numbers."""

    offset: int  # of the header of its chunk
    segment: Segment
    numbers: Numbers


@dataclass(frozen=True)
class Gap:
    """Lost frames `first` .. `first + frames - 1`, and the first error that was met since the good frames before them.

    A gap of 0 frames tells of an error without any loss that the file would show.
    """

    first: int
    frames: int
    error: NvcError
    offset: int  # in the file, where the error was met
    open: bool = False  # at the end of a file whose number of frames nobody knows: more may be lost


class Salvage(Generic[Numbers]):
    """Walks over the chunks behind MODL, where `source` stands, on files and pipes alike, with one segment in memory.

    `read` reads the numbers of a segment, or raises the BitstreamError that makes it a bad one.
    """

    def __init__(
        self,
        source: Source,
        salt: bytes,
        header: Header,
        indexed: bool,
        limits: Limits,
        read: Callable[[Segment], Numbers],
    ) -> None:
        self._source, self._salt, self._header, self._indexed = source, salt, header, indexed
        self._limits, self._read = limits, read
        self._max_bytes = min(limits.max_chunk_bytes, CHUNK_BYTES)
        self._max_frames = min(limits.max_frames, FRAMES)
        self._segments = 0  # good ones
        self._end = 0  # the frame behind the last of them
        self._met: tuple[BitstreamError, int] | None = None  # the first error since then, and where

    def walk(self) -> Iterator[Good[Numbers] | Gap]:
        """Good segments in order, each after the gap in front of it, if there is one; at last the gap at the end."""
        total = self._header.frame_count
        while (chunk := self._chunk()) is not None:
            self._source.read(CHUNK_HEADER.size)
            if chunk.type == SEGM:
                good = self._segment(chunk)
                if good is not None:
                    first = good.segment.first_frame
                    missing = InvalidError("first_frame", f"a segment begins with frame {first}, not {self._end}")
                    yield from self._gap(first - self._end, missing, chunk.offset)
                    self._segments += 1
                    self._end = first + good.segment.frames
                    yield good
                    del good  # the numbers of the next segment need the room
            elif chunk.type == FOOT:
                stated = self._footer(chunk)
                total = stated if total is None else total
                break
            elif not self._source.skip(chunk.length):
                self._meet(TruncatedError("chunk", f"the file ends within a chunk of {chunk.length} bytes"), chunk.offset)
        lost = max(0, (total or 0) - self._end)
        cut = TruncatedError("frames", f"the segments end before frame {self._end} of {total or 'an unknown number'}")
        if not self._segments and not lost:
            self._meet(cut, self._source.position)
        yield from self._gap(lost, cut, self._source.position, total is None)

    def _gap(self, frames: int, missing: BitstreamError, offset: int, unknown: bool = False) -> Iterator[Gap]:
        """The gap behind the last good segment, if frames were lost or an error was met; `missing` is it if none was."""
        if frames or self._met:
            error, where = self._met or (missing, offset)
            yield Gap(self._end, frames, error, where, unknown)
        self._met = None

    def _meet(self, error: BitstreamError, offset: int) -> None:
        if self._met is None:
            error.__traceback__ = error.__context__ = error.__cause__ = None  # they would keep payloads in memory
            self._met = error, offset

    def _chunk(self) -> Chunk | None:
        """The chunk header that is expected here, if it may be believed, else the next one found; None at the end."""
        offset, chunk = self._source.position, None
        try:
            chunk = peek_chunk(self._source, self._salt)
            if chunk is None and self._indexed:
                raise TruncatedError("end", "the file ends before the index and footer that it promises")
            if chunk is not None:
                check_type(chunk, CHUNK_TYPES, True)
                check_length(chunk, self._max_bytes)
        except BitstreamError as error:
            self._meet(error, offset)
        if chunk is not None and chunk.length <= self._max_bytes:
            return chunk
        found = self._source.find(_RESUMED, CHUNK_HEADER.size, self._is_believed)
        return peek_chunk(self._source, self._salt) if found else None

    def _is_believed(self, header: bytes) -> bool:
        """Whether 16 bytes are a chunk header with the right checksum and a length within the limit."""
        return is_intact(header, self._salt) and int(CHUNK_HEADER.split(header)["length"]) <= self._max_bytes

    def _segment(self, chunk: Chunk) -> Good[Numbers] | None:
        """The segment in this chunk; None where it is a bad one."""
        try:
            segment = unpack_segment(read_payload(self._source, chunk), self._header, self._limits)
            self._check_place(segment)
            return Good(chunk.offset, segment, self._read(segment))
        except BitstreamError as error:
            self._meet(error, chunk.offset)
            return None

    def _check_place(self, segment: Segment) -> None:
        """The rules of index.Ledger where segments may be missing."""
        first, end, expected = segment.first_frame, segment.first_frame + segment.frames, self._header.frame_count
        if self._segments >= min(self._limits.max_segments, SEGMENTS):
            raise LimitError("segments", f"there are more than {self._segments} segments")
        if end > self._max_frames:
            raise LimitError("frames", f"there are more than {self._max_frames} frames")
        if first < self._end:
            raise InvalidError("first_frame", f"a segment begins with frame {first}, though {self._end} frames came before")
        if expected is not None and end > expected:
            raise InvalidError("frame_count", f"the segments have over {expected} frames, the header's count")

    def _footer(self, chunk: Chunk) -> int | None:
        """The number of frames that the footer states; None where it is damaged or over the limit."""
        try:
            payload = read_payload(self._source, chunk)
            if len(payload) != FOOTER.size:
                raise InvalidError("footer", f"the footer has {len(payload)} bytes, it must have {FOOTER.size}")
        except BitstreamError as error:
            self._meet(error, chunk.offset)
            return None
        frames: int = FOOTER.split(payload)["frames"]
        return frames if frames <= self._max_frames else None
