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
from .latents import Latent
from .layers import QuantConv


class Size:
    """Bits of the `layers`' weights and biases, and of the `latents`, as the coder would write them.

    `tables` are the real latents of all frames, (T, C, h, w) each; none before there are any.
    """

    def __init__(self, layers: Sequence[QuantConv], latents: Sequence[Latent]) -> None:
        self.layers, self.latents = layers, latents
        self.weights_factor = 1.0
        self.factors = [1.0] * len(latents)

    def bits(self, tables: Sequence[Tensor]) -> Tensor:
        """A differentiable scalar."""
        total = self.weights_factor * rate.tensors_bits(self._numbers())
        for latent, factor, table in zip(self.latents, self.factors, tables, strict=False):
            total = total + factor * latent.bits(table)
        return total

    @torch.no_grad()
    def calibrate(self, tables: Sequence[Tensor]) -> None:
        """Let the coder count, and correct what follows."""
        kinds = [Kind.WEIGHT, Kind.BIAS] * len(self.layers)
        numbers = self._numbers()
        if not all(bool(torch.isfinite(values).all()) for values in [*numbers, *tables]):
            return  # of a fit that diverges
        weights = sum(_coded(kind, number) for kind, number in zip(kinds, numbers, strict=True))
        self.weights_factor = weights / float(rate.tensors_bits(numbers))
        pairs = zip(self.latents, tables, strict=True)
        self.factors = [latent.coded(table) / float(latent.bits(table)) for latent, table in pairs]

    def _numbers(self) -> list[Tensor]:
        return [number for layer in self.layers for number in layer.numbers()]


def _coded(kind: Kind, values: Tensor) -> float:
    integers = values.round().cpu().numpy().astype(np.int64)
    least, most = TensorSpec(kind, integers.shape).range
    return coded_bits(TensorSpec(kind, integers.shape), integers.clip(least, most))
