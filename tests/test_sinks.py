"""nvc.codec.sinks and outputs: what is written is what ffmpeg reads back, and a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import io
import os
import stat
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.bitstream.errors import NvcError, OutputError, UsageError
from nvc.bitstream.header import Header
from nvc.codec.metrics import Planes, Quality
from nvc.codec.outputs import atomic_file, same_file
from nvc.codec.sink import QUEUED, samples, write_all
from nvc.codec.sinks import check_target, open_sink
from nvc.codec.sinks_plain import RawSink
from nvc.codec.video import Clip, ReadOptions, read_clip

Raw = Callable[..., NDArray[np.uint8]]
FFmpeg = Callable[..., bytes]
YUV = Header(width=64, height=48, pixel_format=0)
RGB = Header(width=17, height=31, pixel_format=1, matrix=0, full_range=1)
TAGGED = replace(YUV, primaries=9, transfer=16, matrix=9, full_range=0, chroma_location=3, par=Fraction(128, 117), orientation=6)


def noise(header: Header, count: int) -> Planes:
    """Random samples: what no filter, conversion or prediction leaves unchanged by luck."""
    rng = np.random.default_rng(count)
    a, b, c = (rng.integers(0, 256, (count, *shape), np.uint8) for shape in header.plane_shapes())
    return a, b, c


def smooth(header: Header, count: int) -> Planes:
    """A soft gradient that moves: what a lossy codec keeps well."""
    y, cb, cr = header.plane_shapes()
    rows = [np.add.outer(np.arange(h), np.arange(w)) for h, w in (y, cb, cr)]
    a, b, c = (np.stack([60 + (row + n) % 96 for n in range(count)]).astype(np.uint8) for row in rows)
    return a, b, c


def flat(planes: Planes) -> NDArray[np.uint8]:
    """The samples in the order of ffmpeg's planar rawvideo."""
    return np.concatenate([plane.reshape(len(plane), -1) for plane in planes], axis=1).reshape(-1)


def write(target: Path | str, header: Header, planes: Planes, pts: list[int] | None = None) -> tuple[str, ...]:
    pts = pts or list(range(len(planes[0])))
    with open_sink(str(target), header, overwrite=False) as sink:
        for some in (slice(0, 1), slice(1, None)):  # in two parts, as segments come
            sink.write((planes[0][some], planes[1][some], planes[2][some]), pts[some])
    return sink.notes


def read(path: Path, pix_fmt: str = "yuv420p") -> Clip:
    return read_clip(str(path), ReadOptions(pix_fmt=pix_fmt))


# ---- samples


@pytest.mark.parametrize("size", [(64, 48), (17, 31), (1, 1), (2, 1), (1, 2), (31, 5), (65, 97)])
@pytest.mark.parametrize("ending", ["y4m", "mkv"])
@pytest.mark.parametrize("full_range", [0, 1, 2])
def test_exact_formats_come_back_bit_identical(
    tmp_path: Path, raw: Raw, ending: str, size: tuple[int, int], full_range: int
) -> None:
    header = replace(YUV, width=size[0], height=size[1], full_range=full_range)
    planes = noise(header, 5)
    write(tmp_path / f"a.{ending}", header, planes)
    assert np.array_equal(raw(tmp_path / f"a.{ending}"), flat(planes))
    assert len(os.listdir(tmp_path)) == 1


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.sampled_from([0, 1]))
def test_matroska_round_trip_is_exact(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, count: int, pixel_format: int
) -> None:
    path = tmp_path_factory.mktemp("mkv") / "a.mkv"
    header = Header(width=width, height=height, pixel_format=pixel_format)
    planes = noise(header, count)
    write(path, header, planes)
    back = read(path, "rgb24" if pixel_format else "yuv420p").planes
    assert all(np.array_equal(a, b) for a, b in zip(planes, back, strict=True))


def test_raw_samples_are_the_planes_in_order(tmp_path: Path) -> None:
    for name, header in (("a.yuv", YUV), ("b.yuv", RGB)):
        planes = noise(header, 3)
        notes = write(tmp_path / name, header, planes)
        assert np.array_equal(np.fromfile(tmp_path / name, np.uint8), flat(planes))
        assert ("R, G, B" if header is RGB else "Y, Cb, Cr") in notes[0]


