"""The reference decoder takes files apart as SPEC says and as the product does, alone with NumPy, and salvages what is left."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from container_files import (
    CHUNKS,
    FILE,
    HEADER,
    LIVE,
    OPEN,
    SALT,
    SEGMENTS,
    TIMED,
    VARIABLE,
    Chunks,
    chunk,
    prologue,
    put_together,
    take_apart,
    write,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nvc_files import frame_hash, network_file, planes_of, program_file, reference_frames, segment_of
from test_container_lies import LIES, LIMITED

import nvc.bitstream
from nvc.bitstream.analysis import analyse
from nvc.bitstream.constants import Limits
from nvc.bitstream.container import Reader
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op
from nvc.bitstream.salvage import Gap
from nvc.conformance import ref_container, ref_salvage, reference
from nvc.conformance.catalogue.networks import Network, random_network
from nvc.conformance.ref_container import Container
from nvc.conformance.ref_errors import Refused
from nvc.conformance.ref_salvage import Lost

ROOT = Path(__file__).resolve().parent.parent
SPEC = Path(nvc.bitstream.__path__[0], "SPEC.md").read_text(encoding="utf-8")
SEED = 11  # of a small network: two segments of one frame
PAIR = 8  # of one with six frames in each of two segments


# ---- the container


def outcome(found: Callable[[], Iterable[Any]]) -> tuple[list[Any], str]:
    """What came before the end, and the code of the refusal there, or nothing."""
    got: list[Any] = []
    try:
        for each in found():
            got.append(each)
    except (Refused, BitstreamError) as error:
        return got, error.code
    return got, ""


def by_reference(data: bytes, limits: dict[str, int] | None = None) -> tuple[list[Any], str]:
    """Header, model, segments and metadata by the reference, as far as it gets."""

    def found() -> Iterator[Any]:
        container = Container(data, limits or {})
        header = container.header
        yield container.model, header.planes, header.stated_frames, header.first_pts, header.frame_rate
        for each in container.segments():
            yield fields(each), b"".join(each.hashes)
        yield container.metadata

    return outcome(found)


def by_product(data: bytes, limits: dict[str, int] | None = None) -> tuple[list[Any], str]:
    """The same by the product."""
    def found() -> Iterator[Any]:
        reader = Reader(io.BytesIO(data), Limits(**(limits or {})))
        header = reader.header
        yield reader.model, list(header.plane_shapes()), header.frame_count, header.first_pts, header.frame_rate
        assert reader.metadata is not None  # SPEC 10: before the segments
        for each in reader.segments():
            yield fields(each), each.sections[5]
        yield reader.metadata

    return outcome(found)


def fields(segment: Any) -> tuple[Any, ...]:
    """What the segments of both have in common."""
    sections = {kind: data for kind, data in segment.sections.items() if kind < 5}
    return segment.first_frame, segment.frames, segment.program, segment.digest, sections, segment.times


def worked_example() -> bytes:
    """The bytes of the listing in SPEC 12."""
    lines = SPEC[SPEC.index("## 12 ") :].split("```")[1].strip().splitlines()
    data = bytearray()
    for line in lines:
        found = re.fullmatch(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+?)(?:  .*)?", line)
        assert found and int(found[1], 16) == len(data), line
        data += bytes.fromhex(found[2])
    return bytes(data)


def test_the_worked_example_of_the_specification_is_decoded() -> None:
    container = Container(worked_example(), {})
    header = container.header
    assert (header.width, header.height, header.planes) == (6, 4, [(4, 6), (2, 3), (2, 3)])
    assert (header.stated_frames, header.frame_rate, header.time_base) == (2, 25, Fraction(1, 25))
    video = reference.read(worked_example())
    assert video.metadata == {"tool": "nvc"}
    planes = [[(plane.shape, set(plane.flat)) for plane in frame.planes] for frame in video.frames]
    assert planes == [[(shape, {grey}) for shape in header.planes] for grey in (40, 200)]


ODD = write(replace(HEADER, width=7, height=5))


@pytest.mark.parametrize("data", [FILE, OPEN, LIVE, write(VARIABLE, TIMED), write(metadata=None), ODD])
def test_a_file_is_taken_apart_as_by_the_product(data: bytes) -> None:
    assert by_reference(data) == by_product(data)
    assert by_reference(data)[1] == ""


def test_the_segments_are_those_that_were_written() -> None:
    assert [fields(each) for each in Container(FILE, {}).segments()] == [fields(each) for each in SEGMENTS]
    assert [fields(each) for each in Container(write(VARIABLE, TIMED), {}).segments()] == [fields(each) for each in TIMED]


def test_every_lie_is_refused_with_its_code() -> None:
    for name, (data, expected) in LIES.items():
        assert (name, by_reference(data)[1]) == (name, expected)


@pytest.mark.parametrize(("first", "expected"), [((1 << 30) - 1, "invalid.first_frame"), (1 << 30, "invalid.range")])
def test_frames_are_counted_before_the_place_of_a_segment_is_checked(first: int, expected: str) -> None:
    data = edited((3, b"SEGM", pack("<Q", first) + CHUNKS[3][1][8:]))
    assert by_reference(data)[1] == expected  # the sum of the frames is within the limit, whatever the first is called


def test_a_file_of_unknown_length_has_a_segment() -> None:
    assert by_reference(put_together(SALT, take_apart(LIVE)[1][:3], features=0))[1] == "truncated.frames"


@pytest.mark.parametrize(("limits", "expected"), LIMITED)
def test_every_limit_is_kept(limits: Limits, expected: str) -> None:
    given = asdict(limits)
    changed = {name: given[name] for name in ref_container.LIMITS if given[name] != ref_container.LIMITS[name]}
    assert len(changed) == 1
    assert by_reference(FILE, changed)[1] == expected


def test_the_limits_are_those_of_the_specification() -> None:
    rows = re.findall(r"^\| (max_\w+) \| (\d+) \| (\w+) \|", SPEC, re.M)
    assert {name: int(default) for name, default, _ in rows} == ref_container.LIMITS
    assert {name: int(most) for name, _, most in rows if most != "none"} == ref_container.MAXIMA


@pytest.mark.parametrize("limits", [{"max_height": 4}, {"max_side": 65536}])
def test_an_unknown_limit_or_one_over_the_maximum_is_an_error_of_the_caller(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        Container(FILE, limits)


# ---- files with every checksum repaired

BASES = (FILE, OPEN, LIVE, write(VARIABLE, TIMED), write(metadata=None))
TYPES = (b"HEAD", b"MODL", b"mETa", b"SEGM", b"INDX", b"FOOT", b"aUDh", b"WARP", b"SE\0M", b"sEGM")
NUMBERS = (0, 1, 2, 3, 5, 6, 7, 255, 4097, 65535, 65536, 1 << 28, 1 << 30, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1)


@st.composite
def payloads(draw: st.DrawFn, payload: bytes) -> bytes:
    """A payload with a number in it changed, or bytes removed or inserted."""
    place = draw(st.integers(0, len(payload)))
    match draw(st.integers(0, 3)):
        case 0:
            return payload[:place] + payload[place + draw(st.sampled_from((1, 5, 8, 20))) :]
        case 1:
            return payload[:place] + draw(st.binary(min_size=1, max_size=20)) + payload[place:]
        case _:
            size = draw(st.sampled_from((1, 1, 2, 4, 8)))
            number = (draw(st.sampled_from(NUMBERS)) % (1 << 8 * size)).to_bytes(size, "little")
            return (payload[:place] + number + payload[place + size :])[: max(len(payload), place)]


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A file with its chunks changed, its checksums right, and sometimes cut or damaged behind that."""
    base = draw(st.sampled_from(BASES))
    _, chunks = take_apart(base)
    features, lengths = int(base[16]), {}
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(chunks) - 1))
        name, payload = chunks[number]
        match draw(st.integers(0, 9)):
            case 0 if len(chunks) > 1:
                del chunks[number]
            case 1:
                chunks.insert(draw(st.integers(0, len(chunks))), (draw(st.sampled_from(TYPES)), payload))
            case 2:
                chunks[number] = (draw(st.sampled_from(TYPES)), payload)
            case 3:
                other = draw(st.integers(0, len(chunks) - 1))
                chunks[number], chunks[other] = chunks[other], chunks[number]
            case 4:
                features = draw(st.sampled_from((0, 1, 2, 3)))
            case 5:
                lengths[number] = draw(st.sampled_from(NUMBERS)) % (1 << 32)
            case _:
                chunks[number] = (name, draw(payloads(payload)))
    pieces = [chunk(name, payload, SALT, lengths.get(number)) for number, (name, payload) in enumerate(chunks)]
    data = prologue(SALT, features) + b"".join(pieces)
    if draw(st.booleans()):
        place = draw(st.integers(0, len(data) - 1))
        data = data[:place] + draw(st.sampled_from((b"", b"x"))) + data[place + draw(st.sampled_from((0, 1, 30, 1000))) :]
    return data


