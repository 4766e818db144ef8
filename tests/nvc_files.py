"""Small clips and complete .nvc files, made once a session, for the tests of encode, decode and the command line."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream.analysis import analyse
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.constants import HASHES, Limits
from nvc.bitstream.container import Writer
from nvc.bitstream.header import Header
from nvc.bitstream.program import Program, pack_programs
from nvc.bitstream.segment import Segment
from nvc.conformance import ref_operations
from nvc.conformance.catalogue.networks import Network, random_network

Integers = NDArray[np.int64]
STEPS = 12  # enough to pass through every phase of a fit


def planes_of(header: Header, frames: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Three planes (frames, h, w): waves that move, different in each plane."""
    made = []
    for number, (height, width) in enumerate(header.plane_shapes()):
        t, y, x = np.ogrid[:frames, :height, :width]
        made.append((128 + 90 * np.sin((x + 2 * t + 9 * number) / 4) * np.cos((y - t) / 5)).astype(np.uint8))
    return made[0], made[1], made[2]


def clip(width: int = 32, height: int = 24, frames: int = 5, pixel_format: int = 0, pts: Sequence[int] = ()):  # type: ignore[no-untyped-def]
    """A moving Clip; with `pts` one of variable frame rate, in milliseconds."""
    from fractions import Fraction

    from nvc.codec.video import Clip

    header = Header(width, height, pixel_format, frame_count=frames)
    if pts:
        header = replace(header, frame_rate=None, time_base=Fraction(1, 1000), first_pts=pts[0])
    return Clip(header, planes_of(header, frames), tuple(pts) or tuple(range(frames)), ())


def encode(source, steps: int = STEPS, **options):  # type: ignore[no-untyped-def]
    """Encode a Clip with a fit of `steps` steps; the file's bytes and the EncodeResult."""
    import torch

    from nvc.codec.config import PRESETS, FitConfig
    from nvc.codec.encode import EncodeOptions
    from nvc.codec.encode import encode as run

    file = io.BytesIO()
    with mock.patch.dict(PRESETS, draft=FitConfig(passes=1, min_steps=steps)):
        result = run(source, file, EncodeOptions(preset="draft", **options), torch.device("cpu"), lambda _: None)
    return file.getvalue(), result


def a_fit(source, target, config, seed: int = 0, design=None, model: str = "hnerv"):  # type: ignore[no-untyped-def]
    """The Plan of a Clip and a Fit of it in one segment that has not run yet."""
    import torch

    from nvc.codec.canvas import to_canvas
    from nvc.codec.config import Design
    from nvc.codec.encode import EncodeOptions, plan_encode
    from nvc.codec.fit import Fit
    from nvc.codec.models import FAMILIES

    plan = plan_encode(source, EncodeOptions(model, target=target, design=design or Design(), segment=4096))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FAMILIES[model].Network(plan.config)
    canvas = to_canvas(source.planes, plan.side, network.grid.size)
    return plan, Fit(network, canvas, config, plan.bits, seed)


def emitted(network, numbers: Sequence[list[Integers]]) -> list[Integers]:  # type: ignore[no-untyped-def]
    """The tensors of a fitted network with the numbers of its latents, as they would be written."""
    from nvc.bitstream.program import Builder

    builder = Builder("nvc")
    network.emit(builder, numbers)
    return builder.tensors


@functools.cache
def encoded(**wanted: int) -> bytes:
    """A file of five frames in three segments (frames 0, 1-2 and 3-4); `wanted` are arguments of `clip`."""
    data: bytes = encode(clip(**wanted), segment=2)[0]
    return data


VARIABLE = (40, 80, 200, 233, 1000)


@functools.cache
def encoded_variable() -> bytes:
    """The same with the time stamps VARIABLE."""
    data: bytes = encode(clip(pts=VARIABLE), segment=2)[0]
    return data


def frame_hash(planes: Sequence[Integers]) -> bytes:
    """SPEC 4.3 by its words."""
    return hashlib.sha256(b"".join(plane.astype(np.uint8).tobytes() for plane in planes)).digest()[:8]


def reference_frames(network: Network) -> list[list[Integers]]:
    """The frames of one segment of a network, each three planes (H, W), by the conformance reference."""
    rows = [[int(op.code), *op.arguments] for op in network.program.operations]
    return [ref_operations.render(rows, network.tensors, t, network.frames) for t in range(network.frames)]


def program_file(header: Header, programs: Sequence[Program], segments: Sequence[Segment], *, indexed: bool = True) -> bytes:
    """A file of these programs and segments."""
    file = io.BytesIO()
    writer = Writer(file, header, pack_programs(programs), indexed=indexed)
    for segment in segments:
        writer.add(segment)
    writer.finish()
    return file.getvalue()


def segment_of(network: Network, first: int, hashes: bytes, program: int = 0) -> Segment:
    """The numbers of a network as a segment that begins with frame `first`."""
    sections = write_sections(analyse(network.program, Limits()), network.tensors, network.frames)
    return Segment(first, network.frames, program, digest(network.tensors), {**sections, HASHES: hashes})


def network_file(seed: int) -> tuple[bytes, list[list[Integers]]]:
    """A file of two equal segments of a random network, and all of its frames by the reference."""
    network = random_network(seed)
    frames = reference_frames(network)
    hashes = b"".join(map(frame_hash, frames))
    header = replace(network.header, frame_count=2 * network.frames)
    segments = [segment_of(network, first, hashes) for first in (0, network.frames)]
    return program_file(header, [network.program], segments), 2 * frames
