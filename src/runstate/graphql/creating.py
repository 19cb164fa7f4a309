"""Flows, runs and run inputs: what makes and deletes them."""

from typing import Annotated, Any, cast
from uuid import UUID

import strawberry

from runstate.core import flows, inputs, runs
from runstate.core.requests import Created, Outcome
from runstate.documents.requests import CreateFlow, CreateFlowRun, CreateTaskRun, RunDeployment, WriteFlowRun
from runstate.errors import RunstateError
from runstate.graphql.compare import as_uuid
from runstate.graphql.context import Info
from runstate.graphql.fields import Id, mutation, query
from runstate.graphql.inputs import Input
from runstate.graphql.problems import InvalidInput, NotFound, problem
from runstate.graphql.proposals import answered, who
from runstate.graphql.shapes import Flow, FlowRun, FlowRunInput, TaskRun

IS_NEW = "Whether it was made now; false: it was there already."


@strawberry.type(description="The flow with the name.")
class CreateFlowPayload:
    """The flow with the name."""

    id: strawberry.Private[UUID]
    created: bool = strawberry.field(description=IS_NEW)

    @query
    async def flow(self, info: Info) -> Flow:
        """The flow."""
        return cast("Flow", await info.context.load(info, Flow, self.id))


@strawberry.type(description="The flow run.")
class CreateFlowRunPayload:
    """The flow run."""

    id: strawberry.Private[UUID]
    created: bool = strawberry.field(description=IS_NEW)

    @query
    async def flow_run(self, info: Info) -> FlowRun:
        """The flow run."""
        return cast("FlowRun", await info.context.load(info, FlowRun, self.id))


@strawberry.type(description="The task run.")
class CreateTaskRunPayload:
    """The task run."""

    id: strawberry.Private[UUID]
    created: bool = strawberry.field(description=IS_NEW)

    @query
    async def task_run(self, info: Info) -> TaskRun:
        """The task run."""
        return cast("TaskRun", await info.context.load(info, TaskRun, self.id))


@strawberry.type(description="The value that the flow run has under the key.")
class WriteFlowRunInputPayload:
    """The value that the flow run has under the key."""

    id: strawberry.Private[UUID]
    created: bool = strawberry.field(description=IS_NEW)

    @query
    async def flow_run_input(self, info: Info) -> FlowRunInput:
        """The run input."""
        return cast("FlowRunInput", await info.context.load(info, FlowRunInput, self.id))


@strawberry.type(description="What was deleted.")
class DeletePayload:
    """What was deleted."""

    deleted_id: strawberry.ID = strawberry.field(description="Its id.")


CreateFlowResult = Annotated[
    CreateFlowPayload | InvalidInput,
    strawberry.union("CreateFlowResult", description="The flow, or what is wrong with the input."),
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
    DeletePayload | NotFound, strawberry.union("DeleteResult", description="What was deleted, or that it is not there.")
]


async def deleted(id: str, delete: Any, desk: Any) -> Any:
    """Delete what has an id; a malformed id has nothing."""
    known = as_uuid(id)
    if known is None or not await delete(desk, known):
        return problem(NotFoundError(id))
    return DeletePayload(deleted_id=strawberry.ID(str(known)))
