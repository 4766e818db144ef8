"""The baseline of bench/published.py is what it says: the published network, quantiser and coder, counted in full."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from nvc.bitstream.header import Header
from nvc.codec.canvas import to_canvas
from nvc.codec.geometry import Picture
from nvc.codec.models import hnerv
from nvc.codec.video import Clip

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))  # scripts, not a package
clips = importlib.import_module("clips")
plain = importlib.import_module("plain")
published = importlib.import_module("published")

SMALL = (48, 32)  # of the clips here


def picture(width: int, height: int, pixel_format: int = 0) -> Picture:
    return Picture.of(Header(width, height, pixel_format))


def clip(frames: int = 6) -> Clip:
    made: Clip = clips.open_clip("synthetic:pan", SMALL, (0, frames))
    return made


def entropy(codes: NDArray[np.int64]) -> float:
    """Bits of all symbols by their own frequencies."""
    counts = Counter(codes.tolist()).values()
    return sum(count * math.log2(len(codes) / count) for count in counts)


# ---- the network


@pytest.mark.parametrize("shape", [(160, 90, 0), (176, 144, 0), (61, 47, 0), (64, 48, 1)])
@pytest.mark.parametrize("parameters", [5_000, 60_000])
def test_the_decoder_has_the_parameters_of_nvcs_own(shape: tuple[int, int, int], parameters: int) -> None:
    config = hnerv.plan(picture(*shape), parameters)
    network = plain.PlainHNeRV(config)
    own = {name: p for name, p in network.named_parameters() if not name.startswith("encoder.")}
    assert sum(p.numel() for p in own.values()) == hnerv.decoder_parameters(config)
    assert {id(p) for p in own.values()} == {id(p) for p in network.transmitted()}
    nvcs = [layer.weight.shape for layer in hnerv.Network(config).convolutions()]
    assert [layer.weight.shape for layer in network.convolutions()] == nvcs


def test_it_maps_canvases_to_canvases_in_0_to_1() -> None:
    config = hnerv.plan(picture(61, 47), 5_000)
    with torch.no_grad():
        out = plain.PlainHNeRV(config)(torch.rand(2, 6, *config.grid.size) * 100)
    assert out.shape == (2, 6, *config.grid.size) and 0 <= float(out.min()) < float(out.max()) <= 1


def test_depth_to_space_is_that_of_pytorch_but_for_the_order_of_channels() -> None:
    """The decoder of one square stride, beside nn.PixelShuffle with its weights in that layer's order."""
    config = hnerv.Config(picture(8, 8), hnerv.Grid((2, 2), ((2, 2),), (4, 4)), (8, 5))
    network = plain.PlainHNeRV(config)
    block = network.blocks[0]
    reordered = nn.Conv2d(8, 20, 1)
    with torch.no_grad():
        order = torch.arange(20).reshape(4, 5).T.reshape(-1)
        reordered.weight.copy_(block.weight[order])
        reordered.bias.copy_(block.bias[order])
        layers = (network.stem, nn.GELU(), reordered, nn.PixelShuffle(2), nn.GELU(), network.head)
        embeddings = torch.randn(3, 16, 2, 2)
        assert torch.allclose(network.decode(embeddings), 0.5 * nn.Sequential(*layers)(embeddings).tanh() + 0.5, atol=1e-6)


# ---- training


def test_the_learning_rate_is_the_published_schedule() -> None:
    assert plain.factor(0.0, 0.1) == 0.1 and plain.factor(0.1, 0.1) == 1.0 and plain.factor(0.0, 0.0) == 1.0
    assert plain.factor(0.05, 0.1) == pytest.approx(0.55)
    assert plain.factor(0.55, 0.1) == pytest.approx(0.5) and plain.factor(1.0, 0.1) == pytest.approx(0.0)


