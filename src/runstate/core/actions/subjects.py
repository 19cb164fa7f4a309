"""Names in templates: the event, the automation, the firing, and objects that are read only if they are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.actions.rendering import event_names, words_in
from runstate.core.actions.targets import NoTarget, inferred
from runstate.core.automations.events import Event
from runstate.core.context import CommandContext
from runstate.database.bulk import table_of
from runstate.documents.actions import CallWebhookAction, RunDeploymentAction, SendNotificationAction
from runstate.documents.events import PREFIX
from runstate.rows import ConcurrencyLimit, Deployment, Flow, FlowRun, Row, TaskRun, WorkPool, WorkQueue
from runstate.rows.base import PRIVATE, is_marked
from runstate.rows.variables import Variable

OBJECTS: Final[dict[str, type[Row]]] = {
    "flow_run": FlowRun,
    "task_run": TaskRun,
    "flow": Flow,
    "deployment": Deployment,
    "work_queue": WorkQueue,
    "work_pool": WorkPool,
    "concurrency_limit": ConcurrencyLimit,
}
"""Objects that templates can name, by their names there."""
MOST_VARIABLES: Final = 1000


class TemplatesOf(NamedTuple):
    """The templates of an action."""

    values: dict[str, Any]
    typed: bool = False
    """Whether a text that is one expression keeps the type of its value."""


def templates_of(action: Any) -> TemplatesOf | None:
    """Return the templates of an action; None if it has none."""
    match action:
        case RunDeploymentAction(parameters=parameters) if parameters is not None:
            return TemplatesOf({"parameters": parameters}, typed=True)
        case SendNotificationAction(subject=subject, body=body):
            return TemplatesOf({"subject": subject, "body": body})
        case CallWebhookAction(payload=payload):
            return TemplatesOf({"payload": payload})
    return None


async def names_for(
    context: CommandContext,
    values: Any,
    event: Event | None,
    automation_name: str,
    labels: Mapping[str, str],
    **more: Any,
) -> dict[str, Any]:
    """Return the values of the names in templates."""
    words = words_in(values)
    described = event_names(event)
    names: dict[str, Any] = {
        "event": described,
        "automation": {"name": automation_name} | more.get("automation", {}),
        "labels": dict(labels),
        "firing": (firing := {"labels": dict(labels)} | more.get("firing", {})),
        "firings": [firing],
        "events": [described] if described else [],
    }
    wanted = [name for name in OBJECTS if name in words]
    if wanted or "variables" in words:
        async with context.database.read() as connection:
            for name in wanted:
                names[name] = await _object(connection, name, event)
            if "variables" in words:
                names["variables"] = await _variables(connection)
    return names


async def _object(connection: AsyncConnection, name: str, event: Event | None) -> dict[str, Any] | None:
    row = OBJECTS[name]
    try:
        found_id = inferred(name.replace("_", "-"), event)
    except NoTarget:
        return None
    table = table_of(row)
    shown = [column for column in table.c if not is_marked(column, PRIVATE)]
    found = (await connection.execute(sa.select(*shown).where(table.c.id == found_id))).one_or_none()
    if found is None:
        return None
    described = {key: _plain(value) for key, value in found._mapping.items()}  # noqa: SLF001 the columns by name
    if event and name in {"flow_run", "task_run"} and (state := _state(event)):
        described["state"] = state
    return described


def _state(event: Event) -> dict[str, Any] | None:
    """Return the state that an event of a run tells: not the present one."""
    labels = event.resource
    if f"{PREFIX}state-type" not in labels:
        return None
    found = {name: labels.get(f"{PREFIX}state-{name}") for name in ("type", "name", "message", "timestamp")}
    return found | {"id": str(event.id)}


async def _variables(connection: AsyncConnection) -> dict[str, Any]:
    asked = sa.select(Variable.name, Variable.value).order_by(Variable.name).limit(MOST_VARIABLES)
    return {row.name: row.value for row in await connection.execute(asked)}


CONVERSIONS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (datetime, datetime.isoformat),
    (UUID, str),
    (Enum, lambda value: value.value),
    (BaseModel, lambda value: value.model_dump(mode="json")),
)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_plain, value))
    return next((convert(value) for kind, convert in CONVERSIONS if isinstance(value, kind)), value)
