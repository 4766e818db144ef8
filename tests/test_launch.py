"""Launching: a recorded step does what the step would have done, every time, and where it cannot be recorded nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hostless import Tape, no_host_reads
from nvc_files import a_fit, clip

from nvc.codec import fit as fit_module
from nvc.codec import launch, rate
from nvc.codec.canvas import Canvas
from nvc.codec.config import Design, FitConfig, Tokens
from nvc.codec.distortion import DISTORTIONS
from nvc.codec.fit import Fit, Progress
from nvc.codec.launch import WARM_UP, Compiled, CudaRecorder, Eager, Launcher, Recorded, Work
from nvc.codec.models import vqnerv
from nvc.codec.target import Target

CONFIG = FitConfig(passes=1, min_steps=100, prune=0.1)
MODELS = ["hnerv", *vqnerv.BLOCKS]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are counted as where the host must not wait."""
    monkeypatch.setattr(rate, "_count_of", lambda device: (rate._dense_count, rate._dense_urn))


def made(model: str, config: FitConfig = CONFIG) -> Fit:
    design = Design() if model == "hnerv" else Design(tokens=Tokens(block=model, levels=8))
    family = "hnerv" if model == "hnerv" else "vqnerv"
    fit: Fit = a_fit(clip(48, 32, 5), Target(size=3000), config, design=design, model=family)[1]
    return fit


def taped(fit: Fit) -> Callable[[Work], Work]:
    """Records as CUDA does, on a CPU: what the recording itself does to the fit is taken back."""

    def record(work: Work) -> Work:
        tape, before = Tape(), fit.state()
        tape.record(work)
        fit.restore(before)
        return tape.replay

    return record


def walk(fit: Fit, look: Callable[[], None] = lambda: None) -> list[Progress]:
    told = []
    while fit.step < fit.steps:
        progress = fit.advance()
        look()
        if progress is not None:
            told.append(progress)
    return told


def same(a: Fit, b: Fit) -> bool:
    x, y = a.state(), b.state()
    pairs = [*zip(x["network"].values(), y["network"].values(), strict=True), *zip(x["tables"], y["tables"], strict=True)]
    return all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("model", MODELS)
def test_a_fit_of_recorded_steps_is_the_same_to_the_last_bit(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "WARM_UP", 2)  # phases are short here
    eager, recorded = made(model), made(model)
    notes: list[str] = []
    recorded.launcher = launcher = Recorded(lambda: taped(recorded), notes.append)
    replayed: set[str] = set()
    told = walk(eager), walk(recorded, lambda: replayed.update(launcher.replays))
    assert notes == []
    assert {name.partition(",")[0] for name in replayed} == {"descend", "project", "steer"}
    assert told[0] == told[1]
    assert same(eager, recorded)


def test_a_number_of_the_host_that_a_step_reads_is_frozen_which_is_what_the_test_above_would_see() -> None:
    eager, recorded = made("hnerv"), made("hnerv")
    recorded.launcher = Recorded(lambda: taped(recorded), lambda note: None)
    for fit in (eager, recorded):
        objective = fit.objective
        price = objective.price
        objective.price = lambda fit=fit, price=price: price() * (1 + fit.step)  # type: ignore[method-assign, misc]
        walk(fit)
    assert not same(eager, recorded)


@pytest.mark.parametrize(("model", "tune"), [("hnerv", "ssim"), *((model, "psnr") for model in MODELS)])
def test_nothing_within_a_step_is_read_by_the_host(model: str, tune: str) -> None:
    fit = made(model)
    fit.objective.distortion = DISTORTIONS[tune](Canvas(fit.feed.source, fit.objective.distortion.weights))  # type: ignore[attr-defined]
    launched: list[str] = []

    class Watched(Launcher):
        def run(self, name: str, work: Work) -> None:
            launched.append(name)
            if launched.count(name) > WARM_UP:  # constants are made by then
                with no_host_reads():
                    work()
            else:
                work()

        def reset(self) -> None:
            pass

    fit.launcher = Watched()
    walk(fit)
    assert len(set(launched)) >= 4


