"""Recorded triggers and events as those of this server; no server is involved."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from pydantic import TypeAdapter

from runstate.core.automations.compiled import Compiled
from runstate.core.automations.events import Event, LabelValue
from runstate.documents.triggers import Trigger
from tests.oracle.recording import Step

EVENTS = Path(__file__).with_name("events.jsonl.gz")
BEGIN = datetime(2026, 3, 2, 12, tzinfo=UTC)
PREVIEWS = (
    *("reactive", "after", "proactive", "proactive-after", "heartbeat", "match", "for-each"),
    *("order", "compound", "sequence", "nested", "windows", "random-event", "random-tree"),
)
"""Families of previews of triggers."""

TRIGGER: TypeAdapter[Any] = TypeAdapter(Trigger)
SAME = ("expect", "after", "threshold", "for_each")


def own(value: Any) -> Any:
    """Return a recorded value with the prefix of this server."""
    if isinstance(value, dict):
        return {own(key): own(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(own, value))
    return value.replace("{p}", "runstate.").replace("{n}", "nonce") if isinstance(value, str) else value


def instant(seconds: float) -> datetime:
    """Return the instant that is some seconds after the beginning."""
    return BEGIN + timedelta(seconds=seconds)


def seconds(at: datetime) -> float:
    """Return the seconds from the beginning to an instant."""
    return round((at - BEGIN).total_seconds(), 3)


def event_id(name: str) -> UUID:
    """Return the id of an event by its name in the recording."""
    return uuid5(NAMESPACE_OID, name)


def compiled(step: Step) -> Compiled:
    """Return the trigger of a step as an automation."""
    return Compiled(event_id("automation"), TRIGGER.validate_python(document(step["trigger"])))


def document(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded trigger as the document of this server."""
    kind = trigger["type"]
    given = {"kind": kind} | ({"within_seconds": trigger["within"]} if "within" in trigger else {})
    if kind == "event":
        given |= {name: trigger[name] for name in SAME if name in trigger}
        given |= {"posture": trigger["posture"].upper(), "match": patterns(trigger.get("match", {}))}
        return given | {"match_related": list(map(patterns, trigger.get("match_related", [])))}
    require = trigger.get("require", "all")
    given |= {} if require == "all" else {"require": 1 if require == "any" else require}
    return given | {"triggers": list(map(document, trigger["triggers"]))}


def patterns(labels: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """Return recorded patterns of labels as documents."""
    return [{"label": label, "values": values} for label, values in labels.items()]


def names(step: Step) -> dict[UUID, str]:
    """Return the names of the events of a step by their ids."""
    given = [each.get("id", f"#{place}") for place, each in enumerate(step["events"])]
    return {event_id(name): name for name in given}


def events(step: Step) -> list[Event]:
    """Return the events of a step in the order of arrival."""
    return [
        Event(
            id=event_id(each.get("id", f"#{place}")),
            name=each["name"],
            occurred=instant(each.get("occurred", each["at"])),
            received=instant(each["at"]),
            resource=each["resource"],
            related=tuple(each.get("related", ())),
            follows=event_id(each["follows"]) if each.get("follows") else None,
            position=place,
        )
        for place, each in enumerate(step["events"])
    ]


def labels(values: tuple[LabelValue, ...]) -> list[dict[str, str]]:
    """Return the values of labels as they are recorded."""
    return [{"label": each.label, "value": each.value} | ({"role": each.role} if each.role else {}) for each in values]