def trained(prune: float, steps: int = 40) -> tuple[object, list[float]]:
    small = clip()
    config = hnerv.plan(picture(*SMALL), 4_000)
    torch.manual_seed(0)
    network = plain.PlainHNeRV(config)
    told: list[tuple[int, int, float]] = []
    canvas = to_canvas(small.planes, 2, config.grid.size)
    plain.train(network, canvas, steps, 1, 5e-3, 0, lambda *progress: told.append(progress), prune)
    assert told[-1][:2] == (steps, steps)
    return network, [psnr for _, _, psnr in told]


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_the_share_of_the_weights_that_was_asked_for_is_zero_after_the_fine_tune(share: float) -> None:
    network, _ = trained(share)
    weights = torch.cat([layer.weight.detach().flatten() for layer in network.convolutions()])  # type: ignore[attr-defined]
    assert int((weights == 0).sum()) == round(share * len(weights))
    assert not any((layer.bias == 0).any() for layer in network.convolutions())  # type: ignore[attr-defined]
    assert all(isinstance(layer.weight, nn.Parameter) for layer in network.convolutions())  # type: ignore[attr-defined]


def test_training_fits_and_repeats() -> None:
    (first, told), (second, _) = trained(0.1), trained(0.1)
    assert told[-1] > 8 and told[-1] == max(told)
    pairs = zip(first.parameters(), second.parameters(), strict=True)  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in pairs)


