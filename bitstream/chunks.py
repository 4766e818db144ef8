"""Prologue and checksummed chunks: what tells damaged, cut, foreign and newer files apart (SPEC 3.1, 3.2)."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import BinaryIO
from zlib import crc32

from .constants import CHUNK_BYTES, CHUNK_TYPES, MAGIC, MAJOR, MINOR, TEXT_DAMAGE
from .errors import CorruptError, InvalidError, LimitError, NotNvcError, TruncatedError, UnsupportedError, UsageError
from .header import CHUNK_HEADER, PROLOGUE

PIECE = 1 << 20  # bytes asked for at once, so that a lying length on a short file costs nothing


class Source:
    """A binary file that is read forwards, and on request from another position; offsets count from where it stood."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead = b""  # what was read from the file, of which the first `_given` bytes are behind `position`
        self._given = 0
        self.seekable = file.seekable()
        self._base = file.tell() if self.seekable else 0
        self.position = 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only where the file ends."""
        data = bytearray(self._ahead[self._given : self._given + size])
        self._given += len(data)
        while len(data) < size:
            piece = self._file.read(min(PIECE, size - len(data)))
            if not piece:
                break
            data += piece
        self.position += len(data)
        return bytes(data)

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only where the file ends, without moving over them."""
        self._look_ahead(size, size)
        return self._ahead[self._given : self._given + size]

    def find(self, pattern: re.Pattern[bytes], size: int, accept: Callable[[bytes], bool]) -> bool:
        """Moves to the first place, from here on, where `pattern` matches and `accept` takes the next `size` bytes.

        False, at the end of the file, where there is none. Matches are at most `size` bytes long and cannot overlap. The time
        is linear in the bytes that are moved over, however often this is called.
        """
        while self._look_ahead(size, PIECE):
            last = len(self._ahead) - size  # what begins behind it is looked at when more has been read
            for match in pattern.finditer(self._ahead, self._given):
                start = match.start()
                if start > last:
                    break
                if accept(self._ahead[start : start + size]):
                    self._move(start - self._given)
                    return True
            self._move(last + 1 - self._given)
        self.read(size)
        return False

    def skip(self, size: int) -> bool:
        """Moves over `size` bytes; False if the file ends before."""
        end = self.position + size
        if self.seekable and size > PIECE:
            self.seek(end - 1)
            return len(self.read(1)) == 1
        while self.position < end and self.read(min(PIECE, end - self.position)):
            pass
        return self.position == end

    def seek(self, position: int) -> None:
        """Moves to `position`; UsageError on a pipe that is elsewhere."""
        if position == self.position:
            return
        if not self.seekable:
            raise UsageError("pipe", "a pipe can be read only once and in order; store the file first")
        self._file.seek(self._base + position)
        self._ahead, self._given = b"", 0
        self.position = position

    def size(self) -> int:
        """The length of the file; only where it is seekable."""
        size = self._file.seek(0, 2) - self._base
        self._file.seek(self._base + self.position + len(self._ahead) - self._given)
        return size

    def _move(self, size: int) -> None:
        """Moves over bytes that stand ready."""
        self._given += size
        self.position += size

    def _look_ahead(self, size: int, ask: int) -> bool:
        """Reads `ask` bytes at a time until `size` bytes stand ready; False where the file ends before."""
        while len(self._ahead) - self._given < size:
            piece = self._file.read(ask)
            if not piece:
                return False
            self._ahead, self._given = self._ahead[self._given :] + piece, 0
        return True


@dataclass(frozen=True)
class Prologue:
    """The two fields of the prologue that differ between files."""

    features: int  # compatible features
    stream_id: bytes  # 8 bytes

    def to_bytes(self) -> bytes:
        """The first 32 bytes of the file."""
        data = PROLOGUE.pack(
            magic=MAGIC,
            major=MAJOR,
            minor=MINOR,
            reserved=0,
            incompatible_features=0,
            compatible_features=self.features,
            stream_id=self.stream_id,
            crc=0,
        )
        return data[:-4] + struct.pack("<I", crc32(data[:-4]))


def stream_id(head: bytes, model: bytes) -> bytes:
    """The 8 bytes that salt the header checksums of a file with these HEAD and MODL payloads."""
    return hashlib.sha256(head + model).digest()[:8]


