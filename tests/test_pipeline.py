"""Batches under way: out in order with the right hashes, however late each stage is; errors in their turn; an end always."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.codec import pipeline
from nvc.codec.metrics import Planes
from nvc.codec.pipeline import frame_hash, hashed
from nvc.codec.staging import Pending

SHAPES = ((48, 64), (24, 32), (24, 32))  # over 2 KiB, from where hashing lets other threads run


def planes_of(first: int, count: int) -> Planes:
    y, cb, cr = (np.random.default_rng(first).integers(0, 256, (count, *shape), np.uint8) for shape in SHAPES)
    return y, cb, cr


def expected(first: int, count: int) -> list[bytes]:
    planes = planes_of(first, count)
    return [hashlib.sha256(b"".join(plane[i].tobytes() for plane in planes)).digest()[:8] for i in range(count)]


def spans(batches: int) -> list[tuple[int, int]]:
    return [(3 * number, 3 if number < batches - 1 else 2) for number in range(batches)]


class Device:
    """Launches note when they are called and when their planes are asked for; number `fails` raises at either."""

    def __init__(self, fails: int = -1, at: str = "launch") -> None:
        self.log: list[tuple[str, int]] = []
        self._fails, self._at = fails, at

    def __call__(self, first: int, count: int) -> Pending:
        self._note("launch", first)

        def wait() -> Planes:
            self._note("wait", first)
            return planes_of(first, count)

        return Pending(wait)

    def _note(self, what: str, first: int) -> None:
        self.log.append((what, first // 3))
        if (what, first // 3) == (self._at, self._fails):
            raise RuntimeError("CUDA out of memory")


def threads() -> int:
    return sum(thread.name.startswith("hash") for thread in threading.enumerate())


@given(st.integers(0, 7), st.integers(0, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_batches_come_in_order_with_their_hashes_however_long_each_hash_takes(batches: int, ahead: int, seed: int) -> None:
    delays = random.Random(seed)

    def slow(frame: tuple[np.ndarray, ...]) -> bytes:
        time.sleep(delays.random() * 0.002)
        return frame_hash(frame)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "frame_hash", slow)
        found = list(hashed(Device(), spans(batches), ahead))
    assert [(first, len(planes[0])) for first, planes, _ in found] == spans(batches)
    for first, planes, hashes in found:
        assert all(map(np.array_equal, planes, planes_of(first, len(hashes))))
        assert hashes == expected(first, len(hashes))


@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.booleans())
def test_the_hash_is_that_of_the_samples_row_by_row_wherever_they_lie(shape: tuple[int, int], turned: bool) -> None:
    plane = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    lying = np.asfortranarray(plane) if turned else plane
    assert frame_hash([lying, plane]) == hashlib.sha256(2 * bytes(range(plane.size))).digest()[:8]


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_so_many_are_launched_behind_the_one_that_is_waited_for(ahead: int) -> None:
    device = Device()
    list(hashed(device, spans(8), ahead))
    launched = 0
    for what, number in device.log:
        launched += what == "launch"
        if what == "wait":
            assert launched == min(8, number + 1 + ahead)


def test_a_batch_is_hashed_while_the_next_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of batch 0 ends only when batch 1 has been asked for: without overlap this would never end."""
    asked = threading.Event()

    def launch(first: int, count: int) -> Pending:
        return Pending(lambda: (first and asked.set(), planes_of(first, count))[1])

    def hash_when_asked(frame: tuple[np.ndarray, ...]) -> bytes:
        assert asked.wait(10)
        return frame_hash(frame)

    monkeypatch.setattr(pipeline, "frame_hash", hash_when_asked)
    assert [hashes for _, _, hashes in hashed(launch, spans(2), 1)] == [expected(*span) for span in spans(2)]


def test_without_looking_ahead_nothing_happens_before_it_is_asked_for_and_in_no_other_thread() -> None:
    device, before = Device(), threading.active_count()
    batches = hashed(device, spans(3), 0)
    assert device.log == []
    next(batches)
    assert device.log == [("launch", 0), ("wait", 0)] and threading.active_count() == before


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
@pytest.mark.parametrize("at", ["launch", "wait"])
@pytest.mark.parametrize("fails", [0, 1, 3, 6])
def test_an_error_comes_when_all_batches_before_it_are_out(ahead: int, at: str, fails: int) -> None:
    found = []
    with pytest.raises(RuntimeError, match="out of memory"):
        for first, _, hashes in hashed(Device(fails, at), spans(7), ahead):
            assert hashes == expected(first, len(hashes))
            found.append(first // 3)
    assert found == list(range(fails)) and threads() == 0


def broken_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(frame: tuple[np.ndarray, ...]) -> bytes:
        raise MemoryError

    monkeypatch.setattr(pipeline, "frame_hash", broken)


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_of_a_hash_comes_out(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_hash(monkeypatch)
    with pytest.raises(MemoryError):
        list(hashed(Device(), spans(4), ahead))
    assert threads() == 0


@pytest.mark.parametrize("taken", range(6))
def test_closing_early_ends_the_threads_and_launches_nothing_more(taken: int) -> None:
    device = Device()
    batches = hashed(device, spans(9), 2)
    for _ in range(taken):
        next(batches)
    if taken:
        assert threads() > 0
    log = list(device.log)
    batches.close()
    assert threads() == 0 and device.log == log


@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupt_of_the_caller_ends_the_threads(stop: Callable[[], BaseException]) -> None:
    batches = hashed(Device(), spans(9), 2)
    next(batches)
    with pytest.raises((KeyboardInterrupt, GeneratorExit)):
        batches.throw(stop())
    assert threads() == 0
