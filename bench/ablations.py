"""What each choice behind the presets is worth: variants of one setting at a time, on the same clips, size and passes.

    python bench/ablations.py CLIP ... --scale 160x90 --frames 0:64 [--bpp 0.2] [--passes 60] [--seeds 0,1]
                              [--only optimiser,skip] [--json OUT]

Files differ a little in size, so `dB at equal bytes` is the 6:1:1 less 3 dB for every doubling of the bytes over the default's
file of that clip and seed, and less the default's own: the mean over clips and seeds, beside it the least and the largest.
Fits of seeds 0 and 1 tell how much of a difference is chance (`deviation`: bytes beside the target).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import log2
from types import ModuleType
from typing import Any

import jobs
import torch
from jobs import Job, Journal, Result, Source

from nvc.codec import fit, layers, target
from nvc.codec.config import PRESETS, Design, FitConfig
from nvc.codec.decode import open_device
from nvc.codec.encode import EncodeOptions
from nvc.codec.target import Target

DB_PER_DOUBLING = 3.0  # about what these curves rise by (codec/search.py)
CONSTANTS: dict[str, ModuleType] = {"INITIAL_GAIN": layers, "RATE_EVERY": fit, "USUAL_BITS": target}
BASE = PRESETS["fast"]


@dataclass(frozen=True)
class Variant:
    """Fields of FitConfig and Design, and CONSTANTS, that differ from the defaults.

    With `equal_steps`, passes are such that there are as many steps as by default.
    """

    name: str
    fit: dict[str, Any] = field(default_factory=dict)
    design: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)
    equal_steps: bool = False

    def options(self, passes: int, bpp: float, seed: int) -> EncodeOptions:
        """The encode of this variant."""
        config: FitConfig = replace(jobs.exactly(BASE, passes), **self.fit)
        if self.equal_steps:
            config = replace(config, passes=round(passes * config.batch * config.band / (BASE.batch * BASE.band)))
        return EncodeOptions(
            target=Target(bpp=bpp), seed=seed, design=replace(Design(), **self.design), prune=config.prune, config=config
        )


DEFAULT = Variant("default")


def _timing(quantise: float, full: float) -> Variant:
    return Variant(f"rounding at {quantise:g}, full rate at {full:g}", {"quantise_at": quantise, "full_rate_at": full})


def _adam(lr: float) -> Variant:
    # learned steps and latents keep the learning rates they have with Muon
    others = {name: BASE.lr * getattr(BASE, name) / lr for name in ("step_lr", "latent_lr")}
    return Variant(f"adam, lr {lr:g}", {"optimiser": "adam", "lr": lr, **others})


QUESTIONS: dict[str, tuple[Variant, ...]] = {
    "optimiser": (Variant("muon", {"optimiser": "muon"}), *(_adam(lr) for lr in (2e-3, 5e-3, 1e-2))),
    "activation": tuple(Variant(name, design={"activation": name}) for name in ("hswish", "relu", "gelu", "sine")),
    "skip": tuple(Variant(name, design={"skip": on}) for name, on in (("off", False), ("on", True))),
    "channel_steps": (
        Variant("a step for a tensor", design={"channel_steps": False}),
        Variant("a step for an output channel", design={"channel_steps": True}),
    ),
    "rate": tuple(_timing(*at) for at in ((0.02, 0.2), (0.15, 0.35), (0.4, 0.6), (0.7, 0.8))),
    "batch": (
        *(Variant(f"batch {n}, equal passes", {"batch": n}) for n in (1, 2, 4)),
        *(Variant(f"batch {n}, equal steps", {"batch": n}, equal_steps=True) for n in (1, 2, 4) if n != BASE.batch),
        *(
            Variant(f"batch {n * BASE.batch}, bands of 1/{n}, both equal", {"batch": n * BASE.batch, "band": BASE.band / n})
            for n in (2, 4)
        ),
    ),
    "prune": tuple(Variant(f"{share:.0%} pruned", {"prune": share}) for share in (0.0, 0.1, 0.3, 0.5)),
    "gain": tuple(Variant(f"initial gain {gain:g}", constants={"INITIAL_GAIN": gain}) for gain in (0.1, 0.2, 0.5, 1.4)),
    "bits": tuple(Variant(f"{bits:g} bits a weight", constants={"USUAL_BITS": bits}) for bits in (2.5, 3.0, 3.7, 4.5)),
    "matrix_lr": tuple(Variant(f"matrix lr {lr:g}", {"matrix_lr": lr}) for lr in (1e-2, 2e-2, 3e-2, 5e-2)),
    "weight_decay": tuple(Variant(f"weight decay {decay:g}", {"weight_decay": decay}) for decay in (0.0, 0.05, 0.1, 0.2)),
    "momentum": tuple(Variant(f"momentum {momentum:g}", {"momentum": momentum}) for momentum in (0.7, 0.85, 0.95)),
    "latent_lr": tuple(Variant(f"latents at {share:g} of the learning rate", {"latent_lr": share}) for share in (1.0, 3.0, 10.0)),
    "rate_every": tuple(Variant(f"rate every {k} steps", constants={"RATE_EVERY": k}) for k in (1, 4, 8)),
}


def plan(source: Source, variant: Variant, seed: int, options: argparse.Namespace, device: torch.device) -> Job:
    """One file; variants that come to the same are the same job."""
    encode = variant.options(options.passes, options.bpp, seed)
    constants = {name: getattr(module, name) for name, module in CONSTANTS.items()} | variant.constants

    def run() -> Result:
        with ExitStack() as stack:
            for name, value in variant.constants.items():
                stack.enter_context(jobs.setting(CONSTANTS[name], name, value))
            return jobs.encoded(source.clip, encode, device)

    key = {"bench": "ablations", "clip": source.key, "device": device.type, "constants": constants, **jobs.settings(encode)}
    return Job(f"{source.name} seed {seed}: {variant.name}", key, run)


def row(name: str, pairs: Sequence[tuple[Result, Result]], wanted: int) -> list[object]:
    """A line of a table from the results of a variant, each with the default's; `wanted` is how many there should be."""
    if not pairs:
        return [name, *["not run"] * 8]
    gains = [
        own["psnr_611"] - default["psnr_611"] - DB_PER_DOUBLING * log2(own["bytes"] / default["bytes"]) for own, default in pairs
    ]
    means = {key: statistics.fmean(own[key] for own, _ in pairs) for key in ("bytes", "psnr_y", "psnr_611", "seconds")}
    deviation = statistics.fmean(100 * (own["bytes"] / own["target"] - 1) for own, _ in pairs)
    return [
        name,
        f"{means['bytes']:.0f}",
        f"{deviation:+.1f}",
        f"{means['psnr_y']:.2f}",
        f"{means['psnr_611']:.2f}",
        f"{means['seconds']:.0f}",
        f"{statistics.fmean(gains):+.2f}",
        f"{min(gains):+.2f} to {max(gains):+.2f}",
        len(pairs) if len(pairs) == wanted else f"{len(pairs)} of {wanted}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs.add_arguments(parser, passes=60)
    parser.add_argument("--bpp", type=float, default=0.2)
    parser.add_argument("--seeds", type=jobs.integers, default=(0, 1))
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(QUESTIONS), help=f"of {', '.join(QUESTIONS)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(QUESTIONS):
        parser.error(f"--only {','.join(sorted(unknown))}: the questions are {', '.join(QUESTIONS)}")
    torch.set_num_threads(options.threads)
    device, journal = open_device(options.device), Journal(options.json)
    fits = [(source, seed) for source in jobs.sources(options) for seed in options.seeds]

    def planned(variant: Variant) -> list[Job]:
        return [plan(source, variant, seed, options, device) for source, seed in fits]

    defaults = planned(DEFAULT)
    variants = [variant for name in options.only for variant in QUESTIONS[name]]
    jobs.run([*defaults, *(job for variant in variants for job in planned(variant))], journal, options.part)
    clips = ", ".join(dict.fromkeys(source.key for source, _ in fits))
    constants = ", ".join(f"{name} {getattr(module, name):g}" for name, module in CONSTANTS.items())
    how = f"{options.bpp:g} bpp, {options.passes} passes, seeds {','.join(map(str, options.seeds))}"
    print(f"{jobs.heading(options)}; {clips}; {how}; {constants}\n")
    columns = ("bytes", "deviation %", "PSNR-Y", "6:1:1", "seconds", "dB at equal bytes", "least to largest", "fits")
    for name in options.only:
        rows = []
        asked = QUESTIONS[name]
        if not any(planned(variant)[0].name == defaults[0].name for variant in asked):
            asked = (DEFAULT, *asked)
        for variant in asked:
            own = planned(variant)
            same = variant is not DEFAULT and own[0].name == defaults[0].name
            results = [(journal.result(a), journal.result(b)) for a, b in zip(own, defaults, strict=True)]
            pairs = [(a, b) for a, b in results if a is not None and b is not None]
            rows.append(row(variant.name + (" (default)" if same else ""), pairs, len(fits)))
        print(jobs.table((name, *columns), rows))


if __name__ == "__main__":
    main()
