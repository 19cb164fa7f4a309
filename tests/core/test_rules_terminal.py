"""Transitions out of a final state, and results that must not be lost."""

from typing import Any

import pytest

from runstate.core.proposal import Abort, Amend, Reject
from runstate.core.rules.terminal import (
    final_states_are_terminal,
    keep_persisted_result,
    keep_result_of_flow_run,
    keep_result_of_task_run,
    reschedule_needs_deployment,
    reset_flow_run,
    reset_task_run,
    retry_only_after_the_end,
)
from runstate.core.states import State, completed, failed, pending, running, scheduled
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.states import FINAL_TYPES, StateType
from tests.core.factories import NOT_ASKED, NOW, all_but, asked, flow_run, pairs, plain, task_run

S = StateType
FINAL = [kind for kind in S if kind in FINAL_TYPES]
NOT_FINAL = [kind for kind in S if kind not in FINAL_TYPES]
NEVER = [S.CANCELLING, S.PAUSED, S.CRASHED]
RESULT = {"type": "reference"}
NO_RESULT: list[Any] = [None, {"type": "unpersisted"}, "text"]
KEPT = Reject(reason="The run has completed and its result is persisted.")


@pytest.mark.parametrize(("left", "entered"), pairs(FINAL, NEVER))
def test_a_run_that_has_ended_cannot_be_paused_cancelled_in_two_steps_or_crash(left: S, entered: S) -> None:
    said = Abort(reason=f"The run has already ended as {plain(left).name}.")

    assert asked(final_states_are_terminal, flow_run(), plain(left), plain(entered)) == said
    assert asked(final_states_are_terminal, task_run(), plain(left), plain(entered)) == said


@pytest.mark.parametrize(("left", "entered"), pairs(FINAL, all_but(*NEVER)))
def test_a_run_that_has_ended_may_enter_other_states(left: S, entered: S) -> None:
    assert asked(final_states_are_terminal, flow_run(), plain(left), plain(entered)) == NOT_ASKED


@pytest.mark.parametrize(("left", "entered"), pairs([None, *NOT_FINAL], NEVER))
def test_a_run_that_has_not_ended_can_be_paused_cancelled_in_two_steps_and_crash(left: S | None, entered: S) -> None:
    assert asked(final_states_are_terminal, flow_run(), plain(left) if left else None, plain(entered)) == NOT_ASKED


@pytest.mark.parametrize("entered", NOT_FINAL)
def test_a_flow_run_with_a_persisted_result_does_not_run_again(entered: S) -> None:
    assert asked(keep_result_of_flow_run, flow_run(), completed(data=RESULT), plain(entered)) == KEPT


@pytest.mark.parametrize(("entered", "data"), pairs(NOT_FINAL, NO_RESULT))
def test_a_flow_run_without_a_persisted_result_may_run_again(entered: S, data: Any) -> None:
    assert asked(keep_result_of_flow_run, flow_run(), completed(data=data), plain(entered)) is None


@pytest.mark.parametrize("left", [failed(data=RESULT), running(data=RESULT)])
def test_only_results_of_completed_runs_are_protected(left: State) -> None:
    assert asked(keep_result_of_flow_run, flow_run(), left, running()) == NOT_ASKED
    assert asked(keep_result_of_task_run, task_run(), left, running()) == NOT_ASKED


@pytest.mark.parametrize("entered", FINAL)
def test_a_flow_run_with_a_persisted_result_may_enter_another_final_state(entered: S) -> None:
    assert asked(keep_result_of_flow_run, flow_run(), completed(data=RESULT), plain(entered)) == NOT_ASKED


@pytest.mark.parametrize("data", NO_RESULT)
def test_a_result_is_not_replaced_by_a_completion_without_one(data: Any) -> None:
    said = asked(keep_persisted_result, flow_run(), completed(data=RESULT), completed(data=data))

    assert said == Reject(reason="The persisted result of the run would be lost.")


def test_a_result_is_replaced_by_another() -> None:
    assert asked(keep_persisted_result, flow_run(), completed(data=RESULT), completed(data={})) is None


@pytest.mark.parametrize(("left", "entered"), pairs(NO_RESULT, [*NO_RESULT, RESULT]))
def test_a_run_without_a_result_loses_none(left: Any, entered: Any) -> None:
    assert asked(keep_persisted_result, flow_run(), completed(data=left), completed(data=entered)) is None


@pytest.mark.parametrize("entered", all_but(S.COMPLETED))
def test_a_result_is_lost_only_to_another_completion(entered: S) -> None:
    said = asked(keep_persisted_result, flow_run(), completed(data=RESULT), plain(entered))

    assert said == NOT_ASKED


