"""The training loop: fits one network to one segment, rate and distortion together. The only file with an optimiser.

The loss is D + lambda R: D the weighted squared error of samples 0..255 (canvas.py), R the predicted bits per pixel of all
weights, biases and embeddings (rate.py), lambda steered towards the wanted size (steer.py). See config.FitConfig for the
phases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import rate
from .canvas import Canvas
from .config import FitConfig
from .network import Network
from .steer import Lambda

RATE_EVERY = 4  # weights move little in a step, and the rate of a small network costs as much as half a frame
STEER_EVERY = 10  # steps between two looks at the size
REPORT_EVERY = 25
PROJECT_EVERY = 5
CLIP = 2.0


@dataclass(frozen=True)
class Progress:
    """What a fit tells now and then: `psnr` is of the 6:1:1 distortion, `bits` of weights, biases and embeddings together."""

    step: int
    steps: int
    psnr: float
    bits: float


class Fit:
    """One fit: the network, its optimiser and, once they are free, its embeddings."""

    def __init__(self, network: Network, canvas: Canvas, config: FitConfig, budget_bits: float, seed: int) -> None:
        device = canvas.frames.device
        self.network, self.canvas, self.config = network.to(device), canvas, config
        self.frames = canvas.frames.shape[0]
        self.steps = config.steps(self.frames)
        self.table: nn.Parameter | None = None
        side = 2 if canvas.frames.shape[1] == 6 else 1  # a 4:2:0 canvas has four luma phases
        self.pixels = int((canvas.weights[0] > 0).sum()) * side * side * self.frames
        self.steer = Lambda(budget_bits, self.pixels)
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.norm = 0.0
        self.convolutions = list(network.convolutions())
        self.embedding = network.embedding
        self.optimiser = torch.optim.Adam(self._groups(), lr=config.lr, betas=(0.9, 0.99), fused=True)

    def _groups(self) -> list[dict[str, object]]:
        named = list(self.network.named_parameters())
        steps = [p for name, p in named if name.endswith(("log_step", "log_gain"))]
        others = [p for name, p in named if not name.endswith(("log_step", "log_gain"))]
        return [{"params": others, "scale": 1.0}, {"params": steps, "scale": self.config.step_lr}]

    def run(self, report: Callable[[Progress], None]) -> Tensor:
        """Fit, and return the embedding codes (T, C, h, w): integers as float32."""
        for step in range(self.steps):
            self._enter(step)
            distortion = self._step(step)
            if step % REPORT_EVERY == 0 or step == self.steps - 1:
                psnr = 10 * math.log10(255**2 / max(self.steer.distortion or distortion, 1e-9))
                report(Progress(step + 1, self.steps, psnr, self.bits()))
        self._project()
        with torch.no_grad():
            return self.codes().detach()

    def _enter(self, step: int) -> None:
        """Switch phases and set the learning rate of this step."""
        if step == int(self.config.quantise_at * self.steps):
            self.network.quantise()
        if step == int(self.config.free_at * self.steps):
            self._free()
        warm = min(1.0, (step + 1) / (0.05 * self.steps))
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * group["scale"] * min(warm, cosine)

    def _free(self) -> None:
        """Turn the encoder's last embeddings into parameters and let the encoder go."""
        with torch.no_grad():
            real = torch.cat([self.network.encode(self._input(batch)) for batch in torch.split(torch.arange(self.frames), 8)])
        self.table = nn.Parameter(real.detach().clone())
        for parameter in self.network.encoder.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        self.optimiser.add_param_group({"params": [self.table], "scale": 1.0, "lr": 0.0})

    def _input(self, index: Tensor) -> Tensor:
        batch = self.canvas.frames[index.to(self.canvas.frames.device)].float().div_(255)
        return batch.contiguous(memory_format=torch.channels_last)

    def _batch(self) -> Tensor:
        size = min(self.config.batch, self.frames)
        if self.order.numel() < size:
            self.order = torch.cat([self.order, torch.randperm(self.frames, generator=self.generator)])
        batch, self.order = self.order[:size], self.order[size:]
        return batch

    def _step(self, step: int) -> float:
        index = self._batch()
        frames = self._input(index)
        if self.table is None:
            codes = self.embedding(self.network.encode(frames))
        else:
            codes = self.embedding(self.table[index.to(self.table.device)])
        error = self.network(codes) - frames * 255
        distortion = (error.square().sum(0) * self.canvas.weights).sum() / len(index)
        loss = distortion
        ramp = (step / self.steps - self.config.quantise_at) / (self.config.full_rate_at - self.config.quantise_at)
        if ramp > 0 and step % RATE_EVERY == 0:
            loss = loss + self.steer.value * min(ramp, 1.0) * RATE_EVERY / self.pixels * self._rate(codes)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._clip()
        self.optimiser.step()
        self.steer.observe(float(distortion.detach()))
        if step % PROJECT_EVERY == 0:
            self._project()
        if ramp >= 1 and step % STEER_EVERY == 0:
            self.steer.steer(self.bits(), STEER_EVERY)
        return self.steer.distortion

    def _numbers(self) -> list[Tensor]:
        """Weights and biases of all layers in units of their codes, not rounded."""
        weights = [module.weight / module.step() for module in self.convolutions]
        return weights + [module.bias / module.bias_unit() for module in self.convolutions]

    def _clip(self) -> None:
        """Hold the gradient to twice its running norm: one bad frame must not throw a network into the flat part of its
        activations.
        """
        parameters = [p for group in self.optimiser.param_groups for p in group["params"] if p.grad is not None]
        limit = CLIP * self.norm if self.norm else math.inf
        norm = min(float(nn.utils.clip_grad_norm_(parameters, limit)), limit)
        self.norm = 0.95 * self.norm + 0.05 * norm if self.norm else norm

    def _rate(self, codes: Tensor) -> Tensor:
        """Noisy bits of the whole segment; before the embeddings are free, those of the batch stand for all."""
        total = rate.tensors_bits(self._numbers(), self.generator)
        if self.table is None:
            return total + rate.embedding_bits(codes) * (self.frames / codes.shape[0])
        return total + rate.embedding_bits(self.table * self.embedding.log_gain.exp(), self.generator)

    @torch.no_grad()
    def bits(self) -> float:
        """Predicted bits of weights, biases and embeddings as they would be written now."""
        total = rate.tensors_bits([numbers.round() for numbers in self._numbers()])
        if self.table is not None:
            total = total + rate.embedding_bits(self.codes().round())
        return float(total)

    def codes(self) -> Tensor:
        """The embedding codes of all frames."""
        if self.table is None:
            raise ValueError("the embeddings are not free yet")
        out: Tensor = self.embedding(self.table)
        return out

    def _project(self) -> None:
        for module in self.convolutions:
            module.project()
