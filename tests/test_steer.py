"""Steering: lambda goes up while the size is too large and down while it is too small, and a slow plant comes to rest."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hostless import no_host_reads
from torch import Tensor

from nvc.codec.steer import Lambda


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


class Steer:
    """A Lambda that is asked and told in numbers."""

    def __init__(self, bits: float, pixels: int) -> None:
        self.tensors = Lambda(bits, pixels)

    @property
    def slope(self) -> float:
        return float(self.tensors.slope)

    @property
    def value(self) -> float:
        return float(self.tensors.value)

    @property
    def distortion(self) -> float:
        return float(self.tensors.distortion.value)

    def steer(self, bits: float, steps: int) -> None:
        predicted = scalar(bits)
        with no_host_reads():
            self.tensors.steer(predicted, steps)

    def observe(self, distortion: float) -> None:
        seen = scalar(distortion)
        with no_host_reads():
            self.tensors.observe(seen)


def fresh(bits: float = 1e6, pixels: int = 5_000_000) -> Steer:
    made = Steer(bits, pixels)
    made.observe(10.0)
    return made


@pytest.mark.parametrize("bpp", [0.05, 0.2, 1.0])
def test_the_first_slope_is_a_share_of_the_inverse_of_the_bits_per_pixel(bpp: float) -> None:
    steer = Steer(bpp * 1000, 1000)
    assert steer.slope * bpp == pytest.approx(fresh().slope * 0.2)
    assert 0.1 < steer.slope * bpp < 2


@pytest.mark.parametrize(("ratio", "sign"), [(1.3, 1), (1.0, 0), (0.7, -1)])
def test_the_slope_follows_the_sign_of_the_error_and_keeps_moving(ratio: float, sign: int) -> None:
    steer = fresh()
    slopes = [steer.slope]
    for _ in range(5):
        steer.steer(ratio * 1e6, 10)
        slopes.append(steer.slope)
    for before, after in itertools.pairwise(slopes):
        assert (after > before, after == before, after < before)[1 - sign]


def test_twice_the_steps_move_the_integral_twice() -> None:
    once, twice = fresh(), fresh()
    once.steer(1.1e6, 10)
    once.steer(1.1e6, 10)
    twice.steer(1.1e6, 20)
    assert once.slope == pytest.approx(twice.slope)


def test_an_error_acts_in_ratios_and_no_single_look_moves_far() -> None:
    over, under = fresh(), fresh()
    over.steer(1.2e6, 10)
    under.steer(1e6 / 1.2, 10)
    assert over.slope * under.slope == pytest.approx(fresh().slope ** 2)
    for wild in (0.0, 1.0, 1e12):
        steer = fresh()
        steer.steer(wild, 10)
        assert abs(math.log(steer.slope / fresh().slope)) < 2.5
        assert math.isfinite(steer.value)


def test_the_distortion_is_a_running_mean_that_starts_at_the_first_batch() -> None:
    steer = Steer(1e6, 5_000_000)
    steer.observe(100.0)
    assert steer.distortion == 100.0
    steer.observe(0.0)
    assert steer.distortion == pytest.approx(98.0)
    for _ in range(300):
        steer.observe(7.0)
    assert steer.distortion == pytest.approx(7.0, rel=0.05)
    assert steer.value == pytest.approx(steer.slope * steer.distortion)


def test_what_changes_stays_in_the_same_memory() -> None:
    steer = fresh()
    places = [tensor.data_ptr() for tensor in steer.tensors.tensors()]
    before = [float(tensor) for tensor in steer.tensors.tensors()]
    steer.observe(3.0)
    steer.steer(2e6, 10)
    assert [tensor.data_ptr() for tensor in steer.tensors.tensors()] == places
    assert all(float(now) != then for now, then in zip(steer.tensors.tensors(), before, strict=True))


@pytest.mark.parametrize("start", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("elasticity", [0.25, 0.35, 0.5])
def test_a_lagging_rate_comes_to_rest_at_the_budget_without_overshooting(start: float, elasticity: float) -> None:
    """The plant that the gains are made for: bits go like lambda to the minus `elasticity`, 200 steps late."""
    steer = fresh()
    wanted = steer.slope * start ** (1 / elasticity)  # the slope at which the bits are the budget
    log_bits = math.log(start)
    trace = []
    for _ in range(200):
        steer.steer(1e6 * math.exp(log_bits), 10)
        log_bits += (elasticity * math.log(wanted / steer.slope) - log_bits) * (1 - math.exp(-10 / 200))
        trace.append(math.exp(log_bits))
    assert trace[-1] == pytest.approx(1, abs=0.02)
    assert min([*trace, start]) / min(1, start) > 0.93 and max([*trace, start]) / max(1, start) < 1.07
