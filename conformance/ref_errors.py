"""The one way in which the reference decoder refuses a file: a code of SPEC 10 and a line for people."""

from __future__ import annotations


class Refused(Exception):
    """The file is refused; `code` is its class and reason, such as `invalid.range`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
