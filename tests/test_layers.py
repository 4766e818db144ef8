"""Layers: what is trained is what is decoded, integer for integer; gradients are those of the function without rounding."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hostless import no_host_reads
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_programs import Integers, Row, rows_of, values_of
from torch import Tensor

from nvc.bitstream import arithmetic
from nvc.bitstream.analysis import analyse, check_picture
from nvc.bitstream.bounds import prove
from nvc.bitstream.constants import Limits
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op, Program
from nvc.codec import layers, quant, resample, steps
from nvc.codec.geometry import Picture
from nvc.codec.interpreter import Interpreter
from nvc.codec.latents import Embedding
from nvc.conformance import ref_operations

CPU = torch.device("cpu")
ACTIVATIONS = layers.ACTIVATIONS | {"linear": layers.LINEAR, "pixels": layers.pixels(8)}
KINDS = list(ACTIVATIONS)


def layer_of(
    kind: str, channels: tuple[int, int], kernel: int, seed: int, spread: float = 1.0, channel_steps: bool = False
) -> layers.QuantConv:
    """A quantised layer with random weights, biases and steps; `spread` widens the weights."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    head = kind == "pixels"
    layer = layers.QuantConv(channels, kernel, ACTIVATIONS[kind], channel_steps=channel_steps)
    with torch.no_grad():
        layer.weight.mul_(spread)
        layer.bias.copy_(torch.from_numpy(generator.normal(0.5 if head else 0.0, 0.5, channels[1])))
        layer.log_step.add_(torch.from_numpy(generator.uniform(-2, 2, tuple(layer.log_step.shape))))
    layer.quantise_weights = True
    layer.settle()
    return layer


def emitted(layer: layers.QuantConv, codes: Integers) -> Builder:
    """The program of one layer behind an embedding (T, C, h, w); its last value is the layer's."""
    builder = Builder("layer")
    x = builder.add(Op.EMBEDDING, builder.parameter(codes), *codes.shape[1:], 0, 1)
    layer.emit(builder, x)
    return builder


def activations(generator: np.random.Generator, *shape: int) -> Integers:
    """Integers of 12 bits, many of them at the ends."""
    inner = generator.normal(0, 700, shape).round().clip(-2048, 2047)
    return np.where(generator.random(shape) < 0.2, generator.choice([-2048, 2047], shape), inner).astype(np.int64)


