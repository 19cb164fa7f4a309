"""Events of the client, as events of the log."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from runstate.documents.events import NewEvent, NewEventResource
from runstate.errors import Id
from runstate.prefect.bodies import Body, Time

ID: Final = "prefect.resource.id"
ROLE: Final = "prefect.resource.role"
NAME: Final = "prefect.resource.name"
OWN: Final = frozenset({ID, ROLE, NAME})
"""Labels that have fields of their own."""


class Event(Body):
    """An event that a client emits."""

    id: UUID | None = None
    event: str
    occurred: Time
    resource: dict[str, str]
    related: list[dict[str, str]] = []
    payload: dict[str, Any] = {}
    follows: UUID | None = None

    def document(self) -> NewEvent:
        """Return it as the document of the command."""
        return NewEvent(
            id=None if self.id is None else Id(str(self.id)),
            name=self.event,
            occurred=self.occurred,
            resource=_resource(self.resource),
            related=[_resource(each) for each in self.related],
            payload=self.payload,
            follows=None if self.follows is None else Id(str(self.follows)),
        )


def _resource(labels: dict[str, str]) -> NewEventResource:
    return NewEventResource(
        resource_id=labels.get(ID, ""),
        role=labels.get(ROLE),
        name=labels.get(NAME),
        labels={name: value for name, value in labels.items() if name not in OWN} or None,
    )
