"""The dates of a schedule: a pure function of the schedule and the instant from which dates are wanted.

Cron expressions and recurrence rules produce local times without a zone. A local time becomes an instant with the
offset before the next transition: a time inside a gap moves forward by the length of the gap, and of a time that occurs
twice the first occurrence counts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from runstate.core.scheduling.cron import cron_times
from runstate.core.scheduling.rrules import rrule_times
from runstate.core.scheduling.zones import zone_of

DAY: Final = timedelta(days=1)
NOTHING: Final = timedelta(0)
LONGEST_EFFECT: Final = timedelta(hours=27)
"""Time after a transition in which dates may come from local times before it."""
SAMPLES: Final = 9

Shift = Literal["GAP", "OVERLAP"]
Local = tuple[datetime, timedelta]
"""A local time, and exact time to add to its instant."""


class Date(NamedTuple):
    """One date of a schedule."""

    instant: datetime
    """In UTC."""
    shift: Shift | None = None
    """Effect of a transition of the time zone."""


class ScheduleError(ValueError):
    """A schedule that cannot be evaluated."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """Name of the member that is wrong."""


def dates(schedule: Mapping[str, Any], after: datetime) -> Iterator[Date]:
    """Yield the dates of a schedule at or after an instant, ascending and each once.

    The schedule is the JSON of a document, with `kind`. Raise ScheduleError if it is invalid.
    """
    try:
        zone = zone_of(schedule["time_zone"])
    except KeyError:
        raise ScheduleError("time_zone", "The time zone is unknown; IANA names are case-sensitive.") from None
    return KINDS[schedule["kind"]](schedule, zone, after.astimezone(UTC))


def _cron(schedule: Mapping[str, Any], zone: ZoneInfo, after: datetime) -> Iterator[Date]:
    try:
        times = cron_times(schedule["cron"], _start(after, zone), day_or=schedule["day_or"])
    except ValueError as error:
        raise ScheduleError("cron", f"The cron expression is invalid: {error}") from None
    return _instants(((time, NOTHING) for time in times), zone, after)


def _rrule(schedule: Mapping[str, Any], zone: ZoneInfo, after: datetime) -> Iterator[Date]:
    try:
        times = rrule_times(schedule["rrule"], _start(after, zone), zone)
    except ValueError as error:
        raise ScheduleError("rrule", f"The recurrence rule is invalid: {error}") from None
    return _instants(((time, NOTHING) for time in times), zone, after)


def _interval(schedule: Mapping[str, Any], zone: ZoneInfo, after: datetime) -> Iterator[Date]:
    anchor = datetime.fromisoformat(schedule["anchor"]).astimezone(UTC)
    step = timedelta(microseconds=round(schedule["interval_seconds"] * 1_000_000))
    if step <= NOTHING:
        raise ScheduleError("interval_seconds", "The interval must be at least a microsecond.")
    days, rest = divmod(step, DAY)
    first = -((anchor - after) // step)
    if not days:
        return _until_overflow(Date(anchor + number * step) for number in count(first))
    local = anchor.astimezone(zone).replace(tzinfo=None)
    return _instants(((local + number * days * DAY, number * rest) for number in count(first - 2)), zone, after)


KINDS: Final[Mapping[str, Callable[[Mapping[str, Any], ZoneInfo, datetime], Iterator[Date]]]] = {
    "cron": _cron,
    "interval": _interval,
    "rrule": _rrule,
}


def _start(after: datetime, zone: ZoneInfo) -> datetime:
    """Return the earliest local time that can become an instant at or after this one."""
    recent = (after - number * LONGEST_EFFECT / SAMPLES for number in range(SAMPLES + 1))
    offsets = [each.astimezone(zone).utcoffset() or NOTHING for each in recent]
    return after.replace(tzinfo=None) + min(offsets)


def _instants(times: Iterable[Local], zone: ZoneInfo, after: datetime) -> Iterator[Date]:
    """Convert ascending local times; leave out instants before `after` and duplicates."""
    last = None
    for date in _until_overflow(_sorted(_converted(time, zone) for time in times)):
        if date.instant >= after and date.instant != last:
            last = date.instant
            yield date


def _converted(time: Local, zone: ZoneInfo) -> Date:
    local, rest = time
    first = local.replace(tzinfo=zone)
    before, later = first.utcoffset() or NOTHING, first.replace(fold=1).utcoffset() or NOTHING
    shift: Shift | None = "GAP" if before < later else "OVERLAP" if before > later else None
    return Date((local - before + rest).replace(tzinfo=UTC), shift)


def _sorted(found: Iterable[Date]) -> Iterator[Date]:
    """Sort dates that are sorted but for those moved out of a gap, which are held back until a later one comes."""
    moved: list[Date] = []
    for date in found:
        if date.shift == "GAP":
            moved.append(date)
            continue
        yield from (each for each in moved if each.instant < date.instant)
        moved = [each for each in moved if each.instant > date.instant]
        yield date
    yield from moved


def _until_overflow(found: Iterator[Date]) -> Iterator[Date]:
    """End where the calendar ends."""
    try:
        yield from found
    except OverflowError:
        return
