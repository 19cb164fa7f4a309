"""Dates of schedules against slow searches of our own: minute by minute, or one interval after another.

Windows are sampled from ten years in eight zones: half of them lie around changes of the clocks, where dates go wrong.
A search through every minute of all years in all zones would take minutes for each expression. RUNSTATE_THOROUGH takes
20 times as many samples. A search through every day with one expression is in `test_dates.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile
from typing import Any, Final
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from runstate.core.scheduling.dates import dates
from runstate.core.scheduling.zones import zone_of
from tests.core.factories import examples
from tests.core.test_dates import ZONES, cron, interval, rrule

FIRST: Final = datetime(2018, 1, 1, tzinfo=UTC)
DAYS: Final = 3652
MINUTES: Final = 5 * 1440
"""Length of a window."""
DAY_NAMES: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


@cache
def changes(zone: str) -> list[int]:
    """Return the days of the ten years on which the clocks of a zone change, as numbers; all if they never do."""
    offsets = [(FIRST + timedelta(days=day)).astimezone(zone_of(zone)).utcoffset() for day in range(DAYS + 1)]
    found = [day for day in range(DAYS) if offsets[day] != offsets[day + 1]]
    return found or list(range(DAYS))


@st.composite
def windows(draw: st.DrawFn) -> tuple[str, datetime]:
    """Return a zone, and the local time without a zone at which a window of five days begins."""
    zone = draw(st.sampled_from(ZONES))
    day = draw(st.one_of(st.sampled_from(changes(zone)), st.integers(2, DAYS)))
    return zone, (FIRST + timedelta(days=day - 2)).replace(tzinfo=None)


def instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant of a local time: the first one, or after a gap."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


def minutes(begin: datetime) -> Iterator[datetime]:
    """Yield each local minute of a window."""
    return (begin + timedelta(minutes=minute) for minute in range(MINUTES))


def found(schedule: Mapping[str, Any], begin: datetime, end: datetime) -> list[datetime]:
    """Return the dates from one instant to another."""
    return [each.instant for each in takewhile(lambda each: each.instant < end, dates(schedule, begin))]


def assert_dates(schedule: Mapping[str, Any], wanted: Iterator[datetime], zone: str, begin: datetime) -> None:
    """Compare the dates in the inner part of a window: a local time can move across its edges."""
    edge, length = timedelta(hours=27), timedelta(minutes=MINUTES)
    first, last = instant(begin + edge, zone_of(zone)), instant(begin + length - edge, zone_of(zone))
    expected = sorted({each for local in wanted if first <= (each := instant(local, zone_of(zone))) < last})

    assert found(schedule, first, last) == expected


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a cron expression, as sets."""

    minute: frozenset[int]
    hour: frozenset[int]
    day: frozenset[int]
    month: frozenset[int]
    weekday: frozenset[int]
    day_or: bool

    def __str__(self) -> str:
        """Return the expression; a set of all values is `*`."""
        sizes = ((self.minute, 60), (self.hour, 24), (self.day, 31), (self.month, 12), (self.weekday, 7))
        return " ".join("*" if len(values) == size else ",".join(map(str, sorted(values))) for values, size in sizes)

    def has(self, local: datetime) -> bool:
        """Return whether a local minute matches."""
        by_day, by_weekday = local.day in self.day, local.isoweekday() % 7 in self.weekday
        either = self.day_or and len(self.day) < 31 and len(self.weekday) < 7
        day = by_day or by_weekday if either else by_day and by_weekday
        return day and local.month in self.month and local.hour in self.hour and local.minute in self.minute


def values(least: int, most: int, size: int) -> st.SearchStrategy[frozenset[int]]:
    """Return all values of a field, or some."""
    some = st.frozensets(st.integers(least, most), min_size=1, max_size=size)
    return st.one_of(st.just(frozenset(range(least, most + 1))), some)


fields = st.builds(
    Fields, values(0, 59, 3), values(0, 23, 4), values(1, 28, 9), values(1, 12, 8), values(0, 6, 4), st.booleans()
)


@examples(80)
@given(fields, windows())
def test_cron_dates_are_those_of_a_search_minute_by_minute(wanted: Fields, window: tuple[str, datetime]) -> None:
    zone, begin = window
    schedule = cron(str(wanted), zone, day_or=wanted.day_or)

    assert_dates(schedule, filter(wanted.has, minutes(begin)), zone, begin)


@examples(150)
@given(
    st.sampled_from(["DAILY", "WEEKLY"]),
    st.integers(1, 4),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.frozensets(st.integers(0, 3), min_size=1, max_size=3),
    st.frozensets(st.integers(0, 59), min_size=1, max_size=3),
    windows(),
)
def test_dates_of_rules_are_those_of_a_search_minute_by_minute(
    frequency: str,
    step: int,
    weekdays: frozenset[int],
    hours: frozenset[int],
    minutes_of: frozenset[int],
    window: tuple[str, datetime],
) -> None:
    zone, begin = window
    start = datetime(2018, 1, 3)  # noqa: DTZ001 a local time
    monday = start - timedelta(days=start.weekday())
    parts = {
        "FREQ": frequency,
        "INTERVAL": step,
        "BYDAY": ",".join(DAY_NAMES[each] for each in sorted(weekdays)),
        "BYHOUR": ",".join(map(str, sorted(hours))),
        "BYMINUTE": ",".join(map(str, sorted(minutes_of))),
        "BYSECOND": 0,
    }
    rule = f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:" + ";".join(f"{name}={value}" for name, value in parts.items())

    def has(local: datetime) -> bool:
        number = (local - start).days if frequency == "DAILY" else (local - monday).days // 7
        at = local.weekday() in weekdays and local.hour in hours and local.minute in minutes_of
        return at and local >= start and number % step == 0

    assert_dates(rrule(rule, zone), filter(has, minutes(begin)), zone, begin)


@examples(60)
@given(
    st.integers(1, 9),
    st.sampled_from([0, 1, 1800, 3601]),
    st.datetimes(datetime(2018, 1, 1), datetime(2019, 1, 1)),  # noqa: DTZ001 made local below
    st.sampled_from(ZONES),
)
def test_dates_of_intervals_of_days_are_those_of_one_step_after_another(
    days: int, rest: int, anchor: datetime, zone: str
) -> None:
    anchored = anchor.replace(microsecond=0, tzinfo=UTC)
    local, shift, expected = anchored.astimezone(zone_of(zone)).replace(tzinfo=None), timedelta(), list[datetime]()
    is_second = anchored.astimezone(zone_of(zone)).fold
    for _ in range(3652 // days):
        expected.append(instant(local, zone_of(zone)) + shift)
        local, shift = local + timedelta(days=days), shift + timedelta(seconds=rest)
    got = found(interval(days * 86_400 + rest, anchored.isoformat(), zone), anchored, expected[-1])

    assert got[is_second:] == sorted(set(expected[:-1]))[is_second:]


@examples(60)
@given(st.integers(60, 86_399), st.datetimes(datetime(2018, 1, 1), datetime(2027, 1, 1)), st.sampled_from(ZONES))  # noqa: DTZ001
def test_intervals_of_less_than_a_day_are_exact(seconds: int, begin: datetime, zone: str) -> None:
    start = begin.replace(microsecond=0, tzinfo=UTC)
    step = timedelta(seconds=seconds)
    got = found(interval(seconds, (start - 977 * step).isoformat(), zone), start, start + 100 * step)

    assert got == [start + number * step for number in range(100)]
