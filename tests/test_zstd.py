"""The reference's own zstd decoder: it gives what libzstd gives, and refuses what RFC 8878 forbids."""

from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.conformance.xxh64 import xxh64
from nvc.conformance.zstd import decompress, frame_header
from nvc.conformance.zstd_entropy import ZstdError

HIGHEST = 300_000
MAX_WINDOW = 8 << 20

# What libzstd lets pass, though the RFC calls it faulty: its fast decoder of four Huffman streams (which not every machine
# uses) does not look at their ends, it allows codes of 12 bits, and without streaming it does not limit blocks and offsets.
LAXER = {
    "the literals do not use up their bits",
    "a bitstream has no end mark",
    "a Huffman code is over 11 bits",
    "an FSE table has too many symbols",
    "an FSE table is cut",
    "a block is over the maximum size",
    "an offset is beyond the window",
}

EDIT = st.tuples(st.sampled_from(["flip", "set", "drop", "add", "cut"]), st.floats(0, 1), st.integers(0, 255))
EDITS = st.lists(EDIT, max_size=3)


def sample(seed: int, size: int) -> bytes:
    """`size` bytes of one of several kinds, from noise to nothing but zeros."""
    generator = random.Random(seed)
    match seed % 6:
        case 0:
            return generator.randbytes(size)
        case 1:
            return bytes(generator.choices(b"etaoin   ", k=size))
        case 2:
            words = [generator.randbytes(generator.randint(2, 12)) for _ in range(generator.choice((3, 20, 300)))]
            return b"".join(generator.choices(words, k=size // 2 + 1))[:size]
        case 3:
            return bytes(min(255, int(abs(generator.gauss(0, 20)))) for _ in range(size))
        case 4:  # what repeats at few distances
            data = bytearray(generator.randbytes(40))
            while len(data) < size:
                start = len(data) - generator.choice((7, 8, 23, 40))
                data += data[start : start + generator.randint(4, 7)] + generator.randbytes(generator.randint(0, 2))
            return bytes(data[:size])
        case _:
            return bytes(size)


def compressed(data: bytes, level: int, checksum: bool = False, cut: int | None = None, window_log: int | None = None) -> bytes:
    """A frame of libzstd with `data`; every `cut` bytes a block ends, so that later ones reuse tables of earlier ones."""
    limits = {} if window_log is None else {"window_log": window_log}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(data), write_checksum=checksum, write_content_size=True, **limits
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    if cut is None:
        return compressor.compress(data)
    writer = compressor.compressobj(size=len(data))
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    return b"".join(writer.compress(p) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for p in pieces) + writer.flush()


def of_the_library(frame: bytes) -> bytes | None:
    """What libzstd makes of a frame that the format allows (SPEC 3.6, from one byte on), None if it or we refuse."""
    try:
        header = zstandard.get_frame_parameters(frame)
        if not 1 <= header.content_size <= HIGHEST or header.window_size > MAX_WINDOW:
            return None
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=HIGHEST, allow_extra_data=False)
    except zstandard.ZstdError:
        return None


def agree(frame: bytes) -> None:
    """Ours and the library's content of `frame` are the same, or both refuse it, but for what LAXER names."""
    expected = of_the_library(frame)
    try:
        ours = decompress(frame, HIGHEST) or None
    except ZstdError as error:
        assert expected is None or str(error) in LAXER, error
        return
    assert ours == expected


def edited(frame: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    data = bytearray(frame)
    for kind, where, byte in edits:
        at = int(where * (len(data) - 1)) if data else 0
        if kind == "flip" and data:
            data[at] ^= 1 << byte % 8
        elif kind == "set" and data:
            data[at] = byte
        elif kind == "drop":
            del data[at : at + 1 + byte % 4]
        elif kind == "add":
            data[at:at] = [byte] * (1 + byte % 3)
        elif kind == "cut":
            del data[at:]
    return bytes(data)


# ---- agreement with libzstd


@pytest.mark.parametrize("level", range(1, 20))
def test_frames_of_every_level_decode(level: int) -> None:
    for kind in range(6):
        for size in (0, 1, 40, 400, 6000):
            data = sample(6 * level + kind, size)
            for checksum in (False, True):
                assert decompress(compressed(data, level, checksum), HIGHEST) == data


@pytest.mark.parametrize(("level", "kind", "window_log"), [(1, 2, None), (19, 2, None), (3, 1, None), (9, 2, 10), (12, 3, 17)])
def test_frames_of_many_blocks_decode(level: int, kind: int, window_log: int | None) -> None:
    data = sample(kind, 300_000)
    assert decompress(compressed(data, level, True, window_log=window_log), HIGHEST) == data


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 1 << 20), st.integers(0, 9000), st.integers(1, 19), st.booleans(), st.integers(50, 4000))
def test_tables_and_offsets_of_earlier_blocks_are_used(seed: int, size: int, level: int, checksum: bool, cut: int) -> None:
    data = sample(seed, size)
    assert decompress(compressed(data, level, checksum, cut), HIGHEST) == data


