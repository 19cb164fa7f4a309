"""The columns of a run that change when it enters a state."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstate.core.bookkeeping import enter, stamped
from runstate.core.states import (
    State,
    awaiting_retry,
    cancelled,
    completed,
    crashed,
    failed,
    paused,
    pending,
    retrying,
    running,
    scheduled,
)
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import FlowRun, TaskRun
from tests.core.factories import NOW, all_but, details, examples, flow_run, in_seconds, pairs, plain, task_run

S = StateType
NOT_FINAL = [kind for kind in S if kind not in FINAL_TYPES]
FINAL = [kind for kind in S if kind in FINAL_TYPES]
RUNS: list[FlowRun | TaskRun] = [flow_run(), task_run()]


def lived(run: Any, *states: tuple[float, State]) -> Any:
    """Return the run after it entered states, each at its number of seconds after NOW."""
    initial = None
    for seconds, state in states:
        run, initial = enter(run, initial, replace(stamped(state, run, in_seconds(seconds)), id=UUID(int=1)))
    return run


def columns(run: Any, *names: str) -> list[Any]:
    return [getattr(run, name) for name in names]


@pytest.mark.parametrize("run", RUNS)
def test_a_run_has_the_columns_of_its_current_state(run: Any) -> None:
    run = lived(run, (0, pending()), (1, running(name="Mine")))

    current = columns(run, "state_id", "state_type", "state_name", "state_timestamp", "version")
    assert current == [UUID(int=1), S.RUNNING, "Mine", in_seconds(1), 2]


@pytest.mark.parametrize("run", RUNS)
def test_states_are_numbered_from_1(run: Any) -> None:
    versions, initial = [], None
    for _ in range(5):
        run, initial = enter(run, initial, stamped(running(), run, NOW))
        versions.append((initial.version, run.version))

    assert versions == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


def test_a_state_is_stamped_with_the_time_of_its_entry() -> None:
    assert stamped(running(), flow_run(), NOW).timestamp == NOW
    assert stamped(running(), flow_run(state_timestamp=in_seconds(-5)), NOW).timestamp == NOW


def test_the_times_of_a_runs_states_never_decrease() -> None:
    assert stamped(running(), flow_run(state_timestamp=in_seconds(5)), NOW).timestamp == in_seconds(5)


def test_states_of_a_flow_run_have_its_id() -> None:
    run = flow_run(parent_task_run_id=UUID(int=2))
    _, state = enter(run, None, stamped(running(details=details(cache_key="k")), run, NOW))

    assert state.details == details(cache_key="k", flow_run_id=run.id, task_run_id=UUID(int=2))


@pytest.mark.parametrize("flow_run_id", [None, UUID(int=3)])
def test_states_of_a_task_run_have_its_id(flow_run_id: UUID | None) -> None:
    run = task_run(flow_run_id=flow_run_id)
    copied = running(details=details(flow_run_id=UUID(int=4), task_run_id=UUID(int=5)))
    _, state = enter(run, None, stamped(copied, run, NOW))

    assert state.details == details(flow_run_id=flow_run_id, task_run_id=run.id)


@pytest.mark.parametrize("run", RUNS)
def test_each_entry_into_running_is_counted(run: Any) -> None:
    assert lived(run, (0, pending())).run_count == 0
    assert lived(run, (0, pending()), (1, running())).run_count == 1
    assert lived(run, (0, running()), (1, retrying()), (2, failed()), (3, running())).run_count == 3


@pytest.mark.parametrize("kind", all_but(S.RUNNING))
@pytest.mark.parametrize("run", RUNS)
def test_other_states_are_not_counted(run: Any, kind: S) -> None:
    assert lived(run, (0, plain(kind))).run_count == 0


def test_running_after_a_resumption_is_not_counted() -> None:
    run = flow_run(policy=FlowRunPolicy(retries=2, resuming=True), run_count=1)
    resumed = lived(run, (0, running()))

    assert (resumed.run_count, resumed.policy) == (1, FlowRunPolicy(retries=2))


@pytest.mark.parametrize("kind", FINAL)
def test_a_final_state_ends_the_resumption(kind: S) -> None:
    assert not lived(flow_run(policy=FlowRunPolicy(resuming=True)), (0, plain(kind))).policy.resuming


@pytest.mark.parametrize("kind", [kind for kind in NOT_FINAL if kind is not S.RUNNING])
def test_a_resumption_lasts_until_the_run_is_running(kind: S) -> None:
    assert lived(flow_run(policy=FlowRunPolicy(resuming=True)), (0, plain(kind))).policy.resuming


@pytest.mark.parametrize("run", RUNS)
def test_the_first_running_state_sets_the_start_time_once(run: Any) -> None:
    assert lived(run, (0, pending())).start_time is None
    assert lived(run, (0, pending()), (1, running())).start_time == in_seconds(1)
    assert lived(run, (0, running()), (1, failed()), (2, running())).start_time == NOW


@pytest.mark.parametrize("kind", FINAL)
@pytest.mark.parametrize("run", RUNS)
def test_a_final_state_sets_the_end_time(run: Any, kind: S) -> None:
    assert lived(run, (0, running()), (1, plain(kind))).end_time == in_seconds(1)


@pytest.mark.parametrize("run", RUNS)
def test_the_first_of_several_final_states_sets_the_end_time(run: Any) -> None:
    assert lived(run, (0, failed()), (1, completed())).end_time == NOW


@pytest.mark.parametrize("kind", NOT_FINAL)
@pytest.mark.parametrize("run", RUNS)
def test_leaving_a_final_state_clears_the_end_time(run: Any, kind: S) -> None:
    assert lived(run, (0, crashed()), (1, plain(kind))).end_time is None
    assert lived(run, (0, crashed()), (1, plain(kind)), (2, cancelled())).end_time == in_seconds(2)


@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_ends_without_having_started_has_its_end_time_as_start_time(run: Any) -> None:
    assert columns(lived(run, (0, pending()), (1, cancelled())), "start_time", "end_time") == [in_seconds(1)] * 2


@pytest.mark.parametrize("run", RUNS)
def test_run_time_is_the_time_in_running(run: Any) -> None:
    run = lived(run, (0, pending()), (1, running()), (3, paused(NOW)), (10, running()), (10.5, completed()))

    assert run.total_run_time_seconds == 2.5


@pytest.mark.parametrize("run", RUNS)
def test_run_times_add_up_without_rounding_errors(run: Any) -> None:
    run = lived(run, (0, running()), (0.1, paused(NOW)), (1, running()), (1.2, completed()))

    assert run.total_run_time_seconds == 0.3


@pytest.mark.parametrize("run", RUNS)
def test_run_time_continues_from_one_running_state_to_the_next(run: Any) -> None:
    run = lived(run, (0, running()), (2, running()), (5, failed()), (9, completed()))

    assert run.total_run_time_seconds == 5


@pytest.mark.parametrize("run", RUNS)
def test_a_clock_that_goes_back_does_not_reduce_run_time(run: Any) -> None:
    run = lived(run, (0, running()), (-100, completed()))

    assert columns(run, "total_run_time_seconds", "end_time", "state_timestamp") == [0, NOW, NOW]


@pytest.mark.parametrize("run", RUNS)
def test_a_scheduled_run_is_expected_at_its_scheduled_time(run: Any) -> None:
    run = lived(run, (0, scheduled(NOW, in_seconds(60))))

    assert columns(run, "expected_start_time", "next_scheduled_start_time") == [in_seconds(60)] * 2


@pytest.mark.parametrize("run", RUNS)
def test_an_unscheduled_run_is_expected_at_its_first_state(run: Any) -> None:
    assert columns(lived(run, (0, pending())), "expected_start_time", "next_scheduled_start_time") == [NOW, None]


@pytest.mark.parametrize("run", RUNS)
def test_the_first_expected_time_stays_and_the_next_start_is_the_newest(run: Any) -> None:
    run = lived(run, (0, scheduled(NOW, in_seconds(60))), (1, awaiting_retry(NOW, in_seconds(90))))

    assert columns(run, "expected_start_time", "next_scheduled_start_time") == [in_seconds(60), in_seconds(90)]


@pytest.mark.parametrize("kind", all_but(S.SCHEDULED))
@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_leaves_scheduled_has_no_next_start(run: Any, kind: S) -> None:
    assert lived(run, (0, scheduled(NOW, in_seconds(60))), (1, plain(kind))).next_scheduled_start_time is None


def test_entering_a_state_does_not_change_the_given_run_and_state() -> None:
    run, state = flow_run(), stamped(running(), flow_run(), NOW)
    before = dict(vars(run))
    enter(run, None, state)

    assert vars(run) == before
    assert state == replace(running(), timestamp=NOW)


@examples(100)
@given(run=st.sampled_from(RUNS), steps=st.lists(st.tuples(st.integers(-9, 9), st.sampled_from(S)), max_size=12))
def test_columns_agree_after_any_sequence_of_states(run: Any, steps: Sequence[tuple[int, StateType]]) -> None:
    initial: State | None = None
    stamps: list[datetime] = []
    for seconds, kind in steps:
        run, initial = enter(run, initial, stamped(plain(kind), run, in_seconds(seconds)))
        stamps.append(run.state_timestamp)

        assert run.total_run_time_seconds >= 0
        assert (run.end_time is not None) == (kind in FINAL_TYPES)
        assert (run.next_scheduled_start_time is not None) == (kind is S.SCHEDULED)
    assert run.version == len(steps)
    assert run.run_count == sum(kind is S.RUNNING for _, kind in steps)
    assert stamps == sorted(stamps)
    assert (run.expected_start_time is not None) == bool(steps)


def test_every_pair_of_plain_states_keeps_run_time_exact() -> None:
    for left, kind in pairs(S, S):
        run = lived(flow_run(), (0, plain(left)), (4, plain(kind)))

        assert run.total_run_time_seconds == (4 if left is S.RUNNING else 0)
