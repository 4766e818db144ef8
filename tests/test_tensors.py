"""Tensors and their bytes: every kind comes back, hostile sections are refused, the rate is near the entropy."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream import coders
from nvc.bitstream.errors import BitstreamError, InvalidError
from nvc.bitstream.rangecoder import (
    CodeLength,
    Integers,
    PythonRangeDecoder,
    PythonRangeEncoder,
    RangeDecoder,
    RangeEncoder,
)
from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits, read_tensors, write_tensors

Item = tuple[TensorSpec, Integers]
RANKS = {
    Kind.WEIGHT: 4,
    Kind.BIAS: 1,
    Kind.MULTIPLIER: 1,
    Kind.GAIN: 1,
    Kind.PHASE: 1,
    Kind.CONSTANT: 3,
    Kind.EMBEDDING: 4,
    Kind.CODEBOOK: 2,
    Kind.TOKENS: 3,
}


@st.composite
def items(draw: st.DrawFn) -> Item:
    kind = draw(st.sampled_from(Kind))
    longest = {1: 70, 2: 12, 3: 8, 4: 5}[RANKS[kind]]
    shape = tuple(draw(st.lists(st.integers(1, longest), min_size=RANKS[kind], max_size=RANKS[kind])))
    spec = TensorSpec(kind, shape, draw(st.sampled_from([2, 3, 16, 4096])) if kind is Kind.TOKENS else 0)
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    least, most = spec.range
    width = draw(st.sampled_from([0.0, 0.2, 1.0, 10.0, 1000.0, 1e7]))
    values = generator.laplace(draw(st.sampled_from([0, least, most])), width, shape)
    values[generator.random(shape) < draw(st.sampled_from([0, 0.05]))] = draw(st.sampled_from([least, most]))
    step = draw(st.sampled_from([1, 1, 16, 1 << 17])) if kind is Kind.BIAS else 1
    codes = np.clip(np.rint(values / step), np.ceil(least / step), most // step).astype(np.int64) * step
    if kind in (Kind.EMBEDDING, Kind.TOKENS) and draw(st.booleans()):
        codes[1:] = np.where(generator.random(shape)[1:] < 0.8, codes[:1], codes[1:])
    if kind is Kind.CODEBOOK:
        codes[draw(st.integers(0, shape[0])) :] = 0
    return spec, codes


def assert_same(written: list[Item], read: list[Integers]) -> None:
    assert len(written) == len(read)
    for (spec, values), back in zip(written, read, strict=True):
        assert back.dtype == (np.int64 if spec.kind is Kind.PHASE else np.int32)
        assert np.array_equal(values, back)


def section(write: Any) -> bytes:
    writer = RangeEncoder()
    write(writer)
    return writer.finish()


@given(st.lists(items(), max_size=4))
@settings(deadline=None, max_examples=150)
def test_every_kind_comes_back_through_both_coders(message: list[Item]) -> None:
    payload = write_tensors(message)
    assert write_tensors(message, encoder=PythonRangeEncoder) == payload
    specs = [spec for spec, _ in message]
    assert_same(message, read_tensors(specs, payload))
    assert_same(message, read_tensors(specs, payload, decoder=PythonRangeDecoder))


@given(st.lists(items(), max_size=4))
@settings(deadline=None, max_examples=60)
def test_sections_stay_close_to_the_sum_of_their_tensors(message: list[Item]) -> None:
    payload = write_tensors(message)
    assert 8 * len(payload) <= 1.01 * sum(coded_bits(spec, values) for spec, values in message) + 8 * 40


@given(st.lists(items(), min_size=1, max_size=3), st.binary(max_size=80))
@settings(deadline=None, max_examples=150)
def test_garbage_is_refused_or_in_range(message: list[Item], payload: bytes) -> None:
    specs = [spec for spec, _ in message]
    for decoder in (RangeDecoder, PythonRangeDecoder):
        try:
            found = read_tensors(specs, payload, decoder=decoder)
        except BitstreamError:
            continue
        for spec, values in zip(specs, found, strict=True):
            assert values.shape == spec.shape
            assert spec.range[0] <= values.min() and values.max() <= spec.range[1]


@given(st.lists(items(), min_size=1, max_size=3), st.data())
@settings(deadline=None, max_examples=150)
def test_both_decoders_agree_on_damaged_sections(message: list[Item], data: st.DataObject) -> None:
    changed = bytearray(write_tensors(message))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    specs, outcomes = [spec for spec, _ in message], []
    for decoder in (RangeDecoder, PythonRangeDecoder):
        try:
            outcomes.append([values.tolist() for values in read_tensors(specs, bytes(changed), decoder)])
        except InvalidError as error:
            outcomes.append([error.code])
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("kind", "shape", "levels"),
    [
        (Kind.WEIGHT, (3, 3), 0),
        (Kind.WEIGHT, (3, 3, 0, 1), 0),
        (Kind.BIAS, (-1,), 0),
        (Kind.TOKENS, (1, 1, 1), 0),
        (Kind.TOKENS, (1, 1, 1), 1),
        (Kind.TOKENS, (1, 1, 1), 4097),
        (Kind.GAIN, (2,), 5),
    ],
)
def test_shapes_and_levels_that_no_program_can_state_are_a_mistake_of_the_caller(
    kind: Kind, shape: tuple[int, ...], levels: int
) -> None:
    with pytest.raises(ValueError):
        TensorSpec(kind, shape, levels)


@pytest.mark.parametrize(("kind", "shape"), [(Kind.BIAS, ((1 << 26) + 1,)), (Kind.CONSTANT, (1 << 40, 1 << 40, 1))])
def test_tensors_over_the_maximum_are_refused(kind: Kind, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidError):
        TensorSpec(kind, shape)


@pytest.mark.parametrize("kind", Kind)
def test_writers_refuse_values_beyond_the_range_and_keep_its_ends(kind: Kind) -> None:
    spec = TensorSpec(kind, (2,) * RANKS[kind], 17 if kind is Kind.TOKENS else 0)
    for end, beyond in zip(spec.range, (-1, 1), strict=True):
        values = np.full(spec.shape, end, np.int64)
        assert_same([(spec, values)], read_tensors([spec], write_tensors([(spec, values)])))
        values[(0,) * values.ndim] += beyond
        with pytest.raises(ValueError):
            write_tensors([(spec, values)])


def test_writers_refuse_wrong_shapes_and_types() -> None:
    spec = TensorSpec(Kind.BIAS, (4,))
    for values in (np.zeros(5, np.int64), np.zeros((2, 2), np.int64), np.zeros(4)):
        with pytest.raises(ValueError):
            coded_bits(spec, values)  # type: ignore[arg-type]


MODE_VALUES = [
    np.full(300, -77),
    np.rint(np.random.default_rng(1).laplace(0, 3, 300)),
    np.rint(np.random.default_rng(2).normal(0, 2, 3000)),
    np.random.default_rng(3).choice([-2, -1, 0, 1, 2], 3000, p=[0.3, 0.15, 0.1, 0.15, 0.3]),
]


@pytest.mark.parametrize("mode", range(4))
def test_each_mode_wins_where_it_should(mode: int) -> None:
    values = MODE_VALUES[mode].astype(np.int64)
    assert isinstance(coders.choose(values, 127).mode, coders.MODES[mode])


@pytest.mark.parametrize(
    "mode",
    [
        coders.Laplace(0, 0),
        coders.Laplace(63, 15),
        coders.Laplace(40, 3),
        coders.Adaptive(0, 0),
        coders.Adaptive(63, 3),
        coders.Histogram(-70000, (0, 31, 1)),
        coders.Histogram(-70000, (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("bound", [1, 127, 4095, 4096, 1 << 24])
def test_a_reader_follows_any_mode_a_writer_may_choose(mode: Any, bound: int) -> None:
    generator = np.random.default_rng(7)
    if isinstance(mode, coders.Histogram):
        values = generator.integers(-70000, -69997, 50)
    else:
        values = generator.integers(-bound, bound + 1, 50)
    if bound <= coders.SPLIT_ABOVE and isinstance(mode, coders.Laplace):
        mode = coders.Laplace(mode.scale, 0)  # low bits are cut off only from wide values
    payload = section(lambda writer: coders.write_sequence(writer, values, bound, mode))
    reader = PythonRangeDecoder(payload)
    assert np.array_equal(coders.read_sequence(reader, 50, bound), values)
    reader.finish()


@given(st.integers(-(2**32) + 2, 2**32 - 2))
@settings(deadline=None)
def test_signed_numbers_survive(value: int) -> None:
    reader = RangeDecoder(section(lambda writer: coders.put_signed(writer, value)))
    assert coders.get_signed(reader) == value
    reader.finish()


def refused(spec: TensorSpec, write: Any) -> str:
    with pytest.raises(InvalidError) as error:
        read_tensors([spec], section(write))
    return error.value.code


def sequence(values: list[int], bound: int, mode: Any) -> Any:
    return lambda writer: coders.write_sequence(writer, np.array(values, np.int64), bound, mode)


def test_values_beyond_the_range_are_refused() -> None:
    assert refused(TensorSpec(Kind.WEIGHT, (1,) * 4), sequence([-128], 127, coders.Constant(-128))) == "invalid.tensor_range"
    two = TensorSpec(Kind.CONSTANT, (1, 1, 2))
    assert refused(two, sequence([2048, 0], 2048, coders.Laplace(20, 0))) == "invalid.tensor_range"
    assert refused(two, sequence([0, 3000], 2048, coders.Histogram(0, (1,) * 3001))) == "invalid.tensor_range"
    assert refused(TensorSpec(Kind.GAIN, (1,)), lambda writer: writer.put_bits(8191, 13)) == "invalid.tensor_range"


def test_a_histogram_wider_than_any_table_is_refused() -> None:
    def write(writer: RangeEncoder) -> None:
        writer.put_bits(3, 2)
        coders.put_signed(writer, 0)
        coders.put_unsigned(writer, 4096)

    assert refused(TensorSpec(Kind.WEIGHT, (1,) * 4), write) == "invalid.tensor_histogram"


def test_embeddings_that_leave_the_range_by_summation_are_refused() -> None:
    def write(writer: RangeEncoder) -> None:
        writer.put_bits(1, 1)
        coders.write_sequence(writer, np.array([2000]), 2048, coders.Constant(2000))
        coders.write_sequence(writer, np.array([40, 40]), 4095, coders.Constant(40))

    assert refused(TensorSpec(Kind.EMBEDDING, (3, 1, 1, 1)), write) == "invalid.tensor_range"


@pytest.mark.parametrize(("shift", "code"), [(0, 2), (3, 4), (14, 2), (5, 0), (15, 0)])
def test_bias_shifts_that_are_not_the_largest_are_refused(shift: int, code: int) -> None:
    def write(writer: RangeEncoder) -> None:
        writer.put_bits(shift, 4)
        coders.write_sequence(writer, np.array([code, code]), (1 << 24) >> shift, coders.Constant(code))

    assert refused(TensorSpec(Kind.BIAS, (2,)), write) == "invalid.tensor_shift"


def test_a_bias_may_keep_zero_bits_beyond_the_largest_shift() -> None:
    spec, values = TensorSpec(Kind.BIAS, (2,)), np.array([1 << 24, -(1 << 20)])
    assert_same([(spec, values)], read_tensors([spec], write_tensors([(spec, values)])))


@st.composite
def codebooks(draw: st.DrawFn) -> Integers:
    """A codebook (K, D) whose last row is not all zeros, which others may be."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 9)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = np.clip(np.rint(generator.laplace(0, draw(st.sampled_from([0.3, 3.0, 30.0, 300.0])), shape)), -128, 127)
    values[generator.random(shape[0]) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = 0
    values[-1, draw(st.integers(0, shape[1] - 1))] = draw(st.sampled_from([-128, -1, 1, 127]))
    return values.astype(np.int64)


@given(codebooks(), st.integers(0, 60))
@settings(deadline=None, max_examples=100)
def test_rows_of_a_codebook_that_are_not_used_cost_nothing(rows: Integers, unused: int) -> None:
    tight, wide = (TensorSpec(Kind.CODEBOOK, (len(rows) + more, rows.shape[1])) for more in (0, unused))
    values = np.concatenate([rows, np.zeros((unused, rows.shape[1]), np.int64)])
    payload = write_tensors([(wide, values)])
    assert payload == write_tensors([(tight, rows)])
    assert_same([(wide, values)], read_tensors([wide], payload))


def test_a_codebook_without_any_row_is_one_number() -> None:
    for levels in (1, 4096):
        spec = TensorSpec(Kind.CODEBOOK, (levels, 256))
        values = np.zeros(spec.shape, np.int64)
        assert write_tensors([(spec, values)]) == section(lambda writer: coders.put_unsigned(writer, 0))
        assert coded_bits(spec, values) == pytest.approx(5)
        assert_same([(spec, values)], read_tensors([spec], write_tensors([(spec, values)])))


@pytest.mark.parametrize("rows", [4, 5, 1 << 31, (1 << 32) - 2])
def test_a_codebook_of_more_rows_than_levels_is_refused(rows: int) -> None:
    def write(writer: RangeEncoder) -> None:
        coders.put_unsigned(writer, rows)
        coders.write_sequence(writer, np.full(rows * 2 if rows < 6 else 6, 7), 128, coders.Constant(7))

    assert refused(TensorSpec(Kind.CODEBOOK, (3, 2)), write) == "invalid.tensor_codebook"


@pytest.mark.parametrize("rows", [[[0, 0]], [[1, 2], [0, 0]]])
def test_a_codebook_whose_last_row_is_zeros_is_refused(rows: list[list[int]]) -> None:
    def write(writer: RangeEncoder) -> None:
        coders.put_unsigned(writer, len(rows))
        coders.write_sequence(writer, np.ravel(rows), 128, coders.Laplace(20, 0))

    assert refused(TensorSpec(Kind.CODEBOOK, (3, 2)), write) == "invalid.tensor_codebook"


def test_rows_of_a_codebook_beyond_the_range_are_refused() -> None:
    def write(writer: RangeEncoder) -> None:
        coders.put_unsigned(writer, 1)
        coders.write_sequence(writer, np.array([128]), 128, coders.Constant(128))

    assert refused(TensorSpec(Kind.CODEBOOK, (1, 1)), write) == "invalid.tensor_range"


def test_embeddings_use_the_previous_frame_and_separate_channels_where_that_pays() -> None:
    generator = np.random.default_rng(0)
    spec = TensorSpec(Kind.EMBEDDING, (64, 4, 2, 4))
    white = np.rint(generator.laplace(0, 3, spec.shape))
    drift = np.rint(np.cumsum(generator.laplace(0, 1, spec.shape), axis=0))
    scaled = np.rint(generator.laplace(0, 1, spec.shape) * np.array([0.2, 1, 5, 80])[:, None, None])
    bits = [coded_bits(spec, values.astype(np.int64)) / spec.count for values in (white, drift, scaled)]
    assert bits[0] == pytest.approx(np.log2(2 * np.e * 3), abs=0.1)
    assert bits[1] == pytest.approx(2.51, abs=0.1)  # a rounded Laplace variable of scale 1
    assert bits[2] < (0.6 + 2.6 + 4.9 + 8.9) / 4


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 15.0])
@pytest.mark.parametrize(("count", "slack"), [(40, 0.005), (2000, 0.005), (100000, 0.003)])
def test_weights_cost_their_entropy_and_a_header_of_8_bits(scale: float, count: int, slack: float) -> None:
    """Against the cost under the true distribution, so that luck of the sample cancels."""
    header = 8
    generator = np.random.default_rng(count)
    total, ideal = 0.0, 0.0
    repeats = 20 if count < 1000 else 1
    for _ in range(repeats):
        values = np.clip(np.rint(generator.laplace(0, scale, count)), -127, 127).astype(np.int64)
        p = np.where(values == 0, 1 - np.exp(-0.5 / scale), np.exp(-np.abs(values) / scale) * np.sinh(0.5 / scale))
        ideal += float(-np.log2(p).sum())
        total += coded_bits(TensorSpec(Kind.WEIGHT, (count, 1, 1, 1)), values[:, None, None, None])
    assert total <= ideal * (1 + slack) + header * repeats


