"""Which vectors test which rule of SPEC.md: the list of rules is read from the text, and COVERAGE.md shows it with no gap."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .suite import OK, Vector

FOLDER = Path(__file__).resolve().parent
SPEC = FOLDER.parent / "bitstream" / "SPEC.md"
COVERAGE = FOLDER / "COVERAGE.md"

NUMBERED = re.compile(r"\*\*([A-Z]\d+)\*\*")
CODE = re.compile(r"`([a-z_]+\.[a-z_]+)`")

ERRORS = "10"  # the section of all codes, each of which is a rule too
SHOWN, WIDTH = 4, 100  # vectors named, characters of a rule's text
HEADING = """# Which files test which rule of SPEC.md

Written by `python -m nvc.conformance.generate`; a test compares it with the text and the vectors, and fails where a rule has
none.
"""

# What no file can show, because it is asked of writers, or of how a reader works: the tests that do.
TESTS: Mapping[str, tuple[str, ...]] = {
    "L3": ("test_container_lies.py::test_every_lie_costs_little_memory",),
    "E2": ("test_container.py::test_arbitrary_bytes_behind_valid_beginnings_are_refused_by_name",),
    "W1": ("test_container.py::test_a_tiny_file_has_these_bytes",),
    "W2": ("test_encode.py::test_no_segment_is_written_whose_sums_could_pass_2_24",),
    "W3": ("test_container.py::test_a_tiny_file_has_these_bytes",),
}
OF_EDITORS: Mapping[str, str] = {
    "W4": "asked of those who extend the format",
    "W5": "asked of editors; nvc has none",
}

# The tables whose rows are rules: section, name of the first column, column of the rule's name, and what comes before it.
TABLES = (
    ("3.1", "first bytes", "damage", "damage."),
    ("3.6", "method", "method", "packing."),
    ("4.2", "kind", "name", "section."),
    ("7.1", "kind", "kind", "kind."),
    ("7.2", "mode", "name", "mode."),
    ("8.1", "operation", "operation", "bound."),
    ("8.4", "code", "operation", "operation."),
    ("8.5", "function", "function", "function."),
    ("8.6", "number", "table", "table."),
    ("9", "limit", "limit", ""),
)
ELEMENTS = {"3.1": "prologue.", "3.2": "chunk.", "3.3": "HEAD.", "4.1": "segment."}


@dataclass(frozen=True)
class Rule:
    """A rule that can be tested: its name, the section that it stands in, and the beginning of its text."""

    name: str
    section: str
    text: str


def rules(spec: str) -> list[Rule]:
    """All rules of SPEC.md in the order of the text: numbered ones, then the rows of each section's tables, then the codes."""
    found: list[Rule] = []
    for section, text in _sections(spec):
        found += _numbered(section, text)
        for rows in _tables(text):
            found += _rows(section, rows)
        if section == ERRORS:
            found += [Rule(code, section, "") for code in dict.fromkeys(CODE.findall(text))]
    return found


def tested(vectors: Sequence[Vector]) -> dict[str, list[str]]:
    """For each rule the names of the vectors that test it: those that say so, and for a code those that expect it."""
    names: dict[str, list[str]] = {}
    for vector in vectors:
        for rule in dict.fromkeys([*vector.clauses, vector.expect]):
            names.setdefault(rule, []).append(vector.name)
    return names


def gaps(spec: str, vectors: Sequence[Vector]) -> list[str]:
    """The rules that nothing tests, and the names among the clauses of vectors that are no rules."""
    found = tested(vectors)
    known = {rule.name for rule in rules(spec)}
    untested = [name for name in known if name not in found and name not in TESTS and name not in OF_EDITORS]
    return sorted(untested) + sorted(set(found) - known - {OK})


def text(spec: str, vectors: Sequence[Vector]) -> str:
    """COVERAGE.md."""
    found = tested(vectors)
    lines = [HEADING, f"{len(vectors)} vectors, {len(rules(spec))} rules.", ""]
    lines += ["| section | rule | text | tested by |", "|---|---|---|---|"]
    for rule in rules(spec):
        names = found.get(rule.name, [])
        shown = [f"{len(names)}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"] if names else []
        shown += [f"`tests/{test}`" for test in TESTS.get(rule.name, ())]
        shown += [OF_EDITORS[rule.name]] if rule.name in OF_EDITORS else []
        start = rule.text if len(rule.text) <= WIDTH else rule.text[:WIDTH].rsplit(" ", 1)[0] + " ..."
        lines.append(f"| {rule.section} | {rule.name} | {start} | {'; '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _sections(spec: str) -> Iterator[tuple[str, str]]:
    parts = re.split(r"^#+ (\d+(?:\.\d+)?) [^\n]*\n", spec, flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def _numbered(section: str, text: str) -> Iterator[Rule]:
    _, *parts = NUMBERED.split(text)
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        yield Rule(name, section, " ".join(re.split(r"\n\n|\n- |\n\d\. |\n\|", body)[0].split()))


def _tables(text: str) -> Iterator[list[dict[str, str]]]:
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        yield [dict(zip(names, row, strict=True)) for row in rows]


def _rows(section: str, rows: Sequence[Mapping[str, str]]) -> Iterator[Rule]:
    first = next(iter(rows[0]))
    if first == "offset" and section in ELEMENTS:  # of the fields those that a reader checks
        yield from (Rule(ELEMENTS[section] + row["field"], section, row["rule"]) for row in rows if "else `" in row["rule"])
    for number, column, name, before in TABLES:
        if (number, column) == (section, first) and name in rows[0]:
            for row in rows:
                if row.get("reach") != "0":
                    yield Rule(before + re.sub(r"^\d ", "", row[name]).partition(",")[0], section, list(row.values())[-1])