def read_prologue(source: Source) -> Prologue:
    """Reads and checks the first 32 bytes."""
    data = source.read(PROLOGUE.size)
    magic = data[: len(MAGIC)]
    if not MAGIC.startswith(magic):
        for damaged, cause in TEXT_DAMAGE.items():
            if data.startswith(damaged):
                raise NotNvcError("text_damage", f"a text-mode transfer damaged it ({cause}); copy it again as binary")
        raise NotNvcError("magic", "not an .nvc file: it does not begin with the magic number")
    if len(data) < PROLOGUE.size:
        raise TruncatedError("prologue", f"the file ends after {len(data)} of the {PROLOGUE.size} prologue bytes")
    values = PROLOGUE.split(data)
    if crc32(data[:-4]) != values["crc"]:
        raise CorruptError("prologue_crc", "the prologue is damaged: its checksum differs")
    PROLOGUE.check(values)
    return Prologue(values["compatible_features"], values["stream_id"])


@dataclass(frozen=True)
class Chunk:
    """A chunk whose header is intact; the payload is yet to be read."""

    offset: int  # of the header
    type: bytes  # 4 letters
    length: int  # of the payload
    payload_crc: int

    @property
    def end(self) -> int:
        """The offset behind the payload."""
        return self.offset + CHUNK_HEADER.size + self.length

    def __str__(self) -> str:
        return f"chunk {self.type.decode('ascii')} at byte {self.offset}"


def is_critical(chunk_type: bytes) -> bool:
    """Whether a reader that does not know the type must refuse the file."""
    return chunk_type[:1].isupper()


def pack_chunk(chunk_type: bytes, payload: bytes, salt: bytes) -> bytes:
    """The header and the payload of a chunk in the file whose stream id is `salt`."""
    header = CHUNK_HEADER.pack(type=chunk_type, length=len(payload), payload_crc=crc32(payload), header_crc=0)[:-4]
    return header + struct.pack("<I", crc32(salt + header)) + payload


def read_chunk(source: Source, salt: bytes, allowed: Container[bytes], ancillary: bool, max_bytes: int) -> Chunk | None:
    """Reads the chunk header at the position of `source`; None where the file ends instead.

    `allowed` are the known types that may stand here, `ancillary` says whether unknown ancillary chunks may.
    """
    chunk = peek_chunk(source, salt)
    if chunk is not None:
        check_type(chunk, allowed, ancillary)
        check_length(chunk, max_bytes)
        source.read(CHUNK_HEADER.size)
    return chunk


def peek_chunk(source: Source, salt: bytes) -> Chunk | None:
    """The chunk header at the position of `source`, which does not move, if its checksum is right, whatever else it says.

    None where the file ends instead; TruncatedError or CorruptError where something else stands there.
    """
    data = source.peek(CHUNK_HEADER.size)
    if not data:
        return None
    if len(data) < CHUNK_HEADER.size:
        raise TruncatedError("chunk", f"the file ends within the chunk header at byte {source.position}")
    if not is_intact(data, salt):
        raise CorruptError("header_crc", f"the chunk header at byte {source.position} is damaged or from another file")
    values = CHUNK_HEADER.split(data)
    return Chunk(source.position, values["type"], values["length"], values["payload_crc"])


def is_intact(header: bytes, salt: bytes) -> bool:
    """Whether 16 bytes are a chunk header with the right checksum."""
    return crc32(salt + header[:-4]) == int.from_bytes(header[-4:], "little")


def check_type(chunk: Chunk, allowed: Container[bytes], ancillary: bool) -> None:
    """Raises for a type that is none, must be understood but is not known, or may not stand there (as in read_chunk)."""
    if not (chunk.type.isalpha() and chunk.type.isascii()):
        raise InvalidError("chunk_type", f"the chunk type {chunk.type!r} at byte {chunk.offset} is not four letters")
    if chunk.type not in CHUNK_TYPES and is_critical(chunk.type):
        raise UnsupportedError("chunk", f"{chunk} must be understood, but is not known; a newer nvc may read the file")
    if chunk.type not in allowed and (chunk.type in CHUNK_TYPES or not ancillary):
        raise InvalidError("order", f"{chunk} may not stand there")


def check_length(chunk: Chunk, max_bytes: int) -> None:
    """LimitError for a payload that is longer than the format or this reader allows."""
    limit = min(max_bytes, CHUNK_BYTES)
    if chunk.length > limit:
        raise LimitError("chunk_bytes", f"{chunk} has {chunk.length} bytes, over the limit of {limit}")


def read_payload(source: Source, chunk: Chunk) -> bytes:
    """The payload of the chunk whose header was just read, its checksum verified."""
    payload = source.read(chunk.length)
    if len(payload) < chunk.length:
        raise TruncatedError("chunk", f"{chunk} has {chunk.length} bytes, but the file ends after {len(payload)}")
    if crc32(payload) != chunk.payload_crc:
        raise CorruptError("payload_crc", f"{chunk} is damaged: its checksum differs")
    return payload
