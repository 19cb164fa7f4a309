"""Deployments: deployment, deployments, and the mutations that change, run, pause and resume them."""

from typing import Annotated, Any
from uuid import UUID

import strawberry
from strawberry import UNSET

from runstate.core.commands import deployments, flow_runs
from runstate.core.commands.by_name import found_deployment
from runstate.documents.access import Scope
from runstate.documents.deployments import DeploymentStatus, polled
from runstate.documents.requests import DeploymentRef, RunDeployment
from runstate.errors import InvalidInput, NameTaken, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.family import Command, Delete, created_payload, family
from runstate.graphql.families.flow_runs import CreateFlowRunPayload
from runstate.graphql.families.mutations import actor, mutation, payload
from runstate.graphql.published import ConcurrencyLimit, Deployment, WorkQueue
from runstate.graphql.types.conditions import as_uuid
from runstate.graphql.types.derive import define_type, extends
from runstate.graphql.types.fields import Id, query
from runstate.graphql.types.inputs import Input

define_type(DeploymentStatus)
By = Annotated[Input[DeploymentRef] | None, strawberry.argument(description="The deployment; in place of `id`.")]
ById = Annotated[
    strawberry.ID | None, strawberry.argument(description="Id of the deployment; a malformed id is unknown.")
]


@query
async def deployment(self: Any, info: Info, id: ById = UNSET, by: By = UNSET) -> Deployment | None:
    """The deployment with an id, or with the names of its flow and itself; null if it is unknown."""
    reference: Any = by or DeploymentRef()
    if not reference.flow or not reference.name:
        return await info.context.load(info, Deployment, id or reference.id or None)
    return await info.context.load(info, Deployment, await found_deployment(info.context.commands, reference))


FAMILY = family(
    Deployment,
    scope=Scope.ADMIN,
    lookup=deployment,
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


@extends(Deployment, needs={"last_polled", "work_queue_id"})
async def status(root: strawberry.Parent[Deployment], info: Info) -> DeploymentStatus:
    """Whether its runs are being picked up: READY if it or its queue was polled within 60 seconds."""
    # The queues of all deployments of a list are loaded together.
    queue = await info.context.row(WorkQueue, root.work_queue_id, frozenset({"last_polled"}))
    times = [each for each in (root.last_polled, queue.last_polled if queue else None) if each]
    return polled(max(times, default=None), info.context.now)


PauseDeploymentPayload: Any = payload(
    "PauseDeploymentPayload",
    "The paused deployment.",
    deployment=(Deployment, "The deployment."),
    taken_back_runs=(int, "Number of scheduled runs that were deleted because they had not started."),
)
ResumeDeploymentPayload: Any = payload(
    "ResumeDeploymentPayload", "The resumed deployment.", deployment=(Deployment, "The deployment.")
)
RUN = strawberry.argument(description="The deployment, and the fields of its run.")


DEPLOYED = created_payload(Deployment)
NEW = strawberry.argument(description="Fields of the new deployment.")


@strawberry.type
class Mutation:
    """Runs of deployments, and deployments of flows that are named."""

    @mutation(Scope.ADMIN, InvalidInput, NotFound, returns=DEPLOYED, result="CreateDeploymentResult")
    async def deploy_flow(self, info: Info, input: Annotated[Input[deployments.DeployFlow], NEW]) -> Any:
        """Create a deployment as createDeployment does. The flow is named, and can be created with the deployment."""
        written = await deployments.deploy_flow(info.context.commands, input.checked())
        return DEPLOYED(deployment=written.row, created=written.created)

    @mutation(Scope.PROPOSE, NotFound, InvalidInput, returns=CreateFlowRunPayload, result="CreateFlowRunResult")
    async def run_deployment(self, info: Info, input: Annotated[Input[RunDeployment], RUN]) -> Any:
        """Create a SCHEDULED run of a deployment. Its parameters and tags are added to those of the deployment."""
        written: Any = await flow_runs.run_deployment(info.context.batcher, input.checked(), **actor(info))
        return CreateFlowRunPayload(flow_run=written.row, created=written.created)

    @mutation(Scope.ADMIN, NotFound, returns=PauseDeploymentPayload)
    async def pause_deployment(self, info: Info, id: Id) -> Any:
        """Pause a deployment. The scheduler skips it, and its unstarted scheduled runs are deleted; others stay."""
        done = await deployments.pause_deployment(info.context.commands, _known(id))
        return PauseDeploymentPayload(deployment=done.row, taken_back_runs=done.taken_back)

    @mutation(Scope.ADMIN, NotFound, returns=ResumeDeploymentPayload)
    async def resume_deployment(self, info: Info, id: Id) -> Any:
        """Resume a deployment. The scheduler creates its runs again."""
        return ResumeDeploymentPayload(
            deployment=(await deployments.resume_deployment(info.context.commands, _known(id))).row
        )


def _known(id: str) -> UUID:
    if (known := as_uuid(id)) is None:
        raise NotFound(id)
    return known
