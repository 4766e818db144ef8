"""The reference's analysis of programs against the product's: shapes, costs, numbers and proofs, and the codes of refusals."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import ONE, POINT, Integers, Row, mutate, random_rows, rows_of

from nvc.bitstream import analysis, bounds, canonical
from nvc.bitstream.analysis import Analysis, analyse
from nvc.bitstream.coefficients import digest, read_sections, write_sections
from nvc.bitstream.constants import HASHES, Limits
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.header import Header
from nvc.bitstream.program import SYNTAX, Op, unpack_programs
from nvc.bitstream.segment import Segment
from nvc.bitstream.tensors import Kind, TensorSpec
from nvc.conformance.catalogue.networks import random_network
from nvc.conformance.ref_bounds import prove
from nvc.conformance.ref_errors import Refused
from nvc.conformance.ref_numbers import check_specs
from nvc.conformance.ref_programs import SIGNATURES, P, Program, V, check_picture, parse_programs, read_numbers

SEEDS = st.integers(0, 2**32)
NETWORKS = st.integers(0, 60)
LOW = {  # limits that small networks pass and exceed
    "max_operations": (2, 5, 10, 20),
    "max_tensors": (1, 3, 8),
    "max_parameters": (10, 100, 1000),
    "max_memory_bytes": (100, 1000, 5000),
    "max_macs_per_pixel": (10, 100),
    "max_macs_per_frame": (100, 1000),
    "max_macs_total": (1000, 10000),
}


def random_limits(generator: np.random.Generator) -> Limits:
    changed = {name: int(generator.choice(values)) for name, values in LOW.items() if generator.random() < 0.1}
    return replace(Limits(), **changed)


def nudge(rows: list[Row], generator: np.random.Generator) -> list[Row]:
    """`rows` with one argument replaced by another that the parser takes, so that shapes are what may break."""
    changed = [list(row) for row in rows]
    number = int(generator.integers(len(changed)))
    code, *arguments = changed[number]
    place = int(generator.integers(len(arguments)))
    field = SYNTAX[Op(code)][place]
    match field.kind:
        case "value":
            value = generator.integers(max(number, 1))
        case "parameter":
            value = generator.integers(6)
        case _:
            value = np.clip(generator.choice([field.low, field.high, 1, 2, 3, 4, 11, 2047]), field.low, field.high)
    changed[number][1 + place] = int(value)
    return changed


def changed(rows: list[Row], generator: np.random.Generator) -> list[Row]:
    """`rows` with up to two changes, most of them small."""
    for _ in range(generator.integers(3)):
        change = mutate if generator.random() < 0.3 else nudge
        try:
            rows = change(rows, generator) or rows
        except (KeyError, ValueError, IndexError):  # there is nothing left to nudge behind a mutation
            break
    return rows


def by_product(document: Any, limits: Limits) -> tuple[str, list[Analysis]]:
    try:
        return "ok", [analyse(program, limits) for program in unpack_programs(canonical.pack(document), limits)]
    except BitstreamError as error:
        return error.code, []


def by_reference(document: Any, limits: Limits) -> tuple[str, list[Program]]:
    try:
        return "ok", parse_programs(document, asdict(limits))
    except Refused as error:
        return error.code, []


def specs_of(analysed: Analysis, frames: int) -> list[tuple[str, tuple[int, ...], int]] | str:
    try:
        return [(spec.kind.value, spec.shape, spec.levels) for spec in analysed.specs(frames)]
    except BitstreamError as error:
        return error.code


def reference_specs(program: Program, frames: int) -> list[tuple[str, tuple[int, ...], int]] | str:
    specs = program.specs(frames)
    try:
        check_specs(specs)
    except Refused as error:
        return error.code
    return [(spec.kind, spec.shape, spec.levels) for spec in specs]


def assert_agreed(document: Any, limits: Limits) -> str:
    """Both read the document alike; the code, or ok."""
    code, analyses = by_product(document, limits)
    found, programs = by_reference(document, limits)
    assert found == code
    for ours, theirs in zip(programs, analyses, strict=True):
        assert (ours.name, ours.rows, ours.work) == (theirs.program.name, rows_of(theirs.program), theirs.work)
        for value, made in zip(ours.values, theirs.maps[:-1], strict=True):
            assert value.shape == (made.channels, made.height, made.width)
            assert value.range == ((made.low, made.high) if made.activation else None)
        for frames in (1, 2, 3, 9, 4096, 65535):
            assert reference_specs(ours, frames) == specs_of(theirs, frames)
    return code


# ---- 8.2 to 8.4, 8.7


def test_the_arguments_are_those_of_the_product() -> None:
    kinds = {"value": V, "parameter": P}
    fields = {int(op): tuple(kinds.get(f.kind, (f.low, f.high)) for f in syntax) for op, syntax in SYNTAX.items()}
    assert fields == SIGNATURES


@given(st.lists(NETWORKS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_random_networks_are_read_alike(seeds: list[int]) -> None:
    document = [[f"program {seed}", random_rows(seed)] for seed in seeds]
    assert assert_agreed(document, Limits()) == "ok"


@given(st.lists(NETWORKS, min_size=1, max_size=2), SEEDS)
@settings(deadline=None, max_examples=250)
def test_changed_programs_are_read_or_refused_alike(seeds: list[int], dice: int) -> None:
    generator = np.random.default_rng(dice)
    document = [["p", changed(random_rows(seed), generator)] for seed in seeds]
    assert_agreed(document, random_limits(generator))


def test_every_refusal_is_met_by_these_programs() -> None:
    """A differential test that never met a rule would say nothing of it."""
    met: Counter[str] = Counter()
    for seed in range(400):
        generator = np.random.default_rng(seed)
        met[assert_agreed([["p", changed(random_rows(seed % 60), generator)]], random_limits(generator))] += 1
    codes = {"invalid.program", "invalid.shape", "unsupported.operation"}
    assert codes | {"ok", "limit.operations", "limit.tensors", "limit.memory", "limit.parameters"} <= set(met)


END: Row = [50, 0, 0, 0]


@pytest.mark.parametrize(
    "document",
    [
        *([], {}, "p", 7, {"p": [POINT, END]}, [[]], [["p"]], [["p", [POINT, END], 0]], ["p", [POINT, END]]),
        *([[1, [POINT, END]]], [["p", {}]], [["p", "rows"]], [["p", []]], [["p", [POINT]]], [["p", [[]]]], [["p", [7]]]),
        *([["p", [["4", 0, 1, 1], END]]], [["p", [[4, 0, 1, [1]], END]]]),
        *([["p", [POINT, END]]] * 256, [["p", [POINT, END]]] * 257),
        *([[name, [POINT, END]]] for name in ("", "x" * 32, "x" * 33, " ", "~", "\x1f", "\x7f", "é", "a\nb")),
        *([["p", [POINT, END, rest]]] for rest in (POINT, END, [60], [12, 1, 1])),
        [["p", [POINT, END, [12, 1, 1], [60]]]],
        *([["p", [[60], []]]], [["p", [[], [60]]]], [[7, [[60]]]], [["p", [[60], END]], [7, []]]),
        *([["p", [[code], END]]] for code in (-1, 0, 6, 60, 1 << 63, (1 << 64) - 1, -(1 << 63))),
        *([["p", [POINT, [12, v, 0], [50, 0, 0, 0]]]] for v in (-1, 1, 2, 1 << 63)),
        # a program that only parses before one that does not: shapes come after all parsing
        [["p", [POINT, [23, 0], END]], ["q", [[60]]]],
        [["p", [[3, 0, 4096, 16384, 16384], END]], ["q", [POINT, [23, 0], END]]],
    ],
)
def test_documents_of_another_shape_are_refused_alike(document: Any) -> None:
    assert_agreed(document, Limits())


@pytest.mark.parametrize(
    "row",
    [
        *([10, 0, 2, 3, 4, 2, 1, 1], [10, 0, 2, 3, 4, 1, 2, 1], [10, 0, 2, 3, 6, 1, 1, 4], [10, 0, 2, 3, 6, 1, 1, 3]),
        *([10, 1, 2, 3, 4, 1, 1, 1], [10, 0, 2, 1, 4, 1, 1, 1], [10, 0, 0, 2, 4, 1, 1, 1], [11, 0, 1, 0]),
        *([11, 0, 2, 2], [12, 0, 2], [20, 0, 2, 3], [21, 0, 1, 4, 1, 1], [21, 0, 1, 1, 1, 4], [23, 2]),
        *([30, 0, 2, 2, 0, 1, 0, 0], [40, 0, 1], [40, 0, 2], [41, 0, 2, 2], [41, 0, 0, 5]),
        *([42, 0, 1, 0, 6, 6], [42, 0, 0, 1, 6, 6]),
    ],
)
def test_p12_p13_what_does_not_fit_is_refused(row: Row) -> None:
    rows: list[Row] = [[3, 0, 4, 6, 6], [1, 1, 4, 6, 6, 0, 2], [4, 0, 3, 3], row, POINT, [50, 4, 4, 4]]
    assert assert_agreed([["p", rows]], Limits()) == "invalid.shape"


@pytest.mark.parametrize("outputs", [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
def test_p13_planes_are_activations(outputs: tuple[int, int, int]) -> None:
    rows = [POINT, [12, 0, 0], POINT, [50, *outputs]]
    assert assert_agreed([["p", rows]], Limits()) == "invalid.shape"


REQUANTISE: list[Row] = [[3, 0, 4, 1, 1], [30, 0, 1, 4, 0, 255, 0, 0]]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ([30, 0, 1, 3, 0, 2048, 0, 0], "invalid.shape"),  # the number of multipliers before P9
        ([30, 0, 0, 4, 0, 2048, 0, 0], "invalid.program"),  # P9 before P5
        ([30, 0, 0, 4, 0, 2047, 0, 0], "invalid.shape"),
        ([30, 0, 1, 1, 0, 2047, 0, 0], "invalid.shape"),
    ],
)
def test_the_rules_of_a_requantisation_have_an_order(row: Row, code: str) -> None:
    rows = [*REQUANTISE, row, [50, 1, 1, 1]]
    assert assert_agreed([["p", rows]], Limits()) == code


@pytest.mark.parametrize(
    ("clamp_and_function", "code"),
    [
        *(((0, 2047, function, argument), "ok") for function, argument in ((0, 0), (1, 1), (1, 11), (2, 1), (2, 11))),
        *(((0, 2047, 3, table), "ok") for table in (0, 3)),
        *(((0, 2047, function, argument), "invalid.program") for function, argument in ((0, 1), (1, 0), (2, 0), (3, 4))),
        *(((0, 2048, function, 1), "invalid.program") for function in (1, 2, 3)),
        *(((0, 4095, 4, 0), "ok"), ((0, 4095, 4, 1), "invalid.program")),
        *(((0, 4094, 4, 0), "invalid.program"), ((-1, 4095, 4, 0), "invalid.program"), ((0, 2047, 4, 0), "invalid.program")),
    ],
)
def test_p9_functions_take_their_arguments(clamp_and_function: tuple[int, ...], code: str) -> None:
    rows = [POINT, [30, 0, 0, 1, *clamp_and_function], [50, 0, 0, 0]]
    assert assert_agreed([["p", rows]], Limits()) == code


@pytest.mark.parametrize("second", [[1, 0, 2, 3, 3, 0, 4], [1, 0, 2, 3, 3, 0, 1], [1, 0, 2, 3, 4, 0, 3], [1, 0, 2, 3, 3, 5, 3]])
def test_p5_strides_are_part_of_a_shape_and_offsets_are_not(second: Row) -> None:
    rows = [[1, 0, 2, 3, 3, 0, 3], second, POINT, [50, 2, 2, 2]]
    assert (assert_agreed([["p", rows]], Limits()) == "ok") == (second[5:] == [5, 3])


def test_p5_levels_are_part_of_a_kind() -> None:
    rows = [[2, 0, 1, 3, 3, 8, 2, 0], [2, 0, 2, 3, 3, 16, 2, 0], POINT, [50, 2, 2, 2]]
    assert assert_agreed([["p", rows]], Limits()) == "invalid.shape"


@pytest.mark.parametrize(("channels", "code"), [(4096, "ok"), (4097, "limit.map")])
def test_k1_channels_are_limited(channels: int, code: str) -> None:
    rows = [[3, 0, 4096, 1, 1], [3, 1, channels - 4095, 1, 1], [3, 2, 4095, 1, 1]]
    rows += [[40, 0, 0], [40, 3, 0], [40, 4, 2], [40, 5, 1], POINT, [50, 7, 7, 7]]  # 16383 channels and one, or two
    assert assert_agreed([["p", rows]], Limits()) == code


@pytest.mark.parametrize(("shape", "code"), [((256, 1024, 1024), "ok"), ((241, 1088, 1024), "limit.map")])  # 2^28, 2^16 more
def test_k1_elements_are_limited(shape: tuple[int, ...], code: str) -> None:
    limits = replace(Limits(), max_memory_bytes=1 << 40, max_parameters=1 << 40)
    assert assert_agreed([["p", [[3, 0, *shape], POINT, [50, 1, 1, 1]]]], limits) == code


@given(NETWORKS)
@settings(deadline=None, max_examples=40)
def test_costs_at_a_limit_are_taken_and_over_it_refused(seed: int) -> None:
    rows = random_rows(seed)
    analysed = analyse(unpack_programs(canonical.pack([["p", rows]]), Limits())[0], Limits())
    costs = {
        "max_operations": len(rows),
        "max_tensors": len(analysed.parameters),
        "max_memory_bytes": analysed.peak_memory,
        "max_parameters": sum(int(np.prod(parameter.shape)) for parameter in analysed.parameters),
    }
    codes = ("limit.operations", "limit.tensors", "limit.memory", "limit.parameters")
    for (name, cost), code in zip(costs.items(), codes, strict=True):
        assert by_reference([["p", rows]], replace(Limits(), **{name: cost}))[0] == "ok"
        assert by_reference([["p", rows]], replace(Limits(), **{name: cost - 1}))[0] == code


# ---- the picture


def picture_codes(rows: list[Row], header: Header, limits: Limits) -> tuple[str, str]:
    theirs, ours = (found[0] for _, found in (by_product([["p", rows]], Limits()), by_reference([["p", rows]], Limits())))
    codes = ["ok", "ok"]
    try:
        analysis.check_picture(theirs, header, limits)
    except BitstreamError as error:
        codes[0] = error.code
    pixels = header.width * header.height
    try:
        check_picture(ours, header.plane_shapes(), header.bit_depth, pixels, header.frame_count, asdict(limits))
    except Refused as error:
        codes[1] = error.code
    return codes[0], codes[1]


@given(NETWORKS, SEEDS)
@settings(deadline=None, max_examples=150)
def test_pictures_are_taken_or_refused_alike(seed: int, dice: int) -> None:
    generator, network = np.random.default_rng(dice), random_network(seed)
    header = replace(network.header, frame_count=[None, 1, 7, 1000][generator.integers(4)])
    if generator.random() < 0.3:
        height, width = header.height + generator.integers(2), header.width + generator.integers(2)
        header = replace(header, height=int(height), width=int(width))
    rows = random_rows(seed)
    if generator.random() < 0.4:
        activations = [n for n, value in enumerate(by_reference([["p", rows]], Limits())[1][0].values) if value.range is not None]
        rows = [*rows[:-1], [50, *(int(generator.choice(activations + rows[-1][1:])) for _ in range(3))]]
    theirs, ours = picture_codes(rows, header, random_limits(generator))
    assert ours == theirs


@pytest.mark.parametrize(
    ("channels", "low", "high", "per_pixel", "code"),
    [
        (1, 0, 255, 2, "ok"),
        (1, 0, 255, 1, "limit.compute"),
        (1, 0, 256, 2, "invalid.picture"),
        (1, -1, 255, 2, "invalid.picture"),
        (2, 0, 255, 4, "invalid.picture"),
    ],
)
def test_p8_a_plane_is_one_channel_of_samples(channels: int, low: int, high: int, per_pixel: int, code: str) -> None:
    header = replace(random_network(0).header, width=1, height=1, pixel_format="rgb24")
    rows = [[3, 0, channels, 1, 1], [30, 0, 1, 1, low, high, 0, 0], [50, 1, 1, 1]]  # two operations for each sample
    assert picture_codes(rows, header, replace(Limits(), max_macs_per_pixel=per_pixel)) == (code, code)


@given(NETWORKS, st.integers(1, 1000))
@settings(deadline=None, max_examples=30)
def test_compute_at_a_limit_is_taken_and_over_it_refused(seed: int, frames: int) -> None:
    network = random_network(seed)
    rows, header = random_rows(seed), replace(network.header, frame_count=frames)
    work = analyse(network.program, Limits()).work
    pixels = header.width * header.height
    for name, enough in {
        "max_macs_per_frame": work,
        "max_macs_per_pixel": -(-work // pixels),
        "max_macs_total": work * frames,
    }.items():
        assert picture_codes(rows, header, replace(Limits(), **{name: enough})) == ("ok", "ok")
        assert picture_codes(rows, header, replace(Limits(), **{name: enough - 1})) == ("limit.compute", "limit.compute")


# ---- the numbers of a segment


def pushed(spec: TensorSpec, generator: np.random.Generator) -> Integers:
    """Numbers within the spec's range, often at its ends, so that about half of all networks pass 2^24 somewhere."""
    least, most = spec.range
    match spec.kind, generator.integers(5):
        case Kind.MULTIPLIER, (0 | 1 | 2):
            values = generator.integers(20 << 10, 44 << 10, spec.shape)
        case Kind.BIAS, (0 | 1 | 2):
            values = generator.integers(-1000, 1000, spec.shape) * int(generator.choice([1, 16, 4096]))
        case _, 0:
            values = generator.choice(np.array([least, most]), spec.shape)
        case _, 1:
            values = generator.integers(least, most + 1, spec.shape)
        case _:
            values = np.clip(np.rint(generator.laplace(0, 3, spec.shape)), least, most)
    return np.asarray(values, dtype=np.int64)


