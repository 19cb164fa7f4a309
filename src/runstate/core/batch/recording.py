"""Recording of states that clients have decided: forced writes with given ids and times, in any order of arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from runstate.core.batch.requests import Recorded, RecordState
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.bookkeeping import joined, reported
from runstate.core.states import State
from runstate.errors import NotFound
from runstate.rows import TaskRun


def record(request: RecordState, unit: UnitOfWork, new_id: Callable[[], UUID]) -> Recorded | NotFound:
    """Return the outcome of a report, and record its changes in the unit. A state with a known id changes nothing."""
    named = request.run.id
    run = unit.runs.get(unit.existing.get(named, named))
    # The flow run may still be on its way over another connection; the recorder tries again.
    if named in unit.dangling or not isinstance(run, TaskRun):
        return NotFound(unit.dangling.get(named, named))
    unit.created.discard(run.id)
    if _is_done(request, run, unit):
        return Recorded(run.id, written=False)
    if request.holds and request.follows is not None and request.follows not in unit.recorded:
        return NotFound(request.follows)
    return _enter(request, run, unit, new_id)


def _is_done(request: RecordState, run: TaskRun, unit: UnitOfWork) -> bool:
    """Return whether the state is recorded already, or the run is not in the state that it is to replace."""
    current = unit.states.get(run.id)
    is_elsewhere = request.replaces is not None and (current is None or current.id != request.replaces)
    return request.state.id in unit.recorded or is_elsewhere


def _enter(request: RecordState, run: TaskRun, unit: UnitOfWork, new_id: Callable[[], UUID]) -> Recorded:
    state, current, last = request.state, unit.states.get(run.id), run.last_answer
    if state.id is not None:
        # At once, so that a repetition in the same batch changes nothing, either.
        unit.recorded.add(state.id)
    if current is not None and is_late(state, request.follows, current):
        unit.join(*joined(run, state), request.actor, request.request_id)
        return Recorded(run.id, written=True, late=True)
    entered_run, entered = reported(run, _not_before(state, current), request.columns)
    unit.enter(entered_run, entered, request.actor, request.request_id)
    unit.reported_columns.setdefault(run.id, set()).update(request.columns)
    if last is not None:
        unit.keep_answer(entered_run, last, None, new_id)
    return Recorded(run.id, written=True)


def unheld(reports: Sequence[RecordState], unit: UnitOfWork) -> list[RecordState]:
    """Return the reports that are not held back, in order; the others may not create their runs yet."""
    known, found = set(unit.recorded), []
    for each in reports:
        if not each.holds or each.follows is None or each.follows in known:
            found.append(each)
            if each.state.id is not None:
                known.add(each.state.id)
    return found


def is_late(state: State, follows: UUID | None, current: State) -> bool:
    """Return whether a reported state is older than the current one. Of equal times, the later report is the newer."""
    # The clocks of client and server differ, but the client knows what its state follows.
    if follows is not None and follows == current.id:
        return False
    return state.timestamp is not None and current.timestamp is not None and state.timestamp < current.timestamp


def _not_before(state: State, current: State | None) -> State:
    """Return the state with a time that is not before that of the current one."""
    if current is None or current.timestamp is None or state.timestamp is None:
        return state
    return replace(state, timestamp=max(state.timestamp, current.timestamp))
