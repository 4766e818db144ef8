"""BD-rates: agreement with the package's example by an integration of our own, signs, what is left out, and means."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from report_files import results

from nvc.bitstream.errors import MachineError
from nvc.codec.report import bd

# The example that the package bjontegaard publishes: x265 with two presets, kbit/s and dB.
ANCHOR = ((9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851))
TEST = ((9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987))


def run(bpp: float, score: float, metric: str = "psnr_y", clip: str = "a", codec: str = "x265") -> dict[str, Any]:
    return {"clip": clip, "codec": codec, "bpp": bpp, "quality": {metric: {"mean": score}}}


def curve(points: Sequence[tuple[float, float]], metric: str = "psnr_y") -> bd.Curve:
    return bd.curve([run(*point, metric) for point in points], metric)


def document(*runs: dict[str, Any], clips: Sequence[str] = ("a",)) -> dict[str, Any]:
    codecs = [("nvc:hnerv", "nvc"), ("x265", "anchor")]
    return {
        "clips": [{"name": name} for name in clips],
        "codecs": [{"id": name, "label": name.upper(), "kind": kind} for name, kind in codecs],
        "runs": list(runs),
    }


def files(points: Sequence[tuple[float, float]], codec: str, clip: str = "a", metric: str = "psnr_y") -> list[dict[str, Any]]:
    return [run(*point, metric, clip, codec) for point in points]


def row(rows: Sequence[dict[str, Any]], clip: str | None = "a", metric: str = "psnr_y") -> dict[str, Any]:
    (found,) = (each for each in rows if (each["clip"], each["metric"]) == (clip, metric))
    return found


# ---- an implementation of our own


def hermite(x: NDArray[np.float64], y: NDArray[np.float64], slopes: NDArray[np.float64], at: NDArray[np.float64]) -> Any:
    """The cubics with the given values and slopes at the points x."""
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = x[i + 1] - x[i]
    t = (at - x[i]) / h
    ends = y[i] * (1 + 2 * t) * (1 - t) ** 2 + y[i + 1] * t**2 * (3 - 2 * t)
    return ends + h * (slopes[i] * t * (1 - t) ** 2 + slopes[i + 1] * t**2 * (t - 1))


def pchip_slopes(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fritsch and Butland's slopes: weighted harmonic means inside, one-sided three-point formulas at the ends."""
    h, d = np.diff(x), np.diff(y) / np.diff(x)
    if len(d) == 1:
        return np.array([d[0], d[0]])
    inner = [
        0.0 if d[k - 1] * d[k] <= 0 else 3 * (h[k - 1] + h[k]) / ((2 * h[k] + h[k - 1]) / d[k - 1] + (h[k] + 2 * h[k - 1]) / d[k])
        for k in range(1, len(d))
    ]

    def end(h0: float, h1: float, d0: float, d1: float) -> float:
        slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
        if slope * d0 <= 0:
            return 0.0
        return 3 * d0 if d0 * d1 <= 0 and abs(slope) > 3 * abs(d0) else slope

    return np.array([end(h[0], h[1], d[0], d[1]), *inner, end(h[-1], h[-2], d[-1], d[-2])])


def akima_slopes(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Akima's slopes of 1970, with two slopes continued linearly at both ends."""
    d = np.diff(y) / np.diff(x)
    before, after = 2 * d[0] - d[1], 2 * d[-1] - d[-2]
    m = np.array([2 * before - d[0], before, *d, after, 2 * after - d[-1]])
    w1, w2 = abs(m[3:] - m[2:-1])[: len(x)], abs(m[1:] - m[:-1])[: len(x)]
    middle = (m[1:-2] + m[2:-1]) / 2
    with np.errstate(invalid="ignore"):
        return np.where(w1 + w2 > 1e-9, (w1 * m[1:-2] + w2 * m[2:-1]) / (w1 + w2), middle)


def own_bd_rate(anchor: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]], slopes: Any) -> float:
    """BD-rate in percent by sums over 200,000 steps."""
    curves = [np.array(sorted((quality, math.log(rate)) for rate, quality in points)).T for points in (anchor, test)]
    low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    at = low + (high - low) * (np.arange(200_000) + 0.5) / 200_000
    of_anchor, of_test = (float(np.mean(hermite(x, y, slopes(x, y), at))) for x, y in curves)
    return 100 * (math.exp(of_test - of_anchor) - 1)


