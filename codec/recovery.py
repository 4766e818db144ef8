"""Notices that a fit diverges, and remembers where it was still good.

A large step can throw a small network into the flat part of its activations, from where no gradient leads back. The
distortion then stays where it fell, or is no number at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COLLAPSE = 2.5  # times the best distortion of the phase, 4 dB: far more than the noise of batches and of lambda
SLOWER = 0.5  # learning rate after every return


@dataclass
class Recovery:
    """Keeps the last two states of a fit; `take` copies one and `restore` puts it back.

    The older of the two is gone back to: the newer may already be part of the fall.
    """

    take: Callable[[], dict[str, Any]]
    restore: Callable[[dict[str, Any]], None]
    best: float = math.inf
    rate: float = 1.0
    """What the learning rates are multiplied with."""

    def __post_init__(self) -> None:
        self.enter()

    def enter(self) -> None:
        """A new phase begins, in which the distortion may be another and states have another form."""
        self.best = math.inf
        self.older = self.newer = self.take()

    def resume(self, rate: float, best: float) -> None:
        """Go on where another recovery was: only the present state is one to go back to."""
        self.enter()
        self.rate, self.best = rate, best

    def check(self, distortion: float) -> bool:
        """Look at the running distortion: keep the state, or go back and return True."""
        if math.isfinite(distortion) and distortion <= COLLAPSE * self.best:
            self.best = min(self.best, distortion)
            self.older, self.newer = self.newer, self.take()
            return False
        self.restore(self.older)
        self.newer = self.older
        self.rate *= SLOWER
        return True
