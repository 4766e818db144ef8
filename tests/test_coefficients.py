"""The numbers of a segment: sections come back, and a segment is refused for a wrong digest, section or bound."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import ONE, POINT, Integers, Row, analysed

from nvc.bitstream import constants
from nvc.bitstream.analysis import Analysis, analyse
from nvc.bitstream.coefficients import SECTION_OF, digest, read_sections, write_sections
from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.segment import Segment
from nvc.bitstream.tensors import TensorSpec, read_tensors, write_tensors
from nvc.conformance.catalogue.networks import Network, random_network

KINDS_ROWS: list[Row] = [  # a parameter for every section
    [1, 0, 2, 1, 1, 0, 1],
    [2, 1, 2, 1, 1, 4, 2, 0],
    [40, 0, 1],
    [10, 2, 3, 4, 1, 1, 1, 1],
]


def segment_of(analysis: Analysis, tensors: list[Integers], frames: int) -> Segment:
    sections = write_sections(analysis, tensors, frames)
    return Segment(0, frames, 0, digest(tensors), {**sections, constants.HASHES: bytes(8 * frames)})


def refused(analysis: Analysis, segment: Segment) -> str:
    with pytest.raises(BitstreamError) as caught:
        read_sections(analysis, segment)
    return caught.value.code


@pytest.fixture
def small() -> tuple[Analysis, list[Integers], Segment]:
    analysis = analysed(*KINDS_ROWS, POINT, [50, 4, 4, 4])
    shapes = [(3, 2, 1, 1), (3, 1, 1), (4, 2), (1, 4, 1, 1), (1,)]
    tensors = [np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape) % 4 for shape in shapes]
    return analysis, tensors, segment_of(analysis, tensors, 3)


def with_section(segment: Segment, kind: int, payload: bytes | None) -> Segment:
    sections = {key: value for key, value in segment.sections.items() if key != kind}
    return replace(segment, sections=sections if payload is None else sections | {kind: payload})


@cache
def coded(seed: int) -> tuple[Network, Analysis, Segment]:
    """A random network, its analysis and its segment."""
    network = random_network(seed)
    analysis = analyse(network.program, Limits())
    return network, analysis, segment_of(analysis, network.tensors, network.frames)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_sections_come_back(seed: int) -> None:
    network, analysis, segment = coded(seed)
    read = read_sections(analysis, segment)
    assert all(tensor.dtype == np.int64 for tensor in read)
    assert len(read) == len(network.tensors)
    assert all(np.array_equal(a, b) for a, b in zip(read, network.tensors, strict=True))
    kinds = {SECTION_OF[parameter.kind] for parameter in analysis.parameters}
    assert set(segment.sections) == kinds | {constants.WEIGHTS, constants.HASHES}


def test_each_section_holds_its_kinds_in_the_order_of_their_numbers(small: tuple[Analysis, list[Integers], Segment]) -> None:
    analysis, tensors, segment = small
    specs = analysis.specs(3)
    for section, members in {1: [3, 4], 2: [2], 3: [0], 4: [1]}.items():
        read = read_tensors([specs[n] for n in members], segment.sections[section])
        assert all(np.array_equal(a, tensors[n]) for a, n in zip(read, members, strict=True))


@pytest.mark.parametrize("levels", [5, 64, 4096])
def test_codes_that_a_segment_does_not_use_are_in_none_of_its_sections(levels: int) -> None:
    """The program's codebook may have room for any number of codes; a segment that uses four pays for four."""
    generator = np.random.default_rng(0)
    tokens, book = generator.integers(0, 4, (6, 3, 2)), np.zeros((levels, 5), dtype=np.int64)
    book[:4] = generator.integers(1, 128, (4, 5))
    tokens[0, 0, 0] = 3
    analysis = analysed([2, 0, 1, 3, 2, levels, 5, 0])
    sections = write_sections(analysis, [tokens, book], 6)
    tight = write_sections(analysed([2, 0, 1, 3, 2, 4, 5, 0]), [tokens, book[:4]], 6)
    assert sections == tight
    read = read_sections(analysis, segment_of(analysis, [tokens, book], 6))
    assert np.array_equal(read[0], tokens) and np.array_equal(read[1], book)