def test_the_packages_example_agrees_with_an_integration_of_our_own() -> None:
    found = bd.delta(curve(ANCHOR), curve(TEST))
    assert found.pchip == pytest.approx(own_bd_rate(ANCHOR, TEST, pchip_slopes), abs=1e-6)
    assert found.akima == pytest.approx(own_bd_rate(ANCHOR, TEST, akima_slopes), abs=1e-6)
    assert found.overlap == pytest.approx((40.037 - 34.987) / (40.121 - 34.987))
    assert -4.5 < own_bd_rate(ANCHOR, TEST, pchip_slopes) < -4.3  # x265's slower preset saves some 4 %


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_curves_of_other_lengths_agree_too(size: int) -> None:
    anchor = [(0.05 * 1.7**k, 30 + 2.5 * k - 0.1 * k * k) for k in range(6)]
    test = [(0.21 * 1.9**k, 30.7 + 2.2 * k + 0.2 * (k % 2)) for k in range(size)]
    found = bd.delta(curve(anchor), curve(test))
    assert found.pchip == pytest.approx(own_bd_rate(anchor, test, pchip_slopes), abs=1e-5)
    if size > 2:
        assert found.akima == pytest.approx(own_bd_rate(anchor, test, akima_slopes), abs=1e-5)


# ---- signs and scales


def test_half_the_bits_are_minus_fifty_percent_and_twice_the_bits_plus_a_hundred() -> None:
    halves, doubles = ([(factor * rate, quality) for rate, quality in ANCHOR] for factor in (0.5, 2))
    for points, percent in ((halves, -50), (doubles, 100), (ANCHOR, 0)):
        found = bd.delta(curve(ANCHOR), curve(points))
        assert (found.pchip, found.akima, found.overlap) == (pytest.approx(percent, abs=1e-9),) * 2 + (1.0,)


@st.composite
def rising(draw: st.DrawFn) -> list[tuple[float, float]]:
    steps = draw(st.lists(st.tuples(st.floats(0.1, 2), st.floats(0.1, 6)), min_size=2, max_size=7))
    rate, quality = draw(st.floats(-6, 1)), draw(st.floats(20, 40))
    points = []
    for longer, better in steps:
        points.append((2**rate, quality))
        rate, quality = rate + longer, quality + better
    return points


@given(points=rising(), factor=st.floats(0.05, 20), data=st.data())
def test_a_curve_with_all_rates_scaled_has_that_figure_in_whatever_order_the_runs_come(
    points: list[tuple[float, float]], factor: float, data: st.DataObject
) -> None:
    scaled = [(factor * rate, quality) for rate, quality in data.draw(st.permutations(points))]
    for found in (bd.delta(curve(points), curve(scaled)), bd.delta(curve(data.draw(st.permutations(points))), curve(scaled))):
        assert found.overlap == 1
        assert found.pchip == pytest.approx((factor - 1) * 100, abs=1e-6)
        assert found.akima == pytest.approx((factor - 1) * 100, abs=1e-6)


@given(anchor=rising(), test=rising())
def test_the_difference_over_quality_has_the_mean_that_bd_rate_is_of_and_swaps_its_sign(
    anchor: list[tuple[float, float]], test: list[tuple[float, float]]
) -> None:
    found, back = bd.delta(curve(anchor), curve(test)), bd.delta(curve(test), curve(anchor))
    drawn = bd.difference(curve(anchor), curve(test), 4001)
    assert (drawn is None) == (found.pchip is None)
    if drawn is None or found.pchip is None or back.pchip is None:
        return
    logarithms = np.log1p(drawn[1] / 100)
    assert np.expm1(np.mean((logarithms[1:] + logarithms[:-1]) / 2)) * 100 == pytest.approx(found.pchip, rel=1e-3, abs=1e-2)
    assert (1 + found.pchip / 100) * (1 + back.pchip / 100) == pytest.approx(1)
    assert drawn[0][0] == max(anchor[0][1], test[0][1]) and drawn[0][-1] == min(anchor[-1][1], test[-1][1])


