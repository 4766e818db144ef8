"""nvc.codec.report.measure: PSNR as ffmpeg's psnr filter has it, and summaries by their definitions."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nvc.bitstream.errors import ComparisonError, UsageError
from nvc.codec.metrics import plane_mse, psnr
from nvc.codec.report.measure import METRICS, Measured, measure
from nvc.codec.video import ReadOptions

Make = Callable[..., Path]
Run = Callable[..., bytes]
FFV1 = ("-c:v", "ffv1")
FRAMES = 6


def stats(ffmpeg: Run, reference: Path, distorted: Path, key: str) -> NDArray[np.float64]:
    """The values `key` of every frame, by ffmpeg's psnr filter, as it prints them: two decimals."""
    text = ffmpeg("-i", distorted, "-i", reference, "-lavfi", "[0:v][1:v]psnr=stats_file=-", "-f", "null", "-").decode()
    return np.array(re.findall(rf"\b{key}:(\S+)", text), float)


@pytest.fixture
def encoded(make_video: Make, ffmpeg: Run, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A clip, and a poor copy of it."""

    def make(pix_fmt: str, size: str = "64x48") -> tuple[Path, Path]:
        reference = make_video(f"r{size}.mkv", f"mandelbrot=s={size}:r=25", FRAMES, "-pix_fmt", pix_fmt, *FFV1)
        distorted = tmp_path / f"d{size}.mkv"
        ffmpeg("-i", reference, "-vf", f"noise=alls=12:allf=t,format={pix_fmt}", *FFV1, distorted)
        return reference, distorted

    return make


@pytest.mark.parametrize(
    ("pix_fmt", "size"), [("yuv420p", "64x48"), ("yuv422p10le", "64x48"), ("yuv420p", "37x23"), ("yuv444p16le", "20x12")]
)
def test_psnr_of_each_plane_is_that_of_ffmpegs_filter(
    pix_fmt: str, size: str, encoded: Callable[..., tuple[Path, Path]], ffmpeg: Run
) -> None:
    files = encoded(pix_fmt, size)
    result = measure(*map(str, files), metrics=("psnr",))
    assert (result.frames, f"{result.width}x{result.height}", result.pix_fmt) == (FRAMES, size, pix_fmt)
    for plane, letter in (("y", "y"), ("cb", "u"), ("cr", "v")):
        expected = stats(ffmpeg, *files, f"psnr_{letter}")
        np.testing.assert_allclose(result.scores[f"psnr_{plane}"], expected, atol=0.006)
        assert result.quality()[f"psnr_{plane}"]["mean"] == pytest.approx(expected.mean(), abs=0.01)
        assert 5 < expected.mean() < 60


def test_the_largest_error_of_16_bits_is_counted_in_full() -> None:
    black, white = np.zeros((3, 5), np.uint16), np.full((3, 5), 65535, np.uint16)
    assert plane_mse(black, white) == plane_mse(white, black) == 65535**2
    assert psnr(65535**2, 65535) == 0


def test_psnr_of_rgb_is_of_all_three_channels(encoded: Callable[..., tuple[Path, Path]], ffmpeg: Run) -> None:
    files = encoded("gbrp")
    for metrics in (("psnr",), ("rgb",)):
        result = measure(*map(str, files), metrics=metrics)
        assert set(result.scores) == {"psnr_rgb"}
        np.testing.assert_allclose(result.scores["psnr_rgb"], stats(ffmpeg, *files, "psnr_avg"), atol=0.006)


def test_summaries_are_what_they_are_called() -> None:
    random = np.random.default_rng(0)
    squares = {f"psnr_{plane}": random.uniform(1, 900, 50) for plane in ("y", "cb", "cr")}
    scores = {name: 10 * np.log10(1023**2 / values) for name, values in squares.items()}
    scores["psnr_611"] = (6 * scores["psnr_y"] + scores["psnr_cb"] + scores["psnr_cr"]) / 8
    scores["ms_ssim"] = random.uniform(0.9, 1, 50)
    quality = Measured(4, 2, 50, "yuv420p10le", 500, scores, squares, dict.fromkeys(squares, 1023)).quality()
    y = np.sort(scores["psnr_y"])
    assert quality["psnr_y"]["mean"] == round(sum(y) / 50, 4)
    assert quality["psnr_y"]["min"] == round(y[0], 4)
    assert quality["psnr_y"]["p5"] == round(y[2] + 0.45 * (y[3] - y[2]), 4)  # place 0.05 (50 - 1) = 2.45
    pooled = {plane: 10 * np.log10(1023**2 / squares[f"psnr_{plane}"].mean()) for plane in ("y", "cb", "cr")}
    assert quality["psnr_y"]["pooled"] == round(pooled["y"], 4)
    assert quality["psnr_611"]["pooled"] == round((6 * pooled["y"] + pooled["cb"] + pooled["cr"]) / 8, 4)
    assert quality["ms_ssim"]["mean"] == round(scores["ms_ssim"].mean(), 6) and quality["ms_ssim"]["pooled"] is None
    assert list(quality["psnr_y"]) == ["mean", "min", "p5", "pooled"]


def test_bpp_counts_the_whole_file() -> None:
    assert Measured(4, 2, 50, "yuv420p", 500, {}).bpp == 10
    assert Measured(4, 2, 50, "yuv420p", None, {}).bpp is None


def test_a_video_beside_itself_has_all_scores_at_their_top(make_video: Make) -> None:
    path = make_video("a.mkv", "mandelbrot=s=64x48:r=25", 3, "-pix_fmt", "yuv420p", *FFV1)
    quality = measure(str(path), str(path)).quality()
    assert {name: score["mean"] for name, score in quality.items() if not name.startswith("vmaf")} == {
        **{f"psnr_{plane}": 100 for plane in ("y", "cb", "cr", "611", "rgb")},
        **{f"xpsnr_{plane}": 100 for plane in ("y", "cb", "cr")},
        "ms_ssim": 1,
    }
    assert min(quality[name]["mean"] or 0 for name in ("vmaf", "vmaf_neg")) > 90


@pytest.mark.parametrize("size", ["192x176", "64x48"])
def test_ms_ssim_is_libvmafs_or_where_that_has_none_nvcs_and_a_note_says_so(
    size: str, encoded: Callable[..., tuple[Path, Path]]
) -> None:
    result = measure(*map(str, encoded("yuv420p", size)), metrics=("ms_ssim",))
    assert set(result.scores) == {"ms_ssim"} and len(result.scores["ms_ssim"]) == FRAMES
    assert any("MS-SSIM by nvc" in note for note in result.notes) == (size == "64x48")


def test_ms_ssim_does_not_depend_on_the_depth(encoded: Callable[..., tuple[Path, Path]], ffmpeg: Run, tmp_path: Path) -> None:
    files = encoded("gray")
    deep = [tmp_path / f"deep{number}.mkv" for number in range(2)]
    for path, copy in zip(files, deep, strict=True):
        ffmpeg("-i", path, "-vf", "format=gray,geq=lum='lum(X,Y)',format=gray16le", *FFV1, copy)
    shallow, result = (measure(*map(str, pair), metrics=("ms_ssim",)).scores["ms_ssim"] for pair in (files, deep))
    np.testing.assert_allclose(result, shallow, atol=1e-4)
    assert shallow.mean() < 0.99


def test_no_metric_and_unknown_ones_are_refused(make_video: Make) -> None:
    path = str(make_video("a.mkv", "testsrc2=s=32x32", 2, *FFV1))
    for metrics in ((), ("psnr", "ssim")):
        with pytest.raises(UsageError) as caught:
            measure(path, path, metrics=metrics)
        assert caught.value.code == "usage.metrics" and METRICS[0] in str(caught.value)


@pytest.mark.parametrize(("frames", "text"), [(4, "2 fewer"), (9, "3 more")])
def test_another_number_of_frames_is_refused_and_the_difference_told(frames: int, text: str, make_video: Make) -> None:
    reference = make_video("a.mkv", "testsrc2=s=32x32:r=25", FRAMES, "-pix_fmt", "yuv420p", *FFV1)
    other = make_video("b.mkv", "testsrc2=s=32x32:r=25", frames, "-pix_fmt", "yuv420p", *FFV1)
    with pytest.raises(ComparisonError, match=text) as caught:
        measure(str(reference), str(other))
    assert caught.value.code == "compare.frames"
    if frames < FRAMES:
        assert measure(str(reference), str(other), ReadOptions(frames=(0, frames)), ("psnr",)).frames == frames


def test_a_source_of_variable_rate_is_compared_by_index(make_video: Make, ffmpeg: Run, tmp_path: Path) -> None:
    rate = ("-vf", "setpts=N*N", "-fps_mode", "vfr")
    reference = make_video("a.mkv", "testsrc2=s=64x48:r=25", FRAMES, *rate, "-pix_fmt", "yuv420p", *FFV1)
    even = tmp_path / "even.mkv"
    ffmpeg("-i", reference, "-vf", "settb=1/25,setpts=N", "-fps_mode", "passthrough", *FFV1, even)
    assert measure(str(reference), str(even), metrics=("psnr", "xpsnr")).quality()["psnr_y"]["min"] == 100
