"""Canonical msgpack: the one encoding of documents made of maps, lists, strings and integers (SPEC 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgpack

from .constants import DOCUMENT_BYTES, DOCUMENT_DEPTH, DOCUMENT_ITEMS, STRING_BYTES
from .errors import InvalidError

Document: TypeAlias = "int | str | Sequence[Document] | Mapping[str, Document]"

INTEGERS = range(-(1 << 63), 1 << 64)  # what msgpack can write


def pack(document: Document, name: str = "document") -> bytes:
    """The bytes of a document: shortest encodings, keys in ascending order; InvalidError for what SPEC 3.4 forbids.

    Of Python's types int, str, list and dict may occur, no others, bool and None included. `name` is for messages.
    """
    data: bytes = msgpack.packb(_ordered(document, name, 1), use_bin_type=True)
    _check_size(data, name)
    return data


def unpack(data: bytes, name: str = "document") -> Any:
    """Parses a document; InvalidError unless `data` is exactly what `pack` makes of the result."""
    _check_size(data, name)
    try:
        document = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_map,
            max_str_len=STRING_BYTES,
            max_bin_len=0,
            max_array_len=DOCUMENT_ITEMS,
            max_map_len=DOCUMENT_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        cause = str(error) or type(error).__name__
        raise InvalidError("document", f"{name} is not well-formed msgpack: {cause}") from error
    if pack(document, name) != data:
        raise InvalidError("not_canonical", f"{name} is well-formed msgpack, but not in the canonical encoding")
    return document


def _map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The map of these entries; a key that comes twice would hide a value from every later check."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a map has a key twice")
    return entries


def _check_size(data: bytes, name: str) -> None:
    if len(data) > DOCUMENT_BYTES:
        raise InvalidError("document", f"{name} has {len(data)} bytes, over the maximum of {DOCUMENT_BYTES}")


def _ordered(value: object, name: str, depth: int) -> Document:
    """`value` with the keys of all maps in ascending order of code points; checks every rule of SPEC 3.4 on the way."""
    if isinstance(value, list | dict):
        if depth > DOCUMENT_DEPTH:
            raise InvalidError("document", f"{name} has lists and maps nested more than {DOCUMENT_DEPTH} deep")
        if len(value) > DOCUMENT_ITEMS:
            raise InvalidError("document", f"{name} has a list or map of {len(value)} items, over {DOCUMENT_ITEMS}")
        if isinstance(value, list):
            return [_ordered(item, name, depth + 1) for item in value]
        keys = sorted(_string(key, name) for key in value)
        return {key: _ordered(value[key], name, depth + 1) for key in keys}
    if type(value) is int:
        if value not in INTEGERS:
            raise InvalidError("document", f"{name} has an integer outside -2^63..2^64-1")
        return value
    return _string(value, name)


def _string(value: object, name: str) -> str:
    """`value`, if it is a str of at most STRING_BYTES bytes in UTF-8."""
    if type(value) is not str:
        raise InvalidError("document", f"{name} has a {type(value).__name__} where it may not")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidError("document", f"{name} has a string that is not valid Unicode") from error
    if size > STRING_BYTES:
        raise InvalidError("document", f"{name} has a string of {size} bytes, over the maximum of {STRING_BYTES}")
    return value
