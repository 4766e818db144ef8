"""nvc.codec.metrics: exact sums, the cap, and agreement with ffmpeg's psnr filter and the formulas and programs of MS-SSIM."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.codec.metrics import IDENTICAL_DB, Quality, ms_ssim, plane_mse, psnr
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


# ---- MS-SSIM


def _windows(plane: np.ndarray) -> np.ndarray:
    """Weighted mean of every 11 x 11 window, in the words of the paper: w = exp(-r^2 / (2 1.5^2)), normalised to sum 1."""
    y, x = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    return np.einsum("hwij,ij->hw", np.lib.stride_tricks.sliding_window_view(plane, (11, 11)), window / window.sum())


def _twin(a: np.ndarray, b: np.ndarray) -> float:
    """MS-SSIM of two planes by the formulas of the paper; an odd side is mirrored before it is halved."""
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    a, b, terms = a.astype(float), b.astype(float), []
    while min(a.shape) >= 11 and len(terms) < 5:
        mean_a, mean_b = _windows(a), _windows(b)
        covariance = _windows(a * b) - mean_a * mean_b
        variances = _windows(a * a) - mean_a**2 + _windows(b * b) - mean_b**2
        contrast = (2 * covariance + 7.65**2) / (variances + 7.65**2)
        luminance = (2 * mean_a * mean_b + 2.55**2) / (mean_a**2 + mean_b**2 + 2.55**2)
        terms.append((max(contrast.mean(), 0), max((luminance * contrast).mean(), 0)))
        a, b = (np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2)), mode="symmetric") for x in (a, b))
        a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
    used = np.array(weights[: len(terms)]) / (sum(weights[: len(terms)]) if len(terms) < 5 else 1)  # five sum to 1.0001
    values = [contrast for contrast, _ in terms[:-1]] + [terms[-1][1]]
    return float(np.prod(np.array(values) ** used))


@pytest.mark.parametrize("size", [(11, 11), (20, 11), (21, 30), (24, 33), (45, 90), (161, 163)])
def test_ms_ssim_is_that_of_the_paper_at_any_size(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(size)
    a = generator.integers(0, 256, (2, *size)).astype(np.uint8)
    b = np.clip(a + generator.normal(0, [[[20]], [[70]]], a.shape), 0, 255).astype(np.uint8)
    expected = [_twin(x, y) for x, y in zip(a, b, strict=True)]
    assert ms_ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert ms_ssim(b, a) == pytest.approx(expected, abs=1e-9)
    assert expected[1] < expected[0] < 0.999


def test_ms_ssim_is_that_of_pytorch_msssim(make_video: Callable[..., Path]) -> None:
    import torch
    from pytorch_msssim import ms_ssim as theirs

    planes = []
    for name, filters in (("a.mkv", ""), ("b.mkv", ",gblur=2,noise=alls=20:allf=t")):
        source = make_video(name, "testsrc2=s=192x176:r=25" + filters, 3, "-c:v", "ffv1", "-pix_fmt", "yuv420p")
        planes.append(read_clip(str(source)).planes[0])
    a, b = (torch.from_numpy(plane.astype(np.float64))[:, None] for plane in planes)
    found = ms_ssim(*planes)
    assert found.shape == (3,) and (found < 0.98).all()
    assert found == pytest.approx(theirs(a, b, size_average=False).numpy(), abs=1e-5)


def test_ms_ssim_of_identical_and_of_opposite_planes() -> None:
    plane = np.random.default_rng(2).integers(0, 256, (2, 40, 30), np.uint8)
    assert ms_ssim(plane, plane).tolist() == [1, 1]
    assert ms_ssim(np.zeros_like(plane), np.zeros_like(plane)).tolist() == [1, 1]
    assert ms_ssim(plane, 255 - plane).tolist() == [0, 0]


@pytest.mark.parametrize("shapes", [((1, 10, 40), (1, 10, 40)), ((1, 40, 10), (1, 40, 10)), ((2, 20, 20), (1, 20, 20))])
def test_planes_without_ms_ssim_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="planes of"):
        ms_ssim(*(np.zeros(shape, np.uint8) for shape in shapes))


def _noisy(rgb: bool) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    generator = np.random.default_rng(4)
    shapes = [(3, 22, 26)] * 3 if rgb else [(3, 22, 26), (3, 11, 13), (3, 11, 13)]
    a = tuple(generator.integers(0, 200, shape).astype(np.uint8) for shape in shapes)
    return a, tuple(plane + generator.integers(0, 10 + 20 * n, plane.shape).astype(np.uint8) for n, plane in enumerate(a))


def test_quality_has_ms_ssim_of_luma_or_of_all_three_rgb_planes_when_asked() -> None:
    a, b = _noisy(rgb=False)
    assert Quality.of(a, b, rgb=False).similarity_as_dict() == {}
    luma = Quality.of(a, b, rgb=False, similarity=True)
    assert luma.similarity_as_dict() == {"ms_ssim_y": round(float(ms_ssim(a[0], b[0]).mean()), 6)}
    assert luma.as_dict() == Quality.of(a, b, rgb=False).as_dict()
    a, b = _noisy(rgb=True)
    mean = np.mean([ms_ssim(x, y) for x, y in zip(a, b, strict=True)])
    assert Quality.of(a, b, rgb=True, similarity=True).similarity_as_dict() == {"ms_ssim_rgb": round(float(mean), 6)}


def test_quality_of_pictures_under_the_window_has_no_ms_ssim() -> None:
    planes = tuple(np.zeros((2, side, 16), np.uint8) for side in (10, 5, 5))
    assert Quality.of(planes, planes, rgb=False, similarity=True).similarity_as_dict() == {}


def test_joined_ms_ssim_equals_that_of_the_whole() -> None:
    a, b = _noisy(rgb=False)
    cuts = [tuple(tuple(plane[cut] for plane in clip) for clip in (a, b)) for cut in (slice(1), slice(1, 3))]
    joined = Quality.join([Quality.of(*cut, rgb=False, similarity=True) for cut in cuts])
    assert joined.similarity_as_dict() == Quality.of(a, b, rgb=False, similarity=True).similarity_as_dict() != {}
