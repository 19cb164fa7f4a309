"""scheduleDates: dates of a schedule that is not stored."""

from typing import Any

import pytest

from tests.client import Ask

DATES = """query($input: ScheduleDatesInput!) { it: scheduleDates(input: $input) {
  __typename ... on Problem { code message } ... on InvalidInput { path }
  ... on ScheduleDatesPayload { hasMore dates { date local shifted } } } }"""
BERLIN = {"timeZone": "Europe/Berlin"}
NEVER_MATCHES = "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"


async def scheduled(ask: Ask, **given: Any) -> Any:
    return (await ask(DATES, input={"after": "2026-03-28T00:00:00Z", **given}))["it"]


async def refusal(ask: Ask, schedule: dict[str, Any], **given: Any) -> Any:
    found = await scheduled(ask, schedule=schedule, **given)
    assert found["__typename"] == "InvalidInput", found
    return found


async def test_each_date_says_how_a_transition_moved_it(ask: Ask) -> None:
    found = await scheduled(ask, schedule={"cron": {"cron": "30 2 * * *", **BERLIN}}, first=2)
    later = await scheduled(
        ask, schedule={"cron": {"cron": "30 2 * * *", **BERLIN}}, first=1, after="2026-10-25T00:00:00Z"
    )

    assert found["hasMore"] is True
    assert found["dates"] == [
        {"date": "2026-03-28T01:30:00.000000Z", "local": "2026-03-28T02:30:00+01:00", "shifted": None},
        {"date": "2026-03-29T01:30:00.000000Z", "local": "2026-03-29T03:30:00+02:00", "shifted": "GAP"},
    ]
    assert later["dates"] == [
        {"date": "2026-10-25T00:30:00.000000Z", "local": "2026-10-25T02:30:00+02:00", "shifted": "OVERLAP"}
    ]


async def test_both_ends_of_the_range_are_included(ask: Ask) -> None:
    until = "2026-03-29T00:00:00Z"
    found = await scheduled(ask, schedule={"cron": {"cron": "@daily"}}, until=until)

    assert [each["date"][:10] for each in found["dates"]] == ["2026-03-28", "2026-03-29"]
    assert found["hasMore"] is False


async def test_an_interval_counts_from_now_by_default(ask: Ask) -> None:
    found = (await ask(DATES, input={"schedule": {"interval": {"intervalSeconds": 3600.0}}, "first": 1000}))["it"]

    assert len(found["dates"]) == 1000


@pytest.mark.parametrize(
    ("schedule", "path"),
    [
        ({"cron": {"cron": "0 0 * *"}}, ["schedule", "cron", "cron"]),
        ({"cron": {"cron": "0 0 30 2 *"}}, ["schedule", "cron"]),
        ({"cron": {"cron": "0 0 * * *", "timeZone": "utc"}}, ["schedule", "cron", "timeZone"]),
        ({"interval": {"intervalSeconds": 0.0}}, ["schedule", "interval", "intervalSeconds"]),
        ({"interval": {"intervalSeconds": 1e-9}}, ["schedule", "interval", "intervalSeconds"]),
        ({"rrule": {"rrule": "FREQ=DAILY;INTERVAL=0"}}, ["schedule", "rrule", "rrule"]),
        ({"rrule": {"rrule": "FREQ=DAILY;" + "X" * 6500}}, ["schedule", "rrule", "rrule"]),
        ({"rrule": {"rrule": "FREQ=DAILY", "timeZone": "../etc/passwd"}}, ["schedule", "rrule", "timeZone"]),
    ],
)
async def test_an_invalid_schedule_is_refused_with_the_path_of_the_mistake(
    ask: Ask, schedule: dict[str, Any], path: list[str]
) -> None:
    assert (await refusal(ask, schedule))["path"] == path


@pytest.mark.parametrize("first", [0, 1001])
async def test_an_answer_has_1_to_1000_dates(ask: Ask, first: int) -> None:
    assert (await refusal(ask, {"cron": {"cron": "@daily"}}, first=first))["path"] == ["first"]


async def test_a_schedule_that_takes_too_much_time_is_refused_and_the_next_one_is_computed(ask: Ask) -> None:
    found = await refusal(ask, {"rrule": {"rrule": NEVER_MATCHES}})

    assert (found["path"], "too much time" in found["message"]) == (["schedule", "rrule"], True)
    assert (await scheduled(ask, schedule={"cron": {"cron": "@daily"}}, first=1))["hasMore"] is True
