"""Vectors whose numbers break a rule: streams that no encoder writes, tensors out of range, sections, digests, the 2^24 bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from nvc.bitstream.cdf import AdaptiveTable, Table, flat, laplace
from nvc.bitstream.coders import put_signed, put_unsigned, write_adaptive
from nvc.bitstream.rangecoder import RangeEncoder
from nvc.bitstream.tensors import Kind

from ..suite import Vector
from .programs import BASE, PLAIN
from .refusals import refusal
from .small import UNIT, Integers, Numbers, Row, Small, numbers, these

EXACT = 1 << 24
Write = Callable[[RangeEncoder], None]


def numbers_of_segments() -> Iterator[Vector]:
    """All of them; most are one section of a good file written anew."""
    yield from _streams()
    yield from _sequences()
    yield from _embeddings()
    yield from _tokens()
    yield from _sections()
    yield from _bounds()


def _invalid(slug: str, file: Small, about: str, rules: str, code: str) -> Vector:
    return refusal(slug, code, file.to_bytes(), about, *rules.split())


# ---- what a stream is written with, whether it may stand there or not (SPEC 5.4, 6, 7)


def _coded(*writes: Write) -> bytes:
    writer = RangeEncoder()
    for write in writes:
        write(writer)
    return writer.finish()


def _raw(width: int, *values: int) -> Write:
    return lambda w: w.put_raw(np.array(values, np.int64), width)


def _unsigned(value: int) -> Write:
    return lambda w: put_unsigned(w, value)


def _signed(value: int) -> Write:
    return lambda w: put_signed(w, value)


def _symbols(table: Table, *symbols: int) -> Write:
    return lambda w: w.put(np.array(symbols, np.int32), table)


def _adaptive(alphabet: int, mass: int, *symbols: int) -> Write:
    return lambda w: write_adaptive(w, np.array(symbols, np.int32), AdaptiveTable(flat(alphabet), mass))


def _constant(value: int) -> tuple[Write, Write]:
    """A sequence in mode 0."""
    return _raw(2, 0), _signed(value)


def _bias(shift: int, value: int) -> tuple[Write, ...]:
    """One bias, whether its shift is right or not."""
    return _raw(4, shift), *_constant(value)


# ---- the rules


def _streams() -> Iterator[Vector]:
    good = PLAIN.file().payload(b"SEGM")
    section = good[34 : 34 + int.from_bytes(good[25:29], "little")]
    last = bytearray(section)
    last[-4] ^= 1

    def stream(slug: str, data: bytes, about: str, rule: str, code: str) -> Vector:
        return _invalid(f"stream-{slug}", replace(PLAIN, sections={1: data}), about, rule, code)

    yield stream("words", section + b"\0", "a stream that is no whole number of words", "R1", "invalid.range_words")
    yield stream("words-cut", section[:-1], "a stream that lost a byte", "R1", "invalid.range_words")
    yield stream("impossible", b"\xff" * len(section), "a stream of ones: a quantile of 2^24", "R2", "invalid.range_data")
    yield stream("zero-word", section + bytes(4), "a word of zeros too many", "R3", "invalid.range_end")
    yield stream("word-missing", section[:-4], "the last word missing", "R3", "invalid.range_end")
    yield stream("last-word", bytes(last), "another last word that decodes to the same numbers", "R3", "invalid.range_end")
    yield stream("empty", b"", "no stream for numbers that the program needs", "R3", "invalid.range_end")
    rows = [[4, 1, 2, 4], [30, 0, 0, 1, 0, 255, 0, 0], [50, 1, 1, 1]]
    none = Small(rows, [these(Kind.MULTIPLIER, UNIT)])
    behind = replace(none, sections={1: _coded(_raw(16, UNIT, UNIT))})
    yield _invalid("stream-symbols-left", behind, "a second multiplier that no tensor takes", "R3", "invalid.range_end")


def _sequences() -> Iterator[Vector]:
    multiplier = _raw(16, UNIT)

    def out(slug: str, about: str, *writes: Write, rule: str = "T2", code: str = "invalid.tensor_range") -> Vector:
        """`PLAIN` with its constant map of 1 x 2 x 4 written so."""
        return _invalid(f"tensor-{slug}", replace(PLAIN, sections={1: _coded(*writes, multiplier)}), about, rule, code)

    def histogram(first: int, size: int) -> tuple[Write, ...]:
        return _raw(2, 3), _signed(first), _unsigned(size - 2), _raw(5, *[1] * size)

    yield out("constant-2048", "a constant map of 2048", *_constant(2048))
    yield out("constant-below", "a constant map of -2049", *_constant(-2049))
    yield out("constant-large", "the largest number that a stream can state", *_constant((1 << 32) - 2))
    yield out("histogram-above", "a histogram that reaches 2055", *histogram(2040, 16), _symbols(flat(16), *[15] * 8))
    yield out("histogram-below", "a histogram that reaches -2056", *histogram(-2056, 16), _symbols(flat(16), *[0] * 8))
    too_long = {"rule": "T3 R4", "code": "invalid.tensor_histogram"}
    yield out("histogram-4098", "a histogram of 4098 classes", *histogram(-2049, 4098), **too_long)
    # mode 1 with scale 0: the alphabet is -1, 0, 1 and the escape; 1 + 2047 is the most that the sizes allow
    escape = (_raw(2, 1), _raw(6, 0), _symbols(laplace(0, 2048), 1, 1, 1, 3, 1, 1, 1, 1), _symbols(flat(11), 10))
    yield out("laplace-escape", "an escape to 2048 from the narrowest table", *escape, _raw(1, 0), _raw(10, 2047 - 1024))

    rows = [[3, 0, 1, 2, 4], [10, 0, 1, 2, 1, 1, 1, 1], [30, 1, 3, 1, 0, 255, 0, 0], [50, 2, 2, 2]]

    def convolved(slug: str, about: str, rule: str, code: str, weight: int, bias: tuple[Write, ...]) -> Vector:
        section = _coded(*_constant(5), *_constant(weight), *bias, multiplier)
        tensors = [PLAIN.numbers[0], _weights(1, ""), these(Kind.BIAS, 0), these(Kind.MULTIPLIER, UNIT)]
        return _invalid(f"tensor-{slug}", Small(rows, tensors, sections={1: section}), about, rule, code)

    beyond, shift = "invalid.tensor_range", "invalid.tensor_shift"
    yield convolved("weight-128", "a weight of 128", "T2", beyond, 128, _bias(0, 1))
    yield convolved("weight-below", "a weight of -128", "T2", beyond, -128, _bias(0, 1))
    yield convolved("bias-above", "a bias of 2^24 + 1", "T2", beyond, 1, _bias(0, EXACT + 1))
    yield convolved("bias-below", "a bias of -2^24 - 1", "T2", beyond, 1, _bias(0, -EXACT - 1))
    yield convolved("bias-shift-small", "12 sent as 6 shifted by 1, not as 3 by 2", "T4", shift, 1, _bias(1, 6))
    yield convolved("bias-shift-none", "8 sent without a shift", "T4", shift, 1, _bias(0, 8))
    yield convolved("bias-shift-of-zero", "0 sent with a shift", "T4", shift, 1, _bias(3, 0))
    rows_of_sum = [[4, 1, 2, 4], [4, 0, 2, 4], [11, 0, 1, 0], [30, 2, 1, 1, 0, 255, 0, 0], [50, 3, 3, 3]]
    gains = [these(Kind.GAIN, 4095, 1), these(Kind.MULTIPLIER, UNIT)]
    section = _coded(_raw(13, 8191, 4096), multiplier)
    about = "a gain of 4096"
    yield _invalid("tensor-gain-4096", Small(rows_of_sum, gains, sections={1: section}), about, "T2", beyond)


def _embeddings() -> Iterator[Vector]:
    rows = [[1, 0, 1, 2, 4, 0, 1], [30, 0, 1, 1, 0, 255, 0, 0], [50, 1, 1, 1]]
    small = Small(rows, [numbers(Kind.EMBEDDING, (2, 1, 2, 4), 8, 0, 255), these(Kind.MULTIPLIER, UNIT)])

    def coded(slug: str, temporal: int, first: int, second: int, about: str) -> Vector:
        changes = _constant(second) if temporal else ()
        section = _coded(_raw(1, temporal), *_constant(first), *changes)
        return _invalid(f"tensor-{slug}", replace(small, sections={3: section}), about, "T2", "invalid.tensor_range")

    yield coded("embedding-2048", 0, 2048, 0, "an embedding of 2048")
    yield coded("embedding-sum", 1, 2000, 48, "2000, then 48 more: 2048")
    yield coded("embedding-sum-below", 1, -2000, -49, "-2000, then 49 less: -2049")


def _tokens() -> Iterator[Vector]:
    def coded(slug: str, about: str, rule: str, side: int, frames: int, *writes: Write) -> Vector:
        small = replace(_token_file(side, frames), sections={4: _coded(*writes)})
        return _invalid(f"tokens-{slug}", small, about, rule, "invalid.tensor_token")

    def new(*tokens: int) -> tuple[Write, Write]:
        """The new tokens of an alphabet of 3, with the first density."""
        return _raw(2, 0), _adaptive(3, 3, *tokens)

    changed, kept = _adaptive(2, 2, 1), _adaptive(2, 2, 0)  # each the first flag of its table
    three = _unsigned(2)
    yield coded("alphabet", "an alphabet of 4 for a codebook of 3 rows", "T5 R4", 2, 1, _unsigned(3))
    yield coded("unreached", "an alphabet of 3 of which 0 and 1 are used", "T5", 2, 1, three, *new(0, 1, 1, 0))
    yield coded("unchanged", "a token flagged as changed that is not", "T6", 1, 2, three, changed, *new(2, 2))
    # t = 1 changes in context 0, t = 2 in context 2, and is flagged as no return
    flags = (_raw(1, 1), changed, changed, kept)
    about = "a token sent as new that should have been a return"
    yield coded("forerunner", about, "T6", 1, 3, three, *flags, *new(0, 2, 0))

    def codebook(slug: str, about: str, rule: str, code: str, rows: int, value: int) -> Vector:
        section = _coded(_unsigned(rows), *_constant(value))
        return _invalid(f"codebook-{slug}", replace(_token_file(2, 1), sections={2: section}), about, rule, code)

    yield codebook("rows", "4 rows of a codebook of 3", "T7 R4", "invalid.tensor_codebook", 4, 1)
    yield codebook("zeros", "a last row of zeros that is sent", "T8", "invalid.tensor_codebook", 2, 0)
    yield codebook("above", "an entry of 128", "T2", "invalid.tensor_range", 3, 128)
    yield codebook("below", "an entry of -129", "T2", "invalid.tensor_range", 3, -129)


def _token_file(side: int, frames: int) -> Small:
    """Side x side tokens of 3 levels, shown as samples."""
    rows = [[2, 0, 1, side, side, 3, 1, 0], [30, 0, 2, 1, 0, 255, 0, 0], [50, 1, 1, 1]]
    values = np.arange(frames * side * side).reshape(frames, side, side) % 3
    book = Numbers(Kind.CODEBOOK, np.array([[7], [50], [90]]))
    return Small(rows, [Numbers(Kind.TOKENS, values, 3), book, these(Kind.MULTIPLIER, UNIT)], frames, side, side)


def _sections() -> Iterator[Vector]:
    for kind, name in ((2, "codebook"), (3, "embeddings"), (4, "tokens")):
        about = f"no section {kind} for a program with {name}"
        yield _invalid(f"section-missing-{name}", replace(BASE, without=(kind,)), about, "P6", "invalid.sections")
        about = f"a section {kind} for a program without {name}"
        yield _invalid(f"section-unasked-{name}", replace(PLAIN, sections={kind: bytes(4)}), about, "P6", "invalid.sections")
    none = Small([[4, 0, 1, 1], [50, 0, 0, 0]], [], width=1, height=1)
    about = "weights for a program that has none"
    yield _invalid("section-unasked-weights", replace(none, sections={1: bytes(4)}), about, "P6", "invalid.sections")
    yield _invalid("program-number", replace(BASE, program=1), "program 1 of a file with one program", "S1", "invalid.program")
    yield _invalid("digest", replace(BASE, digest=bytes(8)), "a digest of zeros", "P7", "corrupt.digest")
    hashes = BASE.file().payload(b"SEGM")[-16:]
    for slug, place in (("first", 0), ("last", 15)):
        wrong = bytearray(hashes)
        wrong[place] ^= 1
        about = f"a bit of the {slug} byte of the hashes wrong"
        yield _invalid(f"hash-{slug}", replace(BASE, hashes=bytes(wrong)), about, "Q1", "verify.frame")


def _bounds() -> Iterator[Vector]:
    """Each reach one step over 2^24. The accumulators come from a convolution without weights: their interval is 0..bias."""

    def over(slug: str, about: str, biases: tuple[int, ...], rows: list[Row], *more: Numbers, scale: int = 1) -> Vector:
        shown = 2 + len(rows)
        last = [[30, shown - 1, 3 + len(more), 1, 0, 255, 0, 0], [50, shown, shown, shown]]
        start = [[3, 0, 1, 2, 4], [10, 0, 1, 2, len(biases), 1, 1, 1]]
        weights = [these(Kind.BIAS, *biases), *more, these(Kind.MULTIPLIER, 0)]
        tensors = [Numbers(Kind.CONSTANT, np.zeros((1, 2, 4), np.int64)), _weights(len(biases), slug), *weights]
        small = Small([*start, *rows, *last], tensors, 1, 4 * scale, 2 * scale)
        return _invalid(f"bound-{slug}", small, about, f"B1 bound.{slug.partition('-')[0]}", "invalid.bound")

    yield over("convolution-above", "a sum that can reach 2^24 + 1", (EXACT - 2046,), [])
    yield over("convolution-below", "a sum that can reach -2^24 - 1", (2047 - EXACT,), [])
    gains = these(Kind.GAIN, 4095, 1)
    yield over("combine", "4095 times 4097, and 4097 more", (4097,), [[11, 1, 1, 3]], gains)
    yield over("multiply", "4096 times 4097", (4096, 4097), [[41, 1, 0, 1], [41, 1, 1, 2], [12, 2, 3]])
    yield over("bilinear", "16 times 2^20 + 1", ((1 << 20) + 1,), [[22, 1, 2]], scale=2)
    yield over("haar", "four times 2^22, and 1", (1 << 22, 1 << 22, 1 << 22, (1 << 22) + 1), [[23, 1]], scale=2)
    sine = these(Kind.MULTIPLIER, UNIT + 1)
    yield over("requantise", "a phase of 2^24 (1 + 2^-10)", (EXACT,), [[30, 1, 3, 1, 0, 4095, 4, 0]], sine)


def _weights(outputs: int, slug: str) -> Numbers:
    """Weights (O, 1, 1, 1) of zeros; of one where a convolution's own reach is meant."""
    values: Integers = np.full((outputs, 1, 1, 1), int(slug.startswith("convolution")), np.int64)
    return Numbers(Kind.WEIGHT, values)
