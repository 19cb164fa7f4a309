"""Names of events and of their resources: what the server calls `runstate.…`, the client calls `prefect.…`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runstate.documents.events import PREFIX, EventResource
from runstate.prefect.events import ID, NAME, ROLE
from runstate.prefect.presentation import Object
from runstate.rows import Event

THEIRS: Final = "prefect."


def to_client(text: str) -> str:
    """Return a name as the client knows it."""
    return THEIRS + text.removeprefix(PREFIX) if text.startswith(PREFIX) else text


def to_server(text: str) -> str:
    """Return a name as the server gives it."""
    return PREFIX + text.removeprefix(THEIRS) if text.startswith(THEIRS) else text


def both(texts: Iterable[str]) -> list[str]:
    """Return names of the client with those by which the server means the same: clients send events of both."""
    return [name for text in texts for name in dict.fromkeys((text, to_server(text)))]


def beginnings(texts: Iterable[str]) -> list[str]:
    """Return beginnings of names of the client with those by which the server means the same."""
    short = [PREFIX for text in texts if THEIRS.startswith(text)]
    return [*both(texts), *short]


def labels(resource: EventResource) -> dict[str, str]:
    """Return the labels of a resource as the client knows them."""
    own = {ID: to_client(resource.resource_id), NAME: resource.name, ROLE: resource.role}
    return {name: value for name, value in own.items() if value is not None} | {
        to_client(name): value for name, value in resource.labels.items()
    }


def event(row: Event) -> Object:
    """Return an event as the client reads it."""
    return {
        "id": row.id,
        "occurred": row.occurred,
        "received": row.received,
        "event": to_client(row.name),
        "resource": labels(row.resource),
        "related": [labels(each) for each in row.related],
        "payload": row.payload,
        "follows": row.follows,
    }
