"""Canonical msgpack: every document has exactly one encoding, and nothing else is accepted."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream import canonical
from nvc.bitstream.errors import InvalidError

LEAVES = st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=20)
DOCUMENTS = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=20)


def depth(document: Any) -> int:
    """Nesting of lists and maps."""
    if not isinstance(document, list | dict):
        return 0
    return 1 + max((depth(item) for item in (document.values() if isinstance(document, dict) else document)), default=0)


def refused(data: bytes) -> str:
    """The code with which `data` is refused."""
    with pytest.raises(InvalidError) as caught:
        canonical.unpack(data)
    return caught.value.code


@settings(deadline=None)
@given(DOCUMENTS.filter(lambda document: depth(document) <= 8))
def test_documents_survive_the_round_trip(document: Any) -> None:
    assert canonical.unpack(canonical.pack(document)) == document


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_whatever_is_accepted_is_the_only_encoding_of_its_content(data: bytes) -> None:
    try:
        document = canonical.unpack(data)
    except InvalidError:
        return
    assert canonical.pack(document) == data


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6), st.integers(0, 5), min_size=2, max_size=6))
def test_the_order_of_insertion_does_not_show_and_keys_ascend_as_utf8(document: dict[str, int]) -> None:
    backwards = dict(reversed(document.items()))
    data = canonical.pack(document)
    assert data == canonical.pack(backwards)
    keys = [key.encode() for key in msgpack.unpackb(data)]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    "value",
    [
        True,
        None,
        1.0,
        b"x",
        (1, 2),
        {1: 2},
        {b"k": 1},
        {"k": [False]},
        1 << 64,
        -(1 << 63) - 1,
        "\ud800",
        {"\ud800": 1},
        "x" * 4097,
        [0] * 4097,
        ["x" * 4000] * 17,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_a_document_may_not_hold_is_not_written(value: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        canonical.pack(value)
    assert caught.value.code == "invalid.document"


@pytest.mark.parametrize(
    "text",
    [
        "c0",
        "c2",
        "c3",
        "ca3f800000",
        "cb3ff0000000000000",
        "c400",
        "c40178",
        "d40100",
        "c70005",
        "d6ff00000000",
        "810101",
        "81c40001",
        "81c001",
        "a1ff",
        "c1",
        "",
        "91",
        "0101",
        "ddffffffff",
        "dfffffffff",
        "dbffffffff",
    ],
)
def test_other_types_and_broken_encodings_are_refused(text: str) -> None:
    assert refused(bytes.fromhex(text)) == "invalid.document"


@pytest.mark.parametrize(
    "text",
    [
        "cc01",
        "cd0001",
        "ce00000001",
        "cf0000000000000001",
        "d001",
        "d0ff",
        "d1ff80",
        "d30000000000000001",
        "d90161",
        "da000161",
        "dc000101",
        "dd0000000101",
        "de0001a16101",
        "82a16201a16102",
        "81d9016101",
    ],
)
def test_longer_encodings_and_unsorted_keys_are_refused(text: str) -> None:
    assert refused(bytes.fromhex(text)) == "invalid.not_canonical"


@pytest.mark.parametrize("text", ["82a16101a16101", "82a161c0a16101", "9182a16101d9016102"])
def test_a_repeated_key_is_refused_before_it_hides_a_value(text: str) -> None:
    assert refused(bytes.fromhex(text)) == "invalid.document"


def test_the_limits_hold_exactly() -> None:
    nested: Any = 0
    for _ in range(8):
        nested = [nested]
    for largest in (nested, [0] * 4096, "x" * 4096, {f"{key:04}": 0 for key in range(4096)}):
        assert canonical.unpack(canonical.pack(largest)) == largest
    assert refused(msgpack.packb([nested])) == "invalid.document"
    assert refused(msgpack.packb([0] * 4097)) == "invalid.document"
    assert refused(msgpack.packb("x" * 4097)) == "invalid.document"
    full = ["x" * 4090] * 16
    size = len(canonical.pack(full))
    full.append("y" * (65536 - size - 2))  # two bytes of string header
    assert len(canonical.pack(full)) == 65536
    full[-1] += "y"
    assert refused(msgpack.packb(full)) == "invalid.document"


@pytest.mark.parametrize("text", ["dc1000" * 21845, "91" * 65536, "81a161" * 21845, "de1000a0" * 16384])
def test_a_hostile_document_costs_little_memory(text: str) -> None:
    data = bytes.fromhex(text)
    tracemalloc.start()
    try:
        refused(data)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
