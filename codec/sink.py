"""What every video output has in common: it takes frames, appears when complete, and tells what it could not carry.

Frames are written by a thread of the sink, so that the next ones are decoded while a disk, a pipe or an encoder is slow.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import IO, Self

import numpy as np

from nvc.bitstream.errors import OutputError
from nvc.bitstream.header import Header

from .background import Background
from .metrics import Plane, Planes
from .outputs import discard, output_error, temporary_name

QUEUED = 2  # batches that wait to be written: enough that a writer which stutters finds work, little enough to keep in memory
PATIENCE = 10.0  # seconds for a write that is under way when all is given up; files are not closed under it

_Frames = tuple[Planes, Sequence[int]]


def write_all(file: IO[bytes], *pieces: bytes | memoryview) -> None:
    """Write bytes-like `pieces` one after the other to a raw or a buffered stream; OSError."""
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            written = file.write(rest)
            if written is None:  # a pipe that does not block, and is full
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            rest = rest[written:]


def samples(plane: Plane) -> memoryview:
    """The samples of a plane (h, w), row by row; copied only where they do not lie so."""
    return np.ascontiguousarray(plane).reshape(-1).data


class Sink(ABC):
    """A video being written. As a context manager it finishes at the end of the block, and aborts where that raises.

    `target` is what the user asked for, `path` where it is written meanwhile. Every error of writing is an OutputError; as a
    thread writes, it may come with a later call than that of its frames, `finish` at the latest.
    """

    def __init__(self, target: str, header: Header, overwrite: bool) -> None:
        self.target = target
        self.header = header
        self.path = temporary_name(target)
        self._overwrite = overwrite
        self._notes: list[str] = []
        self._started = False
        self._open = True
        self._patience = PATIENCE
        self._background = Background(self._write_frames, QUEUED)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the output does not carry, one line each; complete after `finish`."""
        return tuple(self._notes)

    def write(self, planes: Planes, pts: Sequence[int]) -> None:
        """Append n frames: three uint8 arrays (n, h, w) of the header's plane shapes, and n times in its ticks.

        The arrays are the sink's from now on: they must not be changed. It lets go of them when they are written.
        """
        expected = [(len(pts), *shape) for shape in self.header.plane_shapes()]
        if [plane.shape for plane in planes] != expected:
            raise ValueError(f"planes of shapes {[plane.shape for plane in planes]}, expected {expected}")
        try:
            self._background.put((planes, pts))
        except OSError as error:
            raise self._failure(error) from error

    def finish(self) -> None:
        """Complete the output and give it its name; no more frames after this."""
        if not self._open:
            return
        try:
            self._background.finish()
            self._ensure_started(())
            self._complete()
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Stop. Nothing stays behind, unless `finish` came first (on standard output, what was written has gone)."""
        if self._open:
            self._open = False
            try:
                self._interrupt()
                if self._background.stop(self._patience):
                    self._release()
            finally:
                discard(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def _write_frames(self, frames: _Frames) -> None:
        planes, pts = frames
        self._ensure_started(pts)
        for index, stamp in enumerate(pts):
            if not self._open:
                return
            self._write_frame((planes[0][index], planes[1][index], planes[2][index]), stamp)

    def _ensure_started(self, pts: Sequence[int]) -> None:
        if not self._started:
            self._started = True
            self._start(pts)

    def _failure(self, error: OSError) -> OutputError:
        return output_error(self.target, error)

    @abstractmethod
    def _start(self, pts: Sequence[int]) -> None:
        """Write what comes before the first frame; `pts` are the times of the first frames, as far as known."""

    @abstractmethod
    def _write_frame(self, frame: Planes, stamp: int) -> None:
        """Write one frame: three arrays (h, w). Called in the thread of the sink, as `_start` is."""

    @abstractmethod
    def _complete(self) -> None:
        """Write what comes after the last frame and publish the output."""

    @abstractmethod
    def _interrupt(self) -> None:
        """End what may keep a write from ending, for all is given up."""

    @abstractmethod
    def _release(self) -> None:
        """Close files and end processes."""
