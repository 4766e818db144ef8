"""The field tables and the picture header: what is written is read back, and every rule of SPEC 3.3 is kept."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream.constants import PIXEL_FORMATS, UNKNOWN_COUNT
from nvc.bitstream.errors import BitstreamError, InvalidError
from nvc.bitstream.header import ELEMENTS, PICTURE_HEADER, SEGMENT_HEADER, Element, Field, Header

U32 = st.integers(1, (1 << 32) - 1)
RATIOS = st.builds(Fraction, U32, U32)
HEADERS = st.builds(
    Header,
    width=st.integers(1, 65535),
    height=st.integers(1, 65535),
    pixel_format=st.integers(0, 1),
    primaries=st.integers(0, 255),
    transfer=st.integers(0, 255),
    matrix=st.integers(0, 255),
    full_range=st.integers(0, 2),
    chroma_location=st.integers(0, 6),
    orientation=st.integers(1, 8),
    par=RATIOS | st.just(Fraction(0)),
    time_base=RATIOS,
    frame_rate=RATIOS | st.none(),
    frame_count=st.integers(1, 1 << 30) | st.none(),
    first_pts=st.integers(-(1 << 62), 1 << 62),
)
PLAIN = Header(640, 360, PIXEL_FORMATS["yuv420p"], frame_count=10)


@settings(deadline=None)
@given(HEADERS)
def test_headers_survive_the_round_trip_in_52_bytes(header: Header) -> None:
    data = header.to_bytes()
    assert len(data) == 52
    assert Header.from_bytes(data) == header


@settings(deadline=None)
@given(st.binary(min_size=52, max_size=52))
def test_any_52_bytes_are_refused_or_the_only_encoding_of_their_header(data: bytes) -> None:
    try:
        header = Header.from_bytes(data)
    except BitstreamError:
        return
    assert header.to_bytes() == data


def test_the_bytes_are_those_of_the_layout_in_the_specification() -> None:
    header = Header(1920, 1081, 1, 8, 9, 16, 0, 1, 3, 6, Fraction(4, 3), Fraction(1, 90000), Fraction(30000, 1001), 77, -5)
    expected = struct.pack("<HHBBBBBBBBIIIIIIQq", 1920, 1081, 1, 8, 9, 16, 0, 1, 3, 6, 4, 3, 1, 90000, 30000, 1001, 77, -5)
    assert header.to_bytes() == expected


def test_unknown_values_have_the_documented_codes() -> None:
    data = replace(PLAIN, frame_rate=None, frame_count=None, par=Fraction(0)).to_bytes()
    assert struct.unpack_from("<II", data, 12) == (0, 1)
    assert struct.unpack_from("<II", data, 28) == (0, 0)
    assert struct.unpack_from("<Q", data, 36) == ((1 << 64) - 1,)


@pytest.mark.parametrize("field", PICTURE_HEADER.fields, ids=lambda field: field.name)
def test_each_field_is_refused_just_outside_its_range_and_accepted_at_its_ends(field: Field) -> None:
    values = PLAIN.fields()
    low, high = 0, (1 << 8 * field.size) - 1
    if field.code == "q":
        low, high = -(1 << 63), (1 << 63) - 1
    for value in {field.low, field.maximum}:
        PICTURE_HEADER.check({**values, field.name: value})
    for value in {field.low - 1, field.maximum + 1}:
        if low <= value <= high and value != field.unknown:
            layout = PICTURE_HEADER.layout.pack(*{**values, field.name: value}.values())
            with pytest.raises(field.refusal) as caught:
                Header.from_bytes(layout)
            assert caught.value.code == f"{field.refusal.family}.{field.reason}"


@pytest.mark.parametrize(
    ("name", "num", "den"),
    [
        ("par", 2, 2),
        ("par", 0, 2),
        ("time_base", 2, 50),
        ("frame_rate", 0, 1),
        ("frame_rate", 1, 0),
        ("frame_rate", 0, 25),
        ("frame_rate", 50, 2),
    ],
)
def test_fractions_have_one_encoding(name: str, num: int, den: int) -> None:
    values = {**PLAIN.fields(), f"{name}_num": num, f"{name}_den": den}
    with pytest.raises(InvalidError) as caught:
        Header.from_bytes(PICTURE_HEADER.pack(**values))
    assert caught.value.code == "invalid.ratio"


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 10**6, "height": 10**6},
        {"width": 0},
        {"frame_count": 0},
        {"frame_count": (1 << 30) + 1},
        {"time_base": Fraction(-1, 25)},
        {"frame_rate": Fraction(0)},
        {"par": Fraction(1, 1 << 32)},
    ],
    ids=str,
)
def test_a_header_that_the_format_cannot_carry_is_not_written(changes: dict[str, int]) -> None:
    with pytest.raises(InvalidError):
        replace(PLAIN, **changes).to_bytes()  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 51, 53])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidError) as caught:
        Header.from_bytes(bytes(length))
    assert caught.value.code == "invalid.length"


@pytest.mark.parametrize("length", [0, 7, 9])
def test_a_byte_string_of_another_length_than_its_field_is_not_written(length: int) -> None:
    values = {"first_frame": 0, "frames": 1, "program": 0, "flags": 0, "sections": 0, "reserved": 0}
    with pytest.raises(InvalidError, match=f"digest has {length} bytes"):
        SEGMENT_HEADER.pack(**values, digest=bytes(length))


def test_chroma_planes_of_odd_pictures_are_rounded_up() -> None:
    assert Header(5, 3, PIXEL_FORMATS["yuv420p"]).plane_shapes() == ((3, 5), (2, 3), (2, 3))
    assert Header(5, 3, PIXEL_FORMATS["rgb24"]).plane_shapes() == ((3, 5), (3, 5), (3, 5))


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda element: element.name)
def test_every_element_packs_unpacks_and_describes_its_lowest_values(element: Element) -> None:
    values = {field.name: bytes(field.size) if field.code.endswith("s") else field.low for field in element.fields}
    data = element.pack(**values)
    assert len(data) == element.size == sum(field.size for field in element.fields)
    assert element.unpack(data) == values
    rows = element.describe(values)
    assert [row[0] for row in rows] == [sum(field.size for field in element.fields[:i]) for i in range(len(rows))]
    assert [row[2] for row in rows] == [field.name for field in element.fields]


def test_a_description_names_what_is_unknown() -> None:
    rows = PICTURE_HEADER.describe({**PLAIN.fields(), "frame_count": UNKNOWN_COUNT})
    assert (36, 8, "frame_count", "unknown") in rows
