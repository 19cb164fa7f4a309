"""Workers: heartbeats."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field

from runstate.core.commands.command import command
from runstate.core.commands.crud import change, fresh, insert_or_find, remove
from runstate.core.commands.statuses import tell_polled, tell_statuses
from runstate.core.commands.work_pools import lock_pool
from runstate.core.context import CommandContext
from runstate.database import Transaction
from runstate.database.queries.work import mark_polled
from runstate.documents.base import Document, JsonObject, Name
from runstate.documents.pools import MISSED, WorkerMetadata, WorkerName
from runstate.errors import NotFound
from runstate.rows import RunClaim, Worker, WorkPool

INTERVAL: Final = 30.0
"""Interval of the heartbeats of a worker that is known from its claims only, in seconds."""


class WorkerHeartbeat(Document):
    """A heartbeat of a worker."""

    work_pool: Name = Field(description="Name of the pool.")
    worker: WorkerName = Field(description="Name of the worker, unique within the pool, not blank.")
    interval_seconds: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = Field(
        default=30, description="Interval of heartbeats in seconds, 1 to 86400."
    )
    metadata: JsonObject | None = Field(
        default=None,
        description="Properties of the worker: an object; `integrations` is a list of names and versions.",
    )


class PollNames(NamedTuple):
    """A pool and a worker by their names."""

    work_pool: str
    worker: str


class Heartbeat(NamedTuple):
    """The worker and its pool as written."""

    worker: Worker
    pool: WorkPool


@command(Worker, notify=None)
async def heartbeat(context: CommandContext, document: WorkerHeartbeat) -> Heartbeat:
    """Create or update a worker; its pool is online for three intervals."""
    seen: dict[str, Any] = {"heartbeat_interval_seconds": document.interval_seconds}
    if document.metadata is not None:
        seen["reported"] = _metadata(document.metadata)
    async with context.database.write() as transaction:
        return await _seen(context, transaction, document.work_pool, document.worker, seen)


async def _seen(
    context: CommandContext, transaction: Transaction, pool_name: str, name: str, columns: dict[str, Any]
) -> Heartbeat:
    """Create or update a worker; without an interval, it keeps its own."""
    connection, now = transaction.connection, context.clock()
    pool = await lock_pool(connection, WorkPool.name == pool_name, pool_name)
    seen = columns | {"last_heartbeat_time": now}
    new = fresh(context) | {"heartbeat_interval_seconds": INTERVAL} | seen | {"work_pool_id": pool.id, "name": name}
    found = await insert_or_find(connection, Worker, new, ("work_pool_id", "name"))
    worker = found.row
    if not found.created:
        worker = await change(connection, Worker, {"id": worker.id}, seen, now) or worker
    until = now + MISSED * timedelta(seconds=worker.heartbeat_interval_seconds)
    return Heartbeat(worker, await _online(transaction, pool, until, now))


@command(Worker, notify=None)
async def mark_poll(context: CommandContext, names: PollNames, queues: Collection[UUID]) -> Worker:
    """Record that a worker asked for runs of some queues; return the worker."""
    async with context.database.write() as transaction:
        beat = await _seen(context, transaction, names.work_pool, names.worker, {})
        await mark_polled(transaction.connection, queues, context.clock())
        await tell_polled(transaction, list(queues), context.clock())
    return beat.worker


async def _online(transaction: Transaction, pool: WorkPool, until: datetime, now: datetime) -> WorkPool:
    # Another worker keeps the pool online for longer: nothing is written for most heartbeats.
    if pool.online_until is not None and pool.online_until >= until:
        return pool
    starts = pool.online_until is None or pool.online_until < now
    columns = {"online_until": until} | ({"status_changed": now} if starts else {})
    table = sa.update(WorkPool).where(WorkPool.id == pool.id).values(**columns)
    await transaction.connection.execute(table)
    if starts:
        await tell_statuses(transaction, WorkPool, now, WorkPool.id == pool.id)
    return pool.replace(**columns)


def _metadata(given: dict[str, Any]) -> WorkerMetadata:
    """Return what a worker reported; integrations of another form are kept with the other properties."""
    try:
        return WorkerMetadata(
            integrations=given.get("integrations", []),
            other={key: value for key, value in given.items() if key != "integrations"},
        )
    except ValueError:
        return WorkerMetadata(other=given)


@command(Worker)
async def remove_worker(context: CommandContext, worker_id: UUID) -> bool:
    """Delete a worker unless it holds claims, and return whether it is deleted.

    Its pool is online as long as its other workers are.
    """
    async with context.database.write() as transaction:
        connection = transaction.connection
        asked = sa.select(Worker.work_pool_id).where(Worker.id == worker_id)
        pool_id = (await connection.execute(asked)).scalar()
        if pool_id is None:
            raise NotFound(worker_id)
        # Nobody claims runs of a locked pool.
        await lock_pool(connection, WorkPool.id == pool_id, worker_id)
        if await connection.scalar(sa.select(RunClaim.id).where(RunClaim.worker_id == worker_id).limit(1)):
            return False
        await remove(connection, Worker, worker_id, context.clock())
        others = sa.select(Worker.last_heartbeat_time, Worker.heartbeat_interval_seconds)
        found = await connection.execute(others.where(Worker.work_pool_id == pool_id))
        until = max((last + MISSED * timedelta(seconds=interval) for last, interval in found), default=None)
        await connection.execute(sa.update(WorkPool).where(WorkPool.id == pool_id).values(online_until=until))
        await tell_statuses(transaction, WorkPool, context.clock(), WorkPool.id == pool_id)
        return True
