"""Records are whole JSON files: whatever is put comes back, and what is no record counts as none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvc.codec.report.record import Record, write_json

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values | st.lists(st.text("[]0123456789.,eE+- \n", max_size=9), max_size=4))
def test_json_comes_back_as_it_was(value: object, tmp_path: Path) -> None:
    write_json(str(tmp_path / "a.json"), value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_lists_of_numbers_stand_on_one_line(tmp_path: Path) -> None:
    write_json(str(tmp_path / "a.json"), {"a": [1.5, -2, 3e-7], "b": {"c": list(range(99))}, "d": ["x", 1]})
    assert len((tmp_path / "a.json").read_text().splitlines()) == 10


def test_values_are_added_and_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "a.json")
    Record(path).put(a=1, b=[2])
    Record(path).put(b=3)
    again = Record(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (1, 3, None)
    again.clear()
    again.put(c=4)
    assert (Record(path).get("a"), Record(path).get("c")) == (None, 4)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff\xfe", b'{"a": 1} {'])
def test_what_is_no_record_counts_as_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(data)
    record = Record(str(tmp_path / "a.json"))
    assert record.get("a") is None
    record.put(a=2)
    assert Record(str(tmp_path / "a.json")).get("a") == 2