@pytest.mark.parametrize("left", FINAL)
def test_a_run_that_has_ended_is_scheduled_again_only_with_a_deployment(left: S) -> None:
    said = asked(reschedule_needs_deployment, flow_run(), plain(left), scheduled(NOW))

    assert said == Abort(reason="Only a run of a deployment can be scheduled again.")
    deployed = flow_run(deployment_id=flow_run().id)
    assert asked(reschedule_needs_deployment, deployed, plain(left), scheduled(NOW)) is None


@pytest.mark.parametrize("left", [None, *NOT_FINAL])
def test_a_run_that_has_not_ended_is_scheduled_without_a_deployment(left: S | None) -> None:
    said = asked(reschedule_needs_deployment, flow_run(), plain(left) if left else None, scheduled(NOW))

    assert said == NOT_ASKED


NOTED = FlowRunPolicy(retries=3, resuming=True, pause_keys=("here",), retry_type="in_process")


@pytest.mark.parametrize(
    ("proposed", "retry_type"), [(scheduled(NOW), "reschedule"), (pending(), None), (running(), None)]
)
def test_a_flow_run_that_leaves_a_final_state_forgets_its_pauses(proposed: State, retry_type: str | None) -> None:
    said = asked(reset_flow_run, flow_run(policy=NOTED), failed(), proposed)

    assert said == Amend(run={"policy": FlowRunPolicy(retries=3, retry_type=retry_type)})


@pytest.mark.parametrize(("left", "entered"), [*pairs(FINAL, FINAL), *pairs([None, *NOT_FINAL], S)])
def test_a_flow_run_that_stays_in_its_final_state_forgets_no_pauses(left: S | None, entered: S) -> None:
    said = asked(reset_flow_run, flow_run(policy=NOTED), plain(left) if left else None, plain(entered))

    assert said == NOT_ASKED


@pytest.mark.parametrize("entered", S)
def test_a_task_run_with_a_persisted_result_stays_completed(entered: S) -> None:
    assert asked(keep_result_of_task_run, task_run(), completed(data=RESULT), plain(entered)) == KEPT


@pytest.mark.parametrize(("entered", "data"), pairs(S, NO_RESULT))
def test_a_task_run_without_a_persisted_result_may_run_again(entered: S, data: Any) -> None:
    assert asked(keep_result_of_task_run, task_run(), completed(data=data), plain(entered)) is None


@pytest.mark.parametrize(("left", "entered"), pairs(FINAL, [S.SCHEDULED, S.PENDING]))
def test_a_task_run_that_leaves_a_final_state_counts_retries_from_0(left: S, entered: S) -> None:
    said = asked(reset_task_run, task_run(run_count=3), plain(left), plain(entered), flow_run=flow_run(run_count=2))

    assert said == Amend(run={"run_count": 0})


def test_a_task_run_that_runs_again_in_the_same_attempt_of_its_flow_run_keeps_the_name() -> None:
    run = task_run(run_count=3, flow_run_run_count=2)
    said = asked(reset_task_run, run, failed(), running(), flow_run=flow_run(run_count=2))

    assert said == Amend(run={"run_count": 0})


def test_a_task_run_that_runs_again_in_a_later_attempt_of_its_flow_run_is_retrying() -> None:
    run = task_run(run_count=3, flow_run_run_count=1)
    said = asked(reset_task_run, run, failed(), running(message="m"), flow_run=flow_run(run_count=2))

    assert said == Amend(run={"run_count": 0}, state=running(name="Retrying", message="m"))


def test_a_task_run_without_a_flow_run_runs_again_under_the_same_name() -> None:
    assert asked(reset_task_run, task_run(run_count=3), failed(), running()) == Amend(run={"run_count": 0})


@pytest.mark.parametrize("left", [None, *NOT_FINAL])
def test_a_task_run_that_has_not_ended_keeps_its_retry_count(left: S | None) -> None:
    assert asked(reset_task_run, task_run(), plain(left) if left else None, running()) == NOT_ASKED


@pytest.mark.parametrize("left", FINAL)
def test_a_flow_run_that_has_ended_can_be_retried(left: S) -> None:
    assert asked(retry_only_after_the_end, flow_run(), plain(left), scheduled(NOW)) is None


@pytest.mark.parametrize("left", [None, *NOT_FINAL])
def test_a_flow_run_that_has_not_ended_cannot_be_retried(left: S | None) -> None:
    said = asked(retry_only_after_the_end, flow_run(), plain(left) if left else None, scheduled(NOW))

    where = plain(left).name if left else "no state"
    assert said == Abort(reason=f"Only a run that has ended can be retried: it is in {where}.")
