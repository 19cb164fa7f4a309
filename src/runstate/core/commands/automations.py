"""Automations: creation, changes and deletion, with the resources that they have to do with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator, BeforeValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.automations.loops import endless
from runstate.core.commands.announcements import announce
from runstate.core.commands.command import command
from runstate.core.commands.crud import Written, change, columns_of, fresh, insert, new_columns
from runstate.core.commands.work_pools import check_job_variables, find_pool
from runstate.core.context import CommandContext
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.documents.actions import RunDeploymentAction
from runstate.documents.base import Text, not_null
from runstate.documents.events import PREFIX
from runstate.documents.triggers import Trigger, bounded, definition
from runstate.errors import InvalidInput, NotFound
from runstate.rows import (
    Automation,
    AutomationBucket,
    AutomationRelatedResource,
    CompositeTriggerChildFiring,
    Deployment,
    WorkQueue,
)
from runstate.rows.documents import create_document, update_document

LISTS: Final = ("actions", "actions_on_trigger", "actions_on_resolve")
CHECKED: Final = ("enabled", "trigger", *LISTS)
MOST_DELETED: Final = 1000

Owner = Annotated[Text, Field(min_length=1, max_length=1000)]
OWNER: Final = (
    Owner | None,
    Field(default=None, description="Id of the resource that owns the automation, as in events; null for none."),
)
BoundedTrigger = Annotated[Trigger, AfterValidator(bounded)]
CreateAutomation = create_document(
    Automation, owner_resource_id=OWNER, trigger=(BoundedTrigger, Field(description="Condition under which it fires."))
)
UpdateAutomation = update_document(
    Automation,
    trigger=(
        Annotated[BoundedTrigger, BeforeValidator(not_null)],
        Field(default=None, description="Condition under which it fires. One that differs starts anew."),
    ),
)


@command(Automation)
async def create_automation(context: CommandContext, document: Any) -> Written[Automation]:
    """Create an automation. It evaluates what is appended to the log from then on."""
    columns = new_columns(Automation, document)
    await _check_variables(context, columns)
    async with context.database.write() as transaction:
        connection = transaction.connection
        await _check_loops(connection, columns)
        made = await insert(connection, Automation, fresh(context) | columns)
        owners = [document.owner_resource_id] if document.owner_resource_id else []
        await _relate(context, connection, made, owners)
    return Written(made)


@command(Automation)
async def update_automation(context: CommandContext, document: Any) -> Automation:
    """Change the given fields of an automation. An equal trigger keeps its ids, and so its windows."""
    columns = columns_of(document)
    await _check_variables(context, columns)
    async with context.database.write() as transaction:
        connection = transaction.connection
        before = await locked(connection, document.id)
        trigger = columns.get("trigger")
        # A client that sends back what it has read must not lose the counted events.
        if trigger is not None and definition(trigger) == definition(before.trigger):
            del columns["trigger"]
        await _check_loops(connection, {name: columns.get(name, getattr(before, name)) for name in CHECKED})
        changed = await change(connection, Automation, {"id": before.id}, columns, context.clock())
        if changed is None:
            raise NotFound(before.id)
        if "trigger" in columns:
            await _forget(connection, [before.id])
        if any(name in columns for name in LISTS):
            await _relate(context, connection, changed, await _owners(connection, changed.id))
    return changed


@command(Automation)
async def delete_automation(context: CommandContext, automation_id: UUID) -> None:
    """Delete an automation with its windows. Its firings stay."""
    async with context.database.write() as transaction:
        if not await _delete(context, transaction.connection, [automation_id]):
            raise NotFound(automation_id)


@command(Automation)
async def delete_automations(context: CommandContext, ids: Sequence[UUID]) -> list[UUID]:
    """Delete automations in one transaction; return the ids of those that existed."""
    async with context.database.write() as transaction:
        return await _delete(context, transaction.connection, ids)


@command(Automation)
async def delete_owned_automations(context: CommandContext, resource_id: str) -> list[UUID]:
    """Delete the automations that a resource owns; return their ids."""
    owned = sa.select(AutomationRelatedResource.automation_id).where(
        AutomationRelatedResource.resource_id == resource_id, AutomationRelatedResource.owned_by_resource
    )
    async with context.database.write() as transaction:
        ids = (await transaction.connection.execute(owned)).scalars().all()
        return await _delete(context, transaction.connection, ids)


async def locked(connection: AsyncConnection, automation_id: UUID) -> Automation:
    """Lock an automation and return it. Raise NotFound if it does not exist."""
    table = table_of(Automation)
    found = await connection.execute(sa.select(table).where(table.c.id == automation_id).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise NotFound(automation_id)
    return Automation.of(row._mapping)  # type: ignore[arg-type] # noqa: SLF001 the columns by name


async def set_enabled(context: CommandContext, connection: AsyncConnection, id: UUID, *, enabled: bool) -> None:
    """Enable or disable an automation. Raise NotFound or, if it would run without end, InvalidInput."""
    before = await locked(connection, id)
    if before.enabled is not enabled:
        # A disabled automation may loop; enabling it must not.
        await _check_loops(connection, {name: getattr(before, name) for name in CHECKED} | {"enabled": enabled})
        await change(connection, Automation, {"id": id}, {"enabled": enabled}, context.clock())


async def _delete(context: CommandContext, connection: AsyncConnection, ids: Sequence[UUID]) -> list[UUID]:
    table = table_of(Automation)
    which = among(table.c.id, sorted(set(ids)))
    # The events of deletions need the rows, which are gone then.
    rows = (await connection.execute(sa.delete(table).where(which).returning(*table.c))).all()
    deleted = [Automation.of(row._mapping) for row in rows]  # type: ignore[arg-type] # noqa: SLF001 columns by name
    await _forget(connection, [each.id for each in deleted])
    for each in deleted:
        await announce(connection, each, "deleted", context.clock())
    return [each.id for each in deleted]


async def _forget(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Delete the windows and kept firings of automations."""
    for row in (AutomationBucket, CompositeTriggerChildFiring) if ids else ():
        await connection.execute(sa.delete(row).where(among(row.automation_id, sorted(ids))))


