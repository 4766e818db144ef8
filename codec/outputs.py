"""Files that appear complete or not at all: written under a temporary name beside the target, renamed when complete."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from nvc.bitstream.errors import OutputError

_REASONS = {errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full", errno.EPIPE: "broken_pipe"}


def output_error(target: str, error: OSError) -> OutputError:
    """The OutputError (`disk_full`, `broken_pipe` or `write`) that tells of an operating system error."""
    reason = _REASONS.get(error.errno or 0, "write")
    return OutputError(reason, f"{target}: {error.strerror or error}")


def same_file(a: str, b: str) -> bool:
    """Whether two paths name one existing file or folder, through links too; standard input and output never are."""
    try:
        return "-" not in (a, b) and os.path.samefile(a, b)
    except (OSError, ValueError):
        return False


def check_file(target: str, overwrite: bool) -> None:
    """Raise OutputError, before any work, where a file `target` could not be written.

    Reasons: `exists`, `not_regular` (a folder, a device), `no_directory`, `unwritable`.
    """
    if os.path.lexists(target):
        if not os.path.isfile(target):
            raise OutputError("not_regular", f"{target}: exists and is not a regular file; use - for standard output")
        if not overwrite:
            raise OutputError("exists", f"{target}: exists; use -y to overwrite it")
    check_parent(target)


def check_parent(target: str) -> None:
    """Raise OutputError where the folder that is to hold `target` is missing (`no_directory`) or `unwritable`."""
    parent = _parent(target)
    if not os.path.isdir(parent):
        raise OutputError("no_directory", f"{target}: there is no folder {parent}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError("unwritable", f"{target}: no permission to write in {parent}")


def temporary_name(target: str) -> str:
    """A fresh hidden name beside `target`, on the same file system, so that the rename is atomic."""
    real = os.path.realpath(target)  # a link stays a link: what it points to is replaced
    # The name is cut so that ours stays within the 255 bytes of common file systems.
    return os.path.join(os.path.dirname(real), f".{os.path.basename(real)[:60]}.{secrets.token_hex(6)}.part")


@contextlib.contextmanager
def atomic_file(target: str, overwrite: bool) -> Iterator[BinaryIO]:
    """A binary file that becomes `target` when the block ends, and vanishes when it raises or is interrupted.

    It has the mode that the umask gives. OutputError as in `check_file`, and for operating system errors on this file:
    inside the block those are taken to concern the target, so read other files outside of it.
    """
    check_file(target, overwrite)
    temporary = temporary_name(target)
    try:
        with open(temporary, "xb") as file:
            yield file
        publish(temporary, target, overwrite)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def publish(temporary: str, target: str, overwrite: bool) -> None:
    """Rename a complete file to `target`; without `overwrite` a file that appeared meanwhile is an OutputError."""
    if not overwrite and os.path.lexists(target):
        raise OutputError("exists", f"{target}: was created by someone else meanwhile; use -y to overwrite it")
    os.replace(temporary, os.path.realpath(target))


def publish_folder(temporary: str, target: str, stale: list[str]) -> None:
    """Rename a complete folder to `target`; into an existing one its files are moved, and the `stale` names removed."""
    try:
        if not os.path.isdir(target):
            os.rename(temporary, target)
            return
        for name in stale:
            os.unlink(os.path.join(target, name))
        for name in os.listdir(temporary):
            os.replace(os.path.join(temporary, name), os.path.join(target, name))
    except OSError as error:
        raise output_error(target, error) from error


def discard(temporary: str) -> None:
    """Remove a temporary file or folder, if it is there."""
    if os.path.isdir(temporary):
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _parent(target: str) -> str:
    return os.path.dirname(os.path.realpath(target)) or os.curdir
