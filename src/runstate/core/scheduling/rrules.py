"""Local times of recurrence rules (RFC 5545)."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, cast
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rruleset, rrulestr

LONGEST_RULE: Final = 6500
DEFAULT_START: Final = datetime(2020, 1, 1)  # noqa: DTZ001 a local time
UNITS: Final = {
    "WEEKLY": timedelta(weeks=1),
    "DAILY": timedelta(days=1),
    "HOURLY": timedelta(hours=1),
    "MINUTELY": timedelta(minutes=1),
    "SECONDLY": timedelta(seconds=1),
}
"""Lengths of the units that all have the same length."""
UNTIL: Final = re.compile(r"(?<=UNTIL=)(\d{8}T\d{6})Z")
TZID: Final = re.compile(r";TZID=[^:;]*")
OTHER_LINES: Final = ("RDATE", "EXDATE")
ADD: Final[Mapping[str, Callable[[rruleset, rrule], None]]] = {
    "RRULE": rruleset.rrule,
    "EXRULE": rruleset.exrule,
}


def rrule_times(text: str, start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the local times of a rule at or after a local time. Raise ValueError if it is invalid.

    Times in the rule are local; their `Z` is ignored, except that `UNTIL` with `Z` is an instant.
    """
    if len(text) > LONGEST_RULE:
        raise ValueError(f"it has more than {LONGEST_RULE} characters.")
    try:
        plain = UNTIL.sub(lambda found: _local(found[1], zone), TZID.sub("", text.upper()))
        times = iter(_moved(plain, start))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return (each for each in times if each >= start)


def _local(until: str, zone: ZoneInfo) -> str:
    instant = datetime.strptime(f"{until}+0000", "%Y%m%dT%H%M%S%z")
    return f"{instant.astimezone(zone):%Y%m%dT%H%M%S}"


def _moved(text: str, start: datetime) -> rruleset:
    """Parse a rule; rules whose periods have the same length begin shortly before the time that is wanted."""
    rrulestr(text, dtstart=DEFAULT_START, ignoretz=True)  # raises the errors of the whole
    lines = text.split()
    dtstart = "".join(line for line in lines if line.startswith("DTSTART"))
    others = "\n".join(line for line in lines if line.startswith(OTHER_LINES))
    dates = rrulestr(others, forceset=True, ignoretz=True) if others else rruleset()
    for line in lines:
        name, _, value = line.partition(":") if ":" in line else ("RRULE", "", line)
        if add := ADD.get(name.partition(";")[0]):
            add(dates, _rule(dtstart, value, start))
    return dates


def _rule(dtstart: str, value: str, start: datetime) -> rrule:
    rule = cast("rrule", rrulestr(f"{dtstart}\nRRULE:{value}", dtstart=DEFAULT_START, ignoretz=True))
    parts = dict(part.split("=") for part in value.split(";"))
    interval, unit = int(parts.get("INTERVAL", 1)), UNITS.get(parts["FREQ"])
    if interval < 1:
        raise ValueError("INTERVAL must be at least 1.")
    if "COUNT" in parts or unit is None:
        return rule
    first = next(iter(rrulestr(f"{dtstart}\nRRULE:FREQ=SECONDLY", dtstart=DEFAULT_START, ignoretz=True)))
    periods = (start - first) // (interval * unit) - 1
    return rule.replace(dtstart=first + periods * interval * unit) if periods > 0 else rule
