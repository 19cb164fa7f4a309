"""Schedules: cron expressions, intervals and recurrence rules."""

from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runstate.documents.base import Document, Text

CENTURY_SECONDS = 36_525 * 86_400


def _this_second() -> datetime:
    # Dates of the schedule are then whole seconds.
    return datetime.now(UTC).replace(microsecond=0)


def _with_zone(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("the time needs an offset from UTC")
    if not 1900 <= instant.year <= 2900:  # noqa: PLR2004 years that calendars and time zones can represent
        raise ValueError("the year must be from 1900 to 2900")
    return instant.astimezone(UTC)


def _utc() -> str:
    # A function and not a constant: members with computed defaults are always stored with the document.
    return "UTC"


Instant = Annotated[datetime, AfterValidator(_with_zone)]
TimeZone = Annotated[Text, Field(max_length=255)]


class CronSchedule(Document):
    """Cron expression, evaluated in a time zone."""

    kind: Literal["cron"] = "cron"
    cron: Annotated[Text, Field(max_length=1000)] = Field(
        description="5 fields, or 6 with seconds last. Names of months and days, `?`, `L`, `L5` (last Friday), `5#3` "
        "(third Friday), @hourly @daily @midnight @weekly @monthly @yearly @annually. R and H forms, 7 fields and "
        "expressions without any date (`0 0 30 2 *`) are refused."
    )
    day_or: bool = Field(
        default=True,
        description="If day of month and day of week are both restricted: true if either must match, false if both "
        "must match.",
    )
    time_zone: TimeZone = Field(default_factory=_utc, description="IANA time zone name, case-sensitive; default UTC.")


class IntervalSchedule(Document):
    """Fixed interval from an anchor, in both directions."""

    kind: Literal["interval"] = "interval"
    interval_seconds: Annotated[float, Field(gt=0, le=CENTURY_SECONDS, allow_inf_nan=False)] = Field(
        description="Length of the interval in seconds, greater than 0; the resolution is one microsecond."
    )
    anchor: Instant = Field(
        default_factory=_this_second,
        description="Instant from which intervals are counted; default: now, rounded down to the second.",
    )
    time_zone: TimeZone = Field(
        default_factory=_utc,
        description="IANA time zone name; default UTC. Whole days of the interval keep the local clock time in it; an "
        "interval under a day is exact.",
    )


class RRuleSchedule(Document):
    """Recurrence rule of RFC 5545, evaluated in a time zone."""

    kind: Literal["rrule"] = "rrule"
    rrule: Annotated[Text, Field(max_length=6500)] = Field(
        description="A bare rule, or lines DTSTART, RRULE, EXRULE, RDATE, EXDATE; at most 6500 characters, INTERVAL at "
        "least 1. Default DTSTART: 2020-01-01T00:00 local time."
    )
    time_zone: TimeZone = Field(
        default="UTC",
        description="IANA time zone name. All times in the rule are local times in it; `Z` and TZID are ignored, "
        "except that UNTIL with `Z` is an instant.",
    )


Schedule = Annotated[
    CronSchedule | IntervalSchedule | RRuleSchedule,
    Field(discriminator="kind", title="Schedule", description="Rule by which runs are created."),
]


class DateShift(Enum):
    """Effect of a time zone transition on a date."""

    GAP = "GAP"
    """The local time does not exist on that day; it was moved forward by the length of the gap."""
    OVERLAP = "OVERLAP"
    """The local time occurs twice on that day; the date is the first occurrence."""


class ScheduledDate(Document):
    """One date of a schedule."""

    date: datetime = Field(description="The instant.")
    local: str = Field(description="Local time with UTC offset, for example 2026-03-29T03:30:00+02:00.")
    shifted: DateShift | None = Field(
        default=None, description="Effect of a time zone transition on this date; null for none."
    )


class ScheduleDates(Document):
    """A schedule and a range of dates."""

    schedule: Schedule = Field(description="The schedule.")
    after: Instant | None = Field(default=None, description="First instant, inclusive; default: now.")
    until: Instant | None = Field(default=None, description="Last instant, inclusive; default: none.")
    first: Annotated[int, Field(ge=1, le=1000)] = Field(default=10, description="Maximum number of dates, 1 to 1000.")
