"""Bjontegaard's delta rate: how many more or fewer bits a codec needs than another at equal quality.

A curve is the points (bits per pixel, quality) of the files that a codec made of a clip. What is done with them:

- PSNR is compared as it is. MS-SSIM and VMAF saturate, so near their upper end equal steps are not equal gains; they are compared
  in decibels of what is missing, -10 log10(1 - MS-SSIM) and -10 log10(1 - VMAF / 100), as "The Bjontegaard Bible"
  (arXiv 2304.12852) advises. It is the mean over frames that is converted.
- A point at the end of its scale carries no information and is left out: PSNR of 99 dB and more (files without an error), MS-SSIM
  from 0.99999, VMAF from 99.9, and for these two also 0.
- Quality has to rise with rate. A point is left out where another with at most as many bits is at least as good, on either side.
- Two points each are needed, and 1 % of the codec's range of quality in common. Otherwise there is no figure but a reason;
  nothing is extrapolated.
- Rates are interpolated in their logarithm over quality by the package `bjontegaard`: PCHIP as in JVET's sheet, Akima beside it.
- A mean is over the figures of clips, never of a curve averaged over clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log10
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream.errors import MachineError

Document = Mapping[str, Any]
Floats = NDArray[np.float64]
LEAST_POINTS = 2  # with two points PCHIP and the package's Akima are both the straight line
LEAST_OVERLAP = 0.01  # below, a figure would say what two ends of curves happen to be, and rounding would show in it
METHODS = ("pchip", "akima")


@dataclass(frozen=True)
class Metric:
    """How a metric is named, printed and compared; scores outside the open interval (low, high) are left out."""

    title: str
    text: str
    low: float
    high: float
    scaled: Callable[[float], float] = float


def _missing(score: float) -> float:
    """Decibels of what a score between 0 and 1 lacks to 1."""
    return -10 * log10(1 - score)


METRICS: Mapping[str, Metric] = {
    "psnr_y": Metric("PSNR-Y", "{:.2f} dB", float("-inf"), 99.0),
    "psnr_611": Metric("PSNR 6:1:1", "{:.2f} dB", float("-inf"), 99.0),
    "ms_ssim": Metric("MS-SSIM", "{:.4f}", 0.0, 0.99999, _missing),
    "vmaf": Metric("VMAF", "{:.1f}", 0.0, 99.9, lambda score: _missing(score / 100)),
    "vmaf_neg": Metric("VMAF-NEG", "{:.1f}", 0.0, 99.9, lambda score: _missing(score / 100)),
    "xpsnr_y": Metric("XPSNR-Y", "{:.2f} dB", float("-inf"), 99.0),
}


@dataclass(frozen=True)
class Curve:
    """Points by rising rate: bits per pixel, score as measured, and quality as it is compared; all three rise strictly."""

    bpp: tuple[float, ...]
    score: tuple[float, ...]
    quality: tuple[float, ...]


@dataclass(frozen=True)
class Delta:
    """BD-rate in percent by both methods, and the share of the codec's range of quality that it speaks of.

    Where too little is in common the rates are None; where a curve is too short all three are None.
    """

    pchip: float | None
    akima: float | None
    overlap: float | None


def curve(runs: Iterable[Document], metric: str) -> Curve:
    """The curve of the runs of one codec on one clip, in any order; runs without the metric are left out."""
    how = METRICS[metric]
    scores = [(run["bpp"], run["quality"][metric]["mean"]) for run in runs if metric in run["quality"]]
    kept: list[tuple[float, float, float]] = []
    for bpp, score in sorted(scores, key=lambda point: (point[0], -point[1])):
        if how.low < score < how.high and (not kept or how.scaled(score) > kept[-1][2]):
            kept.append((bpp, score, how.scaled(score)))
    return Curve(*(tuple(point[i] for point in kept) for i in range(3)))


def delta(anchor: Curve, codec: Curve) -> Delta:
    """BD-rate of `codec` against `anchor`; negative: `codec` needs fewer bits.

    Raises MachineError("extra") where the package bjontegaard is missing.
    """
    if min(len(anchor.bpp), len(codec.bpp)) < LEAST_POINTS:
        return Delta(None, None, None)
    overlap = shared(anchor, codec)
    if overlap < LEAST_OVERLAP:
        return Delta(None, None, overlap)
    rate = _package().bd_rate
    points = (anchor.bpp, anchor.quality, codec.bpp, codec.quality)
    pchip, akima = (float(rate(*points, method=method, require_matching_points=False, min_overlap=0)) for method in METHODS)
    return Delta(pchip, akima, overlap)


def shared(anchor: Curve, codec: Curve) -> float:
    """The share of the codec's range of quality that the anchor's curve has too: 0 to 1.

    Not of both ranges together, which is what the package warns of: an anchor's ladder is long on purpose.
    """
    common = min(anchor.quality[-1], codec.quality[-1]) - max(anchor.quality[0], codec.quality[0])
    return max(0.0, common) / (codec.quality[-1] - codec.quality[0])


def difference(anchor: Curve, codec: Curve, samples: int = 65) -> tuple[Floats, Floats] | None:
    """The bits of `codec` beside those of `anchor`, in percent more, over the quality that both have, by PCHIP.

    Gives `samples` qualities (in the scale that is compared: dB) and as many percentages; None where `delta` has no figure.
    """
    if min(len(anchor.bpp), len(codec.bpp)) < LEAST_POINTS or shared(anchor, codec) < LEAST_OVERLAP:
        return None
    points = (anchor.bpp, anchor.quality, codec.bpp, codec.quality)
    figures = _package().bd_rate(*points, method="pchip", require_matching_points=False, interpolators=True, min_overlap=0)
    _, of_anchor, of_codec = figures
    ends = max(anchor.quality[0], codec.quality[0]), min(anchor.quality[-1], codec.quality[-1])
    qualities = np.linspace(*ends, samples)
    return qualities, 100 * (10 ** (of_codec(qualities) - of_anchor(qualities)) - 1)


def rows(results: Document) -> list[dict[str, Any]]:
    """The rows of `bd` in results.json from its clips, codecs and runs.

    Of every clip in their order, then of the mean (clip None): every codec of nvc against every anchor by every one of METRICS.
    BD-rates are rounded to 2 decimals, shares to 4.
    """
    clips = [clip["name"] for clip in results["clips"]]
    codecs, anchors = ([codec for codec in results["codecs"] if codec["kind"] == kind] for kind in ("nvc", "anchor"))
    runs: dict[tuple[str, str], list[Document]] = {}
    for run in results["runs"]:
        runs.setdefault((run["clip"], run["codec"]), []).append(run)
    pairs = [(codec, anchor, metric) for codec in codecs for anchor in anchors for metric in METRICS]
    found: list[dict[str, Any]] = []
    figures: dict[int, list[Delta]] = {}
    for clip in clips:
        for number, (codec, anchor, metric) in enumerate(pairs):
            of_anchor, of_codec = (curve(runs.get((clip, each["id"]), ()), metric) for each in (anchor, codec))
            figure = delta(of_anchor, of_codec)
            figures.setdefault(number, []).append(figure)
            reason = _reason(figure, METRICS[metric], {codec["label"]: of_codec, anchor["label"]: of_anchor})
            found.append(_row(clip, pairs[number], figure, int(figure.pchip is not None), reason))
    return found + [_mean(pair, figures.get(number, [])) for number, pair in enumerate(pairs)]


def _row(clip: str | None, pair: tuple[Document, Document, str], figure: Delta, clips: int, reason: str) -> dict[str, Any]:
    codec, anchor, metric = pair
    return {
        "clip": clip,
        "codec": codec["id"],
        "anchor": anchor["id"],
        "metric": metric,
        "pchip": _rounded(figure.pchip, 2),
        "akima": _rounded(figure.akima, 2),
        "overlap": _rounded(figure.overlap, 4),
        "clips": clips,
        "reason": reason,
    }


def _mean(pair: tuple[Document, Document, str], figures: Sequence[Delta]) -> dict[str, Any]:
    have = [(each.pchip, each.akima, each.overlap) for each in figures if None not in (each.pchip, each.akima, each.overlap)]
    if not have:
        return _row(None, pair, Delta(None, None, None), 0, "no clip has a figure")
    pchip, akima, overlap = zip(*have, strict=True)
    return _row(None, pair, Delta(fmean(pchip), fmean(akima), min(overlap)), len(have), "")


def _reason(figure: Delta, metric: Metric, curves: Mapping[str, Curve]) -> str:
    """Why there is no figure, in one line with the names of the two; empty where there is one."""
    if figure.pchip is not None:
        return ""
    if figure.overlap is None:
        short = [f"{name} has {_counted(len(one.bpp))}" for name, one in curves.items() if len(one.bpp) < LEAST_POINTS]
        return f"{' and '.join(short)} of {metric.title}; {LEAST_POINTS} are needed"
    ranges = [f"{name} {metric.text.format(one.score[0])} to {metric.text.format(one.score[-1])}" for name, one in curves.items()]
    return f"{'under 1 % of' if figure.overlap else 'no'} {metric.title} in common: {', '.join(ranges)}"


def _counted(points: int) -> str:
    return f"{points or 'no'} usable point{'' if points == 1 else 's'}"


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits) + 0.0  # no -0.0


def _package() -> Any:
    try:
        import bjontegaard
    except ImportError as error:
        message = "BD-rates need the package bjontegaard: pip install 'nvc-codec[report]'"
        raise MachineError("extra", message) from error
    return bjontegaard
