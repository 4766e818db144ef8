"""The report's page from its results: which frames are shown, their pictures in every codec's version, the plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from .clips import Reference
from .frames import decoded
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
            path = paths[run["id"]]
            with decoded(path, run["file"]) if run["nvc"] else nullcontext(path) as video:
                shots |= _named(run["id"], pictures(video, clip["shown"], colour))
    return render(results, shots, plots(results))


def _named(whose: str, shots: Mapping[int, bytes]) -> dict[str, bytes]:
    return {f"{whose}/{frame}": picture for frame, picture in shots.items()}
