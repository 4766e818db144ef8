"""The bench of speed: what it counts, when it stops, what it reckons from speeds, and that all of it runs where it is small."""

from __future__ import annotations

import importlib
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nvc.bitstream.errors import VerificationError
from nvc.codec.config import PRESETS
from nvc.codec.decode import Decoder, verify

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))  # scripts, not a package
ceilings, clips, fit_speed, jobs = (importlib.import_module(name) for name in ("ceilings", "clips", "fit_speed", "jobs"))
speed, runs, tables = (importlib.import_module(name) for name in ("speed", "speed_runs", "speed_tables"))

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PHASES = ("float", "rounded", "hard")

pytestmark = pytest.mark.usefixtures("one_thread")


def subject(pixel_format: int = 0, frames: int = 3, parameters: int = 2000) -> Any:
    """A clip of noise, 32x24, 4:2:0 or RGB, and a network for it."""
    clip = clips.open_clip("synthetic:pan", (32, 24), (0, frames))
    header = replace(clip.header, pixel_format=pixel_format)
    random = np.random.default_rng(0)
    planes = tuple(random.integers(0, 256, (frames, *shape), dtype=np.uint8) for shape in header.plane_shapes())
    return fit_speed.Subject(jobs.Source("noise", replace(clip, header=header, planes=planes)), parameters)


# ---- ceilings


def test_a_product_has_two_operations_for_each_multiply_add_and_a_copy_reads_and_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "timed", lambda run, device: [0.25, 0.5, 4.0])
    assert ceilings.product("float32", CPU, 8) == 2 * 8**3 / 0.5
    assert ceilings.copy(CPU, 1000) == 2000 / 0.5


def test_each_type_is_multiplied_as_that_type(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def timed(run: Any, device: torch.device) -> list[float]:
        seen.append((str(run().dtype), torch.backends.cuda.matmul.fp32_precision))
        return [1.0]

    before = torch.backends.cuda.matmul.fp32_precision
    monkeypatch.setattr(ceilings, "timed", timed)
    for kind in ceilings.KINDS:
        ceilings.product(kind, CPU, 8)
    assert seen == [("torch.bfloat16", "ieee"), ("torch.float32", "tf32"), ("torch.float32", "ieee")]
    assert torch.backends.cuda.matmul.fp32_precision == before
    assert set(ceilings.kinds(CUDA)) == set(ceilings.KINDS) and "tf32" not in ceilings.kinds(CPU)


def test_calls_are_timed_by_themselves_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []

    def run() -> None:
        calls.append(None)
        now[0] += len(calls)

    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: now[0])
    first = ceilings.WARM_UP + 1
    assert ceilings.timed(run, CPU, 3) == [first, first + 1, first + 2]


def test_a_gpu_is_timed_by_its_own_clock_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, synchronised = [0.0], []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = clock[0]

        def elapsed_time(self, end: Event) -> float:
            assert synchronised, "the device may not be there yet"
            return end.at - self.at

    def run() -> None:
        clock[0] += 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronised.append)
    assert ceilings.timed(run, CUDA, 4) == [0.25] * 4


@pytest.mark.parametrize("pixel_format", [0, 1])
def test_a_pass_forward_is_what_the_program_counts(pixel_format: int) -> None:
    file = runs.random_file(subject(pixel_format), 4, CPU)
    with torch.no_grad(), ceilings.Work() as work:
        file.network([file.codes])
    assert work.flops == {"float32": 2 * file.analysis.macs * 4}


def test_a_step_is_counted_as_pytorch_counts_it_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_speed, "TURN", 4)
    monkeypatch.setattr(runs, "TURN", 4)
    small = subject()
    for phase in PHASES:
        fit = small.fit(small.canvas(CPU), replace(runs.PHASED, launch="eager"))
        turn = fit_speed.turns(fit, phase)
        with FlopCounterMode(display=False) as counter:
            turn()
        counted = runs.counted(small, phase, CPU)["flops"]
        assert sum(counted.values()) * fit_speed.TURN == pytest.approx(counter.get_total_flops())
        forward = 2 * runs.random_file(small, 4, CPU).analysis.macs * 2  # of a batch of two
        assert sum(counted.values()) > 3 * forward  # the backward pass twice as much, and the optimiser's products
        assert counted["bfloat16"] > 0  # Muon's


