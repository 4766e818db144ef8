"""The budget: steps move towards the size, sparse layers do not get coarser, and the rate counts as far as the phase says."""

from __future__ import annotations

import math

import pytest
import torch
from hostless import no_host_reads
from nvc_files import a_fit, clip

from nvc.codec.budget import LEAST_CODE, coarsen
from nvc.codec.config import FitConfig
from nvc.codec.fit import Fit
from nvc.codec.target import Target

CONFIG = FitConfig(passes=1, min_steps=200)


def rounded() -> Fit:
    """A fit of 200 steps in which rounding has just begun."""
    fit: Fit = a_fit(clip(), Target(size=3000), CONFIG)[1]
    while fit.step <= fit.quantise_step:
        fit.advance()
    return fit


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 2.0])
def test_steps_follow_the_error_of_the_size_and_sparse_layers_do_not_get_coarser(ratio: float) -> None:
    fit = rounded()
    sparse, *others = fit.convolutions
    with torch.no_grad():
        sparse.log_step.fill_(float(sparse.weight.detach().abs().amax().log()) + 0.5)  # codes of 0, and few of 1
        for layer in others:
            layer.log_step.fill_(float(layer.weight.detach().abs().mean().log()) - 1)
    means = [float(layer.numbers()[0].detach().abs().mean()) for layer in fit.convolutions]
    assert means[0] < LEAST_CODE < min(means[1:])
    fit.objective.steer.budget_bits = fit.bits() / ratio
    weights = sum(layer.weight.numel() for layer in fit.convolutions)
    excess = (fit.bits() - fit.objective.steer.budget_bits) / weights
    before = [float(layer.log_step.detach()) for layer in fit.convolutions]
    fit.objective.bits()  # makes the constants of its shapes
    coarsen(fit.objective, 0.5)
    change = 0.5 * math.log(2) * min(max(excess, -2.0), 2.0)
    found = [float(layer.log_step.detach()) - then for layer, then in zip(fit.convolutions, before, strict=True)]
    assert found[1:] == pytest.approx([change] * len(others), rel=1e-3)
    assert found[0] == pytest.approx(change if ratio < 1 else 0.0, rel=1e-3)


def test_it_reads_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    from nvc.codec import rate

    monkeypatch.setattr(rate, "_count_of", lambda device: (rate._dense_count, rate._dense_urn))
    fit = rounded()
    fit.objective.bits()
    with no_host_reads():
        coarsen(fit.objective, 0.1)


def test_the_rate_begins_with_rounding_and_counts_in_full_after_its_ramp() -> None:
    fit: Fit = a_fit(clip(), Target(size=3000), CONFIG)[1]
    shares = []
    while fit.step < fit.steps:
        fit.advance()
        objective = fit.objective
        shares.append(float(objective.ramp))
        assert float(objective.price()) == pytest.approx(float(objective.steer.value) * shares[-1], rel=1e-6)
    begin, full = int(CONFIG.quantise_at * fit.steps), int(CONFIG.full_rate_at * fit.steps)
    assert set(shares[: begin + 1]) == {0.0} and set(shares[full:]) == {1.0}
    rise = shares[begin : full + 1]
    assert rise == pytest.approx([i / (full - begin) for i in range(full - begin + 1)], abs=1e-6)