@settings(deadline=None, max_examples=1000)
@given(st.integers(0, 1 << 20), st.integers(1, 900), st.integers(1, 19), st.booleans(), st.none() | st.integers(20, 400), EDITS)
def test_damaged_frames_are_refused_or_decoded_as_by_the_library(
    seed: int, size: int, level: int, checksum: bool, cut: int | None, edits: list[tuple[str, float, int]]
) -> None:
    agree(edited(compressed(sample(seed, size), level, checksum, cut), edits))


@settings(deadline=None, max_examples=250)
@given(st.integers(0, 1 << 20), st.integers(1025, 6000), st.integers(1, 19), EDITS)
def test_damaged_frames_with_a_small_window(seed: int, size: int, level: int, edits: list[tuple[str, float, int]]) -> None:
    agree(edited(compressed(sample(seed, size), level, window_log=10), edits))


@settings(deadline=None, max_examples=500)
@given(st.binary(min_size=1, max_size=16))
def test_headers_are_read_as_by_the_library(rest: bytes) -> None:
    data = zstandard.FRAME_HEADER + rest
    try:
        header = frame_header(data)
        size = zstandard.CONTENTSIZE_UNKNOWN if header.content_size is None else header.content_size
        ours: tuple[int, int, int, bool] | None = (size, header.window_size, header.dictionary, header.checksum)
        if not rest[0] & 0x20 and header.window_size >= 1 << 32:  # what libzstd has no room for
            ours = None
    except ZstdError:
        ours = None
    try:
        theirs = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError:
        assert ours is None
        return
    assert ours == (theirs.content_size, theirs.window_size, theirs.dict_id, theirs.has_checksum)
    assert header.size == zstandard.frame_header_size(data)


@pytest.mark.parametrize(("data", "expected"), [(b"", 0xEF46DB3751D8E999), (b"abc", 0x44BC2CF5AD770999)])
def test_xxh64_of_published_examples(data: bytes, expected: int) -> None:
    assert xxh64(data) == expected


@given(st.binary(max_size=200))
def test_xxh64_is_the_checksum_of_the_library(data: bytes) -> None:
    assert compressed(data, 1, checksum=True)[-4:] == (xxh64(data) & 0xFFFFFFFF).to_bytes(4, "little")


# ---- frames made by hand


def frame(size: int, *blocks: bytes, window: int | None = 0, flags: int = 0, extra: bytes = b"") -> bytes:
    """A frame that states `size` bytes of content; `window` is the window's byte (0 is 1 KiB), None for a single segment."""
    descriptor = 0x80 | flags | (0x20 if window is None else 0)
    start = bytes([descriptor]) + (b"" if window is None else bytes([window])) + extra
    return zstandard.FRAME_HEADER + start + struct.pack("<I", size) + b"".join(blocks)


