"""nvc.codec.salvage, nvc.bitstream.salvage, `nvc decode --on-error`: what is left of a file, and what is told of the rest."""

from __future__ import annotations

import functools
import io
import itertools
import json
import re
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast
from unittest import mock

import numpy as np
import pytest
from container_files import Chunks, Pipe, chunk, put_together, take_apart
from hypothesis import given, settings
from hypothesis import strategies as st
from nvc_files import Integers, frame_hash, program_file

from nvc.bitstream.analysis import analyse
from nvc.bitstream.arithmetic import multiplier_code
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.constants import HASHES, Limits
from nvc.bitstream.errors import NvcError
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op, Program
from nvc.bitstream.segment import Segment
from nvc.cli.main import main
from nvc.codec.decode import Decoder
from nvc.codec.salvage import Salvager

HEADER = Header(4, 4, 1, frame_count=9)
SIZES = (2, 3, 1, 3)  # frames of each segment
STARTS = (0, 2, 5, 6)
TIMES = ((0, 40), (41, 1, 300), (7,), (20, 30, 50))


class Found(NamedTuple):
    """What salvaging gave: (number, time stamp, samples) of each frame, and (first, frames, code, offset) of each loss."""

    frames: list[tuple[int, int, bytes]]
    lost: list[tuple[int, int, str, int]]
    held: int


def picture(frame: int) -> Integers:
    """Three planes that no other frame has."""
    return np.random.default_rng(frame).integers(0, 256, (3, 4, 4), np.int64)


def samples(frame: int) -> bytes:
    return picture(frame).astype(np.uint8).tobytes()


@functools.cache
def program() -> Program:
    """Shows its embeddings as they are; its gains could be set so that sums pass 2^24."""
    builder = Builder("tiny")
    x = builder.add(Op.EMBEDDING, builder.parameter(None), 3, 4, 4, 0, 1)
    y = builder.add(Op.COMBINE, x, x, builder.parameter(None))
    y = builder.add(Op.COMBINE, y, x, builder.parameter(None))
    y = builder.add(Op.REQUANTISE, y, builder.parameter(None), 1, 0, 255, 0, 0)
    builder.add(Op.OUTPUT, *(builder.add(Op.SLICE, y, n, n + 1) for n in range(3)))
    return builder.program()


def segment(first: int, frames: int, times: tuple[int, ...] | None = None, gain: int = 1, wrong: tuple[int, ...] = ()) -> Segment:
    """The segment of some frames; those with the numbers `wrong` do not get their hashes."""
    gains, one = np.array([gain, 0], np.int64), np.array([multiplier_code(1.0)], np.int64)
    shown = range(first, first + frames)
    tensors = [np.stack([picture(frame) for frame in shown]), gains, gains, one]
    hashes = [bytes(8) if frame in wrong else frame_hash(list(picture(frame))) for frame in shown]
    sections = write_sections(analyse(program(), Limits()), tensors, frames)
    return Segment(first, frames, 0, digest(tensors), {**sections, HASHES: b"".join(hashes)}, times)


@functools.cache
def intact(count: bool = True, indexed: bool = True, variable: bool = False) -> bytes:
    """A file of a segment of each of SIZES."""
    header = replace(HEADER, frame_count=sum(SIZES) if count else None, first_pts=100)
    if variable:
        header = replace(header, frame_rate=None, time_base=Fraction(1, 1000))
    made = zip(STARTS, SIZES, TIMES, strict=True)
    segments = [segment(first, size, times if variable else None) for first, size, times in made]
    return program_file(header, [program()], segments, indexed=indexed)


FILE = intact()
SALT, CHUNKS = take_apart(FILE)  # HEAD, MODL, four segments, INDX, FOOT
WHOLE = range(sum(SIZES))
VARIANTS = [intact(), intact(indexed=False), intact(count=False), intact(count=False, indexed=False), intact(variable=True)]


def salvage(
    data: bytes | Pipe, hold: bool = False, limits: Limits | None = None, first: int = 0, last: int | None = None
) -> Found:
    file = cast(BinaryIO, io.BytesIO(data) if isinstance(data, bytes) else data)
    salvager = Salvager(Decoder(file, limits=limits), hold)
    frames = [
        (batch.first + i, pts, b"".join(plane[i].tobytes() for plane in batch.planes))
        for batch in salvager.frames(first, last)
        for i, pts in enumerate(batch.pts)
    ]
    return Found(frames, [(gap.first, gap.frames, gap.error.code, gap.offset) for gap in salvager.lost], salvager.held)


def refusal(data: bytes, **options: int) -> tuple[str, int]:
    """Code and exit code of a file of which nothing is left."""
    with pytest.raises(NvcError) as caught:
        salvage(data, **options)  # type: ignore[arg-type]
    return caught.value.code, caught.value.exit_code


def places(data: bytes) -> list[tuple[bytes, int, int]]:
    """Type, start and end of each chunk of an intact file."""
    position, found = 32, []
    while position < len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        found.append((kind, position, position + 16 + length))
        position += 16 + length
    return found


