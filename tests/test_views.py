"""What the page shows of the frames: the choice of frames and of anchors, and one conversion to RGB for all codecs."""

from __future__ import annotations

import math
import shlex
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.bitstream.errors import InputError
from nvc.codec.report import views
from nvc.codec.report.views import Colour

SIZES = st.integers(1, 10**7)


def nvc_run(scores: list[float], size: int = 100, codec: str = "nvc:hnerv", segments: tuple[int, ...] = (0,)) -> dict[str, Any]:
    return {"clip": "a", "codec": codec, "bytes": size, "frames": {"psnr_y": scores}, "nvc": {"segments": list(segments)}}


def anchor_run(size: int, codec: str = "x265", clip: str = "a") -> dict[str, Any]:
    return {"clip": clip, "codec": codec, "bytes": size, "frames": {"psnr_y": [1.0]}, "nvc": None}


def test_worst_median_and_best_are_chosen_in_the_order_of_time() -> None:
    assert views.choose([nvc_run([34, 35, 30, 39, 32, 31, 33])]) == [2, 3, 6]  # 30, 39, and 33 of seven


def test_the_middle_rate_of_the_first_nvc_codec_decides() -> None:
    runs = [
        anchor_run(20),
        nvc_run([5, 1, 2, 3, 9], 300),  # would give 1, 3, 4
        nvc_run([5, 4, 1, 2, 3], 200),
        nvc_run([1, 5, 2, 9, 3], 100),  # would give 0, 3, 4
        nvc_run([9, 1, 9, 9, 9], 200, "nvc:vqnerv"),  # would give 1, 2, 4
    ]
    assert views.choose(runs) == [0, 2, 4]


def test_first_frames_of_segments_are_added_the_worst_first() -> None:
    scores = [50.0, 51, 40, 53, 30, 55, 35, 57, 20, 59]
    # worst 8 (which is a border), median 0 (50 of ten), best 9; of the borders 4 (30), 6 (35), 2 (40) two have room
    assert views.choose([nvc_run(scores, segments=(0, 2, 4, 6, 8))]) == [0, 4, 6, 8, 9]
    assert views.choose([nvc_run(scores, segments=(0, 2))]) == [0, 2, 8, 9]


def test_rgb_clips_are_judged_by_rgb_and_anchors_alone_by_the_middle_one() -> None:
    run = nvc_run([]) | {"frames": {"psnr_rgb": [3, 1, 2]}}
    assert views.choose([run]) == [0, 1, 2]
    assert views.choose([anchor_run(10), anchor_run(20)]) == [0]


