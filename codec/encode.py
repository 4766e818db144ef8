"""Frames to bytes: plan, fit every segment, decode what will be written, pack."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import BinaryIO, cast

import numpy as np
import torch

from nvc.bitstream import constants
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.container import Writer
from nvc.bitstream.tensors import Kind

from .checkpoint import Keeper
from .decode import free_memory
from .fit import Progress
from .memory import Room, one_line
from .metrics import Quality
from .plan import EncodeOptions, Plan, pack, plan_encode
from .search import search
from .segment_fit import SegmentFit, plan_room
from .target import RAW_BPP, Target
from .together import in_turns
from .video import Clip

__all__ = ["EncodeOptions", "EncodeResult", "Plan", "SegmentProgress", "encode", "plan_encode"]


@dataclass(frozen=True)
class SegmentProgress:
    """A fit's progress and where it is: segment `number` of `segments` of attempt `attempt`, `bpp` of the frames it covers.

    Where `count` segments are fitted at the same time `number` is the first of them, and `fit` their mean.
    """

    number: int
    segments: int
    fit: Progress
    bpp: float
    attempt: int = 0
    count: int = 1


@dataclass(frozen=True)
class EncodeResult:
    """`quality` is that of the file as decoded, with MS-SSIM if the fit was tuned for it; `parameters` counts weights and biases
    of all segments.

    `target_bytes` is the size that was aimed at: where a PSNR was asked for, the one that should give it.
    """

    bytes: int
    target_bytes: float
    quality: Quality
    parameters: int
    seconds: float

    @property
    def psnr(self) -> float:
        """The PSNR that a target is compared with, in dB: 6:1:1, or of RGB."""
        return float(self.quality.headline.mean())


def encode(
    clip: Clip,
    file: BinaryIO,
    options: EncodeOptions,
    device: torch.device,
    report: Callable[[SegmentProgress], None],
    keeper: Keeper | None = None,
) -> EncodeResult:
    """Fit a network to each segment and write the file as it goes; TargetError before the first fit if a size cannot be met,
    MachineError where memory is too small for one.

    A PSNR may take several files, of which the one that comes nearest is written, within search.TOLERANCE or not. With a `keeper`
    fits are saved now and then, and an encode of the same arguments goes on with them; what was saved stays until the caller
    clears it.
    """
    started = time.monotonic()
    run = _encode if options.target.psnr is None else _encode_for_psnr
    with one_line(device):
        result = run(_Job(clip, options, device, report, keeper), file)
    return replace(result, seconds=time.monotonic() - started)


@dataclass(frozen=True)
class _Job:
    """What `encode` is asked for; `name` goes before those of its fits."""

    clip: Clip
    options: EncodeOptions
    device: torch.device
    report: Callable[[SegmentProgress], None]
    keeper: Keeper | None
    name: str = ""

    def attempt(self, number: int, size: float) -> _Job:
        """The same for a size, as one of several."""

        def report(state: SegmentProgress) -> None:
            self.report(replace(state, attempt=number))

        options = replace(self.options, target=Target(size=size))
        return replace(self, options=options, report=report, name=f"attempt {number + 1} ")


def _encode_for_psnr(job: _Job, file: BinaryIO) -> EncodeResult:
    clip, options = job.clip, job.options
    wanted = options.target.psnr
    assert wanted is not None
    made: dict[float, tuple[bytes, EncodeResult]] = {}

    def fit(size: float) -> float:
        data = io.BytesIO()
        result = _encode(job.attempt(len(made), size), data)
        made[size] = data.getvalue(), result
        return result.psnr

    usual = plan_encode(clip, replace(options, target=Target()))
    pixels = clip.header.width * clip.header.height * len(clip.pts)
    raw = RAW_BPP["rgb24" if usual.side == 1 else "yuv420p"] * pixels / 8
    best = search(wanted, usual.total_bytes, (usual.least_bytes, max(raw, usual.total_bytes)), fit)
    data, result = made[best.size]
    file.write(data)
    return result


def _encode(job: _Job, file: BinaryIO) -> EncodeResult:
    """One file of the size that the options ask for; `seconds` is left at 0.

    Segments are fitted in waves of `options.workers`, as many of a wave at a time as there is memory for. What a wave may take
    depends on what those before it took: neither the clock nor how many go on at a time decides what is written.
    """
    clip, options, device = job.clip, job.options, job.device
    plan = plan_encode(clip, options)
    counter = _Counter(file)
    writer = Writer(cast(BinaryIO, counter), clip.header, plan.model, options.metadata)
    qualities: list[Quality] = []
    left, frames_left = plan.bits, len(clip.pts)
    room, note = Room.unplanned(options.fit), ""
    for start in range(0, len(plan.ranges), options.workers):
        wave = plan.ranges[start : start + options.workers]
        free = free_memory(device)
        if free is not None and not room.holds(free):
            room = plan_room(clip, plan, options, device, free)
            note = room.note(options.fit)
        # what a wave leaves or takes too much, the next ones share
        bits = [max(left, 1.0) * (last - first) / frames_left for first, last in wave]
        told = _Told(start, len(wave), plan, clip, job.report, note)
        fits = (
            SegmentFit(clip, plan, options, i, share, device, room, told.of(i), job.keeper, f"{job.name}segment {i + 1}")
            for i, share in enumerate(bits, start)
        )
        most = len(wave) if free is None else room.fits(free)
        for fit, (first, last) in zip(in_turns(fits, most), wave, strict=True):
            sections = write_sections(plan.analysis, fit.tensors, last - first)
            left, frames_left = left - plan.coded_bits(sections), frames_left - (last - first)
            writer.add(pack(clip, sections | {constants.HASHES: fit.hashes}, digest(fit.tensors), (first, last)))
            qualities.append(fit.quality)
        note = ""
    writer.finish()
    weights = [p for p in plan.analysis.parameters if p.kind in (Kind.WEIGHT, Kind.BIAS)]
    count = sum(int(np.prod(p.shape)) for p in weights) * len(plan.ranges)
    return EncodeResult(counter.bytes, plan.total_bytes, Quality.join(qualities), count, 0.0)


class _Told:
    """Brings the progress of the `count` segments from `start` on together, and `note` with the first that is told."""

    def __init__(
        self, start: int, count: int, plan: Plan, clip: Clip, report: Callable[[SegmentProgress], None], note: str
    ) -> None:
        self._start, self._count, self._plan, self._report, self._note = start, count, plan, report, note
        self._pixels = clip.header.width * clip.header.height
        self._latest: dict[int, Progress] = {}

    def of(self, number: int) -> Callable[[Progress], None]:
        """What takes the progress of one of the segments."""
        return partial(self._tell, number)

    def _tell(self, number: int, progress: Progress) -> None:
        self._latest[number] = progress
        note = f"segment {number + 1}: {progress.note}" if progress.note and self._count > 1 else progress.note
        notes, self._note = filter(None, (self._note, note)), ""
        joint = replace(_joint(list(self._latest.values()), self._count), note="; ".join(notes))
        frames = sum(last - first for first, last in (self._plan.ranges[known] for known in self._latest))
        bpp = joint.bits / (self._pixels * frames)
        self._report(SegmentProgress(self._start, len(self._plan.ranges), joint, bpp, count=self._count))


def _joint(known: list[Progress], count: int) -> Progress:
    """The progress of `count` fits, of which some have told theirs: all bits, the mean of everything else."""
    usages = [(p.usage, p.perplexity) for p in known if p.usage is not None and p.perplexity is not None]
    usage, perplexity = map(fmean, zip(*usages, strict=True)) if usages else (None, None)
    return replace(
        known[0],
        step=sum(p.step for p in known) // count,
        steps=sum(p.steps for p in known) // len(known),
        psnr=fmean(p.psnr for p in known),
        bits=sum(p.bits for p in known),
        usage=usage,
        perplexity=perplexity,
    )


class _Counter:
    """Counts the bytes that pass to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.bytes = file, 0

    def write(self, data: bytes) -> int:
        """Write and count."""
        self.bytes += len(data)
        return self.file.write(data)
