"""What the page shows of the frames: which of them, beside which anchors, and as PNG pictures."""

from __future__ import annotations

import math
import os
import shlex
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nvc.bitstream.errors import InputError

from ..ffmpeg import FFmpeg, file_url
from ..probe import INPUT_ARGS, MATRICES, RANGES, VIDEO_STREAM

Run = Mapping[str, Any]  # one of `runs` of results.schema.json

MOST_FRAMES = 5
_HD_LINES = 720  # from here on untagged video is taken as BT.709, below as BT.601: what players guess
# The matrices that swscale knows, by H.273 code point, under its own names. Anything else is taken as untagged.
_SWSCALE = {MATRICES[name]: name for name in ("bt709", "fcc", "bt470bg", "smpte170m", "smpte240m")}
_SWSCALE |= {MATRICES["bt2020nc"]: "bt2020", MATRICES["bt2020c"]: "bt2020"}
_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")  # length of the data, type; data and 4 bytes of CRC follow


@dataclass(frozen=True)
class Colour:
    """How YUV becomes RGB on the page: a matrix by swscale's name, and whether samples span the full range.

    It is that of the source clip, and it is forced upon all that is shown beside it, so that a tag which one encoder drops
    does not look like a loss. (A file that calls limited samples full is refused before: the `alignment` of the two fails.)
    """

    matrix: str
    full_range: bool

    @classmethod
    def of(cls, matrix: int, full_range: int, height: int) -> Colour:
        """From the H.273 code points of the source (`probe.Frames`, `Header`); unknown range counts as limited."""
        guess = "bt709" if height >= _HD_LINES else "smpte170m"
        return cls(_SWSCALE.get(matrix, guess), full_range == RANGES["pc"])


def choose(runs: Sequence[Run]) -> list[int]:
    """The frames of one clip that are shown, ascending, at least one and at most MOST_FRAMES, from all runs of that clip.

    The worst, the median and the best by PSNR-Y (RGB-PSNR of RGB clips) of the middle-rate nvc run, which of several nvc
    codecs is of the first; then first frames of its later segments, those of the lowest PSNR first. Of equal frames the
    earlier counts as worse. Without an nvc run the middle one of all runs decides.
    """
    networks = [run for run in runs if run["nvc"]]
    candidates = [run for run in networks if run["codec"] == networks[0]["codec"]] or list(runs)
    middle = sorted(candidates, key=lambda run: int(run["bytes"]))[len(candidates) // 2]
    scores = middle["frames"].get("psnr_y") or middle["frames"]["psnr_rgb"]
    order = sorted(range(len(scores)), key=lambda frame: (scores[frame], frame))
    shown = {order[0], order[(len(order) - 1) // 2], order[-1]}
    borders = set(middle["nvc"]["segments"]) - {0} if middle["nvc"] else set()
    for frame in order:
        if frame in borders and len(shown) < MOST_FRAMES:
            shown.add(frame)
    return sorted(shown)


def nearest(runs: Iterable[Run], nvc_run: Run) -> dict[str, Run]:
    """Of every anchor the run of the same clip whose `bytes` are nearest to those of `nvc_run` by ratio, by codec.

    The first of the dictionary is the nearest of all, the last the farthest. Of two equally near the smaller one is taken.
    """

    def distance(run: Run) -> float:
        return abs(math.log(run["bytes"] / nvc_run["bytes"]))

    anchors = [run for run in runs if run["nvc"] is None and run["clip"] == nvc_run["clip"]]
    found: dict[str, Run] = {}
    for run in sorted(anchors, key=lambda run: (distance(run), run["bytes"])):
        found.setdefault(run["codec"], run)
    return found


def shown_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs of which the page wants pictures: all of nvc, and what is nearest to one of them; in the order of `runs`."""
    wanted = {id(run) for run in runs if run["nvc"]}
    wanted |= {id(near) for run in runs if run["nvc"] for near in nearest(runs, run).values()}
    return [run for run in runs if id(run) in wanted]


def command(video: str, frame: str, colour: Colour) -> str:
    """What a reader would type to get one frame, counted from 0, as on the page: swscale's bicubic scaler, which gives chroma the
    size of luma, with exact rounding (accurate_rnd) and all of chroma on both sides (full_chroma_inp, full_chroma_int), to 8-bit
    full-range RGB. Orientation is not applied.
    """
    return shlex.join(["ffmpeg", *_arguments(video, [frame], colour), "-c:v", "png", "-f", "image2pipe", "frame.png"])


def _arguments(video: str, frames: Sequence[int | str], colour: Colour) -> list[str]:
    """The one conversion there is."""
    picked = "+".join(f"eq(n,{frame})" for frame in frames)
    scale = [
        f"in_color_matrix={colour.matrix}",
        f"in_range={'full' if colour.full_range else 'limited'}",
        "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp",
    ]
    filters = f"select='{picked}',scale={':'.join(scale)},format=rgb24"
    return ["-noautorotate", "-i", video, *VIDEO_STREAM, "-vf", filters, "-fps_mode", "passthrough"]


def pictures(video: str, frames: Iterable[int], colour: Colour) -> dict[int, bytes]:
    """PNG files (8-bit RGB) of `frames` of a video that ffmpeg reads, by frame, in one pass.

    Only chunks that hold the picture are kept, so that neither a colour tag nor a pixel aspect makes a browser show one
    codec in another way than the next. InputError where the video does not decode or has no such frame.
    """
    wanted = sorted(set(frames))
    if not wanted:
        return {}
    output = ["-c:v", "png", "-pred", "mixed", "-f", "image2pipe", "-"]
    with FFmpeg([*INPUT_ARGS, *_arguments(file_url(video), wanted, colour), *output], stdout=True) as ffmpeg:
        stream = b"".join(iter(lambda: ffmpeg.stdout.read(1 << 20), b""))
        name = os.path.basename(video)
        if ffmpeg.wait() != 0:
            raise InputError("decode", f"{name}: decoding broke off: {ffmpeg.failure()}")
    found = list(_split(stream))
    if len(found) != len(wanted):
        raise InputError("frames", f"{name}: has {len(found)} of the frames {', '.join(map(str, wanted))}")
    return dict(zip(wanted, found, strict=True))


def _split(stream: bytes) -> Iterator[bytes]:
    """The PNG files of a stream that is nothing but such, without their ancillary chunks."""
    at = 0
    while at < len(stream):
        at += len(_PNG)
        kept, kind = [_PNG], b""
        while kind != b"IEND":
            length, kind = _CHUNK.unpack_from(stream, at)
            end = at + _CHUNK.size + length + 4
            if kind[:1].isupper():  # critical, by the naming rule of PNG
                kept.append(stream[at:end])
            at = end
        yield b"".join(kept)
