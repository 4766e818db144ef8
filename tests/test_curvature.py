"""Curvature: that of a quadratic form exactly, whatever its slope, and none where there is nothing to change."""

from __future__ import annotations

import pytest
import torch
from hostless import no_host_reads
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nvc.codec.curvature import REACH, curvature

SHAPE = (3, 4, 2, 5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(random: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=random, dtype=like.dtype)


def codes() -> Tensor:
    return 40 * torch.randn(SHAPE, generator=generator(9), dtype=torch.float64)


@given(st.floats(-3, 3), st.floats(-100, 100), st.floats(-1e3, 1e3), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_it_is_exact_on_a_quadratic_whatever_its_slope(q: float, slope: float, offset: float, seed: int) -> None:
    """D is the mean over frames of q |c|^2 + slope sum(c) + offset."""

    def distortion(at: Tensor) -> Tensor:
        return (q * at.square().sum() + slope * at.sum()) / len(at) + offset

    at, direction = codes(), noise(generator(seed), codes())
    with no_host_reads():
        found = curvature(distortion, at, direction)
    assert found.shape == () and float(found) == pytest.approx(q, abs=1e-5)


def test_on_a_form_with_several_curvatures_it_is_their_mean_over_random_directions() -> None:
    weights = torch.rand(SHAPE, generator=generator(1), dtype=torch.float64) + 0.5

    def distortion(at: Tensor) -> Tensor:
        return (weights * at.square()).sum() / len(at)

    random = generator(2)
    found = [float(curvature(distortion, codes(), noise(random, codes()))) for _ in range(200)]
    assert len(set(found)) == 200
    assert sum(found) / 200 == pytest.approx(float(weights.mean()), rel=0.02)
    assert all(weights.min() <= one <= weights.max() for one in found)


def test_the_change_is_as_long_as_it_says() -> None:
    seen: list[Tensor] = []

    def distortion(at: Tensor) -> Tensor:
        seen.append(at)
        return torch.zeros(())

    many = 7 * torch.randn(4, 50, 20, 20, generator=generator(3))
    assert curvature(distortion, many, noise(generator(), many)) == 0
    moved = max(seen, key=lambda at: float((at - many).abs().max())) - many
    assert float(moved.std()) == pytest.approx(7 * REACH, rel=0.02)
    assert any(torch.equal(at, many) for at in seen)


@pytest.mark.parametrize("constant", [torch.zeros(2, 3, 1, 1), torch.full((2, 3, 4, 4), 7.0)])
def test_codes_that_are_all_alike_have_none(constant: Tensor) -> None:
    assert float(curvature(lambda _: torch.tensor(torch.nan), constant, noise(generator(), constant))) == 0
