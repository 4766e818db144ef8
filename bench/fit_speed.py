"""How fast nvc fits beside a plain float32 loop of the same network, in one process, taking turns.

    python bench/fit_speed.py [CLIP] [--sizes 160x90:50000,320x180:100000,640x320:400000] [--frames 0:16] [--batches 1,2,4]
                              [--launch graph] [--repeats 5] [--profile] [--threads N] [--device cpu] [--json OUT]

The plain side is the published loop (plain.py): NCHW, batch 2, Adam, encoder included. nvc is measured in the phases of a fit
(config.FitConfig): `float` with the encoder; `rounded`, with rounded weights, rate, steering and projection, convolutions in
bfloat16 where that is faster; `hard`, the same without bfloat16. `--launch` says how its steps reach a GPU (launch.py). A ratio
is the median over pairs of neighbouring turns of plain and nvc; that of the whole fit weighs the phases by their steps.
`--profile` says where a rounded step spends its time, launched one operation after another.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any

import jobs
import torch
from clips import open_clip, size, span
from jobs import Job, Journal, Result, Source
from plain import PlainHNeRV, train
from torch.profiler import ProfilerActivity, profile, record_function

from nvc.codec import activations, latents, layers, rate, steps
from nvc.codec.canvas import Canvas, to_canvas
from nvc.codec.config import LAUNCHES, FitConfig
from nvc.codec.decode import open_device
from nvc.codec.fit import Fit
from nvc.codec.geometry import Picture
from nvc.codec.launch import WARM_UP
from nvc.codec.models import hnerv
from nvc.codec.objective import Objective
from nvc.codec.optimiser import Optimiser
from nvc.codec.steer import Lambda

TURN = 20  # steps of nvc: each of its periods (rate, steering, projection) divides it
PLAIN_TURN, PLAIN_BATCH, PLAIN_LR = 10, 2, 1e-3
BITS_A_PARAMETER = 4.0  # the budget: about target.USUAL_BITS, and embeddings
CONFIG = FitConfig(passes=1, min_steps=10_000)  # long enough for a turn to lie within a phase
PHASES = {"float": CONFIG.quantise_at, "rounded": CONFIG.hard_at - CONFIG.quantise_at, "hard": 1 - CONFIG.hard_at}
SIZES = "160x90:50000,320x180:100000,640x320:400000"

FORWARD, BACKWARD, ELSE, PYTHON = "convolution forward", "convolution backward", "everything else", "Python between operations"
REQUANTISE, SHUFFLE, ROUND = "requantisation and activation", "depth to space", "rounding of weights and embeddings"
RATE, OPTIMISER, STEER = "rate", "optimiser", "steering and projection"
GROUPS = (FORWARD, BACKWARD, REQUANTISE, SHUFFLE, ROUND, RATE, OPTIMISER, STEER, PYTHON, ELSE)
CALLS: tuple[tuple[Any, str, str], ...] = (
    (activations.Requantiser, "forward", REQUANTISE),
    (layers, "shuffle", SHUFFLE),
    (steps, "quantise", ROUND),
    (latents.Embedding, "forward", ROUND),
    (rate, "tensors_bits", RATE),
    (rate, "embedding_bits", RATE),
    (Optimiser, "step", OPTIMISER),
    (layers.QuantConv, "project", STEER),
    (Objective, "bits", STEER),
    (Lambda, "steer", STEER),
)
ENGINE = "autograd::engine::evaluate_function: "
NODES = {
    "ConvolutionBackward0": BACKWARD,
    "_QuantiseBackward": ROUND,
    "_RoundBackward": ROUND,
    "_SequenceBitsBackward": RATE,
    **dict.fromkeys(("_HardSwishBackward", "_RequantiseBackward", "_SineBackward", "_TableBackward"), REQUANTISE),
    # in a rounded step nearly all of these are depth to space's
    **{f"{name}Backward0": SHUFFLE for name in ("Permute", "Transpose", "View", "UnsafeView", "Clone")},
}
NAMES = {group: group for group in GROUPS} | {"aten::conv2d": FORWARD} | {ENGINE + node: group for node, group in NODES.items()}


def first_step(phase: str, total: int) -> int:
    """Where the turns of a phase start, in a fit of `total` steps: the rounded ones where lambda has its full value."""
    start = {"float": 0.0, "rounded": CONFIG.full_rate_at, "hard": CONFIG.hard_at}[phase]
    return (int(start * total) // TURN + 1) * TURN


def enter(fit: Fit, phase: str) -> int:
    """Bring a new fit into a phase without the steps before it; the first step of a turn there."""
    switches = {"float": (0.0,), "rounded": (0.0, CONFIG.quantise_at), "hard": (0.0, CONFIG.quantise_at, CONFIG.hard_at)}[phase]
    with fit._on_device():
        for share in switches:
            fit._enter(int(share * fit.steps))
    return first_step(phase, fit.steps)


def turns(fit: Fit, phase: str) -> Callable[[], None]:
    """Runs TURN steps of a phase of `fit`, again and again the same ones."""
    first = enter(fit, phase)

    def turn() -> None:
        for step in range(first, first + TURN):
            with record_function(PYTHON), fit._on_device():
                fit._enter(step)
                fit._step(step)

    return turn


def warm_turns(device: torch.device) -> int:
    """Turns before those that count. On a GPU, what comes once in each is launched WARM_UP times before it is recorded."""
    return WARM_UP + 1 if device.type == "cuda" else 1


@dataclass(frozen=True)
class Subject:
    """A clip and the network of at most so many `parameters` that is fitted to it."""

    source: Source
    parameters: int

    @cached_property
    def config(self) -> hnerv.Config:
        """The shape of the network."""
        return hnerv.plan(Picture.of(self.source.clip.header), self.parameters)

    def canvas(self, device: torch.device) -> Canvas:
        """The frames, in the memory of a device."""
        return to_canvas(self.source.clip.planes, self.config.picture.side, self.config.grid.size).to(device)

    def fit(self, canvas: Canvas, config: FitConfig) -> Fit:
        """nvc's, always with the same seed."""
        torch.manual_seed(0)
        network = hnerv.Network(self.config)
        return Fit(network, canvas, config, BITS_A_PARAMETER * hnerv.decoder_parameters(self.config), 0)


