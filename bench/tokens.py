"""What the tokens of VQ-NeRV are worth: always beside HNeRV's file of the same clip, bytes, passes, learning rate, loss and seed.

    python bench/tokens.py PART CLIP ... --scale 160x90 --frames 0:64 [--passes 40] [--seeds 3] [--bpp .1,.17,.3,.5] [--json OUT]
    python bench/tokens.py PART $NVC_CLIPS/bunny.mp4 --full --device cuda --json OUT

PART is one of:
- ablation: the paper's table: HNeRV, the block, the block with shallow codebook optimisation; of blocks `pooled` and `added`
- codebook: sizes of the codebook and of its entries
- forms: larger maps, several maps, the other blocks, and scalars in the place of tokens, which tokens have to beat
- usage: how many codes are used, with and without shallow codebook optimisation, where tokens are not chosen for their bits
- norm: the InstanceNorm of the published log, which cannot be exact, beside what stays of it; nothing rounded, no rate

`dB beside hnerv` takes off what a difference in bytes is worth, 3 dB a doubling (codec/search.py). After ± is the sample standard
deviation over seeds and clips: the chance of both fits is in it. BD-rate is that of rd_gain.py, PCHIP, of every clip and seed;
negative: smaller than HNeRV. Usage and perplexity are those of the file. `--full` is the published setting: 1280x640 of the
centre in RGB, 132 frames, 300 passes, files that go with networks of 0.35 to 3 million parameters.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jobs
import torch
from jobs import Job, Journal, Result, Source
from plain import RENDER, unfold
from provenance import record
from token_tables import Case, Outcome
from torch import Tensor
from torch.nn import functional

from nvc.bitstream.summary import summarise
from nvc.bitstream.tensors import MAX_LEVELS, Kind
from nvc.codec import target
from nvc.codec.canvas import to_canvas
from nvc.codec.config import PRESETS, Design, FitConfig, Tokens
from nvc.codec.decode import open_device
from nvc.codec.encode import EncodeOptions, encode
from nvc.codec.fit import Fit
from nvc.codec.geometry import Picture
from nvc.codec.metrics import Quality
from nvc.codec.models import vqnerv
from nvc.codec.models.vq_block import enlarge, fit_size
from nvc.codec.models.vq_pooled import Pooled
from nvc.codec.plan import plan_encode
from nvc.codec.target import Target
from nvc.codec.video import Clip, ReadOptions, read_clip

SEEDS = 3
PASSES, FULL_PASSES = 40, 300
CURVE, POINT = (0.1, 0.17, 0.3, 0.5), (0.2,)  # bpp
FULL_CURVE, FULL_POINT = (0.35e6, 0.75e6, 1.5e6, 3e6), (1.5e6,)  # weights and biases
FULL = ReadOptions(frames=(0, 132), crop=(1280, 640), pix_fmt="rgb24")
# maps of `forms`: a larger one, and two scales. At 160x90 a decoder has two blocks, so that both scales are at its one place; at
# 1280x640 a default map has all 10x20 positions of that place
LARGER, SCALES = ((1, 200),), ((1, 50), (2, 100))
FULL_LARGER, FULL_SCALES = ((2, 800),), ((1, 200), (2, 400))
TOKENS_PER_CODE = 16  # at least, for `usage`: with fewer a codebook cannot be used up
FIGURES = ("tokens", "bits_per_token", "codebook_rows", "codebook_levels", "codebook_usage", "perplexity")


class Normalised(Pooled):
    """With an InstanceNorm before the last convolution, for training: no program has one."""

    def forward(self, x: Tensor, before: Tensor | None, codes: Tensor) -> Tensor:
        y = self.second(enlarge(self.first(enlarge(codes, self.factors[0])), self.factors[1]))
        both = torch.cat([x, fit_size(y, self.size)], 1)
        out: Tensor = self.merge(functional.instance_norm(both) / self.merge.source.step)
        return out


@dataclass(frozen=True)
class Variant:
    """HNeRV where there are no `tokens`, VQ-NeRV with these otherwise.

    With `in_float`, that class is the block, weights and embeddings are not rounded, and there is no rate and no file.
    """

    name: str
    tokens: Tokens | None = None
    in_float: type[Pooled] | None = None

    def options(self, wanted: Target, passes: int, seed: int) -> EncodeOptions:
        """The encode of this variant."""
        config, model = jobs.exactly(PRESETS["draft"], passes), "vqnerv" if self.tokens else "hnerv"
        config = unrounded(config) if self.in_float else config
        return EncodeOptions(model, target=wanted, seed=seed, design=Design(tokens=self.tokens or Tokens()), config=config)


HNERV = Variant("hnerv")
AFFINE = Variant("affine", Tokens(block="pooled"), in_float=Pooled)
INSTANCE = Variant("InstanceNorm", Tokens(block="pooled"), in_float=Normalised)

Place = tuple[Source, Target]
"""What a variant may depend on."""


def ablation(place: Place, options: argparse.Namespace) -> list[Variant]:
    """The paper's rows, of two blocks."""
    return [
        Variant(f"{block}, {'with' if pool else 'without'} pool", Tokens(block=block, pool=pool))
        for block in ("pooled", "added")
        for pool in (False, True)
    ]


