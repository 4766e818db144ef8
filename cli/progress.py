"""Progress on stderr: one line that rewrites itself on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time

PLAIN_SECONDS = 10.0
TERMINAL_SECONDS = 0.2


def printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey: names and metadata may hold anything."""
    return "".join(c if c.isprintable() else "?" for c in text)


class ProgressLine:
    """Shows lines no more often than is useful; `quiet` shows none, `verbose` details too and plain lines ten times as often."""

    def __init__(self, quiet: bool, verbose: bool) -> None:
        self.quiet, self.verbose, self.terminal = quiet, verbose and not quiet, sys.stderr.isatty()
        self.started = time.monotonic()
        self._next = 0.0
        self._width = 0

    def show(self, text: str, final: bool = False) -> None:
        """Show `text` if it is time, or if it is the `final` one."""
        now = time.monotonic()
        if self.quiet or (now < self._next and not final):
            return
        self._next = now + (TERMINAL_SECONDS if self.terminal else PLAIN_SECONDS / 10 if self.verbose else PLAIN_SECONDS)
        if self.terminal:
            sys.stderr.write("\r" + text.ljust(self._width) + ("\n" if final else ""))
            self._width = len(text)
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """Say something that stays."""
        if not self.quiet:
            sys.stderr.write(f"nvc: {printable(text)}\n")

    def detail(self, text: str) -> None:
        """Say something that only -v shows."""
        if self.verbose:
            self.note(text)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def left(self, done: float) -> str:
        """Time left as m:ss when a share `done` of the work is behind."""
        return clock(self.elapsed() * (1 - done) / done) if done > 0 else "?"


def clock(seconds: float) -> str:
    """h:mm:ss or m:ss."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