def test_png_folder_of_rgb_is_exact(tmp_path: Path, raw: Raw) -> None:
    planes = noise(RGB, 3)
    assert write(tmp_path / "100% frames", RGB, planes) == ()
    assert sorted(os.listdir(tmp_path / "100% frames")) == ["00001.png", "00002.png", "00003.png"]
    for n in range(3):
        os.rename(tmp_path / "100% frames" / f"0000{n + 1}.png", tmp_path / f"{n}.png")
        expected = np.stack([plane[n] for plane in planes], axis=-1).reshape(-1)
        assert np.array_equal(raw(tmp_path / f"{n}.png", "-pix_fmt", "rgb24"), expected)


@pytest.mark.parametrize(("matrix", "full_range"), [(1, 0), (6, 0), (1, 1)])
def test_png_folder_uses_the_matrix_and_range_of_the_header(tmp_path: Path, raw: Raw, matrix: int, full_range: int) -> None:
    header = replace(YUV, matrix=matrix, full_range=full_range)
    planes = smooth(header, 2)
    notes = write(f"{tmp_path}/png/", header, planes)
    assert "converted to RGB" in notes[0]
    y, cb, cr = (plane[0].astype(float) for plane in planes)
    kr, kb = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}[matrix]
    low, luma, chroma = (0, 255, 255) if full_range else (16, 219, 224)
    cb, cr = (np.kron(c, np.ones((2, 2))) for c in (cb, cr))
    bright, blue, red = (y - low) / luma, (cb - 128) / chroma * 2 * (1 - kb), (cr - 128) / chroma * 2 * (1 - kr)
    green = -(kr * red + kb * blue) / (1 - kr - kb)
    expected = 255 * np.clip(np.stack([bright + red, bright + green, bright + blue], axis=-1), 0, 1)
    difference = raw(tmp_path / "png" / "00001.png", "-pix_fmt", "rgb24").reshape(48, 64, 3) - expected
    assert np.abs(difference).mean() < 2  # chroma interpolation; a wrong matrix or range gives above 5


@pytest.mark.parametrize("header", [YUV, replace(YUV, width=17, height=31, full_range=1), RGB, replace(YUV, full_range=1)])
def test_mp4_is_near_and_says_that_it_is_lossy(tmp_path: Path, header: Header) -> None:
    planes = smooth(header, 6)
    notes = write(tmp_path / "a.mp4", header, planes)
    assert any("lossy" in note for note in notes)
    back = read(tmp_path / "a.mp4", "rgb24" if header.pixel_format else "yuv420p")
    assert (back.header.width, back.header.height, len(back.pts)) == (header.width, header.height, 6)
    quality = Quality.of(planes, back.planes, rgb=header.pixel_format == 1)
    assert quality.headline.min() > 38
    assert any("yuv444p" in note for note in notes) == (header.width % 2 == 1)


# ---- properties


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("full_range", [0, 1])
def test_tags_aspect_and_chroma_location_survive(tmp_path: Path, ending: str, full_range: int) -> None:
    path = tmp_path / f"a.{ending}"
    header = replace(TAGGED, full_range=full_range)
    write(path, header, smooth(header, 3))
    assert replace(read(path).header, frame_count=None) == header


@pytest.mark.parametrize("location", range(1, 7))
@pytest.mark.parametrize("full_range", [0, 1, 2])
def test_chroma_location_survives_in_matroska_or_is_noted(tmp_path: Path, location: int, full_range: int) -> None:
    header = replace(YUV, chroma_location=location, full_range=full_range)
    notes = write(tmp_path / "a.mkv", header, smooth(header, 1))
    assert any("chroma" in note for note in notes) == (location > 4)
    assert read(tmp_path / "a.mkv").header.chroma_location == (0 if location > 4 else location)


@pytest.mark.parametrize("exif", range(1, 9))
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_orientation_survives_and_is_not_applied(tmp_path: Path, ending: str, exif: int) -> None:
    header = replace(YUV, orientation=exif)
    path = tmp_path / f"a.{ending}"
    planes = smooth(header, 1)
    write(path, header, planes)
    back = read(path)
    assert back.header.orientation == exif
    assert Quality.of(planes, back.planes, rgb=False).headline[0] > 38


