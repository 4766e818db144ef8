"""nvc.codec.encode, end to end: what was fitted is what the file decodes to, and what was measured is what it shows."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvc_files import STEPS, VARIABLE, Integers, a_fit, clip, emitted, encode, encoded, encoded_variable
from torch.nn import functional

from nvc.bitstream.coefficients import digest, read_sections, write_sections
from nvc.bitstream.constants import HASHES
from nvc.bitstream.container import Reader, Writer
from nvc.bitstream.errors import InvalidError, MachineError, TargetError, TruncatedError
from nvc.bitstream.program import Builder
from nvc.bitstream.segment import Segment
from nvc.bitstream.tensors import Kind, coded_bits
from nvc.codec import checkpoint, segment_fit
from nvc.codec import encode as encoder
from nvc.codec.budget import make_room
from nvc.codec.config import PRESETS, Design, FitConfig
from nvc.codec.decode import Decoder
from nvc.codec.encode import EncodeOptions, EncodeResult, Plan, SegmentProgress, plan_encode
from nvc.codec.fit import Fit, Progress
from nvc.codec.interpreter import Interpreter
from nvc.codec.memory import Room
from nvc.codec.metrics import Planes, Quality
from nvc.codec.models import hnerv
from nvc.codec.plan import overhead_bytes
from nvc.codec.segment_fit import SegmentFit, plan_room
from nvc.codec.sinks import open_sink
from nvc.codec.target import Target
from nvc.codec.video import Clip, ReadOptions, read_clip

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def decoded(data: bytes) -> Planes:
    """All frames of a file; each is checked against its hash on the way."""
    parts = [batch.planes for batch in Decoder(io.BytesIO(data)).frames()]
    planes: Planes = tuple(np.concatenate(plane) for plane in zip(*parts, strict=True))  # type: ignore[assignment]
    return planes


def same(a: Planes, b: Planes) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("width", "height", "frames", "pixel_format"),
    [(32, 24, 4, 0), (1, 1, 2, 0), (17, 31, 3, 0), (32, 24, 1, 0), (16, 2, 2, 0), (20, 12, 3, 1), (1, 1, 1, 1)],
)
def test_any_size_and_length_decodes_to_the_frames_that_were_measured(
    width: int, height: int, frames: int, pixel_format: int
) -> None:
    source = clip(width, height, frames, pixel_format)
    data, result = encode(source)
    planes = decoded(data)
    assert [plane.shape for plane in planes] == [plane.shape for plane in source.planes]
    assert result.bytes == len(data)
    assert result.quality.as_dict() == Quality.of(source.planes, planes, rgb=pixel_format == 1).as_dict()


def test_parameters_are_the_weights_and_biases_of_all_segments() -> None:
    _, result = encode(clip(), segment=2, target=Target(size=3000))
    plan = plan_encode(clip(), EncodeOptions(segment=2, target=Target(size=3000)))
    assert isinstance(plan.config, hnerv.Config)
    built = hnerv.Network(plan.config)
    numbers = [p.numel() for layer in built.convolutions() for p in (layer.weight, layer.bias)]
    assert result.parameters == 3 * sum(numbers)


def test_the_psnr_told_is_that_of_ffmpeg_on_the_y4m(ffmpeg: Callable[..., bytes], make_video: Callable[..., Path]) -> None:
    source = make_video("source.mkv", "testsrc2=s=32x24:r=25", 5, "-c:v", "ffv1")
    read = read_clip(str(source))
    data, result = encode(read, target=Target(bpp=4.0), steps=60)
    target = source.parent / "decoded.y4m"
    with open_sink(str(target), read.header, overwrite=False) as sink:
        for batch in Decoder(io.BytesIO(data)).frames():
            sink.write(batch.planes, batch.pts)
    log = source.parent / "psnr.log"
    ffmpeg("-i", target, "-i", source, "-lavfi", f"psnr=stats_file={log}", "-f", "null", "-")
    told = result.quality.as_dict()
    by_plane = {}
    for name, plane in (("y", "y"), ("u", "cb"), ("v", "cr")):
        values = [float(value) for value in re.findall(rf"psnr_{name}:([\d.]+)", log.read_text())]
        assert len(values) == 5
        by_plane[plane] = sum(values) / 5
        assert told[plane] == pytest.approx(by_plane[plane], abs=0.01)
    assert told["yuv611"] == pytest.approx((6 * by_plane["y"] + by_plane["cb"] + by_plane["cr"]) / 8, abs=0.01)


def test_a_seed_decides_every_byte() -> None:
    assert encode(clip(), seed=7, segment=3)[0] == encode(clip(), seed=7, segment=3)[0]


def test_the_seed_does_not_disturb_the_callers_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encode(clip(frames=1))
    assert torch.equal(torch.rand(3), expected)


def test_another_seed_gives_another_file() -> None:
    def weights(seed: int) -> bytes:
        (segment,) = Reader(io.BytesIO(encode(clip(), seed=seed)[0])).segments()
        return segment.sections[1]

    assert weights(1) != weights(2)


def test_segments_are_of_equal_length_and_at_most_as_long_as_asked() -> None:
    segments = list(Reader(io.BytesIO(encoded())).segments())
    assert [(segment.first_frame, segment.frames) for segment in segments] == [(0, 1), (1, 2), (3, 2)]
    assert len({segment.sections[1] for segment in segments}) == 3  # each has a network of its own


def test_a_file_without_index_and_footer_decodes_to_the_same() -> None:
    reader = Reader(io.BytesIO(encoded()))
    for header in (reader.header, replace(reader.header, frame_count=None)):
        file = io.BytesIO()
        writer = Writer(file, header, reader.model, reader.metadata, indexed=False)
        for segment in reader.segments():
            writer.add(segment)
        writer.finish()
        assert len(file.getvalue()) < len(encoded())
        assert same(decoded(file.getvalue()), decoded(encoded()))


def test_time_stamps_of_a_variable_rate_come_out_of_the_decoder() -> None:
    stamps = [stamp for batch in Decoder(io.BytesIO(encoded_variable())).frames() for stamp in batch.pts]
    assert tuple(stamps) == VARIABLE


def test_a_variable_rate_video_keeps_its_times_through_file_and_matroska(make_video: Callable[..., Path]) -> None:
    drop = "testsrc2=s=32x24:r=25,select='not(between(mod(n,5),1,2))'"
    source = make_video("vfr.mkv", drop, 6, "-c:v", "ffv1", "-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    read = read_clip(str(source))
    assert read.header.frame_rate is None
    data, _ = encode(read, segment=4)
    target = source.parent / "back.mkv"
    decoder = Decoder(io.BytesIO(data))
    with open_sink(str(target), decoder.header, overwrite=False) as sink:
        for batch in decoder.frames():
            sink.write(batch.planes, batch.pts)
    back = read_clip(str(target))
    assert [stamp * back.header.time_base for stamp in back.pts] == [stamp * read.header.time_base for stamp in read.pts]
    assert same(back.planes, decoded(data))


def test_what_the_source_says_of_its_picture_is_in_the_file(make_video: Callable[..., Path]) -> None:
    tags = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-aspect", "2:1", "-c:v", "ffv1"]
    read = read_clip(str(make_video("tagged.mkv", "testsrc2=s=32x24:r=30000/1001", 2, *tags)))
    header = Reader(io.BytesIO(encode(read)[0])).header
    assert header == read.header
    assert (header.matrix, header.par, header.frame_rate) == (1, Fraction(3, 2), Fraction(30000, 1001))


# ---- size


def test_the_size_comes_out_near_the_target() -> None:
    source = clip(48, 32, 4)
    data, result = encode(source, steps=200, target=Target(bpp=2.0))
    assert result.target_bytes == 2.0 * 48 * 32 * 4 / 8
    # Far shorter than any preset fits a real clip, and headers weigh much: so not the 10 % that hold there.
    assert len(data) == pytest.approx(result.target_bytes, rel=0.25)


@pytest.mark.parametrize("target", [Target(size=700), Target(bpp=0.5), Target(bitrate=20e3)])
def test_a_target_too_small_is_refused_before_any_fit_or_byte(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr(encoder, "SegmentFit", unexpected)
    file = io.BytesIO()
    with pytest.raises(TargetError) as caught:
        encoder.encode(clip(), file, EncodeOptions(target=target), CPU, lambda _: None)
    assert caught.value.code == "target.too_small"
    assert file.getvalue() == b""


def test_no_segment_is_written_whose_sums_could_pass_2_24(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = hnerv.Network.emit

    def careless(self: hnerv.Network, builder: Builder, numbers: list[list[Integers]]) -> None:
        honest(self, builder, numbers)
        if builder.tensors[0] is not None:  # not for the plan, which emits the operations alone
            bias = next(number for number, tensor in enumerate(builder.tensors) if tensor.ndim == 1)
            builder.tensors[bias] = np.full_like(builder.tensors[bias], 1 << 24)

    monkeypatch.setattr(hnerv.Network, "emit", careless)
    file = io.BytesIO()
    with mock.patch.dict(PRESETS, draft=FitConfig(passes=1, min_steps=STEPS)), pytest.raises(InvalidError) as caught:
        encoder.encode(clip(), file, EncodeOptions(preset="draft"), CPU, lambda _: None)
    assert caught.value.code == "invalid.bound"
    with pytest.raises(TruncatedError):
        list(Reader(io.BytesIO(file.getvalue())).segments())
    assert b"SEGM" not in file.getvalue()


def overhead(data: bytes) -> int:
    accounts = Reader(io.BytesIO(data)).accounting()
    assert sum(accounts.values()) == len(data)
    return len(data) - accounts["weights"] - accounts["embeddings"] - accounts["tokens"] - accounts["codebook"]


@pytest.mark.parametrize("segment", [1, 2, 5])
def test_side_information_is_small(segment: int) -> None:
    count = -(-5 // segment)
    assert overhead(encode(clip(), segment=segment, steps=4)[0]) < 600 + 250 * count + 8 * 5


@pytest.mark.parametrize(("width", "height", "pixel_format"), [(1920, 1080, 0), (1918, 1078, 1), (640, 360, 0)])
def test_side_information_of_a_large_picture_is_as_small(width: int, height: int, pixel_format: int) -> None:
    frames = 2
    source = clip(width, height, frames, pixel_format)
    plan = plan_encode(source, EncodeOptions(target=Target(bpp=0.2)))
    zeros = [np.zeros(spec.shape, np.int64) for spec in plan.analysis.specs(frames)]
    sections = {**write_sections(plan.analysis, zeros, frames), HASHES: bytes(8 * frames)}
    file = io.BytesIO()
    writer = Writer(file, source.header, plan.model, {"encoder": "nvc 10.10.10", "preset": "veryslow", "seed": 2**31 - 1})
    writer.add(Segment(0, frames, 0, digest(zeros), sections))
    writer.finish()
    assert overhead(file.getvalue()) < 600 + 250 + 8 * frames


QUICK = FitConfig(passes=1, min_steps=4)
PAID = (Kind.WEIGHT, Kind.BIAS, Kind.EMBEDDING)


def numbers_bits(data: bytes) -> list[float]:
    """The bits of weights, biases and embeddings of each segment, as the coder counts them."""
    decoder = Decoder(io.BytesIO(data))
    found = []
    for segment in decoder.reader.segments():
        analysis = decoder.analyses[segment.program]
        pairs = zip(analysis.specs(segment.frames), read_sections(analysis, segment), strict=True)
        found.append(sum(coded_bits(spec, values.reshape(spec.shape)) for spec, values in pairs if spec.kind in PAID))
    return found


@settings(deadline=None, max_examples=12)
@given(
    *(st.integers(1, 48), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1)),
    *(st.booleans(), st.booleans(), st.integers(0, 2**31 - 1)),
)
def test_the_overhead_is_known_before_the_fit(
    width: int, height: int, frames: int, segment: int, pixel_format: int, variable: bool, channel_steps: bool, seed: int
) -> None:
    source = clip(width, height, frames, pixel_format, VARIABLE[:frames] if variable else ())
    options = EncodeOptions(segment=segment, seed=seed, design=Design(channel_steps=channel_steps), config=QUICK)
    plan = plan_encode(source, options)
    file = io.BytesIO()
    encoder.encode(source, file, options, CPU, lambda _: None)
    segments = numbers_bits(file.getvalue())
    told = overhead_bytes(source, options, plan.model, plan.analysis, plan.ranges)
    # two streams a segment, each of which takes 20 bits more than its symbols and ends at a whole word
    assert len(file.getvalue()) - sum(segments) / 8 == pytest.approx(told, abs=2 + 8 * len(segments))
    assert plan.bits == pytest.approx(8 * (0.99 * plan.total_bytes - told))


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float, Room]]:
    """Number, bits and room of the segments whose fits begin from here on."""
    begun: list[tuple[int, float, Room]] = []

    class Watched(SegmentFit):
        def __init__(
            self,
            source: Clip,
            plan: Plan,
            options: EncodeOptions,
            number: int,
            bits: float,
            device: Any,
            room: Room,
            *others: Any,
        ) -> None:
            begun.append((number, bits, room))
            super().__init__(source, plan, options, number, bits, device, room, *others)

    monkeypatch.setattr(encoder, "SegmentFit", Watched)
    return begun


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_the_segments_of_a_wave_share_what_the_waves_before_left(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = watched(monkeypatch)
    options = EncodeOptions(segment=2, config=QUICK, target=Target(size=4000), workers=workers)
    plan = plan_encode(clip(), options)
    file = io.BytesIO()
    encoder.encode(clip(), file, options, CPU, lambda _: None)
    taken, frames = numbers_bits(file.getvalue()), [1, 2, 2]
    assert [number for number, _, _ in begun] == [0, 1, 2]
    assert abs(taken[0] - plan.bits / 5) > 1000  # so short a fit does not find its size: there is something to share
    for number, bits, _ in begun:
        before = number // workers * workers  # segments in the waves before
        left = max(plan.bits - sum(taken[:before]), 1)
        side_information = before * 8 * 30  # streams and multipliers
        assert bits == pytest.approx(left * frames[number] / sum(frames[before:]), abs=side_information)


def test_segments_that_took_too_much_leave_the_next_a_bit_all_the_same() -> None:
    data, _ = encode(clip(), segment=1, target=Target(size=2600), steps=4)
    assert len(numbers_bits(data)) == 5


# ---- pruning


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_pruning_leaves_at_least_so_many_zeros(share: float) -> None:
    data, _ = encode(clip(), segment=3, prune=share, target=Target(size=3000))
    decoder = Decoder(io.BytesIO(data))
    for segment in decoder.reader.segments():
        (analysis,) = decoder.analyses
        tensors = read_sections(analysis, segment)
        pairs = zip(tensors, analysis.parameters, strict=True)
        weights = np.concatenate([values.ravel() for values, parameter in pairs if parameter.kind is Kind.WEIGHT])
        assert (weights == 0).mean() >= share - 1 / len(weights)
        assert (weights != 0).any()


def test_what_was_pruned_stays_zero_and_the_rest_is_still_fitted() -> None:
    config = FitConfig(passes=1, min_steps=60, prune=0.4)
    _, fit = a_fit(clip(), Target(size=3000), config)
    at = int(config.prune_at * fit.steps)
    while fit.step < at:
        fit.advance()
    before = [layer.weight.detach().clone() for layer in fit.convolutions]
    dropped = [layer.weight.detach().abs() for layer in fit.convolutions]
    fit.run(lambda _: None)
    smallest = torch.cat([weight.flatten() for weight in dropped]).sort().values
    limit = smallest[round(0.4 * len(smallest)) - 1]
    for layer, old in zip(fit.convolutions, before, strict=True):
        mask = old.abs() <= limit  # by magnitude over all layers
        assert (layer.codes().detach()[mask] == 0).all()
        assert (layer.weight.detach()[mask] == 0).all()
        assert (layer.weight.detach()[~mask] != old[~mask]).float().mean() > 0.9
        assert (layer.weight.detach()[~mask] != 0).all()


@pytest.mark.parametrize("model", ["hnerv", "vqnerv"])
def test_latents_leave_room_for_weights_and_the_picture_stays(model: str) -> None:
    """Without it fits to small sizes gave all of it to embeddings, and showed one grey."""
    _, fit = a_fit(clip(), Target(size=3000), FitConfig(passes=1, min_steps=STEPS), model=model)
    fit._free()
    with torch.no_grad():
        fit.tables[0].copy_(3 * torch.randn(fit.tables[0].shape, generator=torch.Generator().manual_seed(0)))
    size = float(fit.latents[0].bits(fit.tables[0]).detach())
    fit.objective.steer.budget_bits = size / 2

    @torch.no_grad()
    def read() -> torch.Tensor:
        """What the decoder's first layer makes of the embeddings."""
        read: torch.Tensor = fit.network.stem(fit.latents[0](fit.tables[0], torch.arange(5)))
        return read

    before, others = read(), [table.clone() for table in fit.tables[1:]]
    make_room(fit.objective)
    assert float(fit.latents[0].bits(fit.tables[0]).detach()) <= 0.4 * fit.objective.steer.budget_bits
    torch.testing.assert_close(read(), before, rtol=0, atol=0.01 * float(before.std()))
    assert before.std() > 0 and all(torch.equal(a, b) for a, b in zip(others, fit.tables[1:], strict=True))


