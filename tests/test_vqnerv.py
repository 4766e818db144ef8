"""VQ-NeRV: with each block the network is its program to the bit, counted in full, and every frame stands alone."""

from __future__ import annotations

import io
from dataclasses import replace
from math import log
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from nvc_files import STEPS, a_fit, clip, emitted, encode
from small_programs import rows_of

from nvc.bitstream import arithmetic
from nvc.bitstream.analysis import Analysis, analyse, check_picture
from nvc.bitstream.bounds import prove
from nvc.bitstream.coefficients import read_sections
from nvc.bitstream.constants import Limits
from nvc.bitstream.container import Reader
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op
from nvc.bitstream.tensors import Kind, coded_bits
from nvc.codec.activations import EXP, SIGMOID, TANH, Requantiser
from nvc.codec.codebook import Codebook
from nvc.codec.config import BLOCKS, MODELS, Design, FitConfig, Tokens
from nvc.codec.decode import Decoder
from nvc.codec.encode import EncodeOptions, plan_encode
from nvc.codec.fit import Fit
from nvc.codec.geometry import Picture
from nvc.codec.interpreter import Interpreter
from nvc.codec.latents import Latent, Numbers
from nvc.codec.metrics import Planes, Quality
from nvc.codec.models import FAMILIES, hnerv, vqnerv
from nvc.codec.models.vq_block import plan_map
from nvc.codec.plan import overhead_bytes
from nvc.codec.target import Target
from nvc.conformance import ref_operations

