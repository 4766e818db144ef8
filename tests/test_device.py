"""What must hold on the device that is there: on a GPU where there is one, else on the CPU, so that these tests stay right.

On a new kind of device this is the first thing to run (bench/gpu.md): the exactness of decodes, and everything that a fit
assumes of CUDA, its graphs, its streams and its memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hostless import no_host_reads
from nvc_files import clip, encoded

from nvc.bitstream.analysis import analyse
from nvc.bitstream.constants import Limits
from nvc.codec import checkpoint, rate
from nvc.codec.canvas import to_canvas
from nvc.codec.config import Design, FitConfig, Tokens
from nvc.codec.decode import Decoder, verify
from nvc.codec.encode import EncodeOptions, encode, plan_encode
from nvc.codec.fit import Fit
from nvc.codec.interpreter import Interpreter
from nvc.codec.launch import WARM_UP, Eager, Launcher, Recorded, Work
from nvc.codec.memory import fit_bytes
from nvc.codec.models import FAMILIES
from nvc.codec.models.vqnerv import BLOCKS
from nvc.codec.target import Target
from nvc.codec.together import in_turns
from nvc.conformance import ref_operations
from nvc.conformance.catalogue.networks import random_network

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
CPU = torch.device("cpu")
CONFIG = FitConfig(passes=1, min_steps=120 if CUDA else 24)  # a processor repeats itself to the last bit
HALF = CONFIG.min_steps // 2
MODELS = ["hnerv", *BLOCKS]
SIZE = (96, 64, 6)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are counted alike on both."""
    monkeypatch.setattr(rate, "_count_of", lambda device: (rate._dense_count, rate._dense_urn))


def options_of(model: str, config: FitConfig = CONFIG, tune: str = "psnr", **others: int) -> EncodeOptions:
    design = Design() if model == "hnerv" else Design(tokens=Tokens(block=model, levels=16))
    family = "hnerv" if model == "hnerv" else "vqnerv"
    return EncodeOptions(family, target=Target(size=6000), design=design, config=config, tune=tune, **others)  # type: ignore[arg-type]


