"""The encoder of HNeRV, made of ConvNeXt blocks (Liu et al. 2022). It finds embeddings and is never transmitted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 64  # of every stage but the last


class Encoder(nn.Module):
    """One strided convolution and one ConvNeXt block a stage: canvases (N, C, H, W) to (N, `outputs`, h, w).

    `strides` are those of the decoder's blocks. Stages are 64 channels wide; `shallow` is the first one, whose features VQ-NeRV's
    tokens describe.
    """

    def __init__(self, channels: int, outputs: int, strides: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        strides = strides or ((1, 1),)
        widths = [channels, *[WIDTH] * (len(strides) - 1), outputs]
        stages: list[nn.Module] = []
        for i, stride in enumerate(strides):
            convolution = nn.Conv2d(widths[i], widths[i + 1], stride, stride)
            before = [Norm(widths[i]), convolution] if i else [convolution, Norm(widths[1])]
            stages.append(nn.Sequential(*before, ConvNeXt(widths[i + 1])))
        self.shallow = stages[0]
        self.deep = nn.Sequential(*stages[1:])
        self.shallow_width = widths[1]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.deep(self.shallow(x))
        return out


class Norm(nn.Module):
    """LayerNorm over channels at each position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """7x7 depthwise, norm, expand by four, GELU, contract, layer scale 1e-6, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))
        for layer in (self.depthwise, self.expand, self.contract):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # (N, H, W, C)
        y = self.contract(nn.functional.gelu(self.expand(y))) * self.scale
        branch: Tensor = y.permute(0, 3, 1, 2)
        return x + branch
