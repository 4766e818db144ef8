"""nvc.codec.report.filters: the figures that ffmpeg's filters give who asks them directly, or a note."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.codec.report import filters
from nvc.codec.report.filters import run_filters
from nvc.codec.report.frames import open_video
from nvc.codec.video import ReadOptions

Make = Callable[..., Path]
Run = Callable[..., bytes]
FFV1 = ("-c:v", "ffv1")
FRAMES = 5
ALL = ("ms_ssim", "vmaf", "xpsnr", "rgb")


def measured(
    reference: Path, distorted: Path, metrics: tuple[str, ...] = ALL, count: int = FRAMES, options: ReadOptions | None = None
):  # type: ignore[no-untyped-def]
    with open_video(str(reference), options) as first, open_video(str(distorted), like=first) as second:
        return run_filters(first, second, metrics, count)


@pytest.fixture
def pair(make_video: Make, ffmpeg: Run, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A clip without loss, and x264's or x265's poor copy of it."""

    def make(pix_fmt: str = "yuv420p", size: str = "192x176", rate: str = "25") -> tuple[Path, Path]:
        reference = make_video(f"r{pix_fmt}{size}.mkv", f"mandelbrot=s={size}:r={rate}", FRAMES, "-pix_fmt", pix_fmt, *FFV1)
        distorted = tmp_path / f"d{pix_fmt}{size}.mkv"
        ffmpeg("-i", reference, "-c:v", "libx264", "-crf", "38", "-pix_fmt", pix_fmt, distorted)
        return reference, distorted

    return make


def libvmaf(ffmpeg: Run, folder: Path, reference: Path, distorted: Path, arguments: str, key: str) -> list[float]:
    """What libvmaf says to whoever asks it plainly."""
    log = folder / "direct.json"
    graph = f"[0:v][1:v]libvmaf={arguments}:log_fmt=json:log_path={log}"
    ffmpeg("-i", distorted, "-i", reference, "-lavfi", graph, "-f", "null", "-")
    return [frame["metrics"][key] for frame in json.loads(log.read_text())["frames"]]


def xpsnr(ffmpeg: Run, reference: Path, distorted: Path) -> NDArray[np.float64]:
    """By a plain call, with the original first, as the filter's authors call it."""
    text = ffmpeg("-i", reference, "-i", distorted, "-lavfi", "[0:v][1:v]xpsnr=stats_file=-", "-f", "null", "-").decode()
    return np.array([re.findall(r"XPSNR [yuv]: (\S+)", line) for line in text.splitlines() if line.startswith("n:")], float).T


@pytest.mark.parametrize(("pix_fmt", "rate"), [("yuv420p", "25"), ("yuv422p10le", "25"), ("yuv420p", "60")])
def test_scores_are_those_of_a_direct_call(
    pix_fmt: str, rate: str, pair: Callable[..., tuple[Path, Path]], ffmpeg: Run, tmp_path: Path
) -> None:
    files = pair(pix_fmt, rate=rate)
    series, notes = measured(*files, ("ms_ssim", "vmaf", "xpsnr"))
    assert notes == ()
    direct = (ffmpeg, tmp_path, *files)
    np.testing.assert_allclose(series["vmaf"], libvmaf(*direct, "model=version=vmaf_v0.6.1", "vmaf"), atol=1e-4)
    np.testing.assert_allclose(series["vmaf_neg"], libvmaf(*direct, "model=version=vmaf_v0.6.1neg", "vmaf"), atol=1e-4)
    np.testing.assert_allclose(series["ms_ssim"], libvmaf(*direct, "feature=name=float_ms_ssim", "float_ms_ssim"), atol=1e-6)
    np.testing.assert_allclose([series[f"xpsnr_{plane}"] for plane in ("y", "cb", "cr")], xpsnr(ffmpeg, *files), atol=1e-4)
    assert series["vmaf"].mean() < 95 and not np.allclose(series["vmaf"], series["vmaf_neg"])


def test_frames_meet_by_index_whatever_the_time_stamps_say(
    pair: Callable[..., tuple[Path, Path]], ffmpeg: Run, tmp_path: Path
) -> None:
    reference, distorted = pair()
    uneven = tmp_path / "uneven.mkv"
    ffmpeg("-i", distorted, "-vf", "settb=1/1000,setpts=700+90*N*N", "-fps_mode", "vfr", *FFV1, uneven)
    expected, _ = measured(reference, distorted, ("vmaf", "xpsnr"))
    series, notes = measured(reference, uneven, ("vmaf", "xpsnr"))
    assert notes == ()
    for name, values in expected.items():
        np.testing.assert_allclose(series[name], values, atol=1e-4, err_msg=name)


def test_options_of_the_reference_hold_for_filters_too(
    pair: Callable[..., tuple[Path, Path]], ffmpeg: Run, tmp_path: Path
) -> None:
    reference, _ = pair(size="320x240")
    scaled, distorted = tmp_path / "scaled.mkv", tmp_path / "d.mkv"
    chain = "trim=start_frame=1:end_frame=4,scale=192:176:flags=bicubic"
    ffmpeg("-i", reference, "-vf", chain, "-fps_mode", "passthrough", *FFV1, scaled)
    ffmpeg("-i", scaled, "-c:v", "libx264", "-crf", "38", distorted)
    series, _ = measured(reference, distorted, ("vmaf",), 3, ReadOptions(frames=(1, 4), scale=(192, 176)))
    np.testing.assert_allclose(series["vmaf"], libvmaf(ffmpeg, tmp_path, scaled, distorted, "n_threads=1", "vmaf"), atol=1e-4)


