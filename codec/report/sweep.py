"""The sweep: every clip through every codec at every rate, and from all runs the figures, the verdict and the page.

    DIR/report.html  results.json  plan.json      what is read, and what --resume compares
    DIR/files/CLIP/  source.mkv    clip.json      the frames that all codecs are given, and what is known of them
                     RUN.nvc  RUN.mp4  RUN.json   a run's file, and what is known of it
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from nvc.bitstream.errors import InputError, MachineError, OutputError, TargetError, UsageError

from ..outputs import atomic_file, check_parent
from . import bd, process
from .anchors import ANCHORS, available, refusal, template
from .clips import Reference, check, prepare
from .environment import check_extra, cuda_name, environment
from .illustrate import illustrate
from .inputs import Input, inputs
from .record import Record, write_json
from .runs import Bench, Entry, encode_words, shown
from .settings import Settings
from .verdict import verdict

RESULTS, PAGE, PLAN, FILES = "results.json", "report.html", "plan.json", "files"
BEYOND = 2.0  # anchors go on to twice the largest rate, so that the curves overlap where nvc is the better one, too
MODEL_NAMES = {"hnerv": "HNeRV", "vqnerv": "VQ-NeRV"}

Say = Callable[[str], None]


def sweep(
    paths: Sequence[str], folder: str, settings: Settings, *, resume: bool, overwrite: bool, tell: Say, note: Say
) -> dict[str, Any]:
    """Make the report of the videos and .nvc files `paths` in `folder`; what results.json holds.

    `tell` is told what is being done, `note` what did not work and is left out. Whatever stops it, `resume` goes on and does
    nothing again that is done. UsageError, InputError, OutputError, MachineError; ComparisonError where a given file does not
    show the frames of its video.
    """
    check_extra()
    chosen = inputs(paths)
    own = os.path.join(os.path.realpath(folder), FILES, "")
    if inside := [path for path in paths if os.path.realpath(path).startswith(own)]:
        raise UsageError("input", f"{inside[0]}: lies among the report's own files; copy it elsewhere, or name another folder")
    for source in chosen:
        check(source)
    gpu = "" if settings.device == "cpu" else cuda_name()
    if settings.device.startswith("cuda") and not gpu:
        raise MachineError("device", f"this machine has no device {settings.device}; use --device cpu")
    where = environment(gpu)
    is_new = _open(folder, {**settings.fixed(), "nvc": where["nvc"], "ffmpeg": where["ffmpeg"]}, resume, overwrite)
    try:
        clips = [_prepare(source, settings, folder, tell) for source in chosen]
    except BaseException:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    devices = ["cpu", *([settings.device.replace("auto", "cuda")] if gpu else [])]
    bench = Bench(folder, settings, devices, tell)
    entries: list[Entry] = []
    runs: list[Entry] = []
    for source, reference in zip(chosen, clips, strict=True):
        found, left_out = _runs(bench, reference, source, settings)
        for line in (*reference.entry["notes"], *left_out):
            note(f"{source.name}: {line}")
        entries.append(reference.entry | {"notes": [*reference.entry["notes"], *left_out]})
        runs += found
    if not runs:
        raise InputError("no_runs", "no codec could encode any clip; the lines above say why")
    results: dict[str, Any] = {
        "format": "nvc-report",
        "version": 1,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": settings.command(paths, folder),
        "environment": where,
        "settings": settings.as_dict(),
        "clips": entries,
        "codecs": list(_codecs(runs, settings)),
        "runs": runs,
    }
    results["bd"] = bd.rows(results)
    results["verdict"] = verdict(results)
    tell("the page")
    html = illustrate(results, clips, bench.paths)
    write_json(os.path.join(folder, RESULTS), results)
    with atomic_file(os.path.join(folder, PAGE), overwrite=True) as file:
        file.write(html.encode())
    return results


def _prepare(source: Input, settings: Settings, folder: str, tell: Say) -> Reference:
    tell(f"{source.name}: read")
    own = os.path.join(folder, FILES, source.name)
    os.makedirs(own, exist_ok=True)
    return prepare(source, settings, own)


def _open(folder: str, fixed: dict[str, Any], resume: bool, overwrite: bool) -> bool:
    """Make the report's folder, or see that it may be used; whether it was made. UsageError or OutputError where it may not."""
    if resume and overwrite:
        raise UsageError("resume", "--resume goes on with a report and -y starts over; give one of them")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise OutputError("not_regular", f"{folder}: exists and is not a folder")
    is_new = not os.path.isdir(folder)
    if is_new:
        check_parent(folder)
        os.mkdir(folder)
    plan = Record(os.path.join(folder, PLAN))
    if os.listdir(folder) and plan.get("fixed") is None:
        raise OutputError("exists", f"{folder}: holds files that are no report; name another folder")
    begun = plan.get("fixed")
    if begun and overwrite:
        for name in (RESULTS, PAGE, PLAN):
            path = os.path.join(folder, name)
            if os.path.exists(path):
                os.unlink(path)
        shutil.rmtree(os.path.join(folder, FILES), ignore_errors=True)
    elif begun and not resume:
        raise OutputError("exists", f"{folder}: holds a report; --resume goes on with it, -y starts over")
    elif begun:
        for name, value in fixed.items():
            if begun.get(name) != value:
                raise UsageError("resume", f"{folder}: was begun with {name} {begun.get(name)}, not {value}; use that, or -y")
    plan.put(fixed=fixed)
    return is_new


