"""nvc.codec.report.frames: frames as ffmpeg alone decodes them, as read_clip takes them, and as nvc decodes them."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from nvc_files import encoded

from nvc.bitstream.errors import NvcError
from nvc.codec.decode import Decoder
from nvc.codec.report.frames import FrameReader, open_video
from nvc.codec.video import ReadOptions, read_clip

Make = Callable[..., Path]
FFV1 = ("-c:v", "ffv1")


def samples(path: Path, options: ReadOptions | None = None) -> list[bytes]:
    """Every frame as the bytes of its planes."""
    with open_video(str(path), options) as video:
        reader = FrameReader(video)
        frames = [b"".join(plane.tobytes() for plane in frame) for frame in reader]
        assert reader.count == len(frames)
        return frames


def refusal(reference: Path, distorted: Path, options: ReadOptions | None = None) -> tuple[str, str]:
    with (
        pytest.raises(NvcError) as caught,
        open_video(str(reference), options) as first,
        open_video(str(distorted), like=first) as second,
    ):
        list(FrameReader(second))
    assert "\n" not in str(caught.value)
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p10le", "yuv444p16le", "yuv440p", "gray12le", "gbrp"])
def test_planes_are_those_that_ffmpeg_decodes_in_the_format_of_the_video(
    pix_fmt: str, make_video: Make, raw: Callable[..., NDArray[np.uint8]]
) -> None:
    codec = ("-c:v", "rawvideo") if pix_fmt.startswith("yuvj") else FFV1
    path = make_video("a.nut", "testsrc=s=37x23:r=25", 4, "-pix_fmt", pix_fmt, *codec)
    as_stored = () if pix_fmt.startswith("yuvj") else ("-pix_fmt", pix_fmt)  # FFV1 decodes 8-bit gbrp as packed bgr0
    assert b"".join(samples(path)) == raw(path, *as_stored).tobytes()
    with open_video(str(path)) as video:
        assert (video.width, video.height, video.frame_rate) == (37, 23, Fraction(25))
        assert video.file_bytes == path.stat().st_size
        first = next(iter(FrameReader(video)))
    assert tuple(plane.shape for plane in first) == video.format.plane_shapes(37, 23)


@pytest.mark.parametrize(
    "options",
    [
        ReadOptions(frames=(2, 5)),
        ReadOptions(frames=(3, None)),
        ReadOptions(crop=(31, 17)),
        ReadOptions(scale=(40, 30)),
        ReadOptions(frames=(1, 4), crop=(50, 40), scale=(24, 32)),
    ],
)
def test_what_is_chosen_of_a_video_is_what_nvc_encode_takes_of_it(options: ReadOptions, make_video: Make) -> None:
    path = make_video("a.mkv", "testsrc2=s=64x48:r=25", 6, "-pix_fmt", "yuv420p", *FFV1)
    clip = read_clip(str(path), options)
    assert samples(path, options) == [b"".join(plane[t].tobytes() for plane in clip.planes) for t in range(len(clip.pts))]


@pytest.mark.parametrize("pixel_format", [0, 1])
def test_an_nvc_file_gives_what_a_decoder_in_this_process_gives(pixel_format: int, tmp_path: Path) -> None:
    data = encoded(pixel_format=pixel_format)
    path = tmp_path / "a video.nvc"
    path.write_bytes(data)
    batches = list(Decoder(io.BytesIO(data), torch.device("cpu")).frames())
    order = (0, 1, 2) if pixel_format == 0 else (1, 2, 0)  # planes of gbrp
    expected = [b"".join(batch.planes[plane][t].tobytes() for plane in order) for batch in batches for t in range(len(batch.pts))]
    assert samples(path) == expected
    with open_video(str(path)) as video:
        assert video.label == str(path) and video.file_bytes == len(data)


def test_what_is_wrong_with_an_nvc_file_is_told_as_its_decoder_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "half.nvc"
    path.write_bytes(encoded()[:-400])
    with pytest.raises(NvcError) as expected:
        list(Decoder(io.BytesIO(path.read_bytes()), torch.device("cpu")).frames())
    with pytest.raises(NvcError) as caught:
        samples(path)
    assert (type(caught.value), caught.value.code) == (type(expected.value), expected.value.code)
    assert str(path) in str(caught.value)


def test_a_distorted_video_of_another_depth_or_subsampling_is_converted_and_a_note_says_so(
    make_video: Make, raw: Callable[..., NDArray[np.uint8]]
) -> None:
    reference = make_video("r.mkv", "testsrc2=s=64x48:r=25", 3, "-pix_fmt", "yuv422p10le", *FFV1)
    distorted = make_video("d.mkv", "testsrc2=s=64x48:r=25", 3, "-pix_fmt", "yuv420p", *FFV1)
    with open_video(str(reference)) as first, open_video(str(distorted), like=first) as second:
        assert second.format.name == "yuv422p10le" and second.pix_fmt == "yuv420p"
        assert [note for note in second.notes if "converted yuv420p to yuv422p10le" in note]
        found = b"".join(plane.tobytes() for frame in FrameReader(second) for plane in frame)
    assert found == raw(distorted, "-pix_fmt", "yuv422p10le").tobytes()


def test_sizes_and_colour_models_that_differ_are_refused(make_video: Make) -> None:
    yuv = make_video("yuv.mkv", "testsrc2=s=64x48:r=25", 3, "-pix_fmt", "yuv420p", *FFV1)
    small = make_video("small.mkv", "testsrc2=s=32x24:r=25", 3, "-pix_fmt", "yuv420p", *FFV1)
    rgb = make_video("rgb.mkv", "testsrc2=s=64x48:r=25", 3, "-pix_fmt", "gbrp", *FFV1)
    strange = make_video("strange.nut", "testsrc2=s=64x48:r=25", 3, "-pix_fmt", "rgb565le", "-c:v", "rawvideo")
    assert refusal(yuv, small)[0] == "compare.size"
    assert refusal(yuv, yuv, ReadOptions(scale=(32, 24)))[0] == "compare.size"
    assert refusal(yuv, rgb)[0] == refusal(rgb, yuv)[0] == "compare.format"
    code, message = refusal(yuv, strange)
    assert code == "compare.format" and str(strange) in message and "rgb565le" in message


def test_a_video_of_gray_is_compared_with_the_luma_of_another(make_video: Make) -> None:
    gray = make_video("gray.mkv", "testsrc2=s=64x48:r=25", 3, "-pix_fmt", "gray", *FFV1)
    yuv = make_video("yuv.mkv", "testsrc2=s=64x48:r=25", 3, "-vf", "format=gray,format=yuv420p", *FFV1)
    with open_video(str(gray)) as first, open_video(str(yuv), like=first) as second:
        for a, b in zip(FrameReader(first), FrameReader(second), strict=True):
            assert np.abs(a[0].astype(int) - b[0]).max() <= 1  # 220 of 256 levels survive


def test_frames_of_a_variable_rate_are_all_there_once(make_video: Make) -> None:
    even = make_video("even.mkv", "testsrc2=s=64x48:r=25", 9, "-pix_fmt", "yuv420p", *FFV1)
    rate = ("-vf", "setpts=N*N", "-fps_mode", "vfr")
    uneven = make_video("uneven.mkv", "testsrc2=s=64x48:r=25", 9, *rate, "-pix_fmt", "yuv420p", *FFV1)
    assert samples(uneven) == samples(even)


@pytest.mark.parametrize(
    ("data", "code"),
    [(None, "missing"), (b"", "empty"), (b"no video", "not_video"), (b"\x89NVC\r\n\x1a\n", "prologue")],
)
def test_what_is_no_video_is_one_line(data: bytes | None, code: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    if data is not None:
        path.write_bytes(data)
    assert refusal(path, path)[0].split(".")[1] == code


def test_a_range_beyond_the_end_has_no_frames(make_video: Make) -> None:
    path = make_video("a.mkv", "testsrc2=s=64x48:r=25", 3, *FFV1)
    with pytest.raises(NvcError, match="no frame") as caught:
        samples(path, ReadOptions(frames=(9, None)))
    assert caught.value.code == "input.no_frames"


def test_a_damaged_video_is_read_with_a_note(make_video: Make) -> None:
    path = make_video("a.mkv", "testsrc2=s=160x96:r=25", 20, "-c:v", "libx264", "-crf", "10")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(range(100)) * 3
    path.write_bytes(data)
    with open_video(str(path)) as video:
        reader = FrameReader(video)
        assert sum(1 for _ in reader) == reader.count > 0
    assert "is damaged" in reader.notes[0]
