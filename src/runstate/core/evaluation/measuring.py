"""Measurement of metrics over flow runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.automations.compiled import Coverage, MetricLeaf
from runstate.core.automations.metrics import Measurement
from runstate.core.automations.stored import COLUMNS, of_row
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.documents.states import StateType
from runstate.documents.triggers import RunMetric
from runstate.rows import Event, FlowRun
from runstate.rows.base import EPOCH

INTERVAL: Final = timedelta(seconds=30)
"""Time between two measurements."""
MOST_RUNS: Final = 10_000
"""Maximum number of runs of a measurement: the latest ones."""
RUN: Final = table_of(FlowRun)


def instant_of(now: datetime) -> datetime:
    """Return the last instant of the grid of measurements."""
    return EPOCH + (now - EPOCH) // INTERVAL * INTERVAL


async def measured(connection: AsyncConnection, leaves: Sequence[MetricLeaf], at: datetime) -> list[Measurement]:
    """Return the present values of metrics."""
    return [Measurement(leaf.id, at, await _value(connection, leaf, at)) for leaf in leaves]


async def _value(connection: AsyncConnection, leaf: MetricLeaf, at: datetime) -> float | None:
    trigger = leaf.trigger
    # Runs count by their end, and by their start for the lateness of it.
    when = RUN.c.start_time if trigger.metric is RunMetric.LATENESS else RUN.c.end_time
    since = at - timedelta(seconds=trigger.range_seconds)
    asked = sa.select(*RUN.c).where(when > since, when <= at).order_by(when.desc()).limit(MOST_RUNS)
    runs: Sequence[Any] = (await connection.execute(asked)).all()
    if trigger.match or trigger.match_related:
        states = await _covered(connection, Coverage(trigger), [run.state_id for run in runs])
        runs = [run for run in runs if run.state_id in states]
    return fmean(_number(trigger.metric, run) for run in runs) if runs else None


def _number(metric: RunMetric, run: Any) -> float:
    if metric is RunMetric.SUCCESSES:
        return float(run.state_type is StateType.COMPLETED)
    if metric is RunMetric.DURATION:
        return float(run.total_run_time_seconds)
    return max(0.0, (run.start_time - run.expected_start_time).total_seconds()) if run.expected_start_time else 0.0


async def _covered(connection: AsyncConnection, coverage: Coverage, states: Sequence[Any]) -> set[Any]:
    """Return the states whose events match."""
    table = Event.__table__
    asked = sa.select(*(table.c[name] for name in COLUMNS)).where(among(table.c.id, states))
    events = map(of_row, await connection.execute(asked))
    return {event.id for event in events if coverage.covers(event)}
