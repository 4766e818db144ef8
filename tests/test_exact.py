"""Exact convolutions: the safe path is right by NumPy's integers, and a library that is not quite exact is found out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nvc.codec import exact
from nvc.conformance import ref_operations


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without what an earlier one found out about a geometry."""
    monkeypatch.setattr(exact, "_tested", {})


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, int]:
    """Integers (N, I, H, W), weights, biases and groups, with sums below 2^24."""
    groups, inputs, outputs = draw(st.sampled_from([(1, 3, 5), (1, 8, 4), (2, 2, 3), (5, 1, 1), (4, 1, 2)]))
    kh, kw = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (1, 5), (5, 1), (3, 7)]))
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = min(127, (1 << 23) // (2048 * inputs * kh * kw))
    x = generator.choice([-2048, 2047, 0, 1], (n, groups * inputs, h, w))
    weight = generator.integers(-most, most + 1, (groups * outputs, inputs, kh, kw))
    bias = generator.integers(-(1 << 22), 1 << 22, groups * outputs)
    return *(torch.from_numpy(each).float() for each in (x, weight, bias)), groups


def twin(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """The same in 64-bit integers by the conformance reference, picture by picture."""
    made = []
    for picture in x.numpy().astype(np.int64):
        frame = ref_operations.Frame([weight.numpy().astype(np.int64), bias.numpy().astype(np.int64)], 0, 1)
        out, _, kh, kw = weight.shape
        made.append(ref_operations.convolution(frame, [picture], 0, 0, 1, out, kh, kw, groups))
    return torch.from_numpy(np.stack(made)).float()


@given(convolutions(), st.sampled_from([1, 4000, 64 << 20]))
@settings(deadline=None, max_examples=40)
def test_both_paths_are_the_integer_convolution_and_strips_change_nothing(
    case: tuple[Tensor, Tensor, Tensor, int], strip: int
) -> None:
    x, weight, bias, groups = case
    expected = twin(x, weight, bias, groups)
    before, exact.STRIP_BYTES = exact.STRIP_BYTES, strip
    try:
        assert torch.equal(exact.safe(x, weight, bias, groups), expected)
        assert torch.equal(exact.safe(x.contiguous(memory_format=torch.channels_last), weight, bias, groups), expected)
    finally:
        exact.STRIP_BYTES = before
    assert torch.equal(exact.fast(x, weight, bias, groups), expected)


def test_a_small_strip_is_one_row_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above does cut its maps."""
    rows = []
    unfold = torch.nn.functional.unfold

    def counted(strip: Tensor, kernel: tuple[int, int]) -> Tensor:
        rows.append(strip.shape[2])
        return unfold(strip, kernel)

    monkeypatch.setattr(exact, "STRIP_BYTES", 1)
    monkeypatch.setattr(exact.functional, "unfold", counted)
    exact.safe(torch.zeros(1, 2, 7, 3), torch.zeros(4, 2, 3, 3), torch.zeros(4), 1)
    assert rows == [3] * 7


LAYER = (torch.full((8, 4, 3, 3), 5.0), torch.zeros(8))


B = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
G = [[1 / 4, 0, 0], [-1 / 6] * 3, [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def winograd(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """F(4x4, 3x3) of Lavin and Gray in float32: the fewest multiplications, and sums that are not those of the convolution."""
    b, g, a = (torch.tensor(matrix, dtype=torch.float32) for matrix in (B, G, A))
    tiles = torch.nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4)
    products = torch.einsum("ocij,ncyxij->noyxij", g @ weight @ g.T, b @ tiles @ b.T)
    return (a @ products @ a.T).transpose(3, 4).reshape(len(x), len(weight), *x.shape[2:]) + bias.reshape(-1, 1, 1)


def test_winograd_is_a_convolution_but_not_an_exact_one() -> None:
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(-9, 10, (2, 4, 8, 12), generator=generator).float()
    assert torch.equal(winograd(small, *LAYER, 1).round(), exact.safe(small, *LAYER, 1))


def test_a_kernel_that_is_right_is_taken() -> None:
    assert exact.choose((2, 4, 8, 12), *LAYER, 1) is exact.fast


def test_a_kernel_that_transforms_its_input_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "fast", winograd)
    assert exact.choose((2, 4, 8, 12), *LAYER, 1) is exact.safe


def test_a_kernel_is_judged_by_its_geometry_even_if_the_first_layer_of_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 0 hide every error; a later layer of the same geometry would be trusted for it."""
    monkeypatch.setattr(exact, "fast", winograd)
    weight, bias = LAYER
    assert exact.choose((2, 4, 8, 12), torch.zeros_like(weight), bias, 1) is exact.safe
    assert exact.choose((2, 4, 8, 12), weight, bias, 1) is exact.safe


def test_a_kernel_is_tested_once_per_geometry_batch_and_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        calls.append(tuple(x.shape))
        return exact.safe(x, weight, bias, groups)

    monkeypatch.setattr(exact, "fast", counted)
    for shape in ((1, 4, 6, 6), (1, 4, 6, 6), (2, 4, 6, 6), (1, 4, 6, 7)):
        exact.choose(shape, *LAYER, 1)
    assert calls == [(1, 4, 6, 6), (2, 4, 6, 6), (1, 4, 6, 7)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        exact.choose((1, 4, 6, 6), *LAYER, 1)
    finally:
        torch.set_num_threads(threads)
    assert len(calls) == 4


@pytest.mark.parametrize("taps", [(1, 1, 1), (4, 3, 3), (64, 5, 5), (400, 5, 5), (4096, 3, 3)])
def test_the_trial_comes_near_2_24_and_never_passes_it(taps: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Near: within a factor of two, unless even the largest numbers stay below it."""
    channels, kh, kw = taps
    seen = []
    monkeypatch.setattr(exact, "fast", lambda x, weight, bias, groups: seen.append((x, weight)) or x)
    exact.choose((1, channels, 2 * kh + 4, 2 * kw + 4), torch.zeros(16, channels, kh, kw), torch.zeros(16), 1)
    x, weight = seen[0]
    sums = torch.nn.functional.conv2d(x.double(), weight.double())
    largest = float(x.abs().max() * weight.abs().max()) * channels * kh * kw
    assert sums.abs().max() == largest <= 1 << 24
    assert largest > 1 << 23 or (x.abs().max(), weight.abs().max()) == (2047, 127)
    assert (x < 0).any() and (weight < 0).any()


def test_the_test_draws_nothing_from_the_callers_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    exact.choose((1, 4, 6, 6), *LAYER, 1)
    assert torch.equal(torch.rand(1), expected)


# ---- precision knobs


@pytest.fixture
def knobs() -> Iterator[list[object]]:
    """The precision settings of this torch, set to what a user may have chosen."""
    found = [getattr(torch.backends.mkldnn, name, None) for name in ("conv", "matmul")]
    present = [knob for knob in found if hasattr(knob, "fp32_precision")]
    before = [knob.fp32_precision for knob in present]  # type: ignore[union-attr]
    for knob in present:
        knob.fp32_precision = "bf16"  # type: ignore[union-attr]
    yield present
    for knob, value in zip(present, before, strict=True):
        knob.fp32_precision = value  # type: ignore[union-attr]


def settings_of(knobs: list[object]) -> list[str]:
    return [knob.fp32_precision for knob in knobs]  # type: ignore[attr-defined]


def test_precision_is_pinned_inside_and_restored_behind(knobs: list[object]) -> None:
    with exact.pinned():
        assert settings_of(knobs) == ["ieee"] * len(knobs)
        assert torch.is_inference_mode_enabled()
    assert settings_of(knobs) == ["bf16"] * len(knobs)
    assert not torch.is_inference_mode_enabled()


def test_precision_is_restored_after_an_error(knobs: list[object]) -> None:
    with pytest.raises(KeyError), exact.pinned():
        raise KeyError
    assert settings_of(knobs) == ["bf16"] * len(knobs)
    assert not torch.is_inference_mode_enabled()
