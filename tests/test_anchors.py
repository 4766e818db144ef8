"""The anchors: what their commands make is the clip, whole and in order, and what is counted of it is the pictures alone."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nvc.bitstream.errors import MachineError
from nvc.codec.report import anchors
from nvc.codec.report.anchors import ANCHORS, SETS, Anchor

FFmpeg = Callable[..., bytes]
MESSAGES = (b"x264 - core", b"x265 (build")
WIDTH, HEIGHT, FRAMES = 96, 64, 20
MOVING = f"testsrc2=s={WIDTH}x{HEIGHT}:r=25"

each_anchor = pytest.mark.parametrize("anchor", ANCHORS.values(), ids=ANCHORS)
each_set = pytest.mark.parametrize("settings", SETS)


def run(args: list[str], **kwargs: object) -> None:
    done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr


def hashes(ffmpeg: FFmpeg, path: Path) -> list[str]:
    listing = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "framehash", "-").decode()
    return [line.split(",")[-1].strip() for line in listing.splitlines() if not line.startswith("#")]


def luma(ffmpeg: FFmpeg, path: Path) -> NDArray[np.float64]:
    planes = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    return np.frombuffer(planes, np.uint8).reshape(-1, HEIGHT * WIDTH).astype(np.float64)


def coded(ffmpeg: FFmpeg, path: Path) -> NDArray[np.float64]:
    planes = ffmpeg("-noautorotate", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-")
    return np.frombuffer(planes, np.uint8).astype(np.float64)


def stamps(ffmpeg: FFmpeg, path: Path) -> list[float]:
    log = ffmpeg("-i", path, "-copyts", "-fps_mode", "passthrough", "-vf", "showinfo", "-f", "null", "-", stderr=True).decode()
    return [float(found) for found in re.findall(r" pts_time:(\S+)", log)]


def units(stream: bytes) -> list[bytes]:
    """The NAL units of a byte stream (H.264 and HEVC, Annex B), without start codes and the zeros around them."""
    return [unit.rstrip(b"\0") for unit in re.split(rb"\x00\x00\x01", stream)[1:]]


def obu_types(stream: bytes) -> list[int]:
    """The types of the OBUs of an AV1 stream (5.3): every header is followed by a size in LEB128."""
    types, at = [], 0
    while at < len(stream):
        types.append(stream[at] >> 3 & 15)
        assert stream[at] & 2, "no size"
        at += 2 if stream[at] & 4 else 1
        size = shift = 0
        while True:
            byte = stream[at]
            size, shift, at = size | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        at += size
    assert at == len(stream)
    return types


@pytest.fixture
def clip(make_video: Callable[..., Path]) -> Path:
    return make_video("source.mkv", MOVING, FRAMES, "-pix_fmt", "yuv420p", "-c:v", "ffv1")


@each_set
@each_anchor
def test_a_file_and_its_stream_are_the_clip_frame_by_frame(
    anchor: Anchor, settings: str, clip: Path, tmp_path: Path, ffmpeg: FFmpeg
) -> None:
    file, stream = tmp_path / f"a{anchor.ending}", tmp_path / "a.stream"
    run(anchors.encode_args(anchor, settings, 18, str(clip), str(file)))
    run(anchors.elementary_args(anchor, str(file), str(stream)))
    assert len(hashes(ffmpeg, file)) == FRAMES
    assert hashes(ffmpeg, stream) == hashes(ffmpeg, file)
    source, coded = luma(ffmpeg, clip), luma(ffmpeg, file)
    nearest = [int(np.argmin(((source - frame) ** 2).sum(axis=1))) for frame in coded]
    assert nearest == list(range(FRAMES))


@each_anchor
def test_the_stream_is_what_the_encoder_writes_without_its_message(
    anchor: Anchor, clip: Path, tmp_path: Path, ffmpeg: FFmpeg
) -> None:
    """Against a stream that never was in a file, of which the messages are taken out here."""
    file, stream, direct = tmp_path / f"a{anchor.ending}", tmp_path / "a.stream", tmp_path / "direct"
    args = anchors.encode_args(anchor, "benchmark", 33, str(clip), str(file))
    run(args)
    run([*args[:-1], "-f", anchor.stream[-1], str(direct)])
    run(anchors.elementary_args(anchor, str(file), str(stream)))
    found, whole = stream.read_bytes(), direct.read_bytes()
    if anchor.id == "svtav1":
        assert found == whole
        assert set(obu_types(found)) <= {1, 2, 3, 4, 6}  # sequence header, delimiter, frames: neither metadata nor padding
        return
    kind = {"x264": lambda unit: unit[0] & 31, "x265": lambda unit: unit[0] >> 1 & 63}[anchor.id]
    message = {"x264": 6, "x265": 39}[anchor.id]
    assert any(text in file.read_bytes() for text in MESSAGES) and any(text in whole for text in MESSAGES)
    assert not any(text in found for text in MESSAGES)
    assert units(found) == [unit for unit in units(whole) if kind(unit) != message]
    start_codes = 4 * len(units(found))
    assert sum(map(len, units(found))) < len(found) <= sum(map(len, units(found))) + start_codes


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="needs two cores to choose of")
@each_anchor
def test_benchmark_files_are_the_same_on_one_core_and_on_all(anchor: Anchor, clip: Path, tmp_path: Path) -> None:
    made = []
    for name, cores in (("one", {min(os.sched_getaffinity(0))}), ("all", os.sched_getaffinity(0))):
        file = tmp_path / f"{name}{anchor.ending}"
        args = anchors.encode_args(anchor, "benchmark", 30, str(clip), str(file))
        run(args, preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores))
        made.append(file.read_bytes())
    assert made[0] == made[1]


@each_anchor
def test_frames_of_a_variable_rate_keep_their_times_and_begin_at_0(
    anchor: Anchor, make_video: Callable[..., Path], tmp_path: Path, ffmpeg: FFmpeg
) -> None:
    irregular = "settb=1/1000,setpts=N*40+mod(N*N*7\\,31)-17*mod(N\\,2)+1234"
    options = ("-vf", irregular, "-fps_mode", "passthrough", "-enc_time_base", "1/1000", "-copyts")
    source = make_video("vfr.mkv", MOVING, FRAMES, *options, "-pix_fmt", "yuv420p", "-c:v", "ffv1")
    wanted = stamps(ffmpeg, source)
    assert wanted[0] == 1.234 and len({round(b - a, 3) for a, b in pairwise(wanted)}) > 5
    for variable in (False, True):
        file = tmp_path / f"{variable}{anchor.ending}"
        run(anchors.encode_args(anchor, "benchmark", 36, str(source), str(file), variable_rate=variable))
        assert len(hashes(ffmpeg, file)) == FRAMES
    assert stamps(ffmpeg, file) == pytest.approx([stamp - wanted[0] for stamp in wanted], abs=2e-4)


@each_anchor
def test_colour_and_orientation_are_handed_on_and_samples_are_coded_as_they_are(
    anchor: Anchor, make_video: Callable[..., Path], tmp_path: Path, ffmpeg: FFmpeg
) -> None:
    ramp = "geq=lum='mod(4*X+N,256)':cb=128:cr=128,format=yuv420p"
    tags = "setparams=range=pc:color_primaries=bt470bg:color_trc=smpte170m:colorspace=bt470bg"
    plain = make_video("plain.mkv", MOVING, 4, "-vf", f"{ramp},{tags}", "-color_range", "pc", "-c:v", "ffv1")
    source = tmp_path / "turned.mkv"
    ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", source)
    file = tmp_path / f"a{anchor.ending}"
    run(anchors.encode_args(anchor, "benchmark", min(anchor.ladder), str(source), str(file)))
    told = ffmpeg("-i", file, "-f", "null", "-", stderr=True).decode()
    assert re.search(rf"yuvj?420p\(pc, bt470bg/bt470bg/smpte170m, progressive\), {WIDTH}x{HEIGHT}", told)
    assert "rotation of 90" in told
    assert np.abs(coded(ffmpeg, file) - coded(ffmpeg, source)).mean() < 3  # a wrong range would be 8 off on average


@each_anchor
def test_benchmark_keyframes_are_300_frames_apart(
    anchor: Anchor, make_video: Callable[..., Path], tmp_path: Path, ffmpeg: FFmpeg
) -> None:
    source = make_video("still.mkv", "color=gray:s=32x32:r=25", 310, "-pix_fmt", "yuv420p", "-c:v", "ffv1")
    file = tmp_path / f"a{anchor.ending}"
    run(anchors.encode_args(anchor, "benchmark", 40, str(source), str(file)))
    keys = ("-skip_frame", "nokey", "-i", file, "-fps_mode", "passthrough")
    log = ffmpeg(*keys, "-vf", "showinfo", "-f", "null", "-", stderr=True)
    assert [float(found) * 25 for found in re.findall(rb" pts_time:(\S+)", log)] == [0, 300]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("x264", "benchmark", "threads=1 subme=10 psy=0 aq=1:0.00 bframes=8 keyint=300"),
        ("x265", "benchmark", "frame-threads=1 no-wpp rd=6 psy-rd=0.00 bframes=8 keyint=300"),
        ("x264", "user", "subme=7 psy=1 aq=1:1.00 bframes=3 keyint=250"),
        ("x265", "user", "rd=3 psy-rd=2.00 bframes=4 keyint=250"),
    ],
)
def test_the_encoders_own_message_tells_the_settings_of_the_set(
    name: str, settings: str, words: str, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_video("tall.mkv", "testsrc2=s=256x192:r=25", 3, "-pix_fmt", "yuv420p", "-c:v", "ffv1")  # three wavefronts
    file = tmp_path / "a.mp4"
    run(anchors.encode_args(ANCHORS[name], settings, 36, str(source), str(file)))
    told = set(re.findall(rb"[\w.:=-]+", file.read_bytes()))
    assert {word.encode() for word in words.split()} <= told


@each_set
@pytest.mark.parametrize("name", ["x264", "x265"])
def test_anchors_use_b_frames(name: str, settings: str, clip: Path, tmp_path: Path, ffmpeg: FFmpeg) -> None:
    file = tmp_path / "a.mp4"
    run(anchors.encode_args(ANCHORS[name], settings, 36, str(clip), str(file)))
    log = ffmpeg("-i", file, "-vf", "showinfo", "-f", "null", "-", stderr=True).decode()
    assert re.findall(r" type:(\w)", log).count("B") > FRAMES // 3


@pytest.mark.parametrize("size", ["64x48", "63x48", "64x47", "16x16", "14x64", "64x14", "17x17", "4x4", "2x2", "64x2"])
@each_anchor
def test_what_is_refused_is_what_the_encoder_does_not_take(
    anchor: Anchor, size: str, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    width, height = map(int, size.split("x"))
    source = make_video("source.mkv", MOVING, 3, "-vf", f"scale={width}:{height}", "-pix_fmt", "yuv420p", "-c:v", "ffv1")
    args = anchors.encode_args(anchor, "user", 40, str(source), str(tmp_path / f"a{anchor.ending}"))
    done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    refusal = anchors.refusal(anchor, width, height, ANCHORS)
    assert bool(refusal) == bool(done.returncode), done.stderr
    if refusal:
        assert size in refusal
        assert re.search("divisible|multiple|too small|frame size", anchors.complaint(done.stderr))


@each_anchor
def test_a_failure_that_is_not_the_encoders_is_no_complaint(anchor: Anchor, tmp_path: Path, clip: Path) -> None:
    for source, output in (("missing.mkv", "a"), (str(clip), "no/such/folder/a")):
        args = anchors.encode_args(anchor, "user", 40, source, output + anchor.ending)
        done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode and done.stderr and anchors.complaint(done.stderr) == ""


@each_anchor
def test_names_are_names_whatever_they_look_like(anchor: Anchor, clip: Path, tmp_path: Path) -> None:
    for stem in ("-an", "a:b", "pipe:1", "with space", "über", "100%d"):
        os.link(clip, tmp_path / f"{stem}.mkv")
        run(anchors.encode_args(anchor, "user", 50, f"{stem}.mkv", stem + anchor.ending), cwd=tmp_path)
        run(anchors.elementary_args(anchor, stem + anchor.ending, f"{stem}.stream"), cwd=tmp_path)
        assert (tmp_path / f"{stem}.stream").stat().st_size > 100


@each_anchor
def test_ladders_go_from_coarse_to_fine(anchor: Anchor, clip: Path, tmp_path: Path) -> None:
    assert all(a > b for a, b in pairwise(anchor.ladder)) and len(anchor.ladder) >= 8
    sizes = []
    for crf in anchor.ladder:
        file, stream = tmp_path / f"a{anchor.ending}", tmp_path / "a.stream"
        run(anchors.encode_args(anchor, "user", crf, str(clip), str(file)))
        run(anchors.elementary_args(anchor, str(file), str(stream)))
        sizes.append(stream.stat().st_size)
    assert all(1 < b / a < 1.8 for a, b in pairwise(sizes)), sizes


@each_set
@each_anchor
def test_the_command_that_is_shown_is_the_one_that_runs(anchor: Anchor, settings: str) -> None:
    real = anchors.encode_args(anchor, settings, 30, "a b.mkv", "c.mp4")
    assert shlex.split(anchors.text(real)) == ["ffmpeg", *real[1:]]
    placed = anchors.template(anchor, settings).split()
    filled = [{"RATE": "30", "SOURCE": "s.mkv", "OUTPUT.mp4": "o.mp4"}.get(word, word) for word in placed]
    assert filled == ["ffmpeg", *anchors.encode_args(anchor, settings, 30, "s.mkv", "o.mp4")[1:]]
    assert placed.count("RATE") == placed.count("SOURCE") == placed.count("OUTPUT.mp4") == 1


def test_an_encoder_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho ' V..... = Video\n ------\n V....D libx264   libx264 H.264\n A....D libx265ish  no'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    assert anchors.available() == {"x264"}
    assert anchors.refusal(ANCHORS["x264"], 64, 64, anchors.available()) == ""
    assert "libx265" in anchors.refusal(ANCHORS["x265"], 64, 64, anchors.available())
    fake.write_text("#!/bin/sh\necho broken library >&2\nexit 127\n")
    with pytest.raises(MachineError, match="broken library"):
        anchors.available()


def test_the_bundled_ffmpeg_has_all_anchors() -> None:
    assert anchors.available() == set(ANCHORS)
