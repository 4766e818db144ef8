"""Video out: planes and time stamps become Y4M, raw samples, Matroska, MP4 or pictures, by the target's ending.

| target | samples | what the format loses |
|---|---|---|
| `-`, `.y4m` | yuv420p, exact | colour primaries, transfer and matrix, orientation, variable frame rate, start time |
| `.yuv` | exact: the planes of each frame one after the other (for rgb24: R, G, B) | everything but the samples |
| `.mkv` | FFV1, exact | times are rounded to 1 ms |
| `.mp4` | H.264, a second lossy encoding at a quality that hides it | a little quality |
| a folder | PNG, 00001.png and so on, as RGB | orientation and times; exactness unless the video is rgb24 |

A target is a folder when it ends with "/", is one already, or has no ending. Each sink writes under a temporary name
and appears when it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from nvc.bitstream.errors import OutputError, UsageError
from nvc.bitstream.header import Header

from .outputs import check_file, check_parent
from .sink import Sink
from .sinks_ffmpeg import FolderSink, MatroskaSink, Mp4Sink, frame_files
from .sinks_plain import RawSink, Y4mSink

__all__ = ["ENDINGS", "Sink", "check_target", "open_sink"]

_Factory = Callable[[str, Header, bool], Sink]
ENDINGS: dict[str, _Factory] = {".y4m": Y4mSink, ".yuv": RawSink, ".mkv": MatroskaSink, ".mp4": Mp4Sink}


def _factory(target: str) -> _Factory:
    if target == "-":
        return Y4mSink
    ending = os.path.splitext(target)[1].lower()
    if not ending or target.endswith("/") or os.path.isdir(target):
        return FolderSink
    if ending not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise UsageError("ending", f"{target}: cannot write {ending}; use {known}, a folder, or - for Y4M on stdout")
    return ENDINGS[ending]


def check_target(target: str, overwrite: bool) -> None:
    """Raise, before any work, where a video `target` could not be written.

    UsageError for an unknown ending; OutputError `exists`, `not_regular`, `not_frames`, `no_directory` or `unwritable`.
    """
    if _factory(target) is not FolderSink:
        if target != "-":
            check_file(target, overwrite)
        return
    if os.path.lexists(target) and not os.path.isdir(target):
        raise OutputError("not_regular", f"{target}: exists and is not a folder")
    if frame_files(target) and not overwrite:
        raise OutputError("exists", f"{target}: holds frames already; use -y to replace them")
    check_parent(target.rstrip("/"))


def open_sink(target: str, header: Header, *, overwrite: bool) -> Sink:
    """Begin to write a video with the properties of `header` to `target`; see the table above for the formats.

    Raises as `check_target`; UsageError `y4m_rgb` for rgb24 into Y4M; OutputError; MachineError without ffmpeg.
    """
    check_target(target, overwrite)
    return _factory(target)(target.rstrip("/") if target.strip("/") else target, header, overwrite)