def codebook(place: Place, options: argparse.Namespace) -> list[Variant]:
    """Sizes of the codebook at one dimension, dimensions at one size."""
    sizes = [(levels, 8) for levels in (128, 256, 512, 1024)] + [(128, dimension) for dimension in (2, 4, 64)]
    return [Variant(f"{k} codes of {d}", Tokens(block=options.block, levels=k, dimension=d)) for k, d in sizes]


def forms(place: Place, options: argparse.Namespace) -> list[Variant]:
    """What else could carry the same bytes."""
    larger, scales = (FULL_LARGER, FULL_SCALES) if options.full else (LARGER, SCALES)
    return [
        Variant("added", Tokens()),
        Variant("added, larger map", Tokens(maps=larger)),
        Variant("added, two scales", Tokens(maps=scales)),
        Variant("added, residual tokens", Tokens(maps=((1, 0), (1, 0)))),
        Variant("paper", Tokens(block="paper")),
        Variant("pooled", Tokens(block="pooled")),
        Variant("added, scalars", Tokens(scalar=True, dimension=2)),
        Variant("pooled, scalars", Tokens(block="pooled", scalar=True, dimension=2)),
    ]


def usage(place: Place, options: argparse.Namespace) -> list[Variant]:
    """With and without pool, tokens by distance alone and no more codes than they could use."""
    return [
        Variant(f"{block}, {'with' if pool else 'without'} pool", tokens)
        for block in ("pooled", "added")
        for pool in (False, True)
        for tokens in [Tokens(block=block, levels=levels(place, block), pool=pool, priced=False)]
    ]


