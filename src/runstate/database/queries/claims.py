"""Statements of claims: pools as workers see them, candidates for a claim, and claims by id."""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.bulk import table_of
from runstate.database.dialects import DatabaseTime, among, among_given
from runstate.database.driver import fetch
from runstate.database.queries.claimable import FULL, HOLDS, SCHEDULED, UNLIMITED, due
from runstate.database.queries.due import DueQuery, Query
from runstate.documents.states import StateType
from runstate.rows import FlowRun, RunClaim, Worker, WorkPool, WorkQueue
from runstate.rows.base import Duration, Timestamp

POOL: Final = (WorkPool.id, WorkPool.name, WorkPool.paused, WorkPool.concurrency_limit)
QUEUE: Final = (WorkQueue.id, WorkQueue.name, WorkQueue.paused, WorkQueue.concurrency_limit, WorkQueue.last_polled)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of a pool as a worker sees it."""

    id: UUID
    name: str
    paused: bool
    limit: int | None
    last_polled: datetime | None
    first_due: datetime | None = None
    """Scheduled time of its first run; null if it has none."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool with its queues by priority."""

    id: UUID
    name: str
    paused: bool
    limit: int | None
    queues: tuple[Queue, ...]

    @property
    def is_limited(self) -> bool:
        """Whether the pool or one of its queues has a limit."""
        return self.limit is not None or any(each.limit is not None for each in self.queues)


class Poll(NamedTuple):
    """A pool as a worker finds it, and the worker; null if it is new."""

    pool: Pool
    worker_id: UUID | None
    heartbeat: datetime | None


class Candidate(NamedTuple):
    """A due run that may be claimed, and its version."""

    id: UUID
    version: int
    due: datetime


def _pool(rows: Sequence[Sequence[Any]]) -> Pool:
    width = len(POOL)
    queues = tuple(Queue(*row[width : width + len(QUEUE)], *row[width + len(QUEUE) :][:1]) for row in rows)
    key, name, paused, limit = rows[0][:width]
    return Pool(key, name, paused, limit, queues)


FIRST_DUE: Final = (
    sa.select(sa.func.min(FlowRun.next_scheduled_start_time))
    .where(FlowRun.work_queue_id == WorkQueue.id, SCHEDULED)
    .correlate(WorkQueue)
    .scalar_subquery()
)
BY_PRIORITY: Final = (WorkQueue.priority, WorkQueue.id)
POLL: Final = (
    sa.select(*POOL, *QUEUE, FIRST_DUE, Worker.id, Worker.last_heartbeat_time)
    .join(WorkQueue, WorkQueue.work_pool_id == WorkPool.id)
    .outerjoin(Worker, (Worker.work_pool_id == WorkPool.id) & (Worker.name == sa.bindparam("worker", type_=sa.Text())))
    .where(WorkPool.name == sa.bindparam("pool", type_=sa.Text()))
    .order_by(*BY_PRIORITY)
)


async def read_poll(connection: AsyncConnection, pool: str, worker: str) -> Poll | None:
    """Return a pool by name, with the time of the first run of each queue, and its worker; None if it is unknown."""
    rows = await fetch(connection, POLL, {"pool": pool, "worker": worker})
    return Poll(_pool(rows), *rows[0][-2:]) if rows else None


async def lock_pool(connection: AsyncConnection, pool_id: UUID, *, shared: bool) -> tuple[Pool, datetime] | None:
    """Lock a pool; return it and the time of the database. A shared lock excludes changes, the other one claims too."""
    rows = await fetch(connection, _locking(shared=shared), {"pool": pool_id})
    return (_pool([row[:-1] for row in rows]), rows[0][-1]) if rows else None


@functools.cache
def _locking(*, shared: bool) -> Query:
    asked = sa.select(*POOL, *QUEUE, DatabaseTime()).join(WorkQueue, WorkQueue.work_pool_id == WorkPool.id)
    mine = asked.where(WorkPool.id == sa.bindparam("pool", type_=sa.Uuid())).order_by(*BY_PRIORITY)
    return mine.with_for_update(read=shared, key_share=not shared, of=WorkPool)


async def free_slots(connection: AsyncConnection, pool: Pool) -> dict[UUID, int]:
    """Return the free slots of a pool and of its queues by id. The caller must hold the lock of the pool."""
    limits = {pool.id: pool.limit, **{each.id: each.limit for each in pool.queues}}
    # Without limits nothing is counted.
    if not pool.is_limited:
        return dict.fromkeys(limits, UNLIMITED)
    used = {row[0]: row[1] for row in await fetch(connection, HELD, {"queues": [each.id for each in pool.queues]})}
    used[pool.id] = sum(used.values())
    return {key: UNLIMITED if limit is None else max(0, limit - used.get(key, 0)) for key, limit in limits.items()}


