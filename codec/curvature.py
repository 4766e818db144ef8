"""How much the distortion rises when what a decoder reads is changed: the worth of a vector's exactness (codebook.py)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

REACH = 0.3  # of the standard deviation of the codes: about as far as a token is from the next one


@torch.no_grad()
def curvature(distortion: Callable[[Tensor], float], codes: Tensor, generator: torch.Generator) -> float:
    """q in D(c + d) + D(c - d) - 2 D(c) = 2 q |d|^2, for one random d; for codes (N, C, h, w) and D the mean over N frames.

    The slope cancels, so this holds for any distortion, and exactly where it is quadratic. 0 where codes are all alike.
    """
    change = torch.randn(codes.shape, generator=generator).to(codes.device) * (REACH * codes.std(correction=0))
    length = float(change.square().sum()) / len(codes)
    if not length > 0:
        return 0.0
    return (distortion(codes + change) + distortion(codes - change) - 2 * distortion(codes)) / (2 * length)
