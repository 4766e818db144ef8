"""nvc.codec.metrics: exact sums, the cap, and agreement with ffmpeg's own psnr filter."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.codec.metrics import IDENTICAL_DB, Quality, plane_mse, psnr
from nvc.codec.video import Clip, ReadOptions, read_clip


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=60))
def test_mse_equals_python_integers(samples: list[tuple[int, int]]) -> None:
    a, b = np.array(samples, np.uint8).T
    assert plane_mse(a, b) == sum((x - y) ** 2 for x, y in samples) / len(samples)


def test_mse_does_not_overflow_where_all_samples_differ_most() -> None:
    zero = np.zeros((2000, 2000), np.uint8)
    assert plane_mse(zero, zero + 255) == 255**2


def test_shapes_that_differ_are_refused_instead_of_broadcast() -> None:
    with pytest.raises(ValueError, match="shapes"):
        plane_mse(np.zeros((2, 3), np.uint8), np.zeros((1, 3), np.uint8))


def test_psnr_of_known_errors() -> None:
    assert psnr(1.0) == pytest.approx(48.130803608679)
    assert psnr(255.0**2) == 0.0
    assert psnr(0.0) == IDENTICAL_DB == 100.0


def test_psnr_never_exceeds_that_of_identical_planes() -> None:
    assert psnr(1e-12) == IDENTICAL_DB


def _clips(make_video: Callable[..., Path], pix_fmt: str) -> tuple[Clip, Clip, Path, Path]:
    source = make_video("a.mkv", "mandelbrot=s=96x64:r=25", 8, "-c:v", "ffv1", "-pix_fmt", "yuv420p")
    # The second clip gets worse over time, so that a mean of PSNRs and a PSNR of means differ.
    worse = "mandelbrot=s=96x64:r=25,format=yuv420p,geq=lum='lum(X,Y)+N*N*mod(X+Y,2)':cb='cb(X,Y)+N':cr='cr(X,Y)'"
    damaged = make_video("b.mkv", worse, 8, "-c:v", "ffv1", "-pix_fmt", "yuv420p")
    options = ReadOptions(pix_fmt=pix_fmt)
    return read_clip(str(source), options), read_clip(str(damaged), options), source, damaged


def _ffmpeg_psnr(ffmpeg: Callable[..., bytes], a: Path, b: Path, names: str, tmp_path: Path, fmt: str) -> list[list[float]]:
    log = tmp_path / "psnr.log"
    convert = f"[0:v]format={fmt}[x];[1:v]format={fmt}[y];[y][x]psnr=stats_file={log}"
    ffmpeg("-i", a, "-i", b, "-lavfi", convert, "-f", "null", "-")
    values = []
    for line in log.read_text().splitlines():
        found = (re.search(rf"psnr_{name}:(\S+)", line) for name in names.split())
        values.append([min(float(match[1]), 100.0) for match in found if match])
    return values


def test_yuv_psnr_equals_ffmpegs(make_video: Callable[..., Path], ffmpeg: Callable[..., bytes], tmp_path: Path) -> None:
    a, b, path_a, path_b = _clips(make_video, "yuv420p")
    expected = np.array(_ffmpeg_psnr(ffmpeg, path_a, path_b, "y u v", tmp_path, "yuv420p"))
    quality = Quality.of(a.planes, b.planes, rgb=False)
    for name, column in zip(("y", "cb", "cr"), expected.T, strict=True):
        assert quality.frames[name] == pytest.approx(column, abs=0.01)
    means = expected.mean(axis=0)
    report = quality.as_dict()
    assert list(report) == ["y", "cb", "cr", "yuv611"]
    assert report["yuv611"] == pytest.approx((6 * means[0] + means[1] + means[2]) / 8, abs=0.01)
    assert all(value == round(value, 4) for value in report.values())


def test_rgb_psnr_is_that_of_the_mean_over_three_planes(
    make_video: Callable[..., Path], ffmpeg: Callable[..., bytes], tmp_path: Path
) -> None:
    a, b, path_a, path_b = _clips(make_video, "rgb24")
    expected = _ffmpeg_psnr(ffmpeg, path_a, path_b, "avg", tmp_path, "rgb24")
    quality = Quality.of(a.planes, b.planes, rgb=True)
    assert quality.headline == pytest.approx(np.ravel(expected), abs=0.01)
    assert quality.as_dict() == {"rgb": pytest.approx(np.mean(expected), abs=0.01)}


def test_joined_quality_equals_that_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    shapes = ((5, 6, 4), (5, 3, 2), (5, 3, 2))
    a, b = (tuple(rng.integers(0, 256, shape, np.uint8) for shape in shapes) for _ in range(2))
    parts = [Quality.of(tuple(x[s] for x in a), tuple(x[s] for x in b), rgb=False) for s in (slice(2), slice(2, 5))]
    assert Quality.join(parts).as_dict() == Quality.of(a, b, rgb=False).as_dict()


def test_clips_of_different_lengths_cannot_be_compared() -> None:
    def planes(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(np.zeros((count, 2, 2), np.uint8) for _ in range(3))

    for pair in ((3, 2), (0, 0)):
        with pytest.raises(ValueError, match="frames"):
            Quality.of(planes(pair[0]), planes(pair[1]), rgb=True)
