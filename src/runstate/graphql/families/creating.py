"""Flows, deployments, runs and run inputs: what makes, changes and deletes them."""

from typing import Annotated, Any, cast
from uuid import UUID

import strawberry

from runstate.core.batch.requests import Created, CreateRun, Outcome
from runstate.core.commands import flows, run_inputs, runs
from runstate.documents.requests import (
    CreateDeployment,
    CreateFlow,
    CreateFlowRun,
    CreateTaskRun,
    RunDeployment,
    UpdateDeployment,
    WriteFlowRun,
)
from runstate.errors import NotFound as NotFoundError
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import DeletePayload, deleted, doing, proposing, who
from runstate.graphql.published import Deployment, Flow, FlowRun, FlowRunInput, TaskRun
from runstate.graphql.types.fields import Id, cached_attribute, field, object_type
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.problems import InvalidInput, NotFound

IS_NEW = "Whether it was made now; false: it was there already."
Given = strawberry.argument(description="What it is to be.")


@object_type
class CreateFlowPayload:
    """The flow with the name."""

    key: strawberry.Private[UUID]
    created: bool = strawberry.field(description=IS_NEW)

    @field
    async def flow(self, info: Info) -> Flow:
        """The flow."""
        return cast("Flow", await info.context.load(info, Flow, self.key))


@object_type
class CreateDeploymentPayload:
    """The flow's deployment with the name."""

    key: strawberry.Private[UUID]
    created: bool = strawberry.field(description=IS_NEW)

    @field
    async def deployment(self, info: Info) -> Deployment:
        """The deployment."""
        return cast("Deployment", await info.context.load(info, Deployment, self.key))


@object_type
class UpdateDeploymentPayload:
    """The deployment, changed."""

    key: strawberry.Private[UUID]

    @field
    async def deployment(self, info: Info) -> Deployment:
        """The deployment."""
        return cast("Deployment", await info.context.load(info, Deployment, self.key))


@object_type
class CreateFlowRunPayload:
    """The flow run."""

    key: strawberry.Private[UUID]
    made: strawberry.Private[FlowRun | None]
    created: bool = strawberry.field(description=IS_NEW)

    @cached_attribute("made")
    async def flow_run(self, info: Info) -> FlowRun:
        """The flow run."""
        return self.made or cast("FlowRun", await info.context.load(info, FlowRun, self.key))


@object_type
class CreateTaskRunPayload:
    """The task run."""

    key: strawberry.Private[UUID]
    made: strawberry.Private[TaskRun | None]
    created: bool = strawberry.field(description=IS_NEW)

    @cached_attribute("made")
    async def task_run(self, info: Info) -> TaskRun:
        """The task run."""
        return self.made or cast("TaskRun", await info.context.load(info, TaskRun, self.key))


@object_type
class WriteFlowRunInputPayload:
    """What the flow run has under the key."""

    key: strawberry.Private[UUID]
    created: bool = strawberry.field(description=IS_NEW)

    @field
    async def flow_run_input(self, info: Info) -> FlowRunInput:
        """The run input."""
        return cast("FlowRunInput", await info.context.load(info, FlowRunInput, self.key))


CreateFlowResult = Annotated[
    CreateFlowPayload | InvalidInput,
    strawberry.union("CreateFlowResult", description="The flow, or what is wrong with the input."),
]
CreateDeploymentResult = Annotated[
    CreateDeploymentPayload | NotFound | InvalidInput,
    strawberry.union("CreateDeploymentResult", description="The deployment, or what is wrong with the input."),
]
UpdateDeploymentResult = Annotated[
    UpdateDeploymentPayload | NotFound | InvalidInput,
    strawberry.union("UpdateDeploymentResult", description="The deployment, or what is wrong with the input."),
]
CreateFlowRunResult = Annotated[
    CreateFlowRunPayload | NotFound | InvalidInput,
    strawberry.union("CreateFlowRunResult", description="The flow run, or what is wrong with the input."),
]
CreateTaskRunResult = Annotated[
    CreateTaskRunPayload | NotFound | InvalidInput,
    strawberry.union("CreateTaskRunResult", description="The task run, or what is wrong with the input."),
]
WriteFlowRunInputResult = Annotated[
    WriteFlowRunInputPayload | NotFound | InvalidInput,
    strawberry.union("WriteFlowRunInputResult", description="The run input, or what is wrong with it."),
]
DeleteResult = Annotated[
    DeletePayload | NotFound, strawberry.union("DeleteResult", description="What was deleted, or that nothing was.")
]


