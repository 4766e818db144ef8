"""Range coding: the fast coder and its integer twin are one coder, and hostile bytes get a named error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.bitstream import rangecoder
from nvc.bitstream.cdf import MAX_ALPHABET, TOTAL, flat, from_counts
from nvc.bitstream.errors import InvalidError
from nvc.bitstream.rangecoder import (
    CodeLength,
    PythonRangeDecoder,
    PythonRangeEncoder,
    RangeDecoder,
    RangeEncoder,
)

Part = tuple[NDArray[np.int32], NDArray[np.int64]]
ENCODERS = [RangeEncoder, PythonRangeEncoder]
DECODERS = [RangeDecoder, PythonRangeDecoder]


@st.composite
def parts(draw: st.DrawFn) -> Part:
    alphabet = draw(st.sampled_from([2, 3, 7, 256, MAX_ALPHABET]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shapes = [
        lambda: generator.integers(0, 100, alphabet),
        lambda: np.eye(alphabet, dtype=np.int64)[generator.integers(alphabet)],
        lambda: np.int64(2) ** generator.integers(0, 27, alphabet),
    ]
    freqs = from_counts(draw(st.sampled_from(shapes))())
    constants = {"rarest": int(freqs.argmin()), "commonest": int(freqs.argmax()), "last": alphabet - 1}
    size = draw(st.integers(0, 30))
    choice = draw(st.sampled_from(["any", *constants]))
    symbols = np.full(size, constants[choice]) if choice in constants else generator.integers(0, alphabet, size)
    return symbols.astype(np.int32), freqs


def encode(encoder: Any, message: list[Part]) -> bytes:
    coder = encoder()
    for symbols, freqs in message:
        coder.put(symbols, freqs)
    payload: bytes = coder.finish()
    return payload


def decode(decoder: Any, payload: bytes, message: list[Part]) -> list[list[int]]:
    coder = decoder(payload)
    symbols = [coder.get(len(symbols), freqs).tolist() for symbols, freqs in message]
    coder.finish()
    return symbols


def outcome(decoder: Any, payload: bytes, message: list[Part]) -> list[list[int]] | str:
    try:
        return decode(decoder, payload, message)
    except InvalidError as error:
        return error.code


@given(st.lists(parts(), max_size=6))
@settings(deadline=None, max_examples=150)
def test_twins_write_the_same_words_and_read_each_other(message: list[Part]) -> None:
    payload = encode(RangeEncoder, message)
    assert payload == encode(PythonRangeEncoder, message)
    expected = [symbols.tolist() for symbols, _ in message]
    for decoder in DECODERS:
        assert decode(decoder, payload, message) == expected


@given(st.lists(parts(), max_size=4), st.binary(max_size=64))
@settings(deadline=None, max_examples=100)
def test_twins_agree_on_garbage(message: list[Part], payload: bytes) -> None:
    found = outcome(RangeDecoder, payload, message)
    assert found == outcome(PythonRangeDecoder, payload, message)
    if not isinstance(found, str):
        again = [(np.array(s, np.int32), freqs) for s, (_, freqs) in zip(found, message, strict=True)]
        assert encode(RangeEncoder, again) == payload


@given(st.lists(parts(), min_size=1, max_size=4), st.data())
@settings(deadline=None, max_examples=100)
def test_twins_agree_on_damaged_streams(message: list[Part], data: st.DataObject) -> None:
    payload = encode(RangeEncoder, message)
    damage = data.draw(st.sampled_from(["flip", "cut", "zero word", "ones"]))
    if damage == "flip" and payload:
        changed = bytearray(payload)
        changed[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        payload = bytes(changed)
    payload = {"cut": payload[:-4], "zero word": payload + bytes(4), "ones": payload + b"\xff" * 4}.get(damage, payload)
    assert outcome(RangeDecoder, payload, message) == outcome(PythonRangeDecoder, payload, message)


def test_a_carry_runs_through_many_words() -> None:
    """Symbols decoded from 7fffffff ffffffff ... keep the interval astride of 80000000; the last ones decide."""
    brink = np.array([0x7FFFFFFF, *[0xFFFFFFFF] * 7], "<u4").tobytes()
    generator = np.random.default_rng(5)
    first_words = set()
    for _ in range(100):
        tables = [from_counts(generator.integers(1, 100, 256)) for _ in range(generator.integers(10, 20))]
        reader = PythonRangeDecoder(brink)
        message = [(reader.get(1, freqs), freqs) for freqs in tables]
        message.append((generator.integers(0, 256, 30).astype(np.int32), flat(256)))
        message[-1][0][:10] = generator.choice([0, 255])
        payload = encode(RangeEncoder, message)
        assert payload == encode(PythonRangeEncoder, message)
        assert decode(RangeDecoder, payload, message) == [symbols.tolist() for symbols, _ in message]
        first_words.add(payload[:8].hex(" ", 4))
    assert {"ffffff7f ffffffff", "00000080 00000000"} <= first_words


@pytest.mark.parametrize("encoder", ENCODERS)
def test_nothing_is_coded_in_no_bytes(encoder: Any) -> None:
    empty = (np.zeros(0, np.int32), flat(2))
    assert encode(encoder, []) == encode(encoder, [empty]) == b""


@pytest.mark.parametrize("encoder", ENCODERS)
def test_one_number_is_coded_as_the_specification_works_it_out(encoder: Any) -> None:
    """SPEC 5.4: 5 in 3 bits begins at 5/8 of the interval; the first whole word inside is a0000000."""
    coder = encoder()
    coder.put_bits(5, 3)
    assert coder.finish() == bytes.fromhex("000000a0")


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_section_without_symbols_must_be_empty(decoder: Any) -> None:
    decode(decoder, b"", [])
    with pytest.raises(InvalidError) as error:
        decode(decoder, bytes(4), [])
    assert error.value.code == "invalid.range_end"


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_bytes_that_are_no_words_are_refused(decoder: Any, size: int) -> None:
    with pytest.raises(InvalidError) as error:
        decoder(bytes(size))
    assert error.value.code == "invalid.range_words"


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_code_point_outside_the_interval_is_refused(decoder: Any) -> None:
    """2^64 - 1 lies beyond 2^24 equal parts of the first interval."""
    with pytest.raises(InvalidError) as error:
        decoder(b"\xff" * 8).get(1, flat(2))
    assert error.value.code == "invalid.range_data"


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_empty_payload_is_refused_where_symbols_are_due(decoder: Any) -> None:
    coder = decoder(b"")
    coder.get(100, flat(2))
    with pytest.raises(InvalidError) as error:
        coder.finish()
    assert error.value.code == "invalid.range_end"


@given(st.lists(st.tuples(st.integers(0, 32), st.integers(0, 2**32 - 1)), max_size=20))
@settings(deadline=None)
def test_plain_numbers_of_any_width_survive(numbers: list[tuple[int, int]]) -> None:
    message = [(width, value & ((1 << width) - 1)) for width, value in numbers]
    payloads = set()
    coder: Any
    for encoder in ENCODERS:
        coder = encoder()
        for width, value in message:
            coder.put_bits(value, width)
        payloads.add(coder.finish())
    (payload,) = payloads
    for decoder in DECODERS:
        reader = decoder(payload)
        assert [reader.get_bits(width) for width, _ in message] == [value for _, value in message]
        reader.finish()


@given(st.integers(1, 32), st.integers(0, 2**32), st.integers(0, 50))
@settings(deadline=None)
def test_arrays_of_plain_numbers_survive_and_cost_their_width(width: int, seed: int, count: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << width, count)
    writer, length = RangeEncoder(), CodeLength()
    writer.put_raw(values, width)
    length.put_raw(values, width)
    assert length.bits == width * count
    reader = RangeDecoder(writer.finish())
    assert np.array_equal(reader.get_raw(count, width), values)
    reader.finish()


@pytest.mark.parametrize("writer", [*ENCODERS, CodeLength])
def test_writers_refuse_what_no_reader_could_give_back(writer: Any) -> None:
    symbols = np.array([2], np.int32)
    for bad in (flat(2), np.array([TOTAL]), np.array([0, TOTAL, 0]), flat(4) - 1, np.array([-1, 1, TOTAL])):
        with pytest.raises(ValueError):
            writer().put(symbols, bad)
    for value, width in ((8, 3), (-1, 3), (1, 0), (1, 33)):
        with pytest.raises(ValueError):
            writer().put_bits(value, width)


@given(st.lists(parts(), max_size=6))
@settings(deadline=None)
def test_real_streams_stay_close_to_the_ideal_length(message: list[Part]) -> None:
    length = CodeLength()
    for symbols, freqs in message:
        length.put(symbols, freqs)
    assert 8 * len(encode(RangeEncoder, message)) <= 1.01 * length.bits + 8 * 40


class Panic(BaseException):
    """Like the library's PanicException: no Exception."""


@pytest.mark.parametrize("raised", [Panic, AssertionError, ValueError])
def test_any_failure_of_the_library_becomes_invalid_data(raised: type[BaseException]) -> None:
    def fail() -> None:
        raise raised

    with pytest.raises(InvalidError):
        rangecoder._guarded(fail)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, MemoryError])
def test_interrupts_pass_through(raised: type[BaseException]) -> None:
    def fail() -> None:
        raise raised

    with pytest.raises(raised):
        rangecoder._guarded(fail)
