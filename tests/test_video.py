"""nvc.codec.video: the planes are those of a plain ffmpeg, and nothing about the source is lost in silence."""

from __future__ import annotations

import io
import socket
import sys
import types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.bitstream.errors import InputError, MachineError, NvcError, UsageError
from nvc.codec.orientation import ORIENTATIONS, identify
from nvc.codec.timing import timing
from nvc.codec.video import Clip, ReadOptions, read_clip

Make = Callable[..., Path]
Raw = Callable[..., NDArray[np.uint8]]
FFmpeg = Callable[..., bytes]
FFV1 = ("-c:v", "ffv1", "-pix_fmt")
X264 = ("-c:v", "libx264", "-qp", "12", "-pix_fmt", "yuv420p")


def samples(clip: Clip) -> NDArray[np.uint8]:
    """The samples of a clip as ffmpeg's rawvideo lays them out, flat."""
    count = len(clip.pts)
    assert [plane.shape for plane in clip.planes] == [(count, *shape) for shape in clip.header.plane_shapes()]
    if clip.header.pixel_format == 1:
        return np.stack(clip.planes, axis=-1).reshape(-1)
    return np.concatenate([plane.reshape(count, -1) for plane in clip.planes], axis=1).reshape(-1)


def read(path: Path, **options: object) -> Clip:
    return read_clip(str(path), ReadOptions(**options))  # type: ignore[arg-type]


# ---- samples


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24"])
def test_planes_equal_those_of_ffmpeg(make_video: Make, raw: Raw, pix_fmt: str) -> None:
    path = make_video("a.mp4", "testsrc2=s=64x48:r=25", 40, *X264)  # B-frames: order of decoding is not that of showing
    clip = read(path, pix_fmt=pix_fmt)
    assert np.array_equal(samples(clip), raw(path, "-pix_fmt", pix_fmt))
    assert clip.header.frame_count == len(clip.pts) == 40
    assert not [note for note in clip.notes if "damaged" in note]


@pytest.mark.parametrize("size", ["17x31", "1x1", "2x1"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24"])
def test_odd_sizes_are_read_whole(make_video: Make, raw: Raw, size: str, pix_fmt: str) -> None:
    path = make_video("odd.mkv", f"mandelbrot=s=64x64:r=25,scale={size}", 2, *FFV1, "yuv420p")
    clip = read(path, pix_fmt=pix_fmt)
    assert f"{clip.header.width}x{clip.header.height}" == size
    assert np.array_equal(samples(clip), raw(path, "-pix_fmt", pix_fmt))


def test_one_frame_clip(make_video: Make) -> None:
    clip = read(make_video("one.mp4", "testsrc2=s=64x48:r=30000/1001", 1, *X264))
    assert (clip.header.frame_count, clip.pts, clip.header.frame_rate) == (1, (0,), Fraction(30000, 1001))


def test_crop_is_centred_and_comes_before_scale(make_video: Make, raw: Raw) -> None:
    path = make_video("a.mkv", "testsrc2=s=64x48:r=25", 3, *FFV1, "yuv420p")
    clip = read(path, crop=(40, 20), scale=(30, 16))
    assert np.array_equal(samples(clip), raw(path, "-vf", "crop=40:20:12:14,scale=30:16:flags=bicubic"))
    whole = read(path).planes
    cropped = read(path, crop=(31, 17)).planes
    assert np.array_equal(cropped[0], whole[0][:, 14 : 14 + 17, 16 : 16 + 31])
    assert np.array_equal(cropped[1], whole[1][:, 7 : 7 + 9, 8 : 8 + 16])


def test_scale_keeps_the_displayed_shape(make_video: Make) -> None:
    path = make_video("a.mkv", "testsrc2=s=64x48:r=25,setsar=4/3", 2, *FFV1, "yuv420p")
    header = read(path, scale=(64, 24)).header
    assert header.par * Fraction(64, 24) == Fraction(4, 3) * Fraction(64, 48)


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "note"),
    [
        ("yuv422p10le", "ffv1", "converted yuv422p10le to yuv420p"),
        ("yuv444p", "ffv1", "converted yuv444p to yuv420p"),
        ("gray", "ffv1", "converted gray to yuv420p"),
        ("yuva420p", "ffv1", "left out: the alpha channel"),
    ],
)
def test_other_pixel_formats_are_converted_as_ffmpeg_does_and_noted(
    make_video: Make, raw: Raw, pix_fmt: str, codec: str, note: str
) -> None:
    path = make_video("a.mkv", "testsrc2=s=64x48:r=25", 2, "-c:v", codec, "-pix_fmt", pix_fmt)
    clip = read(path)
    assert np.array_equal(samples(clip), raw(path, "-pix_fmt", "yuv420p"))
    assert note in clip.notes


