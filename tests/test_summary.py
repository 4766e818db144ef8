"""The summary of a file: its sections add up to its bytes, and its figures are those counted by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from nvc_files import frame_hash, network_file, program_file, reference_frames, segment_of

from nvc.bitstream.analysis import analyse
from nvc.bitstream.constants import HASHES, Limits
from nvc.bitstream.container import ACCOUNTS
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.program import describe
from nvc.bitstream.summary import summarise
from nvc.bitstream.tensors import Kind
from nvc.conformance.generate import random_network


def summary(data: bytes, limits: Limits | None = None) -> dict[str, Any]:
    return summarise(io.BytesIO(data), limits)


def refused(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(BitstreamError) as caught:
        summary(data, limits)
    return caught.value.code


@pytest.mark.parametrize("seed", range(6))
def test_the_sections_add_up_to_the_file(seed: int) -> None:
    data, _ = network_file(seed)
    found = summary(data)
    assert set(found["sections"]) == set(ACCOUNTS)
    assert sum(found["sections"].values()) == found["bytes"] == len(data)
    assert all(size >= 0 for size in found["sections"].values())


@pytest.mark.parametrize("seed", range(6))
def test_the_figures_are_those_of_the_network(seed: int) -> None:
    network = random_network(seed)
    data, _ = network_file(seed)
    found = summary(data)
    header, frames = network.header, 2 * network.frames
    analysis = analyse(network.program, Limits())
    segment = segment_of(network, 0, bytes(8 * network.frames))
    assert (found["frames"], found["width"], found["height"]) == (frames, header.width, header.height)
    assert (found["segments"], found["model"], found["pix_fmt"], found["fps"]) == (2, network.program.name, "rgb24", 25.0)
    assert found["bpp"] == pytest.approx(8 * len(data) / (header.width * header.height * frames), abs=1e-6)
    kinds = zip(analysis.parameters, network.tensors, strict=True)
    weights = 2 * sum(tensor.size for parameter, tensor in kinds if parameter.kind in (Kind.WEIGHT, Kind.BIAS))
    assert found["parameters"] == weights
    assert found["sections"]["weights"] == 2 * len(segment.sections[1])
    assert found["sections"]["hashes"] == 8 * frames
    assert found["bits_per_weight"] == pytest.approx(8 * 2 * len(segment.sections[1]) / max(weights, 1), abs=1e-4)
    assert found["macs_per_pixel"] == pytest.approx(analysis.macs / (header.width * header.height), abs=0.01)
    assert found["programs"] == [{"name": network.program.name, "operations": describe(network.program)}]


def test_a_summary_is_ready_for_json() -> None:
    found = summary(network_file(1)[0])
    assert json.loads(json.dumps(found)) == found


def test_programs_are_counted_where_they_are_used() -> None:
    """Two programs of the same picture; the segment names the second."""
    network = random_network(2)
    other = replace(network.program, name="other")
    hashes = b"".join(map(frame_hash, reference_frames(network)))
    header = replace(network.header, frame_count=network.frames)
    data = program_file(header, [other, network.program], [segment_of(network, 0, hashes, program=1)])
    found = summary(data)
    assert found["model"] == network.program.name
    assert [program["name"] for program in found["programs"]] == ["other", network.program.name]


def test_a_segment_of_a_program_that_is_not_there_is_refused() -> None:
    network = random_network(2)
    header = replace(network.header, frame_count=network.frames)
    data = program_file(header, [network.program], [segment_of(network, 0, bytes(8 * network.frames), program=1)])
    assert refused(data) == "invalid.program"


def test_a_live_file_is_counted_and_one_without_frames_refused() -> None:
    network = random_network(3)
    header = replace(network.header, frame_count=None, frame_rate=None)
    timed = replace(segment_of(network, 0, bytes(8 * network.frames)), times=(0, *[1] * (network.frames - 1)))
    data = program_file(header, [network.program], [timed], indexed=False)
    found = summary(data)
    assert (found["bytes"], found["frames"], found["fps"]) == (len(data), network.frames, None)
    start = data.index(b"SEGM")
    assert refused(data[:start]) == "truncated.frames"


def test_the_picture_of_the_program_is_that_of_the_header() -> None:
    network = random_network(4)
    header = replace(network.header, frame_count=network.frames, width=network.header.width + 1)
    segment = segment_of(network, 0, bytes(8 * network.frames))
    assert refused(program_file(header, [network.program], [segment])) == "invalid.picture"


def test_limits_hold() -> None:
    data, _ = network_file(0)
    assert refused(data, Limits(max_macs_per_frame=1)) == "limit.compute"
    assert refused(data, Limits(max_operations=1)) == "limit.operations"


def test_hashes_and_numbers_are_not_looked_at() -> None:
    """A summary is of the shape of a file; whether its numbers are right is for decoding to say."""
    network = random_network(5)
    segment = segment_of(network, 0, bytes(8 * network.frames))
    header = replace(network.header, frame_count=network.frames)
    broken = replace(segment, sections={1: b"\xff" * 9, **{k: v for k, v in segment.sections.items() if k != 1}})
    assert HASHES in broken.sections
    assert summary(program_file(header, [network.program], [broken]))["sections"]["weights"] == 9
