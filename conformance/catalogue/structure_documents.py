"""Documents that break a rule, in mETa and in MODL: MessagePack written by hand, byte by byte (SPEC 3.4, 3.5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from nvc.bitstream import canonical
from nvc.bitstream.program import Op

from ..suite import Vector
from .file import File
from .refusals import refusal
from .structure_packed import DOCUMENT, FILM, LARGEST, RLE, block, frame, with_metadata


def with_model(document: bytes) -> File:
    """The film with another MODL payload."""
    return FILM.with_payload(b"MODL", document).indexed()


def documents() -> Iterator[Vector]:
    """The vectors of this file."""
    yield from _metadata()
    yield from _not_canonical()
    yield from _malformed()
    yield from _sizes()
    yield from _models()


def _metadata() -> Iterator[Vector]:
    for slug, document, about in (
        ("integer", b"\1", "the number 1"),
        ("string", b"\xa1a", "a string"),
        ("array", b"\x91" + DOCUMENT, "an array of a map"),
        ("empty-map", b"\x80", "a map without entries"),
        ("empty-array", b"\x90", "an empty array"),
        ("of-an-array", b"\x81\xa1a\x91\1", "a map to an array"),
        ("of-an-empty-array", b"\x82\xa1a\1\xa1b\x90", "a map whose last entry is an empty array"),
        ("of-a-map", b"\x81\xa1a" + DOCUMENT, "a map to a map"),
    ):
        yield refusal(f"metadata-{slug}", "invalid.metadata", with_metadata(b"\0" + document), f"metadata: {about}", "D6")


def _entry(value: bytes) -> bytes:
    """The packed map {"a": value}."""
    return b"\0\x81\xa1a" + value


def _not_canonical() -> Iterator[Vector]:
    text = b"x" * 31
    for slug, value, about in (
        ("uint8", b"\xcc\x7f", "127 in two bytes"),
        ("uint16", b"\xcd\0\xff", "255 in three bytes"),
        ("uint32", b"\xce\0\0\xff\xff", "65535 in five bytes"),
        ("uint64", b"\xcf\0\0\0\0\xff\xff\xff\xff", "2^32 - 1 in nine bytes"),
        ("int8-unsigned", b"\xd0\x05", "5 as a signed number"),
        ("int16-unsigned", b"\xd1\0\xff", "255 as a signed number"),
        ("int32-unsigned", b"\xd2\0\1\0\0", "65536 as a signed number"),
        ("int64-unsigned", b"\xd3\0\0\0\1\0\0\0\0", "2^32 as a signed number"),
        ("int8", b"\xd0\xe0", "-32 in two bytes"),
        ("int16", b"\xd1\xff\x80", "-128 in three bytes"),
        ("int32", b"\xd2\xff\xff\x80\0", "-32768 in five bytes"),
        ("int64", b"\xd3\xff\xff\xff\xff\x80\0\0\0", "-2^31 in nine bytes"),
        ("str8", b"\xd9\x1f" + text, "a string of 31 bytes with a length of one byte"),
        ("str16", b"\xda\0\xff" + b"x" * 255, "a string of 255 bytes with a length of two bytes"),
        ("str32", b"\xdb\0\0\1\0" + b"x" * 256, "a string of 256 bytes with a length of four bytes"),
    ):
        yield refusal(f"encoding-{slug}", "invalid.not_canonical", with_metadata(_entry(value)), f"metadata: {about}", "D5")
    fifteen = b"".join(b"\xa1" + bytes([97 + number, number]) for number in range(15))
    for slug, document, about in (
        ("key-str8", b"\x81\xd9\1a\1", "a key with a length of one byte"),
        ("map16", b"\xde\0\x0f" + fifteen, "a map of 15 entries with a length of two bytes"),
        ("map32", b"\xdf\0\0\0\1\xa1a\1", "a map of one entry with a length of four bytes"),
        ("keys-descending", b"\x82\xa1b\1\xa1a\1", "keys in descending order"),
        ("keys-by-length", b"\x82\xa1b\1\xa2aa\1", "a shorter key in front of a smaller one"),
        ("keys-in-utf-16-order", b"\x82\xa4\xf0\x90\x80\x80\1\xa3\xef\xbf\xbf\1", "U+10000 in front of U+FFFF, as in UTF-16"),
        ("keys-last", b"\x83\xa1a\1\xa1c\1\xa1b\1", "the last key is out of order"),
    ):
        yield refusal(f"encoding-{slug}", "invalid.not_canonical", with_metadata(b"\0" + document), f"metadata: {about}", "D5")
    model = FILM.payload(b"MODL")  # an array of two programs
    for slug, document, about in (
        ("array16", b"\xdc\0\2" + model[1:], "the array of programs has a length of two bytes"),
        ("array32", b"\xdd\0\0\0\2" + model[1:], "the array of programs has a length of four bytes"),
        ("name-str8", model.replace(b"\xa6moving", b"\xd9\6moving"), "the name of a program has a length of one byte"),
    ):
        yield refusal(f"model-{slug}", "invalid.not_canonical", with_model(document), f"MODL: {about}", "D5")


def _malformed() -> Iterator[Vector]:
    for slug, value, about in (
        ("nil", b"\xc0", "nil"),
        ("false", b"\xc2", "false"),
        ("true", b"\xc3", "true"),
        ("float", b"\xca\x3f\x80\0\0", "the float 1"),
        ("double", b"\xcb\x3f\xf0\0\0\0\0\0\0", "the double 1"),
        ("binary", b"\xc4\1a", "a byte of binary data"),
        ("empty-binary", b"\xc4\0", "binary data of no byte"),
        ("binary-16", b"\xc5\0\1a", "binary data with a length of two bytes"),
        ("extension", b"\xd4\1a", "an extension of one byte"),
        ("empty-extension", b"\xc7\0\1", "an extension of no byte"),
        ("timestamp", b"\xd6\xff\0\0\0\1", "a timestamp"),
        ("unused-code", b"\xc1", "the code that MessagePack does not use"),
        ("utf-8", b"\xa1\xff", "a string that is no UTF-8"),
        ("utf-8-overlong", b"\xa2\xc0\xaf", "an overlong form of UTF-8"),
        ("utf-8-surrogate", b"\xa3\xed\xa0\x80", "a surrogate in UTF-8"),
        ("utf-8-surrogates", b"\xa6\xed\xa0\x80\xed\xb0\x80", "a pair of surrogates in UTF-8, as in CESU-8"),
        ("utf-8-beyond", b"\xa4\xf4\x90\x80\x80", "U+110000 in UTF-8"),
        ("utf-8-cut", b"\xa1\xc3", "a string that ends within a character"),
        ("cut-string", b"\xa2x", "a string that lacks a byte"),
        ("cut-number", b"\xcd\1", "a number that lacks a byte"),
        ("missing", b"", "nothing"),
        ("huge-string", b"\xdb\xff\xff\xff\xff", "a string that says it has 2^32 - 1 bytes"),
        ("huge-array", b"\xdd\xff\xff\xff\xff", "an array that says it has 2^32 - 1 items"),
    ):
        about = f"metadata: the value is {about}"
        yield refusal(f"document-{slug}", "invalid.document", with_metadata(_entry(value)), about, "D3" if len(value) else "D2")
    for slug, rule, document, about in (
        ("integer-key", "D3", b"\x81\1\1", "a key is a number"),
        ("binary-key", "D3", b"\x81\xc4\1a\1", "a key is binary"),
        ("nil-key", "D3", b"\x81\xc0\1", "a key is nil"),
        ("utf-8-key", "D3", b"\x81\xa1\xff\1", "a key is no UTF-8"),
        ("key-twice", "D3", b"\x82\xa1a\1\xa1a\1", "a key stands there twice"),
        ("key-twice-apart", "D3", b"\x83\xa1a\1\xa1b\1\xa1a\1", "the first key comes again as the last"),
        ("key-twice-hides-nil", "D3", b"\x82\xa1a\xc0\xa1a\1", "a key stands there twice, the first time with nil"),
        ("key-without-value", "D2", b"\x82\xa1a\1\xa1b", "the last key has no value"),
        ("byte-behind", "D2", DOCUMENT + b"\0", "a byte stands behind the map"),
        ("two", "D2", DOCUMENT * 2, "a second map stands behind the map"),
        ("alone-nil", "D3", b"\xc0", "the document is nil"),
    ):
        yield refusal(f"document-{slug}", "invalid.document", with_metadata(b"\0" + document), f"metadata: {about}", rule)


def _sizes() -> Iterator[Vector]:
    def deep(depth: int) -> bytes:
        """A map and, in it, arrays; the innermost is empty and has this depth."""
        return _entry(b"\x91" * (depth - 2) + b"\x90")

    def long_string(size: int) -> bytes:
        return b"\1" + frame(block(b"\x81\xa1a\xda" + struct.pack(">H", size), last=False) + block(b"x", RLE, size), 6 + size)

    zeros = block(b"\x81\xa1a\xdc\x10\x01", last=False) + block(b"\0", RLE, 4097)
    pairs = b"".join(b"\xa2" + bytes([48 + number // 75, 48 + number % 75]) + b"\0" for number in range(4097))
    key = block(b"\x81\xda\x10\x01", last=False) + block(b"x", RLE, 4097, last=False) + block(b"\1")
    for slug, packed, about in (
        ("depth-9", deep(9), "an array of depth 9"),
        ("depth-2000", _entry(b"\x91" * 2000 + b"\x90"), "an array of depth 2002"),
        ("depth-9-maps", b"\0" + b"\x81\xa1a" * 8 + b"\x80", "a map of depth 9"),
        ("string-of-4097", long_string(4097), "a string of 4097 bytes"),
        ("key-of-4097", b"\1" + frame(key, 4102), "a key of 4097 bytes"),
        ("array-of-4097", b"\1" + frame(zeros, 6 + 4097), "an array of 4097 numbers"),
        ("map-of-4097", b"\0\xde\x10\x01" + pairs, "a map of 4097 entries"),
        ("wide-string", _entry(b"\xda\x10\x02" + "é".encode() * 2049), "a string of 2049 characters and 4098 bytes"),
    ):
        yield refusal(f"document-{slug}", "invalid.document", with_metadata(packed), f"metadata: {about}", "D4")


def _models() -> Iterator[Vector]:
    model = FILM.payload(b"MODL")
    empty = with_model(b"")
    yield refusal("model-empty", "invalid.length", empty, "MODL has no byte", "D1")
    over = with_model(_large_model())
    yield refusal("model-one-over", "invalid.length", over, "MODL has 65537 bytes", "D1", "D2")
    name = b"\xa6moving"
    for slug, rule, document, about in (
        ("byte-behind", "D2", model + b"\0", "a byte stands behind the programs"),
        ("cut", "D2", model[:-1], "the last byte is not there"),
        ("nil", "D3", b"\xc0", "the document is nil"),
        ("true", "D3", _argument(model, b"\xc3"), "an argument is true, where 1 would stand"),
        ("float", "D3", _argument(model, b"\xca\x3f\x80\0\0"), "an argument is the float 1"),
        ("binary-name", "D3", model.replace(name, b"\xc4\6moving"), "the name of a program is binary"),
        ("utf-8-name", "D3", model.replace(name, b"\xa6mov\xffng"), "the name of a program is no UTF-8"),
        ("key-twice", "D3", b"\x91\x82\xa1a\1\xa1a\1", "a map has a key twice"),
        ("integer-key", "D3", b"\x91\x81\1\1", "a key is a number"),
        ("depth-9", "D4", b"\x91" * 8 + b"\x90", "an array of depth 9"),
        ("array-of-4097", "D4", b"\xdc\x10\x01" + bytes(4097), "an array of 4097 numbers"),
        ("string-of-4097", "D4", b"\x91\xda\x10\x01" + b"x" * 4097, "a string of 4097 bytes"),
    ):
        yield refusal(f"model-{slug}", "invalid.document", with_model(document), f"MODL: {about}", rule)


def _argument(model: bytes, value: bytes) -> bytes:
    """The model with another encoding of the stride 1 of its first operation."""
    operation = bytes([0x97, Op.EMBEDDING, 0, 2, 2, 3, 0, 1])
    assert operation in model
    return model.replace(operation, operation[:-1] + value, 1)


def _large_model() -> bytes:
    """The programs of the film and more that make the same picture, for which no segment asks, in 65537 bytes."""
    programs = canonical.unpack(FILM.payload(b"MODL"))
    *rows, output = programs[1][1]
    idle = [int(Op.COORDINATES), 0, 1, 1]  # 5 bytes, and nothing reads its value
    programs += [["idle", [*rows, *[idle] * 1000, output]] for _ in range(12)]
    missing = LARGEST - len(canonical.pack([*programs, ["i", [*rows, *[idle] * 16, output]]]))
    programs.append(["i" * (1 + missing % 5), [*rows, *[idle] * (16 + missing // 5), output]])
    return canonical.pack(programs).replace(b"\xa4idle", b"\xa5idle.", 1)  # which writes no more than 65536
