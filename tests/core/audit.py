"""Invariants of stored runs and limits that hold after any concurrent writes."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

from runstate.core.rules.concurrency import HOLDING, HOLDING_TASK
from runstate.database import Database
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, FlowRun, TaskRun, Transition
from tests.core.stored import history_of, rows_of

Run = FlowRun | TaskRun


async def audit(database: Database, runs: Sequence[Run], limits: Sequence[ConcurrencyLimit]) -> None:
    """Check that runs, their states, the log, limits and leases agree."""
    now = {run.id: run for run in await stored_runs(database, runs)}
    log = await log_of(database, runs)
    for run in runs:
        entries = [entry for entry in log if entry.run_id == run.id]
        look_at(now[run.id], await history_of(database, run), entries)
    leases = await rows_of(database, ConcurrencyLease, ConcurrencyLease.limit_id, [each.id for each in limits])
    for limit in await rows_of(database, ConcurrencyLimit, ConcurrencyLimit.id, [each.id for each in limits]):
        assert limit.occupied == sum(lease.slots for lease in leases if lease.limit_id == limit.id) <= limit.limit
    held = [(lease.run_id, lease.limit_id) for lease in leases]
    assert len(held) == len(set(held))
    assert all(run_id is not None and may_hold(now[run_id]) for run_id, _ in held)


async def stored_runs(database: Database, runs: Sequence[Run]) -> list[Any]:
    """Return the runs as they are stored."""
    flows, tasks = ([run.id for run in runs if isinstance(run, kind)] for kind in (FlowRun, TaskRun))
    return [
        *await rows_of(database, FlowRun, FlowRun.id, flows),
        *await rows_of(database, TaskRun, TaskRun.id, tasks),
    ]


async def log_of(database: Database, runs: Sequence[Run]) -> list[Transition]:
    """Return the log entries of runs in order."""
    return await rows_of(database, Transition, Transition.run_id, [run.id for run in runs], Transition.seq)


def may_hold(run: Run) -> bool:
    """Return whether the run is in a state that holds slots."""
    return run.state_type in (HOLDING_TASK if isinstance(run, TaskRun) else HOLDING)


def look_at(run: Any, history: Sequence[Any], log: Sequence[Transition]) -> None:
    """Check that a run, its states and its log entries agree."""
    assert [state.version for state in history] == list(range(1, run.version + 1))
    assert [(entry.version, entry.state_id) for entry in log] == [(state.version, state.id) for state in history]
    for before, after in pairwise(log):
        assert (after.previous_state_type, after.previous_state_name) == (before.state_type, before.state_name)
        assert after.occurred >= before.occurred
    assert run.total_run_time_seconds >= 0
    assert 0 <= run.run_count <= sum(state.type is StateType.RUNNING for state in history)
    if history:
        last = history[-1]
        assert (run.state_id, run.state_type, run.state_name) == (last.id, last.type, last.name)
        assert (run.end_time is not None) == (last.type in FINAL_TYPES)


async def most_at_once(database: Database, runs: Sequence[Run]) -> int:
    """Return the largest number of runs that held a slot at the same time, computed from the log."""
    tasks = {run.id for run in runs if isinstance(run, TaskRun)}
    holding, most = Counter[UUID](), 0
    for entry in await log_of(database, runs):
        takes = {StateType.RUNNING} if entry.run_id in tasks else {StateType.RUNNING, StateType.PENDING}
        keeps = holding[entry.run_id] and entry.state_type is StateType.CANCELLING
        holding[entry.run_id] = int(keeps or entry.state_type in takes)
        most = max(most, holding.total())
    return most
