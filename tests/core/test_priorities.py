"""Priorities of queues: pure arithmetic."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from runstate.core.commands.work_pools import arranged
from tests.core.factories import examples

A, B, C, NEW = (UUID(int=number) for number in range(1, 5))


def test_a_free_priority_moves_no_queue() -> None:
    assert arranged({A: 1, B: 5}, NEW, 3) == {A: 1, B: 5, NEW: 3}


def test_queues_move_until_there_is_a_gap() -> None:
    assert arranged({A: 1, B: 2, C: 4}, NEW, 1) == {NEW: 1, A: 2, B: 3, C: 4}


def test_a_queue_that_moves_up_leaves_its_place() -> None:
    assert arranged({A: 1, B: 2, C: 3}, C, 1) == {C: 1, A: 2, B: 3}


@examples(200)
@given(st.lists(st.integers(1, 30), unique=True, max_size=12), st.integers(1, 30), st.booleans())
def test_priorities_stay_unique_and_keep_the_order_of_other_queues(taken: list[int], to: int, known: bool) -> None:  # noqa: FBT001
    before = {UUID(int=place): priority for place, priority in enumerate(taken, 1)}
    moved = next(iter(before), NEW) if known else UUID(int=99)
    after = arranged(before, moved, to)
    others = [key for key in sorted(before, key=lambda key: before[key]) if key != moved]

    assert after[moved] == to
    assert len(set(after.values())) == len(after)
    assert [key for key in sorted(after, key=lambda key: after[key]) if key != moved] == others
    assert all(after[key] >= before[key] for key in others)
