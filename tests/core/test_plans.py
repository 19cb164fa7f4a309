"""The dates of a schedule that become runs: pure arithmetic."""

from datetime import datetime, timedelta

import pytest

from runstate.core.scheduling.horizon import Horizon, Plan, planned
from tests.core.factories import NOW


def every(step: timedelta, first: timedelta, count: int = 1000) -> list[datetime]:
    return [NOW + first + number * step for number in range(count)]


def plan(seconds: float, *, first: float | None = None, horizon: Horizon = Horizon()) -> Plan:  # noqa: B008
    """Return the plan of an interval whose first date is half an interval ahead by default."""
    ahead = timedelta(seconds=seconds / 2 if first is None else first)
    return planned(every(timedelta(seconds=seconds), ahead), NOW, horizon)


@pytest.mark.parametrize(("seconds", "runs"), [(86400, 3), (3600, 3), (600, 7), (60, 61), (30, 100)])
def test_there_are_enough_runs_for_enough_time(seconds: float, runs: int) -> None:
    assert len(plan(seconds).dates) == runs


@pytest.mark.parametrize("seconds", [30, 60, 600, 3600, 86400, 40 * 86400])
def test_the_next_pass_is_due_when_a_run_is_missing(seconds: float) -> None:
    step = timedelta(seconds=seconds)
    found = every(step, step / 2)
    made, horizon, _ = planned(found, NOW, Horizon())
    assert horizon is not None
    before = planned([date for date in found if date >= horizon - timedelta(seconds=2)], horizon, Horizon())
    later = planned([date for date in found if date > horizon], horizon + timedelta(microseconds=1), Horizon())

    assert horizon > NOW
    assert set(later.dates) - set(made)
    assert len(before.dates) >= len(later.dates)


def test_a_date_beyond_the_horizon_waits_until_it_is_near() -> None:
    found = plan(200 * 86400, first=150 * 86400)

    assert found == Plan([], NOW + timedelta(days=50))


def test_a_schedule_that_has_ended_has_no_further_pass() -> None:
    dates = every(timedelta(hours=1), timedelta(0), 2)

    assert planned(dates, NOW, Horizon()) == Plan(dates, None)


def test_at_most_the_allowed_runs_are_planned() -> None:
    found = plan(60, horizon=Horizon(min_runs=2, max_runs=2))

    assert len(found.dates) == 2
    assert found.next_pass == found.dates[0]
