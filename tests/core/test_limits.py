"""Arithmetic of limits: slots that are held until they are released, and slots that decay."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from random import Random
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.slots import advanced, after_acquire, after_release, occupied, remaining_slots, seconds_until_room
from runstate.rows import ConcurrencyLease, ConcurrencyLimit
from tests.core.factories import NOW, examples, in_seconds, lease, limit

CLOSE = 1e-3
"""Timestamps are whole microseconds, so the slots of a fast decay are exact to a thousandth only."""


def drained_in(seconds: float | None, slots: int = 4, decay: float = 2) -> ConcurrencyLimit:
    """Return a limit with decaying slots; the last one is free after this many seconds."""
    drained = None if seconds is None else in_seconds(seconds)
    return limit(slots, slot_decay_per_second=decay, drained=drained)


@pytest.mark.parametrize("taken_slots", [0, 1, 3])
def test_held_slots_stay_occupied(taken_slots: int) -> None:
    held = limit(3, occupied=taken_slots)

    assert occupied(held, NOW) == occupied(held, in_seconds(1e6)) == taken_slots


@pytest.mark.parametrize(("seconds", "slots"), [(None, 0), (-5, 0), (0, 0), (0.5, 1), (2, 4)])
def test_slots_decay_at_a_fixed_rate(seconds: float | None, slots: float) -> None:
    assert occupied(drained_in(seconds), NOW) == slots


@pytest.mark.parametrize(("held", "asked", "seconds"), [(0, 3, 0), (2, 1, 0), (3, 1, inf), (2, 2, inf), (0, 4, inf)])
def test_slots_are_available_after_enough_are_released(held: int, asked: int, seconds: float) -> None:
    assert seconds_until_room(limit(3, occupied=held), asked, NOW) == seconds


@pytest.mark.parametrize(
    ("drained", "asked", "seconds"), [(None, 4, 0), (2, 1, 0.5), (2, 4, 2), (1, 2, 0), (1, 3, 0.5), (None, 5, inf)]
)
def test_slots_are_available_after_enough_have_decayed(drained: float | None, asked: int, seconds: float) -> None:
    assert seconds_until_room(drained_in(drained), asked, NOW) == seconds


def test_an_inactive_limit_always_has_slots() -> None:
    assert seconds_until_room(limit(1, occupied=7, active=False), 9, NOW) == 0
    assert seconds_until_room(limit(0, active=False), 1, NOW) == 0


def test_a_limit_of_0_never_has_slots() -> None:
    assert seconds_until_room(limit(0), 1, NOW) == inf
    assert seconds_until_room(drained_in(None, slots=0), 1, NOW) == inf


def test_a_lowered_limit_has_slots_once_fewer_are_held() -> None:
    assert seconds_until_room(limit(2, occupied=5), 1, NOW) == inf
    assert seconds_until_room(drained_in(5, slots=2), 1, NOW) == 4.5


def test_acquired_slots_are_held() -> None:
    assert after_acquire(limit(3, occupied=1), 2, NOW).occupied == 3


@pytest.mark.parametrize(("drained", "until"), [(None, 1.5), (-9, 1.5), (0, 1.5), (0.5, 2)])
def test_acquired_slots_decay_after_those_acquired_before(drained: float | None, until: float) -> None:
    assert after_acquire(drained_in(drained), 3, NOW).drained == in_seconds(until)


def test_released_slots_are_free() -> None:
    held = limit(3, occupied=3)

    assert after_release(held, lease(held, slots=2), NOW).occupied == 1


@pytest.mark.parametrize(
    ("slots", "average", "held_for", "moved"),
    [(1, 2, 10, 6), (1, 2, 2, 2), (2, 2, 10, 4), (4, 8, 0, 8 - 7.9 / 8), (0, 2, 10, 6), (1, 2, -5, 1.05)],
)
def test_the_time_that_slots_are_held_moves_the_average(
    slots: int, average: float, held_for: float, moved: float
) -> None:
    held = limit(slots, occupied=1, average_slot_occupancy_seconds=average)
    returned = after_release(held, lease(held, created=in_seconds(-held_for)), NOW)

    assert returned.average_slot_occupancy_seconds == round(moved, 6)


def test_the_average_is_about_one_slot() -> None:
    held = limit(1, occupied=5, average_slot_occupancy_seconds=2)

    assert after_release(held, lease(held, slots=5, created=in_seconds(-10)), NOW).average_slot_occupancy_seconds == 2


@pytest.mark.parametrize(("expires", "slots"), [(None, 0), (-1, 0), (0, 0), (0.5, 1), (1, 2), (9, 3)])
def test_slots_of_a_lease_decay_one_after_another(expires: float | None, slots: float) -> None:
    on = drained_in(9)
    held = lease(on, slots=3, expires=None if expires is None else in_seconds(expires))

    assert remaining_slots(on, held, NOW) == slots


def test_a_release_frees_the_slots_that_have_not_decayed() -> None:
    on = drained_in(2)

    assert after_release(on, lease(on, slots=1, expires=in_seconds(2)), NOW).drained == in_seconds(1.5)
    assert after_release(on, lease(on, slots=4, expires=in_seconds(0.5)), NOW).drained == in_seconds(1.5)


def test_a_release_does_not_free_decayed_slots_again() -> None:
    on = drained_in(2)

    assert after_release(on, lease(on, slots=1, expires=in_seconds(-1)), NOW).drained == in_seconds(2)


def test_slots_behind_released_ones_decay_sooner() -> None:
    on = drained_in(2)
    gone, behind = lease(on, slots=2, expires=in_seconds(1)), lease(on, slots=2, expires=in_seconds(2))

    assert advanced(on, gone, behind, NOW).expires == in_seconds(1)
    assert advanced(on, behind, gone, NOW) is gone


@pytest.mark.parametrize("decay", [1e-300, 1e-12, 1e-6, 1e-3, 1, 1e6])
def test_slots_that_would_decay_too_late_are_not_acquired(decay: float) -> None:
    for slots in (1, 100, 2**31 - 1):
        bucket = limit(slots, slot_decay_per_second=decay)
        if seconds_until_room(bucket, slots, NOW) == 0:
            assert seconds_until_room(after_acquire(bucket, slots, NOW), slots, NOW) == pytest.approx(slots / decay)
        else:
            assert slots / decay > 1000 * 365 * 24 * 3600
            assert seconds_until_room(bucket, slots, NOW) == inf


rates = st.floats(0.01, 50)
sizes = st.integers(1, 10)
moments = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 10)), max_size=40)


@examples(100)
@given(slots=sizes, decay=rates, asked=moments)
def test_no_time_window_sees_more_acquisitions_than_the_limit_and_its_decay(
    slots: int, decay: float, asked: list[tuple[float, int]]
) -> None:
    bucket, now = limit(slots, slot_decay_per_second=decay), NOW
    granted: list[tuple[datetime, int]] = []
    for pause, wanted in asked:
        now += timedelta(seconds=pause / decay)
        if seconds_until_room(bucket, wanted, now) == 0:
            bucket = after_acquire(bucket, wanted, now)
            granted.append((now, wanted))

    for first, (start, _) in enumerate(granted):
        total = 0
        for end, wanted in granted[first:]:
            total += wanted
            assert total <= slots + decay * (end - start).total_seconds() + CLOSE


@examples(100)
@given(slots=sizes, decay=rates, wanted=sizes, drained=st.floats(0, 100))
def test_slots_are_available_after_the_delay_and_not_before(
    slots: int, decay: float, wanted: int, drained: float
) -> None:
    assume(wanted <= slots)
    bucket = drained_in(drained, slots, decay)
    wait = seconds_until_room(bucket, wanted, NOW)

    assert seconds_until_room(bucket, wanted, in_seconds(wait)) <= CLOSE
    if wait > CLOSE:
        assert seconds_until_room(bucket, wanted, in_seconds(wait - CLOSE)) > 0


@dataclass(frozen=True)
class Move:
    """An acquisition or a release, after some seconds."""

    pause: float
    wanted: int
    after_release: int | None


moves = st.lists(
    st.builds(Move, st.floats(0, 3), st.integers(1, 5), st.none() | st.integers(0, 50)), min_size=1, max_size=30
)


def played(on: ConcurrencyLimit, moves: list[Move]) -> list[tuple[datetime, ConcurrencyLimit, list[ConcurrencyLease]]]:
    """Return the limit and its leases after each move."""
    unit, now, seen = UnitOfWork(limits={on.id: on}), NOW, []
    pace = on.slot_decay_per_second or 1
    for number, move in enumerate(moves):
        now += timedelta(seconds=move.pause / pace)
        leases = list(unit.leases.values())
        if move.after_release is not None and leases:
            unit.release(leases[move.after_release % len(leases)], now)
        elif seconds_until_room(unit.limits[on.id], move.wanted, now) == 0:
            unit.acquire(on.id, move.wanted, now, id=UUID(int=number), expires=None)
        seen.append((now, unit.limits[on.id], list(unit.leases.values())))
    return seen


@examples(100)
@given(slots=sizes, decay=rates, moves=moves)
def test_a_limit_with_decay_is_drained_when_its_last_lease_is(slots: int, decay: float, moves: list[Move]) -> None:
    for now, bucket, leases in played(limit(slots, slot_decay_per_second=decay), moves):
        latest = max((each.expires for each in leases if each.expires), default=now)
        rest = sum(remaining_slots(bucket, each, now) for each in leases)

        assert occupied(bucket, now) <= slots + CLOSE
        assert occupied(bucket, now) == pytest.approx(rest, abs=CLOSE)
        if occupied(bucket, now) > CLOSE:
            assert bucket.drained is not None
            assert abs((bucket.drained - latest).total_seconds()) * decay <= CLOSE


@examples(100)
@given(slots=sizes, moves=moves)
def test_a_limit_without_decay_counts_the_slots_of_its_leases(slots: int, moves: list[Move]) -> None:
    for now, held, leases in played(limit(slots), moves):
        assert occupied(held, now) == sum(each.slots for each in leases) <= slots


@examples(50)
@given(slots=sizes, decay=st.just(0) | rates, moves=moves, wanted=st.integers(1, 20))
def test_reading_a_limit_changes_nothing(slots: int, decay: float, moves: list[Move], wanted: int) -> None:
    for now, each, _ in played(limit(slots, slot_decay_per_second=decay), moves):
        before = dict(vars(each))
        seconds_until_room(each, wanted, now)
        occupied(each, now)

        assert vars(each) == before


@examples(50)
@given(decay=rates, wanted=st.lists(st.integers(1, 5), min_size=1, max_size=8), order=st.randoms())
def test_releasing_everything_at_once_leaves_nothing_occupied(decay: float, wanted: list[int], order: Random) -> None:
    bucket = limit(100, slot_decay_per_second=decay)
    unit = UnitOfWork(limits={bucket.id: bucket})
    leases = [unit.acquire(bucket.id, each, NOW, id=UUID(int=at), expires=None) for at, each in enumerate(wanted)]
    order.shuffle(leases)
    for each in leases:
        unit.release(unit.leases[each.id], NOW)

    assert occupied(unit.limits[bucket.id], NOW) == pytest.approx(0, abs=CLOSE)
