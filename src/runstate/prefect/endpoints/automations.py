"""Automations."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from runstate.core.commands import automations as commands
from runstate.documents.access import Scope
from runstate.prefect import objects
from runstate.prefect.automations import AutomationBody, NewAutomation, automation
from runstate.prefect.bodies import Body
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.vocabulary import both, to_server
from runstate.rows import Automation, AutomationRelatedResource


class Switch(Body):
    """Whether an automation is enabled."""

    enabled: bool


@endpoint("POST", "/automations/", Scope.ADMIN, status=201)
async def create(call: Call, body: NewAutomation) -> Any:
    """Create an automation."""
    owner = {"owner_resource_id": to_server(body.owner_resource)} if body.owner_resource else {}
    made = await commands.create_automation(call.context, commands.CreateAutomation(**body.columns(), **owner))
    return automation(made.row)


@endpoint("GET", "/automations/{id}", Scope.READ)
async def read(call: Call) -> Any:
    """Return an automation."""
    return automation(await objects.only(call, Automation, "automation", call.id(), Automation.id == call.id()))


@endpoint("PUT", "/automations/{id}", Scope.ADMIN, status=204)
async def replace(call: Call, body: AutomationBody) -> None:
    """Replace an automation."""
    await commands.update_automation(call.context, commands.UpdateAutomation(id=call.id(), **body.columns()))


@endpoint("PATCH", "/automations/{id}", Scope.ADMIN, status=204)
async def switch(call: Call, body: Switch) -> None:
    """Enable or disable an automation."""
    await commands.update_automation(call.context, commands.UpdateAutomation(id=call.id(), enabled=body.enabled))


@endpoint("DELETE", "/automations/{id}", Scope.ADMIN, status=204)
async def delete(call: Call) -> None:
    """Delete an automation."""
    await commands.delete_automation(call.context, call.id())


@endpoint("GET", "/automations/related-to/{resource_id}", Scope.READ)
async def related_to(call: Call) -> Any:
    """Return the automations that a resource owns, or that name it in their actions."""
    named = AutomationRelatedResource.resource_id.in_(both([call.text("resource_id")]))
    ids = sa.select(AutomationRelatedResource.automation_id).where(named)
    found = await objects.where(call, Automation, Automation.id.in_(ids), order=[Automation.id])
    return [automation(each) for each in found]


@endpoint("DELETE", "/automations/owned-by/{resource_id}", Scope.ADMIN, status=202)
async def delete_owned(call: Call) -> None:
    """Delete the automations that a resource owns."""
    await commands.delete_owned_automations(call.context, to_server(call.text("resource_id")))
