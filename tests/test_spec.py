"""SPEC.md and the code say the same: field tables, identifiers, limits, error codes, and the worked example."""

from __future__ import annotations

import ast
import io
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import nvc.bitstream
from nvc.bitstream import constants, errors
from nvc.bitstream.chunks import is_critical
from nvc.bitstream.constants import Limits
from nvc.bitstream.container import Reader, Writer
from nvc.bitstream.header import ELEMENTS, Element, Field, Header
from nvc.codec.decode import Decoder
from nvc.conformance import reference

FOLDER = Path(nvc.bitstream.__path__[0])
SPEC = (FOLDER / "SPEC.md").read_text(encoding="utf-8")
TYPES = {"B": "u8", "H": "u16", "I": "u32", "Q": "u64", "q": "i64"}
CODE = re.compile(r"`((?:not_nvc|truncated|corrupt|invalid|unsupported|limit|verify)\.[a-z_]+)`")
READERS = [path for path in FOLDER.glob("*.py") if path.name != "errors.py"] + [FOLDER.parent / "codec" / "decode.py"]
NOT_OF_FILES = {errors.UsageError, errors.MachineError}  # raised beside the reading of a file, so no business of SPEC.md


def section(number: str) -> str:
    """The text under the heading of that number, up to the next heading of any depth."""
    match = re.search(rf"^#+ {re.escape(number)} [^\n]*\n(.*?)(?=^#|\Z)", SPEC, re.MULTILINE | re.DOTALL)
    assert match, f"SPEC.md has no section {number}"
    return match[1]


