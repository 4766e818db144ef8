"""Packed bytes: side information stored as it is, or as one zstd frame where that is smaller (SPEC 3.6)."""

from __future__ import annotations

import zstandard

from .constants import STORED, ZSTD, ZSTD_WINDOW
from .errors import InvalidError, UnsupportedError

LEVEL = 19  # the inputs are at most 256 KiB, so even the slowest ordinary level takes milliseconds


def pack(data: bytes) -> bytes:
    """One byte that names the method, then the bytes."""
    frame = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(data)
    return bytes([ZSTD]) + frame if len(frame) < len(data) else bytes([STORED]) + data


def unpack(packed: bytes, name: str, lowest: int, highest: int) -> bytes:
    """The bytes that `pack` was given, lowest..highest of them; `name` is for messages.

    The size is checked before anything is decompressed: the library allocates whatever size a frame states.
    """
    if not packed:
        raise InvalidError("packed", f"{name} is empty; its first byte must name the packing method")
    method, body = packed[0], packed[1:]
    if method not in (STORED, ZSTD):
        raise UnsupportedError("packing", f"{name} is packed by the unknown method {method}")
    size = len(body) if method == STORED else _content_size(body, name)
    if not lowest <= size <= highest:
        raise InvalidError("packed", f"{name} unpacks to {size} bytes, not {lowest}..{highest}")
    if method == STORED:
        return body
    try:
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=highest, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise InvalidError("packed", f"{name} is not one whole zstd frame: {error}") from error


def _content_size(frame: bytes, name: str) -> int:
    """The size that the frame states, -1 for none; decompressing would not check the window."""
    try:
        parameters = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise InvalidError("packed", f"{name} does not begin with a zstd frame: {error}") from error
    if parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN:
        return -1
    if parameters.window_size < parameters.content_size:  # else the library decides what lies beyond the window
        raise InvalidError("packed", f"{name} has a zstd window of {parameters.window_size} bytes, smaller than its content")
    if parameters.window_size > ZSTD_WINDOW:
        raise InvalidError("packed", f"{name} needs a zstd window of {parameters.window_size} bytes, over {ZSTD_WINDOW}")
    return parameters.content_size