def test_a_million_weights_take_less_than_two_seconds_each_way() -> None:
    values = np.clip(np.rint(np.random.default_rng(0).laplace(0, 4, (1000, 1000, 1, 1))), -127, 127).astype(np.int64)
    spec = TensorSpec(Kind.WEIGHT, values.shape)
    start = perf_counter()
    payload = write_tensors([(spec, values)])
    written = perf_counter()
    assert_same([(spec, values)], read_tensors([spec], payload))
    assert written - start < 2 and perf_counter() - written < 2  # half of it on the machine where this was set


def test_codes_do_not_depend_on_memory_layout_or_type() -> None:
    generator = np.random.default_rng(4)
    spec = TensorSpec(Kind.EMBEDDING, (6, 3, 4, 5))
    values = generator.integers(-50, 50, spec.shape)
    payload = write_tensors([(spec, values)])
    for other in (np.asfortranarray(values), values.astype(np.int16), values.astype(np.int8)):
        assert write_tensors([(spec, other)]) == payload


def test_code_length_alone_decides() -> None:
    values = np.rint(np.random.default_rng(5).laplace(0, 5, 400)).astype(np.int64)
    best = coders.choose(values, 127)
    length = CodeLength()
    coders.write_sequence(length, values, 127, best.mode)
    assert length.bits == best.bits
    for scale in range(64):
        length = CodeLength()
        coders.write_sequence(length, values, 127, coders.Laplace(scale, 0))
        assert length.bits >= best.bits
