"""Where the figures of a bench come from: date, device, versions, commit, command; the lines above its tables."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from jobs import heading


def record(script: str, options: argparse.Namespace, arguments: Sequence[str], *packages: str) -> str:
    """Of `bench/{script}.py` called with `arguments`; `packages` are those whose versions matter besides torch's."""
    versions = [f"{name} {version(name)}" for name in packages]
    return f"{', '.join([heading(options), *versions, f'commit {commit()}', processor()])}\n\n    {command(script, arguments)}\n"


def command(script: str, arguments: Sequence[str]) -> str:
    """What to type, with the folder of the clips as a variable."""
    text = shlex.join(["python", f"bench/{script}.py", *arguments])
    folder = os.environ.get("NVC_CLIPS")
    return text.replace(folder.rstrip("/") + "/", "$NVC_CLIPS/") if folder else text


def commit() -> str:
    """Of this checkout, `-dirty` where files differ from it; in a copy that git does not know, what NVC_COMMIT says."""
    git = ["git", "-C", str(Path(__file__).resolve().parent.parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("NVC_COMMIT", "unknown")


def version(package: str) -> str:
    """Of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def processor() -> str:
    """The model of the CPU, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
