"""The reference decoder: an .nvc file to frames by SPEC.md alone, in NumPy and the standard library, to be read beside it.

`python conformance/reference.py IN [OUT] [--salvage]` needs no installation.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

if not __package__:  # run as a script: relative imports need the package that this folder is (PEP 366)
    _FOLDER = Path(__file__).resolve().parent
    sys.path[:] = [str(_FOLDER.parent), *(entry for entry in sys.path if entry != str(_FOLDER))]
    __package__ = _FOLDER.name

from .ref_bounds import prove
from .ref_container import Container
from .ref_documents import unpack_document
from .ref_errors import Refused
from .ref_fields import require
from .ref_header import Header
from .ref_operations import Integers, render
from .ref_programs import Program, check_picture, parse_programs, read_numbers
from .ref_salvage import Lost
from .ref_salvage import salvage as salvage_segments
from .ref_segment import Segment

Plane = NDArray[np.uint8]
UNREADABLE, REFUSED, DIFFERENT, INCOMPLETE = 1, 4, 6, 10  # exit statuses; 2 is a wrong command line


class Frame(NamedTuple):
    """Frame `number`: three planes (H, W) uint8, and the seconds at which it is shown, None where salvage cannot know them."""

    number: int
    planes: list[Plane]
    seconds: Fraction | None


@dataclass(frozen=True)
class Video:
    """A whole file."""

    header: Header
    metadata: Mapping[str, str | int]
    frames: list[Frame]


def read(data: bytes, limits: Mapping[str, int] | None = None) -> Video:
    """The video of a file; `limits` are those of SPEC 9 by name, which stand for the defaults. Raises Refused."""
    file = _File(data, limits)
    frames = list(file.decode())
    return Video(file.container.header, file.container.metadata, frames)


def decode(data: bytes, limits: Mapping[str, int] | None = None) -> Iterator[Frame]:
    """The frames in order. Raises Refused, with `verify.frame` for one that differs from its hash; those before it are right."""
    yield from _File(data, limits).decode()


def segments(data: bytes, limits: Mapping[str, int] | None = None) -> Iterator[tuple[Segment, Program, list[Integers]]]:
    """Each segment with its program and its numbers, proven but not rendered. Raises Refused, but never `verify.frame`."""
    file = _File(data, limits)
    for segment in file.container.segments():
        yield segment, *file.numbers(segment)


def salvage(data: bytes, limits: Mapping[str, int] | None = None) -> Iterator[Frame | Lost]:
    """What is left of a damaged file, and what is lost, in order of frames (SPEC 4.7). Raises Refused if no frame is left.

    Of consecutive frames that differ from their hashes one loss is made.
    """
    held: list[Lost] = []  # losses that nothing but losses has followed so far
    kept = False
    for found in _File(data, limits).salvage():
        if isinstance(found, Frame):
            yield from held
            held, kept = [], True
            yield found
        elif held and held[-1].code == found.code == "verify.frame":
            held[-1] = Lost(held[-1].first, held[-1].frames + found.frames, found.code)
        else:
            held.append(found)
    if not kept:
        raise Refused(held[0].code, "no frame is left")
    yield from held


class _File:
    """A file whose programs are parsed and checked."""

    def __init__(self, data: bytes, limits: Mapping[str, int] | None) -> None:
        self.container = Container(data, limits or {})
        self._limits = self.container.limits
        self._programs = parse_programs(unpack_document(self.container.model), self._limits)
        header = self.container.header
        for program in self._programs:
            pixels, frames = header.width * header.height, header.stated_frames
            check_picture(program, header.planes, header.bit_depth, pixels, frames, self._limits)

    def decode(self) -> Iterator[Frame]:
        """All frames, as `decode`."""
        ticks = self.container.header.first_pts
        for segment in self.container.segments():
            for t, (planes, right) in enumerate(_rendered(segment, *self.numbers(segment))):
                number = segment.first_frame + t
                require(right, "verify.frame", f"frame {number} differs from its hash")
                ticks += segment.times[t] if segment.times else 0
                yield Frame(number, planes, self._seconds(number, ticks))

    def salvage(self) -> Iterator[Frame | Lost]:
        """Frames and losses in order, as `salvage`, but for what it does about adjacent and total losses."""
        for found in salvage_segments(self.container, lambda segment: (segment, self.numbers(segment))):
            if isinstance(found, Lost):
                yield found
                continue
            segment, numbers = found
            for number, (planes, right) in enumerate(_rendered(segment, *numbers), segment.first_frame):
                yield Frame(number, planes, self._seconds(number, None)) if right else Lost(number, 1, "verify.frame")

    def numbers(self, segment: Segment) -> tuple[Program, list[Integers]]:
        """The program of a segment and its tensors, proven to stay within bounds."""
        require(segment.program < len(self._programs), "invalid.program", f"there is no program {segment.program}")
        program = self._programs[segment.program]
        work = program.work * segment.end
        require(work <= self._limits["max_macs_total"], "limit.compute", f"{work} multiply-adds for {segment.end} frames")
        tensors = read_numbers(program, segment.frames, segment.sections, self._limits)
        digest = hashlib.sha256(b"".join(tensor.astype("<i8").tobytes() for tensor in tensors)).digest()[:8]
        require(digest == segment.digest, "corrupt.digest", f"the numbers of the segment at frame {segment.first_frame} differ")
        prove(program, tensors)
        return program, tensors

    def _seconds(self, number: int, ticks: int | None) -> Fraction | None:
        """When a frame is shown (SPEC 3.3, 4.3); its time stamp is `ticks` where the frame rate is variable."""
        header = self.container.header
        if header.frame_rate is not None:
            return header.first_pts * header.time_base + number / header.frame_rate
        return None if ticks is None else ticks * header.time_base


def _rendered(segment: Segment, program: Program, tensors: list[Integers]) -> Iterator[tuple[list[Plane], bool]]:
    """The planes of each frame of a segment, and whether they agree with their hash."""
    for t, expected in enumerate(segment.hashes):
        planes = [plane.astype(np.uint8) for plane in render(program.rows, tensors, t, segment.frames)]
        yield planes, frame_digest(planes)[:8] == expected


def frame_digest(planes: Sequence[Plane]) -> bytes:
    """The SHA-256 of a frame's samples (SPEC 8.8), all 32 bytes."""
    return hashlib.sha256(b"".join(plane.tobytes() for plane in planes)).digest()


