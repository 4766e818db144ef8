"""Rate-distortion of nvc's default settings beside x264, x265 and SVT-AV1 at their best; BD-rate and who wins come last.

    python bench/rd.py $NVC_CLIPS/bunny.mp4 $NVC_CLIPS/coffee.mp4 --device cuda --json rd.jsonl [--side nvc|anchors|both|none]

A file of nvc is what `nvc encode` makes with its defaults at a size, decoded again, and counts as a whole. The anchors are those
of `nvc report` in the set `benchmark` (codec/report/anchors.py), from their coarsest file to the first of twice nvc's largest
size, and count as elementary streams without info message. PSNR is the mean over frames of 4:2:0 samples; BD-rate is that of
codec/report/bd.py.

The clips are H.264 themselves. At their native size their errors are such as a block codec makes, on the same grid: it codes
these cheaply and a network does not, so native size favours the anchors, and x264 most. --scale takes the grid away.

The sides need not run on one machine: `nvc` needs no encoder of ffmpeg, `anchors` neither a GPU nor a fit. Each result is a line
of --json at once, with where it was made; a run that was killed goes on with the same command. --with gives results that were
made elsewhere, --side none prints what there is. --every N takes every N-th CRF of the anchors; a later run may fill in.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import provenance
import torch
from clips import size, span
from jobs import Job, Journal, Result, Source
from rd_tables import METRICS, SIDES, Key, comparisons, curve_of, curves, document, entries, origins

from nvc.bitstream.errors import ComparisonError, InputError, NvcError, TargetError
from nvc.codec.config import MODELS, PRESETS
from nvc.codec.decode import Decoder, open_device
from nvc.codec.encode import EncodeOptions, encode
from nvc.codec.metrics import Quality
from nvc.codec.report import anchors, bd, process, stopwatch
from nvc.codec.report.anchors import ANCHORS, Anchor
from nvc.codec.report.environment import environment
from nvc.codec.report.measure import measure
from nvc.codec.report.sweep import BEYOND
from nvc.codec.sinks import open_sink
from nvc.codec.target import Target

BPP = (0.02, 0.04, 0.08, 0.16)  # 1280x720 and 132 frames: networks of 0.1 to 5 M weights, where those of the papers are
ALL = tuple(ANCHORS)
TINY_BPP = (1.5, 5.0)  # the least that a network for so few samples takes is about 1 bpp
TINY_FIT = jobs.exactly(PRESETS["draft"], 40)
TINY = {  # by anchor: its fastest settings and three CRFs
    "x264": (("-preset", "ultrafast"), (51, 42, 30)),
    "x265": (("-preset", "ultrafast", "-x265-params", "pools=none:frame-threads=1"), (48, 39, 27)),
    "svtav1": (("-preset", "12", "-svtav1-params", "tune=1:lp=1"), (63, 52, 36)),
}
# x264 and x265 say who they are in the info message of the file, SVT-AV1 on standard error
_ENCODER = re.compile(rb"x264 - core \d+|x265 \(build \d+\) - [\w.+-]+|SVT-AV1 Encoder Lib v[\w.-]+")


@dataclass(frozen=True)
class Chain:
    """Files of one codec from a clip that are made in turn; those behind the first above `most` bits per pixel are not made."""

    jobs: Sequence[Job]
    most: float = math.inf

    def wanted(self, journal: Journal) -> Iterator[Job]:
        """The jobs up to the one that `most` ends with; each is looked up when the next is asked for."""
        for job in self.jobs:
            yield job
            result = journal.result(job)
            if result and result["bpp"] > self.most:
                return


class References:
    """Clips as files without loss for ffmpeg, in `folder`; each is written when it is first needed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._paths: dict[str, str] = {}

    def path(self, source: Source) -> str:
        """The file of a clip."""
        if source.key not in self._paths:
            path = os.path.join(self._folder, f"{len(self._paths)}.mkv")
            with open_sink(path, source.clip.header, overwrite=True) as sink:
                sink.write(source.clip.planes, source.clip.pts)
            self._paths[source.key] = path
        return self._paths[source.key]


def key(source: Source, codec: str, setting: Any, rate: Mapping[str, Any]) -> Key:
    """What a file is; all but `rate` says of which curve it is a point."""
    header = source.clip.header
    clip = {"clip": source.name, "frames": len(source.clip.pts), "width": header.width, "height": header.height}
    side = "anchors" if codec in ANCHORS else "nvc"
    return {"bench": "rd", "side": side, **clip, "codec": codec, "setting": setting, "rate": rate}