CPU = torch.device("cpu")
TOKENS = {
    "pooled": Tokens("pooled", 16, 4),
    "paper": Tokens("paper", 16, 4),
    "added": Tokens("added", 16, 4),
    "scalar": Tokens("added", dimension=4, scalar=True),
    "scalar paper": Tokens("paper", dimension=4, scalar=True),
    "two maps": Tokens("added", 16, 4, ((0, 8), (2, 40))),
    "two at one place": Tokens("added", 16, 4, ((1, 8), (1, 40))),
    "paper, then paper": Tokens("paper", 16, 4, ((0, 0), (1, 0))),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def design(name: str, **more: Any) -> Design:
    return Design(tokens=TOKENS[name], **more)


def network(header: Header, parameters: int, wanted: Design, seed: int = 0) -> vqnerv.Network:
    """A network with random weights, lively biases and steps, quantised."""
    torch.manual_seed(seed)
    made = vqnerv.Network(vqnerv.plan(Picture.of(header), parameters, wanted))
    with torch.no_grad():
        for layer in made.convolutions():
            inputs = layer.weight[0].numel()
            size = 1.4 if layer is not made.head else 0.14
            scale = size / inputs**0.5 / max(float(layer.weight.std()), 1e-3)
            layer.weight.mul_(scale)
            layer.bias.add_(torch.randn_like(layer.bias) * 0.3)
            layer.log_step.add_(torch.randn_like(layer.log_step) * 0.5 + log(scale))
            layer.settle()
    made.quantise()
    for layer in made.convolutions():
        layer.settle()
    return made


def numbers_of(made: hnerv.Network, frames: int, seed: int = 1) -> list[list[Numbers]]:
    """Random ones for each latent."""
    generator = np.random.default_rng(seed)
    numbers: list[list[Numbers]] = []
    for latent in made.latents:
        assert isinstance(latent, Latent)
        if isinstance(latent, Codebook):
            tokens = generator.integers(0, latent.levels, (frames, *latent.shape[1:]))
            numbers.append([tokens, generator.integers(-127, 128, (latent.levels, latent.shape[0]))])
        else:
            numbers.append([generator.integers(-60, 61, (frames, *latent.shape))])
    return numbers


def read(numbers: list[list[Numbers]]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What `forward` reads: latents as integers, and the embedding of the frames before."""
    codes = [item[0] if len(item) == 1 else item[1][item[0]].transpose(0, 3, 1, 2) for item in numbers]
    before = np.concatenate([codes[0][:1], codes[0][:-1]])
    return [torch.from_numpy(values).float() for values in codes], torch.from_numpy(before).float()


@torch.no_grad()
def canvas_of(made: hnerv.Network, numbers: list[list[Numbers]], rows: tuple[int, int] | None = None) -> torch.Tensor:
    codes, before = read(numbers)
    return made(codes, before if made.history else None, rows)


def program_of(made: hnerv.Network, numbers: list[list[Numbers]] | None) -> Builder:
    builder = Builder("vqnerv")
    made.emit(builder, numbers)
    return builder


def planes_of(canvas: torch.Tensor, header: Header) -> list[NDArray[np.float64]]:
    """The visible planes (T, H, W) of canvases."""
    shapes, luma = header.plane_shapes(), canvas[:, :-2]
    if header.pixel_format == 0:
        n, _, h, w = canvas.shape
        luma = luma.reshape(n, 2, 2, h, w).permute(0, 3, 1, 4, 2).reshape(n, 1, 2 * h, 2 * w)
    whole = (luma[:, 0], canvas[:, -2], canvas[:, -1])
    return [plane[:, :h, :w].double().numpy() for plane, (h, w) in zip(whole, shapes, strict=True)]


# ---- the whole network

HEADERS = [Header(37, 23, 0), Header(38, 22, 1), Header(2, 2, 0), Header(1, 1, 1), Header(3, 2, 0)]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: f"{header.width}x{header.height}")
@pytest.mark.parametrize("name", TOKENS)
def test_the_training_forward_is_the_emitted_program_run_by_reference_and_interpreter(header: Header, name: str) -> None:
    made = network(header, 7_000, design(name), seed=3)
    numbers = numbers_of(made, 3)
    builder = program_of(made, numbers)
    analysis = analyse(builder.program(), Limits())
    check_picture(analysis, header, Limits())
    prove(analysis, builder.tensors)
    trained = planes_of(canvas_of(made, numbers), header)
    assert header.width < 30 or len(np.unique(trained[0])) > 5  # not all clamped
    whole = Interpreter(analysis, builder.tensors, 3, 3, CPU).render(0, 3)
    alone = Interpreter(analysis, builder.tensors, 3, 1, CPU)
    rows = rows_of(builder.program())
    for number in range(3):
        assert np.array_equal(whole[number], trained[number])
    for t in (2, 0, 1):  # in any order
        slow = ref_operations.render(rows, builder.tensors, t, 3)
        for number, plane in enumerate(alone.render(t, 1)):
            assert np.array_equal(plane[0], trained[number][t])
            assert np.array_equal(slow[number], trained[number][t])


@pytest.mark.parametrize("activation", ["relu", "gelu", "sine"])
@pytest.mark.parametrize("name", ["pooled", "paper", "added"])
def test_so_it_is_with_other_activations_skips_and_steps(activation: str, name: str) -> None:
    header = Header(37, 23, 0)
    made = network(header, 7_000, design(name, activation=activation, skip=True, channel_steps=True), seed=5)
    numbers = numbers_of(made, 2)
    builder = program_of(made, numbers)
    analysis = analyse(builder.program(), Limits())
    prove(analysis, builder.tensors)
    trained = planes_of(canvas_of(made, numbers), header)
    decoded = Interpreter(analysis, builder.tensors, 2, 2, CPU).render(0, 2)
    assert all(np.array_equal(a, b) for a, b in zip(decoded, trained, strict=True))


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_are_heard(name: str) -> None:
    made = network(Header(38, 22, 1), 7_000, design(name), seed=4)
    numbers = numbers_of(made, 2)
    plain = canvas_of(made, numbers)
    for number in range(1, len(numbers)):
        changed = [[part.copy() for part in item] for item in numbers]
        changed[number][0][1] = (changed[number][0][1] + 5) % 16  # of scalars, too
        moved = canvas_of(made, changed)
        assert torch.equal(moved[0], plain[0]) and not torch.equal(moved[1], plain[1])


@pytest.mark.parametrize("name", TOKENS)
def test_a_frame_reads_no_embedding_but_its_own_and_the_one_before_and_no_tokens_but_its_own(name: str) -> None:
    made = network(Header(37, 23, 0), 7_000, design(name))
    operations = program_of(made, None).program().operations
    embeddings = [op.arguments for op in operations if op.code is Op.EMBEDDING]
    main = [arguments for arguments in embeddings if arguments[0] == embeddings[0][0]]
    assert [arguments[4] for arguments in main] == ([0, -1] if name.startswith(("paper", "scalar paper")) else [0])
    assert all(arguments[4] == 0 for arguments in embeddings if arguments not in main)
    tokens = [op.arguments for op in operations if op.code is Op.TOKENS]
    assert len(tokens) == (0 if "scalar" in name else len(made.config.maps))
    assert all(arguments[-1] == 0 for arguments in tokens)


@pytest.mark.parametrize("header", [Header(37, 23, 0), Header(40, 90, 1), Header(2, 3, 1)])
@pytest.mark.parametrize("name", ["pooled", "paper", "two maps"])
def test_a_band_of_rows_is_that_of_the_whole_canvas(header: Header, name: str) -> None:
    made = network(header, 7_000, design(name), seed=4)
    numbers = numbers_of(made, 2)
    whole, height = canvas_of(made, numbers), made.grid.size[0]
    for first in range(0, height, made.band):
        for last in (first + made.band, height):
            assert torch.equal(canvas_of(made, numbers, (first, last)), whole[:, :, first:last]), (first, last)


@pytest.mark.parametrize("name", ["paper", "added", "paper, then paper"])
def test_a_layer_after_a_block_is_proven_whatever_its_weights(name: str) -> None:
    """A block may make negative features; a projection that only knows the activation's range lets sums pass 2^24."""
    made = network(Header(176, 144, 0), 60_000, design(name))
    with torch.no_grad():
        for layer in made.convolutions():
            layer.weight.copy_(layer.weight.sign())
            layer.log_step.fill_(-12.0)
            layer.settle()
    builder = program_of(made, numbers_of(made, 1))
    proof = prove(analyse(builder.program(), Limits()), builder.tensors)
    assert max(proof.reach) < arithmetic.EXACT


# ---- plans


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("asked", [0, 9_000, 60_000])
def test_a_plan_counts_what_is_transmitted_once_and_keeps_to_the_budget(name: str, asked: int) -> None:
    picture = Picture.of(Header(61, 44, 0))
    config = vqnerv.plan(picture, asked, design(name))
    made = network(Header(61, 44, 0), asked, design(name))
    assert made.config == config
    builder = program_of(made, numbers_of(made, 2))
    specs = analyse(builder.program(), Limits()).specs(2)
    assert [spec.shape for spec in specs] == [tensor.shape for tensor in builder.tensors]
    kinds = [spec.kind for spec in specs]
    count = sum(t.size for t, kind in zip(builder.tensors, kinds, strict=True) if kind in (Kind.WEIGHT, Kind.BIAS))
    assert count == vqnerv.decoder_parameters(config)
    assert kinds.count(Kind.WEIGHT) == len(list(made.convolutions()))  # those of t - 1 are those of t
    smallest = vqnerv.plan(picture, 0, design(name))
    assert smallest.widths[0] == hnerv.SMALLEST
    assert count <= asked or config == smallest
    wider = vqnerv._config(picture, config.widths[0] + 1, config.design)
    assert vqnerv.decoder_parameters(wider) > asked
    transmitted = {id(p) for layer in made.convolutions() for p in layer.parameters()}
    assert not transmitted & {id(p) for encoder in made.encoders() for p in encoder.parameters()}
    assert {id(p) for p in made.parameters()} == (
        transmitted
        | {id(p) for encoder in made.encoders() for p in encoder.parameters()}
        | {id(p) for latent in made.latents for p in latent.parameters()}
    )


def test_the_program_depends_on_the_shape_of_the_network_alone() -> None:
    for name in TOKENS:
        first, second = (network(Header(37, 23, 0), 7_000, design(name), seed=seed) for seed in (1, 2))
        one = program_of(first, None).program()
        assert one == program_of(second, None).program() == program_of(first, numbers_of(first, 2)).program()


def test_maps_are_where_and_about_as_large_as_asked() -> None:
    picture = Picture.of(Header(1280, 640, 0))
    for shown in (picture, Picture.of(Header(1280, 640, 1))):
        usual = vqnerv.Network(vqnerv.plan(shown, 100_000, design("pooled")))
        assert usual.latents[1].shape == (4, 8, 16)  # the published log's
        assert usual.config.maps[0][0] == len(usual.grid.strides) - 1  # before the last block
    wanted = ((2, 200), (0, 6), (99, 120))
    asked = vqnerv.plan(picture, 100_000, Design(tokens=replace(TOKENS["added"], maps=wanted)))
    assert asked.maps == ((0, 6), (2, 200), (len(asked.grid.strides) - 1, 120))
    for latent, (_, area) in zip(list(vqnerv.Network(asked).latents)[1:], asked.maps, strict=True):
        assert isinstance(latent, Codebook)
        assert 0.6 * area <= latent.shape[1] * latent.shape[2] <= 1.7 * area


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (90, 160), (17, 400)])
@pytest.mark.parametrize("area", [1, 32, 500])
def test_a_map_is_enlarged_to_its_features_or_a_little_more(size: tuple[int, int], area: int) -> None:
    (h, w), factors = plan_map(size, area)
    for cells, length, axis in ((h, size[0], 0), (w, size[1], 1)):
        made = cells * factors[0][axis] * factors[1][axis]
        assert length <= made <= 1.07 * length