def block(kind: int, content: bytes, size: int | None = None, last: bool = True) -> bytes:
    return (last + 2 * kind + 8 * (len(content) if size is None else size)).to_bytes(3, "little") + content


def raw(literals: bytes) -> bytes:
    """A section of at most 31 raw literals."""
    return bytes([len(literals) << 3]) + literals


def sequence(lengths: int, offset: int, match: int, bits: bytes, modes: int = 0x54, count: int = 1) -> bytes:
    """A section of sequences that all have these three codes."""
    return bytes([count, modes, lengths, offset, match]) + bits


def direct(weights: list[int]) -> bytes:
    """A Huffman code of which all weights but the last are written as they are."""
    padded = weights + [0] * (len(weights) % 2)
    return bytes([127 + len(weights)]) + bytes(16 * a + b for a, b in zip(padded[::2], padded[1::2], strict=True))


def huffman(code: bytes, streams: bytes, size: int, size_format: int = 0, kind: int = 2) -> bytes:
    """A section of literals, `kind` 2 with a code of its own; `size_format` 0 is one stream, 1 is four."""
    stored = code + streams
    return (kind + 4 * size_format + (size << 4) + (len(stored) << 14)).to_bytes(3, "little") + stored


ABBBB = raw(b"ab") + sequence(2, 0, 0, b"\x01")
DEEP = list(range(1, 12))  # and an implied 1: the longest code has 11 bits
FOUR = struct.pack("<3H", 11, 11, 11) + (b"\xf0" + bytes(9) + b"\x01") * 4  # streams of 80 bits
LETTERS = block(0, b"abcdefgh", last=False)
WEIGHTS = b"\x10\x3f"  # an FSE table with 5 bits: as much 0 as 1
STORED = bytes(range(256)) * 4


def long_table(steps: int) -> bytes:
    """A block whose literals lengths have a table with the symbols 0 and 35 + `steps`; it uses the first."""
    table = 62 << 4 | 1 << 10 | ((1 << 22) - 1) << 12 | steps << 34  # probability 31, then 0, 33 + `steps` times 0, then -1
    return block(2, b"\0\x01\x94" + table.to_bytes(5, "little") + b"\0\0\x20")


FAR = (raw(b"!") + sequence(1, 10, 0, struct.pack("<H", 1 << 10 | distance + 3 - 1024)) for distance in (1024, 1025))
AT_THE_WINDOW, BEYOND = (frame(1028, block(0, STORED, last=False), block(2, content)) for content in FAR)

GOOD = {
    "raw": (frame(3, block(0, b"abc")), b"abc"),
    "rle_and_empty": (frame(5, block(1, b"x", 5, False), block(0, b"")), b"xxxxx"),
    "match": (frame(5, block(2, ABBBB)), b"abbbb"),
    "dictionary_0": (frame(3, block(0, b"abc"), flags=1, extra=b"\0"), b"abc"),
    "unused_bit": (frame(3, block(0, b"abc"), flags=16), b"abc"),
    "single_segment": (frame(3, block(0, b"abc"), window=None), b"abc"),
    "window": (frame(3, block(0, b"abc"), window=13 << 3), b"abc"),
    "code_of_11_bits": (frame(1, block(2, huffman(direct(DEEP), b"\x03", 1) + b"\0")), b"\x0a"),
    "four_streams": (frame(320, block(2, huffman(direct([1]), FOUR, 320, 1) + b"\0")), (bytes(72) + b"\1\1\1\1" + bytes(4)) * 4),
    "second_repeat": (
        frame(10, block(2, raw(b"abcd") + sequence(4, 0, 0, b"\x01"), last=False), block(2, b"\0" + sequence(0, 0, 0, b"\x01"))),
        b"abcddddddd",
    ),
    "long_raw_literals": (frame(40, block(2, b"\x84\x02" + bytes(range(40)) + b"\0")), bytes(range(40))),
    "long_literals": (frame(4096, block(2, b"\x0d\x00\x01x\0"), window=16), b"x" * 4096),
    "many_sequences": (
        frame(97544, block(1, b"x", 8, False), block(2, b"\0\xff\0\0\x54\0\0\0\x01"), window=None),
        b"x" * 97544,
    ),
    "distance_of_the_window": (AT_THE_WINDOW, STORED + b"!" + STORED[1:4]),
    "other_repeats": (frame(14, LETTERS, block(2, b"\0" + sequence(0, 1, 0, b"\x05", count=2))), b"abcdefghabcefg"),
    "repeats_change_places": (
        frame(
            14, LETTERS, block(2, b"\0" + sequence(0, 0, 0, b"\x01"), last=False), block(2, b"\0" + sequence(0, 1, 0, b"\x02"))
        ),
        b"abcdefghefgdef",
    ),
    "weights_by_fse": (frame(1, block(2, huffman(b"\x04" + WEIGHTS + b"\x67\x04", b"\x03", 1) + b"\0")), b"\x02"),
    "longest_table": (frame(11, LETTERS, long_table(0)), b"abcdefghefg"),
    "tables_repeated": (
        frame(10, block(2, ABBBB, last=False), block(2, raw(b"cd") + bytes([1, 0xFC]) + b"\x01")),
        b"abbbbcdddd",
    ),
}

