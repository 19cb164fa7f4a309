"""Deployments: deployment, deployments, createDeployment, updateDeployment, deleteDeployment, runDeployment."""

from typing import Annotated, Any

import strawberry

from runstate.core.commands import deployments, flow_runs
from runstate.documents.access import Scope
from runstate.documents.requests import RunDeployment
from runstate.errors import InvalidInput, NameTaken, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.family import Command, Delete, family
from runstate.graphql.families.flow_runs import CreateFlowRunPayload
from runstate.graphql.families.mutations import actor, mutation
from runstate.graphql.published import ConcurrencyLimit, Deployment
from runstate.graphql.types.derive import extends
from runstate.graphql.types.inputs import Input

FAMILY = family(
    Deployment,
    scope=Scope.ADMIN,
    create=Command(
        deployments.create_deployment,
        deployments.CreateDeployment,
        (InvalidInput, NotFound),
        "Create a deployment, or update the flow's deployment with this name.",
    ),
    update=Command(deployments.update_deployment, deployments.UpdateDeployment, (InvalidInput, NameTaken, NotFound)),
    delete=Delete(
        deployments.delete_deployment,
        "Delete a deployment with its limit and its SCHEDULED runs. Its other runs remain, without a deployment.",
    ),
)


@extends(Deployment, needs={"concurrency_limit_id"})
async def concurrency_limit(root: strawberry.Parent[Deployment], info: Info) -> int | None:
    """Maximum number of its runs that hold a slot at the same time; null for no limit."""
    # The limits of all deployments of a list are loaded together.
    found = await info.context.row(ConcurrencyLimit, root.concurrency_limit_id, frozenset({"limit"}))
    return found.limit if found else None


RUN = strawberry.argument(description="The deployment, and the fields of its run.")


@strawberry.type
class Mutation:
    """Runs of deployments."""

    @mutation(Scope.PROPOSE, NotFound, InvalidInput, returns=CreateFlowRunPayload, result="CreateFlowRunResult")
    async def run_deployment(self, info: Info, input: Annotated[Input[RunDeployment], RUN]) -> Any:
        """Create a SCHEDULED run of a deployment. Its parameters and tags are added to those of the deployment."""
        written: Any = await flow_runs.run_deployment(info.context.batcher, input.checked(), **actor(info))
        return CreateFlowRunPayload(flow_run=written.row, created=written.created)
