"""Holds the predicted size at the size that was asked for, by turning lambda while the network is fitted.

Everything that changes is a scalar on the fit's device, changed in place: nothing here is read by the host.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .running import RunningMean

PROPORTIONAL = 4.0
INTEGRAL = 0.012
"""Per step. The bits follow lambda like bits ~ lambda^-0.35 with a lag of about 200 steps; with these two gains that loop
is overdamped
(ratio 1.3). The integral alone, at this speed, overshot the size by 12 %."""
LARGEST_ERROR = 0.5  # of the logarithm; the first bits after rounding starts are far off and mean little
MEMORY = 0.98  # of the running distortion


class Lambda:
    """lambda = slope * distortion: a rate slope relative to the distortion keeps its meaning while the fit improves.

    The slope starts at 0.4 / bpp, and fits of real clips end at 0.3 to 0.5 / bpp.
    """

    def __init__(self, budget_bits: float, pixels: int, device: torch.device | None = None) -> None:
        device = device or torch.device("cpu")
        self.budget_bits, self.pixels = budget_bits, pixels
        self.distortion = RunningMean(MEMORY, device)
        self.error = torch.zeros((), dtype=torch.float64, device=device)
        start = math.log(0.4 * pixels / budget_bits)
        self.log_slope = torch.full((), start, dtype=torch.float64, device=device)

    def observe(self, distortion: Tensor) -> None:
        """Take in the distortion of a batch, a scalar."""
        self.distortion.observe(distortion)

    def steer(self, bits: Tensor, steps: int) -> None:
        """Turn the slope towards the budget, given the bits predicted now, a scalar, and the steps since the last time."""
        error = (bits.double().clamp(min=1.0) / self.budget_bits).log()
        self.error.copy_(error.clamp(-LARGEST_ERROR, LARGEST_ERROR))
        self.log_slope.add_(self.error, alpha=INTEGRAL * steps)

    def tensors(self) -> list[Tensor]:
        """All that changes."""
        return [self.distortion.value, self.error, self.log_slope]

    @property
    def slope(self) -> Tensor:
        """lambda over the distortion, in pixels per bit, a scalar."""
        return torch.exp(self.log_slope + PROPORTIONAL * self.error)

    @property
    def value(self) -> Tensor:
        """Distortion per bit and pixel, a scalar."""
        return self.slope * self.distortion.value
