"""The coupling: what one side splits the other joins, and the decoder's half of it is its program to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_programs import program_of, rows_of, values_of

from nvc.bitstream import arithmetic
from nvc.bitstream.analysis import analyse
from nvc.bitstream.bounds import prove
from nvc.bitstream.constants import Limits
from nvc.bitstream.program import Builder, Op
from nvc.codec.activations import ACTIVATIONS, EXP
from nvc.codec.coupling import Coupling
from nvc.codec.network import convolutions

CHANNELS = 6
ACTIVATION_NAMES = list(ACTIVATIONS)


def coupling(activation: str, seed: int = 0) -> Coupling:
    """One with large random weights, quantised."""
    torch.manual_seed(seed)
    made = Coupling(CHANNELS, 5, ACTIVATIONS[activation])
    with torch.no_grad():
        for layer in convolutions(made):
            layer.weight.mul_(6)
            layer.bias.add_(0.5 * torch.randn_like(layer.bias))
            layer.log_step.add_(np.log(6))
            layer.quantise_weights = True
            layer.settle()
    return made


def maps(seed: int, spread: int = 500) -> torch.Tensor:
    drawn = np.random.default_rng(seed).normal(0, spread, (2, CHANNELS, 4, 3))
    return torch.from_numpy(drawn.round().clip(-2048, 2047)).float()


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_joining_inverts_splitting(activation: str) -> None:
    made = coupling(activation)
    x, f = (maps(seed) for seed in (1, 2))
    v1, v2 = made.split(x, f)
    assert (v1 - x).abs().mean() > 10 and (v2 - f).abs().mean() > 10  # both nets are heard
    back_x, back_f = made.join(v1, v2)
    assert (back_f - f).abs().max() < 1e-2
    # the net of f rounds inside: here and there an error of 1e-4 of its input becomes a unit
    assert ((back_x - x).abs() < 1e-2).float().mean() > 0.98


@torch.no_grad()
def real_nets(made: Coupling, v: torch.Tensor, name: str) -> torch.Tensor:
    """One of the nets as it is."""
    out: torch.Tensor = getattr(made, name)(v)
    return out


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_the_decoder_joins_with_zeros_up_to_the_rounding_of_units(activation: str) -> None:
    made = coupling(activation)
    v1 = maps(3, 200)
    x, f = made(v1)
    _, real_f = made.join(v1, torch.zeros_like(v1))
    inside = (real_f.abs() < 2047) & (f.abs() < 2047)
    assert inside.float().mean() > 0.5
    assert (f - real_f)[inside].abs().max() <= 0.5
    expected = (v1 - real_nets(made, f, "mix")).clamp(-2048, 2047)  # from the f that the decoder has
    assert torch.equal(x, expected)


def test_the_gain_is_an_exponential_of_its_net() -> None:
    made = coupling("hswish")
    v1 = maps(4)
    with torch.no_grad():
        sums = made.gain.second(made.gain.first(v1)) * EXP.out_step
        made.gain.second.requantiser.activation = ACTIVATIONS["relu"]  # leaves the sums as they are, but for negative ones
        inner = made.gain(v1) * EXP.step
    known = (inner > 0) & (inner < 2047 * EXP.step)
    assert known.float().mean() > 0.2
    assert (sums / inner.exp() - 1)[known].abs().max() < 2.0**-9  # half a unit of 1 / 256, at least 1


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("spread", [100, 2000])
def test_the_forward_is_the_emitted_program_run_by_the_reference(activation: str, spread: int) -> None:
    made, codes = coupling(activation, 5), maps(6, spread)
    builder = Builder("coupling")
    source = builder.add(Op.EMBEDDING, builder.parameter(codes.numpy().astype(np.int64)), CHANNELS, 4, 3, 0, 1)
    numbers = made.emit(builder, source)
    rows = rows_of(builder.program())
    proof = prove(analyse(program_of(*rows, [int(Op.OUTPUT), 0, 0, 0]), Limits()), builder.tensors)
    assert max(proof.reach) < arithmetic.EXACT
    forward = [value.detach().numpy() for value in made(codes)]
    for t in range(2):
        values = values_of(rows, builder.tensors, t, 2)
        for number, trained in zip(numbers, forward, strict=True):
            assert np.array_equal(values[number], trained[t])