def _runs(bench: Bench, reference: Reference, source: Input, settings: Settings) -> tuple[list[Entry], list[str]]:
    """All runs of a clip, and a line for each that there could not be."""
    found, left_out = [bench.given(reference, run, path) for run, path in source.given.items()], []
    networks = [codec for codec in settings.codecs if codec not in ANCHORS] if not source.given else []
    for codec in networks:
        for rate in settings.bpp:
            try:
                found.append(bench.nvc(reference, codec, rate))
            except TargetError as error:
                left_out.append(f"{codec} at {rate:g} bpp: {error}")
    most = max((run["bpp"] for run in found if source.given), default=settings.bpp[-1])
    have = available()
    for codec in (codec for codec in settings.codecs if codec in ANCHORS):
        reason = refusal(ANCHORS[codec], reference.entry["width"], reference.entry["height"], have)
        try:
            found += [] if reason else _ladder(bench, reference, codec, BEYOND * most)
        except InputError as error:
            reason = str(error)
        left_out += [f"without {codec}: {reason}"] if reason else []
    return found, left_out


def _ladder(bench: Bench, reference: Reference, codec: str, most: float) -> Iterator[Entry]:
    """From the coarsest CRF on, to the first file above `most` bits per pixel."""
    for crf in ANCHORS[codec].ladder:
        entry = bench.anchor(reference, ANCHORS[codec], crf)
        yield entry
        if entry["bpp"] > most:
            return


def _codecs(runs: Sequence[Entry], settings: Settings) -> Iterator[dict[str, str]]:
    """What results.json says of each codec that has a run."""
    for codec in dict.fromkeys(run["codec"] for run in runs):
        if codec in ANCHORS:
            anchor = ANCHORS[codec]
            preset = anchor.settings[settings.anchors][1]
            label = f"{anchor.label} preset {preset}" if preset.isdecimal() else f"{anchor.label} {preset}"
            command = template(anchor, settings.anchors)
        else:
            model = codec.removeprefix("nvc:")
            label = f"nvc {MODEL_NAMES.get(model, model)}"
            given = all(run["encode"] is None for run in runs if run["codec"] == codec)
            make = process.nvc(*encode_words(settings, model, "SOURCE", "OUTPUT.nvc", "RATE"))
            command = "the files were given" if given else shown(make)
        yield {"id": codec, "label": label, "kind": "anchor" if codec in ANCHORS else "nvc", "command": command}
