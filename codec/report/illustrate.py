"""The report's page from its results: which frames are shown, their pictures in every codec's version, the plots."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from . import process, stopwatch
from .clips import Reference
from .page import render
from .plots import plots
from .views import Colour, choose, pictures, shown_runs


def illustrate(results: dict[str, Any], references: Sequence[Reference], paths: Mapping[str, str]) -> str:
    """report.html. Sets `shown` of the clips; `paths` has every run's file by the run's id.

    Raises as decoding does: InputError for anchors, and what `nvc decode` ended with.
    """
    shots: dict[str, bytes] = {}
    for reference, clip in zip(references, results["clips"], strict=True):
        runs = [run for run in results["runs"] if run["clip"] == clip["name"]]
        if not runs:
            continue
        clip["shown"] = choose(runs)
        colour = Colour.of(clip["matrix"], clip["full_range"], clip["height"])
        shots |= _named(f"{clip['name']}/source", pictures(reference.path, clip["shown"], colour))
        for run in shown_runs(runs):
            shots |= _named(run["id"], _decoded(paths[run["id"]], bool(run["nvc"]), clip["shown"], colour))
    return render(results, shots, plots(results))


def _named(whose: str, shots: Mapping[int, bytes]) -> dict[str, bytes]:
    return {f"{whose}/{frame}": picture for frame, picture in shots.items()}


def _decoded(path: str, is_nvc: bool, frames: Sequence[int], colour: Colour) -> dict[int, bytes]:
    if not is_nvc:
        return pictures(path, frames, colour)
    with tempfile.TemporaryDirectory(prefix="nvc-") as folder:
        video = os.path.join(folder, "decoded.y4m")
        span = ["--frames", f"{min(frames)}:{max(frames) + 1}"]
        timed = stopwatch.run(process.nvc("decode", path, video, *span, "-q"))
        if timed.status:
            raise process.failure(f"nvc decode {path}", timed.status, timed.stderr)
        found = pictures(video, [frame - min(frames) for frame in frames], colour)
        return {frame + min(frames): picture for frame, picture in found.items()}
