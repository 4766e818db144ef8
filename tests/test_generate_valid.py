"""The valid conformance vectors: the product decodes each, they name the rules that they test, and mistakes do not pass them."""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import itertools
import struct
from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

from nvc.bitstream import packing
from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import BitstreamError, LimitError
from nvc.codec.decode import Decoder
from nvc.conformance import ref_coder, ref_numbers, ref_operations, reference
from nvc.conformance.catalogue.file import File, SegmentParts
from nvc.conformance.catalogue.valid import valid, zstd_frame
from nvc.conformance.catalogue.valid_functions import rounding_cases
from nvc.conformance.coverage import SPEC, Rule, rules
from nvc.conformance.ref_errors import Refused
from nvc.conformance.suite import OK, Vector

VECTORS = {vector.name: vector for vector in valid()}
RULES = {rule.name: rule for rule in rules(SPEC.read_text(encoding="utf-8"))}
SHORT, LONG = 24, 4096  # frames of an ordinary vector, and of the one at that limit
# Rules of packed bytes, segments, numbers and programs that only a file that breaks them can test, and those of writers.
OF_OTHERS = {"S2", "R2", "T1", "W2", "P10", "segment.flags", "segment.reserved"}


def decoded(data: bytes, limits: Mapping[str, int]) -> int:
    """The number of frames of a file, each of which agrees with its hash, by the product."""
    return sum(len(batch.pts) for batch in Decoder(io.BytesIO(data), limits=Limits(**limits)).frames())


@pytest.mark.parametrize("name", VECTORS)
def test_the_product_decodes_every_vector(name: str) -> None:
    vector = VECTORS[name]
    segments = [SegmentParts.parse(chunk.payload) for chunk in File.parse(vector.data).chunks if chunk.type == b"SEGM"]
    frames = decoded(vector.data, vector.limits)
    assert frames == sum(segment.frames for segment in segments) <= (LONG if "max_segment_frames" in vector.clauses else SHORT)


def test_they_are_the_same_at_every_call_and_small() -> None:
    again = list(valid())
    assert len(again) == len(VECTORS)
    for vector in again:
        assert vector == VECTORS[vector.name], vector.name
        assert vector.group in ("valid", "limits") and vector.expect == OK and vector.frames == ()
    assert sum(len(vector.data) for vector in again) < 900_000


def test_every_file_is_another() -> None:
    digests = [hashlib.sha256(vector.data).digest() for vector in VECTORS.values()]
    assert len(set(digests)) == len(digests)


def test_clauses_are_rules_and_those_of_numbers_and_programs_are_all_named() -> None:
    named = {clause for vector in VECTORS.values() for clause in vector.clauses}
    assert named <= RULES.keys()

    def wanted(rule: Rule) -> bool:
        chapter = rule.section.split(".")[0]
        return rule.section in ("3.6", "4.1", "4.2", "4.3") or chapter in ("5", "6", "7", "8") or rule.name.startswith("max_")

    assert {name for name, rule in RULES.items() if wanted(rule)} - named == OF_OTHERS


def test_the_random_networks_together_have_every_operation() -> None:
    found = {clause for name, vector in VECTORS.items() if "/random-" in name for clause in vector.clauses}
    assert {name for name in RULES if name.startswith("operation.")} <= found


@pytest.mark.parametrize("name", [name for name, vector in VECTORS.items() if vector.limits])
def test_given_limits_are_the_lowest_that_do(name: str) -> None:
    vector = VECTORS[name]
    for limit, value in vector.limits.items():
        with pytest.raises(LimitError):
            decoded(vector.data, {**vector.limits, limit: value - 1})


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("segment-frames", "max_segment_frames"),
        ("side-wide", "max_side"),
        ("side-high", "max_side"),
        ("operations", "max_operations"),
        ("tensors", "max_tensors"),
    ],
)
def test_default_limits_are_reached(name: str, limit: str) -> None:
    with pytest.raises(LimitError):
        decoded(VECTORS[f"limits/{name}"].data, {limit: getattr(Limits(), limit) - 1})


# ---- what the catalogue claims of its files


