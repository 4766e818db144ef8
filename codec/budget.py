"""What is done to a network, besides lambda, so that it keeps to its size: coarser latents, coarser steps, fewer weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .layers import QuantConv
from .objective import Objective

LATENT_SHARE = 0.4  # of the size, at most, when rounding begins; fits that end well give latents 5 to 26 %
COARSER = 1.25  # between two tries to meet it
TRIES = 24  # 200 times as coarse: codes are 12 bits
LEAST_CODE = 0.7  # mean magnitude of codes, 1.7 bits a weight, under which steps are made coarser by the gradients alone
NUDGE = 0.1  # of the error of the size is taken back by the steps at every look; lambda alone would take some hundred steps


@torch.no_grad()
def make_room(objective: Objective) -> None:
    """Make scalar latents coarser until they leave most of the size to the weights, and what reads them as much stronger.

    Before rounding nothing keeps them small. Where the size that is asked for is small too, all of it would go to them: the
    weights would be given up, and the picture would be one grey.
    """
    room = LATENT_SHARE * objective.steer.budget_bits
    for latent, table in zip(objective.latents, objective.tables, strict=True):
        readers = [layer for layer in objective.size.layers if layer.source is latent.source]
        for _ in range(TRIES):
            if float(latent.bits(table)) <= room or not latent.coarsen(COARSER):
                break
            for layer in readers:
                layer.weight.mul_(COARSER)
                layer.log_step.add_(math.log(COARSER))


@torch.no_grad()
def coarsen(objective: Objective, share: float) -> None:
    """Scale the weight steps by one factor that takes `share` of the error of the size back: doubling them saves about a bit a
    weight. Layers of codes that are mostly zero do not get coarser: nothing would be left of them. Nothing is read on the host.
    """
    layers = objective.size.layers
    excess = (objective.bits() - objective.steer.budget_bits) / sum(layer.weight.numel() for layer in layers)
    change = share * math.log(2) * excess.clamp(-2.0, 2.0)
    for layer in layers:
        full = layer.numbers()[0].abs().mean() > LEAST_CODE
        layer.log_step.add_(torch.where((excess < 0) | full, change, 0.0))


def prune(layers: Sequence[QuantConv], share: float) -> None:
    """Set the smallest weights to zero, by magnitude over all layers, as NeRV does (Chen et al. 2021)."""
    magnitudes = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
    threshold = magnitudes.kthvalue(max(round(share * magnitudes.numel()), 1)).values
    for layer in layers:
        layer.prune(layer.weight.detach().abs() > threshold)
