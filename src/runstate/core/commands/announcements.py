"""Events about objects that commands create, change and delete, appended in the same transaction."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from runstate.core.evaluation.definitions import DEFINITION, definition_of
from runstate.core.telling import CAUSE, Labels, Told, append_event, resource
from runstate.database.bulk import table_of
from runstate.database.driver import fetch
from runstate.documents.events import PREFIX
from runstate.rows import Automation, Deployment, Flow, Row, StoredEvent, WorkPool, WorkQueue
from runstate.rows.base import PRIVATE, is_marked
from runstate.rows.documents import noun

PAYLOADS: Final[dict[type[Row], tuple[str, ...]]] = {Flow: ("name", "tags", "labels")}
"""Columns of a row that all of its events have in their payload."""
CHANGED: Final = (WorkPool, WorkQueue)
"""Rows whose events name the changed columns."""
COMPOSED: Final = (Automation, Deployment, WorkQueue)
"""Rows whose events contain more than the row itself."""


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
        payload["updates"] = _shown(kind, changed)
    if isinstance(row, Automation) and what != "deleted":
        payload[DEFINITION] = definition_of(row)
    return payload


def is_told_at_once(connection: AsyncConnection, row: type[Row]) -> bool:
    """Return whether the statement that writes a row can append the event about it, which saves a round trip."""
    return row.__announced__ and row not in COMPOSED and connection.dialect.name == "postgresql"


def telling(row: type[Row], what: str, statement: Any) -> sa.Select[Any]:
    """Return a statement that also appends the event about the row that *statement* returns, for PostgreSQL."""
    written = statement.cte("written")
    event = _event_about(row, what, written).cte("told")
    return sa.select(*written.c).add_cte(event)


def _event_about(row: type[Row], what: str, written: Any) -> sa.Insert:
    event, kind = table_of(StoredEvent), kind_of(row)
    resource_id = sa.literal(f"{PREFIX}{kind}.") + sa.cast(written.c.id, sa.Text)
    thing = {"resource_id": resource_id} | ({"name": written.c.name} if "name" in written.c else {})
    payload = {name: written.c[name] for name in PAYLOADS.get(row, ())}
    if row in CHANGED and what == "updated":
        payload["updates"] = sa.bindparam("told_updates", type_=event.c.payload.type)
    now = sa.bindparam("told_at", type_=event.c.received.type)
    values = {
        "id": sa.bindparam("told_id", type_=event.c.id.type),
        "name": sa.literal(f"{PREFIX}{kind}.{what}"),
        "occurred": now,
        "received": now,
        "resource_id": resource_id,
        "resource": _object(thing),
        "related": sa.literal_column("'[]'::jsonb"),
        "payload": _object(payload),
        "cause": sa.bindparam("told_cause", type_=event.c.cause.type),
    }
    return sa.insert(event).from_select(list(values), sa.select(*values.values()).select_from(written))


def _object(members: dict[str, Any]) -> Any:
    pairs = chain.from_iterable((sa.literal_column(f"'{name}'"), value) for name, value in members.items())
    return sa.func.jsonb_build_object(*pairs)


def told_values(row: type[Row], now: datetime, changed: Iterable[str] = ()) -> dict[str, Any]:
    """Return the parameters of a statement that appends an event."""
    return {"told_id": uuid7(), "told_at": now, "told_cause": CAUSE.get(), "told_updates": _shown(row, changed)}


def _shown(row: type[Row], changed: Iterable[str]) -> list[str]:
    columns = table_of(row).c
    return sorted(name for name in changed if not is_marked(columns[name], PRIVATE))


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