@given(
    st.sampled_from(KINDS),
    st.sampled_from([(1, 1), (5, 3), (16, 8)]),
    st.sampled_from([1, 3, 5]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=80)
def test_the_training_forward_is_the_emitted_program_run_by_the_reference(
    kind: str, channels: tuple[int, int], kernel: int, channel_steps: bool, masked: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    layer = layer_of(kind, channels, kernel, seed, float(generator.choice([0.01, 1.0, 30.0])), channel_steps)
    if masked:
        layer.prune(torch.rand_like(layer.weight) < 0.5)
    codes = activations(generator, 2, channels[0], 5, 7)
    builder = emitted(layer, codes)
    prove(analyse(_ended(builder), Limits()), builder.tensors)
    trained = layer(torch.from_numpy(codes).float()).detach().numpy()
    for t in range(2):
        values = values_of(rows_of(builder.program()), builder.tensors, t, 2)
        assert np.array_equal(trained[t], values[-1])


def _ended(builder: Builder) -> Program:
    """The program so far with an output that is legal for any value."""
    last = len(builder.program().operations) - 1
    builder.add(Op.OUTPUT, last, last, last)
    program = builder.program()
    builder._operations.pop()
    return program


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_forward_is_the_emitted_program_run_by_the_interpreter(kind: str) -> None:
    generator = np.random.default_rng(7)
    layer = layer_of(kind, (6, 3), 3, 7)
    codes = activations(generator, 3, 6, 9, 8)
    builder = emitted(layer, codes)
    number = builder.parameter(np.array([arithmetic.multiplier_code(1 / 16)]))
    samples = builder.add(Op.REQUANTISE, len(builder.program().operations) - 1, number, 1, 0, 255, 0, 0)
    planes = [builder.add(Op.SLICE, samples, channel, channel + 1) for channel in range(3)]
    builder.add(Op.OUTPUT, *planes)
    rendered = Interpreter(analyse(builder.program(), Limits()), builder.tensors, 3, 3, CPU).render(0, 3)
    trained = layer(torch.from_numpy(codes).float()).detach().numpy().astype(np.float64)
    expected = np.clip(np.round(trained / 16), 0, 255)  # a sixteenth is exact, and NumPy rounds halves to even as well
    assert np.array_equal(np.stack(rendered, axis=1), expected)


def test_every_activation_names_what_the_next_layer_reads() -> None:
    unit = 2.0**-9
    assert layers.ACTIVATIONS["relu"].range == layers.Range(0, 2047, unit)
    assert layers.ACTIVATIONS["hswish"].range == layers.Range(-64, 2047, unit)  # x (x + c) / 2c is least at -c / 2: -c / 8
    assert layers.ACTIVATIONS["sine"].range == layers.Range(-2047, 2047, 1 / 2047)
    assert layers.LINEAR.range == layers.Range(-2048, 2047, unit)
    assert (layers.pixels(8).range, layers.pixels(10).range.high) == (layers.Range(0, 255, 1 / 255), 1023)


def test_a_sine_layer_is_the_sine_of_its_real_sums() -> None:
    layer, x, _ = without_rounding("sine")
    x = 12 * x
    y = layer(torch.from_numpy(x).float()).detach().double().numpy() * layer.activation.out_step
    sums = convolve(x * layer.source.step, layer.weight.detach().double().numpy())
    sums += layer.bias.detach().double().numpy().reshape(2, 1, 1)
    assert np.abs(sums).max() > np.pi  # past the first turn
    assert np.abs(y - np.sin(sums)).max() < 2.0**-8  # half a phase, half a unit, and 11 bits of multiplier


def test_a_layer_that_is_not_quantised_cannot_be_emitted() -> None:
    layer = layers.QuantConv((2, 2), 1, layers.ACTIVATIONS["relu"])
    with pytest.raises(ValueError, match="quantisation"):
        layer.emit(Builder("b"), 0)


@pytest.mark.parametrize("channel_steps", [False, True])
def test_bias_codes_are_multiples_of_a_power_of_two_and_never_reach_a_quarter_of_the_bound(channel_steps: bool) -> None:
    layer = layer_of("hswish", (4, 16), 3, 3, channel_steps=channel_steps)
    with torch.no_grad():
        layer.bias[0], layer.bias[1] = 1e9, -1e9
    _, codes, _ = layer.quantised()
    codes = codes.detach().double()
    _, grid = steps.bias_grid(layer.log_step.detach().exp(), layer.units)
    assert np.log2(float(grid)).is_integer() and float(grid) >= 1
    assert (codes % float(grid) == 0).all()
    assert codes.abs().max() == 1 << 22
    inner = (codes * layer.step().detach().flatten() * layer.source.step)[2:]
    assert (inner - layer.bias[2:].detach()).abs().max() <= layer.activation.bias_step / 2 * 1.001


@pytest.mark.parametrize("channel_steps", [False, True])
def test_numbers_are_the_codes_before_rounding(channel_steps: bool) -> None:
    layer = layer_of("hswish", (4, 6), 3, 3, channel_steps=channel_steps)
    layer.prune(torch.rand_like(layer.weight) < 0.5)
    weight, bias = layer.numbers()
    codes, bias_codes, _ = layer.quantised()
    assert torch.equal(weight.round(), codes) and (codes == 0).float().mean() > 0.3
    _, grid = steps.bias_grid(layer.log_step.detach().exp(), layer.units)
    assert torch.equal(bias.round() * grid, bias_codes)
    (weight.sum() + bias.sum()).backward()
    assert layer.weight.grad is not None and layer.bias.grad is not None and layer.log_step.grad is not None
    assert (layer.weight.grad[layer.keep == 0] == 0).all() and (layer.weight.grad[layer.keep == 1] > 0).all()


def test_a_masked_weight_is_zero_and_has_no_gradient() -> None:
    layer, x, out = without_rounding("hswish")
    keep = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    bare = without_rounding("hswish")[0]
    with torch.no_grad():
        bare.weight.mul_(keep)
    layer.prune(keep)
    made, expected = (each(torch.from_numpy(x).float()) for each in (layer, bare))
    assert torch.equal(made, expected)
    for result in (made, expected):
        result.backward(torch.from_numpy(out).float())
    assert layer.weight.grad is not None and bare.weight.grad is not None
    assert (layer.weight.grad[~keep] == 0).all() and torch.equal(layer.weight.grad[keep], bare.weight.grad[keep])
    with torch.no_grad():
        layer.weight[~keep] = 1e6  # as an optimiser with a memory might
    layer.project()
    assert (layer.weight.detach()[~keep] == 0).all()
    assert torch.equal(layer.log_step, bare.log_step), "masked weights bound the step"
    assert (layer.state_dict()["keep"] == keep).all()


def test_half_is_close_and_its_gradients_point_the_same_way() -> None:
    exact, half = (layer_of("hswish", (32, 16), 3, 5) for _ in range(2))
    half.in_bfloat16 = True
    x = torch.from_numpy(activations(np.random.default_rng(0), 1, 32, 9, 8)).float() / 4
    results = [layer(x.clone()) for layer in (exact, half)]
    assert all(result.dtype == torch.float32 for result in results)
    assert not torch.equal(*results)
    assert (results[0] - results[1]).abs().mean() < 0.01 * results[0].abs().mean()
    for result in results:
        result.square().mean().backward()
    for name in ("weight", "bias"):
        one, other = (getattr(layer, name).grad.flatten() for layer in (exact, half))
        assert torch.cosine_similarity(one, other, dim=0) > 0.999


# ---- project


def hostile(name: str, weight: Tensor) -> Tensor:
    """Weights that a bound finds hard: one sign, huge, one spike, or such that most round up by nearly half a code."""
    generator = torch.Generator().manual_seed(0)
    outputs, inputs, kernel, _ = weight.shape
    if name == "one sign":
        return torch.full_like(weight, 0.3)
    if name == "huge":
        return torch.randn(weight.shape, generator=generator) * 1e6
    if name == "one spike":
        spiked = torch.full_like(weight, 0.01)
        spiked[0, 0, 0, 0] = 1000.0
        return spiked
    allowed = layers.BOUND_MARGIN * arithmetic.EXACT / 2048  # sum of codes that a projection by real numbers permits
    code = {"round up to 1": 0.51, "round up to 2": 1.51, "round up to 6": 5.51}[name]
    flat = torch.zeros(outputs, inputs * kernel * kernel)
    flat[:, : int(allowed / code)] = code
    return flat.reshape(weight.shape)


@pytest.mark.parametrize("name", ["one sign", "huge", "one spike", "round up to 1", "round up to 2", "round up to 6"])
@pytest.mark.parametrize("bias", [0.0, 3.0, -1e6])
@pytest.mark.parametrize(("kind", "channel_steps"), [("hswish", False), ("hswish", True), ("sine", False), ("sine", True)])
def test_a_settled_layer_is_proven_whatever_its_weights(name: str, bias: float, kind: str, channel_steps: bool) -> None:
    layer = layers.QuantConv((700, 2), 5, layers.ACTIVATIONS[kind], channel_steps=channel_steps)
    with torch.no_grad():
        layer.weight.copy_(hostile(name, layer.weight))
        layer.bias.fill_(bias)
        layer.log_step.fill_(-9.0)
    layer.quantise_weights = True
    layer.settle()
    builder = emitted(layer, np.zeros((1, 700, 1, 1), dtype=np.int64))
    proof = prove(analyse(_ended(builder), Limits()), builder.tensors)
    if name in ("round up to 2", "round up to 6") and bias >= 0:
        assert proof.reach[1] > arithmetic.EXACT / 2, "far coarser than needed"
    assert np.abs(builder.tensors[1]).max() <= 127


def test_a_projection_raises_only_the_steps_of_channels_that_need_it() -> None:
    layer = layer_of("hswish", (4, 4), 3, 0, channel_steps=True)
    before = layer.log_step.detach().clone()
    with torch.no_grad():
        layer.weight[2].mul_(1000)
    layer.project()
    raised = layer.log_step.detach() > before
    assert raised.tolist() == [False, False, True, False]


@pytest.mark.parametrize("settle", [False, True])
def test_a_layer_within_the_bound_is_left_alone(settle: bool) -> None:
    layer = layer_of("relu", (4, 4), 3, 0)
    before = layer.log_step.detach().clone()
    if settle:
        layer.settle()
    else:
        layer.project()
    assert torch.equal(layer.log_step.detach(), before)


@pytest.mark.parametrize("channel_steps", [False, True])
def test_a_projection_raises_a_step_once_where_rounding_breaks_the_bound_and_settling_as_often_as_it_takes(
    channel_steps: bool,
) -> None:
    one, all_of_it = (layers.QuantConv((700, 2), 5, layers.LINEAR, channel_steps=channel_steps) for _ in range(2))
    for layer in (one, all_of_it):
        with torch.no_grad():
            layer.weight.copy_(hostile("round up to 1", layer.weight))
            layer.weight[1].mul_(0.01)  # its step of its own is fine
            layer.log_step.fill_(0.0)
        layer.quantise_weights = True
    found = [0.0]
    for _ in range(60):
        with no_host_reads():
            one.project()
        found.append(float(one.log_step.detach().flatten()[0]))
    all_of_it.settle()
    raised = [after - before for before, after in itertools.pairwise(found)]
    count = sum(step > 0 for step in raised)
    assert 1 < count < 60
    assert raised[:count] == pytest.approx([layers.LOG_STEP_RAISE] * count, abs=1e-6) and not any(raised[count:])
    assert torch.equal(one.log_step, all_of_it.log_step)
    assert not channel_steps or float(one.log_step.detach()[1]) == 0.0


# ---- gradients: against central differences of the same function without any rounding

Function = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def convolve(x: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel = w.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, w)


def unrounded(layer: layers.QuantConv, kind: str) -> Function:
    """The layer in real numbers: x in activation units, weights and biases as they are; an accumulator has no rounding."""

    def run(x: NDArray[np.float64], w: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        y = (convolve(x * layer.source.step, w) + b.reshape(1, -1, 1, 1)) / layer.activation.step
        if kind == "hswish":
            return y * np.clip(y + 512, 0, 1024) / 1024
        if kind == "gelu":
            table = ref_operations.function_table(0).astype(np.float64)
            return np.interp(np.clip(y, -2048, 2047), np.arange(-2048, 2048), table)
        if kind == "sine":
            return 2047 * np.sin(y * layer.activation.step)
        return np.clip(y, layer.activation.low, layer.activation.high)

    return run


def differences(run: Callable[[NDArray[np.float64]], float], at: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    found = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        moved = at.copy()
        moved[index] += step
        ahead = run(moved)
        moved[index] -= 2 * step
        found[index] = (ahead - run(moved)) / (2 * step)
    return found


def without_rounding(kind: str, channel_steps: bool = False) -> tuple[layers.QuantConv, NDArray[np.float64], NDArray[np.float64]]:
    """A layer, inputs and output gradients at which no rounding before the activation changes anything.

    Step, biases and inputs are powers of two or multiples of them. Values stay away from the ends and bends of activations.
    """
    generator = np.random.default_rng(5)
    head = kind == "pixels"
    activation = replace(layers.pixels(8), step=2.0**-8, bias_step=2.0**-10) if head else ACTIVATIONS[kind]
    layer = layers.QuantConv((3, 2), 3, activation, channel_steps=channel_steps)
    with torch.no_grad():
        layer.log_step.fill_(float(np.log(2.0**-4)))
        if channel_steps:
            layer.log_step[1] = float(np.log(2.0**-5))
        layer.weight.copy_(torch.from_numpy(generator.integers(-9, 10, (2, 3, 3, 3)) * 2.0**-4))
        layer.bias.copy_(torch.tensor([0.5, 0.25]))
    layer.quantise_weights = True
    x = 32.0 * generator.integers(-3, 4, (1, 3, 4, 4))
    return layer, x, generator.normal(0, 1, (1, 2, 4, 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channel_steps", [False, True])
def test_gradients_are_those_of_the_function_without_rounding(kind: str, channel_steps: bool) -> None:
    layer, x, out = without_rounding(kind, channel_steps)
    run = unrounded(layer, kind)
    w, b = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    if kind in (
        "relu",
        "linear",
        "pixels",
    ):  # the clamp of the layer stops only what moves outward; leave the ends out of the comparison
        y = run(x, w, b)
        out = np.where((y <= layer.activation.low) | (y >= layer.activation.high), 0.0, out)
    inputs = torch.from_numpy(x).float().requires_grad_()
    made = layer(inputs)
    # a phase is rounded before its sine, which moves it by up to half of 2047 * 2 pi / 4096, and is no power of two
    assert np.abs(made.detach().numpy() - run(x, w, b)).max() <= (4.0 if kind == "sine" else 0.5 + 1e-3)
    made.backward(torch.from_numpy(out).float())
    expected = {
        "weight": differences(lambda at: float((run(x, at, b) * out).sum()), w, 2.0**-10),
        "bias": differences(lambda at: float((run(x, w, at) * out).sum()), b, 2.0**-10),
        "input": differences(lambda at: float((run(at, w, b) * out).sum()), x, 0.5),
    }
    found = {"weight": layer.weight.grad, "bias": layer.bias.grad, "input": inputs.grad}
    slack = {"gelu": 0.08, "sine": 0.004}.get(kind, 0.002)  # the slope of a table is the difference of its rounded entries
    for name, gradient in expected.items():
        grad = found[name]
        assert grad is not None
        assert np.abs(grad.numpy() - gradient).max() <= slack * np.abs(gradient).max(), name


def test_the_slope_of_a_requantisation_by_its_multiplier_is_the_accumulator() -> None:
    acc = torch.tensor([[[[64.0, -32.0], [96.0, 8000.0]]]])
    m = torch.tensor(2.0**-5, requires_grad=True)
    weights = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    quant.requantise(acc, m, -100, 200).backward(weights)
    assert m.grad is not None
    assert float(m.grad) == 64 - 320 + 9600 + 1000 * 200 * 32  # saturated, but pulled inside: at the clamp acc counts as 200 / m


def test_a_clamp_stops_gradients_that_push_further_out_and_no_others() -> None:
    acc = torch.tensor([[[[300.0, 300.0, -300.0, -300.0, 5.0]]]], requires_grad=True)
    descent = torch.tensor([[[[1.0, -1.0, 1.0, -1.0, 1.0]]]])  # descent moves against the gradient
    quant.requantise(acc, torch.tensor(1.0), -100, 100).backward(descent)
    assert acc.grad is not None
    assert acc.grad.flatten().tolist() == [1.0, 0.0, 0.0, -1.0, 1.0]


@pytest.mark.parametrize("channel_steps", [False, True])
def test_the_step_has_no_gradient_where_only_its_rounding_could_matter(channel_steps: bool) -> None:
    """Without rounding a layer does not depend on its step: weight and bias codes grow as the multiplier shrinks."""
    layer, x, out = without_rounding("hswish", channel_steps)
    layer(torch.from_numpy(x).float()).backward(torch.from_numpy(out).float())
    assert layer.log_step.grad is not None and layer.weight.grad is not None and layer.bias.grad is not None
    moved = (layer.weight.grad * layer.weight.detach()).abs().sum() + (layer.bias.grad * layer.bias.detach()).abs().sum()
    assert layer.log_step.grad.abs().max() <= 2e-3 * float(moved)
    assert (layer.bias.grad * layer.bias.detach()).abs().sum() > 0.01 * moved  # or nothing would be seen of it


def test_the_slope_of_a_step_is_what_the_numbers_without_rounding_say() -> None:
    """Codes w / s, bias codes b / (s u) and the multiplier s u / v, each weighted apart, against differences in double."""
    generator = np.random.default_rng(3)
    units = steps.Units(2.0**-9, 2.0**-9, 2.0**-7)
    weight, bias = generator.normal(0, 1, (2, 3, 1, 1)), generator.normal(0, 1, 2)
    gains = [generator.normal(0, 1, shape) for shape in ((2, 3, 1, 1), (2,), (2, 1, 1))]
    at = np.log(np.array([0.1, 0.03]))

    def loss(log_step: NDArray[np.float64]) -> float:
        s = np.exp(log_step)
        parts = [weight / s.reshape(2, 1, 1, 1), bias / (s * units.source), (s * units.source / units.out).reshape(2, 1, 1)]
        return float(sum((gain * part).sum() for gain, part in zip(gains, parts, strict=True)))

    log_step = torch.tensor(at, dtype=torch.float32, requires_grad=True)
    real = [torch.from_numpy(each).float() for each in (weight, bias)]
    made = steps.quantise(real[0], real[1], log_step, None, units, True)
    sum((part * torch.from_numpy(gain).float()).sum() for part, gain in zip(made, gains, strict=True)).backward()  # type: ignore[union-attr]
    expected = differences(loss, at, 1e-5)
    assert log_step.grad is not None
    assert np.abs(log_step.grad.numpy() - expected).max() <= 1e-3 * np.abs(expected).max()


# ---- the way around a block


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (5, 3), (1, 4), (3, 2), (4, 5)])
@pytest.mark.parametrize("kind", layers.ACTIVATIONS)
def test_a_skip_is_its_emitted_program_run_by_the_reference(strides: tuple[int, int], kind: str) -> None:
    generator = np.random.default_rng(0)
    sh, sw = strides
    skip = layers.Skip((3, 2), strides, layers.ACTIVATIONS[kind], layers.Range(), False)
    skip.projection = layer_of("linear", (3, 2), 1, 2)
    codes, branch = activations(generator, 1, 3, 4, 5), activations(generator, 1, 2, 4 * sh, 5 * sw)
    builder = Builder("skip")
    x = builder.add(Op.EMBEDDING, builder.parameter(codes), 3, 4, 5, 0, 1)
    other = builder.add(Op.EMBEDDING, builder.parameter(branch), 2, 4 * sh, 5 * sw, 0, 1)
    skip.emit(builder, x, other)
    proof = prove(analyse(_ended(builder), Limits()), builder.tensors)
    assert proof.reach[-3] <= 2048 * 2 * resample.gain(strides) < arithmetic.EXACT
    trained = skip(torch.from_numpy(codes).float(), torch.from_numpy(branch).float()).detach().numpy()
    values = values_of(rows_of(builder.program()), builder.tensors, 0, 1)
    assert np.array_equal(trained[0], values[-1])


@pytest.mark.parametrize("strides", [(1, 1), (2, 3), (5, 5)])
@pytest.mark.parametrize(("kind", "expected"), [("linear", 400.0), ("sine", 2047 * np.sin(400 / 512))])
def test_a_skip_adds_its_two_inputs_in_the_same_unit(strides: tuple[int, int], kind: str, expected: float) -> None:
    """A flat projection of value p beside a flat branch of value b: the block's sum is p + b, whatever the stride."""
    skip = layers.Skip((1, 1), strides, ACTIVATIONS[kind], layers.Range(), False)
    with torch.no_grad():
        skip.projection.weight.fill_(1.0)
        skip.projection.log_step.fill_(0.0)
    skip.projection.quantise_weights = True
    branch = torch.full((1, 1, 2 * strides[0], 2 * strides[1]), 300.0)
    made = skip(torch.full((1, 1, 2, 2), 100.0), branch)
    assert (made - expected).abs().max() <= 2  # 1 / 36 and 1 / 100 have 11 bits, and half a phase


@pytest.mark.parametrize("strides", [(2, 3), (4, 1)])
def test_gradients_of_an_enlargement_are_its_weights(strides: tuple[int, int]) -> None:
    x = torch.randn(1, 2, 3, 4, requires_grad=True)
    out = torch.randn(1, 2, 3 * strides[0], 4 * strides[1])
    resample.enlarge(x, strides).backward(out)

    def run(at: NDArray[np.float64]) -> float:
        s = max(strides)
        wide = ref_operations.nearest(None, [ref_operations.bilinear(None, [at[0]], 0, s)], 0, strides[0], s, strides[1], s)  # type: ignore[arg-type, list-item]
        return float((wide * out.numpy()[0]).sum())

    expected = differences(run, x.detach().double().numpy(), 1.0)
    assert x.grad is not None and np.abs(x.grad.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()


# ---- pieces


def test_multipliers_are_those_of_the_codes() -> None:
    generator = np.random.default_rng(2)
    values = np.exp2(generator.uniform(-29.9, 30, 10_000)).astype(np.float32)
    ties = np.ldexp(np.float32(2049) + 2 * np.arange(500, dtype=np.float32), -11)  # halfway between two codes
    values = np.concatenate([values, ties, np.exp2(np.arange(-29, 30, dtype=np.float32)), np.nextafter(ties, np.float32(0))])
    codes = np.array([arithmetic.multiplier_code(float(value)) for value in values])
    assert np.array_equal(quant.multiplier(torch.from_numpy(values)).numpy(), arithmetic.multiplier_value(codes))


@given(st.floats(0.0, 2.0**40, width=32))
@settings(deadline=None)
def test_the_power_below_is_the_largest_that_is_not_above_and_at_least_one(value: float) -> None:
    found = float(quant.power_below(torch.tensor(value)))
    assert np.log2(found).is_integer() and found >= 1
    assert found <= value < 2 * found or (found == 1 and value < 1)


def test_rounding_goes_to_even_and_passes_gradients() -> None:
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5, 2.6], requires_grad=True)
    rounded = quant.round_through(x)
    assert rounded.tolist() == [-2.0, 0.0, 0.0, 2.0, 2.0, 3.0]
    rounded.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0] * 6


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_shuffle_is_that_of_the_reference(sh: int, sw: int, channels: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-2048, 2048, (2, sh * sw * channels, 3, 4))
    found = layers.shuffle(torch.from_numpy(x), (sh, sw)).numpy()
    frame = ref_operations.Frame([], 0, 1)
    assert np.array_equal(found, np.stack([ref_operations.shuffle(frame, [picture], 0, sh, sw) for picture in x]))


def test_embeddings_are_scaled_per_channel_then_clamped_then_rounded() -> None:
    embedding = Embedding((2, 1, 3))
    with torch.no_grad():
        embedding.log_gain.copy_(torch.tensor([1.0, 16.0]).log().reshape(2, 1, 1))
    real = torch.tensor([[[[0.5, 1.5, -9999.0]], [[0.2, 9999.0, -0.2]]]])
    assert torch.allclose(embedding(real)[0, 1, 0], torch.tensor([3.2, 2047.0, -3.2]))
    embedding.quantise = True
    assert embedding(real).flatten().tolist() == [0.0, 2.0, -2048.0, 3.0, 2047.0, -3.0]


@pytest.mark.parametrize("size", [(6, 4), (7, 5), (1, 1), (2, 3), (33, 17)])
@pytest.mark.parametrize("pixel_format", [0, 1])
def test_the_emitted_picture_is_the_canvas_unfolded_and_cropped(size: tuple[int, int], pixel_format: int) -> None:
    header = Header(*size, pixel_format)
    picture = Picture.of(header)
    height, width = (side + 1 for side in picture.canvas)  # one row and column of padding
    canvas = np.random.default_rng(1).integers(0, 256, (picture.channels, height, width))
    builder = Builder("picture")
    constant = builder.add(Op.CONSTANT, builder.parameter(canvas), *canvas.shape)
    one = builder.parameter(np.array([arithmetic.multiplier_code(1.0)]))
    samples = builder.add(Op.REQUANTISE, constant, one, 1, 0, 255, 0, 0)
    layers.emit_picture(builder, samples, picture)
    check_picture(analyse(builder.program(), Limits()), header, Limits())
    rows: list[Row] = rows_of(builder.program())
    planes = ref_operations.render(rows, builder.tensors, 0, 1)
    shapes = header.plane_shapes()
    if pixel_format == 1:
        expected = [canvas[i, : shapes[i][0], : shapes[i][1]] for i in range(3)]
    else:
        luma = np.array([[canvas[2 * (y % 2) + x % 2, y // 2, x // 2] for x in range(size[0])] for y in range(size[1])])
        expected = [luma, *(canvas[3 + i, : shapes[i][0], : shapes[i][1]] for i in (1, 2))]
    assert all(np.array_equal(a, b) for a, b in zip(planes, expected, strict=True))
