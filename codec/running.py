"""Running means of scalars on the device of a fit, which the host does not read while steps are under way."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningMean:
    """A mean over about 1 / (1 - memory) values that starts at the first one: `value` is a float64 scalar, changed in place."""

    def __init__(self, memory: float, device: torch.device) -> None:
        self.memory = memory
        self.value = torch.zeros((), dtype=torch.float64, device=device)

    def observe(self, value: Tensor) -> None:
        """Take a scalar in."""
        new = value.detach().double()
        self.value.copy_(torch.where(self.value == 0, new, torch.lerp(new, self.value, self.memory)))