def levels(place: Place, block: str) -> int:
    """One code for TOKENS_PER_CODE tokens of the whole clip, as far as the format has so many."""
    source, wanted = place
    plan = plan_encode(source.clip, Variant(block, Tokens(block=block)).options(wanted, 1, 0))
    (first, last), *_ = plan.ranges  # the shortest segment: segments differ by a frame
    tokens = min(spec.count for spec in plan.analysis.specs(last - first) if spec.kind is Kind.TOKENS)
    return min(max(tokens // TOKENS_PER_CODE, 2), MAX_LEVELS)


def norm(place: Place, options: argparse.Namespace) -> list[Variant]:
    """Not against HNeRV: the first is what the second is compared with."""
    return [INSTANCE]


@dataclass(frozen=True)
class Part:
    """What is compared with `anchor`, at several rates or one, with so many seeds."""

    variants: Callable[[Place, argparse.Namespace], list[Variant]]
    curve: bool = False
    seeds: int = SEEDS
    anchor: Variant = HNERV


PARTS = {
    "ablation": Part(ablation, curve=True),
    "codebook": Part(codebook, seeds=1),
    "forms": Part(forms),
    "usage": Part(usage),
    "norm": Part(norm, anchor=AFFINE),
}


def plan(source: Source, variant: Variant, wanted: Target, seed: int, passes: int, device: torch.device) -> Job:
    """One fit."""
    options = variant.options(wanted, passes, seed)
    block = variant.in_float

    def run() -> Result:
        return fitted_in_float(source.clip, options, block, device) if block else encoded(source.clip, options, device)

    key = {"bench": "tokens", "clip": source.key, "device": device.type, "model": options.model, **jobs.settings(options)}
    size = f"{wanted.bpp:g} bpp" if wanted.bpp else f"{wanted.size:.0f} bytes"
    return Job(f"{source.name} {size} seed {seed}: {variant.name}", key | ({"in_float": block.__name__} if block else {}), run)


def encoded(clip: Clip, options: EncodeOptions, device: torch.device) -> Result:
    """Encode to memory: what jobs.encoded says, and of the file its sections in bytes and FIGURES."""
    file = io.BytesIO()
    result = encode(clip, file, options, device, lambda progress: None)
    file.seek(0)
    summary = summarise(file)
    return {
        "bytes": result.bytes,
        "target": result.target_bytes,
        **decibels(result.quality),
        "seconds": round(result.seconds, 2),
        **{name: summary[name] for name in FIGURES},
        "sections": summary["sections"],
    }


def decibels(quality: Quality) -> Result:
    """Means over the frames; that of RGB for both."""
    means, headline = quality.as_dict(), float(quality.headline.mean())
    return {"psnr_y": means.get("y", headline), "psnr_611": round(headline, 4)}


def unrounded(config: FitConfig) -> FitConfig:
    """Weights and embeddings stay real, and no bit is in the loss. Activations keep their 12 bits, as ever before rounding."""
    return replace(config, quantise_at=1.0, full_rate_at=2.0)


def fitted_in_float(clip: Clip, options: EncodeOptions, block: type[Pooled], device: torch.device) -> Result:
    """PSNR in dB, and seconds."""
    started = time.monotonic()
    fit = fit_in_float(clip, options, block, device)
    seconds = time.monotonic() - started
    return {**decibels(fitted_quality(fit, clip)), "seconds": round(seconds, 2)}


def fit_in_float(clip: Clip, options: EncodeOptions, block: type[Pooled], device: torch.device) -> Fit:
    """Run all steps of a fit with `block` in the place of `pooled`; what would be written at its end is left out."""
    made = plan_encode(clip, options)
    with torch.random.fork_rng(devices=[]), jobs.setting(vqnerv, "BLOCKS", vqnerv.BLOCKS | {"pooled": block}):
        torch.manual_seed(options.seed)
        assert isinstance(made.config, vqnerv.Config)
        network = vqnerv.Network(made.config)
    canvas = to_canvas(clip.planes, made.side, network.grid.size).to(device)
    fit = Fit(network, canvas, options.fit, made.bits, options.seed, options.tune)
    while fit.step < fit.steps:
        fit.advance()
    return fit


def fitted_quality(fit: Fit, clip: Clip) -> Quality:
    """Of all frames as the network of `fit` makes them from its encoders' latents."""
    fit.network.eval()  # codebooks stay where they are
    parts = [fit.made(index).round().to(torch.uint8) for index in torch.split(torch.arange(fit.frames), RENDER)]
    picture = Picture.of(clip.header)
    return Quality.of(clip.planes, unfold(torch.cat(parts), picture), rgb=picture.side == 1)


def sources(options: argparse.Namespace) -> list[Source]:
    """The clips of a command line."""
    if not options.full:
        return jobs.sources(options)
    reading = replace(FULL, frames=options.frames or FULL.frames)
    return [Source(f"{Path(name).name} in RGB", read_clip(name, reading)) for name in options.clips]


def targets(part: Part, options: argparse.Namespace) -> dict[str, Target]:
    """The sizes of the files, by what a table calls them."""
    if options.full and not options.bpp:
        bits = target.USUAL_BITS / target.SHARE
        return {f"{n / 1e6:g} M": Target(size=n * bits / 8) for n in (FULL_CURVE if part.curve else FULL_POINT)}
    return {f"{bpp:g} bpp": Target(bpp=bpp) for bpp in options.bpp or (CURVE if part.curve else POINT)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    jobs.add_arguments(parser, passes=0)
    parser.add_argument("--bpp", type=jobs.floats, help="of the files")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"0 to N - 1; {SEEDS} of them by default, 1 for codebook")
    parser.add_argument("--block", choices=vqnerv.BLOCKS, default=Tokens().block, help="of `codebook`")
    parser.add_argument("--full", action="store_true", help="the published setting, for a GPU")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    if options.full and options.scale:
        parser.error("--full has a size of its own: no --scale")
    torch.set_num_threads(options.threads)
    device, journal, part = open_device(options.device), Journal(options.json), PARTS[options.question]
    clips, sizes, seeds = sources(options), targets(part, options), range(options.seeds or part.seeds)
    passes = options.passes or (FULL_PASSES if options.full else PASSES)
    planned: dict[Case, Job] = {}
    for seed, source, (rate, wanted) in itertools.product(seeds, clips, sizes.items()):  # a seed's files belong together
        for variant in (part.anchor, *part.variants((source, wanted), options)):
            planned[source.key, rate, variant.name, seed] = plan(source, variant, wanted, seed, passes, device)
    jobs.run(list(planned.values()), journal, options.part)
    results = {case: result for case, job in planned.items() if (result := journal.result(job))}
    names = [name for name in dict.fromkeys(name for _, _, name, _ in planned) if name != part.anchor.name]
    outcome = Outcome(results, part.anchor.name, names, list(sizes), seeds)
    origin = record("tokens", options, given, "bjontegaard")
    print(f"{options.question}: {passes} passes, seeds 0 to {seeds[-1]}; {origin}")
    keys = [source.key for source in clips]
    for key in keys:
        print(f"{key}\n\n{outcome.differences([key])}")
        print(outcome.fits(key) if part.anchor.in_float else outcome.files(key))
    if len(keys) > 1:
        print(f"all {len(keys)} clips\n\n{outcome.differences(keys)}")


if __name__ == "__main__":
    main()
