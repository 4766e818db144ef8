"""bfloat16 in a fit: only where the machine multiplies it, only in wide layers, and never to the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from nvc_files import a_fit, clip, emitted

from nvc.codec import precision
from nvc.codec.config import FitConfig
from nvc.codec.fit import Fit
from nvc.codec.interpreter import Interpreter
from nvc.codec.latents import Numbers
from nvc.codec.layers import LINEAR, QuantConv
from nvc.codec.precision import LEAST_INPUTS, half_is_fast, set_deterministic, set_half, set_tuned
from nvc.codec.target import Target

CPU = torch.device("cpu")


def capable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(
        torch.cpu,
        "get_capabilities",
        lambda: dict.fromkeys(("avx2", "avx512_vnni"), True) | dict.fromkeys(names, True),
        raising=False,
    )


@pytest.mark.parametrize(("names", "fast"), [((), False), (("avx512_bf16",), True), (("amx_bf16",), True)])
def test_a_cpu_is_fast_if_it_says_so(names: tuple[str, ...], fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    capable(monkeypatch, *names)
    assert half_is_fast(CPU) is fast


def test_a_torch_that_cannot_tell_is_not_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not half_is_fast(CPU)


@pytest.fixture
def settings() -> Iterator[None]:
    """Those of torch, put back."""
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.usefixtures("settings")
def test_a_gpu_tries_its_kernels_unless_it_is_to_repeat_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cuda = torch.device("cuda")
    torch.backends.cudnn.benchmark = False
    set_tuned(CPU)
    assert not torch.backends.cudnn.benchmark
    set_tuned(cuda)
    assert torch.backends.cudnn.benchmark
    set_deterministic()
    set_tuned(cuda)
    assert not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_encoders_are_half_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **others: asked.append(arguments) or nullcontext())
    monkeypatch.setattr(precision, "half_is_fast", lambda device: True)
    with precision.half_encoders(CPU):
        assert asked == []
    with precision.half_encoders(torch.device("cuda")):
        assert asked == [("cuda", torch.bfloat16)]
    monkeypatch.setattr(precision, "half_is_fast", lambda device: False)
    with precision.half_encoders(torch.device("cuda")):
        assert len(asked) == 1


def test_narrow_layers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = (1, LEAST_INPUTS - 1, LEAST_INPUTS, 2 * LEAST_INPUTS)
    layers = [QuantConv((width, 4), 3, LINEAR) for width in widths]
    capable(monkeypatch, "avx512_bf16")
    set_half(layers, True, CPU)
    assert [layer.in_bfloat16 for layer in layers] == [False, False, True, True]
    set_half(layers, False, CPU)
    assert not any(layer.in_bfloat16 for layer in layers)
    capable(monkeypatch)
    set_half(layers, True, CPU)
    assert not any(layer.in_bfloat16 for layer in layers)


def test_a_fit_is_half_until_hard_at_and_ends_as_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "half_is_fast", lambda _: True)
    monkeypatch.setattr(precision, "LEAST_INPUTS", 4)
    source = clip(32, 24, 2)
    plan, fit = a_fit(source, Target(size=1500), FitConfig(passes=1, min_steps=40))
    step_of, halves = fit._step, []

    def step(number: int) -> None:
        halves.append([layer.in_bfloat16 for layer in fit.convolutions])
        step_of(number)

    fit._step = step  # type: ignore[method-assign]
    numbers = fit.run(lambda _: None)
    hard = int(fit.config.hard_at * fit.steps)
    assert [all(half) for half in halves] == [number < hard for number in range(fit.steps)]
    assert not any(any(half) for half in halves[hard:])
    assert same_as_decoded(plan, fit, numbers)


@torch.no_grad()
def same_as_decoded(plan, fit: Fit, numbers: list[list[Numbers]]) -> bool:  # type: ignore[no-untyped-def]
    """Whether the network, as the fit left it, makes the luma that the decoder makes."""
    canvas = fit.network([torch.from_numpy(numbers[0][0]).float()])
    n, _, h, w = canvas.shape
    luma = canvas[:, :4].reshape(n, 2, 2, h, w).permute(0, 3, 1, 4, 2).reshape(n, 2 * h, 2 * w)
    decoded = Interpreter(plan.analysis, emitted(fit.network, numbers), n, n, CPU).render(0, n)[0]
    height, width = decoded.shape[1:]
    return torch.equal(luma[:, :height, :width], torch.from_numpy(decoded).float())
