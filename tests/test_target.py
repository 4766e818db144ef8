"""Targets and budgets: sizes from bpp, bit rate and bytes agree, what cannot be is refused, and all bits are given out."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.bitstream.errors import NvcError, TargetError
from nvc.codec import target
from nvc.codec.metrics import IDENTICAL_DB
from nvc.codec.target import AIM, LEAST_BITS, Smallest, Target, plan_budget

PIXELS, SECONDS = 1_000_000, Fraction(4)
SMALLEST = Smallest(weights=1000, values=128, overhead=600.0)


def code(call: object, *arguments: object, **named: object) -> str:
    with pytest.raises(NvcError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    return caught.value.code


def test_the_three_ways_to_ask_for_a_size_agree() -> None:
    assert Target(bpp=0.2).total_bytes(PIXELS, SECONDS, "yuv420p") == pytest.approx(25_000)
    assert Target(bitrate=50_000).total_bytes(PIXELS, SECONDS, "yuv420p") == pytest.approx(25_000)
    assert Target(size=25_000).total_bytes(PIXELS, SECONDS, "yuv420p") == pytest.approx(25_000)
    assert Target().total_bytes(PIXELS, SECONDS, "yuv420p") is None


def test_only_one_way_may_be_chosen() -> None:
    for two in itertools.combinations(("bpp", "bitrate", "size", "psnr"), 2):
        assert code(Target, **dict.fromkeys(two, 1)) == "usage.target", two


def test_the_line_about_two_names_both() -> None:
    with pytest.raises(NvcError, match=r"--bpp and --target-psnr"):
        Target(bpp=1, psnr=30)


def test_a_psnr_is_no_size_and_under_what_stands_for_no_error() -> None:
    assert Target(psnr=99.9).total_bytes(PIXELS, SECONDS, "yuv420p") is None
    for value in (IDENTICAL_DB, IDENTICAL_DB + 1):
        assert code(Target, psnr=value) == "usage.target"


@pytest.mark.parametrize("name", ["bpp", "bitrate", "size", "psnr"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_target_is_a_positive_number(name: str, value: float) -> None:
    assert code(Target, **{name: value}) == "usage.target"


def test_a_bit_rate_needs_a_duration() -> None:
    assert code(Target(bitrate=1e5).total_bytes, PIXELS, None, "yuv420p") == "usage.target"
    assert Target(bpp=0.1).total_bytes(PIXELS, None, "yuv420p") == pytest.approx(12_500)


@pytest.mark.parametrize(("pix_fmt", "bits"), [("yuv420p", 12), ("rgb24", 24)])
def test_no_target_is_over_the_size_of_the_uncompressed_video(pix_fmt: str, bits: int) -> None:
    raw = bits * PIXELS / 8
    assert Target(size=raw).total_bytes(PIXELS, SECONDS, pix_fmt) == raw
    for over in (Target(size=raw * 1.01), Target(bpp=bits * 1.01), Target(bitrate=raw * 8 / 4 * 1.01)):
        assert code(over.total_bytes, PIXELS, SECONDS, pix_fmt) == "usage.target"
    assert Target(size=400.0).total_bytes(64, SECONDS, pix_fmt) == 400.0  # a tiny clip may be larger than its samples


@given(st.integers(20_000, 10**8), st.integers(1, 3000), st.integers(1, 10), st.floats(0, 10_000))
@settings(deadline=None)
def test_a_budget_gives_out_all_bits_and_no_more(total: int, frames: int, segments: int, overhead: float) -> None:
    smallest = Smallest(1000, 128, overhead)
    segments = min(segments, frames)
    try:
        budget = plan_budget(total, PIXELS, frames, segments, smallest)
    except TargetError:
        return
    assert budget.total_bytes == total
    bits = budget.bits(overhead)
    assert bits / 8 + overhead == pytest.approx(AIM * total) or bits == 1
    bits_of_weights = budget.parameters * segments * target.USUAL_BITS
    assert bits_of_weights <= target.SHARE * bits
    assert bits_of_weights >= target.SHARE * bits - segments * target.USUAL_BITS - 1


def test_there_is_always_a_bit_to_give_out() -> None:
    assert plan_budget(2500.0, PIXELS, 10, 2, SMALLEST).bits(1e9) == 1


def test_the_smallest_file_has_everything_once_a_segment_or_frame() -> None:
    assert SMALLEST.bytes(10, 2) == pytest.approx(600 + LEAST_BITS / 8 * (1000 * 2 + 128 * 10))


def test_a_target_below_the_smallest_network_is_missed_before_anything_is_fitted() -> None:
    least = SMALLEST.bytes(10, 2)
    assert plan_budget(least + 1, PIXELS, 10, 2, SMALLEST).parameters > 0
    assert code(plan_budget, least - 1, PIXELS, 10, 2, SMALLEST) == "target.too_small"
    with pytest.raises(TargetError, match="bpp") as caught:
        plan_budget(100.0, PIXELS, 10, 2, SMALLEST)
    assert f"{least:.0f} bytes" in str(caught.value)
    assert caught.value.exit_code == 5


def test_without_a_target_there_is_a_sensible_size_that_always_works() -> None:
    assert plan_budget(None, PIXELS, 10, 1, SMALLEST).total_bytes == target.DEFAULT_BPP * PIXELS / 8
    for pixels in (1, 64, 5000):
        for frames, segments in ((1, 1), (7, 1), (600, 2)):
            budget = plan_budget(None, pixels, frames, segments, SMALLEST)
            assert budget.bits(SMALLEST.overhead) > 1
            assert plan_budget(budget.total_bytes, pixels, frames, segments, SMALLEST) == budget
