"""Dates of schedules: as recorded, and as properties of all schedules."""

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstate.core.scheduling.dates import Date, ScheduleError, dates
from runstate.core.scheduling.zones import zone_of

RECORDING = Path(__file__).parents[1] / "oracle" / "scheduling.jsonl.gz"
PURE = ("cron", "interval", "rrule", "calendar", "years", "until", "zones-changed", "large", "refused")
MEMBERS = {
    "cron": "cron",
    "dayOr": "day_or",
    "timeZone": "time_zone",
    "intervalSeconds": "interval_seconds",
    "anchor": "anchor",
    "rrule": "rrule",
}
DEFAULTS = {"time_zone": "UTC", "day_or": True}
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Apia",
    "America/Sao_Paulo",
)


def cron(expression: str, zone: str = "UTC", *, day_or: bool = True) -> dict[str, Any]:
    return {"kind": "cron", "cron": expression, "time_zone": zone, "day_or": day_or}


def interval(seconds: float, anchor: str, zone: str = "UTC") -> dict[str, Any]:
    return {"kind": "interval", "interval_seconds": seconds, "anchor": anchor, "time_zone": zone}


def rrule(rule: str, zone: str = "UTC") -> dict[str, Any]:
    return {"kind": "rrule", "rrule": rule, "time_zone": zone}


def recorded() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name of each recorded scenario without database, and its step."""
    with gzip.open(RECORDING, "rt", encoding="utf-8") as lines:
        for scenario in map(json.loads, lines):
            if scenario["id"].startswith(PURE):
                yield from ((scenario["id"], step) for step in scenario["steps"])


def answer(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dates of a recorded step, or the refusal."""
    ((kind, members),) = step["schedule"].items()
    schedule = {"kind": kind, **DEFAULTS, **{MEMBERS[name]: value for name, value in members.items()}}
    until = datetime.fromisoformat(step.get("until", "9000-01-01T00:00:00+00:00"))
    try:
        found = takewhile(lambda each: each.instant <= until, dates(schedule, datetime.fromisoformat(step["after"])))
        return {"dates": [each.instant for each in islice(found, step["n"])]}
    except ScheduleError:
        return {"refused": True}


def test_all_recorded_schedules_have_the_recorded_dates() -> None:
    steps = list(recorded())
    differing = []
    for name, step in steps:
        expected = dict(step["expect"])
        if "dates" in expected:
            expected["dates"] = [datetime.fromisoformat(each) for each in expected["dates"]]
        if (got := answer(step)) != expected:
            differing.append((name, got))

    assert len(steps) == 1120
    assert differing == []


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(schedule: Mapping[str, Any], after: str, first: int = 3) -> list[tuple[str, str | None]]:
    return [(f"{each.instant:%d %H:%M}", each.shift) for each in islice(dates(schedule, at(after)), first)]


def test_a_local_time_in_a_gap_moves_forward_by_its_length() -> None:
    expected = [("28 01:30", None), ("29 01:30", "GAP"), ("30 00:30", None)]

    assert shown(cron("30 2 * * *", "Europe/Berlin"), "2026-03-28T00:00") == expected
    assert shown(rrule("FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0", "Europe/Berlin"), "2026-03-28T00:00") == expected
    assert shown(interval(86400, "2026-01-01T01:30+00:00", "Europe/Berlin"), "2026-03-28T00:00") == expected


def test_of_a_local_time_that_occurs_twice_the_first_one_counts() -> None:
    expected = [("24 00:30", None), ("25 00:30", "OVERLAP"), ("26 01:30", None)]

    assert shown(cron("30 2 * * *", "Europe/Berlin"), "2026-10-24T00:00") == expected
    assert shown(interval(86400, "2026-07-01T00:30+00:00", "Europe/Berlin"), "2026-10-24T00:00") == expected


def test_dates_moved_out_of_a_gap_are_sorted_and_merged() -> None:
    found = shown(cron("*/20 2,3 * * *", "Europe/Berlin"), "2026-03-29T00:00", 4)

    assert found == [("29 01:00", None), ("29 01:20", None), ("29 01:40", None), ("30 00:00", None)]


@pytest.mark.parametrize("rule", ["FREQ=DAILY;INTERVAL=0", "FREQ=DAILY;INTERVAL=-1", "DTSTART:20260101T000000", "X=1"])
def test_rules_without_end_or_beginning_are_refused(rule: str) -> None:
    with pytest.raises(ScheduleError) as refusal:
        dates(rrule(rule), at("2026-01-01T00:00"))
    assert refusal.value.field == "rrule"