def test_full_range_420_is_read_without_conversion(make_video: Make, raw: Raw) -> None:
    path = make_video("a.mp4", "testsrc2=s=64x48:r=25", 2, "-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuvj420p")
    clip = read(path)
    assert clip.header.full_range == 1
    assert clip.notes == ()
    assert np.array_equal(samples(clip), raw(path))
    assert read(path, scale=(32, 24)).header.full_range == 1


@pytest.mark.parametrize(("size", "matrix", "name"), [("64x48", 6, "BT.601"), ("64x720", 1, "BT.709")])
def test_rgb_source_gets_the_matrix_of_its_height(make_video: Make, raw: Raw, size: str, matrix: int, name: str) -> None:
    path = make_video("a.mkv", f"testsrc2=s={size}:r=25", 2, *FFV1, "bgr0")
    clip = read(path)
    assert (clip.header.matrix, clip.header.full_range) == (matrix, 0)
    assert clip.notes == (f"converted bgr0 to yuv420p with the {name} matrix, limited range",)
    chosen = "bt709" if matrix == 1 else "smpte170m"
    expected = raw(path, "-vf", f"scale=out_color_matrix={chosen}:out_range=tv,format=yuv420p")
    assert np.array_equal(samples(clip), expected)


def test_rgb24_of_an_rgb_source_is_exact(make_video: Make, raw: Raw) -> None:
    path = make_video("a.mkv", "testsrc2=s=17x31:r=25", 3, *FFV1, "bgr0")
    clip = read(path, pix_fmt="rgb24")
    assert (clip.header.matrix, clip.header.full_range, clip.header.pixel_format) == (0, 1, 1)
    assert np.array_equal(clip.planes[2].reshape(-1), raw(path)[0::4])
    assert np.array_equal(clip.planes[0].reshape(-1), raw(path)[2::4])


# ---- properties


def test_colour_tags_aspect_and_chroma_location_are_kept(make_video: Make) -> None:
    tags = "setparams=range=tv:color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc:chroma_location=topleft"
    path = make_video("a.mkv", f"testsrc2=s=64x48:r=25,format=yuv420p,{tags},setsar=128/117:max=1000", 2, "-c:v", "ffv1")
    header = read(path).header
    assert (header.primaries, header.transfer, header.matrix, header.full_range) == (9, 16, 9, 0)
    assert (header.chroma_location, header.par) == (3, Fraction(128, 117))


@pytest.mark.parametrize("exif", sorted(ORIENTATIONS))
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_rotation_and_mirror_are_stored_and_not_applied(
    make_video: Make, ffmpeg: FFmpeg, raw: Raw, tmp_path: Path, exif: int, ending: str
) -> None:
    plain = make_video("plain.mp4", "testsrc2=s=64x48:r=25", 1, *X264)
    path = tmp_path / f"turned.{ending}"
    ffmpeg("-noautorotate", *ORIENTATIONS[exif].args, "-i", plain, "-c", "copy", path)
    clip = read(path)
    assert clip.header.orientation == exif
    assert np.array_equal(samples(clip), raw(plain))
    # What ffmpeg shows is what the EXIF value says.
    shown = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-"), np.uint8)[: 64 * 48]
    assert np.array_equal(ORIENTATIONS[exif].upright(clip.planes[0][0]).reshape(-1), shown)


def test_exif_orientations_are_those_of_the_standard() -> None:
    """EXIF names the sides of the scene at which row 0 and column 0 of the stored picture lie."""
    sides = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
    sides |= {5: "left top", 6: "right top", 7: "right bottom", 8: "left bottom"}
    where = {"top": np.s_[0, :], "bottom": np.s_[-1, :], "left": np.s_[:, 0], "right": np.s_[:, -1]}
    coded = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for exif, text in sides.items():
        row, column = text.split()
        upright = ORIENTATIONS[exif].upright(coded)
        assert set(upright[where[row]].tolist()) == set(coded[0].tolist()), exif
        assert set(upright[where[column]].tolist()) == set(coded[:, 0].tolist()), exif


