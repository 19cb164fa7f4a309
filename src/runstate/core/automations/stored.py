"""Events of the database as triggers see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.automations.chains import MEMORY, Chain, Reaction
from runstate.core.automations.events import Event
from runstate.core.telling import Told
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.documents.events import EventResource
from runstate.rows import AutomationFiring
from runstate.rows import Event as StoredEvent

COLUMNS: Final = (*("seq", "id", "name", "occurred", "received", "follows", "resource", "related", "payload", "cause"),)
NONE: Final[Mapping[UUID, Chain]] = MappingProxyType({})


def of_row(row: Any, chains: Mapping[UUID, Chain] = NONE) -> Event:
    """Return a row of the view of all events."""
    return Event(
        id=row.id,
        name=row.name,
        occurred=row.occurred,
        received=row.received,
        resource=labels_of(row.resource),
        related=tuple(map(labels_of, row.related)),
        follows=row.follows,
        position=row.seq,
        chain=chains.get(row.cause),
        payload=row.payload,
    )


def of_told(told: Told, received: datetime, position: int) -> Event:
    """Return an event that is to be appended."""
    return Event(
        id=told.id,
        name=told.name,
        occurred=told.occurred,
        received=received,
        resource=_labels(told.resource),
        related=tuple(map(_labels, told.related)),
        follows=told.follows,
        position=position,
        payload=told.payload,
    )


def labels_of(resource: EventResource) -> dict[str, str]:
    """Return all labels of a resource, those with fields of their own included."""
    return _labels(resource.model_dump())


def _labels(resource: Mapping[str, Any]) -> dict[str, str]:
    found = {"resource.id": resource["resource_id"]}
    found |= {f"resource.{name}": resource[name] for name in ("name", "role") if resource.get(name) is not None}
    return found | (resource.get("labels") or {})


async def chains_of(connection: AsyncConnection, causes: Iterable[UUID | None]) -> dict[UUID, Chain]:
    """Return the chains that end with firings, by their ids. Firings that retention has deleted have none."""
    table, ids = table_of(AutomationFiring), sorted({each for each in causes if each})
    if not ids:
        return {}
    asked = sa.select(table.c.id, table.c.root_id, table.c.chain, table.c.automation_id).where(among(table.c.id, ids))
    return {
        row.id: Chain(row.root_id, row.id, (*map(UUID, row.chain), row.automation_id))
        for row in await connection.execute(asked)
        if row.root_id
    }


async def reactions_at(connection: AsyncConnection, now: datetime) -> Sequence[Reaction]:
    """Return the reactions that count at a time."""
    table = table_of(AutomationFiring)
    names = ("fired", "automation_id", "root_id", "cause", "chain")
    recent = sa.and_(table.c.fired > now - MEMORY, table.c.cause.is_not(None))
    asked = sa.select(*(table.c[name] for name in names)).where(recent).order_by(table.c.fired)
    return [
        Reaction(row.fired, row.automation_id, Chain(row.root_id, row.cause, tuple(map(UUID, row.chain))))
        for row in await connection.execute(asked)
    ]


async def find_event(connection: AsyncConnection, id: UUID) -> Event | None:
    """Return an event by its id."""
    found = await _read(connection, StoredEvent.id == id, 1)
    return found[0] if found else None


async def events_with(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Event]:
    """Return the events with ids that exist, by id."""
    found = await _read(connection, among(StoredEvent.id, sorted(set(ids))), len(ids)) if ids else ()
    return {each.id: each for each in found}


async def events_received(connection: AsyncConnection, since: datetime, until: datetime, most: int) -> Sequence[Event]:
    """Return the events that arrived in a time, in the order of the log, at most so many."""
    return await _read(connection, StoredEvent.received.between(since, until), most)


async def _read(connection: AsyncConnection, which: sa.ColumnElement[bool], most: int) -> Sequence[Event]:
    table = StoredEvent.__table__
    asked = sa.select(*(table.c[name] for name in COLUMNS)).where(which).order_by(table.c.seq).limit(most)
    return [of_row(row) for row in await connection.execute(asked)]
