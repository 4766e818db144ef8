"""The command line: its flags, its answers, its files, and one line and the right exit code for everything that is wrong."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from container_files import chunk, prologue, put_together, take_apart
from hypothesis import given, settings
from hypothesis import strategies as st
from nvc_files import VARIABLE, encoded, encoded_variable
from test_decode import heavy, promise, unindexed, with_wrong_hash

from nvc.bitstream.coefficients import SECTION_OF, digest, read_sections
from nvc.bitstream.constants import HEAD
from nvc.bitstream.container import ACCOUNTS
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.header import Header
from nvc.bitstream.program import SYNTAX, Op
from nvc.bitstream.tensors import Kind
from nvc.cli.main import main, nvc
from nvc.codec import encode as encoder
from nvc.codec import segment_fit
from nvc.codec.config import PRESETS, FitConfig
from nvc.codec.decode import Decoder, verify
from nvc.codec.layers import ACTIVATIONS
from nvc.codec.metrics import ms_ssim
from nvc.codec.video import read_clip

FFV1 = ("-c:v", "ffv1")


@dataclass(frozen=True)
class Answer:
    """What one run of the command left: exit code and both outputs."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> dict[str, object]:
        (line,) = self.out.decode().splitlines()
        return dict(json.loads(line))


Run = Callable[..., Answer]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `nvc ARGUMENTS` in this process, with fits of a few steps."""
    threads = torch.get_num_threads()
    for name in PRESETS:
        monkeypatch.setitem(PRESETS, name, FitConfig(passes=1, min_steps=8))

    def command(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["nvc", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfdbinary.readouterr()
        return Answer(int(caught.value.code or 0), out, err.decode())

    yield command
    torch.set_num_threads(threads)


def snapshot(folder: Path) -> dict[str, str]:
    """Everything below a folder, with its contents."""
    files = {path: path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}
    return {str(path): hashlib.sha256(data).hexdigest() for path, data in files.items()}


def assert_refused(answer: Answer, exit_code: int, code: str) -> None:
    assert (answer.code, answer.out) == (exit_code, b""), answer
    assert re.fullmatch(r"nvc: error: [^\n]+ \[[a-z0-9_.]+\]\n", answer.err), answer.err
    assert answer.err.endswith(f" [{code}]\n"), answer.err


@pytest.fixture
def refuse(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must fail with one line and this exit code, and change no file; gives the line."""

    def check(exit_code: int, code: str, *arguments: object) -> str:
        before = snapshot(tmp_path)
        answer = run(*arguments)
        assert_refused(answer, exit_code, code)
        assert snapshot(tmp_path) == before
        return answer.err

    return check


@pytest.fixture(scope="session")
def source_bytes(ffmpeg: Callable[..., bytes]) -> bytes:
    return ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x24:r=25", "-frames:v", 5, *FFV1, "-f", "matroska", "-")


