"""Checkpoints: a fit goes on as if it had never stopped, whole states replace whole states, and damage is one clear line."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nvc_files import a_fit, clip

from nvc.bitstream.errors import InputError, OutputError
from nvc.codec import checkpoint
from nvc.codec.checkpoint import INDEX, PART, Keeper, load, save
from nvc.codec.config import Design, FitConfig, Tokens
from nvc.codec.fit import Fit
from nvc.codec.models import vqnerv
from nvc.codec.target import Target

CONFIG = FitConfig(passes=1, min_steps=40, prune=0.1, band=0.5)
QUANTISE, PRUNE, HARD = 6, 20, 30  # steps at which a phase begins
STEPS = (1, QUANTISE, QUANTISE + 1, PRUNE + 1, HARD, HARD + 1, 40)


def fit_of(model: str = "hnerv", width: int = 48, config: FitConfig = CONFIG) -> Fit:
    design = Design() if model == "hnerv" else Design(tokens=Tokens(block=model, levels=8))
    family = "hnerv" if model == "hnerv" else "vqnerv"
    fit: Fit = a_fit(clip(width, 32, 5), Target(size=3000), config, design=design, model=family)[1]
    return fit


def walked(fit: Fit, last: int) -> Fit:
    while fit.step < last:
        fit.advance()
    return fit


def same(a: Fit, b: Fit) -> bool:
    x, y = a.checkpoint(), b.checkpoint()
    names = x["network"].keys() | y["network"].keys()
    return all(torch.equal(x["network"][name], y["network"][name]) for name in names) and all(
        torch.equal(p, q) for p, q in zip(x["tables"], y["tables"], strict=True)
    )


Numbers = list[list[np.ndarray]]


@pytest.fixture(scope="module", params=["hnerv", *vqnerv.BLOCKS])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Fit, Numbers]:
    """A model, where its fit was saved at each of STEPS, and the fit and its numbers after all."""
    folder = tmp_path_factory.mktemp("states")
    fit = fit_of(request.param)
    for step in STEPS:
        save(folder / str(step), walked(fit, step))
    return request.param, folder, fit, fit.run(lambda _: None)


@pytest.mark.parametrize("step", STEPS)
def test_a_fit_that_was_stopped_goes_on_to_the_same_numbers(step: int, whole: tuple[str, Path, Fit, Numbers]) -> None:
    model, folder, fit, expected = whole
    later = fit_of(model)
    assert load(folder / str(step), later)
    assert later.step == step
    found = later.run(lambda _: None)
    assert same(fit, later)
    for mine, theirs in zip(expected, found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_learning_rate_of_a_fit_that_recovered_is_kept(tmp_path: Path) -> None:
    fit = walked(fit_of(), 20)
    fit.recovery.rate, fit.recovery.best = 0.25, 7.0
    save(tmp_path, fit)
    later = fit_of()
    load(tmp_path, later)
    assert (later.recovery.rate, later.recovery.best) == (0.25, 7.0)


def test_a_fit_that_goes_on_can_go_back_to_where_it_went_on(tmp_path: Path) -> None:
    save(tmp_path, walked(fit_of(), 30))
    later = fit_of()
    load(tmp_path, later)
    here = later.checkpoint()
    walked(later, 35)
    later.recovery.check(float("nan"))
    assert all(torch.equal(later.checkpoint()["network"][name], here["network"][name]) for name in here["network"])


def test_without_a_checkpoint_a_fit_begins_anew(tmp_path: Path) -> None:
    fit = fit_of()
    assert not load(tmp_path / "nothing", fit)
    assert fit.step == 0


def test_no_file_is_larger_than_a_part_and_old_parts_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PART < 15_000_000
    monkeypatch.setattr(checkpoint, "PART", 30_000)
    fit = walked(fit_of(), 20)
    save(tmp_path, fit)
    first = {path.name for path in tmp_path.iterdir()}
    assert len(first) > 3
    save(tmp_path, walked(fit, 25))
    assert all(path.stat().st_size <= 30_000 for path in tmp_path.iterdir())
    second = {path.name for path in tmp_path.iterdir()}
    assert first & second == {INDEX}
    later = fit_of()
    load(tmp_path, later)
    assert same(fit, later)


def test_a_disk_that_is_full_is_one_line_and_leaves_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = walked(fit_of(), 10)
    save(tmp_path, fit)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(checkpoint.os, "fsync", full)
        with pytest.raises(OutputError, match="No space") as caught:
            save(tmp_path, walked(fit, 11))
    assert caught.value.code == "output.disk_full"
    later = fit_of()
    assert load(tmp_path, later) and later.step == 10


def test_what_is_not_of_a_checkpoint_stays(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    (folder / "a").mkdir(parents=True)
    others = [folder / "notes.txt", folder / "a" / "step", folder / "a" / "step1.0.mp4"]
    for other in others:
        other.write_text("mine")
    keeper, fit = Keeper(folder, seconds=0), fit_of()
    keeper.load("a", fit)
    for step in (1, 2):
        keeper.look("a", walked(fit, step))
    assert len(list((folder / "a").glob("step*.0"))) == 1
    keeper.clear()
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(others)


class Killed(BaseException):
    """What stops a process in the middle."""


@pytest.mark.parametrize("writes", range(6))
def test_a_save_that_is_killed_leaves_the_state_before_it(writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = walked(fit_of(), 20)
    save(tmp_path, fit)
    monkeypatch.setattr(checkpoint, "PART", 60_000)
    walked(fit, 21)
    left, replace = writes, Path.replace

    def dying(path: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(Killed):
        save(tmp_path, fit)
    later = fit_of()
    assert load(tmp_path, later)
    assert later.step == 20


def damaged(folder: Path, how: str) -> None:
    part = next(path for path in folder.iterdir() if path.name != INDEX)
    if how == "flipped":
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    elif how == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    elif how == "missing":
        part.unlink()
    else:
        (folder / INDEX).write_text({"garbage": "{", "no index": "[]", "no part": '{"parts": [{}]}'}[how])


@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "garbage", "no index", "no part"])
def test_a_damaged_state_is_refused_in_one_line(how: str, tmp_path: Path) -> None:
    save(tmp_path, walked(fit_of(), 20))
    damaged(tmp_path, how)
    with pytest.raises(InputError) as caught:
        load(tmp_path, fit_of())
    assert caught.value.code == "input.checkpoint" and "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("other", [("hnerv", 64), ("added", 48)])
def test_the_state_of_another_network_is_refused(other: tuple[str, int], tmp_path: Path) -> None:
    save(tmp_path, walked(fit_of(), 20))
    with pytest.raises(InputError, match="another fit"):
        load(tmp_path, fit_of(*other))


def test_a_fit_may_go_on_on_another_device(tmp_path: Path) -> None:
    """Whose generators have states of another size."""
    fit = walked(fit_of("added"), 20)
    state = fit.checkpoint()
    state |= {"noise of": "cuda", "noise": torch.zeros(16, dtype=torch.uint8)}
    later = fit_of("added")
    later.resume(state)
    assert same(fit, later)
    walked(later, later.steps)


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"min_steps": 60}, {"batch": 1}])
def test_so_is_that_of_a_fit_with_other_settings(change: dict[str, float], tmp_path: Path) -> None:
    save(tmp_path, walked(fit_of(), 20))
    with pytest.raises(InputError, match="another fit"):
        load(tmp_path, fit_of(config=replace(CONFIG, **change)))  # type: ignore[arg-type]


def test_how_steps_are_launched_may_change(tmp_path: Path) -> None:
    save(tmp_path, walked(fit_of(), 20))
    assert load(tmp_path, fit_of(config=replace(CONFIG, launch="eager")))


@pytest.mark.parametrize("other", [(Target(size=3001), 0, 0), (Target(size=3000), 1, 0), (Target(size=3000), 0, 1)])
def test_so_is_that_of_another_size_seed_or_clip(other: tuple[Target, int, int], tmp_path: Path) -> None:
    save(tmp_path, walked(fit_of(), 20))
    target, seed, sample = other
    source = clip(48, 32, 5)
    source.planes[0][0, 0, 0] += sample
    with pytest.raises(InputError, match="another fit"):
        load(tmp_path, a_fit(source, target, CONFIG, seed)[1])


def test_a_keeper_saves_when_it_is_time_and_forgets_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path, now = tmp_path / "kept", [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    keeper, fit = Keeper(tmp_path, seconds=60), fit_of()
    assert not keeper.load("a", fit)
    for seconds in (0, 59, 0.5):
        now[0] += seconds
        keeper.look("a", walked(fit, fit.step + 1))
    assert not os.path.exists(tmp_path / "a")
    now[0] += 1
    keeper.look("a", walked(fit, fit.step + 1))
    keeper.look("a", walked(fit, fit.step + 1))
    later = fit_of()
    assert Keeper(tmp_path).load("a", later)
    assert later.step == 4
    keeper.look("a", walked(fit, fit.steps))  # at once: nothing is left to wait for
    later = fit_of()
    assert Keeper(tmp_path).load("a", later) and later.step == later.steps
    keeper.clear()
    assert not tmp_path.exists()
    assert not Keeper(tmp_path).load("a", fit_of())
