"""Appending events to the log, in the transaction of what they tell."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Transaction
from runstate.database.bulk import NEW, append, inserted, table_of, write
from runstate.database.dialects import among, among_given
from runstate.database.driver import CompiledStatement, fetch, later
from runstate.documents.events import PREFIX, EventResource
from runstate.documents.exact_json import dumps
from runstate.feed import EVENTS
from runstate.rows import StoredEvent, StoredEventResource, Transition

Convert = Callable[[Any], Any]
Labels = dict[str, Any]
"""A resource as JSON, as columns hold it: `resource_id`, and `role`, `name` and `labels` if there are any."""

COLUMNS: Final = (
    "seq",
    "id",
    "name",
    "occurred",
    "received",
    "follows",
    "resource_id",
    "resource",
    "related",
    "payload",
    "cause",
)
RESOURCE_COLUMNS: Final = ("event_seq", "place", "resource_id")
COUNTER: Final = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.BigInteger))
ADVANCE: Final = (
    sa.update(COUNTER)
    .where(COUNTER.c.name == "transition")
    .values(seq=COUNTER.c.seq + sa.bindparam("count", type_=sa.BigInteger()))
    .returning(COUNTER.c.seq)
)
CAUSE: Final = ContextVar[UUID | None]("CAUSE", default=None)


@contextmanager
def caused_by(firing_id: UUID) -> Iterator[None]:
    """Let a firing be the cause of the events that the present task appends."""
    token = CAUSE.set(firing_id)
    try:
        yield
    finally:
        CAUSE.reset(token)


@dataclass(frozen=True, slots=True)
class Told:
    """An event that is to be appended."""

    id: UUID
    name: str
    occurred: datetime
    resource: Labels
    related: Sequence[Labels] = ()
    payload: Any = field(default_factory=dict)
    follows: UUID | None = None
    cause: UUID | None = None
    """Firing that led to it; by default the one whose action the present task executes."""


def resource(kind: str, id: object, name: str | None = None, *, role: str | None = None, **labels: str) -> Labels:
    """Return an object of the server as a resource: `runstate.flow.0190…`."""
    found: Labels = {"resource_id": f"{PREFIX}{kind}.{id}"}
    if role is not None:
        found["role"] = role
    if name is not None:
        found["name"] = name
    return found | ({"labels": labels} if labels else {})


async def tell(transaction: Transaction, now: datetime, events: Sequence[Told]) -> None:
    """Append events that have new ids, and notify subscribers after the commit."""
    if events:
        await append_events(transaction.connection, now, events, await numbers(transaction.connection, len(events)))
        transaction.notify(EVENTS.channel)


async def tell_once(transaction: Transaction, now: datetime, events: Sequence[Told]) -> None:
    """Append events whose ids are not in the log, as `tell`."""
    if events:
        seqs, known = await numbers_and_known(transaction.connection, len(events), [each.id for each in events])
        new = [each for each in events if each.id not in known]
        if new:
            await append_events(transaction.connection, now, new, seqs[: len(new)])
            transaction.notify(EVENTS.channel)


async def append_events(
    connection: AsyncConnection, now: datetime, events: Sequence[Told], seqs: Sequence[int]
) -> None:
    """Append events that do not exist, with these numbers. The caller notifies the channel of the log."""
    value, things = (_as_text, _as_text) if connection.dialect.name == "postgresql" else (_as_it_is, _as_documents)
    records = [(seq, *_values(each, now, value, things)) for seq, each in zip(seqs, events, strict=True)]
    await append(connection, StoredEvent, COLUMNS, records)
    if related := list(_related(events, seqs)):
        await append(connection, StoredEventResource, RESOURCE_COLUMNS, related)


async def append_event(connection: AsyncConnection, now: datetime, event: Told) -> None:
    """Append an event that has a new id. The caller notifies the channel of the log."""
    if connection.dialect.name != "postgresql":
        _append_later(connection, now, event)
    elif event.related:
        await append_events(connection, now, [event], await numbers(connection, 1))
    else:
        # The database gives the number, so this is one statement instead of two.
        row = dict(zip(COLUMNS[1:], _values(event, now, _as_it_is, _as_it_is), strict=True))
        await write(connection, [inserted(StoredEvent, [row])])


def _append_later(connection: AsyncConnection, now: datetime, event: Told) -> None:
    """Append an event on SQLite. Nobody awaits the number, so this costs no turn of the connection's thread."""
    advance, appended, referred = _appending(connection.dialect)
    values = dict(zip(COLUMNS[1:], _values(event, now, _as_it_is, _as_documents), strict=True))
    later(connection, advance.text, [advance.parameters(advance.compiled.params)])
    later(connection, appended.text, [appended.parameters(values)])
    related = [{"place": place, "resource_id": each["resource_id"]} for place, each in enumerate(event.related)]
    if related:
        later(connection, referred.text, [referred.parameters(each) for each in related])