@given(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_chosen_frames_follow_the_rules(scores: list[float], borders: set[int]) -> None:
    segments = sorted({0} | {border for border in borders if border < len(scores)})
    shown = views.choose([nvc_run(scores, segments=tuple(segments))])
    assert shown == sorted(set(shown)) and 1 <= len(shown) <= views.MOST_FRAMES
    values = [scores[frame] for frame in shown]
    assert min(values) == min(scores) and max(values) == max(scores) and sorted(scores)[(len(scores) - 1) // 2] in values
    if len(shown) < views.MOST_FRAMES:
        assert set(segments[1:]) <= set(shown)


@given(SIZES, st.lists(st.tuples(st.sampled_from(["x264", "x265"]), SIZES), max_size=12))
def test_the_nearest_anchor_has_the_smallest_ratio_of_bytes(size: int, others: list[tuple[str, int]]) -> None:
    def far(run: dict[str, Any]) -> float:
        return max(run["bytes"] / size, size / run["bytes"])

    runs = [anchor_run(each, codec) for codec, each in others]
    found = views.nearest([*runs, anchor_run(size, "svtav1", clip="b"), nvc_run([1.0], size)], nvc_run([1.0], size))
    assert set(found) == {codec for codec, _ in others}
    for codec, run in found.items():
        assert far(run) <= min(far(other) for other in runs if other["codec"] == codec) * (1 + 1e-12)
    distances = [math.log(far(run)) for run in found.values()]
    assert distances == pytest.approx(sorted(distances), abs=1e-9)


def test_of_two_equally_near_the_smaller_is_taken() -> None:
    near = views.nearest([anchor_run(200), anchor_run(50)], nvc_run([1.0], 100))
    assert near["x265"]["bytes"] == 50


def test_pictures_are_wanted_of_nvc_and_of_what_is_nearest_to_it() -> None:
    near, far, other = anchor_run(110), anchor_run(900), anchor_run(100, clip="b")
    runs = [far, nvc_run([1.0], 100), other, near, nvc_run([1.0], 120)]
    assert views.shown_runs(runs) == [runs[1], near, runs[4]]


@pytest.mark.parametrize(
    ("matrix", "full_range", "height", "expected"),
    [
        (1, 0, 90, Colour("bt709", False)),
        (6, 1, 2160, Colour("smpte170m", True)),
        (9, 2, 90, Colour("bt2020", False)),
        (2, 2, 719, Colour("smpte170m", False)),  # unspecified
        (2, 0, 720, Colour("bt709", False)),
        (8, 0, 480, Colour("smpte170m", False)),  # YCgCo, which swscale does not know
    ],
)
def test_an_unknown_matrix_is_guessed_by_the_lines_of_the_picture(
    matrix: int, full_range: int, height: int, expected: Colour
) -> None:
    assert Colour.of(matrix, full_range, height) == expected


def rgb_of(y: int, cb: int, cr: int, weights: tuple[float, float], full: bool) -> list[float]:
    """H.273 for 8 bits: luma, two chromas, the weights of red and blue in luma."""
    red, blue = weights
    luma, chroma = ((y, 255), (255,)) if full else ((y - 16, 219), (224,))
    unit, u, v = luma[0] / luma[1], (cb - 128) / chroma[0], (cr - 128) / chroma[0]
    r, b = unit + 2 * (1 - red) * v, unit + 2 * (1 - blue) * u
    g = (unit - red * r - blue * b) / (1 - red - blue)
    return [min(255.0, max(0.0, 255 * part)) for part in (r, g, b)]


BT709, BT601 = (0.2126, 0.0722), (0.299, 0.114)
COLOURS = [(81, 90, 240), (145, 54, 34), (41, 240, 110), (180, 128, 128), (60, 160, 100), (16, 128, 128)]


@pytest.fixture
def flat(ffmpeg: Callable[..., bytes], tmp_path: Path) -> Callable[..., Path]:
    """A video without loss whose frame n is all of COLOURS[n], by FFV1 or the codec given."""

    def make(name: str, *codec: str) -> Path:
        frames = b"".join(bytes([y]) * 32 * 16 + bytes([cb]) * 16 * 8 + bytes([cr]) * 16 * 8 for y, cb, cr in COLOURS)
        path = tmp_path / name
        ffmpeg("-f", "rawvideo", "-s", "32x16", "-r", "25", "-i", "-", *(codec or ("-c:v", "ffv1")), path, stdin=frames)
        return path

    return make


def pixels(raw: Callable[..., NDArray[np.uint8]], tmp_path: Path, picture: bytes) -> NDArray[np.uint8]:
    path = tmp_path / "picture.png"
    path.write_bytes(picture)
    return raw(path, "-pix_fmt", "rgb24").reshape(16, 32, 3)


@pytest.mark.parametrize(
    ("colour", "weights", "full"),
    [
        (Colour("bt709", False), BT709, False),
        (Colour("bt709", True), BT709, True),
        (Colour("smpte170m", False), BT601, False),
        (Colour("bt470bg", True), BT601, True),
    ],
)
def test_pictures_have_the_colours_of_matrix_and_range(
    colour: Colour, weights: tuple[float, float], full: bool, flat: Any, raw: Any, tmp_path: Path
) -> None:
    shown = views.pictures(str(flat("a.mkv")), range(len(COLOURS)), colour)
    assert list(shown) == list(range(len(COLOURS)))
    for frame, planes in enumerate(COLOURS):
        expected = rgb_of(*planes, weights, full)
        assert np.abs(pixels(raw, tmp_path, shown[frame]) - np.array(expected)).max() <= 1.5, (frame, planes)


def test_the_frames_that_were_asked_for_are_given_by_their_number(flat: Any) -> None:
    video = str(flat("a.mkv"))
    every = views.pictures(video, range(len(COLOURS)), Colour("bt709", False))
    some = views.pictures(video, [4, 1, 4, 3], Colour("bt709", False))
    assert some == {frame: every[frame] for frame in (1, 3, 4)} and len(set(every.values())) == len(COLOURS)
    assert views.pictures(video, [], Colour("bt709", False)) == {}


@pytest.mark.parametrize(
    ("tags", "full"),
    [
        ("matrix_coefficients=9:colour_primaries=9:transfer_characteristics=16:sample_aspect_ratio=2", False),
        ("matrix_coefficients=1:video_full_range_flag=1", True),
    ],
)
def test_tags_of_the_file_change_nothing_not_even_for_a_browser(
    tags: str, full: bool, flat: Any, ffmpeg: Any, tmp_path: Path
) -> None:
    plain, tagged = flat("plain.mp4", "-c:v", "libx264", "-qp", "0"), tmp_path / "tagged.mp4"
    ffmpeg("-i", plain, "-c", "copy", "-bsf:v", f"h264_metadata={tags}", tagged)
    shown = [views.pictures(str(video), [0, 2], Colour("smpte170m", full)) for video in (plain, tagged)]
    assert shown[0] == shown[1]
    for picture in shown[1].values():
        kinds, at = [], 8
        while at < len(picture):
            length, kind = struct.unpack_from(">I4s", picture, at)
            kinds.append(kind)
            at += 12 + length
        assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


def test_chroma_is_interpolated_and_not_repeated(ffmpeg: Any, raw: Any, tmp_path: Path) -> None:
    chroma = np.where(np.arange(16) < 8, 90, 160).astype(np.uint8)
    planes = [np.full((16, 32), 120, np.uint8), np.tile(chroma, (8, 1)), np.full((8, 16), 128, np.uint8)]
    video = tmp_path / "edge.mkv"
    stdin = b"".join(plane.tobytes() for plane in planes)
    ffmpeg("-f", "rawvideo", "-s", "32x16", "-i", "-", "-c:v", "ffv1", video, stdin=stdin)
    blue = pixels(raw, tmp_path, views.pictures(str(video), [0], Colour("bt709", False))[0])[8, 12:20, 2].astype(int)
    assert len(set(blue)) > 4  # repeated samples would give two levels


def test_the_command_that_is_shown_makes_the_same_picture(flat: Any, raw: Any, tmp_path: Path, ffmpeg: Any) -> None:
    video = flat("with 'quotes' and spaces.mkv")
    words = shlex.split(views.command(str(video), "FRAME", Colour("bt709", True)).replace("eq(n,FRAME)", "eq(n,2)"))
    assert words[0] == "ffmpeg" and words[-1] == "frame.png"
    made = tmp_path / "frame.png"
    ffmpeg(*words[1:-1], made)
    expected = pixels(raw, tmp_path, views.pictures(str(video), [2], Colour("bt709", True))[2])
    assert np.array_equal(raw(made, "-pix_fmt", "rgb24").reshape(16, 32, 3), expected)


def test_a_frame_that_is_not_there_is_refused(flat: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.mkv: has 1 of the frames 1, 6") as caught:
        views.pictures(str(flat("a.mkv")), [1, 6], Colour("bt709", False))
    assert caught.value.code == "input.frames"
    (tmp_path / "b.mkv").write_bytes(b"no video")
    with pytest.raises(InputError) as caught:
        views.pictures(str(tmp_path / "b.mkv"), [0], Colour("bt709", False))
    assert caught.value.code == "input.decode"
