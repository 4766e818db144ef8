"""Video in: a file, standard input or a folder of pictures becomes planes, time stamps and a header.

Planes are as decoded and in *coded* orientation: a rotation or mirror is not applied but stored (`Header.orientation`),
so crop and scale also speak of the coded picture. Time zero is the start of the container, as ffmpeg counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import IO

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream.constants import PIXEL_FORMATS
from nvc.bitstream.errors import InputError, MachineError, UsageError
from nvc.bitstream.header import Header

from .ffmpeg import FFmpeg, errors
from .metrics import Planes
from .probe import INPUT_ARGS, MATRICES, SHOWINFO, VIDEO_STREAM, Frames, Probe, parse_frames, probe
from .sources import Source, open_source
from .timing import Timing, timing

_LARGEST_SIDE = 65535  # a header stores width and height in 16 bits
_HD_HEIGHT = 720  # from here on untagged video is taken as BT.709, below as BT.601: what players guess
_RGB = re.compile(r"(0|x2|a)?(rgb|bgr|gbr)|pal8|bayer")
_ALPHA = re.compile(r"(a(rgb|bgr)|rgba|bgra|gbrap|yuva|ya\d|ayuv|vuya|pal8)")


@dataclass(frozen=True)
class Clip:
    """A video in memory.

    `planes`: three uint8 arrays (T, h, w) with the shapes of `header.plane_shapes()`; they are views of one buffer that
    holds frame after frame, so each frame of each is contiguous. `pts`: T time stamps in ticks of `header.time_base`.
    `notes`: one line for each thing that was converted or left out.
    """

    header: Header
    planes: Planes
    pts: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ReadOptions:
    """What to read of a source, and as what. The order is: frames, crop, scale, pixel format."""

    frames: tuple[int, int | None] | None = None  # half-open range of source frames; None = to the end
    crop: tuple[int, int] | None = None  # (width, height), centred
    scale: tuple[int, int] | None = None  # (width, height), by ffmpeg's scale=W:H:flags=bicubic
    pix_fmt: str = "yuv420p"  # or rgb24
    fps: Fraction | None = None  # of a folder of pictures, and only there


def read_clip(source: str, options: ReadOptions | None = None) -> Clip:
    """Read `source`: a file, "-" for standard input, or a folder of numbered pictures.

    InputError where it cannot be read: `missing`, `empty`, `no_images`, `mixed_images`, `not_video`, `no_video`,
    `no_frames`, `size_changes`, `format_changes`, `too_large`, `decode`, `stdin`. UsageError for options that make no
    sense, MachineError without ffmpeg or memory.
    """
    options = options or ReadOptions()
    check_options(options)
    with open_source(source, options.fps) as opened:
        found = probe(opened.inputs, opened.label)
        width, height = output_size(found, options, opened.label)
        buffer, log = _decode(opened, found, options, (width, height))
    count = len(buffer)
    frames = parse_frames(log)
    if frames is None or count == 0:
        raise InputError("no_frames", f"{opened.label}: {_no_frames(options)}")
    check_frames(frames, count, (width, height), options, opened.label)
    when = _timing(frames, opened.rate, options)
    header = _header(found, frames, when, options, width, height)
    notes = (*opened.notes, *found.notes, *when.notes, *_notes(found, frames, options, header, count))
    if damage := errors(log):
        notes += (f"the source is damaged; ffmpeg reported {len(damage)} errors, the first: {damage[0][:160]}",)
    return Clip(header, _planes(buffer, header), when.pts, notes)


def check_options(options: ReadOptions) -> None:
    """UsageError for options that make no sense, whatever the source."""
    if options.pix_fmt not in PIXEL_FORMATS:
        raise UsageError("pix_fmt", f"pixel format {options.pix_fmt}: must be one of {', '.join(PIXEL_FORMATS)}")
    if options.fps is not None and not 0 < options.fps <= 65535:
        raise UsageError("fps", f"frame rate {options.fps}: must be above 0 and at most 65535")
    for name, size in (("crop", options.crop), ("scale", options.scale)):
        if size and not all(0 < side <= _LARGEST_SIDE for side in size):
            raise UsageError(name, f"{name} to {size[0]}x{size[1]}: each side must be in 1..{_LARGEST_SIDE}")
    if options.frames:
        start, end = options.frames
        if start < 0 or (end is not None and end <= start):
            raise UsageError("frames", f"frames {_range_text(options.frames)}: must be A:B with 0 <= A < B")


def _range_text(frames: tuple[int, int | None]) -> str:
    return f"{frames[0]}:{'' if frames[1] is None else frames[1]}"


def _no_frames(options: ReadOptions) -> str:
    if options.frames and options.frames[0]:
        return f"no frames in {_range_text(options.frames)}: the video is shorter"
    return "no frame of it decodes"


def output_size(found: Probe, options: ReadOptions, label: str) -> tuple[int, int]:
    """(width, height) of what is read; UsageError `crop` where the picture is smaller, InputError `too_large`."""
    size = (found.width, found.height)
    if options.crop:
        if options.crop[0] > found.width or options.crop[1] > found.height:
            crop = f"{options.crop[0]}x{options.crop[1]}"
            raise UsageError("crop", f"{label}: is {found.width}x{found.height} as coded, too small to crop to {crop}")
        size = options.crop
    size = options.scale or size
    if max(size) > _LARGEST_SIDE:
        raise InputError("too_large", f"{label}: {size[0]}x{size[1]}; each side may have {_LARGEST_SIDE} samples")
    return size


def chosen(found: Probe, options: ReadOptions) -> list[str]:
    """The filters that take the frames and the crop of `options`."""
    chain = []
    if options.frames:
        start, end = options.frames
        chain.append(f"trim=start_frame={start}" + ("" if end is None else f":end_frame={end}"))
    if options.crop:
        # An even offset keeps chroma aligned with luma; exact=1 allows odd sizes.
        step = 1 if _RGB.match(found.first.pix_fmt) else 2
        crop_width, crop_height = options.crop
        x = (found.width - crop_width) // 2 // step * step
        y = (found.height - crop_height) // 2 // step * step
        chain.append(f"crop={crop_width}:{crop_height}:{x}:{y}:exact=1")
    return chain


def scaling(options: ReadOptions) -> list[str]:
    """The arguments of the one scaler that all of nvc uses; none where the size stays."""
    return [f"{options.scale[0]}:{options.scale[1]}:flags=bicubic"] if options.scale else []


def filters(found: Probe, options: ReadOptions, height: int) -> str:
    """The filter chain that makes what is encoded, of a final `height`: frames, crop, scale, pixel format."""
    chain, scale = chosen(found, options), scaling(options)
    if options.pix_fmt == "rgb24":
        wanted = "rgb24"
    elif _RGB.match(found.first.pix_fmt):
        scale.append(f"out_color_matrix={_matrix_for(height)}:out_range=tv")
        wanted = "yuv420p"
    elif found.first.pix_fmt.startswith("yuvj"):
        wanted = "yuv420p|yuvj420p"  # how older ffmpegs mark full range; without it they would convert to limited
    else:
        wanted = "yuv420p"
    if scale:
        chain.append("scale=" + ":".join(scale))
    return ",".join([*chain, f"format={wanted}"])


def _matrix_for(height: int) -> str:
    return "bt709" if height >= _HD_HEIGHT else "smpte170m"


def _decode(source: Source, found: Probe, options: ReadOptions, size: tuple[int, int]) -> tuple[NDArray[np.uint8], str]:
    """All frames as rows (T, bytes of a frame), and ffmpeg's log."""
    width, height = size
    shape = Header(width, height, PIXEL_FORMATS[options.pix_fmt]).plane_shapes()
    frame_bytes = sum(h * w for h, w in shape)
    # showinfo last, because it reports what comes out
    chain = ["-vf", f"{filters(found, options, height)},{SHOWINFO}", "-fps_mode", "passthrough"]
    args = [*INPUT_ARGS, "-noautorotate", *source.inputs, *VIDEO_STREAM, *chain, "-f", "rawvideo", "-"]
    with FFmpeg(args, stdout=True) as ffmpeg:
        try:
            buffer = _read_rows(ffmpeg.stdout, frame_bytes)
        except MemoryError as error:
            message = f"{source.label}: out of memory; read fewer frames of {width}x{height}"
            raise MachineError("memory", message) from error
        if buffer is None or ffmpeg.wait() != 0:
            raise InputError("decode", f"{source.label}: decoding broke off: {ffmpeg.failure()}")
        return buffer, ffmpeg.log()