@settings(max_examples=300)
@given(mutants())
@example(put_together(SALT, [*CHUNKS[:7], (b"WARP", b""), CHUNKS[7]]))
@example(put_together(SALT, [*CHUNKS[:2], (b"aUDh", b""), *CHUNKS[2:]]))
@example(put_together(SALT, [*CHUNKS[:3], (b"FOOT", b""), *CHUNKS[3:]]))
def test_a_mutant_is_taken_apart_and_salvaged_as_by_the_product(data: bytes) -> None:
    assert by_reference(data) == by_product(data)
    assert salvaged(data) == salvaged_by_product(data)


# ---- salvage: of the frames 0-1, 2-4 and 5


def salvaged(data: bytes) -> tuple[list[Any], str]:
    """The fields of the good segments and the losses, by the reference."""

    def found() -> Iterator[Any]:
        for each in ref_salvage.salvage(Container(data, {}), lambda segment: segment):
            yield each if isinstance(each, Lost) else fields(each)

    return outcome(found)


def salvaged_by_product(data: bytes) -> tuple[list[Any], str]:
    """The same by the product, whose gaps of no frames are none of the account."""
    found, code = outcome(lambda: Reader(io.BytesIO(data)).salvage(lambda segment: segment))
    gaps = [each for each in found if isinstance(each, Gap)]
    if code or len(gaps) == len(found):
        return [], code or gaps[0].error.code
    lost = [each for each in found if not isinstance(each, Gap) or each.frames]
    return [
        Lost(each.first, each.frames, each.error.code) if isinstance(each, Gap) else fields(each.segment) for each in lost
    ], ""


