"""The clip that all codecs are given and measured against: chosen frames of a video, scaled once, kept without loss."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import Any

from nvc.bitstream.errors import UsageError

from ..probe import probe
from ..sinks import open_sink
from ..sources import open_source
from ..video import ReadOptions, filters, read_clip
from .frames import RANGE_NAMES
from .inputs import Input, sha256
from .record import Record
from .settings import Settings

SOURCE = "source.mkv"


@dataclass(frozen=True)
class Reference:
    """A clip on disk: `path` holds the frames (FFV1, yuv420p, 8 bits), `entry` is what results.json says of it."""

    path: str
    entry: dict[str, Any]

    @property
    def pixels(self) -> int:
        """Luma samples of all frames."""
        return int(self.entry["width"] * self.entry["height"] * self.entry["frames"])


def check(source: Input) -> None:
    """Raise, before any work, where ffmpeg cannot read a video; InputError."""
    with open_source(source.path, None) as opened:
        probe(opened.inputs, opened.label)


def prepare(source: Input, settings: Settings, folder: str) -> Reference:
    """Read a video as `nvc encode` would and write folder/source.mkv, unless that was done before.

    Raises as read_clip; InputError, OutputError; UsageError where the folder has the frames of another video.
    """
    path = os.path.join(folder, SOURCE)
    record = Record(os.path.join(folder, "clip.json"))
    sha = sha256(source.path)
    if (entry := record.get("entry")) and os.path.exists(path):
        if entry["sha256"] != sha:
            raise UsageError("resume", f"{source.path}: is not the video that this report was begun with; its SHA-256 differs")
        return Reference(path, entry)
    entry = _write(source, settings, path) | {"sha256": sha}
    record.put(entry=entry)
    return Reference(path, entry)


def _write(source: Input, settings: Settings, path: str) -> dict[str, Any]:
    options = ReadOptions(frames=settings.frames, scale=settings.scale)
    with open_source(source.path, None) as opened:
        native = probe(opened.inputs, opened.label)
    clip = read_clip(source.path, options)
    header = clip.header
    with open_sink(path, header, overwrite=True) as sink:
        sink.write(clip.planes, clip.pts)
    name = os.path.basename(os.path.abspath(source.path))
    chain = filters(native, options, header.height)
    words = ["ffmpeg", "-noautorotate", "-i", name, "-map", "0:V:0", "-vf", chain, "-fps_mode", "passthrough", "-c:v", "ffv1"]
    return {
        "name": source.name,
        "source": name,
        "command": shlex.join([*words, f"files/{source.name}/{SOURCE}"]),
        "width": header.width,
        "height": header.height,
        "frames": len(clip.pts),
        "fps": float(header.frame_rate) if header.frame_rate else None,
        "pix_fmt": "yuv420p",
        "source_pix_fmt": native.first.pix_fmt,
        "range": RANGE_NAMES.get(header.full_range, "unknown"),
        "matrix": header.matrix,
        "full_range": header.full_range,
        "notes": [*clip.notes, *sink.notes],
        "shown": [],
    }
