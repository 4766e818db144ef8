"""nvc.codec.decode: the same frames to the bit on every path, the reference's frames, and no frame that its hash denies."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from container_files import Pipe, put_together, take_apart
from hypothesis import given, settings
from hypothesis import strategies as st
from nvc_files import (
    VARIABLE,
    Integers,
    encoded,
    encoded_variable,
    frame_hash,
    network_file,
    program_file,
    reference_frames,
    segment_of,
)

from nvc.bitstream.constants import HASHES, Limits
from nvc.bitstream.container import Reader, Writer
from nvc.bitstream.errors import InvalidError, LimitError, MachineError, NvcError, UsageError, VerificationError
from nvc.bitstream.header import Header
from nvc.bitstream.program import Builder, Op, Program
from nvc.bitstream.segment import Segment
from nvc.codec import decode
from nvc.codec.decode import Decoder, open_device, verify
from nvc.codec.interpreter import Interpreter
from nvc.codec.staging import Pending
from nvc.conformance import ref_operations
from nvc.conformance.catalogue.networks import random_network

Frame = tuple[int, list[Integers]]  # time stamp and three planes
LAST = sys.maxsize


def frames(data: bytes, first: int = 0, last: int | None = None, batch: int | None = None) -> list[Frame]:
    return [
        (stamp, [plane[i] for plane in found.planes])
        for found in Decoder(io.BytesIO(data), batch=batch).frames(first, last)
        for i, stamp in enumerate(found.pts)
    ]


def sha(found: list[Frame]) -> str:
    return hashlib.sha256(b"".join(plane.tobytes() for _, planes in found for plane in planes)).hexdigest()


def same(a: list[Frame], b: list[Frame]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(s == t and all(map(np.array_equal, p, q)) for (s, p), (t, q) in pairs)


@functools.cache
def unindexed(data: bytes) -> bytes:
    """The same segments without index and footer, as a live encoder would leave them."""
    reader = Reader(io.BytesIO(data))
    file = io.BytesIO()
    writer = Writer(file, replace(reader.header, frame_count=None), reader.model, indexed=False)
    for segment in reader.segments():
        writer.add(segment)
    writer.finish()
    return file.getvalue()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# ---- one result


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32 - 1))
def test_files_of_random_networks_decode_to_the_frames_of_the_reference(seed: int) -> None:
    data, expected = network_file(seed)
    found = frames(data)
    assert len(found) == len(expected)
    for (_, planes), wanted in zip(found, expected, strict=True):
        assert all(map(np.array_equal, planes, wanted))


def random_file(seed: int) -> bytes:
    return network_file(seed)[0]


SAMPLES: list[Callable[[], bytes]] = [encoded, *(functools.partial(random_file, seed) for seed in (1, 2, 3))]


@pytest.mark.parametrize("sample", SAMPLES, ids=["hnerv", "random1", "random2", "random3"])
def test_threads_and_batches_do_not_change_a_bit(sample: Callable[[], bytes], threads: Callable[[int], None]) -> None:
    data, hashes = sample(), set()
    for count in (1, 2):
        threads(count)
        hashes |= {sha(frames(data, batch=batch)) for batch in (1, 4)}
    assert len(hashes) == 1


@pytest.mark.parametrize("data", [encoded, encoded_variable, SAMPLES[1]], ids=["hnerv", "variable", "random"])
@pytest.mark.parametrize("indexed", [True, False])
def test_every_range_is_that_part_of_the_whole(data: Callable[[], bytes], indexed: bool) -> None:
    file = data() if indexed else unindexed(data())
    whole = frames(file)
    for first in range(len(whole)):
        for last in range(first + 1, len(whole) + 1):
            assert same(frames(file, first, last, batch=2), whole[first:last]), (first, last)
        assert same(frames(file, first), whole[first:])


def test_the_stamps_of_a_range_are_those_of_its_frames() -> None:
    assert [stamp for stamp, _ in frames(encoded_variable(), 3, 5)] == list(VARIABLE[3:5])
    assert [stamp for stamp, _ in frames(encoded(), 3, 5)] == [3, 4]


def test_a_range_beyond_the_end_is_cut_and_one_behind_it_is_empty() -> None:
    assert same(frames(encoded(), 4, LAST), frames(encoded())[4:])
    assert frames(encoded(), 5, 9) == []


def test_a_pipe_decodes_to_the_same() -> None:
    file = Pipe(encoded(), most=1000)
    found = [planes for batch in Decoder(file).frames() for planes in zip(*batch.planes, strict=True)]  # type: ignore[arg-type]
    assert all(map(np.array_equal, planes, wanted) for planes, (_, wanted) in zip(found, frames(encoded()), strict=True))
    assert len(found) == 5


_DECODE_ALL = """
import hashlib, sys
from pathlib import Path
from nvc.codec.decode import Decoder
sha = hashlib.sha256()
for path in sorted(Path(sys.argv[1]).iterdir()):
    for batch in Decoder(path.open("rb")).frames():
        for i in range(len(batch.pts)):
            for plane in batch.planes:
                sha.update(plane[i].tobytes())
