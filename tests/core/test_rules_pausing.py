"""Pausing, suspending and resuming flow runs."""

from typing import Any
from uuid import UUID

import pytest

from runstate.core.commands.run_inputs import resume_only_when_paused
from runstate.core.proposal import Abort, Amend, Reject
from runstate.core.rules.pausing import (
    expired_pause_fails,
    leave_pause_only_to_resume_or_end,
    note_the_pause,
    note_the_resuming,
    pause_once_for_each_key,
    pause_while_running,
    resume_suspended_needs_deployment,
    suspend_needs_deployment,
)
from runstate.core.states import State, failed, paused, retrying, running, scheduled, suspended
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.states import StateType
from tests.core.factories import NOT_ASKED, NOW, all_but, asked, flow_run, in_seconds, plain

S = StateType
RESUMING = {"policy": FlowRunPolicy(retries=2, resuming=True)}
RUN = flow_run(policy=FlowRunPolicy(retries=2))
DEPLOYED = flow_run(policy=FlowRunPolicy(retries=2), deployment_id=UUID(int=8))


@pytest.mark.parametrize("state", [running(), retrying()])
def test_a_running_flow_run_can_be_paused(state: State) -> None:
    assert asked(pause_while_running, flow_run(), state, paused(NOW)) is None


@pytest.mark.parametrize("kind", all_but(S.RUNNING))
def test_a_flow_run_that_is_not_running_cannot_be_paused(kind: StateType) -> None:
    said = asked(pause_while_running, flow_run(), plain(kind), paused(NOW))

    assert said == Reject(reason=f"Only a RUNNING run can be paused: it is in {plain(kind).name}.")


def test_a_flow_run_without_a_state_cannot_be_paused() -> None:
    said = asked(pause_while_running, flow_run(), None, paused(NOW))

    assert said == Abort(reason="A run without a state cannot be paused.")


def test_a_flow_run_pauses_once_for_each_key() -> None:
    run = flow_run(policy=FlowRunPolicy(pause_keys=("here",)))
    said = asked(pause_once_for_each_key, run, running(), paused(NOW, pause_key="here"))

    assert said == Reject(reason="The run has already been paused with this pause key.")


@pytest.mark.parametrize("key", ["there", None])
def test_a_flow_run_pauses_again_under_another_key_or_none(key: str | None) -> None:
    run = flow_run(policy=FlowRunPolicy(pause_keys=("here",)))

    assert asked(pause_once_for_each_key, run, running(), paused(NOW, pause_key=key)) is None


def test_a_run_of_a_deployment_can_be_suspended() -> None:
    assert asked(suspend_needs_deployment, DEPLOYED, running(), suspended(NOW)) is None


def test_a_run_without_a_deployment_cannot_be_suspended() -> None:
    said = asked(suspend_needs_deployment, flow_run(), running(), suspended(NOW))

    assert said == Abort(reason="Only a run of a deployment can be suspended.")


@pytest.mark.parametrize("deployment_id", [None, UUID(int=8)])
def test_a_subflow_run_cannot_be_suspended(deployment_id: UUID | None) -> None:
    run = flow_run(deployment_id=deployment_id, parent_task_run_id=UUID(int=9))

    assert asked(suspend_needs_deployment, run, running(), suspended(NOW)) == Abort(
        reason="A subflow run cannot be suspended."
    )


@pytest.mark.parametrize("run", [flow_run(), flow_run(parent_task_run_id=UUID(int=9))])
def test_any_flow_run_can_be_paused_in_its_process(run: Any) -> None:
    assert asked(suspend_needs_deployment, run, running(), paused(NOW)) is None


def noted(run: Any, state: State) -> Any:
    said = asked(note_the_pause, run, running(), state, pause_key=UUID(int=3))
    assert isinstance(said, Amend)
    assert said.state is None
    assert said.run == {}
    return said.after_bookkeeping


def test_a_pause_is_recorded_under_its_key_once_the_run_is_paused() -> None:
    run = flow_run(policy=FlowRunPolicy(retries=2, pause_keys=("there",)))

    assert noted(run, paused(NOW, pause_key="here")) == {
        "policy": FlowRunPolicy(retries=2, pause_keys=("here", "there"))
    }


def test_a_pause_without_a_key_is_recorded_under_a_generated_one() -> None:
    assert noted(flow_run(), paused(NOW)) == {"policy": FlowRunPolicy(pause_keys=(str(UUID(int=3)),))}


