"""What entering a state does to the columns of a run. Pure, in order, after the verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from runstate.core.proposal import R
from runstate.core.states import State
from runstate.documents.states import StateType
from runstate.rows import FlowRun, TaskRun


def enter(run: R, initial: State | None, state: State) -> tuple[R, State]:
    """The run in the state, and the state as it is stored: stamped, versioned, and told whose it is."""
    entered = _owned(run, replace(state, version=run.version + 1))
    for step in (times_run, counts, starts, ends, expectations, current_state):
        run = step(run, initial, entered)
    return run, entered


def stamped(state: State, run: R, now: datetime) -> State:
    """The state with the time of its entry: the clock's, unless that has gone back since the run's last state."""
    last = run.state_timestamp
    return replace(state, timestamp=max(now, last) if last else now)


def _owned(run: FlowRun | TaskRun, state: State) -> State:
    if isinstance(run, TaskRun):
        return state.with_details(flow_run_id=run.flow_run_id, task_run_id=run.id)
    return state.with_details(flow_run_id=run.id, task_run_id=run.parent_task_run_id)


def times_run(run: R, initial: State | None, state: State) -> R:
    """Leaving RUNNING adds the time spent in it to the run time."""
    if initial is None or not initial.is_running or initial.timestamp is None or state.timestamp is None:
        return run
    spent = (state.timestamp - initial.timestamp).total_seconds()
    return run.amended(total_run_time_seconds=run.total_run_time_seconds + spent)


def counts(run: R, initial: State | None, state: State) -> R:
    """Entering RUNNING counts, unless a flow run is resuming; RUNNING and final states end the resuming."""
    if isinstance(run, FlowRun):
        resuming = run.policy.resuming
        if resuming and (state.is_running or state.is_final):
            run = run.amended(policy=run.policy.model_copy(update={"resuming": False}))
        if resuming:
            return run
    return run.amended(run_count=run.run_count + 1) if state.is_running else run


def starts(run: R, initial: State | None, state: State) -> R:
    """The first RUNNING is the start, for good."""
    return run.amended(start_time=state.timestamp) if state.is_running and run.start_time is None else run


def ends(run: R, initial: State | None, state: State) -> R:
    """A final state is the end, until the run leaves it; one that never started starts there too."""
    if not state.is_final:
        return run.amended(end_time=None)
    if run.end_time is None:
        run = run.amended(end_time=state.timestamp)
    return run.amended(start_time=state.timestamp) if run.start_time is None else run


def expectations(run: R, initial: State | None, state: State) -> R:
    """SCHEDULED says when the run is due next; the first expectation of a start stays."""
    due = state.details.scheduled_time if state.type is StateType.SCHEDULED else None
    run = run.amended(next_scheduled_start_time=due)
    return run.amended(expected_start_time=due or state.timestamp) if run.expected_start_time is None else run


def current_state(run: R, initial: State | None, state: State) -> R:
    """The run carries the type, name, time and version of its current state."""
    return run.amended(
        state_id=state.id,
        state_type=state.type,
        state_name=state.name,
        state_timestamp=state.timestamp,
        version=state.version,
    )