print("sha", sha.hexdigest())
"""
INSTRUCTION_SETS = {"SSE41": "SSE4.1", "AVX2": "AVX2", "AVX512_CORE": "AVX-512"}


def supported() -> set[str]:
    """The instruction sets of INSTRUCTION_SETS that this processor has."""
    flags = Path("/proc/cpuinfo").read_text().split() if os.path.exists("/proc/cpuinfo") else []
    needs = {"SSE41": "sse4_1", "AVX2": "avx2", "AVX512_CORE": "avx512bw"}
    return {name for name, flag in needs.items() if flag in flags}


def test_no_instruction_set_changes_a_bit(tmp_path: Path) -> None:
    for number, sample in enumerate(SAMPLES[:3]):
        (tmp_path / f"{number}.nvc").write_bytes(sample())
    command = [sys.executable, "-c", _DECODE_ALL, str(tmp_path)]
    running = {}
    for name in INSTRUCTION_SETS:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ONEDNN_VERBOSE": "1", "ONEDNN_MAX_CPU_ISA": name}
        if name == "SSE41":
            environment["ATEN_CPU_CAPABILITY"] = "default"  # PyTorch's own kernels too
        running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    output = {name: process.communicate()[0] for name, process in running.items()}
    assert all(process.returncode == 0 for process in running.values())
    default = hashlib.sha256()
    for sample in SAMPLES[:3]:
        default.update(b"".join(plane.tobytes() for _, planes in frames(sample()) for plane in planes))
    told = {line for text in output.values() for line in text.splitlines() if line.startswith("sha ")}
    assert told == {f"sha {default.hexdigest()}"}
    # That all of this says something: oneDNN runs the convolutions, and with the instructions it was told to use.
    assert all(re.search(r"exec,cpu,convolution", text) for text in output.values())
    for name in sorted(supported()):
        assert re.search(rf"info,cpu,isa:.*{re.escape(INSTRUCTION_SETS[name])}", output[name]), name
    kernels = {name: frozenset(re.findall(r"exec,cpu,convolution,([\w:]+)", output[name])) for name in supported()}
    assert len(set(kernels.values())) > 1 or len(kernels) < 2


# ---- what is not right does not come out


def rewritten(data: bytes, change: Callable[[list[tuple[bytes, bytes]]], None]) -> bytes:
    """The file with its chunks changed and every checksum repaired."""
    salt, chunks = take_apart(data)
    change(chunks)
    return put_together(salt, chunks)


def with_wrong_hash(data: bytes, segment: int) -> bytes:
    """The last frame hash of a segment off by a bit: hashes end a segment of constant rate."""

    def change(chunks: list[tuple[bytes, bytes]]) -> None:
        number = [n for n, (kind, _) in enumerate(chunks) if kind == b"SEGM"][segment]
        payload = bytearray(chunks[number][1])
        payload[-1] ^= 1
        chunks[number] = (b"SEGM", bytes(payload))

    return rewritten(data, change)


def test_a_frame_that_differs_from_its_hash_is_refused_after_all_before_it() -> None:
    found = []
    with pytest.raises(VerificationError) as caught:
        for batch in Decoder(io.BytesIO(with_wrong_hash(encoded(), 1)), batch=1).frames():
            found.append(batch.first)
    assert (caught.value.code, caught.value.exit_code) == ("verify.frame", 6)
    assert found == [0, 1]  # the frame itself, number 2, is never given out
    assert "frame 2" in str(caught.value)


def test_frames_before_a_wrong_one_can_be_had_alone() -> None:
    assert same(frames(with_wrong_hash(encoded(), 2), 0, 3), frames(encoded(), 0, 3))


def test_a_segment_that_names_a_missing_program_is_refused() -> None:
    network = random_network(4)
    data = program_file(network.header, [network.program], [segment_of(network, 0, bytes(8 * network.frames), program=1)])
    with pytest.raises(InvalidError) as caught:
        verify(io.BytesIO(data))
    assert (caught.value.code, caught.value.exit_code) == ("invalid.program", 4)


def test_segments_may_use_different_programs() -> None:
    networks = [random_network(seed) for seed in range(400)]
    size = networks[0].header.plane_shapes()
    first, second = [network for network in networks if network.header.plane_shapes() == size][:2]
    header = replace(first.header, frame_count=first.frames + second.frames)
    expected = reference_frames(first) + reference_frames(second)
    hashes = [frame_hash(planes) for planes in expected]
    segments = [
        segment_of(first, 0, b"".join(hashes[: first.frames]), program=0),
        segment_of(second, first.frames, b"".join(hashes[first.frames :]), program=1),
    ]
    found = frames(program_file(header, [first.program, second.program], segments))
    assert all(all(map(np.array_equal, planes, wanted)) for (_, planes), wanted in zip(found, expected, strict=True))
    assert len(found) == header.frame_count


def over_the_bound() -> tuple[Program, list[Integers]]:
    """A network whose sums pass 2^24 by far and whose outcome hangs on the lowest bit of two of them.

    Two convolutions with equal weights add the same odd numbers, up to 64 * 25 * 127 * 2047, and differ by one in the bias.
    The picture is 100 where they come out apart by one and 0 where float32 has swallowed the one.
    """
    builder = Builder("over")
    codes = np.full((1, 64, 8, 8), 2047, np.int64)
    x = builder.add(Op.EMBEDDING, builder.parameter(codes), 64, 8, 8, 0, 1)
    weight = np.full((1, 64, 5, 5), 127, np.int64)
    sums = []
    for bias in (0, 1):
        numbers = builder.parameter(weight), builder.parameter(np.array([bias], np.int64))
        sums.append(builder.add(Op.CONVOLUTION, x, *numbers, 1, 5, 5, 1))
    difference = builder.add(Op.COMBINE, sums[1], sums[0], builder.parameter(np.array([1, -1], np.int64)))
    one = np.array([30 << 10], np.int64)  # (1024 + 0) 2^(30 - 40) = 1
    y = builder.add(Op.REQUANTISE, difference, builder.parameter(one), 1, 0, 255, 0, 0)
    builder.add(Op.OUTPUT, y, y, y)
    return builder.program(), builder.tensors


def test_a_broken_bound_is_refused_and_would_show() -> None:
    program, tensors = over_the_bound()
    network = replace(random_network(0), program=program, tensors=tensors, frames=1)
    with pytest.raises(ref_operations.BoundError):
        reference_frames(network)
    exact = [np.ones((8, 8), np.int64)] * 3  # by construction: the sums differ by one everywhere
    data = program_file(Header(8, 8, 1, frame_count=1), [program], [segment_of(network, 0, frame_hash(exact))])
    with pytest.raises(InvalidError) as caught:
        verify(io.BytesIO(data))
    assert caught.value.code == "invalid.bound"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nvc.bitstream.coefficients.prove", lambda *_: None)
        with pytest.raises(VerificationError):
            verify(io.BytesIO(data))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_changed_number_gives_wrong_frames(draw: st.DataObject) -> None:
    """A byte is changed and all checksums are repaired: the file is refused by name, or its frames are what they were."""
    salt, chunks = take_apart(encoded())
    number = draw.draw(st.sampled_from([n for n, (_, payload) in enumerate(chunks) if payload]))
    kind, payload = chunks[number]
    position = draw.draw(st.integers(0, len(payload) - 1))
    changed = bytearray(payload)
    changed[position] ^= draw.draw(st.integers(1, 255))
    chunks[number] = (kind, bytes(changed))
    started = time.perf_counter()
    try:
        found = frames(put_together(salt, chunks))
    except NvcError as error:
        assert error.exit_code in (4, 6)
    else:
        assert kind in (b"HEAD", b"MODL", b"mETa")  # tags and names; numbers are under the digest
        assert sha(found) == sha(frames(encoded()))
    assert time.perf_counter() - started < 2


# ---- batches under way, as on CUDA


@pytest.fixture(params=[1, 2, 4])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many batches are launched before the one in front is waited for, though on a processor."""
    monkeypatch.setitem(decode.AHEAD, "cpu", request.param)
    return int(request.param)


