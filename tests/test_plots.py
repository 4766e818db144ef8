"""Plots are sound SVG that can stand together in a page, show every file where its figures are, and do not depend on the day."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_files import results

from nvc.bitstream.errors import MachineError
from nvc.codec.report import drawing, plots

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
CODECS = ("nvc:hnerv", "nvc:vqnerv", "x264", "x265", "svtav1")
CSS = Path(str(drawing.__file__)).with_name("page.css").read_text(encoding="utf-8")
KINDS = ("rd/psnr_y", "rd/vmaf", "rd/ms_ssim", "rcd/psnr_y", "bits", "frames")


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return plots.plots(results())


def only(sample: dict[str, Any], clip: str = "bunny", codecs: tuple[str, ...] = CODECS) -> dict[str, Any]:
    """The sample of one clip and some codecs."""
    sample["clips"] = [each for each in sample["clips"] if each["name"] == clip]
    sample["codecs"] = [each for each in sample["codecs"] if each["id"] in codecs]
    sample["runs"] = [run for run in sample["runs"] if run["clip"] == clip and run["codec"] in codecs]
    return sample


def group(svg: str, name: str) -> ElementTree.Element | None:
    (found,) = [each for each in ElementTree.fromstring(svg).iter() if each.get("id", "").endswith(f"-{name}")] or [None]
    return found


def markers(svg: str, name: str) -> list[tuple[float, float]]:
    """Where the markers of a line stand, in units of the picture."""
    found = group(svg, name)
    return [] if found is None else [(float(use.attrib["x"]), float(use.attrib["y"])) for use in found.iter(f"{SVG}use")]


def line(svg: str, name: str) -> list[tuple[float, float]]:
    """The corners of a line without curves."""
    found = group(svg, name)
    assert found is not None
    path = next(found.iter(f"{SVG}path")).attrib["d"]
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.e-]+) (-?[\d.e-]+)", path)]


def text(svg: str) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def fitted(pixels: list[float], values: list[float]) -> tuple[float, float]:
    """The slope of pixels over values, and the largest distance of a pixel from the straight line."""
    slope, start = np.polyfit(values, pixels, 1)
    return float(slope), float(np.max(np.abs(np.polyval([slope, start], values) - pixels)))


# ---- as parts of a page


def test_every_clip_has_its_plots(drawn: dict[str, str]) -> None:
    assert list(drawn) == [f"{clip['name']}/{kind}" for clip in results()["clips"] for kind in KINDS]


def test_ids_differ_over_all_plots_and_every_reference_has_its_target(drawn: dict[str, str]) -> None:
    ids: Counter[str] = Counter()
    for svg in drawn.values():
        root = ElementTree.fromstring(svg)
        own = [each.attrib["id"] for each in root.iter() if "id" in each.attrib]
        ids.update(own)
        links = re.findall(r"url\(#([^)]*)\)", svg) + [
            use.attrib[f"{XLINK}href"].removeprefix("#") for use in root.iter(f"{SVG}use")
        ]
        assert links and set(links) <= set(own)
        assert set(root.attrib["aria-labelledby"].split()) <= set(own)
    assert max(ids.values()) == 1


def test_a_plot_takes_its_size_and_ink_from_the_page_has_its_font_and_says_what_it_shows(drawn: dict[str, str]) -> None:
    for key, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        assert svg.startswith("<svg ") and root.tag == f"{SVG}svg"
        assert root.attrib["role"] == "img" and root.attrib["viewBox"].startswith("0 0 316.8 ")
        assert {"width", "height", "style"}.isdisjoint(root.attrib)
        assert [each.tag for each in root[:2]] == [f"{SVG}title", f"{SVG}desc"]
        assert (root[0].text or "").startswith(key.split("/")[0]) and len(root[1].text or "") > 100
        assert not list(root.iter(f"{SVG}style")) and not list(root.iter(f"{SVG}metadata")) and "<script" not in svg
        assert len(text(svg)) > 8 and svg.count("font-family") == 1 and "font:" not in svg  # real text, all in one font
        assert ElementTree.fromstring(svg).attrib["font-family"].replace("'", '"') in CSS
        assert "currentColor" in svg and drawing.INK not in svg and "http" not in re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
        assert len(svg) < 40_000


def test_the_description_has_the_figures_in_words(drawn: dict[str, str]) -> None:
    sample = results()
    for clip in ("bunny", "coffee"):
        for run in sample["runs"]:
            if run["clip"] == clip:
                said = f"{run['quality']['psnr_y']['mean']:.2f} dB at {run['bpp']:.3g} bpp"
                assert said in (ElementTree.fromstring(drawn[f"{clip}/rd/psnr_y"])[1].text or "")


def test_the_same_figures_give_the_same_bytes(drawn: dict[str, str]) -> None:
    sample = results()
    assert plots.plots({**sample, "runs": sample["runs"][::-1]}) == drawn
    script = (
        "import hashlib; from report_files import results; from nvc.codec.report import plots; "
        "print(hashlib.sha256(plots.plots(results())['coffee/frames'].encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == hashlib.sha256(drawn["coffee/frames"].encode()).hexdigest()


# ---- where the figures are


@pytest.mark.parametrize("clip", ["bunny", "coffee"])
@pytest.mark.parametrize(
    ("metric", "scale"),
    [("psnr_y", float), ("vmaf", float), ("ms_ssim", lambda score: -10 * math.log10(1 - score))],
    ids=["psnr_y", "vmaf", "ms_ssim"],
)
def test_every_file_is_a_marker_where_its_rate_and_quality_are(drawn: dict[str, str], clip: str, metric: str, scale: Any) -> None:
    svg, sample = drawn[f"{clip}/rd/{metric}"], results()
    x, y, rates, qualities = [], [], [], []
    for codec in CODECS:
        runs = sorted((r for r in sample["runs"] if (r["clip"], r["codec"]) == (clip, codec)), key=lambda run: run["bpp"])
        places = markers(svg, f"points-{codec}")
        assert len(places) == len(runs)
        x += [place[0] for place in places]
        y += [place[1] for place in places]
        rates += [math.log(run["bpp"]) for run in runs]
        qualities += [scale(run["quality"][metric]["mean"]) for run in runs]
    (across, off_x), (up, off_y) = fitted(x, rates), fitted(y, qualities)
    assert across > 20 and up < 0 and off_x < 0.02 and off_y < 0.02
    assert min(x) > 25 and max(x) < 316.8 and min(y) > 10 and max(y) < 260 and max(y) - min(y) > 100


def test_plain_numbers_stand_at_their_places_on_the_axis_of_rate(drawn: dict[str, str]) -> None:
    svg = drawn["bunny/rd/psnr_y"]
    ticks = [
        (float(t.attrib["x"]), "".join(t.itertext())) for t in ElementTree.fromstring(svg).iter(f"{SVG}text") if "x" in t.attrib
    ]
    (nvc_x, _), *_ = markers(svg, "points-nvc:vqnerv")  # 0.1 bpp, the first of them
    places = {label: x for x, label in ticks}
    assert {"0.05", "0.1", "0.2", "0.5", "1"} <= set(places)
    assert places["0.1"] == pytest.approx(nvc_x, abs=0.5)
    decade = places["1"] - places["0.1"]
    assert places["0.2"] - places["0.1"] == pytest.approx(decade * math.log10(2), abs=0.05)


def test_nvc_is_solid_and_thick_and_anchors_are_dashed(drawn: dict[str, str]) -> None:
    looks = {}
    for codec in CODECS:
        found = group(drawn["bunny/rd/psnr_y"], f"points-{codec}")
        assert found is not None
        looks[codec] = next(found.iter(f"{SVG}path")).attrib["style"]
    assert ["dasharray" in looks[codec] for codec in CODECS] == [False, False, True, True, True]
    assert len({re.findall("stroke: (#[0-9a-f]{6})", look)[0] for look in looks.values()}) == len(CODECS)
    assert "stroke-width: 2.8" in looks["nvc:hnerv"]


def test_the_relative_difference_is_the_factor_of_rates() -> None:
    """Where all anchors are nvc's own curve with other rates, their lines are level, at the logarithm of the factor."""
    sample = only(results())
    base = [run for run in sample["runs"] if run["codec"] == "nvc:hnerv"]
    factors = {"nvc:vqnerv": 1.0, "x264": 4.0, "x265": 0.5, "svtav1": 10.0}
    sample["runs"] = base + [
        {**run, "id": f"{run['id']} {codec}", "codec": codec, "bpp": run["bpp"] / factor}
        | ({} if codec.startswith("nvc:") else {"nvc": None})
        for codec, factor in factors.items()
        for run in base
    ]
    svg = plots.plots(sample)["bunny/rcd/psnr_y"]
    heights = []
    for anchor, factor in list(factors.items())[1:]:
        corners = line(svg, f"difference-nvc:hnerv-{anchor}")
        heights.append((math.log(factor), corners[0][1]))
        assert max(y for _, y in corners) - min(y for _, y in corners) < 0.02
        assert line(svg, f"difference-nvc:vqnerv-{anchor}") == corners
    slope, off = fitted([y for _, y in heights], [value for value, _ in heights])
    assert slope < 0 and off < 0.02
    labels = {
        "".join(t.itertext()): float(t.attrib["y"]) for t in ElementTree.fromstring(svg).iter(f"{SVG}text") if "y" in t.attrib
    }
    level = heights[0][1] + slope * (0 - heights[0][0])
    assert labels["1x"] - labels["5x"] == pytest.approx(-slope * math.log(5), abs=0.02)
    assert labels["1x"] == pytest.approx(level, abs=5)  # text stands a little under the height of its tick
    assert "4.00 times at" in (ElementTree.fromstring(svg)[1].text or "")