def networks(seed: int) -> tuple[Analysis, Program, int]:
    network = random_network(seed)
    return analyse(network.program, Limits()), by_reference([["p", random_rows(seed)]], Limits())[1][0], network.frames


def proofs(analysed: Analysis, program: Program, tensors: list[Integers]) -> tuple[str, str]:
    codes = ["ok", "ok"]
    try:
        bounds.prove(analysed, tensors)
    except BitstreamError as error:
        codes[0] = error.code
    try:
        prove(program, tensors)
    except Refused as error:
        codes[1] = error.code
    return codes[0], codes[1]


@given(NETWORKS, SEEDS)
@settings(deadline=None, max_examples=150)
def test_numbers_are_proven_or_refused_alike(seed: int, dice: int) -> None:
    analysed, program, frames = networks(seed)
    generator = np.random.default_rng(dice)
    tensors = [pushed(spec, generator) for spec in analysed.specs(frames)]
    theirs, ours = proofs(analysed, program, tensors)
    assert ours == theirs


def test_pushed_numbers_pass_and_keep_the_bound() -> None:
    met: Counter[str] = Counter()
    for seed in range(60):
        analysed, program, frames = networks(seed)
        generator = np.random.default_rng(seed)
        theirs, ours = proofs(analysed, program, [pushed(spec, generator) for spec in analysed.specs(frames)])
        assert ours == theirs
        met[ours] += 1
    assert met["ok"] >= 10 and met["invalid.bound"] >= 10


