"""Tells whether a decoder conforms: every vector in every way of decoding, to the bit of every frame or to the error code.

What a decoder under test is, the protocols below say; nothing here knows the product. A verdict is `pass` only where all
that was to be compared has been compared and is equal: whatever else happens, an exception included, is a failure.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol

from .report import FAIL, PASS, SKIP, Report, Result
from .suite import OK, Salvage, Vector

PIECES = 5  # ranges that the frames of a vector are cut into, to be asked for at random order

Frames = Iterable[tuple[int, bytes]]
Lost = Sequence[tuple[int, int, str]]


class Deviation(Exception):
    """What a decoder did is not what it has to do; the message is the reason, in one line."""


class Way(Protocol):
    """One way of decoding a file: whole, from a pipe, on another device."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def random(self) -> bool:
        """Whether it is asked for ranges of frames, in any order."""

    def decode(self, path: Path, limits: Mapping[str, int], ranges: Sequence[tuple[int, int]] | None) -> Frames:
        """The frames, each a number and its planes' samples (SPEC 8.8), by a reader with these limits of SPEC 9.

        All of them where `ranges` is None, else those numbered a..b-1 of each range in turn. It raises one of the decoder's
        `refusals` where it refuses the file, and Deviation or anything else where it fails.
        """


class Salvager(Protocol):
    """One way of salvaging a damaged file."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def hold(self) -> bool:
        """Whether the last good frame, or else the first, stands in for each lost one; if not, lost frames are left out."""

    def salvage(self, path: Path, limits: Mapping[str, int]) -> tuple[Frames, Lost]:
        """The frames, and the account of what is lost (SPEC 4.7), complete when the frames have ended; raises as `Way.decode`."""


class Decoder(Protocol):
    """A decoder under test."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """The exceptions that are refusals: each has a `code` of SPEC 10 (`verify.frame`: frames differ from their hashes)."""

    @property
    def takes_limits(self) -> bool:
        """Whether its limits can be set; vectors that need that are skipped where not."""

    def ways(self, valid: bool) -> Sequence[Way]:
        """The ways of decoding valid files, or files that are to be refused; at least one."""

    def salvagers(self) -> Sequence[Salvager]:
        """The ways of salvaging; none where it does not offer that."""


def select(vectors: Sequence[Vector], groups: Sequence[str], patterns: Sequence[str]) -> tuple[Vector, ...]:
    """The vectors of any of the groups whose name matches any of the patterns; all where none are given.

    LookupError where a group or pattern finds nothing.
    """
    for group in groups:
        if not any(vector.group == group for vector in vectors):
            raise LookupError(f"there is no vector in the group {group!r}")
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(vector.name, pattern) for vector in vectors):
            raise LookupError(f"no vector is called {pattern!r}")
    chosen = tuple(
        vector
        for vector in vectors
        if (not groups or vector.group in groups)
        and (not patterns or any(fnmatch.fnmatchcase(vector.name, pattern) for pattern in patterns))
    )
    if not chosen:
        raise LookupError("no vector is both of these groups and called so")
    return chosen


def run(
    vectors: Sequence[Vector],
    folder: Path,
    decoder: Decoder,
    timeout: float,
    jobs: int = 1,
    tell: Callable[[Vector], None] = lambda vector: None,
) -> Report:
    """Decode every vector, whose files lie in `folder`, in every way; `tell` hears of each one that is done, in order.

    What takes over `timeout` seconds fails, though only when it ends. With more than one job `decoder` must be thread-safe.
    """
    started = time.monotonic()
    results: list[Result] = []
    examine = functools.partial(_examine, folder, decoder, timeout)
    pool = ThreadPoolExecutor(jobs)
    try:
        for vector, found in zip(vectors, (map if jobs == 1 else pool.map)(examine, vectors), strict=True):
            results += found
            tell(vector)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the vectors that are still to come
    return Report(decoder.name, tuple(vector.name for vector in vectors), tuple(results), time.monotonic() - started)


def _examine(folder: Path, decoder: Decoder, timeout: float, vector: Vector) -> list[Result]:
    """The results of one vector; never none."""
    if vector.limits and not decoder.takes_limits:
        needed = ", ".join(f"{name} = {value}" for name, value in vector.limits.items())
        return [Result(vector.name, "all", SKIP, f"needs a reader with {needed}", 0.0)]
    path = folder / vector.file
    results = []
    for way in decoder.ways(vector.expect == OK):
        check = functools.partial(_check, vector, path, way, decoder.refusals)
        results.append(_timed(vector.name, way.name, timeout, check))
    if not results:
        results.append(Result(vector.name, "all", FAIL, "the decoder has no way to decode it", 0.0))
    if vector.group == "salvage":
        salvagers = decoder.salvagers()
        if not salvagers:
            results.append(Result(vector.name, "salvage", SKIP, "the decoder is not asked to salvage", 0.0))
        for salvager in salvagers:
            check = functools.partial(_check_salvage, vector, path, salvager, decoder.refusals)
            results.append(_timed(vector.name, salvager.name, timeout, check))
    return results


def _timed(vector: str, way: str, timeout: float, check: Callable[[], None]) -> Result:
    """The verdict of a check, which raises unless all is as it must be."""
    started = time.monotonic()
    try:
        check()
        seconds = time.monotonic() - started
        if not seconds <= timeout:
            raise Deviation(f"took {seconds:.1f} s, over the {timeout:g} s allowed")
    except Deviation as error:
        reason = str(error)
    except (Exception, SystemExit) as error:
        reason = f"crashed: {type(error).__name__}: {error}"
    else:
        return Result(vector, way, PASS, "", seconds)
    return Result(vector, way, FAIL, " ".join(reason.split()), time.monotonic() - started)


def _check(vector: Vector, path: Path, way: Way, refusals: tuple[type[Exception], ...]) -> None:
    """Deviation unless the way gives exactly the frames of the vector, or exactly its error."""
    if vector.expect != OK:
        _check_refusal(vector.expect, lambda: way.decode(path, vector.limits, None), refusals)
        return
    ranges = shuffled_ranges(len(vector.frames), vector.name) if way.random else None
    numbers = [number for span in ranges or [(0, len(vector.frames))] for number in range(*span)]
    wanted = [(number, vector.frames[number]) for number in numbers]
    found: list[tuple[int, str]] = []
    try:
        _collect(way.decode(path, vector.limits, ranges), len(wanted) + 1, found)
    except refusals as error:
        raise Deviation(f"refused with {_code_of(error)} after {len(found)} of {len(wanted)} frames") from error
    compare(wanted, found)


def _check_refusal(expected: str, decode: Callable[[], Frames], refusals: tuple[type[Exception], ...]) -> None:
    """Deviation unless `decode` raises a refusal with the expected code; frames before it are a reader's own business."""
    try:
        count = sum(1 for _ in decode())
    except refusals as error:
        found = _code_of(error)
        if found == expected:
            return
        raise Deviation(f"{expected} expected: refused with {found}") from error
    except Deviation as error:
        raise Deviation(f"{expected} expected: {error}") from error
    raise Deviation(f"{expected} expected: decoded {count} frames")


