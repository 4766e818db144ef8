"""Token maps and their bytes: a second reader by the words of SPEC 7.6 agrees, hostile maps are refused, repetition is cheap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream.cdf import AdaptiveTable, flat
from nvc.bitstream.coders import put_unsigned, write_adaptive
from nvc.bitstream.errors import BitstreamError, InvalidError
from nvc.bitstream.rangecoder import Integers, PythonRangeDecoder, PythonRangeEncoder, RangeEncoder
from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits, read_tensors, write_tensors

Place = tuple[int, int, int]


def spec_of(shape: Sequence[int], levels: int) -> TensorSpec:
    return TensorSpec(Kind.TOKENS, tuple(shape), levels)


def written(values: Integers, levels: int) -> bytes:
    return write_tensors([(spec_of(values.shape, levels), values)])


def read(payload: bytes, shape: Sequence[int], levels: int) -> Integers:
    return read_tensors([spec_of(shape, levels)], payload)[0]


@st.composite
def maps(draw: st.DrawFn) -> Integers:
    """Tokens (T, h, w) below 64: some stay, some waver between two codes, some are always new."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 7)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = np.sort(generator.choice(64, draw(st.integers(1, 12))))
    first, second = generator.choice(codes, (2, *shape[1:]))
    wavers, renewed = (draw(st.sampled_from([0.0, 0.1, 0.6])) for _ in range(2))
    values = np.where(generator.random(shape) < wavers, first, second)
    return np.where(generator.random(shape) < renewed, generator.choice(codes, shape), values).astype(np.int64)


# ---- a reader that goes by the words of SPEC 7.6, position by position


def adaptive(reader: PythonRangeDecoder, places: list[Place], table: AdaptiveTable) -> Iterator[tuple[Place, int]]:
    """The symbols of a run with a table that is made anew after 16, 32, 64, ... 2048, 4096, ... of them."""
    start = 0
    while start < len(places):
        stop = start + min(max(start, 16), 2048)
        block = reader.get(len(places[start:stop]), table.freqs)
        table.update(block)
        yield from zip(places[start:stop], block.tolist(), strict=True)
        start = stop


def by_the_words(payload: bytes, shape: tuple[int, int, int]) -> Integers:
    reader = PythonRangeDecoder(payload)
    size = reader.get_bits(5)
    alphabet = (1 << size) + reader.get_bits(size)
    values = np.zeros(shape, np.int64)
    if alphabet > 1:
        frames, height, width = shape
        r = reader.get_bits(1) if frames > 2 else 0
        changed: set[Place] = set()
        returns: set[Place] = set()
        contexts = [AdaptiveTable(flat(2), 2) for _ in range(4)]
        back = AdaptiveTable(flat(2), 2)
        for t in range(1, frames):
            frame = [(t, y, x) for y in range(height) for x in range(width)]
            before = set(changed)
            for number, table in enumerate(contexts):
                run = [place for place in frame if context(before, place) == number]
                changed |= {place for place, symbol in adaptive(reader, run, table) if symbol}
            if r:
                run = [p for p in frame if p in changed and any((s, *p[1:]) in before for s in range(1, t))]
                returns |= {place for place, symbol in adaptive(reader, run, back) if symbol}
        d = reader.get_bits(2)
        everywhere = [(t, y, x) for t in range(frames) for y in range(height) for x in range(width)]
        new = [place for place in everywhere if place[0] == 0 or (place in changed and place not in returns)]
        sent = dict(adaptive(reader, new, AdaptiveTable(flat(alphabet), max(alphabet >> 2 * d, 1))))
        for place in everywhere:
            t, y, x = place
            if place in sent:
                values[place] = sent[place]
            elif place in returns:
                latest = max(s for s in range(1, t) if (s, y, x) in changed)
                values[place] = values[latest - 1, y, x]
            else:
                values[place] = values[t - 1, y, x]
    reader.finish()
    return values


def context(changed: set[Place], place: Place) -> int:
    t, y, x = place
    around = sum((t - 1, y + i, x + j) in changed for i in (-1, 0, 1) for j in (-1, 0, 1))
    score = around + 4 * ((t - 1, y, x) in changed) + 2 * ((t - 2, y, x) in changed)
    return 0 if score == 0 else 1 if score <= 3 else 2 if score <= 7 else 3


