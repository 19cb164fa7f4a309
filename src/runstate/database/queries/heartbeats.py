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
from runstate.documents.states import MONITORED_TYPES, RunKind, StateType
from runstate.rows import FlowRun, Heartbeat, TaskRun
from runstate.rows.base import Duration

FLOW_RUN, TASK_RUN = RunKind.FLOW_RUN, RunKind.TASK_RUN
MISSED: Final = 3
"""Number of intervals without a heartbeat after which a run crashes."""
STALE: Final = timedelta(minutes=1)
"""Time for which heartbeats of runs are kept that are not monitored any more."""


class MonitoredRun(NamedTuple):
    """The state of a run, and whether its client is expected to send heartbeats."""

    kind: str
    """Name of the member of `RunKind`."""
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
    given = {kind.name: list(ids) for kind, ids in ((FLOW_RUN, flow_runs), (TASK_RUN, task_runs)) if ids}
    return [MonitoredRun(*each) for each in await fetch(connection, _runs(tuple(given)), given)] if given else []


# Building a statement takes longer than executing it.
@functools.cache
def _runs(kinds: tuple[str, ...]) -> Any:
    rows: dict[str, type[FlowRun | TaskRun]] = {FLOW_RUN.name: FlowRun, TASK_RUN.name: TaskRun}
    selects = [
        sa.select(sa.literal_column(f"'{kind}'"), row.id, row.state_type, row.state_name, row.version)
        .add_columns(row.heartbeat_seconds)
        .where(among_given(row.id, kind))
        for kind, row in rows.items()
        if kind in kinds
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
        # A run that has entered another state since has its full time again.
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