class Counted:
    """Work, and a record of it that may fail."""

    def __init__(self, failing: bool = False) -> None:
        self.failing, self.notes = failing, list[str]()
        self.done: list[str] = []
        self.recorders = 0
        self.launcher = Recorded(self.recorder, self.notes.append)

    def recorder(self) -> Callable[[Work], Work]:
        self.recorders += 1
        return self.record

    def record(self, work: Work) -> Work:
        if self.failing:
            raise RuntimeError("operation not permitted when stream is capturing\nand a long trace")
        self.done.append("recorded")
        return lambda: self.done.append("replayed")

    def run(self, name: str = "a") -> None:
        self.launcher.run(name, lambda: self.done.append("worked"))


def test_work_is_recorded_once_after_a_few_launches_and_replayed_from_then_on() -> None:
    counted = Counted()
    for _ in range(WARM_UP + 3):
        counted.run()
    assert counted.done == ["worked"] * WARM_UP + ["recorded"] + ["replayed"] * 3


def test_every_name_is_recorded_by_itself() -> None:
    counted = Counted()
    for _ in range(WARM_UP + 1):
        counted.run("a")
    counted.done.clear()
    counted.run("b")
    assert counted.done == ["worked"]


def test_after_a_reset_names_stand_for_other_work() -> None:
    counted = Counted()
    for _ in range(WARM_UP + 1):
        counted.run()
    counted.launcher.reset()
    counted.done.clear()
    for _ in range(WARM_UP + 1):
        counted.run()
    assert counted.done == ["worked"] * WARM_UP + ["recorded", "replayed"]
    assert counted.recorders == 2  # and their memory is another


def test_where_a_record_fails_the_work_is_done_one_by_one_and_one_line_says_why() -> None:
    counted = Counted(failing=True)
    for name in ("a", "b"):
        for _ in range(WARM_UP + 5):
            counted.run(name)
    counted.launcher.reset()
    counted.run()
    assert counted.done == ["worked"] * (2 * (WARM_UP + 5) + 1)
    (note,) = counted.notes
    assert "operation not permitted" in note and "\n" not in note and "trace" not in note


def test_where_one_record_fails_the_others_are_not_replayed_any_more_either() -> None:
    counted = Counted()
    for _ in range(WARM_UP + 1):
        counted.run("a")
    counted.failing = True
    for _ in range(WARM_UP + 1):
        counted.run("b")
    counted.done.clear()
    counted.run("a")
    assert counted.done == ["worked"]


def test_memory_that_runs_out_is_no_reason_to_go_on_one_by_one() -> None:
    def record(work: Work) -> Work:
        raise torch.OutOfMemoryError("CUDA out of memory")

    launcher = Recorded(lambda: record, lambda note: None)
    for _ in range(WARM_UP):
        launcher.run("a", lambda: None)
    with pytest.raises(torch.OutOfMemoryError):
        launcher.run("a", lambda: None)


def test_a_fit_whose_steps_cannot_be_recorded_is_fitted_all_the_same_and_says_so_once() -> None:
    """A recording that breaks off leaves gradients behind, which the step that follows must not add up."""
    eager, broken = made("hnerv"), made("hnerv")

    def record(work: Work) -> Work:
        before = broken.state()
        broken.objective.descend = stop_before_the_update  # type: ignore[method-assign]
        try:
            work()
        finally:
            del broken.objective.descend  # type: ignore[method-assign]
            broken.restore(before)
        raise RuntimeError("broken off")

    def stop_before_the_update(batch: object, rows: tuple[int, int], step: object, rate: float, probed: bool) -> None:
        type(broken.objective).descend(broken.objective, batch, rows, lambda: None, rate, probed)  # type: ignore[arg-type]

    broken.launcher = Recorded(lambda: record, broken._tell_unrecorded)
    told = walk(eager), walk(broken)
    notes = [progress.note for progress in told[1] if progress.note]
    assert len(notes) == 1 and "broken off" in notes[0]
    assert same(eager, broken)


def test_on_a_cpu_steps_are_launched_one_by_one_whatever_is_asked_for() -> None:
    for how in ("eager", "graph"):
        assert isinstance(made("hnerv", replace(CONFIG, launch=how)).launcher, Eager)


