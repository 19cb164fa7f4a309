"""Automations: the reference stores triggers and actions as its clients send them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from runstate.errors import InvalidInput
from runstate.imports.table import Columns, Field, LeftOut, Raw, Table
from runstate.imports.tables import LIST, TEXT
from runstate.imports.values import document, text, uuid
from runstate.prefect.automations import ActionBody, TriggerBody
from runstate.prefect.vocabulary import to_server
from runstate.rows import Automation, AutomationRelatedResource

if TYPE_CHECKING:
    from runstate.imports.importer import Importer

TRIGGER: Final = TypeAdapter[Any](TriggerBody)
KINDS: Final = frozenset({"event", "compound", "sequence"})
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


def trigger_of(value: Any) -> Any:
    """Return a trigger of the reference as ours, with its id. Raise LeftOut for a kind that does not exist here."""
    if (kind := value.get("type")) not in KINDS:
        raise LeftOut(f"there are no triggers of the type {kind}")
    return _with_ids(TRIGGER.validate_python(value).document(), value)


def _with_ids(trigger: Any, value: Any) -> Any:
    # Bodies of requests have no ids: there, each change gives a trigger a new one.
    own: dict[str, Any] = {"id": uuid(value["id"])} if value.get("id") else {}
    if inner := value.get("triggers"):
        own["triggers"] = [_with_ids(each, raw) for each, raw in zip(trigger.triggers, inner, strict=True)]
    return trigger.model_copy(update=own)


def action_of(value: Any) -> Any:
    """Return an action of the reference as ours. Raise LeftOut for one that does not exist here."""
    try:
        return ActionBody.model_validate(value).document()
    except InvalidInput:
        raise LeftOut(f"there are no actions of the type {value.get('type')}") from None


def actions_of(value: Any) -> list[Any]:
    """Return actions of the reference as ours."""
    return [action_of(each) for each in value]


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


ACTIONS: Final = Field(document(list[AutomationAction], actions_of), default=[])
AUTOMATIONS: Final = Table(
    "automation",
    Automation,
    {
        "name": TEXT,
        "description": Field(text, default=""),
        "enabled": Field(bool, default=False),
        "tags": LIST,
        "trigger": Field(document(Trigger, trigger_of)),
    }
    | dict.fromkeys(LISTS, ACTIONS),
    finish=check,
    write=write,
)