def test_the_digest_is_of_all_integers_in_order_as_64_bits() -> None:
    tensors = [np.array([[1, -2], [3, 4]]), np.array([5]), np.array([(1 << 32) - 1])]
    words = struct.pack("<6q", 1, -2, 3, 4, 5, (1 << 32) - 1)
    assert digest(tensors) == hashlib.sha256(words).digest()[:8]
    assert digest([tensors[0].T, *tensors[1:]]) == hashlib.sha256(struct.pack("<6q", 1, 3, -2, 4, 5, (1 << 32) - 1)).digest()[:8]


def test_p7_another_digest_is_refused(small: tuple[Analysis, list[Integers], Segment]) -> None:
    analysis, tensors, segment = small
    for bit in range(0, 64, 7):
        flipped = bytearray(segment.digest)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refused(analysis, replace(segment, digest=bytes(flipped))) == "corrupt.digest"
    changed = [tensor.copy() for tensor in tensors]
    changed[3][0, 0, 0, 0] += 1
    assert refused(analysis, replace(segment_of(analysis, changed, 3), digest=segment.digest)) == "corrupt.digest"


@pytest.mark.parametrize("kind", [constants.CODEBOOK, constants.EMBEDDINGS, constants.TOKENS])
def test_p6_a_missing_section_is_refused(kind: int, small: tuple[Analysis, list[Integers], Segment]) -> None:
    analysis, _, segment = small
    assert refused(analysis, with_section(segment, kind, None)) == "invalid.sections"


@pytest.mark.parametrize("kind", [constants.WEIGHTS, constants.CODEBOOK, constants.EMBEDDINGS, constants.TOKENS])
def test_p6_a_section_that_the_program_has_no_use_for_is_refused(kind: int) -> None:
    analysis = analysed(POINT)
    segment = segment_of(analysis, [], 3)
    assert segment.sections[constants.WEIGHTS] == b""
    assert read_sections(analysis, segment) == []
    payload = write_tensors([(TensorSpec(parameter_kind(kind), (1, 1)), np.array([[1]]))]) if kind == 2 else b"\x01"
    assert refused(analysis, with_section(segment, kind, payload)) == "invalid.sections"


def parameter_kind(section: int):  # type: ignore[no-untyped-def]
    return next(kind for kind, number in SECTION_OF.items() if number == section)


def test_an_empty_section_of_weights_is_refused_where_the_program_has_some(
    small: tuple[Analysis, list[Integers], Segment],
) -> None:
    analysis, _, segment = small
    assert refused(analysis, with_section(segment, constants.WEIGHTS, b"")).startswith("invalid.")


def test_a_section_for_another_number_of_frames_is_refused(small: tuple[Analysis, list[Integers], Segment]) -> None:
    analysis, _, segment = small
    assert refused(analysis, replace(segment, frames=2)).split(".")[0] in ("invalid", "corrupt")


def test_b1_weights_over_the_bound_are_refused_after_their_digest() -> None:
    rows: list[Row] = [[3, 0, 65, 1, 1], [10, 0, 1, 2, 1, 1, 1, 1], [30, 1, 3, 1, 0, 255, 0, 0], [50, 2, 2, 2]]
    analysis = analysed(*rows)
    tensors = [np.ones((65, 1, 1), dtype=np.int64), np.full((1, 65, 1, 1), 127), np.array([0]), np.array([ONE])]
    segment = segment_of(analysis, tensors, 1)
    assert refused(analysis, segment) == "invalid.bound"
    assert refused(analysis, replace(segment, digest=bytes(8))) == "corrupt.digest"
    tensors[1][0, 0] = 0
    read_sections(analysis, segment_of(analysis, tensors, 1))


@given(st.integers(0, 9), st.data())
@settings(deadline=None, max_examples=40)
def test_damaged_sections_are_refused_and_nothing_else(seed: int, data: st.DataObject) -> None:
    network, analysis, segment = coded(seed)
    kind = data.draw(st.sampled_from(sorted(set(segment.sections) - {constants.HASHES})))
    payload = bytearray(segment.sections[kind])
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = read_sections(analysis, with_section(segment, kind, bytes(payload)))
    except BitstreamError:
        return
    assert all(np.array_equal(a, b) for a, b in zip(read, network.tensors, strict=True))
