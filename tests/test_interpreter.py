"""The torch interpreter gives the reference's frames whatever batch and threads; and it is the 2^24 bound that makes it so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from nvc_files import reference_frames
from small_programs import ONE, Integers, Row, analysed, program_of, random_rows, rows_of, values_of

from nvc.bitstream import arithmetic
from nvc.bitstream.analysis import analyse
from nvc.bitstream.bounds import prove
from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import InvalidError
from nvc.bitstream.program import SYNTAX, Op
from nvc.codec.interpreter import Interpreter
from nvc.conformance.catalogue.networks import Network, random_network

CPU = torch.device("cpu")
SEEDS = range(64)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def frames_of(network: Network, batch: int) -> list[list[NDArray[np.uint8]]]:
    """All frames of a network, `batch` at a time, each three planes (H, W)."""
    run = Interpreter(analyse(network.program, Limits()), network.tensors, network.frames, batch, CPU)
    frames: list[list[NDArray[np.uint8]]] = []
    for first in range(0, network.frames, batch):
        count = min(batch, network.frames - first)
        planes = run.render(first, count)
        assert all(plane.shape[0] == count and plane.dtype == np.uint8 for plane in planes)
        frames += [[plane[t] for plane in planes] for t in range(count)]
    return frames


@pytest.mark.parametrize("seed", SEEDS)
def test_every_frame_is_that_of_the_reference_in_any_batch_and_with_any_threads(seed: int, restore_threads: None) -> None:
    network = random_network(seed)
    expected = reference_frames(network)
    for batch, threads in ((1, 1), (3, 2), (4, 1)):
        torch.set_num_threads(threads)
        for found, wanted in zip(frames_of(network, batch), expected, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_value_of_every_frame_is_that_of_the_reference(seed: int) -> None:
    """A picture shows eight bits of its last values; here every operation answers for all of its integers."""
    network = random_network(seed)
    frames = network.frames
    run = Interpreter(analyse(network.program, Limits()), network.tensors, frames, frames, CPU)
    expected = [values_of(rows_of(network.program), network.tensors, t, frames) for t in range(frames)]
    values: list[torch.Tensor] = []
    with torch.inference_mode():
        for number, step in enumerate(run._steps):
            values.append(step(values, torch.arange(frames)))
            wanted = np.stack([made[number] for made in expected])
            assert np.array_equal(values[number].expand(frames, -1, -1, -1).numpy(), wanted), network.program.operations[number]


def test_the_random_networks_above_cover_every_operation_and_choice() -> None:
    seen = {Op(row[0]): 0 for seed in SEEDS for row in random_rows(seed)}
    assert set(seen) == set(Op)
    operations = [op for seed in SEEDS for op in random_network(seed).program.operations]
    requantised = [op for op in operations if op.code is Op.REQUANTISE]
    assert {op["function"] for op in requantised} == set(arithmetic.FUNCTIONS)
    assert {op["argument"] for op in requantised if op["function"] == arithmetic.TABLE} == {0, 1, 2, 3}
    assert {op["multipliers"] > 1 for op in requantised} == {True, False}
    assert {op["axis"] for op in operations if op.code is Op.COORDINATES} == {0, 1}
    assert {op["groups"] > 1 for op in operations if op.code is Op.CONVOLUTION} == {True, False}
    embeddings = [op for op in operations if op.code is Op.EMBEDDING]
    assert {op["stride"] > 1 for op in embeddings} == {True, False}
    assert {np.sign(op["offset"]) for op in embeddings} == {-1, 0, 1}
    assert {random_network(seed).frames for seed in SEEDS} == set(range(1, 8))
    assert set(SYNTAX) == set(Op)


@pytest.mark.parametrize("seed", range(8))
def test_any_frame_can_be_rendered_first_and_again(seed: int) -> None:
    network = random_network(seed)
    run = Interpreter(analyse(network.program, Limits()), network.tensors, network.frames, 2, CPU)
    expected = reference_frames(network)
    for t in (*reversed(range(network.frames)), 0):
        assert all(np.array_equal(plane[0], wanted) for plane, wanted in zip(run.render(t, 1), expected[t], strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_batches_may_be_launched_before_others_are_waited_for_and_stay_the_callers(seed: int) -> None:
    network = random_network(seed)
    run = Interpreter(analyse(network.program, Limits()), network.tensors, network.frames, 2, CPU)
    expected = reference_frames(network)
    pending = [run.launch(t, 1) for t in range(network.frames)]
    found = {t: pending[t].planes() for t in reversed(range(network.frames))}
    for t, planes in found.items():
        assert all(np.array_equal(plane[0], wanted) for plane, wanted in zip(planes, expected[t], strict=True))
        assert all(plane.flags.c_contiguous for plane in planes)
        for plane in planes:
            plane[:] = 0  # nobody else's


def test_a_value_that_is_read_twice_is_not_overwritten_by_its_first_reader() -> None:
    rows: list[Row] = [
        [3, 0, 1, 2, 2],
        [10, 0, 1, 2, 1, 1, 1, 1],
        [30, 1, 3, 1, 0, 255, 0, 0],
        [30, 1, 4, 1, 0, 255, 0, 0],
        [50, 2, 3, 2],
    ]
    pixels = np.array([[[1, 2], [3, 4]]])
    half = ONE - 1024
    tensors: list[Integers] = [pixels, np.array([[[[10]]]]), np.array([4]), np.array([half]), np.array([ONE])]
    y, cb, cr = Interpreter(analysed(*rows), tensors, 1, 1, CPU).render(0, 1)
    assert y[0].tolist() == cr[0].tolist() == [[7, 12], [17, 22]]
    assert cb[0].tolist() == [[14, 24], [34, 44]]


# ---- what the bound is for


def cancelling(channels: int, magnitude: int) -> tuple[list[Row], list[Integers]]:
    """A convolution whose terms cancel but for the bias of 100: half of them products of `magnitude`, half their negatives."""
    outputs, side = 8, 6
    generator = np.random.default_rng(1)
    half = 2047 - 2 * generator.integers(0, 50, channels // 2)
    source = np.broadcast_to(np.concatenate([half, half])[:, None, None], (channels, side, side))
    weight = np.empty((outputs, channels, 1, 1), dtype=np.int64)
    weight[:, : channels // 2], weight[:, channels // 2 :] = magnitude, -magnitude
    rows: list[Row] = [
        [3, 0, channels, side, side],
        [10, 0, 1, 2, outputs, 1, 1, 1],
        [30, 1, 3, 1, 0, 255, 0, 0],
        *([41, 2, channel, channel + 1] for channel in range(3)),
        [50, 3, 4, 5],
    ]
    return rows, [source.astype(np.int64), weight, np.full(outputs, 100), np.array([ONE])]


def rendered(rows: list[Row], tensors: list[Integers], batch: int) -> Integers:
    run = Interpreter(analysed(*rows), tensors, 1, batch, CPU)
    return np.stack([plane[0] for plane in run.render(0, 1)]).astype(np.int64)


def test_beyond_the_bound_the_interpreter_is_wrong_and_the_proof_refuses_it() -> None:
    """Without the proof float32 rounds partial sums, so the comparison with the reference above would notice its absence."""
    rows, tensors = cancelling(4096, 127)
    with pytest.raises(InvalidError, match="over 2"):
        prove(analysed(*rows), tensors)
    exact = np.stack(values_of(rows, tensors, 0, 1)[3:])[:, 0]
    assert (exact == 100).all()
    assert any(not np.array_equal(rendered(rows, tensors, batch), exact) for batch in (1, 2, 3))


def test_within_the_bound_the_same_network_is_exact() -> None:
    rows, tensors = cancelling(4096, 3)
    with pytest.raises(InvalidError):
        prove(analysed(*rows), tensors)
    rows, tensors = cancelling(4096, 1)  # 4096 * 2048 = 2^23
    prove(analysed(*rows), tensors)
    for batch in (1, 2, 3):
        assert (rendered(rows, tensors, batch) == 100).all()


def test_the_rows_of_a_program_are_those_of_its_operations() -> None:
    rows = random_rows(3)
    assert rows_of(program_of(*rows)) == rows