@functools.cache
def _appending(dialect: sa.Dialect) -> list[CompiledStatement]:
    """Return the statements that take a number of the log, and that insert an event and its resources with it."""
    own = COUNTER.c.name == sa.literal_column("'transition'")
    last = sa.select(COUNTER.c.seq).where(own).scalar_subquery()
    statements: list[Any] = [sa.update(COUNTER).where(own).values(seq=COUNTER.c.seq + 1)]
    for row, (key, *columns) in ((StoredEvent, COLUMNS), (StoredEventResource, RESOURCE_COLUMNS)):
        table = table_of(row)
        given = {name: sa.bindparam(f"{NEW}{name}", type_=table.c[name].type) for name in columns}
        statements.append(sa.insert(table).values({key: last} | given))
    return [CompiledStatement(each, dialect, prefix=NEW) for each in statements]


def _values(event: Told, now: datetime, value: Convert, things: Convert) -> tuple[Any, ...]:
    """Return the values of all columns but the number. JSON values and resources are converted."""
    return (
        event.id,
        event.name,
        event.occurred,
        now,
        event.follows,
        event.resource["resource_id"],
        things(event.resource),
        things(event.related),
        value(event.payload),
        event.cause or CAUSE.get(),
    )


def _as_text(value: Any) -> str:
    return dumps(value).decode()


def _as_it_is(value: Any) -> Any:
    return value


def _as_documents(value: Any) -> Any:
    if isinstance(value, dict):
        return EventResource.model_construct(**value)
    return [EventResource.model_construct(**each) for each in value]


def _related(events: Sequence[Told], seqs: Sequence[int]) -> Iterable[tuple[int, int, str]]:
    for seq, event in zip(seqs, events, strict=True):
        for place, each in enumerate(event.related):
            yield seq, place, each["resource_id"]


async def numbers(connection: AsyncConnection, count: int) -> list[int]:
    """Return new numbers of the log, in order."""
    return (await numbers_and_known(connection, count, ()))[0]


async def numbers_and_known(
    connection: AsyncConnection, count: int, ids: Sequence[UUID]
) -> tuple[list[int], set[UUID]]:
    """Return new numbers of the log in order, and which of these ids events have already."""
    if connection.dialect.name == "postgresql":
        found = await fetch(connection, TAKEN, {"count": count, "ids": list(ids)})
        return sorted(seq for seq, _ in found if seq is not None), {known for _, known in found if known is not None}
    # The writer is alone, so nobody takes the same numbers.
    ((last,),) = await fetch(connection, ADVANCE, {"count": count})
    known = set((await connection.execute(_known(ids))).scalars()) if ids else set()
    return list(range(last - count + 1, last + 1)), known


def _known(ids: Sequence[UUID]) -> sa.CompoundSelect[Any]:
    event, transition = table_of(StoredEvent), table_of(Transition)
    return sa.union_all(
        sa.select(event.c.id).where(among(event.c.id, ids)),
        sa.select(transition.c.state_id).where(among(transition.c.state_id, ids)),
    )


def _taken() -> sa.CompoundSelect[Any]:
    event, transition = table_of(StoredEvent), table_of(Transition)
    sequence = sa.func.nextval("transition_seq_seq", type_=sa.BigInteger())
    count = sa.func.generate_series(1, sa.bindparam("count", type_=sa.Integer())).table_valued("n")
    none = sa.cast(sa.null(), sa.BigInteger())
    return sa.union_all(
        sa.select(sequence.label("seq"), sa.cast(sa.null(), sa.Uuid()).label("id")).select_from(count),
        sa.select(none, event.c.id).where(among_given(event.c.id, "ids")),
        sa.select(none, transition.c.state_id).where(among_given(transition.c.state_id, "ids")),
    )


TAKEN: Final = _taken()
