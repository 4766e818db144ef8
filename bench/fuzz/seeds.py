"""The seed corpus: small inputs that the product itself writes, with every kind of chunk and tensor and many operations."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
from invariants import KINDS, RANKS, SegmentInput, ShapesInput

from nvc.bitstream.analysis import analyse
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.constants import EMBEDDINGS, HASHES, TOKENS, WEIGHTS, Limits
from nvc.bitstream.container import Segment, Writer
from nvc.bitstream.header import Header
from nvc.bitstream.program import pack_programs
from nvc.bitstream.segment import pack_segment
from nvc.bitstream.tensors import Kind, TensorSpec, write_tensors
from nvc.conformance.catalogue.networks import Network, random_network

LARGEST = 600  # bytes of a seed; short inputs are mutated and read faster
NETWORKS = 60  # random networks that are tried, of which the small ones are taken


def _file(
    header: Header,
    frames: Sequence[int],
    metadata: Mapping[str, str | int] | None = None,
    indexed: bool = True,
    times: Sequence[int] = (),
    model: bytes = b"\x90",
) -> bytes:
    """A file whose segments have so many frames each, and sections of a few bytes."""
    file = io.BytesIO()
    writer = Writer(file, header, model, metadata, indexed)
    for count, end in zip(frames, accumulate(frames), strict=True):
        sections = {WEIGHTS: b"w" * (end % 5), HASHES: bytes(8 * count)}
        if end % 2:
            sections |= {EMBEDDINGS: b"e", TOKENS: b"tok"}
        ticks = tuple(times[end - count : end]) if times else None
        writer.add(Segment(end - count, count, 0, bytes(8), sections, ticks))
    writer.finish()
    return file.getvalue()


def container() -> Iterator[bytes]:
    """Files with and without index, metadata, frame count and constant rate, one with an ordinary program and its numbers."""
    header = Header(6, 4, 0, frame_count=6)
    yield _file(header, (2, 3, 1), {"tool": "nvc"})
    yield _file(header, (2, 3, 1), indexed=False)
    yield _file(header, (6,), {"a": -1, "b": "b" * 80})
    yield _file(replace(header, frame_count=None), (1, 1, 1, 1), indexed=False)
    yield _file(replace(header, frame_count=None, pixel_format=1), (1, 2))
    variable = replace(header, frame_rate=None, first_pts=-40)
    yield _file(variable, (2, 3, 1), times=(0, 40, 41, 1, (1 << 32) - 1, 7))
    yield _file(variable, (6,), times=(0, *[1 << 20] * 5), indexed=False)
    network = _networks()[0]
    model = pack_programs([network.program])
    yield _file(replace(network.header, frame_count=3), (3,), {"model": "random"}, model=model)


def program() -> Iterator[bytes]:
    """The programs of random networks, which together have every operation, and two in one document."""
    networks = _networks()
    for network in networks:
        yield pack_programs([network.program])
    yield pack_programs([network.program for network in networks[:2]])


def numbers() -> Iterator[bytes]:
    """Segments of random networks, and sections of one tensor of each kind with constant, small, wide and repeated values."""
    for network in _networks():
        yield SegmentInput(pack_programs([network.program]), _segment(network)).to_bytes()
    random = np.random.default_rng(0)
    for number, kind in enumerate(KINDS):
        dimensions = ((24, 1, 1, 1), (5, 4, 2, 3), (3, 3, 3, 3))[number % 3]
        levels = 9 if kind is Kind.TOKENS else 0
        shape = tuple(dimension for dimension in dimensions[: RANKS[kind]])
        spec = TensorSpec(kind, shape, levels)
        row = (number, max(levels - 2, 0), *(dimension - 1 for dimension in dimensions))
        least, most = spec.range
        for values in (
            np.full(shape, most),
            random.integers(max(least, -2), min(most, 2) + 1, shape),
            random.integers(least, most + 1, shape),
            np.where(random.random(shape) < 0.1, random.integers(least, most + 1, shape), 1),
        ):
            yield ShapesInput([row], write_tensors([(spec, values)])).to_bytes()


def _segment(network: Network) -> bytes:
    """The payload of a SEGM chunk."""
    sections = write_sections(analyse(network.program, Limits()), network.tensors, network.frames)
    sections[HASHES] = bytes(8 * network.frames)
    return pack_segment(Segment(0, network.frames, 0, digest(network.tensors), sections), network.header)


def _networks() -> list[Network]:
    """Small random networks, the first ones that show an operation that none before them has; smaller ones first."""
    sized = []
    for seed in range(NETWORKS):
        network = random_network(seed, 3 + seed % 6)
        size = len(pack_programs([network.program])) + len(_segment(network))
        if size <= LARGEST:
            sized.append((size, seed, network))
    chosen, seen = [], set()
    for _, _, network in sorted(sized, key=lambda each: each[:2]):
        codes = {operation.code for operation in network.program.operations}
        if codes - seen:
            seen |= codes
            chosen.append(network)
    return chosen


SEEDS = {"container": container, "program": program, "numbers": numbers}
