"""What is settled before anything is fitted: the segments, the network that suits the budget, its program, and the bits."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod

import torch

from nvc.bitstream import constants
from nvc.bitstream.analysis import Analysis, analyse, check_picture
from nvc.bitstream.coefficients import SECTION_OF
from nvc.bitstream.constants import Limits
from nvc.bitstream.container import Writer
from nvc.bitstream.program import Builder, Program, pack_programs
from nvc.bitstream.segment import Segment
from nvc.bitstream.tensors import Kind

from .config import PRESETS, VERSION, Design, FitConfig
from .geometry import Picture
from .models import FAMILIES
from .network import Network
from .target import Budget, Smallest, Target, plan_budget
from .video import Clip

SEGMENT_FRAMES = 300  # by default at most: ten seconds to seek in, and long enough to share a network
STREAM_BYTES = 4  # that an entropy-coded section has beyond the bits of its tensors: 20 bits, and the rest of a word
MULTIPLIER_BYTES = 2


@dataclass(frozen=True)
class EncodeOptions:
    """What the user chose. `segment` is the most frames a network is shared by; `prune` a share of the weights; `tune` what a fit
    minimises (config.TUNES); `workers` how many segments are fitted at the same time, and share what those before them left.

    `config` takes the place of the preset's settings.
    """

    model: str = "hnerv"
    preset: str = "fast"
    target: Target = field(default_factory=Target)
    segment: int = SEGMENT_FRAMES
    seed: int = 0
    design: Design = field(default_factory=Design)
    prune: float = 0.0
    tune: str = "psnr"
    config: FitConfig | None = None
    workers: int = 1

    @property
    def fit(self) -> FitConfig:
        """The settings of the fit."""
        return replace(self.config or PRESETS[self.preset], prune=self.prune)

    @property
    def metadata(self) -> dict[str, str | int]:
        """What the file says of its making."""
        made: dict[str, str | int] = {"encoder": f"nvc {VERSION}", "preset": self.preset, "seed": self.seed}
        if self.tune != "psnr":
            made["tune"] = self.tune
        if self.workers != 1:
            made["workers"] = self.workers
        return made


@dataclass(frozen=True)
class Plan:
    """Frame ranges, the network's shape, its program, and the `bits` that weights, biases and latents may take together.

    `total_bytes` is the file to aim at, `least_bytes` the smallest that makes sense.
    """

    ranges: list[tuple[int, int]]
    config: object
    model: bytes
    analysis: Analysis
    total_bytes: float
    least_bytes: float
    bits: float
    side: int

    def coded_bits(self, sections: dict[int, bytes]) -> float:
        """What weights, biases and latents take of the `sections` of a segment."""
        return 8 * (sum(map(len, sections.values())) - _section_overhead(self.analysis))


@torch.random.fork_rng(devices=[])  # the networks are built for their shapes alone
def plan_encode(clip: Clip, options: EncodeOptions) -> Plan:
    """Cut the clip into segments of equal length and choose the network that suits the budget."""
    frames = len(clip.pts)
    family = FAMILIES[options.model]
    picture = Picture.of(clip.header)
    count = -(-frames // min(options.segment, Limits().max_segment_frames))
    ranges = list(itertools.pairwise(frames * i // count for i in range(count + 1)))
    smallest = family.plan(picture, 0, options.design)
    model, analysis = _program(clip, family.Network(smallest), options.model)
    least = Smallest(
        family.decoder_parameters(smallest),
        prod(smallest.grid.embedding) * smallest.embedding_channels,
        overhead_bytes(clip, options, model, analysis, ranges),
    )
    budget = _budget(clip, options, count, least)
    config = family.plan(picture, budget.parameters, options.design)
    model, analysis = _program(clip, family.Network(config), options.model)
    bits = budget.bits(overhead_bytes(clip, options, model, analysis, ranges))
    return Plan(ranges, config, model, analysis, budget.total_bytes, least.bytes(frames, count), bits, picture.side)


def overhead_bytes(
    clip: Clip, options: EncodeOptions, model: bytes, analysis: Analysis, ranges: list[tuple[int, int]]
) -> float:
    """Bytes of a file that are of neither weights nor biases nor latents: a file without those is written and measured."""
    file = io.BytesIO()
    writer = Writer(file, clip.header, model, options.metadata)
    sections = {SECTION_OF[parameter.kind]: b"\0" for parameter in analysis.parameters}
    for first, last in ranges:
        hashes = bytes(constants.HASH_BYTES * (last - first))
        writer.add(pack(clip, sections | {constants.HASHES: hashes}, bytes(constants.DIGEST_BYTES), (first, last)))
    writer.finish()
    return file.tell() + len(ranges) * (_section_overhead(analysis) - len(sections))


def _section_overhead(analysis: Analysis) -> int:
    """Bytes of a segment's sections that are not of weights, biases or embeddings: multipliers, and what a stream costs."""
    multipliers = sum(prod(parameter.shape) for parameter in analysis.parameters if parameter.kind is Kind.MULTIPLIER)
    streams = {SECTION_OF[parameter.kind] for parameter in analysis.parameters}
    return MULTIPLIER_BYTES * multipliers + STREAM_BYTES * len(streams)


def pack(clip: Clip, sections: dict[int, bytes], digest: bytes, span: tuple[int, int]) -> Segment:
    """The segment of frames `span`, with their time stamps where the frame rate is variable."""
    first, last = span
    times = None
    if clip.header.frame_rate is None:
        before = (clip.header.first_pts, *clip.pts)
        times = tuple(before[t + 1] - before[t] for t in range(first, last))
    return Segment(first, last - first, 0, digest, sections, times)


def _budget(clip: Clip, options: EncodeOptions, segments: int, least: Smallest) -> Budget:
    header, frames = clip.header, len(clip.pts)
    pixels = header.width * header.height * frames
    pix_fmt = "yuv420p" if header.pixel_format == constants.PIXEL_FORMATS["yuv420p"] else "rgb24"
    total = options.target.total_bytes(pixels, _duration(clip), pix_fmt)
    return plan_budget(total, pixels, frames, segments, least)


def _program(clip: Clip, network: Network, name: str) -> tuple[bytes, Analysis]:
    """The model chunk of a network, which depends on its shape alone, and what is known of it."""
    network.quantise()
    builder = Builder(name)
    network.emit(builder, None)
    program: Program = builder.program()
    analysis = analyse(program, Limits())
    check_picture(analysis, clip.header, Limits())
    return pack_programs([program]), analysis


def _duration(clip: Clip) -> Fraction | None:
    """Seconds from the first frame to the end of the last; None where a variable rate leaves only one frame."""
    if clip.header.frame_rate is not None:
        return len(clip.pts) / clip.header.frame_rate
    if len(clip.pts) < 2:
        return None
    span = (clip.pts[-1] - clip.pts[0]) * clip.header.time_base
    return span * len(clip.pts) / (len(clip.pts) - 1)
