"""Several runs in turns, by one thread: a step of a fit reads nothing on the host, so a device works at all of them at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar


class Run(Protocol):
    """Something that is done in steps."""

    @property
    def done(self) -> bool:
        """Whether no step is left."""

    def advance(self) -> object:
        """Take one step."""


R = TypeVar("R", bound=Run)


def in_turns(runs: Iterable[R], most: int) -> Iterator[R]:
    """The runs, done, in their order. At most `most` of them go on at a time, a step each in turn; `runs` is asked for the next
    one only when there is room for it.

    Who has the next turn depends on the number of steps alone, never on the clock.
    """
    if most < 1:
        raise ValueError(f"{most} runs at a time")
    coming, started = iter(runs), deque[R]()
    while True:
        going = [run for run in started if not run.done]
        while len(going) < most and (run := next(coming, None)) is not None:
            started.append(run)
            going.append(run)
        for run in going:
            if not run.done:
                run.advance()
        while started and started[0].done:
            yield started.popleft()
        if not started and not going:
            return