def rewritten(change: Callable[[Chunks], object], data: bytes = FILE) -> bytes:
    """The file with its chunks changed and all checksums repaired."""
    salt, chunks = take_apart(data)
    change(chunks)
    return put_together(salt, chunks, features=data[16])


def segments_only(*numbers: int, data: bytes = FILE) -> bytes:
    """The file with just these of its segments, in this order."""

    def change(chunks: Chunks) -> None:
        chunks[2:6] = [chunks[2 + number] for number in numbers]

    return rewritten(change, data)


def with_segment(number: int, made: Segment) -> bytes:
    """The file with another segment in a place, and an index that knows nothing of it."""
    single = program_file(replace(HEADER, frame_count=None), [program()], [replace(made, first_frame=0)])
    payload = struct.pack("<Q", made.first_frame) + take_apart(single)[1][2][1][8:]
    return rewritten(lambda chunks: chunks.__setitem__(2 + number, (b"SEGM", payload)))


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0x10
    return bytes(changed)


def frames_of(*numbers: int) -> list[int]:
    """The frames of these segments."""
    return [frame for number in numbers for frame in range(STARTS[number], STARTS[number] + SIZES[number])]


def check(found: Found, frames: list[int], lost: list[tuple[int, int, str]]) -> None:
    """These frames came out as they were, and these were lost."""
    assert [number for number, _, _ in found.frames] == frames
    assert all(shown == samples(number) for number, _, shown in found.frames)
    assert [loss[:3] for loss in found.lost] == lost
    assert found.held == 0


# ---- what is good, and where the reader goes on


@pytest.mark.parametrize("data", VARIANTS)
def test_an_intact_file_is_decoded_as_ever(data: bytes) -> None:
    found = salvage(data)
    check(found, list(WHOLE), [])
    stamps = [stamp for batch in Decoder(io.BytesIO(data)).frames() for stamp in batch.pts]
    assert [stamp for _, stamp, _ in found.frames] == stamps


@pytest.mark.parametrize("data", VARIANTS)
def test_what_stands_before_a_cut_is_kept(data: bytes) -> None:
    _, _, *body = places(data)
    indexed, counted = data[16] == 1, data in (VARIANTS[0], VARIANTS[1], VARIANTS[4])
    borders = {body[0][1], *(place for _, start, end in body for place in (start + 16, end))}
    for cut in sorted({border + by for border in borders for by in (-1, 0, 1)}):
        if cut < body[0][1]:
            assert refusal(data[:cut]) == ("truncated.chunk", 4)  # MODL
            continue
        kept = [number for number, (_, _, end) in enumerate(body[:4]) if end <= cut]
        clean = cut in {body[0][1], *(end for _, _, end in body)}
        code = "truncated.chunk" if not clean else "truncated.end" if indexed else "truncated.frames"
        if not kept:
            assert refusal(data[:cut]) == (code, 4), cut
            continue
        frames = frames_of(*kept)
        lost = [(len(frames), len(WHOLE) - len(frames), code)] if counted and len(kept) < 4 else []
        check(salvage(data[:cut]), frames, lost)


def test_where_the_file_is_cut_is_told() -> None:
    _, start, end = places(FILE)[4]
    assert [loss[3] for loss in salvage(FILE[: end - 1]).lost] == [start]
    assert [loss[3] for loss in salvage(FILE[:end]).lost] == [end]