def test_a_gpu_records_unless_rows_change_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "CudaRecorder", lambda: lambda work: work)
    fit = made("hnerv")
    fit.device = torch.device("cuda")
    assert isinstance(fit._launcher(), Recorded)
    for other in (replace(CONFIG, launch="eager"), replace(CONFIG, band=0.5)):
        fit.config = other
        assert isinstance(fit._launcher(), Eager)


def test_recordings_of_a_phase_share_their_memory_on_the_stream_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[tuple[object, object]] = []

    class Graph:
        def pool(self) -> str:
            return "pool"

        def replay(self) -> None:
            entered.append(("replayed", self))

    @contextmanager
    def graph(made: Graph, pool: object, stream: object) -> Iterator[None]:
        entered.append((pool, stream))
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "stream")
    recorder, done = CudaRecorder(), list[str]()
    replays = [recorder(lambda name=name: done.append(name)) for name in "ab"]  # type: ignore[misc]
    assert done == ["a", "b"]  # captured, once each
    assert entered == [(None, "stream"), ("pool", "stream")]
    replays[1]()
    assert entered[-1][0] == "replayed" and done == ["a", "b"]


def test_what_a_fit_does_is_on_its_stream_and_its_caller_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for streams: what is launched on which, and who waits for whom."""
    events: list[tuple[str, str]] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            events.append((self.name, f"waits for {other.name}"))

        def synchronize(self) -> None:
            events.append((self.name, "ends"))

    current = [Stream("caller's")]

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        current.append(chosen)
        yield
        current.pop()

    fit = made("hnerv")
    fit.stream = Stream("own")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current[-1])
    descend = fit.objective.descend

    def watched(*arguments: Any) -> None:
        events.append((current[-1].name, "descends"))
        descend(*arguments)

    fit.objective.descend = watched  # type: ignore[method-assign]
    fit.advance()
    assert events[0] == ("own", "descends") and events[-1] == ("caller's", "waits for own")
    for call in (lambda: fit.made(torch.tensor([0])), fit.bits, fit.checkpoint, lambda: fit.reals(torch.tensor([1]))):
        events.clear()
        call()  # type: ignore[no-untyped-call]
        assert events[-1] == ("caller's", "waits for own")
    events.clear()
    while fit.step <= fit.quantise_step:
        fit.advance()
    assert ("own", "ends") in events  # before what was recorded is dropped


def test_a_compiled_network_is_the_network() -> None:
    notes: list[str] = []
    compiled = Compiled(lambda x: 2 * x + 1, notes.append, backend="aot_eager")
    assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 3.0))
    assert notes == []


def test_a_compiler_that_fails_is_done_without() -> None:
    notes: list[str] = []

    def backend(graph: object, inputs: object) -> object:
        raise RuntimeError("no C++ compiler\nsomewhere")

    compiled = Compiled(lambda x: 2 * x + 1, notes.append, backend=backend)  # type: ignore[arg-type]
    for _ in range(3):
        assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 3.0))
    (note,) = notes
    assert "\n" not in note and "compiled" in note


def test_an_error_of_the_network_itself_is_not_hidden() -> None:
    def network(x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(7, 7)

    compiled = Compiled(network, lambda note: None, backend="aot_eager")
    with pytest.raises(RuntimeError):
        compiled(torch.ones(3, 3))


@pytest.mark.filterwarnings("default")  # PyTorch's compiler warns of itself
@pytest.mark.parametrize("model", ["hnerv", "added"])
def test_a_fit_through_a_compiler_is_the_same(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backend runs what the compiler traced: autograd functions, phases, rows."""
    monkeypatch.setattr(fit_module, "Compiled", lambda network, tell: Compiled(network, tell, backend="eager"))
    config = replace(CONFIG, min_steps=24, prune=0.0)
    plain, traced = made(model, config), made(model, replace(config, launch="compile"))
    walk(plain)
    told = walk(traced)
    assert [progress.note for progress in told if progress.note] == []
    for a, b in zip(plain.state()["tables"], traced.state()["tables"], strict=True):
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-2)
