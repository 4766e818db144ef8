"""BD-rate of nvc against the published pipeline (published.py) on clips, at equal passes over the frames.

    python bench/rd_gain.py CLIP ... --scale 160x90 --frames 0:64 [--bpp .1,.17,.3,.5] [--passes 120] [--json OUT]

Two settings of the pipeline: `published` is what the sources say (lr 0.001, batch 2, 10 % pruned and fine-tuned), `tuned` the
best that was found for it (published.Settings: a learning rate ten times as high, no pruning). Each is the envelope of four
network sizes at 4 to 8 bits a weight, a curve without dents: a point under the line through its neighbours is left out, which
favours the pipeline. BD-rate is that of the package `bjontegaard` (PCHIP and Akima), over the PSNRs that both curves reach;
negative: nvc is smaller.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import isnan, log2
from typing import Any

import jobs
import published
import torch
from jobs import Job, Journal, Result, Source

from nvc.codec.config import PRESETS
from nvc.codec.decode import open_device
from nvc.codec.encode import EncodeOptions
from nvc.codec.target import Target

BITS = (4, 5, 6, 7, 8)
SIZES = 4
BITS_A_PARAMETER = 6.0  # of a published file at 7 bits a weight and 6 an embedding value: published.py's 35 KB for 45,685
REACH = 1.5  # the largest network's files are so much larger than nvc's largest, which they must equal in PSNR
BEYOND = 2.0  # files that are smaller or larger than all of nvc's by more are left out
LEAST_POINTS = 4
METHODS = ("pchip", "akima")
METRICS = {"psnr_611": "6:1:1", "psnr_y": "PSNR-Y"}
PAPER = {"lr": 1e-3, "batch": 2, "prune": 0.1}
SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {"published": (PAPER,), "tuned": ({},)}
Point = Mapping[str, Any]


def ours(source: Source, bpp: float, options: argparse.Namespace, device: torch.device) -> Job:
    """One file of nvc."""
    config = jobs.exactly(PRESETS["fast"], options.passes)
    encode = EncodeOptions(config=config, target=Target(bpp=bpp), seed=options.seed)
    key = {"bench": "rd_gain", "side": "nvc", "clip": source.key, "device": device.type, **jobs.settings(encode)}
    return Job(f"{source.name} nvc {bpp:g} bpp", key, lambda: jobs.encoded(source.clip, encode, device))


def theirs(source: Source, parameters: int, how: published.Settings, device: torch.device) -> Job:
    """All files of one network of the published pipeline that another one does not beat."""

    def run() -> Result:
        trained = published.fit(source.clip, parameters, how, device)
        rows = [row for bits in BITS for row in published.compress(trained, source.clip, bits)]
        points = [asdict(row) for row in rows]
        kept = [point for metric in METRICS for point in pareto(points, metric)]
        return {"points": [point for i, point in enumerate(kept) if point not in kept[:i]], "seconds": trained.seconds}

    key = {"bench": "rd_gain", "side": "published", "clip": source.key, "device": device.type, "parameters": parameters}
    label = f"{source.name} published, {parameters} parameters, lr {how.lr:g}, {how.prune:.0%} pruned"
    return Job(label, {**key, **asdict(how), "bits": BITS}, run)


def network_sizes(source: Source, bpps: Sequence[float]) -> tuple[int, ...]:
    """Decoder parameters whose files span those of nvc's sizes, and reach further."""
    least, most = (bpp * source.pixels / BITS_A_PARAMETER for bpp in (min(bpps), REACH * max(bpps)))
    return tuple(round(least * (most / least) ** (i / (SIZES - 1))) for i in range(SIZES))