def nvc_file(source: Source, options: EncodeOptions, device: torch.device) -> Job:
    """One file of nvc."""

    def run() -> Result:
        with tempfile.TemporaryFile(prefix="nvc-rd-") as file:
            made = encode(source.clip, file, options, device, lambda progress: None)
            length = file.seek(0, os.SEEK_END)
            file.seek(0)
            batches = [batch.planes for batch in Decoder(file, device).frames()]
        y, cb, cr = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        quality = Quality.of(source.clip.planes, (y, cb, cr), rgb=False).as_dict()
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        scores = {"psnr_y": quality["y"], "psnr_611": quality["yuv611"]}
        return figures(source, length, scores, made.seconds) | {"target": made.target_bytes, "made": origin(gpu)}

    setting = jobs.settings(options)
    rate = setting.pop("target")
    setting |= {"preset": options.preset, "device": device.type}
    label = f"{source.name} {options.model} {options.target.bpp:g} bpp"
    return Job(label, key(source, f"nvc:{options.model}", setting, rate), run)


def anchor_file(source: Source, anchor: Anchor, settings: str, crf: int, references: References) -> Job:
    """One file of an anchor with the settings of a set."""

    def run() -> Result:
        reference, variable = references.path(source), source.clip.header.frame_rate is None
        with tempfile.TemporaryDirectory(prefix="nvc-rd-") as folder:
            path, stream = os.path.join(folder, f"file{anchor.ending}"), os.path.join(folder, "stream")
            timed = command(anchors.encode_args(anchor, settings, crf, reference, path, variable_rate=variable))
            command(anchors.elementary_args(anchor, path, stream))
            quality = measure(reference, path, metrics=("psnr",)).quality()
            named = _ENCODER.search(Path(path).read_bytes()) or _ENCODER.search(timed.stderr.encode())
            length, file_bytes = os.path.getsize(stream), os.path.getsize(path)
        scores = {metric: quality[metric]["mean"] for metric in METRICS}
        made = {name: value for name, value in origin("").items() if name not in ("python", "torch")}
        made |= {"encoder": named[0].decode() if named else "unknown"}
        return figures(source, length, scores, timed.seconds) | {"file_bytes": file_bytes, "made": made}

    setting = {"set": settings, "options": list(anchor.settings[settings])}
    return Job(f"{source.name} {anchor.id} crf {crf}", key(source, anchor.id, setting, {"crf": crf}), run)


def figures(source: Source, length: int, scores: Mapping[str, float | None], seconds: float) -> Result:
    """What both sides tell of a file of `length` bytes; `seconds` are those of the encode."""
    return {"bytes": length, "bpp": round(8 * length / source.pixels, 6), **scores, "seconds": round(seconds, 2)}


def command(words: list[str]) -> stopwatch.Timed:
    """Run ffmpeg; InputError with what the encoder said, or MachineError, where it fails."""
    timed = stopwatch.run(words)
    if timed.status and (reason := anchors.complaint(timed.stderr)):
        raise InputError("encoder", reason)
    if timed.status:
        raise process.failure("ffmpeg", timed.status, timed.stderr)
    return timed


@functools.cache  # of the code that runs, whatever becomes of the files meanwhile
def origin(gpu: str) -> dict[str, Any]:
    """Where files are made and with what, and since when."""
    return {"date": time.strftime("%Y-%m-%d"), "commit": provenance.commit(), **environment(gpu)}


def plan(source: Source, options: argparse.Namespace, device: torch.device, references: References) -> list[Chain]:
    """All of a clip: a chain for each file of nvc, one for each anchor."""
    config = TINY_FIT if options.tiny else None
    targets = [(model, Target(bpp=bpp)) for model in options.models for bpp in options.bpp]
    encodes = [EncodeOptions(model=model, preset=options.preset, target=target, config=config) for model, target in targets]
    chains = [Chain([nvc_file(source, encode, device)]) for encode in encodes]
    for name in options.anchors:
        anchor, settings = ANCHORS[name], "benchmark"
        if options.tiny:
            fastest, ladder = TINY[name]
            anchor, settings = replace(anchor, settings={"tiny": fastest}, ladder=ladder), "tiny"
        files = [anchor_file(source, anchor, settings, crf, references) for crf in anchor.ladder[:: options.every]]
        chains.append(Chain(files, BEYOND * max(options.bpp)))
    return chains


