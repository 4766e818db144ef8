"""The benches of the fit: no job runs twice, what they set is put back, and their figures are those of simple cases."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import subprocess
import sys
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nvc.bitstream.header import Header
from nvc.bitstream.tensors import Kind
from nvc.codec import fit, layers, target
from nvc.codec.canvas import to_canvas
from nvc.codec.config import Design, FitConfig, Tokens
from nvc.codec.models import vqnerv
from nvc.codec.network import Network
from nvc.codec.plan import EncodeOptions, overhead_bytes, plan_encode
from nvc.codec.target import Target
from nvc.codec.video import Clip

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))  # scripts, not a package
clips, jobs, ablations, published = (importlib.import_module(name) for name in ("clips", "jobs", "ablations", "published"))
fit_speed, rd_gain, targets = (importlib.import_module(name) for name in ("fit_speed", "rd_gain", "targets"))
tokens, token_tables, gates = (importlib.import_module(name) for name in ("tokens", "token_tables", "gates"))
provenance = importlib.import_module("provenance")

CONFIG = FitConfig(passes=1)
TINY = ("synthetic:pan", "--scale", "32x24", "--frames", "0:3", "--passes", "1")

pytestmark = pytest.mark.usefixtures("one_thread")


def numbered(ran: list[int], *numbers: int) -> list[Any]:
    """Jobs that note in `ran` that they ran."""

    def job(number: int) -> Any:
        def run() -> dict[str, int]:
            ran.append(number)
            return {"square": number**2}

        return jobs.Job(f"job {number}", {"number": number}, run)

    return [job(number) for number in numbers]


# ---- jobs


def test_a_job_that_has_a_result_is_not_run_again(tmp_path: Path) -> None:
    path, ran = tmp_path / "results.jsonl", []  # type: ignore[var-annotated]
    jobs.run(numbered(ran, 1, 2, 2), jobs.Journal(path))
    assert ran == [1, 2]
    journal = jobs.Journal(path)
    jobs.run(numbered(ran, 2, 3, 1), journal)
    assert ran == [1, 2, 3]
    assert [journal.result(job) for job in numbered([], 1, 2, 3)] == [{"square": 1}, {"square": 4}, {"square": 9}]


def test_each_result_is_in_the_file_before_the_next_job_starts(tmp_path: Path) -> None:
    path, ran = tmp_path / "results.jsonl", []  # type: ignore[var-annotated]

    def fail() -> dict[str, int]:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        jobs.run([*numbered(ran, 1), jobs.Job("fails", {"number": 2}, fail)], jobs.Journal(path))
    assert [json.loads(line)["result"] for line in path.read_text().splitlines()] == [{"square": 1}]


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_half_written_last_line_is_ignored_and_its_job_runs_again(tmp_path: Path, cut: int) -> None:
    path, ran = tmp_path / "results.jsonl", []  # type: ignore[var-annotated]
    jobs.run(numbered(ran, 1, 2), jobs.Journal(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: -1 - cut])
    for _ in range(2):
        jobs.run(numbered(ran, 1, 2, 3), jobs.Journal(path))
    assert ran == [1, 2, 2, 3]


def test_the_parts_share_the_jobs_and_see_what_the_others_did(tmp_path: Path) -> None:
    path, first, second, last = tmp_path / "results.jsonl", [], [], []  # type: ignore[var-annotated]
    journal = jobs.Journal(path)  # opened before the other part writes
    jobs.run(numbered(first, *range(7)), jobs.Journal(path), (1, 2))
    jobs.run(numbered(second, *range(7)), journal, (2, 2))
    jobs.run(numbered(last, *range(7)), journal)
    assert first == [0, 2, 4, 6] and second == [1, 3, 5] and last == []
    for number, of in ((0, 2), (3, 2)):
        with pytest.raises(argparse.ArgumentTypeError):
            jobs.part(f"{number}/{of}")


def test_two_parts_never_share_a_job_that_is_named_twice() -> None:
    ran: list[int] = []
    for number in (1, 2):
        jobs.run(numbered(ran, 0, 0, 1, 1), jobs.Journal(None), (number, 2))  # at the same time, so without each other's results
    assert ran == [0, 1]


def test_a_setting_is_put_back_and_must_exist() -> None:
    before = layers.INITIAL_GAIN
    with pytest.raises(KeyError), jobs.setting(layers, "INITIAL_GAIN", before + 1):
        assert before + 1 == layers.INITIAL_GAIN
        raise KeyError
    assert before == layers.INITIAL_GAIN
    with pytest.raises(AttributeError), jobs.setting(layers, "INITIAL_GIAN", 1.0):
        pass
    assert not hasattr(layers, "INITIAL_GIAN")


# ---- rate and distortion


def curve(scale: float = 1.0, better: float = 0.0) -> list[dict[str, float]]:
    return [{"bytes": scale * 1000 * 2**i, "psnr_611": 30 + 3 * i - 0.1 * i**2 + better} for i in range(5)]


@pytest.mark.parametrize("method", rd_gain.METHODS)
def test_bd_rate_is_that_of_curves_whose_answer_is_known(method: str) -> None:
    assert rd_gain.bd_rate(curve(), curve(), "psnr_611", method) == pytest.approx(0, abs=1e-9)
    assert rd_gain.bd_rate(curve(), curve(0.5), "psnr_611", method) == pytest.approx(-50)
    assert rd_gain.bd_rate(curve(), curve(3), "psnr_611", method) == pytest.approx(200)
    assert math.isnan(rd_gain.bd_rate(curve(), curve(better=20), "psnr_611", method))


def test_the_envelope_has_what_no_file_beats_within_the_sizes_and_no_dents() -> None:
    def point(size: float, psnr: float) -> dict[str, float]:
        return {"bytes": size, "psnr_611": psnr}

    best = [point(2**i, 3 * i - 0.1 * i**2) for i in range(6)]  # rises by less each time
    dented = [point(3, 3.0), point(12, 9.3), point(24, 10.6)]  # under the line between two neighbours, over the smaller
    beaten = [point(2, 2.0), point(9, 5.0), point(40, 12.4)]
    files = [*beaten, *best, *dented]
    assert [p["bytes"] for p in rd_gain.pareto(files, "psnr_611")] == [1, 2, 3, 4, 8, 12, 16, 24, 32]
    assert rd_gain.envelope(files, "psnr_611", (1, 100)) == best
    assert rd_gain.envelope(files, "psnr_611", (2, 16)) == best[1:5]


def test_sizes_of_the_published_networks_reach_beyond_nvcs_files() -> None:
    source = jobs.Source("pan", clips.open_clip("synthetic:pan", (48, 32), (0, 2)))
    sizes = rd_gain.network_sizes(source, (1.0, 4.0))
    assert len(sizes) == 4 and list(sizes) == sorted(sizes)
    assert sizes[0] == round(48 * 32 * 2 / 6) and sizes[-1] == round(1.5 * 4 * 48 * 32 * 2 / 6)


# ---- ablations


@pytest.mark.parametrize("variant", [v for question in ablations.QUESTIONS.values() for v in question], ids=lambda v: str(v.name))
def test_every_variant_is_a_valid_encode(variant: Any) -> None:
    assert set(variant.fit) <= {field.name for field in fields(FitConfig)}
    assert set(variant.design) <= {field.name for field in fields(Design)}
    assert all(hasattr(ablations.CONSTANTS[name], name) for name in variant.constants)
    options = variant.options(60, 4.0, 0)
    assert {name: getattr(options.fit, name) for name in variant.fit} == variant.fit
    assert {name: getattr(options.design, name) for name in variant.design} == variant.design
    assert options.fit.quantise_at < options.fit.full_rate_at < options.fit.hard_at or variant.name.startswith("rounding at 0.7")
    plan_encode(clips.open_clip("synthetic:pan", (48, 32), (0, 4)), options)


def test_variants_have_names_of_their_own_and_batches_say_what_is_equal() -> None:
    for question in ablations.QUESTIONS.values():
        assert len({variant.name for variant in question}) == len(question)
    usual = ablations.DEFAULT.options(60, 0.2, 0).fit
    for variant in ablations.QUESTIONS["batch"]:
        config = variant.options(60, 0.2, 0).fit
        default = config.batch == usual.batch
        assert (config.steps(64) == usual.steps(64)) == ("steps" in variant.name or "both" in variant.name or default)
        assert (config.passes == usual.passes) == ("steps" not in variant.name)


def test_adam_leaves_the_learning_rate_of_the_steps_as_it_is() -> None:
    for variant in ablations.QUESTIONS["optimiser"]:
        config = variant.options(60, 0.2, 0).fit
        assert config.lr * config.step_lr == pytest.approx(ablations.BASE.lr * ablations.BASE.step_lr)


def test_equal_bytes_takes_three_decibels_for_a_doubling() -> None:
    default = {"bytes": 1000, "target": 1000, "psnr_y": 30.0, "psnr_611": 31.0, "seconds": 1.0}
    larger = {**default, "bytes": 2000, "psnr_611": 34.5}
    line = ablations.row("larger", [(larger, default), (default, default)], 2)
    assert line[6:] == ["+0.25", "+0.00 to +0.50", 2] and line[2] == "+50.0"


def test_a_constant_is_set_while_its_variant_runs_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(jobs, "encoded", lambda *_: seen.append(fit.RATE_EVERY) or {})
    source = jobs.Source("pan", clips.open_clip("synthetic:pan", (32, 24), (0, 2)))
    options = type("Options", (), {"passes": 1, "bpp": 8.0})
    before = fit.RATE_EVERY
    planned = [ablations.plan(source, v, 0, options, torch.device("cpu")) for v in ablations.QUESTIONS["rate_every"]]
    for job in planned:
        job.run()
    assert seen == [1, 4, 8] and before == fit.RATE_EVERY
    assert [job.key["constants"]["RATE_EVERY"] for job in planned] == [1, 4, 8]


# ---- published


def test_the_published_file_pays_for_a_container_that_grows_with_its_frames_but_not_for_multipliers() -> None:
    short, long = (clips.open_clip("synthetic:pan", (48, 32), (0, n)) for n in (4, 12))
    small, large = published.container_bytes(short), published.container_bytes(long)
    assert 8 * 8 <= large - small <= 8 * 8 + 8  # the hash of a frame has 8 bytes
    options = EncodeOptions()
    plan = plan_encode(short, options)
    scales = sum(parameter.kind is Kind.MULTIPLIER for parameter in plan.analysis.parameters)
    whole = overhead_bytes(short, options, plan.model, plan.analysis, plan.ranges)
    assert 2 * scales <= whole - small <= 2 * scales + 16  # 16 bits each and their section


# ---- tokens


def outcome(own: dict[tuple[int, str], list[dict[str, float]]], rates: int) -> Any:
    """Of one variant `own` beside curve() of two clips a and b and two seeds; keys are (seed, clip)."""
    names = [f"rate {i}" for i in range(rates)]
    results = {(clip, names[i], "hnerv", seed): curve()[i] for clip in "ab" for seed in range(2) for i in range(rates)}
    results |= {(clip, names[i], "own", seed): each[i] for (seed, clip), each in own.items() for i in range(len(each))}
    return token_tables.Outcome(results, "hnerv", ["own"], names, range(2))


def cells(table: str) -> list[str]:
    """Those of the only line of a table."""
    header, _, line = table.strip().split("\n")
    assert header.count("|") == line.count("|")
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_twice_the_bytes_are_worth_three_decibels_and_a_float_fit_has_none() -> None:
    small, large = {"bytes": 1000, "psnr_611": 30.0}, {"bytes": 2000, "psnr_611": 33.25}
    assert token_tables.gain(large, small) == pytest.approx(0.25) and token_tables.gain(small, large) == pytest.approx(-0.25)
    assert token_tables.gain({"psnr_611": 31.0}, {"psnr_611": 30.5}) == pytest.approx(0.5)


def test_differences_have_mean_and_sample_deviation_over_seeds_and_clips() -> None:
    better = {(0, "a"): 0.0, (1, "a"): 1.0, (0, "b"): 2.0, (1, "b"): 3.0}
    whole = outcome({at: curve(better=value)[:2] for at, value in better.items()}, 2)
    both = f"+1.50 ± {math.sqrt(5 / 3):.2f}"
    assert cells(whole.differences("ab")) == ["own", both, both, both, "8"]
    assert cells(whole.differences("a")) == ["own", *[f"+0.50 ± {math.sqrt(0.5):.2f}"] * 3, "4"]


def test_a_mean_over_rates_is_of_clips_and_seeds_that_have_them_all() -> None:
    part = outcome({(0, "a"): curve(better=1)[:1], (1, "a"): curve(better=3)[:2]}, 2)
    assert cells(part.differences("a")) == ["own", f"+2.00 ± {math.sqrt(2):.2f}", "+3.00", "+3.00", "3 of 4"]
    assert cells(outcome({}, 2).differences("a")) == ["own", "not run", "not run", "not run", "0 of 4"]


def test_bd_rates_are_each_seeds_own_and_negative_where_tokens_save_bytes() -> None:
    whole = outcome({(0, "a"): curve(0.5)[:4], (1, "a"): curve(2)[:4], (0, "b"): curve(better=50)[:4]}, 4)
    *_, mean, each, fits = cells(whole.differences("a"))
    assert mean == f"+25.0 ± {math.sqrt(2) * 75:.1f}" and each == "-50.0, +100.0" and fits == "8"
    *_, mean, each, fits = cells(whole.differences("b"))
    assert mean == "not run" and each == "no common PSNR" and fits == "4 of 8"


def test_a_codebook_of_usage_has_sixteen_tokens_for_a_code_at_least() -> None:
    place = (jobs.Source("pan", clips.open_clip("synthetic:pan", (64, 48), (0, 40))), Target(bpp=2.0))
    options = argparse.Namespace(full=False, block="added")
    for variant in tokens.usage(place, options):
        plan = plan_encode(place[0].clip, variant.options(place[1], 1, 0))
        _, height, width = vqnerv.Network(plan.config).latents[1].shape
        assert 2 < variant.tokens.levels <= 40 * height * width / 16 < variant.tokens.levels + 1
        assert not variant.tokens.priced


@pytest.mark.parametrize("full", [False, True])
def test_the_larger_map_is_larger_and_the_other_forms_have_the_maps_they_are_named_for(full: bool) -> None:
    width, height = (1280, 640) if full else (160, 90)
    planes = tuple(np.zeros((1, height // n, width // n), dtype=np.uint8) for n in (1, 2, 2))
    header = Header(width=width, height=height, pixel_format=0, frame_rate=Fraction(25), frame_count=1)
    place = (jobs.Source("black", Clip(header, planes, (0,), ())), Target(bpp=4.0))
    found: dict[str, list[int]] = {}
    for variant in tokens.forms(place, argparse.Namespace(full=full)):
        plan = plan_encode(place[0].clip, variant.options(place[1], 1, 0))
        found[variant.name] = [spec.count for spec in plan.analysis.specs(1) if spec.kind is Kind.TOKENS]
    (default,), (larger,) = found["added"], found["added, larger map"]
    assert larger > 2 * default and found["added, residual tokens"] == [default, default]
    assert len(set(found["added, two scales"])) == 2
    assert [len(maps) for name, maps in found.items() if "scalars" in name] == [0, 0]


def test_parts_share_the_jobs_that_are_the_same_and_no_others() -> None:
    place = (jobs.Source("pan", clips.open_clip("synthetic:pan", (32, 24), (0, 3))), Target(bpp=12))
    options = argparse.Namespace(full=False, block="added")
    names: dict[str, set[str]] = {}
    for part in tokens.PARTS.values():
        for variant in (part.anchor, *part.variants(place, options)):
            job = tokens.plan(*place[:1], variant, place[1], 0, 1, torch.device("cpu"))
            names.setdefault(job.name, set()).add(variant.name)
    assert {"added, with pool", "added", "128 codes of 8"} in names.values()
    assert all({name} in names.values() for name in ("hnerv", "affine", "InstanceNorm", "paper", "added, scalars"))


def test_the_normalised_block_gives_its_convolution_zero_mean_and_unit_variance() -> None:
    block = tokens.Normalised(4, (6, 10), 8, Tokens(), 15, layers.ACTIVATIONS["hswish"])
    seen: list[torch.Tensor] = []
    block.merge.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-100, 100, (2, 8, *block.map), generator=generator).float()
    block(300 + 700 * torch.randn(2, 4, 6, 10, generator=generator), None, codes)
    values = seen[0].detach().double() * 2.0**-9  # an activation's unit
    assert values.shape == (2, 12, 6, 10)
    torch.testing.assert_close(values.mean((2, 3)), torch.zeros(2, 12).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.square().mean((2, 3)), torch.ones(2, 12).double(), atol=1e-2, rtol=0)


def test_a_float_fit_rounds_nothing_has_no_rate_and_is_measured_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, blocks = clips.open_clip("synthetic:pan", (32, 24), (0, 3)), dict(vqnerv.BLOCKS)
    monkeypatch.setattr(fit.Fit, "_steer", lambda self: pytest.fail("a float fit has no rate"))
    made = tokens.fit_in_float(clip, tokens.INSTANCE.options(Target(bpp=12), 4, 0), tokens.Normalised, torch.device("cpu"))
    assert made.steps == 6 and not made.tables
    assert not any(layer.quantise_weights for layer in made.network.convolutions())
    assert [type(block) for block in made.network.details] == [tokens.Normalised] and blocks == vqnerv.BLOCKS
    state = {name: value.clone() for name, value in made.network.state_dict().items()}
    quality = tokens.fitted_quality(made, clip)
    torch.testing.assert_close(made.network.state_dict(), state, atol=0, rtol=0)
    with torch.no_grad():  # luma alone, on the canvas: four of its channels, where they have a weight
        index = torch.arange(3)
        codes = [latent(real, index) for latent, real in zip(made.latents, made.reals(index), strict=True)]
        canvas = to_canvas(clip.planes, 2, made.network.grid.size)
        luma = made.network(codes)[:, :4] - canvas.frames[:, :4]
        squared = (luma.square() * (canvas.weights[:4] > 0)).sum((1, 2, 3)) / (32 * 24)
    assert quality.frames["y"] == pytest.approx([10 * math.log10(255**2 / float(value)) for value in squared], abs=1e-3)


def test_full_is_the_published_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    small = clips.open_clip("synthetic:pan", (32, 24), (0, 3))
    monkeypatch.setattr(tokens, "read_clip", lambda name, options: read.append((name, options)) or small)
    options = argparse.Namespace(full=True, frames=None, clips=["folder/bunny.mp4"], bpp=None)
    (source,) = tokens.sources(options)
    ((name, reading),) = read
    assert name == "folder/bunny.mp4" and source.name == "bunny.mp4 in RGB"
    assert (reading.crop, reading.pix_fmt, reading.frames, reading.scale) == ((1280, 640), "rgb24", (0, 132), None)
    sizes = tokens.targets(tokens.PARTS["ablation"], options)
    assert list(sizes) == ["0.35 M", "0.75 M", "1.5 M", "3 M"]
    for wanted, parameters in zip(sizes.values(), (0.35e6, 0.75e6, 1.5e6, 3e6), strict=True):
        assert wanted.size * 8 * target.SHARE / parameters == pytest.approx(target.USUAL_BITS)
    with pytest.raises(SystemExit):
        tokens.main(["forms", "synthetic:pan", "--full", "--scale", "32x24"])


def test_a_record_names_the_clips_by_their_folder_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVC_CLIPS", "/somewhere/clips/")
    options = argparse.Namespace(device="cpu", threads=1)
    text = provenance.record("tokens", options, ["norm", "/somewhere/clips/bunny.mp4", "--seeds", "1"])
    assert "    python bench/tokens.py norm $NVC_CLIPS/bunny.mp4 --seeds 1\n" in text and "commit" in text


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that what two parts have in common runs once."""
    return tmp_path_factory.mktemp("tokens") / "o.jsonl"