async def _created(info: Info, request: CreateRun) -> Created:
    (outcome,) = await info.context.batcher.submit([request])
    return _made(outcome)


def _made(outcome: Outcome) -> Created:
    if isinstance(outcome, Exception):
        raise outcome
    return cast("Created", outcome)


def _found(outcome: tuple[UUID, bool] | NotFoundError) -> tuple[UUID, bool]:
    if isinstance(outcome, NotFoundError):
        raise outcome
    return outcome


@strawberry.type
class Mutation:
    """What makes, changes and deletes flows, deployments, runs and run inputs."""

    @proposing
    async def create_flow(self, info: Info, input: Annotated[Input[CreateFlow], Given]) -> CreateFlowResult:
        """Create a flow; one that has the name already is answered as it is."""
        key, created = await flows.create_flow(info.context.batcher, input.checked())
        return CreateFlowPayload(key=key, created=created)

    @doing
    async def create_deployment(
        self, info: Info, input: Annotated[Input[CreateDeployment], Given]
    ) -> CreateDeploymentResult:
        """Create a deployment of a flow; one that the flow has under the name gets what is given."""
        key, created = _found(await flows.create_deployment(info.context.batcher, input.checked()))
        return CreateDeploymentPayload(key=key, created=created)

    @doing
    async def update_deployment(
        self, info: Info, input: Annotated[Input[UpdateDeployment], Given]
    ) -> UpdateDeploymentResult:
        """Change what is given of a deployment; what is left out stays."""
        changed = await flows.update_deployment(info.context.batcher, input.checked())
        if isinstance(changed, NotFoundError):
            raise changed
        return UpdateDeploymentPayload(key=changed)

    @doing
    async def delete_deployment(self, info: Info, id: Id) -> DeleteResult:
        """Delete a deployment with its limit and its runs that are still SCHEDULED; its other runs stay without it."""
        return await deleted(info, id, flows.delete_deployment)

    @proposing
    async def create_flow_run(self, info: Info, input: Annotated[Input[CreateFlowRun], Given]) -> CreateFlowRunResult:
        """Create a flow run; one that the flow has under the idempotency key is answered whatever the input says."""
        batcher = info.context.batcher
        made = await _created(info, runs.new_flow_run(input.checked(), batcher.new_id(), info.context.now, **who(info)))
        return CreateFlowRunPayload(key=made.run_id, made=cast("Any", made.run), created=made.created)

    @proposing
    async def run_deployment(self, info: Info, input: Annotated[Input[RunDeployment], Given]) -> CreateFlowRunResult:
        """Create a SCHEDULED run of a deployment, with the deployment's parameters and tags under those given."""
        made = _made(await runs.run_deployment(info.context.batcher, input.checked(), **who(info)))
        return CreateFlowRunPayload(key=made.run_id, made=cast("Any", made.run), created=made.created)

    @proposing
    async def create_task_run(self, info: Info, input: Annotated[Input[CreateTaskRun], Given]) -> CreateTaskRunResult:
        """Create a task run; one with the same flow run, task key and dynamic key is answered as it is."""
        batcher = info.context.batcher
        made = await _created(info, runs.new_task_run(input.checked(), batcher.new_id(), info.context.now, **who(info)))
        return CreateTaskRunPayload(key=made.run_id, made=cast("Any", made.run), created=made.created)

    @doing
    async def delete_flow_run(self, info: Info, id: Id) -> DeleteResult:
        """Delete a flow run with its states, task runs and inputs; the slots that they hold are given back."""
        return await deleted(info, id, runs.delete_flow_run)

    @doing
    async def delete_task_run(self, info: Info, id: Id) -> DeleteResult:
        """Delete a task run with its states; the slots that it holds are given back."""
        return await deleted(info, id, runs.delete_task_run)

    @proposing
    async def write_flow_run_input(
        self, info: Info, input: Annotated[Input[WriteFlowRun], Given]
    ) -> WriteFlowRunInputResult:
        """Give a flow run a value under a key; what is there under the key already is answered as it is."""
        key, created = _found(await run_inputs.write_input(info.context.batcher, input.checked()))
        return WriteFlowRunInputPayload(key=key, created=created)

    @proposing
    async def delete_flow_run_input(self, info: Info, id: Id) -> DeleteResult:
        """Delete a run input."""
        return await deleted(info, id, run_inputs.delete_input)
