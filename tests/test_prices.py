"""Prices of tokens: differences of what a whole chain of them costs, and near what the coder takes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hostless import no_host_reads
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits
from nvc.codec.prices import ENTRY_BITS, TokenPrices, is_new
from nvc.codec.rate import token_bits

Integers = NDArray[np.int64]


def chain_bits(prices: TokenPrices, chain: list[int]) -> float:
    """All that the tokens of one place cost, from the first frame to the last."""
    total = float(prices.literal[chain[0]])
    for before, now in itertools.pairwise(chain):
        total += float(prices.same) if now == before else float(prices.new) + float(prices.literal[now])
    return total


LEVELS = 5


def prices_of(same: float, new: float, literals: list[float], dtype: torch.dtype = torch.float32) -> TokenPrices:
    prices = TokenPrices(len(literals), 1)
    prices.same.fill_(same)
    prices.new.fill_(new)
    prices.literal = torch.tensor(literals, dtype=dtype)
    return prices


def measured(tokens: torch.Tensor, levels: int, dimension: int) -> TokenPrices:
    prices = TokenPrices(levels, dimension)
    with no_host_reads():
        prices.measure(tokens)
    return prices


@given(
    st.lists(st.integers(0, LEVELS - 1), min_size=1, max_size=6),
    st.data(),
    st.lists(st.floats(0, 20), min_size=LEVELS, max_size=LEVELS),
    st.floats(0, 9),
    st.floats(0, 9),
)
@settings(deadline=None, max_examples=150)
def test_bits_of_a_change_are_the_change_of_the_chain(
    chain: list[int], data: st.DataObject, literals: list[float], same: float, new: float
) -> None:
    prices = prices_of(same, new, literals, torch.float64)
    t = data.draw(st.integers(0, len(chain) - 1))
    bits = prices.bits(torch.tensor(chain)[:, None], torch.tensor([t]))[0, 0]
    totals = [chain_bits(prices, [*chain[:t], code, *chain[t + 1 :]]) for code in range(LEVELS)]
    for code in range(LEVELS):
        assert float(bits[code] - bits[0]) == pytest.approx(totals[code] - totals[0], abs=1e-9)
    if len(chain) == 1:
        assert bits.tolist() == totals


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_frames_and_places_do_not_disturb_each_other(frames: int) -> None:
    prices = prices_of(0.5, 2.0, [1.0, 3.0, 4.0, 8.0])
    tokens = torch.from_numpy(random_tokens(2, (frames, 2, 3), 4, 0.6)).flatten(1)
    index = torch.arange(frames).flip(0)
    with no_host_reads():
        whole = prices.bits(tokens, index)
    assert whole.shape == (frames, 6, 4)
    for i, t in enumerate(index.tolist()):
        for place in range(6):
            alone = prices.bits(tokens[:, place : place + 1], torch.tensor([t]))
            assert torch.equal(whole[i, place], alone[0, 0])
    assert torch.equal(prices.literal, torch.tensor([1.0, 3.0, 4.0, 8.0]))


def random_tokens(seed: int, shape: tuple[int, int, int], levels: int, change: float) -> Integers:
    """A code per place that is drawn anew with a probability of `change`."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, levels, shape)
    for t in range(1, shape[0]):
        tokens[t] = np.where(generator.random(shape[1:]) < change, tokens[t], tokens[t - 1])
    return tokens


@pytest.mark.parametrize("change", [0.0, 0.1, 0.7, 1.0])
def test_prices_are_code_lengths_and_literals_carry_whole_rows(change: float) -> None:
    tokens = torch.from_numpy(random_tokens(1, (9, 4, 6), 7, change))
    prices = measured(tokens, 7, 4)
    assert 2 ** -float(prices.same) + 2 ** -float(prices.new) == pytest.approx(1)
    assert math.isfinite(prices.same) and math.isfinite(prices.new)
    changes = [bool(tokens[t, y, x] != tokens[t - 1, y, x]) for t in range(1, 9) for y in range(4) for x in range(6)]
    if 0 < sum(changes) < len(changes):
        assert 2 ** -float(prices.new) == pytest.approx(sum(changes) / len(changes))
    sent = tokens[is_new(tokens)]
    assert len(sent) == 24 + sum(changes)
    counts = np.bincount(sent.numpy(), minlength=7)
    assert (counts > 0).all()
    entropy = -sum(count * math.log2(count / len(sent)) for count in counts)
    # summed over all tokens that are sent: their entropy, and each row once
    assert float(prices.literal[sent].double().sum()) == pytest.approx(entropy + ENTRY_BITS * 4 * 7, rel=1e-5)