@pytest.mark.parametrize(
    ("part", "fits", "names"),
    [
        ("ablation", 5, ("| pooled, with pool |", "| added, without pool |")),
        ("codebook", 8, ("| 1024 codes of 8 |", "| 128 codes of 64 |")),
        ("forms", 9, ("| added, residual tokens |", "| paper |", "| pooled, scalars |")),
        ("usage", 5, ("| pooled, without pool |",)),
        ("norm", 2, ("| InstanceNorm |", "dB beside affine")),
    ],
)
def test_every_part_of_tokens_runs_and_resumes(
    part: str,
    fits: int,
    names: tuple[str, ...],
    journal: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [part, *TINY, "--bpp", "12", "--seeds", "1", "--json", str(journal)]
    tokens.main(arguments)
    first = capsys.readouterr().out
    for run in ("encoded", "fitted_in_float"):
        monkeypatch.setattr(tokens, run, lambda *_: pytest.fail("ran again"))
    tokens.main(arguments)
    assert capsys.readouterr().out == first and all(name in first for name in names)
    assert first.count("| 12 bpp |") == fits and "not run" not in first


# ---- the scripts


def test_targets_runs_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*TINY, "--bpp", "8", "--json", str(tmp_path / "o.jsonl")]
    targets.main(arguments)
    first = capsys.readouterr().out
    monkeypatch.setattr(jobs, "encoded", lambda *_: pytest.fail("ran again"))
    targets.main(arguments)
    assert capsys.readouterr().out == first and first.count("| synthetic:pan") == 1 and "largest deviation" in first


