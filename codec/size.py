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

    `tables` are the real latents of all frames, (T, C, h, w) each; none before there are any. `factors` (1 + latents,) are those
    of the weights with their biases and of each latent, in place on the device of the fit.
    """

    def __init__(self, layers: Sequence[QuantConv], latents: Sequence[Latent], device: torch.device | None = None) -> None:
        self.layers, self.latents = layers, latents
        self.factors = torch.ones(1 + len(latents), device=device)

    def bits(self, tables: Sequence[Tensor]) -> Tensor:
        """A differentiable scalar."""
        weights, *others = self.factors.unbind()
        total = weights * rate.tensors_bits(self._numbers())
        for latent, factor, table in zip(self.latents, others, tables, strict=False):
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
        factors = [weights / float(rate.tensors_bits(numbers))]
        pairs = zip(self.latents, tables, strict=True)
        factors += [latent.coded(table) / float(latent.bits(table)) for latent, table in pairs]
        self.factors.copy_(torch.tensor(factors))

    def _numbers(self) -> list[Tensor]:
        return [number for layer in self.layers for number in layer.numbers()]


def _coded(kind: Kind, values: Tensor) -> float:
    integers = values.round().cpu().numpy().astype(np.int64)
    least, most = TensorSpec(kind, integers.shape).range
    return coded_bits(TensorSpec(kind, integers.shape), integers.clip(least, most))