def build(subject: Subject, batch: int, launch: str, device: torch.device) -> tuple[Fit, Callable[[], None]]:
    """A fit, and what runs PLAIN_TURN steps of the plain loop of the same network on the same frames."""
    canvas = subject.canvas(device)
    fit, other = subject.fit(canvas, replace(CONFIG, batch=batch, launch=launch)), PlainHNeRV(subject.config)
    return fit, lambda: train(other, canvas, PLAIN_TURN, PLAIN_BATCH, PLAIN_LR, 0)


def seconds(run: Callable[[], None], device: torch.device) -> float:
    """What a call takes, to the end of its work on the device."""
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def compare(subject: Subject, batch: int, phase: str, launch: str, repeats: int, device: torch.device) -> Result:
    """Frames a second of both sides and their ratio, and what the fit had to tell."""
    fit, plain = build(subject, batch, launch, device)
    nvc = turns(fit, phase)
    frames, warm = len(subject.source.clip.pts), warm_turns(device)
    theirs, ours = [], []
    for _ in range(warm + repeats):
        theirs.append(PLAIN_TURN * min(PLAIN_BATCH, frames) / seconds(plain, device))
        ours.append(TURN * min(batch, frames) / seconds(nvc, device))
    if not math.isfinite(float(fit.objective.squared.value)):
        raise ValueError("the fit diverged; its speed means nothing")
    ratios = [a / b for a, b in zip(ours[warm:], theirs[warm:], strict=True)]
    return {
        "nvc": statistics.median(ours[warm:]),
        "plain": statistics.median(theirs[warm:]),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "largest": max(ratios),
        "note": "; ".join(fit.notes),
    }


def profiled(subject: Subject, batch: int, device: torch.device) -> Result:
    """Milliseconds a rounded step of each of GROUPS: of the CPU, or of the kernels on a GPU."""

    def labelled(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            with record_function(label):
                return function(*arguments, **named)

        return call

    fit, _ = build(subject, batch, "eager", device)
    turn = turns(fit, "rounded")
    cuda = device.type == "cuda"
    with ExitStack() as stack:
        for owner, name, label in CALLS:
            stack.enter_context(jobs.setting(owner, name, labelled(getattr(owner, name), label)))
        turn()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=activities) as record:
            turn()
    spent: dict[str, float] = defaultdict(float)
    for event in record.events():
        spent[group(event)] += (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1000 / TURN
    return {name: spent[name] for name in GROUPS}


def group(event: Any) -> str:
    """The one of GROUPS that an event belongs to: that of the outermost call with a name that is known."""
    found = PYTHON if event.name == PYTHON else ELSE
    while event is not None:
        known = NAMES.get(event.name, ELSE)
        found = found if known in (ELSE, PYTHON) else known
        event = event.cpu_parent
    return found


def measured(text: str) -> tuple[tuple[int, int], int]:
    """A network of the command line: WxH:PARAMETERS."""
    scale, parameters = text.split(":")
    return size(scale), int(parameters)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs.add_arguments(parser)
    parser.add_argument("clip", nargs="?", default="synthetic:pan", metavar="CLIP")
    parser.add_argument("--frames", type=span, default=(0, 16), metavar="A:B")
    parser.add_argument("--sizes", default=SIZES, metavar="WxH:PARAMETERS,...")
    parser.add_argument("--batches", type=jobs.integers, default=(1, 2, 4), help="of nvc; the plain loop has 2")
    parser.add_argument("--launch", choices=LAUNCHES, default=CONFIG.launch)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="instead, where a step of the first of --batches spends its time")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device, journal = open_device(options.device), Journal(options.json)
    subjects = []
    for scale, parameters in map(measured, options.sizes.split(",")):
        source = Source(options.clip.split("/")[-1], open_clip(options.clip, scale, options.frames))
        subjects.append(Subject(source, parameters))
    print(f"{jobs.heading(options)}\n")
    if options.profile:
        show_profile(subjects, options, device, journal)
    else:
        show_speed(subjects, options, device, journal)


