"""Schedules of deployments."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from runstate.core.commands import schedules as commands
from runstate.documents.access import Scope
from runstate.errors import NotFound
from runstate.prefect import objects
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.rules import ScheduleBody, ScheduleChanges
from runstate.rows import Deployment, DeploymentSchedule

PATH = "/deployments/{id}/schedules"
ONE = f"{PATH}/{{schedule_id}}"


@endpoint("GET", PATH, Scope.READ)
async def read_many(call: Call) -> Any:
    """Return the schedules of a deployment."""
    await objects.only(call, Deployment, "deployment", call.id(), Deployment.id == call.id())
    mine = DeploymentSchedule.deployment_id == call.id()
    found = await objects.where(call, DeploymentSchedule, mine, order=[DeploymentSchedule.id])
    return [objects.schedule(each) for each in found]


@endpoint("POST", PATH, Scope.ADMIN, status=201)
async def create(call: Call, body: list[ScheduleBody]) -> Any:
    """Add schedules to a deployment."""
    made = [commands.CreateDeploymentSchedule(deployment_id=call.id(), schedule=each.document()) for each in body]
    return [objects.schedule(await commands.create_checked(call.context, each)) for each in made]


@endpoint("PATCH", ONE, Scope.ADMIN, status=204)
async def update(call: Call, body: ScheduleChanges) -> None:
    """Change a schedule."""
    document = commands.UpdateDeploymentSchedule(id=await _id(call), **body.columns())
    await commands.update_schedule(call.context, document)


@endpoint("DELETE", ONE, Scope.ADMIN, status=204)
async def delete(call: Call) -> None:
    """Delete a schedule with its unstarted runs."""
    await commands.delete_schedule(call.context, await _id(call))


async def _id(call: Call) -> UUID:
    """Return the id of the schedule in the path. Raise NotFound if it is not one of the deployment."""
    key = call.id("schedule_id")
    mine = (DeploymentSchedule.id == key, DeploymentSchedule.deployment_id == call.id())
    if not await objects.where(call, DeploymentSchedule, *mine):
        raise NotFound(key)
    return key
