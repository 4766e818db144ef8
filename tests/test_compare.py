"""`nvc compare`: its table and its JSON, and a refusal in one line of whatever cannot be compared."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from nvc_files import clip, encoded

from nvc.cli.main import main
from nvc.codec.report.measure import measure
from nvc.codec.video import ReadOptions

Make = Callable[..., Path]
Run = Callable[..., bytes]
FFV1 = ("-c:v", "ffv1")
FRAMES = 24


@dataclass(frozen=True)
class Answer:
    """What one run of the command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def compare(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    def command(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["nvc", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return Answer(int(caught.value.code or 0), *capfd.readouterr())

    return command


@pytest.fixture
def refused(compare: Callable[..., Answer]) -> Callable[..., str]:
    """Runs a comparison that must fail with this code, one line and no figure; gives the line."""

    def check(code: str, exit_code: int, *arguments: object) -> str:
        answer = compare(*arguments)
        assert (answer.code, answer.out) == (exit_code, ""), answer
        line = answer.err.splitlines()[-1]
        assert re.fullmatch(r"nvc: error: .+ \[" + re.escape(code) + r"\]", line), answer.err
        assert "Traceback" not in answer.err and answer.err.count("nvc: error") == 1
        return line

    return check


@pytest.fixture
def reference(make_video: Make) -> Path:
    """A pattern that moves everywhere, with a picture for every time."""
    zoom = "mandelbrot=s=96x64:r=25:start_scale=0.8:end_scale=0.3:end_pts=30"
    return make_video("ref.mkv", zoom, FRAMES, "-pix_fmt", "yuv420p", *FFV1)


@pytest.fixture
def made(reference: Path, ffmpeg: Run, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the reference, through a filter and x264."""

    def make(name: str, filters: str = "null", crf: int = 18) -> Path:
        path = tmp_path / name
        chain = ("-vf", f"{filters},settb=1/25,setpts=N", "-fps_mode", "passthrough")
        ffmpeg("-i", reference, *chain, "-c:v", "libx264", "-crf", crf, "-pix_fmt", "yuv420p", path)
        return path

    return make


WRONG = {
    "neighbours exchanged": ("order", "shuffleframes=0 1 2 4 3 5 6 7"),
    "reversed": ("order", "reverse"),
    "one frame late": ("shift", f"loop=1:1:0,trim=end_frame={FRAMES}"),
    "one frame early": ("shift", "trim=start_frame=1,tpad=stop=1:stop_mode=clone"),
    "a frame dropped and a later one doubled": ("shift", "select=not(eq(n\\,6)),loop=1:1:15"),
    "full range in limited": ("range", "lutyuv=y=val*219/255+16"),
    "limited range expanded": ("range", "lutyuv=y=(val-16)*255/219"),
    "tagged full": ("range", "setparams=range=pc"),
    "a frame missing": ("frames", f"trim=end_frame={FRAMES - 1}"),
    "another size": ("size", "scale=64:48"),
}


@pytest.mark.parametrize("crf", [18, 30])
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_show_the_same_frames_is_refused_not_averaged(
    name: str, crf: int, refused: Callable[..., str], reference: Path, made: Callable[..., Path], ffmpeg: Run, tmp_path: Path
) -> None:
    code, filters = WRONG[name]
    if name == "tagged full":
        tagged = tmp_path / "tagged.mkv"
        ffmpeg("-i", reference, "-vf", "setparams=range=tv", *FFV1, tagged)
        reference = tagged
    wrong = made("wrong.mkv", filters, crf)
    line = refused(f"compare.{code}", 6, reference, wrong, "--metrics", "psnr")
    assert str(wrong) in line
    refused(f"compare.{code}", 6, reference, reference, wrong, "--metrics", "psnr")  # the good one is not printed either


@pytest.mark.parametrize("crf", [18, 35, 45, 51])
def test_a_right_pair_has_a_row_however_poor_it_is(
    crf: int, compare: Callable[..., Answer], reference: Path, made: Callable[..., Path]
) -> None:
    path = made("right.mkv", crf=crf)
    answer = compare(reference, path, "--metrics", "psnr", "-q")
    assert (answer.code, answer.err) == (0, "")
    head, row = (line.split() for line in answer.out.splitlines())
    assert head == ["file", "bytes", "bpp", "PSNR-Y", "min", "p5", "6:1:1"]
    quality = measure(str(reference), str(path), metrics=("psnr",)).quality()
    size = path.stat().st_size
    y = quality["psnr_y"]
    figures = [y["mean"], y["min"], y["p5"], quality["psnr_611"]["mean"]]
    assert row[1:] == [str(size), f"{8 * size / (96 * 64 * FRAMES):.4f}", *(f"{figure:.2f}" for figure in figures)]


def test_json_holds_everything(compare: Callable[..., Answer], reference: Path, made: Callable[..., Path]) -> None:
    path = made("right.mkv")
    answer = compare(reference, path, reference, "--json", "--per-frame", "--metrics", "psnr,ms_ssim,xpsnr,rgb")
    document = json.loads(answer.out)
    assert {**document, "results": 0} == {
        "reference": str(reference), "frames": FRAMES, "width": 96, "height": 64, "pix_fmt": "yuv420p", "results": 0,
    }  # fmt: skip
    first, second = document["results"]
    assert (first["file"], first["bytes"]) == (str(path), path.stat().st_size)
    assert first["bpp"] == pytest.approx(8 * first["bytes"] / (96 * 64 * FRAMES), abs=1e-6)
    assert set(first["quality"]) == set(first["per_frame"]) == {
        *("psnr_y", "psnr_cb", "psnr_cr", "psnr_611", "psnr_rgb", "ms_ssim", "xpsnr_y", "xpsnr_cb", "xpsnr_cr")
    }  # fmt: skip
    for metric, values in first["per_frame"].items():
        assert len(values) == FRAMES
        assert first["quality"][metric]["mean"] == pytest.approx(sum(values) / FRAMES, abs=2e-4)
        assert first["quality"][metric]["min"] == min(values)
    assert any("MS-SSIM by nvc" in note for note in first["notes"]) and "nvc: " in answer.err
    assert second["quality"]["psnr_y"]["mean"] == 100
    assert "per_frame" not in json.loads(compare(reference, path, "--json", "--metrics", "psnr").out)["results"][0]


def test_an_nvc_file_is_compared_with_what_was_encoded(compare: Callable[..., Answer], ffmpeg: Run, tmp_path: Path) -> None:
    source, path = tmp_path / "source.yuv", tmp_path / "x.nvc"
    planes = clip().planes
    source.write_bytes(b"".join(plane[t].tobytes() for t in range(5) for plane in planes))
    larger = tmp_path / "larger.mkv"
    ffmpeg("-f", "rawvideo", "-s", "32x24", "-r", 25, "-i", source, "-vf", "pad=48:40:8:8,tpad=start=2", *FFV1, larger)
    path.write_bytes(encoded())
    answer = compare(larger, path, "--frames", "2:7", "--crop", "32x24", "--metrics", "psnr", "--json")
    result = json.loads(answer.out)["results"][0]
    assert result["bytes"] == len(encoded()) and 5 < result["quality"]["psnr_y"]["mean"] < 60


def test_scale_takes_of_the_reference_what_encode_takes(
    compare: Callable[..., Answer], reference: Path, ffmpeg: Run, tmp_path: Path
) -> None:
    from nvc.codec.video import read_clip

    source = read_clip(str(reference), ReadOptions(frames=(2, 9), scale=(50, 34)))
    raw, scaled = tmp_path / "scaled.yuv", tmp_path / "scaled.mkv"
    raw.write_bytes(b"".join(plane[t].tobytes() for t in range(7) for plane in source.planes))
    ffmpeg("-f", "rawvideo", "-s", "50x34", "-r", 25, "-i", raw, *FFV1, scaled)
    answer = compare(reference, scaled, "--frames", "2:9", "--scale", "50x34", "--metrics", "psnr", "--json")
    assert json.loads(answer.out)["results"][0]["quality"]["psnr_611"]["min"] == 100


def test_standard_input_may_be_one_of_the_two(reference: Path, refused: Callable[..., str]) -> None:
    for files in ((str(reference), "-"), ("-", str(reference))):
        command = [sys.executable, "-m", "nvc.cli", "compare", *files, "--metrics", "psnr", "-q"]
        with reference.open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "") and "100.00" in done.stdout
    refused("usage.stdin", 2, "-", "-")
    refused("usage.stdin", 2, "-", reference, reference)


def test_bad_arguments_and_files_are_one_line(
    refused: Callable[..., str], reference: Path, made: Callable[..., Path], tmp_path: Path
) -> None:
    half = tmp_path / "half.mp4"
    half.write_bytes(made("whole.mp4").read_bytes()[:900])
    (tmp_path / "empty").mkdir()
    refused("input.missing", 3, reference, tmp_path / "none.mkv")
    refused("input.missing", 3, tmp_path / "none.mkv", reference)
    refused("input.no_images", 3, reference, tmp_path / "empty")
    refused("input.not_video", 3, reference, half)
    refused("usage.metrics", 2, reference, reference, "--metrics", "psnr,quality")
    refused("usage.metrics", 2, reference, reference, "--metrics", ",")
    refused("usage.per_frame", 2, reference, reference, "--per-frame")
    refused("usage", 2, reference)
    refused("usage.crop", 2, reference, reference, "--crop", "500x500")


def test_pictures_may_be_compared_with_a_video(
    compare: Callable[..., Answer], make_video: Make, ffmpeg: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    video = make_video("rgb.mkv", "testsrc2=s=32x24:r=25", 4, "-pix_fmt", "gbrp", *FFV1)
    ffmpeg("-i", video, folder / "%d.png")
    result = json.loads(compare(video, folder, "--metrics", "psnr", "--json").out)["results"][0]
    assert (result["bytes"], result["bpp"], result["quality"]["psnr_rgb"]["mean"]) == (None, None, 100)
    assert compare(video, folder, "--metrics", "psnr", "-q").out.splitlines()[1].split()[1:3] == ["-", "-"]
