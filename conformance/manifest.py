"""Reads the suite's manifest as strictly as the files it lists: a vector that is not what it was made as must never pass."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from .ref_container import all_limits
from .suite import FOLDER, FORMAT, GROUPS, KEYS, MANIFEST, OK, ManifestError, Salvage, Vector

OPTIONAL = frozenset({"frames", "limits", "salvage"})
CODE = r"(?:not_nvc|truncated|corrupt|invalid|unsupported|limit)\.[a-z0-9_]+|verify\.frame"  # SPEC 10 and 8.8
_NAME = r"([a-z0-9]+(?:-[a-z0-9]+)*)/[a-z0-9]+(?:[-_.][a-z0-9]+)*"
_SHA256 = r"[0-9a-f]{64}"


def load(folder: Path = FOLDER) -> tuple[Vector, ...]:
    """The vectors of folder/manifest.json, in its order.

    ManifestError, a line for people, unless every entry keeps the rules and every file is there, intact and listed.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except OSError as error:
        raise ManifestError(f"{folder / MANIFEST}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # of json, of UTF-8 and our own
        raise ManifestError(f"{folder / MANIFEST}: {error}") from error
    _require(isinstance(document, dict) and document.keys() == {"format", "vectors"}, "it is not a map of format and vectors")
    _require(type(document["format"]) is int and document["format"] == FORMAT, f"its format is not {FORMAT}")
    _require(isinstance(document["vectors"], list) and len(document["vectors"]) > 0, "it lists no vectors")
    names = Counter(str(entry["name"]) for entry in document["vectors"] if isinstance(entry, dict) and "name" in entry)
    for name, count in names.items():
        _require(count == 1, f"{name}: there are {count} vectors of this name")
    vectors = tuple(_vector(entry, folder) for entry in document["vectors"])
    listed = {vector.file for vector in vectors}
    for path in sorted(folder.rglob("*.nvc")):
        file = path.relative_to(folder).as_posix()
        _require(file in listed, f"the file {file} is in no vector")
    return vectors


def _vector(entry: Any, folder: Path) -> Vector:
    _require(isinstance(entry, dict), f"{entry!r:.40} is no vector")
    name, keys = entry.get("name"), entry.keys()
    _require(_matches(_NAME, name), f"{name!r:.40} is not the name of a vector")
    _require(name.partition("/")[0] in GROUPS, f"{name}: unknown group")
    _require(keys >= KEYS - OPTIONAL, f"{name}: {', '.join(sorted(KEYS - OPTIONAL - keys))} missing")
    _require(keys <= KEYS, f"{name}: unknown key {', '.join(sorted(keys - KEYS))}")
    about, clauses, expect = entry["about"], entry["clauses"], entry["expect"]
    _require(_text(about) and len(about.splitlines()) == 1, f"{name}: about is not one line")
    _require(isinstance(clauses, list) and len(clauses) > 0 and all(map(_text, clauses)), f"{name}: clauses are no list of names")
    _require(expect == OK or _matches(CODE, expect), f"{name}: expect is neither ok nor an error code")
    _require(("frames" in entry) == (expect == OK), f"{name}: frames must be there if and only if ok is expected")
    frames = entry.get("frames", [])
    _require(isinstance(frames, list) and (len(frames) > 0) == (expect == OK), f"{name}: it has no frames")
    _require(all(_matches(_SHA256, frame) for frame in frames), f"{name}: a frame is not a SHA-256 in hex")
    limits = entry.get("limits", {})
    _require(isinstance(limits, dict) and all(type(limit) is int for limit in limits.values()), f"{name}: limits are no numbers")
    try:
        all_limits(limits)
    except ValueError as error:
        raise ManifestError(f"{MANIFEST}: {name}: {error}") from error
    salvage = _salvage(entry["salvage"], name) if "salvage" in entry else None
    data = _intact(name, folder, entry["file"], entry["sha256"])
    return Vector(name, data, about, tuple(clauses), expect, tuple(frames), limits, salvage)


def _salvage(entry: Any, name: str) -> Salvage:
    _require(name.startswith("salvage/"), f"{name}: only the group salvage has that key")
    _require(isinstance(entry, dict) and entry.keys() == {"frames", "lost"}, f"{name}: salvage is not a map of frames and lost")
    frames, lost = entry["frames"], entry["lost"]
    _require(
        isinstance(frames, list) and all(_row(row, int, str) and _matches(_SHA256, row[1]) for row in frames),
        f"{name}: a salvaged frame is not a number and a SHA-256",
    )
    _require(
        isinstance(lost, list) and all(_row(row, int, int, str) and _matches(CODE, row[2]) for row in lost),
        f"{name}: a gap is not a first frame, a number of frames and an error code",
    )
    parts = sorted([(number, 1) for number, _ in frames] + [(first, count) for first, count, _ in lost])
    _require(frames == sorted(frames) and lost == sorted(lost), f"{name}: salvaged frames or gaps are not in order")
    end = 0
    for first, count in parts:
        _require(first == end and count > 0, f"{name}: frame {end} is neither salvaged nor lost, or twice")
        end += count
    return Salvage(tuple((row[0], row[1]) for row in frames), tuple((row[0], row[1], row[2]) for row in lost))


def _intact(name: str, folder: Path, file: Any, sha256: Any) -> bytes:
    """The content of the vector's file, which has that SHA-256."""
    _require(file == f"{name}.nvc", f"{name}: file is not {name}.nvc")
    try:
        data = (folder / f"{name}.nvc").read_bytes()
    except OSError as error:
        raise ManifestError(f"{folder / name}.nvc: {error.strerror or error}") from error
    _require(hashlib.sha256(data).hexdigest() == sha256, f"{name}: the SHA-256 of {file} is not that of the manifest")
    return data


def _require(rule: bool, message: str) -> None:
    if not rule:
        raise ManifestError(f"{MANIFEST}: {message}")


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _matches(pattern: str, value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _row(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and [type(item) for item in value] == list(kinds)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python by itself would keep the last of two equal keys."""
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key {key!r} is there twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
