"""Events that clients read: pages, and a socket with new ones."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
import sqlalchemy as sa
from pydantic import BaseModel, Field, ValidationError
from starlette.websockets import WebSocket

from runstate.core.access.credentials import Principal
from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.driver import fetch
from runstate.database.queries.orchestration import all_of
from runstate.documents.access import Scope
from runstate.documents.events import PREFIX
from runstate.errors import InvalidInput
from runstate.feed import Feed, follow
from runstate.prefect import presentation
from runstate.prefect.bodies import Body
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.event_filters import EventFilter
from runstate.prefect.sockets import socket
from runstate.prefect.streaming import stream
from runstate.prefect.vocabulary import event
from runstate.rows import Event, TaskRunState

TABLE: Final = table_of(Event)
LARGEST: Final = 50
MOST_COUNTED: Final = 10_000
"""Number of events up to which a page tells the total."""
BACKFILL: Final = 1_000
"""Largest number of events that a subscriber gets from the time before it came."""


class Place(BaseModel):
    """The last event of a page."""

    occurred: datetime
    id: UUID


class Wanted(Body):
    """A page of events."""

    filter: EventFilter = EventFilter()
    limit: Annotated[int, Field(ge=0, le=LARGEST)] = LARGEST
    after: Place | None = None


@endpoint("POST", "/events/filter", Scope.READ)
async def first_page(call: Call, body: Wanted) -> Any:
    """Return a page of events with the address of the next one."""
    return await _page(call, body)


@endpoint("GET", "/events/filter/next", Scope.READ)
async def next_page(call: Call) -> Any:
    """Return the page that an earlier one has named."""
    try:
        body = Wanted.model_validate(orjson.loads(urlsafe_b64decode(call.query("page-token") or "")))
    except (ValueError, ValidationError):
        raise InvalidInput("The token of the page is malformed.", ("page-token",)) from None
    return await _page(call, body)


async def _page(call: Call, body: Wanted) -> Any:
    clauses = list(body.filter.clauses())
    found = await _read(call.database, _rows(clauses, body.filter.order, body.limit + 1, body.after))
    shown = found[: body.limit]
    more = len(found) > len(shown) and shown
    following = body.model_copy(update={"after": Place(occurred=shown[-1].occurred, id=shown[-1].id)}) if more else None
    return {
        "events": [event(each) for each in shown],
        "total": await _count(call.database, clauses),
        "next_page": following and _address(call, following),
    }


def _address(call: Call, body: Wanted) -> str:
    token = urlsafe_b64encode(body.model_dump_json(exclude_none=True).encode()).decode()
    here = call.request.url
    path = here.path.rstrip("/").removesuffix("/next")
    return str(here.replace(path=f"{path}/next", query=f"page-token={token}"))


def _rows(clauses: list[Any], order: str, limit: int, after: Place | None = None) -> sa.Select[Any]:
    keys = [TABLE.c.occurred, TABLE.c.id]
    if after is not None:
        values = [sa.literal(value, key.type) for value, key in zip((after.occurred, after.id), keys, strict=True)]
        here, there = sa.tuple_(*keys), sa.tuple_(*values)
        clauses = [*clauses, here > there if order == "ASC" else here < there]
    directed = [key.asc() if order == "ASC" else key.desc() for key in keys]
    return sa.select(*TABLE.columns).where(*clauses).order_by(*directed).limit(limit)


async def _read(database: Database, asked: sa.Select[Any]) -> list[Event]:
    names = [str(column.key) for column in TABLE.columns]
    async with database.query(asked) as connection:
        return [Event.of(dict(zip(names, each, strict=True))) for each in await fetch(connection, asked)]


async def _count(database: Database, clauses: list[Any]) -> int:
    some = sa.select(TABLE.c.id).where(*clauses).limit(MOST_COUNTED).subquery()
    counted = sa.select(sa.func.count()).select_from(some)
    async with database.query(counted) as connection:
        ((number,),) = await fetch(connection, counted)
    return int(number)


class Subscription(Body):
    """The message with which a client subscribes."""

    type: Literal["filter"]
    filter: EventFilter
    backfill: bool = True


@socket("/events/out", Scope.READ)
async def send(websocket: WebSocket, _: Principal) -> None:
    """Send events: first those that have occurred since the time in the filter, then new ones."""
    await stream(websocket, Subscription, _stream)


async def _stream(websocket: WebSocket, wanted: Subscription) -> None:
    feed: Feed = websocket.app.state.feed
    # New events are collected before the earlier ones are read, so that none is missed. The client drops repetitions.
    async with aclosing(await follow(feed.events, wanted.filter)) as pages:
        first = await anext(pages)
        if wanted.backfill:
            await _send_earlier(websocket, list(wanted.filter.clauses()))
        await _send(websocket, first.entries)
        async for page in pages:
            await _send(websocket, page.entries)


async def _send_earlier(websocket: WebSocket, clauses: list[Any]) -> None:
    """Send the last events there are, oldest first: a few at once, because each can be large."""
    database: Database = websocket.app.state.database
    before = await _read(database, _rows(clauses, "DESC", 1).offset(BACKFILL))
    for _ in range(BACKFILL // LARGEST):
        after = Place(occurred=before[-1].occurred, id=before[-1].id) if before else None
        before = await _read(database, _rows(clauses, "ASC", LARGEST, after))
        await _send(websocket, before)
        if len(before) < LARGEST:
            break


async def _send(websocket: WebSocket, entries: Sequence[Event]) -> None:
    states = await _states(websocket.app.state.database, entries)
    for each in entries:
        shown = event(each)
        if each.id in states:
            shown["payload"] = {**each.payload, "validated_state": presentation.state(states[each.id])}
        await websocket.send_text(presentation.as_json({"type": "event", "event": shown}).decode())


async def _states(database: Database, entries: Sequence[Event]) -> dict[UUID, TaskRunState]:
    """Return the states of task runs that events tell of: clients that wait for a task run read its result there."""
    ids = sorted(each.id for each in entries if each.run_id and each.name.startswith(f"{PREFIX}task-run."))
    if not ids:
        return {}
    asked = sa.select(*table_of(TaskRunState).columns).where(among(TaskRunState.id, ids))
    async with database.subscriptions.read() as connection:
        return {each.id: each for each in await all_of(connection, TaskRunState, asked)}
