"""Files put together from parts, right or wrong, with every checksum repaired: a broken rule must not hide behind a CRC."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

MAGIC = bytes.fromhex("894e56430d0a1a0a")


@dataclass(frozen=True)
class Chunk:
    """A chunk to be written; `length`, `payload_crc` and `header_crc` are the right ones unless they are given."""

    type: bytes
    payload: bytes
    length: int | None = None
    payload_crc: int | None = None
    header_crc: int | None = None

    def to_bytes(self, salt: bytes) -> bytes:
        """The bytes of the chunk in the file whose stream id is `salt` (SPEC 3.2)."""
        length = len(self.payload) if self.length is None else self.length
        payload_crc = crc32(self.payload) if self.payload_crc is None else self.payload_crc
        header = self.type + struct.pack("<II", length, payload_crc)
        header_crc = crc32(salt + header) if self.header_crc is None else self.header_crc
        return header + struct.pack("<I", header_crc) + self.payload


@dataclass(frozen=True)
class File:
    """The parts of a file (SPEC 2, 3.1); `tail` is what follows the last chunk."""

    stream_id: bytes
    chunks: tuple[Chunk, ...]
    compatible: int = 1
    major: int = 0
    minor: int = 1
    reserved: int = 0
    incompatible: int = 0
    crc: int | None = None
    tail: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> File:
        """The parts of a valid file."""
        chunks, position = [], 32
        while position < len(data):
            kind, length = struct.unpack_from("<4sI", data, position)
            chunks.append(Chunk(kind, data[position + 16 : position + 16 + length]))
            position += 16 + length
        return cls(data[20:28], tuple(chunks), struct.unpack_from("<I", data, 16)[0])

    def to_bytes(self) -> bytes:
        front = struct.pack("<BBHII", self.major, self.minor, self.reserved, self.incompatible, self.compatible)
        prologue = MAGIC + front + self.stream_id
        crc = crc32(prologue) if self.crc is None else self.crc
        chunks = b"".join(chunk.to_bytes(self.stream_id) for chunk in self.chunks)
        return prologue + struct.pack("<I", crc) + chunks + self.tail

    def number(self, kind: bytes, occurrence: int = 0) -> int:
        """Which of the chunks is the one of that type."""
        return [number for number, chunk in enumerate(self.chunks) if chunk.type == kind][occurrence]

    def payload(self, kind: bytes, occurrence: int = 0) -> bytes:
        return self.chunks[self.number(kind, occurrence)].payload

    def with_chunks(self, chunks: Sequence[Chunk]) -> File:
        return replace(self, chunks=tuple(chunks))

    def with_chunk(self, number: int, chunk: Chunk) -> File:
        """The file with another chunk in that place."""
        return self.with_chunks([*self.chunks[:number], chunk, *self.chunks[number + 1 :]])

    def offset(self, number: int) -> int:
        """Where the header of that chunk begins in the file; behind the last one the end of all chunks."""
        return 32 + sum(16 + len(chunk.payload) for chunk in self.chunks[:number])

    def inserted(self, number: int, *chunks: Chunk) -> File:
        """The file with more chunks in front of the one of that number."""
        return self.with_chunks([*self.chunks[:number], *chunks, *self.chunks[number:]])

    def without(self, *numbers: int) -> File:
        """The file without the chunks of these numbers."""
        return self.with_chunks([chunk for number, chunk in enumerate(self.chunks) if number not in numbers])

    def with_payload(self, kind: bytes, payload: bytes, occurrence: int = 0) -> File:
        """The file with another payload; its checksums are right, index and footer stay as they were."""
        return self.with_chunk(self.number(kind, occurrence), Chunk(kind, payload))

    def patched(self, kind: bytes, offset: int, value: bytes, occurrence: int = 0) -> File:
        """The file with some bytes of a payload replaced."""
        payload = self.payload(kind, occurrence)
        return self.with_payload(kind, payload[:offset] + value + payload[offset + len(value) :], occurrence)

    def indexed(self) -> File:
        """The file with INDX and FOOT written anew for the segments as they lie (SPEC 4.4, 4.5)."""
        chunks = [chunk for chunk in self.chunks if chunk.type not in (b"INDX", b"FOOT")]
        offset, frames, entries = 32, 0, b""
        for chunk in chunks:
            if chunk.type == b"SEGM":
                first, count = struct.unpack_from("<QI", chunk.payload)
                entries += struct.pack("<QQI", offset, first, count)
                frames += count
            offset += 16 + len(chunk.payload)
        footer = struct.pack("<QQI", offset, frames, len(entries) // 20)
        return self.with_chunks([*chunks, Chunk(b"INDX", entries), Chunk(b"FOOT", footer)])


@dataclass(frozen=True)
class SegmentParts:
    """The payload of a SEGM chunk, taken apart (SPEC 4.1, 4.2); sections as (kind, bytes) in any order."""

    first_frame: int
    frames: int
    sections: tuple[tuple[int, bytes], ...]
    program: int = 0
    flags: int = 0
    reserved: int = 0
    digest: bytes = bytes(8)
    extra: bytes = b""

    @classmethod
    def parse(cls, payload: bytes) -> SegmentParts:
        first, frames, program, flags, count, reserved, digest = struct.unpack_from("<QIBBBB8s", payload)
        position, sections = 24 + 5 * count, []
        for entry in range(count):
            kind, length = struct.unpack_from("<BI", payload, 24 + 5 * entry)
            sections.append((kind, payload[position : position + length]))
            position += length
        return cls(first, frames, tuple(sections), program, flags, reserved, digest)

    def to_bytes(self) -> bytes:
        head = struct.pack(
            "<QIBBBB8s",
            *(self.first_frame, self.frames, self.program, self.flags, len(self.sections), self.reserved, self.digest),
        )
        table = b"".join(struct.pack("<BI", kind, len(data)) for kind, data in self.sections)
        return head + table + b"".join(data for _, data in self.sections) + self.extra

    def with_section(self, kind: int, data: bytes | None) -> SegmentParts:
        """With another section of that kind, in its place; None leaves it out."""
        sections = dict(self.sections)
        sections.pop(kind, None)
        if data is not None:
            sections[kind] = data
        return replace(self, sections=tuple(sorted(sections.items())))
