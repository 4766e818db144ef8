"""What this machine can do for nvc: its packages, its ffmpeg, its torch and whether that computes exactly.

Everything is tried, not only looked up. Nothing that is broken stops the rest from being told, so packages are imported where
they are tried, and any exception of theirs is a finding.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from nvc.bitstream.errors import MachineError

from .config import REPORT_PACKAGES, VERSION

NEEDED = ("numpy", "constriction", "msgpack", "zstandard")
FILTERS = ("showinfo", "scale", "format", "setparams")  # every video is read or written through these
# What is lost without an encoder, a filter or a model of libvmaf's.
ENCODER_FEATURES = {
    "ffv1": "nvc decode to .mkv, nvc report",
    "libx264": "nvc decode to .mp4, x264 in nvc report",
    "libx265": "x265 in nvc report",
    "libsvtav1": "SVT-AV1 in nvc report",
}
FILTER_FEATURES = {"psnr": "RGB PSNR", "xpsnr": "XPSNR", "libvmaf": "VMAF, VMAF-NEG, MS-SSIM of large pictures"}
MODEL_FEATURES = {"vmaf_v0.6.1": "VMAF", "vmaf_v0.6.1neg": "VMAF-NEG"}

# Convolutions of the kinds that decoders have: inputs (N, I, H, W), weights (O, I / groups, kh, kw), groups.
GEOMETRIES = (
    ((2, 16, 18, 32), (24, 16, 3, 3), 1),
    ((2, 64, 9, 16), (12, 64, 1, 1), 1),
    ((1, 12, 36, 64), (12, 1, 5, 5), 12),
)
_REASON_CHARS = 200


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool | None
    """None where there is nothing to fault: what is not there need not be, or cannot be tried because of another finding."""
    required: bool
    """nvc does not work without it; else only what `hint` names is lost."""
    detail: str
    """What was found: a version, a place, or the reason why not."""
    hint: str = ""
    """What is lost and what to do, where `ok` is false."""


def examine() -> list[Check]:
    """All findings, in the order in which they are best read."""
    python = [Check("nvc", True, True, VERSION), Check("python", True, True, platform.python_version())]
    needed = [_package(name, "", required=True) for name in NEEDED]
    extra = [_package(name, "nvc report", required=False) for name in REPORT_PACKAGES]
    return [*python, *needed, *_torch(), *_ffmpeg(), *extra]


def lacking(checks: list[Check]) -> list[str]:
    """The names of what is required and is not right."""
    return [check.name for check in checks if check.required and check.ok is False]


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {text}"[:_REASON_CHARS]


def _package(name: str, feature: str, required: bool) -> Check:
    remedy = f"pip install {name}" if required else "pip install 'nvc-codec[report]'"
    lost = "" if required else f"without it no {feature}; "
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = "missing" if error.name == name else f"broken: {_reason(error)}"
        return Check(name, False, required, missing, lost + remedy)
    except Exception as error:
        return Check(name, False, required, f"broken: {_reason(error)}", f"{lost}{remedy} --force-reinstall")
    return Check(name, True, required, _version(name, module))


def _version(name: str, module: ModuleType) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(module, "__version__", "version unknown"))


# ---- torch


def _torch() -> Iterator[Check]:
    found = _package("torch", "", required=True)
    if not found.ok:
        yield found
        return
    torch: Any = importlib.import_module("torch")
    try:
        detail = f"{found.detail}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    except Exception as error:
        yield Check("torch", False, True, f"broken: {_reason(error)}", "pip install torch --force-reinstall")
        return
    yield Check("torch", True, True, detail)
    yield _exact("cpu", required=True)
    try:
        yield from _cuda(torch)
    except Exception as error:
        yield Check("cuda", False, False, f"broken: {_reason(error)}", "without it nvc computes on the CPU: --device cpu")


def _cuda(torch: Any) -> list[Check]:
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        return [Check("cuda", None, False, f"no device ({built}): everything runs on the CPU")]
    checks = []
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        checks.append(Check(f"cuda:{number}", True, False, f"{device.name}, {device.total_memory / 2**30:.1f} GiB"))
        checks.append(_exact(f"cuda:{number}", required=False))
    return checks


def _exact(device: str, required: bool) -> Check:
    """Whether the decoder's convolutions are those of integers on a device, and by how many of the library's own kernels."""
    name, hint = f"exact on {device}", "decoded frames would not verify: use another version of torch"
    if not required:
        hint = "files cannot be decoded there: use --device cpu"
    try:
        right, fast = _exact_convolutions(device)
    except Exception as error:
        return Check(name, False, required, f"fails: {_reason(error)}", hint)
    count = len(GEOMETRIES)
    if right < count:
        return Check(name, False, required, f"{count - right} of {count} convolutions are wrong", hint)
    slower = "" if fast == count else f", {count - fast} only by the slower path"
    return Check(name, True, required, f"{count} of {count} convolutions are right{slower}")


def _exact_convolutions(device: str) -> tuple[int, int]:
    """Of GEOMETRIES on a device: how many the decoder computes as integers, and for how many it trusts the library's kernel."""
    import numpy as np
    import torch

    from . import exact

    right = fast = 0
    for shape, kernel, groups in GEOMETRIES:
        generator = np.random.default_rng(0)
        largest = min(exact.WEIGHT_MAX, 2**24 // (2047 * kernel[1] * kernel[2] * kernel[3]))
        x = generator.choice([-2047, 2047], shape)
        weight = generator.choice([-largest, largest], kernel)
        rows, columns = kernel[2] // 2, kernel[3] // 2
        padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel[2:], axis=(2, 3))
        parts = zip(np.split(windows, groups, axis=1), np.split(weight, groups), strict=True)
        wanted = np.concatenate([np.einsum("nihwab,oiab->nohw", window, part) for window, part in parts], axis=1)
        with exact.pinned():
            on = [torch.from_numpy(array).float().to(device) for array in (x, weight, np.zeros(kernel[0]))]
            convolve = exact.choose(shape, on[1], on[2], groups)
            right += bool(np.array_equal(convolve(on[0], on[1], on[2], groups).cpu().numpy(), wanted))
        fast += convolve is exact.fast
    return right, fast


