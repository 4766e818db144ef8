"""The conformance runner: right decoders pass, and each kind of wrong one fails with a reason that names what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_files import CASES, NAMES, failures, run, saved, write

from nvc.conformance import manifest, runner
from nvc.conformance.ref_errors import Refused
from nvc.conformance.report import FAIL, PASS, SKIP, Report, Result
from nvc.conformance.runner import Deviation, compare, select, shuffled_ranges, with_stand_ins
from nvc.conformance.suite import Salvage, Vector

Found = list[tuple[int, bytes]]
Saved = tuple[Iterable[tuple[int, bytes]], Sequence[tuple[int, int, str]]]
Answer = Callable[[str, Sequence[tuple[int, int]] | None], Iterable[tuple[int, bytes]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("vectors"), CASES)


@pytest.fixture(scope="module")
def vectors(folder: Path) -> tuple[Vector, ...]:
    return manifest.load(folder)


def perfect(name: str, ranges: Sequence[tuple[int, int]] | None) -> Found:
    """What a right decoder does."""
    (case,) = [case for case in CASES if case.name == name]
    if case.expect != "ok":
        raise Refused(case.expect, "no")
    spans = [(0, len(case.samples))] if ranges is None else ranges
    return [(number, case.samples[number]) for span in spans for number in range(*span)]


@dataclass(frozen=True)
class FakeWay:
    name: str
    random: bool
    answer: Answer

    def decode(
        self, path: Path, limits: Mapping[str, int], ranges: Sequence[tuple[int, int]] | None
    ) -> Iterable[tuple[int, bytes]]:
        name = path.relative_to(path.parents[1]).with_suffix("").as_posix()
        assert limits == ({"max_frames": 3} if name == "limits/few-frames" else {})
        assert (ranges is not None) == self.random
        return self.answer(name, ranges)


@dataclass(frozen=True)
class FakeSalvager:
    name: str
    hold: bool
    answer: Callable[[bool], Saved]

    def salvage(self, path: Path, limits: Mapping[str, int]) -> Saved:
        return self.answer(self.hold)


@dataclass(frozen=True)
class Fake:
    """A decoder under test with the ways "whole" and, for valid files, "random"."""

    answer: Answer = perfect
    salvage: Callable[[bool], Saved] | None = saved
    takes_limits: bool = True
    name: str = "fake"
    refusals: tuple[type[Exception], ...] = (Refused,)

    def ways(self, valid: bool) -> Sequence[FakeWay]:
        whole = FakeWay("whole", False, self.answer)
        return [whole, FakeWay("random", True, self.answer)] if valid else [whole]

    def salvagers(self) -> Sequence[FakeSalvager]:
        return [FakeSalvager(("skip", "hold")[hold], hold, self.salvage) for hold in (False, True) if self.salvage is not None]


def only(names: Iterable[str], spoil: Callable[[Found], Any]) -> Answer:
    """Right, but for the frames of the vectors named."""
    chosen = set(names)
    return lambda name, ranges: spoil(list(perfect(name, ranges))) if name in chosen else perfect(name, ranges)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_right_decoder_passes_every_vector_in_every_way(vectors: tuple[Vector, ...], folder: Path, jobs: int) -> None:
    told: list[str] = []
    report = runner.run(vectors, folder, Fake(), 10.0, jobs, lambda vector: told.append(vector.name))
    assert report.passed and told == NAMES
    expected = [(name, way) for name in NAMES for way in (("whole", "random") if name.startswith("valid") else ("whole",))]
    found = [(result.vector, result.way, result.verdict) for result in report.results]
    assert found == [(*each, PASS) for each in [*expected, ("salvage/damaged", "skip"), ("salvage/damaged", "hold")]]


def change(place: int, new: Callable[[int, bytes], tuple[int, bytes]]) -> Callable[[Found], Found]:
    return lambda frames: [new(*frame) if at == place % len(frames) else frame for at, frame in enumerate(frames)]


def swapped(frames: Found) -> Found:
    """The samples of the first and last frame of the file in each other's place."""
    lowest, highest = min(frames), max(frames)
    exchange = {lowest[0]: highest[1], highest[0]: lowest[1]}
    return [(number, exchange.get(number, samples)) for number, samples in frames]


