"""Targets of actions: the object that an action names, or the first of its kind among the resources of the event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from runstate.core.automations.events import Event
from runstate.documents.actions import (
    CallWebhookAction,
    ChangeFlowRunStateAction,
    FlowRunAction,
    PauseAction,
    ResumeAction,
    RunDeploymentAction,
    SendNotificationAction,
)
from runstate.documents.events import PREFIX

FLOW_RUN: Final = "flow-run"


class NoTarget(Exception):
    """The event has no object of the kind."""


def kind_of(action: Any) -> str | None:
    """Return the kind of the object that an action is about; None if it is about none."""
    match action:
        case RunDeploymentAction():
            return "deployment"
        case PauseAction(kind=kind) | ResumeAction(kind=kind):
            return kind.value.lower().replace("_", "-")
        case FlowRunAction() | ChangeFlowRunStateAction():
            return FLOW_RUN
        case SendNotificationAction() | CallWebhookAction():
            return "block-document"
    return None


def target(action: Any, event: Event | None, labels: Mapping[str, str]) -> UUID | None:
    """Return the id of the object that an action is about; None if it is about none. Raise NoTarget without one."""
    kind = kind_of(action)
    if kind is None:
        return None
    for name in ("deployment_id", "block_document_id", "id"):
        if given := getattr(action, name, None):
            return UUID(str(given))
    if kind == FLOW_RUN and (found := _of_kind(kind, labels.get("resource.id", ""))):
        return _id(kind, found)
    return inferred(kind, event)


def inferred(kind: str, event: Event | None) -> UUID:
    """Return the id of the first object of a kind among the resources of an event. Raise NoTarget without one."""
    if event is None:
        raise NoTarget(f"There is no event from which the {kind} could be inferred.")
    for resource in _resources(event):
        if found := _of_kind(kind, resource):
            # Later ones are not tried: the first one is meant.
            return _id(kind, found)
    raise NoTarget(f"No resource of the event is a {kind}.")


def resource_id(kind: str, id: UUID) -> str:
    """Return the id of an object as events have it."""
    return f"{PREFIX}{kind}.{id}"


def _resources(event: Event) -> Iterator[str]:
    yield event.resource.get("resource.id", "")
    yield from (each.get("resource.id", "") for each in event.related)


def _of_kind(kind: str, resource: str) -> str | None:
    begin = f"{PREFIX}{kind}."
    rest = resource.removeprefix(begin)
    return rest if resource.startswith(begin) and rest and "." not in rest else None


def _id(kind: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NoTarget(f"The first {kind} of the event has an id that is no UUID: {text[:100]}.") from None