def tables(text: str) -> list[list[dict[str, str]]]:
    """The tables of a text, rows as column name -> cell."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        found.append([dict(zip(names, row, strict=True)) for row in rows])
    return found


def table(number: str, first_column: str) -> list[dict[str, str]]:
    """The first table of a section whose first column has that name."""
    return next(rows for rows in tables(section(number)) if next(iter(rows[0])) == first_column)


def number(text: str) -> int:
    """Numbers such as -12, 2^30 or 2^64-1."""
    match = re.fullmatch(r"(-?)(\d+)(?:\^(\d+))?(-1)?", text)
    assert match, f"{text} is no number"
    sign, base, exponent, minus = match.groups()
    value: int = int(base) ** int(exponent or 1) - bool(minus)
    return -value if sign else value


def check_integer_row(row: dict[str, str], field: Field) -> None:
    """Compares type, range, the value outside it, and the error code of a row with the field."""
    assert row["type"] == TYPES[field.code]
    match = re.match(r"([-\d^]+)\.\.([-\d^]+)(?: or ([-\d^]+))?(?:, else `([a-z_.]+)`)?", row["rule"])
    assert match, row["rule"]
    low, high, unknown, code = match.groups()
    assert (number(low), number(high)) == (field.low, field.maximum)
    assert (number(unknown) if unknown else None) == field.unknown
    size = 8 * field.size
    everything = (-(1 << size - 1), (1 << size - 1) - 1) if field.code == "q" else (0, (1 << size) - 1)
    unrestricted = (field.low, field.maximum) == everything
    assert code == (None if unrestricted else f"{field.refusal.family}.{field.reason}")


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda element: element.name)
def test_every_element_has_the_fields_of_its_table(element: Element) -> None:
    rows, offset = table(element.section, "offset"), 0
    assert [row["field"] for row in rows] == [field.name for field in element.fields]
    for row, field in zip(rows, element.fields, strict=True):
        assert (int(row["offset"]), int(row["size"])) == (offset, field.size)
        if field.code.endswith("s"):
            assert row["type"] == "bytes"
        elif field.name.endswith("crc"):
            assert row["type"] == "u32"
        else:
            check_integer_row(row, field)
        offset += field.size


def test_the_magic_and_its_damaged_forms_are_those_of_the_text() -> None:
    magic = re.search(r"`([0-9A-F ]+)`", table("3.1", "offset")[0]["rule"])
    assert magic
    assert bytes.fromhex(magic[1]) == constants.MAGIC
    damaged = {bytes.fromhex(row["first bytes"].strip("`")): row["damage"] for row in table("3.1", "first bytes")}
    assert damaged == constants.TEXT_DAMAGE


def test_the_chunk_types_are_those_of_the_text() -> None:
    rows = {row["type"].strip("`").encode(): row["critical"] == "yes" for row in table("2", "type")}
    assert rows == {chunk_type: is_critical(chunk_type) for chunk_type in constants.CHUNK_TYPES}


def test_the_section_kinds_are_those_of_the_text() -> None:
    rows = next(rows for rows in tables(section("4.2")) if "presence" in rows[0])
    assert {int(row["kind"]): row["name"] for row in rows} == constants.SECTIONS
    assert {int(row["kind"]) for row in rows if row["presence"] == "always"} == constants.REQUIRED_SECTIONS


def test_the_limits_are_those_of_the_text() -> None:
    rows = table("9", "limit")
    assert {row["limit"]: int(row["default"]) for row in rows} == asdict(Limits())
    largest = {row["limit"]: int(row["maximum"]) for row in rows if row["maximum"] != "none"}
    assert largest == {
        "max_side": 65535,
        "max_pixels": 65535**2,
        "max_frames": constants.FRAMES,
        "max_segments": constants.SEGMENTS,
        "max_segment_frames": constants.SEGMENT_FRAMES,
        "max_chunk_bytes": constants.CHUNK_BYTES,
    }


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("at most 65536 bytes", constants.DOCUMENT_BYTES),
        ("at most 4096 items", constants.DOCUMENT_ITEMS),
        ("a string at most 4096 bytes", constants.STRING_BYTES),
        ("a depth MUST NOT be over 8", constants.DOCUMENT_DEPTH),
    ],
)
def test_the_bounds_of_documents_are_those_of_the_text(words: str, value: int) -> None:
    assert words in section("3.4")
    assert str(value) in words


def test_the_error_classes_are_those_of_the_text() -> None:
    families = {kind.family for kind in (*errors.BitstreamError.__subclasses__(), errors.VerificationError)}
    assert {row["class"] for row in table("10", "class")} == families


def raised_codes() -> set[str]:
    """The codes that readers and the decoder raise for a file, by their source."""
    codes = {f"{field.refusal.family}.{field.reason}" for element in ELEMENTS for field in element.fields}
    for path in READERS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and hasattr(errors, node.func.id):
                kind, reason = getattr(errors, node.func.id), node.args[0]
                if isinstance(reason, ast.Constant) and isinstance(reason.value, str) and kind not in NOT_OF_FILES:
                    codes.add(f"{kind.family}.{reason.value}")
    return codes


def test_every_code_that_is_raised_is_in_the_order_of_precedence_and_the_other_way_round() -> None:
    assert set(CODE.findall(section("10"))) == raised_codes()


def test_every_code_in_the_text_is_in_the_order_of_precedence() -> None:
    used = set(CODE.findall(SPEC[: SPEC.index("## 10 ")]))
    assert used == set(CODE.findall(section("10")))


def test_headings_are_numbered_in_order() -> None:
    assert [int(each) for each in re.findall(r"^## (\d+) ", SPEC, re.MULTILINE)] == list(range(1, 13))


def test_every_section_that_the_code_cites_exists() -> None:
    headings = set(re.findall(r"^#+ (\d+(?:\.\d+)?) ", SPEC, re.MULTILINE))
    for path in [*READERS, *FOLDER.parent.glob("c*/*.py")]:
        cited = re.findall(r"SPEC (\d+(?:\.\d+)?)", path.read_text(encoding="utf-8"))
        assert set(cited) <= headings, path


def example() -> list[tuple[int, bytes, str]]:
    """The rows (offset, bytes, meaning) of the worked example; continuation lines are joined."""
    rows: list[tuple[int, bytes, str]] = []
    for line in re.findall(r"^[0-9a-f]{4}  .*$", section("12"), re.MULTILINE):
        offset, data, meaning = int(line[:4], 16), bytes.fromhex(line[6:53]), line[53:].strip()
        if meaning:
            rows.append((offset, data, meaning))
        else:
            rows[-1] = (rows[-1][0], rows[-1][1] + data, rows[-1][2])
    return rows


def example_file() -> bytes:
    """The bytes of the worked example, whose offsets must follow one another."""
    data = b""
    for offset, part, _ in example():
        assert offset == len(data)
        data += part
    return data


def test_the_worked_example_is_a_valid_file_which_a_writer_makes_again() -> None:
    data = example_file()
    reader = Reader(io.BytesIO(data))
    (segment,) = reader.segments()
    assert reader.header == Header(6, 4, 0, frame_count=2)
    assert reader.metadata == {"tool": "nvc"}
    assert sum(reader.accounting().values()) == len(data)

    copy = io.BytesIO()
    writer = Writer(copy, reader.header, reader.model, reader.metadata)
    writer.add(segment)
    writer.finish()
    assert copy.getvalue() == data


def test_the_worked_example_decodes_as_the_text_says_by_decoder_and_reference() -> None:
    grey = [[np.full(shape, level, np.uint8) for shape in ((4, 6), (2, 3), (2, 3))] for level in (40, 200)]
    (batch,) = Decoder(io.BytesIO(example_file()), batch=2).frames()
    slow = [frame.planes for frame in reference.decode(example_file())]
    for number, planes in enumerate(grey):
        for plane, wanted in enumerate(planes):
            assert np.array_equal(batch.planes[plane][number], wanted)
            assert np.array_equal(slow[number][plane], wanted)


def test_the_offsets_and_lengths_in_the_prose_of_the_example_are_right() -> None:
    rows = example()
    chunks = {m[1]: offset for offset, _, text in rows if (m := re.match(r"chunk header: (\w+)", text))}
    texts = [text for _, _, text in rows]
    assert f"segment at {chunks['SEGM']:04x}, first frame 0, 2 frames" in texts
    assert f"index at {chunks['INDX']:04x}, 2 frames, 1 segment" in texts
    for _, data, text in rows:
        if match := re.match(r"chunk header: (\w+), (\d+) byte", text):
            assert (data[:4].decode(), int.from_bytes(data[4:8], "little")) == (match[1], int(match[2]))
