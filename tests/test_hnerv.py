"""HNeRV: the plan keeps to its parameters, the shape is that of the paper, and the whole network is its program to the bit."""

from __future__ import annotations

from math import log, prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_programs import rows_of

from nvc.bitstream.analysis import analyse, check_picture
from nvc.bitstream.bounds import prove
from nvc.bitstream.constants import Limits
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op
from nvc.bitstream.tensors import Kind
from nvc.codec import layers
from nvc.codec.config import Design
from nvc.codec.geometry import Picture
from nvc.codec.models import FAMILIES, hnerv
from nvc.conformance import ref_operations

YUV = Picture.of(Header(176, 144, 0))


def network(header: Header, parameters: int, design: Design = hnerv.DEFAULT, seed: int = 0) -> hnerv.Network:
    """A network with random weights, lively biases and steps, quantised."""
    torch.manual_seed(seed)
    made = hnerv.Network(hnerv.plan(Picture.of(header), parameters, design))
    with torch.no_grad():
        for layer in made.convolutions():
            layer.bias.add_(torch.randn_like(layer.bias) * 0.3)
            layer.weight.mul_(1.4 / layers.INITIAL_GAIN)  # as large as a fit makes them
            layer.log_step.add_(torch.randn_like(layer.log_step) * 0.5 + log(1.4 / layers.INITIAL_GAIN))
            layer.settle()
    made.quantise()
    for layer in made.convolutions():
        layer.settle()
    return made


def codes_of(made: hnerv.Network, frames: int) -> NDArray[np.int64]:
    shape = (frames, made.config.embedding_channels, *made.grid.embedding)
    return np.random.default_rng(1).integers(-60, 61, shape)


def emitted(made: hnerv.Network, codes: NDArray[np.int64] | None) -> Builder:
    builder = Builder("hnerv")
    made.emit(builder, None if codes is None else [[codes]])
    return builder


def test_the_family_is_registered() -> None:
    assert FAMILIES["hnerv"] is hnerv


# ---- plans


@given(st.integers(0, 3_000_000), st.sampled_from([YUV, Picture.of(Header(321, 17, 1)), Picture.of(Header(1920, 1080, 0))]))
@settings(deadline=None, max_examples=25)
def test_a_plan_never_has_more_parameters_than_asked_for_and_one_wider_would(asked: int, picture: Picture) -> None:
    config = hnerv.plan(picture, asked)
    smallest = hnerv.plan(picture, 0)
    assert smallest.widths[0] == hnerv.SMALLEST
    if hnerv.decoder_parameters(smallest) > asked:
        assert config == smallest
        return
    assert hnerv.decoder_parameters(config) <= asked
    wider = hnerv.configure(picture, config.widths[0] + 1, config.design)
    assert config.widths[0] == hnerv.LARGEST or hnerv.decoder_parameters(wider) > asked


@pytest.mark.parametrize("header", [Header(176, 144, 0), Header(37, 23, 0), Header(64, 40, 1), Header(1, 1, 0), Header(2, 3, 1)])
@pytest.mark.parametrize("asked", [0, 9_000, 60_000])
@pytest.mark.parametrize("skip", [False, True])
def test_decoder_parameters_are_the_weights_and_biases_that_are_emitted(header: Header, asked: int, skip: bool) -> None:
    made = network(header, asked, Design(skip=skip))
    builder = emitted(made, codes_of(made, 2))
    specs = analyse(builder.program(), Limits()).specs(2)
    numbers = [
        tensor.size
        for spec, tensor in zip(specs, builder.tensors, strict=True)
        if spec.kind in (Kind.WEIGHT, Kind.BIAS) and tensor.shape == spec.shape
    ]
    assert sum(numbers) == hnerv.decoder_parameters(made.config)
    assert [spec.shape for spec in specs] == [tensor.shape for tensor in builder.tensors]


def test_blocks_and_widths_are_those_of_the_paper() -> None:
    """HNeRV at 640 x 1280 and 1.5 M: 2 x 4 x 16 embeddings, five blocks up to 320-fold, kernels 1 3 5 5 5, reduction 1.2.

    The paper's strides are 5, 4, 4, 2, 2; of several with the same product plan_grid may take others.
    """
    config = hnerv.plan(Picture(((640, 1280),) * 3, 1), 1_500_000)
    assert (config.grid.embedding, config.embedding_channels, config.grid.size) == ((2, 4), 16, (640, 1280))
    assert len(config.grid.strides) == 5
    assert prod(h for h, _ in config.grid.strides) == prod(w for _, w in config.grid.strides) == 320
    assert [hnerv.kernel(block) for block in range(5)] == [1, 3, 5, 5, 5]
    for before, after in zip(config.widths, config.widths[1:], strict=False):
        assert after == round(before / 1.2)
    assert 0.95 * 1_500_000 < hnerv.decoder_parameters(config) <= 1_500_000


