"""The published HNeRV compression, step by step, as one rate-distortion curve: what a fit by nvc has to beat.

    python bench/published.py CLIP --scale 160x90 --frames 0:64 [--parameters 20000,40000] [--bits 4,5,6,7,8]
                              [--passes 120] [--lr 0.01] [--batch 1] [--prune 0.1] [--device cpu] [--json OUT]

Train (plain.py), prune decoder weights and fine-tune, quantise after training, entropy-code. Sources: Chen et al., CVPR
2023, and `quant_tensor` of haochen-rye/HNeRV: b bits between the smallest and the largest value of a tensor or of each slice
along one axis, whichever has the smaller mean error, an axis only if its slices are under 2 % of the values; fp16 side
information; one Huffman table for all symbols.

Where the sources leave a choice or a small loss, the baseline gets the better of it:
- The grid of the weights contains zero (multiples of the step that the range gives), so that a pruned weight stays zero and
  no slice needs its minimum. In the repository a pruned zero moves to the nearest code.
- Biases have 8 bits whatever the weights have.
- A file may do without axes (of the weights, of the embeddings), and an embedding value may have 4 or 5 bits besides the
  repository's 6 and the paper's 8. The table shows the best of these files (by DB_PER_DOUBLING), and * where no other row is
  as small and as good; `--json` has them all.
- The symbols cost what the cheaper coder takes: one global Huffman table, itself counted, or nvc's coder per tensor, which
  predicts embeddings from the frame before. So a comparison with nvc isolates the training, not the coder.
- nvc's container is counted as it is for nvc's file of the same clip in one segment, but for the multipliers, whose place the
  steps take.
- Values are decoded in float32, rounded once.
- Learning rate, batch and pruning are the best that were found, for bunny.mp4, 64 frames of 160x90, 45,685 parameters, 120
  passes (7 bits a weight, 6 an embedding value, no axes: bytes and 6:1:1). At 0.02 it diverges (15.5 dB).

      lr                  0.001          0.002          0.005           0.01
      batch 1    36909 B  32.32   36125  32.94   35789  33.41   34966  33.58   and 35308  33.02 with 10 % pruned
      batch 2    36355 B  31.47   36473  32.26   35859  32.99   36099  33.38

  The paper's are 0.001 and 2, for 300 passes. Pruning costs so small a network more than it saves; `--prune 0.1` turns it on.
"""

from __future__ import annotations

import argparse
import copy
import heapq
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, log2
from pathlib import Path

import numpy as np
import torch
from clips import open_clip, size, span
from jobs import integers
from numpy.typing import NDArray
from plain import PlainHNeRV, embed, render, train
from torch import Tensor

from nvc.bitstream.coders import choose
from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits
from nvc.codec.canvas import to_canvas
from nvc.codec.decode import open_device
from nvc.codec.geometry import Picture
from nvc.codec.metrics import Quality
from nvc.codec.models import hnerv
from nvc.codec.plan import EncodeOptions, overhead_bytes, plan_encode
from nvc.codec.video import Clip

BIAS_BITS = 8
EMBEDDING_BITS = (4, 5, 6, 8)
AXIS_SHARE = 0.02  # the repository's
SIDE_BITS = 16
DB_PER_DOUBLING = 3.0  # of the bytes: about what these curves rise by; it only chooses what to show
BOUND = 1 << 8  # of the magnitude of a decoder's code
LEAST_STEP = 2.0**-14  # the smallest normal number of fp16
LENGTH_BITS = 5  # of a Huffman code in the table


@dataclass(frozen=True)
class Quantised:
    """A tensor as sent: `codes` int64 stand for `least` + codes * `step`, both fp16 values that broadcast over an axis."""

    codes: Tensor
    step: Tensor
    least: Tensor | None

    @property
    def values(self) -> Tensor:
        """What is decoded, float32."""
        scaled = self.codes * self.step
        return scaled if self.least is None else scaled + self.least

    @property
    def side_bits(self) -> int:
        """Bits beside the codes."""
        return SIDE_BITS * (self.step.numel() + (0 if self.least is None else self.least.numel()))


@dataclass(frozen=True)
class Row:
    """One file: `parameters` are those of the decoder, `bits` those of a weight, `seconds` the training (of all its rows)."""

    parameters: int
    bits: int
    bytes: int
    bpp: float
    psnr_y: float
    psnr_611: float
    seconds: float
    embedding_bits: int
    axes: str
    coder: str


@dataclass(frozen=True)
class Trained:
    """A fitted decoder, its embeddings (T, 16, h, w), and the seconds it took."""

    network: PlainHNeRV
    embeddings: Tensor
    seconds: float


