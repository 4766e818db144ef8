"""The container: whole files come back, and every damaged, cut, spliced or lying one is refused with its code."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO, cast

import pytest
from container_files import (
    CHUNKS,
    FILE,
    HEADER,
    LIVE,
    METADATA,
    MODEL,
    NAMES,
    OPEN,
    SALT,
    SEGMENTS,
    TIMED,
    VARIABLE,
    Sink,
    code,
    pipe,
    put_together,
    read,
    segment,
    take_apart,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream.chunks import pack_chunk
from nvc.bitstream.container import ACCOUNTS, Reader, Segment, Writer
from nvc.bitstream.errors import BitstreamError, InvalidError, LimitError, TruncatedError, UsageError
from nvc.bitstream.header import Header


def test_the_independent_writer_agrees_with_the_real_one() -> None:
    assert put_together(SALT, CHUNKS) == FILE
    assert hashlib.sha256(CHUNKS[0][1] + CHUNKS[1][1]).digest()[:8] == SALT
    assert NAMES == [b"HEAD", b"MODL", b"mETa", b"SEGM", b"SEGM", b"SEGM", b"INDX", b"FOOT"]


def test_a_tiny_file_has_these_bytes() -> None:
    header = Header(2, 2, 1, par=Fraction(0), time_base=Fraction(1, 1000), frame_rate=None, first_pts=9)
    tiny = Segment(0, 1, 3, b"digest!!", {1: b"W", 5: b"hashhash"}, (0,))
    golden = (
        "894e56430d0a1a0a 00 01 0000 00000000 00000000 c5a8a630de9cb64d 1d5f5d0a"
        "48454144 34000000 80103d00 801f5723 0200 0200 01 08 02 02 02 00 00 01 00000000 01000000 01000000 e8030000"
        "00000000 00000000 ffffffffffffffff 0900000000000000"
        "4d4f444c 01000000 c97c0d22 b5567064 90"
        "5345474d 35000000 8a395e52 47055ea0 0000000000000000 01000000 03 00 03 00 6469676573742121"
        "01 01000000 05 08000000 06 05000000 57 6861736868617368 00 00000000"
    )
    assert write(header, [tiny], None, indexed=False).hex() == golden.replace(" ", "")


# ---- round trips


@pytest.mark.parametrize("most", [1, 7, 1 << 30])
@pytest.mark.parametrize("data", [FILE, OPEN, LIVE], ids=["indexed", "open", "live"])
def test_files_and_pipes_with_short_reads_give_what_was_written(data: bytes, most: int) -> None:
    for reader in (Reader(io.BytesIO(data)), pipe(data, most)):
        assert (reader.model, reader.metadata) == (MODEL, METADATA)
        assert replace(reader.header, frame_count=6) == HEADER
        assert list(reader.segments()) == SEGMENTS


def test_a_file_can_begin_behind_other_bytes_of_a_seekable_stream() -> None:
    stream = io.BytesIO(b"before" + FILE)
    stream.seek(6)
    reader = Reader(stream)
    assert list(reader.segments(5)) == SEGMENTS[2:]
    assert list(reader.segments()) == SEGMENTS


def test_time_stamps_come_back_and_are_stored_compactly() -> None:
    assert read(write(VARIABLE, TIMED)) == TIMED
    long = Segment(0, 4000, 0, bytes(8), {1: b"", 5: bytes(32000)}, (0, *[1001] * 3999))
    data = write(replace(VARIABLE, frame_count=4000), [long])
    assert read(data) == [long]
    assert Reader(io.BytesIO(data)).accounting()["metadata"] < 100


SECTIONS = st.dictionaries(st.integers(2, 4), st.binary(min_size=1, max_size=9))


@st.composite
def videos(draw: st.DrawFn) -> tuple[Header, list[Segment]]:
    """A header and segments that belong to it."""
    variable = draw(st.booleans())
    segments, first = [], 0
    for frames in draw(st.lists(st.integers(1, 5), min_size=1, max_size=5)):
        ticks = draw(st.lists(st.integers(1, (1 << 32) - 1), min_size=frames, max_size=frames))
        ticks[0] = ticks[0] if first else 0
        hashes = draw(st.binary(min_size=8 * frames, max_size=8 * frames))
        sections = {1: draw(st.binary(max_size=9)), **draw(SECTIONS), 5: hashes}
        digest, program = draw(st.binary(min_size=8, max_size=8)), draw(st.integers(0, 255))
        segments.append(Segment(first, frames, program, digest, sections, tuple(ticks) if variable else None))
        first += frames
    header = replace(VARIABLE if variable else HEADER, frame_count=draw(st.sampled_from([None, first])))
    return header, segments


@settings(deadline=None)
@given(videos(), st.booleans(), st.dictionaries(st.text(max_size=5), st.integers(0, 9) | st.text(max_size=5)))
def test_videos_survive_the_round_trip(
    video: tuple[Header, list[Segment]], indexed: bool, metadata: dict[str, str | int]
) -> None:
    header, segments = video
    data = write(header, segments, metadata, indexed)
    reader = Reader(io.BytesIO(data))
    assert (reader.header, reader.metadata, list(reader.segments())) == (header, metadata, segments)
    assert sum(reader.accounting().values()) == len(data)


@settings(deadline=None)
@given(videos(), st.booleans(), st.integers(0, 26), st.integers(0, 26))
def test_ranges_by_index_by_scan_and_by_pipe_are_the_overlapping_segments(
    video: tuple[Header, list[Segment]], indexed: bool, first: int, last: int
) -> None:
    header, segments = video
    data = write(header, segments, None, indexed)
    expected = [each for each in segments if each.first_frame < last and each.first_frame + each.frames > first]
    assert list(Reader(io.BytesIO(data)).segments(first, last)) == expected
    assert list(pipe(data).segments(first, last)) == expected


def test_a_range_by_index_does_not_read_other_segments() -> None:
    damaged = bytearray(FILE)
    damaged[FILE.index(b"weightsembed")] ^= 1
    reader = Reader(io.BytesIO(damaged))
    assert list(reader.segments(2)) == SEGMENTS[1:]
    with pytest.raises(BitstreamError):
        list(reader.segments())


def test_a_range_of_a_file_whose_end_is_lost_is_found_by_scanning() -> None:
    for cut in (1, 40, 100):
        assert list(Reader(io.BytesIO(FILE[:-cut])).segments(2, 5)) == SEGMENTS[1:2]


def test_a_scan_by_seeking_notices_that_a_skipped_segment_is_cut() -> None:
    large = [segment(0, 2, s2=bytes(2 << 20)), segment(2, 1)]
    data = write(replace(HEADER, frame_count=None), large, None, indexed=False)
    assert list(Reader(io.BytesIO(data)).segments(2)) == large[1:]
    with pytest.raises(TruncatedError):
        list(Reader(io.BytesIO(data[: 1 << 20])).segments(2))


def test_two_iterations_of_one_reader_do_not_disturb_each_other() -> None:
    reader = Reader(io.BytesIO(FILE))
    pairs = list(zip(reader.segments(), reader.segments(), strict=True))
    assert pairs == [(each, each) for each in SEGMENTS]


def test_a_pipe_can_be_read_only_once() -> None:
    reader = pipe(FILE)
    list(reader.segments())
    with pytest.raises(UsageError):
        list(reader.segments())


# ---- sizes


def test_the_accounts_are_what_was_written() -> None:
    timed = [replace(each, sections={**each.sections, **base.sections}) for each, base in zip(TIMED, SEGMENTS, strict=True)]
    data = write(VARIABLE, timed)
    accounts = Reader(io.BytesIO(data)).accounting()
    assert tuple(accounts) == ACCOUNTS
    assert sum(accounts.values()) == len(data)
    named = {name: accounts[name] for name in ("program", "weights", "codebook", "embeddings", "tokens", "hashes")}
    assert named == {"program": 1, "weights": 21, "codebook": 4, "embeddings": 6, "tokens": 6, "hashes": 48}
    assert accounts["metadata"] == 1 + 10 + (1 + 8) + (1 + 12) + (1 + 4)


def test_unknown_ancillary_chunks_count_as_metadata() -> None:
    data = put_together(SALT, [*CHUNKS[:6], (b"aUDh", bytes(100))], features=0)
    accounts = Reader(io.BytesIO(data)).accounting()
    assert (accounts["metadata"], sum(accounts.values())) == (111, len(data))


def test_a_file_of_one_segment_costs_less_than_350_bytes_and_8_a_frame() -> None:
    full = segment(0, 6, (0, 1, 1, 1, 1, 1), s2=b"b", s3=b"e", s4=b"t")
    data = write(VARIABLE, [full])
    accounts = Reader(io.BytesIO(data)).accounting()
    paid = sum(accounts[name] for name in ("program", "weights", "embeddings", "codebook", "tokens"))
    assert len(data) - paid < 350 + 8 * 6


# ---- damage


def test_every_truncation_of_an_indexed_file_is_refused_and_yields_only_whole_segments() -> None:
    for length in range(len(FILE)):
        seen = []
        with pytest.raises(TruncatedError):
            for each in pipe(FILE[:length], 64).segments():
                seen.append(each)
        assert seen == SEGMENTS[: len(seen)]


def test_a_live_file_cut_after_a_segment_is_whole_and_anywhere_else_truncated() -> None:
    ends = [len(write(replace(HEADER, frame_count=None), SEGMENTS[:count], indexed=False)) for count in (1, 2, 3)]
    for length in range(len(LIVE)):
        if length in ends:
            assert read(LIVE[:length]) == SEGMENTS[: ends.index(length) + 1]
        else:
            assert code(LIVE[:length]).startswith("truncated.")


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(FILE)):
        for bit in range(8):
            damaged = bytearray(FILE)
            damaged[position] ^= 1 << bit
            with pytest.raises(BitstreamError):
                read(bytes(damaged))


@settings(deadline=None, max_examples=500)
@given(st.sampled_from([FILE, OPEN, LIVE]), st.data())
def test_every_changed_byte_is_refused(data: bytes, draw: st.DataObject) -> None:
    position = draw.draw(st.integers(0, len(data) - 1))
    value = draw.draw(st.integers(0, 255).filter(lambda value: value != data[position]))
    with pytest.raises(BitstreamError):
        read(data[:position] + bytes([value]) + data[position + 1 :])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=120), st.integers(0, 120), st.booleans())
def test_arbitrary_bytes_behind_valid_beginnings_are_refused_by_name(junk: bytes, keep: int, indexed: bool) -> None:
    with pytest.raises(BitstreamError):
        read((FILE if indexed else OPEN)[:keep] + junk)


@settings(deadline=None, max_examples=500)
@given(st.integers(0, len(CHUNKS) - 1), st.binary(max_size=80), st.integers(0, 60), st.integers(0, 8))
def test_payloads_with_repaired_checksums_end_in_segments_or_a_named_error(number: int, patch: bytes, at: int, cut: int) -> None:
    name, payload = CHUNKS[number]
    payload = payload[:at] + patch + payload[at + len(patch) + cut :]
    data = put_together(SALT, [*CHUNKS[:number], (name, payload), *CHUNKS[number + 1 :]])
    for first, last in ((0, None), (3, 4)):
        try:
            assert len(list(Reader(io.BytesIO(data)).segments(first, last))) <= 3
        except BitstreamError:
            continue


def test_dropped_doubled_and_swapped_chunks_are_refused() -> None:
    for i in range(len(CHUNKS)):
        dropped = CHUNKS[:i] + CHUNKS[i + 1 :]
        doubled = CHUNKS[: i + 1] + CHUNKS[i:]
        for chunks in (dropped, doubled):
            code(put_together(SALT, chunks))
        for j in range(i):
            swapped = list(CHUNKS)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            if swapped != CHUNKS:
                code(put_together(SALT, swapped))


def test_a_chunk_of_another_file_is_taken_for_damage() -> None:
    other = write(replace(HEADER, orientation=2))
    _, theirs = take_apart(other)
    assert [name for name, _ in theirs] == NAMES
    position = 32
    for mine, foreign in zip(CHUNKS, theirs, strict=True):
        size = 16 + len(mine[1])
        assert len(mine[1]) == len(foreign[1])
        assert code(FILE[:position] + other[position : position + size] + FILE[position + size :]) == "corrupt.header_crc"
        position += size


def test_unknown_ancillary_chunks_are_skipped_wherever_they_may_stand() -> None:
    body = CHUNKS[:6]
    for position in range(2, 7):
        chunks = [*body[:position], (b"aUDh", b"sound"), *body[position:]]
        if position == 2:
            chunks = [each for each in chunks if each[0] != b"mETa"]
        assert read(put_together(SALT, chunks, features=0)) == SEGMENTS


def test_unknown_compatible_features_are_ignored() -> None:
    assert read(put_together(SALT, CHUNKS, features=0xFFFFFFFF)) == SEGMENTS


# ---- what the writer refuses


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (segment(1, 2), "invalid.first_frame"),
        (segment(0, 7), "invalid.frame_count"),
        (segment(0, 0), "invalid.range"),
        (segment(0, 65536), "invalid.range"),
        (segment(0, 2, (0, 1)), "invalid.times"),
        (replace(segment(0, 2), sections={1: b"", 5: bytes(15)}), "invalid.hashes"),
        (segment(0, 2, s6=b"x"), "invalid.sections"),
        (segment(0, 2, s7=b"x"), "unsupported.section"),
        (segment(0, 2, s4=b""), "invalid.sections"),
        (replace(segment(0, 2), digest=b"short"), "invalid.length"),
        (replace(segment(0, 2), program=256), "invalid.range"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_segment_is_not_written(wrong: Segment, expected: str) -> None:
    sink = Sink()
    writer = Writer(cast(BinaryIO, sink), HEADER, MODEL)
    before = sink.data
    with pytest.raises(BitstreamError) as caught:
        writer.add(wrong)
    assert (caught.value.code, sink.data) == (expected, before)


@pytest.mark.parametrize("times", [None, (0,), (0, 0), (1, 1), (0, -1), (0, 1 << 32)])
def test_wrong_time_stamps_are_not_written(times: tuple[int, ...] | None) -> None:
    writer = Writer(cast(BinaryIO, Sink()), VARIABLE, MODEL)
    with pytest.raises(InvalidError):
        writer.add(segment(0, 2, times))


def test_an_incomplete_video_is_not_finished() -> None:
    with pytest.raises(TruncatedError):
        write(HEADER, SEGMENTS[:2])
    with pytest.raises(TruncatedError):
        write(replace(HEADER, frame_count=None), [])


@pytest.mark.parametrize("metadata", [{"k": 1.5}, {"k": None}, {1: "x"}, {"k": True}, {"k": ["x"]}], ids=str)
def test_metadata_of_other_types_is_not_written(metadata: dict[str, str | int]) -> None:
    with pytest.raises(InvalidError):
        write(metadata=metadata)


def test_long_metadata_is_compressed_and_comes_back() -> None:
    metadata: dict[str, str | int] = {"command": "nvc encode " * 300, "seed": -1}
    data = write(metadata=metadata)
    assert len(data) < len(FILE) + 200
    assert Reader(io.BytesIO(data)).metadata == metadata


def test_a_payload_over_the_largest_chunk_is_not_written() -> None:
    with pytest.raises(LimitError):
        pack_chunk(b"SEGM", bytes(1 << 28), SALT)