def test_no_block_is_narrower_than_the_floor_unless_the_first_is() -> None:
    for width in (4, 8, 20, 24, 200):
        config = hnerv.configure(YUV, width)
        assert min(config.widths[1:]) >= min(hnerv.FLOOR, max(hnerv.SMALLEST, width // 2))
        assert list(config.widths[1:]) == sorted(config.widths[1:], reverse=True)


# ---- the whole network


DESIGNS = [
    *(Design(activation) for activation in layers.ACTIVATIONS),
    *(Design(activation, skip=True) for activation in layers.ACTIVATIONS),
    Design(channel_steps=True),
    Design("sine", skip=True, channel_steps=True),
]


@pytest.mark.parametrize("header", [Header(37, 23, 0), Header(38, 22, 1), Header(2, 2, 0), Header(40, 23, 1)])
@pytest.mark.parametrize("design", DESIGNS)
def test_the_training_forward_is_the_emitted_program_run_by_the_reference(header: Header, design: Design) -> None:
    made = network(header, 12_000, design, seed=3)
    codes = codes_of(made, 2)
    builder = emitted(made, codes)
    analysis = analyse(builder.program(), Limits())
    check_picture(analysis, header, Limits())
    prove(analysis, builder.tensors)
    trained = made([torch.from_numpy(codes).float()]).detach().numpy()
    assert len(np.unique(trained)) > 5  # not all clamped
    for t in range(2):
        planes = ref_operations.render(rows_of(builder.program()), builder.tensors, t, 2)
        for number, plane in enumerate(planes):
            height, width = plane.shape
            if header.pixel_format == 0 and number == 0:
                y, x = np.indices((height, width))
                expected = trained[t][2 * (y % 2) + x % 2, y // 2, x // 2]
            else:
                channel = number + 3 if header.pixel_format == 0 else number
                expected = trained[t][channel, :height, :width]
            assert np.array_equal(plane, expected)


@pytest.mark.parametrize("header", [Header(40, 90, 1), Header(37, 23, 0), Header(38, 22, 1), Header(2, 3, 1)])
@pytest.mark.parametrize("skip", [False, True])
def test_a_band_of_rows_is_that_of_the_whole_canvas_and_so_is_its_gradient(header: Header, skip: bool) -> None:
    made = network(header, 12_000, Design(skip=skip), seed=4)
    codes = [torch.from_numpy(codes_of(made, 2)).float()]
    whole, height = made(codes), made.grid.size[0]
    for first in range(0, height, made.band):
        for last in range(first + made.band, height + 1, made.band):
            assert torch.equal(made(codes, rows=(first, last)), whole[:, :, first:last]), (first, last)
    weights = [layer.weight for layer in made.convolutions()]
    rows = (made.band, 2 * made.band)
    pull = torch.randn(whole[:, :, rows[0] : rows[1]].shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(made(codes, rows=rows), weights, pull)
    expected = torch.autograd.grad(whole[:, :, rows[0] : rows[1]], weights, pull)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def test_a_band_computes_little_more_than_itself() -> None:
    """The last block's convolution makes the cells of the band and one on each side for the head, no halo."""
    made = network(Header(320, 180, 1), 30_000)
    seen: list[int] = []
    last = made.blocks[-1]
    assert isinstance(last, layers.QuantConv)
    last.requantiser.register_forward_hook(lambda _, __, out: seen.append(out.shape[2]))
    made([torch.from_numpy(codes_of(made, 1)).float()], rows=(4 * made.band, 8 * made.band))
    assert seen == [6]


def test_the_encoder_makes_embeddings_of_the_grid_and_is_not_transmitted() -> None:
    made = network(Header(37, 23, 0), 12_000)
    frames = torch.rand(2, 6, *made.grid.size)
    assert made.encode(frames).shape == (2, 16, *made.grid.embedding)
    transmitted = {id(parameter) for layer in made.convolutions() for parameter in (layer.weight, layer.bias)}
    assert not transmitted & {id(parameter) for parameter in made.encoder.parameters()}
    count = sum(layer.weight.numel() + layer.bias.numel() for layer in made.convolutions())
    assert count == hnerv.decoder_parameters(made.config)


def test_the_program_depends_on_the_shape_of_the_network_alone() -> None:
    first, second = (network(Header(37, 23, 0), 12_000, seed=seed) for seed in (1, 2))
    assert emitted(first, None).program() == emitted(second, None).program()
    assert next(op.code for op in emitted(first, None).program().operations) is Op.EMBEDDING
