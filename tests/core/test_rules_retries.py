"""Retries."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstate.core.proposal import Amend, Reject
from runstate.core.rules.retries import (
    name_further_runs,
    note_attempt_of_flow_run,
    retry_failed_flow_run,
    retry_failed_task_run,
)
from runstate.core.states import State, awaiting_retry, failed, pending, retrying, running, timed_out
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import StateType
from runstate.rows import TaskRun
from tests.core.factories import (
    NOT_ASKED,
    NOW,
    all_but,
    asked,
    details,
    examples,
    flow_run,
    in_seconds,
    plain,
    task_run,
)

S = StateType


@pytest.mark.parametrize(("retries", "run_count"), [(1, 1), (1, 0), (2, 2), (3, 1)])
def test_a_failed_flow_run_awaits_its_retry(retries: int, run_count: int) -> None:
    policy = FlowRunPolicy(retries=retries, retry_delay_seconds=5, resuming=True, pause_keys=("here",))
    said = asked(
        retry_failed_flow_run,
        flow_run(policy=policy, run_count=run_count),
        running(),
        failed(message="m", data={"type": "reference"}),
    )

    assert said == Reject(
        reason="The run will be retried.",
        instead=awaiting_retry(NOW, in_seconds(5), message="m", data={"type": "reference"}),
        run={"policy": FlowRunPolicy(retries=retries, retry_delay_seconds=5, retry_type="in_process")},
    )


@pytest.mark.parametrize("delay", [None, 0])
def test_a_flow_run_without_a_delay_is_retried_immediately(delay: float | None) -> None:
    run = flow_run(policy=FlowRunPolicy(retries=1, retry_delay_seconds=delay), run_count=1)
    said = asked(retry_failed_flow_run, run, running(), failed())

    assert isinstance(said, Reject)
    assert said.instead == awaiting_retry(NOW, NOW)


@pytest.mark.parametrize("failure", [timed_out(), failed(details=details(retriable=False))])
def test_a_flow_run_is_retried_after_every_kind_of_failure(failure: State) -> None:
    run = flow_run(policy=FlowRunPolicy(retries=1), run_count=1)

    assert isinstance(asked(retry_failed_flow_run, run, running(), failure), Reject)


@pytest.mark.parametrize(("retries", "run_count"), [(None, 1), (0, 1), (1, 2), (2, 7)])
def test_a_flow_run_without_retries_left_fails(retries: int | None, run_count: int) -> None:
    policy = FlowRunPolicy(retries=retries, retry_type="in_process", pause_keys=("here",))
    said = asked(retry_failed_flow_run, flow_run(policy=policy, run_count=run_count), running(), failed())

    assert said == Amend(run={"policy": FlowRunPolicy(retries=retries, pause_keys=("here",))})


def failing(**policy: Any) -> TaskRun:
    return task_run(policy=TaskRunPolicy(**policy), run_count=1)


def test_a_failed_task_run_awaits_its_retry() -> None:
    said = asked(retry_failed_task_run, failing(retries=1), running(), failed(message="m", data={"a": 1}))

    assert said == Reject(
        reason="The run will be retried.", instead=awaiting_retry(NOW, NOW, message="m", data={"a": 1})
    )


@pytest.mark.parametrize(("retries", "run_count"), [(None, 1), (0, 1), (1, 2), (2, 7)])
def test_a_task_run_without_retries_left_fails(retries: int | None, run_count: int) -> None:
    run = task_run(policy=TaskRunPolicy(retries=retries), run_count=run_count)

    assert asked(retry_failed_task_run, run, running(), failed()) is None


def test_a_task_run_whose_failure_is_final_is_not_retried() -> None:
    failure = failed(details=details(retriable=False))

    assert asked(retry_failed_task_run, failing(retries=1), running(), failure) is None


@pytest.mark.parametrize("retriable", [True, None])
def test_a_task_run_is_retried_unless_the_failure_forbids_it(*, retriable: bool | None) -> None:
    failure = failed(details=details(retriable=retriable))

    assert isinstance(asked(retry_failed_task_run, failing(retries=1), running(), failure), Reject)


def delay_of(run: TaskRun, **facts: Any) -> float:
    said = asked(retry_failed_task_run, run, running(), failed(), **facts)
    assert isinstance(said, Reject)
    assert said.instead
    assert said.instead.details.scheduled_time
    return (said.instead.details.scheduled_time - NOW).total_seconds()


@pytest.mark.parametrize(("run_count", "delay"), [(0, 3), (1, 3), (2, 7), (3, 9), (4, 9), (9, 9)])
def test_each_retry_has_its_delay_and_further_ones_use_the_last(run_count: int, delay: float) -> None:
    policy = TaskRunPolicy(retries=99, retry_delays_seconds=(3, 7, 9))

    assert delay_of(task_run(policy=policy, run_count=run_count)) == delay


@pytest.mark.parametrize("delays", [None, (), (0,)])
def test_a_task_run_without_delays_is_retried_immediately(delays: tuple[float, ...] | None) -> None:
    assert delay_of(failing(retries=1, retry_delays_seconds=delays, retry_jitter_factor=0.5), draw=0.9) == 0


@examples(50)
@given(draw=st.floats(0, 1), factor=st.floats(0, 3), delay=st.floats(0, 1000))
def test_a_delay_with_jitter_is_random_around_its_value(draw: float, factor: float, delay: float) -> None:
    drawn = delay_of(failing(retries=1, retry_delays_seconds=(delay,), retry_jitter_factor=factor), draw=draw)

    assert max(0, delay * (1 - factor)) - 1e-6 <= drawn <= delay * (1 + factor) + 1e-6


def test_a_delay_without_jitter_is_exact() -> None:
    assert delay_of(failing(retries=1, retry_delays_seconds=(8,)), draw=0.99) == 8
    assert delay_of(failing(retries=1, retry_delays_seconds=(8,), retry_jitter_factor=0), draw=0.99) == 8


@pytest.mark.parametrize("left", [None, *all_but(S.RUNNING)])
def test_only_runs_that_were_running_are_retried(left: StateType | None) -> None:
    initial = plain(left) if left else None

    assert asked(retry_failed_flow_run, flow_run(), initial, failed()) == NOT_ASKED
    assert asked(retry_failed_task_run, task_run(), initial, failed()) == NOT_ASKED


@pytest.mark.parametrize("kind", all_but(S.FAILED))
def test_only_failures_are_retried(kind: StateType) -> None:
    assert asked(retry_failed_flow_run, flow_run(), running(), plain(kind)) == NOT_ASKED
    assert asked(retry_failed_task_run, task_run(), running(), plain(kind)) == NOT_ASKED


def test_the_first_run_of_a_task_run_keeps_its_name() -> None:
    assert asked(name_further_runs, task_run(run_count=0), pending(), running(name="Mine")) is None


def test_a_task_run_that_awaited_its_retry_is_retrying() -> None:
    said = asked(name_further_runs, task_run(run_count=1), awaiting_retry(NOW), running(message="m"))

    assert said == Amend(state=retrying(message="m"))


@pytest.mark.parametrize("kind", [None, *S])
def test_a_task_run_that_runs_again_is_rerunning(kind: StateType | None) -> None:
    said = asked(name_further_runs, task_run(run_count=1), plain(kind) if kind else None, running())

    assert said == Amend(state=running(name="Rerunning"))


@pytest.mark.parametrize("kind", all_but(S.RUNNING))
def test_only_later_attempts_are_renamed_and_recorded(kind: StateType) -> None:
    assert asked(name_further_runs, task_run(run_count=1), running(), plain(kind)) == NOT_ASKED
    assert asked(note_attempt_of_flow_run, task_run(), running(), plain(kind)) == NOT_ASKED


def test_a_task_run_stores_the_attempt_of_its_flow_run() -> None:
    said = asked(note_attempt_of_flow_run, task_run(), pending(), running(), flow_run=flow_run(run_count=4))

    assert said == Amend(run={"flow_run_run_count": 4})


def test_a_task_run_without_a_flow_run_stores_no_attempt() -> None:
    assert asked(note_attempt_of_flow_run, task_run(), pending(), running()) is None
