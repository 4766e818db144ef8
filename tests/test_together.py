"""Runs in turns: a step each, in one order that no clock decides, never more at a time than there is room for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvc.codec.together import in_turns

LENGTHS = st.lists(st.integers(0, 9), max_size=12)


class Counted:
    """A run of so many steps that writes down its turns."""

    def __init__(self, number: int, steps: int, turns: list[int]) -> None:
        self.number, self.left, self.turns = number, steps, turns

    @property
    def done(self) -> bool:
        return not self.left

    def advance(self) -> None:
        assert self.left
        self.left -= 1
        self.turns.append(self.number)


def started(lengths: Sequence[int], turns: list[int], born: list[Counted]) -> Iterator[Counted]:
    """Runs that are made when they are asked for."""
    for number, steps in enumerate(lengths):
        born.append(Counted(number, steps, turns))
        yield born[-1]


@given(LENGTHS, st.integers(1, 5))
def test_all_runs_come_out_done_in_their_order_and_no_step_is_left_out(lengths: list[int], most: int) -> None:
    turns: list[int] = []
    for number, run in enumerate(in_turns(started(lengths, turns, []), most)):
        assert (run.number, run.left) == (number, 0)
    assert [turns.count(number) for number in range(len(lengths))] == lengths


@given(LENGTHS, st.integers(1, 5))
def test_no_more_go_on_than_there_is_room_for(lengths: list[int], most: int) -> None:
    born: list[Counted] = []

    def watched() -> Iterator[Counted]:
        for run in started(lengths, [], born):
            assert sum(not other.done for other in born[:-1]) < most
            yield run

    assert len(list(in_turns(watched(), most))) == len(born) == len(lengths)


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 5))
def test_between_two_turns_of_a_run_every_other_has_just_one(lengths: list[int], most: int) -> None:
    turns: list[int] = []
    list(in_turns(started(lengths, turns, []), most))
    for number in range(len(lengths)):
        at = [i for i, turn in enumerate(turns) if turn == number]
        for first, last in itertools.pairwise(at):
            between = turns[first + 1 : last]
            assert len(set(between)) == len(between) <= most  # one that ends makes room for one that begins
            going = {other for other in range(len(lengths)) if other in turns[:first] and other in turns[last:]}
            assert going - {number} <= set(between)


def test_with_room_for_one_a_run_begins_when_the_one_before_it_was_taken() -> None:
    turns: list[int] = []
    born: list[Counted] = []
    for run in in_turns(started([3, 2, 1], turns, born), 1):
        assert len(born) == run.number + 1
    assert turns == [0, 0, 0, 1, 1, 2]


def test_a_run_that_ends_early_makes_room_before_those_in_front_are_done() -> None:
    turns: list[int] = []
    list(in_turns(started([4, 1, 2], turns, []), 2))
    assert turns == [0, 1, 0, 2, 0, 2, 0]


def test_an_error_of_a_run_comes_out() -> None:
    class Broken(Counted):
        def advance(self) -> None:
            raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        list(in_turns([Counted(0, 5, []), Broken(1, 1, [])], 2))


def test_no_room_at_all_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="0 runs"):
        list(in_turns([Counted(0, 1, [])], 0))
