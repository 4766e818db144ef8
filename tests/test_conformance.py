"""This decoder conforms: every vector in every way of decoding, by the command that the README names."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from nvc.conformance import manifest


def test_nvc_passes_every_vector_in_every_way_and_skips_none() -> None:
    command = [sys.executable, "-m", "nvc.cli", "conformance", "run", "--device", "cpu", "-q", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    told = json.loads(done.stdout)
    assert (told["failures"], told["skips"], done.returncode) == ([], [], 0), done.stderr
    assert told["conforms"] is True
    assert told["passed"] == len(manifest.load()) > 900


def test_the_reference_as_a_command_passes_what_a_command_can_be_asked() -> None:
    command = [sys.executable, "-m", "nvc.cli", "conformance", "run", "-q", "--json", "--only", "*/*-crc*", "--only", "natural/*"]
    decoder = f"{sys.executable} conformance/reference.py {{in}} {{out}}"
    done = subprocess.run([*command, "--decoder", decoder], capture_output=True, text=True, cwd=manifest.FOLDER.parent.parent)
    told = json.loads(done.stdout)
    assert (told["failures"], told["failed"], done.returncode) == ([], 0, 0), done.stderr
    assert told["passed"] > 20