def test_every_block_is_encoded_from_features_of_its_own_place() -> None:
    header = Header(176, 144, 0)
    made = network(header, 20_000, design("paper, then paper"))
    assert [place for place, _ in made.config.maps] == [0, 1]
    codes, before = read(numbers_of(made, 2))
    canvas = torch.rand(2, 6, *made.grid.size)
    found = made.encode_details(canvas, codes[0], before)
    assert [tuple(real.shape[1:]) for real in found] == [latent.shape for latent in list(made.latents)[1:]]


def test_the_family_is_registered_and_its_blocks_are_those_that_can_be_asked_for() -> None:
    assert FAMILIES["vqnerv"] is vqnerv and set(FAMILIES) == set(MODELS)
    assert set(vqnerv.BLOCKS) == set(BLOCKS) and Tokens().block in BLOCKS


# ---- encoding


def decoded(data: bytes) -> Planes:
    """All frames of a file; each is checked against its hash on the way."""
    parts = [batch.planes for batch in Decoder(io.BytesIO(data)).frames()]
    planes: Planes = tuple(np.concatenate(plane) for plane in zip(*parts, strict=True))  # type: ignore[assignment]
    return planes


def encode_with(name: str, source: Any, **options: Any) -> tuple[bytes, Any]:
    return encode(source, model="vqnerv", design=design(name), **options)


