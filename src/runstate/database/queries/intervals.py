"""Consecutive intervals of time: of one length, or units of the calendar in a time zone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import groupby, islice, pairwise
from math import ceil
from operator import itemgetter
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from runstate.database.dialects import NUMBER, seconds_between
from runstate.documents.intervals import CalendarInterval, CalendarUnit, Interval
from runstate.errors import BadUserInput, InvalidInput
from runstate.rows.base import MICROSECOND, Timestamp

MOST_INTERVALS: Final = 500
MOST_ON_GRID: Final = 1_000
SHORTEST_ON_GRID: Final = 0.01
# Fixed, so that charts of different times have the same intervals and can be compared.
GRID: Final = datetime(2024, 4, 1, tzinfo=UTC)
"""Start of an interval of every grid, a Monday."""
INSTANT: Final = Timestamp()


class Segment(NamedTuple):
    """Consecutive intervals of one length."""

    first: int
    """Place of the first interval."""
    start: datetime
    length: timedelta

    def place(self, instant: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        """Return the place of the interval that an instant in the segment falls into."""
        since = sa.literal(self.start, INSTANT)
        # A double of seconds is not exact; rounding restores whole microseconds.
        microseconds = sa.cast(sa.func.round(seconds_between(since, instant) * 1e6), NUMBER)
        return sa.literal(self.first, NUMBER) + microseconds // sa.literal(self.length // MICROSECOND, NUMBER)


@dataclass(frozen=True)
class Intervals:
    """Intervals without gaps; the last one may end after the time up to which they were requested."""

    edges: tuple[datetime, ...]
    """The start of each interval, and the end of the last one."""

    @classmethod
    def over(cls, since: datetime, until: datetime, interval: Interval) -> "Intervals":
        """Return the intervals that cover a time span. Raise BadUserInput if there are too many."""
        if interval.calendar is not None:
            return cls.of_calendar(since, until, interval.calendar)
        return cls.of_seconds(since, until, interval.seconds or 0)

    @classmethod
    def of_seconds(cls, since: datetime, until: datetime, seconds: float) -> "Intervals":
        """Return the intervals of one length from `since` on."""
        if seconds < 1:
            raise BadUserInput("An interval must be at least 1 second long.")
        try:
            length = timedelta(seconds=seconds)
            number = max(0, ceil((until - since) / length))
            if number > MOST_INTERVALS:
                raise BadUserInput(f"At most {MOST_INTERVALS} intervals are possible, not {number}.")
            return cls(tuple(since + place * length for place in range(number + 1)))
        except OverflowError as error:
            raise BadUserInput("The intervals reach beyond the year 9999.") from error

    @classmethod
    def on_grid(cls, since: datetime, until: datetime, seconds: float) -> "Intervals":
        """Return intervals of a fixed grid: from the one that contains `since` to the last that begins before `until`.

        One interval of the grid begins on Monday, April 1 2024. Raise InvalidInput if there are too many.
        """
        if not seconds >= SHORTEST_ON_GRID:
            raise InvalidInput(f"An interval must be at least {SHORTEST_ON_GRID} seconds long.", ("intervalSeconds",))
        try:
            length = timedelta(seconds=seconds)
            start = GRID + (since - GRID) // length * length
            number = max(0, ceil((until - start) / length))
            if number > MOST_ON_GRID:
                raise InvalidInput(
                    f"At most {MOST_ON_GRID} intervals are possible, not {number}.", ("intervalSeconds",)
                )
            return cls(tuple(start + place * length for place in range(number + 1)))
        except OverflowError as error:
            raise InvalidInput("The intervals reach beyond the years 1 to 9999.") from error

    @classmethod
    def of_calendar(cls, since: datetime, until: datetime, calendar: CalendarInterval) -> "Intervals":
        """Return the units of the calendar from the one that contains `since` on."""
        try:
            found = list(islice(_edges(since, calendar.unit, zone_of(calendar.time_zone)), MOST_INTERVALS + 2))
        except (OverflowError, ValueError) as error:
            raise BadUserInput("The intervals reach beyond the years 1 to 9999.") from error
        starts = [start for start in found if start < until] if since < until else []
        if len(starts) > MOST_INTERVALS:
            raise BadUserInput(f"At most {MOST_INTERVALS} intervals are possible.")
        return cls(tuple(found[: len(starts) + 1]))

    @property
    def since(self) -> datetime:
        """The start of the first interval."""
        return self.edges[0]

    @property
    def until(self) -> datetime:
        """The end of the last interval."""
        return self.edges[-1]

    def __iter__(self) -> Iterator[tuple[datetime, datetime]]:
        """Return the start and the end of each interval."""
        return pairwise(self.edges)

    def place(self, instant: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        """Return the place, from 0, of the interval that an instant within all of them falls into."""
        segments = list(self._segments())
        if not segments:
            return sa.literal(0, NUMBER)
        cases = [(instant < sa.literal(then.start, INSTANT), each.place(instant)) for each, then in pairwise(segments)]
        last = segments[-1].place(instant)
        return sa.case(*cases, else_=last) if cases else last

    def _segments(self) -> Iterator["Segment"]:
        """Yield the intervals in segments of equal length: days have one length until the clocks change."""
        lengths = ((end - start, place, start) for place, (start, end) in enumerate(self))
        for length, found in groupby(lengths, key=itemgetter(0)):
            _, place, start = next(found)
            yield Segment(place, start, length)

    def contain(self, instant: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Return the condition that an instant falls into one of the intervals."""
        since, until = (sa.literal(each, INSTANT) for each in (self.since, self.until))
        return sa.and_(instant >= since, instant < until)


def zone_of(name: str) -> tzinfo:
    """Return the time zone of a name. Raise BadUserInput if it is unknown."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError) as error:
        raise BadUserInput(f"The time zone `{name[:100]}` is unknown. Use a name such as `Europe/Berlin`.") from error


def _edges(since: datetime, unit: CalendarUnit, zone: tzinfo) -> Iterator[datetime]:
    """Yield the starts of units, in UTC, from the one that contains an instant on."""
    local = since.astimezone(zone)
    if unit is CalendarUnit.HOUR:
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        # In UTC: when clocks go back, an hour of local time occurs twice.
        hour = since.astimezone(UTC) - into
        while True:
            yield hour
            hour += timedelta(hours=1)
    first, following = CALENDAR[unit]
    # Midnight as people read it: arithmetic on local times counts no hours.
    start = first(local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None))
    while True:
        yield start.replace(tzinfo=zone).astimezone(UTC)
        start = following(start)


def _next_month(day: datetime) -> datetime:
    # From the first of any month, 31 days later is a day of the next one.
    return (day + timedelta(days=31)).replace(day=1)


CALENDAR: Final[Mapping[CalendarUnit, tuple[Callable[[datetime], datetime], Callable[[datetime], datetime]]]] = {
    CalendarUnit.DAY: (lambda day: day, lambda day: day + timedelta(days=1)),
    CalendarUnit.WEEK: (lambda day: day - timedelta(days=day.weekday()), lambda day: day + timedelta(days=7)),
    CalendarUnit.MONTH: (lambda day: day.replace(day=1), _next_month),
}
"""The first day of the unit that contains a day, and the first day of the next unit."""
