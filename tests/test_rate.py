"""Differentiable bit counts: a probability for every integer, finite gradients, and close to what the coder writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits
from nvc.codec import rate


@pytest.mark.parametrize("scale", [0.05, 0.1, 0.5, 1.0, 3.0, 40.0, 300.0])
def test_the_probabilities_of_all_integers_add_up_to_one(scale: float) -> None:
    values = torch.arange(-8000.0, 8001.0)
    bits = rate.laplace_bits(values, torch.tensor(scale))
    assert float(torch.exp2(-bits.double()).sum()) == pytest.approx(1, abs=2e-3)
    assert (bits >= 0).all()


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 20.0])
def test_bits_are_those_of_the_laplace_density_integrated_over_the_rounding_interval(scale: float) -> None:
    values = np.array([-30.0, -7.0, -2.5, -1.0, -0.7, -0.5, -0.3, 0.0, 0.2, 0.4, 0.6, 1.0, 4.0])

    def below(x: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.where(x < 0, 0.5 * np.exp(np.minimum(x, 0) / scale), 1 - 0.5 * np.exp(-np.maximum(x, 0) / scale))

    away = -np.abs(values)  # on the negative side, where the difference of two distribution values keeps its digits
    expected = -np.log2(below(away + 0.5) - below(away - 0.5))
    found = rate.laplace_bits(torch.from_numpy(values).float(), torch.tensor(scale)).numpy()
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [0.05, 0.2, 1.0, 50.0, 2000.0])
def test_gradients_are_finite_and_point_to_zero(scale: float) -> None:
    values = torch.tensor([-1e6, -4095.0, -127.0, -1.0, -0.5, -0.49, 0.0, 1e-20, 0.3, 0.5, 0.51, 1.0, 127.0, 4095.0, 1e6])
    values.requires_grad_()
    spread = torch.tensor(scale, requires_grad=True)
    bits = rate.laplace_bits(values, spread)
    assert torch.isfinite(bits).all()
    bits.sum().backward()
    assert values.grad is not None and spread.grad is not None
    assert torch.isfinite(values.grad).all() and torch.isfinite(spread.grad)
    assert (values.grad * values.detach().sign() >= 0).all()


def predicted_over_written(scale: float) -> float:
    """For 20,000 rounded Laplace variables, what rate.py predicts over what the coder takes."""
    values = np.clip(np.rint(np.random.default_rng(1).laplace(0, scale, (20_000, 1, 1, 1))), -127, 127).astype(np.int64)
    written = coded_bits(TensorSpec(Kind.WEIGHT, values.shape), values)
    return float(rate.tensors_bits([torch.from_numpy(values).float()])) / written


@pytest.mark.parametrize("scale", [0.2, 0.3, 0.5, 0.7, 1.5, 4.0, 15.0])
def test_tensors_take_what_the_coder_writes(scale: float) -> None:
    assert predicted_over_written(scale) == pytest.approx(1, abs=0.03)


def test_every_tensor_has_a_scale_of_its_own() -> None:
    generator = np.random.default_rng(2)
    tensors = [torch.from_numpy(np.rint(generator.laplace(0, scale, 500))).float() for scale in (0.5, 20.0)]
    apart = sum(float(rate.tensors_bits([tensor])) for tensor in tensors)
    assert float(rate.tensors_bits(tensors)) == pytest.approx(apart, rel=1e-5)
    assert float(rate.tensors_bits([torch.cat(tensors)])) > 1.1 * apart


def test_noise_stands_in_for_rounding() -> None:
    """Bits of real codes with noise are those of the same codes rounded, and the same seed gives the same."""
    real = torch.from_numpy(np.random.default_rng(3).laplace(0, 3, 20_000)).float()
    noisy = [float(rate.tensors_bits([real], torch.Generator().manual_seed(1))) for _ in range(2)]
    assert noisy[0] == noisy[1]
    assert noisy[0] == pytest.approx(float(rate.tensors_bits([real.round()])), rel=0.02)
    assert noisy[0] != float(rate.tensors_bits([real]))


def test_a_tensor_of_zeros_costs_no_more_than_a_header_and_still_has_gradients() -> None:
    zeros = torch.zeros(1000, requires_grad=True)
    bits = rate.tensors_bits([zeros])
    assert 0 <= float(bits.detach()) < 16
    bits.backward()
    assert zeros.grad is not None and torch.isfinite(zeros.grad).all()


def test_embeddings_take_the_cheaper_of_codes_and_temporal_residuals_per_channel() -> None:
    generator = np.random.default_rng(4)
    shape = (60, 1, 2, 4)
    drift = torch.from_numpy(np.rint(np.cumsum(generator.laplace(0, 1, shape), axis=0) * 3)).float()
    white = torch.from_numpy(np.rint(generator.laplace(0, 20, shape))).float()
    residual = torch.cat([drift[:1], drift[1:] - drift[:-1]])
    apart = [float(rate.embedding_bits(channel)) for channel in (drift, white)]
    assert apart[0] == pytest.approx(float(rate.tensors_bits([residual])), rel=1e-5)
    assert apart[0] < float(rate.tensors_bits([drift]))
    assert apart[1] == pytest.approx(float(rate.tensors_bits([white])), rel=1e-5)
    both = float(rate.embedding_bits(torch.cat([drift, white], dim=1)))
    assert both == pytest.approx(sum(apart), rel=1e-5)


@pytest.mark.parametrize("drifting", [True, False])
def test_embeddings_take_what_the_coder_writes(drifting: bool) -> None:
    generator = np.random.default_rng(5)
    steps = generator.laplace(0, 4, (400, 4, 2, 4))
    values = np.rint(np.cumsum(steps, axis=0) if drifting else steps).clip(-2048, 2047).astype(np.int64)
    written = coded_bits(TensorSpec(Kind.EMBEDDING, values.shape), values)
    assert float(rate.embedding_bits(torch.from_numpy(values).float())) == pytest.approx(written, rel=0.03)


def test_one_frame_has_no_residual() -> None:
    codes = torch.tensor([[[[3.0, -4.0]]]])
    assert float(rate.embedding_bits(codes)) == pytest.approx(float(rate.tensors_bits([codes])), rel=1e-5)
