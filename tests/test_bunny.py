"""bench/bunny.py: its networks are those of the papers, its files those of `nvc encode`, and no interruption changes a result."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nvc.bitstream.errors import InputError
from nvc.bitstream.header import Header
from nvc.codec import checkpoint
from nvc.codec.decode import Decoder
from nvc.codec.encode import encode
from nvc.codec.video import Clip

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))  # scripts, not a package
bunny, bunny_table, jobs = (importlib.import_module(name) for name in ("bunny", "bunny_table", "jobs"))
bunny_cells = importlib.import_module("bunny_cells")

CPU = torch.device("cpu")
WANTED = [(model, how) for how in ("float", "file") for model in ("hnerv", "vqnerv")]  # of --tiny, in their order
FIGURES = ("psnr", "bytes", "bpp", "steps", "counted", "decoder", "notes")  # what must not depend on when and where
STEPS = bunny.TINY_PASSES * bunny.TINY_FRAMES[1] // 2
DEADLINE = 120.0  # seconds for another process to get somewhere

Line = dict[str, Any]
Cells = dict[tuple[str, str], Any]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny() -> Any:
    """The clip of --tiny."""
    return bunny.source(bunny.parsed(["--tiny"]))


@pytest.fixture(scope="module")
def cells(tiny: Any) -> Cells:
    """Those of --tiny by model and fit, in their order."""
    return {(cell.options.model, cell.how): cell for cell in bunny.cells(tiny, bunny.parsed(["--tiny"]), CPU)}


@pytest.fixture(scope="module")
def bare() -> Any:
    """The papers' clip but for its samples."""
    header = Header(width=1280, height=640, pixel_format=1, frame_rate=Fraction(25), frame_count=132)
    plane = np.zeros((1, 1, 1), np.uint8)
    return jobs.Source("bunny.mp4 in RGB", Clip(header, (plane, plane, plane), tuple(range(132)), ()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the journal and the files of all of --tiny, made without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    bunny.main(arguments(folder))
    return folder


def arguments(folder: Path, *others: str) -> list[str]:
    paths = (("--json", "j.jsonl"), ("--state", "state"), ("--files", "files"))
    return ["--tiny", *(word for name, path in paths for word in (name, str(folder / path))), *others]


def lines(folder: Path) -> list[Line]:
    path = folder / "j.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Wait until another process is so far; it must not end before."""
    end = time.monotonic() + DEADLINE
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the other process does not get there"
        time.sleep(0.002)


def saved(folder: Path) -> dict[str, int]:
    """The steps of the states that are whole, by the names of their folders."""
    found = {}
    for path in folder.glob(f"state/*/{checkpoint.INDEX}"):
        try:
            found[path.parent.name] = json.loads(path.read_text())["step"]
        except FileNotFoundError:
            continue  # it was dropped just now
    return found


# ---- interruptions


def test_no_interruption_changes_a_result_and_nothing_is_fitted_twice(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(*others: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "bench" / "bunny.py"), *arguments(tmp_path, "--save", "0.1", *others)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)

    asked = start()
    until(asked, lambda: any(saved(tmp_path).values()))
    asked.send_signal(signal.SIGTERM)
    said, _ = asked.communicate(timeout=DEADLINE)
    assert asked.returncode == 0
    ((_, step),) = saved(tmp_path).items()
    assert 0 < step < STEPS and not lines(tmp_path), "it was in the middle of its first fit"
    assert f"MISSING: hnerv 0.01 M float, saved at step {step} of {STEPS}" in said and said.count("MISSING") == len(WANTED)
    assert "| VQ-NeRV | 0.01 M | - |" in said, "the table comes all the same"

    killed = start("--together", "2")
    until(killed, lambda: bool(lines(tmp_path)) and any(0 < step < STEPS for step in saved(tmp_path).values()))
    killed.kill()
    killed.communicate(timeout=DEADLINE)
    assert killed.returncode == -signal.SIGKILL
    first, states, done = (tmp_path / "j.jsonl").read_bytes(), saved(tmp_path), lines(tmp_path)
    assert any(states.values()) and done[0]["result"]["together"] == 2, "it was in the middle of a fit"

    begun: dict[tuple[str, str], int] = {}
    going = bunny.Going.__init__

    def begin(self: Any, cell: Any, folder: Path) -> None:
        going(self, cell, folder)
        begun[cell.options.model, cell.how] = self.fit.step
        assert self.fit.step == states.get(cell.place, 0)

    monkeypatch.setattr(bunny.Going, "__init__", begin)
    bunny.main(arguments(tmp_path))
    ended = [(line["key"]["model"], line["key"]["as"]) for line in done]
    assert list(begun) == [which for which in WANTED if which not in ended] and any(begun.values())
    assert (tmp_path / "j.jsonl").read_bytes().startswith(first)
    assert "MISSING" not in capsys.readouterr().out and not list((tmp_path / "state").iterdir())

    made = {(line["key"]["model"], line["key"]["as"]): line for line in lines(tmp_path)}
    assert len(lines(tmp_path)) == len(WANTED)
    for one, which in zip(lines(whole), WANTED, strict=True):
        assert one["key"] == made[which]["key"]
        assert [one["result"].get(name) for name in FIGURES] == [made[which]["result"].get(name) for name in FIGURES]
    names = sorted(path.name for path in (whole / "files").iterdir())
    assert names == ["hnerv-0.01M.nvc", "vqnerv-0.01M.nvc"] == sorted(path.name for path in (tmp_path / "files").iterdir())
    for name in names:
        assert (whole / "files" / name).read_bytes() == (tmp_path / "files" / name).read_bytes()


def test_all_that_is_there_is_not_fitted_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (whole / "j.jsonl").read_bytes()
    monkeypatch.setattr(bunny, "Going", None)  # cannot be called
    bunny.main(arguments(whole))
    assert (whole / "j.jsonl").read_bytes() == before


def test_without_minutes_nothing_is_fitted_and_everything_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bunny, "Going", None)
    before = signal.getsignal(signal.SIGTERM)
    bunny.main(arguments(tmp_path, "--minutes", "0"))
    said = capsys.readouterr().out
    missing = [line for line in said.splitlines() if "MISSING" in line]
    assert missing == [f"MISSING: {model} 0.01 M {how}" for model, how in WANTED]
    assert said.rstrip().splitlines()[-1].startswith("| VQ-NeRV |") and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("minutes", "reserve"), [(9.0, 30.0), (1.0, 6.0)])