# CASES[1] has two equal segments of seven different frames
SPOILED: dict[str, tuple[Callable[[Found], Any], str]] = {
    "the last frame dropped": (lambda frames: frames[:-1], "1 of 14 frames are missing"),
    "the first frame dropped": (lambda frames: frames[1:], "came where frame"),
    "only the first frame": (lambda frames: frames[:1], "13 of 14 frames are missing"),
    "no frame": (lambda frames: [], "14 of 14 frames are missing"),
    "a frame more": (lambda frames: [*frames, frames[-1]], "more than 14 frames"),
    "a frame twice": (lambda frames: [frames[0], *frames], "came where frame"),
    "two numbers exchanged": (lambda frames: [frames[1], frames[0], *frames[2:]], "came where frame"),
    "samples exchanged": (swapped, "is wrong: it is frame"),
    "the first frame wrong": (change(0, lambda n, s: (n, bytes(len(s)))), "is wrong: SHA-256"),
    "the last frame wrong": (change(-1, lambda n, s: (n, bytes(len(s)))), "is wrong: SHA-256"),
    "one sample wrong": (change(5, lambda n, s: (n, s[:-1] + bytes([s[-1] ^ 1]))), "(1 of 14 frames differ)"),
    "a frame cut": (change(5, lambda n, s: (n, s[:-1])), "is wrong: SHA-256"),
    "no numbers": (change(5, lambda n, s: (None, s)), "frame None came"),  # type: ignore[arg-type, return-value]
    "numbers that are not": (change(5, lambda n, s: (float("nan"), s)), "frame nan came"),  # type: ignore[arg-type, return-value]
    "samples that are none": (change(5, lambda n, s: (n, None)), "crashed: TypeError"),  # type: ignore[arg-type, return-value]
    "no iterable": (lambda frames: None, "crashed: TypeError"),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_wrong_frames_fail_and_are_named(spoiled: str, vectors: tuple[Vector, ...], folder: Path) -> None:
    spoil, reason = SPOILED[spoiled]
    report = run(vectors, folder, Fake(only(["valid/second"], spoil)))
    assert not report.passed
    assert set(failures(report)) == {("valid/second", "whole"), ("valid/second", "random")}
    assert all(reason in found for found in failures(report).values()), failures(report)
    assert report.counts() == {"vectors": 7, "passed": 6, "failed": 1, "skipped": 0}


def test_a_stream_of_frames_without_end_is_stopped(vectors: tuple[Vector, ...], folder: Path) -> None:
    def endless(frames: Found) -> Iterable[tuple[int, bytes]]:
        yield from frames
        while True:
            yield frames[-1]

    assert "more than 14 frames" in failures(run(vectors, folder, Fake(only(["valid/second"], endless))))["valid/second", "whole"]


def test_a_failure_in_one_way_fails_the_vector(vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run(vectors, folder, Fake(lambda name, ranges: perfect(name, ranges)[:-1] if ranges else perfect(name, ranges)))
    assert set(failures(report)) == {("valid/first", "random"), ("valid/second", "random")}
    assert report.verdict("valid/first") == report.verdict("valid/second") == FAIL
    assert report.verdict("invalid/cut") == PASS and not report.passed


def test_every_vector_is_examined_though_the_first_one_fails(vectors: tuple[Vector, ...], folder: Path) -> None:
    def useless(name: str, ranges: object) -> Found:
        raise RuntimeError("no")

    report = run(vectors, folder, Fake(useless))
    assert [vector for vector, way in failures(report) if way == "whole"] == NAMES
    assert report.counts()["failed"] == 7


def raising(error: BaseException) -> Answer:
    def answer(name: str, ranges: Sequence[tuple[int, int]] | None) -> Iterable[tuple[int, bytes]]:
        if name == "invalid/cut":
            yield 0, CASES[1].samples[0]
            raise error
        yield from perfect(name, ranges)

    return answer


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Refused("truncated.end", ""), "truncated.chunk expected: refused with truncated.end"),
        (Refused("truncated", ""), "refused with truncated"),
        (Refused("", ""), "refused without a code"),
        (Refused(None, ""), "refused without a code"),  # type: ignore[arg-type]
        (RuntimeError("truncated.chunk"), "crashed: RuntimeError: truncated.chunk"),
        (MemoryError(), "crashed: MemoryError"),
        (SystemExit(0), "crashed: SystemExit: 0"),
        (Deviation("crashed by SIGSEGV"), "truncated.chunk expected: crashed by SIGSEGV"),
    ],
    ids=repr,
)
def test_another_end_than_the_right_code_fails(
    error: BaseException, reason: str, vectors: tuple[Vector, ...], folder: Path
) -> None:
    report = run(vectors, folder, Fake(raising(error)))
    assert list(failures(report)) == [("invalid/cut", "whole")]
    assert reason in failures(report)["invalid/cut", "whole"]


