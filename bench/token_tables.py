"""The tables of tokens.py: dB and BD-rate beside an anchor, over clips, rates and seeds, and what the files hold."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log2
from typing import Any

import jobs
import rd_gain
from jobs import Result

from nvc.codec.search import DECIBELS

Case = tuple[str, str, str, int]
"""Clip, rate, variant, seed."""


def gain(own: Result, other: Result) -> float:
    """dB beside `other` at its bytes; without bytes, of what is no file, simply dB."""
    difference = float(own["psnr_611"] - other["psnr_611"])
    return difference - DECIBELS * log2(own["bytes"] / other["bytes"]) if "bytes" in own else difference


def spread(values: Sequence[float], form: str = "+.2f") -> str:
    """Mean, and the sample standard deviation of more than one."""
    if not values:
        return "not run"
    deviation = f" ± {statistics.stdev(values):{form.removeprefix('+')}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{deviation}"


@dataclass(frozen=True)
class Outcome:
    """The results of a part so far, and the axes of its tables."""

    results: Mapping[Case, Result]
    anchor: str
    names: Sequence[str]
    rates: Sequence[str]
    seeds: Sequence[int]

    def differences(self, clips: Sequence[str]) -> str:
        """The table of dB beside the anchor, at each rate and in the mean, and of BD-rate where there are rates enough."""
        several, curve = len(self.rates) > 1, len(self.rates) >= rd_gain.LEAST_POINTS
        columns = [f"dB beside {self.anchor}, {rate}" for rate in self.rates] + ["mean dB"] * several
        columns += ["BD-rate, %", "BD-rates"] * curve
        rows = []
        for name in self.names:
            runs = [[self._pair(clip, rate, name, seed) for rate in self.rates] for clip in clips for seed in self.seeds]
            gains = [[gain(*pair) if pair else None for pair in run] for run in runs]
            whole = [[pair for pair in run if pair] for run in runs if all(run)]
            row = [name, *(spread([value for value in at if value is not None]) for at in zip(*gains, strict=True))]
            if several:
                row.append(spread([statistics.fmean(gain(*pair) for pair in run) for run in whole]))
            if curve:
                rates = [bd_rate(run) for run in whole]
                row.append(spread([rate for rate in rates if isfinite(rate)], "+.1f"))
                row.append(", ".join(f"{rate:+.1f}" if isfinite(rate) else "no common PSNR" for rate in rates))
            done, wanted = sum(value is not None for value in itertools.chain(*gains)), len(runs) * len(self.rates)
            rows.append([*row, f"{done}" if done == wanted else f"{done} of {wanted}"])
        return jobs.table(("", *columns, "fits"), rows)

    def _pair(self, clip: str, rate: str, name: str, seed: int) -> tuple[Result, Result] | None:
        own, other = (self.results.get((clip, rate, which, seed)) for which in (name, self.anchor))
        return (own, other) if own and other else None

    def files(self, clip: str) -> str:
        """The table of a clip's files: means over seeds, sizes in bytes."""
        columns = ("rate", "bytes", "off target, %", "6:1:1", "PSNR-Y", "seconds")
        rows = []
        for rate, name in itertools.product(self.rates, (self.anchor, *self.names)):
            found = [self.results.get((clip, rate, name, seed)) for seed in self.seeds]
            done = [result for result in found if result]
            if not done:
                continue
            sizes = (mean(done, *at) for at in (("sections", "embeddings"), ("sections", "codebook"), ("sections", "tokens")))
            rows.append(
                [
                    *(name, rate, f"{mean(done, 'bytes'):.0f}"),
                    f"{statistics.fmean(100 * (result['bytes'] / result['target'] - 1) for result in done):+.2f}",
                    spread([result["psnr_611"] for result in done], ".2f"),
                    *(f"{mean(done, 'psnr_y'):.2f}", f"{mean(done, 'seconds'):.0f}", *(f"{size:.0f}" for size in sizes)),
                    *(f"{mean(done, 'tokens'):.0f}", f"{mean(done, 'bits_per_token'):.2f}"),
                    *(f"{mean(done, 'codebook_levels'):.0f}", f"{mean(done, 'codebook_rows'):.0f}"),
                    *(f"{100 * mean(done, 'codebook_usage'):.1f}", f"{mean(done, 'perplexity'):.1f}"),
                ]
            )
        parts = ("embedding bytes", "codebook bytes", "token bytes")
        figures = ("tokens", "bits a token", "codes", "rows sent", "usage, %", "perplexity")
        return jobs.table(("", *columns, *parts, *figures), rows)

    def fits(self, clip: str) -> str:
        """The table of what is no file: PSNR in the mean over seeds."""
        rows = []
        for rate, name in itertools.product(self.rates, (self.anchor, *self.names)):
            found = [self.results.get((clip, rate, name, seed)) for seed in self.seeds]
            rows.append([name, rate, *(spread([r[key] for r in found if r], ".2f") for key in ("psnr_611", "psnr_y"))])
        return jobs.table(("", "rate", "6:1:1", "PSNR-Y"), rows)


def mean(results: Sequence[Result], *path: str) -> float:
    """Of the value that `path` leads to."""
    values: list[Any] = list(results)
    for name in path:
        values = [value[name] for value in values]
    return statistics.fmean(values)


def bd_rate(run: Sequence[tuple[Result, Result]]) -> float:
    """Of one clip and seed, in %: bytes beside the anchor's at equal PSNR; not a number where the curves share none."""
    own, other = (rd_gain.pareto(side, "psnr_611") for side in zip(*run, strict=True))
    return rd_gain.bd_rate(other, own, "psnr_611", "pchip")
