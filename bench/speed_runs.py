"""What speed.py times, one run after another on a device that is cleared before each: steps, seconds to a PSNR, decodes.

Every result is a dictionary of JSON values. Times are of the host, taken when the device has done all that it was told.
"""

from __future__ import annotations

import gc
import io
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import decode_speed
import fit_speed
import jobs
import numpy as np
import torch
from ceilings import Work
from fit_speed import PLAIN_BATCH, PLAIN_LR, TURN, Subject
from jobs import Result
from numpy.typing import NDArray
from plain import PlainHNeRV, train
from tokens import unrounded
from torch import Tensor

from nvc.bitstream.analysis import Analysis, analyse
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.constants import HASHES, Limits
from nvc.bitstream.container import Writer
from nvc.bitstream.program import Builder, pack_programs
from nvc.bitstream.segment import Segment
from nvc.codec.canvas import Canvas
from nvc.codec.config import PRESETS, FitConfig
from nvc.codec.decode import CPU_BATCH, CUDA_BATCH, Decoder, frame_hash, wrong_frame
from nvc.codec.fit import Fit
from nvc.codec.interpreter import Interpreter
from nvc.codec.models import hnerv
from nvc.codec.precision import set_tuned

EPOCHS = 300  # of the published fits
PHASED = replace(fit_speed.CONFIG, passes=EPOCHS)  # with phases of some hundred steps, however short the clip
WHOLE = jobs.exactly(PRESETS["medium"], EPOCHS)
IN_FLOAT = unrounded(WHOLE)
NVC = {"float": IN_FLOAT, "whole": WHOLE}
PLAIN = "plain"
SIDES = (PLAIN, *NVC)
MOST_STEPS = 600  # of a phase are timed: each is longer, and calibrations, every 200 steps, are among them
LOOKS = 60  # at the PSNR, at most
EVERY = 25  # steps between two chances to look: the plain loop reports so often
SHOWN, AT_ONCE = 16, 8  # frames that a look is at
CODES = 40  # random embeddings are at most so large
ROUNDS = 3  # of the decoders, at least


