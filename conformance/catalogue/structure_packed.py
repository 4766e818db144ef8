"""Packed bytes that break a rule: zstd frames written by hand, of blocks that are not compressed (SPEC 3.6, RFC 8878)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..suite import Vector
from .bases import Film, film
from .file import File
from .refusals import refusal
from .structure_fields import ticks, with_times

FILM = film(Film((1,)))  # the smallest film: most rules of documents have nothing to do with the rest of a file
ZSTD_MAGIC = bytes.fromhex("28b52ffd")
RAW, RLE, RESERVED = 0, 1, 3  # types of zstd blocks (RFC 8878, 3.1.1.2)
DOCUMENT = b"\x81\xa1a\x01"  # {"a": 1}
LARGEST = 65536  # bytes of a document


def block(data: bytes, kind: int = RAW, size: int | None = None, last: bool = True) -> bytes:
    """A zstd block; `size` is the number of bytes that it says it holds, for RLE so many times its one byte."""
    header = (len(data) if size is None else size) << 3 | kind << 1 | last
    return header.to_bytes(3, "little") + data


def frame(
    blocks: bytes, size: int | None, *, window: int | None = None, flag: int = 3, bits: int = 0, dictionary: bytes = b""
) -> bytes:
    """A zstd frame whose stated content size takes 2^flag bytes: 1, 4 or 8; None states none.

    `window` is the descriptor of a window; without one the content size stands for it. `bits` are more bits of the frame
    header descriptor, `dictionary` are the bytes of a dictionary id.
    """
    single = window is None
    descriptor = (0 if size is None else flag << 6) | single << 5 | bits
    stated = b"" if size is None else size.to_bytes(1 << flag, "little")
    windowed = b"" if window is None else bytes([window])
    return ZSTD_MAGIC + bytes([descriptor]) + windowed + dictionary + stated + blocks


def small_frame(content: bytes) -> bytes:
    """The plainest zstd frame of up to 255 bytes."""
    return frame(block(content), len(content), flag=0)


def with_metadata(packed: bytes) -> File:
    """The film with another mETa payload."""
    return FILM.with_payload(b"mETa", packed).indexed()


def packed() -> Iterator[Vector]:
    """The vectors of this file."""
    yield from _methods()
    yield from _frames()


def _methods() -> Iterator[Vector]:
    for method in (2, 128, 255):
        about = f"metadata packed by method {method}"
        wrong = with_metadata(bytes([method]) + DOCUMENT)
        yield refusal(f"packed-method-{method}", "unsupported.packing", wrong, about, "Z1")
    about = "time stamps packed by method 2"
    yield refusal("packed-times-method-2", "unsupported.packing", with_times(b"\2" + ticks(0, 40)[1:]), about, "Z1")
    yield refusal("packed-empty", "invalid.packed", with_metadata(b""), "metadata without the byte that names the method", "Z1")
    yield refusal("packed-nothing", "invalid.packed", with_metadata(b"\0"), "no bytes, stored", "Z3", "packing.0", "D6")


def _frames() -> Iterator[Vector]:
    good, zeros = small_frame(DOCUMENT), 64 << 20
    two = block(DOCUMENT[:2], last=False) + block(DOCUMENT[2:])
    bomb = block(b"\0", RLE, 1 << 17, last=False) * (zeros // (1 << 17) - 1) + block(b"\0", RLE, 1 << 17)
    size = len(DOCUMENT)
    pieces = _strings(LARGEST + 1)
    strings = b"".join(block(front, last=False) + block(b"x", RLE, letters, last=False) for front, letters in pieces) + block(b"")
    text = block(b"\x81\xa1a\xda\x05\xdc", last=False) + block(b"x", RLE, 1000, last=False) + block(b"x", RLE, 500)
    for slug, rule, body, about in (
        ("no-content-size", "Z2", frame(block(DOCUMENT), None, window=0), "states no content size"),
        ("dictionary", "Z2", frame(block(DOCUMENT), size, flag=0, bits=1, dictionary=b"\7"), "asks for dictionary 7"),
        ("dictionary-large", "Z2", frame(block(DOCUMENT), size, flag=0, bits=3, dictionary=b"\0\0\0\1"), "dictionary 2^24"),
        ("window", "Z2", frame(block(DOCUMENT), size, window=13 << 3 | 1), "asks for a window of 9 MiB"),
        ("window-largest", "Z2", frame(block(DOCUMENT), size, window=255), "asks for the largest window"),
        ("window-small", "Z2", frame(text, 1506, window=0), "has a window of 1 KiB for 1506 bytes"),
        ("cut", "Z2", good[:-1], "lacks its last byte"),
        ("cut-behind-header", "Z2", good[:6], "ends behind its header"),
        ("cut-in-header", "Z2", good[:5], "ends before its content size"),
        ("cut-in-magic", "Z2", good[:3], "ends within its magic"),
        ("no-last-block", "Z2", frame(block(DOCUMENT, last=False), size, flag=0), "has no last block"),
        ("magic", "Z2", b"\x27" + good[1:], "begins with the magic of an older format"),
        ("skippable", "Z2", b"\x50\x2a\x4d\x18" + struct.pack("<I", size) + DOCUMENT, "is a skippable frame"),
        ("skippable-before", "Z2", b"\x5f\x2a\x4d\x18\1\0\0\0x" + good, "follows a skippable frame"),
        ("skippable-behind", "Z2", good + b"\x50\x2a\x4d\x18\0\0\0\0", "is followed by a skippable frame"),
        ("byte-behind", "Z2", good + b"\0", "is followed by a byte"),
        ("two", "Z2", small_frame(DOCUMENT[:2]) + small_frame(DOCUMENT[2:]), "holds half of the document, a second one the rest"),
        ("again", "Z2", good + good, "stands there twice"),
        ("reserved-bit", "Z2", frame(block(DOCUMENT), size, flag=0, bits=8), "sets the reserved bit of its header"),
        ("reserved-block", "Z2", frame(block(DOCUMENT, RESERVED), size, flag=0), "has a block of the reserved type"),
        ("checksum", "Z2", frame(block(DOCUMENT), size, flag=0, bits=4) + bytes(4), "has a wrong checksum"),
        ("checksum-cut", "Z2", frame(block(DOCUMENT), size, flag=0, bits=4) + bytes(3), "lacks a byte of its checksum"),
        ("size-more", "Z3", frame(two, size + 1, flag=0), "states a byte more than it holds"),
        ("size-less", "Z3", frame(two, size - 1, flag=0), "states a byte less than it holds"),
        ("size-0", "Z3", frame(block(b""), 0, flag=0), "holds nothing"),
        ("size-2-to-62", "Z3", frame(block(DOCUMENT), 1 << 62), "states 2^62 bytes"),
        ("size-2-to-32", "Z3", frame(block(DOCUMENT), (1 << 32) + size), "states 2^32 bytes more than it holds"),
        ("one-over", "Z3", frame(strings, LARGEST + 1, window=56), "holds a document of 65537 bytes"),
        ("bomb", "Z3", frame(bomb, zeros, window=56), "holds 64 MiB and says so"),
        ("bomb-denied", "Z3", frame(bomb, size, window=56), "holds 64 MiB and states 4 bytes"),
    ):
        wrong = with_metadata(b"\1" + body)
        yield refusal(f"zstd-{slug}", "invalid.packed", wrong, f"metadata: the zstd frame {about}", rule, "packing.1", "D6")
    pair = struct.pack("<II", 0, 40)
    for slug, content in (("one-frame-less", pair[:4]), ("one-byte-less", pair[:-1]), ("one-frame-more", pair + pair[4:])):
        about = f"a zstd frame of {len(content)} bytes for the time stamps of two frames"
        wrong = with_times(b"\1" + small_frame(content))
        yield refusal(f"zstd-times-{slug}", "invalid.packed", wrong, about, "Z3", "S6", "packing.1", "section.times")


def _strings(size: int) -> Iterator[tuple[bytes, int]]:
    """A map of 16 strings in `size` bytes, in pieces: some bytes, and how many letters x follow them."""
    front = b"\xde\0\x10"
    for number in range(16):
        front += bytes([0xA1, 97 + number, 0xDA])
        size -= len(front) + 2
        letters = min(size, 4096)
        yield front + struct.pack(">H", letters), letters
        size -= letters
        front = b""
