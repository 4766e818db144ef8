"""What 12-bit activations cost: the PSNR of a file as decoded, and with the activations of its network left unrounded.

    python bench/rounding_gap.py FILE.nvc SOURCE [--scale WxH] [--frames N]

Weights, biases and multipliers stay those of the file; only the samples of the head are rounded on the second side. Tables, of
which there are entries for integers alone, are lines between them there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from nvc.bitstream import arithmetic, tables
from nvc.bitstream.coefficients import read_sections
from nvc.bitstream.program import Operation
from nvc.codec import interpreter
from nvc.codec.decode import Decoder
from nvc.codec.interpreter import Interpreter
from nvc.codec.metrics import Planes, Quality
from nvc.codec.video import ReadOptions, read_clip

ROUND, FUNCTION = torch.Tensor.round_, interpreter._function


def between_entries(run: Interpreter, op: Operation) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function of a requantisation, for integers and what lies between them."""
    if op["function"] != arithmetic.TABLE:
        return FUNCTION(run, op)
    entries = torch.from_numpy(tables.table(op["argument"]).astype(np.float32)).to(run.device)

    def look_up(y: torch.Tensor) -> torch.Tensor:
        index = y.floor().long() - arithmetic.ACTIVATION_LOW
        return torch.lerp(entries[index], entries[(index + 1).clamp(max=len(entries) - 1)], y - y.floor())

    return look_up


def decoded(decoder: Decoder) -> Planes:
    """All frames, without comparing hashes."""
    parts = []
    for segment in decoder.reader.segments():
        analysis = decoder.analyses[segment.program]
        run = Interpreter(analysis, read_sections(analysis, segment), segment.frames, 1, decoder.device)
        parts += [run.render(t, 1) for t in range(segment.frames)]
    y, cb, cr = (np.concatenate(plane) for plane in zip(*parts, strict=True))
    return y, cb, cr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("source")
    parser.add_argument("--scale")
    parser.add_argument("--frames", type=int)
    options = parser.parse_args()
    width, _, height = (options.scale or "").partition("x")
    scale = (int(width), int(height)) if options.scale else None
    clip = read_clip(options.source, ReadOptions(frames=(0, options.frames), scale=scale))
    head = 6  # channels of a 4:2:0 canvas: only the head has so many

    def inside_unrounded(x: torch.Tensor) -> torch.Tensor:
        return ROUND(x) if x.shape[1] == head else x

    with options.file.open("rb") as file:
        decoder = Decoder(file)
        rounded = Quality.of(clip.planes, decoded(decoder), rgb=False).as_dict()
        rounding = mock.patch.object(torch.Tensor, "round_", inside_unrounded)
        with rounding, mock.patch.object(interpreter, "_function", between_entries):
            unrounded = Quality.of(clip.planes, decoded(decoder), rgb=False).as_dict()
    for name, value in rounded.items():
        print(f"{name:<8}{value:>9.4f} dB as decoded {unrounded[name]:>9.4f} dB unrounded {value - unrounded[name]:>+9.4f}")


if __name__ == "__main__":
    main()
