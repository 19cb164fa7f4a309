"""Transitions between plain states: the complete table, for flow runs and for task runs."""

from typing import Final
from uuid import UUID

import pytest

from runstate.core.policies import CORE_FLOW, CORE_TASK, MINIMAL_FLOW, MINIMAL_TASK
from runstate.core.proposal import Decision
from runstate.core.states import State, awaiting_retry, completed, paused, pending, running, scheduled
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import FlowRun
from tests.core.factories import (
    NOW,
    being_in,
    decided,
    details,
    entered,
    flow_run,
    in_seconds,
    limit,
    pairs,
    plain,
    slot,
    task_run,
)

S = StateType
COLUMNS: Final = [
    S.SCHEDULED,
    S.PENDING,
    S.RUNNING,
    S.PAUSED,
    S.CANCELLING,
    S.CANCELLED,
    S.COMPLETED,
    S.FAILED,
    S.CRASHED,
]
ROWS: Final = [None, *COLUMNS]
FLOW_RUNS: Final = """
    from        to: SCHEDULED PENDING RUNNING PAUSED CANCELLING CANCELLED COMPLETED FAILED CRASHED
    NONE            A         A       A       X      A          A         A         A      A
    SCHEDULED       A         A       A       R      C          A         A         A      A
    PENDING         A         X       A       R      A          A         A         A      A
    RUNNING         A         X       A       A      A          A         A         A      A
    PAUSED          A         R       A       R      R          A         A         A      A
    CANCELLING      R         R       R       R      R          A         R         R      R
    CANCELLED       D         X       A       X      X          A         A         A      X
    COMPLETED       D         A       A       X      X          A         A         A      X
    FAILED          D         A       A       X      X          A         A         A      X
    CRASHED         D         A       A       X      X          A         A         A      X
"""
"""A: accepted; R: rejected, the run stays; X: aborted; C: cancelled instead; D: accepted with a deployment, else X."""

DEPLOYED: Final = UUID(int=8)


def cells(table: str) -> dict[tuple[str, StateType], str]:
    """Return the cells of a table by row and column."""
    _, *lines = (line.split() for line in table.strip().splitlines())
    return {(row, kind): cell for row, *said in lines for kind, cell in zip(COLUMNS, said, strict=True)}


def letter(decision: Decision[FlowRun]) -> str:
    """Return the letter of a decision in the table."""
    if decision.status is OrchestrationStatus.REJECT and decision.state:
        return "C" if decision.state.is_cancelled else "?"
    return {"ACCEPT": "A", "REJECT": "R", "ABORT": "X", "WAIT": "W"}[decision.status.value]


def initial(kind: StateType | None) -> State | None:
    return plain(kind) if kind else None


@pytest.mark.parametrize("deployment_id", [None, DEPLOYED], ids=["alone", "deployed"])
@pytest.mark.parametrize(("left", "kind"), pairs(ROWS, COLUMNS))
def test_flow_runs_follow_the_table(left: S | None, kind: S, deployment_id: UUID | None) -> None:
    said = cells(FLOW_RUNS)[left.value if left else "NONE", kind]
    expected = said.replace("D", "A" if deployment_id else "X")

    assert letter(decided(CORE_FLOW, flow_run(deployment_id=deployment_id), initial(left), plain(kind))) == expected


@pytest.mark.parametrize(("left", "kind"), pairs(ROWS, COLUMNS))
def test_accepted_states_are_entered_as_proposed(left: S | None, kind: S) -> None:
    decision = decided(CORE_FLOW, flow_run(deployment_id=DEPLOYED), initial(left), plain(kind))

    entered_kind = {"A": kind, "C": S.CANCELLED}.get(letter(decision))
    assert (decision.state.type if decision.state else None) == entered_kind