@pytest.mark.parametrize("full_range", [0, 1])
@pytest.mark.parametrize("location", [1, 2, 3])
def test_y4m_carries_range_aspect_rate_and_chroma_location(tmp_path: Path, full_range: int, location: int) -> None:
    header = replace(
        YUV,
        full_range=full_range,
        chroma_location=location,
        par=Fraction(128, 117),
        frame_rate=Fraction(30000, 1001),
        time_base=Fraction(1001, 30000),
    )
    assert write(tmp_path / "a.y4m", header, noise(header, 2)) == ()
    assert replace(read(tmp_path / "a.y4m").header, frame_count=None) == header


def test_y4m_equals_that_of_ffmpeg(tmp_path: Path, ffmpeg: FFmpeg) -> None:
    header = replace(YUV, full_range=0, chroma_location=1)
    planes = noise(header, 3)
    write(tmp_path / "a.mkv", header, planes)
    write(tmp_path / "a.y4m", header, planes)
    theirs = ffmpeg("-i", tmp_path / "a.mkv", "-f", "yuv4mpegpipe", "-")
    head, _, frames = theirs.partition(b"\n")
    our_head, _, our_frames = (tmp_path / "a.y4m").read_bytes().partition(b"\n")
    assert our_frames == frames
    assert set(our_head.split()) <= set(head.split())


def test_y4m_tells_what_it_does_not_carry(tmp_path: Path) -> None:
    notes = " ".join(write(tmp_path / "a.y4m", TAGGED, noise(TAGGED, 1)))
    for lost in ("primaries", "transfer", "matrix", "rotation"):
        assert lost in notes


# ---- time

VFR_PTS = [0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20, 21, 22, 26, 27, 28, 29, 30]


@pytest.mark.parametrize(
    ("ending", "time_base"), [("mkv", Fraction(1, 25)), ("mp4", Fraction(1, 25)), ("mp4", Fraction(1001, 30000))]
)
def test_variable_rate_survives(tmp_path: Path, ending: str, time_base: Fraction) -> None:
    header = replace(YUV, frame_rate=None, time_base=time_base)
    path = tmp_path / f"a.{ending}"
    write(path, header, smooth(header, 22), VFR_PTS)
    back = read(path)
    assert back.header.frame_rate is None
    assert [stamp * back.header.time_base for stamp in back.pts] == [stamp * time_base for stamp in VFR_PTS]


def test_variable_rate_in_matroska_is_rounded_to_a_millisecond_and_noted(tmp_path: Path) -> None:
    header = replace(YUV, frame_rate=None, time_base=Fraction(1, 90000))
    pts = [stamp * 3003 for stamp in VFR_PTS]
    assert write(tmp_path / "a.mkv", header, smooth(header, 22), pts) == ("Matroska rounds time stamps to 1 ms",)
    back = read(tmp_path / "a.mkv")
    for ours, theirs in zip(pts, back.pts, strict=True):
        assert abs(ours * header.time_base - theirs * back.header.time_base) <= Fraction(1, 2000)


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(240)])
@pytest.mark.parametrize("count", [1, 30])
def test_constant_rate_survives(tmp_path: Path, ending: str, rate: Fraction, count: int) -> None:
    header = replace(YUV, frame_rate=rate, time_base=1 / rate)
    path = tmp_path / f"a.{ending}"
    write(path, header, smooth(header, count))
    back = read(path)
    assert (back.header.frame_rate, back.header.time_base, back.pts) == (rate, 1 / rate, tuple(range(count)))


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_start_time_is_written(tmp_path: Path, ffmpeg: FFmpeg, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, replace(YUV, first_pts=50), smooth(YUV, 4), [50, 51, 52, 53])
    assert b"start: 2.000000" in ffmpeg("-i", path, "-f", "null", "-", stderr=True)


