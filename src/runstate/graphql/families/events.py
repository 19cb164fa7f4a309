"""Events: event, events, eventCounts, eventHistory, emitEvents, and the subscription events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Annotated, Any, Final

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.core.commands import events as commands
from runstate.database.event_conditions import is_of, is_related_to, json_text
from runstate.database.queries.intervals import Intervals
from runstate.documents.access import Scope
from runstate.documents.events import PREFIX, EmitEvents, NewEvent, NewEventResource
from runstate.errors import InvalidInput
from runstate.feed import EVERYTHING, Feed, Hub, Page, follow
from runstate.graphql.context import Info
from runstate.graphql.families.event_conditions import EventMatch
from runstate.graphql.families.family import Family, by_id
from runstate.graphql.families.mutations import mutation
from runstate.graphql.pagination.connection import Connection, rows_of
from runstate.graphql.pagination.keyset import DEFAULT_SIZE, LARGEST_SIZE, PageArguments
from runstate.graphql.pagination.sizes import checked_size
from runstate.graphql.published import Event, FlowRun
from runstate.graphql.types.conditions import is_set
from runstate.graphql.types.derive import extends, register_type
from runstate.graphql.types.fields import field, object_type, query, subscription
from runstate.graphql.types.filters import Extra, Where
from runstate.graphql.types.inputs import Input, register_input

TABLE: Final = Event.__table__
MOST_GROUPS: Final = 1_000
ONE_PER: Final = "True to list only the event of each resource that is first in the order."

register_input(NewEvent, name="EventInput")
register_input(NewEventResource, name="EventResourceInput")
register_input(EventMatch, name="EventMatchInput")

FAMILY = Family(
    Event,
    {
        "event": by_id(Event),
        "events": rows_of(
            Event,
            "All events that meet a condition; those that occurred last come first by default.",
            one_per_resource=Extra(bool, ONE_PER, lambda *_: sa.true(), default=False, one_per="resource_id"),
        ),
    },
    {},
)


SIZE = strawberry.argument(description=f"The number of events: from 1 to {LARGEST_SIZE}, by default {DEFAULT_SIZE}.")
AFTER = strawberry.argument(description="Only events after this cursor.")
WHERE = strawberry.argument(description="A condition; by default all events.")


@extends(FlowRun, needs=(), size=DEFAULT_SIZE)
async def events(
    root: strawberry.Parent[FlowRun],
    info: Info,
    where: Annotated[Where[Event] | None, WHERE] = UNSET,
    first: Annotated[int | None, SIZE] = UNSET,
    after: Annotated[str | None, AFTER] = UNSET,
) -> Connection[Event]:
    """Events of the run, and those that it is related to; those that occurred last come first."""
    own = partial(_of_run, f"{PREFIX}flow-run.{root.id}")
    arguments: PageArguments[Any] = PageArguments(where=where, first=first, after=after, conditions=[own])
    return info.context.page(info, Event, arguments)


def _of_run(resource_id: str, table: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.or_(is_of(table, [resource_id]), is_related_to(table, [resource_id]))


class EventCountBy(Enum):
    """The value by which events are counted."""

    NAME = "NAME"
    """Name of the event."""
    RESOURCE = "RESOURCE"
    """Resource of the event."""


register_type(EventCountBy)


@object_type
class EventCount:
    """A group of events."""

    count: int = strawberry.field(description="Number of events.")
    first: datetime = strawberry.field(description="Time at which the first of them occurred.")
    label: str = strawberry.field(
        description="Text for people: name of the events; or of the resource in the newest of them, else its id."
    )
    last: datetime = strawberry.field(description="Time at which the last of them occurred.")
    value: str = strawberry.field(description="Name of the events, or id of the resource.")


@object_type
class EventInterval:
    """The events of an interval."""

    count: int = strawberry.field(description="Number of events.")
    end: datetime = strawberry.field(description="Start of the next interval.")
    start: datetime = strawberry.field(description="Start of the interval.")


@object_type
class EmitEventsPayload:
    """The appended events."""

    duplicate_ids: list[strawberry.ID] = strawberry.field(
        description="Ids that existed already, so that nothing was written for them."
    )
    ids: list[strawberry.ID] = strawberry.field(description="Id of each event, in the place of the event.")

    @field
    async def cursor(self, info: Info) -> str:
        """A cursor behind these events, for `events(after:)`."""
        return await _hub(info).end_cursor()


@object_type
class EventBatch:
    """Events, in the order of the log for each resource, and the cursor after them."""

    cursor: str = strawberry.field(description="Cursor to continue after this batch, on any server.")
    events: list[Event] = strawberry.field(description="At most 100; empty if there were none for a while.")


Which = Annotated[Where[Event] | None, strawberry.argument(description="A condition; by default all events.")]
By = Annotated[EventCountBy, strawberry.argument(description="The value by which they are counted.")]
First = Annotated[int, strawberry.argument(description=f"Maximum number of groups, from 1 to {MOST_GROUPS}.")]
Since = Annotated[datetime, strawberry.argument(description="Only events at this time or later.")]
Until = Annotated[datetime, strawberry.argument(description="Only events up to this time, inclusive.")]
Length = Annotated[float, strawberry.argument(description="Length of an interval in seconds, at least 0.01.")]
New = Annotated[Input[EmitEvents], strawberry.argument(description="The events.")]
After = Annotated[str | None, strawberry.argument(description="Only events after this cursor; by default new ones.")]
Match = Annotated[Input[EventMatch] | None, strawberry.argument(description="By default all events.")]


@strawberry.type
class Query:
    """Numbers of events."""

    @query
    async def event_counts(self, info: Info, by: By, where: Which = UNSET, first: First = 200) -> list[EventCount]:
        """Numbers of events by name or by resource: largest first, then by label and value."""
        found = await info.context.fetch(_counts(by, _clause(where), checked_size(first, MOST_GROUPS)))
        return [
            EventCount(value=value, label=label, count=count, first=start, last=end)
            for value, label, count, start, end in found
        ]

    @query
    async def event_history(
        self, info: Info, since: Since, until: Until, interval_seconds: Length, where: Which = UNSET
    ) -> list[EventInterval]:
        """Numbers of events by the time at which they occurred, for each interval, including empty ones; at most 1,000.

        Intervals lie on a fixed grid: one begins at 2024-04-01T00:00:00Z, a Monday. The first contains `since`.
        """
        over = Intervals.on_grid(since, until, interval_seconds)
        counted = dict(await info.context.fetch(_history(over, since, until, _clause(where))))
        return [
            EventInterval(start=start, end=end, count=counted.get(place, 0)) for place, (start, end) in enumerate(over)
        ]


@strawberry.type
class Mutation:
    """Appending events."""

    @mutation(Scope.PROPOSE, InvalidInput)
    async def emit_events(self, info: Info, input: New) -> EmitEventsPayload:
        """Append 1 to 1,000 events to the log, in order: all or none. An event with an existing id is left as it is."""
        found = await commands.emit_events(info.context.commands, input.checked())
        return EmitEventsPayload(
            ids=[strawberry.ID(str(each)) for each in found.ids],
            duplicate_ids=[strawberry.ID(str(each)) for each in found.duplicates],
        )


@strawberry.type
class Subscription:
    """New events."""

    @subscription
    async def events(self, info: Info, match: Match = UNSET, after: After = UNSET) -> AsyncGenerator[EventBatch, None]:
        """Committed events that match, each exactly once along a chain of cursors, in the order of each resource's log.

        By default only new events are sent; with `after`, first those since the cursor. The first batch is sent at once
        and may be empty. Without events, an empty batch is sent at least every 30 seconds. Transitions and events are
        one log: cursors of `transitionCursor`, `transitions` and `emitEvents` are valid here, too.
        """
        wanted = match.checked().filter() if is_set(match) and match else EVERYTHING
        pages = await follow(_hub(info), wanted, after if is_set(after) else None)
        return _batches(info, pages)


def _clause(where: Any) -> sa.ColumnElement[bool]:
    clause: sa.ColumnElement[bool] = where.clause(TABLE) if is_set(where) else sa.true()
    return clause


def _counts(by: EventCountBy, clause: sa.ColumnElement[bool], first: int) -> sa.Select[Any]:
    if by is EventCountBy.NAME:
        source: Any = TABLE
        value: Any = TABLE.c.name
        label: Any = value
        base = sa.select(value, label.label("label"), *_measures(TABLE)).where(clause).group_by(value)
    else:
        source = _named(clause)
        value = source.c.resource_id
        label = sa.func.coalesce(sa.func.max(source.c.newest), value)
        base = sa.select(value, label.label("label"), *_measures(source)).group_by(value)
    return base.order_by(sa.text("count DESC"), sa.text("label"), value).limit(first)


def _measures(source: Any) -> list[Any]:
    occurred = source.c.occurred
    return [sa.func.count().label("count"), sa.func.min(occurred), sa.func.max(occurred)]


def _named(clause: sa.ColumnElement[bool]) -> sa.Subquery:
    """Select events with the name of their resource in the newest one."""
    name = json_text(TABLE.c.resource, ["name"])
    order = [TABLE.c.occurred.desc(), TABLE.c.seq.desc()]
    # Names change; the newest one is what people look for.
    place = sa.func.row_number().over(partition_by=TABLE.c.resource_id, order_by=order).label("place")
    ranked = sa.select(TABLE.c.resource_id, TABLE.c.occurred, name.label("name"), place).where(clause).subquery()
    newest = sa.case((ranked.c.place == 1, ranked.c.name)).label("newest")
    return sa.select(ranked.c.resource_id, ranked.c.occurred, newest).subquery()


def _history(over: Intervals, since: datetime, until: datetime, clause: sa.ColumnElement[bool]) -> sa.Select[int, int]:
    occurred = TABLE.c.occurred
    within = [occurred >= sa.literal(since, occurred.type), occurred <= sa.literal(until, occurred.type)]
    place = over.place(occurred).label("place")
    return sa.select(place, sa.func.count()).where(*within, clause).group_by(sa.text("place"))


def _hub(info: Info) -> Hub[Event]:
    feed: Feed = info.context.feed
    return feed.events


async def _batches(info: Info, pages: AsyncGenerator[Page[Event], None]) -> AsyncGenerator[EventBatch, None]:
    encode = _hub(info).reader.encode
    async with aclosing(pages):
        async for page in pages:
            # Each event of a subscription reads anew, and must not keep what the one before has read.
            info.context.forget()
            yield EventBatch(cursor=encode(page.cursor), events=page.entries)
