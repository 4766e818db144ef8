"""nvc doctor: what is broken or missing is told with what is lost and what to do, and never keeps the rest from being told."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import imageio_ffmpeg
import pytest
import torch
from click.testing import CliRunner, Result

from nvc.bitstream.errors import MachineError
from nvc.cli.doctor import doctor
from nvc.codec import exact
from nvc.codec.config import VERSION
from nvc.codec.doctor import Check, examine, lacking

FakeFFmpeg = Callable[[str], None]


def by_name() -> dict[str, Check]:
    checks = examine()
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    assert all(bool(check.hint) == (check.ok is False) for check in checks), "a hint belongs to what is not right"
    return dict(zip(names, checks, strict=True))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(doctor, arguments)


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """No convolution counts as tried before."""
    monkeypatch.setattr(exact, "_tested", {})


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFFmpeg:
    """Makes the ffmpeg that nvc uses: a shell script with $real for the bundled program."""
    real = imageio_ffmpeg.get_ffmpeg_exe()

    def make(script: str) -> None:
        path = tmp_path / "fake-ffmpeg"
        path.write_text(f"#!/bin/sh\nreal='{real}'\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))

    return make


@pytest.fixture
def broken_import(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], None]:
    """Makes the import of a package fail."""
    failures: dict[str, Exception] = {}
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name in failures:
            raise failures[name]
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    return failures.__setitem__


def test_a_whole_machine_lacks_nothing_that_is_required() -> None:
    checks = by_name()
    assert lacking(list(checks.values())) == []
    assert checks["nvc"].detail == VERSION
    assert torch.__version__ in checks["torch"].detail and f"{torch.get_num_threads()} threads" in checks["torch"].detail
    assert imageio_ffmpeg.get_ffmpeg_exe() in checks["ffmpeg"].detail and "bundled" in checks["ffmpeg"].detail
    assert imageio_ffmpeg.get_ffmpeg_version() in checks["ffmpeg"].detail


def test_lines_are_aligned_and_json_says_the_same() -> None:
    plain, structured = call(), call("--json")
    assert plain.exit_code == structured.exit_code == 0
    found = json.loads(structured.stdout)
    assert set(found) == {"ok", "checks"} and found["ok"] is True
    assert all(set(check) == {"name", "ok", "required", "detail", "hint"} for check in found["checks"])
    lines = plain.stdout.splitlines()
    assert len(lines) == len(found["checks"])
    column = lines[0].index(found["checks"][0]["detail"])
    for line, check in zip(lines, found["checks"], strict=True):
        assert line.split()[0] == {True: "ok", False: "FAILS" if check["required"] else "lacks", None: "-"}[check["ok"]]
        assert line[7:column].rstrip() == check["name"] and line[column:].startswith(check["detail"])


def test_an_ffmpeg_that_lacks_parts_loses_only_what_needs_them(fake_ffmpeg: FakeFFmpeg) -> None:
    fake_ffmpeg("""case "$*" in
        *-encoders) "$real" -encoders | grep -v libx265 ;;
        *-filters) "$real" -filters | grep -v xpsnr ;;
        *vmaf_v0.6.1neg*) echo '[error] no such model' >&2; exit 1 ;;
        *) exec "$real" "$@" ;;
    esac""")
    checks = by_name()
    wrong = {name: check for name, check in checks.items() if check.ok is False}
    assert set(wrong) == {"encoder libx265", "filter xpsnr", "model vmaf_v0.6.1neg"}
    assert lacking(list(checks.values())) == []
    assert "no such model" in wrong["model vmaf_v0.6.1neg"].detail and "no VMAF-NEG" in wrong["model vmaf_v0.6.1neg"].hint
    assert "no x265" in wrong["encoder libx265"].hint and "no XPSNR" in wrong["filter xpsnr"].hint
    assert all("unset IMAGEIO_FFMPEG_EXE" in check.hint for check in wrong.values())
    assert "from IMAGEIO_FFMPEG_EXE" in checks["ffmpeg"].detail
    assert call().exit_code == 0


def test_models_are_not_tried_without_libvmaf(fake_ffmpeg: FakeFFmpeg) -> None:
    fake_ffmpeg("""case "$*" in *-filters) "$real" -filters | grep -v libvmaf ;; *) exec "$real" "$@" ;; esac""")
    checks = by_name()
    assert checks["filter libvmaf"].ok is False and checks["model vmaf_v0.6.1"].ok is None


def test_an_ffmpeg_that_cannot_read_as_nvc_does_is_a_failure(fake_ffmpeg: FakeFFmpeg) -> None:
    """As those before 5.1 are, which have no -fps_mode."""
    fake_ffmpeg("""case "$*" in *fps_mode*rawvideo*) echo "[error] Unrecognized option 'fps_mode'." >&2; exit 1 ;;
        *) exec "$real" "$@" ;; esac""")
    checks = by_name()
    assert lacking(list(checks.values())) == ["reading video"]
    assert "Unrecognized option 'fps_mode'" in checks["reading video"].detail
    fake_ffmpeg("""case "$*" in *fps_mode*rawvideo*) exit 0 ;; *) exec "$real" "$@" ;; esac""")  # no error, but no frames
    assert lacking(examine()) == ["reading video"]


@pytest.mark.parametrize(
    ("script", "name", "told"),
    [
        ("echo error while loading shared libraries >&2; exit 127", "ffmpeg", "shared libraries"),
        ("echo hello", "ffmpeg", "is no ffmpeg"),
        ('[ "$4" = -version ] && echo ffmpeg version 9 Copyright', "ffmpeg", "exit status"),
        ("case \"$*\" in *-version) echo 'ffmpeg version 9 Copyright' ;; *) exit 1 ;; esac", "ffmpeg lists", "encoders"),
    ],
)
def test_an_ffmpeg_that_does_not_work_is_told_and_all_else_too(
    script: str, name: str, told: str, fake_ffmpeg: FakeFFmpeg
) -> None:
    fake_ffmpeg(script)
    checks = by_name()
    assert lacking(list(checks.values())) == [name]
    assert told in checks[name].detail and "IMAGEIO_FFMPEG_EXE" in checks[name].hint
    assert checks["torch"].ok and checks["matplotlib"].ok


def test_an_ffmpeg_that_does_not_start_is_exit_code_7_after_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    for arguments in ((), ("--json",)):
        result = call(*arguments)
        assert isinstance(result.exception, MachineError) and result.exception.exit_code == 7
        assert "ffmpeg" in str(result.exception)
        if arguments:
            assert json.loads(result.stdout)["ok"] is False
        else:
            (line,) = [line for line in result.stdout.splitlines() if line.startswith("FAILS")]
            assert str(tmp_path / "none") in line and "-> unset IMAGEIO_FFMPEG_EXE" in line
            assert "matplotlib" in result.stdout and "torch" in result.stdout


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("torch", OSError("libtorch_cpu.so: cannot open shared object file"), "libtorch_cpu.so"),
        ("torch", ModuleNotFoundError("No module named 'torch'", name="torch"), "missing"),
        ("numpy", ImportError("a DLL\nload failed"), "a DLL load failed"),
        ("constriction", ModuleNotFoundError("No module named 'cffi'", name="cffi"), "cffi"),
        ("zstandard", SystemError("built for another interpreter"), "another interpreter"),
    ],
)
def test_a_package_that_cannot_be_imported_is_told_and_all_else_too(
    name: str, error: Exception, told: str, broken_import: Callable[[str, Exception], None]
) -> None:
    broken_import(name, error)
    checks = by_name()
    assert lacking(list(checks.values())) == [name]
    assert told in checks[name].detail and f"pip install {name}" in checks[name].hint
    assert checks["ffmpeg"].ok and ("exact on cpu" in checks) == (name != "torch")


def test_without_the_extra_only_the_report_is_lost(broken_import: Callable[[str, Exception], None]) -> None:
    broken_import("jinja2", ModuleNotFoundError("No module named 'jinja2'", name="jinja2"))
    checks = by_name()
    assert checks["jinja2"].ok is False and lacking(list(checks.values())) == []
    assert "nvc report" in checks["jinja2"].hint and "pip install 'nvc-codec[report]'" in checks["jinja2"].hint


def test_a_library_that_computes_inexactly_does_no_harm_but_a_wrong_safe_path_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`choose` takes the safe path where the fast one is off by as little as one."""
    monkeypatch.setattr(exact, "fast", lambda *args: exact.safe(*args) + 1)
    found = by_name()["exact on cpu"]
    assert found.ok is True and "3 only by the slower path" in found.detail
    monkeypatch.setattr(exact, "_tested", {})
    safe = exact.safe
    monkeypatch.setattr(exact, "safe", lambda *args: safe(*args) + 1)
    checks = by_name()
    assert lacking(list(checks.values())) == ["exact on cpu"] and "3 of 3" in checks["exact on cpu"].detail


def test_each_cuda_device_is_named_and_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On stand-ins for two devices, of which none computes: the CPU remains."""
    device = SimpleNamespace(name="Some GPU", total_memory=24 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: device)

    def broken(device: str) -> tuple[int, int]:
        if device != "cpu":
            raise RuntimeError("CUDA error: no kernel image")
        return 3, 3

    monkeypatch.setattr("nvc.codec.doctor._exact_convolutions", broken)
    checks = by_name()
    assert lacking(list(checks.values())) == []
    for number in range(2):
        assert checks[f"cuda:{number}"].detail == "Some GPU, 24.0 GiB"
        found = checks[f"exact on cuda:{number}"]
        assert found.ok is False and "no kernel image" in found.detail and "--device cpu" in found.hint
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: 1 / 0)
    checks = by_name()
    assert checks["cuda"].ok is False and checks["torch"].ok and lacking(list(checks.values())) == []


def test_the_module_imports_neither_torch_nor_numpy_nor_ffmpeg() -> None:
    """They may be what is broken."""
    script = "import nvc.codec.doctor, sys; print([n for n in ('torch', 'numpy', 'imageio_ffmpeg') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
