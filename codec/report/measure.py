"""How near a video comes to its reference: each score of each frame, their mean, minimum, 5th percentile and pooled value."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream.errors import ComparisonError, UsageError

from ..metrics import ms_ssim, plane_mse, psnr
from ..video import ReadOptions
from .alignment import Alignment, Names
from .filters import RGB_LABEL, Series, libvmaf_ms_ssim, run_filters
from .frames import Frame, FrameReader, Video, open_video

METRICS = ("psnr", "ms_ssim", "vmaf", "xpsnr", "rgb")
_SMALLEST_SSIM = 11  # ssim.WINDOW, which would import torch
_DECIMALS = {"ms_ssim": 6}


@dataclass(frozen=True)
class Measured:
    """What comparing one video with its reference gave.

    `scores`: per-frame values (T,) by metric id; psnr_* and xpsnr_* in dB, vmaf and vmaf_neg 0 to 100, ms_ssim at most 1.
    `squares`: mean squared errors (T,) of the psnr_* that have one, of which `quality` pools. `peaks`: their largest samples.
    """

    width: int
    height: int
    frames: int
    pix_fmt: str  # in which the two were compared
    file_bytes: int | None  # of the distorted file; None of a folder of pictures
    scores: Series
    squares: Series = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def bpp(self) -> float | None:
        """Bits of the whole file per luma sample."""
        return None if self.file_bytes is None else 8 * self.file_bytes / (self.width * self.height * self.frames)

    def quality(self) -> dict[str, dict[str, float | None]]:
        """{metric: {mean, min, p5, pooled}} as results.json has it: 4 decimals, of ms_ssim 6; `pooled` is None but of PSNR."""
        return {name: self._summary(name, values) for name, values in self.scores.items()}

    def _summary(self, name: str, values: NDArray[np.float64]) -> dict[str, float | None]:
        figures = {"mean": values.mean(), "min": values.min(), "p5": np.percentile(values, 5), "pooled": self._pooled(name)}
        places = _DECIMALS.get(name, 4)
        return {key: None if value is None else round(float(value), places) for key, value in figures.items()}

    def _pooled(self, name: str) -> float | None:
        if name == "psnr_611":
            planes = [self._pooled(f"psnr_{plane}") for plane in ("y", "cb", "cr")]
            luma, cb, cr = (value or 0.0 for value in planes)
            return (6 * luma + cb + cr) / 8
        return psnr(float(self.squares[name].mean()), self.peaks[name]) if name in self.squares else None

    def per_frame(self) -> dict[str, list[float]]:
        """The scores of every frame, rounded as in `quality`."""
        return {name: [round(float(value), _DECIMALS.get(name, 4)) for value in values] for name, values in self.scores.items()}


def measure(
    reference: str,
    distorted: str,
    options: ReadOptions | None = None,
    metrics: Collection[str] = METRICS,
    progress: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Compare two videos, in the pixel format of the first; `options` choose frames, crop and scale of the reference.

    Each may be whatever ffmpeg reads, an .nvc file, a folder of pictures, or "-". `progress` is told the frames compared so far.
    ComparisonError `format`, `size`, `frames`, `range`, `shift` or `order` where they are not the same frames; then there
    is no figure at all. Other errors as read_clip and `nvc decode`; UsageError `metrics` for an unknown group.
    """
    check_metrics(metrics)
    with open_video(reference, options) as first, open_video(distorted, like=first) as second:
        return measure_videos(first, second, metrics, progress)


