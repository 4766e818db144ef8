"""Planes on their way to the host: the right samples, arrays that stay what they are, and memory that is used again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nvc.codec import staging
from nvc.codec.staging import Pool, Staging, split

CPU = torch.device("cpu")
SHAPES = [(4, 6), (2, 3), (2, 3)]


def values(count: int, seed: int) -> list[Tensor]:
    """Three planes (count, H, W) of integers 0..255 in float32, one of them not contiguous, as crops and slices are."""
    generator = torch.Generator().manual_seed(seed)
    y, cb, cr = (torch.randint(0, 256, (count, *shape), generator=generator).float() for shape in SHAPES)
    return [y.transpose(1, 2).contiguous().transpose(1, 2), cb, cr]


def same(planes: tuple[Any, ...], wanted: list[Tensor]) -> bool:
    return all(
        plane.dtype == np.uint8 and plane.flags.c_contiguous and np.array_equal(plane, value.numpy())
        for plane, value in zip(planes, wanted, strict=True)
    )


# ---- the pool


def counted(most: int) -> tuple[Pool, list[Tensor]]:
    """A pool of buffers of 8 bytes, and all that it has made."""
    made: list[Tensor] = []

    def make() -> Tensor:
        made.append(torch.zeros(8, dtype=torch.uint8))
        return made[-1]

    return Pool(make, most), made


def lent(pool: Pool, number: int) -> Any:
    buffer = pool.take()
    buffer.fill_(number)
    return pool.array(buffer, 5)


def test_a_caller_that_lets_go_gets_the_same_memory_again() -> None:
    pool, made = counted(2)
    for number in range(10):
        array = lent(pool, number)
        assert (array == number).all() and array.shape == (5,)
        del array
    assert len(made) == 1


def test_a_view_of_an_array_keeps_its_memory() -> None:
    pool, made = counted(4)
    view = lent(pool, 1).reshape(5, 1)[2:4, 0].data
    others = [lent(pool, 2), lent(pool, 3)]
    assert bytes(view) == b"\1\1" and len(made) == 3
    del view, others
    assert all((lent(pool, number) == number).all() for number in range(9)) and len(made) == 3


@given(st.integers(1, 4), st.lists(st.integers(0, 5), max_size=30))
@settings(deadline=None)
def test_arrays_that_are_kept_never_change_and_no_more_than_most_are_made(most: int, letting_go: list[int]) -> None:
    pool, made = counted(most)
    kept: dict[int, Any] = {}
    for number, gone in enumerate(letting_go):
        kept[number] = lent(pool, number)
        kept.pop(gone, None)
        assert all((array == key).all() for key, array in kept.items())
    assert len(made) <= most


def test_an_array_may_die_in_another_thread() -> None:
    pool, made = counted(2)
    box = [lent(pool, 1)]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert (lent(pool, 2) == 2).all() and len(made) == 1


# ---- planes


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=3, max_size=3))
def test_split_gives_each_plane_its_samples(count: int, shapes: list[tuple[int, int]]) -> None:
    planes = [np.random.default_rng(i).integers(0, 256, (count, *shape), np.uint8) for i, shape in enumerate(shapes)]
    flat = np.concatenate([plane.reshape(-1) for plane in planes])
    for plane, found in zip(planes, split(flat, count, shapes), strict=True):
        assert np.array_equal(plane, found) and found.base is not None


def test_on_a_processor_planes_are_there_and_the_callers_own() -> None:
    stage = Staging(CPU, 3, SHAPES)
    first, second = values(3, 0), values(2, 1)
    pending = [stage.send(first), stage.send(second)]
    wanted = [[value.clone() for value in group] for group in (first, second)]
    for value in (*first, *second):
        value.fill_(7)
    found = [each.planes() for each in pending]
    assert same(found[0], wanted[0]) and same(found[1], wanted[1])
    found[0][0][:] = 9
    assert same(found[1], wanted[1])


# ---- CUDA, by a stand-in that does what streams do: nothing until somebody waits


class FakeCuda:
    """Streams and events as seen from the host; a copy on a stream happens when an event behind it is waited for."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.side: list[Callable[[], None]] = []  # what the copying stream still has to do
        cuda = self

        class Stream:
            def __init__(self, device: torch.device) -> None:
                pass

            def wait_stream(self, other: object) -> None:
                cuda.log.append(f"wait for {other}")

        class Event:
            def __init__(self, blocking: bool) -> None:
                assert blocking

            def record(self, stream: Stream) -> None:
                cuda.log.append("record")
                self._until = len(cuda.side)

            def synchronize(self) -> None:
                cuda.log.append("synchronize")
                for job in cuda.side[: self._until]:
                    job()
                cuda.side = [lambda: None] * self._until + cuda.side[self._until :]

        self.Stream, self.Event = Stream, Event

    def current_stream(self, device: torch.device) -> str:
        return "computing"

    @contextlib.contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        self.log.append("copying stream")
        yield
        self.log.append("end")


class Lazy:
    """A buffer of host memory that a copy reaches only when its stream gets to it."""

    def __init__(self, cuda: FakeCuda, memory: Tensor) -> None:
        self.cuda, self.memory = cuda, memory

    def __getitem__(self, part: slice) -> Lazy:
        return Lazy(self.cuda, self.memory[part])

    def copy_(self, source: Tensor, non_blocking: bool) -> None:
        assert non_blocking
        self.cuda.log.append("copy")
        self.cuda.side.append(lambda: (self.memory.copy_(source), None)[1])

    def numpy(self) -> Any:
        return self.memory.numpy()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()

    def pinned(size: int, dtype: torch.dtype, pin_memory: bool) -> Lazy:
        assert pin_memory and dtype == torch.uint8
        fake.log.append("page-lock")
        return Lazy(fake, torch.zeros(size, dtype=dtype))

    monkeypatch.setattr(torch.cuda, "Stream", fake.Stream)
    monkeypatch.setattr(torch.cuda, "Event", fake.Event)
    monkeypatch.setattr(torch.cuda, "current_stream", fake.current_stream)
    monkeypatch.setattr(torch.cuda, "stream", fake.stream)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: fake.log.append("keep source"))
    monkeypatch.setattr(staging, "torch", SimpleNamespace(**{**vars(torch), "empty": pinned}))
    return fake


def test_on_cuda_a_batch_is_copied_in_one_piece_behind_its_computation_and_waited_for_only_by_planes(cuda: FakeCuda) -> None:
    stage = Staging(torch.device("cuda"), 3, SHAPES)
    first, second = values(3, 0), values(2, 1)
    pending = [stage.send(first), stage.send(second)]
    sent = ["page-lock", "wait for computing", "copying stream", "copy", "record", "end", "keep source"]
    assert cuda.log == 2 * sent
    assert same(pending[0].planes(), first) and cuda.log == [*2 * sent, "synchronize"]
    assert same(pending[1].planes(), second)


def test_on_cuda_memory_is_locked_for_as_many_batches_as_are_in_use_and_no_more_than_sets(cuda: FakeCuda) -> None:
    stage = Staging(torch.device("cuda"), 3, SHAPES)
    for seed in range(9):
        pending = [stage.send(values(3, 2 * seed)), stage.send(values(3, 2 * seed + 1))]
        assert all(same(each.planes(), values(3, 2 * seed + i)) for i, each in enumerate(pending))
    assert cuda.log.count("page-lock") == 2
    kept = [stage.send(values(3, seed)).planes() for seed in range(3 * staging.SETS)]
    assert all(same(planes, values(3, seed)) for seed, planes in enumerate(kept))
    assert cuda.log.count("page-lock") == staging.SETS
