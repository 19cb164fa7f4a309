"""Cancellation."""

from typing import Any

import pytest

from runstate.core.proposal import Reject
from runstate.core.rules.cancelling import cancel_at_once_without_infrastructure, finish_cancelling
from runstate.core.states import (
    State,
    awaiting_concurrency_slot,
    awaiting_retry,
    cancelled,
    cancelling,
    paused,
    pending,
    resuming,
    running,
    scheduled,
    suspended,
)
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.states import StateType
from tests.core.factories import NOT_ASKED, NOW, all_but, asked, flow_run, plain

S = StateType


@pytest.mark.parametrize("kind", all_but(S.CANCELLED))
def test_a_cancelling_run_enters_no_other_state(kind: StateType) -> None:
    said = asked(finish_cancelling, flow_run(), cancelling(), plain(kind))

    assert said == Reject(reason="The run is being cancelled: it can only become CANCELLED.")


def test_a_cancelling_run_can_be_cancelled() -> None:
    assert asked(finish_cancelling, flow_run(), cancelling(), cancelled()) == NOT_ASKED


@pytest.mark.parametrize("kind", [None, *all_but(S.CANCELLING)])
def test_only_cancelling_runs_are_restricted(kind: StateType | None) -> None:
    assert asked(finish_cancelling, flow_run(), plain(kind) if kind else None, running()) == NOT_ASKED


@pytest.mark.parametrize(
    ("initial", "columns"),
    [
        (scheduled(NOW), {}),
        (resuming(NOW), {"infrastructure_pid": "42"}),
        (resuming(NOW), {}),
        (suspended(NOW), {"infrastructure_pid": "42"}),
        (suspended(NOW), {}),
    ],
)
def test_a_run_without_infrastructure_is_cancelled_immediately(initial: State, columns: dict[str, Any]) -> None:
    said = asked(cancel_at_once_without_infrastructure, flow_run(**columns), initial, cancelling(message="enough"))

    assert said == Reject(
        reason="The run is cancelled at once: it has no infrastructure to stop.", instead=cancelled(message="enough")
    )


@pytest.mark.parametrize(
    ("initial", "columns"),
    [(scheduled(NOW), {"infrastructure_pid": "42"}), (paused(NOW), {}), (paused(NOW), {"infrastructure_pid": "42"})],
)
def test_a_run_with_infrastructure_is_cancelled_in_two_steps(initial: State, columns: dict[str, Any]) -> None:
    said = asked(cancel_at_once_without_infrastructure, flow_run(**columns), initial, cancelling())

    assert said is None


@pytest.mark.parametrize("initial", [None, pending(), running(), cancelling()])
def test_started_runs_are_cancelled_in_two_steps(initial: State | None) -> None:
    assert asked(cancel_at_once_without_infrastructure, flow_run(), initial, cancelling()) == NOT_ASKED


IN_PROCESS = {"policy": FlowRunPolicy(retries=1, retry_type="in_process")}
RESCHEDULED = {"policy": FlowRunPolicy(retry_type="reschedule"), "infrastructure_pid": "42"}
RESUMED = {"policy": FlowRunPolicy(resuming=True), "infrastructure_pid": "42"}


@pytest.mark.parametrize(
    ("initial", "columns"),
    [(awaiting_retry(NOW), IN_PROCESS), (scheduled(NOW), {"infrastructure_pid": "42"})],
)
def test_a_scheduled_run_that_the_server_cancels_stops_its_process(initial: State, columns: dict[str, Any]) -> None:
    said = asked(cancel_at_once_without_infrastructure, flow_run(**columns), initial, cancelling(), quirks=False)

    assert said is None


@pytest.mark.parametrize(
    ("initial", "columns"),
    [
        (awaiting_retry(NOW), RESCHEDULED),
        (awaiting_concurrency_slot(NOW), RESCHEDULED),
        (awaiting_concurrency_slot(NOW), RESUMED),
        (resuming(NOW), {**RESUMED, **IN_PROCESS}),
        (scheduled(NOW), {}),
    ],
)
def test_a_scheduled_run_that_the_server_cancels_ends_if_its_process_has(
    initial: State, columns: dict[str, Any]
) -> None:
    said = asked(cancel_at_once_without_infrastructure, flow_run(**columns), initial, cancelling(), quirks=False)

    assert isinstance(said, Reject)


def test_a_proposal_cancels_a_run_that_awaits_a_retry_at_once_as_recorded() -> None:
    run = flow_run(**IN_PROCESS)

    assert isinstance(asked(cancel_at_once_without_infrastructure, run, awaiting_retry(NOW), cancelling()), Reject)
