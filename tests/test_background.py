"""Work in a thread of its own: in order, not too much of it waiting, failures where the owner sees them, and an end always."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator

import pytest

from nvc.codec.background import Background

SOON = 10.0  # seconds: by far enough for what takes none


class Gate:
    """Work that holds at each piece until it is let through."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.begun, self.open = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, piece: int) -> None:
        self.begun.release()
        assert self.open.acquire(timeout=SOON)
        self.done.append(piece)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    for _ in range(100):
        made.open.release()


def in_thread(call: object) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_pieces_are_done_in_order_in_another_thread_and_all_before_finish_returns() -> None:
    seen: list[tuple[int, int]] = []
    work = Background(lambda piece: seen.append((piece, threading.get_ident())), 3)
    for piece in range(100):
        work.put(piece)
    work.finish()
    assert [piece for piece, _ in seen] == list(range(100))
    assert {thread for _, thread in seen}.isdisjoint({threading.get_ident()})


def test_so_many_wait_and_the_next_is_not_taken_before_one_is_begun(gate: Gate) -> None:
    work = Background(gate, 2)
    work.put(0)
    assert gate.begun.acquire(timeout=SOON)
    work.put(1)
    work.put(2)
    third = in_thread(lambda: work.put(3))
    third.join(0.2)
    assert third.is_alive()
    gate.open.release()
    third.join(SOON)
    assert not third.is_alive() and gate.done == [0]
    for _ in range(3):
        gate.open.release()
    work.finish()
    assert gate.done == [0, 1, 2, 3]


def test_what_work_raises_comes_with_every_later_call_and_nothing_more_is_done() -> None:
    done: list[int] = []

    def work(piece: int) -> None:
        if piece == 3:
            raise OSError(28, "full")
        done.append(piece)

    background = Background(work, 2)
    with pytest.raises(OSError, match="full"):
        for piece in range(100):
            background.put(piece)
    for call in (lambda: background.put(0), background.finish):
        with pytest.raises(OSError, match="full"):
            call()
    assert done == [0, 1, 2] and background.stop(SOON)


def test_a_failure_wakes_an_owner_that_waits_for_room(gate: Gate) -> None:
    def work(piece: int) -> None:
        gate(piece)
        raise OSError(32, "gone")

    background = Background(work, 1)
    background.put(0)
    assert gate.begun.acquire(timeout=SOON)
    background.put(1)
    found: list[BaseException] = []

    def put() -> None:
        try:
            background.put(2)
        except OSError as error:
            found.append(error)

    waiting = in_thread(put)
    gate.open.release()
    waiting.join(SOON)
    assert not waiting.is_alive() and len(found) == 1


def test_stopping_drops_what_waits_and_ends_after_the_piece_at_hand(gate: Gate) -> None:
    work = Background(gate, 2)
    for piece in range(3):
        work.put(piece)
    assert gate.begun.acquire(timeout=SOON)
    assert not work.stop(0.05)  # it is at piece 0
    for _ in range(3):
        gate.open.release()
    assert work.stop(SOON) and gate.done == [0]


def test_without_work_there_is_no_thread() -> None:
    before = threading.active_count()
    work = Background(lambda piece: None, 1)
    assert threading.active_count() == before
    work.finish()
    assert work.stop(0.0)


def test_a_piece_that_is_done_is_let_go(gate: Gate) -> None:
    class Piece:
        pass

    done = threading.Event()
    work: Background[Piece] = Background(lambda piece: done.set(), 2)
    piece = Piece()
    gone = threading.Event()
    weakref.finalize(piece, gone.set)
    work.put(piece)
    del piece
    assert done.wait(SOON) and gone.wait(SOON)
    work.finish()