def pareto(points: Sequence[Point], metric: str) -> list[Point]:
    """Those points, by bytes, than which none is as small and better: bytes and PSNR both rise."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point["bytes"], -point[metric])):
        if not front or point[metric] > front[-1][metric]:
            front.append(point)
    return front


def envelope(points: Sequence[Point], metric: str, sizes: tuple[float, float]) -> list[Point]:
    """The Pareto front within `sizes` bytes without dents in PSNR over log bytes, as long as LEAST_POINTS are left."""
    curve = pareto([point for point in points if sizes[0] <= point["bytes"] <= sizes[1]], metric)
    while len(curve) > LEAST_POINTS:
        depths = [_dent(curve[i - 1 : i + 2], metric) for i in range(1, len(curve) - 1)]
        if max(depths) < 0:
            break
        del curve[1 + depths.index(max(depths))]
    return curve


def _dent(three: Sequence[Point], metric: str) -> float:
    """How far the middle one of three points lies under the line through the others, in dB."""
    (a, b, c), (u, v, w) = (log2(point["bytes"]) for point in three), (point[metric] for point in three)
    return float(u + (w - u) * (b - a) / (c - a) - v)


def bd_rate(anchor: Sequence[Point], test: Sequence[Point], metric: str, method: str) -> float:
    """Bytes of `test` beside those of `anchor` at equal PSNR, in %; not a number where the curves share no PSNR."""
    try:
        import bjontegaard
    except ImportError:
        raise SystemExit("rd_gain needs the package bjontegaard: pip install bjontegaard") from None
    curves = [([point["bytes"] for point in curve], [point[metric] for point in curve]) for curve in (anchor, test)]
    (anchor_rate, anchor_psnr), (test_rate, test_psnr) = curves
    if min(map(len, (anchor_rate, test_rate))) < LEAST_POINTS:
        return float("nan")
    if max(anchor_psnr[0], test_psnr[0]) >= min(anchor_psnr[-1], test_psnr[-1]):
        return float("nan")
    rate = bjontegaard.bd_rate(
        *(anchor_rate, anchor_psnr, test_rate, test_psnr), method=method, require_matching_points=False, min_overlap=0
    )
    return float(rate)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs.add_arguments(parser, passes=PRESETS["fast"].passes)
    parser.add_argument("--bpp", type=jobs.floats, default=(0.1, 0.17, 0.3, 0.5), help="of nvc's files")
    parser.add_argument("--parameters", type=jobs.integers, help="of the pipeline's networks; by default four that fit --bpp")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device, journal = open_device(options.device), Journal(options.json)
    usual = published.Settings(passes=options.passes, seed=options.seed)
    plans: list[tuple[Source, dict[str, list[Job]]]] = []
    for source in jobs.sources(options):
        sizes = options.parameters or network_sizes(source, options.bpp)
        plan = {"nvc": [ours(source, bpp, options, device) for bpp in options.bpp]}
        for name, ways in SETTINGS.items():
            plan[name] = [theirs(source, size, replace(usual, **how), device) for how in ways for size in sizes]
        plans.append((source, plan))
    jobs.run([job for _, plan in plans for side in plan.values() for job in side], journal, options.part)
    print(f"{jobs.heading(options)}; {options.passes} passes, seed {options.seed}\n")
    gains: list[list[Any]] = []
    for source, plan in plans:
        gains += show(source, plan, journal)
    means = [
        [f"mean over {len(plans)}", name, metric, "", *(mean_of(gains, name, metric, column) for column in (4, 5))]
        for name in SETTINGS
        for metric in METRICS.values()
    ]
    rows = [[*row[:4], *("no overlap" if isnan(rate) else f"{rate:+.1f}" for rate in row[4:])] for row in [*gains, *means]]
    print(jobs.table(("BD-rate of nvc, %", "against", "metric", "dB shared", *METHODS), rows))


def show(source: Source, plan: Mapping[str, Sequence[Job]], journal: Journal) -> list[list[Any]]:
    """Print the curves of a clip; its lines of the table of BD-rates."""
    done = {name: [result for job in side if (result := journal.result(job))] for name, side in plan.items()}
    if not all(done.values()):
        print(f"{source.key}: nothing to compare yet\n")
        return []
    sizes = [result["bytes"] for result in done["nvc"]]
    limits = (min(sizes) / BEYOND, max(sizes) * BEYOND)
    rows = [line("nvc", point, source.pixels) for point in done["nvc"]]
    gains: list[list[Any]] = []
    for name in SETTINGS:
        files = [point for result in done[name] for point in result["points"]]
        rows += [
            line(f"{name}, {point['parameters']} parameters, {point['bits']} bits", point, source.pixels)
            for point in envelope(files, "psnr_611", limits)
        ]
        for metric, title in METRICS.items():
            curves = envelope(files, metric, limits), pareto(done["nvc"], metric)
            first, last = max(curve[0][metric] for curve in curves), min(curve[-1][metric] for curve in curves)
            shared = f"{first:.1f} to {last:.1f}" if first < last else "none"
            gains.append([source.key, name, title, shared, *(bd_rate(*curves, metric, method) for method in METHODS)])
    missing = sum(map(len, plan.values())) - sum(map(len, done.values()))
    print(f"{source.key}{f'; {missing} jobs MISSING' if missing else ''}\n")
    print(jobs.table(("file", "bytes", "bpp", *METRICS.values(), "seconds"), rows))
    return gains


def line(name: str, point: Point, pixels: int) -> list[object]:
    """A line of the table of curves."""
    decibels = (f"{point[metric]:.2f}" for metric in METRICS)
    return [name, point["bytes"], f"{8 * point['bytes'] / pixels:.4f}", *decibels, f"{point['seconds']:.0f}"]


def mean_of(gains: Sequence[Sequence[Any]], name: str, metric: str, column: int) -> float:
    """The mean of a column over the clips."""
    values = [row[column] for row in gains if row[1] == name and row[2] == metric]
    return statistics.fmean(values) if values else float("nan")


if __name__ == "__main__":
    main()