@pytest.mark.parametrize("name", [*BLOCKS, "scalar paper", "two at one place"])
def test_a_short_fit_decodes_to_the_frames_that_were_measured(name: str) -> None:
    source = clip()
    data, result = encode_with(name, source, steps=8, segment=3)
    assert [segment.frames for segment in Reader(io.BytesIO(data)).segments()] == [2, 3]
    planes = decoded(data)
    assert result.bytes == len(data)
    assert result.quality.as_dict() == Quality.of(source.planes, planes, rgb=False).as_dict()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 2, 1, 0), (17, 31, 2, 0), (20, 12, 3, 1)])
def test_any_size_and_length_does(block: str, size: tuple[int, int, int, int]) -> None:
    source = clip(*size)
    planes = decoded(encode_with(block, source, steps=6)[0])
    assert [plane.shape for plane in planes] == [plane.shape for plane in source.planes]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_seed_decides_every_byte(block: str) -> None:
    first, second, other = (encode_with(block, clip(frames=2), seed=seed, steps=8)[0] for seed in (7, 7, 8))
    assert first == second != other


@pytest.mark.parametrize("name", [*BLOCKS, "scalar"])
def test_the_overhead_is_known_before_the_fit(name: str) -> None:
    options = EncodeOptions("vqnerv", design=design(name), segment=3, config=FitConfig(passes=1, min_steps=STEPS))
    source = clip()
    plan = plan_encode(source, options)
    data, _ = encode_with(name, source, segment=3)
    segments, decoder, streams = 0.0, Decoder(io.BytesIO(data)), 0
    for segment in decoder.reader.segments():
        analysis: Analysis = decoder.analyses[segment.program]
        for spec, values in zip(analysis.specs(segment.frames), read_sections(analysis, segment), strict=True):
            if spec.kind is not Kind.MULTIPLIER and spec.kind is not Kind.GAIN:
                segments += coded_bits(spec, values.reshape(spec.shape))
        streams += len(segment.sections)
    told = overhead_bytes(source, options, plan.model, plan.analysis, plan.ranges)
    assert len(data) - segments / 8 == pytest.approx(told, abs=2 + 4 * streams)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_state_is_a_whole_state(block: str) -> None:
    """What a fit goes back to has the same tokens, entries, pool and latents, and counts the same bits."""
    config = FitConfig(passes=1, min_steps=30)
    fit = a_fit(clip(), Target(size=2500), config, design=design(block), model="vqnerv")[1]
    while fit.step < 15:
        fit.advance()
    kept, bits = fit.state(), fit.bits()
    names = [name for name in kept["network"] if "latent" in name and "encoder" not in name]
    parts = {"tokens", "entries", "sizes", "sums", "nodes", "curvature", "literal", "log_gain"}
    assert {name.split(".")[-1] for name in names} >= parts
    before = {name: value.clone() for name, value in kept["network"].items()}
    while fit.step < 20:
        fit.advance()
    assert all(torch.equal(kept["network"][name], before[name]) for name in before)  # a copy
    moved = fit.network.state_dict()
    assert not torch.equal(moved["latents.1.entries"], before["latents.1.entries"])
    for _ in range(2):
        fit.restore(kept)
        assert all(torch.equal(fit.network.state_dict()[name], before[name]) for name in before)
        assert all(torch.equal(a.detach(), b) for a, b in zip(fit.tables, kept["tables"], strict=True))
        assert fit.bits() == pytest.approx(bits, rel=1e-6)
        fit._step(15)


