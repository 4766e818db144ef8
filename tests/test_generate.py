"""The vectors in the repository are those that the generator writes, and it writes none whose answer is in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nvc.conformance import generate, manifest, suite
from nvc.conformance.suite import Vector

SAMPLE = next(vector for vector in manifest.load() if vector.name == "valid/shuffle")


def test_the_vectors_in_the_repository_are_written_anew_byte_for_byte() -> None:
    if np.random.default_rng(0).integers(0, 1 << 30, 4).tolist() != [913350807, 683932403, 548828616, 289681278]:
        pytest.skip("this NumPy draws other random numbers than the one that the vectors were made with")
    made = list(generate.vectors())
    assert suite.manifest(made) == (suite.FOLDER / suite.MANIFEST).read_text(encoding="utf-8")
    assert [vector.data for vector in made] == [vector.data for vector in manifest.load()]


@pytest.mark.parametrize("wrong", [replace(SAMPLE, expect="invalid.range"), replace(SAMPLE, data=SAMPLE.data[:-1])])
def test_a_vector_that_the_reference_answers_otherwise_is_not_written(wrong: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "CATALOGUES", (lambda: iter([wrong]),))
    with pytest.raises(ValueError, match="valid/shuffle: the reference answers"):
        list(generate.vectors())


def test_two_vectors_of_one_name_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "CATALOGUES", (lambda: iter([SAMPLE]),) * 2)
    with pytest.raises(ValueError, match="two vectors"):
        list(generate.vectors())


def test_what_is_no_longer_a_vector_is_removed_from_the_folder(tmp_path: Path) -> None:
    def named(*names: str) -> Iterator[Vector]:
        return (replace(SAMPLE, name=f"valid/{name}") for name in names)

    suite.save(list(named("a", "b")), tmp_path)
    suite.save(list(named("b", "c")), tmp_path)
    assert {path.name for path in tmp_path.rglob("*.nvc")} == {"b.nvc", "c.nvc"}
    assert [vector.name for vector in manifest.load(tmp_path)] == ["valid/b", "valid/c"]
