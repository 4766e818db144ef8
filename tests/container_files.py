"""Small files for the tests of the container, and an independent writer that repairs the checksums of whatever it is given."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import BinaryIO, cast

import pytest

from nvc.bitstream.constants import Limits
from nvc.bitstream.container import Reader, Segment, Writer
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.header import Header

HEADER = Header(6, 4, 0, frame_count=6)
MODEL = b"\x90"
METADATA: dict[str, str | int] = {"tool": "nvc"}
VARIABLE = replace(HEADER, frame_rate=None, first_pts=-40)
Chunks = list[tuple[bytes, bytes]]


def segment(first: int, frames: int, times: tuple[int, ...] | None = None, **sections: bytes) -> Segment:
    """A segment whose sections s1..s4 are given."""
    kinds = {int(name[1:]): data for name, data in sections.items()}
    hashes = bytes(byte % 256 for byte in range(first, first + 8 * frames))
    return Segment(first, frames, 0, bytes(range(8)), {1: b"weights", **kinds, 5: hashes}, times)


SEGMENTS = [segment(0, 2, s3=b"embed"), segment(2, 3, s2=b"book", s3=b"e", s4=b"tokens"), segment(5, 1)]
TIMED = [segment(0, 2, (0, 40)), segment(2, 3, (41, 1, (1 << 32) - 1)), segment(5, 1, (7,))]


class Pipe:
    """A stream that cannot seek and gives at most `most` bytes a call."""

    def __init__(self, data: bytes, most: int = 1) -> None:
        self._file, self._most = io.BytesIO(data), most

    def seekable(self) -> bool:
        return False

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._most))


class Sink:
    """A stream that can only be written to."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def write(
    header: Header = HEADER,
    segments: list[Segment] = SEGMENTS,
    metadata: dict[str, str | int] | None = METADATA,
    indexed: bool = True,
) -> bytes:
    sink = Sink()
    writer = Writer(cast(BinaryIO, sink), header, MODEL, metadata, indexed)
    for each in segments:
        writer.add(each)
    writer.finish()
    return sink.data


def read(data: bytes, limits: Limits | None = None) -> list[Segment]:
    return list(Reader(io.BytesIO(data), limits or Limits()).segments())


def code(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(BitstreamError) as caught:
        read(data, limits)
    return caught.value.code


def pipe(data: bytes, most: int = 1) -> Reader:
    return Reader(cast(BinaryIO, Pipe(data, most)))


# ---- an independent writer, which repairs every checksum of whatever it is given


def chunk(chunk_type: bytes, payload: bytes, salt: bytes, length: int | None = None) -> bytes:
    body = chunk_type + struct.pack("<II", len(payload) if length is None else length, zlib.crc32(payload))
    return body + struct.pack("<I", zlib.crc32(salt + body)) + payload


def prologue(salt: bytes, features: int = 1, front: bytes = bytes.fromhex("0001000000000000")) -> bytes:
    body = bytes.fromhex("894e56430d0a1a0a") + front + struct.pack("<I", features) + salt
    return body + struct.pack("<I", zlib.crc32(body))


def take_apart(data: bytes) -> tuple[bytes, Chunks]:
    """Stream id and chunks of a valid file."""
    chunks, position = [], 32
    while position < len(data):
        chunk_type, length = struct.unpack_from("<4sI", data, position)
        chunks.append((chunk_type, data[position + 16 : position + 16 + length]))
        position += 16 + length
    return data[20:28], chunks


def put_together(salt: bytes, chunks: Chunks, **prologue_fields: int | bytes) -> bytes:
    start = prologue(salt, **prologue_fields)  # type: ignore[arg-type]
    return start + b"".join(chunk(chunk_type, payload, salt) for chunk_type, payload in chunks)


FILE = write()
OPEN = write(indexed=False)
LIVE = write(replace(HEADER, frame_count=None), indexed=False)
SALT, CHUNKS = take_apart(FILE)
NAMES = [chunk_type for chunk_type, _ in CHUNKS]
