"""Bytes to frames: reads segments, runs their programs and checks every frame against the hash in the file."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import torch

from nvc.bitstream import constants
from nvc.bitstream.analysis import Analysis, analyse, check_picture
from nvc.bitstream.coefficients import Tensors, read_sections
from nvc.bitstream.constants import Limits
from nvc.bitstream.container import Reader
from nvc.bitstream.errors import InvalidError, LimitError, MachineError, UsageError, VerificationError
from nvc.bitstream.header import Header
from nvc.bitstream.program import unpack_programs
from nvc.bitstream.segment import Segment

from .interpreter import Interpreter
from .metrics import Planes
from .pipeline import frame_hash, hashed

__all__ = ["Batch", "Clock", "Decoder", "Numbers", "Planes", "frame_hash", "open_device", "verify", "wrong_frame"]

Numbers = tuple[Analysis, Tensors]

CPU_BATCH = 2  # frames whose maps still fit in a second-level cache
CUDA_BATCH = 32
# Batches that are launched before the one in front is waited for. A processor has nothing to do meanwhile. Of two, one keeps
# the device busy while this thread hands on the batch in front, and the other while it is held up for as long as a batch takes.
AHEAD = {"cpu": 0, "cuda": 2}
# Of a device's free memory. The rest is for what the count of live values leaves out (copies in another layout, the workspace
# of convolutions, the safe path of the self-test), for other programs, and so that a tested kernel always finds its workspace.
SHARE = 0.25
STAGED_BYTES = 96 << 20  # of samples in a batch on a device: a few such lie in page-locked memory, which nobody else can use
TIMED_FRAMES = 1 << 62  # any frame number is below


@dataclass(frozen=True)
class Batch:
    """Decoded frames `first` .. `first + len(planes[0]) - 1`: planes (n, H, W) uint8 and a time stamp for each, in ticks."""

    first: int
    planes: Planes
    pts: tuple[int, ...]


def open_device(name: str) -> torch.device:
    """`auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:1`; MachineError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError("device", f"there is no kind of device called {name!r}; use auto, cpu or cuda") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise MachineError("device", f"this machine has no device {name}; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise UsageError("device", f"nvc has not been tried on {device.type}; use auto, cpu or cuda")
    return device


def fitting(wanted: int, peak: int, samples: int, memory: int, free: int | None) -> int:
    """The batch to compute where `wanted` frames are asked for: at least 1.

    A frame takes `peak` bytes at once while it is computed and `samples` when it is done. All frames of a batch stay below
    `memory` bytes, and on a device that has `free` ones (None for a processor) within what SHARE and STAGED_BYTES leave them.
    """
    bounds = [wanted, memory // peak]
    if free is not None:
        bounds += [int(free * SHARE) // peak, STAGED_BYTES // samples]
    return max(1, min(bounds))


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process could still take on a CUDA device, those included that PyTorch holds in reserve; else None."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def wrong_frame(frame: int) -> VerificationError:
    """The error of a frame that differs from its hash."""
    return VerificationError("frame", f"frame {frame} differs from its hash in the file")


class Decoder:
    """A parsed file, ready to decode any of its frames on a device.

    `batch` frames are computed together; the same bits come out whatever it is. BitstreamError when the file is refused.
    """

    def __init__(
        self, file: BinaryIO, device: torch.device | None = None, batch: int | None = None, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.reader = Reader(file, self.limits)
        self.header = self.reader.header
        self.device = device or torch.device("cpu")
        self.programs = unpack_programs(self.reader.model, self.limits)
        self.analyses = [analyse(program, self.limits) for program in self.programs]
        for analysis in self.analyses:
            check_picture(analysis, self.header, self.limits)
        self.batch = batch or (CUDA_BATCH if self.device.type == "cuda" else CPU_BATCH)
        self._batches: dict[int, int] = {}  # by program; settled once, for each new batch size has its kernels tested

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[Batch]:
        """Batches of frames first .. last - 1 (all by default), each frame verified; VerificationError where one differs."""
        end = TIMED_FRAMES if last is None else last
        # Ticks of a variable rate add up from frame 0, so then the segments before `first` are read, though not decoded.
        start = 0 if self.header.frame_rate is None else first
        clock = Clock(self.header)
        for segment in self.reader.segments(start, last):
            pts = clock.stamps(segment)
            low, high = max(first - segment.first_frame, 0), min(end - segment.first_frame, segment.frames)
            if low < high:
                yield from self._verified(segment, low, high, pts)

    def numbers(self, segment: Segment) -> Numbers:
        """The numbers of a segment; BitstreamError where they are damaged, or ask for more than the limits allow."""
        analysis = self._analysis(segment)
        self._check_work(analysis, segment)
        return analysis, read_sections(analysis, segment, self.limits)

    def render(
        self, segment: Segment, numbers: Numbers, low: int, high: int
    ) -> Generator[tuple[int, Planes, list[bool]], None, None]:
        """Frames low .. high - 1 of a segment in batches: the first one's number in it, planes, and whether each has its hash."""
        analysis, tensors = numbers
        hashes = segment.sections[constants.HASHES]
        run = Interpreter(analysis, tensors, segment.frames, self._fitting(segment.program, analysis), self.device)
        spans = ((start, min(run.batch, high - start)) for start in range(low, high, run.batch))
        with closing(hashed(run.launch, spans, AHEAD[self.device.type])) as batches:
            for start, planes, found in batches:
                wanted = [hashes[8 * frame : 8 * frame + 8] for frame in range(start, start + len(found))]
                yield start, planes, [a == b for a, b in zip(found, wanted, strict=True)]
                del planes  # the caller's alone, so that its memory can be used again

    def _fitting(self, program: int, analysis: Analysis) -> int:
        """The batch of a program, settled at its first segment."""
        if program not in self._batches:
            samples = sum(height * width for height, width in self.header.plane_shapes())
            free = free_memory(self.device)
            self._batches[program] = fitting(
                self.batch, analysis.peak_memory, samples, self.limits.max_memory_bytes, free
            )
        return self._batches[program]

    def _verified(self, segment: Segment, low: int, high: int, pts: tuple[int, ...]) -> Iterator[Batch]:
        with closing(self.render(segment, self.numbers(segment), low, high)) as batches:
            for start, planes, right in batches:
                if not all(right):
                    raise wrong_frame(segment.first_frame + start + right.index(False))
                yield Batch(segment.first_frame + start, planes, pts[start : start + len(right)])
                del planes

    def _analysis(self, segment: Segment) -> Analysis:
        if segment.program >= len(self.analyses):
            raise InvalidError(
                "program",
                f"the segment at frame {segment.first_frame} asks for program {segment.program} of {len(self.programs)}",
            )
        return self.analyses[segment.program]

    def _check_work(self, analysis: Analysis, segment: Segment) -> None:
        """A live file does not say how long it is, so the multiply-adds are counted as they come."""
        if analysis.work * (segment.first_frame + segment.frames) > self.limits.max_macs_total:
            raise LimitError("compute", f"decoding needs over {self.limits.max_macs_total:.3g} multiply-adds")


class Clock:
    """Time stamps of frames: counted at a constant rate, else added up from the ticks that segments carry."""

    def __init__(self, header: Header) -> None:
        self.header, self.now = header, header.first_pts
        self._ticks = 1 / (header.frame_rate * header.time_base) if header.frame_rate is not None else Fraction()

    def at(self, frame: int) -> int:
        """The time stamp of a frame, in ticks of the time base, in a file of constant rate."""
        return self.header.first_pts + round(frame * self._ticks)

    def stamps(self, segment: Segment) -> tuple[int, ...]:
        """The time stamps of a segment's frames, in ticks of the time base; segments must come in order."""
        if self.header.frame_rate is not None:
            return tuple(map(self.at, range(segment.first_frame, segment.first_frame + segment.frames)))
        _, *stamps = itertools.accumulate(segment.times or (), initial=self.now)
        self.now = stamps[-1]
        return tuple(stamps)


def verify(file: BinaryIO, device: torch.device | None = None, batch: int | None = None) -> int:
    """Check every checksum, decode everything and compare every frame hash; the number of frames that are right."""
    decoder = Decoder(file, device, batch)
    return sum(len(batch.pts) for batch in decoder.frames())