BAD = {
    "empty": b"",
    "magic_alone": zstandard.FRAME_HEADER,
    "skippable": b"\x50\x2a\x4d\x18\x03\0\0\0abc",
    "reserved_header_bit": frame(3, block(0, b"abc"), flags=8),
    "dictionary": frame(3, block(0, b"abc"), flags=1, extra=b"\7"),
    "reserved_block": frame(3, block(3, b"abc")),
    "no_last_block": frame(3, block(0, b"abc", last=False)),
    "block_cut": frame(3, block(0, b"abc")[:-1]),
    "too_long": frame(3, block(0, b"abcd")),
    "too_short": frame(3, block(0, b"ab")),
    "bytes_behind": frame(3, block(0, b"abc")) + b"\0",
    "two_frames": frame(3, block(0, b"abc")) * 2,
    "checksum": frame(3, block(0, b"abc"), flags=4) + b"\0\0\0\0",
    "checksum_cut": frame(3, block(0, b"abc"), flags=4) + (xxh64(b"abc") & 0xFFFFFF).to_bytes(3, "little"),
    "empty_block": frame(3, block(2, b"")),
    "no_sequences_section": frame(3, block(2, raw(b"abc"))),
    "bytes_behind_no_sequences": frame(3, block(2, raw(b"abc") + b"\0\0")),
    "reserved_mode_bit": frame(5, block(2, raw(b"ab") + sequence(2, 0, 0, b"\x01", 0x55))),
    "unknown_length_code": frame(5, block(2, raw(b"ab") + sequence(36, 0, 0, b"\x01"))),
    "no_end_mark": frame(5, block(2, raw(b"ab") + sequence(2, 0, 0, b"\0"))),
    "no_bits": frame(5, block(2, raw(b"ab") + sequence(2, 0, 0, b""))),
    "bits_left": frame(5, block(2, raw(b"ab") + sequence(2, 0, 0, b"\x02"))),
    "bits_missing": frame(5, block(2, raw(b"ab") + sequence(2, 1, 0, b"\x01"))),
    "too_many_literals": frame(8, block(2, raw(b"ab") + sequence(3, 0, 0, b"\x01"), last=False), block(0, b"xyz")),
    "before_the_content": frame(5, block(2, raw(b"ab") + sequence(2, 1, 0, b"\x02"))),
    "offset_0": frame(11, LETTERS, block(2, b"\0" + sequence(0, 1, 0, b"\x03"))),
    "stream_without_end_mark": frame(7, block(2, huffman(direct([1]), b"\0\0", 7) + b"\0")),
    "weights_with_half_a_state": frame(1, block(2, huffman(b"\x03" + WEIGHTS + b"\x23", b"\x03", 1) + b"\0")),
    "weights_of_7_bits": frame(1, block(2, huffman(b"\x05\x12\xfc\x03\x84\x40", b"\x03", 1) + b"\0")),
    "weights_without_end": frame(1, block(2, huffman(b"\x05\x10\xf8\x01\x00\x04", b"\x00\x02", 1) + b"\0")),
    "code_without_weight_1": frame(1, block(2, huffman(direct([2]), b"\x03", 1) + b"\0")),
    "too_long_table": frame(11, LETTERS, long_table(1)),
    "tables_of_no_earlier_block": frame(5, block(2, raw(b"ab") + b"\x01\xfc\x01")),
    "code_of_no_earlier_block": frame(3, block(2, huffman(b"", b"\x03\x03", 3, kind=3) + b"\0")),
    "stream_with_bits_left": frame(1, block(2, huffman(direct(DEEP), b"\x07", 1) + b"\0")),
    "stream_with_bits_missing": frame(2, block(2, huffman(direct(DEEP), b"\x03", 2) + b"\0")),
    "incomplete_code": frame(1, block(2, huffman(direct([3, 1]), b"\x03", 1) + b"\0")),
    "code_without_symbols": frame(1, block(2, huffman(direct([0, 0]), b"\x03", 1) + b"\0")),
    "four_streams_of_5": frame(5, block(2, huffman(direct([1]), struct.pack("<3H", 1, 1, 1) + b"\4\4\2\1", 5, 1) + b"\0")),
    "jump_table": frame(320, block(2, huffman(direct([1]), b"\xff" + FOUR[1:], 320, 1) + b"\0")),
}