def test_ms_ssim_and_vmaf_are_compared_in_decibels_of_what_is_missing() -> None:
    for metric, whole in (("ms_ssim", 1.0), ("vmaf", 100.0), ("vmaf_neg", 100.0)):
        # in these decibels a straight line over the logarithm of the rate, so every method has to find the factor 3
        def points(factor: float, top: float, whole: float = whole) -> list[tuple[float, float]]:
            return [(factor * 2**k, whole * (1 - 10 ** (-(3 + 2 * k) / 10))) for k in np.linspace(0, top, 5)]

        found = bd.delta(curve(points(1, 4), metric), curve(points(3, 5), metric))
        assert found.pchip == pytest.approx(200) and found.akima == pytest.approx(200)
        assert found.overlap == pytest.approx(4 / 5)
        assert bd.shared(curve(points(1, 5), metric), curve(points(3, 4), metric)) == 1  # a longer anchor is no want of overlap


# ---- what is left out


def test_points_that_another_beats_are_left_out() -> None:
    beaten = [(2000, 34.0), (2486.44, 36.0), (5000, 38.0), (9500, 40.037)]
    assert curve([*beaten, *ANCHOR]) == curve(ANCHOR)
    assert curve(ANCHOR).bpp == (1358.24, 2486.44, 4593.60, 9487.76)


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(20, 50)), max_size=12))
def test_a_curve_is_what_no_point_beats(points: list[tuple[float, float]]) -> None:
    best = {point for point in points if not any(r <= point[0] and s >= point[1] and (r, s) != point for r, s in points)}
    assert list(zip(curve(points).bpp, curve(points).score, strict=True)) == sorted(best)


@pytest.mark.parametrize(
    ("metric", "ends", "inside"),
    [
        ("psnr_y", (99.0, 100.0, math.inf), 98.9),
        ("xpsnr_y", (99.0, math.inf), 60.0),
        ("ms_ssim", (0.0, 1.0, 0.99999), 0.9999),
        ("vmaf", (0.0, 99.9, 100.0), 99.8),
        ("vmaf_neg", (0.0, 100.0), 0.1),
    ],
)
def test_saturated_points_are_left_out(metric: str, ends: tuple[float, ...], inside: float) -> None:
    for score in ends:
        assert curve([(1, score)], metric).bpp == ()
    assert curve([(1, inside)], metric).bpp == (1,)


def test_a_run_without_the_metric_is_no_point() -> None:
    assert bd.curve([run(1, 30), run(2, 90, "vmaf")], "vmaf").bpp == (2,)


# ---- rows


def test_a_row_of_a_clip_and_its_mean() -> None:
    ours = [(2 * rate, quality) for rate, quality in ANCHOR]
    rows = bd.rows(document(*files(ours, "nvc:hnerv"), *files(ANCHOR, "x265")))
    expected = {"codec": "nvc:hnerv", "anchor": "x265", "metric": "psnr_y", "pchip": 100.0, "akima": 100.0, "overlap": 1.0}
    assert row(rows) == {**expected, "clip": "a", "clips": 1, "reason": ""}
    assert row(rows, None) == {**expected, "clip": None, "clips": 1, "reason": ""}
    assert [each["metric"] for each in rows] == [*bd.METRICS, *bd.METRICS]
    none = "NVC:HNERV has no usable points and X265 has no usable points of VMAF; 2 are needed"
    assert row(rows, metric="vmaf")["reason"] == none


def test_a_mean_is_over_the_clips_that_have_a_figure_with_the_least_overlap() -> None:
    far = [(rate, quality + 20) for rate, quality in ANCHOR]
    wide = [(3 * rate, quality) for rate, quality in ANCHOR]
    rows = bd.rows(
        document(
            *files(ANCHOR, "x265", "a"), *files([(0.5 * rate, quality) for rate, quality in ANCHOR], "nvc:hnerv", "a"),
            *files(ANCHOR[:3], "x265", "b"), *files(wide, "nvc:hnerv", "b"),
            *files(far, "x265", "c"), *files(ANCHOR, "nvc:hnerv", "c"),
            clips="abc",
        )
    )  # fmt: skip
    of_a, of_b = row(rows, "a"), row(rows, "b")
    assert of_a["pchip"] == -50 and 190 < of_b["pchip"] < 210
    assert row(rows, None)["pchip"] == pytest.approx((of_a["pchip"] + of_b["pchip"]) / 2, abs=0.011)
    assert row(rows, None)["akima"] == pytest.approx((of_a["akima"] + of_b["akima"]) / 2, abs=0.011)
    assert row(rows, None)["overlap"] == of_b["overlap"] == round((40.037 - 36.845) / (40.037 - 34.851), 4)
    assert row(rows, None)["clips"] == 2 and row(rows, None)["reason"] == ""


