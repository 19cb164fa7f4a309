"""The due runs of pools whose workers wait, and the record of polls."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.bulk import table_of
from runstate.database.dialects import DatabaseTime, among, among_given
from runstate.database.driver import fetch
from runstate.database.queries.claimable import FULL, HOLDS, SCHEDULED, due
from runstate.rows import Deployment, FlowRun, WorkPool, WorkQueue

MOST_COUNTED: Final = 200
"""Due runs of a queue that are counted."""
MARKED_EVERY: Final = timedelta(seconds=10)
"""Shortest time between two records of polls of a queue."""


@dataclass(frozen=True, slots=True)
class QueueWork:
    """The due runs of a queue within its limit."""

    id: UUID
    name: str
    due: int
    next_due: datetime | None


@dataclass(frozen=True, slots=True)
class PoolWork:
    """The due runs of a pool: its free slots, and its queues."""

    name: str
    free: int
    now: datetime
    """Time of the database."""
    queues: tuple[QueueWork, ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of its queues."""
        return frozenset(each.name for each in self.queues)

    def ids(self, names: Collection[str]) -> list[UUID]:
        """Return the ids of queues by name."""
        return [each.id for each in self.queues if each.name in names]

    def available(self, names: Collection[str] | None) -> tuple[int, datetime | None]:
        """Return the number of runs of some queues that can be claimed, and the time of the next one."""
        chosen = [each for each in self.queues if names is None or each.name in names]
        number = min(sum(each.due for each in chosen), self.free, MOST_COUNTED)
        return number, min((each.next_due for each in chosen if each.next_due), default=None)


MINE: Final = (
    FlowRun.work_queue_id == WorkQueue.id,
    FlowRun.deployment_id.is_(None) | FlowRun.deployment_id.not_in(FULL),
)
# Bounded: whether 200 or a million runs are due makes no difference to those that wait.
SOME: Final = sa.select(FlowRun.id).where(*MINE, due(DatabaseTime())).limit(MOST_COUNTED).correlate(WorkQueue)
LATER: Final = sa.select(sa.func.min(FlowRun.next_scheduled_start_time)).where(
    FlowRun.work_queue_id == WorkQueue.id, SCHEDULED, FlowRun.next_scheduled_start_time > DatabaseTime()
)
USED: Final = sa.select(sa.func.count(FlowRun.id)).where(FlowRun.work_queue_id == WorkQueue.id, HOLDS)
# Running runs are counted only where a limit needs their number.
LIMITED: Final = WorkQueue.concurrency_limit.is_not(None) | WorkPool.concurrency_limit.is_not(None)
WORK: Final = (
    sa.select(
        WorkPool.name,
        WorkPool.paused,
        WorkPool.concurrency_limit,
        DatabaseTime(),
        WorkQueue.id,
        WorkQueue.name,
        WorkQueue.paused,
        WorkQueue.concurrency_limit,
        sa.select(sa.func.count()).select_from(SOME.subquery()).correlate(WorkQueue).scalar_subquery(),
        LATER.correlate(WorkQueue).scalar_subquery(),
        sa.case((LIMITED, USED.correlate(WorkQueue).scalar_subquery()), else_=0),
    )
    .join(WorkQueue, WorkQueue.work_pool_id == WorkPool.id)
    .where(among_given(WorkPool.name, "pools"))
    .order_by(WorkPool.name, WorkQueue.priority, WorkQueue.id)
)


async def read_work(connection: AsyncConnection, pools: Sequence[str]) -> list[PoolWork]:
    """Return the due runs of pools by name."""
    rows: dict[str, list[Sequence[Any]]] = {}
    for row in await fetch(connection, WORK, {"pools": list(pools)}):
        rows.setdefault(row[0], []).append(row)
    return [_pool(each) for each in rows.values()]


def _pool(rows: Sequence[Sequence[Any]]) -> PoolWork:
    name, paused, limit, now = rows[0][:4]
    used = sum(row[-1] for row in rows)
    free = 0 if paused else MOST_COUNTED if limit is None else max(0, limit - used)
    return PoolWork(name, free, now, tuple(_queue(*row[4:]) for row in rows))


def _queue(*row: Any) -> QueueWork:
    key, name, paused, limit, number, next_due, used = row
    free = 0 if paused else number if limit is None else max(0, limit - used)
    return QueueWork(key, name, min(number, free), next_due)


async def mark_polled(
    connection: AsyncConnection, ids: Collection[UUID], now: datetime, row: type[WorkQueue | Deployment] = WorkQueue
) -> None:
    """Record that queues or deployments were polled, unless that was recorded seconds ago."""
    table = table_of(row)
    # A hundred workers that poll a queue must not all update its row.
    stale = table.c.last_polled.is_(None) | (table.c.last_polled < now - MARKED_EVERY)
    marked = sa.update(table).where(among(table.c.id, sorted(ids)), stale)
    await connection.execute(marked.values(last_polled=now))
