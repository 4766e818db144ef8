"""The encoders that nvc is held against: one table of frozen settings, and the ffmpeg commands that follow from it.

Two sets. What others call "x265" differs by 40 % in size at equal PSNR, so a figure means nothing without these settings.

user        what people type: preset medium with its default tune, threads and keyframes; of SVT-AV1 preset 8, written out.
            Default tunes trade PSNR for looks. Threads change the bytes a little (x264 of 48 frames of 160x90: by up to 1 %).
benchmark   the encoder at its best for the metric that is measured: veryslow with -tune psnr; of SVT-AV1 preset 4 with tune=1,
            which is PSNR. -g 300: a keyframe at least every 300 frames, as nvc begins a segment. B-frames stay as the preset has
            them: against x265 veryslow -tune psnr, medium with bframes=0, the anchor of many papers, needs 36 to 41 % more bits
            for the same PSNR, medium 20 to 22 %, x264 veryslow -tune psnr 20 to 32 % (two clips 416 wide, 48 frames).
            One thread, so that bytes and seconds do not depend on the cores: x264's frame threads move its size by up to 1 %
            and x265's wavefronts cost it 1.3 to 1.9 % (two clips of 160x90, 48 frames). x265's stream is then the same whatever
            instructions the CPU has, only its info message names them; SVT-AV1's bytes are the same for any lp and CPU.

What a file takes is counted twice: as it lies there, and as elementary stream without the message in which x264 and x265 tell
their settings: 0.7 and 2.3 KB, at low rates as much as a short clip's pictures. A stream is what the standard calls so: of
H.264 and HEVC with start codes and the parameter sets before every keyframe, of AV1 plain OBUs with temporal delimiters.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from .. import abilities
from ..ffmpeg import ffmpeg_exe, file_url
from ..probe import VIDEO_STREAM

SETS: Final = ("user", "benchmark")
_COMPLAINT = re.compile(r"^(?:\[lib\w+ @ \w+\]|x265 \[error\]:|Svt\[error\]:) *(?P<text>\S.*)$", re.MULTILINE)

SOURCE, OUTPUT, RATE = "SOURCE", "OUTPUT", "RATE"  # in the place of what varies, in a command that is shown


@dataclass(frozen=True)
class Anchor:
    """An encoder, its settings in both sets, and how its stream is taken out of its file."""

    id: str
    label: str
    encoder: str
    """As ffmpeg calls it."""
    settings: dict[str, tuple[str, ...]]
    """By set: ffmpeg's options, without the rate."""
    ladder: tuple[int, ...]
    """CRFs from coarse to fine, a quarter to a half apart in size."""
    stream: tuple[str, ...]
    """ffmpeg's output options for the elementary stream without info message."""
    even: bool
    """Takes only even sides of 4:2:0."""
    least: int
    """Samples of the smallest side that it takes."""
    ending: str = ".mp4"


# mp4toannexb is written out: ffmpeg adds it by itself too, but after filter_units, which loses the parameter sets, and not at
# all where the first length happens to look like a start code.
_X264: Final = Anchor(
    id="x264",
    label="x264",
    encoder="libx264",
    settings={
        "user": ("-preset", "medium"),
        "benchmark": ("-preset", "veryslow", "-tune", "psnr", "-g", "300", "-threads", "1"),
    },
    ladder=(51, 48, 45, 42, 39, 36, 33, 30, 27, 24, 21, 18, 15),
    stream=("-bsf:v", "h264_mp4toannexb,filter_units=remove_types=6", "-f", "h264"),  # 6: SEI
    even=True,
    least=2,
)

_X265: Final = Anchor(
    id="x265",
    label="x265",
    encoder="libx265",
    settings={
        "user": ("-preset", "medium"),
        "benchmark": ("-preset", "veryslow", "-tune", "psnr", "-g", "300", "-x265-params", "pools=none:frame-threads=1"),
    },
    ladder=(48, 45, 42, 39, 36, 33, 30, 27, 24, 21, 18, 15),  # 51 is as large as 48, and worse
    stream=("-bsf:v", "hevc_mp4toannexb,filter_units=remove_types=39", "-f", "hevc"),  # 39: prefix SEI
    even=True,
    least=16,
)

