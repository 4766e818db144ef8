"""The Haar transform: analysis in real numbers for encoders, synthesis as the decoder does it (SPEC 8.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from nvc.bitstream.program import Builder, Op

from .activations import LINEAR, Requantiser

HALF = 0.5  # unscaled sums double what an orthonormal synthesis gives


def analyse(x: Tensor) -> Tensor:
    """Orthonormal bands of (N, C, 2h, 2w): (N, 4C, h, w), means first, then differences along rows, along columns, along both."""
    a, b, c, d = x[:, :, 0::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 0::2], x[:, :, 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=1) * HALF


def sums(x: Tensor) -> Tensor:
    """The Haar operation: bands (N, 4C, h, w) to unscaled sums (N, C, 2h, 2w), exact on integers."""
    n, c, h, w = x.shape
    a, b, c_, d = x.view(n, 4, c // 4, h, w).unbind(1)
    blocks = torch.stack([a + b + c_ + d, a - b + c_ - d, a + b - c_ - d, a - b - c_ + d], dim=-1)  # (N, C, h, w, 4)
    return blocks.view(n, c // 4, h, w, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(n, c // 4, 2 * h, 2 * w)


class Synthesis(torch.nn.Module):
    """`levels` of synthesis: activations (N, 4^levels C, h, w) to activations (N, C, 2^levels h, 2^levels w), rounded at each."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.requantiser = Requantiser(LINEAR)
        self.register_buffer("scale", torch.tensor(HALF), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.levels):
            x = self.requantiser(sums(x), self.scale)
        return x

    def emit(self, builder: Builder, x: int) -> int:
        """Append the same for value `x`; the number of the last value."""
        for _ in range(self.levels):
            x = self.requantiser.emit_fixed(builder, builder.add(Op.HAAR, x), HALF)
        return x
