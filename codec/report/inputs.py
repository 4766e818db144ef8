"""What a report is about: videos, and for each the .nvc files that were made from it before."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nvc.bitstream.constants import MAGIC
from nvc.bitstream.errors import InputError, UsageError

from ..sources import pictures

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Input:
    """A video, a name for it that is unique and a plain file name, and given .nvc files of it by their run's name."""

    name: str
    path: str
    given: dict[str, str]


def is_nvc(path: str) -> bool:
    """Whether a file begins as an .nvc file does; InputError where it cannot be read."""
    if os.path.isdir(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise InputError("missing", f"{path}: {error.strerror or error}") from error


def inputs(paths: Sequence[str]) -> list[Input]:
    """Videos in their order, each with the .nvc files that follow it; UsageError where one follows no video."""
    found: list[Input] = []
    for path in paths:
        if path == "-":
            raise UsageError("input", "-: a report reads its videos more than once; give files")
        if not is_nvc(path):
            found.append(Input(_unique(_plain(path), [each.name for each in found]), path, {}))
        elif not found:
            raise UsageError("input", f"{path}: name the video that it was made from before it")
        else:
            given = found[-1].given
            given[_unique("given-" + _plain(path), given)] = path
    return found


def sha256(path: str) -> str:
    """Of a file in hex; of a folder of pictures that of all of them, one after another in their natural order."""
    sha = hashlib.sha256()
    for name in pictures(path) if os.path.isdir(path) else [path]:
        try:
            with open(name, "rb") as file:
                while block := file.read(_BLOCK):
                    sha.update(block)
        except OSError as error:
            raise InputError("missing", f"{name}: {error.strerror or error}") from error
    return sha.hexdigest()


def _plain(path: str) -> str:
    """The name of a file without folder and ending, of characters that need no quotes anywhere."""
    stem = os.path.splitext(os.path.basename(os.path.abspath(path)))[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-") or "clip"


def _unique(name: str, taken: Iterable[str]) -> str:
    number, found = 2, name
    while found in set(taken):
        found, number = f"{name}-{number}", number + 1
    return found