_SVTAV1: Final = Anchor(
    id="svtav1",
    label="SVT-AV1",
    encoder="libsvtav1",
    settings={
        "user": ("-preset", "8"),
        "benchmark": ("-preset", "4", "-g", "300", "-svtav1-params", "tune=1:lp=1"),
    },
    ladder=(63, 61, 57, 52, 47, 42, 36, 30, 24, 18, 12),  # 63 is the coarsest that there is; its neighbours lie far apart
    stream=("-f", "obu"),  # it writes no message
    even=False,
    least=1,
)

ANCHORS: Final = {anchor.id: anchor for anchor in (_X264, _X265, _SVTAV1)}


def available() -> frozenset[str]:
    """The ids of the anchors whose encoder this ffmpeg has; MachineError where it cannot be asked."""
    encoders = abilities.names("encoders")
    return frozenset(anchor.id for anchor in ANCHORS.values() if anchor.encoder in encoders)


def refusal(anchor: Anchor, width: int, height: int, have: Collection[str]) -> str:
    """Why there can be no file of this anchor for pictures of `width` x `height` in 4:2:0; empty where there can.

    `have` are the ids that `available` gives. Pictures are never padded or cropped for an anchor: it would code others.
    """
    if anchor.id not in have:
        return f"this ffmpeg has no encoder {anchor.encoder}"
    if min(width, height) < anchor.least:
        return f"{anchor.label} takes no side below {anchor.least} samples; the picture is {width}x{height}"
    if anchor.even and (width % 2 or height % 2):
        return f"{anchor.label} takes only even sides; the picture is {width}x{height}"
    return ""


def complaint(log: str) -> str:
    """What the encoder itself said was wrong, in the `log` of an encode that failed; empty where the failure was another's.

    Other builds than the one that `refusal` was tried with (ffmpeg 9, x264 165, x265 4.3, SVT-AV1 4.2) may take less.
    """
    match = _COMPLAINT.search(log)
    return match["text"].strip() if match else ""


def encode_args(
    anchor: Anchor, settings: str, crf: int | str, source: str, output: str, *, variable_rate: bool = False
) -> list[str]:
    """The command that encodes the first video of `source` with the `settings` of a set: every frame, no other, as it is coded.

    ffmpeg gives frames time stamps on the grid of the frame rate, on which those of a variable rate would fall together:
    with `variable_rate` it keeps the source's clock. The first stamp becomes 0. An `output` that exists is replaced.
    """
    clock = ("-enc_time_base", "demux") if variable_rate else ()
    frames = (*VIDEO_STREAM, "-fps_mode", "passthrough", *clock)
    quality = ("-c:v", anchor.encoder, *anchor.settings[settings], "-crf", str(crf))
    return [ffmpeg_exe(), "-y", "-v", "error", "-noautorotate", "-i", _name(source), *frames, *quality, _name(output)]


def elementary_args(anchor: Anchor, file: str, stream: str) -> list[str]:
    """The command that writes the elementary stream of an encoded `file`, without info message, to `stream`, replacing it."""
    copy = (*VIDEO_STREAM, "-c:v", "copy", *anchor.stream)
    return [ffmpeg_exe(), "-y", "-v", "error", "-i", _name(file), *copy, _name(stream)]


def template(anchor: Anchor, settings: str) -> str:
    """The encode as text, with RATE for the CRF, SOURCE and OUTPUT."""
    return text(encode_args(anchor, settings, RATE, SOURCE, OUTPUT + anchor.ending))


def text(args: list[str]) -> str:
    """A command of this module as one types it."""
    return shlex.join(["ffmpeg", *args[1:]])


def _name(path: str) -> str:
    """A path as ffmpeg must be told it: as it is where it can be taken for nothing else, for the sake of those who read it."""
    return path if re.fullmatch(r"[\w./][\w./-]*", path) else file_url(path)
