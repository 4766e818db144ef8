"""VMAF, VMAF-NEG, MS-SSIM, XPSNR and the RGB PSNR of papers, frame by frame, by ffmpeg's own filters.

Both inputs are numbered anew, so frames meet by index whatever their time stamps say. What an ffmpeg lacks gives a note.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ffmpeg import FFmpeg
from ..probe import INPUT_ARGS, MATRICES
from .formats import PixelFormat
from .frames import RANGE_NAMES, Video

Series = dict[str, NDArray[np.float64]]

RGB_LABEL = (
    "INR-paper compatible: both videos made rgb24 by ffmpeg's default scaler (format=rgb24, bicubic), with the colour matrix and "
    "range of the reference; mean of the frames' PSNR over all three channels"
)
# From here on libvmaf's float_ms_ssim has a picture to work on in the coarsest of its five scales.
MS_SSIM_SIDE = 176
_VMAF_FORMATS = re.compile(r"yuv4(20|22|44)p(10le)?")
# Its blocks have 4 sqrt(samples / 8100) samples a side, rounded to fours. Where that is none, ffmpeg's filter gives a plain PSNR,
# above 8 bits a wrong one.
XPSNR_SAMPLES = 2025
_XPSNR_FORMATS = re.compile(r"yuv4(20|22|44)p(1[02]le)?|gray(1[02]le)?")
_MS_SSIM = "float_ms_ssim"
_NUMBERED = "settb=1/25,setpts=N"  # any constant clock will do
_XPSNR_LINE = re.compile(r"^n: *(\d+) +XPSNR y: *(\S+)(?: +XPSNR u: *(\S+) +XPSNR v: *(\S+))?", re.MULTILINE)
_MODELS = {"vmaf": "vmaf_v0.6.1", "vmaf_neg": "vmaf_v0.6.1neg"}
_MSE_LINE = re.compile(r"^n: *(\d+) .*?\bmse_r:(\S+) mse_g:(\S+) mse_b:(\S+)", re.MULTILINE)
_IDENTICAL_XPSNR = 100.0  # where the filter prints inf; metrics.IDENTICAL_DB says why


@dataclass(frozen=True)
class _Measurement:
    """One filter: what it needs, and how its log is read."""

    name: str  # in notes
    filter: str
    log: str  # the file it writes
    read: Callable[[str], Series]
    before: str = ""  # on both inputs, behind their own chain
    reference_first: bool = False


def vmaf_reason(form: PixelFormat) -> str:
    """Why there is no VMAF of this format; empty where there is."""
    return "" if _VMAF_FORMATS.fullmatch(form.name) else f"no VMAF: it is defined for YUV of 8 or 10 bits, not for {form.name}"


def libvmaf_ms_ssim(video: Video) -> bool:
    """Whether libvmaf measures MS-SSIM of such frames."""
    return not vmaf_reason(video.format) and min(video.width, video.height) >= MS_SSIM_SIDE


def run_filters(reference: Video, distorted: Video, metrics: Iterable[str], count: int) -> tuple[Series, tuple[str, ...]]:
    """Scores per frame, (count,) each, of those of the groups ms_ssim, vmaf, xpsnr and rgb that apply; and notes.

    Keys are vmaf, vmaf_neg, ms_ssim, xpsnr_y, xpsnr_cb, xpsnr_cr and mse_rgb, the mean squared error of 8-bit RGB.
    """
    wanted, notes = _measurements(reference, set(metrics))
    if not wanted:
        return {}, tuple(notes)
    found, failed = _run(reference, distorted, wanted, count)
    if failed and len(wanted) > 1:  # one that fails takes all with it: each alone
        found, failed = {}, []
        for measurement in wanted:
            series, failures = _run(reference, distorted, [measurement], count)
            found |= series
            failed += failures
    return found, (*notes, *failed)


def _measurements(reference: Video, metrics: set[str]) -> tuple[list[_Measurement], list[str]]:
    form, wanted, notes = reference.format, [], []
    arguments: list[str] = []
    keys: list[str] = []
    if "vmaf" in metrics:
        if reason := vmaf_reason(form):
            notes.append(reason)
        else:
            arguments.append("model='" + "|".join(f"version={model}\\:name={name}" for name, model in _MODELS.items()) + "'")
            keys += _MODELS
    if "ms_ssim" in metrics and libvmaf_ms_ssim(reference):
        arguments.append(f"feature=name={_MS_SSIM}")
        keys.append(_MS_SSIM)
    if arguments:
        wanted.append(_libvmaf(arguments, keys))
    if "xpsnr" in metrics:
        if reason := _xpsnr_reason(reference):
            notes.append(reason)
        else:
            # it weighs blocks by the activity of its first input, so that must be the original; libvmaf wants it second
            xpsnr = "xpsnr=stats_file=xpsnr.log"
            wanted.append(_Measurement("XPSNR", xpsnr, "xpsnr.log", _read_xpsnr, reference_first=True))
    if "rgb" in metrics and form.planes == ("y", "cb", "cr"):
        before = f"setparams={_colours(reference)},format=rgb24"
        wanted.append(_Measurement("RGB PSNR", "psnr=stats_file=rgb.log", "rgb.log", _read_mse, before))
    return wanted, notes


def _libvmaf(arguments: list[str], keys: list[str]) -> _Measurement:
    name = ", ".join(key.removeprefix("float_").upper().replace("_", "-") for key in keys)
    options = ":".join([*arguments, f"n_threads={os.cpu_count() or 1}", "log_fmt=json", "log_path=vmaf.json"])
    return _Measurement(name, f"libvmaf={options}", "vmaf.json", lambda text: _read_libvmaf(text, keys))


def _xpsnr_reason(video: Video) -> str:
    if not _XPSNR_FORMATS.fullmatch(video.format.name):
        return f"no XPSNR: ffmpeg's filter does not take {video.format.name}"
    small = video.width * video.height < XPSNR_SAMPLES
    return f"no XPSNR: {video.width}x{video.height} is too small for its weights" if small else ""


def _colours(video: Video) -> str:
    names = {number: name for name, number in MATRICES.items()}
    full_range = RANGE_NAMES.get(video.full_range, "unknown")
    return f"range={full_range}:colorspace={names.get(video.matrix, 'unknown')}"


def _run(reference: Video, distorted: Video, wanted: list[_Measurement], count: int) -> tuple[Series, list[str]]:
    """What one ffmpeg with these filters measures, and a line for each of which that failed."""
    with tempfile.TemporaryDirectory(prefix="nvc-") as folder:
        args = [*_input(distorted), *_input(reference), "-filter_complex", _graph(reference, distorted, wanted)]
        for number in range(len(wanted)):
            args += ["-map", f"[out{number}]", "-fps_mode", "passthrough", "-f", "null", "-"]
        with FFmpeg(args, cwd=folder) as ffmpeg:  # in it, so that the names of the logs need no escape
            status = ffmpeg.wait()
            failure = ffmpeg.failure() if status else ""
        found: Series = {}
        failed = []
        for measurement in wanted:
            series = {} if status else _read(os.path.join(folder, measurement.log), measurement)
            if series and all(len(values) == count for values in series.values()):
                found |= series
            else:
                lengths = sorted({len(values) for values in series.values()})
                reason = failure or (f"it gave {lengths} results for {count} frames" if series else "its results cannot be read")
                failed.append(f"no {measurement.name}: {reason}")
    return found, failed


def _input(video: Video) -> list[str]:
    return [*INPUT_ARGS, "-noautorotate", *video.inputs]


def _graph(reference: Video, distorted: Video, wanted: list[_Measurement]) -> str:
    parts = []
    for number, (letter, video) in enumerate((("d", distorted), ("r", reference))):
        ends = "".join(f"[{letter}{end}]" for end in range(len(wanted)))
        parts.append(f"[{number}:V:0]{video.chain},{_NUMBERED},split={len(wanted)}{ends}")
    for end, measurement in enumerate(wanted):
        main, second = f"[d{end}]", f"[r{end}]"
        if measurement.before:
            parts += [f"{side}{measurement.before}{side[:-1]}c]" for side in (main, second)]
            main, second = f"[d{end}c]", f"[r{end}c]"
        pair = second + main if measurement.reference_first else main + second
        parts.append(f"{pair}{measurement.filter}[out{end}]")
    return ";".join(parts)


def _read(path: str, measurement: _Measurement) -> Series:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return measurement.read(file.read())
    except (OSError, ValueError):
        return {}


def _read_libvmaf(text: str, keys: Iterable[str]) -> Series:
    """The scores `keys` of libvmaf's JSON; ValueError where it is not such."""
    try:
        frames = [frame["metrics"] for frame in json.loads(text)["frames"]]
        series = {key.removeprefix("float_"): np.array([float(frame[key]) for frame in frames]) for key in keys}
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a log of libvmaf: {error}") from error
    return _finite(series)


