"""What every video output has in common: it takes frames, appears when complete, and tells what it could not carry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from nvc.bitstream.errors import OutputError
from nvc.bitstream.header import Header

from .metrics import Planes
from .outputs import discard, output_error, temporary_name


class Sink(ABC):
    """A video being written. As a context manager it finishes at the end of the block, and aborts where that raises.

    `target` is what the user asked for, `path` where it is written meanwhile. Every error of writing is an OutputError.
    """

    def __init__(self, target: str, header: Header, overwrite: bool) -> None:
        self.target = target
        self.header = header
        self.path = temporary_name(target)
        self._overwrite = overwrite
        self._notes: list[str] = []
        self._started = False
        self._open = True

    @property
    def notes(self) -> tuple[str, ...]:
        """What the output does not carry, one line each; complete after `finish`."""
        return tuple(self._notes)

    def write(self, planes: Planes, pts: Sequence[int]) -> None:
        """Append n frames: three uint8 arrays (n, h, w) of the header's plane shapes, and n times in its ticks."""
        expected = [(len(pts), *shape) for shape in self.header.plane_shapes()]
        if [plane.shape for plane in planes] != expected:
            raise ValueError(f"planes of shapes {[plane.shape for plane in planes]}, expected {expected}")
        try:
            self._ensure_started(pts)
            for index, stamp in enumerate(pts):
                self._write_frame((planes[0][index], planes[1][index], planes[2][index]), stamp)
        except OSError as error:
            raise self._failure(error) from error

    def finish(self) -> None:
        """Complete the output and give it its name; no more frames after this."""
        if not self._open:
            return
        try:
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
        """Write one frame: three arrays (h, w)."""

    @abstractmethod
    def _complete(self) -> None:
        """Write what comes after the last frame and publish the output."""

    @abstractmethod
    def _release(self) -> None:
        """Close files and end processes."""