def test_y4m_of_variable_rate_has_the_average_and_a_note(tmp_path: Path) -> None:
    header = replace(YUV, frame_rate=None, time_base=Fraction(1, 100))
    path = tmp_path / "a.y4m"
    with open_sink(str(path), header, overwrite=False) as sink:
        sink.write(noise(header, 5), [0, 1, 5, 6, 16])
    assert b" F25:1 " in path.read_bytes()
    assert len(read(path).pts) == 5
    assert any("variable" in note for note in sink.notes)


# ---- standard output


def test_dash_writes_y4m_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(buffer=stdout))
    write("-", YUV, noise(YUV, 2))
    write(tmp_path / "a.y4m", YUV, noise(YUV, 2))
    assert stdout.getvalue() == (tmp_path / "a.y4m").read_bytes()


def test_a_closed_standard_output_is_an_output_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(buffer=pipe))
        with pytest.raises(OutputError) as error:
            write("-", YUV, noise(YUV, 2))
    assert error.value.code == "output.broken_pipe"


# ---- nothing half-written


@pytest.mark.parametrize("name", ["a.y4m", "a.yuv", "a.mkv", "a.mp4", "frames"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_or_interrupt_leaves_nothing(tmp_path: Path, name: str, error: type[BaseException]) -> None:
    with pytest.raises(error), open_sink(str(tmp_path / name), YUV, overwrite=False) as sink:
        sink.write(noise(YUV, 2), [0, 1])
        assert not (tmp_path / name).exists()
        raise error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.y4m", "a.mkv", "frames"])
def test_an_error_keeps_the_old_output(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, YUV, noise(YUV, 1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RuntimeError), open_sink(str(tmp_path / name), YUV, overwrite=True) as sink:
        sink.write(noise(YUV, 2), [0, 1])
        raise RuntimeError
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_dying_ffmpeg_is_an_output_error_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho '[error] No space left on device' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    with pytest.raises(OutputError, match="No space left") as error:
        write(tmp_path / "a.mkv", YUV, noise(YUV, 40))
    assert error.value.code == "output.disk_full"
    assert os.listdir(tmp_path) == ["ffmpeg"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(buffer=full))
        with pytest.raises(OutputError) as error:
            write("-", YUV, noise(YUV, 2))
    assert error.value.code == "output.disk_full"


def test_planes_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    with open_sink(str(tmp_path / "a.y4m"), YUV, overwrite=False) as sink, pytest.raises(ValueError, match="expected"):
        sink.write(noise(RGB, 1), [0])


# ---- the thread that writes

LARGE = replace(YUV, width=640, height=480)  # one frame is more than a pipe holds
SOON = 10.0  # seconds: by far enough for what takes none
STUCK = 0.5  # by then the thread is in a write that does not end


@contextlib.contextmanager
def piped() -> Iterator[int]:
    """Standard output is a pipe in the block; its reading end, which nobody reads."""
    before = threading.enumerate()
    reader, writer = os.pipe()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(writer, "wb", buffering=0) as stdout:
        patch.setattr(sys, "stdout", types.SimpleNamespace(buffer=stdout))
        yield reader
        os.close(reader)
        for thread in threading.enumerate():  # one that was given up while it wrote ends with its pipe
            if thread.name == "nvc-background" and thread not in before:
                thread.join(SOON)
                assert not thread.is_alive()


def test_frames_are_taken_while_the_reader_is_slow_and_arrive_in_order(tmp_path: Path) -> None:
    planes = noise(LARGE, 6)
    write(tmp_path / "a.y4m", LARGE, planes)
    wanted, received = (tmp_path / "a.y4m").read_bytes(), bytearray()

    def read_all(reader: int) -> None:
        while len(received) < len(wanted):
            received.extend(os.read(reader, 1 << 16))

    with piped() as reader, open_sink("-", LARGE, overwrite=False) as sink:
        for n in range(QUEUED):
            sink.write((planes[0][n : n + 1], planes[1][n : n + 1], planes[2][n : n + 1]), [n])
        reading = threading.Thread(target=read_all, args=[reader], daemon=True)
        reading.start()
        sink.write((planes[0][QUEUED:], planes[1][QUEUED:], planes[2][QUEUED:]), range(QUEUED, 6))
        sink.finish()
        reading.join(SOON)
    assert hashlib.sha256(received).digest() == hashlib.sha256(wanted).digest()


def test_giving_up_does_not_wait_for_a_reader_that_has_stopped() -> None:
    with piped():
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt), open_sink("-", LARGE, overwrite=False) as sink:
            sink.write(noise(LARGE, 2), [0, 1])
            time.sleep(STUCK)
            raise KeyboardInterrupt
        assert time.monotonic() - started < STUCK + 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_giving_up_ends_an_ffmpeg_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    stuck = tmp_path / "ffmpeg"
    stuck.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import time; time.sleep(600)'\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(stuck))
    started, before = time.monotonic(), threading.active_count()
    with pytest.raises(error), open_sink(str(tmp_path / "a.mkv"), LARGE, overwrite=False) as sink:
        sink.write(noise(LARGE, 2), [0, 1])
        time.sleep(STUCK)
        raise error
    assert time.monotonic() - started < SOON / 2 and threading.active_count() == before
    assert os.listdir(tmp_path) == ["ffmpeg"]


class FailingSink(RawSink):
    """A disk that is full after three frames."""

    written = 0

    def _write_frame(self, frame: Planes, stamp: int) -> None:
        if self.written == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += 1
        super()._write_frame(frame, stamp)


@pytest.mark.parametrize("count", [1, 5, 50])
def test_an_error_of_the_writing_thread_comes_out_and_leaves_nothing(tmp_path: Path, count: int) -> None:
    """With a later frame or at the end, wherever the owner is by then."""
    planes = noise(YUV, 4)
    with pytest.raises(OutputError) as caught, FailingSink(str(tmp_path / "a.yuv"), YUV, False) as sink:
        for n in range(count):
            sink.write(planes, range(4 * n, 4 * n + 4))
    assert caught.value.code == "output.disk_full" and "a.yuv" in str(caught.value)
    assert sink.written == 3 and os.listdir(tmp_path) == []


def test_a_bug_of_the_writing_thread_comes_out_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RawSink, "_write_frame", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "a.yuv", YUV, noise(YUV, 3))
    assert os.listdir(tmp_path) == []


def test_frames_are_let_go_when_they_are_written(tmp_path: Path) -> None:
    """For the decoder lends the memory that they lie in."""
    planes, gone = noise(YUV, 2), threading.Event()
    weakref.finalize(planes[0], gone.set)
    with open_sink(str(tmp_path / "a.yuv"), YUV, overwrite=False) as sink:
        sink.write(planes, [0, 1])
        del planes
        assert gone.wait(SOON)


def test_samples_that_lie_row_by_row_are_not_copied() -> None:
    plane = noise(YUV, 2)[0][1]
    assert np.shares_memory(np.frombuffer(samples(plane), np.uint8), plane)
    turned = np.asfortranarray(plane)
    assert bytes(samples(turned)) == plane.tobytes()


class Sluggish(io.RawIOBase):
    """A stream that takes three bytes at a time, and then none as a full pipe that does not block."""

    def __init__(self, room: int) -> None:
        self.taken, self._room = b"", room

    def write(self, data: Any, /) -> int | None:
        some = bytes(data[: min(3, self._room - len(self.taken))])
        self.taken += some
        return len(some) or None


def test_all_is_written_to_a_stream_that_takes_part_of_it() -> None:
    stream = Sluggish(99)
    write_all(stream, b"FRAME\n", memoryview(b"samples"), b"")  # type: ignore[arg-type]
    assert stream.taken == b"FRAME\nsamples"
    with pytest.raises(BlockingIOError):
        write_all(Sluggish(8), b"FRAME\n", b"samples")  # type: ignore[arg-type]


# ---- targets


def test_existing_output_needs_overwrite(tmp_path: Path) -> None:
    for name in ("a.y4m", "a.mkv", "frames"):
        write(tmp_path / name, YUV, noise(YUV, 3))
        with pytest.raises(OutputError, match="-y") as error:
            open_sink(str(tmp_path / name), YUV, overwrite=False)
        assert error.value.code == "output.exists"
        with open_sink(str(tmp_path / name), YUV, overwrite=True) as sink:
            sink.write(noise(YUV, 2), [0, 1])
    assert len(read(tmp_path / "a.y4m").pts) == len(read(tmp_path / "a.mkv").pts) == 2
    assert sorted(os.listdir(tmp_path / "frames")) == ["00001.png", "00002.png"]


def test_targets_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder.mkv").mkdir()
    (tmp_path / "folder.mkv" / "thesis.doc").touch()
    (tmp_path / "file").touch()
    refused = {
        "a.avi": "usage.ending",
        "no/such/a.mkv": "output.no_directory",
        "no/such/": "output.no_directory",
        "folder.mkv": "output.not_frames",
        "file": "output.not_regular",
    }
    for name, code in refused.items():
        with pytest.raises(NvcError) as error:
            check_target(f"{tmp_path}/{name}", True)
        assert error.value.code == code
        assert "\n" not in str(error.value)
    for name in ("a.y4m", "a.MP4", "new", "new/", "-"):
        check_target(name if name == "-" else f"{tmp_path}/{name}", False)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.mkv"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError) as error:
        check_target(str(tmp_path / "a.mkv"), False)
    tmp_path.chmod(0o700)
    assert error.value.code == "output.unwritable"


def test_y4m_refuses_rgb_and_names_matroska(tmp_path: Path) -> None:
    for target in (str(tmp_path / "a.y4m"), "-"):
        with pytest.raises(UsageError, match=r"\.mkv"):
            open_sink(target, RGB, overwrite=False)
    assert os.listdir(tmp_path) == []


# ---- atomic files


def test_atomic_file_appears_when_complete_with_the_mode_of_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "a.nvc"
    before = os.umask(0o027)
    try:
        with atomic_file(str(target), overwrite=False) as file:
            file.write(b"data")
            assert not target.exists()
    finally:
        os.umask(before)
    assert target.read_bytes() == b"data"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a.nvc"]


def test_atomic_file_that_fails_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "a.nvc"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(str(target), overwrite=True) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (os.listdir(tmp_path), target.read_bytes()) == (["a.nvc"], b"old")


def test_atomic_file_keeps_a_link_and_replaces_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_file(str(tmp_path / "link"), overwrite=True) as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_atomic_file_does_not_replace_what_appeared_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "a.nvc"
    with pytest.raises(OutputError) as error, atomic_file(str(target), overwrite=False):
        target.write_bytes(b"theirs")
    assert error.value.code == "output.exists"
    assert target.read_bytes() == b"theirs"


def test_same_file_sees_through_links_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    Path("b").symlink_to("a")
    assert same_file("a", "./b")
    assert same_file("a", str(tmp_path / "a"))
    assert not same_file("a", "missing")
    assert not same_file("-", "-")


# ---- the bench


@pytest.mark.parametrize("rgb", [False, True])
def test_the_bench_measures_every_output_and_its_ceiling(
    rgb: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parent.parent / "bench")
    bench = importlib.import_module("sinks")
    monkeypatch.setattr(sys, "argv", ["sinks.py", "--tiny", "--folder", str(tmp_path), *(["--rgb"] if rgb else [])])
    bench.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    wanted = [output for output in bench.OUTPUTS if not rgb or (output != ".y4m" and output[0] != "-")]
    assert [row[:-3] for row in rows] == [f"`{output}`".split(" | ") for output in wanted]
    for *_, ours, bare, ratio in rows:  # all three are rounded
        assert float(ratio) == pytest.approx(float(ours) / float(bare), rel=0.02, abs=0.01)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("output", [".yuv", ".y4m"])
def test_both_sides_of_the_bench_write_the_same_bytes(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parent.parent / "bench")
    bench = importlib.import_module("sinks")
    header = replace(YUV, frame_rate=Fraction(25))
    material = bench.Material(header, 3)
    target = tmp_path / f"a{output}"
    bench.write_sink(open_sink(str(target), header, overwrite=False), material, 3)
    with open(tmp_path / "bare", "wb", buffering=0) as file:
        bench.write_bare(file.fileno(), material.bare(output), 3)
    ours = target.read_bytes()
    assert ours.endswith((tmp_path / "bare").read_bytes())
    assert len(ours) - os.path.getsize(tmp_path / "bare") == (ours.index(b"\n") + 1 if output == ".y4m" else 0)
