"""The outputs that need no ffmpeg: Y4M and bare samples, to a file or to standard output."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import IO

from nvc.bitstream.constants import PIXEL_FORMATS
from nvc.bitstream.errors import OutputError, UsageError
from nvc.bitstream.header import Header

from .metrics import Planes
from .outputs import publish
from .sink import Sink, samples, write_all
from .timing import DEFAULT_RATE

_UNSPECIFIED = 2  # H.273
_CHROMA = {1: "420mpeg2", 3: "420paldv"}  # all others 420jpeg, as ffmpeg writes
_RANGE = {0: " XCOLORRANGE=LIMITED", 1: " XCOLORRANGE=FULL", 2: ""}


class RawSink(Sink):
    """`.yuv`: the samples alone."""

    def __init__(self, target: str, header: Header, overwrite: bool) -> None:
        super().__init__(target, header, overwrite)
        self._file: IO[bytes]
        if target == "-" and sys.stdout is None:
            raise OutputError("stdout", "standard output is closed")
        try:
            self._file = _standard_output() if target == "-" else open(self.path, "xb", buffering=0)  # noqa: SIM115 (_release)
        except OSError as error:
            raise self._failure(error) from error
        if target == "-":
            self._patience = 0.0  # a reader may have stopped reading for good, and nothing has to be put in order
        self._tell_losses()

    def _tell_losses(self) -> None:
        layout = "Y, Cb, Cr" if self.header.pixel_format == PIXEL_FORMATS["yuv420p"] else "R, G, B"
        size = f"{self.header.width}x{self.header.height}"
        self._notes.append(f"raw samples of {size} frames, planes {layout} one after the other, and nothing else")

    def _start(self, pts: Sequence[int]) -> None:
        pass

    def _write_frame(self, frame: Planes, stamp: int) -> None:
        write_all(self._file, *map(samples, frame))

    def _complete(self) -> None:
        if self.target == "-":
            self._file.flush()
        else:
            self._file.close()
            publish(self.path, self.target, self._overwrite)

    def _interrupt(self) -> None:
        pass  # a write to a file ends by itself, and one to standard output is left to itself

    def _release(self) -> None:
        if self.target != "-":
            with contextlib.suppress(OSError):  # a full disk says so again, for what is still in the buffer
                self._file.close()


class Y4mSink(RawSink):
    """`.y4m` and standard output: YUV4MPEG2, the form of uncompressed video that all encoders read."""

    def __init__(self, target: str, header: Header, overwrite: bool) -> None:
        if header.pixel_format != PIXEL_FORMATS["yuv420p"]:
            raise UsageError("y4m_rgb", f"{target}: Y4M cannot hold RGB; write a .mkv (exact) or a folder of PNG")
        super().__init__(target, header, overwrite)

    def _tell_losses(self) -> None:
        header = self.header
        tags = {"primaries": header.primaries, "transfer": header.transfer, "matrix": header.matrix}
        if lost := [name for name, code in tags.items() if code != _UNSPECIFIED]:
            self._notes.append(f"Y4M does not carry the colour {', '.join(lost)}")
        if header.chroma_location not in (0, 2, *_CHROMA):
            self._notes.append("Y4M does not carry this chroma location; it is written as centre")
        if header.orientation != 1:
            self._notes.append("Y4M does not carry the rotation: frames come as they are coded")

    def _start(self, pts: Sequence[int]) -> None:
        header, rate = self.header, self.header.frame_rate
        if rate is None:
            rate = _average_rate(pts, header.time_base)
            self._notes.append(f"Y4M does not carry a variable frame rate; written with {float(rate):.6g} per second")
        chroma = _CHROMA.get(header.chroma_location, "420jpeg")
        par = ":".join(str(term) for term in header.par.as_integer_ratio()) if header.par else "0:0"
        line = f"YUV4MPEG2 W{header.width} H{header.height} F{rate.numerator}:{rate.denominator} Ip A{par} C{chroma}"
        write_all(self._file, f"{line}{_RANGE[header.full_range]}\n".encode())

    def _write_frame(self, frame: Planes, stamp: int) -> None:
        write_all(self._file, b"FRAME\n", *map(samples, frame))


def _standard_output() -> IO[bytes]:
    """Standard output without its buffer, which a thread that is stuck in it would keep from being closed at the end."""
    sys.stdout.buffer.flush()
    raw: IO[bytes] = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    return raw


def _average_rate(pts: Sequence[int], time_base: Fraction) -> Fraction:
    """Mean rate of the first frames, to a thousandth: what a header before the frames can say of a varying one."""
    if len(pts) < 2 or pts[-1] <= pts[0]:
        return DEFAULT_RATE
    return max(Fraction(1, 1000), Fraction(round((len(pts) - 1) * 1000 / ((pts[-1] - pts[0]) * time_base)), 1000))
