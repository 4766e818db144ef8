"""The fits of bench/bunny.py: which networks, how large, for which files, and in which order."""

from __future__ import annotations

import argparse
import json
import math
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jobs
import torch
from jobs import Source
from tokens import unrounded

from nvc.bitstream.tensors import Kind
from nvc.codec.canvas import to_canvas
from nvc.codec.config import PRESETS, Design, Tokens
from nvc.codec.encode import EncodeOptions
from nvc.codec.fit import Fit
from nvc.codec.geometry import Grid
from nvc.codec.models import FAMILIES, hnerv
from nvc.codec.plan import Plan, plan_encode
from nvc.codec.target import AIM, SHARE, USUAL_BITS, Target
from nvc.codec.video import Clip

FITS = ("float", "file")
FIRST = 1.5  # million: the size of both papers' ablations, and of the log
PRESET = "medium"  # has the papers' passes
TOKENS = Tokens(block="pooled", levels=512, dimension=8)
LATENTS = (Kind.EMBEDDING, Kind.TOKENS, Kind.CODEBOOK)
STEM = 9  # HNeRV's formula counts the stem as if it were 3x3


@dataclass(frozen=True)
class Cell:
    """One fit of the table: `source` by the network that `options` plan, `how` is one of FITS, `parameters` are millions."""

    source: Source
    parameters: float
    options: EncodeOptions
    how: str
    device: torch.device

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.options.model} {self.parameters:g} M {self.how}"

    @property
    def key(self) -> dict[str, Any]:
        """What the result depends on."""
        asked = {"bench": "bunny", "clip": self.source.key, "model": self.options.model, "parameters": self.parameters}
        return {**asked, "as": self.how, "device": self.device.type, **jobs.settings(self.options)}

    @cached_property
    def name(self) -> str:
        """The key as text (jobs.Job)."""
        return json.dumps(self.key, sort_keys=True)

    @property
    def place(self) -> str:
        """The name of a folder: no two keys share one."""
        return f"{self.label.replace(' ', '-')}-{zlib.crc32(self.name.encode()):08x}"

    @cached_property
    def plan(self) -> Plan:
        """Of the encode."""
        return plan_encode(self.source.clip, self.options)

    @property
    def counted(self) -> int:
        """Parameters as the papers count them."""
        return decoder_parameters(self.plan, self.options) + latent_numbers(self.plan)

    def start(self) -> Fit:
        """The fit before its first step, as `encode` starts that of its only segment."""
        options, plan = self.options, self.plan
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network = FAMILIES[options.model].Network(plan.config)
        canvas = to_canvas(self.source.clip.planes, plan.side, network.grid.size).to(self.device)
        return Fit(network, canvas, options.fit, plan.bits, options.seed, options.tune)


def sized(clip: Clip, model: str, parameters: float, passes: int) -> EncodeOptions:
    """The encode to a file whose network is the one for so many parameters."""
    config = jobs.exactly(PRESETS[PRESET], passes)
    design = Design(tokens=TOKENS) if model == "vqnerv" else Design()
    options = EncodeOptions(model, PRESET, segment=len(clip.pts), design=design, config=config)
    usual = plan_encode(clip, options)
    assert isinstance(usual.config, hnerv.Config)
    left = parameters - latent_numbers(usual)
    first = width(usual.config.grid, usual.config.embedding_channels, left)
    wanted = replace(usual.config, widths=hnerv.configure(usual.config.picture, first, design).widths)
    count = FAMILIES[model].decoder_parameters(wanted)
    overhead = AIM * usual.total_bytes - usual.bits / 8
    # the plan takes the widest network of at most so many weights: one more than it has, lest rounding takes one away
    options = replace(options, target=Target(size=((count + 1) * USUAL_BITS / SHARE / 8 + overhead) / AIM))
    if plan_encode(clip, options).config != wanted:
        raise ValueError(f"{model} with {parameters:g} parameters: no size of a file leads to {first} channels")
    return options


def width(grid: Grid, embedding: int, parameters: float) -> int:
    """Channels of the first block for so many `parameters` of a decoder whose embedding has `embedding` channels.

    This is what HNeRV's repository solves (train_nerv_all.py): a width w makes a w^2 weights of blocks and b w of the stem.
    """
    shrunk = [hnerv.REDUCTION ** -(2 * i + 1) for i in range(len(grid.strides))]
    a = sum(s * h * w * hnerv.kernel(i) ** 2 for i, (s, (h, w)) in enumerate(zip(shrunk, grid.strides, strict=True)))
    b = STEM * embedding
    return max(int((math.sqrt(b * b + 4 * a * max(parameters, 0.0)) - b) / (2 * a)), hnerv.SMALLEST)


def decoder_parameters(plan: Plan, options: EncodeOptions) -> int:
    """Weights and biases of the network of a plan."""
    count: int = FAMILIES[options.model].decoder_parameters(plan.config)
    return count


def latent_numbers(plan: Plan) -> int:
    """Numbers of all embeddings, tokens and codebooks of a plan's one segment."""
    ((first, last),) = plan.ranges
    return sum(spec.count for spec in plan.analysis.specs(last - first) if spec.kind in LATENTS)


def cells(source: Source, options: argparse.Namespace, device: torch.device) -> list[Cell]:
    """All of the table, what is worth most first."""
    made = []
    for parameters in options.parameters:
        for model in options.models:
            file = sized(source.clip, model, round(parameters * 1e6), options.passes)
            for how in options.fits:
                fitted = file if how == "file" else replace(file, config=unrounded(file.fit))
                made.append(Cell(source, parameters, fitted, how, device))
    return sorted(made, key=lambda cell: (FITS.index(cell.how), cell.parameters != FIRST, cell.parameters))