def test_a_code_that_does_not_occur_is_dearer_than_any_that_does_but_has_a_price() -> None:
    tokens = torch.zeros(3, 2, 2, dtype=torch.int64)
    tokens[0, 0, 0] = 1
    prices = measured(tokens, 4, 8)
    assert torch.isfinite(prices.literal).all()
    assert prices.literal[2] == prices.literal[3] > prices.literal[1] > prices.literal[0]


def test_one_frame_or_one_token_has_prices() -> None:
    for shape in ((1, 3, 2), (1, 1, 1), (2, 1, 1)):
        prices = measured(torch.zeros(shape, dtype=torch.int64), 3, 2)
        assert math.isfinite(prices.same) and math.isfinite(prices.new) and torch.isfinite(prices.literal).all()


def test_prices_change_in_place() -> None:
    """A recorded step reads them where they are."""
    prices = TokenPrices(7, 4)
    places = [value.data_ptr() for value in prices.buffers()]
    for seed in (1, 2):
        prices.measure(torch.from_numpy(random_tokens(seed, (9, 4, 6), 7, 0.3 * seed)))
    assert [value.data_ptr() for value in prices.buffers()] == places
    again = measured(torch.from_numpy(random_tokens(2, (9, 4, 6), 7, 0.6)), 7, 4)
    assert all(torch.equal(a, b) for a, b in zip(prices.buffers(), again.buffers(), strict=True))


# ---- the sum of all, beside the coder


def written(tokens: Integers, levels: int) -> float:
    return coded_bits(TensorSpec(Kind.TOKENS, tokens.shape, levels), tokens)


@pytest.mark.parametrize("shape", [(1, 8, 16), (16, 8, 16), (60, 4, 4), (30, 1, 1)])
@pytest.mark.parametrize("levels", [4, 32, 128])
@pytest.mark.parametrize("change", [0.02, 0.2, 0.7, 1.0])
def test_tokens_that_change_by_chance_take_what_the_coder_writes(shape: tuple[int, int, int], levels: int, change: float) -> None:
    """Within 3 % and 60 bits: the coder has four densities to choose from, and learns tables for contexts and for returns."""
    tokens = random_tokens(3, shape, levels, change)
    assert float(token_bits(torch.from_numpy(tokens), levels)) == pytest.approx(written(tokens, levels), rel=0.03, abs=60)


def moving(frames: int = 40) -> Integers:
    """Codes drawn anew inside a square that moves by a place every other frame; all else stays."""
    tokens = np.broadcast_to(np.random.default_rng(1).integers(0, 32, (1, 16, 32)), (frames, 16, 32)).copy()
    for t in range(1, frames):
        tokens[t] = tokens[t - 1]
        x = t // 2 % 24
        tokens[t, 4:12, x : x + 8] = np.random.default_rng(t).integers(0, 32, (8, 8))
    return tokens


def wavering(frames: int = 40) -> Integers:
    """At each place two codes, between which it changes by chance."""
    generator = np.random.default_rng(2)
    pair = generator.integers(0, 32, (2, 8, 16))
    return np.where(generator.random((frames, 8, 16)) < 0.5, *pair)


@pytest.mark.parametrize("tokens", [moving(), wavering()], ids=["moving", "wavering"])
def test_tokens_with_a_pattern_take_less_than_is_said(tokens: Integers) -> None:
    said = float(token_bits(torch.from_numpy(tokens), 32))
    assert 0.3 * said < written(tokens, 32) < 0.8 * said
