"""The 2^24 proof: no value ever leaves its interval, the ends are reached, and one beyond 2^24 is one too many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import ONE, POINT, Integers, Row, analysed, program_of, rows_of, values_of
from test_spec import table

from nvc.bitstream.analysis import analyse
from nvc.bitstream.bounds import Proof, prove
from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import InvalidError
from nvc.bitstream.program import Op
from nvc.bitstream.tensors import Kind, TensorSpec
from nvc.conformance.catalogue.networks import random_network

EXACT = 1 << 24
EXTREMES = {  # the largest and smallest numbers that a section can bring, for inputs whose value is not bounded otherwise
    Kind.EMBEDDING: (-2048, 2047),
    Kind.CONSTANT: (-2048, 2047),
    Kind.CODEBOOK: (-128, 127),
    Kind.PHASE: (0, (1 << 32) - 1),
}


def array(*values: int, shape: tuple[int, ...] = ()) -> Integers:
    made = np.array(values, dtype=np.int64)
    return made.reshape(shape) if shape else made


def proof_of(rows: list[Row], tensors: list[Integers]) -> Proof:
    last = len(rows)
    return prove(analysed(*rows, POINT, [50, last, last, last]), tensors)


def proven(rows: list[Row], tensors: list[Integers]) -> bool:
    try:
        proof_of(rows, tensors)
    except InvalidError as error:
        assert error.code == "invalid.bound"
        return False
    return True


# ---- soundness


def extreme(spec: TensorSpec, values: Integers, generator: np.random.Generator) -> Integers:
    """Inputs of a network at the ends of their ranges; other parameters as they are."""
    if spec.kind not in EXTREMES:
        return values
    return generator.choice(np.array(EXTREMES[spec.kind], dtype=np.int64), size=values.shape)


@given(st.integers(0, 10**6), st.integers(0, 2**32), st.booleans())
@settings(deadline=None, max_examples=80)
def test_values_of_the_reference_stay_within_their_intervals(seed: int, dice: int, at_the_ends: bool) -> None:
    network = random_network(seed)
    generator = np.random.default_rng(dice)
    analysis = analyse(network.program, Limits())
    specs = analysis.specs(network.frames)
    tensors = network.tensors
    if at_the_ends:
        tensors = [extreme(spec, values, generator) for spec, values in zip(specs, tensors, strict=True)]
    proof = prove(analysis, tensors)
    for t in {0, network.frames - 1}:
        for number, value in enumerate(values_of(rows_of(network.program), tensors, t, network.frames)):
            assert (proof.low[number] <= value.min(axis=(1, 2))).all()
            assert (value.max(axis=(1, 2)) <= proof.high[number]).all()
            assert np.abs(value).max() <= EXACT


def test_the_operations_with_a_reach_are_those_of_the_text() -> None:
    """Of a program that uses everything, only operations to which SPEC 8.1 gives a reach have one."""
    rows = table("8.1", "operation")
    bare = {name for row in rows if row["reach"] == "0" for name in row["operation"].split(", ")}
    stated = {row["operation"].split(",")[0] for row in rows if row["reach"] != "0"}
    seen = set()
    for seed in range(60):
        network = random_network(seed)
        proof = prove(analyse(network.program, Limits()), network.tensors)
        for operation, reach in zip(network.program.operations, proof.reach, strict=True):
            name = operation.code.name.lower()
            seen.add(operation.code)
            if name in bare or (name == "requantise" and operation["function"] != 4) or name == "output":
                assert reach == 0, name
            else:
                assert name in stated
                assert reach > 0, name
    assert seen == set(Op)


# ---- tightness


@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([1, 3, 5]), st.sampled_from([1, 3]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_ends_of_a_convolution_are_reached_by_some_input(dice: int, channels: int, kh: int, kw: int, grouped: bool) -> None:
    generator = np.random.default_rng(dice)
    groups = channels if grouped else 1
    weight = generator.integers(-127, 128, (channels, channels // groups, kh, kw))
    bias = generator.integers(-5000, 5001, channels)
    rows: list[Row] = [[3, 0, channels, kh, kw], [10, 0, 1, 2, channels, kh, kw, groups]]
    for sign in (1, -1):
        for output in range(channels):
            picture = np.zeros((channels, kh, kw), dtype=np.int64)  # as large as the kernel: its centre sees every tap
            own = slice(output, output + 1) if grouped else slice(None)
            picture[own] = np.where(sign * weight[output] > 0, 2047, -2048)
            tensors = [picture, weight, bias]
            proof = proof_of(rows, tensors)
            end = int((proof.high if sign > 0 else proof.low)[1][output])
            reached = int(values_of(rows, tensors, 0, 1)[1][output, kh // 2, kw // 2])
            assert reached == end + (min(bias[output], 0) if sign > 0 else max(bias[output], 0))


def test_shuffles_slices_and_concatenations_carry_the_interval_of_each_channel() -> None:
    rows: list[Row] = [
        [3, 0, 1, 1, 1],
        [10, 0, 1, 2, 8, 1, 1, 1],
        [20, 1, 2, 2],
        [20, 1, 4, 1],
        [40, 2, 2],
        [21, 4, 2, 1, 2, 1],
        [42, 5, 0, 0, 1, 1],
    ]
    bias = array(-1, 2, -3, 4, -5, 6, -7, 8)
    proof = proof_of(rows, [array(0, shape=(1, 1, 1)), np.zeros((8, 1, 1, 1), dtype=np.int64), bias])
    assert (proof.low[1].tolist(), proof.high[1].tolist()) == ([-1, 0, -3, 0, -5, 0, -7, 0], [0, 2, 0, 4, 0, 6, 0, 8])
    assert (proof.low[2].tolist(), proof.high[2].tolist()) == ([-7, 0], [0, 8])
    assert (proof.low[3].tolist(), proof.high[3].tolist()) == ([-7, 0], [0, 8])
    for number in (4, 5, 6):
        assert (proof.low[number].tolist(), proof.high[number].tolist()) == ([-7, 0, -7, 0], [0, 8, 0, 8])


# ---- 2^24 and one more


def accumulator(*biases: int, start: int = 0, parameter: int = 1) -> tuple[list[Row], list[Integers]]:
    """A point of as many channels as biases whose intervals are from 0 to each bias."""
    channels = len(biases)
    rows: list[Row] = [[10, start, parameter, parameter + 1, channels, 1, 1, 1]]
    return rows, [np.zeros((channels, 1, 1, 1), dtype=np.int64), array(*biases)]


def behind(biases: tuple[int, ...], *rows: Row, tensors: tuple[Integers, ...] = ()) -> bool:
    """Whether `rows` are proven whose value 1 is an accumulator from 0 to `biases`; their parameters start at 3."""
    made, numbers = accumulator(*biases)
    return proven([[3, 0, 1, 1, 1], *made, *rows], [array(0, shape=(1, 1, 1)), *numbers, *tensors])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_convolution_may_reach_2_24_and_no_more(sign: int) -> None:
    rows: list[Row] = [[3, 0, 2, 1, 1], [10, 0, 1, 2, 1, 1, 1, 1]]
    weight = array(127, -3, shape=(1, 2, 1, 1))
    taps = 127 * 2047 + 3 * 2048 if sign > 0 else 127 * 2048 + 3 * 2047
    inputs = array(0, 0, shape=(2, 1, 1))
    assert proven(rows, [inputs, weight, array(sign * (EXACT - taps))])
    assert not proven(rows, [inputs, weight, array(sign * (EXACT - taps + 1))])


def test_the_other_sign_of_a_bias_does_not_buy_room() -> None:
    """Partial sums leave the range before a bias of the other sign is added."""
    rows: list[Row] = [[3, 0, 65, 1, 1], [10, 0, 1, 2, 1, 1, 1, 1]]
    inputs, weight = np.zeros((65, 1, 1), dtype=np.int64), np.full((1, 65, 1, 1), 127)
    assert EXACT < 65 * 127 * 2047
    for bias in (0, -(1 << 23), 1 << 23):
        assert not proven(rows, [inputs, weight, array(bias)])
    assert proven([[3, 0, 64, 1, 1], [10, 0, 1, 2, 1, 1, 1, 1]], [inputs[:64], weight[:, :64], array(0)])


def test_zero_padding_belongs_to_the_interval_of_a_tap() -> None:
    """Behind a sigmoid, 1024 to 1025 here, a tap may still see the 0 beside the map."""
    rows: list[Row] = [[3, 0, 1, 1, 1], [30, 0, 1, 1, 0, 1, 3, 2], [10, 1, 2, 3, 1, 1, 1, 1]]
    proof = proof_of(rows, [array(0, shape=(1, 1, 1)), array(ONE), array(100, shape=(1, 1, 1, 1)), array(-7)])
    assert (proof.low[1].tolist(), proof.high[1].tolist()) == ([1024], [1025])
    assert (proof.low[2].tolist(), proof.high[2].tolist()) == ([-7], [102500])


def test_a_combination_may_reach_2_24_and_no_more() -> None:
    half = 1 << 23
    assert behind((half,), [11, 1, 1, 3], tensors=(array(1, 1),))
    assert not behind((half + 1,), [11, 1, 1, 3], tensors=(array(1, 1),))
    assert behind((half, -half), [41, 1, 0, 1], [41, 1, 1, 2], [11, 2, 3, 3], tensors=(array(1, -1),))
    assert not behind((half, -half - 1), [41, 1, 0, 1], [41, 1, 1, 2], [11, 2, 3, 3], tensors=(array(1, -1),))
    assert behind((4096,), [11, 1, 1, 3], tensors=(array(4095, 1),))
    assert not behind((4097,), [11, 1, 1, 3], tensors=(array(4095, 1),))


def test_the_parts_of_a_combination_count_though_they_cancel() -> None:
    """1024..1025 times 2 * 4095 is 8386560..8394750; twice that is over 2^24, twice that minus that is not."""
    rows: list[Row] = [[3, 0, 1, 1, 1], [30, 0, 1, 1, 0, 1, 3, 2], [11, 1, 1, 2], [11, 2, 2, 3]]
    tensors = [array(0, shape=(1, 1, 1)), array(ONE), array(4095, 4095)]
    proof = proof_of(rows[:3], tensors)
    assert (proof.low[2].tolist(), proof.high[2].tolist()) == ([8386560], [8394750])
    assert not proven(rows, [*tensors, array(2, -1)])
    assert proven(rows, [*tensors, array(1, -1)])


def test_a_product_may_reach_2_24_and_no_more() -> None:
    split: tuple[Row, ...] = ([41, 1, 0, 1], [41, 1, 1, 2], [12, 2, 3])
    for sign in (1, -1):
        assert behind((4096, sign * 4096), *split)
        assert EXACT + 1 == 97 * 172961
        assert not behind((97, sign * 172961), *split)


@pytest.mark.parametrize("factor", [2, 3, 16])
def test_bilinear_may_reach_2_24_and_no_more(factor: int) -> None:
    most = EXACT // (4 * factor * factor)
    for sign in (1, -1):
        assert behind((sign * most,), [22, 1, factor])
        assert not behind((sign * (most + 1),), [22, 1, factor])


def test_haar_may_reach_2_24_and_no_more() -> None:
    quarter = 1 << 22
    assert behind((quarter, -quarter, quarter, -quarter), [23, 1])
    assert not behind((quarter, -quarter, quarter, -quarter - 1), [23, 1])


@pytest.mark.parametrize("stride", [2, 7, 256])
def test_a_strided_embedding_reaches_2048_strides_which_never_passes_2_24(stride: int) -> None:
    proof = proof_of([[1, 0, 1, 1, 1, 0, stride]], [array(0, 0, shape=(2, 1, 1, 1))])
    assert (proof.low[0].tolist(), proof.high[0].tolist()) == ([-2048 * stride], [2047 * stride])
    assert proof.reach[0] == 2048 * stride < EXACT


def test_a_sine_may_be_asked_for_a_phase_of_2_24_and_no_more() -> None:
    sine = [30, 1, 3, 1, 0, 4095, 4, 0]
    assert behind((EXACT,), sine, tensors=(array(ONE),))
    assert not behind((EXACT,), sine, tensors=(array(ONE + 1),))
    most = EXACT * 1024 // 1025  # ONE + 1 is 1025 / 1024
    assert behind((most,), sine, tensors=(array(ONE + 1),))
    assert not behind((most + 1,), sine, tensors=(array(ONE + 1),))
    per_channel = [30, 1, 3, 2, 0, 4095, 4, 0]
    assert not behind((EXACT, 1), per_channel, tensors=(array(ONE, ONE + 1),))  # the largest multiplier stands for all
    clamped = [30, 1, 3, 1, 0, 2047, 0, 0]
    assert behind((EXACT,), clamped, tensors=(array(65535),))  # what is clamped need not be exact


def test_the_refusal_names_the_operation() -> None:
    rows: list[Row] = [[3, 0, 1, 1, 1], *accumulator(EXACT)[0], [11, 1, 1, 3]]
    program = program_of(*rows)
    tensors = [array(0, shape=(1, 1, 1)), *accumulator(EXACT)[1], array(1, 1)]
    with pytest.raises(InvalidError, match=r"operation 2 \(combine\).* 33554432"):
        prove(analyse(program, Limits()), tensors)
