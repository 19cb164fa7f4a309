"""Changes of a run's columns when it enters a state: pure functions, applied in order after the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from runstate.core.proposal import R
from runstate.core.states import State
from runstate.documents.states import StateType
from runstate.rows import FlowRun, TaskRun

Columns = dict[str, Any]
"""Changed columns of a run."""


def enter(run: R, initial: State | None, state: State, *, quirks: bool = True, **more: Any) -> tuple[R, State]:
    """Return the run in the state, and the state with its version, the ids of the run in its details, and *more*."""
    entered = _versioned(run, state, **more)
    changes = current_state(entered) | {"last_answer": None}
    for step in (times_run, counts, ends, expectations):
        changes |= step(run, initial, entered)
    # The reference gives a run that ends without having run a start time; `proposeState` reproduces that.
    if quirks or not entered.is_final:
        changes |= starts(run, entered)
    if isinstance(run, FlowRun):
        changes |= claims(run, entered)
    return run.replace(**changes), entered


def reported(run: TaskRun, state: State, columns: Mapping[str, Any]) -> tuple[TaskRun, State]:
    """Return the run in a state that its client reports, with the times and counts that the client computed."""
    entered = _versioned(run, state)
    due = state.details.scheduled_time if state.is_scheduled else None
    changes = {
        "expected_start_time": run.expected_start_time or due or state.timestamp,
        **columns,
        **current_state(entered),
        "last_answer": None,
        # Also if the client did not say so: an end belongs to final states only, and a due time to SCHEDULED.
        "end_time": (columns.get("end_time") or run.end_time or state.timestamp) if state.is_final else None,
        "next_scheduled_start_time": (columns.get("next_scheduled_start_time") or due) if state.is_scheduled else None,
    }
    return run.replace(**changes), entered


def joined(run: TaskRun, state: State) -> tuple[TaskRun, State]:
    """Return the run with a late state, which only joins its history, and that state."""
    # A version of its own keeps versions without gaps, which readers of the history rely on.
    entered = replace(_versioned(run, state), late=True)
    return run.replace(version=entered.version), entered


def _versioned(run: R, state: State, **more: Any) -> State:
    """Return the state with its version and the ids of the run in its details."""
    # Counted under the lock of the run, so no version is lost or used twice.
    return replace(state, version=run.version + 1, details=state.details.model_copy(update=_owner(run)), **more)


def stamped(state: State, run: R, now: datetime) -> State:
    """Return the state with the time of its entry."""
    return replace(state, timestamp=entry_time(run, now))


def entry_time(run: FlowRun | TaskRun, now: datetime) -> datetime:
    """Return the time at which a run enters its next state, which is never before that of the previous state."""
    last = run.state_timestamp
    return max(now, last) if last else now


def _owner(run: FlowRun | TaskRun) -> dict[str, Any]:
    if isinstance(run, TaskRun):
        return {"flow_run_id": run.flow_run_id, "task_run_id": run.id}
    return {"flow_run_id": run.id, "task_run_id": run.parent_task_run_id}


def times_run(run: FlowRun | TaskRun, initial: State | None, state: State) -> Columns:
    """Add the time spent in RUNNING to the run time when the run leaves RUNNING."""
    if initial is None or not initial.is_running or initial.timestamp is None or state.timestamp is None:
        return {}
    spent = (state.timestamp - initial.timestamp).total_seconds()
    # Times are whole microseconds, but sums of floats are not exact.
    return {"total_run_time_seconds": round(run.total_run_time_seconds + spent, 6)}


def counts(run: FlowRun | TaskRun, initial: State | None, state: State) -> Columns:
    """Count entries into RUNNING, except a resumption. A resumption ends with RUNNING or a final state."""
    if isinstance(run, FlowRun) and run.policy.resuming:
        ends_resumption = state.is_running or state.is_final
        return {"policy": run.policy.model_copy(update={"resuming": False})} if ends_resumption else {}
    return {"run_count": run.run_count + 1} if state.is_running else {}


def claims(run: FlowRun, state: State) -> Columns:
    """End the claim if the run leaves its worker; forget expired claims once it runs."""
    ended = {"claim_id": None} if run.claim_id and not stays_with_worker(run, state) else {}
    return ended | ({"expired_claims": 0} if run.expired_claims and state.is_running else {})


def stays_with_worker(run: FlowRun, state: State) -> bool:
    """Return whether the process of a claimed run goes on: it is started, runs, stops, pauses or retries there."""
    if state.is_paused:
        return not state.details.pause_reschedule
    if state.is_scheduled:
        return state.name == "AwaitingRetry" and run.policy.retry_type == "in_process"
    return not state.is_final


def starts(run: FlowRun | TaskRun, state: State) -> Columns:
    """Set the start time to the first RUNNING, or to the final state of a run that never was RUNNING."""
    is_start = run.start_time is None and (state.is_running or state.is_final)
    return {"start_time": state.timestamp} if is_start else {}


def ends(run: FlowRun | TaskRun, initial: State | None, state: State) -> Columns:
    """Set the end time to the first of consecutive final states; remove it if the run leaves them."""
    # The first of consecutive final states: a later one, such as a rollback, corrects the result and not the time.
    return {"end_time": (run.end_time or state.timestamp) if state.is_final else None}


def expectations(run: FlowRun | TaskRun, initial: State | None, state: State) -> Columns:
    """Set the time at which a SCHEDULED run is due and, once, the time at which the run was first expected to start."""
    due = state.details.scheduled_time if state.type is StateType.SCHEDULED else None
    expected = run.expected_start_time or due or state.timestamp
    return {"next_scheduled_start_time": due, "expected_start_time": expected}


def current_state(state: State) -> Columns:
    """Set the id, type, name, time and version of the current state."""
    return {
        "state_id": state.id,
        "state_type": state.type,
        "state_name": state.name,
        "state_timestamp": state.timestamp,
        "version": state.version,
    }
