"""Runs agree with their states, the log and the tallies."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from runstate.core.checks.check import Check
from runstate.database.queries import tallies
from runstate.documents.states import FINAL_TYPES
from runstate.rows import FlowRun, FlowRunState, TaskRun, TaskRunState, Transition

Run = type[FlowRun | TaskRun]
State = type[FlowRunState | TaskRunState]
Ids = sa.Select[Any]

COPIED: Final = (("state_id", "id"), ("state_type", "type"), ("state_name", "name"), ("state_timestamp", "timestamp"))
"""Columns of a run, each with the column of its current state that it copies."""


def _checks(runs: str, run: Run, state: State) -> tuple[Check, ...]:
    return (
        Check(f"{runs} that differ from their newest state", not_in_last_state(run, state)),
        Check(f"{runs} whose version is not that of their newest state", miscounted_states(run, state)),
        Check(f"{runs} with a state that is older than the previous one", going_back_in_time(state)),
        Check(f"{runs} whose end time does not match their state", wrongly_ended(run)),
        Check(f"{runs} whose run time is negative", negative_run_times(run)),
        Check(f"{runs} whose version is lower than in the log", logged_ahead(run)),
        Check(f"{runs} whose tally differs from their number", tallies.miscounted(run)),
    )


def not_in_last_state(run: Run, state: State) -> Ids:
    """Select runs whose columns differ from their newest state that was not late."""
    # Unlike `!=`, the comparison is true for NULL and a value.
    differs = [getattr(run, ours).is_distinct_from(getattr(state, theirs)) for ours, theirs in COPIED]
    other = aliased(state)
    newest = sa.select(sa.func.max(other.version)).where(
        other.run_id == run.id, ~other.late, other.version <= run.version
    )
    # A late state may have the version of the run.
    is_known = sa.exists().where(other.run_id == run.id, other.version == run.version)
    which = state.version == newest.correlate(run).scalar_subquery()
    current = sa.and_(state.run_id == run.id, which, is_known.correlate(run))
    return sa.select(run.id).outerjoin_from(run, state, current).where(sa.or_(*differs))


def miscounted_states(run: Run, state: State) -> Ids:
    """Select runs whose version is not that of their newest state, or with a state whose version is below 1."""
    numbers = sa.select(
        state.run_id, sa.func.min(state.version).label("first"), sa.func.max(state.version).label("last")
    )
    versions = numbers.group_by(state.run_id).subquery()
    return (
        sa.select(run.id)
        .outerjoin_from(run, versions, versions.c.run_id == run.id)
        .where((sa.func.coalesce(versions.c.last, 0) != run.version) | (versions.c.first < 1))
    )


def going_back_in_time(state: State) -> Ids:
    """Select runs with a state that is older than the state of the previous version."""
    before = sa.func.lag(state.timestamp).over(partition_by=state.run_id, order_by=state.version)
    pairs = sa.select(state.run_id, state.timestamp, before.label("before")).where(~state.late).subquery()
    return sa.select(pairs.c.run_id).where(pairs.c.timestamp < pairs.c.before)


def wrongly_ended(run: Run) -> Ids:
    """Select unfinished runs with an end time, and runs in a final state without one."""
    # The type of a run without a state is NULL.
    has_ended = sa.func.coalesce(run.state_type.in_(FINAL_TYPES), sa.false())
    return sa.select(run.id).where(has_ended != run.end_time.is_not(None))


def negative_run_times(run: Run) -> Ids:
    """Select runs with a negative time in RUNNING."""
    return sa.select(run.id).where(run.total_run_time_seconds < 0)


def logged_ahead(run: Run) -> Ids:
    """Select runs whose log has a higher version."""
    return (
        sa.select(run.id)
        .join_from(run, Transition, Transition.run_id == run.id)
        .where(Transition.version > run.version)
    )


CHECKS: Final = (
    *_checks("Flow runs", FlowRun, FlowRunState),
    *_checks("Task runs", TaskRun, TaskRunState),
)