def carries(symbols: list[tuple[int, int]]) -> int:
    """The most words that one carry changes where these (symbol, bits) of flat tables are coded: the encoder of SPEC 5.2."""
    low, span, words, longest = 0, (1 << 64) - 1, list[int](), 0

    def advance(by: int) -> None:
        nonlocal low, longest
        low += by
        if low >> 64:
            low -= 1 << 64
            run = next(i for i in range(len(words)) if words[-1 - i] != (1 << 32) - 1)
            longest = max(longest, run + 1)
            words[len(words) - 1 - run :] = [words[-1 - run] + 1, *[0] * run]

    for symbol, bits in symbols:
        frequency = 1 << 24 - bits
        advance((span >> 24) * frequency * symbol)
        span = (span >> 24) * frequency
        if span < 1 << 32:
            words.append(low >> 32)
            low, span = (low << 32) % (1 << 64), span << 32
    advance((1 << 32) - 1)
    return longest


def test_a_carry_runs_through_the_stream() -> None:
    stream = SegmentParts.parse(File.parse(VECTORS["valid/stream-carry"].data).payload(b"SEGM")).sections[0][1]
    reader = ref_coder.Stream(stream)
    widths = [*[8] * 24, *[8, 8, 5, 5] * 3, 8, 8]  # 6 phases, 3 pairs of gains, a multiplier
    assert carries([(reader.bits(width), width) for width in widths]) == len(stream) // 4 - 1 == 8


def test_streams_end_both_ways() -> None:
    for name, zero in (("with-zero", True), ("without-zero", False)):
        sections = dict(SegmentParts.parse(File.parse(VECTORS[f"valid/stream-{name}"].data).payload(b"SEGM")).sections)
        assert sections[3].endswith(bytes(4)) == zero


def test_counts_are_halved_in_the_long_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    halved = []
    original = ref_coder.table_from_counts

    def watch(counts: ref_coder.Integers) -> list[int]:
        halved.append(int(counts.sum()))
        return original(counts)

    monkeypatch.setattr(ref_coder, "table_from_counts", watch)
    list(reference.decode(VECTORS["valid/adaptive-halving"].data))
    assert any(before > 1 << 19 and after < 0.6 * before for before, after in itertools.pairwise(halved))


