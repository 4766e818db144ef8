"""The verdict agrees with the figures: its words with the signs, its numbers with rows and files, whatever was measured."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_files import results

from nvc.codec.report import bd
from nvc.codec.report.verdict import verdict

Json = dict[str, Any]
LABELS = {"nvc:hnerv": "nvc HNeRV", "nvc:vqnerv": "nvc VQ-NeRV", "x264": "x264 medium", "x265": "x265 medium"}


NONE = "no PSNR-Y in common"


def document(
    figures: Mapping[tuple[str, str, str], float | None],
    files: Mapping[tuple[str, str], Sequence[tuple[int, float]]] | None = None,
) -> Json:
    """Results with BD-rates in PSNR-Y by clip, codec and anchor; files (bytes, PSNR-Y) by clip and codec, by default alike."""
    clips = sorted({clip for clip, _, _ in figures})
    codecs = sorted({name for _, *names in figures for name in names}, key=list(LABELS).index)
    files = files or {(clip, codec): [(1000, 30.0)] for clip in clips for codec in codecs}
    rows = [row(clip, codec, anchor, value, int(value is not None)) for (clip, codec, anchor), value in figures.items()]
    for codec, anchor in dict.fromkeys((codec, anchor) for _, codec, anchor in figures):
        of_pair = [value for key, value in figures.items() if key[1:] == (codec, anchor) and value is not None]
        rows.append(row(None, codec, anchor, sum(of_pair) / len(of_pair) if of_pair else None, len(of_pair)))
    return {
        "settings": {"anchors": "benchmark"},
        "clips": [{"name": clip, "frames": 100, "width": 1920, "height": 1080} for clip in clips],
        "codecs": [{"id": name, "label": LABELS[name], "kind": "nvc" if "nvc" in name else "anchor"} for name in codecs],
        "runs": [run(*key, *file) for key, each in files.items() for file in each],
        "bd": rows,
    }


def row(clip: str | None, codec: str, anchor: str, value: float | None, clips: int, overlap: float = 0.9) -> Json:
    return {
        "clip": clip, "codec": codec, "anchor": anchor, "metric": "psnr_y", "pchip": value, "akima": value,
        "overlap": overlap if value is not None else 0.0, "clips": clips, "reason": "" if value is not None else f"{NONE}: ...",
    }  # fmt: skip


def run(clip: str, codec: str, size: int, quality: float) -> Json:
    made: Json = {"clip": clip, "codec": codec, "bytes": size, "bpp": size / 1000, "quality": {"psnr_y": {"mean": quality}}}
    made["encode"] = {"seconds": 250.0 if "nvc" in codec else 0.5}
    made["decode"] = [{"device": "cpu", "fps": 60.0 if "nvc" in codec else 1250.0}]
    return made


def sentence(lines: Sequence[str], codec: str = "nvc HNeRV", anchor: str = "x265 medium") -> str:
    (found,) = (line for line in lines[1:] if line.startswith(f"{codec} ") and anchor in line)
    return found


# ---- the headline


def test_a_loss_is_called_a_loss_and_by_how_much() -> None:
    lines = verdict(document({("a", "nvc:hnerv", "x265"): 730.0, ("b", "nvc:hnerv", "x265"): 500.0}))
    assert lines[0] == (
        "nvc HNeRV loses both comparisons with x265 medium (2 clips), by PSNR-Y. At equal PSNR-Y it needs 7.2 times the bits."
    )
    assert lines[1] == (
        "nvc HNeRV loses to x265 medium on both clips. It needs 7.2 times the bits (+615 %) at equal PSNR-Y, mean of 2 clips "
        "(PCHIP; Akima +615 %; least overlap 90 %)."
    )


def test_a_win_is_called_a_win_in_the_same_words() -> None:
    lines = verdict(document({("a", "nvc:hnerv", "x265"): -12.34}))
    assert lines[0] == "nvc HNeRV wins the only comparison with x265 medium (clip a), by PSNR-Y. BD-rate: -12.3 %."
    assert lines[1].startswith(
        "nvc HNeRV wins against x265 medium on a. It needs 12.3 % fewer bits at equal PSNR-Y, on a (PCHIP;"
    )


def test_a_mixed_outcome_says_both_losses_first() -> None:
    figures = {("a", "nvc:hnerv", "x264"): -5.0, ("a", "nvc:hnerv", "x265"): 40.0}
    figures |= {("b", "nvc:hnerv", "x264"): 3.0, ("b", "nvc:hnerv", "x265"): 60.0}
    lines = verdict(document(figures))
    assert lines[0].startswith("nvc HNeRV loses 3 and wins 1 of 4 comparisons with x264 medium and x265 medium (2 clips)")
    assert lines[0].endswith("BD-rate: -1.0 % to +50.0 %.")
    mixed = sentence(lines, anchor="x264 medium")
    assert mixed.startswith("nvc HNeRV loses to x264 medium on b and wins on a. It needs 1.0 % fewer bits")


def test_models_share_a_headline() -> None:
    figures = {(clip, codec, "x265"): 50.0 for clip in "abc" for codec in ("nvc:hnerv", "nvc:vqnerv")}
    lines = verdict(document(figures))
    assert lines[0] == "nvc loses all 6 comparisons with x265 medium (2 models, 3 clips), by PSNR-Y. BD-rate: +50.0 %."
    assert "on all 3 clips" in sentence(lines) and "on all 3 clips" in sentence(lines, "nvc VQ-NeRV")


def test_equal_is_neither() -> None:
    lines = verdict(document({("a", "nvc:hnerv", "x265"): 0.0}))
    assert lines[0].startswith("nvc HNeRV ties the only comparison") and "It needs as many bits at equal PSNR-Y" in lines[1]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcde"), st.sampled_from(["nvc:hnerv", "nvc:vqnerv"]), st.sampled_from(["x264", "x265"])),
        st.one_of(st.none(), st.floats(-99, 5000).map(lambda value: round(value, 2))),
        min_size=1,
    ),
    st.integers(-80, 80).map(lambda tenths: tenths / 10),
)
def test_words_agree_with_signs(figures: dict[tuple[str, str, str], float | None], gap: float) -> None:
    clips, codecs = {key[0] for key in figures}, {name for key in figures for name in key[1:]}
    ours, anchors = (sorted(name for name in codecs if ("nvc" in name) == own) for own in (True, False))
    figures = {key: figures.get(key) for key in itertools.product(sorted(clips), ours, anchors)}
    quality = {codec: 30 + (gap if "nvc" in codec else 0) for codec in codecs}
    files = {(clip, codec): [(1000, quality[codec])] for clip in clips for codec in codecs}
    lines = verdict(document(figures, files))
    outcomes = [value if value is not None else -gap for value in figures.values()]
    spoken = " ".join(lines)
    assert bool(re.search(r"\bloses\b", spoken)) == any(value > 0 for value in outcomes)
    assert bool(re.search(r"\bwins?\b", spoken)) == any(value < 0 for value in outcomes)
    for codec, anchor in {key[1:] for key in figures}:
        said = sentence(lines, LABELS[codec], LABELS[anchor])
        have = [value for key, value in figures.items() if key[1:] == (codec, anchor) and value is not None]
        mean = sum(have) / len(have) if have else None
        assert ("It needs" in said) == (mean is not None)
        if mean is not None:
            assert ("more bits" in said or "times the bits" in said) == (round(mean, 2) > 0)
            assert ("fewer bits" in said) == (round(mean, 2) < 0)
        if len(have) < len(clips):
            assert ("dB below" in said) == (round(gap, 1) < 0) and ("dB above" in said) == (round(gap, 1) > 0)
    assert not re.search(r"\b1 (clips|frames|comparisons|models)\b|[a-z] 1 clips|-0\.0+ %|\bnan\b|None", spoken)


# ---- numbers


@pytest.mark.parametrize(
    ("percent", "words"),
    [
        (0.4, "0.40 % more bits"), (36.42, "36.4 % more bits"), (-99.0, "99.0 % fewer bits"), (150.0, "150 % more bits"),
        (199.9, "200 % more bits"), (200.0, "3.0 times the bits (+200 %)"), (730.0, "8.3 times the bits (+730 %)"),
    ],
)  # fmt: skip
def test_large_differences_are_multiples(percent: float, words: str) -> None:
    assert f"It needs {words} at equal PSNR-Y" in sentence(verdict(document({("a", "nvc:hnerv", "x265"): percent})))


def test_a_small_overlap_is_said_with_the_gap_at_equal_bytes_and_a_warning() -> None:
    files = {("a", "nvc:hnerv"): [(1000, 28.0), (2000, 30.0)], ("a", "x265"): [(500, 29.0), (1100, 33.9), (2100, 34.1)]}
    made = document({("a", "nvc:hnerv", "x265"): 300.0}, files)
    for each in made["bd"]:
        each["overlap"] = 0.413
    lines = verdict(made)
    assert "overlap only 41 %" in sentence(lines) and "At about equal bytes it is 4.1 to 5.9 dB below." in sentence(lines)
    assert lines[-1].startswith("A BD-rate whose overlap is below 75 %")
    for each in made["bd"]:
        each["overlap"] = 0.75
    assert "overlap 75 %)" in sentence(verdict(made)) and "only" not in sentence(verdict(made))
    assert not verdict(made)[-1].startswith("A BD-rate whose")


def test_without_a_bd_rate_files_decide() -> None:
    lost = {("a", "nvc:hnerv"): [(1000, 26.0), (2000, 28.0)], ("a", "x265"): [(900, 32.0), (2000, 34.0)]}
    lines = verdict(document({("a", "nvc:hnerv", "x265"): None}, lost))
    assert lines[0] == "nvc HNeRV loses the only comparison with x265 medium (clip a), by PSNR-Y."
    assert sentence(lines) == (
        "nvc HNeRV loses to x265 medium on a. "
        "There is no BD-rate (no PSNR-Y in common: ...); at about equal bytes it is 6.0 dB below."
    )
    swapped = {("a", "nvc:hnerv"): lost["a", "x265"], ("a", "x265"): lost["a", "nvc:hnerv"]}
    assert verdict(document({("a", "nvc:hnerv", "x265"): None}, swapped))[0].startswith("nvc HNeRV wins the only comparison")


def test_files_that_no_size_compares_are_undecided() -> None:
    apart = {("a", "nvc:hnerv"): [(100, 21.0), (1000, 26.0)], ("a", "x265"): [(5000, 32.0), (9000, 34.0)]}
    lines = verdict(document({("a", "nvc:hnerv", "x265"): None}, apart))
    assert lines[0] == "The only comparison of nvc HNeRV with x265 medium (clip a), by PSNR-Y, is undecided."
    assert sentence(lines) == (
        "nvc HNeRV is undecided against x265 medium on a. There is no BD-rate (no PSNR-Y in common: ...); "
        "at the nearest sizes, nvc's 0.20 times the anchor's, it is 6.0 dB below."
    )
    assert not re.search(r"\b(wins?|loses?)\b", " ".join(lines))


def test_a_mean_says_which_clips_it_leaves_out() -> None:
    figures = {(clip, "nvc:hnerv", "x265"): value for clip, value in (("a", 20.0), ("b", 40.0), ("c", None))}
    files = {(clip, codec): [(1000, 30.0 if codec == "x265" else 26.0)] for clip in "abc" for codec in ("nvc:hnerv", "x265")}
    said = sentence(verdict(document(figures, files)))
    assert "30.0 % more bits at equal PSNR-Y, mean of 2 of 3 clips" in said
    assert said.endswith("On c there is no BD-rate (no PSNR-Y in common: ...); at about equal bytes it is 4.0 dB below.")


def test_time_is_the_median_per_frame_with_nvc_first() -> None:
    lines = verdict(document({("a", "nvc:hnerv", "x265"): 5.0}))
    assert "Seconds to encode a frame, median over files: nvc HNeRV 2.5, x265 medium 0.005." in lines
    figures = "median over files: nvc HNeRV 60, x265 medium 1,250 (cpu)."
    assert f"Frames decoded a second, without the start of the program, {figures}" in lines
    given = document({("a", "nvc:hnerv", "x265"): 5.0})
    for each in given["runs"]:
        each["encode"] = None
    assert not any("encode" in line for line in verdict(given))


def test_the_limits_of_the_test_are_said() -> None:
    made = document({("a", "nvc:hnerv", "x265"): 5.0, ("b", "nvc:hnerv", "x265"): 5.0})
    assert verdict(made)[-1] == "The test has 2 clips, 100 frames of 1920x1080 each; the figures hold for these alone."
    made["clips"][0] |= {"frames": 1, "width": 160, "height": 90}
    made["settings"]["anchors"] = "user"
    few, tuned = verdict(made)[-2:]
    assert few == (
        "The test has 2 clips, 1 frame of 160x90 and 100 frames of 1920x1080; the figures hold for these alone. "
        "It is shorter and smaller than common tests are (96 frames, 416x240 at least)."
    )
    assert tuned.startswith("The anchors run as users run them, not tuned for PSNR")


# ---- odd ends


def test_little_or_nothing_measured_is_said_plainly() -> None:
    empty: Json = {"settings": {"anchors": "user"}, "clips": [], "codecs": [], "runs": [], "bd": []}
    assert verdict(empty) == ["No file of nvc was measured, so there is nothing to say about it.", "No clip was tested."]
    made = document({("a", "nvc:hnerv", "x265"): 5.0})
    alone = {**made, "codecs": made["codecs"][:1], "runs": made["runs"][:1], "bd": []}
    assert verdict(alone)[0] == "nvc HNeRV was measured beside no other codec, so nothing is won or lost here."
    others = {**made, "codecs": made["codecs"][1:], "runs": made["runs"][1:], "bd": []}
    assert verdict(others)[0].startswith("No file of nvc was measured") and any(
        "x265 medium 0.005" in line for line in verdict(others)
    )


def test_a_given_file_of_one_clip_is_not_compared_on_another() -> None:
    figures = {(clip, codec, "x265"): 50.0 for clip in "ab" for codec in ("nvc:hnerv", "nvc:vqnerv")}
    made = document({**figures, ("b", "nvc:vqnerv", "x265"): None})
    made["runs"] = [each for each in made["runs"] if (each["clip"], each["codec"]) != ("b", "nvc:vqnerv")]
    lines = verdict(made)
    assert lines[0].startswith("nvc loses all 3 comparisons") and "nvc VQ-NeRV loses to x265 medium on a." in sentence(
        lines, "nvc VQ-NeRV"
    )


def test_the_sample_is_lost_everywhere() -> None:
    sample = results()
    sample["bd"] = bd.rows(sample)
    lines = verdict(sample)
    assert lines[0].startswith("nvc loses all 12 comparisons") and not re.search(r"\bwins?\b", " ".join(lines))
    means = {(r["codec"], r["anchor"]): r["pchip"] for r in sample["bd"] if r["clip"] is None and r["metric"] == "psnr_y"}
    labels = {codec["id"]: codec["label"] for codec in sample["codecs"]}
    for (codec, anchor), percent in means.items():
        assert f"needs {1 + percent / 100:.1f} times the bits" in sentence(lines, labels[codec], labels[anchor])
