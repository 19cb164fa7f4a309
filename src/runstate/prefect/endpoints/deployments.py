"""Deployments: creation, changes, runs, and the polls of their runners."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import ConfigDict, Field

from runstate.core.commands import deployments as commands
from runstate.core.commands.by_name import deployment_id_of
from runstate.core.commands.flow_runs import run_deployment
from runstate.core.commands.polls import poll_deployments
from runstate.database.dialects import among
from runstate.documents import requests
from runstate.documents.access import Scope
from runstate.documents.deployments import VersionInfo
from runstate.documents.policies import CollisionStrategy, ConcurrencyOptions
from runstate.documents.requests import DeploymentRef
from runstate.prefect import objects, reading
from runstate.prefect.bodies import LARGEST_PAGE, Body, Policy, StateBody, Time, changes
from runstate.prefect.endpoint import Call, Reply, endpoint
from runstate.prefect.rules import ScheduleBody
from runstate.rows import Deployment, FlowRun

NAMES: Final = {"parameter_openapi_schema": "parameter_schema", "work_pool_name": "work_pool"}
"""The names of members that commands know by others."""


class VersionBody(Body):
    """The source of a version, with members of its kind."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    version: str

    def document(self) -> VersionInfo:
        """Return it as the document of commands."""
        return VersionInfo(type=self.type, version=self.version, extra=self.model_extra or {})


class OptionsBody(Body):
    """The handling of runs for which no slot is free."""

    collision_strategy: CollisionStrategy
    grace_period_seconds: int | None = None

    def document(self) -> ConcurrencyOptions:
        """Return it as the document of commands."""
        return ConcurrencyOptions(**dict(self))


class DeploymentChanges(Body):
    """Changes to a deployment."""

    paused: bool | None = None
    schedules: list[ScheduleBody] | None = None
    concurrency_limit: int | None = None
    global_concurrency_limit_id: UUID | None = None
    concurrency_options: OptionsBody | None = None
    enforce_parameter_schema: bool | None = None
    parameter_openapi_schema: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    tags: list[str] | None = None
    labels: dict[str, Any] | None = None
    work_queue_name: str | None = None
    work_pool_name: str | None = None
    description: str | None = None
    path: str | None = None
    entrypoint: str | None = None
    job_variables: dict[str, Any] | None = None
    pull_steps: list[dict[str, Any]] | None = None
    version: str | None = None
    version_info: VersionBody | None = None

    def columns(self) -> dict[str, Any]:
        """Return the members that were sent, as commands know them."""
        given = changes(self, Deployment, NAMES)
        if "concurrency_limit" in self.model_fields_set and self.global_concurrency_limit_id is None:
            given["concurrency_limit"] = self.concurrency_limit
        for name in ("concurrency_options", "version_info"):
            if given.get(name) is not None:
                given[name] = given[name].document()
        if self.schedules is not None:
            given["schedules"] = [each.document() for each in self.schedules]
        return given


class NewDeployment(DeploymentChanges):
    """A deployment to create."""

    name: str
    flow_id: UUID


class NewRun(Body):
    """A run of a deployment to create."""

    state: StateBody | None = None
    name: str | None = None
    parameters: dict[str, Any] | None = None
    tags: list[str] | None = None
    labels: dict[str, Any] | None = None
    idempotency_key: str | None = None
    parent_task_run_id: UUID | None = None
    job_variables: dict[str, Any] | None = None
    work_queue_name: str | None = None
    enforce_parameter_schema: bool | None = None
    empirical_policy: Policy | None = None

    def document(self, deployment_id: UUID) -> requests.RunDeployment:
        """Return it as the document of the command."""
        given = {name: value for name, value in self.given.items() if name not in ("state", "empirical_policy")}
        details = self.state.document().details if self.state else None
        policy = self.empirical_policy.of_flow_run() if self.empirical_policy else None
        due = details.scheduled_time if details else None
        return requests.RunDeployment(deployment_id=deployment_id, scheduled_time=due, policy=policy, **given)


class Poll(Body):
    """Deployments whose due runs are wanted."""

    deployment_ids: Annotated[list[UUID], Field(max_length=1000)]
    scheduled_before: Time | None = None
    limit: Annotated[int, Field(ge=0, le=LARGEST_PAGE)] | None = None


async def _shown(call: Call, deployment_id: UUID) -> Any:
    found = await objects.only(call, Deployment, "deployment", deployment_id, Deployment.id == deployment_id)
    return (await objects.deployments(call, [found]))[0]


@endpoint("POST", "/deployments/", Scope.ADMIN)
async def create(call: Call, body: NewDeployment) -> Reply:
    """Create a deployment, or update the flow's deployment with the name."""
    made = await commands.create_deployment(call.context, commands.CreateDeployment(**body.columns()))
    return Reply(await _shown(call, made.row.id), 201 if made.created else 200)


@endpoint("GET", "/deployments/{id}", Scope.READ)
async def read(call: Call) -> Any:
    """Return a deployment with its schedules."""
    return await _shown(call, call.id())


@endpoint("GET", "/deployments/name/{flow}/{name}", Scope.READ)
async def read_by_name(call: Call) -> Any:
    """Return the deployment with the names of its flow and itself."""
    named = DeploymentRef(flow=call.text("flow"), name=call.text("name"))
    return await _shown(call, await deployment_id_of(call.context, named))


@endpoint("PATCH", "/deployments/{id}", Scope.ADMIN, status=204)
async def update(call: Call, body: DeploymentChanges) -> None:
    """Change a deployment."""
    await commands.update_deployment(call.context, commands.UpdateDeployment(id=call.id(), **body.columns()))


@endpoint("DELETE", "/deployments/{id}", Scope.ADMIN, status=204)
async def delete(call: Call) -> None:
    """Delete a deployment with its SCHEDULED runs."""
    await commands.delete_deployment(call.context, call.id())


@endpoint("POST", "/deployments/{id}/pause_deployment", Scope.ADMIN)
async def pause(call: Call) -> None:
    """Pause a deployment: its scheduled runs are deleted."""
    await commands.pause_deployment(call.context, call.id())


@endpoint("POST", "/deployments/{id}/resume_deployment", Scope.ADMIN)
async def resume(call: Call) -> None:
    """Resume a deployment."""
    await commands.resume_deployment(call.context, call.id())


@endpoint("POST", "/deployments/{id}/create_flow_run", Scope.PROPOSE)
async def create_flow_run(call: Call, body: NewRun) -> Reply:
    """Create a SCHEDULED run of a deployment, or return the run with the idempotency key."""
    made = await run_deployment(call.batcher, body.document(call.id()), **call.who)
    return Reply(await reading.flow_run(call, made.row.id), 201 if made.created else 200)


@endpoint("POST", "/deployments/get_scheduled_flow_runs", Scope.PROPOSE)
async def due_runs(call: Call, body: Poll) -> Any:
    """Return the due runs of deployments, which count as polled."""
    first = LARGEST_PAGE if body.limit is None else body.limit
    found = await poll_deployments(call.context, body.deployment_ids, body.scheduled_before or call.now, first)
    # Ordered again: a condition on ids keeps no order.
    return await reading.flow_runs(
        call, among(FlowRun.id, found), (FlowRun.next_scheduled_start_time, FlowRun.id), LARGEST_PAGE
    )
