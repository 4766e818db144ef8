"""The page: everything that results.json says, with plots and pictures, as one HTML file that loads nothing from anywhere.

It is a pure function of its arguments. Text comes from page.html and its two parts, which escape all of it; looks from page.css;
sorting and the frame viewer from page.js. Plots and pictures are images in data: URIs, so that no text in them can become markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from nvc.bitstream.errors import MachineError

from . import bd, views
from .filters import RGB_LABEL
from .verdict import FEW_FRAMES, FIRM_OVERLAP

if TYPE_CHECKING:
    import jinja2

Json = dict[str, Any]

# Title, unit and digits of every metric, in the order of the tables.
METRICS: Mapping[str, tuple[str, str, int]] = {
    "psnr_y": ("PSNR-Y", "dB", 2),
    "psnr_cb": ("PSNR-Cb", "dB", 2),
    "psnr_cr": ("PSNR-Cr", "dB", 2),
    "psnr_611": ("PSNR 6:1:1", "dB", 2),
    "psnr_rgb": ("RGB-PSNR, INR-paper compatible", "dB", 2),
    "ms_ssim": ("MS-SSIM", "", 4),
    "vmaf": ("VMAF", "", 2),
    "vmaf_neg": ("VMAF-NEG", "", 2),
    "xpsnr_y": ("XPSNR-Y", "dB", 2),
    "xpsnr_cb": ("XPSNR-Cb", "dB", 2),
    "xpsnr_cr": ("XPSNR-Cr", "dB", 2),
}
_FOLDER = Path(__file__).parent
_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Figure:
    """A plot of one clip: what it shows, its image as a data: URI, None where it was not drawn, and what that says in words."""

    clip: str
    title: str
    uri: str | None
    alternative: str


# Of every section of plots: key after the clip's name, and the title.
_RATE_DISTORTION = {"rd/psnr_y": "PSNR-Y over rate", "rd/vmaf": "VMAF over rate", "rd/ms_ssim": "MS-SSIM over rate"}
_DIFFERENCE = {"rcd/psnr_y": "bits of nvc beside those of the anchors"}
_BITS = {"bits": "bytes of every nvc file by section"}
_FRAMES = {"frames": "PSNR-Y of every frame"}


def render(results: Json, pictures: Mapping[str, bytes], plots: Mapping[str, str]) -> str:
    """The page of `results` (results.schema.json), as the text of a UTF-8 HTML file.

    `pictures`: PNG files by "CLIP/source/FRAME" and "RUN_ID/FRAME". `plots`: SVG documents by "CLIP/rd/psnr_y", "CLIP/rd/vmaf",
    "CLIP/rd/ms_ssim", "CLIP/rcd/psnr_y", "CLIP/bits", "CLIP/frames". What is missing of either is left out, and the page says
    so. Raises MachineError `extra` where jinja2 is missing, ValueError where results are no JSON (NaN, infinity).
    """
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    codecs = {codec["id"]: codec for codec in results["codecs"]}
    runs = {clip["name"]: [run for run in results["runs"] if run["clip"] == clip["name"]] for clip in results["clips"]}
    viewer = _viewer(results, runs, pictures)
    page = _template().render(
        results=results,
        data=_json(results),
        viewer=_json(viewer) if viewer["clips"] else None,
        style=style,
        script=script,
        policy=_policy(style, script),
        codecs=codecs,
        runs=runs,
        devices=list(dict.fromkeys(decode["device"] for run in results["runs"] for decode in run["decode"])),
        metrics=METRICS,
        bd_metrics=[metric for metric in METRICS if metric in {row["metric"] for row in results["bd"]}],
        bd_groups=list(_bd_groups(results)),
        bd_commands=lambda clip, codec, anchor: _bd_commands(results, clip, codec, anchor),
        low_overlap=FIRM_OVERLAP,
        figures={
            "rd": _figures(results, plots, _RATE_DISTORTION),
            "rcd": _figures(results, plots, _DIFFERENCE),
            "bits": _figures(results, plots, _BITS),
            "frames": _figures(results, plots, _FRAMES),
        },
        rgb=RGB_LABEL,
        few_frames=[clip for clip in results["clips"] if clip["frames"] < FEW_FRAMES],
    )
    return page.lstrip()  # of the lines that the macros leave


def _template() -> jinja2.Template:
    try:
        import jinja2
    except ImportError as error:
        raise MachineError("extra", "the page needs the package jinja2: pip install 'nvc-codec[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "fixed": _fixed, "signed": _signed, "megabytes": _megabytes}
    return environment.get_template("page.html")


def _json(value: Any) -> str:
    """JSON that may stand in a script element: without `<` nothing in it can end that element or open another."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: nothing may load but data: images, this style and this script."""
    allowed = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    rules = ["default-src 'none'", "img-src data:", f"style-src 'sha256-{allowed[0]}'", f"script-src 'sha256-{allowed[1]}'"]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _figures(results: Json, plots: Mapping[str, str], titles: Mapping[str, str]) -> list[Figure]:
    found = []
    for clip in results["clips"]:
        for key, title in titles.items():
            svg = plots.get(f"{clip['name']}/{key}")
            # base64 and not percent-encoding: half of an SVG's characters would need three.
            uri = None if svg is None else "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
            found.append(Figure(clip["name"], title, uri, _words(svg) if svg else ""))
    return found


