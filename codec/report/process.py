"""nvc in a fresh process: how it is started, and its error line turned back into the error that it was."""

from __future__ import annotations

import os
import re
import sys

from nvc.bitstream import errors
from nvc.bitstream.errors import MachineError, NvcError

_ERROR = re.compile(r"^nvc: error: (?P<message>.*) \[(?P<family>[a-z_]+)\.(?P<reason>[a-z0-9_.]+)\]$", re.MULTILINE)
_FAMILIES = {kind.family: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NvcError)}
_LINE_CHARS = 300


def nvc(*arguments: str) -> list[str]:
    """The command that runs this very nvc with `arguments`."""
    return [sys.executable, "-m", "nvc.cli", *arguments]


def environment() -> dict[str, str]:
    """Of a process in another folder: ours, where a relative PYTHONPATH still means what it means here."""
    paths = os.environ.get("PYTHONPATH")
    absolute = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))} if paths else {}
    return {**os.environ, **absolute}


def failure(command: str, status: int, stderr: str) -> NvcError:
    """The error with which a process of nvc ended; MachineError `process` where it did not say why."""
    if match := _ERROR.search(stderr):
        kind = _FAMILIES.get(match["family"], NvcError)
        return kind(match["reason"], match["message"])
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "it said nothing")
    ended = f"ended by signal {-status}, for want of memory perhaps" if status < 0 else f"ended with exit code {status}"
    return MachineError("process", f"{command}: {ended}: {last[:_LINE_CHARS]}")