def test_rd_gain_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rd_gain, "BITS", (4, 8))
    rd_gain.main([*TINY, "--bpp", "6,7,9,12", "--parameters", "2000"])
    out = capsys.readouterr().out
    assert out.count("| nvc |") == 4 and "MISSING" not in out and "| mean over 1 | tuned | PSNR-Y |" in out


def test_gates_compares_two_forms_and_puts_the_tables_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [getattr(owner, name) for owner, name, _ in gates.PIECEWISE]
    arguments = [*TINY, "--bpp", "8", "--seeds", "2", "--json", str(tmp_path / "o.jsonl")]
    gates.main(arguments)
    assert "± " in capsys.readouterr().out
    assert [getattr(owner, name) for owner, name, _ in gates.PIECEWISE] == before
    results = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    tables, straight = ([e["result"]["psnr_611"] for e in results if e["key"]["piecewise"] is form] for form in (False, True))
    assert len(tables) == len(straight) == 2 and tables != straight


def test_ablations_run_the_default_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    encoded = jobs.encoded
    monkeypatch.setattr(jobs, "encoded", lambda *given: ran.append(given) or encoded(*given))
    ablations.main([*TINY, "--bpp", "8", "--seeds", "0", "--only", "skip,channel_steps"])
    out = capsys.readouterr().out
    assert len(ran) == 3 and out.count("(default) |") == 2 and "not run" not in out


