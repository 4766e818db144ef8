"""A fit on disk, to go on with where it was: after a crash, on another machine, or when one is lent only for a while.

A folder holds `state.json` and parts of bytes, none larger than PART. Parts of the new state are written beside those of the old
one; then `state.json`, which names its parts, is replaced at once. So whenever a process is killed there is one whole state.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
import zlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from nvc.bitstream.errors import InputError

from .fit import Fit
from .outputs import output_error

PART = 14_000_000
"""Bytes of a file, so that each may be mailed, uploaded or carried where 15 or 16 MB are the limit."""
INDEX = "state.json"
_PART_NAME = re.compile(r"step\d+\.\d+(\.part)?")


class Keeper:
    """Keeps the fits of one job in folders of `folder`, each by its name, and saves one whenever `seconds` have passed."""

    def __init__(self, folder: Path, seconds: float = 60.0) -> None:
        self.folder, self.seconds = folder, seconds
        self.saved: dict[str, float] = {}

    def load(self, name: str, fit: Fit) -> bool:
        """Let a fit that was just built go on where it was, if it was saved; see `load`. OutputError, before it begins, where it
        could not be saved.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(str(self.folder), error) from error
        self.saved[name] = time.monotonic()
        return load(self.folder / name, fit)

    def look(self, name: str, fit: Fit) -> None:
        """Save a fit between two steps, if it is time or if it has ended."""
        if fit.step == fit.steps or time.monotonic() - self.saved[name] >= self.seconds:
            save(self.folder / name, fit)
            self.saved[name] = time.monotonic()

    def clear(self) -> None:
        """Forget all these fits, whose results are kept elsewhere by now; whatever else is in the folder stays."""
        for folder in (*(self.folder / name for name in self.saved), self.folder):
            with suppress(OSError):
                remove_parts(folder, ())
                (folder / INDEX).unlink(missing_ok=True)
                folder.rmdir()


def save(folder: Path, fit: Fit) -> None:
    """Write the state of a fit between two steps; OutputError where that fails."""
    try:
        _save(folder, fit)
    except OSError as error:
        raise output_error(str(folder), error) from error


def _save(folder: Path, fit: Fit) -> None:
    buffer = io.BytesIO()
    torch.save(_to_host(fit.checkpoint()), buffer)
    data = buffer.getbuffer()
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, first in enumerate(range(0, len(data), PART)):
        part = data[first : first + PART]
        name = f"step{fit.step}.{number}"
        _write(folder / name, part)
        parts.append({"name": name, "bytes": len(part), "crc32": zlib.crc32(part)})
    _write(folder / INDEX, json.dumps({"step": fit.step, "steps": fit.steps, "parts": parts}, indent=1).encode())
    remove_parts(folder, [str(part["name"]) for part in parts])


def remove_parts(folder: Path, keep: Collection[str]) -> None:
    """Remove all parts of states in a folder but those to `keep`."""
    for path in folder.iterdir():
        if _PART_NAME.fullmatch(path.name) and path.name not in keep:
            path.unlink()


def load(folder: Path, fit: Fit) -> bool:
    """Let a fit that was just built go on where a fit of the same arguments was saved; False where none was.

    InputError where the state is damaged or of another fit. It is read by torch's loader of bare tensors, which runs no code.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        data = b"".join(_read(folder / part["name"], part) for part in index["parts"])
    except FileNotFoundError as error:
        if not (folder / INDEX).exists():
            return False
        raise InputError("checkpoint", f"{error.filename}: is missing; delete the folder to begin anew") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("checkpoint", f"{folder}: is damaged; delete it to begin anew") from error
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    try:
        fit.resume(state)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError) as error:  # the latter for tensors of other shapes
        raise InputError("checkpoint", f"{folder}: is of another fit; delete it to begin anew") from error
    return True


def _read(path: Path, part: dict[str, Any]) -> bytes:
    """The bytes of a part; ValueError where they are not those that were written."""
    data = path.read_bytes()
    if len(data) != part["bytes"] or zlib.crc32(data) != part["crc32"]:
        raise ValueError(f"{path} was changed")
    return data


def _write(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is there whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _to_host(value: Any) -> Any:
    """The same tree of tensors in the host's memory."""
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {name: _to_host(own) for name, own in value.items()}
    return [_to_host(own) for own in value] if isinstance(value, list) else value
