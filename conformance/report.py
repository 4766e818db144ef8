"""What came of a conformance run: a verdict for every vector, as JSON and as a table."""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

PASS, FAIL, SKIP = "pass", "fail", "skip"
COUNTS = {PASS: "passed", FAIL: "failed", SKIP: "skipped"}


@dataclass(frozen=True)
class Result:
    """One vector decoded in one way; `reason` says why it failed or was skipped."""

    vector: str
    way: str
    verdict: str  # PASS, FAIL or SKIP
    reason: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """All results of a run over `vectors`, in their order."""

    decoder: str
    vectors: tuple[str, ...]
    results: tuple[Result, ...]
    seconds: float

    def verdict(self, vector: str) -> str:
        """PASS where it passed in at least one way and in each that was not skipped; SKIP where all were skipped."""
        verdicts = self._by_vector.get(vector, [])
        if PASS in verdicts and set(verdicts) <= {PASS, SKIP}:
            return PASS
        return SKIP if verdicts and set(verdicts) == {SKIP} else FAIL

    @property
    def passed(self) -> bool:
        """Whether vectors passed, and none failed; a run that tested nothing has not passed."""
        verdicts = [self.verdict(vector) for vector in self.vectors]
        return PASS in verdicts and FAIL not in verdicts

    def counts(self, group: str | None = None) -> dict[str, int]:
        """Vectors passed, failed and skipped, of a group or of all."""
        chosen = [vector for vector in self.vectors if group is None or vector.split("/")[0] == group]
        verdicts = [self.verdict(vector) for vector in chosen]
        return {"vectors": len(chosen)} | {name: verdicts.count(verdict) for verdict, name in COUNTS.items()}

    def reasons(self, verdict: str) -> list[Result]:
        """The results that are not passes, of one kind; a vector without any result is one that failed."""
        tested = {result.vector for result in self.results}
        untested = [vector for vector in self.vectors if vector not in tested]
        silent = [Result(vector, "all", FAIL, "was not tested", 0.0) for vector in untested]
        return [result for result in (*self.results, *silent) if result.verdict == verdict]

    @property
    def slowest(self) -> Result | None:
        """The decoding that took longest."""
        return max(self.results, key=lambda result: result.seconds, default=None)

    def to_json(self) -> dict[str, Any]:
        """One object: totals, counts by group, the slowest decoding, failures, what was skipped, and every result."""
        slowest = self.slowest
        return {
            "decoder": self.decoder,
            "conforms": self.passed,
            **self.counts(),
            "decodings": sum(result.verdict != SKIP for result in self.results),
            "seconds": round(self.seconds, 3),
            "slowest": slowest and {"vector": slowest.vector, "way": slowest.way, "seconds": round(slowest.seconds, 3)},
            "groups": {group: self.counts(group) for group in self._groups()},
            "failures": [_brief(result) for result in self.reasons(FAIL)],
            "skips": [_brief(result) for result in self.reasons(SKIP)],
            "results": [asdict(result) | {"seconds": round(result.seconds, 4)} for result in self.results],
        }

    def lines(self) -> list[str]:
        """A table of the groups, one line for each failure and each reason to skip, and the verdict last."""
        lines = [f"{'group':<14}{'vectors':>8}{'passed':>8}{'failed':>8}{'skipped':>8}"]
        for group in [*self._groups(), None]:
            cells = "".join(f"{number:>8}" for number in self.counts(group).values())
            lines.append(f"{group or 'all':<14}{cells}")
        lines += [f"FAIL {result.vector} ({result.way}): {result.reason}" for result in self.reasons(FAIL)]
        skipped = defaultdict(list)
        for result in self.reasons(SKIP):
            skipped[f"({result.way}): {result.reason}"].append(result.vector)
        lines += [f"SKIP {', '.join(vectors)} {reason}" for reason, vectors in skipped.items()]
        total, tested = self.counts(), sum(result.verdict != SKIP for result in self.results)
        lines.append(f"{tested} decodings in {self.seconds:.1f} s")
        if self.slowest is not None:
            lines[-1] += f", at most {self.slowest.seconds:.2f} s each: {self.slowest.vector} ({self.slowest.way})"
        verdict = f"{'passed' if self.passed else 'FAILED'}: {self.decoder}: {total['passed']} of {total['vectors']} vectors"
        return [*lines, verdict + (f", {total['skipped']} skipped" if total["skipped"] else "")]

    @functools.cached_property
    def _by_vector(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for result in self.results:
            found.setdefault(result.vector, []).append(result.verdict)
        return found

    def _groups(self) -> list[str]:
        return list(dict.fromkeys(vector.split("/")[0] for vector in self.vectors))


def _brief(result: Result) -> dict[str, str]:
    return {"vector": result.vector, "way": result.way, "reason": result.reason}
