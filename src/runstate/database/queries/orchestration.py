"""What orchestration reads and locks before it decides, and writes afterwards: a fixed number of statements a batch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.dialects import among, insert_or_replace, insert_or_skip
from runstate.rows import (
    Base,
    CacheEntry,
    ConcurrencyLease,
    ConcurrencyLimit,
    Deployment,
    Flow,
    FlowRun,
    FlowRunInput,
    FlowRunState,
    ProposalAnswer,
    TaskRun,
    TaskRunState,
)

B = TypeVar("B", bound=Base)

RUN = ("id", "tags", "state_id", "state_type", "state_name", "state_timestamp", "version", "run_count", "policy")
TIMES = ("expected_start_time", "next_scheduled_start_time", "start_time", "end_time", "total_run_time_seconds")
FLOW_RUN = (*RUN, *TIMES, "flow_id", "deployment_id", "parent_task_run_id", "infrastructure_pid")
TASK_RUN = (*RUN, *TIMES, "flow_run_id", "flow_run_run_count")
STATE = ("id", "run_id", "type", "name", "message", "timestamp", "version", "details", "persisted")
MOVED = (*RUN[2:], *TIMES)
"""Columns of a run that a transition may change."""


async def all_of(connection: AsyncConnection, row: type[B], statement: sa.Select[Any]) -> list[B]:
    """Snapshots of the rows that a statement selects."""
    return [row.of(found) for found in (await connection.execute(statement)).mappings()]


def table_of(row: type[Base]) -> sa.Table:
    """The table behind a row class."""
    return cast("sa.Table", row.__table__)


def columns(row: type[Base], names: Iterable[str]) -> list[sa.ColumnElement[Any]]:
    """Columns of a table by name."""
    return [table_of(row).columns[name] for name in names]


async def parents_of(connection: AsyncConnection, flow_runs: Collection[UUID]) -> dict[UUID, UUID]:
    """Of subflow runs: the task run that stands for each in its parent flow run."""
    if not flow_runs:
        return {}
    asked = sa.select(FlowRun.id, FlowRun.parent_task_run_id).where(among(FlowRun.id, flow_runs))
    return {run: parent for run, parent in await connection.execute(asked) if parent}


async def homes_of(
    connection: AsyncConnection, task_runs: Collection[UUID]
) -> dict[UUID, tuple[UUID | None, UUID | None, UUID | None]]:
    """Of task runs: the flow run, flow and deployment that each belongs to. They never change."""
    if not task_runs:
        return {}
    asked = (
        sa.select(TaskRun.id, TaskRun.flow_run_id, FlowRun.flow_id, FlowRun.deployment_id)
        .outerjoin(FlowRun, FlowRun.id == TaskRun.flow_run_id)
        .where(among(TaskRun.id, task_runs))
    )
    return {run: (flow_run, flow, deployment) for run, flow_run, flow, deployment in await connection.execute(asked)}


async def lock_flow_runs(connection: AsyncConnection, ids: Collection[UUID], *, shared: bool) -> list[FlowRun]:
    """Flow runs, locked in order of their ids: against changes by others, or shared with others who only look."""
    if not ids:
        return []
    asked = sa.select(*columns(FlowRun, FLOW_RUN)).where(among(FlowRun.id, sorted(ids))).order_by(FlowRun.id)
    return await all_of(connection, FlowRun, asked.with_for_update(read=shared, key_share=not shared))


async def lock_task_runs(connection: AsyncConnection, ids: Collection[UUID]) -> list[TaskRun]:
    """Task runs, locked in order of their ids."""
    if not ids:
        return []
    asked = sa.select(*columns(TaskRun, TASK_RUN)).where(among(TaskRun.id, sorted(ids))).order_by(TaskRun.id)
    return await all_of(connection, TaskRun, asked.with_for_update(key_share=True))


async def states(
    connection: AsyncConnection, row: type[FlowRunState] | type[TaskRunState], ids: Collection[UUID]
) -> list[Any]:
    """States by id, without their data."""
    if not ids:
        return []
    return await all_of(connection, row, sa.select(*columns(row, STATE)).where(among(row.id, ids)))


async def deployments(connection: AsyncConnection, ids: Collection[UUID]) -> list[Deployment]:
    """What orchestration knows of deployments: their limit and its options."""
    if not ids:
        return []
    asked = columns(Deployment, ("id", "concurrency_limit_id", "concurrency_options"))
    return await all_of(connection, Deployment, sa.select(*asked).where(among(Deployment.id, ids)))


async def lock_limits(
    connection: AsyncConnection,
    *,
    ids: Collection[UUID] = (),
    names: Collection[str] = (),
    holders: Collection[UUID] = (),
    leases: Collection[UUID] = (),
) -> list[ConcurrencyLimit]:
    """Limits by id, name, the runs that hold their slots or their leases, locked in order of their ids."""
    held = sa.select(ConcurrencyLease.limit_id).where(
        among(ConcurrencyLease.run_id, sorted(holders)) | among(ConcurrencyLease.id, sorted(leases))
    )
    asked = (
        sa.select(*ConcurrencyLimit.__table__.columns)
        .where(
            among(ConcurrencyLimit.id, sorted(ids))
            | among(ConcurrencyLimit.name, sorted(names))
            | ConcurrencyLimit.id.in_(held)
        )
        .order_by(ConcurrencyLimit.id)
        .with_for_update(key_share=True)
    )
    return await all_of(connection, ConcurrencyLimit, asked)


async def leases(
    connection: AsyncConnection,
    now: datetime,
    *,
    holders: Collection[UUID] = (),
    limits: Collection[UUID] = (),
    ids: Collection[UUID] = (),
) -> list[ConcurrencyLease]:
    """Leases that these runs hold, those with these ids, and those of these limits that have not expired."""
    asked = sa.select(*ConcurrencyLease.__table__.columns).where(
        among(ConcurrencyLease.run_id, holders)
        | among(ConcurrencyLease.id, ids)
        | (among(ConcurrencyLease.limit_id, limits) & (ConcurrencyLease.expires > now))
    )
    return await all_of(connection, ConcurrencyLease, asked)


def digest(key: str) -> str:
    """What a cache key is looked up by."""
    return sha256(key.encode()).hexdigest()


async def cached_states(connection: AsyncConnection, keys: Collection[str], now: datetime) -> dict[str, TaskRunState]:
    """For each cache key, the state with the newest result that has not expired; it cannot be deleted meanwhile."""
    if not keys:
        return {}
    other = sa.orm.aliased(CacheEntry)
    newest = (
        sa.select(other.id)
        .where(other.digest == CacheEntry.digest, other.expires.is_(None) | (other.expires > now))
        .order_by(other.created.desc(), other.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    asked = (
        sa.select(CacheEntry.cache_key, *columns(TaskRunState, STATE))
        .join(TaskRunState, TaskRunState.id == CacheEntry.state_id)
        .where(among(CacheEntry.digest, [digest(key) for key in keys]), CacheEntry.id == newest)
        .with_for_update(read=True, key_share=True, of=TaskRunState)
    )
    found = (await connection.execute(asked)).mappings()
    return {each["cache_key"]: TaskRunState.of({name: each[name] for name in STATE}) for each in found}


async def answers(connection: AsyncConnection, runs: Collection[UUID], keys: Collection[str]) -> list[ProposalAnswer]:
    """Answers that were given to proposals with these idempotency keys."""
    if not keys:
        return []
    asked = sa.select(*ProposalAnswer.__table__.columns).where(
        among(ProposalAnswer.run_id, runs), among(ProposalAnswer.key, keys)
    )
    return await all_of(connection, ProposalAnswer, asked)


async def missing(
    connection: AsyncConnection, row: type[Flow | Deployment | FlowRun | TaskRun], ids: set[UUID]
) -> set[UUID]:
    """Which of the ids no row has; those that exist cannot be deleted before the transaction ends."""
    if not ids:
        return set()
    asked = (
        sa.select(row.id).where(among(row.id, sorted(ids))).order_by(row.id).with_for_update(read=True, key_share=True)
    )
    return ids - set((await connection.execute(asked)).scalars())


async def create(
    connection: AsyncConnection, row: type[FlowRun | TaskRun], runs: Sequence[FlowRun | TaskRun]
) -> set[UUID]:
    """Insert runs unless their unique key is taken; the ids of those that were inserted."""
    if not runs:
        return set()
    statement = insert_or_skip(connection.dialect.name, table_of(row)).returning(row.id)
    return set((await connection.execute(statement, [vars(run) for run in runs])).scalars())


async def flow_runs_by_key(
    connection: AsyncConnection, keys: Collection[tuple[UUID, str]]
) -> dict[tuple[UUID, str], UUID]:
    """Ids of flow runs by flow and idempotency key."""
    if not keys:
        return {}
    asked = sa.select(FlowRun.flow_id, FlowRun.idempotency_key, FlowRun.id).where(
        among(FlowRun.flow_id, sorted({flow for flow, _ in keys})),
        among(FlowRun.idempotency_key, sorted({key for _, key in keys})),
    )
    return {(flow, key): run for flow, key, run in await connection.execute(asked) if key is not None}


async def task_runs_by_key(
    connection: AsyncConnection, keys: Collection[tuple[UUID | None, str, str]]
) -> dict[tuple[UUID | None, str, str], UUID]:
    """Ids of task runs by flow run, task key and dynamic key."""
    if not keys:
        return {}
    parents = sorted({parent for parent, _, _ in keys if parent})
    asked = sa.select(TaskRun.flow_run_id, TaskRun.task_key, TaskRun.dynamic_key, TaskRun.id).where(
        among(TaskRun.flow_run_id, parents) | TaskRun.flow_run_id.is_(None),
        among(TaskRun.task_key, sorted({task for _, task, _ in keys})),
        among(TaskRun.dynamic_key, sorted({dynamic for _, _, dynamic in keys})),
    )
    return {(parent, task, dynamic): run for parent, task, dynamic, run in await connection.execute(asked)}


async def insert(connection: AsyncConnection, row: type[Base], values: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows in order."""
    if values:
        await connection.execute(sa.insert(table_of(row)), values)


