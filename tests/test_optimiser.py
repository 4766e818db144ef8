"""The optimiser: every parameter is reached, Muon's steps are of one length in all directions, and a state is a whole state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hostless import no_host_reads
from nvc_files import a_fit, clip

from nvc.codec.config import FitConfig
from nvc.codec.fit import Fit
from nvc.codec.network import Network
from nvc.codec.optimiser import Optimiser
from nvc.codec.target import Target


def fit_of(optimiser: str, steps: int = 20) -> Fit:
    config = FitConfig(passes=1, min_steps=steps, optimiser=optimiser)
    return a_fit(clip(32, 24, 3), Target(size=1500), config)[1]


def network_of() -> Network:
    return fit_of("muon").network


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def give_gradients(network: Network, seed: int, scale: float = 1.0) -> None:
    """Random gradients for all parameters."""
    random = generator(seed)
    for parameter in network.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=random)


def copied(network: Network) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_every_parameter_moves(optimiser: str) -> None:
    fit = fit_of(optimiser)
    before = copied(fit.network)
    table = None
    while fit.step < fit.steps:
        fit.advance()
        if table is None and fit.tables:
            table = fit.tables[0].detach().clone()
    moved = {name for name, p in fit.network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before)
    assert table is not None and not torch.equal(fit.tables[0], table)


def test_the_encoder_rests_once_the_embeddings_are_free() -> None:
    fit = fit_of("muon")
    at = int(fit.config.quantise_at * fit.steps)
    for _ in range(at + 1):
        fit.advance()
    before = copied(fit.network)
    fit.advance()
    still = {name for name, p in fit.network.named_parameters() if torch.equal(p, before[name])}
    assert still == {name for name in before if name.startswith("encoder.")}


def steep(shape: torch.Size, seed: int) -> torch.Tensor:
    """A matrix with singular values from 1 to 20."""
    random = generator(seed)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=random), full_matrices=False)
    return u @ torch.diag(torch.logspace(0, 1.3, min(shape))) @ v


def spread(matrix: torch.Tensor) -> float:
    values = torch.linalg.svdvals(matrix)
    return float(values.max() / values.min())


def test_muon_moves_a_kernel_alike_in_all_directions() -> None:
    network = network_of()
    optimiser = Optimiser(network, FitConfig(passes=1))
    optimiser.set_rate(1.0)
    give_gradients(network, 0)
    for number, layer in enumerate(network.convolutions()):
        layer.weight.grad = steep(layer.weight.flatten(1).shape, number).view(layer.weight.shape)
    before = copied(network)
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    optimiser.step()
    kernels = [name for name, p in network.named_parameters() if any(p is layer.weight for layer in network.convolutions())]
    assert len(kernels) > 2
    for name, parameter in network.named_parameters():
        if name in kernels:
            moved = (parameter.detach() - before[name]).flatten(1)
            assert spread(gradients[name].flatten(1)) > 15
            assert spread(moved) < 3, name
            assert float((moved * gradients[name].flatten(1)).sum()) < 0  # downhill
            assert moved.square().mean().sqrt() == pytest.approx(0.2 * 3e-2, rel=0.3), name  # the RMS of an Adam step


def test_muon_goes_the_way_of_pytorchs_own() -> None:
    """Matrices that PyTorch's Muon moves by itself, with its own rate and decay."""
    network = network_of()
    config = FitConfig(passes=1)
    optimiser = Optimiser(network, config)
    kernels = [layer.weight for layer in network.convolutions()]
    own = [torch.nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in kernels]
    theirs = torch.optim.Muon(own, config.matrix_lr, config.weight_decay, config.momentum, adjust_lr_fn="match_rms_adamw")
    for step in range(6):
        factor = (1.0, 0.3)[step % 2]
        optimiser.set_rate(factor)
        theirs.param_groups[0]["lr"] = config.matrix_lr * factor
        give_gradients(network, step)
        for kernel, matrix in zip(kernels, own, strict=True):
            assert kernel.grad is not None
            matrix.grad = kernel.grad.flatten(1).clone()
        optimiser.step()
        theirs.step()
    for kernel, matrix in zip(kernels, own, strict=True):
        assert torch.allclose(kernel.detach().flatten(1), matrix.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("used", ["adam", "muon"])
def test_a_step_reads_nothing_on_the_host(used: str) -> None:
    network = network_of()
    optimiser = Optimiser(network, FitConfig(passes=1, optimiser=used))
    for step in range(3):
        give_gradients(network, step)
        optimiser.set_rate(1.0)
        if step:
            with no_host_reads():
                optimiser.step()
        else:
            optimiser.step()  # makes its state
    assert all(parameter.grad is None for parameter in network.parameters())


def test_adam_takes_the_kernels_where_it_is_asked_to() -> None:
    network = network_of()
    optimiser = Optimiser(network, FitConfig(passes=1, optimiser="adam"))
    optimiser.set_rate(0.5)
    before = copied(network)
    give_gradients(network, 0)
    optimiser.step()
    for name, parameter in network.named_parameters():
        rate = 0.5 * 2e-3 * (4 if name.endswith(("log_step", "log_gain")) else 1)
        step = (parameter.detach() - before[name]).abs()
        assert torch.allclose(step, torch.full_like(step, rate), rtol=0.05, atol=1e-6), name  # Adam's first step


def test_free_latents_have_a_rate_of_their_own() -> None:
    network = network_of()
    optimiser = Optimiser(network, FitConfig(passes=1))
    table = torch.nn.Parameter(torch.zeros(5, 4))
    optimiser.add(table)
    optimiser.set_rate(1.0)
    table.grad = torch.ones(5, 4)
    optimiser.step()
    assert torch.allclose(table.detach(), torch.full((5, 4), -3 * 2e-3), rtol=1e-3)


@pytest.mark.parametrize("used", ["adam", "muon"])
def test_a_restored_state_goes_the_same_way_again_bit_for_bit(used: str) -> None:
    network = network_of()
    optimiser = Optimiser(network, FitConfig(passes=1, optimiser=used))
    optimiser.set_rate(1.0)

    def walk(seeds: Iterator[int] | range) -> dict[str, torch.Tensor]:
        for seed in seeds:
            give_gradients(network, seed, 1.0 + seed)
            optimiser.step()
        return copied(network)

    begun = copied(network)
    untouched = optimiser.state()  # before any step
    first = walk(range(4))
    kept = optimiser.state()
    last = walk(range(4, 8))
    for state, values, seeds, wanted in ((kept, first, range(4, 8), last), (untouched, begun, range(4), first)):
        for _ in range(2):  # a state may be gone back to twice
            with torch.no_grad():
                for name, parameter in network.named_parameters():
                    parameter.copy_(values[name])
            optimiser.restore(state)
            again = walk(seeds)
            assert all(torch.equal(again[name], wanted[name]) for name in wanted)


def test_a_gradient_is_at_most_twice_the_running_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of()
    optimiser = Optimiser(network, FitConfig(passes=1))
    optimiser.set_rate(0.0)
    kernels = {id(layer.weight) for layer in network.convolutions()}
    parameters = [p for p in network.parameters() if id(p) not in kernels]
    taken: list[float] = []

    def note(*_: object) -> None:
        taken.append(float(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()))

    monkeypatch.setattr(optimiser.adam, "step", note)

    def step(norm: float) -> float:
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        whole = float(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm())
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad *= norm / whole
        optimiser.step()
        return taken[-1]

    for _ in range(5):
        assert step(3.0) == pytest.approx(3.0)
    assert step(5.9) == pytest.approx(5.9)  # under twice as much passes
    running = 0.95 * 3.0 + 0.05 * 5.9
    for _ in range(3):
        assert step(1e6) == pytest.approx(2 * running, rel=1e-3)
        running = 0.95 * running + 0.05 * 2 * running  # and counts as what it was cut to
    assert step(0.1) == pytest.approx(0.1)