def test_rounding_cases_tell_two_roundings_from_one_and_from_doubles() -> None:
    sums, codes = rounding_cases()
    assert len(sums) == 32 and {np.sign(acc) for acc in sums} == {-1, 1}
    for acc, code in zip(sums, codes, strict=True):
        multiplier = np.ldexp(np.float32(1024 + code % 1024), code // 1024 - 40)
        assert np.rint(np.float32(acc) * multiplier) != np.rint(np.float64(acc) * np.float64(multiplier))


def test_a_frame_of_plain_blocks_is_one_of_zstd() -> None:
    frame = zstd_frame([b"abc", (0x61, 1000), b""], checksum=True)
    assert packing.unpack(b"\1" + frame, "frame", 1003, 1003) == b"abc" + b"a" * 1000
    damaged = frame[:-1] + bytes([frame[-1] ^ 1])
    with pytest.raises(BitstreamError):
        packing.unpack(b"\1" + damaged, "frame", 1003, 1003)
    assert struct.unpack_from("<I", frame, 5) == (1003,)


def test_times_and_metadata_are_packed_as_their_names_say() -> None:
    for name, method in (("stored", 0), ("zstd", 1), ("blocks", 1)):
        times = dict(SegmentParts.parse(File.parse(VECTORS[f"valid/times-{name}"].data).payload(b"SEGM")).sections)[6]
        assert times[0] == File.parse(VECTORS[f"valid/metadata-{name}"].data).payload(b"mETa")[0] == method


# ---- mistakes that decoders make

OPS, NUMS, CODER = ref_operations, ref_numbers, ref_coder


class Mistake(NamedTuple):
    """In a function of the reference decoder, what is right and what takes its place; the vector that must notice."""

    vector: str
    module: ModuleType
    function: str
    right: str
    wrong: str


ORDER = "reshape(sh, sw, channels // (sh * sw), height, width)\n    return blocks.transpose(2, 3, 0, 4, 1)"
CHANNELS_FIRST = "reshape(channels // (sh * sw), sh, sw, height, width)\n    return blocks.transpose(0, 3, 1, 4, 2)"
TURNED = "reshape(sw, sh, channels // (sh * sw), height, width)\n    return blocks.transpose(2, 3, 1, 4, 0)"
SWISH = "half_even(y * np.clip(y + c, 0, 2 * c), np.full_like(y, arg + 1))"
SWISH_CUT = "y * np.clip(y + c, 0, 2 * c) >> (arg + 1)"
SUMMED = "np.concatenate([first, differences]).reshape(shape).cumsum(axis=0)"
NOT_SUMMED = "np.concatenate([first, np.tile(first, shape[0] - 1) + differences]).reshape(shape)"
TAP, TAP_TURNED = "weight[o, i, dy, dx]", "weight[o, i, kh - 1 - dy, kw - 1 - dx]"
CLAMPED = "min(max(frame.t + offset, 0), frame.frames - 1)"
FREQUENCY = "frame.tensors[f]"
WAVE, LARGEST = "% (1 << 32) >> 20", "counts.argmax()"
MISTAKES = {
    "half up": Mistake("requantise-ties", OPS, "half_even", "((floor & 1) == 1)", "True"),
    "half away from zero": Mistake("requantise-ties", OPS, "half_even", "((floor & 1) == 1)", "(value > 0)"),
    "product not rounded, as fused": Mistake("requantise-rounding", OPS, "scale", "bits - 24", "bits - 53"),
    "product cut off": Mistake("requantise-rounding", OPS, "scale", "half_even(product, drop)", "(product >> drop)"),
    "clamp before multiply": Mistake("requantise-clamps", OPS, "requantise", "values[x],", "values[x].clip(low, high),"),
    "clamp behind the function": Mistake("leaky", OPS, "requantise", "np.clip(y, low, high)", "np.clip(y, -2048, 2047)"),
    "leaky truncates": Mistake("leaky", OPS, "requantise", "half_even(y, np.full_like(y, arg))", "-(-y >> arg)"),
    "leaky floors": Mistake("leaky", OPS, "requantise", "half_even(y, np.full_like(y, arg))", "y >> arg"),
    "hard swish floors": Mistake("hard-swish", OPS, "requantise", SWISH, SWISH_CUT),
    "table shifted": Mistake("tables", OPS, "requantise", "y + 2048", "np.minimum(y + 2049, 4095)"),
    "sine of a remainder": Mistake("sine", OPS, "requantise", "y % 4096", "np.abs(np.fmod(y, 4096))"),
    "sine clamped": Mistake("sine-turns", OPS, "requantise", "y % 4096", "np.clip(y, 0, 4095)"),
    "channels of shuffle first": Mistake("shuffle", OPS, "shuffle", ORDER, CHANNELS_FIRST),
    "shuffle transposed": Mistake("shuffle", OPS, "shuffle", ORDER, TURNED),
    "nearest rounds": Mistake("nearest-down", OPS, "nearest", "* dh // nh", "* dh // nh + (dh > 2 * nh - 2)"),
    "bilinear clamps one index": Mistake("bilinear-2", OPS, "_line", "np.clip(index + 1, 0", "np.clip(index.clip(0) + 1, 0"),
    "bilinear truncates": Mistake("bilinear-3", OPS, "_line", "position // (2 * s)", "(position / (2 * s)).astype(int)"),
    "bilinear aligns corners": Mistake("bilinear-row", OPS, "_line", "+ 1 - s", ""),
    "haar with columns for rows": Mistake("haar", OPS, "haar", "a - b + c - d", "a + b - c - d"),
    "convolution turned round": Mistake("convolution-5x5", OPS, "convolution", TAP, TAP_TURNED),
    "convolution repeats edges": Mistake("convolution-15x15", OPS, "convolution", "kw // 2)))", "kw // 2)), mode='edge')"),
    "groups interleaved": Mistake("convolution-groups", OPS, "convolution", "(o // (out // groups))", "(o % groups)"),
    "gains swapped": Mistake("combine", OPS, "combine", "ka, kb =", "kb, ka ="),
    "time not clamped": Mistake("embedding-offsets", OPS, "embedding", CLAMPED, "(frame.t + offset) % frame.frames"),
    "embedding without a next": Mistake("embedding-strides", OPS, "embedding", "min(i + 1, len(codes) - 1)", "i"),
    "signed phases": Mistake("phases", OPS, "phases", WAVE, "% (1 << 31) >> 19"),
    "phases in binary32": Mistake("phases", OPS, "phases", FREQUENCY, f"np.float32({FREQUENCY}).astype(np.int64)"),
    "phases to the nearest": Mistake("phases", OPS, "phases", WAVE, "% (1 << 32) + (1 << 19) >> 20 & 4095"),
    "rows from the middle": Mistake("coordinates", OPS, "coordinates", "2 * np.arange(h) + 1 - h", "2 * (np.arange(h) - h // 2)"),
    "differences to the first": Mistake("embeddings", NUMS, "_group", SUMMED, NOT_SUMMED),
    "differences bounded like values": Mistake("embeddings", NUMS, "_group", "4095", "2048"),
    "context of two frames before": Mistake("tokens-plain", NUMS, "_context", "changed[t - 1].astype", "changed[t - 2].astype"),
    "context without corners": Mistake("tokens-plain", NUMS, "_context", "for dx in range(3)", "for dx in (1, 1 - dy % 2)"),
    "context bounds off by one": Mistake("tokens-returns", NUMS, "_context", "[1, 4, 8]", "[1, 4, 7]"),
    "context of one frame": Mistake("tokens-returns", NUMS, "_context", "score += 2 * changed[t - 2]", "pass"),
    "forerunner of every frame": Mistake("tokens-returns", NUMS, "_follow", "np.where(changed[t], before, forerunner)", "before"),
    "densities doubled": Mistake("tokens-plain", NUMS, "_tokens", "2 * stream.bits(2)", "stream.bits(2)"),
    "blocks without an end": Mistake("adaptive-halving", CODER, "Adaptive", ", 2048)", ", 1 << 30)"),
    "blocks of 16": Mistake("adaptive-blocks", CODER, "Adaptive", "min(max(begin, 16), 2048)", "16"),
    "counts not halved": Mistake("adaptive-halving", CODER, "Adaptive", "(self.counts + 1) >> 1", "self.counts"),
    "counts halved down": Mistake("adaptive-halving", CODER, "Adaptive", "(self.counts + 1) >> 1", "(self.counts >> 1).clip(1)"),
    "masses at half": Mistake("mode-adaptive", NUMS, "_adaptive_mode", "(8, 64, 512, 4096)", "(4, 32, 256, 2048)"),
    "rest to the last": Mistake("mode-histogram", CODER, "table_from_counts", LARGEST, "len(counts) - 1 - counts[::-1].argmax()"),
    "signs swapped": Mistake("escapes", NUMS, "_with_escapes", "np.where(negative", "np.where(~negative"),
    "low bits not rounded": Mistake("bias-low-bits", NUMS, "_laplace_mode", "stream.raw(n, low) - half", "stream.raw(n, low)"),
    "low bits above 4096": Mistake("bias-low-bits", NUMS, "_laplace_mode", "bound > 4095", "bound > 4096"),
    "signed words": Mistake("phases", NUMS, "_phase", ", 32)", ", 32) & 0x7FFFFFFF"),
}


def install(monkeypatch: pytest.MonkeyPatch, mistake: Mistake) -> None:
    """Put a mistake into the reference decoder."""
    module, name = mistake.module, mistake.function
    original = getattr(module, name)
    source = inspect.getsource(original)
    assert mistake.right in source, f"{module.__name__}.{name} reads otherwise now"
    made: dict[str, object] = {}
    exec("from __future__ import annotations\n" + source.replace(mistake.right, mistake.wrong), vars(module), made)
    for user in (OPS, NUMS, CODER):
        if vars(user).get(name) is original:
            monkeypatch.setattr(user, name, made[name])
    for table in [value for value in vars(module).values() if isinstance(value, dict)]:
        for key in [key for key, value in table.items() if value is original]:
            monkeypatch.setitem(table, key, made[name])
    if original in (modes := vars(module).get("MODES", ())):
        monkeypatch.setattr(module, "MODES", tuple(made[name] if mode is original else mode for mode in modes))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_mistake_passes_the_vector_for_it(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = MISTAKES[mistake]
    assert right(found.vector)
    install(monkeypatch, found)
    assert not passes(VECTORS[f"valid/{found.vector}"])


@functools.cache
def right(slug: str) -> bool:
    """Whether the vector passes without a mistake."""
    return passes(VECTORS[f"valid/{slug}"])


def passes(vector: Vector) -> bool:
    """Whether the reference decoder gives the frames whose hashes the file holds."""
    try:
        return len(list(reference.decode(vector.data, vector.limits))) > 0
    except (Refused, OPS.BoundError, IndexError, ValueError, OverflowError):
        return False
