"""The reference's reader of numbers against the product's: the same tables, and of good and hostile sections the same answers."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.bitstream import cdf, coders
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.rangecoder import RangeEncoder, SymbolReader, Symbols
from nvc.bitstream.tensors import Kind, TensorSpec, read_tensors, write_tensors
from nvc.conformance import ref_coder, ref_numbers
from nvc.conformance.ref_coder import Stream
from nvc.conformance.ref_errors import Refused
from nvc.conformance.ref_numbers import Spec, read_section

Values = NDArray[np.int64]
Outcome = tuple[str, list[list[int]]]

LONGEST = {  # of a dimension, for each rank
    Kind.WEIGHT: (5, 5, 3, 3),
    Kind.BIAS: (60,),
    Kind.MULTIPLIER: (60,),
    Kind.GAIN: (60,),
    Kind.PHASE: (60,),
    Kind.CONSTANT: (8, 8, 8),
    Kind.EMBEDDING: (6, 5, 4, 4),
    Kind.CODEBOOK: (12, 12),
    Kind.TOKENS: (9, 6, 6),
}
SEEDS = st.integers(0, 2**32)
CODES = {  # all that a section can be refused for but its shapes, which are checked apart
    *("invalid.range_words", "invalid.range_data", "invalid.range_end", "invalid.tensor_range", "invalid.tensor_histogram"),
    *("invalid.tensor_shift", "invalid.tensor_token", "invalid.tensor_codebook"),
}


def random_spec(generator: np.random.Generator, kind: Kind | None = None) -> TensorSpec:
    kind = list(Kind)[generator.integers(len(Kind))] if kind is None else kind
    shape = tuple(int(generator.integers(1, most + 1)) for most in LONGEST[kind])
    return TensorSpec(kind, shape, int(generator.choice([2, 3, 16, 300, 4096])) if kind is Kind.TOKENS else 0)


def random_values(generator: np.random.Generator, spec: TensorSpec) -> Values:
    """Values within the spec's range that make the writer use all of its modes: peaks, tails, ends, repetitions, zeros."""
    least, most = spec.range
    values = generator.laplace(generator.choice([0, least, most]), generator.choice([0, 0.2, 1, 10, 1000, 1e7]), spec.shape)
    values[generator.random(spec.shape) < generator.choice([0, 0.05])] = generator.choice([least, most])
    step = int(generator.choice([1, 1, 16, 1 << 17])) if spec.kind is Kind.BIAS else 1
    codes = np.clip(np.rint(values / step), np.ceil(least / step), most // step).astype(np.int64) * step
    if spec.kind in (Kind.EMBEDDING, Kind.TOKENS) and generator.random() < 0.5:
        codes[1:] = np.where(generator.random(spec.shape)[1:] < 0.8, codes[:1], codes[1:])
    if spec.kind is Kind.CODEBOOK:
        codes[generator.integers(0, spec.shape[0] + 1) :] = 0
    return codes


class Inventor(SymbolReader):
    """Makes symbols up and writes them down: a stream that breaks no rule of SPEC 5, of which section 7 may say anything."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator, self.writer, self.style = generator, RangeEncoder(), int(generator.integers(4))

    def get(self, count: int, freqs: cdf.Table) -> Symbols:
        last = len(freqs) - 1
        match self.style if self.generator.random() < 0.8 else self.generator.integers(4):
            case 0:
                symbols = np.searchsorted(np.cumsum(freqs), self.generator.integers(0, 1 << 24, count), side="right")
            case 1:
                symbols = self.generator.integers(0, last + 1, count)
            case 2:
                symbols = np.full(count, self.generator.choice([0, 0, 1, last]))
            case _:
                symbols = np.minimum(np.rint(self.generator.exponential(1.5, count)), last)
        invented = symbols.astype(np.int32)
        self.writer.put(invented, freqs)
        return invented

    def finish(self) -> None:
        pass


def invented(generator: np.random.Generator, specs: list[TensorSpec]) -> bytes:
    """A stream of random symbols for these specs, up to the first that the product refuses."""
    inventor = Inventor(generator)
    with suppress(BitstreamError):
        read_tensors(specs, b"", decoder=lambda _: inventor)
    return inventor.writer.finish()


def damaged(generator: np.random.Generator, payload: bytes) -> bytes:
    """With a bit flipped, bytes or words cut off or added, or a word replaced."""
    data, place = bytearray(payload), int(generator.integers(len(payload) + 1))
    match generator.integers(5):
        case 0 if payload:
            data[place % len(data)] ^= 1 << generator.integers(8)
        case 1:
            del data[place // 4 * 4 :]
        case 2:
            del data[place:]
        case 3:
            data += bytes([int(generator.choice([0, 255]))]) * int(generator.choice([4, 4, 8]))
        case _:
            data[place // 4 * 4 : place // 4 * 4 + 4] = bytes([255] * 4)
    return bytes(data)


def by_product(specs: list[TensorSpec], payload: bytes) -> Outcome:
    try:
        return "ok", [tensor.ravel().tolist() for tensor in read_tensors(specs, payload)]
    except BitstreamError as error:
        return error.code, []


def by_reference(specs: list[TensorSpec], payload: bytes) -> Outcome:
    try:
        tensors = read_section([Spec(spec.kind.value, spec.shape, spec.levels) for spec in specs], payload)
    except Refused as error:
        return error.code, []
    assert [tensor.shape for tensor in tensors] == [spec.shape for spec in specs]
    assert all(tensor.dtype == np.int64 for tensor in tensors)
    return "ok", [tensor.ravel().tolist() for tensor in tensors]


# ---- 5 range decoder


def refused(stream: Stream) -> str:
    with pytest.raises(Refused) as caught:
        stream.end()
    return caught.value.code


def test_the_example_of_the_text_is_the_number_5() -> None:
    stream = Stream(bytes.fromhex("000000a0"))
    assert stream.bits(3) == 5
    stream.end()


def test_r3_a_stream_without_symbols_has_no_words() -> None:
    Stream(b"").end()
    assert refused(Stream(bytes(4))) == "invalid.range_end"


@pytest.mark.parametrize("payload", ["", "000000a000000000", "010000a0", "ffffff9f", "ffffffbf"])
def test_r3_words_that_no_encoder_writes_are_refused(payload: str) -> None:
    stream = Stream(bytes.fromhex(payload))
    stream.bits(3)
    assert refused(stream) == "invalid.range_end"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_r1_bytes_that_are_no_words_are_refused_first(size: int) -> None:
    assert by_reference([TensorSpec(Kind.GAIN, (2,))], bytes(size)) == ("invalid.range_words", [])


# ---- 6 tables


def sums(table: cdf.Table) -> list[int]:
    return [0, *accumulate(table.tolist())]


@given(st.lists(st.integers(0, 1 << 26) | st.integers(0, 3), min_size=2, max_size=4097))
@settings(deadline=None, max_examples=60)
def test_tables_from_counts_are_those_of_the_product(counts: list[int]) -> None:
    numbers = np.array(counts, dtype=np.int64)
    table = ref_coder.table_from_counts(numbers)
    assert table == sums(cdf.from_counts(numbers))
    assert table[-1] == 1 << 24


def test_flat_tables_are_those_of_the_product() -> None:
    for size in [*range(2, 300), 1000, 4095, 4096, 4097]:
        assert ref_coder.flat(size) == sums(cdf.flat(size))


@pytest.mark.parametrize("bound", [1, 2, 3, 20, 127, 128, 2046, 2047, 2048, 4095, 4096, 70000, 1 << 24])
def test_the_laplace_bank_is_that_of_the_product(bound: int) -> None:
    for scale in range(64):
        assert ref_coder.laplace(scale, bound) == (cdf.laplace_limit(scale, bound), sums(cdf.laplace(scale, bound)))


# ---- 7 tensors


@given(SEEDS)
@settings(deadline=None, max_examples=150)
def test_what_is_written_comes_back(seed: int) -> None:
    generator = np.random.default_rng(seed)
    specs = [random_spec(generator) for _ in range(generator.integers(0, 5))]
    tensors = [random_values(generator, spec) for spec in specs]
    payload = write_tensors(list(zip(specs, tensors, strict=True)))
    assert by_reference(specs, payload) == ("ok", [tensor.ravel().tolist() for tensor in tensors])


@pytest.mark.parametrize("kind", Kind)
def test_the_ends_of_the_range_and_long_tensors_come_back(kind: Kind) -> None:
    shape = {1: (3000,), 2: (60, 50), 3: (40, 9, 9), 4: (20, 20, 3, 3)}[len(LONGEST[kind])]
    spec = TensorSpec(kind, shape, 4096 if kind is Kind.TOKENS else 0)
    generator = np.random.default_rng(1)
    least, most = spec.range
    for values in (
        *(np.full(shape, end, dtype=np.int64) for end in (least, 0, most)),
        generator.choice(np.array([least, most]), shape),
        generator.integers(least, most + 1, shape),
        np.clip(np.rint(generator.laplace(0, 3, shape)).astype(np.int64), least, most),
    ):
        if kind is Kind.CODEBOOK:
            values = values.copy()
            values[-1, -1] = 1
        assert by_reference([spec], write_tensors([(spec, values)])) == ("ok", [values.ravel().tolist()])


@given(SEEDS)
@settings(deadline=None, max_examples=250)
def test_any_symbols_are_the_same_numbers_or_the_same_refusal(seed: int) -> None:
    generator = np.random.default_rng(seed)
    specs = [random_spec(generator) for _ in range(generator.integers(1, 4))]
    payload = invented(generator, specs)
    assert by_reference(specs, payload) == by_product(specs, payload)


@given(SEEDS, st.booleans())
@settings(deadline=None, max_examples=250)
def test_damaged_sections_are_the_same_numbers_or_the_same_refusal(seed: int, made_up: bool) -> None:
    generator = np.random.default_rng(seed)
    specs = [random_spec(generator) for _ in range(generator.integers(1, 4))]
    whole = invented(generator, specs) if made_up else write_tensors([(spec, random_values(generator, spec)) for spec in specs])
    payload = damaged(generator, whole)
    assert by_reference(specs, payload) == by_product(specs, payload)


def test_every_refusal_is_met_by_these_sections() -> None:
    """A differential test that never met a rule would say nothing of it."""
    met: Counter[str] = Counter()
    for seed in range(400):
        generator = np.random.default_rng(seed)
        specs = [random_spec(generator) for _ in range(2)]
        payload = invented(generator, specs)
        for candidate in (payload, damaged(generator, payload), bytes([255] * 8)):
            found = by_reference(specs, candidate)
            assert found == by_product(specs, candidate)
            met[found[0]] += 1
    assert set(met) == {"ok", *CODES}


def bits(*numbers: tuple[int, int]) -> bytes:
    """A stream of plain numbers, each (value, width)."""
    writer = RangeEncoder()
    for value, width in numbers:
        writer.put_bits(value, width)
    return writer.finish()


def unsigned(value: int) -> list[tuple[int, int]]:
    size = (value + 1).bit_length() - 1
    return [(size, 5), (value + 1 - (1 << size), size)]


def constant(value: int) -> list[tuple[int, int]]:
    """A sequence of equal values."""
    return [(0, 2), *unsigned(abs(value)), *([(int(value < 0), 1)] if value else [])]


@pytest.mark.parametrize("kind", [Kind.WEIGHT, Kind.BIAS, Kind.CONSTANT, Kind.EMBEDDING, Kind.CODEBOOK])
def test_t2_the_ends_of_a_range_are_taken_and_more_is_refused(kind: Kind) -> None:
    spec = TensorSpec(kind, (1,) * len(LONGEST[kind]))
    before = {Kind.BIAS: [(0, 4)], Kind.CODEBOOK: unsigned(1)}.get(kind, [])
    for end, step in zip(spec.range, (-1, 1), strict=True):
        shift = [(15, 4)] if kind is Kind.BIAS else before  # 2^24 is written with 15 zero bits cut off
        assert by_reference([spec], bits(*shift, *constant(end >> 15 if kind is Kind.BIAS else end))) == ("ok", [[end]])
        assert by_reference([spec], bits(*before, *constant(end + step))) == ("invalid.tensor_range", [])


def test_t2_a_gain_of_4096_is_refused() -> None:
    spec = TensorSpec(Kind.GAIN, (1,))
    assert by_reference([spec], bits((8190, 13))) == ("ok", [[4095]])
    assert by_reference([spec], bits((8191, 13))) == ("invalid.tensor_range", [])


def test_t3_a_histogram_has_at_most_4097_values() -> None:
    spec, front = TensorSpec(Kind.WEIGHT, (1, 1, 1, 1)), [(3, 2), *unsigned(5), (0, 1)]
    writer = RangeEncoder()
    for value, width in [*front, *unsigned(4095)]:
        writer.put_bits(value, width)
    writer.put_raw(np.zeros(4097, dtype=np.int64), 5)
    writer.put(np.array([7], dtype=np.int32), cdf.flat(4097))
    assert by_reference([spec], writer.finish()) == ("ok", [[12]])
    assert by_reference([spec], bits(*front, *unsigned(4096))) == ("invalid.tensor_histogram", [])


TWO, THREE, DENSITY = unsigned(1), unsigned(2), [(0, 2)]  # tokens 0..1 and 0..2; with few tokens 0..1 all tables are still flat
ONES, ZEROS, HIGHEST = [(1, 1)], [(0, 1)], (2, 0)  # the highest of three tokens has no plain number


@pytest.mark.parametrize(
    ("times", "levels", "numbers", "expected"),
    [
        (3, 2, [*TWO, *ZEROS, *ONES * 2, *DENSITY, *ZEROS, *ONES, *ZEROS], [0, 1, 0]),
        (3, 2, [*TWO, *ONES, *ONES * 2, *ONES, *DENSITY, *ZEROS, *ONES], [0, 1, 0]),  # the last as a return
        (3, 2, [*TWO, *ONES, *ONES * 2, *ZEROS, *DENSITY, *ZEROS, *ONES, *ZEROS], None),  # T6: one that could have returned
        (2, 2, [*TWO, *ONES, *DENSITY, *ONES, *ZEROS], [1, 0]),
        (2, 2, [*TWO, *ONES, *DENSITY, *ONES, *ONES], None),  # T6: new, but as before
        (2, 2, [*TWO, *ZEROS, *DENSITY, *ONES], [1, 1]),
        (2, 2, [*TWO, *ZEROS, *DENSITY, *ZEROS], None),  # T5: 1 does not occur
        (2, 3, [*THREE, *ZEROS, *DENSITY, HIGHEST], [2, 2]),
        (2, 2, [*THREE, *ZEROS, *DENSITY, HIGHEST], None),  # T5: three of two levels
    ],
)
def test_t5_t6_tokens_are_counted_and_new_ones_are_new(
    times: int, levels: int, numbers: list[tuple[int, int]], expected: list[int] | None
) -> None:
    writer = RangeEncoder()
    for value, width in numbers:
        if (value, width) == HIGHEST:
            coders.write_adaptive(writer, np.array([2], dtype=np.int32), cdf.AdaptiveTable(cdf.flat(3), 3))
        else:
            writer.put_bits(value, width)
    found = by_reference([TensorSpec(Kind.TOKENS, (times, 1, 1), levels)], writer.finish())
    assert found == (("ok", [expected]) if expected else ("invalid.tensor_token", []))


def test_adaptive_tables_forget() -> None:
    """Counts are halved in tables of so many symbols; behind 28672 of the tokens their sum is 2^20 to the unit."""
    generator = np.random.default_rng(3)
    values = np.rint(generator.laplace(0, np.linspace(0.3, 30, 36864))).clip(-127, 127).astype(np.int64)
    weight = TensorSpec(Kind.WEIGHT, (64, 64, 3, 3))
    for mass in range(4):
        writer = RangeEncoder()
        coders.write_sequence(writer, values, 127, coders.Adaptive(24, mass))
        assert by_reference([weight], writer.finish()) == ("ok", [values.tolist()])
    tokens, spec = generator.integers(0, 4096, (1, 200, 180)), TensorSpec(Kind.TOKENS, (1, 200, 180), 4096)
    tokens[0, 0, 0] = 4095
    writer = RangeEncoder()
    for value, width in [*unsigned(4095), *DENSITY]:
        writer.put_bits(value, width)
    coders.write_adaptive(writer, tokens.ravel().astype(np.int32), cdf.AdaptiveTable(cdf.flat(4096), 4096))
    assert by_reference([spec], writer.finish()) == ("ok", [tokens.ravel().tolist()])


@pytest.mark.parametrize("spec", [Spec("bias", ((1 << 26) + 1,)), Spec("constant", (1 << 40, 1 << 40, 1))])
def test_t1_shapes_are_refused_before_the_stream_is_looked_at(spec: Spec) -> None:
    with pytest.raises(Refused) as caught:
        read_section([Spec("gain", (2,)), spec], bytes(3))
    assert caught.value.code == "invalid.tensor_shape"


def test_t1_2_26_values_are_taken() -> None:
    ref_numbers.check_specs([Spec("bias", (1 << 26,)), Spec("weight", (1 << 13, 1 << 13, 1, 1))])


@given(SEEDS, st.binary(max_size=40))
@settings(deadline=None, max_examples=100)
def test_what_a_hostile_section_makes_a_reader_decode_is_bounded_by_the_shapes(seed: int, garbage: bytes) -> None:
    generator = np.random.default_rng(seed)
    spec = random_spec(generator)
    counts: list[int] = []

    class Counting(Stream):
        def symbols(self, n: int, table: ref_coder.Cumulative) -> ref_coder.Integers:
            counts.append(n)
            return super().symbols(n, table)

    sequences = 2 * spec.shape[1] if spec.kind is Kind.EMBEDDING else 1
    for payload in (garbage[: len(garbage) // 4 * 4], invented(generator, [spec])):
        counts.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ref_numbers, "Stream", Counting)
            by_reference([spec], payload)
        # For a value at most a symbol, the size, sign and three pieces of its escape, and two plain pieces; for a sequence also
        # the 4097 classes of a histogram and the numbers in front of them.
        assert 0 < sum(counts) <= 8 * spec.count + 4130 * sequences