def key(kind: str, subject: Subject, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """What all results depend on."""
    known = {"bench": "fit_speed", "kind": kind, "clip": subject.source.key, "parameters": subject.parameters, "batch": batch}
    return {**known, "device": options.device, "threads": options.threads, "torch": torch.__version__}


def show_speed(subjects: Sequence[Subject], options: argparse.Namespace, device: torch.device, journal: Journal) -> None:
    """Measure the speeds that are missing and print the table."""
    launch, repeats = options.launch, options.repeats

    def job(subject: Subject, batch: int, phase: str) -> Job:
        about = key("speed", subject, batch, options) | {"phase": phase, "launch": launch, "repeats": repeats}
        label = f"{subject.source.key}, {subject.parameters} parameters, batch {batch}, {phase}"
        return Job(label, about, lambda: compare(subject, batch, phase, launch, repeats, device))

    cases = [(subject, batch) for subject in subjects for batch in options.batches]
    jobs.run([job(*case, phase) for case in cases for phase in PHASES], journal, options.part)
    rows: list[list[object]] = []
    notes: list[str] = []
    for subject, batch in cases:
        header = subject.source.clip.header
        name = f"{header.width}x{header.height}, {subject.parameters / 1000:g} k, batch {batch}"
        inverse, complete = 0.0, True
        for phase, share in PHASES.items():
            result = journal.result(job(subject, batch, phase))
            if result is None:
                complete = False
                continue
            inverse += share / result["ratio"]
            span_of = f"{result['least']:.2f} to {result['largest']:.2f}"
            rows.append([name, phase, f"{result['plain']:.1f}", f"{result['nvc']:.1f}", f"{result['ratio']:.2f}", span_of])
            notes += [f"{name}, {phase}: {result['note']}"] if result["note"] else []
        if complete:
            rows.append([name, "whole fit", "", "", f"{1 / inverse:.2f}", ""])
    print(f"launch: {launch}\n")
    print(jobs.table(("network", "phase", "plain frames/s", "nvc frames/s", "ratio", "least to largest"), rows))
    print("\n".join(notes), end="\n" if notes else "")


def show_profile(subjects: Sequence[Subject], options: argparse.Namespace, device: torch.device, journal: Journal) -> None:
    """Profile what is missing and print the table, in ms a step."""
    batch = options.batches[0]

    def job(subject: Subject) -> Job:
        about = key("profile", subject, batch, options)
        return Job(f"profile of {subject.source.key}", about, lambda: profiled(subject, batch, device))

    planned = [(job(subject), subject.source.clip.header) for subject in subjects]
    jobs.run([each for each, _ in planned], journal, options.part)
    done = [(f"{header.width}x{header.height}", result) for each, header in planned if (result := journal.result(each))]
    rows: list[list[object]] = [[name, *(f"{result[name]:.2f}" for _, result in done)] for name in GROUPS]
    totals = [sum(result.values()) for _, result in done]
    alone = [result[FORWARD] + result[BACKWARD] for _, result in done]
    rows.append(["all", *(f"{total:.2f}" for total in totals)])
    rows.append(["ceiling: the convolutions alone", *(f"{least:.2f}" for least in alone)])
    times = [total / max(least, 1e-9) for total, least in zip(totals, alone, strict=True)]
    rows.append(["so at most faster by", *(f"{factor:.2f}" for factor in times)])
    print(jobs.table((f"ms a rounded step, batch {batch}", *(name for name, _ in done)), rows))


if __name__ == "__main__":
    main()