def test_frames_before_the_right_code_are_allowed(vectors: tuple[Vector, ...], folder: Path) -> None:
    assert run(vectors, folder, Fake(raising(Refused("truncated.chunk", "")))).passed


def test_frames_instead_of_an_error_fail(vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run(vectors, folder, Fake(lambda name, ranges: [] if name.startswith("unsupp") else perfect(name, ranges)))
    assert failures(report) == {("unsupported/no-nvc", "whole"): "not_nvc.magic expected: decoded 0 frames"}


@pytest.mark.parametrize("after", [0, 3, 14])
def test_an_error_instead_of_frames_fails(after: int, vectors: tuple[Vector, ...], folder: Path) -> None:
    def cut(frames: Found) -> Iterable[tuple[int, bytes]]:
        yield from frames[:after]
        raise Refused("invalid.range", "no")

    report = run(vectors, folder, Fake(only(["valid/second"], cut)))
    assert failures(report)["valid/second", "whole"] == f"refused with invalid.range after {after} of 14 frames"


def test_an_interrupt_is_no_verdict(vectors: tuple[Vector, ...], folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(vectors, folder, Fake(raising(KeyboardInterrupt())))


def test_what_takes_too_long_fails_and_the_slowest_is_named(vectors: tuple[Vector, ...], folder: Path) -> None:
    def slow(frames: Found) -> Iterable[tuple[int, bytes]]:
        time.sleep(0.2)
        return frames

    report = run(vectors, folder, Fake(only(["valid/first"], slow)), timeout=0.1)
    assert set(failures(report)) == {("valid/first", "whole"), ("valid/first", "random")}
    assert "over the 0.1 s allowed" in failures(report)["valid/first", "whole"]
    found = report.to_json()
    assert found["slowest"]["vector"] == "valid/first" and found["slowest"]["seconds"] >= 0.2
    assert found["seconds"] >= 0.4


def test_a_decoder_without_a_way_fails_though_salvage_is_skipped(vectors: tuple[Vector, ...], folder: Path) -> None:
    class Wayless(Fake):
        def ways(self, valid: bool) -> Sequence[FakeWay]:
            return []

    report = run(vectors, folder, Wayless(salvage=None))
    assert [vector for vector, _ in failures(report)] == NAMES
    assert report.counts()["failed"] == 7


def test_vectors_that_need_limits_are_skipped_by_name_where_there_are_none(vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run(vectors, folder, Fake(takes_limits=False))
    assert report.passed and report.counts() == {"vectors": 7, "passed": 6, "failed": 0, "skipped": 1}
    (skipped,) = report.reasons(SKIP)
    assert skipped.vector == "limits/few-frames" and "max_frames = 3" in skipped.reason
    assert any(line.startswith("SKIP limits/few-frames (all): ") for line in report.lines())
    assert report.lines()[-1] == "passed: fake: 6 of 7 vectors, 1 skipped"
    assert report.to_json()["skips"][0]["vector"] == "limits/few-frames"


def test_what_was_skipped_alone_has_not_passed(vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run([vectors[2]], folder, Fake(takes_limits=False))
    assert not report.passed and report.lines()[-1].startswith("FAILED")


def test_nothing_tested_has_not_passed(folder: Path) -> None:
    assert not run([], folder, Fake()).passed
    assert not Report("fake", ("valid/first",), (), 0.0).passed


def test_a_vector_that_has_no_result_failed_and_is_named() -> None:
    report = Report("fake", ("valid/a", "valid/b"), (Result("valid/a", "whole", PASS, "", 0.1),), 0.1)
    assert not report.passed and report.verdict("valid/b") == FAIL
    assert [result.vector for result in report.reasons(FAIL)] == ["valid/b"]


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        *(((PASS, PASS), PASS), ((PASS, SKIP), PASS), ((SKIP, PASS), PASS), ((SKIP, SKIP), SKIP)),
        *(((PASS, FAIL), FAIL), ((FAIL, PASS), FAIL), ((SKIP, FAIL), FAIL), ((PASS, "fine"), FAIL), (("fine",), FAIL)),
    ],
)
def test_the_verdict_of_a_vector_is_that_of_its_worst_way(verdicts: tuple[str, ...], verdict: str) -> None:
    results = tuple(Result("valid/a", str(at), each, "", 0.0) for at, each in enumerate(verdicts))
    assert Report("fake", ("valid/a",), results, 0.0).verdict("valid/a") == verdict


# ---- salvage


def test_a_decoder_that_is_not_asked_to_salvage_has_that_skipped(vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run(vectors, folder, Fake(salvage=None))
    assert report.passed and [(result.vector, result.way) for result in report.reasons(SKIP)] == [("salvage/damaged", "salvage")]


def refuse(code: str) -> Any:
    raise Refused(code, "no")


def other(change_frames: Callable[[Found], Any] = list, change_lost: Callable[[Any], Any] = list) -> Callable[[bool], Any]:
    """A salvage with other frames or another account."""
    return lambda hold: (change_frames(saved(hold)[0]), change_lost(saved(hold)[1]))


def exhausted(hold: bool) -> Saved:
    """A right salvage whose account is there only after the last frame."""
    lost: list[tuple[int, int, str]] = []

    def frames() -> Iterable[tuple[int, bytes]]:
        yield from saved(hold)[0]
        lost.extend(saved(hold)[1])

    return frames(), lost


SALVAGES: dict[str, tuple[Callable[[bool], Any], str]] = {
    "a frame less": (other(lambda frames: frames[:-1]), "frames are missing"),
    "a frame more": (other(lambda frames: [*frames, frames[0]]), "more than"),
    "a wrong frame": (other(change(3, lambda n, s: (n, b""))), "frame 3 is wrong"),
    "a wrong frame at the end": (other(change(-1, lambda n, s: (n, b""))), "is wrong"),
    "no account": (other(change_lost=lambda lost: []), "account of losses"),
    "another code": (other(change_lost=lambda lost: [(7, 7, "corrupt.header_crc")]), "account of losses"),
    "a frame less in the account": (other(change_lost=lambda lost: [(7, 6, "corrupt.payload_crc")]), "account of losses"),
    "a gap twice": (other(change_lost=lambda lost: lost * 2), "account of losses"),
    "an account of nothing": (other(change_lost=lambda lost: None), "crashed: TypeError"),
    "a refusal": (lambda hold: refuse("corrupt.payload_crc"), "refused with corrupt.payload_crc instead of salvaged"),
}


@pytest.mark.parametrize("wrong", SALVAGES)
def test_a_wrong_salvage_fails(wrong: str, vectors: tuple[Vector, ...], folder: Path) -> None:
    salvage, reason = SALVAGES[wrong]
    report = run(vectors, folder, Fake(salvage=salvage))
    assert list(failures(report)) == [("salvage/damaged", "skip"), ("salvage/damaged", "hold")]
    assert all(reason in found for found in failures(report).values()), failures(report)


def test_stand_ins_and_gaps_are_not_taken_for_each_other(vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run(vectors, folder, Fake(salvage=lambda hold: saved(not hold)))
    assert "more than 7 frames" in failures(report)["salvage/damaged", "skip"]
    assert "7 of 14 frames are missing" in failures(report)["salvage/damaged", "hold"]


def test_the_account_may_be_complete_only_at_the_end(vectors: tuple[Vector, ...], folder: Path) -> None:
    assert run(vectors, folder, Fake(salvage=exhausted)).passed


def test_lost_frames_are_stood_in_for_by_the_one_before_or_else_the_first() -> None:
    lost = ((0, 2, "corrupt.header_crc"), (3, 1, "verify.frame"), (5, 2, "truncated.chunk"))
    shown = with_stand_ins(Salvage(((2, "two"), (4, "four")), lost))
    assert shown == list(enumerate(["two", "two", "two", "two", "four", "four", "four"]))


@pytest.mark.parametrize(("lost", "code"), [([[0, 14, "corrupt.digest"]], "corrupt.digest"), ([], "corrupt.payload_crc")])
def test_where_nothing_is_left_salvage_must_refuse(lost: list[Any], code: str, tmp_path: Path) -> None:
    case = replace(CASES[6], extra={"salvage": {"frames": [], "lost": lost}})
    vectors = manifest.load(write(tmp_path, [case]))
    assert run(vectors, tmp_path, Fake(salvage=lambda hold: refuse(code))).passed
    assert not run(vectors, tmp_path, Fake(salvage=lambda hold: refuse("corrupt.header_crc"))).passed
    assert not run(vectors, tmp_path, Fake(salvage=lambda hold: ([], []))).passed


# ---- the order of frames


@given(st.integers(1, 300), st.text(max_size=20))
def test_random_ranges_hold_every_frame_once_and_not_in_order(frames: int, seed: str) -> None:
    ranges = shuffled_ranges(frames, seed)
    assert sorted(number for span in ranges for number in range(*span)) == list(range(frames))
    assert len(ranges) == min(frames, runner.PIECES)
    assert ranges != sorted(ranges) or frames == 1
    assert ranges == shuffled_ranges(frames, seed)


frame_lists = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=4)


@given(frame_lists, frame_lists)
def test_frames_agree_if_and_only_if_they_are_equal(wanted: list[tuple[int, str]], found: list[tuple[int, str]]) -> None:
    if wanted == found:
        compare(wanted, found)
    else:
        with pytest.raises(Deviation):
            compare(wanted, found)


# ---- which vectors


@pytest.mark.parametrize(
    ("groups", "patterns", "chosen"),
    [
        ([], [], NAMES),
        (["valid"], [], NAMES[:2]),
        (["valid", "limits"], [], NAMES[:3]),
        ([], ["invalid/*"], NAMES[3:5]),
        ([], ["valid/first", "*/cut"], ["valid/first", "invalid/cut"]),
        (["valid"], ["*/*s*"], NAMES[:2]),
    ],
)
def test_vectors_are_chosen(groups: list[str], patterns: list[str], chosen: list[str], vectors: tuple[Vector, ...]) -> None:
    assert [vector.name for vector in select(vectors, groups, patterns)] == chosen


@pytest.mark.parametrize(
    ("groups", "patterns"),
    [(["val"], []), (["valid", "natural"], []), ([], ["first"]), ([], ["*/first", "x"]), (["valid"], ["invalid/*"])],
)
def test_a_choice_that_finds_nothing_is_an_error(groups: list[str], patterns: list[str], vectors: tuple[Vector, ...]) -> None:
    with pytest.raises(LookupError):
        select(vectors, groups, patterns)
