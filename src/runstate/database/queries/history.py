"""Numbers of runs in intervals of time, by the time at which they were expected to start."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from runstate.database.queries.estimates import run_time_of, start_time_delta_of
from runstate.database.queries.intervals import Intervals
from runstate.documents.states import StateType
from runstate.rows.runs import Run


@dataclass(frozen=True)
class HistoryState:
    """The runs of an interval that are in states of one type and name."""

    state_type: StateType
    """Type of the current state."""
    state_name: str
    """Name of the current state."""
    count: int
    """Number of runs."""
    estimated_run_time_seconds: float
    """Sum of the seconds that they have spent in RUNNING, up to now."""
    estimated_lateness_seconds: float
    """Sum of the seconds by which they started later than expected; runs that can still start count as of now."""


@dataclass(frozen=True)
class HistoryInterval:
    """The runs that were expected to start in an interval of time."""

    start: datetime
    """Start of the interval, inclusive."""
    end: datetime
    """End of the interval, exclusive."""
    states: list[HistoryState]
    """Numbers of runs by current state, most runs first."""


def filled(intervals: Intervals, counted: Iterable[Any]) -> list[HistoryInterval]:
    """Return every interval with its states; the rows have the place of an interval and the columns of a state."""
    # The statement returns intervals with runs only; charts need the empty ones, too.
    states: list[list[HistoryState]] = [[] for _ in intervals]
    for place, state_type, name, count, *seconds in counted:
        # Sums of floats are not exact; answers have at most six decimals.
        states[place].append(HistoryState(state_type, name, count, *(round(each, 6) for each in seconds)))
    return [HistoryInterval(start, end, held) for (start, end), held in zip(intervals, states, strict=True)]


def history(run: type[Run], where: sa.ColumnElement[bool], intervals: Intervals, now: datetime) -> sa.Select[Any]:
    """Return the query for the index of an interval and the columns of a `HistoryState`, for each group with runs."""
    table = run.__table__
    place = intervals.place(table.c.expected_start_time).label("place")
    counted = sa.func.count().label("count")
    return (
        sa.select(
            place,
            table.c.state_type,
            table.c.state_name,
            counted,
            sa.func.sum(run_time_of(table, now)),
            sa.func.sum(start_time_delta_of(table, now)),
        )
        .where(where, intervals.contain(table.c.expected_start_time))
        # Runs without a state have no place in the answer, whose types and names are not null.
        .where(table.c.state_type.is_not(None), table.c.state_name.is_not(None))
        # By name: with parameters in it, PostgreSQL takes the repeated expression for a different one.
        .group_by(sa.text("place"), table.c.state_type, table.c.state_name)
        .order_by(sa.text("place"), counted.desc(), table.c.state_type, table.c.state_name)
    )


def lateness(run: type[Run], where: sa.ColumnElement[bool], now: datetime) -> sa.Select[float | None]:
    """Return the query for the average seconds by which runs started later than expected."""
    table = run.__table__
    return sa.select(sa.func.avg(start_time_delta_of(table, now))).where(where)
