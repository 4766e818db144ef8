"""The frames of a video one after another as planes: the same ones, cut and scaled as `nvc encode` would, in one pixel format."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from nvc.bitstream.constants import PIXEL_FORMATS
from nvc.bitstream.container import Reader
from nvc.bitstream.errors import ComparisonError, InputError, MachineError, NvcError

from ..ffmpeg import FFmpeg, errors, file_url
from ..metrics import DeepPlane
from ..probe import INPUT_ARGS, RANGES, SHOWINFO, VIDEO_STREAM, parse_frames, probe
from ..sources import open_source
from ..video import ReadOptions, check_frames, check_options, chosen, output_size, read_into, scaling
from .formats import PixelFormat, has_alpha, plane_format
from .inputs import is_nvc
from .process import environment, failure, nvc

Frame = tuple[DeepPlane, ...]
RANGE_NAMES = {number: name for name, number in RANGES.items()}


@dataclass(frozen=True)
class Video:
    """A video before it is read: how ffmpeg gets at its frames, and what these are like.

    `chain` are the filters that take the frames and make them planes of `format`; behind them `width` and `height` hold.
    `notes`: one line for each thing that was converted or left out.
    """

    label: str
    inputs: tuple[str, ...]
    options: ReadOptions
    chain: str
    width: int
    height: int
    format: PixelFormat
    pix_fmt: str  # as it is stored
    matrix: int  # H.273
    full_range: int  # 0 limited, 1 full, 2 unknown: as it is stored
    frame_rate: Fraction | None  # as the container says
    file_bytes: int | None  # None of a folder of pictures
    notes: tuple[str, ...]


@contextlib.contextmanager
def open_video(source: str, options: ReadOptions | None = None, like: Video | None = None) -> Iterator[Video]:
    """A video, an .nvc file, a folder of pictures, or "-", to be read within the block; an .nvc is decoded by a fresh process.

    Of `options` frames, crop, scale and fps hold. The planes are those of the video itself, or in the format of `like`; then
    ComparisonError: `format` where one is RGB and the other is not, `size` where sizes differ. Other errors as read_clip.
    """
    options = options or ReadOptions()
    check_options(options)
    with open_source(source, options.fps) as opened, contextlib.ExitStack() as stack:
        inputs, size = _absolute(opened.inputs), None
        if opened.rate is None:
            path = inputs[-1].removeprefix("file:")
            size = os.path.getsize(path)
            if is_nvc(path):
                inputs = ["-i", file_url(stack.enter_context(decoded(path, opened.label)))]
        found = probe(inputs, opened.label)
        width, height = output_size(found, options, opened.label)
        first = found.first
        try:
            own = plane_format(first.pix_fmt)
        except ComparisonError as error:
            raise ComparisonError("format", f"{opened.label}: {error}") from None
        wanted = like.format if like else own
        scale = [f"scale={':'.join(arguments)}"] if (arguments := scaling(options)) else []
        video = Video(
            label=opened.label,
            inputs=tuple(inputs),
            options=options,
            chain=",".join([*chosen(found, options), *scale, f"format={wanted.accepted}"]),
            width=width,
            height=height,
            format=wanted,
            pix_fmt=first.pix_fmt,
            matrix=first.matrix,
            full_range=first.full_range,
            frame_rate=opened.rate or first.frame_rate,
            file_bytes=size,
            notes=opened.notes,
        )
        if like:
            _check_pair(like, video, own)
        yield replace(video, notes=(*video.notes, *_notes(video, own)))


class FrameReader:
    """The frames of a Video, in order, once; what there is to say is known when the last is read."""

    def __init__(self, video: Video) -> None:
        self._video = video
        self.count = 0
        self.full_range = video.full_range  # of the planes; behind the last frame, as behind a conversion it may differ
        self.notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Frame]:
        """Each frame as planes (h, w) of the format's dtype and shapes; InputError as read_clip."""
        video = self._video
        shapes = video.format.plane_shapes(video.width, video.height)
        sizes = [rows * columns * video.format.dtype.itemsize for rows, columns in shapes]
        chain = ["-vf", f"{video.chain},{SHOWINFO}", "-fps_mode", "passthrough"]
        args = [*INPUT_ARGS, "-noautorotate", *video.inputs, *VIDEO_STREAM, *chain, "-f", "rawvideo", "-"]
        with FFmpeg(args, stdout=True) as ffmpeg:
            while True:
                buffer = bytearray(sum(sizes))
                filled = read_into(ffmpeg.stdout, memoryview(buffer))
                if filled < len(buffer):
                    break
                self.count += 1
                ends = np.cumsum(sizes).tolist()
                cuts = zip(shapes, ends, sizes, strict=True)
                yield tuple(_plane(buffer, video.format, shape, end - size) for shape, end, size in cuts)
            if filled or ffmpeg.wait() != 0:
                raise InputError("decode", f"{video.label}: decoding broke off: {ffmpeg.failure()}")
            self._finish(ffmpeg.log())

    def _finish(self, log: str) -> None:
        video, frames = self._video, parse_frames(log)
        if frames is None or not self.count:
            which = " in the range that was asked for" if video.options.frames else ""
            raise InputError("no_frames", f"{video.label}: no frame{which}")
        check_frames(frames, self.count, (video.width, video.height), video.options, video.label)
        self.full_range = frames.full_range
        if damage := errors(log):
            self.notes = (f"{video.label}: is damaged; ffmpeg reported {len(damage)} errors, the first: {damage[0][:160]}",)


