"""What the ffmpeg at hand is and can do: its version, the names of its encoders and filters."""

from __future__ import annotations

import re
from typing import Literal

from nvc.bitstream.errors import MachineError

from .ffmpeg import FFmpeg

# ` V....D libx264   libx264 H.264 ...` and ` T. xpsnr   VV->V  ...`; a legend has `=` in the place of the name.
_ENTRY = re.compile(r"^ [A-Z.|]{2,6} +(?P<name>[^\s=]+) ", re.MULTILINE)


def version() -> str:
    """As ffmpeg says it, without the copyright; MachineError where it is no ffmpeg that runs."""
    with FFmpeg(["-version"], stdout=True) as ffmpeg:
        first = ffmpeg.stdout.read().decode("utf-8", "replace").partition("\n")[0]
        if ffmpeg.wait() or not first.startswith("ffmpeg version "):
            raise MachineError("no_ffmpeg", f"{ffmpeg.command[0]} is no ffmpeg: {ffmpeg.failure()}")
    return first.removeprefix("ffmpeg version ").partition(" Copyright")[0]


def names(kind: Literal["encoders", "filters"]) -> frozenset[str]:
    """The names that `ffmpeg -encoders` or `ffmpeg -filters` lists; MachineError where it does not list any."""
    with FFmpeg([f"-{kind}"], stdout=True) as ffmpeg:
        listing = ffmpeg.stdout.read().decode("utf-8", "replace")
        status = ffmpeg.wait()
        found = frozenset(match["name"] for match in _ENTRY.finditer(listing))
        if status or not found:
            raise MachineError("ffmpeg", f"{ffmpeg.command[0]} does not list its {kind}: {ffmpeg.failure()}")
    return found
