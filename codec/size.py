"""The size of what is being fitted: the prediction of rate.py, held to the real coder's by a factor for each section.

rate.py is within 1 % of the coder on what fits usually make, but not on everything that they might: it knows no histograms, and
not that the coder forgets. So the coder itself counts now and then, and the predictions in between are scaled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits

from . import rate
from .layers import QuantConv

WEIGHTS, EMBEDDINGS = "weights", "embeddings"


class Size:
    """Bits of the `layers`' weights and biases, and of embedding codes; of both sections as the coder would write them."""

    def __init__(self, layers: Sequence[QuantConv]) -> None:
        self.layers = layers
        self.factors = {WEIGHTS: 1.0, EMBEDDINGS: 1.0}

    def bits(self, codes: Tensor | None) -> Tensor:
        """A differentiable scalar; `codes` are those of the embeddings (T, C, h, w), not rounded, None before there are any."""
        total = self.factors[WEIGHTS] * rate.tensors_bits(self._numbers())
        return total if codes is None else total + self.factors[EMBEDDINGS] * rate.embedding_bits(codes)

    @torch.no_grad()
    def calibrate(self, codes: Tensor) -> None:
        """Let the coder count, and correct what follows."""
        kinds = [Kind.WEIGHT, Kind.BIAS] * len(self.layers)
        numbers = self._numbers()
        if not all(bool(torch.isfinite(number).all()) for number in [*numbers, codes]):
            return  # of a fit that diverges
        weights = sum(_coded(kind, number) for kind, number in zip(kinds, numbers, strict=True))
        self.factors = {
            WEIGHTS: weights / float(rate.tensors_bits(numbers)),
            EMBEDDINGS: _coded(Kind.EMBEDDING, codes) / float(rate.embedding_bits(codes)),
        }

    def _numbers(self) -> list[Tensor]:
        return [number for layer in self.layers for number in layer.numbers()]


def _coded(kind: Kind, values: Tensor) -> float:
    integers = values.round().cpu().numpy().astype(np.int64)
    least, most = TensorSpec(kind, integers.shape).range
    return coded_bits(TensorSpec(kind, integers.shape), integers.clip(least, most))
