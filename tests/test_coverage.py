"""Every rule of SPEC.md has a number or a name, and a vector or a test; COVERAGE.md is what the generator writes."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from nvc.conformance import coverage, manifest, suite

SPEC = coverage.SPEC.read_text(encoding="utf-8")
TESTS = Path(__file__).resolve().parent


def blocks() -> list[str]:
    """The paragraphs, list items and numbered steps of the text behind section 1; rows of tables are rules by their names."""
    text = SPEC[SPEC.index("\n## 2 ") :]
    return [block for block in re.split(r"\n\n|\n(?=- |\d\. |\|)", text) if not block.lstrip().startswith("|")]


def test_every_must_has_a_number() -> None:
    assert [block for block in blocks() if "MUST" in block and not coverage.NUMBERED.search(block)] == []


def test_no_number_or_name_is_given_twice() -> None:
    names = [rule.name for rule in coverage.rules(SPEC)]
    assert len(names) == len(set(names)) > 200


@pytest.mark.parametrize(
    ("name", "section"),
    [("F1", "2"), ("P13", "8.4"), ("HEAD.width", "3.3"), ("segment.flags", "4.1"), ("mode.Laplace", "7.2"),
     ("max_side", "9"), ("operation.haar", "8.4"), ("function.leaky", "8.5"), ("bound.combine", "8.1"),
     ("invalid.range", "10"), ("table.sine", "8.6")],
)  # fmt: skip
def test_rules_of_each_kind_are_found(name: str, section: str) -> None:
    assert [rule.section for rule in coverage.rules(SPEC) if rule.name == name] == [section]


def test_no_rule_is_without_a_vector_or_a_test() -> None:
    assert coverage.gaps(SPEC, manifest.load()) == []


def test_a_rule_without_a_vector_and_a_clause_that_is_none_are_gaps() -> None:
    vectors = manifest.load()
    fewer = [vector for vector in vectors if "T8" not in vector.clauses]
    assert coverage.gaps(SPEC, fewer) == ["T8"]
    strange = replace(vectors[0], clauses=("T8", "T99"))
    assert coverage.gaps(SPEC, [*vectors, strange]) == ["T99"]


def test_the_table_is_that_of_the_vectors() -> None:
    assert coverage.COVERAGE.read_text(encoding="utf-8") == coverage.text(SPEC, manifest.load())


@pytest.mark.parametrize("name", [name for names in coverage.TESTS.values() for name in names])
def test_the_tests_that_stand_for_rules_exist(name: str) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert function in [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_half_of_the_vectors_are_negative_and_all_fit_the_repository() -> None:
    vectors = manifest.load()
    refused = [vector for vector in vectors if vector.expect != suite.OK]
    assert len(vectors) >= 120 and 2 * len(refused) >= len(vectors)
    assert sum(len(vector.data) for vector in vectors) < 6_000_000
