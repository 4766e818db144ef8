"""Planes on their way from a device to the host: copied while the device goes on computing, into memory that is used again."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .metrics import Planes

# Of page-locked memory: three batches that are computed or copied, two that are hashed, one at the caller's, and two that are
# written or wait for it. With more in use planes are copied out, which takes time only where the writer is too slow anyway.
SETS = 8


class Pending:
    """The planes of a batch, of which the device may not even have begun to compute the first.

    `planes` waits for them: three contiguous uint8 arrays (n, H, W), the caller's to keep and to change. To be called once.
    """

    def __init__(self, wait: Callable[[], Planes]) -> None:
        self.planes = wait


class Pool:
    """Buffers of host memory that are lent, and lent again when they are back.

    `make` gives a new uint8 tensor of one dimension; page-locking memory takes longer than computing a batch, so it is called
    only while nothing can be lent. Who is to keep one gets it as an array and need not give it back: it is back when that
    array and all views of it are gone.
    """

    def __init__(self, make: Callable[[], Tensor], most: int) -> None:
        self._make, self._most = make, most
        self._free: list[Tensor] = []  # appended to and popped only, which are atomic: arrays may die in any thread
        self._made = 0

    def take(self) -> Tensor:
        """A buffer, to be handed on by `keep` or `copy`."""
        try:
            return self._free.pop()
        except IndexError:
            self._made += 1
            return self._make()

    def array(self, buffer: Tensor, size: int) -> NDArray[np.uint8]:
        """The first `size` bytes of a buffer as an array for good: the buffer itself, or a copy where none else could be lent."""
        whole = buffer.numpy()
        if self._free or self._made < self._most:
            weakref.finalize(whole, self._free.append, buffer).atexit = False
            return whole[:size]
        copied = whole[:size].copy()
        self._free.append(buffer)
        return copied


class Staging:
    """Takes the values of planes (batch, H, W) = `batch`, `shapes` from `device` to the host.

    From a processor they are there at once, in memory of their own. From CUDA they go in one copy, on a stream of its own, so
    that the next batch is computed meanwhile. (What one leaves of page-locked memory, PyTorch keeps for the next.)
    """

    def __init__(self, device: torch.device, batch: int, shapes: Sequence[tuple[int, int]]) -> None:
        self._device, self._shapes = device, list(shapes)
        if device.type == "cuda":
            size = batch * sum(height * width for height, width in shapes)
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool = Pool(lambda: torch.empty(size, dtype=torch.uint8, pin_memory=True), SETS)

    def send(self, values: Sequence[Tensor]) -> Pending:
        """Three float tensors (n, H, W) of integers 0..255 set off; `values` may be dropped, n is at most `batch`."""
        if self._device.type != "cuda":
            y, cb, cr = (value.to(torch.uint8, memory_format=torch.contiguous_format).numpy() for value in values)
            return Pending(lambda: (y, cb, cr))
        count = len(values[0])
        source = torch.cat([value.to(torch.uint8).reshape(-1) for value in values])
        buffer = self._pool.take()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            buffer[: len(source)].copy_(source, non_blocking=True)
            # blocking: waiting does not keep a core busy that could hash
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(self._stream)
        source.record_stream(self._stream)  # its memory is not taken for the next batch while it is read

        def wait() -> Planes:
            done.synchronize()
            return split(self._pool.array(buffer, len(source)), count, self._shapes)

        return Pending(wait)


def split(samples: NDArray[np.uint8], count: int, shapes: Sequence[tuple[int, int]]) -> Planes:
    """Three planes (count, H, W), one after the other in `samples`, as views of it."""
    ends = np.cumsum([count * math.prod(shape) for shape in shapes])
    y, cb, cr = (part.reshape(count, *shape) for part, shape in zip(np.split(samples, ends[:-1]), shapes, strict=True))
    return y, cb, cr