def test_symmetric_picture_is_taken_as_plainly_rotated() -> None:
    black = np.zeros((4, 4), np.uint8)
    assert [identify(angle, black, black.reshape(-1)) for angle in (0, 180, -180, 90, -90, 270)] == [1, 3, 3, 8, 6, 6]
    assert identify(37.0, black, black.reshape(-1)) is None


def test_what_is_left_out_is_noted(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    subtitle = tmp_path / "s.srt"
    subtitle.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    video = ("-f", "lavfi", "-i", "testsrc2=s=32x32:r=25:d=0.2")
    audio = ("-f", "lavfi", "-i", "sine=d=0.2")
    maps = ("-map", "0", "-map", "1", "-map", "2", "-map", "2", "-map", "3")
    ffmpeg(*video, *video, *audio, "-i", subtitle, *maps, *FFV1, "yuv420p", path)
    left_out = {"1 other video stream", "2 audio streams", "1 subtitle stream"}
    assert set(read(path).notes) == {f"left out: {what}" for what in left_out}


def test_interlaced_source_is_noted(make_video: Make) -> None:
    path = make_video("a.mkv", "testsrc2=s=64x48:r=25,setfield=tff", 3, *FFV1, "yuv420p", "-flags", "+ildct")
    assert any("interlaced" in note for note in read(path).notes)


# ---- ranges


def test_range_is_half_open_and_keeps_time_stamps(make_video: Make) -> None:
    path = make_video("a.mp4", "testsrc2=s=64x48:r=25", 30, *X264)
    whole, part = read(path), read(path, frames=(7, 19))
    assert part.pts == whole.pts[7:19] == tuple(range(7, 19))
    assert part.header.first_pts == 7
    assert all(np.array_equal(a[7:19], b) for a, b in zip(whole.planes, part.planes, strict=True))
    assert read(path, frames=(25, None)).pts == whole.pts[25:]


def test_range_beyond_the_end_gives_fewer_frames_and_a_note(make_video: Make) -> None:
    path = make_video("a.mp4", "testsrc2=s=64x48:r=25", 6, *X264)
    clip = read(path, frames=(4, 9))
    assert clip.header.frame_count == 2
    assert clip.notes == ("asked for frames 4:9, but the video has only 6",)


def test_range_that_begins_beyond_the_end_is_refused(make_video: Make) -> None:
    path = make_video("a.mp4", "testsrc2=s=64x48:r=25", 6, *X264)
    with pytest.raises(InputError, match="6:9") as error:
        read(path, frames=(6, 9))
    assert error.value.code == "input.no_frames"


# ---- time


@pytest.mark.parametrize("ending", ["mp4", "mkv", "y4m"])
@pytest.mark.parametrize("rate", ["25", "30000/1001", "24000/1001", "120", "15/2"])
def test_constant_rate_is_exact_in_every_container(make_video: Make, ending: str, rate: str) -> None:
    codec = {"mp4": X264, "mkv": (*FFV1, "yuv420p"), "y4m": ("-pix_fmt", "yuv420p")}[ending]
    clip = read(make_video(f"a.{ending}", f"testsrc2=s=16x16:r={rate}", 50, *codec))
    assert clip.header.frame_rate == Fraction(rate)
    assert clip.header.time_base == 1 / Fraction(rate)
    assert clip.pts == tuple(range(50))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_variable_rate_gives_no_extra_frames_and_exact_stamps(make_video: Make, ending: str) -> None:
    # Frames 3, 4 and 5 of every ten are dropped: 22 frames over the time of 31.
    drop = "testsrc2=s=32x32:r=25,select='not(between(mod(n,10),3,5))'"
    path = make_video(f"vfr.{ending}", drop, 22, *X264, "-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    kept = [n for n in range(100) if not 3 <= n % 10 <= 5][:22]
    clip = read(path)
    assert clip.header.frame_count == 22
    assert clip.header.frame_rate is None
    assert [stamp * clip.header.time_base for stamp in clip.pts] == [Fraction(n, 25) for n in kept]


def test_late_video_keeps_its_start(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    video = ("-itsoffset", "0.5", "-f", "lavfi", "-i", "testsrc2=s=32x32:r=10:d=1")
    ffmpeg(*video, "-f", "lavfi", "-i", "sine=d=1.5", "-map", "0", "-map", "1", *FFV1, "yuv420p", path)
    assert read(path).pts == tuple(range(5, 15))


stamps_and_bases = st.tuples(st.integers(-1000, 10**6), st.sampled_from([90000, 12800, 1000, 600]))


@settings(deadline=None, max_examples=200)
@given(stamps_and_bases, st.lists(st.integers(1, 5000), max_size=30), st.sampled_from([None, 25, Fraction(24000, 1001)]))
def test_timing_never_moves_a_frame_by_more_than_its_tick(
    first: tuple[int, int], steps: list[int], hint: Fraction | None
) -> None:
    time_base = Fraction(1, first[1])
    pts = np.cumsum([first[0], *steps]).tolist()
    found = timing(pts, time_base, Fraction(hint) if hint else None)
    if found.notes:  # the start was moved on purpose
        return
    moved = [abs(a * found.time_base - b * time_base) for a, b in zip(found.pts, pts, strict=True)]
    assert max(moved) <= 2 * time_base
    if found.frame_rate is None:
        assert max(moved) == 0
    else:
        assert {b - a for a, b in zip(found.pts, found.pts[1:], strict=False)} <= {1 / (found.frame_rate * found.time_base)}


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(50), Fraction(60000, 1001)]),
    st.integers(3, 2000),
    st.booleans(),
)
def test_a_rate_rounded_to_milliseconds_is_recovered(rate: Fraction, count: int, down: bool) -> None:
    pts = [int(n * 1000 / rate) if down else round(n * 1000 / rate) for n in range(count)]
    assert timing(pts, Fraction(1, 1000), rate).frame_rate == rate


