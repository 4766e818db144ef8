"""Probability tables: exact sums, the bank against high-precision arithmetic, adaptation."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream import cdf


@given(st.lists(st.integers(0, 1 << 26), min_size=2, max_size=300))
@settings(deadline=None)
def test_from_counts_gives_each_symbol_one_and_its_share_rounded_down(counts: list[int]) -> None:
    freqs = cdf.from_counts(np.array(counts))
    assert freqs.sum() == cdf.TOTAL
    weights = counts if any(counts) else [1] * len(counts)
    shares = [1 + weight * (cdf.TOTAL - len(counts)) // sum(weights) for weight in weights]
    top = weights.index(max(weights))
    assert [f for i, f in enumerate(freqs.tolist()) if i != top] == [s for i, s in enumerate(shares) if i != top]
    assert freqs[top] >= shares[top]


def test_from_counts_takes_the_largest_counts_without_overflow() -> None:
    freqs = cdf.from_counts(np.full(16, 1 << 34, np.int64))
    assert freqs.tolist() == [cdf.TOTAL // 16] * 16


@pytest.mark.parametrize("alphabet", [2, 3, 256, 4096, 4097])
def test_flat_tables_differ_by_the_remainder_alone(alphabet: int) -> None:
    freqs = cdf.flat(alphabet)
    assert freqs.sum() == cdf.TOTAL
    assert set(freqs[1:].tolist()) == {1 + (cdf.TOTAL - alphabet) // alphabet}


def test_cached_tables_cannot_be_changed() -> None:
    for table in (cdf.flat(4), cdf.laplace(16, 127)):
        with pytest.raises(ValueError):
            table[0] = 7


def test_bank_constants_are_the_rounded_laplace_probabilities() -> None:
    with localcontext(prec=50):
        for index, constant in enumerate(cdf.NONZERO):
            scale = (Decimal(2).ln() * (index - 16) / 4).exp()
            assert constant == int((2**32 * (-1 / (2 * scale)).exp()).to_integral_value())


@pytest.mark.parametrize("bound", [1, 2, 127, 128, 2048, 4095, 1 << 24])
@pytest.mark.parametrize("scale", range(0, cdf.SCALES, 3))
def test_bank_tables_are_complete_and_symmetric(scale: int, bound: int) -> None:
    table, limit = cdf.laplace(scale, bound), cdf.laplace_limit(scale, bound)
    values = table[: 2 * limit + 1]
    assert 1 <= limit <= min(bound, cdf.MAX_LIMIT)
    assert len(table) == 2 * limit + 1 + (limit < bound)
    assert len(table) <= cdf.MAX_ALPHABET
    assert table.sum() == cdf.TOTAL and table.min() >= 1
    sides = values - values[::-1]
    assert np.abs(sides).max() <= len(table)  # at most the remainder, which only one of two equal values gets


@pytest.mark.parametrize("scale", [4, 12, 16, 24, 36, 44])
def test_bank_tables_match_the_rounded_laplace_distribution(scale: int) -> None:
    width = 2.0 ** ((scale - 16) / 4)
    limit = cdf.laplace_limit(scale, 4095)
    magnitudes = np.abs(np.arange(-limit, limit + 1))
    exact = np.where(
        magnitudes == 0, 1 - np.exp(-0.5 / width), np.exp(-magnitudes / width) * np.sinh(0.5 / width)
    )  # P(|v| - 1/2 < |x| < |v| + 1/2)
    table = cdf.laplace(scale, 4095)[: 2 * limit + 1] / cdf.TOTAL
    assert np.abs(table - exact).max() < len(table) / cdf.TOTAL + 1e-6  # the remainder of rounding goes to 0
    assert -(exact * np.log2(table / exact)).sum() < 1e-3


@pytest.mark.parametrize("scale", range(cdf.SCALES))
def test_escapes_are_rare_unless_the_alphabet_is_full(scale: int) -> None:
    limit = cdf.laplace_limit(scale, 1 << 24)
    assert limit == cdf.MAX_LIMIT or cdf.laplace(scale, 1 << 24)[-1] <= cdf.TOTAL >> cdf.ESCAPE_BITS


@given(st.integers(0, 20000))
@settings(deadline=None)
def test_blocks_partition_any_count_and_double_up_to_their_limit(count: int) -> None:
    spans = list(cdf.blocks(count))
    assert [i.start for i in spans] == [0, *(i.stop for i in spans)][: len(spans)]
    assert (spans[-1].stop if spans else 0) == count
    for span in spans[:-1]:
        assert span.stop - span.start == min(max(span.start, cdf.FIRST_BLOCK), cdf.MAX_BLOCK)


def test_adaptive_table_starts_as_its_prior_and_ends_at_what_it_saw() -> None:
    prior = cdf.laplace(20, 127)
    table = cdf.AdaptiveTable(prior, 4096)
    assert np.abs(table.freqs / cdf.TOTAL - prior / cdf.TOTAL).max() < 1e-3
    seen = np.array([3, 3, 3, 5] * 100000, np.int32)
    for block in cdf.blocks(len(seen)):
        table.update(seen[block])
    assert table.freqs[3] / cdf.TOTAL == pytest.approx(0.75, abs=0.01)
    assert table.freqs.min() >= 1


def test_adaptive_table_forgets() -> None:
    table = cdf.AdaptiveTable(cdf.flat(2), 1)
    for symbol in (0, 1):
        for _ in range(100):
            table.update(np.full(2048, symbol, np.int32))
    assert table.freqs[1] > 0.95 * cdf.TOTAL
