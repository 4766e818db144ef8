"""The manifest of the vectors: a wrong one, or a file that is not what it lists, is one clear error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from vector_files import CASES, NAMES, SHA, write

from nvc.bitstream.constants import Limits
from nvc.conformance import manifest
from nvc.conformance.ref_container import LIMITS
from nvc.conformance.suite import ManifestError, Vector

Found = list[tuple[int, bytes]]
Saved = tuple[Iterable[tuple[int, bytes]], Sequence[tuple[int, int, str]]]
Answer = Callable[[str, Sequence[tuple[int, int]] | None], Iterable[tuple[int, bytes]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("vectors"), CASES)


@pytest.fixture(scope="module")
def vectors(folder: Path) -> tuple[Vector, ...]:
    return manifest.load(folder)


def test_a_right_manifest_gives_all_vectors_in_order(vectors: tuple[Vector, ...]) -> None:
    assert [vector.name for vector in vectors] == NAMES
    for vector, case in zip(vectors, CASES, strict=True):
        assert (vector.data, vector.expect) == (case.data, case.expect)
        assert list(vector.frames) == case.entry().get("frames", [])
    assert vectors[2].limits == {"max_frames": 3}
    assert vectors[6].salvage is not None and vectors[6].salvage.lost == ((7, 7, "corrupt.payload_crc"),)


LOST = [[7, 7, "corrupt.payload_crc"]]
WRONG_ENTRIES: dict[str, tuple[int, dict[str, Any], str]] = {
    "another hash": (0, {"sha256": SHA}, "SHA-256"),
    "a hash that is no text": (0, {"sha256": None}, "SHA-256"),
    "a missing file": (0, {"name": "valid/gone", "file": "valid/gone.nvc"}, "No such file"),
    "a file elsewhere": (0, {"file": "../valid/first.nvc"}, "file is not"),
    "a file of another name": (0, {"file": "valid/second.nvc"}, "file is not"),
    "the same vector twice": (1, CASES[0].entry(), "2 vectors of this name"),
    "the same name for two files": (1, {"name": "valid/first", "file": "valid/first.nvc"}, "2 vectors of this name"),
    "an unknown key": (0, {"note": 1}, "unknown key note"),
    "a missing key": (0, {"clauses": ...}, "clauses missing"),
    "an unknown group": (0, {"name": "odd/first"}, "unknown group"),
    "no group": (0, {"name": "valid"}, "not the name"),
    "a name that is a number": (0, {"name": 3}, "not the name"),
    "ok without the key": (0, {"frames": ...}, "frames"),
    "ok without frames": (0, {"frames": []}, "no frames"),
    "an error with frames": (3, {"frames": [SHA]}, "frames"),
    "an error with empty frames": (3, {"frames": []}, "frames"),
    "a short frame hash": (0, {"frames": [SHA[:16]]}, "not a SHA-256"),
    "a frame that is null": (0, {"frames": [None]}, "not a SHA-256"),
    "frames that are a text": (0, {"frames": SHA}, "no frames"),
    "a code of no class": (3, {"expect": "broken.cut"}, "neither"),
    "an expectation that is null": (3, {"expect": None}, "neither"),
    "a list as expectation": (3, {"expect": ["ok"]}, "neither"),
    "no clauses": (0, {"clauses": []}, "clauses"),
    "a clause that is no text": (0, {"clauses": [4]}, "clauses"),
    "nothing about it": (0, {"about": " "}, "about"),
    "an unknown limit": (2, {"limits": {"max_fun": 3}}, "max_fun"),
    "a limit over the maximum": (2, {"limits": {"max_side": 65536}}, "max_side"),
    "a limit that is true": (2, {"limits": {"max_frames": True}}, "limits are no numbers"),
    "limits that are a list": (2, {"limits": [3]}, "limits are no numbers"),
    "salvage of a valid file": (0, {"salvage": {"frames": [], "lost": []}}, "only the group salvage"),
    "salvage without losses": (6, {"salvage": {"frames": []}}, "not a map"),
    "a gap without a code": (6, {"salvage": {"frames": [], "lost": [[0, 7]]}}, "a gap"),
    "a gap with no such code": (6, {"salvage": {"frames": [], "lost": [[0, 7, "lost"]]}}, "a gap"),
    "a salvaged frame without a hash": (6, {"salvage": {"frames": [[0, None]], "lost": []}}, "a salvaged frame"),
    "a frame both left and lost": (6, {"salvage": {"frames": [[0, SHA]], "lost": [[0, 1, "corrupt.payload_crc"]]}}, "frame 1"),
    "a frame neither left nor lost": (6, {"salvage": {"frames": [[0, SHA]], "lost": [[2, 1, "corrupt.payload_crc"]]}}, "frame 1"),
    "an empty gap": (6, {"salvage": {"frames": [[0, SHA]], "lost": [[1, 0, "corrupt.payload_crc"]]}}, "frame 1"),
    "salvaged frames out of order": (6, {"salvage": {"frames": [[1, SHA], [0, SHA]], "lost": []}}, "not in order"),
}


@pytest.mark.parametrize("wrong", WRONG_ENTRIES)
def test_a_wrong_entry_is_one_clear_error(wrong: str, tmp_path: Path) -> None:
    number, change, reason = WRONG_ENTRIES[wrong]
    entries = [case.entry() for case in CASES]
    entries[number] = {key: value for key, value in {**entries[number], **change}.items() if value is not ...}
    with pytest.raises(ManifestError, match=reason) as caught:
        manifest.load(write(tmp_path, CASES, entries))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "manifest.json"),
        ("[]", "not a map"),
        ('{"format": 1}', "not a map"),
        ('{"format": 1, "vectors": [], "more": 1}', "not a map"),
        ('{"format": 2, "vectors": []}', "format"),
        ('{"format": true, "vectors": []}', "format"),
        ('{"format": 1, "vectors": []}', "no vectors"),
        ('{"format": 1, "vectors": {"name": 1}}', "no vectors"),
        ('{"format": 1, "vectors": [3]}', "no vector"),
        ('{"format": 1, "format": 1, "vectors": []}', "twice"),
        ('{"format": NaN, "vectors": []}', "not JSON"),
        ('{"format": 1, "vectors": [', "manifest.json"),
        ("[" * 100_000, "manifest.json"),
    ],
)
def test_a_wrong_manifest_is_one_clear_error(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match=reason):
        manifest.load(tmp_path)


def test_no_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: No such file"):
        manifest.load(tmp_path)


def test_a_manifest_that_is_no_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        manifest.load(tmp_path)


def test_a_file_that_no_vector_names_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, CASES, [case.entry() for case in CASES[:-1]])
    with pytest.raises(ManifestError, match="salvage/damaged"):
        manifest.load(tmp_path)


def test_the_limits_of_vectors_are_those_that_nvc_can_be_given() -> None:
    assert dict(LIMITS) == {field.name: field.default for field in fields(Limits)}
