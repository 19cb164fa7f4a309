"""Intervals of time, of one length or of the calendar."""

from enum import Enum

from pydantic import Field

from runstate.documents.base import Document, Name


class CalendarUnit(Enum):
    """Unit of the calendar."""

    HOUR = "HOUR"
    """An hour of 3,600 seconds that starts at a full hour."""
    DAY = "DAY"
    """A day from midnight to midnight: 23 or 25 hours long if the clocks change."""
    WEEK = "WEEK"
    """Seven days from Monday on."""
    MONTH = "MONTH"
    """A month from its first day on."""


class CalendarInterval(Document):
    """Units of the calendar in a time zone. The first interval is the one that contains the start time."""

    unit: CalendarUnit = Field(description="Unit of the calendar.")
    time_zone: Name = Field(default="UTC", description="Name of the time zone, such as `Europe/Berlin`.")


class Interval(Document):
    """The length of intervals. Exactly one member is given. At most 500 intervals."""

    seconds: float | None = Field(default=None, description="Length in seconds, at least 1.")
    calendar: CalendarInterval | None = Field(default=None, description="Units of the calendar.")
