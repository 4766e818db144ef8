"""Frames to bytes: plan the segments and the network, fit, quantise, decode what will be written, pack."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from nvc.bitstream import constants
from nvc.bitstream.analysis import Analysis, analyse, check_picture
from nvc.bitstream.bounds import prove
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.constants import Limits
from nvc.bitstream.container import Writer
from nvc.bitstream.program import Builder, Program, pack_programs
from nvc.bitstream.segment import Segment

from .canvas import Planes, to_canvas
from .config import PRESETS, VERSION, FitConfig
from .decode import CPU_BATCH, CUDA_BATCH, frame_hash
from .fit import Fit, Progress
from .geometry import Picture
from .interpreter import Interpreter
from .metrics import Quality
from .models import FAMILIES
from .network import Network
from .target import Budget, Target, plan_budget
from .video import Clip

Tensors = list[NDArray[np.int64]]

SEGMENT_FRAMES = 300  # by default at most: ten seconds to seek in, and long enough to share a network


@dataclass(frozen=True)
class EncodeOptions:
    """What the user chose. `segment` is the most frames a network is shared by; `activation` that of the decoder."""

    model: str = "hnerv"
    preset: str = "fast"
    target: Target = field(default_factory=Target)
    segment: int = SEGMENT_FRAMES
    seed: int = 0
    activation: str = "hswish"

    @property
    def fit(self) -> FitConfig:
        """The settings of the preset."""
        return PRESETS[self.preset]


@dataclass(frozen=True)
class SegmentProgress:
    """A fit's progress and where it is: segment `number` of `segments`, `bpp` of the frames it covers."""

    number: int
    segments: int
    fit: Progress
    bpp: float


@dataclass(frozen=True)
class EncodeResult:
    """`quality` is that of the file as decoded; `parameters` counts weights and biases of all segments."""

    bytes: int
    target_bytes: float
    quality: Quality
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What is settled before fitting: frame ranges, the network's shape, its program, and the bits."""

    ranges: list[tuple[int, int]]
    config: object
    model: bytes
    analysis: Analysis
    budget: Budget
    side: int


def encode(
    clip: Clip, file: BinaryIO, options: EncodeOptions, device: torch.device, report: Callable[[SegmentProgress], None]
) -> EncodeResult:
    """Fit a network to each segment and write the file as it goes; TargetError before the first fit if it cannot be met."""
    started = time.monotonic()
    plan = plan_encode(clip, options)
    metadata: dict[str, str | int] = {"encoder": f"nvc {VERSION}", "preset": options.preset, "seed": options.seed}
    counter = _Counter(file)
    writer = Writer(cast(BinaryIO, counter), clip.header, plan.model, metadata)
    qualities: list[Quality] = []
    for number, (first, last) in enumerate(plan.ranges):
        planes: Planes = tuple(plane[first:last] for plane in clip.planes)  # type: ignore[assignment]

        def told(progress: Progress, number: int = number, frames: int = last - first) -> None:
            pixels = clip.header.width * clip.header.height * frames
            report(SegmentProgress(number, len(plan.ranges), progress, progress.bits / pixels))

        tensors = fit_segment(planes, plan, options, number, device, told)
        hashes, quality = _decode(planes, plan, tensors, device)
        writer.add(_segment(clip, plan.analysis, tensors, hashes, (first, last)))
        qualities.append(quality)
    writer.finish()
    weights = [p for p in plan.analysis.parameters if p.kind.value in ("weight", "bias")]
    count = sum(int(np.prod(p.shape)) for p in weights) * len(plan.ranges)
    return EncodeResult(
        counter.bytes, plan.budget.total_bytes, Quality.join(qualities), count, time.monotonic() - started
    )


