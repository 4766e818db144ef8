"""Where video comes from: a file, standard input or a folder of pictures, as arguments with which ffmpeg opens it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from nvc.bitstream.errors import InputError, UsageError

from .ffmpeg import file_url
from .timing import DEFAULT_RATE

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".tga", ".exr", ".dpx", ".jp2")


@dataclass(frozen=True)
class Source:
    """A source that ffmpeg can open: its arguments, its name in messages, and the rate where it has no time stamps."""

    inputs: list[str]
    label: str
    rate: Fraction | None = None
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def open_source(source: str, fps: Fraction | None) -> Iterator[Source]:
    """The source as ffmpeg arguments, valid within the block."""
    if fps is not None and not os.path.isdir(source):
        raise UsageError("fps", f"{source}: a frame rate can be given only for a folder of pictures")
    if source == "-":
        # Copied to a file, because a pipe can be read once and the source is read twice: probed, then decoded.
        with tempfile.TemporaryDirectory(prefix="nvc-") as folder:
            path = os.path.join(folder, "stdin")
            _copy_stdin(path)
            yield _file(path, "standard input")
    elif os.path.isdir(source):
        images = pictures(source)
        with tempfile.TemporaryDirectory(prefix="nvc-") as folder:
            path = os.path.join(folder, "pictures.ffconcat")
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as listing:
                listing.write(_concat_script(images))
            notes = () if fps else (f"{source}: taken at {DEFAULT_RATE} frames per second",)
            yield Source(["-f", "concat", "-safe", "0", "-i", file_url(path)], source, fps or DEFAULT_RATE, notes)
    else:
        yield _file(source, source)


def _copy_stdin(path: str) -> None:
    if sys.stdin is None:
        raise InputError("stdin", "standard input is closed")
    try:
        with open(path, "wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
    except OSError as error:
        raise InputError("stdin", f"standard input, copied to {path}: {error.strerror}") from error


def _file(path: str, label: str) -> Source:
    try:
        with open(path, "rb") as file:
            if os.path.isfile(path) and not file.read(1):
                raise InputError("empty", f"{label}: empty")
    except FileNotFoundError as error:
        raise InputError("missing", f"{label}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError("missing", f"{label}: {getattr(error, 'strerror', None) or error}") from error
    return Source(["-i", file_url(path)], label)


def pictures(folder: str) -> list[str]:
    """The pictures of a folder in natural order (frame9 before frame10)."""

    def natural(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]

    try:
        names = sorted(os.listdir(folder), key=natural)
    except OSError as error:
        raise InputError("missing", f"{folder}: {error.strerror}") from error
    names = [name for name in names if name.lower().endswith(_IMAGES) and not name.startswith(".")]
    if not names:
        raise InputError("no_images", f"{folder}: no pictures in this folder ({', '.join(_IMAGES)})")
    kinds = sorted({os.path.splitext(name)[1].lower() for name in names})
    if len(kinds) > 1:
        raise InputError("mixed_images", f"{folder}: pictures of several kinds ({', '.join(kinds)}); keep one")
    return [os.path.join(os.path.abspath(folder), name) for name in names]


def _concat_script(images: list[str]) -> str:
    """For ffmpeg's concat demuxer. The durations only keep the order; the real time stamps are frame numbers."""
    quoted = [file_url(image).replace("'", "'\\''") for image in images]
    entries = [f"file '{image}'\noption pattern_type none\nduration 0.04\n" for image in quoted]
    return "".join(["ffconcat version 1.0\n", *entries])
