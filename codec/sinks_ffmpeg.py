"""The outputs that ffmpeg writes: Matroska, MP4 and folders of pictures, with every tag that they can carry."""

from __future__ import annotations

import os
import re
import struct
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from nvc.bitstream.constants import PIXEL_FORMATS
from nvc.bitstream.errors import OutputError
from nvc.bitstream.header import Header

from .ffmpeg import FFmpeg, file_url
from .metrics import Planes
from .orientation import ORIENTATIONS
from .outputs import discard, publish, publish_folder, temporary_name
from .probe import MATRICES, PRIMARIES, TRANSFERS
from .sink import Sink, samples, write_all

_UNSPECIFIED = 2  # H.273
_LIMITED, _FULL = 1, 2  # AVColorRange; unspecified is written as limited, which players take it for
_NO_BOTTOM = (5, 6)  # chroma locations that Matroska has no value for
_LARGEST_FRAME = 2**31 - 1  # ffmpeg's largest packet
_SLICED_SIDE = 64
_FRAME_FILE = re.compile(r"\d{5,}\.png")


class _FFmpegSink(Sink):
    """An output behind an ffmpeg that reads IVF from a pipe: the plainest container that gives raw frames a time."""

    def __init__(self, target: str, header: Header, overwrite: bool) -> None:
        super().__init__(target, header, overwrite)
        self._rgb = header.pixel_format == PIXEL_FORMATS["rgb24"]
        self._frame_bytes = sum(h * w for h, w in header.plane_shapes())
        if self._frame_bytes > _LARGEST_FRAME:
            size = f"{header.width}x{header.height}"
            raise OutputError("too_large", f"{target}: {size} is too large for ffmpeg; write a .yuv")
        # ffmpeg must store the rotation, not apply it.
        orientation = ["-noautorotate", *ORIENTATIONS[header.orientation].args]
        # told, because of a container's names for raw video ffmpeg knows but those of packed RGB
        source = [*orientation, "-c:v", "rawvideo", "-f", "ivf", "-i", "pipe:0", "-fps_mode", "passthrough", "-copyts"]
        filters = ["-vf", ",".join([*_tags(header), *self._filters()])]
        try:
            self._ffmpeg = FFmpeg([*source, *filters, *self._output()], stdin=True, cwd=self._directory())
        except BaseException:
            discard(self.path)
            raise

    def _directory(self) -> str | None:
        """The folder in which ffmpeg runs."""
        return None

    @abstractmethod
    def _filters(self) -> list[str]:
        """Filters after those that tag the frames; also the place to add notes on what they do."""

    @abstractmethod
    def _output(self) -> list[str]:
        """ffmpeg's output options and output."""

    def _start(self, pts: Sequence[int]) -> None:
        fourcc = b"G3\x00\x08" if self._rgb else b"I420"  # as NUT calls planes G, B, R of 8 bits
        num, den = self.header.time_base.as_integer_ratio()
        size = (self.header.width, self.header.height)
        head = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, fourcc, *size, den, num, 0, 0)
        write_all(self._ffmpeg.stdin, head)

    def _write_frame(self, frame: Planes, stamp: int) -> None:
        head = struct.pack("<Iq", self._frame_bytes, stamp)
        first, second, third = frame
        planes = (second, third, first) if self._rgb else frame
        write_all(self._ffmpeg.stdin, head, *map(samples, planes))

    def _complete(self) -> None:
        if self._ffmpeg.wait() != 0:
            raise BrokenPipeError
        self._publish()

    def _publish(self) -> None:
        publish(self.path, self.target, self._overwrite)

    def _interrupt(self) -> None:
        self._ffmpeg.kill()

    def _release(self) -> None:
        self._ffmpeg.__exit__()

    def _failure(self, error: OSError) -> OutputError:
        """A broken pipe is ffmpeg's failure, and ffmpeg tells why."""
        if not isinstance(error, BrokenPipeError):
            return super()._failure(error)
        self._ffmpeg.wait()
        reason = "disk_full" if "No space left" in self._ffmpeg.log() else "ffmpeg"
        return OutputError(reason, f"{self.target}: {self._ffmpeg.failure()}")


def _tags(header: Header) -> list[str]:
    """Filters that tag the frames as the header says; code points that ffmpeg does not name become unspecified."""
    primaries = header.primaries if header.primaries in PRIMARIES.values() else _UNSPECIFIED
    transfer = header.transfer if header.transfer in TRANSFERS.values() else _UNSPECIFIED
    matrix = header.matrix if header.matrix in MATRICES.values() else _UNSPECIFIED
    tags = {
        "range": _FULL if header.full_range == 1 or header.pixel_format == PIXEL_FORMATS["rgb24"] else _LIMITED,
        "color_primaries": primaries,
        "color_trc": transfer,
        "colorspace": matrix,
        "chroma_location": header.chroma_location,
    }
    filters = ["setparams=" + ":".join(f"{name}={value}" for name, value in tags.items())]
    if header.par:
        # Without max, setsar rounds to terms of at most 100.
        filters.append(f"setsar=r={header.par.numerator}/{header.par.denominator}:max={2**31 - 1}")
    return filters