@pytest.mark.parametrize("data", VARIANTS)
def test_a_damaged_byte_costs_one_segment_at_most(data: bytes) -> None:
    for number, (kind, start, end) in enumerate(places(data)):
        for position in [*range(start, start + 16), start + 16, (start + 16 + end) // 2, end - 1]:
            damaged, code = flipped(data, position), "corrupt.header_crc" if position < start + 16 else "corrupt.payload_crc"
            if number < 2:
                assert refusal(damaged) == (code, 4)
                continue
            hit = number - 2
            kept = [other for other in range(4) if other != hit]
            counted = Decoder(io.BytesIO(data)).header.frame_count is not None or data[16] == 1
            shows = hit < 3 or (hit == 3 and counted)  # live and not indexed, a file does not tell of its last segment
            lost = [(STARTS[hit], SIZES[hit], code)] if shows else []
            found = salvage(damaged)
            check(found, frames_of(*kept), lost)
            assert [loss[3] for loss in found.lost] == [start] * len(lost)
            assert kind == b"SEGM" or not lost


@pytest.mark.parametrize("gone", [{0}, {1}, {2}, {1, 2}, {0, 2}])
def test_deleted_segments_are_missed_by_number(gone: set[int]) -> None:
    kept = [number for number in range(4) if number not in gone]
    lost = {(0,): (0, 2), (1,): (2, 3), (2,): (5, 1), (1, 2): (2, 4)}
    runs = [(0,), (2,)] if gone == {0, 2} else [tuple(sorted(gone))]
    check(salvage(segments_only(*kept)), frames_of(*kept), [(*lost[run], "invalid.first_frame") for run in runs])


def test_a_missing_segment_is_told_where_the_next_one_stands() -> None:
    data = segments_only(0, 2, 3)
    assert salvage(data).lost == [(2, 3, "invalid.first_frame", places(data)[3][1])]


def test_a_missing_end_is_missed_behind_the_footer() -> None:
    data = segments_only(0, 1)
    check(salvage(data), frames_of(0, 1), [(5, 4, "truncated.frames")])
    assert salvage(data).lost[0][3] == len(data)
    assert salvage(data + b"junk").lost[0][3] == len(data)


def test_repeated_segments_cost_nothing() -> None:
    for order in ((0, 0, 1, 2, 3), (0, 1, 0, 2, 3), (0, 1, 2, 3, 3), (0, 1, 2, 3, 0)):
        check(salvage(segments_only(*order)), list(WHOLE), [])


def test_of_segments_out_of_order_those_behind_a_later_one_are_lost() -> None:
    check(salvage(segments_only(0, 2, 1, 3)), frames_of(0, 2, 3), [(2, 3, "invalid.first_frame")])
    check(salvage(segments_only(1, 0, 2, 3)), frames_of(1, 2, 3), [(0, 2, "invalid.first_frame")])


@pytest.mark.parametrize("junk", [b"x", b"SEG", b"SEGM", bytes(16), b"SEGM" * 40, FILE[-36:-21], FILE[:115], FILE[16:32]])
def test_inserted_bytes_cost_nothing(junk: bytes) -> None:
    for _, _, end in places(FILE)[1:]:
        check(salvage(FILE[:end] + junk + FILE[end:]), list(WHOLE), [])


def test_lost_bytes_cost_the_segment_that_they_were_in_and_the_next() -> None:
    _, start, end = places(FILE)[3]
    # The length of segment 1 is believed, so its payload runs into segment 2, whose header then is not found.
    check(salvage(FILE[: end - 1] + FILE[end:]), frames_of(0, 3), [(2, 4, "corrupt.payload_crc")])
    check(salvage(FILE[: start + 7] + FILE[start + 8 :]), frames_of(0, 2, 3), [(2, 3, "corrupt.header_crc")])


def test_the_remains_of_another_file_are_not_taken_for_its_own() -> None:
    other = program_file(replace(HEADER, width=4, first_pts=7), [program()], [segment(0, 9)])
    _, _, end = places(FILE)[4]
    for cut in (end, end - 5):
        found = salvage(FILE[:cut] + other[places(other)[2][1] :])
        wanted = ([0, 1, 2], 6, "corrupt.header_crc") if cut == end else ([0, 1], 5, "corrupt.payload_crc")
        check(found, frames_of(*wanted[0]), [(wanted[1], 9 - wanted[1], wanted[2])])
    check(salvage(FILE + other), list(WHOLE), [])


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (b"abCd", "invalid.first_frame"),  # ancillary: what is missed is the segment
        (b"mETa", "invalid.first_frame"),
        (b"HEAD", "invalid.first_frame"),
        (b"INDX", "invalid.first_frame"),
        (b"ABCD", "unsupported.chunk"),
        (b"a1cd", "invalid.chunk_type"),
    ],
)
def test_chunks_of_other_types_are_passed_over(kind: bytes, code: str) -> None:
    def change(chunks: Chunks) -> None:
        chunks[3] = (kind, b"SEGM" * 30)

    check(salvage(rewritten(change)), frames_of(0, 2, 3), [(2, 3, code)])
    check(salvage(rewritten(lambda chunks: chunks.insert(3, (kind, b"")))), list(WHOLE), [])


def test_a_header_is_believed_whatever_its_payload_holds() -> None:
    hidden = chunk(*CHUNKS[3], SALT)
    data = rewritten(lambda chunks: chunks.__setitem__(3, (b"abCd", hidden)))
    check(salvage(data), frames_of(0, 2, 3), [(2, 3, "invalid.first_frame")])
    body = b"".join(chunk(*each, SALT) for each in CHUNKS[2:])
    lying = put_together(SALT, CHUNKS[:2]) + chunk(b"abCd", body, SALT, len(body) + 1)
    assert refusal(lying) == ("truncated.chunk", 4)


def test_a_length_over_the_limit_is_not_believed() -> None:
    hidden = b"-" + chunk(*CHUNKS[3], SALT)
    length = max(len(hidden), *(len(payload) + 1 for _, payload in CHUNKS))
    wrapped = hidden.ljust(length, b"-")
    data = rewritten(lambda chunks: chunks.__setitem__(3, (b"abCd", wrapped)))
    check(salvage(data, limits=Limits(max_chunk_bytes=length - 1)), list(WHOLE), [])
    check(salvage(data, limits=Limits(max_chunk_bytes=length)), frames_of(0, 2, 3), [(2, 3, "invalid.first_frame")])
    empty = rewritten(lambda chunks: chunks.__setitem__(3, (b"abCd", bytes(length))))
    check(salvage(empty, limits=Limits(max_chunk_bytes=length - 1)), frames_of(0, 2, 3), [(2, 3, "limit.chunk_bytes")])


