"""What a fit minimises, as a function of the frames of one step: D + lambda R, and what it takes to compute it.

D is the distortion (distortion.py), R the predicted bits per pixel of all weights, biases and latents (size.py), lambda steered
towards the wanted size (steer.py). Nothing here is read by the host, so that a step can be recorded (launch.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .canvas import Canvas
from .curvature import curvature
from .distortion import DISTORTIONS
from .latents import Latent
from .network import Network
from .precision import half_encoders
from .running import RunningMean
from .size import Size
from .steer import Lambda

MEMORY = 0.98  # of the running squared error


@dataclass(frozen=True)
class Batch:
    """Frames t of a step: their numbers `index` (B,) int64, their canvases (B, C, H, W) uint8, and those of t - 1 where the
    network has a history.
    """

    index: Tensor
    frames: Tensor
    before: Tensor | None


class Objective:
    """The network, the latents once they are free, and what tells how good they are."""

    def __init__(self, network: Network, canvas: Canvas, frames: int, budget_bits: float, tune: str) -> None:
        device = canvas.weights.device
        self.network, self.height = network, canvas.weights.shape[1]
        self.latents = [latent for latent in network.latents if isinstance(latent, Latent)]
        self.tables: list[nn.Parameter] = []
        side = 2 if len(canvas.weights) == 6 else 1  # a 4:2:0 canvas has four luma phases
        self.pixels = int((canvas.weights[0] > 0).sum()) * side * side * frames
        self.steer = Lambda(budget_bits, self.pixels, device)
        self.distortion = DISTORTIONS[tune](canvas)
        self.size = Size(list(network.convolutions()), self.latents, device)
        self.squared = RunningMean(MEMORY, device)
        self.ramp = torch.zeros((), device=device)
        """The share of lambda that counts."""
        self.noises = [torch.zeros(0, device=device) for _ in self.latents]
        """Directions (B, C, h, w) in which `probe` moves those latents that ask for it."""
        self.make: Callable[[Sequence[Tensor], Tensor | None, tuple[int, int] | None], Tensor] = network
        """The network, or what a compiler made of it."""

    def reals(self, batch: Batch, before: Tensor | None) -> list[Tensor]:
        """Real latents (B, C, h, w) of a batch: the encoders', or free ones; `before` as `self.before` gives it."""
        if self.tables:
            return [table[batch.index] for table in self.tables]
        frames = _input(batch.frames)
        real = self._encode(frames)
        codes = self.latents[0](real, batch.index)
        with half_encoders(frames.device):
            details = self.network.encode_details(frames, codes, before)
        return [real, *(detail.float() for detail in details)]

    def before(self, batch: Batch) -> Tensor | None:
        """The embedding that the decoder reads of the frames before, where it does."""
        if not self.network.history:
            return None
        index = (batch.index - 1).clamp(min=0)
        if self.tables:
            real = self.tables[0][index]
        else:
            assert batch.before is not None
            real = self._encode(_input(batch.before))
        out: Tensor = self.latents[0](real, index)
        return out

    def _encode(self, frames: Tensor) -> Tensor:
        with half_encoders(frames.device):
            return self.network.encode(frames).float()

    def codes(self, reals: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """What the decoder reads for real latents."""
        return [latent(real, batch.index) for latent, real in zip(self.latents, reals, strict=True)]

    def descend(self, batch: Batch, rows: tuple[int, int], step: Callable[[], None], rate: float, probed: bool) -> None:
        """One `step` of an optimiser along the gradients of rows `rows` of a batch.

        R counts `rate` times, in a step for several; with 0 it is not computed. With `probed`, latents are told what it costs to
        change them.
        """
        before = self.before(batch)
        reals = self.reals(batch, before)
        codes = self.codes(reals, batch)
        wanted = _samples(batch.frames)
        distortion, squared = self.distortion(self.make(codes, before, rows), wanted[:, :, slice(*rows)], *rows)
        loss = distortion
        for latent, real, code in zip(self.latents, reals, codes, strict=True):
            commitment = latent.commitment(real, code)
            if commitment is not None:
                loss = loss + commitment
        if rate:
            loss = loss + (self.price() * (rate / self.pixels)).float() * self.size.bits(self.tables)
        loss.backward()  # type: ignore[no-untyped-call]
        step()
        self.steer.observe(distortion)
        self.squared.observe(squared)
        if probed:
            self._probe(wanted, [code.detach() for code in codes], None if before is None else before.detach())

    def price(self) -> Tensor:
        """Distortion per bit and pixel, as far as it counts by now; a scalar."""
        return self.steer.value * self.ramp

    @torch.no_grad()
    def _probe(self, wanted: Tensor, codes: list[Tensor], before: Tensor | None) -> None:
        for i, (latent, noise) in enumerate(zip(self.latents, self.noises, strict=True)):

            def distortion(changed: Tensor, i: int = i) -> Tensor:
                made = self.make([*codes[:i], changed, *codes[i + 1 :]], before, None)
                return self.distortion(made, wanted, 0, self.height)[0]

            if latent.probed:
                latent.observe(curvature(distortion, codes[i], noise) / latent.source.step**2)

    @torch.no_grad()
    def bits(self) -> Tensor:
        """Predicted bits of weights, biases and, once they are free, latents as they would be written now; a scalar."""
        return self.size.bits(self.tables)

    @torch.no_grad()
    def made(self, batch: Batch) -> Tensor:
        """Canvases (B, C, H, W) of samples 0..255, not rounded."""
        before = self.before(batch)
        out: Tensor = self.network(self.codes(self.reals(batch, before), batch), before)
        return out


def _samples(frames: Tensor) -> Tensor:
    """uint8 to float32, 0..255."""
    return frames.float().contiguous(memory_format=torch.channels_last)


def _input(frames: Tensor) -> Tensor:
    """uint8 to what encoders read, 0..1."""
    return _samples(frames).div_(255)
