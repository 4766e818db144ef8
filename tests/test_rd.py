"""bench/rd.py: what it measures is what the files hold, nothing is made twice, and its BD-rates are those of known curves."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nvc.codec.report.measure import measure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))  # scripts, not a package
clips, jobs, rd, rd_tables = (importlib.import_module(name) for name in ("clips", "jobs", "rd", "rd_tables"))

TINY = ("--tiny", "--models", "vqnerv")
KEY = {"bench": "rd", "clip": "a.mp4", "frames": 2, "width": 100, "height": 50}
NVC = {**KEY, "side": "nvc", "codec": "nvc:hnerv", "setting": {"preset": "fast"}}
X265 = {**KEY, "side": "anchors", "codec": "x265", "setting": {"set": "benchmark", "options": ["-preset", "veryslow"]}}
CURVE = ((1000, 30.0), (2000, 33.0), (4000, 35.5), (8000, 37.0))  # bytes and PSNR-Y

Line = dict[str, Any]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The journal of all of --tiny, made in two runs of which the first dies within its second encode, and nvc's files."""
    folder = tmp_path_factory.mktemp("rd")
    path, kept, encode = folder / "rd.jsonl", [], rd.encode

    def kept_encode(clip: Any, file: Any, *others: Any) -> Any:
        if len(kept) == 1 and len(lines(path)) == 1 and not (folder / "killed").exists():
            (folder / "killed").touch()
            raise KeyboardInterrupt
        made = encode(clip, file, *others)
        file.seek(0)
        kept.append(folder / f"{len(kept)}.nvc")
        kept[-1].write_bytes(file.read())
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rd, "encode", kept_encode)
        with pytest.raises(KeyboardInterrupt):
            rd.main([*TINY, "--json", str(path)])
        rd.main([*TINY, "--json", str(path)])
    return path, kept


def lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, curve: Line, points: tuple[tuple[int, float], ...], times: float = 1.0) -> None:
    """Append the points of a curve to a journal, with so many times the bytes."""
    with path.open("a") as file:
        for number, (size, psnr) in enumerate(points):
            size = round(times * size)
            result = {"bytes": size, "bpp": 8 * size / 10_000, "psnr_y": psnr, "psnr_611": psnr + 1, "seconds": 1.0, "made": {}}
            file.write(json.dumps({"key": {**curve, "rate": {"crf": number}}, "result": result}) + "\n")


def said(path: Path) -> str:
    """What is printed of all that a journal holds."""
    doc = rd_tables.document(rd_tables.entries([jobs.Journal(path)]))
    doc["bd"] = rd_tables.bd.rows(doc)
    return str(rd_tables.comparisons(doc))


# ---- runs


