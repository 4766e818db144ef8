"""Pixel formats as planes: depth, planes and subsampling by ffmpeg's name, and to which planar one a packed one maps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from nvc.bitstream.errors import ComparisonError

_SUBSAMPLING = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1)}
_PLANAR = re.compile(r"(?:yuv[ja]?(?P<chroma>420|422|444|440)p|(?P<gray>gray)|gbra?p)(?P<depth>9|1[0246])?(?:[lb]e)?")
_SEMIPLANAR = re.compile(r"p(?P<chroma>[024])(?P<depth>10|12|16)[lb]e")
_DEEP = "|".join(("rgb48", "bgr48", "rgba64", "bgra64"))
# Every other layout that holds the samples of a planar one in another order; ffmpeg takes them apart without a change.
_PACKED = (
    (r"nv12|nv21", "yuv420p"),
    (r"nv16|yuyv422|uyvy422|yvyu422", "yuv422p"),
    (r"nv24|nv42|vuyx|vuya|vyu444|ayuv|uyva", "yuv444p"),
    (r"(nv20|y210)[lb]e", "yuv422p10le"),
    (r"y212[lb]e", "yuv422p12le"),
    (r"(xv30|v30x)[lb]e", "yuv444p10le"),
    (r"xv36[lb]e", "yuv444p12le"),
    (r"(xv48|ayuv64)[lb]e", "yuv444p16le"),
    (r"rgb24|bgr24|[0a]rgb|[0a]bgr|rgb[0a]|bgr[0a]|pal8", "gbrp"),
    (rf"({_DEEP})[lb]e", "gbrp16le"),
    (r"x2(rgb|bgr)10[lb]e", "gbrp10le"),
    (r"ya8", "gray"),
    (r"ya16[lb]e", "gray16le"),
)
_CHROMA_OF_SEMIPLANAR = {"0": "420", "2": "422", "4": "444"}
_ALPHA = re.compile(r"yuva|gbrap|argb|abgr|rgba|bgra|ya\d|vuya|ayuv|uyva|pal8")


@dataclass(frozen=True)
class PixelFormat:
    """A planar format: ffmpeg's `name`, bits a sample, the planes in their order, and chroma's log2 subsampling (x, y)."""

    name: str
    depth: int  # 8 to 16; above 8 a sample takes two bytes, the low one first
    planes: tuple[str, ...]  # ("y", "cb", "cr"), ("y",) or ("g", "b", "r")
    subsampling: tuple[int, int] = (0, 0)

    @property
    def rgb(self) -> bool:
        """Whether the planes are green, blue and red."""
        return self.planes == ("g", "b", "r")

    @property
    def peak(self) -> int:
        """The largest sample."""
        return (1 << self.depth) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """What a sample is in the bytes that ffmpeg writes: uint8, or little-endian uint16."""
        return np.dtype(np.uint8) if self.depth == 8 else np.dtype("<u2")

    @property
    def accepted(self) -> str:
        """For ffmpeg's format filter: this format, and its older name for full range, whose samples it would else change."""
        return f"{self.name}|yuvj{self.name[3:]}" if self.depth == 8 and self.name.startswith("yuv") else self.name

    def plane_shapes(self, width: int, height: int) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each plane of a picture; sides of chroma round up."""
        x, y = self.subsampling
        chroma = (-(-height >> y), -(-width >> x))
        return ((height, width), *(chroma for _ in self.planes[1:]))


def plane_format(pix_fmt: str) -> PixelFormat:
    """The planar format that holds the samples of ffmpeg's `pix_fmt` unchanged, without its alpha.

    ComparisonError `format` for what is not 4:2:0, 4:2:2, 4:4:4, 4:4:0, gray or RGB of 8 to 16 bits.
    """
    for pattern, name in _PACKED:
        if re.fullmatch(pattern, pix_fmt):
            pix_fmt = name
    if match := _SEMIPLANAR.fullmatch(pix_fmt):
        chroma, depth = _CHROMA_OF_SEMIPLANAR[match["chroma"]], int(match["depth"])
        return PixelFormat(f"yuv{chroma}p{depth}le", depth, ("y", "cb", "cr"), _SUBSAMPLING[chroma])
    match = _PLANAR.fullmatch(pix_fmt)
    if match is None:
        wanted = "only YUV, gray and RGB of 8 to 16 bits a sample can be compared"
        raise ComparisonError("format", f"pixel format {pix_fmt}: {wanted}")
    depth = int(match["depth"] or 8)
    ending = "" if depth == 8 else f"{depth}le"
    if match["chroma"]:
        return PixelFormat(f"yuv{match['chroma']}p{ending}", depth, ("y", "cb", "cr"), _SUBSAMPLING[match["chroma"]])
    return PixelFormat(f"gray{ending}", depth, ("y",)) if match["gray"] else PixelFormat(f"gbrp{ending}", depth, ("g", "b", "r"))


def has_alpha(pix_fmt: str) -> bool:
    """Whether frames of this format bring a transparency, which no metric looks at."""
    return _ALPHA.match(pix_fmt) is not None
