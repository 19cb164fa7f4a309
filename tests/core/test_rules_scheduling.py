"""Scheduled times and claims."""

from datetime import datetime
from uuid import UUID

import pytest

from runstate.core.proposal import Abort, Amend, Reject, Wait
from runstate.core.rules.scheduling import (
    carry_scheduled_time,
    carry_task_parameters,
    claim_once,
    late_once_and_only_when_scheduled,
    wait_for_scheduled_time,
)
from runstate.core.states import (
    State,
    awaiting_retry,
    cancelled,
    cancelling,
    infrastructure_pending,
    late,
    pending,
    running,
    scheduled,
    submitting,
)
from runstate.documents.states import StateType
from tests.core.factories import NOT_ASKED, NOW, all_but, asked, details, flow_run, in_seconds, plain, task_run

S = StateType
SOON = details(scheduled_time=in_seconds(5))
CLAIMED = [S.PENDING, S.RUNNING, S.CANCELLING, S.CANCELLED]


@pytest.mark.parametrize("initial", [pending(), running(), cancelling(), cancelled(), submitting()])
def test_a_claimed_run_cannot_be_claimed_again(initial: State) -> None:
    said = Abort(reason=f"The run is in {initial.name} and cannot be claimed.")

    assert asked(claim_once, flow_run(), initial, pending()) == said
    assert asked(claim_once, task_run(), initial, pending()) == said


@pytest.mark.parametrize("initial", [running(), cancelling(), cancelled()])
def test_only_a_pending_run_enters_another_pending_state(initial: State) -> None:
    assert isinstance(asked(claim_once, flow_run(), initial, submitting()), Abort)


@pytest.mark.parametrize(
    ("initial", "proposed"),
    [
        (pending(), submitting()),
        (submitting(), infrastructure_pending()),
        (infrastructure_pending(), submitting()),
        (pending(), pending(name="Mine")),
    ],
)
def test_a_claimed_run_that_enters_another_pending_state_keeps_its_scheduled_time(
    initial: State, proposed: State
) -> None:
    said = asked(claim_once, flow_run(), initial.with_details(scheduled_time=in_seconds(5)), proposed)

    assert said == Amend(state=proposed.with_details(scheduled_time=in_seconds(5)))


@pytest.mark.parametrize("initial", [submitting(), pending(name="Mine"), pending()])
def test_a_claimed_run_does_not_enter_its_current_state_again(initial: State) -> None:
    assert isinstance(asked(claim_once, flow_run(), initial, initial), Abort)


@pytest.mark.parametrize("left", [None, *all_but(*CLAIMED)])
def test_an_unclaimed_run_can_be_claimed(left: StateType | None) -> None:
    assert asked(claim_once, flow_run(), plain(left) if left else None, pending()) == NOT_ASKED


@pytest.mark.parametrize("kind", all_but(S.PENDING))
def test_only_pending_is_a_claim(kind: StateType) -> None:
    assert asked(claim_once, flow_run(), pending(), plain(kind)) == NOT_ASKED


@pytest.mark.parametrize("initial", [scheduled(NOW, details=SOON), late(NOW, details=SOON)])
def test_a_claimed_run_keeps_its_scheduled_time(initial: State) -> None:
    said = asked(carry_scheduled_time, flow_run(), initial, pending(message="m"))

    assert said == Amend(state=pending(message="m", details=SOON))


def test_a_claim_may_name_another_time() -> None:
    assert asked(carry_scheduled_time, task_run(), scheduled(NOW), pending(details=SOON)) is None


@pytest.mark.parametrize("left", [None, *all_but(S.SCHEDULED)])
def test_only_a_scheduled_run_has_a_scheduled_time_to_keep(left: StateType | None) -> None:
    assert asked(carry_scheduled_time, flow_run(), plain(left) if left else None, pending()) == NOT_ASKED


@pytest.mark.parametrize(
    "initial", [scheduled(NOW, details=SOON), awaiting_retry(NOW, details=SOON), pending(details=SOON)]
)
def test_a_run_waits_until_its_scheduled_time(initial: State) -> None:
    said = Wait(reason="The scheduled time is in the future.", seconds=5)

    assert asked(wait_for_scheduled_time, flow_run(), initial, running()) == said
    assert asked(wait_for_scheduled_time, task_run(), initial, running()) == said


@pytest.mark.parametrize("due", [None, NOW, in_seconds(-5)])
def test_a_run_starts_at_its_scheduled_time(due: datetime | None) -> None:
    assert asked(wait_for_scheduled_time, flow_run(), pending(details=details(scheduled_time=due)), running()) is None


@pytest.mark.parametrize("left", [None, *all_but(S.SCHEDULED, S.PENDING)])
def test_only_scheduled_and_claimed_runs_wait_for_their_scheduled_time(left: StateType | None) -> None:
    assert asked(wait_for_scheduled_time, flow_run(), plain(left) if left else None, running()) == NOT_ASKED


PARAMETERS = details(task_parameters_id=UUID(int=4))


@pytest.mark.parametrize("proposed", [pending(message="m"), running(message="m")])
def test_a_background_task_run_keeps_its_parameters(proposed: State) -> None:
    for initial in (scheduled(NOW, details=PARAMETERS), pending(details=PARAMETERS)):
        said = asked(carry_task_parameters, task_run(), initial, proposed)

        assert said == Amend(state=proposed.with_details(task_parameters_id=UUID(int=4)))


def test_a_background_task_run_without_parameters_has_none_to_keep() -> None:
    assert asked(carry_task_parameters, task_run(), scheduled(NOW), running(details=PARAMETERS)) is None


def test_a_scheduled_run_becomes_late() -> None:
    assert asked(late_once_and_only_when_scheduled, flow_run(), scheduled(NOW), late(NOW)) is None
    assert asked(late_once_and_only_when_scheduled, flow_run(), awaiting_retry(NOW), late(NOW)) is None


def test_a_late_run_does_not_become_late_again() -> None:
    said = asked(late_once_and_only_when_scheduled, flow_run(), late(NOW), late(NOW))

    assert said == Reject(reason="The run is already late.")


@pytest.mark.parametrize("left", [None, *all_but(S.SCHEDULED)])
def test_only_a_scheduled_run_becomes_late(left: StateType | None) -> None:
    said = asked(late_once_and_only_when_scheduled, flow_run(), plain(left) if left else None, late(NOW))

    assert said == Reject(reason="Only a scheduled run can become late.")


def test_a_late_run_can_be_scheduled_again() -> None:
    assert asked(late_once_and_only_when_scheduled, flow_run(), late(NOW), scheduled(NOW)) is None
