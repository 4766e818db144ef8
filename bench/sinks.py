"""How fast frames that are ready in memory get out: each output beside a bare loop of os.write of the same bytes.

    python bench/sinks.py [--size 1280x640] [--frames 128] [--batch 8] [--rounds 5] [--rgb] [--folder /tmp] [--tiny]

The bare loop is the ceiling: no thread, no check, the bytes of each frame in one piece, to the same place. For outputs behind
ffmpeg it feeds the very same ffmpeg command, so a ratio of 1 says that ffmpeg takes the time and not the pipe to it;
`ffmpeg, null` throws the frames away, which leaves the pipe alone. Both sides take turns, and times are from opening to a
complete output.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import clips
import numpy as np

from nvc.bitstream.header import Header
from nvc.codec.metrics import Planes
from nvc.codec.sink import Sink
from nvc.codec.sinks import open_sink
from nvc.codec.sinks_ffmpeg import MatroskaSink

DISTINCT = 4  # batches, written again and again: enough that they do not stay in a cache, few enough for any memory
OUTPUTS = (".yuv", ".y4m", "- > /dev/null", "- | cat", "ffmpeg, null", ".mkv", ".mp4")


class NullSink(MatroskaSink):
    """ffmpeg that reads, tags and throws away."""

    def _output(self) -> list[str]:
        return ["-f", "null", "-"]

    def _publish(self) -> None:
        pass


class Material:
    """Batches of frames of a moving ramp with a little noise, and the bytes that each output makes of one frame."""

    def __init__(self, header: Header, batch: int) -> None:
        random = np.random.default_rng(0)
        self.header, self.batch = header, batch
        self.batches: list[Planes] = []
        for number in range(DISTINCT):
            y, cb, cr = (self._ramp(shape, number * batch, random) for shape in header.plane_shapes())
            self.batches.append((y, cb, cr))

    def _ramp(self, shape: tuple[int, int], first: int, random: np.random.Generator) -> np.ndarray:
        times = first + np.arange(self.batch)[:, None, None]
        ramp = np.arange(shape[1]) / 8 + np.arange(shape[0])[:, None] / 4 + 2 * times
        return (ramp % 220 + random.integers(0, 4, shape)).astype(np.uint8)

    def bare(self, output: str) -> list[bytes]:
        """What one batch is on its way out, a piece for each frame."""
        frames = [[plane[i] for plane in self.batches[0]] for i in range(self.batch)]
        if output in (".yuv", ".y4m") or output.startswith("-"):
            head = b"" if output == ".yuv" else b"FRAME\n"
            return [head + b"".join(plane.tobytes() for plane in frame) for frame in frames]
        order = (1, 2, 0) if self.header.pixel_format else (0, 1, 2)  # ffmpeg's planar RGB is G, B, R
        samples = [b"".join(frame[number].tobytes() for number in order) for frame in frames]
        return [struct.pack("<Iq", len(data), number) + data for number, data in enumerate(samples)]


def write_bare(descriptor: int, pieces: list[bytes], frames: int, head: bytes = b"") -> None:
    for piece in (head, *(pieces[number % len(pieces)] for number in range(frames))):
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


def write_sink(sink: Sink, material: Material, frames: int) -> None:
    with sink:
        for number, first in enumerate(range(0, frames, material.batch)):
            count = min(material.batch, frames - first)
            y, cb, cr = (plane[:count] for plane in material.batches[number % DISTINCT])
            sink.write((y, cb, cr), range(first, first + count))


@contextmanager
def reader(output: str) -> Iterator[int]:
    """A descriptor of the null device, or of a pipe to cat, which has read all when the block ends."""
    if output.endswith("cat"):
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0) as cat:
            yield cat.stdin.fileno()
            cat.stdin.close()
    else:
        with open(os.devnull, "wb", buffering=0) as file:
            yield file.fileno()


@contextmanager
def standard_output(descriptor: int) -> Iterator[None]:
    """sys.stdout on a descriptor."""
    before = sys.stdout
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        sys.stdout = types.SimpleNamespace(buffer=file)
        try:
            yield
        finally:
            sys.stdout = before


def sides(output: str, material: Material, frames: int, folder: Path) -> list[Callable[[], None]]:
    """The output and its ceiling, each to be called as often as one likes."""
    header, pieces = material.header, material.bare(output)
    target = str(folder / f"a{output}") if output.startswith(".") else "-"

    def ours() -> None:
        if output == "ffmpeg, null":
            write_sink(NullSink(str(folder / "a.mkv"), header, True), material, frames)
        elif target == "-":
            with reader(output) as descriptor, standard_output(descriptor):
                write_sink(open_sink("-", header, overwrite=True), material, frames)
        else:
            write_sink(open_sink(target, header, overwrite=True), material, frames)
            os.unlink(target)

    def ceiling() -> None:
        if target == "-" and output != "ffmpeg, null":
            with reader(output) as descriptor:
                write_bare(descriptor, pieces, frames)
        elif output in (".yuv", ".y4m"):
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            write_bare(descriptor, pieces, frames)
            os.close(descriptor)
            os.unlink(target)
        else:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as ffmpeg:
                write_bare(ffmpeg.stdin.fileno(), pieces, frames, ivf)
            if ffmpeg.returncode:
                raise SystemExit(f"{output}: ffmpeg failed without nvc; its command: {command}")

    if output in ("ffmpeg, null", ".mkv", ".mp4"):
        sink = NullSink(str(folder / "a.mkv"), header, True) if target == "-" else open_sink(target, header, overwrite=True)
        sink.abort()
        command = [word.replace(sink.path, str(folder / f"bare{output}")) for word in sink._ffmpeg.command]
        command.insert(1, "-y")
        fourcc = b"G3\x00\x08" if header.pixel_format else b"I420"
        num, den = header.time_base.as_integer_ratio()
        ivf = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, fourcc, header.width, header.height, den, num, 0, 0)
    return [ours, ceiling]


def measure(calls: list[Callable[[], None]], rounds: int) -> list[float]:
    """Median seconds of each, taken in turns; the first round of all warms up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, taken in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken[1:]) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=clips.size, default=(1280, 640), metavar="WxH")
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="frames handed over together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rgb", action="store_true", help="RGB instead of 4:2:0; then there is no Y4M")
    parser.add_argument("--folder", type=Path, help="where files go; by default a temporary folder")
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=OUTPUTS)
    parser.add_argument("--tiny", action="store_true", help="a small picture, once: to see that all of it works")
    options = parser.parse_args()
    if options.tiny:
        options.size, options.frames, options.batch, options.rounds = (64, 48), 6, 4, 1
    width, height = options.size
    header = Header(
        width=width, height=height, pixel_format=int(options.rgb), frame_rate=Fraction(25), time_base=Fraction(1, 25)
    )
    material = Material(header, options.batch)
    print(f"{width}x{height}, {'RGB' if options.rgb else '4:2:0'}, {options.frames} frames in batches of {options.batch}\n")
    print("| output | frames a second | bare os.write | ratio |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for output in options.outputs:
            if options.rgb and (output == ".y4m" or output.startswith("-")):
                continue
            ours, ceiling = measure(sides(output, material, options.frames, Path(folder)), options.rounds)
            rates = f"{options.frames / ours:.0f} | {options.frames / ceiling:.0f} | {ceiling / ours:.2f}"
            print(f"| `{output}` | {rates} |", flush=True)


if __name__ == "__main__":
    main()