async def update(connection: AsyncConnection, row: type[Base], names: Sequence[str], rows: Sequence[Any]) -> None:
    """Write some columns of rows that are there already."""
    if not rows:
        return
    table = table_of(row)
    statement = (
        sa.update(table)
        .where(table.c.id == sa.bindparam("key"))
        .values({name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in names})
    )
    values = [{"key": each.id, **{f"new_{name}": getattr(each, name) for name in names}} for each in rows]
    await connection.execute(statement, values)


async def copy_data(connection: AsyncConnection, pairs: Sequence[tuple[UUID, UUID]]) -> None:
    """Give task run states the data of others: pairs of (state, source)."""
    if not pairs:
        return
    table = table_of(TaskRunState)
    source = table.alias()
    data = sa.select(source.c.data).where(source.c.id == sa.bindparam("source")).scalar_subquery()
    statement = sa.update(table).where(table.c.id == sa.bindparam("key")).values(data=data)
    await connection.execute(statement, [{"key": state, "source": source_id} for state, source_id in pairs])


async def put_inputs(connection: AsyncConnection, inputs: Sequence[FlowRunInput]) -> None:
    """Run inputs, in the place of those that the run has under the same keys."""
    if not inputs:
        return
    statement = insert_or_replace(
        connection.dialect.name, table_of(FlowRunInput), ("flow_run_id", "key"), ("updated", "value", "sender")
    )
    await connection.execute(statement, [vars(each) for each in inputs])


async def delete_leases(connection: AsyncConnection, ids: Collection[UUID]) -> None:
    """Delete leases that were given back or have expired."""
    if ids:
        await connection.execute(sa.delete(ConcurrencyLease).where(among(ConcurrencyLease.id, ids)))


async def stored(connection: AsyncConnection, state_ids: Collection[UUID]) -> set[UUID]:
    """Which of these states were written."""
    asked = sa.union_all(*(sa.select(row.id).where(among(row.id, state_ids)) for row in (FlowRunState, TaskRunState)))
    return set((await connection.execute(asked)).scalars())
