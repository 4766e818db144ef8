"""Size: after the coder has counted, predictions are what it writes, whatever the numbers, and stay close as they move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits
from nvc.codec.activations import ACTIVATIONS
from nvc.codec.latents import Embedding
from nvc.codec.layers import QuantConv
from nvc.codec.size import Size

Values = NDArray[np.float64]


def spikes(generator: np.random.Generator, zeros: float, values: Values) -> Values:
    """`values`, of which a share is zero."""
    return values * (generator.random(values.shape) >= zeros)


def layer_with(codes: Values) -> QuantConv:
    """A layer whose unrounded weight codes are `codes` (O, I, 1, 1)."""
    layer = QuantConv((codes.shape[1], codes.shape[0]), 1, ACTIVATIONS["hswish"])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(codes).float() * layer.step())
    return layer


def as_codes(values: Values) -> tuple[Embedding, torch.Tensor]:
    """An embedding whose codes are its real latents (T, C, h, w), which are `values`."""
    embedding = Embedding((values.shape[1], values.shape[2], values.shape[3]))
    torch.nn.init.zeros_(embedding.log_gain)
    return embedding, torch.from_numpy(values).float()


def written(layer: QuantConv, codes: Values) -> tuple[float, float]:
    """What the coder takes for a layer's weights and zero biases, and for embedding codes."""
    weight = layer.numbers()[0].detach().round().numpy().astype(np.int64).clip(-127, 127)
    bias = np.zeros(len(weight), np.int64)
    rounded = codes.round().astype(np.int64).clip(-2048, 2047)
    weights = [coded_bits(TensorSpec(kind, v.shape), v) for kind, v in ((Kind.WEIGHT, weight), (Kind.BIAS, bias))]
    return sum(weights), coded_bits(TensorSpec(Kind.EMBEDDING, rounded.shape), rounded)


WEIGHT_CASES: dict[str, Callable[[np.random.Generator], Values]] = {
    "laplace": lambda g: g.laplace(0, 3, (200, 60, 1, 1)),
    "sparse": lambda g: spikes(g, 0.97, g.laplace(0, 20, (600, 200, 1, 1))),
    "spike and slab": lambda g: spikes(g, 0.8, g.normal(0, 32, (160, 100, 1, 1))),
    "changing scale": lambda g: g.laplace(0, np.repeat([4.0, 1.0], 60_000)).reshape(600, 200, 1, 1),
}
EMBEDDING_CASES: dict[str, Callable[[np.random.Generator], Values]] = {
    "white": lambda g: g.laplace(0, 4, (60, 16, 2, 4)),
    "large": lambda g: g.laplace(0, 120, (132, 16, 4, 4)),
    "nearly still": lambda g: spikes(g, 0.95, g.laplace(0, 5, (132, 16, 9, 16))).cumsum(0),
}


@pytest.mark.parametrize("weights", WEIGHT_CASES)
@pytest.mark.parametrize("embeddings", EMBEDDING_CASES)
def test_sections_are_predicted_within_one_percent(weights: str, embeddings: str) -> None:
    generator = np.random.default_rng(1)
    real, codes = WEIGHT_CASES[weights](generator), EMBEDDING_CASES[embeddings](generator)
    layer = layer_with(real)
    embedding, table = as_codes(codes)
    size = Size([layer], [embedding])
    size.calibrate([table])
    with torch.no_grad():  # as a few hundred steps of a fit do
        layer.weight.add_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(2)) * 0.1 * layer.step())
    expected_weights, expected_codes = written(layer, codes)
    assert min(expected_weights, expected_codes) > 8 * 3000
    alone = float(size.bits([]).detach())
    both = float(size.bits([table]).detach())
    assert alone == pytest.approx(expected_weights, rel=0.01)
    assert both - alone == pytest.approx(expected_codes, rel=0.01)


def test_the_prediction_keeps_its_gradient() -> None:
    generator = np.random.default_rng(3)
    layer = layer_with(generator.laplace(0, 3, (200, 60, 1, 1)))
    embedding, codes = as_codes(generator.laplace(0, 4, (60, 16, 2, 4)))
    codes.requires_grad_()
    size = Size([layer], [embedding])
    size.calibrate([codes.detach()])
    size.bits([codes]).backward()
    assert codes.grad is not None and layer.weight.grad is not None
    assert (codes.grad * codes.detach().sign()).mean() > 0
    assert (layer.weight.grad * layer.weight.detach().sign()).mean() > 0


def test_numbers_that_are_none_leave_the_factors_alone() -> None:
    layer = layer_with(np.ones((4, 4, 1, 1)))
    size = Size([layer], [Embedding((1, 1, 1))])
    size.calibrate([torch.full((2, 1, 1, 1), float("nan"))])
    assert size.factors.tolist() == [1.0, 1.0]