def bias_code(bias: int, *behind: Row, tensors: tuple[Integers, ...] = ()) -> tuple[str, str]:
    """Proofs of an accumulator of exactly `bias`, value 1, and what follows it."""
    rows = [POINT, [10, 0, 0, 1, 1, 1, 1, 1], *behind, [50, 0, 0, 0]]
    analysed, program = by_product([["p", rows]], Limits())[1][0], by_reference([["p", rows]], Limits())[1][0]
    numbers = [np.zeros((1, 1, 1, 1), dtype=np.int64), np.array([bias]), *tensors]
    return proofs(analysed, program, numbers)


SINE: Row = [30, 1, 2, 1, 0, 4095, 4, 0]


@pytest.mark.parametrize(
    ("largest", "behind", "tensors"),
    [
        (1 << 23, [11, 1, 1, 2], ([1, 1],)),
        (1 << 23, [11, 1, 0, 2], ([2, 4095],)),
        ((1 << 24) // 3, [11, 1, 1, 2], ([3, -2],)),  # a part passes 2^24 where the sum does not
        (1 << 12, [12, 1, 1], ()),
        (1 << 20, [22, 1, 2], ()),
        ((1 << 24) // 36, [22, 1, 3], ()),
        (1 << 24, SINE, ([ONE],)),
        (1 << 23, SINE, ([ONE + 1024],)),
        ((1 << 24) - 16369, SINE, ([ONE + 1],)),  # floor(2^24 1024 / 1025)
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_b1_2_24_is_taken_and_more_is_refused(largest: int, behind: Row, tensors: tuple[list[int], ...], sign: int) -> None:
    numbers = tuple(np.array(tensor, dtype=np.int64) for tensor in tensors)
    assert bias_code(sign * largest, behind, tensors=numbers) == ("ok", "ok")
    if largest < 1 << 24:
        assert bias_code(sign * (largest + 1), behind, tensors=numbers) == ("invalid.bound", "invalid.bound")


@pytest.mark.parametrize("sign", [1, -1])
def test_b1_a_bias_of_the_other_sign_buys_no_room_and_groups_have_their_own_channels(sign: int) -> None:
    """Two groups of 66 channels, of 0..1 and of 0..2047, with weights of one sign: 66 x 127 x 2047 is over 2^24."""
    rows: list[Row] = [[3, 0, 66, 1, 1], [30, 0, 1, 1, 0, 1, 0, 0], [30, 0, 1, 1, 0, 2047, 0, 0], [40, 1, 2]]
    rows += [[10, 3, 2, 3, 2, 1, 1, 2], POINT, [50, 5, 5, 5]]
    analysed, program = by_product([["p", rows]], Limits())[1][0], by_reference([["p", rows]], Limits())[1][0]
    for weight, bias, code in ((127, 0, "invalid.bound"), (127, -1_000_000, "invalid.bound"), (124, 0, "ok")):
        weights = np.full((2, 66, 1, 1), sign * weight, dtype=np.int64)
        tensors = [np.zeros((66, 1, 1), dtype=np.int64), np.array([ONE]), weights, np.array([0, sign * bias])]
        assert proofs(analysed, program, tensors) == (code, code)


@pytest.mark.parametrize(("gains", "code"), [((5, -5), "invalid.bound"), ((4, -4), "ok")])
def test_b1_the_parts_of_a_sum_count_though_they_cancel(gains: tuple[int, int], code: str) -> None:
    """exp of 0..2019 is 256..1839: 5 times its square passes 2^24, and the difference of two of those does not."""
    rows: list[Row] = [POINT, [30, 0, 0, 1, 0, 2019, 3, 3], [12, 1, 1], [11, 2, 2, 1], [50, 0, 0, 0]]
    analysed, program = by_product([["p", rows]], Limits())[1][0], by_reference([["p", rows]], Limits())[1][0]
    assert proofs(analysed, program, [np.array([ONE]), np.array(gains)]) == (code, code)


@pytest.mark.parametrize(
    ("rows", "channels", "largest"),
    [
        ([[20, 1, 2, 2], [40, 2, 2]], 4, 1 << 13),
        ([[41, 1, 3, 5], [40, 2, 1]], 10, 1 << 13),
        ([[41, 1, 2, 6], [40, 1, 2]], 12, 1 << 13),
        ([[23, 1], [40, 2, 2]], 4, 1 << 11),
        ([[21, 1, 2, 1, 3, 1], [42, 2, 1, 1, 1, 1]], 8, 1 << 13),
    ],
)
def test_every_channel_has_an_interval_of_its_own(rows: list[Row], channels: int, largest: int) -> None:
    """Eight channels of different bounds are moved, then each is multiplied with another: the place of every bound shows."""
    met: Counter[str] = Counter()
    program_rows = [POINT, [10, 0, 0, 1, 8, 1, 1, 1], *rows, [10, 0, 2, 3, channels, 1, 1, 1], [12, 3, 4], [50, 0, 0, 0]]
    document = [["p", program_rows]]
    analysed, program = by_product(document, Limits())[1][0], by_reference(document, Limits())[1][0]
    for seed in range(60):
        generator = np.random.default_rng(seed)
        biases = [generator.integers(-largest, largest, 8), generator.integers(-(1 << 12), 1 << 12, channels)]
        weights = [np.zeros((len(bias), 1, 1, 1), dtype=np.int64) for bias in biases]
        theirs, ours = proofs(analysed, program, [weights[0], biases[0], weights[1], biases[1]])
        assert ours == theirs
        met[ours] += 1
    assert set(met) == {"ok", "invalid.bound"}


@pytest.mark.parametrize(("excess", "code"), [(0, "ok"), (1, "invalid.bound")])
def test_b1_a_strided_embedding_ends_at_2047_strides(excess: int, code: str) -> None:
    tensors = (np.zeros((2, 1, 1, 1), dtype=np.int64), np.array([1, 1]))
    bias = (1 << 24) - 2 * 2047 + excess
    assert bias_code(bias, [1, 2, 1, 1, 1, 0, 2], [11, 1, 2, 3], tensors=tensors) == (code, code)


def sections_read(
    analysed: Analysis, program: Program, frames: int, sections: dict[int, bytes], limits: Limits
) -> tuple[str, str]:
    """What both say of the sections of a segment; they read the same numbers where they take it."""
    tensors: list[Integers] = []
    try:
        tensors = read_numbers(program, frames, sections, asdict(limits))
        ours = "ok"
        prove(program, tensors)
    except Refused as error:
        ours = error.code
    segment = Segment(0, frames, 0, digest(tensors), {**sections, HASHES: bytes(8 * frames)})
    try:
        read = read_sections(analysed, segment, limits)
    except BitstreamError as error:
        return error.code, ours
    assert all(np.array_equal(a, b) for a, b in zip(read, tensors, strict=True))
    return "ok", ours


def other_sections(sections: dict[int, bytes], generator: np.random.Generator) -> dict[int, bytes]:
    """With a section left out, added, damaged or cut."""
    changed, kind = dict(sections), int(generator.choice(list(sections)))
    match generator.integers(4):
        case 0:
            changed.pop(int(generator.integers(2, 5)), None)
        case 1:
            changed.setdefault(int(generator.integers(1, 5)), bytes(4))
        case 2 if changed[kind]:
            data = bytearray(changed[kind])
            data[generator.integers(len(data))] ^= 1 << generator.integers(8)
            changed[kind] = bytes(data)
        case _:
            changed[kind] = changed[kind][: int(generator.integers(len(changed[kind]) + 1))]
    return changed


@given(NETWORKS, SEEDS)
@settings(deadline=None, max_examples=40)
def test_segments_are_read_or_refused_alike(seed: int, dice: int) -> None:
    analysed, program, frames = networks(seed)
    generator = np.random.default_rng(dice)
    tensors = [pushed(spec, generator) for spec in analysed.specs(frames)]
    sections = write_sections(analysed, tensors, frames)
    theirs, ours = sections_read(analysed, program, frames, sections, Limits())
    assert ours == theirs
    for _ in range(4):
        limits = replace(Limits(), max_parameters=int(generator.choice([100, 20000, 20000])))
        stated = int(generator.choice([frames, frames, frames, 1, 4, 4096]))
        theirs, ours = sections_read(analysed, program, stated, other_sections(sections, generator), limits)
        assert ours == theirs


@pytest.mark.parametrize(
    ("rows", "sections"),
    [
        ([POINT, END], {1: b""}),
        ([POINT, END], {1: bytes(4)}),
        ([POINT, END], {1: b"", 2: bytes(4)}),
        ([POINT, END], {1: bytes(4), 3: bytes(4)}),
        ([[1, 0, 1, 1, 1, 0, 1], END], {1: b"", 3: bytes(4)}),
        ([[1, 0, 1, 1, 1, 0, 1], END], {1: b""}),
        ([[1, 0, 1, 1, 1, 0, 1], END], {1: b"", 3: bytes(3), 4: bytes(4)}),
        ([[3, 0, 1, 1, 1], END], {1: b""}),
        ([[1, 0, 1, 16384, 16384, 0, 1], POINT, [50, 1, 1, 1]], {1: b""}),  # invalid.tensor_shape before limit.parameters
        ([[1, 0, 1, 4096, 8192, 0, 1], POINT, [50, 1, 1, 1]], {1: b""}),
    ],
)
def test_p6_presence_shapes_and_limits_come_in_one_order(rows: list[Row], sections: dict[int, bytes]) -> None:
    limits = replace(Limits(), max_parameters=1 << 29)
    analysed, program = by_product([["p", rows]], limits)[1][0], by_reference([["p", rows]], limits)[1][0]
    for frames, most in ((1, 1 << 25), (2, 1 << 25), (2, 1 << 29)):
        theirs, ours = sections_read(analysed, program, frames, sections, replace(limits, max_parameters=most))
        assert ours == theirs