@pytest.fixture
def source(source_bytes: bytes, tmp_path: Path) -> Path:
    """Five frames of 32x24, 25 per second."""
    path = tmp_path / "source.mkv"
    path.write_bytes(source_bytes)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The .nvc of `encoded`: five frames of 32x24 in three segments."""
    path = tmp_path / "file.nvc"
    path.write_bytes(encoded())
    return path


@pytest.fixture
def rgb_file(tmp_path: Path) -> Path:
    path = tmp_path / "rgb.nvc"
    path.write_bytes(encoded(width=18, height=10, frames=3, pixel_format=1))
    return path


def planes(data: bytes) -> list[list[np.ndarray]]:  # type: ignore[type-arg]
    return [[p[i] for p in batch.planes] for batch in Decoder(io.BytesIO(data)).frames() for i in range(len(batch.pts))]


def samples(data: bytes) -> bytes:
    """All samples of an .nvc file in the order of raw planar video."""
    return b"".join(plane.tobytes() for frame in planes(data) for plane in frame)


# ---- flags

FLAGS = {
    "encode": "--model --preset --bpp --bitrate --size --frames --scale --crop --pix-fmt --segment --device --threads --seed "
    "-y --json -q -v --fps --target-psnr --prune --activation --tune --block --codebook",
    "decode": "--frames --device --threads --batch -y -q -v",
    "info": "--json",
    "verify": "",
}


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_that_scripts_use_is_there(command: str) -> None:
    there = {name for option in nvc.commands[command].params for name in option.opts}
    assert set(FLAGS[command].split()) <= there


def test_the_choices_are_those_that_scripts_use() -> None:
    choices = {option.name: getattr(option.type, "choices", ()) for option in nvc.commands["encode"].params}
    assert tuple(choices["preset"]) == ("draft", "fast", "medium", "slow", "veryslow")
    assert {"hnerv", "vqnerv"} <= set(choices["model"])
    assert set(choices["block"]) == {"added", "pooled", "paper"}
    assert set(choices["pix_fmt"]) == {"yuv420p", "rgb24"}
    assert set(choices["activation"]) == set(ACTIVATIONS)
    assert tuple(choices["tune"]) == ("psnr", "ssim")


def test_all_flags_of_encode_work_together(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.nvc"
    target.write_bytes(b"old")
    shape = ["--frames", "1:4", "--crop", "30x20", "--scale", "16x16", "--pix-fmt", "yuv420p", "--segment", 2]
    answer = run(
        *["encode", source, target, "--model", "hnerv", "--preset", "slow", "--bpp", 12, *shape],
        *["--device", "cpu", "--threads", 1, "--seed", 3, "-y", "--json", "-q"],
    )
    assert (answer.code, answer.err) == (0, "")
    assert (answer.json["frames"], answer.json["width"], answer.json["height"]) == (3, 16, 16)
    info = run("info", target, "--json").json
    assert (info["segments"], info["metadata"]["seed"], info["metadata"]["preset"]) == (2, 3, "slow")  # type: ignore[index]


@pytest.mark.parametrize("wanted", [("--bitrate", "80k"), ("--size", "2k"), ("--bpp", "4.1666667")], ids=" ".join)
def test_sizes_come_in_three_forms(wanted: tuple[str, str], run: Run, source: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    seen = []
    plan = encoder.plan_encode
    monkeypatch.setattr(encoder, "plan_encode", lambda *given: seen.append(plan(*given)) or seen[0])
    assert run("encode", source, tmp_path / "o.nvc", *wanted).code == 0
    assert seen[0].total_bytes == pytest.approx(2000)  # five frames of 32x24 in a fifth of a second


def psnr_of(answer: Answer) -> float:
    values = answer.json["psnr"]
    assert isinstance(values, dict)
    return float(values["yuv611"])


def test_a_psnr_that_can_be_had_is_no_error(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.nvc"
    usual = psnr_of(run("encode", source, target, "--json", "-q"))
    for wanted in (usual - 0.15, usual + 0.15):
        answer = run("encode", source, target, "-y", "-q", "--json", "--target-psnr", wanted)
        assert (answer.code, answer.err) == (0, "")
        assert abs(psnr_of(answer) - wanted) <= 0.2
        assert answer.json["bytes"] == target.stat().st_size
        assert run("verify", target).code == 0


@pytest.mark.parametrize("wanted", [3, 90])
def test_a_psnr_that_cannot_be_had_is_one_line_and_the_nearest_file(wanted: int, run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.nvc"
    assert_refused(run("encode", source, target, "--target-psnr", wanted, "-q"), 5, "target.psnr")
    assert run("verify", target, "--json").json["frames"] == 5
    assert [path.name for path in tmp_path.iterdir() if path != source] == ["o.nvc"]
    told = run("encode", source, target, "--target-psnr", wanted, "-y", "--json")
    assert told.code == 5 and told.json["bytes"] == target.stat().st_size
    line = told.err.splitlines()[-1]
    assert f"{psnr_of(told):.2f} dB" in line and f"not {wanted}" in line


def test_the_progress_of_a_psnr_counts_the_fits(run: Run, source: Path, tmp_path: Path) -> None:
    lines = run("encode", source, tmp_path / "o.nvc", "--target-psnr", 90).err.splitlines()
    assert re.match(r"encode  step 8/8 .* left$", [line for line in lines if "fit " not in line and "step" in line][-1])
    assert any(re.match(r"encode  fit 2  step 8/8 ", line) for line in lines)


@pytest.mark.parametrize("block", ["added", "pooled", "paper"])
def test_tokens_are_in_the_file_and_shown(block: str, run: Run, source: Path, tmp_path: Path) -> None:
    target, frames, alone = tmp_path / "o.nvc", tmp_path / "o.y4m", tmp_path / "alone.y4m"
    made = run("encode", source, target, "--model", "vqnerv", "--block", block, "--codebook", "16x4", "-v")
    assert made.code == 0
    shown = re.search(r" bpp  codes used (\d+)%, perplexity (\d+\.\d)  ", made.err.splitlines()[-1])
    assert shown
    info = run("info", target, "--json").json
    assert (info["model"], info["codebook_levels"]) == ("vqnerv", 16)
    assert info["sections"]["tokens"] > 0 and info["sections"]["codebook"] > 0  # type: ignore[index]
    assert float(shown[1]) == pytest.approx(100 * info["codebook_usage"], abs=0.5)  # type: ignore[operator]
    assert float(shown[2]) == pytest.approx(info["perplexity"], abs=0.05)
    assert f"{info['codebook_rows']} of 16 codes used" in run("info", target).out.decode()
    assert run("verify", target, "--json").json["frames"] == 5
    run("decode", target, frames)
    run("decode", target, alone, "--frames", "3:4")
    whole, single = frames.read_bytes(), alone.read_bytes()
    size = len(single) - single.index(b"FRAME")
    assert single[-size:] == whole[-2 * size : -size]


@pytest.mark.parametrize("option", [("--block", "paper"), ("--codebook", "64x8")])
def test_options_of_tokens_are_refused_where_there_are_none(
    option: tuple[str, str], refuse: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    line = refuse(2, "usage.model", "encode", source, tmp_path / "o.nvc", *option)
    assert option[0] in line and "--model vqnerv" in line


@pytest.mark.parametrize("size", ["1x8", "4097x8", "64x0", "64x257", "64", "x", "-2x8", "64x8x2"])
def test_a_codebook_that_no_file_can_have_is_refused(size: str, refuse: Callable[..., str], source: Path, tmp_path: Path) -> None:
    line = refuse(2, "usage", "encode", source, tmp_path / "o.nvc", "--model", "vqnerv", "--codebook", size)
    assert "128x8" in line


@pytest.mark.parametrize(("activation", "function"), [("relu", 0), ("hswish", 2), ("gelu", 3), ("sine", 4)])  # SPEC 8.5
def test_every_activation_decodes(activation: str, function: int, run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.nvc"
    assert run("encode", source, target, "--activation", activation, "-q").code == 0
    assert run("verify", target, "--json").json["frames"] == 5
    (text,) = (line for line in run("info", target).out.decode().splitlines() if "v2 = " in line)
    assert f"function={function}," in text


def test_pruned_weights_are_zeros_in_the_file(run: Run, source: Path, tmp_path: Path) -> None:
    def zeros(*options: object) -> float:
        assert run("encode", source, tmp_path / "o.nvc", "-q", "-y", *options).code == 0
        decoder = Decoder(io.BytesIO((tmp_path / "o.nvc").read_bytes()))
        (segment,), (analysis,) = decoder.reader.segments(), decoder.analyses
        pairs = zip(read_sections(analysis, segment), analysis.parameters, strict=True)
        weights = np.concatenate([tensor.ravel() for tensor, parameter in pairs if parameter.kind is Kind.WEIGHT])
        return float((weights == 0).mean())

    assert zeros("--prune", 0.8, "--bpp", 6) >= 0.8 > zeros("--bpp", 6)


def test_crop_is_centred_and_comes_before_scale(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("nvc.codec.video.read_clip", lambda name, wanted: seen.append(wanted) or read_clip(name, wanted))
    assert run("encode", source, tmp_path / "o.nvc", "--crop", "16x12", "--scale", "8x6", "--frames", ":2", "-q").code == 0
    expected = tmp_path / "expected.mkv"
    graph = "crop=16:12:8:6:exact=1,scale=8:6:flags=bicubic"
    subprocess.run([ffmpeg_path(), "-v", "error", "-i", source, "-vf", graph, *FFV1, expected], check=True)
    ours, theirs = read_clip(str(source), seen[0]), read_clip(str(expected))
    assert len(ours.pts) == 2
    assert all(np.array_equal(a, b[:2]) for a, b in zip(ours.planes, theirs.planes, strict=True))


def ffmpeg_path() -> str:
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


# ---- answers


def test_encode_answers_with_the_promised_fields(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.nvc"
    answer = run("encode", source, target, "--json", "--preset", "draft").json
    assert list(answer) == ["bytes", "bpp", "psnr", "frames", "width", "height", "seconds", "model", "parameters"]
    assert list(answer["psnr"]) == ["y", "cb", "cr", "yuv611"]  # type: ignore[call-overload]
    assert answer["bytes"] == target.stat().st_size
    assert answer["bpp"] == pytest.approx(8 * target.stat().st_size / (32 * 24 * 5), abs=1e-6)
    assert (answer["frames"], answer["width"], answer["height"], answer["model"]) == (5, 32, 24, "hnerv")
    info = run("info", target, "--json").json
    assert info["parameters"] == answer["parameters"]
    original, (y, cb, cr) = read_clip(str(source)), zip(*planes(target.read_bytes()), strict=True)
    for name, ours, theirs in zip(("y", "cb", "cr"), (y, cb, cr), original.planes, strict=True):
        errors = ((np.stack(ours).astype(float) - theirs) ** 2).mean(axis=(1, 2))
        assert answer["psnr"][name] == pytest.approx(float(np.mean(10 * np.log10(255**2 / errors))), abs=1e-3)  # type: ignore[index]


def test_rgb_is_measured_as_rgb(run: Run, source: Path, tmp_path: Path) -> None:
    answer = run("encode", source, tmp_path / "out.nvc", "--json", "--pix-fmt", "rgb24", "--frames", "0:1").json
    assert list(answer["psnr"]) == ["rgb"]  # type: ignore[call-overload]


def test_tuned_for_ssim_encode_also_says_ms_ssim(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.nvc"
    answer = run("encode", source, target, "--tune", "ssim", "--json", "--segment", 2).json
    decoded = np.stack([frame[0] for frame in planes(target.read_bytes())])
    expected = float(ms_ssim(decoded, read_clip(str(source)).planes[0]).mean())
    assert answer["ms_ssim_y"] == pytest.approx(expected, abs=1e-6)
    assert run("verify", target, "--json").json["frames"] == 5
    assert run("info", target, "--json").json["metadata"]["tune"] == "ssim"  # type: ignore[index]
    line = run("encode", source, target, "--tune", "ssim", "--segment", 2, "-y").out.decode()
    assert f", MS-SSIM y {expected:.4f}, " in line
    rgb = run("encode", source, target, "--tune", "ssim", "--pix-fmt", "rgb24", "--frames", "0:1", "-y", "--json").json
    assert 0 <= float(rgb["ms_ssim_rgb"]) < 1 and "ms_ssim_y" not in rgb  # type: ignore[arg-type]


def test_a_picture_under_the_window_of_ssim_can_be_tuned_for_it_all_the_same(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.nvc"
    answer = run("encode", source, target, "--tune", "ssim", "--scale", "16x10", "--json").json
    assert not any("ssim" in name for name in answer)
    assert run("verify", target, "--json").json["frames"] == 5


def test_tuned_for_psnr_nothing_speaks_of_ssim(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.nvc"
    answers = [run("encode", source, target, "-y", *more) for more in ((), ("--tune", "psnr"))]
    assert not any(b"SSIM" in answer.out for answer in answers)
    assert "tune" not in run("info", target, "--json").json["metadata"]  # type: ignore[operator]


def test_without_json_encode_says_size_and_quality_on_one_line(run: Run, source: Path, tmp_path: Path) -> None:
    answer = run("encode", source, tmp_path / "out.nvc")
    (line,) = answer.out.decode().splitlines()
    assert line.startswith(f"{(tmp_path / 'out.nvc').stat().st_size} bytes") and "PSNR" in line and "kb/s" in line


def test_progress_is_plain_lines_with_quality_rate_speed_and_time(run: Run, source: Path, tmp_path: Path) -> None:
    answer = run("encode", source, tmp_path / "out.nvc")
    line = answer.err.splitlines()[-1]
    assert re.search(r"step 8/8 .* [\d.]+ dB  [\d.]+ bpp  [\d.]+ steps/s  \d+:\d\d left$", line)
    assert "\r" not in answer.err


def test_quiet_leaves_stderr_empty(run: Run, source: Path, file: Path, tmp_path: Path) -> None:
    assert run("encode", source, tmp_path / "out.nvc", "-q") == Answer(0, b"", "")
    assert run("decode", file, tmp_path / "out.mp4", "-q") == Answer(0, b"", "")


def test_info_answers_with_the_promised_fields_and_sections_add_up(run: Run, file: Path) -> None:
    answer = run("info", file, "--json").json
    named = {"bytes", "bpp", "frames", "width", "height", "fps", "model", "parameters", "bits_per_weight", "macs_per_pixel"}
    named |= {"tokens", "bits_per_token", "codebook_rows", "codebook_levels", "codebook_usage", "perplexity"}
    assert set(answer) == {*named, "bits_per_embedding", "segments", "sections", "pix_fmt", "metadata", "programs"}
    sections = answer["sections"]
    assert isinstance(sections, dict)
    kinds = {"container", "program", "weights", "embeddings", "codebook", "tokens", "hashes", "metadata"}
    assert set(sections) == set(ACCOUNTS) == kinds
    assert sum(sections.values()) == answer["bytes"] == len(encoded())
    assert sections["hashes"] == 8 * 5
    assert (answer["frames"], answer["width"], answer["height"], answer["fps"]) == (5, 32, 24, 25.0)
    assert (answer["model"], answer["segments"]) == ("hnerv", 3)
    assert answer["bpp"] == pytest.approx(8 * len(encoded()) / (32 * 24 * 5), abs=1e-6)


def test_infos_counts_are_those_of_the_numbers_in_the_file(run: Run, file: Path) -> None:
    answer = run("info", file, "--json").json
    decoder = Decoder(io.BytesIO(encoded()))
    (analysis,) = decoder.analyses
    wanted = [number for number, parameter in enumerate(analysis.parameters) if parameter.kind in (Kind.WEIGHT, Kind.BIAS)]
    count = sum(read_sections(analysis, segment)[number].size for segment in decoder.reader.segments() for number in wanted)
    assert answer["parameters"] == count
    assert answer["bits_per_weight"] == pytest.approx(8 * answer["sections"]["weights"] / count, abs=1e-3)  # type: ignore[index]
    shapes = [parameter.shape for parameter in analysis.parameters if parameter.kind is Kind.EMBEDDING]
    values = 5 * sum(int(np.prod(shape)) for shape in shapes)
    assert answer["bits_per_embedding"] == pytest.approx(8 * answer["sections"]["embeddings"] / values, abs=1e-3)  # type: ignore[index]
    macs = 0
    for op in analysis.program.operations:
        if op.code is Op.CONVOLUTION:
            x = analysis.maps[op["x"]]
            macs += op["channels"] * x.channels * op["kernel_height"] * op["kernel_width"] * x.height * x.width
    assert answer["macs_per_pixel"] == pytest.approx(macs / (32 * 24), abs=0.01)
    assert all(kind in SECTION_OF for kind in Kind)


def test_info_shows_the_program_readably(run: Run, file: Path) -> None:
    text = run("info", file).out.decode()
    assert re.search(r"v1 = convolution\(x=v0, weight=p1, bias=p2, channels=\d+", text)
    assert f"{len(encoded())} bytes" in text and "3 segments" in text
    programs = run("info", file, "--json").json["programs"]
    names = [line.split(" = ")[1].split("(")[0] for line in programs[0]["operations"]]  # type: ignore[index]
    assert names[0] == "embedding" and names[-1] == "output" and set(names) <= {op.name.lower() for op in SYNTAX}


def test_verify_counts_the_frames(run: Run, file: Path) -> None:
    assert run("verify", file).out.decode() == f"{file}: 5 frames verified\n"
    assert run("verify", file, "--json", "--batch", 4, "--threads", 1).json == {"frames": 5, "verified": True}


# ---- outputs of decode


def test_exact_outputs_hold_the_frames(run: Run, file: Path, tmp_path: Path, raw: Callable[..., np.ndarray]) -> None:  # type: ignore[type-arg]
    for name in ("a.y4m", "a.mkv", "a.yuv"):
        assert run("decode", file, tmp_path / name).code == 0
        is_raw = name.endswith("yuv")
        found = (tmp_path / name).read_bytes() if is_raw else raw(tmp_path / name).tobytes()
        assert found == samples(encoded()), name


def test_standard_output_gets_what_the_default_file_gets(run: Run, file: Path, tmp_path: Path) -> None:
    piped = run("decode", file, "-")
    assert run("decode", file).code == 0
    assert piped.out == (tmp_path / "file.y4m").read_bytes()
    assert piped.out.startswith(b"YUV4MPEG2 W32 H24 F25:1 ")


def test_mp4_is_close_and_says_that_it_is_a_second_encode(run: Run, file: Path, tmp_path: Path, raw) -> None:  # type: ignore[no-untyped-def]
    answer = run("decode", file, tmp_path / "a.mp4")
    assert "second" in answer.err
    found, wanted = raw(tmp_path / "a.mp4"), np.frombuffer(samples(encoded()), np.uint8)
    assert 10 * np.log10(255**2 / ((found.astype(float) - wanted) ** 2).mean()) > 38


def test_mp4_of_odd_sides_is_444_and_says_so(run: Run, tmp_path: Path, ffmpeg: Callable[..., bytes]) -> None:
    (tmp_path / "odd.nvc").write_bytes(encoded(width=17, height=31, frames=2))
    answer = run("decode", tmp_path / "odd.nvc", tmp_path / "odd.mp4")
    assert "yuv444p" in answer.err
    assert b"yuv444p" in ffmpeg("-i", tmp_path / "odd.mp4", "-f", "null", "-", stderr=True)


def test_a_folder_gets_one_picture_a_frame(run: Run, file: Path, tmp_path: Path) -> None:
    assert run("decode", file, tmp_path / "frames").code == 0
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [f"{n:05}.png" for n in range(1, 6)]


def test_rgb_goes_to_matroska_and_png_exactly_but_not_to_y4m(run: Run, rgb_file: Path, tmp_path: Path, raw, refuse) -> None:  # type: ignore[no-untyped-def]
    wanted = samples(rgb_file.read_bytes())
    assert run("decode", rgb_file).code == 0
    assert raw(tmp_path / "rgb.mkv", "-pix_fmt", "rgb24").reshape(3, -1, 3).transpose(0, 2, 1).tobytes() == wanted
    assert run("decode", rgb_file, tmp_path / "png").code == 0
    pictures = raw(tmp_path / "png" / "%05d.png", "-pix_fmt", "rgb24")
    assert pictures.reshape(3, -1, 3).transpose(0, 2, 1).tobytes() == wanted
    assert "RGB" in refuse(2, "usage.y4m_rgb", "decode", rgb_file, tmp_path / "rgb.y4m")
    refuse(2, "usage.y4m_rgb", "decode", rgb_file, "-")


def test_a_range_decodes_just_those_frames_with_their_times(run: Run, tmp_path: Path) -> None:
    (tmp_path / "v.nvc").write_bytes(encoded_variable())
    answer = run("decode", tmp_path / "v.nvc", tmp_path / "v.mkv", "--frames", "2:5", "--batch", 4, "--threads", 1, "--json")
    assert answer.json["frames"] == 3
    back = read_clip(str(tmp_path / "v.mkv"))
    seconds = [stamp * back.header.time_base for stamp in back.pts]  # from the first frame: that is how ffmpeg counts
    assert seconds == [Fraction(stamp - VARIABLE[2], 1000) for stamp in VARIABLE[2:]]
    for number, plane in enumerate(back.planes):
        assert np.array_equal(plane, np.stack([frame[number] for frame in planes(encoded_variable())[2:]]))


def test_decode_answers_in_json(run: Run, file: Path, tmp_path: Path) -> None:
    answer = run("decode", file, tmp_path / "a.y4m", "--json").json
    del answer["seconds"]
    assert answer == {"output": str(tmp_path / "a.y4m"), "frames": 5, "width": 32, "height": 24}


def test_json_and_video_do_not_share_standard_output(refuse: Callable[..., str], file: Path) -> None:
    refuse(2, "usage.json", "decode", file, "-", "--json")


def test_from_and_to_pipes(run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(encoded())))
    assert run("decode", "-", tmp_path / "a.yuv").code == 0
    assert (tmp_path / "a.yuv").read_bytes() == samples(encoded())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(run("decode", file, "-").out)))
    assert run("encode", "-", tmp_path / "b.nvc", "--json").json["frames"] == 5
    assert run("verify", tmp_path / "b.nvc", "--json").json["frames"] == 5


# ---- what the user got wrong


def test_overwriting_needs_y(run: Run, refuse: Callable[..., str], source: Path, file: Path, tmp_path: Path) -> None:
    for command, origin, target in (("encode", source, tmp_path / "o.nvc"), ("decode", file, tmp_path / "o.y4m")):
        target.write_bytes(b"mine")
        assert "-y" in refuse(1, "output.exists", command, origin, target)
        assert run(command, origin, target, "-y", "-q").code == 0
        assert target.read_bytes() != b"mine"


def test_a_failure_with_y_leaves_the_old_file(refuse: Callable[..., str], source: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "o.nvc").write_bytes(b"mine")
    refuse(5, "target.too_small", "encode", source, tmp_path / "o.nvc", "-y", "--size", 200)
    (tmp_path / "o.y4m").write_bytes(b"mine")
    file.write_bytes(with_wrong_hash(encoded(), 2))
    refuse(6, "verify.frame", "decode", file, tmp_path / "o.y4m", "-y", "-q")


def test_the_input_is_never_the_output(refuse: Callable[..., str], source: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.y4m").symlink_to(file)
    os.link(source, tmp_path / "hard.nvc")
    refuse(1, "output.same", "encode", source, source, "-y")
    refuse(1, "output.same", "encode", source, tmp_path / "hard.nvc", "-y")
    refuse(1, "output.same", "decode", file, file, "-y")
    refuse(1, "output.same", "decode", file, tmp_path / "link.y4m", "-y")


def test_outputs_that_cannot_be_written(refuse: Callable[..., str], source: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.nvc").mkdir()
    refuse(1, "output.no_directory", "encode", source, tmp_path / "no" / "o.nvc")
    refuse(1, "output.no_directory", "decode", file, tmp_path / "no" / "o.y4m")
    refuse(1, "output.not_regular", "encode", source, tmp_path / "folder.nvc", "-y")
    refuse(1, "output.not_regular", "encode", source, "/dev/full", "-y")
    refuse(1, "output.not_regular", "decode", file, "/dev/full", "-y")
    refuse(2, "usage.output", "encode", source, "-")
    refuse(2, "usage.ending", "decode", file, tmp_path / "o.avi")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_places_without_permission(refuse: Callable[..., str], source: Path, file: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    refuse(1, "output.unwritable", "encode", source, closed / "o.nvc")
    refuse(1, "output.unwritable", "decode", file, closed / "o.y4m")


def test_inputs_that_are_no_video(refuse: Callable[..., str], ffmpeg: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.wav")
    out = tmp_path / "o.nvc"
    refuse(3, "input.not_video", "encode", tmp_path / "text.mp4", out)
    refuse(3, "input.empty", "encode", tmp_path / "empty.mp4", out)
    refuse(3, "input.no_images", "encode", tmp_path / "folder", out)
    refuse(3, "input.missing", "encode", tmp_path / "missing.mp4", out)
    refuse(3, "input.no_video", "encode", tmp_path / "sound.wav", out)


def test_files_that_are_no_nvc(refuse: Callable[..., str], source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.nvc").touch()
    for command in ("decode", "info", "verify"):
        refuse(3, "input.missing", command, tmp_path / "missing.nvc")
        refuse(3, "input.missing", command, tmp_path)
        refuse(4, "not_nvc.magic", command, source)
        refuse(4, "truncated.prologue", command, tmp_path / "empty.nvc")


@pytest.mark.parametrize(
    "given_",
    [*(["--bpp", value] for value in ("0", "-1", "nan", "inf", "100")), ["--target-psnr", "0"], ["--target-psnr", "100"]],
)
def test_sizes_that_make_no_sense(given_: list[str], refuse: Callable[..., str], source: Path, tmp_path: Path) -> None:
    refuse(2, "usage.target", "encode", source, tmp_path / "o.nvc", *given_)


def test_two_targets_are_one_too_many(refuse: Callable[..., str], source: Path, tmp_path: Path) -> None:
    line = refuse(2, "usage.target", "encode", source, tmp_path / "o.nvc", "--bpp", "1", "--size", "1k")
    assert "--bpp" in line and "--size" in line
    line = refuse(2, "usage.target", "encode", source, tmp_path / "o.nvc", "--bpp", "1", "--target-psnr", "30")
    assert "--bpp" in line and "--target-psnr" in line


def test_a_target_too_small_says_what_would_do(refuse: Callable[..., str], run: Run, source: Path, tmp_path: Path) -> None:
    line = refuse(5, "target.too_small", "encode", source, tmp_path / "o.nvc", "--bpp", "0.01")
    needed = re.search(r"needs about (\d+) bytes", line)
    assert needed and run("encode", source, tmp_path / "o.nvc", "--size", int(needed[1]) + 1, "-q").code == 0


BAD_OPTIONS = [
    *(["--frames", value] for value in ("5", "3:3", "4:2", "-1:2", "a:b", "1:2:3", ":0", "")),
    *(["--scale", value] for value in ("10", "0x10", "10x", "70000x2", "-4x4", "axb")),
    ["--crop", "1x"],
    ["--segment", "0"],
    ["--threads", "0"],
    ["--seed", "-1"],
    ["--size", "much"],
    ["--target-psnr", "good"],
    *(["--prune", value] for value in ("1", "1.5", "-0.1", "half")),
    ["--activation", "x"],
    ["--model", "x"],
    ["--preset", "x"],
    ["--pix-fmt", "x"],
    ["--nonsense"],
]


@pytest.mark.parametrize("given_", BAD_OPTIONS, ids=" ".join)
def test_options_that_make_no_sense(given_: list[str], refuse: Callable[..., str], source: Path, tmp_path: Path) -> None:
    refuse(2, "usage", "encode", source, tmp_path / "o.nvc", *given_)


def test_commands_that_are_incomplete(refuse: Callable[..., str], source: Path) -> None:
    refuse(2, "usage")
    refuse(2, "usage", "unknown")
    refuse(2, "usage", "encode")
    refuse(2, "usage", "encode", source)
    refuse(2, "usage", "decode")
    refuse(2, "usage.output", "decode", "-")  # standard input gives no name to derive the output's from


def test_options_that_do_not_fit_the_video(refuse: Callable[..., str], source: Path, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.nvc"
    refuse(2, "usage.crop", "encode", source, out, "--crop", "33x24")
    refuse(2, "usage.fps", "encode", source, out, "--fps", "30")
    refuse(3, "input.no_frames", "encode", source, out, "--frames", "5:9")
    refuse(2, "usage.frames", "decode", file, tmp_path / "o.y4m", "--frames", "5:9")
    (tmp_path / "live.nvc").write_bytes(unindexed(encoded()))
    refuse(2, "usage.frames", "decode", tmp_path / "live.nvc", tmp_path / "o.y4m", "--frames", "5:9")


def test_a_range_that_ends_beyond_the_video_is_cut_and_says_so(run: Run, source: Path, file: Path, tmp_path: Path) -> None:
    answer = run("encode", source, tmp_path / "o.nvc", "--frames", "3:99999999999", "--json")
    assert answer.json["frames"] == 2 and "only 5" in answer.err
    assert run("decode", file, tmp_path / "o.y4m", "--frames", f"3:{10**30}", "--json").json["frames"] == 2


def test_devices_that_are_not_there(refuse: Callable[..., str], source: Path, file: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command, origin, target in (("encode", source, "o.nvc"), ("decode", file, "o.y4m")):
        refuse(7, "machine.device", command, origin, tmp_path / target, "--device", "cuda")
        refuse(2, "usage.device", command, origin, tmp_path / target, "--device", "tpu9")
    refuse(7, "machine.device", "verify", file, "--device", "cuda:3")


@pytest.mark.parametrize("name", ["a\nb.mp4", "a\x1b[2Jb.nvc", "a\u2028b", os.fsdecode(b"\xff\xfe.nvc"), "x" * 5000, "a\rb"])
def test_strange_names_stay_one_printable_line(name: str, refuse: Callable[..., str], tmp_path: Path) -> None:
    for command in (["encode", name, tmp_path / "o.nvc"], ["decode", name], ["info", name], ["verify", name]):
        line = refuse(3, "input.missing", *command)
        assert line.rstrip("\n").isprintable()


def test_strange_names_work(run: Run, file: Path, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"\xff \n%d-.nvc")
    file.rename(strange)
    assert run("verify", strange).code == 0
    answer = run("decode", strange)
    assert answer.code == 0 and strange.with_suffix(".y4m").is_file()
    assert run("info", strange).code == 0


def test_a_bug_is_called_one(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvc.bitstream.summary.summarise", lambda _: 1 // 0)
    assert_refused(run("info", file), 70, "bug")


def test_out_of_memory_is_the_machines_fault(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 1.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("nvc.bitstream.summary.summarise", fail)
        assert_refused(run("info", file), 7, "machine.memory")


# ---- several segments at a time


def test_workers_fit_segments_in_waves(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "waves.nvc"
    answer = run("encode", source, target, "--segment", 2, "--workers", 2, "--preset", "draft", "--json")
    assert answer.code == 0 and answer.json["bytes"] == target.stat().st_size
    lines = answer.err.splitlines()
    assert "  segments 1-2/3  step " in lines[0] and "  segment 3/3  step 8/8  " in lines[-1]
    assert all(line.isprintable() and len(line) < 100 for line in lines)
    assert run("verify", target).code == 0


def test_an_encode_goes_on_from_its_checkpoint_and_then_removes_it(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, target, folder = tmp_path / "whole.nvc", tmp_path / "o.nvc", tmp_path / "kept"
    assert run("encode", source, whole, "--segment", 3).code == 0
    command = ("encode", source, target, "--segment", 3, "--checkpoint", folder)
    with monkeypatch.context() as broken:
        broken.setattr("nvc.codec.encode.digest", fail_at_the_second(digest))
        assert run(*command).code == 130 and not target.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["segment 1", "segment 2"]
    assert run(*command).code == 0
    assert target.read_bytes() == whole.read_bytes()
    assert not folder.exists()


def test_deterministic_is_said_before_the_device_is_used(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("nvc.codec.precision.set_deterministic", lambda: said.append("deterministic"))
    device = "nvc.codec.decode.open_device"
    monkeypatch.setattr(device, lambda name: said.append("device") or torch.device("cpu"))
    assert run("encode", source, tmp_path / "o.nvc", "--deterministic").code == 0
    assert run("encode", source, tmp_path / "p.nvc").code == 0
    assert said == ["deterministic", "device", "device"]
    assert (tmp_path / "o.nvc").read_bytes() == (tmp_path / "p.nvc").read_bytes()


def fail_at_the_second(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a function once, and is interrupted then."""
    calls = iter(range(9))

    def call(*arguments: Any) -> Any:
        if next(calls):
            raise KeyboardInterrupt
        return function(*arguments)

    return call