def plan_encode(clip: Clip, options: EncodeOptions) -> Plan:
    """Cut the clip into segments of equal length and choose the network that suits the budget."""
    header = clip.header
    frames = len(clip.pts)
    family = FAMILIES[options.model]
    picture = Picture.of(header)
    count = -(-frames // min(options.segment, Limits().max_segment_frames))
    edges = [frames * i // count for i in range(count + 1)]
    ranges = list(itertools.pairwise(edges))
    pixels = header.width * header.height * frames
    pix_fmt = "yuv420p" if header.pixel_format == constants.PIXEL_FORMATS["yuv420p"] else "rgb24"
    total = options.target.total_bytes(pixels, _duration(clip), pix_fmt)
    smallest = family.plan(picture, 0, options.activation)
    values = int(np.prod(smallest.grid.embedding)) * smallest.embedding_channels
    budget = plan_budget(total, pixels, frames, count, (family.decoder_parameters(smallest), values))
    config = family.plan(picture, budget.parameters, options.activation)
    with torch.random.fork_rng(devices=[]):  # its random weights are not used, and not to be drawn from the caller
        program = _program(family.Network(config), options.model)
    analysis = analyse(program, Limits())
    check_picture(analysis, header, Limits())
    return Plan(ranges, config, pack_programs([program]), analysis, budget, picture.side)


def fit_segment(
    planes: Planes,
    plan: Plan,
    options: EncodeOptions,
    number: int,
    device: torch.device,
    report: Callable[[Progress], None],
) -> Tensors:
    """Fit one segment; the integer parameters of its program, proven to stay within 2^24."""
    family = FAMILIES[options.model]
    frames = len(planes[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed + number)
        network = family.Network(plan.config)
    canvas = to_canvas(planes, plan.side, network.grid.size)
    fit = Fit(network, canvas.to(device), options.fit, plan.budget.bits_per_frame * frames, options.seed + number)
    codes = fit.run(report)
    builder = Builder(options.model)
    network.emit(builder, codes.cpu().numpy().astype(np.int64))
    tensors: Tensors = builder.tensors
    prove(plan.analysis, tensors)
    return tensors


def _decode(planes: Planes, plan: Plan, tensors: Tensors, device: torch.device) -> tuple[bytes, Quality]:
    """Run what will be written: the hashes of its frames and their quality."""
    frames = len(planes[0])
    run = Interpreter(plan.analysis, tensors, frames, CUDA_BATCH if device.type == "cuda" else CPU_BATCH, device)
    batches = [run.render(first, min(run.batch, frames - first)) for first in range(0, frames, run.batch)]
    decoded: Planes = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))  # type: ignore[assignment]
    hashes = b"".join(frame_hash([plane[t] for plane in decoded]) for t in range(frames))
    return hashes, Quality.of(planes, decoded, rgb=plan.side == 1)


def _segment(clip: Clip, analysis: Analysis, tensors: Tensors, hashes: bytes, span: tuple[int, int]) -> Segment:
    first, last = span
    times = None
    if clip.header.frame_rate is None:
        before = (clip.header.first_pts, *clip.pts)
        times = tuple(before[t + 1] - before[t] for t in range(first, last))
    sections = write_sections(analysis, tensors, last - first) | {constants.HASHES: hashes}
    return Segment(first, last - first, 0, digest(tensors), sections, times)


def _program(network: Network, name: str) -> Program:
    """The program of a network, which depends on its shape alone."""
    network.quantise()
    builder = Builder(name)
    network.emit(builder, None)
    return builder.program()


def _duration(clip: Clip) -> Fraction | None:
    """Seconds from the first frame to the end of the last; None where a variable rate leaves only one frame."""
    if clip.header.frame_rate is not None:
        return len(clip.pts) / clip.header.frame_rate
    if len(clip.pts) < 2:
        return None
    span = (clip.pts[-1] - clip.pts[0]) * clip.header.time_base
    return span * len(clip.pts) / (len(clip.pts) - 1)


class _Counter:
    """Counts the bytes that pass to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.bytes = file, 0

    def write(self, data: bytes) -> int:
        """Write and count."""
        self.bytes += len(data)
        return self.file.write(data)
