"""Option types and options that several commands share; importing this pulls in neither torch nor numpy."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO, TypeVar

import click

from nvc.bitstream.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])


class FrameRange(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`A:B`, half-open; either side may be left out."""

    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        if isinstance(value, tuple):
            return value
        first, colon, last = str(value).partition(":")
        try:
            span = (int(first or 0), int(last) if last else None)
        except ValueError:
            self.fail(f"{value!r} is no frame range; write A:B, for example 0:32", param, ctx)
        if not colon or span[0] < 0 or (span[1] is not None and span[1] <= span[0]):
            self.fail(f"{value!r} is no frame range; write A:B with 0 <= A < B", param, ctx)
        return span


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`WxH` in samples."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        width, _, height = str(value).lower().partition("x")
        if not (width.isdecimal() and height.isdecimal()) or not (0 < int(width) <= 65535 and 0 < int(height) <= 65535):
            self.fail(f"{value!r} is no size; write WxH with sides of 1 to 65535, for example 320x180", param, ctx)
        return int(width), int(height)


class Codebook(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`KxD`: K codes of D numbers, as many as a file may have (SPEC 8.4)."""

    name = "KxD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        levels, _, dimension = str(value).lower().partition("x")
        if not (levels.isdecimal() and dimension.isdecimal() and 2 <= int(levels) <= 4096 and 1 <= int(dimension) <= 256):
            self.fail(f"{value!r} is no codebook; write KxD, 2 to 4096 codes of 1 to 256 numbers, for example 128x8", param, ctx)
        return int(levels), int(dimension)


class Amount(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """A number with the suffixes ffmpeg users know: 300k, 1.5M."""

    name = "number[k|M]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        scale = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}.get(text[-1:], 1.0)
        try:
            return float(text[:-1] if scale != 1.0 else text) * scale
        except ValueError:
            self.fail(f"{value!r} is no number; write for example 300k or 1.5M", param, ctx)


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`a,b,c`: numbers."""

    name = "a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers; write for example 0.05,0.1,0.2", param, ctx)


class Names(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`a,b,c`: names."""

    name = "a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(part.strip() for part in str(value).split(",") if part.strip())


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """A frame rate: 25, 29.97 or 30000/1001."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        if isinstance(value, Fraction):
            return value
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9}|/[1-9]\d{0,8})?", str(value)):
            self.fail(f"{value!r} is no frame rate; write for example 25 or 30000/1001", param, ctx)
        return Fraction(str(value))


_OVERWRITE = click.option("-y", "--overwrite", is_flag=True, help="Replace the output if it exists.")
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
_VERBOSE = click.option("-v", "--verbose", is_flag=True, help="More on stderr.")


def writing(command: F) -> F:
    """The options of every command that writes: -y, -q, -v."""
    return _OVERWRITE(_QUIET(_VERBOSE(command)))


def computing(command: F) -> F:
    """--device and --threads."""
    device = click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute."
    )
    threads = click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads (default: one per core).")
    return device(threads(command))


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def echo_json(result: dict[str, Any]) -> None:
    """Print the one object of a --json run."""
    click.echo(json.dumps(result))


@contextlib.contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """An .nvc file for reading, `-` for standard input; InputError where it cannot be opened."""
    if path == "-":
        if sys.stdin is None:
            raise InputError("stdin", "standard input is closed")
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115, closed below: errors inside the block are not ours to rename
    except OSError as error:
        raise InputError("missing", f"{path}: {error.strerror or error}") from error
    with file:
        yield file


def machine(device: object) -> str:
    """What computes, for -v."""
    import torch

    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def set_threads(threads: int | None) -> None:
    """Give torch its threads, before it starts any."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
