"""The one place that starts ffmpeg: finds it, runs it on pipes, and turns its failures into one line.

Only the ffmpeg program is used, never ffprobe, which the wheels of imageio-ffmpeg do not ship. A child never inherits
our standard input (it would eat the user's terminal or pipe), and its stderr goes to a temporary file, so that no
second thread is needed while frames flow through the pipes.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import tempfile
from typing import IO, Self

import imageio_ffmpeg

from nvc.bitstream.errors import MachineError

# `level+` puts [error] and the like before each message: that is how failures are told from showinfo's lines.
GLOBAL_ARGS = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info")

_MESSAGE = re.compile(r"^(?:\[[^\]]* @ [^\]]*\] )*\[(?P<level>\w+)\] (?P<text>.*)$")
# What ffmpeg adds after the message that tells why.
_SUMMARIES = ("Error opening input file", "Error opening output file", "Conversion failed")
_COMMAND_CHARS = 240  # long enough to recognise and re-run the usual command, short enough for a terminal line
_REASON_CHARS = 300


def ffmpeg_exe() -> str:
    """Path of ffmpeg: `IMAGEIO_FFMPEG_EXE` where that is set, else the bundled program; MachineError without one."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MachineError("no_ffmpeg", "no ffmpeg: install imageio-ffmpeg or set IMAGEIO_FFMPEG_EXE") from error


def file_url(path: str) -> str:
    """`path` as ffmpeg must be told it, so that no name is read as an option, a protocol or a pipe."""
    return "file:" + path


def messages(log: str) -> list[tuple[str, str]]:
    """(level, text) of each line of a log; a line without a level continues the message before it."""
    out: list[tuple[str, str]] = []
    for line in log.splitlines():
        match = _MESSAGE.match(line)
        out.append((match["level"], match["text"]) if match else (out[-1][0] if out else "info", line))
    return out


def errors(log: str) -> list[str]:
    """The texts of the error and fatal messages of a log, in order."""
    return [text.strip() for level, text in messages(log) if level in ("error", "fatal", "panic") and text.strip()]


def _shorten(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters; the middle goes first, because both ends tell most."""
    text = " ".join(text.split())
    half = limit // 2 - 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


class FFmpeg:
    """One running ffmpeg, as a context manager; leaving it kills a process that still runs.

    `stdin` and `stdout` say which ends are pipes; a closed end is the null device. The `stdin` and `stdout` attributes
    are then binary, unbuffered streams.
    """

    def __init__(self, args: list[str], *, stdin: bool = False, stdout: bool = False, cwd: str | None = None) -> None:
        self.command = [ffmpeg_exe(), *GLOBAL_ARGS, *args]
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                stderr=self._stderr,
                bufsize=0,
                cwd=cwd,
            )
        except OSError as error:
            self._stderr.close()
            raise MachineError(
                "no_ffmpeg", f"cannot start {self.command[0]} ({error.strerror}): check IMAGEIO_FFMPEG_EXE"
            ) from error

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe that ffmpeg reads; only with `stdin=True`."""
        if self._process.stdin is None:
            raise ValueError("this ffmpeg was started without an input pipe")
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe that ffmpeg writes; only with `stdout=True`."""
        if self._process.stdout is None:
            raise ValueError("this ffmpeg was started without an output pipe")
        return self._process.stdout

    def kill(self) -> None:
        """End it, so that another thread's write to it fails; the pipe stays open, for that thread may be in the write."""
        if self._process.poll() is None:
            self._process.kill()

    def wait(self) -> int:
        """Close our pipe ends, wait for the end, give the exit status."""
        self._close_pipes()
        return self._process.wait()

    def log(self) -> str:
        """Everything that ffmpeg has written to stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace")

    def failure(self) -> str:
        """One line: the last errors that ffmpeg gave, and its command."""
        log = self.log()
        telling = [line for line in errors(log) if not line.startswith(_SUMMARIES)]
        lines = telling[-2:] or errors(log)[-2:] or log.splitlines()[-2:] or [f"exit status {self._process.poll()}"]
        command = shlex.join(["ffmpeg", *self.command[1 + len(GLOBAL_ARGS) :]])
        return f"{_shorten('; '.join(lines), _REASON_CHARS)} [{_shorten(command, _COMMAND_CHARS)}]"

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._close_pipes()
        self._process.wait()
        self._stderr.close()
