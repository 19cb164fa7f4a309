"""Estimated run time and lateness of runs, in seconds: of a row in Python, and of a table in SQL."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from runstate.database.dialects import seconds_between
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows.base import Timestamp
from runstate.rows.runs import Run


def run_time(run: Run, now: datetime) -> float:
    """Return the seconds that a run has spent in RUNNING, up to now."""
    if run.state_type is not StateType.RUNNING or run.state_timestamp is None:
        return run.total_run_time_seconds
    # The difference can be negative, since clocks of servers differ.
    return round(run.total_run_time_seconds + max(0.0, (now - run.state_timestamp).total_seconds()), 6)


def start_time_delta(run: Run, now: datetime) -> float:
    """Return the seconds by which a run started later than expected. A run that can still start counts as of now."""
    expected, started = run.expected_start_time, run.start_time
    if expected is None:
        return 0.0
    if started is None and run.state_type not in FINAL_TYPES:
        started = now
    return max(0.0, (started - expected).total_seconds()) if started else 0.0


def run_time_of(table: sa.FromClause, now: datetime) -> sa.ColumnElement[float]:
    """Return `run_time` as an SQL expression on a table of runs."""
    running = sa.func.coalesce(seconds_between(table.c.state_timestamp, _instant(now)), 0.0)
    is_running = table.c.state_type == StateType.RUNNING
    return table.c.total_run_time_seconds + sa.case((is_running, _positive(running)), else_=0.0)


def start_time_delta_of(table: sa.FromClause, now: datetime) -> sa.ColumnElement[float]:
    """Return `start_time_delta` as an SQL expression on a table of runs."""
    # The type of a run without a state is NULL.
    is_final = sa.func.coalesce(table.c.state_type.in_(FINAL_TYPES), sa.false())
    can_start = sa.and_(table.c.start_time.is_(None), sa.not_(is_final))
    started = sa.case((can_start, _instant(now)), else_=table.c.start_time)
    return sa.func.coalesce(_positive(seconds_between(table.c.expected_start_time, started)), 0.0)


def _instant(now: datetime) -> sa.ColumnElement[Any]:
    return sa.literal(now, Timestamp())


def _positive(seconds: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    return sa.case((seconds > 0, seconds), else_=0.0)
