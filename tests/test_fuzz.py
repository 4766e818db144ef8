"""The fuzz targets of bench/fuzz in short: no mutated input breaks an invariant, and every invariant can be broken."""

from __future__ import annotations

import importlib
import re
import resource
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from container_files import FILE, chunk, prologue, put_together, take_apart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvc.bitstream.container import Reader
from nvc.bitstream.program import Op, unpack_programs

FUZZ = Path(__file__).resolve().parent.parent / "bench" / "fuzz"
sys.path.insert(0, str(FUZZ))  # scripts, not a package
invariants, mutators, seeds, run = (importlib.import_module(name) for name in ("invariants", "mutators", "seeds", "run"))

MEGABYTE = 1 << 20
HUGE = ((1 << 24) - 1, (1 << 26) - 1, (1 << 28) - 1, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


@pytest.fixture(scope="module", autouse=True)
def at_most_a_gigabyte_more() -> Iterator[None]:
    """An allocation of a size that the input states fails here, before it takes the machine's memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 1024 * MEGABYTE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@cache
def corpus(target: str) -> tuple[bytes, ...]:
    return tuple(seeds.SEEDS[target]())


def mutated(target: str, seed: int, changes: list[int]) -> bytes:
    """A seed of the corpus, changed by the mutator of its target once for each number in `changes`."""
    data = corpus(target)[seed % len(corpus(target))]
    for change in changes:
        random = Random(change)
        data = mutators.MUTATORS[target](data, run.LONGEST[target], random, mutators.havoc(random))
    return data


CHANGES = st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=4)
SETTINGS = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(SETTINGS, max_examples=4000)
@given(st.integers(0, 99), CHANGES)
def test_no_file_breaks_an_invariant_of_the_container(seed: int, changes: list[int]) -> None:
    invariants.container(mutated("container", seed, changes))


@settings(SETTINGS, max_examples=3000)
@given(st.integers(0, 99), CHANGES)
def test_no_document_breaks_an_invariant_of_programs(seed: int, changes: list[int]) -> None:
    invariants.program(mutated("program", seed, changes))


@settings(SETTINGS, max_examples=2500)
@given(st.integers(0, 99), CHANGES)
def test_no_section_breaks_an_invariant_of_the_numbers(seed: int, changes: list[int]) -> None:
    invariants.numbers(mutated("numbers", seed, changes))


@settings(SETTINGS, max_examples=500)
@given(st.sampled_from(sorted(invariants.TARGETS)), st.binary(max_size=200))
def test_no_bytes_at_all_break_an_invariant(target: str, data: bytes) -> None:
    assert invariants.TARGETS[target](data) != invariants.OK or target == "numbers"


# ---- how far the mutators reach

REACHED = {
    "container": """ok not_nvc.magic not_nvc.text_damage truncated.prologue truncated.chunk truncated.end truncated.frames
        corrupt.prologue_crc corrupt.header_crc corrupt.payload_crc
        unsupported.version unsupported.feature unsupported.reserved unsupported.pixel_format unsupported.bit_depth
        unsupported.chunk unsupported.section unsupported.segment_flags unsupported.packing
        limit.side limit.frames limit.segment_frames
        invalid.chunk_type invalid.order invalid.length invalid.range invalid.ratio invalid.packed invalid.document
        invalid.metadata invalid.sections invalid.hashes invalid.times invalid.first_frame
        invalid.frame_count invalid.index invalid.footer invalid.trailing_data""",
    "program": """ok invalid.document invalid.not_canonical invalid.program invalid.shape invalid.picture
        unsupported.operation""",
    "numbers": """ok invalid.range_words invalid.range_end invalid.tensor_range invalid.tensor_histogram invalid.tensor_shift
        invalid.tensor_codebook invalid.tensor_token invalid.tensor_shape invalid.sections invalid.hashes invalid.length""",
}


@pytest.mark.parametrize("target", REACHED)
def test_a_few_thousand_mutations_reach_every_kind_of_refusal(target: str) -> None:
    """Else a check behind the first ones would never be fuzzed."""
    codes = {invariants.TARGETS[target](mutated(target, number, [number])) for number in range(6000)}
    assert set(REACHED[target].split()) - codes == set()


def test_the_seeds_are_inputs_that_the_product_accepts() -> None:
    assert {invariants.container(data) for data in corpus("container")} == {invariants.OK}
    assert {invariants.numbers(data) for data in corpus("numbers")} == {invariants.OK}
    # the target takes a header of either pixel format
    assert {invariants.program(data) for data in corpus("program")} <= {
        invariants.OK,
        "invalid.picture",
    }


def test_the_seeds_have_every_operation_and_are_small() -> None:
    programs = [program for data in corpus("program") for program in unpack_programs(data, invariants.NUMBER_LIMITS)]
    assert {operation.code for program in programs for operation in program.operations} == set(Op)
    for target, longest in run.LONGEST.items():
        assert max(map(len, corpus(target))) <= longest


@given(st.binary(max_size=40), st.binary(max_size=40), st.lists(st.tuples(*[st.integers(0, 255)] * 6), max_size=5))
@settings(SETTINGS, max_examples=50)
def test_the_forms_of_the_numbers_target_are_written_as_they_are_read(model: bytes, payload: bytes, rows: list[Any]) -> None:
    for form in (invariants.SegmentInput(model, payload), invariants.ShapesInput(rows, payload)):
        assert type(form).from_bytes(form.to_bytes()) == form


def test_a_repaired_file_is_whole_again() -> None:
    """What the mutator of the container repairs, an independent writer would have written."""
    salt, chunks = take_apart(FILE)
    loose = [(kind + bytes(12), payload) for kind, payload in chunks]
    torn = [(header, payload[1:] if header[:4] in (b"INDX", b"FOOT") else payload) for header, payload in loose]
    mutators._agree(torn)
    assert b"".join(mutators._seal(FILE[:28] + bytes(4), torn)) == FILE == put_together(salt, chunks)


# ---- lies about lengths cost nothing


def lies(data: bytes) -> Iterator[bytes]:
    """A file with the length of each chunk, and each 32 bits of the start of its payload, huge numbers, under right checksums."""
    salt, chunks = take_apart(data)
    start = prologue(salt)
    for number, (kind, payload) in enumerate(chunks):
        rest = b"".join(chunk(*each, salt) for each in chunks[number + 1 :])
        for huge in HUGE:
            yield start + chunk(kind, payload, salt, huge) + rest
            for place in range(min(len(payload), 64) - 3):
                changed = payload[:place] + struct.pack("<I", huge) + payload[place + 4 :]
                yield start + chunk(kind, changed, salt) + rest
        start += chunk(kind, payload, salt)


def peak(call: Callable[[], object]) -> int:
    """The bytes that Python and NumPy held at once."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_file_that_lies_about_its_lengths_takes_no_memory() -> None:
    def read_all() -> None:
        for data in lies(corpus("container")[0]):
            invariants.container(data)

    assert peak(read_all) < 8 * MEGABYTE


def test_a_frame_that_lies_about_its_content_takes_no_memory() -> None:
    salt, chunks = take_apart(FILE)
    start = prologue(salt) + b"".join(chunk(*each, salt) for each in chunks[:2])

    def read_all() -> None:
        for huge in (*HUGE, 1 << 40, (1 << 63) - 1):
            frame = bytes.fromhex("28b52ffd c0 00") + struct.pack("<Q", huge) + bytes(20)  # a window of 1 KiB, a size in 8 bytes
            assert invariants.container(start + chunk(b"mETa", b"\1" + frame, salt)) == "invalid.packed"

    assert peak(read_all) < MEGABYTE


LONG = {"array": b"\xdd", "map": b"\xdf", "string": b"\xdb", "binary": b"\xc6", "extension": b"\xc9"}


@pytest.mark.parametrize("start", LONG.values(), ids=LONG)
def test_a_document_that_lies_about_its_lengths_takes_no_memory(start: bytes) -> None:
    def read_all() -> None:
        for huge in HUGE:
            for data in (start + struct.pack(">I", huge), b"\x91" * 6 + start + struct.pack(">I", huge) + bytes(50)):
                assert invariants.program(data) == "invalid.document"

    assert peak(read_all) < MEGABYTE


def test_shapes_that_are_over_the_limit_are_refused_before_anything_is_allocated() -> None:
    segment = next(data for data in corpus("numbers") if data[:1] == invariants.SEGMENT_FORM)
    _, payload = invariants.SegmentInput.from_bytes(segment)
    rows = [[int(Op.EMBEDDING), 0, 4096, 16384, 16384, 0, 1], [int(Op.OUTPUT), 0, 0, 0]]
    wide = invariants.SegmentInput(mutators.msgpack.packb([["p", rows]]), payload)
    assert peak(lambda: invariants.numbers(wide.to_bytes())) < MEGABYTE
    assert invariants.numbers(wide.to_bytes()) in ("limit.map", "limit.parameters")
    for kind in range(len(invariants.KINDS)):
        shapes = invariants.ShapesInput([(kind, 0, 65535, 65535, 65535, 65535)], bytes(8))
        assert peak(lambda shapes=shapes: invariants.numbers(shapes.to_bytes())) < MEGABYTE  # type: ignore[misc]


# ---- every invariant can be broken


def accounts_of_one_byte_more(reader: Reader) -> dict[str, int]:
    totals = original_accounting(reader)
    return {**totals, "container": totals["container"] + 1}


original_accounting = Reader.accounting
original_segments = Reader.segments
original_salvage = Reader.salvage


def segments_without_the_last(reader: Reader, first: int = 0, last: int | None = None) -> Iterator[Any]:
    yield from list(original_segments(reader, first, last))[:-1]


def ranges_are_all_frames(reader: Reader, first: int = 0, last: int | None = None) -> Iterator[Any]:
    yield from original_segments(reader)


def first_frame_late(reader: Reader, first: int = 0, last: int | None = None) -> Iterator[Any]:
    for segment in original_segments(reader, first, last):
        yield replace(segment, first_frame=segment.first_frame + 1)


def first_segment_is_lost(reader: Reader, read: Callable[[Any], Any]) -> Iterator[Any]:
    yield from list(original_salvage(reader, read))[1:]


def no_such_key(*arguments: Any) -> Any:
    raise KeyError("planted")


def one_number_off(specs: Any, *arguments: Any) -> Any:
    tensors = read_tensors(specs, *arguments)
    if len(arguments) > 1 and arguments[1] is invariants.RangeDecoder:
        tensors[0].flat[0] ^= 1
    return tensors


read_tensors = invariants.read_tensors
read_sections = invariants.read_sections
BROKEN: dict[str, tuple[str, str, Any]] = {
    "accounts that do not add up": ("container", "Reader.accounting", accounts_of_one_byte_more),
    "a frame too few": ("container", "Reader.segments", segments_without_the_last),
    "a range that is the whole file": ("container", "Reader.segments", ranges_are_all_frames),
    "segments that overlap": ("container", "Reader.segments", first_frame_late),
    "salvage that loses a segment without a word": ("container", "Reader.salvage", first_segment_is_lost),
    "another exception from the container": ("container", "Reader.segments", no_such_key),
    "another document written than read": ("program", "pack_programs", lambda programs: b"other"),
    "more memory than the limit": (
        "program",
        "analyse",
        lambda program, limits: replace(analyse(program, limits), peak_memory=1 << 40),
    ),
    "another exception from programs": ("program", "check_picture", no_such_key),
    "a decoder that is not as defined": ("numbers", "read_tensors", one_number_off),
    "a digest that is not checked": (
        "numbers",
        "read_sections",
        lambda analysis, segment, limits: read_sections(analysis, replace(segment, digest=invariants.AnyDigest()), limits),
    ),
    "a number out of range": (
        "numbers",
        "read_sections",
        lambda *arguments: [np.full_like(tensor, 1 << 40) for tensor in read_sections(*arguments)],
    ),
    "another exception from the numbers": ("numbers", "write_sections", no_such_key),
}
analyse = invariants.analyse


@pytest.mark.parametrize("name", BROKEN)
def test_every_invariant_can_be_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, path, stand_in = BROKEN[name]
    owner, _, attribute = path.rpartition(".")
    monkeypatch.setattr(getattr(invariants, owner) if owner else invariants, attribute, stand_in)
    with pytest.raises((AssertionError, KeyError)):
        for number in range(6000):
            invariants.TARGETS[target](mutated(target, number, [number]))


# ---- the command


def test_the_dictionary_is_one_that_libfuzzer_reads() -> None:
    lines = [line for line in (FUZZ / "dictionary.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r'(\w+=)?"([^"\\]|\\x[0-9a-f]{2})+"', line) for line in lines)
    words = set(mutators.dictionary())
    wanted = {b"HEAD", b"MODL", b"mETa", b"SEGM", b"INDX", b"FOOT", FILE[:8], b"\xff" * 8}
    assert wanted | {struct.pack("<I", 1 << bits) for bits in (28, 31)} | {struct.pack("<Q", 1 << 32)} <= words


def test_the_figures_are_those_that_libfuzzer_prints() -> None:
    printed = """#20000\tDONE   cov: 251 ft: 934 corp: 155/17Kb lim: 600 exec/s: 588 rss: 65Mb
stat::number_of_executed_units: 20000
stat::average_exec_per_sec:     588
stat::slowest_unit_time_sec:    1
stat::peak_rss_mb:              65
"""
    figures: dict[str, int] = {}
    for line in printed.splitlines():
        figures |= run.figures_of(line)
    wanted = {"edges": 251, "features": 934, "corpus": 155, "executions": 20000, "slowest_seconds": 1, "peak_rss_mb": 65}
    assert figures == wanted