def test_fit_speed_runs(capsys: pytest.CaptureFixture[str]) -> None:
    fit_speed.main(["--sizes", "32x24:2000", "--frames", "0:3", "--batches", "2", "--repeats", "1"])
    assert capsys.readouterr().out.count("| 32x24, 2 k, batch 2 |") == 4


def test_a_profile_gives_every_group_its_share_and_leaves_nothing_labelled(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    before = [getattr(owner, name) for owner, name, _ in fit_speed.CALLS]
    fit_speed.main(["--sizes", "32x24:2000", "--frames", "0:3", "--batches", "1", "--profile", "--json", str(path)])
    spent = json.loads(path.read_text())["result"]
    assert set(spent) == set(fit_speed.GROUPS) and all(value > 0 for value in spent.values())
    assert [getattr(owner, name) for owner, name, _ in fit_speed.CALLS] == before


@pytest.mark.parametrize("phase", ["float", "rounded", "hard"])
def test_a_turn_is_within_its_phase(phase: str) -> None:
    source = jobs.Source("pan", clips.open_clip("synthetic:pan", (32, 24), (0, 3)))
    fitted, _ = fit_speed.build(fit_speed.Subject(source, 2000), 2, "eager", torch.device("cpu"))
    looked: list[torch.Tensor] = []
    fitted.objective.steer.steer = lambda bits, steps: looked.append(bits)
    fit_speed.turns(fitted, phase)()
    network: Network = fitted.network
    assert all(layer.quantise_weights == (phase != "float") for layer in network.convolutions())
    assert (not fitted.tables) == (phase == "float") and len(looked) == (0 if phase == "float" else fit_speed.TURN // 10)
    bounds = {"float": (0, CONFIG.quantise_at), "rounded": (CONFIG.full_rate_at, CONFIG.hard_at), "hard": (CONFIG.hard_at, 1)}
    first = fit_speed.first_step(phase, fitted.steps)
    assert bounds[phase][0] * fitted.steps < first < first + fit_speed.TURN < bounds[phase][1] * fitted.steps
    assert first % fit_speed.TURN == 0 and sum(fit_speed.PHASES.values()) == pytest.approx(1)


def test_each_launch_is_a_job_of_its_own_and_says_what_it_fell_back_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def compare(subject: Any, batch: int, phase: str, launch: str, repeats: int, device: torch.device) -> dict[str, Any]:
        asked.append(launch)
        speeds = {"nvc": 1.0, "plain": 1.0, "ratio": 1.0, "least": 1.0, "largest": 1.0}
        return {**speeds, "note": "" if launch == "eager" else "no compiler"}

    monkeypatch.setattr(fit_speed, "compare", compare)
    for launch, lines in (("eager", 0), ("compile", 3), ("eager", 0)):
        arguments = ["--sizes", "32x24:2000", "--frames", "0:3", "--batches", "2", "--launch", launch]
        fit_speed.main([*arguments, "--json", str(tmp_path / "o.jsonl")])
        assert capsys.readouterr().out.count("no compiler") == lines
    assert asked == ["eager"] * 3 + ["compile"] * 3


def test_a_fit_is_built_with_the_launch_that_was_asked_for() -> None:
    source = jobs.Source("pan", clips.open_clip("synthetic:pan", (32, 24), (0, 3)))
    fitted, _ = fit_speed.build(fit_speed.Subject(source, 2000), 1, "eager", torch.device("cpu"))
    assert (fitted.config.launch, fitted.config.batch) == ("eager", 1)


def test_report_makes_its_clip_and_goes_on_with_the_same_command(tmp_path: Path) -> None:
    script = Path(jobs.__file__).with_name("report.py")
    options = ["--size", "64x64", "--count", "3", "--output", str(tmp_path / "out"), "--codecs", "svtav1", "--bpp", "0.02"]
    for _ in range(2):
        subprocess.run([sys.executable, str(script), *options], check=True, capture_output=True)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["clips"][0]["frames"] == 3 and {run["codec"] for run in found["runs"]} == {"svtav1"}
