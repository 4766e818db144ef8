"""The published HNeRV in plain float32 PyTorch, and its published training loop: the other side of every comparison here.

Chen et al., "HNeRV: A Hybrid Neural Representation for Videos", CVPR 2023, and the authors' repository haochen-rye/HNeRV:
GELU, depth to space, 0.5 tanh + 0.5, Adam (0.9, 0.999), a linear warm-up from a tenth of the learning rate over a tenth of
the steps, a cosine to zero, L2. The pruning is that of haochen-rye/NeRV, which HNeRV refers to: global, by magnitude,
decoder weights alone, then a fine-tune without warm-up that takes 100 epochs after 300, so a quarter of all steps.

Shapes are those of nvc's own network (`hnerv.Config`: grid, widths, kernels, encoder), and so is the distortion
(canvas.weights), so that two fits differ in training and quantisation alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as pruning

from nvc.codec.canvas import Canvas, Planes
from nvc.codec.geometry import Picture
from nvc.codec.layers import shuffle
from nvc.codec.models import hnerv
from nvc.codec.models.convnext import Encoder

BETAS = (0.9, 0.999)
WARM_UP = 0.1  # of the steps, from START of the learning rate (`--lr_type cosine_0.1_1_0.1` in the repository)
START = 0.1
FINE_TUNE = 0.25  # of the steps: NeRV prunes after 300 epochs and fine-tunes for 100
REPORT_EVERY = 25
RENDER = 8  # frames at a time

Report = Callable[[int, int, float], None]


class PlainHNeRV(nn.Module):
    """Encoder and decoder of `config` in float32, weights as PyTorch initialises them, as the repository leaves them."""

    def __init__(self, config: hnerv.Config) -> None:
        super().__init__()
        self.config = config
        widths, strides = config.widths, config.grid.strides
        self.encoder = Encoder(config.picture.channels, config.embedding_channels, strides)
        self.stem = nn.Conv2d(config.embedding_channels, widths[0], 1)
        self.blocks = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1] * sh * sw, hnerv.kernel(i), padding=hnerv.kernel(i) // 2)
            for i, (sh, sw) in enumerate(strides)
        )
        self.head = nn.Conv2d(widths[-1], config.picture.channels, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        """Canvases (N, C, H, W) in 0..1 to their reconstructions, also in 0..1."""
        return self.decode(self.encoder(frames))

    def decode(self, embeddings: Tensor) -> Tensor:
        """Embeddings (N, 16, h, w) to canvases (N, C, H, W) in 0..1."""
        x = nn.functional.gelu(self.stem(embeddings))
        for block, strides in zip(self.blocks, self.config.grid.strides, strict=True):
            x = nn.functional.gelu(shuffle(block(x), strides))
        out: Tensor = 0.5 * torch.tanh(self.head(x)) + 0.5
        return out

    def convolutions(self) -> list[nn.Conv2d]:
        """The layers that are transmitted, in the order of the decoder."""
        return [self.stem, *self.blocks, self.head]  # type: ignore[list-item]

    def transmitted(self) -> list[nn.Parameter]:
        """Weight and bias of each of them."""
        return [parameter for layer in self.convolutions() for parameter in (layer.weight, layer.bias)]  # type: ignore[misc]


def train(
    network: PlainHNeRV,
    canvas: Canvas,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    report: Report | None = None,
    prune: float = 0.0,
    fine_tune: float = FINE_TUNE,
) -> None:
    """Fit `network` to all frames of `canvas`, on its device, in `steps` optimiser steps of `batch` frames.

    `prune` is the share of the decoder weights that is set to zero before the last `fine_tune` of the steps and stays so.
    `report` is told step, steps and the PSNR in dB of the batch's distortion.
    """
    network.to(canvas.frames.device)
    order = _batches(len(canvas.frames), batch, seed)
    last = round(fine_tune * steps) if prune else 0
    _run(network, canvas, order, (0, steps - last, steps), lr, WARM_UP, report)
    if prune:
        weights = [(layer, "weight") for layer in network.convolutions()]
        pruning.global_unstructured(weights, pruning.L1Unstructured, amount=prune)
        _run(network, canvas, order, (steps - last, last, steps), lr, 0.0, report)
        for layer, name in weights:
            pruning.remove(layer, name)


def _run(
    network: PlainHNeRV,
    canvas: Canvas,
    order: Iterator[Tensor],
    span: tuple[int, int, int],
    lr: float,
    warm_up: float,
    report: Report | None,
) -> None:
    """One schedule: span is the steps done before, those of this run, and those of all runs."""
    before, steps, total = span
    optimiser = torch.optim.Adam(network.parameters(), lr=lr, betas=BETAS, fused=True)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * factor(step / steps, warm_up)
        frames = canvas.frames[next(order).to(canvas.frames.device)].float().div_(255)
        error = network(frames) - frames
        loss = (error.square().sum(0) * canvas.weights).sum() / len(frames)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        done = before + step + 1
        if report and (done % REPORT_EVERY == 0 or done == total):
            report(done, total, -10 * math.log10(max(float(loss.detach()), 1e-12)))


def factor(done: float, warm_up: float) -> float:
    """The learning rate at the share `done` of a schedule, relative to its peak."""
    if done < warm_up:
        return START + (1 - START) * done / warm_up
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def _batches(frames: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Batches of frame numbers without end; every pass shuffles anew, and a batch may span two passes."""
    generator = torch.Generator().manual_seed(seed)
    size = min(batch, frames)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        if len(order) < size:
            order = torch.cat([order, torch.randperm(frames, generator=generator)])
        yield order[:size]
        order = order[size:]


@torch.inference_mode()
def embed(network: PlainHNeRV, canvas: Canvas) -> Tensor:
    """The embeddings (T, 16, h, w) of all frames."""
    return torch.cat([network.encoder(part.float().div_(255)) for part in torch.split(canvas.frames, RENDER)])


@torch.inference_mode()
def render(network: PlainHNeRV, embeddings: Tensor) -> Planes:
    """The visible planes of all embeddings, rounded to uint8 once."""
    parts = torch.split(embeddings.to(network.stem.weight.device), RENDER)
    frames = [network.decode(part).mul_(255).round_().to(torch.uint8) for part in parts]
    return unfold(torch.cat(frames), network.config.picture)


def unfold(frames: Tensor, picture: Picture) -> Planes:
    """Canvases (T, C, H, W) uint8 to visible planes: the inverse of canvas.to_canvas."""
    luma = picture.side**2
    folded = (shuffle(frames[:, :luma], (picture.side, picture.side)), frames[:, luma : luma + 1], frames[:, luma + 1 :])
    y, cb, cr = (
        np.ascontiguousarray(plane[:, 0, :h, :w].cpu().numpy()) for plane, (h, w) in zip(folded, picture.shapes, strict=True)
    )
    return y, cb, cr
