"""Firings as rows: with their actions, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from runstate.core.automations.compiled import Compiled
from runstate.core.automations.events import Event
from runstate.core.automations.index import LOOP_STOPPED
from runstate.core.automations.steps import Fired
from runstate.core.evaluation.definitions import ACTIONS, Evaluated
from runstate.core.telling import Told, resource
from runstate.documents.actions import ActionStatus
from runstate.documents.events import PREFIX
from runstate.documents.labels import LabelValue

POSTURE: Final = f"{PREFIX}posture"


def state_event_id(firing_id: UUID) -> UUID:
    """Return the id of the event that tells of a firing."""
    return uuid5(firing_id, "state")


def firing_row(fired: Fired, now: datetime) -> dict[str, Any]:
    """Return the row of a firing."""
    firing = fired.firing
    labels = [LabelValue(label=each.label, role=each.role, value=each.value) for each in firing.labels]
    return {
        "id": fired.id,
        "created": now,
        "updated": now,
        "automation_id": fired.automation_id,
        "trigger_id": firing.trigger_id,
        "fired": firing.fired,
        "event_id": firing.event.event_id if firing.event else None,
        "event_ids": [part.event_id for part in firing.parts],
        "labels": labels,
        "state": firing.state,
        "state_event_id": state_event_id(fired.id),
        "root_id": root_of(fired),
        "cause": fired.chain.cause if fired.chain else None,
        "chain": [str(each) for each in fired.chain.automations] if fired.chain else [],
    }


def root_of(fired: Fired) -> UUID:
    """Return the id of the event with which the chain of a firing began; its own id if it had none."""
    if fired.chain:
        return fired.chain.root
    return fired.firing.event.event_id if fired.firing.event else fired.id


def action_rows(fired: Fired, automation: Evaluated, now: datetime) -> list[dict[str, Any]]:
    """Return the rows of the actions of a firing."""
    event = fired.firing.event
    own, told = event.event_id if event else None, state_event_id(fired.id)
    return [
        {
            "id": uuid5(fired.id, str(place)),
            "created": now,
            "updated": now,
            "firing_id": fired.id,
            "index": place,
            "action": ACTIONS.validate_python([action])[0],
            "event_id": told if is_about_state else own,
            "status": ActionStatus.PENDING,
            "attempts": 0,
            "retries": 0,
            "next_attempt": now,
            "finished": None,
            "reason": None,
            "results": [],
        }
        for place, (action, is_about_state) in enumerate(automation.actions(fired.firing.state))
    ]


def told_of(fired: Fired, automation: Evaluated, event: Event | None, now: datetime) -> Told:
    """Return the event that tells of a firing, or that a loop of automations was stopped."""
    firing = fired.firing
    key, name = state_event_id(fired.id), f"{PREFIX}automation.{firing.state.value.lower()}"
    if fired.is_stopped:
        key, name = uuid5(root_of(fired), f"{fired.automation_id} stopped"), LOOP_STOPPED
    related = [resource("event", firing.event.event_id, role="triggering-event")] if firing.event else []
    labels = {POSTURE: posture} if (posture := _posture(automation.compiled)) else {}
    thing = resource("automation", fired.automation_id, automation.definition["name"], **labels)
    payload = {
        "triggering_labels": {each.label: each.value for each in firing.labels},
        "triggering_event": event_payload(event) if event else None,
    }
    return Told(key, name, now, thing, related, payload, cause=None if fired.is_stopped else fired.id)


def _posture(compiled: Compiled) -> str | None:
    proactive = getattr(compiled.root, "proactive", None)
    return None if proactive is None else "PROACTIVE" if proactive else "REACTIVE"


def event_payload(event: Event) -> dict[str, Any]:
    """Return an event as part of a payload; without its own payload, which can be large."""
    labels: Mapping[str, str] = event.resource
    return {"id": str(event.id), "name": event.name, "occurred": event.occurred.isoformat(), "resource": dict(labels)}
