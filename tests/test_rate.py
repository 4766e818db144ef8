"""Differentiable bit counts: within 1 % of what the coder writes, and a gradient that is the price of moving a code by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hostless import no_host_reads
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from nvc_files import a_fit, clip, emitted

from nvc.bitstream import constants
from nvc.bitstream.coefficients import write_sections
from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits
from nvc.bitstream.tokens import DENSITY_BITS
from nvc.codec import rate
from nvc.codec.config import FitConfig
from nvc.codec.target import Target

LARGE = 8 * 3000  # bits; the prediction is held to 1 % of sections larger than that
STREAM_BITS = 20  # of a section, beyond its tensors
Values = NDArray[np.float64]


def predicted_over_written(kind: Kind, real: Values) -> float:
    """For real codes, what rate.py predicts over what the coder takes; the example is dropped if it is small."""
    most = 127 if kind is Kind.WEIGHT else 2047
    values = np.rint(real).clip(-most, most).astype(np.int64)
    written = coded_bits(TensorSpec(kind, values.shape), values)
    assume(written > LARGE)
    codes = torch.from_numpy(values).float()
    predicted = rate.tensors_bits([codes]) if kind is Kind.WEIGHT else rate.embedding_bits(codes)
    return float(predicted) / written


def spikes(generator: np.random.Generator, zeros: float, slab: Values) -> Values:
    """`slab`, but for a share of `zeros`."""
    return np.where(generator.random(slab.shape) < zeros, 0.0, slab)


WEIGHTS = {
    "laplace": lambda g, scale, shape: g.laplace(0, scale, shape),
    "gaussian": lambda g, scale, shape: g.normal(0, scale, shape),
    "shifted": lambda g, scale, shape: g.normal(scale, scale, shape),
    "uniform": lambda g, scale, shape: g.uniform(-2 * scale - 0.5, 2 * scale + 0.5, shape),
    "heavy-tailed": lambda g, scale, shape: scale * g.standard_t(3, shape),
    "pruned": lambda g, scale, shape: spikes(g, 0.2, g.laplace(0, scale, shape)),
}


@pytest.mark.parametrize("name", WEIGHTS)
@settings(deadline=None, max_examples=12)
@given(st.floats(-1.5, 4), st.integers(6_000, 40_000), st.integers(0, 2**32 - 1))
def test_weights_take_what_the_coder_writes(name: str, log_scale: float, count: int, seed: int) -> None:
    values = WEIGHTS[name](np.random.default_rng(seed), 2**log_scale, (count, 1, 1, 1))
    assert predicted_over_written(Kind.WEIGHT, values) == pytest.approx(1, abs=0.01)


EMBEDDINGS = {
    "white": lambda g, scale, shape: g.laplace(0, scale, shape),
    "gaussian": lambda g, scale, shape: g.normal(0, scale, shape),
    "following": lambda g, scale, shape: following(g.laplace(0, scale, shape), 0.9),
    "mixed": lambda g, scale, shape: following(g.laplace(0, scale, shape), np.resize([0.0, 0.95], (1, shape[1], 1, 1))),
    "channels": lambda g, scale, shape: g.laplace(0, scale * np.exp(g.normal(0, 0.7, (1, shape[1], 1, 1))), shape),
}


def following(changes: Values, share: float | Values) -> Values:
    """Every frame is `share` of the one before it and `changes` (T, C, h, w)."""
    out = changes.copy()
    for t in range(1, len(out)):
        out[t] += (share * out[t - 1])[0] if isinstance(share, np.ndarray) else share * out[t - 1]
    return out


@pytest.mark.parametrize("name", EMBEDDINGS)
@settings(deadline=None, max_examples=10)
@given(st.floats(0, 4), st.integers(132, 300), st.sampled_from([(2, 4), (9, 16), (4, 4)]), st.integers(0, 2**32 - 1))
def test_embeddings_take_what_the_coder_writes(
    name: str, log_scale: float, frames: int, cells: tuple[int, int], seed: int
) -> None:
    values = EMBEDDINGS[name](np.random.default_rng(seed), 2**log_scale, (frames, 16, *cells))
    assert predicted_over_written(Kind.EMBEDDING, values) == pytest.approx(1, abs=0.01)


def test_a_fitted_network_takes_what_is_written() -> None:
    frames = 6
    plan, fit = a_fit(clip(64, 48, frames), Target(size=12_000), FitConfig(passes=1, min_steps=150))
    tensors = emitted(fit.network, fit.run(lambda _: None))
    sections = write_sections(plan.analysis, tensors, frames)
    multipliers = sum(t.size for t, p in zip(tensors, plan.analysis.parameters, strict=True) if p.kind is Kind.MULTIPLIER)
    weights = 8 * len(sections[constants.WEIGHTS]) - STREAM_BITS - 16 * multipliers
    embeddings = 8 * len(sections[constants.EMBEDDINGS]) - STREAM_BITS
    assert weights > LARGE
    with torch.no_grad():
        predicted = float(rate.tensors_bits([number for layer in fit.convolutions for number in layer.numbers()]))
    assert predicted == pytest.approx(weights, rel=0.01)
    assert float(fit.objective.bits()) == pytest.approx(weights + embeddings, rel=0.01)


# ---- what a count is made of


def test_every_tensor_has_a_table_of_its_own() -> None:
    generator = np.random.default_rng(2)
    tensors = [torch.from_numpy(np.rint(generator.laplace(0, scale, 500))).float() for scale in (0.5, 20.0)]
    apart = sum(float(rate.tensors_bits([tensor])) for tensor in tensors)
    assert float(rate.tensors_bits(tensors)) == pytest.approx(apart, rel=1e-5)
    assert float(rate.tensors_bits([torch.cat(tensors)])) > 1.1 * apart


def test_real_codes_cost_what_they_are_rounded_to() -> None:
    real = torch.from_numpy(np.random.default_rng(3).laplace(0, 3, 20_000)).float()
    assert float(rate.tensors_bits([real])) == float(rate.tensors_bits([real.round()]))


def test_the_order_of_independent_codes_does_not_matter_but_their_values_do() -> None:
    codes = torch.from_numpy(np.rint(np.random.default_rng(3).laplace(0, 3, 20_000))).float()
    bits = float(rate.tensors_bits([codes]))
    assert float(rate.tensors_bits([codes.flip(0)])) == pytest.approx(bits, rel=1e-3)
    assert float(rate.tensors_bits([2 * codes.abs().clamp(max=3)])) < 0.8 * bits  # four values in all


def test_a_tensor_of_zeros_costs_no_more_than_a_header_and_still_has_gradients() -> None:
    zeros = torch.zeros(1000, requires_grad=True)
    bits = rate.tensors_bits([zeros])
    assert 0 <= float(bits.detach()) < 16
    bits.backward()
    assert zeros.grad is not None and torch.isfinite(zeros.grad).all()


def test_embeddings_take_the_cheaper_of_codes_and_temporal_residuals_per_channel() -> None:
    generator = np.random.default_rng(4)
    shape = (600, 1, 2, 4)
    drift = torch.from_numpy(np.rint(np.cumsum(generator.laplace(0, 1, shape), axis=0))).float()
    white = torch.from_numpy(np.rint(generator.laplace(0, 20, shape))).float()
    first, changes = drift[:1], drift[1:] - drift[:-1]
    assert float(rate.embedding_bits(drift)) == pytest.approx(float(rate.tensors_bits([first, changes])), rel=1e-5)
    assert float(rate.embedding_bits(drift)) < 0.8 * float(rate.tensors_bits([drift]))
    assert float(rate.embedding_bits(white)) == pytest.approx(float(rate.tensors_bits([white])), rel=1e-5)
    quiet = torch.from_numpy(np.rint(generator.laplace(0, 0.5, shape))).float()
    both = float(rate.embedding_bits(torch.cat([quiet, white], dim=1)))
    assert both == pytest.approx(float(rate.tensors_bits([quiet, white])), rel=1e-5)
    assert both < 0.9 * float(rate.tensors_bits([torch.cat([quiet, white], dim=1)]))


def test_one_frame_has_no_residual() -> None:
    codes = torch.tensor([[[[3.0, -4.0]]]])
    assert float(rate.embedding_bits(codes)) == pytest.approx(float(rate.tensors_bits([codes])), rel=1e-5)


# ---- gradients


def gradient(values: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """Of the bits of `values` and `others`, by `values`."""
    values = values.clone().requires_grad_()
    rate.tensors_bits([values, *others]).backward()
    assert values.grad is not None
    return values.grad


@pytest.mark.parametrize("scale", [0.8, 3.0, 12.0])
@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5, 0.7])
def test_the_gradient_is_what_moving_a_code_by_one_costs(scale: float, offset: float) -> None:
    """Codes between k and k + 1 have the slope between the two: moving a few of many from one to the other costs that."""
    codes = torch.from_numpy(np.rint(np.random.default_rng(6).laplace(0, scale, 60_000))).float()
    for k in (round(factor * scale) for factor in (-2.5, -1.5, -1.0, 0.0, 0.5, 1.0, 2.0)):
        few = (codes == k).nonzero()[:40]
        between = codes.clone()
        between[few] += offset
        above = codes.clone()
        above[few] += 1
        cost = (float(rate.tensors_bits([above])) - float(rate.tensors_bits([codes]))) / len(few)
        assert gradient(between)[few].mean() == pytest.approx(cost, rel=0.05, abs=0.03), k


@pytest.mark.parametrize("scale", [4.0, 20.0])
def test_gradients_point_to_zero(scale: float) -> None:
    real = torch.from_numpy(np.random.default_rng(7).laplace(0, scale, 200_000)).float()
    usual = (real.abs() < 2 * scale) & (real.abs() > 0.01)
    towards = (gradient(real) * real.sign())[usual]
    assert (towards > 0).float().mean() > 0.97  # neighbours in the tail may be as frequent by chance
    assert float(towards.mean()) == pytest.approx(1 / scale / np.log(2), rel=0.1)  # the slope of a Laplace density


def test_every_tensor_has_gradients_of_its_own() -> None:
    generator = np.random.default_rng(8)
    narrow, wide = (torch.from_numpy(generator.laplace(0, scale, 5000)).float() for scale in (1.0, 15.0))
    assert torch.equal(gradient(narrow), gradient(narrow, wide))
    assert torch.equal(gradient(wide), gradient(wide, narrow))


def test_a_factor_of_the_loss_is_one_of_the_gradient() -> None:
    codes = torch.from_numpy(np.random.default_rng(9).laplace(0, 2, 1000)).float().requires_grad_()
    rate.tensors_bits([codes]).backward()
    assert codes.grad is not None
    once, codes.grad = codes.grad, None
    (3 * rate.tensors_bits([codes])).backward()
    assert torch.allclose(codes.grad, 3 * once)


@pytest.mark.parametrize("others", [1, 1000])
@pytest.mark.parametrize("value", [1e-20, 0.5, 255.0, 255.5, 256.0, 4095.0, 2.0**24, 1e12])
def test_bits_and_gradients_of_huge_codes_are_finite(value: float, others: int) -> None:
    values = torch.cat([torch.tensor([value, -value]), torch.zeros(others)]).requires_grad_()
    bits = rate.tensors_bits([values])
    bits.backward()
    assert torch.isfinite(bits) and float(bits.detach()) >= 0
    assert values.grad is not None and torch.isfinite(values.grad).all()


def test_a_code_that_is_no_number_is_no_error() -> None:
    """A fit that diverges prices its codes before it notices."""
    values = torch.tensor([math.nan, 1.0, -3.0], requires_grad=True)
    rate.tensors_bits([values]).backward()
    assert values.grad is not None


def test_a_code_beyond_the_table_is_pulled_to_zero() -> None:
    real = np.random.default_rng(10).laplace(0, 3, 20_000)
    real[:8] = [300.2, -300.2, 700.7, -700.7, 2000.0, -2000.0, 260.4, -260.4]
    values = torch.from_numpy(real).float()
    assert (gradient(values)[:8] * values[:8].sign() > 0).all()


def test_larger_codes_cost_more_beyond_the_tables_too() -> None:
    def bits(value: float) -> float:
        return float(rate.tensors_bits([torch.cat([torch.tensor([value]), torch.ones(1000)])]))

    costs: list[Any] = [bits(value) for value in (1, 10, 100, 250, 300, 1000, 5000)]
    assert costs == sorted(costs) and len(set(costs)) == len(costs)


# ---- the form for a GPU


def both_forms(tensors: list[torch.Tensor]) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
    """Bits of each sequence, and the gradients of a weighted sum of them, as on a CPU and as on a GPU."""
    found = []
    for kind in ("cpu", "cuda"):
        ways, leaves = rate._count_of(torch.device(kind)), [tensor.clone().requires_grad_() for tensor in tensors]
        values = torch.cat([leaf.reshape(-1) for leaf in leaves])
        bits = rate._SequenceBits.apply(values, tuple(leaf.numel() for leaf in leaves), ways)  # type: ignore[no-untyped-call]
        (bits * torch.arange(1.0, len(leaves) + 1)).sum().backward()
        found.append((bits.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]))
    return found


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.floats(-3, 9), st.floats(-300, 300)), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=40)
def test_a_dense_count_is_the_sparse_one(sequences: list[tuple[int, float, float]], seed: int) -> None:
    """To the last bit, or two where float64 sums are rounded to float32."""
    generator = np.random.default_rng(seed)
    drawn = [generator.laplace(offset, 2**scale, count) for count, scale, offset in sequences]
    (bits, gradients), (dense, dense_gradients) = both_forms([torch.from_numpy(values).float() for values in drawn])
    assert torch.allclose(dense, bits, rtol=3e-7, atol=0)
    for one, other in zip(gradients, dense_gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("worst", [1.0, math.inf])
def test_both_forms_agree_on_codes_that_a_fit_should_not_make(worst: float) -> None:
    values = torch.tensor([math.nan, worst, -worst, 1e12, -1e12, 2.0**24, 255.5, -255.5, 0.5, 0.0])
    (bits, (gradient,)), (dense, (dense_gradient,)) = both_forms([values])
    assert bits.isfinite().all() == (worst == 1)
    assert torch.allclose(dense, bits, rtol=3e-7, equal_nan=True)
    assert torch.allclose(dense_gradient, gradient, rtol=1e-6, equal_nan=True)


def test_the_dense_form_is_never_read_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = rate._count_of(torch.device("cuda"))
    monkeypatch.setattr(rate, "_count_of", lambda device: dense)
    generator = torch.Generator().manual_seed(1)
    weights = [(6 * torch.randn(shape, generator=generator)).requires_grad_() for shape in ((300,), (8, 4, 3, 3), (5,))]
    latents = (6 * torch.randn(20, 3, 2, 4, generator=generator)).requires_grad_()
    tokens = torch.randint(7, (20, 2, 4), generator=generator)

    def work() -> torch.Tensor:
        bits = rate.tensors_bits(weights) + rate.embedding_bits(latents) + rate.token_bits(tokens, 9)
        bits.backward()
        return bits.detach()

    first = work()  # makes the constants
    with no_host_reads():
        second = work()
    assert torch.equal(first, second)
    assert all(leaf.grad is not None and bool(leaf.grad.any()) for leaf in (*weights, latents))


def test_constants_are_on_the_device_of_the_codes() -> None:
    """The device that knows shapes alone mixes with no other."""
    codes = torch.zeros(20, 3, 2, 4, device="meta", requires_grad=True)
    tokens = torch.zeros(4, 2, 4, dtype=torch.int64, device="meta")
    bits = rate.embedding_bits(codes) + rate.tensors_bits([codes]) + rate.token_bits(tokens, 9)
    bits.backward()
    assert bits.device.type == "meta" and codes.grad is not None and codes.grad.device.type == "meta"


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=8), st.sampled_from([6, 7, 40])
)
@settings(deadline=None, max_examples=60)
def test_tokens_take_flags_and_new_tokens_in_tables_over_the_codes_up_to_the_largest(rows: list[list[int]], levels: int) -> None:
    """Symbol by symbol, by adaptive tables that start flat."""
    tokens = np.array(rows).reshape(-1, 2, 2)
    fresh = np.concatenate([np.ones((1, 2, 2), bool), tokens[1:] != tokens[:-1]])
    flags, sent = fresh[1:].ravel().astype(int), tokens[fresh]
    alphabet = int(sent.max()) + 1
    literals = [adaptive_bits(sent, alphabet, max(alphabet / 4**density, 1.0)) for density in range(1 << DENSITY_BITS)]
    expected = adaptive_bits(flags, 2, rate.FLAG_MASS) + min(literals)
    assert float(rate.token_bits(torch.from_numpy(tokens), levels)) == pytest.approx(expected, rel=1e-5)


def adaptive_bits(symbols: NDArray[np.int64], alphabet: int, mass: float) -> float:
    """Of symbols one after the other; each counts once among those after it."""
    counts, bits = np.full(alphabet, mass / alphabet), 0.0
    for symbol in symbols:
        bits -= math.log2(counts[symbol] / counts.sum())
        counts[symbol] += 1
    return bits
