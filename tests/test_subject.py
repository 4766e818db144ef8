"""nvc as a decoder under test: it is asked in every way that is promised, and its failures are seen."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vector_files import CASES, SHA, failures, one, run, saved, write

from nvc.bitstream.constants import Limits
from nvc.codec import subject
from nvc.codec.subject import Subject, Trickle
from nvc.conformance import manifest
from nvc.conformance.report import FAIL, SKIP
from nvc.conformance.suite import Vector

Found = list[tuple[int, bytes]]
Saved = tuple[Iterable[tuple[int, bytes]], Sequence[tuple[int, int, str]]]
Answer = Callable[[str, Sequence[tuple[int, int]] | None], Iterable[tuple[int, bytes]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("vectors"), CASES)


@pytest.fixture(scope="module")
def vectors(folder: Path) -> tuple[Vector, ...]:
    return manifest.load(folder)


def test_nvc_passes_in_every_way(vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run(vectors, folder, Subject(["cpu"]), timeout=60)
    assert failures(report) == {} and report.passed and report.reasons(SKIP) == []


def test_a_wrong_manifest_makes_nvc_fail_in_every_way(vectors: tuple[Vector, ...], folder: Path) -> None:
    wrong = [replace(vectors[1], frames=(*vectors[1].frames[:-1], SHA)), replace(vectors[3], expect="truncated.end")]
    report = run(wrong, folder, Subject(["cpu"]), timeout=60)
    assert len(report.reasons(FAIL)) == len(report.results) > 15
    assert all("frame 13" in result.reason for result in report.results if result.vector == "valid/second")
    cut = [result.reason for result in report.results if result.vector == "invalid/cut"]
    assert all(reason == "truncated.end expected: refused with truncated.chunk" for reason in cut)


def test_nvc_is_decoded_in_the_ways_that_are_promised(
    vectors: tuple[Vector, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[bool, int, int | None, int]] = {}
    way = ""

    class Spy(subject.Decoder):
        def __init__(self, file: Any, device: torch.device, batch: int | None, limits: Limits) -> None:
            most = 1 << 30
            if isinstance(file, Trickle):
                copy = Trickle(file.getvalue(), file._most, file.seekable())
                most = len(copy.read(1 << 30))
            seen[way] = (file.seekable(), most, batch, torch.get_num_threads())
            super().__init__(file, device, batch, limits)

    monkeypatch.setattr(subject, "Decoder", Spy)
    before = torch.get_num_threads()
    decoder = Subject(["cpu"])
    for each in decoder.ways(True):
        way = each.name
        found = list(each.decode(folder / vectors[1].file, {}, [(9, 14), (0, 9)] if each.random else None))
        order = [*range(9, 14), *range(9)] if each.random else list(range(14))
        assert found == [(number, CASES[1].samples[number]) for number in order]
    assert torch.get_num_threads() == before
    file, size = 1 << 30, len(CASES[1].data)
    assert seen == {
        "whole": (True, file, None, 1),
        "pipe": (False, size, None, 1),
        **{f"file, reads of {most}": (True, most, None, 1) for most in (1, 7, 2047)},
        **{f"pipe, reads of {most}": (False, most, None, 1) for most in (1, 7, 2047)},
        "random order, cpu": (True, file, None, 1),
        "batch 1, cpu": (True, file, 1, 1),
        "batch 4, cpu": (True, file, 4, 1),
        "2 threads, cpu": (True, file, None, 2),
    }
    assert [each.random for each in decoder.ways(True)].count(True) == 1
    assert {each.name for each in decoder.ways(False)} == {name for name in seen if "cpu" not in name}


def test_every_device_is_tried_but_the_reading_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "open_device", torch.device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    decoder = Subject()
    assert decoder.devices == [torch.device("cpu"), torch.device("cuda")] == Subject(["cpu", "cuda", "cpu"]).devices
    assert Subject(["cuda"]).ways(True)[0].device == torch.device("cuda")
    names = {each.name for each in decoder.ways(True) if each.device.type == "cuda"}
    assert names == {f"{name}, cuda" for name in ("whole", "random order", "batch 1", "batch 4", "2 threads")}
    assert {each.name for each in decoder.ways(False) if each.device.type == "cuda"} == {"whole, cuda"}


def test_nvc_salvages_from_files_pipes_and_odd_reads(vectors: tuple[Vector, ...], folder: Path) -> None:
    ways = Subject(["cpu"]).salvagers()
    found = {(each.hold, each.pipe, each.most) for each in ways}
    assert found == {(False, False, None), (True, False, None), *((False, True, most) for most in (None, 1, 7, 2047))}
    for each in ways:
        frames, lost = each.salvage(folder / vectors[6].file, {})
        assert (list(frames), lost) == saved(each.hold), each.name


def test_limits_reach_the_decoder(vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run(one(vectors, "limits/few-frames"), folder, Subject(["cpu"]))
    assert report.passed
    unlimited = [replace(vector, limits={}) for vector in one(vectors, "limits/few-frames")]
    assert "decoded 14 frames" in failures(run(unlimited, folder, Subject(["cpu"])))["limits/few-frames", "whole"]


def test_a_bug_of_nvc_fails(vectors: tuple[Vector, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(subject.Decoder, "frames", broken)
    found = failures(run(vectors, folder, Subject(["cpu"])))
    assert found["valid/first", "whole"] == "crashed: ValueError: broken"
    assert found["invalid/wrong-frame", "pipe"] == "crashed: ValueError: broken"


@given(st.binary(max_size=50), st.integers(1, 9), st.lists(st.integers(-1, 20), max_size=20))
def test_a_trickle_gives_the_bytes_in_order_and_never_more_than_asked(data: bytes, most: int, sizes: list[int]) -> None:
    stream, got = Trickle(data, most, False), b""
    for size in sizes:
        piece = stream.read(size)
        assert len(piece) <= most and (size < 0 or len(piece) <= size)
        assert piece or size == 0 or len(got) == len(data)
        got += piece
    assert got == data[: len(got)]


def test_a_pipe_does_not_go_back() -> None:
    pipe = Trickle(b"abc", None, False)
    assert pipe.read() == b"abc" and not pipe.seekable()
    for call in (lambda: pipe.seek(0), pipe.tell):
        with pytest.raises(io.UnsupportedOperation):
            call()
    file = Trickle(b"abc", None, True)
    assert file.read(2) == b"ab" and file.tell() == 2 and file.seek(0) == 0 and file.read() == b"abc"