async def _owners(connection: AsyncConnection, automation_id: UUID) -> Sequence[str]:
    related = AutomationRelatedResource
    owned = sa.select(related.resource_id).where(related.automation_id == automation_id, related.owned_by_resource)
    return (await connection.execute(owned)).scalars().all()


async def _relate(
    context: CommandContext, connection: AsyncConnection, automation: Automation, owners: Sequence[str]
) -> None:
    """Replace the related resources of an automation."""
    related = table_of(AutomationRelatedResource)
    await connection.execute(sa.delete(related).where(related.c.automation_id == automation.id))
    rows = [fresh(context) | each for each in related_resources(automation, owners)]
    if rows:
        await connection.execute(sa.insert(related), rows)


def related_resources(automation: Automation, owners: Sequence[str]) -> list[dict[str, Any]]:
    """Return the resources of an automation, by column: its owners, and the deployments that its actions name."""
    named = [
        f"{PREFIX}deployment.{each.deployment_id}" for each in _runs(_actions_of(automation)) if each.deployment_id
    ]
    return [
        {"automation_id": automation.id, "resource_id": each, "owned_by_resource": each in owners}
        for each in dict.fromkeys([*owners, *named])
    ]


def _actions_of(automation: Automation) -> Iterable[Any]:
    return (action for name in LISTS for action in getattr(automation, name))


def _runs(actions: Iterable[Any]) -> Iterable[RunDeploymentAction]:
    return (each for each in actions if isinstance(each, RunDeploymentAction))


async def _check_variables(context: CommandContext, columns: dict[str, Any]) -> None:
    """Raise InvalidInput if job variables do not conform to the pool of a given deployment."""
    for name in LISTS:
        for place, action in enumerate(columns.get(name, ())):
            if isinstance(action, RunDeploymentAction) and action.job_variables and action.deployment_id:
                queue = sa.select(Deployment.work_queue_id).where(Deployment.id == action.deployment_id)
                if pool := await find_pool(context, WorkQueue.id == queue.scalar_subquery()):
                    path = (name, str(place), "jobVariables")
                    template, given = pool.base_job_template, action.job_variables
                    await check_job_variables(context, template, given, path, complete=False)


async def _check_loops(connection: AsyncConnection, columns: dict[str, Any]) -> None:
    """Raise InvalidInput if an enabled automation would run without end."""
    selected = {each.deployment_id for name in LISTS for each in _runs(columns[name]) if each.deployment_id}
    # An id of no deployment creates no runs.
    asked = sa.select(Deployment.id).where(among(Deployment.id, sorted(selected)))
    existing = {None, *(await connection.execute(asked)).scalars()} if selected else {None}
    for name in LISTS if columns["enabled"] else ():
        for place in endless(columns["trigger"], columns[name]):
            if columns[name][place].deployment_id in existing:
                raise InvalidInput(
                    "The automation would run without end: each run that the action creates makes its trigger fire. "
                    "Match other runs, or other events.",
                    (name, str(place)),
                )
