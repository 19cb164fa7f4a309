"""Recording of states that clients have decided: in any order of arrival, each once."""

from datetime import datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from runstate.core.batch.decide import Environment, decide_request
from runstate.core.batch.recording import unheld
from runstate.core.batch.requests import Outcome, Recorded, RecordState
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.states import State
from runstate.documents.states import StateType
from runstate.errors import NotFound
from runstate.rows import TaskRun
from tests.core.factories import NOW, in_seconds, task_run

CLIENT = "somebody"


def state(type: StateType, at: datetime, **more: Any) -> State:
    return State(type=type, id=uuid7(), timestamp=at, **more)


def report(run: TaskRun, entered: State, follows: UUID | None = None, **columns: Any) -> RecordState:
    return RecordState(run=run, state=entered, columns=columns, follows=follows, actor=CLIENT)


def recorded(*reports: RecordState, unit: UnitOfWork | None = None) -> tuple[UnitOfWork, list[Outcome]]:
    """Record states of runs that are new."""
    unit = unit or UnitOfWork()
    for each in reports:
        if each.run.id not in unit.runs:
            unit.runs[each.run.id] = each.run
            unit.created.add(each.run.id)
    environment = Environment(in_seconds(100), lambda: 0.5, uuid7)
    return unit, [decide_request(each, unit, environment) for each in reports]


def test_a_reported_state_is_entered_with_its_id_and_time_and_the_columns_of_the_client() -> None:
    run, running = task_run(), state(StateType.RUNNING, in_seconds(1))

    unit, outcomes = recorded(report(run, running, run_count=3, start_time=NOW, name="three"))

    assert outcomes == [Recorded(run.id, written=True)]
    now = unit.runs[run.id]
    assert (now.state_id, now.state_timestamp, now.version) == (running.id, in_seconds(1), 1)
    assert (now.run_count, now.start_time, now.name) == (3, NOW, "three")
    (entered,) = unit.transitions
    assert (entered.actor, entered.state.details.task_run_id) == (CLIENT, run.id)
    assert unit.reported_columns == {run.id: {"run_count", "start_time", "name"}}


def test_no_rule_is_asked() -> None:
    run = task_run()
    ends, again = state(StateType.COMPLETED, in_seconds(1)), state(StateType.RUNNING, in_seconds(2))

    unit, _ = recorded(report(run, ends), report(run, again))

    assert unit.runs[run.id].state_type is StateType.RUNNING
    assert unit.runs[run.id].end_time is None


def test_a_state_is_written_once_for_its_id() -> None:
    run, pending = task_run(), state(StateType.PENDING, NOW)

    unit, outcomes = recorded(report(run, pending), report(run, pending))

    assert outcomes == [Recorded(run.id, written=True), Recorded(run.id, written=False)]
    assert unit.runs[run.id].version == 1


def test_an_older_state_joins_the_history_and_does_not_become_current() -> None:
    run = task_run()
    ends, before = state(StateType.COMPLETED, in_seconds(2)), state(StateType.RUNNING, in_seconds(1))

    unit, outcomes = recorded(report(run, ends, tags=["new"]), report(run, before, tags=["old"]))

    assert outcomes[1] == Recorded(run.id, written=True, late=True)
    now = unit.runs[run.id]
    assert (now.state_id, now.version, now.tags) == (ends.id, 2, ["new"])
    (late,) = unit.late
    assert (late.state.late, late.state.version, late.state.timestamp) == (True, 2, in_seconds(1))
    assert [each.state.id for each in unit.transitions] == [ends.id]


def test_of_equal_times_the_later_report_is_the_newer() -> None:
    run = task_run()
    first, second = state(StateType.PENDING, NOW), state(StateType.RUNNING, NOW)

    unit, _ = recorded(report(run, first), report(run, second))

    assert unit.runs[run.id].state_id == second.id
    assert [each.state.version for each in unit.transitions] == [1, 2]


def test_a_state_that_follows_the_current_one_is_newer_whatever_the_clocks_say() -> None:
    run = task_run()
    scheduled, pending = state(StateType.SCHEDULED, in_seconds(5)), state(StateType.PENDING, NOW)

    unit, _ = recorded(report(run, scheduled), report(run, pending, follows=scheduled.id))

    assert unit.runs[run.id].state_id == pending.id
    # Times of a run's versions never decrease.
    assert unit.runs[run.id].state_timestamp == in_seconds(5)


def test_a_final_state_ends_the_run_even_if_the_client_says_no_time() -> None:
    run = task_run()

    unit, _ = recorded(report(run, state(StateType.FAILED, in_seconds(1))))

    assert unit.runs[run.id].end_time == in_seconds(1)


def test_reports_of_another_id_go_to_the_run_with_the_unique_key() -> None:
    stored, named = task_run(), task_run()
    unit = UnitOfWork(runs={stored.id: stored}, existing={named.id: stored.id})

    outcome = decide_request(report(named, state(StateType.RUNNING, NOW)), unit, Environment(NOW, lambda: 0.5, uuid7))

    assert outcome == Recorded(stored.id, written=True)


def test_a_report_of_an_unknown_flow_run_is_not_found() -> None:
    run, missing = task_run(), uuid7()
    unit = UnitOfWork(dangling={run.id: missing})

    outcome = decide_request(report(run, state(StateType.RUNNING, NOW)), unit, Environment(NOW, lambda: 0.5, uuid7))

    assert isinstance(outcome, NotFound)
    assert outcome.missing_id == str(missing)


def test_a_report_is_held_back_until_the_state_before_it_is_known() -> None:
    run = task_run()
    pending, running = state(StateType.PENDING, NOW), state(StateType.RUNNING, in_seconds(1))
    first = report(run, pending)
    second = RecordState(run=run, state=running, columns={}, follows=pending.id, holds=True)

    assert unheld([second, first], UnitOfWork()) == [first]
    assert unheld([first, second], UnitOfWork()) == [first, second]
    unit, (outcome, _) = recorded(second, first)
    assert isinstance(outcome, NotFound)
    _, outcomes = recorded(second, unit=unit)
    assert outcomes == [Recorded(run.id, written=True)]
