"""Fixtures that all tests share, and the guard that they test this checkout."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

import nvc.bitstream

_ROOT = Path(__file__).resolve().parent.parent
_TESTED = Path(str(nvc.bitstream.__file__)).resolve().parent.parent
if _TESTED != _ROOT:
    raise RuntimeError(f"the tests of {_ROOT} would test nvc from {_TESTED}; run: pip install -e {_ROOT}")


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., bytes]:
    """Runs ffmpeg with the given arguments, independently of nvc.codec.ffmpeg; gives its standard output.

    With `stderr=True` it gives standard error instead, at log level info.
    """
    exe = imageio_ffmpeg.get_ffmpeg_exe()

    def run(*args: object, stdin: bytes | None = None, stderr: bool = False) -> bytes:
        command = [exe, "-nostdin", "-y", "-v", "info" if stderr else "error", *map(str, args)]
        done = subprocess.run(command, input=stdin, stdin=None if stdin else subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        return done.stderr if stderr else done.stdout

    return run


@pytest.fixture
def raw(ffmpeg: Callable[..., bytes]) -> Callable[..., NDArray[np.uint8]]:
    """All samples of a video as a plain ffmpeg decodes them, flat; further arguments go before the output."""

    def decode(path: object, *args: object) -> NDArray[np.uint8]:
        passthrough = ("-fps_mode", "passthrough", "-f", "rawvideo", "-")
        return np.frombuffer(ffmpeg("-noautorotate", "-i", path, *args, *passthrough), np.uint8)

    return decode


@pytest.fixture
def make_video(ffmpeg: Callable[..., bytes], tmp_path: Path) -> Callable[..., Path]:
    """Makes a test video: name, a lavfi source, number of frames, then ffmpeg's output options."""

    def make(name: str, lavfi: str = "testsrc2=s=64x48:r=25", frames: int = 6, *args: object) -> Path:
        path = tmp_path / name
        ffmpeg("-f", "lavfi", "-i", lavfi, "-frames:v", frames, *args, path)
        return path

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch's threads, put back: small fits are no faster with more, and the benches set them for their whole process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
