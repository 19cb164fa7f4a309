"""Statuses of work pools, queues and deployments follow from times. Events tell when they have changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from runstate.core.commands.announcements import kind_of, related_of
from runstate.core.telling import Told, resource, tell
from runstate.database import Transaction
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.documents.deployments import RECENT
from runstate.documents.events import PREFIX
from runstate.rows import Deployment, Row, StoredEvent, WorkPool, WorkQueue

READY, NOT_READY, PAUSED = "READY", "NOT_READY", "PAUSED"
PAGE: Final = 200
"""Maximum number of objects of a kind whose statuses one transaction tells."""
FOLLOWS: Final = timedelta(minutes=5)
"""The event of a pool follows the one before if that is not older."""


def _status(row: type[Row], now: datetime) -> sa.ColumnElement[str]:
    """Return the status of a row at a time in SQL, as far as events tell it."""
    if row is WorkPool:
        return sa.case((WorkPool.paused, PAUSED), (WorkPool.online_until >= now, READY), else_=NOT_READY)
    polled = WorkQueue.last_polled >= now - RECENT
    if row is WorkQueue:
        return sa.case((polled, READY), else_=NOT_READY)
    queue = sa.exists().where(WorkQueue.id == Deployment.work_queue_id, polled)
    return sa.case(((Deployment.last_polled >= now - RECENT) | queue, READY), else_=NOT_READY)


async def tell_statuses(
    transaction: Transaction, row: type[WorkPool | WorkQueue | Deployment], now: datetime, *which: Any
) -> list[UUID]:
    """Tell of objects that meet conditions whose status is another one than was told; return their ids, at most 200."""
    table, connection, status = table_of(row), transaction.connection, _status(row, now)
    changed = status != sa.func.coalesce(table.c.told_status, NOT_READY)
    asked = sa.select(*table.c, status.label("status")).where(changed, *which).order_by(table.c.id).limit(PAGE)
    # Skipped: another server that has locked them tells of them.
    found = (await connection.execute(asked.with_for_update(skip_locked=True, of=table))).all()
    for name in sorted({each.status for each in found}):
        ids = [each.id for each in found if each.status == name]
        await connection.execute(sa.update(table).where(among(table.c.id, ids)).values(told_status=name))
    told = [await _told(connection, row.of(each._mapping), each.status, now) for each in found]  # type: ignore[arg-type] # noqa: SLF001
    await tell(transaction, now, told)
    return [each.id for each in found]


async def _told(connection: AsyncConnection, row: Row, status: str, now: datetime) -> Told:
    kind = kind_of(type(row))
    about: dict[str, Any] = resource(kind, row.id, getattr(row, "name", None))
    follows = await _previous(connection, about["resource_id"], kind, now) if isinstance(row, WorkPool) else None
    name = f"{PREFIX}{kind}.{status.lower().replace('_', '-')}"
    return Told(uuid7(), name, now, about, await related_of(connection, row), follows=follows)


async def _previous(connection: AsyncConnection, resource_id: str, kind: str, now: datetime) -> UUID | None:
    event = table_of(StoredEvent)
    names = [f"{PREFIX}{kind}.{each}" for each in ("ready", "not-ready", "paused")]
    asked = sa.select(event.c.id).where(
        event.c.resource_id == resource_id, event.c.occurred > now - FOLLOWS, event.c.name.in_(names)
    )
    found: UUID | None = await connection.scalar(asked.order_by(event.c.occurred.desc(), event.c.seq.desc()).limit(1))
    return found


async def tell_polled(transaction: Transaction, queues: Sequence[UUID], now: datetime) -> None:
    """Tell which of some queues have become ready, with their deployments."""
    ready = await tell_statuses(transaction, WorkQueue, now, among(WorkQueue.id, sorted(queues)))
    if ready:
        await tell_statuses(transaction, Deployment, now, among(Deployment.work_queue_id, ready))