@pytest.mark.parametrize("tags", [(), ("-colorspace", "bt709", "-color_range", "tv")])
def test_rgb_psnr_is_that_of_pictures_which_ffmpeg_extracts(
    tags: tuple[str, ...], pair: Callable[..., tuple[Path, Path]], ffmpeg: Run, tmp_path: Path
) -> None:
    reference, distorted = pair(size="64x48")
    tagged = tmp_path / "tagged.mkv"
    setparams = ("-vf", "setparams=colorspace=bt709:range=tv") if tags else ()
    ffmpeg("-i", reference, *setparams, *FFV1, *tags, tagged)
    same = tmp_path / "same.mkv"
    ffmpeg("-i", distorted, *setparams, *FFV1, *tags, same)
    pictures = []
    for path in (tagged, same):
        ffmpeg("-i", path, tmp_path / f"{path.stem}%d.png")
        decoded = b"".join(ffmpeg("-i", tmp_path / f"{path.stem}{n}.png", "-f", "rawvideo", "-") for n in range(1, FRAMES + 1))
        pictures.append(np.frombuffer(decoded, np.uint8).reshape(FRAMES, -1).astype(float))
    expected = ((pictures[0] - pictures[1]) ** 2).mean(1)
    for other in (same, distorted):  # a copy that has lost its tags is converted as the reference is
        np.testing.assert_allclose(measured(tagged, other, ("rgb",))[0]["mse_rgb"], expected, atol=0.02)


@pytest.mark.parametrize(
    ("pix_fmt", "size"), [("gray", "192x176"), ("gbrp", "64x48"), ("yuv420p", "33x17"), ("yuv444p12le", "48x48")]
)
def test_what_a_filter_does_not_take_is_a_note_and_no_figure(pix_fmt: str, size: str, make_video: Make) -> None:
    path = make_video("a.mkv", f"mandelbrot=s={size}:r=25", FRAMES, "-pix_fmt", pix_fmt, *FFV1)
    series, notes = measured(path, path)
    assert all(len(values) == FRAMES and np.isfinite(values).all() for values in series.values())
    assert ("vmaf" in series) == (pix_fmt == "yuv420p")
    assert any("VMAF" in note for note in notes) == (pix_fmt != "yuv420p")
    assert "ms_ssim" not in series
    assert ("xpsnr_y" in series) == (not any("XPSNR" in note for note in notes)) == (pix_fmt in ("gray", "yuv444p12le"))
    assert ("mse_rgb" in series) == pix_fmt.startswith("yuv")


@pytest.mark.parametrize("lacking", ["a model", "a filter"])
def test_what_this_ffmpeg_lacks_is_a_note_and_leaves_the_others(
    lacking: str, pair: Callable[..., tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pair()
    if lacking == "a model":
        monkeypatch.setitem(filters._MODELS, "vmaf", "vmaf_v9.9.9")
    else:
        missing = filters._Measurement("VMAF", "libvmaf_of_old", "x", filters._read_xpsnr)
        monkeypatch.setattr(filters, "_libvmaf", lambda *_: missing)
    series, notes = measured(*files)
    assert set(series) == {"xpsnr_y", "xpsnr_cb", "xpsnr_cr", "mse_rgb"}
    (note,) = notes
    assert note.startswith("no VMAF") and "\n" not in note


def test_results_for_another_number_of_frames_are_no_results(pair: Callable[..., tuple[Path, Path]]) -> None:
    series, notes = measured(*pair(), ("vmaf", "xpsnr"), FRAMES + 1)
    assert series == {}
    assert len(notes) == 2 and all(f"for {FRAMES + 1} frames" in note for note in notes)


LOGS = {
    filters._read_xpsnr: (
        "n:    1  XPSNR y: 31.27  XPSNR u: 34.3  XPSNR v: inf\nn:    2  XPSNR y: 30.66  XPSNR u: 33.1  XPSNR v: 31.6\n\nXPSNR"
    ),
    filters._read_mse: (
        "n:1 mse_avg:1 mse_r:1.5 mse_g:1.1 mse_b:0.9 psnr_avg:27.1 \nn:2 mse_avg:0 mse_r:0 mse_g:0 mse_b:0 psnr_avg:inf \n"
    ),
    lambda text: filters._read_libvmaf(text, ("vmaf",)): (
        '{"frames": [{"frameNum": 0, "metrics": {"vmaf": 69.9}}, {"metrics": {"vmaf": 1}}]}'
    ),
}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(LOGS)), st.data())
def test_any_log_gives_finite_numbers_or_a_value_error(read: Callable[[str], filters.Series], data: st.DataObject) -> None:
    whole = LOGS[read]
    assert all(len(values) == 2 for values in read(whole).values())
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    head, tail = whole[:start], whole[end:]
    text = data.draw(st.sampled_from([head, head + tail, head + data.draw(st.text()) + tail]))
    try:
        series = read(text)
    except ValueError:
        return
    assert all(np.isfinite(values).all() for values in series.values())
