"""A decoder under test that is a command: it gets IN and OUT, and answers with raw frames or with a code on stderr."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from .ref_errors import Refused
from .runner import Deviation, Salvager, Way

EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h: the decoder itself says that it is broken
STDERR_TAIL = 1 << 16  # bytes; the code stands on the last line
HEAD = struct.Struct("<HHB")  # SPEC 3.3: width, height, pixel format
HEAD_OFFSET = 48  # SPEC 3.1 and 3.2: behind the prologue and the header of the first chunk


class Command:
    """`nvc decode {in} {out}`, run without a shell once for every vector; ValueError where the template makes no sense.

    It leaves with 0 and writes all planes of all frames, one byte a sample, to OUT (a path that ends in .yuv); or with another
    exit code, no file, and a last line on stderr that ends with the code of SPEC 10 in brackets. It may take `timeout` seconds.
    """

    name: str
    refusals: tuple[type[Exception], ...] = (Refused,)
    takes_limits = False

    def __init__(self, template: str, timeout: float) -> None:
        self.name, self._timeout = template, timeout
        self._words = shlex.split(template)
        for place in ("{in}", "{out}"):
            if not any(place in word for word in self._words):
                raise ValueError(f"{template!r} has no {place}")
        if shutil.which(self._words[0]) is None:
            raise ValueError(f"there is no program {self._words[0]!r}")

    def ways(self, valid: bool) -> Sequence[Way]:
        """One: whole, by path."""
        return (_Whole(self._words, self._timeout),)

    def salvagers(self) -> Sequence[Salvager]:
        """None: the form of an account of losses is each decoder's own."""
        return ()


class _Whole:
    name, random = "command", False

    def __init__(self, words: Sequence[str], timeout: float) -> None:
        self._words, self._timeout = words, timeout

    def decode(
        self, path: Path, limits: Mapping[str, int], ranges: Sequence[tuple[int, int]] | None
    ) -> Iterator[tuple[int, bytes]]:
        """All frames in the order in which they stand in OUT."""
        with tempfile.TemporaryDirectory(prefix="nvc-conformance-") as folder:
            out = Path(folder) / "out.yuv"
            code, errors = self._run([word.replace("{in}", str(path)).replace("{out}", str(out)) for word in self._words])
            _check_exit(code, errors)
            left = sorted(os.listdir(folder))
            if code != 0:
                if left:
                    raise Deviation(f"refused, but left {', '.join(left)} behind")
                raise Refused(_code(errors), errors)
            if not (out.exists() and stat.S_ISREG(out.lstat().st_mode)):
                raise Deviation("exit code 0, but no output file")
            yield from _frames(path, out)

    def _run(self, command: list[str]) -> tuple[int, str]:
        """The exit code and the end of stderr; whatever the command has started is gone afterwards."""
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
                )
            except OSError as error:
                raise Deviation(f"the command cannot be run: {error.strerror or error}") from error
            try:
                code = process.wait(self._timeout)
            except subprocess.TimeoutExpired as error:
                raise Deviation(f"no answer within {self._timeout:g} s") from error
            finally:
                _end(process)
            return code, _tail(errors)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the session of the command, its children included."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left; macOS says the second for zombies
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - STDERR_TAIL))
    return file.read().decode(errors="replace").strip()


def _check_exit(code: int, errors: str) -> None:
    """Deviation where the exit is neither a success nor a refusal, but a crash."""
    last = errors.splitlines()[-1] if errors else "nothing on stderr"
    if code < 0:
        raise Deviation(f"crashed by {signal.Signals(-code).name}: {last}")
    if code == EXIT_BUG:
        raise Deviation(f"crashed with exit code {code}: {last}")
    if code != 0 and "Traceback (most recent call last)" in errors:
        raise Deviation(f"crashed with a traceback: {last}")


def _code(errors: str) -> str:
    """The code in brackets at the end of the last line."""
    last = errors.splitlines()[-1] if errors else ""
    found = re.search(r"\[([a-z_]+\.[a-z0-9_]+)\]$", last)
    if found is None:
        raise Deviation(f"refused without a [code] at the end of stderr: {last!r}")
    return found[1]


def frame_bytes(path: Path) -> int:
    """The bytes of one decoded frame of an .nvc file, by its HEAD (SPEC 3.3); 0 where it has none."""
    with path.open("rb") as file:
        file.seek(HEAD_OFFSET)
        head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        return 0
    width, height, pixel_format = HEAD.unpack(head)
    chroma = width * height if pixel_format else ((width + 1) // 2) * ((height + 1) // 2)
    return int(width * height + 2 * chroma)


def _frames(path: Path, out: Path) -> Iterator[tuple[int, bytes]]:
    size, total = frame_bytes(path), out.stat().st_size
    if not (size > 0 and total % size == 0):
        raise Deviation(f"exit code 0, but the output of {total} bytes is not whole frames of {size} bytes")
    with out.open("rb") as file:
        for number in range(total // size):
            yield number, file.read(size)
