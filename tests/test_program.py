"""Programs and their bytes: what is written comes back, every rule of SPEC 8.2 and 8.3 has its code, SPEC and SYNTAX agree."""

from __future__ import annotations

import re

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import POINT, Row, document, mutate, parse, random_rows, rows_of
from test_spec import section, table

from nvc.bitstream import arithmetic, canonical, constants
from nvc.bitstream.coefficients import SECTION_OF
from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.program import SYNTAX, Builder, Field, Op, Operation, Program, describe, pack_programs, unpack_programs
from nvc.bitstream.tensors import Kind
from nvc.conformance.catalogue.networks import random_network

OUTPUT = [50, 0, 0, 0]
OPERATIONS = [op for op in Op if op is not Op.OUTPUT]
LIMITS = Limits()


def refused(payload: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(BitstreamError) as caught:
        unpack_programs(payload, limits)
    return caught.value.code


def row(op: Op, **changed: int) -> Row:
    """A row that the parser takes behind POINT: lowest numbers, value 0, parameters in order."""
    entries, parameters = [int(op)], 0
    for field in SYNTAX[op]:
        default = field.low
        if field.kind == "parameter":
            default, parameters = parameters, parameters + 1
        entries.append(changed.get(field.name, default))
    return entries


# ---- bytes


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_programs_come_back_and_are_what_a_plain_msgpack_reader_sees(seeds: list[int]) -> None:
    programs = tuple(random_network(seed).program for seed in seeds)
    payload = pack_programs(programs)
    assert unpack_programs(payload, LIMITS) == programs
    assert msgpack.unpackb(payload) == [[program.name, rows_of(program)] for program in programs]


@given(st.integers(0, 40), st.integers(0, 2**32), st.integers(1, 3))
@settings(deadline=None, max_examples=300)
def test_a_changed_document_is_a_program_or_refused_and_nothing_else(seed: int, dice: int, times: int) -> None:
    generator, rows = np.random.default_rng(dice), random_rows(seed)
    for _ in range(times):
        rows = [each or [0] for each in mutate(rows, generator)] or [[0]]
    payload = canonical.pack([["p", rows]])
    try:
        programs = unpack_programs(payload, LIMITS)
    except BitstreamError:
        return
    assert pack_programs(programs) == payload
    assert [rows_of(program) for program in programs] == [rows]


@given(st.integers(0, 40), st.data())
@settings(deadline=None, max_examples=200)
def test_damaged_bytes_are_a_program_or_refused_and_nothing_else(seed: int, data: st.DataObject) -> None:
    payload = bytearray(document(*random_rows(seed)))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        programs = unpack_programs(bytes(payload), LIMITS)
    except BitstreamError:
        return
    assert pack_programs(programs) == payload


# ---- P1 to P4


@pytest.mark.parametrize(
    "tree",
    [
        0,
        "p",
        {},
        [],
        [[]] * 257,
        [["p", [OUTPUT]]] * 257,
        [["p"]],
        [["p", [POINT, OUTPUT], []]],
        [[1, [POINT, OUTPUT]]],
        [["p", "q"]],
        [["p", [POINT, "q", OUTPUT]]],
        [["p", [POINT, [], OUTPUT]]],
        [["p", [POINT, [41, 0, 0, "1"], OUTPUT]]],
        [["p", [POINT, [41, 0, 0, [1]], OUTPUT]]],
        [["", [POINT, OUTPUT]]],
        [["p" * 33, [POINT, OUTPUT]]],
        [["caf\u00e9", [POINT, OUTPUT]]],
        [["a\nb", [POINT, OUTPUT]]],
        [["a\x7f", [POINT, OUTPUT]]],
    ],
)
def test_p1_another_shape_of_the_document_is_refused(tree: object) -> None:
    assert refused(msgpack.packb(tree)) == "invalid.program"


def test_p1_names_and_counts_at_their_ends_are_taken() -> None:
    for name in ("p", "~" * 32, "a b"):
        assert unpack_programs(document(POINT, OUTPUT, name=name), LIMITS)[0].name == name
    assert len(unpack_programs(canonical.pack([["p", [POINT, OUTPUT]]] * 256), LIMITS)) == 256


@pytest.mark.parametrize("code", [*(set(range(70)) - set(Op)), 60, 61, -1, 255, (1 << 64) - 1, -(1 << 63)])
def test_p1_unknown_and_reserved_operations_are_unsupported(code: int) -> None:
    assert refused(document(POINT, [code], OUTPUT)) == "unsupported.operation"
    assert refused(document(POINT, [code, 0, 0, 1], OUTPUT)) == "unsupported.operation"


NUMBERS = [(op, field) for op in Op for field in SYNTAX[op] if field.kind == "number"]


@pytest.mark.parametrize(("op", "field"), NUMBERS, ids=lambda item: getattr(item, "name", None))
def test_p2_numbers_are_taken_up_to_their_ends_and_refused_beyond(op: Op, field: Field) -> None:
    for value in (field.low, field.high):
        made = parse(POINT, row(op, **{field.name: value}), OUTPUT).operations[1]
        assert (made.code, made[field.name]) == (op, value)
    for value in (field.low - 1, field.high + 1, (1 << 64) - 1):
        assert refused(document(POINT, row(op, **{field.name: value}), OUTPUT)) == "invalid.program"


@pytest.mark.parametrize("op", OPERATIONS)
def test_p2_a_wrong_number_of_arguments_is_refused(op: Op) -> None:
    parse(POINT, row(op), OUTPUT)
    assert refused(document(POINT, row(op)[:-1], OUTPUT)) == "invalid.program"
    assert refused(document(POINT, [*row(op), 1], OUTPUT)) == "invalid.program"


@pytest.mark.parametrize(
    "rows", [[], [POINT], [OUTPUT], [POINT, OUTPUT, POINT], [POINT, OUTPUT, OUTPUT], [POINT, POINT, OUTPUT, POINT, OUTPUT]]
)
def test_p3_the_last_operation_is_the_output_and_the_only_one(rows: list[Row]) -> None:
    assert refused(document(*rows)) == "invalid.program"


@pytest.mark.parametrize("value", [-1, 1, 2, 3, 1 << 63, -(1 << 63)])
@pytest.mark.parametrize("op", [op for op in Op if any(field.kind == "value" for field in SYNTAX[op])])
def test_operands_are_values_of_earlier_operations(op: Op, value: int) -> None:
    for field in SYNTAX[op]:
        if field.kind == "value":
            rows = [POINT, row(op, **{field.name: value})]
            assert refused(document(*rows, *([] if op is Op.OUTPUT else [OUTPUT]))) == "invalid.program"


def test_the_value_of_the_output_cannot_be_read() -> None:
    assert refused(document(POINT, OUTPUT, [23, 1], OUTPUT)) == "invalid.program"


@pytest.mark.parametrize(("weight", "bias", "taken"), [(0, 1, True), (0, 0, True), (0, 2, False), (1, 0, False), (-1, 0, False)])
def test_p4_parameters_are_numbered_in_the_order_of_their_first_use(weight: int, bias: int, taken: bool) -> None:
    payload = document(POINT, row(Op.CONVOLUTION, weight=weight, bias=bias), OUTPUT)
    if taken:
        assert unpack_programs(payload, LIMITS)[0].parameters == max(weight, bias) + 1
    else:
        assert refused(payload) == "invalid.program"


def test_p4_a_later_operation_may_use_a_parameter_again_but_not_skip_one() -> None:
    first = row(Op.COMBINE, gains=0)
    assert parse(POINT, first, first, row(Op.COMBINE, gains=1), OUTPUT).parameters == 2
    assert refused(document(POINT, first, row(Op.COMBINE, gains=2), OUTPUT)) == "invalid.program"


def test_limits_hold_for_what_is_over_them_only() -> None:
    rows = [POINT, row(Op.COMBINE, gains=0), row(Op.COMBINE, gains=1), OUTPUT]
    parse(*rows, limits=Limits(max_operations=4, max_tensors=2))
    assert refused(document(*rows), Limits(max_operations=3)) == "limit.operations"
    assert refused(document(*rows), Limits(max_tensors=1)) == "limit.tensors"
    parse(*[POINT] * 1023, OUTPUT)
    assert refused(document(*[POINT] * 1024, OUTPUT)) == "limit.operations"


# ---- builder and people


def test_the_builder_numbers_values_and_parameters_in_order() -> None:
    builder = Builder("b")
    assert builder.add(Op.COORDINATES, 0, 1, 1) == 0
    assert [builder.parameter(thing) for thing in ("w", "b")] == [0, 1]
    assert builder.add(Op.CONVOLUTION, 0, 0, 1, 3, 1, 1, 1) == 1
    assert builder.tensors == ["w", "b"]
    with pytest.raises(ValueError):
        builder.add(Op.HAAR, 0, 1)
    expected = (Operation(Op.COORDINATES, (0, 1, 1)), Operation(Op.CONVOLUTION, (0, 0, 1, 3, 1, 1, 1)))
    assert builder.program() == Program("b", expected)


def test_an_operation_is_asked_for_its_arguments_by_name() -> None:
    operation = Operation(Op.SLICE, (4, 1, 3))
    assert (operation["x"], operation["first"], operation["last"]) == (4, 1, 3)
    with pytest.raises(KeyError):
        operation["channels"]


def test_the_last_use_of_a_value_is_the_last_operation_that_reads_it() -> None:
    program = parse(POINT, POINT, [12, 0, 1], [12, 0, 2], POINT, OUTPUT)
    assert program.last_uses() == [5, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("seed", range(20))
def test_a_description_has_one_line_an_operation_with_every_argument(seed: int) -> None:
    program = random_network(seed).program
    lines = describe(program)
    assert len(lines) == len(program.operations)
    for number, (line, operation) in enumerate(zip(lines, program.operations, strict=True)):
        match = re.fullmatch(r"v(\d+) = ([a-z]+)\((.*)\)", line)
        assert match, line
        assert (int(match[1]), match[2].upper()) == (number, operation.code.name)
        shown = dict(part.split("=") for part in match[3].split(", "))
        for field in SYNTAX[operation.code]:
            mark = {"value": "v", "parameter": "p", "number": ""}[field.kind]
            assert shown.pop(field.name) == f"{mark}{operation[field.name]}"
        assert not shown


# ---- SPEC


def arguments_of(cell: str) -> list[tuple[str, str, int, int]]:
    """(kind, name, low, high) of the arguments in a cell of SPEC 8.4; a symbol of one or two letters is no part of a name."""
    found = []
    for part in cell.split(", "):
        match = re.fullmatch(r"([a-z ]+?)(?: [A-Za-z]{1,2})?(?: \((?:(-?\d+)\.\.(\d+)|act)\))?", part)
        if match is None or match[1] in ("v", "p"):
            match = re.fullmatch(r"([vp] [a-z]+)(?: \(act\))?()()", part)
        assert match, part
        words = match[1].split()
        kind = {"v": "value", "p": "parameter"}.get(words[0], "number")
        name = "_".join(words if kind == "number" else words[1:])
        found.append((kind, name, int(match[2] or 0), int(match[3] or 0)))
    return found


def test_the_operations_of_the_text_are_those_of_the_code_field_by_field() -> None:
    rows = table("8.4", "code")
    assert [(int(each["code"]), each["operation"]) for each in rows] == [(int(op), op.name.lower()) for op in SYNTAX]
    assert set(SYNTAX) == set(Op)
    for each, fields in zip(rows, SYNTAX.values(), strict=True):
        expected = [(field.kind, field.name, field.low, field.high) for field in fields]
        assert arguments_of(each["arguments (range)"]) == expected, each["operation"]


def test_the_sections_of_the_kinds_are_those_of_the_text() -> None:
    rows = table("8.3", "kind")
    stated = {Kind(kind): each["section"] for each in rows for kind in each["kind"].split(", ")}
    assert stated == {kind: f"{number} {constants.SECTIONS[number]}" for kind, number in SECTION_OF.items()}
    assert set(SECTION_OF) == set(Kind)


def test_the_functions_of_the_text_are_those_of_the_code() -> None:
    rows = table("8.5", "function")
    assert {int(each["function"].split()[0]): each["function"].split()[1] for each in rows} == arithmetic.FUNCTIONS
    for each in rows:
        low, _, high = each["argument a"].partition("..")
        assert arithmetic.FUNCTION_ARGUMENTS[int(each["function"].split()[0])] == (int(low), int(high or low))


def test_the_reserved_codes_of_the_text_are_not_in_use() -> None:
    reserved = re.search(r"Codes (\d+) \(state\) and (\d+) \(warp\) are reserved", section("8.2"))
    assert reserved
    assert not {int(reserved[1]), int(reserved[2])} & set(Op)
