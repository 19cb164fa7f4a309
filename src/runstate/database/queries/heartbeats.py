"""Heartbeats of runs: records of them, and runs without one for too long. All times are those of the database."""

import functools
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.bulk import table_of
from runstate.database.dialects import DatabaseTime, among_given, insert_or_replace, seconds_between
from runstate.database.driver import fetch
from runstate.database.queries.due import DueQuery
from runstate.documents.states import MONITORED_TYPES, StateType
from runstate.rows import FlowRun, Heartbeat, TaskRun
from runstate.rows.base import Duration

MISSED: Final = 3
"""Number of intervals without a heartbeat after which a run crashes."""
STALE: Final = timedelta(minutes=1)
"""Time for which heartbeats of runs are kept that are not monitored any more."""


class MonitoredRun(NamedTuple):
    """The state of a run, and whether its client is expected to send heartbeats."""

    id: UUID
    state_type: StateType | None
    state_name: str | None
    version: int
    heartbeat_seconds: float | None

    @property
    def is_monitored(self) -> bool:
        """Whether its client is expected to send heartbeats."""
        return self.heartbeat_seconds is not None and self.state_type in MONITORED_TYPES


async def monitored_runs(
    connection: AsyncConnection, flow_runs: Collection[UUID], task_runs: Collection[UUID]
) -> list[MonitoredRun]:
    """Return the runs with these ids that exist, read in one statement."""
    given = {name: list(ids) for name, ids in (("flow_runs", flow_runs), ("task_runs", task_runs)) if ids}
    return [MonitoredRun(*each) for each in await fetch(connection, _runs(tuple(given)), given)] if given else []


@functools.cache
def _runs(kinds: tuple[str, ...]) -> Any:
    rows: dict[str, type[FlowRun | TaskRun]] = {"flow_runs": FlowRun, "task_runs": TaskRun}
    selects = [
        sa.select(row.id, row.state_type, row.state_name, row.version, row.heartbeat_seconds).where(
            among_given(row.id, name)
        )
        for name, row in rows.items()
        if name in kinds
    ]
    return sa.union_all(*selects) if len(selects) > 1 else selects[0]


async def record(connection: AsyncConnection, heard: Sequence[tuple[UUID, int, timedelta]]) -> None:
    """Record heartbeats: id and version of each run, and the time since then. A newer record stays."""
    given = [{"run": run_id, "in_version": version, "age": age} for run_id, version, age in sorted(heard)]
    await connection.execute(_recording(connection.dialect.name), given)


@functools.cache
def _recording(dialect: str) -> Any:
    columns = ("version", "heard")
    statement = insert_or_replace(dialect, table_of(Heartbeat), ("run_id",), columns, if_greater=columns)
    heard = DatabaseTime() - sa.bindparam("age", type_=Duration())
    return statement.values(run_id=sa.bindparam("run"), version=sa.bindparam("in_version"), heard=heard)


async def database_time(connection: AsyncConnection) -> datetime:
    """Return the time by the clock of the database."""
    ((now,),) = await fetch(connection, TIME)
    return now  # type: ignore[no-any-return]


TIME: Final = sa.select(DatabaseTime())


def silent_runs(run: type[FlowRun | TaskRun]) -> DueQuery:
    """Return monitored runs without a heartbeat for three intervals; `silent` is null if there is no record."""
    silent = seconds_between(Heartbeat.heard, DatabaseTime())
    query = (
        sa.select(run.id, run.version, run.state_type, run.state_timestamp, run.heartbeat_seconds)
        .add_columns(silent.label("silent"))
        .outerjoin(Heartbeat, (Heartbeat.run_id == run.id) & (Heartbeat.version == run.version))
        .where(
            run.state_type.in_(MONITORED_TYPES),
            run.heartbeat_seconds.is_not(None),
            sa.func.coalesce(silent > MISSED * run.heartbeat_seconds, sa.true()),
        )
    )
    return DueQuery(query, (run.state_timestamp, run.id))


def is_stale() -> sa.ColumnElement[bool]:
    """Return the condition of records of runs that are not monitored any more."""
    rows: tuple[type[FlowRun | TaskRun], ...] = (FlowRun, TaskRun)
    monitored = [sa.exists().where(row.id == Heartbeat.run_id, row.state_type.in_(MONITORED_TYPES)) for row in rows]
    return (Heartbeat.heard < DatabaseTime() - sa.literal(STALE, Duration())) & ~sa.or_(*monitored)
