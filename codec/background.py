"""A thread of its own for work that comes piece by piece: it is done in order, while whoever hands it over goes on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Piece = TypeVar("Piece")


class Background(Generic[Piece]):
    """Does `work(piece)` for each piece that is `put`, in order; at most `most` wait, beside the one that is being done.

    What `work` raises ends it: nothing that waits is done any more, and every call from then on raises the same. All methods
    belong to one thread, the owner's.
    """

    def __init__(self, work: Callable[[Piece], None], most: int) -> None:
        self._work, self._most = work, most
        self._waiting: deque[Piece] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._failure: BaseException | None = None
        # A daemon, because a write to a pipe that nobody reads never ends, and must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="nvc-background", daemon=True)

    def put(self, piece: Piece) -> None:
        """Hand over a piece, which must not be changed any more; waits while too many wait. The first one starts the thread."""
        if self._thread.ident is None:
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._most)  # a failure leaves none
            self._raise()
            self._waiting.append(piece)
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until all is done; nothing can be put after this."""
        self._close()
        if self._thread.ident is not None:
            self._thread.join()
        self._raise()

    def stop(self, patience: float) -> bool:
        """Give up what waits. Whether the thread has ended: it first does the piece that it is at, within `patience` seconds."""
        with self._changed:
            self._waiting.clear()
        self._close()
        if self._thread.ident is not None:
            self._thread.join(patience)
        return not self._thread.is_alive()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                piece = self._waiting.popleft()
                self._changed.notify_all()
            try:
                self._work(piece)
            except BaseException as failure:
                with self._changed:
                    self._failure = failure
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            del piece  # its memory may be wanted before the next one comes
