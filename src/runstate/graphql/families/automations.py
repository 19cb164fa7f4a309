"""Automations: automation, automations, their firings and windows, and the mutations that change them."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.core.actions.execution import retry_action
from runstate.core.commands import automations
from runstate.documents.access import Scope
from runstate.documents.events import PREFIX
from runstate.errors import InvalidInput, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.family import Command, Delete, family
from runstate.graphql.families.mutations import mutation
from runstate.graphql.pagination.connection import Connection, has_many, rows_of
from runstate.graphql.pagination.keyset import DEFAULT_SIZE, LARGEST_SIZE, PageArguments
from runstate.graphql.published import (
    Automation,
    AutomationActionRun,
    AutomationBucket,
    AutomationEventFollower,
    AutomationFiring,
    AutomationRelatedResource,
    CompositeTriggerChildFiring,
    Deployment,
    Event,
)
from runstate.graphql.types.conditions import as_uuid
from runstate.graphql.types.derive import extends
from runstate.graphql.types.fields import Id, object_type
from runstate.graphql.types.filters import HasMany, Where

IDS = strawberry.argument(description=f"Ids of the automations, at most {automations.MOST_DELETED}.")
OWNER = strawberry.argument(description="Id of the resource, as in events.")

FAMILY = family(
    Automation,
    scope=Scope.ADMIN,
    create=Command(
        automations.create_automation,
        automations.CreateAutomation,
        (InvalidInput,),
        "Create an automation. It evaluates what is appended to the log from then on.",
    ),
    update=Command(
        automations.update_automation,
        automations.UpdateAutomation,
        (InvalidInput, NotFound),
        "Update an automation. Omitted fields keep their value. A trigger that differs from the existing one starts "
        "anew, without windows; an equal one goes on.",
    ),
    delete=Delete(
        automations.delete_automation, "Delete an automation with its windows. Its firings stay until they expire."
    ),
)
has_many(Automation, "buckets", AutomationBucket, "automation_id", "Its windows.")
has_many(Automation, "firings", AutomationFiring, "automation_id", "Its firings; newest first by default.")
ALL: PageArguments[Any] = PageArguments(first=LARGEST_SIZE)


@extends(Automation, needs=(), condition=HasMany(AutomationRelatedResource, "automation_id"))
async def related_resources(root: strawberry.Parent[Automation], info: Info) -> list[AutomationRelatedResource]:
    """Resources that own it or that its actions name."""
    return await info.context.children(info, AutomationRelatedResource, ALL, "automation_id", root.id)


SIZE = strawberry.argument(description=f"The number: from 1 to {LARGEST_SIZE}, by default {DEFAULT_SIZE}.")
AFTER = strawberry.argument(description="Only automations after this cursor.")
WHERE = strawberry.argument(description="A condition; by default all automations.")


@extends(Deployment, needs=(), name="automations", size=DEFAULT_SIZE)
async def automations_of(
    root: strawberry.Parent[Deployment],
    info: Info,
    where: Annotated[Where[Automation] | None, WHERE] = UNSET,
    first: Annotated[int | None, SIZE] = UNSET,
    after: Annotated[str | None, AFTER] = UNSET,
) -> Connection[Automation]:
    """Automations that run the deployment or that it owns; by name."""
    of = partial(_related_to, f"{PREFIX}deployment.{root.id}")
    arguments: PageArguments[Any] = PageArguments(where=where, first=first, after=after, conditions=[of])
    return info.context.page(info, Automation, arguments)


def _related_to(resource_id: str, table: sa.FromClause) -> sa.ColumnElement[bool]:
    related = AutomationRelatedResource
    return table.c.id.in_(sa.select(related.automation_id).where(related.resource_id == resource_id))


@extends(Automation, needs=())
async def child_firings(root: strawberry.Parent[Automation], info: Info) -> list[CompositeTriggerChildFiring]:
    """Firings of triggers inside its compound and sequence triggers that wait for others."""
    return await info.context.children(info, CompositeTriggerChildFiring, ALL, "automation_id", root.id)


@extends(AutomationFiring, needs=())
async def action_runs(root: strawberry.Parent[AutomationFiring], info: Info) -> list[AutomationActionRun]:
    """Its actions in order: first `actions`, then `actionsOnTrigger` or `actionsOnResolve`."""
    return await info.context.children(info, AutomationActionRun, ALL, "firing_id", root.id)


@extends(AutomationFiring, needs={"automation_id"})
async def automation(root: strawberry.Parent[AutomationFiring], info: Info) -> Automation | None:
    """The automation; null if it was deleted."""
    return await info.context.load(info, Automation, root.automation_id)


@extends(AutomationFiring, needs={"event_id"})
async def event(root: strawberry.Parent[AutomationFiring], info: Info) -> Event | None:
    """The event that made it fire, or the last of the window; null if there was none, or if it has expired."""
    return await info.context.load(info, Event, root.event_id) if root.event_id else None


@object_type
class RetryAutomationActionPayload:
    """The action of the firing."""

    action_run: AutomationActionRun = strawberry.field(description="The action.")


@object_type
class DeleteManyPayload:
    """Deletions."""

    deleted_ids: list[strawberry.ID] = strawberry.field(description="Ids of the deleted objects.")


@strawberry.type
class Mutation:
    """Deletions of several automations, and repeated actions."""

    @mutation(Scope.ADMIN, NotFound)
    async def retry_automation_action(self, info: Info, id: Id) -> RetryAutomationActionPayload:
        """Have an action of a firing that failed for good tried again; one that was executed is returned as it is."""
        known = as_uuid(id)
        if known is None:
            raise NotFound(id)
        return RetryAutomationActionPayload(action_run=await retry_action(info.context.commands, known))

    @mutation(Scope.ADMIN, InvalidInput, returns=DeleteManyPayload, result="DeleteManyResult")
    async def delete_automations(self, info: Info, ids: Annotated[list[strawberry.ID], IDS]) -> DeleteManyPayload:
        """Delete automations in one transaction. Unknown ids are skipped."""
        if len(ids) > automations.MOST_DELETED:
            raise InvalidInput(f"At most {automations.MOST_DELETED} ids are allowed.", ("ids",))
        known = [found for each in ids if (found := as_uuid(each))]
        return _deleted(await automations.delete_automations(info.context.commands, known))

    @mutation(Scope.ADMIN, InvalidInput, returns=DeleteManyPayload, result="DeleteManyResult")
    async def delete_automations_owned_by(self, info: Info, resource_id: Annotated[str, OWNER]) -> DeleteManyPayload:
        """Delete all automations that a resource owns."""
        return _deleted(await automations.delete_owned_automations(info.context.commands, resource_id))


def _deleted(ids: Sequence[UUID]) -> DeleteManyPayload:
    return DeleteManyPayload(deleted_ids=[strawberry.ID(str(each)) for each in ids])


@strawberry.type
class Query:
    """Firings and actions of all automations, and waiting events."""

    automation_firings = rows_of(AutomationFiring, "Firings of automations; newest first by default.")
    automation_action_runs = rows_of(AutomationActionRun, "Actions of firings; newest first by default.")
    event_followers = rows_of(
        AutomationEventFollower,
        "Events that wait for the event that they follow. Triggers evaluate them at the latest 15 minutes after their "
        "arrival.",
    )


@extends(AutomationEventFollower, name="event", needs={"event_id"})
async def waiting_event(root: strawberry.Parent[AutomationEventFollower], info: Info) -> Event | None:
    """The event that waits; null if it has expired."""
    return await info.context.load(info, Event, root.event_id)