def test_bytes_are_those_of_operands_and_results_once() -> None:
    a, out = torch.ones(3, 5), torch.empty(3, 7)
    b = torch.ones(5, 7)
    with ceilings.Work() as work:
        torch.mm(a, b, out=out)
    assert work.bytes == 4 * (15 + 35 + 21)
    with ceilings.Work() as work:
        torch.mm(a.bfloat16(), b.bfloat16())
    assert work.bytes == 2 * (15 + 35 + 21) and work.flops == {"bfloat16": 2 * 3 * 5 * 7}


def test_types_add_up_to_one_time_unless_a_ceiling_is_unknown() -> None:
    assert ceilings.least_seconds({"bfloat16": 10, "tf32": 30}, {"bfloat16": 5, "tf32": 10, "float32": 1}) == 5
    assert ceilings.least_seconds({"bfloat16": 10, "tf32": 30}, {"bfloat16": 5}) is None


# ---- what follows from speeds


def phases(rate: float, warm: float, note: str = "") -> dict[str, Any]:
    """All phases with the same speed and start."""
    return {phase: {"rate": rate, "warm": warm, "note": note} for phase in PHASES}


def test_a_fit_takes_the_start_of_each_phase_and_its_share_of_the_steps() -> None:
    speeds = phases(1.0, 0.0) | {"float": {"rate": 10.0, "warm": 5.0}, "hard": {"rate": 50.0, "warm": 2.0}}
    assert tables.seconds_of(1000, speeds) == pytest.approx(5 + 150 / 10 + 600 / 1 + 2 + 250 / 50)


def test_a_slow_start_pays_for_long_presets_alone() -> None:
    launches = {"eager": phases(20.0, 0.0), "graph": phases(50.0, 1.0), "compile": phases(80.0, 60.0)}
    # 3 + n / 50 = 180 + n / 80 at n = 23,600; 132 frames have 66 steps a pass
    chosen = {name: tables.best(config.steps(132), launches) for name, config in PRESETS.items()}
    assert chosen == {"draft": "graph", "fast": "graph", "medium": "graph", "slow": "compile", "veryslow": "compile"}
    found = tables.Found(132, 2, steps=launches)
    lines = tables.presets(found).splitlines()
    assert "| medium | 19800 | 990 | 399 | 428 | graph |" in lines and "| slow | 39600 | 1980 | 795 | 675 | compile |" in lines


def test_a_launch_that_fell_back_or_lacks_a_phase_is_not_chosen() -> None:
    launches = {"eager": phases(1.0, 0.0), "graph": phases(9.0, 0.0, "could not be recorded"), "compile": phases(9.0, 0.0)}
    del launches["compile"]["hard"]
    assert tables.best(100, launches) == "eager" and tables.best(100, {}) is None
    assert tables.launch_of_races(tables.Found(4, 2)) == PRESETS["medium"].launch
    assert "could not be recorded" in tables.steps(tables.Found(4, 2, steps=launches))


CURVE = [(1.0, 25, 20.0), (3.0, 125, 27.9), (4.0, 175, 28.0), (5.0, 225, 27.0), (6.0, 275, 31.0)]


def test_a_psnr_is_reached_at_the_first_look_that_shows_it() -> None:
    assert [tables.reached(CURVE, value) for value in (20, 28, 28.1, 31, 31.1)] == [1.0, 4.0, 6.0, 6.0, None]


def test_what_was_not_measured_is_reckoned_from_the_pace_after_the_start_and_says_so() -> None:
    race = {"steps": 1275, "curve": CURVE, "note": ""}
    assert tables.whole(race) == (pytest.approx(6 + 1000 / 50), "from 50.0 steps/s")
    assert tables.whole({**race, "curve": CURVE[:1]}) == (pytest.approx(1 + 1250 / 25), "from 25.0 steps/s")
    assert tables.whole({**race, "steps": 275}) == (6.0, "measured")
    assert tables.whole(race, phases(10.0, 1.0)) == (pytest.approx(3 + 127.5), "from 10.0, 10.0, 10.0 steps/s")
    assert tables.whole({**race, "steps": 275}, phases(10.0, 1.0)) == (6.0, "measured")


