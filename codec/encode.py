"""Frames to bytes: plan, fit every segment, decode what will be written, pack."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from nvc.bitstream import constants
from nvc.bitstream.bounds import prove
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.container import Writer
from nvc.bitstream.program import Builder
from nvc.bitstream.tensors import Kind

from .canvas import Planes, to_canvas
from .decode import CPU_BATCH, CUDA_BATCH, frame_hash
from .fit import Fit, Progress
from .interpreter import Interpreter
from .metrics import Quality
from .models import FAMILIES
from .plan import EncodeOptions, Plan, pack, plan_encode
from .search import search
from .target import RAW_BPP, Target
from .video import Clip

__all__ = ["EncodeOptions", "EncodeResult", "Plan", "SegmentProgress", "encode", "fit_segment", "plan_encode"]

Tensors = list[NDArray[np.int64]]


@dataclass(frozen=True)
class SegmentProgress:
    """A fit's progress and where it is: segment `number` of `segments` of attempt `attempt`, `bpp` of the frames it covers."""

    number: int
    segments: int
    fit: Progress
    bpp: float
    attempt: int = 0


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
    clip: Clip, file: BinaryIO, options: EncodeOptions, device: torch.device, report: Callable[[SegmentProgress], None]
) -> EncodeResult:
    """Fit a network to each segment and write the file as it goes; TargetError before the first fit if a size cannot be met.

    A PSNR may take several files, of which the one that comes nearest is written, within search.TOLERANCE or not.
    """
    started = time.monotonic()
    run = _encode if options.target.psnr is None else _encode_for_psnr
    return replace(run(clip, file, options, device, report), seconds=time.monotonic() - started)


def _encode_for_psnr(
    clip: Clip, file: BinaryIO, options: EncodeOptions, device: torch.device, report: Callable[[SegmentProgress], None]
) -> EncodeResult:
    wanted = options.target.psnr
    assert wanted is not None
    made: dict[float, tuple[bytes, EncodeResult]] = {}

    def fit(size: float) -> float:
        attempt, data = len(made), io.BytesIO()
        sized = replace(options, target=Target(size=size))
        result = _encode(clip, data, sized, device, lambda state: report(replace(state, attempt=attempt)))
        made[size] = data.getvalue(), result
        return result.psnr

    usual = plan_encode(clip, replace(options, target=Target()))
    pixels = clip.header.width * clip.header.height * len(clip.pts)
    raw = RAW_BPP["rgb24" if usual.side == 1 else "yuv420p"] * pixels / 8
    best = search(wanted, usual.total_bytes, (usual.least_bytes, max(raw, usual.total_bytes)), fit)
    data, result = made[best.size]
    file.write(data)
    return result


def _encode(
    clip: Clip, file: BinaryIO, options: EncodeOptions, device: torch.device, report: Callable[[SegmentProgress], None]
) -> EncodeResult:
    """One file of the size that the options ask for; `seconds` is left at 0."""
    plan = plan_encode(clip, options)
    counter = _Counter(file)
    writer = Writer(cast(BinaryIO, counter), clip.header, plan.model, options.metadata)
    qualities: list[Quality] = []
    left, frames_left = plan.bits, len(clip.pts)
    for number, (first, last) in enumerate(plan.ranges):
        planes: Planes = tuple(plane[first:last] for plane in clip.planes)  # type: ignore[assignment]

        def told(progress: Progress, number: int = number, frames: int = last - first) -> None:
            pixels = clip.header.width * clip.header.height * frames
            report(SegmentProgress(number, len(plan.ranges), progress, progress.bits / pixels))

        bits = max(left, 1.0) * (last - first) / frames_left  # what a segment leaves or takes too much, the next ones share
        tensors = fit_segment(planes, plan, options, number, bits, device, told)
        hashes, quality = _decode(planes, plan, tensors, device, similarity=options.tune == "ssim")
        sections = write_sections(plan.analysis, tensors, last - first)
        left, frames_left = left - plan.coded_bits(sections), frames_left - (last - first)
        writer.add(pack(clip, sections | {constants.HASHES: hashes}, digest(tensors), (first, last)))
        qualities.append(quality)
    writer.finish()
    weights = [p for p in plan.analysis.parameters if p.kind in (Kind.WEIGHT, Kind.BIAS)]
    count = sum(int(np.prod(p.shape)) for p in weights) * len(plan.ranges)
    return EncodeResult(counter.bytes, plan.total_bytes, Quality.join(qualities), count, 0.0)


def fit_segment(
    planes: Planes,
    plan: Plan,
    options: EncodeOptions,
    number: int,
    bits: float,
    device: torch.device,
    report: Callable[[Progress], None],
) -> Tensors:
    """Fit segment `number` to `bits`; the integer parameters of its program, proven to stay within 2^24."""
    family = FAMILIES[options.model]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed + number)
        network = family.Network(plan.config)
    canvas = to_canvas(planes, plan.side, network.grid.size)
    fit = Fit(network, canvas.to(device), options.fit, bits, options.seed + number, options.tune)
    numbers = fit.run(report)
    builder = Builder(options.model)
    network.emit(builder, numbers)
    tensors: Tensors = builder.tensors
    prove(plan.analysis, tensors)
    return tensors


def _decode(
    planes: Planes, plan: Plan, tensors: Tensors, device: torch.device, *, similarity: bool
) -> tuple[bytes, Quality]:
    """Run what will be written: the hashes of its frames and their quality."""
    frames = len(planes[0])
    run = Interpreter(plan.analysis, tensors, frames, CUDA_BATCH if device.type == "cuda" else CPU_BATCH, device)
    batches = [run.render(first, min(run.batch, frames - first)) for first in range(0, frames, run.batch)]
    decoded: Planes = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))  # type: ignore[assignment]
    hashes = b"".join(frame_hash([plane[t] for plane in decoded]) for t in range(frames))
    return hashes, Quality.of(planes, decoded, rgb=plan.side == 1, similarity=similarity)


class _Counter:
    """Counts the bytes that pass to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.bytes = file, 0

    def write(self, data: bytes) -> int:
        """Write and count."""
        self.bytes += len(data)
        return self.file.write(data)
