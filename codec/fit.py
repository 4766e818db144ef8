"""The training loop: fits one network to one segment, rate and distortion together.

The loss is D + lambda R: D the weighted squared error of samples 0..255 (canvas.py), R the predicted bits per pixel of all
weights, biases and embeddings (rate.py), lambda steered towards the wanted size (steer.py). See config.FitConfig for the
phases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .canvas import Canvas
from .config import FitConfig
from .network import Network
from .optimiser import Optimiser
from .precision import set_half
from .recovery import Recovery
from .size import Size
from .steer import Lambda

RATE_EVERY = 4  # weights move little in a step, and the rate of a small network costs as much as half a frame
STEER_EVERY = 10  # steps between two looks at the size
REPORT_EVERY = 25
PROJECT_EVERY = 5
CALIBRATE_EVERY = 200  # the coder takes as long as several steps
CHECKS = 50  # of a fit, for divergence
LEAST_CHECK = 40  # steps between two, as the distortion is a running mean over about fifty
LEAST_CODE = 0.7  # mean magnitude of codes, 1.7 bits a weight, under which steps are made coarser by the gradients alone
NUDGE = 0.1  # of the error of the size is taken back by the steps at every look; lambda alone would take some hundred steps


@dataclass(frozen=True)
class Progress:
    """What a fit tells now and then: `psnr` is of the 6:1:1 distortion, `bits` of weights, biases and embeddings together.

    `note` is empty, or a line that should stay.
    """

    step: int
    steps: int
    psnr: float
    bits: float
    note: str = ""


class Fit:
    """One fit: the network, its optimiser and, once the encoder is gone, its embeddings."""

    def __init__(self, network: Network, canvas: Canvas, config: FitConfig, budget_bits: float, seed: int) -> None:
        device = canvas.frames.device
        self.network, self.canvas, self.config = network.to(device), canvas, config
        self.frames, _, self.height, _ = canvas.frames.shape
        self.steps = config.steps(self.frames)
        self.quantise_step = int(config.quantise_at * self.steps)
        self.prune_step = int(config.prune_at * self.steps) if config.prune else None
        self.table: nn.Parameter | None = None
        side = 2 if canvas.frames.shape[1] == 6 else 1  # a 4:2:0 canvas has four luma phases
        self.pixels = int((canvas.weights[0] > 0).sum()) * side * side * self.frames
        self.steer = Lambda(budget_bits, self.pixels)
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.convolutions = list(network.convolutions())
        self.embedding = network.embedding
        self.size = Size(self.convolutions)
        self.optimiser = Optimiser(network, config)
        self.recovery = Recovery(self.state, self.restore)

    def run(self, report: Callable[[Progress], None]) -> Tensor:
        """Fit, and return the embedding codes (T, C, h, w): integers as float32."""
        check_every = max(self.steps // CHECKS, LEAST_CHECK)
        ends = (self.quantise_step, self.prune_step, self.steps)  # what a phase ends with is what the next one may go back to
        for step in range(self.steps):
            self._enter(step)
            self._step(step)
            due = (step + 1) % check_every == 0 or step + 1 in ends
            if due and self.recovery.check(self.steer.distortion):
                lost = f"the fit diverged at step {step + 1}; back to its last good state with {self.recovery.rate:g} of the rate"
                report(self._progress(step, lost))
            elif step % REPORT_EVERY == 0 or step == self.steps - 1:
                report(self._progress(step))
        self._project()
        with torch.no_grad():
            return self.codes().detach()

    def _progress(self, step: int, note: str = "") -> Progress:
        psnr = 10 * math.log10(255**2 / max(self.steer.distortion, 1e-9))
        return Progress(step + 1, self.steps, psnr, self.bits(), note)

    def _enter(self, step: int) -> None:
        """Switch phases and set the learning rate of this step."""
        if step == self.quantise_step:
            self.network.quantise()
            self._free()
            assert self.table is not None
            self.size.calibrate(self.embedding.scaled(self.table))
            for _ in range(3):  # so that rounding begins at the size that was asked for
                self._coarsen(1.0)
            self.recovery.enter()
        if step == self.prune_step:
            self._prune()
            self.recovery.enter()
        if step == 0 or step == int(self.config.hard_at * self.steps):
            set_half(self.convolutions, step == 0, self.canvas.frames.device)
        warm = min(1.0, (step + 1) / (0.05 * self.steps))
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        self.optimiser.set_rate(min(warm, cosine) * self.recovery.rate)

    def _free(self) -> None:
        """Turn the encoder's last embeddings into parameters and let the encoder go."""
        with torch.no_grad():
            everything = torch.arange(self.frames)
            real = torch.cat([self.network.encode(self._input(batch)) for batch in torch.split(everything, 8)])
        self.table = nn.Parameter(real.detach().clone())
        for parameter in self.network.encoder.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        self.optimiser.add(self.table)

    def _prune(self) -> None:
        """Set the smallest weights to zero, by magnitude over all layers, as NeRV does (Chen et al. 2021)."""
        magnitudes = torch.cat([layer.weight.detach().abs().flatten() for layer in self.convolutions])
        threshold = magnitudes.kthvalue(max(round(self.config.prune * magnitudes.numel()), 1)).values
        for layer in self.convolutions:
            layer.prune(layer.weight.detach().abs() > threshold)

    def _input(self, index: Tensor) -> Tensor:
        batch = self.canvas.frames[index.to(self.canvas.frames.device)].float().div_(255)
        return batch.contiguous(memory_format=torch.channels_last)

    def _batch(self) -> Tensor:
        size = min(self.config.batch, self.frames)
        if self.order.numel() < size:
            self.order = torch.cat([self.order, torch.randperm(self.frames, generator=self.generator)])
        batch, self.order = self.order[:size], self.order[size:]
        return batch

    def _rows(self) -> tuple[int, int]:
        """The rows of the canvas that a step computes."""
        if self.config.band >= 1:
            return 0, self.height
        unit = self.network.band
        count = max(round(self.config.band * self.height / unit), 1)
        first = int(torch.randint(self.height // unit - count + 1, (), generator=self.generator))
        return first * unit, (first + count) * unit

    def _step(self, step: int) -> None:
        index = self._batch()
        frames = self._input(index)
        first, last = self._rows()
        if self.table is None:
            codes = self.embedding(self.network.encode(frames))
        else:
            codes = self.embedding(self.table[index.to(self.table.device)])
        weights = self.canvas.weights[:, first:last]
        error = self.network(codes, (first, last)) - frames[:, :, first:last] * 255
        distortion = (error.square().sum(0) * weights).sum() * (self.height / ((last - first) * len(index)))
        loss = distortion
        ramp = (step / self.steps - self.config.quantise_at) / (self.config.full_rate_at - self.config.quantise_at)
        if ramp >= 0 and step % RATE_EVERY == 0:
            loss = loss + self.steer.value * min(ramp, 1.0) * RATE_EVERY / self.pixels * self._bits()
        loss.backward()
        self.optimiser.step()
        self.steer.observe(float(distortion.detach()))
        if step % PROJECT_EVERY == 0:
            self._project()
        if self.table is not None and step % CALIBRATE_EVERY == 0:
            self.size.calibrate(self.embedding.scaled(self.table))
        if ramp >= 0 and step % STEER_EVERY == 0:
            self.steer.steer(self.bits(), STEER_EVERY)
            self._coarsen(NUDGE)

    @torch.no_grad()
    def _coarsen(self, share: float) -> None:
        """Scale the weight steps by one factor that takes `share` of the error of the size back: doubling them saves about a bit
        a weight. Layers of codes that are mostly zero do not get coarser: nothing would be left of them.
        """
        weights = sum(layer.weight.numel() for layer in self.convolutions)
        excess = (self.bits() - self.steer.budget_bits) / weights
        for layer in self.convolutions:
            if excess < 0 or float(layer.numbers()[0].abs().mean()) > LEAST_CODE:
                layer.log_step.add_(share * math.log(2) * min(max(excess, -2.0), 2.0))

    def _bits(self) -> Tensor:
        return self.size.bits(None if self.table is None else self.embedding.scaled(self.table))

    @torch.no_grad()
    def bits(self) -> float:
        """Predicted bits of weights, biases and, once they are free, embeddings as they would be written now."""
        return float(self._bits())

    def codes(self) -> Tensor:
        """The embedding codes of all frames."""
        if self.table is None:
            raise ValueError("the embeddings are not free yet")
        out: Tensor = self.embedding(self.table)
        return out

    def _project(self) -> None:
        for module in self.convolutions:
            module.project()

    def state(self) -> dict[str, Any]:
        """All that a fit needs to go back here, copied."""
        return {
            "network": {name: tensor.clone() for name, tensor in self.network.state_dict().items()},
            "table": None if self.table is None else self.table.detach().clone(),
            "optimiser": self.optimiser.state(),
            "steer": self.steer.state(),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state()` of the same phase; the order of the frames goes on."""
        self.network.load_state_dict(state["network"])
        if self.table is not None:
            self.table.copy_(state["table"])
        self.optimiser.restore(state["optimiser"])
        self.steer.restore(state["steer"])
