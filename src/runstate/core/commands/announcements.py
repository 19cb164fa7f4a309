"""Events about objects that commands create, change and delete, appended in the same transaction."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from runstate.core.evaluation.definitions import DEFINITION, definition_of
from runstate.core.telling import Labels, Told, append_event, resource
from runstate.database.bulk import table_of
from runstate.database.driver import fetch
from runstate.documents.events import PREFIX
from runstate.rows import Automation, Deployment, Flow, Row, WorkPool, WorkQueue
from runstate.rows.base import PRIVATE, is_marked
from runstate.rows.documents import noun

PAYLOADS: Final[dict[type[Row], tuple[str, ...]]] = {Flow: ("name", "tags", "labels")}
"""Columns of a row that all of its events have in their payload."""
CHANGED: Final = (WorkPool, WorkQueue)
"""Rows whose events name the changed columns."""


def kind_of(row: type[Row]) -> str:
    """Return the kind of an object in names of events: `work-pool`."""
    return noun(row).replace(" ", "-")


async def announce(
    connection: AsyncConnection, row: Row, what: str, now: datetime, changed: Iterable[str] = ()
) -> None:
    """Append the event that an object was created, updated or deleted, if objects of its kind have events."""
    kind = type(row)
    if not kind.__announced__:
        return
    told = Told(
        uuid7(),
        f"{PREFIX}{kind_of(kind)}.{what}",
        now,
        resource(kind_of(kind), row.id, getattr(row, "name", None)),
        await related_of(connection, row),
        payload_of(row, what, changed),
    )
    await append_event(connection, now, told)


def payload_of(row: Row, what: str, changed: Iterable[str] = ()) -> dict[str, Any]:
    """Return the payload of the event about an object. It names no private column."""
    kind = type(row)
    payload = {name: getattr(row, name) for name in PAYLOADS.get(kind, ())}
    if kind in CHANGED and what == "updated":
        columns = table_of(kind).c
        payload["updates"] = sorted(name for name in changed if not is_marked(columns[name], PRIVATE))
    if isinstance(row, Automation) and what != "deleted":
        payload[DEFINITION] = definition_of(row)
    return payload


async def related_of(connection: AsyncConnection, row: Row) -> Sequence[Labels]:
    """Return the related resources of the events about an object."""
    if isinstance(row, Deployment):
        flow = await _name(connection, Flow, row.flow_id)
        limit, queue = row.concurrency_limit_id, row.work_queue_id
        found = [resource("flow", row.flow_id, flow, role="flow")]
        found += [resource("concurrency-limit", limit, role="concurrency-limit")] if limit else []
        return found + (await _queue_and_pool(connection, queue) if queue else [])
    if isinstance(row, WorkQueue):
        return [await _pool(connection, row.work_pool_id)]
    return ()


async def _name(connection: AsyncConnection, row: type[Row], id: UUID) -> str | None:
    found = await fetch(connection, _name_of(row), {"wanted": id})
    return found[0][0] if found else None


@functools.cache
def _name_of(row: type[Row]) -> sa.Select[Any]:
    table = table_of(row)
    return sa.select(table.c.name).where(table.c.id == sa.bindparam("wanted"))


async def _queue_and_pool(connection: AsyncConnection, queue_id: UUID) -> list[Labels]:
    asked = sa.select(WorkQueue.name, WorkQueue.work_pool_id).where(WorkQueue.id == queue_id)
    found: Any = (await connection.execute(asked)).one_or_none()
    if found is None:
        return []
    queue = resource("work-queue", queue_id, found.name, role="work-queue")
    return [queue, await _pool(connection, found.work_pool_id)]


async def _pool(connection: AsyncConnection, pool_id: UUID) -> Labels:
    asked = sa.select(WorkPool.name, WorkPool.type).where(WorkPool.id == pool_id)
    found: Any = (await connection.execute(asked)).one_or_none()
    labels = {f"{PREFIX}work-pool.type": found.type} if found else {}
    return resource("work-pool", pool_id, found.name if found else None, role="work-pool", **labels)
