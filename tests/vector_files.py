"""A suite of seven conformance vectors, made from random networks without the generators of the real one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvc_files import network_file
from test_decode import with_wrong_hash

from nvc.conformance import runner
from nvc.conformance.report import FAIL, Report
from nvc.conformance.suite import Vector

SHA = "0" * 64


@dataclass(frozen=True)
class Case:
    """A vector and what it decodes to: the samples of its frames, or an error code."""

    name: str
    data: bytes
    samples: tuple[bytes, ...] = ()
    expect: str = "ok"
    extra: Mapping[str, Any] | None = None

    def entry(self) -> dict[str, Any]:
        """What the manifest says of it."""
        found = {
            "name": self.name,
            "file": f"{self.name}.nvc",
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "about": "a file of the runner's test",
            "clauses": ["P1"],
            "expect": self.expect,
            **(self.extra or {}),
        }
        if self.expect == "ok":
            found["frames"] = [hashlib.sha256(frame).hexdigest() for frame in self.samples]
        return found


def a_network(seed: int) -> tuple[bytes, tuple[bytes, ...]]:
    """A file and the samples of each of its frames."""
    data, frames = network_file(seed)
    return data, tuple(b"".join(plane.astype("uint8").tobytes() for plane in frame) for frame in frames)


def lossy(samples: tuple[bytes, ...]) -> dict[str, Any]:
    """What is left where the second of two segments is damaged."""
    half = len(samples) // 2
    kept = [[number, hashlib.sha256(frame).hexdigest()] for number, frame in enumerate(samples[:half])]
    return {"salvage": {"frames": kept, "lost": [[half, half, "corrupt.payload_crc"]]}}


def make_cases() -> tuple[Case, ...]:
    (first, one), (second, two) = a_network(29), a_network(18)  # two equal segments of seven frames that all differ, both
    segment = second.rfind(b"SEGM")
    damaged = second[: segment + 30] + bytes([second[segment + 30] ^ 1]) + second[segment + 31 :]
    return (
        Case("valid/first", first, one),
        Case("valid/second", second, two),
        Case("limits/few-frames", second, (), "limit.frames", {"limits": {"max_frames": 3}}),
        Case("invalid/cut", second[:200], (), "truncated.chunk"),
        Case("invalid/wrong-frame", with_wrong_hash(second, 1), (), "verify.frame"),
        Case("unsupported/no-nvc", b"RIFF" + first[4:], (), "not_nvc.magic"),
        Case("salvage/damaged", damaged, (), "corrupt.payload_crc", lossy(two)),
    )


CASES = make_cases()
NAMES = [case.name for case in CASES]


def write(folder: Path, cases: Sequence[Case], entries: Sequence[object] | None = None) -> Path:
    """Write the files and a manifest, by default of just these files, to a folder, which is given back."""
    for case in cases:
        path = folder / f"{case.name}.nvc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.data)
    listed = [case.entry() for case in cases] if entries is None else entries
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "vectors": listed}))
    return folder


def saved(hold: bool) -> tuple[list[tuple[int, bytes]], list[tuple[int, int, str]]]:
    """What a right salvage of salvage/damaged gives."""
    samples = CASES[1].samples
    return list(enumerate(samples[:7] + (samples[6:7] * 7 if hold else ()))), [(7, 7, "corrupt.payload_crc")]


def one(vectors: Sequence[Vector], name: str) -> list[Vector]:
    """The vector of that name alone."""
    return [vector for vector in vectors if vector.name == name]


def run(vectors: Sequence[Vector], folder: Path, decoder: runner.Decoder, timeout: float = 10.0, jobs: int = 1) -> Report:
    """The report of the runner on a decoder."""
    return runner.run(vectors, folder, decoder, timeout, jobs)


def failures(report: Report) -> dict[tuple[str, str], str]:
    """The reasons of all that failed, by vector and way."""
    return {(result.vector, result.way): result.reason for result in report.reasons(FAIL)}
