"""For tanh, sigmoid and exp of the `paper` block: the tables of the format beside piecewise linear forms, which are clamps.

    python bench/gates.py CLIP ... --scale 192x108 --frames 0:32 [--passes 40] [--seeds 3] [--bpp .2] [--json OUT]

For each clip and seed the same encode twice, at equal bytes; each file is decoded five times, the median counts. The forms have
the slope of the functions at 0 and the limits of the tables: clamp(x, -1, 1), clamp(1/2 + x/4, 0, 1) and clamp(1 + x, 0, 7.4).
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import ModuleType

import jobs
import torch
from jobs import Job, Journal, Result, Source
from token_tables import gain, spread

from nvc.bitstream import arithmetic
from nvc.codec import coupling
from nvc.codec.activations import Activation
from nvc.codec.config import PRESETS, Design, Tokens
from nvc.codec.decode import Decoder, open_device
from nvc.codec.encode import EncodeOptions, encode
from nvc.codec.models import vq_paper
from nvc.codec.target import Target

REPEATS = 5
ONE = vq_paper.TANH.out_step


class Straight(coupling.Coupling):
    """With a gain of 1 + x in the place of exp(x)."""

    def __init__(self, channels: int, hidden: int, activation: Activation) -> None:
        super().__init__(channels, hidden, activation)
        with torch.no_grad():
            self.gain.second.bias.fill_(1.0)


PIECEWISE: tuple[tuple[ModuleType, str, object], ...] = (
    (vq_paper, "TANH", Activation(arithmetic.IDENTITY, 0, -2047, 2047, ONE, ONE)),
    # the convolution brings 1/4 and 1/2 along: its weights and its bias are learned
    (vq_paper, "SIGMOID", Activation(arithmetic.IDENTITY, 0, 0, 2047, ONE, ONE)),
    (vq_paper, "FIRST_WEIGHT", 0.12),  # what the sigmoid makes of the -2 that stands there
    (coupling, "EXP", Activation(arithmetic.IDENTITY, 0, 0, 1891, coupling.EXP.out_step, coupling.EXP.out_step)),
    (vq_paper, "Coupling", Straight),
)


def plan(source: Source, piecewise: bool, options: EncodeOptions, device: torch.device) -> Job:
    """Encode, and time the decoder."""

    def run() -> Result:
        with ExitStack() as stack:
            for owner, name, value in PIECEWISE if piecewise else ():
                stack.enter_context(jobs.setting(owner, name, value))
            file = io.BytesIO()
            result = encode(source.clip, file, options, device, lambda progress: None)
        speeds = [frames_per_second(file, device) for _ in range(REPEATS)]
        return {"bytes": result.bytes, "psnr_611": round(result.psnr, 4), "fps": round(statistics.median(speeds), 1)}

    key = {"bench": "gates", "clip": source.key, "device": device.type, "piecewise": piecewise, **jobs.settings(options)}
    return Job(f"{source.name} seed {options.seed}: {'piecewise' if piecewise else 'tables'}", key, run)


def frames_per_second(file: io.BytesIO, device: torch.device) -> float:
    """To memory, hashes compared."""
    file.seek(0)
    decoder = Decoder(file, device)
    started = time.monotonic()
    frames = sum(len(batch.planes[0]) for batch in decoder.frames())
    return frames / (time.monotonic() - started)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs.add_arguments(parser, passes=40)
    parser.add_argument("--bpp", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device, journal = open_device(options.device), Journal(options.json)
    rows = []
    for source in jobs.sources(options):
        pairs = []
        for seed in range(options.seeds):
            chosen = EncodeOptions(
                "vqnerv",
                target=Target(bpp=options.bpp),
                seed=seed,
                design=Design(tokens=Tokens(block="paper")),
                config=jobs.exactly(PRESETS["draft"], options.passes),
            )
            pair = [plan(source, piecewise, chosen, device) for piecewise in (False, True)]
            jobs.run(pair, journal, options.part)
            pairs.append([journal.result(job) for job in pair])
        done = [(tables, straight) for tables, straight in pairs if tables and straight]
        gains = [gain(straight, tables) for tables, straight in done]
        speeds = [straight["fps"] / tables["fps"] for tables, straight in done]
        rows.append((source.key, spread(gains), spread(speeds, ".2f")))
    print(jobs.heading(options) + "\n")
    print(jobs.table(("piecewise beside tables", "dB at equal bytes", "frames per second, ratio"), rows))


if __name__ == "__main__":
    main()