def _plane(buffer: bytearray, form: PixelFormat, shape: tuple[int, int], offset: int) -> DeepPlane:
    plane: DeepPlane = np.frombuffer(buffer, form.dtype, shape[0] * shape[1], offset).reshape(shape)
    return plane


def _absolute(inputs: list[str]) -> list[str]:
    """The same inputs for a process in another folder."""
    return [file_url(os.path.abspath(word[5:])) if word.startswith("file:") else word for word in inputs]


@contextlib.contextmanager
def decoded(path: str, label: str) -> Iterator[str]:
    """The frames of an .nvc file as a video without loss, which a process of its own has decoded."""
    with open(path, "rb") as file:
        rgb = Reader(file).header.pixel_format == PIXEL_FORMATS["rgb24"]
    with tempfile.TemporaryDirectory(prefix="nvc-") as folder:
        target = os.path.join(folder, "decoded.mkv" if rgb else "decoded.y4m")
        command = nvc("decode", "-q", path, target)
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), cwd=folder)
        except OSError as error:
            raise MachineError("process", f"{label}: nvc decode does not start: {error.strerror}") from error
        if done.returncode:
            raise _named(failure("nvc decode", done.returncode, done.stderr.decode("utf-8", "replace")), path, label)
        yield target


def _named(error: NvcError, path: str, label: str) -> NvcError:
    """The same error with the name that the user gave."""
    text = str(error).replace(path, label)
    return type(error)(error.code.partition(".")[2], text if label in text else f"{label}: {text}")


def _check_pair(reference: Video, distorted: Video, own: PixelFormat) -> None:
    if reference.format.rgb != own.rgb:
        kinds = f"{distorted.label}: is {distorted.pix_fmt}, but {reference.label} {reference.pix_fmt}"
        raise ComparisonError("format", f"{kinds}: RGB and YUV do not compare without a loss of their own")
    sizes = [f"{video.width}x{video.height}" for video in (distorted, reference)]
    if sizes[0] != sizes[1]:
        kinds = f"{distorted.label}: is {sizes[0]}, but {reference.label} {sizes[1]}"
        raise ComparisonError("size", f"{kinds}; --scale and --crop change the reference")


def _notes(video: Video, own: PixelFormat) -> Iterator[str]:
    if own != video.format:
        yield f"{video.label}: converted {video.pix_fmt} to {video.format.name}, the format of the reference"
    if has_alpha(video.pix_fmt):
        yield f"{video.label}: left out the alpha channel"