def _check_salvage(vector: Vector, path: Path, salvager: Salvager, refusals: tuple[type[Exception], ...]) -> None:
    """Deviation unless exactly what the vector says is left and lost; where nothing is left, the file must be refused."""
    wanted = vector.salvage or Salvage((), ())
    if not wanted.frames:
        code = wanted.lost[0][2] if wanted.lost else vector.expect
        _check_refusal(code, lambda: salvager.salvage(path, vector.limits)[0], refusals)
        return
    kept = with_stand_ins(wanted) if salvager.hold else wanted.frames
    found: list[tuple[int, str]] = []
    try:
        frames, lost = salvager.salvage(path, vector.limits)
        _collect(frames, len(kept) + 1, found)
    except refusals as error:
        raise Deviation(f"refused with {_code_of(error)} instead of salvaged") from error
    compare(kept, found)
    if list(lost) == list(wanted.lost):
        return
    raise Deviation(f"the account of losses is {list(lost)}, not {list(wanted.lost)}")


def _collect(frames: Frames, most: int, found: list[tuple[int, str]]) -> None:
    """Adds number and SHA-256 of the first `most` frames to `found`, which is so of use after an exception too."""
    for number, samples in islice(frames, most):
        found.append((number, hashlib.sha256(samples).hexdigest()))


def compare(wanted: Sequence[tuple[int, str]], found: Sequence[tuple[int, str]]) -> None:
    """Deviation unless the frames found, each a number and a SHA-256, are those wanted, in their order."""
    if list(found) == list(wanted):
        return
    for (number, _), (other, _) in zip(wanted, found, strict=False):
        if other != number:
            raise Deviation(f"frame {other} came where frame {number} belongs")
    if len(found) < len(wanted):
        raise Deviation(f"{len(wanted) - len(found)} of {len(wanted)} frames are missing, from frame {wanted[len(found)][0]} on")
    if len(found) > len(wanted):
        raise Deviation(f"more than {len(wanted)} frames")
    wrong = [place for place, (want, got) in enumerate(zip(wanted, found, strict=True)) if got != want]
    (number, expected), (_, hashed) = wanted[wrong[0]], found[wrong[0]]
    same = [other for other, sha256 in wanted if sha256 == hashed]
    what = f"it is frame {same[0]}" if same else f"SHA-256 {hashed[:16]}, not {expected[:16]}"
    raise Deviation(f"frame {number} is wrong: {what} ({len(wrong)} of {len(wanted)} frames differ)")


def with_stand_ins(salvage: Salvage) -> list[tuple[int, str]]:
    """All frames of a damaged file, where each lost one is the last good one before it, or the first good one."""
    numbered = [*salvage.frames, *((number, "") for first, count, _ in salvage.lost for number in range(first, first + count))]
    shown, sha256 = [], salvage.frames[0][1]
    for number, own in sorted(numbered):
        sha256 = own or sha256
        shown.append((number, sha256))
    return shown


def _code_of(error: Exception) -> str:
    """The code of a refusal; Deviation where it has none."""
    code = getattr(error, "code", None)
    if not (isinstance(code, str) and code):
        raise Deviation(f"refused without a code: {type(error).__name__}: {error}")
    return code


def shuffled_ranges(frames: int, seed: str) -> list[tuple[int, int]]:
    """0..frames-1 cut into up to PIECES ranges (a, b), at random order; the same for the same seed, and not in file order."""
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(1, frames), min(PIECES, frames) - 1))
    ranges = list(zip([0, *cuts], [*cuts, frames], strict=True))
    ordered = list(ranges)
    while len(ranges) > 1 and ranges == ordered:
        chance.shuffle(ranges)
    return ranges
