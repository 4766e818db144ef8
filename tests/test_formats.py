"""nvc.codec.report.formats: which planes a pixel format has, checked against the bytes that ffmpeg writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvc.bitstream.errors import ComparisonError
from nvc.codec.report.formats import has_alpha, plane_format

FFmpeg = Callable[..., bytes]
YUV, RGB, GRAY = ("y", "cb", "cr"), ("g", "b", "r"), ("y",)
KNOWN = {
    "yuv420p": (8, YUV),
    "yuvj422p": (8, YUV),
    "yuv440p10le": (10, YUV),
    "yuv444p12le": (12, YUV),
    "yuv422p14le": (14, YUV),
    "yuv420p16le": (16, YUV),
    "yuv444p9le": (9, YUV),
    "gray": (8, GRAY),
    "gray10le": (10, GRAY),
    "gbrp": (8, RGB),
    "gbrp14le": (14, RGB),
}
# Each holds the samples of the planar one in another order: through it and back nothing may change.
PACKED = {
    "nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "yuyv422": "yuv422p", "uyvy422": "yuv422p",
    "p010le": "yuv420p10le", "p012le": "yuv420p12le", "p016le": "yuv420p16le", "p210le": "yuv422p10le", "p410le": "yuv444p10le",
    "rgb24": "gbrp", "bgr24": "gbrp", "bgr0": "gbrp", "0rgb": "gbrp", "rgba": "gbrp", "argb": "gbrp", "gbrap": "gbrp",
    "rgb48le": "gbrp16le", "x2rgb10le": "gbrp10le", "yuva420p": "yuv420p", "ya8": "gray", "vuyx": "yuv444p",
    "y210le": "yuv422p10le", "xv30le": "yuv444p10le", "xv36le": "yuv444p12le", "yuv420p10be": "yuv420p10le",
    "gray12be": "gray12le", "nv20le": "yuv422p10le",
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_the_planes_have_as_many_bytes_as_ffmpeg_writes_for_odd_sides_too(name: str, ffmpeg: FFmpeg) -> None:
    form = plane_format(name)
    assert (form.depth, form.planes) == KNOWN[name]
    shapes = form.plane_shapes(37, 23)
    source = ("-f", "lavfi", "-i", "testsrc=s=37x23", "-frames:v", 1)
    written = ffmpeg(*source, "-pix_fmt", form.name, "-f", "rawvideo", "-")
    assert len(written) == sum(rows * columns for rows, columns in shapes) * form.dtype.itemsize
    assert shapes[0] == (23, 37) and len(shapes) == len(form.planes)


@pytest.mark.parametrize("packed", PACKED)
def test_a_packed_format_maps_to_planes_with_the_same_samples(packed: str, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    form = plane_format(packed)
    assert form == plane_format(PACKED[packed])
    count = sum(rows * columns for rows, columns in form.plane_shapes(38, 26))
    samples = np.random.default_rng(1).integers(0, form.peak + 1, count).astype(form.dtype)
    planar, other = tmp_path / "planar.yuv", tmp_path / "packed.yuv"
    planar.write_bytes(samples.tobytes())
    raw = ("-f", "rawvideo", "-s", "38x26", "-pix_fmt")
    ffmpeg(*raw, form.name, "-i", planar, *raw[:2], "-pix_fmt", packed, other)
    assert ffmpeg(*raw, packed, "-i", other, "-vf", f"format={form.accepted}", "-f", "rawvideo", "-") == samples.tobytes()


@pytest.mark.parametrize(
    "name", ["rgb565le", "bayer_rggb8", "yuv411p", "gbrpf32le", "monow", "xyz12le", "yuv420", "", "gray11", "p011le"]
)
def test_what_else_there_is_is_refused(name: str) -> None:
    with pytest.raises(ComparisonError, match="pixel format") as caught:
        plane_format(name)
    assert caught.value.code == "compare.format"


@given(st.one_of(st.text(), st.from_regex(r"(yuvj?|gbr|gray|p|nv|ya|rgb|x2|xv)[a0-9]*p?[0-9]{0,2}([lb]e)?", fullmatch=True)))
def test_any_name_is_refused_or_leads_to_a_planar_format_that_leads_to_itself(name: str) -> None:
    try:
        form = plane_format(name)
    except ComparisonError:
        return
    assert plane_format(form.name) == form
    assert 8 <= form.depth <= 16 and form.dtype.itemsize == (1 if form.depth == 8 else 2)


def test_alpha_is_known() -> None:
    assert [name for name in (*KNOWN, *PACKED) if has_alpha(name)] == ["rgba", "argb", "gbrap", "yuva420p", "ya8"]