@given(st.floats(0.5, 500), st.floats(0, 100), st.integers(1, 60), st.integers(25, 10**5))
def test_a_steady_pace_is_continued_whatever_the_start_took(rate: float, start: float, looks: int, more: int) -> None:
    curve = [(start + 25 * n / rate, 25 * n, 30.0) for n in range(1, looks + 2)]
    steps = curve[-1][1] + more
    assert tables.whole({"steps": steps, "curve": curve})[0] == pytest.approx(start + steps / rate, rel=1e-6)


def test_the_ratio_is_that_of_the_plain_loop_over_nvc() -> None:
    lines = tables.verdict({"plain": (1200.0, "from 16.5 steps/s"), "float": (150.0, "measured"), "whole": (200.0, "measured")})
    assert "150 s (measured), 8.00 times" in lines[0] and "200 s (measured), 6.00 times" in lines[1] and "from 16.5" in lines[1]
    assert "5 times, 240 s" in lines[-1] and tables.verdict({"float": (1.0, "measured")}) == []


# ---- the races


def test_looking_does_not_count_and_the_time_is_over_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(runs.time, "perf_counter", lambda: now[0])

    def psnr() -> float:
        now[0] += 1000.0
        return 30.0

    watch, over, step = runs.Watch(60.0, psnr, CPU), False, 0
    while not over and step < 25_000:
        now[0] += 0.25
        step += 25
        over = watch.look(step)
    assert watch.curve[0] == (0.25, 25, 30.0) and watch.curve[-1][0] == pytest.approx(60.0, abs=0.5)
    assert runs.LOOKS - 1 <= len(watch.curve) <= runs.LOOKS + 1
    assert all(step == pytest.approx(100 * seconds) for seconds, step, _ in watch.curve)


def test_the_last_step_is_looked_at_however_soon() -> None:
    watch = runs.Watch(1e6, lambda: 30.0, CPU)
    assert [watch.look(step, last=step == 3) for step in (1, 2, 3)] == [False] * 3
    assert [step for _, step, _ in watch.curve] == [1, 3]


@pytest.mark.parametrize("pixel_format", [0, 1])
def test_decibels_are_those_of_the_visible_samples(pixel_format: int) -> None:
    small = subject(pixel_format, frames=11)
    planes = [plane.astype(float) for plane in small.source.clip.planes]
    errors = [float(((plane - 127.5) ** 2).mean()) for plane in planes]
    wanted = np.mean(errors) if pixel_format else (6 * errors[0] + errors[1] + errors[2]) / 8
    canvas = small.canvas(CPU)
    shown = runs.decibels(canvas, lambda index: torch.full((len(index), *canvas.frames.shape[1:]), 0.5))
    assert shown == pytest.approx(10 * math.log10(255**2 / wanted), abs=1e-3)


@pytest.mark.parametrize("side", ["plain", "float", "whole"])
def test_a_side_ends_with_its_last_step_or_with_the_time(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "EPOCHS", 20)
    for name, config in runs.NVC.items():
        monkeypatch.setitem(runs.NVC, name, replace(config, passes=20))
    race = runs.raced(subject(), side, "eager", 1e6, CPU)
    assert race["steps"] == 30 and race["curve"][-1][1] == 30 and tables.ended(race)
    assert 5 < race["curve"][-1][2] < 60 and race["curve"][0][0] <= race["curve"][-1][0]
    short = runs.raced(subject(), side, "eager", 0.0, CPU)
    assert short["curve"][-1][1] == 25 and not tables.ended(short)


def test_the_float_fit_is_never_rounded() -> None:
    config = runs.IN_FLOAT
    steps = config.steps(132)
    assert int(config.quantise_at * steps) >= steps and config.full_rate_at > 1
    assert steps == runs.WHOLE.steps(132) == 19_800


def test_notes_of_a_fit_come_with_its_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    built = fit_speed.Subject.fit

    def fit(self: Any, canvas: Any, config: Any) -> Any:
        made = built(self, canvas, config)
        made.notes.append(f"{config.launch} is not to be had")
        return made

    monkeypatch.setattr(fit_speed.Subject, "fit", fit)
    assert runs.stepped(subject(), "graph", "rounded", 0.0, CPU)["note"] == "graph is not to be had"


def test_steps_outside_a_fits_own_loop_are_on_its_stream() -> None:
    small = subject()
    fit = small.fit(small.canvas(CPU), runs.PHASED)
    inside: list[bool] = []

    class Stream:
        depth = 0

        def __enter__(self) -> None:
            Stream.depth += 1

        def __exit__(self, *_: object) -> None:
            Stream.depth -= 1

    fit._on_device = Stream
    fit._enter = lambda step: inside.append(Stream.depth > 0)
    fit._step = lambda step: inside.append(Stream.depth > 0)
    fit_speed.turns(fit, "hard")()
    assert len(inside) == 3 + 2 * fit_speed.TURN and all(inside)


