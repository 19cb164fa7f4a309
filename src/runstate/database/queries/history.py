"""Numbers of runs in intervals of time, by the time at which they were expected to start."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final

import sqlalchemy as sa

from runstate.database.dialects import NUMBER, seconds_between
from runstate.database.queries.estimates import run_time_of, start_time_delta_of
from runstate.documents.states import StateType
from runstate.errors import BadUserInput
from runstate.rows.base import MICROSECOND, Timestamp
from runstate.rows.runs import Run

MOST_INTERVALS: Final = 500
INSTANT: Final = Timestamp()


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


@dataclass(frozen=True)
class Intervals:
    """Consecutive intervals of one length, from `since`."""

    since: datetime
    length: timedelta
    number: int

    @classmethod
    def over(cls, since: datetime, until: datetime, seconds: float) -> "Intervals":
        """Return the intervals that cover a period; the last may end after it. Raise BadUserInput if too many do."""
        if seconds < 1:
            raise BadUserInput("An interval must be at least one second long.")
        try:
            length = timedelta(seconds=seconds)
            number = max(0, ceil((until - since) / length))
            if number > MOST_INTERVALS:
                raise BadUserInput(f"At most {MOST_INTERVALS} intervals are allowed; these are {number}.")
            # Raises OverflowError if the last interval ends after the year 9999.
            since + number * length
        except OverflowError as error:
            raise BadUserInput("The intervals end after the year 9999.") from error
        return cls(since, length, number)

    @property
    def until(self) -> datetime:
        """The end of the last interval."""
        return self.since + self.number * self.length

    def filled(self, counted: Iterable[Any]) -> list[HistoryInterval]:
        """Return all intervals, filled from rows with the index of an interval and the columns of a `HistoryState`."""
        states: list[list[HistoryState]] = [[] for _ in range(self.number)]
        for place, state_type, name, count, *seconds in counted:
            # Sums of floats are not exact; answers have at most six decimals.
            states[place].append(HistoryState(state_type, name, count, *(round(each, 6) for each in seconds)))
        starts = [self.since + place * self.length for place in range(self.number)]
        return [HistoryInterval(start, start + self.length, held) for start, held in zip(starts, states, strict=True)]


def history(run: type[Run], where: sa.ColumnElement[bool], intervals: Intervals, now: datetime) -> sa.Select[Any]:
    """Return the query for the index of an interval and the columns of a `HistoryState`, for each group with runs."""
    table = run.__table__
    since, until = (sa.literal(instant, INSTANT) for instant in (intervals.since, intervals.until))
    # A double of seconds is not exact; rounding restores whole microseconds.
    microseconds = sa.cast(sa.func.round(seconds_between(since, table.c.expected_start_time) * 1e6), NUMBER)
    place = (microseconds // sa.literal(intervals.length // MICROSECOND, NUMBER)).label("place")
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
        .where(where, table.c.expected_start_time >= since, table.c.expected_start_time < until)
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