def quantise(values: Tensor, bits: int, *, axes: bool, zero: bool) -> Quantised:
    """Quantise to `bits` bits between minimum and maximum; over the whole, or along the axis with the least mean error.

    Without `axes`, over the whole only. With `zero`, codes are signed, a 0 stays 0 and no minimum is sent. No value is off
    by more than half a step.
    """
    values = values.detach().cpu().float()
    options = [_affine(values, bits, tuple(range(values.dim())), zero)]
    for axis, length in enumerate(values.shape if axes else ()):
        if 1 / length < AXIS_SHARE:
            options.append(_affine(values, bits, (axis,), zero))
    return min(options, key=lambda option: float((option.values - values).abs().mean()))


def _affine(values: Tensor, bits: int, axes: tuple[int, ...], zero: bool) -> Quantised:
    least, most = values.amin(axes, keepdim=True), values.amax(axes, keepdim=True)
    if zero:
        least, most = least.clamp(max=0), most.clamp(min=0)
    step = ((most - least) / (2**bits - 1)).clamp(min=LEAST_STEP).half().float()
    if zero:
        return Quantised((values / step).round().long(), step, None)
    least = least.half().float()
    return Quantised(((values - least) / step).round().long(), step, least)


def huffman_lengths(counts: Sequence[int]) -> list[int]:
    """Code lengths of a Huffman code for symbols with these counts; 0 for a symbol that never occurs, or is the only one."""
    heap: list[tuple[int, int, list[int]]] = [(count, i, [i]) for i, count in enumerate(counts) if count]
    heapq.heapify(heap)
    lengths = [0] * len(counts)
    for tie in itertools.count(len(counts)):
        if len(heap) == 1:
            return lengths
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, tie, left + right))
    raise AssertionError("unreachable")


def huffman_bits(codes: NDArray[np.int64]) -> int:
    """Bits of `codes` in one Huffman code, its table included: a length per symbol from the first to the last, canonical."""
    counts = np.bincount(codes - codes.min())
    lengths = huffman_lengths(counts.tolist())
    return int(counts @ np.array(lengths)) + LENGTH_BITS * len(counts) + 2 * SIDE_BITS  # where they start, how many


def tensor_bits(weights: Sequence[Quantised], embedding: Quantised, bits: int) -> float:
    """Bits of the same in nvc's coder: per tensor the shortest of its modes. `bits` are those of the embedding."""
    flat = [choose(tensor.codes.numpy().ravel(), BOUND).bits for tensor in weights]
    codes = embedding.codes.numpy() - (1 << bits >> 1)
    return sum(flat) + coded_bits(TensorSpec(Kind.EMBEDDING, codes.shape), codes)


def container_bytes(clip: Clip) -> float:
    """Bytes of an nvc file of `clip` in one segment, without weights, embeddings and multipliers."""
    options = EncodeOptions()
    plan = plan_encode(clip, options)
    parameters = [parameter for parameter in plan.analysis.parameters if parameter.kind is not Kind.MULTIPLIER]
    analysis = replace(plan.analysis, parameters=parameters)
    return overhead_bytes(clip, options, plan.model, analysis, [(0, len(clip.pts))])


@dataclass(frozen=True)
class Settings:
    """How a network is trained: every frame is seen `passes` times, `prune` is the share of zeroed decoder weights."""

    passes: int = 120
    batch: int = 1
    lr: float = 1e-2
    prune: float = 0.0
    seed: int = 0


