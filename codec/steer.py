"""Holds the predicted size at the size that was asked for, by turning lambda while the network is fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

GAIN = (
    0.12  # of the log error an update: the rate follows lambda with a lag of some tens of steps, more gain would swing
)
LARGEST_CHANGE = 0.1


@dataclass
class Lambda:
    """lambda = slope * distortion: a rate slope relative to the distortion keeps its meaning while the fit improves.

    `slope` starts at 1.5 / bpp, the slope of D ~ R^-1.5 (4.5 dB a doubling), about where fitted networks are.
    """

    budget_bits: float
    pixels: int
    slope: float = 0.0
    distortion: float = 0.0

    def __post_init__(self) -> None:
        self.slope = 1.5 * self.pixels / self.budget_bits

    def observe(self, distortion: float) -> None:
        """Take in the distortion of a batch (a running mean over about fifty)."""
        self.distortion = distortion if self.distortion == 0 else 0.98 * self.distortion + 0.02 * distortion

    def steer(self, bits: float) -> None:
        """Turn the slope towards the budget, given the bits predicted now."""
        change = GAIN * math.log(max(bits, 1.0) / self.budget_bits)
        self.slope *= math.exp(min(max(change, -LARGEST_CHANGE), LARGEST_CHANGE))

    @property
    def value(self) -> float:
        """Distortion per bit and pixel."""
        return self.slope * self.distortion
