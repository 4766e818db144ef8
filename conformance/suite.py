"""Conformance vectors on disk: files, what each must decode to, and the manifest that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "vectors"
MANIFEST = "manifest.json"
FORMAT = 1
GROUPS = ("valid", "natural", "limits", "invalid", "unsupported", "salvage")
OK = "ok"
KEYS = frozenset({"name", "file", "sha256", "about", "clauses", "expect", "frames", "limits", "salvage"})


class ManifestError(Exception):
    """The manifest or a file that it names is not as it must be; no decoder is to blame."""


@dataclass(frozen=True)
class Salvage:
    """What is left of a damaged file (SPEC 4.7): frames by number with their SHA-256, and gaps (first, frames, code)."""

    frames: tuple[tuple[int, str], ...]
    lost: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Vector:
    """One file of the suite and the one right answer to it.

    `expect` is "ok" or an error code; `frames` are the SHA-256, in hex, of the planes of each frame of an ok vector. `limits`
    are those of SPEC 9 that the decoder must be given, beside its defaults; `clauses` name the rules that the file tests.
    """

    name: str  # group/slug
    data: bytes
    about: str
    clauses: tuple[str, ...]
    expect: str = OK
    frames: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    salvage: Salvage | None = None

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]

    @property
    def file(self) -> str:
        """Where the file lies in the folder of the manifest."""
        return self.name + ".nvc"


def save(vectors: Sequence[Vector], folder: Path = FOLDER) -> None:
    """Write files and manifest; files of vectors that are no more are removed."""
    keep = {vector.file for vector in vectors}
    for path in folder.rglob("*.nvc"):
        if path.relative_to(folder).as_posix() not in keep:
            path.unlink()
    for vector in vectors:
        path = folder / vector.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(vector.data)
    (folder / MANIFEST).write_text(manifest(vectors), encoding="utf-8")


def manifest(vectors: Sequence[Vector]) -> str:
    """The text of manifest.json: one vector a line, so that changes can be read."""
    rows = ",\n".join(json.dumps(_row(vector)) for vector in vectors)
    return f'{{"format": {FORMAT}, "vectors": [\n{rows}\n]}}\n'


def _row(vector: Vector) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": vector.name,
        "file": vector.file,
        "sha256": hashlib.sha256(vector.data).hexdigest(),
        "about": vector.about,
        "clauses": list(vector.clauses),
        "expect": vector.expect,
    }
    if vector.expect == OK:
        row["frames"] = list(vector.frames)
    if vector.limits:
        row["limits"] = dict(vector.limits)
    if vector.salvage is not None:
        row["salvage"] = {"frames": vector.salvage.frames, "lost": vector.salvage.lost}
    return row
