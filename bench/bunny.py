"""The field's own table: HNeRV and VQ-NeRV on Bunny, their float PSNR as the papers have it and, beside it, real files.

    python bench/bunny.py $NVC_CLIPS/bunny.mp4 --device cuda --json bunny.jsonl --state state --files files --together 4

The clip is the papers': 132 frames, of which the centre of 1280x640 is taken, in RGB. Each network is fitted twice, from seed 0
and as often as they do, 300 times every frame:
- `float`: nothing is rounded and no bit counts. PSNR is the mean over the frames of that of all three planes.
- `file`: the very fit of `nvc encode --preset medium` at the size for which it plans just this network. Bytes are those of the
  whole file; PSNR, taken alike, is that of the file as decoded, all of whose frames have the hashes that it tells.

Published: HNeRV, in Chen et al., "HNeRV: A Hybrid Neural Representation for Videos", CVPR 2023; VQ-NeRV, in Xu et al., "VQ-NeRV:
A Vector Quantized Neural Representation for Videos", 2024, table 1. Its public training log ends at 36.82 dB with 1.5 M.

Parameters are counted as there: the decoder and what is sent of every frame, not the encoder. The first block has the width that
the formula of HNeRV's repository gives to a number of parameters (bunny_cells.width); it comes out a little beside that number,
and `counted` is what it is. Of VQ-NeRV a token is one number and an entry of the codebook 8, which all leave less to the decoder;
the weights of its block come on top, as in the log, where 1.5 M are 1.55 M.

The block of VQ-NeRV is `pooled`, with 512 codes of 8 numbers and the pool: that of the log, which its figure belongs to. The
default of `nvc encode --model vqnerv` is `added` with 128 codes, smaller, of which nothing is published.

What differs from the papers, in both fits:
- The decoder is nvc's: a quadratic hard-swish for GELU, a linear clamped output for the tanh, 12 bits an activation and 8 a
  sample, in `float` too, where the papers round nothing; no InstanceNorm before tokens are merged.
- The fit is nvc's: Muon for convolutions, Adam for the rest, other learning rates. On CUDA convolutions are in bfloat16 in the
  first 75 % of the steps, and the encoders in all. The loss is the squared error of batches of two frames, which is HNeRV's;
  VQ-NeRV's is 0.7 L1 + 0.3 (1 - SSIM).
- The last state counts; HNeRV's repository prints the best one of all that it looks at.

A run may end at any moment: fits are saved in --state every --save seconds, in files under 15 MB, and the same command goes on
with them, bit for bit. --minutes ends it in time for a machine that is lent, as SIGTERM does. A result is one line of --json at
once. With --together several networks are fitted in turns on one device, which a small one does not fill; the seconds of each are
then those of all. The table comes last.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import torch
from bunny_cells import FITS, Cell, cells, decoder_parameters
from bunny_table import PASSES, PUBLISHED, table
from clips import open_clip
from jobs import Journal, Result, Source
from plain import RENDER, unfold
from provenance import commit, processor, record
from tokens import FULL

from nvc.bitstream.constants import PIXEL_FORMATS
from nvc.bitstream.errors import InputError, NvcError
from nvc.codec import checkpoint
from nvc.codec.canvas import Planes
from nvc.codec.checkpoint import Keeper
from nvc.codec.decode import Decoder, open_device
from nvc.codec.encode import encode
from nvc.codec.fit import Fit, Progress
from nvc.codec.launch import Eager
from nvc.codec.metrics import Quality
from nvc.codec.video import Clip, read_clip

SAVE = 60.0  # seconds of fitting that a kill may lose
RESERVE = 30.0  # seconds of --minutes, or a tenth of it, to save and to measure what has just ended
TINY_SIZE, TINY_FRAMES, TINY_PASSES, TINY_PARAMETERS = (48, 32), (0, 4), 10, (0.01,)


# ---- a fit on its way


@dataclass
class Told:
    """What is known of a fit besides its state: `seconds` of its steps so far, with how many it shared them, and its notes."""

    seconds: float = 0.0
    together: int = 1
    notes: list[str] = field(default_factory=list)


class Going:
    """The fit of a cell, and its state in the folder `states`; it begins where that was saved."""

    def __init__(self, cell: Cell, states: Path) -> None:
        self.cell, self.folder, self.ledger = cell, states / cell.place, states / f"{cell.place}.json"
        self.fit, self.told, self.progress = cell.start(), Told(), ""
        if checkpoint.load(self.folder, self.fit):
            self.told = self._read()
        self.saved = {str(self.fit.step): vars(self.told) | {"notes": [*self.told.notes]}}

    def _read(self) -> Told:
        try:
            return Told(**json.loads(self.ledger.read_text())[str(self.fit.step)])
        except (OSError, ValueError, KeyError) as error:
            raise InputError("checkpoint", f"{self.ledger}: is damaged; delete {self.folder} to begin anew") from error

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.fit.step == self.fit.steps

    def advance(self) -> None:
        """Take a step."""
        progress = self.fit.advance()
        if progress:
            self._hear(progress)

    def _hear(self, progress: Progress) -> None:
        self.progress = f"{progress.psnr:.2f} dB"
        if progress.note:
            self.told.notes.append(f"step {progress.step}: {progress.note}")

    def save(self) -> None:
        """Keep the state; what is told of it comes first, beside that of the last one, so that either has its own."""
        now = {str(self.fit.step): vars(self.told) | {"notes": [*self.told.notes]}}
        write(self.ledger, json.dumps(self.saved | now).encode())
        checkpoint.save(self.folder, self.fit)
        self.saved = now
        steps, told = f"step {self.fit.step} of {self.fit.steps}", f"{self.told.seconds:.0f} s"
        print(", ".join(filter(None, [f"{self.cell.label}: {steps}", self.progress, told])), file=sys.stderr, flush=True)

    def result(self, options: argparse.Namespace) -> Result:
        """What the journal says of the fit, which is done and saved; its file is kept if it has one."""
        cell, launcher = self.cell, self.fit.launcher
        launch = "eager" if isinstance(launcher, Eager) else self.fit.config.launch
        measured = written(self, options.files) if cell.how == "file" else in_float(self.fit, cell.source.clip)
        return {
            **measured,
            **vars(self.told),
            "seconds": round(self.told.seconds, 2),
            "steps": self.fit.steps,
            "launch": launch,
            "counted": cell.counted,
            "decoder": decoder_parameters(cell.plan, cell.options),
            "made": made(cell.device, options.threads),
        }


def write(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)


def drop(cell: Cell, states: Path) -> None:
    """Forget the state of a cell."""
    shutil.rmtree(states / cell.place, ignore_errors=True)
    (states / f"{cell.place}.json").unlink(missing_ok=True)


# ---- what becomes of it


def in_float(fit: Fit, clip: Clip) -> Result:
    """PSNR of the frames as the network makes them."""
    fit.network.eval()  # codebooks stay where they are
    parts = []
    for index in torch.arange(fit.frames).split(RENDER):
        parts.append(fit.made(index).round().to(torch.uint8).cpu())
    return {"psnr": decibels(clip, unfold(torch.cat(parts), fit.network.config.picture))}


def written(going: Going, folder: Path | None) -> Result:
    """Bytes, bits per pixel and PSNR of the file, which is decoded and kept in `folder` if there is one."""
    cell, file = going.cell, io.BytesIO()
    encode(cell.source.clip, file, cell.options, cell.device, lambda progress: None, keeper=Finished(going))
    data = file.getvalue()
    if folder:
        write(folder / f"{cell.options.model}-{cell.parameters:g}M.nvc", data)
    batches = [batch.planes for batch in Decoder(io.BytesIO(data), cell.device).frames()]  # every hash is compared
    y, cb, cr = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    bpp = 8 * len(data) / cell.source.pixels
    return {"bytes": len(data), "bpp": round(bpp, 6), "psnr": decibels(cell.source.clip, (y, cb, cr))}


class Finished(Keeper):
    """Hands the saved fit of a cell, of which no step is left, to `encode`."""

    def __init__(self, going: Going) -> None:
        super().__init__(going.folder)

    def load(self, name: str, fit: Fit) -> bool:
        """Whatever `encode` calls its only segment."""
        return checkpoint.load(self.folder, fit)

    def look(self, name: str, fit: Fit) -> None:
        """There is no step to save."""


def decibels(clip: Clip, planes: Planes) -> float:
    """Mean over the frames of the PSNR of all samples."""
    return round(float(Quality.of(clip.planes, planes, rgb=True).headline.mean()), 4)


def made(device: torch.device, threads: int) -> dict[str, Any]:
    """Where a result comes from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor()}, {threads} threads"
    versions = {"torch": torch.__version__, "python": platform.python_version(), "commit": commit()}
    return {"date": time.strftime("%Y-%m-%d"), "device": name, **versions}


