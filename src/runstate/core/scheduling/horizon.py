"""The dates of a schedule that become runs: how far ahead, and when the next ones do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

SOON: Final = timedelta(seconds=1)
"""Shortest time between two passes over a schedule."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """The dates that become runs: at least `min_runs` and until `min_time`, at most `max_runs` and until `max_time`."""

    min_runs: int = 3
    max_runs: int = 100
    min_time: timedelta = timedelta(hours=1)
    max_time: timedelta = timedelta(days=100)
    catch_up: timedelta = timedelta(0)
    """Time in the past for which dates that no server planned, because none was running, still become runs."""


class Plan(NamedTuple):
    """Dates that become runs, and the time at which more of them do; None if there are no more."""

    dates: Sequence[datetime]
    next_pass: datetime | None
    is_known: bool = True
    """False if the dates could not be computed."""


def planned(found: Sequence[datetime], now: datetime, horizon: Horizon) -> Plan:
    """Choose from the next dates of a schedule; all of them were found if they are at most `max_runs`."""
    last = now + horizon.max_time
    dates = list[datetime]()
    for date in found:
        enough = len(dates) >= horizon.min_runs and (not dates or dates[-1] >= now + horizon.min_time)
        if enough or len(dates) == horizon.max_runs or date > last:
            return Plan(dates, max(_next_pass(dates, date, horizon), now + SOON))
        dates.append(date)
    return Plan(dates, None)


def _next_pass(dates: Sequence[datetime], following: datetime, horizon: Horizon) -> datetime:
    """Return the time at which there are too few runs ahead, or the following date is near enough."""
    near = following - horizon.max_time
    if not dates or len(dates) < horizon.min_runs:
        return near
    few = dates[len(dates) - max(horizon.min_runs, 1)]
    return max(near, dates[0] if len(dates) == horizon.max_runs else min(few, dates[-1] - horizon.min_time))
