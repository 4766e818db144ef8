"""Exact convolutions: the safe path is right by NumPy's integers, and a library that is not quite exact is found out."""

from __future__ import annotations

import functools
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


# ---- what is tested is what runs


@st.composite
def maps(draw: st.DrawFn) -> Tensor:
    """Maps (N, C, H, W) of any size from 1 and in any layout: views of others too, and values that are repeated."""
    n, c, h, w = (draw(st.integers(1, 4)) for _ in range(4))
    whole = torch.arange(n * (c + 1) * (h + 1) * w).float().reshape(n, c + 1, h + 1, w)
    if draw(st.booleans()):
        whole = whole.contiguous(memory_format=torch.channels_last)
    part = whole[:, draw(st.integers(0, 1)) :][:, :c, draw(st.integers(0, 1)) :][:, :, :h]
    form = draw(st.sampled_from(["view", "contiguous", "channels last", "repeated"]))
    if form == "repeated":
        return part[:1].expand(n, -1, -1, -1)
    layouts = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    return part.contiguous(memory_format=layouts[form]) if form in layouts else part


@given(maps())
@settings(deadline=None)
def test_a_map_is_arranged_as_that_of_the_trial_whatever_it_was(x: Tensor) -> None:
    made = exact.arranged(x)
    trial, _ = exact._saturating(tuple(x.shape), torch.zeros(3, x.shape[1], 1, 1))  # type: ignore[arg-type]
    assert torch.equal(made, x)
    assert (made.stride(), made.storage_offset(), made.dtype) == (trial.stride(), trial.storage_offset(), trial.dtype)
    assert exact.arranged(made) is made


def test_a_map_that_begins_within_another_is_moved_to_the_start_of_its_own() -> None:
    """Libraries look at alignment too, which a view has as it happens."""
    whole = torch.arange(2 * 3 * 5 * 7).float().reshape(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    part = whole[1:]
    made = exact.arranged(part)
    assert torch.equal(made, part) and made.storage_offset() == 0 and made.data_ptr() != part.data_ptr()


@pytest.mark.parametrize("shape", [(2, 4, 8, 12), (1, 1, 5, 7), (3, 4, 1, 1), (1, 4, 6, 1)])
def test_the_trial_weight_lies_as_the_layers_own(shape: tuple[int, int, int, int]) -> None:
    weight = torch.zeros(8, shape[1], 1, 3).contiguous(memory_format=torch.channels_last)
    _, trial = exact._saturating(shape, weight)
    assert trial.stride() == weight.stride() and trial.shape == weight.shape


# ---- settings that decide which kernel runs

PINNED = {
    "mkldnn.conv.fp32_precision": "ieee",
    "mkldnn.matmul.fp32_precision": "ieee",
    "cuda.matmul.fp32_precision": "ieee",
    "cudnn.conv.fp32_precision": "tf32",
    "cudnn.benchmark": False,
    "cudnn.deterministic": True,
}
USERS = dict(zip(PINNED, ("bf16", "bf16", "tf32", "ieee", True, False), strict=True))  # the opposite of each


def setting(path: str) -> tuple[object, str]:
    """Owner and name of a setting under torch.backends."""
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, torch.backends), name


def current() -> dict[str, object]:
    return {path: getattr(*setting(path)) for path in PINNED}


@pytest.fixture
def users_choice() -> Iterator[None]:
    """Everything set as a user may have chosen it, autocast included."""
    before = current()
    for path, value in USERS.items():
        setattr(*setting(path), value)
    torch.set_autocast_enabled("cpu", True)
    yield
    torch.set_autocast_enabled("cpu", False)
    for path, value in before.items():
        setattr(*setting(path), value)


def test_settings_are_pinned_inside_and_restored_behind(users_choice: None) -> None:
    with exact.pinned():
        assert current() == PINNED
        assert torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")
        with exact.pinned():
            assert current() == PINNED
        assert current() == PINNED
    assert current() == USERS
    assert not torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")


def test_settings_are_restored_after_an_error(users_choice: None) -> None:
    with pytest.raises(KeyError), exact.pinned():
        raise KeyError
    assert current() == USERS
    assert not torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")


def test_the_old_switches_can_still_be_read_inside_and_behind() -> None:
    """PyTorch raises where settings of the old and the new kind contradict each other; libraries read the old ones."""

    def read() -> tuple[bool, bool, str]:
        backends = torch.backends
        return backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()

    before = read()
    with exact.pinned():
        assert read() == before
    assert read() == before


def test_autocast_does_not_reach_the_safe_path(users_choice: None) -> None:
    x, weight = torch.full((1, 4, 6, 6), 2047.0), torch.full((2, 4, 3, 3), 3.0)
    with exact.pinned():
        made = exact.safe(x, weight, torch.zeros(2), 1)
    assert made.dtype == torch.float32 and made[0, 0, 3, 3] == 4 * 9 * 2047 * 3