def test_it_stops_before_the_minutes_are_over(minutes: float, reserve: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(bunny.time, "monotonic", lambda: now)
    stop = bunny.Stop(minutes)
    now = 1000 + 60 * minutes - reserve - 1
    assert not stop()
    now += 1
    assert stop()
    now = 1e12
    assert not bunny.Stop(None)()


def test_a_leg_ends_when_it_is_time_to_stop_and_its_fits_are_saved(cells: Cells, tmp_path: Path) -> None:
    options = bunny.parsed(arguments(tmp_path, "--together", "2"))
    asked = iter([False, False, False, True, True])
    bunny.run(list(cells.values()), jobs.Journal(options.json), options, lambda: next(asked))
    assert list(saved(tmp_path).values()) == [3, 3] and not lines(tmp_path)


def test_what_is_told_belongs_to_the_state_that_is_loaded(cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cells["hnerv", "float"]
    going = bunny.Going(cell, tmp_path)
    going.advance()
    going.told.seconds, going.told.notes = 5.0, ["a note"]
    going.save()
    going.advance()
    going.told.seconds = 7.0
    going.told.notes.append("of a step that is lost")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda folder, fit: 1 / 0)  # killed between the two
        with pytest.raises(ZeroDivisionError):
            going.save()
    again = bunny.Going(cell, tmp_path)
    assert (again.fit.step, again.told) == (1, bunny.Told(5.0, 1, ["a note"]))
    save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda folder, fit: save(folder, fit) or 1 / 0)  # killed behind both
        with pytest.raises(ZeroDivisionError):
            going.save()
    again = bunny.Going(cell, tmp_path)
    assert (again.fit.step, again.told.seconds) == (2, 7.0)
    going.ledger.write_text("{}")
    with pytest.raises(InputError, match="is damaged; delete"):
        bunny.Going(cell, tmp_path)