def test_every_frame_is_seen_equally_often() -> None:
    for frames, batch in ((6, 1), (6, 4), (5, 2), (3, 8)):
        batches = plain._batches(frames, batch, 0)
        size = min(batch, frames)
        seen = torch.cat([next(batches) for _ in range(10 * frames // math.gcd(size, frames))])
        counts = torch.bincount(seen, minlength=frames)
        assert int(counts.min()) == int(counts.max())


# ---- quantisation


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    bits=st.integers(4, 8),
    axes=st.booleans(),
    zero=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_no_value_is_off_by_more_than_half_a_step(seed: int, bits: int, axes: bool, zero: bool, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(60, 3, 3, 3, generator=generator) * scale * torch.rand(1, 3, 3, 3, generator=generator)
    sent = published.quantise(values, bits, axes=axes, zero=zero)
    # float32 spends some of the half where values are large beside the step
    assert bool(((sent.values - values).abs() <= sent.step * 0.5 + values.abs().max() * 2**-22).all())
    assert sent.side_bits == 16 * sent.step.numel() * (1 if zero else 2)
    assert torch.equal(sent.step, sent.step.half().float())
    # one slice takes 2^b codes and no more, but for the rounding of its ends to fp16
    assert int((sent.codes.amax(0) - sent.codes.amin(0)).max()) <= 2**bits


def test_an_axis_is_taken_where_it_is_better_and_its_slices_are_few() -> None:
    values = torch.randn(64, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 0, 36).reshape(1, 4, 3, 3)
    along, whole = (published.quantise(values, 6, axes=axes, zero=True) for axes in (True, False))
    assert along.step.shape == (1, 4, 3, 3) and whole.step.shape == (1, 1, 1, 1)
    assert (along.values - values).abs().mean() < (whole.values - values).abs().mean()
    assert published.quantise(values[:40], 6, axes=True, zero=True).step.numel() == 1  # 1/40 is over 2 %


def test_a_pruned_weight_stays_zero() -> None:
    values = torch.randn(60, 3, 3, 3, generator=torch.Generator().manual_seed(0)) + 0.4
    values[torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) < 0.1] = 0
    values[:, 0, 0, 0] = 0  # a slice of zeros alone
    for bits in (4, 8):
        sent = published.quantise(values, bits, axes=True, zero=True)
        assert bool((sent.values[values == 0] == 0).all())


def test_codes_around_zero_stay_within_what_the_coder_takes() -> None:
    for values in (torch.tensor([0.5, 0.5003]), torch.tensor([-7.0, -7.0]), torch.tensor([-1.0, 1.0]), torch.zeros(4)):
        sent = published.quantise(values, 8, axes=False, zero=True)
        assert int(sent.codes.abs().max()) <= published.BOUND
        assert bool(((sent.values - values).abs() <= sent.step * 0.5001).all())


# ---- coding


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(0, 3000), min_size=2, max_size=80).filter(lambda c: sum(n > 0 for n in c) > 1))
def test_huffman_lengths_are_complete_and_near_the_entropy(counts: list[int]) -> None:
    lengths = published.huffman_lengths(counts)
    used = [(count, length) for count, length in zip(counts, lengths, strict=True) if count]
    assert sum(2.0**-length for _, length in used) == 1  # Kraft
    assert all(length == 0 for count, length in zip(counts, lengths, strict=True) if not count)
    total = sum(counts)
    bits = sum(count * length for count, length in used)
    least = entropy(np.repeat(np.arange(len(counts)), counts))
    assert least - 1e-6 * total <= bits < least + total


def test_the_huffman_table_is_counted() -> None:
    codes = np.random.default_rng(0).integers(-3, 5, 4096)
    codes[:8] = range(-3, 5)
    assert published.huffman_bits(codes) - 3 * 4096 >= 8 * 3  # eight symbols, each needs its length


# ---- planes and files


@pytest.mark.parametrize("shape", [(48, 32, 0), (61, 47, 0), (31, 50, 1)])
def test_unfolding_inverts_the_canvas(shape: tuple[int, int, int]) -> None:
    shown = picture(*shape)
    random = np.random.default_rng(0)
    planes = tuple(random.integers(0, 256, (3, *plane), dtype=np.uint8) for plane in shown.shapes)
    canvas = to_canvas(planes, shown.side, hnerv.plan(shown, 0).grid.size)  # type: ignore[arg-type]
    for plane, back in zip(planes, plain.unfold(canvas.frames, shown), strict=True):
        assert np.array_equal(plane, back)


def test_a_file_pays_for_its_bits_and_gains_by_them() -> None:
    small = clip()
    fitted = published.fit(small, 4_000, published.Settings(passes=10), torch.device("cpu"))
    before = [p.detach().clone() for p in fitted.network.transmitted()]
    coarse, fine = (published.best(published.compress(fitted, small, bits)) for bits in (2, 8))
    assert coarse.bytes < fine.bytes and coarse.psnr_611 < fine.psnr_611
    assert all(torch.equal(a, b) for a, b in zip(before, fitted.network.transmitted(), strict=True))
    assert fine.parameters == hnerv.decoder_parameters(fitted.network.config)
    assert fine.bpp * 48 * 32 * 6 == pytest.approx(8 * fine.bytes)


def test_rendering_shows_what_the_network_makes_of_its_own_embeddings() -> None:
    small = clip(11)
    network = plain.PlainHNeRV(hnerv.plan(picture(*SMALL), 4_000))
    canvas = to_canvas(small.planes, 2, network.config.grid.size)
    with torch.no_grad():
        network.head.weight.mul_(30)
        whole = plain.unfold((network(canvas.frames / 255) * 255).round().to(torch.uint8), picture(*SMALL))
    shown = plain.render(network, plain.embed(network, canvas))
    assert int(shown[0].max()) > int(shown[0].min()) + 100
    # eight frames at a time or all at once: sums in another order may round another way, once in a while
    assert all(np.abs(a.astype(int) - b).max() <= 1 and np.mean(a != b) < 0.01 for a, b in zip(shown, whole, strict=True))


def test_the_front_leaves_out_what_another_row_beats() -> None:
    def row(size: int, psnr: float) -> object:
        return published.Row(0, 8, size, 0.0, 0.0, psnr, 0.0, 8, "", "huffman")

    rows = [row(10, 30.0), row(12, 30.5), row(9, 28.0), row(12, 31.0), row(10, 29.0)]
    assert published.front(rows) == [True, False, True, True, False]


# ---- clips


@pytest.mark.parametrize("name", ["synthetic:zoom", "synthetic:pan"])
def test_a_synthetic_clip_moves_and_is_the_same_again(name: str) -> None:
    whole, part = clips.open_clip(name, SMALL, (0, 6)), clips.open_clip(name, SMALL, (4, 6))
    assert [plane.shape[1:] for plane in whole.planes] == list(whole.header.plane_shapes())
    for plane, later in zip(whole.planes, part.planes, strict=True):
        assert plane.dtype == np.uint8 and np.array_equal(plane[4:], later)
        assert all((a != b).any() for a, b in itertools.pairwise(plane))


def test_a_synthetic_clip_needs_a_known_name_and_a_size() -> None:
    for name, scale in (("synthetic:zoom", None), ("synthetic:none", SMALL)):
        with pytest.raises(ValueError, match="synthetic:zoom, synthetic:pan"):
            clips.open_clip(name, scale)
