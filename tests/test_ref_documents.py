"""The reference reads documents and packed bytes as SPEC 3.4 and 3.6 have them, and as the product does."""

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream import canonical, packing
from nvc.bitstream.errors import BitstreamError
from nvc.conformance.ref_documents import unpack_document, unpack_packed
from nvc.conformance.ref_errors import Refused

EDGES = [edge + step for bits in (4, 5, 7, 8, 15, 16, 31, 32, 63) for edge in (1 << bits, -(1 << bits)) for step in (-1, 0, 1)]
ODD = [
    "c0",
    "c1",
    "c2",
    "ca00000000",
    "c400",
    "c40161",
    "d40100",
    "c70005",
    "c700ff",
    "d6ff00000000",
    "a1ff",
    "a3eda080",
    "a2c080",
]
INTEGERS = [("B", 0xCC), (">H", 0xCD), (">I", 0xCE), (">Q", 0xCF), ("b", 0xD0), (">h", 0xD1), (">i", 0xD2), (">q", 0xD3)]


class Writer:
    """Random documents, valid but for a breach of the rules now and then: `faults` is how likely one is at each step."""

    def __init__(self, generator: random.Random, faults: float) -> None:
        self.random = generator
        self.faults = faults

    def fault(self) -> bool:
        return self.random.random() < self.faults

    def one(self, encodings: list[bytes]) -> bytes:
        """The first, which is the shortest, or by a fault any."""
        return self.random.choice(encodings) if self.fault() else encodings[0]

    def sized(self, count: int, short: int, most: int, forms: dict[int, int]) -> bytes:
        """The head of what has `count` items or bytes; `forms` are the longer heads, by the size of their number."""
        heads = [bytes([short + count])] if count <= most else []
        return self.one(heads + [bytes([code]) + count.to_bytes(n) for n, code in forms.items() if count < 1 << 8 * n])

    def integer(self) -> bytes:
        value = self.random.choice(EDGES) if self.random.random() < 0.6 else self.random.randrange(-200, 300)
        encodings = [struct.pack("b", value)] if -32 <= value < 128 else []
        for form, code in INTEGERS:
            try:
                encodings.append(bytes([code]) + struct.pack(form, value))
            except struct.error:
                continue
        return self.one(encodings or [b"\x00"])

    def characters(self, most: int) -> bytes:
        size = self.random.choice((0, 1, 1, 2, 3, 31, 32, 255, 256))
        return "".join(self.random.choice("ab\0z\u00e9\uffff\U00010000") for _ in range(min(size, most))).encode()

    def string(self, text: bytes) -> bytes:
        return self.sized(len(text), 0xA0, 31, {1: 0xD9, 2: 0xDA, 4: 0xDB}) + text

    def value(self, depth: int = 1) -> bytes:
        if self.fault():
            return bytes.fromhex(self.random.choice(ODD))
        kind = self.random.randrange(4 if depth < 10 else 2)
        if kind == 0:
            return self.integer()
        if kind == 1:
            return self.string(self.characters(999))
        count = self.random.choice((0, 1, 1, 2, 2, 3, 17 if depth == 1 else 1))
        if kind == 2:
            return self.sized(count, 0x90, 15, {2: 0xDC, 4: 0xDD}) + b"".join(self.value(depth + 1) for _ in range(count))
        keys = [self.characters(3) for _ in range(count)]
        if not self.fault():
            keys = sorted(set(keys))
        entries = [(self.value(9) if self.fault() else self.string(key)) + self.value(depth + 1) for key in keys]
        return self.sized(len(keys), 0x80, 15, {2: 0xDE, 4: 0xDF}) + b"".join(entries)

    def document(self) -> bytes:
        around = self.random.choices([b"\x91", b"\x81\xa1a"], k=self.random.choice((0, 0, 0, 0, 6, 7, 8)))
        return b"".join(around) + self.value()

    def damaged(self, data: bytes) -> bytes:
        at = self.random.randrange(len(data) + 1)
        piece = self.random.randbytes(self.random.choice((0, 1, 1, 2)))
        return data[:at] + piece + data[at + self.random.choice((0, 1, 1, 2)) :]