def test_numbers_that_cannot_be_trusted_make_a_segment_bad() -> None:
    made = segment(2, 3)
    weights = bytearray(made.sections[1])
    weights[-1] ^= 1
    cases = [
        (replace(made, digest=bytes(8)), "corrupt.digest"),
        (segment(2, 3, gain=4095), "invalid.bound"),
        (replace(made, program=1), "invalid.program"),
        (replace(made, sections={**made.sections, 4: b"tokens"}), "invalid.sections"),
        (segment(1, 3), "invalid.first_frame"),
        (segment(7, 3), "invalid.frame_count"),
        (segment(1 << 29, 3), "limit.frames"),
    ]
    for bad, code in cases:
        check(salvage(with_segment(1, bad)), frames_of(0, 2, 3), [(2, 3, code)])


def test_the_first_error_names_the_gap() -> None:
    data = flipped(with_segment(1, replace(segment(2, 3), program=1)), places(FILE)[4][1] + 20)
    check(salvage(data), frames_of(0, 3), [(2, 4, "invalid.program")])
    clean = rewritten(lambda chunks: chunks.insert(2, (b"ABCD", b"")), segments_only(0, 2, 3))  # met before a good segment
    check(salvage(clean), frames_of(0, 2, 3), [(2, 3, "invalid.first_frame")])


def test_the_footer_of_a_live_file_tells_of_its_end() -> None:
    live = VARIANTS[2]
    check(salvage(segments_only(0, 1, data=live)), frames_of(0, 1), [(5, 4, "truncated.frames")])
    damaged = segments_only(0, 1, data=live)
    check(salvage(flipped(damaged, len(damaged) - 1)), frames_of(0, 1), [])
    check(salvage(segments_only(0, 1, data=live), limits=Limits(max_frames=8)), frames_of(0, 1), [])


def test_the_header_knows_better_than_the_footer() -> None:
    data = segments_only(0, 1)
    for stated in (5, 20):
        footer = (b"FOOT", struct.pack("<QQI", 0, stated, 2))
        wrong = rewritten(lambda chunks, footer=footer: chunks.__setitem__(-1, footer), data)
        check(salvage(wrong), frames_of(0, 1), [(5, 4, "truncated.frames")])


def test_a_lost_reader_goes_on_at_index_and_footer_too() -> None:
    live = segments_only(0, 1, data=VARIANTS[2])
    check(salvage(flipped(live, places(live)[4][1])), frames_of(0, 1), [(5, 4, "corrupt.header_crc")])  # behind it, the footer
    salt, chunks = take_apart(VARIANTS[2])
    chunks[6] = (b"INDX", chunk(b"FOOT", struct.pack("<QQI", 0, 7, 1), salt))  # not to be found inside of an index
    data = put_together(salt, chunks)
    check(salvage(flipped(data, places(data)[5][1])), frames_of(0, 1, 2), [(6, 3, "corrupt.header_crc")])


def test_limits_hold_for_what_is_salvaged() -> None:
    check(salvage(FILE, limits=Limits(max_segments=2)), frames_of(0, 1), [(5, 4, "limit.segments")])
    check(salvage(VARIANTS[3], limits=Limits(max_frames=6)), frames_of(0, 1, 2), [])
    code = "limit.segment_frames"
    check(salvage(FILE, limits=Limits(max_segment_frames=2)), frames_of(0, 2), [(2, 3, code), (6, 3, code)])
    work = analyse(program(), Limits()).work
    check(salvage(VARIANTS[3], limits=Limits(max_macs_total=5 * work)), frames_of(0, 1), [])


# ---- frames that differ from their hashes


def test_wrong_frames_are_lost_one_by_one() -> None:
    data = with_segment(3, segment(6, 3, wrong=(7,)))
    check(salvage(data), [0, 1, 2, 3, 4, 5, 6, 8], [(7, 1, "verify.frame")])
    assert salvage(data).lost[0][3] == places(data)[5][1]


def test_neighbours_lost_for_one_reason_are_one_entry() -> None:
    pair = [segment(0, 3, wrong=(0, 2)), segment(3, 3, wrong=(3, 4)), segment(6, 3, wrong=(6,))]
    data = program_file(HEADER, [program()], pair)
    code = "verify.frame"
    check(salvage(data), [1, 5, 7, 8], [(0, 1, code), (2, 3, code), (6, 1, code)])
    cut = rewritten(lambda chunks: chunks.__delitem__(3), data)
    check(salvage(cut), [1, 7, 8], [(0, 1, code), (2, 1, code), (3, 3, "invalid.first_frame"), (6, 1, code)])


# ---- nothing left


def test_a_file_of_which_nothing_is_left_is_refused_for_its_first_gap() -> None:
    wrong = program_file(replace(HEADER, frame_count=3), [program()], [segment(0, 3, wrong=(0, 1, 2))])
    assert refusal(wrong) == ("verify.frame", 6)
    assert refusal(rewritten(lambda chunks: chunks.__delitem__(slice(2, 6)))) == ("truncated.frames", 4)
    bad = rewritten(lambda chunks: chunks.__setitem__(slice(2, 6), [(b"ABCD", b""), (b"SEGM", b"")]))
    assert refusal(bad) == ("unsupported.chunk", 4)
    assert refusal(put_together(SALT, CHUNKS[:2], features=0)) == ("truncated.frames", 4)
    live = take_apart(VARIANTS[3])
    assert refusal(put_together(live[0], live[1][:2], features=0)) == ("truncated.frames", 4)
    assert refusal(put_together(live[0], [*live[1][:2], (b"SEGM", b"")], features=0)) == ("invalid.length", 4)