def _read_xpsnr(text: str) -> Series:
    """The values of XPSNR's stats file; ValueError where it is not such."""
    lines = _in_order(_XPSNR_LINE.findall(text))
    columns = zip(("xpsnr_y", "xpsnr_cb", "xpsnr_cr"), zip(*lines, strict=True), strict=False)
    names = [name for name, column in columns if all(column)]  # gray has the first alone
    values = {name: np.array([float(line[place]) for line in lines]) for place, name in enumerate(names)}
    return _finite({name: np.minimum(series, _IDENTICAL_XPSNR) for name, series in values.items()})


def _read_mse(text: str) -> Series:
    """The mean squared error over the channels, of the psnr filter's stats file; ValueError where it is not such."""
    lines = _in_order(_MSE_LINE.findall(text))
    return _finite({"mse_rgb": np.array([sum(map(float, line)) / 3 for line in lines])})


def _in_order(matches: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The values of lines that are numbered from 1 on."""
    if [int(number) for number, *_ in matches] != list(range(1, len(matches) + 1)):
        raise ValueError("frames are missing or out of order")
    return [tuple(values) for _, *values in matches]


def _finite(series: Series) -> Series:
    if not all(np.isfinite(values).all() for values in series.values()):
        raise ValueError("a value is not finite")
    return series
