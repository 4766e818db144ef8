"""The training loop: fits one network to one segment, rate and distortion together.

The loss is D + lambda R: D the distortion (distortion.py), R the predicted bits per pixel of all weights, biases and latents
(size.py), lambda steered towards the wanted size (steer.py). See config.FitConfig for the phases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from .canvas import Canvas
from .config import FitConfig
from .curvature import curvature
from .distortion import DISTORTIONS
from .latents import Latent, Numbers
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
PROBE_EVERY = 20  # one look costs three forward passes
MEMORY = 0.98  # of the running squared error
CALIBRATE_EVERY = 200  # the coder takes as long as several steps
CHECKS = 50  # of a fit, for divergence
LEAST_CHECK = 40  # steps between two, as the distortion is a running mean over about fifty
LEAST_CODE = 0.7  # mean magnitude of codes, 1.7 bits a weight, under which steps are made coarser by the gradients alone
LATENT_SHARE = 0.4  # of the size, at most, when rounding begins; fits that end well give latents 5 to 26 %
COARSER = 1.25  # between two tries to meet it
TRIES = 24  # 200 times as coarse: codes are 12 bits
NUDGE = 0.1  # of the error of the size is taken back by the steps at every look; lambda alone would take some hundred steps


@dataclass(frozen=True)
class Progress:
    """What a fit tells now and then: `psnr` is of the 6:1:1 distortion, `bits` of weights, biases and latents together.

    `usage` and `perplexity` are of the codes of a codebook (Latent.usage), None without one. `note` is empty, or a line that
    should stay.
    """

    step: int
    steps: int
    psnr: float
    bits: float
    usage: float | None = None
    perplexity: float | None = None
    note: str = ""


class Fit:
    """One fit: the network, its optimiser and, once the encoders are gone, its latents."""

    def __init__(
        self, network: Network, canvas: Canvas, config: FitConfig, budget_bits: float, seed: int, tune: str = "psnr"
    ) -> None:
        device = canvas.frames.device
        self.network, self.canvas, self.config = network.to(device), canvas, config
        self.frames, _, self.height, _ = canvas.frames.shape
        self.steps = config.steps(self.frames)
        self.quantise_step = int(config.quantise_at * self.steps)
        self.hard_step = int(config.hard_at * self.steps)
        self.prune_step = int(config.prune_at * self.steps) if config.prune else None
        self.latents = [latent for latent in network.latents if isinstance(latent, Latent)]
        for latent in self.latents:
            latent.begin(self.frames)
        self.tables: list[nn.Parameter] = []
        side = 2 if canvas.frames.shape[1] == 6 else 1  # a 4:2:0 canvas has four luma phases
        self.pixels = int((canvas.weights[0] > 0).sum()) * side * side * self.frames
        self.steer = Lambda(budget_bits, self.pixels)
        self.distortion = DISTORTIONS[tune](canvas)
        self.squared = 0.0
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.convolutions = list(network.convolutions())
        self.size = Size(self.convolutions, self.latents)
        self.optimiser = Optimiser(network, config)
        self.recovery = Recovery(self.state, self.restore)

    def run(self, report: Callable[[Progress], None]) -> list[list[Numbers]]:
        """Fit, and return the numbers of each latent."""
        check_every = max(self.steps // CHECKS, LEAST_CHECK)
        # what a phase ends with is what the next one may go back to
        ends = (self.quantise_step, self.prune_step, self.hard_step, self.steps)
        for step in range(self.steps):
            self._enter(step)
            self._step(step)
            due = (step + 1) % check_every == 0 or step + 1 in ends
            if due and self.recovery.check(self._distortion()):
                lost = f"the fit diverged at step {step + 1}; back to its last good state with {self.recovery.rate:g} of the rate"
                report(self._progress(step, lost))
            elif step % REPORT_EVERY == 0 or step == self.steps - 1:
                report(self._progress(step))
        self._project()
        return [latent.numbers(table) for latent, table in zip(self.latents, self.tables, strict=True)]

    def _distortion(self) -> float:
        """The running squared error; no number where a latent is none, which no batch may have shown yet."""
        return self.squared if all(bool(table.isfinite().all()) for table in self.tables) else math.nan

    def _progress(self, step: int, note: str = "") -> Progress:
        psnr = 10 * math.log10(255**2 / max(self.squared, 1e-9))
        usages = [usage for latent in self.latents if (usage := latent.usage()) is not None]
        share, perplexity = map(fmean, zip(*usages, strict=True)) if usages else (None, None)
        return Progress(step + 1, self.steps, psnr, self.bits(), share, perplexity, note)

    def _enter(self, step: int) -> None:
        """Switch phases and set the learning rate of this step."""
        if step == self.quantise_step:
            self.network.quantise()
            self._free()
            self._make_room()
            self.size.calibrate(self.tables)
            for _ in range(3):  # so that rounding begins at the size that was asked for
                self._coarsen(1.0)
            self.recovery.enter()
        if step == self.prune_step:
            self._prune()
            self.recovery.enter()
        if step == self.hard_step:
            self._freeze()
            self.recovery.enter()
        if step in (0, self.hard_step):
            set_half(self.convolutions, step == 0, self.canvas.frames.device)
        warm = min(1.0, (step + 1) / (0.05 * self.steps))
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        self.optimiser.set_rate(min(warm, cosine) * self.recovery.rate)

    def _free(self) -> None:
        """Turn the encoders' last latents into parameters and let the encoders go."""
        with torch.no_grad():
            batches = [self._reals(batch) for batch in torch.split(torch.arange(self.frames), 8)]
        self.tables = [nn.Parameter(torch.cat(parts)) for parts in zip(*batches, strict=True)]
        for latent, table in zip(self.latents, self.tables, strict=True):
            latent.settle(table)
            self.optimiser.add(table)
        for encoder in self.network.encoders():
            for parameter in encoder.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None

    @torch.no_grad()
    def _make_room(self) -> None:
        """Make scalar latents coarser until they leave most of the size to the weights, and what reads them as much stronger.

        Before rounding nothing keeps them small. Where the size that is asked for is small too, all of it would go to them: the
        weights would be given up, and the picture would be one grey.
        """
        for latent, table in zip(self.latents, self.tables, strict=True):
            readers = [layer for layer in self.convolutions if layer.source is latent.source]
            for _ in range(TRIES):
                if float(latent.bits(table)) <= LATENT_SHARE * self.steer.budget_bits or not latent.coarsen(COARSER):
                    break
                for layer in readers:
                    layer.weight.mul_(COARSER)
                    layer.log_step.add_(math.log(COARSER))

    def _reals(self, index: Tensor) -> list[Tensor]:
        """Real latents of frames `index`: the encoders', or free ones."""
        if self.tables:
            return [table[index.to(table.device)] for table in self.tables]
        frames = self._input(index)
        real = self.network.encode(frames)
        codes = self.latents[0](real, index)
        return [real, *self.network.encode_details(frames, codes, self._before(index))]

    def _before(self, index: Tensor) -> Tensor | None:
        """The embedding that the decoder reads of the frames before, where it does."""
        if not self.network.history:
            return None
        before = (index - 1).clamp(min=0)
        real = self.tables[0][before.to(self.tables[0].device)] if self.tables else self.network.encode(self._input(before))
        out: Tensor = self.latents[0](real, before)
        return out

    def _freeze(self) -> None:
        """Let free latents make their last choices."""
        for latent, table in zip(self.latents, self.tables, strict=bool(self.tables)):
            for parameter in latent.freeze(table):
                self.optimiser.add(parameter)

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
        reals = self._reals(index)
        codes = [latent(real, index) for latent, real in zip(self.latents, reals, strict=True)]
        before = self._before(index)
        made = self.network(codes, before, (first, last))
        distortion, squared = self.distortion(made, frames[:, :, first:last] * 255, first, last)
        loss = distortion
        for latent, real, code in zip(self.latents, reals, codes, strict=True):
            commitment = latent.commitment(real, code)
            if commitment is not None:
                loss = loss + commitment
        ramp = (step / self.steps - self.config.quantise_at) / (self.config.full_rate_at - self.config.quantise_at)
        if ramp >= 0 and step % RATE_EVERY == 0:
            loss = loss + self.steer.value * min(ramp, 1.0) * RATE_EVERY / self.pixels * self._bits()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.steer.observe(float(distortion.detach()))
        self.squared = MEMORY * self.squared + (1 - MEMORY) * float(squared) if self.squared else float(squared)
        if step % PROJECT_EVERY == 0:
            self._project()
        if self.tables and step % CALIBRATE_EVERY == 0:
            self.size.calibrate(self.tables)
        if step % PROBE_EVERY == 0:
            self._probe(frames, codes, before)
        if ramp >= 0 and step % STEER_EVERY == 0:
            self.steer.steer(self.bits(), STEER_EVERY)
            self._coarsen(NUDGE)
            for latent in self.latents:
                latent.count(self.steer.value * min(ramp, 1.0) * self.frames / self.pixels)

    @torch.no_grad()
    def _probe(self, frames: Tensor, codes: list[Tensor], before: Tensor | None) -> None:
        """Tell those latents that ask for it what it costs to change them."""
        for i, latent in enumerate(self.latents):

            def distortion(changed: Tensor, i: int = i) -> float:
                made = self.network([*codes[:i], changed, *codes[i + 1 :]], before)
                return float(self.distortion(made, frames * 255, 0, self.height)[0])

            if latent.probed:
                latent.observe(curvature(distortion, codes[i].detach(), self.generator) / latent.source.step**2)

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
        return self.size.bits(self.tables)

    @torch.no_grad()
    def bits(self) -> float:
        """Predicted bits of weights, biases and, once they are free, latents as they would be written now."""
        return float(self._bits())

    def _project(self) -> None:
        for module in self.convolutions:
            module.project()

    def state(self) -> dict[str, Any]:
        """All that a fit needs to go back here, copied."""
        return {
            "network": {name: tensor.clone() for name, tensor in self.network.state_dict().items()},
            "tables": [table.detach().clone() for table in self.tables],
            "optimiser": self.optimiser.state(),
            "steer": self.steer.state(),
            "squared": self.squared,
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state()` of the same phase; the order of the frames goes on."""
        self.network.load_state_dict(state["network"])
        for table, values in zip(self.tables, state["tables"], strict=True):
            table.copy_(values)
        self.optimiser.restore(state["optimiser"])
        self.steer.restore(state["steer"])
        self.squared = state["squared"]
