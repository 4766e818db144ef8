"""What a report was asked for, and what of it must stay the same when a report that was cut off goes on."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nvc.bitstream.errors import UsageError

from ..config import MODELS, PRESETS
from .anchors import ANCHORS, SETS

NVC = tuple(f"nvc:{model}" for model in MODELS)
CODECS = (*NVC, *ANCHORS)
# octaves around 0.2 bpp, the middle of the range where networks of this kind are at home
BPP = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Settings:
    """`bpp` are the sizes that nvc is asked for; anchors cover the range up to twice the largest by their own ladder of CRFs."""

    bpp: tuple[float, ...] = BPP
    codecs: tuple[str, ...] = ("nvc:hnerv", *ANCHORS)
    anchors: str = "benchmark"
    preset: str = "fast"
    frames: tuple[int, int | None] | None = None
    scale: tuple[int, int] | None = None
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.bpp or not all(0 < rate < 24 for rate in self.bpp):
            raise UsageError("bpp", "--bpp: give sizes above 0 and below 24 bits per sample, for example 0.05,0.1,0.2,0.4")
        if unknown := [codec for codec in self.codecs if codec not in CODECS]:
            raise UsageError("codecs", f"--codecs: {unknown[0]} is unknown; choose of {', '.join(CODECS)}")
        if not self.codecs:
            raise UsageError("codecs", f"--codecs: name at least one of {', '.join(CODECS)}")
        if self.anchors not in SETS:
            raise UsageError("anchors", f"--anchors: {self.anchors} is unknown; choose of {', '.join(SETS)}")
        if self.preset not in PRESETS:
            raise UsageError("preset", f"--preset: {self.preset} is unknown; choose of {', '.join(PRESETS)}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError("device", f"--device: {self.device} is unknown; use auto, cpu or cuda")
        for name in ("bpp", "codecs"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        object.__setattr__(self, "bpp", tuple(sorted(self.bpp)))

    def as_dict(self) -> dict[str, Any]:
        """As results.json has it."""
        return {
            "bpp": list(self.bpp),
            "codecs": list(self.codecs),
            "anchors": self.anchors,
            "preset": self.preset,
            "frames": frames_text(self.frames),
            "scale": size_text(self.scale),
        }

    def fixed(self) -> dict[str, Any]:
        """What all runs of one report share. Rates, codecs and clips may be added to a report, these not."""
        shared = {name: value for name, value in self.as_dict().items() if name not in ("bpp", "codecs")}
        return {**shared, "device": self.device, "threads": self.threads}

    def command(self, inputs: Sequence[str], output: str) -> str:
        """The call of `nvc report`; files without their folders, which are the reader's own."""
        words = ["nvc", "report", *map(_base, inputs), "-o", _base(output)]
        words += ["--bpp", ",".join(f"{rate:g}" for rate in self.bpp), "--codecs", ",".join(self.codecs)]
        words += ["--anchors", self.anchors, "--preset", self.preset]
        for option, value in (("--frames", frames_text(self.frames)), ("--scale", size_text(self.scale))):
            words += [option, value] if value else []
        words += ["--device", self.device] if self.device != "auto" else []
        words += ["--threads", str(self.threads)] if self.threads else []
        return shlex.join(words)


def _base(path: str) -> str:
    return os.path.basename(os.path.abspath(path))


def frames_text(frames: tuple[int, int | None] | None) -> str | None:
    """A:B of a half-open range of frames."""
    return None if frames is None else f"{frames[0]}:{'' if frames[1] is None else frames[1]}"


def size_text(size: tuple[int, int] | None) -> str | None:
    """WxH."""
    return None if size is None else f"{size[0]}x{size[1]}"