@pytest.mark.parametrize(("left", "kind"), pairs(ROWS, COLUMNS))
def test_task_runs_may_enter_any_state_except_cancelling_paused_and_crashed_after_a_final_one(
    left: S | None, kind: S
) -> None:
    never = left in FINAL_TYPES and kind in {S.CANCELLING, S.PAUSED, S.CRASHED}
    state = entered(running())
    flow = {"flow_run": being_in(flow_run(), state), "flow_state": state}

    for facts in ({}, flow):
        decision = decided(CORE_TASK, task_run(), initial(left), plain(kind), **facts)

        assert decision.status is (OrchestrationStatus.ABORT if never else OrchestrationStatus.ACCEPT)
        assert (decision.state is None) is never


@pytest.mark.parametrize("kind", S)
def test_a_task_run_with_a_persisted_result_enters_no_other_state(kind: S) -> None:
    decision = decided(CORE_TASK, task_run(), completed(data={"type": "reference"}), plain(kind))

    never = kind in {S.CANCELLING, S.PAUSED, S.CRASHED}
    assert decision.status is (OrchestrationStatus.ABORT if never else OrchestrationStatus.REJECT)
    assert decision.state is None


@pytest.mark.parametrize("kind", S)
def test_a_flow_run_with_a_persisted_result_may_enter_other_final_states_only(kind: S) -> None:
    decision = decided(CORE_FLOW, flow_run(deployment_id=DEPLOYED), completed(data={"type": "reference"}), plain(kind))

    aborted = kind in {S.CANCELLING, S.PAUSED, S.CRASHED}
    accepted = kind in {S.FAILED, S.CANCELLED}
    assert letter(decision) == ("X" if aborted else "A" if accepted else "R")


def test_running_again_is_accepted_with_another_name() -> None:
    decision = decided(CORE_TASK, task_run(run_count=1), running(), running())

    assert decision.state == running(name="Rerunning")


@pytest.mark.parametrize(
    "state", [scheduled(NOW, in_seconds(9)), pending(details=details(scheduled_time=in_seconds(9)))]
)
def test_a_run_waits_until_its_scheduled_time(state: State) -> None:
    assert decided(CORE_FLOW, flow_run(), state, running()).retry_after_seconds == 9
    assert decided(CORE_TASK, task_run(), state, running()).retry_after_seconds == 9


def test_a_repeated_transition_is_rejected_even_where_it_would_be_aborted() -> None:
    same = details(transition_id=UUID(int=1))

    assert letter(decided(CORE_FLOW, flow_run(), completed(details=same), paused(NOW, details=same))) == "R"


def test_the_scheduled_time_precedes_the_slots() -> None:
    full = (slot(limit(1, occupied=1)),)
    decision = decided(CORE_FLOW, flow_run(), awaiting_retry(NOW, in_seconds(99)), running(), slots=full)

    assert (decision.rule, decision.retry_after_seconds) == ("wait_for_scheduled_time", 99)


def test_a_run_that_does_not_start_acquires_no_slot() -> None:
    free, initial = (slot(limit(1)),), pending(details=details(scheduled_time=in_seconds(99)))
    decision = decided(CORE_FLOW, flow_run(), initial, running(), slots=free)

    assert (decision.status, decision.effects) == (OrchestrationStatus.WAIT, ())


def test_a_flow_run_with_infrastructure_is_cancelled_in_two_steps() -> None:
    run = flow_run(infrastructure_pid="42")

    assert letter(decided(CORE_FLOW, run, scheduled(NOW), plain(S.CANCELLING))) == "A"


@pytest.mark.parametrize(("left", "kind"), pairs(ROWS, COLUMNS))
def test_force_allows_every_transition_and_cancels_immediately_where_nothing_runs(left: S | None, kind: S) -> None:
    at_once = (left, kind) == (S.SCHEDULED, S.CANCELLING)

    assert letter(decided(MINIMAL_FLOW, flow_run(), initial(left), plain(kind))) == ("C" if at_once else "A")
    assert decided(MINIMAL_TASK, task_run(), initial(left), plain(kind)).state == plain(kind)


def test_force_does_not_discard_a_result() -> None:
    kept = completed(data={"type": "reference"})

    assert letter(decided(MINIMAL_FLOW, flow_run(), kept, completed())) == "R"
    assert letter(decided(MINIMAL_FLOW, flow_run(), kept, running())) == "A"