def fit_of(
    model: str, config: FitConfig = CONFIG, device: torch.device = DEVICE, tune: str = "psnr", resident: bool = True
) -> Fit:
    source, options = clip(*SIZE), options_of(model, config, tune)
    plan = plan_encode(source, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FAMILIES[options.model].Network(plan.config)
    canvas = to_canvas(source.planes, plan.side, network.grid.size).to(device, resident=resident)
    return Fit(network, canvas, config, plan.bits, 0, tune)


def walked(fit: Fit) -> float:
    """The PSNR in the end; a fit must not have fallen back to anything."""
    told = []
    while fit.step < fit.steps:
        progress = fit.advance()
        if progress is not None:
            told.append(progress)
    assert [progress.note for progress in told if progress.note] == []
    return told[-1].psnr


# ---- decodes


def test_a_file_has_its_hashes() -> None:
    assert verify(io.BytesIO(encoded()), DEVICE) == 5


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_planes_are_those_of_the_processor(batch: int) -> None:
    here = [part for made in Decoder(io.BytesIO(encoded()), DEVICE, batch).frames() for part in made.planes]
    there = [part for made in Decoder(io.BytesIO(encoded()), CPU, batch).frames() for part in made.planes]
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("seed", range(200 if CUDA else 20))
def test_a_random_network_makes_what_the_reference_makes(seed: int) -> None:
    network = random_network(seed)
    rows = [[int(op.code), *op.arguments] for op in network.program.operations]
    run = Interpreter(analyse(network.program, Limits()), network.tensors, network.frames, 4, DEVICE)
    for t in range(network.frames):
        expected = ref_operations.render(rows, network.tensors, t, network.frames)
        assert all(np.array_equal(a, b[0]) for a, b in zip(expected, run.render(t, 1), strict=True))


# ---- fits


@contextmanager
def unwatched() -> Iterator[None]:
    """Whatever stops a GPU is an error within."""
    if not CUDA:
        with no_host_reads():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Watched(Launcher):
    """Launches one by one, and once all is warm lets nothing stop the device."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def run(self, name: str, work: Work) -> None:
        self.launched.append(name)
        if self.launched.count(name) <= WARM_UP:
            work()
            return
        with unwatched():
            work()

    def reset(self) -> None:
        self.launched.clear()


@pytest.mark.parametrize(("model", "tune"), [("hnerv", "ssim"), *((model, "psnr") for model in MODELS)])
def test_a_step_never_waits_for_the_device(model: str, tune: str) -> None:
    fit = fit_of(model, replace(CONFIG, min_steps=48), tune=tune)
    fit.launcher = Watched()
    walked(fit)


@pytest.mark.parametrize("model", MODELS)
def test_recorded_steps_do_what_steps_do(model: str) -> None:
    recorded, eager = fit_of(model), fit_of(model, replace(CONFIG, launch="eager"))
    assert isinstance(eager.launcher, Eager) and isinstance(recorded.launcher, Recorded if CUDA else Eager)
    replayed = set()
    while recorded.step < recorded.steps:
        recorded.advance()
        if isinstance(recorded.launcher, Recorded):
            replayed |= recorded.launcher.replays.keys()
    assert recorded.notes == [] and (len(replayed) >= 4) == CUDA
    # a GPU adds up in no fixed order, so that two fits drift apart
    assert 10 * np.log10(float(eager_end(eager)) / float(recorded.objective.squared.value)) == pytest.approx(0, abs=0.5)


def eager_end(fit: Fit) -> torch.Tensor:
    """The squared error that a fit ends with."""
    walked(fit)
    return fit.objective.squared.value


def test_a_fit_is_as_good_as_on_the_processor() -> None:
    assert walked(fit_of("hnerv")) == pytest.approx(walked(fit_of("hnerv", device=CPU)), abs=0.7)


@pytest.mark.parametrize("model", ["hnerv", "paper"])
def test_streamed_frames_are_as_good_as_resident_ones(model: str) -> None:
    assert walked(fit_of(model, resident=False)) == pytest.approx(walked(fit_of(model)), abs=0.5)


def test_a_compiled_network_is_as_good() -> None:
    if not CUDA:
        pytest.skip("a processor takes a minute to compile it; tests/test_launch.py has what can be had there")
    assert walked(fit_of("hnerv", replace(CONFIG, launch="compile"))) == pytest.approx(walked(fit_of("hnerv")), abs=0.5)


def test_fits_in_turns_do_not_disturb_each_other() -> None:
    alone = walked(fit_of("hnerv"))

    class Run:
        def __init__(self) -> None:
            self.fit, self.last = fit_of("hnerv"), 0.0

        @property
        def done(self) -> bool:
            return self.fit.step == self.fit.steps

        def advance(self) -> None:
            progress = self.fit.advance()
            self.last = progress.psnr if progress else self.last

    for run in in_turns((Run() for _ in range(4)), 3):
        assert run.last == pytest.approx(alone, abs=0.5)


@pytest.mark.parametrize("model", ["hnerv", "added"])
def test_a_fit_goes_on_here_and_elsewhere(model: str, tmp_path: Path) -> None:
    fit = fit_of(model)
    while fit.step < HALF:
        fit.advance()
    checkpoint.save(tmp_path, fit)
    expected = walked(fit)
    for device in (DEVICE, CPU):
        later = fit_of(model, device=device)
        assert checkpoint.load(tmp_path, later) and later.step == HALF
        assert walked(later) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("model", ["hnerv", "added"])
def test_a_file_that_was_made_here_decodes_on_the_processor(model: str, workers: int) -> None:
    file = io.BytesIO()
    encode(clip(*SIZE), file, options_of(model, segment=3, workers=workers), DEVICE, lambda _: None)
    for device in (CPU, DEVICE):
        assert verify(io.BytesIO(file.getvalue()), device) == SIZE[2]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("model", MODELS)
def test_a_fit_takes_no_more_memory_than_planned(model: str, batch: int) -> None:
    if not CUDA:
        pytest.skip("a processor does not count; tests/test_memory.py does by other means")
    config = replace(CONFIG, batch=batch)
    network = fit_of(model, config, CPU).network
    canvas = to_canvas(clip(*SIZE).planes, 2, network.grid.size)
    planned = fit_bytes(network, canvas, config, "psnr", DEVICE, resident=True)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    walked(fit_of(model, config))
    assert torch.cuda.max_memory_reserved() - before <= planned