def _read_rows(pipe: IO[bytes], row_bytes: int) -> NDArray[np.uint8] | None:
    """Everything from a pipe as (rows, row_bytes), read in place; None where the last row is incomplete."""
    buffer = np.empty((16, row_bytes), np.uint8)
    rows = 0
    while True:
        if rows == len(buffer):
            # In place, so that growing needs no second copy; by half, so that at most a third is left unused.
            buffer.resize((rows + rows // 2, row_bytes), refcheck=False)
        filled = read_into(pipe, memoryview(buffer[rows]))
        if filled < row_bytes:
            break
        rows += 1
    buffer.resize((rows, row_bytes), refcheck=False)
    return None if filled else buffer


def read_into(pipe: IO[bytes], view: memoryview) -> int:
    """Fill `view` from a pipe; how many bytes there were before it ended."""
    filled = 0
    while filled < len(view):
        got: int = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            break
        filled += got
    return filled


def check_frames(frames: Frames, count: int, size: tuple[int, int], options: ReadOptions, label: str) -> None:
    """InputError where what showinfo saw are not `count` frames of one size, or not those that were asked for."""
    if frames.sizes != {size}:
        sizes = ", ".join(f"{w}x{h}" for w, h in sorted(frames.sizes))
        raise InputError("size_changes", f"{label}: the picture size changes ({sizes}); cut it there, or scale it")
    if options.frames and frames.configurations > 1:
        # ffmpeg then counts the frames of a range anew.
        raise InputError("format_changes", f"{label}: its pixel format changes; read it without a frame range")
    if len(frames.pts) != count:
        raise InputError("decode", f"{label}: {count} frames decoded but {len(frames.pts)} time stamps reported")


def _timing(frames: Frames, rate: Fraction | None, options: ReadOptions) -> Timing:
    """Timing of the frames read; a folder of pictures has only a rate."""
    if rate is None:
        return timing(frames.pts, frames.time_base, frames.frame_rate)
    start = options.frames[0] if options.frames else 0
    return Timing(1 / rate, rate, tuple(range(start, start + len(frames.pts))))


def _header(found: Probe, frames: Frames, when: Timing, options: ReadOptions, width: int, height: int) -> Header:
    header = Header(
        width=width,
        height=height,
        pixel_format=PIXEL_FORMATS[options.pix_fmt],
        primaries=frames.primaries,
        transfer=frames.transfer,
        matrix=frames.matrix,
        full_range=frames.full_range,
        chroma_location=frames.chroma_location,
        orientation=found.orientation,
        par=frames.par,
        time_base=when.time_base,
        frame_rate=when.frame_rate,
        frame_count=len(when.pts),
        first_pts=when.pts[0],
    )
    if options.pix_fmt == "rgb24":
        return replace(header, matrix=MATRICES["gbr"], full_range=1, chroma_location=0)
    if _RGB.match(found.first.pix_fmt):
        return replace(header, matrix=MATRICES[_matrix_for(height)], full_range=0)
    return header


def _notes(found: Probe, frames: Frames, options: ReadOptions, header: Header, count: int) -> Iterator[str]:
    source = found.first.pix_fmt
    if source.replace("yuvj", "yuv") != options.pix_fmt:
        matrix = ""
        if _RGB.match(source) and options.pix_fmt == "yuv420p":
            matrix = f" with the {'BT.709' if header.matrix == MATRICES['bt709'] else 'BT.601'} matrix, limited range"
        yield f"converted {source} to {options.pix_fmt}{matrix}"
    if _ALPHA.match(source):
        yield "left out: the alpha channel"
    if frames.interlaced:
        yield "the source is interlaced: its frames are taken as they are, two fields each"
    if options.frames and options.frames[1] is not None and count < options.frames[1] - options.frames[0]:
        yield f"asked for frames {_range_text(options.frames)}, but the video has only {options.frames[0] + count}"


def _planes(buffer: NDArray[np.uint8], header: Header) -> Planes:
    """The three planes as views of rows that hold whole frames; packed RGB is made planar in place."""
    count = len(buffer)
    shapes = header.plane_shapes()
    if header.pixel_format == PIXEL_FORMATS["rgb24"]:
        for row in buffer:
            row[:] = row.reshape(-1, 3).T.copy().reshape(-1)
    ends = np.cumsum([h * w for h, w in shapes]).tolist()
    cuts = zip(shapes, ends, strict=True)
    first, second, third = (buffer[:, end - h * w : end].reshape(count, h, w) for (h, w), end in cuts)
    return first, second, third