@given(maps())
@settings(deadline=None, max_examples=150)
def test_tokens_come_back_and_a_reader_by_the_words_agrees(values: Integers) -> None:
    payload = written(values, 64)
    assert write_tensors([(spec_of(values.shape, 64), values)], encoder=PythonRangeEncoder) == payload
    assert np.array_equal(read(payload, values.shape, 64), values)
    assert np.array_equal(by_the_words(payload, values.shape), values)


def test_long_runs_agree_too() -> None:
    """More than 2048 positions of one context, and tables that forget."""
    generator = np.random.default_rng(0)
    values = np.where(generator.random((12, 60, 60)) < 0.5, 3, generator.integers(0, 30, (12, 60, 60)))
    payload = written(values, 30)
    assert np.array_equal(read(payload, values.shape, 30), values)
    assert np.array_equal(by_the_words(payload, values.shape), values)


# ---- what it costs


@given(maps())
@settings(deadline=None, max_examples=60)
def test_codes_above_the_highest_token_cost_nothing(values: Integers) -> None:
    assert written(values, 64) == written(values, 1024) == written(values, 4096)
    assert written(values, max(int(values.max()) + 1, 2)) == written(values, 64)


@pytest.mark.parametrize("shape", [(1, 1, 1), (300, 16, 32)])
def test_tokens_that_are_all_zero_are_one_number(shape: tuple[int, ...]) -> None:
    values = np.zeros(shape, np.int64)
    assert coded_bits(spec_of(shape, 256), values) == pytest.approx(5)
    assert np.array_equal(read(written(values, 256), shape, 256), values)


def test_tokens_that_stay_cost_almost_nothing() -> None:
    generator = np.random.default_rng(0)
    still = np.repeat(generator.integers(0, 256, (1, 8, 8)), 100, axis=0)
    assert coded_bits(spec_of(still.shape, 256), still) < 64 * 9 + 99 * 64 * 0.01


def test_tokens_that_waver_cost_a_flag_and_not_a_code() -> None:
    """Either of two codes a position, each as likely at any time: one bit a token, not half of log2(256)."""
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 256, (2, 8, 8))
    values = np.where(generator.random((200, 8, 8)) < 0.5, first, second)
    assert coded_bits(spec_of(values.shape, 256), values) < 1.05 * values.size + 64 * 2 * 9


def entropy(share: float) -> float:
    return float(-share * np.log2(share) - (1 - share) * np.log2(1 - share))


def test_change_is_expected_where_there_was_some() -> None:
    """Half of the picture is busy, half is calm: the flags cost nearly what they would if the halves were known."""
    generator = np.random.default_rng(2)
    shares = np.broadcast_to(np.where(np.arange(32) < 16, 0.9, 0.01), (16, 32))
    steps = np.where(generator.random((100, 16, 32)) < shares, generator.integers(1, 200, (100, 16, 32)), 0)
    values = np.cumsum(steps, axis=0) % 200
    literals = (16 * 32 + np.count_nonzero(steps[1:])) * np.log2(200)
    flags = 99 * 16 * 16 * (entropy(0.9) + entropy(0.01))
    found = coded_bits(spec_of(values.shape, 200), values)
    assert found < 1.02 * literals + 1.25 * flags
    assert found < literals + 0.6 * 99 * 16 * 32 * entropy(0.455)  # all alike


def test_returns_are_left_out_where_they_do_not_pay() -> None:
    """Each of 8 codes is always as likely: a flag for the one in seven changes that returns costs more than it saves."""
    values = np.random.default_rng(3).integers(0, 8, (60, 16, 16))
    changed = np.count_nonzero(values[1:] != values[:-1])
    ideal = 59 * 16 * 16 * entropy(7 / 8) + 3 * (16 * 16 + changed)
    assert coded_bits(spec_of(values.shape, 8), values) < 1.01 * ideal


def test_codes_that_do_not_occur_weigh_32_tokens_where_few_others_do() -> None:
    """Three codes of 1024 in a frame of 256 tokens: the first block of 16 is blind, in those of 16 to 128 that follow the other
    codes have 32 of 32 + n tokens, the least that a table of so many gives them. At full mass they would have 1024."""
    values = np.random.default_rng(4).choice([0, 1, 1023], (1, 16, 16))
    lost = sum(n * np.log2((n + 32) / n) for n in (16, 32, 64, 128))
    header = 5 + 10 + 2
    assert coded_bits(spec_of(values.shape, 1024), values) < header + 16 * 10 + 240 * np.log2(3) + lost + 5


# ---- hostile maps


def number(value: int) -> bytes:
    writer = RangeEncoder()
    put_unsigned(writer, value)
    return writer.finish()


