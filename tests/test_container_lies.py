"""Lies with repaired checksums: each is refused with the documented code, cheaply, from files and pipes."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard
from container_files import (
    CHUNKS,
    FILE,
    LIVE,
    OPEN,
    SALT,
    SEGMENTS,
    TIMED,
    VARIABLE,
    chunk,
    code,
    pipe,
    put_together,
    read,
    take_apart,
    write,
)

from nvc.bitstream.constants import Limits
from nvc.bitstream.container import Reader
from nvc.bitstream.errors import BitstreamError


def patched(name: bytes, offset: int, value: bytes, base: bytes = FILE, occurrence: int = 0) -> bytes:
    """The file with bytes of a payload replaced."""
    salt, chunks = take_apart(base)
    number = [i for i, (chunk_type, _) in enumerate(chunks) if chunk_type == name][occurrence]
    payload = chunks[number][1]
    chunks[number] = (name, payload[:offset] + value + payload[offset + len(value) :])
    return put_together(salt, chunks, features=base[16])


def resized(name: bytes, edit: Callable[[bytes], bytes], base: bytes = FILE) -> bytes:
    """The file with a whole payload replaced."""
    salt, chunks = take_apart(base)
    number = [chunk_type for chunk_type, _ in chunks].index(name)
    chunks[number] = (name, edit(chunks[number][1]))
    return put_together(salt, chunks, features=base[16])


def with_metadata(payload: bytes) -> bytes:
    return resized(b"mETa", lambda _: payload)


def with_times(packed: bytes) -> bytes:
    """A file of variable rate whose first segment brings these packed time stamps."""
    head = struct.pack("<QIBBBB8s", 0, 2, 0, 0, 3, 0, bytes(8))
    table = struct.pack("<BIBIBI", 1, 1, 5, 16, 6, len(packed))
    return resized(b"SEGM", lambda _: head + table + b"W" + bytes(16) + packed, write(VARIABLE, TIMED))


def with_sections(*entries: tuple[int, bytes], extra: bytes = b"") -> bytes:
    """The file whose first segment has these sections."""
    head = struct.pack("<QIBBBB8s", 0, 2, 0, 0, len(entries), 0, bytes(8))
    table = b"".join(struct.pack("<BI", kind, len(data)) for kind, data in entries)
    return resized(b"SEGM", lambda _: head + table + b"".join(data for _, data in entries) + extra)


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def zstd(data: bytes) -> bytes:
    return b"\x01" + zstandard.ZstdCompressor().compress(data)


def streamed(data: bytes) -> bytes:
    """A zstd frame that does not state its size."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return b"\x01" + compressor.compress(data) + compressor.flush()


def windowed(exponent: int) -> bytes:
    """A zstd frame of 300 zeros in one raw block that asks for a window of 2^(10 + exponent) bytes."""
    header = bytes.fromhex("28b52ffd40") + bytes([exponent << 3]) + u16(300 - 256)
    return b"\x01" + header + (300 << 3 | 1).to_bytes(3, "little") + bytes(300)