def by_the_product(unpack: Any, *arguments: Any) -> tuple[str, Any]:
    """The code with which the product refuses, or "ok" and the content."""
    try:
        return "ok", unpack(*arguments)
    except BitstreamError as error:
        return error.code, None


def by_the_reference(unpack: Any, *arguments: Any) -> tuple[str, Any]:
    try:
        return "ok", unpack(*arguments)
    except Refused as refusal:
        return refusal.code, None


def document_code(data: bytes) -> str:
    return by_the_reference(unpack_document, data)[0]


def packed_code(data: bytes, lowest: int = 1, highest: int = 65536) -> str:
    return by_the_reference(unpack_packed, data, lowest, highest)[0]


# ---- documents


@settings(deadline=None, max_examples=1000)
@given(st.integers(0, 1 << 32), st.sampled_from([0.0, 0.02, 0.2]))
def test_documents_are_read_as_by_the_product(seed: int, faults: float) -> None:
    writer = Writer(random.Random(seed), faults)
    document = writer.document()
    once = writer.damaged(document)
    for data in (document, once, writer.damaged(once)):
        # repr also compares the order of keys
        assert repr(by_the_reference(unpack_document, data)) == repr(by_the_product(canonical.unpack, data))


def test_the_random_documents_are_of_every_verdict() -> None:
    codes = [document_code(Writer(random.Random(seed), 0.02).document()) for seed in range(400)]
    assert min(codes.count(code) for code in ("ok", "invalid.document", "invalid.not_canonical")) > 5


@settings(deadline=None, max_examples=600)
@given(st.binary(max_size=40))
def test_random_bytes_are_read_as_by_the_product(data: bytes) -> None:
    assert repr(by_the_reference(unpack_document, data)) == repr(by_the_product(canonical.unpack, data))


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("7f", 127),
        ("cc80", 128),
        ("cd0100", 256),
        ("ce00010000", 65536),
        ("cf0000000100000000", 1 << 32),
        ("cf" + "ff" * 8, (1 << 64) - 1),
        ("e0", -32),
        ("d0df", -33),
        ("d080", -128),
        ("d1ff7f", -129),
        ("d2ffff7fff", -32769),
        ("d3ffffffff7fffffff", -2147483649),
        ("d38000000000000000", -(1 << 63)),
        ("d920" + "61" * 32, "a" * 32),
        ("da0100" + "61" * 256, "a" * 256),
        ("dc0010" + "00" * 16, [0] * 16),
        ("82a16101a162a0", {"a": 1, "b": ""}),
        ("82a3efbfbf01a4f090808002", {"\uffff": 1, "\U00010000": 2}),
    ],
)
def test_the_shortest_encodings_are_taken(text: str, content: Any) -> None:
    assert unpack_document(bytes.fromhex(text)) == content


@pytest.mark.parametrize(
    "text",
    [
        *["cc7f", "cd00ff", "ce0000ffff", "cf00000000ffffffff"],
        *["d0e0", "d1ff80", "d2ffff8000", "d3ffffffff80000000", "d001", "d10080", "d30000000000000001"],
        *["d91f" + "61" * 31, "da00ff" + "61" * 255, "db00000100" + "61" * 256],
        *["dc000f" + "00" * 15, "dd00000010" + "00" * 16, "de0001a16100", "df00000001a16100"],
        *["82a16201a16102", "82a162cc01a16102", "81d9016101", "91cc01"],
    ],
)
def test_other_encodings_are_not_canonical(text: str) -> None:
    assert document_code(bytes.fromhex(text)) == "invalid.not_canonical"


@pytest.mark.parametrize(
    "text", ["", "91", "cd01", "a261", "0101", "c0", "c3", "8101a0", "8190a0", "a1ff", "82a16101a16102", "c1"]
)
def test_other_rules_are_those_of_documents(text: str) -> None:
    assert document_code(bytes.fromhex(text)) == "invalid.document"


@pytest.mark.parametrize("rest", ["c0", "a1ff", "82a16101a16102", "9191919191919191" + "00", "", "0000"])
def test_a_longer_encoding_counts_only_if_all_else_is_right(rest: str) -> None:
    assert document_code(bytes.fromhex("92cc01" + rest)) == "invalid.document"
    assert document_code(bytes.fromhex("92cc01" + "00")) == "invalid.not_canonical"


