"""Automations: triggers, actions and labels of the reference in our words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from runstate.core.automations.loops import endless
from runstate.core.commands.announcements import announce
from runstate.core.commands.automations import LISTS, related_resources
from runstate.database import bulk
from runstate.documents.actions import AutomationAction
from runstate.documents.events import PREFIX
from runstate.documents.triggers import Trigger, bounded, inner_triggers
from runstate.imports.table import Columns, Field, LeftOut, Raw, Table
from runstate.imports.tables import LIST, TEXT
from runstate.imports.values import document, text
from runstate.prefect.vocabulary import both, to_server
from runstate.rows import Automation, AutomationRelatedResource

if TYPE_CHECKING:
    from runstate.imports.importer import Importer

RESOURCE: Final = "prefect.resource."
ID: Final = "prefect.resource.id"
RELATED: Final = "related:"
SPAN: Final = TypeAdapter(timedelta)
TOLD: Final = (
    "flow-run.",
    "task-run.",
    "flow.",
    "deployment.",
    "variable.",
    "block-",
    "concurrency-limit.",
    "work-",
    "automation.",
)
NOT_TOLD: Final = ("ready", "not-ready", "disabled", "healthy", "unhealthy")
"""Last words of events about a status, which is computed here."""
PAUSABLE: Final = {
    "deployment": ("DEPLOYMENT", "deployment_id"),
    "work-pool": ("WORK_POOL", "work_pool_id"),
    "work-queue": ("WORK_QUEUE", "work_queue_id"),
    "automation": ("AUTOMATION", "automation_id"),
}


def label(name: str) -> str:
    """Return the name of a label in our words."""
    return f"resource.{name.removeprefix(RESOURCE)}" if name.startswith(RESOURCE) else to_server(name)


def seconds(value: Any) -> float | None:
    """Return a time span in seconds: the reference stores seconds, or text of ISO 8601."""
    return None if value is None else SPAN.validate_python(value).total_seconds()


def patterns(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return patterns of labels."""
    return [{"label": label(name), "values": values(name, found)} for name, found in given.items()]


def values(name: str, given: Any) -> list[str]:
    """Return the patterns of the value of a label; ids match in their words and in ours."""
    found = [given] if isinstance(given, str) else list(given)
    if name != ID:
        return found
    negated = [f"!{to_server(each[1:])}" for each in found if each.startswith("!")]
    return both(each for each in found if not each.startswith("!")) + negated


def label_reference(name: str) -> dict[str, Any]:
    """Return the reference to a label, which can be that of a related resource: `related:role:label`."""
    if not name.startswith(RELATED):
        return {"label": label(name)}
    role, _, rest = name.removeprefix(RELATED).partition(":")
    return {"label": label(rest), "role": role}


def trigger_form(value: Any) -> Any:
    """Return a trigger in our form. Raise LeftOut for a kind that does not exist here."""
    kind, own = value.get("type"), {"id": value["id"]} if value.get("id") else {}
    if kind == "event":
        return own | event_form(value)
    if kind not in {"compound", "sequence"}:
        raise LeftOut(f"there are no triggers of the type {kind}")
    form = {"kind": kind, "triggers": [trigger_form(each) for each in value["triggers"]]}
    form |= {"within_seconds": seconds(value.get("within"))}
    if kind == "compound":
        require = value.get("require")
        form["require"] = {"any": 1, "all": None}.get(require, require)
    return own | form


def event_form(value: Any) -> dict[str, Any]:
    """Return an event trigger in our form."""
    related = value.get("match_related") or []
    return {
        "kind": "event",
        "posture": str(value["posture"]).upper(),
        "match": patterns(value.get("match") or {}),
        "match_related": [patterns(each) for each in (related if isinstance(related, list) else [related]) if each],
        "after": both(sorted(value.get("after") or ())),
        "expect": both(sorted(value.get("expect") or ())),
        "for_each": [label_reference(each) for each in sorted(value.get("for_each") or ())],
        "threshold": value.get("threshold", 1),
        "within_seconds": seconds(value.get("within")) or 0.0,
    }


