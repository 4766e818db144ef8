"""Analysis of programs: shapes are those that the reference computes, costs are those done by hand, limits come before memory."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import POINT, Row, analysed, mutate, program_of, random_rows, rows_of, values_of
from test_spec import table

from nvc.bitstream import canonical
from nvc.bitstream.analysis import MAX_ELEMENTS, Parameter, analyse, check_picture
from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import BitstreamError, LimitError
from nvc.bitstream.header import Header
from nvc.bitstream.program import Op, unpack_programs
from nvc.bitstream.tensors import Kind
from nvc.conformance.catalogue.networks import random_network

LIMITS = Limits()
PIXELS = [30, 0, 0, 1, 0, 255, 0, 0]  # requantise value 0 to samples by parameter 0


def refused(*rows: Row, limits: Limits = LIMITS) -> str:
    with pytest.raises(BitstreamError) as caught:
        analyse(program_of(*rows), limits)
    return caught.value.code


def plane(height: int, width: int) -> Row:
    return [int(Op.COORDINATES), 0, height, width]


# ---- shapes


@pytest.mark.parametrize("seed", range(40))
def test_shapes_and_ranges_are_those_of_the_reference(seed: int) -> None:
    network = random_network(seed)
    analysis = analyse(network.program, LIMITS)
    assert [spec.shape for spec in analysis.specs(network.frames)] == [tensor.shape for tensor in network.tensors]
    for t in range(network.frames):
        values = values_of(rows_of(network.program), network.tensors, t, network.frames)
        for made, value in zip(analysis.maps, values, strict=False):
            assert (made.channels, made.height, made.width) == value.shape
            assert not made.activation or made.low <= value.min() <= value.max() <= made.high
    check_picture(analysis, network.header, LIMITS)


@given(st.integers(0, 40), st.integers(0, 2**32))
@settings(deadline=None, max_examples=250)
def test_a_changed_program_is_analysed_or_refused_and_nothing_else(seed: int, dice: int) -> None:
    try:
        payload = canonical.pack([["p", mutate(random_rows(seed), np.random.default_rng(dice))]])
        analysis = analyse(unpack_programs(payload, LIMITS)[0], LIMITS)
        check_picture(analysis, Header(8, 8, 1), LIMITS)
    except BitstreamError:
        return
    assert len(analysis.maps) == len(analysis.program.operations)


@given(st.integers(1, 4096), st.integers(1, 256))
@settings(deadline=None)
def test_a_strided_embedding_has_just_enough_entries_to_interpolate_to_the_last_frame(frames: int, stride: int) -> None:
    nodes = frames if stride == 1 else len(range(0, frames - 1 + stride, stride))
    assert Parameter(Kind.EMBEDDING, (2, 3, 4), stride=stride).spec(frames).shape == (nodes, 2, 3, 4)


CHANNELS_6 = [1, 0, 6, 4, 6, 0, 1]  # an embedding 6 x 4 x 6, parameter 0
STRIDED_6 = [1, 0, 6, 4, 6, 0, 2]  # the same as an accumulator
BAD_SHAPES: dict[str, list[Row]] = {
    "groups that do not divide the inputs": [CHANNELS_6, [10, 0, 1, 2, 8, 1, 1, 4]],
    "groups that do not divide the outputs": [CHANNELS_6, [10, 0, 1, 2, 4, 1, 1, 3]],
    "an even kernel height": [CHANNELS_6, [10, 0, 1, 2, 4, 2, 1, 1]],
    "an even kernel width": [CHANNELS_6, [10, 0, 1, 2, 4, 1, 14, 1]],
    "combined heights": [plane(4, 6), plane(3, 6), [11, 0, 1, 0]],
    "multiplied widths": [plane(4, 6), plane(4, 5), [12, 0, 1]],
    "multiplied channels": [CHANNELS_6, [41, 0, 0, 2], [12, 0, 1]],
    "channels that do not shuffle": [CHANNELS_6, [20, 0, 2, 2]],
    "a height that is not whole": [plane(5, 6), [21, 0, 3, 2, 1, 1]],
    "a width that is not whole": [plane(6, 5), [21, 0, 1, 1, 1, 2]],
    "no four bands": [CHANNELS_6, [23, 0]],
    "multipliers for other channels": [CHANNELS_6, [30, 0, 1, 2, 0, 1, 0, 0]],
    "concatenated heights": [plane(4, 6), plane(3, 6), [40, 0, 1]],
    "concatenated kinds": [CHANNELS_6, [1, 1, 6, 4, 6, 0, 2], [40, 0, 1]],
    "an empty slice": [CHANNELS_6, [41, 0, 3, 3]],
    "a backward slice": [CHANNELS_6, [41, 0, 3, 2]],
    "a slice beyond the channels": [CHANNELS_6, [41, 0, 3, 7]],
    "a crop below the map": [plane(4, 6), [42, 0, 1, 0, 4, 6]],
    "a crop right of the map": [plane(4, 6), [42, 0, 0, 3, 4, 4]],
    "one parameter in two kinds": [CHANNELS_6, [3, 0, 6, 4, 6]],
    "one parameter in two shapes": [CHANNELS_6, [1, 0, 6, 6, 4, 0, 1]],
    "one parameter in two strides": [CHANNELS_6, STRIDED_6],
    "tokens of other levels": [[2, 0, 1, 2, 2, 8, 3, 0], [2, 0, 2, 2, 2, 9, 3, 0]],
    "frequencies and phases of one parameter in two shapes": [[5, 0, 1, 2], [5, 1, 0, 3]],
}
GOOD_SHAPES: dict[str, tuple[list[Row], tuple[int, int, int]]] = {
    "groups": ([CHANNELS_6, [10, 0, 1, 2, 4, 3, 5, 2]], (4, 4, 6)),
    "broadcast both ways": ([plane(4, 1), plane(1, 6), [12, 0, 1]], (1, 4, 6)),
    "broadcast channels": ([CHANNELS_6, plane(4, 6), [11, 0, 1, 1]], (6, 4, 6)),
    "shuffle": ([CHANNELS_6, [20, 0, 3, 2]], (1, 12, 12)),
    "nearest": ([CHANNELS_6, [21, 0, 3, 2, 5, 3]], (6, 6, 10)),
    "bilinear": ([CHANNELS_6, [22, 0, 3]], (6, 12, 18)),
    "haar": ([CHANNELS_6, [41, 0, 0, 4], [23, 1]], (1, 8, 12)),
    "one multiplier a channel": ([CHANNELS_6, [30, 0, 1, 6, 0, 1, 0, 0]], (6, 4, 6)),
    "slice": ([CHANNELS_6, [41, 0, 5, 6]], (1, 4, 6)),
    "crop": ([CHANNELS_6, [42, 0, 1, 2, 3, 4]], (6, 3, 4)),
    "a parameter used twice": ([CHANNELS_6, CHANNELS_6, [40, 0, 1]], (12, 4, 6)),
    "both phases in one parameter": ([[5, 0, 0, 3]], (3, 1, 1)),
}


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    assert refused(*BAD_SHAPES[name]) == "invalid.shape"


@pytest.mark.parametrize("name", GOOD_SHAPES)
def test_shapes_that_fit_are_inferred(name: str) -> None:
    rows, shape = GOOD_SHAPES[name]
    rows = [*rows, plane(1, 1)]
    made = analyse(program_of(*rows, [50, len(rows) - 1, len(rows) - 1, len(rows) - 1]), LIMITS).maps[len(rows) - 2]
    assert (made.channels, made.height, made.width) == shape


def test_operands_that_must_be_activations_are_those_of_the_text() -> None:
    """An accumulator where SPEC 8.4 asks for an activation is refused, elsewhere it is taken."""
    convolution = [10, 0, 1, 2, 4, 1, 1, 1]
    assert "v x (act)" in next(row for row in table("8.4", "code") if row["operation"] == "convolution")["arguments (range)"]
    assert refused(STRIDED_6, convolution) == "invalid.shape"
    for number in range(3):
        output = [50, 1, 1, 1]
        output[1 + number] = 0
        assert refused([1, 0, 1, 1, 1, 0, 2], POINT, output) == "invalid.shape"
    others = [row["operation"] for row in table("8.4", "code") if "(act)" in row["arguments (range)"]]
    assert others == ["convolution", "output"]
    taken: list[Row] = [[11, 0, 0, 1], [12, 0, 0], [20, 0, 1, 1], [21, 0, 1, 1, 1, 1], [22, 0, 2], [30, 0, 1, 1, 0, 1, 0, 0]]
    for row in [*taken, [40, 0, 0], [41, 0, 0, 1], [42, 0, 0, 0, 1, 1]]:
        analyse(program_of(STRIDED_6, row, POINT, [50, 2, 2, 2]), LIMITS)


@pytest.mark.parametrize(
    ("low", "high", "function", "argument", "code"),
    [
        (0, 2047, 0, 0, None),
        (0, 2048, 0, 0, "invalid.program"),
        (0, 4095, 3, 0, "invalid.program"),
        (0, 4095, 4, 0, None),
        (-1, 4095, 4, 0, "invalid.program"),
        (0, 4094, 4, 0, "invalid.program"),
        (0, 2047, 4, 0, "invalid.program"),
        (0, 4095, 4, 1, "invalid.program"),
        (0, 255, 0, 1, "invalid.program"),
        (0, 255, 1, 0, "invalid.program"),
        (0, 255, 1, 11, None),
        (0, 255, 2, 0, "invalid.program"),
        (0, 255, 2, 11, None),
        (0, 255, 3, 3, None),
        (0, 255, 3, 4, "invalid.program"),
    ],
)
def test_p9_only_the_sine_takes_phases_and_functions_take_their_arguments(
    low: int, high: int, function: int, argument: int, code: str | None
) -> None:
    rows = [POINT, [30, 0, 0, 1, low, high, function, argument]]
    if code is None:
        analysed(*rows)
    else:
        assert refused(*rows) == code


# ---- cost


def test_multiply_adds_of_a_grouped_convolution_by_hand() -> None:
    analysis = analysed([3, 0, 6, 7, 9], [10, 0, 1, 2, 8, 3, 5, 2])
    assert analysis.macs == 8 * 3 * 3 * 5 * 7 * 9
    assert analysis.work == analysis.macs + 6 * 7 * 9 + 8 * 7 * 9


def test_memory_is_that_of_the_values_that_live_at_once() -> None:
    """v0 of 100 lives until v3; v1 of 900 only until v2; v3 needs v0, v2 and itself."""
    rows = [plane(10, 10), [21, 0, 3, 1, 3, 1], [42, 1, 0, 0, 10, 10], [11, 0, 2, 0], [30, 3, 1, 1, 0, 255, 0, 0]]
    assert analysed(*rows, [50, 4, 4, 4]).peak_memory == 4 * (100 + 900 + 100)
    assert analysed(*rows, [50, 4, 4, 1]).peak_memory == 4 * (100 + 900 + 100 + 100)  # v0 and v3 never live with v4
    assert analysed(plane(10, 10), plane(20, 20), plane(1, 1), [50, 2, 2, 2]).peak_memory == 4 * 400  # never read: dropped


def test_parameters_are_counted_without_the_frames() -> None:
    rows: list[Row] = [[1, 0, 2, 3, 4, 0, 1], [2, 1, 2, 5, 6, 7, 8, 0], [10, 0, 3, 4, 9, 1, 1, 1]]
    numbers = 2 * 3 * 4 + 5 * 6 + 7 * 8 + 9 * 2 + 9
    analyse(program_of(*rows), Limits(max_parameters=numbers))
    assert refused(*rows, limits=Limits(max_parameters=numbers - 1)) == "limit.parameters"


def test_limits_are_exact() -> None:
    side = 1 << 14
    assert side * side == MAX_ELEMENTS
    wide = Limits(max_memory_bytes=1 << 40, max_parameters=1 << 40)
    analyse(program_of([3, 0, 1, side, side]), wide)
    assert refused([3, 0, 2, side, side], limits=wide) == "limit.map"
    rows = [plane(10, 10)]
    analyse(program_of(*rows), Limits(max_memory_bytes=400))
    assert refused(*rows, limits=Limits(max_memory_bytes=399)) == "limit.memory"


HUGE: dict[str, tuple[list[Row], str]] = {
    "a constant of 2^40": ([[3, 0, 4096, 16384, 16384]], "limit.map"),
    "an embedding of 2^40": ([[1, 0, 4096, 16384, 16384, 0, 1]], "limit.map"),
    "tokens of 2^36": ([[2, 0, 1, 16384, 16384, 4096, 256, 0]], "limit.map"),
    "weights of 2^31": ([[3, 0, 4096, 1, 1], [10, 0, 1, 2, 4096, 15, 15, 1]], "limit.parameters"),
    "maps that grow 256-fold": ([plane(2048, 2048), [21, 0, 16, 1, 16, 1], [21, 1, 16, 1, 16, 1]], "limit.map"),
    "bilinear maps that grow": ([plane(2048, 2048), [22, 0, 8], [22, 1, 16]], "limit.map"),
    "many large maps": (
        [plane(2048, 2048), *([21, 0, 8, 1, 8, 1] for _ in range(6)), *([12, 1, n] for n in range(2, 7))],
        "limit.memory",
    ),
    "channels that double": ([[3, 0, 4096, 1, 1], *([40, n, n] for n in range(20))], "limit.map"),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_large_is_refused_in_no_time_and_memory(name: str) -> None:
    rows, code = HUGE[name]
    program = program_of(*rows)
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(BitstreamError) as caught:
            analyse(program, LIMITS)
        seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code == code
    assert peak < 1 << 20
    assert seconds < 0.25  # a millisecond, on a machine that may be busy


# ---- the picture of HEAD


def picture(*rows: Row, header: Header, limits: Limits = LIMITS) -> str | None:
    try:
        check_picture(analyse(program_of(*rows), LIMITS), header, limits)
    except BitstreamError as error:
        return error.code
    return None


RGB = Header(6, 4, 1, frame_count=10, time_base=Fraction(1, 25))
YUV = Header(5, 3, 0)
ROWS = [plane(4, 6), PIXELS, [50, 1, 1, 1]]


def test_p8_planes_have_the_sizes_of_head_in_its_order() -> None:
    assert picture(*ROWS, header=RGB) is None
    for header in (replace(RGB, width=5), replace(RGB, height=5), replace(RGB, width=4, height=6), replace(RGB, pixel_format=0)):
        assert picture(*ROWS, header=header) == "invalid.picture"
    rows = [plane(3, 5), PIXELS, [42, 1, 0, 0, 2, 3]]
    assert picture(*rows, [50, 1, 2, 2], header=YUV) is None
    for output in ([50, 2, 1, 2], [50, 2, 2, 1], [50, 1, 1, 1]):
        assert picture(*rows, output, header=YUV) == "invalid.picture"


def test_p8_planes_have_one_channel_and_samples_of_the_bit_depth() -> None:
    assert picture([3, 0, 3, 4, 6], [30, 0, 1, 1, 0, 255, 0, 0], [50, 1, 1, 1], header=RGB) == "invalid.picture"
    for low, high, expected in ((0, 256, "invalid.picture"), (-1, 255, "invalid.picture"), (0, 254, None)):
        assert picture(plane(4, 6), [30, 0, 0, 1, low, high, 0, 0], [50, 1, 1, 1], header=RGB) == expected
    assert picture(plane(4, 6), PIXELS, [50, 1, 1, 0], header=RGB) == "invalid.picture"


def test_compute_is_limited_per_frame_per_pixel_and_per_file() -> None:
    work = 2 * 4 * 6  # two maps, no convolution
    exact = Limits(max_macs_per_frame=work, max_macs_per_pixel=2, max_macs_total=10 * work)
    assert picture(*ROWS, header=RGB, limits=exact) is None
    for less in ({"max_macs_per_frame": work - 1}, {"max_macs_per_pixel": 1}, {"max_macs_total": 10 * work - 1}):
        assert picture(*ROWS, header=RGB, limits=replace(exact, **less)) == "limit.compute"
    assert picture(*ROWS, header=replace(RGB, frame_count=None), limits=replace(exact, max_macs_total=1)) is None


def test_the_multiply_adds_of_one_frame_have_a_limit_of_their_own() -> None:
    network = random_network(3)
    analysis = analyse(network.program, Limits())
    check_picture(analysis, network.header, Limits(max_macs_per_frame=analysis.work))
    with pytest.raises(LimitError, match="a frame needs") as refused:
        check_picture(analysis, network.header, Limits(max_macs_per_frame=analysis.work - 1))
    assert refused.value.code == "limit.compute"
