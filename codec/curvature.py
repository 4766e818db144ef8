"""How much the distortion rises when what a decoder reads is changed: the worth of a vector's exactness (codebook.py)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

REACH = 0.3  # of the standard deviation of the codes: about as far as a token is from the next one


@torch.no_grad()
def curvature(distortion: Callable[[Tensor], Tensor], codes: Tensor, noise: Tensor) -> Tensor:
    """q in D(c + d) + D(c - d) - 2 D(c) = 2 q |d|^2; codes are (N, C, h, w), D is a mean over N frames, d goes along `noise`.

    The slope cancels, so this holds for any distortion, and exactly where it is quadratic. `noise` is of normal numbers, of the
    shape of the codes. A scalar in float64, 0 where codes are all alike.
    """
    change = noise * (REACH * codes.std(correction=0))
    length = change.square().sum().double() / len(codes)
    above, below, here = (distortion(at).double() for at in (codes + change, codes - change, codes))
    return torch.where(length > 0, (above + below - 2 * here) / (2 * length), 0.0)
