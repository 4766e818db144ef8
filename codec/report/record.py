"""What is known of a run so far, in a small file beside the run's own: a report that was cut off goes on from these."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from ..outputs import atomic_file

_NUMBERS = re.compile(r"\[[\s\d.,eE+-]+\](?=,?$)", re.MULTILINE)  # with a bracket at the end of a line, so not within a string


class Record:
    """A dictionary of JSON values in a file, which is complete after every `put`; a file that is no such thing counts as none."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        if os.path.exists(path):
            with open(path, "rb") as file:
                self._values = _dictionary(file.read())

    def get(self, name: str) -> Any:
        """A value, None where it is not known."""
        return self._values.get(name)

    def put(self, **values: Any) -> None:
        """Add values, and keep all."""
        self._values |= values
        write_json(self.path, self._values)

    def clear(self) -> None:
        """Forget everything; the file stays until the next `put`."""
        self._values = {}


def write_json(path: str, value: Any) -> None:
    """Write a JSON file as a whole or not at all, lists of numbers on one line each; OutputError."""
    text = _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), json.dumps(value, indent=1, ensure_ascii=False))
    with atomic_file(path, overwrite=True) as file:
        file.write((text + "\n").encode())


def _dictionary(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