def test_head_and_model_must_be_whole() -> None:
    for position in (3, 12, 29, 36, 60, places(FILE)[1][1] + 20):
        with pytest.raises(NvcError) as strict:
            list(Decoder(io.BytesIO(flipped(FILE, position))).frames())
        assert refusal(flipped(FILE, position)) == (strict.value.code, strict.value.exit_code)


# ---- lost frames held


def stood_in(found: Found, good: list[int]) -> None:
    """Every frame of the file came out: the good ones as they were, the others as the last good one, or else the first."""
    assert [number for number, _, _ in found.frames] == list(WHOLE)
    for number, _, shown in found.frames:
        before = [frame for frame in good if frame <= number]
        assert shown == samples(before[-1] if before else good[0]), number
    assert found.held == len(WHOLE) - len(good)


@pytest.mark.parametrize("kept", [kept for size in (1, 2, 3, 4) for kept in itertools.combinations(range(4), size)])
def test_held_frames_repeat_the_last_good_one_or_else_the_first(kept: tuple[int, ...]) -> None:
    data = segments_only(*kept)
    held, left = salvage(data, hold=True), salvage(data)
    stood_in(held, frames_of(*kept))
    assert [stamp for _, stamp, _ in held.frames] == [100 + number for number in WHOLE]
    assert held.lost == left.lost
    assert left.frames == [frame for frame in held.frames if frame[0] in frames_of(*kept)]


def test_frames_with_wrong_hashes_are_held_too() -> None:
    data = program_file(HEADER, [program()], [segment(0, 4, wrong=(0, 1, 3)), segment(4, 5, wrong=(4, 8))])
    stood_in(salvage(data, hold=True), [2, 5, 6, 7])


def test_leading_lost_frames_are_not_piled_up() -> None:
    far = program_file(replace(HEADER, frame_count=None), [program()], [segment(0, 2)], indexed=False)
    salt, chunks = take_apart(far)
    payload = struct.pack("<Q", 2_500_000) + chunks[2][1][8:]
    far = put_together(salt, [*chunks[:2], (b"SEGM", payload)], features=0)
    tracemalloc.start()
    try:
        frames = Salvager(Decoder(io.BytesIO(far)), hold=True).frames()
        for number, batch in enumerate(itertools.islice(frames, 500)):
            assert (batch.first, batch.planes[0][0].tobytes()) == (2 * number, samples(0)[:16])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# ---- ranges


