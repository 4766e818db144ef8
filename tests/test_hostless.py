"""The tools of hostless.py: what would stop a GPU is refused by name, and a replay does what the recorded steps do, no more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hostless import Tape, no_host_reads
from torch import Tensor, nn

X = torch.arange(6.0)
MASK, INDEX = X > 2, torch.tensor([1, 2])
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "item": (lambda: X[0].item(), "item"),
    "float": (lambda: float(X[0]), "float"),
    "a number as an index": (lambda: X[INDEX[0]], "_local_scalar_dense"),
    "a condition": (lambda: 1 if MASK.any() else 0, "bool"),
    "tolist": (X.tolist, "tolist"),
    "numpy": (X.numpy, "numpy"),
    "an array": (lambda: np.asarray(X), "array"),
    "cpu": (X.cpu, "cpu"),
    "equal": (lambda: torch.equal(X, X), "equal"),
    "allclose": (lambda: torch.allclose(X, X), "allclose"),
    "nonzero": (MASK.nonzero, "nonzero"),
    "where of one": (lambda: torch.where(MASK), "nonzero"),
    "masked_select": (lambda: X.masked_select(MASK), "masked_select"),
    "bincount": (lambda: torch.bincount(INDEX), "bincount"),
    "unique": (lambda: X.unique(), "_unique2"),
    "unique_consecutive": (lambda: X.unique_consecutive(), "unique_consecutive"),
    "a mask as an index": (lambda: X[MASK], "aten.index.Tensor by a mask"),
    "a masked assignment": (lambda: X.clone().index_put_((MASK,), X[:1]), "aten.index_put_.default by a mask"),
    "a list as an index": (lambda: X[[0, 1]], "lift_fresh"),
    "a number assigned": (lambda: X.clone().__setitem__(INDEX, 3.0), "lift_fresh"),
    "tensor": (lambda: torch.tensor([1.0]), "lift_fresh"),
    "new_tensor": (lambda: X.new_tensor([1.0]), "lift_fresh"),
    "from_numpy": (lambda: torch.from_numpy(np.ones(3)), "lift_fresh"),
    "repeat_interleave": (lambda: torch.repeat_interleave(INDEX), "without output_size"),
    "histc": (lambda: torch.histc(X), "histc"),
    "another device": (lambda: X.to("meta"), "aten._to_copy.default copies between devices"),
    "a copy": (lambda: torch.empty(6, device="meta").copy_(X), "aten.copy_.default copies between devices"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stops_a_gpu_is_refused_by_name(name: str) -> None:
    work, named = REFUSED[name]
    work()
    with no_host_reads(), pytest.raises(AssertionError, match=named):
        work()


def test_what_stays_on_the_device_passes() -> None:
    with no_host_reads():
        y = torch.where(X > 1, X, 0.0)[INDEX] + X[2:4] + X[1]
        y.double().sum()
        torch.zeros(6).index_put_((INDEX,), y)
        torch.repeat_interleave(INDEX, output_size=3)
        torch.zeros(3, dtype=torch.int64).scatter_add_(0, INDEX, torch.ones_like(INDEX))
        torch.histc(X, 4, 0, 8)
        X.repeat_interleave(2)
    assert float(y[0]) == 0.0 + 2 + 1


class _Read(torch.autograd.Function):
    """The identity; its backward looks at the gradient on the host."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0] * (2.0 if bool(gradients[0].isfinite().all()) else 0.0)


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return torch.zeros_like(gradients[0]).masked_scatter(MASK, gradients[0].masked_select(MASK))


@pytest.mark.parametrize(("function", "named"), [(_Read, "_local_scalar_dense"), (_Select, "masked_select")])
def test_the_backward_pass_is_seen(function: type[torch.autograd.Function], named: str) -> None:
    x = X.clone().requires_grad_()
    with no_host_reads():
        loss = function.apply(x).square().sum()  # type: ignore[no-untyped-call]
        with pytest.raises(AssertionError, match=named):
            loss.backward()
    loss = function.apply(x).square().sum()  # type: ignore[no-untyped-call]
    loss.backward()  # outside, it is nobody's business


# ---- the tape


def test_a_replay_does_what_the_record_did_with_the_values_of_now() -> None:
    x, total = torch.arange(4.0), torch.zeros(4)

    def work() -> Tensor:
        doubled = (2 * x).view(2, 2)  # a view of what is made
        doubled[0].add_(1)  # in place through a view of the view
        total.add_(doubled.flatten())
        return doubled.sum() + total.sum()

    tape = Tape()
    result = tape.record(work)
    expected = torch.tensor([1.0, 3.0, 4.0, 6.0])
    assert torch.equal(total, expected) and float(result) == 28
    x.fill_(1.0)
    tape.replay()
    expected += torch.tensor([3.0, 3.0, 2.0, 2.0])
    assert torch.equal(total, expected) and float(result) == 10 + 24
    tape.replay()
    assert float(total.sum()) == 34 and float(result) == 10 + 34


def test_numbers_of_python_are_frozen_and_tensors_are_not() -> None:
    calls, counter, out = 0, torch.zeros(()), torch.zeros(2)

    def work() -> None:
        nonlocal calls
        calls += 1
        counter.add_(1)
        out[0].add_(calls)
        out[1].add_(counter)

    tape = Tape()
    tape.record(work)
    for _ in range(3):
        tape.replay()
    assert calls == 1
    assert out.tolist() == [1 + 1 + 1 + 1, 1 + 2 + 3 + 4]


def test_a_host_read_cannot_be_recorded() -> None:
    with pytest.raises(AssertionError, match="item"):
        Tape().record(lambda: X * X[0].item())


def test_random_numbers_are_drawn_anew() -> None:
    random, tape = torch.Generator().manual_seed(1), Tape()
    drawn = tape.record(lambda: torch.rand(4, generator=random))
    first = drawn.clone()
    tape.replay()
    twin = torch.Generator().manual_seed(1)
    assert torch.equal(first, torch.rand(4, generator=twin)) and torch.equal(drawn, torch.rand(4, generator=twin))


class Step:
    """A step of an optimiser on data that move."""

    def __init__(self, *, drop: bool, foreach: bool) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9, foreach=foreach)
        self.x, self.drop = torch.randn(16, 4), drop

    def __call__(self) -> Tensor:
        self.optimiser.zero_grad(set_to_none=self.drop)
        loss = self.net(self.x).square().mean()
        loss.backward()
        self.optimiser.step()
        self.x.mul_(1.01)
        out: Tensor = loss.detach()
        return out


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("foreach", [False, True])
def test_a_step_with_gradients_and_an_optimiser_goes_on_as_if_nobody_had_recorded_it(drop: bool, foreach: bool) -> None:
    eager, recorded = (Step(drop=drop, foreach=foreach) for _ in range(2))
    losses = [float(eager()) for _ in range(8)]
    found = [float(recorded()) for _ in range(2)]
    tape = Tape()
    loss = tape.record(recorded)
    found.append(float(loss))
    for _ in range(5):
        tape.replay()
        found.append(float(loss))
    assert found == losses and len(set(losses)) == 8
    assert all(torch.equal(a, b) for a, b in zip(eager.net.parameters(), recorded.net.parameters(), strict=True))