def test_an_end_that_no_calendar_has_in_the_time_zone_is_refused() -> None:
    with pytest.raises(ScheduleError) as refusal:
        dates(rrule("FREQ=DAILY;UNTIL=00010101T000000Z", "America/New_York"), at("2026-01-01T00:00"))
    assert refusal.value.field == "rrule"


def test_an_end_with_z_is_an_instant_and_other_times_are_local() -> None:
    rule = "DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY;UNTIL=20260102T230000Z"

    assert [each for each, _ in shown(rrule(rule, "Europe/Berlin"), "2025-12-01T00:00", 9)] == [
        "31 23:00",
        "01 23:00",
        "02 23:00",
    ]


def test_frequent_rules_do_not_count_from_their_start() -> None:
    found = shown(rrule("FREQ=SECONDLY;INTERVAL=7;BYHOUR=9"), "2036-05-06T00:00")

    assert found == [("06 09:00", None)] * 3


schedules = st.one_of(
    st.builds(
        cron,
        st.sampled_from(
            ["*/7 * * * *", "30 2 * * *", "*/20 1-3 * * *", "0 0 L * *", "15 3 13 * 5", "0 0 * * 5#3", "* 2 * * * */9"]
        ),
        st.sampled_from(ZONES),
        day_or=st.booleans(),
    ),
    st.builds(
        interval,
        st.one_of(st.integers(600, 10 * 86400), st.floats(3600, 5 * 86400)),
        st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat),  # noqa: DTZ001
        st.sampled_from(ZONES),
    ),
    st.builds(
        rrule,
        st.sampled_from(
            [
                "FREQ=HOURLY;INTERVAL=5",
                "FREQ=WEEKLY;INTERVAL=3;BYDAY=MO,SU;BYHOUR=2",
                "FREQ=MINUTELY;INTERVAL=97;BYSETPOS=1",
                "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=2;BYMINUTE=30",
                "FREQ=DAILY;COUNT=1000;BYHOUR=1,2,3;BYMINUTE=0,30\nEXRULE:FREQ=WEEKLY;BYHOUR=2",
            ]
        ),
        st.sampled_from(ZONES),
    ),
)
instants = st.datetimes(datetime(2021, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=300, deadline=None)
@given(schedules, instants)
def test_dates_strictly_increase_from_the_start(schedule: Mapping[str, Any], after: datetime) -> None:
    found = [each.instant for each in islice(dates(schedule, after), 40)]

    assert all(one < other for one, other in zip([after - timedelta(microseconds=1), *found], found, strict=False))


@settings(max_examples=300, deadline=None)
@given(schedules, instants, st.integers(0, 20))
def test_dates_do_not_depend_on_the_start(schedule: Mapping[str, Any], after: datetime, skipped: int) -> None:
    found = list(islice(dates(schedule, after), 40))
    if skipped < len(found):
        again = list(islice(dates(schedule, found[skipped].instant), 40 - skipped))
        later = list(islice(dates(schedule, found[skipped].instant + timedelta(microseconds=1)), 39 - skipped))

        assert again == found[skipped:]
        assert later == found[skipped + 1 :]


def minute_by_minute(hours: set[int], step: int, weekdays: set[int], zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the instants of ten years whose local minute matches, by looking at each minute of each day."""
    day = date(2018, 1, 1)
    while day < date(2028, 1, 1):
        for minute in range(1440):
            if minute // 60 in hours and minute % 60 % step == 0 and day.isoweekday() in weekdays:
                local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone)
                yield local.astimezone(UTC)
        day += timedelta(days=1)


@pytest.mark.parametrize("zone", ZONES)
def test_cron_dates_are_those_of_a_search_through_every_minute_of_ten_years(zone: str) -> None:
    expected = sorted(set(minute_by_minute({1, 2, 3, 23}, 20, {6, 7}, zone_of(zone))))
    found = [each.instant for each in _until(cron("*/20 1-3,23 * * 6,7", zone), expected[0], expected[-1])]

    assert found == expected


def _until(schedule: Mapping[str, Any], after: datetime, until: datetime) -> Iterator[Date]:
    return takewhile(lambda each: each.instant <= until, dates(schedule, after))