HELD: Final = (
    sa.select(FlowRun.work_queue_id, sa.func.count())
    .where(among_given(FlowRun.work_queue_id, "queues"), HOLDS)
    .group_by(FlowRun.work_queue_id)
)
WAITS: Final = FlowRun.deployment_id.in_(FULL) | among_given(FlowRun.deployment_id, "full")
BEFORE: Final = sa.bindparam("before", type_=Timestamp())
CANDIDATES: Final = (
    sa.select(FlowRun.id, FlowRun.version, FlowRun.next_scheduled_start_time)
    .where(
        FlowRun.work_queue_id == sa.bindparam("queue", type_=sa.Uuid()),
        due(BEFORE),
        FlowRun.deployment_id.is_(None) | ~WAITS,
    )
    .order_by(FlowRun.next_scheduled_start_time, FlowRun.id)
    .limit(sa.bindparam("most", type_=sa.Integer()))
    # A locked run is being changed or claimed: waiting for it would delay the claims of all others.
    .with_for_update(key_share=True, skip_locked=True, of=FlowRun)
)


async def candidates(
    connection: AsyncConnection, queue_id: UUID, before: datetime, most: int, full: Collection[UUID]
) -> list[Candidate]:
    """Lock and return the first due runs of a queue that no other claim has locked, without those of deployments."""
    given = {"queue": queue_id, "before": before, "most": most, "full": list(full)}
    return [Candidate(*row) for row in await fetch(connection, CANDIDATES, given)]


NEXT_DUE: Final = (
    sa.select(
        sa.select(sa.func.min(FlowRun.next_scheduled_start_time))
        .where(FlowRun.work_queue_id == WorkQueue.id, SCHEDULED, FlowRun.next_scheduled_start_time > BEFORE)
        .correlate(WorkQueue)
        .scalar_subquery()
    )
    .select_from(WorkQueue)
    .where(among_given(WorkQueue.id, "queues"))
)


async def next_due(connection: AsyncConnection, queues: Collection[UUID], after: datetime) -> datetime | None:
    """Return the time at which the next run of some queues becomes due."""
    found = await fetch(connection, NEXT_DUE, {"before": after, "queues": list(queues)})
    return min((each for (each,) in found if each is not None), default=None)


COLUMNS: Final = table_of(RunClaim).columns
BY_ID: Final = sa.select(*COLUMNS).where(among_given(RunClaim.id, "ids"))
EXPIRED: Final = RunClaim.expires <= DatabaseTime()


def _claims(rows: Sequence[Sequence[Any]]) -> list[RunClaim]:
    return [RunClaim.of(dict(zip(COLUMNS.keys(), row, strict=True))) for row in rows]


async def claims_by_id(connection: AsyncConnection, ids: Collection[UUID]) -> list[RunClaim]:
    """Return claims by id."""
    return _claims(await fetch(connection, BY_ID, {"ids": list(ids)})) if ids else []


async def lock_claims(connection: AsyncConnection, ids: Collection[UUID], *, expired: bool) -> list[RunClaim]:
    """Lock claims by id in order of their ids and return them; only those that have expired, if `expired`."""
    asked = BY_ID.where(EXPIRED) if expired else BY_ID
    return _claims(await fetch(connection, asked.order_by(RunClaim.id).with_for_update(), {"ids": list(ids)}))


RENEWING: Final = (
    sa.update(RunClaim)
    .where(among_given(RunClaim.id, "ids"))
    .values(
        # The clock of the database decides about the expiry, too, so servers with other clocks do no harm.
        expires=DatabaseTime() + sa.bindparam("lease", type_=Duration()),
        lease_seconds=sa.bindparam("seconds", type_=sa.Double()),
        updated=sa.bindparam("now", type_=Timestamp()),
    )
    .returning(*COLUMNS)
)


async def renew(connection: AsyncConnection, ids: Collection[UUID], seconds: float, now: datetime) -> list[RunClaim]:
    """Let claims expire some seconds from now, by the clock of the database; return those that exist."""
    given: Mapping[str, Any] = {
        "ids": sorted(ids),
        "lease": timedelta(seconds=seconds),
        "seconds": seconds,
        "now": now,
    }
    return _claims([tuple(row) for row in await connection.execute(RENEWING, given)])


def cancelling_of(which: sa.ColumnElement[bool]) -> sa.Select[UUID]:
    """Return the query for the ids of claimed runs that are CANCELLING, of claims that meet a condition."""
    held = sa.select(FlowRun.id).join(RunClaim, RunClaim.flow_run_id == FlowRun.id)
    return held.where(which, FlowRun.state_type == StateType.CANCELLING).order_by(FlowRun.id)


def among_ids(ids: Collection[UUID]) -> sa.ColumnElement[bool]:
    """Return the condition on claims with some ids."""
    return among(RunClaim.id, sorted(ids))


def expired_claims() -> DueQuery:
    """Return the query for claims whose lease has expired by the clock of the database."""
    return DueQuery(sa.select(*COLUMNS).where(EXPIRED), (RunClaim.expires, RunClaim.id))
