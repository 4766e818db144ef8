"""What ffmpeg says about a source, read from its log: streams, orientation, and the `showinfo` line of every frame."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream.errors import InputError

from .ffmpeg import FFmpeg, messages
from .orientation import identify

# 0:V:0 is the first video stream that is no cover picture. A playlist that names the network
# is refused.
VIDEO_STREAM = ("-map", "0:V:0")
INPUT_ARGS = ("-protocol_whitelist", "file,crypto,data")
SHOWINFO = "showinfo=checksum=0"

# ffmpeg's names of the H.273 code points; 2 (unspecified) for all others.
PRIMARIES = {
    "bt709": 1, "bt470m": 4, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7, "film": 8, "bt2020": 9, "smpte428": 10,
    "smpte431": 11, "smpte432": 12, "jedec-p22": 22, "ebu3213": 22,
}  # fmt: skip
TRANSFERS = {
    "bt709": 1, "bt470m": 4, "gamma22": 4, "bt470bg": 5, "gamma28": 5, "smpte170m": 6, "smpte240m": 7, "linear": 8,
    "log100": 9, "log316": 10, "iec61966-2-4": 11, "bt1361e": 12, "iec61966-2-1": 13, "bt2020-10": 14, "bt2020-12": 15,
    "smpte2084": 16, "smpte428": 17, "arib-std-b67": 18,
}  # fmt: skip
MATRICES = {
    "gbr": 0, "bt709": 1, "fcc": 4, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7, "ycgco": 8, "bt2020nc": 9,
    "bt2020c": 10, "smpte2085": 11, "chroma-derived-nc": 12, "chroma-derived-c": 13, "ictcp": 14, "ipt-c2": 15,
    "ycgco-re": 16, "ycgco-ro": 17,
}  # fmt: skip
RANGES = {"tv": 0, "pc": 1}  # 2 for unknown
CHROMA_LOCATIONS = {"left": 1, "center": 2, "topleft": 3, "top": 4, "bottomleft": 5, "bottom": 6}

_STREAM = re.compile(r"^  Stream #0:\d+.*?: (Video|Audio|Subtitle|Data|Attachment): (.*)$")
_CONFIG = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
_FRAME = re.compile(
    r"^n: *\d+ pts: *(?P<pts>\S+) .*?\bfmt:(?P<fmt>\S+)(?: cl:(?P<cl>\S+))? sar:(?P<sar>\d+/\d+) "
    r"s:(?P<width>\d+)x(?P<height>\d+) i:(?P<scan>\S)"
)
_COLOUR = re.compile(r"^color_range:(\S+) color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)")
_ROTATION = re.compile(r"display ?matrix: rotation of (-?[\d.]+) degrees", re.IGNORECASE)


@dataclass(frozen=True)
class Frames:
    """The frames that passed a `showinfo` filter; what is not a list is that of the first frame."""

    pts: list[int | None]  # ticks of time_base
    sizes: set[tuple[int, int]]  # all (width, height) that occurred
    interlaced: bool  # any frame
    configurations: int  # how often the filters were set up; more than 1 when the picture format changes
    time_base: Fraction
    frame_rate: Fraction | None  # as the container declares or suggests it
    pix_fmt: str
    par: Fraction  # 0 = unknown
    chroma_location: int
    full_range: int
    matrix: int
    primaries: int
    transfer: int


def parse_frames(log: str) -> Frames | None:
    """The frames of a log of ffmpeg with `-loglevel level+info`; None where there is not one."""
    texts = [text for _, text in messages(log)]
    frames = [match for text in texts if (match := _FRAME.match(text))]
    configs = [match for text in texts if (match := _CONFIG.match(text))]
    if not frames or not configs:
        return None
    colour = next((match for text in texts if (match := _COLOUR.match(text))), None)
    full_range, matrix, primaries, transfer = colour.groups() if colour else ("unknown",) * 4
    base_num, base_den, rate_num, rate_den = (int(term) for term in configs[0].groups())
    par_num, par_den = (int(term) for term in frames[0]["sar"].split("/"))
    return Frames(
        pts=[int(match["pts"]) if match["pts"].lstrip("-").isdigit() else None for match in frames],
        sizes={(int(match["width"]), int(match["height"])) for match in frames},
        interlaced=any(match["scan"] in "TB" for match in frames),
        configurations=len(configs),
        time_base=Fraction(base_num, base_den),
        frame_rate=Fraction(rate_num, rate_den) if rate_num and rate_den else None,
        pix_fmt=frames[0]["fmt"],
        par=Fraction(par_num, par_den or 1),
        chroma_location=CHROMA_LOCATIONS.get(frames[0]["cl"], 0),
        full_range=RANGES.get(full_range, 2),
        matrix=MATRICES.get(matrix, 2),
        primaries=PRIMARIES.get(primaries, 2),
        transfer=TRANSFERS.get(transfer, 2),
    )


@dataclass(frozen=True)
class Probe:
    """A source before it is read: its first frame as coded, how it lies (EXIF), and notes on what will be left out."""

    first: Frames
    width: int
    height: int
    orientation: int
    notes: tuple[str, ...]


def probe(inputs: list[str], label: str) -> Probe:
    """Probe the source that the ffmpeg arguments `inputs` open; `label` is its name in messages.

    InputError: `not_video` where ffmpeg does not know the file, `no_video` where it has no video stream, `no_frames`
    where that stream does not decode.
    """
    output = [*VIDEO_STREAM, "-vf", SHOWINFO, "-frames:v", "1", "-f", "null", "-"]
    with FFmpeg([*INPUT_ARGS, "-noautorotate", *inputs, *output]) as ffmpeg:
        ffmpeg.wait()
        log, failure = ffmpeg.log(), ffmpeg.failure()
    texts = [text for _, text in messages(log)]
    if not any(text.startswith("Input #0") for text in texts):
        raise InputError("not_video", f"{label}: not a video that ffmpeg reads: {failure}")
    streams = _streams(texts)
    if not streams["video"]:
        raise InputError("no_video", f"{label}: no video stream in it")
    first = parse_frames(log)
    if first is None:
        raise InputError("no_frames", f"{label}: its video stream does not decode: {failure}")
    notes = []
    for kind, count in streams.items():
        if others := count - (kind == "video"):
            noun = f"{'other ' if kind == 'video' else ''}{kind} stream{'s' if others > 1 else ''}"
            notes.append(f"left out: {others} {noun}")
    (width, height), orientation = next(iter(first.sizes)), 1
    if angles := _ROTATION.findall(log):
        found = _orientation(inputs, float(angles[-1]), width, height)
        if found is None:
            notes.append(f"left out: rotation by {angles[-1]} degrees, which is no quarter turn")
        orientation = found or 1
    return Probe(first, width, height, orientation, tuple(notes))


def _streams(texts: list[str]) -> Counter[str]:
    """How many streams of each kind the input has; cover pictures count as such, not as video."""
    kinds: Counter[str] = Counter()
    for text in texts:
        if text.startswith(("Stream mapping", "Output #")):
            break
        if match := _STREAM.match(text):
            kinds["cover picture" if "(attached pic)" in match[2] else match[1].lower()] += 1
    return kinds


def _orientation(inputs: list[str], angle: float, width: int, height: int) -> int | None:
    """The orientation that the display matrix is. Its angle does not tell mirrored ones: ffmpeg shows a frame both ways."""

    def luma(rotation: str) -> NDArray[np.uint8]:
        output = [*VIDEO_STREAM, "-vf", "format=gray", "-frames:v", "1", "-f", "rawvideo", "-"]
        with FFmpeg([*INPUT_ARGS, rotation, *inputs, *output], stdout=True) as ffmpeg:
            samples = np.frombuffer(b"".join(iter(lambda: ffmpeg.stdout.read(1 << 20), b"")), np.uint8)
            if samples.size != width * height:
                raise InputError("no_frames", f"the first frame does not decode: {ffmpeg.failure()}")
            return samples

    return identify(angle, luma("-noautorotate").reshape(height, width), luma("-autorotate"))