def hashing() -> int:
    return sum(thread.name.startswith("hash") for thread in threading.enumerate())


@pytest.mark.parametrize("batch", [1, 2])
def test_looking_ahead_changes_no_frame_and_no_range(ahead: int, batch: int) -> None:
    found = frames(encoded(), batch=batch)
    parts = frames(encoded(), 1, 4, batch=batch)
    decode.AHEAD["cpu"] = 0
    assert same(found, frames(encoded(), batch=batch)) and same(parts, found[1:4])
    assert hashing() == 0


def test_looking_ahead_refuses_the_first_wrong_frame_after_all_before_it(ahead: int) -> None:
    data = with_wrong_hash(with_wrong_hash(encoded(), 1), 2)
    found = []
    with pytest.raises(VerificationError, match="frame 2 ") as caught:
        for batch in Decoder(io.BytesIO(data), batch=1).frames():
            found.append(batch.first)
    assert found == [0, 1] and caught.value.code == "verify.frame"
    assert hashing() == 0  # although the error still holds on to where it was raised


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_decoder_that_is_left_early_leaves_no_thread(ahead: int, taken: int) -> None:
    batches = Decoder(io.BytesIO(encoded()), batch=1).frames()
    for _ in range(taken):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert hashing() == 0


def test_an_error_of_the_device_comes_after_the_frames_before_it(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Interpreter.launch

    def failing(run: Interpreter, first: int, count: int) -> Pending:
        if first == 1:  # the second frame of the second segment
            raise RuntimeError("CUDA out of memory")
        return launch(run, first, count)

    monkeypatch.setattr(Interpreter, "launch", failing)
    found = []
    with pytest.raises(RuntimeError, match="out of memory"):
        for batch in Decoder(io.BytesIO(encoded()), batch=1).frames():
            found.append(batch.first)
    assert found == [0, 1] and hashing() == 0


# ---- how many frames are computed together

GIB = 1 << 30


@given(st.integers(1, 4096), st.integers(1, GIB), st.integers(1, GIB), st.integers(1, 64 * GIB), st.integers(0, 200 * GIB))
def test_a_batch_is_as_large_as_wanted_or_as_memory_allows(wanted: int, peak: int, samples: int, memory: int, free: int) -> None:
    def allowed(count: int) -> bool:
        shares = count * peak <= free / 4, count * samples <= 96 << 20
        return count <= wanted and count * peak <= memory and all(shares)

    found = decode.fitting(wanted, peak, samples, memory, free)
    assert allowed(found) or found == 1
    assert found == wanted or not allowed(found + 1)


@given(st.integers(1, 64), st.integers(1, GIB), st.integers(1, GIB))
def test_on_a_processor_the_limit_alone_makes_a_batch_smaller(wanted: int, peak: int, memory: int) -> None:
    assert decode.fitting(wanted, peak, 1 << 40, memory, None) == max(1, min(wanted, memory // peak))
    assert decode.free_memory(torch.device("cpu")) is None


def test_what_pytorch_holds_in_reserve_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 * GIB)
    assert decode.free_memory(torch.device("cuda:1")) == 25 * GIB


def test_a_small_card_decodes_in_small_batches_of_one_size_in_all_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each new batch size has its kernels tested first."""
    peak = Decoder(io.BytesIO(encoded())).analyses[0].peak_memory
    free = iter([11 * peak, 1, 1])  # two frames in a quarter of it; later segments find hardly any
    monkeypatch.setattr(decode, "free_memory", lambda device: next(free))
    found = [len(batch.pts) for batch in Decoder(io.BytesIO(encoded()), batch=8).frames()]
    assert found == [1, 2, 2]
    assert next(free) == 1  # asked once


# ---- work that is refused


def heavy(convolutions: int, side: int = 1024) -> Program:
    """`convolutions` times 64 to 64 channels by 15 x 15 taps, all with the same parameters: work, but hardly any bytes."""
    builder = Builder("heavy")
    x = builder.add(Op.EMBEDDING, builder.parameter(None), 64, 1, 1, 0, 1)
    for factor in (16, 16, side // 256):
        x = builder.add(Op.NEAREST, x, factor, 1, factor, 1)
    weight, bias, scale = (builder.parameter(None) for _ in range(3))
    for _ in range(convolutions):
        x = builder.add(Op.REQUANTISE, builder.add(Op.CONVOLUTION, x, weight, bias, 64, 15, 15, 1), scale, 1, 0, 255, 0, 0)
    planes = [builder.add(Op.SLICE, x, n, n + 1) for n in range(3)]
    builder.add(Op.OUTPUT, *planes)
    return builder.program()


def promise(program: Program, header: Header, frames: int = 1) -> bytes:
    """A file of one segment that promises such work; its numbers are missing, which is found out only later."""
    segment = Segment(0, frames, 0, bytes(8), {1: b"?", 3: b"?", HASHES: bytes(8 * frames)})
    closed = header.frame_count == frames
    return program_file(header if closed else replace(header, frame_count=None), [program], [segment], indexed=closed)


@pytest.mark.parametrize(("convolutions", "frames", "live"), [(500, 1, False), (2, 1, False), (1, 4096, False), (1, 4096, True)])
def test_a_petabyte_of_multiply_adds_is_refused_at_once(convolutions: int, frames: int, live: bool) -> None:
    header = Header(1024, 1024, 1, frame_count=None if live else frames)
    data = promise(heavy(convolutions), header, frames)
    started = time.perf_counter()
    with pytest.raises(LimitError) as caught:
        verify(io.BytesIO(data))
    assert caught.value.code == "limit.compute"
    assert time.perf_counter() - started < 2


def test_memory_beyond_the_limit_is_refused_before_it_is_taken() -> None:
    data = promise(heavy(1, 256), Header(256, 256, 1, frame_count=1))
    with pytest.raises(LimitError) as caught:
        Decoder(io.BytesIO(data), limits=Limits(max_memory_bytes=1 << 20))
    assert caught.value.code == "limit.memory"


def test_a_batch_that_memory_does_not_hold_is_made_smaller() -> None:
    decoder = Decoder(io.BytesIO(encoded()), batch=1000)
    decoder.limits = replace(decoder.limits, max_memory_bytes=2 * decoder.analyses[0].peak_memory)
    assert max(len(batch.pts) for batch in decoder.frames()) <= 2


# ---- devices


def test_an_unknown_device_is_a_usage_error() -> None:
    for name in ("tpu9", "", "cpu:x", "meta"):
        with pytest.raises(UsageError):
            open_device(name)


def test_cuda_where_there_is_none_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_device("auto").type == "cpu"
    with pytest.raises(MachineError) as caught:
        open_device("cuda")
    assert caught.value.exit_code == 7