def test_the_limits_hold_exactly() -> None:
    for size, code in ((4096, "ok"), (4097, "invalid.document")):
        two = size.to_bytes(2)
        assert document_code(b"\xda" + two + b"a" * size) == code
        assert document_code(b"\xdc" + two + bytes(size)) == code
        assert document_code(b"\xde" + two + b"".join(b"\xa4%04d\0" % key for key in range(size))) == code
    for depth, code in ((8, "ok"), (9, "invalid.document")):
        assert document_code(b"\x91" * depth + b"\0") == code
        assert document_code(b"\x91" * (depth - 1) + b"\x80") == code
    full = b"\xdc\x00\x11" + (b"\xda\x0f\xa0" + b"a" * 4000) * 16
    for size, code in ((65536, "ok"), (65537, "invalid.document")):
        rest = size - len(full) - 3
        assert document_code(full + b"\xda" + rest.to_bytes(2) + b"b" * rest) == code


@pytest.mark.parametrize("text", ["91" * 65536, "dc1000" * 21845, "81a161" * 21845, "ddffffffff", "dfffffffff", "dbffffffff"])
def test_a_hostile_document_costs_little_memory(text: str) -> None:
    data = bytes.fromhex(text)
    tracemalloc.start()
    try:
        assert document_code(data) == "invalid.document"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# ---- packed bytes


@settings(deadline=None, max_examples=300)
@given(st.binary(min_size=1, max_size=300), st.booleans())
def test_packed_bytes_survive(data: bytes, twice: bool) -> None:
    data = data * 3 if twice else data  # so that method 1 is the smaller
    packed = packing.pack(data)
    for lowest, highest in ((1, 65536), (len(data), len(data))):
        assert unpack_packed(packed, lowest, highest) == data
    assert packed_code(packed, len(data) + 1) == packed_code(packed, 1, len(data) - 1) == "invalid.packed"


@settings(deadline=None, max_examples=600)
@given(st.binary(max_size=40), st.integers(1, 50), st.integers(0, 50))
def test_random_packed_bytes_are_read_as_by_the_product(data: bytes, lowest: int, more: int) -> None:
    for first in (b"", b"\0", b"\1", b"\1\x28\xb5\x2f\xfd\x20"):
        arguments = (first + data, lowest, lowest + more)
        theirs = by_the_product(packing.unpack, first + data, "it", lowest, lowest + more)
        assert by_the_reference(unpack_packed, *arguments) == theirs


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid.packed"),
        ("00", "invalid.packed"),
        ("01", "invalid.packed"),
        ("02", "unsupported.packing"),
        ("ff6162", "unsupported.packing"),
        ("0061", "ok"),
        ("0128b52ffd200101000061", "invalid.packed"),  # no last block
        ("0128b52ffd200109000061", "ok"),
        ("0128b52ffd20010900006100", "invalid.packed"),
        ("0128b52ffd2001090000", "invalid.packed"),
        ("0128b52ffd000009000061", "invalid.packed"),  # does not state its size
        ("0128b52ffd21070109000061", "invalid.packed"),  # needs a dictionary
        ("0128b52ffd80680100000009000061", "ok"),  # a window of 8 MiB
        ("0128b52ffd80690100000009000061", "invalid.packed"),
        ("01502a4d180100000061", "invalid.packed"),  # skippable
        ("0128b52ffd2000010000", "invalid.packed"),  # nothing in it
    ],
)
def test_each_rule_of_packed_bytes(text: str, code: str) -> None:
    data = bytes.fromhex(text)
    assert packed_code(data) == code
    assert by_the_product(packing.unpack, data, "it", 1, 65536)[0] == code


def test_a_false_size_costs_no_memory() -> None:
    frame = bytes.fromhex("0128b52ffde0") + (1 << 40).to_bytes(8, "little") + bytes.fromhex("ffffff61") * 1000
    tracemalloc.start()
    try:
        assert packed_code(frame) == "invalid.packed"
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()
