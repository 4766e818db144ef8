"""What bench/bunny.py prints: the published figures beside the measured ones, from the lines of its journal alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jobs
from jobs import Journal, Result

PASSES = 300  # of the papers
CLIP = "bunny.mp4 in RGB, 132 frames of 1280x640"
NAMES = {"hnerv": "HNeRV", "vqnerv": "VQ-NeRV"}
PUBLISHED = {  # dB by millions of parameters; bunny.py has the sources
    "hnerv": {0.35: 30.15, 0.75: 32.81, 1.5: 35.57, 3.0: 37.43},
    "vqnerv": {0.35: 31.06, 0.75: 34.00, 1.5: 36.61, 3.0: 39.05},
}
LOGGED = {("vqnerv", 1.5): 36.82}  # dB in a published training log
COLUMNS = (
    "network",
    "parameters asked for",
    "counted",
    "published dB",
    "float dB",
    "difference",
    "file bytes",
    "bpp",
    "file dB",
    "seconds, float",
    "seconds, file",
)
NONE = "-"

Key = Mapping[str, Any]
Place = tuple[str, float]
"""A model and its millions of parameters."""


def table(places: Sequence[Place], entries: Iterable[tuple[Key, Result]]) -> str:
    """A row for each place; then where the figures come from. Of results of one place and kind the last one counts."""
    found: dict[tuple[str, float, str], Result] = {}
    for key, result in entries:
        found[key["model"], key["parameters"], key["as"]] = result
    pairs = {place: (found.get((*place, "float")), found.get((*place, "file"))) for place in places}
    text = jobs.table(COLUMNS, [row(place, *pair) for place, pair in pairs.items()])
    results = [result for pair in pairs.values() for result in pair if result]
    lines = [f"Made: {made}." for made in dict.fromkeys(origin(result) for result in results)]
    if any(result["together"] > 1 for result in results):
        lines.append("In brackets: so many fits shared the device, and the seconds are those of all of them.")
    return "\n".join([text, *lines]) + "\n" * bool(lines)


def row(place: Place, real: Result | None, file: Result | None) -> list[str]:
    """One line of the table; `real` is the result of the fit in float."""
    model, parameters = place
    published, logged = PUBLISHED[model].get(parameters), LOGGED.get(place)
    counted = (real or file or {}).get("counted")
    return [
        NAMES[model],
        f"{parameters:g} M",
        f"{counted / 1e6:.3f} M" if counted else NONE,
        (f"{published:.2f}" if published else NONE) + (f" (log: {logged:.2f})" if logged else ""),
        f"{real['psnr']:.2f}" if real else NONE,
        f"{real['psnr'] - published:+.2f}" if real and published else NONE,
        str(file["bytes"]) if file else NONE,
        f"{file['bpp']:.4f}" if file else NONE,
        f"{file['psnr']:.2f}" if file else NONE,
        seconds(real),
        seconds(file),
    ]


def seconds(result: Result | None) -> str:
    """Those of a fit, and with how many it shared the device."""
    if not result:
        return NONE
    shared = f" ({result['together']})" if result["together"] > 1 else ""
    return f"{result['seconds']:.0f}{shared}"


def origin(result: Result) -> str:
    """Where and with what a result was made."""
    made = result["made"]
    versions = f"torch {made['torch']}, Python {made['python']}, commit {made['commit']}"
    return f"{made['date']}, {made['device']}, {versions}, launch {result['launch']}"


def readme_table(journal: Path) -> str:
    """The table of the papers' setting for the README, of what a recorded journal holds."""
    places = [(model, parameters) for model, published in PUBLISHED.items() for parameters in published]
    entries = [(json.loads(name), result) for name, result in Journal(journal).results.items()]
    recorded = [
        (key, result)
        for key, result in entries
        if key.get("bench") == "bunny" and key["clip"] == CLIP and key["fit"]["passes"] == PASSES
    ]
    if not any((key["model"], key["parameters"]) in places for key, _ in recorded):
        return "No run of this table is recorded yet; [bench/gpu.md](bench/gpu.md) has the command.\n"
    return table(places, recorded)
