"""Decode speed: the integer decoder beside the same network as plain float32 torch, in one run, as a ratio.

    python bench/decode_speed.py [--device cpu] [--threads N] [--size 640x320] [--seconds 4]

Weights are random: speed does not depend on them. Both sides render batches of the same size from embeddings to uint8
planes in memory, in turns, so that whatever else the machine does hits both. The plain side is what one would write in
PyTorch: convolution, activation, depth to space, channels_last, inference mode, no rounding before the end.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nvc.bitstream.analysis import Analysis, analyse
from nvc.bitstream.constants import Limits
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder
from nvc.codec.config import Design
from nvc.codec.decode import CPU_BATCH, CUDA_BATCH, open_device
from nvc.codec.geometry import Picture
from nvc.codec.interpreter import Interpreter
from nvc.codec.layers import QuantConv, shuffle
from nvc.codec.models import hnerv

FRAMES = 64
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "hswish": lambda x: x * (x + 1).clamp_(0, 2) / 2,
    "relu": functional.relu_,
    "gelu": functional.gelu,
}
PARAMETERS = (120_000, 400_000, 1_500_000)


def plain(network: hnerv.Network, codes: Tensor, device: torch.device) -> Callable[[int, int], object]:
    """The network in ordinary float32: frames first .. first + count - 1 as uint8 planes."""

    def layer(conv: QuantConv) -> tuple[Tensor, Tensor]:
        weight = (conv.codes() * conv.step()).detach().to(device).contiguous(memory_format=torch.channels_last)
        return weight, conv.bias.detach().to(device)

    convolutions = [layer(conv) for conv in (network.stem, *network.blocks)]
    head = layer(network.head)
    embeddings = (codes / 16).to(device)
    picture = network.config.picture
    activate = ACTIVATIONS[network.config.design.activation]

    def render(first: int, count: int) -> object:
        with torch.inference_mode():
            x = embeddings[first : first + count].contiguous(memory_format=torch.channels_last)
            for i, (weight, bias) in enumerate(convolutions):
                x = activate(functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2))
                if i:
                    x = shuffle(x, network.config.grid.strides[i - 1])
            x = functional.conv2d(x, *head, padding=1).mul_(255).round_().clamp_(0, 255)
            luma = picture.side**2
            planes = [shuffle(x[:, :luma], (picture.side, picture.side)), x[:, luma : luma + 1], x[:, luma + 1 :]]
            return [
                plane[:, 0, :h, :w].to(torch.uint8).cpu().numpy() for plane, (h, w) in zip(planes, picture.shapes, strict=True)
            ]

    return render


def measure(sides: list[Callable[[int, int], object]], batch: int, seconds: float) -> list[float]:
    """Median seconds a frame of each side, taken in turns for about `seconds` in all."""
    times: list[list[float]] = [[] for _ in sides]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[0]) < 5:
        for side, taken in zip(sides, times, strict=True):
            started = time.perf_counter()
            for first in range(0, FRAMES, batch):
                side(first, min(batch, FRAMES - first))
            taken.append((time.perf_counter() - started) / FRAMES)
    return [statistics.median(taken[1:]) for taken in times]


def build(width: int, height: int, parameters: int, activation: str) -> tuple[hnerv.Network, Analysis, list[np.ndarray], Tensor]:
    """A quantised random network with its program."""
    header = Header(width=width, height=height, pixel_format=0, frame_rate=Fraction(25), frame_count=FRAMES)
    torch.manual_seed(0)
    network = hnerv.Network(hnerv.plan(Picture.of(header), parameters, Design(activation=activation)))
    network.quantise()
    for conv in network.convolutions():
        conv.settle()
    codes = torch.randint(-40, 41, (FRAMES, 16, *network.grid.embedding)).float()
    builder = Builder("hnerv")
    network.emit(builder, [[codes.numpy().astype(np.int64)]])
    return network, analyse(builder.program(), Limits()), builder.tensors, codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", default="640x320")
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = open_device(options.device)
    batch = CUDA_BATCH if device.type == "cuda" else CPU_BATCH
    width, height = (int(side) for side in options.size.split("x"))
    print(f"{width}x{height}, {device}, {options.threads} threads, batch {batch}, torch {torch.__version__}")
    print(f"{'network':<24}{'MAC/px':>8}{'nvc fps':>10}{'float fps':>11}{'nvc GMAC/s':>12}{'ratio':>8}")
    for activation in ACTIVATIONS:
        for parameters in PARAMETERS:
            network, analysis, tensors, codes = build(width, height, parameters, activation)
            run = Interpreter(analysis, tensors, FRAMES, batch, device)
            ours, theirs = measure([run.render, plain(network, codes, device)], batch, options.seconds)
            name = f"{activation} {hnerv.decoder_parameters(network.config) / 1e3:.0f} k"
            rates = f"{1 / ours:>10.1f}{1 / theirs:>11.1f}{analysis.macs / ours / 1e9:>12.1f}{theirs / ours:>8.2f}"
            print(f"{name:<24}{analysis.macs / width / height:>8.0f}{rates}", flush=True)


if __name__ == "__main__":
    main()