def stream(alphabet: int, flags: list[int], new: list[int], returns: int | None = None, back: Sequence[int] = ()) -> bytes:
    """One position over time: the flags of t = 1 .. T-1, those of returns where they stand, and the new tokens."""
    writer = RangeEncoder()
    put_unsigned(writer, alphabet - 1)
    if returns is not None:
        writer.put_bits(returns, 1)
    contexts = [AdaptiveTable(flat(2), 2) for _ in range(4)]
    table, left = AdaptiveTable(flat(2), 2), list(back)
    for t, flag in enumerate(flags):
        last, earlier = (flags[t - 1] if t > 0 else 0), (flags[t - 2] if t > 1 else 0)
        number = (0, 1, 1, 1, 2, 2, 2, 2, 3)[5 * last + 2 * earlier]
        write_adaptive(writer, np.array([flag], np.int32), contexts[number])
        if returns and flag and any(flags[:t]):
            write_adaptive(writer, np.array([left.pop(0)], np.int32), table)
    assert not left
    writer.put_bits(0, 2)
    write_adaptive(writer, np.array(new, np.int32), AdaptiveTable(flat(alphabet), alphabet))
    return writer.finish()


def refused(payload: bytes, shape: tuple[int, int, int], levels: int = 8) -> bool:
    with pytest.raises(InvalidError) as caught:
        read(payload, shape, levels)
    return caught.value.code == "invalid.tensor_token"


def test_streams_by_hand_are_read() -> None:
    """Without this the refusals below could have any reason."""
    assert read(stream(8, [1], [3, 7]), (2, 1, 1), 8).ravel().tolist() == [3, 7]
    assert read(stream(8, [0, 1, 1, 0, 1], [5, 7, 2], 1, [1, 0]), (6, 1, 1), 8).ravel().tolist() == [5, 5, 7, 5, 5, 2]
    assert read(stream(8, [1, 1], [5, 7, 5], 0), (3, 1, 1), 8).ravel().tolist() == [5, 7, 5]
    assert read(stream(8, [1, 1, 1], [5, 7, 4], 1, [0, 1]), (4, 1, 1), 8).ravel().tolist() == [5, 7, 4, 7]


def test_a_new_token_equal_to_the_one_before_is_refused() -> None:
    assert refused(stream(8, [1], [7, 7]), (2, 1, 1))
    assert refused(stream(8, [1, 1, 1], [5, 7, 5], 1, [1, 0]), (4, 1, 1))  # 5 7 5 5: the one before is a return


def test_a_new_token_equal_to_its_forerunner_is_refused_where_returns_are_said() -> None:
    assert refused(stream(8, [1, 1], [5, 7, 5], 1, [0]), (3, 1, 1))
    assert refused(stream(8, [1, 0, 1], [5, 7, 5], 1, [0]), (4, 1, 1))
    assert read(stream(8, [1, 1, 1], [5, 7, 4, 5], 1, [0, 0]), (4, 1, 1), 8)[3, 0, 0] == 5  # 7 is the forerunner of this 5


@pytest.mark.parametrize("alphabet", [9, 10, 4097, 1 << 20, (1 << 32) - 1])
def test_an_alphabet_over_the_levels_is_refused(alphabet: int) -> None:
    payload = stream(alphabet, [], [alphabet - 1]) if alphabet < 4097 else number(alphabet - 1)
    assert refused(payload, (1, 1, 1))


@pytest.mark.parametrize("highest", [1, 2, 6])
def test_an_alphabet_whose_last_code_does_not_occur_is_refused(highest: int) -> None:
    assert refused(stream(8, [], [highest]), (1, 1, 1))
    assert refused(stream(8, [0], [highest]), (2, 1, 1))
    assert read(stream(highest + 1, [], [highest]), (1, 1, 1), 8)[0, 0, 0] == highest


@given(maps(), st.integers(2, 64), st.data())
@settings(deadline=None, max_examples=150)
def test_damaged_and_foreign_maps_are_refused_or_legal(values: Integers, levels: int, data: st.DataObject) -> None:
    """Nothing but a BitstreamError; whatever is read is in range and what the words say."""
    payload = bytearray(written(values, 64))
    if data.draw(st.booleans()):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    shape = data.draw(st.sampled_from([values.shape, values.shape[::-1], (values.size, 1, 1)]))
    try:
        found = read(bytes(payload), shape, levels)
    except BitstreamError:
        return
    assert found.shape == shape and found.min() >= 0 and found.max() < levels
    assert np.array_equal(by_the_words(bytes(payload), shape), found)
