"""The container: a header, a model and segments <-> the bytes of a file, on disks and pipes alike (SPEC 2-4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import BinaryIO, TypeVar

from . import canonical, packing
from .chunks import Chunk, Prologue, Source, pack_chunk, read_chunk, read_payload, read_prologue, stream_id
from .constants import (
    CODEBOOK,
    DEFAULT_LIMITS,
    DOCUMENT_BYTES,
    EMBEDDINGS,
    FOOT,
    FRAMES,
    HASHES,
    HEAD,
    INDEXED,
    INDX,
    META,
    MODL,
    SEGM,
    SEGMENTS,
    TIMES,
    TOKENS,
    WEIGHTS,
    Limits,
)
from .errors import BitstreamError, InvalidError, LimitError, TruncatedError
from .header import CHUNK_HEADER, FOOTER, INDEX_ENTRY, SEGMENT_HEADER, Header
from .index import Entry, Ledger, parse_index
from .salvage import Gap, Good, Salvage
from .segment import Segment, pack_segment, section_lengths, unpack_segment

__all__ = ["ACCOUNTS", "Reader", "Segment", "Writer"]

Numbers = TypeVar("Numbers")

# What the bytes of a file are for, and where the sections of segments are counted.
ACCOUNTS = ("container", "program", "weights", "embeddings", "codebook", "tokens", "hashes", "metadata")
SECTION_ACCOUNTS = {
    WEIGHTS: "weights",
    CODEBOOK: "codebook",
    EMBEDDINGS: "embeddings",
    TOKENS: "tokens",
    HASHES: "hashes",
    TIMES: "metadata",
}


class Writer:
    """Writes a file front to back, a segment at a time; `file` is buffered, need not be seekable and stays open.

    Without `indexed` the file is complete after every segment; with it, only after `finish`. Values that the format
    cannot carry are refused with the error that a reader would raise; nothing of the refused item is written.
    """

    def __init__(
        self,
        file: BinaryIO,
        header: Header,
        model: bytes,
        metadata: Mapping[str, str | int] | None = None,
        indexed: bool = True,
    ) -> None:
        head = header.to_bytes()
        _check_model(model)
        self._file, self._header, self._indexed = file, header, indexed
        self._salt = stream_id(head, model)
        self._ledger = Ledger(header, Limits(max_frames=FRAMES, max_segments=SEGMENTS))
        prologue = Prologue(INDEXED if indexed else 0, self._salt)
        start = [prologue.to_bytes(), self._chunk(HEAD, head), self._chunk(MODL, model)]
        if metadata:
            document = dict(metadata)
            _check_metadata(document)
            start.append(self._chunk(META, packing.pack(canonical.pack(document, "metadata"))))
        self._offset = 0
        self._write(b"".join(start))

    def add(self, segment: Segment) -> None:
        """Writes the next segment, all at once."""
        chunk = self._chunk(SEGM, pack_segment(segment, self._header))
        self._ledger.add(self._offset, segment.first_frame, segment.frames)
        self._write(chunk)

    def finish(self) -> None:
        """Writes index and footer; TruncatedError when frames that the header promises are missing."""
        self._ledger.close()
        if self._indexed:
            footer = self._ledger.footer(self._offset)
            self._write(self._chunk(INDX, self._ledger.index()) + self._chunk(FOOT, footer))

    def _chunk(self, chunk_type: bytes, payload: bytes) -> bytes:
        return pack_chunk(chunk_type, payload, self._salt)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)


class Reader:
    """Reads a file; `header` and `model` (the MODL payload) at once, `metadata` and segments on request.

    Whatever breaks SPEC is a BitstreamError; what was yielded before it is intact. A pipe can be gone through once. Who checks
    the programs in `model` does so before he asks for more: errors are then met in the order of SPEC 10.
    """

    def __init__(self, file: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> None:
        self._source = Source(file)
        self._limits = limits
        prologue = read_prologue(self._source)
        self.indexed = bool(prologue.features & INDEXED)
        self._salt = prologue.stream_id
        self.header = Header.from_bytes(self._required(HEAD))
        _check_limits(self.header, limits)
        self.model = self._required(MODL)
        _check_model(self.model)
        self._start = self._source.position

    @property
    def metadata(self) -> dict[str, str | int]:
        """The entries of the mETa chunk; empty where there is none."""
        return self._metadata[0]

    @cached_property
    def _metadata(self) -> tuple[dict[str, str | int], int]:
        """The metadata and the bytes of its payload; behind it the source stands at the first segment."""
        self._source.seek(self._start)
        if not self._source.peek(CHUNK_HEADER.size).startswith(META):
            return {}, 0
        payload = self._required(META)
        document = canonical.unpack(packing.unpack(payload, "metadata", 1, DOCUMENT_BYTES), "metadata")
        return _check_metadata(document), len(payload)

    @property
    def _body(self) -> int:
        """The offset behind the metadata."""
        size = self._metadata[1]
        return self._start + (CHUNK_HEADER.size + size if size else 0)

    def segments(self, first: int = 0, last: int | None = None) -> Iterator[Segment]:
        """The segments in order; with a range, those that hold any of the frames first..last-1.

        The whole range is read front to back and checks all of the file: index, footer and end too. A part is found by
        the index, where the file is seekable and its footer intact, else by scanning; only what is yielded is checked.
        """
        if first <= 0 and last is None:
            yield from (segment for _, _, segment in self._verified() if segment is not None)
            return
        last = FRAMES if last is None else last
        entries = self._find(first, last)
        yield from self._scan(first, last) if entries is None else map(self._segment_at, entries)

    def salvage(self, read: Callable[[Segment], Numbers]) -> Iterator[Good[Numbers] | Gap]:
        """What is left of a damaged file, front to back: the good segments, and before each the gap that it ends, if any.

        `read` reads the numbers of a segment; its BitstreamError makes the segment a bad one.
        """
        self._source.seek(self._start)
        return Salvage(self._source, self._salt, self.header, self.indexed, self._limits, read).walk()

    def accounting(self) -> dict[str, int]:
        """Bytes of the file by purpose (ACCOUNTS), checked like `segments()`; they add up to its size."""
        totals = dict.fromkeys(ACCOUNTS, 0)
        totals["program"], totals["metadata"] = len(self.model), self._metadata[1]
        totals["container"] = self._body - totals["program"] - totals["metadata"]
        for chunk, payload, _ in self._verified():
            totals["container"] += CHUNK_HEADER.size
            if chunk.type == SEGM:
                sections = section_lengths(payload)
                for kind, length in sections:
                    totals[SECTION_ACCOUNTS[kind]] += length
                totals["container"] += chunk.length - sum(length for _, length in sections)
            else:
                totals["container" if chunk.type in (INDX, FOOT) else "metadata"] += chunk.length
        return totals

    def _chunk(self, allowed: Collection[bytes], ancillary: bool = False) -> Chunk | None:
        return read_chunk(self._source, self._salt, allowed, ancillary, self._limits.max_chunk_bytes)

    def _required(self, chunk_type: bytes) -> bytes:
        """The payload of the next chunk, which must be of that type."""
        chunk = self._chunk({chunk_type})
        if chunk is None:
            raise TruncatedError("end", f"the file ends where its {chunk_type.decode()} chunk should be")
        return read_payload(self._source, chunk)

    def _walk(self) -> Iterator[Chunk]:
        """The chunks behind the metadata; on a pipe the caller must read or skip each payload."""
        self._source.seek(self._body)
        allowed, ancillary = {SEGM, INDX} if self.indexed else {SEGM}, True
        while (chunk := self._chunk(allowed, ancillary)) is not None:
            yield chunk
            self._source.seek(chunk.end)
            if chunk.type == INDX:
                allowed, ancillary = {FOOT}, False
            elif chunk.type == FOOT:
                if self._source.read(1):
                    raise InvalidError("trailing_data", f"the file goes on after its footer ends at byte {chunk.end}")
                return
        if self.indexed:
            raise TruncatedError("end", "the file ends before the index and footer that it promises")

    def _verified(self) -> Iterator[tuple[Chunk, bytes, Segment | None]]:
        """All chunks behind the metadata with their payloads, in file order, everything checked."""
        ledger, index_offset = Ledger(self.header, self._limits), 0
        for chunk in self._walk():
            payload, segment = read_payload(self._source, chunk), None
            if chunk.type == SEGM:
                segment = unpack_segment(payload, self.header, self._limits)
                ledger.add(chunk.offset, segment.first_frame, segment.frames)
            elif chunk.type == INDX:
                ledger.close()
                index_offset = chunk.offset
                if payload != ledger.index():
                    raise InvalidError("index", "the index does not agree with the segments")
            elif chunk.type == FOOT and payload != ledger.footer(index_offset):
                raise InvalidError("footer", "the footer does not agree with the file")
            yield chunk, payload, segment
        if not self.indexed:
            ledger.close()

    def _scan(self, first: int, last: int) -> Iterator[Segment]:
        """The segments with frames first..last-1, found from the front; earlier ones are skipped by their headers."""
        ledger = Ledger(self.header, self._limits)
        for chunk in self._walk():
            if chunk.type == INDX:
                break
            start = self._source.peek(min(SEGMENT_HEADER.size, chunk.length))
            frames = self._frames_before(start, ledger.frames, first) if chunk.type == SEGM else 0
            if frames or chunk.type != SEGM:
                if not self._source.skip(chunk.length):
                    raise TruncatedError("chunk", f"the file ends within {chunk}")
                if frames:
                    ledger.add(chunk.offset, ledger.frames, frames)
                continue
            segment = unpack_segment(read_payload(self._source, chunk), self.header, self._limits)
            ledger.add(chunk.offset, segment.first_frame, segment.frames)
            if segment.first_frame >= last:
                return
            if ledger.frames > first:
                yield segment
        ledger.close()

    def _frames_before(self, start: bytes, expected: int, first: int) -> int:
        """The frames of a segment that ends before frame `first`, by its unverified header; 0 where it must be read."""
        if len(start) < SEGMENT_HEADER.size:
            return 0
        values = SEGMENT_HEADER.split(start)
        frames: int = values["frames"]
        skippable = values["first_frame"] == expected and frames <= self._limits.max_segment_frames
        return frames if skippable and expected + frames <= first else 0

    def _find(self, first: int, last: int) -> list[Entry] | None:
        """The index entries of the segments with frames first..last-1; None where there is no index to go by."""
        if not (self.indexed and self._source.seekable):
            return None
        offset = self._source.size() - CHUNK_HEADER.size - FOOTER.size
        if offset < self._body:
            return None
        self._source.seek(offset)
        try:
            footer = FOOTER.unpack(self._required(FOOT))
        except BitstreamError:
            return None  # cut or damaged at the end, which a scan need not reach
        if footer["index_offset"] + CHUNK_HEADER.size + INDEX_ENTRY.size * footer["segments"] != offset:
            raise InvalidError("footer", "the footer does not agree with the file")
        self._source.seek(footer["index_offset"])
        entries = parse_index(self._required(INDX), footer, Ledger(self.header, self._limits))
        return [entry for entry in entries if entry.first_frame < last and entry.first_frame + entry.frames > first]

    def _segment_at(self, entry: Entry) -> Segment:
        """The segment of an index entry."""
        self._source.seek(entry.offset)
        segment = unpack_segment(self._required(SEGM), self.header, self._limits)
        if (segment.first_frame, segment.frames) != (entry.first_frame, entry.frames):
            raise InvalidError("index", f"the segment at byte {entry.offset} is not the one that the index names")
        return segment


def _check_model(model: bytes) -> None:
    if not 1 <= len(model) <= DOCUMENT_BYTES:
        raise InvalidError("length", f"the model has {len(model)} bytes, not 1..{DOCUMENT_BYTES}")


def _check_metadata(document: object) -> dict[str, str | int]:
    if not (isinstance(document, dict) and document and all(type(value) in (str, int) for value in document.values())):
        raise InvalidError("metadata", "metadata is not a map of strings to strings and integers, or it is empty")
    return document


def _check_limits(header: Header, limits: Limits) -> None:
    """LimitError where the header announces more than this reader takes on."""
    if max(header.width, header.height) > limits.max_side:
        raise LimitError("side", f"{header.width}x{header.height}: a side is over the limit of {limits.max_side}")
    if header.width * header.height > limits.max_pixels:
        raise LimitError("pixels", f"{header.width}x{header.height} is over the limit of {limits.max_pixels} samples")
    if header.frame_count is not None and header.frame_count > limits.max_frames:
        raise LimitError("frames", f"{header.frame_count} frames are over the limit of {limits.max_frames}")