# ---- decode


@pytest.mark.parametrize("pixel_format", [0, 1])
def test_the_random_file_is_a_file(pixel_format: int) -> None:
    file = runs.random_file(subject(pixel_format), 7, CPU)
    assert verify(io.BytesIO(file.data)) == 7
    frames = np.concatenate([batch.planes[0] for batch in Decoder(io.BytesIO(file.data)).frames()])
    assert frames.std(axis=0).max() > 0  # so that a hash tells frames apart


def test_a_wrong_hash_is_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "frame_hash", lambda frame: bytes(8))
    with pytest.raises(VerificationError):
        runs.decode(runs.random_file(subject(), 3, CPU), CPU)


def test_decoded_frames_are_all_frames_over_the_time_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "decode", lambda file, device: (0.5, 2.0))
    monkeypatch.setattr(fit_speed, "seconds", lambda call, device: call() or 4.0)
    result = runs.decoded(subject(), 6, 0.0, CPU)
    assert (result["nvc"], result["bare"], result["plain"], result["start"]) == (3.0, 1.5, 1.5, 0.5)


def test_the_share_of_the_ceiling_is_of_the_type_that_decodes() -> None:
    result = {"nvc": 500.0, "bare": 250.0, "plain": 1000.0, "start": 1.0, "frames": 8, "batch": 2, "macs": 10**9, "bytes": 10}
    found = tables.Found(4, 2, products={"bfloat16": 1e13, "tf32": 4e12, "float32": 2e12}, decode=result)
    assert "| decoder, every hash checked | 500.0 | 1.00 | 25 % |" in tables.decode(found)
    del found.products["tf32"]
    assert "| plain float32 | 1000.0 | 0.50 | 100 % |" in tables.decode(found)


# ---- the command


def test_all_parts_run_where_they_are_small_and_none_runs_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--tiny", "--launches", "eager", "--json", str(tmp_path / "o.jsonl")]
    speed.main(arguments)
    first = capsys.readouterr().out
    assert [line for line in first.splitlines() if line.startswith("## ")] == [
        "## Ceilings",
        "## Work of a step",
        "## Steps",
        "## Presets, reckoned from these speeds",
        "## Seconds to a PSNR, nvc with launch eager",
        "## Decode",
        "## Output",
    ]
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 3 + 3 + 3 + 3 + 1 + 1
    monkeypatch.setattr(jobs.Journal, "add", lambda *_: pytest.fail("ran again"))
    for arguments_again in (arguments, [*arguments, "--parts", "ceilings"]):
        speed.main(arguments_again)
        assert capsys.readouterr().out.split("\n## ")[1:] == first.split("\n## ")[1:]


def test_a_part_by_itself_is_all_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "o.jsonl"
    speed.main(["--tiny", "--parts", "ceilings", "--json", str(path)])
    assert {json.loads(line)["key"]["part"] for line in path.read_text().splitlines()} == {"ceilings"}
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")] == ["## Ceilings"]


def test_outputs_that_fail_leave_the_other_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(speed.subprocess, "run", fails)
    monkeypatch.setattr(speed, "record", lambda *_: "here")
    speed.main(["--tiny", "--parts", "ceilings,output"])
    out, error = capsys.readouterr()
    assert "## Ceilings" in out and "## Output" not in out and "sinks.py failed" in error


def test_the_defaults_are_the_papers_and_a_synthetic_clip_is_not_rgb(capsys: pytest.CaptureFixture[str]) -> None:
    options = speed.parsed(["bunny.mp4", "--seconds", "9"])
    assert (options.crop, options.frames, options.pix_fmt) == ((1280, 640), (0, 132), "rgb24")
    assert (options.parameters, options.seconds, options.launches) == (1.5e6, 9.0, ("eager", "graph", "compile"))
    for wrong in ([], ["synthetic:pan"], ["bunny.mp4", "--parts", "speed"]):
        with pytest.raises(SystemExit):
            speed.parsed(wrong)
    assert "give --pix-fmt yuv420p" in capsys.readouterr().err