def test_rounding_begins_with_latents_that_leave_room() -> None:
    _, fit = a_fit(clip(), Target(size=3000), FitConfig(passes=1, min_steps=STEPS))
    with torch.no_grad():
        fit.latents[0].log_gain.add_(2.0)
        fit.objective.steer.budget_bits = float(fit.latents[0].bits(fit.reals(torch.arange(5))[0])) / 2
    fit._enter(fit.quantise_step)
    assert float(fit.latents[0].bits(fit.tables[0]).detach()) <= 0.4 * fit.objective.steer.budget_bits


def test_latents_that_leave_room_are_let_be() -> None:
    _, fit = a_fit(clip(), Target(size=3000), FitConfig(passes=1, min_steps=STEPS))
    fit._free()
    fit.objective.steer.budget_bits = 2.6 * float(fit.latents[0].bits(fit.tables[0]).detach())
    before = {name: value.clone() for name, value in fit.network.state_dict().items()}
    make_room(fit.objective)
    assert all(torch.equal(before[name], value) for name, value in fit.network.state_dict().items())


# ---- an encode that is stopped


class Stopped(BaseException):
    """What ends an encode in the middle."""


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        (Target(size=3000), {}),
        (Target(size=4000), {"segment": 3}),
        (Target(size=4000), {"segment": 3, "workers": 2}),
        (Target(psnr=24.0), {}),
    ],
)
@pytest.mark.parametrize("after", [1, 3])
def test_an_encode_that_was_stopped_goes_on_to_the_same_file(
    wanted: Target, options: dict[str, int], after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.Keeper, "look", looked := Looked())
    source = clip(48, 32, 6)
    chosen = EncodeOptions(target=wanted, config=FitConfig(passes=1, min_steps=60), **options)  # type: ignore[arg-type]

    def encoded_to(folder: str) -> tuple[bytes, int]:
        """A file, and how many steps it took."""
        file, before = io.BytesIO(), looked.steps
        encoder.encode(source, file, chosen, CPU, lambda _: None, checkpoint.Keeper(tmp_path / folder))
        return file.getvalue(), looked.steps - before

    whole, steps = encoded_to("whole")
    looked.left = after
    with pytest.raises(Stopped):
        encoded_to("kept")
    again, fewer = encoded_to("kept")
    assert again == whole
    assert fewer <= steps - 20 * after


