"""The plots of a report: rate and quality, relative difference, bits by section, quality per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import bd
from .drawing import INK, Drawing, Style, add_legend, as_svg, logarithmic, new_figure, our_matplotlib, shortened, styles_of
from .views import nearest

Document = Mapping[str, Any]
RD_METRICS = ("psnr_y", "vmaf", "ms_ssim")
HATCHES = ("", "////", "---", "\\\\\\\\", "|||", "xxx", "++", "//", "--")  # of lines alone: dots and circles take many bytes
SECTION_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f", "#b8a800", "#4b4b8f")
LEAST_SHARE = 0.01  # sections that are smaller in every file of a clip are drawn as one


def plots(results: Document) -> dict[str, str]:
    """The plots of results.json by key, each an <svg> element to be put into HTML.

    Of every clip: "CLIP/rd/psnr_y", "CLIP/rd/vmaf", "CLIP/rd/ms_ssim" (in dB), "CLIP/rcd/psnr_y", "CLIP/bits", "CLIP/frames". A
    plot that has nothing to show is left out. Raises MachineError("extra") where matplotlib or bjontegaard is missing.
    """
    styles = styles_of(results["codecs"])
    drawn: dict[str, str] = {}
    for clip in results["clips"]:
        runs = [run for run in results["runs"] if run["clip"] == clip["name"]]
        with our_matplotlib():
            made = {f"rd/{metric}": _rate_and_quality(clip, runs, styles, metric) for metric in RD_METRICS}
            made["rcd/psnr_y"] = _difference(clip, runs, results["codecs"], styles)
            made["bits"] = _sections(clip, runs, styles)
            made["frames"] = _per_frame(clip, runs, results["codecs"], styles)
            for kind, drawing in made.items():
                if drawing is not None:
                    key = f"{clip['name']}/{kind}"
                    drawn[key] = as_svg(key, drawing)
    return drawn


def _rate_and_quality(clip: Document, runs: Sequence[Document], styles: Mapping[str, Style], metric: str) -> Drawing | None:
    """Quality over bits per pixel (logarithmic): every file a marker, joined in order of rate."""
    how = bd.METRICS[metric]
    decibels = metric == "ms_ssim"
    curves: dict[str, list[tuple[float, float]]] = {}
    for codec in styles:
        scores = [
            (run["bpp"], run["quality"][metric]["mean"]) for run in runs if run["codec"] == codec and metric in run["quality"]
        ]
        points = sorted((bpp, how.scaled(score) if decibels else score) for bpp, score in scores if not decibels or score < 1)
        if points:
            curves[codec] = points
    if not curves:
        return None
    unit = " (dB)" if decibels or "dB" in how.text else ""
    figure, axes = new_figure()
    for codec, points in curves.items():
        style = styles[codec]
        axes.plot(*zip(*points, strict=True), **style.line(), **style.marks(), label=style.label, gid=f"points-{codec}")
    logarithmic(axes.xaxis, [bpp for points in curves.values() for bpp, _ in points])
    axes.set(xlabel="bits per pixel", ylabel=f"{how.title}{unit}")
    add_legend(figure, axes)
    form = "{:.2f} dB" if decibels else how.text
    words = [
        f"{styles[codec].label}: {', '.join(f'{form.format(quality)} at {bpp:.3g} bpp' for bpp, quality in points)}."
        for codec, points in curves.items()
    ]
    return Drawing(figure, f"{clip['name']}: {how.title} over bits per pixel", " ".join(words))


def _difference(
    clip: Document, runs: Sequence[Document], codecs: Sequence[Document], styles: Mapping[str, Style]
) -> Drawing | None:
    """The bits of nvc over those of an anchor at equal PSNR-Y, of every pair: a factor on a logarithmic axis."""
    curves = {codec["id"]: bd.curve([run for run in runs if run["codec"] == codec["id"]], "psnr_y") for codec in codecs}
    ours, theirs = ([c["id"] for c in codecs if c["kind"] == kind and curves[c["id"]].bpp] for kind in ("nvc", "anchor"))
    if not ours or not theirs:
        return None
    between = {(codec, anchor): bd.difference(curves[anchor], curves[codec]) for codec in ours for anchor in theirs}
    if not any(between.values()):
        return None
    # the first codec thick and pale, the next over it, since codecs of nvc are often close
    looks: dict[str, dict[str, Any]] = {ours[0]: {"linewidth": 1.8}}
    if len(ours) > 1:
        looks = {c: {"linewidth": styles[c].width, "linestyle": styles[c].dashes, "alpha": 1} for c in ours}
        looks[ours[0]]["alpha"] = 0.45
    figure, axes = new_figure()
    words, factors, missing = [], [0.9, 1.1], []
    for anchor in theirs:
        style, drawn = styles[anchor], [codec for codec in ours if between[codec, anchor] is not None]
        if drawn:
            axes.plot([], [], color=style.colour, linewidth=1.8, **style.marks(), label=style.label)
            missing += [f"{styles[codec].label} / {style.label}" for codec in ours if codec not in drawn]
        else:
            missing.append(style.label)
    if len(ours) > 1:
        for codec in ours:
            axes.plot([], [], color=INK, **looks[codec], label=styles[codec].label)
    for label in missing:
        axes.plot([], [], " ", label=f"{label}: n/a")
    for (codec, anchor), found in between.items():
        if found is None:
            words.append(f"{styles[codec].label} and {styles[anchor].label} have too little PSNR-Y in common.")
            continue
        qualities, factor = found[0], 1 + found[1] / 100
        factors += [float(factor.min()), float(factor.max())]
        line = {"color": styles[anchor].colour, "markevery": (len(qualities) - 1) // 4, **looks[codec], **styles[anchor].marks()}
        axes.plot(qualities, factor, **line, gid=f"difference-{codec}-{anchor}")
        ends = " and ".join(f"{factor[i]:.2f} times at {qualities[i]:.1f} dB" for i in (0, -1))
        words.append(f"{styles[codec].label} needs the bits of {styles[anchor].label} {ends}.")
    axes.axhline(1, color=INK, linewidth=1)
    logarithmic(axes.yaxis, factors, "{:g}x")
    axes.set(xlabel="PSNR-Y (dB)", ylabel="times the bits")
    add_legend(figure, axes, "bits of nvc beside the anchor's, at equal PSNR-Y")
    return Drawing(figure, f"{clip['name']}: bits of nvc beside the anchors' at equal PSNR-Y", " ".join(words))


def _sections(clip: Document, runs: Sequence[Document], styles: Mapping[str, Style]) -> Drawing | None:
    """What the bytes of every nvc file are spent on: a bar of sections for each."""
    order = {codec: i for i, codec in enumerate(styles)}
    files = sorted((run for run in runs if run["nvc"]), key=lambda run: (order[run["codec"]], run["file_bytes"], run["id"]))
    if not files:
        return None
    names = list(dict.fromkeys(name for run in files for name in run["nvc"]["sections"]))
    parts = [run["nvc"]["sections"] for run in files]
    large = [name for name in names if any(part.get(name, 0) >= LEAST_SHARE * sum(part.values()) for part in parts)]
    rest = [name for name in names if name not in large and any(part.get(name, 0) for part in parts)]
    large.sort(key=lambda name: -sum(part.get(name, 0) for part in parts))
    groups = [*((name, [name]) for name in large), *([(rest[0] if len(rest) == 1 else "other", rest)] if rest else [])]
    codecs = list(dict.fromkeys(run["codec"] for run in files))
    rows = [i + (codecs.index(run["codec"]) + 1 if len(codecs) > 1 else 0) for i, run in enumerate(files)]
    figure, axes = new_figure(0.6 + 0.24 * (rows[-1] + 1))
    left = [0.0] * len(files)
    for i, (label, members) in enumerate(groups):
        widths = [sum(part.get(name, 0) for name in members) / 1000 for part in parts]
        colour, hatch = SECTION_COLOURS[i % len(SECTION_COLOURS)], HATCHES[i % len(HATCHES)]
        axes.barh(rows, widths, left=left, height=0.74, label=label, color=colour, hatch=hatch, linewidth=0)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for y, end in zip(rows, left, strict=True):
        axes.annotate(f"{end:.1f}", (end, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8.5)
    for codec in codecs if len(codecs) > 1 else ():
        first = next(y for y, run in zip(rows, files, strict=True) if run["codec"] == codec)
        axes.annotate(styles[codec].label, (0, first - 1), xytext=(2, -1), textcoords="offset points", va="center")
    axes.set_yticks(rows, [shortened(run["label"], 22) for run in files])
    axes.set_xlim(0, max(left) * 1.13)
    axes.set_ylim(rows[-1] + 0.6, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("kilobytes (1000 bytes)")
    add_legend(figure, axes)
    words = []
    for run, part in zip(files, parts, strict=True):
        sizes = ", ".join(f"{name} {size}" for name, size in part.items() if size)
        words.append(f"{styles[run['codec']].label}, {run['label']}, in bytes: {sizes}.")
    return Drawing(figure, f"{clip['name']}: what the bytes of nvc's files are spent on", " ".join(words))


def _per_frame(
    clip: Document, runs: Sequence[Document], codecs: Sequence[Document], styles: Mapping[str, Style]
) -> Drawing | None:
    """PSNR-Y of every frame: of nvc's files of middle size, and of each anchor's file nearest in bytes to the first of those."""
    from matplotlib.ticker import MaxNLocator

    usable = [run for run in runs if run["frames"].get("psnr_y")]
    by_codec = {codec["id"]: [run for run in usable if run["codec"] == codec["id"]] for codec in codecs}
    ours, theirs = ([c["id"] for c in codecs if c["kind"] == kind and by_codec[c["id"]]] for kind in ("nvc", "anchor"))
    if not ours:
        return None
    middle = [sorted(by_codec[codec], key=lambda run: (run["bytes"], run["id"]))[len(by_codec[codec]) // 2] for codec in ours]
    size = middle[0]["bytes"]
    found = nearest(usable, middle[0])
    near = [found[codec] for codec in theirs]
    figure, axes = new_figure()
    borders = sorted({first for run in middle for first in run["nvc"]["segments"] if first})
    words = []
    for run in [*middle, *near]:
        style, values = styles[run["codec"]], run["frames"]["psnr_y"]
        marks = style.marks() if len(values) == 1 else {}
        axes.plot(range(len(values)), values, **style.line(), **marks, label=_key(run, style), gid=f"frames-{run['codec']}")
        mean = sum(values) / len(values)
        words.append(f"{_key(run, style)}, {run['bytes']} bytes: mean {mean:.2f} dB, least {min(values):.2f} dB.")
    for number, first in enumerate(borders):
        label = "segment border" if number == 0 else "_"
        axes.axvline(first - 0.5, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)), label=label, gid=f"border-{first}")
    if borders:
        words.append(f"Segments begin at frames {', '.join(map(str, borders))}.")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.set_xlim(-0.5 - 0.02 * clip["frames"], 1.02 * clip["frames"] - 0.5)
    axes.set(xlabel="frame", ylabel="PSNR-Y (dB)")
    add_legend(figure, axes, f"the files nearest to {size / 1000:.1f} kB")
    return Drawing(figure, f"{clip['name']}: PSNR-Y of every frame at about equal bytes", " ".join(words))


def _key(run: Document, style: Style) -> str:
    return shortened(f"{style.label} {run['label']}")
