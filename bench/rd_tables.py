"""What bench/rd.py prints: curves, BD-rates, ratios of bits, who wins; all from the lines of its journals alone."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jobs
from jobs import Journal, Result

from nvc.codec.report import bd
from nvc.codec.report.anchors import ANCHORS
from nvc.codec.report.settings import CODECS
from nvc.codec.report.sweep import MODEL_NAMES
from nvc.codec.report.verdict import verdict

SIDES = ("nvc", "anchors")
METRICS = {"psnr_y": "PSNR-Y", "psnr_611": "6:1:1"}

Key = Mapping[str, Any]
Entry = tuple[Key, Result]
Document = dict[str, Any]
Thing = TypeVar("Thing", bound=Hashable)


def entries(journals: Iterable[Journal]) -> list[Entry]:
    """The results of this bench in journals."""
    found = {name: result for journal in journals for name, result in journal.results.items()}
    parsed = [(json.loads(name), result) for name, result in found.items()]
    return [(each, result) for each, result in parsed if each.get("bench") == "rd"]


def curve_of(each: Key) -> str:
    """The same text for the points of one curve."""
    return json.dumps({name: value for name, value in each.items() if name != "rate"}, sort_keys=True)


def document(found: Sequence[Entry]) -> Document:
    """What codec/report takes: clips, codecs and runs in the form of results.json, with `psnr_y` and `psnr_611` alone."""
    clips = unique({(each["clip"], each["frames"], each["width"], each["height"]): each["clip"] for each, _ in found})
    kinds = {"nvc": "nvc", "anchors": "anchor"}
    ordered = sorted((each for each, _ in found), key=lambda each: CODECS.index(each["codec"]))
    codecs = unique({(each["side"], each["codec"], json.dumps(each["setting"])): label(each) for each in ordered})
    ids = {codec: number for number, codec in enumerate(codecs)}
    runs = [
        {
            "clip": clips[each["clip"], each["frames"], each["width"], each["height"]],
            "codec": ids[each["side"], each["codec"], json.dumps(each["setting"])],
            "label": " ".join(f"{name} {value:g}" for name, value in each["rate"].items()),
            "bytes": result["bytes"],
            "bpp": result["bpp"],
            "quality": {metric: {"mean": result[metric]} for metric in METRICS},
            "encode": {"seconds": result["seconds"]},
            "decode": [],
        }
        for each, result in sorted(found, key=lambda entry: int(entry[1]["bytes"]))
    ]
    shapes = zip(clips, clips.values(), strict=True)
    return {
        "clips": [{"name": name, "frames": shape[1], "width": shape[2], "height": shape[3]} for shape, name in shapes],
        "codecs": [{"id": ids[codec], "label": text, "kind": kinds[codec[0]]} for codec, text in codecs.items()],
        "runs": runs,
        "settings": {"anchors": "benchmark"},
    }


def label(each: Key) -> str:
    """What a table calls the codec of a file."""
    if each["side"] == "nvc":
        model = each["codec"].removeprefix("nvc:")
        return f"nvc {MODEL_NAMES.get(model, model)} {each['setting']['preset']}"
    preset = each["setting"]["options"][1]
    return f"{ANCHORS[each['codec']].label} {'preset ' if preset.isdecimal() else ''}{preset}"


def unique(names: Mapping[Thing, str]) -> dict[Thing, str]:
    """The same where all names differ; else the later ones of a name are numbered."""
    out: dict[Thing, str] = {}
    for thing, name in names.items():
        number = sum(other == name for other in list(names.values())[: len(out)])
        out[thing] = f"{name} ({number + 1})" if number else name
    return out


def runs_of(doc: Document, clip: str, codec: int) -> list[dict[str, Any]]:
    """The files of a codec from a clip."""
    return [each for each in doc["runs"] if (each["clip"], each["codec"]) == (clip, codec)]


def curves(doc: Document) -> str:
    """Per clip all files by codec and size."""
    text = ""
    for clip in doc["clips"]:
        rows = []
        for codec in doc["codecs"]:
            for each in runs_of(doc, clip["name"], codec["id"]):
                scores = (f"{each['quality'][metric]['mean']:.2f}" for metric in METRICS)
                name = f"{codec['label']}, {each['label']}"
                rows.append([name, each["bytes"], f"{each['bpp']:.4f}", *scores, f"{each['encode']['seconds']:.1f}"])
        text += f"{clip['name']}, {clip['frames']} frames of {clip['width']}x{clip['height']}\n\n"
        text += jobs.table(("file", "bytes", "bpp", *METRICS.values(), "seconds to encode"), rows) + "\n"
    return text


def comparisons(doc: Document) -> str:
    """BD-rates, ratios of bits where curves overlap, and in words who wins; MachineError without the package bjontegaard."""
    titles = {codec["id"]: codec["label"] for codec in doc["codecs"]}
    figures = {(row["clip"], row["codec"], row["anchor"], row["metric"]): row for row in doc["bd"] if row["clip"] is not None}
    rows = []
    for (clip, codec, anchor, metric), row in figures.items():
        if metric != "psnr_y" or row["pchip"] is None:
            continue
        theirs, ours = (bd.curve(runs_of(doc, clip, which), "psnr_y") for which in (anchor, codec))
        apart = bd.difference(theirs, ours)
        assert apart is not None, "there is a BD-rate"
        qualities, percent = apart
        other = figures[clip, codec, anchor, "psnr_611"]["pchip"]
        rates = ["none" if rate is None else f"{rate:+.1f}" for rate in (row["pchip"], row["akima"], other)]
        shared = [f"{100 * row['overlap']:.0f}", f"{qualities[0]:.2f} to {qualities[-1]:.2f}"]
        times = [f"{1 + percent[i] / 100:.2f}" for i in (0, len(percent) // 2, -1)]
        winner = titles[codec if row["pchip"] < 0 else anchor] if row["pchip"] else "nobody"
        rows.append([f"{clip}, {titles[codec]} against {titles[anchor]}", *rates, *shared, *times, winner])
    bits = [f"times the bits {where}" for where in ("at its low end", "in the middle", "at its high end")]
    columns = ("PSNR-Y", "BD-rate, PCHIP, %", "Akima, %", "6:1:1, PCHIP, %", "overlap, %", "dB shared", *bits, "who wins")
    return "\n".join([*([jobs.table(columns, rows)] if rows else []), *verdict(doc)])


def readme_table(*paths: str | Path) -> str:
    """BD-rate in PSNR-Y of nvc's curves in these journals against each anchor, by clip and as mean over the clips; Markdown."""
    doc = document(entries(Journal(Path(path)) for path in paths))
    titles, names = {codec["id"]: codec["label"] for codec in doc["codecs"]}, [clip["name"] for clip in doc["clips"]]
    found: dict[tuple[int, int], dict[str | None, str]] = {}
    for row in bd.rows(doc):
        if row["metric"] == "psnr_y":
            said = "none" if row["pchip"] is None else f"{row['pchip']:+.0f} %"
            found.setdefault((row["codec"], row["anchor"]), {})[row["clip"]] = said
    rows = [[f"{titles[nvc]} against {titles[other]}", *map(said.get, [*names, None])] for (nvc, other), said in found.items()]
    return jobs.table(("BD-rate in PSNR-Y", *names, "mean"), rows)


def origins(found: Iterable[Entry]) -> Iterator[str]:
    """A line for each side: everything that its files were made with and on."""
    for side in SIDES:
        values: dict[str, dict[str, None]] = {}
        for made in (result["made"] for each, result in found if each["side"] == side):
            for name, value in made.items():
                if value is not None:
                    values.setdefault(name, {})[str(value)] = None
        if values:
            yield f"{side}: " + "; ".join(f"{name} {', '.join(different)}" for name, different in values.items())
