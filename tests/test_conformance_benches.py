"""The benches around conformance run as their docstrings say: mutants can be planted, reference and product agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent / "bench"


def script(name: str, *arguments: object, cwd: Path) -> str:
    """The standard output of a bench that ends well."""
    command = [sys.executable, str(BENCH / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_mutant_can_be_planted_and_every_file_of_the_reader_has_some(tmp_path: Path) -> None:
    names = script("mutants.py", "--list", cwd=tmp_path).splitlines()
    assert len(names) > 200
    readers = ("chunks", "container", "segment", "index", "header", "canonical", "packing", "salvage", "program", "analysis")
    for name in (*readers, "bounds", "coefficients", "tensors", "tokens", "coders", "rangecoder"):
        assert any(each.startswith(f"bitstream/{name}.py: ") for each in names), name


def test_reference_and_product_agree_on_a_few_changed_files(tmp_path: Path) -> None:
    told = script("agree.py", "--files", 300, "--pixels", 5, cwd=tmp_path).splitlines()[-1]
    assert told.startswith("300 files") and "of 5 files; 0 disagreements" in told
    assert list(tmp_path.iterdir()) == []


def test_the_largest_segment_is_read(tmp_path: Path) -> None:
    told = script("largest_segment.py", "--numbers", 100_000, cwd=tmp_path)
    assert re.match(r"\d+ numbers from \d+ bytes: [\d.]+ CPU s, peak \d+ MiB", told)
    assert 40_000 < int(told.split()[0]) <= 100_000
