"""One segment from its frames to what is written of it: its memory, its fit, and the decoding of what the fit made."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from nvc.bitstream.bounds import prove
from nvc.bitstream.constants import Limits
from nvc.bitstream.program import Builder

from .canvas import Canvas, Planes, to_canvas
from .checkpoint import Keeper
from .decode import AHEAD, CPU_BATCH, CUDA_BATCH, fitting, free_memory
from .fit import Fit, Progress
from .interpreter import Interpreter
from .memory import Room, plan_memory
from .metrics import Quality
from .models import FAMILIES
from .network import Network
from .pipeline import hashed
from .plan import EncodeOptions, Plan
from .video import Clip

Tensors = list[NDArray[np.int64]]


def plan_room(clip: Clip, plan: Plan, options: EncodeOptions, device: torch.device, free: int) -> Room:
    """How the longest segment, and so each, is fitted in `free` bytes of the device; MachineError where it cannot be."""
    network = _network(plan, options, 0)
    one = to_canvas(tuple(plane[:1] for plane in clip.planes), plan.side, network.grid.size)  # type: ignore[arg-type]
    frames = max(last - first for first, last in plan.ranges)
    canvas = Canvas(one.frames.expand(frames, -1, -1, -1), one.weights)
    return plan_memory(network, canvas, options.fit, options.tune, device, free)


def _network(plan: Plan, options: EncodeOptions, number: int) -> Network:
    """The network of segment `number` before its fit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed + number)
        network: Network = FAMILIES[options.model].Network(plan.config)
    return network


class SegmentFit:
    """A fit of segment `number` to `bits`, and what comes of it: a run (together.py).

    With a `keeper` the fit goes on where it was saved by its `name`, and is saved now and then.

    Once it is `done` there are the `tensors` of the program, proven to stay within 2^24, the `hashes` of what they decode to,
    and its `quality`.
    """

    tensors: Tensors
    hashes: bytes
    quality: Quality

    def __init__(
        self,
        clip: Clip,
        plan: Plan,
        options: EncodeOptions,
        number: int,
        bits: float,
        device: torch.device,
        room: Room,
        report: Callable[[Progress], None],
        keeper: Keeper | None = None,
        name: str = "",
    ) -> None:
        first, last = plan.ranges[number]
        self._planes: Planes = tuple(plane[first:last] for plane in clip.planes)  # type: ignore[assignment]
        self._plan, self._options, self._device, self._report = plan, options, device, report
        network = _network(plan, options, number)
        canvas = to_canvas(self._planes, plan.side, network.grid.size).to(device, resident=room.resident)
        fit = Fit(network, canvas, room.config, bits, options.seed + number, options.tune)
        self._fit: Fit | None = fit
        self._keeper, self._name = keeper, name
        if keeper is not None:
            keeper.load(name, fit)

    @property
    def done(self) -> bool:
        """Whether all is there."""
        return self._fit is None

    def advance(self) -> None:
        """One step; after the last one also what follows from the fit, whose memory is free then."""
        fit = self._fit
        assert fit is not None
        if fit.step < fit.steps:  # one that goes on may have made them all
            told = fit.advance()
            if self._keeper is not None:
                self._keeper.look(self._name, fit)
            if told is not None:
                self._report(told)
        if fit.step < fit.steps:
            return
        builder = Builder(self._options.model)
        fit.network.emit(builder, fit.finish())
        self._fit = fit = None
        if self._device.type == "cuda":
            gc.collect()  # a fit refers to itself, and what comes next is to have its memory
        prove(self._plan.analysis, builder.tensors)
        self.tensors = builder.tensors
        self.hashes, decoded = _decode(self._plan, self.tensors, self._planes, self._device)
        rgb, similarity = self._plan.side == 1, self._options.tune == "ssim"
        self.quality = Quality.of(self._planes, decoded, rgb=rgb, similarity=similarity)


def _decode(plan: Plan, tensors: Tensors, planes: Planes, device: torch.device) -> tuple[bytes, Planes]:
    """Run what will be written in the place of `planes`: the hashes of its frames, and the frames."""
    frames, samples = len(planes[0]), sum(plane[0].size for plane in planes)
    wanted, memory = CUDA_BATCH if device.type == "cuda" else CPU_BATCH, Limits().max_memory_bytes
    batch = fitting(wanted, plan.analysis.peak_memory, samples, memory, free_memory(device))
    run = Interpreter(plan.analysis, tensors, frames, batch, device)
    spans = ((first, min(batch, frames - first)) for first in range(0, frames, batch))
    batches = list(hashed(run.launch, spans, AHEAD[device.type]))
    decoded: Planes = tuple(map(np.concatenate, zip(*(made for _, made, _ in batches), strict=True)))  # type: ignore[assignment]
    return b"".join(found for _, _, hashes in batches for found in hashes), decoded