# ---- the command line


def main() -> int:
    """Print the number and the SHA-256 of every frame; the exit status."""
    parser = argparse.ArgumentParser(prog="reference", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", metavar="IN", type=Path, help="the .nvc file")
    parser.add_argument("target", metavar="OUT", type=Path, nargs="?", help="where the samples go, frame by frame")
    parser.add_argument("--salvage", action="store_true", help="keep what is left of a damaged file")
    arguments = parser.parse_args()
    try:
        found = (salvage if arguments.salvage else decode)(arguments.source.read_bytes())
        return _report(found, arguments.target)
    except Refused as refused:
        print(f"reference: {refused} [{refused.code}]", file=sys.stderr)
        return DIFFERENT if refused.code == "verify.frame" else REFUSED
    except (OSError, MemoryError) as error:
        print(f"reference: {error or 'out of memory'}", file=sys.stderr)
        return UNREADABLE


def _report(found: Iterable[Frame | Lost], target: Path | None) -> int:
    status = 0
    with _appearing(target) as samples:
        for each in found:
            if isinstance(each, Lost):
                status = INCOMPLETE
                print("lost", *each)
                continue
            print(each.number, frame_digest(each.planes).hex())
            for plane in each.planes:
                samples.write(plane.tobytes())
    return status


@contextmanager
def _appearing(target: Path | None) -> Iterator[IO[bytes]]:
    """A file to write; it takes the place of `target` when the block ends without an exception."""
    if target is None or (target.exists() and not target.is_file()):  # such as a pipe, which must not be replaced by a file
        with open(target or os.devnull, "wb") as file:
            yield file
        return
    part = target.with_name(f"{target.name}.part")
    try:
        with open(part, "wb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