def test_the_seconds_are_those_of_the_steps(cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (bunny.Going(cell, tmp_path) for cell in list(cells.values())[:2])
    now = 0.0
    monkeypatch.setattr(bunny.time, "monotonic", lambda: now)

    def step(self: Any) -> None:
        nonlocal now
        now += 0.5
        self.fit.step += 1

    monkeypatch.setattr(bunny.Going, "advance", step)
    bunny.leg([first, second], 2.0, lambda: False)
    now += 100  # of saving
    bunny.leg([first], 1.0, lambda: False)
    assert (first.told.seconds, first.told.together, first.fit.step) == (3.0, 2, 4)
    assert (second.told.seconds, second.told.together, second.fit.step) == (2.0, 2, 2)


def test_states_are_in_files_of_less_than_15_mb(cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint.PART < 15e6
    monkeypatch.setattr(checkpoint, "PART", 300_000)
    going = bunny.Going(cells["vqnerv", "float"], tmp_path)
    going.advance()
    going.save()
    sizes = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert len(sizes) > 4 and max(sizes) <= 300_000
    assert bunny.Going(going.cell, tmp_path).fit.step == 1


def test_other_settings_are_another_state(cells: Cells) -> None:
    cell = cells["hnerv", "float"]
    longer = replace(cell, options=replace(cell.options, config=replace(cell.options.config, passes=bunny.TINY_PASSES + 1)))
    assert longer.place != cell.place and len({each.place for each in cells.values()}) == len(WANTED)


# ---- what is fitted


def test_widths_are_those_of_the_published_networks(bare: Any) -> None:
    assert bare.key == bunny_table.CLIP
    counted = {}
    for model, parameters in (("hnerv", 0.35), ("hnerv", 0.75), ("hnerv", 1.5), ("hnerv", 3.0), ("vqnerv", 1.5)):
        options = bunny_cells.sized(bare.clip, model, 1e6 * parameters, 300)
        cell = bunny.Cell(bare, parameters, options, "file", CPU)
        counted[model, parameters] = (cell.plan.config.widths[0], round(cell.counted / 1e6, 2))
    hnerv = {0.35: (32, 0.33), 0.75: (48, 0.74), 1.5: (68, 1.51), 3.0: (97, 3.03)}  # the repository's channels and totals
    assert counted == {**{("hnerv", size): shape for size, shape in hnerv.items()}, ("vqnerv", 1.5): (68, 1.54)}


@pytest.mark.parametrize("channels", [4, 50, 120])
def test_a_width_is_the_root_of_the_published_formula(bare: Any, channels: int) -> None:
    grid = bunny_cells.plan_encode(bare.clip, bunny_cells.EncodeOptions()).config.grid
    assert grid.strides == tuple((stride, stride) for stride in (5, 4, 4, 2, 2)) and grid.embedding == (2, 4)
    terms = ((25, 1, 1), (16, 9, 3), (16, 25, 5), (4, 25, 7), (4, 25, 9))  # stride^2, kernel^2, and how often 1.2 divides
    weights = channels**2 * sum(stride * kernel / 1.2**power for stride, kernel, power in terms) + 9 * 16 * channels
    assert [bunny_cells.width(grid, 16, weights + more) for more in (-1, 1)] == [max(channels - 1, 4), channels]
    assert bunny_cells.width(grid, 16, -1.0) == 4


def test_a_token_is_one_number_and_an_entry_its_dimension(bare: Any) -> None:
    options = bunny_cells.sized(bare.clip, "vqnerv", 0.35e6, 300)
    plan = bunny_cells.plan_encode(bare.clip, options)
    assert bunny_cells.latent_numbers(plan) == 132 * (16 * 2 * 4) + 132 * (8 * 16) + 512 * 8


def test_both_fits_are_of_one_network_and_files_are_rounded(cells: Cells) -> None:
    real, file = cells["vqnerv", "float"], cells["vqnerv", "file"]
    assert (real.how, file.how) == ("float", "file") and real.plan.config == file.plan.config
    fit = file.start()
    while fit.step <= fit.quantise_step:
        fit.advance()
    assert rounded(fit) == {True} and len(fit.tables) == 2


def rounded(fit: Any) -> set[bool]:
    """Whether weights, and latents, are rounded."""
    return {part.quantise_weights for part in fit.network.convolutions()} | {latent.quantise for latent in fit.network.latents}


def test_the_most_valuable_fits_come_first(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bunny_cells, "sized", lambda clip, model, parameters, passes: bunny_cells.EncodeOptions(model, "medium"))
    options = bunny.parsed(["bunny.mp4"])
    made = [(cell.how, cell.parameters, cell.options.model) for cell in bunny.cells(bare, options, CPU)]
    sizes = (1.5, 0.35, 0.75, 3.0)
    assert made == [(how, size, model) for how in ("float", "file") for size in sizes for model in ("hnerv", "vqnerv")]


def test_every_fit_is_of_exactly_one_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine: list[str] = []
    monkeypatch.setattr(bunny, "run", lambda waiting, *others: mine.extend(cell.label for cell in waiting))
    for part in ("1/3", "2/3", "3/3"):
        bunny.main(arguments(tmp_path, "--part", part))
    assert sorted(mine) == sorted(f"{model} 0.01 M {how}" for model, how in WANTED)


# ---- results


def psnr(a: Any, b: Any) -> float:
    """Mean over frames of the PSNR over all three planes (3, T, h, w)."""
    errors = np.square(np.stack(a).astype(np.float64) - np.stack(b)).mean(axis=(0, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / errors)))


def test_files_are_those_of_an_encode_and_decode_to_their_psnr(whole: Path, tiny: Any, cells: Cells) -> None:
    files = {line["key"]["model"]: line["result"] for line in lines(whole) if line["key"]["as"] == "file"}
    for cell in (cells[model, "file"] for model in files):
        data = (whole / "files" / f"{cell.options.model}-0.01M.nvc").read_bytes()
        plain = io.BytesIO()
        encode(tiny.clip, plain, cell.options, CPU, lambda progress: None)
        assert data == plain.getvalue()
        decoded = [batch.planes for batch in Decoder(io.BytesIO(data)).frames()]
        planes = [np.concatenate(parts) for parts in zip(*decoded, strict=True)]
        result = files[cell.options.model]
        assert result["psnr"] == pytest.approx(psnr(tiny.clip.planes, planes), abs=1e-4)
        assert (result["bytes"], result["bpp"]) == (len(data), pytest.approx(8 * len(data) / (48 * 32 * 4), abs=1e-6))


def test_a_file_is_written_without_another_step(cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going = bunny.Going(cells["hnerv", "file"], tmp_path)
    while not going.done:
        going.advance()
    going.save()
    monkeypatch.setattr(bunny_cells.Fit, "advance", None)  # cannot be called
    written = bunny.written(going, None)
    assert written["bytes"] > 0 and saved_steps(tmp_path) == [going.fit.steps], "the state stays until the result is kept"


def saved_steps(folder: Path) -> list[int]:
    """The steps of all states in a folder."""
    return [json.loads(path.read_text())["step"] for path in folder.glob(f"*/{checkpoint.INDEX}")]


def test_psnr_in_float_is_that_of_frames_of_which_nothing_is_rounded_and_measuring_changes_nothing(
    whole: Path, tiny: Any, cells: Cells
) -> None:
    found = {line["key"]["model"]: line["result"]["psnr"] for line in lines(whole) if line["key"]["as"] == "float"}
    fit = cells["vqnerv", "float"].start()
    while fit.step < fit.steps:
        fit.advance()
    assert rounded(fit) == {False} and not fit.tables
    before = {name: tensor.clone() for name, tensor in fit.network.state_dict().items()}
    assert bunny.in_float(fit, tiny.clip) == {"psnr": found["vqnerv"]}
    assert all(torch.equal(before[name], tensor) for name, tensor in fit.network.state_dict().items())
    made = np.concatenate([fit.made(torch.tensor([t])).round().numpy() for t in range(fit.frames)])
    height, width = tiny.clip.planes[0].shape[1:]
    assert found["vqnerv"] == pytest.approx(psnr(tiny.clip.planes, made.transpose(1, 0, 2, 3)[:, :, :height, :width]), abs=1e-4)


def test_everything_runs_on_the_device_that_was_asked_for(cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        """What a device was asked for."""

    def see(which: int) -> Callable[..., Any]:
        def called(*values: Any, **others: Any) -> Any:
            raise Seen(values[which])

        return called

    meta = torch.device("meta")
    monkeypatch.setattr(bunny, "open_device", {"somewhere": meta}.__getitem__)
    monkeypatch.setattr(bunny_cells, "Fit", lambda network, canvas, *others: see(0)(canvas.weights.device))
    with pytest.raises(Seen, match="meta"):
        bunny.main(arguments(tmp_path, "--device", "somewhere"))
    cell = replace(cells["hnerv", "file"], device=meta)
    going = type("Going", (), {"cell": cell, "folder": tmp_path})()
    monkeypatch.setattr(bunny, "encode", see(3))
    with pytest.raises(Seen, match="meta"):
        bunny.written(going, None)
    monkeypatch.setattr(bunny, "encode", lambda *values, **others: None)
    monkeypatch.setattr(bunny, "Decoder", see(1))
    with pytest.raises(Seen, match="meta"):
        bunny.written(going, None)


# ---- the table


def entry(model: str, parameters: float, how: str, passes: int = 300, clip: str = bunny_table.CLIP, **result: Any) -> Line:
    key = {"bench": "bunny", "clip": clip, "model": model, "parameters": parameters, "as": how, "fit": {"passes": passes}}
    made = {"date": "2027-01-02", "device": "a card", "torch": "2.11", "python": "3.12", "commit": "abc"}
    given = {"seconds": 200.4, "together": 1, "launch": "graph", "counted": 1_505_172, "made": made, **result}
    return {"key": key, "result": given}


def test_the_readme_says_when_nothing_is_recorded(tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    sentence = bunny_table.readme_table(journal)
    assert sentence.count(". ") == 0 and "recorded yet" in sentence and "bench/gpu.md" in sentence
    others = [entry("hnerv", 1.5, "float", passes=20, psnr=33.0), entry("hnerv", 1.5, "float", clip="a.mp4", psnr=33.0)]
    journal.write_text("".join(json.dumps(line) + "\n" for line in others))
    assert bunny_table.readme_table(journal) == sentence


def test_the_readme_has_the_published_and_the_recorded_figures_side_by_side(tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    found = [
        entry("hnerv", 1.5, "float", psnr=35.6049),
        entry("hnerv", 1.5, "file", psnr=34.5, bytes=770_000, bpp=0.056966, seconds=310.0, together=4),
        entry("vqnerv", 1.5, "float", psnr=36.5, counted=1_539_542),
    ]
    journal.write_text("".join(json.dumps(line) + "\n" for line in found))
    text = bunny_table.readme_table(journal)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]
    assert rows[2] == ["HNeRV", "1.5 M", "1.505 M", "35.57", "35.60", "+0.03", "770000", "0.0570", "34.50", "200", "310 (4)"]
    assert rows[6] == ["VQ-NeRV", "1.5 M", "1.540 M", "36.61 (log: 36.82)", "36.50", "-0.11", "-", "-", "-", "200", "-"]
    assert [row[3] for row in rows] == ["30.15", "32.81", "35.57", "37.43", "31.06", "34.00", "36.61 (log: 36.82)", "39.05"]
    assert all(row[4:] == ["-"] * 7 for row in (rows[0], rows[3], rows[7]))
    assert "2027-01-02, a card, torch 2.11, Python 3.12, commit abc, launch graph" in text and "In brackets" in text