def wait(device: torch.device) -> None:
    """Until a device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- several in turns, until time is up


class Stop:
    """Whether to stop: so many minutes are nearly over, or someone asked for it."""

    def __init__(self, minutes: float | None) -> None:
        limit = math.inf if minutes is None else 60 * minutes
        self.end = time.monotonic() + limit - min(RESERVE, limit / 10)
        self.asked = False

    def __call__(self) -> bool:
        return self.asked or time.monotonic() >= self.end


@contextmanager
def ended_by_signal(stop: Stop) -> Iterator[None]:
    """SIGTERM asks to stop."""

    def ask(number: int, frame: object) -> None:
        stop.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(waiting: Sequence[Cell], journal: Journal, options: argparse.Namespace, stop: Callable[[], bool]) -> None:
    """Fit the cells that have no result, some at a time in turns, and save them at the end of every leg."""
    coming = iter([cell for cell in waiting if cell.name not in journal.results])
    going: list[Going] = []
    while not stop():
        while len(going) < options.together and (cell := next(coming, None)):
            going.append(Going(cell, options.state))
        if not going:
            return
        leg(going, options.save, stop)
        for each in going:
            each.save()
        for each in [each for each in going if each.done and not stop()]:
            journal.add(each.cell, each.result(options))
            drop(each.cell, options.state)
            going.remove(each)


def leg(going: Sequence[Going], longest: float, stop: Callable[[], bool]) -> None:
    """Steps in turns until one is done, `longest` seconds are over, or it is time to stop; the seconds count for each of them."""
    device, started = going[0].cell.device, time.monotonic()
    while not any(each.done for each in going):
        for each in going:
            each.advance()
        if stop() or time.monotonic() >= started + longest:
            break
    wait(device)
    for each in going:
        each.told.seconds += time.monotonic() - started
        each.told.together = max(each.told.together, len(going))


def missing(cell: Cell, states: Path) -> str:
    """A line for a cell without a result."""
    try:
        index = json.loads((states / cell.place / checkpoint.INDEX).read_text())
    except (OSError, ValueError):
        return f"MISSING: {cell.label}"
    return f"MISSING: {cell.label}, saved at step {index['step']} of {index['steps']}"


# ---- the command line


def in_rgb(clip: Clip) -> Clip:
    """A 4:2:0 clip, limited BT.601, in RGB of 8 bits."""
    y, cb, cr = (plane.astype(np.float32) for plane in clip.planes)
    cb, cr = (plane.repeat(2, 1).repeat(2, 2)[:, : y.shape[1], : y.shape[2]] - 128 for plane in (cb, cr))
    luma = 1.164 * (y - 16)
    planes = luma + 1.596 * cr, luma - 0.392 * cb - 0.813 * cr, luma + 2.017 * cb
    red, green, blue = (plane.round().clip(0, 255).astype(np.uint8) for plane in planes)
    return Clip(replace(clip.header, pixel_format=PIXEL_FORMATS["rgb24"]), (red, green, blue), clip.pts, ())


def source(options: argparse.Namespace) -> Source:
    """The clip of the command line as the papers have it, or a tiny one."""
    if options.tiny:
        return Source("synthetic:pan in RGB", in_rgb(open_clip("synthetic:pan", TINY_SIZE, TINY_FRAMES)))
    return Source(f"{Path(options.clip).name} in RGB", read_clip(options.clip, FULL))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, with those that --tiny stands for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", metavar="CLIP", help="bunny.mp4")
    jobs.add_arguments(parser)
    parser.add_argument("--state", type=Path, default=Path("bunny-state"), metavar="DIR", help="of fits that have not ended")
    parser.add_argument("--files", type=Path, metavar="DIR", help="keep the .nvc files there")
    parser.add_argument("--models", type=jobs.names(tuple(PUBLISHED)), default=tuple(PUBLISHED), metavar="A,B")
    parser.add_argument("--parameters", type=jobs.floats, metavar="A,B", help="millions")
    parser.add_argument("--fits", type=jobs.names(FITS), default=FITS, metavar="A,B", help=f"of {', '.join(FITS)}")
    parser.add_argument("--passes", type=int, metavar="N", help=f"every frame is seen N times; {PASSES} by default")
    parser.add_argument("--minutes", type=float, metavar="M", help="end before they are over, with all saved")
    parser.add_argument("--together", type=int, default=1, metavar="N", help="fit N networks at a time")
    parser.add_argument("--save", type=float, default=SAVE, metavar="S", help="save the fits every S seconds")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU: a small synthetic clip, few steps")
    options = parser.parse_args(arguments)
    if not options.tiny and not options.clip:
        parser.error("name a clip, or --tiny")
    if options.together < 1:
        parser.error(f"--together {options.together}: at least 1")
    options.passes = options.passes or (TINY_PASSES if options.tiny else PASSES)
    options.parameters = options.parameters or (TINY_PARAMETERS if options.tiny else tuple(PUBLISHED["hnerv"]))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    options = parsed(given)
    stop = Stop(options.minutes)
    torch.set_num_threads(options.threads)
    device, journal = open_device(options.device), Journal(options.json)
    everything = cells(source(options), options, device)
    mine = everything[options.part[0] - 1 :: options.part[1]]
    for cell in mine:
        if cell.name in journal.results:
            drop(cell, options.state)  # of a run that ended between the two
    with ended_by_signal(stop):
        run(mine, journal, options, stop)
    journal.load()
    print(record("bunny", options, given))
    for cell in everything:
        if cell.name not in journal.results:
            print(missing(cell, options.state))
    found = [(cell.key, journal.results[cell.name]) for cell in everything if cell.name in journal.results]
    print("\n" + table([(model, size) for model in options.models for size in options.parameters], found))


if __name__ == "__main__":
    try:
        main()
    except NvcError as error:
        raise SystemExit(f"bunny.py: {error}") from None