# ---- ffmpeg


def _ffmpeg() -> Iterator[Check]:
    given = os.environ.get("IMAGEIO_FFMPEG_EXE")
    try:
        from . import abilities, ffmpeg

        exe = ffmpeg.ffmpeg_exe()
        yield Check("ffmpeg", True, True, f"{abilities.version()}, {_origin(exe)}: {exe}")
    except Exception as error:
        reason = str(error) if isinstance(error, MachineError) else _reason(error)
        other = "unset IMAGEIO_FFMPEG_EXE, or let it name an ffmpeg that runs"
        yield Check("ffmpeg", False, True, reason, other if given else "pip install imageio-ffmpeg --force-reinstall")
        return
    remedy = "unset IMAGEIO_FFMPEG_EXE to use the bundled ffmpeg" if given else "set IMAGEIO_FFMPEG_EXE to an ffmpeg that has it"
    try:
        encoders, filters = abilities.names("encoders"), abilities.names("filters")
    except MachineError as error:
        yield Check("ffmpeg lists", False, True, str(error), remedy)
        return
    yield _reading(remedy)
    for name in FILTERS:
        yield _listed("filter", name, filters, "", remedy)
    for name, feature in ENCODER_FEATURES.items():
        yield _listed("encoder", name, encoders, feature, remedy)
    for name, feature in FILTER_FEATURES.items():
        yield _listed("filter", name, filters, feature, remedy)
    for model, feature in MODEL_FEATURES.items():
        yield _model(model, feature, "libvmaf" in filters, remedy)


def _origin(exe: str) -> str:
    import imageio_ffmpeg

    if os.environ.get("IMAGEIO_FFMPEG_EXE"):
        return "from IMAGEIO_FFMPEG_EXE"
    package = os.path.dirname(os.path.abspath(imageio_ffmpeg.__file__))
    return "bundled" if exe.startswith(package + os.sep) else "found on this machine"


def _listed(kind: str, name: str, names: frozenset[str], feature: str, remedy: str) -> Check:
    """Whether an ffmpeg has an encoder or a filter; what has no `feature` of its own is required."""
    if name in names:
        return Check(f"{kind} {name}", True, not feature, "there")
    lost = f"without it no {feature}; " if feature else ""
    return Check(f"{kind} {name}", False, not feature, "missing", lost + remedy)


def _reading(remedy: str) -> Check:
    """Whether two frames come through as every video that nvc reads does."""
    from .ffmpeg import FFmpeg

    name, frame = "reading video", bytes(16 * 16 * 3 // 2)
    source = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "16x16", "-i", "pipe:0"]
    chain = ["-vf", "showinfo=checksum=0,scale=8:8,format=yuv420p", "-fps_mode", "passthrough"]
    with FFmpeg([*source, *chain, "-f", "rawvideo", "pipe:1"], stdin=True, stdout=True) as ffmpeg:
        try:
            ffmpeg.stdin.write(frame * 2)
            ffmpeg.stdin.close()
        except BrokenPipeError:
            pass  # its log says why
        got = len(ffmpeg.stdout.read())
        if ffmpeg.wait() or got != len(frame) // 4 * 2:
            return Check(name, False, True, ffmpeg.failure(), remedy)
    return Check(name, True, True, "two frames came through")


def _model(model: str, feature: str, libvmaf: bool, remedy: str) -> Check:
    """Whether libvmaf loads a model; there are builds without any."""
    from .ffmpeg import FFmpeg

    name, hint = f"model {model}", f"without it no {feature}; {remedy}"
    if not libvmaf:
        return Check(name, None, False, "not tried: there is no libvmaf")
    graph = f"testsrc2=s=64x64:r=25:d=0.08,format=yuv420p,split[a][b];[a][b]libvmaf=model=version={model}[out]"
    with FFmpeg(["-filter_complex", graph, "-map", "[out]", "-f", "null", "-"]) as ffmpeg:
        if ffmpeg.wait():
            return Check(name, False, False, ffmpeg.failure(), hint)
    return Check(name, True, False, "loads")
