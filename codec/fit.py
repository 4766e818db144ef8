"""The training loop: fits one network to one segment, rate and distortion together.

What a step minimises is in objective.py, what it sees in feed.py, how it is launched in launch.py. Here are the phases (see
config.FitConfig) and all that is done between steps. On a GPU a step returns before it is computed: the host looks at the device
only to tell of the progress, to let the coder count, and to see whether a fit diverges.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from .budget import NUDGE, coarsen, make_room, prune
from .canvas import Canvas
from .config import FitConfig
from .feed import Feed
from .latents import Latent, Numbers
from .launch import Compiled, CudaRecorder, Eager, Launcher, Recorded
from .network import Network
from .objective import Batch, Objective
from .optimiser import Optimiser
from .precision import set_half, set_tuned
from .recovery import Recovery

RATE_EVERY = 4  # weights move little in a step, and the rate of a small network costs as much as half a frame
STEER_EVERY = 10  # steps between two looks at the size
REPORT_EVERY = 25
PROJECT_EVERY = 5
PROBE_EVERY = 20  # one look costs three forward passes
CALIBRATE_EVERY = 200  # the coder takes as long as several steps
CHECKS = 50  # of a fit, for divergence
LEAST_CHECK = 40  # steps between two, as the distortion is a running mean over about fifty
AT_ONCE = 4  # batches, where many frames are encoded: without a gradient they take no more memory than a step
EXAMPLES = 16  # frames that a latent is shown before the first step


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
    """One fit: the network, its optimiser and, once the encoders are gone, its latents.

    It runs where `canvas.weights` is. `step` of `steps` are done.
    """

    def __init__(
        self, network: Network, canvas: Canvas, config: FitConfig, budget_bits: float, seed: int, tune: str = "psnr"
    ) -> None:
        self.device = device = canvas.weights.device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))
        self.config, self.frames, self.height = config, len(canvas.frames), canvas.frames.shape[2]
        self._asked = f"{replace(config, launch='')}, {budget_bits} bits, seed {seed}, {tune}"
        self.step, self.steps = 0, config.steps(self.frames)
        self.quantise_step = int(config.quantise_at * self.steps)
        self.hard_step = int(config.hard_at * self.steps)
        self.prune_step = int(config.prune_at * self.steps) if config.prune else None
        self.notes: list[str] = []
        with self._on_device():
            set_tuned(device)
            self.network = network.to(device)
            self._network = f"{sum(p.numel() for p in network.parameters())} parameters in {len(network.state_dict())} tensors"
            self.feed = Feed(canvas, min(config.batch, self.frames), self.steps, seed, history=network.history)
            self.objective = Objective(self.network, canvas, self.frames, budget_bits, tune)
            self.launcher = self._launcher()
            self.convolutions = list(network.convolutions())
            self.bands = torch.Generator().manual_seed(seed)
            self.noise = torch.Generator(device).manual_seed(seed)
            self._begin()
            self.optimiser = Optimiser(network, config)
            self.recovery = Recovery(self.state, self.restore)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Within, the stream of this fit, for which the caller's waits at the end: fits on several streams share a GPU, and a
        recording must not be of the default one.
        """
        if self.stream is None:
            yield
            return
        callers = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.stream):
            yield
        callers.wait_stream(self.stream)

    def _launcher(self) -> Launcher:
        """As the configuration says; nothing is recorded where there is no GPU, or where every step sees other rows."""
        cuda = self.device.type == "cuda"
        how = self.config.launch
        if how == "compile":
            self.objective.make = Compiled(self.network, self._tell)
        if how == "eager" or not cuda or self.config.band < 1:
            return Eager()
        return Recorded(CudaRecorder, self._tell_unrecorded)

    def _tell(self, note: str) -> None:
        self.notes.append(note)

    def _tell_unrecorded(self, note: str) -> None:
        self._tell(note)
        self.optimiser.forget()  # gradients of a recording that was broken off

    @property
    def latents(self) -> list[Latent]:
        """What the decoder reads of every frame."""
        return self.objective.latents

    @property
    def tables(self) -> list[nn.Parameter]:
        """Real latents of all frames, (T, C, h, w) each, once they are free."""
        return self.objective.tables

    @torch.no_grad()
    def _begin(self) -> None:
        """Let latents see some examples."""
        spread = torch.linspace(0, self.frames - 1, min(self.frames, EXAMPLES)).long()
        for latent, real in zip(self.latents, self.reals(spread), strict=True):
            latent.begin(self.frames, real)

    def reals(self, index: Tensor) -> list[Tensor]:
        """Real latents (N, C, h, w) each of frames by their numbers (N,), no gradient."""
        with self._on_device(), torch.no_grad():
            batches = (self.batch(part) for part in torch.split(index, AT_ONCE * self.config.batch))
            parts = [self.objective.reals(batch, self.objective.before(batch)) for batch in batches]
            return [torch.cat(part) for part in zip(*parts, strict=True)]

    def batch(self, index: Tensor) -> Batch:
        """Frames by their numbers (N,) int64 in the host's memory."""
        before = self.feed.take((index - 1).clamp(min=0)) if self.network.history else None
        return Batch(index.to(self.device), self.feed.take(index), before)

    def made(self, index: Tensor) -> Tensor:
        """Canvases (N, C, H, W) of samples 0..255 as the network makes frames `index` (N,) now, not rounded."""
        with self._on_device():
            return self.objective.made(self.batch(index))

    def run(self, report: Callable[[Progress], None]) -> list[list[Numbers]]:
        """Fit to the end, and return the numbers of each latent."""
        while self.step < self.steps:
            progress = self.advance()
            if progress is not None:
                report(progress)
        return self.finish()

    def advance(self) -> Progress | None:
        """One step with all that is due before and after it; what there is to tell."""
        with self._on_device():
            step = self.step
            self._enter(step)
            self._step(step)
            self.step += 1
            return self._look(step)

    def finish(self) -> list[list[Numbers]]:
        """The numbers of each latent, after the last step."""
        with self._on_device():
            for layer in self.convolutions:
                layer.settle()
            return [latent.numbers(table) for latent, table in zip(self.latents, self.tables, strict=True)]

    def _look(self, step: int) -> Progress | None:
        """See whether the fit diverges, and tell how it is, when it is time for either."""
        check_every = max(self.steps // CHECKS, LEAST_CHECK)
        # what a phase ends with is what the next one may go back to
        ends = (self.quantise_step, self.prune_step, self.hard_step, self.steps)
        due = (step + 1) % check_every == 0 or step + 1 in ends
        if due and self.recovery.check(self._distortion()):
            rate = f"{self.recovery.rate:g} of the rate"
            self._tell(f"the fit diverged at step {step + 1}; back to its last good state with {rate}")
        if self.notes or step % REPORT_EVERY == 0 or step == self.steps - 1:
            return self._progress(step)
        return None

    def _distortion(self) -> float:
        """The running squared error; no number where a latent is none, which no batch may have shown yet."""
        finite = all(bool(table.isfinite().all()) for table in self.tables)
        return float(self.objective.squared.value) if finite else math.nan

    def bits(self) -> float:
        """Predicted bits of weights, biases and, once they are free, latents as they would be written now."""
        with self._on_device():
            return float(self.objective.bits())

    def _progress(self, step: int) -> Progress:
        psnr = 10 * math.log10(255**2 / max(float(self.objective.squared.value), 1e-9))
        usages = [usage for latent in self.latents if (usage := latent.usage()) is not None]
        share, perplexity = map(fmean, zip(*usages, strict=True)) if usages else (None, None)
        notes, self.notes = "; ".join(self.notes), []
        return Progress(step + 1, self.steps, psnr, self.bits(), share, perplexity, notes)

    def _enter(self, step: int) -> None:
        """Switch phases, and set what changes from step to step."""
        if step == self.quantise_step:
            self.network.quantise()
            self._free()
            make_room(self.objective)
            self.objective.size.calibrate(self.tables)
            for _ in range(3):  # so that rounding begins at the size that was asked for
                coarsen(self.objective, 1.0)
            self._count()
        if step == self.prune_step:
            prune(self.convolutions, self.config.prune)
        if step == self.hard_step:
            self._freeze()
        if step in (self.quantise_step, self.prune_step, self.hard_step):
            self.recovery.enter()
            if self.stream is not None:
                self.stream.synchronize()  # what was recorded may still be replayed
            self.launcher.reset()
        if step in (0, self.hard_step):
            set_half(self.convolutions, step == 0, self.device)
        warm = min(1.0, (step + 1) / (0.05 * self.steps))
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        self.optimiser.set_rate(min(warm, cosine) * self.recovery.rate)
        self.objective.ramp.fill_(min(max(self._ramp(step), 0.0), 1.0))

    def _ramp(self, step: int) -> float:
        return (step / self.steps - self.config.quantise_at) / (self.config.full_rate_at - self.config.quantise_at)

    def _free(self) -> None:
        """Turn the encoders' last latents into parameters and let the encoders go."""
        self._adopt(self.reals(torch.arange(self.frames)))
        for latent, table in zip(self.latents, self.tables, strict=True):
            latent.settle(table)

    def _adopt(self, reals: list[Tensor]) -> None:
        """Make these the free latents, and let the encoders go."""
        self.objective.tables = [nn.Parameter(real) for real in reals]
        for table in self.tables:
            self.optimiser.add(table)
        for encoder in self.network.encoders():
            for parameter in encoder.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None

    def _freeze(self) -> None:
        """Let free latents make their last choices."""
        for latent, table in zip(self.latents, self.tables, strict=bool(self.tables)):
            for parameter in latent.freeze(table):
                self.optimiser.add(parameter)

    def _rows(self) -> tuple[int, int]:
        """The rows of the canvas that a step computes."""
        if self.config.band >= 1:
            return 0, self.height
        unit = self.network.band
        count = max(round(self.config.band * self.height / unit), 1)
        first = int(torch.randint(self.height // unit - count + 1, (), generator=self.bands))
        return first * unit, (first + count) * unit

    def _step(self, step: int) -> None:
        self.feed.load(step)
        rounded = self._ramp(step) >= 0
        rate = RATE_EVERY if rounded and step % RATE_EVERY == 0 else 0
        probed = step % PROBE_EVERY == 0 and any(latent.probed for latent in self.latents)
        if probed:
            self._shake()
        rows = self._rows()

        def descend() -> None:
            batch = Batch(self.feed.index, self.feed.frames, self.feed.before)
            self.objective.descend(batch, rows, self.optimiser.step, rate, probed)

        self.launcher.run(f"descend, rate {rate}, probed {probed}", descend)
        if step % PROJECT_EVERY == 0:
            self.launcher.run("project", self._project)
        if self.tables and step % CALIBRATE_EVERY == 0:
            self.objective.size.calibrate(self.tables)
        if rounded and step % STEER_EVERY == 0:
            self.launcher.run("steer", self._steer)

    def _shake(self) -> None:
        """Draw the directions in which latents are changed, to see what that costs."""
        batch = len(self.feed.index)
        for latent, noise in zip(self.latents, self.objective.noises, strict=True):
            if latent.probed:
                torch.randn(batch, *latent.shape, generator=self.noise, out=noise)

    def _project(self) -> None:
        for layer in self.convolutions:
            layer.project()

    def _steer(self) -> None:
        self.objective.steer.steer(self.objective.bits(), STEER_EVERY)
        coarsen(self.objective, NUDGE)
        self._count()

    def _count(self) -> None:
        """Tell latents what a bit costs: a segment's bits, of which a frame has to pay its share."""
        price = self.objective.price() * (self.frames / self.objective.pixels)
        for latent in self.latents:
            latent.count(price)

    def state(self) -> dict[str, Any]:
        """All that a fit needs to go back here, copied."""
        return {
            "network": {name: tensor.clone() for name, tensor in self.network.state_dict().items()},
            "tables": [table.detach().clone() for table in self.tables],
            "optimiser": self.optimiser.state(),
            "scalars": [tensor.clone() for tensor in self._scalars()],
        }

    def _scalars(self) -> list[Tensor]:
        return [*self.objective.steer.tensors(), self.objective.squared.value, self.objective.size.factors]

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go back, in place, to a `state()` of the same phase; the order of the frames goes on."""
        self.network.load_state_dict(state["network"])
        for table, values in zip(self.tables, state["tables"], strict=True):
            table.copy_(values)
        self.optimiser.restore(state["optimiser"])
        for tensor, value in zip(self._scalars(), state["scalars"], strict=True):
            tensor.copy_(value)

    def checkpoint(self) -> dict[str, Any]:
        """All that a fit of the same arguments needs to go on from here (`resume`), but for the states that it may go back to."""
        with self._on_device():
            place = {"of": self.identity, "step": self.step, "rate": self.recovery.rate, "best": self.recovery.best}
            random = {"bands": self.bands.get_state(), "noise": self.noise.get_state(), "noise of": self.device.type}
            return {**self.state(), **place, **random}

    @cached_property
    def identity(self) -> str:
        """What a fit depends on but for the device, as text: its frames by a checksum, its network, its settings."""
        samples = zlib.crc32(self.feed.source.cpu().contiguous().numpy().data)
        return f"{tuple(self.feed.source.shape)} {samples:08x}, {self._network}, {self._asked}"

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a `checkpoint()`; this fit must not have made a step yet. ValueError for that of another fit."""
        if checkpoint["of"] != self.identity:
            raise ValueError(f"a checkpoint of {checkpoint['of']}, not of {self.identity}")
        with self._on_device():
            self.step = done = checkpoint["step"]
            if done > self.quantise_step:
                self.network.quantise()
                self._adopt([values.to(self.device, copy=True) for values in checkpoint["tables"]])
            if self.prune_step is not None and done > self.prune_step:
                for layer in self.convolutions:
                    layer.prune(torch.ones_like(layer.weight))
            for latent in self.latents:
                for parameter in latent.prepare(self.frames, bool(self.tables), bool(self.tables) and done > self.hard_step):
                    self.optimiser.add(parameter)
            set_half(self.convolutions, done <= self.hard_step, self.device)
            self.restore(checkpoint)
            self.bands.set_state(checkpoint["bands"])
            if checkpoint["noise of"] == self.device.type:  # generators of different devices have nothing in common
                self.noise.set_state(checkpoint["noise"])
            self.recovery.resume(checkpoint["rate"], checkpoint["best"])
