"""Jobs of a bench: each runs once, its result is one JSON line at once, and a bench that was killed goes on where it was.

A job's key is all that its result depends on but for the code, so that jobs of the same key are one job and a changed default
is a new one; after a change of the codec, take another file. Several processes may append to one file.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from clips import open_clip, size, span

from nvc.codec.config import FitConfig
from nvc.codec.encode import EncodeOptions, encode
from nvc.codec.video import Clip

Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Something to measure: `key` of JSON values says what, `run` gives a dictionary of JSON values; `label` is for people."""

    label: str
    key: Mapping[str, Any]
    run: Callable[[], Result]

    @property
    def name(self) -> str:
        """The key as text, the same for equal keys."""
        return json.dumps(self.key, sort_keys=True)


class Journal:
    """Results by the names of their jobs, in a file of JSON lines; without a path in memory alone."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.results: dict[str, Result] = {}
        self.load()
        if path and path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
            self._append(b"\n")  # ends a line that was cut off, so that the next one stands alone

    def load(self) -> None:
        """Take in what the file has by now, another process's results too; lines that are no JSON are ignored."""
        if not self.path or not self.path.exists():
            return
        for line in self.path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off when a run was killed
            self.results[json.dumps(entry["key"], sort_keys=True)] = entry["result"]

    def add(self, job: Job, result: Result) -> None:
        """Keep a result, in the file at once."""
        self.results[job.name] = result
        if self.path:
            self._append(json.dumps({"key": job.key, "result": result}).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        assert self.path is not None
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, data)  # in one call, so that lines of two processes do not mix
        finally:
            os.close(file)

    def result(self, job: Job) -> Result | None:
        """Of a job, None where it has not run."""
        return self.results.get(job.name)


def run(jobs: Sequence[Job], journal: Journal, part: tuple[int, int] = (1, 1)) -> None:
    """Run those jobs of `part` (i, n), every n-th from the i-th on, that have no result yet."""
    different: dict[str, Job] = {}
    for job in jobs:
        different.setdefault(job.name, job)
    mine = list(different.values())[part[0] - 1 :: part[1]]
    for number, job in enumerate(mine):
        journal.load()
        if journal.result(job) is not None:
            continue
        started = time.monotonic()
        journal.add(job, job.run())
        print(f"{number + 1}/{len(mine)} {time.monotonic() - started:.1f} s {job.label}", file=sys.stderr, flush=True)


def add_arguments(parser: argparse.ArgumentParser, passes: int | None = None) -> None:
    """The options that all benches of fits share; those of clips only where `passes`, their default, is given."""
    if passes is not None:
        parser.add_argument("clips", nargs="+", metavar="CLIP", help="a file, or synthetic:zoom, synthetic:pan (clips.py)")
        parser.add_argument("--scale", type=size, metavar="WxH")
        parser.add_argument("--frames", type=span, metavar="A:B")
        parser.add_argument("--passes", type=int, default=passes, metavar="N", help="every frame is seen N times")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch; small networks gain nothing from two")
    parser.add_argument("--json", type=Path, metavar="OUT", help="results are appended to it; those it has are not run again")
    parser.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="run every N-th job, from the I-th on")


def part(text: str) -> tuple[int, int]:
    """The `--part` of a command line: I/N, 1 <= I <= N."""
    number, of = (int(value) for value in text.split("/"))
    if not 1 <= number <= of:
        raise argparse.ArgumentTypeError(f"{text}: from 1/N to N/N")
    return number, of


def floats(text: str) -> tuple[float, ...]:
    """A,B,C of a command line."""
    return tuple(float(number) for number in text.split(","))


def integers(text: str) -> tuple[int, ...]:
    """A,B,C of a command line."""
    return tuple(int(number) for number in text.split(","))


def names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that takes A,B,C of the names that are known."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(text.split(",")))
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is unknown; choose of {', '.join(known)}")
        return chosen

    return parse


@dataclass(frozen=True)
class Source:
    """A clip and what a key says of it."""

    name: str
    clip: Clip

    @property
    def pixels(self) -> int:
        """Luma samples of all frames."""
        return self.clip.header.width * self.clip.header.height * len(self.clip.pts)

    @property
    def key(self) -> str:
        """Name, size and number of frames."""
        return f"{self.name}, {len(self.clip.pts)} frames of {self.clip.header.width}x{self.clip.header.height}"


def sources(options: argparse.Namespace) -> list[Source]:
    """The clips of a command line."""
    first = options.frames[0] if options.frames else 0
    start = f" from {first}" if first else ""
    return [Source(Path(name).name + start, open_clip(name, options.scale, options.frames)) for name in options.clips]


def settings(options: EncodeOptions) -> dict[str, Any]:
    """What a key says of an encode."""
    return {
        "fit": asdict(options.fit),
        "design": asdict(options.design),
        "target": {name: value for name, value in vars(options.target).items() if value is not None},
        "seed": options.seed,
    }


def encoded(clip: Clip, options: EncodeOptions, device: torch.device) -> Result:
    """Encode to memory: bytes, bytes wanted, PSNR in dB (6:1:1, or of RGB for both) and seconds."""
    file = io.BytesIO()
    result = encode(clip, file, options, device, lambda progress: None)
    quality = result.quality.as_dict()
    headline = quality.get("yuv611", quality.get("rgb"))
    return {
        "bytes": result.bytes,
        "target": result.target_bytes,
        "psnr_y": quality.get("y", headline),
        "psnr_611": headline,
        "seconds": round(result.seconds, 2),
    }


def exactly(config: FitConfig, passes: int) -> FitConfig:
    """The same for so many passes and no more, however short the clip."""
    return FitConfig(**{**asdict(config), "passes": passes, "min_steps": 1})


@contextmanager
def setting(owner: object, name: str, value: object) -> Iterator[None]:
    """Give an attribute that exists, a module's constant for example, another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def heading(options: argparse.Namespace) -> str:
    """Where the figures come from, as a line."""
    device = options.device
    if device != "cpu" and torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    today = time.strftime("%Y-%m-%d")
    return f"{today}, {device}, {options.threads} torch threads, torch {torch.__version__}, Python {platform.python_version()}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"