def test_small_differences_have_ticks_too_and_missing_ones_are_named() -> None:
    sample = only(results(), codecs=("nvc:hnerv", "x264", "x265"))
    base = [run for run in sample["runs"] if run["codec"] == "nvc:hnerv"]
    far = [run for run in sample["runs"] if run["codec"] == "x265"][:2]
    sample["runs"] = [*base, *({**run, "codec": "x264", "nvc": None, "bpp": run["bpp"] / 1.4} for run in base), *far]
    svg = plots.plots(sample)["bunny/rcd/psnr_y"]
    assert {"1x", "1.2x", "1.4x"} <= set(text(svg)) and "x265 veryslow: n/a" in text(svg)
    assert "too little PSNR-Y in common" in svg


def bars(svg: str) -> list[tuple[float, float, float]]:
    """Left, top and right of the bars, which are the closed paths that a pattern of the same height or a colour fills."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.attrib["d"])]
        if "clip-path" in path.attrib and path.attrib["d"].rstrip().endswith("z") and len(numbers) in (8, 10):
            found.append((min(numbers[0::2]), min(numbers[1::2]), max(numbers[0::2])))
    return found


def test_bars_are_as_long_as_their_bytes(drawn: dict[str, str]) -> None:
    svg = drawn["bunny/bits"]
    files = [run for run in results()["runs"] if run["clip"] == "bunny" and run["nvc"]]
    files.sort(key=lambda run: (CODECS.index(run["codec"]), run["file_bytes"]))
    found = bars(svg)
    tops = sorted({top for _, top, _ in found})
    assert len(tops) == len(files)
    start = min(left for left, _, _ in found)
    ends = [max(right for _, top, right in found if top == row) for row in tops]
    slope, off = fitted([end - start for end in ends], [run["file_bytes"] for run in files])
    assert slope > 0 and off < 0.05
    for row, run in zip(tops, files, strict=True):
        widths = sorted(round((right - left) / slope) for left, top, right in found if top == row)
        assert widths[-1] == pytest.approx(run["nvc"]["sections"]["weights"], abs=0.03 / slope)
        assert widths[-2] == pytest.approx(run["nvc"]["sections"]["embeddings"], abs=0.03 / slope)
        assert f"{run['file_bytes'] / 1000:.1f}" in text(svg) and run["label"] in text(svg)
    assert {"weights", "embeddings", "hashes", "other", "nvc HNeRV", "nvc VQ-NeRV"} <= set(text(svg))
    assert svg.count("<pattern ") >= 4  # told apart without colour


@pytest.mark.parametrize("clip", ["bunny", "coffee"])
def test_frames_are_those_of_the_middle_file_and_of_the_anchors_nearest_in_bytes(drawn: dict[str, str], clip: str) -> None:
    svg, runs = drawn[f"{clip}/frames"], [run for run in results()["runs"] if run["clip"] == clip]
    sizes = {run["bytes"]: run for run in runs if run["codec"] == "nvc:hnerv"}
    middle = sizes[sorted(sizes)[2]]
    x, y, values = [], [], []
    for codec in CODECS:
        own = [run for run in runs if run["codec"] == codec]
        run = min(own, key=lambda run: max(run["bytes"], middle["bytes"]) / min(run["bytes"], middle["bytes"]))
        corners = line(svg, f"frames-{codec}")
        assert len(corners) == 64
        x, y, values = [*x, *(c[0] for c in corners)], [*y, *(c[1] for c in corners)], [*values, *run["frames"]["psnr_y"]]
        assert any(run["label"] in label for label in text(svg))
    (across, off_x), (up, off_y) = fitted(x, list(range(64)) * 5), fitted(y, values)
    assert across > 2 and up < 0 and off_x < 0.02 and off_y < 0.02
    borders = [each.attrib["id"] for each in ElementTree.fromstring(svg).iter() if "-border-" in each.get("id", "")]
    assert [name.split("-")[-1] for name in borders] == ([] if clip == "bunny" else ["32"])
    if clip == "coffee":
        assert line(svg, "border-32")[0][0] == pytest.approx((x[31] + x[32]) / 2, abs=0.02) and "segment border" in text(svg)


# ---- odd ends


def test_what_has_nothing_to_show_is_left_out() -> None:
    empty = {**results(), "runs": []}
    assert plots.plots(empty) == {} and plots.plots({**empty, "clips": [], "codecs": []}) == {}
    assert list(plots.plots(only(results(), codecs=("x264", "x265")))) == [f"bunny/rd/{m}" for m in ("psnr_y", "vmaf", "ms_ssim")]
    assert "bunny/rcd/psnr_y" not in plots.plots(only(results(), codecs=("nvc:hnerv",)))
    without = only(results(), codecs=("nvc:hnerv", "x264"))
    for run in without["runs"]:
        del run["quality"]["vmaf"]
    assert "bunny/rd/vmaf" not in plots.plots(without)


def test_one_file_of_one_frame_is_drawn() -> None:
    sample = only(results(), codecs=("nvc:vqnerv", "x265"))
    sample["runs"] = [run for run in sample["runs"] if run["label"] in ("0.3 bpp", "crf 32")]
    sample["clips"][0]["frames"] = 1
    for run in sample["runs"]:
        run["frames"] = {"psnr_y": run["frames"]["psnr_y"][:1]}
    found = plots.plots(sample)
    assert list(found) == ["bunny/rd/psnr_y", "bunny/rd/vmaf", "bunny/rd/ms_ssim", "bunny/bits", "bunny/frames"]
    assert len(markers(found["bunny/rd/psnr_y"], "points-x265")) == len(markers(found["bunny/frames"], "frames-nvc:vqnerv")) == 1


def test_a_lossless_file_has_no_ms_ssim_in_decibels() -> None:
    sample = only(results(), codecs=("nvc:hnerv", "x264"))
    sample["runs"][-1]["quality"]["ms_ssim"]["mean"] = 1.0
    assert len(markers(plots.plots(sample)["bunny/rd/ms_ssim"], "points-x264")) == 5


def test_names_are_text_whatever_is_in_them() -> None:
    name = "_<b>&\"'$x^2$\x00\x1b\udc80漢字😀"
    sample = only(results(), codecs=("nvc:hnerv", "x264"))
    sample["clips"][0]["name"] = name
    for codec in sample["codecs"]:
        codec["label"] = f"{name} {codec['id']}"
    for run in sample["runs"]:
        run |= {"clip": name, "label": name if run["nvc"] else run["label"]}
    found = plots.plots(sample)
    assert list(found) == [f"{name}/{kind}" for kind in KINDS]
    shown = "_<b>&\"'$x^2$���漢字😀"
    for svg in found.values():
        svg.encode()
        assert (ElementTree.fromstring(svg)[0].text or "").startswith(shown)
    labels = [label.strip() for kind in ("rd/psnr_y", "bits") for label in text(found[f"{name}/{kind}"])]
    assert f"{shown} nvc:hnerv" in labels and f"{shown} x264" in labels and shown in labels


def test_the_sample_is_not_changed_and_neither_are_the_users_settings() -> None:
    import matplotlib

    sample = only(results())
    before, settings = copy.deepcopy(sample), dict(matplotlib.rcParams)
    with matplotlib.rc_context({"xtick.major.size": 20, "font.size": 30}):
        loud = plots.plots(sample)
    assert loud == plots.plots(sample) and sample == before
    assert {key: value for key, value in matplotlib.rcParams.items() if key != "backend"} == {
        key: value for key, value in settings.items() if key != "backend"
    }


@given(st.floats(1e-5, 50), st.floats(1.02, 1e4))
def test_ticks_are_few_round_numbers_within_the_axis(low: float, ratio: float) -> None:
    ticks = drawing.ticks_between(low, low * ratio)
    assert all(low <= tick <= low * ratio and float(f"{tick:.2g}") == tick for tick in ticks)
    assert ticks == sorted(set(ticks)) and len(ticks) <= 7
    assert len(ticks) >= 2 or ratio < 1.6


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MachineError, match=r"matplotlib.*nvc-codec\[report\]") as caught:
        plots.plots(results())
    assert caught.value.code == "machine.extra"
