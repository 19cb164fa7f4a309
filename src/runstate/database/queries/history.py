"""How runs are spread over time, by the time at which they were expected to start."""

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
    """How many runs."""
    estimated_run_time_seconds: float
    """Seconds that they spent in RUNNING together, up to now."""
    estimated_lateness_seconds: float
    """By how many seconds they started, or are about to start, later than expected, together."""


@dataclass(frozen=True)
class HistoryInterval:
    """The runs that were expected to start in an interval of time."""

    start: datetime
    """Its first instant."""
    end: datetime
    """The first instant after it."""
    states: list[HistoryState]
    """How many runs are in which states, most runs first."""


def filled(intervals: Intervals, counted: Iterable[Any]) -> list[HistoryInterval]:
    """Return every interval with its states; the rows have the place of an interval and the columns of a state."""
    states: list[list[HistoryState]] = [[] for _ in intervals]
    for place, *columns in counted:
        states[place].append(HistoryState(*columns))
    return [HistoryInterval(start, end, held) for (start, end), held in zip(intervals, states, strict=True)]


def history(run: type[Run], where: sa.ColumnElement[bool], intervals: Intervals, now: datetime) -> sa.Select[Any]:
    """The place of an interval and the columns of a `HistoryState`, for each that has runs."""
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
        .where(table.c.state_type.is_not(None), table.c.state_name.is_not(None))
        .group_by(sa.text("place"), table.c.state_type, table.c.state_name)
        .order_by(sa.text("place"), counted.desc(), table.c.state_type, table.c.state_name)
    )


def lateness(run: type[Run], where: sa.ColumnElement[bool], now: datetime) -> sa.Select[float | None]:
    """By how many seconds runs started, or are about to start, later than expected, on average."""
    table = run.__table__
    return sa.select(sa.func.avg(start_time_delta_of(table, now))).where(where)
