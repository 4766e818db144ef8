"""No forward or backward pass of any network makes the host wait for a GPU, and a recorded one is the one that was recorded."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hostless import Tape
from nvc_files import planes_of
from torch import Tensor

from nvc.bitstream.header import PIXEL_FORMATS, Header
from nvc.codec.canvas import to_canvas
from nvc.codec.config import Design, Tokens
from nvc.codec.distortion import DISTORTIONS, SquaredError
from nvc.codec.geometry import Picture
from nvc.codec.latents import Latent
from nvc.codec.models import hnerv, vqnerv
from nvc.codec.resample import _weights

FRAMES = 6
HNERV = {
    "plain": Design(),
    "skip": Design(skip=True),
    "channel steps": Design(channel_steps=True, skip=True),
    "gelu": Design(activation="gelu"),
    "sine": Design(activation="sine"),
    "relu": Design(activation="relu"),
}
VQNERV = {
    "pooled": Tokens("pooled", 16, 4),
    "paper": Tokens("paper", 16, 4),
    "added": Tokens("added", 16, 4),
    "scalar": Tokens("added", dimension=4, scalar=True),
    "two maps": Tokens("added", 16, 4, ((0, 8), (2, 40))),
}
CASES = [
    *((name, "psnr", "yuv420p", True) for name in (*HNERV, *VQNERV)),
    *((name, "psnr", "yuv420p", False) for name in ("plain", "pooled", "paper")),
    *(("skip", "ssim", pixel_format, True) for pixel_format in PIXEL_FORMATS),
]


class Small:
    """A network whose latents have seen a clip once, and what a step takes."""

    def __init__(self, name: str, tune: str, pixel_format: str, *, rounded: bool) -> None:
        header = Header(96, 64, PIXEL_FORMATS[pixel_format], frame_rate=Fraction(25), frame_count=FRAMES)
        picture = Picture.of(header)
        torch.manual_seed(0)
        self.network: hnerv.Network
        if name in HNERV:
            self.network = hnerv.Network(hnerv.plan(picture, 6000, HNERV[name]))
        else:
            self.network = vqnerv.Network(vqnerv.plan(picture, 9000, Design(tokens=VQNERV[name])))
        canvas = to_canvas(planes_of(header, FRAMES), picture.side, self.network.grid.size)
        self.frames, self.distortion = canvas.frames, DISTORTIONS[tune](canvas)
        self.latents = [latent for latent in self.network.latents if isinstance(latent, Latent)]
        with torch.no_grad():
            tables, _ = self.reals(torch.arange(FRAMES))
        for latent, table in zip(self.latents, tables, strict=True):
            latent.begin(FRAMES, table)
            latent.observe(torch.ones(()))
            if rounded:
                latent.quantise = True
                latent.settle(table)
                latent.count(torch.full((), 0.01))
        if rounded:
            self.network.quantise()
        for layer in self.network.convolutions():
            layer.settle()

    def reals(self, index: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Real latents of frames `index`, and the embedding of the frames before as it is decoded."""
        frames = self.frames[index].float() / 255
        real = self.network.encode(frames)
        codes = self.latents[0](real, index)
        before = torch.cat([codes[:1], codes[:-1]]) if self.network.history else None
        return [real, *self.network.encode_details(frames, codes, before)], before

    def step(self, index: Tensor) -> Tensor:
        """Forward, backward, a little way down, and a projection; the loss."""
        reals, before = self.reals(index)
        codes = [latent(real, index) for latent, real in zip(self.latents, reals, strict=True)]
        loss, _ = self.distortion(self.network(codes, before), self.frames[index].float(), 0, self.frames.shape[2])
        for latent, real, code in zip(self.latents, reals, codes, strict=True):
            if (commitment := latent.commitment(real, code)) is not None:
                loss = loss + commitment
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=1e-6)
                    parameter.grad.zero_()
        for layer in self.network.convolutions():
            layer.project()
        return loss.detach()


@pytest.mark.parametrize(("name", "tune", "pixel_format", "rounded"), CASES)
def test_a_step_reads_nothing_on_the_host_and_can_be_replayed(name: str, tune: str, pixel_format: str, rounded: bool) -> None:
    eager, recorded = (Small(name, tune, pixel_format, rounded=rounded) for _ in range(2))
    index, tape = torch.zeros(2, dtype=torch.int64), Tape()
    losses, found = [], []
    for number, batch in enumerate(([0, 1], [2, 5], [4, 3], [0, 2])):
        index.copy_(torch.tensor(batch))
        losses.append(float(eager.step(index)))
        if number < 1:  # makes gradients and constants
            found.append(float(recorded.step(index)))
        elif number == 1:
            loss = tape.record(lambda: recorded.step(index))
            found.append(float(loss))
        else:
            tape.replay()
            found.append(float(loss))
    assert found == losses and len(set(losses)) == 4
    for (key, one), other in zip(eager.network.state_dict().items(), recorded.network.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


@pytest.mark.parametrize("name", [*HNERV, *VQNERV])
def test_a_step_stays_on_its_device(name: str) -> None:
    """The device that knows shapes alone mixes with no other, and has no values to read."""
    small = Small(name, "psnr", "yuv420p", rounded=True)
    small.network.to("meta")
    small.frames = small.frames.to("meta")
    assert isinstance(small.distortion, SquaredError)
    small.distortion.weights = small.distortion.weights.to("meta")
    loss = small.step(torch.zeros(2, dtype=torch.int64, device="meta"))
    assert loss.device.type == "meta"
    assert {value.device.type for value in small.network.state_dict().values()} == {"meta"}


def test_the_weights_of_an_enlargement_are_where_the_map_is() -> None:
    meta = torch.device("meta")
    assert _weights(4, 2, 2, meta).device == meta and _weights(4, 2, 2, torch.device("cpu")).device.type == "cpu"
