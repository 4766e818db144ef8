"""`nvc report` as a command: what it refuses, in one line and leaving nothing, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
import torch
from nvc_files import encoded

from nvc.cli.main import nvc
from nvc.codec.config import PRESETS
from nvc.codec.report.settings import BPP, CODECS, Settings


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nvc.cli", "report", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = ["-f", "lavfi", "-i", "testsrc2=s=64x64:r=25", "-frames:v", "4", "-pix_fmt", "yuv420p", "-c:v", "ffv1", "a.mkv"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source], cwd=tmp_path, check=True)
    (tmp_path / "b.nvc").write_bytes(encoded())
    (tmp_path / "text.mp4").write_text("no video at all\n" * 99)
    (tmp_path / "empty.mp4").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (["a.mkv"], 2, "usage"),  # no -o
        (["-o", "out"], 2, "usage"),
        (["a.mkv", "-o", "out", "--bpp", "0.1,much"], 2, "usage"),
        (["a.mkv", "-o", "out", "--bpp", "0,0.1"], 2, "usage.bpp"),
        (["a.mkv", "-o", "out", "--codecs", "x265,h266"], 2, "usage.codecs"),
        (["a.mkv", "-o", "out", "--preset", "placebo"], 2, "usage.preset"),
        (["a.mkv", "-o", "out", "--anchors", "weak"], 2, "usage"),
        (["a.mkv", "-o", "out", "--resume", "-y"], 2, "usage.resume"),
        (["b.nvc", "-o", "out"], 2, "usage.input"),
        (["-", "-o", "out"], 2, "usage.input"),
        (["missing.mkv", "-o", "out"], 3, "input.missing"),
        (["a.mkv", "text.mp4", "-o", "out"], 3, "input.not_video"),
        (["empty.mp4", "-o", "out"], 3, "input.empty"),
        (["a.mkv", "-o", "out", "--frames", "9:12"], 3, "input.no_frames"),
        (["a.mkv", "-o", "no/such/folder"], 1, "output.no_directory"),
        (["a.mkv", "-o", "a.mkv"], 1, "output.not_regular"),
        (["a.mkv", "-o", "."], 1, "output.exists"),
        (["a.mkv", "-o", "out", "--device", "abacus"], 2, "usage.device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_bad_input_is_one_line_and_no_file(folder: Path, arguments: list[str], exit_code: int, code: str) -> None:
    before = sorted(folder.rglob("*"))
    done = call(folder, *arguments, "-q")
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr.count("\n") == 1 and done.stderr.endswith(f"[{code}]\n") and "Traceback" not in done.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said_before_anything_is_done(folder: Path) -> None:
    done = call(folder, "a.mkv", "-o", "out", "--device", "cuda", "-q")
    assert done.returncode == 7 and done.stderr.endswith("[machine.device]\n") and not (folder / "out").exists()


def test_a_report_says_its_verdict_and_where_the_page_is(folder: Path) -> None:
    options = ["a.mkv", "-o", "out", "--codecs", "nvc:hnerv", "--bpp", "1.5", "--preset", "draft"]
    done = call(folder, *options)
    *verdict, last = done.stdout.splitlines()
    results: dict[str, Any] = json.loads((folder / "out" / "results.json").read_text())
    assert done.returncode == 0 and last == "out/report.html" and verdict == results["verdict"]
    again = call(folder, *options, "--resume", "--json", "-q")
    assert json.loads(again.stdout) == {"report": "out/report.html", "results": "out/results.json", "verdict": verdict}
    assert again.stderr == ""


def test_what_the_help_says_of_defaults_is_so() -> None:
    text = {option.name: getattr(option, "help", None) or "" for option in nvc.commands["report"].params}
    defaults = Settings()
    assert f"[default: {','.join(f'{rate:g}' for rate in BPP)}]" in text["bpp"]
    assert all(codec in text["codecs"] for codec in CODECS) and f"[default: {','.join(defaults.codecs)}]" in text["codecs"]
    assert f"[default: {defaults.anchors}]" in text["anchors"]
    assert f"[default: {defaults.preset}]" in text["preset"] and defaults.preset in PRESETS
