"""What changes flows and runs besides their states, and what deletes flows, states and many runs at once."""

from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Any, Final, cast
from uuid import UUID

import strawberry

from runstate import errors
from runstate.core.commands import flows, runs, updates
from runstate.documents.requests import UpdateFlow, UpdateFlowRun, UpdateTaskRun
from runstate.graphql.context import Info
from runstate.graphql.families.creating import DeleteResult
from runstate.graphql.families.mutations import DeletePayload, deleted, doing, proposing
from runstate.graphql.published import Flow, FlowRun, TaskRun
from runstate.graphql.types.comparisons import as_uuid
from runstate.graphql.types.fields import Id, field, object_type
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.problems import InvalidInput, NotFound

MOST_AT_ONCE: Final = 200
Given = strawberry.argument(description="Which one, and what of it changes.")
Ids = Annotated[list[strawberry.ID], strawberry.argument(description=f"Which ones, from 1 to {MOST_AT_ONCE}.")]


@object_type
class UpdateFlowPayload:
    """The flow, changed."""

    key: strawberry.Private[UUID]

    @field
    async def flow(self, info: Info) -> Flow:
        """The flow."""
        return cast("Flow", await info.context.load(info, Flow, self.key))


@object_type
class UpdateFlowRunPayload:
    """The flow run, changed."""

    key: strawberry.Private[UUID]

    @field
    async def flow_run(self, info: Info) -> FlowRun:
        """The flow run."""
        return cast("FlowRun", await info.context.load(info, FlowRun, self.key))


@object_type
class UpdateTaskRunPayload:
    """The task run, changed."""

    key: strawberry.Private[UUID]

    @field
    async def task_run(self, info: Info) -> TaskRun:
        """The task run."""
        return cast("TaskRun", await info.context.load(info, TaskRun, self.key))


@object_type
class DeleteManyPayload:
    """What was deleted, and what was not there."""

    deleted_ids: list[strawberry.ID] = strawberry.field(description="Ids of what was deleted.")
    missing_ids: list[strawberry.ID] = strawberry.field(description="Ids that nothing had, malformed ones among them.")


UpdateFlowResult = Annotated[
    UpdateFlowPayload | NotFound | InvalidInput,
    strawberry.union("UpdateFlowResult", description="The flow, or what is wrong with the changes."),
]
UpdateFlowRunResult = Annotated[
    UpdateFlowRunPayload | NotFound | InvalidInput,
    strawberry.union("UpdateFlowRunResult", description="The flow run, or what is wrong with the changes."),
]
UpdateTaskRunResult = Annotated[
    UpdateTaskRunPayload | NotFound | InvalidInput,
    strawberry.union("UpdateTaskRunResult", description="The task run, or what is wrong with the changes."),
]
DeleteStateResult = Annotated[
    DeletePayload | NotFound | InvalidInput,
    strawberry.union("DeleteStateResult", description="What was deleted, or why nothing was."),
]
DeleteManyResult = Annotated[
    DeleteManyPayload | InvalidInput,
    strawberry.union("DeleteManyResult", description="What was deleted, or why nothing was."),
]


def _changed(outcome: UUID | errors.NotFound) -> UUID:
    if isinstance(outcome, errors.NotFound):
        raise outcome
    return outcome


async def _delete_many(
    info: Info, ids: list[strawberry.ID], delete: Callable[[Any, Collection[UUID]], Awaitable[list[UUID]]]
) -> DeleteManyPayload:
    if not 1 <= len(ids) <= MOST_AT_ONCE:
        raise errors.InvalidInput(f"From 1 to {MOST_AT_ONCE} are deleted at once.", ("ids",))
    known = {each: as_uuid(each) for each in ids}
    gone = set(await delete(info.context.batcher, {key for key in known.values() if key}))
    return DeleteManyPayload(
        deleted_ids=[strawberry.ID(str(key)) for key in dict.fromkeys(known.values()) if key in gone],
        missing_ids=[each for each, key in known.items() if key not in gone],
    )


@strawberry.type
class Mutation:
    """What changes flows and runs besides their states."""

    @doing
    async def update_flow(self, info: Info, input: Annotated[Input[UpdateFlow], Given]) -> UpdateFlowResult:
        """Change what is given of a flow; what is left out stays."""
        return UpdateFlowPayload(key=_changed(await flows.update_flow(info.context.batcher, input.checked())))

    @proposing
    async def update_flow_run(self, info: Info, input: Annotated[Input[UpdateFlowRun], Given]) -> UpdateFlowRunResult:
        """Change what is given of a flow run; what is left out stays."""
        return UpdateFlowRunPayload(key=_changed(await updates.update_flow_run(info.context.batcher, input.checked())))

    @proposing
    async def update_task_run(self, info: Info, input: Annotated[Input[UpdateTaskRun], Given]) -> UpdateTaskRunResult:
        """Change what is given of a task run; what is left out stays."""
        return UpdateTaskRunPayload(key=_changed(await updates.update_task_run(info.context.batcher, input.checked())))

    @doing
    async def delete_flow(self, info: Info, id: Id) -> DeleteResult:
        """Delete a flow with its runs, and its deployments with their limits."""
        return await deleted(info, id, flows.delete_flow)

    @doing
    async def delete_flow_runs(self, info: Info, ids: Ids) -> DeleteManyResult:
        """Delete flow runs, each as deleteFlowRun does, all at once."""
        return await _delete_many(info, ids, runs.delete_flow_runs_of)

    @doing
    async def delete_task_runs(self, info: Info, ids: Ids) -> DeleteManyResult:
        """Delete task runs, each as deleteTaskRun does, all at once."""
        return await _delete_many(info, ids, runs.delete_task_runs)

    @doing
    async def delete_flow_run_state(self, info: Info, id: Id) -> DeleteStateResult:
        """Delete a state that a flow run has left; its version stays unused."""
        return await deleted(info, id, updates.delete_flow_run_state)

    @doing
    async def delete_task_run_state(self, info: Info, id: Id) -> DeleteStateResult:
        """Delete a state that a task run has left; its version stays unused."""
        return await deleted(info, id, updates.delete_task_run_state)