def test_a_checkpoint_that_cannot_be_written_is_said_before_the_fit(
    refuse: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("not a folder")
    line = refuse(1, "output.write", "encode", source, tmp_path / "o.nvc", "--checkpoint", taken)
    assert str(taken) in line and "o.nvc" not in line


def test_a_checkpoint_of_another_encode_is_refused_and_stays(
    run: Run, refuse: Callable[..., str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, folder = tmp_path / "o.nvc", tmp_path / "kept"
    with monkeypatch.context() as broken:
        broken.setattr("nvc.codec.encode.digest", fail_at_the_second(digest))
        run("encode", source, target, "--segment", 3, "--checkpoint", folder)
    wanted = ("encode", source, target, "--segment", 3, "--checkpoint", folder)
    assert "another fit" in refuse(3, "input.checkpoint", *wanted, "--seed", 1)
    assert not target.exists() and (folder / "segment 1" / "state.json").exists()


@pytest.mark.parametrize("workers", ["0", "65", "-1", "two"])
def test_workers_that_make_no_sense(workers: str, refuse: Callable[..., str], source: Path, tmp_path: Path) -> None:
    assert "--workers" in refuse(2, "usage", "encode", source, tmp_path / "o.nvc", "--workers", workers)


def test_a_fit_without_room_is_one_line(refuse: Callable[..., str], source: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(encoder, "free_memory", lambda _: 4096)
    line = refuse(7, "machine.memory", "encode", source, tmp_path / "o.nvc", "-q")
    assert "--crop" in line and "MiB" in line


def test_a_fit_in_little_room_says_so(run: Run, source: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    all_resident = []
    plan_memory = segment_fit.plan_memory

    def tight(*given: Any) -> Any:
        room = plan_memory(*given)
        all_resident.append(room.resident)
        return plan_memory(*given[:-1], room.bytes - 1)

    monkeypatch.setattr(encoder, "free_memory", lambda _: 1 << 60)
    monkeypatch.setattr(segment_fit, "plan_memory", tight)
    answer = run("encode", source, tmp_path / "o.nvc")
    assert answer.code == 0 and all_resident == [True]
    notes = [line for line in answer.err.splitlines() if line.startswith("nvc: ")]
    assert len(notes) == 1 and "frames are streamed" in notes[0]


# ---- damaged and hostile files


def borders(data: bytes) -> list[int]:
    """Every offset where a chunk begins, and the end of the file."""
    position, found = 32, [0, 8, 32]
    for _, payload in take_apart(data)[1]:
        found += [position + 16, position + 16 + len(payload)]
        position = found[-1]
    return found


CUTS = sorted({border + by for border in borders(encoded()) for by in (-1, 0, 1) if 0 <= border + by < len(encoded())})


def test_a_file_cut_at_any_chunk_border_is_refused_as_cut(refuse: Callable[..., str], file: Path, tmp_path: Path) -> None:
    for cut in CUTS:
        file.write_bytes(encoded()[:cut])
        line = refuse(4, truncation(cut), "verify", file)
        assert refuse(4, truncation(cut), "decode", file, tmp_path / "o.y4m", "-q") == line
        refuse(4, truncation(cut), "info", file)


def truncation(cut: int) -> str:
    """The code for a file that ends there: in the prologue, in a chunk, or between chunks that should go on."""
    if cut < 32:
        return "truncated.prologue"
    return "truncated.end" if cut in borders(encoded()) and cut - 16 not in starts(encoded()) else "truncated.chunk"


def starts(data: bytes) -> list[int]:
    position, found = 32, []
    for _, payload in take_apart(data)[1]:
        found.append(position)
        position += 16 + len(payload)
    return found


def damaged(position: int, flip: int) -> bytes:
    data = bytearray(encoded())
    data[position] ^= flip
    return bytes(data)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(encoded()) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(position: int, flip: int) -> None:
    with pytest.raises(BitstreamError):
        verify(io.BytesIO(damaged(position, flip)))


@pytest.mark.parametrize("part", [0, 9, 30, 33, 60, 150, 400, -300, -60, -1])
def test_a_changed_byte_leaves_no_output(part: int, run: Run, file: Path, tmp_path: Path) -> None:
    file.write_bytes(damaged(part, 64))
    before = snapshot(tmp_path)
    targets = [tmp_path / "o.y4m", tmp_path / "frames", tmp_path / "o.mkv"]
    for command in (*(["decode", file, target, "-q"] for target in targets), ["verify", file], ["info", file]):
        answer = run(*command)
        assert answer.code == 4 and answer.err.count("\n") == 1 and answer.err.startswith("nvc: error: ")
    assert snapshot(tmp_path) == before


def test_trailing_junk_is_refused(refuse: Callable[..., str], file: Path, tmp_path: Path) -> None:
    for junk in (b"\0", b"junk" * 1000, encoded()):
        file.write_bytes(encoded() + junk)
        refuse(4, "invalid.trailing_data", "verify", file)
        refuse(4, "invalid.trailing_data", "info", file)
        refuse(4, "invalid.trailing_data", "decode", file, tmp_path / "o.y4m", "-q")


def with_header(**changes: int | None) -> bytes:
    """The file with other values in HEAD, written over the writer's checks."""
    salt, chunks = take_apart(encoded())
    values = Header.from_bytes(chunks[0][1])
    for name, value in changes.items():
        object.__setattr__(values, name, value)
    from nvc.bitstream.header import PICTURE_HEADER

    fields = values.fields()
    chunks[0] = (HEAD, PICTURE_HEADER.layout.pack(*(fields[field.name] for field in PICTURE_HEADER.fields)))
    return put_together(salt, chunks)


def with_chunk(kind: bytes) -> bytes:
    salt, chunks = take_apart(encoded())
    return put_together(salt, [*chunks[:3], (kind, b"from the future"), *chunks[3:]])


def long_chunk() -> bytes:
    """A chunk header that announces the most bytes a chunk can have, and then nothing."""
    salt, chunks = take_apart(encoded())
    return put_together(salt, chunks[:2]) + chunk(b"SEGM", b"", salt, length=(1 << 28) - 1)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "version": (prologue(encoded()[20:28], front=bytes([9, 1, *bytes(6)])) + encoded()[32:], "unsupported.version"),
    "chunk": (with_chunk(b"NEWX"), "unsupported.chunk"),
    "frames": (with_header(frame_count=10**9), "limit.frames"),
    "more-frames": (with_header(frame_count=2**60), "invalid.range"),
    "size": (with_header(width=65535, height=65535), "limit.side"),
    "pixels": (with_header(width=16384, height=16384), "limit.pixels"),
    "no-size": (with_header(width=0), "invalid.range"),
    "long": (long_chunk(), "limit.chunk_bytes"),
    "compute": (promise(heavy(500), Header(1024, 1024, 1, frame_count=1)), "limit.compute"),
    "compute-file": (promise(heavy(1), Header(1024, 1024, 1, frame_count=4096), 4096), "limit.compute"),
    "compute-wide": (promise(heavy(1, 4096), Header(4096, 4096, 1, frame_count=1)), "limit.map"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(name: str, refuse: Callable[..., str], file: Path, tmp_path: Path) -> None:
    data, code = HOSTILE[name]
    file.write_bytes(data)
    refuse(4, code, "verify", file)
    refuse(4, code, "info", file)
    refuse(4, code, "decode", file, tmp_path / "o.y4m")


def test_an_unknown_chunk_that_need_not_be_understood_is_skipped(run: Run, file: Path) -> None:
    # The index then names other places than the segments have: only the unindexed form may carry what no writer knew of.
    salt, chunks = take_apart(unindexed(encoded()))
    file.write_bytes(put_together(salt, [*chunks[:3], (b"neWx", b"from the future"), *chunks[3:]], features=0))
    assert run("verify", file).code == 0


_PROBE = """
import resource, sys, time, torch
from pathlib import Path
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.summary import summarise
from nvc.codec.decode import verify
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (verify, summarise):
        started = time.perf_counter()
        try:
            read(path.open("rb"))
        except BitstreamError as error:
            print(path.name, error.code, time.perf_counter() - started)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_refusals_take_under_two_seconds_and_a_gibibyte(tmp_path: Path) -> None:
    for name, (data, _) in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
    for number, cut in enumerate(CUTS):
        (tmp_path / f"cut{number}").write_bytes(encoded()[:cut])
    output = subprocess.run([sys.executable, "-c", _PROBE, tmp_path], capture_output=True, text=True, check=True).stdout
    *lines, (_, peak) = (line.split() for line in output.splitlines())
    assert len(lines) == 2 * len(list(tmp_path.iterdir()))
    assert max(float(seconds) for _, _, seconds in lines) < 2
    assert int(peak) < 1 << 20  # KiB


def test_info_refuses_within_a_gibibyte_of_addresses(tmp_path: Path) -> None:
    for name in ("frames", "size", "long", "compute"):
        (tmp_path / name).write_bytes(HOSTILE[name][0])
        done = subprocess.run(
            [sys.executable, "-m", "nvc.cli", "info", tmp_path / name],
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        assert_refused(Answer(done.returncode, done.stdout.encode(), done.stderr), 4, HOSTILE[name][1])


def test_metadata_cannot_write_control_characters_to_the_terminal(run: Run, file: Path) -> None:
    from nvc.bitstream.container import Reader, Writer

    reader = Reader(io.BytesIO(encoded()))
    buffer = io.BytesIO()
    try:
        writer = Writer(buffer, reader.header, reader.model, {"title": "a\x1b]0;owned\x07\nb"})
    except BitstreamError:
        return  # not even writable
    for segment in reader.segments():
        writer.add(segment)
    writer.finish()
    file.write_bytes(buffer.getvalue())
    assert all(line.isprintable() for line in run("info", file).out.decode().split("\n"))


# ---- interruptions, as only a real process has them


def start(*arguments: object, **more: object) -> subprocess.Popen[bytes]:
    # a shell lets its background jobs ignore SIGINT, and they let their children
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from nvc.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **more)  # type: ignore[call-overload,no-any-return]


def test_an_interrupted_fit_leaves_nothing(source: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    process = start("encode", source, tmp_path / "o.nvc", "--preset", "veryslow", "--threads", 1)
    assert process.stderr is not None
    assert b"step" in process.stderr.readline()  # the fit has begun
    assert any(name.endswith(".part") for name in os.listdir(tmp_path))
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    lines = [line for line in rest.decode().splitlines() if line and not line.startswith("encode ")]
    assert process.returncode == 130
    assert len(lines) == 1 and lines[0].startswith("nvc: error: ") and lines[0].endswith("[interrupted]")
    assert snapshot(tmp_path) == before


def test_a_reader_that_goes_away_is_one_line(file: Path) -> None:
    process = start("decode", file, "-", "-q", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert_refused(Answer(process.returncode, b"", err.decode()), 1, "output.broken_pipe")


@pytest.mark.skipif(sys.platform != "linux", reason="makes a pipe small as Linux can")
def test_an_interrupt_ends_a_decode_whose_reader_has_stopped(file: Path) -> None:
    """The thread that writes is stuck for good; it must not keep the process, nor break its end."""
    import fcntl

    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    process = start("decode", file, "-", stdout=writer)
    os.close(writer)
    assert process.stderr is not None
    with os.fdopen(reader, "rb"):
        assert os.read(reader, 1)  # it has begun to write; nobody reads on
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    lines = [line for line in rest.decode().splitlines() if line and not line.startswith("decode ")]
    assert process.returncode == 130
    assert len(lines) == 1 and lines[0].startswith("nvc: error: ") and lines[0].endswith("[interrupted]")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("command", [["info"], ["info", "--json"]], ids=" ".join)
def test_a_full_standard_output_is_one_line(command: list[str], file: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = start(*command, file, stdout=full)
        _, err = process.communicate(timeout=60)
    assert_refused(Answer(process.returncode, b"", err.decode()), 1, "io")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_video_to_a_full_standard_output_is_one_line(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # it complains again when it is closed
        monkeypatch.setattr("sys.stdout", full)
        answer = run("decode", file, "-", "-q")
        monkeypatch.undo()
    assert_refused(answer, 1, "output.disk_full")


def small_disk() -> None:
    """In a child: no file may grow beyond 100 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


@pytest.mark.parametrize("name", ["o.y4m", "o.mkv", "png"])
def test_a_full_disk_is_one_line_and_leaves_nothing(name: str, file: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    process = start("decode", file, tmp_path / name, "-q", preexec_fn=small_disk)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and re.fullmatch(r"nvc: error: [^\n]+ \[output\.(write|ffmpeg)\]\n", err.decode()), err
    assert snapshot(tmp_path) == before


def test_a_full_disk_stops_an_encode(refuse: Callable[..., str], source: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    class Full(io.FileIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("nvc.codec.outputs.open", lambda name, mode: Full(name, mode), raising=False)
    refuse(1, "output.disk_full", "encode", source, tmp_path / "o.nvc", "-q")


@pytest.mark.parametrize(("shell", "code"), [("info FILE >&- 2>&-", 0), ("info - <&-", 3)])
def test_closed_standard_streams_are_no_bug(shell: str, code: int, file: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m nvc.cli {shell.replace('FILE', shlex.quote(str(file)))}"
    assert subprocess.run(command, shell=True, capture_output=True).returncode == code


def test_a_header_is_replaced_as_these_tests_believe() -> None:
    assert with_header() == encoded()
    assert replace(Header(32, 24, 0, frame_count=5)) == Decoder(io.BytesIO(with_header())).header
