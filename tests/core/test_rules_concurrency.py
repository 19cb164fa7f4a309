"""Slots of limits: which runs acquire one, which keep one, and what happens to a run without one."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstate.core.proposal import Abort, Acquire, Amend, Reject, Slot, Wait
from runstate.core.rules.concurrency import (
    HOLDING,
    HOLDING_TASK,
    cancel_late_run_without_slot,
    carry_lease,
    keep_deployment_slot,
    take_deployment_slot,
    take_deployment_slot_again,
    take_tag_slots,
)
from runstate.core.states import (
    State,
    awaiting_concurrency_slot,
    awaiting_retry,
    cancelled,
    cancelling,
    late,
    paused,
    pending,
    running,
    scheduled,
)
from runstate.documents.decisions import LastAnswer, OrchestrationStatus, ProposedType
from runstate.documents.policies import CollisionStrategy, ConcurrencyOptions
from runstate.documents.states import StateType
from runstate.rows import ConcurrencyLimit, TaskRun
from tests.core.factories import (
    NOT_ASKED,
    NOW,
    all_but,
    asked,
    details,
    examples,
    flow_run,
    in_seconds,
    lease,
    limit,
    pairs,
    plain,
    slot,
    task_run,
)

S = StateType
ENQUEUE = ConcurrencyOptions(collision_strategy=CollisionStrategy.ENQUEUE)
CANCEL_NEW = ConcurrencyOptions(collision_strategy=CollisionStrategy.CANCEL_NEW)
PATIENT = ConcurrencyOptions(collision_strategy=CollisionStrategy.ENQUEUE, grace_period_seconds=60)
LEASED = details(deployment_concurrency_lease_id=UUID(int=5))
OUTSIDE = [None, *all_but(S.PENDING, S.RUNNING, S.CANCELLING)]


def free(**columns: Any) -> Slot:
    return slot(limit(2, name="few", occupied=1, **columns))


def full(**columns: Any) -> Slot:
    return slot(limit(2, name="few", occupied=2, **columns))


def none_at_all(**columns: Any) -> Slot:
    return slot(limit(0, name="none", **columns))


def held(on: ConcurrencyLimit) -> Slot:
    return slot(on, lease(on))


def state_of(kind: StateType | None) -> State | None:
    return plain(kind) if kind else None


def test_slots_are_held_while_a_run_uses_the_resource_of_the_limit() -> None:
    assert {S.PENDING, S.RUNNING, S.CANCELLING} == HOLDING
    assert {S.RUNNING, S.CANCELLING} == HOLDING_TASK


@pytest.mark.parametrize(("left", "entered"), pairs(sorted(HOLDING, key=str), sorted(HOLDING, key=str)))
def test_a_run_that_keeps_its_slot_keeps_the_id_of_its_lease(left: S, entered: S) -> None:
    said = asked(carry_lease, flow_run(), plain(left).with_details(**LEASED.model_dump()), plain(entered))

    assert isinstance(said, Amend)
    assert said.state == plain(entered).with_details(**LEASED.model_dump())


def test_a_run_without_a_lease_has_no_lease_id() -> None:
    assert asked(carry_lease, flow_run(), pending(), running()) is None


@pytest.mark.parametrize(
    ("left", "entered"), [*pairs(OUTSIDE, S), *pairs(sorted(HOLDING, key=str), [kind for kind in OUTSIDE if kind])]
)
def test_a_run_that_leaves_or_has_no_slot_has_no_lease_id(left: S | None, entered: S) -> None:
    initial = state_of(left)
    leased = initial.with_details(**LEASED.model_dump()) if initial else None

    assert asked(carry_lease, flow_run(), leased, plain(entered)) == NOT_ASKED


@pytest.mark.parametrize("left", OUTSIDE)
def test_a_claimed_run_acquires_a_slot_for_its_grace_period(left: S | None) -> None:
    place = free()
    said = asked(take_deployment_slot, flow_run(), state_of(left), pending(message="m"), slots=(place,))

    assert said == Amend(
        state=pending(message="m", details=details(deployment_concurrency_lease_id=place.new_lease_id)),
        effects=(Acquire(place, in_seconds(300)),),
    )


def test_the_deployment_sets_the_grace_period_of_a_claimed_run() -> None:
    place = free()
    said = asked(take_deployment_slot, flow_run(), scheduled(NOW), pending(), slots=(place,), concurrency=PATIENT)

    assert isinstance(said, Amend)
    assert said.effects == (Acquire(place, in_seconds(60)),)


@pytest.mark.parametrize("options", [None, ENQUEUE, PATIENT])
def test_a_claimed_run_without_a_slot_is_scheduled_again_in_30_seconds(options: ConcurrencyOptions | None) -> None:
    place = full()
    said = asked(take_deployment_slot, flow_run(), scheduled(NOW), pending(), slots=(place,), concurrency=options)

    instead = awaiting_concurrency_slot(NOW, in_seconds(30))
    assert said == Reject(reason="The limit few is full.", instead=instead, limits=(place.limit.id,))


def test_a_claimed_run_without_a_slot_is_cancelled_if_the_deployment_cancels_new_runs() -> None:
    said = asked(take_deployment_slot, flow_run(), scheduled(NOW), pending(), slots=(full(),), concurrency=CANCEL_NEW)

    assert said == Reject(
        reason="The limit few is full.",
        instead=cancelled(message="The concurrency limit of the deployment was reached."),
    )


def test_a_run_whose_limit_has_0_slots_is_not_claimed() -> None:
    said = asked(take_deployment_slot, flow_run(), scheduled(NOW), pending(), slots=(none_at_all(),))

    assert said == Abort(reason="The limit none has no slots.")


@pytest.mark.parametrize("slots", [(), (full(active=False),), (none_at_all(active=False),)])
def test_a_run_without_a_limit_is_claimed(slots: tuple[Slot, ...]) -> None:
    assert asked(take_deployment_slot, flow_run(), scheduled(NOW), pending(), slots=slots) is None


@pytest.mark.parametrize("left", [S.PENDING, S.RUNNING, S.CANCELLING])
def test_a_run_that_holds_its_slot_acquires_no_other(left: S) -> None:
    assert asked(take_deployment_slot, flow_run(), plain(left), pending(), slots=(free(),)) == NOT_ASKED
    assert asked(take_deployment_slot_again, flow_run(), plain(left), running(), slots=(free(),)) == NOT_ASKED


@pytest.mark.parametrize("kind", all_but(S.PENDING))
def test_only_a_claim_acquires_a_slot_for_a_grace_period(kind: S) -> None:
    assert asked(take_deployment_slot, flow_run(), scheduled(NOW), plain(kind), slots=(free(),)) == NOT_ASKED


def test_a_claimed_run_that_starts_keeps_its_slot_until_it_leaves() -> None:
    place = held(limit(1, occupied=1))
    said = asked(keep_deployment_slot, flow_run(), pending(details=LEASED), running(), slots=(place,))

    assert place.held
    assert said is None


def test_a_claimed_run_that_starts_keeps_its_slot_of_a_limit_that_was_lowered_or_switched_off() -> None:
    for place in (held(limit(0, occupied=1)), held(limit(1, occupied=1, active=False))):
        assert asked(keep_deployment_slot, flow_run(), pending(details=LEASED), running(), slots=(place,)) is None


def test_a_claimed_run_that_lost_its_slot_acquires_another() -> None:
    place = free()
    said = asked(keep_deployment_slot, flow_run(), pending(details=LEASED), running(message="m"), slots=(place,))

    assert said == Amend(
        state=running(message="m", details=details(deployment_concurrency_lease_id=place.new_lease_id)),
        effects=(Acquire(place, None),),
    )


@pytest.mark.parametrize("place", [full(), none_at_all()])
def test_a_claimed_run_that_lost_its_slot_is_cancelled_if_none_is_free(place: Slot) -> None:
    said = asked(keep_deployment_slot, flow_run(), pending(details=LEASED), running(), slots=(place,))

    assert isinstance(said, Reject)
    assert said.instead == cancelled(message=said.reason)


@pytest.mark.parametrize("slots", [(), (full(active=False),)])
def test_a_claimed_run_whose_limit_is_deleted_starts(slots: tuple[Slot, ...]) -> None:
    assert asked(keep_deployment_slot, flow_run(), pending(details=LEASED), running(), slots=slots) is None
    assert asked(keep_deployment_slot, flow_run(), pending(), running(), slots=slots) is None


def test_a_run_that_was_claimed_by_force_acquires_its_slot_when_it_starts() -> None:
    place = free()
    said = asked(keep_deployment_slot, flow_run(), pending(), running(), slots=(place,))

    assert isinstance(said, Amend)
    assert said.effects == (Acquire(place, None),)


def test_a_run_that_was_claimed_by_force_waits_for_its_slot() -> None:
    said = asked(keep_deployment_slot, flow_run(), pending(), running(), slots=(full(),))

    assert isinstance(said, Wait)
    assert said.reason == "The limit few is full."


@pytest.mark.parametrize("left", [kind for kind in OUTSIDE if kind is not S.PENDING])
def test_a_run_that_starts_unclaimed_acquires_a_slot_until_it_leaves(left: S | None) -> None:
    place = free()
    said = asked(take_deployment_slot_again, flow_run(), state_of(left), running(), slots=(place,))

    assert said == Amend(
        state=running(details=details(deployment_concurrency_lease_id=place.new_lease_id)),
        effects=(Acquire(place, None),),
    )


@pytest.mark.parametrize("initial", [awaiting_retry(NOW), paused(NOW), None])
@pytest.mark.parametrize("options", [None, ENQUEUE, CANCEL_NEW])
def test_a_run_that_starts_unclaimed_waits_for_a_slot(
    initial: State | None, options: ConcurrencyOptions | None
) -> None:
    said = asked(take_deployment_slot_again, flow_run(), initial, running(), slots=(full(),), concurrency=options)

    assert isinstance(said, Wait)


def test_a_run_that_starts_unclaimed_is_refused_if_the_limit_has_0_slots() -> None:
    said = asked(take_deployment_slot_again, flow_run(), None, running(), slots=(none_at_all(),))

    assert said == Abort(reason="The limit none has no slots.")


@pytest.mark.parametrize("slots", [(), (full(active=False),)])
def test_a_run_without_a_limit_starts(slots: tuple[Slot, ...]) -> None:
    assert asked(take_deployment_slot_again, flow_run(), None, running(), slots=slots) is None


@pytest.mark.parametrize("left", [None, *S])
def test_a_task_run_that_starts_acquires_a_slot_for_each_tag(left: S | None) -> None:
    places = (free(), free())
    said = asked(take_tag_slots, task_run(), state_of(left), running(), slots=places)

    assert said == Amend(effects=(Acquire(places[0], None), Acquire(places[1], None)))


@pytest.mark.parametrize("kind", all_but(S.RUNNING))
def test_a_task_run_acquires_slots_only_to_run(kind: S) -> None:
    assert asked(take_tag_slots, task_run(), running(), plain(kind), slots=(free(),)) == NOT_ASKED


def test_a_task_run_without_limited_tags_starts() -> None:
    assert asked(take_tag_slots, task_run(), pending(), running()) is None
    assert asked(take_tag_slots, task_run(), pending(), running(), slots=(full(active=False),)) is None


def test_a_task_run_that_lacks_one_slot_acquires_none() -> None:
    places = (free(), full(), full())
    said = asked(take_tag_slots, task_run(), pending(), running(), slots=places)

    assert isinstance(said, Wait)
    assert said.reason == "The limit few, few is full."
    assert said.limits == (places[1].limit.id, places[2].limit.id)


def test_a_task_run_with_a_tag_of_0_slots_never_starts() -> None:
    said = asked(take_tag_slots, task_run(), pending(), running(), slots=(full(), none_at_all()))

    assert said == Abort(reason="The limit none has no slots.")


def test_a_task_run_with_a_tag_whose_slots_decay_so_slowly_that_none_is_ever_free_never_starts() -> None:
    stuck = slot(limit(1, name="stuck", slot_decay_per_second=1e-12))

    assert asked(take_tag_slots, task_run(), pending(), running(), slots=(stuck,)) == Abort(
        reason="The limit stuck has no slots."
    )


def test_a_task_run_that_holds_its_slots_acquires_no_others() -> None:
    place, other = held(limit(1, occupied=1)), free()

    assert asked(take_tag_slots, task_run(), running(), running(), slots=(place,)) is None
    assert asked(take_tag_slots, task_run(), running(), running(), slots=(place, other)) == Amend(
        effects=(Acquire(other, None),)
    )


def waits(run: TaskRun | None = None, **facts: Any) -> float:
    said = asked(take_tag_slots, run or task_run(), pending(), running(), **facts)
    assert isinstance(said, Wait)
    return said.seconds


@examples(50)
@given(draw=st.floats(0, 1), average=st.floats(0, 1000))
def test_the_retry_delay_has_a_minimum_and_a_maximum(draw: float, average: float) -> None:
    place = full(average_slot_occupancy_seconds=average)

    assert 0.1 <= waits(slots=(place,), draw=draw) <= 30


def test_the_retry_delay_of_a_tag_is_at_most_30_seconds() -> None:
    assert waits(slots=(slot(limit(1, name="tag:a", occupied=1, average_slot_occupancy_seconds=1e6)),), draw=1) == 30


def test_the_retry_delay_is_at_least_half_the_time_for_which_all_holders_have_held_their_slots() -> None:
    place = full(average_slot_occupancy_seconds=0.1, updated=in_seconds(-12))

    assert [waits(slots=(place,), draw=draw) for draw in (0, 0.5, 1)] == pytest.approx([6, 12, 18])
    assert waits(slots=(full(average_slot_occupancy_seconds=0.1, updated=in_seconds(-180)),), draw=0) == 30


@examples(50)
@given(draw=st.floats(0, 1), attempts=st.integers(0, 100))
def test_the_retry_delay_grows_with_the_attempts_of_the_run(draw: float, attempts: int) -> None:
    place = full(average_slot_occupancy_seconds=0.5)
    delays = [waits(told(each), slots=(place,), draw=draw) for each in (attempts, attempts + 1)]

    assert delays[1] == 30 or delays[1] - delays[0] == pytest.approx(
        0.5 * (0.5 + draw), abs=1e-6
    )  # delays have microseconds
    assert delays[1] <= 30


def test_attempts_that_waited_for_something_else_do_not_count() -> None:
    assert waits(told(9, limits=0), slots=(full(),)) == waits(slots=(full(),))


def told(attempts: int, limits: int = 1) -> TaskRun:
    """Return a run that was told several times in a row that limits are full."""
    answer = LastAnswer(
        at=NOW,
        proposed=ProposedType(type=S.RUNNING, name="Running"),
        status=OrchestrationStatus.WAIT,
        rule="take_tag_slots",
        reason="",
        attempts=max(attempts, 1),
        limit_ids=(UUID(int=1),) * limits,
    )
    return task_run(last_answer=answer if attempts else None)


def test_retry_delays_are_random_around_the_average_time_that_slots_are_held() -> None:
    place = full(average_slot_occupancy_seconds=2)
    drawn = [waits(slots=(place,), draw=number / 1000) for number in range(1000)]

    assert drawn == sorted(drawn)
    assert drawn == [round(each, 6) for each in drawn]
    assert sum(drawn) / len(drawn) == pytest.approx(2, rel=0.05)


def test_the_retry_delay_of_a_rate_limit_is_the_time_of_the_decay() -> None:
    place = slot(limit(1, slot_decay_per_second=0.1, drained=in_seconds(4)))

    assert waits(slots=(place,)) == pytest.approx(4)


def test_the_retry_delay_of_several_slots_is_that_of_the_last_one() -> None:
    places = [slot(limit(1, slot_decay_per_second=0.1, drained=in_seconds(seconds))) for seconds in (2, 9, 4)]

    assert waits(slots=tuple(places)) == pytest.approx(9)


def lateness(place: Slot, options: ConcurrencyOptions | None, proposed: State) -> Any:
    return asked(
        cancel_late_run_without_slot, flow_run(), scheduled(NOW), proposed, slots=(place,), concurrency=options
    )


@pytest.mark.parametrize("place", [full(), none_at_all()])
def test_a_late_run_without_a_free_slot_is_cancelled_if_the_deployment_cancels_new_runs(place: Slot) -> None:
    said = lateness(place, CANCEL_NEW, late(NOW))

    assert isinstance(said, Reject)
    assert said.instead == cancelled(message="The concurrency limit of the deployment was reached.")


@pytest.mark.parametrize(
    ("place", "options", "proposed"),
    [
        (free(), CANCEL_NEW, late(NOW)),
        (full(), ENQUEUE, late(NOW)),
        (full(), None, late(NOW)),
        (full(active=False), CANCEL_NEW, late(NOW)),
        (full(), CANCEL_NEW, scheduled(NOW)),
    ],
)
def test_other_late_runs_are_late(place: Slot, options: ConcurrencyOptions | None, proposed: State) -> None:
    assert lateness(place, options, proposed) is None


def test_only_scheduled_runs_are_cancelled_for_being_late() -> None:
    said = asked(
        cancel_late_run_without_slot, flow_run(), cancelling(), late(NOW), slots=(full(),), concurrency=CANCEL_NEW
    )

    assert said == NOT_ASKED
