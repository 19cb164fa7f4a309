"""Automations: triggers and actions of the client as those of the server, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, TypeAdapter

from runstate.documents import actions as ours
from runstate.documents.labels import LabelPattern, LabelRef
from runstate.documents.states import StateType
from runstate.documents.triggers import (
    CompoundTrigger,
    EventTrigger,
    MetricTrigger,
    Posture,
    SequenceTrigger,
    inner_triggers,
)
from runstate.errors import InvalidInput
from runstate.prefect.bodies import Body
from runstate.prefect.event_filters import OWN, Patterns
from runstate.prefect.events import ID
from runstate.prefect.presentation import Object
from runstate.prefect.vocabulary import both, to_client, to_server
from runstate.rows import Automation

CLIENT: Final = {label: name for name, label in OWN.items()}
"""Labels of the client by those of the server, if they have a field of their own."""
RELATED: Final = "related:"
SPAN: Final = TypeAdapter(timedelta)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _seconds(value: Any) -> Any:
    # Clients send numbers, the reference stores ISO 8601 as well.
    return SPAN.validate_python(value).total_seconds() if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_seconds)]


class EventTriggerBody(Body):
    """A number of events, or too few of them."""

    type: Literal["event"] = "event"
    match: Patterns | None = None
    match_related: Annotated[list[Patterns], BeforeValidator(_listed)] | None = None
    after: list[str] | None = None
    expect: list[str] | None = None
    for_each: list[str] | None = None
    posture: Literal["Reactive", "Proactive"]
    threshold: int = 1
    within: Seconds = 0.0

    def document(self) -> EventTrigger:
        """Return it as the trigger of the server."""
        return EventTrigger(
            posture=Posture[self.posture.upper()],
            match=_patterns(self.match or {}),
            match_related=[_patterns(each) for each in self.match_related or () if each],
            # Sorted: the client has sets, and the same automation sent twice must be equal.
            after=both(sorted(self.after or ())),
            expect=both(sorted(self.expect or ())),
            for_each=[_reference(each) for each in self.for_each or ()],
            threshold=self.threshold,
            within_seconds=self.within,
        )


class SequenceBody(Body):
    """Other triggers, in order."""

    type: Literal["sequence"] = "sequence"
    triggers: list[TriggerBody]
    within: Seconds | None = None

    def document(self) -> SequenceTrigger:
        """Return it as the trigger of the server."""
        inner: list[Any] = [each.document() for each in self.triggers]
        return SequenceTrigger(triggers=inner, within_seconds=self.within)


class CompoundBody(Body):
    """Some or all of other triggers."""

    type: Literal["compound"] = "compound"
    triggers: list[TriggerBody]
    within: Seconds | None = None
    require: int | Literal["any", "all"]

    def document(self) -> CompoundTrigger:
        """Return it as the trigger of the server."""
        number = {"any": 1, "all": None}.get(self.require) if isinstance(self.require, str) else self.require
        inner: list[Any] = [each.document() for each in self.triggers]
        return CompoundTrigger(triggers=inner, within_seconds=self.within, require=number)


TriggerBody = Annotated[EventTriggerBody | SequenceBody | CompoundBody, Field(discriminator="type")]
# The classes refer to TriggerBody, which is defined after them.
SequenceBody.model_rebuild()
CompoundBody.model_rebuild()


def _label(name: str) -> str:
    return OWN.get(name) or to_server(name)


def _patterns(labels: Mapping[str, Sequence[str]]) -> list[LabelPattern]:
    return [LabelPattern(label=_label(name), values=_values(name, values)) for name, values in labels.items()]


def _values(name: str, values: Sequence[str]) -> list[str]:
    if OWN.get(name) != OWN[ID]:
        return list(values)
    # Objects of the server have other ids in its events than in those that the client sends: either matches.
    negated = [f"!{to_server(value[1:])}" for value in values if value.startswith("!")]
    return both(value for value in values if not value.startswith("!")) + negated


def _reference(name: str) -> LabelRef:
    if not name.startswith(RELATED):
        return LabelRef(label=_label(name))
    role, _, label = name.removeprefix(RELATED).partition(":")
    return LabelRef(label=_label(label), role=role)


def trigger(found: Any) -> Object:
    """Return a trigger as the client reads it. Raise InvalidInput if it has no form there."""
    shared = {"type": found.kind, "id": found.id}
    if isinstance(found, EventTrigger):
        return shared | _event(found)
    if isinstance(found, CompoundTrigger | SequenceTrigger):
        require = {"require": found.require or "all"} if isinstance(found, CompoundTrigger) else {}
        inner = [trigger(each) for each in found.triggers]
        return {**shared, "triggers": inner, "within": found.within_seconds, **require}
    raise InvalidInput(f"The client knows no trigger of the kind `{found.kind}`.", ("trigger",))


def _event(found: EventTrigger) -> Object:
    return {
        "match": _matched(found.match),
        "match_related": [_matched(each) for each in found.match_related],
        "after": _once(found.after),
        "expect": _once(found.expect),
        "for_each": [_named(each) for each in found.for_each],
        "posture": found.posture.value.capitalize(),
        "threshold": found.threshold,
        "within": found.within_seconds,
    }


def is_known(found: Any) -> bool:
    """Return whether a trigger, with those inside it, has a form that the client reads."""
    return not any(isinstance(each, MetricTrigger) for each in inner_triggers(found))


def _once(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(map(_known, names)))


def _known(name: str) -> str:
    return f"!{to_client(name[1:])}" if name.startswith("!") else to_client(name)


def _matched(patterns: Sequence[LabelPattern]) -> dict[str, Any]:
    found = {CLIENT.get(each.label) or to_client(each.label): _once(each.values) for each in patterns}
    return {label: values[0] if len(values) == 1 else values for label, values in found.items()}


def _named(reference: LabelRef) -> str:
    label = CLIENT.get(reference.label) or to_client(reference.label)
    return f"{RELATED}{reference.role}:{label}" if reference.role else label


class ActionBody(Body):
    """An action. Which members count depends on its type."""

    type: str
    source: Literal["selected", "inferred"] = "selected"
    automation_id: UUID | None = None
    deployment_id: UUID | None = None
    work_pool_id: UUID | None = None
    work_queue_id: UUID | None = None
    block_document_id: UUID | None = None
    parameters: dict[str, Any] | None = None
    job_variables: dict[str, Any] | None = None
    schedule_after: Seconds | None = None
    name: str | None = None
    state: StateType | None = None
    message: str | None = None
    force: bool | None = None
    subject: str | None = None
    body: str | None = None
    payload: str | None = None

    def document(self) -> Any:
        """Return it as the action of the server. Raise InvalidInput if the server has no such action."""
        verb, _, subject = self.type.partition("-")
        if self.type in PLAIN:
            kind, names = PLAIN[self.type]
            return kind(**{names[name]: value for name, value in self.members(names).items()})
        if verb in PAUSING and subject in PAUSABLE:
            return PAUSING[verb](kind=PAUSABLE[subject], id=getattr(self, _id_of(subject)))
        if subject == "flow-run" and verb.upper() in ours.FlowRunVerb.__members__:
            return ours.FlowRunAction(verb=ours.FlowRunVerb[verb.upper()])
        raise InvalidInput(f"The server has no action of the type `{self.type}`.", ("actions",))


PLAIN: Final[dict[str, tuple[Callable[..., Any], dict[str, str]]]] = {
    "do-nothing": (ours.DoNothingAction, {}),
    "run-deployment": (
        ours.RunDeploymentAction,
        {
            "deployment_id": "deployment_id",
            "parameters": "parameters",
            "job_variables": "job_variables",
            "schedule_after": "schedule_after_seconds",
        },
    ),
    "change-flow-run-state": (
        ours.ChangeFlowRunStateAction,
        {"state": "type", "name": "name", "message": "message", "force": "force"},
    ),
    "send-notification": (
        ours.SendNotificationAction,
        {"block_document_id": "block_document_id", "subject": "subject", "body": "body"},
    ),
    "call-webhook": (
        ours.CallWebhookAction,
        {"block_document_id": "block_document_id", "payload": "payload"},
    ),
}
"""Actions whose members are those of the server, by their names there."""
PAUSING: Final[dict[str, Callable[..., Any]]] = {"pause": ours.PauseAction, "resume": ours.ResumeAction}
PAUSABLE: Final = {kind.value.lower().replace("_", "-"): kind for kind in ours.PausableKind}
SOURCED: Final = frozenset({"run-deployment"})
"""Types of plain actions that say whether their subject is selected or inferred."""


def _id_of(subject: str) -> str:
    return f"{subject.replace('-', '_')}_id"


def action(found: Any) -> Object:
    """Return an action as the client reads it."""
    if isinstance(found, ours.PauseAction | ours.ResumeAction):
        subject = found.kind.value.lower().replace("_", "-")
        return {"type": f"{found.action}-{subject}", **_source(found.id), _id_of(subject): found.id}
    if isinstance(found, ours.FlowRunAction):
        return {"type": f"{found.verb.value.lower()}-flow-run"}
    kind = found.action.replace("_", "-")
    members = {theirs: getattr(found, name) for theirs, name in PLAIN[kind][1].items()}
    return {"type": kind, **members, **(_source(found.deployment_id) if kind in SOURCED else {})}


def _source(id: UUID | None) -> Object:
    return {"source": "inferred" if id is None else "selected"}


class AutomationBody(Body):
    """An automation."""

    name: str
    description: str | None = None
    enabled: bool | None = None
    tags: list[str] | None = None
    trigger: TriggerBody
    actions: list[ActionBody]
    actions_on_trigger: list[ActionBody] | None = None
    actions_on_resolve: list[ActionBody] | None = None

    def columns(self) -> dict[str, Any]:
        """Return the members that were sent, as commands know them."""
        given = {name: value for name, value in self.given.items() if name != "owner_resource"}
        lists = {name: [each.document() for each in given[name]] for name in LISTS if name in given}
        return given | lists | {"trigger": self.trigger.document()}


LISTS: Final = ("actions", "actions_on_trigger", "actions_on_resolve")


class NewAutomation(AutomationBody):
    """An automation to create."""

    owner_resource: str | None = None


def automation(row: Automation) -> Object:
    """Return an automation as the client reads it."""
    names = ("id", "created", "updated", "name", "description", "enabled", "tags")
    return {
        **{name: getattr(row, name) for name in names},
        "trigger": trigger(row.trigger),
        **{name: [action(each) for each in getattr(row, name)] for name in LISTS},
    }
