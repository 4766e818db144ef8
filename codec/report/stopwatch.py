"""Runs a command and tells what it took: seconds, memory, and what it wrote.

Peak memory is the largest resident set, as the system counts it for a process that has ended. On Linux that count begins, at
the start of a program, with the memory of the process that started it; a large parent would be charged to every child. So
commands are started by a small process in between (launcher.py), and no figure is below that one's own memory, about 10 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nvc.bitstream.errors import MachineError

_LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")


@dataclass(frozen=True)
class Timed:
    """What a command took and gave."""

    seconds: float
    """From its start to its end by the wall clock: the whole process, with its own start and end."""
    cpu_seconds: float | None
    """Of it and the processes that it waited for, user and system; None where the system does not tell (Windows)."""
    peak_bytes: int | None
    """Largest resident set, of it or of one process that it waited for, whichever had more; None as above."""
    status: int
    """Exit status, -n where signal n ended it."""
    stdout: bytes
    stderr: str


def run(command: Sequence[str], cwd: str | None = None, env: Mapping[str, str] | None = None) -> Timed:
    """Run `command` in the folder `cwd` with the environment `env` (ours by default) and nothing on its standard input.

    Output of any size is kept in files until the end. An exception here, an interrupt above all, and the end of this process
    end the command and all that it started. MachineError `start` where it cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="nvc-") as folder:
        result = os.path.join(folder, "result.json")
        with open(os.path.join(folder, "stdout"), "w+b") as out, open(os.path.join(folder, "stderr"), "w+b") as err:
            launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", _LAUNCHER, result, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
            assert launcher.stdin is not None
            try:
                launcher.wait()
            finally:
                launcher.stdin.close()  # ends whatever still runs
                launcher.wait()
            out.seek(0)
            err.seek(0)
            stdout, stderr = out.read(), err.read().decode("utf-8", "replace")
        try:
            with open(result, encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError) as error:
            raise MachineError("process", f"{command[0]}: was ended from outside, with all that watched it") from error
    if "error" in found:
        raise MachineError("start", f"{command[0]}: cannot be started ({found['error']})")
    return Timed(**found, stdout=stdout, stderr=stderr)
