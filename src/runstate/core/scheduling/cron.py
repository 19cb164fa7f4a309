"""Local times of cron expressions: croniter finds the days, the times of a day are a product."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Final

from croniter import CroniterBadDateError, CroniterError, croniter

ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LONGEST_EXPRESSION: Final = 1000
RANDOM: Final = frozenset("hr")
"""Letters that begin croniter's own fields with random values; only names of months and days contain them."""
YEARS: Final = 100
"""Years in which a date must be found."""


def cron_times(expression: str, start: datetime, *, day_or: bool) -> Iterator[datetime]:
    """Yield the local times of an expression at or after a local time. Raise ValueError if it is invalid.

    It has 5 fields, or 6 with the seconds last. If both day fields are restricted, one of them must match, or both if
    `day_or` is false.
    """
    fields = _fields(expression)
    try:
        (minutes, hours, _, _, _, *last), _ = croniter.expand(" ".join(fields))
        midnight = datetime.combine(start, time.min) - timedelta(seconds=1)
        days = croniter(f"0 0 {' '.join(fields[2:5])}", midnight, day_or=day_or, max_years_between_matches=YEARS)
    except (CroniterError, TypeError, KeyError, IndexError) as error:
        raise ValueError(str(error)) from None
    return _times(days, _all(hours, 24), _all(minutes, 60), _all(last[0], 60) if last else [0], start)


def _fields(expression: str) -> list[str]:
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError(f"it has more than {LONGEST_EXPRESSION} characters.")
    text = expression.strip().lower()
    fields = ALIASES.get(text, text).split()
    if len(fields) not in (5, 6):
        raise ValueError("it must have 5 fields, or 6 with the seconds last.")
    if any(part[:1] in RANDOM for field in fields for part in field.split(",")):
        raise ValueError("fields with random values (`R`, `H`) are not supported.")
    return fields


def _all(values: list[int | str], length: int) -> list[int]:
    return list(range(length)) if values == ["*"] else sorted(map(int, values))


def _times(
    days: croniter, hours: list[int], minutes: list[int], seconds: list[int], start: datetime
) -> Iterator[datetime]:
    for day in _days(days):
        for hour in hours:
            if day + timedelta(hours=hour + 1) <= start:
                continue
            for minute in minutes:
                whole = day + timedelta(hours=hour, minutes=minute)
                yield from (at for second in seconds if (at := whole.replace(second=second)) >= start)


def _days(days: croniter) -> Iterator[datetime]:
    try:
        while True:
            yield days.get_next(datetime)
    except CroniterBadDateError:
        return