def test_one_dropped_frame_is_a_variable_rate() -> None:
    pts = [round(n * 1001 / 30) for n in range(300) if n != 150]
    assert timing(pts, Fraction(1, 1000), Fraction(30000, 1001)).frame_rate is None


@pytest.mark.parametrize("stamps", [[0, None, 2], [0, 2, 1], [0, 0, 1], [None]])
def test_missing_or_disordered_stamps_are_noted(stamps: list[int | None]) -> None:
    found = timing(stamps, Fraction(1, 30), Fraction(30))
    assert found.pts == tuple(range(len(stamps)))
    assert len(found.notes) == 1


# ---- sources


def test_folder_is_read_in_natural_order_at_its_rate(make_video: Make, ffmpeg: FFmpeg, raw: Raw, tmp_path: Path) -> None:
    video = make_video("a.mkv", "testsrc2=s=32x24:r=25", 12, *FFV1, "bgr0")
    folder = tmp_path / "it's 100% é"
    folder.mkdir()
    ffmpeg("-i", video, "-start_number", 1, tmp_path / "f%d.png")
    for n in range(1, 13):
        (tmp_path / f"f{n}.png").rename(folder / f"f{n}.png")
    (folder / "readme.txt").write_text("not a picture")
    clip = read(folder, pix_fmt="rgb24", fps=Fraction(30000, 1001), frames=(2, None))
    assert np.array_equal(samples(clip), raw(video, "-pix_fmt", "rgb24")[2 * 32 * 24 * 3 :])
    assert (clip.header.frame_rate, clip.pts) == (Fraction(30000, 1001), tuple(range(2, 12)))
    assert clip.notes == ()


def test_folder_without_a_rate_is_taken_at_25_and_noted(make_video: Make, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    make_video("f/7.png", "testsrc2=s=32x24", 1)
    clip = read(tmp_path / "f")
    assert clip.header.frame_rate == 25
    assert any("25 frames per second" in note for note in clip.notes)


def test_y4m_on_standard_input(make_video: Make, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("a.y4m", "testsrc2=s=33x17:r=30", 4, "-pix_fmt", "yuv420p")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    assert np.array_equal(samples(read_clip("-")), raw(path))


def test_ffmpeg_never_sees_our_standard_input(make_video: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("a.y4m", "testsrc2=s=16x16:r=25", 1, "-pix_fmt", "yuv420p")
    monkeypatch.setattr(sys, "stdin", None)
    read(path)


def test_names_that_look_like_options_or_protocols_are_files(make_video: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("a.y4m", "testsrc2=s=16x16:r=25", 1, "-pix_fmt", "yuv420p")
    monkeypatch.chdir(path.parent)
    for name in ("-i", "http:x.y4m", "pipe:0"):
        path = path.rename(path.parent / name)
        assert read_clip(name).header.width == 16


# ---- errors


def _audio_only(path: Path, ffmpeg: FFmpeg) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.1", path)


def _garbage(path: Path, ffmpeg: FFmpeg) -> None:
    path.write_bytes(b"these are not the frames you are looking for" * 9)


def _header_only(path: Path, ffmpeg: FFmpeg) -> None:
    path.write_bytes(b"YUV4MPEG2 W16 H16 F25:1\n")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path, _: None, "input.missing"),
        (lambda path, _: path.touch(), "input.empty"),
        (lambda path, _: path.mkdir(), "input.no_images"),
        (_garbage, "input.not_video"),
        (_audio_only, "input.no_video"),
        (_header_only, "input.no_frames"),
    ],
)
def test_unreadable_sources_are_named_in_one_line(
    make: Callable[[Path, FFmpeg], None], code: str, ffmpeg: FFmpeg, tmp_path: Path
) -> None:
    path = tmp_path / "in.wav"
    make(path, ffmpeg)
    with pytest.raises(InputError) as error:
        read(path)
    assert error.value.code == code
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_refusal_tells_why_and_not_only_that(make_video: Make) -> None:
    path = make_video("a.mp4", "testsrc2=s=64x48:r=25", 20, *X264)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="moov atom not found"):
        read(path)