def account(data: bytes) -> tuple[list[int], list[Lost]]:
    """The first frames of the good segments, and what is lost."""
    found, code = salvaged(data)
    assert code == ""
    return [each[0] for each in found if not isinstance(each, Lost)], [each for each in found if isinstance(each, Lost)]


def edited(*edits: tuple[int, bytes, bytes | None]) -> bytes:
    """FILE with chunks exchanged: number, type and payload."""
    chunks: Chunks = list(CHUNKS)
    for number, name, payload in edits:
        chunks[number] = (name, CHUNKS[number][1] if payload is None else payload)
    return put_together(SALT, chunks)


def without(*numbers: int) -> bytes:
    """FILE without these chunks."""
    return put_together(SALT, [each for number, each in enumerate(CHUNKS) if number not in numbers])


def uncounted(footer: bytes) -> bytes:
    """A file without the last frame whose HEAD states no number of them, with this footer."""
    salt, chunks = take_apart(write(replace(HEADER, frame_count=None)))
    return put_together(salt, [*chunks[:5], (b"FOOT", footer)])


STARTS = [len(put_together(SALT, CHUNKS[:number])) for number in range(len(CHUNKS) + 1)]  # offsets of the chunks
SECOND = STARTS[4]
LONG = chunk(b"SEGM", b"", SALT, (64 << 20) + 1)
DAMAGED = {  # what is left: the first frames of the good segments, and the gaps
    "nothing": (FILE, [0, 2, 5], []),
    "payload": (FILE[: SECOND + 20] + b"\x99" + FILE[SECOND + 21 :], [0, 5], [(2, 3, "corrupt.payload_crc")]),
    "header": (FILE[: SECOND + 5] + b"\x99" + FILE[SECOND + 6 :], [0, 5], [(2, 3, "corrupt.header_crc")]),
    "two": (FILE[: SECOND + 5] + b"\x99" + FILE[SECOND + 6 : -50] + b"\x99" + FILE[-49:], [0, 5], [(2, 3, "corrupt.header_crc")]),
    "rule": (edited((4, b"SEGM", pack("<QIBBBB8s", 2, 3, 0, 1, 0, 0, b""))), [0, 5], [(2, 3, "unsupported.segment_flags")]),
    "missing_first": (without(3), [2, 5], [(0, 2, "invalid.first_frame")]),
    "missing": (without(4), [0, 5], [(2, 3, "invalid.first_frame")]),
    "missing_last": (without(5), [0, 2], [(5, 1, "truncated.frames")]),
    "missing_two": (without(3, 5), [2], [(0, 2, "invalid.first_frame"), (5, 1, "truncated.frames")]),
    "repeated": (put_together(SALT, [*CHUNKS[:4], CHUNKS[3], *CHUNKS[4:]]), [0, 2, 5], []),
    "swapped": (put_together(SALT, [*CHUNKS[:4], CHUNKS[5], CHUNKS[4]]), [0, 5], [(2, 3, "invalid.first_frame")]),
    "over_the_count": (
        edited((4, b"SEGM", pack("<QI", 4, 3) + CHUNKS[4][1][12:])),
        *([0, 5], [(2, 3, "invalid.frame_count")]),
    ),
    "critical": (edited((4, b"WARP", None)), [0, 5], [(2, 3, "unsupported.chunk")]),
    "no_type": (edited((4, b"SE\0M", None)), [0, 5], [(2, 3, "invalid.chunk_type")]),
    "ancillary": (edited((4, b"aUDh", None)), [0, 5], [(2, 3, "invalid.first_frame")]),
    "too_long": (FILE[:SECOND] + LONG + FILE[STARTS[5] :], [0, 5], [(2, 3, "limit.chunk_bytes")]),
    "bytes_removed": (FILE[: SECOND + 30] + FILE[SECOND + 31 :], [0], [(2, 4, "corrupt.payload_crc")]),  # the next is passed over
    "bytes_inserted": (FILE[: SECOND + 30] + b"xyz" + FILE[SECOND + 30 :], [0, 5], [(2, 3, "corrupt.payload_crc")]),
    "bytes_between": (FILE[:SECOND] + bytes(99) + FILE[SECOND:], [0, 2, 5], []),
    "metadata": (FILE[: STARTS[2] + 18] + b"\x99" + FILE[STARTS[2] + 19 :], [0, 2, 5], []),
    "metadata_late": (put_together(SALT, [*CHUNKS[:2], *CHUNKS[3:6], (b"mETa", b"?")], features=0), [0, 2, 5], []),
    "head_again": (put_together(SALT, [*CHUNKS[:4], CHUNKS[0], *CHUNKS[4:]]), [0, 2, 5], []),
    "index": (edited((6, b"INDX", b"?")), [0, 2, 5], []),
    "behind_the_footer": (put_together(SALT, [*CHUNKS[:5], CHUNKS[7], CHUNKS[5]]), [0, 2], [(5, 1, "truncated.frames")]),
    "count_in_footer": (uncounted(CHUNKS[7][1]), [0, 2], [(5, 1, "truncated.frames")]),
    "count_in_footer_cut": (uncounted(CHUNKS[7][1])[:-1], [0, 2], []),
    "count_in_footer_long": (uncounted(CHUNKS[7][1] + b"x"), [0, 2], []),
    "count_in_footer_huge": (uncounted(pack("<QQI", 0, 1 << 40, 0)), [0, 2], []),
    "footer_of_other_count": (
        put_together(SALT, [*CHUNKS[:5], (b"FOOT", pack("<QQI", 0, 5, 2))]),
        *([0, 2], [(5, 1, "truncated.frames")]),
    ),
    "inside_of_metadata": (
        FILE[:SECOND] + bytes(16) + chunk(b"mETa", FILE[SECOND : STARTS[5]], SALT) + FILE[STARTS[5] :],
        *([0, 2, 5], []),
    ),
    "over_the_limit": (edited((3, b"SEGM", pack("<Q", 1 << 29) + CHUNKS[3][1][8:])), [2, 5], [(0, 2, "limit.frames")]),
    "footer_damaged": (without(5)[:-1] + b"?", [0, 2], [(5, 1, "corrupt.payload_crc")]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_salvaged_of_a_damaged_file(name: str) -> None:
    data, left, lost = DAMAGED[name]
    assert account(data) == (left, lost)


@pytest.mark.parametrize("cut", range(STARTS[2], len(FILE)))
def test_what_is_salvaged_of_a_file_that_was_cut(cut: int) -> None:
    whole = [(first, frames) for end, first, frames in zip(STARTS[4:7], (0, 2, 5), (2, 3, 1), strict=True) if end <= cut]
    code = "truncated.end" if cut in STARTS else "truncated.chunk"
    if not whole:
        assert salvaged(FILE[:cut]) == ([], code)
        return
    end = sum(frames for _, frames in whole)
    assert account(FILE[:cut]) == ([first for first, _ in whole], [(end, 6 - end, code)] if end < 6 else [])


def test_a_file_without_any_segment_is_refused() -> None:
    assert salvaged(put_together(SALT, CHUNKS[:3], features=0)) == ([], "truncated.frames")
    assert salvaged(put_together(SALT, take_apart(LIVE)[1][:3], features=0)) == ([], "truncated.frames")


def test_head_and_model_are_needed() -> None:
    assert salvaged(FILE[:60] + b"\x99" + FILE[61:]) == ([], "corrupt.payload_crc")
    assert salvaged(without(1)) == ([], "invalid.order")


@given(mutants())
def test_every_frame_is_either_good_or_lost_and_intact_files_lose_none(data: bytes) -> None:
    found, code = salvaged(data)
    if code:
        return
    end = 0
    for each in found:
        assert each[0] == end and each[1] > 0
        end += each[1]
    stated = Container(data, {}).header.stated_frames
    assert stated is None or end == stated
    if not by_reference(data)[1]:
        assert not any(isinstance(each, Lost) for each in found)


def test_salvage_keeps_the_limits_on_frames_and_segments() -> None:
    container = Container(LIVE, {"max_frames": 5})
    assert [each.first_frame for each in ref_salvage.salvage(container, lambda s: s) if not isinstance(each, Lost)] == [0, 2]
    container = Container(without(3), {"max_segments": 1})
    found = list(ref_salvage.salvage(container, lambda segment: segment.first_frame))
    assert found == [Lost(0, 2, "invalid.first_frame"), 2, Lost(5, 1, "limit.segments")]


# ---- frames


@cache
def network() -> tuple[bytes, list[Any]]:
    """A file of two segments of one random network, and its frames."""
    return network_file(PAIR)


def patched(number: int, offset: int, value: bytes, base: bytes = b"") -> bytes:
    """The file of `network`, or `base`, with bytes of the payload of chunk `number` replaced and all checksums right."""
    salt, chunks = take_apart(base or network()[0])
    name, payload = chunks[number]
    chunks[number] = (name, payload[:offset] + value + payload[offset + len(value) :])
    return put_together(salt, chunks, features=(base or network()[0])[16])


def hashes_at(data: bytes, number: int) -> int:
    """The offset of the hashes in the payload of chunk `number`, where they stand at the end."""
    payload = take_apart(data)[1][number][1]
    return len(payload) - 8 * int.from_bytes(payload[8:12], "little")


def test_the_frames_are_those_of_the_network() -> None:
    data, expected = network()
    frames = reference.read(data).frames
    assert [frame.number for frame in frames] == list(range(len(expected)))
    for frame, planes in zip(frames, expected, strict=True):
        assert all((a == b).all() and a.shape == b.shape for a, b in zip(frame.planes, planes, strict=True))
    assert [reference.frame_digest(frame.planes)[:8] for frame in frames] == [frame_hash(planes) for planes in expected]
    assert list(reference.salvage(data)) != [] and salvaged_numbers(data) == (list(range(len(expected))), [])


def salvaged_numbers(data: bytes) -> tuple[list[int], list[Lost]]:
    found = list(reference.salvage(data))
    return [each.number for each in found if not isinstance(each, Lost)], [each for each in found if isinstance(each, Lost)]


def test_time_stamps_follow_the_rate_or_the_ticks() -> None:
    made = random_network(SEED)
    header = replace(made.header, frame_rate=None, time_base=Fraction(1, 1000), first_pts=-40, frame_count=2)
    hashes = frame_hash(reference_frames(made)[0])
    plain = [segment_of(made, first, hashes) for first in (0, 1)]
    data = program_file(replace(made.header, first_pts=3, frame_count=2), [made.program], plain)
    for found in (reference.decode(data), reference.salvage(data)):
        assert [frame.seconds for frame in found if not isinstance(frame, Lost)] == [Fraction(3, 25), Fraction(4, 25)]
    segments = [replace(segment_of(made, first, hashes), times=times) for first, times in ((0, (0,)), (1, (70,)))]
    data = program_file(header, [made.program], segments)
    assert [frame.seconds for frame in reference.decode(data)] == [Fraction(-40, 1000), Fraction(30, 1000)]
    assert [frame.seconds for frame in reference.salvage(data) if not isinstance(frame, Lost)] == [None, None]


def test_a_wrong_frame_is_not_passed_on() -> None:
    half = len(network()[1]) // 2
    data = patched(2, hashes_at(network()[0], 2) + 8, b"differs!")
    frames, code = outcome(lambda: reference.decode(data))
    assert ([frame.number for frame in frames], code) == ([0], "verify.frame")
    assert salvaged_numbers(data) == ([0, *range(2, 2 * half)], [(1, 1, "verify.frame")])


def test_wrong_frames_in_a_row_are_one_loss() -> None:
    half = len(network()[1]) // 2
    data = patched(2, hashes_at(network()[0], 2) + 8 * (half - 2), b"differs!differs!")
    data = patched(3, hashes_at(network()[0], 3), b"differs!", data)
    assert salvaged_numbers(data) == ([*range(half - 2), *range(half + 1, 2 * half)], [(half - 2, 3, "verify.frame")])


def test_a_file_of_wrong_frames_only_is_refused_with_the_code_of_the_first_gap() -> None:
    half = len(network()[1]) // 2
    second = patched(3, hashes_at(network()[0], 3), bytes(8 * half))
    assert outcome(lambda: reference.salvage(patched(2, hashes_at(second, 2), bytes(8 * half), second))) == ([], "verify.frame")
    assert outcome(lambda: reference.salvage(patched(2, 13, b"\x01", second))) == ([], "unsupported.segment_flags")


NUMBERS_OF_SEGMENT = {  # offset in the payload of the first segment, bytes, code
    "program": (12, b"\x01", "invalid.program"),
    "digest": (16, bytes(8), "corrupt.digest"),
    "weights": (25, b"\0", "invalid.length"),
}


@pytest.mark.parametrize("name", NUMBERS_OF_SEGMENT)
def test_an_error_in_the_numbers_comes_before_those_of_later_chunks_and_costs_the_segment(name: str) -> None:
    offset, value, expected = NUMBERS_OF_SEGMENT[name]
    half = len(network()[1]) // 2
    data = patched(2, offset, value)
    assert outcome(lambda: reference.decode(data[:-1])) == ([], expected)
    assert salvaged_numbers(data) == (list(range(half, 2 * half)), [(0, half, expected)])


def test_programs_are_checked_before_metadata() -> None:
    salt, chunks = take_apart(network()[0])
    meta = (b"mETa", b"\x00\x80")
    assert outcome(lambda: reference.decode(put_together(salt, [*chunks[:2], meta, *chunks[2:]])))[1] == "invalid.metadata"
    wider = (b"HEAD", pack("<H", int.from_bytes(chunks[0][1][:2], "little") + 1) + chunks[0][1][2:])
    assert outcome(lambda: reference.decode(put_together(salt, [wider, chunks[1], meta, *chunks[2:]])))[1] == "invalid.picture"
    model = (b"MODL", b"\x90")
    assert outcome(lambda: reference.decode(put_together(salt, [chunks[0], model, meta, *chunks[2:]])))[1] == "invalid.program"


def test_multiply_adds_are_limited_by_the_frames_up_to_the_end_of_the_segment() -> None:
    made = random_network(SEED)
    work = analyse(made.program, Limits()).work
    hashes = frame_hash(reference_frames(made)[0])
    segments = [segment_of(made, first, hashes) for first in (0, 1)]
    data = program_file(replace(made.header, frame_count=None), [made.program], segments)
    assert outcome(lambda: reference.decode(data, {"max_macs_total": 2 * work}))[1] == ""
    frames, code = outcome(lambda: reference.decode(data, {"max_macs_total": 2 * work - 1}))
    assert ([frame.number for frame in frames], code) == ([0], "limit.compute")


def unbounded() -> bytes:
    """A file of one frame whose sums could reach 2^31."""
    builder = Builder("unbounded")
    planes_shape, value = (1, 1, 1), planes_of(Header(1, 1, 1), 1)[0].astype("int64")
    code = builder.parameter(value.reshape(planes_shape))
    x = builder.add(Op.CONSTANT, code, *planes_shape)
    for _ in range(2):
        x = builder.add(Op.BILINEAR, x, 16)
    scale = builder.parameter(value.reshape(1))
    x = builder.add(Op.REQUANTISE, x, scale, 1, 0, 255, 0, 0)
    builder.add(Op.OUTPUT, x, x, x)
    header = Header(256, 256, 1, frame_count=1)
    made = Network(builder.program(), builder.tensors, 1, header)
    return program_file(header, [made.program], [segment_of(made, 0, bytes(8))])


def test_bounds_are_proven_before_a_frame_is_made() -> None:
    assert outcome(lambda: reference.decode(unbounded())) == ([], "invalid.bound")


# ---- the command

BLOCK = """
import sys

class Alone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "conformance"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Alone())
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in a folder of its own, where nothing but NumPy and the standard library can be imported."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK)

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        given = [sys.executable, *map(str, arguments)]
        return subprocess.run(given, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return command


SCRIPT = ROOT / "conformance" / "reference.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


def lines(frames: Iterable[int]) -> list[str]:
    """What the command prints of these frames of `network`."""
    samples = [b"".join(plane.astype("uint8").tobytes() for plane in planes) for planes in network()[1]]
    return [f"{number} {hashlib.sha256(samples[number]).hexdigest()}" for number in frames]


def test_the_script_needs_numpy_alone(run: Run, tmp_path: Path) -> None:
    assert run("-c", "import msgpack").returncode == 1 and run("-c", "import nvc").returncode == 1
    data, expected = network()
    (tmp_path / "a.nvc").write_bytes(data)
    done = run(SCRIPT, "a.nvc", "a.raw")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines(range(len(expected)))
    assert (tmp_path / "a.raw").read_bytes() == b"".join(p.astype("uint8").tobytes() for planes in expected for p in planes)


def test_the_module_of_the_package_is_the_same_command(tmp_path: Path) -> None:
    (tmp_path / "a.nvc").write_bytes(network()[0])
    given = [sys.executable, "-m", "nvc.conformance.reference", str(tmp_path / "a.nvc")]
    done = subprocess.run(given, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (0, lines(range(len(network()[1]))))


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["reference.py", *map(str, arguments)])
    return reference.main()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (lambda: b"RIFF", 4, "not_nvc.magic"),
        (lambda: network()[0][:-1], 4, "truncated.chunk"),
        (lambda: patched(3, hashes_at(network()[0], 3), bytes(8)), 6, "verify.frame"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_no_output(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    data: Callable[[], bytes],
    status: int,
    code: str,
) -> None:
    source, target = tmp_path / "a.nvc", tmp_path / "a.raw"
    source.write_bytes(data())
    assert invoke(monkeypatch, source, target) == status
    assert re.fullmatch(rf"reference: .+ \[{re.escape(code)}\]\n", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == [source]


def test_an_output_that_stands_is_kept_until_the_new_one_is_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, target = tmp_path / "a.nvc", tmp_path / "a.raw"
    target.write_bytes(b"before")
    source.write_bytes(network()[0][:-1])
    invoke(monkeypatch, source, target)
    assert target.read_bytes() == b"before"
    source.write_bytes(network()[0])
    assert invoke(monkeypatch, source, target) == 0
    assert len(target.read_bytes()) == sum(plane.size for planes in network()[1] for plane in planes)


@pytest.mark.parametrize("arguments", [("none.nvc",), (".",), ("a.nvc", "none/a.raw"), ("a.nvc", ".")])
def test_a_file_that_cannot_be_read_or_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "a.nvc").write_bytes(network()[0])
    assert invoke(monkeypatch, *(tmp_path / argument for argument in arguments)) == 1
    assert re.fullmatch(r"reference: .+\n", capsys.readouterr().err)


def test_something_that_is_no_file_is_not_replaced_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, target = tmp_path / "a.nvc", tmp_path / "null"
    source.write_bytes(network()[0])
    target.symlink_to(os.devnull)
    assert invoke(monkeypatch, source, target) == 0
    assert target.is_symlink()


def test_salvage_prints_what_is_lost_among_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source, target = tmp_path / "a.nvc", tmp_path / "a.raw"
    half = len(network()[1]) // 2
    source.write_bytes(patched(2, 16, bytes(8)))
    assert invoke(monkeypatch, "--salvage", source, target) == 10
    assert capsys.readouterr().out.splitlines() == [f"lost 0 {half} corrupt.digest", *lines(range(half, 2 * half))]
    assert len(target.read_bytes()) == sum(plane.size for planes in network()[1][half:] for plane in planes)
    source.write_bytes(network()[0])
    assert invoke(monkeypatch, "--salvage", source, target) == 0
    source.write_bytes(network()[0][:150])
    assert invoke(monkeypatch, "--salvage", source, target) == 4
