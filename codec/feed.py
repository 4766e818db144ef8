"""The frames that a fit sees: in which order, and from where, the memory of its device or that of the host."""

from __future__ import annotations

import torch
from torch import Tensor

from .canvas import Canvas

STAGES = 3  # batches on their way from the host: one is filled while one travels, and one is spare


class Feed:
    """Loads one batch after another into tensors that stay where they are, so that a recorded step (launch.py) finds them there.

    `index` (B,) int64 and `frames` (B, C, H, W) uint8 are those of the step that was loaded last; `before` (B, C, H, W) are the
    frames t - 1 (frame 0 again for frame 0), None without `history`. The order is settled by the seed: every frame once a pass,
    and a batch may span two passes. Where the canvas has its frames in the host's memory, they are streamed from there.
    """

    def __init__(
        self, canvas: Canvas, batch: int, steps: int, seed: int, *, history: bool = False, streamed: bool | None = None
    ) -> None:
        self.source, self.device = canvas.frames, canvas.weights.device
        self.streamed = self.source.device != self.device if streamed is None else streamed
        count = len(self.source)
        generator = torch.Generator().manual_seed(seed)
        passes = [torch.randperm(count, generator=generator) for _ in range(-(-steps * batch // count))]
        self.order = torch.cat(passes)[: steps * batch].view(steps, batch)
        self._order = self.order.to(self.device)
        self.index = torch.zeros(batch, dtype=torch.int64, device=self.device)
        self.frames = self._empty(batch)
        self.before = self._empty(batch) if history else None
        self._stages = [_Stage(self.source, batch, self.device) for _ in range(STAGES if self.streamed else 0)]

    def load(self, step: int) -> None:
        """Make the batch of a step the one that is seen; nothing here waits for the device."""
        self.index.copy_(self._order[step])
        self._fill(self.frames, self.index, self.order[step])
        if self.before is not None:
            self._fill(self.before, (self.index - 1).clamp_(min=0), (self.order[step] - 1).clamp_(min=0))

    def take(self, index: Tensor) -> Tensor:
        """Any frames (N, C, H, W) uint8 on the device, by their numbers (N,) in the host's memory."""
        return self.source[index.to(self.source.device)].to(self.device)

    def _empty(self, batch: int) -> Tensor:
        return torch.empty(batch, *self.source.shape[1:], dtype=torch.uint8, device=self.device)

    def _fill(self, batch: Tensor, index: Tensor, numbers: Tensor) -> None:
        if not self.streamed:
            torch.index_select(self.source, 0, index, out=batch)
            return
        stage = self._stages.pop(0)
        stage.send(numbers, batch)
        self._stages.append(stage)


class _Stage:
    """A batch in memory that the device can read by itself, and what tells that it has."""

    def __init__(self, source: Tensor, batch: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.source = source
        self.memory = torch.empty(batch, *source.shape[1:], dtype=torch.uint8, pin_memory=cuda)
        self.read = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]

    def send(self, numbers: Tensor, batch: Tensor) -> None:
        """Gather frames and start their way to `batch`; waits only where the last ones from here have not arrived."""
        if self.read is not None:
            self.read.synchronize()  # returns at once before the first recording
        torch.index_select(self.source, 0, numbers, out=self.memory)
        batch.copy_(self.memory, non_blocking=True)
        if self.read is not None:
            self.read.record()