def test_a_killed_run_goes_on_and_encodes_nothing_twice(
    recorded: tuple[Path, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, kept = recorded
    made = [(line["key"]["codec"], *line["key"]["rate"].values()) for line in lines(path)]
    wanted = [("nvc:vqnerv", bpp) for bpp in rd.TINY_BPP]
    wanted += [(name, crf) for name, (_, ladder) in rd.TINY.items() for crf in ladder]
    assert made == wanted and len(kept) == len(rd.TINY_BPP)
    before = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("encode", "command", "measure"):
            patch.setattr(rd, name, None)  # cannot be called
        rd.main([*TINY, "--json", str(path)])
    assert path.read_bytes() == before
    assert "MISSING" not in capsys.readouterr().out


def test_the_figures_of_nvc_are_those_of_its_files_as_the_anchors_are_measured(
    recorded: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    path, kept = recorded
    source = tmp_path / "source.mkv"
    clip = clips.open_clip("synthetic:pan", (48, 32), (0, 4))
    with rd.open_sink(str(source), clip.header, overwrite=True) as sink:
        sink.write(clip.planes, clip.pts)
    result = lines(path)[len(kept) - 1]["result"]
    quality = measure(str(source), str(kept[-1]), metrics=("psnr",)).quality()  # decodes in a fresh process
    assert result["psnr_y"] == pytest.approx(quality["psnr_y"]["mean"], abs=1e-3)
    assert result["psnr_611"] == pytest.approx(quality["psnr_611"]["mean"], abs=1e-3)
    assert result["bytes"] == kept[-1].stat().st_size
    assert result["bpp"] == pytest.approx(8 * kept[-1].stat().st_size / (48 * 32 * 4), abs=1e-6)


def test_anchors_count_as_streams_without_their_message_and_tell_which_they_are(recorded: tuple[Path, list[Path]]) -> None:
    for line in lines(recorded[0])[len(rd.TINY_BPP) :]:
        result, encoder = line["result"], line["key"]["codec"]
        message = {"x264": 600, "x265": 1500, "svtav1": 0}[encoder]  # x264's is at least 0.6 KB, x265's 1.5 KB
        assert 0 < result["bytes"] < result["file_bytes"] - message
        assert re.match({"x264": r"x264 - core \d", "x265": r"x265 \(", "svtav1": "SVT-AV1 "}[encoder], result["made"]["encoder"])
        assert result["made"]["ffmpeg"] and "torch" not in result["made"]


def test_the_tables_name_all_files_and_who_wins(recorded: tuple[Path, list[Path]], capsys: pytest.CaptureFixture[str]) -> None:
    rd.main([*TINY, "--json", str(recorded[0])])
    out = capsys.readouterr().out
    for line in lines(recorded[0]):
        result = line["result"]
        assert f"| {result['bytes']} | {result['bpp']:.4f} | {result['psnr_y']:.2f} | {result['psnr_611']:.2f} |" in out
    assert re.search(r"^\| synthetic:pan, nvc VQ-NeRV fast against x264 ultrafast \| \+\d", out, flags=re.MULTILINE)
    assert "nvc VQ-NeRV fast loses all 3 comparisons with x264 ultrafast, x265 ultrafast and SVT-AV1 preset 12" in out
    assert "commit" in out and "torch" in out and "x264 - core" in out and "python bench/rd.py --tiny" in out


def test_sides_that_were_made_apart_give_the_tables_that_they_give_together(
    recorded: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, ours, theirs = recorded[0].read_text().splitlines(keepends=True), tmp_path / "ours", tmp_path / "theirs"
    ours.write_text("".join(whole[: len(rd.TINY_BPP)]))
    theirs.write_text("".join(whole[len(rd.TINY_BPP) :]))
    before = ours.read_bytes(), theirs.read_bytes()
    outputs = []
    for arguments in (["--json", str(recorded[0])], ["--json", str(ours), "--with", str(theirs), "--side", "nvc"]):
        rd.main([*TINY, *arguments])
        outputs.append(capsys.readouterr().out.partition("synthetic:pan, 4 frames")[2])
    assert outputs[0] == outputs[1]
    assert (ours.read_bytes(), theirs.read_bytes()) == before
    assert rd_tables.readme_table(ours, theirs) == rd_tables.readme_table(recorded[0])


def test_a_side_without_the_other_tells_what_is_missing_and_no_bd_rate(
    recorded: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = recorded[0].read_text().splitlines(keepends=True), tmp_path / "rd.jsonl"
    path.write_text("".join(whole[: len(rd.TINY_BPP)]))
    monkeypatch.setattr(rd.anchors, "available", None)  # the side nvc asks for no encoder
    rd.main([*TINY, "--json", str(path), "--side", "nvc"])
    out = capsys.readouterr().out
    for name, (_, ladder) in rd.TINY.items():
        assert f"MISSING: synthetic:pan {name}: {', '.join(f'crf {crf}' for crf in ladder)}" in out
    assert "No BD-rate: nothing is there of the side anchors." in out and "loses" not in out and "who wins" not in out
    path.write_text("".join(whole[len(rd.TINY_BPP) :]))
    monkeypatch.undo()
    rd.main([*TINY, "--json", str(path), "--side", "anchors"])
    out = capsys.readouterr().out
    assert "MISSING: synthetic:pan nvc:vqnerv: bpp 1.5, bpp 5\n" in out
    assert "No BD-rate: nothing is there of the side nvc." in out and "loses" not in out and "who wins" not in out


def test_files_of_a_device_that_is_not_here_can_be_shown(
    recorded: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rd.jsonl"
    path.write_text(recorded[0].read_text().replace('"device": "cpu"', '"device": "cuda"'))
    monkeypatch.setattr(rd.jobs, "run", None)  # nothing is run
    for device in ("cuda", "cpu"):
        rd.main([*TINY, "--json", str(path), "--side", "none", "--device", device])
        out = capsys.readouterr().out
        assert ("who wins" in out) == (device == "cuda") and ("MISSING" in out) == (device == "cpu")


def test_what_cannot_be_made_is_told_and_does_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rd.jsonl"
    odd = ["--tiny", "--models", "hnerv", "--scale", "45x33", "--anchors", "x264,svtav1", "--bpp", ".001", "--json", str(path)]
    rd.main(odd)
    told = capsys.readouterr()
    assert "without x264: x264 takes only even sides" in told.err and "hnerv 0.001 bpp: " in told.err
    assert [line["key"]["codec"] for line in lines(path)] == ["svtav1"]  # and no more of it: the first is over twice 0.001 bpp
    assert "MISSING: synthetic:pan nvc:hnerv: bpp 0.001" in told.out and "MISSING: synthetic:pan svtav1" not in told.out


def test_a_chain_ends_with_the_first_file_that_is_larger_than_needed() -> None:
    ran: list[int] = []

    def job(number: int) -> Any:
        def run() -> Line:
            ran.append(number)
            return {"bpp": number / 10}

        return jobs.Job(f"{number}", {"number": number, "side": "nvc", "codec": "nvc", "clip": ""}, run)

    chains, journal = [rd.Chain([job(n) for n in range(5)], most=0.15), rd.Chain([job(9)])], jobs.Journal(None)
    rd.run(chains, journal, (2, 2))
    assert ran == [9]
    rd.run(chains, journal, (1, 2))
    rd.run(chains, journal, (1, 1))
    assert ran == [9, 0, 1, 2]


# ---- keys


def test_keys_and_results_carry_no_path(
    recorded: tuple[Path, list[Path]], tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "/" not in recorded[0].read_text()
    first = make_video("clip.mp4")
    second = tmp_path / "elsewhere" / "clip.mp4"
    second.parent.mkdir()
    shutil.copy(first, second)
    monkeypatch.chdir(second.parent)
    names = []
    for path in (str(first), str(second), "clip.mp4"):
        options = rd.parsed([path])
        chains = rd.plan(jobs.sources(options)[0], options, torch.device("cpu"), rd.References(str(tmp_path)))
        names.append([job.name for chain in chains for job in chain.jobs])
    assert names[0] == names[1] == names[2] and "/" not in "".join(names[0])
    assert len(set(names[0])) == len(names[0])


def test_every_nth_crf_is_a_part_of_all_of_them(tmp_path: Path) -> None:
    plans = []
    for arguments in ([], ["--every", "2"]):
        options = rd.parsed(["synthetic:pan", "--scale", "32x32", "--frames", "0:1", *arguments])
        chains = rd.plan(jobs.sources(options)[0], options, torch.device("cpu"), rd.References(str(tmp_path)))
        plans.append([[job.name for job in chain.jobs] for chain in chains if chain.jobs[0].key["side"] == "anchors"])
    assert [each[::2] for each in plans[0]] == plans[1] and len(plans[0]) == 3


# ---- figures


@pytest.mark.parametrize(
    ("times", "rate", "ratio", "outcome", "winner"),
    [
        (1.0, "+0.0", "1.00", "ties with", "nobody"),
        (2.0, "+100.0", "2.00", "loses to", "x265 veryslow"),
        (0.5, "-50.0", "0.50", "wins against", "nvc HNeRV fast"),
    ],
)
def test_the_bd_rate_of_a_curve_at_a_multiple_of_the_bits(
    tmp_path: Path, times: float, rate: str, ratio: str, outcome: str, winner: str
) -> None:
    path = tmp_path / "rd.jsonl"
    write(path, X265, CURVE)
    write(path, NVC, CURVE, times)
    out = said(path)
    figures = [rate, rate, rate, "100", "30.00 to 37.00", ratio, ratio, ratio, winner]
    assert f"| a.mp4, nvc HNeRV fast against x265 veryslow | {' | '.join(figures)} |" in out
    assert f"nvc HNeRV fast {outcome} x265 veryslow on a.mp4" in out
    head, _, row = rd_tables.readme_table(path).splitlines()
    assert head == "| BD-rate in PSNR-Y | a.mp4 | mean |"
    assert row == f"| nvc HNeRV fast against x265 veryslow | {float(rate):+.0f} % | {float(rate):+.0f} % |"


def test_ratios_are_those_at_the_ends_of_what_the_curves_share(tmp_path: Path) -> None:
    path = tmp_path / "rd.jsonl"
    write(path, X265, ((1000, 30.0), (2000, 34.0)))  # 30 + 4 log2(kB)
    write(path, NVC, ((2000, 32.0), (8000, 36.0)))  # 32 + 2 log2(kB / 2)
    # at 32 dB 2000 bytes beside 1000 * 2^0.5, at 33 dB 2000 * 2^0.5 beside 1000 * 2^0.75, at 34 dB 4000 beside 2000
    assert "| 50 | 32.00 to 34.00 | 1.41 | 1.68 | 2.00 |" in said(path)


def test_the_mean_is_over_the_clips_and_a_clip_without_a_figure_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rd.jsonl"
    for clip, times in (("a.mp4", 2.0), ("b.mp4", 4.0)):
        write(path, {**X265, "clip": clip}, CURVE)
        write(path, {**NVC, "clip": clip}, CURVE, times)
    write(path, {**X265, "clip": "c.mp4"}, CURVE)
    write(path, {**NVC, "clip": "c.mp4"}, ((500, 20.0), (900, 25.0)))
    head, _, row = rd_tables.readme_table(path).splitlines()
    assert head == "| BD-rate in PSNR-Y | a.mp4 | b.mp4 | c.mp4 | mean |"
    assert row == "| nvc HNeRV fast against x265 veryslow | +100 % | +300 % | none | +200 % |"
    assert "On c.mp4 there is no BD-rate (no PSNR-Y in common" in said(path)


def test_curves_that_differ_in_their_settings_or_clips_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "rd.jsonl"
    write(path, X265, CURVE)
    write(path, NVC, CURVE, 2.0)
    write(path, {**NVC, "setting": {"preset": "fast", "seed": 1}}, CURVE, 4.0)
    write(path, {**X265, "frames": 9}, CURVE)
    write(path, {**NVC, "frames": 9}, CURVE, 3.0)
    _, _, *rows = rd_tables.readme_table(path).splitlines()
    assert rows == [
        "| nvc HNeRV fast against x265 veryslow | +100 % | +200 % | +150 % |",
        "| nvc HNeRV fast (2) against x265 veryslow | +300 % | none | +300 % |",
    ]


def test_lines_of_other_benches_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rd.jsonl"
    write(path, X265, CURVE)
    write(path, {**X265, "bench": "rd_gain", "clip": "other.mp4"}, CURVE)
    assert {each["clip"] for each, _ in rd_tables.entries([jobs.Journal(path)])} == {"a.mp4"}
