"""Writes those tables of the README that come from recorded results: each between two comments that name it.

    python bench/readme.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import bunny_table
import rd_tables

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"
ANCHORS = RESULTS / "2026-11-21-anchors.jsonl"


def bunny() -> str:
    """The papers' table."""
    return bunny_table.readme_table(RESULTS / "bunny.jsonl")


def native() -> str:
    """BD-rates at native size."""
    journal = RESULTS / "rd.jsonl"
    if not journal.exists():
        return "No run of nvc at native size is recorded yet; [bench/gpu.md](bench/gpu.md) has the command.\n"
    return rd_tables.readme_table(journal, ANCHORS)


TABLES: dict[str, Callable[[], str]] = {"bunny": bunny, "native": native}


def filled(text: str) -> str:
    """A README with its tables as they are recorded; ValueError where there is no place for one."""
    for name, table in TABLES.items():
        start, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{README.name}: there is no place for the table {name}")
        text = f"{before}{start}\n{table()}\n{end}{after}"
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the README says something else")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    if options.check:
        sys.exit(filled(text) != text)
    README.write_text(filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
