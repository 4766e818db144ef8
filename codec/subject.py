"""The decoder as a subject of conformance tests, in this process: every way in which it may be asked for the same frames."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import BitstreamError, VerificationError

from .config import VERSION
from .decode import Batch, Decoder, open_device
from .salvage import Salvager

ODD_READS = (1, 7, 2047)  # bytes: no field, a few fields and a few chunks, none of them a multiple of anything in the format


class Trickle(io.BytesIO):
    """A file of which no read gives more than `most` bytes; without `seeks` one that cannot go back, as a pipe."""

    def __init__(self, data: bytes, most: int | None, seeks: bool) -> None:
        super().__init__(data)
        self._most, self._seeks = most, seeks

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, and at most `most`."""
        wanted = len(self.getbuffer()) if size is None or size < 0 else size
        return super().read(wanted if self._most is None else min(wanted, self._most))

    def seekable(self) -> bool:
        """Whether `seek` and `tell` work."""
        return self._seeks

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves there; UnsupportedOperation as from a pipe."""
        if not self._seeks:
            raise io.UnsupportedOperation("a pipe cannot seek")
        return super().seek(offset, whence)

    def tell(self) -> int:
        """The position; UnsupportedOperation as from a pipe."""
        if not self._seeks:
            raise io.UnsupportedOperation("a pipe has no position")
        return super().tell()


@dataclass(frozen=True)
class DecodingWay:
    """One way: what computes, how many frames at once, how the bytes arrive, and whether ranges are asked for."""

    name: str
    device: torch.device
    batch: int | None = None  # the decoder's own choice
    threads: int = 1
    most: int | None = None  # bytes that a read gives
    pipe: bool = False
    random: bool = False  # frames are asked for in ranges, at random order

    def decode(
        self, path: Path, limits: Mapping[str, int], ranges: Sequence[tuple[int, int]] | None
    ) -> Iterator[tuple[int, bytes]]:
        """Number and samples (SPEC 8.8) of all frames, or of those of each range a..b-1 in turn; NvcError as Decoder."""
        with _open(path, self.most, self.pipe) as file, _threads(self.threads):
            decoder = Decoder(file, self.device, self.batch, Limits(**limits))
            for first, last in [(0, None)] if ranges is None else ranges:
                for batch in decoder.frames(first, last):
                    yield from _samples(batch)


@dataclass(frozen=True)
class SalvagingWay:
    """One way of salvaging: whether stand-ins are shown for lost frames, and how the bytes arrive."""

    name: str
    device: torch.device
    hold: bool
    most: int | None = None
    pipe: bool = False

    def salvage(
        self, path: Path, limits: Mapping[str, int]
    ) -> tuple[Iterator[tuple[int, bytes]], list[tuple[int, int, str]]]:
        """The frames, and the lost ones as (first, number, code), a list that is filled when the frames have ended."""
        lost: list[tuple[int, int, str]] = []

        def frames() -> Iterator[tuple[int, bytes]]:
            with _open(path, self.most, self.pipe) as file, _threads(1):
                salvager = Salvager(Decoder(file, self.device, limits=Limits(**limits)), self.hold)
                for batch in salvager.frames():
                    yield from _samples(batch)
                lost.extend((gap.first, gap.frames, gap.error.code) for gap in salvager.lost)

        return frames(), lost


class Subject:
    """This version of nvc, on each of `devices` (by default the processor, and CUDA where there is one).

    MachineError where a device is not there. It sets the threads of torch, so one decoding at a time.
    """

    name = f"nvc {VERSION}"
    refusals: tuple[type[Exception], ...] = (BitstreamError, VerificationError)
    takes_limits = True

    def __init__(self, devices: Sequence[str] = ()) -> None:
        names = devices or (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))
        self.devices = list(dict.fromkeys(map(open_device, names)))

    def ways(self, valid: bool) -> list[DecodingWay]:
        """Whole, from a pipe and in odd reads, with one thread; of valid files also at random order, in batches and two threads.

        How bytes arrive does not concern the device, so that is tried on the first one only.
        """
        ways = [DecodingWay("whole", self.devices[0]), DecodingWay("pipe", self.devices[0], pipe=True)]
        for most in ODD_READS:
            ways.append(DecodingWay(f"file, reads of {most}", self.devices[0], most=most))
            ways.append(DecodingWay(f"pipe, reads of {most}", self.devices[0], most=most, pipe=True))
        for device in self.devices:
            if device != self.devices[0]:
                ways.append(DecodingWay(f"whole, {device}", device))
            if valid:
                ways.append(DecodingWay(f"random order, {device}", device, random=True))
                ways += [DecodingWay(f"batch {batch}, {device}", device, batch=batch) for batch in (1, 4)]
                ways.append(DecodingWay(f"2 threads, {device}", device, threads=2))
        return ways

    def salvagers(self) -> list[SalvagingWay]:
        """Lost frames left out and held, from a file, from a pipe and in odd reads."""
        device = self.devices[0]
        ways = [SalvagingWay("skip", device, False), SalvagingWay("hold", device, True)]
        ways.append(SalvagingWay("skip, pipe", device, False, pipe=True))
        return ways + [SalvagingWay(f"skip, pipe, reads of {most}", device, False, most, True) for most in ODD_READS]


def _samples(batch: Batch) -> Iterator[tuple[int, bytes]]:
    """Number and samples of each frame of a batch."""
    for i in range(len(batch.pts)):
        yield batch.first + i, b"".join(plane[i].tobytes() for plane in batch.planes)


@contextlib.contextmanager
def _open(path: Path, most: int | None, pipe: bool) -> Iterator[BinaryIO]:
    """The file itself, or a stream that gives its bytes in another way."""
    with path.open("rb") if most is None and not pipe else Trickle(path.read_bytes(), most, not pipe) as file:
        yield file


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """So many threads of torch inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