class Looked:
    """Keeper.look that saves every twentieth step and counts all; with `left` it stops after so many savings."""

    def __init__(self) -> None:
        self.left, self.steps = 0, 0

    def __get__(self, keeper: checkpoint.Keeper, _: type) -> Any:
        def look(name: str, fit: Fit) -> None:
            self.steps += 1
            if fit.step % 20 == 0:
                checkpoint.save(keeper.folder / name, fit)
                self.left -= 1
                if self.left == 0:
                    raise Stopped

        return look


# ---- a PSNR


def stubbed(monkeypatch: pytest.MonkeyPatch, psnrs: list[float]) -> list[float]:
    """Encodes that write their number and have these PSNRs; the sizes that they are asked for."""
    sizes: list[float] = []

    def one(job: Any, file: io.BytesIO) -> EncodeResult:
        number, options = len(sizes), job.options
        assert (job.keeper, job.name) == (None, f"attempt {number + 1} ")
        assert options.target.size is not None and options.seed == 4
        sizes.append(options.target.size)
        job.report(SegmentProgress(0, 1, None, 0.0))  # type: ignore[arg-type]
        file.write(f"file {number}".encode())
        quality = Quality({"rgb": np.array([psnrs[number] - 1, psnrs[number] + 1])})
        return EncodeResult(6, options.target.size, quality, number, 0.0)

    monkeypatch.setattr(encoder, "_encode", one)
    return sizes