FORBIDDEN = {
    "raw_block": (frame(1025, block(0, bytes(1025))), "a block is over the maximum size"),
    "rle_block": (frame(131073, block(1, b"x", 131073), window=None), "a block is over the maximum size"),
    "content_of_a_block": (
        frame(1028, block(2, raw(b"a") + sequence(1, 0, 46, b"\0\x04"))),
        "a block is over the maximum size",
    ),
    "distance": (BEYOND, "an offset is beyond the window"),
    "code_of_12_bits": (frame(1, block(2, huffman(direct([*DEEP, 12]), b"\x03", 1) + b"\0")), "a Huffman code is over 11 bits"),
    "streams": (frame(280, block(2, huffman(direct([1]), FOUR, 280, 1) + b"\0")), "the literals do not use up their bits"),
}


@pytest.mark.parametrize("name", GOOD)
def test_frames_made_by_hand_decode(name: str) -> None:
    data, content = GOOD[name]
    assert decompress(data, len(content)) == content == of_the_library(data)


@pytest.mark.parametrize("name", BAD)
def test_broken_frames_made_by_hand_are_refused(name: str) -> None:
    assert of_the_library(BAD[name]) is None
    with pytest.raises(ZstdError):
        decompress(BAD[name], HIGHEST)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_the_rfc_forbids_is_refused_though_libzstd_may_let_it_pass(name: str) -> None:
    data, reason = FORBIDDEN[name]
    with pytest.raises(ZstdError, match=reason):
        decompress(data, HIGHEST)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zstandard.FRAME_HEADER + b"\0\0" + block(0, b"abc"), "does not state its content size"),
        (frame(3, block(0, b"abc"), window=13 << 3 | 1), "the window is over 8 MiB"),
        (frame(4, block(0, b"abcd")), "the content has 4 bytes, over 3"),
    ],
)
def test_frames_that_the_format_does_not_take_are_refused_first(data: bytes, reason: str) -> None:
    with pytest.raises(ZstdError, match=reason):
        decompress(data, 3)


def test_a_hostile_frame_costs_little_memory() -> None:
    """Blocks that together, or each, have far more content than the frame states."""
    tracemalloc.start()
    try:
        for size in (1 << 17, (1 << 21) - 1):
            with pytest.raises(ZstdError):
                decompress(frame(HIGHEST, block(1, b"x", size, False) * 500, window=None), HIGHEST)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
