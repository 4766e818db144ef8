"""How near files come to the size that was asked for.

    python bench/targets.py CLIP ... --scale 160x90 --frames 0:64 [--bpp .1,.25,.5] [--preset draft | --passes N] [--json OUT]

A file may be 2 % larger than its target and 5 % smaller.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import jobs
import torch
from jobs import Job, Journal, Source

from nvc.codec.config import PRESETS
from nvc.codec.decode import open_device
from nvc.codec.encode import EncodeOptions
from nvc.codec.target import Target

ABOVE, BELOW = 2.0, -5.0  # %, what is allowed


def plan(source: Source, bpp: float, options: argparse.Namespace, device: torch.device) -> Job:
    """One file."""
    preset = PRESETS[options.preset]
    config = replace(preset, passes=options.passes or preset.passes)
    encode = EncodeOptions(preset=options.preset, config=config, target=Target(bpp=bpp))
    key = {"bench": "targets", "clip": source.key, "device": device.type, **jobs.settings(encode)}
    return Job(f"{source.name} {bpp:g} bpp", key, lambda: jobs.encoded(source.clip, encode, device))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs.add_arguments(parser, passes=0)
    parser.add_argument("--bpp", type=jobs.floats, default=(0.1, 0.25, 0.5))
    parser.add_argument("--preset", choices=PRESETS, default="draft")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device, journal = open_device(options.device), Journal(options.json)
    planned = [(source, bpp, plan(source, bpp, options, device)) for source in jobs.sources(options) for bpp in options.bpp]
    jobs.run([job for *_, job in planned], journal, options.part)
    rows, deviations = [], []
    for source, bpp, job in planned:
        result = journal.result(job)
        if result is None:
            continue
        deviation = 100 * (result["bytes"] / result["target"] - 1)
        deviations.append(deviation)
        sizes = (f"{bpp:g}", f"{result['target']:.0f}", result["bytes"], f"{deviation:+.2f}")
        rows.append((source.key, *sizes, f"{result['psnr_y']:.2f}", f"{result['psnr_611']:.2f}", f"{result['seconds']:.0f}"))
    effort = f"{options.passes} passes" if options.passes else f"preset {options.preset}"
    print(f"{jobs.heading(options)}; {effort}\n")
    print(jobs.table(("clip", "bpp", "target", "bytes", "deviation %", "PSNR-Y", "6:1:1", "seconds"), rows))
    if deviations:
        within = all(BELOW <= deviation <= ABOVE for deviation in deviations)
        extremes = f"largest deviation above {max(*deviations, 0.0):+.2f} %, below {min(*deviations, 0.0):+.2f} %"
        print(f"{extremes}; {'all' if within else 'NOT all'} of {len(rows)} within {ABOVE:+g} / {BELOW:+g} %")


if __name__ == "__main__":
    main()