def test_a_fit_reads_the_embedding_of_the_frame_before_as_the_decoder_does() -> None:
    config = FitConfig(passes=1, min_steps=20)
    fit = a_fit(clip(), Target(size=2500), config, design=design("paper"), model="vqnerv")[1]
    index, before = torch.tensor([0, 3, 1]), torch.tensor([0, 2, 0])
    with torch.no_grad():
        own = fit.latents[0](fit.reals(before)[0], before)
        assert torch.allclose(read_before(fit, index), own, rtol=1e-4, atol=1e-3)  # type: ignore[arg-type]
        while fit.step < 10:
            with torch.enable_grad():
                fit.advance()
        (numbers,) = fit.latents[0].numbers(fit.tables[0])
        assert np.array_equal(read_before(fit, index), numbers[before])  # type: ignore[arg-type]
    other = a_fit(clip(), Target(size=2500), config, design=design("added"), model="vqnerv")[1]
    assert read_before(other, index) is None


def read_before(fit: Fit, index: torch.Tensor) -> torch.Tensor | None:
    """The embedding of the frames before `index` as the step of a fit reads it."""
    return fit.objective.before(fit.batch(index))


@pytest.mark.parametrize("at", [3, 45])
def test_a_fit_with_tokens_survives_a_number_that_is_none(at: int) -> None:
    config = FitConfig(passes=1, min_steps=90)
    fit = a_fit(clip(), Target(size=2500), config, design=design("added"), model="vqnerv")[1]
    step_of, told = fit._step, []

    def step(number: int) -> None:
        step_of(number)
        if number == at:
            torch.nn.init.constant_(fit.convolutions[1].weight, float("nan"))

    fit._step = step  # type: ignore[method-assign]
    numbers = fit.run(told.append)
    assert sum("diverged" in progress.note for progress in told) == 1
    assert np.isfinite(told[-1].psnr) and told[-1].psnr > 10
    book = fit.latents[1]
    assert isinstance(book, Codebook) and torch.isfinite(book.entries).all() and np.isfinite(float(book.curvature))
    assert numbers[1][0].max() < book.levels


# ---- the integer decoder and the network without rounding

CURVES = {
    TANH.argument: lambda y: 2047 * torch.tanh(y * TANH.step),
    SIGMOID.argument: lambda y: 2047 * torch.sigmoid(y * SIGMOID.step),
    EXP.argument: lambda y: 256 * torch.exp(y * EXP.step),
}


def unrounded(self: Requantiser, acc: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """The requantisation in real numbers, but for the samples of the head."""
    a = self.activation
    y = (acc.double() * m.double()).clamp(a.low, a.high)
    if a.function == arithmetic.HARD_SWISH:
        y = y * (y + 512).clamp(0, 1024) / 1024
    elif a.function == arithmetic.TABLE:
        y = CURVES[a.argument](y)
    else:
        assert a.function == arithmetic.IDENTITY
        y = y.round() if a.high == 255 else y
    return y.float()


@pytest.mark.parametrize(("block", "bpp"), [("pooled", 6.0), ("paper", 12.0), ("added", 6.0)])  # that has the larger network
def test_the_integer_decoder_is_as_good_as_the_network_without_rounding(block: str, bpp: float) -> None:
    source = clip(32, 24, 4)
    config = FitConfig(passes=1, min_steps=120)
    plan, fit = a_fit(source, Target(bpp=bpp), config, design=design(block), model="vqnerv")
    numbers = fit.run(lambda _: None)
    integer = Interpreter(plan.analysis, emitted(fit.network, numbers), 4, 4, CPU).render(0, 4)
    assert isinstance(fit.network, vqnerv.Network)
    fitted = planes_of(canvas_of(fit.network, numbers), source.header)
    assert all(np.array_equal(a, b) for a, b in zip(integer, fitted, strict=True))
    with mock.patch.object(Requantiser, "forward", unrounded):
        real = planes_of(canvas_of(fit.network, numbers), source.header)
    ours = Quality.of(source.planes, integer, rgb=False).as_dict()["yuv611"]
    theirs = Quality.of(source.planes, tuple(p.astype(np.uint8) for p in real), rgb=False).as_dict()["yuv611"]  # type: ignore[arg-type]
    assert any((a != b).any() for a, b in zip(integer, real, strict=True))
    assert ours > 26  # a fit so poor that rounding would not show proves nothing
    assert ours > theirs - 0.05
