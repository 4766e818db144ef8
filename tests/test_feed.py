"""The feed: every frame once a pass, in an order that the seed settles, from wherever the frames are."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nvc.codec.canvas import Canvas
from nvc.codec.feed import STAGES, Feed


def canvas(frames: int) -> Canvas:
    """Frame t is all t."""
    numbers = torch.arange(frames, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return Canvas(numbers.expand(-1, 3, 2, 5).contiguous(), torch.ones(3, 2, 5))


def shown(feed: Feed, steps: int) -> list[list[int]]:
    """The frames of each step, as their samples tell."""
    out = []
    for step in range(steps):
        feed.load(step)
        assert feed.frames.shape[1:] == (3, 2, 5)
        assert all(len(frame.unique()) == 1 for frame in feed.frames)
        assert feed.frames[:, 0, 0, 0].tolist() == feed.index.tolist()
        out.append(feed.index.tolist())
    return out


@given(st.integers(1, 20), st.data())
def test_every_frame_is_seen_once_a_pass_whatever_the_batch(frames: int, data: st.DataObject) -> None:
    batch, steps = data.draw(st.integers(1, frames)), data.draw(st.integers(1, 30))
    seen = list(itertools.chain(*shown(Feed(canvas(frames), batch, steps, seed=0), steps)))
    assert len(seen) == batch * steps
    for first in range(0, len(seen), frames):
        part = seen[first : first + frames]
        assert len(set(part)) == len(part)
        assert len(part) < frames or sorted(part) == list(range(frames))


def test_the_seed_settles_the_order() -> None:
    a, b, c = (shown(Feed(canvas(9), 2, 20, seed), 20) for seed in (1, 1, 2))
    assert a == b != c


def test_passes_differ() -> None:
    steps = shown(Feed(canvas(8), 8, 3, seed=0), 3)
    assert len({tuple(step) for step in steps}) == 3


def test_a_step_may_be_loaded_again_and_out_of_order() -> None:
    feed = Feed(canvas(9), 3, 10, seed=4)
    first = shown(feed, 10)
    feed.load(7)
    assert feed.index.tolist() == first[7]
    feed.load(2)
    assert feed.index.tolist() == first[2]


@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_loaded_stays_in_the_same_memory(streamed: bool) -> None:
    feed = fed(7, 2, 12, streamed, history=True)
    assert feed.before is not None
    places = [tensor.data_ptr() for tensor in (feed.index, feed.frames, feed.before)]
    for step in range(12):
        feed.load(step)
        assert [tensor.data_ptr() for tensor in (feed.index, feed.frames, feed.before)] == places


@pytest.mark.parametrize("streamed", [False, True])
def test_the_frames_before_are_those_of_t_minus_1_and_of_0_for_0(streamed: bool) -> None:
    feed = fed(7, 3, 15, streamed, history=True)
    for step in range(15):
        feed.load(step)
        assert feed.before is not None
        assert feed.before[:, 0, 0, 0].tolist() == [max(t - 1, 0) for t in feed.index.tolist()]


def test_without_a_history_there_is_no_frame_before() -> None:
    assert fed(3, 1, 3, False).before is None


def fed(frames: int, batch: int, steps: int, streamed: bool, history: bool = False) -> Feed:
    """A feed that streams although host and device are one."""
    return Feed(canvas(frames), batch, steps, 0, history=history, streamed=streamed)


def test_streamed_frames_are_the_resident_ones() -> None:
    streamed, resident = fed(11, 3, 40, True), fed(11, 3, 40, False)
    assert len(streamed._stages) == STAGES and not resident._stages
    assert shown(streamed, 40) == shown(resident, 40)


def test_stages_take_turns_so_that_a_batch_on_its_way_is_not_overwritten() -> None:
    feed = fed(11, 1, 20, True)
    for step in range(20):
        used = feed._stages[0]
        feed.load(step)
        assert feed._stages[-1] is used
        assert used.memory[0, 0, 0, 0] == feed.index[0]
        for back, stage in enumerate(feed._stages[:-1][::-1], start=1):  # those of the steps before are untouched
            if step >= back:
                assert int(stage.memory[0, 0, 0, 0]) == int(feed.order[step - back, 0])


def test_any_frames_can_be_taken() -> None:
    feed = fed(6, 2, 3, True)
    assert feed.take(torch.tensor([5, 0, 5]))[:, 1, 1, 1].tolist() == [5, 0, 5]