def clear(device: torch.device) -> None:
    """Give back what the last run has left: memory, recordings, compiled networks."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def uncached(launch: str) -> AbstractContextManager[None]:
    """Within, a compiler does not take what it made in another process: the first fit on a machine pays for all of it."""
    return jobs.setting(torch.compiler.config, "force_disable_caches", True) if launch == "compile" else nullcontext()


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- steps


def counted(subject: Subject, phase: str, device: torch.device) -> Result:
    """What a step of a phase multiplies, by type (`flops`), and the bytes that this reads and writes at least."""
    clear(device)
    fit = subject.fit(subject.canvas(device), replace(PHASED, launch="eager"))
    turn = fit_speed.turns(fit, phase)
    with Work() as work:
        turn()
    return {"flops": {kind: count / TURN for kind, count in work.flops.items()}, "bytes": work.bytes / TURN}


def stepped(subject: Subject, launch: str, phase: str, seconds: float, device: torch.device) -> Result:
    """Steps a second of a phase, all included that is due between steps, and the seconds that its start took beyond that."""
    clear(device)
    fit = subject.fit(subject.canvas(device), replace(PHASED, launch=launch))
    fit.step = fit_speed.enter(fit, phase)
    notes: list[str] = []
    chunk, turns = partial(_advance, fit, TURN, notes), fit_speed.warm_turns(device)
    with uncached(launch):
        warm = sum(fit_speed.seconds(chunk, device) for _ in range(turns))
    steps, taken = 0, 0.0
    while not steps or (taken < seconds and steps < MOST_STEPS):
        taken += fit_speed.seconds(chunk, device)
        steps += TURN
    rate = steps / taken
    return {"rate": rate, "warm": max(warm - turns * TURN / rate, 0.0), "steps": steps, "note": "; ".join(notes)}


def _advance(fit: Fit, steps: int, notes: list[str]) -> None:
    for _ in range(steps):
        progress = fit.advance()
        if progress is not None and progress.note:
            notes.append(progress.note)


# ---- seconds to a PSNR


class Watch:
    """A clock that stands still while one looks at the PSNR, which is at most LOOKS times in `limit` seconds.

    `curve` has seconds, steps and PSNR in dB of every look.
    """

    def __init__(self, limit: float, psnr: Callable[[], float], device: torch.device) -> None:
        self.limit, self.psnr, self.device = limit, psnr, device
        self.curve: list[tuple[float, int, float]] = []
        self._next = 0.0
        self._start = time.perf_counter()

    def look(self, step: int, *, last: bool = False) -> bool:
        """Look, after `step` steps, where it is time or this was the last; whether the time is over."""
        if not last and time.perf_counter() - self._start < self._next:
            return False
        synchronise(self.device)
        seconds = time.perf_counter() - self._start
        self.curve.append((seconds, step, self.psnr()))
        self._next = seconds + self.limit / LOOKS
        self._start = time.perf_counter() - seconds
        return seconds >= self.limit


class _Over(Exception):
    """The time is."""


def raced(subject: Subject, side: str, launch: str, limit: float, device: torch.device) -> Result:
    """A fit of EPOCHS epochs, or as much of it as `limit` seconds are enough for, with its frames on the device beforehand."""
    clear(device)
    canvas = subject.canvas(device)
    notes: list[str] = []
    if side == PLAIN:
        steps, watch = _race_plain(subject, canvas, limit)
    else:
        with uncached(launch):
            steps, watch = _race(subject, canvas, replace(NVC[side], launch=launch), limit, notes)
    return {"steps": steps, "curve": watch.curve, "note": "; ".join(notes)}


def _race_plain(subject: Subject, canvas: Canvas, limit: float) -> tuple[int, Watch]:
    device, frames = canvas.weights.device, len(canvas.frames)
    set_tuned(device)
    torch.manual_seed(0)
    network = PlainHNeRV(subject.config)
    steps = round(EPOCHS * frames / min(PLAIN_BATCH, frames))
    watch = Watch(limit, lambda: decibels(canvas, lambda index: network(_unit(canvas, index))), device)

    def report(step: int, steps: int, psnr: float) -> None:
        if watch.look(step, last=step == steps):
            raise _Over

    with suppress(_Over):
        train(network, canvas, steps, PLAIN_BATCH, PLAIN_LR, 0, report)
    return steps, watch


def _race(subject: Subject, canvas: Canvas, config: FitConfig, limit: float, notes: list[str]) -> tuple[int, Watch]:
    device = canvas.weights.device
    watch = Watch(limit, lambda: decibels(canvas, lambda index: fit.made(index) / 255), device)
    fit = subject.fit(canvas, config)
    over = False
    while not over and fit.step < fit.steps:
        _advance(fit, min(EVERY, fit.steps - fit.step), notes)
        over = watch.look(fit.step, last=fit.step == fit.steps)
    return fit.steps, watch


def _unit(canvas: Canvas, index: Tensor) -> Tensor:
    return canvas.frames[index.to(canvas.frames.device)].float().div_(255)


@torch.no_grad()
def decibels(canvas: Canvas, made: Callable[[Tensor], Tensor]) -> float:
    """PSNR of the mean squared error (6:1:1, or of RGB) over SHOWN frames; `made` gives canvases in 0..1 of frames by number."""
    frames = len(canvas.frames)
    error = 0.0
    index = torch.linspace(0, frames - 1, min(SHOWN, frames)).long()
    for part in index.split(AT_ONCE):
        canvases = made(part)
        synchronise(canvas.weights.device)  # a fit has a stream of its own
        error += float(((canvases - _unit(canvas, part)).square() * canvas.weights).sum())
    return float(-10 * np.log10(max(error / len(index), 1e-12)))


# ---- decode


@dataclass(frozen=True)
class File:
    """A network of random numbers, with the embeddings (T, 16, h, w) that it renders, as a file."""

    data: bytes
    analysis: Analysis
    tensors: list[NDArray[np.int64]]
    network: hnerv.Network
    codes: Tensor


def random_file(subject: Subject, frames: int, device: torch.device) -> File:
    """One segment of `frames` frames; their hashes are those of `device`."""
    torch.manual_seed(0)
    network = hnerv.Network(subject.config)
    network.quantise()
    for layer in network.convolutions():
        layer.settle()
    codes = torch.randint(-CODES, CODES + 1, (frames, subject.config.embedding_channels, *network.grid.embedding)).float()
    builder = Builder("hnerv")
    network.emit(builder, [[codes.numpy().astype(np.int64)]])
    program, tensors = builder.program(), builder.tensors
    analysis = analyse(program, Limits())
    run = Interpreter(analysis, tensors, frames, batch_of(device), device)
    hashes = [frame_hash(frame) for first in _firsts(frames, run.batch) for frame in zip(*_render(run, first), strict=True)]
    sections = write_sections(analysis, tensors, frames) | {HASHES: b"".join(hashes)}
    header = replace(subject.source.clip.header, frame_rate=Fraction(25), frame_count=frames)
    file = io.BytesIO()
    writer = Writer(file, header, pack_programs([program]))
    writer.add(Segment(0, frames, 0, digest(tensors), sections))
    writer.finish()
    return File(file.getvalue(), analysis, tensors, network, codes)


def batch_of(device: torch.device) -> int:
    """Frames that a decoder computes together."""
    return CUDA_BATCH if device.type == "cuda" else CPU_BATCH


def _firsts(frames: int, batch: int) -> range:
    return range(0, frames, batch)


def _render(run: Interpreter, first: int) -> tuple[NDArray[np.uint8], ...]:
    return run.render(first, min(run.batch, run.frames - first))


def decoded(subject: Subject, frames: int, seconds: float, device: torch.device) -> Result:
    """Frames a second to the host's memory, in turns for about `seconds`.

    `nvc` is the decoder with the check of every hash, `bare` the interpreter without hashes and one batch after another, `plain`
    the same network in ordinary float32. `start` are the seconds in which the decoder reads the file and decodes its numbers.
    """
    clear(device)
    file, batch = random_file(subject, frames, device), batch_of(device)
    run = Interpreter(file.analysis, file.tensors, frames, batch, device)
    plain = decode_speed.plain(file.network, file.codes, device)

    def render(side: Callable[[int, int], object]) -> None:
        for first in _firsts(frames, batch):
            side(first, min(batch, frames - first))

    calls = [partial(render, run.render), partial(render, plain)]
    starts: list[float] = []
    times: list[list[float]] = [[], [], []]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(starts) <= ROUNDS:
        start, taken = decode(file, device)
        starts.append(start)
        for kept, each in zip(times, [taken, *(fit_speed.seconds(call, device) for call in calls)], strict=True):
            kept.append(each)
    # the first of each warms up
    rates = {side: frames / statistics.median(each[1:]) for side, each in zip(("nvc", "bare", PLAIN), times, strict=True)}
    about = {"frames": frames, "batch": batch, "macs": file.analysis.macs, "bytes": len(file.data)}
    return {**rates, "start": statistics.median(starts[1:]), **about}


def decode(file: File, device: torch.device) -> tuple[float, float]:
    """Seconds to the numbers of a file's one segment, and from there to its last frame; VerificationError where one is wrong."""
    started = time.perf_counter()
    decoder = Decoder(io.BytesIO(file.data), device)
    (segment,) = decoder.reader.segments()
    numbers = decoder.numbers(segment)
    ready = time.perf_counter()
    for first, _, right in decoder.render(segment, numbers, 0, segment.frames):
        if not all(right):
            raise wrong_frame(first + right.index(False))
    return ready - started, time.perf_counter() - ready