def test_without_a_common_quality_there_is_no_figure_but_a_reason() -> None:
    far = [(rate, quality - 10) for rate, quality in ANCHOR]
    rows = bd.rows(document(*files(far, "nvc:hnerv"), *files(ANCHOR, "x265")))
    reason = "no PSNR-Y in common: NVC:HNERV 24.85 dB to 30.04 dB, X265 34.85 dB to 40.04 dB"
    empty = {"pchip": None, "akima": None, "clips": 0}
    assert row(rows) == {**empty, "clip": "a", "codec": "nvc:hnerv", "anchor": "x265", "metric": "psnr_y"} | {
        "overlap": 0.0,
        "reason": reason,
    }
    mean = row(rows, None)
    assert {**mean, **empty, "overlap": None, "reason": "no clip has a figure"} == mean
    assert bd.difference(curve(ANCHOR), curve(far)) is None


def test_a_sliver_in_common_gives_no_figure() -> None:
    for gap, some in ((0.031, True), (0.029, False)):  # of the codec's range of 3 dB
        low, high = [(1, 30), (2, 32 + gap)], [(1, 32), (2, 35)]
        assert (bd.delta(curve(low), curve(high)).pchip is not None) == some
        assert (bd.difference(curve(low), curve(high)) is not None) == some
    rows = bd.rows(document(*files([(1, 30), (2, 32.01)], "nvc:hnerv"), *files([(1, 32), (2, 35)], "x265")))
    assert row(rows)["reason"].startswith("under 1 % of PSNR-Y in common: ") and row(rows)["overlap"] == 0.005


def test_one_point_is_too_few() -> None:
    rows = bd.rows(document(*files(ANCHOR[:1], "nvc:hnerv"), *files(ANCHOR, "x265")))
    assert row(rows)["reason"] == "NVC:HNERV has 1 usable point of PSNR-Y; 2 are needed"
    assert row(rows)["pchip"] is row(rows)["akima"] is row(rows)["overlap"] is None


def test_nothing_to_compare_gives_no_rows() -> None:
    empty = document()
    assert bd.rows({**empty, "codecs": empty["codecs"][:1]}) == bd.rows({**empty, "codecs": []}) == []
    assert {each["clip"] for each in bd.rows({**empty, "clips": []})} == {None}


def test_every_codec_of_nvc_meets_every_anchor_on_every_clip_and_in_the_mean() -> None:
    sample = results()
    rows = bd.rows(sample)
    keys = [(each["clip"], each["codec"], each["anchor"], each["metric"]) for each in rows]
    ids = {kind: [codec["id"] for codec in sample["codecs"] if codec["kind"] == kind] for kind in ("nvc", "anchor")}
    clips = [*(clip["name"] for clip in sample["clips"]), None]
    assert keys == [(c, n, a, m) for c in clips for n in ids["nvc"] for a in ids["anchor"] for m in bd.METRICS]
    for each, theirs in zip(rows, sorted(sample["bd"], key=lambda bd_row: keys.index(_key(bd_row))), strict=True):
        assert (each["pchip"] is None) == (theirs["pchip"] is None) and each["clips"] == theirs["clips"]
        if each["clip"] and each["metric"] == "psnr_y" and each["pchip"] is not None:  # straight lines, so all methods agree
            assert each["pchip"] == pytest.approx(theirs["pchip"], rel=0.01)


def _key(each: dict[str, Any]) -> tuple[Any, ...]:
    return each["clip"], each["codec"], each["anchor"], each["metric"]


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    with pytest.raises(MachineError, match=r"bjontegaard.*nvc-codec\[report\]") as caught:
        bd.delta(curve(ANCHOR), curve(TEST))
    assert caught.value.code == "machine.extra"