class MatroskaSink(_FFmpegSink):
    """`.mkv`: FFV1, exact.

    ffmpeg gives its FFV1 encoder limited range only and silently converts full-range Y'CbCr, which loses samples. So such
    frames are encoded under the wrong tag, which the copy at the end sets right.
    """

    def __init__(self, target: str, header: Header, overwrite: bool) -> None:
        self._retag = header.full_range == 1 and header.pixel_format == PIXEL_FORMATS["yuv420p"]
        super().__init__(target, replace(header, full_range=0) if self._retag else header, overwrite)

    def _filters(self) -> list[str]:
        if self.header.chroma_location in _NO_BOTTOM:
            self._notes.append("Matroska does not carry a chroma location at the bottom")
        if self.header.frame_rate is None and (self.header.time_base * 1000).denominator != 1:
            self._notes.append("Matroska rounds time stamps to 1 ms")
        # bgr0 is FFV1's 8-bit RGB; the step from planes only moves bytes.
        return ["format=bgr0"] if self._rgb else []

    def _output(self) -> list[str]:
        # FFV1 cuts pictures into slices for its threads, and refuses sizes such as 1x2 or 5x31, where none would fit.
        slices = ["-slices", "1"] if min(self.header.width, self.header.height) < _SLICED_SIDE else []
        return ["-c:v", "ffv1", *slices, "-enc_time_base", "demux", "-f", "matroska", file_url(self.path)]

    def _publish(self) -> None:
        if self._retag:
            encoded, self.path = self.path, temporary_name(self.target)
            copy = ["-copyts", "-i", file_url(encoded), "-c", "copy", "-color_range", "pc"]
            try:
                with FFmpeg([*copy, "-f", "matroska", file_url(self.path)]) as ffmpeg:
                    if ffmpeg.wait() != 0:
                        raise OutputError("ffmpeg", f"{self.target}: {ffmpeg.failure()}")
            finally:
                discard(encoded)
        super()._publish()


class Mp4Sink(_FFmpegSink):
    """`.mp4`: H.264 that every player shows; CRF 12 is where x264's own loss is invisible beside that of the video."""

    def _filters(self) -> list[str]:
        self._notes.append("MP4 is a second, lossy encoding (H.264, CRF 12); write a .mkv for the exact frames")
        if self._rgb:
            self._notes.append("RGB is converted to yuv444p with the BT.709 matrix, limited range")
            convert = "scale=out_color_matrix=bt709:out_range=tv,format=yuv444p"
            return [convert, "setparams=colorspace=bt709:range=tv"]
        if self.header.width % 2 or self.header.height % 2:
            self._notes.append("written as yuv444p, because H.264 4:2:0 needs even sides")
            return ["format=yuv444p|yuvj444p"]
        return ["format=yuv420p|yuvj420p"]

    def _output(self) -> list[str]:
        codec = ["-c:v", "libx264", "-preset", "medium", "-crf", "12", "-enc_time_base", "demux"]
        return [*codec, "-movflags", "+faststart", "-f", "mp4", file_url(self.path)]


class FolderSink(_FFmpegSink):
    """A folder of PNG, numbered from 1."""

    def _directory(self) -> str:
        # ffmpeg runs in the folder, so that a percent sign in its path is not taken for a pattern.
        try:
            os.mkdir(self.path)
        except OSError as error:
            raise super()._failure(error) from error
        return self.path

    def _filters(self) -> list[str]:
        if not self._rgb:
            names = {code: name for name, code in MATRICES.items()}
            matrix = names.get(self.header.matrix, "unspecified matrix, taken as BT.601")
            self._notes.append(f"PNG: converted to RGB ({matrix}), which is not exact")
        if self.header.orientation != 1:
            self._notes.append("PNG does not carry the rotation: frames come as they are coded")
        return ["format=rgb24"]

    def _output(self) -> list[str]:
        return ["-c:v", "png", "-f", "image2", "-start_number", "1", "%05d.png"]

    def _publish(self) -> None:
        publish_folder(self.path, self.target, frame_files(self.target))


def frame_files(folder: str) -> list[str]:
    """The names in a folder; OutputError where one is not a frame that this sink could have written."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if others := [name for name in names if not _FRAME_FILE.fullmatch(name)]:
        raise OutputError("not_frames", f"{folder}: holds {others[0]}, which is no numbered PNG; use an empty folder")
    return names