FRONT = bytes.fromhex("0001000000000000")
W, H = (1, b"weights"), (5, bytes(16))
DOCUMENT = b"\x81\xa4tool\xa3nvc"
HUGE = bytes.fromhex("01 28b52ffd e0 0000000000000040 010000".replace(" ", ""))  # states 2^62 bytes
LIES: dict[str, tuple[bytes, str]] = {
    "png": (b"\x89PNG" + FILE[4:], "not_nvc.magic"),
    "empty": (b"", "truncated.prologue"),
    "cr_lf_to_lf": (FILE.replace(b"\r\n", b"\n"), "not_nvc.text_damage"),
    "lf_to_cr_lf": (FILE.replace(b"\n", b"\r\n"), "not_nvc.text_damage"),
    "seven_bits": (bytes(byte & 127 for byte in FILE), "not_nvc.text_damage"),
    "latin_1_to_utf_8": (FILE.decode("latin-1").encode(), "not_nvc.text_damage"),
    "utf_8_replaced": (FILE.decode(errors="replace").encode(), "not_nvc.text_damage"),
    "prologue_cut": (FILE[:31], "truncated.prologue"),
    "prologue_damaged": (FILE[:8] + b"\x09" + FILE[9:], "corrupt.prologue_crc"),
    "major_9": (put_together(SALT, CHUNKS, front=b"\x09" + FRONT[1:]), "unsupported.version"),
    "minor_2": (put_together(SALT, CHUNKS, front=b"\x00\x02" + FRONT[2:]), "unsupported.version"),
    "prologue_reserved": (put_together(SALT, CHUNKS, front=b"\x00\x01\x01" + FRONT[3:]), "unsupported.reserved"),
    "feature": (put_together(SALT, CHUNKS, front=FRONT[:4] + u32(1 << 7)), "unsupported.feature"),
    "no_head": (FILE[:32], "truncated.end"),
    "no_model": (FILE[:100], "truncated.end"),
    "chunk_header_cut": (FILE[:110], "truncated.chunk"),
    "chunk_header_damaged": (FILE[:36] + b"\x35" + FILE[37:], "corrupt.header_crc"),
    "payload_damaged": (FILE[:50] + b"\x09" + FILE[51:], "corrupt.payload_crc"),
    "chunk_type": (put_together(SALT, [*CHUNKS[:3], (b"SE\x00M", b"")]), "invalid.chunk_type"),
    "unknown_critical": (put_together(SALT, [*CHUNKS[:3], (b"WARP", b"")]), "unsupported.chunk"),
    "unknown_critical_first": (put_together(SALT, [(b"WARP", b""), *CHUNKS]), "unsupported.chunk"),
    "ancillary_first": (put_together(SALT, [(b"aUDh", b""), *CHUNKS]), "invalid.order"),
    "late_metadata": (put_together(SALT, [*CHUNKS[:4], CHUNKS[2], *CHUNKS[4:]]), "invalid.order"),
    "ancillary_before_footer": (put_together(SALT, [*CHUNKS[:7], (b"aUDh", b""), CHUNKS[7]]), "invalid.order"),
    "index_without_feature": (put_together(SALT, CHUNKS, features=0), "invalid.order"),
    "chunk_over_the_limit": (FILE[:32] + chunk(b"HEAD", b"", SALT, (64 << 20) + 1), "limit.chunk_bytes"),
    "chunk_over_the_format": (FILE[:32] + chunk(b"HEAD", b"", SALT, 0xFFFFFFFF), "limit.chunk_bytes"),
    "unknown_critical_and_too_long": (FILE[:32] + chunk(b"WARP", b"", SALT, 0xFFFFFFFF), "unsupported.chunk"),
    "chunk_longer_than_the_file": (FILE[:32] + chunk(b"HEAD", b"", SALT, 64 << 20), "truncated.chunk"),
    "head_length": (resized(b"HEAD", lambda head: head + b"\0"), "invalid.length"),
    "width": (patched(b"HEAD", 0, u16(0)), "invalid.range"),
    "height": (patched(b"HEAD", 2, u16(0)), "invalid.range"),
    "pixel_format": (patched(b"HEAD", 4, b"\x02"), "unsupported.pixel_format"),
    "bit_depth": (patched(b"HEAD", 5, b"\x0a"), "unsupported.bit_depth"),
    "full_range": (patched(b"HEAD", 9, b"\x03"), "invalid.range"),
    "chroma_location": (patched(b"HEAD", 10, b"\x07"), "invalid.range"),
    "orientation": (patched(b"HEAD", 11, b"\x00"), "invalid.range"),
    "pixel_aspect": (patched(b"HEAD", 12, u32(2) + u32(4)), "invalid.ratio"),
    "time_base": (patched(b"HEAD", 20, u32(0)), "invalid.range"),
    "frame_rate": (patched(b"HEAD", 28, u32(0)), "invalid.ratio"),
    "frame_count_zero": (patched(b"HEAD", 36, u64(0)), "invalid.range"),
    "frame_count_too_small": (patched(b"HEAD", 36, u64(4)), "invalid.frame_count"),
    "frame_count_too_large": (patched(b"HEAD", 36, u64(7)), "truncated.frames"),
    "frame_count_too_large_live": (patched(b"HEAD", 36, u64(7), OPEN), "truncated.frames"),
    "no_segment": (put_together(SALT, CHUNKS[:3], features=0), "truncated.frames"),
    "a_billion_frames": (patched(b"HEAD", 36, u64(10**9)), "limit.frames"),
    "two_to_the_forty_frames": (patched(b"HEAD", 36, u64(1 << 40)), "invalid.range"),
    "largest_sides": (patched(b"HEAD", 0, u16(65535) * 2), "limit.side"),
    "too_many_pixels": (patched(b"HEAD", 0, u16(16384) * 2), "limit.pixels"),
    "first_pts": (patched(b"HEAD", 44, u64((1 << 62) + 1)), "invalid.range"),
    "empty_model": (resized(b"MODL", lambda _: b""), "invalid.length"),
    "long_model": (resized(b"MODL", lambda _: bytes(65537)), "invalid.length"),
    "empty_metadata": (with_metadata(b""), "invalid.packed"),
    "metadata_method": (with_metadata(b"\x02" + DOCUMENT), "unsupported.packing"),
    "metadata_over_64_kib": (with_metadata(bytes(65538)), "invalid.packed"),
    "metadata_bomb": (with_metadata(zstd(bytes(64 << 20))), "invalid.packed"),
    "metadata_claims_2_to_62": (with_metadata(HUGE), "invalid.packed"),
    "metadata_of_no_stated_size": (with_metadata(streamed(DOCUMENT)), "invalid.packed"),
    "metadata_with_a_window_of_8_mib": (with_metadata(windowed(13)), "invalid.document"),
    "metadata_with_a_window_of_16_mib": (with_metadata(windowed(14)), "invalid.packed"),
    "metadata_with_a_dictionary": (with_metadata(b"\x01" + bytes.fromhex("28b52ffd 21 07 00 0100 00")), "invalid.packed"),
    "metadata_cut": (with_metadata(zstd(DOCUMENT)[:-1]), "invalid.packed"),
    "metadata_and_more": (with_metadata(zstd(DOCUMENT) + b"x"), "invalid.packed"),
    "metadata_twice": (with_metadata(zstd(DOCUMENT) * 2), "invalid.packed"),
    "metadata_no_frame": (with_metadata(b"\x01nonsense"), "invalid.packed"),
    "metadata_skippable": (with_metadata(b"\x01\x50\x2a\x4d\x18" + u32(4) + b"abcd"), "invalid.packed"),
    "metadata_not_msgpack": (with_metadata(b"\x00\xc1"), "invalid.document"),
    "metadata_not_canonical": (with_metadata(b"\x00\x81\xa4tool\xcc\x01"), "invalid.not_canonical"),
    "metadata_no_map": (with_metadata(b"\x00\x91\x01"), "invalid.metadata"),
    "metadata_empty_map": (with_metadata(b"\x00\x80"), "invalid.metadata"),
    "metadata_nested": (with_metadata(b"\x00\x81\xa1a\x90"), "invalid.metadata"),
    "segment_too_short": (resized(b"SEGM", lambda _: bytes(23)), "invalid.length"),
    "first_frame": (patched(b"SEGM", 0, u64(1)), "invalid.first_frame"),
    "first_frame_huge": (patched(b"SEGM", 0, u64(1 << 63)), "invalid.range"),
    "gap": (patched(b"SEGM", 0, u64(3), occurrence=1), "invalid.first_frame"),
    "no_frames": (patched(b"SEGM", 8, u32(0)), "invalid.range"),
    "65536_frames": (patched(b"SEGM", 8, u32(65536)), "invalid.range"),
    "4097_frames": (patched(b"SEGM", 8, u32(4097)), "limit.segment_frames"),
    "delta_segment": (patched(b"SEGM", 13, b"\x01"), "unsupported.segment_flags"),
    "segment_reserved": (patched(b"SEGM", 15, b"\x01"), "unsupported.reserved"),
    "table_cut": (patched(b"SEGM", 14, b"\xff"), "invalid.length"),
    "fewer_sections": (patched(b"SEGM", 14, b"\x02"), "invalid.sections"),
    "section_length": (patched(b"SEGM", 25, u32(6)), "invalid.length"),
    "section_length_huge": (patched(b"SEGM", 25, u32(0xFFFFFFFF)), "invalid.length"),
    "section_kind_0": (with_sections((0, b"x"), W, H), "unsupported.section"),
    "section_kind_7": (with_sections(W, H, (7, b"x")), "unsupported.section"),
    "sections_swapped": (with_sections(H, W), "invalid.sections"),
    "section_twice": (with_sections(W, W, H), "invalid.sections"),
    "no_weights": (with_sections(H), "invalid.sections"),
    "no_hashes": (with_sections(W), "invalid.sections"),
    "empty_section": (with_sections(W, (2, b""), H), "invalid.sections"),
    "bytes_behind_sections": (with_sections(W, H, extra=b"x"), "invalid.length"),
    "hashes": (with_sections(W, (5, bytes(15))), "invalid.hashes"),
    "times_at_a_constant_rate": (with_sections(W, H, (6, bytes(9))), "invalid.times"),
    "no_times_at_a_variable_rate": (patched(b"HEAD", 28, u32(0) * 2), "invalid.times"),
    "times_of_one_frame": (with_times(b"\0" + u32(0)), "invalid.packed"),
    "times_of_three_frames": (with_times(zstd(bytes(12))), "invalid.packed"),
    "times_method": (with_times(b"\x09" + u32(0) + u32(1)), "unsupported.packing"),
    "times_begin_late": (with_times(b"\0" + u32(1) + u32(1)), "invalid.times"),
    "times_stand_still": (with_times(b"\0" + u32(0) + u32(0)), "invalid.times"),
    "no_index": (put_together(SALT, CHUNKS[:6]), "truncated.end"),
    "no_footer": (put_together(SALT, CHUNKS[:7]), "truncated.end"),
    "segment_missing": (put_together(SALT, [*CHUNKS[:5], *CHUNKS[6:]]), "truncated.frames"),
    "index_offset": (patched(b"INDX", 0, u64(0)), "invalid.index"),
    "index_first_frame": (patched(b"INDX", 28, u64(1)), "invalid.index"),
    "index_frames": (patched(b"INDX", 36, u32(2)), "invalid.index"),
    "index_short": (resized(b"INDX", lambda index: index[:40]), "invalid.index"),
    "footer_offset": (patched(b"FOOT", 0, u64(32)), "invalid.footer"),
    "footer_frames": (patched(b"FOOT", 8, u64(7)), "invalid.footer"),
    "footer_segments": (patched(b"FOOT", 16, u32(4)), "invalid.footer"),
    "footer_long": (resized(b"FOOT", lambda footer: footer + b"\0"), "invalid.footer"),
    "trailing_byte": (FILE + b"\0", "invalid.trailing_data"),
    "trailing_file": (FILE + FILE, "invalid.trailing_data"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_with_its_code_from_a_file_and_from_a_pipe(name: str) -> None:
    data, expected = LIES[name]
    assert code(data) == expected
    with pytest.raises(BitstreamError) as caught:
        list(pipe(data, 1000).segments())
    assert caught.value.code == expected


def index(*entries: tuple[int, int]) -> bytes:
    """The file with these (first frame, frames) in its index, the offsets being right."""
    offsets = [FILE.index(b"SEGM"), FILE.index(b"SEGM", 200), FILE.rindex(b"SEGM")]
    payload = b"".join(struct.pack("<QQI", o, *entry) for o, entry in zip(offsets, entries, strict=True))
    return resized(b"INDX", lambda _: payload)


INDEX_LIES = {
    "footer_offset": (LIES["footer_offset"][0], "invalid.footer"),
    "footer_frames": (LIES["footer_frames"][0], "invalid.footer"),
    "footer_segments": (LIES["footer_segments"][0], "invalid.footer"),
    "short": (FILE[: -36 - 76] + chunk(b"INDX", CHUNKS[6][1][:-1], SALT) + b"x" + FILE[-36:], "invalid.footer"),
    "first_frame": (index((0, 2), (1, 3), (5, 1)), "invalid.index"),
    "no_frames": (index((0, 0), (0, 5), (5, 1)), "invalid.index"),
    "other_frames": (index((0, 3), (3, 2), (5, 1)), "invalid.index"),
    "too_many_frames": (index((0, 2), (2, 3), (5, 2)), "invalid.frame_count"),
    "order": (patched(b"INDX", 0, CHUNKS[6][1][20:28]), "invalid.index"),
    "offset": (patched(b"INDX", 0, u64(0)), "corrupt.header_crc"),
}


@pytest.mark.parametrize("name", INDEX_LIES)
def test_a_range_does_not_follow_a_lying_index(name: str) -> None:
    data, expected = INDEX_LIES[name]
    with pytest.raises(BitstreamError) as caught:
        list(Reader(io.BytesIO(data)).segments(0, 1))
    assert caught.value.code == expected


def test_every_lie_costs_little_memory() -> None:
    tracemalloc.start()
    try:
        for data, expected in LIES.values():
            assert code(data) == expected
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


LIMITED = [
    (Limits(max_side=5), "limit.side"),
    (Limits(max_pixels=23), "limit.pixels"),
    (Limits(max_frames=5), "limit.frames"),
    (Limits(max_segments=2), "limit.segments"),
    (Limits(max_segment_frames=2), "limit.segment_frames"),
    (Limits(max_chunk_bytes=51), "limit.chunk_bytes"),
]


@pytest.mark.parametrize(("limits", "expected"), LIMITED)
def test_each_limit_of_the_reader_is_kept(limits: Limits, expected: str) -> None:
    assert code(FILE, limits) == expected


def test_a_live_file_is_refused_when_it_passes_the_limit_of_frames() -> None:
    assert code(LIVE, Limits(max_frames=5)) == "limit.frames"


def test_values_on_the_limits_are_accepted() -> None:
    longest = max(len(payload) for _, payload in CHUNKS)
    limits = Limits(max_side=6, max_pixels=24, max_frames=6, max_segments=3, max_segment_frames=3)
    assert read(FILE, replace(limits, max_chunk_bytes=longest)) == SEGMENTS