def actions_form(value: Any) -> list[Any]:
    """Return actions in our form. Raise LeftOut for one that does not exist here."""
    return [action_form(each) for each in value]


def action_form(value: Any) -> dict[str, Any]:
    """Return an action in our form."""
    kind = value.get("type", "")
    if form := ACTION_FORMS.get(kind):
        return form(value)
    verb, _, what = kind.partition("-")
    if verb in {"pause", "resume"} and what in PAUSABLE:
        name, member = PAUSABLE[what]
        return {"action": verb, "kind": name, "id": value.get(member)}
    raise LeftOut(f"there are no actions of the type {kind}")


def run_deployment(value: Any) -> dict[str, Any]:
    """Return an action that runs a deployment."""
    after = seconds(value.get("schedule_after")) or 0.0
    same = _members(value, "deployment_id", "parameters", "job_variables")
    return {"action": "run_deployment", "schedule_after_seconds": after} | same


def change_state(value: Any) -> dict[str, Any]:
    """Return an action that proposes a state."""
    return {"action": "change_flow_run_state", "type": value["state"]} | _members(value, "name", "message", "force")


def notify(value: Any) -> dict[str, Any]:
    """Return an action that sends a notification."""
    return {"action": "send_notification"} | _members(value, "block_document_id", "subject", "body")


def call(value: Any) -> dict[str, Any]:
    """Return an action that calls a webhook."""
    return {"action": "call_webhook"} | _members(value, "block_document_id", "payload")


def _members(value: Any, *names: str) -> dict[str, Any]:
    return {name: value[name] for name in names if value.get(name) is not None}


def _constant(form: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda _: form


ACTION_FORMS: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {
    "do-nothing": _constant({"action": "do_nothing"}),
    "run-deployment": run_deployment,
    "change-flow-run-state": change_state,
    "send-notification": notify,
    "call-webhook": call,
    **{
        f"{verb}-flow-run": _constant({"action": "flow_run", "verb": verb.upper()})
        for verb in ("cancel", "suspend", "resume", "delete")
    },
}
"""Forms of actions by type, besides those that pause and resume."""


def check(importer: Importer, raw: Raw, row: Columns) -> None:
    """Disable an automation that would run without end; note events that are not told here."""
    bounded(row["trigger"])
    if row["enabled"] and any(list(endless(row["trigger"], row[name])) for name in LISTS):
        row["enabled"] = False
        importer.report.remark("automation", "imported as disabled, because it would run without end", row["name"])
    if missing := sorted(set(_not_told(inner_triggers(row["trigger"])))):
        text = f"it waits for events that are not told here: {', '.join(missing)}"
        importer.report.remark("automation", text, row["name"])


def _not_told(triggers: Iterable[Any]) -> Iterator[str]:
    for trigger in triggers:
        for name in (*getattr(trigger, "after", ()), *getattr(trigger, "expect", ())):
            word = name.removeprefix(PREFIX)
            if name.startswith(PREFIX) and "*" not in word and not _is_told(word):
                yield name


def _is_told(word: str) -> bool:
    return word.startswith(TOLD) and not word.endswith(NOT_TOLD)


async def write(importer: Importer, connection: AsyncConnection, rows: list[Columns]) -> None:
    """Insert automations with what they concern. Their event tells the evaluator of them."""
    await bulk.load(connection, Automation, rows)
    for row in rows:
        automation = Automation.of(row)
        owners = [to_server(each) for each in importer.facts.owners.get(row["id"], ())]
        own = [
            {"id": uuid7(), "created": importer.now, "updated": importer.now} | each
            for each in related_resources(automation, owners)
        ]
        await bulk.load(connection, AutomationRelatedResource, own)
        await announce(connection, automation, "created", importer.now)


ACTIONS: Final = Field(document(list[AutomationAction], actions_form), default=[])
AUTOMATIONS: Final = Table(
    "automation",
    Automation,
    {
        "name": TEXT,
        "description": Field(text, default=""),
        "enabled": Field(bool, default=False),
        "tags": LIST,
        "trigger": Field(document(Trigger, trigger_form)),
    }
    | dict.fromkeys(LISTS, ACTIONS),
    finish=check,
    write=write,
)