@pytest.mark.parametrize(
    ("psnrs", "best"),
    [([31.1], 0), ([28, 30.95], 1), ([28, 33, 30.5, 32], 2), ([30.6, 28, 33, 35], 0), ([28, 29, 30, 30.5], 3)],
)
def test_the_file_nearest_to_the_psnr_is_written(psnrs: list[float], best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = stubbed(monkeypatch, psnrs)
    file, attempts = io.BytesIO(), []
    options = EncodeOptions(target=Target(psnr=31), seed=4)
    result = encoder.encode(clip(64, 48, 20), file, options, CPU, lambda state: attempts.append(state.attempt))
    assert file.getvalue() == f"file {best}".encode()
    assert (result.parameters, result.psnr, result.target_bytes) == (best, psnrs[best], sizes[best])
    assert attempts == list(range(len(psnrs)))
    assert sizes[0] == plan_encode(clip(64, 48, 20), EncodeOptions()).total_bytes


def test_no_file_for_a_psnr_is_smaller_than_makes_sense_or_larger_than_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    source = clip(64, 48, 20)
    least = plan_encode(source, EncodeOptions()).least_bytes
    for psnrs, limit in (([80.0] * 4, least), ([10.0] * 4, 12 / 8 * 64 * 48 * 20)):
        sizes = stubbed(monkeypatch, psnrs)
        encoder.encode(source, io.BytesIO(), EncodeOptions(target=Target(psnr=31), seed=4), CPU, lambda _: None)
        assert min(max(sizes, key=lambda size: abs(size - sizes[0])), 1e9) == pytest.approx(limit)
    plan_encode(source, EncodeOptions(target=Target(size=least + 1)))  # and that is a size that can be asked for


def test_a_psnr_is_reached_by_fitting_again() -> None:
    source = clip(64, 48, 6)
    first = encode(source, steps=300)[1]
    wanted = first.psnr + 4
    data, result = encode(source, steps=300, target=Target(psnr=wanted))
    assert result.bytes == len(data) > first.bytes
    assert abs(result.psnr - wanted) < abs(first.psnr - wanted) / 2
    assert Quality.of(source.planes, decoded(data), rgb=False).as_dict() == result.quality.as_dict()


# ---- the integer decoder and the float network


@torch.no_grad()
def float_twin(network: hnerv.Network, codes: torch.Tensor) -> torch.Tensor:
    """The network in real numbers, weights and embeddings alone quantised: canvases (T, C, H, W) of samples 0..255.

    Values are in natural units: an embedding code is worth 1/16, activations are limited to -4..4.
    """
    x = codes.double() / 16
    for number, layer in enumerate([network.stem, *network.blocks, network.head]):
        weight = torch.round(layer.weight / layer.log_step.exp()).clamp(-127, 127).double() * layer.log_step.exp().double()
        x = functional.conv2d(x, weight, layer.bias.double(), padding=weight.shape[-1] // 2)
        if layer is not network.head:
            x = x.clamp(-4, 4)
            x = x * (x + 1).clamp(0, 2) / 2
        if 0 < number <= len(network.blocks):
            sh, sw = network.config.grid.strides[number - 1]
            n, c, h, w = x.shape
            x = x.reshape(n, sh, sw, c // (sh * sw), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * sh, w * sw)
    return x * 255


def both_qualities(seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Of a fit: as the decoder shows it, and as its float network would."""
    source = clip(32, 24, 4)
    plan, fit = a_fit(source, Target(bpp=4.0), FitConfig(passes=1, min_steps=300), seed)
    numbers = fit.run(lambda _: None)
    assert isinstance(fit.network, hnerv.Network)
    integer = Interpreter(plan.analysis, emitted(fit.network, numbers), 4, 4, CPU).render(0, 4)
    canvas = float_twin(fit.network, torch.from_numpy(numbers[0][0])).round().clamp(0, 255).to(torch.uint8)
    luma = canvas[:, :4].reshape(4, 2, 2, *canvas.shape[2:]).permute(0, 3, 1, 4, 2).reshape(4, *(2 * s for s in canvas.shape[2:]))
    real = tuple(
        plane[:, : wanted.shape[1], : wanted.shape[2]].numpy()
        for plane, wanted in zip((luma, canvas[:, 4], canvas[:, 5]), source.planes, strict=True)
    )
    ours = Quality.of(source.planes, integer, rgb=False).as_dict()
    floats = Quality.of(source.planes, real, rgb=False).as_dict()  # type: ignore[arg-type]
    return ours, floats


def test_the_integer_decoder_is_as_good_as_the_float_networks_it_came_from() -> None:
    lost = []
    for seed in range(6):  # of pictures so small, one fit may lose 0.13 dB by chance, ten lose 0.02 in the mean
        ours, floats = both_qualities(seed)
        assert ours["yuv611"] > 29  # a fit so poor that rounding would not show proves nothing
        lost.append(floats["yuv611"] - ours["yuv611"])
        for name, value in ours.items():  # 48 samples of chroma a frame leave room for chance
            assert value > floats[name] - 0.2, name
    assert sum(lost) / len(lost) < 0.05


def test_progress_is_told_for_every_segment() -> None:
    told: list[tuple[int, int, int, int]] = []
    options = EncodeOptions(config=FitConfig(passes=1, min_steps=STEPS), segment=2)
    encoder.encode(clip(), io.BytesIO(), options, CPU, lambda p: told.append((p.number, p.segments, p.fit.step, p.fit.steps)))
    assert [entry for entry in told if entry[2] == entry[3]] == [(number, 3, STEPS, STEPS) for number in range(3)]


# ---- several segments at a time, and little memory


WAVES = EncodeOptions(segment=2, config=FitConfig(passes=1, min_steps=STEPS), workers=2)  # frames 0, 1-2; 3-4


def written(options: EncodeOptions, told: Callable[[SegmentProgress], None] = lambda _: None) -> bytes:
    file = io.BytesIO()
    encoder.encode(clip(), file, options, CPU, told)
    return file.getvalue()


def stand_in(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Let the processor be a device with so much free memory."""
    monkeypatch.setattr(encoder, "free_memory", lambda _: free)


def needed(options: EncodeOptions) -> int:
    """The bytes that a fit takes."""
    return plan_room(clip(), plan_encode(clip(), options), options, CPU, 1 << 60).bytes


@pytest.mark.parametrize("model", ["hnerv", "vqnerv"])
def test_segments_of_a_wave_are_what_they_are_alone(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = watched(monkeypatch)
    options = replace(WAVES, model=model)
    plan = plan_encode(clip(), options)
    decoder = Decoder(io.BytesIO(written(options)))
    segments = list(decoder.reader.segments())
    for segment, (number, bits, room) in zip(segments, list(begun), strict=True):
        fit = SegmentFit(clip(), plan, options, number, bits, CPU, room, lambda _: None)
        while not fit.done:
            fit.advance()
        assert segment.sections == {**write_sections(plan.analysis, fit.tensors, segment.frames), HASHES: fit.hashes}


def test_each_segment_has_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    fit = segment_fit.Fit

    def seeded(network: Any, canvas: Any, config: Any, bits: float, seed: int, tune: str) -> Any:
        seeds.append(seed)
        return fit(network, canvas, config, bits, seed, tune)

    monkeypatch.setattr(segment_fit, "Fit", seeded)
    written(replace(WAVES, seed=7, config=QUICK))
    assert seeds == [7, 8, 9]


def test_the_file_does_not_depend_on_how_many_fits_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(WAVES, segment=1, workers=3, config=QUICK)
    expected, one = written(options), needed(options)
    going: list[int] = []

    class Counted(SegmentFit):
        def __init__(self, *given: Any) -> None:
            going.append(1)
            super().__init__(*given)

        def advance(self) -> None:
            most.append(sum(going))
            super().advance()
            if self.done:
                going.append(-1)

    monkeypatch.setattr(encoder, "SegmentFit", Counted)
    for room in (1, 2, 9):
        most: list[int] = []
        stand_in(monkeypatch, room * one)
        assert written(options) == expected
        assert max(most) == min(room, 3)


def test_one_worker_is_the_default_and_others_are_in_the_metadata() -> None:
    assert EncodeOptions().workers == 1
    said = [Reader(io.BytesIO(written(replace(WAVES, workers=workers, config=QUICK)))).metadata for workers in (1, 2)]
    assert "workers" not in said[0] and said[1] == said[0] | {"workers": 2}


def test_where_memory_is_small_the_fit_is_and_the_user_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, notes = watched(monkeypatch), []
    one = needed(WAVES)
    stand_in(monkeypatch, one - 1)
    data = written(WAVES, lambda state: notes.append(state.fit.note))
    assert len(decoded(data)[0]) == 5 and len(begun) == 3
    assert all(not room.resident and room.bytes < one for _, _, room in begun)
    assert [bool(note) for note in notes] == [True] + [False] * (len(notes) - 1) and "streamed" in notes[0]


def test_streaming_alone_changes_nothing_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(WAVES, config=QUICK)
    expected = written(options)
    plan_memory = segment_fit.plan_memory
    monkeypatch.setattr(segment_fit, "plan_memory", lambda *given: replace(plan_memory(*given), resident=False))
    stand_in(monkeypatch, 1 << 60)
    assert written(options) == expected


def test_no_segment_is_fitted_where_none_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = watched(monkeypatch)
    stand_in(monkeypatch, 1000)
    with pytest.raises(MachineError) as caught:
        written(WAVES)
    assert (caught.value.code, caught.value.exit_code, begun) == ("machine.memory", 7, [])


def test_memory_that_is_gone_all_the_same_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")

    monkeypatch.setattr(SegmentFit, "advance", gone)
    with pytest.raises(MachineError) as caught:
        written(WAVES)
    assert caught.value.code == "machine.memory" and "\n" not in str(caught.value)


def test_the_progress_of_a_wave_is_told_as_one() -> None:
    told: list[SegmentProgress] = []
    written(replace(WAVES, segment=1), told.append)
    assert [(state.number, state.count) for state in told if state.fit.step == state.fit.steps] == [(0, 2), (2, 2), (4, 1)]
    for start in (0, 2, 4):
        steps = [state.fit.step for state in told if state.number == start]
        assert steps == sorted(steps) and steps[0] < STEPS


def test_what_is_told_of_a_wave_is_the_mean_but_the_sum_of_bits() -> None:
    told: list[SegmentProgress] = []
    plan = plan_encode(clip(), WAVES)
    wave = encoder._Told(1, 2, plan, clip(), told.append, "little memory")
    wave.of(1)(Progress(10, 100, 30.0, 1000.0, 0.5, 8.0))
    wave.of(2)(Progress(30, 100, 34.0, 3000.0, 1.0, 16.0, "the fit diverged"))
    wave.of(1)(Progress(100, 100, 36.0, 1000.0, 0.5, 8.0))
    assert [(state.number, state.count, state.segments) for state in told] == [(1, 2, 3)] * 3
    assert [(state.fit.step, state.fit.psnr, state.fit.bits) for state in told] == [(5, 30, 1000), (20, 32, 4000), (65, 35, 4000)]
    assert [state.bpp for state in told] == [1000 / (32 * 24 * 2), *[4000 / (32 * 24 * 4)] * 2]
    assert (told[1].fit.usage, told[1].fit.perplexity) == (0.75, 12)
    assert [state.fit.note for state in told] == ["little memory", "segment 3: the fit diverged", ""]


def test_reading_a_range_encodes_just_that(make_video: Callable[..., Path]) -> None:
    source = make_video("range.mkv", "testsrc2=s=16x16:r=25", 6, "-c:v", "ffv1")
    part = read_clip(str(source), ReadOptions(frames=(2, 4)))
    data, _ = encode(part)
    batches = list(Decoder(io.BytesIO(data)).frames())
    assert [stamp for batch in batches for stamp in batch.pts] == [2, 3]
