"""nvc.codec.distortion and the MS-SSIM below it: the values by other programs, the slopes by differences, and no NaN anywhere."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from nvc_files import clip, encode, planes_of
from torch import Tensor

from nvc.bitstream.header import Header
from nvc.codec.canvas import Canvas, Planes, to_canvas
from nvc.codec.config import TUNES
from nvc.codec.decode import Decoder
from nvc.codec.distortion import DISTORTIONS, SquaredError, StructuralError
from nvc.codec.geometry import Picture, plan_grid
from nvc.codec.metrics import ms_ssim as metric
from nvc.codec.ssim import ms_ssim, scales
from nvc.codec.target import Target

SHARES = {2: (6 / 8, 1 / 8, 1 / 8), 1: (1 / 3, 1 / 3, 1 / 3)}  # of the planes, 4:2:0 and RGB


def canvas_of(width: int, height: int, pixel_format: int = 0, frames: int = 2, extra: int = 0) -> tuple[Planes, int, Canvas]:
    """The planes, the side and the canvas of a moving clip; its grid may be `extra` larger than it needs."""
    header = Header(width, height, pixel_format)
    picture = Picture.of(header)
    size = plan_grid(*picture.canvas).size
    planes = planes_of(header, frames)
    return planes, picture.side, to_canvas(planes, picture.side, (size[0] + extra, size[1] + extra))


def noisy(canvas: Canvas, seed: int = 0, strength: float = 20.0) -> Tensor:
    """The frames with noise, and anything in what is padded."""
    generator = torch.Generator().manual_seed(seed)
    made = canvas.frames + strength * torch.randn(canvas.frames.shape, generator=generator)
    return torch.where(canvas.weights > 0, made, 1000 * torch.randn(made.shape, generator=generator))


def visible(samples: Tensor, planes: Planes, side: int) -> list[NDArray[np.float64]]:
    """The planes (N, h, w) of a canvas, sample by sample as geometry.Picture says, without the padding."""
    canvas = samples.detach().double().numpy()
    if side == 1:
        folded = [canvas[:, i] for i in range(3)]
    else:
        count, _, height, width = canvas.shape
        luma = np.empty((count, 2 * height, 2 * width))
        for i in range(2):
            for j in range(2):
                luma[:, i::2, j::2] = canvas[:, 2 * i + j]
        folded = [luma, canvas[:, 4], canvas[:, 5]]
    return [plane[:, : like.shape[1], : like.shape[2]] for plane, like in zip(folded, planes, strict=True)]


def mean_error(made: Tensor, planes: Planes, side: int, power: int) -> float:
    """Mean |error|^power of the planes, by their shares."""
    pairs = zip(SHARES[side], visible(made, planes, side), planes, strict=True)
    return sum(share * float((np.abs(plane - wanted) ** power).mean()) for share, plane, wanted in pairs)


def test_there_is_one_for_every_tuning() -> None:
    assert tuple(DISTORTIONS) == TUNES


def test_the_squared_error_is_to_the_bit_what_the_weights_say() -> None:
    _, _, canvas = canvas_of(61, 47)
    made, wanted = noisy(canvas), canvas.frames.float()
    height = canvas.weights.shape[1]
    for first, last in ((0, height), (8, 16)):
        error = made[:, :, first:last] - wanted[:, :, first:last]
        plain = (error.square().sum(0) * canvas.weights[:, first:last]).sum() * (height / ((last - first) * len(made)))
        loss, squared = SquaredError(canvas)(made[:, :, first:last], wanted[:, :, first:last], first, last)
        assert torch.equal(loss, plain) and torch.equal(squared, plain)


@pytest.mark.parametrize("tune", TUNES)
@pytest.mark.parametrize("shape", [(61, 47, 0), (20, 34, 1), (5, 3, 0), (1, 1, 1)])
def test_every_tuning_tells_the_squared_error_without_a_gradient(tune: str, shape: tuple[int, int, int]) -> None:
    planes, side, canvas = canvas_of(*shape, extra=1)
    made = noisy(canvas).requires_grad_()
    loss, squared = DISTORTIONS[tune](canvas)(made, canvas.frames.float(), 0, canvas.weights.shape[1])
    assert float(squared) == pytest.approx(mean_error(made, planes, side, 2), rel=1e-5)
    assert loss.requires_grad and not squared.requires_grad


@pytest.mark.parametrize(("width", "height", "pixel_format"), [(384, 352, 0), (192, 176, 1)])  # even at every scale
def test_the_structural_error_is_that_of_the_papers(width: int, height: int, pixel_format: int) -> None:
    from pytorch_msssim import ms_ssim as theirs

    planes, side, canvas = canvas_of(width, height, pixel_format, extra=3)
    made = noisy(canvas, strength=60)
    loss, _ = StructuralError(canvas)(made, canvas.frames.float(), 0, canvas.weights.shape[1])
    similar = 0.0
    for share, plane, wanted in zip(SHARES[side], visible(made, planes, side), planes, strict=True):
        a, b = (torch.from_numpy(x.astype(np.float64))[:, None] for x in (plane, wanted))
        similar += share * float(theirs(a, b))
    assert similar < 0.9
    expected = 0.7 * mean_error(made, planes, side, 1) / 255 + 0.3 * (1 - similar)
    assert float(loss) / 255 == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(61, 47, 0), (40, 34, 1), (24, 22, 0), (21, 19, 0)])
def test_pictures_of_any_size_are_compared_plane_by_plane(shape: tuple[int, int, int]) -> None:
    planes, side, canvas = canvas_of(*shape, extra=1)
    made = noisy(canvas).round().clamp(0, 255)
    loss, _ = StructuralError(canvas)(made, canvas.frames.float(), 0, canvas.weights.shape[1])
    expected = 0.7 * mean_error(made, planes, side, 1)
    for share, plane, wanted in zip(SHARES[side], visible(made, planes, side), planes, strict=True):
        if min(wanted.shape[1:]) >= 11:
            expected += 0.3 * 255 * share * (1 - float(metric(plane.astype(np.uint8), wanted).mean()))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(10, 64, 1), (64, 10, 0), (1, 1, 0)])
def test_a_side_under_the_window_leaves_the_absolute_error(shape: tuple[int, int, int]) -> None:
    planes, side, canvas = canvas_of(*shape)
    made = noisy(canvas)
    loss, _ = StructuralError(canvas)(made, canvas.frames.float(), 0, canvas.weights.shape[1])
    assert float(loss) == pytest.approx(0.7 * mean_error(made, planes, side, 1), rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([0, 1]), st.integers(0, 24), st.integers(1, 24), st.integers(0, 3))
def test_a_band_counts_as_a_picture_of_its_rows(pixel_format: int, first: int, rows: int, seed: int) -> None:
    header = Header(48, 48, pixel_format)
    side = Picture.of(header).side
    planes = planes_of(header, 2)
    size = (48 // side, 48 // side)
    last = min(first + rows, size[0] - 1)
    first = min(first, last - 1)
    canvas = to_canvas(planes, side, size)
    made, wanted = noisy(canvas, seed)[:, :, first:last], canvas.frames[:, :, first:last].float()
    factors = (side, 1, 1)
    cut: Planes = tuple(p[:, first * f : last * f] for p, f in zip(planes, factors, strict=True))  # type: ignore[assignment]
    alone = to_canvas(cut, side, (last - first, size[1]))
    for kind in DISTORTIONS.values():
        band, whole = kind(canvas)(made, wanted, first, last), kind(alone)(made, wanted, 0, last - first)
        assert [float(x) for x in band] == pytest.approx([float(x) for x in whole], rel=1e-4)


@pytest.mark.parametrize("shape", [(61, 47, 0), (40, 34, 1)])
def test_a_band_that_ends_in_padding_is_compared_as_far_as_it_is_seen(shape: tuple[int, int, int]) -> None:
    planes, side, canvas = canvas_of(*shape, extra=2)
    made = noisy(canvas).round().clamp(0, 255)
    first, last = 5, canvas.weights.shape[1]
    loss, _ = StructuralError(canvas)(made[:, :, first:], canvas.frames[:, :, first:].float(), first, last)
    expected = 0.0
    for share, factor, plane, wanted in zip(SHARES[side], (side, 1, 1), visible(made, planes, side), planes, strict=True):
        a, b = plane[:, first * factor :].astype(np.uint8), wanted[:, first * factor :]
        absolute = np.abs(a.astype(float) - b).mean() * (b.shape[1] / wanted.shape[1]) * (last / (last - first))
        expected += share * (0.7 * absolute + 0.3 * 255 * (1 - float(metric(a, b).mean())))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_a_band_of_padding_alone_costs_nothing() -> None:
    _, _, canvas = canvas_of(32, 24, extra=4)
    height = canvas.weights.shape[1]
    made = noisy(canvas)[:, :, height - 2 :]
    for kind in DISTORTIONS.values():
        loss, squared = kind(canvas)(made, canvas.frames[:, :, height - 2 :].float(), height - 2, height)
        assert (float(loss), float(squared)) == (0, 0)


# ---- slopes


@pytest.mark.parametrize("size", [(11, 12), (21, 22)])
def test_the_slope_of_ms_ssim_is_that_of_differences(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    a = (255 * torch.rand(1, *size, generator=generator, dtype=torch.float64)).requires_grad_()
    b = a.detach() + 30 * torch.randn(a.shape, generator=generator, dtype=torch.float64)
    assert scales(*size) == 1 + (size[0] > 20)
    assert torch.autograd.gradcheck(lambda x: ms_ssim(x, b), a, atol=1e-7)
    assert torch.autograd.gradcheck(lambda x: ms_ssim(b, x), a, atol=1e-7)


def pictures(canvas: Canvas) -> dict[str, tuple[Tensor, Tensor]]:
    """What is made and what is wanted, where SSIM is 0/0, exactly 1, or a power of a negative number."""
    frames = canvas.frames.float()
    return {
        "identical": (frames.clone(), frames),
        "constant": (torch.full_like(frames, 7), torch.full_like(frames, 7)),
        "black and white": (torch.zeros_like(frames), torch.full_like(frames, 255)),
        "constant of a picture": (torch.full_like(frames, 128), frames),
        "picture of a constant": (frames.clone(), torch.zeros_like(frames)),
        "negative": (255 - frames, frames),
        "far outside": (1e4 * frames, frames),
    }


@pytest.mark.parametrize("name", pictures(canvas_of(16, 16)[2]))
@pytest.mark.parametrize("shape", [(180, 170, 0), (24, 24, 1), (5, 5, 0)])
def test_loss_and_slope_are_finite_for_every_picture(name: str, shape: tuple[int, int, int]) -> None:
    _, _, canvas = canvas_of(*shape)
    made, wanted = pictures(canvas)[name]
    made.requires_grad_()
    loss, _ = StructuralError(canvas)(made, wanted, 0, canvas.weights.shape[1])
    loss.backward()
    assert made.grad is not None
    assert torch.isfinite(loss) and torch.isfinite(made.grad).all()
    if name in ("identical", "constant"):
        assert abs(float(loss.detach())) < 1e-3


def test_a_fit_that_diverged_is_told() -> None:
    _, _, canvas = canvas_of(32, 24)
    made = torch.full_like(canvas.frames, float("nan"), dtype=torch.float32)
    for kind in DISTORTIONS.values():
        loss, squared = kind(canvas)(made, canvas.frames.float(), 0, canvas.weights.shape[1])
        assert torch.isnan(loss) and torch.isnan(squared)


@pytest.mark.usefixtures("one_thread")
def test_a_fit_gets_better_at_what_it_is_tuned_for() -> None:
    source = clip(64, 48, 4)
    qualities = {}
    for tune in TUNES:
        data, result = encode(source, steps=150, tune=tune, target=Target(bpp=1.0), seed=1)
        qualities[tune] = result.quality.frames["y"].mean(), decoded_similarity(data, source.planes[0])
    assert qualities["psnr"][0] > qualities["ssim"][0]
    assert qualities["psnr"][1] < qualities["ssim"][1]


def decoded_similarity(data: bytes, luma: NDArray[np.uint8]) -> float:
    return float(metric(np.concatenate([batch.planes[0] for batch in Decoder(io.BytesIO(data)).frames()]), luma).mean())
