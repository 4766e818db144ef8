"""The report's page as text: complete, escaped, and with nothing in it that a browser would fetch."""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import report_files

from nvc.bitstream.errors import MachineError
from nvc.codec.report import bd, page

FOLDER = Path(page.__file__).parent
VOID = {"meta", "link", "img", "input", "br"}
HOSTILE = "a</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;<!--"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><title>A title</title><desc>and what it shows</desc></svg>'


@dataclass
class Node:
    """An element: its tag, attributes, children, and text of its own."""

    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag: str, **attributes: str) -> list[Node]:
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [node for node in self.walk() if node.tag == tag and wanted.items() <= node.attributes.items()]

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


class Reader(HTMLParser):
    """A tree of an HTML text in which every element is closed, which is what the page promises."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open = [Node("", {})]
        self.feed(html)
        self.close()
        assert len(self.open) == 1, f"not closed: {[node.tag for node in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        assert len(node.attributes) == len(attrs)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def read(html: str) -> Node:
    return Reader(html).open[0]


def drawings(results: dict[str, Any]) -> dict[str, str]:
    keys = ("rd/psnr_y", "rd/vmaf", "rd/ms_ssim", "rcd/psnr_y", "bits", "frames")
    return {f"{clip['name']}/{key}": SVG for clip in results["clips"] for key in keys}


@functools.cache
def pictures() -> dict[str, bytes]:
    return report_files.pictures(report_files.results())


def rendered(results: dict[str, Any], **others: Any) -> Node:
    parts = {"pictures": pictures(), "plots": drawings(results)} | others
    return read(page.render(results, parts["pictures"], parts["plots"]))


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return report_files.results()


@pytest.fixture(scope="module")
def tree(results: dict[str, Any]) -> Node:
    return rendered(results)


@pytest.fixture
def changed(results: dict[str, Any]) -> dict[str, Any]:
    """A copy of the sample that a test may change."""
    return copy.deepcopy(results)


def test_the_sample_keeps_the_contract(results: dict[str, Any]) -> None:
    schema = json.loads((FOLDER / "results.schema.json").read_text())
    jsonschema.validate(results, schema, jsonschema.Draft202012Validator, format_checker=jsonschema.FormatChecker())
    for run in results["runs"]:
        assert run["bpp"] == pytest.approx(8 * run["bytes"] / (160 * 90 * 64))
        assert run["nvc"] is None or sum(run["nvc"]["sections"].values()) == run["file_bytes"]
        assert all(run["quality"][name]["mean"] == pytest.approx(sum(v) / 64) for name, v in run["frames"].items())


def test_a_browser_has_nothing_to_fetch_and_may_not(tree: Node) -> None:
    loading = {"src", "srcset", "href", "data", "poster", "action", "formaction", "background", "ping", "manifest", "xlink:href"}
    for node in tree.walk():
        for name, value in node.attributes.items():
            assert name not in loading or value.startswith(("data:", "#")), (node.tag, name, value[:50])
            assert name != "style" and not name.startswith("on"), (node.tag, name)  # the policy forbids both
    assert not {"iframe", "object", "embed", "base", "form", "video", "audio", "svg"} & {node.tag for node in tree.walk()}
    style, script = tree.all("style")[0].text, tree.all("script")[-1].text
    assert not re.search(r"@import|url\(|https?:", style) and not re.search(
        r"fetch\(|XMLHttp|import\(|https?:|innerHTML|eval\(", script
    )
    policy = tree.all("meta", http_equiv="Content-Security-Policy")[0].attributes["content"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert rules.pop("style-src") == f"'sha256-{digests[0]}'" and rules.pop("script-src") == f"'sha256-{digests[1]}'"
    assert rules == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    assert {node.attributes.get("type") for node in tree.all("script")[:-1]} == {"application/json"}


def test_links_lead_to_what_is_there_and_ids_are_unique(tree: Node) -> None:
    ids = [node.attributes["id"] for node in tree.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    pointing = ("href", "popovertarget", "aria-labelledby", "aria-describedby", "for")
    for node in tree.walk():
        for target in (each for name in pointing for each in node.attributes.get(name, "").split() if node.tag != "link"):
            assert target.removeprefix("#") in ids, (node.tag, target)


def test_results_are_in_the_page_as_they_are(tree: Node, results: dict[str, Any]) -> None:
    assert json.loads(tree.all("script", id="results")[0].text) == results


def hostile(value: Any, keep: frozenset[str] = frozenset()) -> Any:
    """`value` with HOSTILE after every text for people; what refers to something else stays."""
    if isinstance(value, dict):
        return {key: each if key in keep else hostile(each, keep) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each, keep) for each in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_hostile_texts_stay_texts(results: dict[str, Any]) -> None:
    references = frozenset({"metric", "kind", "anchors", "format", "created", "frames"})
    attacked = hostile(results, references)
    for clip, (name, _) in zip(attacked["clips"], report_files.CLIPS.items(), strict=True):
        assert clip["name"] == name + HOSTILE
    renamed = {run["id"]: run["id"] + HOSTILE for run in results["runs"]} | {
        f"{c}/source": f"{c}{HOSTILE}/source" for c in report_files.CLIPS
    }
    shots = {f"{renamed[key.rpartition('/')[0]]}/{key.rpartition('/')[2]}": png for key, png in pictures().items()}
    tame, wild = rendered(results), rendered(attacked, pictures=shots)
    assert json.loads(wild.all("script", id="results")[0].text) == attacked
    for text in (*attacked["verdict"], attacked["command"], attacked["clips"][0]["notes"][0], attacked["runs"][0]["label"]):
        assert text in wild.text

    def shape(tree: Node) -> list[tuple[str, tuple[str, ...]]]:
        return [(node.tag, tuple(node.attributes)) for node in tree.walk()]

    assert shape(wild) == shape(tame)


def test_drawings_are_images_so_that_no_script_in_them_runs(results: dict[str, Any]) -> None:
    plots = {key: SVG.replace("<desc>", "<script>alert(1)</script><desc>") for key in drawings(results)}
    images = rendered(results, plots=plots).all("img")
    assert len(images) == len(plots)
    for image in images:
        kind, data = image.attributes["src"].split(",")
        assert kind == "data:image/svg+xml;base64" and base64.b64decode(data).decode() in plots.values()
        assert image.attributes["alt"] == "A title: and what it shows"


def row_of(tree: Node, run: dict[str, Any]) -> Node:
    return next(node for node in tree.all("tr") if node.attributes.get("data-run") == run["id"])


def test_every_run_has_its_figures_and_commands(tree: Node, results: dict[str, Any]) -> None:
    labels = {codec["id"]: codec["label"] for codec in results["codecs"]}
    for run in results["runs"]:
        row = row_of(tree, run)
        assert row.all("th")[0].words == f"{labels[run['codec']]} {run['label']}"
        quality, decode = run["quality"], run["decode"][0]
        expected = [f"{run['bytes']:,}", f"{run['bpp']:.4f}", f"{run['file_bpp']:.4f}", f"{run['kbps']:.1f}"]
        expected += [f"{quality['psnr_y'][part]:.2f}" for part in ("mean", "pooled", "min", "p5")]
        expected += [f"{quality[name]['mean']:.2f}" for name in ("psnr_cb", "psnr_cr", "psnr_611", "psnr_rgb")]
        expected += [f"{quality['ms_ssim']['mean']:.4f}"]
        expected += [f"{quality[name]['mean']:.2f}" for name in ("vmaf", "vmaf_neg", "xpsnr_y")]
        expected += [f"{run['encode']['seconds']:,.1f}", f"{decode['fps']:,.1f}"]
        expected += [f"{timed['peak_bytes'] / 1e6:,.0f}" for timed in (run["encode"], decode)]
        expected += [f"{run['nvc']['macs_per_pixel']:,.0f}" if run["nvc"] else "—"]
        cells = [cell for cell in row.children if isinstance(cell, Node)][2:]
        assert [cell.words for cell in cells] == expected, run["id"]
        shown = [node.text for node in row.all("pre")]
        assert shown == [run["encode"]["command"], decode["command"], run["measure"]]
        assert run["sha256"] in row.text and f"{run['file_bytes']:,} bytes" in row.words
        for part in run["nvc"]["sections"].items() if run["nvc"] else ():
            assert f"{part[0]} {part[1]:,}" in row.words
        details = [[cell.words for cell in line.all("td")] for line in row.all("tbody")[0].all("tr")]
        for texts, (metric, scores) in zip(details, quality.items(), strict=True):
            digits = 4 if metric == "ms_ssim" else 2
            values = [scores[part] for part in ("mean", "pooled", "min", "p5")]
            assert texts == ["—" if value is None else f"{value:.{digits}f}" for value in values]


def test_every_bd_rate_stands_in_its_cell_with_the_command_that_makes_it(tree: Node, results: dict[str, Any]) -> None:
    cells = {}
    for body in tree.all("table", **{"class": "bd"})[0].all("tbody"):
        for row in body.all("tr"):
            for cell in row.all("td"):
                key = (body.attributes["data-clip"], row.attributes.get("data-codec"), row.attributes.get("data-anchor"))
                cells[(*key, cell.attributes.get("data-metric"))] = cell.words
    for each in results["bd"]:
        text = cells[each["clip"] or "", each["codec"], each["anchor"], each["metric"]]
        if each["pchip"] is None:
            assert text == f"n/a {each['reason']}" + (" 0 of 2 clips: 0 won, 0 lost" if each["clip"] is None else "")
            continue
        low = ", low" if each["overlap"] < 0.75 else ""
        expected = f"{each['pchip']:+,.1f} % Akima {each['akima']:+,.1f} % overlap {100 * each['overlap']:.0f} %{low}"
        if each["clip"] is None:
            pair = [other for other in results["bd"] if other["clip"] and other["reason"] == ""]
            of_pair = [other for other in pair if all(other[key] == each[key] for key in ("codec", "anchor", "metric"))]
            won = sum(other["pchip"] < 0 for other in of_pair)
            expected += f" {each['clips']} of 2 clips: {won} won, {len(of_pair) - won} lost"
        assert text == expected


def test_wins_and_losses_are_counted_by_clip(changed: dict[str, Any]) -> None:
    for row in changed["bd"]:
        if (row["clip"], row["codec"], row["anchor"], row["metric"]) == ("coffee", "nvc:hnerv", "x264", "vmaf"):
            row["pchip"] = -3.0
    text = rendered(changed).all("table", **{"class": "bd"})[0].words
    assert text.count("2 of 2 clips: 1 won, 1 lost") == 1 and "-3.0 %" in text


def test_the_command_under_a_bd_rate_gives_that_bd_rate(changed: dict[str, Any]) -> None:
    changed["bd"] = bd.rows(changed)
    row = next(r for r in changed["bd"] if (r["clip"], r["metric"], r["anchor"]) == ("bunny", "vmaf", "x265"))
    body = rendered(changed).all("tbody", data_clip="bunny")[0]
    commands = body.all("tr", data_codec=row["codec"], data_anchor="x265")[0].all("pre")
    python = [node.text for node in commands if node.text.startswith("python")]
    words = shlex.split(python[[page.METRICS[m][0] for m in bd.METRICS].index("VMAF")])
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(row["pchip"], abs=0.05)


def test_every_plot_carries_commands(tree: Node, results: dict[str, Any]) -> None:
    figures = tree.all("figure")
    assert len(figures) == 6 * len(results["clips"])
    for figure in figures:
        clip = next(clip for clip in results["clips"] if figure.all("figcaption")[0].words.startswith(clip["name"] + ":"))
        shown = [node.text for node in figure.all("details")[0].all("pre")]
        assert shown == [results["command"], clip["command"], *(codec["command"] for codec in results["codecs"])]


def test_verdict_clips_environment_and_settings_are_told(tree: Node, results: dict[str, Any]) -> None:
    assert [node.text for node in tree.all("section", id="verdict")[0].all("li")] == results["verdict"]
    text = tree.all("main")[0].words
    for clip in results["clips"]:
        assert all(each in text for each in (clip["source"], clip["sha256"], clip["command"], *clip["notes"]))
    pairs = [(term.text, value.text) for term, value in zip(*(tree.all("dl")[-1].all(tag) for tag in ("dt", "dd")), strict=True)]
    assert dict(pairs).items() >= {"cpu": "AMD EPYC", "gpu": "none", "cores": "2", "bpp": "0.1, 0.17, 0.3, 0.5"}.items()
    assert {*results["environment"], *results["settings"]} <= dict(pairs).keys()
    assert all(
        codec["command"] in [node.text for node in tree.all("section", id="commands")[0].all("pre")]
        for codec in results["codecs"]
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "tuned to PSNR"),
        ({"anchors": "user"}, "PSNR understates them"),
        ({"frames": None, "scale": None}, "all of every clip."),
        ({"frames": "0:64"}, "0:64 (the end is not included)"),
    ],
)
def test_rules_follow_the_settings(change: dict[str, Any], told: str, changed: dict[str, Any]) -> None:
    changed["settings"] |= change
    assert told in rendered(changed).all("section", id="rules")[0].words


def test_few_frames_and_another_tuning_are_disclosed(changed: dict[str, Any]) -> None:
    def rules() -> str:
        return rendered(changed).all("section", id="rules")[0].words

    assert "bunny has 64, coffee has 64" in rules() and "squared error of the very clip" in rules()
    changed["codecs"][0]["command"] += " --tune ssim"
    for clip in changed["clips"]:
        clip["frames"] = page.FEW_FRAMES
    assert "Few frames" not in rules() and "MS-SSIM flatters those" in rules()


def test_the_viewer_has_the_pictures_and_the_nearest_anchors(tree: Node, results: dict[str, Any]) -> None:
    data = json.loads(tree.all("script", id="viewer-data")[0].text)
    assert data["pictures"].keys() == pictures().keys()
    for key, uri in data["pictures"].items():
        assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == pictures()[key]
    for clip in results["clips"]:
        runs = [run for run in results["runs"] if run["clip"] == clip["name"]]
        assert data["clips"][clip["name"]]["frames"] == clip["shown"]
        assert data["clips"][clip["name"]]["runs"].keys() == {run["id"] for run in runs if run["nvc"]}
        for run in (run for run in runs if run["nvc"]):
            near = sorted(
                (max(r["bytes"] / run["bytes"], run["bytes"] / r["bytes"]), r["codec"], r["id"]) for r in runs if not r["nvc"]
            )
            best = [next(id_ for _, codec, id_ in near if codec == each) for each in dict.fromkeys(codec for _, codec, _ in near)]
            assert data["clips"][clip["name"]]["runs"][run["id"]] == best
        assert "eq(n,FRAME)" in data["commands"][clip["name"]]


def test_what_is_missing_is_left_out_and_named(results: dict[str, Any]) -> None:
    bare = rendered(results, pictures={}, plots={})
    assert "No pictures in this report." in bare.text and not bare.all("script", id="viewer-data") and not bare.all("figure")
    assert bare.text.count("Not drawn:") == 12
    some = {key: png for key, png in pictures().items() if not key.startswith("bunny/source")}
    data = json.loads(rendered(results, pictures=some).all("script", id="viewer-data")[0].text)
    assert list(data["clips"]) == ["coffee"]


def test_given_files_alone_make_a_page(changed: dict[str, Any]) -> None:
    changed["codecs"] = [codec for codec in changed["codecs"] if codec["kind"] == "nvc"]
    changed["runs"] = [{**run, "encode": None, "kbps": None} for run in changed["runs"] if run["nvc"]]
    changed["bd"] = []
    changed["clips"][0]["fps"] = None
    tree = rendered(changed)
    text = tree.all("main")[0].words
    assert "No BD-rates" in text and "what made it is not known here" in text and "variable frame rate" in text
    assert "Files that were given may have been made in any way." in text
    cells = [node.words for node in row_of(tree, changed["runs"][0]).all("td")]
    assert cells.count("—") >= 3 and "None" not in text


def test_one_clip_without_any_bd_rate_makes_a_page(changed: dict[str, Any]) -> None:
    changed["clips"], changed["runs"] = changed["clips"][:1], [run for run in changed["runs"] if run["clip"] == "bunny"]
    kept = [row for row in changed["bd"] if row["clip"] in ("bunny", None)]
    changed["bd"] = [{**row, "pchip": None, "akima": None, "overlap": None, "clips": 0, "reason": "too few"} for row in kept]
    table = rendered(changed).all("table", **{"class": "bd"})[0].words
    assert table.count("n/a too few") == len(kept) and "0 of 1 clips" in table and "nan" not in table.lower()


def test_metrics_that_were_not_measured_are_dashes(changed: dict[str, Any]) -> None:
    run = changed["runs"][0]
    for metric in ("vmaf", "vmaf_neg"):
        del run["quality"][metric], run["frames"][metric]
    cells = [cell.words for cell in row_of(rendered(changed), run).children if isinstance(cell, Node)]
    assert cells.count("—") == 2


def test_the_page_is_a_function_of_its_arguments(results: dict[str, Any]) -> None:
    before = copy.deepcopy(results)
    first = page.render(results, pictures(), drawings(results))
    assert first == page.render(results, pictures(), drawings(results)) and results == before
    assert first.startswith("<!DOCTYPE html>")


def test_what_is_no_json_is_refused(changed: dict[str, Any]) -> None:
    changed["runs"][0]["bpp"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        page.render(changed, {}, {})


def test_without_jinja2_the_extra_is_named(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MachineError, match=r"nvc-codec\[report\]") as caught:
        page.render(results, {}, {})
    assert caught.value.code == "machine.extra"


def test_colours_of_text_have_contrast() -> None:
    css = (FOLDER / "page.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", css))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for ink in ("ink", "quiet", "blue", "red"):
        for ground in ("#ffffff", colours["soft"]):
            assert (luminance(ground) + 0.05) / (luminance(colours[ink]) + 0.05) >= 4.5, (ink, ground)