def check_metrics(metrics: Collection[str]) -> None:
    """UsageError where there is none or an unknown one."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise UsageError("metrics", f"metrics {', '.join(unknown) or 'none'}: choose from {', '.join(METRICS)}")


def measure_videos(
    reference: Video, distorted: Video, metrics: Collection[str] = METRICS, progress: Callable[[int], None] = lambda _: None
) -> Measured:
    """The same of two open videos; `distorted` was opened like `reference`."""
    form = reference.format
    want_psnr = "psnr" in metrics or ("rgb" in metrics and form.rgb)
    plain = _Plain(reference, want_psnr, "ms_ssim" in metrics and not libvmaf_ms_ssim(reference))
    readers = FrameReader(reference), FrameReader(distorted)
    alignment = Alignment(Names(reference.label, distorted.label), form.depth)
    count = 0
    for a, b in zip_longest(*readers):
        if a is None or b is None:
            continue  # to the end, so that the message tells by how much
        alignment.add(a[0], b[0])
        plain.add(a, b)
        count += 1
        progress(count)
    _check_counts(reference, distorted, readers[0].count, readers[1].count)
    alignment.check((readers[0].full_range, readers[1].full_range))
    filtered, filter_notes = run_filters(reference, distorted, metrics, count)
    scores, squares, peaks = plain.result()
    if "mse_rgb" in filtered:
        squares["psnr_rgb"], peaks["psnr_rgb"] = filtered.pop("mse_rgb"), 255
        scores["psnr_rgb"] = np.array([psnr(value) for value in squares["psnr_rgb"]])
        filter_notes += (f"psnr_rgb is {RGB_LABEL}",)
    notes = (*reference.notes, *distorted.notes, *readers[0].notes, *readers[1].notes, *plain.notes, *filter_notes)
    size = distorted.file_bytes
    shape = reference.width, reference.height, count, form.name
    return Measured(*shape, size, {**scores, **filtered}, squares, peaks, tuple(dict.fromkeys(notes)))


def _check_counts(reference: Video, distorted: Video, expected: int, count: int) -> None:
    if count != expected:
        difference = f"{abs(count - expected)} {'more' if count > expected else 'fewer'}"
        raise ComparisonError(
            "frames", f"{distorted.label}: has {count} frames, {difference} than {reference.label} with {expected}; see --frames"
        )


class _Plain:
    """What is computed here, from the planes themselves: PSNR, and MS-SSIM where libvmaf has none."""

    def __init__(self, video: Video, want_psnr: bool, want_ms_ssim: bool) -> None:
        self._format = video.format
        self._psnr = want_psnr
        self._similar: list[float] = []
        self._errors: list[list[float]] = []
        self.notes: tuple[str, ...] = ()
        self._ms_ssim = want_ms_ssim and min(video.width, video.height) >= _SMALLEST_SSIM
        if want_ms_ssim:
            size = f"{video.width}x{video.height} {video.format.name}"
            own = f"MS-SSIM by nvc, with as many scales as fit: libvmaf has none for {size}"
            self.notes = (own if self._ms_ssim else f"no MS-SSIM: a side of {size} is under {_SMALLEST_SSIM} samples",)

    def add(self, a: Frame, b: Frame) -> None:
        """The next frame of the reference and of the other."""
        if self._psnr:
            self._errors.append([plane_mse(x, y) for x, y in zip(a, b, strict=True)])
        if self._ms_ssim:
            planes = zip(a, b, strict=True) if self._format.rgb else [(a[0], b[0])]
            self._similar.append(float(np.mean([ms_ssim(x[None], y[None], self._format.peak)[0] for x, y in planes])))

    def result(self) -> tuple[Series, Series, dict[str, int]]:
        """Scores, squares and peaks as Measured has them."""
        scores: Series = {}
        squares: Series = {}
        if self._psnr:
            errors = np.array(self._errors).T
            if self._format.rgb:
                squares = {"psnr_rgb": errors.mean(0)}
            else:
                squares = {f"psnr_{plane}": row for plane, row in zip(self._format.planes, errors, strict=True)}
            scores = {name: np.array([psnr(value, self._format.peak) for value in row]) for name, row in squares.items()}
            if "psnr_cb" in scores:
                scores["psnr_611"] = (6 * scores["psnr_y"] + scores["psnr_cb"] + scores["psnr_cr"]) / 8
        if self._ms_ssim:
            scores["ms_ssim"] = np.array(self._similar)
        return scores, squares, dict.fromkeys(squares, self._format.peak)