def test_a_playlist_cannot_make_us_open_the_network(tmp_path: Path) -> None:
    path = tmp_path / "a.m3u8"
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n")
        with pytest.raises(InputError):
            read(path)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            server.accept()


def test_pictures_of_several_kinds_are_refused(make_video: Make, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for name in ("f/1.png", "f/2.jpg"):
        make_video(name, "testsrc2=s=32x24", 1)
    with pytest.raises(InputError, match=r"\.jpg, \.png"):
        read(tmp_path / "f")


def test_a_picture_size_that_changes_is_refused(make_video: Make, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    make_video("f/1.png", "testsrc2=s=32x24", 1)
    make_video("f/2.png", "testsrc2=s=24x32", 1)
    with pytest.raises(InputError) as error:
        read(tmp_path / "f", pix_fmt="rgb24")
    assert error.value.code == "input.size_changes"


def test_a_damaged_source_is_noted(make_video: Make) -> None:
    path = make_video("a.mkv", "testsrc2=s=64x48:r=25", 20, *X264)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    assert any("damaged" in note for note in read(path).notes)


def test_a_failing_ffmpeg_is_an_input_error_with_its_last_words(
    make_video: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video("a.y4m", "testsrc2=s=16x16:r=25", 3, "-pix_fmt", "yuv420p")
    fake = tmp_path / "ffmpeg"
    log = "[a @ 0x1] [info] config in time_base: 1/25, frame_rate: 25/1\n"
    log += "[a @ 0x1] [info] n: 0 pts: 0 pts_time:0 fmt:yuv420p cl:left sar:0/1 s:16x16 i:P iskey:1 type:I\n"
    script = f"""#!{sys.executable}
import sys
if "rawvideo" in sys.argv:
    sys.stdout.write("x" * 500)
    sys.stderr.write("[dec @ 0x2] [error] disk on fire\\n")
    sys.exit(3)
sys.stderr.write("[info] Input #0, y4m\\n[info]   Stream #0:0: Video: rawvideo\\n" + {log!r})
"""
    fake.write_text(script)
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    with pytest.raises(InputError, match="disk on fire") as error:
        read(path)
    assert error.value.code == "input.decode"
    assert "\n" not in str(error.value)
    assert f"file:{path}" in str(error.value)


def test_without_ffmpeg_the_machine_is_blamed(make_video: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("a.y4m", "testsrc2=s=16x16:r=25", 1, "-pix_fmt", "yuv420p")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    with pytest.raises(MachineError, match="/nowhere/ffmpeg"):
        read(path)


@pytest.mark.parametrize(
    "options",
    [
        {"frames": (-1, None)},
        {"frames": (3, 3)},
        {"crop": (0, 4)},
        {"crop": (17, 16)},
        {"scale": (70000, 2)},
        {"pix_fmt": "yuv444p"},
        {"fps": Fraction(25)},
    ],
)
def test_options_that_make_no_sense_are_usage_errors(make_video: Make, options: dict[str, object]) -> None:
    path = make_video("a.y4m", "testsrc2=s=16x16:r=25", 1, "-pix_fmt", "yuv420p")
    with pytest.raises(UsageError):
        read(path, **options)


@settings(deadline=None, max_examples=15)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "x"
    path.write_bytes(b"YUV4MPEG2 W4 H2 F25:1\nFRAME\n" + data)
    try:
        clip = read(path)
    except NvcError:
        return
    assert clip.planes[0].shape[1:] == (2, 4)