def fit(clip: Clip, parameters: int, settings: Settings, device: torch.device) -> Trained:
    """Train one network of at most `parameters` decoder parameters, as `hnerv.plan` makes it."""
    picture = Picture.of(clip.header)
    config = hnerv.plan(picture, parameters)
    canvas = to_canvas(clip.planes, picture.side, config.grid.size).to(device)
    frames = len(canvas.frames)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = PlainHNeRV(config)

    def report(step: int, steps: int, psnr: float) -> None:
        if step == steps or step % 500 == 0:
            print(f"{parameters} parameters: step {step}/{steps} {psnr:.2f} dB", file=sys.stderr, flush=True)

    started = time.monotonic()
    total = -(-settings.passes * frames // min(settings.batch, frames))
    train(network, canvas, total, settings.batch, settings.lr, settings.seed, report, settings.prune)
    seconds = time.monotonic() - started
    return Trained(network, embed(network, canvas), seconds)


def compress(trained: Trained, clip: Clip, bits: int) -> list[Row]:
    """Quantise, count and decode what `fit` gave, at `bits` bits a weight: a file for each choice that is left."""
    rows = []
    picture, container = Picture.of(clip.header), container_bytes(clip)
    pixels = clip.header.width * clip.header.height * len(clip.pts)
    parameters = trained.network.transmitted()
    count = sum(p.numel() for p in parameters)
    for weight_axes, embedding_axes, embedding_bits in itertools.product((True, False), (True, False), EMBEDDING_BITS):
        decoder = [
            quantise(p, bits if p.dim() > 1 else BIAS_BITS, axes=weight_axes and p.dim() > 1, zero=True) for p in parameters
        ]
        embedding = quantise(trained.embeddings, embedding_bits, axes=embedding_axes, zero=False)
        sent = [*decoder, embedding]
        coders = {
            "huffman": huffman_bits(np.concatenate([tensor.codes.numpy().ravel() for tensor in sent])),
            "tensors": tensor_bits(decoder, embedding, embedding_bits),
        }
        coder = min(coders, key=lambda name: coders[name])
        total = ceil((coders[coder] + sum(tensor.side_bits for tensor in sent)) / 8 + container)
        network = copy.deepcopy(trained.network)
        for own, tensor in zip(network.transmitted(), decoder, strict=True):
            own.data.copy_(tensor.values)
        decoded = render(network, embedding.values)
        quality = Quality.of(clip.planes, decoded, rgb=picture.side == 1).as_dict()
        headline = quality["yuv611"] if picture.side == 2 else quality["rgb"]
        axes = "w" * any(tensor.step.numel() > 1 for tensor in decoder) + "e" * (embedding.step.numel() > 1)
        bpp, luma = 8 * total / pixels, quality.get("y", headline)
        rows.append(Row(count, bits, total, bpp, luma, headline, trained.seconds, embedding_bits, axes, coder))
    return rows


def best(rows: Sequence[Row]) -> Row:
    """The file to show of some that differ little in size."""
    return min(rows, key=lambda row: log2(row.bytes) - row.psnr_611 / DB_PER_DOUBLING)


def front(rows: Sequence[Row]) -> list[bool]:
    """Whether each row is on the Pareto front: none is both as small and as good."""

    def beats(a: Row, b: Row) -> bool:
        return a.bytes <= b.bytes and a.psnr_611 >= b.psnr_611 and (a.bytes, a.psnr_611) != (b.bytes, b.psnr_611)

    return [not any(beats(other, row) for other in rows) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", help="a file, or synthetic:zoom, synthetic:pan (clips.py)")
    parser.add_argument("--scale", type=size)
    parser.add_argument("--frames", type=span, metavar="A:B")
    parser.add_argument("--parameters", type=integers, default=(20_000, 40_000, 80_000, 160_000))
    parser.add_argument("--bits", type=integers, default=(4, 5, 6, 7, 8))
    for name, value in vars(Settings()).items():
        parser.add_argument("--" + name, type=type(value), default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args()
    settings = Settings(**{name: getattr(options, name) for name in vars(Settings())})
    clip, device = open_clip(options.clip, options.scale, options.frames), open_device(options.device)
    groups: list[list[Row]] = []
    for parameters in options.parameters:
        trained = fit(clip, parameters, settings, device)
        groups += [compress(trained, clip, bits) for bits in options.bits]
    how = f"{settings.passes} passes, batch {settings.batch}, lr {settings.lr:g}, {settings.prune:.0%} pruned, {device}"
    source = f"{Path(options.clip).name}, {len(clip.pts)} frames of {clip.header.width}x{clip.header.height}"
    print(f"{source}; {how}")
    names = f"{'parameters':>10}{'bits':>6}{'bytes':>8}{'bpp':>9}{'PSNR-Y':>8}{'6:1:1':>8}{'seconds':>9}"
    print(f"{names}  front, embedding, axes, coder")
    shown = [best(files) for files in groups]
    for row, leads in zip(shown, front(shown), strict=True):
        figures = f"{row.bytes:>8}{row.bpp:>9.4f}{row.psnr_y:>8.2f}{row.psnr_611:>8.2f}{row.seconds:>9.1f}"
        how = f"{'*' if leads else ' '} {row.embedding_bits} bits {row.axes or '-':<3}{row.coder}"
        print(f"{row.parameters:>10}{row.bits:>6}{figures}  {how}")
    if options.json:
        rows = list(itertools.chain(*groups))
        points = [asdict(row) | {"front": leads} for row, leads in zip(rows, front(rows), strict=True)]
        options.json.write_text(json.dumps({"source": source, **asdict(settings), "points": points}, indent=1) + "\n")


if __name__ == "__main__":
    main()
