"""How fast nvc fits and decodes beside a plain float32 loop, and beside what the device can do, all in one process.

    python bench/speed.py $NVC_CLIPS/bunny.mp4 --device cuda --json speed.jsonl [--parts ceilings,steps,psnr,decode,output]
                          [--launches eager,graph,compile] [--seconds 60] [--psnr 28,30,32,34,35]
                          [--parameters 1.5e6] [--crop 1280x640] [--frames 0:132] [--pix-fmt rgb24]
    python bench/speed.py --tiny

The subject is that of the papers: 132 frames, the centre 1280x640, RGB, HNeRV of 1.5 M parameters, 300 epochs.

- ceilings: products of matrices and copies, measured (ceilings.py).
- steps: speed of every phase of a fit (config.FitConfig) with every launch (launch.py), its share of the ceilings, and from that
  the seconds of each preset: the best launch of a preset is the one with which it ends first. A launch that fell back to another
  is shown with the reason, and not chosen.
- psnr: the published loop (plain.py: float32, batch 2, Adam 1e-3), nvc's fit without rounding, and its whole fit, each along a
  schedule of 300 epochs and for --seconds at most (and what compiling is known to take): after how many seconds does the PSNR of
  16 frames, as the network makes them then, reach the values of --psnr? Looking does not count. What a side did not finish is
  reckoned from its steps a second, and says so. (nvc's fit without rounding is in float32 in its last quarter, which is slower;
  a reckoning from bfloat16 steps does not see that.)
- decode: a random network of that shape, from a file in memory to uint8 planes in memory, beside plain float32.
- output: what sinks.py says of frames of that size.

Each result is a line of --json at once; a run that was cut off goes on with the same command. The tables show what there is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ceilings
import jobs
import speed_runs as runs
import speed_tables as tables
import torch
from clips import PREFIX, open_clip, size, span
from fit_speed import PHASES, Subject
from jobs import Job, Journal, Result, Source, names
from provenance import record

from nvc.bitstream.constants import PIXEL_FORMATS
from nvc.bitstream.errors import NvcError
from nvc.codec.config import LAUNCHES
from nvc.codec.decode import open_device
from nvc.codec.video import ReadOptions, read_clip

PARTS = ("ceilings", "steps", "psnr", "decode", "output")
COPY = "copy"
WINDOW = 1 / 20  # of --seconds for the steps of a phase: for all launches and phases half as long as for one side of `psnr`
DECODING = 1 / 3  # of --seconds
FRAMES = {"cpu": 8, "cuda": 1024}  # of what is decoded
FULL = {
    "parameters": 1.5e6,
    "seconds": 60.0,
    "crop": (1280, 640),
    "frames": (0, 132),
    "pix_fmt": "rgb24",
    "psnr": (28.0, 30.0, 32.0, 34.0, 35.0),
    "launches": LAUNCHES,
}
TINY = {
    "clip": f"{PREFIX}pan",
    "parameters": 3000.0,
    "seconds": 0.5,
    "crop": (64, 32),
    "frames": (0, 4),
    "pix_fmt": "yuv420p",
    "psnr": (12.0, 15.0, 18.0),
    "launches": ("eager", "graph"),  # compiling takes minutes on a CPU
}
TINY_FRAMES = 8


class Bench:
    """The jobs of a command line."""

    def __init__(self, options: argparse.Namespace, subject: Subject, device: torch.device) -> None:
        self.options, self.subject, self.device = options, subject, device
        self.name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    def _job(self, part: str, about: dict[str, Any], run: Any, clip: bool = True) -> Job:
        known = {"bench": "speed", "part": part, "device": self.name, "threads": self.options.threads, "torch": torch.__version__}
        if clip:
            known |= {"clip": self.subject.source.key, "parameters": self.subject.parameters}
        return Job(" ".join([part, *map(str, about.values())]), known | about, run)

    def ceilings(self) -> dict[str, Job]:
        """By the type of the products, and COPY."""
        sizes = ceilings.TINY if self.options.tiny else ceilings.SIZES[self.device.type]

        def product(kind: str) -> Result:
            return {"rate": ceilings.product(kind, self.device, sizes["side"])}

        def copy() -> Result:
            return {"rate": ceilings.copy(self.device, sizes["bytes"])}

        kinds = ceilings.kinds(self.device)
        made = {kind: self._job("ceilings", {"kind": kind, **sizes}, partial(product, kind), clip=False) for kind in kinds}
        return made | {COPY: self._job("ceilings", {"kind": COPY, **sizes}, copy, clip=False)}

    def work(self) -> dict[str, Job]:
        """By phase."""
        calls = {phase: partial(runs.counted, self.subject, phase, self.device) for phase in PHASES}
        return {phase: self._job("work", {"phase": phase}, call) for phase, call in calls.items()}

    def steps(self) -> dict[tuple[str, str], Job]:
        """By launch and phase."""
        seconds = round(self.options.seconds * WINDOW, 3)

        def job(launch: str, phase: str) -> Job:
            run = partial(runs.stepped, self.subject, launch, phase, seconds, self.device)
            return self._job("steps", {"launch": launch, "phase": phase, "seconds": seconds}, run)

        return {(launch, phase): job(launch, phase) for launch in self.options.launches for phase in PHASES}

    def races(self, launch: str, start: float) -> dict[str, Job]:
        """By side; nvc has the `start` seconds besides that its launch is known to take before the first step."""
        seconds = self.options.seconds

        def job(side: str) -> Job:
            plain = side == runs.PLAIN
            run = partial(runs.raced, self.subject, side, launch, seconds + (0 if plain else start), self.device)
            return self._job("psnr", {"side": side, "seconds": seconds, **({} if plain else {"launch": launch})}, run)

        return {side: job(side) for side in runs.SIDES}

    def decode(self) -> Job:
        """The one job of its part."""
        frames = TINY_FRAMES if self.options.tiny else FRAMES[self.device.type]
        seconds = round(self.options.seconds * DECODING, 3)
        run = partial(runs.decoded, self.subject, frames, seconds, self.device)
        return self._job("decode", {"decoded": frames, "seconds": seconds}, run)

    def output(self) -> Job:
        """What sinks.py prints; it is a script of its own, because it takes standard output away."""
        header = self.subject.source.clip.header
        command = ["--size", f"{header.width}x{header.height}"]
        command += ["--rgb"] if header.pixel_format == PIXEL_FORMATS["rgb24"] else []
        command += ["--tiny"] if self.options.tiny else []

        def run() -> Result:
            script = [sys.executable, str(Path(__file__).with_name("sinks.py"))]
            return {"text": subprocess.run([*script, *command], stdout=subprocess.PIPE, text=True, check=True).stdout}

        return self._job("output", {"arguments": command}, run, clip=False)


def run(bench: Bench, parts: Sequence[str], journal: Journal) -> tuple[tables.Found, str]:
    """Run what is missing of these parts; all results there are, and the launch of the races."""
    clip = bench.subject.source.clip
    found = tables.Found(len(clip.pts), min(runs.WHOLE.batch, len(clip.pts)))

    def results(part: str, planned: dict[Any, Job]) -> dict[Any, Result]:
        if part in parts:
            jobs.run(list(planned.values()), journal)
        return {name: result for name, job in planned.items() if (result := journal.result(job)) is not None}

    rates = {kind: result["rate"] for kind, result in results("ceilings", bench.ceilings()).items()}
    found.copy = rates.pop(COPY, None)
    found.products = rates
    found.work = results("steps", bench.work())
    for (launch, phase), result in results("steps", bench.steps()).items():
        found.steps.setdefault(launch, {})[phase] = result
    launch = tables.launch_of_races(found)
    start = found.steps.get(launch, {}).get("float", {"warm": 0.0})["warm"]
    found.races = results("psnr", bench.races(launch, start))
    found.decode = results("decode", {"decode": bench.decode()}).get("decode")
    try:
        found.output = results("output", {"output": bench.output()}).get("output", {}).get("text")
    except subprocess.CalledProcessError as error:
        print(f"speed.py: sinks.py failed with exit status {error.returncode}", file=sys.stderr)
    return found, launch


def source(options: argparse.Namespace) -> Source:
    """The clip of a command line; a synthetic one is 4:2:0."""
    first = options.frames[0]
    name = f"{Path(options.clip).name} in {options.pix_fmt}" + (f" from {first}" if first else "")
    if options.clip.startswith(PREFIX):
        return Source(name, open_clip(options.clip, options.crop, options.frames))
    return Source(name, read_clip(options.clip, ReadOptions(frames=options.frames, crop=options.crop, pix_fmt=options.pix_fmt)))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, with those that --tiny stands for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", metavar="CLIP", help="a file, or synthetic:zoom, synthetic:pan (clips.py)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", type=Path, metavar="OUT", help="results are appended to it; those it has are not run again")
    parser.add_argument("--parameters", type=float, help="of the decoder, at most")
    parser.add_argument("--launches", type=names(LAUNCHES), metavar="A,B", help=f"of {', '.join(LAUNCHES)}")
    parser.add_argument("--parts", type=names(PARTS), default=PARTS, metavar="A,B", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, help="of every side of psnr; the other parts take shares of it")
    parser.add_argument("--psnr", type=jobs.floats, metavar="A,B", help="values in dB")
    parser.add_argument("--crop", type=size, metavar="WxH")
    parser.add_argument("--frames", type=span, metavar="A:B")
    parser.add_argument("--pix-fmt", choices=PIXEL_FORMATS, help="of the fit; synthetic clips are yuv420p")
    parser.add_argument("--tiny", action="store_true", help="a small synthetic clip and little time: seconds on a CPU")
    options = parser.parse_args(arguments)
    for name, value in (TINY if options.tiny else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if not options.clip:
        parser.error("name a clip, or --tiny")
    if options.clip.startswith(PREFIX) and options.pix_fmt != "yuv420p":
        parser.error(f"{options.clip} is 4:2:0: give --pix-fmt yuv420p")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    options = parsed(given)
    torch.set_num_threads(options.threads)
    device = open_device(options.device)
    bench = Bench(options, Subject(source(options), round(options.parameters)), device)
    found, launch = run(bench, options.parts, Journal(options.json))
    print(f"{bench.subject.source.key}, HNeRV of {options.parameters:g} parameters at most; {record('speed', options, given)}")
    print(tables.document(found, options.psnr, launch))


if __name__ == "__main__":
    try:
        main()
    except NvcError as error:
        raise SystemExit(f"speed.py: {error}") from None