DAMAGED = {
    "gap": segments_only(0, 2, 3),
    "payload": flipped(FILE, places(FILE)[3][1] + 30),
    "front": segments_only(1, 3),
    "end": segments_only(0, 1),
    "hashes": program_file(HEADER, [program()], [segment(0, 5, wrong=(1, 4)), segment(5, 4, wrong=(5, 7))]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_range_is_that_part_of_frames_and_account(name: str) -> None:
    whole = salvage(DAMAGED[name])
    lost = {frame: code for first, count, code, _ in whole.lost for frame in range(first, first + count)}
    for first, last in itertools.combinations(range(len(WHOLE) + 1), 2):
        frames = [frame for frame in whole.frames if first <= frame[0] < last]
        if not frames:
            assert refusal(DAMAGED[name], first=first, last=last)[0] == lost[first]
            continue
        part = salvage(DAMAGED[name], first=first, last=last)
        assert part.frames == frames
        told = {frame: code for start, count, code, _ in part.lost for frame in range(start, start + count)}
        assert told == {frame: code for frame, code in lost.items() if first <= frame < last}
        held = salvage(DAMAGED[name], hold=True, first=first, last=last)
        assert [number for number, _, _ in held.frames] == list(range(first, last))
        assert (held.held, held.lost) == (last - first - len(frames), part.lost)


def test_frames_outside_of_the_range_are_not_decoded() -> None:
    decoder = Decoder(io.BytesIO(segments_only(0, 1, 3)))
    with mock.patch.object(decoder, "render", wraps=decoder.render) as render:
        assert [batch.first for batch in Salvager(decoder, hold=True).frames(3, 6)] == [3, 5]
    assert [(call.args[0].first_frame, call.args[2:]) for call in render.call_args_list] == [(2, (1, 3))]


def test_nothing_behind_the_range_is_read() -> None:
    found = salvage(cast(Pipe, io.BufferedReader(_Unreadable(FILE[: places(FILE)[3][2]]))), first=1, last=4)
    check(found, [1, 2, 3], [])


class _Unreadable(io.RawIOBase):
    """A stream that breaks where its bytes end."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        count = self._data.readinto(memoryview(buffer)[:64])
        assert count, "read behind the end"
        return count


# ---- time stamps of a variable rate


def stamps_of(*kept: int, hold: bool = True) -> list[int]:
    return [stamp for _, stamp, _ in salvage(segments_only(*kept, data=VARIANTS[4]), hold).frames]


def test_across_a_gap_time_goes_on_at_the_mean_of_the_segment_in_front() -> None:
    # Frames 0 and 1 are at 100 and 140, 40 apart; frames 2-4 take (41 + 1 + 300) / 3 = 114 each. What is behind a gap states
    # its own interval: frame 5 comes 7 behind the one before, frame 6 comes 20.
    assert stamps_of(0, 2, 3) == [100, 140, 180, 220, 260, 267, 287, 317, 367]
    assert stamps_of(0, 1, 3) == [100, 140, 181, 182, 482, 596, 616, 646, 696]
    assert stamps_of(0, 1) == [100, 140, 181, 182, 482, 596, 710, 824, 938]


def test_an_error_without_loss_moves_no_time() -> None:
    whole = [stamp for batch in Decoder(io.BytesIO(VARIANTS[4])).frames() for stamp in batch.pts]
    for order in ((0, 0, 1, 2, 3), (0, 1, 0, 2, 3), (0, 1, 2, 3, 3)):
        assert stamps_of(*order) == whole


def test_without_a_segment_in_front_the_one_behind_tells_the_interval() -> None:
    assert stamps_of(1, 2, 3) == [100, 214, 255, 256, 556, 563, 583, 613, 663]  # frame 0 is at first_pts
    assert stamps_of(3) == [100 + 100 * frame // 3 for frame in range(6)] + [286, 316, 366]


def test_frame_0_alone_has_no_interval() -> None:
    header = replace(HEADER, frame_rate=None, time_base=Fraction(1, 1000), frame_count=6)
    parts = [segment(0, 1, (0,)), segment(1, 2, (10, 20)), segment(3, 3, (30, 40, 50))]
    data = program_file(header, [program()], parts)
    cut = rewritten(lambda chunks: chunks.__delitem__(3), data)
    assert [stamp for _, stamp, _ in salvage(cut, hold=True).frames] == [0, 40, 80, 110, 150, 200]  # that behind: 40
    alone = rewritten(lambda chunks: chunks.__delitem__(slice(3, 5)), data)
    assert [stamp for _, stamp, _ in salvage(alone, hold=True).frames] == [0, 40, 80, 120, 160, 200]  # 25 a second


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=9, max_size=9), st.sets(st.integers(0, 3), min_size=1))
def test_time_always_ascends_and_skipping_changes_no_stamp(ticks: list[int], kept: set[int]) -> None:
    header = replace(HEADER, frame_rate=None, time_base=Fraction(1, 1000))
    ticks[0] = 0
    parts = [segment(first, size, tuple(ticks[first : first + size])) for first, size in zip(STARTS, SIZES, strict=True)]
    data = segments_only(*sorted(kept), data=program_file(header, [program()], parts))
    held = salvage(data, hold=True).frames
    stamps = [stamp for _, stamp, _ in held]
    assert stamps[0] == 0 and all(a < b for a, b in itertools.pairwise(stamps))
    assert salvage(data).frames == [frame for frame in held if frame[0] in frames_of(*kept)]


# ---- whatever happens to a file


def mutations() -> st.SearchStrategy[tuple[bytes, bytes]]:
    """An intact file, and the same with one thing done to it."""
    return st.sampled_from(VARIANTS).flatmap(lambda data: st.tuples(st.just(data), _mutated(data)))


def _mutated(data: bytes) -> st.SearchStrategy[bytes]:
    position = st.integers(0, len(data))
    body = st.integers(places(data)[1][2], len(data))
    index, flips = st.integers(0, len(data) - 1), st.integers(1, 255)
    return st.one_of(
        st.builds(lambda at, flip: data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], index, flips),
        st.builds(lambda at: data[:at], position),
        st.builds(lambda at, junk: data[:at] + junk + data[at:], body, st.binary(max_size=40)),
        st.builds(lambda at, size: data[:at] + data[at + size :], body, st.integers(1, 900)),
        st.builds(lambda at, size, to: data[:to] + data[at : at + size] + data[to:], body, st.integers(1, 900), body),
        st.builds(lambda at, size: data[:at] + bytes(size) + data[at + size :], body, st.integers(1, 900)),
        st.permutations(range(2, len(places(data)))).map(
            lambda order: rewritten(lambda chunks: chunks.__setitem__(slice(2, None), [chunks[n] for n in order]), data)
        ),
    )


@settings(deadline=None, max_examples=200)
@given(mutations(), st.integers(16, 300))
def test_whatever_happens_each_frame_is_right_or_told_to_be_lost(files: tuple[bytes, bytes], most: int) -> None:
    data, mutated = files
    try:
        found = salvage(mutated)
    except NvcError as error:
        assert error.exit_code == 4
        for other in (mutated, Pipe(mutated, most)):
            with pytest.raises(NvcError) as caught:
                salvage(other, hold=True)
            assert caught.value.code == error.code
        return
    assert all(shown == samples(number) for number, _, shown in found.frames)
    numbers = [number for number, _, _ in found.frames]
    lost = [number for first, count, _, _ in found.lost for number in range(first, first + count)]
    assert numbers == sorted(numbers)
    expected = Decoder(io.BytesIO(data)).header.frame_count
    total = expected or max(numbers + lost) + 1
    assert sorted(numbers + lost) == list(range(total))
    held = salvage(mutated, hold=True)
    assert [number for number, _, _ in held.frames] == list(range(total))
    assert (held.lost, held.held) == (found.lost, len(lost))
    assert salvage(Pipe(mutated, most), hold=True) == held


# ---- bounded time and memory


def test_bad_segments_do_not_stay_in_memory() -> None:
    size = 1 << 20
    parts = [segment(frame, 1) for frame in range(0, 18, 2)]  # a bad one between each two, so that each gap has its error
    salt, chunks = take_apart(program_file(replace(HEADER, frame_count=None), [program()], [segment(0, 1)], indexed=False))
    good = [struct.pack("<Q", part.first_frame) + _payload(part)[8:] for part in parts]
    bad = chunk(b"SEGM", struct.pack("<Q", 1) + bytes(size), salt)
    data = put_together(salt, chunks[:2], features=0) + b"".join(chunk(b"SEGM", each, salt) + bad for each in good)
    salvage(data)  # what is imported and cached the first time does not count
    tracemalloc.start()
    try:
        found = salvage(data)
        assert tracemalloc.get_traced_memory()[1] < 5 * size
    finally:
        tracemalloc.stop()
    check(found, list(range(0, 18, 2)), [(frame, 1, "invalid.range") for frame in range(1, 16, 2)])


def _payload(made: Segment) -> bytes:
    single = program_file(replace(HEADER, frame_count=None), [program()], [replace(made, first_frame=0)], indexed=False)
    return take_apart(single)[1][2][1]


@pytest.mark.parametrize("seekable", [True, False])
def test_a_long_search_and_a_long_payload_are_passed_in_pieces(seekable: bool) -> None:
    (_, found, behind), (_, _, end) = places(FILE)[4:6]
    data = FILE[:found] + bytes(12_000_000) + FILE[found:behind] + chunk(b"abCd", bytes(12 << 20), SALT) + FILE[end:]
    file = cast(Pipe, io.BytesIO(data)) if seekable else Pipe(data, 1 << 20)
    tracemalloc.start()
    try:
        check(salvage(file), frames_of(0, 1, 2), [(6, 3, "truncated.frames")])
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_a_stored_file_can_be_salvaged_again() -> None:
    decoder = Decoder(io.BytesIO(DAMAGED["payload"]))
    first, second = ([batch.first for batch in Salvager(decoder, hold=False).frames()] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("seekable", [True, False])
def test_the_search_takes_time_in_proportion_to_the_bytes(seekable: bool) -> None:
    unit = b"x" + chunk(b"SEGM", b"", SALT)  # each time the reader loses its way and finds it again
    seconds = []
    for count in (4000, 16000):
        data = put_together(SALT, CHUNKS[:2]) + count * unit + b"".join(chunk(*each, SALT) for each in CHUNKS[2:])
        started = time.process_time()
        check(salvage(data if seekable else Pipe(data, 1 << 20)), list(WHOLE), [])
        seconds.append(time.process_time() - started)
    assert seconds[1] < 8 * seconds[0] + 0.2


# ---- the command


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """Runs `nvc decode a.nvc ARGUMENTS`, where a.nvc holds the bytes given first."""
    monkeypatch.chdir(tmp_path)

    def command(data: bytes, *arguments: object) -> Answer:
        Path("a.nvc").write_bytes(data)
        monkeypatch.setattr(sys, "argv", ["nvc", "decode", "a.nvc", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return Answer(int(caught.value.code or 0), *capfd.readouterr())

    return command


def video(frames: list[int]) -> bytes:
    return b"".join(samples(frame) for frame in frames)


def test_skip_leaves_lost_frames_out_and_hold_repeats(run: Callable[..., Answer]) -> None:
    data = DAMAGED["payload"]
    answer = run(data, "skip.yuv", "--on-error", "skip", "--json")
    assert answer.code == 10
    assert Path("skip.yuv").read_bytes() == video(frames_of(0, 2, 3))
    told = json.loads(answer.out)
    assert told["lost"] == [{"first": 2, "frames": 3, "code": "corrupt.payload_crc", "offset": places(FILE)[3][1]}]
    assert (told["frames"], told["held"]) == (6, 0)
    assert re.search(r"^nvc: frames 2-4 lost: [^\n]+ \[corrupt\.payload_crc\]$", answer.err, re.MULTILINE)
    answer = run(data, "hold.yuv", "--on-error", "hold", "--json")
    assert answer.code == 10
    assert Path("hold.yuv").read_bytes() == video([0, 1, 1, 1, 1, 5, 6, 7, 8])
    assert {**json.loads(answer.out), "seconds": 0} == {**told, "output": "hold.yuv", "frames": 9, "held": 3, "seconds": 0}


def test_by_default_a_damaged_file_leaves_no_output(run: Callable[..., Answer]) -> None:
    for arguments in ((), ("--on-error", "fail")):
        answer = run(DAMAGED["payload"], "o.yuv", *arguments)
        assert (answer.code, answer.out) == (4, "")
        assert answer.err.endswith("[corrupt.payload_crc]\n")
        assert [path.name for path in Path().iterdir()] == ["a.nvc"]


def test_what_costs_no_frame_is_no_loss_but_said(run: Callable[..., Answer]) -> None:
    damaged = flipped(FILE, len(FILE) - 1)
    answer = run(damaged, "o.yuv", "--on-error", "skip", "--json")
    assert (answer.code, json.loads(answer.out)["lost"]) == (0, [])
    assert Path("o.yuv").read_bytes() == video(list(WHOLE))
    assert re.search(r"^nvc: damaged at byte \d+, [^\n]+ \[corrupt\.payload_crc\]$", answer.err, re.MULTILINE)
    answer = run(FILE, "o.yuv", "--on-error", "hold", "-y")
    assert answer.code == 0 and "damaged" not in answer.err and "lost" not in answer.err


def test_the_end_of_a_live_file_that_is_damaged_is_a_part_though_nobody_knows_how_much(run: Callable[..., Answer]) -> None:
    live = VARIANTS[3]
    answer = run(live[:-1], "o.yuv", "--on-error", "hold", "--json")
    assert (answer.code, json.loads(answer.out)["lost"]) == (10, [])
    assert Path("o.yuv").read_bytes() == video(frames_of(0, 1, 2))
    assert "nobody knows how many" in answer.err
    assert run(live, "p.yuv", "--on-error", "hold").code == 0


def test_where_nothing_is_left_there_is_no_output(run: Callable[..., Answer]) -> None:
    wrong = program_file(replace(HEADER, frame_count=3), [program()], [segment(0, 3, wrong=(0, 1, 2))])
    empty = rewritten(lambda chunks: chunks.__setitem__(slice(2, 6), [(b"SEGM", b"")]))
    live = take_apart(VARIANTS[3])
    cases = [(wrong, 6, "verify.frame"), (empty, 4, "invalid.length"), (FILE[:-1], 0, "")]
    cases += [(flipped(FILE, 40), 4, "corrupt.header_crc")]
    cases += [(put_together(live[0], live[1][:2], features=0), 4, "truncated.frames")]
    for data, code, name in cases:
        for way in ("skip", "hold"):
            answer = run(data, "o.yuv", "--on-error", way, "--json")
            assert answer.code == code
            if code:
                assert re.fullmatch(rf"nvc: error: [^\n]+ \[{re.escape(name)}\]\n", answer.err)
                assert (answer.out, [path.name for path in Path().iterdir()]) == ("", ["a.nvc"])
            else:
                Path("o.yuv").unlink()


def test_a_range_restricts_what_is_written_and_said(run: Callable[..., Answer]) -> None:
    data = DAMAGED["payload"]
    answer = run(data, "o.yuv", "--on-error", "hold", "--frames", "4:7", "--json")
    told = json.loads(answer.out)
    assert (answer.code, told["frames"], told["held"]) == (10, 3, 1)
    assert [(loss["first"], loss["frames"]) for loss in told["lost"]] == [(4, 1)]
    assert "frame 4 lost" in answer.err
    assert Path("o.yuv").read_bytes() == video([5, 5, 6])
    answer = run(data, "o.yuv", "--on-error", "hold", "--frames", "5:7", "-y")
    assert answer.code == 0 and Path("o.yuv").read_bytes() == video([5, 6])
    answer = run(data, "p.yuv", "--on-error", "skip", "--frames", "2:5")
    assert answer.code == 4 and not Path("p.yuv").exists()
    nothing = rewritten(lambda chunks: chunks.__delitem__(slice(2, 6)), VARIANTS[2])
    for live in (VARIANTS[3], segments_only(0, 0, 1, data=VARIANTS[2]), nothing):
        answer = run(live, "p.yuv", "--on-error", "skip", "--frames", "9:12")
        assert answer.code == 2 and answer.err.endswith("[usage.frames]\n")


@pytest.mark.parametrize(("way", "numbers"), [("skip", [0, 1, 5, 6, 7, 8]), ("hold", list(WHOLE))])
def test_matroska_keeps_the_times_of_the_frames(
    run: Callable[..., Answer], ffmpeg: Callable[..., bytes], way: str, numbers: list[int]
) -> None:
    assert run(DAMAGED["gap"], "o.mkv", "--on-error", way).code == 10
    told = ffmpeg("-i", "o.mkv", "-fps_mode", "passthrough", "-f", "framehash", "-").decode()
    stamps = [int(line.split(",")[2]) for line in told.splitlines() if line and not line.startswith("#")]
    assert re.search(r"#tb 0: 1/25\n", told)
    assert [stamp - stamps[0] for stamp in stamps] == numbers


def test_standard_input_is_salvaged_as_a_file_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nvc.cli", "decode", "-", "o.yuv", "--on-error", "hold", "--json"]
    done = subprocess.run(command, input=DAMAGED["payload"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 10
    assert json.loads(done.stdout)["lost"][0]["offset"] == places(FILE)[3][1]
    assert (tmp_path / "o.yuv").read_bytes() == video([0, 1, 1, 1, 1, 5, 6, 7, 8])