def _words(svg: str) -> str:
    """The title and description of an SVG document."""
    root = ElementTree.fromstring(svg)
    parts = (root.findtext(f"{_SVG}{name}", "").strip() for name in ("title", "desc"))
    return ": ".join(part for part in parts if part)


def _bd_groups(results: Json) -> Iterable[tuple[str | None, list[Json]]]:
    """BD-rates as the table has them: of every clip, last the mean (None), rows of {codec, anchor, cells by metric}.

    Rows of the mean also have `wins` and `losses` by metric: in how many clips codec needs fewer bits, in how many more.
    """
    pairs = list(dict.fromkeys((row["codec"], row["anchor"]) for row in results["bd"]))
    for clip in dict.fromkeys([*(clip["name"] for clip in results["clips"]), None]):
        rows = []
        for codec, anchor in pairs:
            of_pair = [row for row in results["bd"] if (row["codec"], row["anchor"]) == (codec, anchor)]
            row: Json = {"codec": codec, "anchor": anchor}
            row["cells"] = {each["metric"]: each for each in of_pair if each["clip"] == clip}
            if clip is None:
                figures = [each for each in of_pair if each["clip"] is not None and each["pchip"] is not None]
                row["wins"] = {m: sum(each["pchip"] < 0 for each in figures if each["metric"] == m) for m in METRICS}
                row["losses"] = {m: sum(each["pchip"] > 0 for each in figures if each["metric"] == m) for m in METRICS}
            rows.append(row)
        if any(row["cells"] for row in rows):
            yield clip, rows


def _bd_commands(results: Json, clip: str, codec: str, anchor: str) -> list[tuple[str, str]]:
    """Title and command of every BD-rate of a row: what the package makes of the figures of the runs."""
    found = []
    for metric in bd.METRICS:
        curves = []
        for each in (anchor, codec):
            runs = [run for run in results["runs"] if (run["clip"], run["codec"]) == (clip, each)]
            curves.append(bd.curve(runs, metric))
        if min(len(curve.bpp) for curve in curves) < bd.LEAST_POINTS:
            continue
        points = ", ".join(str([float(f"{v:.6g}") for v in side]) for curve in curves for side in (curve.bpp, curve.quality))
        call = f"bd_rate({points}, method='pchip', require_matching_points=False, min_overlap=0)"
        found.append((METRICS[metric][0], f'python -c "from bjontegaard import bd_rate; print({call})"'))
    return found


def _viewer(results: Json, runs: Mapping[str, Sequence[Json]], pictures: Mapping[str, bytes]) -> Json:
    """What the frame viewer needs beside results.json.

    `pictures`: data: URIs by key. `clips`: of those with a picture of the source and of an nvc run, by name: `frames`, and
    `runs`, by id of nvc runs: ids of the anchors' runs nearest in size, the nearest first. `commands`: by clip for the source
    and by id of a run, what makes a picture, with FRAME for its number; only where a clip says its matrix and range.
    """
    clips: Json = {}
    commands: Json = {}
    for clip in results["clips"]:
        name = clip["name"]
        frames = [frame for frame in clip["shown"] if f"{name}/source/{frame}" in pictures]
        pictured = {run["id"] for run in runs[name] if all(f"{run['id']}/{frame}" in pictures for frame in frames)}
        near = {run["id"]: list(views.nearest(runs[name], run).values()) for run in runs[name] if run["nvc"]}
        chosen = {id_: [run["id"] for run in listed if run["id"] in pictured] for id_, listed in near.items() if id_ in pictured}
        if not frames or not chosen:
            continue
        clips[name] = {"frames": frames, "runs": chosen}
        if "matrix" in clip and "full_range" in clip:
            colour = views.Colour.of(clip["matrix"], clip["full_range"], clip["height"])
            commands[name] = views.command(f"files/{name}/source.mkv", "FRAME", colour)
            videos = {run["id"]: "DECODED" if run["nvc"] else run["file"] for run in runs[name] if run["id"] in pictured}
            commands |= {id_: views.command(video, "FRAME", colour) for id_, video in videos.items()}
    uris = {key: "data:image/png;base64," + base64.b64encode(png).decode() for key, png in pictures.items()}
    return {"clips": clips, "pictures": uris, "commands": commands}


def _count(number: int) -> str:
    """12,345"""
    return f"{number:,}"


def _fixed(number: float | None, digits: int = 2) -> str:
    return "—" if number is None else f"{number:,.{digits}f}"


def _signed(percent: float) -> str:
    return f"{percent:+,.1f} %"


def _megabytes(size: int | None) -> str:
    """Of 10^6 bytes."""
    return "—" if size is None else f"{size / 1e6:,.0f}"