def run(chains: Sequence[Chain], journal: Journal, part: tuple[int, int]) -> None:
    """Make what is missing of every n-th chain; one that cannot go on is left with a line that says why."""
    have = anchors.available() if any(chain.jobs[0].key["side"] == "anchors" for chain in chains) else frozenset()
    for chain in chains[part[0] - 1 :: part[1]]:
        first = chain.jobs[0].key
        anchor = ANCHORS.get(first["codec"])
        if anchor and (reason := anchors.refusal(anchor, first["width"], first["height"], have)):
            print(f"{first['clip']}: without {first['codec']}: {reason}", file=sys.stderr)
            continue
        for job in chain.wanted(journal):
            try:
                jobs.run([job], journal)
            except (InputError, TargetError, ComparisonError) as error:
                print(f"{job.label}: {error}", file=sys.stderr)
                break


def missing(chains: Iterable[Chain], journal: Journal) -> Iterator[str]:
    """A line for each curve that lacks files; where it ends is not known, so it names an anchor's to the end of the ladder."""
    lacking: dict[str, list[str]] = {}
    for chain in chains:
        for job in chain.wanted(journal):
            if journal.result(job) is None:
                rate = " ".join(f"{name} {value:g}" for name, value in job.key["rate"].items())
                lacking.setdefault(f"{job.key['clip']} {job.key['codec']}", []).append(rate)
    for name, rates in lacking.items():
        yield f"MISSING: {name}: {', '.join(rates)}"


# ---- the command line


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, with those that --tiny stands for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs.add_arguments(parser)
    parser.add_argument("clips", nargs="*", metavar="CLIP", help="a file, or synthetic:zoom, synthetic:pan (clips.py)")
    parser.add_argument("--scale", type=size, metavar="WxH")
    parser.add_argument("--frames", type=span, metavar="A:B")
    parser.add_argument("--bpp", type=jobs.floats, metavar="A,B", help="sizes of nvc's files")
    parser.add_argument("--models", type=jobs.names(MODELS), default=MODELS, metavar="A,B", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--preset", choices=PRESETS, default=EncodeOptions().preset)
    parser.add_argument("--side", choices=(*SIDES, "both", "none"), default="both", help="what is run; the tables show both")
    parser.add_argument("--anchors", type=jobs.names(ALL), default=ALL, metavar="A,B", help=f"of {', '.join(ALL)}")
    parser.add_argument("--every", type=int, choices=range(1, 5), default=1, metavar="N", help="of the anchors' CRFs")
    parser.add_argument("--with", dest="others", type=Path, action="append", default=[], metavar="FILE", help="made elsewhere")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU: a small synthetic clip, few steps, fast anchors")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.clips = options.clips or ["synthetic:pan"]
        options.scale, options.frames = options.scale or (48, 32), options.frames or (0, 4)
    if not options.clips:
        parser.error("name a clip, or --tiny")
    options.bpp = options.bpp or (TINY_BPP if options.tiny else BPP)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    options = parsed(given)
    torch.set_num_threads(options.threads)
    fits = options.side in ("nvc", "both")  # else files of a device that this machine lacks can be shown
    device = open_device(options.device) if fits or options.device == "auto" else torch.device(options.device)
    journal = Journal(options.json)
    for path in options.others:
        journal.results = Journal(path).results | journal.results
    with tempfile.TemporaryDirectory(prefix="nvc-rd-") as folder:
        references = References(folder)
        chains = [chain for source in jobs.sources(options) for chain in plan(source, options, device, references)]
        run([chain for chain in chains if options.side in ("both", chain.jobs[0].key["side"])], journal, options.part)
    wanted = {curve_of(chain.jobs[0].key) for chain in chains}
    found = [entry for entry in entries([journal]) if curve_of(entry[0]) in wanted]
    print("\n".join([time.strftime("%Y-%m-%d"), *origins(found), "", f"    {provenance.command('rd', given)}", ""]))
    doc = document(found)
    print(curves(doc))
    for line in missing(chains, journal):
        print(line)
    if lacking := [side for side in SIDES if not any(each["side"] == side for each, _ in found)]:
        print(f"\nNo BD-rate: nothing is there of the side {' nor of the side '.join(lacking)}.")
        return
    doc["bd"] = bd.rows(doc)
    print(comparisons(doc))


if __name__ == "__main__":
    try:
        main()
    except NvcError as error:
        raise SystemExit(f"rd.py: {error}") from None