@pytest.mark.parametrize("kind", [S.RUNNING, S.SCHEDULED, S.COMPLETED, S.FAILED, S.CANCELLED, S.CRASHED])
def test_a_paused_run_can_be_resumed_scheduled_or_ended(kind: StateType) -> None:
    assert asked(leave_pause_only_to_resume_or_end, RUN, paused(NOW), plain(kind)) is None


@pytest.mark.parametrize("kind", [S.PENDING, S.PAUSED, S.CANCELLING])
def test_a_paused_run_enters_no_other_state(kind: StateType) -> None:
    said = asked(leave_pause_only_to_resume_or_end, RUN, paused(NOW), plain(kind))

    assert said == Reject(reason="A paused run can only be resumed, be scheduled or end.", after_bookkeeping=RESUMING)


def test_a_suspended_run_of_a_deployment_is_resumed() -> None:
    assert asked(resume_suspended_needs_deployment, DEPLOYED, suspended(NOW), scheduled(NOW)) is None


def test_a_suspended_run_without_a_deployment_stays_suspended() -> None:
    said = asked(resume_suspended_needs_deployment, RUN, suspended(NOW), scheduled(NOW))

    assert said == Reject(reason="The suspended run has no deployment that could start it.", after_bookkeeping=RESUMING)


def test_a_paused_run_is_resumed_without_a_deployment() -> None:
    assert asked(resume_suspended_needs_deployment, RUN, paused(NOW), running()) is None


def test_a_run_that_is_resumed_after_its_pause_expired_fails() -> None:
    said = asked(expired_pause_fails, RUN, paused(NOW, pause_expiration_time=in_seconds(-1)), running())

    assert said == Reject(
        reason="The pause has expired.",
        instead=failed(message="The flow was paused and never resumed."),
        after_bookkeeping=RESUMING,
    )


@pytest.mark.parametrize("until", [None, NOW, in_seconds(1)])
def test_a_run_that_is_resumed_in_time_continues(until: Any) -> None:
    assert asked(expired_pause_fails, RUN, paused(NOW, pause_expiration_time=until), running()) is None


@pytest.mark.parametrize("kind", S)
def test_a_run_that_leaves_a_pause_is_resuming(kind: StateType) -> None:
    assert asked(note_the_resuming, RUN, paused(NOW), plain(kind)) == Amend(after_bookkeeping=RESUMING)


@pytest.mark.parametrize("rule", [pause_while_running, pause_once_for_each_key, suspend_needs_deployment])
@pytest.mark.parametrize("kind", all_but(S.PAUSED))
def test_rules_of_pauses_apply_to_pauses_only(rule: Any, kind: StateType) -> None:
    assert asked(rule, flow_run(), running(), plain(kind)) == NOT_ASKED


@pytest.mark.parametrize(
    "rule",
    [leave_pause_only_to_resume_or_end, resume_suspended_needs_deployment, expired_pause_fails, note_the_resuming],
)
@pytest.mark.parametrize("kind", [None, *all_but(S.PAUSED)])
def test_only_paused_runs_are_resumed(rule: Any, kind: StateType | None) -> None:
    assert asked(rule, flow_run(), plain(kind) if kind else None, running()) == NOT_ASKED


@pytest.mark.parametrize("state", [paused(NOW), suspended(NOW)])
def test_a_paused_run_can_be_resumed(state: State) -> None:
    assert asked(resume_only_when_paused, flow_run(), state, running()) is None


@pytest.mark.parametrize("kind", all_but(S.PAUSED))
def test_a_run_that_is_not_paused_cannot_be_resumed(kind: StateType) -> None:
    said = asked(resume_only_when_paused, flow_run(), plain(kind), running())

    assert said == Abort(reason=f"Only a paused run can be resumed: it is in {plain(kind).name}.")


def test_a_run_without_a_state_cannot_be_resumed() -> None:
    said = asked(resume_only_when_paused, flow_run(), None, running())

    assert said == Abort(reason="Only a paused run can be resumed: it is in no state.")


@pytest.mark.parametrize("kind", [S.RUNNING, S.SCHEDULED])
def test_a_run_that_the_server_resumes_is_resuming_when_its_runs_are_counted(kind: StateType) -> None:
    assert asked(note_the_resuming, RUN, paused(NOW), plain(kind), quirks=False) == Amend(run=RESUMING)


def test_a_run_that_the_server_resumes_too_late_fails_without_a_mark() -> None:
    expired = paused(NOW, pause_expiration_time=in_seconds(-1))
    said = asked(expired_pause_fails, RUN, expired, running(), quirks=False)

    assert isinstance(said, Reject)
    assert said.after_bookkeeping == {}
