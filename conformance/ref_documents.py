"""Canonical documents and packed bytes, read as SPEC 3.4 and 3.6 have them."""

from __future__ import annotations

from typing import Any

from .ref_errors import Refused
from .zstd import decompress, frame_header
from .zstd_entropy import ZstdError

MAX_BYTES = 65536  # D2
MAX_ITEMS = 4096  # D4, of an array, a map, and the bytes of a string
MAX_DEPTH = 8  # D4

STORED, ZSTD = 0, 1  # SPEC 3.6

# MessagePack, first byte: how many bytes follow that are a number, or the length of what follows them
UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
STRING = {0xD9: 1, 0xDA: 2, 0xDB: 4}
ARRAY = {0xDC: 2, 0xDD: 4}
MAP = {0xDE: 2, 0xDF: 4}


def unpack_document(data: bytes) -> Any:
    """The content of a canonical document: dicts with str keys, lists, strs and ints -2^63..2^64-1.

    Refused with `invalid.not_canonical` if D5 alone is broken, with `invalid.document` if D2 to D4 are.
    """
    _rule(len(data) <= MAX_BYTES, f"a document of {len(data)} bytes, over {MAX_BYTES}")
    document = _Document(data)
    content = document.value(1)
    _rule(document.position == len(data), f"{len(data) - document.position} bytes behind the document")
    if document.longer:
        raise Refused("invalid.not_canonical", document.longer)
    return content


def unpack_packed(data: bytes, lowest: int, highest: int) -> bytes:
    """The content of packed bytes, `lowest`..`highest` bytes; Refused with `invalid.packed` or `unsupported.packing`."""
    if not data:
        raise Refused("invalid.packed", "packed bytes without a first byte")
    if data[0] not in (STORED, ZSTD):
        raise Refused("unsupported.packing", f"the unknown packing method {data[0]}")
    content, window = data[1:], len(data)
    try:
        size: int | None = len(content)
        if data[0] == ZSTD:
            header = frame_header(content)
            size, window = header.content_size, header.window_size
        if size is None or not lowest <= size <= highest:
            raise Refused("invalid.packed", f"{size} packed bytes, not {lowest}..{highest}")
        if window < size:
            raise Refused("invalid.packed", f"a window of {window} bytes for a content of {size}")
        return content if data[0] == STORED else decompress(content, highest)
    except ZstdError as error:
        raise Refused("invalid.packed", f"no zstd frame: {error}") from error


class _Document:
    """A walk through the bytes of a document that stops at what breaks D2 to D4 and only notes what breaks D5."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.longer = ""  # the last breach of D5

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        _rule(size <= len(self.data) - self.position, "the document ends early")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, size: int, least: int) -> int:
        """An unsigned number of `size` bytes; a shorter encoding takes all those under `least`."""
        number = int.from_bytes(self.take(size), "big")
        if number < least:
            self.longer = f"{number} has a shorter encoding than the one at byte {self.position - size - 1}"
        return number

    def value(self, depth: int) -> Any:
        """The next value, which is at depth `depth` if it is an array or a map."""
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if first < 0x90:
            return self.map(first & 15, depth)
        if first < 0xA0:
            return self.array(first & 15, depth)
        if first < 0xC0:
            return self.string(first & 31)
        if first >= 0xE0:
            return first - 256
        if size := UNSIGNED.get(first):
            return self.number(size, 0x80 if size == 1 else 1 << 4 * size)
        if size := SIGNED.get(first):
            return self.signed(size)
        if size := STRING.get(first):
            return self.string(self.number(size, 32 if size == 1 else 1 << 4 * size))
        if size := ARRAY.get(first):
            return self.array(self.number(size, 16 if size == 2 else 1 << 16), depth)
        if size := MAP.get(first):
            return self.map(self.number(size, 16 if size == 2 else 1 << 16), depth)
        raise Refused("invalid.document", f"a value of a type that no document has, at byte {self.position - 1}")

    def signed(self, size: int) -> int:
        """An integer of a signed encoding, which is the shortest for negative ones alone."""
        number = int.from_bytes(self.take(size), "big", signed=True)
        shorter = -32 if size == 1 else -(1 << 4 * size - 1)  # the least of those with a shorter encoding
        if number >= shorter:
            self.longer = f"{number} has a shorter encoding than the one at byte {self.position - size - 1}"
        return number

    def string(self, size: int) -> str:
        _rule(size <= MAX_ITEMS, f"a string of {size} bytes, over {MAX_ITEMS}")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise Refused("invalid.document", f"a string that is no UTF-8: {error}") from error

    def array(self, size: int, depth: int) -> list[Any]:
        _nesting(size, depth)
        return [self.value(depth + 1) for _ in range(size)]

    def map(self, size: int, depth: int) -> dict[str, Any]:
        _nesting(size, depth)
        entries: dict[str, Any] = {}
        before = b""
        for _ in range(size):
            key = self.value(MAX_DEPTH + 1)  # no array or map
            _rule(isinstance(key, str), f"a key that is no string, before byte {self.position}")
            _rule(key not in entries, f"the key {key!r} twice")
            if key.encode() < before:
                self.longer = f"the key {key!r} behind a greater one"
            before = key.encode()
            entries[key] = self.value(depth + 1)
        return entries


def _nesting(size: int, depth: int) -> None:
    _rule(depth <= MAX_DEPTH, f"arrays and maps nested deeper than {MAX_DEPTH}")
    _rule(size <= MAX_ITEMS, f"an array or map of {size} items, over {MAX_ITEMS}")


def _rule(kept: bool, message: str) -> None:
    if not kept:
        raise Refused("invalid.document", message)
