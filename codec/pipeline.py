"""Batches on their way through device, copy and hash: several at once, and out in order."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream import constants

from .metrics import Planes
from .staging import Pending

HASHERS = 4  # threads: SHA-256 runs at 0.4 (in plain instructions) to 2 GB/s a core, and 500 frames of 640x1280 RGB are 1.2 GB

Launch = Callable[[int, int], Pending]
Hashed = tuple[int, Planes, list[bytes]]  # number of the first frame, planes (n, H, W), n hashes


def frame_hash(planes: Sequence[NDArray[np.uint8]]) -> bytes:
    """The first 8 bytes of SHA-256 over the samples of one frame's planes (H, W), row by row (SPEC 8.8)."""
    sha = hashlib.sha256()
    for plane in planes:
        sha.update(np.ascontiguousarray(plane).reshape(-1).data)
    return sha.digest()[: constants.HASH_BYTES]


def hashed(launch: Launch, spans: Iterable[tuple[int, int]], ahead: int) -> Generator[Hashed, None, None]:
    """For each (first, count) of `spans`, in order: first, the planes of these frames as `launch` makes them, their hashes.

    While one batch is the caller's, the one after it is hashed by threads and `ahead` more are under way on the device. With
    0 nothing is: each batch is launched when it is asked for, and hashed in this thread. An error of `launch` or of the
    device comes when all batches before it are out. Closing ends the threads; what the device has begun it ends by itself.
    """
    if ahead == 0:
        for first, count in spans:
            planes = launch(first, count).planes()
            yield first, planes, [frame_hash(frame) for frame in zip(*planes, strict=True)]
        return
    hashing: deque[tuple[int, Planes, list[Future[bytes]]]] = deque()
    arriving, failure = _arriving(launch, spans, ahead), None
    with ThreadPoolExecutor(min(HASHERS, os.cpu_count() or 1), "hash") as threads:
        try:
            while True:
                try:
                    first, planes = next(arriving)
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                    break
                hashing.append((first, planes, [threads.submit(frame_hash, frame) for frame in zip(*planes, strict=True)]))
                del planes  # the caller's alone when they are out, so that their memory can be used again
                if len(hashing) > 1:
                    yield _finished(hashing)
            while hashing:
                yield _finished(hashing)
        finally:
            threads.shutdown(cancel_futures=True)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame, which would hold it, and with it the memory of a device


def _finished(hashing: deque[tuple[int, Planes, list[Future[bytes]]]]) -> Hashed:
    first, planes, futures = hashing.popleft()
    return first, planes, [future.result() for future in futures]


def _arriving(launch: Launch, spans: Iterable[tuple[int, int]], ahead: int) -> Iterator[tuple[int, Planes]]:
    """First frame and planes of each batch, as they come, with `ahead` launched behind it; errors in their turn."""
    under_way: deque[tuple[int, Pending]] = deque()
    for first, count in spans:
        try:
            under_way.append((first, launch(first, count)))
        except Exception:
            while under_way:
                yield _arrived(under_way)
            raise
        if len(under_way) > ahead:
            yield _arrived(under_way)
    while under_way:
        yield _arrived(under_way)


def _arrived(under_way: deque[tuple[int, Pending]]) -> tuple[int, Planes]:
    first, pending = under_way.popleft()
    return first, pending.planes()
