"""The planned memory: never less than a fit takes, not much more, and the first form of a fit that has room is chosen."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from nvc.bitstream.errors import InputError, MachineError
from nvc.bitstream.header import Header
from nvc.codec import memory
from nvc.codec.canvas import Canvas
from nvc.codec.config import Design, FitConfig, Tokens
from nvc.codec.fit import Fit
from nvc.codec.geometry import Picture
from nvc.codec.memory import Room, _Live, fit_bytes, one_line, plan_memory, step_bytes
from nvc.codec.models import FAMILIES
from nvc.codec.network import Network
from nvc.codec.ssim import WINDOW

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FEW = FitConfig(passes=1, min_steps=8)  # one with encoders, some while rounding is soft, two that are hard
MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("one_thread")


def network(width: int, height: int, parameters: int, model: str = "hnerv", block: str = "added", rgb: bool = False) -> Network:
    design = Design(tokens=Tokens(block=block))
    picture = Picture.of(Header(width, height, int(rgb), frame_count=1))
    made: Network = FAMILIES[model].Network(FAMILIES[model].plan(picture, parameters, design))
    return made


def canvas_of(made: Network, frames: int) -> Canvas:
    """Noise of the size of the network's grid; all of it counts."""
    shape = (made.head.weight.shape[0], *made.grid.size)  # type: ignore[union-attr]
    noise = torch.randint(0, 256, (1, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Canvas(noise.expand(frames, -1, -1, -1), torch.full(shape, 1 / math.prod(shape)))


def allocated(run: Callable[[], object], folder: Path) -> int:
    """The most bytes that lived at once of those that torch allocated in `run`, by the allocator's own account."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = [event for event in json.loads((folder / "trace.json").read_text())["traceEvents"] if event["name"] == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: float(event["ts"])):
        now += event["args"]["Bytes"]
        most = max(most, now)
    return most


def tensor_bytes(value: Any) -> int:
    """Of all tensors in a state."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(tensor_bytes, parts))


FITS = {
    "usual": (partial(network, 96, 64, 10000), 9, FEW, "psnr"),
    "one frame": (partial(network, 128, 64, 10000), 6, replace(FEW, batch=1), "psnr"),
    "four frames": (partial(network, 64, 64, 10000), 9, replace(FEW, batch=4), "psnr"),
    "band": (partial(network, 128, 64, 10000), 1, replace(FEW, band=0.1), "psnr"),
    "Adam": (partial(network, 64, 64, 10000), 3, replace(FEW, optimiser="adam"), "psnr"),
    "MS-SSIM": (partial(network, 64, 64, 10000, rgb=True), 3, FEW, "ssim"),
    "large network": (partial(network, 32, 32, 100000), 3, FEW, "psnr"),
    "many latents": (partial(network, 32, 32, 3000), 60, FEW, "psnr"),
    "added": (partial(network, 64, 64, 10000, "vqnerv"), 3, FEW, "psnr"),
    "pooled": (partial(network, 64, 64, 10000, "vqnerv", "pooled"), 3, FEW, "psnr"),
    "paper": (partial(network, 64, 64, 10000, "vqnerv", "paper"), 3, FEW, "psnr"),
}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_takes_what_is_planned_or_less_but_no_less_than_half(name: str, tmp_path: Path) -> None:
    make, frames, config, tune = FITS[name]
    made = make()
    canvas = canvas_of(made, frames)
    canvas = Canvas(canvas.frames.contiguous(), canvas.weights)
    planned = fit_bytes(made, canvas, config, tune, CPU, resident=True)
    given = tensor_bytes(list(made.state_dict().values())) + tensor_bytes([canvas.frames, canvas.weights])
    taken = given + allocated(lambda: Fit(made, canvas, config, 1e5, 0, tune).run(lambda _: None), tmp_path)
    assert taken <= planned <= 2 * taken


@pytest.mark.parametrize("name", ["usual", "Adam", "added"])
def test_what_recovery_keeps_is_planned(name: str) -> None:
    """A picture so small that a step is nothing beside it."""
    _, frames, config, tune = FITS[name]
    made = network(16, 16, 100000, "vqnerv" if name == "added" else "hnerv")
    canvas = canvas_of(made, frames)
    planned = fit_bytes(made, canvas, config, tune, CPU, resident=True) - step_bytes(made, canvas, config, tune, CPU)
    fit = Fit(made, canvas, config, 1e5, 0, tune)
    fit.run(lambda _: None)
    state = tensor_bytes(fit.state())
    gradients = tensor_bytes(list(made.parameters()))
    assert 4 * state + gradients <= planned <= 2 * (4 * state + gradients)


def test_planning_takes_no_memory_and_leaves_the_network_alone(tmp_path: Path) -> None:
    made = network(1920, 1080, 1000000)
    canvas = canvas_of(made, 100)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    planned = []
    taken = allocated(lambda: planned.append(step_bytes(made, canvas, FEW, "psnr", CPU)), tmp_path)
    assert taken < 0.05 * planned[0]
    assert all(torch.equal(before[name], value) and value.device == CPU for name, value in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())


def test_what_lives_at_once_is_counted_once() -> None:
    with _Live() as live:
        a = torch.empty(1000, device="meta", requires_grad=True)
        view = a.view(10, 100)
        assert live.now == 4000
        b = (view * 2).relu_()
        assert live.now == 8000
        c = b.square()  # keeps b for its gradient
        del b, view
        assert live.now == 12000
        d = torch.empty(5000, dtype=torch.uint8, device="meta")
        del d
        assert live.now == 12000
        del c
        assert (live.now, live.peak) == (4000, 17000)


def test_what_a_convolution_may_copy_counts_for_a_moment() -> None:
    with _Live() as live:
        x = torch.empty(1, 1, 10, 10, device="meta")
        weight = torch.empty(2, 1, 1, 1, device="meta")
        torch.nn.functional.conv2d(x, weight)
    lives = 4 * (100 + 2 + 200)
    assert live.peak == 2 * lives


# ---- the choice


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is tried once."""
    tried: dict[tuple[object, ...], int] = {}

    def step(made: Network, canvas: Canvas, config: FitConfig, tune: str, device: torch.device) -> int:
        key = (id(made), config.batch, config.band, tune)
        if key not in tried:
            tried[key] = step_bytes(made, canvas, config, tune, device)
        return tried[key]

    monkeypatch.setattr(memory, "step_bytes", step)


def rooms(made: Network, canvas: Canvas, config: FitConfig, tune: str = "psnr", device: torch.device = CPU) -> list[Room]:
    """What is chosen while ever less is free, until nothing has room."""
    found = [plan_memory(made, canvas, config, tune, device, 1 << 60)]
    while True:
        try:
            found.append(plan_memory(made, canvas, config, tune, device, found[-1].bytes - 1))
        except MachineError:
            return found


@pytest.mark.usefixtures("known")
def test_frames_leave_the_device_first_then_the_batch_goes_then_rows() -> None:
    made = network(160, 96, 3000)
    canvas = canvas_of(made, 300)
    config = replace(FEW, batch=4, passes=40)
    found = rooms(made, canvas, config)
    height, unit = canvas.frames.shape[2], made.band
    assert [(room.resident, room.config.batch, room.config.band) for room in found[:3]] == [
        (True, 4, 1.0),
        (False, 4, 1.0),
        (False, 1, 1.0),
    ]
    counts = [room.config.band * height / unit for room in found[2:]]
    assert len(counts) > 2 and counts[0] == height / unit
    for before, after in itertools.pairwise(counts):
        assert after == pytest.approx(before // 2)  # whole rows of the last block
    assert {room.config.passes for room in found} == {40}
    assert found[-1].config.steps(300) > 8 * found[0].config.steps(300)


@pytest.mark.usefixtures("known")
def test_the_room_that_is_chosen_is_the_first_that_is_free() -> None:
    made = network(160, 96, 3000)
    canvas = canvas_of(made, 300)
    found = rooms(made, canvas, FEW)
    for room in found:
        assert plan_memory(made, canvas, FEW, "psnr", CPU, room.bytes) == room
        assert room.bytes == fit_bytes(made, canvas, room.config, "psnr", CPU, resident=room.resident)
    assert [room.bytes for room in found] == sorted({room.bytes for room in found}, reverse=True)


def test_streamed_frames_are_not_counted() -> None:
    made = network(64, 32, 3000)
    canvas = canvas_of(made, 1000)
    resident, streamed = (fit_bytes(made, canvas, FEW, "psnr", CPU, resident=resident) for resident in (True, False))
    assert resident - streamed == pytest.approx(memory.MARGIN * canvas.frames.numel(), rel=1e-6)


@pytest.mark.parametrize(("tune", "rows"), [("psnr", 1), ("ssim", WINDOW)])
def test_bands_stay_as_high_as_the_loss_needs(tune: str, rows: int) -> None:
    made = network(96, 64, 100000, rgb=True)
    forms = list(memory._forms(made, canvas_of(made, 1), FEW, tune))
    least = round(forms[-1][1].band * made.grid.size[0])
    assert max(rows, made.band) <= least < 3 * max(rows, made.band)


def test_a_band_that_was_asked_for_is_halved_too() -> None:
    made = network(160, 96, 3000)
    bands = [config.band for _, config in memory._forms(made, canvas_of(made, 1), replace(FEW, band=0.5), "psnr")]
    assert bands[:3] == [0.5, 0.5, pytest.approx(0.25, abs=made.band / made.grid.size[0])]


@pytest.mark.usefixtures("known")
def test_nothing_fits_is_one_line_that_says_what_to_do() -> None:
    made = network(64, 32, 3000)
    canvas = canvas_of(made, 7)
    least = rooms(made, canvas, FEW)[-1].bytes
    with pytest.raises(MachineError) as caught:
        plan_memory(made, canvas, FEW, "psnr", CPU, 1)
    assert (caught.value.code, caught.value.exit_code) == ("machine.memory", 7)
    text = str(caught.value)
    assert "\n" not in text and "7 frames" in text and f"{math.ceil(least / MIB)} MiB" in text and "0 MiB free" in text
    assert all(option in text for option in ("--segment", "--crop", "--scale", "--device cpu"))


def test_on_cuda_a_recorded_step_keeps_its_memory_beside_the_others() -> None:
    made = network(160, 96, 3000)
    canvas = canvas_of(made, 4)
    step = step_bytes(made, canvas, FEW, "psnr", CPU)
    cpu, cuda = (fit_bytes(made, canvas, FEW, "psnr", device, resident=True) for device in (CPU, CUDA))
    assert cuda - cpu - memory.LIBRARIES > step


def test_how_many_fits_have_room() -> None:
    room = Room(True, FEW, 1000)
    assert [room.fits(free) for free in (1000, 1999, 2000, 9999)] == [1, 1, 2, 9]
    assert room.holds(1000) and not room.holds(999)
    assert not Room.unplanned(FEW).holds(1 << 50)  # so that a device is always planned for


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (Room(True, FEW, 1), []),
        (Room(False, FEW, 1), ["streamed"]),
        (Room(False, replace(FEW, batch=1), 1), ["streamed", "1 frame instead of 2"]),
        (
            Room(False, replace(FEW, batch=1, band=0.25), 1),
            ["streamed", "1 frame instead of 2", "25% of the rows instead of 100%"],
        ),
    ],
)
def test_the_note_says_what_is_done_instead(room: Room, said: list[str]) -> None:
    note = room.note(FEW)
    assert bool(note) == bool(said) and "\n" not in note
    assert all(part in note for part in said)


# ---- memory that something else took


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB")])
def test_what_runs_out_of_memory_is_the_machines_fault(error: Exception) -> None:
    with pytest.raises(MachineError) as caught, one_line(CUDA):
        raise error
    assert caught.value.code == "machine.memory" and "\n" not in str(caught.value) and "cuda" in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), InputError("missing", "no"), KeyboardInterrupt()])
def test_everything_else_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, one_line(CPU):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_as_many_frames_are_planned_for_as_a_fit_encodes_at_a_time(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, config = network(64, 48, 3000), FitConfig(passes=1, min_steps=4, batch=batch)
    canvas = canvas_of(made, 30)
    planned: list[int] = []
    encode = memory._encode
    monkeypatch.setattr(memory, "_encode", lambda twin, frames: planned.append(len(frames)) or encode(twin, frames))
    step_bytes(made, canvas, config, "psnr", CPU)
    fit = Fit(made, Canvas(canvas.frames.contiguous(), canvas.weights), config, 1e5, 0)
    seen: list[int] = []
    real = fit.objective.reals
    monkeypatch.setattr(fit.objective, "reals", lambda batch, before: seen.append(len(batch.index)) or real(batch, before))
    fit.reals(torch.arange(30))
    assert max(planned) == max(seen)
