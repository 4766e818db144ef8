"""A complete results.json and its pictures, made from formulas, for the tests of the report's plots and page."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]
WIDTH, HEIGHT, FRAMES, FPS = 160, 90, 64, 25
PSNR = ("psnr_y", "psnr_cb", "psnr_cr", "psnr_611", "psnr_rgb")
METRICS = (*PSNR, "ms_ssim", "vmaf", "vmaf_neg", "xpsnr_y", "xpsnr_cb", "xpsnr_cr")
HEADLINES = ("psnr_y", "psnr_611", "ms_ssim", "vmaf", "vmaf_neg", "xpsnr_y")  # those that have BD-rates
CLIPS = {"bunny": 0.0, "coffee": 3.0}  # dB that a clip is easier than the first
SHOWN = {"bunny": [0, 21, 40, 63], "coffee": [5, 32, 50]}
SEGMENTS = {"bunny": [0], "coffee": [0, 32]}
BPP = (0.1, 0.17, 0.3, 0.5)
# PSNR-Y at 0.1 bpp, dB that twice the bits bring, settings and how many bits per pixel the first of them needs.
ANCHORS = {
    "x264": (32.5, 2.9, (22, 27, 32, 37, 42, 47), 1.3),
    "x265": (34.0, 2.8, (22, 27, 32, 37, 42, 47), 1.1),
    "svtav1": (34.6, 2.7, (24, 32, 40, 48, 56, 63), 1.0),
}
NETWORKS = {"hnerv": (27.6, 2.2), "vqnerv": (27.5, 2.2)}
LABELS = {
    "nvc:hnerv": "nvc HNeRV",
    "nvc:vqnerv": "nvc VQ-NeRV",
    "x264": "x264 veryslow",
    "x265": "x265 veryslow",
    "svtav1": "SVT-AV1 preset 4",
}
_ENCODERS = {
    "x264": "-c:v libx264 -preset veryslow -tune psnr -crf RATE",
    "x265": "-c:v libx265 -preset veryslow -tune psnr -crf RATE -x265-params keyint=-1:info=0",
    "svtav1": "-c:v libsvtav1 -preset 4 -crf RATE -svtav1-params tune=1",
}


def results() -> Json:
    """A results.json of version 1: two clips, two nvc families at four rates, three anchors at six; nvc loses everywhere.

    coffee has no BD-rate against SVT-AV1, and no frames of one clip are those of another. It is the same at every call.
    """
    runs = [run for clip in CLIPS for run in _runs_of(clip)]
    made = {
        "format": "nvc-report",
        "version": 1,
        "created": "2026-11-21T12:00:00Z",
        "command": "nvc report bunny.mp4 coffee.mp4 -o out --bpp 0.1,0.17,0.3,0.5 --frames 0:64 --scale 160x90 --preset fast",
        "environment": {
            "nvc": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "ffmpeg": "n9.0.2", "os": "Linux 6.1", "cpu": "AMD EPYC",
            "cores": 2, "gpu": None,
        },
        "settings": {
            "bpp": list(BPP), "codecs": list(LABELS), "anchors": "benchmark", "preset": "fast", "frames": "0:64",
            "scale": "160x90",
        },
        "clips": [_clip(name) for name in CLIPS],
        "codecs": [
            {"id": codec, "label": label, "kind": _kind(codec), "command": _codec_command(codec)}
            for codec, label in LABELS.items()
        ],
        "runs": runs,
        "bd": _bd_table(runs),
    }  # fmt: skip
    made["verdict"] = _verdict(made["bd"])
    return made


def pictures(found: Json) -> dict[str, bytes]:
    """A PNG for every key of the page: "CLIP/source/FRAME" and "RUN_ID/FRAME"; coarser where PSNR-Y of the frame is lower."""
    out = {}
    for clip in found["clips"]:
        for frame in clip["shown"]:
            scene = _scene(clip, frame)
            out[f"{clip['name']}/source/{frame}"] = png(scene.astype(np.uint8))
            for run in (run for run in found["runs"] if run["clip"] == clip["name"]):
                out[f"{run['id']}/{frame}"] = png(_damaged(scene, run, frame))
    return out


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of RGB pixels (height, width, 3)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def _kind(codec: str) -> str:
    return "nvc" if codec.startswith("nvc:") else "anchor"


def _codec_command(codec: str) -> str:
    if _kind(codec) == "nvc":
        return f"nvc encode SOURCE OUTPUT --bpp RATE --preset fast --model {codec.removeprefix('nvc:')}"
    return f"ffmpeg -i SOURCE {_ENCODERS[codec]} OUTPUT"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _clip(name: str) -> Json:
    return {
        "name": name,
        "source": f"{name}.mp4",
        "sha256": _sha256(name),
        "command": f"ffmpeg -i {name}.mp4 -vf trim=end_frame=64,scale=160:90:flags=bicubic -c:v ffv1 files/{name}/source.mkv",
        "width": WIDTH,
        "height": HEIGHT,
        "frames": FRAMES,
        "fps": FPS,
        "pix_fmt": "yuv420p",
        "source_pix_fmt": "yuv420p",
        "range": "tv",
        "matrix": 1,
        "full_range": 0,
        "notes": ["left out: 1 audio stream"],
        "shown": list(SHOWN[name]),
    }


def _runs_of(clip: str) -> list[Json]:
    easier = CLIPS[clip]
    made = []
    for number, (model, (start, slope)) in enumerate(NETWORKS.items()):
        for rate in BPP:
            size = round(rate * (0.99 + 0.01 * number) * WIDTH * HEIGHT * FRAMES / 8)
            quality = start + easier + slope * math.log2(8 * size / (WIDTH * HEIGHT * FRAMES) / 0.1)
            made.append(_run(clip, f"nvc:{model}", f"{rate:g} bpp", f"{clip}/nvc-{model}-{rate:g}bpp", size, size, quality))
    for codec, (start, slope, settings, most) in ANCHORS.items():
        # On coffee SVT-AV1 is not driven as low as to meet nvc.
        rates = [most * 2 ** (-k * (0.6 if (clip, codec) == ("coffee", "svtav1") else 1.1)) for k in range(len(settings))]
        for setting, rate in zip(settings, rates, strict=True):
            size = round(rate * WIDTH * HEIGHT * FRAMES / 8)
            quality = start + easier + slope * math.log2(8 * size / (WIDTH * HEIGHT * FRAMES) / 0.1)
            made.append(_run(clip, codec, f"crf {setting}", f"{clip}/{codec}-crf{setting}", size, size + 1100, quality))
    return made


def _run(clip: str, codec: str, label: str, name: str, size: int, file_size: int, quality: float) -> Json:
    kind = _kind(codec)
    path = f"files/{name}.{'nvc' if kind == 'nvc' else 'mkv'}"
    decoded = f"files/{name}.decoded.mkv"
    encode = _codec_command(codec).replace("SOURCE", f"files/{clip}/source.mkv").replace("OUTPUT", path)
    encode = encode.replace("RATE", label.replace("crf", "").replace("bpp", "").strip())
    decode = f"nvc decode {path} {decoded}" if kind == "nvc" else f"ffmpeg -i {path} -c:v ffv1 {decoded}"
    frames = _frames(clip, kind, quality)
    slow = kind == "nvc"
    pixels = WIDTH * HEIGHT * FRAMES
    return {
        "id": name,
        "clip": clip,
        "codec": codec,
        "label": label,
        "file": path,
        "sha256": _sha256(name),
        "bytes": size,
        "file_bytes": file_size,
        "bpp": 8 * size / pixels,
        "file_bpp": 8 * file_size / pixels,
        "kbps": 8 * size * FPS / FRAMES / 1000,
        "encode": {
            "command": encode,
            "seconds": 20 + size / 2e3 if slow else 0.4 + size / 4e4,
            "peak_bytes": 620_000_000 if slow else 91_000_000,
        },
        "decode": [
            {
                "device": "cpu",
                "command": decode,
                "seconds": 0.2 if slow else 0.05,
                "fps": 320.0 if slow else 1280.0,
                "peak_bytes": 410_000_000 if slow else 60_000_000,
            }
        ],
        "measure": f"nvc compare files/{clip}/source.mkv {path} --json",
        "quality": {metric: _score(metric, values) for metric, values in frames.items()},
        "frames": frames,
        "notes": [],
        "nvc": _network(clip, codec, size) if slow else None,
    }


def _frames(clip: str, kind: str, quality: float) -> dict[str, list[float]]:
    """Scores per frame around PSNR-Y `quality`: networks dip after each border of segments, anchors swing with their GOP."""
    borders = SEGMENTS[clip]
    y = []
    for frame in range(FRAMES):
        since = frame - max(border for border in borders if border <= frame)
        swing = -1.5 * math.exp(-since / 3) if kind == "nvc" else 0.6 * math.cos(frame * math.pi / 4)
        y.append(quality + swing + 0.8 * math.sin(frame / 9))
    lost = [10 ** (-value / 10) for value in y]  # share of the peak's square
    values = {
        "psnr_y": y,
        "psnr_cb": [value + 4.5 for value in y],
        "psnr_cr": [value + 5.5 for value in y],
        "psnr_rgb": [value - 1.2 for value in y],
        "ms_ssim": [1 - 9 * share**0.85 for share in lost],
        "vmaf": [min(100.0, max(0.0, 3.6 * (value - 16))) for value in y],
        "vmaf_neg": [min(100.0, max(0.0, 3.5 * (value - 16.2))) for value in y],
        "xpsnr_y": [value + 0.7 for value in y],
        "xpsnr_cb": [value + 4.9 for value in y],
        "xpsnr_cr": [value + 5.8 for value in y],
    }
    rounded = {metric: [round(value, 6 if metric == "ms_ssim" else 4) for value in listed] for metric, listed in values.items()}
    planes = zip(rounded["psnr_y"], rounded["psnr_cb"], rounded["psnr_cr"], strict=True)
    rounded["psnr_611"] = [round((6 * a + b + c) / 8, 4) for a, b, c in planes]
    return {metric: rounded[metric] for metric in METRICS}


def _score(metric: str, frames: list[float]) -> Json:
    pooled = None
    if metric.startswith(("psnr", "xpsnr")) and metric != "psnr_611":
        pooled = -10 * math.log10(sum(10 ** (-value / 10) for value in frames) / len(frames))
    return {"mean": sum(frames) / len(frames), "min": min(frames), "p5": float(np.percentile(frames, 5)), "pooled": pooled}


def _network(clip: str, codec: str, size: int) -> Json:
    segments = SEGMENTS[clip]
    fixed = {"container": 90 + 60 * len(segments), "program": 391, "hashes": 8 * FRAMES, "metadata": 40}  # names: ACCOUNTS
    embeddings = size // 9
    tokens = {"codebook": 95, "tokens": 30} if codec.endswith("vqnerv") else {"codebook": 0, "tokens": 0}
    weights = size - sum(fixed.values()) - sum(tokens.values()) - embeddings
    return {
        "model": codec.removeprefix("nvc:"),
        "parameters": weights * 8 // 3,
        "macs_per_pixel": round(weights * 0.55, 2),
        "sections": {**fixed, "weights": weights, "embeddings": embeddings, **tokens},
        "segments": list(segments),
    }


def _bd_table(runs: list[Json]) -> list[Json]:
    rows = []
    tested = [f"nvc:{model}" for model in NETWORKS]
    for clip, codec, anchor, metric in itertools.product([*CLIPS, None], tested, ANCHORS, HEADLINES):
        if clip is not None:
            curves = [[run for run in runs if (run["clip"], run["codec"]) == (clip, each)] for each in (codec, anchor)]
            rows.append({"clip": clip, "codec": codec, "anchor": anchor, "metric": metric, **_bd(*curves, metric)})
            continue
        found = [row for row in rows if (row["codec"], row["anchor"], row["metric"]) == (codec, anchor, metric) and row["clip"]]
        known = [row for row in found if row["pchip"] is not None]
        mean: Json = {key: sum(row[key] for row in known) / len(known) if known else None for key in ("pchip", "akima")}
        mean |= {"overlap": min((row["overlap"] for row in known), default=None), "clips": len(known)}
        mean |= {"reason": "" if known else "no clip has a figure"}
        rows.append({"clip": None, "codec": codec, "anchor": anchor, "metric": metric, **mean})
    return rows


def _bd(tested: list[Json], anchor: list[Json], metric: str) -> Json:
    """BD-rate by straight lines between the points, which is near enough to what the report has for a sample."""
    curves = []
    for runs in (tested, anchor):
        points = sorted((run["quality"][metric]["mean"], math.log(run["bpp"])) for run in runs)
        curves.append(np.array(points).T)
    low, high = (float(pick(curve[0][end] for curve in curves)) for pick, end in ((max, 0), (min, -1)))
    whole = float(max(curve[0][-1] for curve in curves) - min(curve[0][0] for curve in curves))
    if low >= high:
        reason = "the two curves have no quality in common"
        return {"pchip": None, "akima": None, "overlap": 0.0, "clips": 0, "reason": reason}
    at = np.linspace(low, high, 101)
    gap = float(np.mean(np.interp(at, *curves[0]) - np.interp(at, *curves[1])))
    pchip = 100 * (math.exp(gap) - 1)
    return {"pchip": pchip, "akima": pchip * 1.004, "overlap": (high - low) / whole, "clips": 1, "reason": ""}


def _verdict(bd: list[Json]) -> list[str]:
    lines = []
    for row in bd:
        if row["clip"] is None and row["metric"] == "psnr_y":
            figure = f"needs {row['pchip']:+.0f} % bits for the same PSNR-Y" if row["clips"] else "cannot be compared"
            of = f"mean of {row['clips']} of {len(CLIPS)} clips"
            lines.append(f"{LABELS[row['codec']]} loses to {LABELS[row['anchor']]}: it {figure} ({of}).")
    return lines


def _scene(clip: Json, frame: int) -> NDArray[np.float64]:
    """An RGB picture (height, width, 3) from 0 to 255: hills, a disc that moves, fine texture."""
    y, x = np.mgrid[: clip["height"], : clip["width"]].astype(float)
    phase = len(clip["name"]) + frame / 10
    hills = 40 * np.sin(x / 17 + phase) + 25 * np.cos(y / 9 - phase)
    disc = 80.0 * ((x - 20 - 1.8 * frame) ** 2 + (y - 45) ** 2 < 300)
    texture = 18 * np.sin(x * 1.9) * np.sin(y * 1.7)
    planes = (150 + hills * 0.6 + texture, 140 + hills * 0.4 + texture - 0.5 * disc, 110 + y * 0.6 - hills * 0.5 + disc)
    return np.clip(np.stack(planes, axis=-1), 0, 255)


def _damaged(scene: NDArray[np.float64], run: Json, frame: int) -> NDArray[np.uint8]:
    """The scene as an nvc file (blurred) or an anchor (in blocks) of that PSNR-Y shows it, roughly."""
    width = max(1, round((44 - run["frames"]["psnr_y"][frame]) / (3 if run["nvc"] else 2)))
    if run["nvc"]:
        for axis in (0, 1):
            size = scene.shape[axis]
            near = [np.clip(np.arange(size) + k, 0, size - 1) for k in range(-width, width + 1)]
            scene = np.mean([scene.take(each, axis) for each in near], axis=0)
        return scene.astype(np.uint8)
    rows, columns = (np.arange(size) // width * width for size in scene.shape[:2])
    return (0.5 * scene + 0.5 * scene[rows][:, columns]).astype(np.uint8)


if __name__ == "__main__":  # python tests/report_files.py page.html: the page of this sample, to look at
    from nvc.codec.report import bd, page, plots, verdict

    sample = results()
    sample["bd"] = bd.rows(sample)
    sample["verdict"] = verdict.verdict(sample)
    Path(sys.argv[1]).write_text(page.render(sample, pictures(sample), plots.plots(sample)), encoding="utf-8")
