"""Events of clients: validation, and appending each id once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from runstate.core.commands.command import TRIES, command
from runstate.core.context import CommandContext
from runstate.core.evaluation.definitions import CHANGES
from runstate.core.telling import Labels, Told, append_events, numbers_and_known
from runstate.documents.base import storable_json, storable_text
from runstate.documents.events import EmitEvents, NewEvent, NewEventResource
from runstate.errors import InvalidInput
from runstate.feed import EVENTS
from runstate.rows import StoredEvent

LONGEST_NAME: Final = 1_024
MOST_LABELS: Final = 500
MOST_RELATED: Final = 100
OWN_FIELDS: Final = frozenset({"resource.id", "resource.role", "resource.name"})
"""Labels that have a field of their own."""


class Emitted(NamedTuple):
    """The result of appending events."""

    ids: list[UUID]
    """Id of each event, in the order of the input."""
    duplicates: list[UUID]
    """Ids that existed, so that nothing was written for them."""


class Misplaced(Exception):
    """A value of an event cannot be stored."""

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.path = path


@command(StoredEvent, notify=None)  # type: ignore[arg-type]  # only its table is used
async def emit_events(context: CommandContext, document: EmitEvents) -> Emitted:
    """Append events in order and in one transaction, each id once. Raise InvalidInput with the path of a mistake."""
    now = context.clock()
    told = list(checked(document.events, context, now))
    given = [each.id for each, event in zip(told, document.events, strict=True) if event.id is not None]
    for _ in range(TRIES - 1):
        try:
            return await _append(context, now, told, given)
        except IntegrityError:
            # Another transaction has appended one of the ids meanwhile: it is a duplicate now.
            pass
    return await _append(context, now, told, given)


async def _append(context: CommandContext, now: datetime, told: Sequence[Told], given: Sequence[UUID]) -> Emitted:
    async with context.database.write() as transaction:
        seqs, known = await numbers_and_known(transaction.connection, len(told), given)
        new: dict[UUID, Told] = {}
        repeated: dict[UUID, None] = {}
        for each in told:
            if each.id in known or each.id in new:
                repeated[each.id] = None
            else:
                new[each.id] = each
        if new:
            await append_events(transaction.connection, now, list(new.values()), seqs[: len(new)])
            transaction.notify(EVENTS.channel)
    return Emitted([each.id for each in told], list(repeated))


def checked(events: Sequence[NewEvent], context: CommandContext, now: datetime) -> Iterator[Told]:
    """Yield the events of an input as they are appended. Raise InvalidInput with the path of a mistake."""
    for place, event in enumerate(events):
        try:
            yield _told(event, context, now)
        except Misplaced as error:
            raise InvalidInput(str(error), ("events", str(place), *error.path)) from error


def _told(event: NewEvent, context: CommandContext, now: datetime) -> Told:
    if not 0 < len(event.name) <= LONGEST_NAME:
        raise Misplaced(f"The name must have 1 to {LONGEST_NAME:,} characters.", "name")
    # The evaluator trusts these events: they carry the definitions of automations.
    if event.name in CHANGES:
        raise Misplaced("Events that change automations are reserved for the server.", "name")
    if event.resource.role is not None:
        raise Misplaced("The resource of an event has no role; related resources have one.", "resource", "role")
    return Told(
        context.new_id() if event.id is None else _id(event.id, "id"),
        _text(event.name, "name"),
        event.occurred or now,
        _resource(event.resource, "resource"),
        _related(event.related or ()),
        _payload(event.payload),
        None if event.follows is None else _id(event.follows, "follows"),
    )


def _id(text: str, *path: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Misplaced("The value is not a valid UUID.", *path) from None


def _text(text: str, *path: str) -> str:
    # Most texts are plain, which is decided without a call.
    if text.isascii() and "\0" not in text:
        return text
    try:
        return storable_text(text)
    except ValueError as error:
        raise Misplaced(f"The text cannot be stored: {error}.", *path) from None


def _resource(given: NewEventResource, *path: str) -> Labels:
    if not given.resource_id:
        raise Misplaced("The id of a resource must not be empty.", *path, "resourceId")
    found: Labels = {"resource_id": _text(given.resource_id, *path, "resourceId")}
    if given.role is not None:
        found["role"] = _text(given.role, *path, "role")
    if given.name is not None:
        found["name"] = _text(given.name, *path, "name")
    if given.labels is not None:
        found["labels"] = _labels(given.labels, len(found), *path, "labels")
    return found


def _labels(labels: Any, others: int, *path: str) -> dict[str, str]:
    if not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values()):
        raise Misplaced("Labels are an object whose values are texts.", *path)
    if len(labels) + others > MOST_LABELS:
        raise Misplaced(f"A resource has at most {MOST_LABELS} labels, its id, name and role included.", *path)
    if taken := OWN_FIELDS.intersection(labels):
        raise Misplaced(f"The label `{min(taken)}` has a field of its own.", *path)
    return {_text(key, *path): _text(value, *path, key) for key, value in labels.items()}


def _related(related: Sequence[NewEventResource]) -> list[Labels]:
    if len(related) > MOST_RELATED:
        raise Misplaced(f"An event has at most {MOST_RELATED} related resources.", "related")
    for place, each in enumerate(related):
        if not each.role:
            raise Misplaced("A related resource needs a role.", "related", str(place), "role")
    return [_resource(each, "related", str(place)) for place, each in enumerate(related)]


def _payload(payload: Any) -> Any:
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise Misplaced("The payload must be an object.", "payload")
    try:
        return storable_json(payload)
    except ValueError as error:
        raise Misplaced(f"The payload cannot be stored: {error}.", "payload") from None
