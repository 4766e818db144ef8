"""Holds the predicted size at the size that was asked for, by turning lambda while the network is fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

PROPORTIONAL = 4.0
INTEGRAL = 0.012
"""Per step. The bits follow lambda like bits ~ lambda^-0.35 with a lag of about 200 steps; with these two gains that loop
is overdamped
(ratio 1.3). The integral alone, at this speed, overshot the size by 12 %."""
LARGEST_ERROR = 0.5  # of the logarithm; the first bits after rounding starts are far off and mean little


@dataclass
class Lambda:
    """lambda = slope * distortion: a rate slope relative to the distortion keeps its meaning while the fit improves.

    The slope starts at 0.4 / bpp, and fits of real clips end at 0.3 to 0.5 / bpp.
    """

    budget_bits: float
    pixels: int
    distortion: float = 0.0
    error: float = 0.0

    def __post_init__(self) -> None:
        self.log_slope = math.log(0.4 * self.pixels / self.budget_bits)

    def observe(self, distortion: float) -> None:
        """Take in the distortion of a batch (a running mean over about fifty)."""
        self.distortion = distortion if self.distortion == 0 else 0.98 * self.distortion + 0.02 * distortion

    def steer(self, bits: float, steps: int) -> None:
        """Turn the slope towards the budget, given the bits predicted now and the steps since the last time."""
        error = math.log(max(bits, 1.0) / self.budget_bits)
        self.error = min(max(error, -LARGEST_ERROR), LARGEST_ERROR)
        self.log_slope += INTEGRAL * steps * self.error

    def state(self) -> tuple[float, float, float]:
        """What `restore` needs."""
        return self.distortion, self.error, self.log_slope

    def restore(self, state: tuple[float, float, float]) -> None:
        """Go back to a `state()`."""
        self.distortion, self.error, self.log_slope = state

    @property
    def slope(self) -> float:
        """lambda over the distortion, in pixels per bit."""
        return math.exp(self.log_slope + PROPORTIONAL * self.error)

    @property
    def value(self) -> float:
        """Distortion per bit and pixel."""
        return self.slope * self.distortion
